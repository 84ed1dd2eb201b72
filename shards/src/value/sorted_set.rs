//! Sorted sets: members with scores, ordered by score and then by their bytes.
//!
//! Large ones have a tree in that order, and an index that knows where in it each member is
//! ([`super::scored`]).

use super::body::{
    Body, Place, Source, Stored, Trees, free_tree, insert_small, move_small, remove_small,
};
use super::limits::PACK_BYTES_MAX;
use super::pack::Record;
use super::score::Score;
use super::scored::{Scored, compare, number_of, score_of};
use super::{members, spot};
use std::cmp::Ordering;

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
            Stored::Tree(body) => Source::Tree(body.scored().order()),
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
        let record = match self.stored {
            Stored::Tree(body) => body.scored().record_of(&body.hasher, member),
            Stored::Pack(_) | Stored::Integers(_) => {
                members::record_of(self.source, self.stored, member)
            }
        };
        record.map(|record| score_of(&record))
    }

    /// Fetches into the cache what looking for the first
    /// [`MEMBERS_AHEAD`](super::spot::MEMBERS_AHEAD) of these members will read, if it is a
    /// large one.
    pub fn fetch<'m>(self, members: impl ExactSizeIterator<Item = &'m [u8]>) {
        spot::fetch_all(self.stored, members);
    }

    /// The rank of a member, and its score.
    pub fn rank(self, member: &[u8]) -> Option<(u64, f64)> {
        if let Stored::Tree(body) = self.stored {
            let (rank, record) = body.scored().rank_of(&body.hasher, member)?;
            return Some((rank, score_of(&record)));
        }
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
            Stored::Tree(body) => body.scored().scan(&body.hasher, cursor, count, &mut |record| {
                visit(record[0], score_of(&record));
            }),
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
            Some(_) => self.move_to(member, score),
            None => self.put(member, score),
        }
    }

    /// Puts members in, each of which comes once. Cost: into an empty one that will be large they
    /// are sorted, and written once.
    pub fn fill<'m, B: AsRef<[u8]>>(&mut self, members: &'m [(B, f64)]) {
        if self.count() > 0 || self.place.limits().sorted_set_fits(members.len() as u64) {
            members.iter().for_each(|(member, score)| self.put(member.as_ref(), *score));
            return;
        }
        let hasher = self.place.member_hasher();
        let with_bytes =
            |(member, score): &'m (B, f64)| (member.as_ref(), *score, Score::new(*score));
        let mut members: Vec<(&[u8], f64, Score)> = members.iter().map(with_bytes).collect();
        members.sort_unstable_by(|one, other| compare((one.1, one.0), (other.1, other.0)));
        let records = members.iter().map(|(member, _, score)| [*member, score.bytes()]);
        let scored = Scored::of(&hasher, records);
        self.place.grow(Body { hasher, trees: Trees::Scored(scored) });
    }

    /// Gives a member that is there another score.
    fn move_to(&mut self, member: &[u8], score: f64) {
        match self.place.stored() {
            Stored::Tree(body) => {
                let hasher = body.hasher;
                let scored = self.place.body_mut().trees.scored_mut();
                scored.change(&hasher, member, score);
            }
            Stored::Pack(bytes) if bytes.len() + size_of::<f64>() < PACK_BYTES_MAX => {
                let is_behind = |other: &Record<'_, 2>| {
                    compare((score_of(other), other[0]), (score, member)) == Ordering::Greater
                };
                move_small(&mut self.place, &[member, Score::new(score).bytes()], is_behind);
            }
            Stored::Pack(_) | Stored::Integers(_) => {
                self.take(member);
                self.put(member, score);
            }
        }
    }

    /// Takes out a member. Returns the score that it had.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let score = self.sorted_set().score(member)?;
        self.take(member);
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
        let scored = body.trees.scored_mut();
        if count == scored.order().count() {
            let trees = Trees::Scored(std::mem::take(scored));
            return self.place.discard(Body { hasher, trees });
        }
        let gone = scored.take_range(&hasher, rank, count);
        free_tree(&mut self.place, gone, |order| Trees::Scored(Scored::gone(order)));
    }

    fn take(&mut self, member: &[u8]) {
        if let Stored::Tree(_) = self.place.stored() {
            let body = self.place.body_mut();
            return body.trees.scored_mut().take(&body.hasher, member);
        }
        let (rank, _) = self.sorted_set().rank(member).expect("it is there");
        self.remove_at(rank, 1);
    }

    fn put(&mut self, member: &[u8], score: f64) {
        self.grow_for(member);
        if let Stored::Tree(_) = self.place.stored() {
            let body = self.place.body_mut();
            return body.trees.scored_mut().put(&body.hasher, member, score);
        }
        let place = self.sorted_set().find(member, score);
        let rank = place.expect_err("it is not there");
        insert_small(&mut self.place, rank, &[member, Score::new(score).bytes()]);
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
        let scored = Scored::of(&hasher, self.sorted_set().source.from(0));
        self.place.grow(Body { hasher, trees: Trees::Scored(scored) });
    }
}
