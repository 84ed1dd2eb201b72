//! `ringraft-bench run`: one scenario against a server that runs already.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use clap::Args;

use crate::client::call::Caller;
use crate::client::progress::Progress;
use crate::client::run::{self, LoadOutcome, Outcome};
use crate::cpus::Cpus;
use crate::fill;
use crate::report::{JsonLines, Table};
use crate::scenario::{self, Found, Overrides, Scenario};

/// What to run, and against what.
#[derive(Args)]
pub struct Options {
    /// A scenario file, or the name of one that comes with the tool
    scenario: String,
    /// The server, HOST:PORT. Use this machine: the network would be measured too
    #[arg(long, default_value = "127.0.0.1:6379")]
    target: String,
    #[command(flatten)]
    overrides: Overrides,
    /// Cpus of the client, one thread on each
    #[arg(long)]
    client_cpu: Option<Cpus>,
    /// Show progress even where standard error is no terminal
    #[arg(long)]
    progress: bool,
    /// Append each result to this file as a line of JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Runs and prints.
pub fn run(options: &Options) -> Result<(), String> {
    let target = resolve(&options.target)?;
    let mut json = JsonLines::open(options.json.as_deref())?;
    let mut progress = Progress::new(options.progress);
    let mut table = Table::new(&[
        "scenario",
        "load",
        "requests/s",
        "p50 us",
        "p90",
        "p99",
        "p99.9",
        "p99.99",
        "max",
        "hit ratio",
        "verified",
        "client lag p99.9",
    ]);
    let mut failures = Vec::new();
    for scenario in scenario::load(&options.scenario, &options.overrides)? {
        let (outcome, failed) =
            once(&scenario, target, options.client_cpu.as_ref(), &mut progress)?;
        for load in &outcome.loads {
            table.row(row(&scenario, load, outcome.seconds));
            json.write(&record(&scenario, load, &outcome))?;
        }
        failures.extend(failed.into_iter().map(|text| format!("{}: {text}", scenario.name)));
    }
    print!("{table}");
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

/// Fills in keys, runs a scenario, checks what must hold.
pub fn once(
    scenario: &Scenario,
    target: SocketAddr,
    cpus: Option<&Cpus>,
    progress: &mut Progress,
) -> Result<(Outcome, Vec<String>), String> {
    progress.title(format!("{} fill", scenario.name));
    if scenario.fill {
        fill::ensure(&scenario.plan.data, target, cpus, progress)?;
    }
    fill::prepare(scenario, target, cpus, progress)?;
    progress.title(&scenario.name);
    let outcome = run::run(&scenario.plan, target, cpus, progress, &mut |_| {})?;
    let found = Found { keys: Some(Caller::open(target)?.number(&["DBSIZE"])?) };
    let failures = scenario::check(scenario, &outcome, found);
    Ok((outcome, failures))
}

fn resolve(target: &str) -> Result<SocketAddr, String> {
    let addresses = target.to_socket_addrs().map_err(|error| format!("{target}: {error}"))?;
    // IPv4 first: that is where servers listen by default.
    let mut addresses: Vec<SocketAddr> = addresses.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    addresses.first().copied().ok_or_else(|| format!("{target}: no address"))
}

fn row(scenario: &Scenario, load: &LoadOutcome, seconds: f64) -> Vec<String> {
    let tally = &load.tally;
    let mut cells = vec![
        scenario.name.clone(),
        load.name.clone(),
        format!("{:.0}", load.requests as f64 / seconds),
    ];
    cells.extend(
        [50.0, 90.0, 99.0, 99.9, 99.99, 100.0]
            .map(|percent| format!("{:.1}", tally.percentile_us(percent))),
    );
    cells.push(format!("{:.4}", tally.hit_ratio()));
    cells.push(tally.verified.to_string());
    cells.push(match tally.lag.len() {
        0 => "-".into(),
        _ => format!("{:.1}", tally.lag.value_at_percentile(99.9) as f64 / 1e3),
    });
    cells
}

fn record(scenario: &Scenario, load: &LoadOutcome, outcome: &Outcome) -> serde_json::Value {
    let tally = &load.tally;
    serde_json::json!({
        "kind": "run",
        "scenario": scenario.name,
        "load": load.name,
        "requests_per_second": load.requests as f64 / outcome.seconds,
        "p50_us": tally.percentile_us(50.0),
        "p99_us": tally.percentile_us(99.0),
        "p999_us": tally.percentile_us(99.9),
        "p9999_us": tally.percentile_us(99.99),
        "max_us": tally.percentile_us(100.0),
        "hit_ratio": tally.hit_ratio(),
        "verified": tally.verified,
        "samples": outcome.samples,
    })
}
