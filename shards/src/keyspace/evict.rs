//! Choosing what to evict when memory runs out.
//!
//! As Redis does it: a few items are sampled, the best of them enter a small pool of the best seen
//! so far, and the best of the pool goes. The choice is the leader's; replicas apply its deletion.

use super::access::AccessClock;
use super::item::RawItem;
use super::lend;
use super::table::POSITION_END;
use super::{Key, Keyspace};
use crate::ids::DatabaseIndex;
use crate::limits::{EVICTION_POOL_COUNT, EVICTION_SAMPLES};
use std::fmt;
use std::str::FromStr;

/// What is evicted first; Redis' `maxmemory-policy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EvictionPolicy {
    /// Nothing: writes that need memory are refused.
    #[default]
    NoEviction,
    /// The item longest unused.
    AllKeysLru,
    /// The item least often used.
    AllKeysLfu,
    /// Any item.
    AllKeysRandom,
    /// The item with a deadline longest unused.
    VolatileLru,
    /// The item with a deadline least often used.
    VolatileLfu,
    /// Any item with a deadline.
    VolatileRandom,
    /// The item with the nearest deadline.
    VolatileTtl,
}

impl EvictionPolicy {
    /// All, with the names that configuration has for them.
    pub const NAMES: [(EvictionPolicy, &str); 8] = [
        (EvictionPolicy::NoEviction, "noeviction"),
        (EvictionPolicy::AllKeysLru, "allkeys-lru"),
        (EvictionPolicy::AllKeysLfu, "allkeys-lfu"),
        (EvictionPolicy::AllKeysRandom, "allkeys-random"),
        (EvictionPolicy::VolatileLru, "volatile-lru"),
        (EvictionPolicy::VolatileLfu, "volatile-lfu"),
        (EvictionPolicy::VolatileRandom, "volatile-random"),
        (EvictionPolicy::VolatileTtl, "volatile-ttl"),
    ];

    /// The access clock that it needs.
    pub fn access_clock(self) -> AccessClock {
        match self {
            EvictionPolicy::AllKeysLfu | EvictionPolicy::VolatileLfu => AccessClock::Frequency,
            _ => AccessClock::Recency,
        }
    }

    fn volatile_only(self) -> bool {
        matches!(
            self,
            EvictionPolicy::VolatileLru
                | EvictionPolicy::VolatileLfu
                | EvictionPolicy::VolatileRandom
                | EvictionPolicy::VolatileTtl
        )
    }

    /// The higher, the sooner it goes. `None` when chance decides.
    fn score(self, item: RawItem, now_ms: i64) -> Option<u64> {
        match self {
            EvictionPolicy::AllKeysLru | EvictionPolicy::VolatileLru => {
                Some(super::access::idle_seconds(item.access(), now_ms))
            }
            EvictionPolicy::AllKeysLfu | EvictionPolicy::VolatileLfu => {
                Some(u64::from(u8::MAX - super::access::frequency(item.access(), now_ms)))
            }
            EvictionPolicy::VolatileTtl => {
                // Ordered as the deadlines are, the nearest highest.
                item.deadline().map(|deadline| !(deadline.0 as u64 ^ 1 << 63))
            }
            _ => None,
        }
    }
}

impl fmt::Display for EvictionPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = EvictionPolicy::NAMES.iter().find(|(policy, _)| policy == self);
        f.write_str(row.map_or("", |(_, name)| name))
    }
}

/// No policy has this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such eviction policy")]
pub struct UnknownPolicy;

impl FromStr for EvictionPolicy {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<EvictionPolicy, UnknownPolicy> {
        let mut rows = EvictionPolicy::NAMES.iter();
        rows.find(|row| row.1.eq_ignore_ascii_case(name)).map(|row| row.0).ok_or(UnknownPolicy)
    }
}

struct Candidate {
    score: u64,
    database: DatabaseIndex,
    key: Box<[u8]>,
}

/// The best candidates seen so far, worst first.
pub(super) struct EvictionPool {
    policy: EvictionPolicy,
    candidates: Vec<Candidate>,
    pub(super) samples: usize,
}

impl Default for EvictionPool {
    fn default() -> EvictionPool {
        EvictionPool {
            policy: EvictionPolicy::NoEviction,
            candidates: Vec::new(),
            samples: EVICTION_SAMPLES,
        }
    }
}

impl EvictionPool {
    pub(super) fn clear(&mut self) {
        self.candidates.clear();
    }

    fn offer(&mut self, score: u64, database: DatabaseIndex, key: &[u8]) {
        let full = self.candidates.len() == EVICTION_POOL_COUNT;
        if full && self.candidates[0].score >= score {
            return;
        }
        if self.candidates.iter().any(|known| known.database == database && *known.key == *key) {
            return;
        }
        if full {
            self.candidates.remove(0);
        }
        let at = self.candidates.partition_point(|known| known.score < score);
        self.candidates.insert(at, Candidate { score, database, key: key.into() });
    }
}

impl Keyspace {
    /// How many items [`Keyspace::eviction_candidate`] samples each time (`maxmemory-samples`).
    pub fn set_eviction_samples(&mut self, samples: usize) {
        self.pool.samples = samples.max(1);
    }

    /// The key that should go next by this policy; `None` when the policy or the items give none. A
    /// key is not proposed again before it was sampled again.
    /// Cost: a walk over the slots' counts (about 1 us) and a cache miss per sample.
    pub fn eviction_candidate(
        &mut self,
        policy: EvictionPolicy,
        now_ms: i64,
        seed: u64,
    ) -> Option<(DatabaseIndex, Vec<u8>)> {
        if policy == EvictionPolicy::NoEviction {
            return None;
        }
        if std::mem::replace(&mut self.pool.policy, policy) != policy {
            self.pool.clear();
        }
        let volatile = policy.volatile_only();
        let sampled = self.sample(volatile, seed);
        if let (
            EvictionPolicy::AllKeysRandom | EvictionPolicy::VolatileRandom,
            Some(&(database, item)),
        ) = (policy, sampled.get(mix(seed) as usize % sampled.len().max(1)))
        {
            return Some((database, lend::borrow_item(item).key().to_vec()));
        }
        for (database, item) in sampled {
            if let Some(score) = policy.score(item, now_ms) {
                self.pool.offer(score, database, lend::borrow_item(item).key());
            }
        }
        while let Some(best) = self.pool.candidates.pop() {
            let key = Key::new(&best.key, self.hasher.hash(&best.key));
            let place = self.databases[best.database.0 as usize].find(&key);
            if place.is_some_and(|place| !volatile || lend::item_at(place).has_deadline()) {
                return Some((best.database, best.key.into_vec()));
            }
        }
        None
    }

    /// A few items near a random place. Empty only when there are none.
    fn sample(&self, volatile: bool, seed: u64) -> Vec<(DatabaseIndex, RawItem)> {
        let mut sampled = Vec::with_capacity(self.pool.samples);
        let Some((database, slot)) = self.random_slot(volatile, seed) else { return sampled };
        let tables = &self.databases[database.0 as usize];
        let slots = if volatile { &tables.expiring_slots } else { &tables.used_slots };
        let Some(row) = &tables.row else { return sampled };
        let mut next_slot = Some(slot);
        while let Some(slot) = next_slot
            && sampled.len() < self.pool.samples
        {
            let (table, start) = (&row[slot], mix(seed) >> 16);
            // Once round the table: from a random position to the end, then up to there.
            let (mut position, mut end) = (start, POSITION_END);
            while position < end
                && sampled.len() < self.pool.samples
                && let Some((chain, next)) = table.chain_at(position)
            {
                if end == start && next > start {
                    break;
                }
                for entry in chain.entries() {
                    if sampled.len() < self.pool.samples && (!volatile || entry.has_deadline()) {
                        sampled.push((database, entry.item()));
                    }
                }
                position = next;
                if position == POSITION_END {
                    (position, end) = (0, start);
                }
            }
            next_slot = slots.next(slot + 1);
        }
        sampled
    }

    /// A slot with items (with deadlines), each item equally likely to be in it.
    pub(super) fn random_slot(&self, volatile: bool, seed: u64) -> Option<(DatabaseIndex, usize)> {
        let total: u64 =
            self.databases.iter().map(|d| if volatile { d.expiring } else { d.count }).sum();
        let mut target = seed.checked_rem(total)?;
        for (number, database) in self.databases.iter().enumerate() {
            let count = if volatile { database.expiring } else { database.count };
            if target < count {
                let slot = database.slot_of_rank(target, volatile)?;
                return Some((DatabaseIndex(number as u8), slot));
            }
            target -= count;
        }
        None
    }
}

/// Other random bits from these (the finalizer of splitmix64).
pub(super) fn mix(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[cfg(test)]
mod tests {
    use super::super::model::Bench;
    use super::super::{Expiry, Key};
    use super::*;
    use crate::ids::Deadline;

    #[test]
    fn names_read_back() {
        for (policy, name) in EvictionPolicy::NAMES {
            assert_eq!(policy.to_string(), name);
            assert_eq!(name.to_uppercase().parse(), Ok(policy));
        }
        assert_eq!("lru".parse::<EvictionPolicy>(), Err(UnknownPolicy));
    }

    /// Items of which half are evicted.
    const COUNT: usize = if cfg!(miri) { 60 } else { 1000 };

    /// Evicts half of the items; item `n` is the better to keep the higher `n` is. Returns how many
    /// percent of the evicted were in the worse half.
    fn hits_percent(policy: EvictionPolicy) -> usize {
        let mut bench = Bench::new();
        bench.keyspace.set_access_clock(policy.access_clock());
        for n in 0..COUNT {
            let deadline = Deadline(bench.now_ms + 1_000_000 + n as i64 * 1000);
            bench.set_until(&format!("key:{n}"), "v", Expiry::At(deadline));
        }
        for n in 0..COUNT {
            let name = format!("key:{n}");
            let key = Key::new(name.as_bytes(), bench.hash(&name));
            match policy.access_clock() {
                AccessClock::Recency => bench.edit().set_idle(&key, 10_000 - n as u64),
                AccessClock::Frequency => {
                    bench.edit().set_frequency(&key, (n * 250 / COUNT) as u8);
                }
            }
        }
        let mut hits = 0;
        for seed in 0..COUNT as u64 / 2 {
            let candidate = bench.keyspace.eviction_candidate(policy, bench.now_ms, mix(seed));
            let (_, key) = candidate.expect("items are left");
            let name = String::from_utf8(key).expect("plain text");
            assert!(bench.remove(&name));
            let n: usize = name[4..].parse().expect("a number");
            hits += usize::from(n < COUNT / 2);
        }
        hits * 200 / COUNT
    }

    #[test]
    fn the_worst_go_first() {
        for (policy, name) in EvictionPolicy::NAMES {
            match policy {
                EvictionPolicy::NoEviction => {}
                EvictionPolicy::AllKeysRandom | EvictionPolicy::VolatileRandom => {
                    let hits = hits_percent(policy);
                    assert!((36..64).contains(&hits) || cfg!(miri), "{name}: {hits}");
                }
                _ => {
                    let hits = hits_percent(policy);
                    assert!(hits > 80 || cfg!(miri), "{name}: {hits}");
                }
            }
        }
    }

    #[test]
    fn volatile_policies_leave_items_without_deadline() {
        let mut bench = Bench::new();
        for n in 0..300 {
            bench.set(&format!("key:{n}"), "v");
        }
        for (policy, _) in EvictionPolicy::NAMES.into_iter().filter(|row| row.0.volatile_only()) {
            assert_eq!(bench.keyspace.eviction_candidate(policy, bench.now_ms, 5), None);
        }
        bench.set_until("short", "v", Expiry::At(Deadline(bench.now_ms + 1)));
        for (policy, _) in EvictionPolicy::NAMES.into_iter().filter(|row| row.0.volatile_only()) {
            let candidate = bench.keyspace.eviction_candidate(policy, bench.now_ms, 5);
            assert_eq!(candidate, Some((bench.database, b"short".to_vec())));
        }
    }
}
