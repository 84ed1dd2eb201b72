//! Chooses the snapshot to start from and loads it.
//!
//! The newest one whose every byte is good, as long as the log still has all entries after it. What
//! was written by a newer ringraft, or belongs elsewhere, ends the search: going back behind it would
//! lose data that is intact.

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
    /// The snapshot they came from; `None` when the log begins at the first entry.
    pub header: Option<Header>,
    /// Damaged snapshots that were passed over: where they are now, and what was wrong.
    pub damaged: Vec<(PathBuf, SnapshotError)>,
}

/// Loads the newest good snapshot. `log_first_index` is the first entry that the log holds; for an empty
/// log, the index that its next entry would have. `empty` makes an empty keyspace. Unfinished snapshots
/// are removed and damaged ones set aside. Blocks until all is loaded, telling how far it is.
///
/// Errors: [`SnapshotError::Gap`] when no good snapshot meets the log; a newer format; a snapshot of
/// another cluster or shard; the disk's own errors.
pub fn recover(
    directory: &SnapshotDirectory,
    log_first_index: Index,
    empty: &dyn Fn() -> Keyspace,
    tell: &mut dyn FnMut(Progress),
) -> Result<Recovered, SnapshotError> {
    directory.remove_unfinished()?;
    let mut damaged = Vec::new();
    let mut best_index = None;
    for name in directory.list()? {
        if log_first_index.0 > name.index.0.saturating_add(1) {
            best_index = Some(name.index);
            break;
        }
        match open_and_load(directory, name, empty, tell) {
            Ok((keyspace, header)) => {
                let damaged = set_aside(directory, damaged)?;
                return Ok(Recovered { keyspace, header: Some(header), damaged });
            }
            Err(error) if is_damage(&error) => damaged.push((name, error)),
            Err(error) => return Err(error),
        }
    }
    if best_index.is_none() && log_first_index.0 <= 1 {
        let damaged = set_aside(directory, damaged)?;
        return Ok(Recovered { keyspace: empty(), header: None, damaged });
    }
    Err(SnapshotError::Gap {
        shard: directory.shard(),
        directory: directory.path().to_path_buf(),
        log_first_index,
        best_index,
        damage: damaged.iter().map(|(_, error)| error.to_string()).collect(),
    })
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

fn set_aside(
    directory: &SnapshotDirectory,
    damaged: Vec<(SnapshotName, SnapshotError)>,
) -> Result<Vec<(PathBuf, SnapshotError)>, SnapshotError> {
    let mut aside = Vec::new();
    for (name, error) in damaged {
        aside.push((directory.set_aside(name)?, error));
    }
    Ok(aside)
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

    fn recovered_at(
        directory: &SnapshotDirectory,
        log_first: u64,
    ) -> Result<Recovered, SnapshotError> {
        recover(directory, Index(log_first), &empty, &mut |_| {})
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
    fn the_newest_good_snapshot_that_meets_the_log_is_loaded() {
        let data = tempfile::tempdir().expect("scratch");
        let directory = open_directory(data.path());
        assert_eq!(loaded_index(&recovered_at(&directory, 1).expect("a new shard")), 0);
        let error = recovered_at(&directory, 5).err().expect("a log without its beginning");
        let text = error.to_string();
        assert!(text.contains("begins at index 5 and it has no usable snapshot"), "{text}");

        let (older, newer) =
            (publish(&directory, 10, &items(10)), publish(&directory, 20, &items(20)));
        let unfinished = directory.path().join("7-30.tmp");
        std::fs::create_dir(&unfinished).expect("writable");
        for log_first in [1, 11, 21] {
            assert_eq!(loaded_index(&recovered_at(&directory, log_first).expect("good")), 20);
        }
        assert!(!unfinished.exists());
        let text = recovered_at(&directory, 22).err().expect("a gap").to_string();
        assert!(
            text.contains("begins at index 22 and its best snapshot ends at index 20"),
            "{text}"
        );

        flip(&directory.state_path(newer), 200);
        let text =
            recovered_at(&directory, 12).err().expect("the log covers too little").to_string();
        for part in ["ends at index 10", "7-20/state.ring: damaged at byte ", "let it join"] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
        let recovered = recovered_at(&directory, 11).expect("the log covers the older one");
        assert_eq!(loaded_index(&recovered), 10);
        let (aside, error) = &recovered.damaged[0];
        assert!(aside.ends_with("7-20.damaged") && aside.join(STATE_FILE).exists(), "{error}");
        assert_eq!(directory.list().expect("readable"), [older]);

        flip(&directory.state_path(older), 0);
        assert_eq!(loaded_index(&recovered_at(&directory, 1).expect("the log has it all")), 0);
    }

    #[test]
    fn what_is_not_damage_ends_the_search() {
        let data = tempfile::tempdir().expect("scratch");
        let directory = open_directory(data.path());
        publish(&directory, 10, &items(10));
        let name = publish(&directory, 20, &items(20));
        let foreign =
            SnapshotDirectory::open(data.path(), ClusterId(8), ShardId(3)).expect("there");
        let text = recovered_at(&foreign, 1).err().expect("another cluster").to_string();
        assert!(text.contains("belongs to cluster 00000000000000000000000000000007"), "{text}");
        let moved = SnapshotDirectory::open(data.path(), ClusterId(7), ShardId(4)).expect("there");
        std::fs::rename(directory.path().join("7-20"), moved.path().join("7-20")).expect("movable");
        let text = recovered_at(&moved, 1).err().expect("another shard").to_string();
        assert!(text.contains("belongs to shard 3 and lies where shard 4"), "{text}");
        std::fs::rename(moved.path().join("7-20"), directory.path().join("7-20")).expect("movable");

        let path = directory.state_path(name);
        let mut bytes = std::fs::read(&path).expect("readable");
        bytes[8..12].copy_from_slice(&(FORMAT_VERSION + 1).to_le_bytes());
        let length = Header::length(bytes.first_chunk().expect("a header")).expect("good");
        let crc = crc32fast::hash(&bytes[..length - 4]);
        bytes[length - 4..length].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(&path, bytes).expect("writable");
        let text = recovered_at(&directory, 1).err().expect("a newer format").to_string();
        assert!(text.contains("written in snapshot format 2"), "{text}");
    }

    /// Undoes what recovery did to a damaged snapshot, and writes the good bytes again.
    fn put_back(recovered: &Recovered, path: &std::path::Path, good: &[u8]) {
        let directory = path.parent().expect("a file in a directory");
        std::fs::rename(&recovered.damaged[0].0, directory).expect("movable");
        std::fs::write(path, good).expect("writable");
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
            let recovered = recovered_at(&directory, 11).expect("the older one");
            assert_eq!(loaded_index(&recovered), 10, "byte {at}");
            put_back(&recovered, &state, &good);
        }
        assert_eq!(loaded_index(&recovered_at(&directory, 11).expect("good")), 20);
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
        for at in (0..good.len()).step_by(5) {
            flip(&meta, at);
            let recovered = recovered_at(&directory, 11).expect("either is good");
            if loaded_index(&recovered) == 10 {
                fallen_back += 1;
                put_back(&recovered, &meta, &good);
            }
            std::fs::write(&meta, &good).expect("writable");
        }
        // Blanks and the version that wrote it may differ.
        assert!(fallen_back > good.len() / 10, "{fallen_back} of {} / 5", good.len());
        std::fs::remove_file(&meta).expect("removable");
        assert_eq!(loaded_index(&recovered_at(&directory, 11).expect("the older one")), 10);
    }
}
