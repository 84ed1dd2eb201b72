//! What a shard does of its own accord: it evicts items when memory runs out, and removes those past their deadline.
//!
//! Both are the leader's proposals, gathered like any write and answered to nobody. What is being evicted counts as
//! gone from the moment it is chosen, each item until its own deletion is applied: a busy store has always some under way.

use crate::commands::Command;
use crate::commands::expire::{EVICT_KEYS, EXPIRE_KEYS};
use crate::commands::table;
use crate::core::answers::{Origin, Target};
use crate::core::shard::{LocalShard, Request};
use crate::core::stats::Stats;
use ringraft_shards::arguments::OwnedArguments;
use ringraft_shards::ids::DatabaseIndex;
use ringraft_shards::keyspace::{Key, KeyHash};
use ringraft_shards::transaction::LockKey;

/// Items looked at for one write's evictions before it is refused.
const EVICTIONS_PER_WRITE_MAX: usize = 16;

impl LocalShard {
    /// Is there room to grow? Proposes evictions when there is not, as the policy says.
    #[inline]
    pub fn has_room(&mut self, stats: &mut Stats) -> bool {
        let limit = self.memory_limit;
        limit == 0 || self.used_bytes() <= limit || self.evict(stats)
    }

    /// Bytes that its items take, less those whose eviction is under way.
    pub fn used_bytes(&self) -> u64 {
        (self.keyspace.used_bytes() as u64).saturating_sub(self.evicting_bytes)
    }

    #[cold]
    fn evict(&mut self, stats: &mut Stats) -> bool {
        let now_ms = self.time(stats.now_ms);
        for _ in 0..EVICTIONS_PER_WRITE_MAX {
            if self.used_bytes() <= self.memory_limit {
                return true;
            }
            let seed = self.random();
            let policy = self.eviction_policy;
            let Some((database, key)) = self.keyspace.eviction_candidate(policy, now_ms, seed)
            else {
                return false;
            };
            let key_hash = self.keyspace.hasher().hash(&key);
            if self.participant.is_held(LockKey::new(key_hash, true).hash) {
                // A transaction has read it and is about to write it: nothing may come in between.
                continue;
            }
            let view = self.keyspace.view(database, now_ms);
            let size = view.peek(&Key::new(&key, key_hash)).map_or(0, |item| item.size());
            self.evicting.push_back(size as u64);
            self.evicting_bytes += size as u64;
            stats.evicted_keys += 1;
            self.gather_own(EVICT_KEYS, database, key_hash, &key);
        }
        // Eviction goes on with the next write: memory shrinks faster than writes let it grow.
        true
    }

    fn gather_own(&mut self, name: &str, database: DatabaseIndex, first_key: KeyHash, key: &[u8]) {
        let command = table::internal(name);
        let owned: OwnedArguments = [name.as_bytes(), key].into_iter().collect();
        let (origin, arguments) = (Origin::NOBODY, owned.borrow());
        self.own_count += 1;
        self.gather_write(&Request { command, origin, database, first_key, arguments });
    }

    /// Proposes the deletion of items past their deadline, while a good share of those looked at are.
    pub fn expire(&mut self, now_ms: i64, buckets: usize, rounds_max: usize, stats: &mut Stats) {
        if !self.serves() || self.own_count > 0 {
            return;
        }
        let now_ms = self.time(now_ms);
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

    /// One of the shard's own operations has come to its end.
    #[inline(always)]
    pub(super) fn note_own(&mut self, command: &Command, origin: Origin) {
        if origin.target == Target::Nobody {
            self.own_count = self.own_count.saturating_sub(1);
            if command.name == EVICT_KEYS {
                self.evicting_bytes -= self.evicting.pop_front().unwrap_or(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::answers::Answers;
    use crate::core::participate::Ask;
    use crate::core::snapshots::ShardSnapshots;
    use ringraft_shards::ids::{NodeId, ShardId};
    use ringraft_shards::keyspace::{EvictionPolicy, KeyHasher, Keyspace};
    use ringraft_shards::raft::{CommittedEntry, Group, GroupConfig, Output};
    use ringraft_shards::transaction::{LockSet, ToShard, TransactionId};
    use std::collections::VecDeque;

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
            self.shard.propose(NOW_MS, &mut self.answers, &mut self.stats);
            loop {
                self.output.clear();
                self.shard.group.poll(&mut self.output);
                self.committed.extend(self.output.committed.drain(..));
                if !self.output.more {
                    return;
                }
            }
        }

        fn apply_one(&mut self) {
            let entry = self.committed.pop_front().expect("something is committed");
            self.shard.apply(&entry, &mut self.answers, &mut self.stats);
            self.shard.group.applied(entry.index);
            self.shard.note_role();
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
        assert_eq!((scene.shard.evicting_bytes, scene.shard.evicting.len()), (0, 0));
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
        let (mut messages, mut refused) = (Vec::new(), Vec::new());
        while scene.shard.serve_transactions(&mut messages, &mut scene.stats, &mut refused) {
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
        while scene.shard.serve_transactions(&mut messages, &mut scene.stats, &mut refused) {
            scene.apply_all();
        }
        for _ in 0..10 {
            scene.shard.has_room(&mut scene.stats);
            scene.apply_all();
        }
        assert!(!HELD.iter().any(|key| scene.has(key)), "free, they go like all others");
    }
}
