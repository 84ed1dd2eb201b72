//! When fields of a hash end: for each field that has a deadline a record in the order of
//! deadlines, and one in the order of hashes. Only a large hash has any; a small one becomes large
//! with its first. Without, nothing of this is there.

use super::pack::Record;
use super::tree::Tree;
use crate::keyspace::KeyHasher;

/// Fields and their deadlines, milliseconds since the Unix epoch, not below 0.
#[derive(Clone, Debug, Default)]
pub(super) struct Deadlines {
    /// By deadline, and then by the fields' bytes.
    order: Tree<2>,
    /// By the fields' hashes.
    index: Tree<2>,
}

fn at_of(record: &Record<'_, 2>) -> i64 {
    i64::from_le_bytes(record[1].try_into().expect("a deadline has eight bytes"))
}

fn number(record: &Record<'_, 2>) -> u64 {
    at_of(record) as u64
}

impl Deadlines {
    /// Has no field a deadline?
    pub(super) fn is_empty(&self) -> bool {
        self.order.count() == 0
    }

    /// The earliest deadline.
    pub(super) fn first(&self) -> Option<i64> {
        self.order.get(0).map(|record| at_of(&record))
    }

    /// How many have ended.
    pub(super) fn ended_count(&self, now_ms: i64) -> u64 {
        match self.first() {
            Some(first) if first <= now_ms => {
                self.order.partition_point(&|record| at_of(record) <= now_ms)
            }
            _ => 0,
        }
    }

    /// Up to so many of those that have ended, the earliest first.
    pub(super) fn ended(&self, now_ms: i64, count: usize) -> Vec<Vec<u8>> {
        let records = self.order.records_from(0);
        let ended = records.take_while(|record| at_of(record) <= now_ms).take(count);
        ended.map(|record| record[0].to_vec()).collect()
    }

    /// The deadline of a field.
    pub(super) fn get(&self, hasher: KeyHasher, field: &[u8]) -> Option<i64> {
        let rank = self.find(hasher, field).ok()?;
        self.index.get(rank).map(|record| at_of(&record))
    }

    /// Gives a field a deadline.
    pub(super) fn set(&mut self, hasher: KeyHasher, field: &[u8], at: i64) {
        debug_assert!(at >= 0);
        self.remove(hasher, field);
        let bytes = at.to_le_bytes();
        let record = [field, &bytes];
        let (Ok(rank) | Err(rank)) = self.find(hasher, field);
        self.index.insert(rank, &record, &|record| hasher.place(record[0]));
        let (Ok(rank) | Err(rank)) = self.find_in_order(field, at);
        self.order.insert(rank, &record, &number);
    }

    /// Takes a field's deadline away. Returns it.
    pub(super) fn remove(&mut self, hasher: KeyHasher, field: &[u8]) -> Option<i64> {
        let rank = self.find(hasher, field).ok()?;
        let at = self.index.get(rank).map(|record| at_of(&record))?;
        self.index.remove(rank);
        let rank = self.find_in_order(field, at).expect("every deadline is in both trees");
        self.order.remove(rank);
        Some(at)
    }

    /// Bytes of memory that they take.
    pub(super) fn bytes(&self) -> usize {
        self.order.bytes() + self.index.bytes()
    }

    /// Drops up to so many leaves. Are there more?
    pub(super) fn shed(&mut self, leaf_count: usize) -> bool {
        match self.order.count() {
            0 => self.index.shed(leaf_count),
            _ => {
                self.order.shed(leaf_count);
                true
            }
        }
    }

    fn find(&self, hasher: KeyHasher, field: &[u8]) -> Result<u64, u64> {
        let hash = hasher.place(field);
        self.index.rank_of(field, hash, &|record| hasher.place(record[0]))
    }

    fn find_in_order(&self, field: &[u8], at: i64) -> Result<u64, u64> {
        self.order.search(at as u64, &|record| (at_of(record), record[0]).cmp(&(at, field)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn deadlines_are_those_of_a_map() {
        let hasher = KeyHasher::new(3);
        let (mut deadlines, mut model) = (Deadlines::default(), BTreeMap::new());
        let mut state = 11u64;
        let mut below = |end: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % end
        };
        for _ in 0..if cfg!(miri) { 300 } else { 20_000 } {
            let field = format!("field {}", below(400)).into_bytes();
            let now = below(1000) as i64;
            match below(4) {
                0 => assert_eq!(deadlines.remove(hasher, &field), model.remove(&field)),
                1 => {
                    for field in deadlines.ended(now / 20, 3) {
                        assert!(model.get(&field).is_some_and(|at| *at <= now / 20));
                        assert_eq!(deadlines.remove(hasher, &field), model.remove(&field));
                    }
                }
                _ => {
                    deadlines.set(hasher, &field, now);
                    model.insert(field.clone(), now);
                }
            }
            assert_eq!(deadlines.get(hasher, &field), model.get(&field).copied());
            assert_eq!(deadlines.first(), model.values().min().copied());
            let ended = model.values().filter(|at| **at <= now).count() as u64;
            assert_eq!(deadlines.ended_count(now), ended);
            assert_eq!(deadlines.is_empty(), model.is_empty());
        }
        while deadlines.shed(1) {}
    }
}
