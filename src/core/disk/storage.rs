//! Files of a core's shards: the writes of the logs, and the work on whole files beside them.
//!
//! A log write under `--fsync always` is an O_DIRECT|O_DSYNC write of the core's ring into preallocated
//! space; it is durable when it completes, and several may be under way. Under `everysec` and `no` it is a
//! `pwrite` into the page cache, which survives the end of the process, and a sync follows each second or
//! never. Segments and snapshots are made and given back by glommio's helper thread, off the core's cpu.
//!
//! Files belong to their shard and move with it; what is under way stays with the core that began it, and what becomes of it is
//! told to the shard wherever that lives by then.

use crate::core::observe::latency::Event;
use crate::settings::values::Fsync;
use ringraft_shards::disk::{Disk, DiskResult, RealDisk};
use ringraft_shards::ids::{Index, ShardId};
use ringraft_shards::log::{AlignedBuffer, FileAction, LogWrite, WriteTicket, segment_file_name};
use ringraft_shards::snapshot::SnapshotError;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::client::slab::Slab;
use crate::core::cluster::transfer::ReplicaDone;
use crate::core::disk::background::Background;
use crate::core::disk::snapshots::SnapshotDone;
use crate::core::disk::times::WriteTimes;
use crate::core::disk::together::{Ended, Together};
use crate::net::ring::Ring;

/// Segments whose files stay open.
const OPEN_SEGMENTS_MAX: usize = 4;

/// An operation of the ring. The shard may live on another core when it completes.
pub enum DiskOperation {
    /// A write of a log.
    Write {
        /// Whose.
        shard: ShardId,
        /// The segment's file, kept open for the write.
        file: Arc<File>,
        /// The write.
        write: LogWrite,
        /// Bytes that earlier completions wrote.
        done: usize,
        /// The writes that it is reported with.
        batch: Option<u32>,
        /// When it was begun.
        begun: Instant,
    },
    /// A sync of a segment, which makes everything up to a write durable.
    Sync {
        /// Whose.
        shard: ShardId,
        /// The newest write that it covers.
        ticket: WriteTicket,
        /// The segment's file, kept open for the sync.
        file: Arc<File>,
        /// Which segment.
        sequence: u64,
        /// When it was begun.
        begun: Instant,
    },
}

impl DiskOperation {
    /// Whose it is.
    pub fn shard(&self) -> ShardId {
        match self {
            DiskOperation::Write { shard, .. } | DiskOperation::Sync { shard, .. } => *shard,
        }
    }

    /// What kind of event it is, and when that began.
    pub fn event(&self) -> (Event, Instant) {
        match self {
            DiskOperation::Write { begun, .. } => (Event::LogWrite, *begun),
            DiskOperation::Sync { begun, .. } => (Event::LogSync, *begun),
        }
    }

    fn failed(&self, cause: String) -> DiskFailure {
        let (shard, ticket, sequence) = match self {
            DiskOperation::Write { shard, write, .. } => (*shard, write.ticket, write.sequence),
            DiskOperation::Sync { shard, ticket, sequence, .. } => (*shard, *ticket, *sequence),
        };
        DiskFailure { shard, ticket, sequence, cause }
    }
}

/// A write or a sync that failed.
pub struct DiskFailure {
    /// Whose.
    pub shard: ShardId,
    /// Which write, or the newest one that a sync covers.
    pub ticket: WriteTicket,
    /// In which segment.
    pub sequence: u64,
    /// Why.
    pub cause: String,
}

/// What background work reports.
pub enum Done {
    /// Work on the segments of a shard.
    FileAction {
        /// Which shard's.
        shard: ShardId,
        /// Which.
        id: u64,
        /// How it went.
        result: DiskResult<()>,
    },
    /// A step of a snapshot.
    Snapshot(SnapshotDone),
    /// A shard's newest snapshot was read again, and the older ones are gone.
    Relief {
        /// Which shard's.
        shard: ShardId,
        /// The snapshot's index, if there is one.
        result: Result<Option<Index>, SnapshotError>,
    },
    /// A piece of a snapshot for another node or from one.
    Replica(ReplicaDone),
    /// Something that nobody waits for.
    Nothing,
}

impl Done {
    /// The shard that it is about.
    pub fn shard(&self) -> Option<ShardId> {
        match self {
            Done::FileAction { shard, .. } | Done::Relief { shard, .. } => Some(*shard),
            Done::Snapshot(done) => Some(done.shard()),
            Done::Replica(done) => Some(done.shard()),
            Done::Nothing => None,
        }
    }
}

/// The log files of one shard. They move with it.
pub struct ShardFiles {
    directory: PathBuf,
    disk: Arc<RealDisk>,
    /// How segments are opened and written.
    fsync: Fsync,
    open: BTreeMap<u64, Arc<File>>,
    /// Segments written since their last sync, with the newest write in each.
    unsynced: BTreeMap<u64, WriteTicket>,
    /// Syncs under way.
    syncing: usize,
    /// The newest write that was not synced by itself.
    newest: Option<WriteTicket>,
    /// The newest one that a sync has covered.
    synced: Option<WriteTicket>,
}

/// What a core has under way on files.
pub struct Storage {
    operations: Slab<DiskOperation>,
    together: Together,
    background: Background,
    times: WriteTimes,
}

impl Storage {
    /// Nothing yet; `background` does what blocks.
    pub fn new(background: Background) -> Storage {
        let (operations, together, times) = Default::default();
        Storage { operations, together, background, times }
    }

    /// Is nothing under way?
    pub fn is_idle(&self) -> bool {
        self.operations.count() == 0 && self.together.is_idle() && self.background.count() == 0
    }

    /// A log write has taken so long.
    #[inline]
    pub fn note_write(&mut self, took: Duration) {
        self.times.note(took);
    }

    /// Time passes for what is known of log writes.
    pub fn tick_times(&mut self, steady_ms: i64) {
        self.times.tick(steady_ms);
    }

    /// The p99 of log writes, microseconds; 0 when there were too few.
    pub fn log_write_p99_us(&self) -> u64 {
        self.times.p99_us()
    }

    /// For how long the oldest log write has been under way, milliseconds.
    pub fn oldest_write_ms(&self) -> u64 {
        let begun = self.operations.iter().filter_map(|(_, operation)| match operation {
            DiskOperation::Write { begun, .. } => Some(begun),
            DiskOperation::Sync { .. } => None,
        });
        begun.min().map_or(0, |begun| begun.elapsed().as_millis() as u64)
    }

    /// Is nothing of a shard under way?
    pub fn is_idle_for(&self, shard: ShardId) -> bool {
        let mut operations = self.operations.iter();
        self.background.count() == 0 && operations.all(|(_, of)| of.shard() != shard)
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
    pub fn start_file_action(
        &mut self,
        shard: ShardId,
        files: &mut ShardFiles,
        action: FileAction,
    ) {
        // The file may be renamed or removed: what is open of it is not written any more.
        while files.open.len() > OPEN_SEGMENTS_MAX {
            files.open.pop_first();
        }
        let disk = files.disk.clone();
        let id = action.id;
        let work = move || action.run(&*disk as &dyn Disk);
        self.in_background(work, move |result| Done::FileAction { shard, id, result });
    }

    /// Starts a write of a log. With a lazy policy it is done when this returns, and the buffer is given back.
    /// Errors: the file cannot be opened or written.
    pub fn start_write(
        &mut self,
        ring: &mut Ring,
        shard: ShardId,
        files: &mut ShardFiles,
        write: LogWrite,
    ) -> io::Result<Option<(WriteTicket, AlignedBuffer)>> {
        let file = files.segment(write.sequence)?;
        if files.fsync == Fsync::Always {
            let batch = self.together.join(write.buffer.as_slice().len());
            let begun = Instant::now();
            let operation = DiskOperation::Write { shard, file, write, done: 0, batch, begun };
            let index = self.operations.insert(operation);
            self.submit_write(ring, index);
            return Ok(None);
        }
        file.write_all_at(write.buffer.as_slice(), write.offset)?;
        files.unsynced.insert(write.sequence, write.ticket);
        files.newest = files.newest.max(Some(write.ticket));
        Ok(Some((write.ticket, write.buffer)))
    }

    #[allow(unsafe_code)]
    fn submit_write(&mut self, ring: &mut Ring, index: u32) {
        let DiskOperation::Write { file, write, done, .. } = self.operations.at(index) else {
            unreachable!("the caller has just put a write there");
        };
        let rest = &write.buffer.as_slice()[*done..];
        let (bytes, length) = (rest.as_ptr(), rest.len() as u32);
        let offset = write.offset + *done as u64;
        // SAFETY: the buffer is owned by the operation, on the heap, and is not touched until it completes;
        // when the process ends first, the kernel holds pages of its own reference.
        unsafe { ring.write(file.as_raw_fd(), bytes, length, offset, index) };
    }

    /// The turn starts no more writes: those that it has started are reported together.
    #[inline]
    pub fn end_batch(&mut self) {
        self.together.close();
    }

    /// Takes the completion of an operation. What can be reported is appended to `ended`: nothing while more of the operation
    /// is still to be written, or others of its turn are.
    pub fn complete(&mut self, ring: &mut Ring, index: u32, result: i32, ended: &mut Vec<Ended>) {
        let mut batch_of = None;
        let mut cause = None;
        if let DiskOperation::Write { write, done, batch, .. } = self.operations.at_mut(index) {
            batch_of = *batch;
            *done += result.max(0) as usize;
            if result > 0 && *done < write.buffer.as_slice().len() {
                return self.submit_write(ring, index);
            }
            if result == 0 {
                cause = Some("nothing was written".to_string());
            }
        }
        if result < 0 {
            cause = Some(io::Error::from_raw_os_error(-result).to_string());
        }
        let operation = self.operations.remove(index);
        let operation = match cause {
            Some(cause) => Err(operation.failed(cause)),
            None => Ok(operation),
        };
        self.together.ended(batch_of, operation, ended);
    }

    /// Starts to sync what was written lazily. A sync that is under way is awaited first.
    /// Errors: a file cannot be opened.
    pub fn start_syncs(
        &mut self,
        ring: &mut Ring,
        shard: ShardId,
        files: &mut ShardFiles,
    ) -> io::Result<()> {
        if files.syncing > 0 || files.unsynced.is_empty() {
            return Ok(());
        }
        let ticket = files.unsynced.values().max().copied().expect("not empty");
        for sequence in std::mem::take(&mut files.unsynced).into_keys() {
            let file = files.segment(sequence)?;
            files.syncing += 1;
            let descriptor = file.as_raw_fd();
            let operation =
                DiskOperation::Sync { shard, ticket, file, sequence, begun: Instant::now() };
            let index = self.operations.insert(operation);
            ring.sync(descriptor, index);
        }
        Ok(())
    }
}

impl ShardFiles {
    /// The log in `directory`, which `disk` is, none of it open yet.
    pub fn new(directory: PathBuf, disk: Arc<RealDisk>, fsync: Fsync) -> ShardFiles {
        let (open, unsynced) = Default::default();
        let (newest, synced) = (None, None);
        ShardFiles { directory, disk, fsync, open, unsynced, syncing: 0, newest, synced }
    }

    /// How they are written.
    pub fn fsync(&self) -> Fsync {
        self.fsync
    }

    /// Is everything synced that was written lazily, or about to be?
    pub fn is_synced(&self) -> bool {
        self.unsynced.is_empty()
    }

    /// A sync of everything up to this write has ended. True when no other is under way.
    pub fn sync_ended(&mut self, ticket: WriteTicket) -> bool {
        self.syncing -= 1;
        if self.syncing == 0 {
            self.synced = self.synced.max(Some(ticket));
        }
        self.syncing == 0
    }

    /// The newest write that was not synced by itself.
    pub fn newest(&self) -> Option<WriteTicket> {
        self.newest
    }

    /// Is everything up to this write on the disk?
    pub fn is_on_disk(&self, ticket: Option<WriteTicket>) -> bool {
        ticket <= self.synced
    }

    /// Syncs what was written lazily, blocking, and has files opened anew: the fsync mode changes.
    /// Errors: the first file that cannot be synced.
    pub fn change_mode(&mut self, fsync: Fsync) -> io::Result<()> {
        for file in std::mem::take(&mut self.open).into_values() {
            file.sync_data()?;
        }
        self.unsynced.clear();
        self.synced = self.newest;
        self.fsync = fsync;
        Ok(())
    }

    /// Gives up on syncing: under `--fsync no` nobody waits for it.
    pub fn forget_unsynced(&mut self) {
        self.unsynced.clear();
    }

    /// The file of a segment, for people.
    pub fn path(&self, sequence: u64) -> PathBuf {
        self.directory.join(segment_file_name(sequence))
    }

    fn segment(&mut self, sequence: u64) -> io::Result<Arc<File>> {
        if let Some(file) = self.open.get(&sequence) {
            return Ok(file.clone());
        }
        let file = Arc::new(open_segment(&self.path(sequence), self.fsync)?);
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
