//! The log as raft-rs sees it: terms of all entries, the recent ones in memory, older ones read
//! back.
//!
//! Invariant: everything above `cache_base` is in memory, and only entries that are applied and
//! durable are dropped from there; so only sending to a follower that lags ever reads the disk.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};

use super::membership::SnapshotPoint;
use crate::disk::DiskResult;
use crate::ids::NodeId;
use crate::log::{Log, LogRead, ReadBackError, Reading};

/// raft-rs' storage.
pub(super) struct Store {
    /// `None` keeps everything in memory.
    pub(super) log: Option<Log>,
    initial: RaftState,
    /// Index and term of the entry before the first one.
    base: (u64, u64),
    /// Index of the entry before the first one in memory.
    cache_base: u64,
    cache: VecDeque<Entry>,
    cache_bytes: u64,
    last: (u64, u64),
    /// First index and term of each run of entries with one term, from `base` on.
    terms: Vec<(u64, u64)>,
    /// The newest snapshot that can be sent, with the driver's bytes about it.
    snapshot: Option<(SnapshotPoint, bytes::Bytes)>,
    snapshot_wanted: Cell<bool>,
    reads: RefCell<Reads>,
}

/// Entries that are read back for followers.
#[derive(Default)]
struct Reads {
    /// So many were begun.
    count: u64,
    under_way: Vec<Fetch>,
    /// What has come of one, while raft-rs is told.
    fetched: Option<Vec<Entry>>,
    failure: Option<String>,
}

/// One of them.
struct Fetch {
    reading: Reading,
    /// What raft-rs is to be told at its end.
    context: GetEntriesContext,
    /// Its piece that is to be read next, by its number.
    wanted: u64,
    /// The same, until the driver takes it.
    due: Option<LogRead>,
}

impl Reads {
    fn numbered(&mut self, mut read: LogRead) -> LogRead {
        self.count += 1;
        read.id = self.count;
        read
    }
}

/// What the store begins with.
pub(super) struct Begin {
    pub(super) log: Option<Log>,
    pub(super) base: (u64, u64),
    pub(super) last: (u64, u64),
    pub(super) terms: Vec<(u64, u64)>,
    /// The last entries, up to `last`.
    pub(super) entries: VecDeque<Entry>,
    pub(super) hard_state: HardState,
    pub(super) members: ConfState,
}

/// Memory of an entry: also one without data has a price.
fn held_bytes(entry: &Entry) -> u64 {
    (size_of::<Entry>() + entry.data.len()) as u64
}

impl Store {
    pub(super) fn new(begin: Begin) -> Store {
        let cache_bytes = begin.entries.iter().map(held_bytes).sum();
        let cache_base = begin.entries.front().map_or(begin.last.0, |entry| entry.index - 1);
        Store {
            log: begin.log,
            initial: RaftState::new(begin.hard_state, begin.members),
            base: begin.base,
            cache_base,
            cache: begin.entries,
            cache_bytes,
            last: begin.last,
            terms: begin.terms,
            snapshot: None,
            snapshot_wanted: Cell::new(false),
            reads: RefCell::default(),
        }
    }

    /// Takes entries in, replacing what conflicts, and queues them for writing.
    /// Cost: one reference count per entry and holder.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let index = first.index;
        assert!(index > self.base.0 && index <= self.last.0 + 1, "entry {index} leaves a gap");
        assert!(index > self.cache_base, "entry {index} replaces one that was applied");
        while self.last.0 >= index {
            let dropped = self.cache.pop_back().expect("above cache_base everything is in memory");
            self.cache_bytes -= held_bytes(&dropped);
            self.last.0 -= 1;
        }
        while self.terms.len() > 1 && self.terms.last().is_some_and(|run| run.0 >= index) {
            self.terms.pop();
        }
        let previous_term = self.terms.last().map_or(0, |run| run.1);
        if let Some(log) = &mut self.log {
            log.append(entries, previous_term);
        }
        for entry in entries {
            if self.terms.last().is_none_or(|run| run.1 != entry.term) {
                self.terms.push((entry.index, entry.term));
            }
            self.last = (entry.index, entry.term);
            self.cache_bytes += held_bytes(entry);
            self.cache.push_back(entry.clone());
        }
    }

    /// A snapshot takes the place of all entries.
    pub(super) fn reset(&mut self, index: u64, term: u64) {
        self.base = (index, term);
        self.last = (index, term);
        self.terms = vec![(index, term)];
        self.cache.clear();
        self.cache_bytes = 0;
        self.cache_base = index;
        if let Some(log) = &mut self.log {
            log.reset(index, term);
        }
    }

    /// Drops entries up to `through` from memory, oldest first, while more than `keep_bytes` are
    /// there. Without a log on disk they are gone. Cost: constant per entry dropped.
    pub(super) fn trim(&mut self, through: u64, keep_bytes: u64) {
        while self.cache_base < through && (self.cache_bytes > keep_bytes || keep_bytes == 0) {
            let Some(entry) = self.cache.pop_front() else { break };
            self.cache_bytes -= held_bytes(&entry);
            self.cache_base = entry.index;
        }
        if self.log.is_none() && self.cache_base > self.base.0 {
            self.set_base(self.cache_base);
        }
    }

    /// Gives up segments of the log that hold only entries up to `through`, which are applied.
    pub(super) fn compact(&mut self, through: u64) {
        if let Some(log) = &mut self.log
            && let Some(base) = log.compact(through)
            && base > self.base.0
        {
            while self.cache_base < base {
                let entry = self.cache.pop_front().expect("above cache_base all is in memory");
                self.cache_bytes -= held_bytes(&entry);
                self.cache_base = entry.index;
            }
            self.set_base(base);
        }
    }

    fn set_base(&mut self, index: u64) {
        let term = self.term_of(index).expect("the new base is in the log");
        self.base = (index, term);
        let run = self.terms.partition_point(|run| run.0 <= index);
        self.terms.drain(..run.saturating_sub(1));
        if let Some(first) = self.terms.first_mut() {
            *first = (index, term);
        }
    }

    fn term_of(&self, index: u64) -> Option<u64> {
        if index < self.base.0 || index > self.last.0 {
            return None;
        }
        // Nearly always the last run.
        let run = self.terms.iter().rev().find(|run| run.0 <= index);
        Some(run.map_or(0, |run| run.1))
    }

    pub(super) fn base(&self) -> (u64, u64) {
        self.base
    }

    pub(super) fn cache_bytes(&self) -> u64 {
        self.cache_bytes
    }

    pub(super) fn set_snapshot(&mut self, point: SnapshotPoint, token: bytes::Bytes) {
        self.snapshot = Some((point, token));
    }

    pub(super) fn snapshot_point(&self) -> Option<&SnapshotPoint> {
        self.snapshot.as_ref().map(|(point, _)| point)
    }

    /// Did raft-rs ask for a snapshot in vain since the last call?
    pub(super) fn take_snapshot_wanted(&self) -> bool {
        self.snapshot_wanted.take()
    }

    /// Did reading entries back fail since the last call?
    pub(super) fn take_read_failure(&mut self) -> Option<String> {
        self.reads.get_mut().failure.take()
    }

    /// Adds the pieces of the log that are to be read.
    pub(super) fn take_log_reads(&mut self, out: &mut Vec<LogRead>) {
        let under_way = &mut self.reads.get_mut().under_way;
        out.extend(under_way.iter_mut().filter_map(|fetch| fetch.due.take()));
    }

    /// What is being read back is wanted no more. Before the log is cut back.
    pub(super) fn forget_reads(&mut self) {
        self.reads.get_mut().under_way.clear();
    }

    /// A piece of the log was read. Returns what raft-rs is to be told if it can go on: what has
    /// come of it is there until [`Store::forget_fetched`].
    pub(super) fn log_read_done(
        &mut self,
        id: u64,
        result: DiskResult<Vec<u8>>,
    ) -> Option<GetEntriesContext> {
        let reads = self.reads.get_mut();
        let at = reads.under_way.iter().position(|fetch| fetch.wanted == id)?;
        let mut fetch = reads.under_way.swap_remove(at);
        if fetch.reading.low() <= self.base.0 {
            // What was read may have been written over since. A snapshot takes its place.
            return Some(fetch.context);
        }
        let log = self.log.as_ref().expect("it was read");
        let more = result.map_err(ReadBackError::from).and_then(|bytes| {
            fetch.reading.filled(bytes);
            log.go_on(&mut fetch.reading)
        });
        match more {
            Err(error) => reads.failure = Some(error.to_string()),
            Ok(Some(read)) => {
                let read = reads.numbered(read);
                (fetch.wanted, fetch.due) = (read.id, Some(read));
                reads.under_way.push(fetch);
            }
            Ok(None) => {
                reads.fetched = Some(fetch.reading.finish());
                return Some(fetch.context);
            }
        }
        None
    }

    /// raft-rs was told.
    pub(super) fn forget_fetched(&mut self) {
        self.reads.get_mut().fetched = None;
    }

    /// Entries that are not in memory, if they have been read by now; else that is begun.
    fn read_back(
        &self,
        low: u64,
        high: u64,
        bytes_max: u64,
        context: GetEntriesContext,
    ) -> Option<Vec<Entry>> {
        let reads = &mut *self.reads.borrow_mut();
        let is_it = |entries: &mut Vec<Entry>| entries.first().is_some_and(|e| e.index == low);
        if let Some(entries) = reads.fetched.take_if(is_it) {
            return Some(entries);
        }
        if reads.under_way.iter().any(|fetch| fetch.reading.low() == low) {
            return None;
        }
        let log = self.log.as_ref().expect("without a log on disk the base moves with the memory");
        let mut reading = log.read_back(low, high, bytes_max);
        match log.go_on(&mut reading) {
            Ok(None) => return Some(reading.finish()),
            Ok(Some(read)) => {
                assert!(context.can_async(), "only sending reads the disk");
                let read = reads.numbered(read);
                let (wanted, due) = (read.id, Some(read));
                reads.under_way.push(Fetch { reading, context, wanted, due });
            }
            Err(error) => reads.failure = Some(error.to_string()),
        }
        None
    }

    fn cached(&self, low: u64, high: u64, bytes_max: u64) -> Vec<Entry> {
        let start = (low - self.cache_base - 1) as usize;
        let end = (high - self.cache_base - 1) as usize;
        let mut bytes = 0;
        let mut entries = Vec::with_capacity((end - start).min(64));
        for entry in self.cache.range(start..end) {
            bytes += held_bytes(entry);
            if !entries.is_empty() && bytes > bytes_max {
                break;
            }
            entries.push(entry.clone());
        }
        entries
    }
}

impl Storage for Store {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        assert!(high <= self.last.0 + 1, "entries up to {high} of {}", self.last.0);
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        if low <= self.base.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        if low > self.cache_base {
            return Ok(self.cached(low, high, bytes_max));
        }
        self.read_back(low, high.min(self.cache_base + 1), bytes_max, context)
            .ok_or(Error::Store(StorageError::LogTemporarilyUnavailable))
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.term_of(index).ok_or(Error::Store(if index < self.base.0 {
            StorageError::Compacted
        } else {
            StorageError::Unavailable
        }))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last.0)
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        // One that was taken before the receiver became a member does not name it, and it would
        // refuse it for ever.
        let fits = |point: &SnapshotPoint| {
            let recent = point.index.0 >= request_index.max(self.base.0);
            recent && point.membership.contains(NodeId(to))
        };
        match &self.snapshot {
            Some((point, token)) if fits(point) => {
                let mut snapshot = Snapshot { data: token.clone(), ..Snapshot::default() };
                let metadata = snapshot.mut_metadata();
                metadata.index = point.index.0;
                metadata.term = point.term.0;
                metadata.set_conf_state(ConfState::from(&point.membership));
                Ok(snapshot)
            }
            _ => {
                self.snapshot_wanted.set(true);
                Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Index, Term};
    use crate::snapshot::Membership;

    fn store() -> Store {
        Store::new(Begin {
            log: None,
            base: (1, 1),
            last: (1, 1),
            terms: vec![(1, 1)],
            entries: VecDeque::new(),
            hard_state: HardState::default(),
            members: ConfState::default(),
        })
    }

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, data: vec![term as u8; 100].into(), ..Entry::default() }
    }

    fn terms(store: &Store) -> Vec<Option<u64>> {
        (0..=7).map(|index| store.term(index).ok()).collect()
    }

    #[test]
    fn what_conflicts_is_replaced_and_terms_follow() {
        let mut store = store();
        store.append(&[entry(2, 1), entry(3, 1), entry(4, 2), entry(5, 2), entry(6, 3)]);
        let expected = [None, Some(1), Some(1), Some(1), Some(2), Some(2), Some(3), None];
        assert_eq!(terms(&store), expected);
        store.append(&[entry(4, 4)]);
        assert_eq!(terms(&store)[3..], [Some(1), Some(4), None, None, None]);
        assert_eq!(store.last_index(), Ok(4));
        let all = store.entries(2, 5, None, GetEntriesContext::empty(false)).expect("in memory");
        assert_eq!(all.iter().map(|entry| entry.term).collect::<Vec<_>>(), [1, 1, 4]);
        let held = store.cache_bytes();
        store.append(&[entry(2, 5)]);
        assert_eq!(store.cache_bytes(), held / 3);
        assert_eq!(terms(&store)[..4], [None, Some(1), Some(5), None]);
    }

    #[test]
    fn memory_is_trimmed_to_what_is_applied_and_may_be_kept() {
        let mut store = store();
        store.append(&[2, 3, 4, 5, 6].map(|index| entry(index, index / 3)));
        let each = store.cache_bytes() / 5;
        store.trim(4, 3 * each);
        assert_eq!((store.base(), store.cache_bytes()), ((3, 1), 3 * each));
        store.trim(4, 0);
        assert_eq!(store.base(), (4, 1), "not beyond what is applied");
        assert_eq!(terms(&store)[3..7], [None, Some(1), Some(1), Some(2)]);
        let gone = store.entries(4, 6, None, GetEntriesContext::empty(false));
        assert_eq!(gone, Err(Error::Store(StorageError::Compacted)));
        let some = store.entries(5, 7, each, GetEntriesContext::empty(false)).expect("there");
        assert_eq!(some.len(), 1, "bounded in bytes");
        store.reset(20, 7);
        assert_eq!((store.base(), store.last_index(), store.cache_bytes()), ((20, 7), Ok(20), 0));
        assert_eq!(store.term(20), Ok(7));
    }

    #[test]
    fn a_snapshot_is_asked_for_once_and_fits() {
        let mut store = store();
        let unavailable = Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        assert_eq!(store.snapshot(0, 2), unavailable);
        assert!(store.take_snapshot_wanted());
        assert!(!store.take_snapshot_wanted());
        let membership = Membership { voters: vec![NodeId(2)], ..Membership::default() };
        let point = SnapshotPoint { index: Index(9), term: Term(2), membership };
        store.set_snapshot(point, "token".into());
        let snapshot = store.snapshot(9, 2).expect("there");
        assert_eq!((snapshot.get_metadata().index, &snapshot.data[..]), (9, &b"token"[..]));
        assert_eq!(store.snapshot(10, 2), unavailable, "too old for the one who asks");
        assert_eq!(store.snapshot(9, 3), unavailable, "older than its membership");
        store.reset(20, 7);
        assert_eq!(store.snapshot(0, 2), unavailable, "too old to go on from");
    }
}
