//! A board that its manager removed keeps its identity, so that it can ask again; but it may join anew as it is. Another
//! member must leave first, or its node would be left behind with its tasks.

use std::io;
use std::path::Path;

use racimo_common::durable;

/// Empty, and there from when the manager said so until the board joins.
const FILE: &str = "removed";

/// The manager says that this board is no member any more.
///
/// # Errors
/// The disk says no: `pi-agent join` will ask for `pi-agent leave` first.
pub(crate) fn note(data: &Path) -> io::Result<()> {
    durable::replace(&data.join(FILE), b"")
}

/// Whether the manager said so.
pub(crate) fn is_noted(data: &Path) -> bool {
    data.join(FILE).exists()
}

/// The board joins.
///
/// # Errors
/// The disk says no.
pub(crate) fn forget(data: &Path) -> io::Result<()> {
    durable::remove(&data.join(FILE)).map(drop)
}
