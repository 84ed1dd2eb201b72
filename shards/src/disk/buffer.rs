//! Memory that may be written with O_DIRECT: aligned to a page, all of it initialised.
#![allow(unsafe_code)] // std has no aligned byte vector; O_DIRECT refuses any other memory.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Alignment of the memory; every block size that a disk asks for divides it.
pub const BUFFER_ALIGNMENT: usize = 4096;

/// A growing run of bytes at an aligned address. Emptying it keeps the memory.
pub struct AlignedBuffer {
    memory: NonNull<u8>,
    /// A multiple of the alignment; 0 when nothing is allocated.
    capacity: usize,
    length: usize,
}

// SAFETY: the buffer owns its memory alone, as a Vec<u8> does.
unsafe impl Send for AlignedBuffer {}

impl AlignedBuffer {
    /// An empty buffer with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> AlignedBuffer {
        let mut buffer = AlignedBuffer { memory: NonNull::dangling(), capacity: 0, length: 0 };
        buffer.reserve(capacity);
        buffer
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `length` <= `capacity` bytes are allocated and were initialised by alloc_zeroed
        // or by writes; with capacity 0 the length is 0, for which a dangling pointer is
        // allowed.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.length) }
    }

    /// The bytes, to change them.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.length) }
    }

    /// Bytes that it can hold without growing.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets the bytes and keeps the memory.
    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// Appends. Cost: one copy; an allocation when the room is not enough.
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        let start = self.length;
        self.reserve(bytes.len());
        self.length += bytes.len();
        self.as_mut_slice()[start..].copy_from_slice(bytes);
    }

    /// Appends zeros until the length is a multiple of `block_bytes`.
    pub fn pad_to(&mut self, block_bytes: usize) {
        self.pad_with(self.length.next_multiple_of(block_bytes) - self.length);
    }

    /// Appends so many zeros.
    pub fn pad_with(&mut self, zeros: usize) {
        let start = self.length;
        self.reserve(zeros);
        self.length += zeros;
        self.as_mut_slice()[start..].fill(0);
    }

    /// Makes room for `more` bytes behind the ones that are there.
    pub fn reserve(&mut self, more: usize) {
        let needed = self.length.checked_add(more).expect("a buffer is far smaller than memory");
        if needed <= self.capacity {
            return;
        }
        let capacity = needed.max(self.capacity * 2).next_multiple_of(BUFFER_ALIGNMENT);
        let layout = Self::layout(capacity);
        // SAFETY: the layout's size is not 0, because `needed` is greater than the capacity.
        let memory = NonNull::new(unsafe { alloc_zeroed(layout) })
            .unwrap_or_else(|| handle_alloc_error(layout));
        let mut grown = AlignedBuffer { memory, capacity, length: self.length };
        grown.as_mut_slice().copy_from_slice(self.as_slice());
        *self = grown;
    }

    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, BUFFER_ALIGNMENT)
            .expect("capacity is far below isize::MAX")
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        if self.capacity != 0 {
            // SAFETY: `memory` came from alloc_zeroed with this very layout and is freed once.
            unsafe { dealloc(self.memory.as_ptr(), Self::layout(self.capacity)) }
        }
    }
}

impl std::fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AlignedBuffer({} of {} bytes)", self.length, self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_behaves_like_a_vector_and_stays_aligned() {
        let mut buffer = AlignedBuffer::with_capacity(0);
        assert_eq!(buffer.as_slice(), b"");
        let mut vector = Vec::new();
        for n in 0..300u32 {
            let bytes = vec![n as u8; (n * 7 % 61) as usize];
            buffer.extend_from_slice(&bytes);
            vector.extend_from_slice(&bytes);
        }
        assert_eq!(buffer.as_slice(), vector);
        buffer.pad_to(512);
        vector.resize(vector.len().next_multiple_of(512), 0);
        assert_eq!(buffer.as_slice(), vector);
        assert_eq!(buffer.as_slice().as_ptr() as usize % BUFFER_ALIGNMENT, 0);
        let capacity = buffer.capacity();
        buffer.clear();
        assert_eq!(buffer.as_slice(), b"");
        buffer.extend_from_slice(b"x");
        buffer.pad_to(512);
        assert_eq!((buffer.as_slice()[0], buffer.as_slice()[511]), (b'x', 0), "no old bytes");
        assert_eq!(buffer.capacity(), capacity);
    }
}
