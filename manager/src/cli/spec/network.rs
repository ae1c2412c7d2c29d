//! `--network`: Docker's short and long syntax → an attachment of the service specification. Pure.

use serde_json::{Value, json};

use super::super::error::CliError;
use super::super::json::{array, unset};
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

/// Detaches a service from networks and attaches it to others; all of them by id.
pub(crate) fn change(task: &mut Value, remove: &[String], add: &[Value]) -> Result<(), CliError> {
    let list = array(task, &["Networks"]);
    for id in remove {
        let before = list.len();
        list.retain(|network| network["Target"] != id.as_str());
        if list.len() == before {
            return Err(CliError::Usage(format!("service is not attached to network {id}")));
        }
    }
    for network in add {
        if list.iter().any(|old| old["Target"] == network["Target"]) {
            let id = network["Target"].as_str().unwrap_or_default();
            return Err(CliError::Usage(format!("service is already attached to network {id}")));
        }
        list.push(network.clone());
    }
    list.sort_by(|a, b| a["Target"].as_str().cmp(&b["Target"].as_str()));
    if list.is_empty() {
        unset(task, &["Networks"]);
    }
    Ok(())
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
        let mut task = json!({"Networks": [{"Target": "b"}]});
        change(&mut task, &[], &[json!({"Target": "a"})]).expect("free");
        assert_eq!(task, json!({"Networks": [{"Target": "a"}, {"Target": "b"}]}));
        assert!(change(&mut task, &[], &[json!({"Target": "a"})]).is_err());
        assert!(change(&mut task, &["c".to_owned()], &[]).is_err());
        change(&mut task, &["a".to_owned(), "b".to_owned()], &[]).expect("attached");
        assert_eq!(task, json!({}));
    }
}
