//! The sweep that finds items past their deadline.
//!
//! It goes round the tables that have deadlines, a bounded number of buckets at a time, and only
//! reports: deletions are proposed by the leader and applied like any write. Items without a
//! deadline are told apart by their entry in the bucket and not touched.

use super::item::Item;
use super::lend;
use super::table::POSITION_END;
use super::{Edit, Key, Keyspace};
use crate::ids::DatabaseIndex;
use crate::limits::DATABASE_COUNT;

/// Where the sweep goes on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SweepPosition {
    database: usize,
    slot: usize,
    position: u64,
}

/// What a part of the sweep met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Buckets looked at.
    pub buckets: usize,
    /// Items that have a deadline.
    pub expiring: usize,
    /// Those of them that were past it, each of which was reported.
    pub expired: usize,
}

/// Time was turned back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turned {
    /// It was so late.
    pub from_ms: i64,
    /// It goes on here.
    pub to_ms: i64,
    /// Items that had ended and were removed for it.
    pub removed: usize,
}

impl Edit<'_> {
    /// Turns the shard's time back. Every item, of all databases, that has ended by the time of
    /// this edit is removed, and every field, so that none can be there again; see
    /// [`crate::clock`]. Cost: a walk over all tables that have deadlines, about 10 ns per
    /// bucket and 15 ns per item with a deadline.
    pub fn turn_back(&mut self, to_ms: i64) {
        let (from_ms, mut ended) = (self.now_ms, Vec::new());
        self.keyspace.sweep = SweepPosition::default();
        self.keyspace.collect_expired(from_ms, usize::MAX, &mut |database, item| {
            ended.push((database, item.key().to_vec()));
        });
        // One round of the sweep may end with some of what it began with.
        let (hasher, mut removed) = (self.keyspace.hasher, 0);
        for (database, key) in &ended {
            let key = Key::new(key, hasher.hash(key));
            removed += usize::from(self.of_database(*database).remove_expired(&key));
        }
        self.remove_all_ended_fields();
        self.keyspace.turned = Some(Turned { from_ms, to_ms, removed });
    }
}

impl Edit<'_> {
    fn remove_all_ended_fields(&mut self) {
        let mut ended = Vec::new();
        self.keyspace.collect_ended_fields(self.now_ms, usize::MAX, &mut |database, key, _| {
            ended.push((database, key.to_vec()));
        });
        let hasher = self.keyspace.hasher;
        for (database, key) in &ended {
            let key = Key::new(key, hasher.hash(key));
            self.of_database(*database).remove_ended_fields(&key, usize::MAX);
        }
    }
}

impl Keyspace {
    /// Was time turned back since this was asked last?
    #[inline]
    pub fn take_turned(&mut self) -> Option<Turned> {
        self.turned.take()
    }

    /// Milliseconds that the items of a database that have a deadline have left on average: a
    /// moving average over those that the sweep came by; 0 before it did.
    pub fn average_ttl_ms(&self, database: DatabaseIndex) -> i64 {
        self.average_ttl_ms[usize::from(database.0)]
    }

    /// Looks at up to `bucket_budget` buckets of tables that have deadlines, going on where the
    /// last call stopped and going round once at most, and reports each item past its deadline.
    /// Cost: about 10 ns per bucket and 15 ns per item with a deadline.
    pub fn collect_expired(
        &mut self,
        now_ms: i64,
        bucket_budget: usize,
        found: &mut dyn FnMut(DatabaseIndex, Item<'_>),
    ) -> Sweep {
        let mut sweep = Sweep::default();
        let mut at = self.sweep;
        let mut databases_left = DATABASE_COUNT;
        while sweep.buckets < bucket_budget {
            let database = &self.databases[at.database];
            let slot = database.expiring_slots.next(at.slot);
            let Some((row, slot)) = database.row.as_ref().zip(slot) else {
                let database = (at.database + 1) % DATABASE_COUNT;
                at = SweepPosition { database, slot: 0, position: 0 };
                if databases_left == 0 {
                    break;
                }
                databases_left -= 1;
                continue;
            };
            if slot != at.slot {
                (at.slot, at.position) = (slot, 0);
            }
            let (chain, next) = row[slot].chain_at(at.position).expect("it has deadlines");
            sweep.buckets += 1;
            for entry in chain.entries().filter(|entry| entry.has_deadline()) {
                sweep.expiring += 1;
                if let Some(deadline) = entry.item().deadline() {
                    let left_ms = (deadline.0 - now_ms).max(0);
                    let average = &mut self.average_ttl_ms[at.database];
                    // A moving average: one part in sixteen of what is new.
                    *average =
                        if *average == 0 { left_ms } else { *average + (left_ms - *average) / 16 };
                }
                if entry.item().expired(now_ms) {
                    sweep.expired += 1;
                    found(DatabaseIndex(at.database as u8), lend::borrow_item(entry.item()));
                }
            }
            at.position = next;
            if next == POSITION_END {
                (at.slot, at.position) = (slot + 1, 0);
            }
        }
        self.sweep = at;
        sweep
    }
}

#[cfg(test)]
mod tests {
    use super::super::Expiry;
    use super::super::model::Bench;
    use super::*;
    use crate::ids::Deadline;

    #[test]
    fn a_sweep_goes_round_in_steps() {
        let mut bench = Bench::new();
        for n in 0..2000 {
            let expiry = match n % 4 {
                0 => Expiry::At(Deadline(bench.now_ms + n)),
                _ => Expiry::Never,
            };
            bench.set_until(&format!("{{{}}}{n}", n % 7), "v", expiry);
        }
        bench.now_ms += 1000;
        let mut sum = Sweep::default();
        let mut found = vec![];
        while sum.expiring < 500 {
            let sweep = bench.keyspace.collect_expired(bench.now_ms, 10, &mut |_, item| {
                found.push(item.key().to_vec());
            });
            assert_eq!(sweep.buckets, 10, "a step does not stop early");
            sum.buckets += sweep.buckets;
            sum.expiring += sweep.expiring;
            sum.expired += sweep.expired;
        }
        // The last step may have gone a little beyond one round.
        assert!(sum.expiring < 600 && sum.expired == found.len());
        found.sort();
        found.dedup();
        assert_eq!(found.len(), 250);
    }

    #[test]
    fn what_has_ended_does_not_come_back_with_the_time() {
        let mut bench = Bench::new();
        let start_ms = bench.now_ms;
        for n in 0..3000 {
            bench.set_until(&format!("{{{}}}{n}", n % 7), "v", Expiry::At(Deadline(start_ms + n)));
        }
        bench.set("always", "v");
        // The sweep stands somewhere in between.
        bench.keyspace.collect_expired(start_ms, 100, &mut |_, _| {});
        bench.now_ms += 2000;
        let before = bench.keyspace.count(DatabaseIndex(0));
        bench.keyspace.edit(DatabaseIndex(3), bench.now_ms).turn_back(start_ms - 500);
        assert_eq!((before, bench.keyspace.count(DatabaseIndex(0))), (3001, 1001));
        let turned = Turned { from_ms: start_ms + 2000, to_ms: start_ms - 500, removed: 2000 };
        assert_eq!(bench.keyspace.take_turned(), Some(turned));
        assert_eq!(bench.keyspace.take_turned(), None);
    }

    #[test]
    fn nothing_with_a_deadline_is_nothing_to_do() {
        let mut bench = Bench::new();
        bench.set("k", "v");
        let sweep = bench.keyspace.collect_expired(bench.now_ms, 10, &mut |_, _| {});
        assert_eq!(sweep, Sweep::default());
    }
}
