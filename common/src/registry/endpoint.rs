//! Where a registry is: hosts, URLs, mirrors, and which may be insecure.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use hyper::Uri;

use super::reference::{DOCKER_HUB, Reference};

/// Docker Hub's names do not say where it is.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

/// How registries are reached.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Registries without TLS or with a certificate that nobody vouches for:
    /// TLS is tried without checking the certificate, then plain HTTP.
    /// Loopback addresses always count as such, as in Docker.
    pub insecure: Vec<HostPort>,
    /// Copies of Docker Hub that are asked first, in order, without credentials.
    pub mirrors: Vec<Url>,
    /// A PEM file with certificate authorities trusted beside the system's.
    pub extra_ca: Option<PathBuf>,
}

impl Config {
    pub(super) fn is_insecure(&self, host: &HostPort) -> bool {
        host.is_loopback() || self.insecure.contains(host)
    }

    /// Where to ask for `image`, in order.
    pub(super) fn endpoints(&self, image: &Reference) -> Vec<Endpoint> {
        let mut endpoints = Vec::new();
        if image.domain() == DOCKER_HUB {
            endpoints.extend(self.mirrors.iter().map(|mirror| Endpoint::Mirror(mirror.clone())));
            endpoints.push(Endpoint::Origin(HostPort { host: DOCKER_HUB_HOST.into(), port: None }));
        } else if let Ok(host) = image.domain().parse() {
            endpoints.push(Endpoint::Origin(host));
        }
        endpoints
    }
}

/// One place to ask for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// A configured copy; the scheme is part of its URL.
    Mirror(Url),
    /// The registry itself; the scheme follows from [`Config::is_insecure`].
    Origin(HostPort),
}

/// A host name or address, and a port if it is not the scheme's own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// In lower case; IPv6 without brackets.
    host: String,
    port: Option<u16>,
}

/// A text is not a host or a URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not `host[:port]`.
    #[error("{0:?} is not a registry: write it like registry.local:5000")]
    HostPort(String),
    /// Not `http(s)://host[:port][/path]`.
    #[error("{0:?} is not a registry URL: write it like https://mirror.local:5000")]
    Url(String),
}

impl HostPort {
    fn is_loopback(&self) -> bool {
        let is_address = self.host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        is_address || self.host == "localhost"
    }
}

impl FromStr for HostPort {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let error = || EndpointError::HostPort(text.chars().take(100).collect());
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, Some(port.parse().ok().filter(|port| *port != 0).ok_or_else(error)?))
            }
            _ => (text, None),
        };
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let address = rest.strip_suffix(']').ok_or_else(error)?;
                address.parse::<std::net::Ipv6Addr>().map_err(|_| error())?.to_string()
            }
            None => host.to_ascii_lowercase(),
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let is_address = host.parse::<IpAddr>().is_ok();
        if host.is_empty() || !(is_address || host.chars().all(fits)) {
            return Err(error());
        }
        Ok(Self { host, port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// With TLS or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    /// Plain.
    Http,
    /// TLS.
    Https,
}

/// An absolute `http` or `https` URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    scheme: Scheme,
    authority: HostPort,
    /// Begins with a slash; with the query, without a fragment.
    path: String,
}

impl Url {
    pub(super) fn new(scheme: Scheme, authority: HostPort, path: &str) -> Self {
        Self { scheme, authority, path: path.into() }
    }

    pub(super) fn is_tls(&self) -> bool {
        self.scheme == Scheme::Https
    }

    pub(super) fn authority(&self) -> &HostPort {
        &self.authority
    }

    /// The host without brackets, for name look-up and certificates.
    pub(super) fn host(&self) -> &str {
        &self.authority.host
    }

    pub(super) fn port(&self) -> u16 {
        let default = match self.scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        };
        self.authority.port.unwrap_or(default)
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn with_scheme_of(&self, other: &Self) -> Self {
        Self { scheme: other.scheme, ..self.clone() }
    }

    /// Adds to the path, with one slash between.
    pub(super) fn join(&self, tail: &str) -> Self {
        let path = format!("{}/{tail}", self.path.trim_end_matches('/'));
        Self { path, ..self.clone() }
    }

    /// Where a `Location` header leads from here.
    pub(super) fn follow(&self, location: &str) -> Result<Self, EndpointError> {
        if location.starts_with('/') && !location.starts_with("//") {
            let path = location.split('#').next().unwrap_or_default();
            return Ok(Self { path: path.into(), ..self.clone() });
        }
        location.parse()
    }

    /// May credentials for `self` be sent to `other` too?
    pub(super) fn is_same_origin(&self, other: &Self) -> bool {
        (self.scheme, self.host(), self.port()) == (other.scheme, other.host(), other.port())
    }
}

impl FromStr for Url {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let error = || EndpointError::Url(text.chars().take(100).collect());
        let uri: Uri = text.parse().map_err(|_| error())?;
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            _ => return Err(error()),
        };
        // `user:password@` is refused with the rest: not a character of a host.
        let authority = uri.authority().ok_or_else(error)?.as_str().parse().map_err(|_| error())?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self { scheme, authority, path: path.into() })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls() { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        let parsed = text.parse::<Url>().ok().map(|url| url.to_string());
        assert_eq!(parsed.as_deref(), expected);
    }

    #[test]
    fn url() {
        check("https://Mirror.local:5000", Some("https://mirror.local:5000/"));
        check("http://[::1]:80/v2/?x=1", Some("http://[::1]:80/v2/?x=1"));
        for bad in ["", "mirror", "ftp://a/", "https://", "https://u:p@a/", "https://a:0/", "https://a:99999/"] {
            check(bad, None);
        }
    }

    #[track_caller]
    fn check_follow(location: &str, expected: Option<&str>, is_same: bool) {
        let from: Url = "https://a:443/v2/x?y".parse().expect("valid");
        let to = from.follow(location).ok();
        assert_eq!(to.as_ref().map(Url::to_string).as_deref(), expected);
        assert_eq!(to.is_some_and(|to| from.is_same_origin(&to)), is_same);
    }

    #[test]
    fn follow() {
        check_follow("/b#f", Some("https://a:443/b"), true);
        check_follow("https://a/c", Some("https://a/c"), true);
        check_follow("https://b/c", Some("https://b/c"), false);
        check_follow("http://a:443/c", Some("http://a:443/c"), false);
        check_follow("https://a:444/c", Some("https://a:444/c"), false);
        check_follow("//b/c", None, false);
        check_follow("c", None, false);
    }

    #[track_caller]
    fn check_insecure(host: &str, expected: bool) {
        let config = Config { insecure: vec!["pi.local:5000".parse().expect("valid")], ..Config::default() };
        assert_eq!(config.is_insecure(&host.parse().expect("valid")), expected, "{host}");
    }

    #[test]
    fn insecure() {
        for host in ["127.0.0.1:5000", "127.9.9.9", "localhost", "[::1]:1", "Pi.local:5000"] {
            check_insecure(host, true);
        }
        for host in ["pi.local", "pi.local:5001", "10.0.0.1:5000", "128.0.0.1"] {
            check_insecure(host, false);
        }
    }

    #[test]
    fn endpoints() {
        let mirror: Url = "http://mirror".parse().expect("valid");
        let config = Config { mirrors: vec![mirror.clone()], ..Config::default() };
        let of = |text: &str| config.endpoints(&text.parse().expect("valid"));
        let origin = |text: &str| Endpoint::Origin(text.parse().expect("valid"));
        assert_eq!(of("nginx"), [Endpoint::Mirror(mirror), origin("registry-1.docker.io")]);
        assert_eq!(of("ghcr.io/a/b"), [origin("ghcr.io")]);
    }
}
