//! Where shards live, and how they come to live elsewhere.
//!
//! [`moving`] takes a shard from one core to another while it serves.

pub mod moving;
