//! What all keyspaces of the process hold in chunks without using it.
//!
//! Chunks come from the process' allocator, whose statistics take them for used and present as a
//! whole. These totals are what has to be taken off. Each keyspace adds its part now and then, so
//! that nothing is counted on the way of an allocation.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of chunks that are in no allocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spare {
    /// All of them.
    pub idle: usize,
    /// Those in slabs that hold no allocation at all.
    pub empty: usize,
    /// Of the empty ones, those that have no physical memory: never used, or given back.
    pub absent: usize,
}

static IDLE: AtomicUsize = AtomicUsize::new(0);
static EMPTY: AtomicUsize = AtomicUsize::new(0);
static ABSENT: AtomicUsize = AtomicUsize::new(0);

impl Spare {
    /// The sum over all keyspaces, each as it was when it was last tended.
    pub fn of_process() -> Spare {
        Spare {
            idle: IDLE.load(Ordering::Relaxed),
            empty: EMPTY.load(Ordering::Relaxed),
            absent: ABSENT.load(Ordering::Relaxed),
        }
    }

    /// Puts this in the place of what a keyspace had added before.
    pub(super) fn replace(self, before: &mut Spare) {
        for (total, new, old) in [
            (&IDLE, self.idle, before.idle),
            (&EMPTY, self.empty, before.empty),
            (&ABSENT, self.absent, before.absent),
        ] {
            // Wraps around as the sum of all differences does not.
            total.fetch_add(new.wrapping_sub(old), Ordering::Relaxed);
        }
        *before = self;
    }
}
