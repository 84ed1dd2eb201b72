//! Who belongs to a group, and snapshots as points of the log.

use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState,
};

use crate::ids::{Index, NodeId, Term};

/// The members of a group. Serializable, so that a snapshot's metadata can carry it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Membership {
    /// Nodes whose votes count.
    pub voters: Vec<u64>,
    /// Nodes that receive the log and have no vote.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub learners: Vec<u64>,
    /// During a joint change: the voters before it, a majority of which is needed too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub voters_outgoing: Vec<u64>,
    /// During a joint change: voters that become learners at its end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub learners_next: Vec<u64>,
    /// Does the joint change end by itself?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub auto_leave: bool,
}

impl Membership {
    /// Is the node a member of any kind?
    pub fn contains(&self, node: NodeId) -> bool {
        [&self.voters, &self.learners, &self.voters_outgoing]
            .iter()
            .any(|ids| ids.contains(&node.0))
    }

    /// Is a joint change under way?
    pub fn is_joint(&self) -> bool {
        !self.voters_outgoing.is_empty()
    }

    pub(super) fn from_raft(state: &ConfState) -> Membership {
        // raft-rs keeps hash sets; order here must not depend on them.
        let sorted = |ids: &[u64]| {
            let mut ids = ids.to_vec();
            ids.sort_unstable();
            ids
        };
        Membership {
            voters: sorted(&state.voters),
            learners: sorted(&state.learners),
            voters_outgoing: sorted(&state.voters_outgoing),
            learners_next: sorted(&state.learners_next),
            auto_leave: state.auto_leave,
        }
    }

    pub(super) fn to_raft(&self) -> ConfState {
        ConfState {
            voters: self.voters.clone(),
            learners: self.learners.clone(),
            voters_outgoing: self.voters_outgoing.clone(),
            learners_next: self.learners_next.clone(),
            auto_leave: self.auto_leave,
            ..ConfState::default()
        }
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
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SnapshotPoint {
    /// Index of the last entry in the snapshot.
    pub index: u64,
    /// Term of that entry.
    pub term: u64,
    /// Members as of that entry.
    pub membership: Membership,
}

impl SnapshotPoint {
    /// Index of the last entry in the snapshot.
    pub fn index(&self) -> Index {
        Index(self.index)
    }

    /// Term of that entry.
    pub fn term(&self) -> Term {
        Term(self.term)
    }
}
