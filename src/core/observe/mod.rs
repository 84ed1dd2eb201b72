//! What a core counts and shows.

pub(in crate::core) mod exposition;
pub(in crate::core) mod metrics;
pub(in crate::core) mod monitor;
pub mod rates;
pub mod slowlog;
pub mod stats;
