//! Members that come once: finding them, and their order in trees, by hash and then by their bytes.

use super::body::{Source, Stored};
use super::pack::Record;
use super::tree::Tree;
use crate::keyspace::KeyHasher;
use std::cmp::Ordering;

/// The number by which a tree places a record: the hash of its first element.
pub(super) fn number<const W: usize>(hasher: KeyHasher) -> impl Fn(&Record<'_, W>) -> u64 {
    move |record| hasher.place(record[0])
}

/// The rank of a member among records that begin with one, or the rank that it would have.
/// Cost: in a pack a walk, in a tree some comparisons.
pub(super) fn find<const W: usize>(
    source: Source<'_, W>,
    stored: Stored<'_>,
    member: &[u8],
) -> Result<u64, u64> {
    match (source, stored) {
        (Source::Tree(tree), Stored::Tree(body)) => {
            tree.rank_of(member, body.hasher.place(member), &number(body.hasher))
        }
        (Source::Pack(pack, count), _) => pack.rank_of(member).map(|rank| rank as u64).ok_or(count),
        (Source::Tree(_), _) => unreachable!("a tree lies in a body"),
    }
}

/// The record that begins with a member. Cost: as [`find`], without the rank.
pub(super) fn record_of<'a, const W: usize>(
    source: Source<'a, W>,
    stored: Stored<'a>,
    member: &[u8],
) -> Option<Record<'a, W>> {
    match (source, stored) {
        (Source::Tree(tree), Stored::Tree(body)) => {
            tree.record_of(member, body.hasher.place(member), &number(body.hasher))
        }
        (Source::Pack(pack, _), _) => pack.record_of(member),
        (Source::Tree(_), _) => unreachable!("a tree lies in a body"),
    }
}

/// Bits of a hash that a cursor has not, so that cursors stay below 2^48: clients keep them as
/// signed or floating-point numbers.
pub(super) const CURSOR_SHIFT: u32 = 16;

/// Visits records of a tree in the order of their first elements' hashes, from a cursor on, 0 at
/// first: `count` of them, and those whose cursor is that of the last. Returns the cursor to go on
/// with, 0 at the end. What stays is visited, whatever comes and goes between two calls, on every
/// replica and after a restart.
pub(super) fn scan<'a, const W: usize>(
    tree: &'a Tree<W>,
    hasher: KeyHasher,
    cursor: u64,
    count: usize,
    visit: &mut dyn FnMut(Record<'a, W>),
) -> u64 {
    let cursor_of = |record: &Record<'_, W>| hasher.place(record[0]) >> CURSOR_SHIFT;
    if cursor > u64::MAX >> CURSOR_SHIFT {
        return 0;
    }
    let from = tree.search(cursor << CURSOR_SHIFT, &|record| match cursor_of(record) < cursor {
        true => Ordering::Less,
        false => Ordering::Greater,
    });
    let (Ok(rank) | Err(rank)) = from;
    let (mut visited, mut last) = (0, 0);
    for record in tree.records_from(rank) {
        let here = cursor_of(&record);
        if visited >= count && here != last {
            return here;
        }
        visit(record);
        (visited, last) = (visited + 1, here);
    }
    0
}

/// Records in the order in which a tree keeps them. Cost: one hash for each.
pub(super) fn sorted<'r, const W: usize>(
    records: impl Iterator<Item = Record<'r, W>>,
    hasher: KeyHasher,
) -> impl Iterator<Item = Record<'r, W>> {
    let placed = records.map(|record| (hasher.place(record[0]), record));
    let mut placed: Vec<(u64, Record<'r, W>)> = placed.collect();
    placed.sort_unstable_by(|one, other| (one.0, one.1[0]).cmp(&(other.0, other.1[0])));
    placed.into_iter().map(|(_, record)| record)
}
