//! Bits of byte strings, counted from the most significant bit of the first byte.

/// Is the bit at `offset` set? Bits past the end are not.
pub fn get(bytes: &[u8], offset: u64) -> bool {
    let byte = usize::try_from(offset / 8).ok().and_then(|at| bytes.get(at));
    byte.is_some_and(|byte| byte >> (7 - offset % 8) & 1 == 1)
}

/// Sets or clears the bit at `offset`, which must exist. Returns what it was.
pub fn replace(bytes: &mut [u8], offset: u64, bit: bool) -> bool {
    let byte = &mut bytes[(offset / 8) as usize];
    let mask = 0x80 >> (offset % 8);
    let was = *byte & mask != 0;
    *byte = if bit { *byte | mask } else { *byte & !mask };
    was
}

/// Count of bits that are set. Cost: eight bytes per population count.
pub fn count(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let in_words: u64 =
        words.iter().map(|word| u64::from(u64::from_ne_bytes(*word).count_ones())).sum();
    in_words + rest.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>()
}

/// Count of bits that are set from bit `first` to bit `last`, both belonging to the range and
/// existing.
pub fn count_range(bytes: &[u8], first: u64, last: u64) -> u64 {
    let range = &bytes[(first / 8) as usize..=(last / 8) as usize];
    let before = u64::from((range[0] & !(0xff >> (first % 8))).count_ones());
    let after = u64::from((range[range.len() - 1] & tail_mask(last)).count_ones());
    count(range) - before - after
}

/// The bits of a byte that stand after bit `last`.
fn tail_mask(last: u64) -> u8 {
    (0x7fu8).checked_shr((last % 8) as u32).unwrap_or(0)
}

/// The first bit that equals `bit` from bit `first` to bit `last`, both belonging to the range and
/// existing. Cost: eight bytes per comparison.
pub fn find(bytes: &[u8], bit: bool, first: u64, last: u64) -> Option<u64> {
    let (from, to) = ((first / 8) as usize, (last / 8) as usize);
    // With the wanted bits as ones, the first is the count of zeros before it.
    let flip = if bit { 0x00 } else { 0xff };
    let head = (bytes[from] ^ flip) & (0xff >> (first % 8));
    let found = if head != 0 {
        8 * from as u64 + u64::from(head.leading_zeros())
    } else {
        let rest = &bytes[from + 1..=to.max(from)];
        8 * (from as u64 + 1) + first_one(rest, flip)?
    };
    (found <= last).then_some(found)
}

/// The first bit that is set when every byte is combined with `flip`.
fn first_one(bytes: &[u8], flip: u8) -> Option<u64> {
    let (words, rest) = bytes.as_chunks::<8>();
    let flip_word = u64::from_ne_bytes([flip; 8]);
    if let Some(at) = words.iter().position(|word| u64::from_ne_bytes(*word) != flip_word) {
        let word = u64::from_be_bytes(words[at]) ^ flip_word;
        return Some(64 * at as u64 + u64::from(word.leading_zeros()));
    }
    let at = rest.iter().position(|&byte| byte != flip)?;
    Some(64 * words.len() as u64 + 8 * at as u64 + u64::from((rest[at] ^ flip).leading_zeros()))
}

/// How BITOP joins strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// Bits set in all.
    And,
    /// Bits set in some.
    Or,
    /// Bits set in an odd count of them.
    Xor,
}

/// Joins `other` into `bytes`, which must not be shorter; past its end `other` counts as zeros.
/// Cost: as fast as memory; the loops are vectorized.
pub fn join(bytes: &mut [u8], other: &[u8], join: Join) {
    let (shared, rest) = bytes.split_at_mut(other.len());
    let pairs = shared.iter_mut().zip(other);
    match join {
        Join::And => {
            pairs.for_each(|(byte, other)| *byte &= other);
            rest.fill(0);
        }
        Join::Or => pairs.for_each(|(byte, other)| *byte |= other),
        Join::Xor => pairs.for_each(|(byte, other)| *byte ^= other),
    }
}

/// An integer of 1 to 64 bits within a string of bits, the most significant first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Position of the first bit.
    pub offset: u64,
    /// Count of bits.
    pub size: u32,
}

impl Field {
    /// Bytes that a string must have to hold the field.
    pub fn end_byte(self) -> usize {
        ((self.offset + u64::from(self.size) - 1) / 8 + 1) as usize
    }

    /// Reads the field. Bits past the end are zeros.
    pub fn read(self, bytes: &[u8]) -> u64 {
        (self.window(bytes) << (self.offset % 8) >> (128 - self.size)) as u64
    }

    /// Writes the low bits of `value`. The bytes must reach [`Field::end_byte`].
    pub fn write(self, bytes: &mut [u8], value: u64) {
        let shift = 128 - self.size - (self.offset % 8) as u32;
        let mask = (u128::MAX >> (128 - self.size)) << shift;
        let window = self.window(bytes) & !mask | (u128::from(value) << shift) & mask;
        let place = &mut bytes[(self.offset / 8) as usize..self.end_byte()];
        place.copy_from_slice(&window.to_be_bytes()[..place.len()]);
    }

    /// The sixteen bytes from the field's first byte on; at most nine of them are the field's.
    fn window(self, bytes: &[u8]) -> u128 {
        let start = usize::try_from(self.offset / 8).unwrap_or(usize::MAX).min(bytes.len());
        let rest = &bytes[start..];
        let mut window = [0; 16];
        let size = rest.len().min(window.len());
        window[..size].copy_from_slice(&rest[..size]);
        u128::from_be_bytes(window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive_find(bytes: &[u8], bit: bool, first: u64, last: u64) -> Option<u64> {
        (first..=last).find(|&at| get(bytes, at) == bit)
    }

    proptest! {
        #[test]
        fn ranges_agree_with_single_bits(
            runs in prop::collection::vec((prop::sample::select(&[0u8, 0xff, 0x10, 0x7f][..]), 1..20usize), 1..6),
            ends in (any::<u64>(), any::<u64>()),
            bit in any::<bool>(),
        ) {
            let bytes: Vec<u8> = runs.iter().flat_map(|&(byte, size)| vec![byte; size]).collect();
            let size = 8 * bytes.len() as u64;
            let (first, last) = ((ends.0 % size).min(ends.1 % size), (ends.0 % size).max(ends.1 % size));
            prop_assert_eq!(find(&bytes, bit, first, last), naive_find(&bytes, bit, first, last));
            let ones = (first..=last).filter(|&at| get(&bytes, at)).count() as u64;
            prop_assert_eq!(count_range(&bytes, first, last), ones);
        }

        #[test]
        fn fields_agree_with_single_bits(
            mut bytes in prop::collection::vec(any::<u8>(), 0..24),
            offset in 0..200u64,
            size in 1..=64u32,
            value in any::<u64>(),
        ) {
            let field = Field { offset, size };
            let bits = |bytes: &[u8]| (0..u64::from(size)).fold(0u64, |n, i| n << 1 | u64::from(get(bytes, offset + i)));
            prop_assert_eq!(field.read(&bytes), bits(&bytes));
            bytes.resize(bytes.len().max(field.end_byte()), 0);
            let before = bytes.clone();
            field.write(&mut bytes, value);
            prop_assert_eq!(field.read(&bytes), value & (u64::MAX >> (64 - size)));
            prop_assert_eq!(field.read(&bytes), bits(&bytes));
            for at in (0..8 * bytes.len() as u64).filter(|at| !(offset..offset + u64::from(size)).contains(at)) {
                prop_assert_eq!(get(&bytes, at), get(&before, at));
            }
        }
    }
}
