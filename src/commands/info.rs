//! INFO.

/// The version of Redis whose behaviour this server has.
pub const REDIS_VERSION: &str = "7.2.0";
