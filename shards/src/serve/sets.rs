//! Sets: what is proposed together, and what runs beside it.

use super::beforehand::Beforehand;
use super::{Host, Server};
use crate::arguments::Arguments;
use crate::batch::{Batch, BatchBuilder, Operation};
use crate::ids::{DatabaseIndex, Index, Term};
use crate::keyspace::KeyHash;
use crate::limits::{ENTRIES_IN_FLIGHT_MAX, RAFT_UNCOMMITTED_BYTES_MAX, SET_BYTES_MAX};
use crate::waiting::Round;

/// One request that waits for its place in the shard's order.
#[derive(Clone, Copy, Debug)]
pub struct Waiting<W> {
    /// Who waits for it.
    pub who: W,
    /// Is it part of the entry, or does it ride along?
    pub proposed: bool,
    /// Its place among the proposed or the riding ones.
    pub place: u32,
}

/// Requests that will be proposed together.
pub struct Set<H: Host> {
    /// Writes: the entry.
    pub batch: BatchBuilder,
    /// Reads that wait for writes before them.
    pub riders: BatchBuilder,
    /// All of them in order.
    pub order: Vec<Waiting<H::Who>>,
    /// Its number among those that serve waiting commands.
    pub round: Option<Round>,
    /// Must everything before be applied before it is proposed?
    pub is_behind: bool,
    /// What must be as it was when everything before is applied. A set with a guard is one
    /// transaction alone.
    pub(super) guard: Option<H::Guard>,
    /// Does somebody wait for the reply of a read in it?
    pub(super) is_asked: bool,
    /// Its operations are done already, and nobody waits for it: see [`super::beforehand`].
    pub(super) beforehand: Option<Beforehand>,
}

impl<H: Host> Default for Set<H> {
    fn default() -> Self {
        Set {
            batch: BatchBuilder::default(),
            riders: BatchBuilder::default(),
            order: Vec::new(),
            round: None,
            is_behind: false,
            guard: None,
            is_asked: false,
            beforehand: None,
        }
    }
}

impl<H: Host> Set<H> {
    /// Is nothing in it?
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty() && self.beforehand.is_none()
    }

    /// The operation of one of its requests, and its arguments. `batch` is the set's entry; without
    /// one only riders are asked for.
    #[inline(always)]
    pub fn operation<'a>(
        &'a self,
        waiting: &Waiting<H::Who>,
        batch: Option<&Batch<'a>>,
    ) -> (&'a Operation, Arguments<'a>) {
        let place = waiting.place as usize;
        match (waiting.proposed, batch) {
            (true, Some(batch)) => batch.operation(place),
            (true, None) => unreachable!("a set with writes is run with its entry"),
            (false, _) => self.riders.operation(place),
        }
    }

    /// Is it proposed only when all before it is applied?
    fn stands_alone(&self) -> bool {
        self.guard.is_some() || self.is_behind
    }

    /// Is nobody in it, so that it may be one whose operations are done?
    pub(super) fn may_be_done(&self) -> bool {
        self.order.is_empty() && !self.stands_alone() && self.round.is_none()
    }

    fn is_full(&self) -> bool {
        let bytes = self.batch.encoded_bytes().max(self.riders.encoded_bytes());
        self.guard.is_some() || self.beforehand.is_some() || bytes >= SET_BYTES_MAX
    }

    fn clear(&mut self) {
        self.batch.clear();
        self.riders.clear();
        self.order.clear();
        self.guard = None;
        self.is_behind = false;
        self.is_asked = false;
        self.beforehand = None;
    }

    #[inline(always)]
    fn push_write(
        &mut self,
        who: H::Who,
        number: u16,
        database: DatabaseIndex,
        first_key: KeyHash,
        arguments: Arguments<'_>,
    ) {
        let place = self.batch.push(number, database, first_key, arguments) as u32;
        debug_assert!(self.order.len() >= place as usize, "every operation has somebody");
        debug_assert!(self.beforehand.is_none(), "who waits has a set of its own");
        self.order.push(Waiting { who, proposed: true, place });
    }
}

/// A set on its way through the log; without a write it waits for the one before.
pub(super) struct Flight<H: Host> {
    pub(super) index: Index,
    pub(super) term: Term,
    pub(super) set: Box<Set<H>>,
}

impl<H: Host> Server<H> {
    /// Appends a write to the entry that gathers. Cost: one copy of its arguments.
    #[inline(always)]
    pub fn gather_write(
        &mut self,
        who: H::Who,
        number: u16,
        database: DatabaseIndex,
        first_key: KeyHash,
        arguments: Arguments<'_>,
    ) {
        self.open_set().push_write(who, number, database, first_key, arguments);
    }

    /// Appends a write to the newest set, whatever its size.
    pub fn gather_beside(
        &mut self,
        who: H::Who,
        number: u16,
        database: DatabaseIndex,
        first_key: KeyHash,
        arguments: Arguments<'_>,
    ) {
        self.newest_set().push_write(who, number, database, first_key, arguments);
    }

    /// Appends a read behind the writes it must see.
    pub fn gather_rider(
        &mut self,
        who: H::Who,
        number: u16,
        database: DatabaseIndex,
        first_key: KeyHash,
        arguments: Arguments<'_>,
    ) {
        let set = self.open_set();
        let place = set.riders.push(number, database, first_key, arguments) as u32;
        set.is_asked |= !H::is_step(&who);
        set.order.push(Waiting { who, proposed: false, place });
    }

    /// What is gathered next goes into a set of its own. It runs only if its guard holds then: see
    /// [`Server::guard`].
    pub fn begin_guarded(&mut self) {
        if !self.open_set().is_empty() {
            self.begin_set();
        }
    }

    pub(super) fn begin_set(&mut self) {
        let fresh = self.spare.pop().unwrap_or_default();
        self.sets.push_back(fresh);
    }

    /// Guards what was gathered since [`Server::begin_guarded`].
    pub fn guard(&mut self, guard: H::Guard) {
        let set = self.newest_set();
        debug_assert!(set.guard.is_none() && !set.is_empty(), "a guard is for one transaction");
        set.guard = Some(guard);
    }

    /// The set that gathers.
    #[inline]
    pub fn open_set(&mut self) -> &mut Set<H> {
        if self.sets.back().is_none_or(|set| set.is_full()) {
            self.begin_set();
        }
        self.newest_set()
    }

    /// The newest set, full or not.
    pub fn newest_set(&mut self) -> &mut Set<H> {
        self.sets.back_mut().expect("somebody has gathered")
    }

    /// Operations that are gathered or on their way through the log, and not done.
    pub fn proposed_count(&self) -> usize {
        let undone = self.proposed_sets().filter(|set| set.beforehand.is_none());
        undone.map(|set| set.batch.count()).sum()
    }

    /// Sets that are not on their way yet, and that the log may refuse.
    pub fn gathering_count(&self) -> usize {
        self.sets.iter().filter(|set| !set.order.is_empty()).count()
    }

    /// Does one of these operations meet a condition?
    pub fn any_proposed(
        &self,
        mut meets: impl FnMut(&H::Who, &Operation, Arguments<'_>) -> bool,
    ) -> bool {
        self.proposed_sets().any(|set| {
            set.order.iter().filter(|waiting| waiting.proposed).any(|waiting| {
                let (operation, arguments) = set.batch.operation(waiting.place as usize);
                meets(&waiting.who, operation, arguments)
            })
        })
    }

    fn proposed_sets(&self) -> impl Iterator<Item = &Set<H>> {
        let flying = self.flights.iter().map(|flight| &*flight.set);
        flying.chain(self.sets.iter().map(|set| &**set))
    }

    /// Is there a set that the pipeline has room for?
    pub fn may_propose(&self) -> bool {
        self.sets.front().is_some_and(|set| {
            !set.is_empty()
                && self.flights.len() < ENTRIES_IN_FLIGHT_MAX
                && (self.flights.is_empty() || !set.stands_alone())
                && !self.awaits_room(set)
                && !self.awaits_commit(set)
        })
    }

    /// Must a set wait until a segment of the log is made, or proves impossible?
    fn awaits_room(&self, set: &Set<H>) -> bool {
        set.batch.count() > 0 && self.group.awaits_room(set.batch.encoded_bytes())
    }

    /// Is a set too large to be proposed beside those under way? Alone, any set is taken. One that
    /// is done is written at once, and so is what goes with it.
    fn awaits_commit(&self, set: &Set<H>) -> bool {
        let flying = self.flights.iter().map(|flight| flight.set.batch.encoded_bytes());
        let flying: usize = flying.sum();
        if flying == 0 || set.batch.count() == 0 {
            return false;
        }
        let all = flying + set.batch.encoded_bytes();
        let is_behind_done =
            self.flights.front().is_some_and(|flight| flight.set.beforehand.is_some());
        all as u64 > RAFT_UNCOMMITTED_BYTES_MAX || is_behind_done && !self.group.takes_at_once(all)
    }

    pub(super) fn recycle(&mut self, mut set: Box<Set<H>>) {
        self.settled.extend(set.round.take());
        set.clear();
        debug_assert!(set.is_empty() && set.batch.count() == 0 && set.riders.count() == 0);
        if self.spare.len() < ENTRIES_IN_FLIGHT_MAX {
            self.spare.push(set);
        }
    }
}
