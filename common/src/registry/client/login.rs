//! Logging in: the answer to a registry's 401.

use hyper::header::{self, HeaderValue};
use hyper::{Method, StatusCode};
use serde::Deserialize;

use super::Repository;
use crate::registry::auth::{self, Challenge, Credentials};
use crate::registry::endpoint::Url;
use crate::registry::error::RegistryError;
use crate::registry::http::{self, Request, Response};
use crate::registry::limits::TOKEN_BYTES_MAX;
use crate::registry::media;

impl Repository<'_> {
    /// Answers the challenge of a 401 response.
    pub(super) async fn authorize(
        &mut self,
        origin: &Url,
        credentials: Option<&Credentials>,
        response: Response,
    ) -> Result<(), RegistryError> {
        let challenges = response.headers.get_all(header::WWW_AUTHENTICATE);
        let challenge = auth::choose(challenges.iter().filter_map(|value| value.to_str().ok()));
        let value = match (challenge, credentials) {
            (Some(Challenge::Bearer { realm, service, scope }), _) => {
                let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.image.path()));
                let token = self.token(origin, &realm, service.as_deref(), &scope, credentials).await?;
                format!("Bearer {token}")
            }
            (Some(Challenge::Basic), Some(Credentials::Password { username, password })) => {
                auth::basic(username, password)
            }
            (Some(Challenge::Basic), Some(Credentials::IdentityToken(_)) | None) | (None, _) => {
                return Err(self.refusal(response).await);
            }
        };
        self.authorization = Some(secret(&value).ok_or_else(|| self.denied(origin, "its token cannot be sent back"))?);
        Ok(())
    }

    /// Gets a token from the server that the registry named.
    async fn token(
        &self,
        origin: &Url,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        credentials: Option<&Credentials>,
    ) -> Result<String, RegistryError> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            token: String,
            #[serde(default)]
            access_token: String,
        }
        let mut url: Url = realm.parse().map_err(|_| self.denied(origin, "it names no usable token server"))?;
        if origin.is_tls() && !url.is_tls() {
            return Err(self.denied(origin, "it names a token server without TLS"));
        }
        let mut query = format!("scope={}", auth::encode(scope));
        if let Some(service) = service {
            query.push_str(&format!("&service={}", auth::encode(service)));
        }
        let mut headers = Vec::new();
        let mut method = Method::GET;
        let mut body = String::new();
        match credentials {
            Some(Credentials::IdentityToken(token)) => {
                method = Method::POST;
                let form = HeaderValue::from_static("application/x-www-form-urlencoded");
                headers.push((header::CONTENT_TYPE, form));
                let token = auth::encode(token);
                body = format!("grant_type=refresh_token&client_id=racimo&refresh_token={token}&{query}");
            }
            Some(Credentials::Password { username, password }) => {
                let value = secret(&auth::basic(username, password)).expect("base64 is ASCII");
                headers.push((header::AUTHORIZATION, value));
            }
            None => {}
        }
        if body.is_empty() {
            let joint = if url.path().contains('?') { '&' } else { '?' };
            let path = format!("{}{joint}{query}", url.path());
            url = url.follow(&path).map_err(|_| self.denied(origin, "it names no usable token server"))?;
        }
        let check = !self.registry.config.is_insecure(url.authority());
        // Never down to plain HTTP here: the realm says what it speaks.
        let connected = http::connect(&url, &self.registry.tls, check).await.map_err(|error| error.at(&url))?;
        let response = http::send(connected, Request { method, url: &url, headers, body }).await?;
        if response.status != StatusCode::OK {
            return Err(self.refusal(response).await);
        }
        let bytes = response.body.read("token", TOKEN_BYTES_MAX).await?;
        let answer: Answer = media::parse_json(&bytes, "token")?;
        Ok(if answer.token.is_empty() { answer.access_token } else { answer.token })
    }

    fn denied(&self, origin: &Url, why: &str) -> RegistryError {
        let host = origin.authority().to_string();
        RegistryError::Unauthorized { host, image: self.image.familiar().to_string(), why: why.into() }
    }
}

/// A header value that hyper does not show in its logs.
fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
