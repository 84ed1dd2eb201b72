//! Sorted sets: members with scores, ordered by score and then by their bytes.
//!
//! Large ones have two trees: one in that order, one by the members' hashes that knows each one's
//! score.

use super::body::{
    Body, Place, Source, Stored, Trees, free_tree, insert_small, remove_small, tree_of,
};
use super::limits::PACK_BYTES_MAX;
use super::pack::{Record, record_bytes};
use super::score::{self, Score};
use super::tree::{ByOrder, Tree};
use super::{members, spot};
use std::cmp::Ordering;

/// Members that are taken out of the index at once; of more only those at the ends, and the others
/// later.
const REMOVED_AT_ONCE_MAX: u64 = 64;

/// A sorted set that is read.
#[derive(Clone, Copy, Debug)]
pub struct SortedSet<'a> {
    pub(super) stored: Stored<'a>,
    source: Source<'a, 2>,
}

impl<'a> SortedSet<'a> {
    /// The sorted set that is stored here.
    pub fn new(stored: Stored<'a>) -> SortedSet<'a> {
        let source = match stored {
            Stored::Pack(bytes) | Stored::Integers(bytes) => Source::small(bytes),
            Stored::Tree(body) => Source::Tree(body.scored().0),
        };
        SortedSet { stored, source }
    }

    /// Count of members.
    pub fn count(self) -> u64 {
        self.source.count()
    }

    /// Does it have the form of large ones?
    pub fn is_large(self) -> bool {
        matches!(self.stored, Stored::Tree(_))
    }

    /// The score of a member.
    pub fn score(self, member: &[u8]) -> Option<f64> {
        let Stored::Tree(body) = self.stored else {
            let record = members::record_of(self.source, self.stored, member);
            return record.map(|record| score_of(&record));
        };
        let (order, index) = body.scored();
        let record = members::record_of(Source::Tree(index), self.stored, member)?;
        (index.count() == order.count() || has(order, &record)).then(|| score_of(&record))
    }

    /// Fetches into the cache what looking for the first
    /// [`MEMBERS_AHEAD`](super::spot::MEMBERS_AHEAD) of these members will read, if it is a
    /// large one.
    pub fn fetch<'m>(self, members: impl ExactSizeIterator<Item = &'m [u8]>) {
        spot::fetch_all(self.stored, members);
    }

    /// The rank of a member, and its score.
    pub fn rank(self, member: &[u8]) -> Option<(u64, f64)> {
        let score = self.score(member)?;
        self.find(member, score).ok().map(|rank| (rank, score))
    }

    /// The member of a rank, and its score.
    pub fn at(self, rank: u64) -> Option<(&'a [u8], f64)> {
        self.source.get(rank).map(|record| (record[0], score_of(&record)))
    }

    /// Members and scores from a rank on.
    pub fn members_from(self, rank: u64) -> impl Iterator<Item = (&'a [u8], f64)> {
        self.source.from(rank).map(|record| (record[0], score_of(&record)))
    }

    /// Members and scores from a rank on backwards, that one included.
    pub fn members_back_from(self, rank: u64) -> impl Iterator<Item = (&'a [u8], f64)> {
        self.source.back_from(rank).map(|record| (record[0], score_of(&record)))
    }

    /// Visits about `count` members and scores from a cursor on, 0 at first, all of a small sorted
    /// set. Returns the cursor to go on with, 0 at the end; every member that stays is visited.
    pub fn scan(self, cursor: u64, count: usize, visit: &mut dyn FnMut(&'a [u8], f64)) -> u64 {
        match self.stored {
            Stored::Tree(body) => {
                let (order, index) = body.scored();
                let is_whole = index.count() == order.count();
                members::scan(index, body.hasher, cursor, count, &mut |record| {
                    if is_whole || has(order, &record) {
                        visit(record[0], score_of(&record));
                    }
                })
            }
            Stored::Pack(_) | Stored::Integers(_) => {
                self.members_from(0).for_each(|(member, score)| visit(member, score));
                0
            }
        }
    }

    /// How many members come first for which `before` holds; it must hold for none after one for
    /// which it does not. So the ends of ranges by score or by bytes become ranks.
    pub fn partition_point(self, before: impl Fn(&[u8], f64) -> bool) -> u64 {
        self.source.partition_point(&|record| before(record[0], score_of(record)))
    }

    /// The same, where `before` holds for all members with a score below `score` and for none with
    /// one above it. Cost: some comparisons of scores, less than without one.
    pub fn partition_point_at(self, score: f64, before: impl Fn(&[u8], f64) -> bool) -> u64 {
        let before = |record: &Record<'_, 2>| before(record[0], score_of(record));
        self.source.partition_point_at(number_of(score), &before)
    }

    /// The rank of a member with a score, or the one that it would have.
    fn find(self, member: &[u8], score: f64) -> Result<u64, u64> {
        let compare =
            |record: &Record<'_, 2>| compare((score_of(record), record[0]), (score, member));
        match self.source {
            Source::Tree(tree) => tree.search(number_of(score), &compare),
            Source::Pack(..) => {
                let before = |record: &Record<'_, 2>| compare(record) == Ordering::Less;
                let rank = self.source.partition_point(&before);
                let is_there = self.source.get(rank).is_some_and(|record| compare(&record).is_eq());
                if is_there { Ok(rank) } else { Err(rank) }
            }
        }
    }
}

fn score_of(record: &Record<'_, 2>) -> f64 {
    score::read(record[1])
}

/// Has an order this member with this score?
pub(super) fn has(order: &Tree<2>, record: &Record<'_, 2>) -> bool {
    let wanted = (score_of(record), record[0]);
    let compared = |other: &Record<'_, 2>| compare((score_of(other), other[0]), wanted);
    order.search(number_of(wanted.0), &compared).is_ok()
}

fn compare(one: (f64, &[u8]), other: (f64, &[u8])) -> Ordering {
    let scores = one.0.partial_cmp(&other.0).expect("a score is a number");
    scores.then_with(|| one.1.cmp(other.1))
}

/// A number that is ordered as scores are; both zeros have the same.
fn number_of(score: f64) -> u64 {
    let bits = (score + 0.0).to_bits();
    if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
}

fn number(record: &Record<'_, 2>) -> u64 {
    number_of(score_of(record))
}

/// Puts a member with a score into the order, where it is not.
fn put_into(order: &mut Tree<2>, record: &Record<'_, 2>, score: f64) {
    let compare = |other: &Record<'_, 2>| compare((score_of(other), other[0]), (score, record[0]));
    let seek = ByOrder { number: number_of(score), number_of: number, compare: &compare };
    let is_new = order.put_at(seek, record);
    debug_assert!(is_new, "it was in the order");
}

/// Takes a member with a score out of the order, where it is.
fn take_from(order: &mut Tree<2>, member: &[u8], score: f64) {
    let compare = |other: &Record<'_, 2>| compare((score_of(other), other[0]), (score, member));
    let seek = ByOrder { number: number_of(score), number_of: number, compare: &compare };
    let was_there = order.take_at(seek);
    debug_assert!(was_there, "every member is in both trees");
}

/// A sorted set that is changed.
pub struct SortedSetMut<P: Place> {
    place: P,
}

impl<P: Place> SortedSetMut<P> {
    /// The sorted set that lies here.
    pub fn new(place: P) -> SortedSetMut<P> {
        SortedSetMut { place }
    }

    /// The sorted set as it is.
    pub fn sorted_set(&self) -> SortedSet<'_> {
        SortedSet::new(self.place.stored())
    }

    /// Count of members.
    pub fn count(&self) -> u64 {
        self.sorted_set().count()
    }

    /// Gives a member a score, which is a number. Returns the score that it had; nothing changes
    /// when that is the same to the last bit.
    pub fn set(&mut self, member: &[u8], score: f64) -> Option<f64> {
        let before = self.sorted_set().score(member);
        self.set_from(before, member, score);
        before
    }

    /// The same for a member whose score is known.
    pub fn set_from(&mut self, before: Option<f64>, member: &[u8], score: f64) {
        if before.is_some_and(|before| before.to_bits() == score.to_bits()) {
            return;
        }
        match before {
            Some(before) => self.move_to(member, before, score),
            None => self.put(member, score),
        }
    }

    /// Gives a member that is there another score.
    fn move_to(&mut self, member: &[u8], before: f64, score: f64) {
        let Stored::Tree(body) = self.place.stored() else {
            self.take(member, before);
            return self.put(member, score);
        };
        let hasher = body.hasher;
        let bytes = Score::new(score);
        let record = [member, bytes.bytes()];
        let (order, index, _) = self.place.body_mut().trees.scored_mut();
        index.put_member(&record, hasher.place(member), &members::number(hasher));
        take_from(order, member, before);
        put_into(order, &record, score);
    }

    /// Takes out a member. Returns the score that it had.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let score = self.sorted_set().score(member)?;
        self.take(member, score);
        Some(score)
    }

    /// Takes out up to `count` members from a rank on.
    pub fn remove_at(&mut self, rank: u64, count: u64) {
        let count = count.min(self.count().saturating_sub(rank));
        if count == 0 {
            return;
        }
        if !matches!(self.place.stored(), Stored::Tree(_)) {
            return remove_small::<2>(&mut self.place, rank, count);
        }
        let body = self.place.body_mut();
        let hasher = body.hasher;
        let (order, index, leftovers) = body.trees.scored_mut();
        if count == order.count() {
            let (order, index) = (std::mem::take(order), std::mem::take(index));
            let trees = Trees::Scored { order, index, leftovers: leftovers.take() };
            return self.place.discard(Body { hasher, trees });
        }
        // A long range goes in whole leaves, whose members are swept from the index later.
        let (front, back) = match count > REMOVED_AT_ONCE_MAX {
            true => order.edges(rank, count),
            false => (count, 0),
        };
        let edges = order.records_from(rank).take(front as usize);
        for record in edges.chain(order.records_from(rank + count - back).take(back as usize)) {
            let hash = hasher.place(record[0]);
            index.take_member(record[0], hash, &members::number(hasher));
        }
        let gone = order.take_range(rank, count);
        if count > REMOVED_AT_ONCE_MAX {
            if gone.count() > 0 {
                leftovers.get_or_insert_default().push(gone);
            }
            return;
        }
        let scored = |order| Trees::Scored { order, index: Tree::default(), leftovers: None };
        free_tree(&mut self.place, gone, scored);
    }

    fn take(&mut self, member: &[u8], score: f64) {
        if let Stored::Tree(_) = self.place.stored() {
            let body = self.place.body_mut();
            let (order, index, _) = body.trees.scored_mut();
            index.take_member(member, body.hasher.place(member), &members::number(body.hasher));
            return take_from(order, member, score);
        }
        let found = self.sorted_set().find(member, score);
        let rank = found.expect("it has this score");
        self.remove_at(rank, 1);
    }

    fn put(&mut self, member: &[u8], score: f64) {
        self.grow_for(member);
        let bytes = Score::new(score);
        let record = [member, bytes.bytes()];
        if let Stored::Tree(_) = self.place.stored() {
            let body = self.place.body_mut();
            let (hash, by_hash) = (body.hasher.place(member), members::number(body.hasher));
            let (order, index, leftovers) = body.trees.scored_mut();
            if let Some(leftovers) = leftovers
                && let Some(before) = index.record_of(member, hash, &by_hash)
            {
                leftovers.readd(record_bytes(&before));
            }
            index.put_member(&record, hash, &by_hash);
            return put_into(order, &record, score);
        }
        let place = self.sorted_set().find(member, score);
        let rank = place.expect_err("it is not there");
        insert_small(&mut self.place, rank, &record);
    }

    fn grow_for(&mut self, member: &[u8]) {
        let Stored::Pack(bytes) = self.place.stored() else { return };
        let limits = self.place.limits();
        let fits = limits.sorted_set_fits(self.count() + 1)
            && member.len() as u64 <= limits.sorted_set_value
            && bytes.len() + member.len() < PACK_BYTES_MAX;
        if !fits {
            self.grow();
        }
    }

    /// Makes it a tree.
    pub(super) fn grow(&mut self) {
        if matches!(self.place.stored(), Stored::Tree(_)) {
            return;
        }
        let hasher = self.place.member_hasher();
        let source = self.sorted_set().source;
        let order = tree_of(source.from(0), &number);
        let records = members::in_order(source, hasher);
        let index = tree_of(records.into_iter(), &members::number(hasher));
        self.place.grow(Body { hasher, trees: Trees::Scored { order, index, leftovers: None } });
    }
}
