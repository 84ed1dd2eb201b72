//! Chance for commands: numbers drawn from the seed of a call, the same on every replica.

use std::collections::BTreeSet;

/// Numbers that follow from a seed (splitmix64). Seeds that lie close together give unlike numbers.
#[derive(Clone, Debug)]
pub struct Lots {
    state: u64,
}

impl Lots {
    /// The numbers of a call's seed.
    pub fn new(seed: u64) -> Lots {
        Lots { state: seed }
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

    /// So many numbers below `end`, no two the same, ascending; every choice of them is as likely as another.
    /// `count` is at most `end`. Cost: O(count log count), whatever `end` is.
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

#[cfg(test)]
mod tests {
    use super::*;

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
