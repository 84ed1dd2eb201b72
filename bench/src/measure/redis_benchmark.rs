//! redis-benchmark as the client: the numbers that people quote, with the server's cpu beside them.

use std::process::{Command, Stdio};
use std::time::Instant;

use super::measurement::{Clocks, LoadFigures, Measurement};
use crate::arm::Arm;
use crate::client::operations::Operation;
use crate::client::plan::{Distribution, Length, Pace};
use crate::cpus::{self, Cpus};
use crate::scenario::Scenario;

/// Requests of the short run whose throughput tells how many make up the time that the scenario
/// asks for.
const TRIAL_REQUESTS_PER_DEPTH: u64 = 20_000;

/// The name that it has in tables.
pub const NAME: &str = "redis-benchmark";

/// The arguments for a scenario, without server and number of requests.
fn arguments(scenario: &Scenario) -> Result<Vec<String>, String> {
    let plan = &scenario.plan;
    let refuse = |why: &str| Err(format!("{}: {NAME} cannot do {why}", scenario.name));
    let [load] = &plan.loads[..] else { return refuse("several loads at once") };
    let [(operation, _)] = load.mix[..] else { return refuse("a mix of commands") };
    if load.distribution != Distribution::Uniform {
        return refuse("keys that are not uniform");
    }
    if load.pace != Pace::Closed {
        return refuse("an open loop");
    }
    if plan.data.key_size != 16 {
        return refuse("keys of other than 16 bytes");
    }
    if plan.data.sizes.smallest != plan.data.sizes.largest {
        return refuse("values of several sizes");
    }
    let mut arguments: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(ToString::to_string));
    add(&["--csv", "-P", &load.pipeline.to_string(), "-c", &load.connections.to_string()]);
    add(&["-r", &plan.data.keys.to_string(), "-d", &plan.data.sizes.smallest.to_string()]);
    const KEY: &str = "key:__rand_int__";
    let value = "x".repeat(plan.data.sizes.smallest);
    match operation {
        Operation::Get => add(&["-t", "get"]),
        Operation::Set => add(&["-t", "set"]),
        Operation::MGet => {
            add(&["MGET"]);
            add(&vec![KEY; load.keys_per_command]);
        }
        Operation::MSet => {
            add(&["MSET"]);
            for _ in 0..load.keys_per_command {
                add(&[KEY, &value]);
            }
        }
        Operation::Ping => add(&["PING"]),
        other => return refuse(&format!("{other:?}")),
    }
    Ok(arguments)
}

/// Runs a scenario. Nothing is verified: redis-benchmark does not look into replies.
pub fn measure(
    scenario: &Scenario,
    arm: &Arm,
    round: usize,
    program: &str,
    cpus: Option<&Cpus>,
) -> Result<Measurement, String> {
    let arguments = arguments(scenario)?;
    let send = |requests: u64| -> Result<Figures, String> {
        let mut client = Command::new(program);
        let address = arm.address();
        client
            .args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()])
            .args(["-n", &requests.to_string()])
            .args(&arguments)
            .stdin(Stdio::null());
        let output = cpus::on(cpus, || client.output());
        let output = output.map_err(|error| format!("{program}: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{program} ended with {}: {text}{errors}", output.status));
        }
        Figures::of(&text)
    };
    let requests = match scenario.plan.length {
        Length::Requests(requests) => requests,
        Length::Seconds { measured, .. } => {
            let trial = send(TRIAL_REQUESTS_PER_DEPTH * scenario.pipeline as u64)?;
            (trial.rate * measured) as u64
        }
    };
    let begin = Instant::now();
    let before = Clocks::read(arm)?;
    let figures = send(requests)?;
    let (server, client, foreign) = Clocks::read(arm)?.since(&before);
    let elapsed = begin.elapsed().as_secs_f64();
    Ok(Measurement {
        kind: "compare",
        server: arm.name.clone(),
        scenario: scenario.name.clone(),
        pipeline: scenario.pipeline,
        connections: scenario.connections,
        round,
        client: NAME.into(),
        requests,
        requests_per_second: figures.rate,
        server_cpu_us_per_request: server * 1e6 / requests as f64,
        server_cpus: server / elapsed,
        client_cpus: client / elapsed,
        foreign_cpus: foreign / elapsed,
        loads: vec![figures.load(&scenario.plan.loads[0].name)],
        samples: Vec::new(),
    })
}

/// The one row of redis-benchmark's CSV output.
struct Figures {
    rate: f64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

/// Requests per second in the output of a run of one test.
/// Errors: there is no such row.
pub fn rate(text: &str) -> Result<f64, String> {
    Figures::of(text).map(|figures| figures.rate)
}

impl Figures {
    fn of(text: &str) -> Result<Figures, String> {
        let mut lines = text.lines().skip_while(|line| !line.starts_with("\"test\""));
        let (Some(head), Some(row), None) = (lines.next(), lines.next(), lines.next()) else {
            return Err(format!("expected the result of one test, got: {text}"));
        };
        let (head, row) = (split_quoted(head), split_quoted(row));
        let number = |name: &str| {
            let column = head.iter().position(|head| *head == name);
            column
                .and_then(|column| row.get(column))
                .and_then(|cell| cell.parse().ok())
                .ok_or_else(|| format!("no number {name} in {row:?}"))
        };
        Ok(Figures {
            rate: number("rps")?,
            p50_ms: number("p50_latency_ms")?,
            p99_ms: number("p99_latency_ms")?,
            max_ms: number("max_latency_ms")?,
        })
    }

    fn load(&self, name: &str) -> LoadFigures {
        LoadFigures {
            name: name.to_string(),
            requests_per_second: self.rate,
            p50_us: self.p50_ms * 1e3,
            p99_us: self.p99_ms * 1e3,
            p999_us: f64::NAN,
            p9999_us: f64::NAN,
            max_us: self.max_ms * 1e3,
            lag_p999_us: 0.0,
            tally: None,
        }
    }
}

/// Cells of a CSV line whose every cell is quoted; a cell may hold commas.
fn split_quoted(line: &str) -> Vec<&str> {
    line.trim().trim_matches('"').split("\",\"").collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Overrides, load};

    #[test]
    fn reads_the_csv_of_redis_benchmark() {
        let text = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_ms\",\
                    \"p99_latency_ms\",\"max_latency_ms\"\n\
                    \"MSET a, b\",\"99.50\",\"1\",\"2\",\"0.247\",\"3\",\"0.5\",\"7.0\"\n";
        let figures = Figures::of(text).expect("well formed");
        assert_eq!((figures.rate, figures.p50_ms, figures.max_ms), (99.5, 0.247, 7.0));
        assert!(Figures::of("Error").is_err());
    }

    #[test]
    fn scenarios_become_arguments_or_are_refused() {
        let first = |name| load(name, &Overrides::default()).expect("built in").remove(0);
        let get = arguments(&first("get")).expect("a plain GET");
        assert_eq!(get.join(" "), "--csv -P 1 -c 50 -r 1000000 -d 64 -t get");
        let mget = arguments(&first("mget10")).expect("a plain MGET");
        assert_eq!(mget.iter().filter(|word| word.as_str() == "key:__rand_int__").count(), 10);
        for name in ["fairness", "open-40k", "growth", "cache-zipf"] {
            assert!(arguments(&first(name)).is_err(), "{name}");
        }
    }
}
