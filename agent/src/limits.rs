//! Every limit of the agent: its unit, its reason and what happens when it is reached.

use std::time::Duration;

/// Flow-control window of one containerd stream, in bytes. hyper's default of 2 MiB is our whole
/// heap; containerd waits when the window is full.
pub const CTRD_STREAM_WINDOW: u32 = 64 << 10;
/// Flow-control window of the containerd connection, in bytes; containerd waits when it is full.
pub const CTRD_CONNECTION_WINDOW: u32 = 256 << 10;
/// Bytes that may wait to be sent on one containerd stream; the sender waits when it is full.
pub const CTRD_SEND_BUFFER: usize = 64 << 10;
/// Header block accepted from containerd, in bytes; a larger one fails the call.
pub const CTRD_HEADER_LIST: u32 = 16 << 10;
/// Time for connecting to containerd's socket and the HTTP/2 handshake; then: an error.
pub const CTRD_CONNECT_MAX: Duration = Duration::from_secs(5);
/// Time for one unary containerd call. Starting a container on a busy Pi Zero takes seconds, so
/// this only catches a runtime that hangs; then: an error, and the operation is tried again.
pub const CTRD_CALL_MAX: Duration = Duration::from_secs(60);
/// Time for a killed process to end; one that the kernel cannot end (stuck in a driver, a dead
/// network disk) is an error, and is tried again.
pub const KILL_WAIT_MAX: Duration = Duration::from_secs(10);
/// Most read of a file that describes the board, in bytes; the rest is left out. `/proc/cpuinfo`
/// of a board is a few KiB.
pub const BOARD_FILE_MAX: u64 = 64 << 10;
/// Largest `/etc/passwd` or `/etc/group` read from an image, in bytes; a larger one is refused.
pub const IMAGE_FILE_MAX: u64 = 128 << 10;

const _: () = assert!(CTRD_STREAM_WINDOW <= CTRD_CONNECTION_WINDOW);
/// Bytes of one file of the board's identity, at most; a larger one is damaged.
pub const IDENTITY_FILE_MAX: u64 = 16 << 10;
/// Time for a TCP connection to a manager; then the next try.
pub const DIAL_MAX: Duration = Duration::from_secs(10);
/// Time for the TLS handshake with a manager (a Pi Zero needs 0.1 s, bad Wi-Fi seconds); then the next try.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Time for a manager's answer to a join request, which it must store first; then the next try.
pub const JOIN_ANSWER_MAX: Duration = Duration::from_secs(30);
/// Tries to join before giving up, as Swarm does it.
pub const JOIN_TRIES: u32 = 5;
/// Time between two of them.
pub const JOIN_PAUSE: Duration = Duration::from_secs(2);
