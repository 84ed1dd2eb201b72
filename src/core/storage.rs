//! Files of a core's shards: the writes of the logs, and the work on whole files beside them.
//!
//! A log write under `--fsync always` is an O_DIRECT|O_DSYNC write of the core's ring into preallocated
//! space; it is durable when it completes, and several may be under way. Under `everysec` and `no` it is a
//! `pwrite` into the page cache, which survives the end of the process, and a sync follows each second or
//! never. Segments and snapshots are made and given back by glommio's helper thread, off the core's cpu.

use crate::settings::values::Fsync;
use ringraft_shards::disk::{Disk, DiskResult, RealDisk};
use ringraft_shards::ids::Index;
use ringraft_shards::log::{AlignedBuffer, FileAction, LogWrite, WriteTicket, segment_file_name};
use ringraft_shards::snapshot::SnapshotError;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::core::background::Background;
use crate::core::slab::Slab;
use crate::core::snapshots::SnapshotDone;
use crate::net::ring::Ring;

/// Segments whose files stay open.
const OPEN_SEGMENTS_MAX: usize = 4;

/// An operation of the ring.
pub enum DiskOperation {
    /// A write of a log.
    Write {
        /// The shard's place on this core.
        local: usize,
        /// The write.
        write: LogWrite,
        /// Bytes that earlier completions wrote.
        done: usize,
    },
    /// A sync of a segment, which makes everything up to a write durable.
    Sync {
        /// The shard's place on this core.
        local: usize,
        /// The newest write that it covers.
        ticket: WriteTicket,
        /// The segment's file, kept open for the sync.
        file: Arc<File>,
        /// Are there syncs of other segments to wait for first?
        sequence: u64,
    },
}

/// What background work reports.
pub enum Done {
    /// Work on the segments of a shard.
    FileAction {
        /// The shard's place on this core.
        local: usize,
        /// Which.
        id: u64,
        /// How it went.
        result: DiskResult<()>,
    },
    /// A step of a snapshot.
    Snapshot(SnapshotDone),
    /// A shard's newest snapshot was read again, and the older ones are gone.
    Relief {
        /// The shard's place on this core.
        local: usize,
        /// The snapshot's index, if there is one.
        result: Result<Option<Index>, SnapshotError>,
    },
    /// Something that nobody waits for.
    Nothing,
}

/// The log files of one shard.
struct ShardFiles {
    directory: PathBuf,
    disk: Arc<RealDisk>,
    open: BTreeMap<u64, Arc<File>>,
    /// Segments written since their last sync, with the newest write in each.
    unsynced: BTreeMap<u64, WriteTicket>,
    /// Syncs under way.
    syncing: usize,
}

/// All files of a core.
pub struct Storage {
    shards: Vec<ShardFiles>,
    operations: Slab<DiskOperation>,
    background: Background,
}

impl Storage {
    /// No shards yet; `background` does what blocks.
    pub fn new(background: Background) -> Storage {
        Storage { shards: Vec::new(), operations: Slab::default(), background }
    }

    /// Adds a shard's log directory.
    pub fn add_shard(&mut self, directory: PathBuf, disk: Arc<RealDisk>) {
        self.shards.push(ShardFiles {
            directory,
            disk,
            open: BTreeMap::new(),
            unsynced: BTreeMap::new(),
            syncing: 0,
        });
    }

    /// Is nothing under way?
    pub fn is_idle(&self) -> bool {
        self.operations.count() == 0
            && self.background.count() == 0
            && self.shards.iter().all(|shard| shard.unsynced.is_empty())
    }

    /// Ends background work: what is under way is finished.
    pub async fn stop(&mut self) {
        self.background.stop().await;
    }

    /// A report of background work, if there is one.
    pub fn take_done(&mut self) -> Option<Done> {
        self.background.take()
    }

    /// Starts blocking work on the helper thread.
    pub fn in_background<T>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
        report: impl FnOnce(T) -> Done + Send + 'static,
    ) {
        self.background.begin(move || report(work()));
    }

    /// Has background work reported something?
    pub fn has_done(&self) -> bool {
        self.background.has_done()
    }

    /// Starts work on the segments of a shard.
    pub fn start_file_action(&mut self, local: usize, action: FileAction) {
        let shard = &mut self.shards[local];
        // The file may be renamed or removed: what is open of it is not written any more.
        while shard.open.len() > OPEN_SEGMENTS_MAX {
            shard.open.pop_first();
        }
        let disk = shard.disk.clone();
        let id = action.id;
        let work = move || action.run(&*disk as &dyn Disk);
        self.in_background(work, move |result| Done::FileAction { local, id, result });
    }

    /// Starts a write of a log. With a lazy policy it is done when this returns, and the buffer is given back.
    /// Errors: the file cannot be opened or written.
    pub fn start_write(
        &mut self,
        ring: &mut Ring,
        local: usize,
        write: LogWrite,
        fsync: Fsync,
    ) -> io::Result<Option<(WriteTicket, AlignedBuffer)>> {
        let shard = &mut self.shards[local];
        let file = shard.segment(write.sequence, fsync)?;
        if fsync == Fsync::Always {
            let index = self.operations.insert(DiskOperation::Write { local, write, done: 0 });
            self.submit_write(ring, index, file.as_raw_fd());
            return Ok(None);
        }
        file.write_all_at(write.buffer.as_slice(), write.offset)?;
        shard.unsynced.insert(write.sequence, write.ticket);
        Ok(Some((write.ticket, write.buffer)))
    }

    #[allow(unsafe_code)]
    fn submit_write(&mut self, ring: &mut Ring, index: u32, file: RawFd) {
        let DiskOperation::Write { write, done, .. } = self.operations.at(index) else {
            unreachable!("the caller has just put a write there");
        };
        let rest = &write.buffer.as_slice()[*done..];
        let (bytes, length) = (rest.as_ptr(), rest.len() as u32);
        let offset = write.offset + *done as u64;
        // SAFETY: the buffer is owned by the operation, on the heap, and is not touched until it completes;
        // when the process ends first, the kernel holds pages of its own reference.
        unsafe { ring.write(file, bytes, length, offset, index) };
    }

    /// Takes the completion of an operation. `Ok(None)` when more of it is still to be written.
    /// Errors: the write or sync failed; the ticket of a write comes with it.
    pub fn complete(
        &mut self,
        ring: &mut Ring,
        index: u32,
        result: i32,
        fsync: Fsync,
    ) -> Result<Option<DiskOperation>, (usize, WriteTicket, String)> {
        let failure = |operation: &DiskOperation, shards: &[ShardFiles], cause: String| {
            let (local, ticket, sequence) = match operation {
                DiskOperation::Write { local, write, .. } => (*local, write.ticket, write.sequence),
                DiskOperation::Sync { local, ticket, sequence, .. } => (*local, *ticket, *sequence),
            };
            let file = shards[local].directory.join(segment_file_name(sequence));
            (local, ticket, format!("{}: {cause}", file.display()))
        };
        if result < 0 {
            let operation = self.operations.remove(index);
            let cause = io::Error::from_raw_os_error(-result).to_string();
            return Err(failure(&operation, &self.shards, cause));
        }
        if let DiskOperation::Write { local, write, done } = self.operations.at_mut(index) {
            *done += result as usize;
            if result == 0 {
                let operation = self.operations.remove(index);
                return Err(failure(&operation, &self.shards, "nothing was written".to_string()));
            }
            if *done < write.buffer.as_slice().len() {
                let (local, sequence) = (*local, write.sequence);
                let file = self.shards[local].segment(sequence, fsync);
                match file {
                    Ok(file) => self.submit_write(ring, index, file.as_raw_fd()),
                    Err(error) => {
                        let operation = self.operations.remove(index);
                        return Err(failure(&operation, &self.shards, error.to_string()));
                    }
                }
                return Ok(None);
            }
        }
        let operation = self.operations.remove(index);
        if let DiskOperation::Sync { local, .. } = &operation {
            self.shards[*local].syncing -= 1;
            if self.shards[*local].syncing > 0 {
                return Ok(None);
            }
        }
        Ok(Some(operation))
    }

    /// Starts to sync what was written lazily. A sync that is under way is awaited first.
    /// Errors: a file cannot be opened.
    pub fn start_syncs(&mut self, ring: &mut Ring, fsync: Fsync) -> io::Result<()> {
        for local in 0..self.shards.len() {
            let shard = &mut self.shards[local];
            if shard.syncing > 0 || shard.unsynced.is_empty() {
                continue;
            }
            let newest = shard.unsynced.values().max().copied().expect("not empty");
            let sequences: Vec<u64> = std::mem::take(&mut shard.unsynced).into_keys().collect();
            for sequence in sequences {
                let file = shard.segment(sequence, fsync)?;
                shard.syncing += 1;
                let descriptor = file.as_raw_fd();
                let operation =
                    DiskOperation::Sync { local, ticket: newest, file: file.clone(), sequence };
                let index = self.operations.insert(operation);
                ring.sync(descriptor, index);
            }
        }
        Ok(())
    }

    /// Syncs what was written lazily, blocking, and has files opened anew: the fsync mode changes.
    /// Errors: the first file that cannot be synced.
    pub fn change_mode(&mut self) -> io::Result<()> {
        for shard in &mut self.shards {
            for file in std::mem::take(&mut shard.open).into_values() {
                file.sync_data()?;
            }
            shard.unsynced.clear();
        }
        Ok(())
    }

    /// Gives up on syncing: under `--fsync no` nobody waits for it.
    pub fn forget_unsynced(&mut self) {
        self.shards.iter_mut().for_each(|shard| shard.unsynced.clear());
    }
}

impl ShardFiles {
    fn segment(&mut self, sequence: u64, fsync: Fsync) -> io::Result<Arc<File>> {
        if let Some(file) = self.open.get(&sequence) {
            return Ok(file.clone());
        }
        let path = self.directory.join(segment_file_name(sequence));
        let file = Arc::new(open_segment(&path, fsync)?);
        self.open.insert(sequence, file.clone());
        Ok(file)
    }
}

/// Opens a segment for writing: past the page cache and synced by itself under `always`, where the file
/// system can do that.
fn open_segment(path: &Path, fsync: Fsync) -> io::Result<File> {
    let open = |flags| File::options().write(true).custom_flags(flags).open(path);
    if fsync != Fsync::Always {
        return open(0);
    }
    match open(libc::O_DIRECT | libc::O_DSYNC) {
        // tmpfs and some network file systems have no O_DIRECT.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => open(libc::O_DSYNC),
        result => result,
    }
}
