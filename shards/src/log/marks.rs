//! Where entries lie in the log, sparsely, and entries as their fragments come.

use std::collections::VecDeque;

use raft::eraftpb::{Entry, EntryType};

use super::files::segment_file_name;
use super::format::{Part, RECORD_HEADER_BYTES, RecordHeader, SegmentHeader, read_record};
use crate::disk::{Disk, DiskError};
use crate::limits::{LOG_MARK_BYTES, LOG_RECORD_BYTES_MAX};

/// The entry `index` begins in the record at `offset` of segment `sequence`, and is the first one
/// that does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    index: u64,
    sequence: u64,
    offset: u64,
}

/// Marks in the order of both index and place. What lies between two marks' places and has an index
/// at or above the later mark's was truncated.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    marks: VecDeque<Mark>,
}

/// An entry that was read in full, or as far as its fragments came.
#[derive(Debug)]
pub(super) struct PartialEntry {
    pub(super) entry: Entry,
    pub(super) total: usize,
    data: Vec<u8>,
}

impl PartialEntry {
    /// Takes the next fragment. `None` when there is nothing that it continues; `Some(true)` when
    /// it is the last.
    pub(super) fn take(pending: &mut Option<PartialEntry>, part: &Part<'_>) -> Option<bool> {
        let Part::Entry { entry_type, term, index, total, offset, data } = part else {
            return None;
        };
        let total = *total as usize;
        if *offset == 0 {
            let mut entry = Entry { term: *term, index: *index, ..Default::default() };
            entry.set_entry_type(decode_entry_type(*entry_type)?);
            // Longer ones grow as their fragments come: a length alone is no reason to take memory.
            let mut bytes = Vec::with_capacity(total.min(2 * LOG_RECORD_BYTES_MAX));
            bytes.extend_from_slice(data);
            *pending = Some(PartialEntry { entry, total, data: bytes });
        } else {
            let begun = pending.as_mut()?;
            let fits = begun.entry.index == *index
                && begun.entry.term == *term
                && begun.total == total
                && begun.data.len() == *offset as usize;
            if !fits {
                *pending = None;
                return None;
            }
            begun.data.extend_from_slice(data);
        }
        pending.as_ref().map(|begun| begun.data.len() == begun.total)
    }

    pub(super) fn finish(mut self) -> Entry {
        self.entry.data = self.data.into();
        self.entry
    }
}

fn decode_entry_type(entry_type: u8) -> Option<EntryType> {
    match entry_type {
        0 => Some(EntryType::EntryNormal),
        1 => Some(EntryType::EntryConfChange),
        2 => Some(EntryType::EntryConfChangeV2),
        _ => None,
    }
}

impl Marks {
    /// Notes that the entry `index` begins in this record and is the first one that does. Indexes
    /// that are not greater than noted ones truncate.
    pub(super) fn push(&mut self, index: u64, sequence: u64, offset: u64) {
        let mut truncated = false;
        while self.marks.back().is_some_and(|mark| mark.index >= index) {
            self.marks.pop_back();
            truncated = true;
        }
        let near = self
            .marks
            .back()
            .is_some_and(|mark| mark.sequence == sequence && offset - mark.offset < LOG_MARK_BYTES);
        if truncated || !near {
            self.marks.push_back(Mark { index, sequence, offset });
        }
    }

    /// Notes that entries from `index` on were dropped and others follow at this place.
    pub(super) fn truncate(&mut self, index: u64, sequence: u64, offset: u64) {
        while self.marks.back().is_some_and(|mark| mark.index >= index) {
            self.marks.pop_back();
        }
        self.marks.push_back(Mark { index, sequence, offset });
    }

    pub(super) fn clear(&mut self) {
        self.marks.clear();
    }

    /// Forgets everything before segment `sequence`. Returns the first entry that is left.
    pub(super) fn release_before(&mut self, sequence: u64) -> Option<u64> {
        while self.marks.front().is_some_and(|mark| mark.sequence < sequence) {
            self.marks.pop_front();
        }
        self.marks.front().map(|mark| mark.index)
    }

    /// Segment and offset of a record that is not behind the entry `index`. None when it is
    /// compacted.
    pub(super) fn place_of(&self, index: u64) -> Option<(u64, u64)> {
        let first = self.marks.partition_point(|mark| mark.index <= index);
        let mark = self.marks[first.checked_sub(1)?];
        Some((mark.sequence, mark.offset))
    }

    /// Of what lies at this place, entries with this index or a greater one were truncated.
    pub(super) fn dead_behind(&self, place: (u64, u64)) -> u64 {
        let next = self.marks.partition_point(|mark| (mark.sequence, mark.offset) <= place);
        self.marks.get(next).map_or(u64::MAX, |mark| mark.index)
    }
}

/// Header and parts of the record at `offset`, or `None` when no valid one is there.
pub(super) fn read_one<'a>(
    disk: &dyn Disk,
    header: &SegmentHeader,
    offset: u64,
    record: &'a mut Vec<u8>,
) -> Result<Option<(RecordHeader, &'a [u8])>, DiskError> {
    if offset + RECORD_HEADER_BYTES as u64 > header.segment_bytes {
        return Ok(None);
    }
    let name = segment_file_name(header.sequence);
    let mut head = [0; RECORD_HEADER_BYTES];
    disk.read_at(&name, offset, &mut head)?;
    let length = u64::from(super::format::record_length(&head));
    if length < RECORD_HEADER_BYTES as u64 || offset + length > header.segment_bytes {
        return Ok(None);
    }
    record.resize(length as usize, 0);
    disk.read_at(&name, offset, record)?;
    Ok(read_record(record, header.salt).ok())
}
