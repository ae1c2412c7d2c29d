//! Image references, parsed and written exactly as Docker does.
//!
//! ```text
//! familiar   nginx                  gcr.io/a/b:1      localhost:5000/x@sha256:…
//! canonical  docker.io/library/nginx:latest           (a domain, and a tag or a digest, always)
//! ```
//!
//! The grammar is that of the `distribution/reference` library (version 0.6),
//! which the docker CLI and Docker Engine use; so are the messages.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::digest::{Digest, DigestError};

/// The domain of names that carry none.
pub const DOCKER_HUB: &str = "docker.io";
const OFFICIAL: &str = "library/";
const TAG_BYTES_MAX: usize = 128;
const PATH_BYTES_MAX: usize = 255;

/// A complete image reference: domain, path, and a tag or a digest or both.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: Box<str>,
    path: Box<str>,
    tag: Option<Box<str>>,
    digest: Option<Digest>,
}

/// Why a text is not an image reference. The messages are Docker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Not of the form `[domain/]path[:tag][@digest]`.
    #[error("invalid reference format")]
    Format,
    /// The path has upper-case letters.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// 64 hex digits could be taken for an image id.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    Identifier(String),
    /// The path is too long.
    #[error("repository name must not be more than {PATH_BYTES_MAX} characters")]
    TooLong,
    /// What follows the `@` is no digest that we know.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl Reference {
    /// The registry's host and port as written, `docker.io` for Docker Hub.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry, such as `library/nginx`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag; always there when there is no digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if the reference is pinned to one.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The same image pinned to `digest`; the tag stays for people to read.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// The name as people write it: without `docker.io/` and `library/`.
    pub fn familiar(&self) -> Familiar<'_> {
        Familiar(self)
    }

    /// Domain and path without tag or digest, such as `docker.io/library/nginx`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    fn write_suffix(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Writes a [`Reference`] in the familiar form.
pub struct Familiar<'a>(&'a Reference);

impl fmt::Display for Familiar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reference { domain, path, .. } = self.0;
        // A path that begins like a domain must keep its own, or it would not parse back.
        if **domain == *DOCKER_HUB && split_domain(path).1 == &**path {
            // `library/a/b` must keep its prefix, or it would not parse back.
            let short = path.strip_prefix(OFFICIAL).filter(|rest| !rest.contains('/'));
            f.write_str(short.unwrap_or(path))?;
        } else {
            write!(f, "{domain}/{path}")?;
        }
        self.0.write_suffix(f)
    }
}

/// The canonical form.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        self.write_suffix(f)
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.len() == 64 && text.bytes().all(is_lower_hex) {
            return Err(ReferenceError::Identifier(text.into()));
        }
        let (domain, rest) = split_domain(text);
        let official = domain == DOCKER_HUB && !rest.contains('/');
        let rest = if official { format!("{OFFICIAL}{rest}") } else { rest.to_owned() };

        let before_tag = rest.split(':').next().unwrap_or_default();
        if before_tag.to_lowercase() != before_tag {
            return Err(ReferenceError::Uppercase(before_tag.into()));
        }
        let (name, digest) = match rest.split_once('@') {
            Some((name, digest)) => (name, Some(parse_digest(digest)?)),
            None => (&*rest, None),
        };
        let (path, tag) = match name.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (name, None),
        };
        let fits = is_domain(domain) && path.split('/').all(is_path_component) && tag.is_none_or(is_tag);
        if !fits {
            return Err(ReferenceError::Format);
        }
        if path.len() > PATH_BYTES_MAX {
            return Err(ReferenceError::TooLong);
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest"),
            (tag, _) => tag,
        };
        Ok(Self { domain: domain.into(), path: path.into(), tag: tag.map(Into::into), digest })
    }
}

/// Docker's rule: what stands before the first slash is a domain only if it
/// could not be a path component.
fn split_domain(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" || first.to_lowercase() != first => {
            (if first == "index.docker.io" { DOCKER_HUB } else { first }, rest)
        }
        _ => (DOCKER_HUB, text),
    }
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        // The last colon of a bare `[::1]` belongs to the address.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (domain, None),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let host_fits = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(is_label),
    };
    let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
    host_fits && port.is_none_or(is_port)
}

/// Runs of `a-z0-9`, separated by one dot, one or two underscores, or hyphens.
fn is_path_component(component: &str) -> bool {
    let is_alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_separator = |run: &str| matches!(run, "" | "." | "_" | "__") || run.bytes().all(|b| b == b'-');
    let ends_fit = |b: Option<&u8>| b.copied().is_some_and(is_alnum);
    ends_fit(component.as_bytes().first())
        && ends_fit(component.as_bytes().last())
        && component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).all(is_separator)
}

fn is_tag(tag: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=TAG_BYTES_MAX).contains(&tag.len())
        && tag.bytes().all(|b| is_word(b) || matches!(b, b'.' | b'-'))
        && is_word(tag.as_bytes()[0])
}

/// The reference grammar first (any algorithm, at least 32 hex digits), then ours.
fn parse_digest(text: &str) -> Result<Digest, ReferenceError> {
    let (algorithm, hex) = text.split_once(':').ok_or(ReferenceError::Format)?;
    let is_algorithm = algorithm.split(['-', '_', '+', '.']).all(|part| {
        part.starts_with(|c: char| c.is_ascii_alphabetic()) && part.bytes().all(|b| b.is_ascii_alphanumeric())
    });
    if !is_algorithm || hex.len() < 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(ReferenceError::Format);
    }
    Ok(text.parse::<Digest>()?)
}

/// As the canonical form.
impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        super::media::text(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// `familiar` and `canonical` may use `@D` for a digest.
    #[track_caller]
    fn check(text: &str, canonical: &str, familiar: &str) {
        let full = |text: &str| text.replace("@D", &format!("@sha256:{HEX}"));
        let reference: Reference = full(text).parse().expect(text);
        assert_eq!(reference.to_string(), full(canonical));
        assert_eq!(reference.familiar().to_string(), full(familiar));
        for again in [canonical, familiar] {
            assert_eq!(full(again).parse::<Reference>().as_ref(), Ok(&reference), "{again}");
        }
    }

    #[track_caller]
    fn check_error(text: &str, message: &str) {
        let error = text.parse::<Reference>().expect_err(text);
        assert_eq!(error.to_string(), message, "{text}");
    }

    #[test]
    fn accepted() {
        check("docker.io/a.example/b", "docker.io/a.example/b:latest", "docker.io/a.example/b:latest");
        check("docker.io/docker.io/b", "docker.io/docker.io/b:latest", "docker.io/docker.io/b:latest");
        check("docker.io/localhost/b", "docker.io/localhost/b:latest", "docker.io/localhost/b:latest");
        check("nginx", "docker.io/library/nginx:latest", "nginx:latest");
        check("nginx:1.27", "docker.io/library/nginx:1.27", "nginx:1.27");
        check("nginx@D", "docker.io/library/nginx@D", "nginx@D");
        check("nginx:1@D", "docker.io/library/nginx:1@D", "nginx:1@D");
        check("user/app", "docker.io/user/app:latest", "user/app:latest");
        check("docker.io/nginx", "docker.io/library/nginx:latest", "nginx:latest");
        check("index.docker.io/nginx", "docker.io/library/nginx:latest", "nginx:latest");
        check("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest");
        check("gcr.io/a/b/c:x", "gcr.io/a/b/c:x", "gcr.io/a/b/c:x");
        check("localhost/a", "localhost/a:latest", "localhost/a:latest");
        check("localhost:5000/a", "localhost:5000/a:latest", "localhost:5000/a:latest");
        check("127.0.0.1:5000/bb:1", "127.0.0.1:5000/bb:1", "127.0.0.1:5000/bb:1");
        check("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest");
        check("[fe80::2]/a", "[fe80::2]/a:latest", "[fe80::2]/a:latest");
        check("Registry/a", "Registry/a:latest", "Registry/a:latest");
        check("a-b_c__d/x--y.z", "docker.io/a-b_c__d/x--y.z:latest", "a-b_c__d/x--y.z:latest");
        check("a:TAG_9.x-", "docker.io/library/a:TAG_9.x-", "a:TAG_9.x-");
        check(&HEX[1..], &format!("docker.io/library/{}:latest", &HEX[1..]), &format!("{}:latest", &HEX[1..]));
    }

    #[test]
    fn refused() {
        let format = "invalid reference format";
        check_error("UPPER CASE", "invalid reference format: repository name (library/UPPER CASE) must be lowercase");
        check_error("gcr.io/Foo:X", "invalid reference format: repository name (Foo) must be lowercase");
        for text in [
            "",
            ":",
            "a:",
            ":tag",
            "a b",
            "a//b",
            "/a",
            "a/",
            "-a",
            "a-",
            "a._b",
            "a___b",
            "a..b",
            "a:-x",
            "a:x:y",
            "a@",
            "a@sha256:00",
            "host:99999/a",
            "host:x/a",
            "-h.io/a",
            "[::g]/a",
            "a@b@c",
            "ä",
        ] {
            check_error(text, format);
        }
        check_error(&format!("a:{}", "x".repeat(129)), format);
        check_error(&"x".repeat(300), "repository name must not be more than 255 characters");
        check_error(HEX, &format!("invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings"));
        check_error(&format!("a@sha512:{HEX}"), "unsupported digest algorithm");
        check_error(&format!("a@sha256:{}", &HEX[..40]), "invalid checksum digest length");
        check_error(&format!("a@sha256:{}", HEX.to_uppercase()), "invalid checksum digest format");
    }

    #[test]
    fn pinned() {
        let image: Reference = "nginx".parse().expect("valid");
        let digest = Digest::of(b"x");
        assert_eq!(image.with_digest(digest).familiar().to_string(), format!("nginx:latest@{digest}"));
    }
}
