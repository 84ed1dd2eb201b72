//! Pieces of work of the engine, each a function that can be run again and again: timed by
//! criterion (`benches/engine.rs`) and counted in instructions by callgrind
//! (`examples/engine_work.rs`).
//!
//! Setting up is not part of the work. Everything is seeded: the same instructions in every run.

mod piece;

use std::hint::black_box;
use std::sync::Arc;

use raft::eraftpb::Entry;
use ringraft_shards::arguments::{Arguments, Span};
use ringraft_shards::batch::{Batch, BatchBuilder};
use ringraft_shards::disk::{Disk, MemoryDisk};
use ringraft_shards::ids::{ClusterId, DatabaseIndex, Index, NodeId, ShardId};
use ringraft_shards::keyspace::{Expiry, Key, KeyHash, KeyHasher, Keyspace, StringForm};
use ringraft_shards::log::{Log, LogIdentity, LogOptions, LogWrite, read_record, recover};
use ringraft_shards::raft::{Group, GroupConfig, Output};
use ringraft_shards::random::Random;

pub use piece::{Step, Work};

/// Keys in the table: more than the caches next to a cpu hold, few enough to set up under
/// callgrind.
const KEYS: u64 = 100_000;

/// Operations of one piece of work: those of a turn with 50 connections, or of one pipeline.
const OPERATIONS: usize = 100;

/// Bytes of each value.
const VALUE_BYTES: usize = 64;

/// Number of a command; what it means is no business of the engine.
const COMMAND: u16 = 1;

const DATABASE: DatabaseIndex = DatabaseIndex(0);

/// Milliseconds since the Unix epoch; any time will do.
const NOW_MS: i64 = 1_800_000_000_000;

/// All of them.
pub const WORKS: &[Work] = &[
    Work { name: "key-hash", operations: OPERATIONS as u64, begin: key_hash },
    Work { name: "table-get", operations: OPERATIONS as u64, begin: table_get },
    Work { name: "table-get-missing", operations: OPERATIONS as u64, begin: table_get_missing },
    Work { name: "table-set", operations: OPERATIONS as u64, begin: table_set },
    Work { name: "table-insert-remove", operations: OPERATIONS as u64, begin: table_insert_remove },
    Work { name: "batch-encode", operations: OPERATIONS as u64, begin: batch_encode },
    Work { name: "batch-apply", operations: OPERATIONS as u64, begin: batch_apply },
    Work { name: "lone-turn", operations: 1, begin: lone_turn },
    Work { name: "log-record", operations: OPERATIONS as u64, begin: log_record },
    Work { name: "log-record-read", operations: OPERATIONS as u64, begin: log_record_read },
];

fn key(number: u64) -> Vec<u8> {
    format!("key:{number:012}").into_bytes()
}

/// A table with all keys, and the keys of many steps in random order.
struct Table {
    keyspace: Keyspace,
    keys: Vec<(Vec<u8>, KeyHash)>,
    next: usize,
    value: Vec<u8>,
}

impl Table {
    fn filled() -> Table {
        let hasher = KeyHasher::new(7);
        let mut keyspace = Keyspace::new(hasher);
        let value = vec![b'v'; VALUE_BYTES];
        for number in 0..KEYS {
            let bytes = key(number);
            let key = Key::new(&bytes, hasher.hash(&bytes));
            let mut edit = keyspace.edit(DATABASE, NOW_MS);
            edit.set_string(&key, &value, StringForm::default(), Expiry::Never);
        }
        let mut chance = Random::new(3);
        let keys = (0..KEYS).map(|_| key(chance.below(KEYS)));
        let keys = keys.map(|bytes| (bytes.clone(), hasher.hash(&bytes))).collect();
        Table { keyspace, keys, next: 0, value }
    }

    /// Other keys, none of which is in the table.
    fn renamed(mut self) -> Table {
        let hasher = self.keyspace.hasher();
        for (bytes, hash) in &mut self.keys {
            bytes[0] = b'n';
            *hash = hasher.hash(bytes);
        }
        // A key that comes twice would be found the second time.
        self.keys.sort_by(|one, other| one.0.cmp(&other.0));
        self.keys.dedup();
        self
    }

    /// Where the keys of the next step begin.
    fn turn(&mut self) -> usize {
        let start = self.next;
        let next = start + OPERATIONS;
        self.next = if next + OPERATIONS <= self.keys.len() { next } else { 0 };
        start
    }
}

fn key_hash() -> Step {
    let mut table = Table::filled();
    Box::new(move || {
        let start = table.turn();
        let hasher = table.keyspace.hasher();
        for (bytes, _) in &table.keys[start..start + OPERATIONS] {
            black_box(hasher.hash(black_box(bytes)));
        }
    })
}

fn table_get() -> Step {
    look_up(Table::filled(), true)
}

fn table_get_missing() -> Step {
    look_up(Table::filled().renamed(), false)
}

fn look_up(mut table: Table, expected: bool) -> Step {
    Box::new(move || {
        let start = table.turn();
        let view = table.keyspace.view(DATABASE, NOW_MS);
        for (bytes, hash) in &table.keys[start..start + OPERATIONS] {
            let item = view.get(&Key::new(bytes, *hash));
            assert_eq!(black_box(item).is_some(), expected);
        }
    })
}

fn table_set() -> Step {
    let mut table = Table::filled();
    Box::new(move || {
        let start = table.turn();
        let mut edit = table.keyspace.edit(DATABASE, NOW_MS);
        for (bytes, hash) in &table.keys[start..start + OPERATIONS] {
            let key = Key::new(bytes, *hash);
            edit.set_string(&key, &table.value, StringForm::default(), Expiry::Never);
        }
    })
}

fn table_insert_remove() -> Step {
    let mut table = Table::filled().renamed();
    Box::new(move || {
        let start = table.turn();
        let mut edit = table.keyspace.edit(DATABASE, NOW_MS);
        let keys = &table.keys[start..start + OPERATIONS];
        for (bytes, hash) in keys {
            let key = Key::new(bytes, *hash);
            edit.set_string(&key, &table.value, StringForm::default(), Expiry::Never);
        }
        for (bytes, hash) in keys {
            assert!(edit.remove(&Key::new(bytes, *hash)));
        }
    })
}

/// Gathers one `SET key value` per operation.
fn gather(builder: &mut BatchBuilder, keys: &[(Vec<u8>, KeyHash)], value: &[u8]) {
    let mut request = Vec::with_capacity(256);
    for (bytes, hash) in keys {
        request.clear();
        request.extend_from_slice(b"SET");
        request.extend_from_slice(bytes);
        request.extend_from_slice(value);
        let end = 3 + bytes.len();
        let spans = [Span::new(0, 3), Span::new(3, bytes.len()), Span::new(end, value.len())];
        builder.push(COMMAND, DATABASE, *hash, Arguments::new(&request, &spans));
    }
}

fn encoded_batch(table: &Table) -> Vec<u8> {
    let mut builder = BatchBuilder::default();
    gather(&mut builder, &table.keys[..OPERATIONS], &table.value);
    builder.encode(NOW_MS, 1)
}

fn batch_encode() -> Step {
    let mut table = Table::filled();
    let mut builder = BatchBuilder::default();
    Box::new(move || {
        let start = table.turn();
        gather(&mut builder, &table.keys[start..start + OPERATIONS], &table.value);
        black_box(builder.encode(NOW_MS, 1));
        builder.clear();
    })
}

fn batch_apply() -> Step {
    let mut table = Table::filled();
    let bytes = encoded_batch(&table);
    Box::new(move || {
        let batch = Batch::read(black_box(&bytes)).expect("just encoded");
        let mut edit = table.keyspace.edit(DATABASE, batch.leader_time_ms());
        for i in 0..batch.count() {
            let (operation, arguments) = batch.operation(i);
            let key = Key::new(arguments.at(1), operation.first_key());
            edit.set_string(&key, arguments.at(2), StringForm::default(), Expiry::Never);
        }
    })
}

/// A turn with one SET: gathered, proposed to a group of one without a log, committed, applied.
fn lone_turn() -> Step {
    let mut table = Table::filled();
    let mut builder = BatchBuilder::default();
    let config = GroupConfig::new(NodeId(1), ShardId(0), vec![NodeId(1)]);
    let mut group = Group::open(config, None, None, 7).expect("nothing to recover");
    let mut output = Output::default();
    group.poll(&mut output);
    group.applied(output.committed[0].index);
    Box::new(move || {
        let start = table.turn();
        gather(&mut builder, &table.keys[start..start + 1], &table.value);
        group.propose(builder.encode(NOW_MS, 1)).expect("the only member leads");
        output.clear();
        group.poll(&mut output);
        let entry = &output.committed[0];
        let batch = Batch::read(black_box(&entry.data)).expect("just encoded");
        let (operation, arguments) = batch.operation(0);
        let key = Key::new(arguments.at(1), operation.first_key());
        let mut edit = table.keyspace.edit(DATABASE, batch.leader_time_ms());
        edit.set_string(&key, arguments.at(2), StringForm::default(), Expiry::Never);
        group.applied(entry.index);
        builder.clear();
    })
}

/// A log on a disk of memory. Writes are made and reported; nobody does them.
struct Record {
    log: Log,
    disk: Arc<MemoryDisk>,
    entry: Entry,
    writes: Vec<LogWrite>,
}

impl Record {
    fn new() -> Record {
        let identity = LogIdentity { cluster: ClusterId(1), node: NodeId(1), shard: ShardId(0) };
        let disk = Arc::new(MemoryDisk::new());
        let shared: Arc<dyn Disk> = disk.clone();
        let options = LogOptions::new(identity);
        let recovered = recover(shared, options, Index(0), 9, &mut |_, _| {});
        let data = encoded_batch(&Table::filled()).into();
        let entry = Entry { term: 1, index: 1, data, ..Default::default() };
        let log = recovered.expect("an empty directory").log;
        Record { log, disk, entry, writes: Vec::new() }
    }

    /// Appends the entry and makes its write.
    fn write(&mut self) -> LogWrite {
        let previous = u64::from(self.entry.index > 1);
        self.log.append(std::slice::from_ref(&self.entry), previous);
        self.entry.index += 1;
        self.log.build(&mut self.writes);
        while self.writes.is_empty() {
            // A segment is full, or there is none yet.
            let action = self.log.take_file_action().expect("the log asks for a segment");
            let outcome = action.run(&*self.disk);
            self.log.file_action_done(action.id, outcome);
            self.log.build(&mut self.writes);
        }
        self.writes.pop().expect("just looked")
    }
}

fn log_record() -> Step {
    let mut record = Record::new();
    Box::new(move || {
        let write = record.write();
        let write = black_box(write);
        record.log.written(write.ticket, write.buffer);
        // Old segments are used again, as behind a snapshot.
        record.log.compact(record.entry.index - 1);
    })
}

fn log_record_read() -> Step {
    let write = Record::new().write();
    let salt = u64::from_le_bytes(write.buffer.as_slice()[8..16].try_into().expect("8 bytes"));
    Box::new(move || {
        let record = read_record(black_box(write.buffer.as_slice()), salt);
        assert!(black_box(record).is_ok());
    })
}
