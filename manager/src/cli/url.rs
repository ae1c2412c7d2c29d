//! Request targets: escaped paths, queries and Docker's filter objects.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// A path with its query, ready for the request line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    text: String,
    has_query: bool,
}

impl Url {
    /// `/a/b/c` from its segments; each is escaped, so that no name can leave its place.
    ///
    /// The paths carry no version: the manager then answers as its newest, and this client and the
    /// manager are one binary.
    pub(crate) fn new(segments: &[&str]) -> Url {
        let mut text = String::new();
        for segment in segments {
            text.push('/');
            escape(&mut text, segment, "");
        }
        Url { text, has_query: false }
    }

    /// `/distribution/{image}/json`: image names keep their slashes and colons.
    pub(crate) fn distribution(image: &str) -> Url {
        let mut text = "/distribution/".to_owned();
        escape(&mut text, image, "/:@");
        text.push_str("/json");
        Url { text, has_query: false }
    }

    /// Adds `key=value`.
    pub(crate) fn query(mut self, key: &str, value: &str) -> Url {
        self.text.push(if self.has_query { '&' } else { '?' });
        escape(&mut self.text, key, "");
        self.text.push('=');
        escape(&mut self.text, value, "");
        self.has_query = true;
        self
    }

    /// Adds `filters=…` unless there are none.
    pub(crate) fn filters(self, filters: &Filters) -> Url {
        if filters.0.is_empty() { self } else { self.query("filters", &filters.json()) }
    }

    /// The text of the request line.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

fn escape(out: &mut String, text: &str, keep: &str) {
    for byte in text.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "-_.~".contains(c) || keep.contains(c) {
            out.push(c);
        } else {
            write!(out, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
}

/// Docker's filters: several values of one key are alternatives, several keys must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filters(BTreeMap<String, BTreeSet<String>>);

impl Filters {
    /// From the pairs of `--filter key=value`.
    pub(crate) fn new(pairs: &[(String, String)]) -> Filters {
        let mut filters = Filters::default();
        for (key, value) in pairs {
            filters = filters.with(key, value);
        }
        filters
    }

    /// Adds one value.
    pub(crate) fn with(mut self, key: &str, value: &str) -> Filters {
        self.0.entry(key.to_owned()).or_default().insert(value.to_owned());
        self
    }

    /// The values asked for under `key`.
    pub(crate) fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// Replaces one value by another, where it is present.
    pub(crate) fn replace(&mut self, key: &str, old: &str, new: &str) {
        if let Some(values) = self.0.get_mut(key)
            && values.remove(old)
        {
            values.insert(new.to_owned());
        }
    }

    fn json(&self) -> String {
        let map = |values: &BTreeSet<String>| -> serde_json::Value {
            values.iter().map(|value| (value.clone(), serde_json::Value::Bool(true))).collect()
        };
        let all: serde_json::Value = self.0.iter().map(|(key, values)| (key.clone(), map(values))).collect();
        all.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_segment() {
        assert_eq!(Url::new(&["services", "../a b?c"]).as_str(), "/services/..%2Fa%20b%3Fc");
        let image = "127.0.0.1:5000/bb:1";
        assert_eq!(Url::distribution(image).as_str(), "/distribution/127.0.0.1:5000/bb:1/json");
    }

    #[test]
    fn filters_use_the_map_form() {
        let filters = Filters::default().with("name", "web").with("id", "x").with("name", "db");
        let url = Url::new(&["tasks"]).query("a", "1").filters(&filters);
        let want = "/tasks?a=1&filters=%7B%22id%22%3A%7B%22x%22%3Atrue%7D%2C\
                    %22name%22%3A%7B%22db%22%3Atrue%2C%22web%22%3Atrue%7D%7D";
        assert_eq!(url.as_str(), want);
        assert_eq!(Url::new(&["tasks"]).filters(&Filters::default()).as_str(), "/tasks");
    }
}
