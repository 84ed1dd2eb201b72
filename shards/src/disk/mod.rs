//! Blocking file operations of one directory: recovery and maintenance of a shard's log.
//!
//! The one idea: everything that is not on a request's path goes through this small trait, so that
//! tests can put a disk behind it that tears writes, forgets what was not synced and runs full.
//! There are two implementations, [`RealDisk`] and [`MemoryDisk`].
//!
//! Not here: the writes of the running log. The driver executes those through io_uring.

mod buffer;
mod free;
mod memory;
mod real;

pub use buffer::{AlignedBuffer, BUFFER_ALIGNMENT};
pub use free::free_bytes;
pub use memory::{MemoryDisk, WriteInFlight};
pub use real::RealDisk;

use std::io;

/// Name and size of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Name inside the directory.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// An operation on a file failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {file}: {source}")]
pub struct DiskError {
    /// What was tried, as a verb.
    pub operation: &'static str,
    /// File that it was tried on, with its directory.
    pub file: String,
    /// What the system said.
    pub source: io::Error,
}

impl DiskError {
    /// Is it a lack of room (disk or quota), which goes away when somebody makes room?
    pub fn is_full(&self) -> bool {
        matches!(self.source.raw_os_error(), Some(libc::ENOSPC) | Some(libc::EDQUOT))
    }
}

/// Result of a disk operation.
pub type DiskResult<T> = Result<T, DiskError>;

/// The files of one directory. Every method blocks; names have no directory in them.
pub trait Disk: Send + Sync {
    /// Where it is, for messages.
    fn place(&self) -> String;

    /// All files, in no order.
    fn list(&self) -> DiskResult<Vec<FileInfo>>;

    /// Fills `buffer` from `offset` on. A shorter file is an error.
    fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> DiskResult<()>;

    /// Overwrites or extends. Durable only after [`Disk::sync`].
    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> DiskResult<()>;

    /// Creates a file of `bytes` zeros that are really written, not merely reserved; an old file of
    /// that name is replaced. Its name is durable only after [`Disk::sync_directory`].
    fn create_zeroed(&self, name: &str, bytes: u64) -> DiskResult<()>;

    /// Makes a file's content durable.
    fn sync(&self, name: &str) -> DiskResult<()>;

    /// Renames, replacing `to`. Durable only after [`Disk::sync_directory`].
    fn rename(&self, from: &str, to: &str) -> DiskResult<()>;

    /// Removes. Durable only after [`Disk::sync_directory`].
    fn remove(&self, name: &str) -> DiskResult<()>;

    /// Makes names durable.
    fn sync_directory(&self) -> DiskResult<()>;
}
