//! `service create`: flags → a new service specification.

use clap::Args;
use serde_json::{Value, json};

use super::super::error::CliError;
use super::super::json::{array, object, set};
use super::super::parse;
use super::env::{self, Lookup};
use super::generic::NewGeneric;
use super::lists::NewLists;
use super::mode::Mode;
use super::mount;
use super::network;
use super::port::NewPorts;
use super::reference::{self, Reference};
use super::refused::RefusedCreate;
use super::shared::{SharedFlags, preference, put_list};

/// What the new service is.
#[derive(Args, Debug)]
pub(crate) struct CreateFlags {
    /// Service name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Service mode
    #[arg(long, value_enum, default_value_t)]
    pub(crate) mode: Mode,
    /// Set an environment variable (KEY=VALUE, or KEY to pass the caller's value)
    #[arg(short, long, value_name = "ENV")]
    pub(crate) env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<String>,
    /// Service label
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = parse::label)]
    pub(crate) label: Vec<(String, String)>,
    /// Container label
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::label)]
    pub(crate) container_label: Vec<(String, String)>,
    /// Mount a volume, a path of the board or a tmpfs (type=…,source=…,target=…)
    #[arg(long, value_parser = mount::parse)]
    pub(crate) mount: Vec<Value>,
    /// Placement constraint (for example node.labels.zone==kitchen)
    #[arg(long, value_name = "CONSTRAINT")]
    pub(crate) constraint: Vec<String>,
    /// Placement preference (for example spread=node.labels.zone)
    #[arg(long, value_name = "PREF", value_parser = preference)]
    pub(crate) placement_pref: Vec<Value>,
    /// Network of the tasks: overlay networks (NAME, or name=NAME,alias=OTHER; repeatable), or host, bridge or none
    #[arg(long, value_name = "NETWORK", value_parser = network::parse)]
    pub(crate) network: Vec<Value>,
    /// Secret that tasks get as a file: NAME, or source=NAME,target=FILE,uid=0,gid=0,mode=0444
    #[arg(long, value_name = "SECRET", value_parser = reference::parse)]
    pub(crate) secret: Vec<Reference>,
    /// Config that tasks get as a file: NAME, or source=NAME,target=/FILE,uid=0,gid=0,mode=0444
    #[arg(long, value_name = "CONFIG", value_parser = reference::parse)]
    pub(crate) config: Vec<Reference>,
    #[command(flatten)]
    pub(crate) ports: NewPorts,
    #[command(flatten)]
    pub(crate) lists: NewLists,
    #[command(flatten)]
    pub(crate) generic: NewGeneric,
    #[command(flatten)]
    pub(crate) shared: SharedFlags,
    #[command(flatten)]
    pub(crate) refused: RefusedCreate,
    /// Image to run
    pub(crate) image: String,
    /// Command and arguments that replace the image's CMD
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

impl CreateFlags {
    /// The specification to create. `image` is what to run, `env_files` are the files that
    /// `--env-file` names with their text.
    pub(crate) fn spec(&self, image: &str, env_files: &[(String, String)], lookup: Lookup) -> Result<Value, CliError> {
        let mut spec = json!({
            "Labels": {},
            "TaskTemplate": {
                "ContainerSpec": {"Image": image, "Init": false, "DNSConfig": {}},
                "Resources": {"Limits": {}, "Reservations": {}},
                "Placement": {},
                "ForceUpdate": 0,
            },
            "Mode": {},
            "EndpointSpec": {"Mode": "vip"},
        });
        if let Some(name) = &self.name {
            set(&mut spec, &["Name"], name.as_str());
        }
        for (key, value) in &self.label {
            set(&mut spec, &["Labels", key], value.as_str());
        }
        let task = object(&mut spec, &["TaskTemplate"]);
        let container = &mut task["ContainerSpec"];
        for (key, value) in &self.container_label {
            set(container, &["Labels", key], value.as_str());
        }
        put_list(container, "Args", self.command.clone());
        put_list(container, "Env", env::merge(env_files, &self.env, lookup)?);
        mount::add(container, &self.mount);
        self.lists.apply(container);
        let placement = &mut task["Placement"];
        put_list(placement, "Constraints", self.constraint.clone());
        if !self.placement_pref.is_empty() {
            array(placement, &["Preferences"]).extend(self.placement_pref.iter().cloned());
        }
        if !self.network.is_empty() {
            task.insert("Networks".to_owned(), self.network.clone().into());
        }
        self.ports.apply(&mut spec);
        self.generic.apply(&mut spec)?;
        self.shared.create(self.mode, &mut spec)?;
        Ok(spec)
    }
}
