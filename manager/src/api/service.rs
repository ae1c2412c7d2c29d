//! `/services`.

use std::sync::Arc;

use racimo_common::id::ServiceId;
use serde_json::{Value, json};

use super::answer::Answer;
use super::convert::service_in;
use super::convert::service_out::{self, Show};
use super::error::ApiError;
use super::filter::Filters;
use super::request::Request;
use super::{Context, credentials, find, name};
use crate::store::{Change, Mode, RollbackBy, Service};

const FILTERS: &[&str] = &["id", "label", "mode", "name", "runtime"];

/// `GET /services`.
pub(super) async fn list(context: &Context, request: &Request) -> Result<Answer, ApiError> {
    let view = context.cluster_view()?;
    let filters = request.filters(FILTERS)?;
    filters.check("mode", |mode| matches!(mode, "replicated" | "global" | "replicated-job" | "global-job"))?;
    let show = Show { status: request.flag("status"), defaults: request.flag("insertDefaults") };
    let services = view.state.services().filter(|service| matches(&filters, service));
    let services = services.map(|service| service_out::service(&view, service, show)).collect();
    Ok(Answer::ok(&Value::Array(services)))
}

fn matches(filters: &Filters, service: &Service) -> bool {
    let mode = match service.spec.mode {
        Mode::Replicated { .. } => "replicated",
        Mode::Global => "global",
        Mode::ReplicatedJob { .. } => "replicated-job",
        Mode::GlobalJob => "global-job",
    };
    filters.begins("id", &service.id.to_string())
        && filters.begins("name", &service.spec.name)
        && filters.labels("label", &service.spec.labels)
        && filters.is("mode", mode)
        && filters.is("runtime", "container")
}

/// `GET /services/{name}`.
pub(super) async fn inspect(context: &Context, request: &Request) -> Result<Answer, ApiError> {
    let view = context.cluster_view()?;
    let service = find::service(&view.state, &request.name)?;
    let show = Show { defaults: request.flag("insertDefaults"), status: false };
    Ok(Answer::ok(&service_out::service(&view, service, show)))
}

/// `POST /services/create`.
pub(super) async fn create(context: &Context, request: &Request) -> Result<Answer, ApiError> {
    let view = context.cluster_view()?;
    let service: ServiceId = context.draw_id();
    let mut spec = service_in::service(&view.state, &request.json()?, || name::draw(&view.state, service))?;
    spec.credentials = credentials::sealed(context, request, service)?;
    let spec = Arc::new(spec);
    context.commit(Change::ServiceCreate { service, spec }).await?;
    Ok(Answer::created(&json!({ "ID": service.to_string() })))
}

/// `POST /services/{name}/update`.
pub(super) async fn update(context: &Context, request: &Request) -> Result<Answer, ApiError> {
    let view = context.cluster_view()?;
    let version = request.version("service")?;
    let service = find::service(&view.state, &request.name)?;
    match request.param("rollback") {
        None | Some("" | "none") => {}
        Some("previous") => {
            // The body is the specification of now, which says nothing new: Docker ignores it too.
            let by = RollbackBy::User { version };
            context.commit(Change::ServiceRollback { service: service.id, by }).await?;
            return Ok(Answer::ok(&json!({ "Warnings": null })));
        }
        Some(other) => {
            return Err(ApiError::bad_request(format!("unrecognized rollback option {other}")));
        }
    }
    let mut spec = service_in::service(&view.state, &request.json()?, String::new)?;
    spec.credentials = credentials::kept(context, request, service)?;
    let spec = Arc::new(spec);
    context.commit(Change::ServiceUpdate { service: service.id, version, spec }).await?;
    Ok(Answer::ok(&json!({ "Warnings": null })))
}

/// `DELETE /services/{name}`.
pub(super) async fn remove(context: &Context, request: &Request) -> Result<Answer, ApiError> {
    let view = context.cluster_view()?;
    let service = find::service(&view.state, &request.name)?.id;
    context.commit(Change::ServiceRemove { service }).await?;
    Ok(Answer::empty())
}
