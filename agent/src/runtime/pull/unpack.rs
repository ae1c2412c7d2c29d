//! Layers: fetched if they are missing, and unpacked into snapshots.

use std::fs::File;
use std::io;
use std::path::Path;

use containerd_client::services::v1::ApplyRequest;
use containerd_client::services::v1::diff_client::DiffClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
};
use containerd_client::types::{Descriptor as CtrdDescriptor, Mount};
use futures_lite::FutureExt as _;
use racimo_common::error::chain as chain_of;
use racimo_common::registry::media::{self, Descriptor};
use racimo_common::registry::{Digest, Platform, RegistryError, Repository};
use smol::Timer;
use tonic::Code;

use super::Progress;
use super::content::{self, Committed, Ingest};
use super::error::{PullError, UNPACK};
use super::keep;
use super::lease::Lease;
use super::parts::{self, Parts};
use crate::limits::{CTRD_CALL_MAX, PULL_CHUNK, PULL_LAYER_MAX, PULL_RESUME_PAUSE, PULL_RESUMES};
use crate::runtime::SNAPSHOTTER;
use crate::runtime::ctrd::{Ctrd, request, within};

/// Is there a snapshot `chain`?
pub(super) async fn exists(ctrd: &Ctrd, chain: Digest) -> Result<bool, PullError> {
    let stat = StatSnapshotRequest { snapshotter: SNAPSHOTTER.into(), key: chain.to_string() };
    match within(CTRD_CALL_MAX, SnapshotsClient::new(ctrd.clone()).stat(request(stat, None))).await {
        Ok(_) => Ok(true),
        Err(status) if status.code() == Code::NotFound => Ok(false),
        Err(status) => Err(PullError::call("look for a layer")(status)),
    }
}

/// Does the image's configuration keep its layers from the garbage collector?
pub(super) async fn is_held(ctrd: &Ctrd, parts: &Parts) -> Result<bool, PullError> {
    let info = content::info(ctrd, parts.manifest.document.config.digest).await?;
    let held = info.and_then(|info| info.labels.get(&parts::snapshot_label()).cloned());
    Ok(held == Some(parts.top_chain().to_string()))
}

/// Makes all snapshots of the image, from the highest that is there upwards; all of them if those that are there turn out
/// to be on the disk no more. False if a layer is
/// missing and there is no registry to fetch it from.
pub(super) async fn layers(
    ctrd: &Ctrd,
    lease: &Lease,
    parts: &Parts,
    platforms: &[Platform],
    mut registry: Option<&mut Repository<'_>>,
    progress: &mut dyn FnMut(Progress),
) -> Result<bool, PullError> {
    match missing(ctrd, lease, parts, registry.as_deref_mut(), progress).await {
        // In boxes, as it hardly ever happens.
        Err(error) if error.may_be_gone() => match Box::pin(gone(ctrd, lease, &parts.chain, error.is_stuck())).await? {
            Some(from) => {
                log::warn!("layers are not on the disk any more, making them anew: {}", chain_of(&error));
                Box::pin(discard_shared(ctrd, &parts.chain, from, platforms)).await?;
                missing(ctrd, lease, parts, registry, progress).await
            }
            None => Err(error),
        },
        made => made,
    }
}

async fn missing(
    ctrd: &Ctrd,
    lease: &Lease,
    parts: &Parts,
    mut registry: Option<&mut Repository<'_>>,
    progress: &mut dyn FnMut(Progress),
) -> Result<bool, PullError> {
    let layers = &parts.manifest.document.layers;
    if let Some(layer) = layers.iter().find(|layer| !media::is_layer(&layer.media_type)) {
        return Err(RegistryError::Unsupported { media_type: layer.media_type.clone() }.into());
    }
    let mut done = 0;
    for (at, chain) in parts.chain.iter().enumerate().rev() {
        if exists(ctrd, *chain).await? {
            lease.hold_snapshot(ctrd, *chain).await?;
            done = at + 1;
            break;
        }
    }
    // What containerd's database has of the others and the disk does not would stand in their way.
    discard(ctrd, &parts.chain[done..]).await?;
    let total = layers[done..].iter().map(|layer| layer.size).fold(0, u64::saturating_add);
    let mut before = 0;
    for (at, layer) in layers.iter().enumerate().skip(done) {
        let mut advance = |bytes| progress(Progress { bytes: before + bytes, total });
        let parent = at.checked_sub(1).map(|below| parts.chain[below]);
        loop {
            let was_here = match registry.as_deref_mut() {
                Some(registry) => fetch(ctrd, lease, registry, layer, &mut advance).await?,
                // Opening tells whether it is there, and lets the lease hold it.
                None => match Ingest::open(ctrd, lease, layer).await? {
                    None => true,
                    Some(_) => return Ok(false),
                },
            };
            match unpack(ctrd, lease, layer, parent, parts.chain[at], parts.config.rootfs.diff_ids[at]).await {
                Ok(()) => break,
                // Nobody has compared its bytes since a power cut may have damaged them. Those that are whole stay: they
                // may be in no registry.
                Err(error)
                    if was_here
                        && error.may_be_damage()
                        && !Box::pin(content::is_whole(ctrd, layer.digest)).await? =>
                {
                    log::warn!("unpack {}: {}", layer.digest, chain_of(&error));
                    content::discard(ctrd, layer.digest).await?;
                }
                Err(error) => return Err(error),
            }
        }
        before = before.saturating_add(layer.size);
        progress(Progress { bytes: before, total });
    }
    Ok(true)
}

/// Gets a layer into the content store; true if it was there. A broken connection is taken up again where it broke.
async fn fetch(
    ctrd: &Ctrd,
    lease: &Lease,
    registry: &mut Repository<'_>,
    layer: &Descriptor,
    advance: &mut dyn FnMut(u64),
) -> Result<bool, PullError> {
    let mut resumes = 0;
    let mut reached = 0;
    loop {
        let Some(mut ingest) = Ingest::open(ctrd, lease, layer).await? else { return Ok(true) };
        let from = ingest.offset();
        let fits = match transfer(&mut ingest, registry, layer, advance).await {
            Ok(fits) => fits,
            Err(PullError::Registry(error @ RegistryError::Transfer { .. }))
                if resumes < PULL_RESUMES && ingest.offset() > reached =>
            {
                resumes += 1;
                reached = ingest.offset();
                log::info!("layer {} goes on at byte {reached}: {error}", layer.digest);
                drop(ingest);
                Timer::after(PULL_RESUME_PAUSE).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        if fits && ingest.commit().await? == Committed::Done {
            return Ok(false);
        }
        content::abort(ctrd, layer.digest).await?;
        // Bytes of an earlier try may have been torn by a power cut: once more from the start.
        if from == 0 {
            return Err(PullError::DamagedLayer { layer: layer.digest });
        }
        log::warn!("layer {} was damaged on disk, fetching it anew", layer.digest);
        reached = 0;
    }
}

/// Streams what is missing of a layer from the registry to containerd. False if more came than
/// the layer has: whatever that is, it is not the layer.
async fn transfer(
    ingest: &mut Ingest,
    registry: &mut Repository<'_>,
    layer: &Descriptor,
    advance: &mut dyn FnMut(u64),
) -> Result<bool, PullError> {
    if ingest.offset() >= layer.size {
        return Ok(ingest.offset() == layer.size);
    }
    let mut blob = registry.blob(layer.digest, ingest.offset()).await?;
    let mut buffer = Vec::with_capacity(PULL_CHUNK);
    loop {
        let part = blob.chunk().await;
        let Ok(Some(mut part)) = part else {
            // What came before the connection broke is good too.
            if !buffer.is_empty() {
                ingest.write(buffer).await?;
                advance(ingest.offset());
            }
            part?;
            break;
        };
        let end = ingest.offset() + (buffer.len() + part.len()) as u64;
        if end > layer.size {
            return Ok(false);
        }
        while !part.is_empty() {
            let taken = part.split_to(part.len().min(PULL_CHUNK - buffer.len()));
            buffer.extend_from_slice(&taken);
            if buffer.len() == PULL_CHUNK {
                ingest.write(buffer).await?;
                advance(ingest.offset());
                // Not before: two chunks at a time would double what a pull takes.
                buffer = Vec::with_capacity(PULL_CHUNK);
            }
        }
    }
    if ingest.offset() < layer.size {
        let why = format!("it ended after {} of {} bytes", ingest.offset(), layer.size);
        return Err(RegistryError::Transfer { host: "the registry".into(), why }.into());
    }
    Ok(true)
}

/// Unpacks a layer over `parent` and compares what came out with the image's word.
async fn unpack(
    ctrd: &Ctrd,
    lease: &Lease,
    layer: &Descriptor,
    parent: Option<Digest>,
    chain: Digest,
    diff_id: Digest,
) -> Result<(), PullError> {
    let key = format!("racimo-unpack-{chain}");
    let parent = parent.map(|parent| parent.to_string()).unwrap_or_default();
    let mounts = prepare(ctrd, lease, &key, &parent).await?;
    let result = apply(ctrd, lease, layer, mounts, diff_id).await;
    let result = match result {
        // containerd does not, so that a pulled plug would leave empty files behind in a layer that looks complete,
        // for ever.
        Ok(()) => match sync(ctrd).await {
            Ok(()) => commit(ctrd, lease, &key, chain).await,
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    if result.is_err() {
        // The first error is the one to tell.
        let _ = remove(ctrd, &key).await;
    }
    result
}

/// Brings what containerd has written to the disk, before its database says that it is there.
pub(super) async fn sync(ctrd: &Ctrd) -> Result<(), PullError> {
    let root = ctrd.root().await?;
    let synced = async {
        let synced = smol::unblock(move || rustix::fs::syncfs(File::open(root)?).map_err(io::Error::from)).await;
        synced.map_err(PullError::unwritten)
    };
    let late = async {
        Timer::after(PULL_LAYER_MAX).await;
        Err(PullError::unwritten(io::ErrorKind::TimedOut.into()))
    };
    synced.or(late).await
}

async fn prepare(ctrd: &Ctrd, lease: &Lease, key: &str, parent: &str) -> Result<Vec<Mount>, PullError> {
    let message = PrepareSnapshotRequest {
        snapshotter: SNAPSHOTTER.into(),
        key: key.into(),
        parent: parent.into(),
        ..Default::default()
    };
    let mut client = SnapshotsClient::new(ctrd.clone());
    let failed = PullError::call("prepare a layer");
    let prepared = within(CTRD_CALL_MAX, client.prepare(request(message.clone(), Some(lease.id())))).await;
    let prepared = match prepared {
        // Left by a try that was cut off in the middle of unpacking.
        Err(status) if status.code() == Code::AlreadyExists => {
            remove(ctrd, key).await?;
            within(CTRD_CALL_MAX, client.prepare(request(message, Some(lease.id())))).await
        }
        prepared => prepared,
    };
    Ok(prepared.map_err(failed)?.into_inner().mounts)
}

async fn apply(
    ctrd: &Ctrd,
    lease: &Lease,
    layer: &Descriptor,
    mounts: Vec<Mount>,
    diff_id: Digest,
) -> Result<(), PullError> {
    let diff = CtrdDescriptor {
        media_type: layer.media_type.clone(),
        digest: layer.digest.to_string(),
        size: layer.size as i64,
        ..Default::default()
    };
    let message = ApplyRequest { diff: Some(diff), mounts, ..Default::default() };
    let mut client = DiffClient::new(ctrd.clone());
    let applied = within(PULL_LAYER_MAX, client.apply(request(message, Some(lease.id())))).await;
    let applied = applied.map_err(PullError::call(UNPACK))?.into_inner().applied;
    let actual = applied.map(|applied| applied.digest).unwrap_or_default();
    if actual == diff_id.to_string() {
        return Ok(());
    }
    Err(PullError::WrongLayer { layer: layer.digest, expected: diff_id, actual })
}

async fn commit(ctrd: &Ctrd, lease: &Lease, key: &str, chain: Digest) -> Result<(), PullError> {
    let message = CommitSnapshotRequest {
        snapshotter: SNAPSHOTTER.into(),
        name: chain.to_string(),
        key: key.into(),
        ..Default::default()
    };
    let mut client = SnapshotsClient::new(ctrd.clone());
    match within(CTRD_CALL_MAX, client.commit(request(message, Some(lease.id())))).await {
        Ok(_) => Ok(()),
        // Somebody else unpacked it meanwhile, `ctr` perhaps.
        Err(status) if status.code() == Code::AlreadyExists => remove(ctrd, key).await,
        Err(status) => Err(PullError::call("keep an unpacked layer")(status)),
    }
}

/// Removes the snapshots `chain`, the lowest first, if nothing stands on them.
pub(super) async fn discard(ctrd: &Ctrd, chain: &[Digest]) -> Result<(), PullError> {
    for chain in chain.iter().rev() {
        remove(ctrd, &chain.to_string()).await?;
    }
    Ok(())
}

/// The lowest of the snapshots `chain` that the database has and the disk does not: looks for the directories of all
/// that are there. `is_stuck`: the database has more of those that are not there than it tells.
async fn gone(ctrd: &Ctrd, lease: &Lease, chain: &[Digest], is_stuck: bool) -> Result<Option<usize>, PullError> {
    const KEY: &str = "racimo-look";
    let mut from = None;
    for (at, snapshot) in chain.iter().enumerate().rev() {
        if !exists(ctrd, *snapshot).await? {
            from = is_stuck.then_some(at);
            continue;
        }
        match prepare(ctrd, lease, KEY, &snapshot.to_string()).await {
            Ok(mounts) => {
                remove(ctrd, KEY).await?;
                let missing = lower(&mounts).map(|place| Path::new(place).try_exists()).collect::<Vec<_>>();
                // The highest comes first.
                let lowest = missing.iter().rposition(|there| matches!(there, Ok(false)));
                return Ok(lowest.map(|above| at.saturating_sub(above)).or(from));
            }
            // Its own directory is looked for at once.
            Err(PullError::Containerd(error)) if error.is_not_there() => from = Some(at),
            Err(error) => return Err(error),
        }
    }
    Ok(from)
}

/// The directories of the layers below what is mounted, the highest first.
fn lower(mounts: &[Mount]) -> impl Iterator<Item = &str> {
    let options = mounts.iter().flat_map(|mount| &mount.options);
    options.filter_map(|option| option.strip_prefix("lowerdir=")).flat_map(|places| places.split(':'))
}

/// The snapshots `chain` from the one numbered `from`, with those of other images that stand on them.
async fn discard_shared(ctrd: &Ctrd, chain: &[Digest], from: usize, platforms: &[Platform]) -> Result<(), PullError> {
    for record in keep::records(ctrd).await? {
        let Ok(digest) = record.digest.parse() else { continue };
        let Ok(Some(other)) = parts::gather(ctrd, digest, "", None, platforms).await else { continue };
        let shared = chain.iter().zip(&other.chain).take_while(|(a, b)| a == b).count();
        if shared > from {
            if let Err(error) = discard(ctrd, &other.chain[shared..]).await {
                // Something runs in it, so it is there.
                log::debug!("{}: {}", record.name, chain_of(&error));
            }
        }
    }
    discard(ctrd, &chain[from..]).await
}

async fn remove(ctrd: &Ctrd, key: &str) -> Result<(), PullError> {
    let message = RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.into(), key: key.into() };
    match within(CTRD_CALL_MAX, SnapshotsClient::new(ctrd.clone()).remove(request(message, None))).await {
        Ok(_) => Ok(()),
        Err(status) if status.code() == Code::NotFound => Ok(()),
        Err(status) => Err(PullError::call("remove an incomplete layer")(status)),
    }
}
