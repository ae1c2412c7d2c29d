//! A compose file's content: values that know where they stand.

use std::fmt;
use std::rc::Rc;

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The file, as the user named it.
    pub(crate) file: Rc<str>,
    /// Counted from 1.
    pub(crate) line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// What is wrong with a compose file, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {}{what}", if .path.is_empty() { String::new() } else { format!("{}: ", .path) })]
pub(crate) struct Fault {
    /// File and line.
    pub(crate) place: Place,
    /// `services.web.image`; empty at the top.
    pub(crate) path: String,
    /// In words.
    pub(crate) what: String,
}

/// A value and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    /// Where.
    pub(crate) at: Place,
    /// What.
    pub(crate) data: Data,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Data {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Another number.
    Float(f64),
    /// Text. `filled`: a variable was put in, so it may stand for a number.
    Text {
        /// The text.
        text: String,
        /// Whether a variable was put in.
        filled: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// A mapping; keys are unique.
    Map(Vec<Entry>),
}

/// A key of a mapping with its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// The key.
    pub(crate) key: String,
    /// Where the key stands.
    pub(crate) at: Place,
    /// Its value.
    pub(crate) value: Node,
}

/// `services` and `web` as `services.web`.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// `a string`, … for messages.
pub(crate) fn kind(data: &Data) -> &'static str {
    match data {
        Data::Null => "nothing",
        Data::Bool(_) => "true or false",
        Data::Int(_) | Data::Float(_) => "a number",
        Data::Text { .. } => "a string",
        Data::List(_) => "a list",
        Data::Map(_) => "a mapping",
    }
}

impl Node {
    /// A value at a place.
    pub(crate) fn new(at: &Place, data: Data) -> Node {
        Node { at: at.clone(), data }
    }

    /// Text at a place.
    pub(crate) fn text_at(at: &Place, text: impl Into<String>) -> Node {
        Node::new(at, Data::Text { text: text.into(), filled: false })
    }

    /// A fault at this value.
    pub(crate) fn fault(&self, path: &str, what: impl Into<String>) -> Fault {
        Fault { place: self.at.clone(), path: path.to_owned(), what: what.into() }
    }

    /// A fault about what kind of value it is.
    pub(crate) fn wrong(&self, path: &str, wanted: &str) -> Fault {
        self.fault(path, format!("expected {wanted}, found {}", kind(&self.data)))
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// A mapping's entries; of anything else none.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.data {
            Data::Map(entries) => entries,
            Data::Null | Data::Bool(_) | Data::Int(_) | Data::Float(_) | Data::Text { .. } | Data::List(_) => &[],
        }
    }

    /// A list's items; of anything else none.
    pub(crate) fn items(&self) -> &[Node] {
        match &self.data {
            Data::List(items) => items,
            Data::Null | Data::Bool(_) | Data::Int(_) | Data::Float(_) | Data::Text { .. } | Data::Map(_) => &[],
        }
    }

    /// A text; of anything else none.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.data {
            Data::Text { text, .. } => Some(text),
            Data::Null | Data::Bool(_) | Data::Int(_) | Data::Float(_) | Data::List(_) | Data::Map(_) => None,
        }
    }

    /// The text of a key, or "".
    pub(crate) fn text(&self, key: &str) -> &str {
        self.get(key).and_then(Node::as_text).unwrap_or_default()
    }

    /// The whole number of a key.
    pub(crate) fn int(&self, key: &str) -> Option<i64> {
        match self.get(key)?.data {
            Data::Int(number) => Some(number),
            _ => None,
        }
    }

    /// Whether a key is there and `true`.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|node| node.data == Data::Bool(true))
    }

    /// The texts of a list.
    pub(crate) fn texts(&self, key: &str) -> Vec<String> {
        let items = self.get(key).map(Node::items).unwrap_or_default();
        items.iter().filter_map(Node::as_text).map(str::to_owned).collect()
    }

    /// The texts of a mapping; a null value is "".
    pub(crate) fn pairs(&self, key: &str) -> Vec<(String, String)> {
        let entries = self.get(key).map(Node::entries).unwrap_or_default();
        entries.iter().map(|e| (e.key.clone(), e.value.as_text().unwrap_or_default().to_owned())).collect()
    }
}

/// A scalar as Go prints it: what a number in place of a string becomes.
pub(crate) fn scalar(data: &Data) -> Option<String> {
    match data {
        Data::Bool(flag) => Some(flag.to_string()),
        Data::Int(number) => Some(number.to_string()),
        Data::Float(number) => Some(float(*number)),
        Data::Text { text, .. } => Some(text.clone()),
        Data::Null | Data::List(_) | Data::Map(_) => None,
    }
}

/// `1.5`, `1e+06`: the shortest digits, with an exponent from a million on or below 0.0001.
fn float(number: f64) -> String {
    if number.is_infinite() {
        return if number > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() };
    }
    if number.is_nan() {
        return "NaN".to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if number == 0.0 || (-4..6).contains(&exponent) {
        return format!("{number}");
    }
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_go_prints_them() {
        for (number, want) in [
            (1.5, "1.5"),
            (0.5, "0.5"),
            (1e21, "1e+21"),
            (1.25e-7, "1.25e-07"),
            (100.0, "100"),
            (1e6, "1e+06"),
            (1_234_567.5, "1.2345675e+06"),
            (0.0, "0"),
            (-0.25, "-0.25"),
        ] {
            assert_eq!(float(number), want);
        }
    }
}
