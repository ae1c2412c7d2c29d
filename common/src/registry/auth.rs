//! Credentials, and what registries ask for in `WWW-Authenticate`.

use std::fmt;

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD};
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};

/// Docker pads, other clients don't.
const URL_SAFE_ANY: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How to log in at a registry. Never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Credentials {
    /// A user and a password or access token.
    Password {
        /// User name.
        username: String,
        /// Password.
        password: String,
    },
    /// A refresh token for the registry's token server.
    IdentityToken(String),
}

/// An `X-Registry-Auth` header that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("X-Registry-Auth is not base64url-encoded JSON with username and password or identitytoken")]
pub struct BadAuthHeader;

impl Credentials {
    /// Reads Docker's `X-Registry-Auth` header. No credentials in it: `None`.
    ///
    /// # Errors
    /// [`BadAuthHeader`]; the content is not repeated in it.
    pub fn from_header(header: &str) -> Result<Option<Self>, BadAuthHeader> {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct AuthConfig {
            username: String,
            password: String,
            identitytoken: String,
            /// base64 of `user:password`, as in Docker's configuration file.
            auth: String,
        }
        let header = header.trim();
        if header.is_empty() {
            return Ok(None);
        }
        let json = URL_SAFE_ANY.decode(header).map_err(|_| BadAuthHeader)?;
        let config: AuthConfig = serde_json::from_slice(&json).map_err(|_| BadAuthHeader)?;
        if !config.identitytoken.is_empty() {
            return Ok(Some(Self::IdentityToken(config.identitytoken)));
        }
        let (username, password) = if config.username.is_empty() && !config.auth.is_empty() {
            let pair = STANDARD.decode(&config.auth).map_err(|_| BadAuthHeader)?;
            let pair = String::from_utf8(pair).map_err(|_| BadAuthHeader)?;
            let (username, password) = pair.split_once(':').ok_or(BadAuthHeader)?;
            (username.to_owned(), password.trim_end_matches('\0').to_owned())
        } else {
            (config.username, config.password)
        };
        Ok((!username.is_empty()).then_some(Self::Password { username, password }))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { .. } => f.write_str("Password(secret)"),
            Self::IdentityToken(_) => f.write_str("IdentityToken(secret)"),
        }
    }
}

/// The value of an `Authorization: Basic` header.
pub(super) fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

/// What a registry wants before it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A token from the server at `realm`.
    Bearer {
        /// The token server's URL.
        realm: String,
        /// Passed on to it.
        service: Option<String>,
        /// Passed on to it.
        scope: Option<String>,
    },
    /// User and password with every request.
    Basic,
}

/// The challenge to answer among those of the `WWW-Authenticate` headers.
/// Tokens are preferred: they don't show the password to the registry.
pub(super) fn choose<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = None;
    for (scheme, params) in headers.flat_map(challenges) {
        let param =
            |name: &str| params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone());
        if scheme.eq_ignore_ascii_case("bearer") {
            if let Some(realm) = param("realm") {
                return Some(Challenge::Bearer { realm, service: param("service"), scope: param("scope") });
            }
        } else if scheme.eq_ignore_ascii_case("basic") {
            basic = Some(Challenge::Basic);
        }
    }
    basic
}

type Params = Vec<(String, String)>;

/// Splits `Scheme key=value, key="value", Scheme2 …` (RFC 9110 §11.6.1).
/// Total: what it cannot read ends the list.
fn challenges(header: &str) -> Vec<(String, Params)> {
    let mut found: Vec<(String, Params)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=', '"']).unwrap_or(rest.len());
        if end == 0 {
            return found;
        }
        let (word, tail) = rest.split_at(end);
        let Some(value) = tail.trim_start().strip_prefix('=') else {
            found.push((word.to_owned(), Params::new()));
            rest = tail;
            continue;
        };
        let (value, tail) = take_value(value.trim_start());
        match found.last_mut() {
            Some((_, params)) => params.push((word.to_owned(), value)),
            None => return found,
        }
        rest = tail;
    }
}

fn take_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

/// Percent-encodes for a query or form.
pub(super) fn encode(text: &str) -> String {
    use fmt::Write;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => write!(encoded, "%{byte:02X}").expect("a String takes any text"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(headers: &[&str], expected: Option<Challenge>) {
        assert_eq!(choose(headers.iter().copied()), expected);
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer { realm: realm.into(), service: service.map(Into::into), scope: scope.map(Into::into) })
    }

    #[test]
    fn challenge() {
        check(
            &[
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
            ],
            bearer("https://auth.docker.io/token", Some("registry.docker.io"), Some("repository:a/b:pull,push")),
        );
        check(&[r#"bearer Realm = "a\"b" , service=x"#], bearer("a\"b", Some("x"), None));
        check(&[r#"Basic realm="x", Bearer realm="y""#], bearer("y", None, None));
        check(&[r#"Basic realm="x""#, r#"Negotiate"#], Some(Challenge::Basic));
        check(&["Basic"], Some(Challenge::Basic));
        check(&[r#"Bearer service="no realm""#], None);
        check(&[r#"="#, r#"Bearer realm="open"#], bearer("open", None, None));
        check(&["", ",,", "\"", "a=b"], None);
    }

    #[track_caller]
    fn check_header(json: &str, expected: Result<Option<Credentials>, BadAuthHeader>) {
        let padded = base64::engine::general_purpose::URL_SAFE.encode(json);
        assert_eq!(Credentials::from_header(&padded), expected, "{json}");
        assert_eq!(Credentials::from_header(padded.trim_end_matches('=')), expected, "{json}");
    }

    #[test]
    fn header() {
        let user = |password: &str| Ok(Some(Credentials::Password { username: "u".into(), password: password.into() }));
        check_header(r#"{"username":"u","password":"p?>","serveraddress":"x"}"#, user("p?>"));
        check_header(r#"{"auth":"dTpw"}"#, user("p"));
        check_header(r#"{"identitytoken":"t","username":"x"}"#, Ok(Some(Credentials::IdentityToken("t".into()))));
        check_header("{}", Ok(None));
        check_header("x", Err(BadAuthHeader));
        assert_eq!(Credentials::from_header("%"), Err(BadAuthHeader));
        assert_eq!(Credentials::from_header(""), Ok(None));
        let shown = format!("{:?}", user("geheim"));
        assert!(!shown.contains("geheim"), "{shown}");
    }

    #[test]
    fn percent() {
        assert_eq!(encode("repository:a/b:pull c"), "repository%3Aa%2Fb%3Apull%20c");
    }
}
