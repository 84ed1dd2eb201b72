//! Hashes: fields with values. Small ones in the order in which the fields came, large ones in that
//! of their hashes.

use super::body::{Body, Place, Source, Stored, Trees, insert_small, remove_small, replace_small};
use super::deadlines::Deadlines;
use super::limits::PACK_BYTES_MAX;
use super::tree::Tree;
use super::{members, spot};

/// A hash that is read.
#[derive(Clone, Copy, Debug)]
pub struct Hash<'a> {
    pub(super) stored: Stored<'a>,
    source: Source<'a, 2>,
    /// Fields that have ended by then are not shown.
    pub(super) now_ms: i64,
}

/// A time at which no field has ended.
const BEFORE_ALL: i64 = -1;

impl<'a> Hash<'a> {
    /// The hash that is stored here.
    pub fn new(stored: Stored<'a>) -> Hash<'a> {
        let source = match stored {
            Stored::Pack(bytes) | Stored::Integers(bytes) => Source::small(bytes),
            Stored::Tree(body) => Source::Tree(body.fields()),
        };
        Hash { stored, source, now_ms: BEFORE_ALL }
    }

    /// As it is seen at a time: without the fields that have ended.
    pub fn seen_at(self, now_ms: i64) -> Hash<'a> {
        Hash { now_ms, ..self }
    }

    /// Count of fields, those included that have ended and are still there.
    pub fn count(self) -> u64 {
        self.source.count()
    }

    /// Count of fields that are shown.
    pub fn shown_count(self) -> u64 {
        self.count() - self.deadlines().map_or(0, |deadlines| deadlines.ended_count(self.now_ms))
    }

    /// The value of a field.
    pub fn get(self, field: &[u8]) -> Option<&'a [u8]> {
        if self.has_ended(field) {
            return None;
        }
        members::record_of(self.source, self.stored, field).map(|[_, value]| value)
    }

    /// Fetches into the cache what looking for the first
    /// [`MEMBERS_AHEAD`](super::spot::MEMBERS_AHEAD) of these fields will read, if it is a
    /// large one.
    pub fn fetch<'m>(self, fields: impl ExactSizeIterator<Item = &'m [u8]>) {
        spot::fetch_all(self.stored, fields);
    }

    /// When a field ends, which may have passed.
    pub fn deadline(self, field: &[u8]) -> Option<i64> {
        let Stored::Tree(body) = self.stored else { return None };
        body.deadlines()?.get(body.hasher, field)
    }

    /// Has any of its fields a deadline?
    pub fn is_timed(self) -> bool {
        self.deadlines().is_some()
    }

    fn deadlines(self) -> Option<&'a Deadlines> {
        match self.stored {
            Stored::Tree(body) => body.deadlines(),
            Stored::Pack(_) | Stored::Integers(_) => None,
        }
    }

    fn has_ended(self, field: &[u8]) -> bool {
        self.hides_any() && self.deadline(field).is_some_and(|at| at <= self.now_ms)
    }

    /// Is a field there that is not shown?
    pub fn hides_any(self) -> bool {
        let first = self.deadlines().and_then(Deadlines::first);
        first.is_some_and(|first| first <= self.now_ms)
    }

    /// The field of a rank, and its value; one that has ended too.
    pub fn at(self, rank: u64) -> Option<(&'a [u8], &'a [u8])> {
        self.source.get(rank).map(|[field, value]| (field, value))
    }

    /// Fields and values from a rank on, those that are shown.
    pub fn fields_from(self, rank: u64) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.ranks_from(rank).flatten()
    }

    /// The field and the value of each rank from one on; `None` for one that is not shown.
    pub fn ranks_from(self, rank: u64) -> impl Iterator<Item = Option<(&'a [u8], &'a [u8])>> {
        let hides = self.hides_any();
        let shown = move |field: &[u8]| !hides || !self.has_ended(field);
        self.source.from(rank).map(move |[field, value]| shown(field).then_some((field, value)))
    }

    /// Visits about `count` fields and values from a cursor on, 0 at first, all of a small hash.
    /// Returns the cursor to go on with, 0 at the end; every field that stays is visited.
    pub fn scan(self, cursor: u64, count: usize, visit: &mut dyn FnMut(&'a [u8], &'a [u8])) -> u64 {
        match self.stored {
            Stored::Tree(body) => {
                members::scan(body.fields(), body.hasher, cursor, count, &mut |[field, value]| {
                    if !self.has_ended(field) {
                        visit(field, value);
                    }
                })
            }
            Stored::Pack(_) | Stored::Integers(_) => {
                self.fields_from(0).for_each(|(field, value)| visit(field, value));
                0
            }
        }
    }

    /// The rank of a field, or the one that it would have.
    fn find(self, field: &[u8]) -> Result<u64, u64> {
        members::find(self.source, self.stored, field)
    }
}

/// A hash that is changed.
pub struct HashMut<P: Place> {
    place: P,
    now_ms: i64,
}

impl<P: Place> HashMut<P> {
    /// The hash that lies here.
    pub fn new(place: P) -> HashMut<P> {
        HashMut { place, now_ms: BEFORE_ALL }
    }

    /// As it is at a time: fields that have ended by then count as if they were not there.
    pub fn at_time(self, now_ms: i64) -> HashMut<P> {
        HashMut { now_ms, ..self }
    }

    /// The hash as it is.
    pub fn hash(&self) -> Hash<'_> {
        Hash::new(self.place.stored()).seen_at(self.now_ms)
    }

    /// Count of fields.
    pub fn count(&self) -> u64 {
        self.hash().count()
    }

    /// Sets a field, which has no deadline then. Is it new?
    pub fn set(&mut self, field: &[u8], value: &[u8]) -> bool {
        let had_ended = self.hash().has_ended(field);
        self.persist(field);
        self.set_keeping(field, value) || had_ended
    }

    /// Takes a field's deadline away. Had it one?
    pub fn persist(&mut self, field: &[u8]) -> bool {
        if !self.hash().is_timed() {
            return false;
        }
        let body = self.place.body_mut();
        body.trees.forget_deadline(body.hasher, field).is_some()
    }

    /// Gives a field that is there a deadline, not below 0. The hash becomes a large one.
    pub fn set_deadline(&mut self, field: &[u8], at: i64) {
        self.grow();
        let body = self.place.body_mut();
        body.trees.deadlines_mut().set(body.hasher, field, at);
    }

    /// Takes out up to so many fields that have ended, the earliest first. How many were they?
    pub fn remove_ended(&mut self, count: usize) -> usize {
        let deadlines = self.hash().deadlines();
        let ended = deadlines.map_or(Vec::new(), |all| all.ended(self.now_ms, count));
        ended.iter().for_each(|field| {
            self.remove(field);
        });
        ended.len()
    }

    /// Sets a field, whose deadline stays. Is it new?
    pub fn set_keeping(&mut self, field: &[u8], value: &[u8]) -> bool {
        self.grow_for(field, value);
        let record = [field, value];
        if matches!(self.place.stored(), Stored::Tree(_)) {
            let body = self.place.body_mut();
            let (hash, number) = (body.hasher.place(field), members::number(body.hasher));
            return body.trees.fields_mut().put_member(&record, hash, &number);
        }
        let found = self.hash().find(field);
        match found {
            Ok(rank) => replace_small(&mut self.place, rank, &record),
            Err(rank) => insert_small(&mut self.place, rank, &record),
        }
        let is_new = found.is_err();
        if is_new && !self.place.limits().hash_fits(self.count()) {
            self.grow();
        }
        is_new
    }

    /// Takes out a field. Was there one?
    pub fn remove(&mut self, field: &[u8]) -> bool {
        if let Stored::Tree(body) = self.place.stored() {
            let (place, number) = (body.hasher.place(field), members::number(body.hasher));
            let trace = body.fields().trace(field, place, &number);
            if !trace.is_there() {
                return false;
            }
            let had_ended = self.hash().has_ended(field);
            self.persist(field);
            self.place.body_mut().trees.fields_mut().take_traced(trace, &mut ());
            return !had_ended;
        }
        let found = self.hash().find(field);
        if let Ok(rank) = found {
            remove_small::<2>(&mut self.place, rank, 1);
        }
        found.is_ok()
    }

    fn grow_for(&mut self, field: &[u8], value: &[u8]) {
        let Stored::Pack(bytes) = self.place.stored() else { return };
        let longest = field.len().max(value.len());
        let fits = longest as u64 <= self.place.limits().hash_value
            && bytes.len() + field.len() + value.len() < PACK_BYTES_MAX;
        if !fits {
            self.grow();
        }
    }

    /// Makes it a tree.
    pub(super) fn grow(&mut self) {
        if matches!(self.place.stored(), Stored::Tree(_)) {
            return;
        }
        let hasher = self.place.member_hasher();
        let number = members::number(hasher);
        let tree = Tree::of(members::sorted(self.hash().source.from(0), hasher), &number);
        self.place.grow(Body { hasher, trees: Trees::Fields(tree) });
    }
}
