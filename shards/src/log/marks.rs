//! Where entries lie in the log, sparsely, and reading them back for a follower that lags far
//! behind.

use std::collections::VecDeque;

use raft::eraftpb::{Entry, EntryType};

use super::files::segment_file_name;
use super::format::{
    Part, RECORD_HEADER_BYTES, RecordHeader, SegmentHeader, read_part, read_record,
};
use super::run::{Runs, places_behind};
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

    /// Reads entries from `low` up to and without `high`, at least one, else up to about
    /// `bytes_max`. They must be durable. Cost: two reads per record, blocking.
    pub(super) fn read(
        &self,
        (disk, runs): (&dyn Disk, &Runs),
        segments: &VecDeque<SegmentHeader>,
        low: u64,
        high: u64,
        bytes_max: u64,
    ) -> Result<Vec<Entry>, ReadBackError> {
        let first = self.marks.partition_point(|mark| mark.index <= low);
        let mut region = first.checked_sub(1).expect("entries before the first mark are compacted");
        let mut place = (self.marks[region].sequence, self.marks[region].offset);
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut pending = None;
        let mut record = Vec::new();
        loop {
            while self.marks.get(region + 1).is_some_and(|m| (m.sequence, m.offset) <= place) {
                region += 1;
            }
            let dead_from = self.marks.get(region + 1).map_or(u64::MAX, |mark| mark.index);
            let header = segments.iter().find(|header| header.sequence == place.0);
            let wanted = low + entries.len() as u64;
            let (sequence, offset) = place;
            let damaged = || ReadBackError::Damaged {
                file: format!("{}/{}", disk.place(), segment_file_name(sequence)),
                offset,
                index: wanted,
            };
            let header = header.ok_or_else(damaged)?;
            let found = match runs.bytes(sequence, offset) {
                Some(bytes) => read_record(bytes, header.salt).ok(),
                None => read_one(disk, header, offset, &mut record)?,
            };
            let Some((_, mut parts)) = found else {
                let [_, block] = places_behind(offset, header.block_bytes);
                if block != offset {
                    place.1 = block;
                    continue;
                }
                // The end of this segment's records; the chain goes on in the next one.
                let next = segments.iter().find(|header| header.sequence == place.0 + 1);
                place = (place.0 + 1, u64::from(next.ok_or_else(damaged)?.block_bytes));
                continue;
            };
            let end = offset + (RECORD_HEADER_BYTES + parts.len()) as u64;
            [place.1, _] = places_behind(end, header.block_bytes);
            while !parts.is_empty() {
                let part = read_part(&mut parts).ok_or_else(damaged)?;
                if PartialEntry::take(&mut pending, &part) != Some(true) {
                    continue;
                }
                let entry = pending.take().expect("a last fragment ends something").finish();
                let wanted = low + entries.len() as u64;
                if entry.index != wanted || entry.index >= dead_from {
                    continue;
                }
                bytes += entry.data.len() as u64;
                if !entries.is_empty() && bytes > bytes_max {
                    return Ok(entries);
                }
                entries.push(entry);
                if wanted + 1 == high {
                    return Ok(entries);
                }
            }
        }
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
