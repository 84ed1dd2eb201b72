//! The index of a database's keys in bytewise order, for paging through KEYS.
//!
//! Exists only once it was asked for, is kept up to date from then on, and goes when nobody asks
//! for long. It is a row of sorted chunks that hold pointers to the items, not their keys. It is no
//! part of the replicated state, but a function of it, so that even a view may build it.

use super::item::{Item, RawItem};
use super::lend;
use super::memory::Memory;
use super::{KeyRange, Keyspace, View};
use crate::ids::DatabaseIndex;
use crate::limits::{ORDER_CHUNK_KEYS_MAX, ORDER_IDLE_MS};
use std::cell::Cell;
use std::ops::Bound;

/// Keys in a chunk of a new index: room for inserts.
const CHUNK_KEYS_START: usize = ORDER_CHUNK_KEYS_MAX / 4 * 3;

/// Bytes of a chunk.
const CHUNK_SIZE: usize =
    (ORDER_CHUNK_KEYS_MAX + 1) * size_of::<RawItem>() + size_of::<Vec<RawItem>>();

/// The items of one database by key.
pub(super) struct Order {
    /// Sorted, none empty, each with room for one key more than it may keep.
    chunks: Vec<Vec<RawItem>>,
    used_ms: Cell<i64>,
}

fn key<'a>(item: RawItem) -> &'a [u8] {
    lend::borrow_item(item).key()
}

fn new_chunk() -> Vec<RawItem> {
    Vec::with_capacity(ORDER_CHUNK_KEYS_MAX + 1)
}

impl Order {
    /// Of these items, which are sorted.
    fn new(items: &[RawItem]) -> Order {
        let mut chunks = Vec::with_capacity(items.len() / CHUNK_KEYS_START + 1);
        for some in items.chunks(CHUNK_KEYS_START) {
            let mut chunk = new_chunk();
            chunk.extend_from_slice(some);
            chunks.push(chunk);
        }
        Order { chunks, used_ms: Cell::new(0) }
    }

    fn size(&self) -> usize {
        self.chunks.len() * CHUNK_SIZE
    }

    /// The chunk that a key belongs to and the position of the first key in it that is not below.
    fn locate(&self, wanted: &[u8]) -> (usize, usize) {
        let after = self.chunks.partition_point(|chunk| key(chunk[0]) <= wanted);
        let at = after.saturating_sub(1);
        let chunk = self.chunks.get(at).map_or(&[][..], |chunk| chunk);
        (at, chunk.partition_point(|&item| key(item) < wanted))
    }

    pub(super) fn insert(&mut self, item: RawItem, memory: &Memory) {
        let (at, position) = self.locate(key(item));
        if self.chunks.is_empty() {
            self.chunks.push(new_chunk());
            memory.add(CHUNK_SIZE);
        }
        let chunk = &mut self.chunks[at];
        chunk.insert(position, item);
        if chunk.len() > ORDER_CHUNK_KEYS_MAX {
            let mut upper = new_chunk();
            upper.extend(chunk.drain(ORDER_CHUNK_KEYS_MAX / 2..));
            self.chunks.insert(at + 1, upper);
            memory.add(CHUNK_SIZE);
        }
    }

    /// Another item takes the place of the one with the same key. Both are alive.
    pub(super) fn replace(&mut self, item: RawItem) {
        let (at, position) = self.locate(key(item));
        let place = &mut self.chunks[at][position];
        debug_assert_eq!(key(*place), key(item));
        *place = item;
    }

    /// The item must be alive.
    pub(super) fn remove(&mut self, item: RawItem, memory: &Memory) {
        let (at, position) = self.locate(key(item));
        let removed = self.chunks[at].remove(position);
        debug_assert!(removed == item);
        if self.chunks[at].is_empty() {
            self.chunks.remove(at);
            memory.subtract(CHUNK_SIZE);
        }
    }

    /// Forgets a chunk of items, which may be dead already. Are there more?
    pub(super) fn shed(&mut self, memory: &Memory) -> bool {
        if self.chunks.pop().is_some() {
            memory.subtract(CHUNK_SIZE);
        }
        !self.chunks.is_empty()
    }

    fn visit(&self, range: KeyRange<'_>, visit: &mut dyn FnMut(RawItem) -> bool) {
        let (low, high) = match range.descending {
            false => (range.start, range.end),
            true => (range.end, range.start),
        };
        let (first, position) = match low {
            Bound::Included(wanted) | Bound::Excluded(wanted) => self.locate(wanted),
            Bound::Unbounded if range.descending => {
                (self.chunks.len().saturating_sub(1), ORDER_CHUNK_KEYS_MAX)
            }
            Bound::Unbounded => (0, 0),
        };
        // What is before the near bound is skipped (one key at most); the far one ends the visit.
        let beyond = |bound: Bound<&[u8]>, key: &[u8], from: std::cmp::Ordering| match bound {
            Bound::Included(limit) => key.cmp(limit) == from,
            Bound::Excluded(limit) => key.cmp(limit) == from || key == limit,
            Bound::Unbounded => false,
        };
        let (before, after) = match range.descending {
            false => (std::cmp::Ordering::Less, std::cmp::Ordering::Greater),
            true => (std::cmp::Ordering::Greater, std::cmp::Ordering::Less),
        };
        let mut each = |item: RawItem| {
            beyond(low, key(item), before) || !beyond(high, key(item), after) && visit(item)
        };
        let Some(chunk) = self.chunks.get(first) else { return };
        if range.descending {
            let near = &chunk[..chunk.len().min(position + 1)];
            let rest = self.chunks[..first].iter().rev().flat_map(|chunk| chunk.iter().rev());
            near.iter().rev().chain(rest).all(|&item| each(item));
        } else {
            let rest = self.chunks[first + 1..].iter().flatten();
            chunk[position..].iter().chain(rest).all(|&item| each(item));
        }
    }
}

impl Keyspace {
    /// Builds the ordered index of a database ahead of [`View::ordered`].
    pub fn order(&mut self, database: DatabaseIndex, now_ms: i64) {
        self.view(database, now_ms).order();
    }

    /// Lets go of indexes that nobody used for [`ORDER_IDLE_MS`].
    pub fn drop_idle_orders(&mut self, now_ms: i64) {
        for database in &mut self.databases {
            let order = database.order.get();
            if order
                .is_some_and(|order| now_ms.abs_diff(order.used_ms.get()) > ORDER_IDLE_MS as u64)
                && let Some(order) = database.order.take()
            {
                self.lazy_free.push_order(order);
            }
        }
    }
}

impl<'a> View<'a> {
    /// Visits the items whose keys are in a range of bytewise order, ascending or descending, until
    /// `visit` returns false. Uses the ordered index of this database, which is built on first use
    /// (about 0.2 s for a million keys) and kept up to date from then on.
    pub fn ordered(&self, range: KeyRange<'_>, visit: &mut dyn FnMut(Item<'a>) -> bool) {
        self.order().visit(range, &mut |item| {
            let lent = lend::borrow_item(item);
            item.expired(self.now_ms()) || !self.shows(&lent) || visit(lent)
        });
    }

    fn order(&self) -> &'a Order {
        let order = self.database_ref().order.get_or_init(|| {
            let order = Order::new(&self.sorted());
            self.keyspace.memory.add(order.size());
            order
        });
        order.used_ms.set(self.now_ms());
        order
    }

    /// All items by key. Most comparisons are of the eight bytes that follow what all keys have in
    /// common, without touching the items.
    fn sorted(&self) -> Vec<RawItem> {
        let mut common: Option<&[u8]> = None;
        self.database_ref().each_item(&mut |item| {
            let first = common.unwrap_or(key(item));
            let pairs = first.iter().zip(key(item));
            common = Some(&first[..pairs.take_while(|(a, b)| a == b).count()]);
        });
        let common = common.map_or(0, |prefix| prefix.len());
        let mut items = Vec::with_capacity(self.database_ref().count as usize);
        self.database_ref().each_item(&mut |item| {
            let rest = &key(item)[common..];
            let mut prefix = [0; 8];
            let length = rest.len().min(8);
            prefix[..length].copy_from_slice(&rest[..length]);
            items.push((u64::from_be_bytes(prefix), item));
        });
        items.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| key(a.1).cmp(key(b.1))));
        items.into_iter().map(|(_, item)| item).collect()
    }
}
