//! Snapshots of a replica: cut while writes go on, made durable, sent, received, installed, loaded
//! at the start.

use std::rc::Rc;

use ringraft_shards::clock::ShardClock;
use ringraft_shards::disk::{Disk, DiskError, MemoryDisk};
use ringraft_shards::ids::{Index, ShardId};
use ringraft_shards::keyspace::{KeyHasher, Keyspace};
use ringraft_shards::limits::SNAPSHOT_KEPT_COUNT;
use ringraft_shards::raft::{PeerMessage, SnapshotPoint};
use ringraft_shards::snapshot::load::load;
use ringraft_shards::snapshot::{Header, SlotRange, SnapshotReader, SnapshotWriter};

use crate::counts::Count;
use crate::links::Payload;
use crate::machine::HASH_SEED;
use crate::node::Input;
use crate::replica::{CLUSTER, Outbox, Replica, Running};
use crate::replicas::META;
use crate::schedule::Core;
use crate::transfer::{Incoming, Piece, PieceAnswer};

/// Entries between two snapshots of a replica of the meta group, which has few.
const META_SNAPSHOT_EVERY: u64 = 5;

/// Buckets of the keyspace that a turn cuts.
const CUT_BUCKETS: usize = 4;

/// A snapshot in the making.
pub struct Cutting {
    point: SnapshotPoint,
    writer: Option<SnapshotWriter>,
    /// All bytes, once it is cut.
    bytes: Vec<u8>,
}

/// Ending of a snapshot's file name.
const EXTENSION: &str = ".snap";

fn file_name(index: Index) -> String {
    format!("{:020}{EXTENSION}", index.0)
}

fn store(disk: &MemoryDisk, index: Index, bytes: &[u8]) -> Result<(), DiskError> {
    let pending = format!("{:020}.tmp", index.0);
    let written = disk
        .create_zeroed(&pending, bytes.len() as u64)
        .and_then(|()| disk.write_at(&pending, 0, bytes))
        .and_then(|()| disk.sync(&pending))
        .and_then(|()| disk.rename(&pending, &file_name(index)));
    if written.is_err() {
        // Half a file on a full disk would only make things worse.
        let _ = disk.remove(&pending);
    }
    written?;
    disk.sync_directory()
}

/// All snapshots of a disk, oldest first.
pub fn files(disk: &MemoryDisk) -> Vec<String> {
    let list = disk.list().expect("listing never fails here");
    let mut names: Vec<String> = list.into_iter().map(|file| file.name).collect();
    names.retain(|name| name.ends_with(EXTENSION));
    names.sort();
    names
}

/// Reads a snapshot into an empty keyspace.
fn read(
    bytes: &[u8],
    keyspace: &mut Keyspace,
    last_time_ms: &mut i64,
) -> Result<SnapshotPoint, String> {
    let mut reader = SnapshotReader::open(bytes, bytes.len() as u64)
        .map_err(|error| format!("snapshot: {error}"))?;
    load(&mut reader, keyspace, &mut |_| {}).map_err(|error| format!("snapshot: {error}"))?;
    let header = reader.header();
    *last_time_ms = header.leader_time_ms;
    let membership = header.membership.clone();
    Ok(SnapshotPoint { index: header.index, term: header.term, membership })
}

/// A snapshot: its place in the log, and its bytes.
pub type Stored = (SnapshotPoint, Rc<Vec<u8>>);

/// Loads the newest snapshot of a disk. A damaged one is an error: it was complete when it got its
/// name.
pub fn load_newest(
    disk: &MemoryDisk,
    keyspace: &mut Keyspace,
    last_time_ms: &mut i64,
) -> Result<Option<Stored>, String> {
    let Some(newest) = files(disk).pop() else { return Ok(None) };
    // The process before may have ended between the renaming and this; the log may soon rest on the
    // name.
    disk.sync_directory().map_err(|error| error.to_string())?;
    let bytes = disk.read_all(&newest);
    let point = read(&bytes, keyspace, last_time_ms)?;
    Ok(Some((point, Rc::new(bytes))))
}

impl Running {
    /// Begins a snapshot if one is due, or goes on with the one that is on.
    pub fn cut(&mut self, shard: u16, core: &mut Core, outbox: &mut Outbox) {
        let every = if shard == META { META_SNAPSHOT_EVERY } else { core.plan.snapshot_every };
        let due = self.since_snapshot >= every || self.snapshot_wanted;
        if self.cutting.is_none() && due && self.server.group.applied_index().0 > 1 {
            if !self.server.keyspace.begin_cut() {
                return;
            }
            let point = self.server.group.snapshot_point();
            let header = Header {
                slot_scheme: Default::default(),
                cluster: CLUSTER,
                shard: ShardId(shard),
                term: point.term,
                index: point.index,
                slots: vec![SlotRange::all()],
                key_hash_seed: HASH_SEED,
                created_ms: 0,
                leader_time_ms: self.server.clock.latest_ms(),
                membership: point.membership.clone(),
            };
            let mut writer = SnapshotWriter::new(header);
            writer.push_ledger(self.server.keyspace.ledger());
            writer.push_remembered(self.server.keyspace.remembered());
            writer.push_limits(self.server.keyspace.limits());
            self.cutting = Some(Cutting { point, writer: Some(writer), bytes: Vec::new() });
            (self.since_snapshot, self.snapshot_wanted) = (0, false);
        }
        let Some(cutting) = &mut self.cutting else { return };
        let Some(writer) = &mut cutting.writer else { return };
        if self
            .server
            .keyspace
            .cut_step(CUT_BUCKETS, &mut |database, item, from| writer.push(database, item, from))
        {
            let writer = cutting.writer.take().expect("just used");
            let (bytes, _) = writer.finish();
            cutting.bytes = bytes;
            let delay_us = core.around(4 * core.plan.disk_us);
            outbox.later.push((delay_us, Input::SnapshotWritten { shard }));
        }
    }

    /// A snapshot takes the place of the state.
    pub fn install(&mut self, point: &SnapshotPoint, core: &mut Core) -> Result<(), String> {
        let found = self.snapshots.iter().find(|(stored, _)| stored == point);
        let Some((_, bytes)) = found else {
            core.audit.fail(|| format!("a snapshot at {} was never stored", point.index));
            return Ok(());
        };
        let mut fresh = Keyspace::new(KeyHasher::new(HASH_SEED));
        let mut time_ms = 0;
        let read = read(bytes, &mut fresh, &mut time_ms)?;
        fresh.take_watches(&mut self.server.keyspace);
        self.server.keyspace = fresh;
        (self.server.clock, self.fleeting) = (ShardClock::new(time_ms), Default::default());
        assert_eq!(read, *point, "the header says what was offered");
        self.cutting = None;
        self.since_snapshot = 0;
        self.server.group.snapshot_taken(point.clone(), point.index.to_string());
        self.server.group.applied(point.index);
        if self.shard == META {
            self.note_loaded(point.index.0, core);
        }
        Ok(())
    }

    fn keep(&mut self, disk: &MemoryDisk, point: SnapshotPoint, bytes: Vec<u8>) {
        self.snapshots.push((point, Rc::new(bytes)));
        while self.snapshots.len() > SNAPSHOT_KEPT_COUNT {
            let (old, _) = self.snapshots.remove(0);
            // A file that stays behind is in nobody's way.
            let _ = disk.remove(&file_name(old.index));
        }
    }

    /// Drops snapshots that came in and that the group did not take, since their leader was
    /// replaced meanwhile: an older one of the new leader must not be hidden by them.
    fn drop_beyond(&mut self, disk: &MemoryDisk, commit: Index) -> usize {
        let before = self.snapshots.len();
        while let Some((newest, _)) = self.snapshots.pop_if(|(point, _)| point.index > commit) {
            // One that stays behind would be loaded at a restart, and is as good as any.
            let _ = disk.remove(&file_name(newest.index));
        }
        before - self.snapshots.len()
    }

    fn newest(&self) -> Index {
        self.snapshots.last().map_or(Index(0), |(point, _)| point.index)
    }
}

impl Replica {
    /// The snapshot that was cut goes to the disk now.
    pub fn write_snapshot(&mut self, core: &mut Core) {
        let Some(running) = &mut self.running else { return };
        // An installed snapshot may have ended it meanwhile.
        let finished = |cutting: &mut Cutting| cutting.writer.is_none();
        let Some(cutting) = running.cutting.take_if(finished) else { return };
        if cutting.point.index <= running.newest() {
            return;
        }
        let index = cutting.point.index;
        if store(&self.disk, index, &cutting.bytes).is_err() {
            running.snapshot_wanted = true;
            return;
        }
        running.keep(&self.disk, cutting.point.clone(), cutting.bytes);
        running.server.group.snapshot_taken(cutting.point, index.to_string());
        running.server.group.compact(index);
        running.stirred = true;
        core.count(Count::Snapshots);
        let (node, shard) = (self.node, self.shard);
        core.note(|| format!("n{node}/s{shard} has a snapshot at {index}"));
    }

    /// A piece of a snapshot comes in.
    pub fn take_piece(&mut self, from: u64, piece: Piece, core: &mut Core, outbox: &mut Outbox) {
        let (shard, transfer) = (self.shard, piece.transfer);
        let Some(running) = &mut self.running else { return };
        core.count(Count::SnapshotChunks);
        let known = running.incoming.get(&from).is_some_and(|one| one.transfer == transfer);
        if !known {
            if piece.offset > 0 {
                return;
            }
            let incoming = Incoming { transfer, bytes: Vec::new(), storing: false };
            running.incoming.insert(from, incoming);
        }
        let incoming = running.incoming.get_mut(&from).expect("just looked");
        if incoming.take(&piece) {
            let delay_us = core.around(4 * core.plan.disk_us);
            let input = Input::PieceStored { shard, from, message: piece.message };
            outbox.later.push((delay_us, input));
        }
        let next_offset = incoming.bytes.len();
        let answer = PieceAnswer { transfer, next_offset, stored: false };
        outbox.payloads.push((from, Payload::PieceAnswer { shard, answer }));
    }

    /// A snapshot that came in goes to the disk, and then to the group.
    pub fn store_incoming(
        &mut self,
        from: u64,
        message: PeerMessage,
        core: &mut Core,
        outbox: &mut Outbox,
    ) {
        let (node, shard) = (self.node, self.shard);
        let Some(running) = &mut self.running else { return };
        let Some(incoming) = running.incoming.remove(&from) else { return };
        let point = message.snapshot().expect("pieces come with the offer").point;
        if !incoming.storing {
            return;
        }
        let commit = running.server.group.commit_index();
        if point.index > commit {
            let dropped = running.drop_beyond(&self.disk, commit);
            let mut scratch = Keyspace::new(KeyHasher::new(HASH_SEED));
            let good = read(&incoming.bytes, &mut scratch, &mut 0).as_ref() == Ok(&point);
            if !good || store(&self.disk, point.index, &incoming.bytes).is_err() {
                // The sender gives up after a while.
                return;
            }
            let index = point.index;
            core.note(|| format!("n{node}/s{shard} stores a snapshot at {index} ({dropped} fell)"));
            // What is being cut is older.
            running.keep(&self.disk, point, incoming.bytes);
        }
        // A refusal is as good as a loss.
        let _ = running.server.group.step(message);
        running.stirred = true;
        let answer =
            PieceAnswer { transfer: incoming.transfer, next_offset: usize::MAX, stored: true };
        outbox.payloads.push((from, Payload::PieceAnswer { shard, answer }));
    }

    /// The receiver of a snapshot says how much it has.
    pub fn take_piece_answer(&mut self, from: u64, answer: PieceAnswer, outbox: &mut Outbox) {
        let shard = self.shard;
        let Some(running) = &mut self.running else { return };
        let Some(outgoing) = running.outgoing.get_mut(&from) else { return };
        if outgoing.transfer != answer.transfer {
            return;
        }
        if answer.stored {
            let to = outgoing.to();
            running.outgoing.remove(&from);
            running.server.group.snapshot_sent(to, true);
            running.stirred = true;
        } else if outgoing.answered(answer.next_offset) {
            outbox.payloads.push((from, Payload::Piece { shard, piece: outgoing.piece() }));
        }
    }

    /// Time passes for the transfers.
    pub fn tick_transfers(&mut self, outbox: &mut Outbox) {
        let shard = self.shard;
        let Some(running) = &mut self.running else { return };
        let mut failed = Vec::new();
        for (to, outgoing) in &mut running.outgoing {
            match outgoing.tick() {
                Some(true) => {
                    let piece = outgoing.piece();
                    outbox.payloads.push((*to, Payload::Piece { shard, piece }));
                }
                Some(false) => failed.push(*to),
                None => {}
            }
        }
        for to in failed {
            if let Some(outgoing) = running.outgoing.remove(&to) {
                running.server.group.snapshot_sent(outgoing.to(), false);
            }
        }
    }
}
