//! The size classes of the process' allocator, so that memory is accounted as it is really taken.
//!
//! jemalloc rounds a request up to 8, to multiples of 16 up to 128, and from there on to four sizes
//! per doubling. Large items are allocated with the rounded size, which makes the slack ours: an
//! item may change its length within its class without moving, and its capacity need not be stored.
//! Small items that grow have the same sizes for this reason alone.

/// The size that an allocation of `size` bytes really takes.
#[inline(always)]
pub(super) fn coarse_size(size: usize) -> usize {
    if size <= 8 {
        8
    } else if size <= 128 {
        (size + 15) & !15
    } else {
        let step = 1usize << ((size - 1).ilog2() - 2);
        (size + step - 1) & !(step - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_those_of_jemalloc() {
        let mut classes = vec![];
        for size in 1..=1024 {
            let class = coarse_size(size);
            assert!(class >= size);
            assert_eq!(coarse_size(class), class, "a class is its own class");
            if classes.last() != Some(&class) {
                classes.push(class);
            }
        }
        let expected = [
            8, 16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768,
            896, 1024,
        ];
        assert_eq!(classes, expected);
        assert_eq!(coarse_size(0), 8);
        assert_eq!(coarse_size(14 * 1024 + 1), 16 * 1024);
        assert_eq!(coarse_size((512 << 20) + 30), 640 << 20);
    }
}
