//! Limits of the protocol: unit, reason, and what happens when they are reached.

/// Largest frame an agent may send, bytes. Larger: the connection is closed.
pub const FRAME_FROM_AGENT_MAX: usize = 64 * 1024;
/// Largest frame an agent accepts, bytes. Larger sets are split; a larger single task is refused by the manager.
pub const FRAME_TO_AGENT_MAX: usize = 256 * 1024;
/// Largest frame from a peer that has shown no certificate, bytes: it may only ask to join. Larger: as above.
pub const FRAME_JOIN_MAX: usize = 16 * 1024;
/// Root certificates that a board trusts at once: the one in use and the one that replaces it, with room for one that
/// comes sooner than expected. More in a message: refused.
pub const ROOTS_MAX: usize = 4;
/// Ended tasks whose logs a board keeps for readers. Beyond: those that ended first go.
pub const ENDED_LOGS_MAX: usize = 64;
/// Readings of logs on one board at once. Beyond: refused, with the reason as the reading's end.
pub const LOG_READINGS_MAX: usize = 128;
/// Bytes of a secret's or config's content, at most: Docker's largest config, templates filled in. A larger one: the
/// session ends.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Contents of secrets and configs that the tasks of one board may need, at most: each takes some 300 bytes of the
/// agent's small heap. Beyond: the manager gives the board the task with a reason for which it is rejected.
pub const BODIES_MAX: usize = 512;
/// Bytes of content in one message: a board's heap is small, and several messages may wait. The manager splits larger
/// ones; from a message with more a board takes them all the same.
pub const BODY_PART_BYTES_MAX: usize = 32 * 1024;
/// Levels of nesting in a message. Deeper: refused, because decoding recurses and a board's stack is small.
pub const MESSAGE_DEPTH_MAX: usize = 32;
/// Kinds of generic resources that a board offers or a service asks for. More: refused. Nobody has more kinds of
/// devices on a board.
pub const GENERIC_KINDS_MAX: usize = 16;
/// Generic resources with a name that a board offers, over all kinds: they are part of its description. More: refused.
pub const GENERIC_NAMES_MAX: usize = 64;
/// Bytes of the name of a generic resource or of a kind. Longer: refused.
pub const GENERIC_NAME_BYTES_MAX: usize = 128;
/// Ports that one service may publish: a task's are in each report of it. Beyond: refused by the manager.
pub const SERVICE_PORTS_MAX: usize = 128;
/// Questions of one multicast DNS packet. More: the packet is dropped.
pub const MDNS_QUESTIONS_MAX: usize = 32;
/// Records of one multicast DNS packet. More: the packet is dropped.
pub const MDNS_RECORDS_MAX: usize = 64;
/// Texts of one record that are read; ours has two. The rest is left out.
pub const MDNS_TEXTS_MAX: usize = 8;
/// Bytes of a multicast DNS packet that are read: what goes over Ethernet in one piece. The rest is cut, and what is cut
/// is dropped.
pub const MDNS_PACKET_BYTES_MAX: usize = 1500;
/// Packets that are read for one question, so that a flood ends with the time it is given or sooner. Beyond: what came
/// is all there is.
pub const MDNS_PACKETS_MAX: usize = 256;
/// Addresses that are taken from one packet. Beyond: left out.
pub const MDNS_FOUND_MAX: usize = 16;
/// Managers' addresses and names that a board keeps of what it is told. Beyond: left out.
pub const MANAGERS_MAX: usize = 16;
/// Bytes of one of them. Longer: left out; a host name has 253 at most.
pub const MANAGER_BYTES_MAX: usize = 260;

const _: () =
    assert!(2 * GENERIC_NAMES_MAX * GENERIC_NAME_BYTES_MAX < FRAME_FROM_AGENT_MAX, "descriptions fit a frame");
const _: () = assert!(FRAME_JOIN_MAX <= FRAME_FROM_AGENT_MAX && FRAME_FROM_AGENT_MAX <= FRAME_TO_AGENT_MAX);
