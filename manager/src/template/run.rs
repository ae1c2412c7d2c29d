//! [`Template`] + facts ─▶ text.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::parse::{Node, Operand, Pipe};
use super::{Error, Facts, Lookup, Template};
use crate::limits::TEMPLATE_STEPS_MAX;

/// A value while a template runs.
#[derive(Debug, Clone, PartialEq)]
enum Value<'a> {
    Nil,
    Text(String),
    Number(i64),
    Bool(bool),
    Map(&'a BTreeMap<String, String>),
    Part(Part),
}

/// A part of the facts that has fields.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    Root,
    Service,
    Node,
    Platform,
    Task,
}

impl Template {
    /// Fills it in; at most `bytes_max` come out.
    ///
    /// # Errors
    /// Something is asked for that is not there, or a limit is reached.
    pub fn run(&self, facts: &Facts, lookup: Option<&dyn Lookup>, bytes_max: usize) -> Result<String, Error> {
        let variables = vec![(String::new(), Value::Part(Part::Root))];
        let mut run = Run { facts, lookup, variables, out: String::new(), steps: 0, made: 0, bytes_max, at: (1, 1) };
        match run.nodes(&self.nodes, &Value::Part(Part::Root)) {
            Ok(()) => Ok(run.out),
            Err(what) => Err(Error { line: run.at.0, column: run.at.1, what }),
        }
    }
}

struct Run<'a> {
    facts: &'a Facts,
    lookup: Option<&'a dyn Lookup>,
    variables: Vec<(String, Value<'a>)>,
    out: String,
    steps: usize,
    /// Bytes of all texts made so far.
    made: usize,
    bytes_max: usize,
    at: (usize, usize),
}

impl<'a> Run<'a> {
    fn step(&mut self) -> Result<(), String> {
        self.steps += 1;
        if self.steps > TEMPLATE_STEPS_MAX {
            Err(format!("it takes more than {TEMPLATE_STEPS_MAX} steps"))
        } else {
            Ok(())
        }
    }

    /// A text that was made on the way.
    fn text(&mut self, text: String) -> Result<Value<'a>, String> {
        self.charge(text.len()).map(|()| Value::Text(text))
    }

    /// Counts the bytes of a text that is made or copied.
    fn charge(&mut self, bytes: usize) -> Result<(), String> {
        self.made = self.made.saturating_add(bytes);
        if self.made > 4 * self.bytes_max { Err(self.too_long()) } else { Ok(()) }
    }

    /// Adds to a text that is made piece by piece: each is counted before the next one is there.
    fn add(&mut self, out: &mut String, piece: &str) -> Result<(), String> {
        self.charge(piece.len())?;
        out.push_str(piece);
        Ok(())
    }

    fn too_long(&self) -> String {
        format!("the result is longer than {} bytes", self.bytes_max)
    }

    /// An error about a name; a body's are not repeated, for they may be a piece of a secret.
    fn about(&self, what: &str, name: &str) -> String {
        if self.lookup.is_some() { what.to_owned() } else { format!("{what} {name}") }
    }

    fn say(&mut self, text: &str) -> Result<(), String> {
        if self.out.len() + text.len() > self.bytes_max {
            return Err(self.too_long());
        }
        self.out.push_str(text);
        Ok(())
    }

    fn nodes(&mut self, nodes: &[Node], dot: &Value<'a>) -> Result<(), String> {
        let mark = self.variables.len();
        for node in nodes {
            self.step()?;
            match node {
                Node::Text(text) => self.say(text)?,
                Node::Action(pipe) => {
                    let value = self.pipe(pipe, dot)?;
                    if pipe.sets.is_empty() {
                        let text = self.show(&value);
                        self.say(&text)?;
                    }
                }
                Node::If(pipe, then, otherwise) => {
                    let scope = self.variables.len();
                    let is_true = truth(&self.pipe(pipe, dot)?);
                    self.nodes(if is_true { then } else { otherwise }, dot)?;
                    self.variables.truncate(scope);
                }
                Node::With(pipe, then, otherwise) => {
                    let scope = self.variables.len();
                    let value = self.pipe(pipe, dot)?;
                    if truth(&value) {
                        self.nodes(then, &value)?;
                    } else {
                        self.nodes(otherwise, dot)?;
                    }
                    self.variables.truncate(scope);
                }
                Node::Range(pipe, then, otherwise) => self.range(pipe, then, otherwise, dot)?,
            }
        }
        self.variables.truncate(mark);
        Ok(())
    }

    fn range(&mut self, pipe: &Pipe, then: &[Node], otherwise: &[Node], dot: &Value<'a>) -> Result<(), String> {
        let over = self.commands(pipe, dot)?;
        let Value::Map(map) = over else {
            return Err("range can only go over labels".to_owned());
        };
        if map.is_empty() {
            return self.nodes(otherwise, dot);
        }
        for (key, value) in map {
            self.step()?;
            let scope = self.variables.len();
            let value = self.text(value.clone())?;
            match pipe.sets.as_slice() {
                [] => {}
                [one] => self.set(one, value.clone(), pipe.declares)?,
                [first, second, ..] => {
                    let key = self.text(key.clone())?;
                    self.set(first, key, pipe.declares)?;
                    self.set(second, value.clone(), pipe.declares)?;
                }
            }
            self.nodes(then, &value)?;
            self.variables.truncate(scope);
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: Value<'a>, declares: bool) -> Result<(), String> {
        if declares {
            self.variables.push((name.to_owned(), value));
            return Ok(());
        }
        match self.variables.iter_mut().rev().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => return Err(self.about("undefined variable", &format!("${name}"))),
        }
        Ok(())
    }

    fn pipe(&mut self, pipe: &Pipe, dot: &Value<'a>) -> Result<Value<'a>, String> {
        let value = self.commands(pipe, dot)?;
        if let Some(name) = pipe.sets.first() {
            self.set(name, value.clone(), pipe.declares)?;
        }
        Ok(value)
    }

    fn commands(&mut self, pipe: &Pipe, dot: &Value<'a>) -> Result<Value<'a>, String> {
        let mut last = None;
        for command in &pipe.commands {
            self.step()?;
            self.at = pipe.at;
            let value = match command.split_first() {
                Some((Operand::Function(name), rest)) => self.call(name, rest, last.take(), dot)?,
                Some((operand, _)) => self.operand(operand, dot)?,
                None => Value::Nil,
            };
            last = Some(value);
        }
        Ok(last.unwrap_or(Value::Nil))
    }

    fn operand(&mut self, operand: &Operand, dot: &Value<'a>) -> Result<Value<'a>, String> {
        self.step()?;
        match operand {
            Operand::Dot(names) => {
                self.charge(copied(dot))?;
                self.fields(dot.clone(), names)
            }
            Operand::Variable(name, names) => {
                let Some(found) = self.variables.iter().rposition(|(known, _)| known == name) else {
                    return Err(self.about("undefined variable", &format!("${name}")));
                };
                self.charge(copied(&self.variables[found].1))?;
                self.fields(self.variables[found].1.clone(), names)
            }
            Operand::Text(text) => self.text(text.clone()),
            Operand::Number(number) => Ok(Value::Number(*number)),
            Operand::Bool(flag) => Ok(Value::Bool(*flag)),
            Operand::Nil => Ok(Value::Nil),
            Operand::Function(name) => self.call(name, &[], None, dot),
            Operand::Pipe(pipe, names) => {
                let value = self.commands(pipe, dot)?;
                self.fields(value, names)
            }
        }
    }

    fn fields(&mut self, mut value: Value<'a>, names: &[String]) -> Result<Value<'a>, String> {
        let facts = self.facts;
        for name in names {
            let unknown = || match self.lookup {
                Some(_) => "there is no such field here".to_owned(),
                None => format!("there is no field .{name} here"),
            };
            let no_entry = || self.about("map has no entry for key", &format!("{name:?}"));
            let text: &str = match (&value, name.as_str()) {
                (Value::Part(Part::Root), "Service") => {
                    value = Value::Part(Part::Service);
                    continue;
                }
                (Value::Part(Part::Root), "Node") => {
                    value = Value::Part(Part::Node);
                    continue;
                }
                (Value::Part(Part::Root), "Task") => {
                    value = Value::Part(Part::Task);
                    continue;
                }
                (Value::Part(Part::Node), "Platform") => {
                    value = Value::Part(Part::Platform);
                    continue;
                }
                (Value::Part(Part::Service), "Labels") => {
                    value = Value::Map(&facts.service_labels);
                    continue;
                }
                (Value::Map(map), _) => map.get(name).ok_or_else(no_entry)?,
                (Value::Part(Part::Service), "ID") => &facts.service_id,
                (Value::Part(Part::Service), "Name") => &facts.service_name,
                (Value::Part(Part::Node), "ID") => &facts.node_id,
                (Value::Part(Part::Node), "Hostname") => &facts.node_hostname,
                (Value::Part(Part::Platform), "Architecture") => &facts.architecture,
                (Value::Part(Part::Platform), "OS") => &facts.os,
                (Value::Part(Part::Task), "ID") => &facts.task_id,
                (Value::Part(Part::Task), "Name") => &facts.task_name,
                (Value::Part(Part::Task), "Slot") => &facts.task_slot,
                (Value::Part(_) | Value::Nil | Value::Text(_) | Value::Number(_) | Value::Bool(_), _) => {
                    return Err(unknown());
                }
            };
            value = self.text(text.to_owned())?;
        }
        Ok(value)
    }

    fn call(
        &mut self,
        name: &str,
        operands: &[Operand],
        last: Option<Value<'a>>,
        dot: &Value<'a>,
    ) -> Result<Value<'a>, String> {
        let mut args = Vec::new();
        for operand in operands {
            let value = self.operand(operand, dot)?;
            let decided = match name {
                "and" => !truth(&value),
                "or" => truth(&value),
                _ => false,
            };
            args.push(value);
            if decided {
                return Ok(args.pop().unwrap_or(Value::Nil));
            }
        }
        args.extend(last);
        self.apply(name, args)
    }

    fn apply(&mut self, name: &str, mut args: Vec<Value<'a>>) -> Result<Value<'a>, String> {
        let count = args.len();
        let wants = |least: usize, most: usize| {
            if (least..=most).contains(&count) { Ok(()) } else { Err(format!("wrong number of arguments for {name}")) }
        };
        match name {
            "and" | "or" => {
                wants(1, usize::MAX)?;
                Ok(args.pop().unwrap_or(Value::Nil))
            }
            "not" => {
                wants(1, 1)?;
                Ok(Value::Bool(!truth(&args[0])))
            }
            "eq" => {
                wants(2, usize::MAX)?;
                let mut any = false;
                for other in &args[1..] {
                    any |= compare(&args[0], other)? == Ordering::Equal;
                }
                Ok(Value::Bool(any))
            }
            "ne" | "lt" | "le" | "gt" | "ge" => {
                wants(2, 2)?;
                let order = compare(&args[0], &args[1])?;
                Ok(Value::Bool(match name {
                    "ne" => order != Ordering::Equal,
                    "lt" => order == Ordering::Less,
                    "le" => order != Ordering::Greater,
                    "gt" => order == Ordering::Greater,
                    _ => order != Ordering::Less,
                }))
            }
            "len" => {
                wants(1, 1)?;
                let length = match &args[0] {
                    Value::Text(text) => text.len(),
                    Value::Map(map) => map.len(),
                    Value::Nil | Value::Number(_) | Value::Bool(_) | Value::Part(_) => {
                        return Err("len needs a text or labels".to_owned());
                    }
                };
                Ok(Value::Number(i64::try_from(length).unwrap_or(i64::MAX)))
            }
            "index" => {
                wants(2, 2)?;
                match (&args[0], &args[1]) {
                    (Value::Map(map), Value::Text(key)) => self.text(map.get(key).cloned().unwrap_or_default()),
                    _ => Err("index needs labels and a text".to_owned()),
                }
            }
            "print" | "println" => {
                let is_line = name == "println";
                let is_text = |at: usize| matches!(args.get(at), Some(Value::Text(_)));
                let mut out = String::new();
                for (at, arg) in args.iter().enumerate() {
                    // As Go's `print`: a space between two values neither of which is a text.
                    if at > 0 && (is_line || (!is_text(at) && !is_text(at - 1))) {
                        self.add(&mut out, " ")?;
                    }
                    let text = self.show(arg);
                    self.add(&mut out, &text)?;
                }
                if is_line {
                    self.add(&mut out, "\n")?;
                }
                Ok(Value::Text(out))
            }
            "printf" => self.printf(&args).map(Value::Text),
            "join" => {
                wants(1, usize::MAX)?;
                let between = self.show(&args[0]);
                let mut out = String::new();
                for (at, arg) in args[1..].iter().enumerate() {
                    if at > 0 {
                        self.add(&mut out, &between)?;
                    }
                    let text = self.show(arg);
                    self.add(&mut out, &text)?;
                }
                Ok(Value::Text(out))
            }
            "urlquery" => {
                let mut out = String::new();
                for arg in &args {
                    let text = url_query(&self.show(arg));
                    self.add(&mut out, &text)?;
                }
                Ok(Value::Text(out))
            }
            "secret" | "config" | "env" => {
                wants(1, 1)?;
                let (Value::Text(target), Some(lookup)) = (&args[0], self.lookup) else {
                    return Err(format!("{name} needs a text"));
                };
                let found = match name {
                    "secret" => lookup.secret(target)?,
                    "config" => lookup.config(target)?,
                    _ => lookup.env(target),
                };
                self.text(found)
            }
            _ => Err(format!("function {name:?} not defined")),
        }
    }

    /// `%s`, `%v`, `%d`, `%q` and `%%`, with a width.
    fn printf(&mut self, args: &[Value<'a>]) -> Result<String, String> {
        let Some((Value::Text(format), args)) = args.split_first() else {
            return Err("printf needs a format".to_owned());
        };
        let mut args = args.iter();
        let mut out = String::new();
        let mut rest = format.as_str();
        while let Some(at) = rest.find('%') {
            self.add(&mut out, &rest[..at])?;
            rest = &rest[at + 1..];
            let flags = rest.len() - rest.trim_start_matches(['-', '0']).len();
            let (flags, after) = rest.split_at(flags);
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            let (width, after) = after.split_at(digits);
            let width =
                if width.is_empty() { 0 } else { width.parse().ok().filter(|w| *w <= 1000).unwrap_or(usize::MAX) };
            let Some(verb) = after.chars().next().filter(|_| width <= 1000) else {
                return Err("printf: bad format".to_owned());
            };
            rest = &after[verb.len_utf8()..];
            if verb == '%' {
                self.add(&mut out, "%")?;
                continue;
            }
            let Some(arg) = args.next() else { return Err("printf: an argument is missing".to_owned()) };
            let text = match (verb, arg) {
                ('s' | 'v', _) | ('d', Value::Number(_)) => self.show(arg),
                ('q', Value::Text(text)) => format!("{text:?}"),
                _ => return Err("printf: expected %s, %v, %q or %d with a fitting argument".to_owned()),
            };
            let padded = match (flags.contains('-'), flags.contains('0')) {
                (true, _) => format!("{text:<width$}"),
                (false, true) => format!("{}{text}", "0".repeat(width.saturating_sub(text.chars().count()))),
                (false, false) => format!("{text:>width$}"),
            };
            self.add(&mut out, &padded)?;
        }
        self.add(&mut out, rest)?;
        if args.next().is_some() { Err("printf: too many arguments".to_owned()) } else { Ok(out) }
    }

    fn show(&self, value: &Value<'a>) -> String {
        match value {
            Value::Nil => "<no value>".to_owned(),
            Value::Text(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::Map(map) => {
                let pairs: Vec<String> = map.iter().map(|(k, v)| format!("{k}:{v}")).collect();
                format!("map[{}]", pairs.join(" "))
            }
            Value::Part(part) => {
                let facts = self.facts;
                let service = || {
                    let labels = self.show(&Value::Map(&facts.service_labels));
                    format!("{{{} {} {labels}}}", facts.service_id, facts.service_name)
                };
                let platform = || format!("{{{} {}}}", facts.architecture, facts.os);
                let node = || format!("{{{} {} {}}}", facts.node_id, facts.node_hostname, platform());
                let task = || format!("{{{} {} {}}}", facts.task_id, facts.task_name, facts.task_slot);
                match part {
                    Part::Root => format!("{{{} {} {}}}", service(), node(), task()),
                    Part::Service => service(),
                    Part::Node => node(),
                    Part::Platform => platform(),
                    Part::Task => task(),
                }
            }
        }
    }
}

/// Bytes that a copy of the value takes.
fn copied(value: &Value<'_>) -> usize {
    match value {
        Value::Text(text) => text.len(),
        Value::Nil | Value::Number(_) | Value::Bool(_) | Value::Map(_) | Value::Part(_) => 0,
    }
}

fn truth(value: &Value<'_>) -> bool {
    match value {
        Value::Nil => false,
        Value::Text(text) => !text.is_empty(),
        Value::Number(number) => *number != 0,
        Value::Bool(flag) => *flag,
        Value::Map(map) => !map.is_empty(),
        Value::Part(_) => true,
    }
}

fn compare(a: &Value<'_>, b: &Value<'_>) -> Result<Ordering, String> {
    match (a, b) {
        (Value::Text(a), Value::Text(b)) => Ok(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => Ok(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Ok(a.cmp(b)),
        _ => Err("incompatible types for comparison".to_owned()),
    }
}

fn url_query(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
