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

    /// Bit `i` is set when entry `i` has this tag.
    #[inline(always)]
    pub(super) fn matches(&self, tag: u16) -> u32 {
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
                // SAFETY: the item is alive while it is in the chain; the borrow ends here.
                if unsafe { line.place(i).item().borrow() }.key() == key {
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
