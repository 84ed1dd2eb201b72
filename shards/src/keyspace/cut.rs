//! A point-in-time cut: every item as it was when the cut began, while writing goes on. No fork, no copy.
//!
//! Each item has a mark bit. While no cut is on, all bits are equal; beginning a cut flips what the bit
//! means, so that all items are unmarked without touching one. The cut walks the tables in order, hands
//! out unmarked items and marks them; items made meanwhile are born marked. An edit that is about to change or
//! remove an unmarked item leaves the old allocation to the cut, which hands it out in its next step. A
//! cleared database is walked in its detached tables; exchanged databases keep the numbers they had.

use super::Keyspace;
use super::bucket::BUCKET_WIDTH;
use super::database::Row;
use super::item::{Item, RawItem};
use super::lend;
use super::memory::Memory;
use super::rubble::Rubble;
use super::table::POSITION_END;
use crate::ids::DatabaseIndex;
use crate::limits::DATABASE_COUNT;
use crate::slot::SLOT_COUNT;

/// Where the items are that a database had when the cut began.
enum Source {
    /// In the database that has this number now.
    Live(usize),
    /// It was cleared since.
    Detached(Row),
    /// All handed out.
    Done,
}

/// State of a cut that is on.
pub(super) struct Cut {
    /// By the numbers that the databases had when it began.
    sources: [Source; DATABASE_COUNT],
    database: usize,
    slot: usize,
    position: u64,
    /// Items that were changed or removed before the walk reached them.
    saved: Vec<(DatabaseIndex, RawItem)>,
    /// Nobody wants the items any more; only the marks are still to be set.
    aborted: bool,
}

impl Cut {
    fn new() -> Cut {
        Cut {
            sources: std::array::from_fn(Source::Live),
            database: 0,
            slot: 0,
            position: 0,
            saved: Vec::new(),
            aborted: false,
        }
    }

    /// Takes over the tables of a database that is cleared, unless their items are all handed out.
    pub(super) fn detach(&mut self, database: usize, row: Row) -> Option<Row> {
        let live = |source: &&mut Source| matches!(source, Source::Live(at) if *at == database);
        match self.sources.iter_mut().find(live) {
            Some(source) => {
                *source = Source::Detached(row);
                None
            }
            None => Some(row),
        }
    }

    pub(super) fn swap(&mut self, one: usize, other: usize) {
        for source in &mut self.sources {
            if let Source::Live(at) = source {
                if *at == one {
                    *at = other;
                } else if *at == other {
                    *at = one;
                }
            }
        }
    }

    /// Takes over an unmarked item that left its table. False when it need not be kept.
    pub(super) fn save(&mut self, database: DatabaseIndex, item: RawItem) -> bool {
        if self.aborted {
            return false;
        }
        let number = self
            .sources
            .iter()
            .position(|source| matches!(source, Source::Live(at) if *at == database.0 as usize))
            .expect("a database with unmarked items is not handed out yet");
        self.saved.push((DatabaseIndex(number as u8), item));
        true
    }

    fn free_saved(&mut self, memory: &mut Memory) {
        for (_, item) in self.saved.drain(..) {
            lend::free_item(item, memory);
        }
    }

    /// Gives up what it holds: items at once, tables to the rubble.
    pub(super) fn dismantle(mut self, rubble: &mut Rubble, memory: &mut Memory) {
        self.free_saved(memory);
        for source in self.sources {
            if let Source::Detached(row) = source {
                rubble.push_row(row);
            }
        }
    }
}

impl Keyspace {
    /// Begins a cut: the items of this moment will be handed out by [`Keyspace::cut_step`]. False when one
    /// is on already, or the last one was aborted and [`Keyspace::free_some`] is not through with it.
    #[must_use]
    pub fn begin_cut(&mut self) -> bool {
        if self.cut.is_some() {
            return false;
        }
        self.mark = !self.mark;
        self.cut = Some(Box::new(Cut::new()));
        true
    }

    /// Is a cut on (an aborted one that is not through included)?
    pub fn cut_is_on(&self) -> bool {
        self.cut.is_some()
    }

    /// Hands out the next items of the cut: of those that edits have displaced so far as many as
    /// `bucket_budget` buckets hold, and those of about `bucket_budget` buckets. Each item of the moment
    /// when the cut began comes once, with the number that its database had then. Returns whether that
    /// was the last. What edits displace between two steps is kept in memory: at worst, if no step
    /// ever comes, all that was there when the cut began.
    pub fn cut_step(
        &mut self,
        bucket_budget: usize,
        out: &mut dyn FnMut(DatabaseIndex, Item<'_>),
    ) -> bool {
        self.cut_displaced(bucket_budget.max(1) * BUCKET_WIDTH, out);
        let Some(mut cut) = self.cut.take_if(|cut| !cut.aborted) else { return true };
        let finished = self.walk_cut(&mut cut, bucket_budget, out) && cut.saved.is_empty();
        if !finished {
            self.cut = Some(cut);
        }
        finished
    }

    /// Hands out up to `item_budget` of the items that edits have displaced, which until then take memory twice.
    /// Cost: a copy and a free each, of what was just in use.
    pub fn cut_displaced(
        &mut self,
        item_budget: usize,
        out: &mut dyn FnMut(DatabaseIndex, Item<'_>),
    ) {
        let Some(cut) = &mut self.cut else { return };
        let kept = cut.saved.len().saturating_sub(item_budget);
        for (database, item) in cut.saved.drain(kept..) {
            out(database, lend::borrow_item(item));
            lend::free_item(item, &mut self.memory);
        }
    }

    /// Are there items that edits have displaced and nobody was handed?
    pub fn has_displaced(&self) -> bool {
        self.cut.as_ref().is_some_and(|cut| !cut.saved.is_empty())
    }

    /// Gives up the cut. [`Keyspace::free_some`] clears up after it; until then no other can begin.
    pub fn abort_cut(&mut self) {
        if let Some(cut) = &mut self.cut {
            cut.aborted = true;
            cut.free_saved(&mut self.memory);
        }
    }

    /// Sets marks after an aborted cut. Is there more to do?
    pub(super) fn walk_aborted_cut(&mut self, bucket_budget: usize) -> bool {
        let Some(mut cut) = self.cut.take_if(|cut| cut.aborted) else { return false };
        let finished = self.walk_cut(&mut cut, bucket_budget, &mut |_, _| {});
        if !finished {
            self.cut = Some(cut);
        }
        !finished
    }

    fn walk_cut(
        &mut self,
        cut: &mut Cut,
        bucket_budget: usize,
        out: &mut dyn FnMut(DatabaseIndex, Item<'_>),
    ) -> bool {
        let mut left = bucket_budget;
        while let Some(source) = cut.sources.get_mut(cut.database) {
            let row = match source {
                Source::Live(at) => self.databases[*at].row.as_ref(),
                Source::Detached(row) => Some(&*row),
                Source::Done => None,
            };
            let slot = cut.slot;
            let table = row.and_then(|row| row.get(slot));
            let Some(table) = table else {
                if let Source::Detached(row) = std::mem::replace(source, Source::Done) {
                    self.rubble.push_row(row);
                }
                (cut.database, cut.slot, cut.position) = (cut.database + 1, 0, 0);
                continue;
            };
            let Some((chain, next)) = table.chain_at(cut.position) else {
                (cut.slot, cut.position) = (slot + 1, 0);
                continue;
            };
            if left == 0 {
                return false;
            }
            left -= 1;
            table.prefetch_items_at(next);
            for entry in chain.entries() {
                let item = entry.item();
                if item.mark() != self.mark {
                    item.set_mark(self.mark);
                    out(DatabaseIndex(cut.database as u8), lend::borrow_item(item));
                }
            }
            cut.position = next;
            if next == POSITION_END {
                (cut.slot, cut.position) = (slot + 1, 0);
            }
        }
        debug_assert!(cut.slot < SLOT_COUNT);
        true
    }
}
