//! Go templates for `--format`: the `gtmpl` crate with Docker's extra functions.

use std::collections::{BTreeMap, HashMap};

use gtmpl::error::{ExecError, TemplateError};
use gtmpl::{Context, FuncError, Value as Item};
use serde_json::Value;

use super::super::error::CliError;

/// A parsed template.
pub(crate) struct Template(gtmpl::Template);

/// Functions beyond Go's own that Docker's templates know.
const FUNCTIONS: [(&str, gtmpl::Func); 8] = [
    ("json", json),
    ("split", split),
    ("join", join),
    ("title", title),
    ("lower", lower),
    ("upper", upper),
    ("pad", pad),
    ("truncate", truncate),
];

impl Template {
    /// Parses `text`; `\t` and `\n` written out stand for a tab and a newline.
    pub(crate) fn parse(text: &str) -> Result<Template, CliError> {
        Template::with(text, &FUNCTIONS)
    }

    /// As `parse`, for a heading: `{{json .Name}}` must show the bare heading.
    pub(crate) fn parse_heading(text: &str) -> Result<Template, CliError> {
        let bare = FUNCTIONS.map(|(name, function)| (name, if name == "json" { first } else { function }));
        Template::with(text, &bare)
    }

    fn with(text: &str, functions: &[(&str, gtmpl::Func)]) -> Result<Template, CliError> {
        let mut template = gtmpl::Template::with_name("format");
        template.add_funcs(functions);
        template
            .parse(text.replace("\\t", "\t").replace("\\n", "\n"))
            .map_err(|e| CliError::Usage(format!("template: {}", readable(&e))))?;
        Ok(Template(template))
    }

    /// Fills the template with one row; an unknown column is an error.
    pub(crate) fn row(&self, row: &Value) -> Result<String, CliError> {
        let fields = row.as_object().into_iter().flatten();
        let fields = fields.map(|(key, value)| (key.clone(), item(value))).collect();
        self.render(Item::Object(fields))
    }

    /// Fills the template with any JSON; what is absent reads `<no value>`.
    pub(crate) fn value(&self, value: &Value) -> Result<String, CliError> {
        self.render(item(value))
    }

    fn render(&self, value: Item) -> Result<String, CliError> {
        self.0.render(&Context::from(value)).map_err(|error| {
            CliError::Template(match error.into() {
                TemplateError::ExecError(ExecError::NoFiledFor(field, _)) => format!("there is no field .{field}"),
                TemplateError::ExecError(ExecError::OnlyMapsAndObjectsHaveFields) => {
                    "a field is asked of something that has no fields".to_owned()
                }
                TemplateError::ExecError(error) => readable(&error),
                TemplateError::ParseError(error) => readable(&error),
            })
        })
    }
}

/// The library's message without the control characters it may quote.
fn readable(error: &dyn std::fmt::Display) -> String {
    error.to_string().chars().filter(|c| !c.is_control()).collect()
}

fn item(value: &Value) -> Item {
    match value {
        Value::Null => Item::Nil,
        Value::Bool(flag) => Item::Bool(*flag),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(n), _, _) => n.into(),
            (None, Some(n), _) => n.into(),
            (None, None, n) => n.unwrap_or_default().into(),
        },
        Value::String(text) => text.clone().into(),
        Value::Array(items) => Item::Array(items.iter().map(item).collect()),
        Value::Object(map) => Item::Map(map.iter().map(|(k, v)| (k.clone(), item(v))).collect::<HashMap<_, _>>()),
    }
}

fn plain(item: &Item) -> Value {
    match item {
        Item::NoValue | Item::Nil | Item::Function(_) => Value::Null,
        Item::Bool(flag) => (*flag).into(),
        Item::String(text) => text.clone().into(),
        Item::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(n), _) => n.into(),
            (None, Some(n)) => n.into(),
            (None, None) => number.as_f64().into(),
        },
        Item::Array(items) => items.iter().map(plain).collect(),
        // Sorted, as Go prints maps.
        Item::Object(map) | Item::Map(map) => {
            let sorted: BTreeMap<_, _> = map.iter().map(|(k, v)| (k.clone(), plain(v))).collect();
            sorted.into_iter().collect()
        }
    }
}

fn argument(args: &[Item], index: usize) -> Result<&Item, FuncError> {
    args.get(index).ok_or_else(|| FuncError::Generic(format!("argument {} is missing", index + 1)))
}

fn string(args: &[Item], index: usize) -> Result<String, FuncError> {
    argument(args, index).map(ToString::to_string)
}

fn size(args: &[Item], index: usize) -> Result<usize, FuncError> {
    let wrong = || FuncError::Generic(format!("argument {} must be a number up to 10000", index + 1));
    let Item::Number(number) = argument(args, index)? else { return Err(wrong()) };
    number.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= 10_000).ok_or_else(wrong)
}

fn json(args: &[Item]) -> Result<Item, FuncError> {
    Ok(plain(argument(args, 0)?).to_string().into())
}

fn first(args: &[Item]) -> Result<Item, FuncError> {
    argument(args, 0).cloned()
}

fn split(args: &[Item]) -> Result<Item, FuncError> {
    let (text, separator) = (string(args, 0)?, string(args, 1)?);
    Ok(Item::Array(text.split(&separator).map(Item::from).collect()))
}

fn join(args: &[Item]) -> Result<Item, FuncError> {
    let Item::Array(items) = argument(args, 0)? else {
        return Err(FuncError::Generic("join needs a list".to_owned()));
    };
    let texts: Vec<String> = items.iter().map(ToString::to_string).collect();
    Ok(texts.join(&string(args, 1)?).into())
}

fn title(args: &[Item]) -> Result<Item, FuncError> {
    let words: Vec<String> = string(args, 0)?.split(' ').map(super::human::title).collect();
    Ok(words.join(" ").into())
}

fn lower(args: &[Item]) -> Result<Item, FuncError> {
    Ok(string(args, 0)?.to_lowercase().into())
}

fn upper(args: &[Item]) -> Result<Item, FuncError> {
    Ok(string(args, 0)?.to_uppercase().into())
}

fn pad(args: &[Item]) -> Result<Item, FuncError> {
    let (text, before, after) = (string(args, 0)?, size(args, 1)?, size(args, 2)?);
    if text.is_empty() {
        return Ok(text.into());
    }
    Ok(format!("{}{text}{}", " ".repeat(before), " ".repeat(after)).into())
}

fn truncate(args: &[Item]) -> Result<Item, FuncError> {
    let length = size(args, 1)?;
    Ok(string(args, 0)?.chars().take(length).collect::<String>().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(template: &str, want: Result<&str, &str>) {
        let row = json!({"Name": "web", "Self": true, "List": ["a", "b"], "N": 5, "Map": {"b": 1, "a": [2]}});
        let got = Template::parse(template).and_then(|t| t.row(&row));
        match (got, want) {
            (Ok(got), Ok(want)) => assert_eq!(got, want),
            (Err(got), Err(want)) => assert!(got.to_string().contains(want), "{got}"),
            (got, want) => panic!("{got:?} instead of {want:?}"),
        }
    }

    #[test]
    fn templates() {
        check("{{.Name}}\\t{{.N}}", Ok("web\t5"));
        check("{{.Name}}{{if .Self}}*{{else}} {{end}}", Ok("web*"));
        check("{{json .Map}}", Ok("{\"a\":[2],\"b\":1}"));
        check("{{upper .Name}} {{title .Name}} {{lower \"X\"}}", Ok("WEB Web x"));
        check("{{join .List \"+\"}} {{len .List}} {{index .List 1}}", Ok("a+b 2 b"));
        check("{{range .List}}<{{.}}>{{end}}", Ok("<a><b>"));
        check("{{pad .Name 1 2}}|{{truncate .Name 2}}", Ok(" web  |we"));
        check("{{.Map.none}}", Ok("<no value>"));
        check("{{join (split .Name \"e\") \".\"}}", Ok("w.b"));
        check("{{printf \"%-5s|\" .Name}}", Ok("web  |"));
        check("{{.Nope}}", Err("there is no field .Nope"));
        check("{{.Name", Err(""));
        check("{{nope .Name}}", Err(""));
        check("{{pad .Name 99999999 1}}", Err("10000"));
    }
}
