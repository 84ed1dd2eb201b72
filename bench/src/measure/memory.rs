//! `ringraft-bench memory`: growth of resident memory per key, and per idle connection.
//!
//! Every figure is that of a new process: what it resides in after its first requests, against what
//! it resides in with all keys (or connections), after a time in which the allocator can return
//! what it no longer uses.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::compare::Setup;
use crate::arm::{Arm, ServerCommand};
use crate::client::keys::keys_of_size;
use crate::client::operations::Operation;
use crate::client::plan::Data;
use crate::client::progress::Progress;
use crate::client::values::Sizes;
use crate::fill;
use crate::machine::Machine;
use crate::proc;
use crate::report::{JsonLines, Spread, Table};

/// Connections that one measurement opens.
const IDLE_CONNECTIONS: usize = 5000;

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// A server to measure, NAME=COMMAND; `--port N --dir DIR` is appended. Give it once per
    /// server
    #[arg(long = "server", required = true)]
    servers: Vec<ServerCommand>,
    /// Keys to insert
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Bytes of each key
    #[arg(long, default_value_t = 16)]
    key_size: usize,
    /// Bytes of each value, separated by commas
    #[arg(short = 'd', long, value_delimiter = ',', default_value = "8,64,1024")]
    value_size: Vec<usize>,
    /// Seconds to wait before memory is read, so that the allocator can return what it no longer
    /// uses
    #[arg(long, default_value_t = 10)]
    settle_seconds: u64,
    #[command(flatten)]
    setup: Setup,
}

/// What memory is measured of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Case {
    /// Keys with values of so many bytes.
    Plain(usize),
    /// The same, each with a time to live.
    Expiring(usize),
    /// Connections that sent one PING.
    Connections,
}

impl Case {
    fn name(self) -> String {
        match self {
            Case::Plain(size) => format!("key with a value of {size}"),
            Case::Expiring(size) => format!("key with a value of {size} and a TTL"),
            Case::Connections => "idle connection".into(),
        }
    }
}

#[derive(Serialize)]
struct Measurement<'a> {
    kind: &'static str,
    server: &'a str,
    case: Case,
    repeat: usize,
    count: u64,
    resident_before: u64,
    resident_after: u64,
    bytes_each: f64,
}

/// How much of what is measured.
#[derive(Clone, Copy)]
pub struct Amount {
    /// Keys.
    pub keys: u64,
    /// Bytes of each.
    pub key_size: usize,
    /// Wait before memory is read.
    pub settle: Duration,
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<(), String> {
    if keys_of_size(options.key_size) < options.keys {
        return Err(format!("{} keys do not fit into {} bytes", options.keys, options.key_size));
    }
    let machine = Machine::here();
    println!("{}", machine.text());
    let mut json = JsonLines::open(options.setup.json.as_deref())?;
    json.write(&machine)?;
    let amount = Amount {
        keys: options.keys,
        key_size: options.key_size,
        settle: Duration::from_secs(options.settle_seconds),
    };
    let sizes = options.value_size.iter();
    let mut cases: Vec<Case> =
        sizes.flat_map(|size| [Case::Plain(*size), Case::Expiring(*size)]).collect();
    cases.push(Case::Connections);
    let mut table = Table::new(&["what", "server", "resident bytes each"]);
    for case in cases {
        for server in &options.servers {
            let growth = measure(server, case, amount, &options.setup, &mut json)?;
            table.row(vec![case.name(), server.name.clone(), format!("{growth:.1}")]);
        }
    }
    println!("{} keys of {} bytes", options.keys, options.key_size);
    print!("{table}");
    Ok(())
}

/// Resident bytes of each key or connection, over the rounds.
pub fn measure(
    server: &ServerCommand,
    case: Case,
    amount: Amount,
    setup: &Setup,
    json: &mut JsonLines,
) -> Result<Spread, String> {
    let mut all = Vec::new();
    for repeat in 0..setup.repeats {
        let (count, before, after) = once(server, case, amount, setup)?;
        let bytes_each = (after as f64 - before as f64) / count as f64;
        json.write(&Measurement {
            kind: "memory",
            server: &server.name,
            case,
            repeat,
            count,
            resident_before: before,
            resident_after: after,
            bytes_each,
        })?;
        all.push(bytes_each);
    }
    Ok(Spread::of(all))
}

/// How many, and resident bytes before and after.
fn once(
    server: &ServerCommand,
    case: Case,
    amount: Amount,
    setup: &Setup,
) -> Result<(u64, u64, u64), String> {
    let arm = Arm::start(server, Some(&setup.server_cpu))?;
    let mut progress = Progress::new(setup.progress);
    progress.title(format!("{} {}", server.name, case.name()));
    let (size, operation) = match case {
        Case::Plain(size) => (size, Operation::Set),
        Case::Expiring(size) => (size, Operation::SetEx),
        Case::Connections => (8, Operation::Set),
    };
    let sizes = Sizes { smallest: size, largest: size };
    let data = Data { keys: amount.keys, key_size: amount.key_size, sizes, ttl_seconds: 86_400 };
    let mut fill = |data: &Data| {
        fill::fill(data, operation, arm.address(), Some(&setup.client_cpu), &mut progress)
    };
    // Buffers of connections and pages of first use are not memory of keys.
    fill(&Data { keys: 1, ..data })?;
    arm.connect()?.call(&["FLUSHALL"])?;
    let before = proc::resident_bytes(arm.pid())?;
    let mut connections = Vec::new();
    let count = if case == Case::Connections {
        for _ in 0..IDLE_CONNECTIONS {
            let mut caller = arm.connect()?;
            caller.call(&["PING"])?;
            connections.push(caller);
        }
        IDLE_CONNECTIONS as u64
    } else {
        fill(&data)?;
        data.keys
    };
    std::thread::sleep(amount.settle);
    let after = proc::resident_bytes(arm.pid())?;
    Ok((count, before, after))
}
