//! Where a collection lies, small or large, and what all types do with their records there.
//!
//! Small: a count of 4 bytes and a pack, in the item itself. Large: trees, in a [`Body`] that the
//! item points to. Each type gives its records an order and decides when to go from one to the
//! other.

use super::deadlines::Deadlines;
use super::pack::{self, Pack, Record, Room};
use super::scored::Scored;
use super::stream::Content;
use super::tree::Tree;
use super::{Form, Limits};
use crate::keyspace::KeyHasher;
use std::cmp::Ordering;

/// Bytes of a tree that is cut off and freed at once; more are freed bit by bit.
const FREED_AT_ONCE_BYTES_MAX: usize = 64 << 10;
/// Bytes of a small collection before its pack.
const COUNT_BYTES: usize = 4;
/// Bytes of a body before its trees' records.
pub(super) const BODY_BYTES: usize = 256;

/// The trees of a large collection.
#[derive(Clone, Debug)]
pub struct Body {
    /// Places members in the order of hashes.
    pub(super) hasher: KeyHasher,
    pub(super) trees: Trees,
}

/// By the type of the collection.
#[derive(Clone, Debug)]
pub(super) enum Trees {
    /// Elements of a list by position, members of a set by hash.
    Elements(Tree<1>),
    /// Fields and values by the fields' hashes.
    Fields(Tree<2>),
    /// The same, and some fields have deadlines.
    TimedFields(Box<TimedFields>),
    /// Members and scores of a sorted set.
    Scored(Scored),
    /// Entries of a stream by id, and its groups.
    Stream(Box<Content>),
}

/// Fields of which some have deadlines.
#[derive(Clone, Debug)]
pub(super) struct TimedFields {
    pub(super) fields: Tree<2>,
    pub(super) deadlines: Deadlines,
}

impl Body {
    /// Bytes of memory that it takes.
    pub fn bytes(&self) -> usize {
        let trees = match &self.trees {
            Trees::Elements(tree) => tree.bytes(),
            Trees::Fields(tree) => tree.bytes(),
            Trees::TimedFields(timed) => timed.fields.bytes() + timed.deadlines.bytes(),
            Trees::Scored(scored) => scored.bytes(),
            Trees::Stream(content) => content.bytes(),
        };
        BODY_BYTES + trees
    }

    /// Drops up to so many leaves. Are there more? For a collection that nobody uses any more.
    pub fn shed(&mut self, leaf_count: usize) -> bool {
        match &mut self.trees {
            Trees::Elements(tree) => tree.shed(leaf_count),
            Trees::Fields(tree) => tree.shed(leaf_count),
            Trees::TimedFields(timed) => {
                if timed.fields.count() > 0 {
                    timed.fields.shed(leaf_count);
                    true
                } else {
                    timed.deadlines.shed(leaf_count)
                }
            }
            Trees::Scored(scored) => scored.shed(leaf_count),
            Trees::Stream(content) => content.shed(leaf_count),
        }
    }

    pub(super) fn elements(&self) -> &Tree<1> {
        match &self.trees {
            Trees::Elements(tree) => tree,
            _ => unreachable!("the collection's type says what its trees are"),
        }
    }

    pub(super) fn fields(&self) -> &Tree<2> {
        match &self.trees {
            Trees::Fields(tree) => tree,
            Trees::TimedFields(timed) => &timed.fields,
            _ => unreachable!("the collection's type says what its trees are"),
        }
    }

    /// When its fields end, if any does.
    pub(super) fn deadlines(&self) -> Option<&Deadlines> {
        match &self.trees {
            Trees::TimedFields(timed) => Some(&timed.deadlines),
            _ => None,
        }
    }

    /// When the first of its fields ends.
    pub(crate) fn first_deadline(&self) -> Option<i64> {
        self.deadlines().and_then(Deadlines::first)
    }

    pub(super) fn scored(&self) -> &Scored {
        match &self.trees {
            Trees::Scored(scored) => scored,
            _ => unreachable!("the collection's type says what its trees are"),
        }
    }

    /// Is anything to be taken out that is not to be seen any more?
    pub fn has_leftovers(&self) -> bool {
        matches!(&self.trees, Trees::Scored(scored) if scored.has_leftovers())
    }

    /// Takes some of it out, up to so many leaves. Is there more?
    pub fn sweep(&mut self, leaf_count: usize) -> bool {
        let Trees::Scored(scored) = &mut self.trees else { return false };
        scored.sweep(&self.hasher, leaf_count)
    }

    pub(super) fn stream(&self) -> &Content {
        match &self.trees {
            Trees::Stream(content) => content,
            _ => unreachable!("the collection's type says what its trees are"),
        }
    }
}

impl Trees {
    pub(super) fn stream_mut(&mut self) -> &mut Content {
        match self {
            Trees::Stream(content) => content,
            _ => unreachable!("the collection's type says what its trees are"),
        }
    }

    pub(super) fn elements_mut(&mut self) -> &mut Tree<1> {
        match self {
            Trees::Elements(tree) => tree,
            _ => unreachable!("the collection's type says what its trees are"),
        }
    }

    pub(super) fn fields_mut(&mut self) -> &mut Tree<2> {
        match self {
            Trees::Fields(tree) => tree,
            Trees::TimedFields(timed) => &mut timed.fields,
            _ => unreachable!("the collection's type says what its trees are"),
        }
    }

    /// The deadlines of fields, for giving some to them.
    pub(super) fn deadlines_mut(&mut self) -> &mut Deadlines {
        if let Trees::Fields(tree) = self {
            let (fields, deadlines) = (std::mem::take(tree), Deadlines::default());
            *self = Trees::TimedFields(Box::new(TimedFields { fields, deadlines }));
        }
        match self {
            Trees::TimedFields(timed) => &mut timed.deadlines,
            _ => unreachable!("only hashes have fields"),
        }
    }

    /// Takes away a field's deadline, and with the last one what deadlines need. Returns it.
    pub(super) fn forget_deadline(&mut self, hasher: KeyHasher, field: &[u8]) -> Option<i64> {
        let Trees::TimedFields(timed) = self else { return None };
        let forgotten = timed.deadlines.remove(hasher, field);
        if timed.deadlines.is_empty() {
            *self = Trees::Fields(std::mem::take(&mut timed.fields));
        }
        forgotten
    }

    pub(super) fn scored_mut(&mut self) -> &mut Scored {
        match self {
            Trees::Scored(scored) => scored,
            _ => unreachable!("the collection's type says what its trees are"),
        }
    }
}

/// A collection as it lies in its item.
#[derive(Clone, Copy, Debug)]
pub enum Stored<'a> {
    /// All of it.
    Pack(&'a [u8]),
    /// A sorted array of integers.
    Integers(&'a [u8]),
    /// Trees.
    Tree(&'a Body),
}

/// Where a collection lies that is changed.
pub trait Place: Room {
    /// The collection as it is.
    fn stored(&self) -> Stored<'_>;
    /// The trees of one that has the form of a tree, for changing.
    fn body_mut(&mut self) -> &mut Body;
    /// Makes it a tree.
    fn grow(&mut self, body: Body);
    /// Makes it these bytes, of another form than a tree.
    fn set(&mut self, form: Form, bytes: &[u8]);
    /// Frees trees that were cut off its body, bit by bit.
    fn discard(&mut self, body: Body);
    /// When it changes its form.
    fn limits(&self) -> Limits;
    /// What its body places members by.
    fn member_hasher(&self) -> KeyHasher;
    /// Lets it count as changed although it is as it was.
    fn touch(&mut self) {}
}

impl<P: Place> Room for &mut P {
    fn bytes(&self) -> &[u8] {
        (**self).bytes()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        (**self).bytes_mut()
    }

    fn resize(&mut self, length: usize) {
        (**self).resize(length);
    }
}

impl<P: Place> Place for &mut P {
    fn stored(&self) -> Stored<'_> {
        (**self).stored()
    }

    fn body_mut(&mut self) -> &mut Body {
        (**self).body_mut()
    }

    fn touch(&mut self) {
        (**self).touch();
    }

    fn grow(&mut self, body: Body) {
        (**self).grow(body);
    }

    fn set(&mut self, form: Form, bytes: &[u8]) {
        (**self).set(form, bytes);
    }

    fn discard(&mut self, body: Body) {
        (**self).discard(body);
    }

    fn limits(&self) -> Limits {
        (**self).limits()
    }

    fn member_hasher(&self) -> KeyHasher {
        (**self).member_hasher()
    }
}

/// Frees what was cut off a tree of a collection.
pub(super) fn free_tree<const W: usize>(
    place: &mut impl Place,
    tree: Tree<W>,
    trees: impl FnOnce(Tree<W>) -> Trees,
) {
    if tree.bytes() > FREED_AT_ONCE_BYTES_MAX {
        let hasher = place.member_hasher();
        place.discard(Body { hasher, trees: trees(tree) });
    }
}

/// The records of a collection, small or large.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'a, const W: usize> {
    Pack(Pack<'a, W>, u64),
    Tree(&'a Tree<W>),
}

impl<'a, const W: usize> Source<'a, W> {
    /// Of a small collection's bytes.
    pub(super) fn small(bytes: &'a [u8]) -> Source<'a, W> {
        match bytes.split_first_chunk::<COUNT_BYTES>() {
            Some((count, pack)) => Source::Pack(Pack::new(pack), u32::from_le_bytes(*count).into()),
            None => Source::Pack(Pack::new(&[]), 0),
        }
    }

    pub(super) fn count(self) -> u64 {
        match self {
            Source::Pack(_, count) => count,
            Source::Tree(tree) => tree.count(),
        }
    }

    pub(super) fn get(self, rank: u64) -> Option<Record<'a, W>> {
        if rank >= self.count() {
            return None;
        }
        match self {
            Source::Pack(pack, _) => pack.records().nth(rank as usize),
            Source::Tree(tree) => tree.get(rank),
        }
    }

    /// The records from a rank on.
    pub(super) fn from(self, rank: u64) -> impl Iterator<Item = Record<'a, W>> {
        let (pack, tree) = match self {
            Source::Pack(pack, _) => (Some(pack.records().skip(rank as usize)), None),
            Source::Tree(tree) => (None, Some(tree.records_from(rank))),
        };
        pack.into_iter().flatten().chain(tree.into_iter().flatten())
    }

    /// The records from a rank on backwards, that one included; from the last one when there are
    /// not so many.
    pub(super) fn back_from(self, rank: u64) -> impl Iterator<Item = Record<'a, W>> {
        let (pack, tree) = match self {
            Source::Pack(pack, count) => {
                let skipped = count.saturating_sub(rank.saturating_add(1));
                (Some(pack.records_back().skip(skipped as usize)), None)
            }
            Source::Tree(tree) => (None, Some(tree.records_back_from(rank))),
        };
        pack.into_iter().flatten().chain(tree.into_iter().flatten())
    }

    /// The same of a tree in the order of numbers: it holds for all with a smaller one than
    /// `number`, and for none with a greater one.
    pub(super) fn partition_point_at(
        self,
        number: u64,
        before: &dyn Fn(&Record<'_, W>) -> bool,
    ) -> u64 {
        let Source::Tree(tree) = self else { return self.partition_point(before) };
        let compare = |record: &Record<'_, W>| {
            if before(record) { Ordering::Less } else { Ordering::Greater }
        };
        let (Ok(rank) | Err(rank)) = tree.search(number, &compare);
        rank
    }

    /// How many records come first for which `before` holds; it must hold for none after one for
    /// which it does not.
    pub(super) fn partition_point(self, before: &dyn Fn(&Record<'_, W>) -> bool) -> u64 {
        match self {
            Source::Pack(pack, _) => {
                pack.records().take_while(|record| before(record)).count() as u64
            }
            Source::Tree(tree) => tree.partition_point(before),
        }
    }
}

/// The pack of a small collection, behind its count.
struct Behind<'p, P: Place>(&'p mut P);

impl<P: Place> Room for Behind<'_, P> {
    fn bytes(&self) -> &[u8] {
        self.0.bytes().get(COUNT_BYTES..).unwrap_or(&[])
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.bytes_mut().get_mut(COUNT_BYTES..).unwrap_or(&mut [])
    }

    fn resize(&mut self, length: usize) {
        self.0.resize(COUNT_BYTES + length);
    }
}

fn add_to_count(place: &mut impl Place, difference: i64) {
    let head = place.bytes_mut().first_chunk_mut::<COUNT_BYTES>().expect("it was written to");
    let count = i64::from(u32::from_le_bytes(*head)) + difference;
    *head = (count as u32).to_le_bytes();
}

/// Puts a record into a small collection.
pub(super) fn insert_small<const W: usize>(
    place: &mut impl Place,
    rank: u64,
    record: &Record<'_, W>,
) {
    let behind = Behind(place);
    let all = behind.bytes().len();
    let at = match Source::<W>::small(behind.0.bytes()) {
        Source::Pack(_, count) if rank == count => all,
        _ => Pack::<W>::new(behind.bytes()).place(rank as usize),
    };
    pack::insert(&mut { behind }, at, record);
    add_to_count(place, 1);
}

/// Puts a record in the place of one of a small collection.
pub(super) fn replace_small<const W: usize>(
    place: &mut impl Place,
    rank: u64,
    record: &Record<'_, W>,
) {
    let mut behind = Behind(place);
    let pack = Pack::<W>::new(behind.bytes());
    let (start, end) = (pack.place(rank as usize), pack.place(rank as usize + 1));
    pack::replace(&mut behind, start, end, record);
}

/// Puts a record in the place of the one of a small collection that begins with the same member, in
/// front of the first of the others that is behind it. Cost: one walk.
pub(super) fn move_small<const W: usize>(
    place: &mut impl Place,
    record: &Record<'_, W>,
    is_behind: impl Fn(&Record<'_, W>) -> bool,
) {
    let mut behind = Behind(place);
    let mut records = Pack::<W>::new(behind.bytes()).records();
    let (mut own, mut to) = (None, None);
    while own.is_none() || to.is_none() {
        let start = records.place();
        let Some(other) = records.next() else { break };
        if own.is_none() && other[0] == record[0] {
            own = Some((start, records.place()));
        } else if to.is_none() && is_behind(&other) {
            to = Some(start);
        }
    }
    let own = own.expect("the member is there");
    let to = to.unwrap_or(behind.bytes().len());
    pack::relocate(&mut behind, own, to, record);
}

/// Takes records out of a small collection.
pub(super) fn remove_small<const W: usize>(place: &mut impl Place, rank: u64, count: u64) {
    let mut behind = Behind(place);
    let pack = Pack::<W>::new(behind.bytes());
    let (start, end) = (pack.place(rank as usize), pack.place((rank + count) as usize));
    pack::remove(&mut behind, start, end);
    add_to_count(place, -(count as i64));
}

/// The bytes of a small collection of these records.
pub(super) fn small_bytes<'r, const W: usize>(
    records: impl Iterator<Item = Record<'r, W>>,
) -> Vec<u8> {
    let (mut bytes, mut count) = (vec![0; COUNT_BYTES], 0u32);
    for record in records {
        pack::append(&mut bytes, &record);
        count += 1;
    }
    bytes[..COUNT_BYTES].copy_from_slice(&count.to_le_bytes());
    bytes
}
