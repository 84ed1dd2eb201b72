//! Brings a shard back from its snapshot and its log.
//!
//! The newest good snapshot is loaded, then the log is read, without keeping what the snapshot
//! covers, and the group is opened behind it; the entries that it knows to be committed are applied
//! by the core's first turns. Nothing on the disk is changed before the log is known to go on where
//! the snapshot ends.

use crate::core::CLUSTER_TICK;
use crate::core::cluster::META;
use crate::core::disk::directory::ShardDirectory;
use crate::core::disk::journal::{CoreJournal, journal_directory};
use crate::core::disk::snapshots::ShardSnapshots;
use crate::core::disk::storage::ShardFiles;
use crate::core::shard::LocalShard;
use crate::core::wall_clock_ms;
use crate::limits::SEGMENT_BYTES_MIN;
use crate::node::banner::ShardProgress;
use crate::node::replica;
use crate::settings::values::Fsync;
use ringraft_shards::disk::{Disk, RealDisk};
use ringraft_shards::ids::{ClusterId, Index, NodeId, ShardId};
use ringraft_shards::keyspace::{KeyHasher, Keyspace};
use ringraft_shards::log::{LogIdentity, LogOptions, RecoverError, RecoveredLog};
use ringraft_shards::raft::{Group, GroupConfig, OpenError, SnapshotPoint};
use ringraft_shards::snapshot::load::Progress;
use ringraft_shards::snapshot::recover::{self as snapshots, Recovered};
use ringraft_shards::snapshot::{SnapshotDirectory, SnapshotError};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Log writes are laid out in blocks of this size: every disk in use takes them.
const BLOCK_BYTES: usize = 4096;

/// The node that founds a cluster.
const FOUNDER: NodeId = NodeId(1);

/// Ticks without a leader before an election, at least; at most twice as many. The same on all
/// nodes: leases rest on it.
const ELECTION_TICKS: usize = 8;

/// Size of segments of the meta group's log.
const META_SEGMENT_BYTES: u64 = SEGMENT_BYTES_MIN;

/// Size of a journal's file, in segments: while one fills, the other is emptied.
const JOURNAL_SEGMENTS: u64 = 4;

/// Has a directory a meta group: is its node one of several?
pub fn has_meta(directory: &Path) -> bool {
    log_directory(directory, META).exists()
}

/// What a shard is brought back from.
pub struct Origins {
    /// The data directory; `None` in `cache` mode.
    pub directory: Option<PathBuf>,
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// The hasher of keys.
    pub hasher: KeyHasher,
    /// Size of new segments.
    pub segment_bytes: u64,
    /// When log writes are made durable.
    pub fsync: Fsync,
    /// Are others there from whom a shard can be had again that cannot be read?
    pub heals: bool,
    /// Shards whose replicas are given up at this start, whatever they are.
    pub rejoins: Mutex<BTreeSet<ShardId>>,
    /// Told how far each shard is.
    pub progress: Arc<Vec<Mutex<ShardProgress>>>,
}

impl Failure {
    fn text(self) -> String {
        match self {
            Failure::Lost(text) | Failure::Other(text) => text,
        }
    }
}

/// Why a shard is not brought back.
enum Failure {
    /// What the directory has of it cannot be relied on: others may have it.
    Lost(String),
    /// Something else is in the way.
    Other(String),
}

impl From<SnapshotError> for Failure {
    fn from(error: SnapshotError) -> Failure {
        match error {
            SnapshotError::Unreadable { .. }
            | SnapshotError::Gap { .. }
            | SnapshotError::OutOfOrder { .. } => Failure::Lost(error.to_string()),
            _ => Failure::Other(error.to_string()),
        }
    }
}

impl From<RecoverError> for Failure {
    fn from(error: RecoverError) -> Failure {
        match error {
            RecoverError::Disk(_) | RecoverError::Version { .. } | RecoverError::Foreign { .. } => {
                Failure::Other(error.to_string())
            }
            _ => Failure::Lost(error.to_string()),
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Failure {
        match error {
            OpenError::Log(error) => error.into(),
            OpenError::Settings(_) => Failure::Other(error.to_string()),
        }
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Failure {
        Failure::Other(text)
    }
}

impl ShardDirectory for Origins {
    /// One that cannot be read is set aside when others have it, and what is brought back is an
    /// empty replica, which gets everything from them.
    fn recover(&self, shard: ShardId) -> Result<LocalShard, String> {
        // Segments that are begun anew must not have the salts of those before: a journal may hold
        // records of them.
        let seed =
            getrandom::u64().map_err(|error| format!("cannot read random bytes: {error}"))?;
        let Some(directory) = self.directory.as_deref().filter(|_| self.heals) else {
            return self.bring_back(shard, seed).map_err(Failure::text);
        };
        let given_up = self.rejoins.lock().expect("nobody panics with it").remove(&shard);
        let cause = if given_up {
            "--rejoin gives it up".to_string()
        } else if !replica::folder(directory, shard).exists() {
            "its folder is missing".to_string()
        } else {
            match self.bring_back(shard, seed) {
                Err(Failure::Lost(cause)) => cause,
                result => return result.map_err(Failure::text),
            }
        };
        self.begin_anew(shard, &cause)?;
        self.bring_back(shard, seed).map_err(Failure::text)
    }

    fn begin_anew(&self, shard: ShardId, cause: &str) -> Result<(), String> {
        let directory = self.directory.as_deref().expect("only a shard with files is lost");
        let aside = replica::set_aside(directory, shard, wall_clock_ms()).map_err(|error| {
            format!(
                "shard {shard} cannot be set aside in {}: {error}; {cause}",
                directory.display()
            )
        })?;
        let place = aside
            .map_or(String::new(), |at| format!(", what there is now lies in {}", at.display()));
        tracing::error!(
            "shard {shard} is lost here and comes anew from the other nodes{place}: {cause}"
        );
        Ok(())
    }

    fn name(&self, shard: ShardId, member: NodeId) -> Result<(), String> {
        let directory = self.directory.as_deref().expect("only a shard with files is lost");
        replica::note_member(directory, shard, member).map_err(|error| {
            format!("cannot write to shard {shard} in {}: {error}", directory.display())
        })
    }

    fn note_companions(&self, count: usize) -> Result<(), String> {
        let Some(directory) = &self.directory else { return Ok(()) };
        replica::note_companions(directory, count)
            .map_err(|error| format!("cannot write to {}: {error}", directory.display()))
    }
}

impl Origins {
    fn bring_back(&self, shard: ShardId, seed: u64) -> Result<LocalShard, Failure> {
        let member = match &self.directory {
            Some(directory) => replica::member(directory, shard, self.node)?,
            None => self.node,
        };
        // Whoever joins is told of the members by a snapshot.
        let founders = if member == FOUNDER { vec![member] } else { Vec::new() };
        let mut config = GroupConfig::new(member, shard, founders);
        config.tick_us = CLUSTER_TICK.as_micros() as u64;
        config.election_ticks = ELECTION_TICKS;
        let Some(directory) = &self.directory else {
            let group = Group::open(config, None, None, seed).map_err(|e| e.to_string())?;
            let snapshots = ShardSnapshots::new(None, Vec::new(), wall_clock_ms());
            let keyspace = Keyspace::new(self.hasher);
            return Ok(LocalShard::new(shard, keyspace, group, snapshots, 0, seed));
        };
        self.step(shard, "opening its directory");
        let kept = SnapshotDirectory::open(directory, self.cluster, shard);
        let kept = kept?;
        let mut indexes: Vec<Index> = kept.list()?.iter().map(|name| name.index).collect();
        indexes.sort_unstable();
        let log_directory = log_directory(directory, shard);
        std::fs::create_dir_all(&log_directory)
            .map_err(|error| format!("cannot create {}: {error}", log_directory.display()))?;
        let disk = RealDisk::open(&log_directory).map_err(|error| error.to_string())?;
        let disk = Arc::new(disk);
        self.step(shard, "reading its snapshot");
        let recovered = self.load_snapshot(shard, &kept)?;
        let covered = recovered.header.as_ref().map_or(Index(0), |header| header.index);
        // Not those that proved damaged.
        indexes.retain(|index| *index <= covered);
        self.step(shard, "reading its log");
        let log = self.read_log(shard, &disk, covered, seed)?;
        // A log that still holds the founding of its group lacks nothing.
        let begins_after = if log.founding.is_some() { 0 } else { log.base.0 };
        if begins_after > covered.0 {
            return Err(recovered.uncovered(&kept, Index(begins_after)).into());
        }
        let aside = recovered.set_aside(&kept).map_err(|e| e.to_string())?;
        for (damaged, place) in recovered.damaged.iter().zip(aside) {
            tracing::warn!(
                "a damaged snapshot was set aside as {}, the one before and the log make up for it: {}",
                place.display(),
                damaged.error
            );
        }
        let Recovered { keyspace, header, .. } = recovered;
        if let Some(cut) = &log.cut {
            tracing::warn!(
                "shard {shard}: the log ends at {} offset {}: {}; what was written there is dropped: {} bytes, with {} whole records \
                 that nobody was told of",
                cut.file,
                cut.offset,
                cut.found,
                cut.dropped_bytes,
                cut.dropped_records
            );
        }
        let point = header.as_ref().map(|header| SnapshotPoint {
            index: header.index,
            term: header.term,
            membership: header.membership.clone(),
        });
        let group = Group::open(config, Some(log), point, seed)?;
        let last_time_ms = header.map_or(0, |header| header.leader_time_ms);
        let snapshots = ShardSnapshots::new(Some(kept), indexes, wall_clock_ms());
        self.tell(shard, |progress| progress.is_done = true);
        let mut local = LocalShard::new(shard, keyspace, group, snapshots, last_time_ms, seed);
        local.files = Some(ShardFiles::new(log_directory, disk, self.fsync));
        Ok(local)
    }

    /// The journal of a core; `None` in `cache` mode.
    pub fn journal(&self, core: u16, seed: u64) -> Option<CoreJournal> {
        let directory = journal_directory(self.directory.as_ref()?);
        let whose = (self.cluster, self.node);
        let bytes = JOURNAL_SEGMENTS * self.segment_bytes;
        Some(CoreJournal::new(directory, whose, core, bytes, seed))
    }

    fn read_log(
        &self,
        shard: ShardId,
        disk: &Arc<RealDisk>,
        keep_after: Index,
        seed: u64,
    ) -> Result<RecoveredLog, RecoverError> {
        let identity = LogIdentity { cluster: self.cluster, node: self.node, shard };
        let segment_bytes = match shard {
            META => self.segment_bytes.min(META_SEGMENT_BYTES),
            _ => self.segment_bytes,
        };
        let options = LogOptions {
            block_bytes: BLOCK_BYTES,
            segment_bytes,
            sync: self.fsync.sync_policy(),
            ..LogOptions::new(identity)
        };
        let before =
            self.progress_of(shard).map(|progress| *progress.lock().expect("no panic holds it"));
        let before = before.unwrap_or_default();
        let mut tell = |done, total| {
            self.tell(shard, |progress| {
                progress.read_bytes = before.read_bytes + done;
                progress.total_bytes = before.total_bytes + total;
            });
        };
        ringraft_shards::log::recover(disk.clone(), options, keep_after, seed, &mut tell)
    }

    fn load_snapshot(
        &self,
        shard: ShardId,
        kept: &SnapshotDirectory,
    ) -> Result<Recovered, SnapshotError> {
        let empty = || Keyspace::new(self.hasher);
        let mut tell = |loaded: Progress| {
            self.tell(shard, |progress| {
                progress.read_bytes = loaded.bytes;
                progress.total_bytes = loaded.size;
            });
        };
        snapshots::recover(kept, &empty, &mut tell)
    }

    /// Something begins for a shard.
    pub fn step(&self, shard: ShardId, step: &'static str) {
        self.tell(shard, |progress| progress.step = step);
    }

    fn tell(&self, shard: ShardId, change: impl FnOnce(&mut ShardProgress)) {
        if let Some(progress) = self.progress_of(shard) {
            change(&mut progress.lock().expect("no panic holds it"));
        }
    }

    /// The meta group has none.
    fn progress_of(&self, shard: ShardId) -> Option<&Mutex<ShardProgress>> {
        self.progress.get(usize::from(shard.0))
    }
}

/// Writes what the journals of all cores hold to the logs, which nobody has opened yet, and empties
/// them. Errors: one line that names the file, what is wrong and what to do.
pub fn redo_journals(data: &Path, whose: (ClusterId, NodeId), cores: u16) -> Result<(), String> {
    let directory = journal_directory(data);
    if !directory.is_dir() {
        return Ok(());
    }
    let seed = getrandom::u64().map_err(|error| format!("cannot read random bytes: {error}"))?;
    let journals = RealDisk::open(&directory).map_err(|error| error.to_string())?;
    let mut logs = |shard| {
        let directory = log_directory(data, shard);
        if !directory.is_dir() {
            return Ok(None);
        }
        RealDisk::open(&directory).map(|disk| Some(Arc::new(disk) as Arc<dyn Disk>))
    };
    let redone = ringraft_shards::log::redo(&journals, whose, cores, seed, &mut logs)
        .map_err(|error| error.to_string())?;
    if redone.records > 0 {
        tracing::info!(
            "{} records of {} frames in {} journals were written to their logs",
            redone.records,
            redone.frames,
            redone.files
        );
    }
    Ok(())
}

/// The directory of a shard's log.
pub fn log_directory(data: &Path, shard: ShardId) -> PathBuf {
    replica::folder(data, shard).join("log")
}
