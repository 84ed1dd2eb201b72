//! Locks on keys of one shard, in the order of transactions' ids.
//!
//! The one idea: a request is granted when no conflicting request with a smaller id is there and
//! none is granted. Requests of different shards travel side by side, so a request may find a
//! younger one granted before it; that one is asked to yield, and does unless it holds everything
//! it needs already, in which case it ends soon. So of any set of transactions that wait for each
//! other the oldest goes first: no deadlock, no starvation.
//!
//! Keys are known by their hashes: two keys with one hash wait for each other, which is harmless.
//! Here is no time and no message; [`super::participant`] has those.

use super::{LockKey, LockSet, TransactionId};
use smallvec::SmallVec;
use std::collections::hash_map::Entry as MapEntry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

/// A map whose keys are hashes, or have one as their last part.
pub type HashedMap<K, V> = HashMap<K, V, BuildHasherDefault<HashItself>>;

/// Takes a hash for what it is.
#[derive(Default)]
pub struct HashItself(u64);

impl Hasher for HashItself {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("lock keys are written as one number");
    }

    fn write_u8(&mut self, _small: u8) {}

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    id: TransactionId,
    exclusive: bool,
    granted: bool,
}

impl Waiter {
    /// Must a request with this id and mode wait for it?
    fn blocks(&self, id: TransactionId, exclusive: bool) -> bool {
        self.id != id && (self.exclusive || exclusive) && (self.granted || self.id < id)
    }
}

/// The requests that name one key, by id. Nearly always one; a client may make them thousands, and
/// then no step looks at all of them.
#[derive(Debug)]
enum Row {
    Few(SmallVec<[Waiter; 2]>),
    Many(Box<Many>),
}

/// Requests of a key that many name.
#[derive(Debug, Default)]
struct Many {
    waiters: BTreeMap<TransactionId, Waiter>,
    exclusive: BTreeSet<TransactionId>,
    granted: BTreeSet<TransactionId>,
    granted_exclusive: BTreeSet<TransactionId>,
    waiting: BTreeSet<TransactionId>,
}

/// A row of more requests is kept as [`Row::Many`].
const FEW_MAX: usize = 8;

impl Default for Row {
    fn default() -> Row {
        Row::Few(SmallVec::new())
    }
}

impl Row {
    fn is_empty(&self) -> bool {
        match self {
            Row::Few(row) => row.is_empty(),
            Row::Many(many) => many.waiters.is_empty(),
        }
    }

    /// Must a request with this id and mode wait for another one of this row?
    #[inline]
    fn blocks(&self, id: TransactionId, exclusive: bool) -> bool {
        match self {
            Row::Few(row) => row.iter().any(|waiter| waiter.blocks(id, exclusive)),
            Row::Many(many) => many.blocks(id, exclusive),
        }
    }

    /// Is one of them granted, and alone?
    fn is_held(&self) -> bool {
        match self {
            Row::Few(row) => row.iter().any(|waiter| waiter.granted && waiter.exclusive),
            Row::Many(many) => !many.granted_exclusive.is_empty(),
        }
    }

    /// Is one of them granted, but for these?
    fn is_taken(&self, but: &[TransactionId]) -> bool {
        match self {
            Row::Few(row) => row.iter().any(|waiter| waiter.granted && !but.contains(&waiter.id)),
            Row::Many(many) => many.granted.iter().any(|id| !but.contains(id)),
        }
    }

    fn insert(&mut self, waiter: Waiter) {
        match self {
            Row::Few(row) if row.len() < FEW_MAX => insert_sorted(row, waiter),
            Row::Few(row) => {
                let mut many = Box::<Many>::default();
                row.drain(..).chain([waiter]).for_each(|waiter| many.insert(waiter));
                *self = Row::Many(many);
            }
            Row::Many(many) => many.insert(waiter),
        }
    }

    fn remove(&mut self, id: TransactionId) {
        match self {
            Row::Few(row) => row.retain(|waiter| waiter.id != id),
            Row::Many(many) => many.remove(id),
        }
    }

    fn mark(&mut self, id: TransactionId, granted: bool) {
        match self {
            Row::Few(row) => {
                for waiter in row.iter_mut().filter(|waiter| waiter.id == id) {
                    waiter.granted = granted;
                }
            }
            Row::Many(many) => many.mark(id, granted),
        }
    }

    /// Those that wait and may be granted: behind the first that wants the key alone, none may.
    fn candidates(&self, out: &mut Vec<TransactionId>) {
        match self {
            Row::Few(row) => out.extend(row.iter().filter(|w| !w.granted).map(|w| w.id)),
            Row::Many(many) => {
                for id in &many.waiting {
                    out.push(*id);
                    if many.exclusive.contains(id) {
                        break;
                    }
                }
            }
        }
    }

    /// Granted ones with greater ids that are in the way.
    fn younger(&self, id: TransactionId, exclusive: bool, out: &mut Vec<TransactionId>) {
        match self {
            Row::Few(row) => {
                let in_the_way = |w: &&Waiter| w.granted && w.id > id && (w.exclusive || exclusive);
                out.extend(row.iter().filter(in_the_way).map(|w| w.id));
            }
            Row::Many(many) => many.younger(id, exclusive, out),
        }
    }
}

impl Many {
    fn blocks(&self, id: TransactionId, exclusive: bool) -> bool {
        let (all, granted) = match exclusive {
            true => (self.waiters.range(..id).next().is_some(), &self.granted),
            false => (self.exclusive.range(..id).next().is_some(), &self.granted_exclusive),
        };
        all || granted.iter().any(|other| *other != id)
    }

    fn younger(&self, id: TransactionId, exclusive: bool, out: &mut Vec<TransactionId>) {
        let granted = if exclusive { &self.granted } else { &self.granted_exclusive };
        out.extend(granted.range(id..).filter(|other| **other != id));
    }

    fn mark(&mut self, id: TransactionId, granted: bool) {
        if let Some(waiter) = self.waiters.get(&id).copied() {
            self.remove(id);
            self.insert(Waiter { granted, ..waiter });
        }
    }

    fn insert(&mut self, mut waiter: Waiter) {
        if let Some(same) = self.waiters.get(&waiter.id) {
            // One request that names a key twice.
            waiter.exclusive |= same.exclusive;
        }
        let id = waiter.id;
        if waiter.exclusive {
            self.exclusive.insert(id);
        }
        if waiter.granted {
            self.granted.insert(id);
            if waiter.exclusive {
                self.granted_exclusive.insert(id);
            }
        } else {
            self.waiting.insert(id);
        }
        self.waiters.insert(id, waiter);
    }

    fn remove(&mut self, id: TransactionId) {
        self.waiters.remove(&id);
        let sets = [
            &mut self.exclusive,
            &mut self.granted,
            &mut self.granted_exclusive,
            &mut self.waiting,
        ];
        for set in sets {
            set.remove(&id);
        }
    }
}

#[derive(Debug)]
struct Request {
    set: LockSet,
    granted: bool,
}

/// The locks of one shard.
#[derive(Debug, Default)]
pub(super) struct LockTable {
    requests: BTreeMap<TransactionId, Request>,
    /// For each key, the requests that name it.
    keys: HashedMap<u64, Row>,
    /// Requests for the whole shard.
    whole: Row,
    /// All requests, while one for the whole shard is among them: exclusive when they lock
    /// anything alone.
    all: Option<Box<Many>>,
    /// Requests that are granted and lock anything alone.
    held_alone: usize,
    /// Requests that were looked at to be granted.
    #[cfg(test)]
    looked_at: usize,
}

impl LockTable {
    /// Is nothing locked and does nobody wait?
    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Requests that are there, granted or not.
    pub(super) fn count(&self) -> usize {
        self.requests.len()
    }

    /// What a request locks; `None` when it is not there.
    pub(super) fn set(&self, id: TransactionId) -> Option<&LockSet> {
        self.requests.get(&id).map(|request| &request.set)
    }

    #[cfg(test)]
    /// Is this request granted? `None` when it is not there.
    pub(super) fn is_granted(&self, id: TransactionId) -> Option<bool> {
        self.requests.get(&id).map(|request| request.granted)
    }

    /// Does a granted exclusive lock cover this key?
    pub(super) fn is_held(&self, key: u64) -> bool {
        self.whole.is_held() || self.keys.get(&key).is_some_and(Row::is_held)
    }

    /// Does a granted lock of any kind cover this key, but for those of these?
    pub(super) fn is_taken(&self, key: u64, but: &[TransactionId]) -> bool {
        self.whole.is_taken(but) || self.keys.get(&key).is_some_and(|row| row.is_taken(but))
    }

    /// Does a granted exclusive lock cover any key?
    pub(super) fn is_any_held(&self) -> bool {
        self.held_alone > 0
    }

    /// Would a request that comes last wait?
    pub(super) fn blocks(&self, set: &LockSet) -> bool {
        self.is_blocked(TransactionId::MAX, set)
    }

    /// Asks for locks. True when they are granted at once; else younger requests that are granted
    /// and in the way are appended to `younger`. Cost: a few lookups per key, no allocation
    /// while keys have one or two requests.
    pub(super) fn request(
        &mut self,
        id: TransactionId,
        set: LockSet,
        younger: &mut Vec<TransactionId>,
    ) -> bool {
        debug_assert!(!self.requests.contains_key(&id) && !set.is_empty(), "{id} asks once");
        let granted = !self.is_blocked(id, &set);
        if !granted {
            self.find_younger(id, &set, younger);
        }
        self.insert(id, set, granted);
        granted
    }

    /// Takes locks for a transaction that has them already, by the log.
    pub(super) fn force(&mut self, id: TransactionId, set: LockSet) {
        if !self.requests.contains_key(&id) {
            self.insert(id, set, true);
        }
    }

    fn insert(&mut self, id: TransactionId, set: LockSet, granted: bool) {
        for key in &set.keys {
            let row = self.keys.entry(key.hash).or_default();
            row.insert(Waiter { id, exclusive: key.exclusive, granted });
        }
        let waiter = Waiter { id, exclusive: set.is_exclusive(), granted };
        self.held_alone += usize::from(granted && waiter.exclusive);
        if set.whole.is_some() {
            if self.whole.is_empty() {
                self.all = Some(Box::new(self.list_all()));
            }
            self.whole.insert(waiter);
        }
        if let Some(all) = &mut self.all {
            all.insert(waiter);
        }
        self.requests.insert(id, Request { set, granted });
    }

    fn list_all(&self) -> Many {
        let mut all = Many::default();
        for (&id, request) in &self.requests {
            all.insert(Waiter {
                id,
                exclusive: request.set.is_exclusive(),
                granted: request.granted,
            });
        }
        all
    }

    /// Gives a grant back and waits again. Requests that are granted for it are appended.
    pub(super) fn revoke(&mut self, id: TransactionId, granted: &mut Vec<TransactionId>) {
        let Some(set) = self.mark(id, false) else { return };
        self.grant_after(&set, granted);
    }

    /// Ends a request. Requests that are granted for it are appended, oldest first.
    pub(super) fn release(&mut self, id: TransactionId, granted: &mut Vec<TransactionId>) {
        let Some(request) = self.requests.remove(&id) else { return };
        for key in &request.set.keys {
            if let MapEntry::Occupied(mut row) = self.keys.entry(key.hash) {
                row.get_mut().remove(id);
                if row.get().is_empty() {
                    row.remove();
                }
            }
        }
        self.held_alone -= usize::from(request.granted && request.set.is_exclusive());
        if let Some(all) = &mut self.all {
            all.remove(id);
        }
        if request.set.whole.is_some() {
            self.whole.remove(id);
        }
        if !self.requests.is_empty() {
            self.grant_after(&request.set, granted);
        }
        if self.whole.is_empty() {
            self.all = None;
        }
    }

    /// Changes the grant of a request, here and in every row. Returns what it locks.
    fn mark(&mut self, id: TransactionId, granted: bool) -> Option<LockSet> {
        let request = self.requests.get_mut(&id)?;
        let before = std::mem::replace(&mut request.granted, granted);
        let set = request.set.clone();
        if set.is_exclusive() {
            self.held_alone = self.held_alone + usize::from(granted) - usize::from(before);
        }
        for key in &set.keys {
            if let Some(row) = self.keys.get_mut(&key.hash) {
                row.mark(id, granted);
            }
        }
        if set.whole.is_some() {
            self.whole.mark(id, granted);
        }
        if let Some(all) = &mut self.all {
            all.mark(id, granted);
        }
        Some(set)
    }

    /// Grants what waited for these locks and nothing else, oldest first.
    fn grant_after(&mut self, set: &LockSet, granted: &mut Vec<TransactionId>) {
        let mut candidates: Vec<TransactionId> = Vec::new();
        if let Some(all) = self.all.as_ref().filter(|_| set.whole.is_some()) {
            for id in &all.waiting {
                candidates.push(*id);
                // Behind one that wants everything alone, none may.
                if self.requests[id].set.whole == Some(true) {
                    break;
                }
            }
        } else {
            for key in &set.keys {
                if let Some(row) = self.keys.get(&key.hash) {
                    row.candidates(&mut candidates);
                }
            }
            self.whole.candidates(&mut candidates);
            candidates.sort_unstable();
            candidates.dedup();
        }
        #[cfg(test)]
        {
            self.looked_at += candidates.len();
        }
        for id in candidates {
            let request = &self.requests[&id];
            if !request.granted && !self.is_blocked(id, &request.set) {
                self.mark(id, true);
                granted.push(id);
            }
        }
    }

    fn is_blocked(&self, id: TransactionId, set: &LockSet) -> bool {
        let by_key = |key: &LockKey| {
            self.keys.get(&key.hash).is_some_and(|row| row.blocks(id, key.exclusive))
        };
        if set.keys.iter().any(by_key) {
            return true;
        }
        let exclusive = set.is_exclusive();
        if self.whole.blocks(id, exclusive) {
            return true;
        }
        match (&self.all, set.whole) {
            (_, None) => false,
            (Some(all), Some(_)) => all.blocks(id, exclusive),
            (None, Some(_)) => self.list_all().blocks(id, exclusive),
        }
    }

    /// Granted requests with greater ids that are in the way.
    fn find_younger(&self, id: TransactionId, set: &LockSet, younger: &mut Vec<TransactionId>) {
        let start = younger.len();
        let exclusive = set.is_exclusive();
        for key in &set.keys {
            if let Some(row) = self.keys.get(&key.hash) {
                row.younger(id, key.exclusive, younger);
            }
        }
        self.whole.younger(id, exclusive, younger);
        if set.whole.is_some() {
            let others = self.requests.range(id..).filter(|(other, request)| {
                **other != id && request.granted && (exclusive || request.set.is_exclusive())
            });
            younger.extend(others.map(|(other, _)| *other));
        }
        younger[start..].sort_unstable();
        younger.dedup();
    }
}

fn insert_sorted(row: &mut SmallVec<[Waiter; 2]>, waiter: Waiter) {
    match row.iter_mut().find(|other| other.id == waiter.id) {
        // One request that names a key twice.
        Some(same) => same.exclusive |= waiter.exclusive,
        None => {
            let at = row.iter().position(|other| other.id > waiter.id).unwrap_or(row.len());
            row.insert(at, waiter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn id(time: u64) -> TransactionId {
        TransactionId { time, origin: 1 }
    }

    fn set(keys: &[(u64, bool)]) -> LockSet {
        let keys = keys.iter().map(|&(hash, exclusive)| LockKey { hash, exclusive }).collect();
        LockSet { keys, whole: None }
    }

    #[test]
    fn a_long_row_is_served_in_order_without_looking_at_all_of_it() {
        const COUNT: u64 = 20_000;
        for every in [1, 2, 10, COUNT] {
            let mut table = LockTable::default();
            let mut younger = Vec::new();
            for n in 1..=COUNT {
                table.request(id(n), set(&[(7, n.is_multiple_of(every))]), &mut younger);
            }
            assert!(younger.is_empty());
            let mut order = Vec::new();
            for n in 1..=COUNT {
                assert_eq!(table.is_granted(id(n)), Some(true), "{n}, every {every}");
                table.release(id(n), &mut order);
            }
            assert!(order.is_sorted() && table.is_empty() && table.keys.is_empty());
            assert!(table.looked_at <= 3 * COUNT as usize, "{} looks", table.looked_at);
        }
    }

    /// The same for requests of the whole shard, in the midst of requests of keys.
    #[test]
    fn a_long_row_of_the_whole_shard_is_served_without_looking_at_all_of_it() {
        const COUNT: u64 = 20_000;
        for every in [1, 2, 10] {
            let mut table = LockTable::default();
            let mut younger = Vec::new();
            for n in 1..=COUNT {
                let whole =
                    LockSet { keys: SmallVec::new(), whole: Some(n.is_multiple_of(2 * every)) };
                let wanted = if n.is_multiple_of(every) { whole } else { set(&[(n, true)]) };
                table.request(id(n), wanted, &mut younger);
            }
            let mut order = Vec::new();
            for n in 1..=COUNT {
                assert_eq!(table.is_granted(id(n)), Some(true), "{n}, every {every}");
                table.release(id(n), &mut order);
            }
            assert!(table.is_empty() && table.keys.is_empty() && table.all.is_none());
            assert!(table.looked_at <= 3 * COUNT as usize, "{} looks", table.looked_at);
        }
    }

    #[test]
    fn shared_locks_go_together_and_exclusive_ones_wait_in_order() {
        let mut table = LockTable::default();
        let mut younger = Vec::new();
        assert!(table.request(id(1), set(&[(7, false)]), &mut younger));
        assert!(table.request(id(2), set(&[(7, false), (8, true)]), &mut younger));
        assert!(!table.request(id(3), set(&[(7, true)]), &mut younger));
        assert!(!table.request(id(4), set(&[(7, false)]), &mut younger), "behind the writer");
        assert!(younger.is_empty());
        assert!(table.is_held(8) && !table.is_held(7));
        let mut granted = Vec::new();
        table.release(id(1), &mut granted);
        assert!(granted.is_empty());
        table.release(id(2), &mut granted);
        assert_eq!(granted, [id(3)]);
        table.release(id(3), &mut granted);
        assert_eq!(granted, [id(3), id(4)]);
        table.release(id(4), &mut granted);
        assert!(table.is_empty() && table.keys.is_empty());
    }

    #[test]
    fn a_younger_grant_in_the_way_is_named_and_can_yield() {
        let mut table = LockTable::default();
        let mut younger = Vec::new();
        assert!(table.request(id(5), set(&[(1, true)]), &mut younger));
        assert!(!table.request(id(3), set(&[(1, true), (2, true)]), &mut younger));
        assert_eq!(younger, [id(5)]);
        let mut granted = Vec::new();
        table.revoke(id(5), &mut granted);
        assert_eq!(granted, [id(3)]);
        assert_eq!(table.is_granted(id(5)), Some(false));
        granted.clear();
        table.release(id(3), &mut granted);
        assert_eq!(granted, [id(5)]);
    }

    #[test]
    fn a_lock_on_the_whole_shard_waits_for_all_and_holds_up_all() {
        let mut table = LockTable::default();
        let mut younger = Vec::new();
        assert!(table.request(id(1), set(&[(1, true)]), &mut younger));
        let whole = LockSet { keys: SmallVec::new(), whole: Some(true) };
        assert!(!table.request(id(2), whole, &mut younger));
        assert!(!table.request(id(3), set(&[(9, false)]), &mut younger));
        let mut granted = Vec::new();
        table.release(id(1), &mut granted);
        assert_eq!(granted, [id(2)]);
        assert!(table.is_held(77));
        table.release(id(2), &mut granted);
        assert_eq!(granted, [id(2), id(3)]);
    }

    /// Whatever comes and goes: no two conflicting grants, and what nothing blocks is granted.
    #[test]
    fn grants_never_conflict_and_nobody_is_forgotten() {
        for seed in 0..300 {
            let mut chance = Random::new(seed);
            let mut table = LockTable::default();
            let (mut younger, mut granted) = (Vec::new(), Vec::new());
            let mut ids = Vec::new();
            for step in 0..200 {
                if chance.below(2) == 0 || ids.is_empty() {
                    let id = id(1000 + step * 3 - chance.below(9));
                    if table.requests.contains_key(&id) {
                        continue;
                    }
                    let mut wanted = LockSet::default();
                    for _ in 0..chance.below(4) {
                        let (hash, exclusive) = (chance.below(6), chance.below(2) == 0);
                        wanted.keys.push(LockKey { hash, exclusive });
                    }
                    if chance.below(8) == 0 {
                        wanted.whole = Some(chance.below(2) == 0);
                    }
                    if wanted.is_empty() {
                        continue;
                    }
                    table.request(id, wanted, &mut younger);
                    ids.push(id);
                } else {
                    let id = ids[chance.below(ids.len() as u64) as usize];
                    if chance.below(4) == 0 {
                        table.revoke(id, &mut granted);
                    } else {
                        table.release(id, &mut granted);
                        ids.retain(|other| *other != id);
                    }
                }
                check(&table, seed);
            }
            for id in ids {
                table.release(id, &mut granted);
            }
            assert!(table.is_empty() && table.keys.is_empty() && table.whole.is_empty());
            assert!(table.all.is_none() && table.held_alone == 0);
        }
    }

    fn check(table: &LockTable, seed: u64) {
        let alone = |request: &&Request| request.granted && request.set.is_exclusive();
        assert_eq!(table.held_alone, table.requests.values().filter(alone).count());
        if let Some(all) = &table.all {
            assert!(all.waiters.keys().eq(table.requests.keys()));
        }
        let conflict = |a: &LockSet, b: &LockSet| {
            let either = a.is_exclusive() || b.is_exclusive();
            let whole = (a.whole.is_some() || b.whole.is_some()) && either;
            whole
                || a.keys.iter().any(|x| {
                    b.keys.iter().any(|y| x.hash == y.hash && (x.exclusive || y.exclusive))
                })
        };
        for (id, request) in &table.requests {
            let others = table.requests.iter().filter(|(other, _)| *other != id);
            let mut blocked = false;
            for (other, theirs) in others {
                if conflict(&request.set, &theirs.set) {
                    assert!(!(request.granted && theirs.granted), "{id} and {other}, seed {seed}");
                    blocked |= theirs.granted || other < id;
                }
            }
            assert!(request.granted || blocked, "{id} waits for nothing, seed {seed}");
        }
    }
}
