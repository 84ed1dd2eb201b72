//! The number of INCRBYFLOAT: C's `long double` on x86, an 80-bit float with a 64-bit mantissa.
//!
//! Replicas must agree to the bit and with Redis' text, whatever machine they run on, so the
//! arithmetic is done on integers: text becomes an exact fraction that is rounded once, sums are
//! exact and rounded once, and printing rounds the exact value to 17 decimals. All rounding is to
//! nearest, ties to even. Infinities exist as text only: every sum with one is refused, as Redis
//! refuses it.

use num_bigint::BigUint;
use std::cmp::Ordering;

/// Longest text that is looked at: Redis reads numbers into a buffer of 5 KiB with a NUL at its
/// end.
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

    /// Reads what C's `strtold` reads, all of it: decimal and hexadecimal, `inf` and `infinity`.
    /// `None` for other text, NaN, leading space, and numbers too large or too small to be told
    /// from zero. Cost: some allocations, about a microsecond for short text.
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

    /// As a double; an infinity or zero when it is too large or too small for one.
    pub fn to_f64(self) -> f64 {
        let LongDouble::Finite { negative, mantissa, exponent } = self else {
            return f64::INFINITY;
        };
        // In three steps: no power of two on the way leaves the range before the number itself
        // does.
        let exponent = exponent.clamp(-2000, 2000) as i32;
        let step = exponent / 3;
        let value = mantissa as f64 * 2f64.powi(step) * 2f64.powi(step);
        let value = value * 2f64.powi(exponent - 2 * step);
        if negative { -value } else { value }
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

#[cfg(test)]
mod tests {
    use super::*;

    const NOT_A_NUMBER: &str = "not a number";
    const NO_SUM: &str = "no finite sum";

    fn sum(left: &str, right: &str) -> Result<String, &'static str> {
        let parse = |text: &str| LongDouble::parse(text.as_bytes()).ok_or(NOT_A_NUMBER);
        let mut text = Vec::new();
        parse(left)?.checked_add(parse(right)?).ok_or(NO_SUM)?.print(&mut text);
        Ok(String::from_utf8(text).expect("digits"))
    }

    #[test]
    fn sums_are_those_of_redis() {
        // What SET and INCRBYFLOAT answered on redis-server 7.0 on x86-64.
        let table: &[(&str, &str, Result<&str, &str>)] = &[
            ("10.5", "0.1", Ok("10.6")),
            ("0.1", "0.2", Ok("0.3")),
            ("1", "0.00000000000000001", Ok("1.00000000000000001")),
            ("1", "1e-18", Ok("1")),
            ("0", "-1e-18", Ok("0")),
            ("0", "0.000000000000000005", Ok("0")),
            ("0", "0.0000000000000000051", Ok("0.00000000000000001")),
            ("0", "0.000000000000000015", Ok("0.00000000000000002")),
            ("18446744073709551615", "1", Ok("18446744073709551616")),
            ("18446744073709551616", "1", Ok("18446744073709551616")),
            ("18446744073709551616", "2", Ok("18446744073709551618")),
            ("18446744073709551616", "3", Ok("18446744073709551620")),
            ("9223372036854775807", "0.5", Ok("9223372036854775807.5")),
            ("9223372036854775807", "0.75", Ok("9223372036854775808")),
            ("-9223372036854775808", "-0.25", Ok("-9223372036854775808")),
            ("4611686018427387904", "0.125", Ok("4611686018427387904")),
            ("3.14159265358979323846264338327950288", "0", Ok("3.14159265358979324")),
            ("2.718281828459045235360287471352662497757", "0", Ok("2.71828182845904524")),
            ("1e20", "-1e20", Ok("0")),
            ("1e22", "1", Ok("10000000000000000000000")),
            ("123456789012345678901234567890", "0.5", Ok("123456789012345678899921813504")),
            ("0x1p-3", "0", Ok("0.125")),
            ("0X.8", "0xFF", Ok("255.5")),
            ("0x1.fffffffffffffffep0", "0x1p-64", Ok("2")),
            ("0x1.fffffffffffffffep0", "0x1p-63", Ok("2")),
            ("0x1.00000000000000010000000000001", "0", Ok("1")),
            ("0x1.0000000000000003", "0", Ok("1")),
            ("0x1.0000000000000001", "0", Ok("1")),
            ("1e-4950", "1", Ok("1")),
            ("3.6e-4951", "0", Ok("0")),
            ("1.8e-4951", "0", Err(NOT_A_NUMBER)),
            ("1.9e-4951", "0", Ok("0")),
            ("1.2e4932", "0", Err(NOT_A_NUMBER)),
            ("inf", "1", Err(NO_SUM)),
            ("1", "-infinity", Err(NO_SUM)),
            ("1.18973149535723176502e+4932", "1e4915", Err(NO_SUM)),
            ("nan", "1", Err(NOT_A_NUMBER)),
            ("1.", ".5", Ok("1.5")),
            (".", "1", Err(NOT_A_NUMBER)),
            ("1e", "1", Err(NOT_A_NUMBER)),
            ("+1", "-1", Ok("0")),
            ("-0", "0", Ok("0")),
            ("0e99999999999999999999", "7", Ok("7")),
            ("0x", "1", Err(NOT_A_NUMBER)),
            ("0x1p", "1", Err(NOT_A_NUMBER)),
            (
                "-51750.960566905443639394256",
                "62632597597.5403692550747596",
                Ok("62632545846.57980234920978546"),
            ),
            ("9832976176283.12175294", "-72.3657", Ok("9832976176210.75605297088623047")),
            (
                "7317463276519295733.28",
                "153540110946965195.1800188482",
                Ok("7471003387466260928.5"),
            ),
            (
                "1901042282212365707.6869522164640927941",
                "72390762004538402.9157231070389319135",
                Ok("1973433044216904110.5"),
            ),
            (
                "-79309156112.337508673038680",
                "732948.10986393",
                Ok("-79308423164.22764474153518677"),
            ),
            (
                "-41496206415154234.1350317716114554168",
                "-793919.57934655362",
                Ok("-41496206415948153.71484375"),
            ),
            (
                "782.909763638706951154",
                "-50230911119.54319778597937997879",
                Ok("-50230910336.63343414664268494"),
            ),
            (
                "-62.7825107365",
                "-396627367485.189203426030121",
                Ok("-396627367547.97171413898468018"),
            ),
            (
                "3930878876558080.9145446607",
                "8735411241648.170",
                Ok("3939614287799729.08447265625"),
            ),
            (
                "-4890032609297.56429",
                "-50495872375626.4062857518941",
                Ok("-55385904984923.97057342529296875"),
            ),
            ("180.30403", "7.4846819625942255055", Ok("187.7887119625942255")),
            ("-2.51967105364993", "-90504.89004495392071802", Ok("-90507.40971600757064408")),
        ];
        for &(left, right, expected) in table {
            assert_eq!(sum(left, right), expected.map(str::to_owned), "{left} + {right}");
        }
    }

    #[test]
    fn the_largest_and_the_smallest_are_read() {
        let most = sum("1.18973149535723176502e+4932", "0").expect("the largest");
        assert_eq!((most.len(), &most[..20]), (4933, "11897314953572317650"));
        assert_eq!(sum("0x1p16384", "0"), Err(NOT_A_NUMBER));
        assert_eq!(sum("0x.ffffffffffffffff8p16384", "0"), Err(NOT_A_NUMBER));
        assert!(LongDouble::parse(b"0x1p-16445").is_some());
        assert_eq!(LongDouble::parse(b"0x1p-16446"), None);
        assert!(LongDouble::parse(&[b'1'; 4933]).is_some());
        assert_eq!(LongDouble::parse(&[b'0'; TEXT_BYTES_MAX]), Some(LongDouble::ZERO));
        assert_eq!(LongDouble::parse(&[b'0'; TEXT_BYTES_MAX + 1]), None);
    }

    #[test]
    fn small_sums_keep_their_top_bit() {
        let smallest = LongDouble::parse(b"0x1p-16445").expect("the smallest");
        let sum = smallest.checked_add(smallest);
        assert_eq!(sum, LongDouble::parse(b"0x1p-16444"));
        let normal = LongDouble::parse(b"0x1p-16382").expect("the smallest normal one");
        let difference = normal.checked_add(LongDouble::parse(b"-0x1p-16445").expect("a number"));
        assert_eq!(difference, LongDouble::parse(b"0x.fffffffffffffffep-16382"));
    }
}
