//! The sizes that allocations come in.
//!
//! | what | bytes | where |
//! |---|---|---|
//! | items up to 2 KiB | multiples of 8 | slabs |
//! | items up to 8 KiB | multiples of 64: at most 3 % more than asked for | slabs |
//! | items beyond | four sizes per doubling ([`coarse`](super::coarse)) | the process' allocator |
//! | arrays of buckets up to 32 KiB | each about 9/7 of the one before | slabs |
//! | arrays beyond | four sizes per doubling | the process' allocator |
//!
//! An item that grows in place (APPEND, SETRANGE, SETBIT) has the four sizes per doubling at any
//! length: its slack is what makes growing byte by byte cheap. What an item takes is a function of
//! its frame alone, so that replicas account alike.

use super::super::bucket::BUCKET_SIZE;
use super::coarse::coarse_size;

/// Largest item that lies in a slab.
pub(super) const SLAB_ITEM_BYTES_MAX: usize = 8 << 10;
/// Largest item whose size is rounded to 8.
const FINE_BYTES_MAX: usize = 2 << 10;
const FINE_STEP: usize = 8;
const STEP: usize = 64;

const FIRST_STEP_CLASS: usize = FINE_BYTES_MAX / FINE_STEP;
const FIRST_ARRAY_CLASS: usize =
    FIRST_STEP_CLASS + (SLAB_ITEM_BYTES_MAX - FINE_BYTES_MAX) / STEP + 1;
/// Count of classes that lie in slabs.
pub(super) const CLASS_COUNT: usize = FIRST_ARRAY_CLASS + ARRAY_COUNTS.len();

/// Bucket counts of the arrays in slabs: each divides a slab of 1024 buckets with little left over,
/// and exceeds the one before by about two sevenths, which is how far the load limits of slots are
/// apart. So some of a shard's tables have always just grown and others are about to, whatever the
/// number of keys.
const ARRAY_COUNTS: [usize; 21] =
    [1, 2, 3, 4, 6, 8, 11, 15, 20, 26, 34, 44, 56, 73, 93, 128, 170, 204, 256, 341, 512];
/// Largest array of buckets that lies in a slab.
pub(super) const SLAB_BUCKETS_MAX: usize = ARRAY_COUNTS[ARRAY_COUNTS.len() - 1];

/// Bytes that an item of `size` bytes takes.
#[inline(always)]
pub(in super::super) fn item_size(size: usize, grows: bool) -> usize {
    if grows || size > SLAB_ITEM_BYTES_MAX {
        coarse_size(size)
    } else if size <= FINE_BYTES_MAX {
        size.next_multiple_of(FINE_STEP)
    } else {
        size.next_multiple_of(STEP)
    }
}

/// The class of an item that takes so many bytes; at most [`SLAB_ITEM_BYTES_MAX`].
#[inline(always)]
pub(super) fn item_class(size: usize) -> usize {
    if size <= FINE_BYTES_MAX {
        size / FINE_STEP
    } else {
        FIRST_STEP_CLASS + (size - FINE_BYTES_MAX) / STEP
    }
}

/// The class of an array of so many buckets; at most [`SLAB_BUCKETS_MAX`].
#[inline(always)]
pub(super) fn array_class(count: usize) -> usize {
    FIRST_ARRAY_CLASS + ARRAY_COUNTS.partition_point(|&known| known < count)
}

/// Bytes of each allocation of a class.
pub(super) fn class_size(class: usize) -> usize {
    if class >= FIRST_ARRAY_CLASS {
        array_size(ARRAY_COUNTS[class - FIRST_ARRAY_CLASS])
    } else if class > FIRST_STEP_CLASS {
        FINE_BYTES_MAX + (class - FIRST_STEP_CLASS) * STEP
    } else {
        class * FINE_STEP
    }
}

/// Bytes of an array of buckets.
pub(super) fn array_size(count: usize) -> usize {
    count * BUCKET_SIZE
}

/// The smallest count of buckets that arrays have and that is not below this one.
pub(in super::super) fn array_count(count: usize) -> usize {
    let known = ARRAY_COUNTS.partition_point(|&known| known < count);
    let coarse = || coarse_size(array_size(count)) / BUCKET_SIZE;
    ARRAY_COUNTS.get(known).copied().unwrap_or_else(coarse)
}

/// The count of buckets of the array that follows one of this count.
pub(in super::super) fn grown_count(count: usize) -> usize {
    array_count(if count < SLAB_BUCKETS_MAX { count + 1 } else { (count * 9).div_ceil(7) })
}

#[cfg(test)]
mod tests {
    use super::super::chunk::SLAB_BYTES;
    use super::*;

    #[test]
    fn items_are_rounded_by_a_thirtieth_at_most() {
        for size in 1..=SLAB_ITEM_BYTES_MAX {
            for grows in [false, true] {
                let taken = item_size(size, grows);
                assert!(taken >= size && taken.is_multiple_of(8));
                assert!(grows || taken - size < 8.max(size / 30 + 1));
                assert_eq!(item_size(taken, grows), taken, "a class is its own class");
                assert_eq!(class_size(item_class(taken)), taken);
                assert!(item_class(taken) < FIRST_ARRAY_CLASS);
            }
        }
        assert_eq!(item_size(SLAB_ITEM_BYTES_MAX + 1, false), 10 << 10);
    }

    #[test]
    fn arrays_grow_by_a_sixth_to_a_half() {
        let mut count = 1;
        for class in FIRST_ARRAY_CLASS..CLASS_COUNT {
            assert_eq!((array_class(count), class_size(class)), (class, array_size(count)));
            assert_eq!(array_count(count), count);
            assert!(SLAB_BYTES % array_size(count) <= SLAB_BYTES / 60, "{count} waste a slab");
            let next = grown_count(count);
            assert!(next > count && array_count(count + 1) <= next);
            assert!(count < 15 || next * 6 >= count * 7 && next * 2 <= count * 3 + 1);
            count = next;
        }
        assert!(count > SLAB_BUCKETS_MAX);
        while count < 1 << 20 {
            let next = grown_count(count);
            assert!(next * 7 >= count * 9 && next * 2 <= count * 3, "{count} to {next}");
            count = next;
        }
    }
}
