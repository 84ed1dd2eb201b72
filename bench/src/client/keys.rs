//! Which key a request names, and the text of each key.
//!
//! A key is the number of an item, `0..count`; its text is `key:` and the number with leading
//! zeros, 16 bytes by default: the keys of redis-benchmark's `key:__rand_int__`, so that both
//! clients find what either has filled in.

use super::random::Random;

/// What the text of every key starts with.
const PREFIX: &[u8] = b"key:";

/// Appends the text of key `index`, `size` bytes.
pub fn write_key(bytes: &mut Vec<u8>, index: u64, size: usize) {
    let start = bytes.len();
    bytes.extend_from_slice(&PREFIX[..PREFIX.len().min(size)]);
    bytes.resize(start + size, b'0');
    let mut rest = index;
    for place in bytes[start + PREFIX.len().min(size)..].iter_mut().rev() {
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    debug_assert_eq!(rest, 0, "key {index} does not fit into {size} bytes");
}

/// How many different keys of `size` bytes there are.
pub fn keys_of_size(size: usize) -> u64 {
    let digits = size.saturating_sub(PREFIX.len());
    10_u64.checked_pow(digits.try_into().unwrap_or(u32::MAX)).unwrap_or(u64::MAX)
}

/// Picks keys below a count.
#[derive(Clone, Debug)]
pub enum Picker {
    /// Each key as often as any other.
    Uniform {
        /// How many keys there are.
        count: u64,
    },
    /// Key `k` (from 0) in proportion to `1 / (k + 1)^exponent`.
    Zipf(Zipf),
    /// One after the other: `next`, `next + step`, ... and from the start again.
    Sequential {
        /// How many keys there are.
        count: u64,
        /// The key picked next.
        next: u64,
        /// How many connections share the keys.
        step: u64,
    },
}

impl Picker {
    /// The next key.
    pub fn pick(&mut self, random: &mut Random) -> u64 {
        match self {
            Picker::Uniform { count } => random.below(*count),
            Picker::Zipf(zipf) => zipf.pick(random),
            Picker::Sequential { count, next, step } => {
                let picked = *next;
                *next = (*next + *step) % *count;
                picked
            }
        }
    }
}

/// Zipf's distribution by rejection-inversion (Hörmann and Derflinger 1996): constant time and no
/// table, so that it works for any number of keys.
#[derive(Clone, Debug)]
pub struct Zipf {
    count: f64,
    exponent: f64,
    /// The integral at the lower end of key 1's bar, and at the upper end of the last one's.
    first: f64,
    last: f64,
    /// A uniform number this near above its key's bar is accepted without evaluating the weight.
    shortcut: f64,
}

impl Zipf {
    /// `count` keys; `exponent` above 0. 0.99 is the custom of cache benchmarks.
    pub fn new(count: u64, exponent: f64) -> Zipf {
        assert!(count > 0 && exponent > 0.0, "zipf of {count} keys, exponent {exponent}");
        let mut zipf = Zipf { count: count as f64, exponent, first: 0.0, last: 0.0, shortcut: 0.0 };
        zipf.first = zipf.integral(1.5) - 1.0;
        zipf.last = zipf.integral(zipf.count + 0.5);
        zipf.shortcut = 2.0 - zipf.integral_inverse(zipf.integral(2.5) - zipf.weight(2.0));
        zipf
    }

    fn pick(&self, random: &mut Random) -> u64 {
        loop {
            let under = self.last + random.unit() * (self.first - self.last);
            let place = self.integral_inverse(under);
            let rank = place.round().clamp(1.0, self.count);
            if rank - place <= self.shortcut
                || under >= self.integral(rank + 0.5) - self.weight(rank)
            {
                return rank as u64 - 1;
            }
        }
    }

    fn weight(&self, rank: f64) -> f64 {
        rank.powf(-self.exponent)
    }

    /// The integral of the weight from 1, continuous at exponent 1.
    fn integral(&self, place: f64) -> f64 {
        let log = place.ln();
        let power = (1.0 - self.exponent) * log;
        log * if power.abs() > 1e-8 { power.exp_m1() / power } else { 1.0 + power / 2.0 }
    }

    fn integral_inverse(&self, area: f64) -> f64 {
        let power = (area * (1.0 - self.exponent)).max(-1.0);
        (area * if power.abs() > 1e-8 { power.ln_1p() / power } else { 1.0 - power / 2.0 }).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_redis_benchmark() {
        let mut bytes = Vec::new();
        write_key(&mut bytes, 7, 16);
        assert_eq!(bytes, b"key:000000000007");
        bytes.clear();
        write_key(&mut bytes, 123_456, 10);
        assert_eq!(bytes, b"key:123456");
        assert_eq!(keys_of_size(10), 1_000_000);
        assert_eq!(keys_of_size(100), u64::MAX);
    }

    #[test]
    fn sequential_connections_share_all_keys() {
        let mut seen = [0; 10];
        for start in 0..3 {
            let mut picker = Picker::Sequential { count: 10, next: start, step: 3 };
            for _ in 0..(10_u64 - start).div_ceil(3) {
                seen[picker.pick(&mut Random::new(0)) as usize] += 1;
            }
        }
        assert_eq!(seen, [1; 10]);
    }

    #[test]
    fn uniform_keys_are_even() {
        let mut random = Random::new(7);
        let mut picker = Picker::Uniform { count: 4 };
        let mut seen = [0_u32; 4];
        for _ in 0..40_000 {
            seen[picker.pick(&mut random) as usize] += 1;
        }
        assert!(seen.iter().all(|count| (9_600..10_400).contains(count)), "{seen:?}");
    }

    /// Each rank's share is within four standard deviations of what the formula says.
    #[test]
    fn zipf_keys_follow_the_formula() {
        const DRAWS: u32 = 200_000;
        for exponent in [0.5, 0.99, 1.0, 1.5] {
            let zipf = Zipf::new(100, exponent);
            let mut random = Random::new(11);
            let mut seen = [0_u32; 100];
            for _ in 0..DRAWS {
                seen[zipf.pick(&mut random) as usize] += 1;
            }
            let total: f64 = (1..=100).map(|rank| f64::from(rank).powf(-exponent)).sum();
            for (rank, count) in (1..=100).zip(seen) {
                let share = f64::from(rank).powf(-exponent) / total;
                let expected = share * f64::from(DRAWS);
                let deviation = (expected * (1.0 - share)).sqrt();
                assert!(
                    (f64::from(count) - expected).abs() < 4.5 * deviation,
                    "exponent {exponent} rank {rank}: {count}, expected {expected:.0}"
                );
            }
        }
    }

    #[test]
    fn zipf_of_one_key_and_of_many() {
        let mut random = Random::new(3);
        let one = Zipf::new(1, 0.99);
        let many = Zipf::new(1 << 40, 0.99);
        for _ in 0..1000 {
            assert_eq!(one.pick(&mut random), 0);
            assert!(many.pick(&mut random) < 1 << 40);
        }
    }
}
