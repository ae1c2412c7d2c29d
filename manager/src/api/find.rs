//! Which object a name in a path means: its full id, its exact name, or a unique prefix of its id. Pure.

use std::sync::Arc;

use super::error::ApiError;
use crate::ca::rotation;
use crate::store::{Dependency, DependencyKind, Network, Node, Service, State, Task};

/// The one of `ids` that begins with `prefix`.
fn by_prefix<T>(kind: &str, prefix: &str, all: impl Iterator<Item = (String, T)>) -> Result<T, ApiError> {
    let mut found = all.filter(|(id, _)| !prefix.is_empty() && id.starts_with(prefix)).map(|(_, object)| object);
    match (found.next(), found.count()) {
        (None, _) => Err(ApiError::not_found(kind, prefix)),
        (Some(object), 0) => Ok(object),
        (Some(_), more) => Err(ambiguous(kind, prefix, more + 1)),
    }
}

fn ambiguous(kind: &str, name: &str, count: usize) -> ApiError {
    ApiError::bad_request(format!("{kind} {name} is ambiguous ({count} matches found)"))
}

/// A service.
///
/// # Errors
/// 404, or 400 if several match.
pub fn service<'a>(state: &'a State, name: &str) -> Result<&'a Arc<Service>, ApiError> {
    if let Some(service) = name.parse().ok().and_then(|id| state.service(id)) {
        return Ok(service);
    }
    if let Some(service) = state.service_named(name).filter(|service| service.spec.name == name) {
        return Ok(service);
    }
    by_prefix("service", name, state.services().map(|s| (s.id.to_string(), s)))
}

/// An overlay network.
///
/// # Errors
/// As [`service`].
pub fn network<'a>(state: &'a State, name: &str) -> Result<&'a Arc<Network>, ApiError> {
    if let Some(network) = name.parse().ok().and_then(|id| state.network(id)) {
        return Ok(network);
    }
    if let Some(network) = state.network_named(name) {
        return Ok(network);
    }
    by_prefix("network", name, state.networks().map(|n| (n.id.to_string(), n)))
}

/// A node; also by its host name, if only one has it.
///
/// # Errors
/// As [`service`].
pub fn node<'a>(state: &'a State, name: &str) -> Result<&'a Arc<Node>, ApiError> {
    if let Some(node) = name.parse().ok().and_then(|id| state.node(id)) {
        return Ok(node);
    }
    let is_named = |node: &&Arc<Node>| {
        !name.is_empty() && (node.spec.name.as_deref() == Some(name) || node.description.hostname == name)
    };
    let named: Vec<_> = state.nodes().filter(is_named).collect();
    match &named[..] {
        [] => by_prefix("node", name, state.nodes().map(|n| (n.id.to_string(), n))),
        [node] => Ok(*node),
        several => {
            let ids: Vec<String> = several.iter().map(|node| node.id.to_string()).collect();
            let ambiguous = ambiguous("node", name, several.len());
            Err(ApiError::bad_request(format!("{ambiguous}: name it by its id, {}", rotation::named(&ids))))
        }
    }
}

/// A task; by id only, as in Docker.
///
/// # Errors
/// As [`service`].
pub fn task<'a>(state: &'a State, name: &str) -> Result<&'a Arc<Task>, ApiError> {
    if let Some(task) = name.parse().ok().and_then(|id| state.task(id)) {
        return Ok(task);
    }
    by_prefix("task", name, state.tasks().map(|t| (t.id.to_string(), t)))
}

/// A secret or config.
///
/// # Errors
/// As [`service`].
pub fn dependency<'a>(state: &'a State, kind: DependencyKind, name: &str) -> Result<&'a Arc<Dependency>, ApiError> {
    let of_kind = |found: &&Arc<Dependency>| found.kind == kind;
    if let Some(found) = name.parse().ok().and_then(|id| state.dependency(id)).filter(of_kind) {
        return Ok(found);
    }
    if let Some(found) = state.dependency_named(kind, name).filter(|found| found.name == name) {
        return Ok(found);
    }
    by_prefix(kind.name(), name, state.dependencies().filter(of_kind).map(|d| (d.id.to_string(), d)))
}
