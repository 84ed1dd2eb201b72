//! Members of a sorted set that were cut off and still stand in its index.
//!
//! A long range of a sorted set goes as whole subtrees of its order, at once. To find its members
//! in the index costs a search for each, so they stay there, and what was cut off is kept to tell
//! who they are. A sweep takes them out, some leaves at a time. Until then the index has more
//! members than the order, and who finds one there looks whether the order has it with that score:
//! a member that was cut off has none, and one that was added again has the entry of the new one.

use super::members;
use super::pack::record_bytes;
use super::sorted_set;
use super::tree::Tree;
use crate::keyspace::KeyHasher;

/// Parts of an order that were cut off.
#[derive(Clone, Debug, Default)]
pub(super) struct Leftovers {
    gone: Vec<Tree<2>>,
    /// Bytes of the entries of the index that the order has not.
    bytes: u64,
}

impl Leftovers {
    /// Adds a part, all of whose members stand in the index.
    pub(super) fn push(&mut self, gone: Tree<2>) {
        self.bytes += gone.record_bytes();
        self.gone.push(gone);
    }

    /// An entry of so many bytes has another member's place in the order again.
    pub(super) fn readd(&mut self, bytes: usize) {
        self.bytes -= bytes as u64;
    }

    /// Bytes of records in the index that are not to be seen any more.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes members of up to so many leaves out of the index. Are there more? Cost: a search for
    /// each.
    pub(super) fn sweep(
        &mut self,
        hasher: KeyHasher,
        order: &Tree<2>,
        index: &mut Tree<2>,
        leaf_count: usize,
    ) -> bool {
        let number = members::number(hasher);
        for _ in 0..leaf_count {
            let Some(last) = self.gone.last_mut() else { break };
            let bytes = &mut self.bytes;
            let more = last.take_leaf(&mut |[member, _]| {
                // It may have come again, and even gone again since.
                let Ok(at) = index.rank_of(member, hasher.place(member), &number) else { return };
                let entry = index.get(at).expect("it was just found");
                if !sorted_set::has(order, &entry) {
                    *bytes -= record_bytes(&entry) as u64;
                    index.remove(at);
                }
            });
            if !more {
                self.gone.pop();
            }
        }
        let more = !self.gone.is_empty();
        debug_assert!(more || self.bytes == 0 && index.count() == order.count());
        more
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
