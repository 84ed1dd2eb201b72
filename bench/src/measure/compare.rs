//! `ringraft-bench compare`: the same scenarios against several servers, round by round.
//!
//! Every round runs every server once, in an order that turns with the rounds, so that a slow phase
//! of the machine falls on all of them. Ratios compare runs of the same round. Before anything else
//! the base is compared with itself: what that shows is noise, and a difference has to exceed it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::measurement::{self, Measurement};
use super::redis_benchmark;
use crate::arm::{Arm, ServerCommand};
use crate::client::progress::Progress;
use crate::cpus::Cpus;
use crate::fill;
use crate::machine::Machine;
use crate::proc;
use crate::report::compared::{Compared, Control};
use crate::report::{JsonLines, html};
use crate::scenario::{self, Overrides, Scenario};

/// The arm that others are compared with when it is there; else the first.
const BASE_NAME: &str = "redis";

/// Where servers and clients run, and how often; shared by several measurements.
#[derive(Args, Clone)]
pub struct Setup {
    /// Cpus of the servers: a list such as 0,2-3
    #[arg(long, default_value = "0")]
    pub server_cpu: Cpus,
    /// Cpus of the client, one thread on each in turn
    #[arg(long, default_value = "1")]
    pub client_cpu: Cpus,
    /// Rounds
    #[arg(long, default_value_t = 5)]
    pub repeats: usize,
    /// Show progress even where standard error is no terminal
    #[arg(long)]
    pub progress: bool,
    /// Append each measurement to this file as a line of JSON
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// A server to measure, NAME=COMMAND; `--port N --dir DIR` is appended. Give it once per
    /// server
    #[arg(long = "server", required = true)]
    servers: Vec<ServerCommand>,
    /// Scenario files, or names of those that come with the tool, separated by commas
    #[arg(long = "scenario", value_delimiter = ',', default_value = "get,set")]
    scenarios: Vec<String>,
    #[command(flatten)]
    overrides: Overrides,
    #[command(flatten)]
    setup: Setup,
    /// The load generator: ringraft-bench, redis-benchmark, or the path of a redis-benchmark
    #[arg(long, default_value = "ringraft-bench")]
    client: String,
    /// Comparison of the base with itself: before the first scenario, before each, or none
    #[arg(long, value_enum, default_value_t = ControlWhen::First)]
    control: ControlWhen,
    /// Write a report with plots to this file
    #[arg(long)]
    html: Option<PathBuf>,
}

/// When the base is compared with itself.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ControlWhen {
    /// Before the first scenario.
    First,
    /// Before each scenario.
    Each,
    /// Not at all.
    None,
}

/// Everything that a comparison needs besides its scenario.
pub struct Bench<'a> {
    /// Cpus, rounds.
    pub setup: &'a Setup,
    /// The load generator.
    pub client: &'a str,
    /// Each measurement goes there.
    pub json: JsonLines,
    /// What is going on.
    pub progress: Progress,
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<(), String> {
    let machine = Machine::here();
    let mut bench = Bench::new(&options.setup, &options.client)?;
    bench.json.write(&machine)?;
    let mut families = Vec::new();
    for name in &options.scenarios {
        families.push(scenario::load(name, &options.overrides)?);
    }
    let base = base_of(&options.servers);
    println!("{}", machine.text());
    let mut compared = Vec::new();
    let mut remarks = Vec::new();
    for (index, family) in families.iter().enumerate() {
        let wanted = match options.control {
            ControlWhen::First => index == 0,
            ControlWhen::Each => true,
            ControlWhen::None => false,
        };
        if wanted && let Some(first) = family.first() {
            let control = bench.control(first, &options.servers[base])?;
            println!("{control}");
            remarks.push(control.to_string());
        }
        compared.extend(bench.family(family, &options.servers, base)?);
    }
    print!("{}", Compared::table(&compared));
    if let Some(path) = &options.html {
        let page = html::page(
            "ringraft-bench compare",
            &machine,
            &options.servers,
            &remarks,
            &[],
            &compared,
        )?;
        std::fs::write(path, page).map_err(|error| format!("{}: {error}", path.display()))?;
        println!("report: {}", path.display());
    }
    Ok(())
}

/// The arm that others are compared with.
pub fn base_of(servers: &[ServerCommand]) -> usize {
    servers.iter().position(|server| server.name == BASE_NAME).unwrap_or(0)
}

impl<'a> Bench<'a> {
    /// With the setup's files and cpus.
    pub fn new(setup: &'a Setup, client: &'a str) -> Result<Bench<'a>, String> {
        if setup.repeats == 0 {
            return Err("--repeats: 0 rounds measure nothing".into());
        }
        Ok(Bench {
            setup,
            client,
            json: JsonLines::open(setup.json.as_deref())?,
            progress: Progress::new(setup.progress),
        })
    }

    /// Compares a server with itself.
    pub fn control(
        &mut self,
        scenario: &Scenario,
        base: &ServerCommand,
    ) -> Result<Control, String> {
        let arms = [base.clone(), base.renamed(format!("{} again", base.name))];
        let compared = self.family(std::slice::from_ref(scenario), &arms, 0)?;
        Ok(Control::of(&compared[0]))
    }

    /// Starts the servers anew, fills them, and compares them in each scenario of a family.
    pub fn family(
        &mut self,
        family: &[Scenario],
        servers: &[ServerCommand],
        base: usize,
    ) -> Result<Vec<Compared>, String> {
        let Some(first) = family.first() else { return Ok(Vec::new()) };
        let mut arms = Vec::new();
        let mut bytes_per_key = Vec::new();
        for server in servers {
            let arm = Arm::start(server, Some(&self.setup.server_cpu))?;
            bytes_per_key.push(if first.fill { Some(self.fill(first, &arm)?) } else { None });
            let cpus = Some(&self.setup.client_cpu);
            fill::prepare(first, arm.address(), cpus, &mut self.progress)?;
            arms.push(arm);
        }
        let mut all = Vec::new();
        for scenario in family {
            let mut rounds = Vec::new();
            for round in 0..self.setup.repeats {
                rounds.push(self.round(scenario, &arms, round)?);
            }
            all.push(Compared {
                scenario: scenario.clone(),
                rounds,
                base,
                bytes_per_key: bytes_per_key.clone(),
            });
        }
        Ok(all)
    }

    /// Fills in all keys; returns the growth of resident memory per key.
    fn fill(&mut self, scenario: &Scenario, arm: &Arm) -> Result<f64, String> {
        self.progress.title(format!("{} fill {}", scenario.family, arm.name));
        let before = proc::resident_bytes(arm.pid())? as f64;
        let cpus = Some(&self.setup.client_cpu);
        fill::ensure(&scenario.plan.data, arm.address(), cpus, &mut self.progress)?;
        let after = proc::resident_bytes(arm.pid())? as f64;
        Ok((after - before) / scenario.plan.data.keys as f64)
    }

    /// One run of each arm.
    fn round(
        &mut self,
        scenario: &Scenario,
        arms: &[Arm],
        round: usize,
    ) -> Result<Vec<Measurement>, String> {
        let mut results: Vec<Option<Measurement>> = vec![None; arms.len()];
        for turn in 0..arms.len() {
            let index = (turn + round) % arms.len();
            let measurement = self.measure(scenario, &arms[index], round)?;
            self.json.write(&measurement)?;
            results[index] = Some(measurement);
        }
        Ok(results.into_iter().flatten().collect())
    }

    fn measure(
        &mut self,
        scenario: &Scenario,
        arm: &Arm,
        round: usize,
    ) -> Result<Measurement, String> {
        let cpus = Some(&self.setup.client_cpu);
        if !scenario.fill && scenario.prepare.is_empty() {
            arm.connect()?.call(&["FLUSHALL"])?;
        }
        if self.client.ends_with(redis_benchmark::NAME) {
            redis_benchmark::measure(scenario, arm, round, self.client, cpus)
        } else {
            measurement::measure(scenario, arm, round, cpus, &mut self.progress)
        }
    }
}
