//! One node's member of one shard, and the driver's duties: disk, state, snapshots. Requests are in
//! `serve.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use ringraft_shards::disk::{Disk, MemoryDisk, WriteInFlight};
use ringraft_shards::ids::{ClusterId, Index, MonotonicTime, NodeId, ShardId};
use ringraft_shards::keyspace::{KeyHasher, Keyspace};
use ringraft_shards::log::{
    AlignedBuffer, FileAction, LogIdentity, LogOptions, LogRead, RecoverError, WriteTicket, recover,
};
use ringraft_shards::meta::MetaState;
use ringraft_shards::raft::{
    CommittedEntry, EntryKind, Group, GroupConfig, OpenError, Output, PeerMessage, Role,
    SnapshotPoint,
};

use ringraft_shards::random::Random;
use ringraft_shards::serve::{self, Server};

use crate::counts::Count;
use crate::links::Payload;
use crate::machine::HASH_SEED;
use crate::members::Told;
use crate::node::{Input, TICK_US};
use crate::plan::Flaw;
use crate::replicas::META;
use crate::request::Answer;
use crate::schedule::Core;
use crate::serve::{TransactionMessage, Turn};
use crate::serve::{blocked::Blocks, fleeting::Fleeting, reading::Reading};
use crate::snapshots::{self, Cutting};
use crate::transfer::{Incoming, Outgoing};

/// The cluster of all runs.
pub const CLUSTER: ClusterId = ClusterId(7);

/// Digests are compared after entries whose index is a multiple of this.
const DIGEST_EVERY: u64 = 8;

/// Durable log writes that are remembered, for flipping bits in them.
const WRITES_REMEMBERED: usize = 64;

/// A log write that the disk has done.
#[derive(Clone)]
pub struct DurableWrite {
    pub ticket: u64,
    pub file: String,
    pub offset: u64,
    pub bytes: usize,
}

/// A log write under way.
struct Write {
    /// `None` when the disk only pretends.
    started: Option<WriteInFlight>,
    buffer: AlignedBuffer,
    place: DurableWrite,
    /// All writes up to this ticket were reported when it was built: it vouches for them.
    vouches_for: u64,
    failed: bool,
}

/// What a turn hands to its node.
#[derive(Default)]
pub struct Outbox {
    pub payloads: Vec<(u64, Payload)>,
    pub answers: Vec<Answer>,
    /// What the operator is told, by its tickets.
    pub told: Vec<(u64, Told)>,
    /// Messages of transactions.
    pub transactions: Vec<TransactionMessage>,
    /// Things that the node will hear of after a while.
    pub later: Vec<(u64, Input)>,
}

/// A replica: its disk, and the process's part when it runs.
pub struct Replica {
    pub node: u64,
    /// The member of the group that it is: the node, and which replica of it.
    pub id: NodeId,
    pub shard: u16,
    pub disk: MemoryDisk,
    options: LogOptions,
    config: GroupConfig,
    pub running: Option<Running>,
    /// Log writes that are on the disk, oldest first, and up to which ticket a later one vouches
    /// for them.
    pub durable: VecDeque<DurableWrite>,
    pub vouched: u64,
    /// The next write of the log fails.
    pub fail_next_write: bool,
}

/// The process's part.
pub struct Running {
    pub shard: u16,
    /// The latest operation that a leader's state holds, for the checker; found when it is asked
    /// for first.
    pub hint: Option<u64>,
    pub server: Server<Running>,
    /// What is broken here on purpose.
    pub flaw: Flaw,
    /// For the entries that it proposes.
    pub chance: Random,
    /// What the clock that never goes back showed at the beginning of this turn.
    pub began: MonotonicTime,
    /// What the node's wall clock showed at the beginning of this turn, and how often it has
    /// jumped.
    pub wall_ms: i64,
    pub jumps: u64,
    /// Was the last attempt to turn time back refused?
    pub turn_refused: bool,
    pub fleeting: Fleeting,
    /// Commands that wait.
    pub blocks: Blocks,
    /// Reads that wait.
    pub reading: Reading,
    /// Of the meta group: what is agreed on.
    pub known: Option<Rc<MetaState>>,
    /// Has it applied an entry of its log yet?
    pub has_applied: bool,
    writes: BTreeMap<u64, Write>,
    reported: u64,
    file_action: Option<FileAction>,
    log_reads: BTreeMap<u64, LogRead>,
    /// Snapshots on the disk, oldest first.
    pub snapshots: Vec<(SnapshotPoint, Rc<Vec<u8>>)>,
    pub since_snapshot: u64,
    pub snapshot_wanted: bool,
    pub cutting: Option<Cutting>,
    pub outgoing: BTreeMap<u64, Outgoing>,
    pub incoming: BTreeMap<u64, Incoming>,
    pub transfers: u64,
    /// Is there something to poll for?
    pub stirred: bool,
    out: Output,
}

fn options(id: NodeId, shard: u16) -> LogOptions {
    let identity = LogIdentity { cluster: CLUSTER, node: id.node(), shard: ShardId(shard) };
    LogOptions {
        block_bytes: 512,
        segment_bytes: 16 << 10,
        record_bytes_max: 4 << 10,
        writes_in_flight_max: 4,
        ..LogOptions::new(identity)
    }
}

fn config(id: NodeId, shard: u16, voters: &[u64]) -> GroupConfig {
    let voters = voters.iter().copied().map(NodeId).collect();
    GroupConfig {
        message_bytes_max: 2 << 10,
        messages_in_flight_max: 8,
        uncommitted_bytes_max: 32 << 10,
        entry_cache_bytes: 4 << 10,
        retained_bytes_max: 64 << 10,
        tick_us: TICK_US,
        ..GroupConfig::new(id, ShardId(shard), voters)
    }
}

impl Replica {
    /// A replica on an empty disk. Without `voters` it waits to be invited.
    pub fn new(id: NodeId, shard: u16, voters: &[u64]) -> Replica {
        Replica {
            node: id.node().0,
            id,
            shard,
            disk: MemoryDisk::new(),
            options: options(id, shard),
            config: config(id, shard, voters),
            running: None,
            durable: VecDeque::new(),
            vouched: 0,
            fail_next_write: false,
        }
    }

    /// Starts, from what the disk holds. The error says what is damaged.
    pub fn start(&mut self, core: &mut Core, seed: u64) -> Result<(), String> {
        let mut keyspace = Keyspace::new(KeyHasher::new(HASH_SEED));
        let mut last_time_ms = 0;
        let stored = snapshots::load_newest(&self.disk, &mut keyspace, &mut last_time_ms)?;
        let keep_after = stored.as_ref().map_or(Index(0), |(point, _)| point.index);
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let mut log = recover(disk, self.options, keep_after, seed, &mut |_, _| {})
            .map_err(|error| error.to_string())?;
        if log.cut.is_some() {
            core.count(Count::TornTails);
        }
        // What vouched for older writes may have been cut off.
        self.durable.clear();
        self.vouched = 0;
        if core.plan.flaw == Flaw::ForgottenVote {
            log.vote = 0;
        }
        let point = stored.as_ref().map(|(point, _)| point.clone());
        let mut group =
            Group::open(self.config.clone(), Some(log), point, seed).map_err(refusal)?;
        if let Some((point, _)) = &stored {
            group.snapshot_taken(point.clone(), point.index.to_string());
        }
        core.audit.started(self.id.0, self.shard, group.last_index().0);
        let running = Running {
            shard: self.shard,
            hint: None,
            server: Server::new(ShardId(self.shard), keyspace, group, last_time_ms),
            flaw: core.plan.flaw,
            chance: Random::new(seed ^ 0x5eed),
            began: MonotonicTime(0),
            wall_ms: last_time_ms,
            jumps: 0,
            turn_refused: false,
            fleeting: Fleeting::default(),
            blocks: Blocks::default(),
            reading: Reading::default(),
            known: None,
            has_applied: false,
            writes: BTreeMap::new(),
            reported: 0,
            file_action: None,
            log_reads: BTreeMap::new(),
            snapshots: stored.into_iter().collect(),
            since_snapshot: 0,
            snapshot_wanted: false,
            cutting: None,
            outgoing: BTreeMap::new(),
            incoming: BTreeMap::new(),
            transfers: seed << 16,
            stirred: true,
            out: Output::default(),
        };
        let running = self.running.insert(running);
        if self.shard == META {
            running.note_loaded(keep_after.0, core);
        }
        Ok(())
    }

    /// One that is lost, or was named before and has not begun, is its node's replica of this
    /// generation from now on. False when it is another one, or goes on as it is.
    pub fn rename(&mut self, generation: u32) -> bool {
        let group = &mut self.running.as_mut().expect("it is up").server.group;
        let is_older = self.id.is_lost_replica() || self.id.generation() < generation;
        if group.has_begun() || !is_older {
            return false;
        }
        self.id = self.id.node().replica(generation);
        self.config.node = self.id;
        group.become_member(self.id);
        true
    }

    /// The process ends.
    pub fn stop(&mut self) {
        self.running = None;
        self.fail_next_write = false;
    }

    pub fn is_leader(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.server.group.role() == Role::Leader)
    }

    /// The disk ends a write. Did it fail?
    pub fn complete_write(&mut self, ticket: u64, core: &mut Core) {
        let Some(write) = self.running.as_mut().and_then(|running| running.writes.get_mut(&ticket))
        else {
            return;
        };
        let Some(started) = write.started.take() else { return };
        if std::mem::take(&mut self.fail_next_write) {
            write.failed = true;
            self.disk.fail_write(started, &mut core.chance);
            return;
        }
        self.disk.complete_write(started);
        self.vouched = self.vouched.max(write.vouches_for);
        self.durable.push_back(write.place.clone());
        if self.durable.len() > WRITES_REMEMBERED {
            self.durable.pop_front();
        }
    }

    /// The process hears that a write is done.
    pub fn written(&mut self, ticket: u64) {
        let Some(running) = &mut self.running else { return };
        let Some(write) = running.writes.remove(&ticket) else { return };
        running.stirred = true;
        if write.failed {
            running.server.group.write_failed(WriteTicket(ticket), "the disk says so");
        } else {
            running.server.group.written(WriteTicket(ticket), write.buffer);
            let oldest = running.writes.keys().next().copied().unwrap_or(u64::MAX);
            running.reported = running.reported.max(ticket.min(oldest - 1));
        }
    }

    /// The work on files that is out is done now; the process hears of it at once.
    pub fn finish_file_action(&mut self) {
        let Some(running) = &mut self.running else { return };
        let Some(action) = running.file_action.take() else { return };
        let result = action.run(&self.disk);
        running.server.group.file_action_done(action.id, result);
        running.stirred = true;
    }

    /// A piece of the log is read now; the process hears of it at once.
    pub fn finish_log_read(&mut self, id: u64, core: &mut Core) {
        let Some(running) = &mut self.running else { return };
        let Some(read) = running.log_reads.remove(&id) else { return };
        let result = read.run(&self.disk);
        running.server.group.log_read_done(id, result);
        running.stirred = true;
        core.count(Count::LogReads);
    }

    /// Polls until nothing comes, doing what is said. The error ends the process.
    pub fn poll(&mut self, core: &mut Core, outbox: &mut Outbox) -> Result<(), String> {
        loop {
            let Some(running) = &mut self.running else { return Ok(()) };
            let mut out = std::mem::take(&mut running.out);
            out.clear();
            running.server.group.poll(&mut out);
            if let Some(failure) = &out.failure {
                return Err(failure.to_string());
            }
            let again = out.more || !out.committed.is_empty() || out.install.is_some();
            if out.role_changed {
                let leads = running.server.group.role() == Role::Leader;
                core.note_leader(self.shard, self.node, leads);
            }
            if out.role_changed && running.server.group.role() == Role::Leader {
                let term = running.server.group.term().0;
                if core.audit.leader(self.id.0, self.shard, term) {
                    core.count(Count::Elections);
                    let (node, shard) = (self.node, self.shard);
                    core.note(|| format!("n{node}/s{shard} leads term {term}"));
                }
            }
            for message in out.messages.drain(..) {
                self.route(message, core, outbox);
            }
            self.start_writes(&mut out, core, outbox);
            let running = self.running.as_mut().expect("it polled");
            running.snapshot_wanted |= out.snapshot_wanted;
            running.polled(&out, core, outbox);
            if let Some(install) = out.install.take() {
                running.install(&install.point, core)?;
                core.count(Count::Installs);
                let (node, shard, index) = (self.node, self.shard, install.point.index);
                core.note(|| format!("n{node}/s{shard} installs a snapshot at {index}"));
            }
            for entry in out.committed.drain(..) {
                running.apply(&entry, self.node, self.shard, core, outbox);
            }
            running.settle(&mut out, core, outbox);
            core.audit.log_ends(
                self.id.0,
                self.shard,
                running.server.group.last_index().0,
                running.server.group.commit_index().0,
            );
            running.out = out;
            if !again {
                running.stirred = running.server.is_pressed();
                return Ok(());
            }
        }
    }

    fn route(&mut self, message: PeerMessage, core: &mut Core, outbox: &mut Outbox) {
        core.audit.message(self.shard, &message);
        let shard = self.shard;
        let to = message.to().node().0;
        let Some(install) = message.snapshot() else {
            outbox.payloads.push((to, Payload::Raft { shard, message }));
            return;
        };
        let running = self.running.as_mut().expect("it sent a message");
        let found = running.snapshots.iter().find(|(point, _)| *point == install.point);
        let Some((_, bytes)) = found else {
            running.server.group.snapshot_sent(message.to(), false);
            return;
        };
        running.transfers += 1;
        let outgoing = Outgoing::new(running.transfers, message, bytes.clone());
        core.count(Count::SnapshotsSent);
        outbox.payloads.push((to, Payload::Piece { shard, piece: outgoing.piece() }));
        running.outgoing.insert(to, outgoing);
    }

    fn start_writes(&mut self, out: &mut Output, core: &mut Core, outbox: &mut Outbox) {
        let running = self.running.as_mut().expect("it polled");
        let pretend = match core.plan.flaw {
            Flaw::SkippedSync => true,
            Flaw::ForgottenMeta => self.shard == META,
            _ => false,
        };
        for write in out.writes.drain(..) {
            let ticket = write.ticket.0;
            let bytes = write.buffer.as_slice();
            let file = write.file_name();
            let place = DurableWrite {
                ticket,
                file: file.clone(),
                offset: write.offset,
                bytes: bytes.len(),
            };
            let started = if pretend {
                self.disk.write_at(&file, write.offset, bytes).map(|()| None)
            } else {
                self.disk.start_write(&file, write.offset, bytes).map(Some)
            };
            match started {
                Ok(started) => {
                    let write = Write {
                        started,
                        buffer: write.buffer,
                        place,
                        vouches_for: running.reported,
                        failed: false,
                    };
                    running.writes.insert(ticket, write);
                    let delay_us = core.around(core.plan.disk_us);
                    let input = Input::Written { shard: self.shard, ticket };
                    outbox.later.push((delay_us, input));
                }
                Err(error) => {
                    running.server.group.write_failed(write.ticket, &error.to_string());
                    running.stirred = true;
                }
            }
        }
        if let Some(action) = out.file_action.take() {
            assert!(running.file_action.is_none(), "one at a time");
            running.file_action = Some(action);
            let delay_us = core.around(4 * core.plan.disk_us);
            outbox.later.push((delay_us, Input::FileWork { shard: self.shard }));
        }
        for read in out.log_reads.drain(..) {
            let delay_us = core.around(4 * core.plan.disk_us);
            outbox.later.push((delay_us, Input::LogRead { shard: self.shard, id: read.id }));
            running.log_reads.insert(read.id, read);
        }
    }
}

impl Running {
    /// Applies an entry and answers those who wait for it.
    fn apply(
        &mut self,
        entry: &CommittedEntry,
        node: u64,
        shard: u16,
        core: &mut Core,
        outbox: &mut Outbox,
    ) {
        let index = entry.index;
        assert_eq!(index.0, self.server.group.applied_index().0 + 1, "no gaps");
        core.audit.entry(node, shard, entry);
        core.count(Count::Entries);
        if entry.kind == EntryKind::Command {
            serve::apply(self, entry, &mut Turn { core, outbox });
            core.note(|| format!("n{node}/s{shard} applied {index} of term {}", entry.term));
            self.since_snapshot += 1;
            self.has_applied = true;
            if shard == META {
                self.note_agreed(index.0, core);
            }
        }
        if self.server.serves() {
            let hint = self.hint(core);
            core.audit.reached(shard, index.0, hint);
        }
        self.server.group.applied(index);
        if entry.kind == EntryKind::Membership {
            core.audit.members(shard, index.0, self.server.group.membership());
        }
        if index.0.is_multiple_of(DIGEST_EVERY) || shard == META {
            core.audit.digest(node, shard, index.0, self.server.keyspace.digest_all());
            core.count(Count::Digests);
        }
    }
}

fn refusal(error: OpenError) -> String {
    match error {
        OpenError::Log(RecoverError::Uncovered { .. }) => format!("uncovered: {error}"),
        other => other.to_string(),
    }
}
