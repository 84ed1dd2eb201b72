//! Nodes that are known by numbers: who knows them is told of all that comes, moves and goes, and
//! finds a leaf again by its number.

use super::{Child, Node, Tree, child_of};
use crate::keyspace::prefetch;
use crate::value::index::Lead;
use crate::value::leaf::Leaf;
use crate::value::nodes::{Nodes, Path};
use crate::value::pack::Record;
use triomphe::Arc;

/// Who knows the nodes of a tree by numbers, and of each record in which leaf it is. `()` is nobody,
/// and all its numbers are 0.
pub(in crate::value) trait Places<const W: usize> {
    /// A number for a new node.
    fn number(&mut self) -> u32;
    /// A node is below a parent, the child at this place.
    fn set(&mut self, node: u32, parent: u32, at: usize);
    /// A node has gone, and all of its records were told of.
    fn gone(&mut self, node: u32);
    /// A record is in an eighth of a leaf that was not in the tree.
    fn put(&mut self, record: &Record<'_, W>, leaf: u32, eighth: u8);
    /// A record is about to be taken out of a leaf and the tree.
    fn taken(&mut self, record: &Record<'_, W>, leaf: u32);
    /// These records of a leaf are in another one now, or elsewhere in the same.
    fn moved(&mut self, records: &Leaf<W>, from: u32, to: u32);
}

impl<const W: usize> Places<W> for () {
    fn number(&mut self) -> u32 {
        0
    }

    fn set(&mut self, _: u32, _: u32, _: usize) {}

    fn gone(&mut self, _: u32) {}

    fn put(&mut self, _: &Record<'_, W>, _: u32, _: u8) {}

    fn taken(&mut self, _: &Record<'_, W>, _: u32) {}

    fn moved(&mut self, _: &Leaf<W>, _: u32, _: u32) {}
}

/// Tells where some children are, those from a place on.
pub(super) fn set_all<const W: usize>(
    children: &[Child<W>],
    from: usize,
    parent: u32,
    places: &mut impl Places<W>,
) {
    for (at, child) in children.iter().enumerate().skip(from) {
        places.set(child.mark, parent, at);
    }
}

const _: () = assert!(super::CHILDREN_MAX <= 1 << u8::BITS, "places of paths are bytes");

/// The child that a path goes to, if it is there, and its place.
fn step<'a, const W: usize>(
    path: &mut Path,
    children: &'a [Child<W>],
) -> Option<(usize, &'a Child<W>)> {
    let at = path.step()?;
    let child = children.get(at).filter(|child| path.leads_to(child.mark))?;
    Some((at, child))
}

impl<const W: usize> Tree<W> {
    /// The leaf with a number, if there is one.
    pub(in crate::value) fn leaf_by(&self, nodes: &Nodes, leaf: u32) -> Option<&Leaf<W>> {
        self.go_to_leaf(nodes, leaf, |_| ())
    }

    /// The same, and how many records are before it.
    pub(in crate::value) fn leaf_and_rank_by(
        &self,
        nodes: &Nodes,
        leaf: u32,
    ) -> Option<(&Leaf<W>, u64)> {
        let mut rank = 0;
        let pass = |children: &[Child<W>]| {
            rank += children.iter().map(|child| child.count).sum::<u64>();
        };
        let leaf = self.go_to_leaf(nodes, leaf, pass)?;
        Some((leaf, rank))
    }

    /// `pass` is told which children are passed on the way.
    pub(super) fn go_to_leaf(
        &self,
        nodes: &Nodes,
        leaf: u32,
        mut pass: impl FnMut(&[Child<W>]),
    ) -> Option<&Leaf<W>> {
        let (mut node, mut path) = (&self.root, nodes.path(leaf, self.mark)?);
        loop {
            match node {
                Node::Leaf(leaf) => return path.is_gone().then_some(leaf),
                Node::Inner(children) => {
                    let (at, child) = step(&mut path, children)?;
                    pass(&children[..at]);
                    node = &child.node;
                }
            }
        }
    }

    /// The way to the leaf with a number, and an eighth of it.
    pub(in crate::value) fn way_by(&self, nodes: &Nodes, lead: Lead) -> Option<WayBy<'_, W>> {
        let path = nodes.path(lead.leaf, self.mark)?;
        Some(WayBy { node: &self.root, path, eighth: lead.eighth })
    }

    /// Visits `count` records from a rank on, which are there, each with the number of its leaf.
    pub(in crate::value) fn visit_in_leaves(
        &self,
        rank: u64,
        count: u64,
        visit: &mut dyn FnMut(u32, Record<'_, W>),
    ) {
        let mut passed = 0;
        while passed < count {
            let (mut node, mut mark, mut rank) = (&self.root, self.mark, rank + passed);
            while let Node::Inner(children) = node {
                let (at, below) = child_of(children, rank);
                (node, mark, rank) = (&children[at].node, children[at].mark, below);
            }
            let Node::Leaf(leaf) = node else { return };
            for record in leaf.records_from(rank as usize).take((count - passed) as usize) {
                visit(mark, record);
                passed += 1;
            }
        }
    }

    /// Visits the number of every node below the root. Cost: a look at each.
    pub(in crate::value) fn visit_nodes(&self, visit: &mut dyn FnMut(u32)) {
        self.root.visit_nodes(visit);
    }
}

impl<const W: usize> Node<W> {
    fn visit_nodes(&self, visit: &mut dyn FnMut(u32)) {
        if let Node::Inner(children) = self {
            for child in children {
                visit(child.mark);
                child.node.visit_nodes(visit);
            }
        }
    }
}

/// The way down to the leaf with a number, gone step by step.
pub(in crate::value) struct WayBy<'a, const W: usize> {
    /// On its way into the cache.
    node: &'a Node<W>,
    path: Path,
    eighth: u8,
}

impl<const W: usize> WayBy<'_, W> {
    /// The leaf at its end.
    #[cfg(any(test, feature = "models"))]
    pub(in crate::value) fn leaf(&self) -> Option<&Leaf<W>> {
        match self.node {
            Node::Leaf(leaf) if self.path.is_gone() => Some(leaf),
            _ => None,
        }
    }

    /// Goes on by a level, and in the leaf fetches what a search will read. Is there more to do?
    pub(in crate::value) fn step(&mut self) -> bool {
        match self.node {
            Node::Inner(children) => {
                let Some((_, child)) = step(&mut self.path, children) else { return false };
                self.node = &child.node;
                prefetch(Arc::as_ptr(&child.node).cast());
                true
            }
            Node::Leaf(leaf) => {
                leaf.fetch(self.eighth.into());
                false
            }
        }
    }
}
