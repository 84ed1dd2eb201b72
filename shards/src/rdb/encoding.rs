//! Lengths and strings, the two things that all RDB data is made of.
//!
//! The first byte of a length says how it is stored: `00` in the top bits, six bits here; `01`,
//! fourteen bits; 0x80, four bytes follow; 0x81, eight bytes follow (all big endian); `11`, not a
//! length but a string in a special form: an integer of 1, 2 or 4 bytes (little endian), or LZF
//! data.

use std::borrow::Cow;

use super::{DecodeError, Fault, lzf};
use crate::limits::DECODED_STRING_BYTES_MAX;

const LENGTH_32: u8 = 0x80;
const LENGTH_64: u8 = 0x81;
const INTEGER_8: u8 = 0xc0;
const INTEGER_16: u8 = 0xc1;
const INTEGER_32: u8 = 0xc2;
const COMPRESSED: u8 = 0xc3;

const DOUBLE_NAN: u8 = 253;
const DOUBLE_INFINITY: u8 = 254;
const DOUBLE_MINUS_INFINITY: u8 = 255;

/// Below this, in either direction, scores without a fraction are printed as integers.
const DOUBLE_INTEGER_END: f64 = 4_503_599_627_370_495.0;

/// The longest text of an integer that is stored as one: `-2147483648`.
const INTEGER_TEXT_BYTES_MAX: usize = 11;

/// Appends a length.
pub fn write_length(out: &mut Vec<u8>, length: usize) {
    match length {
        0..0x40 => out.push(length as u8),
        0x40..0x4000 => out.extend_from_slice(&(0x4000 | length as u16).to_be_bytes()),
        0x4000..=0xffff_ffff => {
            out.push(LENGTH_32);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
        _ => {
            out.push(LENGTH_64);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// Appends a string; the canonical text of a 32-bit integer as that integer.
/// Cost: one copy of the string.
pub fn write_string(out: &mut Vec<u8>, string: &[u8]) {
    match canonical_integer(string) {
        Some(n) => write_integer(out, n),
        None => {
            write_length(out, string.len());
            out.extend_from_slice(string);
        }
    }
}

fn write_integer(out: &mut Vec<u8>, n: i32) {
    if let Ok(n) = i8::try_from(n) {
        out.extend_from_slice(&[INTEGER_8, n as u8]);
    } else if let Ok(n) = i16::try_from(n) {
        out.push(INTEGER_16);
        out.extend_from_slice(&n.to_le_bytes());
    } else {
        out.push(INTEGER_32);
        out.extend_from_slice(&n.to_le_bytes());
    }
}

/// The integer whose text this is, when printing the integer gives the text again.
fn canonical_integer(text: &[u8]) -> Option<i32> {
    if text.is_empty() || text.len() > INTEGER_TEXT_BYTES_MAX {
        return None;
    }
    let n: i32 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (itoa::Buffer::new().format(n).as_bytes() == text).then_some(n)
}

/// Appends a score as text: integers with all their digits, others with as many as tell them from
/// their neighbours.
pub fn write_double_text(out: &mut Vec<u8>, score: f64) {
    if score.is_infinite() {
        out.push(if score > 0.0 { DOUBLE_INFINITY } else { DOUBLE_MINUS_INFINITY });
        return;
    }
    let start = out.len();
    out.push(0);
    if score.fract() == 0.0 && score.abs() < DOUBLE_INTEGER_END {
        // Zero below zero is told by its sign alone.
        if score == 0.0 && score.is_sign_negative() {
            out.push(b'-');
        }
        out.extend_from_slice(itoa::Buffer::new().format(score as i64).as_bytes());
    } else {
        write_17_digits(out, score);
    }
    out[start] = (out.len() - start - 1) as u8;
}

/// As C prints `%.17g`.
fn write_17_digits(out: &mut Vec<u8>, number: f64) {
    const DIGITS: i32 = 17;
    let text = format!("{number:.16e}");
    let (mantissa, exponent) = text.split_once('e').expect("it was printed with an exponent");
    let exponent: i32 = exponent.parse().expect("an exponent is an integer");
    let (sign, digits) = match mantissa.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", mantissa),
    };
    let digits = digits.replace('.', "");
    let digits = digits.trim_end_matches('0');
    out.extend_from_slice(sign.as_bytes());
    if (-4..0).contains(&exponent) {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + (-exponent - 1) as usize, b'0');
        out.extend_from_slice(digits.as_bytes());
    } else if (0..DIGITS).contains(&exponent) {
        let whole = exponent as usize + 1;
        if digits.len() <= whole {
            out.extend_from_slice(digits.as_bytes());
            out.resize(out.len() + whole - digits.len(), b'0');
        } else {
            out.extend_from_slice(&digits.as_bytes()[..whole]);
            out.push(b'.');
            out.extend_from_slice(&digits.as_bytes()[whole..]);
        }
    } else {
        out.extend_from_slice(&digits.as_bytes()[..1]);
        if digits.len() > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits.as_bytes()[1..]);
        }
        let sign = if exponent < 0 { '-' } else { '+' };
        out.extend_from_slice(format!("e{sign}{:02}", exponent.abs()).as_bytes());
    }
}

/// The number that a text is; `None` for one that is none.
pub(super) fn parse_double(text: &[u8]) -> Option<f64> {
    let number: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (!number.is_nan()).then_some(number)
}

/// Reads lengths and strings, and knows where it is.
#[derive(Clone, Copy, Debug)]
pub struct Decoder<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Decoder<'a> {
    /// From the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Decoder<'a> {
        Decoder { bytes, offset: 0 }
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.offset..]
    }

    /// The error `fault` at the byte that is read next.
    pub fn error(&self, fault: Fault) -> DecodeError {
        DecodeError { fault, offset: self.offset }
    }

    /// One byte.
    pub fn byte(&mut self) -> Result<u8, DecodeError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    /// So many bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let rest = self.rest();
        let Some(taken) = rest.get(..count) else {
            return Err(self.error(Fault::Truncated { needed: count, present: rest.len() }));
        };
        self.offset += count;
        Ok(taken)
    }

    /// `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let taken = self.take(N)?;
        Ok(taken.try_into().expect("take gives as many bytes as asked for"))
    }

    /// A string in any of its forms. Borrowed when it is stored as it is; never longer than
    /// [`DECODED_STRING_BYTES_MAX`].
    pub fn string(&mut self) -> Result<Cow<'a, [u8]>, DecodeError> {
        let start = *self;
        let integer = match self.byte()? {
            INTEGER_8 => i32::from(i8::from_le_bytes(self.array()?)),
            INTEGER_16 => i32::from(i16::from_le_bytes(self.array()?)),
            INTEGER_32 => i32::from_le_bytes(self.array()?),
            COMPRESSED => return self.compressed(),
            _ => {
                *self = start;
                let length = self.length()?;
                return Ok(Cow::Borrowed(self.take(length)?));
            }
        };
        Ok(Cow::Owned(itoa::Buffer::new().format(integer).as_bytes().to_vec()))
    }

    /// The length of a string.
    fn length(&mut self) -> Result<usize, DecodeError> {
        let start = *self;
        let length = self.count()?;
        if length > DECODED_STRING_BYTES_MAX {
            return Err(start.error(Fault::LengthTooLarge(length as u64)));
        }
        Ok(length)
    }

    /// A count of what follows. Not to be believed before it has followed.
    pub fn count(&mut self) -> Result<usize, DecodeError> {
        let start = *self;
        let first = self.byte()?;
        let length = match first {
            0..0x40 => u64::from(first),
            0x40..0x80 => u64::from(first & 0x3f) << 8 | u64::from(self.byte()?),
            LENGTH_32 => u64::from(u32::from_be_bytes(self.array()?)),
            LENGTH_64 => u64::from_be_bytes(self.array()?),
            _ => return Err(start.error(Fault::UnknownLength(first))),
        };
        usize::try_from(length).map_err(|_| start.error(Fault::LengthTooLarge(length)))
    }

    /// A score as text: a length byte and so many characters, or 253, 254, 255 for what is no
    /// number and the infinities.
    pub fn double_text(&mut self) -> Result<f64, DecodeError> {
        let start = *self;
        match self.byte()? {
            DOUBLE_NAN => Err(start.error(Fault::Score)),
            DOUBLE_INFINITY => Ok(f64::INFINITY),
            DOUBLE_MINUS_INFINITY => Ok(f64::NEG_INFINITY),
            length => {
                let text = self.take(length.into())?;
                parse_double(text).ok_or(start.error(Fault::Score))
            }
        }
    }

    fn compressed(&mut self) -> Result<Cow<'a, [u8]>, DecodeError> {
        let size = self.length()?;
        let plain_size = self.length()?;
        let start = *self;
        let data = self.take(size)?;
        let plain = lzf::decompress(data, plain_size);
        Ok(Cow::Owned(plain.ok_or(start.error(Fault::Compression))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check_string(string: &[u8], encoded: &[u8]) {
        let mut out = Vec::new();
        write_string(&mut out, string);
        assert_eq!(out, encoded);
        let mut decoder = Decoder::new(&out);
        assert_eq!(decoder.string().expect("just written"), string);
        assert_eq!(decoder.rest(), b"");
    }

    #[test]
    fn integers_are_stored_short() {
        check_string(b"0", b"\xc0\x00");
        check_string(b"-128", b"\xc0\x80");
        check_string(b"128", b"\xc1\x80\x00");
        check_string(b"-32769", b"\xc2\xff\x7f\xff\xff");
        check_string(b"2147483647", b"\xc2\xff\xff\xff\x7f");
        check_string(b"2147483648", b"\x0a2147483648");
        for text in ["", "-0", "+1", "01", " 1", "1 ", "-", "1.0"] {
            let mut encoded = vec![text.len() as u8];
            encoded.extend_from_slice(text.as_bytes());
            check_string(text.as_bytes(), &encoded);
        }
    }

    #[test]
    fn lengths_take_the_shortest_form() {
        for (length, head) in [
            (63, [0x3f].as_slice()),
            (64, &[0x40, 0x40]),
            (16383, &[0x7f, 0xff]),
            (16384, &[0x80, 0, 0, 0x40, 0]),
        ] {
            let mut encoded = head.to_vec();
            encoded.resize(head.len() + length, b'x');
            check_string(&encoded[head.len()..], &encoded);
        }
        let mut out = Vec::new();
        write_length(&mut out, 1 << 32);
        assert_eq!(out, [0x81, 0, 0, 0, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn every_form_of_a_string_is_read() {
        for (encoded, string) in [
            (b"\x81\x00\x00\x00\x00\x00\x00\x00\x02ab".as_slice(), b"ab".as_slice()),
            (b"\x80\x00\x00\x00\x02ab", b"ab"),
            (b"\x40\x02ab", b"ab"),
            (b"\xc3\x05\x0c\x00a\xe0\x02\x00", b"aaaaaaaaaaaa"),
        ] {
            assert_eq!(Decoder::new(encoded).string().expect("valid"), string);
        }
    }

    #[test]
    fn faults_are_named_with_their_place() {
        for (encoded, text) in [
            (b"".as_slice(), "the input ends: 1 bytes needed, 0 there at byte 0"),
            (b"\x05abc", "the input ends: 5 bytes needed, 3 there at byte 1"),
            (b"\xc2\x00", "the input ends: 4 bytes needed, 1 there at byte 1"),
            (b"\xc4", "unknown length encoding 0xc4 at byte 0"),
            (b"\x82", "unknown length encoding 0x82 at byte 0"),
            (b"\xc3\xc0", "unknown length encoding 0xc0 at byte 1"),
            (b"\xc3\x02\x09\x00a", "damaged LZF data at byte 3"),
            (b"\x80\xff\xff\xff\xff", "length 4294967295 is too large at byte 0"),
            // As long as a string may get, and a byte more.
            (b"\x80\x40\x00\x00\x00", "the input ends: 1073741824 bytes needed, 0 there at byte 5"),
            (b"\x80\x40\x00\x00\x01", "length 1073741825 is too large at byte 0"),
        ] {
            let error = Decoder::new(encoded).string().expect_err(text);
            assert_eq!(error.to_string(), text);
        }
    }

    fn check_double(score: f64, text: &str) {
        let mut out = Vec::new();
        write_double_text(&mut out, score);
        assert_eq!(out.split_first(), Some((&(text.len() as u8), text.as_bytes())));
        let read = Decoder::new(&out).double_text().expect("just written");
        assert_eq!(read.to_bits(), score.to_bits(), "{text}");
    }

    #[test]
    fn scores_are_printed_as_c_does() {
        check_double(0.0, "0");
        check_double(-0.0, "-0");
        check_double(-17.0, "-17");
        check_double(1e15, "1000000000000000");
        check_double(1e16, "10000000000000000");
        check_double(1e17, "1e+17");
        check_double(1.5, "1.5");
        check_double(0.1, "0.10000000000000001");
        check_double(-3.25e-5, "-3.2499999999999997e-05");
        check_double(0.00015, "0.00014999999999999999");
        check_double(123456.789, "123456.789");
        check_double(f64::MAX, "1.7976931348623157e+308");
        check_double(5e-324, "4.9406564584124654e-324");
        for (score, byte) in [(f64::INFINITY, 254), (f64::NEG_INFINITY, 255)] {
            let mut out = Vec::new();
            write_double_text(&mut out, score);
            assert_eq!(out, [byte]);
            assert_eq!(Decoder::new(&out).double_text(), Ok(score));
        }
        for text in [b"\xfd".as_slice(), b"\x03nan", b"\x01x", b"\x00"] {
            let error = Decoder::new(text).double_text().expect_err("no number");
            assert_eq!(error.fault, Fault::Score);
        }
    }

    proptest! {
        #[test]
        fn scores_round_trip(bits: u64) {
            let score = f64::from_bits(bits);
            if !score.is_nan() {
                let mut out = Vec::new();
                write_double_text(&mut out, score);
                let read = Decoder::new(&out).double_text().expect("just written");
                prop_assert_eq!(read.to_bits(), bits);
            }
        }

        #[test]
        fn strings_round_trip(string: Vec<u8>) {
            let mut out = Vec::new();
            write_string(&mut out, &string);
            let mut decoder = Decoder::new(&out);
            prop_assert_eq!(decoder.string().expect("just written").into_owned(), string);
            prop_assert!(decoder.rest().is_empty());
        }

        #[test]
        fn no_input_panics(bytes: Vec<u8>) {
            let _ = Decoder::new(&bytes).string();
        }

        #[test]
        fn no_compressed_input_panics(data: Vec<u8>, plain_size in 0..500usize) {
            if let Some(plain) = lzf::decompress(&data, plain_size) {
                prop_assert_eq!(plain.len(), plain_size);
            }
        }
    }
}
