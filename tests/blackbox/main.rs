//! Black-box tests: the real binary over real sockets, one module per theme.
//!
//! One test program for all of them, so that the binary under test is linked and the support code
//! compiled once. `RINGRAFT_BINARY=PATH` runs the same tests against another build, a release one
//! for instance. Nothing here waits for time to pass: every wait is for a condition and is bounded.

mod acl;
mod addresses;
mod arguments;
mod atomic;
mod blocking;
mod blocking_streams;
mod clock;
mod cluster_clients;
mod cluster_tools;
mod collections;
mod config_file;
#[cfg(target_arch = "x86_64")]
mod confined;
mod cores;
mod crash;
mod endings;
mod events;
mod exact;
mod full_disk;
mod functions;
mod harness;
mod journal;
mod keys;
mod lengths;
mod limits;
mod long_replies;
mod memory;
mod migrate;
mod moves;
mod operators;
mod pause;
mod protocol;
mod pubsub;
mod rdb;
mod restart;
mod script_libraries;
mod scripts;
mod scripts_in_place;
mod secrets;
mod sessions;
mod starts;
mod support;
mod tls;
mod tools;
mod tracking;
mod transactions;
mod unix_socket;
