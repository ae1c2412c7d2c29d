//! What a board that boots without its manager goes by: its tasks, their contents, the network.
//!
//! ```text
//! <data>/journal.0, journal.1    the last set and the one before (`slot`)
//! <data>/contents/<id>[-<task>]  contents of secrets and configs, sealed with a key made from the board's own (`seal`)
//! ```
//! A set is written only if it says something else than the last one, into the slot that does not hold that; disk and
//! cipher work is done on another thread. What cannot be written is told as the board's degradation and tried again.

pub mod seal;
pub mod slot;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufReader, Seek, SeekFrom, Write};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use racimo_common::durable;
use racimo_common::id::TaskId;
use racimo_common::wire::{BodyKey, BodyPart, Net, Work, frame};
use smol::future::yield_now;

use self::seal::Sealer;
use self::slot::{Digest, HEADER_BYTES, Header, Sum};
use crate::limits::{BODIES_MAX, HELD_BYTES_MAX, JOURNAL_BYTES_MAX, JOURNAL_CHUNK, JOURNAL_ITEM_BYTES_MAX};
use crate::net::Network;
use crate::net::table::Table;
use crate::runtime::bodies::Bodies;
use crate::weight;

/// Items of a slot.
const NET: u8 = 1;
const TASK: u8 = 2;

/// Tasks with what they run.
pub type Tasks = Vec<(TaskId, Rc<Work>)>;

/// What is on the disk.
#[derive(Debug, Default)]
pub struct Look {
    /// The slot that counts.
    pub last: Option<(usize, Header)>,
    /// What could not be read.
    pub fault: Option<String>,
}

/// The board's journal.
pub struct Journal {
    data: PathBuf,
    /// Whose sets count: another cluster's, or another board's, are of no use.
    owner: Digest,
    /// None: the board has no key of its own, and keeps no contents.
    sealer: Option<Sealer>,
    /// The slot that counts.
    last: Cell<Option<(usize, Header)>>,
    /// Whether contents of before were removed, which nobody can open.
    is_swept: Cell<bool>,
    /// Why the last set could not be kept.
    fault: RefCell<Option<String>>,
}

impl Journal {
    /// What is on the disk; a slot that cannot be read is not valid, and the other one may be. It blocks: for a thread
    /// that may.
    pub fn look(data: &Path, owner: &Digest) -> Look {
        let (mut found, mut fault) = ([None; 2], None);
        for (slot, header) in found.iter_mut().enumerate() {
            let checked = match File::open(path(data, slot)) {
                Ok(file) => slot::check(&mut BufReader::new(file), owner),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            };
            match checked {
                Ok(checked) => *header = checked,
                Err(error) => fault = Some(format!("journal.{slot} cannot be read: {error}")),
            }
        }
        Look { last: slot::newest(&found).and_then(|slot| Some((slot, found[slot]?))), fault }
    }

    /// A journal that goes on from what [`look`](Self::look) found.
    pub fn new(data: &Path, owner: Digest, sealer: Option<Sealer>, found: Look) -> Self {
        let (last, fault) = (Cell::new(found.last), RefCell::new(found.fault));
        Self { data: data.to_owned(), owner, sealer, last, is_swept: Cell::new(false), fault }
    }

    /// Why this board may not start its tasks without its manager.
    pub fn fault(&self) -> Option<String> {
        self.fault.borrow().clone()
    }

    /// The slot that counts.
    pub fn last(&self) -> Option<Header> {
        self.last.get().map(|(_, header)| header)
    }

    /// Keeps this set, if it is not the one that is kept. False: it could not.
    pub async fn save(&self, node: u128, mut tasks: Tasks, network: &Network, bodies: &Bodies) -> bool {
        tasks.retain(|(_, work)| work.files.is_empty() || work.offline.secrets && self.sealer.is_some());
        let kept = async {
            // First, as contents of a set that is too large are of no use.
            let is_news = self.is_news(node, &tasks, network.table()).await?;
            self.save_contents(&tasks, bodies).await?;
            if is_news { self.save_set(node, &tasks, network.table()).await } else { Ok(()) }
        };
        let kept = kept.await;
        // Also if it could not be kept, perhaps for lack of room.
        let fault = kept.and(self.drop_contents(&tasks).await).err().map(|error| {
            format!("this board cannot keep what it is told ({error}): after a power cut without its manager it starts what it kept before")
        });
        if let Some(fault) = fault.as_ref().filter(|fault| self.fault.borrow().as_ref() != Some(fault)) {
            log::warn!("{fault}");
        }
        let is_kept = fault.is_none();
        self.fault.replace(fault);
        is_kept
    }

    /// Whether the set is another one than the one that is kept.
    async fn is_news(&self, node: u128, tasks: &Tasks, table: &Rc<RefCell<Table>>) -> io::Result<bool> {
        let mut sum = Sum::new(&self.owner, node);
        let mut items = Items::new(tasks, table);
        while let Some(item) = items.next() {
            sum.add(&item);
            yield_now().await;
        }
        if sum.length() > JOURNAL_BYTES_MAX {
            return Err(io::Error::other(format!(
                "it takes {} KiB, at most {}",
                sum.length() >> 10,
                JOURNAL_BYTES_MAX >> 10
            )));
        }
        Ok(match self.last.get() {
            Some((_, header)) => header.digest != sum.finish(),
            None => sum.length() != 0,
        })
    }

    async fn save_set(&self, node: u128, tasks: &Tasks, table: &Rc<RefCell<Table>>) -> io::Result<()> {
        let last = self.last.get();
        let slot = last.map_or(0, |(slot, _)| 1 - slot);
        let place = path(&self.data, slot);
        let file = smol::unblock(move || {
            let mut file = durable::File::open(&place)?;
            file.seek(u64::try_from(HEADER_BYTES).unwrap_or_default())?;
            Ok::<_, io::Error>(file)
        });
        let mut file = file.await?;
        // As it is now: the network may have changed meanwhile, and then comes again.
        let (mut sum, mut items) = (Sum::new(&self.owner, node), Items::new(tasks, table));
        let mut chunk = Vec::new();
        loop {
            let item = items.next();
            let is_last = item.is_none();
            chunk.extend(item.unwrap_or_default());
            if is_last || chunk.len() >= JOURNAL_CHUNK {
                sum.add(&chunk);
                let bytes = std::mem::take(&mut chunk);
                let written = smol::unblock(move || file.write_all(&bytes).map(|()| file));
                file = written.await?;
            }
            if is_last {
                break;
            }
        }
        let sequence = last.map_or(1, |(_, header)| header.sequence + 1);
        let header = Header { sequence, length: sum.length(), node, digest: sum.finish() };
        let data = self.data.clone();
        // Without a valid slot the other one may be one that could not be read, and have a larger sequence when it can.
        let doubtful = last.is_none().then(|| path(&self.data, 1 - slot));
        let written = smol::unblock(move || {
            file.write_at(0, &header.encode())?;
            file.sync()?;
            if let Some(doubtful) = doubtful {
                durable::remove(&doubtful)?;
            }
            // Its name may be new, too.
            durable::sync_dir(&data)
        });
        written.await?;
        self.last.set(Some((slot, header)));
        Ok(())
    }

    /// Seals contents that are new.
    async fn save_contents(&self, tasks: &Tasks, bodies: &Bodies) -> io::Result<()> {
        let Some(sealer) = self.sealer.clone() else { return Ok(()) };
        let wanted: BTreeMap<String, PathBuf> = keys(tasks).map(|key| (name(key), bodies.place_of(key))).collect();
        let dir = self.data.join(CONTENTS);
        if wanted.is_empty() {
            return Ok(());
        }
        // What is there without a set of ours was sealed with the key of the node that the board was before. It goes once:
        // as long as no set can be kept, what was sealed since stays.
        let is_ours = self.last.get().is_some() || self.is_swept.get();
        smol::unblock(move || {
            if !is_ours {
                durable::remove_dir(&dir)?;
            }
            durable::make_dir(&dir)?;
            let mut changed = false;
            for (name, from) in wanted {
                let place = dir.join(&name);
                if place.try_exists()? {
                    continue;
                }
                // One that did not come is not kept, and its tasks wait for the manager.
                let Ok(mut from) = File::open(from) else { continue };
                let new = durable::beside(&place);
                let mut to = durable::File::create(&new)?;
                sealer.seal(&name, &mut from, &mut to)?;
                to.sync()?;
                durable::rename(&new, &place)?;
                changed = true;
            }
            if changed { durable::sync_dir(&dir) } else { Ok(()) }
        })
        .await?;
        self.is_swept.set(true);
        Ok(())
    }

    /// Removes contents that no task needs: not before the set that needs them is of no use.
    async fn drop_contents(&self, tasks: &Tasks) -> io::Result<()> {
        let wanted: BTreeSet<String> = keys(tasks).map(name).collect();
        let dir = self.data.join(CONTENTS);
        if !dir.exists() {
            return Ok(());
        }
        smol::unblock(move || {
            let mut changed = false;
            for entry in fs::read_dir(&dir)?.take(2 * BODIES_MAX) {
                let name = entry?.file_name();
                if !name.to_str().is_some_and(|name| wanted.contains(name)) {
                    changed |= durable::remove(&dir.join(name))?;
                }
            }
            if changed { durable::sync_dir(&dir) } else { Ok(()) }
        })
        .await
    }

    /// Reads the set that counts: what it says of the network is taken at once if nothing is known of it, contents are
    /// opened. Returns the tasks that have all they need.
    ///
    /// # Errors
    /// The disk's, or it is damaged.
    pub async fn recall(&self, network: &Network, bodies: &Bodies) -> io::Result<Tasks> {
        let Some((slot, header)) = self.last.get() else { return Ok(Vec::new()) };
        let mut file = BufReader::new(File::open(path(&self.data, slot))?);
        file.seek(SeekFrom::Start(u64::try_from(HEADER_BYTES).unwrap_or_default()))?;
        let is_new = !network.is_known();
        let (mut tasks, mut held, mut left) = (Vec::new(), 0, header.length);
        while let Some((kind, body)) = slot::next(&mut file, &mut left)? {
            match kind {
                NET if is_new => network.take(frame::decode(&body).map_err(io::Error::other)?),
                TASK => {
                    let (task, work): (TaskId, Work) = frame::decode(&body).map_err(io::Error::other)?;
                    held += weight::of(&work);
                    if held <= HELD_BYTES_MAX && self.open_contents(task, &work, bodies).await {
                        tasks.push((task, Rc::new(work)));
                    }
                }
                _ => {}
            }
            yield_now().await;
        }
        if is_new && header.length > 0 {
            network.take(Net { complete: true, last: true, ..Net::default() });
        }
        Ok(tasks)
    }

    /// Whether all contents of a task are here.
    async fn open_contents(&self, task: TaskId, work: &Work, bodies: &Bodies) -> bool {
        for file in work.files.iter().filter(|file| !bodies.has(file.body)) {
            let opened = self.sealer.as_ref().map(|sealer| open(sealer, &self.data, file.body, bodies));
            if let Some(Err(error)) = opened {
                log::warn!("task {task} waits for the manager: the content of {}: {error}", file.target);
                if error.kind() == io::ErrorKind::InvalidData {
                    // It is sealed again when the manager has sent it.
                    let _ = durable::remove(&self.data.join(CONTENTS).join(name(file.body)));
                }
            }
            if !bodies.has(file.body) {
                return false;
            }
            yield_now().await;
        }
        true
    }

    /// Removes everything. Who does it again and again writes once.
    pub fn erase(&self) {
        self.last.set(None);
        let erase = || {
            let mut changed = false;
            for slot in 0..2 {
                changed |= durable::remove(&path(&self.data, slot))?;
            }
            changed |= durable::remove_dir(&self.data.join(CONTENTS))?;
            if changed { durable::sync_dir(&self.data) } else { Ok(()) }
        };
        if let Err(error) = erase() {
            log::warn!("erase the journal: {error}");
        }
    }
}

const CONTENTS: &str = "contents";

/// Contents that the tasks need.
fn keys(tasks: &Tasks) -> impl Iterator<Item = BodyKey> {
    tasks.iter().flat_map(|(_, work)| work.files.iter().map(|file| file.body))
}

fn path(data: &Path, slot: usize) -> PathBuf {
    data.join(format!("journal.{slot}"))
}

/// The file name of a content.
fn name(key: BodyKey) -> String {
    key.task.map_or_else(|| key.id.to_string(), |task| format!("{}-{task}", key.id))
}

fn open(sealer: &Sealer, data: &Path, key: BodyKey, bodies: &Bodies) -> io::Result<()> {
    let name = name(key);
    let mut file = File::open(data.join(CONTENTS).join(&name))?;
    let total = seal::plain_bytes(file.metadata()?.len());
    let (mut offset, mut taken) = (0, Ok(()));
    // It counts once it is whole, and the last part shows that it is.
    sealer.open(&name, &mut file, &mut |bytes| {
        let part = BodyPart { key, total, offset, bytes: bytes.to_vec() };
        taken = std::mem::replace(&mut taken, Ok(())).and_then(|()| bodies.take(&part));
        offset += u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    })?;
    taken.map_err(io::Error::other)
}

/// The items of a set, one at a time.
struct Items<'a> {
    tasks: std::slice::Iter<'a, (TaskId, Rc<Work>)>,
    table: &'a Rc<RefCell<Table>>,
    /// The service that comes next; none: all have come.
    services: Option<Bound<racimo_common::id::ServiceId>>,
    has_begun: bool,
}

impl<'a> Items<'a> {
    fn new(tasks: &'a Tasks, table: &'a Rc<RefCell<Table>>) -> Self {
        // Without tasks nothing is to be known of the network.
        let services = (!tasks.is_empty()).then_some(Bound::Unbounded);
        Self { tasks: tasks.iter(), table, services, has_begun: tasks.is_empty() }
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        let encoded = |net: &Net| frame::encode(net, JOURNAL_ITEM_BYTES_MAX).map(|body| slot::item(NET, &body));
        if !std::mem::replace(&mut self.has_begun, true) {
            let net = self.table.borrow().board();
            return encoded(&Net { complete: true, ..net }).ok().or_else(|| self.next());
        }
        while let Some(after) = self.services.take() {
            let table = self.table.borrow();
            let Some((id, service)) = table.services.range((after, Bound::Unbounded)).next() else { break };
            self.services = Some(Bound::Excluded(*id));
            let mut service = service.clone();
            // What the manager was not sure of is a guess here as well.
            service.endpoints.iter_mut().for_each(|endpoint| endpoint.unsure = false);
            if let Ok(item) = encoded(&Net { complete: true, services: vec![service], ..Net::default() }) {
                return Some(item);
            }
        }
        for (task, work) in self.tasks.by_ref() {
            // Who can read the disk shall not find how to log in anywhere; what runs here is here already.
            let bare = work.credentials.is_some().then(|| Work { credentials: None, ..Work::clone(work) });
            if let Ok(body) = frame::encode(&(task, bare.as_ref().unwrap_or(work)), JOURNAL_ITEM_BYTES_MAX) {
                return Some(slot::item(TASK, &body));
            }
        }
        None
    }
}

#[cfg(test)]
pub(crate) mod tests;
