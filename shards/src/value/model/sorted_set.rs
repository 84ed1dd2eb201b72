//! Sorted sets beside maps.

use super::super::pack::record_bytes;
use super::super::score::Score;
use super::super::scored::ENTRY_BYTES;
use super::super::sorted_set::{SortedSet, SortedSetMut};
use super::{Alone, BODY_BYTES, Chance, Modelled, Place, Tendency, Value};
use crate::value::body::Stored;
use crate::value::{Limits, ValueType};
use std::collections::BTreeMap;

const SCORES: [f64; 8] = [0.0, -0.0, 1.0, -1.5, f64::INFINITY, f64::NEG_INFINITY, 5e-324, 1.7e308];

type Scores = BTreeMap<Vec<u8>, f64>;

/// A sorted set beside a map.
pub(super) struct SortedSets {
    place: Alone,
    model: Scores,
}

/// By score, and then by the members' bytes.
fn sorted(model: &Scores) -> Vec<(&[u8], f64)> {
    let mut all: Vec<_> = model.iter().map(|(member, score)| (&member[..], *score)).collect();
    all.sort_by(|a, b| a.1.partial_cmp(&b.1).expect("numbers").then(a.0.cmp(b.0)));
    all
}

impl SortedSets {
    fn sorted_set(&self) -> SortedSet<'_> {
        SortedSet::new(self.place.stored())
    }

    /// Takes out a range of ranks, which may be a long one, or sweeps what another one has left.
    fn cut(&mut self, chance: &mut Chance<'_>) {
        if chance.below(3) == 0 {
            if let Stored::Tree(_) = self.place.stored() {
                self.place.body_mut().sweep(chance.below(4) as usize);
            }
            return;
        }
        let all = self.model.len() as u64;
        let most = if chance.below(3) == 0 { all + 1 } else { 100 };
        let (rank, count) = (chance.below(all), chance.below(most));
        let gone = self.sorted_set().members_from(rank).take(count as usize);
        let gone: Vec<Vec<u8>> = gone.map(|(member, _)| member.to_vec()).collect();
        SortedSetMut::new(&mut self.place).remove_at(rank, count);
        assert!(gone.iter().all(|member| self.model.remove(member).is_some()));
    }
}

/// Of a large one, each member's place is known.
pub(super) fn check_places(set: SortedSet<'_>) {
    if let Stored::Tree(body) = set.stored {
        body.scored().check(&body.hasher);
    }
}

impl Modelled for SortedSets {
    const TYPE: ValueType = ValueType::SortedSet;
    type Model = Scores;

    fn new(limits: Limits) -> SortedSets {
        SortedSets { place: Alone::new(limits), model: Scores::new() }
    }

    fn change(&mut self, chance: &mut Chance<'_>, tendency: Tendency) {
        let member = chance.element(3000);
        let score = match chance.below(4) {
            0 => SCORES[chance.below(8) as usize],
            1 => chance.below(1000) as f64 / 7.0,
            _ => chance.below(100) as f64,
        };
        if tendency.adds(chance) {
            let before = self.model.insert(member.clone(), score).map(f64::to_bits);
            let mut set = SortedSetMut::new(&mut self.place);
            assert_eq!(set.set(&member, score).map(f64::to_bits), before);
        } else if chance.below(30) == 0 && !self.model.is_empty() {
            self.cut(chance);
        } else {
            let gone = self.model.remove(&member).map(f64::to_bits);
            let mut set = SortedSetMut::new(&mut self.place);
            assert_eq!(set.remove(&member).map(f64::to_bits), gone);
        }
    }

    fn glance(&self, chance: &mut Chance<'_>) {
        assert_eq!(self.sorted_set().count(), self.model.len() as u64);
        let member = chance.element(3000);
        assert_eq!(self.sorted_set().score(&member), self.model.get(&member).copied());
    }

    fn model(&self) -> &Scores {
        &self.model
    }

    fn value(&self) -> Value<'_> {
        Value::SortedSet(self.sorted_set())
    }

    fn place(self) -> Alone {
        self.place
    }

    fn check(value: Value<'_>, model: &Scores, chance: &mut Chance<'_>) {
        let Value::SortedSet(set) = value else { unreachable!("it is a sorted set") };
        let all = sorted(model);
        assert_eq!(set.count(), all.len() as u64);
        assert!(set.members_from(0).eq(all.iter().copied()));
        assert!(set.members_back_from(u64::MAX).eq(all.iter().rev().copied()));
        let rank = chance.below(all.len() as u64 + 1);
        assert!(set.members_from(rank).eq(all[rank as usize..].iter().copied()));
        let below = all.iter().filter(|(_, score)| *score < 50.0).count() as u64;
        assert_eq!(set.partition_point(|_, score| score < 50.0), below);
        assert_eq!(set.partition_point_at(50.0, |_, score| score < 50.0), below);
        for (rank, (member, score)) in all.iter().enumerate() {
            assert_eq!(set.score(member).map(f64::to_bits), Some(score.to_bits()));
            if rank % 37 == 0 {
                assert_eq!(set.rank(member), Some((rank as u64, *score)));
                assert_eq!(set.at(rank as u64), Some((*member, *score)));
            }
        }
        let (mut met, mut count, mut cursor) = (Scores::new(), 0, 0);
        loop {
            cursor = set.scan(cursor, 100, &mut |member, score| {
                met.insert(member.to_vec(), score);
                count += 1;
            });
            if cursor == 0 {
                break;
            }
        }
        assert!(met == *model && count == model.len(), "a scan meets each once");
        let record =
            |(member, score): (&Vec<u8>, &f64)| record_bytes(&[member, Score::new(*score).bytes()]);
        let bytes: usize = model.iter().map(record).sum();
        check_places(set);
        if let Stored::Tree(body) = set.stored {
            let index = ENTRY_BYTES as usize * model.len();
            assert_eq!(body.bytes(), BODY_BYTES + bytes + bytes / 16 + index);
        }
    }
}
