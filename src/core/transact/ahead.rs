//! Scripts whose keys are all in one shard of this core: they run at once, ahead of the log
//! (decision 0023).
//!
//! Nothing is locked. The script runs within the turn, on copies of its keys as they will be when
//! everything gathered before is applied; what it changed is one record of the shard's log, and its
//! client is answered when that is applied. So the next script on the same key does not wait: it
//! reads what the first one has made of it. A key that another write is about to change, a key
//! elsewhere, a question about all keys, or too long a run lead back to the general way: nothing
//! was written yet.

use crate::commands::{Command, Keys, Run as RunKind};
use crate::core::Core;
use crate::core::client::answers::{Answers, Origin, Target};
use crate::core::gather::{GatherState, Merge, Part};
use crate::core::push::{TopicKind, writer_of};
use crate::core::shard::{LocalShard, Request};
use crate::core::transact::participate::{record_command, run_record};
use crate::core::transact::spread::TOO_LARGE;
use crate::core::transact::steps::Steps;
use crate::core::transact::transaction::SETTLE;
use crate::limits::{
    REQUEST_BYTES_MAX, SCRIPT_AHEAD_SEARCH_MAX, SCRIPT_AHEAD_TIME_MAX, SCRIPT_ATTEMPTS_MAX,
};
use crate::resp::reply::Reply;
use crate::script::call::Run;
use crate::script::interpreter::{Came, Job, RunEnded};
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use ringraft_shards::batch::BatchBuilder;
use ringraft_shards::ids::DatabaseIndex;
use ringraft_shards::keyspace::{Key, KeyEvent, KeyHash};
use ringraft_shards::transaction::{
    Applied, HashedMap, INSTALL, LockSet, Overlay, Record, TransactionId,
};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::time::Instant;

/// Messages that a script has published.
pub(in crate::core) type Published = Vec<(TopicKind, Vec<u8>, Vec<u8>)>;

/// A key, by its database and hash.
type Name = (DatabaseIndex, u64);

/// What scripts have done at a shard that its log does not have yet.
#[derive(Default)]
pub(in crate::core) struct Ahead {
    /// How many have ended of those before the first of `outcomes`.
    ended: u64,
    /// By their numbers, which go on from there; `None` for one that has ended before one of them.
    outcomes: VecDeque<Option<Outcome>>,
    /// Those that are there.
    count: usize,
    items: HashedMap<Name, Coming>,
    /// Messages of those that are done.
    published: Published,
}

/// A key that scripts have changed.
struct Coming {
    /// Records under way that change it.
    records: u32,
    /// What the last one makes of it; `None` when one of them came to nothing.
    copy: Option<OwnedArguments>,
}

/// How a script has ended, until its record is applied.
pub(in crate::core) struct Outcome {
    /// The request's row.
    pub(in crate::core) command: &'static Command,
    /// Its database.
    pub(in crate::core) database: DatabaseIndex,
    /// Its arguments.
    pub(in crate::core) arguments: OwnedArguments,
    reply: Vec<u8>,
    keys: SmallVec<[Name; 2]>,
    events: Vec<KeyEvent>,
    published: Published,
}

/// What a script has left on its overlay.
#[derive(Default)]
struct Left {
    effects: BatchBuilder,
    /// Hash of the first of `items`: what is fetched ahead when the record is applied.
    first_key: KeyHash,
    items: Vec<(Name, OwnedArguments)>,
    events: Vec<KeyEvent>,
    published: Published,
}

/// How far a try has come.
enum Tried {
    /// Its client is answered, or will be.
    Done,
    /// It needs more keys of the same shard.
    Again,
    /// It needs locks.
    Locks,
}

impl Ahead {
    fn begin(&mut self, outcome: Outcome, items: Vec<(Name, OwnedArguments)>) -> TransactionId {
        for (name, copy) in items {
            let coming = self.items.entry(name).or_insert(Coming { records: 0, copy: None });
            coming.records += 1;
            coming.copy = Some(copy);
        }
        self.outcomes.push_back(Some(outcome));
        self.count += 1;
        TransactionId { time: self.ended + self.outcomes.len() as u64, origin: 0 }
    }

    fn end(&mut self, id: TransactionId, is_done: bool) -> Outcome {
        let place = (id.time - self.ended - 1) as usize;
        let outcome = self.outcomes.get_mut(place).and_then(Option::take);
        let outcome = outcome.expect("it waits for its record");
        self.count -= 1;
        while let Some(None) = self.outcomes.front() {
            self.outcomes.pop_front();
            self.ended += 1;
        }
        for name in &outcome.keys {
            let coming = self.items.get_mut(name).expect("its record changes it");
            coming.records -= 1;
            if coming.records == 0 {
                self.items.remove(name);
            } else if !is_done {
                coming.copy = None;
            }
        }
        outcome
    }

    /// A record had no effect, or it is not known to have had one.
    pub(in crate::core) fn failed(&mut self, record: Arguments<'_>) -> Outcome {
        match Record::read(record) {
            Some(Record::Prepare { id, .. }) => self.end(id, false),
            _ => unreachable!("only what a script has done has somebody who waits for it"),
        }
    }

    /// Messages of a script that is done, to be sent when the turn's entries are applied.
    pub(super) fn publish(&mut self, published: Published) {
        self.published.extend(published);
    }

    /// Messages of scripts that are done since the last call.
    pub(in crate::core) fn take_published(&mut self) -> Published {
        std::mem::take(&mut self.published)
    }
}

impl LocalShard {
    /// Puts a key into an overlay as it will be when everything gathered is applied. False when
    /// that is not known.
    fn load_ahead(
        &self,
        (database, key): (DatabaseIndex, &[u8]),
        overlay: &mut Overlay,
        now_ms: i64,
    ) -> bool {
        let hash = self.keyspace.hasher().hash(key);
        if self.is_about_to_change(hash) {
            return false;
        }
        if let Some(coming) = self.ahead.items.get(&(database, hash.hash())) {
            // Of what is not on its way yet a part may be refused, but all of a set's records
            // together.
            let stands = self.gathering_count() <= 1;
            let copy = coming.copy.as_ref().filter(|copy| copy.borrow().at(1) == key);
            let Some(copy) = copy.filter(|_| stands) else { return false };
            overlay.install(database, copy.borrow(), now_ms);
            return true;
        }
        let key = Key::new(key, hash);
        let item = self.keyspace.view(database, self.time(now_ms)).get(&key);
        overlay.copy(database, &key, item, now_ms);
        true
    }

    /// May something other than a script be about to change a key?
    fn is_about_to_change(&self, hash: KeyHash) -> bool {
        let proposed = self.proposed_count();
        if proposed == self.ahead.count {
            return false;
        }
        proposed > SCRIPT_AHEAD_SEARCH_MAX
            || self.any_proposed(|who, operation, arguments| {
                let (command, origin) = (who.command, who.origin);
                if matches!(command.run, RunKind::Record) && origin.target != Target::Nobody {
                    return false;
                }
                let (database, first_key) = (operation.database(), operation.first_key());
                if command.keys == Keys::FIRST && first_key != KeyHash::default() {
                    return first_key.hash() == hash.hash();
                }
                let locks =
                    self.locks_of(&Request { command, origin, database, first_key, arguments });
                locks.whole.is_some() || locks.keys.iter().any(|key| key.hash == hash.hash())
            })
    }

    /// Applies what a script has done, and answers it.
    pub(in crate::core) fn apply_ahead(
        &mut self,
        record: Arguments<'_>,
        (time, seed): (i64, u64),
        origin: Origin,
        answers: &mut Answers,
    ) {
        let mut edit = self.keyspace.edit(DatabaseIndex(0), time);
        let Applied::Committed(id) = run_record(&mut edit, record, seed) else {
            unreachable!("it has one participant");
        };
        let outcome = self.ahead.end(id, true);
        if !outcome.events.is_empty() {
            self.keyspace.add_events(outcome.events);
            self.keyspace.sign_events(writer_of(origin.core, origin.target));
        }
        self.ahead.published.extend(outcome.published);
        answers.write(origin, |out| out.extend_from_slice(&outcome.reply));
    }
}

impl Core {
    /// Runs a script ahead of the log if it can be. Else it comes back, with the keys that it has
    /// been found to need.
    pub(in crate::core) fn run_ahead(&mut self, mut steps: Box<Steps>) -> Option<Box<Steps>> {
        if self.stamp_of(steps.target).is_some() {
            // What it answers is to be remembered with what it does: see `Core::stamp_effects`.
            return Some(steps);
        }
        let step = steps.current();
        let Some(local) = self.shard_of_script(step.command, step.arguments.borrow()) else {
            return Some(steps);
        };
        let clock = Instant::now();
        for _ in 0..SCRIPT_ATTEMPTS_MAX {
            match self.try_ahead(local, &mut steps, clock) {
                Tried::Done => return None,
                Tried::Again => {}
                Tried::Locks => break,
            }
        }
        Some(steps)
    }

    /// The one shard of a script's keys, if it is here and no transaction is about.
    pub(super) fn shard_of_script(
        &self,
        command: &Command,
        arguments: Arguments<'_>,
    ) -> Option<usize> {
        if self.router.shard_count() == 1 {
            let local = self.router.local(ringraft_shards::ids::ShardId(0));
            return local.filter(|local| self.shards[*local].is_open());
        }
        let mut keys = command.keys.positions(arguments);
        let shard_of = |i| self.router.shard(self.router.hash(arguments.at(i)));
        // Without keys it may be about any.
        let shard = shard_of(keys.next()?);
        if !keys.all(|i| shard_of(i) == shard) {
            return None;
        }
        self.router.local(shard).filter(|local| self.shards[*local].is_open())
    }

    fn try_ahead(&mut self, local: usize, steps: &mut Steps, clock: Instant) -> Tried {
        let (overlay, seed) = (self.take_overlay(), self.chance.bits());
        steps.begin_on(overlay, seed);
        let arguments = std::mem::take(&mut steps.current_mut().arguments);
        let (job, mut run) = match self.prepare_script(steps, arguments.borrow()) {
            Ok(ready) => ready,
            Err(refusal) => {
                steps.current_mut().arguments = arguments;
                self.reply_script(steps, Vec::new(), Err(refusal), clock);
                self.stats.count(steps.current().command, 1, clock);
                let reply = std::mem::take(&mut steps.replies);
                self.answers.write_here(steps.target, |out| out.extend_from_slice(&reply));
                self.rewind(steps);
                return Tried::Done;
            }
        };
        let interpreter = self.scripts.interpreter.take().expect("the script was compiled there");
        let wanted = steps.retry.wanted.iter().map(|(database, key)| (*database, key.as_slice()));
        // Behind the look at memory, which may have begun to evict some of them.
        if !load_all(&self.shards[local], &mut run, steps, arguments.borrow(), wanted) {
            let (reply, outcome) = (Vec::new(), Ok(()));
            let ended = RunEnded { interpreter, arguments, run, reply, outcome };
            return self.give_back(steps, ended);
        }
        let job = Job { arguments, patience: SCRIPT_AHEAD_TIME_MAX, is_told: false, ..job };
        let mut came = interpreter.start(job, run);
        let mut is_late = false;
        let ended = loop {
            match came {
                Came::Ended(ended) => break *ended,
                Came::Rests(resting) => {
                    is_late = true;
                    resting.end();
                    came = resting.resume();
                }
            }
        };
        if is_late {
            return self.give_back(steps, ended);
        }
        match self.take_ended(steps, ended) {
            Some((ended, reply)) => {
                let outcome = self.finish_script(steps, ended);
                self.reply_script(steps, reply, outcome, clock);
                self.stats.count(steps.current().command, 1, clock);
                self.conclude_ahead(local, steps);
                Tried::Done
            }
            None => {
                self.rewind(steps);
                steps.retry.begin_anew();
                let is_here = |key: &[u8]| {
                    self.router.local(self.router.shard(self.router.hash(key))) == Some(local)
                };
                let retry = &steps.retry;
                match !retry.whole && retry.wanted.iter().all(|(_, key)| is_here(key)) {
                    true => Tried::Again,
                    false => Tried::Locks,
                }
            }
        }
    }

    /// What was begun is thrown away.
    fn give_back(&mut self, steps: &mut Steps, ended: RunEnded) -> Tried {
        self.take_ended(steps, ended);
        self.rewind(steps);
        steps.retry.begin_anew();
        Tried::Locks
    }

    /// A script has run to its end.
    fn conclude_ahead(&mut self, local: usize, steps: &mut Steps) {
        let mut overlay = steps.overlay.take().expect("the run has given it back");
        let effects = std::mem::take(&mut self.spares.run.effects);
        let mut left = Left { effects, events: overlay.take_events(), ..Left::default() };
        left.published = std::mem::take(&mut steps.published);
        let mut bytes = 0;
        overlay.drain(self.turn.now_ms, |database, key, copy| {
            bytes += copy.iter_from(0).map(<[u8]>::len).sum::<usize>();
            if left.items.is_empty() {
                left.first_key = key.hash();
            }
            if bytes <= REQUEST_BYTES_MAX {
                left.effects.push(INSTALL, database, key.hash(), copy);
                left.items.push(((database, key.hash().hash()), OwnedArguments::copy(copy)));
            }
        });
        self.give_overlay(overlay);
        let mut reply = std::mem::take(&mut steps.replies);
        let too_large = (bytes > REQUEST_BYTES_MAX).then(|| TOO_LARGE.into());
        if let Some(failure) = steps.failure.take().or(too_large) {
            left = Left::default();
            reply.clear();
            let protocol = steps.protocol();
            self.stats.refuse(failure, 0, &mut Reply::new(&mut reply, protocol));
        }
        if left.items.is_empty() {
            self.spares.run.effects = std::mem::take(&mut left.effects);
        }
        let shard = &self.shards[local];
        let has_done = !left.items.is_empty() || !left.published.is_empty();
        if !has_done && shard.is_quiet() && shard.is_alone() {
            return self.answers.write_here(steps.target, |out| out.extend_from_slice(&reply));
        }
        if let Target::Connection { index, sequence } = steps.target {
            self.answers.connections.at_mut(index).last_ordered = Some(sequence);
        }
        match has_done {
            true => self.gather_ahead(local, steps, left, reply),
            false => self.answer_when_settled(local, steps, reply),
        }
    }

    /// What a script has done goes to the log; its client is answered when it is applied.
    fn gather_ahead(&mut self, local: usize, steps: &mut Steps, mut left: Left, reply: Vec<u8>) {
        let target = steps.target;
        let is_relayed = match target {
            Target::Connection { index, .. } => self.answers.connections.at(index).owner.is_some(),
            _ => false,
        };
        let origin = Origin { is_relayed, ..Origin::asks(self.id, target, steps.protocol()) };
        let step = steps.current_mut();
        let (command, database) = (step.command, step.database);
        let arguments = std::mem::take(&mut step.arguments);
        let keys = left.items.iter().map(|(name, _)| *name).collect();
        let (events, published) = (left.events, left.published);
        let outcome = Outcome { command, database, arguments, reply, keys, events, published };
        let shard = &mut self.shards[local];
        let id = shard.ahead.begin(outcome, left.items);
        let effects = left.effects.encode(0, 0).into();
        left.effects.clear();
        self.spares.run.effects = left.effects;
        let (participants, locks) = (vec![shard.id], LockSet::default());
        let record = Record::Prepare { id, participants, locks, effects }.arguments();
        let command = record_command();
        let (database, first_key) = (DatabaseIndex(0), left.first_key);
        let arguments = record.borrow();
        shard.gather_write(&Request { command, origin, database, first_key, arguments });
        self.turn.has_new_work = true;
    }

    /// A script that has changed nothing may have read what is not certain yet.
    fn answer_when_settled(&mut self, local: usize, steps: &Steps, reply: Vec<u8>) {
        let protocol = steps.protocol();
        let index = self.answers.gathers.insert(GatherState {
            target: steps.target,
            protocol,
            merge: Merge::Known(reply),
            parts: vec![Part::default()],
            missing: 1,
            arguments: OwnedArguments::default(),
            scanned_slot: None,
        });
        let command = crate::core::commands::table::internal(SETTLE);
        let origin = Origin::asks(self.id, Target::Gather { index, part: 0 }, protocol);
        let (database, first_key) = (DatabaseIndex(0), KeyHash::default());
        let owned: OwnedArguments = [SETTLE.as_bytes()].into_iter().collect();
        let arguments = owned.borrow();
        self.shards[local].gather_rider(&Request {
            command,
            origin,
            database,
            first_key,
            arguments,
        });
        self.turn.has_new_work = true;
    }
}

/// Puts the keys that a script names, and those it has been found to need, where it runs. False
/// when one of them is not to be had.
fn load_all<'a>(
    shard: &LocalShard,
    run: &mut Run,
    steps: &Steps,
    arguments: Arguments<'_>,
    wanted: impl Iterator<Item = (DatabaseIndex, &'a [u8])>,
) -> bool {
    let (command, database) = (steps.current().command, steps.current().database);
    let named = command.keys.positions(arguments).map(|i| (database, arguments.at(i)));
    let (overlay, now_ms) = (run.ground.overlay(), run.now_ms);
    let mut load = |database, key| {
        overlay.has(database, key) || shard.load_ahead((database, key), overlay, now_ms)
    };
    for (database, key) in named {
        if !load(database, key) {
            return false;
        }
    }
    for (database, key) in wanted {
        if !load(database, key) {
            return false;
        }
    }
    overlay.begin();
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::commands::table;

    fn begin(ahead: &mut Ahead, value: &str) -> TransactionId {
        let name = (DatabaseIndex(0), 7);
        let copy: OwnedArguments = [b"install", &b"k"[..], value.as_bytes()].into_iter().collect();
        let outcome = Outcome {
            command: table::find(b"eval").expect("a row"),
            database: name.0,
            arguments: OwnedArguments::default(),
            reply: Vec::new(),
            keys: SmallVec::from_slice(&[name]),
            events: Vec::new(),
            published: Vec::new(),
        };
        ahead.begin(outcome, vec![(name, copy)])
    }

    /// What is known of a key while records change it; `None` when none does.
    fn known(ahead: &Ahead) -> Option<Option<Vec<u8>>> {
        let coming = ahead.items.get(&(DatabaseIndex(0), 7))?;
        Some(coming.copy.as_ref().map(|copy| copy.borrow().at(2).to_vec()))
    }

    #[test]
    fn what_is_coming_is_known_until_it_is_there() {
        let mut ahead = Ahead::default();
        let (one, two) = (begin(&mut ahead, "1"), begin(&mut ahead, "2"));
        assert_eq!(known(&ahead), Some(Some(b"2".to_vec())));
        ahead.end(one, true);
        assert_eq!(known(&ahead), Some(Some(b"2".to_vec())));
        ahead.end(two, true);
        assert_eq!(known(&ahead), None);
    }

    #[test]
    fn of_a_key_one_of_whose_records_was_refused_nothing_is_known() {
        let mut ahead = Ahead::default();
        let (one, two) = (begin(&mut ahead, "1"), begin(&mut ahead, "2"));
        ahead.end(two, false);
        assert_eq!(known(&ahead), Some(None));
        let three = begin(&mut ahead, "3");
        ahead.end(one, true);
        assert_eq!(known(&ahead), Some(Some(b"3".to_vec())));
        ahead.end(three, true);
        assert_eq!(known(&ahead), None);
    }
}
