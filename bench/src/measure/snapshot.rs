//! `ringraft-bench snapshot`: what taking snapshots costs the clients meanwhile.
//!
//! The same load twice: alone, and while BGSAVE is asked for again as soon as the one before is
//! done. So every figure of the second run is one of snapshots, not of a second with some
//! milliseconds of them.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::compare::Setup;
use crate::arm::{Arm, ServerCommand};
use crate::client::call::Caller;
use crate::client::progress::Progress;
use crate::client::run::{self, Moment, Outcome};
use crate::fill;
use crate::machine::Machine;
use crate::proc;
use crate::report::html;
use crate::report::snapshot_plot::{Timeline, page};
use crate::report::{JsonLines, Spread, Table};
use crate::scenario::{self, Found, Overrides, Scenario};

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// A server to measure, NAME=COMMAND; `--port N --dir DIR` is appended. Give it once per
    /// server
    #[arg(long = "server", required = true)]
    servers: Vec<ServerCommand>,
    /// The load: a scenario file, or the name of one that comes with the tool
    #[arg(long, default_value = "snapshot")]
    scenario: String,
    #[command(flatten)]
    overrides: Overrides,
    #[command(flatten)]
    setup: Setup,
    /// Write the plots to this file
    #[arg(long)]
    html: Option<PathBuf>,
}

/// One server, one round.
#[derive(Serialize, Clone)]
pub struct Measurement {
    /// `snapshot`.
    pub kind: &'static str,
    /// The arm.
    pub server: String,
    /// The load.
    pub scenario: String,
    /// Counts from 0.
    pub round: usize,
    /// Requests per second without snapshots.
    pub rate_alone: f64,
    /// And while they are taken.
    pub rate_meanwhile: f64,
    /// Microseconds.
    pub p999_us_alone: f64,
    /// Microseconds.
    pub p999_us_meanwhile: f64,
    /// Microseconds.
    pub max_us_alone: f64,
    /// Microseconds.
    pub max_us_meanwhile: f64,
    /// The most bytes seen.
    pub resident_alone: u64,
    /// The same, with what a forked child has of its own.
    pub resident_meanwhile: u64,
    /// How many were finished.
    pub snapshots: usize,
    /// Mean time of one; none if none was finished.
    pub snapshot_seconds: f64,
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<(), String> {
    let machine = Machine::here();
    println!("{}", machine.text());
    let mut json = JsonLines::open(options.setup.json.as_deref())?;
    json.write(&machine)?;
    let mut table = Table::new(&[
        "load",
        "server",
        "requests/s alone",
        "meanwhile / alone",
        "p99.9 us alone",
        "p99.9 us meanwhile",
        "max us alone",
        "max us meanwhile",
        "memory meanwhile / alone",
        "snapshots",
        "seconds each",
    ]);
    let mut timelines = Vec::new();
    for scenario in scenario::load(&options.scenario, &options.overrides)? {
        let (rounds, last) = rounds(&options.servers, &scenario, &options.setup, &mut json)?;
        timelines.extend(last);
        for arm in 0..options.servers.len() {
            table.row(row(&rounds, arm));
        }
    }
    print!("{table}");
    if let Some(path) = &options.html {
        let text = html::document("ringraft-bench snapshot", &page(&machine, &table, &timelines)?);
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        println!("report: {}", path.display());
    }
    Ok(())
}

/// `[round][arm]`, and the timelines of the last round.
pub fn rounds(
    servers: &[ServerCommand],
    scenario: &Scenario,
    setup: &Setup,
    json: &mut JsonLines,
) -> Result<(Vec<Vec<Measurement>>, Vec<Timeline>), String> {
    let mut rounds = Vec::new();
    let mut timelines = Vec::new();
    for round in 0..setup.repeats {
        let mut measurements = Vec::new();
        timelines.clear();
        for server in servers {
            let (measurement, timeline) = once(setup, scenario, server, round)?;
            json.write(&measurement)?;
            measurements.push(measurement);
            timelines.push(timeline);
        }
        rounds.push(measurements);
    }
    Ok((rounds, timelines))
}

fn row(rounds: &[Vec<Measurement>], arm: usize) -> Vec<String> {
    let spread = |value: &dyn Fn(&Measurement) -> f64| {
        Spread::of(rounds.iter().map(|round| value(&round[arm])))
    };
    let first = &rounds[0][arm];
    vec![
        first.scenario.clone(),
        first.server.clone(),
        format!("{:.0}", spread(&|m| m.rate_alone).median),
        format!("{:.2}", spread(&|m| m.rate_meanwhile / m.rate_alone)),
        format!("{:.0}", spread(&|m| m.p999_us_alone)),
        format!("{:.0}", spread(&|m| m.p999_us_meanwhile)),
        format!("{:.0}", spread(&|m| m.max_us_alone)),
        format!("{:.0}", spread(&|m| m.max_us_meanwhile)),
        format!("{:.3}", spread(&|m| m.resident_meanwhile as f64 / m.resident_alone as f64)),
        format!("{:.0}", spread(&|m| m.snapshots as f64).median),
        format!("{:.2}", spread(&|m| m.snapshot_seconds).median),
    ]
}

fn once(
    setup: &Setup,
    scenario: &Scenario,
    server: &ServerCommand,
    round: usize,
) -> Result<(Measurement, Timeline), String> {
    let cpus = Some(&setup.client_cpu);
    let mut progress = Progress::new(setup.progress);
    let arm = Arm::start(server, Some(&setup.server_cpu))?;
    progress.title(format!("fill {}", server.name));
    fill::ensure(&scenario.plan.data, arm.address(), cpus, &mut progress)?;

    progress.title(format!("{} alone", server.name));
    let mut memory = Memory { pid: arm.pid(), most: 0 };
    let alone = run::run(&scenario.plan, arm.address(), cpus, &mut progress, &mut |moment| {
        if moment != Moment::End {
            memory.look();
        }
    })?;
    judge(scenario, &arm, &alone)?;

    progress.title(format!("{} with snapshots", server.name));
    let mut snapshots = Snapshots::new(&arm)?;
    let mut more = Memory { pid: arm.pid(), most: 0 };
    let mut failure = None;
    let meanwhile = run::run(&scenario.plan, arm.address(), cpus, &mut progress, &mut |moment| {
        let step = match moment {
            Moment::Begin => snapshots.step(0.0),
            Moment::Tick(at) => {
                more.look();
                snapshots.step(at)
            }
            Moment::End => Ok(()),
        };
        failure = failure.take().or(step.err());
    })?;
    if let Some(failure) = failure {
        return Err(format!("{}: {failure}", server.name));
    }
    judge(scenario, &arm, &meanwhile)?;
    let (finished, snapshot_seconds) = snapshots.finish(meanwhile.seconds);

    let (before, during) = (&alone.loads[0].tally, &meanwhile.loads[0].tally);
    let measurement = Measurement {
        kind: "snapshot",
        server: server.name.clone(),
        scenario: scenario.name.clone(),
        round,
        rate_alone: alone.rate(),
        rate_meanwhile: meanwhile.rate(),
        p999_us_alone: before.percentile_us(99.9),
        p999_us_meanwhile: during.percentile_us(99.9),
        max_us_alone: before.percentile_us(100.0),
        max_us_meanwhile: during.percentile_us(100.0),
        resident_alone: memory.most,
        resident_meanwhile: more.most,
        snapshots: finished,
        snapshot_seconds,
    };
    let timeline = Timeline {
        server: server.name.clone(),
        alone: alone.samples,
        meanwhile: meanwhile.samples,
        spans: snapshots.spans,
    };
    Ok((measurement, timeline))
}

fn judge(scenario: &Scenario, arm: &Arm, outcome: &Outcome) -> Result<(), String> {
    let found = Found { keys: Some(arm.connect()?.number(&["DBSIZE"])?) };
    let failures = scenario::check(scenario, outcome, found);
    if failures.is_empty() {
        return Ok(());
    }
    Err(format!("{} on {}: {}", scenario.name, arm.name, failures.join("; ")))
}

/// The most memory that was seen: resident pages of the server, and those of a forked child that
/// are its own.
struct Memory {
    pid: u32,
    most: u64,
}

impl Memory {
    fn look(&mut self) {
        // A child may end between being listed and being read.
        let own = proc::resident_bytes(self.pid).unwrap_or(0);
        let forked = proc::children(self.pid).into_iter().map(proc::private_bytes).sum::<u64>();
        self.most = self.most.max(own + forked);
    }
}

/// Asks for a snapshot whenever none is being taken.
struct Snapshots {
    caller: Caller,
    begin: Option<f64>,
    spans: Vec<(f64, f64)>,
}

impl Snapshots {
    fn new(arm: &Arm) -> Result<Snapshots, String> {
        Ok(Snapshots { caller: arm.connect()?, begin: None, spans: Vec::new() })
    }

    fn step(&mut self, at: f64) -> Result<(), String> {
        let under_way = self.caller.info("persistence", "rdb_bgsave_in_progress")?;
        if under_way.ok_or("INFO persistence has no rdb_bgsave_in_progress")? == "0" {
            if let Some(begin) = self.begin.take() {
                self.spans.push((begin, at));
            }
            self.caller.call(&["BGSAVE"])?;
            self.begin = Some(at);
        }
        Ok(())
    }

    /// How many were finished and how long one took; the one under way is only shaded, for its end
    /// was not seen.
    fn finish(&mut self, at: f64) -> (usize, f64) {
        let finished = self.spans.len();
        let seconds = self.spans.iter().map(|(begin, end)| end - begin).sum::<f64>();
        self.spans.extend(self.begin.take().map(|begin| (begin, at)));
        (finished, seconds / finished as f64)
    }
}
