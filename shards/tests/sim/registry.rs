//! What the cluster has agreed on: the state that the meta group's entries make. Its log is not
//! simulated: entries take effect at once and everywhere, and processes look into the state when
//! they tick.

use ringraft_shards::ids::{Index, NodeId, ShardId};
use ringraft_shards::meta::{MetaEntry, MetaState, NodeFacts, NodeState, Outcome, Shard};

use crate::node::Node;

/// Entries between two snapshots that the state goes on from.
const SNAPSHOT_EVERY: u64 = 5;

/// Replicas of each shard: more than there are nodes. A node without one would not know where
/// transactions go.
const REPLICAS: u16 = 15;

/// The agreed state.
pub struct Registry {
    pub state: MetaState,
    index: u64,
}

impl Registry {
    /// Of a cluster of nobody.
    pub fn empty() -> Registry {
        Registry { state: MetaState::found(&[], 0), index: 0 }
    }

    /// Of a cluster that these nodes found. Every shard shall be on all of them.
    pub fn found(nodes: &[Node], shards: u16) -> Registry {
        let node = |node: &Node| (NodeId(node.id), node.directory, facts(node.id));
        let nodes: Vec<_> = nodes.iter().map(node).collect();
        let mut registry = Registry { state: MetaState::found(&nodes, shards), index: 1 };
        registry.apply(&MetaEntry::Replicas(REPLICAS));
        registry
    }

    /// An entry takes effect, as bytes.
    pub fn apply(&mut self, entry: &MetaEntry) -> Outcome {
        self.index += 1;
        let entry = MetaEntry::decode(entry.encode().into()).expect("it was just written");
        let outcome = self.state.apply(Index(self.index), &entry);
        if self.index.is_multiple_of(SNAPSHOT_EVERY) {
            let snapshot = self.state.encode();
            self.state = MetaState::decode(snapshot.into()).expect("it was just written");
        }
        outcome
    }

    /// Nodes that may have replicas.
    pub fn members(&self) -> Vec<u64> {
        self.state.members().map(|(id, _)| id.0).collect()
    }

    /// Nodes that are removed for ever.
    pub fn removed(&self) -> impl Iterator<Item = u64> {
        let removed = self.state.nodes.iter().filter(|(_, node)| node.state == NodeState::Removed);
        removed.map(|(id, _)| id.0)
    }

    /// What is wished of a shard.
    pub fn shard(&self, shard: usize) -> &Shard {
        &self.state.shards[&ShardId(shard as u16)]
    }
}

/// What a node says of itself.
pub fn facts(node: u64) -> NodeFacts {
    let zone = ["", "a", "b"][node as usize % 3].to_owned();
    NodeFacts { address: format!("node-{node}:7481"), zone, cores: 1, level: 1 }
}
