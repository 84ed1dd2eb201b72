//! Tests of whole files: round trips, every byte flipped, every length cut.

use std::borrow::Cow;
use std::path::Path;

use proptest::prelude::*;

use super::directory::{META_FILE, SnapshotName};
use super::footer::{ChunkHeader, Footer};
use super::header::tests::example;
use super::*;
use crate::ids::{ClusterId, DatabaseIndex, Deadline, Index, NodeId, ShardId, Term};
use crate::keyspace::{Shape, StringForm};
use crate::limits::{DATABASE_COUNT, SNAPSHOT_CHUNK_BYTES, SNAPSHOT_KEPT_COUNT};
use crate::rdb::{EncodedValue, ItemRecord, Piece};

pub(super) type Record = ItemRecord<'static>;

pub(super) fn record(database: u8, key: &str, value: &str, deadline: Option<i64>) -> Record {
    ItemRecord {
        database: DatabaseIndex(database),
        deadline: deadline.map(Deadline),
        shape: Shape::String(StringForm::Automatic),
        piece: Piece::Whole,
        key: Cow::Owned(key.as_bytes().to_vec()),
        value: EncodedValue::of_string(value.as_bytes()),
    }
}

/// The file of these items, and its meta.
pub(super) fn write(header: Header, items: &[Record]) -> (Vec<u8>, Meta) {
    let mut writer = SnapshotWriter::new(header);
    let mut file = Vec::new();
    for item in items {
        writer.push_record(item);
        while let Some(chunk) = writer.take_chunk() {
            file.extend_from_slice(&chunk);
        }
        assert_eq!(writer.ready_bytes(), 0);
        assert_eq!(writer.file_size(), file.len() as u64);
    }
    let (last, meta) = writer.finish();
    file.extend_from_slice(&last);
    assert_eq!(meta.size, file.len() as u64);
    (file, meta)
}

fn read(file: &[u8]) -> Result<(Header, Vec<Record>), ReadError> {
    let mut reader = SnapshotReader::open(file, file.len() as u64)?;
    let mut items = Vec::new();
    while let Some(mut chunk) = reader.read_chunk()? {
        while let Some(item) = chunk.next_item()? {
            items.push(item.into_owned());
        }
    }
    Ok((reader.header().clone(), items))
}

/// A complete snapshot of these items at an index.
pub(super) fn publish(directory: &SnapshotDirectory, index: u64, items: &[Record]) -> SnapshotName {
    let header = Header {
        cluster: directory.cluster(),
        shard: directory.shard(),
        index: Index(index),
        ..example()
    };
    let name = SnapshotName { term: header.term, index: header.index };
    let (file, meta) = write(header, items);
    let pending = directory.begin(name).expect("a new name");
    std::fs::write(pending.state_path(), &file).expect("a writable directory");
    pending.publish(&meta).expect("complete");
    name
}

pub(super) fn open_directory(data: &Path) -> SnapshotDirectory {
    SnapshotDirectory::open(data, ClusterId(7), ShardId(3)).expect("a writable directory")
}

fn three_items() -> Vec<Record> {
    vec![
        record(0, "key", "value", None),
        record(0, "counter", "12345", Some(1_700_000_000_000)),
        record(15, "", "", Some(-1)),
    ]
}

fn any_record() -> impl Strategy<Value = Record> {
    let form =
        prop_oneof![Just(StringForm::Automatic), Just(StringForm::Text), Just(StringForm::Raw)];
    let bytes = || {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..80),
            "[0-9]{1,12}".prop_map(String::into_bytes)
        ]
    };
    (0..DATABASE_COUNT as u8, any::<Option<i64>>(), form, bytes(), bytes()).prop_map(
        |(database, deadline, form, key, value)| ItemRecord {
            database: DatabaseIndex(database),
            deadline: deadline.map(Deadline),
            shape: Shape::String(form),
            piece: Piece::Whole,
            key: Cow::Owned(key),
            value: EncodedValue::of_string(&value),
        },
    )
}

#[test]
fn a_file_without_items_is_a_snapshot() {
    let (file, meta) = write(example(), &[]);
    assert_eq!(read(&file).expect("good"), (example(), vec![]));
    assert_eq!((meta.items, meta.size), (0, file.len() as u64));
}

#[test]
fn chunks_are_bounded_and_big_items_pass() {
    let big = "x".repeat(1 << 20);
    let mut items: Vec<_> = (0..20_000)
        .map(|i| record(0, &format!("key:{i}"), "some value of 40 bytes, more or less", None))
        .collect();
    items.push(record(1, &big, &big, Some(1)));
    items.push(record(2, "after", "it", None));
    let mut writer = SnapshotWriter::new(example());
    let mut sizes = Vec::new();
    for item in &items {
        writer.push_record(item);
        sizes.extend(std::iter::from_fn(|| writer.take_chunk()).map(|chunk| chunk.len()));
    }
    let huge = sizes.iter().filter(|&&size| size > SNAPSHOT_CHUNK_BYTES + ChunkHeader::BYTES + 100);
    assert_eq!(huge.count(), 1, "{sizes:?}");
    assert!(sizes.len() > 4, "{sizes:?}");
    let (file, _) = write(example(), &items);
    assert_eq!(read(&file).expect("good").1, items);
}

#[test]
fn what_is_not_taken_comes_with_the_end() {
    let items: Vec<_> =
        (0..50_000).map(|i| record(0, &format!("key:{i}"), "value", None)).collect();
    let mut writer = SnapshotWriter::new(example());
    items.iter().for_each(|item| writer.push_record(item));
    let mut file = writer.take_chunk().expect("the header is ready");
    file.extend_from_slice(&writer.finish().0);
    assert_eq!(read(&file).expect("good").1, items);
}

#[test]
fn every_flip_is_detected() {
    let (file, _) = write(example(), &three_items());
    for i in 0..file.len() {
        for bit in 0..8 {
            let mut flipped = file.clone();
            flipped[i] ^= 1 << bit;
            let error = read(&flipped).expect_err("a flipped bit");
            assert!(
                matches!(error, ReadError::Damaged { offset, .. } if offset <= file.len() as u64),
                "byte {i} bit {bit}: {error}"
            );
        }
    }
}

#[test]
fn every_cut_and_every_tail_is_detected() {
    let (mut file, _) = write(example(), &three_items());
    for size in 0..file.len() {
        read(&file[..size]).expect_err("a cut file");
        // The same when the size promised more than there is.
        SnapshotReader::open(&file[..size], file.len() as u64)
            .and_then(|mut reader| reader.verify())
            .expect_err("a file that shrinks");
    }
    file.push(0);
    let error = read(&file).expect_err("a byte too many");
    assert!(
        matches!(
            error,
            ReadError::Damaged { flaw: Flaw::Trailing { count: 1 }, .. }
                | ReadError::Damaged { flaw: Flaw::Mismatch { .. }, .. }
        ),
        "{error}"
    );
}

#[test]
fn chunks_cannot_change_places() {
    let header = example().encode().len();
    let items: Vec<_> = (0..2)
        .map(|i| record(0, &format!("{i}"), &"x".repeat(SNAPSHOT_CHUNK_BYTES), None))
        .collect();
    let (mut file, _) = write(example(), &items);
    let chunk = (file.len() - header - Footer::BYTES) / 2;
    let (first, second) = file[header..header + 2 * chunk].split_at_mut(chunk);
    first.swap_with_slice(second);
    read(&file).expect_err("chunks that changed places");
}

#[test]
fn a_snapshot_is_there_once_it_is_published() {
    let data = tempfile::tempdir().expect("a scratch directory");
    let directory = open_directory(data.path());
    let name = SnapshotName { term: Term(7), index: Index(10) };
    let pending = directory.begin(name).expect("a new name");
    std::fs::write(pending.state_path(), b"half").expect("writable");
    assert_eq!(directory.list().expect("readable"), []);
    let (file, meta) = write(Header { index: Index(10), ..example() }, &three_items());
    let pending = directory.begin(name).expect("what was unfinished is replaced");
    std::fs::write(pending.state_path(), &file[1..]).expect("writable");
    let error = pending.publish(&meta).expect_err("a short file");
    assert!(error.to_string().contains("the size is"), "{error}");
    directory.remove_unfinished().expect("removable");
    assert_eq!(std::fs::read_dir(directory.path()).expect("readable").count(), 0);

    for index in [10, 9, 11, 100] {
        publish(&directory, index, &three_items());
    }
    let error = directory.begin(name).expect_err("there already");
    assert!(matches!(error, SnapshotError::Exists { .. }), "{error}");
    let indexes =
        |names: Vec<SnapshotName>| names.iter().map(|name| name.index.0).collect::<Vec<_>>();
    assert_eq!(indexes(directory.list().expect("readable")), [100, 11, 10, 9]);
    directory.set_aside(name).expect("renamable");
    assert_eq!(indexes(directory.prune().expect("removable")), [100, 11]);
    assert_eq!(SNAPSHOT_KEPT_COUNT, 2);
    assert_eq!(std::fs::read_dir(directory.path()).expect("readable").count(), 2);
}

#[test]
fn names_are_strict() {
    for (text, good) in [
        ("7-10", true),
        ("0-0", true),
        ("07-10", false),
        ("7-+1", false),
        ("7-10.tmp", false),
        ("7", false),
        ("x-1", false),
    ] {
        assert_eq!(SnapshotName::parse(text).is_some(), good, "{text}");
    }
}

#[test]
fn a_snapshot_travels_in_pieces() {
    let (from, to) = (tempfile::tempdir().expect("scratch"), tempfile::tempdir().expect("scratch"));
    let (from, to) = (open_directory(from.path()), open_directory(to.path()));
    let name = publish(&from, 10, &three_items());
    let file = SnapshotFile::open(&from.state_path(name)).expect("good");
    std::fs::remove_dir_all(from.path()).expect("removable: the open file stays readable");
    let mut incoming = IncomingSnapshot::begin(&to, name, file.size()).expect("new");
    while !incoming.is_complete() {
        let offset = incoming.next_offset();
        let piece = file.read_at(offset, 33).expect("readable");
        let error = incoming.write(offset + 1, &piece).expect_err("out of order");
        assert!(error.to_string().contains(&format!("where byte {offset} is next")), "{error}");
        incoming.write(offset, &piece).expect("in order");
    }
    incoming.write(file.size(), b"x").expect_err("more than announced");
    assert_eq!(file.read_at(file.size(), 33).expect("the end"), b"");
    let arrived = incoming.finish().expect("good");
    assert_eq!(arrived.header(), file.header());
    assert_eq!(to.list().expect("readable"), [name]);
    assert!(to.state_path(name).with_file_name(META_FILE).exists());
}

#[test]
fn a_bad_arrival_leaves_nothing() {
    let data = tempfile::tempdir().expect("scratch");
    let directory = open_directory(data.path());
    let good = Header { cluster: ClusterId(7), ..example() };
    let name = SnapshotName { term: good.term, index: good.index };
    let (file, _) = write(good.clone(), &three_items());
    let mut flipped = file.clone();
    flipped[file.len() - 60] ^= 1;
    let other = |header: Header| write(header, &three_items()).0;
    for (bytes, text) in [
        (flipped, "the checksum of a chunk"),
        (file[..file.len() - 1].to_vec(), "neither a chunk nor the footer"),
        (other(Header { cluster: ClusterId(8), ..good.clone() }), "belongs to cluster"),
        (other(Header { shard: ShardId(4), ..good.clone() }), "belongs to shard 4"),
        (other(Header { index: Index(1), ..good.clone() }), "the index is 1 and should be 4711"),
    ] {
        let size = bytes.len() as u64;
        let mut incoming = IncomingSnapshot::begin(&directory, name, size).expect("new");
        incoming.write(0, &bytes).expect("in order");
        let error = incoming.finish().expect_err(text);
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(std::fs::read_dir(directory.path()).expect("readable").count(), 0);
    }
    let incoming = IncomingSnapshot::begin(&directory, name, 5).expect("new");
    incoming.finish().expect_err("nothing arrived");
}

/// `docs/formats.md` shows a file byte by byte: it is this one.
#[test]
fn the_worked_example_is_what_is_written() {
    let header = Header {
        shard: ShardId(0),
        term: Term(2),
        index: Index(7),
        leader_time_ms: 1_700_000_000_000,
        membership: Membership { voters: vec![NodeId(1)], ..Membership::default() },
        ..example()
    };
    let items =
        [record(0, "greeting", "hello", None), record(1, "n", "10", Some(1_800_000_000_000))];
    let (file, meta) = write(header, &items);
    let document = include_str!("../../../docs/formats.md");
    let block = |title: &str| {
        let after = document.split_once(title).expect("the example's title").1;
        after.split("```").nth(1).expect("a fenced block").split_once('\n').expect("lines").1
    };
    let mut shown = Vec::new();
    for line in block("The bytes of `state.ring`:").lines() {
        let bytes = line.split("  ").next().expect("bytes first").split(' ');
        shown.extend(bytes.map(|byte| u8::from_str_radix(byte, 16).expect("two digits")));
    }
    let hexadecimal = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x} ")).collect::<String>();
    assert_eq!(hexadecimal(&shown), hexadecimal(&file));
    assert_eq!(meta.check(block("The `meta.json` beside it:").as_bytes()), Ok(()));
}

#[test]
fn ledger_memory_and_libraries_come_back() {
    let remembered = crate::remembered::Remembered::example();
    let ledger = crate::transaction::Ledger::example();
    let mut libraries = crate::keyspace::Libraries::default();
    let texts = vec![(b"name".to_vec(), b"text".to_vec())];
    let change = crate::keyspace::LibraryChange { seen: 0, clears: false, texts };
    assert!(libraries.change(&change));
    let mut writer = SnapshotWriter::new(example());
    writer.push_ledger(&ledger);
    writer.push_remembered(&remembered);
    writer.push_libraries(&libraries);
    writer.push_record(&record(0, "k", "v", None));
    let (file, _) = writer.finish();
    let load = |bytes: &[u8]| {
        let mut reader = SnapshotReader::open(bytes, bytes.len() as u64)?;
        let mut keyspace = crate::keyspace::Keyspace::new(crate::keyspace::KeyHasher::new(1));
        super::load::load(&mut reader, &mut keyspace, &mut |_| {})?;
        Ok::<_, super::error::ReadError>(keyspace)
    };
    let keyspace = load(&file).expect("just written");
    assert_eq!(*keyspace.ledger(), ledger);
    assert_eq!(*keyspace.remembered(), remembered);
    assert_eq!(*keyspace.libraries(), libraries);
    assert_eq!(keyspace.count(crate::ids::DatabaseIndex(0)), 1);
    for at in 0..file.len() {
        let mut flipped = file.clone();
        flipped[at] ^= 1;
        assert!(load(&flipped).is_err(), "byte {at}");
    }
}

proptest! {
    #[test]
    fn items_round_trip(items in prop::collection::vec(any_record(), 0..50)) {
        let (file, _) = write(example(), &items);
        prop_assert_eq!(read(&file).expect("just written"), (example(), items));
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        prop_assert!(read(&bytes).is_err());
    }

    /// Items that are wrong under a right checksum: hostile, or a writer's bug.
    #[test]
    fn no_payload_panics(payload in prop::collection::vec(any::<u8>(), 1..200), item_count: u8) {
        let mut file = example().encode();
        let (length, crc) = (payload.len() as u32, crc32fast::hash(&payload));
        file.extend_from_slice(&ChunkHeader { length, item_count: item_count.into(), crc }.encode(*b"ITEM"));
        file.extend_from_slice(&payload);
        let footer = Footer {
            crc: crc32fast::hash(&file),
            chunk_count: 1,
            item_count: item_count.into(),
            file_size: (file.len() + Footer::BYTES) as u64,
        };
        file.extend_from_slice(&footer.encode());
        if let Ok((_, items)) = read(&file) {
            prop_assert_eq!(items.len(), item_count as usize);
        }
    }
}
