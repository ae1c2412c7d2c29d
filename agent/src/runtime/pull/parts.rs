//! An image's documents: index, manifest and configuration, from containerd or the registry.

use std::collections::HashMap;

use racimo_common::registry::media::{Descriptor, Document, ImageConfig, Index, Manifest};
use racimo_common::registry::{Digest, Platform, RegistryError, Repository, platform};

use super::content;
use super::error::PullError;
use super::lease::Lease;
use crate::runtime::SNAPSHOTTER;
use crate::runtime::ctrd::Ctrd;

/// A document with its bytes, which must be stored as they came.
pub(super) struct Part<T> {
    pub(super) descriptor: Descriptor,
    pub(super) bytes: Vec<u8>,
    pub(super) document: T,
}

/// All documents of an image for this board, and what follows from them.
pub(super) struct Parts {
    /// If the image has several platforms.
    pub(super) index: Option<Part<Index>>,
    pub(super) manifest: Part<Manifest>,
    pub(super) config: ImageConfig,
    config_bytes: Vec<u8>,
    /// The snapshots' names, one per layer, the lowest first; never empty.
    pub(super) chain: Vec<Digest>,
}

impl Parts {
    /// The name of the snapshot that containers stand on.
    pub(super) fn top_chain(&self) -> Digest {
        *self.chain.last().expect("chain_ids refuses images without layers")
    }

    /// What the image record points at.
    pub(super) fn target(&self) -> &Descriptor {
        self.index.as_ref().map_or(&self.manifest.descriptor, |index| &index.descriptor)
    }
}

/// The label by which the configuration holds the unpacked layers.
pub(super) fn snapshot_label() -> String {
    format!("containerd.io/gc.ref.snapshot.{SNAPSHOTTER}")
}

/// Collects the documents below `digest`, first from containerd, then from the registry. None
/// without a registry if one is missing.
pub(super) async fn gather(
    ctrd: &Ctrd,
    digest: Digest,
    content_type: &str,
    mut registry: Option<&mut Repository<'_>>,
    platforms: &[Platform],
) -> Result<Option<Parts>, PullError> {
    let Some((top, content_type)) = manifest_bytes(ctrd, digest, content_type, registry.as_deref_mut()).await? else {
        return Ok(None);
    };
    let (document, media_type) = Document::parse(&top, &content_type)?;
    let descriptor = Descriptor::of(&top, &media_type);
    let no_platform = |image| RegistryError::NoPlatform { image, board: platforms.to_vec() };
    // Only the index can tell ARM variants apart for sure; without it the image's own word counts.
    let mut is_certain = false;
    let (index, manifest) = match document {
        Document::Manifest(document) => (None, Part { descriptor, bytes: top, document }),
        Document::Index(index) => {
            let chosen = platform::choose(&index.manifests, platforms);
            let chosen = chosen.ok_or_else(|| no_platform(index.platforms()))?;
            let entry = &index.manifests[chosen];
            is_certain = entry.platform.is_some();
            let found = manifest_bytes(ctrd, entry.digest, &entry.media_type, registry.as_deref_mut()).await?;
            let Some((bytes, content_type)) = found else { return Ok(None) };
            let (Document::Manifest(document), media_type) = Document::parse(&bytes, &content_type)? else {
                return Err(RegistryError::Unsupported { media_type: "an index inside an index".into() }.into());
            };
            let manifest = Part { descriptor: Descriptor::of(&bytes, &media_type), bytes, document };
            (Some(Part { descriptor, bytes: top, document: index }), manifest)
        }
    };
    let config = &manifest.document.config;
    let config_bytes = match (content::read(ctrd, config.digest).await?, registry) {
        (Some(bytes), _) => bytes,
        (None, Some(registry)) => registry.document(config).await?,
        (None, None) => return Ok(None),
    };
    let config = ImageConfig::parse(&config_bytes)?;
    if !is_certain && !platform::accepts(&config.platform(), platforms) {
        return Err(no_platform(vec![config.platform().normalised()]).into());
    }
    let chain = config.chain_ids(&manifest.document)?;
    Ok(Some(Parts { index, manifest, config, config_bytes, chain }))
}

/// A manifest or index with its content type.
async fn manifest_bytes(
    ctrd: &Ctrd,
    digest: Digest,
    content_type: &str,
    registry: Option<&mut Repository<'_>>,
) -> Result<Option<(Vec<u8>, String)>, PullError> {
    if let Some(bytes) = content::read(ctrd, digest).await? {
        return Ok(Some((bytes, content_type.to_owned())));
    }
    let Some(registry) = registry else { return Ok(None) };
    let fetched = registry.manifest(digest).await?;
    Ok(Some((fetched.bytes, fetched.content_type)))
}

/// Stores the documents so that each holds the next, down to the unpacked layers. The layers'
/// blobs are not held. Blobs that were there already keep their labels, hence the labels are set
/// in a second step.
pub(super) async fn store(ctrd: &Ctrd, lease: &Lease, parts: &Parts) -> Result<(), PullError> {
    let config = Descriptor { platform: None, ..parts.manifest.document.config.clone() };
    let manifest = &parts.manifest;
    content::write_all(ctrd, lease, &config, &parts.config_bytes).await?;
    hold(ctrd, lease, config.digest, snapshot_label(), parts.top_chain()).await?;

    content::write_all(ctrd, lease, &manifest.descriptor, &manifest.bytes).await?;
    let label = "containerd.io/gc.ref.content.config";
    hold(ctrd, lease, manifest.descriptor.digest, label.into(), config.digest).await?;

    if let Some(index) = &parts.index {
        content::write_all(ctrd, lease, &index.descriptor, &index.bytes).await?;
        let at = index.document.manifests.iter().position(|entry| entry.digest == manifest.descriptor.digest);
        let label = format!("containerd.io/gc.ref.content.m.{}", at.unwrap_or_default());
        hold(ctrd, lease, index.descriptor.digest, label, manifest.descriptor.digest).await?;
    }
    Ok(())
}

async fn hold(ctrd: &Ctrd, lease: &Lease, holder: Digest, label: String, held: Digest) -> Result<(), PullError> {
    content::label(ctrd, lease, holder, HashMap::from([(label, held.to_string())])).await
}
