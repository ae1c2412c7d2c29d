//! Images that nobody needs: removed by age, and when the disk is full. What is decided is [`crate::images`]'s.

use std::cell::{Cell, RefCell};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use racimo_common::error::chain;
use racimo_common::units::Bytes;
use racimo_common::wire::Work;
use smol::Timer;
use smol::lock::Mutex;

use super::operations::Tools;
use crate::images::{self, Look, Room, Settings, Unused, Wanted};
use crate::limits::{IMAGES_AGE_HOURS, IMAGES_EVERY};
use crate::runtime::ctrd::Ctrd;
use crate::runtime::pull::{self, PullError, keep};

/// The last part of the directory in which containerd keeps what it unpacks.
const SNAPSHOTTER_DIR: &str = "io.containerd.snapshotter.v1.overlayfs";

/// What is known of the images on this board.
pub(super) struct Images {
    settings: Settings,
    /// What the tasks need. None before the manager's first set: then nobody knows what is not needed.
    wanted: RefCell<Option<Wanted>>,
    /// Held while an image is removed.
    removal: Mutex<()>,
    /// One look at a time.
    turn: Mutex<()>,
    /// Held while labels are read and written: they are written whole.
    labels: Mutex<()>,
    /// That something was pulled.
    pulls: (Sender<()>, Receiver<()>),
    /// Whether it was told that the disk is full for other reasons.
    is_told: Cell<bool>,
}

impl Images {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            wanted: RefCell::default(),
            removal: Mutex::default(),
            turn: Mutex::default(),
            labels: Mutex::default(),
            pulls: async_channel::bounded(1),
            is_told: Cell::default(),
        }
    }

    /// The tasks need these, from now on.
    pub(super) fn want(&self, wanted: Wanted) {
        *self.wanted.borrow_mut() = Some(wanted);
    }

    /// Something was pulled: the disk may be fuller than it shall be.
    pub(super) fn has_pulled(&self) {
        // If there is one already, somebody will look soon.
        let _ = self.pulls.0.try_send(());
    }

    async fn pulled(&self) {
        // This has both ends, so it does not close.
        let _ = self.pulls.1.recv().await;
    }

    /// Waits until no image is being removed. One that is wanted before is not removed any more.
    pub(super) async fn settled(&self) {
        drop(self.removal.lock().await);
    }

    fn wants(&self, image: &Unused) -> bool {
        self.wanted.borrow().as_ref().is_none_or(|wanted| wanted.names_one(&image.digest, &image.names))
    }
}

impl Tools {
    /// Looks at the images for ever. Its timers know nothing of the time of day.
    pub(super) async fn tend_images(self: Rc<Self>) {
        let every = Duration::from_secs(u64::from(IMAGES_AGE_HOURS) * 3600);
        let start = Instant::now();
        let (mut next, mut next_aging) = (start + IMAGES_EVERY, start + every);
        loop {
            let due = async {
                Timer::at(next).await;
            };
            smol::future::or(due, self.images.pulled()).await;
            let now = Instant::now();
            next = now + IMAGES_EVERY;
            let hours = if now >= next_aging { IMAGES_AGE_HOURS } else { 0 };
            if hours > 0 {
                next_aging = now + every;
            }
            if let Err(error) = self.tidy_images(Look::Time { hours }, None).await {
                log::warn!("look for unused images: {}", chain(&error));
            }
        }
    }

    /// Removes every image that nobody needs, as something found no room: at `at`, if that is a file of the board's own.
    /// True if there is more of it now.
    pub(super) async fn make_room(&self, at: Option<&Path>) -> bool {
        self.tidy_images(Look::NoRoom, at).await.unwrap_or_else(|error| {
            log::warn!("make room: {}", chain(&error));
            false
        })
    }

    /// True if there is more room now than before. Images on another disk than `at` are of no use.
    async fn tidy_images(&self, look: Look, at: Option<&Path>) -> Result<bool, PullError> {
        let images = &self.images;
        let ctrd = self.runtime.connect().await?;
        let root = ctrd.root().await?;
        if at.is_some_and(|at| !same_disk(at, &root)) {
            return Ok(false);
        }
        // Before it is this one's turn: what another makes is room too.
        let start = room(&root);
        let _turn = images.turn.lock().await;
        let is_full = images.settings.is_full(room(&root));
        if !is_full {
            images.is_told.set(false);
        }
        if look == (Look::Time { hours: 0 }) && !is_full {
            return Ok(false);
        }
        let Some(mut wanted) = images.wanted.borrow().clone() else { return Ok(false) };
        if is_full || look == Look::NoRoom {
            pull::forget(&ctrd, &wanted.names).await?;
        }
        wanted.names.extend(self.runtime.list().await?.into_iter().map(|found| found.image));
        for image in self.unused_images(&ctrd, &wanted, look).await? {
            let before = room(&root);
            let Some(why) = images.settings.reason(image.hours, look, is_full, before) else { continue };
            let _removal = images.removal.lock().await;
            // A task may have come meanwhile.
            if images.wants(&image) {
                continue;
            }
            let name = image.names.join(", ");
            if let Err(error) = keep::remove(&ctrd, image).await {
                log::warn!("remove image {name}: {}", chain(&error));
                continue;
            }
            let after = room(&root);
            let freed = Bytes::new(after.free.saturating_sub(before.free));
            log::info!("image {name} removed, as {why}: {freed} freed, {} free", Bytes::new(after.free));
        }
        let end = room(&root);
        if is_full && images.settings.is_full(end) && !images.is_told.replace(true) {
            let (percent, free) = (end.percent(), Bytes::new(end.free));
            log::warn!("the disk is {percent} % full ({free} free), and no image is unused");
        }
        Ok(end.is_more_than(start))
    }

    /// The images that nobody needs; first notes how long, if it is time.
    async fn unused_images(&self, ctrd: &Ctrd, wanted: &Wanted, look: Look) -> Result<Vec<Unused>, PullError> {
        let _labels = self.images.labels.lock().await;
        let records = keep::records(ctrd).await?;
        let unused = images::unused(&records, wanted);
        let Look::Time { hours: hours @ 1.. } = look else { return Ok(unused) };
        for record in &records {
            let is_unused = unused.iter().any(|image| image.names.contains(&record.name));
            if let Some(labels) = images::aged(record, is_unused, &wanted.services, hours) {
                if let Err(error) = keep::label(ctrd, record.name.clone(), labels).await {
                    log::warn!("note the age of image {}: {}", record.name, chain(&error));
                }
            }
        }
        Ok(unused)
    }

    /// Notes that a service uses an image, so that the one before is known when there is another.
    pub(super) async fn note_use(&self, ctrd: &Ctrd, image: &str, work: &Work) {
        let _labels = self.images.labels.lock().await;
        if let Err(error) = keep::note_use(ctrd, image, &work.service.to_string()).await {
            log::debug!("{image}: note that it is used: {}", chain(&error));
        }
    }

    /// `why` something found no room at `path`, or else where the images are, with how much of it there is.
    pub(super) async fn no_space(&self, path: Option<&Path>, why: String) -> String {
        let data = self.runtime.data();
        let place = match path {
            // People know the agent's directory, not those in it.
            Some(path) if path.starts_with(data) => data.to_owned(),
            Some(path) => path.ancestors().find(|place| place.is_dir()).unwrap_or(data).to_owned(),
            None => {
                let root = async { self.runtime.connect().await.ok()?.root().await.ok() };
                root.await.unwrap_or_else(|| data.to_owned())
            }
        };
        format!("{}; remove images or volumes that nobody needs ({why})", full(&place))
    }
}

/// How full the file system of `place` is, in words.
fn full(place: &Path) -> String {
    let room = room(place);
    // People know containerd's directory, not those in it.
    let place = place.parent().filter(|_| place.ends_with(SNAPSHOTTER_DIR)).unwrap_or(place).display();
    if room.files == Some(0) {
        return format!("no space left on {place}: it can hold no more files");
    }
    format!("no space left on {place}: {} free of {}", Bytes::new(room.free), Bytes::new(room.size))
}

/// Whether two places are on one file system, as far as they are there.
fn same_disk(a: &Path, b: &Path) -> bool {
    let disk = |place: &Path| place.ancestors().find_map(|place| place.metadata().ok()).map(|place| place.dev());
    disk(a).is_some_and(|a| Some(a) == disk(b))
}

/// Nothing of a file system that cannot be asked is known to be in use.
fn room(place: &Path) -> Room {
    let Ok(stat) = rustix::fs::statvfs(place) else { return Room::default() };
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Room {
        // What is reserved for the system is nobody's.
        size: bytes(stat.f_blocks.saturating_sub(stat.f_bfree).saturating_add(stat.f_bavail)),
        free: bytes(stat.f_bavail),
        files: (stat.f_files > 0).then_some(stat.f_favail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_told_apart() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        std::fs::write(&file, "x").expect("a file");
        // The second is not there: its directory is asked.
        assert!(same_disk(&file, &dir.path().join("a/b")));
        assert!(!same_disk(&file, Path::new("/proc/self")));
    }
}
