//! How rows of the command table are written.

use super::{
    Arity, Call, Command, Fill, Flags, Gather, Group, Keys, Run, ScriptBy, Search, Secrets, Spread,
    TimeoutAt, Wait,
};
use crate::refusal::{Outcome, Refusal};
use crate::resp::reply::Reply;
use ringraft_shards::arguments::Arguments;
use ringraft_shards::keyspace::{Edit, KeyHash, KeyHasher, View};
use ringraft_shards::waiting::WaitKind;
use std::borrow::Cow;

/// A row that reads the keyspace.
pub const fn read(
    name: &'static str,
    arity: Arity,
    keys: Keys,
    run: fn(&Call<'_>, &View<'_>, &mut Reply<'_>) -> Outcome,
) -> Command {
    let mut command = row(name, arity, keys, Run::Read(run));
    command.flags.readonly = true;
    command
}

/// A row that changes the keyspace through the log.
pub const fn write(
    name: &'static str,
    arity: Arity,
    keys: Keys,
    run: fn(&Call<'_>, &mut Edit<'_>, &mut Reply<'_>) -> Outcome,
) -> Command {
    let mut command = row(name, arity, keys, Run::Write(run));
    command.flags.write = true;
    command
}

/// A row that changes the keyspace through the log, and waits for `kind` when it finds nothing.
pub const fn block(
    name: &'static str,
    arity: Arity,
    keys: Keys,
    kind: WaitKind,
    timeout: TimeoutAt,
    run: fn(&Call<'_>, &mut Edit<'_>, &mut Reply<'_>) -> Outcome,
) -> Command {
    let mut command = row(name, arity, keys, Run::Block(run));
    command.flags.write = true;
    command.wait = Some(Wait { kind, timeout, sources: None });
    command
}

/// A row whose second word names one of `subcommands`.
pub const fn container(name: &'static str, subcommands: &'static [Command]) -> Command {
    let mut command = row(name, Arity::AtLeast(2), Keys::NONE, Run::Container);
    command.subcommands = subcommands;
    command
}

/// A row that needs nothing but its arguments.
pub const fn plain(
    name: &'static str,
    arity: Arity,
    run: fn(&Call<'_>, &mut Reply<'_>) -> Outcome,
) -> Command {
    row(name, arity, Keys::NONE, Run::Plain(run))
}

/// A row that runs a script.
pub const fn script_row(name: &'static str, by: ScriptBy) -> Command {
    row(name, Arity::AtLeast(3), Keys::NONE.and(Search::Counted(2)), Run::Script(by))
}

/// A row of any kind.
pub const fn row(name: &'static str, arity: Arity, keys: Keys, run: Run) -> Command {
    Command {
        number: 0,
        name,
        parent: "",
        arity,
        keys,
        run,
        subcommands: &[],
        work: (),
        spread: Spread::One,
        flags: Flags {
            write: false,
            readonly: false,
            grows: false,
            fast: false,
            admin: false,
            no_auth: false,
            allows_busy: false,
            unqueued: false,
            no_multi: false,
            serves_listeners: false,
            listens: false,
            sends: false,
            takes_over: false,
            no_monitor: false,
            may_replicate: false,
            random_reply: false,
            skips_monitor: false,
            no_slowlog: false,
            asks: false,
            internal: false,
            keys_only: false,
            crosses_databases: false,
            for_leader: false,
            fill: Fill::Arguments,
        },
        secrets: Secrets::None,
        alone: None,
        wait: None,
        member_at: 0,
        check: None,
        refers: None,
        group: Group::Generic,
        since: "1.0.0",
        summary: "",
    }
}

impl Command {
    /// Hash of a request's first key; any hash when it has none.
    pub fn first_key(&self, arguments: Arguments<'_>, hasher: KeyHasher) -> KeyHash {
        let first = self.keys.positions(arguments).find_map(|at| arguments.get(at));
        first.map_or(KeyHash::default(), |key| hasher.hash(key))
    }

    /// Does it run a script?
    #[inline(always)]
    pub fn is_script(&self) -> bool {
        matches!(self.run, Run::Script(_))
    }

    /// Does the count of arguments fit? Errors: [`Refusal::Arity`].
    #[inline(always)]
    pub fn check_arity(&self, count: usize) -> Result<(), Refusal> {
        if self.arity.fits(count) { Ok(()) } else { Err(Refusal::Arity(self.full_name())) }
    }

    /// Its name as Redis prints it: `get`, `object|encoding`.
    #[cold]
    pub fn full_name(&self) -> Cow<'static, str> {
        match self.parent {
            "" => Cow::Borrowed(self.name),
            parent => Cow::Owned(format!("{parent}|{}", self.name)),
        }
    }
}

impl<W: Copy> Command<W> {
    /// The row without what was added to it.
    pub const fn bare(&self) -> Command {
        self.with((), &[])
    }

    /// The row with something else added to it, and with other subcommands.
    pub const fn with<V: Copy>(&self, work: V, subcommands: &'static [Command<V>]) -> Command<V> {
        Command {
            number: self.number,
            name: self.name,
            parent: self.parent,
            arity: self.arity,
            keys: self.keys,
            run: self.run,
            subcommands,
            work,
            spread: self.spread,
            flags: self.flags,
            secrets: self.secrets,
            alone: self.alone,
            wait: self.wait,
            member_at: self.member_at,
            check: self.check,
            refers: self.refers,
            group: self.group,
            since: self.since,
            summary: self.summary,
        }
    }

    /// Constant or logarithmic time.
    pub const fn fast(mut self) -> Self {
        self.flags.fast = true;
        self
    }

    /// Argument `at` names a member of the collection of the first key, or the first of several:
    /// where it lies is fetched ahead.
    pub const fn seeks(mut self, at: u8) -> Self {
        self.member_at = at;
        self
    }

    /// May grow memory.
    pub const fn grows(mut self) -> Self {
        self.flags.grows = true;
        self
    }

    /// Its reply may differ from call to call on the same data.
    pub const fn random_reply(mut self) -> Self {
        self.flags.random_reply = true;
        self
    }

    /// For operators.
    pub const fn admin(mut self) -> Self {
        self.flags.admin = true;
        self.flags.no_monitor = true;
        self
    }

    /// Allowed before AUTH.
    pub const fn no_auth(mut self) -> Self {
        self.flags.no_auth = true;
        self
    }

    /// Allowed while a script runs for long.
    pub const fn allows_busy(mut self) -> Self {
        self.flags.allows_busy = true;
        self
    }

    /// Not queued inside MULTI: it runs at once.
    pub const fn unqueued(mut self) -> Self {
        self.flags.unqueued = true;
        self
    }

    /// Takes the connection over for good: EXEC cannot hold it.
    pub const fn takes_over(mut self) -> Self {
        self.flags.takes_over = true;
        self
    }

    /// Allowed to clients that get messages and speak RESP2.
    pub const fn serves_listeners(mut self) -> Self {
        self.flags.serves_listeners = true;
        self
    }

    /// Changes what messages the connection gets, when every earlier reply is sent.
    pub const fn listens(mut self) -> Self {
        self.flags.listens = true;
        self.flags.asks = true;
        self
    }

    /// Sends messages, when every earlier write of its connection is done.
    pub const fn sends(mut self) -> Self {
        self.flags.sends = true;
        self.flags.asks = true;
        self
    }

    /// Refused inside MULTI.
    pub const fn no_multi(mut self) -> Self {
        self.flags.no_multi = true;
        self
    }

    /// Held back by a pause of writes although it is no write.
    pub const fn may_replicate(mut self) -> Self {
        self.flags.may_replicate = true;
        self
    }

    /// Not shown to MONITOR and SLOWLOG.
    pub const fn unseen(mut self) -> Self {
        self.flags.no_monitor = true;
        self.flags.no_slowlog = true;
        self
    }

    /// COMMAND INFO says that MONITOR does not show it; its commands are shown in its stead, and it
    /// is as well.
    pub const fn unshown(mut self) -> Self {
        self.flags.skips_monitor = true;
        self
    }

    /// Some of its arguments are passwords.
    pub const fn secrets(mut self, secrets: Secrets) -> Self {
        self.secrets = secrets;
        self
    }

    /// Answered by all cores together, hence later.
    pub const fn asks(mut self) -> Self {
        self.flags.asks = true;
        self
    }

    /// Proposed by the leader alone: no client finds it.
    pub const fn internal(mut self) -> Self {
        self.flags.internal = true;
        self
    }

    /// Looks at its keys' presence alone: values are not fetched from other shards for it.
    pub const fn keys_only(mut self) -> Self {
        self.flags.keys_only = true;
        self
    }

    /// May reach keys of its name in other databases.
    pub const fn crosses_databases(mut self) -> Self {
        self.flags.crosses_databases = true;
        self
    }

    /// Run by the node that leads.
    pub const fn for_leader(mut self) -> Self {
        self.flags.for_leader = true;
        self
    }

    /// Its arguments are looked at first, whatever shards it is sent to.
    pub const fn checked(mut self, check: fn(&Call<'_>) -> Outcome) -> Self {
        self.check = Some(check);
        self
    }

    /// A write to a key serves one of those who wait for it.
    pub const fn fills_one(mut self) -> Self {
        self.flags.fill = Fill::One;
        self
    }

    /// A write to a key serves nobody who waits for it.
    pub const fn fills_nothing(mut self) -> Self {
        self.flags.fill = Fill::Nothing;
        self
    }

    /// A read that may wait for `kind` when it finds nothing.
    pub const fn waits(mut self, kind: WaitKind, timeout: TimeoutAt) -> Self {
        self.wait = Some(Wait { kind, timeout, sources: None });
        self
    }

    /// Waits for its first `count` keys alone.
    pub const fn waits_for_first(mut self, count: usize) -> Self {
        if let Some(wait) = &mut self.wait {
            wait.sources = Some(count);
        }
        self
    }

    /// A subcommand of `parent`.
    pub const fn of(mut self, parent: &'static str) -> Self {
        self.parent = parent;
        self
    }

    /// A container that does something without a second word too.
    pub const fn alone(mut self, run: fn(&Call<'_>, &mut Reply<'_>) -> Outcome) -> Self {
        self.arity = Arity::AtLeast(1);
        self.alone = Some(run);
        self
    }

    /// Each key goes to its own shard.
    pub const fn split(mut self, gather: Gather) -> Self {
        self.spread = Spread::Split(gather);
        self
    }

    /// Every shard runs it.
    pub const fn everywhere(mut self, gather: Gather) -> Self {
        self.spread = Spread::Everywhere(gather);
        self
    }

    /// Names keys here, though it does not run where they are.
    pub const fn keyed(mut self, keys: Keys) -> Self {
        self.keys = keys;
        self
    }

    /// Its group, the Redis version that introduced it, and one line about it.
    pub const fn about(mut self, group: Group, since: &'static str, summary: &'static str) -> Self {
        self.group = group;
        self.since = since;
        self.summary = summary;
        self
    }
}
