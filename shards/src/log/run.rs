//! Records that lie close together: what a journal makes durable needs no block of its own in the
//! segment.
//!
//! The one idea: records that a journal has made durable gather in memory and are written to their
//! segment in one piece, a run, which begins and ends with a block. So no block is written twice,
//! and what is written durably by itself never shares one with what is not. Until it is written a
//! run is a part of the log that reads are served from.

use std::collections::VecDeque;

use super::AlignedBuffer;
use crate::limits::LOG_RUN_BYTES_MAX;

/// Within a run, records begin at multiples of this.
pub const RECORD_ALIGNMENT: usize = 8;

/// How a record lies in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// In blocks of its own, which its write makes durable.
    Padded,
    /// In a run, behind others. Something else makes it durable.
    Packed,
}

/// Records that are to be written to their segment, in whole blocks.
#[derive(Debug)]
pub struct LogRun {
    /// The segment.
    pub sequence: u64,
    /// Where in the file.
    pub offset: u64,
    /// What to write. Give it back by [`super::Log::run_written`].
    pub buffer: AlignedBuffer,
}

/// The runs of a log that are not in their segments yet.
#[derive(Default)]
pub(super) struct Runs {
    /// The one that takes records.
    open: Option<LogRun>,
    /// Those that take no more, in order.
    closed: VecDeque<LogRun>,
    /// A buffer to be used again.
    spare: Option<AlignedBuffer>,
}

impl Runs {
    /// Does a record of so many bytes go into the open run, or else into a new one?
    pub(super) fn takes(&self, bytes: usize) -> bool {
        let there = self.open.as_ref().map_or(0, |run| run.buffer.as_slice().len());
        there + bytes <= LOG_RUN_BYTES_MAX
    }

    /// Puts a record, which belongs at this place, behind the others. Returns where the next one
    /// may begin.
    pub(super) fn push(&mut self, sequence: u64, offset: u64, record: &[u8]) -> u64 {
        let spare = &mut self.spare;
        let run = self.open.get_or_insert_with(|| {
            let buffer = spare.take().unwrap_or_else(|| AlignedBuffer::with_capacity(0));
            LogRun { sequence, offset, buffer }
        });
        let length = run.buffer.as_slice().len() as u64;
        assert_eq!((run.sequence, run.offset + length), (sequence, offset), "a run has no gaps");
        run.buffer.extend_from_slice(record);
        run.buffer.pad_to(RECORD_ALIGNMENT);
        run.offset + run.buffer.as_slice().len() as u64
    }

    /// The open run takes no more. Returns the block behind it.
    pub(super) fn close(&mut self, block_bytes: usize) -> Option<u64> {
        let mut run = self.open.take()?;
        run.buffer.pad_to(block_bytes);
        let end = run.offset + run.buffer.as_slice().len() as u64;
        self.closed.push_back(run);
        Some(end)
    }

    pub(super) fn take_closed(&mut self) -> Option<LogRun> {
        self.closed.pop_front()
    }

    pub(super) fn keep(&mut self, mut buffer: AlignedBuffer) {
        buffer.clear();
        self.spare = Some(buffer);
    }

    /// Where the first one of a segment begins.
    pub(super) fn first(&self, sequence: u64) -> Option<u64> {
        let mut runs = self.closed.iter().chain(&self.open);
        runs.find(|run| run.sequence == sequence).map(|run| run.offset)
    }

    /// What lies from this place on, if it is in a run: to the run's end.
    pub(super) fn bytes(&self, sequence: u64, offset: u64) -> Option<&[u8]> {
        self.closed.iter().chain(&self.open).find_map(|run| {
            let from = offset.checked_sub(run.offset).filter(|_| run.sequence == sequence)?;
            run.buffer.as_slice().get(from as usize..).filter(|bytes| !bytes.is_empty())
        })
    }
}

/// Where the next record may begin behind one that ends there: next to it, or with a block.
pub(super) fn places_behind(end: u64, block_bytes: u32) -> [u64; 2] {
    [end.next_multiple_of(RECORD_ALIGNMENT as u64), end.next_multiple_of(u64::from(block_bytes))]
}
