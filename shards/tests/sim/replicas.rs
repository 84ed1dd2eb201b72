//! The replicas of a node: one of each shard, and one of the meta group, by the number of their
//! group.

use std::ops::{Index, IndexMut};

use ringraft_shards::ids::NodeId;
use ringraft_shards::meta::META_SHARD;

use crate::replica::Replica;

/// The number of the meta group.
pub const META: u16 = META_SHARD.0;

/// The groups of a cluster with so many shards.
pub fn groups(shards: u16) -> impl Iterator<Item = u16> + Clone {
    (0..shards).chain([META])
}

/// The group that is the n-th of them.
pub fn group_at(place: u64, shards: u16) -> u16 {
    if place < u64::from(shards) { place as u16 } else { META }
}

/// Replicas, those of shards first.
pub struct Replicas(Vec<Replica>);

impl Replicas {
    /// Of a node that has nothing yet.
    pub fn new(node: u64, shards: u16, voters: &[u64]) -> Replicas {
        let new = |group| Replica::new(NodeId(node), group, voters);
        Replicas(groups(shards).map(new).collect())
    }

    /// How many shards there are.
    pub fn shards(&self) -> u16 {
        self.0.len() as u16 - 1
    }

    pub fn iter(&self) -> impl Iterator<Item = &Replica> {
        self.0.iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Replica> {
        self.0.iter_mut()
    }
}

impl Index<u16> for Replicas {
    type Output = Replica;

    fn index(&self, group: u16) -> &Replica {
        &self.0[usize::from(group).min(self.0.len() - 1)]
    }
}

impl IndexMut<u16> for Replicas {
    fn index_mut(&mut self, group: u16) -> &mut Replica {
        let last = self.0.len() - 1;
        &mut self.0[usize::from(group).min(last)]
    }
}
