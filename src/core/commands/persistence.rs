//! Snapshots on demand: SAVE, BGSAVE, LASTSAVE, RAFTSNAPSHOT, RAFTSHRINKLOG, DEBUG RELOAD's work on
//! a shard.

use super::{Answer, Arity, Call, Gather, Group, Keys, Row, session, shard};
use crate::core::shard::ShardContext;
use crate::core::{Core, SessionContext};
use crate::refusal::Refusal;
use crate::resp::reply::Reply;
use ringraft_shards::ids::ShardId;

/// Rows of this file.
pub const COMMANDS: &[Row] = &[
    shard("save", Arity::Exactly(1), Keys::NONE, save)
        .everywhere(Gather::AllOk)
        .admin()
        .no_multi()
        .about(Group::Server, "1.0.0", "Takes a snapshot of every shard and waits for it."),
    session("bgsave", Arity::AtLeast(1), bgsave).admin().about(
        Group::Server,
        "1.0.0",
        "Begins a snapshot of every shard.",
    ),
    session("bgrewriteaof", Arity::Exactly(1), bgrewriteaof).admin().about(
        Group::Server,
        "1.0.0",
        "Begins a snapshot of every shard, behind which the log before it goes.",
    ),
    session("lastsave", Arity::Exactly(1), lastsave).fast().asks().about(
        Group::Server,
        "1.0.0",
        "When the oldest of the shards' newest snapshots was finished.",
    ),
    shard("raftsnapshot", Arity::Exactly(1), Keys::NONE, raftsnapshot)
        .everywhere(Gather::AllOk)
        .admin()
        .no_multi()
        .about(Group::Raft, "7.2.0", "Takes a snapshot of every shard and waits for it."),
    session("raftmoment", Arity::Exactly(2), raftmoment).admin().no_multi().about(
        Group::Raft,
        "7.4.0",
        "Begins snapshots of all shards as they are at one moment; for ringraft rdb export.",
    ),
    shard("raftshrinklog", Arity::Exactly(1), Keys::NONE, raftsnapshot)
        .everywhere(Gather::AllOk)
        .admin()
        .no_multi()
        .about(Group::Raft, "7.2.0", "Takes snapshots, so that the logs before them can go."),
];

/// DEBUG RELOAD, for the container of DEBUG.
pub const RELOAD: Row = shard("reload", Arity::Exactly(2), Keys::NONE, reload)
    .of("debug")
    .everywhere(Gather::AllOk)
    .admin()
    .no_multi()
    .about(Group::Server, "1.0.0", "Writes a snapshot in memory and goes on with what it holds.");

const NOTHING_ON_DISK: Refusal =
    Refusal::text("ERR this server runs in cache mode and keeps nothing on disk");

fn save(
    context: &mut ShardContext<'_>,
    _call: &Call<'_>,
    _reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    if !context.shard.snapshots.is_possible() {
        return Err(NOTHING_ON_DISK);
    }
    context.shard.snapshots.want(Some(context.origin));
    Ok(Answer::Later)
}

fn raftsnapshot(
    context: &mut ShardContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    save(context, call, reply)
}

/// Snapshots of all shards as they are at one moment. RAFTMOMENT FREE says whether snapshots could
/// be begun. While CLIENT PAUSE holds writes back, RAFTMOMENT REST says whether everything that was
/// begun before it has ended, and RAFTMOMENT TAKE, asked next, begins them and says where they will
/// be. What was answered before the pause is in them, what is answered behind it is not, and a
/// transaction is in all of them or in none.
fn raftmoment(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    type Ask = fn(&mut Core) -> Result<Vec<String>, &'static str>;
    let asks: [(&str, Ask); 3] = [
        ("free", |core| core.may_take_moment().map(|()| Vec::new())),
        ("rest", |core| core.is_at_rest().map(|()| Vec::new())),
        ("take", |core| core.is_at_rest().and_then(|()| core.take_moment())),
    ];
    let asked = asks.into_iter().find(|(word, _)| call.arguments.is(1, word));
    let (word, ask) = asked.ok_or(Refusal::Syntax)?;
    context.ask_cores(ask, move |_, found, reply| {
        match found.into_iter().collect::<Result<Vec<_>, _>>() {
            Err(text) => reply.error(text),
            Ok(_) if word != "take" => reply.ok(),
            Ok(names) => {
                let names = names.concat();
                reply.array(names.len());
                names.iter().for_each(|name| reply.bulk(name.as_bytes()));
            }
        }
    })
}

fn bgsave(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let scheduled = call.arguments.is(1, "schedule");
    if call.count() > 2 || call.count() == 2 && !scheduled {
        return Err(Refusal::Syntax);
    }
    let core = &mut *context.core;
    let running = core.shards.iter().any(|shard| shard.snapshots.is_running());
    if running && !scheduled {
        return Err(Refusal::text("ERR Background save already in progress"));
    }
    want_snapshots(core)?;
    let scheduled = running && scheduled;
    reply.simple(if scheduled {
        "Background saving scheduled"
    } else {
        "Background saving started"
    });
    Ok(Answer::Now)
}

/// A snapshot is the log made short: what is before it is not needed any more. One that runs
/// already has begun with an older state, and another follows it.
fn bgrewriteaof(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let running = context.core.shards.iter().any(|shard| shard.snapshots.is_running());
    want_snapshots(context.core)?;
    reply.simple(if running {
        "Background append only file rewriting scheduled"
    } else {
        "Background append only file rewriting started"
    });
    Ok(Answer::Now)
}

/// Asks every shard for a snapshot. Errors: there is nowhere to put it.
fn want_snapshots(core: &mut Core) -> Result<(), Refusal> {
    if core.settings.mode == crate::settings::values::Mode::Cache {
        return Err(NOTHING_ON_DISK);
    }
    for shard in (0..core.router.shard_count()).map(|n| ShardId(n as u16)) {
        core.at_shard(shard, |core, local| core.shards[local].snapshots.want(None));
    }
    Ok(())
}

fn reload(
    context: &mut ShardContext<'_>,
    _call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    context.shard.reload(context.now_ms).map_err(|cause| Refusal::Text(cause.into()))?;
    reply.ok();
    Ok(Answer::Now)
}

fn lastsave(
    context: &mut SessionContext<'_>,
    _call: &Call<'_>,
    _reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    context.ask_cores(
        |core| core.shards.iter().map(|shard| shard.snapshots.report().last_ms).min(),
        |_, times, reply| {
            reply.integer(times.into_iter().flatten().min().unwrap_or(0) / 1000);
        },
    )
}
