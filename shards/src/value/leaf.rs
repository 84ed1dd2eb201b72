//! A leaf of a tree: a pack of some hundred records, and posts along it.
//!
//! A pack says nothing of where its records begin, so that finding one walks. A [`Post`] is the
//! place of one record and its rank: with seven of them, about an eighth apart, a walk passes a
//! dozen records and touches two or three lines of memory, where a leaf has thirty. Changes of the
//! records move the posts behind them; where records gather between two posts, all are set
//! anew. Where they stand decides nothing but time.

use super::pack::{self, Pack, Record, Records, Room};
use crate::keyspace::prefetch;
use std::cmp::Ordering;

/// Posts of a leaf.
const POST_COUNT: usize = 7;
/// Bytes between two posts up to which they stay where they are, whatever is around them.
const GAP_BYTES: usize = 192;

/// A record's place and rank in its leaf; its end, where there is no such record any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Post {
    place: u16,
    rank: u16,
}

/// Records in their order.
#[derive(Clone, Debug)]
pub(super) struct Leaf<const W: usize> {
    bytes: Vec<u8>,
    /// In their order, which is that of places and of ranks. All at the start in a leaf that is
    /// beyond their numbers.
    posts: [Post; POST_COUNT],
}

/// Where a search ended: at a record, or at the one before which it would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) rank: usize,
    pub(super) place: usize,
    pub(super) is_there: bool,
}

impl Found {
    /// Its rank in a tree that has so many records before the leaf.
    pub(super) fn above(self, rank: u64) -> Result<u64, u64> {
        let rank = rank + self.rank as u64;
        if self.is_there { Ok(rank) } else { Err(rank) }
    }
}

/// The eighths of a leaf, the nearest to one of them first.
fn parts_near(guess: usize) -> impl Iterator<Item = usize> {
    let around = (1..=POST_COUNT).flat_map(move |far| [Some(guess + far), guess.checked_sub(far)]);
    std::iter::once(guess).chain(around.flatten()).filter(|&part| part <= POST_COUNT)
}

impl<const W: usize> Leaf<W> {
    pub(super) fn new() -> Leaf<W> {
        Leaf { bytes: Vec::new(), posts: [Post::default(); POST_COUNT] }
    }

    /// Of the bytes of whole records.
    pub(super) fn of(records: &[u8]) -> Leaf<W> {
        let mut leaf = Leaf::new();
        Room::resize(&mut leaf.bytes, records.len());
        leaf.bytes.copy_from_slice(records);
        leaf.set_posts();
        leaf
    }

    /// Bytes of its records.
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }

    fn pack(&self) -> Pack<'_, W> {
        Pack::new(&self.bytes)
    }

    pub(super) fn records(&self) -> Records<'_, W> {
        self.pack().records()
    }

    /// The records from a rank on.
    pub(super) fn records_from(&self, rank: usize) -> Records<'_, W> {
        let after = self.posts.partition_point(|post| usize::from(post.rank) <= rank);
        let post = self.post_before(after);
        let mut records = self.pack().records_at(post.place.into());
        records.skip_some(rank - usize::from(post.rank));
        records
    }

    /// The record at a place.
    pub(super) fn record_at(&self, place: usize) -> Record<'_, W> {
        self.pack().record_at(place as u32)
    }

    fn post_before(&self, after: usize) -> Post {
        after.checked_sub(1).map_or(Post::default(), |at| self.posts[at])
    }

    /// The first record for which `before` does not hold; it must hold for none after one for which
    /// it does not.
    pub(super) fn partition_point(&self, before: &dyn Fn(&Record<'_, W>) -> bool) -> Found {
        self.search(&|record| if before(record) { Ordering::Less } else { Ordering::Greater })
    }

    /// The record that `compare` finds equal.
    pub(super) fn search(&self, compare: &dyn Fn(&Record<'_, W>) -> Ordering) -> Found {
        let after = self.posts.partition_point(|post| {
            let place = usize::from(post.place);
            place < self.size() && compare(&self.record_at(place)) == Ordering::Less
        });
        self.walk(self.post_before(after), compare)
    }

    fn walk(&self, post: Post, compare: &dyn Fn(&Record<'_, W>) -> Ordering) -> Found {
        let mut records = self.pack().records_at(post.place.into());
        let mut rank = usize::from(post.rank);
        loop {
            let place = records.place();
            let order = records.next().map_or(Ordering::Greater, |record| compare(&record));
            if order != Ordering::Less {
                return Found { rank, place, is_there: order == Ordering::Equal };
            }
            rank += 1;
        }
    }

    /// The record that begins with `member`, among records in the order of their numbers and then
    /// of their members' bytes. `guess` is the part of the leaf, in eighths, in which it is
    /// likely. Cost: about two numbers, and a walk that compares members; one that is not there
    /// costs some numbers more.
    pub(super) fn find(
        &self,
        member: &[u8],
        number: u64,
        guess: usize,
        number_of: &impl Fn(&Record<'_, W>) -> u64,
    ) -> Found {
        let is_before = |post: Post| {
            let place = usize::from(post.place);
            place < self.size() && number_of(&self.record_at(place)) < number
        };
        let mut after = guess.min(POST_COUNT);
        while after < POST_COUNT && is_before(self.posts[after]) {
            after += 1;
        }
        while after > 0 && !is_before(self.posts[after - 1]) {
            after -= 1;
        }
        let from = self.post_before(after);
        let end = self.posts.get(after).map_or(self.size(), |post| usize::from(post.place));
        let mut records = self.pack().records_at(from.place.into());
        // That at the end may be the one. More that have its number are left to the walk below.
        if let Some(passed) = records.pass_until(member, end) {
            let rank = usize::from(from.rank) + passed;
            return Found { rank, place: records.place(), is_there: true };
        }
        self.walk(from, &|record| (number_of(record), record[0]).cmp(&(number, member)))
    }

    /// The record that begins with `member`, whatever the order. `guess` is the part of the leaf, in
    /// eighths, near which it is likely. Cost: a walk through that part; all of the leaf when it is
    /// not there.
    pub(super) fn find_near(&self, member: &[u8], guess: usize) -> Option<Found> {
        parts_near(guess).find_map(|part| {
            let (from, end) = self.part(part);
            let mut records = self.pack().records_at(from.place.into());
            let rank = usize::from(from.rank) + records.pass_until(member, end)?;
            Some(Found { rank, place: records.place(), is_there: true })
        })
    }

    /// All records, those near a part of the leaf, in eighths, first.
    pub(super) fn records_near(&self, guess: usize) -> impl Iterator<Item = Record<'_, W>> {
        parts_near(guess).flat_map(|part| {
            let (from, end) = self.part(part);
            let mut records = self.pack().records_at(from.place.into());
            std::iter::from_fn(move || records.next().filter(|_| records.place() <= end))
        })
    }

    /// Where an eighth begins and ends.
    fn part(&self, part: usize) -> (Post, usize) {
        let end = self.posts.get(part).map_or(self.size(), |post| usize::from(post.place));
        (self.post_before(part), end)
    }

    /// The eighth of the leaf in which a place is: how many posts are before what is behind it.
    pub(super) fn eighth_of(&self, place: usize) -> u8 {
        self.posts.partition_point(|post| usize::from(post.place) <= place) as u8
    }

    /// All records, each with its eighth of the leaf.
    pub(super) fn records_in_eighths(&self) -> impl Iterator<Item = (Record<'_, W>, u8)> {
        let mut records = self.records();
        std::iter::from_fn(move || {
            let eighth = self.eighth_of(records.place());
            records.next().map(|record| (record, eighth))
        })
    }

    /// Where the record that begins at a place ends.
    pub(super) fn end_of(&self, place: usize) -> usize {
        let mut records = self.pack().records_at(place);
        records.skip_some(1);
        records.place()
    }

    /// Fetches what a search will read that takes an eighth of the leaf for the likely one.
    pub(super) fn fetch(&self, guess: usize) {
        const LINE: usize = 64;
        let from = usize::from(self.post_before(guess.min(POST_COUNT)).place);
        let end = self.posts.get(guess).map_or(self.size(), |post| usize::from(post.place));
        // Where a member is differs from where it is likely by some records.
        let lines = from.saturating_sub(LINE)..(end.max(from) + LINE).min(self.size());
        for line in self.bytes.get(lines).unwrap_or(&[]).chunks(LINE) {
            prefetch(line.as_ptr());
        }
    }

    /// Puts a record in at a place.
    pub(super) fn insert(&mut self, place: usize, record: &Record<'_, W>) {
        self.replace(place, place, record);
    }

    /// Puts a record in the place of the bytes from `start` to `end`: those of a record, or none.
    pub(super) fn replace(&mut self, start: usize, end: usize, record: &Record<'_, W>) {
        let size = pack::record_bytes(record);
        let (was, more) = (end - start, u16::from(end == start));
        pack::replace(&mut self.bytes, start, end, record);
        if size != was {
            self.move_posts(start, size as isize - was as isize, more);
            self.look_at_gap(start, size);
        }
    }

    /// Takes out some records from one on. Returns how many bytes they had.
    pub(super) fn remove(&mut self, rank: usize, count: usize) -> usize {
        let mut records = self.records_from(rank);
        let start = records.place();
        records.skip_some(count);
        let end = records.place();
        pack::remove(&mut self.bytes, start, end);
        for post in &mut self.posts {
            let place = usize::from(post.place);
            if place >= end {
                post.place -= (end - start) as u16;
                post.rank -= count as u16;
            } else if place > start {
                *post = Post { place: start as u16, rank: rank as u16 };
            }
        }
        end - start
    }

    /// Cuts it in two at a place.
    pub(super) fn split_off(&mut self, place: usize) -> Leaf<W> {
        let right = Leaf::of(&self.bytes[place..]);
        Room::resize(&mut self.bytes, place);
        self.set_posts();
        right
    }

    /// Appends all records of another one.
    pub(super) fn append(&mut self, other: &Leaf<W>) {
        let length = self.size();
        Room::resize(&mut self.bytes, length + other.size());
        self.bytes[length..].copy_from_slice(&other.bytes);
        self.set_posts();
    }

    /// The first record that begins in its second half, or the last one: place and rank.
    pub(super) fn middle(&self) -> (usize, usize) {
        let half = self.size() / 2;
        let after = self.posts.partition_point(|post| usize::from(post.place) <= half);
        let post = self.post_before(after);
        let mut records = self.pack().records_at(post.place.into());
        let (mut rank, mut last) = (usize::from(post.rank), (post.place.into(), post.rank.into()));
        while records.place() < self.size() {
            last = (records.place(), rank);
            if records.place() >= half {
                break;
            }
            records.skip_some(1);
            rank += 1;
        }
        last
    }

    /// Records behind `place` have moved by so many bytes and ranks.
    fn move_posts(&mut self, place: usize, bytes: isize, ranks: u16) {
        if self.size() > usize::from(u16::MAX) {
            self.posts = [Post::default(); POST_COUNT];
            return;
        }
        for post in &mut self.posts {
            if usize::from(post.place) > place {
                // Modulo 2^16, in which the result lies.
                post.place = post.place.wrapping_add(bytes as u16);
                post.rank += ranks;
            }
        }
    }

    /// Sets the posts anew if those around a place are too far apart.
    fn look_at_gap(&mut self, place: usize, grown: usize) {
        let after = self.posts.partition_point(|post| usize::from(post.place) <= place);
        let end = self.posts.get(after).map_or(self.size(), |post| usize::from(post.place));
        let gap = end - usize::from(self.post_before(after).place);
        if gap > (self.size() / 4).max(GAP_BYTES).max(4 * grown) {
            self.set_posts();
        }
    }

    /// Sets the posts where they are equally far from each other.
    fn set_posts(&mut self) {
        self.posts = [Post::default(); POST_COUNT];
        if self.size() > usize::from(u16::MAX) || self.size() <= GAP_BYTES {
            return;
        }
        let step = self.size() / (POST_COUNT + 1);
        let mut records = Pack::<W>::new(&self.bytes).records();
        let mut rank = 0;
        for (post, number) in self.posts.iter_mut().zip(1..) {
            while records.place() < number * step {
                records.skip_some(1);
                rank += 1;
            }
            *post = Post { place: records.place() as u16, rank };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Every post is where a record begins, or the end, and has its rank; a walk between two is not
    /// long.
    fn check<const W: usize>(leaf: &Leaf<W>) {
        let mut records = leaf.records();
        let mut places = vec![];
        while records.place() < leaf.size() {
            places.push(records.place());
            records.skip_some(1);
        }
        places.push(leaf.size());
        for post in leaf.posts {
            assert_eq!(places.get(usize::from(post.rank)), Some(&post.place.into()), "{post:?}");
        }
        assert!(leaf.posts.is_sorted_by_key(|post| post.place));
    }

    fn number_of(record: &Record<'_, 2>) -> u64 {
        // Many have the same.
        u64::from(record[0][0]) % 16
    }

    #[test]
    fn posts_stay_at_records_whatever_changes() {
        for seed in 0..40_u64 {
            let mut random = Random::new(seed);
            let mut leaf = Leaf::<2>::new();
            let mut model: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
            let longest = [4, 30, 600, 40_000][seed as usize % 4];
            for _ in 0..600 {
                let rank = random.below(model.len() as u64 + 1) as usize;
                let value = vec![b'v'; random.below(longest) as usize];
                let key = random.below(1 << 30).to_le_bytes().to_vec();
                match random.below(8) {
                    0..5 if leaf.size() < 100_000 => {
                        let place = leaf.records_from(rank).place();
                        leaf.insert(place, &[&key, &value]);
                        model.insert(rank, (key, value));
                    }
                    5 if rank < model.len() => {
                        let mut records = leaf.records_from(rank);
                        let start = records.place();
                        records.skip_some(1);
                        let end = records.place();
                        leaf.replace(start, end, &[&key, &value]);
                        model[rank] = (key, value);
                    }
                    _ => {
                        let count = (random.below(6) as usize).min(model.len() - rank);
                        leaf.remove(rank, count);
                        model.drain(rank..rank + count);
                    }
                }
                check(&leaf);
            }
            let read: Vec<_> = leaf.records().map(|[k, v]| (k.to_vec(), v.to_vec())).collect();
            assert_eq!(read, model, "seed {seed}");
            for (rank, (key, _)) in model.iter().enumerate() {
                let found = leaf.records_from(rank).next();
                assert_eq!(found.map(|record| record[0]), Some(&key[..]), "seed {seed}");
                let guess = [rank % 8, leaf.eighth_of(leaf.records_from(rank).place()).into()];
                for guess in guess {
                    let found = leaf.find_near(key, guess).expect("it is there");
                    assert_eq!(model[found.rank].0, *key, "seed {seed}");
                    assert_eq!(leaf.record_at(found.place)[0], key, "seed {seed}");
                }
            }
            for guess in 0..8 {
                let mut near: Vec<_> = leaf.records_near(guess).map(|record| record[0]).collect();
                let mut all: Vec<_> = model.iter().map(|(key, _)| &key[..]).collect();
                near.sort_unstable();
                all.sort_unstable();
                assert_eq!(near, all, "seed {seed}");
            }
            assert!((0..8).all(|guess| leaf.find_near(b"missing", guess).is_none()));
            assert!((0..8).all(|guess| leaf.find_near(b"", guess).is_none()));
        }
    }

    #[test]
    fn members_are_found_from_any_guess() {
        for seed in 0..20_u64 {
            let mut random = Random::new(seed);
            let mut leaf = Leaf::<2>::new();
            let mut members: Vec<Vec<u8>> =
                (0..80 + seed).map(|_| random.below(1 << 40).to_le_bytes()[..5].to_vec()).collect();
            members.sort_by_key(|member| (number_of(&[member, b""]), member.clone()));
            members.dedup();
            let (there, missing): (Vec<_>, Vec<_>) =
                members.iter().partition(|member| member[1] % 4 != 0);
            for (rank, member) in there.iter().enumerate() {
                let place = leaf.records_from(rank).place();
                leaf.insert(place, &[member, b"value"]);
            }
            check(&leaf);
            for member in &members {
                let number = number_of(&[member, b""]);
                let rank = there
                    .partition_point(|other| (number_of(&[other, b""]), *other) < (number, member));
                for guess in 0..=POST_COUNT + 1 {
                    let found = leaf.find(member, number, guess, &number_of);
                    let is_there = !missing.contains(&member);
                    assert_eq!((found.rank, found.is_there), (rank, is_there), "seed {seed}");
                    assert_eq!(found.place, leaf.records_from(rank).place());
                }
            }
        }
    }

    #[test]
    fn halves_have_what_the_whole_had() {
        for count in [2, 3, 50, 300] {
            let mut leaf = Leaf::<1>::new();
            for n in 0..count {
                let place = leaf.size();
                leaf.insert(place, &[n.to_string().as_bytes()]);
            }
            let whole = leaf.clone();
            let (place, rank) = leaf.middle();
            let right = leaf.split_off(place);
            check(&leaf);
            check(&right);
            assert_eq!(leaf.records().count(), rank);
            assert!(leaf.size() * 2 >= whole.size() || rank + 1 == count);
            leaf.append(&right);
            check(&leaf);
            assert!(leaf.records().eq(whole.records()));
        }
    }
}
