//! `--secret` and `--config`: what a service uses, and as which file. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::super::error::CliError;
use super::super::json::{Peek, array, unset};
use super::super::parse;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Secret,
    Config,
}

impl Kind {
    /// The last part of the API's path.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Kind::Secret => "secrets",
            Kind::Config => "configs",
        }
    }

    /// Its name in messages.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Kind::Secret => "secret",
            Kind::Config => "config",
        }
    }

    /// The keys of the list, an id and a name in the specification.
    fn keys(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Kind::Secret => ("Secrets", "SecretID", "SecretName"),
            Kind::Config => ("Configs", "ConfigID", "ConfigName"),
        }
    }
}

/// One secret or config as a flag names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    /// The object's name.
    pub(crate) name: String,
    target: String,
    uid: String,
    gid: String,
    mode: u32,
}

/// Reads `NAME` or `source=NAME,target=FILE,uid=0,gid=0,mode=0444`.
pub(crate) fn parse(text: &str) -> Result<Reference, String> {
    let fields = parse::fields(text)?;
    let mut found =
        Reference { name: String::new(), target: String::new(), uid: "0".into(), gid: "0".into(), mode: 0o444 };
    if let [name] = fields.as_slice()
        && !name.contains('=')
    {
        found.name.clone_from(name);
    } else {
        for field in &fields {
            let Some((key, value)) = field.split_once('=').filter(|(key, _)| !key.is_empty()) else {
                return Err(format!("invalid field \"{field}\": expected KEY=VALUE"));
            };
            let value = value.to_owned();
            match key.to_lowercase().as_str() {
                "source" | "src" => found.name = value,
                "target" => found.target = value,
                "uid" => found.uid = value,
                "gid" => found.gid = value,
                "mode" => {
                    let mode = parse::uint(&value).ok().and_then(|mode| u32::try_from(mode).ok());
                    found.mode = mode.ok_or_else(|| format!("mode \"{value}\" is not a file mode such as 0440"))?;
                }
                _ => return Err(format!("unknown field \"{key}\"; expected source, target, uid, gid or mode")),
            }
        }
    }
    if found.name.is_empty() {
        return Err("source is required".to_owned());
    }
    if found.target.is_empty() {
        found.target.clone_from(&found.name);
    }
    Ok(found)
}

/// Refuses two references to one file.
pub(crate) fn distinct(kind: Kind, wanted: &[Reference]) -> Result<(), CliError> {
    let mut targets = BTreeSet::new();
    match wanted.iter().find(|reference| !targets.insert(&reference.target)) {
        Some(twice) => Err(CliError::Usage(format!("duplicate {} target for {} not allowed", kind.noun(), twice.name))),
        None => Ok(()),
    }
}

/// References with the ids of what they name; `ids` is by name.
pub(crate) fn with_ids(
    kind: Kind,
    wanted: &[Reference],
    ids: &BTreeMap<String, String>,
) -> Result<Vec<Value>, CliError> {
    let (_, id_key, name_key) = kind.keys();
    let one = |reference: &Reference| {
        let id = ids
            .get(&reference.name)
            .ok_or_else(|| CliError::Refused(format!("{} not found: {}", kind.noun(), reference.name)))?;
        Ok(json!({
            "File": {"Name": reference.target, "UID": reference.uid, "GID": reference.gid, "Mode": reference.mode},
            id_key: id,
            name_key: reference.name,
        }))
    };
    wanted.iter().map(one).collect()
}

/// Takes references away by name, then adds others.
pub(crate) fn change(spec: &mut Value, kind: Kind, remove: &[String], add: Vec<Value>) {
    if remove.is_empty() && add.is_empty() {
        return;
    }
    let (key, _, name_key) = kind.keys();
    let path = ["TaskTemplate", "ContainerSpec", key];
    let list = array(spec, &path);
    list.retain(|old| !remove.iter().any(|name| old.text(&format!("/{name_key}")) == name));
    list.extend(add);
    if list.is_empty() {
        unset(spec, &path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: Result<(&str, &str, &str, &str, u32), &str>) {
        match (parse(text), want) {
            (Ok(got), Ok(want)) => {
                assert_eq!((&*got.name, &*got.target, &*got.uid, &*got.gid, got.mode), want);
            }
            (Err(got), Err(want)) => assert!(got.contains(want), "{got}"),
            (got, want) => panic!("{got:?} instead of {want:?}"),
        }
    }

    #[test]
    fn both_forms() {
        check("key", Ok(("key", "key", "0", "0", 0o444)));
        check("source=key,target=/etc/key,uid=1,gid=2,mode=0400", Ok(("key", "/etc/key", "1", "2", 0o400)));
        check("src=key,mode=256", Ok(("key", "key", "0", "0", 256)));
        check("\"source=a,b\"", Ok(("a,b", "a,b", "0", "0", 0o444)));
        check("target=x", Err("source is required"));
        check("", Err("source is required"));
        check("source=key,uid", Err("expected KEY=VALUE"));
        check("source=key,mode=rw", Err("not a file mode"));
        check("source=key,owner=me", Err("unknown field \"owner\""));
    }
}
