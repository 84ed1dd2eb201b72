//! What every black-box test stands on: a server process that cannot be left behind, a small RESP
//! client of our own, and seeded chance.

pub mod chance;
pub mod client;
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
