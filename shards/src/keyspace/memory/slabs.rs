//! Which slab serves a class, and which chunk gives a slab.
//!
//! Each class lists its slabs with room; the first one serves. A slab that was full and has room
//! again becomes the first, so that the fullest are filled up and sparse ones drain. An empty slab
//! goes back to its chunk, and an empty chunk to the process' allocator, all but one.
#![allow(unsafe_code)] // Chunks are raw memory.

use super::chunk::{CHUNK_BYTES, Chunk, SLAB_BYTES, SLABS_PER_CHUNK, SlabPointer};
use super::class::{CLASS_COUNT, class_size};
use super::totals::Spare;
use rapidhash::RapidHashSet;
use std::ptr::NonNull;

/// What there is of a class.
#[derive(Clone, Copy, Default)]
pub(super) struct Class {
    /// The first slab with room.
    pub(super) with_room: Option<SlabPointer>,
    /// Allocations in use.
    pub(super) used: usize,
    pub(super) slab_count: usize,
}

/// The chunks of one keyspace.
pub(super) struct Slabs {
    pub(super) classes: [Class; CLASS_COUNT],
    chunks: Vec<Chunk>,
    /// Those with free slabs; the last one gives.
    open: Vec<Chunk>,
    /// An empty chunk that is kept.
    kept: Option<Chunk>,
    /// Bytes in allocations.
    used_bytes: usize,
    /// Free slabs, and how many of them may have physical memory.
    free_count: usize,
    dirty_count: usize,
    /// Slabs that allocations are moved out of: they have room, but are not listed.
    pub(super) leaving: RapidHashSet<SlabPointer>,
}

// SAFETY: the chunks are reached through this alone, which one thread uses at a time.
unsafe impl Send for Slabs {}

impl Default for Slabs {
    fn default() -> Slabs {
        Slabs {
            classes: [Class::default(); CLASS_COUNT],
            chunks: Vec::new(),
            open: Vec::new(),
            kept: None,
            used_bytes: 0,
            free_count: 0,
            dirty_count: 0,
            leaving: RapidHashSet::default(),
        }
    }
}

impl Slabs {
    /// An allocation of a class, of `size` bytes, aligned to 8, and to 64 if the size is a multiple
    /// of 64. Cost: one access to the slab's descriptor and one to the memory itself.
    #[inline(always)]
    pub(super) fn allocate(&mut self, class: usize, size: usize) -> NonNull<u8> {
        self.used_bytes += size;
        self.classes[class].used += 1;
        let slab = match self.classes[class].with_room {
            Some(slab) => slab,
            None => self.add_slab(class),
        };
        let allocation = slab.allocate();
        if slab.is_full() {
            self.unlist(slab, class);
        }
        allocation
    }

    /// Takes an allocation back.
    ///
    /// # Safety
    /// `allocate` of this gave it for this class, and nobody uses it afterwards.
    #[inline(always)]
    pub(super) unsafe fn free(&mut self, allocation: NonNull<u8>, class: usize, size: usize) {
        self.used_bytes -= size;
        self.classes[class].used -= 1;
        let slab = SlabPointer::of(allocation);
        debug_assert_eq!(slab.class(), class);
        if slab.is_full() {
            self.list(slab, class);
        }
        // SAFETY: the caller's word.
        unsafe { slab.free(allocation) };
        if slab.is_empty() {
            self.return_slab(slab, class);
        }
    }

    /// Makes a slab the first of its class.
    pub(super) fn list(&mut self, slab: SlabPointer, class: usize) {
        let next = self.classes[class].with_room.replace(slab);
        slab.set_next(next);
        slab.set_previous(None);
        if let Some(next) = next {
            next.set_previous(Some(slab));
        }
    }

    pub(super) fn unlist(&mut self, slab: SlabPointer, class: usize) {
        let (next, previous) = (slab.next(), slab.previous());
        if let Some(next) = next {
            next.set_previous(previous);
        }
        match previous {
            Some(previous) => previous.set_next(next),
            None => self.classes[class].with_room = next,
        }
    }

    #[cold]
    fn add_slab(&mut self, class: usize) -> SlabPointer {
        let chunk = self.open.last().copied().unwrap_or_else(|| self.add_chunk());
        let (slab, was_dirty) = chunk.take_slab(class, class_size(class));
        self.classes[class].slab_count += 1;
        self.free_count -= 1;
        self.dirty_count -= usize::from(was_dirty);
        if self.kept == Some(chunk) {
            self.kept = None;
        }
        if !chunk.has_free() {
            self.close(chunk);
        }
        self.list(slab, class);
        slab
    }

    fn add_chunk(&mut self) -> Chunk {
        let chunk = Chunk::allocate(self.chunks.len());
        self.chunks.push(chunk);
        self.free_count += SLABS_PER_CHUNK;
        self.open(chunk);
        chunk
    }

    #[cold]
    fn return_slab(&mut self, slab: SlabPointer, class: usize) {
        if !self.leaving.remove(&slab) {
            self.unlist(slab, class);
        }
        self.classes[class].slab_count -= 1;
        let chunk = slab.chunk();
        chunk.return_slab(slab);
        self.free_count += 1;
        self.dirty_count += 1;
        if chunk.open_place().is_none() {
            self.open(chunk);
        }
        if !chunk.is_empty() {
            return;
        }
        if self.kept.is_some() {
            self.release(chunk);
        } else {
            self.kept = Some(chunk);
            self.use_last(chunk);
        }
    }

    fn open(&mut self, chunk: Chunk) {
        chunk.set_open_place(Some(self.open.len()));
        self.open.push(chunk);
    }

    fn close(&mut self, chunk: Chunk) {
        let place = chunk.open_place().expect("it had a free slab");
        chunk.set_open_place(None);
        self.open.swap_remove(place);
        if let Some(moved) = self.open.get(place) {
            moved.set_open_place(Some(place));
        }
    }

    /// Puts an open chunk where its slabs are taken last.
    fn use_last(&mut self, chunk: Chunk) {
        let place = chunk.open_place().expect("it has free slabs");
        self.open.swap(0, place);
        self.open[place].set_open_place(Some(place));
        chunk.set_open_place(Some(0));
    }

    /// Gives an empty chunk back.
    fn release(&mut self, chunk: Chunk) {
        debug_assert!(chunk.is_empty());
        self.free_count -= SLABS_PER_CHUNK;
        self.dirty_count -= chunk.dirty_count();
        self.close(chunk);
        let place = chunk.place();
        self.chunks.swap_remove(place);
        if let Some(moved) = self.chunks.get(place) {
            moved.set_place(place);
        }
        // SAFETY: no slab of it is in use, and no list holds it any more.
        unsafe { chunk.release() };
    }

    /// Gives the physical memory of up to so many free slabs to the kernel. Are there more?
    /// Cost: some microseconds each; a look at every chunk with free slabs.
    pub(super) fn clean(&mut self, slab_budget: usize) -> bool {
        let mut left = slab_budget.min(self.dirty_count);
        self.dirty_count -= left;
        for chunk in &self.open {
            while left > 0 && chunk.dirty_count() > 0 {
                chunk.clean_one();
                left -= 1;
            }
            if left == 0 {
                break;
            }
        }
        debug_assert_eq!(left, 0, "the count is that of all chunks");
        self.dirty_count > 0
    }

    /// What of the chunks is not in allocations.
    pub(super) fn spare(&self) -> Spare {
        Spare {
            idle: self.chunks.len() * CHUNK_BYTES - self.used_bytes,
            empty: self.free_count * SLAB_BYTES,
            absent: (self.free_count - self.dirty_count) * SLAB_BYTES,
        }
    }
}

impl Drop for Slabs {
    /// Gives all chunks back, whatever lies in them.
    fn drop(&mut self) {
        for chunk in &self.chunks {
            // SAFETY: whoever drops this uses nothing in it afterwards.
            unsafe { chunk.release() };
        }
    }
}
