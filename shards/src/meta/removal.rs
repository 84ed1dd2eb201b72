//! May a node be removed? Asked before anything is agreed on, when an operator wants it; who
//! insists proposes the entry all the same.

use std::collections::BTreeSet;

use super::entry::MetaEntry;
use super::planner::plan;
use super::state::{MetaState, NodeState, Outcome, Rejection, Shard};
use crate::ids::{Index, NodeId, ShardId};

/// Why a node should stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Objection {
    /// It cannot leave at all.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Too few voters of the shard are heard, so its members cannot be changed now.
    #[error("shard {0} has no majority of nodes that can be reached, so its members cannot change")]
    NoMajority(ShardId),
    /// Too few voters of the shard would be heard afterwards.
    #[error("shard {0} would be left without a majority of nodes that can be reached")]
    MajorityLost(ShardId),
}

/// What speaks against removing a node, when these are the members that are heard. Nothing, if it
/// leaves already.
pub fn object_to_removal(
    state: &MetaState,
    node: NodeId,
    heard: &BTreeSet<NodeId>,
) -> Result<(), Objection> {
    let mut after = state.clone();
    if let Outcome::Rejected(rejection) = after.apply(Index(0), &MetaEntry::Leave(node)) {
        return Err(rejection.into());
    }
    if state.nodes.get(&node).is_some_and(|node| node.state == NodeState::Leaving) {
        return Ok(());
    }
    let majority = |shard: &Shard| {
        let reached = shard.replicas.iter().filter(|replica| heard.contains(&replica.node));
        reached.count() * 2 > shard.replicas.len()
    };
    let concerned = |shard: &&Shard| shard.replica_of(node).is_some();
    let mut shards = state.shards.iter();
    if let Some((id, _)) = shards.find(|(_, shard)| concerned(shard) && !majority(shard)) {
        return Err(Objection::NoMajority(*id));
    }
    settle(&mut after, heard);
    for (id, shard) in &state.shards {
        if concerned(&shard) && !majority(&after.shards[id]) {
            return Err(Objection::MajorityLost(*id));
        }
    }
    Ok(())
}

/// Plans to the end.
fn settle(state: &mut MetaState, heard: &BTreeSet<NodeId>) {
    let members: BTreeSet<NodeId> = state.members().map(|(id, _)| id).collect();
    let dead: BTreeSet<NodeId> = members.difference(heard).copied().collect();
    let mut index = state.shards.values().map(|shard| shard.version).max().unwrap_or(0);
    loop {
        let entries = plan(state, &dead);
        if entries.is_empty() {
            return;
        }
        for entry in entries {
            index += 1;
            let outcome = state.apply(Index(index), &entry);
            assert_eq!(outcome, Outcome::Done, "what is planned can be wished");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::DirectoryId;
    use crate::meta::NodeFacts;

    fn state(founders: u64, others: u64) -> MetaState {
        let founder = |id| (NodeId(id), DirectoryId(u128::from(id)), NodeFacts::default());
        let founders: Vec<_> = (1..=founders).map(founder).collect();
        let mut state = MetaState::found(&founders, 2);
        for n in 0..others {
            let directory = DirectoryId(1000 + u128::from(n));
            let entry = MetaEntry::Join { directory, facts: NodeFacts::default() };
            state.apply(Index(1 + n), &entry);
        }
        state
    }

    fn check(state: &MetaState, node: u64, heard: &[u64], expected: Result<(), Objection>) {
        let heard = heard.iter().copied().map(NodeId).collect();
        assert_eq!(object_to_removal(state, NodeId(node), &heard), expected);
    }

    #[test]
    fn who_is_needed_for_a_majority_stays() {
        let (lost, none) =
            (Err(Objection::MajorityLost(ShardId(0))), Err(Objection::NoMajority(ShardId(0))));
        check(&state(3, 0), 3, &[1, 2, 3], Ok(()));
        check(&state(3, 0), 3, &[1, 2], Ok(()));
        check(&state(3, 0), 3, &[1, 3], lost);
        check(&state(3, 0), 3, &[3], none);
        check(&state(3, 1), 3, &[1, 3, 4], Ok(()));
        check(&state(2, 0), 2, &[1, 2], Ok(()));
        check(&state(2, 0), 2, &[1], none);
        check(&state(5, 0), 5, &[1, 2, 5], Ok(()));
    }

    #[test]
    fn who_cannot_leave_is_named() {
        check(&state(1, 0), 1, &[1], Err(Rejection::LastNode.into()));
        check(&state(1, 0), 9, &[1], Err(Rejection::NoNode.into()));
        let mut leaving = state(3, 0);
        leaving.apply(Index(9), &MetaEntry::Leave(NodeId(3)));
        check(&leaving, 3, &[1], Ok(()));
        let text = Objection::MajorityLost(ShardId(3)).to_string();
        assert_eq!(text, "shard 3 would be left without a majority of nodes that can be reached");
    }
}
