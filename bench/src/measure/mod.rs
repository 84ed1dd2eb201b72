//! The measurements, one per subcommand.

pub mod compare;
pub mod growth;
pub mod idle;
pub mod instructions;
pub mod measurement;
pub mod memory;
mod redis_benchmark;
pub mod restart;
pub mod run;
pub mod snapshot;
mod stalls;
pub mod table;
