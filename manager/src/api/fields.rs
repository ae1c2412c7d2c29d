//! Reads a JSON body field by field and refuses what nobody read.
//!
//! A converter takes the fields it implements out of a [`Fields`]; [`Fields::done`] then refuses every field
//! that is left and set. So no option is ever accepted and ignored, and there is no second list of what is
//! supported that could differ from the code. (This is why requests are not read into generated models.)
//!
//! "Set" follows Go's zero values, which Docker's clients send freely: `null`, `""`, `0`, `false`, an empty
//! list and an object without set fields are not.

use std::collections::BTreeMap;

use serde_json::Value;

use super::error::ApiError;

/// The fields of one JSON object that have not been read yet.
pub struct Fields<'a> {
    path: String,
    left: BTreeMap<&'a str, &'a Value>,
}

/// Parses a body.
///
/// # Errors
/// 400 with the place of the fault.
pub fn parse(body: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        if error.is_eof() {
            return ApiError::bad_request(if body.is_empty() { "EOF" } else { "unexpected EOF" });
        }
        let line = body.split(|b| *b == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
        let found = line.get(error.column().saturating_sub(1)).map_or(' ', |b| char::from(*b));
        let text = error.to_string();
        let what = text.split(" at line ").next().unwrap_or_default();
        let message = if what == "key must be a string" {
            format!("invalid character '{found}' looking for beginning of object key string")
        } else {
            format!("invalid JSON: {text}")
        };
        ApiError::bad_request(message)
    })
}

/// Whether a value is more than Go's zero value.
pub fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => fields.values().any(is_set),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn wrong(path: &str, wanted: &str, found: &Value) -> ApiError {
    let place = if path.is_empty() { "the body" } else { path };
    ApiError::bad_request(format!("invalid JSON: {place} must be {wanted}, not {}", kind(found)))
}

fn not_supported(path: &str) -> ApiError {
    ApiError::bad_request(format!("invalid argument: {path} is not supported yet"))
}

/// The first set field at or below `value`, for the refusal.
fn first_set(path: &str, value: &Value) -> String {
    match value {
        Value::Object(fields) => match fields.iter().find(|(_, v)| is_set(v)) {
            Some((key, inner)) => first_set(&format!("{path}.{key}"), inner),
            None => path.to_owned(),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => path.to_owned(),
    }
}

impl<'a> Fields<'a> {
    /// The fields of an object; `null` has none. `path` is empty for a body.
    pub fn of(path: &str, value: &'a Value) -> Result<Self, ApiError> {
        let left = match value {
            Value::Null => BTreeMap::new(),
            Value::Object(fields) => fields.iter().map(|(k, v)| (k.as_str(), v)).collect(),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return Err(wrong(path, "an object", value));
            }
        };
        Ok(Self { path: path.to_owned(), left })
    }

    /// Where a field is, for messages: `TaskTemplate.ContainerSpec.Image`.
    pub fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Whether a field that has not been read yet is there at all.
    pub fn has(&self, key: &str) -> bool {
        self.find(key).is_some_and(|(_, value)| !value.is_null())
    }

    /// Whether a field that has not been read yet is set.
    pub fn is_set(&self, key: &str) -> bool {
        self.find(key).is_some_and(|(_, value)| is_set(value))
    }

    /// The refusal of a field.
    pub fn refuse(&self, key: &str) -> ApiError {
        not_supported(&self.path(key))
    }

    /// A field by its exact name, else by its name in another case, as Go's decoder does it: docker-py sends
    /// `"Mode":{"global":{}}`.
    fn find(&self, key: &str) -> Option<(&'a str, &'a Value)> {
        let exact = self.left.get_key_value(key);
        let found = exact.or_else(|| self.left.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)));
        found.map(|(name, value)| (*name, *value))
    }

    fn take(&mut self, key: &str) -> Option<&'a Value> {
        let (name, value) = self.find(key)?;
        self.left.remove(name);
        Some(value).filter(|value| !value.is_null())
    }

    /// A string; an empty one is as good as none.
    pub fn text(&mut self, key: &str) -> Result<Option<String>, ApiError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone()).filter(|t| !t.is_empty())),
            Some(other) => Err(wrong(&self.path(key), "a string", other)),
        }
    }

    /// A whole number.
    pub fn int(&mut self, key: &str) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.as_i64() {
            Some(number) => Ok(Some(number)),
            None if value.is_number() => {
                Err(ApiError::bad_request(format!("invalid JSON: {} must be a whole number", self.path(key))))
            }
            None => Err(wrong(&self.path(key), "a number", value)),
        }
    }

    /// A number.
    pub fn float(&mut self, key: &str) -> Result<Option<f64>, ApiError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| wrong(&self.path(key), "a number", value))
    }

    /// A number that is not negative.
    pub fn count(&mut self, key: &str) -> Result<Option<u64>, ApiError> {
        let path = self.path(key);
        let number = self.int(key)?;
        number
            .map(|n| u64::try_from(n).map_err(|_| ApiError::invalid(format_args!("{path} cannot be negative"))))
            .transpose()
    }

    /// `true` or `false`; absent is `false`.
    pub fn flag(&mut self, key: &str) -> Result<bool, ApiError> {
        match self.take(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(wrong(&self.path(key), "true or false", other)),
        }
    }

    /// A list of strings; absent is empty.
    pub fn texts(&mut self, key: &str) -> Result<Vec<String>, ApiError> {
        let items = self.list(key)?;
        items
            .into_iter()
            .map(|(path, value)| value.as_str().map(str::to_owned).ok_or_else(|| wrong(&path, "a string", value)))
            .collect()
    }

    /// A list, each item with its path; absent is empty.
    pub fn list(&mut self, key: &str) -> Result<Vec<(String, &'a Value)>, ApiError> {
        let path = self.path(key);
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => {
                Ok(items.iter().enumerate().map(|(i, item)| (format!("{path}[{i}]"), item)).collect())
            }
            Some(other) => Err(wrong(&path, "a list", other)),
        }
    }

    /// An object of strings, such as labels; absent is empty.
    pub fn labels(&mut self, key: &str) -> Result<BTreeMap<String, String>, ApiError> {
        let path = self.path(key);
        match self.take(key) {
            None => Ok(BTreeMap::new()),
            Some(Value::Object(fields)) => fields
                .iter()
                .map(|(name, value)| match value {
                    Value::String(text) => Ok((name.clone(), text.clone())),
                    Value::Null => Ok((name.clone(), String::new())),
                    Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                        Err(wrong(&format!("{path}.{name}"), "a string", value))
                    }
                })
                .collect(),
            Some(other) => Err(wrong(&path, "an object", other)),
        }
    }

    /// An object's fields; absent has none.
    pub fn object(&mut self, key: &str) -> Result<Fields<'a>, ApiError> {
        let path = self.path(key);
        Fields::of(&path, self.take(key).unwrap_or(&Value::Null))
    }

    /// Takes a field that only says what we do anyway; any other set value is refused.
    pub fn only(&mut self, key: &str, fine: &[Value]) -> Result<(), ApiError> {
        match self.take(key) {
            Some(value) if is_set(value) && !fine.contains(value) => Err(not_supported(&self.path(key))),
            Some(_) | None => Ok(()),
        }
    }

    /// Refuses the first set field that nobody read.
    ///
    /// # Errors
    /// 400 that names the field with its full path.
    pub fn done(self) -> Result<(), ApiError> {
        match self.left.iter().find(|(_, value)| is_set(value)) {
            Some((key, value)) => Err(not_supported(&first_set(&self.path(key), value))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_parse(body: &str, want: &str) {
        assert_eq!(parse(body.as_bytes()).expect_err(body).message, want);
    }

    #[test]
    fn broken_json() {
        check_parse("{bad", "invalid character 'b' looking for beginning of object key string");
        check_parse("", "EOF");
        check_parse("{", "unexpected EOF");
        check_parse("[1,]", "invalid JSON: trailing comma at line 1 column 4");
    }

    #[track_caller]
    fn check_left(body: &str, want: Option<&str>) {
        let value = parse(body.as_bytes()).expect(body);
        let mut fields = Fields::of("", &value).expect(body);
        let _ = fields.text("Known");
        let error = fields.done().err().map(|e| e.message);
        let want = want.map(|path| format!("invalid argument: {path} is not supported yet"));
        assert_eq!(error, want, "{body}");
    }

    #[test]
    fn what_is_left_and_set_is_refused() {
        check_left(r#"{"Known":"x"}"#, None);
        check_left(r#"{"A":null,"B":"","C":0,"D":false,"E":[],"F":{},"G":{"H":{"I":0.0}}}"#, None);
        check_left(r#"{"A":{"B":{"C":0,"D":1}}}"#, Some("A.B.D"));
        check_left(r#"{"A":[0]}"#, Some("A"));
        check_left(r#"{"known":"x"}"#, None);
        check_left(r#"{"known":"x","Known":"y"}"#, Some("known"));
        check_left(r#"{"A":true}"#, Some("A"));
        check_left(r#"{"A":-1}"#, Some("A"));
    }

    #[test]
    fn types_are_named() {
        let value = parse(br#"{"A":{"B":5,"C":1.5,"D":"x"}}"#).expect("parses");
        let mut fields = Fields::of("", &value).expect("object").object("A").expect("object");
        let message = |result: Result<(), ApiError>| result.expect_err("refused").message;
        assert_eq!(message(fields.text("B").map(drop)), "invalid JSON: A.B must be a string, not a number");
        assert_eq!(message(fields.int("C").map(drop)), "invalid JSON: A.C must be a whole number");
        assert_eq!(message(fields.object("D").map(drop)), "invalid JSON: A.D must be an object, not a string");
        assert_eq!(
            message(Fields::of("", &Value::from(1)).map(drop)),
            "invalid JSON: the body must be an object, not a number"
        );
    }
}
