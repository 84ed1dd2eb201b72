//! The one way to change a collection.
//!
//! A guard holds a key's collection, or an empty one that is nowhere yet. What changes it goes
//! through [`Guard::own`]: the first change copies what a cut waits for, and is remembered. When the guard ends, the change
//! is reported, once, and only if there was one; a collection that is empty then is gone, with its
//! key; one that was nowhere and is not empty is put in. Deadline, marks, account and place in the
//! table are its business alone.

use super::bucket::Entry;
use super::item::{BODY_POINTER_BYTES, Frame, RawItem};
use super::lend;
use super::shape::Shape;
use super::{Edit, Expiry, Key, KeyHasher, Keyspace, Value};
use crate::ids::DatabaseIndex;
use crate::rdb::{DecodeError, Fault};
use crate::value::body::{Body, Place, Stored};
use crate::value::hash::HashMut;
use crate::value::list::ListMut;
use crate::value::set::SetMut;
use crate::value::sorted_set::SortedSetMut;
use crate::value::stream::StreamMut;
use crate::value::{self, Form, Limits, Part, Room, ValueType};
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

/// The key holds a value of another type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongType;

/// A collection that is being changed.
pub struct Guard<'e, 'k> {
    keyspace: &'e mut Keyspace,
    database: DatabaseIndex,
    key: Key<'k>,
    /// Where it is in its table; `None` for one that is in none.
    place: Option<NonNull<Entry>>,
    item: RawItem,
    changed: bool,
    limits: Limits,
    /// What the trees of a large collection are on the account with.
    accounted: usize,
}

impl<'e> Edit<'e> {
    /// The list at a key, for changing; an empty one when there is no such key.
    /// Errors: the key holds a value of another type.
    pub fn list_mut<'k>(&mut self, key: &Key<'k>) -> Result<ListMut<Guard<'_, 'k>>, WrongType> {
        self.guard(key, ValueType::List).map(ListMut::new)
    }

    /// The set at a key, for changing; an empty one when there is no such key.
    /// Errors: the key holds a value of another type.
    pub fn set_mut<'k>(&mut self, key: &Key<'k>) -> Result<SetMut<Guard<'_, 'k>>, WrongType> {
        self.guard(key, ValueType::Set).map(SetMut::new)
    }

    /// The sorted set at a key, for changing; an empty one when there is no such key.
    /// Errors: the key holds a value of another type.
    pub fn sorted_set_mut<'k>(
        &mut self,
        key: &Key<'k>,
    ) -> Result<SortedSetMut<Guard<'_, 'k>>, WrongType> {
        self.guard(key, ValueType::SortedSet).map(SortedSetMut::new)
    }

    /// The hash at a key, for changing; an empty one when there is no such key.
    /// Errors: the key holds a value of another type.
    pub fn hash_mut<'k>(&mut self, key: &Key<'k>) -> Result<HashMut<Guard<'_, 'k>>, WrongType> {
        let now_ms = self.now_ms;
        self.guard(key, ValueType::Hash).map(|guard| HashMut::new(guard).at_time(now_ms))
    }

    /// The stream at a key, for changing; one that is still to be made when there is no such key.
    /// Errors: the key holds a value of another type.
    pub fn stream_mut<'k>(&mut self, key: &Key<'k>) -> Result<StreamMut<Guard<'_, 'k>>, WrongType> {
        self.guard(key, ValueType::Stream).map(StreamMut::new)
    }

    /// The collection at a key, for changing; an empty one when there is no such key.
    /// Errors: the key holds a value of another type.
    pub(super) fn guard<'k>(
        &mut self,
        key: &Key<'k>,
        value_type: ValueType,
    ) -> Result<Guard<'_, 'k>, WrongType> {
        let found = self.find_live(key);
        if found.is_some_and(|(_, item)| item.shape().value_type() != value_type) {
            return Err(WrongType);
        }
        let access = self.next_access(found);
        let keyspace = &mut *self.keyspace;
        let (place, item) = match found {
            Some((place, item)) => {
                item.set_access(access);
                (Some(place), item)
            }
            None => {
                let frame = Frame {
                    shape: Shape::Collection(value_type, Form::Pack),
                    deadline: None,
                    mark: keyspace.mark,
                    access,
                    key_length: key.bytes().len(),
                    value_length: 0,
                };
                (None, RawItem::new(&mut keyspace.memory, &frame, key.bytes(), b""))
            }
        };
        let mut guard = Guard::new(keyspace, self.database, *key, item);
        guard.place = place;
        Ok(guard)
    }
}

impl Edit<'_> {
    /// Sets a key to a collection that is filled before anybody sees it. A deadline that has passed
    /// removes the key. Errors: those of `fill`; then the key is as it was.
    pub(super) fn install(
        &mut self,
        key: &Key<'_>,
        shape: Shape,
        expiry: Expiry,
        fill: impl FnOnce(&mut Guard<'_, '_>) -> Result<(), DecodeError>,
    ) -> Result<(), Fault> {
        let deadline = match expiry {
            Expiry::Never => None,
            Expiry::Keep => self.view().peek(key).and_then(|item| item.deadline()),
            Expiry::At(deadline) => Some(deadline),
        };
        let (database, now_ms) = (self.database, self.now_ms);
        let keyspace = &mut *self.keyspace;
        let frame = Frame {
            shape,
            deadline,
            mark: keyspace.mark,
            access: keyspace.accesses.fresh(now_ms),
            key_length: key.bytes().len(),
            value_length: 0,
        };
        let item = RawItem::new(&mut keyspace.memory, &frame, key.bytes(), b"");
        let mut guard = Guard::new(keyspace, database, *key, item);
        let filled = fill(&mut guard);
        guard.settle();
        let item = ManuallyDrop::new(guard).item;
        if filled.is_err() || item.expired(now_ms) {
            self.keyspace.lazy_free.free_item(item, &mut self.keyspace.memory);
            filled.map_err(|error| error.fault)?;
            self.remove(key);
        } else {
            self.put_changed(key, item);
        }
        Ok(())
    }
}

impl<'e, 'k> Guard<'e, 'k> {
    /// Of an item that is in no table, or whose place the caller sets.
    fn new(
        keyspace: &'e mut Keyspace,
        database: DatabaseIndex,
        key: Key<'k>,
        item: RawItem,
    ) -> Guard<'e, 'k> {
        let limits = keyspace.limits;
        let accounted = if item.has_body() { lend::borrow_body_mut(item).bytes() } else { 0 };
        Guard { keyspace, database, key, place: None, item, changed: false, limits, accounted }
    }

    /// The collection as it is.
    pub fn value(&self) -> Value<'_> {
        lend::borrow_item(self.item).value()
    }

    /// Makes sure that the item may be changed in place, and remembers that it is.
    fn own(&mut self) {
        self.changed = true;
        if self.item.mark() == self.keyspace.mark {
            return;
        }
        let (old, mark) = (self.item, self.keyspace.mark);
        let frame = Frame { mark, ..old.frame() };
        let copy = old.copied(&mut self.keyspace.memory, &frame, self.key.bytes());
        self.replace(copy);
        self.keyspace.retire(self.database, old);
    }

    /// Puts another allocation in the place of the item's. The old one is alive, and the caller's.
    fn replace(&mut self, item: RawItem) {
        if let Some(place) = self.place {
            let database = &mut self.keyspace.databases[self.database.0 as usize];
            let had_deadline = self.item.has_deadline();
            database.replace(self.key.hash().slot(), place, had_deadline, item);
        }
        self.item = item;
    }

    /// Gives an empty collection the form that it was written in, which it keeps while parts are
    /// added.
    pub(super) fn keep_form(&mut self, form: Form) {
        self.limits = Limits::keeping(form);
        value::begin(self, self.item.shape().value_type(), form);
    }

    /// Goes on adding parts to a collection in the form that it has.
    pub(super) fn keep_this_form(&mut self) {
        if let Shape::Collection(_, form) = self.item.shape() {
            self.limits = Limits::keeping(form);
        }
    }

    /// Adds a part of a value that was read elsewhere.
    /// Errors: a member that is there already; a part of another type.
    pub(super) fn push(&mut self, part: Part<'_>) -> Result<(), Fault> {
        match value::add(self, self.item.shape().value_type(), part) {
            Some(true) => Ok(()),
            Some(false) => Err(Fault::Duplicate),
            None => Err(Fault::Piece),
        }
    }

    /// Brings the account up to date.
    fn settle(&mut self) {
        if self.item.has_body() {
            let body = lend::borrow_body_mut(self.item);
            let bytes = body.bytes();
            if body.has_leftovers() {
                self.keyspace.will_sweep(self.database, self.key.bytes());
            }
            self.keyspace.memory.add(bytes);
            self.keyspace.memory.subtract(self.accounted);
            self.accounted = bytes;
        }
    }

    /// Gives the part of the value that is in the item another length and form. What fits of the
    /// bytes stays; what is new is zero.
    fn reshape(&mut self, length: usize, form: Form) {
        self.own();
        let old = self.item;
        let value_type = old.shape().value_type();
        let shape = Shape::Collection(value_type, form);
        let frame = Frame { shape, value_length: length, ..old.frame() };
        if !old.resize(&frame) {
            let value = lend::borrow_item(old).bytes();
            let kept = &value[..length.min(value.len())];
            let memory = &mut self.keyspace.memory;
            let item = RawItem::new_filled(memory, &frame, self.key.bytes(), kept);
            self.replace(item);
            lend::free_item(old, &mut self.keyspace.memory);
        }
    }
}

impl Room for Guard<'_, '_> {
    fn bytes(&self) -> &[u8] {
        lend::borrow_item(self.item).bytes()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.own();
        lend::borrow_value_mut(self.item)
    }

    fn resize(&mut self, length: usize) {
        let Shape::Collection(_, form) = self.item.shape() else {
            unreachable!("guards are of collections");
        };
        self.reshape(length, form);
    }
}

impl Place for Guard<'_, '_> {
    fn stored(&self) -> Stored<'_> {
        lend::borrow_item(self.item).stored()
    }

    fn body_mut(&mut self) -> &mut Body {
        self.own();
        lend::borrow_body_mut(self.item)
    }

    fn touch(&mut self) {
        self.changed = true;
    }

    fn grow(&mut self, body: Body) {
        self.reshape(BODY_POINTER_BYTES, Form::Tree);
        self.accounted = body.bytes();
        self.keyspace.memory.add_large(self.accounted);
        self.item.set_body(Box::new(body));
    }

    fn set(&mut self, form: Form, bytes: &[u8]) {
        self.own();
        if self.item.has_body() {
            // Small enough for another form, so soon freed.
            drop(lend::take_body(self.item));
            self.keyspace.memory.subtract_large(std::mem::take(&mut self.accounted));
        }
        self.reshape(bytes.len(), form);
        lend::borrow_value_mut(self.item).copy_from_slice(bytes);
    }

    fn discard(&mut self, body: Body) {
        self.keyspace.lazy_free.push_body(body, &mut self.keyspace.memory);
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn member_hasher(&self) -> KeyHasher {
        self.keyspace.member_hasher
    }
}

impl Drop for Guard<'_, '_> {
    fn drop(&mut self) {
        self.settle();
        let is_empty = self.value().is_nothing();
        let keyspace = &mut *self.keyspace;
        let database = &mut keyspace.databases[self.database.0 as usize];
        match (self.place, is_empty) {
            (None, true) => {
                keyspace.lazy_free.free_item(self.item, &mut keyspace.memory);
                return;
            }
            (None, false) => {
                let hash = self.key.hash();
                database.insert(hash, self.item, &keyspace.hasher, &mut keyspace.memory);
                keyspace.watches.created(self.database, self.key.bytes());
            }
            (Some(place), true) => {
                let hash = self.key.hash();
                database.remove(hash, place, &keyspace.hasher, &mut keyspace.memory);
                keyspace.retire(self.database, self.item);
            }
            (Some(_), false) => database.timed.note(self.item, true),
        }
        if self.changed {
            keyspace.watches.changed(self.database, self.key.bytes());
        }
    }
}
