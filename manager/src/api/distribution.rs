//! `/distribution`: what an image's tag stands for, so that clients can pin it.

use bollard_stubs::models::{DistributionInspect, OciDescriptor, OciPlatform};
use futures_lite::FutureExt;
use hyper::StatusCode;
use racimo_common::registry::{Reference, RegistryError, Resolved};

use super::answer::Answer;
use super::error::ApiError;
use super::request::Request;
use super::{Context, convert, credentials};
use crate::limits::REGISTRY_WITHIN;

/// `GET /distribution/{image}/json`.
pub(super) async fn inspect(context: &Context, request: &Request) -> Result<Answer, ApiError> {
    let image: Reference = request
        .name
        .parse()
        .map_err(|e: racimo_common::registry::ReferenceError| ApiError::bad_request(e.to_string()))?;
    let credentials = credentials::read(request)?;
    let late = async {
        smol::Timer::after(REGISTRY_WITHIN).await;
        None
    };
    let resolved = async { Some(context.registry.resolve(&image, credentials.as_ref()).await) }.or(late).await;
    match resolved {
        Some(Ok(resolved)) => Ok(Answer::ok(&convert::json(&model(resolved)))),
        Some(Err(error)) => Err(ApiError::new(status(&error), error.to_string())),
        None => Err(ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("registry {} did not answer within {REGISTRY_WITHIN:?}", image.domain()),
        )),
    }
}

/// The docker CLI goes on without a digest after any of these.
fn status(error: &RegistryError) -> StatusCode {
    match error {
        RegistryError::Unauthorized { .. } => StatusCode::UNAUTHORIZED,
        RegistryError::NotFound { .. } => StatusCode::NOT_FOUND,
        RegistryError::TooManyRequests { .. } => StatusCode::TOO_MANY_REQUESTS,
        RegistryError::Unreachable { .. }
        | RegistryError::Transfer { .. }
        | RegistryError::Status { .. }
        | RegistryError::TooLarge { .. }
        | RegistryError::DigestMismatch { .. }
        | RegistryError::Unsupported { .. }
        | RegistryError::NoPlatform { .. }
        | RegistryError::Malformed { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn model(resolved: Resolved) -> DistributionInspect {
    DistributionInspect {
        descriptor: OciDescriptor {
            media_type: Some(resolved.media_type),
            digest: Some(resolved.digest.to_string()),
            size: Some(i64::try_from(resolved.size).unwrap_or(i64::MAX)),
        },
        platforms: resolved
            .platforms
            .into_iter()
            .map(|platform| OciPlatform {
                architecture: Some(platform.architecture),
                os: Some(platform.os),
                variant: Some(platform.variant).filter(|variant| !variant.is_empty()),
                ..OciPlatform::default()
            })
            .collect(),
    }
}
