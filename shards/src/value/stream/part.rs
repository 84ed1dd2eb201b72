//! Streams in parts, for snapshots, payloads and digests.

use super::block::Block;
use super::group::{Group, Pending};
use super::id::StreamId;
use super::{Content, Stream};
use std::ops::ControlFlow;

/// A part of a stream, in the order in which it is built: the head; the blocks; each group, its
/// consumers, and what they hold.
#[derive(Clone, Copy, Debug)]
pub enum StreamPart<'p> {
    /// What is known of it beside its entries.
    Head {
        /// The id of the last entry that was added.
        last_id: StreamId,
        /// How many entries were ever added.
        added: u64,
        /// The greatest id that XDEL took out.
        max_deleted_id: StreamId,
    },
    /// The next entries.
    Block(Block<'p>),
    /// A group.
    Group {
        /// Its name.
        name: &'p [u8],
        /// The last entry that was given to anybody.
        last_id: StreamId,
        /// How many entries were added up to that one, as far as that is known.
        entries_read: Option<u64>,
    },
    /// A consumer of a group.
    Consumer {
        /// The group.
        group: &'p [u8],
        /// Its name.
        name: &'p [u8],
        /// Its number within the group.
        number: u32,
        /// When it last asked for something.
        seen_ms: i64,
        /// When it last was given something.
        active_ms: Option<i64>,
    },
    /// An entry that a consumer holds.
    Pending {
        /// The group.
        group: &'p [u8],
        /// What it holds.
        pending: Pending<'p>,
    },
}

impl StreamPart<'_> {
    /// About how many bytes it has.
    pub(crate) fn size(&self) -> usize {
        const NUMBERS: usize = 40;
        NUMBERS
            + match self {
                StreamPart::Head { .. } => 0,
                StreamPart::Block(block) => block.bytes().len(),
                StreamPart::Group { name, .. } | StreamPart::Consumer { name, .. } => name.len(),
                StreamPart::Pending { pending, .. } => pending.consumer.len(),
            }
    }

    /// Bytes of the longest string in it.
    pub(crate) fn longest(&self) -> usize {
        match self {
            StreamPart::Head { .. } => 0,
            StreamPart::Block(block) => {
                let pairs = block.entries().flat_map(|entry| entry.pairs());
                pairs.map(|(name, value)| name.len().max(value.len())).max().unwrap_or(0)
            }
            StreamPart::Group { name, .. } | StreamPart::Consumer { name, .. } => name.len(),
            StreamPart::Pending { pending, .. } => pending.consumer.len(),
        }
    }
}

impl Group {
    fn part_count(&self) -> u64 {
        1 + self.consumer_count() + self.pending_count()
    }
}

impl<'a> Stream<'a> {
    /// How many parts it has.
    pub(crate) fn part_count(self) -> u64 {
        let Some(content) = self.content else { return 0 };
        let groups: u64 = content.groups.values().map(Group::part_count).sum();
        1 + content.block_count() + groups
    }

    /// Visits its parts from one on. Cost: a look at each group, and few steps to the part.
    pub(crate) fn visit(
        self,
        from: u64,
        visit: &mut dyn FnMut(StreamPart<'a>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Some(content) = self.content else { return ControlFlow::Continue(()) };
        let Content { last_id, added, max_deleted_id, .. } = *content;
        if from == 0 {
            visit(StreamPart::Head { last_id, added, max_deleted_id })?;
        }
        let mut from = from.saturating_sub(1);
        content.blocks_from(from).try_for_each(|block| visit(StreamPart::Block(block)))?;
        from = from.saturating_sub(content.block_count());
        for (name, group) in self.groups() {
            let count = group.part_count();
            if from < count {
                visit_group(name, group, from, visit)?;
            }
            from = from.saturating_sub(count);
        }
        ControlFlow::Continue(())
    }
}

fn visit_group<'a>(
    name: &'a [u8],
    group: &'a Group,
    from: u64,
    visit: &mut dyn FnMut(StreamPart<'a>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    if from == 0 {
        let (last_id, entries_read) = (group.last_id(), group.entries_read());
        visit(StreamPart::Group { name, last_id, entries_read })?;
    }
    let from = from.saturating_sub(1);
    group.consumers_from(from).try_for_each(|consumer| {
        visit(StreamPart::Consumer {
            group: name,
            name: consumer.name,
            number: consumer.number(),
            seen_ms: consumer.seen_ms,
            active_ms: consumer.active_ms,
        })
    })?;
    let from = from.saturating_sub(group.consumer_count());
    group
        .held_by_rank(from)
        .try_for_each(|pending| visit(StreamPart::Pending { group: name, pending }))
}
