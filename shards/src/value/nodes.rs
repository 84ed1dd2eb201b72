//! The nodes of a tree by numbers, and where each one is: below which node, and at which of its
//! places.
//!
//! A node has its number from when it is made until it goes, in whichever version of the tree: so
//! what is said of a leaf by its number stays true when others come and go around it. From a leaf's
//! number the way to it is read upwards ([`Nodes::path`]) and gone downwards ([`Tree::leaf_by`]),
//! where each node on it is looked at, so that a number that no node has any more leads nowhere.
//!
//! Numbers of nodes that went are given again, the last one first. A clone shares what is not
//! changed, in chunks.
//!
//! [`Tree::leaf_by`]: super::tree::Tree::leaf_by

use triomphe::Arc;

/// Nodes in a chunk.
const CHUNK_NODES: usize = 512;
/// Levels of a tree below its root. A root has two children or more, and every other inner node had
/// half of [`CHILDREN_MAX`](super::tree) when it was made.
pub(super) const LEVELS_MAX: usize = 8;
/// Numbers are below this, so that a lead of the index has room for them.
const NUMBERS_MAX: u32 = 1 << 29;
/// Where there is no number.
const NONE: u32 = u32::MAX;

/// Where a node is. Of a number that no node has, the next such number is in the place of the
/// parent's.
#[derive(Clone, Copy, Debug)]
struct Above {
    parent: u32,
    /// Its place among its parent's children.
    at: u32,
}

/// Numbered nodes. The first root has the number 0.
#[derive(Clone, Debug)]
pub(super) struct Nodes {
    chunks: Vec<Arc<Vec<Above>>>,
    /// The least number that was never given.
    next: u32,
    /// A number that was given back.
    free: u32,
}

impl Default for Nodes {
    fn default() -> Nodes {
        Nodes { chunks: Vec::new(), next: 1, free: NONE }
    }
}

/// The way from a root to a leaf.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    leaf: u32,
    /// At which place of its parent's children each node on it is, from the leaf upwards.
    places: [u8; LEVELS_MAX],
    /// Steps that are still to be gone.
    left: u8,
}

impl Path {
    /// Goes a step down, and returns the place of the child to go to.
    pub(super) fn step(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        Some(self.places[usize::from(self.left)].into())
    }

    /// Can a node with this number be on the way here? Its end must be the leaf; who goes wrong
    /// before does not come there.
    pub(super) fn leads_to(&self, node: u32) -> bool {
        self.left > 0 || self.leaf == node
    }

    /// Is it gone to its end?
    pub(super) fn is_gone(&self) -> bool {
        self.left == 0
    }
}

impl Nodes {
    /// A number for a node.
    pub(super) fn number(&mut self) -> u32 {
        if self.free == NONE {
            assert!(self.next < NUMBERS_MAX, "more leaves than memory holds");
            self.next += 1;
            return self.next - 1;
        }
        let number = self.free;
        self.free = self.above(number).parent;
        number
    }

    /// Takes back the number of a node that has gone.
    pub(super) fn give_back(&mut self, number: u32) {
        self.set(number, self.free, 0);
        self.free = number;
    }

    /// Says where a node is.
    pub(super) fn set(&mut self, number: u32, parent: u32, at: usize) {
        let (chunk, place) = (number as usize / CHUNK_NODES, number as usize % CHUNK_NODES);
        if chunk >= self.chunks.len() {
            self.chunks.resize_with(chunk + 1, || Arc::new(Vec::new()));
        }
        let chunk = Arc::make_mut(&mut self.chunks[chunk]);
        if place >= chunk.len() {
            chunk.resize(place + 1, Above { parent: NONE, at: 0 });
        }
        chunk[place] = Above { parent, at: at as u32 };
    }

    fn above(&self, number: u32) -> Above {
        let chunk = self.chunks.get(number as usize / CHUNK_NODES);
        let above = chunk.and_then(|chunk| chunk.get(number as usize % CHUNK_NODES));
        above.copied().unwrap_or(Above { parent: NONE, at: 0 })
    }

    /// The way from a root to a leaf; `None` where the number is no leaf's any more, but not always
    /// then.
    pub(super) fn path(&self, leaf: u32, root: u32) -> Option<Path> {
        let (mut path, mut node) = (Path { leaf, places: [0; LEVELS_MAX], left: 0 }, leaf);
        while node != root {
            let Above { parent, at } = self.above(node);
            *path.places.get_mut(usize::from(path.left))? = at as u8;
            path.left += 1;
            node = parent;
        }
        Some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(nodes: &Nodes, leaf: u32, root: u32) -> Option<Vec<usize>> {
        let mut path = nodes.path(leaf, root)?;
        let steps = std::iter::from_fn(|| path.step()).collect();
        assert!(path.is_gone() && path.leads_to(leaf) && !path.leads_to(leaf + 1));
        Some(steps)
    }

    #[test]
    fn ways_lead_up_to_the_root_or_nowhere() {
        let mut nodes = Nodes::default();
        assert_eq!(path(&nodes, 0, 0), Some(vec![]));
        let numbers: Vec<u32> = (0..3).map(|_| nodes.number()).collect();
        assert_eq!(numbers, [1, 2, 3]);
        nodes.set(0, 2, 0);
        nodes.set(1, 2, 1);
        nodes.set(2, 3, 7);
        assert_eq!(path(&nodes, 1, 3), Some(vec![7, 1]));
        let version = nodes.clone();
        nodes.give_back(2);
        nodes.give_back(1);
        assert_eq!(path(&nodes, 0, 3), None);
        assert_eq!(path(&nodes, 999_999, 3), None);
        assert_eq!(path(&version, 1, 3), Some(vec![7, 1]));
        // In a circle.
        nodes.set(0, 1, 0);
        nodes.set(1, 0, 0);
        assert_eq!(path(&nodes, 0, 3), None);
    }

    #[test]
    fn numbers_are_given_again_in_each_version_by_itself() {
        let mut nodes = Nodes::default();
        let numbers: Vec<u32> = (0..2000).map(|_| nodes.number()).collect();
        numbers[..1000].iter().for_each(|&number| nodes.give_back(number));
        let mut version = nodes.clone();
        for nodes in [&mut nodes, &mut version] {
            let mut again: Vec<u32> = (0..1500).map(|_| nodes.number()).collect();
            again.sort_unstable();
            assert!(
                again.iter().eq(numbers[..1000].iter().chain(&(2001..2501).collect::<Vec<_>>()))
            );
        }
    }
}
