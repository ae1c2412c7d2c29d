//! Generic resources that a service asks for. Pure.

use clap::Args;
use racimo_common::object::{Generic, parse_generics};
use serde_json::{Value, json};

use super::super::error::CliError;
use super::super::json::{Peek, array, place, unset};

const FIELD: &str = "GenericResources";

/// Flags of `service create`.
#[derive(Args, Debug, Default)]
pub(crate) struct NewGeneric {
    /// Reserve generic resources of a board (for example gpio=2)
    #[arg(long, value_name = "KIND=COUNT")]
    pub(crate) generic_resource: Vec<String>,
}

/// Flags of `service update`.
#[derive(Args, Debug, Default, PartialEq)]
pub(crate) struct GenericChanges {
    /// Add a generic resource, or change how many
    #[arg(long, value_name = "KIND=COUNT")]
    pub(crate) generic_resource_add: Vec<String>,
    /// Remove a generic resource
    #[arg(long, value_name = "KIND")]
    pub(crate) generic_resource_rm: Vec<String>,
}

impl NewGeneric {
    /// Fills a new specification.
    pub(super) fn apply(&self, spec: &mut Value) -> Result<(), CliError> {
        change(spec, &self.generic_resource, &[])
    }
}

impl GenericChanges {
    /// Changes what a service asks for.
    pub(super) fn apply(&self, spec: &mut Value) -> Result<(), CliError> {
        change(spec, &self.generic_resource_add, &self.generic_resource_rm)
    }
}

/// Adds, then removes, as Docker does.
fn change(spec: &mut Value, add: &[String], remove: &[String]) -> Result<(), CliError> {
    if add.is_empty() && remove.is_empty() {
        return Ok(());
    }
    let added = parse_generics(add.iter().map(String::as_str))
        .map_err(|error| CliError::Usage(format!("invalid generic resource specification: {error}")))?;
    let reservations = place(spec, &["TaskTemplate", "Resources", "Reservations"]);
    let list = array(reservations, &[FIELD]);
    for (kind, generic) in added {
        let Generic::Count(count) = generic else {
            let term = add.iter().find(|term| term.trim_start().starts_with(&kind)).map_or("", String::as_str);
            return Err(CliError::Usage(format!(
                "invalid generic-resource request `{term}`, Named Generic Resources is not supported for service \
                 create or update"
            )));
        };
        list.retain(|old| old.text("/DiscreteResourceSpec/Kind") != kind);
        // As docker sends it: without a zero.
        let mut discrete = json!({"Kind": kind});
        if count > 0 {
            discrete["Value"] = count.into();
        }
        list.push(json!({"DiscreteResourceSpec": discrete}));
    }
    for kind in remove {
        let before = list.len();
        list.retain(|old| old.text("/DiscreteResourceSpec/Kind") != kind);
        if list.len() == before {
            return Err(CliError::Refused(format!("could not find generic-resource `{kind}` to remove it")));
        }
    }
    list.sort_by(|a, b| a.text("/DiscreteResourceSpec/Kind").cmp(b.text("/DiscreteResourceSpec/Kind")));
    if list.is_empty() {
        unset(reservations, &[FIELD]);
    }
    Ok(())
}

/// `gpio=2, modem=/dev/ttyUSB0`: what a node offers or a service asks for; empty if nothing.
pub(crate) fn text(resources: &Value) -> String {
    let one = |generic: &Value| {
        let (kind, count) = (generic.text("/DiscreteResourceSpec/Kind"), generic.int("/DiscreteResourceSpec/Value"));
        let named = ["/NamedResourceSpec/Kind", "/NamedResourceSpec/Value"].map(|pointer| generic.text(pointer));
        if kind.is_empty() { named.join("=") } else { format!("{kind}={}", count.unwrap_or(0)) }
    };
    resources.list("/GenericResources").iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(before: &[(&str, u64)], add: &[&str], remove: &[&str], want: Result<&str, &str>) {
        let list: Vec<Value> = before
            .iter()
            .map(|(kind, count)| json!({"DiscreteResourceSpec": {"Kind": kind, "Value": count}}))
            .collect();
        let mut spec = json!({"TaskTemplate": {"Resources": {"Reservations": {}}}});
        if !list.is_empty() {
            spec["TaskTemplate"]["Resources"]["Reservations"][FIELD] = list.into();
        }
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let got = change(&mut spec, &owned(add), &owned(remove));
        let reservations = &spec["TaskTemplate"]["Resources"]["Reservations"];
        match (got, want) {
            (Ok(()), Ok(want)) => {
                assert_eq!(text(reservations), want);
                assert_eq!(reservations.has("/GenericResources"), !want.is_empty(), "no empty list");
            }
            (Err(got), Err(want)) => assert!(got.to_string().contains(want), "{got}"),
            (got, want) => panic!("{got:?}, expected {want:?}"),
        }
    }

    #[test]
    fn what_is_asked_for_changes() {
        check(&[], &[], &[], Ok(""));
        check(&[], &["modem=1", "gpio=2"], &[], Ok("gpio=2, modem=1"));
        check(&[("gpio", 2)], &["gpio=3"], &[], Ok("gpio=3"));
        check(&[("gpio", 2), ("modem", 1)], &[], &["gpio"], Ok("modem=1"));
        check(&[("gpio", 2)], &["modem=1"], &["gpio"], Ok("modem=1"));
        check(&[("gpio", 2)], &[], &["gpio"], Ok(""));
        check(&[("gpio", 2)], &[], &["modem"], Err("could not find generic-resource `modem` to remove it"));
        check(&[], &["gpio"], &[], Err("invalid generic resource specification: could not parse GenericResource"));
        check(&[], &["gpio=-1"], &[], Err("cannot ask for negative resource gpio"));
        let named = "invalid generic-resource request `gpu=UUID1`, Named Generic Resources is not supported";
        check(&[], &["gpu=UUID1"], &[], Err(named));
    }

    #[test]
    fn what_a_node_offers_is_told() {
        let named = |value: &str| json!({"NamedResourceSpec": {"Kind": "modem", "Value": value}});
        let resources = json!({"GenericResources": [
            {"DiscreteResourceSpec": {"Kind": "gpio", "Value": 2}}, named("/dev/a"), named("/dev/b"),
        ]});
        assert_eq!(text(&resources), "gpio=2, modem=/dev/a, modem=/dev/b");
        assert_eq!(text(&Value::Null), "");
    }
}
