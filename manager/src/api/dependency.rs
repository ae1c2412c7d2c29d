//! `/secrets` and `/configs`.
//!
//! Bodies are sealed here, before they go to the store; a secret's is never given back.

use serde_json::{Value, json};

use super::answer::Answer;
use super::convert::dependency as convert;
use super::error::ApiError;
use super::filter::Filters;
use super::request::Request;
use super::{Context, find};
use crate::store::{Change, Dependency, DependencyKind, NewDependency};
use crate::vault::{Owner, Plain};

const FILTERS: &[&str] = &["id", "label", "name", "names"];

macro_rules! handlers {
    ($(#[$doc:meta])* $name:ident, $kind:ident) => {
        $(#[$doc])*
        pub(super) mod $name {
            use super::*;

            const KIND: DependencyKind = DependencyKind::$kind;

            pub(in super::super) async fn list(context: &Context, request: &Request) -> Result<Answer, ApiError> {
                super::list(KIND, context, request)
            }
            pub(in super::super) async fn create(context: &Context, request: &Request) -> Result<Answer, ApiError> {
                super::create(KIND, context, request).await
            }
            pub(in super::super) async fn inspect(context: &Context, request: &Request) -> Result<Answer, ApiError> {
                let view = context.cluster_view()?;
                Ok(Answer::ok(&show(context, find::dependency(&view.state, KIND, &request.name)?)?))
            }
            pub(in super::super) async fn update(context: &Context, request: &Request) -> Result<Answer, ApiError> {
                super::update(KIND, context, request).await
            }
            pub(in super::super) async fn remove(context: &Context, request: &Request) -> Result<Answer, ApiError> {
                let view = context.cluster_view()?;
                let dependency = find::dependency(&view.state, KIND, &request.name)?.id;
                context.commit(Change::DependencyRemove { dependency }).await?;
                Ok(Answer::no_content())
            }
        }
    };
}

handlers! {
    /// `/secrets`.
    secret, Secret
}
handlers! {
    /// `/configs`.
    config, Config
}

fn list(kind: DependencyKind, context: &Context, request: &Request) -> Result<Answer, ApiError> {
    let view = context.cluster_view()?;
    let filters = request.filters(FILTERS)?;
    let found = view.state.dependencies().filter(|d| d.kind == kind && matches(&filters, d));
    let found: Vec<Value> = found.map(|d| show(context, d)).collect::<Result<_, _>>()?;
    Ok(Answer::ok(&Value::Array(found)))
}

fn matches(filters: &Filters, dependency: &Dependency) -> bool {
    filters.begins("id", &dependency.id.to_string())
        && filters.begins("name", &dependency.name)
        && filters.is("names", &dependency.name)
        && filters.labels("label", &dependency.labels)
}

fn open(context: &Context, dependency: &Dependency) -> Result<Plain, ApiError> {
    Ok(context.vault.open(Owner::Dependency(dependency.kind, dependency.id), &dependency.body)?)
}

fn show(context: &Context, dependency: &Dependency) -> Result<Value, ApiError> {
    let body = match dependency.kind {
        DependencyKind::Secret => None,
        DependencyKind::Config => Some(open(context, dependency)?),
    };
    Ok(convert::show(dependency, body.as_deref()))
}

async fn create(kind: DependencyKind, context: &Context, request: &Request) -> Result<Answer, ApiError> {
    context.cluster_view()?;
    let spec = convert::read(kind, &request.json()?)?;
    convert::check(kind, &spec)?;
    let id = context.draw_id();
    let body = context.vault.seal(Owner::Dependency(kind, id), spec.data.as_deref().unwrap_or_default())?;
    let new = NewDependency { id, kind, name: spec.name, labels: spec.labels, template: spec.template, body };
    context.commit(Change::DependencyCreate(Box::new(new))).await?;
    Ok(Answer::created(&json!({ "ID": id.to_string() })))
}

/// Labels only; `stack deploy` sends the same name and data along.
async fn update(kind: DependencyKind, context: &Context, request: &Request) -> Result<Answer, ApiError> {
    let view = context.cluster_view()?;
    let version = request.version(kind.name())?;
    let dependency = find::dependency(&view.state, kind, &request.name)?;
    let spec = convert::read(kind, &request.json()?)?;
    let same_data = match &spec.data {
        Some(data) => *data == open(context, dependency)?,
        None => true,
    };
    if spec.name != dependency.name || !same_data || spec.template && !dependency.template {
        return Err(ApiError::invalid("only updates to Labels are allowed"));
    }
    let change = Change::DependencyLabel { dependency: dependency.id, version, labels: spec.labels };
    context.commit(change).await?;
    Ok(Answer::empty())
}
