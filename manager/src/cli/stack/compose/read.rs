//! A file's values ─▶ the long form of each, as [`super::schema`] says. Pure.

use super::super::super::parse;
use super::node::{Data, Entry, Fault, Node, join, scalar};
use super::schema::{Key, Shape};

/// What is passed over, for the warnings.
#[derive(Debug, Default)]
pub(crate) struct Ignored {
    /// Options that stacks do not have.
    pub(crate) unsupported: Vec<&'static str>,
    /// Options that are not needed, and why.
    pub(crate) deprecated: Vec<(&'static str, &'static str)>,
}

/// The long form of a value.
///
/// # Errors
/// An unknown key, or a value of another kind.
pub(crate) fn read(node: &Node, shape: &Shape, path: &str, ignored: &mut Ignored) -> Result<Node, Fault> {
    let data = match shape {
        Shape::Text => match &node.data {
            Data::Text { .. } => return Ok(text(node)),
            _ => return Err(node.wrong(path, "a string")),
        },
        Shape::Scalar => scalar_text(node, path)?,
        Shape::Flag => flag(node, path)?,
        Shape::Int => Data::Int(int(node, path)?),
        Shape::Mode => mode(node, path)?,
        Shape::Number => number(node, path)?,
        Shape::Span => span(node, path)?,
        Shape::Size => plain(size(node, path)?.to_string()),
        Shape::Bytes => Data::Int(size(node, path)?),
        Shape::Command => command(node, path)?,
        Shape::Test => test(node, path)?,
        Shape::Texts | Shape::Aliases => texts(node, path)?,
        Shape::TextOrTexts => match &node.data {
            Data::Text { .. } => Data::List(vec![text(node)]),
            _ => texts(node, path).map_err(|_| node.wrong(path, "a string or a list of strings"))?,
        },
        Shape::Scalars => {
            let items = list(node, path)?.iter().enumerate();
            let one = |(i, item): (usize, &Node)| Ok(Node::new(&item.at, scalar_text(item, &at(path, i))?));
            Data::List(items.map(one).collect::<Result<_, Fault>>()?)
        }
        Shape::Names => {
            if !ignored.unsupported.contains(&"depends_on") {
                ignored.unsupported.push("depends_on");
            }
            match &node.data {
                Data::Map(entries) => Data::List(entries.iter().map(|e| Node::text_at(&e.at, &*e.key)).collect()),
                _ => texts(node, path)?,
            }
        }
        Shape::Dict { nulls } => dict(node, *nulls, path)?,
        Shape::Options => options(node, path)?,
        Shape::Hosts => hosts(node, path)?,
        Shape::Ulimit => ulimit(node, path, ignored)?,
        Shape::External => external(node, path)?,
        Shape::Object(keys) | Shape::Logging(keys) => object(node, keys, path, ignored)?,
        Shape::Maybe(keys) => match node.data {
            Data::Null => Data::Map(Vec::new()),
            _ => object(node, keys, path, ignored)?,
        },
        Shape::Named(inner) | Shape::Whole(inner) => named(node, inner, path, ignored)?,
        Shape::NamedOrNames(inner) => match &node.data {
            Data::List(items) => {
                let empty = |item: &Node| Node::new(&item.at, Data::Map(Vec::new()));
                let mut entries: Vec<Entry> = Vec::new();
                for (i, item) in items.iter().enumerate() {
                    let name = item.as_text().ok_or_else(|| item.wrong(&at(path, i), "a string"))?;
                    if !is_name(name) {
                        return Err(item.fault(&at(path, i), NAME_RULE.to_owned()));
                    }
                    if entries.iter().any(|entry| entry.key == name) {
                        return Err(item.fault(&at(path, i), format!("{name} is there twice")));
                    }
                    entries.push(Entry { key: name.to_owned(), at: item.at.clone(), value: empty(item) });
                }
                Data::Map(entries)
            }
            _ => named(node, inner, path, ignored)?,
        },
        Shape::List(inner) => {
            let items = list(node, path)?.iter().enumerate();
            Data::List(items.map(|(i, item)| read(item, inner, &at(path, i), ignored)).collect::<Result<_, _>>()?)
        }
        Shape::Items(short, keys, _) => {
            let mut long = Vec::new();
            for (i, item) in list(node, path)?.iter().enumerate() {
                match item.data {
                    Data::Map(_) => {
                        let data = object(item, keys, &at(path, i), ignored)?;
                        long.push(Node::new(&item.at, data));
                    }
                    _ => long.extend(short(item, &at(path, i))?),
                }
            }
            Data::List(long)
        }
        Shape::EnvFiles => env_files(node, path)?,
        // Handled where the key is known.
        Shape::Ignored | Shape::Deprecated(_) => Data::Null,
        Shape::Forbidden(why) => return Err(node.fault(path, *why)),
    };
    Ok(Node::new(&node.at, data))
}

fn at(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

fn text(node: &Node) -> Node {
    Node::text_at(&node.at, node.as_text().unwrap_or_default())
}

fn list<'a>(node: &'a Node, path: &str) -> Result<&'a [Node], Fault> {
    match &node.data {
        Data::List(items) => Ok(items),
        _ => Err(node.wrong(path, "a list")),
    }
}

fn map<'a>(node: &'a Node, path: &str) -> Result<&'a [Entry], Fault> {
    match &node.data {
        Data::Map(entries) => Ok(entries),
        _ => Err(node.wrong(path, "a mapping")),
    }
}

fn plain(text: impl Into<String>) -> Data {
    Data::Text { text: text.into(), filled: false }
}

fn scalar_text(node: &Node, path: &str) -> Result<Data, Fault> {
    match node.data {
        Data::Bool(_) => Err(node.wrong(path, "a string or a number")),
        _ => scalar(&node.data).map(plain).ok_or_else(|| node.wrong(path, "a string or a number")),
    }
}

/// A text into which a variable was put may stand for another kind of value.
fn filled(node: &Node) -> Option<&str> {
    match &node.data {
        Data::Text { text, filled: true } => Some(text),
        _ => None,
    }
}

fn flag(node: &Node, path: &str) -> Result<Data, Fault> {
    let word = filled(node).map(str::to_lowercase);
    match (&node.data, word.as_deref()) {
        (Data::Bool(flag), _) => Ok(Data::Bool(*flag)),
        (_, Some("y" | "yes" | "true" | "on")) => Ok(Data::Bool(true)),
        (_, Some("n" | "no" | "false" | "off")) => Ok(Data::Bool(false)),
        _ => Err(node.wrong(path, "true or false")),
    }
}

fn int(node: &Node, path: &str) -> Result<i64, Fault> {
    match (&node.data, filled(node).map(str::parse)) {
        (Data::Int(number), _) => Ok(*number),
        (_, Some(Ok(number))) => Ok(number),
        (Data::Float(_), _) => Err(node.fault(path, "expected a whole number")),
        _ => Err(node.wrong(path, "a whole number")),
    }
}

fn mode(node: &Node, path: &str) -> Result<Data, Fault> {
    let bits = match &node.data {
        Data::Text { text, .. } => i64::from_str_radix(text, 8).ok(),
        data => {
            if let Data::Int(bits) = data {
                Some(*bits)
            } else {
                None
            }
        }
    };
    let wrong = || node.fault(path, "expected an octal mode from 0 to 07777, such as 0440");
    bits.filter(|bits| (0..=0o7777).contains(bits)).map(Data::Int).ok_or_else(wrong)
}

#[expect(clippy::cast_precision_loss, reason = "ratios are small")]
fn number(node: &Node, path: &str) -> Result<Data, Fault> {
    match (&node.data, filled(node).map(str::parse::<f64>)) {
        (Data::Int(number), _) => Ok(Data::Float(*number as f64)),
        (Data::Float(number), _) => Ok(Data::Float(*number)),
        (_, Some(Ok(number))) => Ok(Data::Float(number)),
        _ => Err(node.wrong(path, "a number")),
    }
}

fn span(node: &Node, path: &str) -> Result<Data, Fault> {
    let Some(text) = node.as_text() else { return Err(node.wrong(path, "a duration such as 1m30s")) };
    let nanos = parse::duration(text).map_err(|why| node.fault(path, why))?;
    Ok(plain(super::print::duration(nanos.0)))
}

fn size(node: &Node, path: &str) -> Result<i64, Fault> {
    match &node.data {
        Data::Int(bytes) if *bytes >= 0 => Ok(*bytes),
        Data::Text { text, .. } => parse::bytes(text).map_err(|why| node.fault(path, why)),
        Data::Int(_) => Err(node.fault(path, "a size cannot be negative")),
        _ => Err(node.wrong(path, "a size such as 50M")),
    }
}

fn texts(node: &Node, path: &str) -> Result<Data, Fault> {
    let one = |(i, item): (usize, &Node)| match item.as_text() {
        Some(_) => Ok(text(item)),
        None => Err(item.wrong(&at(path, i), "a string")),
    };
    list(node, path)?.iter().enumerate().map(one).collect::<Result<_, _>>().map(Data::List)
}

fn command(node: &Node, path: &str) -> Result<Data, Fault> {
    match node.as_text() {
        Some(line) => {
            let words = parse::words(line).map_err(|why| node.fault(path, why))?;
            Ok(Data::List(words.into_iter().map(|word| Node::text_at(&node.at, word)).collect()))
        }
        None => texts(node, path),
    }
}

fn test(node: &Node, path: &str) -> Result<Data, Fault> {
    match node.as_text() {
        Some(line) => Ok(Data::List(vec![Node::text_at(&node.at, "CMD-SHELL"), Node::text_at(&node.at, line)])),
        None => texts(node, path),
    }
}

fn put(entries: &mut Vec<Entry>, entry: Entry) {
    match entries.iter_mut().find(|old| old.key == entry.key) {
        Some(old) => *old = entry,
        None => entries.push(entry),
    }
}

fn sorted(mut entries: Vec<Entry>) -> Data {
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    Data::Map(entries)
}

fn dict(node: &Node, nulls: bool, path: &str) -> Result<Data, Fault> {
    let mut entries = Vec::new();
    let empty = |nulls: bool| if nulls { Data::Null } else { plain("") };
    match &node.data {
        Data::Map(map) => {
            for Entry { key, at, value } in map {
                let data = match &value.data {
                    Data::Null => empty(nulls),
                    _ => scalar_text(value, &join(path, key))?,
                };
                entries.push(Entry { key: key.clone(), at: at.clone(), value: Node::new(&value.at, data) });
            }
        }
        Data::List(items) => {
            for (i, item) in items.iter().enumerate() {
                let text = item.as_text().ok_or_else(|| item.wrong(&at(path, i), "a string"))?;
                let (key, data) = match text.split_once('=') {
                    Some((key, value)) => (key, plain(value)),
                    None => (text, empty(nulls)),
                };
                if key.is_empty() {
                    return Err(item.fault(&at(path, i), format!("{text:?} has no name")));
                }
                let value = Node::new(&item.at, data);
                put(&mut entries, Entry { key: key.to_owned(), at: item.at.clone(), value });
            }
        }
        _ => return Err(node.wrong(path, "a mapping, or a list of key=value")),
    }
    Ok(sorted(entries))
}

fn options(node: &Node, path: &str) -> Result<Data, Fault> {
    let mut entries = Vec::new();
    for Entry { key, at, value } in map(node, path)? {
        let data = match value.data {
            Data::Null => plain(""),
            _ => scalar_text(value, &join(path, key))?,
        };
        entries.push(Entry { key: key.clone(), at: at.clone(), value: Node::new(&value.at, data) });
    }
    Ok(sorted(entries))
}

/// `name:address`; the newer form `name=address` is taken too.
fn hosts(node: &Node, path: &str) -> Result<Data, Fault> {
    let mut hosts = Vec::new();
    match &node.data {
        Data::Map(entries) => {
            for Entry { key, value, .. } in entries {
                let address = value.as_text().ok_or_else(|| value.wrong(&join(path, key), "an address"))?;
                hosts.push(Node::text_at(&value.at, format!("{key}:{address}")));
            }
            hosts.sort_by(|a, b| a.as_text().cmp(&b.as_text()));
        }
        Data::List(items) => {
            for (i, item) in items.iter().enumerate() {
                let line = item.as_text().ok_or_else(|| item.wrong(&at(path, i), "a string"))?;
                let parts = line.split_once('=').or_else(|| line.split_once(':'));
                match parts.filter(|(name, address)| !name.is_empty() && !address.is_empty()) {
                    Some((name, address)) => hosts.push(Node::text_at(&item.at, format!("{name}:{address}"))),
                    None => return Err(item.fault(&at(path, i), format!("{line:?} is not NAME:ADDRESS"))),
                }
            }
        }
        _ => return Err(node.wrong(path, "a mapping, or a list of NAME:ADDRESS")),
    }
    Ok(Data::List(hosts))
}

fn ulimit(node: &Node, path: &str, ignored: &mut Ignored) -> Result<Data, Fault> {
    const KEYS: &[Key] = &[Key { name: "soft", shape: Shape::Int }, Key { name: "hard", shape: Shape::Int }];
    if let Data::Map(_) = node.data {
        let data = object(node, KEYS, path, ignored)?;
        let long = Node::new(&node.at, data);
        return match (long.get("soft"), long.get("hard")) {
            (Some(_), Some(_)) => Ok(long.data),
            _ => Err(node.fault(path, "soft and hard are both needed")),
        };
    }
    int(node, path).map(Data::Int)
}

/// `true`, `false`, or `{name: …}`.
fn external(node: &Node, path: &str) -> Result<Data, Fault> {
    match &node.data {
        Data::Map(_) => object(node, &[Key { name: "name", shape: Shape::Text }], path, &mut Ignored::default()),
        _ => flag(node, path),
    }
}

fn env_files(node: &Node, path: &str) -> Result<Data, Fault> {
    const KEYS: &[Key] = &[Key { name: "path", shape: Shape::Text }, Key { name: "required", shape: Shape::Flag }];
    let one = |item: &Node, path: &str| -> Result<Node, Fault> {
        match item.data {
            Data::Text { .. } => Ok(text(item)),
            Data::Map(_) => {
                let long = Node::new(&item.at, object(item, KEYS, path, &mut Ignored::default())?);
                if long.text("path").is_empty() { Err(item.fault(path, "path is needed")) } else { Ok(long) }
            }
            _ => Err(item.wrong(path, "a file's name or a mapping")),
        }
    };
    match &node.data {
        Data::Text { .. } => Ok(Data::List(vec![text(node)])),
        Data::List(items) => {
            let items = items.iter().enumerate().map(|(i, item)| one(item, &at(path, i)));
            items.collect::<Result<_, _>>().map(Data::List)
        }
        _ => Err(node.wrong(path, "a string or a list")),
    }
}

const NAME_RULE: &str = "a name has only letters, digits, '.', '_' and '-'";

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

fn named(node: &Node, inner: &Shape, path: &str, ignored: &mut Ignored) -> Result<Data, Fault> {
    let mut entries = Vec::new();
    for Entry { key, at, value } in map(node, path)? {
        let path = join(path, key);
        if !is_name(key) {
            return Err(Fault { place: at.clone(), path, what: NAME_RULE.to_owned() });
        }
        let value = read(value, inner, &path, ignored)?;
        entries.push(Entry { key: key.clone(), at: at.clone(), value });
    }
    Ok(sorted(entries))
}

/// Known keys in the schema's order, then `x-…` as they are.
fn object(node: &Node, keys: &[Key], path: &str, ignored: &mut Ignored) -> Result<Data, Fault> {
    let entries = map(node, path)?;
    let known = |name: &str| keys.iter().any(|key| key.name == name);
    if let Some(entry) = entries.iter().find(|e| !known(&e.key) && !e.key.starts_with("x-")) {
        let what = "there is no such option".to_owned();
        return Err(Fault { place: entry.at.clone(), path: join(path, &entry.key), what });
    }
    let mut long = Vec::new();
    for key in keys {
        let Some(Entry { at, value, .. }) = entries.iter().find(|entry| entry.key == key.name) else { continue };
        match key.shape {
            Shape::Ignored if !ignored.unsupported.contains(&key.name) => ignored.unsupported.push(key.name),
            Shape::Deprecated(why) if !ignored.deprecated.contains(&(key.name, why)) => {
                ignored.deprecated.push((key.name, why));
            }
            Shape::Ignored | Shape::Deprecated(_) => {}
            Shape::Forbidden(why) => {
                return Err(Fault { place: at.clone(), path: join(path, key.name), what: why.to_owned() });
            }
            _ => {
                let value = read(value, &key.shape, &join(path, key.name), ignored)?;
                long.push(Entry { key: key.name.to_owned(), at: at.clone(), value });
            }
        }
    }
    long.extend(entries.iter().filter(|entry| entry.key.starts_with("x-")).cloned());
    Ok(Data::Map(long))
}
