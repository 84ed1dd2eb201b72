//! Bounds of the server, and what happens when one is reached.

use ringraft_shards::limits::{ENTRY_BYTES_MAX, LINK_OTHERS_WAITING_BYTES_MAX, STRING_BYTES_MAX};
use std::time::Duration;

/// Arguments of one request; more is a protocol error and the connection is closed.
pub const ARGUMENTS_MAX: usize = 1024 * 1024;

/// Length of an inline request or of a length line; more is a protocol error.
pub const INLINE_BYTES_MAX: usize = 64 * 1024;

/// Arguments of a request before AUTH, when a password is set.
pub const UNAUTHENTICATED_ARGUMENTS_MAX: usize = 10;

/// Length of one argument before AUTH, when a password is set.
pub const UNAUTHENTICATED_BULK_BYTES_MAX: usize = 16 * 1024;

/// Size of one provided receive buffer. A request larger than this is assembled in the connection.
pub const RECEIVE_BUFFER_BYTES: usize = 16 * 1024;

/// Provided receive buffers per core (a power of two). When all are taken, receiving waits for the
/// turn's end.
pub const RECEIVE_BUFFER_COUNT: usize = 512;

/// Receive buffers that the kernel has at least; with more in a turn it gets more, up to all of
/// them.
pub const RECEIVE_BUFFERS_IN_USE_MIN: usize = 32;
const _: () = assert!(RECEIVE_BUFFERS_IN_USE_MIN <= RECEIVE_BUFFER_COUNT);

/// How long a start waits for the kernel to have memory for a core's ring, and how long between two
/// attempts.
pub const RING_MEMORY_WAIT: Duration = Duration::from_secs(2);
/// See [`RING_MEMORY_WAIT`].
pub const RING_MEMORY_PAUSE: Duration = Duration::from_millis(20);

/// Receives in a second up to which a core counts as resting: the memory of its receive buffers is
/// given back, and the next receives cost a page fault each.
pub const RECEIVES_AT_REST_MAX: usize = 64;

/// Completions taken from the ring in one turn; the rest waits for the next turn.
pub const COMPLETIONS_PER_TURN_MAX: usize = 256;

/// The same while a shard moves: the cores' turns are what its clients wait for, four of them one
/// after the other.
pub const COMPLETIONS_PER_MOVING_TURN_MAX: usize = 8;

/// How far ahead connections are fetched into the cache where many are gone through.
pub const CONNECTIONS_AHEAD: usize = 4;

/// Sockets from which on a turn sends to them by one system call. Measured with a reader on another
/// cpu: two cost as much either way, eight an eighth less, a hundred a fifth.
pub const SENDS_TOGETHER_MIN: usize = 4;

/// Sockets that one system call sends to; more take another one. The kernel holds 40 KiB for it.
pub const SENDS_TOGETHER_MAX: usize = 512;

/// Log writes up to this size are reported together with the others of their turn; longer ones
/// would hold those up.
pub const JOINT_WRITE_BYTES_MAX: usize = 256 * 1024;

/// Longest frame of a journal. A turn that writes more has several.
pub const FRAME_BYTES_MAX: usize = 4 << 20;

/// Frames of a core's journal that are under way; what comes meanwhile gathers into the next one.
pub const FRAMES_IN_FLIGHT_MAX: usize = 4;

/// A file of a journal is made where so many times its size is free.
pub const JOURNAL_ROOM_FACTOR: u64 = 8;

/// How long a core waits, in milliseconds, before it tries again to make a journal for which there
/// was no room.
pub const JOURNAL_RETRY_MS: i64 = 5000;

/// Arguments of the requests that are taken from one connection in one turn, names of commands
/// included, the last request whole. The rest of its input waits while the others have their turn,
/// so that a deep pipeline starves nobody: 170 SETs, or 25 ZADDs of ten members.
pub const ARGUMENTS_PER_CONNECTION_TURN_MAX: usize = 512;

/// Shards up to which it is counted which of them are used together: a number for each pair.
pub const COMPANION_SHARDS_MAX: usize = 64;

/// Local reads that are looked up together in stages (hash, prefetch, execute).
pub const READS_PER_STAGE: usize = 64;

/// Unsent reply bytes above which a connection's requests are no longer executed.
pub const OUTPUT_PAUSE_BYTES: usize = 1 << 20;

/// Members that SPOP draws one by one. More are a run of a large set, whose order is by chance
/// itself, cut off as a whole.
pub const POPPED_EACH_MAX: u64 = 1000;

/// Bytes of a slice of a long reply, and of what is written of it at once: as many elements as they
/// have room for, the last one whole. More is written when the client has taken these, a slice per
/// turn.
pub const LONG_REPLY_SLICE_BYTES: usize = 64 << 10;

/// Elements that a slice looks at, shown or not.
pub const LONG_REPLY_SLICE_ELEMENTS: u64 = 16_384;

/// Connections that get a slice of their long replies in a turn of a core; the others come next.
pub const LONG_REPLY_SLICES_PER_TURN: usize = 4;

/// Leaves that a turn frees of what long replies have kept.
pub const LAZY_FREE_LEAVES_PER_TURN: usize = 64;

/// Bytes of requests that a connection may have waiting behind unread replies; above it nothing
/// more is received until the client reads. A client that writes more than this before it reads
/// waits for ever.
pub const INPUT_WAITING_BYTES_MAX: usize = 64 << 20;

/// MIGRATEs under way on a core, each with a thread; further ones wait their turn.
pub const MIGRATIONS_MAX: usize = 64;

/// Connections to targets of MIGRATE that a core keeps for the next; the oldest goes.
pub const MIGRATE_LINES_KEPT_MAX: usize = 64;

/// For how long they are kept, as in Redis.
pub const MIGRATE_LINES_KEPT_MS: i64 = 10_000;

/// Keys whose acknowledgement a MIGRATE waits for at most; then it hears before it sends more.
pub const MIGRATE_REPLIES_MAX: usize = 64;

/// Keys that a shard reads at once for a MIGRATE.
pub const MIGRATE_SLICE_KEYS_MAX: usize = 128;

/// How often the reading of a value begins whose elements end meanwhile; then its key stays.
pub const MIGRATE_STARTS_MAX: u32 = 8;

/// Messages in a core's mailbox. A sender that finds it full keeps the message and tries again next
/// turn.
pub const MAILBOX_MESSAGES_MAX: usize = 1024;

/// Messages between cores, of each kind, that a core keeps for their memory when they are read.
pub const SPARE_MESSAGES_MAX: usize = 3;

/// Bytes of arguments or replies in a message that is kept; the memory of a longer one is given
/// back.
pub const SPARE_MESSAGE_BYTES_MAX: usize = 128 * 1024;

/// How far ahead the replies of another core are fetched into the cache.
pub const REPLIES_PREFETCHED_BYTES: usize = 512;

/// Requests of one connection that may be unfinished; more wait unparsed until some are done.
pub const UNFINISHED_REQUESTS_MAX: u32 = 16 * 1024;

/// Size of one write batch of a shard; a larger one is closed and proposed before the turn ends.
pub const BATCH_BYTES_MAX: usize = ringraft_shards::limits::SET_BYTES_MAX;

/// Keys of joined requests over several shards, after which they are begun before the turn ends.
pub const JOINED_KEYS_MAX: usize = 8192;

/// Bytes of their arguments, likewise.
pub const JOINED_BYTES_MAX: usize = 1 << 20;

/// Items that SCAN looks at when its client names no COUNT.
pub const SCAN_COUNT_DEFAULT: usize = 10;

/// Keys of a page of KEYS when its client names no LIMIT. Without any word after the pattern there
/// is no limit.
pub const KEYS_LIMIT_DEFAULT: usize = 500;

/// Items that PDEL looks at before it deletes what it found among them: bounds the names held in
/// memory.
pub const PATTERN_DELETE_COUNT: usize = 1024;

/// Bytes of one request as it is sent, or of the commands of one transaction: with what is gathered
/// beside it, it must go into one entry. A longer request is a protocol error and the connection is
/// closed; a longer transaction is refused.
pub const REQUEST_BYTES_MAX: usize = 1792 << 20;
const _: () = assert!(REQUEST_BYTES_MAX > STRING_BYTES_MAX + PAYLOAD_OVERHEAD_BYTES);
// An argument's span takes two bytes more than its length line at most, and its head in a
// transaction eight.
const _: () = assert!(
    REQUEST_BYTES_MAX + INPUT_WAITING_BYTES_MAX + BATCH_BYTES_MAX + 32 * ARGUMENTS_MAX
        <= ENTRY_BYTES_MAX
);

/// What DUMP puts around a value: type, length, version and checksum. RESTORE takes a payload that
/// is longer by as much than a string may be.
pub const PAYLOAD_OVERHEAD_BYTES: usize = 1 + 9 + 2 + 8;

/// Longest key or value in kvnode's `state.bin`: as long as a string may be. A longer one is taken
/// for damage.
pub const KVNODE_STRING_BYTES_MAX: u64 = STRING_BYTES_MAX as u64;

/// Files of Redis' format that include each other, one inside the other; more are refused.
pub const CONFIG_INCLUDES_MAX: usize = 16;

/// Most elements that one request takes by chance when the same one may come again: what is there
/// sets no bound then.
pub const RANDOM_ELEMENTS_MAX: u64 = 1 << 24;

/// Bytes of the names and values of one entry of a stream, as in Redis.
pub const STREAM_ENTRY_BYTES_MAX: usize = STRING_BYTES_MAX;

/// Buffer of `ringraft snapshot print` before its output.
pub const PRINT_BUFFER_BYTES: usize = 64 * 1024;

/// Most words of elements in one of its commands.
pub const PRINTED_ELEMENTS_MAX: usize = 512;

/// How long a starting server waits for an address in use to become free, before it gives up: the
/// kernel closes the sockets that a ring of a killed process holds some milliseconds after the
/// process is gone.
pub const ADDRESS_RELEASE_TIME_MAX: Duration = Duration::from_secs(1);

const _: () = assert!(RECEIVE_BUFFER_COUNT.is_power_of_two() && RECEIVE_BUFFER_COUNT <= 32768);
const _: () = assert!(UNAUTHENTICATED_BULK_BYTES_MAX <= INLINE_BYTES_MAX);

/// Locked memory of one core: glommio's three rings with 64 KiB of registered memory each (80 KiB
/// apiece at depth 128), the socket ring (64 KiB of submissions, 128 KiB of completions, 4 KiB of
/// index) and its buffer list (8 KiB). What cannot be locked is refused at the start.
pub const LOCKED_BYTES_PER_CORE: u64 = (3 * 80 + 64 + 128 + 4 + 8) * 1024;

/// Locked memory below which glommio refuses to start, whatever it needs.
pub const LOCKED_BYTES_MIN: u64 = 512 * 1024;

/// Time from being accepted until which a client must be through its TLS handshake, milliseconds;
/// then it is closed.
pub const TLS_HANDSHAKE_TIME_MAX_MS: i64 = 10_000;

/// Time that a turn spends on TLS handshakes, one step of one at least: less than a millisecond
/// with usual keys. The others wait for the next turn.
pub const TLS_HANDSHAKE_TURN_TIME: Duration = Duration::from_micros(500);

/// Bytes that are kept of a client whose handshake waits for its turn; one that sends more jumps
/// the row.
pub const TLS_HANDSHAKE_BYTES_KEPT_MAX: usize = 128 * 1024;

/// Bytes of replies that become TLS records at once, before the socket takes them; with a full
/// socket so many more wait than `client-output-buffer-limit` counts.
pub const TLS_SEND_BYTES: usize = 64 * 1024;

/// Records of TLS 1.2 that are left under a key when its connection takes no more requests: what
/// they are answered with, 1 GiB.
pub const TLS_RECORDS_RESERVED: u64 = 1 << 16;

/// Memory of a TLS session that rests, measured: half of it is rustls' buffer for what is received.
pub const TLS_SESSION_BYTES: usize = 8 * 1024;

/// Between two lines about clients whose TLS fails, on one core, milliseconds; those between are
/// counted.
pub const TLS_REPORT_INTERVAL_MS: i64 = 1000;

/// Between two looks at whether certificates have changed. They are read when two looks show the
/// same.
pub const TLS_FILES_INTERVAL: Duration = Duration::from_secs(1);

/// Descriptors of the process itself: standard streams, lock, log file, metrics page and its
/// readers.
pub const OPEN_FILES_OF_PROCESS: u64 = 64;

/// Descriptors of a core: rings, eventfds, listeners.
pub const OPEN_FILES_PER_CORE: u64 = 16;

/// Descriptors of a shard: segments being written, made ready and read, snapshots.
pub const OPEN_FILES_PER_SHARD: u64 = 8;

/// Head of a request for the metrics page; a longer one is refused and its connection closed.
pub const METRICS_REQUEST_BYTES_MAX: usize = 8 << 10;

/// Time after which a core that has not told its load is taken for busy, milliseconds: some ticks.
pub const LOAD_STALE_MS: i64 = 350;

/// Ticks without anything to do after which a core without shards and connections sleeps without a
/// timer: until then its rates have come to zero.
pub const QUIET_TICKS_BEFORE_REST: u32 = 20;

/// Requests after which a connection is judged for a move to another core.
pub const MOVE_VOTES_MIN: u32 = 256;

/// Share of a connection's keys that must belong to another core for it to move there, in percent.
pub const MOVE_SHARE_PERCENT: u64 = 90;

/// Least time between two moves of a connection, milliseconds.
pub const MOVE_INTERVAL_MS: i64 = 1000;

/// Bytes of a message from which on its subscribers share it: below, a copy is cheaper than to
/// count who has it.
pub const SHARED_MESSAGE_BYTES_MIN: usize = 1024;

/// Items that a shard evicts in one turn of its own accord, when memory is over its limit and no
/// write asks for room: some 0.5 ms of work, so that requests go on beside it. The next turn goes
/// on.
pub const EVICTIONS_PER_TURN_MAX: usize = 128;

/// Evictions of one shard on their way through its log; with more it waits for them, so that
/// clients' writes do not.
pub const EVICTIONS_UNDER_WAY_MAX: usize = 512;
const _: () = assert!(EVICTIONS_PER_TURN_MAX <= EVICTIONS_UNDER_WAY_MAX);

/// Buckets that one round of the search for expired items looks at.
pub const EXPIRE_BUCKETS_PER_TICK: usize = 2048;

/// Rounds per tick at most, while many of the items found have expired.
pub const EXPIRE_ROUNDS_PER_TICK_MAX: usize = 16;

/// Least `--segment-size`: room for one record of the largest size. Less is refused.
pub const SEGMENT_BYTES_MIN: u64 = 8 << 20;

/// Greatest `--segment-size`: recovery and recycling work segment by segment. More is refused.
pub const SEGMENT_BYTES_MAX: u64 = 4 << 30;

/// `--segment-size` is rounded up to whole steps: whole blocks of any disk.
pub const SEGMENT_BYTES_STEP: u64 = 1 << 20;

const _: () = assert!(SEGMENT_BYTES_MIN > BATCH_BYTES_MAX as u64);
const _: () = assert!(SEGMENT_BYTES_MIN.is_multiple_of(SEGMENT_BYTES_STEP));
/// Buckets of a snapshot's cut that are handed out in one turn, or a piece of a large value.
pub const SNAPSHOT_BUCKETS_PER_TURN: usize = 16;

/// Items that a load has overwritten and that are handed out in one turn.
pub const SNAPSHOT_DISPLACED_PER_TURN: usize = 512;

/// Bytes of a snapshot on their way to the disk; with more the cut waits.
pub const SNAPSHOT_BYTES_IN_FLIGHT_MAX: usize = 2 << 20;

/// While a core serves more commands per millisecond than this, a snapshot has
/// [`SNAPSHOT_WINDOW_WORK_US`] of every [`SNAPSHOT_WINDOW_MS`] for its walk, some 20 MB/s of small
/// items: requests go first.
pub const SNAPSHOT_LOAD_PER_MS: u64 = 5;

/// See [`SNAPSHOT_LOAD_PER_MS`].
pub const SNAPSHOT_WINDOW_WORK_US: u64 = 1000;

/// See [`SNAPSHOT_LOAD_PER_MS`].
pub const SNAPSHOT_WINDOW_MS: i64 = 25;

/// Time before a snapshot that failed is tried again, milliseconds; doubled with each failure up to
/// [`SNAPSHOT_RETRY_MS_MAX`].
pub const SNAPSHOT_RETRY_MS_MIN: i64 = 1000;

/// The longest such time, milliseconds.
pub const SNAPSHOT_RETRY_MS_MAX: i64 = 30_000;
const _: () = assert!(SNAPSHOT_RETRY_MS_MIN <= SNAPSHOT_RETRY_MS_MAX);

/// Buckets of cleared databases that are freed in one turn.
pub const FREED_BUCKETS_PER_TURN: usize = 256;

/// Empty slabs (64 KiB each) of a shard whose memory is given back per tick: 20 MB/s. What is
/// needed again sooner costs page faults.
pub const SLABS_GIVEN_BACK_PER_TICK: usize = 32;

/// What each shard's compaction may cost per tick, as `Keyspace::compact_some` counts it (0.5 ms at
/// most).
pub const COMPACTION_BUDGET_PER_TICK: usize = 12_000;

/// Time between two looks at how many receive buffers a core needs, and at how much memory is
/// allocated (`used_memory_peak`), milliseconds.
pub const REST_INTERVAL_MS: i64 = 1000;

/// Time since its last request after which a connection's buffers are shrunk, milliseconds.
pub const IDLE_BUFFERS_KEPT_MS: i64 = 1000;

/// Fields that one operation takes out of a hash because they have ended: less than a millisecond.
pub const ENDED_FIELDS_PER_OPERATION: usize = 128;
/// Such operations that a shard proposes each time it looks.
pub const ENDED_FIELDS_OPERATIONS_MAX: usize = 64;

/// Runs of a script that begin again with more keys locked; the next one locks all shards.
pub const SCRIPT_ATTEMPTS_MAX: u32 = 8;

/// Commands of a script that run on guesses, after the first key that was not there.
pub const SCRIPT_GUESSES_MAX: usize = 100_000;

/// Between two looks at whether a script must end, instructions of Lua.
pub const SCRIPT_TICK_INSTRUCTIONS: u32 = 10_000;

/// So often it is looked at while a script runs on guesses; then it runs again.
pub const SCRIPT_GUESS_TICKS_MAX: u32 = 1000;

/// Longest password that ACL GENPASS makes, bits.
pub const ACL_PASSWORD_BITS_MAX: usize = 4096;

/// Longest key, channel or name that ACL LOG keeps of what was denied; the rest is cut.
pub const ACL_LOG_TEXT_BYTES_MAX: usize = 16 << 10;

/// Entries that ACL LOG shows when it is not told how many.
pub const ACL_LOG_SHOWN_DEFAULT: i64 = 10;

/// Scripts that a core keeps compiled; with more all are compiled again when they are called.
pub const SCRIPTS_COMPILED_MAX: usize = 4096;

/// Bytes of a text that a script loads in pieces.
pub const SCRIPT_LOADED_BYTES_MAX: usize = 64 << 20;

/// A library of functions that takes longer to run when it is loaded is refused: its text is to
/// register functions and nothing else. As Redis has it.
pub const LIBRARY_LOAD_TIME_MAX: std::time::Duration = std::time::Duration::from_millis(500);

/// A script that has run so long lets its core do other things, when `busy-reply-threshold` does
/// not say when others are told of it.
pub const SCRIPT_PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// A script that runs ahead of the log ends within this time, or begins again with locks: its
/// shard's requests wait for it.
pub const SCRIPT_AHEAD_TIME_MAX: std::time::Duration = std::time::Duration::from_millis(2);

/// What one script does on the items of a shard takes no more of the shard's log; one that does
/// more runs on copies, of which the log has the last.
pub const SCRIPT_LOGGED_BYTES_MAX: usize = 1 << 20;

/// A script that wanted more than the items of one shard, ran too long on them or did too much runs
/// on copies so many times.
pub const SCRIPT_DETOURS: u32 = 100;

/// Memory for a script's reply that is kept for the next one.
pub const SCRIPT_REPLY_KEPT_BYTES: usize = 64 << 10;

/// A key of a script whose hash is kept for the next command is no longer.
pub const SCRIPT_LAST_KEY_BYTES_MAX: usize = 128;

/// The tables of a script's keys and arguments are filled again for the next one if they have no
/// more elements than this: then looking through them costs less than a new one.
pub const SCRIPT_ROW_KEPT_MAX: usize = 4;

/// Memory for the arguments of a script's command that is kept for the next one. Little: another
/// command may keep them for long.
pub const SCRIPT_ARGUMENTS_KEPT_BYTES: usize = 1 << 10;

/// Commands that scripts have run whose time is kept for the next script.
pub const SCRIPT_COMMANDS_KEPT: usize = 16;

/// Of each command that scripts run so many are timed, and then one of [`COMMANDS_PER_TIMED`].
pub const COMMANDS_TIMED: u32 = 2;
/// See [`COMMANDS_TIMED`].
pub const COMMANDS_PER_TIMED: u32 = 32;

/// So many scripts run before garbage is collected again that one of them has told not to be.
pub const SCRIPTS_PER_GC_RESTART: u32 = 64;

/// Operations that are looked through for one that changes what a script is about to read; with
/// more it waits for locks.
pub const SCRIPT_AHEAD_SEARCH_MAX: usize = 1024;

/// From then on it runs so long at once: what others wait for an answer.
pub const SCRIPT_SLICE: std::time::Duration = std::time::Duration::from_millis(5);
/// Replies of a server that an import is ahead of; then it waits for them.
pub const IMPORT_REPLIES_MAX: usize = 10_000;

/// Clients that are closed at once because all together hold too much memory; a tenth of a second
/// later it is looked again.
pub const CLIENTS_EVICTED_AT_ONCE_MAX: usize = 1024;

/// Messages of the process that wait in a link, in bytes, above which more wait before it: well
/// below what it gives back. As many may wait there before clients do.
pub const LINK_PENDING_BYTES_MAX: usize = 8 << 20;
const _: () = assert!(LINK_PENDING_BYTES_MAX < LINK_OTHERS_WAITING_BYTES_MAX);

/// Pieces of bytes that one send takes.
pub const LINK_SLICES_PER_SEND: usize = 256;

/// Requests of a client that are with the node that leads, in bytes; more wait.
pub const RELAY_KEPT_BYTES_MAX: usize = 16 << 20;

/// How long a request waits for somebody to lead.
pub const HELD_FOR_LEADER_MS: i64 = 5000;

/// How long a node that ends tries to hand leadership over.
pub const HAND_OVER_MS: i64 = 2000;

/// Entries that a member may lack beside what has come lately, and be level.
pub const LEVEL_ENTRIES: u64 = 64;

/// A learner that is level lacks no more than has come in so many ticks, which is the time after
/// which an election begins; so does who takes over from a leader that has no place any more.
pub const LEVEL_LEARNER_TICKS: usize = 8;

/// Who leads the meta group and shall lead a shard lacks no more than what has come in so many:
/// while it gets that, nothing is written.
pub const LEVEL_HEIR_TICKS: usize = 2;
const _: () = assert!(LEVEL_HEIR_TICKS <= LEVEL_LEARNER_TICKS);

/// Ticks between two attempts to hand the leadership of a group on.
pub const TRANSFER_TICKS: u64 = 10;

/// Ticks for which a read waits at a node that does not lead, until it goes to the one that does.
pub const FOLLOWER_PATIENCE_TICKS: u32 = 1;

/// How long a lease must last yet when a turn begins, so that reads run in place in it: longer than
/// most turns take.
pub const LEASE_LEFT_US: u64 = 20_000;

/// Ticks for which shards are led by another node than the meta group, until that follows them.
pub const LEADERS_APART_TICKS: u64 = 60;

/// Requests whose fate is asked for at once.
pub const RECALL_STAMPS_MAX: usize = 8192;

/// Ticks after which a question that was not answered is asked again.
pub const RECALL_TICKS: u64 = 10;

/// Ticks for which a node that leads no more is waited for, to answer what it was sent. Then the
/// next one is asked.
pub const OLD_LEADER_TICKS: u64 = 2;

/// How long a log write may be under way, until its disk counts as hanging: milliseconds.
pub const DISK_HANGS_MS: u64 = 300;

/// Before a leader hands over since its disk hangs, it hears for so long whether those of the
/// others do as well, milliseconds.
pub const DISK_HANGS_TOLD_MS: i64 = 100;

/// A node whose disk has hung so short a time ago is no heir of one whose disk hangs: they may
/// share it. Milliseconds.
pub const DISK_HUNG_LATELY_MS: i64 = 2000;

/// From then on a leader does not wait for its heir any more, but falls silent.
pub const DISK_SILENT_MS: u64 = 600;

/// A disk may be slow whose p99 of log writes is so long, microseconds,
pub const DISK_SLOW_US: u64 = 50_000;

/// and is, when it is so many times the median of the others.
pub const DISK_SLOW_TIMES: u64 = 5;

/// The p99 of log writes is that of the last five to ten seconds.
pub const WRITE_TIMES_MS: i64 = 5000;

/// Fewer writes say nothing of a disk.
pub const WRITES_JUDGED_MIN: u64 = 100;

/// A clock that differs so much from the median of the nodes is spoken of, milliseconds;
pub const CLOCK_NOTED_MS: i64 = 1000;

/// with so much its node leads nothing while others can.
pub const CLOCK_UNFIT_MS: i64 = 5000;

/// Ticks between two messages that say how a node is.
pub const CONDITION_TICKS: u64 = 20;

/// Ticks for which another node must be connected with more than a leader, for that to be no leader
/// any more. Of a node that has ended the others may say for [`CONDITION_TICKS`] that they are
/// connected with it.
pub const OUTDONE_TICKS: u64 = 3 * CONDITION_TICKS;

/// Bytes of snapshots that go to one node in a second.
pub const TRANSFER_TO_PEER_BYTES_PER_SECOND: u64 = 80 << 20;

/// So many while the p99 of log writes is over [`TRANSFER_SLOWED_P99_US`], or there is a load, see
/// [`SNAPSHOT_LOAD_PER_MS`].
pub const TRANSFER_SLOWED_BYTES_PER_SECOND: u64 = 40 << 20;

/// See [`TRANSFER_SLOWED_BYTES_PER_SECOND`]; microseconds.
pub const TRANSFER_SLOWED_P99_US: u64 = 10_000;

/// Ticks from the loss of a replica to its being set aside: what was under way for it on any core
/// is over by then.
pub const LOST_REST_TICKS: u64 = 20;

/// Ticks between two questions of a node which replica it has of a shard that it has lost.
pub const LOST_ASK_TICKS: u64 = 10;

/// How long a leader without room waits, after it has tried to hand over, before it tries again,
/// milliseconds. Meanwhile clients are told that there is none.
pub const HAND_OVER_AGAIN_MS: u64 = 10_000;
