//! Commands about the server as a whole: its clock, its role, its end, and all that it is asked.

use super::info::REDIS_VERSION;
use super::raft::{Peers, split_address};
use super::{Answer, Arity, Call, Group, Row, plain, session};
use crate::core::{Chance, Core, SessionContext, busy};
use crate::refusal::{Outcome, Refusal};
use crate::resp::reply::Reply;
use crate::settings::values::Mode;
use std::time::{SystemTime, UNIX_EPOCH};

/// Rows of this file.
pub const COMMANDS: &[Row] = &[
    plain("time", Arity::Exactly(1), time).fast().random_reply().about(
        Group::Server,
        "2.6.0",
        "Seconds since 1970, and microseconds of the current one.",
    ),
    reading(plain("lolwut", Arity::AtLeast(1), lolwut)).fast().about(
        Group::Server,
        "5.0.0",
        "Draws something, and says which version this is.",
    ),
    session("role", Arity::Exactly(1), role).fast().about(
        Group::Server,
        "2.8.12",
        "What this server is in its cluster.",
    ),
    session("monitor", Arity::Exactly(1), monitor).admin().takes_over().about(
        Group::Server,
        "1.0.0",
        "Shows every request of all clients from now on.",
    ),
    session("shutdown", Arity::AtLeast(1), shutdown).allows_busy().admin().no_multi().about(
        Group::Server,
        "1.0.0",
        "Ends the server in order.",
    ),
];

/// COMMAND INFO says of it that it reads, as Redis has it.
const fn reading(mut row: Row) -> Row {
    row.flags.readonly = true;
    row
}

fn time(_: &Call<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    reply.array(2);
    reply.bulk_integer(now.as_secs() as i64);
    reply.bulk_integer(i64::from(now.subsec_micros()));
    Ok(())
}

/// Columns and rows of the picture, and the most of either that may be asked for.
const SKYLINE_COLUMNS: i64 = 66;
const SKYLINE_ROWS: i64 = 9;
const SKYLINE_MAX: i64 = 1000;

/// Houses at night: LOLWUT [VERSION version] [columns [rows]].
fn lolwut(call: &Call<'_>, reply: &mut Reply<'_>) -> Outcome {
    let mut at = 1;
    if call.count() >= 3 && call.arguments.is(1, "version") {
        // Every version draws the same here.
        call.integer(2)?;
        at = 3;
    }
    let size = |at: usize, default: i64| match call.arguments.get(at) {
        None => Ok(default),
        Some(_) => call.integer(at).map(|size| size.clamp(1, SKYLINE_MAX)),
    };
    let (columns, rows) = (size(at, SKYLINE_COLUMNS)?, size(at + 1, SKYLINE_ROWS)?);
    let mut text = skyline(columns as usize, rows as usize, Chance::new(call.seed));
    text.push_str(&format!(
        "\nRedis ver. {REDIS_VERSION}, ringraft {}\n",
        env!("CARGO_PKG_VERSION")
    ));
    reply.verbatim(&text);
    Ok(())
}

fn skyline(columns: usize, rows: usize, mut chance: Chance) -> String {
    let mut picture = vec![vec![' '; columns]; rows];
    let mut left = 0;
    while left < columns {
        let width = (3 + (chance.bits() % 6) as usize).min(columns - left);
        let height = 1 + (chance.bits() % rows as u64) as usize;
        for (above, line) in picture.iter_mut().rev().take(height).enumerate() {
            for (place, house) in line[left..left + width].iter_mut().enumerate() {
                let is_wall = place == 0 || place + 1 == width || above + 1 == height;
                let is_lit = chance.bits().is_multiple_of(3);
                *house = if is_wall {
                    '#'
                } else if is_lit {
                    'o'
                } else {
                    '.'
                };
            }
        }
        left += width + (chance.bits() % 2) as usize;
    }
    picture.into_iter().flat_map(|line| line.into_iter().chain(['\n'])).collect()
}

fn role(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let peers = Peers::of(context.core);
    if !peers.leads {
        let (host, port) = peers.leader.as_deref().and_then(split_address).unwrap_or(("?", "0"));
        reply.array(5);
        reply.bulk(b"slave");
        reply.bulk(host.as_bytes());
        reply.integer(port.parse().unwrap_or(0));
        reply.bulk(if peers.leader.is_some() { b"connected" } else { b"connect" });
        reply.integer(peers.offset as i64);
        return Ok(Answer::Now);
    }
    reply.array(3);
    reply.bulk(b"master");
    reply.integer(peers.offset as i64);
    reply.array(peers.followers.len());
    for (address, offset) in &peers.followers {
        let (host, port) = split_address(address).unwrap_or(("?", "0"));
        reply.array(3);
        reply.bulk(host.as_bytes());
        reply.bulk(port.as_bytes());
        reply.bulk(offset.to_string().as_bytes());
    }
    Ok(Answer::Now)
}

fn monitor(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    context.core.start_monitoring(context.index);
    reply.ok();
    Ok(Answer::Now)
}

/// Every acknowledged write is on disk whichever way the server ends, so that SAVE, NOSAVE, NOW and
/// FORCE change nothing in `store` mode. There is no reply: the connection ends with the server.
fn shutdown(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let said = |word: &str| (1..call.count()).any(|i| call.arguments.is(i, word));
    let known = ["nosave", "save", "now", "force", "abort"];
    let all_known = (1..call.count()).all(|i| known.iter().any(|word| call.arguments.is(i, word)));
    let abort = said("abort");
    if !all_known || abort && call.count() > 2 || said("save") && said("nosave") {
        return Err(Refusal::Syntax);
    }
    if abort {
        return Err(Refusal::text("ERR No shutdown in progress."));
    }
    if said("save") && !said("force") && context.core.settings.mode == Mode::Cache {
        return Err(Refusal::text("ERR Errors trying to SHUTDOWN. Check logs."));
    }
    if !said("nosave") && context.core.shared.scripts.is_busy() {
        return Err(busy(&context.core.shared.scripts));
    }
    tracing::info!("SHUTDOWN: stopping");
    context.core.everywhere(Core::stop);
    // Answered with nothing, and nothing behind it is run.
    context.connection().close_after_replies = true;
    Ok(Answer::Now)
}
