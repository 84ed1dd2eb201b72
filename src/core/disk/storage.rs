//! Files of a core's shards: the writes of the logs, and the work on whole files beside them.
//!
//! A log write under `--fsync always` is an O_DIRECT|O_DSYNC write of the core's ring into
//! preallocated space; it is durable when it completes, and several may be under way. What several
//! shards write in a turn is one write of the core's journal instead. Under `everysec` and `no` it
//! is a `pwrite` into the page cache, which survives the end of the process, and a sync follows
//! each second or never. Segments and snapshots are made and given back by glommio's helper thread,
//! off the core's cpu.
//!
//! Files belong to their shard and move with it; what is under way stays with the core that began
//! it, and what becomes of it is told to the shard wherever that lives by then.

use crate::core::observe::latency::Event;
use crate::settings::values::Fsync;
use ringraft_shards::disk::{Disk, DiskResult, RealDisk};
use ringraft_shards::ids::{Index, ShardId};
use ringraft_shards::log::{
    AlignedBuffer, FileAction, JournalWork, Layout, LogRead, LogRun, LogWrite, WriteTicket,
    segment_file_name,
};
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
use crate::core::cluster::META;
use crate::core::cluster::transfer::ReplicaDone;
use crate::core::disk::background::Background;
use crate::core::disk::directory::ShardDirectory;
use crate::core::disk::journal::{self, Begun, CoreJournal, Frame, JournalFault};
use crate::core::disk::snapshots::SnapshotDone;
use crate::core::disk::times::WriteTimes;
use crate::core::disk::together::{Ended, Together};
use crate::limits::FRAMES_IN_FLIGHT_MAX;
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

/// What the ring has under way.
enum UnderWay {
    /// An operation of one shard.
    One(DiskOperation),
    /// A frame of the journal.
    Frame(Frame),
    /// A sync of a segment that holds packed records for which the journal had no room.
    Packed(Vec<DiskOperation>),
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

    /// It has failed.
    pub fn failed(&self, cause: String) -> DiskFailure {
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
    /// A piece of a shard's log, for a follower that lags.
    LogRead {
        /// Which shard's.
        shard: ShardId,
        /// Which.
        id: u64,
        /// How it went.
        result: DiskResult<Vec<u8>>,
    },
    /// Work on a file of the core's journal.
    Journal(JournalWork, Result<(), JournalFault>),
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
            Done::FileAction { shard, .. }
            | Done::LogRead { shard, .. }
            | Done::Relief { shard, .. } => Some(*shard),
            Done::Snapshot(done) => Some(done.shard()),
            Done::Replica(done) => Some(done.shard()),
            Done::Journal(..) | Done::Nothing => None,
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
    /// The same, opened for writes through the page cache of what a journal makes durable.
    cached: BTreeMap<u64, Arc<File>>,
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
    operations: Slab<UnderWay>,
    together: Together,
    /// How this turn's records are laid out.
    layout: Layout,
    /// Packed records whose frames have not begun.
    begun: Vec<Begun>,
    /// Frames that have.
    frames: usize,
    /// The shard that this turn has written for last, other than packed.
    writer: Option<ShardId>,
    /// `None` when nothing is stored.
    journal: Option<CoreJournal>,
    background: Background,
    directory: Arc<dyn ShardDirectory>,
    times: WriteTimes,
}

impl Storage {
    /// Nothing yet; `background` does what blocks.
    pub fn new(
        background: Background,
        journal: Option<CoreJournal>,
        directory: Arc<dyn ShardDirectory>,
    ) -> Storage {
        Storage {
            operations: Slab::default(),
            together: Together::default(),
            layout: Layout::Padded,
            begun: Vec::new(),
            frames: 0,
            writer: None,
            journal,
            background,
            directory,
            times: WriteTimes::default(),
        }
    }

    /// Where its shards come from.
    pub fn directory(&self) -> &Arc<dyn ShardDirectory> {
        &self.directory
    }

    /// Is nothing under way?
    pub fn is_idle(&self) -> bool {
        self.operations.count() == 0
            && self.begun.is_empty()
            && self.together.is_idle()
            && self.background.count() == 0
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
        let begun_at = |operation: &DiskOperation| match operation {
            DiskOperation::Write { begun, .. } => Some(*begun),
            DiskOperation::Sync { .. } => None,
        };
        let begun = self.operations.iter().filter_map(|(_, under_way)| match under_way {
            UnderWay::One(operation) => begun_at(operation),
            UnderWay::Frame(Frame { writes, .. }) | UnderWay::Packed(writes) => {
                writes.first().and_then(begun_at)
            }
        });
        begun.min().map_or(0, |begun| begun.elapsed().as_millis() as u64)
    }

    /// Is nothing of a shard under way?
    pub fn is_idle_for(&self, shard: ShardId) -> bool {
        let is_another = |operation: &DiskOperation| operation.shard() != shard;
        let mut operations = self.operations.iter();
        self.background.count() == 0
            && self.begun.iter().all(|begun| begun.shard != shard)
            && operations.all(|(_, under_way)| match under_way {
                UnderWay::One(operation) => is_another(operation),
                UnderWay::Frame(Frame { writes, .. }) | UnderWay::Packed(writes) => {
                    writes.iter().all(is_another)
                }
            })
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
        while files.cached.len() > OPEN_SEGMENTS_MAX {
            files.cached.pop_first();
        }
        let disk = files.disk.clone();
        let id = action.id;
        let work = move || action.run(&*disk as &dyn Disk);
        self.in_background(work, move |result| Done::FileAction { shard, id, result });
    }

    /// Reads a piece of a shard's log.
    pub fn start_log_read(&mut self, shard: ShardId, files: &ShardFiles, read: LogRead) {
        let (disk, id) = (files.disk.clone(), read.id);
        let work = move || read.run(&*disk as &dyn Disk);
        self.in_background(work, move |result| Done::LogRead { shard, id, result });
    }

    /// Decides how this turn's log writes are laid out. Does the core have several logs that are
    /// synced as they are written?
    #[inline]
    pub fn begin_turn(&mut self, has_several_logs: bool) {
        let has_room = |journal: &CoreJournal| journal.has_room();
        let is_packed = has_several_logs && self.journal.as_ref().is_some_and(has_room);
        self.layout = if is_packed { Layout::Packed } else { Layout::Padded };
    }

    /// How the log of a shard is laid out in this turn. The meta group writes little, and for
    /// itself.
    #[inline]
    pub fn layout(&self, shard: ShardId) -> Layout {
        if shard == META { Layout::Padded } else { self.layout }
    }

    /// Starts a write of a log, or notes it for the turn's end when it is a packed record. With a
    /// lazy policy it is done when this returns, and the buffer is given back.
    /// Errors: the file cannot be opened or written.
    pub fn start_write(
        &mut self,
        ring: &mut Ring,
        shard: ShardId,
        files: &mut ShardFiles,
        write: LogWrite,
    ) -> io::Result<Option<(WriteTicket, AlignedBuffer)>> {
        if write.layout == Layout::Packed {
            let file = files.cached_segment(write.sequence)?;
            self.begun.push(Begun { shard, file, write });
            return Ok(None);
        }
        let file = files.segment(write.sequence)?;
        if files.fsync == Fsync::Always {
            self.note_writer(shard);
            let batch = self.together.join(write.buffer.as_slice().len());
            let begun = Instant::now();
            let operation = DiskOperation::Write { shard, file, write, done: 0, batch, begun };
            let index = self.operations.insert(UnderWay::One(operation));
            self.submit_write(ring, index);
            return Ok(None);
        }
        file.write_all_at(write.buffer.as_slice(), write.offset)?;
        files.unsynced.insert(write.sequence, write.ticket);
        files.newest = files.newest.max(Some(write.ticket));
        Ok(Some((write.ticket, write.buffer)))
    }

    /// A turn with two writers could do with a journal.
    #[inline]
    fn note_writer(&mut self, shard: ShardId) {
        if shard == META {
            return;
        }
        match self.writer.replace(shard) {
            Some(other) if other != shard => self.journal.iter_mut().for_each(CoreJournal::want),
            _ => {}
        }
    }

    /// The turn starts no more writes: those that it has started are reported together. Returns
    /// packed records for which the journal has no room: [`Storage::sync_packed`] is for them,
    /// when their runs are written.
    #[inline]
    #[must_use]
    pub fn end_batch(&mut self, ring: &mut Ring) -> Vec<Begun> {
        self.together.close();
        self.writer = None;
        if self.begun.is_empty() { Vec::new() } else { self.begin_frames(ring) }
    }

    /// What comes while some frames are under way gathers for the next, as it does in the log of
    /// one shard: each of them is a trip to the disk.
    fn begin_frames(&mut self, ring: &mut Ring) -> Vec<Begun> {
        while !self.begun.is_empty() && self.frames < FRAMES_IN_FLIGHT_MAX {
            let journal = self.journal.as_mut().expect("only with one are records packed");
            let Some(frame) = journal.frame(&mut self.begun) else {
                return std::mem::take(&mut self.begun);
            };
            self.frames += 1;
            let index = self.operations.insert(UnderWay::Frame(frame));
            self.submit_write(ring, index);
        }
        Vec::new()
    }

    /// Starts to sync the segments of these records, which are written.
    #[cold]
    pub fn sync_packed(&mut self, ring: &mut Ring, records: Vec<Begun>) {
        let mut segments: BTreeMap<(ShardId, u64), (Arc<File>, Vec<DiskOperation>)> =
            BTreeMap::new();
        for Begun { shard, file, write } in records {
            let begun = Instant::now();
            let segment = segments.entry((shard, write.sequence));
            let (file, writes) = segment.or_insert_with(|| (file, Vec::new()));
            let (file, batch) = (file.clone(), None);
            writes.push(DiskOperation::Write { shard, file, write, done: 0, batch, begun });
        }
        for (file, writes) in segments.into_values() {
            let index = self.operations.insert(UnderWay::Packed(writes));
            ring.sync(file.as_raw_fd(), index);
        }
    }

    /// Is there work on the files of the journal? Have all shards write their runs before it is
    /// begun.
    #[inline]
    pub fn has_journal_work(&self, steady_ms: i64) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.has_work(steady_ms))
    }

    /// Has the files of the journal made and emptied.
    pub fn begin_journal_work(&mut self) {
        let Some(journal) = &mut self.journal else { return };
        while let Some(work) = journal.take_work() {
            self.background.begin(move || journal::report(work()));
        }
    }

    /// How work on the journal's files went.
    /// Errors: the process must end.
    pub fn journal_done(
        &mut self,
        work: &JournalWork,
        result: Result<(), JournalFault>,
        steady_ms: i64,
    ) -> Result<(), JournalFault> {
        let journal = self.journal.as_mut().expect("it reports its own work");
        journal.work_done(work, result, steady_ms)
    }

    #[allow(unsafe_code)]
    fn submit_write(&mut self, ring: &mut Ring, index: u32) {
        let (file, bytes, offset, done) = match self.operations.at(index) {
            UnderWay::One(DiskOperation::Write { file, write, done, .. }) => {
                (file, write.buffer.as_slice(), write.offset, *done)
            }
            UnderWay::Frame(frame) => {
                (&frame.file, frame.buffer.as_slice(), frame.ticket.offset, frame.done)
            }
            UnderWay::One(DiskOperation::Sync { .. }) | UnderWay::Packed(_) => {
                unreachable!("the caller has just put a write there")
            }
        };
        let rest = &bytes[done..];
        let (bytes, length) = (rest.as_ptr(), rest.len() as u32);
        // SAFETY: the buffer is owned by the operation, on the heap, and is not touched until it
        // completes; when the process ends first, the kernel holds pages of its own
        // reference.
        unsafe { ring.write(file.as_raw_fd(), bytes, length, offset + done as u64, index) };
    }

    /// Takes the completion of an operation. What can be reported is appended to `ended`: nothing
    /// while more of the operation is still to be written, or others of its turn are.
    pub fn complete(&mut self, ring: &mut Ring, index: u32, result: i32, ended: &mut Vec<Ended>) {
        let (done, bytes) = match self.operations.at_mut(index) {
            UnderWay::One(DiskOperation::Write { write, done, .. }) => {
                (done, write.buffer.as_slice().len())
            }
            UnderWay::Frame(frame) => (&mut frame.done, frame.buffer.as_slice().len()),
            UnderWay::One(DiskOperation::Sync { .. }) | UnderWay::Packed(_) => (&mut 0, 0),
        };
        *done += result.max(0) as usize;
        let is_done = *done >= bytes;
        if result > 0 && !is_done {
            return self.submit_write(ring, index);
        }
        let cause = match result {
            ..0 => Some(io::Error::from_raw_os_error(-result).to_string()),
            0 if !is_done => Some("nothing was written".to_string()),
            _ => None,
        };
        match (self.operations.remove(index), cause) {
            (UnderWay::One(operation), cause) => {
                let batch = match &operation {
                    DiskOperation::Write { batch, .. } => *batch,
                    DiskOperation::Sync { .. } => None,
                };
                let operation = match cause {
                    Some(cause) => Err(operation.failed(cause)),
                    None => Ok(operation),
                };
                self.together.ended(batch, operation, ended);
            }
            (UnderWay::Frame(frame), None) => {
                self.frames -= 1;
                let journal = self.journal.as_mut().expect("the frame is of its journal");
                journal.written(frame, ended);
            }
            (UnderWay::Frame(frame), Some(cause)) => {
                let failed = |write: DiskOperation| Err(write.failed(format!("journal: {cause}")));
                ended.extend(frame.writes.into_iter().map(failed));
            }
            (UnderWay::Packed(writes), None) => ended.extend(writes.into_iter().map(Ok)),
            (UnderWay::Packed(writes), Some(cause)) => {
                let failed = |write: DiskOperation| Err(write.failed(cause.clone()));
                ended.extend(writes.into_iter().map(failed));
            }
        }
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
            let index = self.operations.insert(UnderWay::One(operation));
            ring.sync(descriptor, index);
        }
        Ok(())
    }
}

impl ShardFiles {
    /// The log in `directory`, which `disk` is, none of it open yet.
    pub fn new(directory: PathBuf, disk: Arc<RealDisk>, fsync: Fsync) -> ShardFiles {
        let (open, cached, unsynced) = Default::default();
        let (newest, synced) = (None, None);
        ShardFiles { directory, disk, fsync, open, cached, unsynced, syncing: 0, newest, synced }
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
        for file in std::mem::take(&mut self.cached).into_values() {
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

    /// Writes a run of the log to its segment, through the page cache.
    /// Errors: the file cannot be opened or written.
    pub fn write_run(&mut self, run: &LogRun) -> io::Result<()> {
        let file = self.cached_segment(run.sequence)?;
        file.write_all_at(run.buffer.as_slice(), run.offset)
    }

    fn cached_segment(&mut self, sequence: u64) -> io::Result<Arc<File>> {
        if let Some(file) = self.cached.get(&sequence) {
            return Ok(file.clone());
        }
        let file = Arc::new(File::options().write(true).open(self.path(sequence))?);
        self.cached.insert(sequence, file.clone());
        Ok(file)
    }
}

fn open_segment(path: &Path, fsync: Fsync) -> io::Result<File> {
    match fsync {
        Fsync::Always => open_durable(path),
        Fsync::Everysec | Fsync::No => File::options().write(true).open(path),
    }
}

/// Opens a file for writing past the page cache, synced by itself, where the file system can do
/// that.
pub fn open_durable(path: &Path) -> io::Result<File> {
    let open = |flags| File::options().write(true).custom_flags(flags).open(path);
    match open(libc::O_DIRECT | libc::O_DSYNC) {
        // Some network file systems have no O_DIRECT.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => open(libc::O_DSYNC),
        result => result,
    }
}
