//! Who belongs to the meta group itself: every node, so that each reads what is agreed on from its
//! own memory, and up to five of them with a vote. Nothing of this is agreed on beforehand: the
//! group's leader decides from what its group is, and whoever leads next goes on from there.

use std::collections::BTreeSet;

use super::state::{MetaState, NodeState};
use crate::ids::NodeId;
use crate::snapshot::Membership;

/// Voters at most: two of them may fail.
const VOTERS_MAX: usize = 5;

/// What the meta group shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetaWish {
    /// Members with a vote.
    pub voters: Vec<NodeId>,
    /// Members that only listen.
    pub learners: Vec<NodeId>,
}

/// What the meta group shall be, as it is `now`. Votes are moved as little as possible: from nodes
/// that leave, or are `dead`, or too many, to members in other zones, then of smaller ids; a dead
/// voter keeps its vote when nobody can take it. A node that leaves listens until it is `gone`,
/// that is until no shard's group has a replica of it: until then it may have to hand over what it
/// leads. Once it listens no more it is not taken in again: that it is removed may be on its way.
pub fn wish_meta(
    state: &MetaState,
    now: &Membership,
    dead: &BTreeSet<NodeId>,
    gone: &BTreeSet<NodeId>,
) -> MetaWish {
    let belongs = |id: &NodeId| {
        state.nodes.get(id).is_some_and(|node| match node.state {
            NodeState::Member => true,
            NodeState::Leaving => {
                state.has_replicas(*id)
                    || !gone.contains(id) && now.contains(state.meta_member(*id))
            }
            NodeState::Removed => false,
        })
    };
    let members: BTreeSet<NodeId> = state.members().map(|(id, _)| id).collect();
    let usable = |id: &NodeId| members.contains(id) && !dead.contains(id);
    let holders: BTreeSet<NodeId> =
        now.voters.iter().map(|member| member.node()).filter(belongs).collect();
    let seats = meta_seats(members.len());
    let mut voters: Vec<NodeId> = holders.iter().filter(|id| usable(id)).copied().collect();
    while voters.len() > seats {
        let neighbours = |id: &NodeId| state.neighbours(*id, &voters);
        let surplus = voters.iter().copied().max_by_key(|id| (neighbours(id), *id));
        voters.retain(|id| Some(*id) != surplus);
    }
    while voters.len() < seats {
        let free = members.iter().filter(|id| usable(id) && !voters.contains(id)).copied();
        let Some(new) = free.min_by_key(|id| (state.neighbours(*id, &voters), *id)) else { break };
        voters.push(new);
    }
    // Members that are dead before those that leave: they may come back.
    let (dead, leaving): (Vec<NodeId>, Vec<NodeId>) =
        holders.iter().filter(|id| !usable(id)).partition(|id| members.contains(id));
    let free = seats.max(1).saturating_sub(voters.len());
    voters.extend(dead.into_iter().chain(leaving).take(free));
    voters.sort_unstable();
    let learners = state.nodes.keys().filter(|id| belongs(id) && !voters.contains(id));
    let member = |id: &NodeId| state.meta_member(*id);
    MetaWish {
        learners: learners.map(member).collect(),
        voters: voters.iter().map(member).collect(),
    }
}

/// Votes among so many members: an odd number survives as many failures as one more. Of two, both
/// have what is agreed on.
pub fn meta_seats(members: usize) -> usize {
    match members.min(VOTERS_MAX) {
        few @ 0..=2 => few,
        more => more - usize::from(more.is_multiple_of(2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{DirectoryId, Index};
    use crate::meta::{META_SHARD, MetaEntry, NodeFacts, Outcome};

    fn state(zones: &[&str]) -> MetaState {
        let mut state = MetaState::found(&[], 1);
        for (n, zone) in zones.iter().enumerate() {
            let facts = NodeFacts { zone: (*zone).into(), ..NodeFacts::default() };
            let entry = MetaEntry::Join { directory: DirectoryId(n as u128), facts };
            state.apply(Index(n as u64 + 1), &entry);
        }
        state
    }

    fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    fn check(state: &MetaState, now: &[u64], dead: &[u64], voters: &[u64], learners: &[u64]) {
        let voting = nodes(now).into_iter().collect();
        let now = Membership { voters: voting, ..Membership::default() };
        let found = wish_meta(state, &now, &nodes(dead), &BTreeSet::new());
        let ids = |members: &[NodeId]| -> Vec<u64> { members.iter().map(|id| id.0).collect() };
        assert_eq!((&ids(&found.voters)[..], &ids(&found.learners)[..]), (voters, learners));
    }

    #[test]
    fn everybody_listens_and_an_odd_number_votes() {
        check(&state(&[""]), &[1], &[], &[1], &[]);
        check(&state(&["", ""]), &[1], &[], &[1, 2], &[]);
        check(&state(&["", "", ""]), &[1, 2], &[], &[1, 2, 3], &[]);
        check(&state(&[""; 4]), &[1, 2, 3], &[], &[1, 2, 3], &[4]);
        check(&state(&[""; 4]), &[2, 3, 4], &[], &[2, 3, 4], &[1]);
        check(&state(&[""; 5]), &[2, 3, 4], &[], &[1, 2, 3, 4, 5], &[]);
        check(&state(&[""; 7]), &[3, 4, 5, 6, 7], &[], &[3, 4, 5, 6, 7], &[1, 2]);
    }

    #[test]
    fn votes_are_spread_over_zones_and_go_from_the_dead_to_the_living() {
        check(&state(&["a", "a", "b", "c"]), &[1], &[], &[1, 3, 4], &[2]);
        check(&state(&[""; 4]), &[1, 2, 3], &[2], &[1, 3, 4], &[2]);
        check(&state(&[""; 3]), &[1, 2, 3], &[2], &[1, 2, 3], &[]);
        check(&state(&[""; 2]), &[1, 2], &[2], &[1, 2], &[]);
        check(&state(&[""; 3]), &[1], &[2], &[1, 3], &[2]);
    }

    #[test]
    fn who_leaves_gives_its_vote_and_listens_until_it_is_gone() {
        let mut state = state(&["", "", "", ""]);
        let leave = MetaEntry::Leave(NodeId(1));
        assert_eq!(state.apply(Index(9), &leave), Outcome::Done);
        check(&state, &[1, 2, 3], &[], &[2, 3, 4], &[1]);
        let now = Membership { voters: vec![NodeId(1)], ..Membership::default() };
        let found = wish_meta(&state, &now, &BTreeSet::new(), &nodes(&[1]));
        assert!(found.learners.is_empty() && found.voters.len() == 3, "{found:?}");
        let all = nodes(&[1, 2, 3, 4]);
        let found = wish_meta(&state, &now, &all, &BTreeSet::new());
        assert_eq!(found.voters, now.voters, "never nobody");
        let now = Membership { voters: [2, 3, 4].map(NodeId).to_vec(), ..Membership::default() };
        let found = wish_meta(&state, &now, &BTreeSet::new(), &BTreeSet::new());
        assert!(found.learners.is_empty(), "it is not taken in again: {found:?}");
    }

    #[test]
    fn who_has_lost_its_log_comes_back_as_another_member() {
        let mut state = state(&["", "", ""]);
        let renew = |generation| {
            let (shard, node, asker) = (META_SHARD, NodeId(2), Some(7));
            MetaEntry::Renew { shard, node, generation, asker }
        };
        assert_eq!(state.apply(Index(9), &renew(0)), Outcome::Done);
        assert!(matches!(state.apply(Index(10), &renew(0)), Outcome::Rejected(_)));
        let voters = [1, 2, 3].map(NodeId).to_vec();
        let now = Membership { voters, ..Membership::default() };
        let found = wish_meta(&state, &now, &BTreeSet::new(), &BTreeSet::new());
        assert_eq!(found.voters, [NodeId(1), NodeId(2).replica(9), NodeId(3)]);
    }
}
