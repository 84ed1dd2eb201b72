//! Commands over several shards, whole or not at all: what they lock, what they read, where they
//! run.
//!
//! Four kinds, by the row alone; the first two are joined with others of their turn
//! (`coalesce.rs`):
//!
//! | kind | rows | read | run | effects |
//! |---|---|---|---|---|
//! | parts of replies | split reads: MGET, EXISTS, TOUCH | each shard its part | | none |
//! | parts of writes | split writes that answer OK: MSET | nothing | | each shard its part |
//! | every shard | FLUSHALL, SWAPDB, PDEL ... | nothing, or a count | | the command itself |
//! | the rest | RENAME, COPY, BITOP, MSETNX, DEL, EXEC ... | the items | here, on an overlay | the items that changed |
//!
//! The ordinary command functions run and never learn that they were spread. The connection's core
//! coordinates; the protocol is the engine's (`ringraft_shards::transaction`), explained in
//! `docs/transactions.md`.

use crate::commands::events::FLUSHED;
use crate::commands::{Command, Gather, Spread, stream_read};
use crate::core::Core;
use crate::core::client::answers::Target;
use crate::core::client::connection::Hold;
use crate::core::client::intake::{EXEC_OUT_OF_MEMORY, OUT_OF_MEMORY};
use crate::core::client::session::Watched;
use crate::core::commands::table;
use crate::core::gather::integer_of;
use crate::core::migrate::Moving;
use crate::core::push::TopicKind;
use crate::core::push::writer_of;
use crate::core::shard::ShardTurn;
use crate::core::transact::coalesce::{Effects, Seams};
use crate::core::transact::everywhere::needs_every_key;
use crate::core::transact::participate::{Ask, Copies, Found, Reads, TransactionMessage, What};
use crate::core::transact::scripts::Retry;
use crate::core::transact::steps::{Manner, Step, Steps};
use crate::resp::reply::{Protocol, Reply};
use ringraft_shards::arguments::OwnedArguments;
use ringraft_shards::batch::BatchBuilder;
use ringraft_shards::ids::{DatabaseIndex, ShardId};
use ringraft_shards::keyspace::{KeyEvent, KeyHash};
use ringraft_shards::limits::{DATABASE_COUNT, REMEMBERED_REPLY_BYTES_MAX};
use ringraft_shards::serve;
use ringraft_shards::stamp::{Answer, Stamped};
use ringraft_shards::transaction::{
    self, Address, CoordinatorOutput, Event, LockKey, LockSet, Outcome, Part, TransactionId,
};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Instant;

/// A core's transactions.
pub type Coordinator = transaction::Coordinator<Box<Ask>, Found, Work>;

/// What comes out of them.
pub type Coordinated = CoordinatorOutput<Box<Ask>, Found, Work>;

/// A core's part in transactions over several shards.
pub struct Transactions {
    /// Those that its connections began.
    pub(in crate::core) coordinator: Coordinator,
    /// What they want done.
    pub(in crate::core) coordinated: Coordinated,
    /// Messages of transactions for this core.
    pub(in crate::core) messages: VecDeque<TransactionMessage>,
}

impl Transactions {
    /// Of a core; `seed`: random bits.
    pub fn new(core: u16, seed: u64) -> Transactions {
        Transactions {
            coordinator: Coordinator::new(core.into(), seed),
            coordinated: Coordinated::default(),
            messages: VecDeque::new(),
        }
    }
}

/// Commands over several shards that are under way as one transaction.
pub struct Work {
    /// Nearly always one, or many that were joined.
    members: Vec<Member>,
    job: Job,
    /// Keys under WATCH that it ends.
    watched: Vec<Watched>,
    /// The replies of all members one after the other, once they are known.
    replies: Vec<u8>,
    /// Commands that run once it is committed.
    rest: Option<Box<Steps>>,
    /// What clients hear of once it is committed.
    events: Vec<KeyEvent>,
    /// Messages of scripts, to be sent once it is committed.
    published: Vec<(TopicKind, Vec<u8>, Vec<u8>)>,
    /// When its commands began to run.
    began: Option<Instant>,
}

/// A command of them.
pub struct Member {
    /// Who is answered.
    pub target: Target,
    /// How the reply is written.
    pub protocol: Protocol,
    /// The row that statistics count; `None` for EXEC, whose commands are counted each.
    pub command: Option<&'static Command>,
    /// Where its reply ends among those of all.
    pub end: usize,
}

impl Work {
    fn new(members: Vec<Member>, job: Job, watched: Vec<Watched>) -> Work {
        Work {
            members,
            job,
            watched,
            replies: Vec::new(),
            rest: None,
            events: Vec::new(),
            published: Vec::new(),
            began: None,
        }
    }
}

impl Member {
    /// One that is not answered yet.
    pub fn new(target: Target, protocol: Protocol, command: Option<&'static Command>) -> Member {
        Member { target, protocol, command, end: 0 }
    }

    fn is_same_command(&self, other: &Member) -> bool {
        self.command.map(|command| command.number) == other.command.map(|command| command.number)
    }
}

/// What is to be done once everything is locked.
enum Job {
    /// The shards' replies are put together.
    Sew(Seams),
    /// These effects go to their shards; every reply is OK, or the sum of what the shards have
    /// counted.
    Effects { effects: Effects, rule: Gather },
    /// The commands run on the overlay.
    Overlay(Box<Steps>),
    /// The keys move to another server (MIGRATE).
    Carry(Box<Moving>),
    /// It was done.
    Run,
}

/// What a client is told whose transaction may have been done or not.
pub(in crate::core) const UNKNOWN: &str =
    "ERR the outcome is not known: all of it may have been done, or nothing";

/// What a client is told whose transaction changes more than an entry holds. Nothing of it is done.
pub(in crate::core) const TOO_LARGE: &str = "ERR the transaction is too large";

/// What one shard must lock and read, in the making.
#[derive(Default)]
struct Needs {
    locks: LockSet,
    items: Vec<(DatabaseIndex, Vec<u8>)>,
    guard: Vec<Watched>,
}

impl Core {
    /// Starts a command that concerns several shards and is not joined with others.
    pub(in crate::core) fn spread(
        &mut self,
        target: Target,
        protocol: Protocol,
        database: DatabaseIndex,
        command: &'static Command,
        arguments: OwnedArguments,
    ) {
        let (job, parts) = match command.spread {
            Spread::Everywhere(rule) => {
                let effects = one_operation(command, database, &arguments);
                let part = |shard: u16| {
                    let what = match rule {
                        Gather::Sum => {
                            let command = table::internal("count-matching");
                            let batch = one_operation(command, database, &arguments);
                            What::Replies(Reads { batch, manners: vec![(protocol, true)] })
                        }
                        _ => What::Nothing,
                    };
                    let (shard, locks) = (ShardId(shard), LockSet::whole(true));
                    Part { shard, locks, fetch: Box::new(Ask { what, ..Ask::default() }) }
                };
                let shards = 0..self.router.shard_count() as u16;
                let parts = shards.clone().map(part).collect();
                let effects = shards.map(|shard| (ShardId(shard), effects.clone())).collect();
                (Job::Effects { effects, rule }, parts)
            }
            _ => {
                let steps = vec![Step { command, database, arguments, user: None }];
                let parts = self.needs_of(&steps, &[], &Retry::default());
                (Job::Overlay(Steps::new(steps, target, protocol, Manner::Alone)), parts)
            }
        };
        let members = vec![Member::new(target, protocol, Some(command))];
        self.begin_work(Work::new(members, job, Vec::new()), parts);
    }

    /// Begins what was joined: what follows comes behind it.
    #[cold]
    pub(in crate::core) fn begin_joined(&mut self) {
        let (reads, writes) = self.coalesced.take();
        if !writes.is_empty() {
            let (members, parts, effects) = writes.into_writes();
            let job = Job::Effects { effects, rule: Gather::AllOk };
            self.begin_work(Work::new(members, job, Vec::new()), parts);
        }
        if !reads.is_empty() {
            let (members, parts, seams) = reads.into_reads();
            self.begin_work(Work::new(members, Job::Sew(seams), Vec::new()), parts);
        }
    }

    /// Starts EXEC's commands, one or more of which concern several shards or must wait. The
    /// connection goes on when it is answered.
    pub(in crate::core) fn spread_exec(
        &mut self,
        index: u32,
        target: Target,
        protocol: Protocol,
        steps: Vec<Step>,
        watched: Vec<Watched>,
    ) {
        let parts = self.needs_of(&steps, &watched, &Retry::default());
        self.answers.connections.at_mut(index).hold = Hold::Answer;
        let mut steps = Steps::new(steps, target, protocol, Manner::Exec);
        steps.retry.tracks = self.remembers_reads(index);
        steps.shards = parts.iter().map(|part| part.shard).collect();
        if parts.is_empty() {
            return self.run_rest(steps);
        }
        let members = vec![Member::new(target, protocol, None)];
        self.begin_work(Work::new(members, Job::Overlay(steps), watched), parts);
    }

    /// Starts a script, the only step.
    pub(in crate::core) fn begin_script(
        &mut self,
        mut steps: Box<Steps>,
        command: Option<&'static Command>,
    ) {
        let parts = self.needs_of(steps.list(), &[], &steps.retry);
        steps.shards = parts.iter().map(|part| part.shard).collect();
        let members = vec![Member::new(steps.target, steps.protocol(), command)];
        self.begin_work(Work::new(members, Job::Overlay(steps), Vec::new()), parts);
    }

    /// Gives the locks of steps back, of which nothing has happened, and starts them again with
    /// what they turned out to need.
    pub(in crate::core) fn begin_again(&mut self, id: TransactionId, mut steps: Box<Steps>) {
        let Some(mut work) =
            self.transactions.coordinator.give_up(id, &mut self.transactions.coordinated)
        else {
            return;
        };
        let parts = self.needs_of(steps.list(), &work.watched, &steps.retry);
        steps.shards = parts.iter().map(|part| part.shard).collect();
        steps.lock = None;
        work.job = Job::Overlay(steps);
        self.begin_work(work, parts);
    }

    fn begin_work(&mut self, work: Work, parts: Vec<Part<Box<Ask>>>) {
        let now_ns = self.turn.now_ms as u64 * 1_000_000;
        if matches!(work.job, Job::Overlay(_)) {
            self.coalesced.companions.note_all(parts.iter().map(|part| part.shard));
        }
        let mut out = std::mem::take(&mut self.transactions.coordinated);
        self.transactions.coordinator.begin(now_ns, parts, work, &mut out);
        // At once: what the connection asks for next comes behind the locks.
        for message in out.messages.drain(..) {
            self.send_transaction(message, true);
        }
        self.transactions.coordinated = out;
    }

    /// What the shards must lock and read for commands that run on the overlay.
    pub(in crate::core) fn needs_of(
        &self,
        steps: &[Step],
        watched: &[Watched],
        retry: &Retry,
    ) -> Vec<Part<Box<Ask>>> {
        let mut needs: BTreeMap<ShardId, Needs> = BTreeMap::new();
        let mut seen = HashSet::new();
        let of_all = |step: &&Step| needs_every_key(step.command);
        if steps.iter().any(|step| of_all(&step)) {
            let exclusive = steps.iter().filter(of_all).any(|step| step.command.run.writes());
            for shard in 0..self.router.shard_count() as u16 {
                let locks = LockSet::whole(exclusive);
                needs.insert(ShardId(shard), Needs { locks, ..Needs::default() });
            }
        }
        if retry.whole {
            for shard in 0..self.router.shard_count() as u16 {
                needs.entry(ShardId(shard)).or_default().locks = LockSet::whole(true);
            }
        }
        if steps.iter().any(|step| step.refers().is_some()) {
            // Which keys these are is known only when it runs.
            for shard in 0..self.router.shard_count() as u16 {
                let locks = &mut needs.entry(ShardId(shard)).or_default().locks;
                locks.whole = Some(locks.whole.unwrap_or(false));
            }
        }
        // What SWAPDB exchanges is read wherever it may come from.
        let of_every_database =
            steps.iter().filter(of_all).any(|step| step.command.flags.crosses_databases);
        for step in steps.iter().filter(|step| step.is_of_keys()) {
            let (command, arguments) = (step.command, step.arguments.borrow());
            let exclusive = step.is_exclusive();
            for i in command.keys.positions(arguments) {
                let key = arguments.at(i);
                let hash = self.router.hash(key);
                let need = needs.entry(self.router.shard(hash)).or_default();
                need.locks.keys.push(LockKey::new(hash, exclusive));
                let databases = match command.flags.crosses_databases || of_every_database {
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
        let exclusive = steps.iter().any(Step::is_exclusive);
        for (database, key) in &retry.wanted {
            let hash = self.router.hash(key);
            let need = needs.entry(self.router.shard(hash)).or_default();
            need.locks.keys.push(LockKey::new(hash, exclusive));
            if seen.insert((*database, key.clone())) {
                need.items.push((*database, key.clone()));
            }
        }
        for watched in watched {
            let hash = self.router.hash(&watched.key);
            let need = needs.entry(watched.shard).or_default();
            need.locks.keys.push(LockKey::new(hash, false));
            need.guard.push(watched.clone());
        }
        if needs.is_empty()
            && let Some(step) = steps.iter().find(|step| step.is_script())
        {
            // It names no key: what it turns out to need is locked when it runs again. Its own name
            // stands for one.
            let hash = self.router.hash(step.arguments.borrow().at(1));
            let need = needs.entry(self.router.shard(hash)).or_default();
            need.locks.keys.push(LockKey::new(hash, false));
        }
        let grows = steps.iter().any(|step| step.command.flags.grows);
        let only_presence = steps.iter().all(|step| step.command.flags.keys_only);
        let tails = match steps {
            [one] => stream_read::tails(one.command, one.arguments.borrow()),
            _ => None,
        };
        let part = |(shard, need): (ShardId, Needs)| {
            let copies = match &tails {
                _ if only_presence => Copies::Presence,
                None => Copies::Whole,
                Some(tails) => {
                    let behind = need.items.iter().map(|(_, key)| tails[key.as_slice()]);
                    Copies::Behind(behind.collect())
                }
            };
            let what = What::Items(need.items, copies);
            Part {
                shard,
                locks: need.locks,
                fetch: Box::new(Ask { what, guard: need.guard, grows }),
            }
        };
        needs.into_iter().map(part).collect()
    }

    /// Sends a message of a transaction. `at_once`: one for a shard of this core is taken in before
    /// this returns.
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
            self.transactions.messages.push_back(message);
        }
    }

    /// Takes a message of a transaction.
    pub(in crate::core) fn take_transaction(&mut self, message: TransactionMessage) {
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
                self.transactions.coordinator.handle(message, &mut self.transactions.coordinated);
            }
        }
    }

    /// Is there anything left to do for transactions?
    pub(in crate::core) fn has_transaction_work(&self) -> bool {
        !self.transactions.messages.is_empty()
            || !self.transactions.coordinated.messages.is_empty()
            || !self.transactions.coordinated.events.is_empty()
            || self.shards.iter().any(|shard| !shard.wanted.is_empty())
    }

    /// Does what transactions want of this core.
    pub(in crate::core) fn serve_transactions(&mut self) {
        let mut messages = Vec::new();
        while self.has_transaction_work() {
            while let Some(message) = self.transactions.messages.pop_front() {
                self.take_transaction(message);
            }
            let mut turn = ShardTurn { answers: &mut self.answers, stats: &mut self.stats };
            for shard in &mut self.shards {
                serve::transact(shard, &mut messages, &mut turn);
            }
            let out = std::mem::take(&mut self.transactions.coordinated);
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
        let Some(work) = self.transactions.coordinator.payload(id) else { return };
        let mut members = std::mem::take(&mut work.members);
        let job = std::mem::replace(&mut work.job, Job::Run);
        let mut replies = Vec::new();
        let mut changes = Vec::new();
        match job {
            Job::Sew(seams) => {
                let found = values.into_iter().map(|(_, found)| found).collect();
                seams.sew(&mut members, found, &mut replies);
            }
            Job::Effects { effects, rule } => {
                let found = values.into_iter().map(|(_, found)| found.into_replies().0);
                let sum = found.filter_map(|reply| integer_of(&reply)).sum();
                for member in &mut members {
                    let mut reply = Reply::new(&mut replies, member.protocol);
                    match rule {
                        Gather::Sum => reply.integer(sum),
                        _ => reply.ok(),
                    }
                    member.end = replies.len();
                }
                changes = effects;
            }
            Job::Overlay(steps) => {
                work.members = members;
                work.began = Some(clock);
                let mut overlay = self.take_overlay();
                for item in values.into_iter().flat_map(|(_, found)| found.into_items()) {
                    overlay.load(item, self.turn.now_ms);
                }
                return self.run_locked(id, steps, overlay);
            }
            Job::Carry(moving) => {
                work.members = members;
                work.began = Some(clock);
                return self.carry(id, moving, values);
            }
            Job::Run => unreachable!("a transaction is run once"),
        }
        self.ran(id, members, replies, changes, clock);
    }

    /// Locks the keys of a MIGRATE.
    pub(in crate::core) fn begin_migration(
        &mut self,
        moving: Box<Moving>,
        (target, protocol): (Target, Protocol),
        parts: Vec<Part<Box<Ask>>>,
    ) {
        // It is counted when it has moved.
        let members = vec![Member::new(target, protocol, None)];
        self.begin_work(Work::new(members, Job::Carry(moving), Vec::new()), parts);
    }

    /// A MIGRATE is over: its reply, and what it deletes.
    pub(in crate::core) fn carried(
        &mut self,
        id: TransactionId,
        replies: Vec<u8>,
        changes: Effects,
    ) {
        // Else its locks were given up, and the client has been told.
        let Some(work) = self.transactions.coordinator.payload(id) else { return };
        let (mut members, clock) = (std::mem::take(&mut work.members), work.began);
        members.iter_mut().for_each(|member| member.end = replies.len());
        self.ran(id, members, replies, changes, clock.expect("it has begun"));
    }

    /// The commands that ran while everything was locked have left these effects; `None`: they are
    /// too large.
    pub(in crate::core) fn locked_ran(
        &mut self,
        id: TransactionId,
        steps: Box<Steps>,
        changes: Option<Effects>,
    ) {
        let work = self.transactions.coordinator.payload(id).expect("it holds its locks");
        let (mut members, clock) = (std::mem::take(&mut work.members), work.began);
        let (mut steps, mut replies) = (steps, Vec::new());
        work.published = std::mem::take(&mut steps.published);
        work.events = std::mem::take(&mut steps.events);
        // The shards tell of it.
        work.events.retain(|event| event.name != FLUSHED);
        let writer = writer_of(self.id, steps.target);
        work.events.iter_mut().for_each(|event| event.writer = writer);
        let [member] = members.as_mut_slice() else {
            unreachable!("only parts of reads and of writes are joined");
        };
        match &changes {
            None => {
                let mut reply = Reply::new(&mut replies, member.protocol);
                let failure = steps.failure.take().unwrap_or_else(|| TOO_LARGE.into());
                self.stats.refuse(failure, 0, &mut reply);
            }
            Some(_) if steps.is_left() => {}
            Some(_) => replies = std::mem::take(&mut steps.replies),
        }
        member.end = replies.len();
        if changes.is_some() && steps.is_left() {
            work.rest = Some(steps);
        }
        let clock = clock.expect("it has begun");
        self.ran(id, members, replies, changes.unwrap_or_default(), clock);
    }

    fn ran(
        &mut self,
        id: TransactionId,
        members: Vec<Member>,
        replies: Vec<u8>,
        mut changes: Effects,
        clock: Instant,
    ) {
        let mut clock = clock;
        self.stamp_effects(id, &members, &replies, &mut changes);
        for same in members.chunk_by(|a, b| a.is_same_command(b)) {
            if let Some(command) = same[0].command {
                clock = self.stats.count(command, same.len() as u64, clock);
            }
        }
        if let Some(work) = self.transactions.coordinator.payload(id) {
            (work.members, work.replies) = (members, replies);
        }
        let encode = |(shard, mut batch): (ShardId, BatchBuilder)| (shard, batch.encode(0, 0));
        let changes = changes.into_iter().map(encode).collect();
        self.transactions.coordinator.ran(id, changes, &mut self.transactions.coordinated);
    }

    /// Says in what a transaction does whose it is, and what they are answered, if other nodes have
    /// sent it on. One shard is told: it does its part if the others do.
    fn stamp_effects(
        &mut self,
        id: TransactionId,
        members: &[Member],
        replies: &[u8],
        changes: &mut Effects,
    ) {
        let Some((_, first)) = changes.first_mut() else { return };
        let is_whole =
            self.transactions.coordinator.payload(id).is_some_and(|work| work.rest.is_none());
        let mut start = 0;
        for member in members {
            let reply = &replies[start..member.end];
            start = member.end;
            let Some(stamp) = self.shared.lanes.stamp(self.stamp_of(member.target)) else {
                continue;
            };
            let answer = match is_whole && reply.len() <= REMEMBERED_REPLY_BYTES_MAX {
                true => Answer::Given(reply),
                false => Answer::None,
            };
            first.stamps_mut().push(&Stamped { stamp, answer });
        }
    }

    /// Answers commands over several shards.
    fn finish_work(&mut self, work: Work, outcome: Outcome) {
        self.unwatch(work.watched);
        if matches!(work.job, Job::Carry(_)) {
            self.migration_not_locked();
        }
        if outcome == Outcome::Committed {
            for (kind, channel, payload) in &work.published {
                self.publish(Target::Nobody, *kind, channel, payload);
            }
        }
        if !work.events.is_empty() && outcome == Outcome::Committed {
            self.publish_events(work.events);
        }
        if let (Some(rest), Outcome::Committed) = (work.rest, &outcome) {
            return self.settle_then_rest(rest);
        }
        let mut start = 0;
        for member in work.members {
            let (target, protocol) = (member.target, member.protocol);
            let is_exec = member.command.is_none();
            let goes_on = match &outcome {
                Outcome::Unknown => true,
                Outcome::Aborted(reason) => reason == transaction::NO_LEADER,
                Outcome::Committed => false,
            };
            if goes_on {
                start = member.end;
                self.release_hold(target);
                self.goes_on_elsewhere(target, outcome != Outcome::Unknown);
                continue;
            }
            let stats = &mut self.stats;
            self.answers.write_here(target, |out| match &outcome {
                Outcome::Committed => out.extend_from_slice(&work.replies[start..member.end]),
                // A watched key had changed.
                Outcome::Aborted(reason) if reason.is_empty() => {
                    Reply::new(out, protocol).null_array();
                }
                Outcome::Aborted(reason) => {
                    let start = out.len();
                    let reason = match reason == OUT_OF_MEMORY && is_exec {
                        true => EXEC_OUT_OF_MEMORY,
                        false => reason,
                    };
                    stats.refuse(reason, start, &mut Reply::new(out, protocol));
                }
                Outcome::Unknown => {
                    unreachable!("it goes on elsewhere, or its client is told there")
                }
            });
            start = member.end;
            self.release_hold(target);
        }
    }
}

/// A batch of one operation without a first key.
fn one_operation(
    command: &Command,
    database: DatabaseIndex,
    arguments: &OwnedArguments,
) -> BatchBuilder {
    let mut batch = BatchBuilder::default();
    batch.push(command.number, database, KeyHash::default(), arguments.borrow());
    batch
}
