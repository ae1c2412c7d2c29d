//! How far a root rotation is: which boards have a certificate of the new root, which trust it alone. Pure.
//!
//! In: the cluster and its nodes, as the manager shows them. Out: what to show, and whether it is done. As in Docker,
//! a board counts when its issuer is the cluster's; boards that are down are named instead of waited for, for the
//! manager does not wait for them either.

use serde_json::Value;

use super::super::json::Peek;
use super::paint::meter;
use crate::ca::rotation::{named, told_apart};

/// What one poll saw.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Rotation {
    under_way: bool,
    /// Nodes that are waited for.
    all: usize,
    /// Those of them with a certificate of the new root.
    certificates: usize,
    /// Those that trust the new root and no other.
    roots: usize,
    /// Names of those that have no certificate of the new root and are waited for.
    awaited: Vec<String>,
    /// Names of those that are down and lack something.
    down: Vec<String>,
}

impl Rotation {
    /// Judges one poll.
    pub(crate) fn of(cluster: &Value, nodes: &[Value]) -> Rotation {
        let mut seen = Rotation { under_way: cluster["RootRotationInProgress"] == true, ..Rotation::default() };
        for node in nodes {
            let name = || name(node, nodes);
            let same = |key: &str| {
                let (node, cluster) = (&node["Description"]["TLSInfo"][key], &cluster["TLSInfo"][key]);
                !node.is_null() && node == cluster
            };
            let certificate = same("CertIssuerPublicKey") && same("CertIssuerSubject");
            // The old root is the cluster's until everybody has a certificate of the new one.
            let root = certificate && !seen.under_way && same("TrustRoot");
            let is_down = node.text("/Status/State") == "down" && node["ManagerStatus"].is_null();
            if is_down {
                if !root {
                    seen.down.push(name());
                }
                continue;
            }
            seen.all += 1;
            if !certificate {
                seen.awaited.push(name());
            }
            seen.certificates += usize::from(certificate);
            seen.roots += usize::from(root);
        }
        seen
    }

    /// Whether nothing is left to wait for.
    pub(crate) fn is_done(&self) -> bool {
        !self.under_way && self.certificates == self.all && self.roots == self.all
    }

    /// What to show, with bars on a terminal.
    pub(crate) fn lines(&self, bars: bool) -> Vec<String> {
        let line = |what: &str, done: usize| {
            let bar = if bars { meter(done, self.all) + " " } else { String::new() };
            format!("rotated {what} certificates: {bar}{done}/{} nodes", self.all)
        };
        let mut lines = vec![line("TLS", self.certificates), line("CA ", self.roots)];
        if let Some(names) = some(&self.awaited) {
            lines.push(format!("waits for: {names}"));
        }
        if let Some(names) = some(&self.down) {
            lines.push(format!("down, renewed when they come back: {names}"));
        }
        lines
    }

    /// What a person should know who is not watching: none is under way, or what it waits for and what to do.
    pub(crate) fn stands(&self) -> Option<String> {
        let names = match some(&self.awaited) {
            _ if !self.under_way => return None,
            None => return Some("A root rotation is under way; it is about to end.".to_owned()),
            Some(names) => names,
        };
        Some(format!(
            "A root rotation is under way; it waits for {names}. If that lasts: update or restart the agent there, or stop it \
             (boards that are down are not waited for), or `pi-mgr node rm --force`. Another rotation would wait for them, \
             too."
        ))
    }
}

/// A node's host name, with its id where another node has the same one.
fn name(node: &Value, nodes: &[Value]) -> String {
    fn host(node: &Value) -> &str {
        node.text("/Description/Hostname")
    }
    match node.text("/ID") {
        "" => host(node).to_owned(),
        id => told_apart(host(node), id, nodes.iter().map(host)),
    }
}

/// None: there are none.
fn some(names: &[String]) -> Option<String> {
    (!names.is_empty()).then(|| named(names))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tls(issuer: &str, root: &str) -> Value {
        json!({"TrustRoot": root, "CertIssuerSubject": "ca", "CertIssuerPublicKey": issuer})
    }

    fn node(issuer: &str, root: &str, state: &str) -> Value {
        json!({"Description": {"Hostname": format!("{issuer}-{state}"), "TLSInfo": tls(issuer, root)},
               "Status": {"State": state}})
    }

    #[track_caller]
    fn check(under_way: bool, nodes: &[Value], want: &[&str], done: bool) {
        let root = if under_way { "old" } else { "new" };
        let cluster = json!({"RootRotationInProgress": under_way, "TLSInfo": tls("new", root)});
        let seen = Rotation::of(&cluster, nodes);
        assert_eq!((seen.lines(false), seen.is_done()), (want.iter().map(ToString::to_string).collect(), done));
    }

    #[test]
    fn who_counts() {
        let (old, both, new) =
            (node("old", "old", "ready"), node("new", "oldnew", "ready"), node("new", "new", "ready"));
        let lines = |certificates: &str, roots: &str| {
            [format!("rotated TLS certificates: {certificates}"), format!("rotated CA  certificates: {roots}")]
        };
        let run = |under_way, nodes: &[&Value], certificates: &str, roots: &str, done| {
            let nodes: Vec<Value> = nodes.iter().map(|node| (*node).clone()).collect();
            let want = lines(certificates, roots);
            let missing = nodes.iter().filter(|node| node["Description"]["TLSInfo"]["CertIssuerPublicKey"] != "new");
            let missing: Vec<_> = missing.map(|node| node.text("/Description/Hostname")).collect();
            let waits = format!("waits for: {}", missing.join(", "));
            let want = [&*want[0], &want[1], &waits];
            check(under_way, &nodes, if missing.is_empty() { &want[..2] } else { &want }, done);
        };
        run(true, &[&old, &both], "1/2 nodes", "0/2 nodes", false);
        // A board of the old root trusts what the cluster still shows.
        run(true, &[&old, &old], "0/2 nodes", "0/2 nodes", false);
        run(true, &[&both, &both], "2/2 nodes", "0/2 nodes", false);
        run(false, &[&both, &new], "2/2 nodes", "1/2 nodes", false);
        run(false, &[&new, &new], "2/2 nodes", "2/2 nodes", true);
        // One that has not said anything.
        run(false, &[&json!({"Description": {}}), &new], "1/2 nodes", "1/2 nodes", false);
        run(false, &[], "0/0 nodes", "0/0 nodes", true);
    }

    #[test]
    fn boards_that_are_down_are_named() {
        let (down, new) = (node("old", "old", "down"), node("new", "new", "ready"));
        let counts = ["rotated TLS certificates: 1/1 nodes", "rotated CA  certificates: 1/1 nodes"];
        let named = "down, renewed when they come back: old-down";
        check(false, &[down.clone(), new.clone()], &[counts[0], counts[1], named], true);
        check(false, &[node("new", "new", "down"), new.clone()], &counts, true);
        let many = "down, renewed when they come back: old-down, old-down, old-down, old-down, old-down and 2 more";
        let nodes: Vec<Value> = std::iter::repeat_n(down, 7).chain([new.clone()]).collect();
        check(false, &nodes, &[counts[0], counts[1], many], true);
        // Two of one name.
        let twins = ["n1", "n2"].map(|id| {
            let mut node = node("old", "old", "down");
            node["ID"] = json!(id);
            node
        });
        let named = "down, renewed when they come back: old-down (n1), old-down (n2)";
        check(false, &[&twins[..], std::slice::from_ref(&new)].concat(), &[counts[0], counts[1], named], true);
        // A manager is waited for.
        let mut manager = node("old", "old", "down");
        manager["ManagerStatus"] = json!({"Leader": true});
        check(
            false,
            &[manager],
            &["rotated TLS certificates: 0/1 nodes", "rotated CA  certificates: 0/1 nodes", "waits for: old-down"],
            false,
        );
    }

    #[test]
    fn a_rotation_that_lasts_says_what_to_do() {
        let stands = |under_way, nodes: &[Value]| {
            let cluster = json!({"RootRotationInProgress": under_way, "TLSInfo": tls("new", "old")});
            Rotation::of(&cluster, nodes).stands()
        };
        let (old, new, down) =
            (node("old", "old", "ready"), node("new", "oldnew", "ready"), node("old", "old", "down"));
        assert_eq!(stands(false, std::slice::from_ref(&old)), None);
        let text = stands(true, &[old, new.clone(), down]).expect("it waits");
        assert!(text.contains("it waits for old-ready. If that lasts") && text.contains("node rm --force"), "{text}");
        assert!(stands(true, &[new]).is_some_and(|text| text.contains("about to end")));
    }

    #[test]
    fn bars_on_a_terminal() {
        let seen = Rotation { all: 2, certificates: 1, ..Rotation::default() };
        let half = format!("rotated TLS certificates: [{}>{}] 1/2 nodes", "=".repeat(25), " ".repeat(24));
        let none = format!("rotated CA  certificates: [>{}] 0/2 nodes", " ".repeat(49));
        assert_eq!(seen.lines(true), [half, none]);
    }
}
