//! Values that follow from their keys, so that any reply can be checked without a table of what was
//! written.

use super::random::mix;

/// How long values are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sizes {
    /// Bytes of the shortest.
    pub smallest: usize,
    /// Bytes of the longest.
    pub largest: usize,
}

impl Sizes {
    /// The size of the value of key `index`: anything between the bounds, always the same for a
    /// key.
    pub fn of(&self, index: u64) -> usize {
        let range = (self.largest - self.smallest + 1) as u64;
        self.smallest + (mix(index ^ SIZE_SALT) % range) as usize
    }
}

/// Keeps the size of a value independent of its content.
const SIZE_SALT: u64 = 0x5157_a1ee;

/// Appends the value of key `index`: printable text that does not compress to nothing.
pub fn write_value(bytes: &mut Vec<u8>, index: u64, size: usize) {
    let end = bytes.len() + size;
    let mut word = 0;
    while bytes.len() < end {
        let text = word_text(index, word);
        let length = text.len().min(end - bytes.len());
        bytes.extend_from_slice(&text[..length]);
        word += 1;
    }
}

/// Whether `value` is what [`write_value`] makes for key `index`.
pub fn is_value_of(value: &[u8], index: u64, sizes: Sizes) -> bool {
    value.len() == sizes.of(index)
        && value
            .chunks(8)
            .zip(0..)
            .all(|(chunk, word)| *chunk == word_text(index, word)[..chunk.len()])
}

/// Eight letters out of 64.
fn word_text(index: u64, word: u64) -> [u8; 8] {
    let bits = mix(index.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(word));
    bits.to_le_bytes().map(|byte| b'0' + (byte & 63))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_belongs_to_its_key_alone() {
        let sizes = Sizes { smallest: 1, largest: 100 };
        for index in 0..1000 {
            let mut value = Vec::new();
            write_value(&mut value, index, sizes.of(index));
            assert!(is_value_of(&value, index, sizes), "key {index}");
            let last = value.len() - 1;
            value[last] ^= 1;
            assert!(!is_value_of(&value, index, sizes), "key {index} with another last byte");
            value[last] ^= 1;
            value.push(b'0');
            assert!(!is_value_of(&value, index, sizes), "key {index} and a byte more");
        }
        let mut other = Vec::new();
        write_value(&mut other, 1, 64);
        assert!(!is_value_of(&other, 2, Sizes { smallest: 64, largest: 64 }));
    }

    #[test]
    fn sizes_reach_both_bounds() {
        let sizes = Sizes { smallest: 3, largest: 5 };
        let seen: std::collections::BTreeSet<usize> =
            (0..100).map(|index| sizes.of(index)).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [3, 4, 5]);
        assert_eq!(Sizes { smallest: 64, largest: 64 }.of(9), 64);
    }
}
