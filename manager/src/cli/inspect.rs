//! What all `inspect` commands share: JSON, templates, or text for people.

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer};

use super::args::InspectFlags;
use super::console::Console;
use super::error::CliError;
use super::format::template::Template;

/// Prints the objects found, then reports those that were not.
pub(crate) fn print(
    found: Vec<Result<Value, CliError>>,
    flags: &InspectFlags,
    pretty: impl Fn(&Value, &Console) -> String,
    console: &mut Console,
) -> Result<(), CliError> {
    let (mut objects, mut errors) = (Vec::new(), Vec::new());
    for item in found {
        match item {
            Ok(object) => objects.push(object),
            Err(error) => errors.push(error),
        }
    }
    match flags.format.as_deref() {
        _ if flags.pretty => {
            for (i, object) in objects.iter().enumerate() {
                if i > 0 {
                    console.say("")?;
                }
                let text = pretty(object, console);
                console.out.write_all(text.as_bytes())?;
            }
        }
        None => console.say(indented(&Value::Array(objects), b"    "))?,
        Some("json") => console.say(Value::Array(objects).to_string())?,
        Some(text) => {
            let template = Template::parse(text)?;
            for object in &objects {
                console.say(template.value(object)?)?;
            }
        }
    }
    CliError::collect(errors)
}

fn indented(value: &Value, indent: &[u8]) -> String {
    let mut bytes = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(indent));
    value.serialize(&mut serializer).expect("a JSON value always serialises into memory");
    String::from_utf8(bytes).expect("JSON is UTF-8")
}
