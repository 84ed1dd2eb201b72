//! Digests of what a keyspace holds, independent of the order in which it came there.
//!
//! Each item is hashed to 160 bits, and the hashes are added: equal items, equal digest. Replicas
//! at one index agree, whatever their seeds, their tables' sizes and their access clocks.

use super::item::{Item, RawItem};
use super::lend;
use super::{Keyspace, Value, View};
use crate::ids::DatabaseIndex;
use crate::value::stream::{StreamId, StreamPart};
use crate::value::{Part, ValueType};
use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};
use std::ops::ControlFlow;

/// One independent hash per lane of the digest; fixed for ever, as digests of different builds are
/// compared.
static LANES: [RapidSecrets; 3] = [
    RapidSecrets::seed(0x64696731),
    RapidSecrets::seed(0x64696732),
    RapidSecrets::seed(0x64696733),
];

/// A sum of hashes. All zeros for nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    lanes: [u64; 3],
}

impl Sum {
    fn add(&mut self, fields: &[&[u8]], numbers: [u64; 2]) {
        for (lane, secrets) in self.lanes.iter_mut().zip(&LANES) {
            let mut hash = 0u64;
            for field in fields {
                let words = [hash, rapidhash_v3_seeded(field, secrets), field.len() as u64];
                hash = hash_words(&words, secrets);
            }
            *lane = lane.wrapping_add(hash_words(&[hash, numbers[0], numbers[1]], secrets));
        }
    }

    /// The first 20 of its 24 bytes: as many as DEBUG DIGEST prints.
    fn bytes(self) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes.copy_from_slice(&self.all_bytes()[..20]);
        bytes
    }

    fn all_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        for (to, lane) in bytes.chunks_exact_mut(8).zip(self.lanes) {
            to.copy_from_slice(&lane.to_le_bytes());
        }
        bytes
    }
}

fn hash_words(words: &[u64; 3], secrets: &RapidSecrets) -> u64 {
    let mut bytes = [0; 24];
    for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    rapidhash_v3_seeded(&bytes, secrets)
}

fn deadline_number(item: &Item<'_>) -> u64 {
    // The one time that no deadline has stands for none.
    item.deadline().map_or(i64::MIN, |deadline| deadline.0) as u64
}

/// The sum of the hashes of a collection's elements, those of a list with their places, beside its
/// type. In which order the others lie is no part of it.
fn of_collection(item: &Item<'_>, value: Value<'_>) -> [u8; 24] {
    let mut sum = Sum::default();
    let value_type = item.shape().value_type() as u64;
    let mut place = 0;
    value.visit(0, &mut |part| {
        match part {
            Part::String(one) | Part::Element(one) => {
                sum.add(&[one], [value_type, place]);
                place += 1;
            }
            Part::Member(member) => sum.add(&[member], [value_type, 0]),
            Part::Field(field, value) => sum.add(&[field, value], [value_type, 0]),
            Part::TimedField(field, value, at) => {
                sum.add(&[field, value, &at.to_le_bytes()], [value_type, 0]);
            }
            Part::Scored(member, score) => {
                sum.add(&[member, &score.to_bits().to_le_bytes()], [value_type, 0]);
            }
            Part::Stream(part) => add_stream_part(&mut sum, part),
        }
        ControlFlow::Continue(())
    });
    sum.all_bytes()
}

/// Entries one by one: which block they lie in is no part of it.
fn add_stream_part(sum: &mut Sum, part: StreamPart<'_>) {
    let value_type = ValueType::Stream as u64;
    let id = |id: StreamId| [id.ms.to_le_bytes(), id.sequence.to_le_bytes()].concat();
    let numbers = |kind: u64| [value_type, kind];
    match part {
        StreamPart::Head { last_id, added, max_deleted_id } => {
            sum.add(&[&id(last_id), &added.to_le_bytes(), &id(max_deleted_id)], numbers(1));
        }
        StreamPart::Block(block) => block.entries().for_each(|entry| {
            let id = id(entry.id);
            let pairs = entry.pairs().flat_map(|(name, value)| [name, value]);
            let bytes: Vec<&[u8]> = std::iter::once(&id[..]).chain(pairs).collect();
            sum.add(&bytes, numbers(2));
        }),
        StreamPart::Group { name, last_id, entries_read } => {
            let read = entries_read.unwrap_or(u64::MAX).to_le_bytes();
            sum.add(&[name, &id(last_id), &read], numbers(3));
        }
        StreamPart::Consumer { group, name, seen_ms, active_ms, .. } => {
            let active = active_ms.unwrap_or(-1).to_le_bytes();
            sum.add(&[group, name, &seen_ms.to_le_bytes(), &active], numbers(4));
        }
        StreamPart::Pending { group, pending } => {
            let times = [pending.delivered_ms as u64, pending.count].map(u64::to_le_bytes).concat();
            sum.add(&[group, pending.consumer, &id(pending.id), &times], numbers(5));
        }
    }
}

fn add_database(sum: &mut Sum, keyspace: &Keyspace, database: DatabaseIndex) {
    keyspace.databases[database.0 as usize].each_item(&mut |raw: RawItem| {
        let item = lend::borrow_item(raw);
        let numbers = [deadline_number(&item), u64::from(database.0)];
        match item.value() {
            Value::String(value) => sum.add(&[item.key(), value], numbers),
            value => sum.add(&[item.key(), &of_collection(&item, value)], numbers),
        }
    });
}

impl Keyspace {
    /// Digest of all keys, values and deadlines of one database, expired items that are not deleted
    /// yet included. Cost: reads everything.
    pub fn digest(&self, database: DatabaseIndex) -> [u8; 20] {
        let mut sum = Sum::default();
        add_database(&mut sum, self, database);
        sum.bytes()
    }

    /// Digest of all databases: what clients can see. Digests of shards add up to the digest of the
    /// whole.
    pub fn digest_items(&self) -> [u8; 20] {
        self.sum_of_items().bytes()
    }

    fn sum_of_items(&self) -> Sum {
        let mut sum = Sum::default();
        for database in 0..self.databases.len() {
            add_database(&mut sum, self, DatabaseIndex(database as u8));
        }
        sum
    }

    /// Digest of all databases, of the transactions that are under way, of requests that are
    /// remembered and of the libraries. Digests of shards add up to the digest of the whole.
    pub fn digest_all(&self) -> [u8; 20] {
        let mut sum = self.sum_of_items();
        if !self.ledger.is_empty() {
            sum.add(&[&self.ledger.encode()], [0, u64::MAX]);
        }
        if !self.remembered.is_empty() {
            sum.add(&[&self.remembered.encode()], [2, u64::MAX]);
        }
        if !self.libraries.is_untouched() {
            sum.add(&[&self.libraries.encode()], [1, u64::MAX]);
        }
        sum.bytes()
    }
}

impl View<'_> {
    /// Digest of an item's value and deadline, not of its key (DEBUG DIGEST-VALUE).
    pub fn digest_value(&self, item: &Item<'_>) -> [u8; 20] {
        let mut sum = Sum::default();
        let numbers = [deadline_number(item), 0];
        match item.value() {
            Value::String(value) => sum.add(&[value], numbers),
            value => sum.add(&[&of_collection(item, value)], numbers),
        }
        sum.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Expiry;
    use super::super::model::Bench;
    use super::*;
    use crate::ids::Deadline;

    #[test]
    fn a_digest_tells_contents_apart() {
        let mut bench = Bench::new();
        let mut seen = vec![];
        let mut look = |bench: &Bench| {
            let digest = bench.keyspace.digest_all();
            assert!(!seen.contains(&digest));
            seen.push(digest);
        };
        look(&bench);
        assert_eq!(bench.keyspace.digest_all(), [0; 20]);
        bench.set("ab", "c");
        look(&bench);
        bench.set("a", "bc");
        look(&bench);
        assert!(bench.remove("ab"));
        look(&bench);
        bench.set_until("a", "bc", Expiry::At(Deadline(2_000_000)));
        look(&bench);
        bench.set_until("a", "bc", Expiry::At(Deadline(2_000_001)));
        look(&bench);
        bench.edit().swap(DatabaseIndex(0), DatabaseIndex(1));
        look(&bench);
    }

    #[test]
    fn a_value_digest_does_not_know_the_key() {
        let mut bench = Bench::new();
        for (key, value) in [("a", "1"), ("b", "1"), ("c", "2")] {
            bench.set(key, value);
        }
        let digest = |key| bench.view().digest_value(&bench.get(key).expect("just set"));
        assert_eq!(digest("a"), digest("b"));
        assert_ne!(digest("a"), digest("c"));
    }
}
