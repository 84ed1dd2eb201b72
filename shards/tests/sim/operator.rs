//! The operator: decides which nodes belong to the cluster, and brings every group there step by step.

use std::collections::BTreeSet;

use ringraft_shards::ids::NodeId;
use ringraft_shards::raft::{MembershipChange, Role};

use crate::counts::Count;
use crate::node::Node;
use crate::plan::Kind;
use crate::schedule::Event;
use crate::world::World;

/// Time between two looks at the groups.
const LOOK_EVERY_US: u64 = 25_000;

/// Nodes that ever exist in one run, at most.
const NODES_MAX: usize = 8;

/// A learner that is so few entries behind gets a vote.
const BEHIND_MAX: u64 = 30;

impl World {
    /// Somebody joins, leaves, or is replaced.
    pub fn change_members(&mut self) {
        let members: Vec<u64> = self.desired.iter().copied().collect();
        let some = members[self.faults.below(members.len() as u64) as usize];
        match self.faults.below(3) {
            0 if members.len() > 3 => self.remove(some),
            1 if members.len() < 6 => {
                self.add();
            }
            _ => self.replace(some),
        }
    }

    fn add(&mut self) -> bool {
        if self.nodes.len() >= NODES_MAX {
            return false;
        }
        let id = self.nodes.keys().next_back().map_or(1, |last| last + 1);
        let chance = self.core.plan.chance(10_000 + id);
        let mut node = Node::new(id, self.core.plan.shards, &[], chance);
        node.start(&mut self.core);
        self.core.book.directories.insert(id, node.directory);
        self.nodes.insert(id, node);
        self.desired.insert(id);
        self.clients.nodes.push(id);
        self.core.count(Count::Joins);
        self.core.note(|| format!("operator: n{id} joins"));
        true
    }

    fn remove(&mut self, id: u64) {
        self.desired.remove(&id);
        self.core.count(Count::Replacements);
        self.core.note(|| format!("operator: n{id} leaves"));
    }

    fn replace(&mut self, id: u64) {
        if self.add() {
            self.remove(id);
        }
    }

    /// One step for each group that needs one.
    pub fn operate(&mut self) {
        self.core.after(LOOK_EVERY_US, Event::Operate);
        let refused = self.desired.iter().find(|id| self.nodes[id].refused.is_some()).copied();
        if let Some(id) = refused {
            // It may be the one too many: then nobody comes in its place.
            if !self.add() && self.desired.len() <= 2 {
                return;
            }
            self.remove(id);
        }
        self.fence();
        let desired: BTreeSet<NodeId> = self.desired.iter().copied().map(NodeId).collect();
        for shard in 0..usize::from(self.core.plan.shards) {
            let Some(leader) = self.leader(shard) else { continue };
            let node = self.nodes.get_mut(&leader).expect("it leads");
            let running = node.replicas[shard].running.as_mut().expect("it leads");
            let changes = step(&running.server.group, &desired);
            if changes.is_empty() || running.server.group.role() != Role::Leader {
                continue;
            }
            if running.server.group.propose_membership(&changes).is_ok() {
                running.stirred = true;
                self.core.count(Count::MembershipChanges);
                self.core.note(|| format!("operator: n{leader}/s{shard} proposes {changes:?}"));
            }
        }
    }

    /// Nodes that are in no group any more are removed for ever. What the leaders know may be forgotten in a blackout, and then two
    /// are missing where another's disk is spoilt too: in such runs only those go whose own disk is.
    fn fence(&mut self) {
        let spoils = self.core.plan.has(Kind::Flip) || self.core.plan.has(Kind::Wipe);
        let shards = 0..usize::from(self.core.plan.shards);
        let leaders: Vec<_> = shards.map(|shard| (shard, self.leader(shard))).collect();
        for (id, node) in &self.nodes {
            if spoils && !node.wiped && node.refused.is_none() {
                continue;
            }
            let is_gone = leaders.iter().all(|(shard, leader)| {
                let running =
                    leader.and_then(|leader| self.nodes[&leader].replicas[*shard].running.as_ref());
                running
                    .is_some_and(|running| !running.server.group.membership().contains(NodeId(*id)))
            });
            if is_gone && !self.desired.contains(id) && self.core.book.removed.insert(*id) {
                self.core.note(|| format!("operator: n{id} is removed for ever"));
            }
        }
    }

    /// The node that leads a shard in the greatest term.
    pub fn leader(&self, shard: usize) -> Option<u64> {
        let leaders = self.nodes.values().filter(|node| node.replicas[shard].is_leader());
        let term = |node: &&Node| {
            node.replicas[shard].running.as_ref().map(|running| running.server.group.term())
        };
        leaders.max_by_key(term).map(|node| node.id)
    }
}

/// What brings a group nearer to the members that it shall have; nothing when it is there.
fn step(group: &ringraft_shards::raft::Group, desired: &BTreeSet<NodeId>) -> Vec<MembershipChange> {
    let members = group.membership();
    if members.is_joint() {
        return Vec::new();
    }
    if let Some(new) = desired.iter().find(|node| !members.contains(**node)) {
        return vec![MembershipChange::AddLearner(*new)];
    }
    let extra = members.voters.iter().find(|node| !desired.contains(node)).copied();
    for learner in &members.learners {
        if !desired.contains(learner) {
            return vec![MembershipChange::Remove(*learner)];
        }
        let last = group.last_index().0;
        let near = group.peers().iter().any(|peer| {
            let there = peer.active && peer.matched.0 > 0;
            peer.node == *learner && there && peer.matched.0 + BEHIND_MAX >= last
        });
        if near {
            // It takes the place of one that leaves, in one step.
            let mut changes = vec![MembershipChange::AddVoter(*learner)];
            changes.extend(extra.map(MembershipChange::Remove));
            return changes;
        }
    }
    match extra {
        Some(extra) if members.learners.is_empty() => vec![MembershipChange::Remove(extra)],
        _ => Vec::new(),
    }
}
