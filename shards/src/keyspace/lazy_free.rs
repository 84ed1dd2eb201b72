//! What was cleared and is not freed yet.
//!
//! Clearing a database detaches its tables at once and frees them bit by bit, so that a turn stays
//! short whatever the database held. So does removing or replacing a large value: its item comes
//! here, and its leaves are freed some at a time.

use super::database::{ROW_SIZE, Row};
use super::item::RawItem;
use super::lend;
use super::memory::Memory;
use super::ordered::Order;
use super::table::POSITION_END;
use crate::slot::SLOT_COUNT;
use crate::value::body::Body;
use std::collections::VecDeque;

/// Leaves of a large value whose freeing counts as much as that of a bucket.
const LEAVES_PER_BUCKET: usize = 4;

/// Detached tables and indexes.
#[derive(Default)]
pub(super) struct LazyFree {
    rows: VecDeque<Row>,
    /// Where to go on in the first row.
    slot: usize,
    position: u64,
    orders: VecDeque<Order>,
    /// Items whose values have trees.
    items: VecDeque<RawItem>,
    /// Trees that were cut off values which stay.
    bodies: VecDeque<Body>,
    /// Bytes of those items and trees that are still on the account.
    item_bytes: usize,
}

impl LazyFree {
    pub(super) fn push_row(&mut self, row: Row) {
        self.rows.push_back(row);
    }

    pub(super) fn push_order(&mut self, order: Order) {
        self.orders.push_back(order);
    }

    /// Frees an item that nobody uses any more: at once when that is one allocation, else bit by
    /// bit.
    #[inline(always)]
    pub(super) fn free_item(&mut self, item: RawItem, memory: &mut Memory) {
        if item.has_body() {
            self.push_item(item);
        } else {
            lend::free_item(item, memory);
        }
    }

    #[cold]
    fn push_item(&mut self, item: RawItem) {
        self.item_bytes += lend::borrow_item(item).size();
        self.items.push_back(item);
    }

    /// Frees trees that nobody uses any more bit by bit. They are on no account yet.
    pub(super) fn push_body(&mut self, body: Body, memory: &mut Memory) {
        memory.add(body.bytes());
        self.item_bytes += body.bytes();
        self.bodies.push_back(body);
    }

    /// Bytes of values that are being freed.
    pub(super) fn item_bytes(&self) -> usize {
        self.item_bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
            && self.orders.is_empty()
            && self.items.is_empty()
            && self.bodies.is_empty()
    }

    /// Frees about so many buckets. Is there more?
    pub(super) fn free_some(&mut self, budget: usize, memory: &mut Memory) -> bool {
        let mut left = budget;
        while left > 0
            && let Some(order) = self.orders.front_mut()
        {
            left -= 1;
            if !order.shed(memory) {
                self.orders.pop_front();
            }
        }
        while left > 0
            && let Some(item) = self.items.front().copied()
        {
            left -= 1;
            let body = lend::borrow_body_mut(item);
            let before = body.bytes();
            let more = body.shed(LEAVES_PER_BUCKET);
            let freed = before - body.bytes();
            memory.subtract(freed);
            self.item_bytes -= freed;
            if !more {
                let body = lend::take_body(item);
                self.item_bytes -= lend::borrow_item(item).own_size() + body.bytes();
                memory.subtract_large(body.bytes());
                drop(body);
                lend::free_item(item, memory);
                self.items.pop_front();
            }
        }
        left = self.free_bodies(left, memory);
        while left > 0
            && let Some(row) = self.rows.front_mut()
        {
            let table = &mut row[self.slot];
            if table.count() > 0 {
                left -= 1;
                let items = &mut self.items;
                let item_bytes = &mut self.item_bytes;
                let free = |item: RawItem, memory: &mut Memory| {
                    if item.has_body() {
                        *item_bytes += lend::borrow_item(item).size();
                        items.push_back(item);
                    } else {
                        lend::free_item(item, memory);
                    }
                };
                self.position = table.drain_at(self.position, memory, free);
                table.prefetch_items_at(self.position);
            } else {
                self.position = POSITION_END;
            }
            if self.position == POSITION_END {
                table.free_arrays(memory);
                self.position = 0;
                self.slot += 1;
                if self.slot == SLOT_COUNT {
                    self.slot = 0;
                    self.rows.pop_front();
                    memory.subtract(ROW_SIZE);
                }
            }
        }
        !self.is_empty()
    }

    /// Returns what is left of the budget.
    fn free_bodies(&mut self, mut left: usize, memory: &mut Memory) -> usize {
        while left > 0
            && let Some(body) = self.bodies.front_mut()
        {
            left -= 1;
            let before = body.bytes();
            let more = body.shed(LEAVES_PER_BUCKET);
            let freed = before - if more { body.bytes() } else { 0 };
            memory.subtract(freed);
            self.item_bytes -= freed;
            if !more {
                self.bodies.pop_front();
            }
        }
        left
    }
}
