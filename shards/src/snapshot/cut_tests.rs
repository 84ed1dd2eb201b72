//! The whole way: a keyspace that changes under a cut, its snapshot, and a keyspace loaded from it.

use super::header::tests::example;
use super::load::{Progress, load};
use super::{Header, SnapshotReader, SnapshotWriter};
use crate::ids::{DatabaseIndex, Deadline};
use crate::keyspace::{Expiry, Key, KeyHasher, Keyspace, StringForm};
use crate::limits::ITEM_PIECE_BYTES;
use proptest::prelude::*;

const NOW_MS: i64 = 1_000_000;

#[derive(Clone, Debug)]
enum Change {
    Set { database: u8, key: u8, length: usize, deadline: Option<i64> },
    Remove { database: u8, key: u8 },
    Clear { database: u8 },
    Step { budget: usize },
}

/// Now and then a string that comes in pieces.
fn length() -> impl Strategy<Value = usize> {
    const PIECE: usize = ITEM_PIECE_BYTES;
    prop_oneof![30 => 0usize..200, 1 => PIECE - 1..PIECE + 2, 1 => 0..5 * PIECE]
}

fn any_change() -> impl Strategy<Value = Change> {
    let database = || prop_oneof![Just(0u8), Just(1), Just(15)];
    let deadline = || prop::option::of(prop_oneof![NOW_MS + 1..NOW_MS * 2, Just(i64::MAX)]);
    prop_oneof![
        8 => (database(), any::<u8>(), length(), deadline())
            .prop_map(|(database, key, length, deadline)| Change::Set { database, key, length, deadline }),
        3 => (database(), any::<u8>()).prop_map(|(database, key)| Change::Remove { database, key }),
        1 => database().prop_map(|database| Change::Clear { database }),
        4 => (1usize..50).prop_map(|budget| Change::Step { budget }),
    ]
}

fn apply(keyspace: &mut Keyspace, change: &Change) {
    let hasher = keyspace.hasher();
    let text = |key: u8| format!("key:{key}");
    match *change {
        Change::Set { database, key, length, deadline } => {
            let (text, value) = (text(key), vec![b'a' + key % 26; length]);
            let key = Key::new(text.as_bytes(), hasher.hash(text.as_bytes()));
            let expiry = deadline.map_or(Expiry::Never, |at| Expiry::At(Deadline(at)));
            let mut edit = keyspace.edit(DatabaseIndex(database), NOW_MS);
            edit.set_string(&key, &value, StringForm::Automatic, expiry);
        }
        Change::Remove { database, key } => {
            let text = text(key);
            let key = Key::new(text.as_bytes(), hasher.hash(text.as_bytes()));
            keyspace.edit(DatabaseIndex(database), NOW_MS).remove(&key);
        }
        Change::Clear { database } => {
            keyspace.edit(DatabaseIndex(database), NOW_MS).clear();
        }
        Change::Step { .. } => {}
    }
}

fn file_of(mut writer: SnapshotWriter, taken: &mut Vec<u8>) -> &[u8] {
    while let Some(chunk) = writer.take_chunk() {
        taken.extend_from_slice(&chunk);
    }
    taken.extend_from_slice(&writer.finish().0);
    taken
}

proptest! {
    #[test]
    fn a_snapshot_is_the_moment_of_its_cut(
        before in prop::collection::vec(any_change(), 0..300),
        during in prop::collection::vec(any_change(), 0..300),
        // Every item with a deadline has expired at the later of these.
        leader_time_ms in prop_oneof![Just(NOW_MS), Just(NOW_MS * 3)],
    ) {
        let mut keyspace = Keyspace::new(KeyHasher::new(1));
        before.iter().for_each(|change| apply(&mut keyspace, change));
        let digest = keyspace.digest_all();
        let counts: Vec<_> = (0..16).map(|n| keyspace.count(DatabaseIndex(n))).collect();

        let mut writer = SnapshotWriter::new(Header { leader_time_ms, ..example() });
        prop_assert!(keyspace.begin_cut());
        for change in &during {
            apply(&mut keyspace, change);
            if let Change::Step { budget } = *change {
                keyspace.cut_step(budget, &mut |database, item, from| {
                    writer.push(database, item, from)
                });
            }
        }
        while !keyspace.cut_step(1000, &mut |database, item, from| {
            writer.push(database, item, from)
        }) {}
        prop_assert_eq!(writer.item_count(), counts.iter().sum::<u64>());

        let mut taken = Vec::new();
        let file = file_of(writer, &mut taken);
        let mut reader = SnapshotReader::open(file, file.len() as u64).expect("just written");
        let mut loaded = Keyspace::new(KeyHasher::new(2));
        let mut told = Progress::default();
        let progress = load(&mut reader, &mut loaded, &mut |progress| told = progress);
        let size = file.len() as u64;
        let items = counts.iter().sum();
        prop_assert_eq!(told, Progress { items, bytes: size, size });
        prop_assert_eq!(progress.expect("just written"), told);
        prop_assert_eq!(loaded.digest_all(), digest);
        let loaded: Vec<_> = (0..16).map(|n| loaded.count(DatabaseIndex(n))).collect();
        prop_assert_eq!(loaded, counts);
    }
}
