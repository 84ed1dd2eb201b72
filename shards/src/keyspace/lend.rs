//! Where pointers to items become borrows.
//!
//! Safe functions over unsafe ones: what makes them sound is not in their arguments but in how this
//! module is built. Items are freed only by edits, cuts and the lazy free, all of which hold the
//! keyspace exclusively; views hold it shared for as long as what they lend out.
#![allow(unsafe_code)] // See above; kept in one place so that it can be read in one go.

use super::bucket::Entry;
use super::item::{Item, RawItem};
use super::memory::Memory;
use crate::value::body::Body;
use std::ptr::NonNull;

/// The item of a place that a lookup gave.
#[inline(always)]
pub(super) fn item_at(place: NonNull<Entry>) -> RawItem {
    // SAFETY: places come from lookups and are used before the next change of their table.
    unsafe { place.read() }.item()
}

/// Lends out an item that is in a table or kept by a cut.
#[inline(always)]
pub(super) fn borrow_item<'a>(item: RawItem) -> Item<'a> {
    // SAFETY: views borrow the keyspace for `'a`, which keeps tables and items as they are; edits
    // and cuts use the item before they change or free it.
    unsafe { item.borrow() }
}

/// Lends out the value of an item for writing.
#[inline(always)]
pub(super) fn borrow_value_mut<'a>(item: RawItem) -> &'a mut [u8] {
    // SAFETY: called by edits alone, whose exclusive borrow of the keyspace the result inherits.
    unsafe { item.value_mut() }
}

/// Lends out the trees of a large collection for writing.
#[inline(always)]
pub(super) fn borrow_body_mut<'a>(item: RawItem) -> &'a mut Body {
    // SAFETY: called by guards and the lazy free alone, who hold the keyspace exclusively; the
    // result inherits that borrow.
    unsafe { item.body().as_mut() }
}

/// Takes the trees of a large collection out of an item that is about to be freed or to have
/// another form.
pub(super) fn take_body(item: RawItem) -> Box<Body> {
    // SAFETY: the callers give the item another value, or free it, and nothing else looks at it
    // before.
    unsafe { item.take_body() }
}

/// Frees an item that is in no table any more.
#[inline(always)]
pub(super) fn free_item(item: RawItem, memory: &mut Memory) {
    // SAFETY: the callers took it out of its table, of the lazy free or of the cut, and forget it;
    // all of them belong to one keyspace, as does the memory.
    unsafe { item.free(memory) }
}
