//! Ways into a tree by what a record is, without ranks: a change goes down once, and adds up no
//! counts.

use super::places::{Places, set_all};
use super::{
    CHILDREN_MAX, Child, LEAF_BYTES_FULL, Node, Tree, child_of_leaf, eighth_of, split_inner,
    split_leaf,
};
use crate::value::leaf::{Found, Leaf};
use crate::value::pack::{self, Record};
use std::cmp::Ordering;
use triomphe::Arc;

/// How a record is looked for, one level after the other.
pub(super) trait Seek<const W: usize> {
    /// The child in which it is or would be; `None` where it may be in several.
    fn child(&mut self, children: &[Child<W>]) -> Option<usize>;
    /// Where it is or would be in the leaf that was come to.
    fn find(&self, leaf: &Leaf<W>) -> Found;
    /// Its number.
    fn number(&self) -> u64;
    /// The number of another record.
    fn number_of(&self, record: &Record<'_, W>) -> u64;
}

/// By its first element, in the order of numbers, which are spread evenly, and then of members'
/// bytes.
pub(super) struct ByMember<'m, F> {
    member: &'m [u8],
    number: u64,
    number_of: &'m F,
    range: Range,
}

impl<'m, F> ByMember<'m, F> {
    pub(super) fn new(member: &'m [u8], number: u64, number_of: &'m F) -> Self {
        ByMember { member, number, number_of, range: Range::ALL }
    }
}

impl<const W: usize, F: Fn(&Record<'_, W>) -> u64> Seek<W> for ByMember<'_, F> {
    fn child(&mut self, children: &[Child<W>]) -> Option<usize> {
        self.range.narrow(children, self.number)
    }

    fn find(&self, leaf: &Leaf<W>) -> Found {
        leaf.find(self.member, self.number, self.range.eighth(self.number), self.number_of)
    }

    fn number(&self) -> u64 {
        self.number
    }

    fn number_of(&self, record: &Record<'_, W>) -> u64 {
        (self.number_of)(record)
    }
}

/// By comparison, in any order.
pub(in crate::value) struct ByOrder<'o, const W: usize> {
    /// What the order gives for it.
    pub(in crate::value) number: u64,
    /// What it gives for others.
    pub(in crate::value) number_of: fn(&Record<'_, W>) -> u64,
    /// How a record stands to it.
    pub(in crate::value) compare: &'o dyn Fn(&Record<'_, W>) -> Ordering,
}

impl<const W: usize> Seek<W> for ByOrder<'_, W> {
    fn child(&mut self, children: &[Child<W>]) -> Option<usize> {
        let after = children.partition_point(|child| match child.number.cmp(&self.number) {
            Ordering::Less => true,
            Ordering::Equal => (self.compare)(&child.node.first()) != Ordering::Greater,
            Ordering::Greater => false,
        });
        Some(after.saturating_sub(1))
    }

    fn find(&self, leaf: &Leaf<W>) -> Found {
        leaf.search(self.compare)
    }

    fn number(&self) -> u64 {
        self.number
    }

    fn number_of(&self, record: &Record<'_, W>) -> u64 {
        (self.number_of)(record)
    }
}

/// The numbers that the records of a node can have, where they are spread evenly.
#[derive(Clone, Copy)]
pub(super) struct Range {
    least: u64,
    most: u64,
}

impl Range {
    /// Of a root.
    pub(super) const ALL: Range = Range { least: 0, most: u64::MAX };

    /// Becomes that of the child with a number; `None` where several may have it.
    pub(super) fn narrow<const W: usize>(
        &mut self,
        children: &[Child<W>],
        number: u64,
    ) -> Option<usize> {
        let after = self.first_not_below(children, number);
        if let Some(next) = children.get(after) {
            if next.number == number {
                return None;
            }
            self.most = next.number;
        }
        let at = after.saturating_sub(1);
        self.least = children[at].number;
        Some(at)
    }

    /// The first child whose number is not below this one. Looks where it is likely first: a search
    /// by halves would wait for memory at each of its steps.
    fn first_not_below<const W: usize>(self, children: &[Child<W>], number: u64) -> usize {
        let part = |number: u64| number.saturating_sub(self.least) >> u32::BITS;
        let likely = part(number) * children.len() as u64 / part(self.most).max(1);
        let mut after = children.len().min(likely as usize);
        while children.get(after).is_some_and(|child| child.number < number) {
            after += 1;
        }
        while after > 0 && children[after - 1].number >= number {
            after -= 1;
        }
        after
    }

    /// The part of a leaf, in eighths, in which a number is likely.
    pub(super) fn eighth(self, number: u64) -> usize {
        eighth_of(number, self.least, self.most)
    }
}

/// What putting a record did to a node.
struct Put<const W: usize> {
    /// Bytes of the one in whose place it is now.
    before: Option<u64>,
    /// What was split off to the right.
    right: Option<Child<W>>,
}

impl<const W: usize> Tree<W> {
    /// Puts a record where its member is or would be, in an order as for [`Tree::rank_of`]. Is it
    /// new?
    pub(in crate::value) fn put_member(
        &mut self,
        record: &Record<'_, W>,
        number: u64,
        number_of: &impl Fn(&Record<'_, W>) -> u64,
    ) -> bool {
        let seek = ByMember::new(record[0], number, number_of);
        if let Some(is_new) = self.put(seek, record, &mut ()) {
            return is_new;
        }
        let found = self.rank_of(record[0], number, number_of);
        match found {
            Ok(rank) => self.replace(rank, record, number_of),
            Err(rank) => self.insert(rank, record, number_of),
        }
        found.is_err()
    }

    /// Puts a record in its place in an order. Is it new?
    pub(in crate::value) fn put_at(
        &mut self,
        place: ByOrder<'_, W>,
        record: &Record<'_, W>,
        places: &mut impl Places<W>,
    ) -> bool {
        self.put(place, record, places).expect("a comparison finds one leaf")
    }

    /// Puts a record where it is or would be. Is it new? `None`, and nothing done, where it may be
    /// in several leaves.
    pub(super) fn put(
        &mut self,
        mut seek: impl Seek<W>,
        record: &Record<'_, W>,
        places: &mut impl Places<W>,
    ) -> Option<bool> {
        let here = Here { mark: self.mark, is_last: true };
        let Put { before, right } = self.root.put(here, &mut seek, record, places)?;
        self.count += u64::from(before.is_none());
        self.bytes = self.bytes + pack::record_bytes(record) as u64 - before.unwrap_or(0);
        if let Some(right) = right {
            self.grow_root(right, places);
        }
        Some(before.is_none())
    }
}

/// Which node is changed.
#[derive(Clone, Copy)]
struct Here {
    /// Its number.
    mark: u32,
    /// Is nothing of the tree behind it?
    is_last: bool,
}

impl<const W: usize> Node<W> {
    fn put(
        &mut self,
        here: Here,
        seek: &mut impl Seek<W>,
        record: &Record<'_, W>,
        places: &mut impl Places<W>,
    ) -> Option<Put<W>> {
        match self {
            Node::Leaf(leaf) => Some(put_into_leaf(leaf, here, seek, record, places)),
            Node::Inner(children) => {
                let at = seek.child(children)?;
                let is_last = here.is_last && at + 1 == children.len();
                let child = &mut children[at];
                let Put { before, right } = match put_alone(child, seek, record) {
                    Some(before) => Put { before: Some(before), right: None },
                    None => {
                        let below = Here { mark: child.mark, is_last };
                        Arc::make_mut(&mut child.node).put(below, seek, record, places)?
                    }
                };
                child.count += u64::from(before.is_none());
                child.bytes = child.bytes + pack::record_bytes(record) as u64 - before.unwrap_or(0);
                child.number = child.number.min(seek.number());
                let Some(right) = right else { return Some(Put { before, right: None }) };
                child.count -= right.count;
                child.bytes -= right.bytes;
                children.insert(at + 1, right);
                if children.len() <= CHILDREN_MAX {
                    set_all(children, at + 1, here.mark, places);
                    return Some(Put { before, right: None });
                }
                let kept = if is_last { CHILDREN_MAX } else { children.len() / 2 };
                let right = split_inner(children, kept, here.mark, places);
                Some(Put { before, right: Some(right) })
            }
        }
    }
}

fn put_into_leaf<const W: usize>(
    leaf: &mut Leaf<W>,
    here: Here,
    seek: &impl Seek<W>,
    record: &Record<'_, W>,
    places: &mut impl Places<W>,
) -> Put<W> {
    let found = seek.find(leaf);
    if found.is_there {
        let end = leaf.end_of(found.place);
        let before = end - found.place;
        leaf.replace(found.place, end, record);
        let right = match pack::record_bytes(record) > before {
            true => split_leaf(leaf, here.mark, &|record| seek.number_of(record), places),
            false => None,
        };
        return Put { before: Some(before as u64), right };
    }
    let is_behind_all = here.is_last && found.place == leaf.size() && leaf.size() > 0;
    if is_behind_all && leaf.size() + pack::record_bytes(record) > LEAF_BYTES_FULL {
        // What is filled from front to end is filled to the brim.
        let mut right = Leaf::new();
        right.insert(0, record);
        let mark = places.number();
        places.put(record, mark, 0);
        return Put { before: None, right: Some(child_of_leaf(right, 1, seek.number(), mark)) };
    }
    leaf.insert(found.place, record);
    if is_behind_all {
        // Where it will be when the leaf is full: nobody tells of it again before a split.
        places.put(record, here.mark, (found.place * 8 / LEAF_BYTES_FULL).min(7) as u8);
        return Put { before: None, right: None };
    }
    places.put(record, here.mark, leaf.eighth_of(found.place));
    let right = split_leaf(leaf, here.mark, &|record| seek.number_of(record), places);
    Put { before: None, right }
}

/// Puts a record in the place of the only one of a leaf: perhaps a long one, which is not to be
/// copied only to be replaced. Returns how many bytes that had.
fn put_alone<const W: usize>(
    child: &mut Child<W>,
    seek: &impl Seek<W>,
    record: &Record<'_, W>,
) -> Option<u64> {
    let Node::Leaf(leaf) = &*child.node else { return None };
    if child.count > 1 || !seek.find(leaf).is_there {
        return None;
    }
    let before = leaf.size() as u64;
    let mut leaf = Leaf::new();
    leaf.insert(0, record);
    child.node = Arc::new(Node::Leaf(leaf));
    Some(before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Few numbers when `coarse`, so that many records have the same and lie in several leaves.
    fn number(coarse: u32) -> impl Fn(&Record<'_, 2>) -> u64 {
        move |record| {
            let name = u64::from_le_bytes(*record[0].first_chunk().expect("a name has so many"));
            name.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> coarse << coarse
        }
    }

    /// Count and bytes of each node are those of its records, and numbers stand where they may.
    fn check(node: &Node<2>, number_of: &impl Fn(&Record<'_, 2>) -> u64) -> (u64, u64, u64, u64) {
        match node {
            Node::Leaf(leaf) => {
                let numbers: Vec<u64> = leaf.records().map(|record| number_of(&record)).collect();
                assert!(numbers.is_sorted());
                let ends = (numbers.first().copied(), numbers.last().copied());
                let (first, last) = (ends.0.unwrap_or(0), ends.1.unwrap_or(0));
                (numbers.len() as u64, leaf.size() as u64, first, last)
            }
            Node::Inner(children) => {
                assert!((1..=CHILDREN_MAX).contains(&children.len()));
                let (mut all, mut before) = ((0, 0), 0);
                for child in children {
                    let (count, bytes, first, last) = check(&child.node, number_of);
                    assert_eq!((child.count, child.bytes), (count, bytes));
                    assert!(count > 0 && before <= child.number && child.number <= first);
                    (all, before) = ((all.0 + count, all.1 + bytes), last);
                }
                (all.0, all.1, number_of(&children[0].node.first()), before)
            }
        }
    }

    #[test]
    fn changes_without_ranks_are_those_by_rank() {
        for seed in 0..if cfg!(miri) { 2 } else { 12_u64 } {
            println!("seed {seed}");
            let mut random = Random::new(seed);
            let number_of = number([0, 0, 58, 62][seed as usize % 4]);
            let (mut tree, mut model) = (Tree::<2>::default(), Tree::<2>::default());
            let steps = if cfg!(miri) { 300 } else { 20_000_u32 };
            let mut version: Option<(Tree<2>, Vec<[Vec<u8>; 2]>)> = None;
            for step in 0..steps {
                let name = random.below(3000).to_le_bytes();
                let long = if random.below(200) == 0 { 3000 } else { 60 };
                let value = vec![b'v'; random.below(long) as usize];
                let record = [&name[..], &value];
                let hash = number_of(&record);
                let found = model.rank_of(&name, hash, &number_of);
                let grows = (step * 6 / steps).is_multiple_of(2);
                if random.below(10) < if grows { 7 } else { 2 } {
                    match found {
                        Ok(rank) => model.replace(rank, &record, &number_of),
                        Err(rank) => model.insert(rank, &record, &number_of),
                    }
                    let trace = tree.trace(&name, hash, &number_of);
                    assert_eq!(trace.is_there(), found.is_ok());
                    if trace.is_there() || random.below(2) == 0 {
                        assert_eq!(tree.put_member(&record, hash, &number_of), found.is_err());
                    } else {
                        tree.put_traced(trace, &record, hash, &number_of);
                    }
                } else {
                    if let Ok(rank) = found {
                        model.remove(rank);
                    }
                    let trace = tree.trace(&name, hash, &number_of);
                    assert_eq!(trace.is_there(), found.is_ok());
                    if trace.is_there() {
                        tree.take_traced(trace, &mut ());
                    }
                }
                let there = tree.record_of(&name, hash, &number_of);
                assert_eq!(there, model.record_of(&name, hash, &number_of));
                let mut way = tree.way(hash);
                while way.step() {}
                if step % 500 == 0 {
                    let (count, bytes, ..) = check(&tree.root, &number_of);
                    assert_eq!((count, bytes), (tree.count, tree.bytes));
                    assert_eq!((model.count, model.bytes), (tree.count, tree.bytes));
                    assert!(tree.records_from(0).eq(model.records_from(0)));
                    if let Some((version, was)) = version.take() {
                        assert!(version.records_from(0).eq(was.iter().map(|[k, v]| [&k[..], v])));
                    }
                    let was = tree.records_from(0).map(|record| record.map(<[u8]>::to_vec));
                    version = Some((tree.clone(), was.collect()));
                }
            }
        }
    }
}
