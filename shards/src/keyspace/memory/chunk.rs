//! Chunks of 2 MiB, cut into slabs of 64 KiB, each of which holds allocations of one class.
//!
//! ```text
//! chunk, aligned to its size:   head (descriptors of the slabs, 1.1 KiB), rest of slab 0, slab 1, .. slab 31
//! slab:                         allocation, allocation, .., never carved yet
//! ```
//!
//! An allocation's address tells its slab's descriptor by masking, without a search. What was freed
//! in a slab is a list through the freed memory itself; what was never used has never been touched,
//! so that it takes no physical memory. Offsets are in units of 8 bytes from the slab's start,
//! hence 16 bits wide.
//!
//! Knows its own chunk alone: which slab serves a class, and which chunk gives a slab, is
//! [`Slabs`](super::slabs::Slabs)' to say.
#![allow(unsafe_code)] // An allocator: raw memory, found by address.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Bytes of a chunk, and its alignment.
pub(super) const CHUNK_BYTES: usize = 2 << 20;
/// Bytes of a slab.
pub(super) const SLAB_BYTES: usize = 64 << 10;
/// Slabs of a chunk; the first one is smaller by the head.
pub(super) const SLABS_PER_CHUNK: usize = CHUNK_BYTES / SLAB_BYTES;
/// All slabs of a chunk, as bits.
const ALL_SLABS: u32 = u32::MAX;

const UNIT_BYTES: usize = 8;
/// Alignment of the first allocation in a slab; a class whose size is a multiple of it keeps to it.
const SLAB_ALIGNMENT: usize = 64;
/// No freed allocation.
const NONE: u16 = u16::MAX;
/// What the kernel gives and takes back at once, at least.
const PAGE_BYTES: usize = 4096;

const _: () = assert!(SLABS_PER_CHUNK == ALL_SLABS.count_ones() as usize);
const _: () = assert!(SLAB_BYTES / UNIT_BYTES < NONE as usize);

/// Descriptor of a slab.
#[repr(C)]
struct Slab {
    /// Neighbours among the slabs of this class that have room.
    next: Option<SlabPointer>,
    previous: Option<SlabPointer>,
    /// The allocation freed last, which holds the offset of the one before.
    free: u16,
    /// Where what was never carved begins.
    fresh: u16,
    /// Units of an allocation.
    unit_count: u16,
    /// Allocations in use.
    used: u16,
    /// Allocations that it holds when full.
    capacity: u16,
    class: u16,
}

/// What lies at the start of a chunk.
#[repr(C, align(64))]
struct Head {
    slabs: [Slab; SLABS_PER_CHUNK],
    /// Slabs without an allocation.
    free: u32,
    /// Those of them that were used before and may have physical memory.
    dirty: u32,
    /// Where the owner lists the chunk.
    place: usize,
    open_place: Option<usize>,
}

const HEAD_BYTES: usize = size_of::<Head>();
const CHUNK_LAYOUT: Layout = match Layout::from_size_align(CHUNK_BYTES, CHUNK_BYTES) {
    Ok(layout) => layout,
    Err(_) => panic!("a power of two"),
};

/// A chunk. Whoever holds one knows that it was not released.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk(NonNull<Head>);

/// A slab that was given to a class, in a chunk that was not released.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SlabPointer(NonNull<Slab>);

impl Chunk {
    /// A new chunk, all of whose slabs are free. Cost: its head is written, the rest not touched.
    pub(super) fn allocate(place: usize) -> Chunk {
        // SAFETY: the layout has a size.
        let pointer = unsafe { alloc(CHUNK_LAYOUT) };
        let Some(head) = NonNull::new(pointer.cast::<Head>()) else {
            handle_alloc_error(CHUNK_LAYOUT)
        };
        let slab = || Slab {
            next: None,
            previous: None,
            free: NONE,
            fresh: 0,
            unit_count: 0,
            used: 0,
            capacity: 0,
            class: 0,
        };
        let slabs = std::array::from_fn(|_| slab());
        // SAFETY: just allocated, larger than a head, and aligned to more.
        unsafe { head.write(Head { slabs, free: ALL_SLABS, dirty: 0, place, open_place: None }) };
        Chunk(head)
    }

    /// Gives all of it back.
    ///
    /// # Safety
    /// Nobody uses anything in it afterwards.
    pub(super) unsafe fn release(self) {
        // SAFETY: allocated with this layout; the rest is the caller's word.
        unsafe { dealloc(self.0.as_ptr().cast(), CHUNK_LAYOUT) }
    }

    /// Its head, for the length of one statement.
    #[inline(always)]
    fn head<'a>(self) -> &'a mut Head {
        // SAFETY: the chunk was not released. Only its owner, which is one thread's at a time,
        // calls this, and no reference to a head or a slab is kept beyond the statement
        // that makes it.
        unsafe { &mut *self.0.as_ptr() }
    }

    /// Are all its slabs free?
    pub(super) fn is_empty(self) -> bool {
        self.head().free == ALL_SLABS
    }

    /// Has it a free slab?
    pub(super) fn has_free(self) -> bool {
        self.head().free != 0
    }

    /// How many of its free slabs may have physical memory.
    pub(super) fn dirty_count(self) -> usize {
        self.head().dirty.count_ones() as usize
    }

    /// Where its owner lists it.
    pub(super) fn place(self) -> usize {
        self.head().place
    }

    pub(super) fn set_place(self, place: usize) {
        self.head().place = place;
    }

    /// Where its owner lists it among the chunks with free slabs.
    pub(super) fn open_place(self) -> Option<usize> {
        self.head().open_place
    }

    pub(super) fn set_open_place(self, place: Option<usize>) {
        self.head().open_place = place;
    }

    /// Takes a free slab for a class of allocations of `size` bytes; there must be one. Those that
    /// have physical memory go first. Returns whether it was such a one, too.
    pub(super) fn take_slab(self, class: usize, size: usize) -> (SlabPointer, bool) {
        let head = self.head();
        let dirty = head.dirty != 0;
        let index = if dirty { head.dirty } else { head.free }.trailing_zeros() as usize;
        let start = if index == 0 { HEAD_BYTES.next_multiple_of(SLAB_ALIGNMENT) } else { 0 };
        head.free &= !(1 << index);
        head.dirty &= !(1 << index);
        head.slabs[index] = Slab {
            next: None,
            previous: None,
            free: NONE,
            fresh: (start / UNIT_BYTES) as u16,
            unit_count: (size / UNIT_BYTES) as u16,
            used: 0,
            capacity: ((SLAB_BYTES - start) / size) as u16,
            class: class as u16,
        };
        // Not from the reference above: the address of a slab must reach the whole chunk.
        let first = self.0.cast::<Slab>();
        // SAFETY: the slabs are first in the head, and there are more than `index`.
        (SlabPointer(unsafe { first.add(index) }), dirty)
    }

    /// Takes an empty slab back.
    pub(super) fn return_slab(self, slab: SlabPointer) {
        debug_assert!(slab.is_empty() && slab.chunk() == self);
        let bit = 1 << slab.index();
        let head = self.head();
        debug_assert_eq!(head.free & bit, 0);
        head.free |= bit;
        head.dirty |= bit;
    }

    /// Gives the physical memory of one of its dirty slabs to the kernel; there must be one.
    pub(super) fn clean_one(self) {
        let head = self.head();
        let index = head.dirty.trailing_zeros() as usize;
        head.dirty &= !(1 << index);
        let start = if index == 0 { HEAD_BYTES.next_multiple_of(PAGE_BYTES) } else { 0 };
        // SAFETY: within the chunk.
        let address = unsafe { self.0.cast::<u8>().add(index * SLAB_BYTES + start) };
        // SAFETY: the slab is free: nobody minds that its bytes become zeros.
        unsafe { discard(address, SLAB_BYTES - start) };
    }
}

/// # Safety
/// The bytes are within one allocation, and nobody needs them.
#[cfg(all(target_os = "linux", not(miri)))]
unsafe fn discard(address: NonNull<u8>, length: usize) {
    // SAFETY: the caller's word. A refusal leaves the memory where it is, which is no error.
    unsafe { libc::madvise(address.as_ptr().cast(), length, libc::MADV_DONTNEED) };
}

#[cfg(not(all(target_os = "linux", not(miri))))]
unsafe fn discard(_: NonNull<u8>, _: usize) {}

impl SlabPointer {
    /// The slab of an allocation that [`SlabPointer::allocate`] gave. Of any other address it is a
    /// value that must not be used but to be compared with others.
    #[inline(always)]
    pub(super) fn of(allocation: NonNull<u8>) -> SlabPointer {
        let index = allocation.addr().get() % CHUNK_BYTES / SLAB_BYTES;
        // The slabs are first in the head of the chunk around it.
        let first = Chunk::around(allocation).0.cast::<Slab>().as_ptr();
        // SAFETY: not null: what is added to a chunk's address does not reach the end of the
        // address space.
        SlabPointer(unsafe { NonNull::new_unchecked(first.wrapping_add(index)) })
    }

    /// Its descriptor, for the length of one statement.
    #[inline(always)]
    fn slab<'a>(self) -> &'a mut Slab {
        // SAFETY: as for `Chunk::head`; a descriptor overlaps no allocation.
        unsafe { &mut *self.0.as_ptr() }
    }

    /// The chunk that it belongs to.
    #[inline(always)]
    pub(super) fn chunk(self) -> Chunk {
        Chunk::around(self.0.cast())
    }

    #[inline(always)]
    fn index(self) -> usize {
        self.0.addr().get() % CHUNK_BYTES / size_of::<Slab>()
    }

    /// The byte at an offset, in units.
    #[inline(always)]
    fn at(self, offset: u16) -> NonNull<u8> {
        let offset = self.index() * SLAB_BYTES + usize::from(offset) * UNIT_BYTES;
        // SAFETY: offsets are within the slab, and the slab is within the chunk.
        unsafe { self.chunk().0.cast::<u8>().add(offset) }
    }

    /// The class whose allocations it holds.
    #[inline(always)]
    pub(super) fn class(self) -> usize {
        usize::from(self.slab().class)
    }

    /// Allocations in use.
    pub(super) fn used(self) -> usize {
        usize::from(self.slab().used)
    }

    #[inline(always)]
    pub(super) fn is_full(self) -> bool {
        let slab = self.slab();
        slab.used == slab.capacity
    }

    #[inline(always)]
    pub(super) fn is_empty(self) -> bool {
        self.slab().used == 0
    }

    /// The next slab of its class that has room.
    #[inline(always)]
    pub(super) fn next(self) -> Option<SlabPointer> {
        self.slab().next
    }

    #[inline(always)]
    pub(super) fn previous(self) -> Option<SlabPointer> {
        self.slab().previous
    }

    #[inline(always)]
    pub(super) fn set_next(self, next: Option<SlabPointer>) {
        self.slab().next = next;
    }

    #[inline(always)]
    pub(super) fn set_previous(self, previous: Option<SlabPointer>) {
        self.slab().previous = previous;
    }

    /// An allocation of its class; it must have room. What was freed last goes first.
    #[inline(always)]
    pub(super) fn allocate(self) -> NonNull<u8> {
        let slab = self.slab();
        debug_assert!(slab.used < slab.capacity);
        slab.used += 1;
        if slab.free == NONE {
            let offset = slab.fresh;
            slab.fresh += slab.unit_count;
            return self.at(offset);
        }
        let allocation = self.at(slab.free);
        // SAFETY: `free` wrote it there, and nobody uses freed memory.
        slab.free = unsafe { allocation.cast::<u16>().read() };
        allocation
    }

    /// Takes an allocation of this slab back.
    ///
    /// # Safety
    /// Nobody uses it afterwards.
    #[inline(always)]
    pub(super) unsafe fn free(self, allocation: NonNull<u8>) {
        let slab = self.slab();
        debug_assert!(slab.used > 0);
        // SAFETY: 8 bytes at least, aligned to 8, and nobody else's.
        unsafe { allocation.cast::<u16>().write(slab.free) };
        slab.free = (allocation.addr().get() % SLAB_BYTES / UNIT_BYTES) as u16;
        slab.used -= 1;
    }
}

impl Chunk {
    /// The chunk around an address within it.
    #[inline(always)]
    fn around(address: NonNull<u8>) -> Chunk {
        let start = |address: usize| address & !(CHUNK_BYTES - 1);
        // SAFETY: the process has no memory in the first 2 MiB of its addresses.
        let head = unsafe { NonNull::new_unchecked(address.as_ptr().map_addr(start)) };
        Chunk(head.cast())
    }
}
