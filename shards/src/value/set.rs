//! Sets: members without an order of their own. Sets of integers alone are ascending, small ones in
//! the order in which the members came, large ones in that of their hashes.

use super::body::{
    Body, Place, Source, Stored, Trees, free_tree, insert_small, remove_small, small_bytes,
};
use super::integers::Integers;
use super::kept::{self, keep};
use super::limits::PACK_BYTES_MAX;
use super::tree::{Trace, Tree};
use super::{Form, members, spot};
use crate::keyspace::KeyHasher;
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
            Stored::Pack(_) => members::record_of(self.source(), self.stored, member).is_some(),
            Stored::Tree(_) => {
                members::record_of(self.source(), self.stored, &keep(member)).is_some()
            }
        }
    }

    /// Fetches into the cache what looking for the first
    /// [`MEMBERS_AHEAD`](super::spot::MEMBERS_AHEAD) of these members will read, if it is a
    /// large one.
    pub fn fetch<'m>(self, members: impl ExactSizeIterator<Item = &'m [u8]>) {
        spot::fetch_all(self.stored, members);
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
        let is_tree = matches!(self.stored, Stored::Tree(_));
        texts.chain(self.source().from(rank).map(move |[member]| match is_tree {
            true => kept::read(member),
            false => Cow::Borrowed(member),
        }))
    }

    /// Visits about `count` members from a cursor on, 0 at first, all of a small set. Returns the
    /// cursor to go on with, 0 at the end; every member that stays is visited.
    pub fn scan(self, cursor: u64, count: usize, visit: &mut dyn FnMut(&[u8])) -> u64 {
        match self.stored {
            Stored::Tree(body) => {
                members::scan(body.elements(), body.hasher, cursor, count, &mut |[member]| {
                    visit(&kept::read(member));
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
    /// So many digits fit into 64 bits without a sign, and no integer has more.
    const DIGITS_MAX: usize = 19;
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let is_printed_so = match digits {
        [] => false,
        [b'0'] => !is_negative,
        [first, ..] => *first != b'0' && digits.len() <= DIGITS_MAX,
    };
    if !is_printed_so || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n = digits.iter().fold(0_u64, |n, digit| n * 10 + u64::from(digit - b'0'));
    if is_negative { 0_i64.checked_sub_unsigned(n) } else { i64::try_from(n).ok() }
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

    /// Adds members, each of which comes once. Cost: into an empty one that will be large they are
    /// sorted by their hashes, and written once.
    pub fn fill(&mut self, members: &[impl AsRef<[u8]>]) {
        let (count, limits) = (members.len() as u64, self.place.limits());
        if self.count() > 0 || limits.set_fits(count) || count <= limits.set_integers {
            members.iter().for_each(|member| {
                self.add(member.as_ref());
            });
            return;
        }
        let hasher = self.place.member_hasher();
        self.place.grow(body_of(hasher, members.iter().map(AsRef::as_ref)));
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

    /// Makes a set of integers one of bytes, which will have so many members more, none longer than
    /// `longest`.
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
        if let Stored::Pack(bytes) = self.place.stored() {
            let set = self.set();
            if set.contains(member) {
                return false;
            }
            let limits = self.place.limits();
            let count = set.count();
            let fits = limits.set_fits(count + 1)
                && member.len() as u64 <= limits.set_value
                && bytes.len() + member.len() < PACK_BYTES_MAX;
            if fits {
                insert_small(&mut self.place, count, &[member]);
                return true;
            }
            self.grow();
        }
        self.add_kept(&keep(member))
    }

    fn add_kept(&mut self, kept: &[u8]) -> bool {
        let (trace, hash, hasher) = self.trace(kept);
        if trace.is_there() {
            return false;
        }
        let elements = self.place.body_mut().trees.elements_mut();
        elements.put_traced(trace, &[kept], hash, &members::number(hasher));
        true
    }

    /// Where a member of a tree is, or would be, and its hash.
    fn trace(&self, kept: &[u8]) -> (Trace, u64, KeyHasher) {
        let Stored::Tree(body) = self.place.stored() else {
            unreachable!("only trees keep members so");
        };
        let hash = body.hasher.place(kept);
        let trace = body.elements().trace(kept, hash, &members::number(body.hasher));
        (trace, hash, body.hasher)
    }

    /// Takes out a member. Was it one?
    pub fn remove(&mut self, member: &[u8]) -> bool {
        let set = self.set();
        let found = match set.stored {
            Stored::Integers(bytes) => integer(member)
                .and_then(|n| Integers::new(bytes).find(n).ok())
                .map(|rank| rank as u64),
            Stored::Pack(_) => members::find(set.source(), set.stored, member).ok(),
            Stored::Tree(_) => return self.remove_kept(&keep(member)),
        };
        if let Some(rank) = found {
            self.remove_at(rank, 1);
        }
        found.is_some()
    }

    fn remove_kept(&mut self, kept: &[u8]) -> bool {
        let (trace, ..) = self.trace(kept);
        if trace.is_there() {
            self.place.body_mut().trees.elements_mut().take_traced(trace, &mut ());
        }
        trace.is_there()
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
        let all: Vec<_> = self.set().members_from(0).collect();
        let body = body_of(hasher, all.iter().map(|member| &member[..]));
        self.place.grow(body);
    }
}

/// A tree of these members, each of which comes once.
fn body_of<'m>(hasher: KeyHasher, members: impl Iterator<Item = &'m [u8]>) -> Body {
    let number = members::number(hasher);
    let kept: Vec<_> = members.map(keep).collect();
    let tree = Tree::of(members::sorted(kept.iter().map(|kept| [&kept[..]]), hasher), &number);
    Body { hasher, trees: Trees::Elements(tree) }
}
