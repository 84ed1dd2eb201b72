//! A deterministic simulation of whole clusters: nodes, disks, network, clocks and clients in one
//! thread and virtual time, everything from one seed; `docs/testing.md` says more.
//!
//! ```sh
//! cargo test -p ringraft-shards --test sim                              # what CI runs
//! cargo test -p ringraft-shards --test sim -- --seeds 100000 --from 5   # as many as you like
//! cargo test -p ringraft-shards --test sim -- --from 77 --seeds 1 --trace
//! ```

mod audit;
mod checker;
mod client;
mod command;
mod counts;
mod fault;
mod flaws;
mod links;
mod machine;
mod members;
mod network;
mod node;
mod operator;
mod plan;
mod queues;
mod readers;
mod registry;
mod replica;
mod replicas;
mod request;
mod runner;
mod schedule;
mod serve;
mod shelves;
mod snapshots;
mod steps;
mod transact;
mod transfer;
mod values;
mod world;

use std::process::ExitCode;
use std::time::Instant;

use plan::{Kind, Plan};

/// Seeds of the default run.
const DEFAULT_SEEDS: u64 = 3_000;

/// What the command line asks for.
struct Options {
    seeds: Option<u64>,
    from: u64,
    trace: bool,
    keep_going: bool,
    without: Vec<Kind>,
    shrink: bool,
    flaw: Option<String>,
}

fn options() -> Options {
    let mut options = Options {
        seeds: None,
        from: 0,
        trace: false,
        keep_going: false,
        without: Vec::new(),
        shrink: false,
        flaw: None,
    };
    let mut arguments = std::env::args().skip(1);
    let number = |text: Option<String>, what: &str| -> u64 {
        let parsed = text.and_then(|text| text.parse().ok());
        parsed.unwrap_or_else(|| panic!("{what} wants a number"))
    };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seeds" => options.seeds = Some(number(arguments.next(), "--seeds")),
            "--from" => options.from = number(arguments.next(), "--from"),
            "--trace" => options.trace = true,
            "--shrink" => options.shrink = true,
            "--flaw" => options.flaw = arguments.next(),
            "--keep-going" => options.keep_going = true,
            "--without" => {
                let names = arguments.next().unwrap_or_default();
                let named = |kind: &&Kind| names.split(',').any(|name| name == kind.name());
                options.without = Kind::ALL.iter().filter(named).copied().collect();
            }
            // Options of cargo's own test programs mean nothing here.
            _ => {}
        }
    }
    options
}

fn main() -> ExitCode {
    runner::catch_panics();
    let options = options();
    let plan = |seed| {
        let mut plan = match &options.flaw {
            Some(flaw) => flaws::plan(seed, flaw),
            None => Plan::new(seed),
        };
        options.without.iter().for_each(|kind| plan.set(*kind, false));
        plan
    };
    if options.trace {
        println!("{}", runner::describe(&plan(options.from), usize::MAX));
        return ExitCode::SUCCESS;
    }
    if options.shrink {
        println!("{}", runner::explain(plan(options.from)));
        return ExitCode::SUCCESS;
    }
    if options.seeds.is_none() {
        let tests: [(&str, fn()); 3] = [
            ("the same seed gives the same run", runner::runs_repeat),
            ("the checker tells good from bad", checker::cases::the_checker_tells_good_from_bad),
            ("broken variants are caught", flaws::broken_variants_are_caught),
        ];
        for (name, test) in tests {
            if std::panic::catch_unwind(test).is_err() {
                println!("{name}: FAILED\n{}", runner::last_panic());
                return ExitCode::FAILURE;
            }
            println!("{name}: ok");
        }
    }
    let seeds = options.seeds.unwrap_or(DEFAULT_SEEDS);
    let start = Instant::now();
    let range = options.from..options.from + seeds;
    let totals = runner::run_many(range, options.keep_going, plan);
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{} seeds from {} in {seconds:.1} s: {:.0} seeds/s",
        totals.seeds,
        options.from,
        totals.seeds as f64 / seconds
    );
    for (name, count) in totals.counts.rows() {
        println!("  {count:>12} {name}");
    }
    for (seed, failure) in &totals.failures {
        println!("seed {seed}: {}", failure.lines().next().unwrap_or_default());
    }
    if let Some((seed, _)) = totals.failures.first() {
        println!("{}", runner::explain(plan(*seed)));
        return ExitCode::FAILURE;
    }
    let missing = totals.counts.missing();
    if options.seeds.is_none() && !missing.is_empty() {
        println!("nothing of this happened: {}", missing.join(", "));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
