//! `--network`: Docker's short and long syntax → an attachment of the service specification. Pure.

use serde_json::{Value, json};

use super::super::error::CliError;
use super::super::json::{array, place, unset};
use super::super::parse;

/// Reads `NAME` or `name=NAME,alias=OTHER,driver-opt=KEY=VALUE`.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    if !text.contains('=') {
        return if text.is_empty() { Err("a network needs a name".to_owned()) } else { Ok(json!({ "Target": text })) };
    }
    let mut network = json!({});
    for field in parse::fields(text)? {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("--network: {field} needs a value"))?;
        match key.trim().to_lowercase().as_str() {
            "name" => network["Target"] = value.into(),
            "alias" => array(&mut network, &["Aliases"]).push(value.into()),
            "driver-opt" => {
                let (option, value) = parse::label(value)?;
                super::super::json::set(&mut network, &["DriverOpts", &option], value);
            }
            other => return Err(format!("--network: unknown option \"{other}\"; expected name, alias or driver-opt")),
        }
    }
    if network["Target"].as_str().is_none_or(str::is_empty) {
        return Err(format!("--network: name is missing in \"{text}\""));
    }
    Ok(network)
}

/// Detaches a service from networks and attaches it to others; all of them by id, the new ones with the names that
/// the user gave them.
pub(crate) fn change(spec: &mut Value, remove: &[String], add: Vec<(String, Value)>) -> Result<(), CliError> {
    // Where old versions of the API have them.
    let old = spec["Networks"].take();
    unset(spec, &["Networks"]);
    let task = place(spec, &["TaskTemplate"]);
    let list = array(task, &["Networks"]);
    if let (true, Value::Array(old)) = (list.is_empty(), old) {
        *list = old;
    }
    list.retain(|network| !remove.iter().any(|id| network["Target"] == id.as_str()));
    for (name, network) in add {
        if list.iter().any(|old| old["Target"] == network["Target"]) {
            return Err(CliError::Refused(format!("service is already attached to network {name}")));
        }
        list.push(network);
    }
    if list.is_empty() {
        unset(task, &["Networks"]);
    } else {
        sort(list);
    }
    Ok(())
}

/// The order in which Docker sends attachments.
pub(crate) fn sort(attachments: &mut [Value]) {
    attachments.sort_by(|a, b| a["Target"].as_str().cmp(&b["Target"].as_str()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        assert_eq!(parse("front"), Ok(json!({"Target": "front"})));
        let long = json!({"Target": "front", "Aliases": ["a", "b"], "DriverOpts": {"x": "y"}});
        assert_eq!(parse("name=front,alias=a,alias=b,driver-opt=x=y"), Ok(long));
        for (text, want) in [("", "needs a name"), ("alias=a", "name is missing"), ("name=a,x=1", "unknown option")] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(want), "{error}");
        }
    }

    #[test]
    fn attachments() {
        let a = || vec![("front".to_owned(), json!({"Target": "a"}))];
        let mut spec = json!({"TaskTemplate": {"Networks": [{"Target": "b"}]}});
        change(&mut spec, &[], a()).expect("free");
        assert_eq!(spec, json!({"TaskTemplate": {"Networks": [{"Target": "a"}, {"Target": "b"}]}}));
        let error = change(&mut spec, &[], a()).expect_err("attached").to_string();
        assert_eq!(error, "service is already attached to network front");
        // As in Docker, one that is not attached is no failure.
        change(&mut spec, &["a".to_owned(), "b".to_owned(), "c".to_owned()], Vec::new()).expect("attached");
        assert_eq!(spec, json!({"TaskTemplate": {}}));
    }
}
