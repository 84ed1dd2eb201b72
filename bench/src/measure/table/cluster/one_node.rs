//! What replication costs: three nodes beside one, on the same cpus; and what they cost at rest.

use std::thread;
use std::time::{Duration, Instant};

use super::super::{Findings, Limit};
use super::{Figures, NODES};
use crate::arm::Arm;
use crate::nodes::Nodes;
use crate::proc::CpuTime;

use Limit::{AtLeast, AtMost};

/// Pipelines of 50 connections, and the part of one node's SETs that three do.
const SETS: [(usize, f64); 2] = [(1, 0.55), (16, 0.35)];
/// Cpu per SET over one node's: at the leader, at a follower.
const LEADER: f64 = 1.3;
const FOLLOWER: f64 = 0.3;
/// Cpu per linearizable GET over one node's: asked at the leader; all nodes together, asked at a
/// follower, P=16.
const GET_AT_LEADER: f64 = 1.05;
const GET_AT_FOLLOWER: f64 = 1.5;

/// Shards of nodes at rest, the percent of a cpu that each may take, and how long they are watched.
const SHARDS_AT_REST: usize = 64;
const PERCENT_AT_REST: f64 = 1.0;
const WATCHED: Duration = Duration::from_secs(5);
const SETTLE: Duration = Duration::from_secs(2);

impl Findings<'_> {
    pub(super) fn against_one_node(&mut self) -> Result<(), String> {
        let one = [Arm::start(&self.durable("one node")?, Some(&self.bench.setup.server_cpu))?];
        let nodes = self.nodes(NODES)?;
        let leader = nodes.leader()?;
        let follower = (leader + 1) % NODES;
        for (pipeline, part) in SETS {
            let set = self.shapes("cluster-set", &[(pipeline, 50)])?.remove(0);
            let get = self.shapes("cluster-get", &[(pipeline, 50)])?.remove(0);
            self.fill_in(&set, one[0].address())?;
            self.fill_in(&set, nodes.arms[leader].address())?;
            let (mut sets, mut gets, mut asked) = (Vec::new(), Vec::new(), Vec::new());
            for round in 0..self.bench.setup.repeats {
                sets.push([
                    self.ask(&set, &one, 0, round)?,
                    self.ask(&set, &nodes.arms, leader, round)?,
                ]);
                gets.push([
                    self.ask(&get, &one, 0, round)?,
                    self.ask(&get, &nodes.arms, leader, round)?,
                ]);
                asked.push(self.ask(&get, &nodes.arms, follower, round)?);
            }
            let cpu = |figures: &Figures, node: usize| figures.cpu_us_per_request[node];
            let of_sets = |value: &dyn Fn(&[Figures; 2]) -> f64| sets.iter().map(value).collect();
            let name = format!("SET P={pipeline} c=50, three nodes / one");
            let rate = of_sets(&|[one, three]| three.requests_per_second / one.requests_per_second);
            self.goal(format!("{name}: requests/s"), rate, AtLeast(part));
            let at_leader = of_sets(&|[one, three]| cpu(three, leader) / cpu(one, 0));
            self.goal(format!("{name}: cpu of the leader"), at_leader, AtMost(LEADER));
            let at_follower = of_sets(&|[one, three]| {
                let others = (0..NODES).filter(|node| *node != leader);
                others.map(|node| cpu(three, node)).fold(0.0, f64::max) / cpu(one, 0)
            });
            self.goal(format!("{name}: cpu of a follower"), at_follower, AtMost(FOLLOWER));
            let name = format!("linearizable GET P={pipeline} c=50, three nodes / one");
            let cost = gets.iter().map(|[one, three]| cpu(three, leader) / cpu(one, 0)).collect();
            self.goal(format!("{name}: cpu at the leader"), cost, AtMost(GET_AT_LEADER));
            if pipeline > 1 {
                let all = gets.iter().zip(&asked).map(|([one, _], asked)| {
                    asked.cpu_us_per_request.iter().sum::<f64>() / cpu(one, 0)
                });
                let what = format!("{name}: cpu of all, asked at a follower");
                self.goal(what, all.collect(), AtMost(GET_AT_FOLLOWER));
            }
        }
        Ok(())
    }

    pub(super) fn at_rest(&mut self) -> Result<(), String> {
        let name = format!("--fsync always --shards {SHARDS_AT_REST}");
        let command = self.ringraft("ringraft", &name)?;
        let nodes = Nodes::start(&command, NODES, &self.bench.setup.server_cpu)?;
        thread::sleep(SETTLE);
        let mut percents = Vec::new();
        for _ in 0..self.bench.setup.repeats {
            let read = || nodes.arms.iter().map(|arm| CpuTime::of(arm.pid())).collect::<Vec<_>>();
            let (begin, before) = (Instant::now(), read());
            thread::sleep(WATCHED);
            let (after, seconds) = (read(), begin.elapsed().as_secs_f64());
            let mut most: f64 = 0.0;
            for (after, before) in after.into_iter().zip(before) {
                most = most.max(100.0 * after?.since(&before?) / seconds);
            }
            percents.push(most);
        }
        let what = format!("at rest, {SHARDS_AT_REST} shards: % of a cpu at the busiest node");
        self.goal(what, percents, AtMost(PERCENT_AT_REST));
        Ok(())
    }
}
