//! Reading Docker's JSON.
//!
//! The client reads `serde_json::Value`, not typed models: what it does not know must survive a
//! round trip (`service update` sends the whole spec back), and a new enum value from a newer
//! manager must not stop a listing.

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Lenient look-ups by JSON pointer (`/Spec/Name`): what is absent reads as empty.
pub(crate) trait Peek {
    /// The string at `pointer`, or "".
    fn text(&self, pointer: &str) -> &str;
    /// The integer at `pointer`, if it is one.
    fn int(&self, pointer: &str) -> Option<i64>;
    /// The array at `pointer`, or nothing.
    fn list(&self, pointer: &str) -> &[Value];
    /// The object's entries at `pointer`, or nothing.
    fn entries(&self, pointer: &str) -> impl Iterator<Item = (&String, &Value)>;
    /// Whether something other than null stands at `pointer`.
    fn has(&self, pointer: &str) -> bool;
    /// The RFC 3339 time at `pointer`.
    fn time(&self, pointer: &str) -> Option<OffsetDateTime>;
}

impl Peek for Value {
    fn text(&self, pointer: &str) -> &str {
        self.pointer(pointer).and_then(Value::as_str).unwrap_or("")
    }

    fn int(&self, pointer: &str) -> Option<i64> {
        self.pointer(pointer).and_then(Value::as_i64)
    }

    fn list(&self, pointer: &str) -> &[Value] {
        self.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    fn entries(&self, pointer: &str) -> impl Iterator<Item = (&String, &Value)> {
        self.pointer(pointer).and_then(Value::as_object).into_iter().flat_map(Map::iter)
    }

    fn has(&self, pointer: &str) -> bool {
        self.pointer(pointer).is_some_and(|value| !value.is_null())
    }

    fn time(&self, pointer: &str) -> Option<OffsetDateTime> {
        OffsetDateTime::parse(self.text(pointer), &Rfc3339).ok()
    }
}

/// The place at `path`, made of objects on the way. What is not an object there is replaced.
pub(crate) fn place<'a>(root: &'a mut Value, path: &[&str]) -> &'a mut Value {
    let mut here = root;
    for key in path {
        if !here.is_object() {
            *here = json!({});
        }
        here = here.as_object_mut().expect("made an object above").entry((*key).to_owned()).or_insert(Value::Null);
    }
    here
}

/// Puts `value` at `path`.
pub(crate) fn set(root: &mut Value, path: &[&str], value: impl Into<Value>) {
    *place(root, path) = value.into();
}

/// Takes what stands at `path` away; its parents stay.
pub(crate) fn unset(root: &mut Value, path: &[&str]) {
    let Some((last, parents)) = path.split_last() else { return };
    let mut here = root;
    for key in parents {
        match here.get_mut(*key) {
            Some(next) => here = next,
            None => return,
        }
    }
    if let Some(map) = here.as_object_mut() {
        map.shift_remove(*last);
    }
}

/// The array at `path`, made when absent.
pub(crate) fn array<'a>(root: &'a mut Value, path: &[&str]) -> &'a mut Vec<Value> {
    let here = place(root, path);
    if !here.is_array() {
        *here = json!([]);
    }
    here.as_array_mut().expect("made an array above")
}

/// The object at `path`, made when absent.
pub(crate) fn object<'a>(root: &'a mut Value, path: &[&str]) -> &'a mut Map<String, Value> {
    let here = place(root, path);
    if !here.is_object() {
        *here = json!({});
    }
    here.as_object_mut().expect("made an object above")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_and_taken_away() {
        let mut spec = json!({"Name": "web", "Resources": null});
        set(&mut spec, &["Resources", "Limits", "Pids"], 5);
        array(&mut spec, &["Env"]).push(json!("A=1"));
        assert_eq!(spec, json!({"Name": "web", "Resources": {"Limits": {"Pids": 5}}, "Env": ["A=1"]}));
        unset(&mut spec, &["Resources", "Limits", "Pids"]);
        unset(&mut spec, &["Nothing", "Here"]);
        assert_eq!(spec, json!({"Name": "web", "Resources": {"Limits": {}}, "Env": ["A=1"]}));
    }

    #[test]
    fn absent_reads_as_empty() {
        let value = json!({"A": null, "B": "x", "T": "2026-11-20T11:13:57.005210136Z"});
        assert_eq!((value.text("/A"), value.text("/B"), value.int("/B")), ("", "x", None));
        assert!(!value.has("/A") && value.list("/C").is_empty() && value.entries("/B").next().is_none());
        assert_eq!(value.time("/T").map(|t| t.nanosecond()), Some(5_210_136));
    }
}
