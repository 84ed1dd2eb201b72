//! Sets beside sets.

use super::super::kept::keep;
use super::super::pack::record_bytes;
use super::super::set::{Set, SetMut};
use super::{Alone, Chance, Modelled, Place, Tendency, Value, check_account};
use crate::value::{Limits, ValueType};
use std::collections::BTreeSet;

/// A set beside one of the standard library's.
pub(super) struct Sets {
    place: Alone,
    model: BTreeSet<Vec<u8>>,
    /// Is nothing but integers added for now?
    integers_alone: bool,
}

impl Sets {
    fn set(&self) -> Set<'_> {
        Set::new(self.place.stored())
    }

    fn member(&mut self, chance: &mut Chance<'_>) -> Vec<u8> {
        if self.integers_alone {
            self.integers_alone = chance.below(256) != 1;
        } else if self.model.is_empty() {
            self.integers_alone = chance.below(2) == 0;
        }
        match self.integers_alone {
            true => (chance.below(100_000) as i64 - 50_000).pow(3).to_string().into_bytes(),
            false => chance.element(3000),
        }
    }
}

impl Modelled for Sets {
    const TYPE: ValueType = ValueType::Set;
    type Model = BTreeSet<Vec<u8>>;

    fn new(limits: Limits) -> Sets {
        Sets { place: Alone::new(limits), model: BTreeSet::new(), integers_alone: true }
    }

    fn change(&mut self, chance: &mut Chance<'_>, tendency: Tendency) {
        let member = self.member(chance);
        let (mut set, model) = (SetMut::new(&mut self.place), &mut self.model);
        if tendency.adds(chance) {
            assert_eq!(set.add(&member), model.insert(member));
        } else if chance.below(4) == 0 && !model.is_empty() {
            let rank = chance.below(model.len() as u64);
            let count = match chance.below(20) {
                0 => chance.below(model.len() as u64 + 1),
                1 => chance.below(60),
                _ => 1,
            };
            for member in set.set().members_from(rank).take(count as usize) {
                assert!(model.remove(&*member));
            }
            set.remove_at(rank, count);
        } else {
            assert_eq!(set.remove(&member), model.remove(&member));
        }
    }

    fn glance(&self, chance: &mut Chance<'_>) {
        assert_eq!(self.set().count(), self.model.len() as u64);
        let member = chance.element(3000);
        assert_eq!(self.set().contains(&member), self.model.contains(&member));
    }

    fn model(&self) -> &BTreeSet<Vec<u8>> {
        &self.model
    }

    fn value(&self) -> Value<'_> {
        Value::Set(self.set())
    }

    fn place(self) -> Alone {
        self.place
    }

    fn check(value: Value<'_>, model: &BTreeSet<Vec<u8>>, chance: &mut Chance<'_>) {
        let Value::Set(set) = value else { unreachable!("it is a set") };
        assert_eq!(set.count(), model.len() as u64);
        let in_order: Vec<Vec<u8>> =
            set.members_from(0).map(|member| member.into_owned()).collect();
        let rank = chance.below(model.len() as u64 + 1) as usize;
        assert_eq!(set.at(rank as u64).as_deref(), in_order.get(rank).map(|member| &member[..]));
        assert!(
            set.members_from(rank as u64).eq(in_order[rank..].iter().map(|member| &member[..]))
        );
        assert!(model.iter().all(|member| set.contains(member)));
        assert!(in_order.into_iter().collect::<BTreeSet<_>>() == *model);
        let (mut met, mut cursor) = (Vec::new(), 0);
        loop {
            cursor = set.scan(cursor, 100, &mut |member| met.push(member.to_vec()));
            if cursor == 0 {
                break;
            }
        }
        met.sort_unstable();
        assert!(met.iter().eq(model), "a scan meets each once");
        check_account(
            set.stored,
            &[model.iter().map(|member| record_bytes(&[&*keep(member)])).sum()],
        );
    }
}
