//! How a container runs: init, terminal, capabilities, score of the OOM killer, log driver.

use clap::{Args, ValueEnum};
use racimo_common::object::ISOLATE_SHIM_LABEL;
use serde_json::{Value, json};

use super::super::error::CliError;
use super::super::json::{set, unset};
use super::super::parse;
use super::capability;

/// How the service's name is resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EndpointMode {
    /// To one virtual address
    Vip,
    /// To the addresses of its tasks
    Dnsrr,
}

/// Flags of both commands.
#[derive(Args, Debug, Default, PartialEq)]
pub(crate) struct RuntimeFlags {
    /// Run an init in each container that forwards signals and reaps processes
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) init: Option<bool>,
    /// Give the container a terminal
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) tty: Option<bool>,
    /// Mount the container's root file system read-only
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) read_only: Option<bool>,
    /// Add a capability (for example NET_ADMIN; ALL; RESET empties the list first)
    #[arg(long, value_name = "CAPABILITY")]
    pub(crate) cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long, value_name = "CAPABILITY")]
    pub(crate) cap_drop: Vec<String>,
    /// Bias of the kernel's OOM killer (-1000 to 1000)
    #[arg(long, value_name = "SCORE", allow_hyphen_values = true,
          value_parser = clap::value_parser!(i64).range(-1000..=1000))]
    pub(crate) oom_score_adj: Option<i64>,
    /// Give each container a shim of its own: one that dies takes no other along, at 3 to 4 MiB of memory each
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) isolate_shim: Option<bool>,
    /// Log driver: json-file, local or none
    #[arg(long, value_name = "DRIVER")]
    pub(crate) log_driver: Option<String>,
    /// Option of the log driver (max-size=10m, max-file=2)
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::label)]
    pub(crate) log_opt: Vec<(String, String)>,
    /// Isolation of the container; only "default" exists on Linux
    #[arg(long, value_name = "ISOLATION", value_parser = isolation)]
    pub(crate) isolation: Option<String>,
    /// Endpoint mode [default: vip]
    #[arg(long, value_name = "MODE")]
    pub(crate) endpoint_mode: Option<EndpointMode>,
}

impl RuntimeFlags {
    /// Fills a new specification.
    pub(super) fn create(&self, spec: &mut Value) -> Result<(), CliError> {
        capability::create(&mut spec["TaskTemplate"]["ContainerSpec"], &self.cap_add, &self.cap_drop);
        self.apply(spec)
    }

    /// Changes a specification where a flag is given.
    pub(super) fn update(&self, spec: &mut Value) -> Result<(), CliError> {
        capability::update(&mut spec["TaskTemplate"]["ContainerSpec"], &self.cap_add, &self.cap_drop);
        self.apply(spec)
    }

    fn apply(&self, spec: &mut Value) -> Result<(), CliError> {
        self.apply_log(&mut spec["TaskTemplate"])?;
        if let Some(mode) = self.endpoint_mode {
            let name = match mode {
                EndpointMode::Vip => "vip",
                EndpointMode::Dnsrr => "dnsrr",
            };
            set(spec, &["EndpointSpec", "Mode"], name);
        }
        let container = &mut spec["TaskTemplate"]["ContainerSpec"];
        if let Some(init) = self.init {
            set(container, &["Init"], init);
        }
        for (key, given) in [("TTY", self.tty), ("ReadOnly", self.read_only)] {
            match given {
                Some(true) => set(container, &[key], true),
                Some(false) => unset(container, &[key]),
                None => {}
            }
        }
        match self.oom_score_adj {
            Some(0) => unset(container, &["OomScoreAdj"]),
            Some(score) => set(container, &["OomScoreAdj"], score),
            None => {}
        }
        // `false` is no less a word: the service may have the label too.
        if let Some(isolated) = self.isolate_shim {
            set(container, &["Labels", ISOLATE_SHIM_LABEL], isolated.to_string());
        }
        super::shared::put_text(container, "Isolation", self.isolation.as_deref());
        Ok(())
    }

    /// A driver comes with all its options; the empty name goes back to the boards' own.
    fn apply_log(&self, task: &mut Value) -> Result<(), CliError> {
        match self.log_driver.as_deref() {
            None | Some("") if !self.log_opt.is_empty() => {
                return Err(CliError::Usage("--log-opt needs --log-driver".to_owned()));
            }
            None => {}
            Some("") => unset(task, &["LogDriver"]),
            Some(name) => {
                let mut driver = json!({"Name": name});
                for (key, value) in &self.log_opt {
                    set(&mut driver, &["Options", key], value.as_str());
                }
                set(task, &["LogDriver"], driver);
            }
        }
        Ok(())
    }
}

fn isolation(text: &str) -> Result<String, String> {
    match text {
        "" | "default" => Ok(text.to_owned()),
        _ => Err("isolation modes are for Windows; boards run Linux, where only \"default\" exists".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shim_of_its_own_is_a_label_of_the_container() {
        for (given, want) in [(Some(true), json!("true")), (Some(false), json!("false")), (None, Value::Null)] {
            let mut spec = json!({"TaskTemplate": {"ContainerSpec": {"Labels": {"a": "b"}}}});
            RuntimeFlags { isolate_shim: given, ..RuntimeFlags::default() }.update(&mut spec).expect("no fault");
            let labels = &spec["TaskTemplate"]["ContainerSpec"]["Labels"];
            assert_eq!((&labels["a"], &labels[ISOLATE_SHIM_LABEL]), (&json!("b"), &want));
        }
    }
}
