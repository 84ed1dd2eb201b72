//! The records of a tree in order, both ways.

use super::{Child, Node, Tree};
use crate::value::pack::{Pack, Record, Records};

impl<const W: usize> Tree<W> {
    /// The records from a rank on.
    pub fn records_from(&self, rank: u64) -> TreeRecords<'_, W> {
        let mut records = TreeRecords { above: Vec::new(), leaf: Pack::new(&[]).records() };
        let rank = rank.min(self.count);
        records.descend(&self.root, rank);
        records
    }

    /// The records from a rank on backwards, that one included.
    pub fn records_back_from(&self, rank: u64) -> TreeRecordsBack<'_, W> {
        let mut records = TreeRecordsBack { above: Vec::new(), leaf: Vec::new() };
        if self.count > 0 {
            records.descend(&self.root, rank.min(self.count - 1));
        }
        records
    }
}

/// Records of a tree from one on.
#[derive(Clone, Debug)]
pub struct TreeRecords<'a, const W: usize> {
    /// For each level what is still to come.
    above: Vec<std::slice::Iter<'a, Child<W>>>,
    leaf: Records<'a, W>,
}

impl<'a, const W: usize> TreeRecords<'a, W> {
    fn descend(&mut self, mut node: &'a Node<W>, mut rank: u64) {
        loop {
            match node {
                Node::Leaf(leaf) => {
                    self.leaf = leaf.records_from(rank as usize);
                    return;
                }
                Node::Inner(children) => {
                    let mut rest = children.iter();
                    let child = loop {
                        let Some(child) = rest.next() else {
                            // Behind the last one.
                            self.leaf = Pack::new(&[]).records();
                            return;
                        };
                        if rank < child.count {
                            break child;
                        }
                        rank -= child.count;
                    };
                    self.above.push(rest);
                    node = &child.node;
                }
            }
        }
    }
}

impl<'a, const W: usize> Iterator for TreeRecords<'a, W> {
    type Item = Record<'a, W>;

    fn next(&mut self) -> Option<Record<'a, W>> {
        loop {
            if let Some(record) = self.leaf.next() {
                return Some(record);
            }
            let child = loop {
                match self.above.last_mut()?.next() {
                    Some(child) => break child,
                    None => self.above.pop(),
                };
            };
            self.descend(&child.node, 0);
        }
    }
}

/// Records of a tree from one on backwards.
#[derive(Clone, Debug)]
pub struct TreeRecordsBack<'a, const W: usize> {
    /// For each level what is still to come, from its end.
    above: Vec<&'a [Child<W>]>,
    /// What is left of the leaf, from its end.
    leaf: Vec<Record<'a, W>>,
}

impl<'a, const W: usize> TreeRecordsBack<'a, W> {
    fn descend(&mut self, mut node: &'a Node<W>, mut rank: u64) {
        loop {
            match node {
                Node::Leaf(leaf) => {
                    let records = leaf.records();
                    self.leaf = records.take((rank as usize).saturating_add(1)).collect();
                    return;
                }
                Node::Inner(children) => {
                    let mut at = 0;
                    while at + 1 < children.len() && rank >= children[at].count {
                        rank -= children[at].count;
                        at += 1;
                    }
                    self.above.push(&children[..at]);
                    node = &children[at].node;
                }
            }
        }
    }
}

impl<'a, const W: usize> Iterator for TreeRecordsBack<'a, W> {
    type Item = Record<'a, W>;

    fn next(&mut self) -> Option<Record<'a, W>> {
        loop {
            if let Some(record) = self.leaf.pop() {
                return Some(record);
            }
            let child = loop {
                let (last, rest) = match self.above.last()?.split_last() {
                    Some(split) => split,
                    None => {
                        self.above.pop();
                        continue;
                    }
                };
                *self.above.last_mut()? = rest;
                break last;
            };
            self.descend(&child.node, u64::MAX);
        }
    }
}
