//! Images: found on this board, or pulled from a registry and unpacked.
//!
//! ```text
//! registry ─ 32 KiB ─▶ content store ─ apply ─▶ snapshots (one per layer, by chain id)
//!    index ─▶ manifest ─▶ config ─ gc label ─▶ top snapshot
//! image record "docker.io/library/nginx:latest" ─▶ index or manifest
//! ```
//!
//! A lease per image keeps everything until the image record stands; a pull that died is resumed
//! under the same lease. What the record stands for is on the disk before it does. What a power cut damaged
//! all the same (documents whose bytes do not match, layers that are not there) is dropped and pulled again. A registry that hangs holds up pulls, never an image that is here. Compressed layers are not kept: when the lease goes, containerd collects
//! them. Every future here may be dropped at any time.
//!
//! Names of image records, as `ctr` writes them, so that images it imported are found:
//! `host/repository:tag` for a tag, `host/repository@digest` for a digest; an image pinned to a
//! digest that has a tag too gets both, so that the tag works when the registry is away.

mod ask;
mod content;
mod error;
pub mod keep;
mod lease;
mod parts;
mod record;
mod unpack;

use std::collections::BTreeSet;

use racimo_common::registry::{Credentials, Digest, Platform, Reference, Registry, RegistryError, Repository};
use smol::lock::{Mutex, Semaphore};
use tonic::Code;

use super::Image;
use super::ctrd::Ctrd;
use crate::limits::LOOKS_MAX;
pub use error::PullError;
use lease::Lease;
use parts::Parts;

/// Pulls wait for each other: memory and the card allow one at a time.
static TURN: Mutex<()> = Mutex::new(());
/// Looks at what is here need less, but a hundred tasks at once must take turns too.
static LOOKS: Semaphore = Semaphore::new(LOOKS_MAX);

/// An image that is unpacked on this board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalImage {
    /// Of the manifest for this board's platform, not of an index.
    pub manifest_digest: Digest,
    /// What is needed to run it.
    pub image: Image,
}

/// How far the download is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Compressed bytes of layers that are here.
    pub bytes: u64,
    /// Compressed bytes of layers that were missing at the start.
    pub total: u64,
}

/// Makes `image` runnable on this board, as Swarm does: a digest that is here is used without
/// asking the registry; a tag is looked up there each time, and if that fails while an image of
/// that name is here, the local one is used.
///
/// # Errors
/// The registry's or containerd's, if the image is not here either.
pub async fn ensure(
    ctrd: &Ctrd,
    registry: &Registry,
    image: &Reference,
    credentials: Option<&Credentials>,
    platforms: &[Platform],
    progress: &mut dyn FnMut(Progress),
) -> Result<LocalImage, PullError> {
    let here = match here(ctrd, image, platforms).await {
        // What the tag stood for may be unusable; what it stands for now need not be.
        Err(_) if image.digest().is_none() => None,
        here => here?,
    };
    let mut repository = registry.repository(image, credentials);
    if let Some((digest, local)) = here {
        if image.digest().is_some() || Box::pin(ask::is_current(&mut repository, image, digest)).await {
            return Ok(local);
        }
    }
    let _turn = TURN.lock().await;
    // In a box: whoever waits for the turn should not hold the memory for it.
    let error = match Box::pin(pull(ctrd, &mut repository, image, platforms, progress)).await {
        Ok(local) => return Ok(local),
        Err(error) => error,
    };
    match Box::pin(find(ctrd, image, platforms)).await {
        Ok(Some(local)) => {
            log::warn!("using the local {}: {error}", image.familiar());
            Ok(local)
        }
        Ok(None) | Err(_) => Err(error),
    }
}

/// Finds `image` on this board, by digest if it has one or by name. An image that was imported
/// but never unpacked is unpacked now. None if it is not here or not complete.
///
/// # Errors
/// containerd's, or what is wrong with the image's documents.
pub async fn lookup(ctrd: &Ctrd, image: &Reference, platforms: &[Platform]) -> Result<Option<LocalImage>, PullError> {
    if let Some((_, local)) = here(ctrd, image, platforms).await? {
        return Ok(Some(local));
    }
    let _turn = TURN.lock().await;
    Box::pin(find(ctrd, image, platforms)).await
}

/// Drops the layers of `image`, which are damaged on this board's disk: they will be made anew. Those on which others
/// stand stay.
///
/// # Errors
/// containerd's.
pub async fn discard(ctrd: &Ctrd, image: &Reference, platforms: &[Platform]) -> Result<(), PullError> {
    let _turn = TURN.lock().await;
    let Some(record) = record::find(ctrd, image).await? else { return Ok(()) };
    let parts = parts::gather(ctrd, record.digest, &record.media_type, None, platforms).await?;
    match parts {
        Some(parts) => match unpack::discard(ctrd, &parts.chain).await {
            // Another image stands on the lower ones: whether they are there is seen when one stands on them.
            Err(PullError::Containerd(error)) if error.code() == Some(Code::FailedPrecondition) => Ok(()),
            discarded => discarded,
        },
        None => Ok(()),
    }
}

/// Gives up what was fetched of images but `wanted`, named as in a [`Reference`]. While one is being pulled, nothing.
///
/// # Errors
/// containerd's.
pub async fn forget(ctrd: &Ctrd, wanted: &BTreeSet<String>) -> Result<(), PullError> {
    // Not waited for: a registry that hangs may hold it for long.
    let Some(_turn) = TURN.try_lock() else { return Ok(()) };
    Lease::forget(ctrd, wanted).await
}

/// The image and what its record points at, if nothing is left to do for it.
async fn here(
    ctrd: &Ctrd,
    image: &Reference,
    platforms: &[Platform],
) -> Result<Option<(Digest, LocalImage)>, PullError> {
    let _turn = LOOKS.acquire().await;
    Box::pin(async {
        let Some(record) = record::find(ctrd, image).await? else { return Ok(None) };
        let local = ready(ctrd, &record, platforms).await?;
        Ok(local.map(|local| (record.digest, local)))
    })
    .await
}

/// [`lookup`], for who has the turn.
async fn find(ctrd: &Ctrd, image: &Reference, platforms: &[Platform]) -> Result<Option<LocalImage>, PullError> {
    let Some(record) = record::find(ctrd, image).await? else { return Ok(None) };
    if let Some(local) = ready(ctrd, &record, platforms).await? {
        return Ok(Some(local));
    }
    let lease = Lease::take(ctrd, &record.name).await?;
    let result = complete_local(ctrd, &lease, &record, platforms).await;
    lease.release(ctrd).await;
    result
}

/// The image, if nothing is left to do for it.
async fn ready(ctrd: &Ctrd, record: &record::Record, platforms: &[Platform]) -> Result<Option<LocalImage>, PullError> {
    let Some(parts) = parts::gather(ctrd, record.digest, &record.media_type, None, platforms).await? else {
        return Ok(None);
    };
    let is_ready = unpack::is_held(ctrd, &parts).await? && unpack::exists(ctrd, parts.top_chain()).await?;
    Ok(is_ready.then(|| local_image(&record.name, parts)))
}

async fn complete_local(
    ctrd: &Ctrd,
    lease: &Lease,
    record: &record::Record,
    platforms: &[Platform],
) -> Result<Option<LocalImage>, PullError> {
    let Some(parts) = parts::gather(ctrd, record.digest, &record.media_type, None, platforms).await? else {
        return Ok(None);
    };
    if !unpack::layers(ctrd, lease, &parts, platforms, None, &mut |_| {}).await? {
        return Ok(None);
    }
    parts::store(ctrd, lease, &parts).await?;
    Ok(Some(local_image(&record.name, parts)))
}

async fn pull(
    ctrd: &Ctrd,
    repository: &mut Repository<'_>,
    image: &Reference,
    platforms: &[Platform],
    progress: &mut dyn FnMut(Progress),
) -> Result<LocalImage, PullError> {
    let digest = match image.digest() {
        Some(digest) => Some(digest),
        // Costs no pull at registries that count them.
        None => match repository.head().await {
            Ok(head) => head.map(|head| head.digest),
            Err(RegistryError::Status { .. }) => None,
            Err(error) => return Err(error.into()),
        },
    };
    if let (Some(digest), Some(record)) = (digest, record::find(ctrd, image).await?) {
        if record.digest == digest {
            if let Some(local) = find(ctrd, image, platforms).await? {
                return Ok(local);
            }
        }
    }
    let lease = Lease::take(ctrd, &image.to_string()).await?;
    match pull_under(ctrd, &lease, repository, image, digest, platforms, progress).await {
        Ok(local) => {
            lease.release(ctrd).await;
            Ok(local)
        }
        Err(error) => {
            if !error.is_resumable() {
                lease.release(ctrd).await;
            }
            Err(error)
        }
    }
}

async fn pull_under(
    ctrd: &Ctrd,
    lease: &Lease,
    repository: &mut Repository<'_>,
    image: &Reference,
    digest: Option<Digest>,
    platforms: &[Platform],
    progress: &mut dyn FnMut(Progress),
) -> Result<LocalImage, PullError> {
    let (digest, content_type) = match digest {
        Some(digest) => (digest, String::new()),
        None => {
            let top = repository.top().await?;
            let descriptor = racimo_common::registry::media::Descriptor::of(&top.bytes, "");
            content::write_all(ctrd, lease, &descriptor, &top.bytes).await?;
            (top.digest, top.content_type)
        }
    };
    let parts = parts::gather(ctrd, digest, &content_type, Some(&mut *repository), platforms)
        .await?
        .ok_or(PullError::Vanished)?;
    if !unpack::layers(ctrd, lease, &parts, platforms, Some(repository), progress).await? {
        return Err(PullError::Vanished);
    }
    parts::store(ctrd, lease, &parts).await?;
    // The image counts as complete from here on.
    unpack::sync(ctrd).await?;
    let name = record::put(ctrd, lease, image, &parts).await?;
    Ok(local_image(&name, parts))
}

fn local_image(name: &str, parts: Parts) -> LocalImage {
    LocalImage {
        manifest_digest: parts.manifest.descriptor.digest,
        image: Image { name: name.into(), chain: parts.top_chain().to_string(), run: parts.config.config },
    }
}
