//! Section `cluster`: three nodes on one machine, against etcd and against one node.
//!
//! All nodes and the client share the cpus of `--two-cpus`, so only ratios of the same round mean
//! anything.

mod etcd;
mod fail_over;
mod newcomers;
mod one_node;

use std::net::SocketAddr;

use serde::Serialize;

use super::{Findings, Goal, Limit};
use crate::arm::{Arm, ServerCommand};
use crate::client::run::{self, Moment};
use crate::nodes::Nodes;
use crate::proc::CpuTime;
use crate::report::Spread;
use crate::scenario::{self, Overrides, Scenario};

/// Nodes of a cluster.
const NODES: usize = 3;

/// A part of the section.
type Part = fn(&mut Findings) -> Result<(), String>;

/// What one run showed.
#[derive(Serialize)]
struct Figures {
    kind: &'static str,
    server: String,
    scenario: String,
    round: usize,
    requests_per_second: f64,
    p99_us: f64,
    /// Of each process, in the order of the nodes.
    cpu_us_per_request: Vec<f64>,
}

impl Findings<'_> {
    /// The whole section.
    pub(super) fn cluster(&mut self) -> Result<(), String> {
        self.on_shared_cpus(|findings| {
            let parts: [(&str, Part); 7] = [
                ("cluster-etcd", |findings| findings.against_etcd()),
                ("cluster-one", |findings| findings.against_one_node()),
                ("cluster-kill", |findings| findings.leaders_killed()),
                ("cluster-stop", |findings| findings.leaders_stopped()),
                ("cluster-behind", |findings| findings.who_was_away()),
                ("cluster-join", |findings| findings.who_joins()),
                ("cluster-idle", |findings| findings.at_rest()),
            ];
            for (name, measure) in parts {
                if findings.options.wants(name) {
                    measure(findings)?;
                }
            }
            Ok(())
        })
    }

    /// A node whose acknowledged writes are on disk.
    fn durable(&self, name: &str) -> Result<ServerCommand, String> {
        self.ringraft(name, "--fsync always")
    }

    fn nodes(&self, count: usize) -> Result<Nodes, String> {
        let command = self.durable("ringraft")?;
        Nodes::start(&command, count, &self.bench.setup.server_cpu)
    }

    /// The scenarios of a family, with these pipelines and connections unless the options say
    /// others.
    fn shapes(&self, family: &str, shapes: &[(usize, usize)]) -> Result<Vec<Scenario>, String> {
        let mut all = Vec::new();
        for (pipeline, connections) in shapes {
            let own = &self.options.overrides;
            let overrides = Overrides {
                pipeline: vec![*pipeline],
                connections: vec![*connections],
                ..own.clone()
            };
            all.extend(scenario::load(family, &overrides)?);
        }
        Ok(all)
    }

    /// Runs a scenario at one of several nodes.
    fn ask(
        &mut self,
        scenario: &Scenario,
        arms: &[Arm],
        target: usize,
        round: usize,
    ) -> Result<Figures, String> {
        let mut clocks = Vec::new();
        let mut used = Vec::new();
        let mut watch = |moment| match moment {
            Moment::Begin => clocks = arms.iter().map(|arm| CpuTime::of(arm.pid())).collect(),
            Moment::Tick(_) => {}
            Moment::End => {
                used = arms.iter().map(|arm| CpuTime::of(arm.pid())).collect();
            }
        };
        let bench = &mut self.bench;
        let cpus = Some(&bench.setup.client_cpu);
        let address = arms[target].address();
        let outcome = run::run(&scenario.plan, address, cpus, &mut bench.progress, &mut watch)?;
        let found = scenario::Found { keys: None };
        let failures = scenario::check(scenario, &outcome, found);
        if !failures.is_empty() {
            return Err(format!("{}: {}", scenario.name, failures.join("; ")));
        }
        let requests = outcome.requests() as f64;
        let mut cpu_us_per_request = Vec::new();
        for (end, begin) in used.into_iter().zip(clocks) {
            cpu_us_per_request.push(end?.since(&begin?) * 1e6 / requests);
        }
        let figures = Figures {
            kind: "cluster",
            server: format!("{} nodes, asked at {}", arms.len(), target + 1),
            scenario: scenario.name.clone(),
            round,
            requests_per_second: outcome.rate(),
            p99_us: outcome.loads[0].tally.percentile_us(99.0),
            cpu_us_per_request,
        };
        bench.json.write(&figures)?;
        Ok(figures)
    }

    /// Fills in the keys of a scenario.
    fn fill_in(&mut self, scenario: &Scenario, target: SocketAddr) -> Result<(), String> {
        let bench = &mut self.bench;
        let cpus = Some(&bench.setup.client_cpu);
        crate::fill::ensure(&scenario.plan.data, target, cpus, &mut bench.progress)
    }

    fn goal(&mut self, what: impl Into<String>, measured: Vec<f64>, limit: Limit) {
        self.goals.push(Goal::new(what, Spread::of(measured), limit));
    }
}
