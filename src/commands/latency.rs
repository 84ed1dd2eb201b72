//! LATENCY: how long commands take, from the histograms of all cores.

use super::help::help;
use super::refusal::Refusal;
use super::{Answer, Arity, Call, Command, Group, Run, container, plain, session, table};
use crate::core::{Core, SessionContext};
use crate::resp::reply::Reply;
use hdrhistogram::Histogram;

/// Rows of this file.
pub const COMMANDS: &[Command] =
    &[container("latency", LATENCY).about(Group::Server, "2.8.13", "How long commands take.")];

const LATENCY: &[Command] = &[
    plain("help", Arity::Exactly(2), help).of("latency").about(
        Group::Server,
        "2.8.13",
        "Lists the subcommands.",
    ),
    session("histogram", Arity::AtLeast(2), histogram).of("latency").admin().asks().about(
        Group::Server,
        "7.0.0",
        "Durations of some commands, or of all that ran.",
    ),
];

fn histogram(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let names: Vec<Vec<u8>> = call.arguments.iter_from(2).map(<[u8]>::to_vec).collect();
    context.ask_cores(
        |core: &mut Core| core.stats.clone(),
        move |_, found, reply| {
            let mut found = found.into_iter();
            let mut stats = found.next().expect("there is a core");
            found.for_each(|other| stats.add(&other));
            let rows: Vec<&'static Command> = match names.as_slice() {
                [] => table::rows().iter().filter(|row| !row.flags.internal).collect(),
                names => names.iter().flat_map(|name| named(name)).collect(),
            };
            let ran: Vec<(&'static Command, &Histogram<u32>)> = rows
                .into_iter()
                .filter_map(|row| {
                    let latency = stats.commands[usize::from(row.number)].latency.as_deref()?;
                    Some((row, latency))
                })
                .collect();
            reply.map(ran.len());
            for (row, latency) in ran {
                reply.bulk(row.full_name().as_bytes());
                reply.map(2);
                reply.bulk(b"calls");
                reply.integer(stats.commands[usize::from(row.number)].calls as i64);
                reply.bulk(b"histogram_usec");
                let buckets = buckets(latency);
                reply.map(buckets.len());
                for (bound, count) in buckets {
                    reply.integer(bound as i64);
                    reply.integer(count as i64);
                }
            }
        },
    )
}

/// The rows that a name stands for: of a container, all its subcommands.
fn named(name: &[u8]) -> Vec<&'static Command> {
    let row = table::find(name).filter(|row| !row.flags.internal);
    match row {
        Some(row) if matches!(row.run, Run::Container(_)) => {
            table::rows().iter().filter(|other| other.parent == row.name).collect()
        }
        row => row.into_iter().collect(),
    }
}

/// Upper bounds in microseconds, each about twice the one before as Redis has them, with the count of all
/// durations up to there; only those that add something.
fn buckets(latency: &Histogram<u32>) -> Vec<(u64, u64)> {
    let mut buckets = Vec::new();
    let mut seen = 0;
    for doubling in 0.. {
        let bound = (1024u64 << doubling) / 1000;
        let count = latency.count_between(0, bound);
        if count > seen {
            buckets.push((bound, count));
            seen = count;
        }
        if seen == latency.len() || bound > latency.high() {
            return buckets;
        }
    }
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_count_all_that_is_not_longer() {
        let mut latency = Histogram::new_with_bounds(1, 60_000_000, 2).expect("bounds");
        for (value, count) in [(1, 10), (3, 5), (4, 1), (100, 2), (50_000_000, 1)] {
            latency.record_n(value, count).expect("within bounds");
        }
        let found = buckets(&latency);
        assert_eq!(found, [(1, 10), (4, 16), (131, 18), (68_719_476, 19)]);
    }
}
