//! Numbers as C's `%g` prints them.

/// Whole numbers below this have no more than [`WHOLE_DIGITS`] digits.
const WHOLE_MAX: f64 = 1e14;
const WHOLE_DIGITS: usize = 14;

/// The number that [`general`] prints as an integer, if it does.
pub fn whole(number: f64, precision: usize) -> Option<i64> {
    let is_whole = number.trunc() == number && number.abs() < WHOLE_MAX;
    let is_it =
        is_whole && precision >= WHOLE_DIGITS && (number != 0.0 || number.is_sign_positive());
    is_it.then_some(number as i64)
}

/// `%.{precision}g`.
pub fn general(number: f64, precision: usize) -> Vec<u8> {
    if number.is_nan() {
        return if number.is_sign_negative() { b"-nan".into() } else { b"nan".into() };
    }
    if number.is_infinite() {
        return if number < 0.0 { b"-inf".into() } else { b"inf".into() };
    }
    let precision = precision.max(1);
    if let Some(number) = whole(number, precision) {
        return number.to_string().into_bytes();
    }
    let scientific = format!("{number:.*e}", precision - 1);
    let (mantissa, exponent) = scientific.split_once('e').expect("it has an exponent");
    let exponent: i32 = exponent.parse().expect("it is a number");
    if exponent < -4 || exponent >= precision as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trimmed(mantissa), exponent.abs()).into_bytes();
    }
    let places = (precision as i32 - 1 - exponent).max(0) as usize;
    trimmed(&format!("{number:.places$}")).as_bytes().to_vec()
}

/// Without zeros at the end of a fraction.
fn trimmed(digits: &str) -> &str {
    match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.'),
        false => digits,
    }
}

#[cfg(test)]
mod tests {
    use super::general;

    #[test]
    fn as_c_does() {
        for (number, precision, expected) in [
            (-0.0, 17, "-0"),
            (99_999_999_999_999.0, 14, "99999999999999"),
            (100_000_000_000_000.0, 14, "1e+14"),
            (-12.0, 14, "-12"),
            (123_456.0, 3, "1.23e+05"),
            (3.1, 17, "3.1000000000000001"),
            (3.1, 14, "3.1"),
            (1e19, 17, "1e+19"),
            (1e17, 17, "1e+17"),
            (100000.0, 14, "100000"),
            (1e14, 14, "1e+14"),
            (0.0001, 14, "0.0001"),
            (0.00001, 14, "1e-05"),
            (-0.0, 14, "-0"),
            (0.0, 14, "0"),
            (f64::NEG_INFINITY, 14, "-inf"),
        ] {
            assert_eq!(String::from_utf8_lossy(&general(number, precision)), expected);
        }
    }
}
