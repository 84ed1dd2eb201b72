//! Locks on keys of one shard, in the order of transactions' ids.
//!
//! The one idea: a request is granted when no conflicting request with a smaller id is there and none is granted.
//! Requests of different shards travel side by side, so a request may find a younger one granted before it; that
//! one is asked to yield, and does unless it holds everything it needs already, in which case it ends soon. So of
//! any set of transactions that wait for each other the oldest goes first: no deadlock, no starvation.
//!
//! Keys are known by their hashes: two keys with one hash wait for each other, which is harmless.
//! Here is no time and no message; [`super::participant`] has those.

use super::{LockKey, LockSet, TransactionId};
use smallvec::SmallVec;
use std::collections::hash_map::Entry as MapEntry;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

/// A map whose keys hash themselves.
pub(super) type HashedMap<K, V> = HashMap<K, V, BuildHasherDefault<HashItself>>;

/// Takes a hash for what it is.
#[derive(Default)]
pub(super) struct HashItself(u64);

impl Hasher for HashItself {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("lock keys are written as one number");
    }

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

#[derive(Debug)]
struct Request {
    set: LockSet,
    granted: bool,
}

/// The locks of one shard.
#[derive(Debug, Default)]
pub(super) struct LockTable {
    requests: BTreeMap<TransactionId, Request>,
    /// For each key, the requests that name it, by id. Nearly always one.
    keys: HashedMap<u64, SmallVec<[Waiter; 2]>>,
    /// Requests for the whole shard, by id.
    whole: Vec<Waiter>,
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
        let held = |waiter: &Waiter| waiter.granted && waiter.exclusive;
        self.whole.iter().any(held) || self.keys.get(&key).is_some_and(|row| row.iter().any(held))
    }

    /// Does a granted exclusive lock cover any key?
    pub(super) fn is_any_held(&self) -> bool {
        self.requests.values().any(|request| request.granted && request.set.is_exclusive())
    }

    /// Would a request that comes last wait?
    pub(super) fn blocks(&self, set: &LockSet) -> bool {
        self.is_blocked(TransactionId::MAX, set)
    }

    /// Asks for locks. True when they are granted at once; else younger requests that are granted and in the way
    /// are appended to `younger`. Cost: a few lookups per key, no allocation while keys have one or two requests.
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
            insert_sorted(row, Waiter { id, exclusive: key.exclusive, granted });
        }
        if set.whole.is_some() {
            let exclusive = set.is_exclusive();
            let waiter = Waiter { id, exclusive, granted };
            let at = self.whole.partition_point(|other| other.id < id);
            self.whole.insert(at, waiter);
        }
        self.requests.insert(id, Request { set, granted });
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
                row.get_mut().retain(|waiter| waiter.id != id);
                if row.get().is_empty() {
                    row.remove();
                }
            }
        }
        self.whole.retain(|waiter| waiter.id != id);
        if !self.requests.is_empty() {
            self.grant_after(&request.set, granted);
        }
    }

    /// Changes the grant of a request, here and in every row. Returns what it locks.
    fn mark(&mut self, id: TransactionId, granted: bool) -> Option<LockSet> {
        let request = self.requests.get_mut(&id)?;
        request.granted = granted;
        let set = request.set.clone();
        for key in &set.keys {
            for waiter in self.keys.get_mut(&key.hash).into_iter().flatten() {
                if waiter.id == id {
                    waiter.granted = granted;
                }
            }
        }
        for waiter in self.whole.iter_mut().filter(|waiter| waiter.id == id) {
            waiter.granted = granted;
        }
        Some(set)
    }

    /// Grants what waited for these locks and nothing else, oldest first.
    fn grant_after(&mut self, set: &LockSet, granted: &mut Vec<TransactionId>) {
        let mut candidates: Vec<TransactionId> = Vec::new();
        if set.whole.is_some() {
            candidates.extend(self.requests.keys());
        } else {
            for key in &set.keys {
                candidates.extend(self.keys.get(&key.hash).into_iter().flatten().map(|w| w.id));
            }
            candidates.extend(self.whole.iter().map(|waiter| waiter.id));
            candidates.sort_unstable();
            candidates.dedup();
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
            self.keys
                .get(&key.hash)
                .is_some_and(|row| row.iter().any(|waiter| waiter.blocks(id, key.exclusive)))
        };
        if set.keys.iter().any(by_key) {
            return true;
        }
        let exclusive = set.is_exclusive();
        if self.whole.iter().any(|waiter| waiter.blocks(id, exclusive)) {
            return true;
        }
        set.whole.is_some()
            && self.requests.iter().any(|(other, request)| {
                let granted = request.granted;
                let waiter = Waiter { id: *other, exclusive: request.set.is_exclusive(), granted };
                waiter.blocks(id, exclusive)
            })
    }

    /// Granted requests with greater ids that are in the way.
    fn find_younger(&self, id: TransactionId, set: &LockSet, younger: &mut Vec<TransactionId>) {
        let start = younger.len();
        let exclusive = set.is_exclusive();
        let in_the_way = |waiter: &Waiter, exclusive: bool| {
            waiter.granted && waiter.id > id && (waiter.exclusive || exclusive)
        };
        for key in &set.keys {
            let row = self.keys.get(&key.hash).into_iter().flatten();
            younger.extend(row.filter(|w| in_the_way(w, key.exclusive)).map(|w| w.id));
        }
        younger.extend(self.whole.iter().filter(|w| in_the_way(w, exclusive)).map(|w| w.id));
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
        }
    }

    fn check(table: &LockTable, seed: u64) {
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
