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
