//! `ringraft-bench memory`: growth of resident memory per key.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::arm::{Arm, ServerCommand};
use crate::client::operations::Operation;
use crate::client::plan::Data;
use crate::client::progress::Progress;
use crate::client::values::Sizes;
use crate::cpus::Cpus;
use crate::fill;
use crate::proc;
use crate::report::{JsonLines, Spread, Table};

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// A server to measure, NAME=COMMAND; `--port N --dir DIR` is appended. Give it once per server
    #[arg(long = "server", required = true)]
    servers: Vec<ServerCommand>,
    /// Keys to insert
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Bytes of each key
    #[arg(long, default_value_t = 16)]
    key_size: usize,
    /// Bytes of each value
    #[arg(long, default_value_t = 8)]
    value_size: usize,
    /// Measurements of each server, each with a new process
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Seconds to wait before memory is read, so that the allocator can return what it no longer uses
    #[arg(long, default_value_t = 10)]
    settle_seconds: u64,
    /// Cpus of the server
    #[arg(long)]
    server_cpu: Option<Cpus>,
    /// Append each measurement to this file as a line of JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Measurement<'a> {
    server: &'a str,
    repeat: usize,
    keys: u64,
    key_size: usize,
    value_size: usize,
    resident_before: u64,
    resident_after: u64,
    bytes_per_key: f64,
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<(), String> {
    if u32::try_from(options.key_size)
        .is_ok_and(|size| 10_u64.checked_pow(size).is_some_and(|all| all < options.keys))
    {
        return Err(format!("{} keys do not fit into {} digits", options.keys, options.key_size));
    }
    let mut json = JsonLines::open(options.json.as_deref())?;
    let mut growth = vec![Vec::new(); options.servers.len()];
    for repeat in 0..options.repeats {
        for (server, growth) in options.servers.iter().zip(&mut growth) {
            let measurement = measure(options, server, repeat)?;
            json.write(&measurement)?;
            growth.push(measurement.bytes_per_key);
        }
    }
    let title = "resident bytes per key";
    let mut table = Table::new(&["server", "", title]);
    for (server, growth) in options.servers.iter().zip(growth) {
        table.row(vec![server.name.clone(), String::new(), format!("{:.1}", Spread::of(growth))]);
    }
    println!(
        "{} keys of {} bytes, values of {} bytes",
        options.keys, options.key_size, options.value_size
    );
    print!("{table}");
    Ok(())
}

fn measure<'a>(
    options: &Options,
    server: &'a ServerCommand,
    repeat: usize,
) -> Result<Measurement<'a>, String> {
    let arm = Arm::start(server, options.server_cpu.as_ref())?;
    let data = Data {
        keys: options.keys,
        key_size: options.key_size,
        sizes: Sizes { smallest: options.value_size, largest: options.value_size },
        ttl_seconds: 86_400,
    };
    let mut progress = Progress::new(false);
    let set = |data: &Data, progress: &mut Progress| {
        fill::fill(data, Operation::Set, arm.address(), None, progress)
    };
    // The connections' own buffers and the server's first-use pages are not memory of keys.
    set(&Data { keys: 1, ..data }, &mut progress)?;
    let mut connection = arm.connect()?;
    connection.call(&["FLUSHALL"])?;
    let resident_before = proc::resident_bytes(arm.pid())?;
    set(&data, &mut progress)?;
    std::thread::sleep(Duration::from_secs(options.settle_seconds));
    connection.call(&["PING"])?;
    let resident_after = proc::resident_bytes(arm.pid())?;
    let count = connection.number(&["DBSIZE"])?;
    if count != options.keys {
        return Err(format!("{} holds {count} keys, not {}", arm.name, options.keys));
    }
    Ok(Measurement {
        server: &server.name,
        repeat,
        keys: options.keys,
        key_size: options.key_size,
        value_size: options.value_size,
        resident_before,
        resident_after,
        bytes_per_key: (resident_after as f64 - resident_before as f64) / options.keys as f64,
    })
}
