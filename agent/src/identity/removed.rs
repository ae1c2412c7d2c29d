//! A board that its manager removed keeps its identity, so that it can ask again; but it may join anew as it is. Another
//! member must leave first, or its node would be left behind with its tasks.

use std::io;
use std::path::Path;

use racimo_common::durable;
use racimo_common::id::NodeId;

/// The node that was removed: there from when the manager said so until it has a session again, joins or leaves.
const FILE: &str = "removed";

/// The manager says that this node is no member any more.
///
/// # Errors
/// The disk says no: `pi-agent join` will ask for `pi-agent leave` first.
pub(crate) fn note(data: &Path, node: NodeId) -> io::Result<()> {
    durable::replace(&data.join(FILE), node.to_string().as_bytes())
}

/// Whether the manager said so of this node.
pub(crate) fn is_noted(data: &Path, node: NodeId) -> bool {
    std::fs::read(data.join(FILE)).is_ok_and(|noted| noted == node.to_string().as_bytes())
}

/// Nobody was removed.
///
/// # Errors
/// The disk says no.
pub(crate) fn forget(data: &Path) -> io::Result<()> {
    durable::remove(&data.join(FILE)).map(drop)
}
