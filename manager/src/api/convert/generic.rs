//! Generic resources, both ways.
//!
//! The models have one object where Docker has a list; so lists are put into the JSON afterwards.

use std::collections::BTreeMap;

use racimo_common::limits::GENERIC_KINDS_MAX;
use racimo_common::object::{Generic, Generics, check_kind};
use serde_json::{Value, json};

use crate::api::error::ApiError;
use crate::api::fields::Fields;

/// The field's name.
pub const FIELD: &str = "GenericResources";

/// Reads what a service asks for: numbers, because names are the board's to choose.
///
/// # Errors
/// 400 that names the entry.
pub fn read(fields: &mut Fields<'_>) -> Result<BTreeMap<String, u64>, ApiError> {
    let mut asked = BTreeMap::new();
    for (path, item) in fields.list(FIELD)? {
        let mut item = Fields::of(&path, item)?;
        if item.is_set("NamedResourceSpec") {
            return Err(ApiError::invalid(format_args!(
                "{path}.NamedResourceSpec: named generic resources are not supported for services: ask for a number"
            )));
        }
        let mut discrete = item.object("DiscreteResourceSpec")?;
        let kind = discrete.text("Kind")?.unwrap_or_default();
        check_kind(&kind).map_err(|error| ApiError::invalid(format_args!("{path}: {error}")))?;
        let count = discrete.count("Value")?.unwrap_or_default();
        discrete.done()?;
        item.done()?;
        if asked.contains_key(&kind) {
            return Err(ApiError::invalid(format_args!("{path}: the generic resource {kind} is there twice")));
        }
        // None of a kind can be had anywhere.
        if count > 0 {
            asked.insert(kind, count);
        }
    }
    if asked.len() > GENERIC_KINDS_MAX {
        let most = format_args!("at most {GENERIC_KINDS_MAX} kinds of generic resources are possible");
        return Err(ApiError::invalid(most));
    }
    Ok(asked)
}

/// What a service asks for.
pub fn asked(asked: &BTreeMap<String, u64>) -> Vec<Value> {
    asked.iter().map(|(kind, count)| discrete(kind, *count)).collect()
}

/// What a node offers, or a task was granted.
pub fn list(generics: &Generics) -> Vec<Value> {
    let one = |(kind, generic): (&String, &Generic)| match generic {
        Generic::Count(count) => vec![discrete(kind, *count)],
        Generic::Named(names) => {
            names.iter().map(|name| json!({"NamedResourceSpec": {"Kind": kind, "Value": name}})).collect()
        }
    };
    generics.iter().flat_map(one).collect()
}

fn discrete(kind: &str, count: u64) -> Value {
    json!({"DiscreteResourceSpec": {"Kind": kind, "Value": count}})
}

/// Puts a list into the object at `pointer`, unless it is empty.
pub fn put(root: &mut Value, pointer: &str, list: Vec<Value>) {
    if let (Some(Value::Object(fields)), false) = (root.pointer_mut(pointer), list.is_empty()) {
        fields.insert(FIELD.to_owned(), list.into());
    }
}

#[cfg(test)]
mod tests {
    use racimo_common::object::parse_generics;

    use super::*;

    #[track_caller]
    fn check(list: Value, want: Result<&[(&str, u64)], &str>) {
        let body = json!({FIELD: list});
        let got = read(&mut Fields::of("R", &body).expect("an object"));
        match (got, want) {
            (Ok(got), Ok(want)) => assert_eq!(got.iter().map(|(k, n)| (k.as_str(), *n)).collect::<Vec<_>>(), want),
            (Err(got), Err(want)) => assert!(got.message.contains(want), "{}", got.message),
            (got, want) => panic!("{:?}, expected {want:?}", got.map_err(|error| error.message)),
        }
    }

    #[test]
    fn what_a_service_asks_for() {
        let gpio = |count: i64| json!({"DiscreteResourceSpec": {"Kind": "gpio", "Value": count}});
        check(json!([]), Ok(&[]));
        check(json!([gpio(2), {"DiscreteResourceSpec": {"Kind": "a", "Value": 1}}]), Ok(&[("a", 1), ("gpio", 2)]));
        check(json!([gpio(0)]), Ok(&[]));
        check(json!([gpio(-1)]), Err("R.GenericResources[0].DiscreteResourceSpec.Value cannot be negative"));
        check(json!([gpio(1), gpio(2)]), Err("R.GenericResources[1]: the generic resource gpio is there twice"));
        check(json!([{}]), Err("is not a kind of generic resources"));
        check(json!([{"DiscreteResourceSpec": {"Kind": "a b", "Value": 1}}]), Err("\"a b\" is not a kind"));
        check(json!([{"NamedResourceSpec": {"Kind": "modem", "Value": "x"}}]), Err("ask for a number"));
        check(json!([{"Other": 1}]), Err("is not"));
        let many: Vec<Value> = (0..=GENERIC_KINDS_MAX)
            .map(|number| json!({"DiscreteResourceSpec": {"Kind": format!("k{number}"), "Value": 1}}))
            .collect();
        check(many.into(), Err("at most 16 kinds"));
    }

    #[test]
    fn lists_are_dockers() {
        let generics = parse_generics(["gpio=2", "modem=b", "modem=a"]).expect("terms");
        let mut body = json!({"Resources": {}});
        put(&mut body, "/Resources", list(&generics));
        put(&mut body, "/Nothing", list(&generics));
        put(&mut body, "", Vec::new());
        let want = json!([
            {"DiscreteResourceSpec": {"Kind": "gpio", "Value": 2}},
            {"NamedResourceSpec": {"Kind": "modem", "Value": "a"}},
            {"NamedResourceSpec": {"Kind": "modem", "Value": "b"}},
        ]);
        assert_eq!(body, json!({"Resources": {"GenericResources": want}}));
    }
}
