//! Where a record lies, about: fetched into the cache ahead of its use, beside many others.
//!
//! A lookup in a million members waits for memory at each level and in the leaf, one after the
//! other. Many lookups go down together instead, a level at a time: while one waits, the others'
//! are on their way.

use super::seek::Range;
use super::{Node, Tree};
use crate::keyspace::prefetch;
use triomphe::Arc;

/// The way down to a member, in an order as for [`Tree::rank_of`].
#[derive(Clone, Copy)]
pub(in crate::value) struct Way<'a, const W: usize> {
    /// The node that is to be looked into next: on its way into the cache.
    node: Option<&'a Node<W>>,
    number: u64,
    range: Range,
}

impl<const W: usize> Tree<W> {
    /// The way to the member with this number.
    pub(in crate::value) fn way(&self, number: u64) -> Way<'_, W> {
        Way { node: Some(&self.root), number, range: Range::ALL }
    }
}

impl<const W: usize> Way<'_, W> {
    /// Goes on by a level, and in the leaf fetches what a search will read. Is there more to do?
    pub(in crate::value) fn step(&mut self) -> bool {
        self.node = match self.node {
            Some(Node::Inner(children)) => {
                let at = self.range.narrow(children, self.number);
                at.map(|at| {
                    prefetch(Arc::as_ptr(&children[at].node).cast());
                    &*children[at].node
                })
            }
            Some(Node::Leaf(leaf)) => {
                leaf.fetch(self.range.eighth(self.number));
                None
            }
            None => None,
        };
        self.node.is_some()
    }
}
