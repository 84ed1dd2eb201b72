//! Ringraft: a Redis-compatible key/value server, thread per core on io_uring, a Raft group per
//! shard.

pub mod acl;
pub mod bits;
pub mod client;
pub mod commands;
pub mod core;
mod dates;
pub mod files;
pub mod geo;
pub mod glob;
pub mod hyperloglog;
pub mod kvnode_state;
pub mod limits;
pub mod net;
pub mod node;
pub mod numbers;
pub mod options;
pub mod rdb;
pub mod refusal;
pub mod resp;
pub mod script;
pub mod settings;
pub mod snapshot_print;
pub mod tools;
pub mod usage;
