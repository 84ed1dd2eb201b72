//! Commands over several shards, MULTI and EXEC, scripts.

pub(in crate::core) mod ahead;
pub mod coalesce;
pub(in crate::core) mod copies;
pub mod everywhere;
pub(in crate::core) mod in_place;
pub mod libraries;
pub mod participate;
pub mod referred;
pub(in crate::core) mod scripts;
pub mod spread;
pub mod steps;
pub mod transaction;
