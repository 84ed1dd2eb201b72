//! Section `cores`: cores that follow the load, shards that move while they serve, and many shards
//! on one core.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::{Findings, Goal, Limit, cpu_goal, rate_goal};
use crate::arm::Arm;
use crate::client::plan::Length;
use crate::fill;
use crate::measure::measurement::{self, Measurement};
use crate::report::Spread;
use crate::report::compared::Compared;
use crate::scenario::{self, Overrides, Scenario};

use Limit::{AtLeast, AtMost};

/// Time between two forced moves.
const MOVE_EVERY: Duration = Duration::from_millis(50);

/// What those who rest and come again may add to the 99.9th percentile, milliseconds.
const TAIL_MAX_MS: f64 = 2.0;

/// The longest time that a move may hold requests up, milliseconds.
const PAUSE_MAX_MS: f64 = 1.0;

impl Findings<'_> {
    /// The whole section.
    pub(super) fn cores(&mut self) -> Result<(), String> {
        if self.options.wants("get") {
            self.cpu_of_its_own()?;
        }
        self.on_shared_cpus(|findings| {
            if findings.options.wants("bitcount") {
                findings.server_is_the_limit()?;
            }
            if findings.options.wants("come-and-go") {
                findings.load_that_comes_and_goes()?;
            }
            if findings.options.wants("move") {
                findings.moves_under_load()?;
            }
            Ok(())
        })?;
        if self.options.wants("store-set") {
            self.many_shards_on_one_core()?;
        }
        Ok(())
    }

    /// Server on one cpu, client on the other, one request at a time: who must wake a sleeping
    /// server waits for it.
    fn cpu_of_its_own(&mut self) -> Result<(), String> {
        let servers = [
            self.ringraft("ringraft", "--mode cache --shards 1 --cores 0")?,
            self.ringraft(
                "ringraft, not spinning",
                "--mode cache --shards 1 --cores 0 --spin-us 0",
            )?,
            self.options.peers.redis("--save '' --appendonly no")?,
        ];
        let one = Overrides { pipeline: vec![1], ..self.options.overrides.clone() };
        let family = scenario::load("get", &one)?;
        self.compare_all(&family, &servers, 2, &|compared| {
            let cpu = compared.ratio(1, |m| m.server_cpu_us_per_request);
            let name = &compared.scenario.name;
            vec![
                rate_goal(compared, 1.0),
                Goal::new(format!("{name}, not spinning: cpu per op / redis"), cpu, AtMost(0.80)),
            ]
        })
    }

    /// From a second after the start of the load on, the server has found the cores it needs.
    fn server_is_the_limit(&mut self) -> Result<(), String> {
        let servers = [
            self.ringraft("auto", "--mode cache --shards 2")?,
            self.ringraft("all", "--mode cache --shards 2 --cores-in-use all")?,
            self.ringraft("one core", "--mode cache --shards 2 --cores 0")?,
        ];
        let family = scenario::load("bitcount", &self.of_long_strings())?;
        self.compare_all(&family, &servers, 1, &|compared| {
            let more = compared.ratio_to(1, 2, |m| m.requests_per_second);
            let name = &compared.scenario.name;
            vec![
                rate_goal(compared, 0.97),
                Goal::new(format!("{name}: requests/s, all / one core"), more, AtLeast(1.0)),
            ]
        })
    }

    fn load_that_comes_and_goes(&mut self) -> Result<(), String> {
        let server = self.ringraft("auto", "--mode cache --shards 2")?;
        self.mention(server.clone());
        let steady = scenario::load("bitcount", &self.of_long_strings())?.remove(0);
        let bursts = scenario::load("come-and-go", &Overrides::default())?.remove(0);
        let changes = match (bursts.plan.loads[0].bursts, bursts.plan.length) {
            (Some(bursts), Length::Seconds { measured, .. }) => {
                2.0 * measured / (bursts.on + bursts.off).as_secs_f64()
            }
            _ => return Err("come-and-go does not come and go".into()),
        };
        let arm = Arm::start(&server, Some(&self.bench.setup.server_cpu))?;
        let cpus = Some(&self.bench.setup.client_cpu);
        fill::ensure(&steady.plan.data, arm.address(), cpus, &mut self.bench.progress)?;
        let (mut tails, mut moves) = (Vec::new(), Vec::new());
        for round in 0..self.bench.setup.repeats {
            let alone = self.once(&steady, &arm, round)?;
            let before = moved_shards(&arm)?;
            let meanwhile = self.once(&bursts, &arm, round)?;
            moves.push(moved_shards(&arm)? as f64 - before as f64);
            tails.push((meanwhile.loads[0].p999_us - alone.loads[0].p999_us) / 1e3);
        }
        self.goals.extend([
            Goal::new(
                "come-and-go: p99.9 over that of the steady load, ms",
                Spread::of(tails),
                AtMost(TAIL_MAX_MS),
            ),
            Goal::new("come-and-go: shards moved", Spread::of(moves), AtMost(changes)).digits(0),
        ]);
        Ok(())
    }

    /// One of two shards goes to and fro under load.
    fn moves_under_load(&mut self) -> Result<(), String> {
        let server = self.ringraft("moving", "--mode cache --shards 2 --cores-in-use all")?;
        self.mention(server.clone());
        let keys = self.options.overrides.keys.unwrap_or(10_000_000);
        let overrides = Overrides {
            keys: Some(keys),
            pipeline: vec![1],
            connections: vec![8],
            ..self.options.overrides.clone()
        };
        let scenario = scenario::load("get", &overrides)?.remove(0);
        let arm = Arm::start(&server, Some(&self.bench.setup.server_cpu))?;
        let cpus = Some(&self.bench.setup.client_cpu);
        fill::ensure(&scenario.plan.data, arm.address(), cpus, &mut self.bench.progress)?;
        let mut tails = Vec::new();
        for round in 0..self.bench.setup.repeats {
            let alone = self.once(&scenario, &arm, round)?;
            let meanwhile = self.while_moving(&scenario, &arm, round)?;
            tails.push((meanwhile.loads[0].p9999_us - alone.loads[0].p9999_us) / 1e3);
        }
        let what = format!("move of one of two shards with {keys} keys under load");
        self.goals.extend([
            Goal::new(
                format!("{what}: longest pause of a move, ms"),
                Spread::of([longest_move_ms(&arm)?]),
                AtMost(PAUSE_MAX_MS),
            ),
            Goal::new(
                format!("{what}, every {} ms: p99.99 over that alone, ms", MOVE_EVERY.as_millis()),
                Spread::of(tails),
                AtMost(PAUSE_MAX_MS),
            ),
        ]);
        Ok(())
    }

    fn while_moving(
        &mut self,
        scenario: &Scenario,
        arm: &Arm,
        round: usize,
    ) -> Result<Measurement, String> {
        let is_over = AtomicBool::new(false);
        let mut caller = arm.connect()?;
        thread::scope(|scope| {
            let mover = scope.spawn(|| {
                let mut to = 0;
                while !is_over.load(Ordering::Relaxed) {
                    to = 1 - to;
                    caller.call(&["DEBUG", "MOVE-SHARD", "0", &to.to_string()])?;
                    thread::sleep(MOVE_EVERY);
                }
                Ok::<(), String>(())
            });
            let measured = self.once(scenario, arm, round);
            is_over.store(true, Ordering::Relaxed);
            mover.join().expect("the mover does not panic")?;
            measured
        })
    }

    /// One log, and one sync, for all shards of a core.
    fn many_shards_on_one_core(&mut self) -> Result<(), String> {
        let servers = [
            self.ringraft("32 shards", "--fsync always --shards 32 --cores 0")?,
            self.ringraft("1 shard", "--fsync always --shards 1 --cores 0")?,
        ];
        let fifty = Overrides { connections: vec![50], ..self.options.overrides.clone() };
        let family = scenario::load("store-set", &fifty)?;
        self.compare_all(&family, &servers, 1, &|compared: &Compared| {
            vec![rate_goal(compared, 0.93), cpu_goal(compared, 1.1)]
        })
    }

    /// Few long strings, however many keys other scenarios shall have, in one way of asking.
    fn of_long_strings(&self) -> Overrides {
        let (keys, value_size, pipeline) = (None, None, Vec::new());
        Overrides { keys, value_size, pipeline, ..self.options.overrides.clone() }
    }

    fn once(
        &mut self,
        scenario: &Scenario,
        arm: &Arm,
        round: usize,
    ) -> Result<Measurement, String> {
        let cpus = Some(&self.bench.setup.client_cpu);
        let measured = measurement::measure(scenario, arm, round, cpus, &mut self.bench.progress)?;
        self.bench.json.write(&measured)?;
        Ok(measured)
    }
}

fn cores_field(arm: &Arm, field: &str) -> Result<u64, String> {
    let value = arm.connect()?.info("cores", field)?;
    let value = value.ok_or_else(|| format!("{} has no INFO cores {field}", arm.name))?;
    value.parse().map_err(|_| format!("INFO cores {field}: {value}"))
}

fn moved_shards(arm: &Arm) -> Result<u64, String> {
    cores_field(arm, "moved_shards")
}

fn longest_move_ms(arm: &Arm) -> Result<f64, String> {
    Ok(cores_field(arm, "longest_shard_move_us")? as f64 / 1e3)
}
