//! Sorted sets whose index has members that were cut off: swept bit by bit, in between.

use super::{Key, Keyspace, lend};
use crate::ids::DatabaseIndex;
use std::collections::BTreeSet;

/// Leaves whose members a step takes out of an index: a search for each of some hundred.
const SWEPT_LEAVES: usize = 2;

/// Keys of such sorted sets, or of what is there now: each with its database.
pub(super) type Unswept = BTreeSet<(DatabaseIndex, Box<[u8]>)>;

impl Keyspace {
    /// A key holds a sorted set that is to be swept.
    #[cold]
    pub(super) fn will_sweep(&mut self, database: DatabaseIndex, key: &[u8]) {
        self.unswept.insert((database, key.into()));
    }

    /// Two databases have changed places.
    pub(super) fn swap_swept(&mut self, one: DatabaseIndex, other: DatabaseIndex) {
        let swapped = |database| match database {
            database if database == one => other,
            database if database == other => one,
            database => database,
        };
        let all = std::mem::take(&mut self.unswept);
        self.unswept = all.into_iter().map(|(at, key)| (swapped(at), key)).collect();
    }

    /// Sweeps some leaves. Is there more? What is swept is to be seen by nobody, so neither a cut
    /// nor a watch is concerned.
    pub(super) fn sweep_some(&mut self) -> bool {
        let Some((database, key)) = self.unswept.pop_first() else { return false };
        let hashed = Key::new(&key, self.hasher.hash(&key));
        let place = self.databases[database.0 as usize].find(&hashed);
        if let Some(item) = place.map(lend::item_at).filter(|item| item.has_body()) {
            let body = lend::borrow_body_mut(item);
            let before = body.bytes();
            let more = body.sweep(SWEPT_LEAVES);
            self.memory.add(body.bytes());
            self.memory.subtract(before);
            if more {
                self.unswept.insert((database, key));
            }
        }
        !self.unswept.is_empty()
    }
}
