//! Streams: entries in the order of their ids, and groups that read them.
//!
//! Entries lie in blocks ([`block`]) of up to `stream-node-max-bytes` and
//! `stream-node-max-entries`: all but the last one in a tree by the id of their first entry, the
//! last one open for more. XADD touches the open block alone. A block ends where it does for good:
//! as XTRIM with `~` takes out whole blocks, their bounds are a part of the value, which snapshots
//! and transactions carry.
//!
//! Unlike other values a stream can be there and empty.

pub(crate) mod block;
mod change;
mod group;
mod id;
#[cfg(any(test, feature = "models"))]
pub(super) mod model;
mod part;
mod runs;

pub use block::{Block, Entry};
pub use change::{GroupMut, StreamMut, Trim, TrimTo};
pub use group::{Consumer, Group, Pending};
pub(crate) use id::ID_BYTES;
pub use id::StreamId;
pub use part::StreamPart;

use super::body::Stored;
use super::sorted_map::{self, SortedMap};
use block::Builder;
use runs::Runs;
use std::collections::BTreeMap;

/// Names of groups with the groups.
type Groups = BTreeMap<Box<[u8]>, Group>;

/// What a stream is.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    last_id: StreamId,
    /// How many entries were ever added.
    added: u64,
    /// The greatest id that XDEL took out.
    max_deleted_id: StreamId,
    count: u64,
    closed: SortedMap,
    /// Entries of the closed blocks.
    runs: Runs,
    open: Builder,
    groups: Groups,
    /// Bytes of the groups and their names.
    group_bytes: usize,
}

impl Content {
    /// Bytes of memory that it takes, about; of its content alone.
    pub(super) fn bytes(&self) -> usize {
        self.closed.bytes() + self.open.size() + self.group_bytes
    }

    /// Drops up to so many leaves. Are there more?
    pub(super) fn shed(&mut self, leaf_count: usize) -> bool {
        self.open = Builder::default();
        if self.closed.count() > 0 {
            self.closed.shed(leaf_count);
            return true;
        }
        let Some(mut last) = self.groups.last_entry() else { return false };
        let before = last.get().bytes();
        let more = last.get_mut().shed(leaf_count);
        self.group_bytes -= before - last.get().bytes();
        if !more {
            let (name, group) = last.remove_entry();
            self.group_bytes -= name.len() + group.bytes();
        }
        true
    }

    /// The entries alone, which it shares with this one. Cost: a copy of the open block.
    pub(super) fn entries(&self) -> Content {
        let (closed, open) = (self.closed.clone(), self.open.clone());
        let (last_id, count) = (self.last_id, self.count);
        Content { closed, open, last_id, count, ..Content::default() }
    }

    fn block_count(&self) -> u64 {
        self.closed.count() + u64::from(!self.open.is_empty())
    }

    /// How many entries the blocks before a rank have.
    fn entries_before(&self, rank: u64) -> u64 {
        let (blocks, entries) = self.runs.pass(|blocks, _| blocks <= rank);
        let rest = self.blocks_from(blocks).take((rank - blocks) as usize);
        entries + rest.map(Block::count).sum::<u64>()
    }

    fn block(&self, rank: u64) -> Option<Block<'_>> {
        match self.closed.get(rank) {
            Some(record) => Some(block_of(record)),
            None => self.open.block().filter(|_| rank == self.closed.count()),
        }
    }

    /// The rank of the block that an id belongs to.
    fn rank_of(&self, id: StreamId) -> u64 {
        if !self.open.is_empty() && id >= self.open.first() {
            return self.closed.count();
        }
        match sorted_map::find(&self.closed, &id.bytes()) {
            Ok(rank) => rank,
            Err(rank) => rank.saturating_sub(1),
        }
    }

    fn blocks_from(&self, rank: u64) -> impl Iterator<Item = Block<'_>> {
        let open = self.open.block().filter(|_| rank <= self.closed.count());
        self.closed.records_from(rank).map(block_of).chain(open)
    }

    fn blocks_back_from(&self, rank: u64) -> impl Iterator<Item = Block<'_>> {
        let open = self.open.block().filter(|_| rank >= self.closed.count());
        open.into_iter().chain(self.closed.records_back_from(rank).map(block_of))
    }
}

fn block_of<'a>([key, bytes]: [&'a [u8]; 2]) -> Block<'a> {
    Block::new(StreamId::of_key(key), bytes)
}

/// A stream that is read.
#[derive(Clone, Copy, Debug)]
pub struct Stream<'a> {
    pub(super) content: Option<&'a Content>,
}

impl<'a> Stream<'a> {
    /// The stream that is stored here.
    pub fn new(stored: Stored<'a>) -> Stream<'a> {
        let content = match stored {
            Stored::Pack(_) | Stored::Integers(_) => None,
            Stored::Tree(body) => Some(body.stream()),
        };
        Stream { content }
    }

    /// Is there one? One that is about to be made is not.
    pub fn exists(self) -> bool {
        self.content.is_some()
    }

    /// Count of entries.
    pub fn count(self) -> u64 {
        self.content.map_or(0, |content| content.count)
    }

    /// The id of the last entry that was added, or what was said to be it.
    pub fn last_id(self) -> StreamId {
        self.content.map_or(StreamId::MIN, |content| content.last_id)
    }

    /// How many entries were ever added.
    pub fn added(self) -> u64 {
        self.content.map_or(0, |content| content.added)
    }

    /// The greatest id that XDEL took out.
    pub fn max_deleted_id(self) -> StreamId {
        self.content.map_or(StreamId::MIN, |content| content.max_deleted_id)
    }

    /// How many blocks its entries lie in.
    pub fn block_count(self) -> u64 {
        self.content.map_or(0, Content::block_count)
    }

    /// The first entry.
    pub fn first(self) -> Option<Entry<'a>> {
        self.content?.block(0)?.entries().next()
    }

    /// The last entry.
    pub fn last(self) -> Option<Entry<'a>> {
        let content = self.content?;
        content.block(content.block_count().checked_sub(1)?)?.entries().last()
    }

    /// The entry of an id.
    pub fn get(self, id: StreamId) -> Option<Entry<'a>> {
        self.entries_from(id).next().filter(|entry| entry.id == id)
    }

    /// The entries from an id on. Cost: a search, and a walk through part of a block.
    pub fn entries_from(self, id: StreamId) -> impl Iterator<Item = Entry<'a>> {
        let blocks = self.content.map(|content| content.blocks_from(content.rank_of(id)));
        let entries = blocks.into_iter().flatten().flat_map(Block::entries);
        entries.skip_while(move |entry| entry.id < id)
    }

    /// The entries from an id on backwards, that one included.
    pub fn entries_back_from(self, id: StreamId) -> impl Iterator<Item = Entry<'a>> {
        let blocks = self.content.map(|content| content.blocks_back_from(content.rank_of(id)));
        let entries = blocks.into_iter().flatten().flat_map(|block| {
            let entries: Vec<Entry<'a>> = block.entries().collect();
            entries.into_iter().rev()
        });
        entries.skip_while(move |entry| entry.id > id)
    }

    /// How many entries there are from one id to another. Cost: a look at each run of blocks, and
    /// walks through the first block and the last.
    pub fn count_between(self, start: StreamId, end: StreamId) -> u64 {
        let Some(content) = self.content.filter(|_| start <= end) else { return 0 };
        let of = |rank: u64| {
            let entries = content.block(rank).into_iter().flat_map(Block::entries);
            entries.filter(|entry| (start..=end).contains(&entry.id)).count() as u64
        };
        match (content.rank_of(start), content.rank_of(end)) {
            (first, last) if first == last => of(first),
            (first, last) => {
                let between = content.entries_before(last) - content.entries_before(first + 1);
                of(first) + between + of(last)
            }
        }
    }

    /// The blocks with the entries from an id on.
    pub(crate) fn blocks_from(self, id: StreamId) -> impl Iterator<Item = Block<'a>> {
        let blocks = self.content.map(|content| content.blocks_from(content.rank_of(id)));
        blocks.into_iter().flatten().skip_while(move |block| block.last() < id)
    }

    /// How many groups there are.
    pub fn group_count(self) -> usize {
        self.content.map_or(0, |content| content.groups.len())
    }

    /// The groups in the order of their names.
    pub fn groups(self) -> impl Iterator<Item = (&'a [u8], &'a Group)> {
        let groups = self.content.map(|content| content.groups.iter());
        groups.into_iter().flatten().map(|(name, group)| (&**name, group))
    }

    /// The group of a name.
    pub fn group(self, name: &[u8]) -> Option<&'a Group> {
        self.content?.groups.get(name)
    }

    /// Did XDEL take out entries from this id on, among those that are there?
    pub fn has_gaps_from(self, id: StreamId) -> bool {
        let max_deleted_id = self.max_deleted_id();
        max_deleted_id > StreamId::MIN
            && max_deleted_id >= id
            && self.first().is_some_and(|first| first.id <= max_deleted_id)
    }

    /// How many entries were added up to the one of an id, that one included, if that can be told.
    pub fn added_up_to(self, id: StreamId) -> Option<u64> {
        let (added, count) = (self.added(), self.count());
        if added == 0 {
            return Some(0);
        }
        if count == 0 && id <= self.last_id() {
            return Some(added);
        }
        if id >= self.last_id() {
            return (id == self.last_id()).then_some(added);
        }
        let first = self.first()?.id;
        let is_whole = self.max_deleted_id() == StreamId::MIN || self.max_deleted_id() < first;
        if !is_whole || id > first {
            return None;
        }
        Some((added - count.min(added)) + u64::from(id == first))
    }

    /// How many entries a group has not been given yet, if that can be told.
    pub fn lag(self, group: &Group) -> Option<i64> {
        if self.added() == 0 {
            return Some(0);
        }
        let read = match group.entries_read() {
            Some(read) if !self.has_gaps_from(group.last_id()) => read,
            _ => self.added_up_to(group.last_id())?,
        };
        Some(self.added().wrapping_sub(read) as i64)
    }
}
