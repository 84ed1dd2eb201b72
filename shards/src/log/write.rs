//! The writing side of the log: parts go in, aligned writes come out, durability comes back.
//!
//! The one idea: parts (entries, hard states, resets) wait in one queue in the order in which they
//! must become durable; whatever waits when a write may start becomes one record. Parts are
//! counted, so "is it durable" is one comparison.
//!
//! Invariants: `durable <= built <= appended` (parts); records are numbered without gaps in the
//! order of their places; a segment is handed to release only when everything that makes it
//! unneeded is durable.

use std::collections::VecDeque;
use std::sync::Arc;

use raft::eraftpb::Entry;

use super::files::{FileAction, segment_file_name};
use super::format::{
    ENTRY_HEADER_BYTES, PART_HEADER_BYTES, PartWriter, RECORD_HEADER_BYTES, RecordHeader,
    STATE_BYTES, SegmentHeader, StatePart, seal_record,
};
use super::marks::Marks;
use super::read_back::{LogRead, ReadBackError, Reading, View};
use super::run::{Layout, LogRun, Runs};
use super::space::Space;
use super::{AlignedBuffer, LogOptions, SyncPolicy};
use crate::disk::{Disk, DiskResult};
use crate::ids::NodeId;
use crate::limits::{
    LOG_BUFFER_KEPT_BYTES, LOG_BUFFERS_KEPT, LOG_RESERVE_BYTES, LOG_RUN_BYTES_MAX,
    LOG_SHRINK_RESERVE_BYTES,
};

/// Names a write. Later writes have greater tickets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteTicket(pub u64);

/// One write to be done. Writes may be made durable side by side and in any order.
#[derive(Debug)]
pub struct LogWrite {
    /// To report it by.
    pub ticket: WriteTicket,
    /// The segment, whose file is `segment_file_name(sequence)`.
    pub sequence: u64,
    /// Where in the file.
    pub offset: u64,
    /// What to write. Comes back with the report.
    pub buffer: AlignedBuffer,
    /// [`Layout::Padded`]: all of `buffer` is to be written at `offset` of the segment; both are multiples of the block size.
    /// [`Layout::Packed`]: it is a record that a run holds ([`Log::take_run`]), to be made durable by a journal, or by writing
    /// and syncing the run.
    pub layout: Layout,
}

impl LogWrite {
    /// Name of the file to write to.
    pub fn file_name(&self) -> String {
        segment_file_name(self.sequence)
    }
}

/// The room at the end of the last segment that is for what makes the data smaller, when the disk
/// is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// Leave it.
    Kept,
    /// Use it.
    Used,
}

/// What waits to be written.
enum Pending {
    Entry { entry: Entry, previous_term: u64 },
    State { term: u64, vote: u64 },
    Reset { index: u64, term: u64 },
    Founding { voters: Vec<NodeId>, learners: Vec<NodeId> },
}

impl Pending {
    fn bytes(&self) -> usize {
        PART_HEADER_BYTES
            + match self {
                Pending::Entry { entry, .. } => ENTRY_HEADER_BYTES + entry.data.len(),
                Pending::State { .. } => STATE_BYTES,
                Pending::Reset { .. } => 16,
                Pending::Founding { voters, learners } => 8 + 8 * (voters.len() + learners.len()),
            }
    }
}

/// A segment that holds records.
pub(super) struct Segment {
    /// Number of its first record.
    pub(super) first_record: u64,
    /// Highest index of a live entry that begins in it; 0 when none does.
    pub(super) last_index: u64,
}

struct InFlight {
    record: u64,
    parts_through: u64,
    bytes: usize,
    done: bool,
}

/// The log of one shard, for writing. See the module's description.
pub struct Log {
    disk: Arc<dyn Disk>,
    options: LogOptions,
    /// Headers and facts of the live segments, oldest first; the last one is being written.
    headers: VecDeque<SegmentHeader>,
    segments: VecDeque<Segment>,
    /// Where the next record goes in the last segment.
    offset: u64,
    space: Space,
    pending: VecDeque<Pending>,
    pending_bytes: u64,
    /// Bytes of the front entry's data that records hold already.
    fragment_offset: usize,
    appended: u64,
    built: u64,
    durable: u64,
    next_record: u64,
    durable_record: u64,
    synced_record: u64,
    /// Last record that truncated or reset. Until it is durable old segments may be needed again.
    barrier_record: u64,
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: usize,
    /// Hard state and last entry as of the records built.
    state: StatePart,
    commit: u64,
    marks: Marks,
    buffers: Vec<AlignedBuffer>,
    /// How records are laid out, where they allow it.
    layout: Layout,
    runs: Runs,
}

/// What recovery found, from which writing goes on.
pub(super) struct Resume {
    pub(super) headers: VecDeque<SegmentHeader>,
    pub(super) segments: VecDeque<Segment>,
    pub(super) offset: u64,
    pub(super) next_record: u64,
    pub(super) state: StatePart,
    pub(super) marks: Marks,
    pub(super) space: Space,
}

impl Log {
    pub(super) fn resume(disk: Arc<dyn Disk>, options: LogOptions, resume: Resume) -> Log {
        let last_record = resume.next_record - 1;
        Log {
            disk,
            options,
            headers: resume.headers,
            segments: resume.segments,
            offset: resume.offset,
            space: resume.space,
            pending: VecDeque::new(),
            pending_bytes: 0,
            fragment_offset: 0,
            appended: 0,
            built: 0,
            durable: 0,
            next_record: resume.next_record,
            durable_record: last_record,
            synced_record: if options.sync == SyncPolicy::Always { last_record } else { 0 },
            barrier_record: 0,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            state: resume.state,
            commit: resume.state.commit,
            marks: resume.marks,
            buffers: Vec::new(),
            layout: Layout::Padded,
            runs: Runs::default(),
        }
    }

    /// Where it is.
    pub fn place(&self) -> String {
        self.disk.place()
    }

    /// Queues entries, the first of which follows an entry of term `previous_term`. An index that
    /// is in the log already replaces what is there. Cost: no copy of the data.
    pub fn append(&mut self, entries: &[Entry], mut previous_term: u64) {
        for entry in entries {
            let next_term = entry.term;
            self.push(Pending::Entry { entry: entry.clone(), previous_term });
            previous_term = next_term;
        }
    }

    /// Queues a change of term or vote.
    pub fn set_state(&mut self, term: u64, vote: u64) {
        self.push(Pending::State { term, vote });
    }

    /// Queues that a snapshot took the place of all entries.
    pub fn reset(&mut self, index: u64, term: u64) {
        self.push(Pending::Reset { index, term });
    }

    /// Queues the founding members.
    pub fn found(&mut self, voters: &[NodeId], learners: &[NodeId]) {
        let (voters, learners) = (voters.to_vec(), learners.to_vec());
        self.push(Pending::Founding { voters, learners });
    }

    /// Notes the commit index; it rides with the next record.
    #[inline]
    pub fn set_commit(&mut self, commit: u64) {
        self.commit = commit;
    }

    /// Count of parts queued so far.
    #[inline]
    pub fn appended(&self) -> u64 {
        self.appended
    }

    /// Count of parts that are durable: all of the first so many.
    #[inline]
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Is there work that only a report of a write or of a file action can further?
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.in_flight.is_empty()
    }

    /// Bytes of records and headers on the disk.
    pub fn disk_bytes(&self) -> u64 {
        self.headers.iter().map(|header| header.segment_bytes).sum()
    }

    /// Says how the records are laid out that are built from now on. Packed: but for long ones.
    #[inline]
    pub fn set_layout(&mut self, layout: Layout) {
        self.layout = layout;
    }

    /// Has the next record begin a block of its own, so that [`Log::take_run`] gives everything
    /// that is packed.
    pub fn close_run(&mut self) {
        if let Some(end) = self.runs.close(self.options.block_bytes) {
            self.offset = end;
        }
    }

    /// The next run that takes no more records. Write it to its segment before the log is read or
    /// built again.
    #[inline]
    pub fn take_run(&mut self) -> Option<LogRun> {
        self.runs.take_closed()
    }

    /// A run is where reads of its segment find it. Its buffer is taken back.
    pub fn run_written(&mut self, buffer: AlignedBuffer) {
        self.runs.keep(buffer);
    }

    /// Makes writes of what waits, as many as may be in flight. Cost: one copy and one checksum of
    /// the data; no allocation once buffers have gone round.
    pub fn build(&mut self, writes: &mut Vec<LogWrite>) {
        while !self.pending.is_empty()
            && self.in_flight.len() < self.options.writes_in_flight_max
            && self.in_flight_bytes < self.options.write_bytes_in_flight_max
        {
            let layout = self.next_layout();
            if !self.make_room() {
                break;
            }
            let write = self.build_record(layout);
            writes.push(write);
        }
        self.request_segment();
    }

    /// A write is done, as the sync policy promises. Its buffer is taken back.
    pub fn written(&mut self, ticket: WriteTicket, buffer: AlignedBuffer) {
        if buffer.capacity() <= LOG_BUFFER_KEPT_BYTES && self.buffers.len() < LOG_BUFFERS_KEPT {
            self.buffers.push(buffer);
        }
        let write = self.in_flight.iter_mut().find(|write| write.record == ticket.0);
        let write = write.expect("a write is reported once, by the group that handed it out");
        assert!(!write.done, "write {} reported twice", ticket.0);
        write.done = true;
        while self.in_flight.front().is_some_and(|write| write.done) {
            let write = self.in_flight.pop_front().expect("looked at above");
            self.in_flight_bytes -= write.bytes;
            self.durable = write.parts_through;
            self.durable_record = write.record;
        }
        if self.options.sync == SyncPolicy::Always {
            self.synced_record = self.durable_record;
        }
    }

    /// Changes what a report of a write promises, from the next report on. Before it becomes
    /// [`SyncPolicy::Always`], everything reported so far must be on the disk.
    pub fn set_sync_policy(&mut self, sync: SyncPolicy) {
        self.options.sync = sync;
    }

    /// With lazy syncs: everything up to this write is on the disk now.
    pub fn synced(&mut self, ticket: WriteTicket) {
        assert!(ticket.0 <= self.durable_record, "only what was written can be synced");
        self.synced_record = self.synced_record.max(ticket.0);
    }

    /// Gives up segments whose entries all have an index up to `through`. Returns the index before
    /// the first entry that is still there, when that changed.
    pub fn compact(&mut self, through: u64) -> Option<u64> {
        if self.durable_record < self.barrier_record {
            return None;
        }
        let mut released = false;
        while self.segments.len() >= 2
            && self.segments[0].last_index <= through
            && self.segments[1].first_record <= self.durable_record
        {
            let header = self.headers.pop_front().expect("as many headers as segments");
            self.segments.pop_front();
            let sync = match self.options.sync {
                SyncPolicy::Always => Vec::new(),
                SyncPolicy::Lazy => {
                    self.headers.iter().map(|header| segment_file_name(header.sequence)).collect()
                }
            };
            let reusable = header.segment_bytes == self.options.segment_bytes;
            self.space.release(header.sequence, reusable, sync);
            released = true;
        }
        let oldest = self.headers.front()?.sequence;
        released.then(|| match self.marks.release_before(oldest) {
            Some(first) => first - 1,
            None => self.state.last_index,
        })
    }

    /// Begins to read entries back from `low` up to and without `high`: at least one, else up to
    /// about `bytes_max` of data, and no more than one [`LogRead`] holds. They must be durable.
    /// Then call [`Log::go_on`].
    pub fn read_back(&self, low: u64, high: u64, bytes_max: u64) -> Reading {
        Reading::new(&self.marks, low, high, bytes_max)
    }

    /// Goes on reading back. Returns what is to be read and given to [`Reading::filled`] before the
    /// next call; nothing at the end. Cost: one CRC and copy of what has been read.
    pub fn go_on(&self, reading: &mut Reading) -> Result<Option<LogRead>, ReadBackError> {
        reading.go_on(&View {
            marks: &self.marks,
            runs: &self.runs,
            segments: &self.headers,
            disk: &*self.disk,
        })
    }

    /// The next piece of work on files, unless one is out or a failed one rests.
    pub fn take_file_action(&mut self) -> Option<FileAction> {
        self.request_segment();
        self.space.take_action()
    }

    /// The result of a piece of work on files.
    pub fn file_action_done(&mut self, id: u64, result: DiskResult<()>) {
        self.space.action_done(id, result);
    }

    /// Time passes; failed work on files is tried again after a while.
    pub fn tick(&mut self) {
        self.space.tick();
    }

    /// Work on files that failed is tried again at once: there may be room now.
    pub fn retry_file_work(&mut self) {
        self.space.retry();
    }

    /// Why the next segment could not be made; `None` when it is there or nothing has failed.
    pub fn lack_of_room(&self) -> Option<&str> {
        self.space.blocked()
    }

    /// Would an entry of this size find no room because the next segment cannot be made? Says why.
    #[inline]
    pub fn refuses(&self, entry_bytes: usize, reserve: Reserve) -> Option<&str> {
        let failure = self.space.blocked()?;
        (!self.fits(entry_bytes, reserve)).then_some(failure)
    }

    /// Would an entry of this size have to wait for a segment that is being made? Whether there is
    /// room for it is known when that is done.
    #[inline]
    pub fn awaits_room(&self, entry_bytes: usize) -> bool {
        self.space.is_awaited() && !self.fits(entry_bytes, Reserve::Kept)
    }

    /// Can an entry of this size be written now as any may be, behind all that waits: without the
    /// reserve, and without waiting for a segment that is not made yet?
    pub fn takes_at_once(&self, entry_bytes: usize) -> bool {
        // Half of a fresh segment is enough for the heads and blocks of its records, too.
        let fresh = self.options.segment_bytes / 2;
        self.fits(entry_bytes, Reserve::Kept)
            || self.space.has_spare() && self.needed(entry_bytes, Reserve::Kept) <= fresh
    }

    /// Does an entry of this size go into the last segment behind all that waits?
    fn fits(&self, entry_bytes: usize, reserve: Reserve) -> bool {
        self.needed(entry_bytes, reserve) <= self.room()
    }

    /// Bytes that an entry of this size takes with all that waits and the reserve behind it.
    fn needed(&self, entry_bytes: usize, reserve: Reserve) -> u64 {
        let share = |bytes: u64| bytes.min(self.options.segment_bytes / 8);
        let reserve = match reserve {
            Reserve::Kept => share(LOG_RESERVE_BYTES) + share(LOG_SHRINK_RESERVE_BYTES),
            Reserve::Used => share(LOG_RESERVE_BYTES),
        };
        let overhead = (RECORD_HEADER_BYTES + PART_HEADER_BYTES + ENTRY_HEADER_BYTES) as u64
            + self.options.block_bytes as u64;
        self.pending_bytes + entry_bytes as u64 + overhead + reserve
    }

    fn push(&mut self, part: Pending) {
        self.pending_bytes += part.bytes() as u64;
        self.pending.push_back(part);
        self.appended += 1;
    }

    /// Bytes left in the last segment, in whole blocks.
    fn room(&self) -> u64 {
        let block = self.options.block_bytes as u64;
        let end = self.offset.next_multiple_of(block);
        self.headers.back().map_or(0, |header| header.segment_bytes - end)
    }

    /// How the next record is laid out: what waits is packed if it fits into a run as a whole.
    fn next_layout(&mut self) -> Layout {
        let heads = RECORD_HEADER_BYTES + PART_HEADER_BYTES + STATE_BYTES;
        let bytes = heads + self.pending_bytes as usize;
        let layout = match self.layout {
            Layout::Packed if bytes <= LOG_RUN_BYTES_MAX => Layout::Packed,
            _ => Layout::Padded,
        };
        if layout == Layout::Padded || !self.runs.takes(bytes) {
            self.close_run();
        }
        layout
    }

    fn request_segment(&mut self) {
        let last = self.headers.back().map_or(0, |header| header.sequence);
        self.space.request(last + 1, &self.options);
    }

    /// Makes sure that the front part can go into the last segment, opening the next one if need
    /// be.
    fn make_room(&mut self) -> bool {
        let front = self.pending.front().expect("the caller looked");
        let needed = RECORD_HEADER_BYTES + front.bytes() - self.fragment_offset;
        let block = self.options.block_bytes;
        let room = self.room();
        let fits = needed.next_multiple_of(block) as u64 <= room
            // Not even alone in a whole record: it is spread over several anyway.
            || (self.is_large(needed) && room >= 4 * block as u64);
        if fits {
            return true;
        }
        let Some(header) = self.space.take_spare() else {
            return false;
        };
        self.close_run();
        self.offset = u64::from(header.block_bytes);
        self.headers.push_back(header);
        self.segments.push_back(Segment { first_record: self.next_record, last_index: 0 });
        true
    }

    fn is_large(&self, needed: usize) -> bool {
        needed + PART_HEADER_BYTES + STATE_BYTES > self.options.record_bytes_max
    }

    fn build_record(&mut self, layout: Layout) -> LogWrite {
        let header = *self.headers.back().expect("make_room saw to it");
        let limit = self.options.record_bytes_max.min(self.room() as usize);
        let mut buffer = self.buffers.pop().unwrap_or_else(|| AlignedBuffer::with_capacity(0));
        buffer.clear();
        let expected = RECORD_HEADER_BYTES + PART_HEADER_BYTES + STATE_BYTES;
        buffer.reserve((expected as u64 + self.pending_bytes).min(limit as u64) as usize);
        buffer.extend_from_slice(&[0; RECORD_HEADER_BYTES]);
        let mut record = RecordHeader {
            salt: header.salt,
            number: self.next_record,
            synced: self.synced_record,
            commit: self.commit,
            ..RecordHeader::default()
        };
        let writer = PartWriter { buffer: &mut buffer, count: 0 };
        let mut draft =
            Draft { segment: header, record: &mut record, writer, limit, has_entries: false };
        if self.offset == u64::from(header.block_bytes) {
            // Every segment begins with the hard state, so that older ones can go.
            self.state.commit = self.commit;
            draft.writer.state(&self.state);
        }
        while self.put_front(&mut draft) {}
        record.parts = draft.writer.count;
        assert!(record.parts > 0, "make_room promised that the front part fits");
        seal_record(buffer.as_mut_slice(), &record);
        let (sequence, offset) = (header.sequence, self.offset);
        self.offset = match layout {
            Layout::Packed => self.runs.push(sequence, offset, buffer.as_slice()),
            Layout::Padded => {
                buffer.pad_to(header.block_bytes as usize);
                offset + buffer.as_slice().len() as u64
            }
        };
        let bytes = buffer.as_slice().len();
        let ticket = WriteTicket(record.number);
        let write = LogWrite { ticket, sequence, offset, buffer, layout };
        self.next_record += 1;
        let parts_through = self.built;
        let done = false;
        self.in_flight.push_back(InFlight { record: record.number, parts_through, bytes, done });
        self.in_flight_bytes += bytes;
        write
    }

    /// Puts the front part into the record. `false` when there is none or it does not go in as a
    /// whole.
    fn put_front(&mut self, draft: &mut Draft<'_>) -> bool {
        let Some(part) = self.pending.pop_front() else { return false };
        let fits = part.bytes() <= draft.left();
        let done = match &part {
            Pending::Entry { entry, previous_term } => self.put_entry(draft, entry, *previous_term),
            Pending::State { term, vote } if fits => {
                (self.state.term, self.state.vote) = (*term, *vote);
                self.state.commit = self.commit;
                draft.writer.state(&self.state);
                true
            }
            // What replaces entries does not share a record with them: a record is read as a whole.
            Pending::Reset { index, term } if fits && !draft.has_entries => {
                draft.writer.reset(*index, *term);
                self.drop_entries(*index, draft.record.number);
                self.marks.clear();
                (self.state.last_index, self.state.last_term) = (*index, *term);
                true
            }
            Pending::Founding { voters, learners } if fits => {
                draft.writer.founding(voters, learners);
                (self.state.last_index, self.state.last_term) = (1, 1);
                true
            }
            _ => false,
        };
        if done {
            self.pending_bytes -= part.bytes() as u64;
            self.built += 1;
        } else {
            self.pending.push_front(part);
        }
        done
    }

    /// Puts an entry, or as much of a large one as fits, into the record. `true` when nothing of it
    /// is left.
    fn put_entry(&mut self, draft: &mut Draft<'_>, entry: &Entry, previous_term: u64) -> bool {
        const HEADS: usize = PART_HEADER_BYTES + ENTRY_HEADER_BYTES;
        let offset = self.fragment_offset;
        let truncates = offset == 0 && entry.index <= self.state.last_index;
        if truncates && draft.has_entries {
            return false;
        }
        let rest = entry.data.len() - offset;
        let left = draft.left();
        let whole = HEADS + rest <= left;
        if !whole && (!self.is_large(RECORD_HEADER_BYTES + HEADS + rest) || left <= HEADS) {
            return false;
        }
        let length = if whole { rest } else { left - HEADS };
        let entry_type = entry.entry_type as u8;
        draft.writer.entry(entry_type, entry.term, entry.index, &entry.data, offset, length);
        if offset == 0 {
            let segment = draft.segment.sequence;
            if truncates {
                self.drop_entries(entry.index - 1, draft.record.number);
                self.marks.truncate(entry.index, segment, self.offset);
            } else if !draft.has_entries {
                self.marks.push(entry.index, segment, self.offset);
            }
            if !draft.has_entries {
                draft.record.previous_index = entry.index - 1;
                draft.record.previous_term = previous_term;
            }
            draft.has_entries = true;
            self.segments.back_mut().expect("the last segment").last_index = entry.index;
            (self.state.last_index, self.state.last_term) = (entry.index, entry.term);
        }
        self.fragment_offset = if whole { 0 } else { offset + length };
        whole
    }

    /// Entries above `left` are dropped by this record. Until it is durable they may be needed
    /// again.
    fn drop_entries(&mut self, left: u64, record: u64) {
        self.barrier_record = record;
        for segment in &mut self.segments {
            segment.last_index = segment.last_index.min(left);
        }
    }
}

/// A record under construction.
struct Draft<'a> {
    segment: SegmentHeader,
    record: &'a mut RecordHeader,
    writer: PartWriter<'a>,
    /// Length that it may have.
    limit: usize,
    /// Does an entry begin in it?
    has_entries: bool,
}

impl Draft<'_> {
    fn left(&self) -> usize {
        self.limit - self.writer.buffer.as_slice().len()
    }
}
