//! How many tasks a service has: replicated, global, and jobs.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::super::error::CliError;
use super::super::json::{Peek, set, unset};
use super::super::parse;

/// How many tasks a service has, and whether they end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// As many tasks as --replicas says
    #[default]
    Replicated,
    /// One task on every node
    Global,
    /// Tasks until --replicas of them have completed
    ReplicatedJob,
    /// One task on every node, until it has completed
    GlobalJob,
}

/// Flags of both commands.
#[derive(Args, Debug, Default, PartialEq)]
pub(crate) struct CountFlags {
    /// Number of tasks; of a job, how many have to complete
    #[arg(long, value_name = "NUMBER")]
    pub(crate) replicas: Option<u64>,
    /// Tasks of a job that run at the same time [default: --replicas]
    #[arg(long, value_name = "NUMBER", value_parser = parse::uint)]
    pub(crate) max_concurrent: Option<u64>,
    /// Maximum number of tasks per node (0: unlimited)
    #[arg(long, value_name = "NUMBER")]
    pub(crate) replicas_max_per_node: Option<u64>,
}

impl CountFlags {
    /// The mode of a new service, and its bound per node.
    pub(super) fn create(&self, mode: Mode, spec: &mut Value) -> Result<(), CliError> {
        let counted = matches!(mode, Mode::Replicated | Mode::ReplicatedJob);
        if self.replicas.is_some() && !counted {
            return Err(only("replicas", "replicated or replicated-job"));
        }
        if self.max_concurrent.is_some() && mode != Mode::ReplicatedJob {
            return Err(only("max-concurrent", "replicated-job"));
        }
        let mut place = json!({});
        let mut put = |key: &str, number: Option<u64>| {
            if let Some(number) = number {
                set(&mut place, &[key], number);
            }
        };
        let key = match mode {
            Mode::Replicated => {
                put("Replicas", self.replicas);
                "Replicated"
            }
            Mode::Global => "Global",
            Mode::ReplicatedJob => {
                put("MaxConcurrent", self.max_concurrent.or(self.replicas));
                put("TotalCompletions", self.replicas);
                "ReplicatedJob"
            }
            Mode::GlobalJob => "GlobalJob",
        };
        set(spec, &["Mode"], json!({key: place}));
        self.bound(counted, spec)
    }

    /// Changes a service that is there. How many tasks of a job have to complete is for `scale`.
    pub(super) fn update(&self, spec: &mut Value) -> Result<(), CliError> {
        if let Some(replicas) = self.replicas {
            if !spec.has("/Mode/Replicated") {
                return Err(only("replicas", "replicated"));
            }
            set(spec, &["Mode", "Replicated", "Replicas"], replicas);
        }
        if let Some(concurrent) = self.max_concurrent {
            if !spec.has("/Mode/ReplicatedJob") {
                return Err(only("max-concurrent", "replicated-job"));
            }
            set(spec, &["Mode", "ReplicatedJob", "MaxConcurrent"], concurrent);
        }
        self.bound(spec.has("/Mode/Replicated") || spec.has("/Mode/ReplicatedJob"), spec)
    }

    fn bound(&self, counted: bool, spec: &mut Value) -> Result<(), CliError> {
        match self.replicas_max_per_node {
            Some(_) if !counted => return Err(only("replicas-max-per-node", "replicated or replicated-job")),
            Some(0) => unset(spec, &["TaskTemplate", "Placement", "MaxReplicas"]),
            Some(max) => set(spec, &["TaskTemplate", "Placement", "MaxReplicas"], max),
            None => {}
        }
        Ok(())
    }
}

fn only(flag: &str, modes: &str) -> CliError {
    CliError::Usage(format!("{flag} can only be used with {modes} mode"))
}
