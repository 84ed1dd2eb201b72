//! The shard engine of ringraft.
//!
//! A shard is a keyspace, a Raft group, a log and snapshots, run as a synchronous state machine:
//! time, chance, disk and network are arguments. This crate knows nothing of RESP, sockets,
//! commands or threads: it replicates opaque commands and keeps items.

pub mod arguments;
pub mod batch;
pub mod clock;
pub mod disk;
pub mod ids;
pub mod keyspace;
pub mod limits;
pub mod log;
pub mod meta;
pub mod peer;
pub mod raft;
pub mod random;
pub mod rdb;
pub mod remembered;
pub mod serve;
pub mod slot;
pub mod snapshot;
pub mod stamp;
pub mod transaction;
pub mod value;
pub mod waiting;
pub mod wire;
