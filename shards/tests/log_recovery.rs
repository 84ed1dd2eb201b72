//! The log under damage: cut at every byte, every byte changed, writes that end out of order,
//! foreign and newer files.

mod common;

use std::sync::Arc;

use common::{Node, options, read_back, recover_all};
use ringraft_shards::disk::{Disk, MemoryDisk};
use ringraft_shards::ids::{ClusterId, Index, NodeId, ShardId};
use ringraft_shards::log::{
    FileAction, FileWork, Log, LogOptions, LogWrite, RecordHeader, RecoverError, SegmentHeader,
    SyncPolicy, read_record, recover, segment_file_name,
};
use ringraft_shards::raft::Group;
use ringraft_shards::random::Random;

/// A record of a log: its segment, place and end, and what it says of itself.
struct Placed {
    file: String,
    start: usize,
    end: usize,
    header: RecordHeader,
}

/// All records of a log, in order.
fn records(disk: &MemoryDisk) -> Vec<Placed> {
    let mut records = Vec::new();
    for file in disk.list().expect("listed") {
        if !file.name.ends_with(".log") {
            continue;
        }
        let bytes = disk.read_all(&file.name);
        let segment = SegmentHeader::decode(&bytes).expect("a good header");
        let block = segment.block_bytes as usize;
        let mut start = block;
        while let Ok((header, parts)) = read_record(&bytes[start..], segment.salt) {
            let end = start + 64 + parts.len();
            records.push(Placed { file: file.name.clone(), start, end, header });
            start = end.next_multiple_of(block);
        }
    }
    records
}

/// A node with a log of so many writes of so many bytes at most, each durable before the next.
fn node_with_log(writes: usize, bytes_max: u64, options: LogOptions) -> Node {
    let mut node = Node::new(1, &[1]);
    node.options = options;
    node.start(1).expect("an empty directory");
    node.settle();
    let mut chance = Random::new(5);
    for n in 0..writes {
        let size = 1 + chance.below(bytes_max) as usize;
        node.propose(&vec![n as u8 + 1; size]).expect("leads");
    }
    node
}

#[test]
fn a_log_cut_at_every_byte_of_its_last_64_kilobytes_recovers_the_writes_before() {
    let options = LogOptions { segment_bytes: 96 << 10, record_bytes_max: 16 << 10, ..options(1) };
    let node = node_with_log(100, 800, options);
    let places = records(&node.disk);
    let last = places.last().expect("a log");
    let file = &last.file;
    assert!(places[0].file == *file && last.end > 64 << 10, "one segment, long enough");
    let bytes = node.disk.read_all(file);
    let whole = recover_all(&node.disk, options).expect("whole");
    assert_eq!(whole.records as usize, places.len());

    let disk = node.disk.copy();
    let zeros = vec![0; bytes.len()];
    for cut in (last.end - (64 << 10)..=last.end).rev() {
        // From the cut on there is what was there before: zeros. What the recovery before wiped
        // comes back.
        let restored = cut.saturating_sub(2048);
        disk.write_at(file, restored as u64, &bytes[restored..cut]).expect("written");
        disk.write_at(file, cut as u64, &zeros[..last.end - cut]).expect("written");
        // A record that ends in zeros is whole without them.
        let whole_before =
            |place: &&Placed| bytes[cut.min(place.end)..place.end].iter().all(|b| *b == 0);
        let expected = places.iter().take_while(whole_before).count();
        let recovered = recover_all(&disk, options).unwrap_or_else(|e| panic!("at {cut}: {e}"));
        assert_eq!(recovered.records as usize, expected, "cut at {cut}");
        assert_eq!(recovered.entries.back().map_or(1, |e| e.index), recovered.last.0);
        assert_eq!(recovered.entries.back(), whole.entries.get(recovered.entries.len() - 1));
        let torn = places.get(expected).is_some_and(|next| next.start + 16 <= cut);
        assert_eq!(recovered.cut.is_some(), torn, "cut at {cut}");
    }
}

#[test]
fn a_changed_byte_is_refused_or_costs_only_what_nobody_was_told_of() {
    let options = LogOptions { segment_bytes: 8 << 10, ..options(1) };
    let node = node_with_log(24, 700, options);
    let places = records(&node.disk);
    let whole = recover_all(&node.disk.copy(), options).expect("whole");
    let files: Vec<_> = node.disk.list().expect("listed");
    assert!(files.len() >= 3, "{files:?}");
    let last = places.last().expect("a log");
    let (mut refused, mut cut, mut harmless) = (0, 0, 0);
    let mut chance = Random::new(11);
    for file in &files {
        for offset in 0..file.bytes {
            let disk = node.disk.copy();
            disk.flip(&file.name, offset, 1 << chance.below(8));
            let at = offset as usize;
            let place = places
                .iter()
                .find(|place| place.file == file.name && (place.start..place.end).contains(&at));
            let recovered = recover_all(&disk, options);
            match (place, recovered) {
                (None, Ok(recovered)) => {
                    assert!(at >= 72, "a header's byte {at} of {} matters", file.name);
                    assert_eq!(recovered.entries, whole.entries, "{} {at}", file.name);
                    harmless += 1;
                }
                (None, Err(error)) => {
                    assert!(at < 72, "{} {at}: {error}", file.name);
                    assert!(error.to_string().contains(&file.name), "{error}");
                    refused += 1;
                }
                // The last record may have been under way: nothing says that it was not.
                (Some(place), Ok(recovered)) => {
                    assert_eq!(place.header.number, last.header.number, "{} {at}", file.name);
                    assert_eq!(recovered.records as usize, places.len() - 1);
                    cut += 1;
                }
                (Some(place), Err(error)) => {
                    assert_ne!(place.header.number, last.header.number, "{} {at}", file.name);
                    let error = error.to_string();
                    let expected = format!("{} is damaged at offset {}", file.name, place.start);
                    assert!(error.contains(&expected) && error.contains("restore"), "{error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 5000 && cut > 70 && harmless > 1000, "{refused} {cut} {harmless}");
}

/// A log on a disk, driven by hand.
struct Bare {
    disk: MemoryDisk,
    log: Log,
    index: u64,
}

impl Bare {
    fn open(disk: &MemoryDisk, options: LogOptions, seed: u64) -> Bare {
        let recovered =
            recover(Arc::new(disk.clone()), options, Index(0), seed, &mut |_, _| {}).expect("good");
        let mut bare = Bare { disk: disk.clone(), log: recovered.log, index: recovered.last.0 };
        bare.files();
        bare
    }

    fn files(&mut self) {
        while let Some(action) = self.log.take_file_action() {
            let result = action.run(&self.disk);
            self.log.file_action_done(action.id, result);
        }
    }

    fn write(&mut self, data: &[u8]) -> LogWrite {
        self.index += 1;
        let mut entry = raft::eraftpb::Entry { term: 1, index: self.index, ..Default::default() };
        entry.data = data.to_vec().into();
        self.log.append(&[entry], if self.index == 1 { 0 } else { 1 });
        self.log.set_state(1, 1);
        let mut writes = Vec::new();
        self.log.build(&mut writes);
        self.files();
        assert_eq!(writes.len(), 1);
        writes.pop().expect("one write")
    }

    fn reaches_disk(&self, write: &LogWrite) {
        let bytes = write.buffer.as_slice();
        self.disk.write_at(&write.file_name(), write.offset, bytes).expect("written");
    }
}

#[test]
fn writes_that_ended_out_of_order_are_cut_and_never_come_back() {
    let options = options(1);
    let disk = MemoryDisk::new();
    let mut bare = Bare::open(&disk, options, 1);
    let a = bare.write(b"a");
    bare.reaches_disk(&a);
    bare.log.written(a.ticket, a.buffer);
    // Three are under way; the first never arrives.
    let (_b, c, d) = (bare.write(&[2; 100]), bare.write(&[3; 100]), bare.write(&[4; 100]));
    bare.reaches_disk(&c);
    bare.reaches_disk(&d);
    let recovered = recover_all(&disk, options).expect("nobody was told of the others");
    let cut = recovered.cut.expect("a cut");
    assert_eq!((recovered.last.0, cut.dropped_records, cut.found), (1, 2, "no record"));
    // New records of the same lengths take the places of the old ones, one by one.
    let mut bare = Bare::open(&disk, options, 1);
    for n in 0..3u8 {
        let write = bare.write(&[10 + n; 100]);
        bare.reaches_disk(&write);
        bare.log.written(write.ticket, write.buffer);
        let recovered = recover_all(&disk.copy(), options).expect("good");
        assert_eq!(recovered.last.0, 2 + u64::from(n), "nothing old behind the new");
        assert_eq!(recovered.entries.back().expect("it").data[0], 10 + n);
        assert!(recovered.cut.is_none());
    }
}

#[test]
fn a_missing_record_that_others_vouch_for_is_refused() {
    let options = options(1);
    let disk = MemoryDisk::new();
    let mut bare = Bare::open(&disk, options, 1);
    let a = bare.write(b"a");
    bare.log.written(a.ticket, a.buffer);
    // The disk said that "a" is durable, and this record repeats it.
    let b = bare.write(b"b");
    bare.reaches_disk(&b);
    let error = recover_all(&disk, options).err().expect("a loss").to_string();
    assert!(error.contains("no record, where record 1 should be"), "{error}");
    assert!(error.contains("durable when record 2 was written"), "{error}");
}

#[test]
fn lazily_synced_writes_vouch_for_nothing_until_they_are_synced() {
    let options = LogOptions { sync: SyncPolicy::Lazy, ..options(1) };
    let disk = MemoryDisk::new();
    let mut bare = Bare::open(&disk, options, 1);
    let (a, b) = (bare.write(b"a"), bare.write(b"b"));
    let synced = a.ticket;
    bare.reaches_disk(&a);
    bare.log.written(a.ticket, a.buffer);
    bare.log.written(b.ticket, b.buffer);
    let c = bare.write(b"c");
    bare.reaches_disk(&c);
    // "b" was reported and lost with the power: that is what lazy means.
    assert_eq!(recover_all(&disk.copy(), options).expect("a cut").last.0, 1);
    bare.log.written(c.ticket, c.buffer);
    bare.log.synced(synced);
    let d = bare.write(b"d");
    bare.reaches_disk(&d);
    assert_eq!(recover_all(&disk.copy(), options).expect("a cut").last.0, 1);
    bare.log.written(d.ticket, d.buffer);
    bare.log.synced(ringraft_shards::log::WriteTicket(2));
    let e = bare.write(b"e");
    bare.reaches_disk(&e);
    let error = recover_all(&disk, options).err().expect("a loss").to_string();
    assert!(error.contains("where record 2 should be"), "{error}");
}

#[test]
fn records_under_way_across_segments_are_cut_too() {
    let options = LogOptions { segment_bytes: 8 << 10, ..options(1) };
    let disk = MemoryDisk::new();
    let mut bare = Bare::open(&disk, options, 1);
    // Fill the first segment, but for two blocks.
    while bare.log.disk_bytes() == 0 || bare.index < 13 {
        let write = bare.write(&[1; 300]);
        bare.reaches_disk(&write);
        bare.log.written(write.ticket, write.buffer);
    }
    let (b, c) = (bare.write(&[2; 800]), bare.write(&[3; 300]));
    assert_eq!((b.sequence, c.sequence), (1, 2));
    bare.reaches_disk(&c);
    let recovered = recover_all(&disk, options).expect("nobody was told");
    assert_eq!((recovered.last.0, recovered.cut.expect("a cut").dropped_records), (13, 1));
    let names: Vec<_> = disk.list().expect("listed").into_iter().map(|f| f.name).collect();
    assert_eq!(names, [segment_file_name(1)], "the second one held nothing else");
    let mut bare = Bare::open(&disk, options, 1);
    let write = bare.write(&[4; 300]);
    bare.reaches_disk(&write);
    assert_eq!(recover_all(&disk, options).expect("good").last.0, 14);
}

#[test]
fn a_follower_that_replaced_its_end_recovers_the_new_one() {
    let options = options(1);
    let disk = MemoryDisk::new();
    let mut bare = Bare::open(&disk, options, 1);
    let entry = |term, index| {
        let data = vec![term as u8; 200].into();
        raft::eraftpb::Entry { term, index, data, ..Default::default() }
    };
    let steps: [(&[(u64, u64)], u64); 4] = [
        (&[(1, 1), (1, 2), (1, 3), (1, 4)], 0),
        (&[(1, 5), (1, 6)], 1),
        (&[(3, 3)], 1),
        (&[(3, 4), (4, 5)], 3),
    ];
    for (entries, previous_term) in steps {
        let entries: Vec<_> = entries.iter().map(|&(term, index)| entry(term, index)).collect();
        bare.log.append(&entries, previous_term);
    }
    bare.log.set_state(4, 2);
    let mut writes = Vec::new();
    bare.log.build(&mut writes);
    assert_eq!(writes.len(), 2, "what replaces does not share a record with what it replaces");
    for write in writes {
        bare.reaches_disk(&write);
        bare.log.written(write.ticket, write.buffer);
    }
    for low in 1..=5 {
        let entries = read_back(&bare.log, &disk, (low, 6), u64::MAX).expect("durable");
        let terms: Vec<_> = entries.iter().map(|entry| (entry.term, entry.index)).collect();
        assert_eq!(terms, [(1, 1), (1, 2), (3, 3), (3, 4), (4, 5)][low as usize - 1..]);
    }
    let recovered = recover_all(&disk, options).expect("good");
    assert_eq!((recovered.last, recovered.term, recovered.vote), ((5, 4), 4, 2));
    let terms: Vec<_> = recovered.entries.iter().map(|entry| entry.term).collect();
    assert_eq!(terms, [1, 1, 3, 3, 4]);
    assert_eq!(recovered.terms, [(0, 0), (1, 1), (3, 3), (5, 4)]);
    let entries = read_back(&recovered.log, &disk, (2, 6), 500).expect("durable");
    assert_eq!(entries.len(), 2, "bounded in bytes");
}

#[test]
fn foreign_newer_and_missing_files_are_refused_by_name() {
    let good = options(1);
    let node = node_with_log(60, 700, good);
    let check = |options: LogOptions, change: &dyn Fn(&MemoryDisk), expected: &str| {
        let disk = node.disk.copy();
        change(&disk);
        let error = recover_all(&disk, options).err().expect(expected).to_string();
        assert!(error.contains(expected), "{error}");
    };
    let with = |change: &dyn Fn(&mut LogOptions)| {
        let mut options = good;
        change(&mut options);
        options
    };
    let nothing = |_: &MemoryDisk| {};
    let other = with(&|o| o.identity.cluster = ClusterId(8));
    check(other, &nothing, "belongs to cluster 00000000000000000000000000000007, not to 0");
    check(with(&|o| o.identity.node = NodeId(2)), &nothing, "belongs to node 1, not to 2");
    check(with(&|o| o.identity.shard = ShardId(4)), &nothing, "belongs to shard 3, not to 4");
    let first = segment_file_name(1);
    check(
        good,
        &|disk| disk.flip(&first, 8, 3),
        "00000000000000000001.log has log format 2, this program reads format 1; start the version",
    );
    check(good, &|disk| disk.flip(&first, 0, 3), "does not begin with \"RINGRLOG\"");
    check(good, &|disk| disk.flip(&first, 50, 3), "the header's checksum does not fit");
    check(
        good,
        &|disk| disk.remove(&segment_file_name(2)).expect("there"),
        "memory has no 00000000000000000002.log, but later segments",
    );
    check(
        good,
        &|disk| {
            disk.remove(&first).expect("there");
            disk.rename(&segment_file_name(2), &first).expect("there");
            disk.remove(&segment_file_name(3)).expect("there");
            for n in 4..9 {
                let _ = disk.remove(&segment_file_name(n));
            }
        },
        "holds segment 2: it was renamed",
    );
}

#[test]
fn an_unfinished_segment_is_dropped_and_a_finished_one_is_kept_as_spare() {
    let node = node_with_log(3, 100, options(1));
    let disk = node.disk.copy();
    let names = |disk: &MemoryDisk| -> Vec<_> {
        disk.list().expect("listed").into_iter().map(|file| file.name).collect()
    };
    assert_eq!(names(&disk), [segment_file_name(1), segment_file_name(2)]);
    disk.create_zeroed("00000000000000000003.new", 100).expect("room");
    disk.create_zeroed("00000000000000000000.free", 100).expect("room");
    disk.create_zeroed("notes.txt", 100).expect("room");
    let recovered = recover_all(&disk, options(1)).expect("good");
    assert_eq!(names(&disk).len(), 3, "what is not the log's stays");
    let mut log = recovered.log;
    assert_eq!(log.take_file_action(), None, "the spare is there");
    // Without the spare it is asked for.
    disk.remove(&segment_file_name(2)).expect("there");
    let mut log = recover_all(&disk, options(1)).expect("good").log;
    let action = log.take_file_action();
    let Some(FileAction { work: FileWork::Prepare { header, from: None }, .. }) = action else {
        panic!("{action:?}");
    };
    assert_eq!(header.sequence, 2);
}

#[test]
fn a_recovered_group_knows_its_term_and_vote() {
    let mut node = node_with_log(5, 100, options(1));
    let term = node.group().term();
    for n in 1..5 {
        node.crash(None);
        let recovered = recover_all(&node.disk.copy(), node.options).expect("good");
        assert_eq!((recovered.term, recovered.vote), (term.0 + n - 1, 1));
        let group = Group::open(node.config.clone(), Some(recovered), None, 1).expect("fits");
        assert_eq!(group.term().0, term.0 + n - 1, "no election before the log is applied");
        node.start(n).expect("good");
        node.settle();
        assert_eq!(node.group().term().0, term.0 + n);
    }
}

/// `docs/formats.md` shows a log byte by byte: it is this one.
#[test]
fn the_document_shows_these_bytes() {
    let mut node = Node::new(1, &[1]);
    node.options.identity.cluster = ClusterId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
    node.options.identity.shard = ShardId(0);
    node.start(0).expect("an empty directory");
    node.settle();
    node.propose(b"hello").expect("leads");
    let bytes = node.disk.read_all(&segment_file_name(1));
    let document = include_str!("../../docs/formats.md");
    let (_, chapter) = document.split_once("## Log").expect("a chapter on the log");
    let (_, example) = chapter.split_once("### Example").expect("an example");
    let shown = example.split("```\n").nth(1).expect("a listing");
    let mut at = 0;
    for line in shown.lines().filter(|line| !line.is_empty()) {
        if let Some(place) = line.strip_prefix("at ") {
            let next: usize = place.parse().expect("a place");
            assert!(bytes[at..next].iter().all(|byte| *byte == 0), "zeros up to {next}");
            at = next;
            continue;
        }
        let hex = line.split("  ").next().expect("bytes first");
        for byte in hex.split(' ') {
            assert_eq!(format!("{:02x}", bytes[at]), byte, "at {at}: {line}");
            at += 1;
        }
    }
    assert!(bytes[at..].iter().all(|byte| *byte == 0), "the example ends at {at}");
}

/// Found by fuzzing: a checksum that fits and numbers that nobody wrote ended in an overflow.
#[test]
fn records_that_make_no_sense_are_refused_although_their_checksum_fits() {
    let node = node_with_log(3, 100, options(1));
    let places = records(&node.disk);
    let last = places.last().expect("a log");
    let bytes = node.disk.read_all(&last.file);
    let record = &bytes[last.start..last.end];
    // The record's number first: the chain goes on with any number when the first record has it.
    let first = &places[0];
    let cases: [(&Placed, usize, &[u8]); 8] = [
        (first, 16, &u64::MAX.to_le_bytes()),
        (last, 24, &u64::MAX.to_le_bytes()),
        (last, 32, &u64::MAX.to_le_bytes()),
        (last, 40, &u64::MAX.to_le_bytes()),
        // The first part: its kind, an entry's type, term, index, total.
        (last, 64, &[9]),
        (last, 64 + 1, &[3]),
        (last, 64 + 8 + 8, &u64::MAX.to_le_bytes()),
        (last, 64 + 8 + 16, &0u32.to_le_bytes()),
    ];
    assert_eq!(record[64], 2, "the last record begins with an entry");
    for (place, at, with) in cases {
        let disk = node.disk.copy();
        let mut record = bytes[place.start..place.end].to_vec();
        record[at..at + with.len()].copy_from_slice(with);
        let crc = crc32fast::hash(&record[4..]);
        record[..4].copy_from_slice(&crc.to_le_bytes());
        disk.write_at(&place.file, place.start as u64, &record).expect("written");
        match recover_all(&disk, options(1)) {
            Err(RecoverError::Nonsense { offset, .. }) => assert_eq!(offset, place.start as u64),
            Err(other) => panic!("byte {at}: {other}"),
            Ok(log) => panic!("byte {at}: {} records", log.records),
        }
    }
}
