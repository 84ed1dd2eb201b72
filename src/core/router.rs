//! Which shard owns a key, and which core owns the shard.

use crate::commands::Command;
use ringraft_shards::arguments::Arguments;
use ringraft_shards::ids::ShardId;
use ringraft_shards::keyspace::{KeyHash, KeyHasher};
use ringraft_shards::slot::{SLOT_COUNT, Slot};

/// Where a shard lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its core.
    pub core: u16,
    /// Its position among the shards of that core.
    pub local: u16,
}

/// The slot table and the places of the shards; the same on every core.
#[derive(Clone, Debug)]
pub struct Router {
    hasher: KeyHasher,
    slots: Vec<ShardId>,
    places: Vec<Place>,
}

impl Router {
    /// Shards own contiguous ranges of slots and are dealt to the cores in turn.
    pub fn new(hasher: KeyHasher, shard_count: usize, core_count: usize) -> Router {
        let shard_of = |slot: usize| ShardId((slot * shard_count / SLOT_COUNT) as u16);
        let place_of = |shard: usize| Place {
            core: (shard % core_count) as u16,
            local: (shard / core_count) as u16,
        };
        Router {
            hasher,
            slots: (0..SLOT_COUNT).map(shard_of).collect(),
            places: (0..shard_count).map(place_of).collect(),
        }
    }

    /// Hashes a key.
    #[inline(always)]
    pub fn hash(&self, key: &[u8]) -> KeyHash {
        self.hasher.hash(key)
    }

    /// The hasher.
    pub fn hasher(&self) -> KeyHasher {
        self.hasher
    }

    /// The shard that owns a key.
    #[inline(always)]
    pub fn shard(&self, key: KeyHash) -> ShardId {
        self.slots[key.slot().number()]
    }

    /// Does one shard own all keys of a request?
    pub fn is_one(&self, command: &Command, arguments: Arguments<'_>) -> bool {
        let mut positions = command.keys.positions(arguments);
        let shard = |i: usize| self.slots[Slot::of_key(arguments.at(i)).number()];
        let first = positions.next().map(shard);
        positions.all(|i| Some(shard(i)) == first)
    }

    /// The shard that owns a slot.
    pub fn shard_of_slot(&self, slot: usize) -> ShardId {
        self.slots[slot]
    }

    /// The first slot of a shard; the count of slots for the shard after the last one.
    pub fn first_slot(&self, shard: ShardId) -> usize {
        self.slots.partition_point(|owner| *owner < shard)
    }

    /// Where a shard lives.
    #[inline(always)]
    pub fn place(&self, shard: ShardId) -> Place {
        self.places[usize::from(shard.0)]
    }

    /// Count of shards.
    pub fn shard_count(&self) -> usize {
        self.places.len()
    }

    /// The shards of a core, in the order of their local positions.
    pub fn shards_of_core(&self, core: u16) -> impl Iterator<Item = ShardId> + '_ {
        let shards = self.places.iter().enumerate();
        shards.filter(move |(_, p)| p.core == core).map(|(shard, _)| ShardId(shard as u16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_has_slots_and_a_place() {
        for (shards, cores) in [(1, 1), (2, 2), (3, 2), (8, 3), (1024, 4)] {
            let router = Router::new(KeyHasher::new(1), shards, cores);
            let mut seen = 0;
            for core in 0..cores as u16 {
                for (local, shard) in router.shards_of_core(core).enumerate() {
                    assert_eq!(router.place(shard), Place { core, local: local as u16 });
                    let first = router.first_slot(shard);
                    assert_eq!(router.shard_of_slot(first), shard);
                    assert!(first == 0 || router.shard_of_slot(first - 1) < shard);
                    seen += 1;
                }
            }
            assert_eq!(seen, shards);
        }
    }
}
