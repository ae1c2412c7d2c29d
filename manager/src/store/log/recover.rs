//! Reading a log back after whatever happened, and refusing what cannot have happened.
//!
//! In: a [`Wal`] that knows only its disk. Out: what was durable, and the [`Wal`] ready to go
//! on. All checks come before the first change.

use prost_raft::Message as _;
use raft::eraftpb::{Entry, HardState, Snapshot};

use super::disk::{Disk, File};
use super::error::OpenError;
use super::fault::Fault;
use super::record::{Found, HEADER, Header, Kind, Scan, scan, u32_at, u64_at};
use super::wal::{
    Current, SNAPSHOT, SNAPSHOT_HEAD, SNAPSHOT_MAGIC, SNAPSHOT_NEW, Slot, Used, Wal, segment_name, snapshot_crc,
};
use crate::limits;

/// What a log held.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// Raft id and snapshot; `None` for a disk that never held a log.
    pub snapshot: Option<(u64, Snapshot)>,
    /// Term, vote and a lower bound of the commit index.
    pub hard_state: HardState,
    /// Entries after the snapshot, without gaps.
    pub entries: Vec<Entry>,
}

/// A segment in use, as read.
struct Segment {
    number: u64,
    header: Header,
    bytes: Vec<u8>,
    scan: Scan,
    index_max: u64,
}

pub(super) fn recover<D: Disk>(wal: &mut Wal<D>) -> Result<Recovered, OpenError> {
    let names = wal.disk.list().map_err(io(wal, "."))?;
    let mut recovered = Recovered::default();
    if names.iter().any(|name| name == SNAPSHOT) {
        recovered.snapshot = Some(read_snapshot(wal)?);
    }
    let index = recovered.index();

    let (mut segments, unfinished) = read_segments(wal, &names)?;
    let strays = split_strays(wal, &mut segments, index)?;
    let unused = split_unused(wal, &mut segments)?;
    if recovered.snapshot.is_none() && !segments.is_empty() {
        let what = "it is missing, while segments of its log are there";
        return Err(damaged(wal, SNAPSHOT, 0, what));
    }
    // The first snapshot is made before the first segment, all others after.
    if segments.is_empty() && index > 1 {
        let what = "it is whole, but the segments that go with it are missing";
        return Err(damaged(wal, SNAPSHOT, 0, what));
    }
    for segment in &mut segments {
        read_records(wal, segment, &mut recovered)?;
    }
    // From here on the log is good.

    wal.next_index = index + 1;
    if let Some(entry) = recovered.entries.last() {
        wal.next_index = entry.index + 1;
    }
    for number in strays.into_iter().chain(unused) {
        wal.clear(number)?;
    }
    for name in unfinished {
        let removed = wal.disk.remove(&name);
        removed.map_err(io(wal, &name))?;
    }
    // A name may be visible and yet not durable, if the process that made it died at that.
    wal.sync_dir()?;
    rewrite_tail(wal, &segments)?;
    for segment in segments {
        if let Some(slot) = wal.slots.get_mut(&segment.number) {
            let id = segment.header.id;
            let index_max = segment.index_max;
            slot.used = Some(Used { id, index_max });
        }
        wal.next_id = segment.header.id + 1;
        wal.current = Some(Current {
            slot: segment.number,
            header: segment.header,
            offset: segment.scan.end,
            crc: segment.scan.crc,
        });
    }
    Ok(recovered)
}

impl Recovered {
    /// Index of the snapshot; 0 without one.
    fn index(&self) -> u64 {
        let metadata = self.snapshot.as_ref().and_then(|(_, s)| s.metadata.as_ref());
        metadata.map_or(0, |metadata| metadata.index)
    }
}

fn read_snapshot<D: Disk>(wal: &Wal<D>) -> Result<(u64, Snapshot), OpenError> {
    let file = wal.disk.open(SNAPSHOT).map_err(io(wal, SNAPSHOT))?;
    let size = file.size().map_err(io(wal, SNAPSHOT))?;
    let wrong = |offset: usize, what| damaged(wal, SNAPSHOT, offset, what);
    if size > limits::LOG_SNAPSHOT_BYTES_MAX + SNAPSHOT_HEAD as u64 {
        return Err(wrong(0, "it is larger than a snapshot can be"));
    }
    let mut bytes = vec![0; usize::try_from(size).expect("bounded above")];
    file.read_at(0, &mut bytes).map_err(io(wal, SNAPSHOT))?;
    if bytes.len() < SNAPSHOT_HEAD {
        return Err(wrong(bytes.len(), "it ends too early"));
    }
    let (head, body) = bytes.split_at(SNAPSHOT_HEAD);
    if head[..4] != SNAPSHOT_MAGIC {
        return Err(wrong(0, "this is not a snapshot of a version known here"));
    }
    if u64_at(head, 12) != body.len() as u64 {
        return Err(wrong(12, "its length is not what it says"));
    }
    if u32_at(head, 20) != snapshot_crc(&head[..20], body) {
        return Err(wrong(20, "its checksum does not match"));
    }
    let snapshot = Snapshot::decode(body).map_err(|_| wrong(SNAPSHOT_HEAD, "not a snapshot"))?;
    if snapshot.metadata.as_ref().is_none_or(|meta| meta.conf_state.is_none()) {
        return Err(wrong(SNAPSHOT_HEAD, "it does not name its group"));
    }
    Ok((u64_at(head, 4), snapshot))
}

/// Segments in use by rising id, and names of files whose making was interrupted. Fills the
/// slots, all of them free for now.
fn read_segments<D: Disk>(wal: &mut Wal<D>, names: &[String]) -> Result<(Vec<Segment>, Vec<String>), OpenError> {
    let mut segments = Vec::new();
    let mut unfinished = Vec::new();
    for name in names {
        if name == SNAPSHOT_NEW {
            unfinished.push(name.clone());
        }
        let number = name.strip_prefix("segment.").and_then(|n| n.parse().ok());
        let Some(number) = number.filter(|number| segment_name(*number) == *name) else {
            continue;
        };
        let file = wal.disk.open(name).map_err(io(wal, name))?;
        let size = file.size().map_err(io(wal, name))?;
        let mut head = [0; HEADER];
        if size >= HEADER as u64 {
            file.read_at(0, &mut head).map_err(io(wal, name))?;
        }
        let size = usize::try_from(size)
            .ok()
            .filter(|size| *size as u64 <= limits::LOG_SNAPSHOT_BYTES_MAX)
            .ok_or_else(|| damaged(wal, name, 0, "it is larger than a segment can be"))?;
        match Header::decode(&head) {
            Found::Free if size != wal.sizes.segment => {
                unfinished.push(name.clone());
                continue;
            }
            Found::Free => {}
            Found::Damaged => {
                let what = "its header is neither empty nor valid";
                return Err(damaged(wal, name, 0, what));
            }
            Found::Header(header) => {
                let mut bytes = vec![0; size];
                file.read_at(0, &mut bytes).map_err(io(wal, name))?;
                let scan = scan(&bytes, &header, wal.rules)
                    .map_err(|offset| damaged(wal, name, offset, "a record that was durable is not valid"))?;
                segments.push(Segment { number, header, bytes, scan, index_max: 0 });
            }
        }
        let used = None;
        wal.slots.insert(number, Slot { file, size, used });
    }
    segments.sort_by_key(|segment| segment.header.id);
    Ok((segments, unfinished))
}

/// Keeps the last run of segments without a gap in their ids; the rest must be covered by the
/// snapshot at `index`: they were retired, but their cleared headers had not become durable.
fn split_strays<D: Disk>(wal: &Wal<D>, segments: &mut Vec<Segment>, index: u64) -> Result<Vec<u64>, OpenError> {
    let mut start = segments.len().saturating_sub(1);
    while start > 0 && segments[start - 1].header.id + 1 == segments[start].header.id {
        start -= 1;
    }
    let strays = segments.drain(..start).map(|segment| segment.number);
    let strays = strays.collect();
    if let Some(first) = segments.first() {
        let name = segment_name(first.number);
        if first.header.next_index > index + 1 {
            let what = "the segment before it, or the snapshot, is missing or too old";
            return Err(damaged(wal, &name, 0, what));
        }
        let has_state = segments.iter().any(|segment| segment.has_state());
        if first.header.id > 1 && !has_state {
            let what = "term and vote are missing";
            return Err(damaged(wal, &name, HEADER, what));
        }
    }
    Ok(strays)
}

impl Segment {
    fn has_state(&self) -> bool {
        let mut kinds = self.scan.records.iter().map(|(kind, _)| *kind);
        kinds.any(|kind| kind == Kind::HardState)
    }
}

/// Checks that all segments but the last are sealed. Takes off a last one that was prepared
/// while its predecessor had not been sealed yet.
fn split_unused<D: Disk>(wal: &Wal<D>, segments: &mut Vec<Segment>) -> Result<Option<u64>, OpenError> {
    let mut unused = None;
    if let [.., before, last] = segments.as_slice()
        && !before.scan.sealed
        && last.scan.end == HEADER
    {
        unused = Some(last.number);
        segments.pop();
    }
    for (position, segment) in segments.iter().enumerate() {
        let is_last = position + 1 == segments.len();
        if segment.scan.sealed == is_last {
            let what = if is_last {
                "the segment after it is missing"
            } else {
                "the end record is missing, while later segments are there"
            };
            let name = segment_name(segment.number);
            return Err(damaged(wal, &name, segment.scan.end, what));
        }
    }
    Ok(unused)
}

/// Decodes one segment's records and adds them to `into`.
fn read_records<D: Disk>(wal: &Wal<D>, segment: &mut Segment, into: &mut Recovered) -> Result<(), OpenError> {
    let index = into.index();
    for (kind, place) in &segment.scan.records {
        let payload = &segment.bytes[place.clone()];
        let wrong = |what| damaged(wal, &segment_name(segment.number), place.start, what);
        if *kind == Kind::HardState {
            let state = HardState::decode(payload).map_err(|_| wrong("not a term and vote"))?;
            if state.term < into.hard_state.term {
                return Err(wrong("the term goes back"));
            }
            into.hard_state = state;
            continue;
        }
        let entry = Entry::decode(payload).map_err(|_| wrong("not an entry"))?;
        if entry.term > into.hard_state.term {
            return Err(wrong("an entry of a term that was never voted for"));
        }
        segment.index_max = segment.index_max.max(entry.index);
        if entry.index <= index {
            continue;
        }
        // A later entry of the same index replaces it and all behind it (a new leader's).
        let kept = usize::try_from(entry.index - index - 1).unwrap_or(usize::MAX);
        if kept > into.entries.len() {
            return Err(wrong("entries before this one are missing"));
        }
        into.entries.truncate(kept);
        if into.entries.last().is_some_and(|last| last.term > entry.term) {
            return Err(wrong("the entries' term goes back"));
        }
        into.entries.push(entry);
    }
    Ok(())
}

/// Writes the last batch again. If the last process died at a failed sync, it may be in the
/// cache alone, and the kernel no longer knows that it has to write it.
fn rewrite_tail<D: Disk>(wal: &mut Wal<D>, segments: &[Segment]) -> Result<(), OpenError> {
    let last = segments.iter().rfind(|segment| segment.scan.end > HEADER);
    if let Some(segment) = last
        && !wal.rules.broken(Fault::TailNotRewritten)
    {
        let (start, end) = (segment.scan.last_batch, segment.scan.end);
        wal.rewrite(segment.number, start, &segment.bytes[start..end])?;
    }
    Ok(())
}

fn damaged<D: Disk>(wal: &Wal<D>, name: &str, offset: usize, what: &'static str) -> OpenError {
    OpenError::Damaged { file: wal.disk.locate(name), offset: offset as u64, what }
}

fn io<D: Disk>(wal: &Wal<D>, name: &str) -> impl FnOnce(std::io::Error) -> OpenError + use<D> {
    let file = wal.disk.locate(name);
    move |source| OpenError::Io { file, source }
}
