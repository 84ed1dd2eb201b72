//! What the records of a log add up to.

use std::collections::VecDeque;

use raft::eraftpb::Entry;

use super::format::{NUMBER_MAX, Part, RecordHeader, SegmentHeader, StatePart, read_part, u64_at};
use super::marks::{Marks, PartialEntry};
use super::recover::Founding;
use super::write::Segment;
use crate::ids::NodeId;

/// The state after the records so far. A later record wins over an earlier one.
pub(super) struct Replay {
    /// Entries up to this index are not kept.
    keep_after: u64,
    /// Number that the next record must have; `None` before the first one.
    pub(super) next_record: Option<u64>,
    pub(super) records: u64,
    pub(super) state: StatePart,
    pub(super) commit: u64,
    /// Index and term before the first entry.
    pub(super) base: Option<(u64, u64)>,
    pub(super) last: (u64, u64),
    pub(super) terms: Vec<(u64, u64)>,
    pub(super) entries: VecDeque<Entry>,
    pub(super) marks: Marks,
    pub(super) founding: Option<Founding>,
    /// A large entry whose fragments are being gathered, with what its record says of the entry
    /// before it and where that record is.
    partial: Option<PartialEntry>,
    partial_begin: Begin,
    /// For every truncation: the segment that it happened in and the last index that was left.
    truncations: Vec<(u64, u64)>,
}

#[derive(Clone, Copy, Default)]
struct Begin {
    previous: (u64, u64),
    place: (u64, u64),
    first_in_record: bool,
}

impl Replay {
    pub(super) fn new(keep_after: u64) -> Replay {
        Replay {
            keep_after,
            next_record: None,
            records: 0,
            state: StatePart::default(),
            commit: 0,
            base: None,
            last: (0, 0),
            terms: Vec::new(),
            entries: VecDeque::new(),
            marks: Marks::default(),
            founding: None,
            partial: None,
            partial_begin: Begin::default(),
            truncations: Vec::new(),
        }
    }

    /// Takes the next record, which lies at this segment and offset. Returns the index of the last
    /// entry that begins in it, or what is wrong with it.
    pub(super) fn record(
        &mut self,
        header: &RecordHeader,
        mut parts: &[u8],
        place: (u64, u64),
    ) -> Result<Option<u64>, String> {
        let numbers = [header.number, header.synced, header.commit, header.previous_index];
        if let Some(number) = numbers.iter().find(|number| **number > NUMBER_MAX) {
            return Err(format!("it speaks of number {number}"));
        }
        let mut begun = None;
        let mut previous = (header.previous_index, header.previous_term);
        for n in 0..header.parts {
            let part = read_part(&mut parts).ok_or_else(|| format!("part {n} is unknown"))?;
            match part {
                Part::State(state) => self.take_state(state),
                Part::Reset { index, term } => {
                    self.partial = None;
                    self.restart((index, term));
                    self.truncations.push((place.0, index));
                }
                Part::Founding { voters, learners } => {
                    let ids =
                        |bytes: &[u8]| bytes.chunks(8).map(|id| NodeId(u64_at(id, 0))).collect();
                    self.founding = Some(Founding { voters: ids(voters), learners: ids(learners) });
                    self.restart((1, 1));
                }
                Part::Entry { index, term, offset, .. } => {
                    if offset == 0 {
                        let first_in_record = begun.is_none();
                        self.partial_begin = Begin { previous, place, first_in_record };
                        previous = (index, term);
                        begun = Some(index);
                    }
                    if PartialEntry::take(&mut self.partial, &part) == Some(true) {
                        let entry = self.partial.take().expect("a last fragment ends something");
                        self.take_entry(entry.finish())?;
                    }
                }
            }
        }
        if !parts.is_empty() {
            return Err(format!("{} bytes behind its parts", parts.len()));
        }
        self.commit = self.commit.max(header.commit);
        self.next_record = Some(header.number + 1);
        self.records += 1;
        Ok(begun)
    }

    /// Truncations lower what earlier segments still hold of the log.
    pub(super) fn truncate_segments(&self, segments: &mut [(SegmentHeader, Segment, u64)]) {
        for (sequence, left) in &self.truncations {
            for (header, segment, _) in segments.iter_mut() {
                if header.sequence < *sequence {
                    segment.last_index = segment.last_index.min(*left);
                }
            }
        }
    }

    fn take_state(&mut self, state: StatePart) {
        if self.base.is_none() && state.last_index > 0 {
            self.restart((state.last_index, state.last_term));
        }
        self.state = state;
        self.commit = self.commit.max(state.commit);
    }

    /// The log is empty behind this entry.
    fn restart(&mut self, base: (u64, u64)) {
        self.base = Some(base);
        self.last = base;
        self.terms = vec![base];
        self.entries.clear();
        self.marks.clear();
    }

    fn take_entry(&mut self, entry: Entry) -> Result<(), String> {
        let Begin { previous, place, first_in_record } = self.partial_begin;
        if self.base.is_none_or(|base| entry.index <= base.0) {
            // The first one that is left, or a truncation of more than is left.
            if previous.0 + 1 != entry.index {
                return Err(format!("entry {} after entry {}", entry.index, previous.0));
            }
            if self.base.is_some() {
                self.truncations.push((place.0, previous.0));
            }
            self.restart(previous);
        }
        if entry.index > self.last.0 + 1 {
            return Err(format!("entry {} after entry {}", entry.index, self.last.0));
        }
        if entry.index <= self.last.0 {
            self.truncations.push((place.0, entry.index - 1));
            self.terms.retain(|run| run.0 < entry.index);
            while self.entries.back().is_some_and(|last| last.index >= entry.index) {
                self.entries.pop_back();
            }
            self.marks.truncate(entry.index, place.0, place.1);
        } else if first_in_record {
            self.marks.push(entry.index, place.0, place.1);
        }
        self.last = (entry.index, entry.term);
        if self.terms.last().is_none_or(|run| run.1 != entry.term) {
            self.terms.push((entry.index, entry.term));
        }
        if entry.index > self.keep_after {
            self.entries.push_back(entry);
        }
        Ok(())
    }
}
