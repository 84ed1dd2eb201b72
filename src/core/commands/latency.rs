//! LATENCY: how long commands take, from the histograms of all cores, and what held the cores up.

use super::help::help;
use super::{
    Answer, Arity, Call, Command, Group, Row, Run, RunSession, container, plain, session, table,
};
use crate::core::observe::latency::{Event, Sample, Samples};
use crate::core::{Core, SessionContext, wall_clock_ms};
use crate::refusal::Refusal;
use crate::resp::reply::Reply;
use hdrhistogram::Histogram;

/// Rows of this file.
pub const COMMANDS: &[Row] =
    &[container("latency", LATENCY).about(Group::Server, "2.8.13", "How long commands take.")];

const LATENCY: &[Row] = &[
    row("doctor", Arity::Exactly(2), doctor, "What held the cores up, and what to do about it."),
    row("graph", Arity::Exactly(3), graph, "Draws the kept samples of an event."),
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
    row(
        "history",
        Arity::Exactly(3),
        history,
        "The kept samples of an event: seconds and milliseconds.",
    ),
    row("latest", Arity::Exactly(2), latest, "Each event's newest sample, and its longest."),
    row("reset", Arity::AtLeast(2), reset, "Forgets some events, or all; how many there were."),
];

const fn row(name: &'static str, arity: Arity, run: RunSession, summary: &'static str) -> Row {
    session(name, arity, run).of("latency").admin().asks().about(Group::Server, "2.8.13", summary)
}

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
        Some(row) if matches!(row.run, Run::Container) => {
            table::rows().iter().filter(|other| other.parent == row.name).collect()
        }
        row => row.into_iter().collect(),
    }
}

/// Upper bounds in microseconds, each about twice the one before as Redis has them, with the count
/// of all durations up to there; only those that add something.
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

/// Collects the samples of one event.
fn samples_of(
    context: &mut SessionContext<'_>,
    event: Event,
    conclude: impl FnOnce(&Samples, &mut Reply<'_>) + 'static,
) -> Result<Answer, Refusal> {
    let ask = move |core: &mut Core| core.stats.noted.latency.samples(event).clone();
    context.ask_cores(ask, move |_, found, reply| conclude(&Samples::merged(found), reply))
}

/// Collects all events of which anything is kept, in the order of their names.
fn events(
    context: &mut SessionContext<'_>,
    conclude: impl FnOnce(&Core, Vec<Met>, &mut Reply<'_>) + 'static,
) -> Result<Answer, Refusal> {
    let ask = |core: &mut Core| core.stats.noted.latency.clone();
    context.ask_cores(ask, move |core, found, reply| {
        let mut met: Vec<Met> = Event::ALL
            .iter()
            .map(|&(event, name, advice)| {
                let all = found.iter().map(|monitor| monitor.samples(event).clone());
                Met { name, advice, samples: Samples::merged(all) }
            })
            .filter(|met| !met.samples.samples.is_empty())
            .collect();
        met.sort_unstable_by_key(|met| met.name);
        conclude(core, met, reply);
    })
}

/// An event of which something is kept.
struct Met {
    name: &'static str,
    advice: &'static str,
    samples: Samples,
}

fn latest(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    events(context, |_, met, reply| {
        reply.array(met.len());
        for Met { name, samples, .. } in met {
            let (second, took_ms) = samples.samples.back().copied().unwrap_or_default();
            reply.array(4);
            reply.bulk(name.as_bytes());
            reply.integer(second);
            reply.integer(took_ms as i64);
            reply.integer(samples.longest_ms as i64);
        }
    })
}

fn history(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let Some(event) = Event::of(call.at(2)) else {
        reply.array(0);
        return Ok(Answer::Now);
    };
    samples_of(context, event, |samples, reply| {
        reply.array(samples.samples.len());
        for (second, took_ms) in &samples.samples {
            reply.array(2);
            reply.integer(*second);
            reply.integer(*took_ms as i64);
        }
    })
}

fn reset(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let named: Vec<Event> = call.arguments.iter_from(2).filter_map(Event::of).collect();
    let all = call.count() == 2;
    let events: Vec<Event> =
        Event::ALL.iter().map(|(event, ..)| *event).filter(|e| all || named.contains(e)).collect();
    let count = events.len();
    let ask = move |core: &mut Core| -> Vec<bool> {
        events.iter().map(|event| core.stats.noted.latency.forget(*event)).collect()
    };
    context.ask_cores(ask, move |_, forgotten, reply| {
        let met = (0..count).filter(|&i| forgotten.iter().any(|core| core[i]));
        reply.integer(met.count() as i64);
    })
}

fn graph(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let none = || Refusal::repeating("ERR No samples available for event '", call.at(2), "'");
    let event = Event::of(call.at(2)).ok_or_else(none)?;
    let name = Event::ALL[event as usize].1;
    samples_of(context, event, move |samples, reply| match samples.samples.is_empty() {
        true => reply.error(&format!("ERR No samples available for event '{name}'")),
        false => reply.verbatim(&drawn(name, samples, wall_clock_ms() / 1000)),
    })
}

/// Columns and rows of a graph.
const GRAPH_COLUMNS: usize = 80;
const GRAPH_ROWS: usize = 4;

/// The newest samples as columns, each with its age below.
fn drawn(name: &str, samples: &Samples, now: i64) -> String {
    /// A column's top by how much of the row it fills.
    const TOPS: [char; 3] = ['_', 'o', '#'];
    let from = samples.samples.len().saturating_sub(GRAPH_COLUMNS);
    let shown: Vec<Sample> = samples.samples.iter().skip(from).copied().collect();
    let low = shown.iter().map(|sample| sample.1).min().unwrap_or(0);
    let high = shown.iter().map(|sample| sample.1).max().unwrap_or(0);
    let line = "-".repeat(GRAPH_COLUMNS);
    let mut text = format!(
        "{name} - high {high} ms, low {low} ms (all time high {} ms)\n{line}\n",
        samples.longest_ms
    );
    let steps = GRAPH_ROWS * TOPS.len();
    let height = |took_ms: u64| {
        let share = (took_ms - low) as f64 / (high - low).max(1) as f64;
        ((share * steps as f64) as usize).min(steps - 1)
    };
    for row in (0..GRAPH_ROWS).rev() {
        let column = |sample: &Sample| match height(sample.1).checked_sub(row * TOPS.len()) {
            None => ' ',
            Some(above) => TOPS.get(above).copied().unwrap_or('|'),
        };
        text.extend(shown.iter().map(column));
        text.push('\n');
    }
    text.push('\n');
    let ages: Vec<Vec<char>> =
        shown.iter().map(|sample| age(now - sample.0).chars().collect()).collect();
    let depth = ages.iter().map(Vec::len).max().unwrap_or(0);
    for row in 0..depth {
        text.extend(ages.iter().map(|age| age.get(row).copied().unwrap_or(' ')));
        text.push('\n');
    }
    text
}

/// A span in its largest unit: `90s` is `1m`.
fn age(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..60 => format!("{s}s"),
        s @ 60..3600 => format!("{}m", s / 60),
        s @ 3600..86400 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86400),
    }
}

fn doctor(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    events(context, |core, met, reply| {
        let threshold_ms = core.settings.latency_monitor_threshold;
        reply.verbatim(&findings(threshold_ms, &met, wall_clock_ms() / 1000));
    })
}

fn findings(threshold_ms: u64, met: &[Met], now: i64) -> String {
    let mut text = String::new();
    if threshold_ms == 0 {
        text.push_str(
            "Nothing is measured: latency-monitor-threshold is 0. Say from how many milliseconds on something is too long \
             for you, such as CONFIG SET latency-monitor-threshold 100.\n",
        );
    }
    if met.is_empty() && threshold_ms > 0 {
        text.push_str(&format!("Nothing took {threshold_ms} ms or longer so far.\n"));
    }
    for Met { name, advice, samples } in met {
        let kept = &samples.samples;
        let count = kept.len().max(1) as u64;
        let mean = kept.iter().map(|sample| sample.1).sum::<u64>() / count;
        let deviation = kept.iter().map(|sample| sample.1.abs_diff(mean)).sum::<u64>() / count;
        let first = kept.front().map_or(now, |sample| sample.0);
        let apart = (now - first).max(1) as f64 / count as f64;
        text.push_str(&format!(
            "{name}: {count} samples, one in {apart:.1} seconds; on average {mean} ms, give or take {deviation} ms; the \
             longest {} ms.\n    {advice}\n",
            samples.longest_ms
        ));
    }
    text
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

    #[test]
    fn graphs_show_the_newest_samples() {
        let mut samples = Samples { longest_ms: 900, ..Samples::default() };
        samples.samples.extend([(1000, 100), (1001, 400), (1060, 200), (1100, 300)]);
        let text = drawn("turn", &samples, 1100);
        let line = "-".repeat(GRAPH_COLUMNS);
        let expected = format!(
            "turn - high 400 ms, low 100 ms (all time high 900 ms)\n{line}\n #  \n | #\n |o|\n_|||\n\n1140\nmm0s\n  s \n"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn findings_name_each_event_with_advice() {
        assert!(findings(0, &[], 0).contains("latency-monitor-threshold is 0"));
        assert!(findings(7, &[], 0).contains("7 ms or longer"));
        let mut samples = Samples { longest_ms: 300, ..Samples::default() };
        samples.samples.extend([(1000, 100), (1001, 300)]);
        let met = Met { name: "turn", advice: "do this", samples };
        let text = findings(100, &[met], 1010);
        assert_eq!(
            text,
            "turn: 2 samples, one in 5.0 seconds; on average 200 ms, give or take 100 ms; the longest 300 ms.\n    do this\n"
        );
    }
}
