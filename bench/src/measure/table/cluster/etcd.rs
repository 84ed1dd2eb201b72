//! Durable puts and linearizable gets, beside etcd's.

use std::time::Duration;

use super::super::{Findings, Limit};
use super::{Figures, NODES};
use crate::client::plan::Length;
use crate::etcd::load::{self, Call, Load};
use crate::etcd::nodes::Etcd;
use crate::scenario::Scenario;

use Limit::{AtLeast, AtMost};

/// Connections at P=1, and how many times etcd's puts.
const PUTS: [(usize, f64); 3] = [(1, 1.7), (50, 7.0), (200, 7.0)];
/// Part of etcd's p99.
const P99: f64 = 0.25;
/// Whatever connections and pipeline suit each.
const BEST: f64 = 20.0;
/// Where etcd is fastest, and we are.
const BEST_OF_ETCD: usize = 1000;
const OUR_BEST: (usize, usize) = (16, 200);
/// Linearizable gets of 50 connections.
const GETS: f64 = 15.0;

/// What a round showed of one side.
#[derive(Default)]
struct Round {
    /// Rate and p99 of the puts of [`PUTS`].
    puts: Vec<(f64, f64)>,
    best: f64,
    gets: f64,
}

impl Findings<'_> {
    pub(super) fn against_etcd(&mut self) -> Result<(), String> {
        let mut rounds: Vec<[Round; 2]> = Vec::new();
        for round in 0..self.bench.setup.repeats {
            let both = if round % 2 == 0 {
                let ours = self.our_round(round)?;
                [ours, self.etcd_round(round)?]
            } else {
                let theirs = self.etcd_round(round)?;
                [self.our_round(round)?, theirs]
            };
            rounds.push(both);
        }
        let ratios = |value: &dyn Fn(&Round) -> f64| -> Vec<f64> {
            rounds.iter().map(|[ours, theirs]| value(ours) / value(theirs)).collect()
        };
        for (place, (connections, times)) in PUTS.into_iter().enumerate() {
            let what = format!("puts/s c={connections} P=1 / etcd, three nodes");
            self.goal(what, ratios(&|round| round.puts[place].0), AtLeast(times));
            let what = format!("p99 of puts c={connections} P=1 / etcd");
            self.goal(what, ratios(&|round| round.puts[place].1), AtMost(P99));
        }
        self.goal("puts/s, best / etcd's best", ratios(&|round| round.best), AtLeast(BEST));
        let gets = ratios(&|round| round.gets);
        self.goal("linearizable gets/s c=50 P=1 / etcd", gets, AtLeast(GETS));
        Ok(())
    }

    fn our_round(&mut self, round: usize) -> Result<Round, String> {
        let nodes = self.nodes(NODES)?;
        let leader = nodes.leader()?;
        let mut result = Round::default();
        let connections = PUTS.map(|(connections, _)| (1, connections));
        let puts = self.shapes("cluster-set", &connections)?;
        self.fill_in(&puts[0], nodes.arms[leader].address())?;
        for scenario in &puts {
            let figures = self.ask(scenario, &nodes.arms, leader, round)?;
            result.puts.push((figures.requests_per_second, figures.p99_us));
        }
        let best = self.shapes("cluster-set", &[OUR_BEST])?;
        result.best = self.ask(&best[0], &nodes.arms, leader, round)?.requests_per_second;
        let gets = self.shapes("cluster-get", &[(1, 50)])?;
        result.gets = self.ask(&gets[0], &nodes.arms, leader, round)?.requests_per_second;
        Ok(result)
    }

    fn etcd_round(&mut self, round: usize) -> Result<Round, String> {
        let etcd = Etcd::start(&self.options.peers.etcd, NODES, &self.bench.setup.server_cpu)?;
        let mut result = Round::default();
        for (connections, _) in PUTS {
            result.puts.push(self.ask_etcd(&etcd, Call::Put, connections, round)?);
        }
        result.best = self.ask_etcd(&etcd, Call::Put, BEST_OF_ETCD, round)?.0;
        // At every number of connections that was tried.
        result.best = result.puts.iter().fold(result.best, |best, (rate, _)| best.max(*rate));
        result.gets = self.ask_etcd(&etcd, Call::Range, 50, round)?.0;
        Ok(result)
    }

    /// Rate and p99 in microseconds.
    fn ask_etcd(
        &mut self,
        etcd: &Etcd,
        call: Call,
        connections: usize,
        round: usize,
    ) -> Result<(f64, f64), String> {
        let family = if call == Call::Put { "cluster-set" } else { "cluster-get" };
        let scenario: Scenario = self.shapes(family, &[(1, connections)])?.remove(0);
        let Length::Seconds { warm_up, measured } = scenario.plan.length else {
            return Err(format!("{family} is measured by time"));
        };
        let load = Load {
            call,
            data: scenario.plan.data,
            connections,
            warm_up: Duration::from_secs_f64(warm_up),
            measured: Duration::from_secs_f64(measured),
        };
        let mut clocks = Vec::new();
        let read = || etcd.pids().into_iter().map(crate::proc::CpuTime::of).collect::<Vec<_>>();
        let cpus = &self.bench.setup.client_cpu;
        let outcome = load::run(&load, etcd.leader(), cpus, &mut || clocks = read())?;
        let mut cpu_us_per_request = Vec::new();
        for (end, begin) in read().into_iter().zip(clocks) {
            cpu_us_per_request.push(end?.since(&begin?) * 1e6 / outcome.tally.replies as f64);
        }
        let figures = Figures {
            kind: "cluster",
            server: "etcd, 3 nodes".into(),
            scenario: scenario.name,
            round,
            requests_per_second: outcome.rate(),
            p99_us: outcome.tally.percentile_us(99.0),
            cpu_us_per_request,
        };
        self.bench.json.write(&figures)?;
        Ok((figures.requests_per_second, figures.p99_us))
    }
}
