//! The trees of a large sorted set: one of its members with their scores, in order, and an index
//! that knows for each member's hash in which leaf of it the member is.
//!
//! A member lies in the order once, and its entry in the index is made of its hash and the number of
//! its leaf alone. So there is one entry for each member, which nobody takes for another's: when a
//! leaf is split or joined, the entries of those that move get the other number, and who takes a
//! member out takes out the entry with the number of its leaf.
//!
//! A long range goes as whole subtrees of the order, at once, and is swept from the index later
//! ([`super::leftovers`]). Until then its entries name leaves that the order has not.

use super::index::{Index, Lead, PageAhead, key_of};
use super::leaf::Leaf;
use super::leftovers::Leftovers;
use super::members::CURSOR_SHIFT;
use super::nodes::Nodes;
use super::pack::Record;
use super::score::{self, Score};
use super::tree::{ByOrder, Places, Trace, Tree, WayBy};
use crate::keyspace::KeyHasher;
use smallvec::SmallVec;
use std::cmp::Ordering;

/// Members that are taken out of the index at once; of more only those at the ends, and the others
/// later.
const REMOVED_AT_ONCE_MAX: u64 = 64;
/// Members of a scan whose leaves are fetched together.
const SCANNED_TOGETHER_MAX: usize = 64;
/// Members of a leaf whose entries are fetched together when it is split or joined.
const MOVED_TOGETHER: usize = 64;
/// Bytes that a member counts for in the index, whatever its page makes of it.
pub(super) const ENTRY_BYTES: u64 = 5;

/// The score of a record.
pub(super) fn score_of(record: &Record<'_, 2>) -> f64 {
    score::read(record[1])
}

/// How members stand to each other.
pub(super) fn compare(one: (f64, &[u8]), other: (f64, &[u8])) -> Ordering {
    let scores = one.0.partial_cmp(&other.0).expect("a score is a number");
    scores.then_with(|| one.1.cmp(other.1))
}

/// A number that is ordered as scores are; both zeros have the same.
pub(super) fn number_of(score: f64) -> u64 {
    let bits = (score + 0.0).to_bits();
    if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
}

fn number(record: &Record<'_, 2>) -> u64 {
    number_of(score_of(record))
}

/// Members with scores, and where they are.
#[derive(Clone, Debug, Default)]
pub(super) struct Scored {
    order: Tree<2>,
    index: Index,
    /// Numbers of the order's nodes, and of those that were cut off it and are still to be swept.
    nodes: Nodes,
    leftovers: Option<Box<Leftovers>>,
}

impl Scored {
    /// Of these members with their scores, which come in their order.
    pub(super) fn of<'r>(
        hasher: &KeyHasher,
        records: impl Iterator<Item = Record<'r, 2>>,
    ) -> Scored {
        let mut scored = Scored::default();
        let mut whereabouts = Whereabouts::new(hasher, &mut scored.index, &mut scored.nodes);
        scored.order = Tree::known(records, &number, &mut whereabouts);
        scored
    }

    /// Of what was cut off an order, only to be shed.
    pub(super) fn gone(order: Tree<2>) -> Scored {
        Scored { order, ..Scored::default() }
    }

    /// The members in their order.
    pub(super) fn order(&self) -> &Tree<2> {
        &self.order
    }

    /// The record of a member. Cost: the index, and a walk in one leaf.
    pub(super) fn record_of(&self, hasher: &KeyHasher, member: &[u8]) -> Option<Record<'_, 2>> {
        self.index.leads_of(key_of(hasher.place(member))).find_map(|Lead { leaf, eighth }| {
            let leaf = self.order.leaf_by(&self.nodes, leaf)?;
            let found = leaf.find_near(member, eighth.into())?;
            Some(leaf.record_at(found.place))
        })
    }

    /// The rank of a member and its record.
    pub(super) fn rank_of(
        &self,
        hasher: &KeyHasher,
        member: &[u8],
    ) -> Option<(u64, Record<'_, 2>)> {
        self.index.leads_of(key_of(hasher.place(member))).find_map(|Lead { leaf, eighth }| {
            let (leaf, before) = self.order.leaf_and_rank_by(&self.nodes, leaf)?;
            let found = leaf.find_near(member, eighth.into())?;
            Some((before + found.rank as u64, leaf.record_at(found.place)))
        })
    }

    /// Visits about `count` members from a cursor on, as [`super::members::scan`] does. Cost: for
    /// each a look at its leaf, and the hashes of the members near it; leaves come into the cache
    /// [`SCANNED_TOGETHER_MAX`] at a time.
    pub(super) fn scan<'a>(
        &'a self,
        hasher: &KeyHasher,
        cursor: u64,
        count: usize,
        visit: &mut dyn FnMut(Record<'a, 2>),
    ) -> u64 {
        if cursor > u64::MAX >> CURSOR_SHIFT {
            return 0;
        }
        let (mut visited, mut last, mut key) = (0, 0, key_of(cursor << CURSOR_SHIFT));
        loop {
            // The one behind the last is where the next call goes on.
            let wanted = count.saturating_sub(visited).saturating_add(1).min(SCANNED_TOGETHER_MAX);
            let mut leads = self.index.leads_from(key, wanted);
            self.fetch(&leads);
            for (hash, record) in self.members_of(hasher, &mut leads) {
                let here = hash >> CURSOR_SHIFT;
                if here < cursor {
                    continue;
                }
                if visited >= count && here != last {
                    return here;
                }
                visit(record);
                (visited, last) = (visited + 1, here);
            }
            match leads.last() {
                Some((last_key, _)) if leads.len() >= wanted => key = last_key + 1,
                _ => return 0,
            }
        }
    }

    /// Goes the ways to leaves side by side, so that what is read there is in the cache.
    fn fetch(&self, leads: &[(u32, Lead)]) {
        let ways = leads.iter().filter_map(|(_, lead)| self.order.way_by(&self.nodes, *lead));
        let mut ways: Vec<_> = ways.collect();
        while !ways.is_empty() {
            ways.retain_mut(WayBy::step);
        }
    }

    /// The members to which these leads go, which are all that their keys have, in the order of
    /// hashes and then of bytes. The leads are sorted by keys, and by leaves then.
    fn members_of(
        &self,
        hasher: &KeyHasher,
        leads: &mut [(u32, Lead)],
    ) -> Vec<(u64, Record<'_, 2>)> {
        let mut members = Vec::with_capacity(leads.len());
        leads.sort_unstable_by_key(|(key, lead)| (*key, lead.leaf));
        for leads in leads.chunk_by(|one, other| (one.0, one.1.leaf) == (other.0, other.1.leaf)) {
            let (key, Lead { leaf, eighth }) = leads[0];
            let Some(leaf) = self.order.leaf_by(&self.nodes, leaf) else { continue };
            let records = leaf.records_near(eighth.into());
            let hashed = records.map(|record| (hasher.place(record[0]), record));
            members.extend(hashed.filter(|(hash, _)| key_of(*hash) == key).take(leads.len()));
        }
        members.sort_unstable_by_key(|(hash, record)| (*hash, record[0]));
        members
    }

    /// Puts in a member with a score, which is not there.
    pub(super) fn put(&mut self, hasher: &KeyHasher, member: &[u8], score: f64) {
        let (order, mut whereabouts) = self.order_mut(hasher);
        put_into(order, &mut whereabouts, member, score);
    }

    /// Takes out a member, which is there.
    pub(super) fn take(&mut self, hasher: &KeyHasher, member: &[u8]) {
        let trace = self.trace_of(hasher, member);
        let (order, mut whereabouts) = self.order_mut(hasher);
        order.take_traced(trace, &mut whereabouts);
    }

    /// Gives a member that is there another score.
    pub(super) fn change(&mut self, hasher: &KeyHasher, member: &[u8], score: f64) {
        let trace = self.trace_of(hasher, member);
        let (order, mut whereabouts) = self.order_mut(hasher);
        whereabouts.on_the_way = OnTheWay::Expected;
        order.take_traced(trace, &mut whereabouts);
        put_into(order, &mut whereabouts, member, score);
    }

    /// Where a member is in the order that is there.
    fn trace_of(&self, hasher: &KeyHasher, member: &[u8]) -> Trace {
        let mut leads = self.index.leads_of(key_of(hasher.place(member)));
        let trace = leads.find_map(|lead| self.order.trace_by(&self.nodes, lead, member));
        trace.expect("it is there")
    }

    /// Takes out some of its members, but not all. Returns what is to be freed of them; the leaves
    /// of a long range stay until they are swept.
    pub(super) fn take_range(&mut self, hasher: &KeyHasher, rank: u64, count: u64) -> Tree<2> {
        let is_long = count > REMOVED_AT_ONCE_MAX;
        let (front, back) = if is_long { self.order.edges(rank, count) } else { (count, 0) };
        let Scored { order, index, .. } = self;
        for (rank, count) in [(rank, front), (rank + count - back, back)] {
            order.visit_in_leaves(rank, count, &mut |leaf, record| {
                index.remove(key_of(hasher.place(record[0])), leaf);
            });
        }
        let (order, mut whereabouts) = self.order_mut(hasher);
        let gone = order.take_range_from(rank, count, &mut whereabouts);
        if !is_long {
            gone.visit_nodes(&mut |node| self.nodes.give_back(node));
            return gone;
        }
        if gone.count() > 0 {
            self.leftovers.get_or_insert_default().push(gone);
        }
        Tree::default()
    }

    fn order_mut<'s>(&'s mut self, hasher: &'s KeyHasher) -> (&'s mut Tree<2>, Whereabouts<'s>) {
        let Scored { order, index, nodes, .. } = self;
        (order, Whereabouts::new(hasher, index, nodes))
    }

    /// Bytes of memory that it takes, about: a function of its members and scores alone.
    pub(super) fn bytes(&self) -> usize {
        let gone = self.leftovers.as_ref().map_or(0, |leftovers| leftovers.count());
        self.order.bytes() + (ENTRY_BYTES * self.index.count().saturating_sub(gone)) as usize
    }

    /// Is anything in the index that the order has not?
    pub(super) fn has_leftovers(&self) -> bool {
        self.leftovers.is_some()
    }

    /// Takes some of it out, up to so many leaves. Is there more?
    pub(super) fn sweep(&mut self, hasher: &KeyHasher, leaf_count: usize) -> bool {
        let Scored { index, nodes, leftovers, .. } = self;
        let mut whereabouts = Whereabouts::new(hasher, index, nodes);
        leftovers.take_if(|leftovers| !leftovers.sweep(&mut whereabouts, leaf_count));
        debug_assert!(leftovers.is_some() || self.index.count() == self.order.count());
        leftovers.is_some()
    }

    /// Drops up to so many leaves. Are there more? For one that nobody uses any more.
    pub(super) fn shed(&mut self, leaf_count: usize) -> bool {
        // They count for nothing, and what is left of them in the index neither.
        if let Some(leftovers) = &mut self.leftovers
            && leftovers.shed(leaf_count)
        {
            return true;
        }
        if self.order.count() > 0 {
            self.order.shed(leaf_count);
            return true;
        }
        let more = self.index.shed(leaf_count);
        self.leftovers.take_if(|_| !more);
        more
    }

    /// Looks whether each member, and nobody else, has an entry that leads to it, and each node a
    /// number of its own.
    #[cfg(any(test, feature = "models"))]
    pub(super) fn check(&self, hasher: &KeyHasher) {
        let mut numbers = Vec::new();
        self.order.visit_nodes(&mut |node| numbers.push(node));
        let gone = self.leftovers.as_ref().map_or(0, |leftovers| leftovers.count());
        assert_eq!(self.index.count(), self.order.count() + gone);
        let mut expected = Vec::new();
        self.order.visit_in_leaves(0, self.order.count(), &mut |leaf, record| {
            expected.push((key_of(hasher.place(record[0])), leaf));
            let found = self.order.leaf_by(&self.nodes, leaf).expect("a leaf by its number");
            assert!(found.find_near(record[0], 0).is_some());
            assert_eq!(self.record_of(hasher, record[0]), Some(record));
            let mut way = self.way(hasher, record[0]);
            while way.step() {}
            if let Stage::Order(way) = way.stage
                && self.index.leads_of(key_of(hasher.place(record[0]))).count() == 1
            {
                let leaf = way.leaf().expect("it ends at the member's leaf");
                assert!(leaf.find_near(record[0], 0).is_some());
            }
        });
        let leads = self.index.leads_from(0, usize::MAX).into_iter();
        let mut entries: Vec<_> = leads.map(|(key, lead)| (key, lead.leaf)).collect();
        let nodes: std::collections::BTreeSet<u32> = numbers.iter().copied().collect();
        assert_eq!(nodes.len(), numbers.len());
        if gone == 0 {
            expected.sort_unstable();
            entries.sort_unstable();
            assert!(entries == expected);
        }
    }

    /// The way to a member, gone step by step.
    pub(super) fn way(&self, hasher: &KeyHasher, member: &[u8]) -> MemberWay<'_> {
        let page = self.index.page_ahead(key_of(hasher.place(member)));
        MemberWay { scored: self, stage: Stage::Page(page) }
    }
}

/// Puts a member with a score into the order, where it is not.
fn put_into(order: &mut Tree<2>, places: &mut Whereabouts<'_>, member: &[u8], score: f64) {
    let bytes = Score::new(score);
    let compare = |other: &Record<'_, 2>| compare((score_of(other), other[0]), (score, member));
    let seek = ByOrder { number: number_of(score), number_of: number, compare: &compare };
    let is_new = order.put_at(seek, &[member, bytes.bytes()], places);
    debug_assert!(is_new, "it was in the order");
}

/// What knows the nodes of the order by numbers.
pub(super) struct Whereabouts<'s> {
    hasher: &'s KeyHasher,
    index: &'s mut Index,
    nodes: &'s mut Nodes,
    on_the_way: OnTheWay,
}

/// Is a member taken out of one leaf to be put into another? Its entry stays meanwhile.
enum OnTheWay {
    Nobody,
    /// It is about to be taken out.
    Expected,
    /// It was in this leaf.
    From(u32),
}

impl<'s> Whereabouts<'s> {
    fn new(hasher: &'s KeyHasher, index: &'s mut Index, nodes: &'s mut Nodes) -> Whereabouts<'s> {
        Whereabouts { hasher, index, nodes, on_the_way: OnTheWay::Nobody }
    }

    fn key_of(&self, record: &Record<'_, 2>) -> u32 {
        key_of(self.hasher.place(record[0]))
    }

    /// Fetches the entries of up to [`MOVED_TOGETHER`] keys into the cache.
    fn fetch(&self, moves: &[(u32, Lead)]) {
        let pages = moves.iter().map(|(key, _)| self.index.page_ahead(*key));
        let pages: SmallVec<[PageAhead<'_>; MOVED_TOGETHER]> = pages.collect();
        pages.iter().for_each(PageAhead::fetch);
    }
}

impl Places<2> for Whereabouts<'_> {
    fn number(&mut self) -> u32 {
        self.nodes.number()
    }

    fn set(&mut self, node: u32, parent: u32, at: usize) {
        self.nodes.set(node, parent, at);
    }

    fn gone(&mut self, node: u32) {
        self.nodes.give_back(node);
    }

    fn put(&mut self, record: &Record<'_, 2>, leaf: u32, eighth: u8) {
        let (key, lead) = (self.key_of(record), Lead { leaf, eighth });
        match std::mem::replace(&mut self.on_the_way, OnTheWay::Nobody) {
            OnTheWay::From(before) => self.index.repoint(key, before, lead),
            OnTheWay::Nobody | OnTheWay::Expected => self.index.insert(key, lead),
        }
    }

    fn taken(&mut self, record: &Record<'_, 2>, leaf: u32) {
        match self.on_the_way {
            OnTheWay::Expected => self.on_the_way = OnTheWay::From(leaf),
            OnTheWay::Nobody | OnTheWay::From(_) => self.index.remove(self.key_of(record), leaf),
        }
    }

    fn moved(&mut self, records: &Leaf<2>, from: u32, to: u32) {
        let moves = records.records_in_eighths();
        let moves = moves.map(|(record, eighth)| (self.key_of(&record), Lead { leaf: to, eighth }));
        let moves: SmallVec<[(u32, Lead); MOVED_TOGETHER]> = moves.collect();
        for moves in moves.chunks(MOVED_TOGETHER) {
            self.fetch(moves);
            for (key, lead) in moves {
                self.index.repoint(*key, from, *lead);
            }
        }
    }
}

/// The way to a member, gone step by step: through the index, and then down to the leaf.
pub(super) struct MemberWay<'a> {
    scored: &'a Scored,
    stage: Stage<'a>,
}

enum Stage<'a> {
    /// The page is on its way into the cache.
    Page(PageAhead<'a>),
    /// Its entries are.
    Entries(PageAhead<'a>),
    Order(WayBy<'a, 2>),
}

impl MemberWay<'_> {
    /// Goes on by a level, and in the leaf fetches what a search will read. Is there more to do?
    pub(super) fn step(&mut self) -> bool {
        match &mut self.stage {
            Stage::Page(page) => {
                page.fetch();
                self.stage = Stage::Entries(*page);
                true
            }
            Stage::Entries(page) => {
                let Scored { order, nodes, .. } = self.scored;
                let Some(mut way) = page.lead().and_then(|lead| order.way_by(nodes, lead)) else {
                    return false;
                };
                // The root is in the cache.
                let more = way.step();
                self.stage = Stage::Order(way);
                more
            }
            Stage::Order(way) => way.step(),
        }
    }
}
