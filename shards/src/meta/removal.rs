//! May a node be removed? Asked before anything is agreed on, when an operator wants it; who
//! insists proposes the entry all the same. And which ones have left, so that they are removed for
//! ever.

use std::collections::BTreeSet;

use super::entry::MetaEntry;
use super::planner::plan;
use super::state::{MetaState, NodeState, Outcome, Rejection, Shard};
use crate::ids::{Index, NodeId, ShardId};
use crate::snapshot::Membership;

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

/// Nodes that have no replica in any of these groups, which are those of all shards as their leaders
/// know them.
pub fn gone<'a>(
    state: &MetaState,
    groups: impl IntoIterator<Item = &'a Membership>,
) -> BTreeSet<NodeId> {
    let mut gone: BTreeSet<NodeId> = state.nodes.keys().copied().collect();
    for members in groups {
        let ids = members.voters.iter().chain(&members.learners);
        for member in ids.chain(&members.voters_outgoing) {
            gone.remove(&member.node());
        }
    }
    gone
}

/// Those of the dead that have never had a vote in any of these groups, all that there are: their
/// joins have ended half-way, and hold others up.
pub fn half_joined<'a>(
    dead: &BTreeSet<NodeId>,
    groups: impl IntoIterator<Item = &'a Membership>,
) -> BTreeSet<NodeId> {
    let mut half_joined = dead.clone();
    for members in groups {
        for voter in members.voters.iter().chain(&members.voters_outgoing) {
            half_joined.remove(&voter.node());
        }
    }
    half_joined
}

/// Entries that remove the nodes that leave and are `gone`. `meta`: the members of the meta group,
/// as its leader knows them. Who has a vote there is not removed: nobody speaks to a removed node
/// any more, so one vote would be lost, and with another one the majority.
pub fn removals(state: &MetaState, gone: &BTreeSet<NodeId>, meta: &Membership) -> Vec<MetaEntry> {
    let votes = |node: NodeId| {
        let mut voters = meta.voters.iter().chain(&meta.voters_outgoing);
        voters.any(|voter| voter.node() == node)
    };
    let leaves = |node: &&NodeId| {
        let known = state.nodes.get(node);
        let is_leaving = known.is_some_and(|node| node.state == NodeState::Leaving);
        is_leaving && !state.has_replicas(**node) && !votes(**node)
    };
    gone.iter().filter(leaves).map(|node| MetaEntry::Remove(*node)).collect()
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
    fn who_leaves_is_removed_when_no_group_has_it() {
        let mut state = state(3, 0);
        let ids = |ids: &[u64]| -> Vec<NodeId> { ids.iter().copied().map(NodeId).collect() };
        let set = |ids: &[u64]| -> BTreeSet<NodeId> { ids.iter().copied().map(NodeId).collect() };
        let members = |voters: &[u64], learners: &[u64], outgoing: &[u64]| Membership {
            voters: ids(voters),
            learners: ids(learners),
            voters_outgoing: ids(outgoing),
            ..Membership::default()
        };
        state.apply(Index(9), &MetaEntry::Leave(NodeId(3)));
        let (whole, small) = (members(&[1, 2, 3], &[], &[]), members(&[1, 2], &[], &[]));
        assert_eq!(gone(&state, [&whole, &small]), set(&[]));
        assert_eq!(gone(&state, [&small, &small]), set(&[3]));
        assert_eq!(gone(&state, [&small, &members(&[1, 2], &[3], &[])]), set(&[]));
        assert_eq!(gone(&state, [&small, &members(&[1, 2], &[], &[1, 2, 3])]), set(&[]));
        let learns = members(&[1, 2], &[3], &[]);
        assert_eq!(removals(&state, &set(&[3]), &learns), [], "it is still wished");
        settle(&mut state, &set(&[1, 2]));
        let removed = [MetaEntry::Remove(NodeId(3))];
        assert_eq!(removals(&state, &set(&[1, 3]), &learns), removed);
        assert_eq!(removals(&state, &set(&[1, 3]), &whole), [], "it has a vote");
        let joint = members(&[1, 2], &[], &[1, 2, 3]);
        assert_eq!(removals(&state, &set(&[1, 3]), &joint), [], "it has a vote");
        assert_eq!(half_joined(&set(&[2, 3]), [&small, &learns]), set(&[3]));
        assert_eq!(half_joined(&set(&[2, 3]), [&small, &whole]), set(&[]));
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
