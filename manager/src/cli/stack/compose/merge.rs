//! A later compose file over an earlier one, as `docker stack` merges them. Pure; both are in the long form.

use super::node::{Data, Entry, Node};
use super::schema::{Key, Shape};

/// What both say together: the later one counts where they differ.
pub(crate) fn merge(earlier: Node, later: Node, shape: &Shape) -> Node {
    let at = later.at.clone();
    match (shape, earlier.data, later.data) {
        (Shape::Object(keys) | Shape::Maybe(keys), Data::Map(a), Data::Map(b)) => {
            Node { at, data: Data::Map(object(a, b, keys)) }
        }
        (Shape::Logging(keys), Data::Map(a), Data::Map(b)) => {
            let driver = |entries: &[Entry]| {
                let driver = entries.iter().find(|e| e.key == "driver").and_then(|e| e.value.as_text());
                driver.unwrap_or_default().to_owned()
            };
            let (old, new) = (driver(&a), driver(&b));
            let data = if old == new || old.is_empty() || new.is_empty() { object(a, b, keys) } else { b };
            Node { at, data: Data::Map(data) }
        }
        (Shape::Named(inner) | Shape::NamedOrNames(inner), Data::Map(a), Data::Map(b)) => {
            Node { at, data: named(a, b, |a, b| merge(a, b, inner)) }
        }
        (Shape::Whole(_) | Shape::Dict { .. } | Shape::Options, Data::Map(a), Data::Map(b)) => {
            Node { at, data: named(a, b, |_, b| b) }
        }
        (
            Shape::Texts
            | Shape::TextOrTexts
            | Shape::Scalars
            | Shape::Names
            | Shape::Hosts
            | Shape::EnvFiles
            | Shape::List(_),
            Data::List(mut a),
            Data::List(b),
        ) => {
            a.extend(b);
            Node { at, data: Data::List(a) }
        }
        (Shape::Items(_, _, by), Data::List(a), Data::List(b)) => Node { at, data: Data::List(items(a, b, *by)) },
        // A command that says nothing replaces nothing.
        (Shape::Command | Shape::Test, Data::List(a), Data::List(b)) if b.is_empty() => {
            Node { at: earlier.at, data: Data::List(a) }
        }
        (_, _, data) => Node { at, data },
    }
}

/// Entries in the schema's order.
fn object(mut earlier: Vec<Entry>, mut later: Vec<Entry>, keys: &[Key]) -> Vec<Entry> {
    let take = |entries: &mut Vec<Entry>, key: &Key| {
        entries.iter().position(|entry| entry.key == key.name).map(|place| entries.remove(place))
    };
    let mut both = |key: &Key| match (take(&mut earlier, key), take(&mut later, key)) {
        (Some(a), Some(b)) => Some(Entry { value: merge(a.value, b.value, &key.shape), ..b }),
        (Some(one), None) | (None, Some(one)) => Some(one),
        (None, None) => None,
    };
    let mut all: Vec<Entry> = keys.iter().filter_map(&mut both).collect();
    // What is left is `x-…`.
    earlier.retain(|old| !later.iter().any(|new| new.key == old.key));
    all.extend(earlier.into_iter().chain(later));
    all
}

/// Entries sorted by name.
fn named(earlier: Vec<Entry>, later: Vec<Entry>, both: impl Fn(Node, Node) -> Node) -> Data {
    let mut entries = earlier;
    for entry in later {
        match entries.iter().position(|old| old.key == entry.key) {
            Some(place) => {
                let old = entries.remove(place);
                entries.push(Entry { value: both(old.value, entry.value), ..entry });
            }
            None => entries.push(entry),
        }
    }
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    Data::Map(entries)
}

/// Items of both; with a key, one of each value of it, sorted by it.
fn items(earlier: Vec<Node>, later: Vec<Node>, by: Option<&str>) -> Vec<Node> {
    let Some(key) = by else {
        let same = |a: &Node, b: &Node| {
            ["mode", "protocol"].iter().all(|k| a.text(k) == b.text(k))
                && ["target", "published"].iter().all(|k| a.int(k) == b.int(k))
        };
        let mut all = earlier;
        for item in later {
            if !all.iter().any(|old| same(old, &item)) {
                all.push(item);
            }
        }
        all.sort_by_key(|port| port.int("published").unwrap_or_default());
        return all;
    };
    let mut all: Vec<Node> = Vec::new();
    for item in earlier.into_iter().chain(later) {
        all.retain(|old| old.text(key) != item.text(key));
        all.push(item);
    }
    all.sort_by(|a, b| a.text(key).cmp(b.text(key)));
    all
}
