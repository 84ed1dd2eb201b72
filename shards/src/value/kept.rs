//! Members of a large set as its tree keeps them: integers are short.
//!
//! ```text
//! an integer as it is printed: twice it, or for a negative one twice its absolute less 1, in as few bytes as it needs, most
//!                              significant first; the first of them has five bits of it, and 0x80
//! other text from 0x80 to 0xa0: a byte of 0xa0, and itself
//! any other text: itself
//! ```
//!
//! Each text has one such form, and no form is longer than an integer's text, so members are
//! compared, hashed and ordered as they are kept.

use super::set::integer;
use std::borrow::Cow;
use std::ops::Deref;

/// What the first byte of an integer is, beside five bits of it.
const INTEGER: u8 = 0x80;
const INTEGER_BITS: u8 = 0x1f;
/// The byte before other text that begins as an integer does, or with this byte.
const ESCAPE: u8 = 0xa0;
/// Bytes of the longest integer.
const INTEGER_BYTES_MAX: usize = 9;

/// A member's bytes in a tree.
pub(super) enum Kept<'m> {
    Text(&'m [u8]),
    /// The last bytes of these, so many.
    Integer([u8; INTEGER_BYTES_MAX], usize),
    Escaped(Vec<u8>),
}

impl Deref for Kept<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Kept::Text(text) => text,
            Kept::Integer(bytes, count) => &bytes[INTEGER_BYTES_MAX - count..],
            Kept::Escaped(bytes) => bytes,
        }
    }
}

/// A member as it is kept.
#[inline]
pub(super) fn keep(member: &[u8]) -> Kept<'_> {
    match member.first() {
        Some(b'-' | b'0'..=b'9') => integer(member).map_or(Kept::Text(member), keep_integer),
        Some(INTEGER..=ESCAPE) => Kept::Escaped([&[ESCAPE], member].concat()),
        _ => Kept::Text(member),
    }
}

fn keep_integer<'m>(n: i64) -> Kept<'m> {
    let folded = ((n << 1) ^ (n >> 63)).cast_unsigned();
    // Three bits of the first byte are taken.
    let count = (u64::BITS - folded.leading_zeros() + 2) as usize / 8 + 1;
    let mut bytes = [0; INTEGER_BYTES_MAX];
    bytes[1..].copy_from_slice(&folded.to_be_bytes());
    bytes[INTEGER_BYTES_MAX - count] |= INTEGER;
    Kept::Integer(bytes, count)
}

/// The member that is kept so.
#[inline]
pub(super) fn read(kept: &[u8]) -> Cow<'_, [u8]> {
    match kept.first() {
        Some(INTEGER..ESCAPE) => {
            Cow::Owned(itoa::Buffer::new().format(read_integer(kept)).as_bytes().to_vec())
        }
        Some(&ESCAPE) => Cow::Borrowed(&kept[1..]),
        _ => Cow::Borrowed(kept),
    }
}

fn read_integer(kept: &[u8]) -> i64 {
    let mut bytes = [0; INTEGER_BYTES_MAX];
    let start = INTEGER_BYTES_MAX - kept.len();
    bytes[start..].copy_from_slice(kept);
    bytes[start] &= INTEGER_BITS;
    let folded = bytes[1..].iter().fold(0_u64, |all, &byte| all << 8 | u64::from(byte));
    (folded >> 1).cast_signed() ^ -(folded & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(member: &[u8]) -> usize {
        let kept = keep(member);
        assert_eq!(&*read(&kept), member);
        kept.len()
    }

    #[test]
    fn integers_are_short_and_every_text_has_its_own_form() {
        for (text, length) in [
            ("", 0),
            ("0", 1),
            ("-1", 1),
            ("15", 1),
            ("-16", 1),
            ("16", 2),
            ("4095", 2),
            ("-4096", 2),
            ("4096", 3),
            ("99999999", 4),
            ("268435455", 4),
            ("268435456", 5),
            ("9223372036854775807", 9),
            ("-9223372036854775808", 9),
            // These are no integers as they are printed.
            ("-0", 2),
            ("00", 2),
            ("-", 1),
            ("+1", 2),
            ("01", 2),
            ("1 ", 2),
            ("9223372036854775808", 19),
            ("-9223372036854775809", 20),
            ("18446744073709551617", 20),
        ] {
            assert_eq!(check(text.as_bytes()), length, "{text}");
        }
        for first in 0..=u8::MAX {
            let escaped = usize::from((INTEGER..=ESCAPE).contains(&first));
            for rest in [&b""[..], b"\x00", b"abcdefgh", &[first; 9]] {
                let text = [&[first], rest].concat();
                let integer = integer(&text).is_some();
                assert!(integer || check(&text) == text.len() + escaped, "{first}");
            }
        }
        let mut random = crate::random::Random::new(1);
        for _ in 0..20_000 {
            let n = (random.bits() as i64) >> random.below(64);
            let text = n.to_string();
            assert!(check(text.as_bytes()) <= text.len());
        }
    }
}
