//! The `filters` parameter: `{"name":{"web":true}}` (docker) or `{"name":["web"]}` (everybody else).
//!
//! Values of one key are alternatives, except labels, which must all match; keys must all match.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::error::ApiError;

/// Parsed filters; empty matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, BTreeSet<String>>);

impl Filters {
    /// Reads both encodings; keys outside `known` are refused.
    ///
    /// # Errors
    /// 400.
    pub fn parse(text: &str, known: &[&str]) -> Result<Self, ApiError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let broken =
            || ApiError::bad_request(format!("invalid filters: {text:?} is not an object of lists or of sets"));
        let value: Value = serde_json::from_str(text).map_err(|_| broken())?;
        let fields = match &value {
            Value::Object(fields) => fields,
            Value::Null => return Ok(Self::default()),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => return Err(broken()),
        };
        let mut filters = BTreeMap::new();
        for (key, values) in fields {
            let values: Option<BTreeSet<String>> = match values {
                Value::Array(items) => items.iter().map(|v| v.as_str().map(str::to_owned)).collect(),
                Value::Object(set) => set
                    .iter()
                    .filter(|(_, on)| **on != Value::Bool(false))
                    .map(|(value, on)| on.is_boolean().then(|| value.clone()))
                    .collect(),
                Value::Null => Some(BTreeSet::new()),
                Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
            };
            if !known.contains(&key.as_str()) {
                return Err(ApiError::bad_request(format!("Invalid filter '{key}'")));
            }
            let values = values.ok_or_else(broken)?;
            if !values.is_empty() {
                filters.insert(key.clone(), values);
            }
        }
        Ok(Self(filters))
    }

    /// The values of a key; none: it is not filtered by.
    pub fn values(&self, key: &str) -> Option<impl Iterator<Item = &str>> {
        self.0.get(key).map(|values| values.iter().map(String::as_str))
    }

    /// Whether one of the key's values satisfies `test`; true if it is not filtered by.
    pub fn any(&self, key: &str, test: impl FnMut(&str) -> bool) -> bool {
        self.values(key).is_none_or(|mut values| values.any(test))
    }

    /// Whether `text` is one of the key's values.
    pub fn is(&self, key: &str, text: &str) -> bool {
        self.any(key, |value| value == text)
    }

    /// Whether `text` begins with one of the key's values.
    pub fn begins(&self, key: &str, text: &str) -> bool {
        self.any(key, |value| text.starts_with(value))
    }

    /// Whether the labels have all that is asked for: `key` or `key=value`.
    pub fn labels(&self, key: &str, labels: &BTreeMap<String, String>) -> bool {
        self.values(key).is_none_or(|mut wanted| {
            wanted.all(|want| match want.split_once('=') {
                Some((name, value)) => labels.get(name).is_some_and(|have| have == value),
                None => labels.contains_key(want),
            })
        })
    }

    /// Refuses values of a key that `fine` does not know.
    ///
    /// # Errors
    /// 400.
    pub fn check(&self, key: &str, fine: impl Fn(&str) -> bool) -> Result<(), ApiError> {
        match self.values(key).and_then(|mut values| values.find(|value| !fine(value))) {
            Some(bad) => Err(ApiError::bad_request(format!("Invalid filter '{key}={bad}'"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["name", "label"];

    #[track_caller]
    fn check(text: &str, want: &[&str]) {
        let filters = Filters::parse(text, KNOWN).expect(text);
        let got: Vec<&str> = filters.values("name").map(Iterator::collect).unwrap_or_default();
        assert_eq!(got, want, "{text}");
    }

    #[track_caller]
    fn check_refused(text: &str, want: &str) {
        let error = Filters::parse(text, KNOWN).expect_err(text);
        assert!(error.status == 400 && error.message.contains(want), "{error:?}");
    }

    #[test]
    fn both_encodings() {
        check(r#"{"name":{"web":true,"db":true}}"#, &["db", "web"]);
        check(r#"{"name":["web","db"]}"#, &["db", "web"]);
        check(r#"{"name":{"web":false}}"#, &[]);
        for empty in ["", "{}", "null", r#"{"name":[]}"#, r#"{"name":{}}"#, r#"{"name":null}"#] {
            check(empty, &[]);
        }
    }

    #[test]
    fn refused() {
        check_refused(r#"{"foo":{"bar":true}}"#, "Invalid filter 'foo'");
        check_refused(r#"{"foo":[]}"#, "Invalid filter 'foo'");
        for text in ["x", "[]", "1", r#"{"name":"web"}"#, r#"{"name":[1]}"#, r#"{"name":{"a":1}}"#, r#"{"name":true}"#]
        {
            check_refused(text, "invalid filters");
        }
    }

    #[test]
    fn matching() {
        let filters = Filters::parse(r#"{"name":["we","db"],"label":["a=1","b"]}"#, KNOWN).expect("parses");
        assert!(filters.begins("name", "web") && !filters.begins("name", "aweb"));
        assert!(filters.is("name", "db") && !filters.is("name", "web"));
        assert!(filters.is("other", "anything"));
        let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        assert!(filters.labels("label", &labels(&[("a", "1"), ("b", "x")])));
        assert!(!filters.labels("label", &labels(&[("a", "2"), ("b", "x")])));
        assert!(!filters.labels("label", &labels(&[("a", "1")])));
        assert!(filters.check("name", |v| v.len() == 2).is_ok());
        assert!(filters.check("name", |v| v == "db").is_err());
    }
}
