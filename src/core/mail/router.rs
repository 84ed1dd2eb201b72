//! Which shard owns a key, and which core owns the shard.
//!
//! The slots' owners are the same on every core. Where the shards live is what this core was told:
//! each core has a table of its own, and what is on its way meanwhile is the business of
//! `place/moving.rs`.

use crate::commands::Command;
use ringraft_shards::arguments::Arguments;
use ringraft_shards::ids::ShardId;
use ringraft_shards::keyspace::{KeyHash, KeyHasher};
use ringraft_shards::slot::{SLOT_COUNT, Slot};
use ringraft_shards::snapshot::SlotRange;

/// Where a shard lives, as one core knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its core; the count of cores while it is between two of them.
    pub core: u16,
    /// Its position among the shards of this core, or [`NOT_HERE`].
    pub local: u16,
}

/// The position of shards of other cores: no index.
pub const NOT_HERE: u16 = u16::MAX;

/// The core of the meta group while there is none: no core.
const NOWHERE: u16 = u16::MAX;

/// The slot table, and the places of the shards as one core knows them.
#[derive(Clone, Debug)]
pub struct Router {
    hasher: KeyHasher,
    slots: Vec<ShardId>,
    /// Of the shards in their order, and last of the meta group, whose number is greater than all.
    places: Vec<Place>,
}

impl Router {
    /// The router of one core. Shards own contiguous ranges of slots and are dealt to the cores in
    /// turn.
    pub fn new(hasher: KeyHasher, shard_count: usize, core_count: usize, own: u16) -> Router {
        let shard_of = |slot: usize| ShardId((slot * shard_count / SLOT_COUNT) as u16);
        let place_of = |shard: usize| {
            let core = dealt_to(ShardId(shard as u16), core_count);
            let local = if core == own { (shard / core_count) as u16 } else { NOT_HERE };
            Place { core, local }
        };
        let meta = Place { core: NOWHERE, local: NOT_HERE };
        Router {
            hasher,
            slots: (0..SLOT_COUNT).map(shard_of).collect(),
            places: (0..shard_count).map(place_of).chain([meta]).collect(),
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
        let shard = |i: usize| self.slots[self.hasher.slot(arguments.at(i)).number()];
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

    /// The slots of a shard, of which each has one at least.
    pub fn slot_range(&self, shard: ShardId) -> SlotRange {
        let slot = |n| Slot::new(n).expect("the router's slots are slots");
        let after = self.first_slot(ShardId(shard.0 + 1));
        SlotRange { first: slot(self.first_slot(shard)), last: slot(after - 1) }
    }

    /// Where a shard lives.
    #[inline(always)]
    pub fn place(&self, shard: ShardId) -> Place {
        self.places[self.index(shard)]
    }

    #[inline(always)]
    fn index(&self, shard: ShardId) -> usize {
        usize::from(shard.0).min(self.places.len() - 1)
    }

    /// Is there such a shard, or a meta group?
    pub fn knows(&self, shard: ShardId) -> bool {
        let is_known = usize::from(shard.0) < self.shard_count() || shard.0 == u16::MAX;
        is_known && self.place(shard).core != NOWHERE
    }

    /// The position of a shard among those of this core, while it is here.
    #[inline(always)]
    pub fn local(&self, shard: ShardId) -> Option<usize> {
        let local = self.places[self.index(shard)].local;
        (local != NOT_HERE).then_some(usize::from(local))
    }

    /// From now on what is for this shard goes to `core`. Where it lies does not change.
    pub fn send_to(&mut self, shard: ShardId, core: u16) {
        let index = self.index(shard);
        self.places[index].core = core;
    }

    /// A shard of this core is at this position now.
    pub fn put(&mut self, shard: ShardId, local: usize) {
        let local = local as u16;
        assert!(local != NOT_HERE, "positions are below the count of shards");
        let index = self.index(shard);
        self.places[index].local = local;
    }

    /// A shard is no longer here.
    pub fn take_away(&mut self, shard: ShardId) {
        let index = self.index(shard);
        self.places[index].local = NOT_HERE;
    }

    /// The core of each shard, in the order of the shards.
    pub fn cores(&self) -> impl Iterator<Item = u16> + '_ {
        self.places[..self.shard_count()].iter().map(|place| place.core)
    }

    /// Count of shards.
    pub fn shard_count(&self) -> usize {
        self.places.len() - 1
    }

    /// The shards of a core: of this one at its start in the order of their positions.
    pub fn shards_of_core(&self, core: u16) -> impl Iterator<Item = ShardId> + '_ {
        let shards = self.places[..self.shard_count()].iter().enumerate();
        shards.filter(move |(_, p)| p.core == core).map(|(shard, _)| ShardId(shard as u16))
    }
}

/// The core that a shard is recovered on, and where it stays when nothing moves it.
pub fn dealt_to(shard: ShardId, core_count: usize) -> u16 {
    (usize::from(shard.0) % core_count) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_has_slots_and_a_place() {
        for (shards, cores) in [(1, 1), (2, 2), (3, 2), (8, 3), (1024, 4)] {
            let mut seen = 0;
            for core in 0..cores as u16 {
                let router = Router::new(KeyHasher::new(1), shards, cores, core);
                let here = (0..shards as u16).filter(|&n| router.local(ShardId(n)).is_some());
                assert_eq!(here.count(), router.shards_of_core(core).count());
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
