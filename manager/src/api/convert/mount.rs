//! Mounts, both ways.

use bollard_stubs::models::{
    Mount as MountModel, MountBindOptions, MountBindOptionsPropagationEnum as PropagationModel, MountTmpfsOptions,
    MountTypeEnum, MountVolumeOptions,
};
use racimo_common::object::{BindOptions, Mount, MountKind, Propagation, TmpfsOptions, VolumeOptions};
use racimo_common::units::Bytes;
use serde_json::{Value, json};

use super::some_map;
use crate::api::error::ApiError;
use crate::api::fields::Fields;

/// Reads one mount.
///
/// # Errors
/// 400 that names the field.
pub fn read(path: &str, value: &Value) -> Result<Mount, ApiError> {
    let mut fields = Fields::of(path, value)?;
    let kind = fields.text("Type")?;
    let source = fields.text("Source")?;
    // A hint for Docker Desktop only; without it every mount is consistent.
    fields.only("Consistency", &[json!("default"), json!("consistent")])?;
    let kind = match kind.as_deref() {
        Some("bind") => {
            let source = source.ok_or_else(|| {
                ApiError::invalid(format_args!("{} is required for a bind mount", fields.path("Source")))
            })?;
            MountKind::Bind { source, options: bind(fields.object("BindOptions")?)? }
        }
        Some("volume") => MountKind::Volume { source, options: volume(fields.object("VolumeOptions")?)? },
        Some("tmpfs") => {
            if source.is_some() {
                return Err(ApiError::invalid(format_args!(
                    "{} must be empty for a tmpfs mount",
                    fields.path("Source")
                )));
            }
            MountKind::Tmpfs { options: tmpfs(fields.object("TmpfsOptions")?)? }
        }
        None => return Err(ApiError::invalid(format_args!("{} is required", fields.path("Type")))),
        Some(other) => {
            return Err(ApiError::bad_request(format!(
                "invalid argument: {} {other:?} is not supported: expected bind, volume or tmpfs",
                fields.path("Type")
            )));
        }
    };
    let mount = Mount { target: fields.text("Target")?.unwrap_or_default(), read_only: fields.flag("ReadOnly")?, kind };
    fields.done()?;
    Ok(mount)
}

fn bind(mut fields: Fields<'_>) -> Result<BindOptions, ApiError> {
    let propagation = match fields.text("Propagation")?.as_deref() {
        None => None,
        Some("private") => Some(Propagation::Private),
        Some("rprivate") => Some(Propagation::Rprivate),
        Some("shared") => Some(Propagation::Shared),
        Some("rshared") => Some(Propagation::Rshared),
        Some("slave") => Some(Propagation::Slave),
        Some("rslave") => Some(Propagation::Rslave),
        Some(other) => {
            let path = fields.path("Propagation");
            return Err(ApiError::invalid(format_args!(
                "{path} {other:?}: expected private, rprivate, shared, rshared, slave or rslave"
            )));
        }
    };
    let options = BindOptions { propagation, non_recursive: fields.flag("NonRecursive")? };
    fields.done()?;
    Ok(options)
}

fn volume(mut fields: Fields<'_>) -> Result<VolumeOptions, ApiError> {
    let mut driver = fields.object("DriverConfig")?;
    driver.only("Name", &[json!("local")])?;
    driver.done()?;
    let options = VolumeOptions { no_copy: fields.flag("NoCopy")?, labels: fields.labels("Labels")? };
    fields.done()?;
    Ok(options)
}

fn tmpfs(mut fields: Fields<'_>) -> Result<TmpfsOptions, ApiError> {
    let size = fields.count("SizeBytes")?.filter(|size| *size > 0).map(Bytes::new);
    let path = fields.path("Mode");
    let mode = match fields.count("Mode")? {
        None | Some(0) => None,
        Some(mode) => match u32::try_from(mode) {
            Ok(mode) if mode <= 0o7777 => Some(mode),
            Ok(_) | Err(_) => {
                return Err(ApiError::invalid(format_args!("{path} {mode:#o} is no file mode: at most 0o7777")));
            }
        },
    };
    let options = TmpfsOptions { size, mode };
    fields.done()?;
    Ok(options)
}

/// A mount as Docker shows it.
pub fn model(mount: &Mount) -> MountModel {
    let base = MountModel {
        target: Some(mount.target.clone()),
        read_only: mount.read_only.then_some(true),
        ..MountModel::default()
    };
    match &mount.kind {
        MountKind::Bind { source, options } => MountModel {
            typ: Some(MountTypeEnum::BIND),
            source: Some(source.clone()),
            bind_options: (*options != BindOptions::default()).then(|| MountBindOptions {
                propagation: options.propagation.map(propagation),
                non_recursive: options.non_recursive.then_some(true),
                ..MountBindOptions::default()
            }),
            ..base
        },
        MountKind::Volume { source, options } => MountModel {
            typ: Some(MountTypeEnum::VOLUME),
            source: source.clone(),
            volume_options: (*options != VolumeOptions::default()).then(|| MountVolumeOptions {
                no_copy: options.no_copy.then_some(true),
                labels: some_map(&options.labels),
                ..MountVolumeOptions::default()
            }),
            ..base
        },
        MountKind::Tmpfs { options } => MountModel {
            typ: Some(MountTypeEnum::TMPFS),
            tmpfs_options: (*options != TmpfsOptions::default()).then(|| MountTmpfsOptions {
                size_bytes: options.size.map(Bytes::to_i64),
                mode: options.mode.map(i64::from),
                ..MountTmpfsOptions::default()
            }),
            ..base
        },
    }
}

fn propagation(propagation: Propagation) -> PropagationModel {
    match propagation {
        Propagation::Private => PropagationModel::PRIVATE,
        Propagation::Rprivate => PropagationModel::RPRIVATE,
        Propagation::Shared => PropagationModel::SHARED,
        Propagation::Rshared => PropagationModel::RSHARED,
        Propagation::Slave => PropagationModel::SLAVE,
        Propagation::Rslave => PropagationModel::RSLAVE,
    }
}
