//! One item: key, value and deadline in one allocation.
//!
//! ```text
//! header  u64   bits 0-1 form, 2 has a deadline, 3 cut mark, 4-7 type (0: string),
//!               8-31 access clock, 32-47 key length, 48-63 value length
//! deadline i64  when bit 2 is set
//! key length u32, value length u32: each only when its 16 bits in the header are all ones
//! key bytes, value bytes: a string, a small collection, or a pointer to the trees of a large one
//! ```
//!
//! The allocation's size follows from the lengths and the form ([`item_size`]), so its capacity is
//! known without being stored. The header changes under shared references (access clock, cut mark),
//! therefore no reference to it is ever made: it is read and written through the pointer, by one
//! thread.
#![allow(unsafe_code)] // An item has no fixed shape: its fields are found by offset in one allocation.

use super::memory::{Memory, item_size};
use super::shape::Shape;
use super::{StringForm, Value};
use crate::ids::Deadline;
use crate::value::Form;
use crate::value::body::{Body, Stored};
use std::marker::PhantomData;
use std::ptr::NonNull;

const HEADER_SIZE: usize = 8;
const FORM_MASK: u64 = 0b11;
const DEADLINE_BIT: u64 = 1 << 2;
const MARK_BIT: u64 = 1 << 3;
const TYPE_SHIFT: u32 = 4;
const TYPE_MASK: u64 = 0b1111 << TYPE_SHIFT;
const ACCESS_SHIFT: u32 = 8;
const ACCESS_MASK: u64 = 0xff_ffff << ACCESS_SHIFT;
const KEY_SHIFT: u32 = 32;
const VALUE_SHIFT: u32 = 48;
/// A length field of this value means that the length follows in 32 bits.
const LONG: usize = 0xffff;
/// Bytes of the value of an item whose trees lie elsewhere.
pub(super) const BODY_POINTER_BYTES: usize = size_of::<*mut Body>();
/// What an item costs in the table beside its allocation.
const PLACE_SIZE: usize = 8;

/// All of an item but its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) shape: Shape,
    pub(super) deadline: Option<Deadline>,
    pub(super) mark: bool,
    pub(super) access: u32,
    pub(super) key_length: usize,
    pub(super) value_length: usize,
}

impl Frame {
    /// Bytes of an item of this frame, before rounding.
    #[inline(always)]
    fn size(&self) -> usize {
        self.key_start() + self.key_length + self.value_length
    }

    /// Bytes that an item of this frame takes.
    #[inline(always)]
    pub(super) fn allocation_size(&self) -> usize {
        item_size(self.size(), self.shape == Shape::String(StringForm::Raw))
    }

    #[inline(always)]
    fn key_start(&self) -> usize {
        key_start(self.deadline.is_some(), self.key_length, self.value_length)
    }
}

#[inline(always)]
fn key_start(has_deadline: bool, key_length: usize, value_length: usize) -> usize {
    HEADER_SIZE
        + if has_deadline { 8 } else { 0 }
        + if key_length >= LONG { 4 } else { 0 }
        + if value_length >= LONG { 4 } else { 0 }
}

/// Pointer to an item's allocation. Whoever holds one knows that the item is alive: it is in a
/// table, in lazy free or saved for a cut. Aligned to 8.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct RawItem(NonNull<u8>);

// SAFETY: an item belongs to one keyspace, which is used by one thread at a time.
unsafe impl Send for RawItem {}

impl RawItem {
    /// The item at `pointer`.
    ///
    /// # Safety
    /// `pointer` came from [`RawItem::pointer`] of an item that lives as long as the result is
    /// used.
    #[inline(always)]
    pub(super) unsafe fn from_pointer(pointer: NonNull<u8>) -> RawItem {
        RawItem(pointer)
    }

    /// The allocation.
    #[inline(always)]
    pub(super) fn pointer(self) -> NonNull<u8> {
        self.0
    }

    /// A new item. Cost: one allocation and one copy.
    pub(super) fn new(memory: &mut Memory, frame: &Frame, key: &[u8], value: &[u8]) -> RawItem {
        let item = RawItem(memory.allocate_item(frame.allocation_size()));
        item.write(frame, key);
        item.write_value(frame, 0, value);
        item
    }

    /// A new item whose value is `start` and then zeros, up to the frame's length.
    pub(super) fn new_filled(
        memory: &mut Memory,
        frame: &Frame,
        key: &[u8],
        start: &[u8],
    ) -> RawItem {
        let item = RawItem(memory.allocate_item(frame.allocation_size()));
        item.write(frame, key);
        item.write_value(frame, 0, start);
        item.write_zeros(frame, start.len());
        item
    }

    /// Gives the memory back.
    ///
    /// # Safety
    /// The item was made with this memory, and nobody uses it afterwards.
    #[inline]
    pub(super) unsafe fn free(self, memory: &mut Memory) {
        // SAFETY: allocated with the size that follows from its frame, and every change in place
        // keeps that size (`rewrite`, `resize`).
        unsafe { memory.free_item(self.0, self.allocation_size()) }
    }

    /// The same item in other memory. The caller puts it where this one was, and frees this one.
    pub(super) fn copy(self, memory: &mut Memory) -> RawItem {
        let size = self.allocation_size();
        let copy = memory.allocate_item(size);
        // SAFETY: both have this size, and nothing else uses the new one.
        unsafe { copy.copy_from_nonoverlapping(self.0, size) };
        RawItem(copy)
    }

    /// A copy of it under another frame and key, with trees of its own.
    pub(super) fn copied(self, memory: &mut Memory, frame: &Frame, key: &[u8]) -> RawItem {
        // SAFETY: the caller's item is alive, and the borrow ends here.
        let value = unsafe { self.borrow() }.bytes();
        let copy = RawItem::new(memory, frame, key, value);
        copy.copy_body(memory);
        copy
    }

    /// Gives it a body of its own, where it has that of the item that it was copied from. Cost: a
    /// copy of all of it.
    fn copy_body(self, memory: &mut Memory) {
        if self.has_body() {
            // SAFETY: the item that this was copied from is alive, and nobody changes its body now.
            let body = Box::new(unsafe { self.body().as_ref() }.clone());
            memory.add_large(body.bytes());
            self.set_body(body);
        }
    }

    /// The trees of a large collection.
    pub(super) fn body(self) -> NonNull<Body> {
        debug_assert!(self.has_body());
        let frame = self.frame();
        // SAFETY: the value of such an item is a pointer to its body, written by `set_body`.
        unsafe {
            let place = self.0.as_ptr().add(frame.key_start() + frame.key_length);
            NonNull::new_unchecked(place.cast::<*mut Body>().read_unaligned())
        }
    }

    /// Makes these its trees. It has the form of a tree, and room for a pointer; the body that it
    /// had is another's now.
    pub(super) fn set_body(self, body: Box<Body>) {
        let frame = self.frame();
        assert!(self.has_body() && frame.value_length == BODY_POINTER_BYTES);
        // SAFETY: within the value of this allocation, as asserted.
        unsafe {
            let place = self.0.as_ptr().add(frame.key_start() + frame.key_length);
            place.cast::<*mut Body>().write_unaligned(Box::into_raw(body));
        }
    }

    /// Takes its trees.
    ///
    /// # Safety
    /// Nobody uses them through this item afterwards.
    pub(super) unsafe fn take_body(self) -> Box<Body> {
        // SAFETY: made by `set_body` of a box, and taken once, by the caller's word.
        unsafe { Box::from_raw(self.body().as_ptr()) }
    }

    /// Gives it another key of the same length in place; false, and nothing done, when it has
    /// another length.
    pub(super) fn rekey(self, frame: &Frame, key: &[u8]) -> bool {
        let old = self.frame();
        let fits = old.key_length == frame.key_length && old.key_start() == frame.key_start();
        if fits {
            debug_assert_eq!(old.value_length, frame.value_length);
            self.write(frame, key);
        }
        fits
    }

    /// Makes it another item of the same key in the same memory. The frame's allocation size must
    /// be this one's.
    #[inline(always)]
    pub(super) fn rewrite(self, frame: &Frame, key: &[u8], value: &[u8]) {
        let old = self.frame();
        debug_assert_eq!(old.allocation_size(), frame.allocation_size());
        if old.key_start() == frame.key_start() {
            self.write_head(frame);
        } else {
            self.write(frame, key);
        }
        self.write_value(frame, 0, value);
    }

    /// Changes the length of the value in place, filling with zeros. The frame has the same
    /// allocation size, the same deadline and the same kind of lengths; false, and nothing
    /// done, when it has not.
    pub(super) fn resize(self, frame: &Frame) -> bool {
        let old = self.frame();
        if frame.allocation_size() != old.allocation_size() || frame.key_start() != old.key_start()
        {
            return false;
        }
        self.write_head(frame);
        self.write_zeros(frame, old.value_length);
        true
    }

    /// Writes all but the value.
    #[inline(always)]
    fn write(self, frame: &Frame, key: &[u8]) {
        debug_assert_eq!(key.len(), frame.key_length);
        self.write_head(frame);
        let start = frame.key_start();
        // SAFETY: the allocation holds `frame.size()` bytes, of which the key is a part; `key` is
        // the caller's memory, never this item's.
        unsafe {
            std::ptr::copy_nonoverlapping(key.as_ptr(), self.0.as_ptr().add(start), key.len());
        }
    }

    #[inline(always)]
    fn write_head(self, frame: &Frame) {
        let (value_type, form) = frame.shape.bits();
        let mut header = form
            | value_type << TYPE_SHIFT
            | (u64::from(frame.access) << ACCESS_SHIFT) & ACCESS_MASK
            | (frame.key_length.min(LONG) as u64) << KEY_SHIFT
            | (frame.value_length.min(LONG) as u64) << VALUE_SHIFT;
        if frame.mark {
            header |= MARK_BIT;
        }
        let mut at = HEADER_SIZE;
        // SAFETY: all offsets lie before `key_start`, inside the allocation; it is aligned to 8,
        // the deadline is at 8, and the lengths that follow are at multiples of 4.
        unsafe {
            let base = self.0.as_ptr();
            if let Some(deadline) = frame.deadline {
                header |= DEADLINE_BIT;
                base.add(at).cast::<i64>().write(deadline.0);
                at += 8;
            }
            for length in [frame.key_length, frame.value_length] {
                if length >= LONG {
                    let length = u32::try_from(length).expect("strings are at most 1 GiB");
                    base.add(at).cast::<u32>().write(length);
                    at += 4;
                }
            }
        }
        debug_assert_eq!(at, frame.key_start());
        self.set_header(header);
    }

    #[inline(always)]
    fn write_value(self, frame: &Frame, from: usize, value: &[u8]) {
        assert!(from + value.len() <= frame.value_length);
        // SAFETY: within the value of this allocation, as asserted; `value` is the caller's memory
        // or another item's.
        unsafe {
            let to = self.0.as_ptr().add(frame.key_start() + frame.key_length + from);
            std::ptr::copy_nonoverlapping(value.as_ptr(), to, value.len());
        }
    }

    fn write_zeros(self, frame: &Frame, from: usize) {
        if from < frame.value_length {
            // SAFETY: within the value of this allocation.
            unsafe {
                let to = self.0.as_ptr().add(frame.key_start() + frame.key_length + from);
                std::ptr::write_bytes(to, 0, frame.value_length - from);
            }
        }
    }

    #[inline(always)]
    fn header(self) -> u64 {
        // SAFETY: alive, 8 bytes at least, aligned to 8; all writes are by this thread.
        unsafe { self.0.as_ptr().cast::<u64>().read() }
    }

    #[inline(always)]
    fn set_header(self, header: u64) {
        // SAFETY: as for reading; no reference covers the header.
        unsafe { self.0.as_ptr().cast::<u64>().write(header) }
    }

    /// Reads back what it was written with.
    #[inline(always)]
    pub(super) fn frame(self) -> Frame {
        let header = self.header();
        let mut key_length = (header >> KEY_SHIFT) as usize & LONG;
        let mut value_length = (header >> VALUE_SHIFT) as usize;
        if key_length == LONG || value_length == LONG {
            let mut at = if header & DEADLINE_BIT != 0 { HEADER_SIZE + 8 } else { HEADER_SIZE };
            // SAFETY: a length field of all ones says that the 32-bit length is there.
            unsafe {
                if key_length == LONG {
                    key_length = self.0.as_ptr().add(at).cast::<u32>().read() as usize;
                    at += 4;
                }
                if value_length == LONG {
                    value_length = self.0.as_ptr().add(at).cast::<u32>().read() as usize;
                }
            }
        }
        Frame {
            shape: shape_of(header),
            deadline: self.deadline(),
            mark: header & MARK_BIT != 0,
            access: ((header & ACCESS_MASK) >> ACCESS_SHIFT) as u32,
            key_length,
            value_length,
        }
    }

    /// Type and form of its value.
    #[inline(always)]
    pub(super) fn shape(self) -> Shape {
        shape_of(self.header())
    }

    /// Is its value a string? Cost: a mask and a comparison of what a lookup has in its hands.
    #[inline(always)]
    pub(super) fn is_string(self) -> bool {
        self.header() & TYPE_MASK == 0
    }

    /// Has its value trees beside the item?
    #[inline(always)]
    pub(super) fn has_body(self) -> bool {
        const TREE: u64 = Form::Tree as u64;
        let header = self.header();
        header & TYPE_MASK != 0 && header & FORM_MASK == TREE
    }

    /// Is this its key? Cost: the item's cache miss; no call for keys of 8 to 64 bytes.
    #[inline(always)]
    pub(super) fn has_key(self, key: &[u8]) -> bool {
        let short_length = (self.header() >> KEY_SHIFT) as usize & LONG;
        // SAFETY: the item is alive, and the borrow ends here.
        short_length == key.len().min(LONG) && same_bytes(unsafe { self.borrow() }.key(), key)
    }

    /// Bytes that it takes.
    #[inline(always)]
    pub(super) fn allocation_size(self) -> usize {
        self.frame().allocation_size()
    }

    #[inline(always)]
    pub(super) fn has_deadline(self) -> bool {
        self.header() & DEADLINE_BIT != 0
    }

    #[inline(always)]
    pub(super) fn deadline(self) -> Option<Deadline> {
        if self.has_deadline() {
            // SAFETY: the bit says that it is there, at offset 8 of an allocation aligned to 8.
            Some(Deadline(unsafe { self.0.as_ptr().add(HEADER_SIZE).cast::<i64>().read() }))
        } else {
            None
        }
    }

    /// Moves the deadline of an item that has one.
    pub(super) fn set_deadline(self, deadline: Deadline) {
        assert!(self.has_deadline());
        // SAFETY: there is room for it, as asserted; no reference covers it.
        unsafe { self.0.as_ptr().add(HEADER_SIZE).cast::<i64>().write(deadline.0) }
    }

    /// Is it past its deadline? Redis' rule: at the deadline itself it still exists.
    #[inline(always)]
    pub(super) fn expired(self, now_ms: i64) -> bool {
        match self.deadline() {
            Some(deadline) => now_ms > deadline.0,
            None => false,
        }
    }

    #[inline(always)]
    pub(super) fn mark(self) -> bool {
        self.header() & MARK_BIT != 0
    }

    pub(super) fn set_mark(self, mark: bool) {
        let header = self.header() & !MARK_BIT;
        self.set_header(if mark { header | MARK_BIT } else { header });
    }

    /// The 24 bits of the access clock.
    #[inline(always)]
    pub(super) fn access(self) -> u32 {
        ((self.header() & ACCESS_MASK) >> ACCESS_SHIFT) as u32
    }

    /// Sets the access clock; the line is dirtied only by a change.
    #[inline(always)]
    pub(super) fn set_access(self, access: u32) {
        let header = self.header();
        let changed = header & !ACCESS_MASK | (u64::from(access) << ACCESS_SHIFT) & ACCESS_MASK;
        if changed != header {
            self.set_header(changed);
        }
    }

    /// The item as a reader sees it.
    ///
    /// # Safety
    /// The item lives for `'a`, and its key, value and deadline do not change meanwhile.
    #[inline(always)]
    pub(super) unsafe fn borrow<'a>(self) -> Item<'a> {
        Item { raw: self, alive: PhantomData }
    }

    /// The value, for writing.
    ///
    /// # Safety
    /// The item lives for `'a`, and nobody else looks at its value meanwhile.
    pub(super) unsafe fn value_mut<'a>(self) -> &'a mut [u8] {
        let frame = self.frame();
        // SAFETY: these are the bytes of the value, written when the item was made.
        unsafe {
            let start = self.0.as_ptr().add(frame.key_start() + frame.key_length);
            std::slice::from_raw_parts_mut(start, frame.value_length)
        }
    }
}

#[inline(always)]
fn shape_of(header: u64) -> Shape {
    Shape::from_bits((header & TYPE_MASK) >> TYPE_SHIFT, header & FORM_MASK)
}

/// Equality for short strings without a call: by words, the last of which may overlap the one
/// before.
#[inline(always)]
fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() || a.len() < 8 || a.len() > 64 {
        return a == b;
    }
    let words = |bytes: &'_ [u8], i: usize| bytes.as_chunks::<8>().0[i];
    (0..a.len() / 8).all(|i| words(a, i) == words(b, i))
        && a.last_chunk::<8>() == b.last_chunk::<8>()
}

/// One item, borrowed.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    raw: RawItem,
    alive: PhantomData<&'a [u8]>,
}

impl<'a> Item<'a> {
    /// The key.
    #[inline(always)]
    pub fn key(&self) -> &'a [u8] {
        let frame = self.raw.frame();
        // SAFETY: these are the bytes of the key, alive and unchanged for `'a`.
        unsafe {
            let start = self.raw.0.as_ptr().add(frame.key_start());
            std::slice::from_raw_parts(start, frame.key_length)
        }
    }

    /// What of the value is in the item itself.
    #[inline(always)]
    pub(super) fn bytes(&self) -> &'a [u8] {
        let frame = self.raw.frame();
        // SAFETY: these are the bytes of the value, alive and unchanged for `'a`.
        unsafe {
            let start = self.raw.0.as_ptr().add(frame.key_start() + frame.key_length);
            std::slice::from_raw_parts(start, frame.value_length)
        }
    }

    /// The value.
    #[inline(always)]
    pub fn value(&self) -> Value<'a> {
        match self.raw.shape() {
            Shape::String(_) => Value::String(self.bytes()),
            Shape::Collection(value_type, _) => Value::new(value_type, self.stored()),
        }
    }

    /// The collection as it lies here.
    pub(super) fn stored(&self) -> Stored<'a> {
        match self.raw.shape() {
            Shape::String(_) | Shape::Collection(_, Form::Pack) => Stored::Pack(self.bytes()),
            Shape::Collection(_, Form::Integers) => Stored::Integers(self.bytes()),
            // SAFETY: the body lives as long as the item, and neither changes for `'a`.
            Shape::Collection(_, Form::Tree) => Stored::Tree(unsafe { self.raw.body().as_ref() }),
        }
    }

    /// The bytes of a string; `None` for another type.
    #[inline(always)]
    pub fn string(&self) -> Option<&'a [u8]> {
        self.raw.is_string().then(|| self.bytes())
    }

    /// Type and form of the value.
    #[inline(always)]
    pub fn shape(&self) -> Shape {
        self.raw.shape()
    }

    /// When it ends; `None` for never.
    #[inline(always)]
    pub fn deadline(&self) -> Option<Deadline> {
        self.raw.deadline()
    }

    /// Bytes of memory it takes, rounding and its place in the table included.
    pub fn size(&self) -> usize {
        let beside = match self.stored() {
            Stored::Tree(body) => body.bytes(),
            Stored::Pack(_) | Stored::Integers(_) => 0,
        };
        self.raw.allocation_size() + PLACE_SIZE + beside
    }

    /// What of that is the item itself and its place.
    pub(super) fn own_size(&self) -> usize {
        self.raw.allocation_size() + PLACE_SIZE
    }

    /// Seconds since it was last read or written, at `now_ms` (LRU policies and no policy).
    pub fn idle_seconds(&self, now_ms: i64) -> u64 {
        super::access::idle_seconds(self.raw.access(), now_ms)
    }

    /// Logarithmic access count (LFU policies), decayed to `now_ms`.
    pub fn frequency(&self, now_ms: i64) -> u8 {
        super::access::frequency(self.raw.access(), now_ms)
    }
}

impl std::fmt::Debug for Item<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Item")
            .field("key", &self.key().escape_ascii().to_string())
            .field("value_length", &self.bytes().len())
            .field("deadline", &self.deadline())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key: &[u8], value: &[u8], deadline: Option<Deadline>) {
        let frame = Frame {
            shape: Shape::String(StringForm::Text),
            deadline,
            mark: true,
            access: 0x123456,
            key_length: key.len(),
            value_length: value.len(),
        };
        let mut memory = Memory::default();
        let raw = RawItem::new(&mut memory, &frame, key, value);
        // SAFETY: freed at the end of this function only.
        let item = unsafe { raw.borrow() };
        assert_eq!(item.key(), key);
        assert_eq!(item.string(), Some(value));
        assert_eq!(item.deadline(), deadline);
        assert_eq!(item.shape(), Shape::String(StringForm::Text));
        assert_eq!((raw.access(), raw.mark()), (0x123456, true));
        raw.set_access(0xfedcba);
        raw.set_mark(false);
        assert_eq!((raw.access(), raw.mark()), (0xfedcba, false));
        assert_eq!((item.key(), item.string()), (key, Some(value)));
        let size = raw.allocation_size();
        assert_eq!(item.size(), size + 8);
        assert_eq!(memory.used(), size);
        // SAFETY: not used afterwards.
        unsafe { raw.free(&mut memory) };
        assert_eq!((memory.used(), memory.has_large()), (0, false));
    }

    #[test]
    fn an_item_reads_back_at_every_kind_of_length() {
        let bytes: Vec<u8> = (0..70_000u32).map(|n| n as u8).collect();
        for key_length in [0, 1, 16, 65_534, 65_535, 65_536] {
            for value_length in [0, 1, 8, 65_534, 65_535, 65_536, 70_000] {
                for deadline in [None, Some(Deadline(-5)), Some(Deadline(i64::MAX))] {
                    check(&bytes[..key_length], &bytes[..value_length], deadline);
                }
            }
        }
    }

    #[test]
    fn bytes_are_compared_to_the_last() {
        let bytes: Vec<u8> = (0..100).collect();
        for length in 0..100 {
            assert!(same_bytes(&bytes[..length], &bytes.clone()[..length]));
            assert!(!same_bytes(&bytes[..length], &bytes[..length + 1]));
            for changed in 0..length {
                let mut other = bytes.clone();
                other[changed] ^= 1;
                assert!(!same_bytes(&bytes[..length], &other[..length]), "{changed} of {length}");
            }
        }
    }

    #[test]
    fn a_key_of_16_and_a_value_of_8_bytes_take_32() {
        let mut frame = Frame {
            shape: Shape::String(StringForm::Automatic),
            deadline: None,
            mark: false,
            access: 0,
            key_length: 16,
            value_length: 8,
        };
        assert_eq!(frame.size(), 32);
        frame.deadline = Some(Deadline(1));
        assert_eq!(frame.size(), 40);
    }

    #[test]
    fn an_item_exists_at_its_deadline_and_not_after() {
        let frame = Frame {
            shape: Shape::String(StringForm::Automatic),
            deadline: Some(Deadline(100)),
            mark: false,
            access: 0,
            key_length: 1,
            value_length: 0,
        };
        let mut memory = Memory::default();
        let raw = RawItem::new(&mut memory, &frame, b"k", b"");
        assert!(!raw.expired(99) && !raw.expired(100) && raw.expired(101));
        // SAFETY: not used afterwards.
        unsafe { raw.free(&mut memory) };
    }
}
