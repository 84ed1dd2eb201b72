//! Ringraft: a Redis-compatible key/value server, thread per core on io_uring, a Raft group per shard.

pub mod commands;
pub mod glob;
pub mod limits;
pub mod net;
pub mod numbers;
pub mod resp;
