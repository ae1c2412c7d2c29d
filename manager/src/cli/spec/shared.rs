//! The flags that `service create` and `service update` have in common.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::super::error::CliError;
use super::super::json::{object, place, set, unset};
use super::super::parse::{self, Nanos};
use super::health::HealthFlags;
use super::mode::{CountFlags, Mode};
use super::rollout::RolloutFlags;
use super::runtime::RuntimeFlags;

/// When a stopped task is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RestartCondition {
    /// Never
    None,
    /// After an exit code other than 0
    OnFailure,
    /// Always
    Any,
}

/// Flags with one name in both commands.
#[derive(Args, Debug, Default, PartialEq)]
pub(crate) struct SharedFlags {
    #[command(flatten)]
    pub(crate) count: CountFlags,
    /// Command that replaces the image's ENTRYPOINT
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    pub(crate) entrypoint: Option<String>,
    /// Container hostname
    #[arg(long)]
    pub(crate) hostname: Option<String>,
    /// User name or UID: <name|uid>[:<group|gid>]
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Limit CPUs (for example 0.5)
    #[arg(long, value_name = "DECIMAL", value_parser = parse::nano_cpus)]
    pub(crate) limit_cpu: Option<i64>,
    /// Limit memory (for example 64m)
    #[arg(long, value_name = "BYTES", value_parser = parse::bytes)]
    pub(crate) limit_memory: Option<i64>,
    /// Limit the number of processes (0: unlimited)
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) limit_pids: Option<i64>,
    /// Reserve CPUs
    #[arg(long, value_name = "DECIMAL", value_parser = parse::nano_cpus)]
    pub(crate) reserve_cpu: Option<i64>,
    /// Reserve memory
    #[arg(long, value_name = "BYTES", value_parser = parse::bytes)]
    pub(crate) reserve_memory: Option<i64>,
    /// When to replace a stopped task
    #[arg(long, value_name = "CONDITION")]
    pub(crate) restart_condition: Option<RestartCondition>,
    /// Delay before a stopped task is replaced
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = parse::duration)]
    pub(crate) restart_delay: Option<Nanos>,
    /// Restarts before giving up (0: no limit)
    #[arg(long, value_name = "NUMBER")]
    pub(crate) restart_max_attempts: Option<u64>,
    /// Window in which restarts count towards the maximum
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = parse::duration)]
    pub(crate) restart_window: Option<Nanos>,
    /// Signal that stops the container
    #[arg(long, value_name = "SIGNAL")]
    pub(crate) stop_signal: Option<String>,
    /// Time between the stop signal and SIGKILL
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = parse::duration)]
    pub(crate) stop_grace_period: Option<Nanos>,
    #[command(flatten)]
    pub(crate) runtime: RuntimeFlags,
    #[command(flatten)]
    pub(crate) health: HealthFlags,
    #[command(flatten)]
    pub(crate) rollout: RolloutFlags,
}

impl SharedFlags {
    /// Fills a new specification.
    pub(super) fn create(&self, mode: Mode, spec: &mut Value) -> Result<(), CliError> {
        self.count.create(mode, spec)?;
        self.runtime.create(spec)?;
        self.health.create(place(spec, &["TaskTemplate", "ContainerSpec"]))?;
        self.apply(spec)
    }

    /// Changes `spec` where a flag is given.
    pub(super) fn update(&self, spec: &mut Value) -> Result<(), CliError> {
        self.count.update(spec)?;
        self.runtime.update(spec)?;
        self.health.update(place(spec, &["TaskTemplate", "ContainerSpec"]))?;
        self.apply(spec)
    }

    fn apply(&self, spec: &mut Value) -> Result<(), CliError> {
        let container = place(spec, &["TaskTemplate", "ContainerSpec"]);
        if let Some(entrypoint) = &self.entrypoint {
            let words = parse::words(entrypoint).map_err(|e| CliError::Usage(format!("--entrypoint: {e}")))?;
            put_list(container, "Command", words);
        }
        put_text(container, "Hostname", self.hostname.as_deref());
        put_text(container, "User", self.user.as_deref());
        put_text(container, "Dir", self.workdir.as_deref());
        put_text(container, "StopSignal", self.stop_signal.as_deref());
        if let Some(Nanos(period)) = self.stop_grace_period {
            set(container, &["StopGracePeriod"], period);
        }
        self.apply_resources(place(spec, &["TaskTemplate", "Resources"]));
        self.apply_restart(place(spec, &["TaskTemplate"]));
        self.rollout.apply(spec)
    }

    fn apply_resources(&self, resources: &mut Value) {
        for (group, key, given) in [
            ("Limits", "NanoCPUs", self.limit_cpu),
            ("Limits", "MemoryBytes", self.limit_memory),
            ("Limits", "Pids", self.limit_pids),
            ("Reservations", "NanoCPUs", self.reserve_cpu),
            ("Reservations", "MemoryBytes", self.reserve_memory),
        ] {
            match given {
                Some(0) => unset(resources, &[group, key]),
                Some(amount) => set(resources, &[group, key], amount),
                None => {}
            }
        }
    }

    fn apply_restart(&self, task: &mut Value) {
        let given = self.restart_condition.is_some()
            || self.restart_delay.is_some()
            || self.restart_max_attempts.is_some()
            || self.restart_window.is_some();
        if !given {
            return;
        }
        // A policy that names one thing carries the defaults of the others.
        let policy = object(task, &["RestartPolicy"]);
        for (key, default) in
            [("Condition", json!("any")), ("Delay", json!(5_000_000_000_i64)), ("MaxAttempts", json!(0))]
        {
            policy.entry(key).or_insert(default);
        }
        if let Some(condition) = self.restart_condition {
            let name = match condition {
                RestartCondition::None => "none",
                RestartCondition::OnFailure => "on-failure",
                RestartCondition::Any => "any",
            };
            policy.insert("Condition".to_owned(), name.into());
        }
        if let Some(Nanos(delay)) = self.restart_delay {
            policy.insert("Delay".to_owned(), delay.into());
        }
        if let Some(attempts) = self.restart_max_attempts {
            policy.insert("MaxAttempts".to_owned(), attempts.into());
        }
        if let Some(Nanos(window)) = self.restart_window {
            policy.insert("Window".to_owned(), window.into());
        }
    }
}

/// Sets a text; the empty text removes the field.
pub(super) fn put_text(object: &mut Value, key: &str, text: Option<&str>) {
    match text {
        Some("") => unset(object, &[key]),
        Some(text) => set(object, &[key], text),
        None => {}
    }
}

/// Sets a list; the empty list removes the field.
pub(super) fn put_list(object: &mut Value, key: &str, list: Vec<String>) {
    if list.is_empty() {
        unset(object, &[key]);
    } else {
        set(object, &[key], list);
    }
}

/// `spread=node.labels.zone` → a placement preference.
pub(super) fn preference(text: &str) -> Result<Value, String> {
    match text.split_once('=') {
        Some((strategy, descriptor)) if strategy.eq_ignore_ascii_case("spread") && !descriptor.is_empty() => {
            Ok(json!({"Spread": {"SpreadDescriptor": descriptor}}))
        }
        _ => {
            Err(format!("\"{text}\" is not a preference; expected spread=node.labels.KEY or spread=engine.labels.KEY"))
        }
    }
}
