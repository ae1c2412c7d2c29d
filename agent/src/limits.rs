//! Every limit of the agent: its unit, its reason and what happens when it is reached.

use std::time::Duration;

/// Bytes that contents of secrets and configs and the tasks' copies of them may take in memory. When full: further tasks
/// with secrets are rejected.
pub const BODIES_BYTES_MAX: usize = 32 << 20;
/// Contents of secrets and configs at once: while a set of tasks comes, those of the last one are there still. Further
/// ones are not kept, and the tasks that need them are rejected.
pub const BODIES_MAX: usize = 2 * racimo_common::limits::BODIES_MAX;
/// Files and directories they may take. When full: as above.
pub const BODIES_FILES_MAX: usize = 8 << 10;

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
/// Time for containerd to delete what nobody needs and all that only that held: thousands of files on a slow card; then: an
/// error, and it goes on by itself.
pub const CTRD_COLLECT_MAX: Duration = Duration::from_secs(600);
/// Time to look whether the sources of bind mounts are there; then the task is refused.
pub const SOURCES_MAX: Duration = Duration::from_secs(10);
/// Containers that are made at once, some 50 KiB of heap each; others wait.
pub const MAKES_MAX: usize = 8;
/// Time for a killed process to end; one that the kernel cannot end (stuck in a driver, a dead
/// network disk) is an error, and is tried again.
pub const KILL_WAIT_MAX: Duration = Duration::from_secs(10);
/// Most read of a file that describes the board, in bytes; the rest is left out. `/proc/cpuinfo`
/// of a board is a few KiB.
pub const BOARD_FILE_MAX: u64 = 64 << 10;
/// Files of one kind (sensors, disks) that are read for the board's health; further ones are left out.
pub const HARDWARE_FILES_MAX: usize = 32;
/// Pause between two reads of the board's health, some 30 small files each; it is told only when it differs enough.
pub const HARDWARE_EVERY: Duration = Duration::from_secs(10);
/// Names of files held in memory while a new volume is filled from its image: those of one
/// directory and the ones around it. An image with more is refused, with the way out.
pub const FILL_NAMES_MAX: usize = 4096;
/// Largest `/etc/passwd` or `/etc/group` read from an image, in bytes; a larger one is refused.
pub const IMAGE_FILE_MAX: u64 = 128 << 10;

/// Bytes of a layer that are held at a time while it goes from the registry to containerd; the
/// registry waits when they are full. containerd answers each before the next is sent.
pub const PULL_CHUNK: usize = 32 << 10;
/// Times that one layer is taken up again where a broken connection left it; then: an error.
pub const PULL_RESUMES: u32 = 16;
/// Pause before a layer is taken up again.
pub const PULL_RESUME_PAUSE: Duration = Duration::from_secs(1);
/// Pulls given up half-way whose bytes are kept for the next try; beyond that the oldest go.
pub const PULL_UNFINISHED: usize = 3;
/// Time for containerd to commit or unpack one layer. Hundreds of megabytes on a slow card take
/// many minutes, so this only catches a containerd that hangs; then: an error.
pub const PULL_LAYER_MAX: Duration = Duration::from_secs(60 * 60);
/// Time for containerd to let go of a layer whose writer died; then: an error.
pub const PULL_UNLOCK_MAX: Duration = Duration::from_secs(10);

/// Versions of a service's image that stay on a board on which it has a task: the present one, and the one before for
/// a rollback. Older ones go by age, or when the disk is full.
pub const IMAGES_PER_SERVICE: usize = 2;
/// How often it is looked whether the disk with the images is fuller than configured: one system call.
pub const IMAGES_EVERY: Duration = Duration::from_secs(600);
/// Hours between two looks at the age of unused images. Each writes it to containerd's database, some KiB for each
/// unused image and nothing if there is none; what the board was on for less than that does not count.
pub const IMAGES_AGE_HOURS: u32 = 6;

/// Files that the agent has open at once at most, if the system lets it: sockets of each task and each published
/// port, relays, queries under way. Beyond it whatever needs one more fails, and is tried again.
pub const FILES_MAX: usize = 4096;
/// Queries of a task that are answered in a second, and at once; further ones wait in its socket, where the kernel
/// drops what has no room. Each costs a slow board some 0.1 ms.
pub const QUERIES_PER_SECOND_MAX: u32 = 4000;
/// Bytes of a query for a name; a longer one is turned down.
pub const QUERY_BYTES_MAX: usize = 1232;
/// Bytes of another server's answer over UDP; the rest is cut, and the asker told to use TCP.
pub const NAME_PACKET_BYTES_MAX: usize = 4096;
/// Queries that are forwarded at once for one task; further ones are dropped, and the asker asks again.
pub const FORWARDS_PER_TASK_MAX: usize = 64;
/// Queries that are forwarded at once for all tasks, some 1 KiB of heap and an open file each; further ones are dropped.
pub const FORWARDS_MAX: usize = 256;
/// Sockets that are opened at once inside a task whose service has name servers of its own: as many questions need one
/// thread, some 0.2 ms of a slow board. Those that are not used yet stay open, an open file each.
pub const FORWARD_SOCKETS_AHEAD: usize = 4;
/// Time for another name server to answer; then the next is asked.
pub const FORWARD_MAX: Duration = Duration::from_secs(2);
/// Other name servers that are asked, as in libc; further ones are not.
pub const NAME_SERVERS_MAX: usize = 3;
/// TCP connections of one task to its name server; beyond it the oldest is closed.
pub const NAME_CONNECTIONS_PER_TASK_MAX: usize = 4;
/// TCP connections of all tasks to their name servers, some 2 KiB of heap each; others wait.
pub const NAME_CONNECTIONS_MAX: usize = 64;
/// Time for a query or an answer to pass over a TCP connection; then it is closed.
pub const NAME_TCP_MAX: Duration = Duration::from_secs(5);

const _: () = assert!(
    (3 + FORWARD_SOCKETS_AHEAD) * TASKS_MAX
        + FORWARDS_MAX
        + 2 * NAME_CONNECTIONS_MAX
        + 7 * RELAYS_MAX
        + PORTS_MAX
        + 512
        < FILES_MAX,
    "every limit can be reached at once"
);

/// Local images that are looked at once; others wait. Each holds its documents for a moment, of up to 256 KiB.
pub const LOOKS_MAX: usize = 4;
/// Registries that are asked at once whether a tag has moved whose image is here; others wait.
pub const ASKS_MAX: usize = 2;
/// Time for the answer, login and all; then the local image is used.
pub const ASK_MAX: Duration = Duration::from_secs(15);
/// How long a registry that did not answer is not asked again for an image that is here.
pub const ASK_PAUSE: Duration = Duration::from_secs(30);
/// Registries of which that is remembered; beyond that the memory starts anew.
pub const SILENT_MAX: usize = 16;

const _: () = assert!(PULL_CHUNK <= CTRD_SEND_BUFFER);
const _: () = assert!(CTRD_STREAM_WINDOW <= CTRD_CONNECTION_WINDOW);
/// Bytes of one file of the board's identity, at most; a larger one is damaged.
pub const IDENTITY_FILE_MAX: u64 = 16 << 10;
/// Time for a TCP connection to a manager; then the next try.
pub const DIAL_MAX: Duration = Duration::from_secs(10);
/// The same while there are others to try: then the next one. The kernel has asked three times by then.
pub const DIAL_NEXT_MAX: Duration = Duration::from_secs(4);
/// Time for the TLS handshake with a manager (a Pi Zero needs 0.1 s, bad Wi-Fi seconds); then the next try.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Time for a manager's answer to a join request, which it must store first; then the next try.
pub const JOIN_ANSWER_MAX: Duration = Duration::from_secs(30);
/// Tries to join before giving up, as Swarm does it.
pub const JOIN_TRIES: u32 = 5;
/// Time between two of them.
pub const JOIN_PAUSE: Duration = Duration::from_secs(2);

/// How long after its start the agent waits for a manager before it goes by its journal: a manager that is there has
/// answered by then, also over Wi-Fi that comes up slowly.
pub const OFFLINE_AFTER: Duration = Duration::from_secs(15);
/// The longest that can be configured for it; more is refused.
pub const OFFLINE_AFTER_MAX: Duration = Duration::from_secs(86_400);
/// Part of its lease that a fenced task runs on when an agent starts that does not know when the one before heard the
/// manager: an eighth, which is enough for a session to open, and little if there is none.
pub const UNKNOWN_LEASE_PART: u32 = 8;
/// Least time between two writes of when the manager was heard, into memory (the run directory). What an agent after this
/// one takes for it is too early by this and a heartbeat at most.
pub const HEARD_EVERY: Duration = Duration::from_secs(2);
/// Pause before the journal is written again that could not be.
pub const JOURNAL_RETRY: Duration = Duration::from_secs(60);
/// Bytes of the journal's set: tasks' descriptions and the network's directory. A larger one is not kept, which is told
/// as the board's degradation.
pub const JOURNAL_BYTES_MAX: u64 = 4 << 20;
/// Bytes of one item of it. A larger one is left out; a larger one on the disk is damage.
pub const JOURNAL_ITEM_BYTES_MAX: usize = racimo_common::limits::FRAME_TO_AGENT_MAX;
/// How long the journal waits when the board's tasks changed, so that what changes together is written once.
pub const JOURNAL_AFTER: Duration = Duration::from_secs(1);
/// The same when only the directory of the network changed, which tells of other boards' tasks: a write a minute at most.
pub const JOURNAL_NET_AFTER: Duration = Duration::from_secs(60);
/// Most time between two writes of the journal while tasks end and begin by themselves for ever: the pause doubles from
/// [`JOURNAL_AFTER`] on, and begins anew after twice this time without a write. What the manager takes away waits for
/// none of it.
pub const JOURNAL_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Bytes that are written to the journal at once.
pub const JOURNAL_CHUNK: usize = 32 << 10;

/// Tasks a board holds at once; a further one is rejected with a reason. Each costs some 4 KiB.
pub const TASKS_MAX: usize = 128;
/// Bytes of heap that the descriptions of all tasks may take: environments, labels, arguments. A task beyond it is
/// rejected with a reason. One usually takes some 4 KiB.
pub const HELD_BYTES_MAX: usize = 1 << 20;
/// Bytes of a task's description from which on its container is not made beside another such: while it is made, its
/// description is in memory several times.
pub const HEAVY_BYTES_MIN: usize = 16 << 10;
/// Assignments in one set, over all its parts; more end the session.
pub const SET_TASKS_MAX: usize = 4 * TASKS_MAX;
/// Bytes of a reason in a report; the rest is cut.
pub const REASON_BYTES_MAX: usize = 512;
/// Bytes of a report without ports, at most.
pub const REPORT_BYTES_MAX: usize = REASON_BYTES_MAX + 256;
/// Bytes of a port in a report.
pub const REPORT_PORT_BYTES_MAX: usize = 9;
/// Bytes of reports in one message; more go into the next.
pub const STATUS_BYTES_MAX: usize = racimo_common::limits::FRAME_FROM_AGENT_MAX - 256;
/// Pause before an operation is repeated that failed for the board's sake.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Shortest pause between two checks of one container's health; a shorter interval counts as this one.
pub const PROBE_PAUSE_MIN: Duration = Duration::from_millis(100);
/// Health checks that are under way at once, some 12 KiB of heap each; others wait, and their time counts from when
/// they begin.
pub const PROBES_MAX: usize = 32;
/// Health checks that are being started at once: each takes a CPU some 0.1 s on a Pi. Others wait.
pub const PROBE_STARTS_MAX: usize = 2;
/// Bytes of a health check's output that are read as fast as they come; beyond that it is slowed down.
pub const PROBE_OUTPUT_FAST: usize = 1 << 20;
/// Pause before a container's removal is tried again.
pub const DELETE_RETRY_AFTER: Duration = Duration::from_secs(10);
/// First pause after which a killed process that does not end is killed again; it doubles five times.
pub const KILL_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// Inputs that wait for the main loop; senders wait their turn.
pub const INPUTS_MAX: usize = 64;
/// Messages to the manager that wait to be sent. Reports wait in the table instead, merged.
pub const OUT_QUEUE_MAX: usize = 16;
/// Silence of the manager after which the connection is given up, at the default heartbeat.
pub const MANAGER_SILENCE_MAX: Duration = Duration::from_secs(10);
/// First and longest pause before the managers are dialled again.
pub const DIAL_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(8));
/// Length of a session after which the pause before the next dial starts over at its shortest.
pub const SESSION_STEADY_AFTER: Duration = Duration::from_secs(2);
/// Longest pause after a session that ended sooner: the manager is up, it lets this board in.
pub const REOPEN_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Certificates that a board asks for in a row without a session in between; then the pauses grow.
pub const RENEWALS_MAX: u32 = 3;
/// Addresses of one name that are dialled; further ones are not.
pub const RESOLVED_MAX: usize = 4;
/// Time for a name to be looked up; then the next try.
pub const RESOLVE_MAX: Duration = Duration::from_secs(8);
/// Time for answers to the question for a host on the local network; then the system's name servers are asked.
pub const ASK_HOST_MAX: Duration = Duration::from_millis(1500);
/// Time for answers to the question for managers on the local network.
pub const ASK_MANAGERS_MAX: Duration = Duration::from_secs(1);
/// How long the known managers are dialled before the local network is asked.
pub const DISCOVER_AFTER: Duration = Duration::from_secs(2);
/// Links that are asked through; further ones are not.
pub const LINKS_ASKED_MAX: usize = 8;
/// Announced addresses that are taken from one question's answers. Beyond: left out.
pub const HINTS_FOUND_MAX: usize = 64;
/// Announced addresses that are dialled in one round, drawn by lot. The others get their turn in the next ones.
pub const HINTS_PER_ROUND: usize = 4;
/// Time for a TCP connection to an announced address, and then for the handshake: it is near, or an impostor.
pub const HINT_DIAL_MAX: Duration = Duration::from_secs(2);
/// Time for the handshake with an announced address.
pub const HINT_HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// How long an announced address that did not answer is left alone.
pub const HINT_PAUSE: Duration = Duration::from_secs(5);
/// How long an announced address is left alone that led to somebody else, and told of again at the soonest.
pub const HINT_REST: Duration = Duration::from_secs(60);
/// Announced addresses that are remembered because they led nowhere, 40 bytes each. When full: the oldest goes.
pub const HINTS_KEPT_MAX: usize = 64;
/// Pause before the manager is dialled again that said it does not know this node.
pub const REMOVED_PAUSE: Duration = Duration::from_secs(60);
/// Pauses before the manager is dialled again that takes this board for a copy of another: after the first refusal,
/// which is longer than a manager waits for anybody, and after further ones.
pub const CLONE_PAUSE: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(60));
/// Time for a manager to hear that the board leaves, with one try after the longest pause; then it leaves without.
pub const LEAVE_TOLD_WITHIN: Duration = Duration::from_secs(20);
/// Time for the manager to take a board's leaving in; then it counts as not told.
pub const LEAVE_TAKEN_WITHIN: Duration = Duration::from_secs(5);
/// Time for containerd to say which containers there are when the board leaves; then they stay.
pub const LEAVE_LISTED_WITHIN: Duration = Duration::from_secs(15);
/// Time for tasks to stop when the board leaves; then those that have not stay.
pub const LEAVE_STOPPED_WITHIN: Duration = Duration::from_secs(60);
/// Time for the kernel's part of the network to go when the board leaves; then what is left of it stays.
pub const LEAVE_NETWORK_WITHIN: Duration = Duration::from_secs(10);
/// Time for all of it: then a command that asked for it gives up waiting.
pub const LEAVE_WITHIN: Duration = Duration::from_secs(120);
/// Bytes of a command to the agent; a longer one is none.
pub const CONTROL_COMMAND_MAX: usize = 16;
/// Bytes of its answer; the rest is cut.
pub const CONTROL_ANSWER_BYTES_MAX: u64 = 4 << 10;
/// Time to connect to the agent's socket, to say a command and to take the answer; then the connection is closed.
pub const CONTROL_WITHIN: Duration = Duration::from_secs(5);

const _: () = assert!(DIAL_PAUSE.1.as_secs() + DIAL_MAX.as_secs() < LEAVE_TOLD_WITHIN.as_secs());
const _: () = assert!(
    LEAVE_TOLD_WITHIN.as_secs() + LEAVE_STOPPED_WITHIN.as_secs() + 2 * LEAVE_NETWORK_WITHIN.as_secs()
        < LEAVE_WITHIN.as_secs()
);

/// How often the board's description is read again, and whether it joined anew is looked up.
pub const DESCRIBE_EVERY: Duration = Duration::from_secs(20);

/// How often a board without an identity, or one that was removed, looks whether it joined meanwhile.
pub const IDENTITY_EVERY: Duration = Duration::from_secs(2);
/// First and longest pause before containerd is asked again what there is; nothing is done before it has answered.
pub const LIST_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Time for the goodbye to reach the manager when the agent is asked to stop; then it stops without.
pub const BYE_MAX: Duration = Duration::from_millis(500);
/// How long reports wait when the way to the manager is full.
pub const FLUSH_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Bytes of heap at which allocation fails and the agent aborts: the last line. Tasks run on, systemd starts it again.
pub const HEAP_MAX: usize = 4 << 20;

/// Bytes of heap above which the agent takes no new tasks: they are rejected with the reason, and the manager tries
/// other boards. Tasks that run, and their updates, are not concerned.
pub const HEAP_SOFT: usize = 3 << 20;
/// Bytes of heap above which services of the cluster that this board does not know yet are left out of its network: they
/// cannot be reached from it, which is told as its degradation. They take up to three times as much while all change.
pub const HEAP_NET: usize = 2 << 20;
/// How long until those that were left out are asked for again when there is room, at first and at most: what is brought
/// may take the room again.
pub const LEFT_OUT_PAUSE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));
/// Services whose being left out is remembered, 16 bytes each. More: they are not counted, and come all the same.
pub const LEFT_OUT_MAX: usize = 1024;

const _: () = assert!(HEAP_NET < HEAP_SOFT && HEAP_SOFT < HEAP_MAX);
const _: () = assert!(HELD_BYTES_MAX <= HEAP_MAX / 4 && MAKES_MAX * HEAVY_BYTES_MIN <= HEAP_MAX / 16);

/// Bytes of one line in a log file; a longer one is cut into pieces, and the manager joins them again. Each output of
/// a container holds one, while its line has not ended.
pub const LOG_PIECE_BYTES_MAX: usize = 8 << 10;
/// Bytes that a log process holds back before it writes them. While the disk is full, further lines are dropped and
/// counted.
pub const LOG_BUFFER_BYTES: usize = 16 << 10;
/// How long a log process holds lines back: writes that a card sees once a second instead of for each line.
pub const LOG_FLUSH_EVERY: Duration = Duration::from_secs(1);
/// How long a log process that is told to end waits for the end of its container's output. containerd's shim gives it
/// 12 s, and closes the output first.
pub const LOG_END_MAX: Duration = Duration::from_secs(5);
/// Bytes of a log that are read at once; what is in them fits a frame. The longest line fits too.
pub const LOG_BLOCK_BYTES: usize = 16 << 10;
/// How often a log that somebody follows is looked at for new lines.
pub const LOG_FOLLOW_EVERY: Duration = Duration::from_millis(250);
/// Readings of logs at once, some 300 bytes and an open file each; a further one is refused with a reason.
pub const LOG_READINGS_MAX: usize = racimo_common::limits::LOG_READINGS_MAX;

const _: () = assert!(3 * LOG_BLOCK_BYTES < racimo_common::limits::FRAME_FROM_AGENT_MAX);
const _: () = assert!(LOG_PIECE_BYTES_MAX + 128 < LOG_BLOCK_BYTES);

/// Connections to published ports over IPv6 at once, some 2 KiB of heap and 7 open files each; those that are silent
/// longest make room, if they have been so for a while; else further ones wait.
pub const RELAYS_MAX: usize = 128;
/// Connections to one published port that wait to be taken; the kernel ignores further ones, and they try again.
pub const RELAYS_WAITING_MAX: i32 = 128;
/// How long a connection over IPv6 is silent before another one may take its place. Then it is also asked whether
/// anybody is there.
pub const RELAY_SILENT_MIN: Duration = Duration::from_secs(60);
/// How often waiting connections look for such a one.
pub const RELAY_LOOK_EVERY: Duration = Duration::from_secs(5);
/// Bytes that are on their way between two sockets, in the kernel; more wait where they come from.
pub const RELAY_BYTES: usize = 64 << 10;
/// Tasks that are tried for one connection; then it is reset.
pub const RELAY_TRIES: usize = 3;
/// Time for a task to take a connection; then the next one is tried.
pub const RELAY_CONNECT_MAX: Duration = Duration::from_secs(2);
/// Pause after a connection could not be taken, as there are too many open files.
pub const RELAY_PAUSE: Duration = Duration::from_millis(100);
/// Ports of which a line a minute says that connections to them are not taken. Beyond: nothing is said.
pub const RELAY_NOTES_MAX: usize = 16;
/// Ports of the board that are published at once, of services and of single tasks, an open file and some 200 bytes of
/// heap each. Those of services beyond it do not answer on this board until there is room, which is told as its
/// degradation; a task that needs one more is rejected with the reason.
pub const PORTS_MAX: usize = 1024;
/// Taken ports that are told of one by one; others are counted.
pub const DEGRADED_PORTS_MAX: usize = 8;
/// How often a taken port is tried again.
pub const PORTS_RETRY_EVERY: Duration = Duration::from_secs(5);

/// Bytes of one batch of netlink messages. An nf_tables transaction is one batch; a larger one is refused, so whoever
/// has more makes several transactions ([`NETLINK_PART`]).
pub const NETLINK_BATCH_MAX: usize = 512 << 10;
/// Bytes of a batch from which on whatever can be sent by itself is sent: what goes beyond it is little.
pub const NETLINK_PART: usize = 64 << 10;
/// Bytes sent at once where each message stands for itself: the answers must fit the socket's buffer.
pub const NETLINK_CHUNK: usize = 16 << 10;
/// Bytes of one answer of a listing. The kernel makes them of at most 32 KiB where the reader takes so much, of less
/// where it does not; a single entry takes up to 2 KiB.
pub const NETLINK_ANSWER: usize = 16 << 10;
/// Bytes of answers that wait in the kernel for us to read them. When full: further ones are lost, and we are told.
pub const NETLINK_WAITING: usize = 1 << 20;
/// Entries of one listing that are held in memory, some 50 bytes each; with more the listing fails.
pub const NETLINK_LIST_MAX: usize = 8192;
/// Listings that are begun again because something changed meanwhile; then the listing fails.
pub const NETLINK_LIST_TRIES: usize = 8;
/// Time for one answer of the kernel; then an error. It is there when the request has been sent, unless a driver hangs.
pub const NETLINK_ANSWER_MAX: Duration = Duration::from_secs(5);
/// Bytes of what the kernel says about a refusal; the rest is cut.
pub const NETLINK_EXPLANATION_MAX: usize = 256;
/// Elements of a set that go into one message: 64 KiB is the most that an attribute holds, and one takes up to 80 bytes.
pub const NFT_ELEMENTS_PER_MESSAGE: usize = 256;
/// Endpoints of one service up to which each has a rule; above, one rule looks them up in a map. A rule costs each new
/// connection some 80 ns.
pub const NFT_LISTED_ENDPOINTS: usize = 16;

const _: () =
    assert!(NETLINK_CHUNK < NETLINK_PART && NETLINK_PART < NETLINK_BATCH_MAX && NETLINK_BATCH_MAX < HEAP_MAX / 4);
const _: () = assert!(NFT_ELEMENTS_PER_MESSAGE * 80 < u16::MAX as usize);

/// Bytes of stack of a thread that does something in another network namespace.
pub const NAMESPACE_STACK: usize = 128 << 10;
/// Times that a network namespace may be mounted on its file, one over the other; with more its removal fails, and is
/// tried again.
pub const NAMESPACE_MOUNTS_MAX: usize = 16;

/// Published ports, virtual addresses and endpoints that are told to the kernel at once; then others get their turn.
pub const NET_PORTION: usize = 64;

/// Boards in one message to the WireGuard device, 100 bytes each: 64 KiB is the most that an attribute holds. Further
/// ones come in the next.
pub const WIREGUARD_PEERS_PER_MESSAGE: usize = 64;
/// How often other firewalls of the board are looked at: they start, and load their rules anew, when they like.
pub const FIREWALL_EVERY: Duration = Duration::from_secs(20);
/// Characters of what a firewall's program says when it fails; the rest is cut.
pub const FIREWALL_WORDS_MAX: usize = 200;
/// First and longest pause before everything is told to the kernel anew after a failure.
pub const NET_RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// How often it is looked whether other programs removed what is ours: some requests that change nothing, 1 ms on a Pi.
pub const NET_LOOK_EVERY: Duration = Duration::from_secs(20);
/// How long what the manager told of the network waits to be written to the run directory: it comes in parts.
pub const NET_WRITE_AFTER: Duration = Duration::from_secs(1);
/// Failures of the network that are told of one by one; others are counted.
pub const DEGRADED_FAULTS_MAX: usize = 4;
/// Time between a task's leaving of the balance and the signal that stops it, as in Docker: by then all boards have
/// heard of it, and it takes no new connections.
pub const LEAVE_BALANCE: Duration = Duration::from_secs(2);
/// Time between a task's leaving of the balance and the forgetting of connections to it that nobody has answered. One
/// whose answer is on its way then is torn, so it is longer than an answer takes; clients that ask again come to the
/// task until then, so the task is still there.
pub const FORGET_UNANSWERED_AFTER: Duration = Duration::from_secs(1);
const _: () = assert!(FORGET_UNANSWERED_AFTER.as_millis() < LEAVE_BALANCE.as_millis());
