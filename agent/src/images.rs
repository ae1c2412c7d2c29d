//! Which images may go from this board, and what is kept with each to decide that.
//!
//! In: containerd's image records, what is wanted, how full the disk is. Out: [`Unused`] images in the order in which
//! they go, and the labels that remember their age. Keeps nothing: what is to be remembered is in the records' labels.
//!
//! ```text
//! used ─ nobody needs it ─▶ unused 0 h ─ each look ─▶ + 6 h ─ as old as configured, or the disk is full ─▶ removed
//!   ▲                            │
//!   └───── a task uses it ───────┘
//! ```
//!
//! Used are images of tasks that the manager has assigned, of containers that are there, and, of each service that has
//! such a task, the two that it used last: a rollback needs no pull. Ages are counted in hours during which the agent
//! ran: no clock that starts in 1970, or jumps by decades, makes an image older. Images that the agent did not pull
//! are nobody's business.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use racimo_common::registry::Reference;
use racimo_common::wire::Work;

use crate::limits::IMAGES_PER_SERVICE;

/// Tells images that we pulled from those that people imported.
pub const PULLED: &str = "io.racimo.pulled";
/// Hours for which nobody has needed it; not there: somebody does.
pub const UNUSED: &str = "io.racimo.unused-hours";
/// Followed by a service's id: a number that is the higher the later the service used it.
pub const TURN: &str = "io.racimo.turn.";

/// When images are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Hours for which nobody needed one; none: only a full disk removes images.
    pub keep_hours: Option<u32>,
    /// Percent of the disk in use from which on unused images go, whatever their age.
    pub high: u8,
    /// Percent at which that ends.
    pub low: u8,
}

/// Why images are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// It is time; so many hours of the images' age have passed.
    Time {
        /// Mostly 0.
        hours: u32,
    },
    /// Something found no room.
    NoRoom,
}

impl Settings {
    /// Whether images go whatever their age, until [`Settings::low`].
    pub fn is_full(&self, room: Room) -> bool {
        room.percent() >= self.high
    }

    /// Why an image that nobody has needed for `hours` goes now; none: it stays. `was_full`: when the look began.
    pub fn reason(&self, hours: u32, look: Look, was_full: bool, now: Room) -> Option<String> {
        if self.keep_hours.is_some_and(|keep| hours >= keep) {
            return Some(format!("nobody has needed it for {hours} h"));
        }
        match look {
            Look::NoRoom => Some("there is no room for another".to_owned()),
            Look::Time { .. } if was_full && now.percent() > self.low => {
                Some(format!("the disk is {} % full", now.percent()))
            }
            Look::Time { .. } => None,
        }
    }
}

/// An image record of containerd's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// As in `docker.io/library/nginx:1`.
    pub name: String,
    /// What it points at, in containerd's words.
    pub digest: String,
    /// Its labels.
    pub labels: HashMap<String, String>,
}

impl Record {
    fn is_ours(&self) -> bool {
        self.labels.contains_key(PULLED)
    }

    fn hours(&self) -> Option<u32> {
        self.labels.get(UNUSED)?.parse().ok()
    }

    fn turns(&self) -> impl Iterator<Item = (&str, u64)> {
        self.labels.iter().filter_map(|(key, value)| Some((key.strip_prefix(TURN)?, value.parse().ok()?)))
    }
}

/// What must stay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Images by name, as in a record; those by digest too, as a pull of them is named.
    pub names: BTreeSet<String>,
    /// Images by digest.
    pub digests: BTreeSet<String>,
    /// Services with a task on this board, by id.
    pub services: BTreeSet<String>,
}

impl Wanted {
    /// What these tasks need, begun or not.
    pub fn of<'a>(works: impl Iterator<Item = &'a Work>) -> Self {
        let mut wanted = Self::default();
        for work in works {
            wanted.services.insert(work.service.to_string());
            // One that is none is told when the task is prepared.
            let Ok(image) = work.container.image.parse::<Reference>() else { continue };
            wanted.names.insert(image.to_string());
            wanted.digests.extend(image.digest().map(|digest| digest.to_string()));
        }
        wanted
    }

    /// Whether an image of this digest and these names must stay, as far as tasks name it.
    pub fn names_one(&self, digest: &str, names: &[String]) -> bool {
        self.digests.contains(digest) || names.iter().any(|name| self.names.contains(name))
    }
}

/// An image that nobody needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unused {
    /// Its digest.
    pub digest: String,
    /// Its records that are ours.
    pub names: Vec<String>,
    /// Hours for which it was seen unused.
    pub hours: u32,
}

/// The images that nobody needs, in the order in which they go: unused longest first, then those used longest ago.
pub fn unused(records: &[Record], wanted: &Wanted) -> Vec<Unused> {
    let mut images: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
    for record in records {
        images.entry(&record.digest).or_default().push(record);
    }
    let recent = recent(records, &wanted.services);
    let mut unused = Vec::new();
    for (digest, records) in images {
        let is_needed = records.iter().any(|record| wanted.names.contains(&record.name));
        let ours: Vec<&&Record> = records.iter().filter(|record| record.is_ours()).collect();
        if is_needed || wanted.digests.contains(digest) || recent.contains(digest) || ours.is_empty() {
            continue;
        }
        // One of its names may have been used since the last look.
        let hours = ours.iter().map(|record| record.hours().unwrap_or_default()).min().unwrap_or_default();
        let turn = ours.iter().flat_map(|record| record.turns()).map(|(_, turn)| turn).max();
        let names = ours.iter().map(|record| record.name.clone()).collect();
        unused.push((std::cmp::Reverse(hours), turn, Unused { digest: digest.to_owned(), names, hours }));
    }
    unused.sort_by(|a, b| (a.0, a.1, &a.2.digest).cmp(&(b.0, b.1, &b.2.digest)));
    unused.into_iter().map(|(.., image)| image).collect()
}

/// The digests that each of the services used last.
fn recent<'a>(records: &'a [Record], services: &BTreeSet<String>) -> BTreeSet<&'a str> {
    let mut turns: BTreeMap<&str, BTreeMap<u64, &str>> = BTreeMap::new();
    for record in records {
        for (service, turn) in record.turns().filter(|(service, _)| services.contains(*service)) {
            turns.entry(service).or_default().insert(turn, &record.digest);
        }
    }
    let mut recent = BTreeSet::new();
    for turns in turns.values() {
        let mut last = BTreeSet::new();
        for digest in turns.values().rev() {
            // An image may have several names.
            if last.len() < IMAGES_PER_SERVICE {
                last.insert(*digest);
            }
        }
        recent.extend(last);
    }
    recent
}

/// The labels after a look `hours` after the last one; none: they are so already. One that was just seen unused for
/// the first time begins at zero. Turns of services that are not here are forgotten.
pub fn aged(
    record: &Record,
    is_unused: bool,
    services: &BTreeSet<String>,
    hours: u32,
) -> Option<HashMap<String, String>> {
    if !record.is_ours() {
        return None;
    }
    let mut labels = record.labels.clone();
    labels.retain(|key, _| key.strip_prefix(TURN).is_none_or(|service| services.contains(service)));
    if is_unused {
        let now = record.hours().map_or(0, |before| before.saturating_add(hours));
        labels.insert(UNUSED.to_owned(), now.to_string());
    } else {
        labels.remove(UNUSED);
    }
    (labels != record.labels).then_some(labels)
}

/// The labels of the image `name` now that `service` uses it; none: they are so already, or it is not ours.
pub fn used(records: &[Record], name: &str, service: &str) -> Option<HashMap<String, String>> {
    let record = records.iter().find(|record| record.name == name).filter(|record| record.is_ours())?;
    let turn = |record: &Record| record.turns().find(|(of, _)| *of == service).map(|(_, turn)| turn);
    let last = records.iter().filter_map(turn).max();
    let mut labels = record.labels.clone();
    labels.remove(UNUSED);
    if last.is_none() || turn(record) != last {
        labels.insert(format!("{TURN}{service}"), last.map_or(1, |last| last.saturating_add(1)).to_string());
    }
    (labels != record.labels).then_some(labels)
}

/// How full a file system is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Room {
    /// Bytes that a program without privileges could use, if there was nothing.
    pub size: u64,
    /// Bytes of them that are free.
    pub free: u64,
    /// Files that can still be made; none: the file system does not count them.
    pub files: Option<u64>,
}

impl Room {
    /// Percent in use, as `df` rounds it.
    pub fn percent(&self) -> u8 {
        let used = u128::from(self.size.saturating_sub(self.free)) * 100;
        used.div_ceil(u128::from(self.size.max(1))).try_into().unwrap_or(100)
    }

    /// Whether there is room now that there was not `before`.
    pub fn is_more_than(&self, before: Room) -> bool {
        self.free > before.free || self.files > before.files
    }
}

#[cfg(test)]
mod tests;
