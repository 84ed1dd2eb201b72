//! The text of a scenario: the fields of the TOML file as they are written. `docs/performance.md`
//! explains them.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A scenario file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// One sentence: what the scenario is for.
    pub about: String,
    /// The keys.
    pub keys: Keys,
    /// The values.
    #[serde(default)]
    pub values: Values,
    /// Measured time.
    pub seconds: Option<f64>,
    /// Time before it.
    pub warm_up: Option<f64>,
    /// Instead of a time: requests of each load.
    pub requests: Option<u64>,
    /// One reply of so many is compared with what its key says.
    pub verify_every: Option<u64>,
    /// Of the random numbers.
    pub seed: Option<u64>,
    /// What is done once before, beside or instead of setting all keys.
    #[serde(default)]
    pub prepare: Vec<Prepare>,
    /// Groups of connections.
    pub load: Vec<Load>,
    /// What must hold.
    #[serde(default)]
    pub expect: Expect,
}

/// `keys`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// How many.
    pub count: u64,
    /// Bytes of each.
    pub size: Option<usize>,
    /// Whether all are set before the run.
    pub fill: Option<bool>,
}

/// `values`
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Values {
    /// Bytes of each.
    pub size: Option<usize>,
    /// Instead of a size: bytes of the shortest.
    pub smallest: Option<usize>,
    /// And of the longest.
    pub largest: Option<usize>,
    /// Time to live that `setex` gives.
    pub ttl_seconds: Option<u64>,
}

/// `[[prepare]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prepare {
    /// A command line.
    pub command: String,
    /// How often, with the numbers from 0 on.
    pub count: u64,
}

/// `[[load]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// What reports call it.
    pub name: Option<String>,
    /// Commands and their shares.
    pub mix: BTreeMap<String, f64>,
    /// uniform, zipf or sequential.
    pub distribution: Option<String>,
    /// Of zipf.
    pub exponent: Option<f64>,
    /// Keys of an mget or mset.
    pub keys_per_command: Option<usize>,
    /// Requests sent together; of a list the scenario is run with each.
    pub pipeline: Option<OneOrMany>,
    /// Connections; of a list the scenario is run with each.
    pub connections: Option<OneOrMany>,
    /// Client threads.
    pub threads: Option<usize>,
    /// Requests per second; without it the loop is closed.
    pub rate: Option<f64>,
    /// even or poisson.
    pub arrivals: Option<String>,
    /// It asks for so many seconds,
    pub on_seconds: Option<f64>,
    /// rests for so many, and so on.
    pub off_seconds: Option<f64>,
    /// Its threads go before those of other loads.
    pub urgent: Option<bool>,
}

/// A number, or a list of them.
#[derive(Deserialize, Clone)]
#[serde(untagged)]
pub enum OneOrMany {
    /// `16`
    One(usize),
    /// `[1, 16, 100]`
    Many(Vec<usize>),
}

impl OneOrMany {
    /// As a list.
    pub fn list(&self) -> Vec<usize> {
        match self {
            OneOrMany::One(number) => vec![*number],
            OneOrMany::Many(numbers) => numbers.clone(),
        }
    }
}

/// `[expect]`
#[derive(Deserialize, Default, Clone, Copy)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Of the keys read at least this part is found, 0 to 1.
    pub hit_ratio: Option<f64>,
    /// At most so many error replies; 0 if not given.
    pub errors: Option<u64>,
    /// The server holds exactly so many keys afterwards.
    pub keys: Option<u64>,
    /// An open loop reaches at least this part of its rate, 0 to 1.
    pub rate_ratio: Option<f64>,
}
