//! Short forms: `data:/var/lib/data:ro`, `8080:80/tcp`, the name of a secret. Pure.

use racimo_common::object::Port;

use super::node::{Data, Entry, Fault, Node, Place};
use crate::cli::spec::port;

fn map(at: &Place, entries: Vec<(&str, Data)>) -> Node {
    let entry = |(key, data): (&str, Data)| Entry { key: key.to_owned(), at: at.clone(), value: Node::new(at, data) };
    Node::new(at, Data::Map(entries.into_iter().map(entry).collect()))
}

fn text(text: impl Into<String>) -> Data {
    Data::Text { text: text.into(), filled: false }
}

/// A secret or config by its name alone.
pub(super) fn source(item: &Node, path: &str) -> Result<Vec<Node>, Fault> {
    match item.as_text() {
        Some(name) => Ok(vec![map(&item.at, vec![("source", text(name))])]),
        None => Err(item.wrong(path, "a name or a mapping")),
    }
}

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// `[SOURCE:]TARGET[:OPTIONS]`; a source that begins like a path is one of the board.
pub(super) fn volume(item: &Node, path: &str) -> Result<Vec<Node>, Fault> {
    let Some(spec) = item.as_text() else { return Err(item.wrong(path, "a string or a mapping")) };
    let bad = |why: &str| item.fault(path, format!("invalid volume {spec:?}: {why}"));
    let parts: Vec<&str> = spec.split(':').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(bad("empty section between colons"));
    }
    let (from, target, options) = match parts[..] {
        [target] => (None, target, ""),
        [from, target] => (Some(from), target, ""),
        [from, target, options] => (Some(from), target, options),
        _ => return Err(bad("too many colons")),
    };
    let is_path = from.is_some_and(|from| from.starts_with(['.', '/', '~']));
    let mut entries = vec![("type", text(if is_path { "bind" } else { "volume" }))];
    entries.extend(from.map(|from| ("source", text(from))));
    entries.push(("target", text(target)));
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => entries.push(("read_only", Data::Bool(true))),
            "rw" => {}
            "nocopy" => entries.push(("volume", map(&item.at, vec![("nocopy", Data::Bool(true))]).data)),
            option if PROPAGATIONS.contains(&option) => {
                entries.push(("bind", map(&item.at, vec![("propagation", text(option))]).data));
            }
            other => return Err(bad(&format!("unknown option {other}"))),
        }
    }
    Ok(vec![map(&item.at, entries)])
}

/// `[PUBLISHED:]TARGET[/PROTOCOL]`, as `--publish` takes it: each a port or a range.
pub(super) fn ports(item: &Node, path: &str) -> Result<Vec<Node>, Fault> {
    let number;
    let spec = match &item.data {
        Data::Text { text, .. } => text.as_str(),
        Data::Int(port) => {
            number = port.to_string();
            &number
        }
        _ => return Err(item.wrong(path, "a port, a string or a mapping")),
    };
    let ports = port::short(spec).map_err(|why| item.fault(path, format!("invalid port {spec:?}: {why}")))?;
    let one = |port: &Port| {
        let mut entries = vec![("mode", text(port.mode.name())), ("target", Data::Int(port.target.into()))];
        if port.published != 0 {
            entries.push(("published", Data::Int(port.published.into())));
        }
        entries.push(("protocol", text(port.protocol.name())));
        map(&item.at, entries)
    };
    Ok(ports.iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[track_caller]
    fn check(short: super::super::schema::Short, spec: &str, want: Result<&[&str], &str>) {
        let item = Node::text_at(&Place { file: Rc::from("f"), line: 3 }, spec);
        let shown = |node: &Node| {
            let one = |entry: &Entry| {
                let value = super::super::node::scalar(&entry.value.data);
                format!("{}={}", entry.key, value.unwrap_or_else(|| format!("{:?}", entry.value.pairs("propagation"))))
            };
            node.entries().iter().map(one).collect::<Vec<_>>().join(" ")
        };
        match (short(&item, "p"), want) {
            (Ok(got), Ok(want)) => assert_eq!(got.iter().map(shown).collect::<Vec<_>>(), want, "{spec}"),
            (Err(got), Err(want)) => {
                assert!(got.to_string().starts_with("f:3: p: ") && got.what.contains(want), "{got}")
            }
            (got, want) => panic!("{got:?} instead of {want:?}"),
        }
    }

    #[test]
    fn volumes() {
        check(volume, "/data", Ok(&["type=volume target=/data"]));
        check(volume, "vol:/data", Ok(&["type=volume source=vol target=/data"]));
        check(volume, "./a:/data:ro", Ok(&["type=bind source=./a target=/data read_only=true"]));
        check(volume, "~/a:/data:rw", Ok(&["type=bind source=~/a target=/data"]));
        check(volume, "vol:/data:rw,ro", Ok(&["type=volume source=vol target=/data read_only=true"]));
        check(volume, "", Err("empty section"));
        check(volume, "a::b", Err("empty section"));
        check(volume, "a:b:c:d", Err("too many colons"));
        check(volume, "a:/b:z", Err("unknown option z"));
    }

    #[test]
    fn published_ports() {
        check(ports, "80", Ok(&["mode=ingress target=80 protocol=tcp"]));
        check(ports, "8080:80/UDP", Ok(&["mode=ingress target=80 published=8080 protocol=udp"]));
        let two = ["mode=ingress target=1 published=5 protocol=tcp", "mode=ingress target=2 published=6 protocol=tcp"];
        check(ports, "5-6:1-2", Ok(&two));
        check(ports, "127.0.0.1:80:80", Err("hostip is not supported"));
        check(ports, "80:80/x", Err("the protocol must be"));
        check(ports, "5-7:1-2", Err("different lengths"));
        check(
            ports,
            "5-6:1",
            Ok(&["mode=ingress target=1 published=5 protocol=tcp", "mode=ingress target=1 published=6 protocol=tcp"]),
        );
        check(ports, "", Err("no port specified"));
        check(ports, "80:", Err("no port specified"));
        for spec in ["0", "65536", "-", "2-1", "a", "1-", "+80", "0-2:1-3"] {
            check(ports, spec, Err("expected a port"));
        }
    }
}
