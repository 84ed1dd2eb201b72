//! One run of one scenario against one arm: what the client saw and what the kernel says the server
//! used meanwhile.

use serde::Serialize;

use crate::arm::Arm;
use crate::client::progress::Progress;
use crate::client::run::{self, Moment, Outcome, Sample};
use crate::client::tally::Tally;
use crate::cpus::Cpus;
use crate::proc::{self, CpuTime};
use crate::scenario::{self, Found, Scenario};

/// Runs until the one that had no reply counts as it is.
const RUNS_MAX: usize = 4;

/// A run.
#[derive(Clone, Serialize)]
pub struct Measurement {
    /// `compare`.
    pub kind: &'static str,
    /// The arm.
    pub server: String,
    /// The scenario's name.
    pub scenario: String,
    /// Requests sent together.
    pub pipeline: usize,
    /// Connections.
    pub connections: usize,
    /// Counts from 0.
    pub round: usize,
    /// The load generator.
    pub client: String,
    /// Replies in the measured time.
    pub requests: u64,
    /// Of all loads.
    pub requests_per_second: f64,
    /// User and system time of the server, all threads.
    pub server_cpu_us_per_request: f64,
    /// Cpus that the server used.
    pub server_cpus: f64,
    /// Cpus that the client used; near the number of its threads, the client was the limit.
    pub client_cpus: f64,
    /// Cpus that anything else used meanwhile.
    pub foreign_cpus: f64,
    /// Of each load.
    pub loads: Vec<LoadFigures>,
    /// Throughput over time; the client redis-benchmark has none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
}

/// Latencies of a load, in microseconds.
#[derive(Clone, Serialize)]
pub struct LoadFigures {
    /// Its name.
    pub name: String,
    /// Of this load.
    pub requests_per_second: f64,
    /// Median.
    pub p50_us: f64,
    /// 99 of 100 were faster.
    pub p99_us: f64,
    /// 999 of 1000 were faster.
    pub p999_us: f64,
    /// 9,999 of 10,000 were faster; redis-benchmark does not tell.
    pub p9999_us: f64,
    /// The longest.
    pub max_us: f64,
    /// Open loop: 99.9 % of the requests were sent at most so long after they were due.
    pub lag_p999_us: f64,
    /// The whole distribution, for plots.
    #[serde(skip)]
    pub tally: Option<Tally>,
}

impl LoadFigures {
    fn of(name: &str, tally: Tally, requests_per_second: f64) -> LoadFigures {
        LoadFigures {
            name: name.to_string(),
            requests_per_second,
            p50_us: tally.percentile_us(50.0),
            p99_us: tally.percentile_us(99.0),
            p999_us: tally.percentile_us(99.9),
            p9999_us: tally.percentile_us(99.99),
            max_us: tally.percentile_us(100.0),
            lag_p999_us: tally.lag.value_at_percentile(99.9) as f64 / 1e3,
            tally: Some(tally),
        }
    }
}

/// Cpu times at one moment.
#[derive(Clone, Copy, Default)]
pub struct Clocks {
    server: CpuTime,
    client: CpuTime,
    ended_clients: f64,
    machine: f64,
}

impl Clocks {
    /// Now. A client that is a child process counts when it has ended.
    pub fn read(arm: &Arm) -> Result<Clocks, String> {
        Ok(Clocks {
            server: CpuTime::of(arm.pid())?,
            client: CpuTime::of(std::process::id())?,
            ended_clients: proc::cpu_seconds_of_ended_children()?,
            machine: proc::machine_busy_seconds()?,
        })
    }

    /// Seconds of the server, of the client and of everything else since `before`.
    pub fn since(&self, before: &Clocks) -> (f64, f64, f64) {
        let server = self.server.since(&before.server);
        let ended_clients = self.ended_clients - before.ended_clients;
        let client = self.client.since(&before.client) + ended_clients;
        let foreign = self.machine - before.machine - server - client;
        (server, client, foreign.max(0.0))
    }
}

/// Runs until each load has had a reply in the measured time, some times at most. On a machine that
/// does other things a short time can pass without one, which says nothing of the server and is to
/// end no table.
fn until_answered(mut run: impl FnMut() -> Result<Outcome, String>) -> Result<Outcome, String> {
    for _ in 1..RUNS_MAX {
        let outcome = run()?;
        if outcome.loads.iter().all(|load| load.requests > 0) {
            return Ok(outcome);
        }
    }
    run()
}

/// Runs a scenario against an arm that holds its keys. What does not hold afterwards is an error.
pub fn measure(
    scenario: &Scenario,
    arm: &Arm,
    round: usize,
    cpus: Option<&Cpus>,
    progress: &mut Progress,
) -> Result<Measurement, String> {
    progress.title(format!("{} round {} {}", scenario.name, round + 1, arm.name));
    let mut clocks = [Ok(Clocks::default()), Ok(Clocks::default())];
    let outcome = until_answered(|| {
        run::run(&scenario.plan, arm.address(), cpus, progress, &mut |moment| match moment {
            Moment::Begin => clocks[0] = Clocks::read(arm),
            Moment::End => clocks[1] = Clocks::read(arm),
            Moment::Tick(_) => {}
        })
    })?;
    let [begin, end] = clocks;
    let (server, client, foreign) = end?.since(&begin?);
    let found = Found { keys: Some(arm.connect()?.number(&["DBSIZE"])?) };
    let failures = scenario::check(scenario, &outcome, found);
    if !failures.is_empty() {
        return Err(format!("{} on {}: {}", scenario.name, arm.name, failures.join("; ")));
    }
    let requests = outcome.requests();
    let loads = outcome.loads.iter().map(|load| {
        let rate = load.requests as f64 / outcome.seconds;
        LoadFigures::of(&load.name, load.tally.clone(), rate)
    });
    Ok(Measurement {
        kind: "compare",
        server: arm.name.clone(),
        scenario: scenario.name.clone(),
        pipeline: scenario.pipeline,
        connections: scenario.connections,
        round,
        client: "ringraft-bench".into(),
        requests,
        requests_per_second: outcome.rate(),
        server_cpu_us_per_request: server * 1e6 / requests as f64,
        server_cpus: server / outcome.seconds,
        client_cpus: client / outcome.seconds,
        foreign_cpus: foreign / outcome.seconds,
        loads: loads.collect(),
        samples: outcome.samples,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::run::LoadOutcome;

    #[test]
    fn a_run_without_a_reply_is_run_again_but_not_for_ever() {
        for (silent, runs) in [(0, 1), (1, 2), (RUNS_MAX - 1, RUNS_MAX), (RUNS_MAX, RUNS_MAX)] {
            let mut count = 0;
            let outcome = until_answered(|| {
                count += 1;
                let requests = if count > silent { 9 } else { 0 };
                let loads = [5, requests].map(|requests| LoadOutcome {
                    name: "load".into(),
                    requests,
                    tally: Tally::new(),
                });
                Ok(Outcome { loads: loads.into(), seconds: 1.0, samples: vec![] })
            });
            assert_eq!(count, runs);
            let last = outcome.expect("no run failed").loads[1].requests;
            assert_eq!(last, if silent < RUNS_MAX { 9 } else { 0 });
        }
        let mut count = 0;
        let failed = until_answered(|| {
            count += 1;
            Err("refused".into())
        });
        assert!(failed.is_err_and(|error| error == "refused"));
        assert_eq!(count, 1);
    }
}
