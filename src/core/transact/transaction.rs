//! MULTI, EXEC, DISCARD and WATCH.
//!
//! A transaction of one shard is one operation: its commands travel together in one entry and are
//! applied together; commands of the session itself (SELECT, PING) run when EXEC does, and their
//! replies are put back in between. One of several shards is coordinated (`spread.rs`). Watched
//! keys are versions that the shard's leader counts; it compares them when everything before the
//! transaction is applied, and proposes it only if none has changed.

use crate::acl::log::Place;
use crate::acl::selector::Denied;
use crate::acl::user::{Denial, User};
use crate::commands::events::note_events;
use crate::commands::{Answer, Arity, Call, Command, Group, Keys, Run, Spread};
use crate::core::Core;
use crate::core::client::answers::{Origin, Target};
use crate::core::client::intake::EXEC_OUT_OF_MEMORY;
use crate::core::client::rights::refusal;
use crate::core::client::session::{Queued, Transaction, Watched};
use crate::core::commands::connection::credentials;
use crate::core::commands::{Row, plain, read, session, shard, table, write};
use crate::core::gather::context::SessionContext;
use crate::core::gather::{GatherState, Merge, Part};
use crate::core::shard::{Request, ShardContext};
use crate::core::transact::steps::Step;
use crate::refusal::{Outcome, Refusal};
use crate::resp::reply::Reply;
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use ringraft_shards::ids::{DatabaseIndex, ShardId};
use ringraft_shards::keyspace::{Edit, KeyHash, KeyHasher, View};
use ringraft_shards::limits::DATABASE_COUNT;
use ringraft_shards::transaction::{LockKey, LockSet};
use std::sync::atomic::Ordering;

/// Rows of this file.
pub const COMMANDS: &[Row] = &[
    session("multi", Arity::Exactly(1), multi).allows_busy().unqueued().fast().about(
        Group::Transactions,
        "1.2.0",
        "Queues the commands that follow until EXEC.",
    ),
    session("exec", Arity::Exactly(1), exec).unqueued().unseen().about(
        Group::Transactions,
        "1.2.0",
        "Runs the queued commands as one.",
    ),
    session("discard", Arity::Exactly(1), discard).allows_busy().unqueued().fast().about(
        Group::Transactions,
        "2.0.0",
        "Forgets the queued commands and the watched keys.",
    ),
    session("watch", Arity::AtLeast(2), watch)
        .keyed(Keys::ALL)
        .allows_busy()
        .unqueued()
        .fast()
        .for_leader()
        .about(
            Group::Transactions,
            "2.2.0",
            "Lets the next EXEC run only if these keys have not changed.",
        ),
    session("unwatch", Arity::Exactly(1), unwatch).allows_busy().fast().about(
        Group::Transactions,
        "2.2.0",
        "Forgets the watched keys.",
    ),
    write(RUN, Arity::AtLeast(2), Keys::NONE, run).internal().about(
        Group::Transactions,
        "7.2.0",
        "The commands of a transaction.",
    ),
    plain(DENIED, Arity::Exactly(2), denied).internal().unseen().about(
        Group::Transactions,
        "7.2.0",
        "Stands for a command that was queued and is not allowed any more.",
    ),
    read(SETTLE, Arity::Exactly(1), Keys::NONE, settle).internal().about(
        Group::Transactions,
        "7.2.0",
        "Answered when what is under way at a shard is done.",
    ),
    shard(REGISTER, Arity::Exactly(2), Keys::FIRST, register).internal().about(
        Group::Transactions,
        "7.2.0",
        "Watches one key of a shard.",
    ),
];

/// A transaction of one shard.
pub(in crate::core) const RUN: &str = "run-queued";
/// Among the commands of a transaction, in place of a number: a reply that is known.
const REPLY: u16 = u16::MAX - 4;
const DENIED: &str = "deny-queued";
const REGISTER: &str = "watch-key";
/// Waits for all locks of a shard.
pub(in crate::core) const SETTLE: &str = "settle";

fn denied(call: &Call<'_>, _: &mut Reply<'_>) -> Outcome {
    Err(Refusal::Bytes(call.at(1).to_vec()))
}

fn settle(_: &Call<'_>, _: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply.ok();
    Ok(())
}

fn multi(
    context: &mut SessionContext<'_>,
    _call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    if context.session().transaction.is_some() {
        return Err(Refusal::text("ERR MULTI calls can not be nested"));
    }
    context.session().transaction = Some(Box::new(Transaction::default()));
    reply.ok();
    Ok(Answer::Now)
}

fn discard(
    context: &mut SessionContext<'_>,
    _call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    if context.session().transaction.take().is_none() {
        return Err(Refusal::text("ERR DISCARD without MULTI"));
    }
    context.core.forget_watched(context.index);
    reply.ok();
    Ok(Answer::Now)
}

fn unwatch(
    context: &mut SessionContext<'_>,
    _call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    context.core.forget_watched(context.index);
    reply.ok();
    Ok(Answer::Now)
}

fn watch(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    if context.session().transaction.is_some() {
        return Err(Refusal::text("ERR WATCH inside MULTI is not allowed"));
    }
    let database = context.session().database;
    let keys: Vec<&[u8]> = call.arguments.iter_from(1).collect();
    let core = &mut *context.core;
    let watched: Vec<(KeyHash, Watched)> = keys
        .iter()
        .map(|key| {
            let hash = core.router.hash(key);
            let shard = core.router.shard(hash);
            (hash, Watched { shard, database, key: key.to_vec(), version: 0 })
        })
        .collect();
    let protocol = core.answers.connections.at(context.index).session.protocol;
    let index = core.answers.gathers.insert(GatherState {
        target: context.target,
        protocol,
        merge: Merge::Watch(watched.iter().map(|(_, w)| w.clone()).collect()),
        parts: keys.iter().map(|_| Part::default()).collect(),
        missing: keys.len(),
        arguments: OwnedArguments::default(),
        scanned_slot: None,
    });
    core.answers.connections.at_mut(context.index).hold =
        crate::core::client::connection::Hold::Answer;
    let command = table::internal(REGISTER);
    for (part, (first_key, watched)) in watched.iter().enumerate() {
        let target = Target::Gather { index, part: part as u32 };
        let origin = Origin::asks(core.id, target, protocol);
        let owned: OwnedArguments =
            [REGISTER.as_bytes(), watched.key.as_slice()].into_iter().collect();
        let (first_key, arguments) = (*first_key, owned.borrow());
        let request = Request { command, origin, database, first_key, arguments };
        core.forward(watched.shard, &request);
    }
    Ok(Answer::Later)
}

fn register(
    context: &mut ShardContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let version = context.shard.keyspace.watch(context.database, &call.key(1), context.now_ms);
    reply.integer(version as i64);
    Ok(Answer::Now)
}

fn exec(
    context: &mut SessionContext<'_>,
    _call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let Some(transaction) = context.session().transaction.take() else {
        return Err(Refusal::text("ERR EXEC without MULTI"));
    };
    let watched = std::mem::take(&mut context.session().watched);
    if std::mem::take(&mut context.connection().lost_watch) && !transaction.refused {
        // They were watched at a node that led then.
        context.core.unwatch(watched);
        reply.null_array();
        return Ok(Answer::Now);
    }
    let outcome = if context.core.lacks_memory_for(&transaction.queued) {
        Err(Refusal::text(EXEC_OUT_OF_MEMORY))
    } else if transaction.refused {
        Err(Refusal::text("EXECABORT Transaction discarded because of previous errors."))
    } else {
        let queued = context.core.permitted_now(context.index, transaction.queued);
        for queued in &queued {
            context.core.track_reads(context.index, queued.command, queued.arguments.borrow());
        }
        execute(context, &queued, &watched, reply)
    };
    context.core.show_exec(context.index);
    // A transaction on its way takes its watches along.
    if outcome != Ok(Answer::Later) {
        context.core.unwatch(watched);
    }
    outcome
}

/// What EXEC answers in place of a command that was allowed when it was queued.
fn changed_rights(
    user: &User,
    denial: Denial,
    command: &Command,
    arguments: Arguments<'_>,
) -> Vec<u8> {
    let reason = match denial {
        Denial::By(Denied::Command) => "no permission to execute the command or subcommand",
        Denial::By(Denied::Key(_)) => "no permission to touch the specified keys",
        Denial::By(Denied::Channel(_)) => {
            "no permission to access one of the channels used as arguments to the command"
        }
        Denial::Option(_) => return refusal(user, denial, "", command, arguments).line(),
    };
    let text = format!(
        "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This command is \
         no longer allowed for the following reason: {reason}"
    );
    text.into_bytes()
}

/// Sends a transaction to its shard, or coordinates it when there are several or when it has to
/// wait for other cores. Of one shard, what concerns the session is run before.
fn execute(
    context: &mut SessionContext<'_>,
    queued: &[Queued],
    watched: &[Watched],
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let waits = queued.iter().any(|queued| queued.command.flags.asks);
    let shard = match concerned(context.core, queued, watched)? {
        Concerned::None if !waits => None,
        // What concerns the session must not run when a watched key has changed.
        Concerned::One(shard)
            if !waits && (watched.is_empty() || !queued.iter().any(is_of_session)) =>
        {
            Some(shard)
        }
        Concerned::None | Concerned::One(_) | Concerned::Several => {
            spread(context, queued, watched);
            return Ok(Answer::Later);
        }
    };
    // What another node has sent on is answered by the shard as a whole, so that the shard can
    // remember it.
    let is_stamped = context.core.stamp_of(context.target).is_some();
    let mut replies = Vec::with_capacity(queued.len());
    let mut packed = Packed::default();
    for Queued { command, arguments, .. } in queued {
        context.core.show_to_monitors(context.index, command, arguments.borrow());
        match command.run {
            Run::Read(_) | Run::Write(_) | Run::Block(_) => {
                packed.push(command, context.session().database, arguments.borrow());
                replies.push(None);
            }
            Run::Session | Run::Plain(_) | Run::Container => {
                let mut out = Vec::new();
                let (index, protocol) = (context.index, context.session().protocol);
                let run = Core::run_queued;
                let outcome =
                    run(context.core, index, context.target, command, arguments.borrow(), &mut out);
                match outcome {
                    Ok(Answer::Now) => {}
                    Ok(Answer::Later | Answer::LaterCounted) => {
                        unreachable!("{} does not ask", command.name)
                    }
                    Err(refusal) => Reply::new(&mut out, protocol).error_bytes(&refusal.line()),
                }
                if is_stamped {
                    packed.push_reply(&out);
                }
                replies.push((!is_stamped).then_some(out));
            }
            Run::Shard | Run::Record | Run::Serve | Run::Script(_) => {
                unreachable!("refused when it was queued, or coordinated")
            }
        }
    }
    if packed.count == 0 && watched.is_empty() {
        reply.array(replies.len());
        for own in replies.into_iter().flatten() {
            reply.raw(&own);
        }
        return Ok(Answer::Now);
    }
    let Some(shard) = shard else { unreachable!("keys or watches have a shard") };
    send(context, shard, replies, packed, watched);
    Ok(Answer::Later)
}

fn send(
    context: &mut SessionContext<'_>,
    shard: ShardId,
    replies: Vec<Option<Vec<u8>>>,
    packed: Packed,
    watched: &[Watched],
) {
    let protocol = context.session().protocol;
    let core = &mut *context.core;
    let index = core.answers.gathers.insert(GatherState {
        target: context.target,
        protocol,
        merge: Merge::Transaction { replies },
        parts: vec![Part::default()],
        missing: 1,
        arguments: OwnedArguments::default(),
        scanned_slot: None,
    });
    let connection = core.answers.connections.at_mut(context.index);
    if let Target::Connection { sequence, .. } = context.target {
        connection.last_ordered = Some(sequence);
    }
    let target = Target::Gather { index, part: 0 };
    let (stamp, is_relayed) = (core.stamp_of(context.target), core.is_of_session(context.target));
    let origin = Origin { stamp, is_relayed, ..Origin::asks(core.id, target, protocol) };
    let guard = (!watched.is_empty()).then(|| watched.to_vec());
    let arguments = packed.arguments;
    core.at_shard(shard, move |core, local| {
        let command = table::internal(RUN);
        let (database, first_key) = (DatabaseIndex(0), KeyHash::default());
        let request =
            Request { command, origin, database, first_key, arguments: arguments.borrow() };
        core.admit_transaction(local, &request, guard);
    });
}

/// Coordinates a transaction of several shards.
fn spread(context: &mut SessionContext<'_>, queued: &[Queued], watched: &[Watched]) {
    let protocol = context.session().protocol;
    let mut database = context.session().database;
    let mut steps = Vec::with_capacity(queued.len());
    for Queued { command, arguments, user } in queued {
        context.core.show_to_monitors(context.index, command, arguments.borrow());
        if command.name == "select" {
            // It runs with the others; what follows it is locked and read in the database that it
            // chooses.
            let chosen = crate::numbers::parse_integer(arguments.borrow().at(1));
            let chosen = chosen.and_then(|number| u8::try_from(number).ok());
            let chosen = chosen.filter(|number| usize::from(*number) < DATABASE_COUNT);
            database = chosen.map_or(database, DatabaseIndex);
        }
        let (arguments, user) = (arguments.clone(), user.clone());
        steps.push(Step { command, database, arguments, user });
    }
    if let Target::Connection { sequence, .. } = context.target {
        context.connection().last_ordered = Some(sequence);
    }
    context.core.spread_exec(context.index, context.target, protocol, steps, watched.to_vec());
}

fn is_of_session(queued: &Queued) -> bool {
    matches!(queued.command.run, Run::Session)
}

/// Which shards a transaction concerns.
enum Concerned {
    None,
    One(ShardId),
    Several,
}

/// Errors: a command cannot be part of a transaction.
fn concerned(core: &Core, queued: &[Queued], watched: &[Watched]) -> Result<Concerned, Refusal> {
    let mut concerned = Concerned::None;
    let mut concerns_any = false;
    let mut join = |other: ShardId| {
        concerned = match concerned {
            Concerned::None => Concerned::One(other),
            Concerned::One(before) if before == other => Concerned::One(other),
            _ => Concerned::Several,
        };
    };
    for watched in watched {
        join(watched.shard);
    }
    for Queued { command, arguments, .. } in queued {
        match command.run {
            Run::Session | Run::Plain(_) | Run::Container => {}
            // Its keys may be anywhere.
            Run::Script(_) => concerns_any = true,
            Run::Read(_) | Run::Write(_) if matches!(command.spread, Spread::Everywhere(_)) => {
                (0..core.router.shard_count()).for_each(|shard| join(ShardId(shard as u16)));
            }
            Run::Read(_) | Run::Write(_) | Run::Block(_) => {
                for piece in core.pieces(command, arguments.borrow())? {
                    join(piece.shard);
                }
            }
            Run::Shard | Run::Record | Run::Serve => {
                let text = format!("ERR {} cannot be part of a transaction", command.full_name());
                return Err(Refusal::Text(text.into()));
            }
        }
    }
    Ok(if concerns_any { Concerned::Several } else { concerned })
}

/// May a write grow memory? A packed transaction may when one of its commands may.
pub fn grows(command: &Command, arguments: Arguments<'_>) -> bool {
    let mut grows = command.flags.grows;
    if command.name == RUN {
        each_queued(arguments, |number, _, _| {
            grows |= crate::core::shard::numbered(number).flags.grows;
        });
    }
    grows
}

/// What the commands of a packed transaction must not share with others; `None` when this is no
/// such command.
pub fn locks_of_queued(
    command: &Command,
    packed: Arguments<'_>,
    hasher: KeyHasher,
) -> Option<LockSet> {
    if command.name != RUN {
        return None;
    }
    let mut locks = LockSet::default();
    each_queued(packed, |number, _, arguments| {
        let command = crate::core::shard::numbered(number);
        let exclusive = command.run.writes();
        if matches!(command.spread, Spread::Everywhere(_)) {
            locks.whole = Some(locks.whole.unwrap_or(false) | exclusive);
        }
        for i in command.keys.positions(arguments) {
            locks.keys.push(LockKey::new(hasher.hash(arguments.at(i)), exclusive));
        }
    });
    Some(locks).filter(|locks| !locks.is_empty())
}

/// The commands of a transaction as the arguments of one operation: for each, its number, database
/// and count of arguments in eight bytes, then its arguments.
struct Packed {
    arguments: OwnedArguments,
    count: usize,
}

impl Default for Packed {
    fn default() -> Packed {
        Packed { arguments: [RUN.as_bytes()].into_iter().collect(), count: 0 }
    }
}

impl Packed {
    fn push(&mut self, command: &Command, database: DatabaseIndex, arguments: Arguments<'_>) {
        self.push_head(command.number, database, arguments.count());
        arguments.iter_from(0).for_each(|argument| self.arguments.push(argument));
        self.count += 1;
    }

    /// The reply of a command that has run already.
    fn push_reply(&mut self, reply: &[u8]) {
        self.push_head(REPLY, DatabaseIndex(0), 1);
        self.arguments.push(reply);
    }

    fn push_head(&mut self, number: u16, database: DatabaseIndex, count: usize) {
        let mut head = [0; 8];
        head[..2].copy_from_slice(&number.to_le_bytes());
        head[2] = database.0;
        head[4..].copy_from_slice(&(count as u32).to_le_bytes());
        self.arguments.push(&head);
    }
}

/// Applies a transaction: each command in order, each with its own reply.
fn run(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let mut count = 0;
    each_packed(call.arguments, |_, _, _| count += 1);
    reply.array(count);
    let mut nth = 0u64;
    each_packed(call.arguments, |number, database, arguments| {
        if number == REPLY {
            return reply.raw(arguments.at(0));
        }
        let command = crate::core::shard::numbered(number);
        nth += 1;
        let inner = Call {
            command,
            arguments,
            first_key: command.first_key(arguments, call.hasher),
            hasher: call.hasher,
            seed: call.seed.wrapping_add(nth.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            string_bytes_max: call.string_bytes_max,
        };
        let start = reply.size();
        let mut edit = edit.of_database(database);
        let outcome = match command.run {
            Run::Write(run) | Run::Block(run) => run(&inner, &mut edit, reply),
            Run::Read(run) => run(&inner, &edit.view(), reply),
            _ => unreachable!("EXEC packs reads and writes"),
        };
        if edit.has_changes() {
            note_events(&mut edit, command, arguments);
        }
        if let Err(refusal) = outcome {
            reply.truncate(start);
            reply.error_bytes(&refusal.line());
        }
    });
    Ok(())
}

fn each_queued<'a>(
    packed: Arguments<'a>,
    mut visit: impl FnMut(u16, DatabaseIndex, Arguments<'a>),
) {
    each_packed(packed, |number, database, arguments| {
        if number != REPLY {
            visit(number, database, arguments);
        }
    });
}

fn each_packed<'a>(
    packed: Arguments<'a>,
    mut visit: impl FnMut(u16, DatabaseIndex, Arguments<'a>),
) {
    let mut at = 1;
    while let Some(head) = packed.get(at) {
        let head: [u8; 8] = head.try_into().expect("EXEC packs eight bytes");
        let count = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let arguments = packed.tail(at + 1).first(count);
        visit(u16::from_le_bytes([head[0], head[1]]), DatabaseIndex(head[2]), arguments);
        at += 1 + count;
    }
}

/// Visits the commands of a transaction, or of nothing else.
pub fn each_of<'a>(
    command: &Command,
    packed: Arguments<'a>,
    visit: &mut impl FnMut(&'static Command, DatabaseIndex, Arguments<'a>),
) {
    if command.name == RUN {
        each_queued(packed, |number, database, arguments| {
            visit(crate::core::shard::numbered(number), database, arguments);
        });
    }
}

impl Core {
    /// Runs a command of EXEC that concerns the session or nothing, as [`Core::run_here`].
    pub(in crate::core) fn run_queued(
        &mut self,
        index: u32,
        target: Target,
        command: &'static Command,
        arguments: Arguments<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Answer, Refusal> {
        if command.flags.takes_over {
            let name = command.name.to_ascii_uppercase();
            let text = format!("ERR {name} isn't allowed for DENY BLOCKING client");
            return Err(Refusal::Text(text.into()));
        }
        let Some(run) = table::queued_work(command) else {
            return self.run_here(index, target, command, arguments, out);
        };
        let protocol = self.answers.connections.at(index).session.protocol;
        let call = self.keyless_call(command, arguments, 0);
        run(self, &call, &mut Reply::new(out, protocol)).map(|()| Answer::Now)
    }

    /// The commands of a transaction, with errors in place of those that its user may not run any
    /// more, or not after the AUTH that stands before them.
    fn permitted_now(&self, index: u32, mut queued: Vec<Queued>) -> Vec<Queued> {
        let session = &self.answers.connections.at(index).session;
        if !session.is_limited && !queued.iter().any(|queued| queued.command.flags.no_auth) {
            return queued;
        }
        let mut user = session.user.clone();
        for queued in &mut queued {
            queued.user = (!user.is_unlimited()).then(|| user.clone());
            let Queued { command, arguments, .. } = queued;
            if let Err(denial) = user.check(command, arguments.borrow()) {
                self.note_denial(index, &user, denial, Place::Multi, command, arguments.borrow());
                let text = changed_rights(&user, denial, command, arguments.borrow());
                *arguments = [DENIED.as_bytes(), &text].into_iter().collect();
                *command = table::internal(DENIED);
                continue;
            }
            let names = credentials(command, arguments.borrow());
            if let Some(new) = names.and_then(|(name, clear)| self.users.log_in(name, clear)) {
                user = new.clone();
            }
        }
        queued
    }

    /// Is memory over its limit where the keys of this command are, with nothing to evict? Of a
    /// command without keys: anywhere.
    pub fn lacks_memory(&mut self, command: &'static Command, arguments: Arguments<'_>) -> bool {
        if self.settings.maxmemory == 0 {
            return false;
        }
        let positions = command.keys.positions(arguments);
        let mut shards: Vec<ShardId> =
            positions.map(|i| self.router.shard(self.router.hash(arguments.at(i)))).collect();
        shards.sort_unstable();
        shards.dedup();
        if shards.is_empty() {
            shards = (0..self.router.shard_count()).map(|n| ShardId(n as u16)).collect();
        }
        shards.into_iter().any(|shard| match self.router.local(shard) {
            Some(local) => !self.shards[local].has_room(&mut self.stats),
            None => self.shared.full[usize::from(shard.0)].load(Ordering::Acquire),
        })
    }

    /// Would one of these commands that may grow memory be refused?
    fn lacks_memory_for(&mut self, queued: &[Queued]) -> bool {
        let mut growing = queued.iter().filter(|queued| queued.command.flags.grows);
        growing.any(|queued| self.lacks_memory(queued.command, queued.arguments.borrow()))
    }

    /// Gathers a transaction that arrived at its shard.
    fn admit_transaction(
        &mut self,
        local: usize,
        request: &Request<'_>,
        guard: Option<Vec<Watched>>,
    ) {
        let grows = grows(request.command, request.arguments);
        let shard = &mut self.shards[local];
        if grows && !shard.has_room(&mut self.stats) {
            return self.answer_error(request.origin, EXEC_OUT_OF_MEMORY);
        }
        if !shard.is_open() && shard.park(request, guard.as_ref()) {
            return;
        }
        match guard {
            Some(guard) => shard.gather_guarded(request, guard),
            None => shard.gather_write(request),
        }
    }

    /// Ends a connection's interest in the keys it watches.
    pub fn forget_watched(&mut self, index: u32) {
        self.answers.connections.at_mut(index).lost_watch = false;
        let watched = std::mem::take(&mut self.answers.connections.at_mut(index).session.watched);
        self.unwatch(watched);
    }

    /// Ends the interest in these keys.
    pub(in crate::core) fn unwatch(&mut self, watched: Vec<Watched>) {
        for watched in watched {
            self.at_shard(watched.shard, move |core, local| {
                core.shards[local].keyspace.unwatch(watched.database, &watched.key);
            });
        }
    }

    /// The versions of watched keys have come.
    pub(in crate::core) fn conclude_watch(
        &mut self,
        target: Target,
        watched: Vec<Watched>,
        parts: &[Part],
        refusal: Option<Vec<u8>>,
        reply: &mut Reply<'_>,
    ) {
        if let Some(refusal) = refusal {
            return reply.raw(&refusal);
        }
        reply.ok();
        let Target::Connection { index, .. } = target else { return };
        for (mut watched, part) in watched.into_iter().zip(parts) {
            let digits = part.reply.strip_prefix(b":").unwrap_or_default().trim_ascii_end();
            let version = crate::numbers::parse_integer(digits).expect("a shard's own integer");
            watched.version = version as u64;
            self.answers.connections.at_mut(index).session.watched.push(watched);
        }
    }
}
