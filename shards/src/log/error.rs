//! Why a log is refused at start, with what to do about it.

use crate::disk::DiskError;

/// What a person can do about a damaged log.
const RESTORE: &str = "restore the directory from a copy; a node with replicas may instead be \
    removed from the cluster and join again with an empty directory";

/// A log cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The file has a segment's name and is none.
    #[error("{file} is not a log segment: it does not begin with \"RINGRLOG\"; {RESTORE}")]
    NotASegment {
        /// The file.
        file: String,
    },
    /// The file has a journal's name and is none.
    #[error("{file} is not a journal: it does not begin with \"RINGJRNL\"; {RESTORE}")]
    NotAJournal {
        /// The file.
        file: String,
    },
    /// The header's checksum or sizes are wrong.
    #[error("{file} is damaged at offset 0: {found}; {RESTORE}")]
    HeaderDamaged {
        /// The file.
        file: String,
        /// What is wrong.
        found: String,
    },
    /// The format is not this program's.
    #[error(
        "{file} has log format {found}, this program reads format {expected}; start the version \
         of ringraft that wrote it"
    )]
    Version {
        /// The file.
        file: String,
        /// Version in the file.
        found: u32,
        /// Version of this program.
        expected: u32,
    },
    /// It is the log of another cluster, node or shard.
    #[error(
        "{file} belongs to {what} {found}, not to {expected}; put the right directory in its place"
    )]
    Foreign {
        /// The file.
        file: String,
        /// Cluster, node or shard.
        what: &'static str,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// The name does not fit the header.
    #[error("{file} holds segment {found}: it was renamed; give it back its name")]
    Renamed {
        /// The file.
        file: String,
        /// Sequence in the header.
        found: u64,
    },
    /// A segment in the middle is missing.
    #[error("{directory} has no {missing}, but later segments; {RESTORE}")]
    Missing {
        /// The directory.
        directory: String,
        /// Name of the missing file.
        missing: String,
    },
    /// A record that was durable once cannot be read.
    #[error(
        "{file} is damaged at offset {offset}: {found}, where record {number} should be, which was \
         durable when record {witness} was written; {RESTORE}"
    )]
    Damaged {
        /// The file.
        file: String,
        /// Where the record begins.
        offset: u64,
        /// What is there.
        found: &'static str,
        /// The record that should be there.
        number: u64,
        /// A valid record that proves it.
        witness: u64,
    },
    /// A record's checksum is right and its content makes no sense.
    #[error("{file} has a record at offset {offset} that makes no sense ({found}); {RESTORE}")]
    Nonsense {
        /// The file.
        file: String,
        /// Where the record begins.
        offset: u64,
        /// What is wrong with it.
        found: String,
    },
    /// Entries between the newest snapshot and the log are missing.
    #[error(
        "the log in {directory} begins after entry {log_begins_after}, but the newest readable \
         snapshot ends at entry {snapshot}; {RESTORE}"
    )]
    Uncovered {
        /// The directory.
        directory: String,
        /// Index before the first entry of the log.
        log_begins_after: u64,
        /// Index of the snapshot; 0 when there is none.
        snapshot: u64,
    },
}
