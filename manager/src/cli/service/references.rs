//! The ids of secrets and configs that flags name.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::client::Client;
use super::super::error::CliError;
use super::super::json::Peek;
use super::super::spec::reference::{self, Kind, Reference};
use super::super::url::{Filters, Url};

/// References for a specification, or which name the manager does not know.
pub(super) async fn find(client: &mut Client, kind: Kind, wanted: &[Reference]) -> Result<Vec<Value>, CliError> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    reference::distinct(kind, wanted)?;
    let filters = wanted.iter().fold(Filters::default(), |filters, one| filters.with("name", &one.name));
    let objects = client.get(&Url::new(&[kind.path()]).filters(&filters)).await?;
    let pair = |object: &Value| (object.text("/Spec/Name").to_owned(), object.text("/ID").to_owned());
    // The manager's filter matches beginnings too; names are compared whole.
    let ids: BTreeMap<String, String> = objects.list("").iter().map(pair).collect();
    reference::with_ids(kind, wanted, &ids)
}
