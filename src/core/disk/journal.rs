//! The journal of a core: the log writes of a turn, of whatever shards, are made durable by one
//! write.
//!
//! A frame of the journal repeats the packed records of the turn. In their segments they are
//! written in runs, now and then, through the page cache. Two files take turns; when one is full,
//! the shards write their runs, and the helper syncs the segments that the file stands for and
//! empties it. A core where one log at most is written in each turn has no journal: its files are
//! made when there are two for the first time.

use super::storage::{DiskOperation, Done};
use super::together::Ended;
use crate::limits::{FRAME_BYTES_MAX, JOURNAL_RETRY_MS, JOURNAL_ROOM_FACTOR};
use ringraft_shards::disk::{AlignedBuffer, DiskError, RealDisk, free_bytes};
use ringraft_shards::ids::{ClusterId, NodeId, ShardId};
use ringraft_shards::log::{FrameTicket, Journal, JournalWork, LogWrite, journal_file_name};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// A packed record that is in no frame yet.
pub struct Begun {
    /// Whose.
    pub shard: ShardId,
    /// The segment, opened for writes through the page cache.
    pub file: Arc<File>,
    /// The write.
    pub write: LogWrite,
}

/// A frame on its way to the disk.
pub struct Frame {
    /// The journal's file.
    pub file: Arc<File>,
    /// The frame.
    pub buffer: AlignedBuffer,
    /// Its name and place.
    pub ticket: FrameTicket,
    /// Bytes that earlier completions wrote.
    pub done: usize,
    /// The writes that it makes durable.
    pub writes: Vec<DiskOperation>,
}

/// Why work on a journal's file failed.
#[derive(Debug, thiserror::Error)]
pub enum JournalFault {
    /// What the file stands for may not be on the disk, and never come there.
    #[error("a log segment cannot be synced: {0}")]
    Sync(io::Error),
    /// The file cannot be made or emptied.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// The journal of a core.
pub struct CoreJournal {
    journal: Journal,
    core: u16,
    bytes: u64,
    /// Where its files are. Made with the first of them.
    directory: PathBuf,
    /// Its files, opened for durable writes.
    files: [Option<Arc<File>>; 2],
    /// The segments that the frames of each file stand for.
    behind: [BTreeMap<(ShardId, u64), Arc<File>>; 2],
    /// Was there a turn with several writes?
    is_wanted: bool,
    /// Before this no file is made: there was no room for one. Milliseconds since the process
    /// started.
    rests_until_ms: i64,
    buffers: Vec<AlignedBuffer>,
    lists: Vec<Vec<DiskOperation>>,
}

impl CoreJournal {
    /// The journal of a core in a directory, with files of so many bytes.
    pub fn new(
        directory: PathBuf,
        whose: (ClusterId, NodeId),
        core: u16,
        bytes: u64,
        seed: u64,
    ) -> Self {
        let (cluster, node) = whose;
        CoreJournal {
            journal: Journal::new(cluster, node, core, bytes, seed),
            core,
            bytes,
            directory,
            files: [None, None],
            behind: Default::default(),
            is_wanted: false,
            rests_until_ms: 0,
            buffers: Vec::new(),
            lists: Vec::new(),
        }
    }

    /// From now on there is one, as soon as there is room for it.
    pub fn want(&mut self) {
        self.is_wanted = true;
    }

    /// Will it take what a turn writes?
    #[inline]
    pub fn has_room(&self) -> bool {
        self.is_wanted && self.journal.has_room_for(FRAME_BYTES_MAX)
    }

    /// Makes a frame of as many of these writes as go into one, and takes them out. `None` when it
    /// has no room.
    pub fn frame(&mut self, writes: &mut Vec<Begun>) -> Option<Frame> {
        let (count, bytes) =
            Journal::fitting(writes.iter().map(|begun| &begun.write), FRAME_BYTES_MAX);
        if !self.journal.make_room(bytes) {
            return None;
        }
        let mut buffer = self.buffers.pop().unwrap_or_else(|| AlignedBuffer::with_capacity(bytes));
        buffer.clear();
        buffer.reserve(bytes);
        let records = writes[..count].iter().map(|begun| (begun.shard, &begun.write));
        let ticket = self.journal.build(records, &mut buffer);
        let file = self.files[ticket.place].clone().expect("a file that takes frames is open");
        let behind = &mut self.behind[ticket.place];
        let begun = Instant::now();
        let mut operations = self.lists.pop().unwrap_or_default();
        for Begun { shard, file, write } in writes.drain(..count) {
            behind.entry((shard, write.sequence)).or_insert_with(|| file.clone());
            let batch = None;
            operations.push(DiskOperation::Write { shard, file, write, done: 0, batch, begun });
        }
        Some(Frame { file, buffer, ticket, done: 0, writes: operations })
    }

    /// A frame is durable.
    pub fn written(&mut self, mut frame: Frame, out: &mut Vec<Ended>) {
        self.journal.written(frame.ticket);
        out.extend(frame.writes.drain(..).map(Ok));
        self.buffers.push(frame.buffer);
        self.lists.push(frame.writes);
    }

    /// Is there work on its files?
    #[inline]
    pub fn has_work(&self, steady_ms: i64) -> bool {
        self.is_wanted && steady_ms >= self.rests_until_ms && self.journal.has_work()
    }

    /// The next work on its files, with what reports it. Everything that its frames repeat must
    /// have been written to the segments before.
    pub fn take_work(
        &mut self,
    ) -> Option<impl FnOnce() -> (JournalWork, Result<(), JournalFault>) + Send + use<>> {
        let work = self.journal.take_work()?;
        let behind = std::mem::take(&mut self.behind[work.place]);
        let (directory, bytes) = (self.directory.clone(), self.bytes);
        Some(move || {
            let sync = |file: &Arc<File>| file.sync_data().map_err(JournalFault::Sync);
            let synced = behind.values().try_for_each(sync);
            let result = synced.and_then(|()| {
                let disk = RealDisk::open(&directory)?;
                if !work.holds_frames {
                    look_for_room(&directory, bytes)?;
                }
                Ok(work.run(&disk)?)
            });
            (work, result)
        })
    }

    /// How work on its files went.
    /// Errors: the process must end, because a file that stands for records cannot be emptied.
    pub fn work_done(
        &mut self,
        work: &JournalWork,
        result: Result<(), JournalFault>,
        steady_ms: i64,
    ) -> Result<(), JournalFault> {
        let opened = result.and_then(|()| self.open(work.place));
        self.journal.work_done(work, opened.as_ref().map(|_| ()).map_err(|_| ()));
        match opened {
            Ok(file) => self.files[work.place] = Some(file),
            Err(fault) if work.holds_frames => return Err(fault),
            Err(fault) => {
                if self.rests_until_ms == 0 {
                    tracing::warn!("shards of core {} are synced one by one: {fault}", self.core);
                }
                self.rests_until_ms = steady_ms + JOURNAL_RETRY_MS;
            }
        }
        Ok(())
    }

    fn open(&self, place: usize) -> Result<Arc<File>, JournalFault> {
        if let Some(file) = &self.files[place] {
            return Ok(file.clone());
        }
        let path = self.directory.join(journal_file_name(self.core, place));
        super::storage::open_durable(&path).map(Arc::new).map_err(|source| {
            let file = path.display().to_string();
            JournalFault::Disk(DiskError { operation: "open", file, source })
        })
    }
}

/// A journal is a convenience: on a disk that is nearly full, the room is for logs and snapshots.
/// What is durable in a file must not go with the directory.
fn look_for_room(directory: &Path, bytes: u64) -> Result<(), DiskError> {
    let fails = |source| DiskError {
        operation: "make a journal in",
        file: directory.display().to_string(),
        source,
    };
    if free_bytes(directory).map_err(fails)? < bytes.saturating_mul(JOURNAL_ROOM_FACTOR) {
        return Err(fails(io::Error::from_raw_os_error(libc::ENOSPC)));
    }
    crate::files::sync_folder_of(directory).map_err(fails)
}

/// The directory of the journals.
pub fn journal_directory(data: &Path) -> PathBuf {
    data.join("journal")
}

/// A report of work on a journal.
pub fn report(done: (JournalWork, Result<(), JournalFault>)) -> Done {
    Done::Journal(done.0, done.1)
}
