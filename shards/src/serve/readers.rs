//! Reads that wait at a shard for its keys (XREAD with BLOCK).
//!
//! They change nothing, so nothing of them is logged: who waits is memory of the leader. A read
//! that finds nothing at its place in the order stays here, behind ids that are known from then on;
//! it is run again right after each operation that changed one of its keys, before the next
//! operation, and answered by the first that gave it something.
//!
//! What it has seen of the shard may be old, when another node leads by then: it is answered all
//! the same by nothing but an entry of this leader's, and there is none any more.
//!
//! Invariants: a read that waits has an asker that waits for nothing else; while it waits its keys
//! are marked in the keyspace; those of one key are answered in the order in which they came.

use crate::ids::DatabaseIndex;
use crate::keyspace::{Keyspace, View};
use crate::waiting::WaitKey;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

/// A read that waits.
struct Open<A, R> {
    asker: A,
    keys: Vec<WaitKey>,
    read: R,
}

/// All reads that wait at a shard, in the order in which they came.
pub struct Readers<A, R> {
    last: u64,
    open: BTreeMap<u64, Open<A, R>>,
    places: HashMap<A, u64>,
    by_key: HashMap<(DatabaseIndex, Box<[u8]>), BTreeSet<u64>>,
}

impl<A, R> Default for Readers<A, R> {
    fn default() -> Self {
        let (open, places, by_key) = Default::default();
        Readers { last: 0, open, places, by_key }
    }
}

impl<A: Copy + Eq + Hash, R> Readers<A, R> {
    /// Does nobody wait?
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// A read waits for keys of a shard, on behalf of an asker that waits for nothing else.
    pub fn add(&mut self, keyspace: &mut Keyspace, asker: A, keys: Vec<WaitKey>, read: R) {
        self.last += 1;
        for key in &keys {
            keyspace.start_reading(key.database, &key.bytes);
            let place = (key.database, key.bytes.clone());
            self.by_key.entry(place).or_default().insert(self.last);
        }
        assert!(self.places.insert(asker, self.last).is_none(), "an asker waits once");
        self.open.insert(self.last, Open { asker, keys, read });
    }

    /// Runs the reads again that wait for what has changed since this was called before. Returns
    /// those that `run` gave something, which wait no longer. `has`: is there what a key is waited
    /// for?
    pub fn serve<T>(
        &mut self,
        keyspace: &mut Keyspace,
        now_ms: i64,
        has: impl Fn(&View<'_>, &WaitKey) -> bool,
        mut run: impl FnMut(&Keyspace, &R) -> Option<T>,
    ) -> Vec<(R, T)> {
        let mut served = Vec::new();
        for of_key in keyspace.take_keys_to_read() {
            let Some(places) = self.by_key.get(&of_key) else { continue };
            for place in places.clone() {
                let (open, view) = (&self.open[&place], keyspace.view(of_key.0, now_ms));
                let mut mine = open.keys.iter().filter(|key| key.bytes == of_key.1);
                if !mine.any(|key| has(&view, key)) {
                    continue;
                }
                if let Some(told) = run(keyspace, &open.read) {
                    served.extend(self.remove(keyspace, place).map(|read| (read, told)));
                }
            }
        }
        served
    }

    /// An asker waits no longer. Returns its read; `None` when it did not wait.
    pub fn end(&mut self, keyspace: &mut Keyspace, asker: A) -> Option<R> {
        let place = *self.places.get(&asker)?;
        self.remove(keyspace, place)
    }

    /// Nobody waits any longer. Returns all reads, in their order.
    pub fn end_all(&mut self, keyspace: &mut Keyspace) -> Vec<R> {
        let places: Vec<u64> = self.open.keys().copied().collect();
        places.into_iter().filter_map(|place| self.remove(keyspace, place)).collect()
    }

    fn remove(&mut self, keyspace: &mut Keyspace, place: u64) -> Option<R> {
        let Open { asker, keys, read } = self.open.remove(&place)?;
        for key in keys {
            keyspace.stop_reading(key.database, &key.bytes);
            let of_key = (key.database, key.bytes);
            // A key may be named twice.
            if let Some(places) = self.by_key.get_mut(&of_key) {
                places.remove(&place);
                if places.is_empty() {
                    self.by_key.remove(&of_key);
                }
            }
        }
        self.places.remove(&asker);
        Some(read)
    }
}
