//! What can be wrong with a snapshot, and what to do about it.

use std::path::PathBuf;

use crate::ids::{ClusterId, Index, ShardId};

/// What is wrong with the bytes of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Other first bytes than a snapshot's.
    #[error("it does not begin as a snapshot does")]
    Magic,
    /// Neither a chunk nor the footer follows.
    #[error("neither a chunk nor the footer begins here")]
    Tag,
    /// The file ends too early.
    #[error("the file ends within {what}")]
    Truncated {
        /// The part that is cut.
        what: &'static str,
    },
    /// A checksum does not fit.
    #[error("the checksum of {what} is {found:08x} where {recorded:08x} is recorded")]
    Checksum {
        /// The part that was hashed.
        what: &'static str,
        /// As computed.
        found: u32,
        /// As in the file.
        recorded: u32,
    },
    /// A length that cannot be.
    #[error("{what} is said to have {length} bytes where at most {limit} can be")]
    Length {
        /// The part.
        what: &'static str,
        /// As recorded.
        length: u64,
        /// What there is room for.
        limit: u64,
    },
    /// A number disagrees with what was read.
    #[error("{what} is {found} where {recorded} is recorded")]
    Mismatch {
        /// The number's name.
        what: &'static str,
        /// As read.
        found: u64,
        /// As recorded.
        recorded: u64,
    },
    /// A value that the format does not know.
    #[error("{what} {found} is unknown")]
    Unknown {
        /// The field's name.
        what: &'static str,
        /// As read.
        found: u64,
    },
    /// An item that is not encoded as items are.
    #[error("an item: {0}")]
    Item(crate::rdb::Fault),
    /// Bytes after the footer.
    #[error("{count} bytes follow the footer")]
    Trailing {
        /// How many.
        count: u64,
    },
    /// `meta.json` is not what the file demands.
    #[error("meta.json {what}")]
    Meta {
        /// The disagreement.
        what: String,
    },
    /// A part of the snapshot is not there, or the disk cannot read it.
    #[error("{what}")]
    Unreadable {
        /// The operating system's words.
        what: String,
    },
}

/// Why a stream of snapshot bytes could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The source failed.
    #[error("reading at byte {offset}: {source}")]
    Io {
        /// Position in the file.
        offset: u64,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The bytes are not what was written.
    #[error("damaged at byte {offset}: {flaw}")]
    Damaged {
        /// Position in the file.
        offset: u64,
        /// What is wrong there.
        flaw: Flaw,
    },
    /// Written by a newer ringraft.
    #[error(
        "written in snapshot format {found}, and this ringraft knows formats up to {known}: start the version that wrote it, or a newer one"
    )]
    NewerFormat {
        /// As in the file.
        found: u32,
        /// The newest one known here.
        known: u32,
    },
}

impl ReadError {
    /// A flaw at an offset.
    pub(crate) fn damaged(offset: u64, flaw: Flaw) -> ReadError {
        ReadError::Damaged { offset, flaw }
    }
}

/// Why a snapshot cannot be used, kept or sent. Every text names the file and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The disk or the file system refused. Retry after its cause is removed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A snapshot of this term and index is there already: nothing has changed since.
    #[error("{} is there already", path.display())]
    Exists {
        /// The complete snapshot.
        path: PathBuf,
    },
    /// The file cannot be read as a snapshot.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ReadError,
    },
    /// A snapshot of another cluster.
    #[error(
        "{} belongs to cluster {found}, and this node to {expected}: the directory is another cluster's; start with its own --dir",
        path.display()
    )]
    OtherCluster {
        /// The file.
        path: PathBuf,
        /// As in the file.
        found: ClusterId,
        /// This node's.
        expected: ClusterId,
    },
    /// A snapshot of another shard.
    #[error(
        "{} belongs to shard {found} and lies where shard {expected} keeps its own: move it back",
        path.display()
    )]
    OtherShard {
        /// The file.
        path: PathBuf,
        /// As in the file.
        found: ShardId,
        /// The directory's.
        expected: ShardId,
    },
    /// Between the best snapshot and the log entries are missing.
    #[error(
        "shard {shard} cannot be recovered: its log begins after entry {log_begins_after} and {}; the entries between are nowhere on this disk. {}Restore {} from a copy, or remove the shard's directory on this node and let it join the cluster again; `ringraft snapshot print FILE` shows what a snapshot still holds",
        match index { Some(index) => format!("its newest good snapshot ends at entry {index}"), None => "it has no good snapshot".to_string() },
        damage.iter().map(|text| format!("{text}. ")).collect::<String>(),
        directory.display()
    )]
    Gap {
        /// The shard.
        shard: ShardId,
        /// Where its snapshots lie.
        directory: PathBuf,
        /// Index before the log's first entry.
        log_begins_after: Index,
        /// The newest good snapshot.
        index: Option<Index>,
        /// One text per damaged snapshot: file, offset, flaw.
        damage: Vec<String>,
    },
    /// A transferred piece does not continue what is there: send from the offset named.
    #[error("{}: a piece at byte {found} arrived where byte {expected} is next", path.display())]
    OutOfOrder {
        /// The unfinished file.
        path: PathBuf,
        /// Offset of the piece.
        found: u64,
        /// The offset that continues the file.
        expected: u64,
    },
    /// A file is not the snapshot that its name, or its sender, promised.
    #[error("{}: {what} is {found} and should be {expected}", path.display())]
    NotAsAnnounced {
        /// The unfinished file.
        path: PathBuf,
        /// The number's name.
        what: &'static str,
        /// As read.
        found: u64,
        /// As promised.
        expected: u64,
    },
}

impl SnapshotError {
    /// Is it a lack of room (disk or quota), which goes away when somebody makes room?
    pub fn is_full(&self) -> bool {
        match self {
            SnapshotError::Io { source, .. } => {
                matches!(source.raw_os_error(), Some(libc::ENOSPC) | Some(libc::EDQUOT))
            }
            _ => false,
        }
    }

    /// An operating system's error at a path.
    pub(crate) fn io(
        action: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(std::io::Error) -> SnapshotError {
        let path = path.to_path_buf();
        move |source| SnapshotError::Io { action, path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let failed = |code| {
            let source = std::io::Error::from_raw_os_error(code);
            SnapshotError::io("writing", std::path::Path::new("state.ring"))(source)
        };
        assert!(failed(libc::ENOSPC).is_full() && failed(libc::EDQUOT).is_full());
        assert!(!failed(libc::EIO).is_full());
        assert!(failed(libc::EIO).to_string().starts_with("writing state.ring: "));
    }
}
