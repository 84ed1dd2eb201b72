//! What clients of the other nodes notice when the leader ends: killed, or asked to.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Instant;

use serde::Serialize;

use super::super::{Findings, Goal, Limit};
use super::NODES;
use crate::arm::Arm;
use crate::client::call::Caller;
use crate::nodes::{Nodes, wait};
use crate::report::Spread;

use Limit::AtMost;

/// Leaders that end, in all rounds together: a 99th percentile wants so many.
const ENDS: usize = 100;

/// Requests of each client before the end, and after it.
const REQUESTS: usize = 50;

/// The 99th of a hundred longest requests, in milliseconds.
const KILLED_MS: f64 = 600.0;
const STOPPED_MS: f64 = 50.0;

/// What the client of one survivor saw of one end.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Seen {
    longest_ms: f64,
    failed: usize,
    /// Does this survivor lead afterwards?
    leads_next: bool,
}

#[derive(Serialize)]
struct Ended {
    kind: &'static str,
    how: &'static str,
    round: usize,
    seen: Vec<Seen>,
}

impl Findings<'_> {
    pub(super) fn leaders_killed(&mut self) -> Result<(), String> {
        self.leaders_end("killed", Arm::kill, KILLED_MS)
    }

    pub(super) fn leaders_stopped(&mut self) -> Result<(), String> {
        self.leaders_end("stopped by SIGTERM", Arm::stop, STOPPED_MS)
    }

    fn leaders_end(
        &mut self,
        how: &'static str,
        end: fn(&mut Arm) -> Result<(), String>,
        limit_ms: f64,
    ) -> Result<(), String> {
        let mut all: Vec<Seen> = Vec::new();
        let rounds = self.bench.setup.repeats;
        for round in 0..rounds {
            let mut nodes = self.nodes(NODES)?;
            for _ in 0..ENDS.div_ceil(rounds) {
                let seen = one_end(&mut nodes, end)?;
                all.extend(&seen);
                self.bench.json.write(&Ended { kind: "cluster", how, round, seen })?;
            }
        }
        let name = format!("leader {how}, {} times", all.len() / (NODES - 1));
        for (leads_next, whom) in [(true, "the next leader"), (false, "the third node")] {
            let through = all.iter().filter(|seen| seen.leads_next == leads_next);
            let (p99, others) = longest(through.map(|seen| seen.longest_ms).collect());
            let what = format!("{name}: longest request through {whom}, p99 in ms ({others})");
            self.goals.push(Goal::new(what, p99, AtMost(limit_ms)).digits(0));
        }
        let failed = all.iter().map(|seen| seen.failed).sum::<usize>();
        let what = format!("{name}: failed requests");
        let goal = Goal::new(what, Spread::of([failed as f64]), AtMost(0.0));
        self.goals.push(goal.digits(0));
        Ok(())
    }
}

/// The 99th percentile between the least and the greatest, and others for people.
fn longest(mut longest_ms: Vec<f64>) -> (Spread, String) {
    longest_ms.sort_by(f64::total_cmp);
    let count = longest_ms.len();
    let at = |percent: usize| longest_ms[(count * percent / 100).min(count - 1)];
    let others = format!("p50 {:.0}, p90 {:.0}", at(50), at(90));
    (Spread { median: at(99), lowest: longest_ms[0], highest: longest_ms[count - 1] }, others)
}

/// The leader ends while a client of each other node writes one key after the other; then it comes
/// back.
fn one_end(
    nodes: &mut Nodes,
    end: fn(&mut Arm) -> Result<(), String>,
) -> Result<Vec<Seen>, String> {
    let leader = nodes.leader()?;
    let survivors: Vec<usize> = (0..NODES).filter(|node| *node != leader).collect();
    let mut callers = Vec::new();
    for survivor in &survivors {
        callers.push(nodes.arms[*survivor].connect()?);
    }
    let is_over = AtomicBool::new(false);
    let counts: Vec<AtomicUsize> = callers.iter().map(|_| AtomicUsize::new(0)).collect();
    let wait_for_all = || {
        let targets: Vec<usize> =
            counts.iter().map(|count| count.load(SeqCst) + REQUESTS).collect();
        wait("the clients have written", || {
            Ok(counts.iter().zip(&targets).all(|(count, target)| count.load(SeqCst) >= *target))
        })
    };
    let arm = &mut nodes.arms[leader];
    let (ended, mut seen) = thread::scope(|scope| {
        let clients: Vec<_> = callers
            .into_iter()
            .zip(&counts)
            .map(|(caller, count)| scope.spawn(|| write_on(caller, count, &is_over)))
            .collect();
        let ended = wait_for_all().and_then(|()| end(arm)).and_then(|()| wait_for_all());
        is_over.store(true, SeqCst);
        let seen = clients.into_iter().map(|client| client.join().expect("does not panic"));
        (ended, seen.collect::<Vec<Seen>>())
    });
    ended?;
    let leads_next = nodes.leader()?;
    for (survivor, seen) in survivors.iter().zip(&mut seen) {
        seen.leads_next = *survivor == leads_next;
    }
    nodes.arms[leader].restart()?;
    wait("the node that ended is level", || {
        let (end, least) = nodes.progress(nodes.leader()?)?;
        Ok(least >= end)
    })?;
    Ok(seen)
}

/// Writes one key after the other until it is over. Each reply counts, an error too.
fn write_on(mut caller: Caller, count: &AtomicUsize, is_over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    while !is_over.load(SeqCst) {
        let begin = Instant::now();
        let key = format!("key:{}", count.load(SeqCst));
        let is_done = caller.call(&["SET", &key, "value"]).is_ok();
        seen.longest_ms = seen.longest_ms.max(begin.elapsed().as_secs_f64() * 1e3);
        seen.failed += usize::from(!is_done);
        count.fetch_add(1, SeqCst);
    }
    seen
}
