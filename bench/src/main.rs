//! `ringraft-bench`: the same load against several servers of the same protocol, side by side.
//!
//! The one idea: it starts the servers itself, pins them and its client to different cpus,
//! interleaves the runs, and reports cpu per request (which a busy neighbour disturbs little)
//! beside throughput (which it disturbs a lot). Ratios are taken between neighbouring runs of one
//! round, and their spread is printed with them. Replies are verified: a server that answers
//! wrongly has no speed.

mod arm;
mod client;
mod cpus;
mod etcd;
mod fill;
mod machine;
mod measure;
mod nodes;
mod peers;
mod proc;
mod report;
mod scenario;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use measure::{compare, growth, idle, instructions, memory, restart, run, snapshot, table};

/// Compares ringraft with other servers of the same protocol.
#[derive(Parser)]
#[command(name = "ringraft-bench", version)]
struct Options {
    #[command(subcommand)]
    command: Measure,
}

#[derive(Subcommand)]
enum Measure {
    /// One scenario against a server that runs already
    Run(run::Options),
    /// Throughput, cpu per request and latency of several servers, side by side
    Compare(compare::Options),
    /// Resident memory per key and per idle connection
    Memory(memory::Options),
    /// Cpu that a server uses while nobody asks it for anything
    Idle(idle::Options),
    /// Cost of a request with more shards, more keys, more connections
    Growth(growth::Options),
    /// Every target of the project beside its measurement
    Table(table::Options),
    /// Instructions per operation of parser, table, batch and log, counted by callgrind
    Instructions(instructions::Options),
    /// Time from a server's start until it has its keys again
    Restart(restart::Options),
    /// What snapshots cost the clients meanwhile
    Snapshot(snapshot::Options),
}

fn main() -> ExitCode {
    cpus::raise_open_files();
    let outcome = match Options::parse().command {
        Measure::Run(options) => run::run(&options),
        Measure::Compare(options) => compare::run(&options),
        Measure::Memory(options) => memory::run(&options),
        Measure::Idle(options) => idle::run(&options),
        Measure::Growth(options) => growth::run(&options),
        Measure::Table(options) => table::run(&options),
        Measure::Instructions(options) => instructions::run(&options),
        Measure::Restart(options) => restart::run(&options),
        Measure::Snapshot(options) => snapshot::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("ringraft-bench: {message}");
            ExitCode::FAILURE
        }
    }
}
