//! DUMP payloads of items that come in records, as snapshots have them: large values in pieces.
//!
//! Who makes the pieces does a little at a time, and the value may lose elements meanwhile that
//! were to end by now (fields of hashes). Then places have shifted, and something may be missing:
//! the count at the end tells, and the item is to come again from its start.

use super::{Piece, read_item, write_payload};
use crate::ids::{DatabaseIndex, Deadline};
use crate::keyspace::{Expiry, Key, KeyHasher, Keyspace};

/// The time at which the pieces are put together: nothing has ended yet.
const BEFORE_ALL: i64 = i64::MIN;

/// What a record has made whole.
#[derive(Debug, PartialEq, Eq)]
pub enum Made {
    /// Nothing: more is to come.
    Part,
    /// An item.
    Whole(Payload),
    /// Nothing: the value has changed since its first piece.
    Changed,
}

/// An item for RESTORE.
#[derive(Debug, PartialEq, Eq)]
pub struct Payload {
    /// When it ends.
    pub deadline: Option<Deadline>,
    /// Its value, with version and checksum.
    pub bytes: Vec<u8>,
}

/// Puts one item at a time together. It takes the memory of its value, and of its payload when that
/// is made.
pub struct Payloads {
    keyspace: Keyspace,
    deadline: Option<Deadline>,
    /// How much there is to be in the end, if it comes in pieces.
    total: Option<u64>,
}

impl Payloads {
    /// With nothing.
    pub fn new(hasher: KeyHasher) -> Payloads {
        Payloads { keyspace: Keyspace::new(hasher), deadline: None, total: None }
    }

    /// Takes the next record of an item; `is_last` says that it is whole with it.
    pub fn take(&mut self, mut record: &[u8], is_last: bool) -> Made {
        let Ok(item) = read_item(&mut record) else { return Made::Changed };
        let key = Key::new(&item.key, self.keyspace.hasher().hash(&item.key));
        let mut edit = self.keyspace.edit(DatabaseIndex(0), BEFORE_ALL);
        if item.is_first() {
            edit.remove(&key);
            self.deadline = item.deadline;
            self.total = match item.piece {
                Piece::First(total) => Some(total),
                Piece::Whole | Piece::Next(_) => None,
            };
        }
        if edit.load(&key, item.shape, Expiry::Never, &item.value, item.piece).is_err() {
            return Made::Changed;
        }
        if !is_last {
            return Made::Part;
        }
        let view = edit.view();
        let value = view.peek(&key).expect("just loaded").value();
        let made = match self.total {
            Some(total) if total != value.part_count() => Made::Changed,
            _ => {
                let mut bytes = Vec::new();
                write_payload(&mut bytes, value);
                Made::Whole(Payload { deadline: self.deadline, bytes })
            }
        };
        edit.remove(&key);
        while self.keyspace.free_some(usize::MAX) {}
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::StringForm;
    use crate::rdb::{read_payload, write_item};

    /// Item `key` as records, with a change of its keyspace behind the first.
    fn records(
        keyspace: &mut Keyspace,
        key: &[u8],
        change: impl FnOnce(&mut Keyspace),
    ) -> Vec<Vec<u8>> {
        let (mut from, mut records, mut change) = (Some(0), Vec::new(), Some(change));
        while let Some(at) = from {
            let key = Key::new(key, keyspace.hasher().hash(key));
            let view = keyspace.view(DatabaseIndex(0), 0);
            let mut record = Vec::new();
            let item = view.peek(&key).expect("it is there");
            from = write_item(&mut record, DatabaseIndex(0), item, at);
            records.push(record);
            if let Some(change) = change.take() {
                change(keyspace);
            }
        }
        records
    }

    fn put_together(payloads: &mut Payloads, records: &[Vec<u8>]) -> Made {
        let mut made = Made::Part;
        for (nth, record) in records.iter().enumerate() {
            assert_eq!(made, Made::Part);
            made = payloads.take(record, nth + 1 == records.len());
        }
        made
    }

    const LARGE: &[u8] = b"large";

    /// A keyspace with a large sorted set, a string of 200 KiB and a small string with a deadline.
    fn scene() -> Keyspace {
        let mut keyspace = Keyspace::new(KeyHasher::new(1));
        let hasher = keyspace.hasher();
        let mut edit = keyspace.edit(DatabaseIndex(0), 0);
        let text = vec![b'x'; 200 << 10];
        let key = Key::new(b"text", hasher.hash(b"text"));
        edit.set_string(&key, &text, StringForm::Automatic, Expiry::Never);
        let key = Key::new(b"small", hasher.hash(b"small"));
        edit.set_string(&key, b"v", StringForm::Automatic, Expiry::At(Deadline(99)));
        let key = Key::new(LARGE, hasher.hash(LARGE));
        let mut guard = edit.sorted_set_mut(&key).expect("no other type");
        for n in 0..20_000 {
            guard.set(format!("member:{n}").as_bytes(), f64::from(n));
        }
        drop(guard);
        keyspace
    }

    #[test]
    fn pieces_become_the_payload_of_the_whole() {
        let (mut keyspace, mut payloads) = (scene(), Payloads::new(KeyHasher::new(7)));
        for (key, deadline) in [(LARGE, None), (b"text", None), (b"small", Some(Deadline(99)))] {
            let pieces = records(&mut keyspace, key, |_| {});
            assert_eq!(pieces.len() > 2, key != b"small");
            let key = Key::new(key, keyspace.hasher().hash(key));
            let mut bytes = Vec::new();
            let view = keyspace.view(DatabaseIndex(0), 0);
            write_payload(&mut bytes, view.peek(&key).expect("it is there").value());
            assert!(read_payload(&bytes).is_ok());
            let whole = Made::Whole(Payload { deadline, bytes });
            assert!(put_together(&mut payloads, &pieces) == whole, "another payload");
        }
    }

    #[test]
    fn a_value_that_loses_elements_between_two_pieces_is_told_and_comes_again() {
        let (mut keyspace, mut payloads) = (scene(), Payloads::new(KeyHasher::new(7)));
        let pieces = records(&mut keyspace, LARGE, |keyspace| {
            let key = Key::new(LARGE, keyspace.hasher().hash(LARGE));
            let mut edit = keyspace.edit(DatabaseIndex(0), 0);
            let mut guard = edit.sorted_set_mut(&key).expect("no other type");
            guard.remove(b"member:3");
        });
        assert_eq!(put_together(&mut payloads, &pieces), Made::Changed);
        let pieces = records(&mut keyspace, LARGE, |_| {});
        assert!(matches!(put_together(&mut payloads, &pieces), Made::Whole(_)));
    }
}
