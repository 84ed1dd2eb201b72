//! One database of a shard: a row of tables, one per slot, and their totals.

use super::KeyHasher;
use super::bucket::Entry;
use super::item::RawItem;
use super::memory::Memory;
use super::ordered::Order;
use super::table::{POSITION_END, Table};
use super::timed::TimedKeys;
use super::{Key, KeyHash};
use crate::limits::TABLE_LOAD_MAX_PERCENTS;
use crate::slot::{SLOT_COUNT, Slot};
use std::cell::OnceCell;
use std::ops::Range;
use std::ptr::NonNull;

/// One table per slot.
pub(super) type Row = Box<[Table; SLOT_COUNT]>;

/// Bytes of a row's own memory.
pub(super) const ROW_SIZE: usize = size_of::<[Table; SLOT_COUNT]>();

/// A set of slots.
#[derive(Clone)]
pub(super) struct SlotSet {
    words: [u64; SLOT_COUNT / 64],
}

impl SlotSet {
    const EMPTY: SlotSet = SlotSet { words: [0; SLOT_COUNT / 64] };

    #[inline(always)]
    fn set(&mut self, slot: usize, present: bool) {
        let bit = 1 << (slot % 64);
        if present {
            self.words[slot / 64] |= bit;
        } else {
            self.words[slot / 64] &= !bit;
        }
    }

    /// The first slot of the set that is not below `from`.
    pub(super) fn next(&self, from: usize) -> Option<usize> {
        if from >= SLOT_COUNT {
            return None;
        }
        let mut word = self.words[from / 64] & (!0 << (from % 64));
        let mut i = from / 64;
        loop {
            if word != 0 {
                return Some(i * 64 + word.trailing_zeros() as usize);
            }
            i += 1;
            word = *self.words.get(i)?;
        }
    }
}

/// The tables of one database. The row exists once it was written to.
pub(super) struct Database {
    pub(super) row: Option<Row>,
    pub(super) count: u64,
    pub(super) expiring: u64,
    /// Slots that have items.
    pub(super) used_slots: SlotSet,
    /// Slots that have items with deadlines.
    pub(super) expiring_slots: SlotSet,
    /// Hashes with fields that end.
    pub(super) timed: TimedKeys,
    /// Built by the first view that asks for it.
    pub(super) order: OnceCell<Order>,
}

impl Default for Database {
    fn default() -> Database {
        Database {
            row: None,
            count: 0,
            expiring: 0,
            used_slots: SlotSet::EMPTY,
            expiring_slots: SlotSet::EMPTY,
            timed: TimedKeys::default(),
            order: OnceCell::new(),
        }
    }
}

impl Database {
    /// The table of a slot; `None` when this database was never written to.
    #[inline(always)]
    pub(super) fn table(&self, slot: Slot) -> Option<&Table> {
        Some(&self.row.as_ref()?[slot.number()])
    }

    /// The entry of a key, whether it has expired or not.
    #[inline(always)]
    pub(super) fn find(&self, key: &Key<'_>) -> Option<NonNull<Entry>> {
        self.table(key.hash().slot())?.find(key.hash().hash(), key.bytes())
    }

    /// Calls with every item, in the order of slots and hashes.
    pub(super) fn each_item(&self, call: &mut dyn FnMut(RawItem)) {
        let Some(row) = &self.row else { return };
        for table in row.iter() {
            let mut position = 0;
            while position < POSITION_END
                && let Some((chain, next)) = table.chain_at(position)
            {
                table.prefetch_items_at(next);
                chain.entries().for_each(|entry| call(entry.item()));
                position = next;
            }
        }
    }

    /// The slot that holds the item of this rank, counting slot by slot all items or those with
    /// deadlines.
    pub(super) fn slot_of_rank(&self, mut rank: u64, expiring: bool) -> Option<usize> {
        let slots = if expiring { &self.expiring_slots } else { &self.used_slots };
        let row = self.row.as_ref()?;
        let mut from = 0;
        while let Some(slot) = slots.next(from) {
            let table = &row[slot];
            let count = if expiring { table.expiring() } else { table.count() } as u64;
            if rank < count {
                return Some(slot);
            }
            rank -= count;
            from = slot + 1;
        }
        None
    }

    /// Adds an item whose key is not here.
    pub(super) fn insert(
        &mut self,
        hash: KeyHash,
        item: RawItem,
        hasher: &KeyHasher,
        memory: &mut Memory,
    ) {
        if self.row.is_none() {
            memory.add(ROW_SIZE);
        }
        let row = self.row.get_or_insert_with(empty_row);
        let slot = hash.slot().number();
        row[slot].insert(hash.hash(), item, load_max(slot), hasher, memory);
        self.count += 1;
        self.used_slots.set(slot, true);
        if item.has_deadline() {
            self.expiring += 1;
            self.expiring_slots.set(slot, true);
        }
        self.timed.note(item, true);
        if let Some(order) = self.order.get_mut() {
            order.insert(item, memory);
        }
    }

    /// Puts another item in the place of one with the same key, which may be the same allocation,
    /// and may still be in the making: when its fields end is noted when it is made.
    #[inline]
    pub(super) fn replace(
        &mut self,
        slot: Slot,
        place: NonNull<Entry>,
        old_has_deadline: bool,
        item: RawItem,
    ) {
        let table = &mut self.row.as_mut().expect("it holds the place")[slot.number()];
        table.replace(place, item);
        if old_has_deadline != item.has_deadline() {
            let expiring = table.expiring() > 0;
            self.expiring_slots.set(slot.number(), expiring);
            self.expiring -= u64::from(old_has_deadline);
            self.expiring += u64::from(item.has_deadline());
        }
        if let Some(order) = self.order.get_mut() {
            order.replace(item);
        }
    }

    /// Takes out the item of a place that [`Database::find`] gave for this hash.
    pub(super) fn remove(
        &mut self,
        hash: KeyHash,
        place: NonNull<Entry>,
        hasher: &KeyHasher,
        memory: &mut Memory,
    ) -> RawItem {
        let slot = hash.slot().number();
        let table = &mut self.row.as_mut().expect("it holds the place")[slot];
        let item = table.remove(hash.hash(), place, hasher, memory);
        self.count -= 1;
        self.used_slots.set(slot, table.count() > 0);
        if item.has_deadline() {
            self.expiring -= 1;
            self.expiring_slots.set(slot, table.expiring() > 0);
        }
        self.timed.note(item, false);
        if let Some(order) = self.order.get_mut() {
            order.remove(item, memory);
        }
        item
    }
}

/// How full the buckets of a slot's table get: neighbours in a cycle of 32 differ.
fn load_max(slot: usize) -> usize {
    let Range { start, end } = TABLE_LOAD_MAX_PERCENTS;
    start + slot % 32 * (end - start) / 32
}

fn empty_row() -> Row {
    let tables: Box<[Table]> = std::iter::repeat_with(Table::default).take(SLOT_COUNT).collect();
    tables.try_into().unwrap_or_else(|_| unreachable!("there are as many as slots"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_set_walks_in_order() {
        let mut set = SlotSet::EMPTY;
        assert_eq!(set.next(0), None);
        for slot in [0, 63, 64, 700, 1023] {
            set.set(slot, true);
        }
        let mut found = vec![];
        let mut from = 0;
        while let Some(slot) = set.next(from) {
            found.push(slot);
            from = slot + 1;
        }
        assert_eq!(found, [0, 63, 64, 700, 1023]);
        set.set(64, false);
        assert_eq!(set.next(64), Some(700));
        assert_eq!(set.next(1024), None);
    }
}
