//! The registry client: manifests and blobs of one repository.
//!
//! ```text
//! Repository::get ─▶ mirror… ─▶ origin        next on any failure
//!                      │ 401: token or password, once per request
//!                      │ 3xx: follow; credentials only to the same origin
//!                      ▼
//!                   Response ─▶ document (checked whole) | Blob (stream)
//! ```

mod login;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use serde::Deserialize;

use super::auth::Credentials;
use super::digest::Digest;
use super::endpoint::{Config, Endpoint, HostPort, Scheme, Url};
use super::error::RegistryError;
use super::http::{self, Body, ConnectError, Connected, Request, Response, Tls};
use super::limits::{DOCUMENT_BYTES_MAX, ERROR_BYTES_MAX, REDIRECTS_MAX, SCHEMES_MAX};
use super::media::{self, Descriptor};
use super::reference::Reference;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Access to registries, as configured. Keeps no connection and no token;
/// cheap until first used.
pub struct Registry {
    config: Config,
    tls: Tls,
    /// What insecure registries turned out to speak.
    schemes: Mutex<BTreeMap<HostPort, Scheme>>,
}

impl Registry {
    /// A client with this configuration.
    pub fn new(config: Config) -> Self {
        let tls = Tls::new(config.extra_ca.clone());
        Self { config, tls, schemes: Mutex::default() }
    }

    /// Access to the repository of `image`. Tokens live as long as it does.
    pub fn repository<'a>(&'a self, image: &'a Reference, credentials: Option<&'a Credentials>) -> Repository<'a> {
        let endpoints = self.config.endpoints(image);
        Repository { registry: self, image, credentials, endpoints, current: 0, authorization: None }
    }

    /// Connects, trying TLS and then plain HTTP if `url` is an insecure
    /// registry of which we don't know yet what it speaks.
    async fn connect(&self, url: &mut Url, check: bool) -> Result<Connected, RegistryError> {
        let authority = url.authority().clone();
        let known = self.schemes.lock().unwrap_or_else(PoisonError::into_inner).get(&authority).copied();
        if let (false, Some(scheme)) = (check, known) {
            *url = Url::new(scheme, authority.clone(), url.path());
        }
        let mut result = http::connect(url, &self.tls, check).await;
        if let (false, None, true) = (check, known, url.is_tls()) {
            if matches!(result, Err(ConnectError::Tls(_))) {
                *url = Url::new(Scheme::Http, authority.clone(), url.path());
                result = http::connect(url, &self.tls, check).await;
            }
            if result.is_ok() {
                self.remember(authority, if url.is_tls() { Scheme::Https } else { Scheme::Http });
            }
        }
        result.map_err(|error| error.at(url))
    }

    fn remember(&self, host: HostPort, scheme: Scheme) {
        let mut schemes = self.schemes.lock().unwrap_or_else(PoisonError::into_inner);
        if schemes.len() >= SCHEMES_MAX {
            schemes.clear();
        }
        schemes.insert(host, scheme);
    }
}

/// One repository, for the length of one operation.
pub struct Repository<'a> {
    registry: &'a Registry,
    image: &'a Reference,
    credentials: Option<&'a Credentials>,
    endpoints: Vec<Endpoint>,
    /// The endpoint in use; moves on when one fails and never back.
    current: usize,
    /// For the origin of the current endpoint only.
    authorization: Option<HeaderValue>,
}

/// A manifest or index as the registry has it.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The document; its digest has been checked if it was asked for by digest.
    pub bytes: Vec<u8>,
    /// The content type that came with it; may be empty.
    pub content_type: String,
    /// Its digest.
    pub digest: Digest,
}

/// What a `HEAD` request told about a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The digest that the reference stands for now.
    pub digest: Digest,
}

/// What is asked for.
struct Query<'a> {
    method: Method,
    /// After `/v2/<repository>/`.
    tail: &'a str,
    /// The `Accept` header.
    accept: &'static str,
    /// The first byte wanted.
    offset: u64,
}

impl Repository<'_> {
    /// The digest that the reference stands for. None if the registry does not
    /// say it without sending the manifest.
    ///
    /// # Errors
    /// Those of the connection, of access, and [`RegistryError::NotFound`].
    pub async fn head(&mut self) -> Result<Option<Head>, RegistryError> {
        let tail = format!("manifests/{}", self.selector());
        let query = Query { method: Method::HEAD, tail: &tail, accept: media::ACCEPT, offset: 0 };
        let response = self.get(&query).await?;
        let digest = response.header(&CONTENT_DIGEST).and_then(|text| text.parse().ok());
        Ok(digest.map(|digest| Head { digest }))
    }

    /// The manifest or index that the reference stands for.
    ///
    /// # Errors
    /// As for [`Repository::manifest`].
    pub async fn top(&mut self) -> Result<Fetched, RegistryError> {
        let selector = self.selector();
        self.fetch(&selector, self.image.digest()).await
    }

    /// The manifest with this digest.
    ///
    /// # Errors
    /// Those of the connection and of access; [`RegistryError::NotFound`],
    /// [`RegistryError::TooLarge`], [`RegistryError::DigestMismatch`].
    pub async fn manifest(&mut self, digest: Digest) -> Result<Fetched, RegistryError> {
        self.fetch(&digest.to_string(), Some(digest)).await
    }

    async fn fetch(&mut self, selector: &str, expected: Option<Digest>) -> Result<Fetched, RegistryError> {
        let tail = format!("manifests/{selector}");
        let query = Query { method: Method::GET, tail: &tail, accept: media::ACCEPT, offset: 0 };
        let response = self.get(&query).await?;
        let content_type = response.header(&header::CONTENT_TYPE).unwrap_or_default().to_owned();
        let bytes = response.body.read("image manifest", DOCUMENT_BYTES_MAX).await?;
        let digest = Digest::of(&bytes);
        match expected.filter(|expected| *expected != digest) {
            Some(expected) => Err(mismatch("image manifest", expected, digest)),
            None => Ok(Fetched { bytes, content_type, digest }),
        }
    }

    /// A small blob such as an image configuration, whole and checked.
    ///
    /// # Errors
    /// As for [`Repository::manifest`].
    pub async fn document(&mut self, descriptor: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        let what = "image configuration";
        let blob = self.blob(descriptor.digest, 0).await?;
        let bytes = blob.body.read(what, DOCUMENT_BYTES_MAX).await?;
        let digest = Digest::of(&bytes);
        if digest != descriptor.digest {
            return Err(mismatch(what, descriptor.digest, digest));
        }
        Ok(bytes)
    }

    /// The bytes of a blob from `offset` on. They are not checked here: the
    /// caller holds the digest.
    ///
    /// # Errors
    /// Those of the connection and of access, [`RegistryError::NotFound`].
    pub async fn blob(&mut self, digest: Digest, offset: u64) -> Result<Blob, RegistryError> {
        let tail = format!("blobs/{digest}");
        let query = Query { method: Method::GET, tail: &tail, accept: "*/*", offset };
        let response = self.get(&query).await?;
        // A server may ignore the range; then we throw away what we have.
        let skip = if response.status == StatusCode::PARTIAL_CONTENT {
            let range = response.header(&header::CONTENT_RANGE).unwrap_or_default();
            if !range.starts_with(&format!("bytes {offset}-")) {
                let why = format!("asked for bytes from {offset} on, it sent {range:?}");
                return Err(RegistryError::Transfer { host: response.body.host().into(), why });
            }
            0
        } else {
            offset
        };
        Ok(Blob { body: response.body, skip })
    }

    fn selector(&self) -> String {
        match (self.image.digest(), self.image.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        }
    }

    /// Asks the endpoints in order.
    async fn get(&mut self, query: &Query<'_>) -> Result<Response, RegistryError> {
        loop {
            let Some(endpoint) = self.endpoints.get(self.current).cloned() else {
                let why = format!("{} is not a host", self.image.domain());
                return Err(RegistryError::Unreachable { host: self.image.domain().into(), why });
            };
            match self.get_from(&endpoint, query).await {
                Ok(response) => return Ok(response),
                Err(error) if self.current + 1 < self.endpoints.len() => {
                    log::warn!("registry mirror failed, asking the next: {error}");
                    self.current += 1;
                    self.authorization = None;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn get_from(&mut self, endpoint: &Endpoint, query: &Query<'_>) -> Result<Response, RegistryError> {
        let tail = format!("v2/{}/{}", self.image.path(), query.tail);
        let (mut origin, check) = match endpoint {
            Endpoint::Mirror(url) => (url.join(&tail), !self.registry.config.is_insecure(url.authority())),
            Endpoint::Origin(host) => {
                let url = Url::new(Scheme::Https, host.clone(), &format!("/{tail}"));
                (url, !self.registry.config.is_insecure(host))
            }
        };
        let mut url = origin.clone();
        let mut redirects = 0;
        let mut is_answered = false;
        loop {
            let at_origin = url.is_same_origin(&origin);
            let connected = if at_origin {
                let connected = self.registry.connect(&mut url, check).await?;
                // The scheme may have been found out just now.
                origin = origin.with_scheme_of(&url);
                connected
            } else {
                let check = !self.registry.config.is_insecure(url.authority());
                self.registry.connect(&mut url, check).await?
            };
            let authorization = self.authorization.as_ref().filter(|_| at_origin);
            let headers = request_headers(query, authorization);
            let request = Request { method: query.method.clone(), url: &url, headers, body: String::new() };
            let response = http::send(connected, request).await?;
            match response.status {
                StatusCode::OK => return Ok(response),
                StatusCode::PARTIAL_CONTENT if query.offset > 0 => return Ok(response),
                status if status.is_redirection() => {
                    redirects += 1;
                    let next = redirect(&url, &response, check).filter(|_| redirects <= REDIRECTS_MAX);
                    url = next.ok_or_else(|| RegistryError::Status {
                        host: url.authority().to_string(),
                        status: status.as_u16(),
                        why: "redirects too often, to nowhere, or from TLS to plain HTTP".into(),
                    })?;
                }
                StatusCode::UNAUTHORIZED if at_origin && !is_answered => {
                    is_answered = true;
                    let may_use = matches!(endpoint, Endpoint::Origin(_));
                    let credentials = self.credentials.filter(|_| may_use);
                    self.authorize(&origin, credentials, response).await?;
                    url = origin.clone();
                }
                _ => return Err(self.refusal(response).await),
            }
        }
    }

    /// The error that a response other than success stands for.
    async fn refusal(&self, response: Response) -> RegistryError {
        let host = response.body.host().to_owned();
        let image = self.image.familiar().to_string();
        let status = response.status;
        let why = reason(status, &response.body.read_some(ERROR_BYTES_MAX).await);
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RegistryError::Unauthorized { host, image, why },
            StatusCode::NOT_FOUND => RegistryError::NotFound { host, image, why },
            StatusCode::TOO_MANY_REQUESTS => RegistryError::TooManyRequests { host, why },
            _ => RegistryError::Status { host, status: status.as_u16(), why },
        }
    }
}

/// A blob's bytes as they come.
pub struct Blob {
    body: Body,
    skip: u64,
}

impl Blob {
    /// The next bytes, of any number; none at the end.
    ///
    /// # Errors
    /// [`RegistryError::Transfer`] if the connection breaks or stalls.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, RegistryError> {
        while let Some(mut chunk) = self.body.chunk().await? {
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(chunk.len());
            self.skip -= skipped as u64;
            let rest = chunk.split_off(skipped);
            if !rest.is_empty() {
                return Ok(Some(rest));
            }
        }
        Ok(None)
    }
}

fn request_headers(query: &Query<'_>, authorization: Option<&HeaderValue>) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = vec![(header::ACCEPT, HeaderValue::from_static(query.accept))];
    if query.offset > 0 {
        let range = HeaderValue::try_from(format!("bytes={}-", query.offset));
        headers.push((header::RANGE, range.expect("digits are ASCII")));
    }
    headers.extend(authorization.map(|value| (header::AUTHORIZATION, value.clone())));
    headers
}

/// Where a redirect leads; none if it must not be followed.
fn redirect(from: &Url, response: &Response, check: bool) -> Option<Url> {
    let next = from.follow(response.header(&header::LOCATION)?).ok()?;
    (next.is_tls() || !from.is_tls() || !check).then_some(next)
}

fn mismatch(what: &'static str, expected: Digest, actual: Digest) -> RegistryError {
    RegistryError::DigestMismatch { what, expected, actual }
}

/// The first message in a registry's error body, or the status in words.
fn reason(status: StatusCode, body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Message>,
    }
    #[derive(Deserialize)]
    struct Message {
        #[serde(default)]
        message: String,
        #[serde(default)]
        details: String,
    }
    let first = serde_json::from_slice::<Errors>(body).ok().and_then(|body| body.errors.into_iter().next());
    let text = first.map(|error| if error.message.is_empty() { error.details } else { error.message });
    match text.filter(|text| !text.is_empty()) {
        Some(text) => text.chars().filter(|c| !c.is_control()).take(300).collect(),
        None => status.canonical_reason().unwrap_or("no reason given").to_lowercase(),
    }
}
