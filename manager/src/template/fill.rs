//! Which fields of a container are templates.

use racimo_common::object::{ContainerSpec, MountKind};

use super::{Error, Facts, field, is_template};

/// Fills in values of the environment, the host name, and the mounts' sources, targets and labels.
///
/// # Errors
/// Which field, and why.
pub fn container(spec: &mut ContainerSpec, facts: &Facts) -> Result<(), String> {
    let fill = |what: &str, text: &mut String| -> Result<(), String> {
        if is_template(text) {
            *text = field(text, facts).map_err(|error: Error| format!("expanding {what} failed: {error}"))?;
        }
        Ok(())
    };
    for entry in &mut spec.env {
        // Names of variables are no templates.
        let Some((name, value)) = entry.split_once('=').filter(|(_, value)| is_template(value)) else { continue };
        let mut value = value.to_owned();
        fill("env", &mut value)?;
        *entry = format!("{name}={value}");
    }
    for mount in &mut spec.mounts {
        fill("mounts", &mut mount.target)?;
        match &mut mount.kind {
            MountKind::Bind { source, .. } => fill("mounts", source)?,
            MountKind::Volume { source, options } => {
                source.iter_mut().try_for_each(|source| fill("mounts", source))?;
                options.labels.values_mut().try_for_each(|value| fill("mounts", value))?;
            }
            MountKind::Tmpfs { .. } => {}
        }
    }
    spec.hostname.iter_mut().try_for_each(|hostname| fill("hostname", hostname))
}
