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

use ringraft_shards::transaction::Overlay;

/// What runs leave for the next one, so that it allocates nothing.
#[derive(Default)]
pub struct Spares {
    /// Where commands of a transaction run, while none of them has it.
    pub(in crate::core) overlay: Option<Box<Overlay>>,
    /// What a script on a shard's own items runs with, while none does.
    pub(in crate::core) run: in_place::Spare,
}
