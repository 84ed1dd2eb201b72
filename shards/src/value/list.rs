//! Lists: elements by position.

use super::body::{
    Body, Place, Source, Stored, Trees, free_tree, insert_small, remove_small, replace_small,
    small_bytes,
};
use super::limits::PACK_BYTES_MAX;
use super::tree::Tree;

/// Which end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The first element.
    Front,
    /// The last one.
    Back,
}

/// A list that is read.
#[derive(Clone, Copy, Debug)]
pub struct List<'a> {
    pub(super) stored: Stored<'a>,
    source: Source<'a, 1>,
}

impl<'a> List<'a> {
    /// The list that is stored here.
    pub fn new(stored: Stored<'a>) -> List<'a> {
        let source = match stored {
            Stored::Pack(bytes) | Stored::Integers(bytes) => Source::small(bytes),
            Stored::Tree(body) => Source::Tree(body.elements()),
        };
        List { stored, source }
    }

    /// Count of elements.
    pub fn count(self) -> u64 {
        self.source.count()
    }

    /// The element at a position.
    pub fn get(self, at: u64) -> Option<&'a [u8]> {
        self.source.get(at).map(|[element]| element)
    }

    /// The elements from a position on.
    pub fn elements_from(self, at: u64) -> impl Iterator<Item = &'a [u8]> {
        self.source.from(at).map(|[element]| element)
    }

    /// The elements from a position on backwards, that one included.
    pub fn elements_back_from(self, at: u64) -> impl Iterator<Item = &'a [u8]> {
        self.source.back_from(at).map(|[element]| element)
    }
}

/// A list that is changed. In which form it ends, its size and the limits say.
pub struct ListMut<P: Place> {
    place: P,
}

impl<P: Place> ListMut<P> {
    /// The list that lies here.
    pub fn new(place: P) -> ListMut<P> {
        ListMut { place }
    }

    /// The list as it is.
    pub fn list(&self) -> List<'_> {
        List::new(self.place.stored())
    }

    /// Count of elements.
    pub fn count(&self) -> u64 {
        self.list().count()
    }

    /// Adds an element at an end.
    pub fn push(&mut self, end: End, element: &[u8]) {
        let at = if end == End::Front { 0 } else { self.count() };
        self.insert(at, element);
    }

    /// Takes the element at an end.
    pub fn pop(&mut self, end: End) -> Option<Vec<u8>> {
        let at = if end == End::Front { 0 } else { self.count().checked_sub(1)? };
        let element = self.list().get(at)?.to_vec();
        self.remove(at, 1);
        Some(element)
    }

    /// Puts an element in at a position, before the one that has it. The position is not above the
    /// count.
    pub fn insert(&mut self, at: u64, element: &[u8]) {
        self.grow_for(element.len());
        match self.place.stored() {
            Stored::Tree(_) => {
                let tree = self.place.body_mut().trees.elements_mut();
                tree.insert(at, &[element], &|_| 0);
            }
            Stored::Pack(_) | Stored::Integers(_) => insert_small(&mut self.place, at, &[element]),
        }
    }

    /// Puts an element in the place of another one. The position is below the count.
    pub fn set(&mut self, at: u64, element: &[u8]) {
        self.grow_for(element.len());
        match self.place.stored() {
            Stored::Tree(_) => {
                let tree = self.place.body_mut().trees.elements_mut();
                tree.replace(at, &[element], &|_| 0);
            }
            Stored::Pack(_) | Stored::Integers(_) => replace_small(&mut self.place, at, &[element]),
        }
    }

    /// Lets it count as changed although it is as it was.
    pub fn touch(&mut self) {
        self.place.touch();
    }

    /// Takes out up to `count` elements from a position on.
    pub fn remove(&mut self, at: u64, count: u64) {
        let count = count.min(self.count().saturating_sub(at));
        if count == 0 {
            return;
        }
        match self.place.stored() {
            Stored::Tree(_) => {
                let tree = self.place.body_mut().trees.elements_mut();
                let gone = tree.take_range(at, count);
                free_tree(&mut self.place, gone, Trees::Elements);
                self.shrink();
            }
            Stored::Pack(_) | Stored::Integers(_) => remove_small::<1>(&mut self.place, at, count),
        }
    }

    /// Makes a small list a tree, if so many bytes more are too many for it.
    fn grow_for(&mut self, added: usize) {
        let Stored::Pack(bytes) = self.place.stored() else { return };
        let limits = self.place.limits();
        if !limits.list_fits(bytes.len() + added, self.count() + 1) {
            self.grow();
        }
    }

    /// Makes it a tree.
    pub(super) fn grow(&mut self) {
        if matches!(self.place.stored(), Stored::Tree(_)) {
            return;
        }
        let tree = Tree::of(self.list().source.from(0), &|_| 0);
        let body = Body { hasher: self.place.member_hasher(), trees: Trees::Elements(tree) };
        self.place.grow(body);
    }

    /// Makes a tree small again, when it has half of what the limits allow. In between it stays
    /// what it is.
    fn shrink(&mut self) {
        let Stored::Tree(body) = self.place.stored() else { return };
        let (bytes, count) = (body.elements().bytes(), self.count());
        let fits =
            bytes < PACK_BYTES_MAX / 2 && self.place.limits().list_fits(2 * bytes, 2 * count);
        if fits && count > 0 {
            let bytes = small_bytes(self.list().source.from(0));
            self.place.set(super::Form::Pack, &bytes);
        }
    }
}
