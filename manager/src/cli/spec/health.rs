//! Health checks: `--health-*` and `--no-healthcheck`.

use clap::Args;
use serde_json::{Value, json};

use super::super::error::CliError;
use super::super::json::{Peek, object, set, unset};
use super::super::parse::{self, Nanos};

/// Flags of both commands.
#[derive(Args, Debug, Default, PartialEq)]
pub(crate) struct HealthFlags {
    /// Command that tells whether the container is healthy, for a shell in it
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    pub(crate) health_cmd: Option<String>,
    /// Time between two checks
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = parse::duration)]
    pub(crate) health_interval: Option<Nanos>,
    /// How long one check may take
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = parse::duration)]
    pub(crate) health_timeout: Option<Nanos>,
    /// Failures in a row that make the container unhealthy
    #[arg(long, value_name = "NUMBER")]
    pub(crate) health_retries: Option<u32>,
    /// Time from the start in which failures do not count
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = parse::duration)]
    pub(crate) health_start_period: Option<Nanos>,
    /// Time between two checks during the start period
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = parse::duration)]
    pub(crate) health_start_interval: Option<Nanos>,
    /// Don't run the image's health check
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) no_healthcheck: Option<bool>,
}

impl HealthFlags {
    /// The check of a new service.
    pub(super) fn create(&self, container: &mut Value) -> Result<(), CliError> {
        self.check()?;
        if self.no_healthcheck == Some(true) {
            set(container, &["Healthcheck"], json!({"Test": ["NONE"]}));
        } else if self.health_cmd.as_deref().is_some_and(|cmd| !cmd.is_empty())
            || self.health_retries.is_some_and(|n| n > 0)
            || self.spans().iter().any(|(_, span)| span.is_some())
        {
            self.put(container);
        }
        Ok(())
    }

    /// Changes the check that is there.
    pub(super) fn update(&self, container: &mut Value) -> Result<(), CliError> {
        self.check()?;
        if self.no_healthcheck == Some(true) {
            set(container, &["Healthcheck"], json!({"Test": ["NONE"]}));
        } else if self.no_healthcheck.is_some() || self.any() {
            if container.list("/Healthcheck/Test").first().is_some_and(|word| word == "NONE") {
                unset(container, &["Healthcheck", "Test"]);
            }
            self.put(container);
        }
        Ok(())
    }

    fn check(&self) -> Result<(), CliError> {
        if self.no_healthcheck == Some(true) && self.any() {
            return Err(CliError::Usage("--no-healthcheck conflicts with --health-* options".to_owned()));
        }
        Ok(())
    }

    fn any(&self) -> bool {
        self.health_cmd.is_some()
            || self.health_retries.is_some()
            || self.spans().iter().any(|(_, span)| span.is_some())
    }

    fn spans(&self) -> [(&'static str, Option<Nanos>); 4] {
        [
            ("Interval", self.health_interval),
            ("Timeout", self.health_timeout),
            ("StartPeriod", self.health_start_period),
            ("StartInterval", self.health_start_interval),
        ]
    }

    /// What is given; an empty command or a 0 leaves the image's value.
    fn put(&self, container: &mut Value) {
        object(container, &["Healthcheck"]);
        let check = &mut container["Healthcheck"];
        match self.health_cmd.as_deref() {
            Some("") => unset(check, &["Test"]),
            Some(command) => set(check, &["Test"], json!(["CMD-SHELL", command])),
            None => {}
        }
        let numbers = self.spans().map(|(key, span)| (key, span.map(|Nanos(nanos)| nanos)));
        for (key, given) in numbers.into_iter().chain([("Retries", self.health_retries.map(i64::from))]) {
            match given {
                Some(0) => unset(check, &[key]),
                Some(number) => set(check, &[key], number),
                None => {}
            }
        }
    }
}
