//! Drives the Raft groups of a core's shards: proposes what has gathered, writes what the log wants
//! written, applies what is committed.

use crate::commands::events::FLUSHED;
use crate::core::Core;
use crate::core::client::answers::Target;
use crate::core::cluster::META;
use crate::core::disk::storage::{DiskFailure, DiskOperation, Done, ShardFiles};
use crate::core::shard::{LocalShard, ShardTurn};
use crate::limits::FREED_BUCKETS_PER_TURN;
use crate::net::ring::Completion;
use crate::settings::values::Fsync;
use ringraft_shards::ids::{MonotonicTime, ShardId};
use ringraft_shards::peer::Item;
use ringraft_shards::raft::{GroupFailure, PeerMessage};
use ringraft_shards::serve::{self, Minded};
use std::sync::atomic::Ordering;

impl Core {
    /// Proposes what every shard has gathered, and does what its group asks for.
    pub(in crate::core) fn drive_shards(&mut self) {
        while let Some(done) = self.storage.take_done() {
            if let Done::Journal(work, result) = done {
                let steady_ms = self.turn.steady_ms;
                if let Err(fault) = self.storage.journal_done(&work, result, steady_ms) {
                    self.fail(fault.to_string());
                }
                continue;
            }
            let Some(shard) = done.shard() else { continue };
            self.tell_shard(shard, move |core, local| match done {
                Done::FileAction { id, result, .. } => core.file_action_done(local, id, result),
                Done::LogRead { id, result, .. } => {
                    core.shards[local].group.log_read_done(id, result);
                }
                Done::Snapshot(done) => core.snapshot_done(local, done),
                Done::Relief { result, .. } => core.relieved(local, result),
                Done::Replica(done) => core.replica_done(local, done),
                Done::Journal(..) | Done::Nothing => {}
            });
        }
        self.drive_snapshots();
        if self.freeing {
            let free = |more, shard: &mut LocalShard| {
                shard.keyspace.free_some(FREED_BUCKETS_PER_TURN) || more
            };
            self.freeing = self.shards.iter_mut().fold(false, free);
        }
        if !self.coalesced.is_empty() {
            self.begin_joined();
        }
        let is_synced = self.settings.fsync == Fsync::Always;
        let has_log = |shard: &&LocalShard| shard.id != META && shard.files.is_some();
        let has_several = is_synced && self.shards.iter().filter(has_log).nth(1).is_some();
        self.storage.begin_turn(has_several);
        loop {
            self.serve_transactions();
            for local in 0..self.shards.len() {
                self.settle_shard(local);
            }
            if !self.has_transaction_work() {
                break;
            }
        }
        let homeless = self.storage.end_batch(&mut self.doors.ring);
        if !homeless.is_empty() {
            self.write_runs();
            self.storage.sync_packed(&mut self.doors.ring, homeless);
        }
        if self.storage.has_journal_work(self.turn.steady_ms) {
            self.write_runs();
            self.storage.begin_journal_work();
        }
        self.publish_fullness();
        if self.settings.notify_keyspace_events.hear_misses() {
            self.publish_misses();
        }
    }

    /// Applies what a shard has gathered, as far as nothing has to be waited for.
    pub(in crate::core) fn settle_shard(&mut self, local: usize) {
        while self.failure.is_none() && self.drive_shard(local) {}
    }

    /// Has the logs of its shards say what scripts have done beforehand. Nobody is answered, and no
    /// cut begun, before.
    #[inline]
    pub(in crate::core) fn settle_beforehand(&mut self) {
        if std::mem::take(&mut self.turn.has_beforehand) {
            self.settle_all_beforehand();
        }
    }

    fn settle_all_beforehand(&mut self) {
        for local in 0..self.shards.len() {
            if !self.shards[local].has_beforehand() {
                continue;
            }
            self.settle_shard(local);
            assert!(
                self.failure.is_some() || !self.shards[local].has_beforehand(),
                "what is done is in the log at once"
            );
        }
    }

    /// Writes all that its shards have packed to their segments, through the page cache.
    #[cold]
    fn write_runs(&mut self) {
        for shard in &mut self.shards {
            if let Err(cause) = shard.write_runs() {
                self.failure.get_or_insert(cause);
            }
        }
    }

    /// Tells other cores, before any reply of this turn is sent, which shards have no room for
    /// more.
    fn publish_fullness(&self) {
        if self.settings.maxmemory == 0 {
            return;
        }
        for shard in self.shards.iter().filter(|shard| shard.id != META) {
            let full = &self.shared.full[usize::from(shard.id.0)];
            let is_full = shard.is_full();
            if full.load(Ordering::Relaxed) != is_full {
                full.store(is_full, Ordering::Release);
            }
        }
    }

    /// One round with a shard. True when another may find more to do.
    fn drive_shard(&mut self, local: usize) -> bool {
        if self.shards[local].is_installing() && !self.step_install(local) {
            return false;
        }
        let leases = self.leases();
        let shard = &mut self.shards[local];
        let mut turn = ShardTurn { answers: &mut self.answers, stats: &mut self.stats };
        if let Minded::Turning(turn) = serve::mind_clock(shard, self.turn.now_ms) {
            let by_ms = turn.from_ms - turn.to_ms;
            self.shared.clock_reports.note(by_ms, self.turn.steady_ms);
        }
        serve::propose(shard, self.turn.now_ms, &mut turn);
        let began = MonotonicTime(self.turn.steady_ms.unsigned_abs() * 1000);
        serve::ask_for_reads(shard, began, leases, &mut turn);
        let output = &mut self.output;
        output.clear();
        let layout = self.storage.layout(shard.server.id);
        shard.group.set_layout(layout);
        shard.group.poll(output);
        if let Some(failure) = output.failure.take() {
            return self.group_failed(local, &failure);
        }
        // None in a group of one.
        let messages = std::mem::take(&mut output.messages);
        if output.snapshot_wanted {
            shard.snapshots.want(None);
        }
        let mut again = output.more;
        if !output.writes.is_empty()
            && let Err(cause) = shard.write_closed_runs()
        {
            self.failure.get_or_insert(cause);
        }
        for write in output.writes.drain(..) {
            let (ticket, sequence) = (write.ticket, write.sequence);
            let files = shard.files.as_mut().expect("only a shard with files has a log");
            match self.storage.start_write(&mut self.doors.ring, shard.server.id, files, write) {
                Ok(None) => {}
                Ok(Some((ticket, buffer))) => {
                    shard.group.written(ticket, buffer);
                    again = true;
                }
                Err(error) => {
                    let file = files.path(sequence);
                    shard.group.write_failed(ticket, &format!("{}: {error}", file.display()));
                    again = true;
                }
            }
        }
        if let Some(action) = output.file_action.take() {
            let files = shard.files.as_mut().expect("only a shard with files has a log");
            self.storage.start_file_action(shard.server.id, files, action);
        }
        for read in output.log_reads.drain(..) {
            let files = shard.files.as_ref().expect("only a shard with files has a log");
            self.storage.start_log_read(shard.server.id, files, read);
        }
        serve::polled(shard, output, &mut turn);
        if let Some(install) = output.install.take() {
            let committed = std::mem::take(&mut output.committed);
            if let Err(error) = self.begin_install(local, install, committed) {
                self.fail(error);
            }
            self.send_group_messages(local, messages);
            return false;
        }
        again |= !output.committed.is_empty() && !shard.group.is_alone();
        for entry in &output.committed {
            serve::apply(shard, entry, &mut turn);
        }
        if let Some(last) = output.committed.last() {
            shard.group.applied(last.index);
        }
        serve::settle(shard, output, &mut turn);
        if shard.leased_count() > 0 {
            let now = MonotonicTime(self.steady.read().as_micros() as u64);
            serve::end_leased(shard, now, &mut turn);
            // What is told is told with what is committed.
            again |= shard.is_pressed() || !shard.told.is_empty();
        }
        if shard.holds_any() && shard.serves() {
            let mut refused = Vec::new();
            shard.release_held(&mut self.stats, &mut refused);
            again = true;
            for origin in refused {
                self.answer_error(origin, crate::core::client::intake::OUT_OF_MEMORY);
            }
        }
        let shard = &mut self.shards[local];
        if shard.keyspace.take_libraries_changed() {
            // Before anybody hears of it.
            self.shared.scripts.publish(shard.keyspace.libraries());
        }
        if shard.keyspace.has_events() {
            let mut events = shard.keyspace.take_events();
            if shard.id != ShardId(0) {
                // All shards are flushed together: it is told once.
                events.retain(|event| event.name != FLUSHED);
            }
            self.publish_events(events);
        }
        for (kind, channel, payload) in self.shards[local].ahead.take_published() {
            self.publish(Target::Nobody, kind, &channel, &payload);
        }
        let shard = &mut self.shards[local];
        if shard.has_waiting_work() {
            let mut ready = Vec::new();
            shard.tend_waiting(&mut self.answers, self.turn.now_ms, &mut ready);
            self.notify(ready);
        }
        if self.shared.cluster.is_clustered() {
            self.send_group_messages(local, messages);
            self.note_driven(local);
            self.drive_followers(local);
            if !self.shards[local].copy_waits.is_empty() {
                let own = self.shared.cluster.own();
                self.shards[local].tell_copies(own, &mut self.answers);
            }
            if !self.shards[local].sent_back.is_empty() {
                self.send_back_all(local);
            }
        }
        again || self.shards[local].may_propose()
    }

    /// The group of a shard cannot go on: the process ends, unless others can make up for it.
    #[cold]
    fn group_failed(&mut self, local: usize, failure: &GroupFailure) -> bool {
        if !self.is_made_up_for(local, failure) {
            self.fail(failure.to_string());
        }
        self.note_driven(local);
        false
    }

    /// Sends what the group of a shard has to say. A snapshot goes before the message that offers
    /// it.
    #[cold]
    fn send_group_messages(&mut self, local: usize, messages: Vec<PeerMessage>) {
        let shard = self.shards[local].server.id;
        for message in messages {
            if message.snapshot().is_some() {
                self.begin_transfer(local, message);
            } else {
                self.send_to_node(message.to().node(), Item::Raft { shard, message });
            }
        }
    }

    /// Does something at a shard: at once while it is here, else on the core where it lives by
    /// then. Not for requests: it may overtake them.
    pub(in crate::core) fn tell_shard(
        &mut self,
        shard: ShardId,
        task: impl FnOnce(&mut Core, usize) + Send + 'static,
    ) {
        match self.router.local(shard) {
            Some(local) => task(self, local),
            None => self.at_shard(shard, task),
        }
    }

    /// A log write or a sync has ended.
    pub(in crate::core) fn disk_completed(&mut self, completion: &Completion) {
        let (index, result) = (completion.token.index, completion.result);
        let mut ended = std::mem::take(&mut self.ended);
        self.storage.complete(&mut self.doors.ring, index, result, &mut ended);
        for operation in ended.drain(..) {
            match operation {
                Ok(operation) => {
                    let (event, begun) = operation.event();
                    let took = begun.elapsed();
                    self.stats.noted.latency.note(event, took, self.turn.now_ms);
                    if let DiskOperation::Write { .. } = operation {
                        self.storage.note_write(took);
                    }
                    self.tell_shard(operation.shard(), move |core, local| {
                        core.shards[local].disk_operation_ended(operation);
                        core.shards[local].answer_synced(&mut core.answers);
                    });
                }
                Err(failure) => self.tell_shard(failure.shard, move |core, local| {
                    core.shards[local].disk_operation_failed(&failure);
                }),
            }
        }
        self.ended = ended;
    }

    /// Starts the syncs of the second, under `--fsync everysec`.
    pub(in crate::core) fn sync_lazily(&mut self) {
        let steady_ms = self.turn.steady_ms;
        match self.settings.fsync {
            Fsync::Always => {}
            Fsync::No => self.files().for_each(|(_, files)| files.forget_unsynced()),
            Fsync::Everysec if steady_ms - self.last_sync_ms >= 1000 || self.stop_sent => {
                self.last_sync_ms = steady_ms;
                let mut result = Ok(());
                for shard in &mut self.shards {
                    let Some(files) = &mut shard.files else { continue };
                    let started =
                        self.storage.start_syncs(&mut self.doors.ring, shard.server.id, files);
                    result = result.and(started);
                }
                if let Err(error) = result {
                    self.fail(format!("the log cannot be synced: {error}"));
                }
            }
            Fsync::Everysec => {}
        }
    }

    /// The files of its shards.
    pub(in crate::core) fn files(&mut self) -> impl Iterator<Item = (ShardId, &mut ShardFiles)> {
        self.shards.iter_mut().filter_map(|shard| Some((shard.id, shard.files.as_mut()?)))
    }

    /// Do all shards serve reads and writes?
    pub(in crate::core) fn shards_serve(&self) -> bool {
        self.shards.iter().all(|shard| shard.serves())
    }

    /// Is there work that no completion will announce?
    pub(in crate::core) fn has_work(&self) -> bool {
        self.has_snapshot_work()
            || self.freeing
            || self.shards.iter().any(|shard| shard.has_evictions() || shard.is_installing())
    }
}

impl LocalShard {
    /// Writes what its log has packed to its segments, through the page cache. What makes it
    /// durable is the journal of the core where it was written.
    /// Errors: the process must end, as that journal cannot be emptied any more.
    pub(in crate::core) fn write_runs(&mut self) -> Result<(), String> {
        self.group.close_run();
        self.write_closed_runs()
    }

    #[inline]
    fn write_closed_runs(&mut self) -> Result<(), String> {
        while let Some(run) = self.group.take_run() {
            let files = self.files.as_mut().expect("only a shard with files has a log");
            files.write_run(&run).map_err(|error| {
                let path = files.path(run.sequence);
                format!("the log cannot be written: {}: {error}", path.display())
            })?;
            self.group.run_written(run);
        }
        Ok(())
    }

    /// A write or a sync of its log has ended.
    fn disk_operation_ended(&mut self, operation: DiskOperation) {
        match operation {
            DiskOperation::Write { write, .. } => self.group.written(write.ticket, write.buffer),
            DiskOperation::Sync { ticket, .. } => {
                if self.files.as_mut().is_some_and(|files| files.sync_ended(ticket)) {
                    self.group.synced(ticket);
                }
            }
        }
    }

    #[cold]
    fn disk_operation_failed(&mut self, failure: &DiskFailure) {
        let files = self.files.as_ref().expect("only a shard with files has a log");
        let file = files.path(failure.sequence);
        let text = format!("{}: {}", file.display(), failure.cause);
        self.group.write_failed(failure.ticket, &text);
    }
}
