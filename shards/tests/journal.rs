//! One journal for many logs: what was reported durable is there after a crash, whatever was in
//! flight, and damage is refused.

mod common;

use std::sync::Arc;

use raft::eraftpb::Entry;
use ringraft_shards::disk::{AlignedBuffer, Disk, MemoryDisk, WriteInFlight};
use ringraft_shards::ids::{ClusterId, Index, NodeId, ShardId};
use ringraft_shards::log::{
    FrameTicket, Journal, Layout, Log, LogIdentity, LogOptions, LogWrite, RecoverError,
    RecoveredLog, Redone, journal_file_name, recover, redo, segment_file_name,
};
use ringraft_shards::random::Random;

const CLUSTER: ClusterId = ClusterId(7);
const NODE: NodeId = NodeId(1);
const SHARDS: u16 = 4;
const JOURNAL_BYTES: u64 = 64 << 10;
const FRAME_BYTES_MAX: usize = 4 << 10;

fn options(shard: ShardId) -> LogOptions {
    let identity = LogIdentity { cluster: CLUSTER, node: NODE, shard };
    LogOptions {
        block_bytes: 512,
        segment_bytes: 32 << 10,
        record_bytes_max: 4 << 10,
        ..LogOptions::new(identity)
    }
}

/// A write on its way, by itself.
struct Alone {
    shard: usize,
    write: LogWrite,
    on_disk: WriteInFlight,
}

/// A frame on its way, and the writes that it makes durable.
struct Together {
    ticket: FrameTicket,
    writes: Vec<(usize, LogWrite)>,
    on_disk: WriteInFlight,
}

/// The logs of a core and its journal, on disks that forget what was not synced.
struct Core {
    journals: MemoryDisk,
    disks: Vec<MemoryDisk>,
    journal: Journal,
    logs: Vec<Log>,
    /// Index of the last entry, and of the last one reported durable.
    last: Vec<u64>,
    durable: Vec<u64>,
    /// Index before the first entry of which the log may tell.
    base: Vec<u64>,
    /// Parts of a log before the first entry of this start.
    offset: Vec<u64>,
    alone: Vec<Alone>,
    together: Vec<Together>,
    /// The segments behind the frames of each file.
    behind: [Vec<(usize, String)>; 2],
    /// The last frame: its file, where it begins and ends.
    last_frame: (String, u64, u64),
    /// Frames written, and writes for which there was no room in one.
    counts: (usize, usize),
}

impl Core {
    /// Starts on these disks: journals first, then logs.
    fn start(
        journals: MemoryDisk,
        disks: Vec<MemoryDisk>,
        seed: u64,
    ) -> Result<(Core, Redone), RecoverError> {
        let redone = redo_on(&journals, &disks)?;
        let (mut logs, mut last, mut offset) = (Vec::new(), Vec::new(), Vec::new());
        for (shard, disk) in disks.iter().enumerate() {
            let recovered = read_log(disk, shard, seed)?;
            last.push(recovered.last.0);
            offset.push(recovered.last.0);
            logs.push(recovered.log);
        }
        let journal = Journal::new(CLUSTER, NODE, 0, JOURNAL_BYTES, seed);
        let (durable, base) = (last.clone(), last.clone());
        let (alone, together, behind, last_frame, counts) = Default::default();
        let core = Core {
            journals,
            disks,
            journal,
            logs,
            last,
            durable,
            base,
            offset,
            alone,
            together,
            behind,
            last_frame,
            counts,
        };
        Ok((core, redone))
    }

    fn append(&mut self, shard: usize, bytes: usize) {
        self.last[shard] += 1;
        let index = self.last[shard];
        let data = vec![index as u8; bytes].into();
        let entry = Entry { index, term: 1, data, ..Entry::default() };
        self.logs[shard].append(&[entry], u64::from(index > 1));
    }

    /// Ends a turn: what the logs want written is begun.
    fn turn(&mut self, chance: &mut Random) {
        let mut writes = Vec::new();
        for shard in 0..self.logs.len() {
            let log = &mut self.logs[shard];
            if let Some(action) = log.take_file_action() {
                let result = action.run(&self.disks[shard]);
                log.file_action_done(action.id, result);
            }
            log.set_layout(if chance.below(20) > 0 { Layout::Packed } else { Layout::Padded });
            let mut built = Vec::new();
            log.build(&mut built);
            self.write_runs(shard);
            for write in built {
                match write.layout {
                    Layout::Packed => writes.push((shard, write)),
                    Layout::Padded => self.begin_alone(shard, write),
                }
            }
        }
        while !writes.is_empty() {
            let records = writes.iter().map(|(_, write)| write);
            let (count, bytes) = Journal::fitting(records, FRAME_BYTES_MAX);
            assert!(count > 0 && (count == 1 || bytes <= FRAME_BYTES_MAX));
            if !self.journal.make_room(bytes) {
                break;
            }
            let framed = writes.drain(..count).collect();
            self.begin_frame(framed, chance);
        }
        self.counts.1 += usize::from(!writes.is_empty());
        for (shard, write) in writes {
            self.close_runs(shard);
            self.disks[shard].sync(&write.file_name()).expect("a good disk");
            self.report(shard, write);
        }
        if chance.below(3) == 0 {
            self.tend_journal();
        }
    }

    /// Empties what is full. Everything that it stands for must be in its segments before.
    fn tend_journal(&mut self) {
        while let Some(work) = self.journal.take_work() {
            (0..self.logs.len()).for_each(|shard| self.close_runs(shard));
            for (shard, file) in std::mem::take(&mut self.behind[work.place]) {
                // A segment that was given up stands for nothing.
                let there = |info: &ringraft_shards::disk::FileInfo| info.name == file;
                if self.disks[shard].list().expect("listed").iter().any(there) {
                    self.disks[shard].sync(&file).expect("a good disk");
                }
            }
            work.run(&self.journals).expect("a good disk");
            self.journal.work_done(&work, Ok(()));
        }
    }

    fn begin_alone(&mut self, shard: usize, write: LogWrite) {
        let bytes = write.buffer.as_slice();
        let on_disk = self.disks[shard].start_write(&write.file_name(), write.offset, bytes);
        self.alone.push(Alone { shard, write, on_disk: on_disk.expect("a good disk") });
    }

    fn close_runs(&mut self, shard: usize) {
        self.logs[shard].close_run();
        self.write_runs(shard);
    }

    fn write_runs(&mut self, shard: usize) {
        while let Some(run) = self.logs[shard].take_run() {
            let bytes = run.buffer.as_slice();
            assert!(run.offset % 512 == 0 && bytes.len() % 512 == 0, "whole blocks");
            let file = segment_file_name(run.sequence);
            self.disks[shard].write_at(&file, run.offset, bytes).expect("a good disk");
            self.logs[shard].run_written(run.buffer);
        }
    }

    fn begin_frame(&mut self, writes: Vec<(usize, LogWrite)>, chance: &mut Random) {
        let mut buffer = AlignedBuffer::with_capacity(0);
        let parts = writes.iter().map(|(shard, write)| (ShardId(*shard as u16), write));
        let ticket = self.journal.build(parts, &mut buffer);
        let name = journal_file_name(0, ticket.place);
        let on_disk = self.journals.start_write(&name, ticket.offset, buffer.as_slice());
        for (shard, write) in &writes {
            let file = write.file_name();
            if chance.below(8) == 0 {
                // The system writes pages back when it likes.
                self.disks[*shard].sync(&file).expect("a good disk");
            }
            self.behind[ticket.place].push((*shard, file));
        }
        let on_disk = on_disk.expect("a good disk");
        let end = ticket.offset + buffer.as_slice().len() as u64;
        self.last_frame = (name, ticket.offset, end);
        self.counts.0 += 1;
        self.together.push(Together { ticket, writes, on_disk });
    }

    /// Ends something that is on its way, by chance.
    fn complete_one(&mut self, chance: &mut Random) {
        let count = self.alone.len() + self.together.len();
        if count == 0 {
            return;
        }
        let at = chance.below(count as u64) as usize;
        if at < self.alone.len() {
            let Alone { shard, write, on_disk } = self.alone.swap_remove(at);
            self.disks[shard].complete_write(on_disk);
            self.report(shard, write);
        } else {
            let together = self.together.swap_remove(at - self.alone.len());
            self.journals.complete_write(together.on_disk);
            self.journal.written(together.ticket);
            for (shard, write) in together.writes {
                self.report(shard, write);
            }
        }
    }

    fn report(&mut self, shard: usize, write: LogWrite) {
        self.logs[shard].written(write.ticket, write.buffer);
        self.durable[shard] = self.offset[shard] + self.logs[shard].durable();
    }

    fn complete_all(&mut self, chance: &mut Random) {
        while !self.alone.is_empty() || !self.together.is_empty() {
            self.complete_one(chance);
        }
    }

    /// Random work.
    fn work(&mut self, steps: usize, chance: &mut Random) {
        for _ in 0..steps {
            for shard in 0..usize::from(SHARDS) {
                for _ in 0..chance.below(3) {
                    self.append(shard, 1 + chance.below(600) as usize);
                }
            }
            self.turn(chance);
            for _ in 0..chance.below(4) {
                self.complete_one(chance);
            }
            if chance.below(10) == 0 {
                let shard = chance.below(u64::from(SHARDS)) as usize;
                let through = self.durable[shard].saturating_sub(chance.below(40));
                if let Some(base) = self.logs[shard].compact(through) {
                    self.base[shard] = base;
                }
            }
        }
    }

    fn crash(self, chance: &mut Random) -> (MemoryDisk, Vec<MemoryDisk>) {
        self.journals.crash(chance);
        self.disks.iter().for_each(|disk| disk.crash(chance));
        (self.journals, self.disks)
    }
}

fn redo_on(journals: &MemoryDisk, disks: &[MemoryDisk]) -> Result<Redone, RecoverError> {
    let mut logs = |shard: ShardId| {
        let disk = disks.get(usize::from(shard.0)).cloned();
        Ok(disk.map(|disk| Arc::new(disk) as Arc<dyn Disk>))
    };
    redo(journals, (CLUSTER, NODE), 1, 9, &mut logs)
}

fn read_log(disk: &MemoryDisk, shard: usize, seed: u64) -> Result<RecoveredLog, RecoverError> {
    let options = options(ShardId(shard as u16));
    recover(Arc::new(disk.clone()), options, Index(0), seed, &mut |_, _| {})
}

fn fresh() -> (MemoryDisk, Vec<MemoryDisk>) {
    (MemoryDisk::new(), (0..SHARDS).map(|_| MemoryDisk::new()).collect())
}

#[test]
fn what_was_durable_survives_crash_after_crash() {
    let (mut frames, mut lonely, mut redone_records) = (0, 0, 0);
    for seed in 0..300 {
        let mut chance = Random::new(seed);
        let (mut journals, mut disks) = fresh();
        for life in 0..4 {
            let started = Core::start(journals, disks, chance.bits());
            let (mut core, redone) =
                started.unwrap_or_else(|error| panic!("seed {seed} life {life}: {error}"));
            redone_records += redone.records;
            let steps = chance.below(120) as usize;
            core.work(steps, &mut chance);
            let durable = core.durable.clone();
            frames += core.counts.0;
            lonely += core.counts.1;
            (journals, disks) = core.crash(&mut chance);
            if chance.below(4) == 0 {
                // A start that ends in the middle of its own work, and is done again.
                journals.fail(
                    if chance.below(2) == 0 { "write" } else { "sync" },
                    chance.below(3) as usize,
                );
                let _ = redo_on(&journals, &disks);
                journals.kill();
                journals.crash(&mut chance);
                disks.iter().for_each(|disk| disk.crash(&mut chance));
            }
            let (journals, disks): (MemoryDisk, Vec<_>) =
                (journals.copy(), disks.iter().map(MemoryDisk::copy).collect());
            redo_on(&journals, &disks)
                .unwrap_or_else(|error| panic!("seed {seed} life {life}: {error}"));
            for (shard, disk) in disks.iter().enumerate() {
                let recovered = read_log(disk, shard, 1)
                    .unwrap_or_else(|error| panic!("seed {seed} life {life}: {error}"));
                assert!(
                    recovered.last.0 >= durable[shard],
                    "seed {seed} life {life} shard {shard}: {} of {}",
                    recovered.last.0,
                    durable[shard]
                );
                for entry in &recovered.entries {
                    assert!(entry.data.iter().all(|byte| *byte == entry.index as u8));
                }
            }
        }
    }
    assert!(frames > 10_000 && lonely > 0, "{frames} {lonely}");
    assert!(redone_records > 10_000, "{redone_records}");
}

#[test]
fn without_its_journal_a_log_has_lost_something() {
    let mut lost = 0;
    for seed in 0..20 {
        let mut chance = Random::new(seed);
        let (journals, disks) = fresh();
        let (mut core, _) = Core::start(journals, disks, seed).expect("empty");
        core.work(40, &mut chance);
        let durable = core.durable.clone();
        let (_, disks) = core.crash(&mut chance);
        for (shard, disk) in disks.iter().enumerate() {
            let read = read_log(disk, shard, 1);
            lost += usize::from(read.is_ok_and(|log| log.last.0 < durable[shard]));
        }
    }
    assert!(lost > 10, "the test above proves something: {lost}");
}

#[test]
fn every_changed_byte_of_a_journal_is_refused_or_costs_only_the_last_frame() {
    let mut chance = Random::new(3);
    let (journals, disks) = fresh();
    let (mut core, _) = Core::start(journals, disks, 1).expect("empty");
    while core.counts.0 < 8 {
        core.work(1, &mut chance);
        core.complete_all(&mut chance);
    }
    let durable = core.durable.clone();
    let last = core.last_frame.clone();
    let (journals, disks) = core.crash(&mut chance);
    let (mut refused, mut fine, mut short) = (0, 0, 0);
    for file in journals.list().expect("listed") {
        for offset in (0..file.bytes.min(40 << 10)).filter(|at| *at < 64 || at % 13 == 0) {
            let journals = journals.copy();
            let disks: Vec<_> = disks.iter().map(MemoryDisk::copy).collect();
            journals.flip(&file.name, offset, 1 << chance.below(8));
            match redo_on(&journals, &disks) {
                Err(error) => {
                    assert!(error.to_string().contains(&file.name), "{error}");
                    assert!(!journals.list().expect("listed").is_empty(), "nothing was changed");
                    refused += 1;
                }
                Ok(_) => {
                    let mut whole = true;
                    for (shard, disk) in disks.iter().enumerate() {
                        match read_log(disk, shard, 1) {
                            Ok(log) => whole &= log.last.0 >= durable[shard],
                            Err(_) => whole = false,
                        }
                    }
                    if whole {
                        fine += 1;
                    } else {
                        // Nothing says of it that it was durable: as with the last record of a log.
                        assert_eq!(file.name, last.0, "at {offset}");
                        assert!((last.1..last.2).contains(&offset), "at {offset}");
                        short += 1;
                    }
                }
            }
        }
    }
    assert!(refused > 500 && fine > 500 && short > 20, "{refused} {fine} {short}");
}

#[test]
fn journals_of_others_and_of_other_versions_are_refused_by_name() {
    let mut chance = Random::new(3);
    let (journals, disks) = fresh();
    let (mut core, _) = Core::start(journals, disks, 1).expect("empty");
    core.work(10, &mut chance);
    core.complete_all(&mut chance);
    let (journals, _) = core.crash(&mut chance);
    let mut none = |_| Ok(None);
    let foreign =
        redo(&journals.copy(), (ClusterId(8), NODE), 1, 9, &mut none).expect_err("another cluster");
    assert!(foreign.to_string().contains("belongs to cluster"), "{foreign}");
    let foreign =
        redo(&journals.copy(), (CLUSTER, NodeId(2)), 1, 9, &mut none).expect_err("another node");
    assert!(foreign.to_string().contains("belongs to node 1, not to 2"), "{foreign}");
    let name = journal_file_name(0, 0);
    let newer = journals.copy();
    newer.flip(&name, 8, 3);
    let newer = redo(&newer, (CLUSTER, NODE), 1, 9, &mut none).expect_err("a newer one");
    assert!(newer.to_string().contains("has log format 2"), "{newer}");
    let other = journals.copy();
    other.flip(&name, 0, 1);
    let other = redo(&other, (CLUSTER, NODE), 1, 9, &mut none).expect_err("no journal");
    assert!(other.to_string().contains("is not a journal"), "{other}");
    let redone = redo(&journals, (CLUSTER, NODE), 1, 9, &mut none).expect("its own");
    assert!(redone.frames > 0 && redone.records == 0, "no shards: {redone:?}");
    assert_eq!(journals.list().expect("listed").len(), 2, "the files stay");
    let again = redo(&journals, (CLUSTER, NODE), 0, 9, &mut none).expect("its own");
    assert_eq!((again.files, again.frames), (2, 0), "and are empty");
    assert!(journals.list().expect("listed").is_empty(), "no core has them any more");
}

#[test]
fn entries_are_read_back_wherever_their_records_are() {
    for seed in 0..50 {
        let mut chance = Random::new(seed);
        let (journals, disks) = fresh();
        let (mut core, _) = Core::start(journals, disks, seed).expect("empty");
        core.work(60, &mut chance);
        core.complete_all(&mut chance);
        for (shard, log) in core.logs.iter().enumerate() {
            let last = core.durable[shard];
            // Of those before, some may be given up.
            let low = last.saturating_sub(20).max(core.base[shard] + 1);
            let disk = &core.disks[shard];
            let read = |low, high| common::read_back(log, disk, (low, high), u64::MAX);
            let mut entries = Vec::new();
            while low + (entries.len() as u64) <= last {
                let from = low + entries.len() as u64;
                let more = read(from, last + 1).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
                assert!(!more.is_empty(), "seed {seed}: one at least");
                entries.extend(more);
            }
            for (entry, index) in entries.iter().zip(low..) {
                assert_eq!(entry.index, index, "seed {seed} shard {shard}");
                assert!(entry.data.iter().all(|byte| *byte == index as u8), "seed {seed}");
            }
        }
    }
}

#[test]
fn records_that_a_journal_makes_durable_share_blocks_and_others_do_not() {
    let (_, disks) = fresh();
    let (mut core, _) = Core::start(MemoryDisk::new(), disks, 1).expect("empty");
    let action = core.logs[0].take_file_action().expect("the first segment");
    let result = action.run(&core.disks[0]);
    core.logs[0].file_action_done(action.id, result);
    let mut places = Vec::new();
    for layout in [Layout::Padded, Layout::Packed, Layout::Packed, Layout::Padded, Layout::Packed] {
        core.append(0, 100);
        let (log, mut built) = (&mut core.logs[0], Vec::new());
        log.set_layout(layout);
        log.build(&mut built);
        let write = built.pop().expect("one");
        assert_eq!(write.layout, layout);
        places.push(write.offset);
        log.written(write.ticket, write.buffer);
    }
    // The first holds the hard state too. 64 + 8 + 24 + 100 bytes are 196, the next multiple of 8
    // is 200.
    assert_eq!(places, [512, 1024, 1224, 1536, 2048]);
    core.close_runs(0);
}
