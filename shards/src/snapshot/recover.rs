//! Chooses the snapshot to start from and loads it: the newest one whose every byte is good.
//!
//! Whether the log goes on where an older snapshot ends is found out only when the log is read,
//! which needs the snapshot's index first. So nothing is changed here: once the log fits, the
//! driver has the damaged ones set aside; if it does not, [`Recovered::uncovered`] tells the whole
//! story. What was written by a newer ringraft, or belongs elsewhere, ends the search: going back
//! behind it would lose data that is intact.

use std::path::PathBuf;

use super::directory::{SnapshotDirectory, SnapshotName};
use super::error::{ReadError, SnapshotError};
use super::header::Header;
use super::load::{Progress, load};
use super::transfer::SnapshotFile;
use crate::ids::Index;
use crate::keyspace::Keyspace;

/// What a shard starts from.
pub struct Recovered {
    /// The items.
    pub keyspace: Keyspace,
    /// The snapshot they came from; `None` without a good one: the log must reach back to the
    /// beginning.
    pub header: Option<Header>,
    /// Newer snapshots that were passed over because they are damaged.
    pub damaged: Vec<Damaged>,
}

/// A snapshot that cannot be used.
#[derive(Debug)]
pub struct Damaged {
    /// Which.
    pub name: SnapshotName,
    /// File, offset and flaw.
    pub error: SnapshotError,
}

impl Recovered {
    /// Renames the damaged snapshots, so that they are not tried again. To be called once the log
    /// is known to go on where this snapshot ends. Returns where they are now, in the order of
    /// `damaged`.
    pub fn set_aside(&self, directory: &SnapshotDirectory) -> Result<Vec<PathBuf>, SnapshotError> {
        self.damaged.iter().map(|damaged| directory.set_aside(damaged.name)).collect()
    }

    /// The refusal when the log begins later than this snapshot ends.
    pub fn uncovered(
        &self,
        directory: &SnapshotDirectory,
        log_begins_after: Index,
    ) -> SnapshotError {
        SnapshotError::Gap {
            shard: directory.shard(),
            directory: directory.path().to_path_buf(),
            log_begins_after,
            index: self.header.as_ref().map(|header| header.index),
            damage: self.damaged.iter().map(|damaged| damaged.error.to_string()).collect(),
        }
    }
}

/// Loads the newest good snapshot. `empty` makes an empty keyspace. Unfinished snapshots are
/// removed. Blocks until all is loaded, telling how far it is.
///
/// Errors: a newer format; a snapshot of another cluster or shard; the disk's own errors.
pub fn recover(
    directory: &SnapshotDirectory,
    empty: &dyn Fn() -> Keyspace,
    tell: &mut dyn FnMut(Progress),
) -> Result<Recovered, SnapshotError> {
    directory.remove_unfinished()?;
    // The process before may have ended between renaming a snapshot and syncing its name. The log
    // that is begun after it, and synced, must not outlive it.
    directory.sync()?;
    let mut damaged = Vec::new();
    for name in directory.list()? {
        match open_and_load(directory, name, empty, tell) {
            Ok((keyspace, header)) => {
                return Ok(Recovered { keyspace, header: Some(header), damaged });
            }
            Err(error) if is_damage(&error) => damaged.push(Damaged { name, error }),
            Err(error) => return Err(error),
        }
    }
    Ok(Recovered { keyspace: empty(), header: None, damaged })
}

fn open_and_load(
    directory: &SnapshotDirectory,
    name: SnapshotName,
    empty: &dyn Fn() -> Keyspace,
    tell: &mut dyn FnMut(Progress),
) -> Result<(Keyspace, Header), SnapshotError> {
    let file = SnapshotFile::open(&directory.state_path(name))?;
    file.check_owner(directory)?;
    let header = file.header().clone();
    for (what, found, expected) in
        [("the term", header.term.0, name.term.0), ("the index", header.index.0, name.index.0)]
    {
        if found != expected {
            let path = file.path().to_path_buf();
            return Err(SnapshotError::NotAsAnnounced { path, what, found, expected });
        }
    }
    let mut keyspace = empty();
    load(&mut file.reader()?, &mut keyspace, tell).map_err(|error| file.unreadable(error))?;
    Ok((keyspace, header))
}

/// Is the snapshot itself bad, so that an older one may do?
fn is_damage(error: &SnapshotError) -> bool {
    match error {
        SnapshotError::Unreadable { source, .. } => {
            !matches!(source, ReadError::NewerFormat { .. })
        }
        SnapshotError::NotAsAnnounced { .. } => true,
        SnapshotError::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::directory::META_FILE;
    use super::super::header::FORMAT_VERSION;
    use super::super::tests::{Record, open_directory, publish, record};
    use super::*;
    use crate::ids::{ClusterId, DatabaseIndex, ShardId};
    use crate::keyspace::{Key, KeyHasher};
    use crate::snapshot::directory::STATE_FILE;

    /// The example header's leader time is far past this.
    const LONG_PAST: i64 = 1_000;

    fn empty() -> Keyspace {
        Keyspace::new(KeyHasher::new(42))
    }

    fn items(index: u64) -> Vec<Record> {
        vec![
            record(0, "index", &index.to_string(), None),
            record(1, "later", "x", Some(i64::MAX)),
            record(1, "expired", "y", Some(LONG_PAST)),
        ]
    }

    fn recovered(directory: &SnapshotDirectory) -> Result<Recovered, SnapshotError> {
        recover(directory, &empty, &mut |_| {})
    }

    /// The index of the snapshot that the items came from, 0 for none; checks that all are there.
    fn loaded_index(recovered: &Recovered) -> u64 {
        let index = recovered.header.as_ref().map_or(0, |header| header.index.0);
        let count = |database| recovered.keyspace.count(DatabaseIndex(database));
        if index == 0 {
            assert_eq!((count(0), count(1)), (0, 0));
            return 0;
        }
        let get = |database, key: &str, now_ms| {
            let key = Key::new(key.as_bytes(), KeyHasher::new(42).hash(key.as_bytes()));
            let view = recovered.keyspace.view(DatabaseIndex(database), now_ms);
            view.peek(&key).and_then(|item| item.string()).map(|value| value.to_vec())
        };
        assert_eq!(get(0, "index", i64::MAX), Some(index.to_string().into_bytes()));
        assert_eq!(get(1, "later", i64::MAX - 1), Some(b"x".to_vec()));
        assert_eq!(get(1, "expired", LONG_PAST - 1), Some(b"y".to_vec()));
        assert_eq!(get(1, "expired", LONG_PAST + 1), None);
        assert_eq!((count(0), count(1)), (1, 2));
        index
    }

    fn flip(path: &std::path::Path, at: usize) {
        let mut bytes = std::fs::read(path).expect("readable");
        bytes[at] ^= 1;
        std::fs::write(path, bytes).expect("writable");
    }

    #[test]
    fn the_newest_is_relied_on_alone_only_when_it_is_good() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let directory = open_directory(scratch.path());
        assert_eq!(directory.keep_newest().expect("nothing to do"), None);
        let older = publish(&directory, 10, &items(10));
        let newest = publish(&directory, 20, &items(20));
        let state = directory.state_path(newest);
        let bytes = std::fs::metadata(&state).expect("there").len() as usize;
        for at in 0..bytes {
            flip(&state, at);
            directory.keep_newest().expect_err("damaged");
            assert_eq!(directory.list().expect("listed"), [newest, older], "byte {at}");
            flip(&state, at);
        }
        assert_eq!(directory.keep_newest().expect("good"), Some(newest));
        assert_eq!(directory.list().expect("listed"), [newest]);
    }

    #[test]
    fn what_cannot_be_published_leaves_nothing_behind() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let directory = open_directory(scratch.path());
        let name = publish(&directory, 10, &items(10));
        let meta = SnapshotFile::open(&directory.state_path(name)).expect("good").meta();
        let pending = directory.begin(SnapshotName { index: Index(20), ..name }).expect("new");
        std::fs::write(pending.state_path(), "not all of it").expect("written");
        pending.publish(&meta).expect_err("too short");
        let left: Vec<_> = std::fs::read_dir(directory.path()).expect("listed").collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn the_newest_good_snapshot_is_loaded() {
        let data = tempfile::tempdir().expect("scratch");
        let directory = open_directory(data.path());
        let nothing = recovered(&directory).expect("a new shard");
        assert_eq!(loaded_index(&nothing), 0);
        let text = nothing.uncovered(&directory, Index(5)).to_string();
        assert!(text.contains("begins after entry 5 and it has no good snapshot"), "{text}");

        let (older, newer) =
            (publish(&directory, 10, &items(10)), publish(&directory, 20, &items(20)));
        let unfinished = directory.path().join("7-30.tmp");
        std::fs::create_dir(&unfinished).expect("writable");
        let newest = recovered(&directory).expect("good");
        assert_eq!((loaded_index(&newest), newest.damaged.len()), (20, 0));
        assert!(!unfinished.exists());

        flip(&directory.state_path(newer), 200);
        let fallen_back = recovered(&directory).expect("the older one");
        assert_eq!(loaded_index(&fallen_back), 10);
        let text = fallen_back.uncovered(&directory, Index(11)).to_string();
        for part in [
            "begins after entry 11 and its newest good snapshot ends at entry 10",
            "7-20/state.ring: damaged at byte ",
            "let it join",
        ] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
        assert_eq!(directory.list().expect("readable"), [newer, older], "nothing was changed");
        let aside = fallen_back.set_aside(&directory).expect("movable");
        assert!(aside[0].ends_with("7-20.damaged") && aside[0].join(STATE_FILE).exists());
        assert_eq!(directory.list().expect("readable"), [older]);

        flip(&directory.state_path(older), 0);
        let none = recovered(&directory).expect("the log may have it all");
        assert_eq!((loaded_index(&none), none.damaged.len()), (0, 1));
    }

    #[test]
    fn what_is_not_damage_ends_the_search() {
        let data = tempfile::tempdir().expect("scratch");
        let directory = open_directory(data.path());
        publish(&directory, 10, &items(10));
        let name = publish(&directory, 20, &items(20));
        let foreign =
            SnapshotDirectory::open(data.path(), ClusterId(8), ShardId(3)).expect("there");
        let text = recovered(&foreign).err().expect("another cluster").to_string();
        assert!(text.contains("belongs to cluster 00000000000000000000000000000007"), "{text}");
        let moved = SnapshotDirectory::open(data.path(), ClusterId(7), ShardId(4)).expect("there");
        std::fs::rename(directory.path().join("7-20"), moved.path().join("7-20")).expect("movable");
        let text = recovered(&moved).err().expect("another shard").to_string();
        assert!(text.contains("belongs to shard 3 and lies where shard 4"), "{text}");
        std::fs::rename(moved.path().join("7-20"), directory.path().join("7-20")).expect("movable");

        let path = directory.state_path(name);
        let mut bytes = std::fs::read(&path).expect("readable");
        bytes[8..12].copy_from_slice(&(FORMAT_VERSION + 1).to_le_bytes());
        let length = Header::length(bytes.first_chunk().expect("a header")).expect("good");
        let crc = crc32fast::hash(&bytes[..length - 4]);
        bytes[length - 4..length].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(&path, bytes).expect("writable");
        let text = recovered(&directory).err().expect("a newer format").to_string();
        let newer = format!("written in snapshot format {}", FORMAT_VERSION + 1);
        assert!(text.contains(&newer), "{text}");
    }

    #[test]
    fn a_snapshot_of_the_format_before_is_read() {
        let data = tempfile::tempdir().expect("scratch");
        let directory = open_directory(data.path());
        let name = publish(&directory, 10, &items(10));
        let path = directory.state_path(name);
        let mut bytes = std::fs::read(&path).expect("readable");
        // The checksum of a part that ends with its own checksum is always the same, so the file's
        // holds.
        bytes[8..12].copy_from_slice(&2u32.to_le_bytes());
        let length = Header::length(bytes.first_chunk().expect("a header")).expect("good");
        let crc = crc32fast::hash(&bytes[..length - 4]);
        bytes[length - 4..length].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(&path, &bytes).expect("writable");
        let meta = path.with_file_name(META_FILE);
        let text = std::fs::read_to_string(&meta).expect("readable");
        let current = format!("\"format_version\": {FORMAT_VERSION}");
        let older = text.replace(&current, "\"format_version\": 2");
        assert_ne!(text, older);
        std::fs::write(&meta, older).expect("writable");
        let recovered = recovered(&directory).expect("an older format");
        assert!(recovered.damaged.is_empty());
        assert_eq!(loaded_index(&recovered), 10);
    }

    #[test]
    fn a_flipped_byte_anywhere_falls_back() {
        let data = tempfile::tempdir().expect("scratch");
        let directory = open_directory(data.path());
        publish(&directory, 10, &items(10));
        let state = directory.state_path(publish(&directory, 20, &items(20)));
        let good = std::fs::read(&state).expect("readable");
        for at in 0..good.len() {
            flip(&state, at);
            let fallen_back = recovered(&directory).expect("the older one");
            assert_eq!(loaded_index(&fallen_back), 10, "byte {at}");
            std::fs::write(&state, &good).expect("writable");
        }
        assert_eq!(loaded_index(&recovered(&directory).expect("good")), 20);
    }

    #[test]
    fn a_changed_or_missing_meta_never_changes_the_items() {
        let data = tempfile::tempdir().expect("scratch");
        let directory = open_directory(data.path());
        publish(&directory, 10, &items(10));
        let state = directory.state_path(publish(&directory, 20, &items(20)));
        let meta = state.with_file_name(META_FILE);
        let good = std::fs::read(&meta).expect("readable");
        let mut fallen_back = 0;
        for at in 0..good.len() {
            flip(&meta, at);
            let index = loaded_index(&recovered(&directory).expect("either is good"));
            fallen_back += usize::from(index == 10);
            std::fs::write(&meta, &good).expect("writable");
        }
        // Blanks and the version that wrote it may differ.
        assert!(fallen_back > good.len() / 2, "{fallen_back} of {}", good.len());
        std::fs::remove_file(&meta).expect("removable");
        assert_eq!(loaded_index(&recovered(&directory).expect("the older one")), 10);
    }
}
