//! Puts the items of a snapshot into a keyspace.

use std::io::Read;

use super::error::Flaw;
use super::error::ReadError;
use super::reader::SnapshotReader;
use crate::keyspace::{Expiry, Key, Keyspace};
use crate::rdb::Piece;

/// How far a snapshot is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Items loaded.
    pub items: u64,
    /// Bytes of the file read.
    pub bytes: u64,
    /// Bytes of the file.
    pub size: u64,
}

/// Loads the next chunk; `false` when there was none and the whole file was found good. Until then
/// the keyspace must not be served: the file may yet prove damaged.
/// Cost: one set per item; a chunk takes about a millisecond.
pub fn load_chunk<R: Read>(
    reader: &mut SnapshotReader<R>,
    keyspace: &mut Keyspace,
    progress: &mut Progress,
) -> Result<bool, ReadError> {
    let hasher = keyspace.hasher();
    let leader_time_ms = reader.header().leader_time_ms;
    let more = match reader.read_chunk()? {
        Some(mut chunk) => {
            while let Some(item) = chunk.next_item()? {
                let key = Key::new(&item.key, hasher.hash(&item.key));
                let expiry = item.deadline.map_or(Expiry::Never, Expiry::At);
                // An item past its deadline is loaded too, hence set before it: the snapshot's
                // index decides what is there, and the leader's time, later on,
                // what has expired.
                let now_ms = match item.piece {
                    Piece::Next(_) => i64::MIN,
                    Piece::Whole | Piece::First(_) => {
                        item.deadline.map_or(leader_time_ms, |at| at.0.min(leader_time_ms))
                    }
                };
                let mut edit = keyspace.edit(item.database, now_ms);
                edit.load(&key, item.shape, expiry, &item.value, item.piece)
                    .map_err(|fault| ReadError::damaged(chunk.offset(), Flaw::Item(fault)))?;
                progress.items += u64::from(item.is_first());
            }
            true
        }
        None => {
            keyspace.set_ledger(reader.take_ledger());
            keyspace.set_remembered(reader.take_remembered());
            keyspace.set_limits(reader.limits());
            keyspace.set_libraries(reader.take_libraries());
            false
        }
    };
    (progress.bytes, progress.size) = (reader.offset(), reader.size());
    Ok(more)
}

/// Loads everything that is left, telling how far it is after each chunk.
pub fn load<R: Read>(
    reader: &mut SnapshotReader<R>,
    keyspace: &mut Keyspace,
    tell: &mut dyn FnMut(Progress),
) -> Result<Progress, ReadError> {
    let mut progress = Progress::default();
    while load_chunk(reader, keyspace, &mut progress)? {
        tell(progress);
    }
    tell(progress);
    Ok(progress)
}
