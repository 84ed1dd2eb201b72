//! The operator: nodes join, leave and are replaced; what the engine plans is agreed on, and every
//! group's leader takes the next step towards it.

use std::collections::BTreeSet;

use ringraft_shards::ids::{DirectoryId, NodeId, ShardId};
use ringraft_shards::meta::{MetaEntry, NodeState, Outcome, Step, next_step, plan};
use ringraft_shards::raft::Role;
use ringraft_shards::snapshot::Membership;

use crate::counts::Count;
use crate::node::Node;
use crate::registry::facts;
use crate::schedule::Event;
use crate::world::World;

/// Time between two looks at the groups.
const LOOK_EVERY_US: u64 = 25_000;

/// Nodes that ever exist in one run, at most.
const NODES_MAX: usize = 8;

/// A learner that is so few entries behind is level.
const BEHIND_MAX: u64 = 30;

/// Members of a group that are replicas of a node.
pub fn members_of(members: &Membership, node: u64) -> BTreeSet<NodeId> {
    let Membership { voters, learners, voters_outgoing, learners_next, .. } = members;
    let all = [voters, learners, voters_outgoing, learners_next].into_iter().flatten();
    all.filter(|member| member.node().0 == node).copied().collect()
}

impl World {
    /// Somebody joins, leaves, or is replaced.
    pub fn change_members(&mut self) {
        let members = self.core.registry.members();
        let some = members[self.faults.below(members.len() as u64) as usize];
        match self.faults.below(3) {
            0 if members.len() > 3 => self.leave(some),
            1 if members.len() < 6 => {
                self.join();
            }
            _ => {
                if self.join() {
                    self.leave(some);
                }
            }
        }
    }

    /// A new directory becomes a node. Now and then the answer is lost, and it asks again.
    fn join(&mut self) -> bool {
        if self.nodes.len() >= NODES_MAX {
            return false;
        }
        let next = self.nodes.len() as u64 + 1;
        let directory = DirectoryId(u128::from(next) << 32);
        let entry = MetaEntry::Join { directory, facts: facts(next) };
        let mut outcome = self.core.registry.apply(&entry);
        while self.faults.below(3) == 0 {
            self.core.count(Count::JoinsRepeated);
            let again = self.core.registry.apply(&entry);
            assert_eq!(again, outcome, "a directory is one node");
            outcome = again;
        }
        assert_eq!(outcome, Outcome::Joined(NodeId(next)), "ids are given in order");
        let chance = self.core.plan.chance(10_000 + next);
        let mut node = Node::new(next, self.core.plan.shards, &[], chance);
        node.start(&mut self.core);
        self.nodes.insert(next, node);
        self.clients.nodes.push(next);
        self.core.count(Count::Joins);
        self.core.note(|| format!("operator: n{next} joins"));
        true
    }

    fn leave(&mut self, id: u64) {
        if self.core.registry.apply(&MetaEntry::Leave(NodeId(id))) == Outcome::Done {
            self.core.count(Count::Replacements);
            self.core.note(|| format!("operator: n{id} leaves"));
        }
    }

    /// Plans, and one step for each group that needs one.
    pub fn operate(&mut self) {
        self.core.after(LOOK_EVERY_US, Event::Operate);
        self.mend();
        let dead = self.dead();
        for entry in plan(&self.core.registry.state, &dead) {
            if self.is_possible(&entry) {
                let outcome = self.core.registry.apply(&entry);
                assert_eq!(outcome, Outcome::Done, "what is planned can be wished: {entry:?}");
                self.core.count(Count::Wishes);
                self.core.note(|| format!("operator: {entry:?}"));
            }
        }
        for shard in 0..usize::from(self.core.plan.shards) {
            self.take_step(shard);
        }
        self.remove();
    }

    /// Is there something that nobody has wished yet?
    pub fn is_more_planned(&self) -> bool {
        !plan(&self.core.registry.state, &self.dead()).is_empty()
    }

    /// Members that will not come back.
    fn dead(&self) -> BTreeSet<NodeId> {
        let refused = self.nodes.values().filter(|node| node.refused.is_some());
        refused.map(|node| NodeId(node.id)).collect()
    }

    /// A node that refuses to start gets another replica in the place of the one that is damaged,
    /// or is replaced.
    fn mend(&mut self) {
        let members = self.core.registry.members();
        let refused = members.iter().find(|id| self.nodes[id].refused.is_some()).copied();
        let Some(id) = refused else { return };
        let damaged = self.nodes[&id].damaged;
        if let Some(shard) = damaged.filter(|_| self.faults.below(2) == 0)
            && let Some(replica) =
                self.core.registry.shard(usize::from(shard)).replica_of(NodeId(id))
        {
            let (shard, node) = (ShardId(shard), NodeId(id));
            let entry = MetaEntry::Renew { shard, node, generation: replica.generation };
            assert_eq!(self.core.registry.apply(&entry), Outcome::Done, "it is that replica");
            self.core.count(Count::Renewals);
            self.core.note(|| format!("operator: n{id}/s{shard} is begun anew"));
            let node = self.nodes.get_mut(&id).expect("nodes stay");
            (node.refused, node.damaged) = (None, None);
            node.start(&mut self.core);
            return;
        }
        // It may be the one too many: then nobody comes in its place.
        if self.join() || members.len() > 2 {
            self.leave(id);
        }
    }

    /// Who had a replica before gets another one when the group has let the old one go.
    fn is_possible(&self, entry: &MetaEntry) -> bool {
        let MetaEntry::Wish { shard, nodes, .. } = entry else { return true };
        let shard = usize::from(shard.0);
        let Some(leader) = self.leader(shard) else { return false };
        let running = self.nodes[&leader].replicas[shard].running.as_ref();
        let members = running.expect("it leads").server.group.membership();
        let wished = self.core.registry.shard(shard);
        nodes.iter().all(|node| {
            wished.replica_of(*node).is_some() || members_of(members, node.0).is_empty()
        })
    }

    /// The leader of a shard brings its group nearer to what is wished.
    fn take_step(&mut self, shard: usize) {
        let Some(leader) = self.leader(shard) else { return };
        let wish = self.core.registry.shard(shard).wish();
        let replica = &mut self.nodes.get_mut(&leader).expect("it leads").replicas[shard];
        let me = replica.id;
        let running = replica.running.as_mut().expect("it leads");
        let Some(step) = next_step(&running.server.group, me, &wish, BEHIND_MAX) else { return };
        if running.server.group.role() != Role::Leader {
            return;
        }
        let (result, count) = match &step {
            Step::Change(changes) => (
                running.server.group.propose_membership(changes).map(drop),
                Count::MembershipChanges,
            ),
            Step::HandOver(to) => (running.server.group.transfer_leader(*to), Count::HandOvers),
        };
        if result.is_ok() {
            running.stirred = true;
            self.core.count(count);
            self.core.note(|| format!("operator: n{leader}/s{shard} does {step:?}"));
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

    /// Do all members of a shard's group know durably that a node has no replica in it?
    fn has_let_go(&self, shard: usize, id: u64) -> bool {
        let knows = |node: u64| {
            let running = self.nodes[&node].replicas[shard].running.as_ref();
            let group = running.map(|running| &running.server.group);
            group.filter(|group| {
                members_of(group.membership(), id).is_empty() && group.is_membership_durable()
            })
        };
        let Some(group) = self.leader(shard).and_then(knows) else { return false };
        let Membership { voters, learners, .. } = group.membership();
        let mut members = voters.iter().chain(learners);
        !group.membership().is_joint() && members.all(|member| knows(member.node().0).is_some())
    }

    /// Nodes that leave are removed for ever when all members of each group have it on their disks
    /// that they are in it no more. That a majority has is not enough: a spoilt disk may be
    /// among it, and a blackout makes the others forget.
    fn remove(&mut self) {
        let state = &self.core.registry.state;
        let leaving = state.nodes.iter().filter(|(_, node)| node.state == NodeState::Leaving);
        let is_gone = |id: &u64| {
            let mut shards = 0..usize::from(self.core.plan.shards);
            shards.all(|shard| self.has_let_go(shard, *id))
        };
        let gone: Vec<u64> = leaving.map(|(id, _)| id.0).filter(is_gone).collect();
        for id in gone {
            if self.core.registry.apply(&MetaEntry::Remove(NodeId(id))) == Outcome::Done {
                self.core.note(|| format!("operator: n{id} is removed for ever"));
            }
        }
    }
}
