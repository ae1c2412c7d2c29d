//! `/nodes`.

use racimo_common::object::Role;
use serde_json::Value;

use super::answer::Answer;
use super::convert::node::{self as convert, Shared};
use super::error::{ApiError, Code};
use super::filter::Filters;
use super::request::Request;
use super::{Context, find};
use crate::orchestrator;
use crate::store::{Change, Node, NodeStatus};

const FILTERS: &[&str] = &["id", "label", "membership", "name", "node.label", "role"];

/// `GET /nodes`.
pub(super) async fn list(context: &Context, request: &Request) -> Result<Answer, ApiError> {
    let view = context.cluster_view()?;
    let filters = request.filters(FILTERS)?;
    filters.check("role", |role| matches!(role, "worker" | "manager"))?;
    filters.check("membership", |state| matches!(state, "accepted" | "pending"))?;
    let shared = Shared::of(&view, context.own_node());
    let nodes = view.state.nodes().filter(|node| matches(&filters, node)).map(|node| shared.node(&view, node));
    Ok(Answer::ok(&Value::Array(nodes.collect())))
}

fn matches(filters: &Filters, node: &Node) -> bool {
    let name = node.name();
    filters.begins("id", &node.id.to_string())
        && filters.begins("name", name)
        && filters.labels("label", &node.description.labels)
        && filters.labels("node.label", &node.spec.labels)
        && filters.is("role", &node.role.to_string())
        && filters.is("membership", "accepted")
}

/// `GET /nodes/{name}`.
pub(super) async fn inspect(context: &Context, request: &Request) -> Result<Answer, ApiError> {
    let view = context.cluster_view()?;
    let node = find::node(&view.state, &request.name)?;
    Ok(Answer::ok(&Shared::of(&view, context.own_node()).node(&view, node)))
}

/// `POST /nodes/{name}/update`.
pub(super) async fn update(context: &Context, request: &Request) -> Result<Answer, ApiError> {
    let view = context.cluster_view()?;
    let version = request.version("node")?;
    let node = find::node(&view.state, &request.name)?;
    let spec = convert::spec(&request.json()?, node)?;
    context.commit(Change::NodeUpdate { node: node.id, version, spec }).await?;
    Ok(Answer::empty())
}

/// `DELETE /nodes/{name}`.
pub(super) async fn remove(context: &Context, request: &Request) -> Result<Answer, ApiError> {
    let view = context.cluster_view()?;
    let node = find::node(&view.state, &request.name)?;
    let id = node.id;
    if node.role == Role::Manager {
        return Err(ApiError::rpc(
            Code::FailedPrecondition,
            format_args!(
                "node {id} is a cluster manager and is a member of the raft cluster. \
                 It must be demoted to worker before removal"
            ),
        ));
    }
    if view.node_status(node) != NodeStatus::Down && !request.flag("force") {
        let why = format_args!("node {id} is not down and can't be removed");
        return Err(ApiError::rpc(Code::FailedPrecondition, why));
    }
    let kept = orchestrator::keeps_node(&view, id, context.clock.now()).filter(|_| !request.flag("force"));
    if let Some(why) = kept {
        let why = format_args!("node {id} can't be removed yet: {why}; --force says that it does not run any more");
        return Err(ApiError::rpc(Code::FailedPrecondition, why));
    }
    context.commit(Change::NodeRemove { node: id }).await?;
    Ok(Answer::empty())
}
