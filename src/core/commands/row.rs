//! Rows of commands whose functions the core has.

use crate::commands::{self, Answer, Arity, Call, Command, Keys, Run, ScriptBy};
use crate::core::shard::ShardContext;
use crate::core::{Core, SessionContext};
use crate::refusal::{Outcome, Refusal};
use crate::resp::reply::Reply;
use ringraft_shards::keyspace::{Edit, View};

/// The function of a row that runs on the connection's core.
pub type RunSession =
    fn(&mut SessionContext<'_>, &Call<'_>, &mut Reply<'_>) -> Result<Answer, Refusal>;

/// What a command of the session does in EXEC, where it cannot wait.
pub type RunQueued = fn(&Core, &Call<'_>, &mut Reply<'_>) -> Outcome;

/// The function of a row that runs beside the items of a shard.
pub type RunShard = fn(&mut ShardContext<'_>, &Call<'_>, &mut Reply<'_>) -> Result<Answer, Refusal>;

/// What only the core can run of a row.
#[derive(Clone, Copy)]
pub enum Work {
    /// Nothing: the row says it all.
    None,
    /// Of [`Run::Session`]; the second function is in place of the first in EXEC.
    Session(RunSession, Option<RunQueued>),
    /// Of [`Run::Shard`].
    Shard(RunShard),
}

/// A row with its function.
pub type Row = Command<Work>;

/// A row that runs on the core of the connection.
pub const fn session(name: &'static str, arity: Arity, run: RunSession) -> Row {
    commands::row(name, arity, Keys::NONE, Run::Session).with(Work::Session(run, None), &[])
}

/// A row that runs beside the items of a shard, outside its log.
pub const fn shard(name: &'static str, arity: Arity, keys: Keys, run: RunShard) -> Row {
    commands::row(name, arity, keys, Run::Shard).with(Work::Shard(run), &[])
}

/// A row whose second word names one of `subcommands`.
pub const fn container(name: &'static str, subcommands: &'static [Row]) -> Row {
    commands::container(name, &[]).with(Work::None, subcommands)
}

/// A row that needs nothing but its arguments.
pub const fn plain(
    name: &'static str,
    arity: Arity,
    run: fn(&Call<'_>, &mut Reply<'_>) -> Outcome,
) -> Row {
    commands::plain(name, arity, run).with(Work::None, &[])
}

/// A row that reads the keyspace.
pub const fn read(
    name: &'static str,
    arity: Arity,
    keys: Keys,
    run: fn(&Call<'_>, &View<'_>, &mut Reply<'_>) -> Outcome,
) -> Row {
    commands::read(name, arity, keys, run).with(Work::None, &[])
}

/// A row that changes the keyspace through the log.
pub const fn write(
    name: &'static str,
    arity: Arity,
    keys: Keys,
    run: fn(&Call<'_>, &mut Edit<'_>, &mut Reply<'_>) -> Outcome,
) -> Row {
    commands::write(name, arity, keys, run).with(Work::None, &[])
}

/// A row that runs a script.
pub const fn script_row(name: &'static str, by: ScriptBy) -> Row {
    commands::script_row(name, by).with(Work::None, &[])
}

impl Row {
    /// What it does in EXEC, where it cannot wait. Of rows of the session alone.
    pub const fn queued(mut self, run: RunQueued) -> Row {
        let Work::Session(now, _) = self.work else { panic!("a row of the session") };
        self.work = Work::Session(now, Some(run));
        self
    }
}
