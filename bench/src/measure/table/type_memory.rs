//! Section `type-memory`: resident bytes per element of large values, and per key of small ones,
//! against all peers.
//!
//! As `memory` measures: growth of a new process from its first requests to the finished value,
//! after a time in which its allocator can return what it no longer uses. The servers of a row wait
//! for that side by side.

use std::time::Duration;

use serde::Serialize;

use super::elements::{Build, Builder, Word, grow};
use super::{Findings, Goal, Limit};
use crate::arm::Arm;
use crate::proc;
use crate::report::{Spread, Table};

use Limit::AtMost;
use Word::{Double, Integer, Letters, Score, Text};

/// Elements of a large value, and ten times as many as there are small ones.
const ELEMENTS: u64 = 1_000_000;

/// Wait before memory is read.
const SETTLE_SECONDS: f64 = 10.0;

/// A row.
struct Row {
    name: &'static str,
    build: Build,
    /// Elements of each key; none of one key with all.
    each: Option<u64>,
    /// Bytes per element, or per key.
    limit: f64,
}

const fn build(
    command: &'static str,
    behind_key: &'static [&'static str],
    element: &'static [Word],
    at_once: u64,
    count: &'static str,
) -> Build {
    Build { command, behind_key, element, at_once, count }
}

const fn list(element: &'static [Word]) -> Build {
    build("RPUSH", &[], element, 10, "LLEN")
}

const fn set(element: &'static [Word]) -> Build {
    build("SADD", &[], element, 10, "SCARD")
}

const fn hash(element: &'static [Word]) -> Build {
    build("HSET", &[], element, 10, "HLEN")
}

const fn zset(element: &'static [Word]) -> Build {
    build("ZADD", &[], element, 10, "ZCARD")
}

const STREAM: Build =
    build("XADD", &["*"], &[Text("field1"), Letters(8), Text("field2"), Letters(8)], 1, "XLEN");
const HLL: Build = build("PFADD", &[], &[Letters(8)], 10, "");

const fn large(name: &'static str, build: Build, limit: f64) -> Row {
    Row { name, build, each: None, limit }
}

const fn small(name: &'static str, build: Build, each: u64, limit: f64) -> Row {
    Row { name, build, each: Some(each), limit }
}

const MEMBER: &[Word] = &[Letters(8)];
const PAIR: &[Word] = &[Letters(8), Letters(16)];
const SCORED: &[Word] = &[Score, Letters(8)];
const NUMBER: &[Word] = &[Integer];

const ROWS: &[Row] = &[
    large("list-8", list(MEMBER), 9.4),
    large("list-16", list(&[Letters(16)]), 17.4),
    large("set-8", set(MEMBER), 11.5),
    large("set-16", set(&[Letters(16)]), 20.0),
    large("set-integers", set(NUMBER), 7.5),
    large("hash-8", hash(PAIR), 29.0),
    large("hash-16", hash(&[Letters(16), Letters(16)]), 37.5),
    large("zset-8", zset(SCORED), 21.0),
    large("zset-16", zset(&[Score, Letters(16)]), 29.5),
    large("zset-16-doubles", zset(&[Double, Letters(16)]), 33.0),
    large("stream", STREAM, 24.0),
    small("key-8-list", list(MEMBER), 8, 122.0),
    small("key-8-set", set(MEMBER), 8, 130.0),
    small("key-8-hash", hash(PAIR), 8, 268.0),
    small("key-8-zset", zset(SCORED), 8, 158.0),
    small("key-8-integers", set(NUMBER), 8, 80.0),
    small("key-100-list", list(MEMBER), 100, 955.0),
    small("key-100-set", set(MEMBER), 100, 1075.0),
    small("key-100-hash", hash(PAIR), 100, 2800.0),
    small("key-100-zset", zset(SCORED), 100, 1385.0),
    small("key-100-integers", set(NUMBER), 100, 460.0),
    small("key-hll-10", HLL, 10, 100.0),
];

/// What the history keeps.
#[derive(Serialize)]
struct Measurement<'a> {
    kind: &'static str,
    server: &'a str,
    row: &'static str,
    round: usize,
    count: u64,
    resident_before: u64,
    resident_after: u64,
    bytes_each: f64,
}

impl Findings<'_> {
    /// The whole section.
    pub(super) fn type_memory(&mut self) -> Result<(), String> {
        let mut servers = vec![self.one_shard()?];
        if !self.options.alone {
            servers.extend(self.options.peers.all("--save '' --appendonly no")?);
        }
        let mut head = vec!["resident bytes each", "at most"];
        head.extend(servers.iter().map(|server| server.name.as_str()));
        let mut table = Table::new(&head);
        for row in ROWS.iter().filter(|row| self.options.wants(row.name)) {
            let mut each = vec![Vec::new(); servers.len()];
            for round in 0..self.bench.setup.repeats {
                let measured = self.bytes_of(row, &servers, round)?;
                each.iter_mut().zip(measured).for_each(|(all, bytes)| all.push(bytes));
            }
            let spreads: Vec<Spread> = each.into_iter().map(Spread::of).collect();
            let mut cells = vec![row.name.to_string(), format!("{:.1}", row.limit)];
            cells.extend(spreads.iter().map(|spread| format!("{:.1}", spread.median)));
            table.row(cells);
            let what = format!("{}: resident bytes each", row.name);
            self.goals.push(Goal::new(what, spreads[0], AtMost(row.limit)).digits(1));
        }
        println!("{table}");
        servers.into_iter().for_each(|server| self.mention(server));
        Ok(())
    }

    /// Bytes per element or key of each server.
    fn bytes_of(
        &mut self,
        row: &'static Row,
        servers: &[crate::arm::ServerCommand],
        round: usize,
    ) -> Result<Vec<f64>, String> {
        let elements = self.options.overrides.keys.unwrap_or(ELEMENTS);
        let count = if row.each.is_some() { (elements / 10).max(1) } else { elements };
        let setup = self.bench.setup.clone();
        let mut arms = Vec::new();
        for server in servers {
            let arm = Arm::start(server, Some(&setup.server_cpu))?;
            // Buffers of connections and pages of first use are not memory of values.
            fill(&arm, row, 10)?;
            arm.connect()?.call(&["FLUSHALL"])?;
            let before = proc::resident_bytes(arm.pid())?;
            fill(&arm, row, count).map_err(|error| format!("{}: {error}", arm.name))?;
            arms.push((arm, before));
        }
        let settle = self.options.overrides.seconds.unwrap_or(SETTLE_SECONDS);
        std::thread::sleep(Duration::from_secs_f64(settle));
        let mut all = Vec::new();
        for (arm, resident_before) in &arms {
            let resident_after = proc::resident_bytes(arm.pid())?;
            let bytes_each = (resident_after as f64 - *resident_before as f64) / count as f64;
            all.push(bytes_each);
            self.bench.json.write(&Measurement {
                kind: "type-memory",
                server: &arm.name,
                row: row.name,
                round,
                count,
                resident_before: *resident_before,
                resident_after,
                bytes_each,
            })?;
        }
        Ok(all)
    }
}

/// So many elements of one value, or so many keys.
fn fill(arm: &Arm, row: &Row, count: u64) -> Result<(), String> {
    let mut caller = arm.connect()?;
    let Some(each) = row.each else { return grow(&mut caller, &row.build, "value", count) };
    let mut builder = Builder::new(&mut caller);
    for key in 0..count {
        builder.add(&row.build, &format!("key:{key:012}"), key * each, each)?;
    }
    builder.send()?;
    match caller.number(&["DBSIZE"])? {
        held if held == count => Ok(()),
        held => Err(format!("{held} keys where {count} were made")),
    }
}
