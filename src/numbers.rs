//! Numbers as Redis reads and prints them.

pub mod long_double;

/// A 64-bit integer by Redis' strict rules: digits with an optional `-`, no `+`, no spaces, no
/// leading zeros, no `-0`.
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

/// A double as `strtod` reads it, of all the text: decimal or hexadecimal, or an infinity. No
/// spaces, no NaN; `None` too when it is too large or too small for a double.
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

/// A double as Redis 7.2 prints it: the shortest digits that read back, as an integer up to 2^52,
/// with an exponent where that is far from the point.
pub fn print_float(value: f64) -> String {
    const EXACT: f64 = (1u64 << 52) as f64;
    if !value.is_finite() {
        return match () {
            () if value.is_nan() => "nan",
            () if value > 0.0 => "inf",
            () => "-inf",
        }
        .to_owned();
    }
    let is_negative_zero = value == 0.0 && value.is_sign_negative();
    if value.trunc() == value && value.abs() <= EXACT && !is_negative_zero {
        return (value as i64).to_string();
    }
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').expect("an exponent was asked for");
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let exponent: i32 = exponent.parse().expect("it was printed as a number");
    let digits = mantissa.replace('.', "");
    if digits == "0" {
        return format!("{sign}0");
    }
    // The number is `digits` times ten to `scale`.
    let (count, scale) = (digits.len() as i32, exponent - digits.len() as i32 + 1);
    let size = exponent.abs();
    if scale >= 0 && size < count + 7 {
        return format!("{sign}{digits}{}", "0".repeat(scale as usize));
    }
    if scale < 0 && (scale > -7 || size < 4) {
        let whole = count + scale;
        return if whole <= 0 {
            format!("{sign}0.{}{digits}", "0".repeat(-whole as usize))
        } else {
            let (whole, fraction) = digits.split_at(whole as usize);
            format!("{sign}{whole}.{fraction}")
        };
    }
    let (first, rest) = digits.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    let direction = if exponent < 0 { '-' } else { '+' };
    format!("{sign}{first}{point}{rest}e{direction}{size}")
}

/// A double as C's `%.*g` prints it: rounded to so many digits, zeros at the end left out.
pub fn print_general(value: f64, digit_count: usize) -> String {
    if !value.is_finite() {
        return print_float(value);
    }
    let text = format!("{value:.*e}", digit_count - 1);
    let (mantissa, exponent) = text.split_once('e').expect("an exponent was asked for");
    let exponent: i32 = exponent.parse().expect("it was printed as a number");
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let all = mantissa.replace('.', "");
    let digits = all.trim_end_matches('0');
    if digits.is_empty() {
        return format!("{sign}0");
    }
    if exponent < -4 || exponent >= digit_count as i32 {
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let direction = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{first}{point}{rest}e{direction}{:02}", exponent.abs());
    }
    if exponent < 0 {
        return format!("{sign}0.{}{digits}", "0".repeat((-1 - exponent) as usize));
    }
    let whole = exponent as usize + 1;
    match digits.len() <= whole {
        true => format!("{sign}{digits}{}", "0".repeat(whole - digits.len())),
        false => format!("{sign}{}.{}", &digits[..whole], &digits[whole..]),
    }
}

/// A finite number with so many decimals, zeros at the end left out.
pub fn print_decimals(value: f64, decimal_count: usize) -> String {
    let text = format!("{value:.decimal_count$}");
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// A number with so many decimals as Redis 7.2 rounds it: to even, of the product with a power of
/// ten.
pub fn print_rounded(value: f64, decimal_count: usize) -> String {
    let scaled = (value * 10f64.powi(decimal_count as i32)).round_ties_even();
    if scaled.is_nan() || scaled.abs() >= i64::MAX as f64 {
        return format!("{value:.decimal_count$}");
    }
    let digits = format!("{:0width$}", scaled.abs() as u64, width = decimal_count + 1);
    let (whole, decimals) = digits.split_at(digits.len() - decimal_count);
    format!("{}{whole}.{decimals}", if scaled < 0.0 { "-" } else { "" })
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
    fn floats_are_printed_as_by_redis() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (3.0, "3"),
            (-17.0, "-17"),
            (4_503_599_627_370_496.0, "4503599627370496"),
            (0.1, "0.1"),
            (3.1, "3.1"),
            (-1.5, "-1.5"),
            (1e-5, "0.00001"),
            (1.25e-9, "1.25e-9"),
            (1e16, "1e+16"),
            (1e300, "1e+300"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(print_float(value), text);
        }
    }

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
