//! Templates: the part of Go's `text/template` that Swarm's users write, filled in for one task. Pure.
//!
//! In: a text, [`Facts`] about a task, for bodies also a [`Lookup`]. Out: the text filled in, or an [`Error`] with line
//! and column.
//!
//! ```text
//! text ─ parse ─▶ Template ─ run(Facts, Lookup) ─▶ text
//! ```
//! There are fields, variables, pipelines, `if`, `with`, `range`, comments and trim marks, and the functions of `run`.
//! There is no `define`, `template`, `block`, `break` or `continue`. Nothing runs for ever: depth, steps and bytes are
//! limited, and a label that is not there is an error, as in Swarm.

mod fill;
mod parse;
mod run;

use std::collections::BTreeMap;

pub use fill::container;
pub use parse::Template;

/// What a template can say about its task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// `.Service.ID`.
    pub service_id: String,
    /// `.Service.Name`.
    pub service_name: String,
    /// `.Service.Labels`.
    pub service_labels: BTreeMap<String, String>,
    /// `.Node.ID`.
    pub node_id: String,
    /// `.Node.Hostname`.
    pub node_hostname: String,
    /// `.Node.Platform.Architecture`.
    pub architecture: String,
    /// `.Node.Platform.OS`.
    pub os: String,
    /// `.Task.ID`.
    pub task_id: String,
    /// `.Task.Name`.
    pub task_name: String,
    /// `.Task.Slot`: the slot's number, or the node's id if there is none.
    pub task_slot: String,
}

/// What the functions `secret`, `config` and `env` of a body's template find.
pub trait Lookup {
    /// The content of the task's secret with this target.
    ///
    /// # Errors
    /// Why there is none.
    fn secret(&self, target: &str) -> Result<String, String>;
    /// The content of the task's config with this target.
    ///
    /// # Errors
    /// Why there is none.
    fn config(&self, target: &str) -> Result<String, String>;
    /// A variable of the task's environment; an unknown one is empty.
    fn env(&self, name: &str) -> String;
}

/// Which functions a template may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A field of a service.
    Field,
    /// The body of a secret or config: also `secret`, `config` and `env`.
    Body,
}

/// Why a template cannot be read or filled in. Never holds the text around the fault, which may be secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("template: {line}:{column}: {what}")]
pub struct Error {
    /// From 1.
    pub line: usize,
    /// From 1, in bytes.
    pub column: usize,
    /// In words.
    pub what: String,
}

/// Whether a text holds anything to fill in.
pub fn is_template(text: &str) -> bool {
    text.contains("{{")
}

/// Fills in a field of a service.
///
/// # Errors
/// It cannot be read or filled in.
pub fn field(text: &str, facts: &Facts) -> Result<String, Error> {
    if !is_template(text) {
        return Ok(text.to_owned());
    }
    Template::parse(text, Kind::Field)?.run(facts, None, crate::limits::TEMPLATE_FIELD_BYTES_MAX)
}

#[cfg(test)]
mod tests;
