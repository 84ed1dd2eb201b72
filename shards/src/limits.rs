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
