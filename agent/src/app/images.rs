//! Images that nobody needs: removed by age, and when the disk is full. What is decided is [`crate::images`]'s.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use racimo_common::error::chain;
use racimo_common::units::Bytes;
use smol::Timer;
use smol::lock::Mutex;

use super::operations::Tools;
use crate::images::{self, Room, Settings, Unused, Wanted};
use crate::limits::{IMAGES_AGE_HOURS, IMAGES_EVERY};
use crate::runtime::pull::{PullError, keep};

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
    /// That something was pulled.
    pulls: (Sender<()>, Receiver<()>),
    /// Whether it was told that the disk is full for other reasons.
    is_told: Cell<bool>,
}

/// Why images are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// It is time; so many hours of the images' age have passed.
    Time { hours: u32 },
    /// Something found no room.
    NoRoom,
}

impl Images {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            wanted: RefCell::default(),
            removal: Mutex::default(),
            turn: Mutex::default(),
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

    /// Why an image that nobody needs goes now; none: it stays.
    fn reason(&self, image: &Unused, look: Look, is_full: bool, room: Room) -> Option<String> {
        if self.settings.keep_hours.is_some_and(|keep| image.hours >= keep) {
            return Some(format!("nobody has needed it for {} h", image.hours));
        }
        match look {
            Look::NoRoom => Some("there is no room for another".to_owned()),
            Look::Time { .. } if is_full && room.percent() > self.settings.low => {
                Some(format!("the disk is {} % full", room.percent()))
            }
            Look::Time { .. } => None,
        }
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
            if let Err(error) = self.tidy_images(Look::Time { hours }).await {
                log::warn!("look for unused images: {}", chain(&error));
            }
        }
    }

    /// Removes every image that nobody needs, as something found no room. True if there is more of it now.
    pub(super) async fn make_room(&self) -> bool {
        self.tidy_images(Look::NoRoom).await.unwrap_or_else(|error| {
            log::warn!("make room: {}", chain(&error));
            false
        })
    }

    async fn tidy_images(&self, look: Look) -> Result<bool, PullError> {
        let images = &self.images;
        let _turn = images.turn.lock().await;
        let ctrd = self.runtime.connect().await?;
        let root = ctrd.root().await?;
        let is_full = room(&root).percent() >= images.settings.high;
        if !is_full {
            images.is_told.set(false);
        }
        if look == (Look::Time { hours: 0 }) && !is_full {
            return Ok(false);
        }
        let Some(mut wanted) = images.wanted.borrow().clone() else { return Ok(false) };
        wanted.names.extend(self.runtime.list().await?.into_iter().map(|found| found.image));
        let records = keep::records(&ctrd).await?;
        let unused = images::unused(&records, &wanted);
        if let Look::Time { hours: hours @ 1.. } = look {
            for record in &records {
                let is_unused = unused.iter().any(|image| image.names.contains(&record.name));
                if let Some(labels) = images::aged(record, is_unused, &wanted.services, hours) {
                    keep::label(&ctrd, record.name.clone(), labels).await?;
                }
            }
        }
        let mut has_freed = false;
        for image in unused {
            let before = room(&root);
            let Some(why) = images.reason(&image, look, is_full, before) else { continue };
            let _removal = images.removal.lock().await;
            // A task may have come meanwhile.
            if images.wants(&image) {
                continue;
            }
            let name = image.names.join(", ");
            keep::remove(&ctrd, image).await?;
            let after = room(&root);
            let freed = Bytes::new(after.free.saturating_sub(before.free));
            log::info!("image {name} removed, as {why}: {freed} freed, {} free", Bytes::new(after.free));
            has_freed = true;
        }
        if is_full && room(&root).percent() >= images.settings.high && !images.is_told.replace(true) {
            let (percent, free) = (room(&root).percent(), Bytes::new(room(&root).free));
            log::warn!("the disk is {percent} % full ({free} free), and no image is unused");
        }
        Ok(has_freed)
    }

    /// `why` something found no room, with how much of it there is.
    pub(super) async fn no_space(&self, why: String) -> String {
        let root = match self.runtime.connect().await {
            Ok(ctrd) => ctrd.root().await.ok(),
            Err(_) => None,
        };
        let places: Vec<PathBuf> = root.into_iter().chain([self.runtime.data().to_owned()]).collect();
        // The fuller one is what is meant.
        let fullest = places.iter().min_by_key(|place| (room(place).files != Some(0), room(place).free));
        let place = fullest.map(|place| full(place)).unwrap_or_default();
        format!("{place}; remove images or volumes that nobody needs ({why})")
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
