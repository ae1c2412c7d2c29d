//! Secrets and configs ⇄ Docker's JSON, and the references to them in a service.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bollard_stubs::models::{
    TaskSpecContainerSpecConfigs, TaskSpecContainerSpecFile, TaskSpecContainerSpecFile1, TaskSpecContainerSpecSecrets,
};
use racimo_common::object::FileRef;
use serde_json::{Map, Value, json};

use super::{json as model, time};
use crate::api::error::ApiError;
use crate::api::fields::Fields;
use crate::api::validate;
use crate::store::{Dependency, DependencyKind};
use crate::template::{Kind, Template};
use crate::vault::Plain;

const NAME_CHARS_MAX: usize = 64;

/// What a client says of a secret or config.
#[derive(Debug)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Its content, if it came along.
    pub data: Option<Plain>,
    /// Whether it is a template.
    pub template: bool,
}

/// Reads a specification.
///
/// # Errors
/// 400 that names the field; nothing of the content is repeated.
pub fn read(kind: DependencyKind, body: &Value) -> Result<Spec, ApiError> {
    let mut fields = Fields::of("", body)?;
    let name = fields.text("Name")?.unwrap_or_default();
    let labels = fields.labels("Labels")?;
    let data = fields.text("Data")?.map(|text| STANDARD.decode(text).map(Plain::new)).transpose();
    let data = data.map_err(|_| ApiError::bad_request("invalid JSON: Data must be base64"))?;
    if kind == DependencyKind::Secret && fields.is_set("Driver") {
        return Err(ApiError::bad_request(
            "invalid argument: Driver: secrets of external drivers are not supported: give the secret's data",
        ));
    }
    let mut templating = fields.object("Templating")?;
    let template = match templating.text("Name")?.as_deref() {
        None => false,
        Some("golang") => true,
        Some(other) => {
            let text = format!("invalid argument: Templating.Name {other:?} is not supported: expected golang");
            return Err(ApiError::bad_request(text));
        }
    };
    templating.done()?;
    fields.done()?;
    Ok(Spec { name, labels, data, template })
}

/// Whether a new secret or config may be so. The words are SwarmKit's.
///
/// # Errors
/// 400.
pub fn check(kind: DependencyKind, spec: &Spec) -> Result<(), ApiError> {
    if spec.name.is_empty() {
        return Err(ApiError::invalid("meta: name must be provided"));
    }
    if !validate::is_name_of(&spec.name, "-_.") || spec.name.len() > NAME_CHARS_MAX {
        return Err(ApiError::invalid(
            "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]",
        ));
    }
    let most = kind.bytes_max();
    if !(1..=most).contains(&spec.data.as_ref().map_or(0, |data| data.len())) {
        let (kind, end) = (kind.name(), most + 1);
        return Err(ApiError::invalid(format_args!("{kind} data must be larger than 0 and less than {end} bytes")));
    }
    let text = spec.data.as_deref().filter(|_| spec.template).map(|data| {
        let text = std::str::from_utf8(data).map_err(|_| "a template must be UTF-8 text".to_owned())?;
        Template::parse(text, Kind::Body).map_err(|error| error.to_string())
    });
    if let Some(Err(why)) = text {
        return Err(ApiError::invalid(format_args!("{} data: {why}", kind.name())));
    }
    Ok(())
}

/// A secret or config as Docker shows it, with its content if that may be shown.
pub fn show(dependency: &Dependency, body: Option<&[u8]>) -> Value {
    let mut spec = Map::new();
    spec.insert("Name".to_owned(), json!(dependency.name));
    spec.insert("Labels".to_owned(), json!(dependency.labels));
    if let Some(body) = body {
        spec.insert("Data".to_owned(), STANDARD.encode(body).into());
    }
    if dependency.template {
        spec.insert("Templating".to_owned(), json!({ "Name": "golang" }));
    }
    json!({
        "ID": dependency.id.to_string(),
        "Version": { "Index": dependency.meta.version },
        "CreatedAt": time(dependency.meta.created),
        "UpdatedAt": time(dependency.meta.updated),
        "Spec": model(&spec),
    })
}

/// Reads a container's reference to a secret or config. The words are SwarmKit's.
///
/// # Errors
/// 400.
pub fn read_reference(kind: DependencyKind, path: &str, value: &Value) -> Result<FileRef, ApiError> {
    let word = kind.name();
    let mut fields = Fields::of(path, value)?;
    let (id_key, name_key) = match kind {
        DependencyKind::Secret => ("SecretID", "SecretName"),
        DependencyKind::Config => ("ConfigID", "ConfigName"),
    };
    let (id, name) = (fields.text(id_key)?, fields.text(name_key)?);
    let (Some(id), Some(name)) = (id, name) else {
        return Err(ApiError::invalid(format_args!("malformed {word} reference")));
    };
    if kind == DependencyKind::Config && fields.has("Runtime") {
        return Err(fields.refuse("Runtime"));
    }
    if !fields.has("File") {
        return Err(ApiError::invalid(format_args!("malformed {word} reference, no target provided")));
    }
    let mut file = fields.object("File")?;
    let Some(target) = file.text("Name")? else {
        let text = format_args!("malformed file {word} reference, invalid target file name provided");
        return Err(ApiError::invalid(text));
    };
    let number = |key: &str, file: &mut Fields<'_>| {
        let text = file.text(key)?.unwrap_or_else(|| "0".to_owned());
        text.parse::<u32>().map_err(|_| {
            ApiError::bad_request(format!(
                "invalid argument: {}: {text:?} is not a user or group number",
                file.path(key)
            ))
        })
    };
    let (uid, gid) = (number("UID", &mut file)?, number("GID", &mut file)?);
    let mode = u32::try_from(file.count("Mode")?.unwrap_or_default()).ok().filter(|mode| *mode <= 0o7777);
    let Some(mode) = mode else {
        let text = format!("invalid argument: {} is no file mode: at most 0o7777", file.path("Mode"));
        return Err(ApiError::bad_request(text));
    };
    file.done()?;
    fields.done()?;
    let missing = |_| ApiError::invalid(format_args!("{word} not found: {name}"));
    Ok(FileRef { id: id.parse().map_err(missing)?, name, target, uid, gid, mode })
}

/// References to secrets as Docker shows them.
pub fn secrets(files: &[FileRef]) -> Option<Vec<TaskSpecContainerSpecSecrets>> {
    let show = |file: &FileRef| TaskSpecContainerSpecSecrets {
        file: Some(TaskSpecContainerSpecFile {
            name: Some(file.target.clone()),
            uid: Some(file.uid.to_string()),
            gid: Some(file.gid.to_string()),
            mode: Some(file.mode),
        }),
        secret_id: Some(file.id.to_string()),
        secret_name: Some(file.name.clone()),
    };
    (!files.is_empty()).then(|| files.iter().map(show).collect())
}

/// References to configs as Docker shows them.
pub fn configs(files: &[FileRef]) -> Option<Vec<TaskSpecContainerSpecConfigs>> {
    let show = |file: &FileRef| TaskSpecContainerSpecConfigs {
        file: Some(TaskSpecContainerSpecFile1 {
            name: Some(file.target.clone()),
            uid: Some(file.uid.to_string()),
            gid: Some(file.gid.to_string()),
            mode: Some(file.mode),
        }),
        runtime: None,
        config_id: Some(file.id.to_string()),
        config_name: Some(file.name.clone()),
    };
    (!files.is_empty()).then(|| files.iter().map(show).collect())
}
