//! What a core counts and shows.

pub mod command_log;
pub(in crate::core) mod exposition;
pub mod latency;
pub(in crate::core) mod metrics;
pub(in crate::core) mod monitor;
pub mod rates;
pub mod stats;
