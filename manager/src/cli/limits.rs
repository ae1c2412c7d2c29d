//! Bounds of the client commands.

use std::time::Duration;

/// How long one request may take until the client gives up. Docker's own slowest calls
/// (joining, resolving an image at a far registry) answer within 20 s.
pub(crate) const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// How long a connection may take to open.
pub(crate) const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// Largest answer body that is read into memory; 10,000 tasks are about 20 MiB of JSON.
pub(crate) const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Largest single event line; longer ones end the stream with an error.
pub(crate) const LINE_BYTES_MAX: usize = 1 << 20;

/// Pause between two rounds of a progress display.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Above this many tasks a progress display shows only the sum, as Docker's does.
pub(crate) const PROGRESS_BARS_MAX: u64 = 20;

/// Longest error text on a progress line, in characters, as Docker's does.
pub(crate) const PROGRESS_TEXT_MAX: usize = 75;

/// Narrowest a table column is squeezed to when the terminal is small, in characters.
pub(crate) const COLUMN_CHARS_MIN: usize = 10;

/// How long we watch a changed service when its spec names no monitor time (Docker's default).
pub(crate) const MONITOR_DEFAULT: Duration = Duration::from_secs(5);

/// Largest compose or env file, in bytes; a larger one is refused.
pub(crate) const COMPOSE_BYTES_MAX: usize = 1 << 20;

/// Deepest nesting in a compose file; a real one has ten levels. Beyond: refused.
pub(crate) const COMPOSE_DEPTH_MAX: usize = 64;

/// Values in a compose file, each use of an alias counted anew; beyond, it is refused.
pub(crate) const COMPOSE_VALUES_MAX: usize = 100_000;

/// Longest text after its variables were filled in, in bytes; beyond, it is refused.
pub(crate) const COMPOSE_TEXT_MAX: usize = 1 << 20;

/// Largest content of a secret or config that a compose file names, in bytes: the manager takes no larger one.
pub(crate) const COMPOSE_BODY_MAX: usize = 1000 << 10;

/// Largest file with a root certificate or its key, in bytes: the manager takes no larger one.
pub(crate) const ROOT_FILE_BYTES_MAX: usize = 32 << 10;

/// How long a board may take to take ssh's connection; then ssh gives up.
pub(crate) const PROVISION_CONNECT_MAX: Duration = Duration::from_secs(20);

/// How long one step on a board may take; then its connection is ended, and the step failed. Slow cards and slow Wi-Fi
/// take minutes for containerd.
pub(crate) const PROVISION_STEP_MAX: Duration = Duration::from_secs(30 * 60);

/// How long a board that has joined may take to be ready; then the command fails, and the board stays as it is.
pub(crate) const PROVISION_READY_MAX: Duration = Duration::from_secs(60);

/// How often a change of a node is tried that the node's own changes overtake; then the command fails.
pub(crate) const OVERTAKEN_MAX: u32 = 10;

/// Pause between two looks at whether a board is ready.
pub(crate) const PROVISION_POLL: Duration = Duration::from_millis(300);

/// Bytes kept of what a step on a board says; of more, only the last are.
pub(crate) const PROVISION_OUTPUT_MAX: usize = 64 << 10;

/// Lines of it that are shown when the step fails.
pub(crate) const PROVISION_SHOWN_LINES_MAX: usize = 8;

/// Bytes of the `racimo.toml` that a board is sent; with more labels the command is refused. Boards read no more.
pub(crate) const PROVISION_FILE_BYTES_MAX: usize = 16 << 10;

/// Largest package that is sent to a board; a larger file is refused. The agent's has one MiB.
pub(crate) const PROVISION_PACKAGE_BYTES_MAX: u64 = 64 << 20;

const _: () = assert!(LINE_BYTES_MAX <= ANSWER_BYTES_MAX);
const _: () = assert!(POLL_INTERVAL.as_millis() < MONITOR_DEFAULT.as_millis());
