//! Trees grow, shrink, are cut and shared, and keep their counts.

use super::*;
use crate::random::Random;

fn number(record: &Record<'_, 1>) -> u64 {
    u64::from_be_bytes(*record[0].first_chunk().expect("numbers"))
}

fn all(tree: &Tree<1>) -> Vec<Vec<u8>> {
    tree.records_from(0).map(|[element]| element.to_vec()).collect()
}

/// Count and bytes of every node are those of its records.
fn check(node: &Node<1>) -> (u64, u64) {
    match node {
        Node::Leaf(leaf) => (leaf.records().count() as u64, leaf.size() as u64),
        Node::Inner(children) => children.iter().fold((0, 0), |(count, bytes), child| {
            assert_eq!(check(&child.node), (child.count, child.bytes));
            (count + child.count, bytes + child.bytes)
        }),
    }
}

fn change(tree: &mut Tree<1>, random: &mut Random) {
    let element = |n: u64, random: &mut Random| {
        let mut element = n.to_be_bytes().to_vec();
        element.resize(8 + random.below([4, 90, 3000][n as usize % 3]) as usize, b'x');
        element
    };
    for _ in 0..random.below(60) {
        let rank = random.below(tree.count() + 1);
        let n = random.below(1 << 40);
        let new = element(n, random);
        let place = tree.search(n, &|record| number(record).cmp(&n));
        match (random.below(20), place) {
            (0, _) => tree.remove_range(rank, random.below(tree.count() / 2 + 1)),
            (1..8, _) if rank < tree.count() => tree.remove(rank),
            (8..12, _) if rank < tree.count() => {
                let same = tree.get(rank).map(|record| number(&record)).expect("it is there");
                let new = element(same, random);
                tree.replace(rank, &[&new], &number);
            }
            (_, Err(rank)) => tree.insert(rank, &[&new], &number),
            (_, Ok(_)) => {}
        }
    }
}

#[test]
fn versions_stay_as_they_were_whatever_becomes_of_the_tree_and_of_each_other() {
    for seed in 0..12 {
        let mut random = Random::new(seed);
        let mut trees = vec![(Tree::<1>::default(), Vec::new())];
        for n in 0..6000_u64 {
            let element = (n << 20).to_be_bytes();
            let rank = trees[0].0.count();
            trees[0].0.insert(rank, &[&element], &number);
        }
        trees[0].1 = all(&trees[0].0);
        for _ in 0..120 {
            let at = random.below(trees.len() as u64) as usize;
            match random.below(4) {
                0 if trees.len() < 5 => {
                    let version = (trees[at].0.clone(), trees[at].1.clone());
                    trees.push(version);
                }
                1 if trees.len() > 1 => {
                    // Shed in the middle of the others' lives, some leaves at a time.
                    let (mut tree, _) = trees.swap_remove(at);
                    while tree.shed(1 + random.below(3) as usize) {
                        assert_eq!(check(&tree.root), (tree.count, tree.bytes), "seed {seed}");
                    }
                    assert_eq!((tree.count(), tree.bytes()), (0, 0));
                }
                _ => {
                    change(&mut trees[at].0, &mut random);
                    trees[at].1 = all(&trees[at].0);
                }
            }
            for (tree, expected) in &trees {
                assert_eq!(check(&tree.root), (tree.count, tree.bytes), "seed {seed}");
                assert!(all(tree) == *expected, "seed {seed}");
            }
        }
    }
}

/// Bytes of leaves of one tree that are not also those of the other.
fn own_leaves(tree: &Tree<1>, other: &Tree<1>) -> usize {
    fn leaves(node: &Node<1>, found: &mut Vec<*const Node<1>>) {
        if let Node::Inner(children) = node {
            for child in children {
                match &*child.node {
                    Node::Leaf(_) => found.push(Arc::as_ptr(&child.node)),
                    inner => leaves(inner, found),
                }
            }
        }
    }
    let (mut own, mut others) = (Vec::new(), Vec::new());
    leaves(&tree.root, &mut own);
    leaves(&other.root, &mut others);
    own.iter().filter(|leaf| !others.contains(leaf)).count()
}

#[test]
fn a_change_copies_the_way_to_it_and_nothing_else() {
    let mut tree = Tree::<1>::default();
    for n in 0..100_000_u64 {
        tree.insert(n, &[&n.to_be_bytes()], &number);
    }
    let version = tree.clone();
    assert_eq!(own_leaves(&tree, &version), 0);
    tree.replace(50_000, &[&50_000_u64.to_be_bytes()], &number);
    tree.remove(7);
    tree.insert(99_999, &[&100_000_u64.to_be_bytes()], &number);
    assert_eq!(own_leaves(&tree, &version), 3);
    drop(version);
    assert_eq!(all(&tree).len(), 100_000);
}

/// Of each child, from the top: records, bytes, number.
fn shape(node: &Node<1>) -> Vec<(u64, u64, u64)> {
    let Node::Inner(children) = node else { return Vec::new() };
    let here = children.iter().map(|child| (child.count, child.bytes, child.number));
    here.chain(children.iter().flat_map(|child| shape(&child.node))).collect()
}

/// What is built in one go is what comes from putting each record behind all others.
#[test]
fn a_tree_of_records_is_that_of_putting_them_in_one_by_one() {
    for (seed, count) in (0..).zip([0, 1, 2, 100, 300, 12_000, 60_000]) {
        let mut random = Random::new(seed);
        let longest = [100, 9000][seed as usize % 2];
        let elements = (0..count).map(|n: u64| {
            let mut element = (n << 20).to_be_bytes().to_vec();
            let length = if n % 64 == 5 { random.below(longest) } else { random.below(60) };
            element.resize(8 + length as usize, b'x');
            element
        });
        let elements: Vec<Vec<u8>> = elements.collect();
        let mut tree = Tree::<1>::of(elements.iter().map(|element| [&element[..]]), &number);
        let mut one_by_one = Tree::<1>::default();
        elements.iter().for_each(|one| one_by_one.insert(one_by_one.count(), &[one], &number));
        assert_eq!(check(&tree.root), (tree.count, tree.bytes), "{count}");
        assert_eq!(shape(&tree.root), shape(&one_by_one.root), "{count}");
        for n in (0..count).step_by(97) {
            let found = tree.search(n << 20, &|record| number(record).cmp(&(n << 20)));
            assert_eq!(found, Ok(n), "{count}");
        }
        (0..40).for_each(|_| change(&mut tree, &mut random));
        assert_eq!(check(&tree.root), (tree.count, tree.bytes), "{count}");
    }
}

/// Bytes of each leaf, in order.
fn leaf_sizes(node: &Node<1>) -> Vec<usize> {
    match node {
        Node::Leaf(leaf) => vec![leaf.size()],
        Node::Inner(children) => children.iter().flat_map(|it| leaf_sizes(&it.node)).collect(),
    }
}

#[test]
fn what_is_filled_from_one_end_is_filled_to_the_brim() {
    for from_front in [false, true] {
        let mut tree = Tree::<1>::default();
        let count = 60_000_u64;
        for n in 0..count {
            let (rank, number) = if from_front { (0, count - n) } else { (n, n) };
            tree.insert(rank, &[&(number << 20).to_be_bytes()], &self::number);
        }
        assert_eq!(check(&tree.root), (tree.count, tree.bytes));
        let sizes = leaf_sizes(&tree.root);
        let full =
            sizes.iter().filter(|size| (LEAF_BYTES_FULL - 8..=LEAF_BYTES_FULL).contains(size));
        assert_eq!(full.count(), sizes.len() - 1);
        // Who puts something into one of them finds it in two halves.
        tree.insert(500, &[&(500_u64 << 20 | 1).to_be_bytes()], &self::number);
        assert_eq!(leaf_sizes(&tree.root).len(), sizes.len() + 1);
        assert_eq!(check(&tree.root), (tree.count, tree.bytes));
    }
}
