//! The table of one slot in one database.
//!
//! An array of buckets in the order of the hash: bucket `i` of `n` holds the positions (top 48 bits
//! of the hash) from `i/n` to `(i+1)/n` of their range. Any `n` will do, and the order of positions
//! survives every change of `n`; scans, sweeps and cuts are therefore just positions.
//!
//! A resize builds a second array and moves the old one's buckets in order. A small table is moved
//! at once, a larger one a few buckets per write; below the frontier (`moved` buckets of the old
//! array) the new array holds, above it the old one. The new array's memory is initialized as the
//! frontier reaches it, so that no step is long, whatever the size.
#![allow(unsafe_code)] // Raw arrays: half-initialized while a resize is on, entries shared with readers.

use super::KeyHasher;
use super::bucket::{BUCKET_WIDTH, Bucket, Entry, prefetch, tag_of};
use super::chain::Chain;
use super::item::RawItem;
use super::memory::{Memory, array_count, grown_count};
use crate::limits::{
    TABLE_BUCKETS_AT_ONCE, TABLE_BUCKETS_PER_WRITE, TABLE_LOAD_MAX_PERCENTS, TABLE_LOAD_MIN_PERCENT,
};
use std::ptr::NonNull;

/// One past the last position.
pub(super) const POSITION_END: u64 = 1 << 48;

/// How far ahead of a move items are fetched into the cache, in buckets.
const PREFETCH_DISTANCE: usize = 4;

/// Items of one slot in one database. One cache line. Its arrays and items are freed by those who
/// hold the memory they are from, not when it is dropped.
#[repr(align(64))]
pub(super) struct Table {
    /// The array that new items go to; null when the table is empty.
    buckets: *mut Bucket,
    /// The array being moved from; null when no resize is on.
    old: *mut Bucket,
    bucket_count: u32,
    old_count: u32,
    /// Buckets of the old array that were moved.
    moved: u32,
    count: usize,
    expiring: usize,
}

const _: () = assert!(size_of::<Table>() == 64);
const _: () = assert!(TABLE_LOAD_MIN_PERCENT * 2 < TABLE_LOAD_MAX_PERCENTS.start);

// SAFETY: a table owns its arrays and items, and is used by one thread at a time.
unsafe impl Send for Table {}

impl Default for Table {
    fn default() -> Table {
        Table {
            buckets: std::ptr::null_mut(),
            old: std::ptr::null_mut(),
            bucket_count: 0,
            old_count: 0,
            moved: 0,
            count: 0,
            expiring: 0,
        }
    }
}

impl Table {
    /// Count of items.
    #[inline(always)]
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Count of items with a deadline.
    #[inline(always)]
    pub(super) fn expiring(&self) -> usize {
        self.expiring
    }

    /// Is a resize under way?
    #[cfg(test)]
    pub(super) fn is_resizing(&self) -> bool {
        !self.old.is_null()
    }

    /// The entry of a key. Cost: one cache miss for the bucket, one for the item.
    #[inline(always)]
    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Option<NonNull<Entry>> {
        self.chain(hash)?.find(tag_of(hash), key)
    }

    /// Adds an item whose key is not here.
    /// It grows when its buckets are full to `load_max` percent.
    pub(super) fn insert(
        &mut self,
        hash: u64,
        item: RawItem,
        load_max: usize,
        hasher: &KeyHasher,
        memory: &mut Memory,
    ) {
        if self.buckets.is_null() {
            self.buckets = Bucket::allocate(memory).as_ptr();
            self.bucket_count = 1;
        } else if !self.old.is_null() {
            self.move_buckets(TABLE_BUCKETS_PER_WRITE, hasher, memory);
        } else if self.count >= capacity(self.bucket_count as usize, load_max) {
            self.resize(grown_count(self.bucket_count as usize), hasher, memory);
        }
        let chain = self.chain(hash).expect("there is an array");
        chain.push(Entry::new(tag_of(hash), item), memory);
        self.count += 1;
        self.expiring += usize::from(item.has_deadline());
    }

    /// Puts another item in the place of one with the same key.
    #[inline]
    pub(super) fn replace(&mut self, place: NonNull<Entry>, item: RawItem) {
        // SAFETY: `place` is in this table, which is borrowed exclusively.
        unsafe {
            let entry = place.read();
            self.expiring -= usize::from(entry.has_deadline());
            self.expiring += usize::from(item.has_deadline());
            place.write(entry.with_item(item));
        }
    }

    /// Takes out the item at a place that [`Table::find`] gave for this hash.
    pub(super) fn remove(
        &mut self,
        hash: u64,
        place: NonNull<Entry>,
        hasher: &KeyHasher,
        memory: &mut Memory,
    ) -> RawItem {
        // SAFETY: `place` is in this table, which is borrowed exclusively.
        let entry = unsafe { place.read() };
        self.chain(hash).expect("it holds the place").take(place, memory);
        self.count -= 1;
        self.expiring -= usize::from(entry.has_deadline());
        if self.count == 0 {
            self.free_arrays(memory);
        } else if !self.old.is_null() {
            self.move_buckets(TABLE_BUCKETS_PER_WRITE, hasher, memory);
        } else if self.bucket_count > 1
            && self.count * 100 < self.bucket_count as usize * BUCKET_WIDTH * TABLE_LOAD_MIN_PERCENT
        {
            let wanted = self.count * 200 / TABLE_LOAD_MAX_PERCENTS.start / BUCKET_WIDTH;
            let to = array_count(wanted.max(1));
            if to < self.bucket_count as usize {
                self.resize(to, hasher, memory);
            }
        }
        entry.item()
    }

    /// The chain that a position falls into, and the first position after it. `None` when the table
    /// is empty.
    #[inline]
    pub(super) fn chain_at(&self, position: u64) -> Option<(Chain, u64)> {
        if self.buckets.is_null() {
            return None;
        }
        let count = self.bucket_count as usize;
        if !self.old.is_null() {
            let old_count = self.old_count as usize;
            let i = index_of(position, old_count);
            if i >= self.moved as usize {
                // SAFETY: buckets of the old array from `moved` on hold its items.
                let chain = unsafe { Chain::new(NonNull::new_unchecked(self.old.add(i))) };
                return Some((chain, start_of(i + 1, old_count)));
            }
            let i = index_of(position, count);
            let end = start_of(i + 1, count).min(start_of(self.moved as usize, old_count));
            // SAFETY: the new array is initialized below the frontier.
            return Some((unsafe { Chain::new(NonNull::new_unchecked(self.buckets.add(i))) }, end));
        }
        let i = index_of(position, count);
        // SAFETY: `i` is below the count; without a resize all of the array is initialized.
        let chain = unsafe { Chain::new(NonNull::new_unchecked(self.buckets.add(i))) };
        Some((chain, start_of(i + 1, count)))
    }

    /// Fetches items of the bucket that a position falls into into the cache, for walks.
    #[inline(always)]
    pub(super) fn prefetch_items_at(&self, position: u64) {
        if position < POSITION_END
            && let Some((chain, _)) = self.chain_at(position)
        {
            chain.prefetch_items();
        }
    }

    /// Takes all items out of the chain that a position falls into, and returns the first position
    /// after it. For tables that are being freed: the counts are not kept.
    pub(super) fn drain_at(
        &mut self,
        position: u64,
        memory: &mut Memory,
        mut take: impl FnMut(RawItem, &mut Memory),
    ) -> u64 {
        let Some((chain, next)) = self.chain_at(position) else { return POSITION_END };
        chain.drain(memory, |entry, memory| take(entry.item(), memory));
        next
    }

    /// Moves the array out of a slab that is to be left, unless a resize will do so anyway. Returns
    /// how many buckets it has if it was moved.
    pub(super) fn move_array(&mut self, memory: &mut Memory) -> usize {
        let array = NonNull::new(self.buckets).filter(|array| memory.is_leaving(array.cast()));
        let Some(array) = array.filter(|_| self.old.is_null()) else { return 0 };
        let count = self.bucket_count as usize;
        let copy = memory.allocate_buckets(count);
        // SAFETY: both have room for so many buckets, and without a resize all of the old one are
        // initialized. Nothing but the table points to them.
        unsafe {
            copy.copy_from_nonoverlapping(array, count);
            memory.free_buckets(array, count);
        }
        self.buckets = copy.as_ptr();
        count
    }

    /// Frees the arrays of a table whose items were all taken out.
    pub(super) fn free_arrays(&mut self, memory: &mut Memory) {
        for (array, count) in [(self.buckets, self.bucket_count), (self.old, self.old_count)] {
            if let Some(array) = NonNull::new(array) {
                // SAFETY: allocated with this count, and its chains are empty.
                unsafe { memory.free_buckets(array, count as usize) };
            }
        }
        (self.buckets, self.old) = (std::ptr::null_mut(), std::ptr::null_mut());
        (self.bucket_count, self.old_count, self.moved) = (0, 0, 0);
        (self.count, self.expiring) = (0, 0);
    }

    /// Fetches the bucket of a hash into the cache. The table itself should be there.
    #[inline(always)]
    pub(super) fn prefetch_bucket(&self, hash: u64) {
        if let Some(head) = self.head(hash) {
            prefetch(head.as_ptr().cast());
        }
    }

    /// Fetches the item of a hash into the cache. The bucket should be there.
    #[inline(always)]
    pub(super) fn prefetch_item(&self, hash: u64) {
        if let Some(chain) = self.chain(hash) {
            chain.prefetch_match(tag_of(hash));
        }
    }

    #[inline(always)]
    fn chain(&self, hash: u64) -> Option<Chain> {
        // SAFETY: `head` gives initialized buckets of the array that holds this hash.
        self.head(hash).map(|head| unsafe { Chain::new(head) })
    }

    #[inline(always)]
    fn head(&self, hash: u64) -> Option<NonNull<Bucket>> {
        let position = position_of(hash);
        if !self.old.is_null() {
            let i = index_of(position, self.old_count as usize);
            if i >= self.moved as usize {
                // SAFETY: an index is below its count.
                return Some(unsafe { NonNull::new_unchecked(self.old.add(i)) });
            }
        }
        let array = NonNull::new(self.buckets)?;
        // SAFETY: as above.
        Some(unsafe { array.add(index_of(position, self.bucket_count as usize)) })
    }

    /// Starts to move everything into an array of `count` buckets; a small table is done with at
    /// once.
    fn resize(&mut self, count: usize, hasher: &KeyHasher, memory: &mut Memory) {
        debug_assert!(self.old.is_null());
        self.old = self.buckets;
        self.old_count = self.bucket_count;
        self.moved = 0;
        self.buckets = memory.allocate_buckets(count).as_ptr();
        self.bucket_count = u32::try_from(count).expect("a table has fewer than 2^32 buckets");
        let at_once = self.old_count as usize <= TABLE_BUCKETS_AT_ONCE;
        self.move_buckets(
            if at_once { usize::MAX } else { TABLE_BUCKETS_PER_WRITE },
            hasher,
            memory,
        );
    }

    /// Moves up to `budget` buckets of the old array. Cost: about 20 ns per item.
    fn move_buckets(&mut self, budget: usize, hasher: &KeyHasher, memory: &mut Memory) {
        let old_count = self.old_count as usize;
        let end = (self.moved as usize).saturating_add(budget).min(old_count);
        for i in self.moved as usize..end {
            let ahead = i + PREFETCH_DISTANCE;
            if ahead < old_count {
                // SAFETY: a bucket of the old array that was not moved yet.
                unsafe { Chain::new(NonNull::new_unchecked(self.old.add(ahead))) }.prefetch_items();
            }
            self.move_bucket(i, hasher, memory);
        }
        if end == old_count {
            // SAFETY: allocated with this count; all chains were drained.
            unsafe { memory.free_buckets(NonNull::new_unchecked(self.old), old_count) };
            self.old = std::ptr::null_mut();
            (self.old_count, self.moved) = (0, 0);
        }
    }

    fn move_bucket(&mut self, i: usize, hasher: &KeyHasher, memory: &mut Memory) {
        let (count, old_count) = (self.bucket_count as usize, self.old_count as usize);
        let start = start_of(i, old_count);
        let first = if start == 0 { 0 } else { index_of(start - 1, count) + 1 };
        let last = index_of(start_of(i + 1, old_count) - 1, count);
        for fresh in first..=last {
            // SAFETY: below the count; nothing was ever here, the frontier only now reaches it.
            unsafe { self.buckets.add(fresh).write(Bucket::EMPTY) };
        }
        // SAFETY: bucket `i` of the old array was not moved before; `moved` says so.
        let chain = unsafe { Chain::new(NonNull::new_unchecked(self.old.add(i))) };
        self.moved = i as u32 + 1;
        let buckets = self.buckets;
        chain.drain(memory, |entry, memory| {
            let item = entry.item();
            // SAFETY: the item is alive; the borrow ends with the statement.
            let hash = hasher.place(unsafe { item.borrow() }.key());
            let to = index_of(position_of(hash), count);
            debug_assert!(to <= last);
            // SAFETY: the new array is initialized up to `last`, and no other reference into it is
            // held.
            let chain = unsafe { Chain::new(NonNull::new_unchecked(buckets.add(to))) };
            chain.push(entry, memory);
        });
    }
}

/// The position of a hash: its top 48 bits.
#[inline(always)]
pub(super) fn position_of(hash: u64) -> u64 {
    hash >> 16
}

/// The bucket, of `count`, that holds a position.
#[inline(always)]
fn index_of(position: u64, count: usize) -> usize {
    ((u128::from(position) * count as u128) >> 48) as usize
}

/// The first position of bucket `i` of `count`.
#[inline(always)]
fn start_of(i: usize, count: usize) -> u64 {
    if i < 1 << 15 {
        ((i as u64) << 48).div_ceil(count as u64)
    } else {
        ((i as u128) << 48).div_ceil(count as u128) as u64
    }
}

/// Items that an array of `count` buckets takes before it grows.
#[inline(always)]
fn capacity(count: usize, load_max: usize) -> usize {
    if count == 1 { BUCKET_WIDTH } else { count * BUCKET_WIDTH * load_max / 100 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::item::Frame;
    use crate::keyspace::{Shape, StringForm};

    fn item(key: &[u8], memory: &mut Memory) -> RawItem {
        let frame = Frame {
            shape: Shape::String(StringForm::Automatic),
            deadline: None,
            mark: false,
            access: 0,
            key_length: key.len(),
            value_length: 0,
        };
        RawItem::new(memory, &frame, key, b"")
    }

    #[test]
    fn positions_and_buckets_agree_for_every_count() {
        for count in (1..200).chain([1 << 15, 40_000, 100_003, (1 << 32) - 1]) {
            for i in (0..count.min(300)).chain([count / 2, count - 1]) {
                let start = start_of(i, count);
                assert_eq!(index_of(start, count), i);
                if start > 0 {
                    assert_eq!(index_of(start - 1, count), i - 1);
                }
            }
            assert_eq!(start_of(count, count), POSITION_END);
        }
    }

    /// Fills and empties one table; every item is found at every moment, and walks by position meet
    /// all.
    fn check(count: usize) {
        let hasher = KeyHasher::new(count as u64);
        let mut memory = Memory::default();
        let mut table = Table::default();
        let keys: Vec<Vec<u8>> = (0..count).map(|n| format!("key:{n}").into_bytes()).collect();
        let walk = |table: &Table| {
            let (mut position, mut met) = (0, 0);
            while let Some((chain, next)) = table.chain_at(position) {
                assert!(next > position);
                met += chain.entries().count();
                position = next;
                if position == POSITION_END {
                    break;
                }
            }
            met
        };
        let walks = if cfg!(miri) { 2 } else { 50 };
        let mut resizing = 0;
        for (n, key) in keys.iter().enumerate() {
            let hash = hasher.place(key);
            assert!(table.find(hash, key).is_none());
            let item = item(key, &mut memory);
            table.insert(hash, item, 80, &hasher, &mut memory);
            resizing += usize::from(table.is_resizing());
            let probe = &keys[(n * 7919) % (n + 1)];
            assert!(table.find(hasher.place(probe), probe).is_some());
            if n % (count / walks + 1) == 0 {
                assert_eq!(walk(&table), n + 1);
            }
        }
        assert_eq!(
            resizing > 0,
            count > capacity(TABLE_BUCKETS_AT_ONCE, 80) + 200,
            "larger tables grow bit by bit"
        );
        for (n, key) in keys.iter().enumerate() {
            let hash = hasher.place(key);
            let place = table.find(hash, key).expect("inserted");
            let removed = table.remove(hash, place, &hasher, &mut memory);
            // SAFETY: taken out.
            unsafe { removed.free(&mut memory) };
            assert!(table.find(hash, key).is_none());
            let probe = &keys[n + (n * 7919) % (count - n)];
            assert_eq!(table.find(hasher.place(probe), probe).is_some(), probe != key);
            if n % (count / walks + 1) == 0 {
                assert_eq!(walk(&table), count - n - 1);
            }
        }
        assert_eq!((table.count(), memory.used()), (0, 0), "an empty table holds no memory");
        assert!(table.buckets.is_null());
    }

    #[test]
    fn a_table_grows_and_shrinks_without_losing_anything() {
        for count in [1, 7, 8, 9, 10, 100] {
            check(count);
        }
        // Under Miri just so many that it grows bit by bit.
        for &count in if cfg!(miri) { &[1700][..] } else { &[3000, 30_000] } {
            check(count);
        }
    }
}
