//! Moves items out of sparse slabs, so that memory freed by one size of items serves another.
//!
//! When much of the slabs in use is free, the sparsest are chosen and all tables walked once, a
//! bounded number of buckets at a time; each item that lies in a chosen slab is copied elsewhere,
//! and its entries in table and ordered index follow. Arrays and overflow buckets move as well.
//! Whether an item has to move is told by its address, so the others are not touched. Items that no
//! table holds (a cut keeps them, or they are being freed) stay; their slabs serve again when the
//! walk is over.
//!
//! Nothing that a reader sees changes: not the account, not the marks of a cut, not the digest.

use super::Keyspace;
use super::bucket::prefetch;
use super::lend;
use super::table::POSITION_END;
use crate::limits::{
    COMPACTION_MOVE_COST, COMPACTION_SLABS_MIN, COMPACTION_SPARE_BYTES_MIN, COMPACTION_WAIT_CALLS,
};
use crate::slot::SLOT_COUNT;

/// Where the walk is, or how long to wait for the next.
#[derive(Default)]
pub(super) struct Compaction {
    walks: bool,
    wait: usize,
    database: usize,
    slot: usize,
    position: u64,
    moved_count: u64,
}

impl Keyspace {
    /// Makes items lie closer together if much memory can be saved by it. To be called at each
    /// tick. `budget` bounds what is done at once: a bucket counts 1, a move 4. Cost: 20 to 50
    /// ns for 1; next to nothing when there is nothing to save.
    pub fn compact_some(&mut self, budget: usize) {
        if !self.compaction.walks {
            if self.compaction.wait > 0 {
                self.compaction.wait -= 1;
                return;
            }
            self.compaction.wait = COMPACTION_WAIT_CALLS;
            let is_calm = self.lazy_free.is_empty();
            if !is_calm || !self.memory.is_sparse(COMPACTION_SPARE_BYTES_MIN) {
                return;
            }
            self.begin_compaction(COMPACTION_SLABS_MIN);
        }
        self.compaction_step(budget);
    }

    /// How many items compaction has moved.
    pub fn compacted_count(&self) -> u64 {
        self.compaction.moved_count
    }

    /// Begins a walk if it gains so many slabs at least. Is one under way?
    pub(super) fn begin_compaction(&mut self, slab_count_min: usize) -> bool {
        if !self.compaction.walks && self.memory.begin_leaving(slab_count_min) {
            let moved_count = self.compaction.moved_count;
            self.compaction = Compaction {
                walks: true,
                moved_count,
                wait: COMPACTION_WAIT_CALLS,
                ..Compaction::default()
            };
        }
        self.compaction.walks
    }

    /// Goes on with the walk. Is it over?
    pub(super) fn compaction_step(&mut self, budget: usize) -> bool {
        let mut left = budget;
        while self.compaction.walks {
            if left == 0 && self.memory.is_leaving_any() {
                return false;
            }
            left = left.saturating_sub(self.compact_bucket());
        }
        true
    }

    /// Moves what has to be moved of one bucket, or goes to the next table. Returns what it cost.
    fn compact_bucket(&mut self) -> usize {
        let at = &mut self.compaction;
        let database = self.databases.get_mut(at.database);
        let Some(database) = database.filter(|_| self.memory.is_leaving_any()) else {
            at.walks = false;
            self.memory.end_leaving();
            return 0;
        };
        let table = database.row.as_mut().and_then(|row| row.get_mut(at.slot));
        let Some(table) = table else {
            (at.database, at.slot, at.position) = (at.database + 1, 0, 0);
            return 0;
        };
        let memory = &mut self.memory;
        let mut cost = 1;
        if at.position == 0 {
            cost += table.move_array(memory);
        }
        let Some((chain, next)) = table.chain_at(at.position) else {
            (at.slot, at.position) = (at.slot + 1, 0);
            return cost;
        };
        at.position = next;
        if next == POSITION_END {
            (at.slot, at.position) = (at.slot + 1, 0);
        }
        debug_assert!(at.slot <= SLOT_COUNT);
        cost += chain.move_overflow(memory) * COMPACTION_MOVE_COST;
        let mut leaving = 0;
        for entry in chain.entries().filter(|entry| memory.is_leaving(entry.item().pointer())) {
            prefetch(entry.address());
            leaving += 1;
        }
        if leaving > 0 {
            let mut order = database.order.get_mut();
            let mut cut = self.cut.as_mut();
            chain.replace_each(|item| {
                if !memory.is_leaving(item.pointer()) {
                    return None;
                }
                let copy = item.copy(memory);
                if let Some(order) = &mut order {
                    order.replace(copy);
                }
                if let Some(cut) = &mut cut {
                    cut.moved(item, copy);
                }
                lend::free_item(item, memory);
                Some(copy)
            });
            at.moved_count += leaving;
        }
        cost + leaving as usize * COMPACTION_MOVE_COST
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::{Bench, Chance};
    use super::super::{Key, KeyRange};
    use std::ops::Bound;

    fn name(n: u64) -> String {
        format!("key:{n:012}")
    }

    /// 64 bytes; for Miri, few that fill slabs all the same.
    fn value(n: u64) -> String {
        format!("{n:010}{}", "x".repeat(if cfg!(miri) { 1900 } else { 54 }))
    }

    /// Free bytes in slabs that hold something, per byte on the account.
    fn spare_share(bench: &mut Bench) -> f64 {
        let spare = bench.keyspace.memory.spare();
        (spare.idle - spare.empty) as f64 / bench.keyspace.used_bytes() as f64
    }

    /// Sets items, removes 70 % of them at random, compacts; everything else is as before.
    fn check(with_cut: bool) {
        let mut chance = Chance(11);
        let mut bench = Bench::new();
        let count = if cfg!(miri) { 300 } else { 60_000 };
        for n in 0..count {
            bench.set(&name(n), &value(n));
        }
        bench.keyspace.order(bench.database, bench.now_ms);
        let mut kept = vec![];
        for n in 0..count {
            if chance.below(10) < 7 {
                assert!(bench.remove(&name(n)));
            } else {
                kept.push(n);
            }
        }
        if with_cut {
            assert!(bench.keyspace.begin_cut());
            assert!(!bench.keyspace.cut_step(20, &mut |_, _, _| None));
            let displaced = kept.len() / 2;
            for &n in &kept[displaced..] {
                bench.set(&name(n), &format!("{}!", value(n)));
                bench.set(&name(n), &value(n));
            }
        }
        let (used, share) = (bench.keyspace.used_bytes(), spare_share(&mut bench));
        assert!(cfg!(miri) || share > 0.5, "{share}");
        let mut steps = 0;
        assert!(bench.keyspace.begin_compaction(1));
        while !bench.keyspace.compaction_step(100) {
            steps += 1;
        }
        assert!(cfg!(miri) || steps > 50, "{steps}");
        assert!(bench.keyspace.compacted_count() > 0);
        assert_eq!(bench.keyspace.used_bytes(), used);
        let after = spare_share(&mut bench);
        assert!(cfg!(miri) || with_cut || after < 0.2, "{share} before, {after} after");
        for &n in &kept {
            let item = bench.get(&name(n)).expect("it was not removed");
            assert_eq!(item.string(), Some(value(n).as_bytes()));
        }
        let range = KeyRange { start: Bound::Unbounded, end: Bound::Unbounded, descending: false };
        let mut ordered = vec![];
        bench.view().ordered(range, &mut |item| {
            ordered.push(item.key().to_vec());
            true
        });
        let names: Vec<Vec<u8>> = kept.iter().map(|&n| name(n).into_bytes()).collect();
        assert_eq!(ordered, names);
        if with_cut {
            while !bench.keyspace.cut_step(100, &mut |_, item, _| {
                assert!(item.key().starts_with(b"key:"));
                None
            }) {}
        }
        for &n in &kept {
            assert!(bench.remove(&name(n)));
        }
        bench.edit().clear_all();
        while bench.keyspace.free_some(1000) {}
        assert_eq!(bench.keyspace.used_bytes(), 0);
    }

    #[test]
    fn sparse_slabs_are_emptied_and_nothing_else_changes() {
        check(false);
    }

    #[test]
    fn a_cut_keeps_what_it_waits_for() {
        check(true);
    }

    #[test]
    fn it_begins_by_itself_when_much_can_be_saved() {
        if cfg!(miri) {
            return;
        }
        let mut bench = Bench::new();
        for n in 0..120_000 {
            bench.set(&name(n), &value(n));
        }
        let call = |bench: &mut Bench| {
            for _ in 0..200 {
                bench.keyspace.compact_some(1000);
            }
            bench.keyspace.compacted_count()
        };
        assert_eq!(call(&mut bench), 0, "dense slabs stay");
        for n in (0..120_000).filter(|n| n % 10 < 7) {
            bench.remove(&name(n));
        }
        assert!(call(&mut bench) > 10_000);
        assert!(spare_share(&mut bench) < 0.15);
        let key = Key::new(b"key:000000000009", bench.hash("key:000000000009"));
        assert!(bench.view().get(&key).is_some());
    }
}
