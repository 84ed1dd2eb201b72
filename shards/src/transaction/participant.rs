//! The leader of a shard as it takes part in transactions, and as it makes single requests wait for
//! them.
//!
//! Everything here but the ledger is memory of one leadership: [`Participant::lead`] rebuilds it
//! from the ledger, [`Participant::step_down`] drops it. Locks that are not prepared die with the
//! leadership, and the prepare that would have followed is refused; prepared ones come back with
//! the ledger.
//!
//! Bounds: [`TRANSACTIONS_PER_SHARD_MAX`] transactions; single requests that wait are bounded by
//! their connections.

use super::ledger::Ledger;
use super::locks::{HashedMap, LockTable};
use super::message::{Message, State, ToCoordinator, ToShard};
use super::record::{Applied, Record};
use super::wanted::{Fetch, Next, ParticipantOutput};
use super::{LockSet, TransactionId};
use crate::ids::ShardId;
use crate::limits::{
    TRANSACTION_DOUBT_TICKS, TRANSACTION_FORGET_COUNT, TRANSACTION_LOCK_TICKS,
    TRANSACTION_SWEEP_TICKS, TRANSACTIONS_PER_SHARD_MAX,
};
use bytes::Bytes;
use std::collections::BTreeSet;

/// What a client is told when no leader took the request: the transaction is aborted, and had no
/// effect.
pub const NO_LEADER: &str = "ERR leader not known";

/// How far a request is.
#[derive(Debug)]
enum Stage<W> {
    /// A single request that waits for locks.
    Local(W),
    /// Waits for locks.
    Waiting,
    /// Locked; values are being read.
    Fetching,
    /// Locked and read.
    Granted,
    /// A prepare record is on its way.
    Preparing,
    /// Prepared. Those others who said that they have, too.
    Prepared { participants: Vec<ShardId>, prepared: BTreeSet<ShardId> },
    /// The record that ends it is on its way.
    Deciding,
}

#[derive(Debug)]
struct Held<F, W> {
    stage: Stage<W>,
    /// Whom to tell; nobody after a change of leader.
    coordinator: Option<u64>,
    fetch: Option<F>,
    grant: u32,
    /// Was it asked to yield its present grant?
    asked_to_yield: bool,
    /// It is to abort as soon as it has prepared.
    doomed: bool,
    /// Ticks in its present stage.
    age: u32,
}

/// Who wants to know a transaction's state.
#[derive(Debug, PartialEq, Eq)]
enum Asker {
    Shard(ShardId),
    Coordinator(u64),
}

/// A shard's leader in transactions. `F` is what it is asked to read, `V` what it has read, `W` a
/// single request that waits.
#[derive(Debug)]
pub struct Participant<F, V, W> {
    shard: ShardId,
    locks: LockTable,
    held: HashedMap<TransactionId, Held<F, W>>,
    askers: HashedMap<TransactionId, Vec<Asker>>,
    forgettable: Vec<TransactionId>,
    /// Records that could not be proposed yet.
    retry: Vec<Record>,
    /// Committed transactions at the last sweep.
    swept: BTreeSet<TransactionId>,
    /// Those that others are asked about, and who has answered.
    sweeps: HashedMap<TransactionId, BTreeSet<ShardId>>,
    ticks: u32,
    local_count: u64,
    grant_count: u32,
    /// Can leadership not be lost?
    alone: bool,
    values: std::marker::PhantomData<V>,
}

impl<F, V, W> Participant<F, V, W> {
    /// For a shard; it does not lead yet.
    pub fn new(shard: ShardId) -> Participant<F, V, W> {
        Participant {
            shard,
            locks: LockTable::default(),
            held: HashedMap::default(),
            askers: HashedMap::default(),
            forgettable: Vec::new(),
            retry: Vec::new(),
            swept: BTreeSet::new(),
            sweeps: HashedMap::default(),
            ticks: 0,
            local_count: 0,
            grant_count: 0,
            alone: false,
            values: std::marker::PhantomData,
        }
    }

    /// Leadership begins: everything committed is applied. `alone` says that the group has no other
    /// voter.
    pub fn lead(&mut self, ledger: &Ledger, alone: bool) {
        debug_assert!(self.held.is_empty() && self.locks.is_empty(), "leadership begins anew");
        self.alone = alone;
        for (&id, prepared) in &ledger.prepared {
            debug_assert!(!ledger.committed.contains_key(&id), "{id} is prepared or committed");
            let keys = prepared
                .keys
                .iter()
                .map(|&hash| super::LockKey { hash, exclusive: true })
                .collect();
            let locks = LockSet { keys, whole: prepared.whole.then_some(true) };
            self.locks.force(id, locks);
            let participants = prepared.participants.clone();
            let stage = Stage::Prepared { participants, prepared: BTreeSet::new() };
            let held = Held {
                stage,
                coordinator: None,
                fetch: None,
                grant: 0,
                asked_to_yield: false,
                doomed: false,
                // Nobody may be there to decide: ask at once.
                age: TRANSACTION_DOUBT_TICKS,
            };
            self.held.insert(id, held);
        }
        debug_assert_eq!(self.held.len(), ledger.prepared.len(), "all that is prepared is held");
        debug_assert!(self.is_sound());
    }

    /// Are those that are held just those that have locks or wait for some? Between any two calls.
    fn is_sound(&self) -> bool {
        self.held.len() == self.locks.count()
    }

    /// The group's members changed: can leadership be lost now?
    pub fn set_alone(&mut self, alone: bool) {
        self.alone = alone;
    }

    /// Leadership ends. Single requests that wait are handed back, to be refused; transactions are
    /// told.
    pub fn step_down(&mut self, out: &mut ParticipantOutput<F, V, W>) {
        let mut held: Vec<_> = self.held.drain().collect();
        held.sort_by_key(|(id, _)| *id);
        for (id, held) in held {
            match held.stage {
                Stage::Local(request) => out.next.push(Next::Admit(request)),
                Stage::Waiting | Stage::Fetching | Stage::Granted => {
                    let (shard, reason) = (self.shard, NO_LEADER.to_string());
                    out.to(held.coordinator, ToCoordinator::Failed { id, shard, reason });
                }
                Stage::Preparing | Stage::Prepared { .. } | Stage::Deciding => {}
            }
        }
        *self = Participant::new(self.shard);
        debug_assert!(self.is_idle() && self.is_sound());
    }

    /// Is nothing locked here? Then no request has to wait.
    #[inline(always)]
    pub fn is_idle(&self) -> bool {
        self.locks.is_empty()
    }

    /// Transactions and single requests that hold locks or wait for them.
    pub fn count(&self) -> usize {
        self.locks.count()
    }

    /// Does a transaction hold this key exclusively? A read by somebody who has nothing else under
    /// way waits for that alone.
    pub fn is_held(&self, key: u64) -> bool {
        self.locks.is_held(key)
    }

    /// Does a transaction hold any key exclusively?
    pub fn is_any_held(&self) -> bool {
        self.locks.is_any_held()
    }

    /// Has a transaction locked this key, in whatever way? Those of `unread` do not count: they
    /// have not read it yet.
    pub fn is_taken(&self, key: u64, unread: &[TransactionId]) -> bool {
        self.locks.is_taken(key, unread)
    }

    /// Does this transaction hold its locks here, with nothing prepared?
    pub fn holds(&self, id: TransactionId) -> bool {
        self.held.get(&id).is_some_and(|held| matches!(held.stage, Stage::Granted))
    }

    /// Would a request with these locks that comes last have to wait?
    pub fn blocks(&self, locks: &LockSet) -> bool {
        self.locks.blocks(locks)
    }

    /// Keeps a single request until its locks are granted; it comes out as [`Next::Admit`], perhaps
    /// at once. `after` is the id's time of the last transaction that its sender has sent here:
    /// the request comes after that one and before the sender's next.
    pub fn wait(
        &mut self,
        locks: LockSet,
        after: u64,
        request: W,
        out: &mut ParticipantOutput<F, V, W>,
    ) {
        self.local_count += 1;
        let id = TransactionId { time: after, origin: 1 << 63 | self.local_count };
        let mut younger = Vec::new();
        let granted = self.locks.request(id, locks, &mut younger);
        self.hold(id, Stage::Local(request), None, None);
        if granted {
            self.granted(vec![id], out);
        }
        for other in younger {
            self.ask_to_yield(other, out);
        }
        debug_assert!(self.is_sound());
    }

    fn hold(
        &mut self,
        id: TransactionId,
        stage: Stage<W>,
        coordinator: Option<u64>,
        fetch: Option<F>,
    ) {
        let (grant, asked_to_yield, doomed, age) = (0, false, false, 0);
        let held = Held { stage, coordinator, fetch, grant, asked_to_yield, doomed, age };
        let before = self.held.insert(id, held);
        debug_assert!(before.is_none(), "{id} asks once");
    }

    /// Takes a message.
    pub fn handle(
        &mut self,
        message: ToShard<F>,
        ledger: &Ledger,
        out: &mut ParticipantOutput<F, V, W>,
    ) {
        match message {
            ToShard::Lock { id, coordinator, locks, fetch } => {
                self.lock(id, coordinator, locks, fetch, out);
            }
            ToShard::Yielded(id) => {
                if let Some(held) = self.held.get_mut(&id)
                    && matches!(held.stage, Stage::Granted)
                {
                    held.stage = Stage::Waiting;
                    held.age = 0;
                    let mut granted = Vec::new();
                    self.locks.revoke(id, &mut granted);
                    self.granted(granted, out);
                }
            }
            ToShard::Confirm { id, coordinator } => {
                let held = self.held.get(&id).filter(|held| matches!(held.stage, Stage::Granted));
                match held {
                    Some(held) if !self.alone => {
                        out.confirms.push(Fetch { id, grant: held.grant });
                    }
                    held => {
                        let (shard, leads) = (self.shard, held.is_some());
                        let answer = ToCoordinator::Confirmed { id, shard, leads };
                        out.to(Some(coordinator), answer);
                    }
                }
            }
            ToShard::Prepare { id, coordinator, participants, effects, again } => {
                self.prepare(id, coordinator, participants, effects, again, ledger, out);
            }
            ToShard::Keep(id) => {
                if let Some(held) = self.held.get_mut(&id)
                    && matches!(held.stage, Stage::Granted)
                {
                    held.age = 0;
                }
            }
            ToShard::Release(id) => self.release_unprepared(id, out),
            ToShard::Decide { id, coordinator, commit } => {
                self.decide(id, Some(coordinator), commit, ledger, out);
            }
            ToShard::Forget(id) => self.forget(id, out),
            ToShard::Query { id, from } => self.query(id, Asker::Shard(from), ledger, out),
            ToShard::Answer { id, from, state } => self.answer(id, from, state, ledger, out),
        }
        debug_assert!(self.is_sound());
    }

    fn lock(
        &mut self,
        id: TransactionId,
        coordinator: u64,
        locks: LockSet,
        fetch: F,
        out: &mut ParticipantOutput<F, V, W>,
    ) {
        if self.held.len() >= TRANSACTIONS_PER_SHARD_MAX {
            let (shard, reason) = (self.shard, "ERR too many transactions are under way".into());
            return out.to(Some(coordinator), ToCoordinator::Failed { id, shard, reason });
        }
        let mut younger = Vec::new();
        let granted = self.locks.request(id, locks, &mut younger);
        self.hold(id, Stage::Waiting, Some(coordinator), Some(fetch));
        if granted {
            return self.granted(vec![id], out);
        }
        for other in younger {
            self.ask_to_yield(other, out);
        }
    }

    fn ask_to_yield(&mut self, id: TransactionId, out: &mut ParticipantOutput<F, V, W>) {
        if let Some(held) = self.held.get_mut(&id)
            && matches!(held.stage, Stage::Fetching | Stage::Granted)
            && !std::mem::replace(&mut held.asked_to_yield, true)
        {
            out.to(held.coordinator, ToCoordinator::Yield { id, shard: self.shard });
        }
    }

    /// Locks were granted: single requests go on, and what they held is free again at once.
    fn granted(&mut self, granted: Vec<TransactionId>, out: &mut ParticipantOutput<F, V, W>) {
        let mut queue = std::collections::VecDeque::from(granted);
        while let Some(id) = queue.pop_front() {
            let Some(held) = self.held.get_mut(&id) else { continue };
            if matches!(held.stage, Stage::Waiting) {
                self.grant_count += 1;
                held.stage = Stage::Fetching;
                held.age = 0;
                held.grant = self.grant_count;
                held.asked_to_yield = false;
                out.next.push(Next::Fetch(Fetch { id, grant: held.grant }));
            } else if matches!(held.stage, Stage::Local(_)) {
                let held = self.held.remove(&id).expect("just seen");
                let Stage::Local(request) = held.stage else { unreachable!("just seen") };
                out.next.push(Next::Admit(request));
                let mut more = Vec::new();
                self.locks.release(id, &mut more);
                queue.extend(more);
            }
        }
    }

    /// What is to be read; `None` when the grant was given back.
    pub fn fetching(&self, fetch: Fetch) -> Option<&F> {
        let held = self.held.get(&fetch.id)?;
        let current = held.grant == fetch.grant && matches!(held.stage, Stage::Fetching);
        held.fetch.as_ref().filter(|_| current)
    }

    /// What was read, or why the transaction must end (see [`ToCoordinator::Failed`]).
    pub fn fetched(
        &mut self,
        fetch: Fetch,
        values: Result<V, String>,
        out: &mut ParticipantOutput<F, V, W>,
    ) {
        if self.fetching(fetch).is_none() {
            return;
        }
        let (id, shard, alone) = (fetch.id, self.shard, self.alone);
        let held = self.held.get_mut(&id).expect("it is being fetched for");
        let coordinator = held.coordinator;
        match values {
            Ok(values) => {
                held.stage = Stage::Granted;
                held.age = 0;
                out.to(coordinator, ToCoordinator::Granted { id, shard, alone, values });
            }
            Err(reason) => {
                out.to(coordinator, ToCoordinator::Failed { id, shard, reason });
                self.release_unprepared(id, out);
            }
        }
    }

    /// The answer to a request in `confirms`: has a majority confirmed that this node leads?
    pub fn confirmed(&mut self, fetch: Fetch, leads: bool, out: &mut ParticipantOutput<F, V, W>) {
        let Some(held) = self.held.get(&fetch.id) else { return };
        let leads = leads && held.grant == fetch.grant && matches!(held.stage, Stage::Granted);
        let (id, shard) = (fetch.id, self.shard);
        out.to(held.coordinator, ToCoordinator::Confirmed { id, shard, leads });
    }

    fn prepare(
        &mut self,
        id: TransactionId,
        coordinator: u64,
        participants: Vec<ShardId>,
        effects: Bytes,
        again: bool,
        ledger: &Ledger,
        out: &mut ParticipantOutput<F, V, W>,
    ) {
        let Some(held) = self.held.get_mut(&id) else {
            // The lock is lost, or this is a repetition.
            return self.query(id, Asker::Coordinator(coordinator), ledger, out);
        };
        debug_assert!(participants.contains(&self.shard), "{id} writes here");
        match held.stage {
            Stage::Granted => {
                held.stage = Stage::Preparing;
                held.age = 0;
                held.fetch = None;
                let locks = self.locks.set(id).cloned().unwrap_or_default();
                out.records.push(Record::Prepare { id, participants, locks, effects });
            }
            Stage::Prepared { .. } | Stage::Deciding if again => {
                held.coordinator = Some(coordinator);
                let shard = self.shard;
                out.to(Some(coordinator), ToCoordinator::Prepared { id, shard });
            }
            Stage::Waiting | Stage::Fetching => {
                self.query(id, Asker::Coordinator(coordinator), ledger, out);
            }
            _ => {}
        }
    }

    /// A record could not be proposed; it had no effect. `reason` is an error for the client.
    pub fn not_proposed(
        &mut self,
        record: Record,
        reason: &str,
        out: &mut ParticipantOutput<F, V, W>,
    ) {
        match record {
            Record::Prepare { id, .. } => {
                // Nothing is logged, and with the lock gone nothing ever will be.
                let (shard, reason) = (self.shard, reason.to_string());
                let coordinator = self.held.get(&id).and_then(|held| held.coordinator);
                out.to(coordinator, ToCoordinator::Failed { id, shard, reason });
                self.end(id, out);
                self.tell(id, State::Refused, out);
                debug_assert!(self.is_sound());
            }
            // Whoever asks, asks again.
            Record::Refuse(id) => {
                self.askers.remove(&id);
            }
            Record::Commit(_) | Record::Abort(_) | Record::Forget(_) => self.retry.push(record),
        }
    }

    /// A record of this leadership was applied.
    pub fn applied(&mut self, applied: &Applied, out: &mut ParticipantOutput<F, V, W>) {
        let shard = self.shard;
        match *applied {
            Applied::Prepared(id) => {
                if let Some(held) = self.held.get_mut(&id)
                    && matches!(held.stage, Stage::Preparing)
                {
                    held.age = 0;
                    if held.doomed {
                        held.stage = Stage::Deciding;
                        out.records.push(Record::Abort(id));
                    } else {
                        let (participants, prepared) = (Vec::new(), BTreeSet::new());
                        held.stage = Stage::Prepared { participants, prepared };
                        out.to(held.coordinator, ToCoordinator::Prepared { id, shard });
                    }
                }
                self.tell(id, State::Prepared, out);
            }
            Applied::Committed(id) => {
                if let Some(held) = self.held.get(&id) {
                    if matches!(held.stage, Stage::Preparing) {
                        // The only participant: prepared and committed in one.
                        out.to(held.coordinator, ToCoordinator::Prepared { id, shard });
                    }
                    out.to(held.coordinator, ToCoordinator::Done { id, shard });
                    self.end(id, out);
                }
                self.tell(id, State::Committed, out);
            }
            Applied::Refused(id) => {
                if let Some(held) = self.held.get(&id)
                    && matches!(held.stage, Stage::Deciding)
                {
                    out.to(held.coordinator, ToCoordinator::Done { id, shard });
                    self.end(id, out);
                }
                self.tell(id, State::Refused, out);
            }
            Applied::Forgotten => {}
        }
        debug_assert!(self.is_sound());
    }

    /// Answers those who asked for a transaction's state.
    fn tell(&mut self, id: TransactionId, state: State, out: &mut ParticipantOutput<F, V, W>) {
        if self.askers.is_empty() {
            return;
        }
        for asker in self.askers.remove(&id).unwrap_or_default() {
            self.tell_one(id, &asker, state, out);
        }
    }

    fn tell_one(
        &self,
        id: TransactionId,
        asker: &Asker,
        state: State,
        out: &mut ParticipantOutput<F, V, W>,
    ) {
        let shard = self.shard;
        match asker {
            Asker::Shard(to) => {
                let answer = ToShard::Answer { id, from: shard, state };
                out.messages.push(Message::Shard(*to, answer));
            }
            Asker::Coordinator(to) => {
                let answer = match state {
                    State::Prepared | State::Committed => ToCoordinator::Prepared { id, shard },
                    State::Refused => ToCoordinator::Refused { id, shard },
                };
                out.to(Some(*to), answer);
            }
        }
    }

    /// Ends a transaction that has prepared nothing here.
    fn release_unprepared(&mut self, id: TransactionId, out: &mut ParticipantOutput<F, V, W>) {
        let unprepared = self.held.get(&id).is_some_and(|held| {
            matches!(held.stage, Stage::Waiting | Stage::Fetching | Stage::Granted)
        });
        if unprepared {
            self.end(id, out);
        }
    }

    fn end(&mut self, id: TransactionId, out: &mut ParticipantOutput<F, V, W>) {
        let held = self.held.remove(&id);
        debug_assert!(
            held.is_none_or(|held| !matches!(held.stage, Stage::Local(_))),
            "a request that waits is let go by its locks alone"
        );
        let mut granted = Vec::new();
        self.locks.release(id, &mut granted);
        if !granted.is_empty() {
            self.granted(granted, out);
        }
    }

    fn decide(
        &mut self,
        id: TransactionId,
        coordinator: Option<u64>,
        commit: bool,
        ledger: &Ledger,
        out: &mut ParticipantOutput<F, V, W>,
    ) {
        let shard = self.shard;
        let Some(held) = self.held.get_mut(&id) else {
            // Decided before, or never prepared here.
            if !commit || ledger.committed.contains_key(&id) {
                out.to(coordinator, ToCoordinator::Done { id, shard });
            }
            return;
        };
        held.coordinator = coordinator.or(held.coordinator);
        debug_assert!(
            !commit || !matches!(held.stage, Stage::Local(_) | Stage::Waiting | Stage::Fetching),
            "{id} commits when all have prepared"
        );
        match held.stage {
            Stage::Prepared { .. } => {
                held.stage = Stage::Deciding;
                held.age = 0;
                out.records.push(if commit { Record::Commit(id) } else { Record::Abort(id) });
            }
            Stage::Preparing if !commit => held.doomed = true,
            Stage::Waiting | Stage::Fetching | Stage::Granted if !commit => {
                out.to(coordinator, ToCoordinator::Done { id, shard });
                self.end(id, out);
            }
            _ => {}
        }
    }

    fn forget(&mut self, id: TransactionId, out: &mut ParticipantOutput<F, V, W>) {
        debug_assert!(!self.held.contains_key(&id), "{id} is over everywhere");
        self.forgettable.push(id);
        if self.forgettable.len() >= TRANSACTION_FORGET_COUNT {
            out.records.push(Record::Forget(std::mem::take(&mut self.forgettable)));
        }
    }

    /// Somebody asks whether a transaction has prepared here. If it has not, it never will.
    fn query(
        &mut self,
        id: TransactionId,
        asker: Asker,
        ledger: &Ledger,
        out: &mut ParticipantOutput<F, V, W>,
    ) {
        if ledger.prepared.contains_key(&id) {
            return self.tell_one(id, &asker, State::Prepared, out);
        }
        if ledger.committed.contains_key(&id) {
            return self.tell_one(id, &asker, State::Committed, out);
        }
        let preparing =
            self.held.get(&id).is_some_and(|held| matches!(held.stage, Stage::Preparing));
        self.release_unprepared(id, out);
        let askers = self.askers.entry(id).or_default();
        let is_new = askers.is_empty();
        if !askers.contains(&asker) {
            askers.push(asker);
        }
        // Through the log: what was proposed before has been applied then, and this node leads.
        if is_new && !preparing {
            out.records.push(Record::Refuse(id));
        }
    }

    fn answer(
        &mut self,
        id: TransactionId,
        from: ShardId,
        state: State,
        ledger: &Ledger,
        out: &mut ParticipantOutput<F, V, W>,
    ) {
        if let Some(answered) = self.sweeps.get_mut(&id) {
            if state == State::Prepared {
                let answer = ToShard::Answer { id, from: self.shard, state: State::Committed };
                return out.messages.push(Message::Shard(from, answer));
            }
            answered.insert(from);
            let participants = ledger.committed.get(&id);
            if participants.is_none_or(|all| answered.len() + 1 >= all.len()) {
                self.sweeps.remove(&id);
                self.forget(id, out);
            }
            return;
        }
        let Some(held) = self.held.get_mut(&id) else { return };
        let Stage::Prepared { participants, prepared } = &mut held.stage else { return };
        match state {
            State::Committed => self.decide(id, None, true, ledger, out),
            State::Refused => self.decide(id, None, false, ledger, out),
            State::Prepared => {
                debug_assert!(from != self.shard, "nobody asks itself");
                prepared.insert(from);
                let missing = |shard: &ShardId| *shard != self.shard && !prepared.contains(shard);
                if !participants.is_empty() && !participants.iter().any(missing) {
                    self.decide(id, None, true, ledger, out);
                }
            }
        }
    }

    /// Time passes. Call at a fixed rate while leading.
    pub fn tick(&mut self, ledger: &Ledger, out: &mut ParticipantOutput<F, V, W>) {
        self.ticks += 1;
        out.records.append(&mut self.retry);
        if !self.forgettable.is_empty() {
            out.records.push(Record::Forget(std::mem::take(&mut self.forgettable)));
        }
        let mut late = Vec::new();
        for (&id, held) in &mut self.held {
            held.age += 1;
            match &mut held.stage {
                Stage::Waiting | Stage::Fetching | Stage::Granted
                    if held.age > TRANSACTION_LOCK_TICKS =>
                {
                    late.push(id);
                }
                Stage::Prepared { participants, .. } if held.age >= TRANSACTION_DOUBT_TICKS => {
                    held.age = 0;
                    if let Some(prepared) = ledger.prepared.get(&id) {
                        participants.clone_from(&prepared.participants);
                    }
                    for &to in participants.iter().filter(|to| **to != self.shard) {
                        let query = ToShard::Query { id, from: self.shard };
                        out.messages.push(Message::Shard(to, query));
                    }
                }
                _ => {}
            }
        }
        // In the order of ids: a map's order must not decide.
        late.sort_unstable();
        for id in late {
            let coordinator = self.held.get(&id).and_then(|held| held.coordinator);
            let (shard, reason) = (self.shard, super::coordinator::TIMED_OUT.to_string());
            out.to(coordinator, ToCoordinator::Failed { id, shard, reason });
            self.release_unprepared(id, out);
        }
        out.messages.sort_by_key(|message| match message {
            Message::Shard(_, ToShard::Query { id, .. }) => Some(*id),
            _ => None,
        });
        if self.ticks.is_multiple_of(TRANSACTION_SWEEP_TICKS) {
            self.sweep(ledger, out);
        }
        debug_assert!(self.is_sound());
    }

    /// Asks about committed transactions whose coordinator has not said that they are over.
    fn sweep(&mut self, ledger: &Ledger, out: &mut ParticipantOutput<F, V, W>) {
        let swept = std::mem::take(&mut self.swept);
        self.sweeps.retain(|id, _| ledger.committed.contains_key(id));
        for (&id, participants) in &ledger.committed {
            self.swept.insert(id);
            if swept.contains(&id) {
                self.sweeps.insert(id, BTreeSet::new());
                for &to in participants.iter().filter(|to| **to != self.shard) {
                    let query = ToShard::Query { id, from: self.shard };
                    out.messages.push(Message::Shard(to, query));
                }
            }
        }
    }
}
