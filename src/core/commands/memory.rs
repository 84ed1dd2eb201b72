//! MEMORY: what takes how much of it.

use super::help::help;
use super::{Answer, Arity, Call, Group, Row, Work, container, plain, session};
use crate::commands::object::MEMORY_USAGE;
use crate::core::SessionContext;
use crate::core::gather::report::Totals;
use crate::refusal::{Outcome, Refusal};
use crate::resp::reply::Reply;
use crate::usage::{self, Memory};

/// Rows of this file.
pub const COMMANDS: &[Row] =
    &[container("memory", MEMORY).about(Group::Server, "4.0.0", "What takes how much memory.")];

const MEMORY: &[Row] = &[
    session("doctor", Arity::Exactly(2), doctor).of("memory").asks().about(
        Group::Server,
        "4.0.0",
        "Whether something about the memory should be looked at.",
    ),
    plain("help", Arity::Exactly(2), help).of("memory").about(
        Group::Server,
        "4.0.0",
        "Lists the subcommands.",
    ),
    plain("malloc-stats", Arity::Exactly(2), malloc_stats).of("memory").random_reply().about(
        Group::Server,
        "4.0.0",
        "The report of the allocator.",
    ),
    session("purge", Arity::Exactly(2), purge).of("memory").asks().about(
        Group::Server,
        "4.0.0",
        "Gives free memory back to the system.",
    ),
    session("stats", Arity::Exactly(2), stats).of("memory").asks().about(
        Group::Server,
        "4.0.0",
        "Memory of the process by use.",
    ),
    MEMORY_USAGE.with(Work::None, &[]),
];

fn doctor(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    context.ask_cores(
        |core| core.report(),
        |core, reports, reply| {
            let limit = core.settings.maxmemory;
            reply.verbatim(&findings(&usage::memory(), &Totals::of(reports), limit));
        },
    )
}

/// Below so much everything is in ratios that say nothing.
const LITTLE_BYTES: u64 = 5 << 20;

/// Buffers of a client that are large on average.
const LARGE_CLIENT_BYTES: u64 = 200 << 10;

/// What of the memory is worth a look.
fn findings(memory: &Memory, totals: &Totals, limit: u64) -> String {
    if memory.allocated < LITTLE_BYTES {
        return "This server is empty or uses little memory: there is nothing to say about it yet.\n".into();
    }
    let clients = totals.sum(|core| core.client_count).max(1) as u64;
    let client_bytes = totals.sum(|core| core.client_bytes) as u64;
    let data = totals.data_bytes();
    let is_much = |part: u64, whole: u64, percent: u64| part * 100 > whole.max(1) * percent;
    let found: Vec<&str> = [
        (
            is_much(memory.peak, memory.allocated, 150),
            "Peak: once it was more than 1.5 times what it is now. Pages that are free since then may still be there, and \
             mem_fragmentation_ratio is high because of it; MEMORY PURGE gives them back.",
        ),
        (
            is_much(memory.active, memory.allocated, 140),
            "Fragmentation: pages hold much less than they could. It is put in order in the background; see compacted in \
             INFO shards.",
        ),
        (
            is_much(memory.resident, memory.active, 110) && memory.resident > LITTLE_BYTES * 4,
            "Free pages: the allocator keeps many for later use. MEMORY PURGE gives them back.",
        ),
        (
            is_much(memory.process, memory.resident, 110) && memory.process > LITTLE_BYTES * 8,
            "Process: it holds more than its allocator, such as rings and stacks of its cores.",
        ),
        (
            client_bytes / clients > LARGE_CLIENT_BYTES,
            "Clients: each holds more than 200 KiB on average. CLIENT LIST shows by tot-mem which; maxmemory-clients and \
             client-output-buffer-limit bound them.",
        ),
        (
            limit > 0 && is_much(data, limit, 95),
            "Limit: more than 95 % of maxmemory are in use; what is written next is evicted for, or refused.",
        ),
    ]
    .into_iter()
    .filter_map(|(is_so, text)| is_so.then_some(text))
    .collect();
    match found.as_slice() {
        [] => "There is nothing wrong with the memory of this server.\n".into(),
        found => found.iter().flat_map(|text| [" * ", text, "\n"]).collect(),
    }
}

fn malloc_stats(_: &Call<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply.verbatim(&usage::allocator_report());
    Ok(())
}

fn purge(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    context.ask_cores(
        |core| core.give_back_memory(usize::MAX),
        |_, _, reply| {
            if usage::purge() {
                reply.ok();
            } else {
                reply.error("ERR Error purging dirty pages");
            }
        },
    )
}

fn stats(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    context.ask_cores(
        |core| core.report(),
        |_, reports, reply| {
            let fields = fields(&usage::memory(), &Totals::of(reports));
            reply.map(fields.len());
            for (name, value) in fields {
                reply.bulk(name.as_bytes());
                match value {
                    Value::Count(count) => reply.integer(count),
                    Value::Share(share) => reply.double(share),
                }
            }
        },
    )
}

enum Value {
    Count(i64),
    Share(f64),
}

fn fields(memory: &Memory, totals: &Totals) -> Vec<(&'static str, Value)> {
    let count = |bytes: u64| Value::Count(bytes as i64);
    let over = |more: u64, less: u64| Value::Count(more as i64 - less as i64);
    let ratio = |a: u64, b: u64| Value::Share(a as f64 / b.max(1) as f64);
    let percent = |a: u64, b: u64| Value::Share(100.0 * a as f64 / b.max(1) as f64);
    let (data, keys) = (totals.data_bytes(), totals.key_count());
    let net = memory.allocated.saturating_sub(memory.at_start);
    vec![
        ("peak.allocated", count(memory.peak)),
        ("total.allocated", count(memory.allocated)),
        ("startup.allocated", count(memory.at_start)),
        ("replication.backlog", count(0)),
        ("clients.slaves", count(0)),
        ("clients.normal", count(totals.sum(|core| core.client_bytes) as u64)),
        ("cluster.links", count(0)),
        ("aof.buffer", count(totals.log_bytes())),
        ("lua.caches", count(totals.sum(|core| core.script_bytes) as u64)),
        ("functions.caches", count(0)),
        ("overhead.total", count(memory.allocated.saturating_sub(data))),
        ("keys.count", count(keys)),
        ("keys.bytes-per-key", count(data.checked_div(keys).unwrap_or(0))),
        ("dataset.bytes", count(data)),
        ("dataset.percentage", percent(data.min(net), net)),
        ("peak.percentage", percent(memory.allocated, memory.peak)),
        ("allocator.allocated", count(memory.allocated)),
        ("allocator.active", count(memory.active)),
        ("allocator.resident", count(memory.resident)),
        ("allocator-fragmentation.ratio", ratio(memory.active, memory.allocated)),
        ("allocator-fragmentation.bytes", over(memory.active, memory.allocated)),
        ("allocator-rss.ratio", ratio(memory.resident, memory.active)),
        ("allocator-rss.bytes", over(memory.resident, memory.active)),
        ("rss-overhead.ratio", ratio(memory.process, memory.resident)),
        ("rss-overhead.bytes", over(memory.process, memory.resident)),
        ("fragmentation", ratio(memory.process, memory.allocated)),
        ("fragmentation.bytes", over(memory.process, memory.allocated)),
    ]
}
