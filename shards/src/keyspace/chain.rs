//! A chain: a bucket of a table and the overflow buckets that hang on it.
#![allow(unsafe_code)] // Buckets are linked by tagged pointers, and readers share them with their table.

use super::bucket::{BUCKET_WIDTH, Bucket, Entry, LAST, prefetch};
use super::item::RawItem;
use super::memory::Memory;
use std::ptr::NonNull;

/// A bucket and the overflow buckets that hang on it.
#[derive(Clone, Copy)]
pub(super) struct Chain {
    head: NonNull<Bucket>,
}

impl Chain {
    /// The chain that begins with this bucket.
    ///
    /// # Safety
    /// `head` is an initialized bucket of a table, no overflow bucket, and stays so while the chain
    /// is in use; nobody holds a reference into the chain while one of its methods changes it.
    #[inline(always)]
    pub(super) unsafe fn new(head: NonNull<Bucket>) -> Chain {
        Chain { head }
    }

    /// All entries. Read ahead of changing: the iterator must not outlive a change of the chain.
    #[inline(always)]
    pub(super) fn entries(self) -> ChainEntries {
        ChainEntries { bucket: Some(self.head), i: 0 }
    }

    /// The entry of a key.
    #[inline(always)]
    pub(super) fn find(self, tag: u16, key: &[u8]) -> Option<NonNull<Entry>> {
        let mut bucket = self.head;
        loop {
            // SAFETY: the chain's buckets are initialized and alive; nobody changes them meanwhile.
            let line = unsafe { bucket.as_ref() };
            let mut matches = line.matches(tag);
            while matches != 0 {
                let i = matches.trailing_zeros() as usize;
                if line.place(i).item().has_key(key) {
                    // SAFETY: in bounds: `i` is below the width.
                    return Some(unsafe { bucket.cast::<Entry>().add(i) });
                }
                matches &= matches - 1;
            }
            bucket = line.next()?;
        }
    }

    /// Adds an entry.
    pub(super) fn push(self, entry: Entry, memory: &mut Memory) {
        let mut bucket = self.head;
        loop {
            // SAFETY: initialized and alive, and this is the only reference to it.
            let line = unsafe { bucket.as_mut() };
            if let Some(next) = line.next() {
                bucket = next;
                continue;
            }
            let filled = line.filled();
            if filled < BUCKET_WIDTH {
                line.entries[filled] = entry;
                return;
            }
            let mut overflow = Bucket::allocate(memory);
            // SAFETY: just allocated.
            let more = unsafe { overflow.as_mut() };
            more.entries[0] = line.entries[LAST];
            more.entries[1] = entry;
            line.entries[LAST] = Entry::link(overflow);
            return;
        }
    }

    /// Takes out the entry at `place`, which is in this chain.
    pub(super) fn take(self, place: NonNull<Entry>, memory: &mut Memory) {
        let mut before = None;
        let mut bucket = self.head;
        // SAFETY: initialized and alive, as are all buckets that follow; references last one
        // statement.
        while let Some(next) = unsafe { bucket.as_ref() }.next() {
            before = Some(bucket);
            bucket = next;
        }
        // SAFETY: as above; `place` lies in one of the chain's buckets, and no reference is held
        // across the write to it.
        unsafe {
            let last_index = bucket.as_ref().filled() - 1;
            let last = bucket.cast::<Entry>().add(last_index);
            place.write(last.read());
            last.write(Entry::EMPTY);
            if let Some(mut before) = before
                && last_index == 1
            {
                before.as_mut().entries[LAST] = bucket.as_ref().entries[0];
                Bucket::free(bucket, memory);
            }
        }
    }

    /// Puts other items with the same keys in the place of those for which `replace` gives one.
    pub(super) fn replace_each(self, mut replace: impl FnMut(RawItem) -> Option<RawItem>) {
        let mut next = Some(self.head);
        while let Some(mut bucket) = next {
            // SAFETY: initialized and alive, and this is the only reference to it.
            let line = unsafe { bucket.as_mut() };
            let filled = line.filled();
            for entry in &mut line.entries[..filled] {
                if let Some(item) = replace(entry.item()) {
                    *entry = entry.with_item(item);
                }
            }
            next = line.next();
        }
    }

    /// Moves overflow buckets out of slabs that are to be left. Returns how many.
    pub(super) fn move_overflow(self, memory: &mut Memory) -> usize {
        let mut moved = 0;
        let mut bucket = self.head;
        // SAFETY: initialized and alive, as are all buckets that follow; references last one
        // statement.
        while let Some(mut next) = unsafe { bucket.as_ref() }.next() {
            if memory.is_leaving(next.cast()) {
                let copy = Bucket::allocate(memory);
                // SAFETY: as above; the copy takes the place of the one whose only link is
                // replaced.
                unsafe {
                    copy.copy_from_nonoverlapping(next, 1);
                    bucket.as_mut().entries[LAST] = Entry::link(copy);
                    Bucket::free(next, memory);
                }
                next = copy;
                moved += 1;
            }
            bucket = next;
        }
        moved
    }

    /// Takes out all entries.
    pub(super) fn drain(mut self, memory: &mut Memory, mut take: impl FnMut(Entry, &mut Memory)) {
        // SAFETY: initialized and alive; the head is emptied first, so nothing links to the others.
        let head = unsafe { std::mem::replace(self.head.as_mut(), Bucket::EMPTY) };
        head.items().for_each(|entry| take(entry, memory));
        let mut next = head.next();
        while let Some(bucket) = next {
            // SAFETY: as above; freed once, after the last look.
            unsafe {
                bucket.as_ref().items().for_each(|entry| take(entry, memory));
                next = bucket.as_ref().next();
                Bucket::free(bucket, memory);
            }
        }
    }

    /// Fetches the items of the first bucket into the cache.
    #[inline(always)]
    pub(super) fn prefetch_items(self) {
        // SAFETY: initialized and alive.
        for entry in unsafe { self.head.as_ref() }.items() {
            prefetch(entry.address());
        }
    }

    /// Fetches what a lookup of this tag will need: the item, or the overflow bucket.
    #[inline(always)]
    pub(super) fn prefetch_match(self, tag: u16) {
        // SAFETY: initialized and alive.
        let line = unsafe { self.head.as_ref() };
        let matches = line.matches(tag);
        if matches != 0 {
            let item = line.place(matches.trailing_zeros() as usize).address();
            // The lines of an item of up to 88 bytes, three in one of four cases.
            prefetch(item);
            prefetch(item.wrapping_add(64));
            prefetch(item.wrapping_add(80));
        } else if let Some(next) = line.next() {
            prefetch(next.as_ptr().cast());
        }
    }
}

/// Entries of a chain, in order.
pub(super) struct ChainEntries {
    bucket: Option<NonNull<Bucket>>,
    i: usize,
}

impl Iterator for ChainEntries {
    type Item = Entry;

    #[inline(always)]
    fn next(&mut self) -> Option<Entry> {
        // SAFETY: the chain's buckets are initialized and alive, and unchanged while this iterates.
        let mut line = unsafe { self.bucket?.as_ref() };
        if self.i == LAST
            && let Some(next) = line.next()
        {
            self.bucket = Some(next);
            self.i = 0;
            // SAFETY: as above.
            line = unsafe { next.as_ref() };
        }
        let entry = *line.entries.get(self.i)?;
        if entry.is_empty() {
            return None;
        }
        self.i += 1;
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::bucket::tag_of;
    use crate::keyspace::item::Frame;
    use crate::keyspace::model::Chance;
    use crate::keyspace::{Shape, StringForm};

    fn item(n: u64, memory: &mut Memory) -> RawItem {
        let frame = Frame {
            shape: Shape::String(StringForm::Automatic),
            deadline: None,
            mark: false,
            access: 0,
            key_length: 8,
            value_length: 0,
        };
        RawItem::new(memory, &frame, &n.to_le_bytes(), b"")
    }

    #[test]
    fn a_chain_grows_and_shrinks_by_buckets() {
        let mut chance = Chance(7);
        let mut head = Bucket::EMPTY;
        // SAFETY: `head` is only used through the chain until it is dropped.
        let chain = unsafe { Chain::new(NonNull::from(&mut head)) };
        let mut present: Vec<u64> = vec![];
        let mut memory = Memory::default();
        let mut longest = 0;
        for n in 0..if cfg!(miri) { 300 } else { 20_000 } {
            let growing = n / 50 % 2 == 0;
            if present.is_empty() || chance.below(10) < if growing { 7 } else { 3 } {
                let item = item(n, &mut memory);
                chain.push(Entry::new(tag_of(n % 3), item), &mut memory);
                present.push(n);
            } else {
                let gone = present.swap_remove(chance.below(present.len() as u64) as usize);
                let place = chain.find(tag_of(gone % 3), &gone.to_le_bytes()).expect("present");
                // SAFETY: the place is in the chain, and the item is used no more once it is out.
                let removed = unsafe { place.read() }.item();
                chain.take(place, &mut memory);
                // SAFETY: as above.
                unsafe { removed.free(&mut memory) };
            }
            let mut keys: Vec<u64> = chain
                .entries()
                .map(|entry| {
                    // SAFETY: alive while it is in the chain.
                    let item = unsafe { entry.item().borrow() };
                    u64::from_le_bytes(item.key().try_into().expect("8 bytes"))
                })
                .collect();
            keys.sort_unstable();
            present.sort_unstable();
            assert_eq!(keys, present);
            // Seven in each bucket but the last, which holds two to eight.
            let overflow = present.len().saturating_sub(2) / 7;
            assert_eq!(memory.used(), overflow * size_of::<Bucket>() + present.len() * 16);
            longest = longest.max(overflow);
        }
        assert!(longest >= 2);
        chain.drain(&mut memory, |entry, memory| {
            // SAFETY: taken out.
            unsafe { entry.item().free(memory) };
        });
        assert_eq!(memory.used(), 0);
        assert_eq!(chain.entries().count(), 0);
    }
}
