//! `service update`: flags and the stored specification → the new specification.

use clap::Args;
use serde_json::{Map, Value};

use super::super::error::CliError;
use super::super::json::{Peek, array, object, place, set, unset};
use super::super::parse;
use super::env::{self, Lookup};
use super::generic::GenericChanges;
use super::lists::{ListChanges, texts};
use super::mount;
use super::network;
use super::port::PortChanges;
use super::reference::{self, Reference};
use super::refused::RefusedUpdate;
use super::shared::{SharedFlags, preference, put_list};

/// What changes in a service.
#[derive(Args, Debug, Default, PartialEq)]
pub(crate) struct UpdateFlags {
    /// Image to run
    #[arg(long)]
    pub(crate) image: Option<String>,
    /// Arguments of the command, as one line
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    pub(crate) args: Option<String>,
    /// Replace all tasks even if nothing changes for them
    #[arg(long)]
    pub(crate) force: bool,
    /// Add or change an environment variable
    #[arg(long, value_name = "ENV")]
    pub(crate) env_add: Vec<String>,
    /// Remove an environment variable
    #[arg(long, value_name = "KEY")]
    pub(crate) env_rm: Vec<String>,
    /// Add or change a service label
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::label)]
    pub(crate) label_add: Vec<(String, String)>,
    /// Remove a service label
    #[arg(long, value_name = "KEY")]
    pub(crate) label_rm: Vec<String>,
    /// Add or change a container label
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::label)]
    pub(crate) container_label_add: Vec<(String, String)>,
    /// Remove a container label
    #[arg(long, value_name = "KEY")]
    pub(crate) container_label_rm: Vec<String>,
    /// Add a mount, or replace the one at its target
    #[arg(long, value_name = "MOUNT", value_parser = mount::parse)]
    pub(crate) mount_add: Vec<Value>,
    /// Remove the mount at this target
    #[arg(long, value_name = "TARGET")]
    pub(crate) mount_rm: Vec<String>,
    /// Add a placement constraint
    #[arg(long, value_name = "CONSTRAINT")]
    pub(crate) constraint_add: Vec<String>,
    /// Remove a placement constraint
    #[arg(long, value_name = "CONSTRAINT")]
    pub(crate) constraint_rm: Vec<String>,
    /// Add a placement preference
    #[arg(long, value_name = "PREF", value_parser = preference)]
    pub(crate) placement_pref_add: Vec<Value>,
    /// Remove a placement preference
    #[arg(long, value_name = "PREF", value_parser = preference)]
    pub(crate) placement_pref_rm: Vec<Value>,
    /// Add a secret: NAME, or source=NAME,target=FILE,uid=0,gid=0,mode=0444
    #[arg(long, value_name = "SECRET", value_parser = reference::parse)]
    pub(crate) secret_add: Vec<Reference>,
    /// Remove a secret
    #[arg(long, value_name = "NAME")]
    pub(crate) secret_rm: Vec<String>,
    /// Add a config: NAME, or source=NAME,target=/FILE,uid=0,gid=0,mode=0444
    #[arg(long, value_name = "CONFIG", value_parser = reference::parse)]
    pub(crate) config_add: Vec<Reference>,
    /// Remove a config
    #[arg(long, value_name = "NAME")]
    pub(crate) config_rm: Vec<String>,
    /// Attach the tasks to another network: NAME, or name=NAME,alias=OTHER
    #[arg(long, value_name = "NETWORK", value_parser = network::parse)]
    pub(crate) network_add: Vec<Value>,
    /// Detach the tasks from a network
    #[arg(long, value_name = "NETWORK")]
    pub(crate) network_rm: Vec<String>,
    #[command(flatten)]
    pub(crate) ports: PortChanges,
    #[command(flatten)]
    pub(crate) lists: ListChanges,
    #[command(flatten)]
    pub(crate) generic: GenericChanges,
    #[command(flatten)]
    pub(crate) shared: SharedFlags,
    #[command(flatten)]
    pub(crate) refused: RefusedUpdate,
}

impl UpdateFlags {
    /// Changes `spec`. Images, secrets and configs are not looked at here: the shell asks the manager for them.
    pub(crate) fn apply(&self, spec: &mut Value, lookup: Lookup) -> Result<(), CliError> {
        change_map(place(spec, &["Labels"]), &self.label_add, &self.label_rm);
        let container = place(spec, &["TaskTemplate", "ContainerSpec"]);
        if !self.container_label_add.is_empty() || !self.container_label_rm.is_empty() {
            let labels = place(container, &["Labels"]);
            change_map(labels, &self.container_label_add, &self.container_label_rm);
            if labels.as_object().is_none_or(Map::is_empty) {
                unset(container, &["Labels"]);
            }
        }
        if let Some(args) = &self.args {
            let words = parse::words(args).map_err(|e| CliError::Usage(format!("--args: {e}")))?;
            put_list(container, "Args", words);
        }
        if !self.env_add.is_empty() || !self.env_rm.is_empty() {
            let mut list = texts(container.list("/Env"));
            list.retain(|entry| !self.env_rm.iter().any(|key| key == env::key(entry)));
            for entry in &self.env_add {
                env::put(&mut list, env::resolve(entry, lookup)?);
            }
            put_list(container, "Env", list);
        }
        mount::add(container, &self.mount_add);
        for target in &self.mount_rm {
            mount::remove(container, target);
        }
        if container["Mounts"].as_array().is_some_and(Vec::is_empty) {
            unset(container, &["Mounts"]);
        }
        self.lists.apply(container);
        self.apply_placement(place(spec, &["TaskTemplate"]));
        if self.force {
            let count = spec.int("/TaskTemplate/ForceUpdate").unwrap_or(0);
            set(spec, &["TaskTemplate", "ForceUpdate"], count.wrapping_add(1));
        }
        self.ports.apply(spec);
        self.generic.apply(spec)?;
        self.shared.update(spec)
    }

    fn apply_placement(&self, task: &mut Value) {
        if !self.constraint_add.is_empty() || !self.constraint_rm.is_empty() {
            let mut list = texts(task.list("/Placement/Constraints"));
            for new in &self.constraint_add {
                if !list.contains(new) {
                    list.push(new.clone());
                }
            }
            list.retain(|old| !self.constraint_rm.contains(old));
            put_list(place(task, &["Placement"]), "Constraints", list);
        }
        if !self.placement_pref_add.is_empty() || !self.placement_pref_rm.is_empty() {
            let list = array(task, &["Placement", "Preferences"]);
            list.retain(|old| !self.placement_pref_rm.contains(old));
            list.extend(self.placement_pref_add.iter().cloned());
            if list.is_empty() {
                unset(task, &["Placement", "Preferences"]);
            }
        }
    }
}

fn change_map(map: &mut Value, add: &[(String, String)], remove: &[String]) {
    let map = object(map, &[]);
    for key in remove {
        map.shift_remove(key);
    }
    for (key, value) in add {
        map.insert(key.clone(), value.as_str().into());
    }
}
