//! Bounds of the engine, and what happens when one is reached.

/// Count of databases per shard; SELECT refuses a higher index.
pub const DATABASE_COUNT: usize = 16;

/// Memory that an emptied batch builder keeps for the next turn; more is given back.
pub const BATCH_MEMORY_KEPT_BYTES: usize = 1 << 20;

/// Longest string that decoding RDB data yields, as long as a string may be; a longer one is refused.
pub const DECODED_STRING_BYTES_MAX: usize = 512 << 20;
