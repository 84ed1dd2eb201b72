//! The memory of a keyspace: where items and tables lie, and the account of it.
//!
//! Small items and arrays lie in slabs of their exact size, which belong to this keyspace alone
//! ([`slabs`], [`chunk`]); larger ones come from the process' allocator. The account is of sizes
//! that follow from frames and counts, so it is the same on every replica, whatever the slabs look
//! like.
//!
//! Invariant: who frees gives the size that was allocated. Dropping the memory frees what is in
//! slabs; what is not must have been freed before ([`Memory::has_large`]).
#![allow(unsafe_code)] // An allocator: raw memory in, raw memory out.

mod chunk;
mod class;
mod coarse;
mod leave;
mod slabs;
#[cfg(test)]
mod tests;
mod totals;

pub(super) use class::{array_count, grown_count, item_size};
pub use totals::Spare;

use super::bucket::Bucket;
use class::{SLAB_BUCKETS_MAX, SLAB_ITEM_BYTES_MAX, array_class, array_size, item_class};
use slabs::Slabs;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::ptr::NonNull;

/// Items, arrays, and what else is accounted.
#[derive(Default)]
pub(super) struct Memory {
    slabs: Slabs,
    /// Bytes of all that is accounted. Views build indexes, hence the cell.
    used: Cell<usize>,
    /// Allocations outside of slabs.
    large_count: usize,
    /// What was last added to the totals of the process.
    published: Spare,
}

impl Memory {
    /// Bytes that items, tables and whatever was put on the account take.
    #[inline(always)]
    pub(super) fn used(&self) -> usize {
        self.used.get()
    }

    /// Puts memory on the account that did not come from here.
    #[inline(always)]
    pub(super) fn add(&self, bytes: usize) {
        self.used.set(self.used.get() + bytes);
    }

    /// Takes it off again.
    #[inline(always)]
    pub(super) fn subtract(&self, bytes: usize) {
        self.used.set(self.used.get() - bytes);
    }

    /// Puts an allocation of this size on the account that comes from elsewhere and is freed by
    /// those who hold it.
    pub(super) fn add_large(&mut self, bytes: usize) {
        self.add(bytes);
        self.large_count += 1;
    }

    /// Takes such an allocation off again.
    pub(super) fn subtract_large(&mut self, bytes: usize) {
        self.subtract(bytes);
        self.large_count -= 1;
    }

    /// Is there anything that dropping this would not free?
    pub(super) fn has_large(&self) -> bool {
        self.large_count > 0
    }

    /// Memory for an item, aligned to 8. `size` is one that [`item_size`] gives.
    #[inline(always)]
    pub(super) fn allocate_item(&mut self, size: usize) -> NonNull<u8> {
        self.add(size);
        if size <= SLAB_ITEM_BYTES_MAX {
            self.slabs.allocate(item_class(size), size)
        } else {
            self.allocate_large(item_layout(size))
        }
    }

    /// # Safety
    /// [`Memory::allocate_item`] of this gave it for this size, and nobody uses it afterwards.
    #[inline(always)]
    pub(super) unsafe fn free_item(&mut self, item: NonNull<u8>, size: usize) {
        self.subtract(size);
        // SAFETY: the caller's word.
        unsafe {
            if size <= SLAB_ITEM_BYTES_MAX {
                self.slabs.free(item, item_class(size), size);
            } else {
                self.free_large(item, item_layout(size));
            }
        }
    }

    /// Memory for an array of buckets, not initialized. `count` is one that [`array_count`] gives.
    pub(super) fn allocate_buckets(&mut self, count: usize) -> NonNull<Bucket> {
        let size = array_size(count);
        self.add(size);
        debug_assert_eq!(array_count(count), count);
        let array = if count <= SLAB_BUCKETS_MAX {
            self.slabs.allocate(array_class(count), size)
        } else {
            self.allocate_large(array_layout(count))
        };
        array.cast()
    }

    /// # Safety
    /// [`Memory::allocate_buckets`] of this gave it for this count, and nobody uses it afterwards.
    pub(super) unsafe fn free_buckets(&mut self, array: NonNull<Bucket>, count: usize) {
        let size = array_size(count);
        self.subtract(size);
        // SAFETY: the caller's word.
        unsafe {
            if count <= SLAB_BUCKETS_MAX {
                self.slabs.free(array.cast(), array_class(count), size);
            } else {
                self.free_large(array.cast(), array_layout(count));
            }
        }
    }

    #[cold]
    fn allocate_large(&mut self, layout: Layout) -> NonNull<u8> {
        self.large_count += 1;
        // SAFETY: what is large has a size.
        NonNull::new(unsafe { alloc(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
    }

    #[cold]
    unsafe fn free_large(&mut self, allocation: NonNull<u8>, layout: Layout) {
        self.large_count -= 1;
        // SAFETY: allocated with this layout, by the caller's word.
        unsafe { dealloc(allocation.as_ptr(), layout) }
    }

    /// What of the slabs' chunks is not in use.
    #[cfg(test)]
    pub(super) fn spare(&self) -> Spare {
        self.slabs.spare()
    }

    /// Gives the physical memory of up to so many empty slabs back, and brings the totals of the
    /// process up to date. Is there more to give back?
    pub(super) fn tend(&mut self, slab_budget: usize) -> bool {
        let more = self.slabs.clean(slab_budget);
        self.slabs.spare().replace(&mut self.published);
        more
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        Spare::default().replace(&mut self.published);
    }
}

fn item_layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("sizes of items are far below the address space")
}

fn array_layout(count: usize) -> Layout {
    Layout::array::<Bucket>(count).expect("tables are far smaller than the address space")
}
