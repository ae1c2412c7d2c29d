//! YAML text ─▶ [`Node`]: anchors, aliases and merge keys resolved, everything bounded.
//!
//! The parser's events are read one by one, so depth and size are ours to limit: an alias counts as much as what it
//! stands for (a "billion laughs" file is refused), and an anchor cannot hold itself.

use std::collections::BTreeMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};

use super::super::super::limits::{COMPOSE_BYTES_MAX, COMPOSE_DEPTH_MAX, COMPOSE_VALUES_MAX};
use super::node::{Data, Entry, Fault, Node, Place};
use super::scalar;

/// A value with what it costs.
#[derive(Clone)]
struct Sized {
    node: Node,
    /// Values in it, itself included.
    values: usize,
    /// Levels below it, its own included.
    levels: usize,
    /// A plain scalar: `<<` in quotes is no merge key.
    plain: bool,
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    file: Rc<str>,
    anchors: BTreeMap<usize, Sized>,
    /// Values read so far; every use of an alias counts again.
    values: usize,
}

/// Reads the one document of a file.
///
/// # Errors
/// The first thing that is wrong, with its line.
pub(crate) fn read(file: &str, text: &str) -> Result<Node, Fault> {
    let file: Rc<str> = file.into();
    let first = Place { file: file.clone(), line: 1 };
    if text.len() > COMPOSE_BYTES_MAX {
        let what = format!("the file has {} bytes, more than the {COMPOSE_BYTES_MAX} that are read", text.len());
        return Err(Fault { place: first, path: String::new(), what });
    }
    let text = text.trim_start_matches('\u{feff}');
    let mut reader = Reader { parser: Parser::new_from_str(text), file, anchors: BTreeMap::new(), values: 0 };
    let mut document = None;
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            Event::StreamEnd => break,
            _ if document.is_some() => return Err(reader.fault(&span, "a compose file is one document, not several")),
            event => document = Some(reader.value(event, &span, 1)?.node),
        }
    }
    Ok(document.unwrap_or_else(|| Node::new(&first, Data::Null)))
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Fault> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                let place = Place { file: self.file.clone(), line: error.marker().line().max(1) };
                Err(Fault { place, path: String::new(), what: format!("YAML: {}", error.info()) })
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn place(&self, span: &Span) -> Place {
        Place { file: self.file.clone(), line: span.start.line().max(1) }
    }

    fn fault(&self, span: &Span, what: impl Into<String>) -> Fault {
        Fault { place: self.place(span), path: String::new(), what: what.into() }
    }

    fn count(&mut self, span: &Span, values: usize) -> Result<(), Fault> {
        self.values = self.values.saturating_add(values);
        if self.values > COMPOSE_VALUES_MAX {
            let what = format!("more than {COMPOSE_VALUES_MAX} values (every use of an alias counts)");
            return Err(self.fault(span, what));
        }
        Ok(())
    }

    /// The value that begins with `event`, `depth` levels down.
    fn value(&mut self, event: Event<'a>, span: &Span, depth: usize) -> Result<Sized, Fault> {
        let too_deep = || format!("more than {COMPOSE_DEPTH_MAX} levels deep");
        if depth > COMPOSE_DEPTH_MAX {
            return Err(self.fault(span, too_deep()));
        }
        let at = self.place(span);
        let (anchor, sized) = match event {
            Event::Alias(anchor) => {
                let Some(sized) = self.anchors.get(&anchor).cloned() else {
                    return Err(self.fault(span, "an alias stands inside of what it stands for"));
                };
                self.count(span, sized.values)?;
                if depth + sized.levels - 1 > COMPOSE_DEPTH_MAX {
                    return Err(self.fault(span, too_deep()));
                }
                return Ok(sized);
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.count(span, 1)?;
                let plain = style == ScalarStyle::Plain;
                let data = match tag_of(tag.as_deref()).map_err(|what| self.fault(span, what))? {
                    Some("str") => Data::Text { text: text.into_owned(), filled: false },
                    None if !plain => Data::Text { text: text.into_owned(), filled: false },
                    Some("null" | "bool" | "int" | "float") | None => scalar::resolve(&text),
                    Some(other) => return Err(self.fault(span, format!("!!{other} is no scalar"))),
                };
                (anchor, Sized { node: Node { at, data }, values: 1, levels: 1, plain })
            }
            Event::SequenceStart(anchor, tag) => {
                self.count(span, 1)?;
                tag_of(tag.as_deref()).map_err(|what| self.fault(span, what))?;
                (anchor, self.list(at, depth)?)
            }
            Event::MappingStart(anchor, tag) => {
                self.count(span, 1)?;
                tag_of(tag.as_deref()).map_err(|what| self.fault(span, what))?;
                (anchor, self.map(at, depth)?)
            }
            _ => return Err(self.fault(span, "expected a value")),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, sized.clone());
        }
        Ok(sized)
    }

    fn list(&mut self, at: Place, depth: usize) -> Result<Sized, Fault> {
        let (mut items, mut values, mut levels) = (Vec::new(), 1, 1);
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                let node = Node { at, data: Data::List(items) };
                return Ok(Sized { node, values, levels, plain: false });
            }
            let item = self.value(event, &span, depth + 1)?;
            values += item.values;
            levels = levels.max(item.levels + 1);
            items.push(item.node);
        }
    }

    fn map(&mut self, at: Place, depth: usize) -> Result<Sized, Fault> {
        let (mut entries, mut merged) = (Vec::<Entry>::new(), Vec::<Entry>::new());
        let (mut values, mut levels) = (1, 1);
        // Line of each key so far: looking through `entries` would be slow in a large mapping.
        let mut seen = BTreeMap::<String, usize>::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let key = self.value(event, &span, depth + 1)?;
            let (event, value_span) = self.next()?;
            let value = self.value(event, &value_span, depth + 1)?;
            values += key.values + value.values;
            levels = levels.max(value.levels + 1);
            let Data::Text { text, .. } = key.node.data else {
                return Err(self.fault(&span, "a key must be a string"));
            };
            if text == "<<" && key.plain {
                self.merge(value.node, &span, &mut merged)?;
                continue;
            }
            if let Some(line) = seen.insert(text.clone(), span.start.line()) {
                return Err(self.fault(&span, format!("the key {text} is there already, on line {line}")));
            }
            entries.push(Entry { key: text, at: self.place(&span), value: value.node });
        }
        for entry in merged {
            if seen.insert(entry.key.clone(), entry.at.line).is_none() {
                entries.push(entry);
            }
        }
        Ok(Sized { node: Node { at, data: Data::Map(entries) }, values, levels, plain: false })
    }

    /// What `<<` brings in: the entries of one mapping, or of several, the first one counting most.
    fn merge(&self, value: Node, span: &Span, merged: &mut Vec<Entry>) -> Result<(), Fault> {
        match value.data {
            Data::Map(entries) => {
                merged.extend(entries);
                Ok(())
            }
            Data::List(items) => items.into_iter().try_for_each(|item| match item.data {
                Data::Map(entries) => {
                    merged.extend(entries);
                    Ok(())
                }
                _ => Err(self.fault(span, "<< must be a mapping, or a list of mappings")),
            }),
            _ => Err(self.fault(span, "<< must be a mapping, or a list of mappings")),
        }
    }
}

/// The name of a tag of YAML's own; others mean nothing here.
fn tag_of(tag: Option<&Tag>) -> Result<Option<&str>, String> {
    match tag {
        None => Ok(None),
        Some(tag) if tag.is_yaml_core_schema() => match tag.suffix.as_str() {
            known @ ("str" | "null" | "bool" | "int" | "float") => Ok(Some(known)),
            "map" | "seq" => Ok(None),
            other => Err(format!("the tag !!{other} is not supported")),
        },
        Some(tag) => Err(format!("the tag {tag} is not supported")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value without places, as JSON-like text.
    fn plain(node: &Node) -> String {
        match &node.data {
            Data::List(items) => format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(",")),
            Data::Map(entries) => {
                let entries = entries.iter().map(|e| format!("{}:{}", e.key, plain(&e.value)));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
            }
            Data::Null => "null".to_owned(),
            data => super::super::node::scalar(data).expect("a scalar"),
        }
    }

    #[track_caller]
    fn check(text: &str, want: Result<&str, &str>) {
        match (read("f", text), want) {
            (Ok(node), Ok(want)) => assert_eq!(plain(&node), want, "{text}"),
            (Err(fault), Err(want)) => assert!(fault.to_string().contains(want), "{fault}"),
            (got, want) => panic!("{got:?} instead of {want:?}"),
        }
    }

    #[test]
    fn values() {
        check("a: 1\nb: [x, 'y', \"z\"]\nc: {d: }", Ok("{a:1,b:[x,y,z],c:{d:null}}"));
        check("\u{feff}a: |\n  x\n  y\n", Ok("{a:x\ny\n}"));
        check("a: !!str 5", Ok("{a:5}"));
        check("", Ok("null"));
        check("a: &x {b: 1}\nc: *x\n", Ok("{a:{b:1},c:{b:1}}"));
        check("x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}", Ok("{x:{a:1,b:2},y:{b:3,a:1}}"));
        check("p: &p {a: 1}\nq: &q {a: 2, b: 2}\ny: {<<: [*p, *q]}", Ok("{p:{a:1},q:{a:2,b:2},y:{a:1,b:2}}"));
        check("\"<<\": 1", Ok("{<<:1}"));
    }

    #[test]
    fn faults_have_a_line() {
        check("a: 1\nb: [", Err("f:3: YAML: "));
        check("a: 1\na: 2", Err("f:2: the key a is there already, on line 1"));
        check("a: 1\n1: 2", Err("f:2: a key must be a string"));
        check("a: 1\n---\nb: 1", Err("f:3: a compose file is one document"));
        check("a: *x", Err("f:1: YAML: "));
        check("a: &x [*x]", Err("f:1: an alias stands inside of what it stands for"));
        check("x: 1\na: {<<: 1}", Err("f:2: << must be a mapping"));
        check("a: !reset null", Err("f:1: the tag !reset is not supported"));
        check("a: !!binary xx", Err("f:1: the tag !!binary is not supported"));
        check("a: b: c", Err("f:1: YAML: "));
    }

    #[test]
    fn everything_is_bounded() {
        check(&"[".repeat(100_000), Err("f:1: "));
        check(&(0..70).map(|n| format!("{}a:\n", " ".repeat(n))).collect::<String>(), Err("more than 64 levels deep"));
        let laughs = (1..30).fold("a0: &a0 [x, x, x, x]\n".to_owned(), |text, n| {
            format!("{text}a{n}: &a{n} [*a{m}, *a{m}, *a{m}, *a{m}]\n", m = n - 1)
        });
        check(&laughs, Err("values (every use of an alias counts)"));
        let tower = (1..80).fold("a0: &a0 [x]\n".to_owned(), |text, n| format!("{text}a{n}: &a{n} [*a{}]\n", n - 1));
        check(&tower, Err("more than 64 levels deep"));
        check(&"#".repeat(COMPOSE_BYTES_MAX + 1), Err("f:1: the file has 1048577 bytes, more than the 1048576"));
    }
}
