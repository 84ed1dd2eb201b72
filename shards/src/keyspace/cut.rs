//! A point-in-time cut: every item as it was when the cut began, while writing goes on. No fork, no
//! copy.
//!
//! Each item has a mark bit. While no cut is on, all bits are equal; beginning a cut flips what the
//! bit means, so that all items are unmarked without touching one. The cut walks the tables in
//! order, hands out unmarked items and marks them; items made meanwhile are born marked. An edit
//! that is about to change or remove an unmarked item leaves the old allocation to the cut, which
//! hands it out in its next step. A cleared database is walked in its detached tables; exchanged
//! databases keep the numbers they had.
//!
//! A large item is handed out in pieces: whoever takes one says where the next begins. Between two
//! of them it stays unmarked, so that an edit leaves this state of it, too, to the cut.

use super::Keyspace;
use super::bucket::BUCKET_WIDTH;
use super::database::Row;
use super::item::{Item, RawItem};
use super::lazy_free::LazyFree;
use super::lend;
use super::memory::Memory;
use super::table::POSITION_END;
use crate::ids::DatabaseIndex;
use crate::limits::{CUT_PIECE_BUCKETS, DATABASE_COUNT};
use crate::slot::SLOT_COUNT;

/// Takes an item of a cut from a place in its value on, 0 at first. Returns the place to go on at,
/// when the item was not taken to its end.
pub type TakeItem<'t> = dyn FnMut(DatabaseIndex, Item<'_>, u64) -> Option<u64> + 't;

/// Where the items are that a database had when the cut began.
enum Source {
    /// In the database that has this number now.
    Live(usize),
    /// It was cleared since.
    Detached(Row),
    /// All handed out.
    Done,
}

/// An item, and how far it was handed out.
struct Partial {
    database: DatabaseIndex,
    item: RawItem,
    from: u64,
}

/// State of a cut that is on.
pub(super) struct Cut {
    /// By the numbers that the databases had when it began.
    sources: [Source; DATABASE_COUNT],
    database: usize,
    slot: usize,
    position: u64,
    /// The item that the walk is in, if it was not handed out to its end.
    open: Option<Partial>,
    /// Does the cut own that one, as an edit has put another in its place?
    open_is_saved: bool,
    /// Items that were changed or removed before the walk reached them.
    saved: Vec<Partial>,
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
            open: None,
            open_is_saved: false,
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
        if self.open.as_ref().is_some_and(|open| open.item == item) {
            self.open_is_saved = true;
            return true;
        }
        let number = self
            .sources
            .iter()
            .position(|source| matches!(source, Source::Live(at) if *at == database.0 as usize))
            .expect("a database with unmarked items is not handed out yet");
        self.saved.push(Partial { database: DatabaseIndex(number as u8), item, from: 0 });
        true
    }

    /// An item that is in a table lies elsewhere now.
    pub(super) fn moved(&mut self, item: RawItem, to: RawItem) {
        if let Some(open) = self.open.as_mut().filter(|open| open.item == item) {
            open.item = to;
        }
    }

    fn free_saved(&mut self, lazy_free: &mut LazyFree, memory: &mut Memory) {
        let open = self.open.take().filter(|_| std::mem::take(&mut self.open_is_saved));
        for partial in self.saved.drain(..).chain(open) {
            lazy_free.free_item(partial.item, memory);
        }
    }

    /// Gives up what it holds: items at once, tables to the lazy_free.
    pub(super) fn dismantle(mut self, lazy_free: &mut LazyFree, memory: &mut Memory) {
        self.free_saved(lazy_free, memory);
        for source in self.sources {
            if let Source::Detached(row) = source {
                lazy_free.push_row(row);
            }
        }
    }
}

impl Keyspace {
    /// Begins a cut: the items of this moment will be handed out by [`Keyspace::cut_step`]. False
    /// when one is on already, or the last one was aborted and [`Keyspace::free_some`] is not
    /// through with it.
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
    /// `bucket_budget` buckets hold, and those of about `bucket_budget` buckets. Each item of the
    /// moment when the cut began comes once, with the number that its database had then.
    /// Returns whether that was the last. What edits displace between two steps is kept in
    /// memory: at worst, if no step ever comes, all that was there when the cut began.
    pub fn cut_step(&mut self, bucket_budget: usize, out: &mut TakeItem<'_>) -> bool {
        self.cut_displaced(bucket_budget.max(1) * BUCKET_WIDTH, out);
        let Some(mut cut) = self.cut.take_if(|cut| !cut.aborted) else { return true };
        let finished = self.walk_cut(&mut cut, bucket_budget, out) && cut.saved.is_empty();
        if !finished {
            self.cut = Some(cut);
        }
        finished
    }

    /// Hands out up to `item_budget` of the items that edits have displaced, which until then take
    /// memory twice. Cost: a copy and a free each, of what was just in use.
    pub fn cut_displaced(&mut self, item_budget: usize, out: &mut TakeItem<'_>) {
        let Some(cut) = &mut self.cut else { return };
        let mut left = item_budget;
        while left > 0
            && let Some(last) = cut.saved.last_mut()
        {
            match out(last.database, lend::borrow_item(last.item), last.from) {
                Some(next) => {
                    last.from = next;
                    left = left.saturating_sub(CUT_PIECE_BUCKETS * BUCKET_WIDTH);
                }
                None => {
                    self.lazy_free.free_item(last.item, &mut self.memory);
                    cut.saved.pop();
                    left -= 1;
                }
            }
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
            cut.free_saved(&mut self.lazy_free, &mut self.memory);
        }
    }

    /// Sets marks after an aborted cut. Is there more to do?
    pub(super) fn walk_aborted_cut(&mut self, bucket_budget: usize) -> bool {
        let Some(mut cut) = self.cut.take_if(|cut| cut.aborted) else { return false };
        let finished = self.walk_cut(&mut cut, bucket_budget, &mut |_, _, _| None);
        if !finished {
            self.cut = Some(cut);
        }
        !finished
    }

    /// Hands out more of the item that the walk is in. Is none open any more?
    fn go_on_with_open(&mut self, cut: &mut Cut, left: &mut usize, out: &mut TakeItem<'_>) -> bool {
        while let Some(open) = &mut cut.open {
            if *left == 0 {
                return false;
            }
            *left = left.saturating_sub(CUT_PIECE_BUCKETS);
            match out(open.database, lend::borrow_item(open.item), open.from) {
                Some(next) => open.from = next,
                None => {
                    if std::mem::take(&mut cut.open_is_saved) {
                        self.lazy_free.free_item(open.item, &mut self.memory);
                    } else {
                        open.item.set_mark(self.mark);
                    }
                    cut.open = None;
                }
            }
        }
        true
    }

    fn walk_cut(&mut self, cut: &mut Cut, bucket_budget: usize, out: &mut TakeItem<'_>) -> bool {
        let mut left = bucket_budget;
        if !self.go_on_with_open(cut, &mut left, out) {
            return false;
        }
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
                    self.lazy_free.push_row(row);
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
            for entry in chain.entries().filter(|entry| entry.item().mark() != self.mark) {
                let (database, item) = (DatabaseIndex(cut.database as u8), entry.item());
                match out(database, lend::borrow_item(item), 0) {
                    None => item.set_mark(self.mark),
                    Some(from) => {
                        cut.open = Some(Partial { database, item, from });
                        break;
                    }
                }
            }
            if cut.open.is_some() {
                // The chain is come back to: what was handed out of it is marked.
                left = left.saturating_sub(CUT_PIECE_BUCKETS);
                if !self.go_on_with_open(cut, &mut left, out) {
                    return false;
                }
                continue;
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
