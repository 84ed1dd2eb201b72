//! Reads LZF, the compression of long strings in RDB data. Nothing is ever written compressed.
//!
//! The stream is a row of instructions. A first byte below 32 is followed by that many bytes and
//! one more, to be copied as they are. Any other first byte repeats earlier output: its top three
//! bits are the count less two (7: the next byte is added), its low five bits and one more byte the
//! distance back less one.

/// Most output bytes per input byte: a three-byte instruction repeats 264 bytes at most.
const EXPANSION_MAX: usize = 88;

/// Decompresses to exactly `plain_size` bytes; `None` when the data does not give just that.
/// Cost: one allocation, which the size of `data` bounds.
pub fn decompress(data: &[u8], plain_size: usize) -> Option<Vec<u8>> {
    if plain_size > data.len().saturating_mul(EXPANSION_MAX) {
        return None;
    }
    let mut plain = Vec::with_capacity(plain_size);
    let mut input = data;
    while let Some(first) = take_byte(&mut input) {
        if first < 32 {
            let (literal, rest) = input.split_at_checked(first as usize + 1)?;
            plain.extend_from_slice(literal);
            input = rest;
        } else {
            let mut count = (first >> 5) as usize + 2;
            if count == 9 {
                count += take_byte(&mut input)? as usize;
            }
            let distance = ((first & 31) as usize) << 8 | take_byte(&mut input)? as usize;
            repeat(&mut plain, distance + 1, count)?;
        }
        if plain.len() > plain_size {
            return None;
        }
    }
    (plain.len() == plain_size).then_some(plain)
}

fn take_byte(input: &mut &[u8]) -> Option<u8> {
    let (&first, rest) = input.split_first()?;
    *input = rest;
    Some(first)
}

/// Appends `count` bytes found `distance` bytes before the end; they may overlap what is being
/// written.
fn repeat(plain: &mut Vec<u8>, distance: usize, count: usize) -> Option<()> {
    let start = plain.len().checked_sub(distance)?;
    if distance >= count {
        plain.extend_from_within(start..start + count);
    } else {
        for i in start..start + count {
            plain.push(plain[i]);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(data: &[u8], plain_size: usize, expected: Option<&[u8]>) {
        assert_eq!(decompress(data, plain_size).as_deref(), expected, "{data:?}");
    }

    #[test]
    fn instructions_are_followed() {
        check(b"", 0, Some(b""));
        check(b"\x02abc", 3, Some(b"abc"));
        // Four bytes from three back, overlapping themselves.
        check(b"\x02abc\x40\x02", 7, Some(b"abcabca"));
        // A run: nine bytes and 2 more, from one back.
        check(b"\x00a\xe0\x02\x00", 12, Some(b"aaaaaaaaaaaa"));
        // Not overlapping.
        check(b"\x03abcd\x20\x03", 7, Some(b"abcdabc"));
    }

    #[test]
    fn contradictions_are_refused() {
        check(b"\x02abc", 2, None);
        check(b"\x02abc", 4, None);
        check(b"\x02ab", 3, None);
        check(b"\x00a\x20\x01", 4, None);
        check(b"\x00a\x20", 4, None);
        check(b"\x00a\xe0", 12, None);
        check(b"\x00a", usize::MAX, None);
    }
}
