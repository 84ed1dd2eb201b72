//! From a wish and what a group is to the group's next change: asked by its leader, tick by tick,
//! until there is nothing to do. Whoever leads next goes on from where the group is; nothing of it
//! is remembered anywhere else.
//!
//! A new member is a learner first: it counts for nothing until it is level, so an unreachable one
//! costs nothing. Level learners become voters together with the removal of those whose place they
//! take, in one joint change; from one voter to three both learners wait for each other, so that
//! the group does not pass through two voters, of which each is needed. A leader that is not wished
//! hands over first.

use super::state::Wish;
use super::voters::MetaWish;
use crate::ids::NodeId;
use crate::raft::{Group, MembershipChange, PeerProgress, Role};
use crate::snapshot::Membership;

/// What a leader does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Propose this change.
    Change(Vec<MembershipChange>),
    /// Hand over to this member.
    HandOver(NodeId),
}

/// The next step of the group that this node leads. A learner that lacks at most `behind_max`
/// entries is level.
pub fn next_step(group: &Group, me: NodeId, wish: &Wish, behind_max: u64) -> Option<Step> {
    let goal = Goal { voters: &wish.members, learners: &[], leader: wish.leader };
    step(group.membership(), me, &goal, &level(group, behind_max))
}

/// The next step of the meta group, which this node leads. As [`next_step`]; those who lose their
/// vote stay as learners.
pub fn next_meta_step(group: &Group, me: NodeId, wish: &MetaWish, behind_max: u64) -> Option<Step> {
    let goal = Goal { voters: &wish.voters, learners: &wish.learners, leader: None };
    step(group.membership(), me, &goal, &level(group, behind_max))
}

/// The voter that is a node's replica, if it lacks at most `behind_max` entries: who leads the group
/// may hand over to it.
pub fn level_voter(group: &Group, node: NodeId, behind_max: u64) -> Option<NodeId> {
    let voters = &group.membership().voters;
    level(group, behind_max).into_iter().find(|id| id.node() == node && voters.contains(id))
}

/// To whom a leader hands a group over that has no part in the meta group, and so does not learn what
/// is wished: the next level voter, round and round. Perhaps that one has.
pub fn next_level_voter(group: &Group, behind_max: u64) -> Option<NodeId> {
    if group.role() != Role::Leader {
        return None;
    }
    let (me, voters) = (group.config().node, &group.membership().voters);
    let mut others = level(group, behind_max);
    others.retain(|id| *id != me && voters.contains(id));
    others.into_iter().min_by_key(|id| (id.node() < me.node(), id.node()))
}

/// Members that have nearly everything.
fn level(group: &Group, behind_max: u64) -> Vec<NodeId> {
    let last = group.last_index().0;
    let is_level = |peer: &PeerProgress| {
        let is_there = peer.active && !peer.in_snapshot && peer.matched.0 > 0;
        is_there && peer.matched.0 + behind_max >= last
    };
    let peers = group.peers();
    peers.iter().filter(|peer| is_level(peer)).map(|peer| peer.node).collect()
}

/// Where a group shall come to.
struct Goal<'a> {
    voters: &'a [NodeId],
    learners: &'a [NodeId],
    leader: Option<NodeId>,
}

fn step(members: &Membership, me: NodeId, goal: &Goal<'_>, level: &[NodeId]) -> Option<Step> {
    if members.is_joint() {
        return None;
    }
    let change = |change| Some(Step::Change(vec![change]));
    let is_wished = |node: &NodeId| goal.voters.contains(node) || goal.learners.contains(node);
    if let Some(old) = members.learners.iter().find(|node| !is_wished(node)) {
        return change(MembershipChange::Remove(*old));
    }
    let mut wished = goal.voters.iter().chain(goal.learners);
    if let Some(new) = wished.find(|node| !members.contains(**node)) {
        return change(MembershipChange::AddLearner(*new));
    }
    let votes = |node: &NodeId| goal.voters.contains(node);
    let extra: Vec<NodeId> = members.voters.iter().filter(|node| !votes(node)).copied().collect();
    let coming = members.learners.iter().filter(|node| votes(node));
    let (ready, waiting): (Vec<NodeId>, Vec<NodeId>) =
        coming.partition(|node| level.contains(node));
    // As many go as come, and all that are too many when nobody is to come any more.
    let gone: Vec<NodeId> = match waiting.is_empty() {
        true => extra,
        false => extra.into_iter().take(ready.len()).collect(),
    };
    let voters = members.voters.len() + ready.len() - gone.len();
    // An even number of voters survives no more failures than one less; with one more on its way it
    // can wait.
    let is_better = !voters.is_multiple_of(2) || waiting.is_empty();
    if (ready.is_empty() && gone.is_empty()) || !is_better || voters == 0 {
        return None;
    }
    if gone.contains(&me) {
        let heirs = members.voters.iter().filter(|node| votes(node) && level.contains(node));
        let heir = heirs.clone().find(|node| goal.leader == Some(node.node()));
        if let Some(heir) = heir.or_else(|| heirs.clone().next()) {
            return Some(Step::HandOver(*heir));
        }
        // Nobody else has a vote yet: they get theirs first.
        let added: Vec<_> = ready.into_iter().map(MembershipChange::AddVoter).collect();
        return (!added.is_empty()).then_some(Step::Change(added));
    }
    let added = ready.into_iter().map(MembershipChange::AddVoter);
    let out = |node: NodeId| match goal.learners.contains(&node) {
        true => MembershipChange::AddLearner(node),
        false => MembershipChange::Remove(node),
    };
    Some(Step::Change(added.chain(gone.into_iter().map(out)).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use MembershipChange::{AddLearner, AddVoter, Remove};

    fn nodes(ids: &[u64]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    fn check(
        voters: &[u64],
        learners: &[u64],
        wish: &[u64],
        level: &[u64],
        expected: Option<Step>,
    ) {
        let members = Membership {
            voters: nodes(voters),
            learners: nodes(learners),
            ..Membership::default()
        };
        let goal = Goal { voters: &nodes(wish), learners: &[], leader: None };
        let found = step(&members, NodeId(1), &goal, &nodes(level));
        assert_eq!(found, expected, "{voters:?} {learners:?} to {wish:?}, level {level:?}");
    }

    fn change(changes: &[MembershipChange]) -> Option<Step> {
        Some(Step::Change(changes.to_vec()))
    }

    #[test]
    fn from_one_to_three_without_two() {
        let n = NodeId;
        check(&[1], &[], &[1, 2, 3], &[1], change(&[AddLearner(n(2))]));
        check(&[1], &[2], &[1, 2, 3], &[1, 2], change(&[AddLearner(n(3))]));
        check(&[1], &[2, 3], &[1, 2, 3], &[1, 2], None);
        check(&[1], &[2, 3], &[1, 2, 3], &[1, 2, 3], change(&[AddVoter(n(2)), AddVoter(n(3))]));
        check(&[1, 2, 3], &[], &[1, 2, 3], &[1, 2, 3], None);
        check(&[1], &[2], &[1, 2], &[1, 2], change(&[AddVoter(n(2))]));
    }

    #[test]
    fn a_replacement_is_one_joint_change_when_the_new_one_is_level() {
        let n = NodeId;
        check(&[1, 2, 3], &[4], &[1, 2, 4], &[1, 2, 3], None);
        check(&[1, 2, 3], &[4], &[1, 2, 4], &[1, 2, 4], change(&[AddVoter(n(4)), Remove(n(3))]));
        let again = n((7 << 32) | 3);
        let goal = Goal { voters: &[n(1), n(2), again], learners: &[], leader: None };
        let members = Membership {
            voters: nodes(&[1, 2, 3]),
            learners: vec![again],
            ..Membership::default()
        };
        let found = step(&members, n(1), &goal, &[again]);
        assert_eq!(found, change(&[AddVoter(again), Remove(n(3))]), "another generation");
    }

    #[test]
    fn who_is_not_wished_goes_and_a_leader_hands_over_first() {
        let n = NodeId;
        check(&[1, 2, 3], &[], &[1, 2], &[1, 2, 3], change(&[Remove(n(3))]));
        check(&[1, 2, 3], &[4], &[1, 2, 3], &[1, 2, 3], change(&[Remove(n(4))]));
        check(&[1, 2, 3], &[], &[2, 3], &[1, 3], Some(Step::HandOver(n(3))));
        check(&[1], &[2], &[2], &[1, 2], change(&[AddVoter(n(2))]));
        check(&[1, 2], &[], &[2], &[1, 2], Some(Step::HandOver(n(2))));
        check(&[1], &[], &[], &[1], None);
    }

    #[test]
    fn in_the_meta_group_who_loses_its_vote_goes_on_listening() {
        let n = NodeId;
        let check = |voters: &[u64], learners: &[u64], goal: (&[u64], &[u64]), expected| {
            let members = Membership {
                voters: nodes(voters),
                learners: nodes(learners),
                ..Membership::default()
            };
            let goal = (nodes(goal.0), nodes(goal.1));
            let goal = Goal { voters: &goal.0, learners: &goal.1, leader: None };
            assert_eq!(step(&members, n(1), &goal, &nodes(&[1, 2, 3, 4])), expected);
        };
        check(&[1, 2, 3], &[], (&[1, 2, 3], &[4]), change(&[AddLearner(n(4))]));
        check(&[1, 2, 3], &[4], (&[1, 2, 3], &[4]), None);
        let swap = change(&[AddVoter(n(4)), AddLearner(n(3))]);
        check(&[1, 2, 3], &[4], (&[1, 2, 4], &[3]), swap);
        check(&[1, 2, 3], &[4], (&[2, 3, 4], &[1]), Some(Step::HandOver(n(2))));
        check(&[1, 2, 4], &[3], (&[1, 2, 4], &[]), change(&[Remove(n(3))]));
    }
}
