//! The number of INCRBYFLOAT: C's `long double` on x86, an 80-bit float with a 64-bit mantissa.
//!
//! Replicas must agree to the bit and with Redis' text, whatever machine they run on, so the arithmetic
//! is done on integers: text becomes an exact fraction that is rounded once, sums are exact and rounded
//! once, and printing rounds the exact value to 17 decimals. All rounding is to nearest, ties to even.
//! Infinities exist as text only: every sum with one is refused, as Redis refuses it.

use num_bigint::BigUint;
use std::cmp::Ordering;

/// Longest text that is looked at: Redis reads numbers into a buffer of 5 KiB with a NUL at its end.
const TEXT_BYTES_MAX: usize = 5 * 1024 - 1;
/// Bits of a mantissa.
const MANTISSA_BITS: i64 = 64;
/// Exponent of the smallest number above zero, 2^-16445.
const EXPONENT_MIN: i64 = -16445;
/// Every number is below two to this power.
const MAGNITUDE_BITS_MAX: i64 = 16384;
/// Decimal places that are printed.
const DECIMALS: usize = 17;

/// A number, or an infinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LongDouble {
    /// `mantissa` times two to `exponent`.
    Finite {
        /// Below zero.
        negative: bool,
        /// The top bit is set, but not in zero and numbers below 2^-16382.
        mantissa: u64,
        /// At least -16445.
        exponent: i64,
    },
    /// Larger than every number, or, negative, smaller.
    Infinite,
}

impl LongDouble {
    /// Zero.
    pub const ZERO: LongDouble = LongDouble::Finite { negative: false, mantissa: 0, exponent: 0 };

    /// Reads what C's `strtold` reads, all of it: decimal and hexadecimal, `inf` and `infinity`. `None` for
    /// other text, NaN, leading space, and numbers too large or too small to be told from zero.
    /// Cost: some allocations, about a microsecond for short text.
    pub fn parse(text: &[u8]) -> Option<LongDouble> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let (negative, unsigned) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let number = match unsigned {
            [b'0', b'x' | b'X', rest @ ..] => parse_hexadecimal(negative, rest)?,
            _ if unsigned.eq_ignore_ascii_case(b"inf") => return Some(LongDouble::Infinite),
            _ if unsigned.eq_ignore_ascii_case(b"infinity") => return Some(LongDouble::Infinite),
            _ => parse_decimal(negative, unsigned)?,
        };
        (number != LongDouble::Infinite).then_some(number)
    }

    /// The sum, or `None` when it is no finite number.
    pub fn checked_add(self, other: LongDouble) -> Option<LongDouble> {
        use LongDouble::Finite;
        let Finite { negative, mantissa, exponent } = self else { return None };
        let Finite { negative: negative_2, mantissa: mantissa_2, exponent: exponent_2 } = other
        else {
            return None;
        };
        let least = exponent.min(exponent_2);
        let left = BigUint::from(mantissa) << (exponent - least) as u64;
        let right = BigUint::from(mantissa_2) << (exponent_2 - least) as u64;
        let (negative, magnitude) = match (negative == negative_2, left.cmp(&right)) {
            (true, _) => (negative, left + right),
            (false, Ordering::Greater) => (negative, left - right),
            (false, Ordering::Less) => (negative_2, right - left),
            (false, Ordering::Equal) => return Some(LongDouble::ZERO),
        };
        let sum = round(negative, &magnitude, least, false);
        (sum != LongDouble::Infinite).then_some(sum)
    }

    /// Appends the number with 17 decimals, zeros at the end left out: `3`, `-0.1`, never `-0`.
    pub fn print(self, out: &mut Vec<u8>) {
        let LongDouble::Finite { negative, mantissa, exponent } = self else {
            return out.extend_from_slice(b"inf");
        };
        let digits = if exponent >= 0 {
            (BigUint::from(mantissa) << exponent as u64).to_string()
        } else {
            with_decimals(mantissa, -exponent as u64)
        };
        if negative && digits != "0" {
            out.push(b'-');
        }
        out.extend_from_slice(digits.as_bytes());
    }
}

/// `mantissa` divided by two to `shift`, rounded to 17 decimals, zeros at the end left out.
fn with_decimals(mantissa: u64, shift: u64) -> String {
    // Below 2^64 * 10^17 < 2^121, so that a shift by more leaves less than half.
    let scaled = u128::from(mantissa) * 10u128.pow(DECIMALS as u32);
    let rounded = match shift {
        0..=121 => {
            let (kept, rest) = (scaled >> shift, scaled & ((1 << shift) - 1));
            let half = 1u128 << (shift - 1);
            kept + u128::from(rest > half || (rest == half && kept & 1 == 1))
        }
        _ => 0,
    };
    let unit = 10u128.pow(DECIMALS as u32);
    let text = format!("{}.{:017}", rounded / unit, rounded % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The long double nearest to `magnitude` times two to `exponent`, or a little more than that when
/// something was `cut` off below the last bit; then `magnitude` must have 66 bits or more.
fn round(negative: bool, magnitude: &BigUint, exponent: i64, cut: bool) -> LongDouble {
    let bits = magnitude.bits() as i64;
    let mut rounded_exponent = (exponent + bits - MANTISSA_BITS).max(EXPONENT_MIN);
    let shift = rounded_exponent - exponent;
    let mut mantissa = if shift <= 0 {
        low_word(&(magnitude << -shift as u64))
    } else {
        let shift = shift as u64;
        let kept = low_word(&(magnitude >> shift));
        let half = magnitude.bit(shift - 1);
        let more = cut || magnitude.trailing_zeros().is_some_and(|zeros| zeros < shift - 1);
        let up = half && (more || kept & 1 == 1);
        match kept.checked_add(up.into()) {
            Some(mantissa) => mantissa,
            None => {
                rounded_exponent += 1;
                1 << 63
            }
        }
    };
    if mantissa == 0 {
        return LongDouble::Finite { negative, mantissa: 0, exponent: 0 };
    }
    if rounded_exponent + MANTISSA_BITS > MAGNITUDE_BITS_MAX {
        return LongDouble::Infinite;
    }
    // A sum of small numbers may lie below the normal ones with room above its top bit.
    let room = (mantissa.leading_zeros() as i64).min(rounded_exponent - EXPONENT_MIN);
    mantissa <<= room;
    LongDouble::Finite { negative, mantissa, exponent: rounded_exponent - room }
}

fn low_word(number: &BigUint) -> u64 {
    number.iter_u64_digits().next().unwrap_or(0)
}

/// Digits, a point, digits, and an exponent behind one of two marks; the exponent may be left out.
/// Returns all digits, how many stand after the point, and the exponent cut to an absurd size.
fn take_parts(text: &[u8], mark: u8, is_digit: fn(&u8) -> bool) -> Option<(Vec<u8>, i64, i64)> {
    let whole_size = text.iter().take_while(|byte| is_digit(byte)).count();
    let (whole, mut rest) = text.split_at(whole_size);
    let mut digits = whole.to_vec();
    if let [b'.', after @ ..] = rest {
        let size = after.iter().take_while(|byte| is_digit(byte)).count();
        digits.extend_from_slice(&after[..size]);
        rest = &after[size..];
    }
    if digits.is_empty() {
        return None;
    }
    let exponent = match rest {
        [] => 0,
        [first, rest @ ..] if first.eq_ignore_ascii_case(&mark) => take_exponent(rest)?,
        _ => return None,
    };
    let fraction_size = (digits.len() - whole_size) as i64;
    Some((digits, fraction_size, exponent))
}

fn take_exponent(text: &[u8]) -> Option<i64> {
    const ABSURD: i64 = 1 << 40;
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let size = digits.iter().fold(0, |n: i64, b| (n * 10 + i64::from(b - b'0')).min(ABSURD));
    Some(if negative { -size } else { size })
}

fn parse_decimal(negative: bool, text: &[u8]) -> Option<LongDouble> {
    let (digits, fraction_size, exponent) = take_parts(text, b'e', u8::is_ascii_digit)?;
    let significant = digits.iter().skip_while(|&&digit| digit == b'0').count() as i64;
    if significant == 0 {
        return Some(LongDouble::Finite { negative, mantissa: 0, exponent: 0 });
    }
    let exponent = exponent - fraction_size;
    // The largest number has 4933 digits, the smallest 4950 zeros after the point.
    if !(-4960..=4940).contains(&(significant + exponent)) {
        return None;
    }
    let whole = BigUint::parse_bytes(&digits, 10)?;
    let scale = BigUint::from(10u8).pow(exponent.unsigned_abs() as u32);
    let number = if exponent >= 0 {
        round(negative, &(whole * scale), 0, false)
    } else {
        let shift = (MANTISSA_BITS as u64 + 2 + scale.bits()).saturating_sub(whole.bits());
        let shifted = whole << shift;
        let quotient = &shifted / &scale;
        let cut = &quotient * &scale != shifted;
        round(negative, &quotient, -(shift as i64), cut)
    };
    above_zero(number)
}

fn parse_hexadecimal(negative: bool, text: &[u8]) -> Option<LongDouble> {
    let (digits, fraction_size, exponent) = take_parts(text, b'p', u8::is_ascii_hexdigit)?;
    let whole = BigUint::parse_bytes(&digits, 16)?;
    if whole == BigUint::ZERO {
        return Some(LongDouble::Finite { negative, mantissa: 0, exponent: 0 });
    }
    let exponent = exponent - 4 * fraction_size;
    if !(EXPONENT_MIN - 1..=MAGNITUDE_BITS_MAX).contains(&(whole.bits() as i64 + exponent)) {
        return None;
    }
    above_zero(round(negative, &whole, exponent, false))
}

/// A number that is not zero must not be read as zero.
fn above_zero(number: LongDouble) -> Option<LongDouble> {
    match number {
        LongDouble::Finite { mantissa: 0, .. } => None,
        number => Some(number),
    }
}
