//! Snapshots of a core's shards while they serve.
//!
//! A snapshot is a cut through the keyspace at one index: each turn hands out some more of its
//! items, which the writer turns into checksummed chunks, and glommio's helper thread writes the
//! chunks. Nothing is forked and nothing copied but what changes before its turn comes.

use crate::core::Core;
use crate::core::client::answers::Origin;
use crate::core::cluster::META;
use crate::core::disk::full_disk::Failures;
use crate::core::disk::storage::Done;
use crate::core::observe::latency::Event;
use crate::core::shard::LocalShard;
use crate::limits::{
    SNAPSHOT_BUCKETS_PER_TURN, SNAPSHOT_BYTES_IN_FLIGHT_MAX, SNAPSHOT_DISPLACED_PER_TURN,
    SNAPSHOT_LOAD_PER_MS, SNAPSHOT_WINDOW_MS, SNAPSHOT_WINDOW_WORK_US,
};
use crate::resp::reply::Reply;
use ringraft_shards::ids::{ClusterId, Index, ShardId};
use ringraft_shards::keyspace::{Item, Keyspace};
use ringraft_shards::limits::SNAPSHOT_KEPT_COUNT;
use ringraft_shards::raft::SnapshotPoint;
use ringraft_shards::snapshot::directory::SnapshotName;
use ringraft_shards::snapshot::{
    Header, Meta, PendingSnapshot, SlotRange, SnapshotDirectory, SnapshotError, SnapshotReader,
    SnapshotWriter, append_snapshot,
};
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a step of a snapshot reports.
pub struct SnapshotDone {
    shard: ShardId,
    /// Of which run: what an abandoned one still reports means nothing to the next.
    run: u64,
    result: Result<Step, SnapshotError>,
}

impl SnapshotDone {
    /// Whose.
    pub fn shard(&self) -> ShardId {
        self.shard
    }
}

enum Step {
    Begun { pending: PendingSnapshot, file: File },
    Written { bytes: usize },
    Published,
}

/// The snapshots of one shard.
pub struct ShardSnapshots {
    directory: Option<SnapshotDirectory>,
    run: Option<Run>,
    /// Number of the last run.
    run_count: u64,
    /// Those that failed since the last one that did not.
    pub(in crate::core) failures: Failures,
    /// The snapshot that nothing older is kept beside, because the disk was full; or whose turn
    /// that would be.
    pub(in crate::core) relied_on: Option<Index>,
    /// Is its shard counted among those that are short of room?
    pub(in crate::core) is_short: bool,
    /// Is what is kept beside the newest one being given up?
    pub(in crate::core) is_relieving: bool,
    /// Who waits for the next snapshot that is begun.
    waiting: Vec<Origin>,
    /// Is one to be begun?
    wanted: bool,
    /// Indexes of the snapshots that exist, oldest first.
    kept: Vec<Index>,
    /// When the last one was finished, milliseconds since the Unix epoch.
    last_ms: i64,
    /// The same by the clock that measures spans.
    last_steady_ms: i64,
    /// Did the last one succeed?
    last_ok: bool,
    /// How long it took, milliseconds.
    last_duration_ms: i64,
    /// Bytes of entries applied since the last one was begun.
    log_bytes: u64,
    /// Operations applied since the last one was begun.
    changes: u64,
    /// Snapshots finished since start.
    count: u64,
}

/// Facts about the snapshots of a shard.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotReport {
    /// Is one being written, or about to be?
    pub is_running: bool,
    /// Operations applied since the last one was begun.
    pub changes: u64,
    /// When the last one was finished (at first: when the process started), milliseconds since the
    /// Unix epoch.
    pub last_ms: i64,
    /// Did it succeed?
    pub last_ok: bool,
    /// How long it took, milliseconds; negative before the first.
    pub last_duration_ms: i64,
    /// Snapshots finished since the process started.
    pub count: u64,
}

/// A snapshot being written.
struct Run {
    number: u64,
    point: SnapshotPoint,
    started_ms: i64,
    /// Bytes and operations since the snapshot before, which count on when this one fails.
    log_bytes: u64,
    changes: u64,
    waiters: Vec<Origin>,
    writer: Option<SnapshotWriter>,
    pending: Option<PendingSnapshot>,
    file: Option<Arc<File>>,
    offset: u64,
    bytes_in_flight: usize,
    /// What is left to do when all of it is written. The last bytes and this may be the work of
    /// two cores' helpers.
    last: Option<(PendingSnapshot, Meta)>,
    pace: Pace,
}

/// What of a snapshot is handed out when, beside a load.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// When the window began, milliseconds since the process started; after now, the snapshot
    /// waits for it.
    started_ms: i64,
    /// Commands that the core had run then.
    commands: u64,
    /// Time that the walk has taken since.
    work: Duration,
}

impl Pace {
    fn new(now_ms: i64, commands: u64) -> Pace {
        Pace { started_ms: now_ms, commands, work: Duration::ZERO }
    }

    /// Counts what a step took. With a full window the next begins: at once, or later when there is
    /// a load.
    fn note(&mut self, work: Duration, now_ms: i64, commands: u64) {
        self.work += work;
        if self.work < Duration::from_micros(SNAPSHOT_WINDOW_WORK_US) {
            return;
        }
        let taken_ms = (now_ms - self.started_ms).max(1);
        // The counter may have been set back (CONFIG RESETSTAT).
        let load = commands.saturating_sub(self.commands) / taken_ms as u64;
        let rest_ms = if load > SNAPSHOT_LOAD_PER_MS { SNAPSHOT_WINDOW_MS - taken_ms } else { 0 };
        *self = Pace::new(now_ms + rest_ms.max(0), commands);
    }

    /// Has the window begun?
    fn is_open(&self, now_ms: i64) -> bool {
        // Further off than a window only when the clock was set back.
        !(1..=SNAPSHOT_WINDOW_MS).contains(&(self.started_ms - now_ms))
    }
}

impl ShardSnapshots {
    /// Snapshots in this directory, or none in `cache` mode. `kept` are those that exist, oldest
    /// first.
    pub fn new(directory: Option<SnapshotDirectory>, kept: Vec<Index>, now_ms: i64) -> Self {
        ShardSnapshots {
            directory,
            run: None,
            run_count: 0,
            failures: Failures::default(),
            relied_on: None,
            is_short: false,
            is_relieving: false,
            waiting: Vec::new(),
            wanted: false,
            kept,
            last_ms: now_ms,
            last_steady_ms: 0,
            last_ok: true,
            last_duration_ms: -1,
            log_bytes: 0,
            changes: 0,
            count: 0,
        }
    }

    /// Is one being written?
    pub fn is_running(&self) -> bool {
        self.run.is_some()
    }

    /// Are there files to write to? Not in `cache` mode.
    pub fn is_possible(&self) -> bool {
        self.directory.is_some()
    }

    /// Asks for one; `waiter` is answered when it is finished.
    pub fn want(&mut self, waiter: Option<Origin>) {
        self.wanted = true;
        self.waiting.extend(waiter);
    }

    /// An entry of so many bytes and operations was applied.
    pub fn note_applied(&mut self, bytes: usize, operations: usize) {
        self.log_bytes += bytes as u64;
        self.changes += operations as u64;
    }

    /// A snapshot was finished, or is as new as one would be.
    fn note_time(&mut self, now_ms: i64, steady_ms: i64) {
        (self.last_ms, self.last_steady_ms) = (now_ms, steady_ms);
    }

    /// Facts for INFO.
    pub fn report(&self) -> SnapshotReport {
        SnapshotReport {
            is_running: self.wanted || self.is_running(),
            changes: self.changes,
            last_ms: self.last_ms,
            last_ok: self.last_ok,
            last_duration_ms: self.last_duration_ms,
            count: self.count,
        }
    }

    /// Index of the newest.
    pub fn newest(&self) -> Option<Index> {
        self.kept.last().copied()
    }

    /// Is there one of this index?
    pub(in crate::core) fn has(&self, index: Index) -> bool {
        self.kept.contains(&index)
    }

    /// One has come from another node, complete. Those beyond what was committed were removed
    /// before.
    pub(in crate::core) fn note_received(&mut self, index: Index) {
        self.kept.retain(|kept| *kept < index);
        self.kept.push(index);
    }

    /// Where they are.
    pub(in crate::core) fn directory(&self) -> Option<SnapshotDirectory> {
        self.directory.clone()
    }
}

impl Core {
    /// Asks for snapshots that are due: by the size of the log, by the clock, because the last one
    /// failed, or because the log can grow no more.
    pub(in crate::core) fn schedule_snapshots(&mut self) {
        let interval_ms = i64::from(self.settings.snapshot_interval) * 1000;
        let steady_ms = self.turn.steady_ms;
        for local in 0..self.shards.len() {
            let shard = &self.shards[local];
            let (snapshots, is_starved) = (&shard.snapshots, shard.is_starved());
            let is_busy = snapshots.wanted || snapshots.is_running();
            if is_busy || !snapshots.is_possible() || snapshots.failures.holds_back(steady_ms) {
                continue;
            }
            let large = snapshots.log_bytes > self.settings.snapshot_log_bytes;
            let old = interval_ms > 0 && steady_ms - snapshots.last_steady_ms >= interval_ms;
            let again = snapshots.failures.is_any();
            if snapshots.changes > 0 && (large || old || again || is_starved) {
                self.shards[local].snapshots.wanted = self.may_snapshot(local);
            } else if self.is_short() {
                self.relieve(local);
            }
        }
    }

    /// Is a snapshot waiting for the core to go on with it?
    pub(in crate::core) fn has_snapshot_work(&self) -> bool {
        let steady_ms = self.turn.steady_ms;
        self.shards.iter().any(|shard| {
            shard.may_step_snapshot(steady_ms)
                || shard.snapshots.wanted && !shard.snapshots.is_running()
        })
    }

    /// Goes on with the snapshots of all shards.
    pub(in crate::core) fn drive_snapshots(&mut self) {
        let steady_ms = self.turn.steady_ms;
        for local in 0..self.shards.len() {
            let snapshots = &mut self.shards[local].snapshots;
            if snapshots.wanted && snapshots.run.is_none() {
                self.begin_snapshot(local);
            }
            if self.shards[local].may_step_snapshot(steady_ms) {
                self.step_snapshot(local);
            }
        }
    }

    /// Does nothing stand in the way of a snapshot of the shards here, beside what clients have
    /// under way? Errors: what does.
    pub fn may_take_moment(&self) -> Result<(), &'static str> {
        if self.shards.iter().any(|shard| !shard.snapshots.is_possible()) {
            return Err("ERR this server runs in cache mode and keeps nothing on disk");
        }
        let is_busy = |shard: &LocalShard| {
            shard.snapshots.wanted || shard.snapshots.is_running() || shard.keyspace.cut_is_on()
        };
        match self.shards.iter().any(is_busy) {
            true => Err("TRYAGAIN a snapshot is being written"),
            false => Ok(()),
        }
    }

    /// Has everything that clients had begun here ended, and does a pause hold back what would
    /// write? Errors: what is not so.
    pub fn is_at_rest(&self) -> Result<(), &'static str> {
        if self.pause.until_ms <= self.turn.steady_ms {
            return Err("TRYAGAIN writes are not held back by CLIENT PAUSE");
        }
        let is_free = |shard: &LocalShard| {
            let ledger = shard.keyspace.ledger();
            shard.participant.count() == 0
                && ledger.prepared_count() == 0
                && ledger.committed_count() == 0
        };
        let is_free = self.transactions.coordinator.count() == 0
            && self.coalesced.is_empty()
            && self.shards.iter().all(is_free);
        if is_free {
            Ok(())
        } else {
            Err("TRYAGAIN a transaction over several shards is under way")
        }
    }

    /// Begins a snapshot of each shard here. Returns where they will be, under the data directory.
    /// Errors: one could not be begun.
    pub fn take_moment(&mut self) -> Result<Vec<String>, &'static str> {
        self.settle_beforehand();
        let mut names = Vec::new();
        for local in 0..self.shards.len() {
            if self.shards[local].id == META {
                continue;
            }
            self.shards[local].snapshots.want(None);
            self.begin_snapshot(local);
            let shard = &self.shards[local];
            if shard.snapshots.wanted {
                return Err("TRYAGAIN a snapshot is being written");
            }
            let point = shard.group.snapshot_point();
            let name = SnapshotName { term: point.term, index: point.index };
            names.push(format!("shard-{}/snapshots/{name}/state.ring", shard.id));
        }
        Ok(names)
    }

    fn begin_snapshot(&mut self, local: usize) {
        let (now_ms, steady_ms) = (self.turn.now_ms, self.turn.steady_ms);
        let slots = match self.shards[local].id {
            META => SlotRange::all(),
            shard => self.router.slot_range(shard),
        };
        let shard = &mut self.shards[local];
        let Some(directory) = shard.snapshots.directory.clone() else { return };
        assert!(!shard.has_beforehand(), "the items are those of the applied index");
        let point = shard.group.snapshot_point();
        shard.snapshots.wanted = false;
        if shard.snapshots.newest() == Some(point.index) || point.index == Index(0) {
            // Nothing has changed since the newest one.
            shard.snapshots.note_time(now_ms, steady_ms);
            if point.index > Index(0) && self.shared.cluster.is_clustered() {
                // After a restart the group does not know that it can be sent.
                let token = format!("{}-{}", point.term.0, point.index.0).into_bytes();
                shard.group.snapshot_taken(point, token);
            }
            self.shared.snapshot_turn.end(shard.id);
            for waiter in std::mem::take(&mut shard.snapshots.waiting) {
                self.answers.write(waiter, |out| Reply::new(out, waiter.protocol).ok());
            }
            return;
        }
        if !shard.keyspace.begin_cut() {
            shard.snapshots.wanted = true;
            return;
        }
        let header = Header {
            cluster: directory.cluster(),
            shard: shard.id,
            term: point.term,
            index: point.index,
            slots: vec![slots],
            slot_scheme: shard.keyspace.hasher().scheme(),
            key_hash_seed: shard.keyspace.hasher().seed(),
            created_ms: now_ms,
            leader_time_ms: shard.latest_ms(),
            membership: point.membership.clone(),
        };
        let name = SnapshotName { term: header.term, index: header.index };
        let mut writer = SnapshotWriter::new(header);
        writer.push_ledger(shard.keyspace.ledger());
        writer.push_remembered(shard.keyspace.remembered());
        writer.push_limits(shard.keyspace.limits());
        writer.push_libraries(shard.keyspace.libraries());
        shard.snapshots.run_count += 1;
        let run = shard.snapshots.run_count;
        shard.snapshots.run = Some(Run {
            number: run,
            point,
            started_ms: steady_ms,
            log_bytes: std::mem::take(&mut shard.snapshots.log_bytes),
            changes: std::mem::take(&mut shard.snapshots.changes),
            waiters: std::mem::take(&mut shard.snapshots.waiting),
            writer: Some(writer),
            pending: None,
            file: None,
            offset: 0,
            bytes_in_flight: 0,
            last: None,
            pace: Pace::new(steady_ms, self.stats.total_commands),
        });
        let work = move || {
            let pending = directory.begin(name)?;
            let path = pending.state_path();
            let file = File::create(&path).map_err(|source| SnapshotError::Io {
                action: "creating",
                path,
                source,
            })?;
            Ok(Step::Begun { pending, file })
        };
        let shard = shard.id;
        self.storage
            .in_background(work, move |result| Done::Snapshot(SnapshotDone { shard, run, result }));
    }

    /// Hands out some more items of the cut, and passes finished chunks on.
    fn step_snapshot(&mut self, local: usize) {
        let shard = &mut self.shards[local];
        let state = shard.snapshots.run.as_mut().expect("the caller looked");
        let run = state.number;
        let writer = state.writer.as_mut().expect("it is there until the cut is finished");
        let (steady_ms, commands) = (self.turn.steady_ms, self.stats.total_commands);
        // What a load overwrites takes memory until it is handed out: that goes on while the rest
        // waits.
        let mut finished = false;
        shard
            .server
            .keyspace
            .cut_displaced(SNAPSHOT_DISPLACED_PER_TURN, &mut |database, item, from| {
                writer.push(database, item, from)
            });
        if state.pace.is_open(steady_ms) {
            let begin = Instant::now();
            let out = &mut |database, item: Item<'_>, from| writer.push(database, item, from);
            finished = shard.server.keyspace.cut_step(SNAPSHOT_BUCKETS_PER_TURN, out);
            let took = begin.elapsed();
            state.pace.note(took, steady_ms, commands);
            self.stats.noted.latency.note(Event::SnapshotStep, took, self.turn.now_ms);
        }
        let mut chunks = Vec::new();
        while let Some(chunk) = writer.take_chunk() {
            chunks.push(chunk);
        }
        let file = state.file.clone().expect("steps begin when the file is there");
        let path = state.pending.as_ref().map(PendingSnapshot::state_path).unwrap_or_default();
        if finished {
            let (chunk, meta) = state.writer.take().expect("just used").finish();
            chunks.push(chunk);
            state.last = state.pending.take().map(|pending| (pending, meta));
        }
        let shard = shard.server.id;
        for chunk in chunks {
            let (offset, bytes) = (state.offset, chunk.len());
            state.offset += bytes as u64;
            state.bytes_in_flight += bytes;
            let (file, path) = (file.clone(), path.clone());
            let work = move || {
                append_snapshot(&file, offset, &chunk).map_err(|source| SnapshotError::Io {
                    action: "writing",
                    path,
                    source,
                })?;
                Ok(Step::Written { bytes })
            };
            self.storage.in_background(work, move |result| {
                Done::Snapshot(SnapshotDone { shard, run, result })
            });
        }
    }

    fn publish_snapshot(&mut self, local: usize, run: u64, pending: PendingSnapshot, meta: Meta) {
        let shard = self.shards[local].id;
        let Some(directory) = self.shards[local].snapshots.directory.clone() else { return };
        let work = move || {
            pending.publish(&meta)?;
            directory.prune()?;
            Ok(Step::Published)
        };
        self.storage
            .in_background(work, move |result| Done::Snapshot(SnapshotDone { shard, run, result }));
    }

    /// Takes the report of a step.
    pub(in crate::core) fn snapshot_done(&mut self, local: usize, done: SnapshotDone) {
        let snapshots = &mut self.shards[local].snapshots;
        let Some(run) = snapshots.run.as_mut().filter(|run| run.number == done.run) else {
            if let Ok(Step::Begun { pending, .. }) = done.result {
                self.remove_unfinished(pending);
            }
            return;
        };
        match done.result {
            Ok(Step::Begun { pending, file }) => {
                run.pending = Some(pending);
                run.file = Some(Arc::new(file));
            }
            Ok(Step::Written { bytes }) => {
                run.bytes_in_flight -= bytes;
                if run.bytes_in_flight == 0
                    && let Some((pending, meta)) = run.last.take()
                {
                    self.publish_snapshot(local, done.run, pending, meta);
                }
            }
            Ok(Step::Published) => self.finish_snapshot(local),
            Err(error) => self.abandon_snapshot(local, &error),
        }
    }

    fn finish_snapshot(&mut self, local: usize) {
        let (now_ms, steady_ms) = (self.turn.now_ms, self.turn.steady_ms);
        let shard = &mut self.shards[local];
        let run = shard.snapshots.run.take().expect("the caller looked");
        let snapshots = &mut shard.snapshots;
        snapshots.note_time(now_ms, steady_ms);
        snapshots.last_ok = true;
        snapshots.failures = Failures::default();
        snapshots.last_duration_ms = steady_ms - run.started_ms;
        snapshots.count += 1;
        // The log is kept back to the snapshot before, so that a damaged one can be done without.
        let fallback = snapshots.newest().unwrap_or(Index(0));
        snapshots.kept.push(run.point.index);
        let older_count = snapshots.kept.len().saturating_sub(SNAPSHOT_KEPT_COUNT);
        snapshots.kept.drain(..older_count);
        shard.group.compact(fallback);
        let token = format!("{}-{}", run.point.term.0, run.point.index.0).into_bytes();
        shard.group.snapshot_taken(run.point, token);
        for waiter in run.waiters {
            self.answers.write(waiter, |out| Reply::new(out, waiter.protocol).ok());
        }
        let id = shard.id;
        let has_relief = self.is_short() && self.relieve(local);
        if !has_relief {
            self.shared.snapshot_turn.end(id);
        }
        self.note_shortage(local);
    }

    fn abandon_snapshot(&mut self, local: usize, error: &SnapshotError) {
        let (steady_ms, is_full) = (self.turn.steady_ms, error.is_full());
        let shard = &mut self.shards[local];
        shard.snapshots.last_ok = false;
        let wait_ms = shard.snapshots.failures.note(is_full, steady_ms);
        tracing::error!(
            "snapshot of shard {}: {error}; the next try is in {} s",
            shard.id,
            wait_ms / 1000
        );
        self.give_up_snapshot(local, &format!("ERR {error}"));
        self.note_shortage(local);
        if is_full {
            self.relieve(local);
        }
    }

    /// Ends a snapshot that is being written, if one is; those who wait for it are told why.
    pub(in crate::core) fn give_up_snapshot(&mut self, local: usize, text: &str) {
        let shard = &mut self.shards[local];
        self.shared.snapshot_turn.end(shard.id);
        shard.snapshots.wanted = false;
        let mut waiters = std::mem::take(&mut shard.snapshots.waiting);
        let Some(run) = shard.snapshots.run.take() else {
            return waiters.into_iter().for_each(|waiter| self.answer_error(waiter, text));
        };
        waiters.extend(run.waiters);
        shard.snapshots.log_bytes += run.log_bytes;
        shard.snapshots.changes += run.changes;
        shard.keyspace.abort_cut();
        if let Some(pending) = run.pending.or(run.last.map(|(pending, _)| pending)) {
            self.remove_unfinished(pending);
        }
        for waiter in waiters {
            self.answer_error(waiter, text);
        }
    }

    fn remove_unfinished(&mut self, pending: PendingSnapshot) {
        let report = move |result: Result<(), SnapshotError>| {
            if let Err(error) = result {
                tracing::warn!("{error}");
            }
            Done::Nothing
        };
        self.storage.in_background(move || pending.abandon(), report);
    }
}

impl LocalShard {
    /// Writes all items as a snapshot in memory, reads them back and goes on with what was read: a
    /// test of the format on live data. Watched keys count as changed.
    /// Errors: a snapshot is being written, or what was read differs; then nothing has changed.
    pub fn reload(&mut self, now_ms: i64) -> Result<(), String> {
        const IN_PROGRESS: &str = "ERR Background save already in progress";
        if self.snapshots.is_running() || !self.keyspace.begin_cut() {
            return Err(IN_PROGRESS.to_string());
        }
        let point = self.group.snapshot_point();
        let header = Header {
            cluster: ClusterId(0),
            shard: self.id,
            term: point.term,
            index: point.index,
            slots: vec![SlotRange::all()],
            slot_scheme: self.keyspace.hasher().scheme(),
            key_hash_seed: self.keyspace.hasher().seed(),
            created_ms: now_ms,
            leader_time_ms: self.latest_ms(),
            membership: point.membership,
        };
        let mut writer = SnapshotWriter::new(header);
        writer.push_ledger(self.keyspace.ledger());
        writer.push_remembered(self.keyspace.remembered());
        writer.push_limits(self.keyspace.limits());
        writer.push_libraries(self.keyspace.libraries());
        let mut bytes = Vec::new();
        while !self.keyspace.cut_step(SNAPSHOT_BUCKETS_PER_TURN, &mut |database, item, from| {
            writer.push(database, item, from)
        }) {
            while let Some(chunk) = writer.take_chunk() {
                bytes.extend_from_slice(&chunk);
            }
        }
        while let Some(chunk) = writer.take_chunk() {
            bytes.extend_from_slice(&chunk);
        }
        bytes.extend_from_slice(&writer.finish().0);
        let mut fresh = Keyspace::new(self.keyspace.hasher());
        let size = bytes.len() as u64;
        let load = |keyspace: &mut Keyspace| {
            let mut reader = SnapshotReader::open(std::io::Cursor::new(bytes), size)?;
            ringraft_shards::snapshot::load::load(&mut reader, keyspace, &mut |_| {})
        };
        load(&mut fresh)
            .map_err(|error| format!("ERR Error trying to load the snapshot: {error}"))?;
        if fresh.digest_all() != self.keyspace.digest_all() {
            return Err("ERR what was read from the snapshot differs from what was written".into());
        }
        fresh.set_access_clock(self.eviction_policy.access_clock());
        fresh.set_eviction_samples(self.eviction_samples);
        fresh.take_watches(&mut self.keyspace);
        self.keyspace = fresh;
        Ok(())
    }
}

impl LocalShard {
    /// Can the snapshot that is being written go on now?
    fn may_step_snapshot(&self, now_ms: i64) -> bool {
        self.snapshots.run.as_ref().is_some_and(|run| {
            run.file.is_some()
                && run.writer.is_some()
                && run.bytes_in_flight <= SNAPSHOT_BYTES_IN_FLIGHT_MAX
                && (run.pace.is_open(now_ms) || self.keyspace.has_displaced())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Duration = Duration::from_micros(SNAPSHOT_WINDOW_WORK_US / 2);

    #[test]
    fn beside_a_load_a_full_window_is_waited_for() {
        let mut pace = Pace::new(1000, 50);
        pace.note(HALF, 1001, 100);
        assert!(pace.is_open(1001), "there is room in it");
        // 5 ms, 100 commands each.
        pace.note(HALF, 1005, 550);
        let next_ms = 1000 + SNAPSHOT_WINDOW_MS;
        assert!(!pace.is_open(1005) && !pace.is_open(next_ms - 1) && pace.is_open(next_ms));
        assert!(pace.is_open(500), "the clock was set back");
    }

    #[test]
    fn without_a_load_windows_follow_one_another() {
        let mut pace = Pace::new(1000, 50);
        pace.note(HALF * 2, 1004, 50 + 4 * SNAPSHOT_LOAD_PER_MS);
        assert!(pace.is_open(1004));
        // The counters were set back.
        pace.note(HALF * 2, 1005, 0);
        assert!(pace.is_open(1005));
        // One that took longer than it may is late already.
        pace.note(HALF * 2, 1005 + 2 * SNAPSHOT_WINDOW_MS, 1_000_000);
        assert!(pace.is_open(1005 + 2 * SNAPSHOT_WINDOW_MS));
    }
}
