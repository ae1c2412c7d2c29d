//! What a file leaves to its surroundings: environment variables, env files, relative paths, the names of external
//! objects. Pure: the surroundings are an argument.

use std::path::{Component, Path, PathBuf};

use super::super::super::limits::COMPOSE_BYTES_MAX;
use super::super::super::spec::env::first_word;
use super::node::{Data, Entry, Fault, Node, join};
use super::{World, node};

/// Fills in one file's long form.
///
/// # Errors
/// A file that cannot be read, or that says nonsense; options that exclude each other.
pub(super) fn resolve(file: &mut Node, world: &World<'_>) -> Result<(), Fault> {
    let Data::Map(sections) = &mut file.data else { return Ok(()) };
    for section in sections {
        let Data::Map(objects) = &mut section.value.data else { continue };
        for object in objects {
            let path = join(&section.key, &object.key);
            match section.key.as_str() {
                "services" => service(&mut object.value, &path, world)?,
                "networks" | "volumes" => external(&object.key, &mut object.value, &path)?,
                "secrets" | "configs" => {
                    external(&object.key, &mut object.value, &path)?;
                    content(&mut object.value, &path, world)?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn entries(node: &mut Node) -> &mut Vec<Entry> {
    if !matches!(node.data, Data::Map(_)) {
        node.data = Data::Map(Vec::new());
    }
    match &mut node.data {
        Data::Map(entries) => entries,
        _ => unreachable!("made a mapping above"),
    }
}

fn service(service: &mut Node, path: &str, world: &World<'_>) -> Result<(), Fault> {
    let mut env: Vec<Entry> = Vec::new();
    let files = service.get("env_file").cloned();
    for (i, file) in files.iter().flat_map(Node::items).enumerate() {
        env_file(file, &format!("{path}.env_file[{i}]"), world, &mut env)?;
    }
    let own = service.get("environment").cloned();
    for entry in own.iter().flat_map(Node::entries) {
        put(&mut env, completed(entry.clone(), world));
    }
    let at = own.or(files).map(|node| node.at);
    let list = entries(service);
    list.retain(|entry| !matches!(entry.key.as_str(), "env_file" | "environment"));
    if let Some(at) = at {
        env.sort_by(|a, b| a.key.cmp(&b.key));
        let value = Node::new(&at, Data::Map(env));
        // Where the schema has it.
        let place = list.iter().position(|entry| entry.key.as_str() > "environment").unwrap_or(list.len());
        list.insert(place, Entry { key: "environment".to_owned(), at, value });
    }
    if let Some(Entry { value: Node { data: Data::List(mounts), .. }, .. }) =
        list.iter_mut().find(|entry| entry.key == "volumes")
    {
        for (i, mount) in mounts.iter_mut().enumerate().filter(|(_, mount)| mount.text("type") == "bind") {
            bind(mount, &format!("{path}.volumes[{i}]"), world)?;
        }
    }
    Ok(())
}

/// The caller's value for a variable that is empty or has none.
fn completed(mut entry: Entry, world: &World<'_>) -> Entry {
    if entry.value.as_text().unwrap_or_default().is_empty() {
        if let Some(value) = (world.env)(&entry.key) {
            entry.value = Node::text_at(&entry.value.at, value);
        }
    }
    entry
}

fn put(entries: &mut Vec<Entry>, entry: Entry) {
    match entries.iter_mut().find(|old| old.key == entry.key) {
        Some(old) => *old = entry,
        None => entries.push(entry),
    }
}

fn env_file(file: &Node, path: &str, world: &World<'_>, env: &mut Vec<Entry>) -> Result<(), Fault> {
    let name = file.as_text().unwrap_or_else(|| file.text("path"));
    let required = file.get("required").is_none_or(|flag| flag.data != Data::Bool(false));
    let bytes = match (world.read)(&absolute(world.folder, name)) {
        Ok(bytes) => bytes,
        Err(error) if !required && error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(file.fault(path, format!("cannot read {name}: {error}"))),
    };
    if bytes.len() > COMPOSE_BYTES_MAX {
        return Err(file.fault(path, format!("{name} has more than {COMPOSE_BYTES_MAX} bytes")));
    }
    let Ok(text) = String::from_utf8(bytes) else {
        return Err(file.fault(path, format!("{name} is not UTF-8")));
    };
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once('=').map_or((line, None), |(key, value)| (key, Some(value)));
        if key.is_empty() || key.contains(char::is_whitespace) {
            // Not the rest of it, which may be a secret.
            let word = first_word(key);
            let why = format!("{name}, line {}: \"{word} …\" is not KEY=VALUE (a key has no blanks)", number + 1);
            return Err(file.fault(path, why));
        }
        let value = match value {
            Some(value) => value.to_owned(),
            // A name alone is dropped unless the caller has it.
            None => match (world.env)(key) {
                Some(value) => value,
                None => continue,
            },
        };
        let entry = Entry { key: key.to_owned(), at: file.at.clone(), value: Node::text_at(&file.at, value) };
        put(env, completed(entry, world));
    }
    Ok(())
}

fn bind(mount: &mut Node, path: &str, world: &World<'_>) -> Result<(), Fault> {
    let source = mount.text("source").to_owned();
    if source.is_empty() {
        return Err(mount.fault(path, "a bind mount needs a source"));
    }
    let expanded = match source.strip_prefix('~') {
        Some(rest) => match (world.env)("HOME") {
            Some(home) => format!("{home}{rest}"),
            None => return Err(mount.fault(path, "~ cannot be filled in: HOME is not set")),
        },
        None => source,
    };
    let absolute = absolute(world.folder, &expanded).to_string_lossy().into_owned();
    if let Some(entry) = entries(mount).iter_mut().find(|entry| entry.key == "source") {
        entry.value = Node::text_at(&entry.value.at, absolute);
    }
    Ok(())
}

/// A path without `.` and `..`, as Go joins paths.
fn absolute(folder: &Path, path: &str) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in folder.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(clean.pop()),
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => clean.push(part),
        }
    }
    clean
}

/// An external object has a name and nothing else.
fn external(key: &str, object: &mut Node, path: &str) -> Result<(), Fault> {
    let Some(external) = object.get("external").cloned() else { return Ok(()) };
    let name = match &external.data {
        Data::Map(_) => external.text("name").to_owned(),
        Data::Bool(true) => String::new(),
        _ => return Ok(()),
    };
    let path = join(path, "external");
    if !name.is_empty() && object.get("name").is_some() {
        return Err(external.fault(&path, "external.name and name exclude each other: use name"));
    }
    for other in ["driver", "driver_opts", "labels", "file", "content", "environment", "ipam", "template_driver"] {
        if object.get(other).is_some() {
            return Err(external.fault(&path, format!("what is external is made elsewhere: {other} must not be set")));
        }
    }
    let list = entries(object);
    let own = list.iter().find(|entry| entry.key == "name").and_then(|entry| entry.value.as_text());
    let name = match (name.is_empty(), own) {
        (false, _) => name,
        (true, Some(own)) => own.to_owned(),
        (true, None) => key.to_owned(),
    };
    list.retain(|entry| !matches!(entry.key.as_str(), "external" | "name"));
    for (key, data) in
        [("name", Data::Text { text: name, filled: false }), ("external", Data::Bool(true))].into_iter().rev()
    {
        let value = Node::new(&external.at, data);
        list.insert(0, Entry { key: key.to_owned(), at: external.at.clone(), value });
    }
    Ok(())
}

/// Where the content of a secret or config comes from: one of three.
fn content(object: &mut Node, path: &str, world: &World<'_>) -> Result<(), Fault> {
    if object.flag("external") {
        return Ok(());
    }
    let given: Vec<&str> = ["file", "content", "environment"].into_iter().filter(|k| object.get(k).is_some()).collect();
    match given[..] {
        ["file"] => {
            let file = absolute(world.folder, object.text("file")).to_string_lossy().into_owned();
            if let Some(entry) = entries(object).iter_mut().find(|entry| entry.key == "file") {
                entry.value = Node::text_at(&entry.value.at, file);
            }
            Ok(())
        }
        [_] => Ok(()),
        [] => Err(object.fault(path, "one of file, content, environment and external is needed")),
        [one, other, ..] => Err(node::Node::fault(object, path, format!("{one} and {other} exclude each other"))),
    }
}
