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

/// Leaders that end in each round.
const ENDS: usize = 20;

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
        let mut longest = Vec::new();
        let mut failed = 0;
        for round in 0..self.bench.setup.repeats {
            let mut nodes = self.nodes(NODES)?;
            for _ in 0..ENDS {
                let seen = one_end(&mut nodes, end)?;
                longest.extend(seen.iter().map(|seen| seen.longest_ms));
                failed += seen.iter().map(|seen| seen.failed).sum::<usize>();
                self.bench.json.write(&Ended { kind: "cluster", how, round, seen })?;
            }
        }
        longest.sort_by(f64::total_cmp);
        let count = longest.len();
        let p99 = longest[(count * 99 / 100).min(count - 1)];
        let measured = Spread { median: p99, lowest: longest[0], highest: longest[count - 1] };
        let what = format!(
            "leader {how}, {} times: p99 of the longest request of {count} survivors, ms (shortest, longest)",
            count / (NODES - 1)
        );
        self.goals.push(Goal::new(what, measured, AtMost(limit_ms)).digits(0));
        let what = format!("leader {how}: failed requests");
        let goal = Goal::new(what, Spread::of([failed as f64]), AtMost(0.0));
        self.goals.push(goal.digits(0));
        Ok(())
    }
}

/// The leader ends while a client of each other node writes one key after the other; then it comes back.
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
    let (ended, seen) = thread::scope(|scope| {
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
    nodes.arms[leader].restart()?;
    let now_leads = nodes.leader()?;
    wait("the node that ended is level", || {
        let (end, least) = nodes.progress(now_leads)?;
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
