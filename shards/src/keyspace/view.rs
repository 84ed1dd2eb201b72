//! Reading a database at one time.

use super::access::AccessClock;
use super::database::Database;
use super::evict::mix;
use super::item::{Item, RawItem};
use super::lend;
use super::table::{POSITION_END, position_of};
use super::{Key, KeyHash, KeyHasher, Keyspace};
use crate::ids::DatabaseIndex;
use crate::limits::{RANDOM_TRIES, SCAN_BUCKETS_PER_ITEM};
use crate::slot::SLOT_COUNT;

/// Says of a key whether it is left out.
pub type Hidden<'a> = dyn Fn(&[u8]) -> bool + 'a;

/// Reads one database at one time.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub(super) keyspace: &'a Keyspace,
    pub(super) database: DatabaseIndex,
    pub(super) now_ms: i64,
    /// Does a read count as an access?
    pub(super) touches: bool,
    /// Are hits and misses counted?
    pub(super) counts: bool,
    /// Keys that are left out of what looks at all keys.
    pub(super) hidden: Option<&'a Hidden<'a>>,
}

/// A position of a scan: a slot and a lower bound of the hash within it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScanPosition {
    /// The slot to go on with.
    pub slot: usize,
    /// Lower bound of the top 48 bits of the hash. Where a scan is interrupted it is a multiple of
    /// [`SCAN_UNIT`].
    pub hash: u64,
}

/// Positions of a hash that are one to a cursor: with ten bits of the slot it has 48 bits, which
/// clients may keep in doubles.
pub const SCAN_UNIT: u64 = 1 << 10;

impl<'a> View<'a> {
    /// The time of this view, milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// The database.
    pub fn database(&self) -> DatabaseIndex {
        self.database
    }

    /// The hasher.
    pub fn hasher(&self) -> KeyHasher {
        self.keyspace.hasher
    }

    /// What the access bits of items mean at present.
    pub fn access_clock(&self) -> AccessClock {
        self.keyspace.accesses.clock
    }

    /// The item of a key, counted as an access (LRU/LFU clock) unless the session said NO-TOUCH.
    /// Cost: two cache misses, none of them when prefetched; no allocation.
    #[inline]
    pub fn get(&self, key: &Key<'_>) -> Option<Item<'a>> {
        let item = self.live(key)?;
        if self.touches {
            self.keyspace.accesses.touch(item, self.now_ms);
        }
        Some(lend::borrow_item(item))
    }

    /// Fetches what lookups of these keys will need into the cache. Cost: the misses of all of them
    /// overlap.
    #[inline]
    pub fn prefetch(&self, keys: impl Iterator<Item = KeyHash> + Clone) {
        keys.clone().for_each(|key| self.keyspace.prefetch_table(self.database, key));
        keys.clone().for_each(|key| self.keyspace.prefetch_bucket(self.database, key));
        keys.for_each(|key| self.keyspace.prefetch_item(self.database, key));
    }

    /// The item of a key, not counted as an access.
    #[inline]
    pub fn peek(&self, key: &Key<'_>) -> Option<Item<'a>> {
        self.live(key).map(lend::borrow_item)
    }

    #[inline(always)]
    fn live(&self, key: &Key<'_>) -> Option<RawItem> {
        let found = self.database_ref().find(key).map(lend::item_at);
        let live = found.filter(|item| !item.expired(self.now_ms));
        if self.counts {
            let lookups = &self.keyspace.lookups;
            let cell = if live.is_some() { &lookups.hits } else { &lookups.misses };
            cell.set(cell.get() + 1);
            if live.is_none() {
                self.keyspace.feed().note_miss(self.database, key);
            }
        }
        live
    }

    /// The same, without counting reads as accesses (CLIENT NO-TOUCH).
    pub fn untouched(&self) -> View<'a> {
        View { touches: false, ..*self }
    }

    /// The same, counting keys found and not found (`keyspace_hits` of INFO).
    #[inline(always)]
    pub fn counted(&self) -> View<'a> {
        View { counts: true, ..*self }
    }

    /// The same without some keys, for what looks at all of them: [`View::count`],
    /// [`View::random`], [`View::scan`], [`View::ordered`]. A lookup finds them still.
    pub fn without(&self, hidden: &'a Hidden<'a>) -> View<'a> {
        View { hidden: Some(hidden), ..*self }
    }

    pub(super) fn shows(&self, item: &Item<'a>) -> bool {
        self.hidden.is_none_or(|hidden| !hidden(item.key()))
    }

    /// A view of another database at the same time.
    pub fn of_database(&self, database: DatabaseIndex) -> View<'a> {
        View { database, ..*self }
    }

    /// Count of keys, those past their deadline but not yet deleted included (as Redis' DBSIZE).
    /// Cost: none, but a walk over all keys when some are left out, those past their deadline then
    /// too.
    pub fn count(&self) -> u64 {
        if self.hidden.is_none() {
            return self.database_ref().count;
        }
        let mut count = 0;
        let rest = self.scan(ScanPosition::default(), usize::MAX, &mut |_| count += 1);
        debug_assert!(rest.is_none(), "a scan without bound ends at the end");
        count
    }

    #[inline(always)]
    pub(super) fn database_ref(&self) -> &'a Database {
        &self.keyspace.databases[self.database.0 as usize]
    }

    /// Any one item that has not expired, chosen by the random bits; `None` when there is none.
    /// Cost: a walk over the slots' counts (about 1 us) and a few cache misses, unless most items
    /// have expired.
    pub fn random(&self, seed: u64) -> Option<Item<'a>> {
        if self.hidden.is_none() {
            return self.random_of_all(seed);
        }
        let mut chance = seed;
        for _ in 0..RANDOM_TRIES {
            chance = mix(chance);
            let item = self.random_of_all(chance)?;
            if self.shows(&item) {
                return Some(item);
            }
        }
        self.first_live(ScanPosition::default())
    }

    fn random_of_all(&self, seed: u64) -> Option<Item<'a>> {
        let database = self.database_ref();
        let row = database.row.as_ref()?;
        let slot = database.slot_of_rank(seed.checked_rem(database.count)?, false)?;
        let mut chance = seed;
        // Every item of the slot is as likely as any other: a chain is taken by position, one of 16
        // ranks in it by chance, and a rank that is not there is another try.
        for _ in 0..RANDOM_TRIES {
            chance = mix(chance);
            let (chain, _) = row[slot].chain_at(chance >> 16)?;
            if let Some(entry) = chain.entries().nth(chance as usize % 16)
                && !entry.item().expired(self.now_ms)
            {
                return Some(lend::borrow_item(entry.item()));
            }
        }
        // Few items or few alive: the first from a random slot on.
        let start = chance as usize % SLOT_COUNT;
        let from = ScanPosition { slot: start, hash: 0 };
        self.first_live(from).or_else(|| self.first_live(ScanPosition::default()))
    }

    fn first_live(&self, from: ScanPosition) -> Option<Item<'a>> {
        let (mut next, mut found) = (Some(from), None);
        while let Some(at) = next
            && found.is_none()
        {
            next = self.scan(at, 1, &mut |item| found = Some(item));
        }
        found
    }

    /// Visits what is left before the next position that a cursor can name. Returns that one.
    fn scan_to_unit(
        &self,
        at: ScanPosition,
        visit: &mut dyn FnMut(Item<'a>),
    ) -> Option<ScanPosition> {
        let end = at.hash.next_multiple_of(SCAN_UNIT);
        let row = self.database_ref().row.as_ref();
        if end == at.hash {
            return Some(at);
        }
        // A bucket is far wider than a unit.
        let chain = row.and_then(|row| row[at.slot].chain_at(at.hash));
        for entry in chain.iter().flat_map(|(chain, _)| chain.entries()) {
            let item = lend::borrow_item(entry.item());
            let place = position_of(self.keyspace.hasher().place(item.key()));
            let is_here = (at.hash..end).contains(&place);
            if is_here && !entry.item().expired(self.now_ms) && self.shows(&item) {
                visit(item);
            }
        }
        match end {
            POSITION_END if at.slot + 1 == SLOT_COUNT => None,
            POSITION_END => Some(ScanPosition { slot: at.slot + 1, hash: 0 }),
            _ => Some(ScanPosition { slot: at.slot, hash: end }),
        }
    }

    /// Visits items from `from` on, in (slot, hash) order, whole buckets at a time, until at least
    /// `count` were visited or [`SCAN_BUCKETS_PER_ITEM`] times as many buckets looked at. Returns
    /// where to go on, or `None` at the end of this shard's last slot.
    /// Every item present from the first call to the last is visited at least once, whatever grows
    /// or shrinks in between. Expired items are not visited.
    pub fn scan(
        &self,
        from: ScanPosition,
        count: usize,
        visit: &mut dyn FnMut(Item<'a>),
    ) -> Option<ScanPosition> {
        let database = self.database_ref();
        let row = database.row.as_ref()?;
        let (mut at, mut visited, mut buckets) = (from, 0, 0);
        loop {
            let slot = database.used_slots.next(at.slot)?;
            if slot != at.slot {
                at = ScanPosition { slot, hash: 0 };
            }
            if visited >= count || buckets >= count.saturating_mul(SCAN_BUCKETS_PER_ITEM) {
                return self.scan_to_unit(at, visit);
            }
            let (chain, next) = row[slot].chain_at(at.hash.min(POSITION_END - 1))?;
            row[slot].prefetch_items_at(next);
            buckets += 1;
            for entry in chain.entries() {
                if !entry.item().expired(self.now_ms) {
                    visited += 1;
                    let item = lend::borrow_item(entry.item());
                    if self.shows(&item) {
                        visit(item);
                    }
                }
            }
            at.hash = next;
            if next == POSITION_END {
                at = ScanPosition { slot: slot + 1, hash: 0 };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Expiry;
    use super::super::model::Bench;
    use super::*;
    use crate::ids::Deadline;
    use std::collections::BTreeMap;

    #[test]
    fn a_scan_meets_everything_once_while_nothing_changes() {
        let mut bench = Bench::new();
        let count = if cfg!(miri) { 100 } else { 5000 };
        for n in 0..count {
            bench.set(&format!("key:{n}"), "v");
            bench.set(&format!("{{t}}{n}"), "v");
        }
        let mut met = BTreeMap::new();
        let mut next = Some(ScanPosition::default());
        while let Some(at) = next {
            let mut count = 0;
            next = bench.view().scan(at, 10, &mut |item| {
                count += 1;
                *met.entry(item.key().to_vec()).or_insert(0) += 1;
            });
            assert!(next.is_none() || (10..40).contains(&count) || cfg!(miri), "{count}");
            assert!(next.is_none_or(|next| next > at));
        }
        assert_eq!(met.len(), 2 * count);
        assert!(met.values().all(|&times| times == 1));
    }

    #[test]
    fn a_scan_of_expired_items_stops_now_and_then() {
        let mut bench = Bench::new();
        for n in 0..if cfg!(miri) { 200 } else { 2000 } {
            bench.set_until(&format!("key:{n}"), "v", Expiry::At(Deadline(bench.now_ms)));
        }
        bench.now_ms += 1;
        let next = bench.view().scan(ScanPosition::default(), 5, &mut |_| panic!("expired"));
        let slot = next.expect("it gave up early").slot;
        assert!((40..60).contains(&slot) || cfg!(miri), "{slot}");
    }

    #[test]
    fn random_items_are_equally_likely() {
        let mut bench = Bench::new();
        assert!(bench.view().random(1).is_none());
        let (count, draws) = if cfg!(miri) { (20, 100) } else { (300, 30_000) };
        // One crowded slot and many with one item.
        for n in 0..count {
            bench.set(&format!("{{t}}{n}"), "crowd");
            bench.set(&format!("key:{n}"), "alone");
        }
        bench.set_until("{t}gone", "expired", Expiry::At(Deadline(bench.now_ms - 1)));
        let mut crowd = 0;
        let mut times = BTreeMap::new();
        for seed in 0..draws {
            let item = bench.view().random(mix(seed)).expect("there are items");
            crowd += usize::from(item.string() == Some(b"crowd"));
            *times.entry(item.key()).or_insert(0) += 1;
        }
        if cfg!(miri) {
            return;
        }
        assert!((14_000..16_000).contains(&crowd), "{crowd}");
        assert_eq!(times.len(), 600);
        assert!(times.values().all(|&times| (15..110).contains(&times)));
    }
}
