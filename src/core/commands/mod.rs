//! Commands on the server: those that need a core, a connection, the users or other nodes; and the
//! table of all commands.
//!
//! Written as the families of values are, rows first. A row of kind [`Run::Session`] or
//! [`Run::Shard`] has its function in [`Work`], which only the core knows.

pub mod acl;
pub mod client;
pub mod cluster;
pub mod command;
pub mod command_log;
pub mod config;
pub mod connection;
pub mod debug;
pub mod failover;
pub mod function;
mod help;
pub mod info;
pub mod key_access;
pub mod latency;
pub mod member;
pub mod memory;
pub mod migrate;
mod numbered;
pub mod persistence;
pub mod pubsub;
pub mod raft;
mod row;
pub mod script;
pub mod server;
pub mod table;
pub mod tracking;

pub use crate::commands::{
    Answer, Arity, Call, Command, Gather, Group, Keys, Run, ScriptBy, Search, Secrets, Spread,
};
pub use row::{
    Row, RunQueued, RunSession, RunShard, Work, container, plain, read, script_row, session, shard,
    write,
};
