//! A request, taken apart: path, query, body. Pure.

use std::collections::BTreeMap;

use hyper::{HeaderMap, Method};
use serde_json::Value;

use super::error::ApiError;
use super::fields;
use super::filter::Filters;
use crate::store::AccessRole;

/// A request whose body has been read and whose path has been matched.
pub struct Request {
    /// What whoever asks may do. The route's need was looked at already.
    pub role: AccessRole,
    /// The method; `HEAD` was turned into `GET`.
    pub method: Method,
    /// The version of Docker's API that is spoken.
    pub api_version: (u32, u32),
    /// What the pattern's `{…}` stood for.
    pub name: String,
    /// Query parameters; of several with one name the first.
    pub query: BTreeMap<String, String>,
    /// Headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Request {
    /// Without headers and body: both may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("method", &self.method).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Request {
    /// The body as JSON.
    pub fn json(&self) -> Result<Value, ApiError> {
        fields::parse(&self.body)
    }

    /// A query parameter.
    pub fn param(&self, key: &str) -> Option<&str> {
        self.query.get(key).map(String::as_str)
    }

    /// A query parameter that is on or off; Docker takes anything but these for on.
    pub fn flag(&self, key: &str) -> bool {
        self.param(key).is_some_and(|text| {
            !matches!(text.trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
        })
    }

    /// The filters, of which only `known` may occur.
    pub fn filters(&self, known: &[&str]) -> Result<Filters, ApiError> {
        Filters::parse(self.param("filters").unwrap_or_default(), known)
    }

    /// The object version that an update is based on; `kind` for the message.
    pub fn version(&self, kind: &str) -> Result<u64, ApiError> {
        let text = self.param("version").unwrap_or_default();
        text.parse().map_err(|error: std::num::ParseIntError| {
            let is_large = matches!(error.kind(), std::num::IntErrorKind::PosOverflow);
            let why = if is_large { "value out of range" } else { "invalid syntax" };
            // Go's words: some clients look for them.
            ApiError::bad_request(format!(
                "invalid {kind} version '{text}': strconv.ParseUint: parsing {text:?}: {why}"
            ))
        })
    }
}

/// Splits a query string.
pub fn query(text: &str) -> BTreeMap<String, String> {
    let mut query = BTreeMap::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        query.entry(decode(key, true)).or_insert_with(|| decode(value, true));
    }
    query
}

/// Undoes percent encoding; what is not encoded properly stays as it is.
pub fn decode(text: &str, plus_is_space: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).and_then(|d| std::str::from_utf8(d).ok());
        let encoded = digits
            .filter(|d| byte == b'%' && d.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|d| u8::from_str_radix(d, 16).ok());
        match encoded {
            Some(value) => {
                out.push(value);
                at += 3;
            }
            None => {
                out.push(if byte == b'+' && plus_is_space { b' ' } else { byte });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn get(query_text: &str) -> Request {
        Request {
            role: AccessRole::Admin,
            method: Method::GET,
            api_version: (1, 47),
            name: String::new(),
            query: query(query_text),
            headers: HeaderMap::new(),
            body: Vec::new(),
        }
    }

    #[test]
    fn decoding() {
        for (text, want) in [
            ("a%20b", "a b"),
            ("%", "%"),
            ("%4", "%4"),
            ("%zz", "%zz"),
            ("%C3%A4", "ä"),
            ("a+b", "a+b"),
            ("%+1", "%+1"),
        ] {
            assert_eq!(decode(text, false), want);
        }
        let query = query("a=1&b=x%26y&c&a=2&=z&d=1+2");
        assert_eq!(query.get("a").map(String::as_str), Some("1"));
        assert_eq!(query.get("b").map(String::as_str), Some("x&y"));
        assert_eq!(query.get("c").map(String::as_str), Some(""));
        assert_eq!(query.get("d").map(String::as_str), Some("1 2"));
    }

    #[test]
    fn flags() {
        for (query, want) in [
            ("f=1", true),
            ("f=true", true),
            ("f=yes", true),
            ("f=0", false),
            ("f=False", false),
            ("f", false),
            ("", false),
        ] {
            assert_eq!(get(query).flag("f"), want, "{query}");
        }
    }

    #[test]
    fn versions() {
        assert_eq!(get("version=12").version("service"), Ok(12));
        let message = |query| get(query).version("service").expect_err(query).message;
        assert_eq!(message(""), r#"invalid service version '': strconv.ParseUint: parsing "": invalid syntax"#);
        assert_eq!(
            message("version=-1"),
            r#"invalid service version '-1': strconv.ParseUint: parsing "-1": invalid syntax"#
        );
        assert!(message("version=99999999999999999999").ends_with("value out of range"));
    }
}
