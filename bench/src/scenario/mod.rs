//! Scenarios: what a benchmark does and what must hold, as TOML.
//!
//! A file may list several pipeline depths and numbers of connections; each combination becomes a
//! scenario of its own. Every error names the field.

mod expect;
mod file;

use std::path::Path;
use std::time::Duration;

use clap::Args;

use crate::client::keys::keys_of_size;
use crate::client::line::Line;
use crate::client::operations::{OPERATIONS, Operation};
use crate::client::plan::{Bursts, Data, Distribution, Length, Load, Pace, Plan};
use crate::client::values::Sizes;

pub use expect::{Found, check};
pub use file::Expect;
use file::File;

/// The scenarios that come with the tool, by name.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("get", include_str!("../../scenarios/get.toml")),
    ("set", include_str!("../../scenarios/set.toml")),
    ("get-few", include_str!("../../scenarios/get-few.toml")),
    ("set-few", include_str!("../../scenarios/set-few.toml")),
    ("mget10", include_str!("../../scenarios/mget10.toml")),
    ("mset10", include_str!("../../scenarios/mset10.toml")),
    ("open-40k", include_str!("../../scenarios/open-40k.toml")),
    ("fairness", include_str!("../../scenarios/fairness.toml")),
    ("store-set", include_str!("../../scenarios/store-set.toml")),
    ("growth", include_str!("../../scenarios/growth.toml")),
    ("bitcount", include_str!("../../scenarios/bitcount.toml")),
    ("come-and-go", include_str!("../../scenarios/come-and-go.toml")),
    ("snapshot", include_str!("../../scenarios/snapshot.toml")),
    ("cache-zipf", include_str!("../../scenarios/cache-zipf.toml")),
    ("insert", include_str!("../../scenarios/insert.toml")),
    ("cluster-set", include_str!("../../scenarios/cluster-set.toml")),
    ("cluster-get", include_str!("../../scenarios/cluster-get.toml")),
];

/// One benchmark, ready to run.
#[derive(Clone)]
pub struct Scenario {
    /// Of the file, without pipeline and connections.
    pub family: String,
    /// `get P=16 c=50`
    pub name: String,
    /// One sentence.
    pub about: String,
    /// Requests sent together by the first load.
    pub pipeline: usize,
    /// Connections of all loads.
    pub connections: usize,
    /// Whether every key is set before.
    pub fill: bool,
    /// Commands that are given once before, and how often each.
    pub prepare: Vec<(Operation, u64)>,
    /// What the client does.
    pub plan: Plan,
    /// What must hold.
    pub expect: Expect,
}

/// Numbers that replace those of the scenario files.
#[derive(Args, Clone, Default)]
pub struct Overrides {
    /// Keys, instead of what the scenario says
    #[arg(long)]
    pub keys: Option<u64>,
    /// Bytes of each value
    #[arg(short = 'd', long)]
    pub value_size: Option<usize>,
    /// Seconds that are measured
    #[arg(long)]
    pub seconds: Option<f64>,
    /// Seconds before that
    #[arg(long)]
    pub warm_up: Option<f64>,
    /// Pipeline depths, separated by commas
    #[arg(short = 'P', long, value_delimiter = ',')]
    pub pipeline: Vec<usize>,
    /// Connections, separated by commas
    #[arg(short = 'c', long, value_delimiter = ',')]
    pub connections: Vec<usize>,
    /// Client threads of each load
    #[arg(long)]
    pub threads: Option<usize>,
    /// Requests per second of an open loop
    #[arg(long)]
    pub rate: Option<f64>,
}

/// The scenarios of a file, or of a name in [`BUILT_IN`].
pub fn load(name: &str, overrides: &Overrides) -> Result<Vec<Scenario>, String> {
    if let Some((_, text)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
        return parse(name, text, overrides);
    }
    let path = Path::new(name);
    let known = || {
        let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
        format!("{name}: neither a file nor one of {}", names.join(", "))
    };
    let text = std::fs::read_to_string(path).map_err(|error| format!("{} ({error})", known()))?;
    let family = path.file_stem().unwrap_or_default().to_string_lossy();
    parse(&family, &text, overrides)
}

/// The scenarios of a text.
pub fn parse(family: &str, text: &str, overrides: &Overrides) -> Result<Vec<Scenario>, String> {
    let context = |error: String| format!("scenario {family}: {error}");
    let mut file: File = toml::from_str(text).map_err(|error| context(error.to_string()))?;
    overrides.apply(&mut file);
    let mut scenarios = Vec::new();
    let variants = |one_or_many: Option<&file::OneOrMany>, default: usize| {
        one_or_many.map_or(vec![default], file::OneOrMany::list)
    };
    let first = file.load.first().ok_or_else(|| context("load: none".into()))?;
    let pipelines = variants(first.pipeline.as_ref(), 1);
    let connections = variants(first.connections.as_ref(), 1);
    let several = |list: &[usize]| list.len() != 1;
    if file.load.len() > 1 && (several(&pipelines) || several(&connections)) {
        return Err(context("load: lists of pipeline or connections need a single load".into()));
    }
    for connections in connections {
        for &pipeline in &pipelines {
            scenarios.push(resolve(family, &file, pipeline, connections).map_err(context)?);
        }
    }
    Ok(scenarios)
}

impl Overrides {
    fn apply(&self, file: &mut File) {
        if let Some(keys) = self.keys {
            if file.expect.keys == Some(file.keys.count) {
                file.expect.keys = Some(keys);
            }
            if file.requests == Some(file.keys.count) {
                file.requests = Some(keys);
            }
            file.keys.count = keys;
        }
        if self.value_size.is_some() {
            file.values.size = self.value_size;
            (file.values.smallest, file.values.largest) = (None, None);
        }
        if file.requests.is_none() {
            file.seconds = self.seconds.or(file.seconds);
            file.warm_up = self.warm_up.or(file.warm_up);
        }
        let single = file.load.len() == 1;
        for load in &mut file.load {
            if single && !self.pipeline.is_empty() {
                load.pipeline = Some(file::OneOrMany::Many(self.pipeline.clone()));
            }
            if single && !self.connections.is_empty() {
                load.connections = Some(file::OneOrMany::Many(self.connections.clone()));
            }
            load.threads = self.threads.or(load.threads);
            if load.rate.is_some() {
                load.rate = self.rate.or(load.rate);
            }
        }
    }
}

fn resolve(
    family: &str,
    file: &File,
    pipeline: usize,
    connections: usize,
) -> Result<Scenario, String> {
    let data = data(file)?;
    let single = file.load.len() == 1;
    let mut loads = Vec::new();
    for (index, load) in file.load.iter().enumerate() {
        let name = load.name.clone().unwrap_or_else(|| format!("load{index}"));
        let resolved = if single {
            resolve_load(load, name, pipeline, connections)
        } else {
            let number = |field: Option<&file::OneOrMany>| match field {
                None => Ok(1),
                Some(file::OneOrMany::One(number)) => Ok(*number),
                Some(_) => Err("lists need a single load".to_string()),
            };
            let depth = number(load.pipeline.as_ref());
            let count = number(load.connections.as_ref());
            depth.and_then(|depth| resolve_load(load, name, depth, count?))
        };
        loads.push(resolved.map_err(|error| format!("load[{index}].{error}"))?);
    }
    let connections = loads.iter().map(|load: &Load| load.connections).sum();
    let name =
        if single { format!("{family} P={pipeline} c={connections}") } else { family.to_string() };
    Ok(Scenario {
        family: family.to_string(),
        name,
        about: file.about.clone(),
        pipeline,
        connections,
        fill: file.keys.fill.unwrap_or(true),
        prepare: preparations(file)?,
        plan: Plan {
            data,
            loads,
            length: length(file)?,
            verify_every: at_least("verify_every", file.verify_every.unwrap_or(64), 1)?,
            seed: file.seed.unwrap_or(1),
        },
        expect: expectations(file)?,
    })
}

fn preparations(file: &File) -> Result<Vec<(Operation, u64)>, String> {
    let each = file.prepare.iter().enumerate().map(|(index, prepare)| {
        let operation =
            line(&prepare.command).map_err(|error| format!("prepare[{index}].command: {error}"))?;
        let count = at_least(&format!("prepare[{index}].count"), prepare.count, 1)?;
        Ok((operation, count))
    });
    each.collect()
}

fn data(file: &File) -> Result<Data, String> {
    const KEY_SIZE: usize = 16;
    const VALUE_SIZE: usize = 64;
    let keys = at_least("keys.count", file.keys.count, 1)?;
    let key_size = file.keys.size.unwrap_or(KEY_SIZE);
    if keys_of_size(key_size) < keys {
        return Err(format!("keys.size: {keys} different keys need more than {key_size} bytes"));
    }
    let values = &file.values;
    let sizes = match (values.size, values.smallest, values.largest) {
        (size, None, None) => {
            let size = size.unwrap_or(VALUE_SIZE);
            Sizes { smallest: size, largest: size }
        }
        (None, Some(smallest), Some(largest)) if smallest <= largest => Sizes { smallest, largest },
        _ => return Err("values: either size, or smallest and a largest not below it".into()),
    };
    Ok(Data { keys, key_size, sizes, ttl_seconds: values.ttl_seconds.unwrap_or(86_400) })
}

fn length(file: &File) -> Result<Length, String> {
    match (file.seconds, file.requests) {
        (Some(_), Some(_)) => Err("requests: seconds is given as well".into()),
        (None, None) => Err("seconds: neither seconds nor requests is given".into()),
        (None, Some(requests)) if file.warm_up.is_none() => {
            Ok(Length::Requests(at_least("requests", requests, 1)?))
        }
        (None, Some(_)) => Err("warm_up: a run of so many requests has none".into()),
        (Some(measured), None) => {
            let warm_up = file.warm_up.unwrap_or(0.0);
            if !(measured > 0.0 && measured.is_finite()) {
                return Err(format!("seconds: {measured} is not above 0"));
            }
            if !(warm_up >= 0.0 && warm_up.is_finite()) {
                return Err(format!("warm_up: {warm_up} is negative"));
            }
            Ok(Length::Seconds { warm_up, measured })
        }
    }
}

fn resolve_load(
    load: &file::Load,
    name: String,
    pipeline: usize,
    connections: usize,
) -> Result<Load, String> {
    let mix = mix(load)?;
    let distribution = match (load.distribution.as_deref(), load.exponent) {
        (Some("zipf"), exponent) => {
            let exponent = exponent.unwrap_or(0.99);
            if !(exponent > 0.0 && exponent.is_finite()) {
                return Err(format!("exponent: {exponent} is not above 0"));
            }
            Distribution::Zipf { exponent }
        }
        (_, Some(_)) => return Err("exponent: only zipf has one".into()),
        (None | Some("uniform"), None) => Distribution::Uniform,
        (Some("sequential"), None) => Distribution::Sequential,
        (Some(other), None) => {
            return Err(format!("distribution: {other} is not uniform, zipf or sequential"));
        }
    };
    let pace = match (load.rate, load.arrivals.as_deref()) {
        (None, None) => Pace::Closed,
        (None, Some(_)) => return Err("arrivals: a closed loop has none; give a rate".into()),
        (Some(rate), _) if !(rate > 0.0 && rate.is_finite()) => {
            return Err(format!("rate: {rate} is not above 0"));
        }
        (Some(rate), None | Some("even")) => Pace::Open { rate, poisson: false },
        (Some(rate), Some("poisson")) => Pace::Open { rate, poisson: true },
        (Some(_), Some(other)) => {
            return Err(format!("arrivals: {other} is not even or poisson"));
        }
    };
    if distribution == Distribution::Sequential && pace != Pace::Closed {
        return Err("distribution: sequential keys need a closed loop".into());
    }
    let bursts = bursts(load, pace)?;
    let connections = at_least("connections", connections as u64, 1)? as usize;
    let threads = at_least("threads", load.threads.unwrap_or(1) as u64, 1)? as usize;
    let keys_per_command = load.keys_per_command.unwrap_or(10) as u64;
    Ok(Load {
        name,
        mix,
        distribution,
        keys_per_command: at_least("keys_per_command", keys_per_command, 1)? as usize,
        pipeline: at_least("pipeline", pipeline as u64, 1)? as usize,
        connections,
        threads: threads.min(connections),
        pace,
        bursts,
        urgent: load.urgent.unwrap_or(false),
    })
}

/// The commands of a load and their shares.
fn mix(load: &file::Load) -> Result<Vec<(Operation, f64)>, String> {
    let mut mix = Vec::new();
    for (command, share) in &load.mix {
        let known = OPERATIONS.iter().find(|(name, _)| name == command);
        let operation = match known {
            Some((_, operation)) => *operation,
            None if command.starts_with(|letter: char| letter.is_ascii_uppercase()) => {
                line(command).map_err(|error| format!("mix: {error}"))?
            }
            None => {
                let names: Vec<&str> = OPERATIONS.iter().map(|(name, _)| *name).collect();
                let names = names.join(", ");
                return Err(format!(
                    "mix.{command}: not one of {names}, and no line of a command in capital letters"
                ));
            }
        };
        if !(*share > 0.0 && share.is_finite()) {
            return Err(format!("mix.{command}: {share} is not above 0"));
        }
        mix.push((operation, *share));
    }
    if mix.is_empty() {
        return Err("mix: empty".into());
    }
    Ok(mix)
}

/// A command line as an operation. Scenarios live as long as the tool runs, and so do their lines.
fn line(text: &str) -> Result<Operation, String> {
    Ok(Operation::Line(Box::leak(Box::new(Line::parse(text)?))))
}

/// When a load asks and when it rests.
fn bursts(load: &file::Load, pace: Pace) -> Result<Option<Bursts>, String> {
    let seconds = |field: &str, value: f64| {
        let is_time = value > 0.0 && value.is_finite();
        is_time
            .then(|| Duration::from_secs_f64(value))
            .ok_or(format!("{field}: {value} is not above 0"))
    };
    match (load.on_seconds, load.off_seconds) {
        (None, None) => Ok(None),
        (Some(_), None) => Err("off_seconds: on_seconds is given without it".into()),
        (None, Some(_)) => Err("on_seconds: off_seconds is given without it".into()),
        (Some(_), Some(_)) if pace != Pace::Closed => {
            Err("on_seconds: an open loop does not rest".into())
        }
        (Some(on), Some(off)) => {
            let (on, off) = (seconds("on_seconds", on)?, seconds("off_seconds", off)?);
            Ok(Some(Bursts { on, off }))
        }
    }
}

fn expectations(file: &File) -> Result<Expect, String> {
    let part = |field: &str, value: Option<f64>| match value {
        Some(value) if !(0.0..=1.0).contains(&value) => {
            Err(format!("expect.{field}: {value} is not between 0 and 1"))
        }
        _ => Ok(()),
    };
    part("hit_ratio", file.expect.hit_ratio)?;
    part("rate_ratio", file.expect.rate_ratio)?;
    Ok(file.expect)
}

fn at_least(field: &str, value: u64, lowest: u64) -> Result<u64, String> {
    if value < lowest { Err(format!("{field}: {value} is below {lowest}")) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "about = 'x'\nkeys = { count = 100 }\nseconds = 1\n[[load]]\nmix = { get = 1 }\n";

    fn refusal(text: &str) -> String {
        match parse("t", text, &Overrides::default()) {
            Ok(_) => panic!("accepted: {text}"),
            Err(error) => error,
        }
    }

    #[test]
    fn built_in_scenarios_are_well_formed() {
        for (name, text) in BUILT_IN {
            let scenarios = parse(name, text, &Overrides::default()).expect("well formed");
            assert!(!scenarios.is_empty(), "{name}");
        }
    }

    #[test]
    fn every_combination_is_a_scenario() {
        let text = format!("{GOOD}pipeline = [1, 16]\nconnections = [8, 50]\n");
        let scenarios = parse("t", &text, &Overrides::default()).expect("well formed");
        let names: Vec<&str> = scenarios.iter().map(|scenario| scenario.name.as_str()).collect();
        assert_eq!(names, ["t P=1 c=8", "t P=16 c=8", "t P=1 c=50", "t P=16 c=50"]);
        let overrides = Overrides { pipeline: vec![3], connections: vec![2], ..Default::default() };
        let scenarios = parse("t", &text, &overrides).expect("well formed");
        assert_eq!(scenarios.len(), 1);
        assert_eq!(scenarios[0].name, "t P=3 c=2");
    }

    #[test]
    fn errors_name_the_field() {
        for (from, to, field) in [
            ("count = 100", "count = 0", "keys.count"),
            ("count = 100", "count = 100, size = 5", "keys.size"),
            ("seconds = 1", "seconds = 0", "seconds"),
            ("seconds = 1", "requests = 0", "requests"),
            ("seconds = 1", "seconds = 1\nrequests = 5", "requests"),
            ("seconds = 1", "seconds = 1\nwarm_up = -1", "warm_up"),
            ("seconds = 1", "seconds = 1\nspeed = 5", "speed"),
            ("seconds = 1", "seconds = 'a'", "seconds"),
            ("seconds = 1", "seconds = 1\nvalues = { smallest = 9, largest = 3 }", "values"),
            ("seconds = 1", "seconds = 1\nexpect = { hit_ratio = 2 }", "expect.hit_ratio"),
            ("get = 1", "fly = 1", "load[0].mix.fly"),
            ("get = 1", "get = 0", "load[0].mix.get"),
            ("get = 1", "", "load[0].mix"),
            ("get = 1", "\"GET '{key}\" = 1", "load[0].mix"),
            (
                "[[load]]",
                "[[prepare]]\ncommand = 'GET {same}'\ncount = 1\n[[load]]",
                "prepare[0].command",
            ),
            ("[[load]]", "[[prepare]]\ncommand = 'GET a'\ncount = 0\n[[load]]", "prepare[0].count"),
        ] {
            let error = refusal(&GOOD.replace(from, to));
            assert!(error.contains(field), "{to}: the error does not name {field}: {error}");
        }
        for (line, field) in [
            ("pipeline = 0", "load[0].pipeline"),
            ("connections = 0", "load[0].connections"),
            ("threads = 0", "load[0].threads"),
            ("rate = 0", "load[0].rate"),
            ("arrivals = 'even'", "load[0].arrivals"),
            ("rate = 5\narrivals = 'odd'", "load[0].arrivals"),
            ("distribution = 'normal'", "load[0].distribution"),
            ("distribution = 'sequential'\nrate = 5", "load[0].distribution"),
            ("exponent = 2", "load[0].exponent"),
            ("distribution = 'zipf'\nexponent = -1", "load[0].exponent"),
            ("on_seconds = 2", "load[0].off_seconds"),
            ("off_seconds = 2", "load[0].on_seconds"),
            ("on_seconds = 0\noff_seconds = 1", "load[0].on_seconds"),
            ("on_seconds = 1\noff_seconds = 1\nrate = 5", "load[0].on_seconds"),
            ("pipelin = 5", "pipelin"),
        ] {
            let error = refusal(&format!("{GOOD}{line}\n"));
            assert!(error.contains(field), "{line}: the error does not name {field}: {error}");
        }
    }

    #[test]
    fn defaults() {
        let scenarios = parse("t", GOOD, &Overrides::default()).expect("well formed");
        let plan = &scenarios[0].plan;
        assert_eq!(plan.data.key_size, 16);
        assert_eq!(plan.data.sizes, Sizes { smallest: 64, largest: 64 });
        assert_eq!(plan.loads[0].pace, Pace::Closed);
        assert_eq!(plan.loads[0].distribution, Distribution::Uniform);
        assert_eq!(plan.length, Length::Seconds { warm_up: 0.0, measured: 1.0 });
    }
}
