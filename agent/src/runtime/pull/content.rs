//! containerd's content store: blobs by digest.

use std::collections::HashMap;

use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::{
    AbortRequest, Info, InfoRequest, ReadContentRequest, UpdateRequest, WriteAction, WriteContentRequest,
    WriteContentResponse,
};
use prost_types::FieldMask;
use racimo_common::registry::limits::DOCUMENT_BYTES_MAX;
use racimo_common::registry::media::Descriptor;
use racimo_common::registry::{Digest, Hasher};
use smol::Timer;
use tonic::{Code, Status, Streaming};

use super::error::PullError;
use super::lease::{self, Lease};
use crate::limits::{CTRD_CALL_MAX, PULL_CHUNK, PULL_LAYER_MAX, PULL_UNLOCK_MAX};
use crate::runtime::ctrd::{Ctrd, Kind, request, within};

const UNLOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(200);

/// A document of at most [`DOCUMENT_BYTES_MAX`] bytes; none if it is not there (or larger: then
/// it is none that we would use), or damaged, as by a power cut: [`write_all`] replaces it.
pub(super) async fn read(ctrd: &Ctrd, digest: Digest) -> Result<Option<Vec<u8>>, PullError> {
    let size = match info(ctrd, digest).await? {
        Some(info) if usize::try_from(info.size).is_ok_and(|size| size <= DOCUMENT_BYTES_MAX) => info.size,
        Some(_) | None => return Ok(None),
    };
    let mut bytes = Vec::new();
    let is_whole = check(ctrd, digest, size, |part| bytes.extend_from_slice(part)).await?;
    Ok(is_whole.then_some(bytes))
}

/// Whether a blob's bytes are on the disk, and those of its digest. Reads them all, a part at a time.
pub(super) async fn is_whole(ctrd: &Ctrd, digest: Digest) -> Result<bool, PullError> {
    check(ctrd, digest, 0, |_| {}).await
}

/// The same; hands the bytes on. `size` 0: all.
async fn check(ctrd: &Ctrd, digest: Digest, size: i64, mut take: impl FnMut(&[u8])) -> Result<bool, PullError> {
    let mut hasher = Hasher::new();
    let read = async {
        let message = ReadContentRequest { digest: digest.to_string(), offset: 0, size };
        let mut client = ContentClient::new(ctrd.clone());
        let mut stream = within(CTRD_CALL_MAX, client.read(request(message, None))).await?.into_inner();
        while let Some(part) = within(CTRD_CALL_MAX, stream.message()).await? {
            hasher.update(&part.data);
            take(&part.data);
        }
        Ok(())
    };
    match read.await {
        Ok(()) => Ok(hasher.finish() == digest),
        // containerd's database has it, the disk does not.
        Err(status) if Status::code(&status) == Code::NotFound || is_unreadable(&status) => Ok(false),
        Err(status) => Err(PullError::call("read what is here of an image")(status)),
    }
}

/// The card gives the bytes back no more. containerd hands the file system's error on as text only.
fn is_unreadable(status: &Status) -> bool {
    status.message().contains("input/output error")
}

/// Drops a damaged blob, for good: one that is only unnamed would be taken up again instead of fetched. What it held
/// goes too, unless a lease holds it.
pub(super) async fn discard(ctrd: &Ctrd, digest: Digest) -> Result<(), PullError> {
    log::warn!("{digest} is damaged on this board's disk, as by a power cut: it is dropped");
    match ctrd.delete(Kind::Content, digest.to_string(), false).await {
        Err(status) if status.code() != Code::NotFound => Err(PullError::call("drop a damaged blob")(status)),
        Ok(()) | Err(_) => lease::collect(ctrd).await,
    }
}

/// What containerd knows about a blob; none if it is not there.
pub(super) async fn info(ctrd: &Ctrd, digest: Digest) -> Result<Option<Info>, PullError> {
    let message = InfoRequest { digest: digest.to_string() };
    match within(CTRD_CALL_MAX, ContentClient::new(ctrd.clone()).info(request(message, None))).await {
        Ok(answer) => Ok(answer.into_inner().info),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(PullError::call("look for an image document")(status)),
    }
}

/// Sets labels of a blob beside those that it has.
pub(super) async fn label(
    ctrd: &Ctrd,
    lease: &Lease,
    digest: Digest,
    labels: HashMap<String, String>,
) -> Result<(), PullError> {
    let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
    let info = Info { digest: digest.to_string(), labels, ..Default::default() };
    let message = UpdateRequest { info: Some(info), update_mask: Some(FieldMask { paths }) };
    let mut client = ContentClient::new(ctrd.clone());
    let updated = within(CTRD_CALL_MAX, client.update(request(message, Some(lease.id())))).await;
    updated.map(drop).map_err(PullError::call("label an image document"))
}

/// Writes a document whose digest has been checked. What is there already stays, unless it is damaged.
pub(super) async fn write_all(
    ctrd: &Ctrd,
    lease: &Lease,
    descriptor: &Descriptor,
    bytes: &[u8],
) -> Result<(), PullError> {
    let mut opened = Ingest::open(ctrd, lease, descriptor).await?;
    if opened.is_none() && read(ctrd, descriptor.digest).await?.is_none() {
        discard(ctrd, descriptor.digest).await?;
        opened = Ingest::open(ctrd, lease, descriptor).await?;
    }
    let Some(mut ingest) = opened else { return Ok(()) };
    if ingest.offset() > 0 {
        // All of it, unseen: another namespace's copy, which containerd shares by a commit alone and which
        // cannot be aborted. Bytes of an earlier try are not worth trusting: a document is cheap.
        if ingest.offset() == bytes.len() as u64 && ingest.commit().await? == Committed::Done {
            return Ok(());
        }
        abort(ctrd, descriptor.digest).await?;
        match Ingest::open(ctrd, lease, descriptor).await? {
            Some(again) => ingest = again,
            None => return Ok(()),
        }
    }
    for chunk in bytes.chunks(PULL_CHUNK) {
        ingest.write(chunk.to_vec()).await?;
    }
    match ingest.commit().await? {
        Committed::Done => Ok(()),
        Committed::Damaged => Err(PullError::DamagedLayer { layer: descriptor.digest }),
    }
}

/// Gives up what has been written of a blob.
pub(super) async fn abort(ctrd: &Ctrd, digest: Digest) -> Result<(), PullError> {
    let started = std::time::Instant::now();
    loop {
        let message = AbortRequest { r#ref: reference(digest) };
        match within(CTRD_CALL_MAX, ContentClient::new(ctrd.clone()).abort(request(message, None))).await {
            Ok(_) => return Ok(()),
            Err(status) if status.code() == Code::NotFound => return Ok(()),
            Err(status) if is_locked(&status) && started.elapsed() < PULL_UNLOCK_MAX => {
                Timer::after(UNLOCK_PAUSE).await;
            }
            Err(status) => return Err(PullError::call("drop a damaged layer")(status)),
        }
    }
}

fn reference(digest: Digest) -> String {
    format!("racimo-{digest}")
}

/// The last writer's stream has ended, but containerd has not noticed yet.
fn is_locked(status: &Status) -> bool {
    status.code() == Code::Unavailable && status.message().contains("locked")
}

/// How a commit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Committed {
    /// The blob is there.
    Done,
    /// Size or digest do not match.
    Damaged,
}

/// A blob that is being written. Dropping it keeps what is written, for [`Ingest::open`] to go on.
pub(super) struct Ingest {
    requests: async_channel::Sender<WriteContentRequest>,
    replies: Streaming<WriteContentResponse>,
    /// What every message repeats.
    base: WriteContentRequest,
    offset: u64,
}

impl Ingest {
    /// Opens the blob for writing where the last try ended. None if it is complete already; the
    /// lease holds it then.
    pub(super) async fn open(ctrd: &Ctrd, lease: &Lease, blob: &Descriptor) -> Result<Option<Self>, PullError> {
        let started = std::time::Instant::now();
        loop {
            match Self::try_open(ctrd, lease, blob).await {
                Ok(ingest) => return Ok(Some(ingest)),
                Err(status) if status.code() == Code::AlreadyExists => return Ok(None),
                Err(status) if is_locked(&status) && started.elapsed() < PULL_UNLOCK_MAX => {
                    Timer::after(UNLOCK_PAUSE).await;
                }
                Err(status) => return Err(PullError::call("open a layer for writing")(status)),
            }
        }
    }

    async fn try_open(ctrd: &Ctrd, lease: &Lease, blob: &Descriptor) -> Result<Self, Status> {
        let total = i64::try_from(blob.size).map_err(|_| Status::out_of_range("a layer of that size"))?;
        let base = WriteContentRequest {
            r#ref: reference(blob.digest),
            total,
            expected: blob.digest.to_string(),
            ..Default::default()
        };
        let (requests, queue) = async_channel::bounded(1);
        // containerd answers nothing, not even headers, before the first message.
        let stat = WriteContentRequest { action: WriteAction::Stat.into(), ..base.clone() };
        requests.try_send(stat).expect("a new channel has room for one");
        let mut client = ContentClient::new(ctrd.clone());
        let answer = within(CTRD_CALL_MAX, client.write(request(queue, Some(lease.id())))).await?;
        let mut ingest = Self { requests, replies: answer.into_inner(), base, offset: 0 };
        let status = within(CTRD_CALL_MAX, ingest.reply()).await?;
        ingest.offset = u64::try_from(status.offset).map_err(|_| Status::data_loss("a negative offset"))?;
        Ok(ingest)
    }

    /// Bytes written so far, by this and earlier tries.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Appends `data` and waits until containerd has it.
    pub(super) async fn write(&mut self, data: Vec<u8>) -> Result<(), PullError> {
        let failed = PullError::call("write a layer");
        let end = self.offset + data.len() as u64;
        let message = WriteContentRequest {
            action: WriteAction::Write.into(),
            r#ref: self.base.r#ref.clone(),
            offset: self.offset as i64,
            data,
            ..Default::default()
        };
        let reply = within(CTRD_CALL_MAX, self.exchange(message)).await.map_err(&failed)?;
        if reply.offset != end as i64 {
            return Err(failed(Status::data_loss(format!("it is at {} instead of {end}", reply.offset))));
        }
        self.offset = end;
        Ok(())
    }

    /// Closes the blob; containerd compares size and digest.
    pub(super) async fn commit(mut self) -> Result<Committed, PullError> {
        let message =
            WriteContentRequest { action: WriteAction::Commit.into(), offset: self.offset as i64, ..self.base.clone() };
        match within(PULL_LAYER_MAX, self.exchange(message)).await {
            Ok(_) => Ok(Committed::Done),
            Err(status) if status.code() == Code::AlreadyExists => Ok(Committed::Done),
            Err(status) if status.code() == Code::FailedPrecondition => Ok(Committed::Damaged),
            Err(status) => Err(PullError::call("store a layer")(status)),
        }
    }

    async fn exchange(&mut self, message: WriteContentRequest) -> Result<WriteContentResponse, Status> {
        // If the stream has ended, the reply says why.
        let _ = self.requests.send(message).await;
        self.reply().await
    }

    async fn reply(&mut self) -> Result<WriteContentResponse, Status> {
        let reply = self.replies.message().await?;
        reply.ok_or_else(|| Status::unavailable("containerd ended the stream"))
    }
}
