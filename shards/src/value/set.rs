//! Sets: members without an order of their own. Sets of integers alone are ascending, small ones in the order in which
//! the members came, large ones in that of their hashes.

use super::body::{
    Body, Place, Source, Stored, Trees, free_tree, insert_small, remove_small, small_bytes,
};
use super::integers::Integers;
use super::limits::PACK_BYTES_MAX;
use super::{Form, members};
use std::borrow::Cow;

/// A set that is read.
#[derive(Clone, Copy, Debug)]
pub struct Set<'a> {
    pub(super) stored: Stored<'a>,
}

impl<'a> Set<'a> {
    /// The set that is stored here.
    pub fn new(stored: Stored<'a>) -> Set<'a> {
        Set { stored }
    }

    fn source(self) -> Source<'a, 1> {
        match self.stored {
            Stored::Pack(bytes) => Source::small(bytes),
            Stored::Tree(body) => Source::Tree(body.elements()),
            Stored::Integers(_) => Source::small(&[]),
        }
    }

    /// Count of members.
    pub fn count(self) -> u64 {
        match self.stored {
            Stored::Integers(bytes) => Integers::new(bytes).count() as u64,
            Stored::Pack(_) | Stored::Tree(_) => self.source().count(),
        }
    }

    /// Does it have the form of large ones?
    pub fn is_large(self) -> bool {
        matches!(self.stored, Stored::Tree(_))
    }

    /// Is it a member?
    pub fn contains(self, member: &[u8]) -> bool {
        match self.stored {
            Stored::Integers(bytes) => {
                integer(member).is_some_and(|n| Integers::new(bytes).find(n).is_ok())
            }
            Stored::Pack(_) | Stored::Tree(_) => {
                members::record_of(self.source(), self.stored, member).is_some()
            }
        }
    }

    /// The member of a rank.
    pub fn at(self, rank: u64) -> Option<Cow<'a, [u8]>> {
        self.members_from(rank).next()
    }

    /// The members from a rank on.
    pub fn members_from(self, rank: u64) -> impl Iterator<Item = Cow<'a, [u8]>> {
        let integers = match self.stored {
            Stored::Integers(bytes) => Integers::new(bytes),
            Stored::Pack(_) | Stored::Tree(_) => Integers::new(&[]),
        };
        let texts = (rank as usize..integers.count()).map(move |at| {
            let text = itoa::Buffer::new().format(integers.at(at)).as_bytes().to_vec();
            Cow::Owned(text)
        });
        texts.chain(self.source().from(rank).map(|[member]| Cow::Borrowed(member)))
    }

    /// Visits about `count` members from a cursor on, 0 at first, all of a small set. Returns the cursor to go on with, 0 at
    /// the end; every member that stays is visited.
    pub fn scan(self, cursor: u64, count: usize, visit: &mut dyn FnMut(&[u8])) -> u64 {
        match self.stored {
            Stored::Tree(body) => {
                members::scan(body.elements(), body.hasher, cursor, count, &mut |[member]| {
                    visit(member);
                })
            }
            Stored::Pack(_) | Stored::Integers(_) => {
                self.members_from(0).for_each(|member| visit(&member));
                0
            }
        }
    }

    /// Are all members integers that are kept as such? Then these are they, ascending.
    pub fn integers(self) -> Option<impl Iterator<Item = i64> + 'a> {
        match self.stored {
            Stored::Integers(bytes) => {
                let integers = Integers::new(bytes);
                Some((0..integers.count()).map(move |at| integers.at(at)))
            }
            Stored::Pack(_) | Stored::Tree(_) => None,
        }
    }
}

/// The integer whose text this is, when printing the integer gives the text again.
pub fn integer(text: &[u8]) -> Option<i64> {
    /// As long as the text of the least one.
    const TEXT_BYTES_MAX: usize = 20;
    let first = *text.first()?;
    if text.len() > TEXT_BYTES_MAX || !(first.is_ascii_digit() || first == b'-') {
        return None;
    }
    let n: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (itoa::Buffer::new().format(n).as_bytes() == text).then_some(n)
}

/// A set that is changed.
pub struct SetMut<P: Place> {
    place: P,
}

impl<P: Place> SetMut<P> {
    /// The set that lies here.
    pub fn new(place: P) -> SetMut<P> {
        SetMut { place }
    }

    /// The set as it is.
    pub fn set(&self) -> Set<'_> {
        Set::new(self.place.stored())
    }

    /// Count of members.
    pub fn count(&self) -> u64 {
        self.set().count()
    }

    /// Adds a member. False when it is there.
    pub fn add(&mut self, member: &[u8]) -> bool {
        let is_new = matches!(self.place.stored(), Stored::Pack(_)) && self.count() == 0;
        if is_new && integer(member).is_some() && self.place.limits().set_integers > 0 {
            self.place.set(Form::Integers, &[]);
        }
        if let Stored::Integers(bytes) = self.place.stored() {
            if let Some(n) = integer(member) {
                return self.add_integer(n);
            }
            let longest = Integers::new(bytes).longest_text();
            self.leave_integers(longest.max(member.len()), 1);
        }
        self.add_bytes(member)
    }

    fn add_integer(&mut self, n: i64) -> bool {
        let Stored::Integers(bytes) = self.place.stored() else {
            unreachable!("the caller looked");
        };
        let Some(bytes) = Integers::new(bytes).with(n) else { return false };
        self.place.set(Form::Integers, &bytes);
        let limits = self.place.limits();
        if self.count() > limits.set_integers || bytes.len() > PACK_BYTES_MAX {
            self.grow();
        }
        true
    }

    /// Makes a set of integers one of bytes, which will have so many members more, none longer than `longest`.
    fn leave_integers(&mut self, longest: usize, more: u64) {
        let limits = self.place.limits();
        if limits.set_fits(self.count() + more) && longest as u64 <= limits.set_value {
            let members: Vec<_> = self.set().members_from(0).collect();
            let bytes = small_bytes(members.iter().map(|member| [&member[..]]));
            self.place.set(Form::Pack, &bytes);
        } else {
            self.grow();
        }
    }

    fn add_bytes(&mut self, member: &[u8]) -> bool {
        let set = self.set();
        let Err(rank) = members::find(set.source(), set.stored, member) else { return false };
        if let Stored::Pack(bytes) = self.place.stored() {
            let limits = self.place.limits();
            let fits = limits.set_fits(set.count() + 1)
                && member.len() as u64 <= limits.set_value
                && bytes.len() + member.len() < PACK_BYTES_MAX;
            if fits {
                insert_small(&mut self.place, rank, &[member]);
                return true;
            }
            self.grow();
            return self.add_bytes(member);
        }
        let body = self.place.body_mut();
        let number = members::number(body.hasher);
        body.trees.elements_mut().insert(rank, &[member], &number);
        true
    }

    /// Takes out a member. Was it one?
    pub fn remove(&mut self, member: &[u8]) -> bool {
        let set = self.set();
        let found = match set.stored {
            Stored::Integers(bytes) => integer(member)
                .and_then(|n| Integers::new(bytes).find(n).ok())
                .map(|rank| rank as u64),
            Stored::Pack(_) | Stored::Tree(_) => {
                members::find(set.source(), set.stored, member).ok()
            }
        };
        if let Some(rank) = found {
            self.remove_at(rank, 1);
        }
        found.is_some()
    }

    /// Takes out up to `count` members from a rank on.
    pub fn remove_at(&mut self, rank: u64, count: u64) {
        let count = count.min(self.count().saturating_sub(rank));
        if count == 0 {
            return;
        }
        match self.place.stored() {
            Stored::Integers(bytes) => {
                let bytes = Integers::new(bytes).without(rank as usize, count as usize);
                self.place.set(Form::Integers, &bytes);
            }
            Stored::Pack(_) => remove_small::<1>(&mut self.place, rank, count),
            Stored::Tree(_) => {
                let gone = self.place.body_mut().trees.elements_mut().take_range(rank, count);
                free_tree(&mut self.place, gone, Trees::Elements);
            }
        }
    }

    /// Makes it a tree.
    pub(super) fn grow(&mut self) {
        if matches!(self.place.stored(), Stored::Tree(_)) {
            return;
        }
        let hasher = self.place.member_hasher();
        let number = members::number(hasher);
        let mut all: Vec<_> = self.set().members_from(0).collect();
        all.sort_by_cached_key(|member| (hasher.place(member), member.clone()));
        let tree = super::body::tree_of(all.iter().map(|member| [&member[..]]), &number);
        self.place.grow(Body { hasher, trees: Trees::Elements(tree) });
    }
}
