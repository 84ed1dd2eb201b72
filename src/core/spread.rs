//! Commands over several shards, whole or not at all: what they lock, what they read, where they run.
//!
//! Four kinds, by the row alone:
//!
//! | kind | rows | read | run | effects |
//! |---|---|---|---|---|
//! | parts of a reply | split reads: MGET, EXISTS, TOUCH | each shard its part | | none |
//! | parts of a write | split writes that answer OK: MSET | nothing | | each shard its part |
//! | every shard | FLUSHALL, SWAPDB, PDEL ... | nothing, or a count | | the command itself |
//! | the rest | RENAME, COPY, BITOP, MSETNX, DEL, EXEC ... | the items | here, on an overlay | the items that changed |
//!
//! The ordinary command functions run and never learn that they were spread. The connection's core coordinates; the
//! protocol is the engine's (`ringraft_shards::transaction`), explained in `docs/transactions.md`.

use crate::commands::{Command, Gather, Run, Spread, table};
use crate::core::Core;
use crate::core::answers::Target;
use crate::core::connection::Hold;
use crate::core::dispatch::Piece;
use crate::core::gather::{Part as ReplyPart, merge_shards};
use crate::core::participate::{Ask, Found, TransactionMessage, What};
use crate::core::session::Watched;
use crate::resp::reply::{Protocol, Reply};
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use ringraft_shards::batch::BatchBuilder;
use ringraft_shards::ids::{DatabaseIndex, ShardId};
use ringraft_shards::keyspace::KeyHash;
use ringraft_shards::limits::DATABASE_COUNT;
use ringraft_shards::transaction::{
    self, Address, CoordinatorOutput, Event, INSTALL, LockKey, LockSet, Outcome, Part,
    TransactionId,
};
use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

/// A core's transactions.
pub type Coordinator = transaction::Coordinator<Box<Ask>, Found, Work>;

/// What comes out of them.
pub type Coordinated = CoordinatorOutput<Box<Ask>, Found, Work>;

/// A command over several shards that is under way.
pub struct Work {
    target: Target,
    protocol: Protocol,
    /// The row that statistics count; `None` for EXEC, whose commands are counted each.
    command: Option<&'static Command>,
    job: Job,
    /// Keys under WATCH that it ends.
    watched: Vec<Watched>,
    /// The reply, once it is known.
    reply: Vec<u8>,
}

/// What is to be done once everything is locked.
enum Job {
    /// The shards' replies are merged.
    Merge { rule: Gather, parts: Vec<(ShardId, Vec<u32>)> },
    /// These effects go to their shards; the reply is OK, or the sum of what the shards have counted.
    Effects { effects: Vec<(ShardId, Vec<u8>)>, rule: Gather },
    /// The commands run on the overlay.
    Overlay { steps: Vec<Step>, is_exec: bool },
    /// It was done.
    Run,
}

/// A command of a transaction.
pub struct Step {
    /// Its row.
    pub command: &'static Command,
    /// The database it runs in.
    pub database: DatabaseIndex,
    /// Its arguments.
    pub arguments: OwnedArguments,
}

/// What a client is told whose transaction may have been done or not.
const UNKNOWN: &str = "ERR the outcome is not known: all of it may have been done, or nothing";

/// What one shard must lock and read, in the making.
#[derive(Default)]
struct Needs {
    locks: LockSet,
    items: Vec<(DatabaseIndex, Vec<u8>)>,
    guard: Vec<Watched>,
}

impl Core {
    /// Starts a command whose keys belong to several shards. `pieces` are theirs.
    pub(super) fn spread(
        &mut self,
        target: Target,
        protocol: Protocol,
        no_touch: bool,
        database: DatabaseIndex,
        command: &'static Command,
        arguments: OwnedArguments,
        pieces: Vec<Piece>,
    ) {
        let writes = matches!(command.run, Run::Write(_));
        let grows = command.flags.grows;
        let (job, parts) = match command.spread {
            Spread::Split(rule) if !writes => {
                let keys = pieces.iter().map(|piece| (piece.shard, piece.keys.clone())).collect();
                let part = |piece: Piece| {
                    let arguments = piece.arguments.unwrap_or_default();
                    let locks = self.locks_of(command, arguments.borrow(), false);
                    let what = What::Reply { command, database, arguments, protocol, no_touch };
                    Part {
                        shard: piece.shard,
                        locks,
                        fetch: Box::new(Ask { what, ..Ask::default() }),
                    }
                };
                let parts = pieces.into_iter().map(part).collect();
                (Job::Merge { rule, parts: keys }, parts)
            }
            Spread::Split(Gather::AllOk) => {
                let mut effects = Vec::with_capacity(pieces.len());
                let part = |piece: Piece| {
                    let arguments = piece.arguments.unwrap_or_default();
                    let batch = one_operation(command, database, piece.first_key, &arguments);
                    effects.push((piece.shard, batch));
                    let locks = self.locks_of(command, arguments.borrow(), true);
                    Part {
                        shard: piece.shard,
                        locks,
                        fetch: Box::new(Ask { grows, ..Ask::default() }),
                    }
                };
                let parts = pieces.into_iter().map(part).collect();
                (Job::Effects { effects, rule: Gather::AllOk }, parts)
            }
            Spread::Everywhere(rule) => {
                let batch = one_operation(command, database, KeyHash::default(), &arguments);
                let effects = pieces.iter().map(|piece| (piece.shard, batch.clone())).collect();
                let part = |piece: Piece| {
                    let what = match rule {
                        Gather::Sum => What::Reply {
                            command: table::internal("count-matching"),
                            database,
                            arguments: arguments.clone(),
                            protocol,
                            no_touch: true,
                        },
                        _ => What::Nothing,
                    };
                    let locks = LockSet::whole(true);
                    Part {
                        shard: piece.shard,
                        locks,
                        fetch: Box::new(Ask { what, ..Ask::default() }),
                    }
                };
                let parts = pieces.into_iter().map(part).collect();
                (Job::Effects { effects, rule }, parts)
            }
            _ => {
                let steps = vec![Step { command, database, arguments }];
                let parts = self.needs_of(&steps, &[]);
                (Job::Overlay { steps, is_exec: false }, parts)
            }
        };
        let (watched, reply, command) = (Vec::new(), Vec::new(), Some(command));
        self.begin_work(Work { target, protocol, command, job, watched, reply }, parts);
    }

    /// Starts a transaction of several shards. The connection goes on when it is answered.
    pub(super) fn spread_exec(
        &mut self,
        index: u32,
        target: Target,
        protocol: Protocol,
        steps: Vec<Step>,
        watched: Vec<Watched>,
    ) {
        let parts = self.needs_of(&steps, &watched);
        self.answers.connections.at_mut(index).hold = Hold::Answer;
        let job = Job::Overlay { steps, is_exec: true };
        let (reply, command) = (Vec::new(), None);
        self.begin_work(Work { target, protocol, command, job, watched, reply }, parts);
    }

    fn begin_work(&mut self, work: Work, parts: Vec<Part<Box<Ask>>>) {
        let now_ns = self.turn.now_ms as u64 * 1_000_000;
        let mut out = std::mem::take(&mut self.coordinated);
        self.coordinator.begin(now_ns, parts, work, &mut out);
        // At once: what the connection asks for next comes behind the locks.
        for message in out.messages.drain(..) {
            self.send_transaction(message, true);
        }
        self.coordinated = out;
    }

    fn locks_of(&self, command: &Command, arguments: Arguments<'_>, exclusive: bool) -> LockSet {
        let positions = command.keys.positions(arguments.count());
        let keys = positions.map(|i| LockKey::new(self.router.hash(arguments.at(i)), exclusive));
        LockSet { keys: keys.collect(), whole: None }
    }

    /// What the shards must lock and read for commands that run on the overlay.
    fn needs_of(&self, steps: &[Step], watched: &[Watched]) -> Vec<Part<Box<Ask>>> {
        let mut needs: BTreeMap<ShardId, Needs> = BTreeMap::new();
        let mut seen = HashSet::new();
        for step in steps {
            let (command, arguments) = (step.command, step.arguments.borrow());
            if !matches!(command.run, Run::Read(_) | Run::Write(_)) {
                continue;
            }
            let exclusive = matches!(command.run, Run::Write(_));
            for i in command.keys.positions(arguments.count()) {
                let key = arguments.at(i);
                let hash = self.router.hash(key);
                let need = needs.entry(self.router.shard(hash)).or_default();
                need.locks.keys.push(LockKey::new(hash, exclusive));
                let databases = match command.flags.crosses_databases {
                    true => 0..DATABASE_COUNT as u8,
                    false => step.database.0..step.database.0 + 1,
                };
                for database in databases.map(DatabaseIndex) {
                    if seen.insert((database, key.to_vec())) {
                        need.items.push((database, key.to_vec()));
                    }
                }
            }
        }
        for watched in watched {
            let hash = self.router.hash(&watched.key);
            let need = needs.entry(watched.shard).or_default();
            need.locks.keys.push(LockKey::new(hash, false));
            need.guard.push(watched.clone());
        }
        let grows = steps.iter().any(|step| step.command.flags.grows);
        let with_values = !steps.iter().all(|step| step.command.flags.keys_only);
        let part = |(shard, need): (ShardId, Needs)| {
            let what = What::Items(need.items, with_values);
            Part {
                shard,
                locks: need.locks,
                fetch: Box::new(Ask { what, guard: need.guard, grows }),
            }
        };
        needs.into_iter().map(part).collect()
    }

    /// Sends a message of a transaction. `at_once`: one for a shard of this core is taken in before this returns.
    fn send_transaction(&mut self, message: TransactionMessage, at_once: bool) {
        let core = match message.address() {
            Address::Shard(shard) => self.router.place(shard).core,
            Address::Coordinator(core) => core as u16,
        };
        if core != self.id {
            self.answers.outboxes[usize::from(core)].transaction(message);
        } else if at_once {
            self.take_transaction(message);
        } else {
            self.transactions.push_back(message);
        }
    }

    /// Takes a message of a transaction.
    pub(super) fn take_transaction(&mut self, message: TransactionMessage) {
        match message {
            TransactionMessage::Shard(shard, message) => {
                // Reads that came before a lock are not to see what it guards.
                self.run_stage();
                let local = usize::from(self.router.place(shard).local);
                let answer = self.shards[local].take_transaction(message, &mut self.stats);
                if let Some(answer) = answer {
                    self.send_transaction(answer, false);
                }
            }
            TransactionMessage::Coordinator(_, message) => {
                self.coordinator.handle(message, &mut self.coordinated);
            }
        }
    }

    /// Is there anything left to do for transactions?
    pub(super) fn has_transaction_work(&self) -> bool {
        !self.transactions.is_empty()
            || !self.coordinated.messages.is_empty()
            || !self.coordinated.events.is_empty()
            || self.shards.iter().any(|shard| !shard.wanted.is_empty())
    }

    /// Does what transactions want of this core.
    pub(super) fn serve_transactions(&mut self) {
        let mut messages = Vec::new();
        let mut refused = Vec::new();
        while self.has_transaction_work() {
            while let Some(message) = self.transactions.pop_front() {
                self.take_transaction(message);
            }
            for shard in &mut self.shards {
                shard.serve_transactions(&mut messages, &mut self.stats, &mut refused);
            }
            for origin in refused.drain(..) {
                self.answer_error(origin, super::intake::OUT_OF_MEMORY);
            }
            let out = std::mem::take(&mut self.coordinated);
            for message in messages.drain(..).chain(out.messages) {
                self.send_transaction(message, false);
            }
            for event in out.events {
                match event {
                    Event::Run { id, values } => self.run_work(id, values),
                    Event::Finished { payload, outcome } => self.finish_work(payload, outcome),
                }
            }
        }
    }

    /// Everything is locked and read.
    fn run_work(&mut self, id: TransactionId, values: Vec<(ShardId, Found)>) {
        let clock = Instant::now();
        let seed = self.chance.bits();
        let Some(work) = self.coordinator.payload(id) else { return };
        let (target, protocol, command) = (work.target, work.protocol, work.command);
        let job = std::mem::replace(&mut work.job, Job::Run);
        let mut reply = Vec::new();
        let mut changes = Vec::new();
        let none = OwnedArguments::default();
        match job {
            Job::Merge { rule, parts } => {
                let parts: Vec<ReplyPart> = values
                    .into_iter()
                    .zip(parts)
                    .map(|((_, found), (_, keys))| ReplyPart { keys, reply: found.into_reply() })
                    .collect();
                merge_shards(rule, &parts, &none, seed, &mut Reply::new(&mut reply, protocol));
            }
            Job::Effects { effects, rule } => {
                let parts = values
                    .into_iter()
                    .map(|(_, found)| ReplyPart { keys: Vec::new(), reply: found.into_reply() });
                let parts: Vec<ReplyPart> = parts.collect();
                merge_shards(rule, &parts, &none, seed, &mut Reply::new(&mut reply, protocol));
                changes = effects;
            }
            Job::Overlay { steps, is_exec } => {
                for item in values.into_iter().flat_map(|(_, found)| found.into_items()) {
                    self.overlay.load(item, self.turn.now_ms);
                }
                if is_exec {
                    Reply::new(&mut reply, protocol).array(steps.len());
                }
                for (nth, step) in steps.iter().enumerate() {
                    let seed = super::shard::seed_of(seed, nth);
                    self.run_step(step, target, protocol, seed, is_exec, &mut reply);
                }
                changes = self.drain_overlay();
            }
            Job::Run => unreachable!("a transaction is run once"),
        }
        if let Some(command) = command {
            self.stats.count(command, 1, clock);
        }
        if let Some(work) = self.coordinator.payload(id) {
            work.reply = reply;
        }
        self.coordinator.ran(id, changes, &mut self.coordinated);
    }

    /// Runs one command on the overlay, or in the session.
    fn run_step(
        &mut self,
        step: &Step,
        target: Target,
        protocol: Protocol,
        seed: u64,
        is_exec: bool,
        reply: &mut Vec<u8>,
    ) {
        let command = step.command;
        let arguments = step.arguments.borrow();
        let start = reply.len();
        let outcome = match command.run {
            Run::Read(_) | Run::Write(_) => {
                let first = arguments.get(command.keys.first).filter(|_| command.keys.first > 0);
                let hash = first.map_or(KeyHash::default(), |key| self.router.hash(key));
                let mut edit = self.overlay.edit(step.database, self.turn.now_ms);
                let mut out = Reply::new(reply, protocol);
                super::shard::run_operation(&mut edit, command, hash, arguments, seed, &mut out)
            }
            _ => {
                let Target::Connection { index, .. } = target else {
                    unreachable!("only a connection has a session");
                };
                self.run_here(index, target, command, arguments, reply).map(|_| ())
            }
        };
        let mut out = Reply::new(reply, protocol);
        match outcome {
            Err(refusal) if is_exec => {
                out.truncate(start);
                out.error(&refusal.to_string());
            }
            outcome => self.stats.finish(outcome, command, start, &mut out),
        }
    }

    /// What the commands have changed, for each shard.
    fn drain_overlay(&mut self) -> Vec<(ShardId, Vec<u8>)> {
        let mut batches: BTreeMap<ShardId, BatchBuilder> = BTreeMap::new();
        let router = &self.router;
        self.overlay.drain(self.turn.now_ms, |database, key, arguments| {
            let batch = batches.entry(router.shard(key.hash())).or_default();
            batch.push(INSTALL, database, key.hash(), arguments);
        });
        batches.into_iter().map(|(shard, mut batch)| (shard, batch.encode(0, 0))).collect()
    }

    /// Answers a command over several shards.
    fn finish_work(&mut self, work: Work, outcome: Outcome) {
        let (target, protocol) = (work.target, work.protocol);
        self.unwatch(work.watched);
        let stats = &mut self.stats;
        self.answers.write_here(target, |out| match outcome {
            Outcome::Committed => out.extend_from_slice(&work.reply),
            // A watched key had changed.
            Outcome::Aborted(reason) if reason.is_empty() => {
                Reply::new(out, protocol).null_array();
            }
            Outcome::Aborted(reason) => {
                let start = out.len();
                stats.refuse(&reason, start, &mut Reply::new(out, protocol));
            }
            Outcome::Unknown => {
                let start = out.len();
                stats.refuse(UNKNOWN, start, &mut Reply::new(out, protocol));
            }
        });
        self.release_hold(target);
    }
}

/// A batch of one operation.
fn one_operation(
    command: &Command,
    database: DatabaseIndex,
    first_key: KeyHash,
    arguments: &OwnedArguments,
) -> Vec<u8> {
    let mut batch = BatchBuilder::default();
    batch.push(command.number, database, first_key, arguments.borrow());
    batch.encode(0, 0)
}
