//! Wishes for a cluster in which one node leads all shards: every shard is on the same nodes, so that each of these can.

use super::entry::MetaEntry;
use super::state::{MetaState, NodeState};
use crate::ids::NodeId;

/// Wishes that bring all shards to the same nodes, as many as there shall be replicas; none when they are there. Nodes that
/// have replicas keep them, but for those that leave; others come in the order of their ids.
pub fn plan_together(state: &MetaState) -> Vec<MetaEntry> {
    let is_member =
        |id: &NodeId| state.nodes.get(id).is_some_and(|node| node.state == NodeState::Member);
    let mut wanted: Vec<NodeId> = Vec::new();
    let mut add = |id: NodeId| {
        if wanted.len() < usize::from(state.replicas) && !wanted.contains(&id) && is_member(&id) {
            wanted.push(id);
        }
    };
    let held = state.shards.values().flat_map(|shard| &shard.replicas);
    held.for_each(|replica| add(replica.node));
    state.members().for_each(|(id, _)| add(id));
    wanted.sort_unstable();
    if wanted.is_empty() {
        return Vec::new();
    }
    let differs = state.shards.iter().filter(|(_, shard)| {
        let nodes = shard.replicas.iter().map(|replica| replica.node);
        nodes.ne(wanted.iter().copied())
    });
    differs
        .map(|(id, shard)| MetaEntry::Wish {
            shard: *id,
            version: shard.version,
            nodes: wanted.clone(),
            leader: None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::entry::NodeFacts;
    use super::super::state::Outcome;
    use super::*;
    use crate::ids::{DirectoryId, Index};

    fn settle(state: &mut MetaState, index: &mut u64) -> Vec<Vec<u64>> {
        for entry in plan_together(state) {
            *index += 1;
            assert_eq!(state.apply(Index(*index), &entry), Outcome::Done, "{entry:?}");
        }
        assert_eq!(plan_together(state), [], "it is settled at once");
        let nodes = |shard: &super::super::state::Shard| {
            shard.replicas.iter().map(|replica| replica.node.0).collect()
        };
        state.shards.values().map(nodes).collect()
    }

    #[test]
    fn all_shards_are_on_the_same_nodes_and_move_as_little_as_can_be() {
        let facts = NodeFacts::default();
        let mut state = MetaState::found(&[(NodeId(1), DirectoryId(1), facts.clone())], 3);
        let mut index = 10;
        assert_eq!(settle(&mut state, &mut index), vec![vec![1]; 3]);
        let mut all = vec![1];
        for n in 2..=5 {
            let entry = MetaEntry::Join { directory: DirectoryId(n), facts: facts.clone() };
            index += 1;
            assert_eq!(state.apply(Index(index), &entry), Outcome::Joined(NodeId(n as u64)));
            if n <= 3 {
                all.push(n as u64);
            }
            assert_eq!(settle(&mut state, &mut index), vec![all.clone(); 3]);
        }
        index += 1;
        assert_eq!(state.apply(Index(index), &MetaEntry::Leave(NodeId(2))), Outcome::Done);
        assert_eq!(settle(&mut state, &mut index), vec![vec![1, 3, 4]; 3]);
        index += 1;
        assert_eq!(state.apply(Index(index), &MetaEntry::Replicas(5)), Outcome::Done);
        assert_eq!(settle(&mut state, &mut index), vec![vec![1, 3, 4, 5]; 3]);
    }
}
