//! Hashes: fields with values. Small ones in the order in which the fields came, large ones in that of their hashes.

use super::body::{
    Body, Place, Source, Stored, Trees, insert_small, remove_small, replace_small, tree_of,
};
use super::limits::PACK_BYTES_MAX;
use super::members;

/// A hash that is read.
#[derive(Clone, Copy, Debug)]
pub struct Hash<'a> {
    stored: Stored<'a>,
    source: Source<'a, 2>,
}

impl<'a> Hash<'a> {
    /// The hash that is stored here.
    pub fn new(stored: Stored<'a>) -> Hash<'a> {
        let source = match stored {
            Stored::Pack(bytes) | Stored::Integers(bytes) => Source::small(bytes),
            Stored::Tree(body) => Source::Tree(body.fields()),
        };
        Hash { stored, source }
    }

    /// Count of fields.
    pub fn count(self) -> u64 {
        self.source.count()
    }

    /// The value of a field.
    pub fn get(self, field: &[u8]) -> Option<&'a [u8]> {
        let rank = self.find(field).ok()?;
        self.source.get(rank).map(|[_, value]| value)
    }

    /// The field of a rank, and its value.
    pub fn at(self, rank: u64) -> Option<(&'a [u8], &'a [u8])> {
        self.source.get(rank).map(|[field, value]| (field, value))
    }

    /// Fields and values from a rank on.
    pub fn fields_from(self, rank: u64) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.source.from(rank).map(|[field, value]| (field, value))
    }

    /// Visits about `count` fields and values from a cursor on, 0 at first, all of a small hash. Returns the cursor to go on
    /// with, 0 at the end; every field that stays is visited.
    pub fn scan(self, cursor: u64, count: usize, visit: &mut dyn FnMut(&'a [u8], &'a [u8])) -> u64 {
        match self.stored {
            Stored::Tree(body) => {
                members::scan(body.fields(), body.hasher, cursor, count, &mut |[field, value]| {
                    visit(field, value);
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
}

impl<P: Place> HashMut<P> {
    /// The hash that lies here.
    pub fn new(place: P) -> HashMut<P> {
        HashMut { place }
    }

    /// The hash as it is.
    pub fn hash(&self) -> Hash<'_> {
        Hash::new(self.place.stored())
    }

    /// Count of fields.
    pub fn count(&self) -> u64 {
        self.hash().count()
    }

    /// Sets a field. Is it new?
    pub fn set(&mut self, field: &[u8], value: &[u8]) -> bool {
        self.grow_for(field, value);
        let found = self.hash().find(field);
        let record = [field, value];
        match (self.place.stored(), found) {
            (Stored::Tree(_), _) => {
                let body = self.place.body_mut();
                let number = members::number(body.hasher);
                let tree = body.trees.fields_mut();
                match found {
                    Ok(rank) => tree.replace(rank, &record, &number),
                    Err(rank) => tree.insert(rank, &record, &number),
                }
            }
            (_, Ok(rank)) => replace_small(&mut self.place, rank, &record),
            (_, Err(rank)) => insert_small(&mut self.place, rank, &record),
        }
        let is_new = found.is_err();
        if is_new && !self.place.limits().hash_fits(self.count()) {
            self.grow();
        }
        is_new
    }

    /// Takes out a field. Was there one?
    pub fn remove(&mut self, field: &[u8]) -> bool {
        let Ok(rank) = self.hash().find(field) else { return false };
        match self.place.stored() {
            Stored::Tree(_) => self.place.body_mut().trees.fields_mut().remove(rank),
            Stored::Pack(_) | Stored::Integers(_) => {
                remove_small::<2>(&mut self.place, rank, 1);
            }
        }
        true
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
        let records = members::in_order(self.hash().source, hasher);
        let tree = tree_of(records.into_iter(), &number);
        self.place.grow(Body { hasher, trees: Trees::Fields(tree) });
    }
}
