//! SLOWLOG: the commands that took long, of all cores.
//!
//! Commands that run in stages are timed together, so that the hot path reads the clock once per stage: what
//! is kept of a slow group is its last command. With a threshold of 0 every command is kept, each with its
//! share of the group's time.

use super::help::help;
use super::refusal::Refusal;
use super::{Answer, Arity, Call, Command, Group, container, plain, session};
use crate::core::observe::slowlog::SlowCommand;
use crate::core::{Core, SessionContext};
use crate::resp::reply::Reply;

/// Rows of this file.
pub const COMMANDS: &[Command] =
    &[container("slowlog", SLOWLOG).about(Group::Server, "2.2.12", "The commands that took long.")];

const SLOWLOG: &[Command] = &[
    session("get", Arity::AtLeast(2), get).of("slowlog").admin().asks().about(
        Group::Server,
        "2.2.12",
        "The newest slow commands: ten, so many, or all (-1).",
    ),
    plain("help", Arity::Exactly(2), help).of("slowlog").about(
        Group::Server,
        "6.2.0",
        "Lists the subcommands.",
    ),
    session("len", Arity::Exactly(2), length).of("slowlog").admin().asks().about(
        Group::Server,
        "2.2.12",
        "Count of the slow commands that are kept.",
    ),
    session("reset", Arity::Exactly(2), reset).of("slowlog").admin().asks().about(
        Group::Server,
        "2.2.12",
        "Forgets them.",
    ),
];

/// Commands shown when no count is given.
const COUNT_DEFAULT: usize = 10;

fn get(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    const BAD_COUNT: Refusal = Refusal::text("ERR count should be greater than or equal to -1");
    let count = match call.count() {
        2 => COUNT_DEFAULT,
        3 => match call.integer(2).map_err(|_| BAD_COUNT)? {
            -1 => usize::MAX,
            count => usize::try_from(count).map_err(|_| BAD_COUNT)?,
        },
        _ => return Err(Refusal::Arity(call.command.full_name())),
    };
    let ask = move |core: &mut Core| -> Vec<SlowCommand> {
        core.stats.slowlog.commands().take(count).cloned().collect()
    };
    context.ask_cores(ask, move |core, found, reply| {
        let mut commands: Vec<SlowCommand> = found.into_iter().flatten().collect();
        commands.sort_unstable_by_key(|command| std::cmp::Reverse(command.id));
        // Each core keeps as many as all together may.
        commands.truncate(count.min(kept_max(core)));
        reply.array(commands.len());
        commands.iter().for_each(|command| show(command, reply));
    })
}

fn kept_max(core: &Core) -> usize {
    usize::try_from(core.settings.slowlog_max_len).unwrap_or(usize::MAX)
}

fn show(command: &SlowCommand, reply: &mut Reply<'_>) {
    reply.array(6);
    reply.integer(command.id as i64);
    reply.integer(command.time_ms / 1000);
    reply.integer(command.duration.as_micros() as i64);
    reply.array(command.arguments.len());
    command.arguments.iter().for_each(|argument| reply.bulk(argument));
    reply.bulk(command.peer.to_string().as_bytes());
    reply.bulk(&command.name);
}

fn length(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let ask = |core: &mut Core| core.stats.slowlog.commands().count();
    context.ask_cores(ask, |core, counts, reply| {
        reply.integer(counts.iter().sum::<usize>().min(kept_max(core)) as i64);
    })
}

fn reset(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    context.ask_cores(|core| core.stats.slowlog.clear(), |_, _, reply| reply.ok())
}
