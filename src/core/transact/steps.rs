//! The commands of a transaction over several shards, run one after the other while everything is
//! locked.
//!
//! Most run at once, on the overlay. Some must wait, with the locks held: what asks all cores
//! (CONFIG SET, CLIENT LIST ...), and what concerns every key (`everywhere.rs`). What stands behind
//! the last command that reads or writes keys runs when the transaction is committed, so that INFO
//! sees what was written before it.

use crate::acl::user::User;
use crate::commands::{Answer, Command, Run, Spread};
use crate::core::Core;
use crate::core::client::answers::{Origin, Target};
use crate::core::commands::table;
use crate::core::gather::{GatherState, Merge, Part};
use crate::core::push::TopicKind;
use crate::core::shard::Request;
use crate::core::transact::coalesce::Effects;
use crate::core::transact::everywhere::{Sights, needs_every_key};
use crate::core::transact::scripts::Retry;
use crate::core::transact::transaction::SETTLE;
use crate::limits::REQUEST_BYTES_MAX;
use crate::resp::reply::{Protocol, Reply};
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use ringraft_shards::batch::BatchBuilder;
use ringraft_shards::ids::{DatabaseIndex, ShardId};
use ringraft_shards::keyspace::{KeyEvent, KeyHash};
use ringraft_shards::transaction::{INSTALL, Overlay, TransactionId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A command of a transaction.
pub struct Step {
    /// Its row.
    pub command: &'static Command,
    /// The database it runs in.
    pub database: DatabaseIndex,
    /// Its arguments.
    pub arguments: OwnedArguments,
    /// Whose rights it has if it is a script, unless they are all.
    pub user: Option<Arc<User>>,
}

impl Step {
    /// Does it read or write keys?
    pub fn is_of_keys(&self) -> bool {
        matches!(self.command.run, Run::Read(_) | Run::Write(_) | Run::Block(_) | Run::Script(_))
    }
}

/// Commands that run one after the other, and how far they have come.
pub struct Steps {
    list: Vec<Step>,
    /// The order in which they run, if it is not that in which they stand: what sends messages
    /// runs after the commit.
    order: Option<Vec<usize>>,
    /// How many have run.
    next: usize,
    /// When so many have run, the others wait until what was written is committed.
    locked_end: usize,
    /// Where the replies of those that have run end, if they run in another order.
    ends: Vec<usize>,
    /// Whom the reply is for.
    pub(in crate::core) target: Target,
    protocol: Protocol,
    manner: Manner,
    /// Are they waiting until everything that was written is applied?
    settles: bool,
    /// The locks, while they are held.
    pub(in crate::core) lock: Option<TransactionId>,
    seed: u64,
    /// Where commands that read or write keys run.
    pub(in crate::core) overlay: Option<Box<Overlay>>,
    /// What is left of the shards' databases.
    pub(in crate::core) sights: Sights,
    effects: BTreeMap<ShardId, BatchBuilder>,
    fits: bool,
    /// The reply, as far as it goes.
    pub(in crate::core) replies: Vec<u8>,
    /// Bytes of it before the reply of the first.
    head_bytes: usize,
    /// What clients hear of its changes once they are committed.
    pub(in crate::core) events: Vec<KeyEvent>,
    /// Shards that have locks for it.
    pub(in crate::core) shards: Vec<ShardId>,
    /// What scripts among them need.
    pub(in crate::core) retry: Retry,
    /// Messages to send once it is committed.
    pub(in crate::core) published: Vec<(TopicKind, Vec<u8>, Vec<u8>)>,
    /// Why nothing of it is to be done.
    pub(in crate::core) failure: Option<Vec<u8>>,
}

/// Whose commands they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// One command of a client.
    Alone,
    /// EXEC's: each has a reply of its own in an array.
    Exec,
}

/// How far a step has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Its reply is written.
    Done,
    /// Its reply comes from elsewhere.
    Waits,
    /// It lacks something: all steps must run again.
    Again,
}

impl Steps {
    /// None has run. `target`: whom the reply is for.
    pub fn new(list: Vec<Step>, target: Target, protocol: Protocol, manner: Manner) -> Box<Steps> {
        let behind = list.iter().rposition(Step::is_of_keys).map_or(0, |last| last + 1);
        let is_late = |i: &usize| list[*i].command.flags.sends;
        let locked_end = behind - (0..behind).filter(is_late).count();
        let order = (locked_end < behind).then(|| {
            let (late, early): (Vec<usize>, Vec<usize>) = (0..behind).partition(is_late);
            early.into_iter().chain(late).chain(behind..list.len()).collect()
        });
        let mut replies = Vec::new();
        if manner == Manner::Exec {
            Reply::new(&mut replies, protocol).array(list.len());
        }
        let head_bytes = replies.len();
        Box::new(Steps {
            list,
            order,
            next: 0,
            locked_end,
            ends: Vec::new(),
            target,
            protocol,
            manner,
            settles: false,
            lock: None,
            seed: 0,
            overlay: None,
            sights: Sights::default(),
            effects: BTreeMap::new(),
            fits: true,
            replies,
            head_bytes,
            events: Vec::new(),
            shards: Vec::new(),
            retry: Retry::default(),
            published: Vec::new(),
            failure: None,
        })
    }

    /// The one that runs.
    pub(in crate::core) fn current(&self) -> &Step {
        &self.list[self.place()]
    }

    /// They run on this overlay.
    pub(in crate::core) fn begin_on(&mut self, overlay: Box<Overlay>, seed: u64) {
        self.overlay = Some(overlay);
        self.seed = seed;
    }

    /// As [`Steps::current`].
    pub(in crate::core) fn current_mut(&mut self) -> &mut Step {
        let place = self.place();
        &mut self.list[place]
    }

    /// All of them, as they stand.
    pub(in crate::core) fn list(&self) -> &[Step] {
        &self.list
    }

    /// How their replies are written.
    pub(in crate::core) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Are they those of EXEC?
    pub(in crate::core) fn is_exec(&self) -> bool {
        self.manner == Manner::Exec
    }

    /// The one that runs has done something that must not be done again: its reply is kept, should
    /// a script run again.
    fn keep_reply(&mut self, start: usize) {
        if self.list.iter().any(Step::is_script) {
            self.retry.replies.insert(self.place(), self.replies[start..].to_vec());
        }
    }

    /// None has run.
    pub(in crate::core) fn rewind(&mut self) {
        self.sights = Sights::default();
        self.effects.clear();
        self.fits = true;
        self.next = 0;
        self.ends.clear();
        self.replies.truncate(self.head_bytes);
        self.published.clear();
    }

    /// Where the one that runs stands.
    pub(in crate::core) fn place(&self) -> usize {
        self.order.as_ref().map_or(self.next, |order| order[self.next])
    }

    /// The reply of the one that ran is written.
    pub(in crate::core) fn ran(&mut self) {
        if self.order.is_some() {
            self.ends.push(self.replies.len());
        }
        self.next += 1;
    }

    /// The whole reply, when all have run.
    fn take_reply(&mut self) -> Vec<u8> {
        let mut replies = std::mem::take(&mut self.replies);
        let Some(order) = &self.order else { return replies };
        let ran = replies.split_off(self.head_bytes);
        let own = |nth: usize| {
            let start = nth.checked_sub(1).map_or(self.head_bytes, |before| self.ends[before]);
            &ran[start - self.head_bytes..self.ends[nth] - self.head_bytes]
        };
        let mut places: Vec<usize> = (0..order.len()).collect();
        places.sort_unstable_by_key(|nth| order[*nth]);
        places.into_iter().for_each(|nth| replies.extend_from_slice(own(nth)));
        replies
    }

    /// Random bits of the one that runs.
    pub(in crate::core) fn current_seed(&self) -> u64 {
        crate::core::shard::seed_of(self.seed, self.next)
    }

    /// Is a command left, and is it one that runs while everything is locked?
    fn is_locked_left(&self) -> bool {
        self.next < self.locked_end
    }

    /// Is a command left?
    pub(in crate::core) fn is_left(&self) -> bool {
        self.next < self.list.len()
    }

    /// Its effects follow those that there are.
    pub(in crate::core) fn push_effect(
        &mut self,
        shard: ShardId,
        (command, database, key): (u16, DatabaseIndex, KeyHash),
        arguments: Arguments<'_>,
    ) {
        let batch = self.effects.entry(shard).or_default();
        let bytes = arguments.iter_from(0).map(<[u8]>::len).sum::<usize>();
        self.fits &= batch.encoded_bytes() + bytes <= REQUEST_BYTES_MAX;
        if self.fits {
            batch.push(command, database, key, arguments);
        }
    }
}

impl Core {
    /// An overlay that is empty.
    pub(in crate::core) fn take_overlay(&mut self) -> Box<Overlay> {
        self.spares.overlay.take().unwrap_or_else(|| {
            let mut overlay = Box::new(Overlay::new(self.router.hasher()));
            overlay.set_limits(self.settings.limits);
            overlay.listen(self.listening());
            overlay
        })
    }

    /// Keeps an overlay that is empty again for the next one.
    pub(in crate::core) fn give_overlay(&mut self, overlay: Box<Overlay>) {
        self.spares.overlay = Some(overlay);
    }

    /// Runs the commands whose keys are locked and read into the overlay.
    pub(in crate::core) fn run_locked(
        &mut self,
        id: TransactionId,
        mut steps: Box<Steps>,
        mut overlay: Box<Overlay>,
    ) {
        overlay.begin();
        steps.overlay = Some(overlay);
        steps.lock = Some(id);
        steps.seed = self.chance.bits();
        self.go_on_locked(id, steps);
    }

    pub(in crate::core) fn go_on_locked(&mut self, id: TransactionId, mut steps: Box<Steps>) {
        while steps.is_locked_left() && steps.failure.is_none() {
            match self.run_step(&mut steps) {
                Progress::Done => steps.ran(),
                Progress::Waits => return self.suspend(steps),
                Progress::Again => return self.run_again(id, steps),
            }
        }
        let mut overlay = steps.overlay.take().expect("it is there while steps are locked");
        steps.events = overlay.take_events();
        let (router, now_ms) = (&self.router, self.turn.now_ms);
        overlay.drain(now_ms, |database, key, arguments| {
            let shard = router.shard(key.hash());
            steps.push_effect(shard, (INSTALL, database, key.hash()), arguments);
        });
        if steps.sights.are_whole() {
            self.spares.overlay = Some(overlay);
        }
        let changes = std::mem::take(&mut steps.effects).into_iter().collect();
        steps.lock = None;
        let is_well = steps.fits && steps.failure.is_none();
        let changes: Option<Effects> = is_well.then_some(changes);
        self.locked_ran(id, steps, changes);
    }

    /// Runs what was left for the time after the commit, as soon as the shards have applied what
    /// was written.
    pub(in crate::core) fn settle_then_rest(&mut self, mut steps: Box<Steps>) {
        let command = table::internal(SETTLE);
        let (protocol, shards) = (steps.protocol, std::mem::take(&mut steps.shards));
        let index = self.step_gather(protocol, shards.len());
        steps.settles = true;
        self.suspend(steps);
        let owned: OwnedArguments = [SETTLE.as_bytes()].into_iter().collect();
        for (part, shard) in shards.into_iter().enumerate() {
            let target = Target::Gather { index, part: part as u32 };
            let origin = Origin::asks(self.id, target, protocol);
            let (database, first_key) = (DatabaseIndex(0), KeyHash::default());
            let arguments = owned.borrow();
            let request = Request { command, origin, database, first_key, arguments };
            self.forward(shard, &request);
        }
    }

    /// Runs what was left for the time after the commit, and answers.
    pub(in crate::core) fn run_rest(&mut self, mut steps: Box<Steps>) {
        while steps.is_left() {
            if self.run_step(&mut steps) == Progress::Waits {
                return self.suspend(steps);
            }
            steps.ran();
        }
        let reply = steps.take_reply();
        self.answers.write_here(steps.target, |out| out.extend_from_slice(&reply));
        self.release_hold(steps.target);
    }

    /// Keeps steps until the reply of the one that waits has come.
    pub(in crate::core) fn suspend(&mut self, steps: Box<Steps>) {
        self.scripts.suspended.insert(self.scripts.last_suspension, steps);
    }

    /// A place for a reply that a step waits for, in so many parts.
    pub(in crate::core) fn step_gather(&mut self, protocol: Protocol, parts: usize) -> u32 {
        self.scripts.last_suspension += 1;
        self.answers.gathers.insert(GatherState {
            target: Target::Nobody,
            protocol,
            merge: Merge::Step(self.scripts.last_suspension),
            parts: (0..parts).map(|_| Part::default()).collect(),
            missing: parts,
            arguments: OwnedArguments::default(),
            scanned_slot: None,
        })
    }

    /// The reply that a step waited for has come.
    pub(in crate::core) fn resume_steps(&mut self, suspension: u64, parts: Vec<Part>) {
        let mut steps = self.scripts.suspended.remove(&suspension).expect("each is resumed once");
        if steps.lock.is_some_and(|id| self.transactions.coordinator.payload(id).is_none()) {
            // It took too long: the locks are given up, and the client has been told.
            return;
        }
        if let Some(id) = steps.lock.filter(|_| steps.retry.fetches) {
            return self.fetched_again(id, steps, &parts);
        }
        if std::mem::take(&mut steps.settles) {
            return self.run_rest(steps);
        }
        if let Some(id) = steps.lock.filter(|_| steps.current().refers().is_some()) {
            // It is asked again what it needs.
            self.load_referred(&mut steps, &parts);
            return self.go_on_locked(id, steps);
        }
        if needs_every_key(steps.current().command) {
            self.conclude_everywhere(&mut steps, parts);
            if Self::is_asking(&steps) {
                return self.answered(steps);
            }
        } else {
            let start = steps.replies.len();
            parts.iter().for_each(|part| steps.replies.extend_from_slice(&part.reply));
            steps.keep_reply(start);
        }
        steps.ran();
        match steps.lock {
            Some(id) => self.go_on_locked(id, steps),
            None => self.run_rest(steps),
        }
    }

    /// How the reply of the step that runs is written: HELLO may be one of the steps of EXEC.
    pub(in crate::core) fn protocol_of(&self, steps: &Steps) -> Protocol {
        match steps.target {
            Target::Connection { index, .. } if steps.manner == Manner::Exec => {
                self.answers.connections.at(index).session.protocol
            }
            _ => steps.protocol,
        }
    }

    fn run_step(&mut self, steps: &mut Steps) -> Progress {
        let command = steps.current().command;
        if matches!(command.spread, Spread::Everywhere(_)) && steps.current().is_of_keys() {
            return self.run_everywhere(steps);
        }
        if let Some(refers) = steps.current().refers()
            && self.ask_referred(steps, refers) == Progress::Waits
        {
            return Progress::Waits;
        }
        match command.run {
            Run::Script(_) => return self.run_script(steps),
            Run::Read(_) | Run::Write(_) | Run::Block(_) => self.run_on_overlay(steps),
            _ => return self.run_in_session(steps),
        }
        Progress::Done
    }

    fn run_on_overlay(&mut self, steps: &mut Steps) {
        let (seed, protocol) = (steps.current_seed(), self.protocol_of(steps));
        let Step { command, database, arguments, .. } = &steps.list[steps.place()];
        let (command, database, arguments) = (*command, *database, arguments.borrow());
        let start = steps.replies.len();
        let hash = command.first_key(arguments, self.router.hasher());
        let overlay = steps.overlay.as_mut().expect("it is there while steps are locked");
        let mut edit = overlay.edit(database, self.turn.now_ms);
        let mut reply = Reply::new(&mut steps.replies, protocol);
        let bytes_max = self.settings.proto_max_bulk_len as usize;
        let run = crate::core::shard::run_operation;
        let outcome = run(&mut edit, command, hash, arguments, seed, bytes_max, &mut reply);
        match outcome {
            Err(refusal) if steps.manner == Manner::Exec => {
                reply.truncate(start);
                reply.error_bytes(&refusal.line());
            }
            outcome => self.stats.finish(outcome, command, start, &mut reply),
        }
    }

    fn run_in_session(&mut self, steps: &mut Steps) -> Progress {
        let Target::Connection { index, .. } = steps.target else {
            unreachable!("only a connection has a session");
        };
        let place = steps.place();
        if let Some(reply) = steps.retry.replies.get(&place) {
            steps.replies.extend_from_slice(reply);
            return Progress::Done;
        }
        let start = steps.replies.len();
        let protocol = self.answers.connections.at(index).session.protocol;
        let Step { command, arguments, .. } = &steps.list[steps.place()];
        let (command, arguments) = (*command, arguments.borrow());
        let gather = command.flags.asks.then(|| self.step_gather(protocol, 1));
        let target = gather.map_or(steps.target, |index| Target::Gather { index, part: 0 });
        let mut own = Vec::new();
        let outcome = self.run_queued(index, target, command, arguments, &mut own);
        if outcome == Ok(Answer::Later) {
            return Progress::Waits;
        }
        if let Some(gather) = gather {
            self.answers.gathers.remove(gather);
        }
        match outcome {
            Ok(_) => steps.replies.extend_from_slice(&own),
            Err(refusal) => {
                Reply::new(&mut steps.replies, protocol).error_bytes(&refusal.line());
            }
        }
        steps.keep_reply(start);
        Progress::Done
    }
}
