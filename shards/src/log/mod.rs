//! The log of one shard: a chain of preallocated, recycled segments.
//!
//! The one idea: what one write writes is one record, valid as a whole or not at all, and each
//! record says up to which record everything was durable when it was built. So a record that cannot
//! be read is a torn tail when nothing after it vouches for it, and damage, which is refused, when
//! something does.
//!
//! - [`Log`] is the writing side: it takes entries and hard states, packs whatever has gathered
//!   into one aligned write, hands writes out and learns when they are durable, in any order.
//! - [`recover`] reads the chain at start and returns a [`RecoveredLog`].
//! - [`FileAction`] is work on whole files (prepare the next segment, give one back) that the
//!   driver does aside, blocking, in the order given.
//!
//! - [`Journal`] makes the writes of many logs durable by one, and [`redo`] brings them to their
//!   places at start. A log knows nothing of it.
//!
//! A write goes over a part of a file that was written before (zeros, or an earlier use of the
//! file): no metadata changes, so one O_DIRECT|O_DSYNC write is one trip to the disk. Several may
//! be in flight.
//!
//! Not here: Raft, when to compact, any I/O of the running log.

mod error;
mod files;
mod format;
mod journal;
mod marks;
mod read_back;
mod recover;
mod redo;
mod replay;
mod run;
mod space;
mod write;

pub use crate::disk::{AlignedBuffer, BUFFER_ALIGNMENT};
pub use error::RecoverError;
pub use files::{FileAction, FileWork, segment_file_name};
pub use format::{
    ENTRY_HEADER_BYTES, FORMAT_VERSION, HEADER_BYTES, HeaderFault, MAGIC, PART_HEADER_BYTES, Part,
    RECORD_HEADER_BYTES, RecordFault, RecordHeader, SegmentHeader, StatePart, read_part,
    read_record,
};
pub use journal::{
    FRAME_HEADER_BYTES, FrameTicket, JOURNAL_BLOCK_BYTES, Journal, JournalHeader, JournalWork,
    journal_file_name,
};
pub use read_back::{LogRead, ReadBackError, Reading};
pub use recover::{Cut, Founding, RecoveredLog, recover};
pub use redo::{LogDisks, Redone, redo};
pub use run::{Layout, LogRun, RECORD_ALIGNMENT};
pub use write::{Log, LogWrite, Reserve, WriteTicket};

use crate::ids::{ClusterId, NodeId, ShardId};
use crate::limits::{
    LOG_RECORD_BYTES_MAX, LOG_SEGMENT_BYTES, LOG_WRITE_BYTES_IN_FLIGHT_MAX,
    LOG_WRITES_IN_FLIGHT_MAX,
};

/// Whose log it is. A log of another cluster, node or shard is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogIdentity {
    /// Cluster.
    pub cluster: ClusterId,
    /// Node.
    pub node: NodeId,
    /// Shard.
    pub shard: ShardId,
}

/// What the report of a write (`written`) promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// A write that is reported is on the disk and survives a loss of power.
    Always,
    /// A write that is reported is with the operating system; it survives the end of the process
    /// only. What a later sync has put on the disk is reported apart, by `synced`.
    Lazy,
}

/// How a log is laid out and written.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// Whose log it is.
    pub identity: LogIdentity,
    /// Writes begin and end at multiples of this: the logical block size of the device, at least
    /// 512.
    pub block_bytes: usize,
    /// Size of new segments; a multiple of the block size.
    pub segment_bytes: u64,
    /// Longest record; a larger entry is spread over several.
    pub record_bytes_max: usize,
    /// Writes handed out and not yet reported; more gather into the next one.
    pub writes_in_flight_max: usize,
    /// Bytes of those writes.
    pub write_bytes_in_flight_max: usize,
    /// What a report of a write promises.
    pub sync: SyncPolicy,
}

impl LogOptions {
    /// The defaults for a log: blocks of 4096 bytes, synced writes.
    pub fn new(identity: LogIdentity) -> LogOptions {
        LogOptions {
            identity,
            block_bytes: 4096,
            segment_bytes: LOG_SEGMENT_BYTES,
            record_bytes_max: LOG_RECORD_BYTES_MAX,
            writes_in_flight_max: LOG_WRITES_IN_FLIGHT_MAX,
            write_bytes_in_flight_max: LOG_WRITE_BYTES_IN_FLIGHT_MAX,
            sync: SyncPolicy::Always,
        }
    }

    /// Panics when the sizes do not fit together.
    pub(crate) fn check(&self) {
        assert!(self.block_bytes.is_power_of_two() && self.block_bytes >= 512);
        assert!(self.block_bytes <= BUFFER_ALIGNMENT, "buffers are aligned to {BUFFER_ALIGNMENT}");
        assert!(self.segment_bytes.is_multiple_of(self.block_bytes as u64));
        assert!(self.record_bytes_max.is_multiple_of(self.block_bytes));
        assert!(
            self.segment_bytes >= (self.block_bytes + self.record_bytes_max) as u64,
            "a segment must hold its header and one record of the longest kind"
        );
        assert!(self.writes_in_flight_max > 0);
    }
}
