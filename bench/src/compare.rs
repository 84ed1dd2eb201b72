//! `ringraft-bench compare`: redis-benchmark against several servers, round by round.
//!
//! Every round runs every server once, in an order that turns with the rounds, so that a slow phase
//! of the machine falls on all of them. Ratios compare runs of the same round.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use crate::arm::{Arm, ServerCommand};
use crate::cpus::{self, Cpus};
use crate::load::benchmark_key;
use crate::proc;
use crate::report::{JsonLines, Spread, Table};

/// The arm that others are compared with when it is there; else the first.
const BASE_NAME: &str = "redis";

/// Requests per unit of pipeline depth when -n is not given, and the most of them: a run then takes
/// some seconds at every depth, long against the 10 ms ticks in which the kernel counts cpu time.
const REQUESTS_PER_DEPTH: u64 = 300_000;
const REQUESTS_DEFAULT_MAX: u64 = 6_000_000;

/// The part of a run's requests that is sent before the first round and not counted.
const WARM_UP_DIVISOR: u64 = 10;

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// A server to measure, NAME=COMMAND; `--port N --dir DIR` is appended. Give it once per server
    #[arg(long = "server", required = true)]
    servers: Vec<ServerCommand>,
    /// The load generator: redis-benchmark or a path to one
    #[arg(long, default_value = "redis-benchmark")]
    client: String,
    /// Tests of redis-benchmark
    #[arg(short = 't', long = "tests", value_delimiter = ',', default_value = "get,set")]
    tests: Vec<String>,
    /// Pipeline depths
    #[arg(short = 'P', long = "pipelines", value_delimiter = ',', default_value = "1,16,100")]
    pipelines: Vec<u64>,
    /// Connections
    #[arg(short = 'c', long, default_value_t = 50)]
    connections: u32,
    /// Bytes of each value
    #[arg(short = 'd', long, default_value_t = 64)]
    data_size: usize,
    /// Number of different keys; they are filled in beforehand
    #[arg(short = 'r', long, default_value_t = 1_000_000)]
    random_keys: u64,
    /// Requests of each run: one number, or one per pipeline depth [default: 300000 times the depth, at most 6000000]
    #[arg(short = 'n', long, value_delimiter = ',')]
    requests: Vec<u64>,
    /// Rounds
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Cpus of the servers
    #[arg(long)]
    server_cpu: Option<Cpus>,
    /// Cpus of the client
    #[arg(long)]
    client_cpu: Option<Cpus>,
    /// Append each measurement to this file as a line of JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Serialize, Clone)]
struct Measurement {
    server: String,
    test: String,
    pipeline: u64,
    connections: u32,
    data_size: usize,
    random_keys: u64,
    requests: u64,
    round: usize,
    requests_per_second: f64,
    server_cpu_us_per_request: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Cpu used meanwhile by others than this server and the client, in cpus.
    foreign_cpus: f64,
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<(), String> {
    if options.requests.len() > 1 && options.requests.len() != options.pipelines.len() {
        return Err("-n takes one number, or as many as -P".into());
    }
    let mut json = JsonLines::open(options.json.as_deref())?;
    let mut arms = Vec::new();
    for server in &options.servers {
        let arm = Arm::start(server, options.server_cpu.as_ref())?;
        arm.connect()?.fill(options.random_keys, options.data_size, benchmark_key)?;
        arms.push(arm);
    }
    let base = arms.iter().position(|arm| arm.name == BASE_NAME).unwrap_or(0);
    let against = |what: &str| format!("{what} / {}", arms[base].name);
    let mut table = Table::new(&[
        "test",
        "server",
        "requests/s",
        "cpu us/request",
        "p50 ms",
        "p99 ms",
        &against("requests/s"),
        &against("cpu"),
        "foreign cpus",
    ]);
    for test in &options.tests {
        for (index, &pipeline) in options.pipelines.iter().enumerate() {
            let requests = match options.requests.len() {
                0 => (REQUESTS_PER_DEPTH * pipeline).min(REQUESTS_DEFAULT_MAX),
                1 => options.requests[0],
                _ => options.requests[index],
            };
            let rounds = measure(options, &arms, test, pipeline, requests, &mut json)?;
            add_rows(&mut table, &format!("{test} P={pipeline}"), &rounds, base);
        }
    }
    print!("{table}");
    Ok(())
}

/// All rounds of one test: `rounds[round][arm]`.
fn measure(
    options: &Options,
    arms: &[Arm],
    test: &str,
    pipeline: u64,
    requests: u64,
    json: &mut JsonLines,
) -> Result<Vec<Vec<Measurement>>, String> {
    for arm in arms {
        run_client(options, arm, test, pipeline, (requests / WARM_UP_DIVISOR).max(1), 0)?;
    }
    let mut rounds = Vec::new();
    for round in 0..options.repeats {
        let mut results: Vec<Option<Measurement>> = vec![None; arms.len()];
        for turn in 0..arms.len() {
            let index = (turn + round) % arms.len();
            let measurement = run_client(options, &arms[index], test, pipeline, requests, round)?;
            eprintln!(
                "{test} P={pipeline} round {round} {}: {:.0} requests/s, {:.3} us",
                measurement.server,
                measurement.requests_per_second,
                measurement.server_cpu_us_per_request
            );
            json.write(&measurement)?;
            results[index] = Some(measurement);
        }
        rounds.push(results.into_iter().flatten().collect());
    }
    Ok(rounds)
}

fn add_rows(table: &mut Table, test: &str, rounds: &[Vec<Measurement>], base: usize) {
    let server_count = rounds.first().map_or(0, Vec::len);
    for index in 0..server_count {
        let spread = |value: fn(&Measurement) -> f64| {
            Spread::of(rounds.iter().map(|round| value(&round[index])))
        };
        let ratio = |value: fn(&Measurement) -> f64| {
            Spread::of(rounds.iter().map(|round| value(&round[index]) / value(&round[base])))
        };
        table.row(vec![
            test.to_string(),
            rounds[0][index].server.clone(),
            format!("{:.0}", spread(|m| m.requests_per_second)),
            format!("{:.3}", spread(|m| m.server_cpu_us_per_request)),
            format!("{:.3}", spread(|m| m.p50_ms).median),
            format!("{:.3}", spread(|m| m.p99_ms).median),
            format!("{:.2}", ratio(|m| m.requests_per_second)),
            format!("{:.2}", ratio(|m| m.server_cpu_us_per_request)),
            format!("{:.2}", spread(|m| m.foreign_cpus)),
        ]);
    }
}

fn run_client(
    options: &Options,
    arm: &Arm,
    test: &str,
    pipeline: u64,
    requests: u64,
    round: usize,
) -> Result<Measurement, String> {
    let mut client = Command::new(&options.client);
    client
        .args(["--csv", "-h", "127.0.0.1", "-p", &arm.port.to_string(), "-t", test])
        .args(["-P", &pipeline.to_string(), "-c", &options.connections.to_string()])
        .args(["-d", &options.data_size.to_string(), "-r", &options.random_keys.to_string()])
        .args(["-n", &requests.to_string()])
        .stdin(Stdio::null());
    let begin = Instant::now();
    let busy_before = proc::machine_busy_seconds()?;
    let client_before = proc::cpu_seconds_of_ended_children()?;
    let server_before = proc::cpu_seconds(arm.pid())?;
    let output = cpus::on(options.client_cpu.as_ref(), || client.output())
        .map_err(|error| format!("{}: {error}", options.client))?;
    let server_cpu = proc::cpu_seconds(arm.pid())? - server_before;
    let client_cpu = proc::cpu_seconds_of_ended_children()? - client_before;
    let busy = proc::machine_busy_seconds()? - busy_before;
    let elapsed = begin.elapsed().as_secs_f64();
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{} ended with {}: {text}{errors}", options.client, output.status));
    }
    let columns = Columns::of(&text)?;
    Ok(Measurement {
        server: arm.name.clone(),
        test: test.to_string(),
        pipeline,
        connections: options.connections,
        data_size: options.data_size,
        random_keys: options.random_keys,
        requests,
        round,
        requests_per_second: columns.number("rps")?,
        server_cpu_us_per_request: server_cpu * 1e6 / requests as f64,
        p50_ms: columns.number("p50_latency_ms")?,
        p99_ms: columns.number("p99_latency_ms")?,
        foreign_cpus: ((busy - server_cpu - client_cpu) / elapsed).max(0.0),
    })
}

/// The head and the one row of redis-benchmark's CSV output.
struct Columns<'a> {
    head: Vec<&'a str>,
    row: Vec<&'a str>,
}

impl<'a> Columns<'a> {
    fn of(text: &'a str) -> Result<Columns<'a>, String> {
        let mut lines = text.lines().skip_while(|line| !line.starts_with("\"test\""));
        match (lines.next(), lines.next(), lines.next()) {
            (Some(head), Some(row), None) => {
                Ok(Columns { head: split_quoted(head), row: split_quoted(row) })
            }
            _ => Err(format!("expected the result of one test, got: {text}")),
        }
    }

    fn number(&self, name: &str) -> Result<f64, String> {
        let column = self.head.iter().position(|head| *head == name);
        column
            .and_then(|column| self.row.get(column))
            .and_then(|cell| cell.parse().ok())
            .ok_or_else(|| format!("no number {name} in {:?}", self.row))
    }
}

/// Cells of a CSV line whose every cell is quoted; a cell may hold commas (`MSET (10 keys)` has none, a script has).
fn split_quoted(line: &str) -> Vec<&str> {
    line.trim().trim_matches('"').split("\",\"").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_csv_of_redis_benchmark() {
        let text = "\"test\",\"rps\",\"p50_latency_ms\"\n\"MSET (10 keys)\",\"99.50\",\"0.247\"\n";
        let columns = Columns::of(text).expect("well formed");
        assert_eq!(columns.number("rps"), Ok(99.5));
        assert_eq!(columns.number("p50_latency_ms"), Ok(0.247));
        assert!(columns.number("p99_latency_ms").is_err());
        assert!(Columns::of("WARNING\n").is_err());
    }
}
