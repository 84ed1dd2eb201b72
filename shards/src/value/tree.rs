//! The counted tree that every large collection is: records in order, found by rank or by
//! comparison.
//!
//! Leaves are packs of about [`LEAF_BYTES_MAX`] bytes, inner nodes have up to [`CHILDREN_MAX`]
//! children with the count of records below each. So a record's rank is known on the way to it,
//! both ways, and a change touches one leaf and one node per level. Beside each child stands a
//! number that is no greater than what [`Keyed::number`] gives for its first record: most steps of
//! a search compare numbers and touch no leaf.
//!
//! The order of records is the caller's: a tree knows places, not meanings. In which leaf a record
//! lies decides nothing that a caller can see.
//!
//! A clone shares all nodes below the root. Who changes one of two copies the nodes on the way that
//! both have, so that each clone is a *version*: it stays as it was, for the price of what is
//! changed meanwhile. A node that only one tree has is changed in place, at the cost of a look at
//! its count.

mod build;
mod fetch;
mod places;
mod records;
mod seek;
mod trace;

use super::leaf::{Found, Leaf};
use super::pack::{self, Record};
use std::cmp::Ordering;
use triomphe::Arc;

pub(super) use fetch::Way;
use places::set_all;
pub(super) use places::{Places, WayBy};
pub use records::TreeRecords;
pub(super) use seek::ByOrder;
use seek::{ByMember, Seek};
pub(super) use trace::Trace;

/// Bytes of a leaf; one record alone may have more.
const LEAF_BYTES_MAX: usize = 2048;
/// Bytes of a leaf that is filled from one end: a size that the allocator lays into pages without a
/// rest, eight to one note of its own, where of leaves of 2048 bytes each two have one.
const LEAF_BYTES_FULL: usize = 2560;
/// A leaf below this joins a neighbour.
const LEAF_BYTES_MIN: usize = 512;
/// What two leaves may have together to become one.
const LEAF_BYTES_JOINED: usize = 1536;
/// Children of an inner node.
const CHILDREN_MAX: usize = 128;
/// An inner node with fewer joins a neighbour.
const CHILDREN_MIN: usize = 32;
/// What two inner nodes may have together to become one.
const CHILDREN_JOINED: usize = 96;

/// What a caller tells of its order: a number for each record, which never falls from one record to
/// the next.
pub type Number<'n, const W: usize> = &'n dyn Fn(&Record<'_, W>) -> u64;

#[derive(Clone, Debug)]
enum Node<const W: usize> {
    Leaf(Leaf<W>),
    Inner(Vec<Child<W>>),
}

#[derive(Clone, Debug)]
struct Child<const W: usize> {
    count: u64,
    /// Bytes of the records below.
    bytes: u64,
    /// No greater than the number of the first record, and no less than that of the last one
    /// before it.
    number: u64,
    /// The node's number for who knows nodes by numbers ([`Places`]); else 0.
    mark: u32,
    /// Perhaps of other trees too.
    node: Arc<Node<W>>,
}

/// Records of `W` elements each, in an order of the caller's.
#[derive(Clone, Debug)]
pub struct Tree<const W: usize> {
    root: Node<W>,
    /// The root's number.
    mark: u32,
    count: u64,
    bytes: u64,
}

impl<const W: usize> Default for Tree<W> {
    fn default() -> Tree<W> {
        Tree { root: Node::Leaf(Leaf::new()), mark: 0, count: 0, bytes: 0 }
    }
}

impl<const W: usize> Tree<W> {
    /// Count of records.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The record of a rank.
    pub fn get(&self, mut rank: u64) -> Option<Record<'_, W>> {
        if rank >= self.count {
            return None;
        }
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(leaf) => return leaf.records_from(rank as usize).next(),
                Node::Inner(children) => {
                    let (at, below) = child_of(children, rank);
                    (node, rank) = (&children[at].node, below);
                }
            }
        }
    }

    /// How many records come first for which `before` holds; it must hold for none after one for
    /// which it does not.
    pub fn partition_point(&self, before: &dyn Fn(&Record<'_, W>) -> bool) -> u64 {
        let (mut node, mut rank) = (&self.root, 0);
        loop {
            match node {
                Node::Leaf(leaf) => return rank + leaf.partition_point(before).rank as u64,
                Node::Inner(children) => {
                    let after = children.partition_point(|child| before(&child.node.first()));
                    let at = after.saturating_sub(1);
                    rank += children[..at].iter().map(|child| child.count).sum::<u64>();
                    node = &children[at].node;
                }
            }
        }
    }

    /// The rank of the record that `compare` finds equal, or the rank that it would have. `number`
    /// is what the caller's order gives for it.
    pub fn search(
        &self,
        number: u64,
        compare: &dyn Fn(&Record<'_, W>) -> Ordering,
    ) -> Result<u64, u64> {
        let (mut node, mut rank) = (&self.root, 0);
        loop {
            match node {
                Node::Leaf(leaf) => return leaf.search(compare).above(rank),
                Node::Inner(children) => {
                    let after = children.partition_point(|child| match child.number.cmp(&number) {
                        Ordering::Less => true,
                        Ordering::Equal => compare(&child.node.first()) != Ordering::Greater,
                        Ordering::Greater => false,
                    });
                    let at = after.saturating_sub(1);
                    rank += children[..at].iter().map(|child| child.count).sum::<u64>();
                    node = &children[at].node;
                }
            }
        }
    }

    /// The rank of the record that begins with `member`, or the one that it would have, in a tree
    /// whose order is that of numbers, which are spread evenly, and then of members' bytes.
    pub fn rank_of(
        &self,
        member: &[u8],
        number: u64,
        number_of: &impl Fn(&Record<'_, W>) -> u64,
    ) -> Result<u64, u64> {
        let mut rank = 0;
        let pass = |children: &[Child<W>]| {
            rank += children.iter().map(|child| child.count).sum::<u64>();
        };
        match self.find(member, number, number_of, pass) {
            Some((_, found)) => found.above(rank),
            None => {
                self.search(number, &|record| (number_of(record), record[0]).cmp(&(number, member)))
            }
        }
    }

    /// The record that begins with `member`, in such a tree. Cheaper than by its rank.
    pub fn record_of(
        &self,
        member: &[u8],
        number: u64,
        number_of: &impl Fn(&Record<'_, W>) -> u64,
    ) -> Option<Record<'_, W>> {
        match self.find(member, number, number_of, |_| ()) {
            Some((leaf, found)) => found.is_there.then(|| leaf.record_at(found.place)),
            None => self.get(self.rank_of(member, number, number_of).ok()?),
        }
    }

    /// The leaf of a member and its place there; `None` where several may have its number and lie
    /// in several leaves. `pass` is told which children are passed on the way.
    fn find(
        &self,
        member: &[u8],
        number: u64,
        number_of: &impl Fn(&Record<'_, W>) -> u64,
        mut pass: impl FnMut(&[Child<W>]),
    ) -> Option<(&Leaf<W>, Found)> {
        let mut seek = ByMember::new(member, number, number_of);
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(leaf) => return Some((leaf, seek.find(leaf))),
                Node::Inner(children) => {
                    let at = seek.child(children)?;
                    pass(&children[..at]);
                    node = &children[at].node;
                }
            }
        }
    }

    /// Puts a record in at a rank. `number` knows the order.
    pub fn insert(&mut self, rank: u64, record: &Record<'_, W>, number: Number<'_, W>) {
        debug_assert!(rank <= self.count);
        let side = match rank {
            _ if rank == self.count => Side::Back,
            0 => Side::Front,
            _ => Side::Inside,
        };
        self.count += 1;
        self.bytes += pack::record_bytes(record) as u64;
        if let Some(right) = self.root.insert(rank, record, number, side) {
            self.grow_root(right, &mut ());
        }
    }

    /// Puts a root above the one that was split.
    fn grow_root(&mut self, right: Child<W>, places: &mut impl Places<W>) {
        let left = std::mem::replace(&mut self.root, Node::Inner(Vec::new()));
        let (count, bytes) = (self.count - right.count, self.bytes - right.bytes);
        let left = Child { count, bytes, number: 0, mark: self.mark, node: Arc::new(left) };
        let children = vec![left, right];
        self.mark = places.number();
        set_all(&children, 0, self.mark, places);
        self.root = Node::Inner(children);
    }

    /// Takes away roots with one child or none.
    fn shrink_root(&mut self, places: &mut impl Places<W>) {
        while let Node::Inner(children) = &mut self.root
            && children.len() <= 1
        {
            let Some(child) = children.pop() else {
                self.root = Node::Leaf(Leaf::new());
                return;
            };
            places.gone(self.mark);
            (self.root, self.mark) = (Arc::unwrap_or_clone(child.node), child.mark);
        }
    }

    /// Puts a record in the place of the one of a rank, which has the same place in the order.
    pub fn replace(&mut self, rank: u64, record: &Record<'_, W>, number: Number<'_, W>) {
        debug_assert!(rank < self.count);
        match self.root.replace(rank, record) {
            Some(before) => self.bytes = self.bytes - before + pack::record_bytes(record) as u64,
            None => {
                self.remove(rank);
                self.insert(rank, record, number);
            }
        }
    }

    /// Takes out the record of a rank.
    pub fn remove(&mut self, rank: u64) {
        self.remove_range(rank, 1);
    }

    /// Takes out `count` records from a rank on. Cost: the leaves that go, freed at once.
    pub fn remove_range(&mut self, rank: u64, count: u64) {
        drop(self.take_range(rank, count));
    }

    /// The same, without freeing: returns what was cut off as a whole, of which nothing is to be
    /// asked but its count, its bytes and that it be shed. Cost: the way to both ends.
    pub fn take_range(&mut self, rank: u64, count: u64) -> Tree<W> {
        self.take_range_from(rank, count, &mut ())
    }

    /// The same of a tree whose nodes are known by numbers: what goes with its leaf, and the nodes
    /// that are cut off, nobody is told of.
    pub(super) fn take_range_from(
        &mut self,
        rank: u64,
        count: u64,
        places: &mut impl Places<W>,
    ) -> Tree<W> {
        let count = count.min(self.count.saturating_sub(rank));
        if count == 0 {
            return Tree::default();
        }
        self.count -= count;
        let mut gone = Vec::new();
        self.bytes -= self.root.remove(self.mark, rank, count, &mut gone, places);
        self.shrink_root(places);
        let sum = |number: fn(&Child<W>) -> u64| gone.iter().map(number).sum();
        let (count, bytes) = (sum(|child| child.count), sum(|child| child.bytes));
        Tree { root: Node::Inner(gone), mark: 0, count, bytes }
    }

    /// Drops up to so many leaves, the last ones first. Are there more? For trees that nobody uses
    /// any more.
    pub fn shed(&mut self, mut leaf_count: usize) -> bool {
        while leaf_count > 0 && !matches!(self.root, Node::Leaf(_)) {
            leaf_count -= 1;
            let (count, bytes) = self.root.drop_last_leaf();
            self.count -= count;
            self.bytes -= bytes;
            if matches!(&self.root, Node::Inner(children) if children.is_empty()) {
                self.root = Node::Leaf(Leaf::new());
            }
        }
        if leaf_count > 0 {
            self.root = Node::Leaf(Leaf::new());
            (self.count, self.bytes) = (0, 0);
        }
        self.count > 0
    }

    /// Bytes of memory that it takes, about: a function of its records alone, so that replicas
    /// account alike. What nodes and rounding add to the records is a sixteenth of them.
    pub fn bytes(&self) -> usize {
        (self.bytes + self.bytes / 16) as usize
    }

    /// Of `count` records from a rank on, those at both ends whose leaves have others too.
    pub fn edges(&self, rank: u64, count: u64) -> (u64, u64) {
        let front = match self.leaf_at(rank) {
            (0, _) => 0,
            (at, size) => (size - at).min(count),
        };
        let (back, _) = self.leaf_at(rank + count);
        (front, back.min(count - front))
    }

    /// The place of a rank in its leaf, and the leaf's count; nothing behind the last one.
    fn leaf_at(&self, mut rank: u64) -> (u64, u64) {
        if rank >= self.count {
            return (0, 0);
        }
        let (mut node, mut size) = (&self.root, self.count);
        while let Node::Inner(children) = node {
            let (at, below) = child_of(children, rank);
            (node, size, rank) = (&children[at].node, children[at].count, below);
        }
        (rank, size)
    }

    /// Hands out the last leaf with its number and drops it; then the numbers of nodes that go with
    /// it, its own too. Are there more? For what was cut off.
    pub(super) fn take_leaf<T>(
        &mut self,
        told: &mut T,
        visit: fn(&mut T, u32, Record<'_, W>),
        gone: fn(&mut T, u32),
    ) -> bool {
        let (mut node, mut mark) = (&self.root, self.mark);
        while let Node::Inner(children) = node
            && let Some(last) = children.last()
        {
            (node, mark) = (&last.node, last.mark);
        }
        if let Node::Leaf(leaf) = node {
            leaf.records().for_each(|record| visit(told, mark, record));
        }
        let (count, bytes) = self.root.pop_leaf(&mut |mark| gone(told, mark));
        (self.count, self.bytes) = (self.count - count, self.bytes - bytes);
        if count == 0 {
            *self = Tree::default();
        }
        self.count > 0
    }
}

/// Where in a tree a record is put in.
#[derive(Clone, Copy)]
enum Side {
    Front,
    Inside,
    Back,
}

impl<const W: usize> Node<W> {
    fn first(&self) -> Record<'_, W> {
        let mut node = self;
        loop {
            match node {
                Node::Leaf(leaf) => return leaf.record_at(0),
                Node::Inner(children) => node = &children[0].node,
            }
        }
    }

    /// Returns the node that was split off to the right.
    fn insert(
        &mut self,
        rank: u64,
        record: &Record<'_, W>,
        number: Number<'_, W>,
        side: Side,
    ) -> Option<Child<W>> {
        match self {
            Node::Leaf(leaf) => {
                let place = match side {
                    Side::Front => 0,
                    Side::Inside => leaf.records_from(rank as usize).place(),
                    Side::Back => leaf.size(),
                };
                let grown = leaf.size() + pack::record_bytes(record);
                let is_full = grown > LEAF_BYTES_FULL && leaf.size() > 0;
                // What is filled from one end is filled to the brim.
                match side {
                    Side::Front if is_full => {
                        let right = std::mem::replace(leaf, Leaf::new());
                        leaf.insert(0, record);
                        let (count, least) = (right.records().count(), number(&right.record_at(0)));
                        Some(child_of_leaf(right, count as u64, least, 0))
                    }
                    Side::Back if is_full => {
                        let mut right = Leaf::new();
                        right.insert(0, record);
                        Some(child_of_leaf(right, 1, number(record), 0))
                    }
                    Side::Front | Side::Back => {
                        leaf.insert(place, record);
                        None
                    }
                    Side::Inside => {
                        leaf.insert(place, record);
                        split_leaf(leaf, 0, number, &mut ())
                    }
                }
            }
            Node::Inner(children) => {
                let (at, rank) = child_for_insert(children, rank, number(record));
                let child = &mut children[at];
                child.count += 1;
                child.bytes += pack::record_bytes(record) as u64;
                if rank == 0 {
                    child.number = number(record);
                }
                let right = Arc::make_mut(&mut child.node).insert(rank, record, number, side)?;
                child.count -= right.count;
                child.bytes -= right.bytes;
                children.insert(at + 1, right);
                if children.len() <= CHILDREN_MAX {
                    return None;
                }
                let kept = match side {
                    Side::Front => children.len() - CHILDREN_MAX,
                    Side::Inside => children.len() / 2,
                    Side::Back => CHILDREN_MAX,
                };
                Some(split_inner(children, kept, 0, &mut ()))
            }
        }
    }

    /// Returns how many bytes the old one had; `None`, and nothing done, when the leaf would be too
    /// large.
    fn replace(&mut self, rank: u64, record: &Record<'_, W>) -> Option<u64> {
        match self {
            Node::Leaf(leaf) => {
                let mut records = leaf.records_from(rank as usize);
                let start = records.place();
                records.skip_some(1);
                let end = records.place();
                let grown = leaf.size() - (end - start) + pack::record_bytes(record);
                let fits = grown <= LEAF_BYTES_MAX || grown <= leaf.size();
                if fits {
                    leaf.replace(start, end, record);
                }
                fits.then_some((end - start) as u64)
            }
            Node::Inner(children) => {
                let (at, rank) = child_of(children, rank);
                let child = &mut children[at];
                let grown = pack::record_bytes(record) as u64;
                if child.count == 1 {
                    // Perhaps a long one, which is not to be copied only to be replaced.
                    let mut leaf = Leaf::new();
                    leaf.insert(0, record);
                    child.node = Arc::new(Node::Leaf(leaf));
                    return Some(std::mem::replace(&mut child.bytes, grown));
                }
                let before = Arc::make_mut(&mut child.node).replace(rank, record)?;
                child.bytes = child.bytes - before + grown;
                Some(before)
            }
        }
    }

    /// Returns how many bytes of records have gone. Children that go as a whole are put to
    /// `gone_children`. `mark` is its number.
    fn remove(
        &mut self,
        mark: u32,
        rank: u64,
        count: u64,
        gone_children: &mut Vec<Child<W>>,
        places: &mut impl Places<W>,
    ) -> u64 {
        match self {
            Node::Leaf(leaf) => leaf.remove(rank as usize, count as usize) as u64,
            Node::Inner(children) => {
                let (first, mut rank) = child_of(children, rank);
                let (mut at, mut left, mut gone) = (first, count, 0);
                let had = children.len();
                while left > 0 {
                    let child = &mut children[at];
                    let here = left.min(child.count - rank);
                    left -= here;
                    if here == child.count {
                        let child = children.remove(at);
                        gone += child.bytes;
                        gone_children.push(child);
                    } else {
                        child.count -= here;
                        let node = Arc::make_mut(&mut child.node);
                        let bytes = node.remove(child.mark, rank, here, gone_children, places);
                        child.bytes -= bytes;
                        gone += bytes;
                        at += 1;
                    }
                    rank = 0;
                }
                if children.len() < had {
                    set_all(children, first, mark, places);
                }
                join_around(children, first, mark, places);
                gone
            }
        }
    }

    /// Returns how many records, and bytes of them, were in it, or in a node that it shares with
    /// another tree.
    fn drop_last_leaf(&mut self) -> (u64, u64) {
        let Node::Inner(children) = self else { return (0, 0) };
        let Some(Child { mut count, mut bytes, number, mark, node }) = children.pop() else {
            return (0, 0);
        };
        // What another tree has goes as a whole: it is that one's to free.
        if let Some(mut node) = Arc::into_unique(node)
            && matches!(*node, Node::Inner(_))
        {
            let (gone, gone_bytes) = node.drop_last_leaf();
            let rest = (count - gone, bytes - gone_bytes);
            (count, bytes) = (gone, gone_bytes);
            if rest.0 > 0 {
                let node = node.shareable();
                children.push(Child { count: rest.0, bytes: rest.1, number, mark, node });
            }
        }
        (count, bytes)
    }

    /// Drops the last leaf, which other trees may have too. Returns how many records, and bytes of
    /// them, were in it. `gone` is told the numbers of the nodes that go.
    fn pop_leaf(&mut self, gone: &mut dyn FnMut(u32)) -> (u64, u64) {
        let Node::Inner(children) = self else { return (0, 0) };
        let Some(last) = children.last_mut() else { return (0, 0) };
        let (count, bytes) = match &*last.node {
            Node::Leaf(_) => (last.count, last.bytes),
            Node::Inner(_) => Arc::make_mut(&mut last.node).pop_leaf(gone),
        };
        (last.count, last.bytes) = (last.count - count, last.bytes - bytes);
        if last.count == 0 {
            gone(last.mark);
            children.pop();
        }
        (count, bytes)
    }

    fn is_small(&self) -> bool {
        match self {
            Node::Leaf(leaf) => leaf.size() < LEAF_BYTES_MIN,
            Node::Inner(children) => children.len() < CHILDREN_MIN,
        }
    }

    /// Can they become one? Their levels are the same.
    fn joins(&self, other: &Node<W>) -> bool {
        match (self, other) {
            (Node::Leaf(a), Node::Leaf(b)) => a.size() + b.size() <= LEAF_BYTES_JOINED,
            (Node::Inner(a), Node::Inner(b)) => a.len() + b.len() <= CHILDREN_JOINED,
            _ => false,
        }
    }
}

/// The child that holds a rank, and the rank within it.
fn child_of<const W: usize>(children: &[Child<W>], mut rank: u64) -> (usize, u64) {
    for (at, child) in children.iter().enumerate() {
        if rank < child.count {
            return (at, rank);
        }
        rank -= child.count;
    }
    unreachable!("a rank is below the count")
}

/// The child in which a record of this rank and number is put: between two of them in the one that
/// a search for it will look into.
fn child_for_insert<const W: usize>(
    children: &[Child<W>],
    mut rank: u64,
    number: u64,
) -> (usize, u64) {
    for (at, child) in children.iter().enumerate() {
        let next = children.get(at + 1);
        let is_next = rank == child.count && next.is_some_and(|next| next.number < number);
        if rank <= child.count && !is_next {
            return (at, rank);
        }
        rank -= child.count;
    }
    unreachable!("a rank is not above the count")
}

fn child_of_leaf<const W: usize>(leaf: Leaf<W>, count: u64, number: u64, mark: u32) -> Child<W> {
    Child { count, bytes: leaf.size() as u64, number, mark, node: Arc::new(Node::Leaf(leaf)) }
}

/// Splits a leaf that is too large. `mark` is its number.
fn split_leaf<const W: usize>(
    leaf: &mut Leaf<W>,
    mark: u32,
    number: Number<'_, W>,
    places: &mut impl Places<W>,
) -> Option<Child<W>> {
    if leaf.size() <= LEAF_BYTES_MAX {
        return None;
    }
    let (place, rank) = leaf.middle();
    if rank == 0 {
        return None;
    }
    let number = number(&leaf.record_at(place));
    let right = leaf.split_off(place);
    let right_mark = places.number();
    places.moved(&right, mark, right_mark);
    places.moved(leaf, mark, mark);
    let count = right.records().count() as u64;
    Some(child_of_leaf(right, count, number, right_mark))
}

/// Splits an inner node that has too many children. `mark` is its number.
fn split_inner<const W: usize>(
    children: &mut Vec<Child<W>>,
    kept: usize,
    mark: u32,
    places: &mut impl Places<W>,
) -> Child<W> {
    let right = children.split_off(kept);
    // Room for the one too many doubled what it takes.
    children.shrink_to(CHILDREN_MAX);
    let right_mark = places.number();
    set_all(children, 0, mark, places);
    set_all(&right, 0, right_mark, places);
    parent_of(right, right_mark)
}

/// An inner node, at least of one child, as a child.
fn parent_of<const W: usize>(children: Vec<Child<W>>, mark: u32) -> Child<W> {
    let count = children.iter().map(|child| child.count).sum();
    let bytes = children.iter().map(|child| child.bytes).sum();
    let number = children[0].number;
    Child { count, bytes, number, mark, node: Arc::new(Node::Inner(children)) }
}

/// The eighth of the way from `least` to `most` in which a number between them lies.
fn eighth_of(number: u64, least: u64, most: u64) -> usize {
    let step = ((most - least) >> 3).max(1);
    (number.saturating_sub(least) / step).min(7) as usize
}

/// Joins those children around a place that are small with neighbours.
fn join_around<const W: usize>(
    children: &mut Vec<Child<W>>,
    at: usize,
    mark: u32,
    places: &mut impl Places<W>,
) {
    for at in [at + 1, at] {
        if at < children.len() {
            join_small(children, at, mark, places);
        }
    }
}

/// Joins a child with a neighbour, if it is small and they fit together. `mark` is their parent's
/// number.
fn join_small<const W: usize>(
    children: &mut Vec<Child<W>>,
    at: usize,
    mark: u32,
    places: &mut impl Places<W>,
) {
    if !children[at].node.is_small() {
        return;
    }
    let fits = |left: usize| {
        children.get(left + 1).is_some_and(|right| children[left].node.joins(&right.node))
    };
    let left = match at.checked_sub(1).filter(|&left| fits(left)) {
        Some(left) => left,
        None if fits(at) => at,
        None => return,
    };
    let right = children.remove(left + 1);
    let joined = &mut children[left];
    joined.count += right.count;
    joined.bytes += right.bytes;
    match (Arc::make_mut(&mut joined.node), Arc::unwrap_or_clone(right.node)) {
        (Node::Leaf(leaf), Node::Leaf(more)) => {
            places.moved(&more, right.mark, joined.mark);
            leaf.append(&more);
            places.moved(leaf, joined.mark, joined.mark);
        }
        (Node::Inner(children), Node::Inner(more)) => {
            let before = children.len();
            children.extend(more);
            set_all(children, before, joined.mark, places);
        }
        _ => unreachable!("children are of one level"),
    }
    places.gone(right.mark);
    set_all(children, left + 1, mark, places);
}

#[cfg(test)]
mod tests;
