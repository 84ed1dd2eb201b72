//! In which leaf each member of a large sorted set is, by the member's hash: an index that holds no
//! members.
//!
//! An entry is a *key*, the first [`KEY_BITS`] bits of a hash, and a *lead*: the number of a leaf
//! ([`super::nodes`]) and about where in it. Who looks for a member follows the leads of its key, and
//! sees by its bytes whether it is there: the index says where it may be, never that it is. Members
//! with one key are as many entries, equal ones too.
//!
//! Entries lie in *pages*, in the order of keys. All keys of a page begin with the same bits, as
//! many as its depth, which its entries do not say. An entry has as many whole bytes as the others
//! of its page: what is left of its key, and below it, in the bits behind, the lead. The more
//! members, the fewer bits are left of a key and the more has a lead: together they stay about
//! four bytes. A page with too many entries is split by the next bit, and joined with its other half
//! when both have few; keys are spread evenly, so that is all the balance there is.
//!
//! *Forks* lead to pages: their slots are the next bits of a key, up to [`FORK_BITS_MAX`] of them. A
//! page of fewer bits stands in the first of its slots, and the others are empty.
//!
//! A clone shares everything below the root, as trees do ([`super::tree`]).

use super::pack::Room;
use crate::keyspace::prefetch;
use triomphe::Arc;

/// Bits of a hash that an entry knows. Among so many members as this has keys, a search reads one
/// leaf in vain.
const KEY_BITS: u32 = 26;
/// Entries of a page; one whose keys are all equal may have more.
const ENTRIES_MAX: usize = 320;
/// A page below this joins its other half.
const ENTRIES_MIN: usize = 96;
/// What two pages may have together to become one.
const ENTRIES_JOINED: usize = 224;
/// Bits of a key that a fork tells apart.
const FORK_BITS_MAX: u32 = 6;

/// The key of a member with this hash: keys are in the order of hashes.
pub(super) fn key_of(hash: u64) -> u32 {
    (hash >> (u64::BITS - KEY_BITS)) as u32
}

/// Bits of a leaf's eighth.
const EIGHTH_BITS: u32 = 3;

/// Where a member is to be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lead {
    /// The number of its leaf, below 2^29.
    pub(super) leaf: u32,
    /// The eighth of the leaf in which it was when that was last written: it is not far from there.
    pub(super) eighth: u8,
}

impl Lead {
    fn bits(self) -> u32 {
        self.leaf << EIGHTH_BITS | u32::from(self.eighth)
    }

    fn of(bits: u32) -> Lead {
        let eighth = bits & ((1 << EIGHTH_BITS) - 1);
        Lead { leaf: bits >> EIGHTH_BITS, eighth: eighth as u8 }
    }
}

/// Keys and leads to their members.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    root: Node,
    count: u64,
}

#[derive(Clone, Debug)]
enum Node {
    Page(Page),
    Fork(Fork),
}

impl Default for Node {
    fn default() -> Node {
        Node::Page(Page::default())
    }
}

impl Index {
    /// Count of entries.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// A lead to each of a key's members.
    pub(super) fn leads_of(&self, key: u32) -> impl Iterator<Item = Lead> {
        let page = self.page_of(key);
        page.leads_of(page.rest_of(key)).map(Lead::of)
    }

    fn page_of(&self, key: u32) -> &Page {
        let mut node = &self.root;
        loop {
            match node {
                Node::Page(page) => return page,
                Node::Fork(fork) => node = fork.child(key),
            }
        }
    }

    /// The page of a key, on its way into the cache: forks are few, and mostly there.
    pub(super) fn page_ahead(&self, key: u32) -> PageAhead<'_> {
        let page = self.page_of(key);
        prefetch(std::ptr::from_ref(page).cast());
        PageAhead { page, rest: page.rest_of(key) }
    }

    /// Adds an entry.
    pub(super) fn insert(&mut self, key: u32, lead: Lead) {
        self.count += 1;
        if let Some(right) = self.root.insert(key, lead) {
            let left = std::mem::take(&mut self.root);
            let slots = vec![Some(Arc::new(left)), Some(Arc::new(Node::Page(right)))];
            self.root = Node::Fork(Fork { slots, depth: 0 });
        }
    }

    /// Takes out the entry of a member of a leaf, which is there.
    pub(super) fn remove(&mut self, key: u32, leaf: u32) {
        let was_there = self.root.remove(key, leaf);
        debug_assert!(was_there, "every member has an entry");
        self.count -= u64::from(was_there);
    }

    /// A member of a leaf is elsewhere now, there or in another one.
    pub(super) fn repoint(&mut self, key: u32, from: u32, to: Lead) {
        let was_there = self.root.repoint(key, from, to);
        debug_assert!(was_there, "every member has an entry");
    }

    /// Leads of the keys from one on, in the order of keys: at least `count`, if there are so many,
    /// and all of the last key.
    pub(super) fn leads_from(&self, mut key: u32, count: usize) -> Vec<(u32, Lead)> {
        let mut leads = Vec::new();
        while leads.len() < count && key >> KEY_BITS == 0 {
            let page = self.page_of(key);
            let page_keys = 1 << (KEY_BITS - u32::from(page.depth));
            let first_key = key & !(page_keys - 1);
            let mut at = page.first_of(page.rest_of(key));
            while at < page.count() && leads.len() < count {
                let (rest, before) = (page.rest(at), leads.len());
                leads.extend(page.leads_of(rest).map(|bits| (first_key | rest, Lead::of(bits))));
                at += leads.len() - before;
            }
            key = first_key + page_keys;
        }
        leads
    }

    /// Drops up to so many pages. Are there more? For one that nobody uses any more.
    pub(super) fn shed(&mut self, mut page_count: usize) -> bool {
        while page_count > 0
            && let Node::Fork(fork) = &mut self.root
        {
            page_count -= 1;
            self.count -= fork.drop_last_page();
            if fork.slots.is_empty() {
                *self = Index::default();
            }
        }
        if page_count > 0 {
            *self = Index::default();
        }
        self.count > 0
    }
}

impl Node {
    /// Returns the page that was split off to the right.
    fn insert(&mut self, key: u32, lead: Lead) -> Option<Page> {
        match self {
            Node::Page(page) => {
                page.insert(page.rest_of(key), lead.bits());
                page.split()
            }
            Node::Fork(fork) => {
                let at = fork.slot_of(key);
                if let Some(right) = fork.child_mut(at).insert(key, lead) {
                    fork.add(at, right);
                }
                None
            }
        }
    }

    /// Was it there?
    fn remove(&mut self, key: u32, leaf: u32) -> bool {
        match self {
            Node::Page(page) => page.remove(page.rest_of(key), leaf),
            Node::Fork(fork) => {
                let at = fork.slot_of(key);
                let was_there = fork.child_mut(at).remove(key, leaf);
                fork.join(at);
                if fork.slots.len() == 1
                    && let Some(page) = fork.slots.pop().flatten()
                {
                    *self = Arc::unwrap_or_clone(page);
                }
                was_there
            }
        }
    }

    /// Was it there?
    fn repoint(&mut self, key: u32, from: u32, to: Lead) -> bool {
        match self {
            Node::Page(page) => page.repoint(page.rest_of(key), from, to.bits()),
            Node::Fork(fork) => {
                let at = fork.slot_of(key);
                fork.child_mut(at).repoint(key, from, to)
            }
        }
    }
}

/// Ways to pages by the next bits of keys.
#[derive(Clone, Debug)]
struct Fork {
    /// A power of two of them; the first one is never empty.
    slots: Vec<Option<Arc<Node>>>,
    /// Bits of keys before those of its slots.
    depth: u8,
}

impl Fork {
    fn bits(&self) -> u32 {
        self.slots.len().trailing_zeros()
    }

    /// The slot of what has a key.
    fn slot_of(&self, key: u32) -> usize {
        let shift = KEY_BITS - u32::from(self.depth) - self.bits();
        let mut at = (key >> shift) as usize & (self.slots.len() - 1);
        while self.slots[at].is_none() {
            // Without its last bit: nearer to the first slot of the page that this one is of.
            at &= at - 1;
        }
        at
    }

    fn child(&self, key: u32) -> &Node {
        self.slots[self.slot_of(key)].as_ref().expect("the slot of a key is filled")
    }

    fn child_mut(&mut self, at: usize) -> &mut Node {
        Arc::make_mut(self.slots[at].as_mut().expect("the slot of a key is filled"))
    }

    /// Adds what was split off the page of a slot.
    fn add(&mut self, mut at: usize, right: Page) {
        let own_bits = u32::from(right.depth - self.depth);
        let (bits, depth) = (self.bits(), right.depth - 1);
        let right = Some(Arc::new(Node::Page(right)));
        if own_bits > bits {
            if bits == FORK_BITS_MAX {
                let slots = vec![self.slots[at].take(), right];
                self.slots[at] = Some(Arc::new(Node::Fork(Fork { slots, depth })));
                return;
            }
            let mut slots = Vec::with_capacity(2 * self.slots.len());
            slots.extend(self.slots.drain(..).flat_map(|slot| [slot, None]));
            self.slots = slots;
            at *= 2;
        }
        let half = 1 << (self.bits() - own_bits);
        self.slots[at + half] = right;
    }

    /// Joins the page of a slot with its other half if both have few entries, and so on.
    fn join(&mut self, mut at: usize) {
        while let Some(other_at) = self.other_half(at) {
            let right = self.slots[at.max(other_at)].take();
            at = at.min(other_at);
            if let (Some(Node::Page(right)), Node::Page(left)) =
                (right.as_deref(), self.child_mut(at))
            {
                left.append(right);
            }
        }
        while self.slots.len() > 1 && self.slots.iter().skip(1).step_by(2).all(Option::is_none) {
            self.slots = self.slots.drain(..).step_by(2).collect();
        }
    }

    /// Where the page is that is to be joined with the one of a slot.
    fn other_half(&self, at: usize) -> Option<usize> {
        let page_at = |at: usize| match self.slots[at].as_deref() {
            Some(Node::Page(page)) => Some(page),
            _ => None,
        };
        let page = page_at(at).filter(|page| page.count() < ENTRIES_MIN)?;
        let own_bits = u32::from(page.depth - self.depth);
        if own_bits == 0 {
            // It has all slots.
            return None;
        }
        let other_at = at ^ (1 << (self.bits() - own_bits));
        let other = page_at(other_at)?;
        let fits = other.depth == page.depth && other.count() + page.count() <= ENTRIES_JOINED;
        fits.then_some(other_at)
    }

    /// Returns how many entries were in it; none, when it goes with a node that another index
    /// shares.
    fn drop_last_page(&mut self) -> u64 {
        let last = self.slots.iter().rposition(Option::is_some).unwrap_or(0);
        self.slots.truncate(last + 1);
        let Some(node) = self.slots.pop().flatten().and_then(Arc::into_unique) else { return 0 };
        let mut node = node;
        match &mut *node {
            Node::Page(page) => page.count() as u64,
            Node::Fork(fork) => {
                let gone = fork.drop_last_page();
                if !fork.slots.is_empty() {
                    self.slots.push(Some(node.shareable()));
                }
                gone
            }
        }
    }
}

/// Entries whose keys begin alike.
#[derive(Clone, Debug)]
struct Page {
    bytes: Vec<u8>,
    count: u32,
    /// Bits in which all keys agree.
    depth: u8,
    /// Bytes of an entry.
    width: u8,
}

impl Default for Page {
    fn default() -> Page {
        Page::of(0, [].into_iter())
    }
}

/// Bytes of an entry with so many bits of a key and the bits of a lead.
fn width_of(rest_bits: u32, lead: u32) -> u8 {
    let lead_bits = u32::BITS - lead.leading_zeros();
    (rest_bits + lead_bits).div_ceil(8).max(1) as u8
}

impl Page {
    /// Of what is left of keys behind `depth` bits, and leads, in their order.
    fn of(depth: u8, entries: impl Iterator<Item = (u32, u32)> + Clone) -> Page {
        let lead_max = entries.clone().map(|(_, lead)| lead).max().unwrap_or(0);
        let width = width_of(KEY_BITS - u32::from(depth), lead_max);
        let mut page = Page { bytes: Vec::new(), count: 0, depth, width };
        Room::resize(&mut page.bytes, entries.clone().count() * usize::from(width));
        for (rest, lead) in entries {
            page.count += 1;
            page.write(page.count() - 1, rest, lead);
        }
        page
    }

    fn count(&self) -> usize {
        self.count as usize
    }

    fn rest_bits(&self) -> u32 {
        KEY_BITS - u32::from(self.depth)
    }

    /// What is left of a key that is one of this page's.
    fn rest_of(&self, key: u32) -> u32 {
        key & ((1 << self.rest_bits()) - 1)
    }

    fn lead_bits(&self) -> u32 {
        8 * u32::from(self.width) - self.rest_bits()
    }

    /// An entry as a number.
    #[inline(always)]
    fn read(&self, at: usize) -> u64 {
        let width = usize::from(self.width);
        let start = at * width;
        let wide = match self.bytes[start..].first_chunk() {
            Some(wide) => u64::from_le_bytes(*wide),
            None => {
                let mut wide = [0; 8];
                wide[..width].copy_from_slice(&self.bytes[start..start + width]);
                u64::from_le_bytes(wide)
            }
        };
        wide & (u64::MAX >> (64 - 8 * width))
    }

    /// What is left of an entry's key.
    fn rest(&self, at: usize) -> u32 {
        (self.read(at) >> self.lead_bits()) as u32
    }

    fn entry(&self, at: usize) -> (u32, u32) {
        let (entry, lead_bits) = (self.read(at), self.lead_bits());
        ((entry >> lead_bits) as u32, (entry & !(u64::MAX << lead_bits)) as u32)
    }

    fn entries(&self) -> impl Iterator<Item = (u32, u32)> + Clone {
        (0..self.count()).map(|at| self.entry(at))
    }

    fn write(&mut self, at: usize, rest: u32, lead: u32) {
        let entry = u64::from(rest) << self.lead_bits() | u64::from(lead);
        let width = usize::from(self.width);
        self.bytes[at * width..][..width].copy_from_slice(&entry.to_le_bytes()[..width]);
    }

    /// Where a key is likely.
    fn likely(&self, rest: u32) -> usize {
        ((u64::from(rest) * u64::from(self.count)) >> self.rest_bits()) as usize
    }

    /// The first entry of a key, or where it would be.
    fn first_of(&self, rest: u32) -> usize {
        // No entry of a key is below the one whose lead has no bits.
        let least = u64::from(rest) << self.lead_bits();
        let mut at = self.likely(rest);
        while at < self.count() && self.read(at) < least {
            at += 1;
        }
        while at > 0 && self.read(at - 1) >= least {
            at -= 1;
        }
        at
    }

    fn leads_of(&self, rest: u32) -> impl Iterator<Item = u32> {
        let first = self.first_of(rest);
        let entries = (first..self.count()).map(|at| self.entry(at));
        entries.take_while(move |entry| entry.0 == rest).map(|(_, lead)| lead)
    }

    fn find(&self, rest: u32, leaf: u32) -> Option<usize> {
        let first = self.first_of(rest);
        let mut same = (first..self.count()).take_while(|&at| self.rest(at) == rest);
        same.find(|&at| Lead::of(self.entry(at).1).leaf == leaf)
    }

    /// Makes room in its entries for a lead.
    fn widen_for(&mut self, lead: u32) {
        let width = width_of(self.rest_bits(), lead);
        if width > self.width {
            let mut wide = Page { bytes: Vec::new(), width, ..*self };
            Room::resize(&mut wide.bytes, self.count() * usize::from(width));
            for (at, (rest, lead)) in self.entries().enumerate() {
                wide.write(at, rest, lead);
            }
            *self = wide;
        }
    }

    fn insert(&mut self, rest: u32, lead: u32) {
        self.widen_for(lead);
        let (at, width, end) = (self.first_of(rest), usize::from(self.width), self.bytes.len());
        Room::resize(&mut self.bytes, end + width);
        self.bytes.copy_within(at * width..end, (at + 1) * width);
        self.count += 1;
        self.write(at, rest, lead);
    }

    /// Was it there?
    fn remove(&mut self, rest: u32, leaf: u32) -> bool {
        let Some(at) = self.find(rest, leaf) else { return false };
        let (width, end) = (usize::from(self.width), self.bytes.len());
        self.bytes.copy_within((at + 1) * width..end, at * width);
        self.count -= 1;
        Room::resize(&mut self.bytes, end - width);
        true
    }

    /// Was it there?
    fn repoint(&mut self, rest: u32, from: u32, to: u32) -> bool {
        let Some(at) = self.find(rest, from) else { return false };
        self.widen_for(to);
        self.write(at, rest, to);
        true
    }

    /// Splits it by the next bit if it has too many entries, and returns the right half.
    fn split(&mut self) -> Option<Page> {
        if self.count() <= ENTRIES_MAX || self.rest_bits() == 0 {
            return None;
        }
        let half = 1 << (self.rest_bits() - 1);
        let middle = self.first_of(half);
        let right = self.entries().skip(middle).map(|(rest, lead)| (rest - half, lead));
        let right = Page::of(self.depth + 1, right);
        *self = Page::of(self.depth + 1, self.entries().take(middle));
        Some(right)
    }

    /// Appends its other half.
    fn append(&mut self, right: &Page) {
        let half = 1 << self.rest_bits();
        let more = right.entries().map(|(rest, lead)| (rest + half, lead));
        *self = Page::of(self.depth - 1, self.entries().chain(more));
    }
}

/// The page of a key, and what it is asked for.
#[derive(Clone, Copy)]
pub(super) struct PageAhead<'a> {
    page: &'a Page,
    rest: u32,
}

impl PageAhead<'_> {
    /// Fetches what a search of the page will read.
    pub(super) fn fetch(&self) {
        const LINE: usize = 64;
        // Where a key is differs from where it is likely by some entries.
        let likely = self.page.likely(self.rest) * usize::from(self.page.width);
        for place in [likely.saturating_sub(LINE / 2), likely + LINE / 2] {
            if let Some(byte) = self.page.bytes.get(place) {
                prefetch(byte);
            }
        }
    }

    /// The first lead of the key.
    pub(super) fn lead(&self) -> Option<Lead> {
        self.page.leads_of(self.rest).next().map(Lead::of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use std::collections::BTreeMap;

    type Model = BTreeMap<u32, Vec<u32>>;

    fn lead(leaf: u32) -> Lead {
        Lead { leaf, eighth: (leaf % 8) as u8 }
    }

    /// Every page stands where its depth says, with entries in order, and forks are as small as
    /// they can be. Returns how many entries there are.
    fn check_node(node: &Node, depth: u32) -> u64 {
        match node {
            Node::Page(page) => {
                assert_eq!(u32::from(page.depth), depth);
                // Equal keys gather in a page that is split once with each of them.
                assert!(page.count() <= ENTRIES_MAX + KEY_BITS as usize || depth == KEY_BITS);
                assert_eq!(page.bytes.len(), page.count() * usize::from(page.width));
                assert!((0..page.count()).is_sorted_by_key(|at| page.rest(at)));
                page.count.into()
            }
            Node::Fork(fork) => {
                assert_eq!(u32::from(fork.depth), depth);
                assert!(fork.slots.len().is_power_of_two() && fork.slots.len() > 1);
                assert!(fork.bits() <= FORK_BITS_MAX);
                let (mut at, mut count) = (0, 0);
                while at < fork.slots.len() {
                    let child = fork.slots[at].as_deref().expect("a child begins here");
                    let child_depth = match child {
                        Node::Page(page) => page.depth,
                        Node::Fork(fork) => fork.depth,
                    };
                    count += check_node(child, child_depth.into());
                    let own_bits = u32::from(child_depth) - depth;
                    let wide = 1 << (fork.bits() - own_bits);
                    assert!(fork.slots[at + 1..at + wide].iter().all(Option::is_none));
                    at += wide;
                }
                assert!(fork.slots.iter().skip(1).step_by(2).any(Option::is_some));
                count
            }
        }
    }

    fn all(index: &Index) -> Model {
        let mut all = Model::new();
        let leads = index.leads_from(0, usize::MAX);
        assert!(leads.is_sorted_by_key(|(key, _)| *key));
        leads.iter().for_each(|(key, lead)| all.entry(*key).or_default().push(lead.leaf));
        all.values_mut().for_each(|leaves| leaves.sort_unstable());
        all
    }

    fn check(index: &Index, model: &Model) {
        let count: usize = model.values().map(Vec::len).sum();
        assert_eq!((index.count(), check_node(&index.root, 0)), (count as u64, count as u64));
        let mut sorted = model.clone();
        sorted.values_mut().for_each(|leaves| leaves.sort_unstable());
        assert!(all(index) == sorted);
        for (key, leaves) in sorted {
            let mut found: Vec<u32> = index.leads_of(key).map(|lead| lead.leaf).collect();
            found.sort_unstable();
            assert_eq!(found, leaves);
            let page = index.page_ahead(key);
            page.fetch();
            assert_eq!(page.lead(), index.leads_of(key).next());
        }
    }

    /// Keys that are spread evenly; of few different ones; that begin alike; that end alike.
    fn key(random: &mut Random, seed: u64) -> u32 {
        let bits = random.bits() as u32 >> (u32::BITS - KEY_BITS);
        match seed % 4 {
            0 => bits,
            1 => (bits % 7 * 0x0083_4567) & ((1 << KEY_BITS) - 1),
            2 => 0x02bc_d000 | bits & 0xfff,
            _ => bits & 0x03ff_0000 | 0x1234,
        }
    }

    #[test]
    fn entries_come_move_and_go() {
        for seed in 0..if cfg!(miri) { 4 } else { 24_u64 } {
            println!("seed {seed}");
            let mut random = Random::new(seed);
            let (mut index, mut model) = (Index::default(), Model::new());
            let mut version: Option<(Index, Model)> = None;
            let leaf_max = [1, 300, 70_000, 1 << 29][seed as usize / 4 % 4];
            let steps = if cfg!(miri) { 600 } else { 16_000_u64 };
            let mut taken: Vec<u32> = Vec::new();
            for step in 0..steps {
                // Growing for a while, then shrinking to nothing, and again.
                let grows = (step * 4 / steps).is_multiple_of(2);
                let leaf = random.below(leaf_max) as u32;
                if grows || taken.is_empty() {
                    let key = key(&mut random, seed);
                    index.insert(key, lead(leaf));
                    model.entry(key).or_default().push(leaf);
                    taken.push(key);
                } else {
                    let at = random.below(taken.len() as u64) as usize;
                    let key = taken.swap_remove(at);
                    let leaves = model.get_mut(&key).expect("it is there");
                    let at = random.below(leaves.len() as u64) as usize;
                    index.remove(key, leaves.swap_remove(at));
                    if leaves.is_empty() {
                        model.remove(&key);
                    }
                }
                if step % 3 == 0
                    && let Some(&key) = taken.last()
                    && let Some(other) = model.get_mut(&key).and_then(|leaves| leaves.last_mut())
                {
                    index.repoint(key, *other, lead(leaf));
                    *other = leaf;
                }
                if step % (steps / 12) == 0 {
                    check(&index, &model);
                    if let Some((version, was)) = &version {
                        check(version, was);
                    }
                    version = Some((index.clone(), model.clone()));
                }
            }
            while let Some(key) = taken.pop() {
                let leaf = model.get_mut(&key).and_then(Vec::pop).expect("it is there");
                index.remove(key, leaf);
            }
            assert_eq!(check_node(&index.root, 0), 0);
            assert!(matches!(index.root, Node::Page(_)), "all pages were joined");
        }
    }

    #[test]
    fn leads_begin_at_a_key_and_are_as_many_as_asked_for() {
        let mut index = Index::default();
        let keys: Vec<u32> = (0..2000).map(|n| n * 30_011).collect();
        keys.iter().for_each(|&key| index.insert(key, lead(key / 7)));
        for from in [0, 1, keys[500], keys[500] + 1, keys[1999], keys[1999] + 1, 1 << KEY_BITS] {
            for count in [0, 1, 700, 2000, 3000] {
                let met = index.leads_from(from, count);
                let expected = keys.iter().filter(|&&key| key >= from).take(count);
                assert!(met.into_iter().eq(expected.map(|&key| (key, lead(key / 7)))), "{from}");
            }
        }
    }

    #[test]
    fn all_leads_of_a_key_come_together() {
        let mut index = Index::default();
        for (key, count) in [(3, 1), (5, 1000), (6, 1), (9, 2)] {
            (0..count).for_each(|leaf| index.insert(key, lead(leaf)));
        }
        for (from, count, expected) in
            [(0, 1, 1), (0, 2, 1001), (4, 1, 1000), (4, 1001, 1001), (6, 2, 3), (6, 4, 3)]
        {
            assert_eq!(index.leads_from(from, count).len(), expected, "{count} from {from} on");
        }
    }

    #[test]
    fn what_is_shed_is_gone_page_by_page_and_stays_in_versions() {
        let mut random = Random::new(5);
        let (mut index, mut model) = (Index::default(), Model::new());
        for leaf in 0..if cfg!(miri) { 500 } else { 20_000 } {
            let key = key(&mut random, 0);
            index.insert(key, lead(leaf));
            model.entry(key).or_default().push(leaf);
        }
        let version = index.clone();
        // Alone from here on.
        model.keys().step_by(2).for_each(|&key| index.insert(key, lead(1)));
        let mut count = index.count();
        while index.shed(2) {
            assert!(index.count() < count || cfg!(miri));
            count = index.count();
        }
        assert_eq!(index.count(), 0);
        check(&version, &model);
    }

    #[test]
    fn entries_of_many_members_take_four_bytes() {
        let mut random = Random::new(9);
        let mut index = Index::default();
        let count = if cfg!(miri) { 1000 } else { 1 << 18 };
        (0..count).for_each(|n| index.insert(key(&mut random, 0), lead(n / 100)));
        let mut node = &index.root;
        while let Node::Fork(fork) = node {
            node = fork.child(0);
        }
        let Node::Page(page) = node else { unreachable!("forks lead to pages") };
        assert!(page.width == 4 || cfg!(miri), "{}", page.width);
    }
}
