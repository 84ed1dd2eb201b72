//! A bucket: one cache line with eight entries, each a hash tag beside an item's address.
//!
//! An entry's upper 16 bits are the tag, the rest is the address. Items are aligned to 8, and bit 0
//! tells whether the item has a deadline, so that sweeps for deadlines leave the others' memory
//! alone. Entries fill from the front without gaps. When a ninth comes, the last one becomes a link
//! to an overflow bucket; an overflow bucket always holds at least two entries.
#![allow(unsafe_code)] // Tagged pointers: half the memory of a pointer and a hash side by side.

use super::item::RawItem;
use super::memory::Memory;
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
/// Index of the last entry, which may be a link.
pub(super) const LAST: usize = BUCKET_WIDTH - 1;

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
    pub(super) const EMPTY: Entry = Entry(std::ptr::null_mut());

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

    pub(super) fn link(bucket: NonNull<Bucket>) -> Entry {
        let tag = (LINK_TAG as usize) << TAG_SHIFT;
        Entry(bucket.as_ptr().cast::<u8>().map_addr(|address| address | tag))
    }

    #[inline(always)]
    pub(super) fn is_empty(self) -> bool {
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
    pub(super) fn address(self) -> *mut u8 {
        self.0.map_addr(|address| address & ADDRESS_MASK & !7)
    }
}

/// Eight entries in one cache line.
#[repr(C, align(64))]
pub(super) struct Bucket {
    pub(super) entries: [Entry; BUCKET_WIDTH],
}

impl Bucket {
    /// No entries.
    pub(super) const EMPTY: Bucket = Bucket { entries: [Entry::EMPTY; BUCKET_WIDTH] };

    pub(super) fn allocate(memory: &mut Memory) -> NonNull<Bucket> {
        let bucket = memory.allocate_buckets(1);
        // SAFETY: just allocated for one bucket.
        unsafe { bucket.write(Bucket::EMPTY) };
        bucket
    }

    /// # Safety
    /// Allocated by `allocate` with this memory, and nobody links to it any more.
    pub(super) unsafe fn free(bucket: NonNull<Bucket>, memory: &mut Memory) {
        // SAFETY: the caller's word.
        unsafe { memory.free_buckets(bucket, 1) }
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
            // The tag is the upper quarter of an entry, so a match shows in the sign of its upper
            // half.
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

    pub(super) fn filled(&self) -> usize {
        self.items().count()
    }
}

/// Asks for a cache line ahead of its use. Any address will do.
#[inline(always)]
pub fn prefetch(address: *const u8) {
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
            let step = if cfg!(miri) { 4093 } else { 1 };
            for tag in (0..=u16::MAX).step_by(step).chain(tags.map(|tag| tag as u16)) {
                assert_eq!(bucket.matches(tag), bucket.matches_one_by_one(tag), "{tag:#x}");
            }
        }
    }
}
