//! Hashes beside maps, while time passes.

use super::super::hash::{Hash, HashMut};
use super::super::pack::record_bytes;
use super::{Alone, Chance, Modelled, Place, Tendency, Value, check_account};
use crate::value::{Limits, ValueType};
use std::collections::BTreeMap;

/// A field's value, and when it ends.
type Field = (Vec<u8>, Option<i64>);

/// Fields by name, those included that have ended and are still there.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields {
    all: BTreeMap<Vec<u8>, Field>,
    now_ms: i64,
}

impl Fields {
    fn has_ended(&self, field: &[u8]) -> bool {
        self.all.get(field).is_some_and(|(_, ends)| ends.is_some_and(|at| at <= self.now_ms))
    }

    fn shown(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let shown = self.all.iter().filter(|(_, (_, ends))| ends.is_none_or(|at| at > self.now_ms));
        shown.map(|(field, (value, _))| (&field[..], &value[..]))
    }

    /// Takes out up to so many that have ended, the earliest first. Returns how many.
    fn remove_ended(&mut self, count: usize) -> usize {
        let ends = |(field, (_, ends)): (&Vec<u8>, &Field)| ends.map(|at| (at, field.clone()));
        let mut ended: Vec<_> = self.all.iter().filter_map(ends).collect();
        ended.retain(|(at, _)| *at <= self.now_ms);
        ended.sort_unstable();
        ended.truncate(count);
        ended.iter().for_each(|(_, field)| drop(self.all.remove(field)));
        ended.len()
    }
}

/// A hash beside a map.
pub(super) struct Hashes {
    place: Alone,
    model: Fields,
}

impl Hashes {
    fn hash(&self) -> Hash<'_> {
        Hash::new(self.place.stored()).seen_at(self.model.now_ms)
    }

    fn change_deadlines(&mut self, chance: &mut Chance<'_>, field: &[u8]) {
        let (now_ms, model) = (self.model.now_ms, &mut self.model);
        let mut hash = HashMut::new(&mut self.place).at_time(now_ms);
        match chance.below(6) {
            0 => model.now_ms += chance.below(40) as i64,
            1 => {
                let count = chance.below(20) as usize;
                assert_eq!(hash.remove_ended(count), model.remove_ended(count));
            }
            2 => {
                let ends = model.all.get_mut(field).and_then(|(_, ends)| ends.take());
                assert_eq!(hash.persist(field), ends.is_some());
            }
            _ => {
                if let Some((_, ends)) = model.all.get_mut(field) {
                    let at = now_ms + chance.below(200) as i64;
                    hash.set_deadline(field, at);
                    *ends = Some(at);
                }
            }
        }
    }
}

impl Modelled for Hashes {
    const TYPE: ValueType = ValueType::Hash;
    type Model = Fields;

    fn new(limits: Limits) -> Hashes {
        Hashes { place: Alone::new(limits), model: Fields::default() }
    }

    fn change(&mut self, chance: &mut Chance<'_>, tendency: Tendency) {
        let (field, value) = (chance.element(3000), chance.element(500));
        if chance.below(16) == 0 {
            return self.change_deadlines(chance, &field);
        }
        let had_ended = self.model.has_ended(&field);
        let (now_ms, fields) = (self.model.now_ms, &mut self.model.all);
        let mut hash = HashMut::new(&mut self.place).at_time(now_ms);
        if !tendency.adds(chance) {
            let was_there = fields.remove(&field).is_some();
            assert_eq!(hash.remove(&field), was_there && !had_ended);
        } else if chance.below(4) == 0 {
            assert_eq!(hash.set_keeping(&field, &value), !fields.contains_key(&field));
            fields.entry(field).or_default().0 = value;
        } else {
            assert_eq!(hash.set(&field, &value), !fields.contains_key(&field) || had_ended);
            fields.insert(field, (value, None));
        }
    }

    fn glance(&self, chance: &mut Chance<'_>) {
        let (hash, model) = (self.hash(), &self.model);
        assert_eq!(hash.count(), model.all.len() as u64);
        let field = chance.element(3000);
        let found = model.all.get(&field);
        let shown = found.filter(|_| !model.has_ended(&field));
        assert_eq!(hash.get(&field), shown.map(|(value, _)| &value[..]));
        assert_eq!(hash.deadline(&field), found.and_then(|(_, ends)| *ends));
    }

    fn model(&self) -> &Fields {
        &self.model
    }

    fn value(&self) -> Value<'_> {
        Value::Hash(self.hash())
    }

    fn place(self) -> Alone {
        self.place
    }

    fn check(value: Value<'_>, model: &Fields, chance: &mut Chance<'_>) {
        let Value::Hash(hash) = value else { unreachable!("it is a hash") };
        let (count, shown) = (model.all.len() as u64, model.shown().count() as u64);
        assert_eq!((hash.count(), hash.shown_count()), (count, shown));
        assert_eq!(hash.hides_any(), shown < count);
        for (field, (value, ends)) in &model.all {
            assert_eq!(hash.deadline(field), *ends);
            assert_eq!(hash.get(field), (!model.has_ended(field)).then_some(&value[..]));
        }
        let all: Vec<_> = (0..).map_while(|rank| hash.at(rank)).collect();
        assert_eq!(all.len() as u64, count);
        let rank = chance.below(count + 1);
        let rest = all[rank as usize..].iter().filter(|(field, _)| !model.has_ended(field));
        assert!(hash.fields_from(rank).eq(rest.copied()));
        let sorted = |mut fields: Vec<(&[u8], &[u8])>| {
            fields.sort_unstable();
            assert!(fields.into_iter().eq(model.shown()));
        };
        sorted(hash.fields_from(0).collect());
        let (mut met, mut cursor) = (Vec::new(), 0);
        loop {
            cursor = hash.scan(cursor, 100, &mut |field, value| met.push((field, value)));
            if cursor == 0 {
                break;
            }
        }
        sorted(met);
        Hashes::check_bytes(hash, model);
    }
}

impl Hashes {
    fn check_bytes(hash: Hash<'_>, model: &Fields) {
        let fields = model.all.iter().map(|(field, (value, _))| record_bytes(&[field, value]));
        let timed = model.all.iter().filter(|(_, (_, ends))| ends.is_some());
        let deadlines: usize = timed.map(|(field, _)| record_bytes(&[field, &[0; 8]])).sum();
        assert_eq!(hash.is_timed(), deadlines > 0);
        check_account(hash.stored, &[fields.sum(), deadlines, deadlines]);
    }
}
