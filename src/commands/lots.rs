//! Chance for commands: numbers drawn from the seed of a call, the same on every replica.

use super::Call;
use super::refusal::Refusal;
use crate::limits::RANDOM_ELEMENTS_MAX;
use std::collections::BTreeSet;

/// Numbers that follow from a seed (splitmix64). Seeds that lie close together give unlike numbers.
#[derive(Clone, Debug)]
pub struct Lots {
    state: u64,
}

impl Lots {
    /// The numbers of a call's seed.
    pub fn new(seed: u64) -> Lots {
        // The seeds of a transaction's commands lie as far apart as states do: unmixed, each would
        // draw the numbers of the one before, but for the first.
        let mixed = (seed ^ seed >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let mixed = (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        Lots { state: mixed ^ mixed >> 33 }
    }

    fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ self.state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `end`, each as likely as another up to 1 in 2^64 over `end`. `end` is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        debug_assert!(end > 0);
        ((u128::from(self.bits()) * u128::from(end)) >> u64::BITS) as u64
    }

    /// So many numbers below `end`, no two the same, ascending; every choice of them is as likely
    /// as another. `count` is at most `end`. Cost: O(count log count), whatever `end` is.
    pub fn distinct(&mut self, count: u64, end: u64) -> BTreeSet<u64> {
        debug_assert!(count <= end);
        let mut chosen = BTreeSet::new();
        for last in end - count..end {
            let number = self.below(last + 1);
            // `last` cannot have been chosen: all so far are below it.
            if !chosen.insert(number) {
                chosen.insert(last);
            }
        }
        chosen
    }
}

/// What HRANDFIELD and ZRANDMEMBER are asked for: `key [count [WORD]]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drawing {
    /// Below zero: so many, each as likely to come again. `None`: one alone, or null.
    pub count: Option<i64>,
    /// Was the word said that wants values or scores too?
    pub in_pairs: bool,
}

impl Drawing {
    /// Reads the arguments behind the key. Errors: a count out of range; another word.
    pub fn of(call: &Call<'_>, word: &str) -> Result<Drawing, Refusal> {
        if call.count() == 2 {
            return Ok(Drawing { count: None, in_pairs: false });
        }
        let count = call.integer(2)?;
        if count == i64::MIN {
            return Err(Refusal::text(
                "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
            ));
        }
        let in_pairs = match call.count() {
            3 => false,
            4 if call.arguments.is(3, word) => true,
            _ => return Err(Refusal::Syntax),
        };
        if in_pairs && count.unsigned_abs() > i64::MAX as u64 / 2 {
            return Err(Refusal::text("ERR value is out of range"));
        }
        Ok(Drawing { count: Some(count), in_pairs })
    }

    /// The ranks drawn from a collection of `size` elements, which is not empty. Ascending where
    /// none comes twice. Errors: more than may be drawn with repetitions.
    pub fn ranks(self, seed: u64, size: u64) -> Result<Vec<u64>, Refusal> {
        let mut lots = Lots::new(seed);
        let count = self.count.unwrap_or(1);
        let wanted = count.unsigned_abs();
        if count < 0 {
            if wanted > RANDOM_ELEMENTS_MAX {
                return Err(Refusal::text("ERR value is out of range"));
            }
            return Ok((0..wanted).map(|_| lots.below(size)).collect());
        }
        Ok(match wanted {
            wanted if wanted >= size => (0..size).collect(),
            1 => vec![lots.below(size)],
            _ => lots.distinct(wanted, size).into_iter().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_of_one_transaction_have_numbers_of_their_own() {
        let numbers = |nth: u64| {
            let seed = 5u64.wrapping_add(nth.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let mut lots = Lots::new(seed);
            (0..100).map(|_| lots.below(u64::MAX)).collect::<BTreeSet<u64>>()
        };
        assert_eq!(numbers(1).intersection(&numbers(2)).count(), 0);
    }

    #[test]
    fn every_choice_is_as_likely() {
        // 3 of 5 numbers: 10 choices, each expected 1000 times; the standard deviation is 30.
        let mut met = std::collections::BTreeMap::new();
        for seed in 0..10_000 {
            *met.entry(Lots::new(seed).distinct(3, 5)).or_insert(0) += 1;
        }
        assert_eq!(met.len(), 10);
        for (choice, times) in met {
            assert_eq!(choice.len(), 3);
            assert!((850..1150).contains(&times), "{choice:?}: {times}");
        }
    }

    #[test]
    fn all_and_none_may_be_chosen() {
        assert!(Lots::new(1).distinct(0, 0).is_empty());
        assert!(Lots::new(1).distinct(0, u64::MAX).is_empty());
        assert!(Lots::new(1).distinct(100, 100).into_iter().eq(0..100));
    }
}
