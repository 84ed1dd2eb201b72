//! The log: recovery of any directory ends in a refusal or in a log without gaps, and recovering again finds the same.
//!
//! Input: one byte that says what to keep, then steps that build segments: raw bytes, a record of raw parts, a record of
//! well-formed parts with any numbers, the next segment. Records and headers get the checksums that they need.

use std::sync::Arc;

use ringraft_shards::disk::{Disk, MemoryDisk};
use ringraft_shards::ids::{ClusterId, Index, NodeId, ShardId};
use ringraft_shards::log::{
    LogIdentity, LogOptions, RecoveredLog, SegmentHeader, recover, segment_file_name,
};

const BLOCK: usize = 512;
const SEGMENT: usize = 8 << 10;
/// Most segments that an input makes: work per input is bounded.
const SEGMENTS_MAX: u64 = 6;

/// What a log was found to be.
#[derive(Debug, PartialEq)]
struct Found {
    state: (u64, u64, u64),
    base: (u64, u64),
    last: (u64, u64),
    terms: Vec<(u64, u64)>,
    entries: Vec<(u64, u64, Vec<u8>)>,
}

/// Checks one input.
pub fn check(data: &[u8]) {
    let [keep, steps @ ..] = data else { return };
    let keep_after = number(*keep);
    let disk = build(steps);
    let bytes = disk.used_bytes() as usize;
    let Ok(first) = open(&disk, keep_after) else { return };
    let first = look(first, keep_after, bytes);
    let second = open(&disk, keep_after).unwrap_or_else(|error| panic!("not again: {error}"));
    assert!(second.cut.is_none(), "cut again: {:?}", second.cut);
    assert_eq!(look(second, keep_after, bytes), first, "recovered again");
}

fn open(
    disk: &MemoryDisk,
    keep_after: u64,
) -> Result<RecoveredLog, ringraft_shards::log::RecoverError> {
    recover(Arc::new(disk.clone()), options(), Index(keep_after), 1, &mut |_, _| {})
}

fn look(log: RecoveredLog, keep_after: u64, bytes: usize) -> Found {
    let entries: Vec<_> = log.entries.iter().map(|e| (e.index, e.term, e.data.to_vec())).collect();
    let held: usize = entries.iter().map(|entry| entry.2.len()).sum();
    assert!(held <= bytes, "{held} bytes of entries from {bytes}");
    assert!(log.base.0 <= log.last.0 && log.commit <= log.last.0);
    for pair in entries.windows(2) {
        assert_eq!(pair[0].0 + 1, pair[1].0, "no gaps");
    }
    if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
        assert_eq!(first.0, log.base.0.max(keep_after) + 1);
        assert_eq!((last.0, last.1), log.last);
    }
    for pair in log.terms.windows(2) {
        assert!(pair[0].0 < pair[1].0 && pair[0].1 != pair[1].1, "runs of terms");
    }
    Found {
        state: (log.term, log.vote, log.commit),
        base: log.base,
        last: log.last,
        terms: log.terms.clone(),
        entries,
    }
}

fn options() -> LogOptions {
    let identity = LogIdentity { cluster: ClusterId(7), node: NodeId(1), shard: ShardId(3) };
    LogOptions {
        block_bytes: BLOCK,
        segment_bytes: SEGMENT as u64,
        record_bytes_max: 2 << 10,
        ..LogOptions::new(identity)
    }
}

fn segment_header(sequence: u64) -> SegmentHeader {
    SegmentHeader {
        identity: options().identity,
        sequence,
        salt: salt(sequence),
        block_bytes: BLOCK as u32,
        segment_bytes: SEGMENT as u64,
    }
}

fn salt(sequence: u64) -> u64 {
    0x5a17_0000 + sequence
}

/// Small numbers as they are; the last ones stand for the end of the range.
fn number(byte: u8) -> u64 {
    if byte < 0xf0 { byte.into() } else { u64::MAX - u64::from(0xff - byte) }
}

/// Takes bytes from the input; zeros when it is used up.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> u64 {
        number(self.byte())
    }

    fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(u16::from_le_bytes([self.byte(), self.byte()]));
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

fn build(steps: &[u8]) -> MemoryDisk {
    let disk = MemoryDisk::new();
    let mut input = Input(steps);
    let (mut sequence, mut at, mut next_record) = (0, SEGMENT, 1u64);
    let begin = |sequence: u64, flips: &[u8]| {
        let name = segment_file_name(sequence);
        disk.create_zeroed(&name, SEGMENT as u64).expect("there is room");
        let mut header = segment_header(sequence).encode();
        for (byte, flip) in header.iter_mut().zip(flips) {
            *byte ^= flip;
        }
        disk.write_at(&name, 0, &header).expect("there is room");
    };
    while !input.0.is_empty() {
        let kind = input.byte() % 4;
        let mut block = Vec::new();
        match kind {
            0 => block.extend_from_slice(input.bytes()),
            1 => {
                let head = record_head(&mut input, next_record);
                block = record(&head, input.bytes(), sequence);
            }
            2 => {
                let mut head = record_head(&mut input, next_record);
                let mut parts = Vec::new();
                head.parts = 0;
                for _ in 0..input.byte() % 8 {
                    part(&mut input, &mut parts);
                    head.parts += 1;
                }
                block = record(&head, &parts, sequence);
            }
            _ => {
                let flips = input.bytes();
                if sequence < SEGMENTS_MAX {
                    sequence += 1;
                    begin(sequence, flips);
                    at = BLOCK;
                }
                continue;
            }
        }
        if kind != 0 {
            next_record += 1;
        }
        block.resize(block.len().next_multiple_of(BLOCK), 0);
        if at + block.len().max(1) > SEGMENT {
            if sequence == SEGMENTS_MAX {
                break;
            }
            sequence += 1;
            begin(sequence, &[]);
            at = BLOCK;
            // A record carries the salt of its segment.
            if kind != 0 {
                block[8..16].copy_from_slice(&salt(sequence).to_le_bytes());
                checksum(&mut block);
            }
        }
        block.truncate(SEGMENT - at);
        disk.write_at(&segment_file_name(sequence), at as u64, &block).expect("there is room");
        at += block.len();
    }
    disk
}

#[derive(Default)]
struct Head {
    number: u64,
    synced: u64,
    commit: u64,
    previous: (u64, u64),
    parts: u32,
}

fn record_head(input: &mut Input<'_>, next_record: u64) -> Head {
    let offset = input.byte();
    Head {
        number: match offset {
            0xff => u64::MAX,
            0x80.. => next_record.saturating_sub(u64::from(offset - 0x80)),
            _ => next_record + u64::from(offset),
        },
        synced: input.number(),
        commit: input.number(),
        previous: (input.number(), input.number()),
        parts: input.byte().into(),
    }
}

fn record(head: &Head, parts: &[u8], sequence: u64) -> Vec<u8> {
    let mut record = vec![0; 64];
    record.extend_from_slice(parts);
    let length = record.len() as u32;
    record[4..8].copy_from_slice(&length.to_le_bytes());
    let (index, term) = head.previous;
    for (at, number) in [
        (8, salt(sequence)),
        (16, head.number),
        (24, head.synced),
        (32, head.commit),
        (40, index),
        (48, term),
    ] {
        record[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
    record[56..60].copy_from_slice(&head.parts.to_le_bytes());
    checksum(&mut record);
    record
}

fn checksum(record: &mut [u8]) {
    let length = u32::from_le_bytes([record[4], record[5], record[6], record[7]]) as usize;
    let crc = crc32fast::hash(&record[4..length]);
    record[..4].copy_from_slice(&crc.to_le_bytes());
}

fn part(input: &mut Input<'_>, out: &mut Vec<u8>) {
    let kind = input.byte() % 4 + 1;
    let mut payload = Vec::new();
    let mut entry_type = 0;
    match kind {
        1 => (0..5).for_each(|_| payload.extend(input.number().to_le_bytes())),
        2 => {
            entry_type = input.byte() % 3;
            payload.extend(input.number().to_le_bytes());
            payload.extend(input.number().to_le_bytes());
            let (total, offset) = (input.number() as u32, input.number() as u32);
            let data = input.bytes();
            // Mostly whole.
            let total = if total == 0 { data.len() as u32 } else { total };
            payload.extend(total.to_le_bytes());
            payload.extend(offset.to_le_bytes());
            payload.extend_from_slice(data);
        }
        3 => (0..2).for_each(|_| payload.extend(input.number().to_le_bytes())),
        _ => {
            let (voters, learners) = (input.byte() % 4, input.byte() % 4);
            payload.extend(u32::from(voters).to_le_bytes());
            payload.extend(u32::from(learners).to_le_bytes());
            for _ in 0..voters + learners {
                payload.extend(input.number().to_le_bytes());
            }
        }
    }
    out.extend_from_slice(&[kind, entry_type, 0, 0]);
    out.extend((payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&payload);
}

/// Logs of some records: founded, with votes and entries, with fragments, truncated, reset, with a torn end.
pub fn seeds() -> Vec<Vec<u8>> {
    // A record: kind, number as expected, synced, commit, previous entry, parts that are counted.
    let head = |synced, commit, previous: (u8, u8), parts| {
        vec![2, 0, synced, commit, previous.0, previous.1, 0, parts]
    };
    let entry = |index: u8, term: u8, data: &[u8]| {
        [&[1, 0, term, index, 0, 0, data.len() as u8, 0][..], data].concat()
    };
    let founding = [head(0, 1, (0, 0), 2), vec![3, 3, 0, 1, 2, 3], vec![0, 1, 0, 1, 1, 1]].concat();
    let vote = [head(1, 1, (0, 0), 1), vec![0, 2, 1, 1, 1, 1]].concat();
    let some = [head(2, 1, (1, 1), 2), entry(2, 2, b"two"), entry(3, 2, b"three")].concat();
    let more = [head(3, 2, (3, 2), 1), entry(4, 2, &[4; 200])].concat();
    let replaced = [head(4, 3, (2, 2), 2), entry(3, 3, b"other"), entry(4, 3, b"4")].concat();
    let reset = [head(5, 9, (0, 0), 2), vec![2, 20, 4], vec![0, 4, 0, 20, 20, 4]].concat();
    let after = [head(6, 20, (20, 4), 1), entry(21, 4, b"x")].concat();
    let first = [head(0, 1, (1, 1), 1), vec![1, 0, 2, 2, 6, 0, 3, 0, 1, 2, 3]].concat();
    let second = [head(1, 1, (0, 0), 1), vec![1, 0, 2, 2, 6, 3, 3, 0, 4, 5, 6]].concat();
    let next_segment = vec![3, 0, 0];
    let torn = vec![0, 5, 0, 1, 2, 3, 4, 5];
    let lists: Vec<Vec<&Vec<u8>>> = vec![
        vec![],
        vec![&next_segment],
        vec![&founding],
        vec![&founding, &vote, &some],
        vec![&founding, &vote, &some, &more, &replaced, &reset, &after],
        vec![&founding, &vote, &next_segment, &some, &more, &next_segment, &replaced],
        vec![&founding, &first, &second],
        vec![&founding, &vote, &torn, &some],
        vec![&founding, &vote, &some, &torn],
        vec![&reset, &after, &torn, &torn],
    ];
    let mut seeds = Vec::new();
    for list in lists {
        for keep in [0, 3] {
            let steps = list.iter().flat_map(|step| step.iter().copied());
            seeds.push([keep].into_iter().chain(steps).collect());
        }
    }
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_logs() {
        // Last entry and count of records, for every other seed: they come in pairs.
        let expected = [
            ((0, 0), 0),
            ((0, 0), 0),
            ((1, 1), 1),
            ((3, 2), 3),
            ((21, 4), 7),
            ((4, 3), 5),
            ((2, 2), 3),
            ((1, 1), 2),
            ((3, 2), 3),
            ((21, 4), 2),
        ];
        let seeds = seeds();
        for (n, expected) in expected.iter().enumerate() {
            let log = open(&build(&seeds[2 * n][1..]), 0).expect("a good log");
            assert_eq!((log.last, log.records), *expected, "seed {n}");
        }
    }
}
