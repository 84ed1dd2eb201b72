//! MEMORY: what takes how much of it.

use super::help::help;
use super::object::MEMORY_USAGE;
use super::refusal::{Outcome, Refusal};
use super::{Answer, Arity, Call, Command, Group, container, plain, session};
use crate::core::SessionContext;
use crate::core::gather::report::Totals;
use crate::resp::reply::Reply;
use crate::usage::{self, Memory};

/// Rows of this file.
pub const COMMANDS: &[Command] =
    &[container("memory", MEMORY).about(Group::Server, "4.0.0", "What takes how much memory.")];

const MEMORY: &[Command] = &[
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
    MEMORY_USAGE,
];

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
        ("clients.normal", count(totals.sum(|core| core.client_bytes) as u64)),
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
