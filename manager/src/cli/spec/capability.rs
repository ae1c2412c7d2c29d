//! `--cap-add` and `--cap-drop`: how they change the lists that a service has. Pure.
//!
//! Names are `NET_ADMIN`, `cap_net_admin`, `ALL`, or `RESET`, which empties the list first. The rules
//! are Docker's: adding wins over dropping, and what one list has leaves the other one first.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::json::Peek;
use super::shared::put_list;

const ALL: &str = "ALL";
const RESET: &str = "RESET";

/// The lists of a new service.
pub(super) fn create(container: &mut Value, add: &[String], drop: &[String]) {
    // ALL says everything that its list could say.
    merge(container, all_or(names(add)), all_or(names(drop)));
}

/// Changes the lists of a service.
pub(super) fn update(container: &mut Value, add: &[String], drop: &[String]) {
    if !add.is_empty() || !drop.is_empty() {
        merge(container, names(add), names(drop));
    }
}

fn merge(container: &mut Value, mut add: BTreeSet<String>, mut drop: BTreeSet<String>) {
    let old = |pointer| -> Vec<String> {
        container.list(pointer).iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let (mut added, mut dropped) = (names(&old("/CapabilityAdd")), names(&old("/CapabilityDrop")));
    if add.remove(RESET) {
        added.clear();
    }
    if drop.remove(RESET) {
        dropped.clear();
    }
    for name in drop.difference(&add) {
        if !added.remove(name) {
            dropped.insert(name.clone());
        }
    }
    for name in &add {
        if !dropped.remove(name) {
            added.insert(name.clone());
        }
    }
    put_list(container, "CapabilityAdd", all_or(added).into_iter().collect());
    put_list(container, "CapabilityDrop", all_or(dropped).into_iter().collect());
}

fn names(list: &[String]) -> BTreeSet<String> {
    let full = |name: &String| match name.trim().to_uppercase() {
        name if name == ALL || name == RESET || name.starts_with("CAP_") => name,
        name => format!("CAP_{name}"),
    };
    list.iter().map(full).collect()
}

fn all_or(names: BTreeSet<String>) -> BTreeSet<String> {
    if names.contains(ALL) { names.into_iter().filter(|name| name == ALL || name == RESET).collect() } else { names }
}
