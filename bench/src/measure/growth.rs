//! `ringraft-bench growth`: how the cost of a request grows with shards, keys and connections.
//!
//! One of the three is varied at a time, the others stay as the scenario has them. What is compared
//! is the server's cpu per request, and its ratio to the first point of the same series.

use clap::Args;

use super::compare::{Bench, Setup};
use crate::arm::ServerCommand;
use crate::machine::Machine;
use crate::report::compared::Compared;
use crate::report::{Spread, Table};
use crate::scenario::{self, Overrides};

/// Stands for the number of shards in a server's command.
const SHARDS: &str = "{shards}";

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// A server to measure, NAME=COMMAND; `{shards}` in it is replaced. Give it once per server
    #[arg(long = "server", required = true)]
    servers: Vec<ServerCommand>,
    /// The load: a scenario file, or the name of one that comes with the tool
    #[arg(long, default_value = "growth")]
    scenario: String,
    /// Shards of the first series, separated by commas; the others have the first number
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8")]
    shards: Vec<usize>,
    /// Keys of the second series
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000,1000000,10000000")]
    key_counts: Vec<u64>,
    /// Connections of the third series
    #[arg(long, value_delimiter = ',', default_value = "1,8,50,500,5000,10000")]
    connection_counts: Vec<usize>,
    #[command(flatten)]
    overrides: Overrides,
    #[command(flatten)]
    setup: Setup,
}

/// One point of a series.
pub struct Point {
    /// The number that varies.
    pub at: u64,
    /// What was measured there.
    pub compared: Compared,
}

impl Point {
    /// Cpu per request of an arm, in microseconds.
    pub fn cpu(&self, arm: usize) -> Spread {
        self.compared.spread(arm, |measurement| measurement.server_cpu_us_per_request)
    }
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<(), String> {
    let machine = Machine::here();
    println!("{}", machine.text());
    let mut bench = Bench::new(&options.setup, "ringraft-bench")?;
    bench.json.write(&machine)?;
    let mut table = Table::new(&[
        "series",
        "server",
        "at",
        "requests/s",
        "cpu us/op",
        "cpu / first",
        "p99.9 us",
    ]);
    let first_shards = options.shards.first().copied().unwrap_or(1);
    let mut add = |series: &str, points: &[Point]| {
        for arm in 0..points.first().map_or(0, |point| point.compared.arm_count()) {
            for point in points {
                let compared = &point.compared;
                table.row(vec![
                    series.to_string(),
                    compared.arm_name(arm).to_string(),
                    point.at.to_string(),
                    format!("{:.0}", compared.spread(arm, |m| m.requests_per_second)),
                    format!("{:.3}", point.cpu(arm)),
                    format!("{:.2}", point.cpu(arm).median / points[0].cpu(arm).median),
                    format!("{:.0}", compared.spread(arm, |m| m.loads[0].p999_us).median),
                ]);
            }
        }
    };
    let mut points = Vec::new();
    for &shards in &options.shards {
        let compared = point(&mut bench, options, shards, &options.overrides)?;
        points.push(Point { at: shards as u64, compared });
    }
    add("shards", &points);
    points.clear();
    for &keys in &options.key_counts {
        let overrides = Overrides { keys: Some(keys), ..options.overrides.clone() };
        points.push(Point {
            at: keys,
            compared: point(&mut bench, options, first_shards, &overrides)?,
        });
    }
    add("keys", &points);
    points.clear();
    for &connections in &options.connection_counts {
        let overrides = Overrides { connections: vec![connections], ..options.overrides.clone() };
        let compared = point(&mut bench, options, first_shards, &overrides)?;
        points.push(Point { at: connections as u64, compared });
    }
    add("connections", &points);
    print!("{table}");
    Ok(())
}

fn point(
    bench: &mut Bench,
    options: &Options,
    shards: usize,
    overrides: &Overrides,
) -> Result<Compared, String> {
    let servers: Vec<ServerCommand> =
        options.servers.iter().map(|server| server.replaced(SHARDS, &shards.to_string())).collect();
    measure(bench, &options.scenario, &servers, overrides)
}

/// The first scenario of a family with some numbers replaced.
pub fn measure(
    bench: &mut Bench,
    scenario: &str,
    servers: &[ServerCommand],
    overrides: &Overrides,
) -> Result<Compared, String> {
    let family = scenario::load(scenario, overrides)?;
    let first = family.get(..1).ok_or("a scenario without variants")?;
    Ok(bench.family(first, servers, 0)?.remove(0))
}
