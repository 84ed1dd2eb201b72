//! `ringraft-bench table`: every target of the project beside its measurement, by one command.
//!
//! Each section starts the servers it needs with the commands that its targets speak of. It takes
//! hours with five rounds; `--section` and `--scenario` run a part of it, `--repeats`, `--seconds`
//! and `--keys` make it shorter and less certain.

mod cluster;
mod cores;
mod default_start;
mod elements;
mod large;
mod probe;
mod push;
mod script;
mod tls;
mod type_memory;
mod types;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::arm::ServerCommand;
use crate::machine::Machine;
use crate::measure::compare::{Bench, Setup};
use crate::measure::growth;
use crate::measure::memory::{self, Amount, Case};
use crate::measure::restart::{self, How};
use crate::measure::snapshot;
use crate::measure::stalls;
use crate::peers::Peers;
use crate::report::compared::Compared;
use crate::report::goal::{Goal, Limit};
use crate::report::{Spread, html};
use crate::scenario::{self, Overrides, Scenario};

use Limit::{AtLeast, AtMost};

/// How long the machine is watched before the servers are.
const STALLS_WATCHED: Duration = Duration::from_secs(4);

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// The program of ringraft
    #[arg(long, default_value = "target/release/ringraft")]
    ringraft: String,
    #[command(flatten)]
    peers: Peers,
    /// Parts of the table, separated by commas; all of them if not given
    #[arg(long, value_enum, value_delimiter = ',')]
    section: Vec<Section>,
    /// Of the sections' scenarios only these, separated by commas
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<String>,
    /// Sections type-memory and large: without the peers, which only stand beside there
    #[arg(long)]
    alone: bool,
    #[command(flatten)]
    overrides: Overrides,
    #[command(flatten)]
    setup: Setup,
    /// Cpus of servers with two shards; the second is shared with the client where there are only
    /// two
    #[arg(long, default_value = "0,1")]
    two_cpus: crate::cpus::Cpus,
    /// Write a report with plots of the compared scenarios to this file
    #[arg(long)]
    html: Option<PathBuf>,
}

/// Parts of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Section {
    /// Servers as they start by default, on cpus that they share with the client.
    Default,
    /// Cores that follow the load, and shards that move.
    Cores,
    /// GET and SET against Redis, one shard, no disk.
    Cache,
    /// Commands of all types against all peers.
    Types,
    /// Bytes per element of large values, and per key of small ones.
    TypeMemory,
    /// Values of ten million elements: cpu of a command, and what another client feels.
    Large,
    /// Messages to subscribers.
    Push,
    /// Lua scripts.
    Script,
    /// GET and SET through TLS against Redis.
    Tls,
    /// Two shards against one.
    Hops,
    /// MGET and MSET over two shards against Redis.
    Multi,
    /// SET with every write on disk against Redis with appendfsync always.
    Store,
    /// Bytes per key and per connection.
    Memory,
    /// Loading a snapshot against Redis loading its RDB.
    Restart,
    /// Load while snapshots are taken.
    Snapshot,
    /// Latencies at a fixed rate.
    Open,
    /// One slow client beside eight fast ones.
    Fairness,
    /// Cost with more keys and more connections.
    Growth,
    /// Three nodes, against etcd and against one.
    Cluster,
}

/// What is found goes here.
struct Findings<'a> {
    options: &'a Options,
    bench: Bench<'a>,
    goals: Vec<Goal>,
    compared: Vec<Compared>,
    servers: Vec<ServerCommand>,
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<(), String> {
    let machine = Machine::here();
    println!("{}", machine.text());
    let mut bench = Bench::new(&options.setup, "ringraft-bench")?;
    bench.json.write(&machine)?;
    let mut findings =
        Findings { options, bench, goals: Vec::new(), compared: Vec::new(), servers: Vec::new() };
    let control = {
        let base = findings.redis("--save '' --appendonly no")?;
        let family = scenario::load("get", &options.overrides)?;
        let first = family.first().ok_or("get has no variants")?;
        findings.bench.control(first, &base)?
    };
    let stalls = stalls::watch(STALLS_WATCHED);
    findings.bench.json.write(&stalls)?;
    let floor = stalls.text();
    println!("{control}\n{floor}\n");
    let mut outcome = Ok(());
    for section in Section::value_variants() {
        if !options.section.is_empty() && !options.section.contains(section) {
            continue;
        }
        let before = findings.goals.len();
        outcome = findings.measure(*section);
        // A part is shown when it is done, or has failed: it has told what it knew.
        println!("{section:?}\n{}", Goal::table(&findings.goals[before..]));
        if outcome.is_err() {
            break;
        }
    }
    print!("All\n{}", Goal::table(&findings.goals));
    if !findings.compared.is_empty() {
        print!("\n{}", Compared::table(&findings.compared));
    }
    if let Some(path) = &options.html {
        let page = html::page(
            "ringraft-bench table",
            &machine,
            &findings.servers,
            &[control.to_string(), floor],
            &findings.goals,
            &findings.compared,
        )?;
        std::fs::write(path, page).map_err(|error| format!("{}: {error}", path.display()))?;
        println!("report: {}", path.display());
    }
    outcome
}

impl Findings<'_> {
    fn measure(&mut self, section: Section) -> Result<(), String> {
        match section {
            Section::Default => self.default_start(),
            Section::Cores => self.cores(),
            Section::Cache => self.cache(),
            Section::Types => self.types(),
            Section::TypeMemory => self.type_memory(),
            Section::Large => self.large(),
            Section::Push => self.push(),
            Section::Script => self.script(),
            Section::Tls => self.tls(),
            Section::Hops => self.hops(),
            Section::Multi => self.multi(),
            Section::Store => self.store(),
            Section::Memory => self.memory(),
            Section::Restart => self.restart(),
            Section::Snapshot => self.snapshot(),
            Section::Open => self.open(),
            Section::Fairness => self.fairness(),
            Section::Growth => self.growth(),
            Section::Cluster => self.cluster(),
        }
    }

    fn ringraft(&self, name: &str, arguments: &str) -> Result<ServerCommand, String> {
        format!("{name}={} --log-level error {arguments}", self.options.ringraft).parse()
    }

    fn redis(&self, arguments: &str) -> Result<ServerCommand, String> {
        self.options.peers.redis(arguments)
    }

    fn one_shard(&self) -> Result<ServerCommand, String> {
        self.ringraft("ringraft", "--mode cache --shards 1 --cores 0")
    }

    /// Compares arm 0 with arm 1 in some families, hands each scenario to `judge`, and keeps it for
    /// the report.
    fn compare(
        &mut self,
        families: &[&str],
        servers: [ServerCommand; 2],
        judge: impl Fn(&Compared) -> Vec<Goal>,
    ) -> Result<(), String> {
        for name in families.iter().filter(|name| self.options.wants(name)) {
            let family = scenario::load(name, &self.options.overrides)?;
            self.compare_all(&family, &servers, 1, &judge)?;
        }
        Ok(())
    }

    /// Compares servers in the scenarios of a family, hands each to `judge`, and keeps it for the
    /// report.
    fn compare_all(
        &mut self,
        family: &[Scenario],
        servers: &[ServerCommand],
        base: usize,
        judge: &impl Fn(&Compared) -> Vec<Goal>,
    ) -> Result<(), String> {
        for compared in self.bench.family(family, servers, base)? {
            self.goals.extend(judge(&compared));
            self.compared.push(compared);
        }
        for server in servers {
            self.mention(server.clone());
        }
        Ok(())
    }

    /// Keeps a command for the head of the report.
    fn mention(&mut self, server: ServerCommand) {
        let is_known =
            |known: &ServerCommand| known.line() == server.line() && known.name == server.name;
        if !self.servers.iter().any(is_known) {
            self.servers.push(server);
        }
    }

    fn cache(&mut self) -> Result<(), String> {
        let servers = [self.one_shard()?, self.redis("--save '' --appendonly no")?];
        self.compare(&["get", "get-few", "set", "set-few"], servers, |compared| {
            let cpu = match (compared.scenario.pipeline, compared.scenario.connections) {
                (..16, 50..) => 0.80,
                (..16, _) => 0.85,
                (16..100, _) => 0.50,
                (100.., _) => 0.30,
            };
            let rate = match compared.scenario.pipeline {
                ..16 => 1.0,
                16..100 => 2.0,
                100.. => 3.0,
            };
            vec![cpu_goal(compared, cpu), rate_goal(compared, rate)]
        })
    }

    /// Two shards are two parts of one core's work on one cpu, and two cores that send each other
    /// messages on two.
    fn hops(&mut self) -> Result<(), String> {
        let one = self.ringraft("one shard", "--mode cache --shards 1 --cores 0")?;
        let side = self.ringraft("two shards, one cpu", "--mode cache --shards 2 --cores 0")?;
        let two = self.ringraft(
            "two shards, two cpus",
            "--mode cache --shards 2 --cores 0,1 --cores-in-use all",
        )?;
        let judge = |compared: &Compared| {
            let limit = match compared.scenario.pipeline {
                ..16 => 1.25,
                16..100 => 1.20,
                100.. => 1.08,
            };
            vec![cpu_goal(compared, limit)]
        };
        self.compare(&["get", "set"], [side, one.clone()], judge)?;
        self.on_two_cpus(|findings| findings.compare(&["get", "set"], [two, one], judge))
    }

    fn multi(&mut self) -> Result<(), String> {
        let one = self.ringraft("2 shards, one cpu", "--mode cache --shards 2 --cores 0")?;
        let two = self.ringraft(
            "2 shards, two cpus",
            "--mode cache --shards 2 --cores 0,1 --cores-in-use all",
        )?;
        let redis = self.redis("--save '' --appendonly no")?;
        let judge = |compared: &Compared| {
            // Nothing was asked for at P=100.
            if compared.scenario.pipeline < 100 {
                vec![rate_goal(compared, 1.0)]
            } else {
                Vec::new()
            }
        };
        self.compare(&["mget10", "mset10"], [one, redis.clone()], judge)?;
        self.on_two_cpus(|findings| findings.compare(&["mget10", "mset10"], [two, redis], judge))
    }

    fn store(&mut self) -> Result<(), String> {
        let servers = [
            self.ringraft("ringraft always", "--fsync always --shards 1 --cores 0")?,
            self.redis("--save '' --appendonly yes --appendfsync always")?,
        ];
        self.compare(&["store-set"], servers, |compared| {
            match (compared.scenario.pipeline, compared.scenario.connections) {
                (1, 1) => vec![rate_goal(compared, 1.6)],
                (16, 50) => vec![rate_goal(compared, 1.5)],
                (1, 50) => vec![cpu_goal(compared, 0.75)],
                _ => Vec::new(),
            }
        })
    }

    fn memory(&mut self) -> Result<(), String> {
        const SETTLE: Duration = Duration::from_secs(10);
        let server = self.one_shard()?;
        let keys = self.options.overrides.keys.unwrap_or(1_000_000);
        let amount = Amount { keys, key_size: 16, settle: SETTLE };
        let setup = self.options.setup.clone();
        let json = &mut self.bench.json;
        let mut each = |case| memory::measure(&server, case, amount, &setup, json);
        let mut goals = Vec::new();
        for (size, limit) in [(8, 48.0), (64, 106.0), (1024, 1090.0)] {
            let plain = each(Case::Plain(size))?;
            let expiring = each(Case::Expiring(size))?;
            let more = Spread::of([expiring.median - plain.median]);
            let what = format!("bytes per key of 16 with a value of {size}");
            goals.push(Goal::new(what, plain, AtMost(limit)).digits(1));
            goals.push(Goal::new(format!("more with a TTL, value of {size}"), more, AtMost(8.0)));
        }
        let connection = each(Case::Connections)?;
        goals.push(Goal::new("bytes per idle connection", connection, AtMost(4096.0)).digits(0));
        self.goals.extend(goals);
        Ok(())
    }

    fn restart(&mut self) -> Result<(), String> {
        let servers = [
            self.ringraft(
                "ringraft",
                "--fsync everysec --shards 2 --cores 0,1 --cores-in-use all",
            )?,
            self.redis("--save '' --appendonly no")?,
        ];
        let keys = self.options.overrides.keys.unwrap_or(3_000_000);
        let data = restart::data(keys, 64);
        // Redis has one thread: both may use both cpus.
        let setup =
            Setup { server_cpu: self.options.two_cpus.clone(), ..self.options.setup.clone() };
        let rounds = restart::rounds(&servers, How::Save, &data, &setup, &mut self.bench.json)?;
        let faster = Spread::of(rounds.iter().map(|round| round[1].0 / round[0].0));
        let what = format!("restart, {keys} keys of 64 bytes, 2 shards: times as fast as Redis");
        self.goals.push(Goal::new(what, faster, AtLeast(3.0)));
        Ok(())
    }

    fn snapshot(&mut self) -> Result<(), String> {
        let servers = [self.ringraft("ringraft", "--fsync everysec --shards 1 --cores 0")?];
        let mut family = scenario::load("snapshot", &self.options.overrides)?;
        let scenario = family.remove(0);
        let setup = &self.options.setup;
        let (rounds, _) = snapshot::rounds(&servers, &scenario, setup, &mut self.bench.json)?;
        let spread = |value: fn(&snapshot::Measurement) -> f64| {
            Spread::of(rounds.iter().map(|round| value(&round[0])))
        };
        let memory = spread(|m| m.resident_meanwhile as f64 / m.resident_alone as f64);
        let rate = spread(|m| m.rate_meanwhile / m.rate_alone);
        let stall = spread(|m| (m.max_us_meanwhile - m.max_us_alone) / 1e3);
        self.goals.extend([
            Goal::new("snapshots: memory meanwhile / alone", memory, AtMost(1.05)),
            Goal::new("snapshots: requests/s meanwhile / alone", rate, AtLeast(0.90)),
            Goal::new("snapshots: longest latency over that alone, ms", stall, AtMost(1.0)),
        ]);
        Ok(())
    }

    fn open(&mut self) -> Result<(), String> {
        let servers = [self.one_shard()?, self.redis("--save '' --appendonly no")?];
        self.compare(&["open-40k"], servers, |compared| {
            let name = &compared.scenario.name;
            vec![
                Goal::new(
                    format!("{name}: p99.9 / Redis"),
                    compared.ratio(0, |m| m.loads[0].p999_us),
                    AtMost(0.8),
                ),
                Goal::new(
                    format!("{name}: p99.99 / Redis"),
                    compared.ratio(0, |m| m.loads[0].p9999_us),
                    AtMost(0.5),
                ),
            ]
        })
    }

    fn fairness(&mut self) -> Result<(), String> {
        let servers = [self.one_shard()?, self.redis("--save '' --appendonly no")?];
        self.compare(&["fairness"], servers, |compared| {
            let single = compared.spread(0, |m| m.loads[0].p999_us / 1e3);
            vec![Goal::new("fairness: p99.9 of the single client, ms", single, AtMost(2.0))]
        })
    }

    fn growth(&mut self) -> Result<(), String> {
        let servers = [self.one_shard()?];
        let base = &self.options.overrides;
        let mut cpu = |overrides: Overrides| {
            let compared = growth::measure(&mut self.bench, "growth", &servers, &overrides)?;
            Ok::<Spread, String>(compared.spread(0, |m| m.server_cpu_us_per_request))
        };
        let most = base.keys.unwrap_or(10_000_000);
        let few = cpu(Overrides { keys: Some(most / 100), ..base.clone() })?;
        let many = cpu(Overrides { keys: Some(most), ..base.clone() })?;
        let fifty = cpu(Overrides { connections: vec![50], ..base.clone() })?;
        let thousands = cpu(Overrides { connections: vec![5000], ..base.clone() })?;
        self.goals.push(Goal::new(
            format!("cpu per op with {most} keys / with {}", most / 100),
            many.over(&few),
            AtMost(1.3),
        ));
        self.goals.push(Goal::new(
            "cpu per op with 5,000 connections / with 50",
            thousands.over(&fifty),
            AtMost(1.1),
        ));
        Ok(())
    }

    /// Lets servers use the cpus of two shards while `measure` runs.
    fn on_two_cpus(
        &mut self,
        measure: impl FnOnce(&mut Findings) -> Result<(), String>,
    ) -> Result<(), String> {
        let two = self.options.two_cpus.clone();
        self.with_cpus(&Setup { server_cpu: two, ..self.options.setup.clone() }, measure)
    }

    /// Lets servers and clients use the cpus of two shards, as the kernel likes, while `measure`
    /// runs.
    fn on_shared_cpus(
        &mut self,
        measure: impl FnOnce(&mut Findings) -> Result<(), String>,
    ) -> Result<(), String> {
        let two = &self.options.two_cpus;
        let setup = Setup {
            server_cpu: two.clone(),
            client_cpu: two.shared(),
            ..self.options.setup.clone()
        };
        self.with_cpus(&setup, measure)
    }

    fn with_cpus(
        &mut self,
        setup: &Setup,
        measure: impl FnOnce(&mut Findings) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut findings = Findings {
            options: self.options,
            bench: Bench::new(setup, "ringraft-bench")?,
            goals: Vec::new(),
            compared: Vec::new(),
            servers: Vec::new(),
        };
        let outcome = measure(&mut findings);
        let Findings { goals, compared, servers, .. } = findings;
        self.goals.extend(goals);
        self.compared.extend(compared);
        for server in servers {
            self.mention(server);
        }
        outcome
    }
}

impl Options {
    /// Is a scenario of a section to be measured?
    fn wants(&self, scenario: &str) -> bool {
        self.scenario.is_empty() || self.scenario.iter().any(|wanted| wanted == scenario)
    }
}

fn cpu_goal(compared: &Compared, limit: f64) -> Goal {
    let cpu = compared.ratio(0, |measurement| measurement.server_cpu_us_per_request);
    Goal::new(title(compared, "cpu per op"), cpu, AtMost(limit))
}

fn rate_goal(compared: &Compared, limit: f64) -> Goal {
    let rate = compared.ratio(0, |measurement| measurement.requests_per_second);
    Goal::new(title(compared, "requests/s"), rate, AtLeast(limit))
}

fn title(compared: &Compared, what: &str) -> String {
    let names = format!("{} / {}", compared.arm_name(0), compared.arm_name(compared.base));
    format!("{}: {what}, {names}", compared.scenario.name)
}
