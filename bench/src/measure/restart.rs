//! `ringraft-bench restart`: how long a server takes from its start until it has all keys again.
//!
//! After a save: the snapshot is loaded. After kill -9 under load: what the log and the last
//! snapshot hold is recovered. Either way every key is read and compared afterwards, for a fast
//! start with less in it would be no gain.

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::compare::{Setup, base_of};
use crate::arm::{Arm, ServerCommand};
use crate::client::operations::Operation;
use crate::client::plan::{Data, Distribution, Length, Load, Pace, Plan};
use crate::client::progress::Progress;
use crate::client::run::{self, Moment};
use crate::client::values::Sizes;
use crate::cpus::Cpus;
use crate::fill;
use crate::machine::Machine;
use crate::proc;
use crate::report::{JsonLines, Spread, Table};

/// Load before a kill, in seconds.
const SECONDS_BEFORE_KILL: f64 = 1.0;

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// A server to measure, NAME=COMMAND; `--port N --dir DIR` is appended. Give it once per
    /// server
    #[arg(long = "server", required = true)]
    servers: Vec<ServerCommand>,
    /// How the server ends: after SAVE, or by kill -9 while it is written to
    #[arg(long, value_enum, default_value_t = How::Save)]
    how: How,
    /// Keys, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "3000000")]
    keys: Vec<u64>,
    /// Bytes of each value
    #[arg(short = 'd', long, default_value_t = 64)]
    value_size: usize,
    #[command(flatten)]
    setup: Setup,
}

/// How the server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// SAVE, then SIGTERM.
    Save,
    /// kill -9 while SETs are under way.
    Kill,
}

#[derive(Serialize)]
struct Measurement<'a> {
    kind: &'static str,
    server: &'a str,
    how: How,
    keys: u64,
    value_size: usize,
    round: usize,
    seconds: f64,
    directory_bytes: u64,
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<(), String> {
    let machine = Machine::here();
    println!("{}", machine.text());
    let mut json = JsonLines::open(options.setup.json.as_deref())?;
    json.write(&machine)?;
    let base = base_of(&options.servers);
    let against = format!("time / {}", options.servers[base].name);
    let mut table =
        Table::new(&["keys", "server", "seconds to restart", "keys/s", "MB on disk", &against]);
    for &keys in &options.keys {
        let data = data(keys, options.value_size);
        let rounds = rounds(&options.servers, options.how, &data, &options.setup, &mut json)?;
        for (arm, server) in options.servers.iter().enumerate() {
            let seconds = Spread::of(rounds.iter().map(|round| round[arm].0));
            let ratio = Spread::of(rounds.iter().map(|round| round[arm].0 / round[base].0));
            let bytes = Spread::of(rounds.iter().map(|round| round[arm].1 as f64));
            table.row(vec![
                keys.to_string(),
                server.name.clone(),
                format!("{seconds:.3}"),
                format!("{:.0}", keys as f64 / seconds.median),
                format!("{:.0}", bytes.median / 1e6),
                format!("{ratio:.2}"),
            ]);
        }
    }
    print!("{table}");
    Ok(())
}

/// Keys of 16 bytes.
pub fn data(keys: u64, value_size: usize) -> Data {
    let sizes = Sizes { smallest: value_size, largest: value_size };
    Data { keys, key_size: 16, sizes, ttl_seconds: 0 }
}

/// `[round][arm]`: seconds of the restart, and the bytes of the directory before it.
pub fn rounds(
    servers: &[ServerCommand],
    how: How,
    data: &Data,
    setup: &Setup,
    json: &mut JsonLines,
) -> Result<Vec<Vec<(f64, u64)>>, String> {
    let mut rounds = Vec::new();
    for round in 0..setup.repeats {
        let mut times = Vec::new();
        for server in servers {
            let (seconds, directory_bytes) = once(server, how, data, setup)?;
            json.write(&Measurement {
                kind: "restart",
                server: &server.name,
                how,
                keys: data.keys,
                value_size: data.sizes.largest,
                round,
                seconds,
                directory_bytes,
            })?;
            times.push((seconds, directory_bytes));
        }
        rounds.push(times);
    }
    Ok(rounds)
}

fn once(
    server: &ServerCommand,
    how: How,
    data: &Data,
    setup: &Setup,
) -> Result<(f64, u64), String> {
    let cpus = Some(&setup.client_cpu);
    let mut progress = Progress::new(setup.progress);
    let mut arm = Arm::start(server, Some(&setup.server_cpu))?;
    progress.title(format!("fill {}", server.name));
    fill::fill(data, Operation::Set, arm.address(), cpus, &mut progress)?;
    match how {
        How::Save => {
            arm.connect()?.call(&["SAVE"])?;
            arm.stop()?;
        }
        How::Kill => kill_under_load(&mut arm, data, cpus, &mut progress)?,
    }
    let directory_bytes = proc::directory_bytes(arm.directory())?;
    let time = arm.restart()?;
    progress.title(format!("verify {}", server.name));
    verify(&arm, data, cpus, &mut progress)?;
    Ok((time.as_secs_f64(), directory_bytes))
}

/// Kills the server while keys are set to the values that they have: whatever was written last, the
/// values are known.
fn kill_under_load(
    arm: &mut Arm,
    data: &Data,
    cpus: Option<&Cpus>,
    progress: &mut Progress,
) -> Result<(), String> {
    let length = Length::Seconds { warm_up: SECONDS_BEFORE_KILL, measured: SECONDS_BEFORE_KILL };
    let plan = plan(data, Operation::Set, Distribution::Uniform, length, u64::MAX);
    let address = arm.address();
    let mut killed = Ok(());
    // The connections break, which ends the run; that is what was asked for.
    let _ = run::run(&plan, address, cpus, progress, &mut |moment| {
        if moment == Moment::Begin {
            killed = arm.kill();
        }
    });
    killed
}

/// Reads every key and compares its value.
fn verify(
    arm: &Arm,
    data: &Data,
    cpus: Option<&Cpus>,
    progress: &mut Progress,
) -> Result<(), String> {
    let all = Length::Requests(data.keys);
    let plan = plan(data, Operation::Get, Distribution::Sequential, all, 1);
    let outcome = run::run(&plan, arm.address(), cpus, progress, &mut |_| {})?;
    let tally = &outcome.loads[0].tally;
    if tally.hits == data.keys && tally.wrong + tally.refused == 0 {
        return Ok(());
    }
    Err(format!(
        "{} lost data: {} of {} keys are there, {} replies are wrong {}",
        arm.name,
        tally.hits,
        data.keys,
        tally.wrong,
        tally.complaint.as_deref().unwrap_or_default()
    ))
}

fn plan(
    data: &Data,
    operation: Operation,
    distribution: Distribution,
    length: Length,
    verify_every: u64,
) -> Plan {
    Plan {
        data: *data,
        loads: vec![Load {
            name: "restart".into(),
            mix: vec![(operation, 1.0)],
            distribution,
            keys_per_command: 1,
            pipeline: 100,
            connections: 8,
            threads: 1,
            pace: Pace::Closed,
            bursts: None,
            urgent: false,
        }],
        length,
        verify_every,
        seed: 1,
    }
}
