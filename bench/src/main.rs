//! `ringraft-bench`: the same load against several servers of the same protocol, side by side.
//!
//! The one idea: starts the servers itself, pins them and the client to different cpus, interleaves
//! the runs, and reports cpu per request (which a busy neighbour disturbs little) beside throughput
//! (which it disturbs a lot). Ratios are taken between neighbouring runs of one round, and their
//! spread is printed with them. It generates no load of its own beyond filling keys: redis-benchmark
//! is the client.

mod arm;
mod compare;
mod cpus;
mod load;
mod memory;
mod proc;
mod report;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Compares ringraft with other servers of the same protocol.
#[derive(Parser)]
#[command(name = "ringraft-bench", version)]
struct Options {
    #[command(subcommand)]
    command: Measure,
}

#[derive(Subcommand)]
enum Measure {
    /// Throughput, cpu per request and latency of several servers under redis-benchmark
    Compare(compare::Options),
    /// Resident memory per key
    Memory(memory::Options),
}

fn main() -> ExitCode {
    let outcome = match Options::parse().command {
        Measure::Compare(options) => compare::run(&options),
        Measure::Memory(options) => memory::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("ringraft-bench: {message}");
            ExitCode::FAILURE
        }
    }
}
