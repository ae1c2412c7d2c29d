//! The JSON documents of an image: index, manifest, configuration.
//!
//! Only the fields that we use. Docker's and OCI's forms differ in media types
//! alone, so one set of types reads both.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{DeserializeOwned, Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer};

use super::digest::Digest;
use super::error::RegistryError;
use super::limits::LAYERS_MAX;
use super::platform::Platform;
use crate::object::HealthConfig;

/// An OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Docker's image index.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's image manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// What we ask registries for.
pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// Points at a document or a layer.
#[derive(Debug, Clone, Deserialize)]
pub struct Descriptor {
    /// What it is.
    #[serde(rename = "mediaType", default)]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// In an index: what the manifest is built for.
    #[serde(default)]
    pub platform: Option<Platform>,
}

impl Descriptor {
    /// Describes `bytes`.
    pub fn of(bytes: &[u8], media_type: &str) -> Self {
        let size = bytes.len() as u64;
        Self { media_type: media_type.into(), digest: Digest::of(bytes), size, platform: None }
    }

    /// The platform of an index entry; none for attestations.
    pub fn runs_on(&self) -> Option<Platform> {
        let raw = self.platform.as_ref()?;
        let is_unknown = raw.os == "unknown" || raw.architecture == "unknown";
        (!is_unknown && !raw.architecture.is_empty()).then(|| raw.normalised())
    }
}

/// Manifests of one image for several platforms.
#[derive(Debug, Clone, Deserialize)]
pub struct Index {
    /// One per platform, and attestations.
    pub manifests: Vec<Descriptor>,
}

impl Index {
    /// What the image can run on, in the order of the index.
    pub fn platforms(&self) -> Vec<Platform> {
        self.manifests.iter().filter_map(Descriptor::runs_on).collect()
    }
}

/// An image for one platform.
#[derive(Debug, Clone, Deserialize)]
pub struct Manifest {
    /// The [`ImageConfig`].
    pub config: Descriptor,
    /// Layers, the lowest first.
    pub layers: Vec<Descriptor>,
}

/// What a manifest request answers.
#[derive(Debug, Clone)]
pub enum Document {
    /// Several platforms.
    Index(Index),
    /// One platform.
    Manifest(Manifest),
}

/// The shape of a document, to tell an index from a manifest.
#[derive(Deserialize)]
struct Shape {
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<IgnoredAny>,
}

impl Document {
    /// Reads an index or manifest that came with the content type `declared`
    /// (empty if unknown). Returns it with its media type.
    ///
    /// # Errors
    /// [`RegistryError::Unsupported`] for anything else (schema 1, artifacts),
    /// [`RegistryError::Malformed`] for broken documents.
    pub fn parse(bytes: &[u8], declared: &str) -> Result<(Self, String), RegistryError> {
        let shape: Shape = parse_json(bytes, "manifest")?;
        let declared = declared.split(';').next().unwrap_or_default().trim();
        let is_index = shape.manifests.is_some();
        let is_manifest = shape.config.is_some() && shape.layers.is_some();
        // The document's own word comes first: it is covered by the digest.
        let media_type = match shape.media_type.as_deref() {
            Some(own) => own,
            None if is_known(declared) => declared,
            None if is_index => OCI_INDEX,
            None if is_manifest => OCI_MANIFEST,
            None => declared,
        };
        let unsupported = || RegistryError::Unsupported {
            media_type: if shape.fs_layers.is_some() {
                "Docker image manifest, schema 1".into()
            } else {
                media_type.chars().take(100).collect()
            },
        };
        let document = match media_type {
            // A document that could be read both ways means harm.
            _ if is_index && (shape.config.is_some() || shape.layers.is_some()) => {
                return Err(malformed("manifest", "it is an index and a manifest at once"));
            }
            OCI_INDEX | DOCKER_INDEX if is_index => Self::Index(parse_json(bytes, "image index")?),
            OCI_MANIFEST | DOCKER_MANIFEST if is_manifest => Self::Manifest(parse_json(bytes, "manifest")?),
            _ => return Err(unsupported()),
        };
        Ok((document, media_type.to_owned()))
    }
}

fn is_known(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | OCI_MANIFEST | DOCKER_INDEX | DOCKER_MANIFEST)
}

/// Is it a layer that containerd can unpack?
pub fn is_layer(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd"
    )
}

/// An image's configuration.
#[derive(Debug, Clone, Deserialize)]
pub struct ImageConfig {
    // Not a flattened `Platform`: serde would copy the whole document for it.
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
    /// How to run it.
    #[serde(default, deserialize_with = "nullable")]
    pub config: RunConfig,
    /// Its layers.
    pub rootfs: RootFs,
}

/// Digests of the unpacked layers.
#[derive(Debug, Clone, Deserialize)]
pub struct RootFs {
    /// One per layer of the manifest, the lowest first.
    #[serde(deserialize_with = "nullable")]
    pub diff_ids: Vec<Digest>,
}

/// The part of an image's configuration that says how to run it. Unknown fields are ignored:
/// images are not ours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RunConfig {
    /// The program, and arguments that always come first.
    pub entrypoint: Option<Vec<String>>,
    /// Default arguments, or the program if there is no entrypoint.
    pub cmd: Option<Vec<String>>,
    /// `KEY=value`.
    pub env: Option<Vec<String>>,
    /// `user[:group]`, names or numbers.
    pub user: Option<String>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// Name or number of the signal that asks it to stop.
    pub stop_signal: Option<String>,
    /// Labels of the image.
    #[serde(deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
    /// `80/tcp`: what the program says it listens on.
    #[serde(deserialize_with = "keys")]
    pub exposed_ports: Vec<String>,
    /// How its health is checked.
    #[serde(rename = "Healthcheck", deserialize_with = "health")]
    pub health: Option<HealthConfig>,
    /// What runs command lines; empty: `/bin/sh -c`.
    #[serde(deserialize_with = "nullable")]
    pub shell: Vec<String>,
}

/// An image's health check; times in nanoseconds, zero: not given.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Healthcheck {
    #[serde(deserialize_with = "nullable")]
    test: Vec<String>,
    interval: i64,
    timeout: i64,
    start_period: i64,
    start_interval: i64,
    retries: i64,
}

impl ImageConfig {
    /// What the image is built for, as written; empty fields if it does not say.
    pub fn platform(&self) -> Platform {
        let Self { os, architecture, variant, .. } = self;
        Platform { os: os.clone(), architecture: architecture.clone(), variant: variant.clone() }
    }

    /// Reads a configuration.
    ///
    /// # Errors
    /// [`RegistryError::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, RegistryError> {
        parse_json(bytes, "image configuration")
    }

    /// The snapshot names of the layers, the lowest first: each is the digest
    /// of the one below and the layer's own (OCI's chain id).
    ///
    /// # Errors
    /// [`RegistryError::Malformed`] if `manifest` has another number of
    /// layers, or more than an image may have.
    pub fn chain_ids(&self, manifest: &Manifest) -> Result<Vec<Digest>, RegistryError> {
        let diff_ids = &self.rootfs.diff_ids;
        let (layers, diffs) = (manifest.layers.len(), diff_ids.len());
        if layers != diffs || diffs == 0 || diffs > LAYERS_MAX {
            let why = format!("{layers} layers in the manifest, {diffs} in the configuration");
            return Err(malformed("image", why));
        }
        let mut chain: Vec<Digest> = Vec::with_capacity(diffs);
        for diff_id in diff_ids {
            let next = match chain.last() {
                None => *diff_id,
                Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
            };
            chain.push(next);
        }
        Ok(chain)
    }
}

pub(crate) fn parse_json<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, RegistryError> {
    serde_json::from_slice(bytes).map_err(|error| malformed(what, error))
}

fn malformed(what: &'static str, why: impl ToString) -> RegistryError {
    RegistryError::Malformed { what, why: why.to_string() }
}

/// `null` is the default; Go writes it for empty slices and maps.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A health check, if there is one.
fn health<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<HealthConfig>, D::Error> {
    // What makes no sense counts as not given, as in Docker: images are not ours.
    let span = |nanos: i64| u64::try_from(nanos).ok().filter(|nanos| *nanos > 0).map(Duration::from_nanos);
    let found: Option<Healthcheck> = Option::deserialize(deserializer)?;
    Ok(found.map(|found| HealthConfig {
        test: found.test,
        interval: span(found.interval),
        timeout: span(found.timeout),
        start_period: span(found.start_period),
        start_interval: span(found.start_interval),
        retries: u32::try_from(found.retries).ok().filter(|retries| *retries > 0),
    }))
}

/// The keys of `{"80/tcp": {}}`.
fn keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let map: BTreeMap<String, IgnoredAny> = nullable(deserializer)?;
    Ok(map.into_keys().collect())
}

/// Deserialises through [`FromStr`].
pub(super) fn text<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(deserializer: D) -> Result<T, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[track_caller]
    fn check(json: &str, declared: &str, expected: Result<&str, &str>) {
        let json = json.replace("DESC", &format!(r#"{{"mediaType":"x","digest":"{D}","size":1}}"#));
        let kind = match Document::parse(json.as_bytes(), declared) {
            Ok((Document::Index(_), media_type)) => Ok(format!("index {media_type}")),
            Ok((Document::Manifest(_), media_type)) => Ok(format!("manifest {media_type}")),
            Err(error) => Err(error.to_string()),
        };
        assert_eq!(kind.as_deref().map_err(|text| &**text), expected);
    }

    #[test]
    fn documents() {
        let manifest = r#"{"config":DESC,"layers":[DESC]}"#;
        check(r#"{"manifests":[DESC]}"#, "", Ok(&format!("index {OCI_INDEX}")));
        check(r#"{"manifests":[]}"#, DOCKER_INDEX, Ok(&format!("index {DOCKER_INDEX}")));
        check(manifest, "application/json", Ok(&format!("manifest {OCI_MANIFEST}")));
        check(manifest, &format!("{DOCKER_MANIFEST}; charset=utf-8"), Ok(&format!("manifest {DOCKER_MANIFEST}")));
        let named = manifest.replacen('{', &format!(r#"{{"mediaType":"{DOCKER_MANIFEST}","#), 1);
        check(&named, OCI_MANIFEST, Ok(&format!("manifest {DOCKER_MANIFEST}")));
        check(
            r#"{"schemaVersion":1,"fsLayers":[]}"#,
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            Err(
                "image format not supported: Docker image manifest, schema 1; push the image again with a current tool",
            ),
        );
        check(
            r#"{"manifests":[],"layers":[]}"#,
            "",
            Err("registry sent a broken manifest: it is an index and a manifest at once"),
        );
        check(
            "{}",
            "text/html",
            Err("image format not supported: text/html; push the image again with a current tool"),
        );
        check(
            manifest,
            OCI_INDEX,
            Err(&format!("image format not supported: {OCI_INDEX}; push the image again with a current tool")),
        );
        assert!(Document::parse(b"[", "").is_err());
    }

    #[test]
    fn config() {
        let json = format!(
            r#"{{"architecture":"arm","os":"linux","variant":"v7","config":{{"Cmd":["sh"],"Env":null,
            "ExposedPorts":{{"80/tcp":{{}}}},"Volumes":{{"/x":{{}}}},"Labels":{{"a":"b"}}}},"rootfs":{{"type":"layers","diff_ids":["{D}","{D}"]}}}}"#
        );
        let config = ImageConfig::parse(json.as_bytes()).expect("valid");
        assert_eq!(config.platform().to_string(), "linux/arm/v7");
        assert_eq!(config.config.cmd.as_deref(), Some(&["sh".to_owned()][..]));
        assert_eq!(config.config.exposed_ports, ["80/tcp"]);
        let layer = Descriptor::of(b"", "");
        let mut manifest = Manifest { config: layer.clone(), layers: vec![layer.clone()] };
        assert!(config.chain_ids(&manifest).is_err());
        manifest.layers.push(layer);
        let chain = config.chain_ids(&manifest).expect("as many layers");
        assert_eq!(chain, [D.parse().expect("valid"), Digest::of(format!("{D} {D}").as_bytes())]);
        assert_eq!((&config.config.health, config.config.shell.len()), (&None, 0));
        let checked: RunConfig = serde_json::from_str(
            r#"{"Healthcheck":{"Test":["CMD-SHELL","x"],"Interval":5000000000,"Timeout":-1,"Retries":2,"New":1},
                "Shell":["/bin/ash","-c"]}"#,
        )
        .expect("valid");
        let health = HealthConfig {
            test: vec!["CMD-SHELL".into(), "x".into()],
            interval: Some(Duration::from_secs(5)),
            retries: Some(2),
            ..HealthConfig::default()
        };
        assert_eq!((checked.health, checked.shell.len()), (Some(health), 2));
        let bare = format!(r#"{{"config":null,"rootfs":{{"diff_ids":["{D}"]}}}}"#);
        assert_eq!(ImageConfig::parse(bare.as_bytes()).expect("valid").config, RunConfig::default());
    }
}
