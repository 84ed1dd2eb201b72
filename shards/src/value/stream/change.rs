//! Changing streams.

use super::block::{Block, Builder};
use super::group::{Group, Pending};
use super::id::StreamId;
use super::part::StreamPart;
use super::{Content, Stream, block_of};
use crate::value::body::{Body, Place, Stored, Trees};
use crate::value::limits::Limits;
use crate::value::sorted_map::{self, SortedMap};
use std::ops::Deref;

/// What is left by trimming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrimTo {
    /// So many entries, the last ones.
    Count(u64),
    /// The entries from an id on.
    Id(StreamId),
}

/// How a stream is trimmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trim {
    /// What is left.
    pub to: TrimTo,
    /// Only whole blocks are taken out.
    pub whole_blocks: bool,
    /// No more than so many entries are taken out; 0 for any number.
    pub limit: u64,
}

/// What trimming takes out.
struct Trimmed {
    /// So many blocks as a whole.
    block_count: u64,
    /// Entries of the closed ones of them.
    closed_entries: u64,
    /// What is left of the next one, if it loses something.
    rest: Option<Builder>,
    /// Entries that go.
    gone: u64,
}

impl Content {
    /// Ends the open block.
    fn close(&mut self) {
        if let Some(block) = std::mem::take(&mut self.open).block() {
            sorted_map::push(&mut self.closed, &block.first().bytes(), block.bytes());
            self.runs.push(block.count());
        }
    }

    /// The last block is the open one, whatever became of those behind it: as when the stream is
    /// loaded.
    fn reopen(&mut self) {
        let Some(rank) = self.closed.count().checked_sub(1).filter(|_| self.open.is_empty()) else {
            return;
        };
        let last = self.closed.get(rank).expect("there are so many");
        self.open = Builder::of(block_of(last));
        self.closed.remove(rank);
        self.runs.remove(rank, self.open.count());
    }

    fn append<'p>(
        &mut self,
        id: StreamId,
        pairs: impl Iterator<Item = (&'p [u8], &'p [u8])> + Clone,
        limits: &Limits,
    ) {
        let bytes: usize = pairs.clone().map(|(name, value)| name.len() + value.len()).sum();
        if !limits.stream_fits(self.open.size().saturating_add(bytes), self.open.count()) {
            self.close();
        }
        self.open.push(id, pairs);
        (self.count, self.added, self.last_id) = (self.count + 1, self.added + 1, id);
    }

    /// Puts another block in the place of one, or nothing when it is empty.
    fn replace_block(&mut self, rank: u64, block: Builder) {
        if rank == self.closed.count() {
            self.open = block;
            return self.reopen();
        }
        let record = self.closed.get(rank).expect("there is such a block");
        let ([key, _], before) = (record, block_of(record).count());
        match block.block() {
            Some(block) => self.runs.shrink(rank, before - block.count()),
            None => self.runs.remove(rank, before),
        }
        match block.block() {
            Some(block) if block.first().bytes() == key => {
                sorted_map::put(&mut self.closed, &block.first().bytes(), block.bytes());
            }
            Some(block) => {
                self.closed.remove(rank);
                sorted_map::put(&mut self.closed, &block.first().bytes(), block.bytes());
            }
            None => self.closed.remove(rank),
        }
    }

    fn delete(&mut self, id: StreamId) {
        let rank = self.rank_of(id);
        let block = self.block(rank).expect("the entry is in a block");
        self.replace_block(rank, without(block, |other| other == id));
        self.count -= 1;
    }

    /// What trimming does not leave.
    fn trimmed(&self, trim: Trim) -> Trimmed {
        // Where everything goes, it goes by runs.
        let permits = |gone: u64| trim.limit == 0 || gone <= trim.limit;
        let (mut block_count, mut gone) = match trim.to {
            TrimTo::Count(count) => {
                self.runs.pass(|_, gone| permits(gone) && self.count - gone >= count)
            }
            TrimTo::Id(id) => {
                let end = self.rank_of(id);
                self.runs.pass(|blocks, gone| permits(gone) && blocks <= end)
            }
        };
        let (mut closed_entries, mut rest) = (gone, None);
        let mut blocks = self.blocks_from(block_count).peekable();
        while let Some(block) = blocks.next() {
            let left = self.count - gone;
            if matches!(trim.to, TrimTo::Count(count) if left <= count) {
                break;
            }
            let here = block.count();
            if trim.limit > 0 && gone + here > trim.limit {
                break;
            }
            let goes_whole = match trim.to {
                TrimTo::Count(count) => left - here >= count,
                TrimTo::Id(id) => {
                    let next = blocks.peek().is_some_and(|next| next.first() <= id);
                    next || block.last() < id
                }
            };
            if goes_whole {
                if block_count < self.closed.count() {
                    closed_entries += here;
                }
                (block_count, gone) = (block_count + 1, gone + here);
                continue;
            }
            if !trim.whole_blocks {
                let mut before = 0;
                let cut = match trim.to {
                    TrimTo::Count(count) => without(block, |_| {
                        before += 1;
                        before <= left - count
                    }),
                    TrimTo::Id(id) => without(block, |other| other < id),
                };
                gone += here - cut.count();
                rest = Some(cut).filter(|cut| cut.count() < here);
            }
            break;
        }
        Trimmed { block_count, closed_entries, rest, gone }
    }

    /// Returns the blocks that went as a whole.
    fn trim(&mut self, trimmed: Trimmed) -> SortedMap {
        let Trimmed { block_count, closed_entries, rest, gone } = trimmed;
        if let Some(rest) = rest {
            self.replace_block(block_count, rest);
        }
        if block_count > self.closed.count() {
            self.open = Builder::default();
        }
        self.count -= gone;
        self.runs.remove_first(block_count.min(self.closed.count()), closed_entries);
        let taken = self.closed.take_range(0, block_count);
        debug_assert_eq!(
            self.runs.pass(|_, _| true),
            (self.closed.count(), self.count - self.open.count()),
            "runs follow their blocks"
        );
        taken
    }

    /// Puts a block behind all others. False when it does not belong there.
    fn push_block(&mut self, block: Block<'_>) -> bool {
        let last = self.block_count().checked_sub(1).and_then(|rank| self.block(rank));
        if last.is_some_and(|last| last.last() >= block.first()) {
            return false;
        }
        self.close();
        self.open = Builder::of(block);
        self.count += block.count();
        true
    }

    fn group_mut(&mut self, name: &[u8]) -> Option<GroupMut<'_>> {
        let group = self.groups.get_mut(name)?;
        let before = group.bytes();
        Some(GroupMut { group, before, total: &mut self.group_bytes })
    }

    fn add_group(&mut self, name: &[u8], last_id: StreamId, read: Option<u64>) -> bool {
        if self.groups.contains_key(name) {
            return false;
        }
        let group = Group::new(last_id, read);
        self.group_bytes += name.len() + group.bytes();
        self.groups.insert(name.into(), group);
        true
    }
}

/// The entries of a block but those that `goes` says.
fn without(block: Block<'_>, mut goes: impl FnMut(StreamId) -> bool) -> Builder {
    let mut rest = Builder::default();
    for entry in block.entries().filter(|entry| !goes(entry.id)) {
        rest.push(entry.id, entry.pairs());
    }
    rest
}

/// A stream that is changed.
pub struct StreamMut<P: Place> {
    place: P,
}

impl<P: Place> StreamMut<P> {
    /// The stream that lies here.
    pub fn new(place: P) -> StreamMut<P> {
        StreamMut { place }
    }

    /// The stream as it is.
    pub fn stream(&self) -> Stream<'_> {
        Stream::new(self.place.stored())
    }

    /// Makes it, if it is not there.
    pub fn make(&mut self) {
        if !matches!(self.place.stored(), Stored::Tree(_)) {
            let hasher = self.place.member_hasher();
            self.place.grow(Body { hasher, trees: Trees::Stream(Box::default()) });
        }
    }

    fn content(&mut self) -> &mut Content {
        self.make();
        self.place.body_mut().trees.stream_mut()
    }

    /// Adds an entry, whose id is greater than the last one.
    pub fn append<'p>(
        &mut self,
        id: StreamId,
        pairs: impl Iterator<Item = (&'p [u8], &'p [u8])> + Clone,
    ) {
        assert!(id > self.stream().last_id(), "ids are given in their order");
        let limits = self.place.limits();
        self.content().append(id, pairs, &limits);
    }

    /// Takes out an entry. Was there one?
    pub fn delete(&mut self, id: StreamId) -> bool {
        if self.stream().get(id).is_none() {
            return false;
        }
        let content = self.content();
        content.delete(id);
        content.max_deleted_id = content.max_deleted_id.max(id);
        true
    }

    /// Takes out the first entries. Returns how many. Cost: a look at each run of 64 blocks that
    /// goes, and at those of the last one; their memory is freed bit by bit.
    pub fn trim(&mut self, trim: Trim) -> u64 {
        let Some(content) = self.stream().content else { return 0 };
        let trimmed = content.trimmed(trim);
        let gone = trimmed.gone;
        if gone == 0 {
            return 0;
        }
        let blocks = self.content().trim(trimmed);
        if blocks.count() > 0 {
            self.discard(Content { closed: blocks, ..Content::default() });
        }
        gone
    }

    fn discard(&mut self, content: Content) {
        let hasher = self.place.member_hasher();
        self.place.discard(Body { hasher, trees: Trees::Stream(Box::new(content)) });
    }

    /// Says which entry was the last one, and maybe how many were ever added and what was the
    /// greatest that was taken out.
    pub fn set_last_id(
        &mut self,
        last_id: StreamId,
        added: Option<u64>,
        max_deleted_id: Option<StreamId>,
    ) {
        let content = self.content();
        content.last_id = last_id;
        content.added = added.unwrap_or(content.added);
        content.max_deleted_id = max_deleted_id.unwrap_or(content.max_deleted_id);
    }

    /// A group, for changing.
    pub fn group_mut(&mut self, name: &[u8]) -> Option<GroupMut<'_>> {
        self.stream().group(name)?;
        self.content().group_mut(name)
    }

    /// Makes a group. False when there is one of this name.
    pub fn add_group(&mut self, name: &[u8], last_id: StreamId, read: Option<u64>) -> bool {
        self.stream().group(name).is_none() && self.content().add_group(name, last_id, read)
    }

    /// Takes out a group. Was there one? Its memory is freed bit by bit.
    pub fn remove_group(&mut self, name: &[u8]) -> bool {
        if self.stream().group(name).is_none() {
            return false;
        }
        let content = self.content();
        let (name, group) = content.groups.remove_entry(name).expect("just seen");
        let group_bytes = name.len() + group.bytes();
        content.group_bytes -= group_bytes;
        let groups = [(name, group)].into();
        self.discard(Content { groups, group_bytes, ..Content::default() });
        true
    }

    /// Adds a part of a stream that was read elsewhere. False when it is there already or does not
    /// follow on the others.
    pub(crate) fn add(&mut self, part: StreamPart<'_>) -> bool {
        match part {
            StreamPart::Head { last_id, added, max_deleted_id } => {
                let stream = self.stream();
                let is_new = stream.added() == 0 && stream.group_count() == 0;
                let is_last = stream.last().is_none_or(|last| last.id <= last_id);
                self.set_last_id(last_id, Some(added), Some(max_deleted_id));
                is_new && is_last
            }
            StreamPart::Block(block) => self.content().push_block(block),
            StreamPart::Group { name, last_id, entries_read } => {
                self.add_group(name, last_id, entries_read)
            }
            StreamPart::Consumer { group, name, number, seen_ms, active_ms } => {
                let Some(group) = self.group_mut(group) else { return false };
                group.group.add_numbered(name, number, seen_ms, active_ms)
            }
            StreamPart::Pending { group, pending } => {
                let Some(mut group) = self.group_mut(group) else { return false };
                if group.consumer(pending.consumer).is_none() || group.pending(pending.id).is_some()
                {
                    return false;
                }
                group.give(pending);
                true
            }
        }
    }
}

/// A group that is changed.
pub struct GroupMut<'s> {
    group: &'s mut Group,
    /// Bytes of the group before.
    before: usize,
    /// Bytes of all groups.
    total: &'s mut usize,
}

impl Deref for GroupMut<'_> {
    type Target = Group;

    fn deref(&self) -> &Group {
        self.group
    }
}

impl Drop for GroupMut<'_> {
    fn drop(&mut self) {
        *self.total = *self.total - self.before + self.group.bytes();
    }
}

impl GroupMut<'_> {
    /// Says which entry was the last one that was given to anybody, and how many were added up to
    /// it.
    pub fn set_last_id(&mut self, last_id: StreamId, entries_read: Option<u64>) {
        (self.group.last_id, self.group.entries_read) = (last_id, entries_read);
    }

    /// Adds a consumer. False when there is one of this name.
    pub fn add_consumer(&mut self, name: &[u8], seen_ms: i64, active_ms: Option<i64>) -> bool {
        self.group.add_consumer(name, seen_ms, active_ms)
    }

    /// Notes when a consumer was seen, and when it was given something.
    pub fn touch_consumer(&mut self, name: &[u8], seen_ms: i64, active_ms: Option<i64>) {
        self.group.touch_consumer(name, seen_ms, active_ms);
    }

    /// Takes out a consumer and all that it holds. Returns how much that was; `None` when there is
    /// no such consumer.
    pub fn remove_consumer(&mut self, name: &[u8]) -> Option<u64> {
        self.group.remove_consumer(name)
    }

    /// Gives an entry to a consumer that is there, whoever holds it.
    pub fn give(&mut self, given: Pending<'_>) {
        self.group.give(given);
    }

    /// Takes an entry from whoever holds it. Did anybody?
    pub fn take(&mut self, id: StreamId) -> bool {
        self.group.take(id)
    }
}
