//! Wishes for a cluster in which one node leads all shards: every shard is on the same nodes, so
//! that each of these can.

use super::entry::MetaEntry;
use super::planner::Absent;
use super::state::{MetaState, NodeState};
use crate::ids::NodeId;

/// Wishes that bring all shards to the same nodes, as many as there shall be replicas; none when
/// they are there. Nodes that have replicas keep them, but for those that leave; others come in the
/// order of their ids. The dead keep theirs only as long as nobody can take their place, and those
/// whose join has ended half-way not even then.
pub fn plan_together(state: &MetaState, absent: Absent<'_>) -> Vec<MetaEntry> {
    let is_member =
        |id: &NodeId| state.nodes.get(id).is_some_and(|node| node.state == NodeState::Member);
    let mut wanted: Vec<NodeId> = Vec::new();
    let mut add = |id: NodeId| {
        if wanted.len() < usize::from(state.replicas) && !wanted.contains(&id) && is_member(&id) {
            wanted.push(id);
        }
    };
    let held = state.shards.values().flat_map(|shard| &shard.replicas);
    let held: Vec<NodeId> = held.map(|replica| replica.node).collect();
    let is_alive = |id: &NodeId| !absent.dead.contains(id);
    held.iter().copied().filter(is_alive).for_each(&mut add);
    state.members().map(|(id, _)| id).filter(is_alive).for_each(&mut add);
    let keeps = |id: &NodeId| !absent.half_joined.contains(id);
    held.iter().copied().filter(keeps).for_each(&mut add);
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
    use std::collections::BTreeSet;

    fn settle(state: &mut MetaState, index: &mut u64) -> Vec<Vec<u64>> {
        settle_without(state, index, &[], &[])
    }

    fn settle_without(
        state: &mut MetaState,
        index: &mut u64,
        dead: &[u64],
        half_joined: &[u64],
    ) -> Vec<Vec<u64>> {
        let nodes = |ids: &[u64]| -> BTreeSet<NodeId> { ids.iter().copied().map(NodeId).collect() };
        let (dead, half_joined) = (nodes(dead), nodes(half_joined));
        let absent = Absent { dead: &dead, half_joined: &half_joined };
        for entry in plan_together(state, absent) {
            *index += 1;
            assert_eq!(state.apply(Index(*index), &entry), Outcome::Done, "{entry:?}");
        }
        assert_eq!(plan_together(state, absent), [], "it is settled at once");
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

    #[test]
    fn the_dead_are_replaced_by_those_who_stand_by_and_by_nobody_else() {
        let facts = NodeFacts::default();
        let mut state = MetaState::found(&[(NodeId(1), DirectoryId(1), facts.clone())], 2);
        let mut index = 10;
        let mut join = |state: &mut MetaState, n| {
            index += 1;
            let entry = MetaEntry::Join { directory: DirectoryId(n), facts: facts.clone() };
            state.apply(Index(index), &entry);
        };
        (2..=3).for_each(|n| join(&mut state, n));
        let mut index = 100;
        settle(&mut state, &mut index);
        let dead = settle_without(&mut state, &mut index, &[2], &[]);
        assert_eq!(dead, vec![vec![1, 2, 3]; 2], "nobody stands by");
        let half = settle_without(&mut state, &mut index, &[2], &[2]);
        assert_eq!(half, vec![vec![1, 3]; 2], "it never had anything");
        settle(&mut state, &mut index);
        join(&mut state, 4);
        let dead = settle_without(&mut state, &mut index, &[2], &[]);
        assert_eq!(dead, vec![vec![1, 3, 4]; 2]);
        assert_eq!(
            settle(&mut state, &mut index),
            vec![vec![1, 3, 4]; 2],
            "it comes back to nothing"
        );
    }
}
