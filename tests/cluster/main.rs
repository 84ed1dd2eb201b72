//! Several real servers as one cluster: they form it, fail, come back, leave, and lose nothing that
//! they have acknowledged.
//!
//! Every test starts its own servers on ports and directories of their own and ends them by their
//! process ids. Nothing is waited for but conditions.

#[path = "../blackbox/support/mod.rs"]
#[allow(dead_code)] // Each program that uses it uses some of it.
mod support;

mod cluster;
mod commands;
mod damage;
mod failures;
mod faults;
mod joining;
mod load;
mod mounts;
mod namespaces;
mod network;
mod once;
mod reads;
mod routing;
mod secure;
mod slices;
mod soak;
mod tracking;
