//! Bounds of the engine, and what happens when one is reached.

/// Count of databases per shard; SELECT refuses a higher index.
pub const DATABASE_COUNT: usize = 16;

/// Memory that an emptied batch builder keeps for the next turn; more is given back.
pub const BATCH_MEMORY_KEPT_BYTES: usize = 1 << 20;

/// Longest string, key or value, that every format here carries: what `proto-max-bulk-len` may be
/// set to. No reader has a smaller bound (`docs/formats.md`, Lengths).
pub const STRING_BYTES_MAX: usize = 1 << 30;

/// Longest string unless configured otherwise, as in Redis.
pub const STRING_BYTES_DEFAULT: usize = 512 << 20;
const _: () = assert!(STRING_BYTES_DEFAULT <= STRING_BYTES_MAX);

/// Longest string that decoding RDB data yields; a longer one is refused.
pub const DECODED_STRING_BYTES_MAX: usize = STRING_BYTES_MAX;

/// Longest data of an entry: an archive's relative pointers have 31 bits, the log's lengths 32. Who
/// gathers entries sees to it that none gets longer; a longer one is a violation.
pub const ENTRY_BYTES_MAX: usize = 2047 << 20;
const _: () = assert!(ENTRY_BYTES_MAX <= i32::MAX as usize);

/// Bytes of items that fill a chunk of a snapshot; the item that passes it still belongs to the
/// chunk. A reader holds one chunk.
pub const SNAPSHOT_CHUNK_BYTES: usize = 256 << 10;

/// Longest header of a snapshot; a file that claims a longer one is damaged.
pub const SNAPSHOT_HEADER_BYTES_MAX: usize = 64 << 10;

/// Most that is read of a snapshot's `meta.json`; a longer one is cut there and refused.
pub const SNAPSHOT_META_BYTES_MAX: u64 = 1 << 20;

/// Bytes of a snapshot that the disk is left to write at once: after so many it is synced. All at
/// the end would hold up every log on the disk.
pub const SNAPSHOT_SYNC_BYTES: u64 = 8 << 20;

/// Complete snapshots that a shard keeps; older ones are removed once a new one is published.
pub const SNAPSHOT_KEPT_COUNT: usize = 2;

/// Bytes of a snapshot in one frame between nodes.
pub const SNAPSHOT_PIECE_BYTES: usize = 256 << 10;

/// How far a sender of a snapshot may be ahead of what the receiver has written; then it waits.
/// Each end of a transfer holds at most so much.
pub const SNAPSHOT_WINDOW_BYTES: u64 = 2 << 20;
const _: () = assert!(SNAPSHOT_WINDOW_BYTES >= 2 * SNAPSHOT_PIECE_BYTES as u64);

/// Bytes of a snapshot that go to one peer per tick (80 MB/s with ten ticks a second), so that
/// catching up leaves disk and network to the others.
pub const SNAPSHOT_SEND_BYTES_PER_TICK: u64 = 8 << 20;
const _: () = assert!(SNAPSHOT_SEND_BYTES_PER_TICK >= SNAPSHOT_WINDOW_BYTES);

/// Ticks without progress after which a snapshot's sender asks the receiver where it is and goes on
/// from there.
pub const SNAPSHOT_RESEND_TICKS: u32 = 10;

/// Ticks without progress after which either end gives a transfer up: verifying a large file takes
/// its time.
pub const SNAPSHOT_PATIENCE_TICKS: u32 = 600;
const _: () = assert!(SNAPSHOT_PATIENCE_TICKS > 2 * SNAPSHOT_RESEND_TICKS);

/// Bytes of a value that one record of a snapshot holds; a larger one comes in pieces of about so
/// many.
pub const ITEM_PIECE_BYTES: usize = 64 << 10;
const _: () = assert!(ITEM_PIECE_BYTES <= SNAPSHOT_CHUNK_BYTES);

/// Such a piece is as long as the item's key, which each repeats, but no longer than this.
pub const ITEM_PIECE_BYTES_MAX: usize = 256 << 20;
// The lengths of chunks have 32 bits: what was there before, a key, a piece, and the field and
// value that pass its end.
const _: () = assert!(
    SNAPSHOT_CHUNK_BYTES + 3 * STRING_BYTES_MAX + ITEM_PIECE_BYTES_MAX
        < u32::MAX as usize - (1 << 20)
);

/// Bytes that are read of an RDB file at once.
pub const RDB_READ_BYTES: usize = 256 << 10;

/// A collection of more bytes is read of an RDB file in pieces, if its type allows it.
pub const RDB_SPLIT_BYTES: usize = 1 << 20;
const _: () = assert!(RDB_SPLIT_BYTES >= 2 * RDB_READ_BYTES);

/// How many buckets handing out such a piece of a cut counts.
pub const CUT_PIECE_BUCKETS: usize = 16;

/// Items per bucket of eight, in percent, beyond which a table grows. Each slot has its own within
/// this range: tables that fill alike would all grow in the same moment.
pub const TABLE_LOAD_MAX_PERCENTS: std::ops::Range<usize> = 70..90;

/// Items per bucket of eight, in percent, below which a table shrinks.
pub const TABLE_LOAD_MIN_PERCENT: usize = 30;

/// A table of up to so many buckets is resized at once (about 40 us); a larger one bit by bit.
pub const TABLE_BUCKETS_AT_ONCE: usize = 204;

/// Buckets that a write moves while its table is resized bit by bit (about 1 us). A table that has
/// just grown takes two writes per old bucket before it is full again, so it holds two arrays for a
/// sixteenth of the time; with 2 instead of 8 that was a quarter, or 2.7 bytes per key.
pub const TABLE_BUCKETS_PER_WRITE: usize = 8;

/// Buckets that one call of a scan looks at, per item asked for, before it returns with fewer.
pub const SCAN_BUCKETS_PER_ITEM: usize = 10;

/// Keys in a chunk of an ordered index; a fuller one is split. The search in it is a dozen cache
/// misses, an insert moves half of it.
pub const ORDER_CHUNK_KEYS_MAX: usize = 512;

/// Tries to find a random item fairly; after these the next best is taken.
pub const RANDOM_TRIES: usize = 64;

/// An ordered index of keys that nobody used for so long is let go.
pub const ORDER_IDLE_MS: i64 = 60_000;

/// How far a wall clock may be behind a shard's time: so long time stands still. A clock that is
/// further behind turns it back, which is a walk over all items with a deadline.
pub const CLOCK_STANDS_MS_MAX: i64 = 100;

/// Items sampled for each eviction (`maxmemory-samples`).
pub const EVICTION_SAMPLES: usize = 5;

/// Best candidates for eviction that are remembered.
pub const EVICTION_POOL_COUNT: usize = 16;

/// Minutes without access that lower an item's access count by one (`lfu-decay-time`).
pub const FREQUENCY_DECAY_MINUTES: u64 = 1;

/// How much rarer each step up of an access count gets (`lfu-log-factor`).
pub const FREQUENCY_LOG_FACTOR: u64 = 10;

/// Free bytes in slabs that are in use, in percent of what a shard uses, beyond which items are
/// moved closer together.
pub const COMPACTION_SPARE_PERCENT: usize = 10;

/// Free bytes in slabs that are in use, below which items stay where they are.
pub const COMPACTION_SPARE_BYTES_MIN: usize = 4 << 20;

/// Slabs (64 KiB each) that compaction must gain at least to be begun.
pub const COMPACTION_SLABS_MIN: usize = 32;

/// Slabs that are looked at when a compaction begins (1 ms); the rest is for the next one.
pub const COMPACTION_SLABS_MAX: usize = 8192;

/// What moving an item counts, where looking at a bucket counts 1.
pub const COMPACTION_MOVE_COST: usize = 4;

/// Calls of a tick each between two looks whether compaction pays.
pub const COMPACTION_WAIT_CALLS: usize = 10;

/// Size of a log segment unless configured otherwise.
pub const LOG_SEGMENT_BYTES: u64 = 64 << 20;

/// Longest log record, which is the longest single write; a larger entry is spread over several
/// records.
pub const LOG_RECORD_BYTES_MAX: usize = 4 << 20;

/// Log writes in flight; what comes meanwhile gathers into the next one.
pub const LOG_WRITES_IN_FLIGHT_MAX: usize = 4;

/// Bytes of log writes in flight; when it is reached the next write waits.
pub const LOG_WRITE_BYTES_IN_FLIGHT_MAX: usize = 16 << 20;

/// Buffers of finished log writes that are kept for the next ones.
pub const LOG_BUFFERS_KEPT: usize = 8;

/// A buffer of a finished log write with more room than this is given back instead of kept.
pub const LOG_BUFFER_KEPT_BYTES: usize = 1 << 20;

/// Records that a journal has made durable gather up to so many bytes before they are written to
/// their segment. A longer record is written by itself.
pub const LOG_RUN_BYTES_MAX: usize = 64 << 10;

/// Bytes of neighbouring records that a start writes to a segment at once, about.
pub const REDO_WRITE_BYTES_MAX: usize = 1 << 20;

/// Files of compacted segments that are kept to become new segments; more are removed.
pub const LOG_FREE_FILES_KEPT: usize = 2;

/// Room at the end of the last segment that proposals leave for votes and terms when the disk is
/// full: some thirty restarts. An eighth of a segment at most.
pub const LOG_RESERVE_BYTES: u64 = 256 << 10;

/// Room before it that only proposals which make the data smaller use: 256 single ones, or some ten
/// thousand that came together. An eighth of a segment at most.
pub const LOG_SHRINK_RESERVE_BYTES: u64 = 1 << 20;

/// Free bytes that making a segment leaves on the disk: for small snapshots, and for the files of a
/// start.
pub const FREE_BYTES_LEFT_MIN: u64 = 1 << 20;

/// Bytes of a log that are read back at once for a follower that lags, unless one record is longer.
pub const LOG_READ_BYTES: usize = 1 << 20;

/// Distance in the log between two remembered places of entries; reading an old entry scans at most
/// that much.
pub const LOG_MARK_BYTES: u64 = 64 << 10;

/// Ticks before a failed piece of file work (a new segment on a full disk) is tried again.
pub const FILE_WORK_RETRY_TICKS: u32 = 10;

/// Piece in which a new file is filled with zeros.
pub const ZERO_FILL_CHUNK_BYTES: usize = 1 << 20;

/// Time between two ticks, unless configured otherwise; ticks that come sooner are not counted.
pub const RAFT_TICK_US: u64 = 100_000;

/// By how much the rates of two members' clocks may differ. A lease is shorter by as much; with
/// clocks that are further apart it may outlast the promises that it rests on. (Quartz: 0.01 %; NTP
/// turns a clock by at most 0.05 %.)
pub const RAFT_CLOCK_DRIFT_PERCENT: u64 = 5;

/// Ticks without a leader before an election, unless configured otherwise.
pub const RAFT_ELECTION_TICKS: usize = 10;

/// Ticks between heartbeats, unless configured otherwise.
pub const RAFT_HEARTBEAT_TICKS: usize = 2;
// A lease lasts for eight ticks less the drift: three heartbeats may be lost before it ends.
const _: () = assert!(RAFT_ELECTION_TICKS >= 2 + 3 * RAFT_HEARTBEAT_TICKS);

/// Entries in one append message; more go into the next one. A single larger entry is sent alone.
pub const RAFT_MESSAGE_BYTES_MAX: u64 = 1 << 20;

/// Appends under way to one follower; when it is reached the follower waits.
pub const RAFT_MESSAGES_IN_FLIGHT_MAX: usize = 64;

/// Proposals not committed yet; when it is reached proposals are refused as busy.
pub const RAFT_UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;
const _: () = assert!(RAFT_UNCOMMITTED_BYTES_MAX >= RAFT_MESSAGE_BYTES_MAX);

/// Entries of one shard on their way through the log; what comes meanwhile gathers for the next.
pub const ENTRIES_IN_FLIGHT_MAX: usize = 4;

/// Size of the requests that are proposed together; a larger set is closed and the next one begun.
pub const SET_BYTES_MAX: usize = 4 << 20;

/// Committed entries handed out at a time; the rest comes with the next turn of the loop.
pub const RAFT_COMMITTED_BYTES_PER_POLL: u64 = 16 << 20;

/// Applied entries kept in memory for followers; older ones are read back from the log.
pub const RAFT_ENTRY_CACHE_BYTES: u64 = 16 << 20;

/// Log kept on disk for followers that lag; one that needs more gets a snapshot.
pub const RAFT_RETAINED_BYTES_MAX: u64 = 512 << 20;

/// Reads under confirmation at a time; more are asked to come again.
pub const RAFT_READS_PENDING_MAX: usize = 1024;

/// Transactions that hold or want locks of one shard; more are refused.
pub const TRANSACTIONS_PER_SHARD_MAX: usize = 1 << 16;

/// Ticks that a transaction may hold or want locks of a shard without preparing.
pub const TRANSACTION_LOCK_TICKS: u32 = 100;

/// Ticks after which a coordinator gives up: before preparing it aborts, after that it does not
/// know.
pub const TRANSACTION_COORDINATOR_TICKS: u32 = 100;
const _: () = assert!(TRANSACTION_COORDINATOR_TICKS <= TRANSACTION_LOCK_TICKS);

/// Ticks between a coordinator's repetitions of a message that was not answered.
pub const TRANSACTION_REPEAT_TICKS: u32 = 10;

/// Ticks after which a prepared participant asks the others for the decision, and between two such
/// questions.
pub const TRANSACTION_DOUBT_TICKS: u32 = 20;

/// Ticks between two looks for committed transactions that nobody has declared over.
pub const TRANSACTION_SWEEP_TICKS: u32 = 100;

/// Outcomes that are forgotten in one record; fewer wait for the next tick.
pub const TRANSACTION_FORGET_COUNT: usize = 64;

/// Waiting commands that one operation declares; more are declared once it is applied.
pub const DECLARED_PER_OPERATION_MAX: usize = 64;

/// Longest body of a frame between nodes once the handshake is over; a longer one ends the link.
pub const LINK_FRAME_BYTES_MAX: usize = 2 << 20;

/// Longest body of a frame of the handshake, from whoever has dialled.
pub const LINK_HELLO_BYTES_MAX: usize = 4 << 10;

/// Bytes of items with which a frame is full; the item that passes it still belongs to it.
pub const LINK_TURN_BYTES: usize = 1 << 20;

/// A longer item goes in parts of so many bytes, between which heartbeats and votes pass.
pub const LINK_PART_BYTES: usize = 256 << 10;
const _: () = assert!(LINK_TURN_BYTES + LINK_PART_BYTES < LINK_FRAME_BYTES_MAX);

/// Longest item, which the receiver puts together from its parts: an entry, or what a transaction
/// changes in a shard.
pub const LINK_ITEM_BYTES_MAX: usize = ENTRY_BYTES_MAX + (1 << 20);

/// Appends that were sent and not answered, over all groups of a link; when it is reached the rest
/// waits. One more may be under way when nothing else is.
pub const LINK_UNANSWERED_BYTES_MAX: usize = 16 << 20;

/// Appends of a link of which none was answered for so long count as lost: the peer has dropped
/// them, or leads by now.
pub const LINK_ANSWER_US: u64 = 5_000_000;

/// Bytes encoded and not taken by the socket; when it is reached appends and transactions wait as
/// they are.
pub const LINK_ENCODED_BYTES_MAX: usize = 4 << 20;

/// Votes, heartbeats and answers that wait, in bytes, beside all the rest: they go first. More are
/// dropped, as if lost.
pub const LINK_URGENT_BYTES_MAX: usize = 256 << 10;

/// Appends that wait in a link, in bytes shared with the logs; more are dropped, and the group is
/// told that the peer is unreachable.
pub const LINK_APPENDS_WAITING_BYTES_MAX: usize = 64 << 20;

/// Messages of transactions that wait in a link, in bytes; more are dropped, as if lost. One larger
/// may wait alone.
pub const LINK_OTHERS_WAITING_BYTES_MAX: usize = 64 << 20;

/// A shorter piece of an item is copied between its neighbours, a longer one is sent from where it
/// lies.
pub const LINK_SHARED_BYTES_MIN: usize = 4 << 10;

/// Silence after which a link is cut.
pub const LINK_SILENCE_US: u64 = 1_500_000;

/// A side that has sent nothing for so long sends a sign of life.
pub const LINK_PING_US: u64 = 400_000;
const _: () = assert!(LINK_PING_US * 3 < LINK_SILENCE_US);

/// Time for a handshake, from dialling to its end.
pub const LINK_HANDSHAKE_US: u64 = 1_000_000;

/// Wait before a node that could not be reached is dialled again: doubled each time, from the first
/// to the last.
pub const LINK_REDIAL_US: std::ops::RangeInclusive<u64> = 50_000..=1_000_000;

/// Bytes of what a shard remembers of requests that other nodes sent: some four thousand of them.
/// The oldest go first.
pub const REMEMBERED_BYTES_MAX: usize = 256 << 10;

/// What a remembered request counts beside its reply.
pub const REMEMBERED_ROW_BYTES: usize = 64;

/// Longest reply that is remembered; of a longer one it is known that the request was done.
pub const REMEMBERED_REPLY_BYTES_MAX: usize = 4 << 10;

/// Lanes of which a shard knows what it has forgotten, one by one.
pub const REMEMBERED_LANES_MAX: usize = 1024;

/// Keys of an overlay that are looked through one by one; with more there is a table.
pub const OVERLAY_SEARCH_MAX: usize = 8;

/// Keys saved to be undone among which one is searched for one by one; with more there is a table.
pub const UNDO_SEARCH_MAX: usize = 8;

/// Memory for what was saved that is kept for the next time.
pub const UNDO_KEPT_BYTES: usize = 64 << 10;
