//! A tree that is built in one go, of records that come in its order: leaves are filled one after
//! the other, and levels put above them.

use super::places::{Places, set_all};
use super::{CHILDREN_MAX, Child, LEAF_BYTES_FULL, Node, Number, Tree, child_of_leaf, parent_of};
use crate::value::leaf::Leaf;
use crate::value::pack::{self, Record};
use triomphe::Arc;

impl<const W: usize> Tree<W> {
    /// Of these records, which come in its order. Cost: they are written once, and `number` is asked
    /// once for each leaf.
    pub fn of<'r>(
        records: impl IntoIterator<Item = Record<'r, W>>,
        number: Number<'_, W>,
    ) -> Tree<W> {
        let (mut children, mut filling) = (Vec::new(), Filling::default());
        for record in records {
            if !filling.has_room_for(&record) {
                children.push(filling.take(children.is_empty(), number));
            }
            filling.push(&record);
        }
        if children.is_empty() {
            let (count, bytes) = (filling.count, filling.bytes.len() as u64);
            return Tree { root: Node::Leaf(Leaf::of(&filling.bytes)), mark: 0, count, bytes };
        }
        children.push(filling.take(false, number));
        let sum = |of: fn(&Child<W>) -> u64| children.iter().map(of).sum();
        let (count, bytes) = (sum(|child| child.count), sum(|child| child.bytes));
        while children.len() > CHILDREN_MAX {
            let mut left = children.into_iter().peekable();
            children = Vec::new();
            while left.peek().is_some() {
                let below: Vec<Child<W>> = left.by_ref().take(CHILDREN_MAX).collect();
                children.push(parent_of(below, 0));
            }
        }
        Tree { root: Node::Inner(children), mark: 0, count, bytes }
    }

    /// Of these records, which come in its order. `places` is told of each node below the root,
    /// which has the number 0, and of each record.
    pub(in crate::value) fn known<'r>(
        records: impl IntoIterator<Item = Record<'r, W>>,
        number: Number<'_, W>,
        places: &mut impl Places<W>,
    ) -> Tree<W> {
        let mut tree = Tree::of(records, number);
        tree.root.tell(tree.mark, places);
        tree
    }
}

impl<const W: usize> Node<W> {
    /// Gives all nodes below this one, whose number is `mark`, numbers.
    fn tell(&mut self, mark: u32, places: &mut impl Places<W>) {
        match self {
            Node::Leaf(leaf) => {
                let records = leaf.records_in_eighths();
                records.for_each(|(record, eighth)| places.put(&record, mark, eighth));
            }
            Node::Inner(children) => {
                for child in children.iter_mut() {
                    child.mark = places.number();
                    Arc::make_mut(&mut child.node).tell(child.mark, places);
                }
                set_all(children, 0, mark, places);
            }
        }
    }
}

/// The bytes of a leaf that is filled from front to end.
#[derive(Default)]
struct Filling {
    bytes: Vec<u8>,
    count: u64,
}

impl Filling {
    fn has_room_for<const W: usize>(&self, record: &Record<'_, W>) -> bool {
        self.count == 0 || self.bytes.len() + pack::record_bytes(record) <= LEAF_BYTES_FULL
    }

    fn push<const W: usize>(&mut self, record: &Record<'_, W>) {
        pack::append(&mut self.bytes, record);
        self.count += 1;
    }

    /// The leaf, and the next one begins. The first of a tree has no number.
    fn take<const W: usize>(&mut self, is_first: bool, number: Number<'_, W>) -> Child<W> {
        let leaf = Leaf::of(&self.bytes);
        let least = if is_first { 0 } else { number(&leaf.record_at(0)) };
        self.bytes.clear();
        child_of_leaf(leaf, std::mem::take(&mut self.count), least, 0)
    }
}
