//! Scores as elements of a pack: an integer in as few bytes as it needs, anything else in the eight
//! of a double.
//!
//! An element's length tells one from the other, and nothing is lost: -0, infinities and what is no
//! integer keep all their bits.

/// Bytes of the longest integer that is kept as one.
const INTEGER_BYTES_MAX: usize = 7;

/// A score's bytes.
pub(super) struct Score {
    bytes: [u8; 8],
    length: usize,
}

impl Score {
    pub(super) fn new(score: f64) -> Score {
        match short_integer(score) {
            Some(n) => Score { bytes: n.to_le_bytes(), length: integer_bytes(n) },
            None => Score { bytes: score.to_le_bytes(), length: size_of::<f64>() },
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// The integer that a score is to the last bit, if it is short.
fn short_integer(score: f64) -> Option<i64> {
    let n = score as i64;
    let is_same = (n as f64).to_bits() == score.to_bits();
    (is_same && integer_bytes(n) <= INTEGER_BYTES_MAX).then_some(n)
}

/// Bytes of an integer with its sign; zero has none.
fn integer_bytes(n: i64) -> usize {
    let without_sign = (n ^ (n >> 63)).cast_unsigned();
    match n {
        0 => 0,
        _ => (64 - without_sign.leading_zeros() as usize) / 8 + 1,
    }
}

/// The score that these bytes are.
pub(super) fn read(bytes: &[u8]) -> f64 {
    if let Ok(double) = bytes.try_into() {
        return f64::from_le_bytes(double);
    }
    let mut wide = [0; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    let unused = 64 - 8 * bytes.len() as u32;
    // Zero has no bytes, and shifting by all of them is no shift.
    let n = i64::from_le_bytes(wide).wrapping_shl(unused).wrapping_shr(unused);
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(score: f64, length: usize) {
        let bytes = Score::new(score);
        assert_eq!(bytes.bytes().len(), length, "{score}");
        assert_eq!(read(bytes.bytes()).to_bits(), score.to_bits(), "{score}");
    }

    #[test]
    fn integers_are_short_and_nothing_is_lost() {
        for (score, length) in [
            (0.0, 0),
            (1.0, 1),
            (-1.0, 1),
            (127.0, 1),
            (128.0, 2),
            (-128.0, 1),
            (-129.0, 2),
            (32_767.0, 2),
            (32_768.0, 3),
            (-8_388_608.0, 3),
            (1_700_000_000.0, 4),
            (1_700_000_000_000.0, 6),
            (140_737_488_355_327.0, 6),
            (-140_737_488_355_328.0, 6),
            (140_737_488_355_328.0, 7),
            (-0.0, 8),
            (0.5, 8),
            (1e300, 8),
            (f64::INFINITY, 8),
            (f64::NEG_INFINITY, 8),
            (f64::MIN_POSITIVE, 8),
            (5e-324, 8),
            (9_007_199_254_740_992.0, 7),
            (36_028_797_018_963_968.0, 8),
        ] {
            check(score, length);
        }
        let mut random = crate::random::Random::new(1);
        for _ in 0..20_000 {
            let n = (random.bits() as i64) >> (11 + random.below(53));
            check(n as f64, integer_bytes(n));
        }
    }
}
