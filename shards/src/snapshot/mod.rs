//! Snapshots: the items of one shard at one index, in one file.
//!
//! `state.ring` is a header, chunks of items in RDB encodings, and a footer; `meta.json` beside it
//! says the same for people and tools. Both lie in `snapshots/<term>-<index>/`, a name that exists
//! only once everything in it is synced. The one idea: every byte is covered by a checksum, and
//! none is used before its checksum was checked. `docs/formats.md` shows the bytes.
//!
//! Taking one: `begin_cut` on the keyspace, [`SnapshotDirectory::begin`], then turn by turn
//! `cut_step` into [`SnapshotWriter::push`], with [`SnapshotWriter::take_chunk`] appended to the
//! state file elsewhere; at the end [`SnapshotWriter::finish`], [`PendingSnapshot::publish`],
//! [`SnapshotDirectory::prune`], and the log may drop what the oldest snapshot kept covers.
//! Starting from one: [`recover::recover`], then the log from the snapshot's index on, then
//! [`recover::Recovered::set_aside`], or its `uncovered` when the log does not fit. Sending one:
//! [`SnapshotSender`] and [`SnapshotReceiver`] say what to read, send, write and answer, and when;
//! [`SnapshotFile`] here and [`IncomingSnapshot`] there do it; then [`load`].
//!
//! Everything here is synchronous. The writer turns items into bytes and knows nothing of files;
//! the functions that touch files block, and say so: call them off the core's thread or before it
//! serves.

pub mod directory;
pub mod error;
pub mod footer;
pub mod header;
pub mod load;
pub mod meta;
pub mod reader;
pub mod receive;
pub mod recover;
pub mod send;
pub mod transfer;
pub mod writer;

mod cursor;
#[cfg(test)]
mod cut_tests;
#[cfg(test)]
mod tests;

pub use directory::{PendingSnapshot, SnapshotDirectory, SnapshotName};
pub use error::{Flaw, ReadError, SnapshotError};
pub use header::{Header, Membership, SlotRange};
pub use meta::Meta;
pub use reader::SnapshotReader;
pub use receive::{AnswerTo, ReceiveWork, SnapshotReceiver};
pub use send::{
    SendOutcome, SendStep, SnapshotOffer, SnapshotSender, TransferAnswer, TransferFrame, TransferId,
};
pub use transfer::{IncomingSnapshot, SnapshotFile, append_snapshot};
pub use writer::SnapshotWriter;
