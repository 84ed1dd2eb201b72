//! The snapshots of one shard on disk: `<dir>/shard-<n>/snapshots/<term>-<index>/`.
//!
//! A name without a suffix is a complete snapshot and stays so: it appears by a rename after
//! everything in it was synced. `.tmp` is unfinished and removed at start; `.damaged` was set aside
//! by recovery for a person to look at. Everything here blocks on the disk.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::error::SnapshotError;
use super::meta::Meta;
use super::transfer::SnapshotFile;
use crate::ids::{ClusterId, Index, ShardId, Term};
use crate::limits::SNAPSHOT_KEPT_COUNT;

/// The file with the items.
pub const STATE_FILE: &str = "state.ring";
/// The file that repeats header and footer.
pub const META_FILE: &str = "meta.json";
const UNFINISHED: &str = ".tmp";
const DAMAGED: &str = ".damaged";

/// Which snapshot of a shard. Ordered by index, the newest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotName {
    /// Index of the last entry applied.
    pub index: Index,
    /// Its term.
    pub term: Term,
}

impl SnapshotName {
    /// Reads `<term>-<index>`, decimal without leading zeros.
    pub fn parse(text: &str) -> Option<SnapshotName> {
        let (term, index) = text.split_once('-')?;
        let name =
            SnapshotName { term: Term(term.parse().ok()?), index: Index(index.parse().ok()?) };
        (name.to_string() == text).then_some(name)
    }
}

impl std::fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.term, self.index)
    }
}

/// Where one shard keeps its snapshots.
#[derive(Clone, Debug)]
pub struct SnapshotDirectory {
    path: PathBuf,
    cluster: ClusterId,
    shard: ShardId,
}

impl SnapshotDirectory {
    /// The snapshots of `shard` under the data directory, made when missing.
    pub fn open(
        data: &Path,
        cluster: ClusterId,
        shard: ShardId,
    ) -> Result<SnapshotDirectory, SnapshotError> {
        let path = data.join(format!("shard-{shard}")).join("snapshots");
        if !path.is_dir() {
            fs::create_dir_all(&path).map_err(SnapshotError::io("creating", &path))?;
            path.ancestors().skip(1).take(2).try_for_each(sync_directory)?;
        }
        Ok(SnapshotDirectory { path, cluster, shard })
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The cluster that its snapshots must belong to.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The shard.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// `state.ring` of a snapshot.
    pub fn state_path(&self, name: SnapshotName) -> PathBuf {
        self.path.join(name.to_string()).join(STATE_FILE)
    }

    /// Complete snapshots, newest first. Says nothing about what is in them.
    pub fn list(&self) -> Result<Vec<SnapshotName>, SnapshotError> {
        let mut names: Vec<_> =
            self.entries()?.iter().filter_map(|entry| SnapshotName::parse(entry)).collect();
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(names)
    }

    /// Begins a snapshot under an unfinished name.
    /// Errors: [`SnapshotError::Exists`] when this one is there, complete.
    pub fn begin(&self, name: SnapshotName) -> Result<PendingSnapshot, SnapshotError> {
        let target = self.path.join(name.to_string());
        if target.exists() {
            return Err(SnapshotError::Exists { path: target });
        }
        let unfinished = self.path.join(format!("{name}{UNFINISHED}"));
        remove_if_present(&unfinished)?;
        fs::create_dir(&unfinished).map_err(SnapshotError::io("creating", &unfinished))?;
        Ok(PendingSnapshot { unfinished, target, parent: self.path.clone() })
    }

    /// Removes what was begun and never finished. At start, when nothing is being written.
    pub fn remove_unfinished(&self) -> Result<(), SnapshotError> {
        for entry in self.entries()?.iter().filter(|entry| entry.ends_with(UNFINISHED)) {
            remove_if_present(&self.path.join(entry))?;
        }
        Ok(())
    }

    /// Removes all but the newest [`SNAPSHOT_KEPT_COUNT`], and damaged ones older than those.
    /// Returns what is left, newest first: the log must keep every entry after the *last* of
    /// them, or a damaged newest snapshot could not fall back.
    pub fn prune(&self) -> Result<Vec<SnapshotName>, SnapshotError> {
        let mut names = self.list()?;
        for name in names.split_off(names.len().min(SNAPSHOT_KEPT_COUNT)) {
            remove_if_present(&self.path.join(name.to_string()))?;
        }
        for entry in self.entries()? {
            let damaged = entry.strip_suffix(DAMAGED).and_then(SnapshotName::parse);
            if damaged.is_some_and(|damaged| names.last().is_some_and(|&kept| damaged < kept)) {
                remove_if_present(&self.path.join(entry))?;
            }
        }
        Ok(names)
    }

    /// Removes all but the newest, once that has been read from end to end and found good: on a
    /// full disk its room is worth more than a second copy. Returns it; `None` when there is no
    /// snapshot. Errors: it is damaged, or the disk's own; then all are kept.
    pub fn keep_newest(&self) -> Result<Option<SnapshotName>, SnapshotError> {
        let names = self.list()?;
        let Some((&newest, older)) = names.split_first() else { return Ok(None) };
        let file = SnapshotFile::open(&self.state_path(newest))?;
        file.check_owner(self)?;
        file.reader()?.verify().map_err(|error| file.unreadable(error))?;
        for name in older {
            remove_if_present(&self.path.join(name.to_string()))?;
        }
        self.sync()?;
        Ok(Some(newest))
    }

    /// Removes those that lie behind an index.
    pub fn remove_beyond(&self, index: Index) -> Result<(), SnapshotError> {
        for name in self.list()?.iter().filter(|name| name.index > index) {
            remove_if_present(&self.path.join(name.to_string()))?;
        }
        self.sync()
    }

    /// Makes the names in it durable.
    pub fn sync(&self) -> Result<(), SnapshotError> {
        sync_directory(&self.path)
    }

    /// Renames a damaged snapshot, so that it is not chosen again and a new one may take its name.
    /// Returns where it is now.
    pub fn set_aside(&self, name: SnapshotName) -> Result<PathBuf, SnapshotError> {
        let aside = self.path.join(format!("{name}{DAMAGED}"));
        remove_if_present(&aside)?;
        rename(&self.path.join(name.to_string()), &aside)?;
        sync_directory(&self.path)?;
        Ok(aside)
    }

    /// Names of everything in the directory that are text.
    fn entries(&self) -> Result<Vec<String>, SnapshotError> {
        let failed = || SnapshotError::io("listing", &self.path);
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed())? {
            entries.extend(entry.map_err(failed())?.file_name().into_string().ok());
        }
        Ok(entries)
    }
}

/// A snapshot being written, under a name that recovery does not look at.
#[derive(Debug)]
#[must_use = "a snapshot exists only once it is published"]
pub struct PendingSnapshot {
    unfinished: PathBuf,
    target: PathBuf,
    parent: PathBuf,
}

impl PendingSnapshot {
    /// Where the writer's bytes go.
    pub fn state_path(&self) -> PathBuf {
        self.unfinished.join(STATE_FILE)
    }

    /// Makes the snapshot exist, once all bytes are in its state file: syncs that file, writes and
    /// syncs `meta.json`, syncs their directory, renames it, syncs the directory above. Only
    /// after this has returned may the log before the snapshot go. Returns the state file's
    /// path.
    ///
    /// Errors: the disk's own, or the file is not as long as it should be; what was written is
    /// removed then.
    pub fn publish(self, meta: &Meta) -> Result<PathBuf, SnapshotError> {
        let published = self.make_it_exist(meta);
        if published.is_err() && self.unfinished.exists() {
            // Most likely the disk is full: it must not be so for what is worth nothing.
            let _ = remove_if_present(&self.unfinished);
        }
        published
    }

    fn make_it_exist(&self, meta: &Meta) -> Result<PathBuf, SnapshotError> {
        let state = self.state_path();
        let written = File::open(&state)
            .and_then(|file| file.sync_all().and_then(|()| file.metadata()))
            .map_err(SnapshotError::io("syncing", &state))?;
        if written.len() != meta.size {
            return Err(SnapshotError::NotAsAnnounced {
                path: state,
                what: "the size",
                found: written.len(),
                expected: meta.size,
            });
        }
        let path = self.unfinished.join(META_FILE);
        File::create(&path)
            .and_then(|mut file| {
                file.write_all(meta.to_json().as_bytes())?;
                file.sync_all()
            })
            .map_err(SnapshotError::io("writing", &path))?;
        sync_directory(&self.unfinished)?;
        rename(&self.unfinished, &self.target)?;
        sync_directory(&self.parent)?;
        Ok(self.target.join(STATE_FILE))
    }

    /// Gives up and removes what was written.
    pub fn abandon(self) -> Result<(), SnapshotError> {
        remove_if_present(&self.unfinished)
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), SnapshotError> {
    fs::rename(from, to).map_err(SnapshotError::io("renaming", from))
}

fn remove_if_present(path: &Path) -> Result<(), SnapshotError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(SnapshotError::io("removing", path)(error))
        }
        _ => Ok(()),
    }
}

fn sync_directory(path: &Path) -> Result<(), SnapshotError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(SnapshotError::io("syncing", path))
}
