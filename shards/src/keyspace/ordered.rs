//! The index of a database's keys in bytewise order, for paging through KEYS.
//!
//! Exists only once it was asked for, is kept up to date from then on, and goes when nobody asks for long. It
//! holds pointers to the items, not their keys.
#![allow(unsafe_code)] // Compares items behind pointers that the tables keep alive.

use super::item::{Item, RawItem};
use super::{KeyRange, Keyspace, View};
use crate::ids::DatabaseIndex;
use crate::limits::ORDER_IDLE_MS;
use std::borrow::Borrow;
use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Bound;

/// Memory per key: 11 keys of 8 bytes in a node of 104, two thirds full after random inserts.
const ORDER_KEY_SIZE: usize = 14;

/// An item, compared by its key.
struct Keyed(RawItem);

impl Keyed {
    fn key(&self) -> &[u8] {
        // SAFETY: an item is taken out of the index before it is freed, and its key never changes.
        unsafe { self.0.borrow() }.key()
    }
}

impl Borrow<[u8]> for Keyed {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

impl PartialEq for Keyed {
    fn eq(&self, other: &Keyed) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Keyed {}

impl PartialOrd for Keyed {
    fn partial_cmp(&self, other: &Keyed) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Keyed {
    fn cmp(&self, other: &Keyed) -> Ordering {
        self.key().cmp(other.key())
    }
}

/// The items of one database by key.
pub(super) struct Order {
    items: BTreeSet<Keyed>,
    used_ms: Cell<i64>,
}

impl Order {
    /// Of these items, which have different keys. Cost: a sort by eight bytes behind the common prefix, then
    /// by whole keys.
    fn new(items: Vec<RawItem>, now_ms: i64, used: &mut usize) -> Order {
        let items = sorted(items);
        *used += items.len() * ORDER_KEY_SIZE;
        Order { items: items.into_iter().map(Keyed).collect(), used_ms: Cell::new(now_ms) }
    }

    pub(super) fn insert(&mut self, item: RawItem, used: &mut usize) {
        let added = self.items.insert(Keyed(item));
        debug_assert!(added, "a key has one item");
        *used += ORDER_KEY_SIZE;
    }

    /// Another item takes the place of the one with the same key, which is still alive.
    pub(super) fn replace(&mut self, item: RawItem) {
        let old = self.items.replace(Keyed(item));
        debug_assert!(old.is_some());
    }

    pub(super) fn remove(&mut self, item: RawItem, used: &mut usize) {
        let removed = self.items.remove(&Keyed(item));
        debug_assert!(removed);
        *used -= ORDER_KEY_SIZE;
    }

    /// Forgets up to `count` items, which may be dead already. Are there more?
    pub(super) fn shed(&mut self, count: usize, used: &mut usize) -> bool {
        for _ in 0..count {
            if self.items.pop_first().is_none() {
                return false;
            }
            *used -= ORDER_KEY_SIZE;
        }
        !self.items.is_empty()
    }

    fn visit(&self, range: KeyRange<'_>, visit: &mut dyn FnMut(RawItem) -> bool) {
        let mut items = self.items.range::<[u8], _>((range.start, range.end));
        loop {
            let next = if range.descending { items.next_back() } else { items.next() };
            match next {
                Some(item) if visit(item.0) => {}
                _ => return,
            }
        }
    }
}

/// Sorts items by key. Most comparisons are of the eight bytes that follow what all keys have in
/// common, without touching the items.
fn sorted(items: Vec<RawItem>) -> Vec<RawItem> {
    // SAFETY: the caller's items are alive; the borrows end in this function.
    let key = |item: RawItem| unsafe { item.borrow() }.key();
    let Some(&first) = items.first() else { return items };
    let common = items.iter().fold(key(first).len(), |common, &item| {
        let pairs = key(first)[..common].iter().zip(key(item));
        pairs.take_while(|(a, b)| a == b).count()
    });
    let mut prefixed: Vec<(u64, RawItem)> = items
        .into_iter()
        .map(|item| {
            let rest = &key(item)[common..];
            let mut prefix = [0; 8];
            let length = rest.len().min(8);
            prefix[..length].copy_from_slice(&rest[..length]);
            (u64::from_be_bytes(prefix), item)
        })
        .collect();
    prefixed.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| key(a.1).cmp(key(b.1))));
    prefixed.into_iter().map(|(_, item)| item).collect()
}

fn is_empty(range: &KeyRange<'_>) -> bool {
    match (range.start, range.end) {
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Excluded(end))
        | (Bound::Excluded(start), Bound::Included(end)) => start >= end,
        _ => false,
    }
}

impl Keyspace {
    /// Builds the ordered index of a database unless it is there, so that [`View::ordered`] need not sort. The
    /// index is no part of the replicated state. Cost when it is built: about 0.3 s for a million keys.
    pub fn order(&mut self, database: DatabaseIndex, now_ms: i64) {
        if self.databases[database.0 as usize].order.is_none() {
            let items = self.all_items(database);
            let order = Order::new(items, now_ms, &mut self.used);
            self.databases[database.0 as usize].order = Some(order);
        }
    }

    /// Lets go of indexes that nobody used for [`ORDER_IDLE_MS`].
    pub fn drop_idle_orders(&mut self, now_ms: i64) {
        for database in &mut self.databases {
            let idle = |order: &mut Order| now_ms - order.used_ms.get() > ORDER_IDLE_MS;
            if let Some(order) = database.order.take_if(idle) {
                self.rubble.push_order(order);
            }
        }
    }

    fn all_items(&self, database: DatabaseIndex) -> Vec<RawItem> {
        let mut items = Vec::with_capacity(self.count(database) as usize);
        self.databases[database.0 as usize].each_item(&mut |item| items.push(item));
        items
    }
}

impl<'a> View<'a> {
    /// Visits the items whose keys are in a range of bytewise order, ascending or descending, until
    /// `visit` returns false. Uses the ordered index of this database if there is one
    /// ([`Keyspace::order`]); else collects and sorts all items in the range.
    pub fn ordered(&self, range: KeyRange<'_>, visit: &mut dyn FnMut(Item<'a>) -> bool) {
        if is_empty(&range) {
            return;
        }
        let mut live = |raw: RawItem| {
            // SAFETY: the view keeps the items alive and unchanged for `'a`.
            raw.expired(self.now_ms()) || visit(unsafe { raw.borrow() })
        };
        if let Some(order) = &self.database_ref().order {
            order.used_ms.set(self.now_ms());
            return order.visit(range, &mut live);
        }
        let mut items = self.keyspace.all_items(self.database());
        items.retain(|&raw| {
            let key = super::borrow_item(raw).key();
            std::ops::RangeBounds::<[u8]>::contains(&(range.start, range.end), key)
        });
        let items = sorted(items);
        let each: &mut dyn Iterator<Item = RawItem> =
            if range.descending { &mut items.into_iter().rev() } else { &mut items.into_iter() };
        for item in each {
            if !live(item) {
                return;
            }
        }
    }
}
