//! COMMANDLOG and SLOWLOG: the commands that took long, and those with a large request or reply, of
//! all cores.
//!
//! Commands that run in stages are timed together, so that the hot path reads the clock once per
//! stage: what is kept of a slow group is its last command. With a threshold of 0 every command is
//! kept, each with its share of the group's time. SLOWLOG is COMMANDLOG's log of slow commands
//! under its old name.

use super::help::help;
use super::{Answer, Arity, Call, Group, Row, container, plain, session};
use crate::core::observe::command_log::{NotedCommand, Trait};
use crate::core::{Core, SessionContext};
use crate::refusal::Refusal;
use crate::resp::reply::Reply;

/// Rows of this file.
pub const COMMANDS: &[Row] = &[
    container("commandlog", COMMANDLOG).about(
        Group::Server,
        "8.1.0",
        "The commands that took long or were large.",
    ),
    container("slowlog", SLOWLOG).about(Group::Server, "2.2.12", "The commands that took long."),
];

const COMMANDLOG: &[Row] = &[
    session("get", Arity::Exactly(4), get).of("commandlog").admin().asks().about(
        Group::Server,
        "8.1.0",
        "The newest so many (-1: all) that were slow, or had a large-request or large-reply.",
    ),
    plain("help", Arity::Exactly(2), help).of("commandlog").about(
        Group::Server,
        "8.1.0",
        "Lists the subcommands.",
    ),
    session("len", Arity::Exactly(3), length).of("commandlog").admin().asks().about(
        Group::Server,
        "8.1.0",
        "Count of the commands that are kept, by slow, large-request or large-reply.",
    ),
    session("reset", Arity::Exactly(3), reset).of("commandlog").admin().asks().about(
        Group::Server,
        "8.1.0",
        "Forgets those that were slow, or had a large-request or large-reply.",
    ),
];

const SLOWLOG: &[Row] = &[
    session("get", Arity::AtLeast(2), get_slow).of("slowlog").admin().asks().about(
        Group::Server,
        "2.2.12",
        "The newest slow commands: ten, so many, or all (-1).",
    ),
    plain("help", Arity::Exactly(2), help).of("slowlog").about(
        Group::Server,
        "6.2.0",
        "Lists the subcommands.",
    ),
    session("len", Arity::Exactly(2), slow_length).of("slowlog").admin().asks().about(
        Group::Server,
        "2.2.12",
        "Count of the slow commands that are kept.",
    ),
    session("reset", Arity::Exactly(2), reset_slow).of("slowlog").admin().asks().about(
        Group::Server,
        "2.2.12",
        "Forgets them.",
    ),
];

/// Slow commands shown when no count is given.
const COUNT_DEFAULT: usize = 10;

fn get(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let count = count_of(call, 2)?;
    show_all(context, trait_of(call, 3)?, count)
}

fn length(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    count_all(context, trait_of(call, 2)?)
}

fn reset(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    forget_all(context, trait_of(call, 2)?)
}

fn get_slow(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let count = match call.count() {
        2 => COUNT_DEFAULT,
        3 => count_of(call, 2)?,
        _ => return Err(Refusal::Arity(call.command.full_name())),
    };
    show_all(context, Trait::Slow, count)
}

fn slow_length(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    count_all(context, Trait::Slow)
}

fn reset_slow(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    forget_all(context, Trait::Slow)
}

fn count_of(call: &Call<'_>, at: usize) -> Result<usize, Refusal> {
    const BAD_COUNT: Refusal = Refusal::text("ERR count should be greater than or equal to -1");
    match call.integer(at).map_err(|_| BAD_COUNT)? {
        -1 => Ok(usize::MAX),
        count => usize::try_from(count).map_err(|_| BAD_COUNT),
    }
}

fn trait_of(call: &Call<'_>, at: usize) -> Result<Trait, Refusal> {
    let known = Trait::ALL.iter().find(|(_, word)| call.arguments.is(at, word));
    known.map(|(kind, _)| *kind).ok_or(Refusal::text(
        "ERR type should be one of the following: slow, large-request, large-reply",
    ))
}

fn show_all(
    context: &mut SessionContext<'_>,
    kind: Trait,
    count: usize,
) -> Result<Answer, Refusal> {
    let ask = move |core: &mut Core| -> Vec<NotedCommand> {
        core.stats.noted.log(kind).commands().take(count).cloned().collect()
    };
    context.ask_cores(ask, move |core, found, reply| {
        let mut commands: Vec<NotedCommand> = found.into_iter().flatten().collect();
        commands.sort_unstable_by_key(|command| std::cmp::Reverse(command.id));
        // Each core keeps as many as all together may.
        commands.truncate(count.min(kept_max(core, kind)));
        reply.array(commands.len());
        commands.iter().for_each(|command| show(command, reply));
    })
}

fn kept_max(core: &Core, kind: Trait) -> usize {
    let max = match kind {
        Trait::Slow => core.settings.slowlog_max_len,
        Trait::LargeRequest => core.settings.large_request_max_len,
        Trait::LargeReply => core.settings.large_reply_max_len,
    };
    usize::try_from(max).unwrap_or(usize::MAX)
}

fn show(command: &NotedCommand, reply: &mut Reply<'_>) {
    reply.array(6);
    reply.integer(command.id as i64);
    reply.integer(command.time_ms / 1000);
    reply.integer(command.amount as i64);
    reply.array(command.arguments.len());
    command.arguments.iter().for_each(|argument| reply.bulk(argument));
    reply.bulk(command.peer.to_string().as_bytes());
    reply.bulk(&command.name);
}

fn count_all(context: &mut SessionContext<'_>, kind: Trait) -> Result<Answer, Refusal> {
    let ask = move |core: &mut Core| core.stats.noted.log(kind).commands().count();
    context.ask_cores(ask, move |core, counts, reply| {
        reply.integer(counts.iter().sum::<usize>().min(kept_max(core, kind)) as i64);
    })
}

fn forget_all(context: &mut SessionContext<'_>, kind: Trait) -> Result<Answer, Refusal> {
    let ask = move |core: &mut Core| core.stats.noted.log(kind).clear();
    context.ask_cores(ask, |_, _, reply| reply.ok())
}
