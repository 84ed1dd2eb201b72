//! A bucket: one cache line with eight entries, each a hash tag beside an item's address.
//!
//! An entry's upper 16 bits are the tag, the rest is the address. Items are aligned to 8, and bit 0 tells
//! whether the item has a deadline, so that sweeps for deadlines leave the others' memory alone.
//! Entries fill from the front without gaps. When a ninth comes, the last one becomes a link to an
//! overflow bucket; an overflow bucket always holds at least two entries.
#![allow(unsafe_code)] // Tagged pointers: half the memory of a pointer and a hash side by side.

use super::item::RawItem;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

const _: () = assert!(usize::BITS == 64, "entries keep tags in the upper bits of addresses");

/// Entries of a bucket.
pub(super) const BUCKET_WIDTH: usize = 8;
/// Bytes of a bucket.
pub(super) const BUCKET_SIZE: usize = size_of::<Bucket>();

const TAG_SHIFT: u32 = 48;
const ADDRESS_MASK: usize = (1 << TAG_SHIFT) - 1;
const DEADLINE_BIT: usize = 1;
const LINK_TAG: u16 = u16::MAX;
const LAST: usize = BUCKET_WIDTH - 1;

/// Tag of a hash: its low 16 bits, but neither that of an empty entry nor that of a link.
#[inline(always)]
pub(super) fn tag_of(hash: u64) -> u16 {
    (hash as u16).clamp(1, LINK_TAG - 1)
}

/// A tagged pointer to an item or an overflow bucket, or nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct Entry(*mut u8);

impl Entry {
    const EMPTY: Entry = Entry(std::ptr::null_mut());

    /// The entry of an item.
    #[inline(always)]
    pub(super) fn new(tag: u16, item: RawItem) -> Entry {
        let deadline = if item.has_deadline() { DEADLINE_BIT } else { 0 };
        Entry(item.pointer().as_ptr().map_addr(|address| {
            debug_assert_eq!(address & (!ADDRESS_MASK | 7), 0, "user addresses have 48 bits");
            address | (tag as usize) << TAG_SHIFT | deadline
        }))
    }

    /// The same place with another item.
    #[inline(always)]
    pub(super) fn with_item(self, item: RawItem) -> Entry {
        Entry::new((self.0.addr() >> TAG_SHIFT) as u16, item)
    }

    fn link(bucket: NonNull<Bucket>) -> Entry {
        let tag = (LINK_TAG as usize) << TAG_SHIFT;
        Entry(bucket.as_ptr().cast::<u8>().map_addr(|address| address | tag))
    }

    #[inline(always)]
    fn is_empty(self) -> bool {
        self.0.is_null()
    }

    #[inline(always)]
    fn is_link(self) -> bool {
        self.0.addr() >> TAG_SHIFT == LINK_TAG as usize
    }

    /// Has its item a deadline? Does not touch the item.
    #[inline(always)]
    pub(super) fn has_deadline(self) -> bool {
        self.0.addr() & DEADLINE_BIT != 0
    }

    /// The item of an entry that is neither empty nor a link.
    #[inline(always)]
    pub(super) fn item(self) -> RawItem {
        debug_assert!(!self.is_empty() && !self.is_link());
        // SAFETY: an entry in a bucket points to an item that lives until the entry is taken out.
        unsafe { RawItem::from_pointer(NonNull::new_unchecked(self.address())) }
    }

    #[inline(always)]
    fn address(self) -> *mut u8 {
        self.0.map_addr(|address| address & ADDRESS_MASK & !7)
    }
}

/// Eight entries in one cache line.
#[repr(C, align(64))]
pub(super) struct Bucket {
    entries: [Entry; BUCKET_WIDTH],
}

impl Bucket {
    /// No entries.
    pub(super) const EMPTY: Bucket = Bucket { entries: [Entry::EMPTY; BUCKET_WIDTH] };

    fn allocate() -> NonNull<Bucket> {
        let layout = Layout::new::<Bucket>();
        // SAFETY: a bucket has 64 bytes; it is written before anyone sees it.
        unsafe {
            let pointer = alloc(layout).cast::<Bucket>();
            let Some(bucket) = NonNull::new(pointer) else { handle_alloc_error(layout) };
            bucket.write(Bucket::EMPTY);
            bucket
        }
    }

    /// # Safety
    /// Allocated by `allocate`, and nobody links to it any more.
    unsafe fn free(bucket: NonNull<Bucket>) {
        // SAFETY: the caller's word.
        unsafe { dealloc(bucket.as_ptr().cast(), Layout::new::<Bucket>()) }
    }

    /// Bit `i` is set when entry `i` has this tag. Cost: 15 instructions, no branch.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn matches(&self, tag: u16) -> u32 {
        use std::arch::x86_64::*;
        // SAFETY: SSE2 belongs to x86_64; the loads are of this bucket's 64 bytes, aligned to 16.
        unsafe {
            let line = std::ptr::from_ref(self).cast::<__m128i>();
            let wanted = _mm_set1_epi16(tag as i16);
            // The tag is the upper quarter of an entry, so a match shows in the sign of its upper half.
            let pair = |i| _mm_castsi128_ps(_mm_cmpeq_epi16(_mm_load_si128(line.add(i)), wanted));
            let low = _mm_movemask_ps(_mm_shuffle_ps::<0b11_01_11_01>(pair(0), pair(1)));
            let high = _mm_movemask_ps(_mm_shuffle_ps::<0b11_01_11_01>(pair(2), pair(3)));
            (low | high << 4) as u32
        }
    }

    /// Bit `i` is set when entry `i` has this tag.
    #[cfg(not(target_arch = "x86_64"))]
    #[inline(always)]
    pub(super) fn matches(&self, tag: u16) -> u32 {
        self.matches_one_by_one(tag)
    }

    #[cfg(any(test, not(target_arch = "x86_64")))]
    fn matches_one_by_one(&self, tag: u16) -> u32 {
        let mut found = 0;
        for (i, entry) in self.entries.iter().enumerate() {
            found |= u32::from(entry.0.addr() >> TAG_SHIFT == tag as usize) << i;
        }
        found
    }

    /// The place of entry `i`.
    #[inline(always)]
    pub(super) fn place(&self, i: usize) -> Entry {
        self.entries[i]
    }

    /// The overflow bucket.
    #[inline(always)]
    pub(super) fn next(&self) -> Option<NonNull<Bucket>> {
        let last = self.entries[LAST];
        if last.is_link() { NonNull::new(last.address().cast()) } else { None }
    }

    /// The entries of this bucket alone.
    #[inline(always)]
    pub(super) fn items(&self) -> impl Iterator<Item = Entry> + '_ {
        self.entries.iter().copied().take_while(|entry| !entry.is_empty() && !entry.is_link())
    }

    fn filled(&self) -> usize {
        self.items().count()
    }
}

/// A bucket and the overflow buckets that hang on it.
#[derive(Clone, Copy)]
pub(super) struct Chain {
    head: NonNull<Bucket>,
}

impl Chain {
    /// The chain that begins with this bucket.
    ///
    /// # Safety
    /// `head` is an initialized bucket of a table, no overflow bucket, and stays so while the chain is in
    /// use; nobody holds a reference into the chain while one of its methods changes it.
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

    /// Adds an entry. Returns whether an overflow bucket was allocated for it.
    pub(super) fn push(self, entry: Entry) -> bool {
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
                return false;
            }
            let mut overflow = Bucket::allocate();
            // SAFETY: just allocated.
            let more = unsafe { overflow.as_mut() };
            more.entries[0] = line.entries[LAST];
            more.entries[1] = entry;
            line.entries[LAST] = Entry::link(overflow);
            return true;
        }
    }

    /// Takes out the entry at `place`, which is in this chain. Returns whether an overflow bucket was
    /// freed.
    pub(super) fn take(self, place: NonNull<Entry>) -> bool {
        let mut before = None;
        let mut bucket = self.head;
        // SAFETY: initialized and alive, as are all buckets that follow; references last one statement.
        while let Some(next) = unsafe { bucket.as_ref() }.next() {
            before = Some(bucket);
            bucket = next;
        }
        // SAFETY: as above; `place` lies in one of the chain's buckets, and no reference is held across
        // the write to it.
        unsafe {
            let last_index = bucket.as_ref().filled() - 1;
            let last = bucket.cast::<Entry>().add(last_index);
            place.write(last.read());
            last.write(Entry::EMPTY);
            match before {
                Some(mut before) if last_index == 1 => {
                    before.as_mut().entries[LAST] = bucket.as_ref().entries[0];
                    Bucket::free(bucket);
                    true
                }
                _ => false,
            }
        }
    }

    /// Takes out all entries. Returns how many overflow buckets were freed.
    pub(super) fn drain(mut self, mut take: impl FnMut(Entry)) -> usize {
        let mut freed = 0;
        // SAFETY: initialized and alive; the head is emptied first, so nothing links to the others.
        let head = unsafe { std::mem::replace(self.head.as_mut(), Bucket::EMPTY) };
        head.items().for_each(&mut take);
        let mut next = head.next();
        while let Some(bucket) = next {
            // SAFETY: as above; freed once, after the last look.
            unsafe {
                bucket.as_ref().items().for_each(&mut take);
                next = bucket.as_ref().next();
                Bucket::free(bucket);
            }
            freed += 1;
        }
        freed
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
            prefetch(item);
            prefetch(item.wrapping_add(64));
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

/// Asks for a cache line ahead of its use. Any address will do.
#[inline(always)]
pub(super) fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect but on the cache, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::StringForm;
    use crate::keyspace::item::Frame;
    use crate::keyspace::model::Chance;

    fn item(n: u64) -> RawItem {
        let frame = Frame {
            form: StringForm::Automatic,
            deadline: None,
            mark: false,
            access: 0,
            key_length: 8,
            value_length: 0,
        };
        RawItem::new(&frame, &n.to_le_bytes(), b"")
    }

    #[test]
    fn tags_are_matched_as_one_by_one() {
        let tags = [0, 1, 2, 0x7fff, 0x8000, 0xfffe, 0xffff, 0x0101];
        for shift in 0..8 {
            let mut bucket = Bucket::EMPTY;
            for (i, entry) in bucket.entries.iter_mut().enumerate() {
                let tag: usize = tags[(i * 3 + shift) % 8];
                // Addresses full of the other tags' bits.
                let address = 0x0001_fffe_8000 + i * 8;
                *entry = Entry(std::ptr::without_provenance_mut(tag << TAG_SHIFT | address));
            }
            for tag in 0..=u16::MAX {
                if cfg!(miri) && tag % 1021 != 1 && !tags.contains(&(tag as usize)) {
                    continue;
                }
                assert_eq!(bucket.matches(tag), bucket.matches_one_by_one(tag), "{tag:#x}");
            }
        }
    }

    #[test]
    fn a_chain_grows_and_shrinks_by_buckets() {
        let mut chance = Chance(7);
        let mut head = Bucket::EMPTY;
        // SAFETY: `head` is only used through the chain until it is dropped.
        let chain = unsafe { Chain::new(NonNull::from(&mut head)) };
        let mut present: Vec<u64> = vec![];
        let mut overflow = 0;
        let mut longest = 0;
        for n in 0..if cfg!(miri) { 300 } else { 20_000 } {
            let growing = n / 50 % 2 == 0;
            if present.is_empty() || chance.below(10) < if growing { 7 } else { 3 } {
                overflow += usize::from(chain.push(Entry::new(tag_of(n % 3), item(n))));
                present.push(n);
            } else {
                let gone = present.swap_remove(chance.below(present.len() as u64) as usize);
                let place = chain.find(tag_of(gone % 3), &gone.to_le_bytes()).expect("present");
                // SAFETY: the place is in the chain, and the item is used no more once it is out.
                let removed = unsafe { place.read() }.item();
                overflow -= usize::from(chain.take(place));
                // SAFETY: as above.
                unsafe { removed.free() };
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
            assert_eq!(overflow, present.len().saturating_sub(2) / 7);
            longest = longest.max(overflow);
        }
        assert!(longest >= 2);
        let freed = chain.drain(|entry| {
            // SAFETY: taken out.
            unsafe { entry.item().free() };
        });
        assert_eq!(freed, overflow);
        assert_eq!(chain.entries().count(), 0);
    }
}
