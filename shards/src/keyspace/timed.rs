//! Which keys of a database hold hashes with fields that end, and when the first of them does.
//!
//! Kept where items go in and out of tables, so that it is exact; it is no part of the state, for
//! it follows from the items. A database without such hashes has none of it but two empty maps.

use super::item::RawItem;
use super::lend;
use super::{Edit, Key, Keyspace, Value};
use crate::ids::DatabaseIndex;
use crate::value::body::Stored;
use std::collections::{BTreeSet, HashMap};

/// Keys of hashes with fields that end.
#[derive(Debug, Default)]
pub(super) struct TimedKeys {
    firsts: HashMap<Box<[u8]>, i64>,
    order: BTreeSet<(i64, Box<[u8]>)>,
}

impl TimedKeys {
    /// An item is in the table under its key, or is taken out.
    /// Cost: two comparisons for what has no trees while no hash has fields that end.
    #[inline(always)]
    pub(super) fn note(&mut self, item: RawItem, is_there: bool) {
        if item.has_body() || !self.firsts.is_empty() {
            self.note_some(item, is_there);
        }
    }

    #[cold]
    fn note_some(&mut self, item: RawItem, is_there: bool) {
        let item = lend::borrow_item(item);
        let first = match item.stored() {
            Stored::Tree(body) if is_there => body.first_deadline(),
            _ => None,
        };
        let before = self.firsts.get(item.key()).copied();
        if before == first {
            return;
        }
        if let Some((key, before)) = before.and_then(|_| self.firsts.remove_entry(item.key())) {
            self.order.remove(&(before, key));
        }
        if let Some(first) = first {
            self.firsts.insert(item.key().into(), first);
            self.order.insert((first, item.key().into()));
        }
    }
}

impl Keyspace {
    /// Reports up to so many hashes that have fields past their deadline, those with the earliest
    /// first, and how many such fields each has.
    pub fn collect_ended_fields(
        &self,
        now_ms: i64,
        count: usize,
        found: &mut dyn FnMut(DatabaseIndex, &[u8], u64),
    ) {
        let databases = self.databases.iter().enumerate();
        let ended = databases.flat_map(|(database, tables)| {
            let keys = tables.timed.order.iter().take_while(|(first, _)| *first <= now_ms);
            keys.map(move |(_, key)| (DatabaseIndex(database as u8), &**key))
        });
        for (database, key) in ended.take(count) {
            let item = self.view(database, now_ms).peek(&Key::new(key, self.hasher.hash(key)));
            // What has ended as a whole goes as a whole.
            if let Some(Value::Hash(hash)) = item.map(|item| item.value()) {
                found(database, key, hash.count() - hash.seen_at(now_ms).shown_count());
            }
        }
    }
}

impl Edit<'_> {
    /// Takes out up to so many fields of a hash that have ended. How many were they?
    pub fn remove_ended_fields(&mut self, key: &Key<'_>, count: usize) -> usize {
        self.hash_mut(key).map_or(0, |mut hash| hash.remove_ended(count))
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::Bench;
    use super::*;
    use crate::keyspace::Expiry;
    use crate::rdb::{read_payload, write_payload};

    const OTHER: DatabaseIndex = DatabaseIndex(1);

    /// What has ended at a time, as `database key count`.
    fn ended(bench: &Bench, now_ms: i64) -> Vec<String> {
        let mut found = Vec::new();
        bench.keyspace.collect_ended_fields(now_ms, 100, &mut |database, key, count| {
            found.push(format!("{} {} {count}", database.0, String::from_utf8_lossy(key)));
        });
        found.sort();
        found
    }

    #[test]
    fn hashes_are_known_wherever_they_go() {
        let mut bench = Bench::new();
        let start = bench.now_ms;
        let key = |bench: &Bench, name: &'static str| Key::new(name.as_bytes(), bench.hash(name));
        let (a, b, c) = (key(&bench, "a"), key(&bench, "b"), key(&bench, "c"));
        let mut edit = bench.edit();
        let mut hash = edit.hash_mut(&a).expect("a hash or nothing");
        for n in 0..1000 {
            hash.set(format!("field {n}").as_bytes(), b"v");
        }
        hash.set_deadline(b"field 7", start + 10);
        hash.set_deadline(b"field 8", start + 20);
        drop(hash);
        assert_eq!(ended(&bench, start + 9), [""; 0]);
        assert_eq!(ended(&bench, start + 10), ["0 a 1"]);
        assert_eq!(ended(&bench, start + 20), ["0 a 2"]);
        assert!(bench.edit().copy(&a, OTHER, &b));
        assert!(bench.edit().rename(&a, DatabaseIndex(0), &c));
        assert_eq!(ended(&bench, start + 20), ["0 c 2", "1 b 2"]);
        bench.edit().swap(DatabaseIndex(0), OTHER);
        assert_eq!(ended(&bench, start + 20), ["0 b 2", "1 c 2"]);
        // A payload and back.
        let mut payload = Vec::new();
        write_payload(&mut payload, bench.view().peek(&b).expect("it is there").value());
        let value = read_payload(&payload).expect("just written");
        bench.edit().restore(&a, &value, Expiry::Never).expect("no duplicates");
        assert_eq!(ended(&bench, start + 10), ["0 a 1", "0 b 1", "1 c 1"]);
        let digest = |key| bench.view().digest_value(&bench.view().peek(key).expect("there"));
        assert_eq!(digest(&a), digest(&b));
        // Whatever takes their place.
        bench.set("b", "string");
        assert!(bench.remove("a"));
        assert_eq!(ended(&bench, start + 20), ["1 c 2"]);
        // Setting a field anew takes its deadline away.
        let mut edit = bench.edit();
        let mut other = edit.of_database(OTHER);
        other.hash_mut(&c).expect("a hash").set(b"field 7", b"new");
        assert_eq!(ended(&bench, start + 19), [""; 0]);
        bench.now_ms += 20;
        let mut edit = bench.edit();
        let mut other = edit.of_database(OTHER);
        assert_eq!(other.remove_ended_fields(&c, 100), 1);
        let hash = other.hash_mut(&c).expect("a hash");
        assert_eq!((hash.count(), hash.hash().is_timed()), (999, false));
        drop(hash);
        assert_eq!(ended(&bench, i64::MAX), [""; 0]);
    }

    #[test]
    fn the_last_fields_take_the_key_along() {
        let mut bench = Bench::new();
        let (key, start) = (Key::new(b"k", bench.hash("k")), bench.now_ms);
        let mut edit = bench.edit();
        let mut hash = edit.hash_mut(&key).expect("nothing");
        hash.set(b"f", b"v");
        hash.set_deadline(b"f", start + 30);
        assert_eq!((hash.hash().get(b"f"), hash.hash().shown_count()), (Some(&b"v"[..]), 1));
        drop(hash);
        bench.now_ms += 30;
        let mut edit = bench.edit();
        let hash = edit.hash_mut(&key).expect("a hash");
        assert_eq!((hash.hash().get(b"f"), hash.hash().shown_count()), (None, 0));
        drop(hash);
        assert_eq!(edit.remove_ended_fields(&key, 1), 1);
        assert!(edit.view().peek(&key).is_none());
        assert_eq!(bench.keyspace.digest_all(), [0; 20]);
    }

    #[test]
    fn fields_that_have_ended_do_not_come_back_with_the_time() {
        let mut bench = Bench::new();
        let (key, start) = (Key::new(b"k", bench.hash("k")), bench.now_ms);
        let mut edit = bench.edit();
        let mut hash = edit.hash_mut(&key).expect("nothing");
        for n in 0..300 {
            hash.set(format!("{n}").as_bytes(), b"v");
            hash.set_deadline(format!("{n}").as_bytes(), start + n);
        }
        drop(hash);
        bench.now_ms += 200;
        bench.edit().turn_back(start - 500);
        bench.now_ms = start - 500;
        assert_eq!(bench.edit().hash_mut(&key).expect("a hash").count(), 99);
    }
}
