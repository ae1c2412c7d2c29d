//! Limits of the manager: unit, reason, and what happens when they are reached.

use std::time::Duration;

/// Shortest lease of a fenced task: several heartbeats may be lost before it stops. A shorter one is refused.
pub const LEASE_MIN: Duration = Duration::from_secs(10);
/// Longest lease: so long a slot stays empty when its board is lost. A longer one is refused.
pub const LEASE_MAX: Duration = Duration::from_secs(3600);
/// The lease of a service that asks for fencing and names none.
pub const LEASE_DEFAULT: Duration = Duration::from_secs(30);
/// How much longer than the lease of its last task a fenced slot waits: for clocks that run apart, an agent that was
/// being restarted, and a process that takes a moment to die.
pub const FENCE_MARGIN: Duration = Duration::from_secs(10);
/// Restart times kept per slot whose policy has a window (8 KiB). The API refuses a window with more attempts.
pub const RESTART_TIMES_MAX: usize = 1000;
/// Failure times kept per service and node (512 bytes): what five minutes bring at the default restart delay of 5 s,
/// so that the scheduler can tell which of two bad nodes is worse. Beyond: the oldest go.
pub const FAILURE_TIMES_MAX: usize = 64;
/// Assignments in one plan of the scheduler (60 bytes each in the log). Beyond: in the next plan.
pub const SCHEDULER_PLAN_MAX: usize = 8192;
/// Changes in one plan of the orchestrator (about 250 bytes each in the log). Beyond: in the next plan.
pub const ORCHESTRATOR_PLAN_MAX: usize = 1000;
/// Batches of events a watcher may be behind; then it gets one `resync` instead.
pub const FEED_BATCHES_MAX: usize = 256;
/// Requests that wait for the store; further writers wait their turn.
pub const STORE_QUEUE_MAX: usize = 256;
/// Requests that are committed with one fsync.
pub const GROUP_COMMIT_MAX: usize = 128;

/// Bytes of one log segment: the largest batch fits in one piece. Filled with zeros once, then recycled. When full:
/// the next segment.
pub const LOG_SEGMENT_BYTES: u64 = 2 << 20;

/// Bytes that one batch of commands may take in the log, [`LOG_COMMAND_OVERHEAD_BYTES`] each
/// included. Docker allows configs of 1000 KiB, and a command carries one. Beyond: refused.
pub const LOG_BATCH_BYTES_MAX: u64 = 3 << 19;

/// Bytes that a command takes in the log beside its own, at most.
pub const LOG_COMMAND_OVERHEAD_BYTES: u64 = 64;

/// Bytes at the end of a segment that commands may not use when the disk is full, so that a
/// restart can still write its new term (about 80 bytes each). Beyond: commands are refused.
pub const LOG_RESERVE_BYTES: u64 = 64 << 10;

/// Bytes of log since the last snapshot below which none is made: it would cost more writes
/// than it saves. Beyond, and beyond twice the last snapshot: a new one.
pub const LOG_SNAPSHOT_AFTER_BYTES: u64 = 1 << 20;

/// Bytes of a snapshot file: bounds what a start reads into memory. A state of 10,000 tasks
/// takes 1 MB. Beyond: no snapshot is made, a warning is logged, and the log grows.
pub const LOG_SNAPSHOT_BYTES_MAX: u64 = 256 << 20;

/// Empty segments kept for recycling. Beyond: removed.
pub const LOG_SPARES_MAX: usize = 2;

/// Bytes of log entries in one message to another manager: slow Wi-Fi carries them within a heartbeat. Beyond: split.
pub const RAFT_MESSAGE_BYTES_MAX: u64 = 256 << 10;

/// Messages with entries under way to one manager. Beyond: wait for an answer.
pub const RAFT_MESSAGES_IN_FLIGHT_MAX: usize = 64;

/// Bytes of committed entries applied in one step. Beyond: in the next step.
pub const RAFT_APPLY_BYTES_MAX: u64 = 1 << 20;

const _: () = assert!(
    LOG_BATCH_BYTES_MAX + LOG_RESERVE_BYTES + 1024 <= LOG_SEGMENT_BYTES,
    "the largest batch must fit into one fresh segment"
);

/// Encoded command, bytes: the largest config, sealed, with labels. A larger change is refused.
pub const COMMAND_BYTES_MAX: usize = 5 << 18;
/// Roots that were replaced and are remembered, so that boards that were off meanwhile find back. Beyond: the oldest is
/// forgotten; a rotation that would strand a board or a valid access by that is refused. With the certificate of a root
/// on its way these are as many as TLS looks at between the manager's certificate and a root: six.
pub const ROOTS_RETIRED_MAX: usize = 5;
/// How long before its root ends a cluster says so: boards that are off for months shall come back meanwhile.
pub const ROOT_ENDS_SOON: Duration = Duration::from_secs(180 * 24 * 3600);
/// How often the log says so.
pub const ROOT_ENDS_EVERY: Duration = Duration::from_secs(24 * 3600);
/// Bytes of a root certificate that a user brings, DER: the manager shows it and one for each root before in a TLS
/// handshake, whose messages hold 64 KiB. Beyond: refused.
pub const ROOT_BYTES_MAX: usize = 4096;
/// Bytes of such a certificate, or of its key, as PEM: with room for text around it. Beyond: refused.
pub const ROOT_PEM_BYTES_MAX: usize = 32 * 1024;
/// People and programs that may use the API from afar. Beyond: refused.
pub const ACCESSES_MAX: usize = 256;
/// Connections to the API by clients with certificates. A further one is closed.
pub const API_REMOTE_CONNECTIONS_MAX: usize = 256;
/// Connections to the API by one access. A further one is closed.
pub const API_ACCESS_CONNECTIONS_MAX: usize = 64;
/// Answers that go on (`events`, `logs`, backups) of one access at once, so that it takes neither the readers of all nor all
/// of its own connections. A further one: 429.
pub const API_ACCESS_STREAMS_MAX: usize = 16;
/// Connections of one access in a row; a command is one or a few. Beyond: closed, except so many a second:
pub const API_ACCESS_BURST: u32 = 1024;
/// As above.
pub const API_ACCESS_PER_SECOND: u32 = 50;
/// Connections to the API that have not yet shown a certificate that counts. Beyond: the oldest one of the address that
/// holds most goes, as with agents' connections.
pub const API_HANDSHAKES_MAX: usize = 64;
/// How old the list of this machine's addresses may be when the API's certificate is judged by it.
pub const API_LOOK_EVERY: Duration = Duration::from_secs(1);
/// Addresses, and names, that the API's certificate carries. Beyond: clients cannot verify the others.
pub const API_NAMES_MAX: usize = 64;
/// Bytes of the file in which changes are kept with who made them: some 10,000 lines. When full: it becomes the second
/// one, and the second one before goes.
pub const AUDIT_FILE_BYTES_MAX: u64 = 1 << 20;
/// Characters of a path in the audit file. The rest is cut.
pub const AUDIT_PATH_CHARS_MAX: usize = 200;
/// Characters of a name in the audit file. The rest is cut.
pub const AUDIT_NAME_CHARS_MAX: usize = 100;
/// Requests a minute that are kept in the audit file though a role was not enough for them: who may do nothing shall
/// not push out what others did. Beyond: counted.
pub const AUDIT_REFUSED_MAX: u32 = 60;
/// How often streams of somebody with an access look whether it has expired. A revoked one ends them at once.
pub const ACCESS_LOOK_EVERY: Duration = Duration::from_secs(60);
/// Addresses and names of this manager that boards are told. Beyond: left out; boards keep
/// [`MANAGERS_MAX`](racimo_common::limits::MANAGERS_MAX).
pub const TOLD_ADDRESSES_MAX: usize = 8;
/// How often the machine's addresses are looked at: one listing, some 0.1 ms on a Pi.
pub const ADDRESSES_LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often the name that boards are told is looked up again.
pub const NAME_LOOK_EVERY: Duration = Duration::from_secs(60);
/// Time for a name to be looked up. Longer: it counts as unknown, and what boards were told stays.
pub const NAME_WITHIN: Duration = Duration::from_secs(6);
/// How long boards are waited for after this manager's address went away under them, or it was restored from a backup:
/// they notice by its silence, and look for the new one.
pub const MOVED_GRACE: Duration = Duration::from_secs(60);
/// Shortest time between two announcements to everybody, by RFC 6762.
pub const ANNOUNCE_EVERY_MIN: Duration = Duration::from_secs(1);
/// How long before announcing is tried again that failed.
pub const ANNOUNCE_RETRY: Duration = Duration::from_secs(60);
/// Questions that are answered to whoever asks within one second. Beyond: not answered; boards ask again.
pub const ANSWERS_PER_SECOND_MAX: u32 = 200;
/// Unlock keys that may be tried within [`UNLOCK_TRIES_WITHIN`]. Nobody guesses 256 bits; this keeps the log short. Beyond:
/// refused with 429.
pub const UNLOCK_TRIES_MAX: usize = 10;
/// How long tries of unlock keys are counted.
pub const UNLOCK_TRIES_WITHIN: Duration = Duration::from_secs(60);
/// Signs of life that wait for the hub; sessions wait their turn.
pub const SIGNS_QUEUE_MAX: usize = 1024;
/// Members of a cluster; a further join is refused.
pub const NODES_MAX: usize = 10_000;
/// How often the manager looks whether its own certificate is due, or its clock was set. Long beside what looking costs,
/// short beside half an hour, after which the shortest certificate is due.
pub const TRUST_LOOK_EVERY: Duration = Duration::from_secs(10);
/// Pause before a board that was asked to renew its certificate, or told other roots, and has not said that it kept
/// them, is asked again: its disk may be full.
pub const RENEW_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Certificates that one session may ask for at once, each of which is a signature; then one in
/// [`RENEW_AGAIN_AFTER`]. Beyond: later.
pub const RENEWALS_BURST: u32 = 8;
/// Connections of agents; a further one is closed at once.
pub const CONNECTIONS_MAX: usize = NODES_MAX + 256;
/// Connections that have not yet shown who they are, some 30 KiB each. Beyond: the oldest one of the address
/// that holds most goes; if nobody holds more than the newcomer's address, the newcomer goes.
pub const HANDSHAKES_MAX: usize = 256;
/// How many of them only addresses may have where members were last seen; when they need more, others go.
pub const HANDSHAKES_KNOWN_MIN: usize = 64;
/// How long a connection that has not yet shown who it is is left alone by addresses that hold as many: a handshake
/// takes no longer on a manager that does a hundred a second.
pub const HANDSHAKE_GRACE: Duration = Duration::from_secs(3);
/// Connections from one address (IPv6: from one /64) that lead to nothing, neither to a session nor to a new member.
/// Beyond: further ones are closed at once, except so many a second:
pub const SOURCE_CONNECTIONS_MAX: u32 = 512;
/// Some 2 ms of a Pi's time each.
pub const SOURCE_CONNECTIONS_PER_SECOND: u32 = 20;
/// How many times as many an address may make where members were last seen: many boards may be behind one router.
pub const SOURCE_KNOWN_TIMES: u32 = 8;
/// The same for all addresses together where no member was last seen.
pub const STRANGERS_CONNECTIONS_MAX: u32 = 2048;
/// As above.
pub const STRANGERS_CONNECTIONS_PER_SECOND: u32 = 200;
/// How many connections that lead to nothing a request to join with a wrong token counts as. A right token is never
/// refused for others' wrong ones: none can be guessed.
pub const JOIN_FAILURE_COST: u32 = 10;
/// Addresses whose connections are counted. Beyond: the one that is forgiven next is forgotten.
pub const SOURCES_MAX: usize = 4096;
/// Connections of one member at once: a newer session ends the older one. Beyond: closed at once.
pub const NODE_CONNECTIONS_MAX: usize = 8;
/// Connections of one member in a row. Beyond: refused as busy, except so many a second:
pub const NODE_CONNECTIONS_BURST: u32 = 64;
/// An agent dials once a second when its sessions end at once.
pub const NODE_CONNECTIONS_PER_SECOND: u32 = 1;
/// Messages of a session at once, and in a second; those with logs that were asked for do not count. Beyond: they wait,
/// and soon the board does.
pub const SESSION_MESSAGES_BURST: u32 = 1024;
/// As above.
pub const SESSION_MESSAGES_PER_SECOND: u32 = 100;
/// Bytes of them at once, and in a second. Beyond: as above.
pub const SESSION_BYTES_BURST: u32 = 4 << 20;
/// As above.
pub const SESSION_BYTES_PER_SECOND: u32 = 256 << 10;
/// Writes to the store that one member may cause at once by what it says of itself: its description, its board, its coming back
/// after it was written off. Beyond: its description is stored later (a new session with another one is refused as
/// busy), and it counts as down meanwhile.
pub const NODE_WRITES_BURST: u32 = 32;
/// How long until it may cause one more.
pub const NODE_WRITES_EVERY: Duration = Duration::from_secs(60);
/// How long a message may take to be taken by its board. Longer: the session ends.
pub const MESSAGE_TAKEN_WITHIN: Duration = Duration::from_secs(30);
/// Bytes of opened contents that a board must take in a second, after the first [`MESSAGE_TAKEN_WITHIN`]: others wait
/// for their turn. Slower: the session ends.
pub const SET_BYTES_PER_SECOND_MIN: u32 = 8 << 10;
/// Causes (who and why) of log lines that others bring about: one line each and minute. Beyond: only counted, in one
/// line a minute.
pub const NOTES_MAX: usize = 256;
/// Bytes of such a line: it may quote what a peer sent. The rest is cut.
pub const NOTE_BYTES_MAX: usize = 1024;
/// Files that the manager keeps open beside connections: the store's, listeners, calls to registries. It allows itself
/// as many files as it needs for all connections, if the system lets it; else fewer agents' connections are taken.
pub const FILES_RESERVE: usize = 256;
/// How long a TLS handshake may take on a slow board.
pub const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// Agents of one node that are remembered beside the present one, to tell a board that returns from a copied card, and
/// as many of those that ask for its session. The oldest is forgotten, and counts as new when it returns.
pub const BOOTS_MAX: usize = 8;
/// How long an agent that was refused as a copy, or replaced, is told to try again after its node's board was last heard,
/// also while the node is down: that board may be starting again, checking its disk or upgrading its system. Then it may
/// be the node.
pub const COPY_KEPT_OUT: Duration = Duration::from_secs(600);
const _: () = assert!(
    COPY_KEPT_OUT.as_secs() > 2 * 4 * HEARTBEAT_MAX.as_secs(),
    "a board that is silent until it counts as down has time to come back"
);
/// How long a second agent of one node is kept waiting for its session; then it is told to try again, and what was seen
/// so far counts on. Less than the silence that agents bear.
pub const HELLO_HELD_WITHIN: Duration = Duration::from_secs(5);
/// How often a board may say how it is; agents do it every 10 s at most. What comes sooner is passed over.
pub const HEALTH_PAUSE_MIN: Duration = Duration::from_secs(5);
/// Degrees Celsius from which on a board is shown as hot: Raspberry Pi's firmware slows the processor down from here.
pub const BOARD_HOT_CELSIUS: i16 = 80;
/// Percent of a board's memory that is available below which it is shown as low on memory.
pub const BOARD_MEMORY_PERCENT_MIN: u64 = 8;
/// Percent of the last minute in which some process waited for memory from which on the same is shown.
pub const BOARD_PRESSURE_PERCENT_MAX: u8 = 20;
/// Percent of the file system of the agent's data that are free below which its disk is shown as full.
pub const BOARD_DISK_PERCENT_MIN: u64 = 5;
/// Bytes that are free there below which the same is shown: less than most images need.
pub const BOARD_DISK_BYTES_MIN: u64 = 200 << 20;
/// Percent of its life that built-in storage has used from which on it is shown as worn.
pub const BOARD_WORN_PERCENT: u8 = 90;
/// Signal in dBm below which a board's Wi-Fi is shown as weak.
pub const BOARD_SIGNAL_DBM_MIN: i16 = -80;
/// How long the first message may take.
pub const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// How long the reason of an end may take to be written.
pub const LAST_WORD_WITHIN: Duration = Duration::from_secs(1);
/// Bytes of a text in an agent's report of a task (agents send 512 at most), since the last ones are stored. The rest
/// is cut.
pub const REPORT_TEXT_BYTES_MAX: usize = 1024;
/// Sessions that may hold opened contents of secrets and configs for their board at a time, up to some 32 MiB each.
/// Further ones with contents to send wait, and answer heartbeats meanwhile.
pub const SETS_OPEN_MAX: usize = 4;
/// Bytes of items in one message about the network: a board's heap is small, and several messages may wait. A service
/// that is larger goes alone in one message.
pub const NET_PART_BYTES: usize = 32 << 10;
/// Tasks of one service that boards are told, which is as many as fit a frame if it is on one network; on many networks
/// fewer fit. Beyond: those that take no connections are left out first, then the youngest; they run, but get no
/// connections from other boards, and the log says so.
pub const ENDPOINTS_MAX: usize = 1800;
/// Networks of one service that boards are told: those of its specification, then those that only older tasks of it are
/// on. Beyond: not told; names and virtual addresses there do not lead to those tasks, and the log says so.
pub const TOLD_NETWORKS_MAX: usize = 64;
/// Changes of the network that sessions can look up one by one. A session that is further behind compares everything.
pub const NET_NEWS_MAX: usize = 1024;
/// Sessions that wait for the network's directory to be as new as the store. Beyond: they wait for room.
pub const NET_ASKS_MAX: usize = 64;
/// Characters of a host name in the log; the rest is cut.
pub const HOSTNAME_CHARS_MAX: usize = 64;

const _: () = assert!(
    COMMAND_BYTES_MAX as u64 + LOG_COMMAND_OVERHEAD_BYTES <= LOG_BATCH_BYTES_MAX,
    "every command the store takes must fit into a batch"
);

const _: () = assert!(
    TOLD_NETWORKS_MAX <= u64::BITS as usize && SERVICE_NETWORKS_MAX <= TOLD_NETWORKS_MAX,
    "places of a service's networks are bits of a word, and all of its specification are told"
);

/// Replicas of a service: far more than a cluster of boards holds, and the memory they take stays bounded (about
/// 100 MB). Beyond: refused.
pub const REPLICAS_MAX: u64 = 100_000;
/// Overlay networks of a cluster: each has its own subnet and its own bridge on every board that uses it, and names are
/// looked up by going through them. Beyond: refused.
pub const NETWORKS_MAX: usize = 1024;
/// Overlay networks that one service may be attached to: each is an interface in every task. Beyond: refused.
pub const SERVICE_NETWORKS_MAX: usize = 32;
/// Further names of a service on one network. Beyond: refused.
pub const ALIASES_MAX: usize = 64;
/// Bytes of the further names of a service on all its networks: every board that uses one of them is told all in one
/// message. Beyond: refused.
pub const ALIASES_BYTES_MAX: usize = 16 << 10;
/// Secrets and configs that one service may refer to: a board holds
/// [`BODIES_MAX`](racimo_common::limits::BODIES_MAX) for all its tasks. Beyond: refused.
pub const SERVICE_FILES_MAX: usize = 128;
/// Shortest heartbeat period a cluster may be given: faster than that it only costs boards power.
pub const HEARTBEAT_MIN: Duration = Duration::from_millis(100);
/// Longest heartbeat period a cluster may be given.
pub const HEARTBEAT_MAX: Duration = Duration::from_secs(60);
/// Connections to the API over loopback TCP; further clients wait in the kernel's queue.
pub const API_LOCAL_CONNECTIONS_MAX: usize = 256;
/// Connections to the API by its unix sockets; further clients wait in the kernel's queue.
pub const API_CONNECTIONS_MAX: usize = 256;
/// Bytes of a request's head, and of the buffer it is read into. Larger: 431.
pub const API_HEADERS_BYTES_MAX: usize = 64 << 10;
/// Header fields of a request. More: 431.
pub const API_HEADERS_MAX: usize = 64;
/// How long a request's head may take, and how long a connection may be idle. Longer: closed.
pub const API_HEADERS_WITHIN: Duration = Duration::from_secs(120);
/// Bytes of a request's body: the largest config in base64, with labels. Larger: 413.
pub const API_BODY_BYTES_MAX: usize = 2 << 20;
/// Bytes of the body of a request by somebody who may only look: such requests need none. Larger: 413.
pub const API_LOOK_BODY_BYTES_MAX: usize = 16 << 10;
/// How long a request's body may take. Longer: 408.
pub const API_BODY_WITHIN: Duration = Duration::from_secs(30);
/// How long requests under way may take when the manager stops. Longer: cut off.
pub const API_STOP_WITHIN: Duration = Duration::from_secs(3);
/// How long a registry may take to say what a tag stands for. Longer: 500, and clients go on without a digest.
pub const REGISTRY_WITHIN: Duration = Duration::from_secs(20);
/// Past events kept for `/events?since=…` (as Docker does). When full: the oldest goes.
pub const EVENTS_KEPT_MAX: usize = 256;
/// Events a reader of `/events` may be behind. Beyond: it is cut off.
pub const EVENTS_BEHIND_MAX: usize = 256;
/// Least bytes of one log file of a task: a few long lines must fit. A smaller `max-size` is refused.
pub const LOG_FILE_BYTES_MIN: u64 = 16 << 10;
/// Most log files of a task; a reader looks at the names of all. A larger `max-file` is refused.
pub const LOG_FILES_MAX: u32 = 100;
/// Bytes of a secret, at most (SwarmKit's limit). More: refused.
pub const SECRET_BYTES_MAX: usize = 500 * 1024 - 1;
/// Bytes of a config, at most (SwarmKit's limit). More: refused.
pub const CONFIG_BYTES_MAX: usize = 1000 * 1024 - 1;
const _: () = assert!(SERVICE_FILES_MAX <= racimo_common::limits::BODIES_MAX, "every task fits an empty board");

/// Secrets and configs of a cluster: all are in memory on the manager, and creating one goes through them. Beyond:
/// refused.
pub const DEPENDENCIES_MAX: usize = 1024;
/// Sealed bytes of all secrets and configs of a cluster: they are in the manager's memory and in every snapshot.
/// Beyond: refused.
pub const DEPENDENCIES_BYTES_MAX: usize = 32 << 20;
/// Levels of blocks and parentheses in a template. More: refused.
pub const TEMPLATE_DEPTH_MAX: usize = 100;
/// Steps in which a template must be filled in: 1 MiB of small actions, or a few loops over labels. More: its task is
/// rejected.
pub const TEMPLATE_STEPS_MAX: usize = 500_000;
/// Bytes of a field of a service (a variable, a path) whose template is filled in. More: its task is rejected.
pub const TEMPLATE_FIELD_BYTES_MAX: usize = 32 << 10;
/// Bytes of registry credentials: long tokens take a few KiB, and every task of a service carries them. More: refused.
pub const CREDENTIALS_BYTES_MAX: usize = 16 << 10;

const _: () = assert!(
    SECRET_BYTES_MAX <= CONFIG_BYTES_MAX && CONFIG_BYTES_MAX <= racimo_common::limits::BODY_BYTES_MAX,
    "a board must take every body"
);
const _: () = assert!(
    CONFIG_BYTES_MAX + crate::vault::OVERHEAD_BYTES + (64 << 10) <= COMMAND_BYTES_MAX
        && CONFIG_BYTES_MAX.div_ceil(3) * 4 + (64 << 10) <= API_BODY_BYTES_MAX,
    "the largest config must fit, with labels"
);
const _: () = assert!(
    (DEPENDENCIES_BYTES_MAX as u64) < LOG_SNAPSHOT_BYTES_MAX / 4,
    "secrets and configs must leave room in a snapshot for all else"
);
/// Readers of logs at once, a connection of the API each. A further one: 503.
pub const LOG_READERS_MAX: usize = 64;
/// Tasks whose logs are read at once, over all readers; those who follow get half of it, and half of what one board
/// serves. Beyond: who follows is told once what it does not hear yet, and anybody else waits [`LOG_ROOM_WITHIN`].
pub const LOG_READINGS_ALL_MAX: usize = 512;
/// How long a reader that does not follow waits for room while it has nothing open. Longer: it ends, and says which
/// tasks are missing.
pub const LOG_ROOM_WITHIN: Duration = Duration::from_secs(10);
/// Tasks whose logs one reader has open at once, if it does not follow. Beyond: one after another.
pub const LOG_READINGS_OPEN: usize = 32;
/// Parts of a task's log (16 KiB each) that wait for their reader. The board sends no more until it has taken one.
pub const LOG_WINDOW: u32 = 2;
/// Messages about logs that wait to be sent to a board. Beyond: no further log of it is opened.
pub const LOG_ASKS_MAX: usize = 1024;
/// Bytes of a line of a log that is put together from the pieces in which the board keeps it. Beyond: as two lines.
pub const LOG_LINE_BYTES_MAX: usize = 64 << 10;
/// How often a board that is away is looked for by who follows its logs.
pub const LOG_AGAIN_EVERY: Duration = Duration::from_secs(1);
/// How long a task that ended may take to say its last words; then what there is counts as all.
pub const LOG_LAST_WORDS_WITHIN: Duration = Duration::from_secs(5);
/// Readers of `/events` at once, a connection of the API each. A further one: 503.
pub const EVENTS_READERS_MAX: usize = 64;
/// How long a client may take no byte of an answer. Longer: cut off, so that readers that stand still use up no
/// connections.
pub const API_WRITE_WITHIN: Duration = Duration::from_secs(120);

const _: () = assert!(
    LOG_READERS_MAX + EVENTS_READERS_MAX <= API_CONNECTIONS_MAX / 2
        && LOG_READERS_MAX + EVENTS_READERS_MAX <= API_REMOTE_CONNECTIONS_MAX / 2,
    "readers of streams must leave connections for everybody else"
);
const _: () = assert!(
    API_ACCESS_STREAMS_MAX <= EVENTS_READERS_MAX / 4
        && API_ACCESS_STREAMS_MAX <= LOG_READERS_MAX / 4
        && API_ACCESS_STREAMS_MAX <= API_ACCESS_CONNECTIONS_MAX / 4,
    "one access must leave streams for others, and connections for its commands"
);

const _: () = assert!((ROOTS_RETIRED_MAX + 4) * ROOT_BYTES_MAX < 64 * 1024, "a handshake holds them");

/// Bytes of a backup: it is made, sent, checked and restored in memory, up to three copies of it at a time. A cluster of
/// 10,000 tasks takes 1 MB, secrets and configs as many as they have. Larger: refused, and nothing is written.
pub const BACKUP_BYTES_MAX: usize = 64 << 20;
/// Backups that are made or sent at once. A further one: 503.
pub const BACKUPS_MAX: usize = 1;
/// How often a passphrase of a backup is stretched, at most: about a minute on a slow board. More: the file is refused.
pub const BACKUP_ITERATIONS_MAX: u32 = 10_000_000;
/// Bytes of a passphrase's file. Larger: refused.
pub const PASSPHRASE_BYTES_MAX: usize = 4096;
/// Fewest characters of a passphrase that a backup is made with. Fewer: refused.
pub const PASSPHRASE_CHARS_MIN: usize = 8;

const _: () = assert!(
    DEPENDENCIES_BYTES_MAX + (16 << 20) <= BACKUP_BYTES_MAX && (BACKUP_BYTES_MAX as u64) < LOG_SNAPSHOT_BYTES_MAX,
    "a backup must hold all secrets and configs, and a store must take what a backup holds"
);
