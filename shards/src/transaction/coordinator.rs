//! Coordinators of transactions: they carry messages to and fro, and decide nothing that the logs
//! do not say.
//!
//! A coordinator may vanish at any moment. Before it has sent a prepare, locks are given up after a
//! while; after that the participants find the decision themselves. It answers its client
//! truthfully: committed when all have prepared, not done when one has refused and none could have
//! committed, unknown otherwise.

use super::message::{Message, ToCoordinator, ToShard};
use super::{LockSet, TransactionId};
use crate::ids::ShardId;
use crate::limits::{TRANSACTION_COORDINATOR_TICKS, TRANSACTION_REPEAT_TICKS};
use bytes::Bytes;
use std::collections::BTreeMap;

/// What a client is told whose transaction did not get its locks.
pub(super) const TIMED_OUT: &str =
    "ERR the keys were locked by other transactions for too long; nothing was done";

/// What a transaction needs of one shard.
#[derive(Clone, Debug)]
pub struct Part<F> {
    /// The shard.
    pub shard: ShardId,
    /// What to lock there.
    pub locks: LockSet,
    /// What to read there.
    pub fetch: F,
}

/// How a transaction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it is done.
    Committed,
    /// None of it is done and never will be. The error for the client; empty when a watched key had
    /// changed.
    Aborted(String),
    /// It may have been done, all or nothing.
    Unknown,
}

/// What a coordinator has for its driver.
#[derive(Debug)]
pub enum Event<V, P> {
    /// Everything is locked and read: run the commands, then call [`Coordinator::ran`].
    Run {
        /// The transaction.
        id: TransactionId,
        /// What each shard has read, in the order of the parts.
        values: Vec<(ShardId, V)>,
    },
    /// Answer the client.
    Finished {
        /// What was passed to `begin`.
        payload: P,
        /// How it ended.
        outcome: Outcome,
    },
}

/// What comes out of a coordinator.
#[derive(Debug)]
pub struct CoordinatorOutput<F, V, P> {
    /// Messages to send, in this order.
    pub messages: Vec<Message<F, V>>,
    /// What has happened, in this order.
    pub events: Vec<Event<V, P>>,
}

impl<F, V, P> Default for CoordinatorOutput<F, V, P> {
    fn default() -> Self {
        CoordinatorOutput { messages: Vec::new(), events: Vec::new() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Locking,
    Running,
    Confirming,
    Preparing,
    Deciding,
}

#[derive(Debug)]
struct OpenPart<V> {
    shard: ShardId,
    granted: bool,
    alone: bool,
    values: Option<V>,
    /// An older transaction waits for it, and it was not granted yet when that was said.
    yields: bool,
    /// What it shall write; `None` when it was only read.
    effects: Option<Bytes>,
    /// Is its answer of the present phase still to come?
    missing: bool,
    /// Did it not take the last message of this phase?
    untaken: bool,
    /// Was its prepare sent more than once?
    repeated: bool,
}

#[derive(Debug)]
struct Open<V, P> {
    phase: Phase,
    parts: Vec<OpenPart<V>>,
    payload: Option<P>,
    /// Ticks in its present phase.
    age: u32,
}

impl<V, P> Open<V, P> {
    fn part(&mut self, shard: ShardId) -> Option<&mut OpenPart<V>> {
        self.parts.iter_mut().find(|part| part.shard == shard)
    }

    fn is_complete(&self) -> bool {
        !self.parts.iter().any(|part| part.missing)
    }

    fn writers(&self) -> Vec<ShardId> {
        self.parts.iter().filter(|part| part.effects.is_some()).map(|part| part.shard).collect()
    }
}

/// All transactions of one coordinator. `P` is what its driver wants back at the end.
#[derive(Debug)]
pub struct Coordinator<F, V, P> {
    address: u64,
    origin: u64,
    last_time: u64,
    open: BTreeMap<TransactionId, Open<V, P>>,
    fetches: std::marker::PhantomData<F>,
}

impl<F, V, P> Coordinator<F, V, P> {
    /// `address` is where its driver delivers messages; `origin` are random bits of this start (all
    /// but the top one count), unique in the cluster for all time.
    pub fn new(address: u64, origin: u64) -> Coordinator<F, V, P> {
        let (last_time, open, fetches) = (0, BTreeMap::new(), std::marker::PhantomData);
        let origin = origin & !(1 << 63);
        Coordinator { address, origin, last_time, open, fetches }
    }

    /// Transactions that are not over.
    pub fn count(&self) -> usize {
        self.open.len()
    }

    /// What was passed to `begin`, while the transaction is not finished.
    pub fn payload(&mut self, id: TransactionId) -> Option<&mut P> {
        self.open.get_mut(&id)?.payload.as_mut()
    }

    /// Begins a transaction on several shards, each named once. `now_ns` should be close to other
    /// coordinators' clocks: it decides who goes first, not what is right.
    pub fn begin(
        &mut self,
        now_ns: u64,
        parts: Vec<Part<F>>,
        payload: P,
        out: &mut CoordinatorOutput<F, V, P>,
    ) -> TransactionId {
        debug_assert!(!parts.is_empty(), "a transaction concerns somebody");
        self.last_time = now_ns.max(self.last_time + 1);
        let id = TransactionId { time: self.last_time, origin: self.origin };
        let mut open = Vec::with_capacity(parts.len());
        for part in parts {
            let Part { shard, locks, fetch } = part;
            let coordinator = self.address;
            let lock = ToShard::Lock { id, coordinator, locks, fetch };
            out.messages.push(Message::Shard(shard, lock));
            debug_assert!(open.iter().all(|part: &OpenPart<V>| part.shard != shard), "a part each");
            open.push(OpenPart {
                shard,
                granted: false,
                alone: false,
                values: None,
                yields: false,
                effects: None,
                missing: true,
                untaken: false,
                repeated: false,
            });
        }
        let (phase, payload) = (Phase::Locking, Some(payload));
        let before = self.open.insert(id, Open { phase, parts: open, payload, age: 0 });
        debug_assert!(before.is_none(), "{id} is given once");
        id
    }

    /// Takes a message.
    pub fn handle(&mut self, message: ToCoordinator<V>, out: &mut CoordinatorOutput<F, V, P>) {
        match message {
            ToCoordinator::Granted { id, shard, alone, values } => {
                self.granted(id, shard, alone, values, out);
            }
            ToCoordinator::Failed { id, shard, reason } => self.failed(id, shard, reason, out),
            ToCoordinator::Yield { id, shard } => self.asked_to_yield(id, shard, out),
            ToCoordinator::Confirmed { id, shard, leads } => {
                if !leads {
                    let reason = super::participant::NO_LEADER.to_string();
                    return self.failed(id, shard, reason, out);
                }
                if self.answered(id, shard, Phase::Confirming) {
                    self.prepare(id, out);
                }
            }
            ToCoordinator::Prepared { id, shard } => {
                if self.answered(id, shard, Phase::Preparing) {
                    self.commit(id, out);
                }
            }
            ToCoordinator::Refused { id, shard } => {
                let reason = super::participant::NO_LEADER.to_string();
                self.failed(id, shard, reason, out);
            }
            ToCoordinator::Done { id, shard } => {
                if self.answered(id, shard, Phase::Deciding) {
                    let open = self.open.remove(&id).expect("just answered");
                    for shard in open.writers() {
                        out.messages.push(Message::Shard(shard, ToShard::Forget(id)));
                    }
                }
            }
            ToCoordinator::NotLeader { id, shard } => {
                if let Some(part) = self.open.get_mut(&id).and_then(|open| open.part(shard)) {
                    part.untaken = part.missing;
                }
            }
        }
    }

    /// Notes an answer of a phase. True when it was the last one.
    fn answered(&mut self, id: TransactionId, shard: ShardId, phase: Phase) -> bool {
        let Some(open) = self.open.get_mut(&id).filter(|open| open.phase == phase) else {
            return false;
        };
        let Some(part) = open.part(shard).filter(|part| part.missing) else { return false };
        part.missing = false;
        open.is_complete()
    }

    fn granted(
        &mut self,
        id: TransactionId,
        shard: ShardId,
        alone: bool,
        values: V,
        out: &mut CoordinatorOutput<F, V, P>,
    ) {
        let Some(open) = self.open.get_mut(&id).filter(|open| open.phase == Phase::Locking) else {
            return;
        };
        let Some(part) = open.part(shard) else { return };
        (part.granted, part.missing, part.alone, part.values) = (true, false, alone, Some(values));
        if open.is_complete() {
            open.phase = Phase::Running;
            open.age = 0;
            let values = open.parts.iter_mut().map(|part| {
                (part.shard, part.values.take().expect("every part was granted with its values"))
            });
            let values = values.collect();
            return out.events.push(Event::Run { id, values });
        }
        let part = open.part(shard).expect("just seen");
        if std::mem::take(&mut part.yields) {
            self.asked_to_yield(id, shard, out);
        }
    }

    fn asked_to_yield(
        &mut self,
        id: TransactionId,
        shard: ShardId,
        out: &mut CoordinatorOutput<F, V, P>,
    ) {
        // One that has all its locks ends soon and keeps them.
        let Some(open) = self.open.get_mut(&id).filter(|open| open.phase == Phase::Locking) else {
            return;
        };
        let Some(part) = open.part(shard) else { return };
        if part.granted {
            (part.granted, part.missing, part.values) = (false, true, None);
            out.messages.push(Message::Shard(shard, ToShard::Yielded(id)));
        } else {
            part.yields = true;
        }
    }

    /// The commands were run. For each shard that they change a batch of operations; without any
    /// the transaction has only read. Each shard is one of the parts.
    pub fn ran(
        &mut self,
        id: TransactionId,
        effects: Vec<(ShardId, Vec<u8>)>,
        out: &mut CoordinatorOutput<F, V, P>,
    ) {
        let open = self.open.get_mut(&id).expect("it is running");
        assert_eq!(open.phase, Phase::Running, "{id} is run once");
        for (shard, effects) in effects {
            open.part(shard).expect("effects are of shards that are locked").effects =
                Some(effects.into());
        }
        let coordinator = self.address;
        for part in &mut open.parts {
            part.missing = part.effects.is_none() && !part.alone;
            if part.missing {
                let confirm = ToShard::Confirm { id, coordinator };
                out.messages.push(Message::Shard(part.shard, confirm));
            }
        }
        open.phase = Phase::Confirming;
        open.age = 0;
        if open.is_complete() {
            self.prepare(id, out);
        }
    }

    fn prepare(&mut self, id: TransactionId, out: &mut CoordinatorOutput<F, V, P>) {
        let coordinator = self.address;
        let open = self.open.get_mut(&id).expect("the caller has it");
        let participants = open.writers();
        debug_assert_eq!(open.phase, Phase::Confirming, "{id} prepares when all locks are held");
        debug_assert!(open.is_complete());
        open.phase = Phase::Preparing;
        open.age = 0;
        for part in &mut open.parts {
            let message = match &part.effects {
                // All locks are held at this moment: what was only read may change from now on.
                None => ToShard::Release(id),
                Some(effects) => ToShard::Prepare {
                    id,
                    coordinator,
                    participants: participants.clone(),
                    effects: effects.clone(),
                    again: false,
                },
            };
            part.missing = part.effects.is_some();
            part.untaken = false;
            out.messages.push(Message::Shard(part.shard, message));
        }
        if participants.is_empty() {
            self.finish(id, Outcome::Committed, out);
            self.open.remove(&id);
        }
    }

    fn commit(&mut self, id: TransactionId, out: &mut CoordinatorOutput<F, V, P>) {
        self.finish(id, Outcome::Committed, out);
        let coordinator = self.address;
        let open = self.open.get_mut(&id).expect("the caller has it");
        let writers = open.writers();
        debug_assert_eq!(open.phase, Phase::Preparing, "{id} commits when all have prepared");
        debug_assert!(open.is_complete() && !writers.is_empty());
        if writers.len() == 1 {
            // It has prepared and committed in one.
            self.open.remove(&id);
            return;
        }
        open.phase = Phase::Deciding;
        open.age = 0;
        for part in &mut open.parts {
            part.missing = part.effects.is_some();
            part.untaken = false;
        }
        for shard in writers {
            let decide = ToShard::Decide { id, coordinator, commit: true };
            out.messages.push(Message::Shard(shard, decide));
        }
    }

    /// A shard has not locked or not prepared.
    fn failed(
        &mut self,
        id: TransactionId,
        shard: ShardId,
        reason: String,
        out: &mut CoordinatorOutput<F, V, P>,
    ) {
        let Some(open) = self.open.get_mut(&id) else { return };
        let Some(part) = open.part(shard) else { return };
        let (missing, repeated) = (part.missing, part.repeated);
        match open.phase {
            Phase::Locking | Phase::Confirming => self.abort(id, Outcome::Aborted(reason), out),
            // It has lost its lock; the prepare that follows will be refused.
            Phase::Running | Phase::Deciding => {}
            Phase::Preparing if !missing => {}
            // A repetition may have come when all was over and forgotten.
            Phase::Preparing if repeated => {
                self.finish(id, Outcome::Unknown, out);
                self.open.remove(&id);
            }
            Phase::Preparing => self.abort(id, Outcome::Aborted(reason), out),
        }
    }

    /// Ends a transaction that runs, before it has written anything: its locks are released, and
    /// nothing is said of it. Returns what was passed to `begin`; `None` when it has ended
    /// already.
    pub fn give_up(
        &mut self,
        id: TransactionId,
        out: &mut CoordinatorOutput<F, V, P>,
    ) -> Option<P> {
        let open = self.open.get_mut(&id).filter(|open| open.phase == Phase::Running)?;
        let payload = open.payload.take();
        for part in self.open.remove(&id).expect("just seen").parts {
            out.messages.push(Message::Shard(part.shard, ToShard::Release(id)));
        }
        payload
    }

    /// A transaction that runs takes its time: its locks are kept. To be called once in
    /// [`TRANSACTION_REPEAT_TICKS`], or more often.
    pub fn keep(&mut self, id: TransactionId, out: &mut CoordinatorOutput<F, V, P>) {
        let running = |open: &&mut Open<V, P>| open.phase == Phase::Running;
        let Some(open) = self.open.get_mut(&id).filter(running) else { return };
        open.age = 0;
        for part in &open.parts {
            out.messages.push(Message::Shard(part.shard, ToShard::Keep(id)));
        }
    }

    fn abort(&mut self, id: TransactionId, outcome: Outcome, out: &mut CoordinatorOutput<F, V, P>) {
        self.finish(id, outcome, out);
        let coordinator = self.address;
        let Some(open) = self.open.remove(&id) else { return };
        debug_assert_ne!(open.phase, Phase::Deciding, "{id} has committed");
        for part in open.parts {
            let message = match open.phase {
                Phase::Preparing if part.effects.is_some() => {
                    ToShard::Decide { id, coordinator, commit: false }
                }
                _ => ToShard::Release(id),
            };
            out.messages.push(Message::Shard(part.shard, message));
        }
    }

    fn finish(
        &mut self,
        id: TransactionId,
        outcome: Outcome,
        out: &mut CoordinatorOutput<F, V, P>,
    ) {
        if let Some(payload) = self.open.get_mut(&id).and_then(|open| open.payload.take()) {
            out.events.push(Event::Finished { payload, outcome });
        }
    }

    /// Time passes. Call at a fixed rate.
    pub fn tick(&mut self, out: &mut CoordinatorOutput<F, V, P>) {
        let coordinator = self.address;
        let mut late = Vec::new();
        for (&id, open) in &mut self.open {
            open.age += 1;
            if open.age > TRANSACTION_COORDINATOR_TICKS {
                late.push(id);
                continue;
            }
            let participants = open.writers();
            let due = open.age.is_multiple_of(TRANSACTION_REPEAT_TICKS);
            let repeats = |part: &&mut OpenPart<V>| part.missing && (due || part.untaken);
            for part in open.parts.iter_mut().filter(repeats) {
                let untaken = std::mem::take(&mut part.untaken);
                let message = match (open.phase, &part.effects) {
                    (Phase::Preparing, Some(effects)) => {
                        part.repeated |= !untaken;
                        ToShard::Prepare {
                            id,
                            coordinator,
                            participants: participants.clone(),
                            effects: effects.clone(),
                            again: true,
                        }
                    }
                    (Phase::Deciding, Some(_)) => ToShard::Decide { id, coordinator, commit: true },
                    _ => continue,
                };
                out.messages.push(Message::Shard(part.shard, message));
            }
        }
        for id in late {
            match self.open[&id].phase {
                Phase::Locking | Phase::Running | Phase::Confirming => {
                    self.abort(id, Outcome::Aborted(TIMED_OUT.to_string()), out);
                }
                Phase::Preparing => {
                    self.finish(id, Outcome::Unknown, out);
                    self.open.remove(&id);
                }
                // The participants find out among themselves that it is over.
                Phase::Deciding => {
                    self.open.remove(&id);
                }
            }
        }
    }
}
