//! Values: whatever is done to a collection, it is what a plain vector or map says, its account is right, and its versions
//! stay as they were. The models are those of the engine's own tests.
//!
//! Input: a byte each for the limits and the type, then bytes that choose changes, versions and looks.

use ringraft_shards::random::Random;
use ringraft_shards::value::model::follow;

/// Checks one input.
pub fn check(data: &[u8]) {
    follow(data);
}

/// Each type under each of the limits, twice.
pub fn seeds() -> Vec<Vec<u8>> {
    const LIMITS: u8 = 3;
    const TYPES: u8 = 5;
    let seed = |n: u8| {
        let mut random = Random::new(n.into());
        let (limits, value_type) = (n % LIMITS, n / LIMITS % TYPES);
        let changes = (0..200).map(|_| random.bits() as u8);
        [limits, value_type].into_iter().chain(changes).collect()
    };
    (0..2 * LIMITS * TYPES).map(seed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringraft_shards::value::ValueType;
    use ringraft_shards::value::model::Reached;

    #[test]
    fn the_seeds_have_large_ones_of_each_type_versions_and_groups() {
        let all: Vec<Reached> = seeds().iter().map(|seed| follow(seed)).collect();
        for number in 1..=5 {
            let value_type = ValueType::from_number(number);
            let of_type = || all.iter().filter(|one| Some(one.value_type) == value_type);
            assert!(of_type().any(|one| one.versions > 0), "{value_type:?}");
            assert!(of_type().any(|one| one.most > 90 && one.forms[1]), "{value_type:?}");
        }
        assert!(all.iter().any(|one| one.groups == 3));
    }
}
