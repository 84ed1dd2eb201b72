//! Numbers as Redis reads and prints them.

pub mod long_double;

/// A 64-bit integer by Redis' strict rules: digits with an optional `-`, no `+`, no spaces, no leading
/// zeros, no `-0`.
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut value: u64 = 0;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        // 19 digits at most: below 10^19, which 64 bits hold.
        value = value * 10 + u64::from(digit - b'0');
    }
    if negative { 0i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() }
}

/// A double as `strtod` reads it, of all the text: decimal or hexadecimal, or an infinity. No spaces, no NaN;
/// `None` too when it is too large or too small for a double.
pub fn parse_float(text: &[u8]) -> Option<f64> {
    let unsigned = text.strip_prefix(b"-").or(text.strip_prefix(b"+")).unwrap_or(text);
    let is_hexadecimal = unsigned.len() > 2 && unsigned[..2].eq_ignore_ascii_case(b"0x");
    let value = match is_hexadecimal {
        true => long_double::LongDouble::parse(text)?.to_f64(),
        false => std::str::from_utf8(text).ok()?.parse().ok()?,
    };
    let first = unsigned.first()?;
    let named = first.is_ascii_alphabetic();
    let fits =
        if value == 0.0 { is_zero(unsigned, is_hexadecimal) } else { value.is_finite() || named };
    (!f64::is_nan(value) && fits).then_some(value)
}

/// Are all digits of the mantissa zeros?
fn is_zero(unsigned: &[u8], is_hexadecimal: bool) -> bool {
    let (digits, exponent) = if is_hexadecimal { (&unsigned[2..], b'p') } else { (unsigned, b'e') };
    let mantissa = digits.iter().take_while(|byte| byte.to_ascii_lowercase() != exponent);
    mantissa.into_iter().all(|byte| matches!(byte, b'0' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_read_as_by_strtod() {
        for (text, value) in [
            ("0", 0.0),
            ("-0", -0.0),
            ("0e9", 0.0),
            ("1.5", 1.5),
            (".5", 0.5),
            ("5.", 5.0),
            ("+1e3", 1000.0),
            ("1E-3", 0.001),
            ("0x10", 16.0),
            ("-0x1.8p1", -3.0),
            ("inf", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("1.7976931348623157e308", f64::MAX),
        ] {
            let read = parse_float(text.as_bytes());
            assert_eq!(read.map(f64::to_bits), Some(value.to_bits()), "{text}");
        }
        for text in ["", " 1", "1 ", "nan", "-nan", "1e400", "1e-400", "0x", ".", "e5", "1_0", "x"]
        {
            assert_eq!(parse_float(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn integers_are_strict() {
        for (text, value) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("", None),
            ("-", None),
            ("-0", None),
            ("+1", None),
            ("01", None),
            (" 1", None),
            ("1 ", None),
            ("1.0", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(parse_integer(text.as_bytes()), value, "{text:?}");
        }
    }
}
