//! Compose files ─▶ one description of a stack in the long form. Pure: files and environment are arguments.
//!
//! ```text
//! text ─ yaml ─▶ Node ─ interpolate ─▶ Node ─ read (schema) ─▶ long form ─ merge ─▶ one ─ convert ─▶ request bodies
//! ```

pub(crate) mod interpolate;
mod merge;
pub(crate) mod node;
pub(crate) mod print;
pub(crate) mod read;
mod resolve;
mod scalar;
pub(crate) mod schema;
mod short;
pub(crate) mod yaml;

#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;

use interpolate::Lookup;
use node::{Data, Fault, Node};
use read::Ignored;
use schema::Shape;

/// A compose file.
pub(crate) struct Source {
    /// As the user named it.
    pub(crate) name: String,
    /// Its text.
    pub(crate) text: String,
}

/// What is outside of the files.
pub(crate) struct World<'a> {
    /// Relative paths begin here: where the first file is.
    pub(crate) folder: &'a Path,
    /// The caller's environment.
    pub(crate) env: Lookup<'a>,
    /// Reads another file: of environment variables, of a secret.
    pub(crate) read: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
}

/// Fills in variables, as in Docker only in what makes up the stack: not in `x-…` and `version`.
fn fill_parts(file: &mut Node, world: &World<'_>) -> Result<(), Fault> {
    const PARTS: [&str; 5] = ["services", "volumes", "networks", "secrets", "configs"];
    let Data::Map(entries) = &mut file.data else { return Ok(()) };
    let mut parts = entries.iter_mut().filter(|entry| PARTS.contains(&entry.key.as_str()));
    parts.try_for_each(|entry| interpolate::fill(&mut entry.value, &entry.key, world.env))
}

/// What the files say together, in the long form, and what was passed over.
///
/// # Errors
/// The first fault, with file, line and key.
pub(crate) fn load(sources: &[Source], world: &World<'_>, fill: bool) -> Result<(Node, Ignored), Fault> {
    const FILE: Shape = Shape::Object(schema::FILE);
    let mut ignored = Ignored::default();
    let mut whole: Option<Node> = None;
    for source in sources {
        let mut node = yaml::read(&source.name, &source.text)?;
        if !matches!(node.data, Data::Map(_)) {
            return Err(node.wrong("", "a mapping (services, networks, …) at the top"));
        }
        version(&node)?;
        if fill {
            fill_parts(&mut node, world)?;
        }
        let mut long = read::read(&node, &FILE, "", &mut ignored)?;
        resolve::resolve(&mut long, world)?;
        whole = Some(match whole.take() {
            None => long,
            Some(earlier) => merge::merge(earlier, long, &FILE),
        });
    }
    ignored.unsupported.sort_unstable();
    ignored.deprecated.sort_unstable();
    let nothing = || Node::text_at(&node::Place { file: "".into(), line: 1 }, "");
    Ok((whole.unwrap_or_else(nothing), ignored))
}

/// Only version 3 and the current specification, which has none.
fn version(node: &Node) -> Result<(), Fault> {
    let Some(version) = node.get("version") else { return Ok(()) };
    match version.as_text() {
        Some(text) if text == "3" || text.starts_with("3.") => Ok(()),
        Some(text) => Err(version.fault("version", format!("unsupported compose file version {text}: expected 3"))),
        None => Err(version.wrong("version", "a string")),
    }
}
