//! A snapshot of another node takes the place of a shard's items: bit by bit, so that the core's
//! other shards go on.

use crate::core::Core;
use crate::core::observe::latency::Event;
use crate::core::shard::{LocalShard, ShardTurn};
use ringraft_shards::clock::ShardClock;
use ringraft_shards::keyspace::Keyspace;
use ringraft_shards::raft::{CommittedEntry, SnapshotToInstall};
use ringraft_shards::serve;
use ringraft_shards::snapshot::load::{Progress, load_chunk};
use ringraft_shards::snapshot::{SnapshotName, SnapshotReader};
use std::fs::File;
use std::io::BufReader;
use std::time::Instant;

/// A snapshot that is being loaded.
pub(super) struct Installing {
    install: SnapshotToInstall,
    reader: SnapshotReader<BufReader<File>>,
    keyspace: Keyspace,
    progress: Progress,
    /// Entries behind it that came with it.
    committed: Vec<CommittedEntry>,
}

/// Chunks loaded in a turn: about a millisecond each.
const CHUNKS_PER_TURN: usize = 2;

impl Core {
    /// Begins to load a snapshot that the group has taken. `committed` are entries to apply behind
    /// it. Errors: the file that was verified when it came cannot be opened.
    pub(in crate::core) fn begin_install(
        &mut self,
        local: usize,
        install: SnapshotToInstall,
        committed: Vec<CommittedEntry>,
    ) -> Result<(), String> {
        self.give_up_snapshot(local, "ERR a snapshot of another node takes its place");
        let shard = &mut self.shards[local];
        let directory = shard.snapshots.directory().ok_or("there is no directory for snapshots")?;
        let name = SnapshotName { term: install.point.term, index: install.point.index };
        let path = directory.state_path(name);
        let failed = |error: String| format!("{}: {error}", path.display());
        let file = File::open(&path).map_err(|error| failed(error.to_string()))?;
        let size = file.metadata().map_err(|error| failed(error.to_string()))?.len();
        let reader = SnapshotReader::open(BufReader::with_capacity(1 << 20, file), size)
            .map_err(|error| failed(error.to_string()))?;
        let keyspace = Keyspace::new(shard.keyspace.hasher());
        let progress = Progress::default();
        let installing = Installing { install, reader, keyspace, progress, committed };
        shard.replication.get_or_insert_default().installing = Some(installing);
        self.turn.has_new_work = true;
        Ok(())
    }

    /// Goes on loading. True when it is done and the shard can be driven again.
    pub(in crate::core) fn step_install(&mut self, local: usize) -> bool {
        let shard = &mut self.shards[local];
        let replication = shard.replication.as_mut().expect("it is installing");
        let installing = replication.installing.as_mut().expect("the caller looked");
        let begun = Instant::now();
        for _ in 0..CHUNKS_PER_TURN {
            let Installing { reader, keyspace, progress, .. } = installing;
            match load_chunk(reader, keyspace, progress) {
                Ok(true) => {}
                Ok(false) => {
                    let installing = replication.installing.take().expect("just used");
                    self.installed(local, installing);
                    return true;
                }
                Err(error) => {
                    let id = shard.server.id;
                    self.fail(format!("shard {id}: the snapshot of another node: {error}"));
                    return false;
                }
            }
        }
        self.stats.noted.latency.note(Event::SnapshotStep, begun.elapsed(), self.turn.now_ms);
        false
    }

    fn installed(&mut self, local: usize, installing: Installing) {
        let Installing { install, reader, keyspace, committed, progress } = installing;
        let now_ms = self.turn.now_ms;
        let misses = self.settings.notify_keyspace_events.hear_misses();
        let listening = self.listening();
        let shard = &mut self.shards[local];
        tracing::info!(shard = shard.server.id.0, items = progress.items, "a snapshot is loaded");
        shard.take_items(keyspace, reader.header().leader_time_ms);
        shard.keyspace.listen(listening, misses);
        let token = format!("{}-{}", install.point.term.0, install.point.index.0).into_bytes();
        let index = install.point.index;
        shard.server.group.snapshot_taken(install.point, token);
        shard.server.group.applied(index);
        self.freeing = true;
        let mut turn = ShardTurn { answers: &mut self.answers, stats: &mut self.stats };
        let shard = &mut self.shards[local];
        for entry in &committed {
            serve::apply(shard, entry, &mut turn);
        }
        if let Some(last) = committed.last() {
            shard.server.group.applied(last.index);
        }
        shard.server.keyspace.drop_idle_orders(now_ms);
    }
}

impl LocalShard {
    /// Goes on with other items. Keys under WATCH count as changed.
    fn take_items(&mut self, mut fresh: Keyspace, leader_time_ms: i64) {
        fresh.set_access_clock(self.eviction_policy.access_clock());
        fresh.set_eviction_samples(self.eviction_samples);
        fresh.take_watches(&mut self.server.keyspace);
        self.server.keyspace = fresh;
        self.server.clock = ShardClock::new(leader_time_ms);
    }
}
