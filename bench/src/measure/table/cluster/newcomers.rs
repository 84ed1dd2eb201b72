//! How long a node takes that was away, or that is new, until it has everything, while the others
//! are written to.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use super::super::{Findings, Limit};
use super::NODES;
use crate::client::operations::Operation;
use crate::client::plan::{Data, Length};
use crate::client::progress::Progress;
use crate::client::run;
use crate::client::values::Sizes;
use crate::cpus::Cpus;
use crate::fill;
use crate::nodes::wait;
use crate::scenario::Scenario;

use Limit::{AtLeast, AtMost};

/// SETs that a node has missed, and the seconds until it is level.
const MISSED: u64 = 500_000;
const LEVEL_SECONDS: f64 = 5.0;

/// Keys of 16 bytes and their values: a gigabyte. Seconds until the newcomer votes, and the part of
/// the requests meanwhile.
const KEYS: u64 = 1_000_000;
const VALUE_BYTES: usize = 1000;
const JOIN_SECONDS: f64 = 60.0;
const MEANWHILE: f64 = 0.85;

/// The load meanwhile comes in runs of so many seconds: it ends soon after what it waits for.
const RUN_SECONDS: f64 = 1.0;

/// The load without the event, for comparison: longer than the machine's own ups and downs.
const BEFORE: Duration = Duration::from_secs(6);

impl Findings<'_> {
    pub(super) fn who_was_away(&mut self) -> Result<(), String> {
        let missed = self.options.overrides.keys.unwrap_or(MISSED);
        let mut seconds = Vec::new();
        for _ in 0..self.bench.setup.repeats {
            let mut nodes = self.nodes(NODES)?;
            let leader = nodes.leader()?;
            let away = (leader + 1) % NODES;
            nodes.arms[away].kill()?;
            let address = nodes.arms[leader].address();
            let load = self.load_meanwhile()?;
            let cpus = self.bench.setup.client_cpu.clone();
            // By clients that do not pipeline: then the log has many entries.
            let mut written = 0;
            while written < missed {
                let mut silent = Progress::new(false);
                written += run::run(&load.plan, address, Some(&cpus), &mut silent, &mut |_| {})?
                    .requests();
            }
            let level = under_load(&load, address, &cpus, || {
                let begin = Instant::now();
                nodes.arms[away].restart()?;
                let (end, _) = nodes.progress(leader)?;
                wait("the node that was away is level", || Ok(nodes.progress(leader)?.1 >= end))?;
                Ok(begin.elapsed().as_secs_f64())
            })?;
            seconds.push(level.0);
        }
        let what =
            format!("away for {missed} SETs, under load: seconds from its start until level");
        self.goal(what, seconds, AtMost(LEVEL_SECONDS));
        Ok(())
    }

    pub(super) fn who_joins(&mut self) -> Result<(), String> {
        let keys = self.options.overrides.keys.unwrap_or(KEYS);
        let (mut seconds, mut rates) = (Vec::new(), Vec::new());
        for _ in 0..self.bench.setup.repeats {
            let mut nodes = self.nodes(NODES - 1)?;
            let leader = nodes.leader()?;
            let address = nodes.arms[leader].address();
            self.fill_with(keys, VALUE_BYTES, address)?;
            let load = self.load_meanwhile()?;
            let cpus = self.bench.setup.client_cpu.clone();
            let before = || {
                thread::sleep(BEFORE);
                Ok(0.0)
            };
            let alone = under_load(&load, address, &cpus, before)?.1;
            let (took, meanwhile) = under_load(&load, address, &cpus, || {
                let begin = Instant::now();
                nodes.join()?;
                nodes.wait_for_votes()?;
                Ok(begin.elapsed().as_secs_f64())
            })?;
            seconds.push(took);
            rates.push(meanwhile / alone);
        }
        let megabytes = keys * VALUE_BYTES as u64 / 1_000_000;
        let what =
            format!("a third node joins, {megabytes} MB, under load: seconds until it votes");
        self.goal(what, seconds, AtMost(JOIN_SECONDS));
        let what = format!("a third node joins, {megabytes} MB: SETs/s meanwhile / before");
        self.goal(what, rates, AtLeast(MEANWHILE));
        Ok(())
    }

    /// Fifty clients that set few keys, run after run.
    fn load_meanwhile(&mut self) -> Result<Scenario, String> {
        let mut scenario = self.shapes("cluster-set", &[(1, 50)])?.remove(0);
        scenario.plan.length = Length::Seconds { warm_up: 0.0, measured: RUN_SECONDS };
        Ok(scenario)
    }

    fn fill_with(&mut self, keys: u64, size: usize, target: SocketAddr) -> Result<(), String> {
        let sizes = Sizes { smallest: size, largest: size };
        let data = Data { keys, key_size: 16, sizes, ttl_seconds: 0 };
        let cpus = Some(&self.bench.setup.client_cpu);
        fill::fill(&data, Operation::Set, target, cpus, &mut self.bench.progress)
    }
}

/// Runs `happens` under load; what it returns, and the requests/s until then.
fn under_load(
    load: &Scenario,
    target: SocketAddr,
    cpus: &Cpus,
    happens: impl FnOnce() -> Result<f64, String> + Send,
) -> Result<(f64, f64), String> {
    thread::scope(|scope| {
        let event = scope.spawn(happens);
        let (mut requests, mut seconds) = (0, 0.0);
        loop {
            let mut silent = Progress::new(false);
            let outcome = run::run(&load.plan, target, Some(cpus), &mut silent, &mut |_| {})?;
            requests += outcome.requests();
            seconds += outcome.seconds;
            if event.is_finished() {
                break;
            }
        }
        let happened = event.join().expect("does not panic")?;
        Ok((happened, requests as f64 / seconds))
    })
}
