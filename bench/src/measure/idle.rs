//! `ringraft-bench idle`: what a server costs while nobody asks for anything.

use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::compare::Setup;
use crate::arm::{Arm, ServerCommand};
use crate::machine::Machine;
use crate::proc::CpuTime;
use crate::report::{JsonLines, Spread, Table};

/// Time after the start in which a server may still be busy with itself.
const SETTLE: Duration = Duration::from_secs(2);

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// A server to measure, NAME=COMMAND; `--port N --dir DIR` is appended. Give it once per
    /// server
    #[arg(long = "server", required = true)]
    servers: Vec<ServerCommand>,
    /// Connections that stay open, separated by commas
    #[arg(short = 'c', long, value_delimiter = ',', default_value = "0,1000")]
    connections: Vec<usize>,
    /// Seconds to watch
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    #[command(flatten)]
    setup: Setup,
}

#[derive(Serialize)]
struct Measurement<'a> {
    kind: &'static str,
    server: &'a str,
    connections: usize,
    round: usize,
    cpu_percent: f64,
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<(), String> {
    let machine = Machine::here();
    println!("{}", machine.text());
    let mut json = JsonLines::open(options.setup.json.as_deref())?;
    json.write(&machine)?;
    let mut table = Table::new(&["idle connections", "server", "% of a cpu"]);
    for &connections in &options.connections {
        for server in &options.servers {
            let mut percents = Vec::new();
            for round in 0..options.setup.repeats {
                let cpu_percent = once(options, server, connections)?;
                let server = &server.name;
                json.write(&Measurement { kind: "idle", server, connections, round, cpu_percent })?;
                percents.push(cpu_percent);
            }
            let spread = format!("{:.3}", Spread::of(percents));
            table.row(vec![connections.to_string(), server.name.clone(), spread]);
        }
    }
    print!("{table}");
    Ok(())
}

fn once(options: &Options, server: &ServerCommand, connections: usize) -> Result<f64, String> {
    let arm = Arm::start(server, Some(&options.setup.server_cpu))?;
    let mut open = Vec::new();
    for _ in 0..connections {
        let mut caller = arm.connect()?;
        caller.call(&["PING"])?;
        open.push(caller);
    }
    thread::sleep(SETTLE);
    let begin = Instant::now();
    let before = CpuTime::of(arm.pid())?;
    thread::sleep(Duration::from_secs_f64(options.seconds));
    let used = CpuTime::of(arm.pid())?.since(&before);
    Ok(100.0 * used / begin.elapsed().as_secs_f64())
}
