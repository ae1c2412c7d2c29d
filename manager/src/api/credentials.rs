//! Registry credentials of a service: they come in `X-Registry-Auth`, are kept sealed, and are never given back.

use racimo_common::id::ServiceId;
use racimo_common::registry::Credentials;

use super::Context;
use super::error::ApiError;
use super::request::Request;
use crate::limits::CREDENTIALS_BYTES_MAX;
use crate::store::{Sealed, Service};
use crate::vault::{Owner, Plain, VaultError};

impl From<VaultError> for ApiError {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Locked => Self::unavailable(error.to_string()),
            VaultError::Unopened | VaultError::Random => {
                Self::new(hyper::StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            }
        }
    }
}

/// The credentials that came with the request.
///
/// # Errors
/// 400; nothing of the header is repeated.
pub(super) fn read(request: &Request) -> Result<Option<Credentials>, ApiError> {
    let Some(header) = request.headers.get("x-registry-auth") else { return Ok(None) };
    Credentials::from_header(header.to_str().unwrap_or("?")).map_err(|error| ApiError::bad_request(error.to_string()))
}

/// The credentials that came with the request, sealed for a service.
///
/// # Errors
/// As [`read`]; 400 if they are too long.
pub(super) fn sealed(context: &Context, request: &Request, service: ServiceId) -> Result<Option<Sealed>, ApiError> {
    let Some(credentials) = read(request)? else { return Ok(None) };
    // Encoding strings into memory does not fail.
    let plain = Plain::new(rmp_serde::to_vec_named(&credentials).unwrap_or_default());
    if plain.len() > CREDENTIALS_BYTES_MAX {
        let text = format!("invalid argument: X-Registry-Auth holds more than {CREDENTIALS_BYTES_MAX} bytes");
        return Err(ApiError::bad_request(text));
    }
    Ok(Some(context.vault.seal(Owner::Credentials(service), &plain)?))
}

/// The credentials of a service that is updated: those of the request, else those of the specification that
/// `registryAuthFrom` names.
///
/// # Errors
/// As [`sealed`]; 400 for an unknown or missing specification.
pub(super) fn kept(context: &Context, request: &Request, service: &Service) -> Result<Option<Sealed>, ApiError> {
    let from = match request.param("registryAuthFrom") {
        None | Some("" | "spec") => Ok(service.spec.credentials.clone()),
        Some("previous-spec") => match &service.previous {
            Some(previous) => Ok(previous.credentials.clone()),
            None => Err(ApiError::bad_request("service does not have a previous spec")),
        },
        Some(other) => Err(ApiError::bad_request(format!("unsupported registryAuthFrom value: {other:?}"))),
    };
    match sealed(context, request, service.id)? {
        Some(sealed) => Ok(Some(sealed)),
        None => from,
    }
}
