//! `/networks`: overlay networks, the mesh between boards (`ingress`) among them, and those that every board has
//! ([`Predefined`]).

use hyper::StatusCode;
use racimo_common::id::NetworkId;
use racimo_common::time::Wall;
use serde_json::{Value, json};

use super::answer::Answer;
use super::convert::{network as convert, network_use};
use super::error::ApiError;
use super::filter::Filters;
use super::network::Predefined;
use super::request::Request;
use super::{Context, find, moment};
use crate::store::{Attachment, Change, CommitError, Network, Refusal, State};

const FILTERS: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];

/// `GET /networks`. Without a cluster there are the predefined ones.
pub(super) async fn list(context: &Context, request: &Request) -> Result<Answer, ApiError> {
    let filters = request.filters(FILTERS)?;
    filters.check("type", |kind| matches!(kind, "builtin" | "custom"))?;
    filters.check("dangling", |text| matches!(text, "1" | "true" | "0" | "false"))?;
    let view = context.store.view();
    let predefined = Predefined::ALL.into_iter().filter(|n| predefined_matches(&filters, *n)).map(Predefined::json);
    let networks = view.state.networks().filter(|network| matches(&filters, &view.state, network));
    let all = predefined.chain(networks.map(|network| convert::network(network))).collect();
    Ok(Answer::ok(&Value::Array(all)))
}

fn predefined_matches(filters: &Filters, network: Predefined) -> bool {
    filters.any("name", |value| network.name().contains(value))
        && filters.begins("id", network.id())
        && filters.is("driver", network.driver())
        && filters.is("scope", "swarm")
        && filters.is("type", "builtin")
        && filters.labels("label", &Default::default())
        && filters.any("dangling", |value| matches!(value, "0" | "false"))
}

fn matches(filters: &Filters, state: &State, network: &Network) -> bool {
    filters.any("name", |value| network.spec.name.contains(value))
        && filters.begins("id", &network.id.to_string())
        && filters.is("driver", "overlay")
        && filters.is("scope", "swarm")
        && filters.is("type", "custom")
        && filters.labels("label", &network.spec.labels)
        && filters.any("dangling", |value| matches!(value, "1" | "true") != is_used(state, network))
}

/// The mesh is every board's.
fn is_used(state: &State, network: &Network) -> bool {
    let names = |attachment: &Attachment| attachment.network == network.id;
    network.spec.ingress || state.services().any(|service| service.spec.task.networks.iter().any(names))
}

/// `GET /networks/{name}` with the boards it is on; with `scope` only if it is of that one, with `verbose` also the
/// services.
pub(super) async fn inspect(context: &Context, request: &Request) -> Result<Answer, ApiError> {
    let not_found = || ApiError::not_found("network", &request.name);
    if request.param("scope").is_some_and(|scope| !scope.is_empty() && scope != "swarm") {
        return Err(not_found());
    }
    if let Some(network) = Predefined::find(&request.name) {
        return Ok(Answer::ok(&network.json()));
    }
    let view = context.store.view();
    let network = find::network(&view.state, &request.name)?;
    let mut value = convert::network(network);
    let peers = network_use::peers(&view.state, network);
    if !peers.is_empty() {
        value["Peers"] = peers.into();
    }
    if request.flag("verbose") {
        value["Services"] = network_use::services(&view, network);
    }
    Ok(Answer::ok(&value))
}

/// `POST /networks/create`.
pub(super) async fn create(context: &Context, request: &Request) -> Result<Answer, ApiError> {
    context.cluster_view()?;
    let spec = convert::spec(&request.json()?)?;
    let network: NetworkId = context.draw_id();
    context.commit(Change::NetworkCreate { network, spec }).await?;
    Ok(Answer::created(&json!({ "Id": network.to_string(), "Warning": "" })))
}

/// `DELETE /networks/{name}`.
pub(super) async fn remove(context: &Context, request: &Request) -> Result<Answer, ApiError> {
    if let Some(network) = Predefined::find(&request.name) {
        return Err(not_permitted(network.name()));
    }
    let view = context.cluster_view()?;
    let network = find::network(&view.state, &request.name)?.id;
    context.commit(Change::NetworkRemove { network }).await?;
    Ok(Answer::no_content())
}

/// `POST /networks/prune`: removes what no service and no running task is attached to, but never the mesh.
pub(super) async fn prune(context: &Context, request: &Request) -> Result<Answer, ApiError> {
    let filters = request.filters(&["label", "label!", "until"])?;
    let view = context.cluster_view()?;
    let until = until(&filters, context.now())?;
    let wanted = |network: &Network| {
        let labels = &network.spec.labels;
        !network.spec.ingress
            && until.is_none_or(|until| network.meta.created <= until)
            && filters.labels("label", labels)
            && (filters.values("label!").is_none() || !filters.labels("label!", labels))
    };
    let mut gone = Vec::new();
    for network in view.state.networks().filter(|network| wanted(network)) {
        match context.store.commit(context.now(), vec![Change::NetworkRemove { network: network.id }]).await {
            Ok(_) => gone.push(network.spec.name.clone()),
            Err(CommitError::Refused(Refusal::NetworkInUse { .. } | Refusal::NotFound { .. })) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Answer::ok(&json!({ "NetworksDeleted": gone })))
}

/// Only what was made before then.
fn until(filters: &Filters, now: Wall) -> Result<Option<Wall>, ApiError> {
    let Some(mut texts) = filters.values("until") else { return Ok(None) };
    match (texts.next(), texts.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(ApiError::bad_request("more than one until filter specified")),
        (Some(text), None) => moment::past(text, now).map(Some).ok_or_else(|| {
            ApiError::bad_request(format!(
                "Invalid filter 'until={text}': expected for example 24h or 2026-11-21T15:04:05Z"
            ))
        }),
    }
}

/// As Docker refuses to touch what it made itself.
pub(super) fn not_permitted(name: &str) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, format!("operation is not permitted on predefined {name} network"))
}
