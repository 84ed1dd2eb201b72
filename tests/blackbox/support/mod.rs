//! What every black-box test stands on: a server process that cannot be left behind, a small RESP
//! client of our own, and seeded chance.

pub mod chance;
pub mod client;
pub mod history;
pub mod oracle;
pub mod seccomp;
pub mod secure;
pub mod server;
pub mod system;
pub mod tool;
pub mod value;

use std::time::{Duration, Instant};

pub use chance::Chance;
pub use client::Client;
pub use server::{Program, Server};
pub use value::Value;

/// How long any single condition may take before a test fails: far above what a loaded two-core
/// machine needs, far below the patience of a person.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The pace at which [`eventually`] asks again.
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// Cycles of kill and restart when `RINGRAFT_KILL_CYCLES` does not say.
const KILL_CYCLES_DEFAULT: usize = 20;

/// How often a test of crashes kills its server.
pub fn kill_cycles() -> usize {
    match std::env::var("RINGRAFT_KILL_CYCLES") {
        Ok(text) => text.parse().expect("RINGRAFT_KILL_CYCLES is a number"),
        Err(_) => KILL_CYCLES_DEFAULT,
    }
}

/// Asks `condition` until it answers a value; panics with `what` when [`PATIENCE`] ends.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(begin.elapsed() < PATIENCE, "never happened: {what}");
        std::thread::park_timeout(ASK_AGAIN);
    }
}
