//! Reading entries back for a follower that lags far behind, without waiting for the disk.
//!
//! The one idea: a reading knows its place in the log and goes on by itself as far as what it has
//! been given reaches; then it says what it wants next, a piece of a segment, which the driver
//! reads where blocking is allowed.

use std::collections::VecDeque;

use raft::eraftpb::Entry;

use super::files::segment_file_name;
use super::format::{RECORD_HEADER_BYTES, SegmentHeader, read_part, read_record, record_length};
use super::marks::{Marks, PartialEntry};
use super::run::{Runs, places_behind};
use crate::disk::{Disk, DiskError, DiskResult};
use crate::limits::LOG_READ_BYTES;

/// A piece of a segment to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRead {
    /// By which it is reported.
    pub id: u64,
    sequence: u64,
    offset: u64,
    length: usize,
}

impl LogRead {
    /// Reads it. Blocks.
    pub fn run(&self, disk: &dyn Disk) -> DiskResult<Vec<u8>> {
        let mut bytes = vec![0; self.length];
        disk.read_at(&segment_file_name(self.sequence), self.offset, &mut bytes)?;
        Ok(bytes)
    }
}

/// Reading entries back failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadBackError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What was written once cannot be read now.
    #[error("{file} is damaged at offset {offset}: entry {index} of the log is not there any more")]
    Damaged {
        /// The segment.
        file: String,
        /// Where reading ended.
        offset: u64,
        /// Entry that was sought.
        index: u64,
    },
}

/// What of a log a reading looks at.
pub(super) struct View<'a> {
    pub(super) marks: &'a Marks,
    pub(super) runs: &'a Runs,
    pub(super) segments: &'a VecDeque<SegmentHeader>,
    /// Where the segments are, for messages.
    pub(super) disk: &'a dyn Disk,
}

/// Entries that are being read back. They must be durable, and stay in the log meanwhile.
#[derive(Debug)]
pub struct Reading {
    low: u64,
    high: u64,
    bytes_max: u64,
    /// Segment and offset of the next record.
    place: (u64, u64),
    entries: Vec<Entry>,
    bytes: u64,
    pending: Option<PartialEntry>,
    /// What was read last, and its bytes; none yet while it is under way.
    piece: LogRead,
    piece_bytes: Vec<u8>,
}

/// What is at a place.
enum Found<'a> {
    Parts(&'a [u8]),
    /// No record.
    Nothing,
    /// That is to be read first: so many bytes.
    Unread(usize),
}

impl<'a> Found<'a> {
    /// What lies there was read in full.
    fn of(bytes: &'a [u8], segment: &SegmentHeader) -> Found<'a> {
        read_record(bytes, segment.salt).map_or(Found::Nothing, |(_, parts)| Found::Parts(parts))
    }
}

impl Reading {
    /// Of entries from `low` up to and without `high`: at least one, else up to about `bytes_max`
    /// of data, and no more than one piece of the log holds.
    pub(super) fn new(marks: &Marks, low: u64, high: u64, bytes_max: u64) -> Reading {
        let place = marks.place_of(low).expect("entries before the first mark are compacted");
        Reading {
            low,
            high,
            bytes_max,
            place,
            entries: Vec::new(),
            bytes: 0,
            pending: None,
            piece: LogRead { id: 0, sequence: 0, offset: 0, length: 0 },
            piece_bytes: Vec::new(),
        }
    }

    /// Index of the first entry.
    pub fn low(&self) -> u64 {
        self.low
    }

    /// What it wanted was read.
    pub fn filled(&mut self, bytes: Vec<u8>) {
        self.piece_bytes = bytes;
    }

    /// What was read; call it when nothing is wanted any more.
    pub fn finish(self) -> Vec<Entry> {
        self.entries
    }

    /// Goes on. Returns what is to be read next, if it has not come to an end.
    pub(super) fn go_on(&mut self, log: &View<'_>) -> Result<Option<LogRead>, ReadBackError> {
        loop {
            let (sequence, offset) = self.place;
            let wanted = self.low + self.entries.len() as u64;
            let damaged = || ReadBackError::Damaged {
                file: format!("{}/{}", log.disk.place(), segment_file_name(sequence)),
                offset,
                index: wanted,
            };
            let dead_from = log.marks.dead_behind(self.place);
            let header = log.segments.iter().find(|header| header.sequence == sequence);
            let header = header.ok_or_else(damaged)?;
            let mut found = match log.runs.bytes(sequence, offset) {
                Some(bytes) => Found::of(bytes, header),
                None => find(&self.piece, &self.piece_bytes, header, offset),
            };
            if let Found::Unread(bytes) = found {
                // What is in memory as yet may come to its place while a piece is being read.
                let run = log.runs.first(sequence).filter(|first| *first > offset);
                let end = run.unwrap_or(header.segment_bytes);
                let length = (end - offset).min(bytes as u64) as usize;
                let is_read = (self.piece.sequence, self.piece.offset) == self.place
                    && self.piece_bytes.len() >= length;
                if is_read {
                    found = Found::Nothing;
                } else if self.entries.is_empty() {
                    self.piece = LogRead { id: 0, sequence, offset, length };
                    self.piece_bytes = Vec::new();
                    return Ok(Some(self.piece.clone()));
                }
            }
            let mut parts = match found {
                Found::Parts(parts) => parts,
                Found::Unread(_) => return Ok(None),
                Found::Nothing => {
                    let [_, block] = places_behind(offset, header.block_bytes);
                    if block != offset {
                        self.place.1 = block;
                        continue;
                    }
                    // The end of this segment's records; the chain goes on in the next one.
                    let next = log.segments.iter().find(|header| header.sequence == sequence + 1);
                    let first = u64::from(next.ok_or_else(damaged)?.block_bytes);
                    self.place = (sequence + 1, first);
                    continue;
                }
            };
            let end = offset + (RECORD_HEADER_BYTES + parts.len()) as u64;
            [self.place.1, _] = places_behind(end, header.block_bytes);
            while !parts.is_empty() {
                let part = read_part(&mut parts).ok_or_else(damaged)?;
                if PartialEntry::take(&mut self.pending, &part) != Some(true) {
                    continue;
                }
                let entry = self.pending.take().expect("a last fragment ends something").finish();
                let wanted = self.low + self.entries.len() as u64;
                if entry.index != wanted || entry.index >= dead_from {
                    continue;
                }
                self.bytes += entry.data.len() as u64;
                if !self.entries.is_empty() && self.bytes > self.bytes_max {
                    return Ok(None);
                }
                self.entries.push(entry);
                if wanted + 1 == self.high {
                    return Ok(None);
                }
            }
        }
    }
}

/// The record at `offset` of a segment, as far as the piece that was read holds it.
fn find<'a>(piece: &LogRead, bytes: &'a [u8], segment: &SegmentHeader, offset: u64) -> Found<'a> {
    let left = segment.segment_bytes.saturating_sub(offset);
    if left < RECORD_HEADER_BYTES as u64 {
        return Found::Nothing;
    }
    let from = offset.checked_sub(piece.offset).filter(|_| piece.sequence == segment.sequence);
    let bytes = from.and_then(|from| bytes.get(from as usize..)).unwrap_or_default();
    let Some(head) = bytes.first_chunk::<RECORD_HEADER_BYTES>() else {
        return Found::Unread(LOG_READ_BYTES);
    };
    let length = record_length(head) as usize;
    if length < RECORD_HEADER_BYTES || length as u64 > left {
        return Found::Nothing;
    }
    match bytes.get(..length) {
        None => Found::Unread(length.max(LOG_READ_BYTES)),
        Some(record) => Found::of(record, segment),
    }
}
