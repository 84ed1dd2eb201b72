//! Provided receive buffers: memory that the kernel receives into, and the ring of those it may
//! take.
//!
//! The kernel takes buffers in the order in which they were given, so that all that it was given
//! are touched in turn, and displace one another in the caches. Therefore it gets about twice as
//! many as a turn needs: more as soon as a turn took half of them or there were none left, fewer
//! when a second went by with less. The others are held back.
//!
//! Invariant: a buffer is held back here, or in the ring, or lent (filled, and not given back by
//! its reader). With a deferred or cooperative ring the kernel fills buffers only while this thread
//! is in a system call; so what is neither lent nor announced by a completion holds nothing that
//! anyone needs.

#![allow(unsafe_code)] // Memory that is shared with the kernel.

use crate::limits::{
    RECEIVE_BUFFER_BYTES, RECEIVE_BUFFER_COUNT, RECEIVE_BUFFERS_IN_USE_MIN, RECEIVES_AT_REST_MAX,
};
use io_uring::IoUring;
use io_uring::types::BufRingEntry;
use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

/// The group that receives name.
pub(super) const BUFFER_GROUP: u16 = 1;

/// The buffers of one ring.
pub(super) struct Buffers {
    entries: *mut BufRingEntry,
    data: *mut u8,
    tail: u16,
    /// Those that the kernel does not get.
    held: Vec<u16>,
    /// How many may be outside of `held`.
    wanted: usize,
    /// How many were taken out of completions and not given back.
    lent: usize,
    /// Most that were lent at once, and how often one was, since the last rest.
    lent_max: usize,
    lent_count: usize,
    /// Has anything been received since the memory was given back?
    touched: bool,
}

impl Buffers {
    /// Registers them with a ring, the fewest at first.
    /// Errors: memory cannot be mapped, or the kernel refuses the ring of buffers.
    pub(super) fn register(ring: &IoUring) -> io::Result<Buffers> {
        let entries = map(RECEIVE_BUFFER_COUNT * size_of::<BufRingEntry>())?.cast::<BufRingEntry>();
        let data = map(RECEIVE_BUFFER_COUNT * RECEIVE_BUFFER_BYTES)?;
        // SAFETY: the mapping is page aligned, large enough for the entries, and never unmapped.
        unsafe {
            let submitter = ring.submitter();
            let count = RECEIVE_BUFFER_COUNT as u16;
            submitter.register_buf_ring_with_flags(entries as u64, count, BUFFER_GROUP, 0)?;
        }
        let mut buffers = Buffers {
            entries,
            data,
            tail: 0,
            held: (0..RECEIVE_BUFFER_COUNT as u16).rev().collect(),
            wanted: RECEIVE_BUFFERS_IN_USE_MIN,
            lent: 0,
            lent_max: 0,
            lent_count: 0,
            touched: false,
        };
        buffers.extend();
        Ok(buffers)
    }

    /// The bytes of a buffer that a receive of `length` bytes filled.
    #[inline(always)]
    pub(super) fn bytes(&self, buffer: u16, length: usize) -> &[u8] {
        assert!(usize::from(buffer) < RECEIVE_BUFFER_COUNT && length <= RECEIVE_BUFFER_BYTES);
        // SAFETY: the buffer lies within the mapping, and the kernel filled it and does not touch
        // it again before it is recycled, which needs `&mut self`.
        unsafe { std::slice::from_raw_parts(self.start_of(buffer), length) }
    }

    /// Notes that a completion came with a buffer.
    #[inline(always)]
    pub(super) fn lend(&mut self) {
        self.lent += 1;
    }

    /// Notes that the kernel had none left.
    #[cold]
    pub(super) fn run_out(&mut self) {
        self.wanted = (self.in_use() * 2).min(RECEIVE_BUFFER_COUNT);
        self.extend();
    }

    /// Gives lent buffers back to the kernel.
    pub(super) fn recycle(&mut self, buffers: impl Iterator<Item = u16>) {
        let lent = self.lent;
        self.touched = true;
        self.lent_max = self.lent_max.max(lent);
        for buffer in buffers {
            assert!(usize::from(buffer) < RECEIVE_BUFFER_COUNT && self.lent > 0);
            self.lent -= 1;
            if self.in_use() > self.wanted {
                self.hold(buffer);
            } else {
                self.provide(buffer);
            }
        }
        self.lent_count += lent - self.lent;
        if lent * 2 > self.wanted && self.wanted < RECEIVE_BUFFER_COUNT {
            self.run_out();
        } else {
            self.publish();
        }
    }

    /// Adapts their number to what was lent since the last call, and gives their memory back if
    /// that was next to nothing. Returns whether it was next to nothing. `all_taken`: no
    /// completion waits that has a buffer.
    pub(super) fn rest(&mut self, all_taken: bool) -> bool {
        let peak = std::mem::take(&mut self.lent_max);
        let count = std::mem::take(&mut self.lent_count);
        if peak * 8 < self.wanted {
            self.wanted = (self.wanted / 2).max(RECEIVE_BUFFERS_IN_USE_MIN);
        }
        let rests = count <= RECEIVES_AT_REST_MAX;
        if rests && all_taken && self.lent == 0 && self.touched {
            self.touched = false;
            // SAFETY: the mapping; no buffer in it holds anything that was received and not read.
            unsafe { discard(self.data, RECEIVE_BUFFER_COUNT * RECEIVE_BUFFER_BYTES) };
        }
        rests
    }

    fn in_use(&self) -> usize {
        RECEIVE_BUFFER_COUNT - self.held.len()
    }

    fn start_of(&self, buffer: u16) -> *mut u8 {
        // SAFETY: there are more buffers than any number in use.
        unsafe { self.data.add(usize::from(buffer) * RECEIVE_BUFFER_BYTES) }
    }

    /// Gives the kernel as many of those held back as are wanted.
    fn extend(&mut self) {
        while self.in_use() < self.wanted
            && let Some(buffer) = self.held.pop()
        {
            self.provide(buffer);
        }
        self.publish();
    }

    fn hold(&mut self, buffer: u16) {
        self.held.push(buffer);
        // SAFETY: the buffer lies within the mapping, and neither the kernel nor a reader has it.
        unsafe { discard(self.start_of(buffer), RECEIVE_BUFFER_BYTES) };
    }

    /// Puts a buffer into the ring; the kernel sees it once that is published.
    #[inline(always)]
    fn provide(&mut self, buffer: u16) {
        const MASK: u16 = RECEIVE_BUFFER_COUNT as u16 - 1;
        let start = self.start_of(buffer);
        // SAFETY: the masked tail is within the entries, the buffer within the data, and the kernel
        // reads an entry only after its tail is published.
        unsafe {
            let entry = &mut *self.entries.add(usize::from(self.tail & MASK));
            entry.set_addr(start as u64);
            entry.set_len(RECEIVE_BUFFER_BYTES as u32);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&mut self) {
        // SAFETY: the tail lies in the first entry's unused field; the kernel reads it with
        // acquire.
        unsafe {
            let tail = BufRingEntry::tail(self.entries).cast_mut().cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}

/// # Safety
/// The bytes belong to the mapping of the buffers, and nobody needs what is in them.
unsafe fn discard(start: *mut u8, length: usize) {
    // SAFETY: the caller's word. A refusal leaves the memory where it is, which is no error.
    unsafe { libc::madvise(start.cast(), length, libc::MADV_DONTNEED) };
}

fn map(length: usize) -> io::Result<*mut u8> {
    // SAFETY: an anonymous private mapping at an address of the kernel's choice.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(address.cast()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lends and recycles as a turn does.
    fn turn(buffers: &mut Buffers, count: usize) {
        let wanted: Vec<u16> = (0..count as u16).collect();
        (0..count).for_each(|_| buffers.lend());
        buffers.recycle(wanted.into_iter());
    }

    #[test]
    fn as_many_are_in_use_as_turns_need() {
        let ring = IoUring::new(8).expect("io_uring");
        let mut buffers = Buffers::register(&ring).expect("a ring of buffers");
        assert_eq!(buffers.in_use(), RECEIVE_BUFFERS_IN_USE_MIN);
        turn(&mut buffers, RECEIVE_BUFFERS_IN_USE_MIN / 2);
        assert_eq!(buffers.in_use(), RECEIVE_BUFFERS_IN_USE_MIN);
        turn(&mut buffers, RECEIVE_BUFFERS_IN_USE_MIN / 2 + 1);
        assert_eq!(buffers.in_use(), RECEIVE_BUFFERS_IN_USE_MIN * 2);
        for _ in 0..20 {
            buffers.run_out();
        }
        assert_eq!(buffers.in_use(), RECEIVE_BUFFER_COUNT);
        turn(&mut buffers, RECEIVE_BUFFER_COUNT);
        buffers.rest(true);
        assert_eq!(buffers.wanted, RECEIVE_BUFFER_COUNT, "they were needed");
        for _ in 0..20 {
            turn(&mut buffers, 1);
            buffers.rest(true);
        }
        assert_eq!(buffers.wanted, RECEIVE_BUFFERS_IN_USE_MIN);
        turn(&mut buffers, RECEIVE_BUFFERS_IN_USE_MIN / 2);
        turn(&mut buffers, RECEIVE_BUFFERS_IN_USE_MIN / 2);
        assert!(!buffers.held.is_empty() && buffers.lent == 0);
    }

    #[test]
    fn memory_goes_when_little_is_received_and_no_sooner() {
        let ring = IoUring::new(8).expect("io_uring");
        let mut buffers = Buffers::register(&ring).expect("a ring of buffers");
        let fill = |buffers: &Buffers| {
            // SAFETY: nobody else uses the memory of this test's buffers.
            unsafe { buffers.start_of(3).write_bytes(7, 100) };
        };
        fill(&buffers);
        buffers.lend();
        buffers.rest(true);
        assert_eq!(buffers.bytes(3, 100), [7; 100], "a lent buffer stays");
        buffers.recycle([3].into_iter());
        fill(&buffers);
        buffers.rest(false);
        assert_eq!(buffers.bytes(3, 100), [7; 100], "a completion waits");
        for _ in 0..=RECEIVES_AT_REST_MAX {
            turn(&mut buffers, 1);
        }
        buffers.rest(true);
        assert_eq!(buffers.bytes(3, 100), [7; 100], "much was received");
        buffers.rest(true);
        assert_eq!(buffers.bytes(3, 100), [0; 100]);
    }
}
