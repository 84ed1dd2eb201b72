//! What a shard does of its own accord: it evicts items when memory runs out, removes those past
//! their deadline, and sets the limits of packed values that its node's settings say.
//!
//! All are the leader's proposals, gathered like any write and answered to nobody. What is being
//! evicted counts as gone from the moment it is chosen, each item until its own deletion is
//! applied: a busy store has always some under way. Memory over its limit is looked for before a
//! write that may grow it, and ten times a second whoever made it so: the limit may have been
//! lowered, or reads have built an index. Then some is evicted each turn until it is enough.

use crate::commands::Command;
use crate::commands::expire::{EVICT_KEYS, EXPIRE_KEYS};
use crate::commands::hash_expire::EXPIRE_FIELDS;
use crate::core::client::answers::{Origin, Target};
use crate::core::commands::config::SET_LIMITS;
use crate::core::commands::table;
use crate::core::observe::stats::Stats;
use crate::core::shard::{LocalShard, Request};
use crate::limits::{ENDED_FIELDS_OPERATIONS_MAX, ENDED_FIELDS_PER_OPERATION};
use crate::limits::{EVICTIONS_PER_TURN_MAX, EVICTIONS_UNDER_WAY_MAX};
use ringraft_shards::arguments::OwnedArguments;
use ringraft_shards::ids::DatabaseIndex;
use ringraft_shards::keyspace::{EvictionPolicy, Key, KeyHash};
use ringraft_shards::transaction::LockKey;
use ringraft_shards::value::Limits;
use std::collections::{HashSet, VecDeque};

/// Items looked at for one write's evictions before it is refused.
const EVICTIONS_PER_WRITE_MAX: usize = 16;

/// What a shard is about to evict: its items in the order in which their deletions are applied.
#[derive(Default)]
pub struct Evictions {
    order: VecDeque<((DatabaseIndex, u64), u64)>,
    /// The same, to be looked up: nothing is evicted twice.
    chosen: HashSet<(DatabaseIndex, u64)>,
    bytes: u64,
    /// Does the shard evict each turn, as it is over its limit?
    going_on: bool,
    /// Did the last look find an item?
    found: bool,
    /// Did a write find nothing to evict the last time?
    failed: bool,
}

impl Evictions {
    /// False: this item is chosen already.
    fn choose(&mut self, database: DatabaseIndex, key: KeyHash, bytes: u64) -> bool {
        let item = (database, key.hash());
        if !self.chosen.insert(item) {
            return false;
        }
        self.order.push_back((item, bytes));
        self.bytes += bytes;
        true
    }

    fn note_applied(&mut self) {
        if let Some((item, bytes)) = self.order.pop_front() {
            self.chosen.remove(&item);
            self.bytes -= bytes;
        }
    }

    /// May more be chosen at once, without anything coming from the disk?
    fn has_work(&self) -> bool {
        self.going_on && self.found && self.order.len() < EVICTIONS_UNDER_WAY_MAX
    }
}

impl LocalShard {
    /// Is there room to grow? Proposes evictions when there is not, as the policy says.
    #[inline]
    pub fn has_room(&mut self, stats: &mut Stats) -> bool {
        let limit = self.memory_limit;
        if limit == 0 || self.used_bytes() <= limit {
            return true;
        }
        let evicts = self.evict(stats);
        self.evictions.failed = !evicts;
        evicts
    }

    /// Is memory over its limit, with nothing to evict as far as it is known? For those who cannot
    /// ask [`LocalShard::has_room`].
    pub fn is_full(&self) -> bool {
        let limit = self.memory_limit;
        let never_evicts = self.eviction_policy == EvictionPolicy::NoEviction;
        limit > 0 && (never_evicts || self.evictions.failed) && self.used_bytes() > limit
    }

    /// Bytes that its items take, less those whose eviction is under way and those of values that
    /// are being freed.
    pub fn used_bytes(&self) -> u64 {
        let leaving = self.evictions.bytes + self.keyspace.freeing_bytes() as u64;
        (self.keyspace.used_bytes() as u64).saturating_sub(leaving)
    }

    /// False: nothing may be evicted.
    #[cold]
    fn evict(&mut self, stats: &mut Stats) -> bool {
        // Eviction goes on with the next write: memory shrinks faster than writes let it grow.
        self.evict_some(EVICTIONS_PER_WRITE_MAX, stats).is_some()
    }

    /// Looks whether memory is over its limit, and evicts some of what is too much if so. To be
    /// called now and then, and each turn while [`LocalShard::is_shedding`].
    pub fn reclaim(&mut self, stats: &mut Stats) {
        let limit = self.memory_limit;
        let is_over = limit > 0 && self.serves() && self.used_bytes() > limit;
        let room = EVICTIONS_UNDER_WAY_MAX.saturating_sub(self.evictions.order.len());
        let found = match room.min(EVICTIONS_PER_TURN_MAX) {
            0 => 0,
            count if is_over => self.evict_some(count, stats).unwrap_or(0),
            _ => 0,
        };
        self.evictions.found = found > 0;
        self.evictions.going_on = is_over && (found > 0 || !self.evictions.order.is_empty());
    }

    /// Does it evict each turn, until memory is below the limit?
    pub fn is_shedding(&self) -> bool {
        self.evictions.going_on
    }

    /// Can it evict more at once?
    pub fn has_evictions(&self) -> bool {
        self.evictions.has_work()
    }

    /// Forgets about eviction until the next look.
    pub fn stop_shedding(&mut self) {
        self.evictions.going_on = false;
    }

    /// Proposes evictions until memory is below the limit, after so many looks at most. Returns how
    /// many were found; `None` when memory is still over the limit and nothing may be evicted.
    fn evict_some(&mut self, looks: usize, stats: &mut Stats) -> Option<usize> {
        let now_ms = self.time(stats.now_ms);
        let mut found = 0;
        for _ in 0..looks {
            if self.used_bytes() <= self.memory_limit {
                break;
            }
            let seed = self.random();
            let policy = self.eviction_policy;
            let (database, key) = self.keyspace.eviction_candidate(policy, now_ms, seed)?;
            let key_hash = self.keyspace.hasher().hash(&key);
            if self.participant.is_held(LockKey::new(key_hash, true).hash) {
                // A transaction has read it and is about to write it: nothing may come in between.
                continue;
            }
            let view = self.keyspace.view(database, now_ms);
            let size = view.peek(&Key::new(&key, key_hash)).map_or(0, |item| item.size());
            if self.evictions.choose(database, key_hash, size as u64) {
                found += 1;
                stats.evicted_keys += 1;
                self.gather_own(EVICT_KEYS, database, key_hash, &key);
            }
        }
        Some(found)
    }

    fn gather_own(&mut self, name: &str, database: DatabaseIndex, first_key: KeyHash, key: &[u8]) {
        let command = table::internal(name);
        let owned: OwnedArguments = [name.as_bytes(), key].into_iter().collect();
        let (origin, arguments) = (Origin::NOBODY, owned.borrow());
        self.own_count += 1;
        self.gather_write(&Request { command, origin, database, first_key, arguments });
    }

    /// Proposes the deletion of items past their deadline, while a good share of those looked at
    /// are.
    pub fn expire(&mut self, now_ms: i64, buckets: usize, rounds_max: usize, stats: &mut Stats) {
        if !self.serves() || self.own_count > 0 {
            return;
        }
        let now_ms = self.time(now_ms);
        self.expire_fields(now_ms);
        for _ in 0..rounds_max {
            let mut found = Vec::new();
            let swept = self.keyspace.collect_expired(now_ms, buckets, &mut |database, item| {
                found.push((database, item.key().to_vec()));
            });
            for (database, key) in &found {
                let key_hash = self.keyspace.hasher().hash(key);
                self.gather_own(EXPIRE_KEYS, *database, key_hash, key);
            }
            stats.expired_keys += found.len() as u64;
            // Redis' measure: go on while more than a tenth of those with a deadline have expired.
            if swept.expired * 10 <= swept.expiring {
                return;
            }
        }
    }

    /// Proposes to take fields out of hashes that have ended.
    fn expire_fields(&mut self, now_ms: i64) {
        let (mut found, mut left) = (Vec::new(), ENDED_FIELDS_OPERATIONS_MAX);
        self.keyspace.collect_ended_fields(now_ms, left, &mut |database, key, count| {
            let operations = count.div_ceil(ENDED_FIELDS_PER_OPERATION as u64).min(left as u64);
            found.extend((0..operations).map(|_| (database, key.to_vec())));
            left -= operations as usize;
        });
        for (database, key) in &found {
            let key_hash = self.keyspace.hasher().hash(key);
            self.gather_own(EXPIRE_FIELDS, *database, key_hash, key);
        }
    }

    /// Proposes to set these limits of packed values, unless they are in force or about to be.
    pub fn propose_limits(&mut self, limits: Limits) {
        let coming = self.coming_limits.back().copied().unwrap_or(self.keyspace.limits());
        if self.serves() && coming != limits {
            self.coming_limits.push_back(limits);
            self.gather_own(SET_LIMITS, DatabaseIndex(0), KeyHash::default(), &limits.encode());
        }
    }

    /// One of the shard's own operations has come to its end.
    #[inline(always)]
    pub(in crate::core) fn note_own(&mut self, command: &Command, origin: Origin) {
        if origin.target == Target::Nobody {
            self.own_count = self.own_count.saturating_sub(1);
            if command.name == EVICT_KEYS {
                self.evictions.note_applied();
            } else if command.name == SET_LIMITS {
                self.coming_limits.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::client::answers::Answers;
    use crate::core::disk::snapshots::ShardSnapshots;
    use crate::core::shard::ShardTurn;
    use crate::core::transact::participate::{Ask, TransactionMessage};
    use ringraft_shards::ids::{Deadline, NodeId, ShardId};
    use ringraft_shards::keyspace::{EvictionPolicy, KeyHasher, Keyspace};
    use ringraft_shards::raft::{CommittedEntry, Group, GroupConfig, Output};
    use ringraft_shards::serve;
    use ringraft_shards::transaction::{LockSet, ToShard, TransactionId};
    use ringraft_shards::value::list::End;

    const NOW_MS: i64 = 1_700_000_000_000;

    /// A shard in memory. What is committed is applied when the test says so.
    struct Scene {
        shard: LocalShard,
        answers: Answers,
        stats: Stats,
        committed: VecDeque<CommittedEntry>,
        output: Output,
    }

    impl Scene {
        fn new() -> Scene {
            let config = GroupConfig::new(NodeId(1), ShardId(0), vec![NodeId(1)]);
            let group = Group::open(config, None, None, 7).expect("a new group");
            let snapshots = ShardSnapshots::new(None, Vec::new(), NOW_MS);
            let keyspace = Keyspace::new(KeyHasher::new(1));
            let mut scene = Scene {
                shard: LocalShard::new(ShardId(0), keyspace, group, snapshots, 0, 42),
                answers: Answers::new(0, 1),
                stats: Stats::default(),
                committed: VecDeque::new(),
                output: Output::default(),
            };
            scene.stats.now_ms = NOW_MS;
            scene.apply_all();
            assert!(scene.shard.serves(), "alone, it leads");
            scene
        }

        /// Proposes what has gathered and takes what is committed.
        fn drive(&mut self) {
            let mut turn = ShardTurn { answers: &mut self.answers, stats: &mut self.stats };
            serve::propose(&mut self.shard, NOW_MS, &mut turn);
            loop {
                self.output.clear();
                self.shard.group.poll(&mut self.output);
                let mut turn = ShardTurn { answers: &mut self.answers, stats: &mut self.stats };
                serve::polled(&mut self.shard, &self.output, &mut turn);
                self.committed.extend(self.output.committed.drain(..));
                if !self.output.more {
                    return;
                }
            }
        }

        fn apply_one(&mut self) {
            let entry = self.committed.pop_front().expect("something is committed");
            let mut turn = ShardTurn { answers: &mut self.answers, stats: &mut self.stats };
            serve::apply(&mut self.shard, &entry, &mut turn);
            self.shard.group.applied(entry.index);
            serve::note_role(&mut self.shard, &mut turn);
        }

        /// Does what transactions want. True when there was something to do.
        fn transact(&mut self, messages: &mut Vec<TransactionMessage>) -> bool {
            let mut turn = ShardTurn { answers: &mut self.answers, stats: &mut self.stats };
            serve::transact(&mut self.shard, messages, &mut turn)
        }

        fn apply_all(&mut self) {
            self.drive();
            while !self.committed.is_empty() {
                self.apply_one();
                self.drive();
            }
        }

        /// Gathers a SET, if the shard takes it.
        fn set(&mut self, key: &str) -> bool {
            let key_hash = self.shard.keyspace.hasher().hash(key.as_bytes());
            let value = [b'v'; 400];
            let owned: OwnedArguments =
                [b"set".as_slice(), key.as_bytes(), &value].into_iter().collect();
            let request = Request {
                command: table::find(b"set").expect("there is SET"),
                origin: Origin::NOBODY,
                database: DatabaseIndex(0),
                first_key: key_hash,
                arguments: owned.borrow(),
            };
            self.shard.own_count += 1;
            self.shard.gather(&request, &mut self.stats)
        }

        fn has(&self, key: &str) -> bool {
            let key = Key::new(key.as_bytes(), self.shard.keyspace.hasher().hash(key.as_bytes()));
            self.shard.keyspace.view(DatabaseIndex(0), NOW_MS).peek(&key).is_some()
        }
    }

    #[test]
    fn a_store_that_is_never_quiet_stays_within_its_limit() {
        let mut scene = Scene::new();
        for n in 0..1000 {
            assert!(scene.set(&format!("first:{n}")));
        }
        scene.apply_all();
        let limit = scene.shard.keyspace.used_bytes() as u64;
        scene.shard.memory_limit = limit;
        scene.shard.eviction_policy = EvictionPolicy::AllKeysRandom;
        // One set is always under way, when the one before is applied.
        assert!(scene.set("under way"));
        scene.drive();
        let mut most = 0;
        for n in 0..5000 {
            assert!(scene.set(&format!("then:{n}")));
            scene.drive();
            scene.apply_one();
            assert!(!scene.shard.is_quiet() && !scene.committed.is_empty(), "write {n}");
            most = most.max(scene.shard.keyspace.used_bytes() as u64);
        }
        assert!(most <= limit + limit / 20, "{most} bytes, the limit is {limit}");
        assert!(scene.stats.evicted_keys >= 4900, "{} evicted", scene.stats.evicted_keys);
        scene.apply_all();
        let left = &scene.shard.evictions;
        assert_eq!((left.bytes, left.order.len(), left.chosen.len()), (0, 0, 0));
    }

    #[test]
    fn memory_over_a_lowered_limit_is_evicted_without_a_write() {
        let mut scene = Scene::new();
        for n in 0..5000 {
            assert!(scene.set(&format!("key:{n}")));
        }
        scene.apply_all();
        let limit = scene.shard.keyspace.used_bytes() as u64 / 4;
        scene.shard.memory_limit = limit;
        scene.shard.reclaim(&mut scene.stats);
        assert!(!scene.shard.is_shedding(), "nothing may be evicted, so nothing goes on");
        scene.shard.eviction_policy = EvictionPolicy::AllKeysLru;
        scene.shard.reclaim(&mut scene.stats);
        let mut turns = 0;
        while scene.shard.is_shedding() {
            let before = scene.stats.evicted_keys;
            scene.drive();
            // What is committed is applied late: no more than so many are ever under way.
            if !scene.shard.has_evictions() {
                scene.apply_all();
            }
            scene.shard.reclaim(&mut scene.stats);
            let evicted = (scene.stats.evicted_keys - before) as usize;
            assert!(evicted <= EVICTIONS_PER_TURN_MAX, "{evicted} in a turn");
            assert!(scene.shard.evictions.order.len() <= EVICTIONS_UNDER_WAY_MAX);
            turns += 1;
        }
        scene.apply_all();
        let (used, left) = (scene.shard.used_bytes(), scene.shard.keyspace.count(DatabaseIndex(0)));
        assert!(used <= limit && used > limit / 2, "{used} bytes, the limit is {limit}");
        assert_eq!(left + scene.stats.evicted_keys, 5000, "each is counted once");
        assert!(turns > 3000 / EVICTIONS_PER_TURN_MAX, "{turns} turns");
    }

    #[test]
    fn what_is_being_freed_takes_nothing_along() {
        let mut scene = Scene::new();
        for n in 0..500 {
            assert!(scene.set(&format!("key:{n}")));
        }
        scene.apply_all();
        // A deadline, by which it is chosen: no other item has one.
        let key = Key::new(b"large", scene.shard.keyspace.hasher().hash(b"large"));
        let mut edit = scene.shard.keyspace.edit(DatabaseIndex(0), NOW_MS);
        let mut large = edit.list_mut(&key).expect("a list or nothing");
        (0..20_000).for_each(|n| large.push(End::Back, format!("element:{n}").as_bytes()));
        drop(large);
        assert!(edit.set_deadline(&key, Some(Deadline(i64::MAX))));
        scene.shard.memory_limit = scene.shard.keyspace.used_bytes() as u64 - 1000;
        scene.shard.eviction_policy = EvictionPolicy::VolatileTtl;
        scene.shard.reclaim(&mut scene.stats);
        scene.apply_all();
        assert!(!scene.has("large"));
        assert!(scene.shard.keyspace.used_bytes() as u64 > scene.shard.memory_limit);
        scene.shard.eviction_policy = EvictionPolicy::AllKeysRandom;
        for n in 0..20 {
            scene.shard.reclaim(&mut scene.stats);
            assert!(scene.set(&format!("more:{n}")));
            scene.apply_all();
        }
        assert_eq!((scene.stats.evicted_keys, scene.shard.is_shedding()), (1, false));
        while scene.shard.keyspace.free_some(10) {}
        assert_eq!(scene.shard.keyspace.freeing_bytes(), 0);
        assert!((scene.shard.keyspace.used_bytes() as u64) < scene.shard.memory_limit);
    }

    /// Limits that are on their way are not proposed again, and the last ones count.
    #[test]
    fn limits_are_set_once_and_in_order() {
        let mut scene = Scene::new();
        let [one, other] = [8, 9].map(|hash_entries| Limits { hash_entries, ..Limits::default() });
        scene.shard.propose_limits(Limits::default());
        assert!(!scene.shard.has_gathered(), "they are in force");
        scene.shard.propose_limits(one);
        scene.shard.propose_limits(one);
        scene.shard.propose_limits(other);
        scene.shard.propose_limits(one);
        assert_eq!(scene.shard.waiting_count(), 3);
        assert_eq!(scene.shard.keyspace.limits(), Limits::default());
        scene.apply_all();
        assert_eq!((scene.shard.keyspace.limits(), scene.shard.own_count), (one, 0));
        scene.shard.propose_limits(one);
        assert!(!scene.shard.has_gathered());
    }

    #[test]
    fn what_a_transaction_holds_is_not_evicted() {
        const HELD: [&str; 3] = ["held:0", "held:1", "held:2"];
        let mut scene = Scene::new();
        for n in 0..100 {
            assert!(scene.set(&format!("other:{n}")));
        }
        assert!(HELD.iter().all(|key| scene.set(key)));
        scene.apply_all();
        let hasher = scene.shard.keyspace.hasher();
        let keys = HELD.iter().map(|key| LockKey::new(hasher.hash(key.as_bytes()), true));
        let id = TransactionId { time: 1, origin: 1 };
        let locks = LockSet { keys: keys.collect(), whole: None };
        let lock = ToShard::Lock { id, coordinator: 0, locks, fetch: Box::new(Ask::default()) };
        assert!(scene.shard.take_transaction(lock, &mut scene.stats).is_none(), "not refused");
        let mut messages = Vec::new();
        while scene.transact(&mut messages) {
            scene.apply_all();
        }
        assert_eq!(messages.len(), 1, "granted: {messages:?}");
        scene.shard.memory_limit = 1;
        scene.shard.eviction_policy = EvictionPolicy::AllKeysRandom;
        // Each look evicts some; in the end only what is held is left, and it stays.
        for _ in 0..200 {
            scene.shard.has_room(&mut scene.stats);
            scene.apply_all();
        }
        assert!(HELD.iter().all(|key| scene.has(key)));
        assert_eq!(scene.shard.keyspace.count(DatabaseIndex(0)), HELD.len() as u64);
        scene.shard.take_transaction(ToShard::Release(id), &mut scene.stats);
        while scene.transact(&mut messages) {
            scene.apply_all();
        }
        for _ in 0..10 {
            scene.shard.has_room(&mut scene.stats);
            scene.apply_all();
        }
        assert!(!HELD.iter().any(|key| scene.has(key)), "free, they go like all others");
    }
}
