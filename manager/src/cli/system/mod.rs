//! `info`, `version` and `events`.

pub(crate) mod events;
mod info;
mod version;

pub(crate) use events::{EventsArgs, events};
pub(crate) use info::{InfoArgs, info, warnings};
pub(crate) use version::{VersionArgs, version};
