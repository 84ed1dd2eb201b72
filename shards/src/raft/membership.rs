//! Who belongs to a group, and snapshots as points of the log.

use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState,
};

use crate::ids::{Index, NodeId, Term};
use crate::snapshot::Membership;

impl Membership {
    /// Is the node a member of any kind?
    pub fn contains(&self, node: NodeId) -> bool {
        [&self.voters, &self.learners, &self.voters_outgoing].iter().any(|ids| ids.contains(&node))
    }

    /// Does the node have a vote, by the old members or by the new?
    pub fn votes(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.voters_outgoing.contains(&node)
    }

    /// Is a joint change under way?
    pub fn is_joint(&self) -> bool {
        !self.voters_outgoing.is_empty()
    }

    /// The members by ascending id: raft-rs keeps hash sets, and nothing may depend on their order.
    pub(super) fn sorted(state: &ConfState) -> Membership {
        let mut members = Membership::from(state);
        members.voters.sort_unstable();
        members.learners.sort_unstable();
        members.voters_outgoing.sort_unstable();
        members.learners_next.sort_unstable();
        members
    }
}

/// One step of a change of members. Several at once make a joint change, which ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MembershipChange {
    /// Add a voter, or make a learner one.
    AddVoter(NodeId),
    /// Add a learner, or take a voter's vote away.
    AddLearner(NodeId),
    /// Remove a member.
    Remove(NodeId),
}

pub(super) fn to_raft_change(changes: &[MembershipChange]) -> ConfChangeV2 {
    let mut change = ConfChangeV2::default();
    change.set_transition(ConfChangeTransition::Auto);
    for step in changes {
        let (kind, node) = match step {
            MembershipChange::AddVoter(node) => (ConfChangeType::AddNode, node),
            MembershipChange::AddLearner(node) => (ConfChangeType::AddLearnerNode, node),
            MembershipChange::Remove(node) => (ConfChangeType::RemoveNode, node),
        };
        let mut single = ConfChangeSingle::default();
        single.set_change_type(kind);
        single.node_id = node.0;
        change.mut_changes().push(single);
    }
    change
}

/// A snapshot's place in the log: everything up to `index` is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotPoint {
    /// Index of the last entry in the snapshot.
    pub index: Index,
    /// Term of that entry.
    pub term: Term,
    /// Members as of that entry.
    pub membership: Membership,
}
