//! What was cleared and is not freed yet.
//!
//! Clearing a database detaches its tables at once and frees them bit by bit, so that a turn stays short
//! whatever the database held.

use super::database::{ROW_SIZE, Row};
use super::lend;
use super::memory::Memory;
use super::ordered::Order;
use super::table::POSITION_END;
use crate::slot::SLOT_COUNT;
use std::collections::VecDeque;

/// Detached tables and indexes.
#[derive(Default)]
pub(super) struct Rubble {
    rows: VecDeque<Row>,
    /// Where to go on in the first row.
    slot: usize,
    position: u64,
    orders: VecDeque<Order>,
}

impl Rubble {
    pub(super) fn push_row(&mut self, row: Row) {
        self.rows.push_back(row);
    }

    pub(super) fn push_order(&mut self, order: Order) {
        self.orders.push_back(order);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.orders.is_empty()
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
            && let Some(row) = self.rows.front_mut()
        {
            let table = &mut row[self.slot];
            if table.count() > 0 {
                left -= 1;
                self.position = table.drain_at(self.position, memory, lend::free_item);
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
}
