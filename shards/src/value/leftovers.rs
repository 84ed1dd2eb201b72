//! Members of a sorted set that were cut off and still stand in its index.
//!
//! A long range of a sorted set goes as whole subtrees of its order, at once. To find its members
//! in the index costs a search for each, so they stay there, and what was cut off is kept to tell
//! who they are and in which leaves they were. A sweep takes them out, some leaves at a time, and
//! gives back the numbers of those leaves. Until then an entry of theirs names a leaf that the order
//! has not, and no other leaf gets its number: a member that comes again has an entry of its own.

use super::scored::Whereabouts;
use super::tree::{Places, Tree};

/// Parts of an order that were cut off.
#[derive(Clone, Debug, Default)]
pub(super) struct Leftovers {
    gone: Vec<Tree<2>>,
    /// Entries of the index that the order has not.
    count: u64,
}

impl Leftovers {
    /// Adds a part, all of whose members stand in the index.
    pub(super) fn push(&mut self, gone: Tree<2>) {
        self.count += gone.count();
        self.gone.push(gone);
    }

    /// How many members are still in the index that are not to be seen any more.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Takes members of up to so many leaves out of the index. Are there more? Cost: a search for
    /// each.
    pub(super) fn sweep(&mut self, index: &mut Whereabouts<'_>, leaf_count: usize) -> bool {
        for _ in 0..leaf_count {
            let Some(last) = self.gone.last_mut() else { break };
            let before = last.count();
            let more = last.take_leaf(
                index,
                |index, leaf, record| index.taken(&record, leaf),
                |index, node| index.gone(node),
            );
            self.count -= before - last.count();
            if !more {
                self.gone.pop();
            }
        }
        !self.gone.is_empty()
    }

    /// Drops up to so many leaves. Are there more? For a collection that nobody uses any more.
    pub(super) fn shed(&mut self, leaf_count: usize) -> bool {
        if let Some(last) = self.gone.last_mut()
            && !last.shed(leaf_count)
        {
            self.gone.pop();
        }
        !self.gone.is_empty()
    }
}
