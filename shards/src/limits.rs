//! Bounds of the engine, and what happens when one is reached.

/// Count of databases per shard; SELECT refuses a higher index.
pub const DATABASE_COUNT: usize = 16;

/// Memory that an emptied batch builder keeps for the next turn; more is given back.
pub const BATCH_MEMORY_KEPT_BYTES: usize = 1 << 20;

/// Longest string that decoding RDB data yields, as long as a string may be; a longer one is refused.
pub const DECODED_STRING_BYTES_MAX: usize = 512 << 20;

/// Bytes of items that fill a chunk of a snapshot; the item that passes it still belongs to the chunk. A
/// reader holds one chunk.
pub const SNAPSHOT_CHUNK_BYTES: usize = 256 << 10;

/// Longest header of a snapshot; a file that claims a longer one is damaged.
pub const SNAPSHOT_HEADER_BYTES_MAX: usize = 64 << 10;

/// Most that is read of a snapshot's `meta.json`; a longer one is cut there and refused.
pub const SNAPSHOT_META_BYTES_MAX: u64 = 1 << 20;

/// Complete snapshots that a shard keeps; older ones are removed once a new one is published.
pub const SNAPSHOT_KEPT_COUNT: usize = 2;

/// Items per bucket of eight, in percent, beyond which a table grows.
pub const TABLE_LOAD_MAX_PERCENT: usize = 80;

/// Items per bucket of eight, in percent, below which a table shrinks.
pub const TABLE_LOAD_MIN_PERCENT: usize = 30;

/// A table of up to so many buckets is resized at once (about 40 us); a larger one bit by bit.
pub const TABLE_BUCKETS_AT_ONCE: usize = 256;

/// Buckets that a write moves while its table is resized bit by bit. A table that has just grown takes
/// 2.5 writes per old bucket before it is full again, so the move is over by then.
pub const TABLE_BUCKETS_PER_WRITE: usize = 2;

/// Buckets that one call of a scan looks at, per item asked for, before it returns with fewer.
pub const SCAN_BUCKETS_PER_ITEM: usize = 10;

/// Tries to find a random item fairly; after these the next best is taken.
pub const RANDOM_TRIES: usize = 64;

/// An ordered index of keys that nobody used for so long is let go.
pub const ORDER_IDLE_MS: i64 = 60_000;

/// Items sampled for each eviction (`maxmemory-samples`).
pub const EVICTION_SAMPLES: usize = 5;

/// Best candidates for eviction that are remembered.
pub const EVICTION_POOL_COUNT: usize = 16;

/// Minutes without access that lower an item's access count by one (`lfu-decay-time`).
pub const FREQUENCY_DECAY_MINUTES: u64 = 1;

/// How much rarer each step up of an access count gets (`lfu-log-factor`).
pub const FREQUENCY_LOG_FACTOR: u64 = 10;
