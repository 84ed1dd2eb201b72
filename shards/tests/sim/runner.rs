//! Runs worlds: many seeds on all cpus, failing ones again with a trace and with less in them.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::counts::Counts;
use crate::plan::Plan;
use crate::world::World;

/// Lines of the trace that a failure shows.
const TRACE_LINES_SHOWN: usize = 60;

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Panics of worlds are failures of their seeds: kept, not printed.
pub fn catch_panics() {
    std::panic::set_hook(Box::new(|info| {
        PANIC.with(|last| *last.borrow_mut() = Some(info.to_string()));
    }));
}

/// A panic that was caught.
pub fn last_panic() -> String {
    PANIC.with(|last| last.borrow_mut().take()).unwrap_or_default()
}

/// What a run came to.
pub struct Report {
    pub failure: Option<String>,
    pub counts: Counts,
    pub trace: Vec<String>,
}

/// Runs a plan.
pub fn run(plan: Plan, tracing: bool) -> Report {
    let mut world = World::new(plan, tracing);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let failure = match result {
        Ok(result) => result.err(),
        Err(_) => Some(last_panic()),
    };
    Report { failure, counts: world.counts().clone(), trace: world.core.take_trace() }
}

/// The same plan gives the same run, to the last event.
pub fn runs_repeat() {
    for seed in 0..10 {
        let (one, other) = (run(Plan::new(seed), true), run(Plan::new(seed), true));
        assert!(one.trace.len() > 100, "seed {seed}: little happens");
        assert_eq!(one.trace, other.trace, "seed {seed}");
    }
}

/// Takes away from a failing plan what it fails without: kinds of faults, time, clients.
pub fn shrink(plan: Plan) -> Plan {
    let fails = |plan: &Plan| run(plan.clone(), false).failure.is_some();
    let mut smallest = plan;
    for kind in smallest.kinds() {
        let mut smaller = smallest.clone();
        smaller.set(kind, false);
        if fails(&smaller) {
            smallest = smaller;
        }
    }
    for _ in 0..6 {
        let mut smaller = smallest.clone();
        smaller.duration_us = smaller.duration_us * 3 / 4;
        if fails(&smaller) {
            smallest = smaller;
        }
    }
    while smallest.clients > 1 {
        let mut smaller = smallest.clone();
        smaller.clients -= 1;
        if !fails(&smaller) {
            break;
        }
        smallest = smaller;
    }
    smallest
}

/// Everything about a failing plan, for people.
pub fn describe(plan: &Plan, lines: usize) -> String {
    let report = run(plan.clone(), true);
    let kinds: Vec<&str> = plan.kinds().into_iter().map(|kind| kind.name()).collect();
    let first = report.trace.len().saturating_sub(lines);
    format!(
        "seed {}: {}\n{} nodes, {} shards, {} clients, {} us, faults: {}\n{}\n{}",
        plan.seed,
        report.failure.as_deref().unwrap_or("nothing is wrong"),
        plan.nodes,
        plan.shards,
        plan.clients,
        plan.duration_us,
        kinds.join(","),
        report.trace[first..].join("\n"),
        report.failure.as_deref().unwrap_or("nothing is wrong"),
    )
}

/// What is shown of a failing seed: its smallest run.
pub fn explain(plan: Plan) -> String {
    let seed = plan.seed;
    let text = describe(&shrink(plan), TRACE_LINES_SHOWN);
    format!(
        "{text}\nreplay all of it: cargo test -p ringraft-shards --test sim -- --from {seed} --seeds 1 --trace"
    )
}

/// Sums of many runs.
pub struct Totals {
    pub counts: Counts,
    pub seeds: u64,
    /// Seeds that failed, with what they failed with, in the order found.
    pub failures: Vec<(u64, String)>,
}

/// Runs seeds on all cpus until one fails (or all of them, when `keep_going`).
pub fn run_many(
    seeds: std::ops::Range<u64>,
    keep_going: bool,
    plan: impl Fn(u64) -> Plan + Sync,
) -> Totals {
    let next = AtomicU64::new(seeds.start);
    let stop = AtomicBool::new(false);
    let totals = Mutex::new(Totals { counts: Counts::default(), seeds: 0, failures: Vec::new() });
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
    let work = || {
        let mut counts = Counts::default();
        let mut done = 0;
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            let report = run(plan(seed), false);
            counts.merge(&report.counts);
            done += 1;
            if let Some(failure) = report.failure {
                stop.store(!keep_going, Ordering::Relaxed);
                totals.lock().expect("no panic under it").failures.push((seed, failure));
            }
        }
        let mut totals = totals.lock().expect("no panic under it");
        totals.counts.merge(&counts);
        totals.seeds += done;
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut totals = totals.into_inner().expect("no panic under it");
    totals.failures.sort();
    totals
}
