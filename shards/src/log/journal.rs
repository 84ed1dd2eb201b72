//! One journal for the logs of a core: what the turn wants written in many logs is durable by one
//! write.
//!
//! The one idea: a frame repeats the records of one turn and says where each belongs. When it is on
//! the disk, the records are durable, and may wait in memory until many are written to their
//! segment in one piece ([`Layout::Packed`]), through the page cache, without a sync of their own.
//! A start writes what frames hold to its places ([`super::redo`]) before any log is read; so
//! recovery knows nothing of the journal.
//!
//! A journal has two files of a fixed size. One takes frames; when it is full, the other takes its
//! place, the segments that the full one stands for are synced, and a new header with a new salt
//! makes all its frames void at once.
//!
//! Records that find no room in it are written to their segments and synced there.

use std::collections::VecDeque;

use super::AlignedBuffer;
use super::format::{RECORD_HEADER_BYTES, record_length, u32_at, u64_at};
use super::run::Layout;
use super::write::LogWrite;
use crate::disk::{Disk, DiskResult};
use crate::ids::{ClusterId, NodeId, ShardId};
use crate::random::Random;

/// First bytes of every journal file.
pub const JOURNAL_MAGIC: [u8; 8] = *b"RINGJRNL";
/// Version of the format that this program writes. It reads this one only.
pub const JOURNAL_VERSION: u32 = 1;
/// Frames begin at multiples of this; the header takes the first.
pub const JOURNAL_BLOCK_BYTES: usize = 4096;
/// Bytes of a header that carry something.
pub const JOURNAL_HEADER_BYTES: usize = 60;
/// Bytes of a frame before its records.
pub const FRAME_HEADER_BYTES: usize = 56;
/// Bytes before each record of a frame.
pub const PIECE_HEADER_BYTES: usize = 20;

/// What a journal file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalHeader {
    /// Whose logs its frames are for.
    pub cluster: ClusterId,
    /// On which node.
    pub node: NodeId,
    /// Random bits that every frame of it repeats. What is left from an earlier use has others.
    pub salt: u64,
    /// Size of the file.
    pub bytes: u64,
}

impl JournalHeader {
    /// The bytes, without the zeros that fill the block.
    pub fn encode(&self) -> [u8; JOURNAL_HEADER_BYTES] {
        let mut bytes = [0; JOURNAL_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&JOURNAL_MAGIC);
        bytes[8..12].copy_from_slice(&JOURNAL_VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.cluster.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.node.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.salt.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.bytes.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..56]);
        bytes[56..60].copy_from_slice(&crc.to_le_bytes());
        bytes
    }
}

/// Name of a file of a core's journal.
pub fn journal_file_name(core: u16, place: usize) -> String {
    format!("core-{core}-{}.journal", if place == 0 { 'a' } else { 'b' })
}

/// Names a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameTicket {
    /// Which of the two files it is in.
    pub place: usize,
    /// Where in the file.
    pub offset: u64,
    number: u64,
}

/// Work on a file of a journal, to be done aside, blocking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalWork {
    /// Which of the two files.
    pub place: usize,
    /// Its name.
    pub name: String,
    /// The header that makes it empty.
    pub header: JournalHeader,
    /// Does it hold frames? Then the segments that they stand for must be synced first.
    pub holds_frames: bool,
}

impl JournalWork {
    /// Makes the file, or makes it empty. A file that an earlier start has left is used again: its
    /// frames were redone. Doing it again after a failure is fine.
    pub fn run(&self, disk: &dyn Disk) -> DiskResult<()> {
        let there = disk.list()?.into_iter().find(|file| file.name == self.name);
        if there.as_ref().is_some_and(|file| file.bytes == self.header.bytes) {
            return empty(disk, &self.name, &self.header);
        }
        if there.is_some() {
            // The size of segments was changed.
            disk.remove(&self.name)?;
        }
        let fresh = format!("{}.new", self.name);
        if let Err(error) = disk.create_zeroed(&fresh, self.header.bytes) {
            // Half a file on a full disk would only make things worse.
            let _ = disk.remove(&fresh);
            return Err(error);
        }
        empty(disk, &fresh, &self.header)?;
        disk.rename(&fresh, &self.name)?;
        disk.sync_directory()
    }
}

/// Writes a header, which makes all frames of the file void at once.
pub(super) fn empty(disk: &dyn Disk, name: &str, header: &JournalHeader) -> DiskResult<()> {
    let mut block = [0; JOURNAL_BLOCK_BYTES];
    block[..JOURNAL_HEADER_BYTES].copy_from_slice(&header.encode());
    disk.write_at(name, 0, &block)?;
    disk.sync(name)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There is no file.
    Missing,
    /// Work on it is under way.
    Worked,
    /// It takes frames.
    Ready,
    /// It has taken its last frame.
    Full,
}

struct Place {
    state: State,
    salt: u64,
    /// Where the next frame goes.
    offset: u64,
    /// Frames built.
    built: u64,
    /// So many of the first ones are durable.
    durable: u64,
    /// Frames behind them, and whether they are durable.
    in_flight: VecDeque<bool>,
}

/// The journal of a core, for writing.
pub struct Journal {
    cluster: ClusterId,
    node: NodeId,
    core: u16,
    bytes: u64,
    places: [Place; 2],
    active: usize,
    chance: Random,
}

impl Journal {
    /// A journal of two files of so many bytes, none of which is there yet. Draw `seed` anew for
    /// every start.
    pub fn new(cluster: ClusterId, node: NodeId, core: u16, bytes: u64, seed: u64) -> Journal {
        assert!(bytes.is_multiple_of(JOURNAL_BLOCK_BYTES as u64));
        let place = || Place {
            state: State::Missing,
            salt: 0,
            offset: 0,
            built: 0,
            durable: 0,
            in_flight: VecDeque::new(),
        };
        let places = [place(), place()];
        Journal { cluster, node, core, bytes, places, active: 0, chance: Random::new(seed) }
    }

    /// How many of these writes go into a frame of so many bytes, one at least, and bytes of that
    /// frame.
    pub fn fitting<'a>(
        writes: impl Iterator<Item = &'a LogWrite>,
        bytes_max: usize,
    ) -> (usize, usize) {
        let (mut count, mut bytes) = (0, FRAME_HEADER_BYTES);
        for write in writes {
            let with_it = bytes + PIECE_HEADER_BYTES + write.buffer.as_slice().len();
            if count > 0 && with_it > bytes_max {
                break;
            }
            (count, bytes) = (count + 1, with_it);
        }
        (count, bytes.next_multiple_of(JOURNAL_BLOCK_BYTES))
    }

    /// Would a frame of so many bytes find room?
    #[inline]
    pub fn has_room_for(&self, bytes: usize) -> bool {
        self.has_room(self.active, bytes) || self.has_room(1 - self.active, bytes)
    }

    /// Is there room for a frame of so many bytes? Changes to the other file when that makes room.
    pub fn make_room(&mut self, bytes: usize) -> bool {
        if self.has_room(self.active, bytes) {
            return true;
        }
        let other = 1 - self.active;
        if !self.has_room(other, bytes) {
            return false;
        }
        if self.places[self.active].state == State::Ready {
            self.places[self.active].state = State::Full;
        }
        self.active = other;
        true
    }

    fn has_room(&self, place: usize, bytes: usize) -> bool {
        let place = &self.places[place];
        place.state == State::Ready && place.offset + bytes as u64 <= self.bytes
    }

    /// Builds a frame of these writes in `buffer`, which is empty. [`Journal::make_room`] has found
    /// room for it.
    pub fn build<'a>(
        &mut self,
        writes: impl Iterator<Item = (ShardId, &'a LogWrite)>,
        buffer: &mut AlignedBuffer,
    ) -> FrameTicket {
        let (before_salt, before_durable) = {
            let other = &self.places[1 - self.active];
            (other.salt, other.durable)
        };
        let place = &mut self.places[self.active];
        place.built += 1;
        buffer.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
        let mut count = 0u32;
        for (shard, write) in writes {
            assert_eq!(write.layout, Layout::Packed, "nothing but a record");
            let record = write.buffer.as_slice();
            let mut head = [0; PIECE_HEADER_BYTES];
            head[0..2].copy_from_slice(&shard.0.to_le_bytes());
            head[4..12].copy_from_slice(&write.sequence.to_le_bytes());
            head[12..20].copy_from_slice(&write.offset.to_le_bytes());
            buffer.extend_from_slice(&head);
            buffer.extend_from_slice(record);
            count += 1;
        }
        let length = u32::try_from(buffer.as_slice().len()).expect("frames are bounded");
        let frame = buffer.as_mut_slice();
        frame[4..8].copy_from_slice(&length.to_le_bytes());
        for (at, number) in [
            (8, place.salt),
            (16, place.built),
            (24, place.durable),
            (32, before_salt),
            (40, before_durable),
        ] {
            frame[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        frame[48..52].copy_from_slice(&count.to_le_bytes());
        let crc = crc32fast::hash(&frame[4..]);
        frame[0..4].copy_from_slice(&crc.to_le_bytes());
        buffer.pad_to(JOURNAL_BLOCK_BYTES);
        let ticket = FrameTicket { place: self.active, offset: place.offset, number: place.built };
        place.offset += buffer.as_slice().len() as u64;
        assert!(place.offset <= self.bytes, "the caller made room");
        place.in_flight.push_back(false);
        ticket
    }

    /// A frame is durable. Frames may end in any order, and none waits for another: a start does
    /// all that it finds.
    pub fn written(&mut self, ticket: FrameTicket) {
        let place = &mut self.places[ticket.place];
        let at = (ticket.number - place.durable - 1) as usize;
        place.in_flight[at] = true;
        while place.in_flight.front() == Some(&true) {
            place.in_flight.pop_front();
            place.durable += 1;
        }
    }

    /// Is there work on its files that is not under way?
    #[inline]
    pub fn has_work(&self) -> bool {
        self.place_to_work_on().is_some()
    }

    fn place_to_work_on(&self) -> Option<usize> {
        self.places.iter().position(|place| match place.state {
            State::Missing => true,
            State::Full => place.in_flight.is_empty(),
            State::Worked | State::Ready => false,
        })
    }

    /// The next piece of work on its files. What the frames of a full one repeat must have been
    /// written to its segments before.
    pub fn take_work(&mut self) -> Option<JournalWork> {
        let place = self.place_to_work_on()?;
        let holds_frames = self.places[place].state == State::Full;
        self.places[place].state = State::Worked;
        let (cluster, node, bytes) = (self.cluster, self.node, self.bytes);
        let header = JournalHeader { cluster, node, salt: self.chance.bits(), bytes };
        let name = journal_file_name(self.core, place);
        Some(JournalWork { place, name, header, holds_frames })
    }

    /// How a piece of work went. What failed is given out again.
    pub fn work_done(&mut self, work: &JournalWork, is_done: Result<(), ()>) {
        let place = &mut self.places[work.place];
        assert_eq!(place.state, State::Worked, "it was given out");
        if is_done.is_err() {
            place.state = if work.holds_frames { State::Full } else { State::Missing };
            return;
        }
        place.state = State::Ready;
        place.salt = work.header.salt;
        place.offset = JOURNAL_BLOCK_BYTES as u64;
        (place.built, place.durable) = (0, 0);
    }
}

/// A frame that was read.
pub(super) struct Frame<'a> {
    pub(super) number: u64,
    pub(super) durable: u64,
    pub(super) before_salt: u64,
    pub(super) before_durable: u64,
    count: u32,
    pieces: &'a [u8],
    /// Bytes up to the next one.
    pub(super) padded: usize,
}

/// A record in a frame.
pub(super) struct Piece<'a> {
    pub(super) shard: ShardId,
    pub(super) sequence: u64,
    pub(super) offset: u64,
    /// The record; its salt is that of the segment.
    pub(super) record: &'a [u8],
}

impl Piece<'_> {
    pub(super) fn salt(&self) -> u64 {
        u64_at(self.record, 8)
    }
}

/// The valid frame at the start of `bytes`, if there is one.
pub(super) fn read_frame(bytes: &[u8], salt: u64) -> Option<Frame<'_>> {
    if bytes.len() < FRAME_HEADER_BYTES || u64_at(bytes, 8) != salt {
        return None;
    }
    let length = u32_at(bytes, 4) as usize;
    if length < FRAME_HEADER_BYTES || length > bytes.len() {
        return None;
    }
    (crc32fast::hash(&bytes[4..length]) == u32_at(bytes, 0)).then(|| Frame {
        number: u64_at(bytes, 16),
        durable: u64_at(bytes, 24),
        before_salt: u64_at(bytes, 32),
        before_durable: u64_at(bytes, 40),
        count: u32_at(bytes, 48),
        pieces: &bytes[FRAME_HEADER_BYTES..length],
        padded: length.next_multiple_of(JOURNAL_BLOCK_BYTES),
    })
}

impl<'a> Frame<'a> {
    /// Its records. `None` in place of the first that makes no sense.
    pub(super) fn pieces(&self) -> impl Iterator<Item = Option<Piece<'a>>> + use<'a> {
        let mut rest = self.pieces;
        let mut left = self.count;
        std::iter::from_fn(move || {
            if left == 0 {
                return (!std::mem::take(&mut rest).is_empty()).then_some(None);
            }
            left -= 1;
            let piece = take_piece(&mut rest);
            if piece.is_none() {
                (left, rest) = (0, &[]);
            }
            Some(piece)
        })
    }
}

fn take_piece<'a>(rest: &mut &'a [u8]) -> Option<Piece<'a>> {
    let (head, behind) = rest.split_at_checked(PIECE_HEADER_BYTES)?;
    let length = record_length(behind.first_chunk::<RECORD_HEADER_BYTES>()?) as usize;
    let (record, behind) = behind.split_at_checked(length)?;
    if length < RECORD_HEADER_BYTES {
        return None;
    }
    *rest = behind;
    let shard = ShardId(u16::from_le_bytes([head[0], head[1]]));
    Some(Piece { shard, sequence: u64_at(head, 4), offset: u64_at(head, 12), record })
}
