//! The state that the meta group's entries make: the same on every node after the same entry.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::entry::{MetaEntry, NodeFacts};
use crate::ids::{DirectoryId, Index, NodeId, ShardId};
use crate::wire::{Garbage, Reader};

/// Replicas of a shard unless set otherwise.
const REPLICAS_DEFAULT: u16 = 3;
/// The number of the meta group, where a shard's number is asked for. Greater than any shard's.
pub const META_SHARD: ShardId = ShardId(u16::MAX);
/// The feature level from which on it is remembered who has asked for a replica.
pub const ASKER_LEVEL: u32 = 3;
/// The format of the state's bytes.
const FORMAT: u8 = 1;

/// How far a node belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// It may have replicas.
    Member,
    /// It shall have none any more.
    Leaving,
    /// It is gone for ever. Its id and its directory are remembered, so that they are refused.
    Removed,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its data directory.
    pub directory: DirectoryId,
    /// What it says of itself.
    pub facts: NodeFacts,
    /// How far it belongs.
    pub state: NodeState,
    /// Which replica of the meta group it has; 0 for its first.
    pub meta_generation: u32,
}

/// A replica that shall be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Where.
    pub node: NodeId,
    /// The index of the entry that has wished it; 0 for a founder.
    pub generation: u32,
}

impl Replica {
    /// The member of the group that it is.
    pub fn member(&self) -> NodeId {
        self.node.replica(self.generation)
    }
}

/// A shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shard {
    /// Who shall have it, by node.
    pub replicas: Vec<Replica>,
    /// Who shall lead, if it can.
    pub leader: Option<NodeId>,
    /// The index of the entry that has changed it last.
    pub version: u64,
}

impl Shard {
    /// The replica of a node.
    pub fn replica_of(&self, node: NodeId) -> Option<Replica> {
        self.replicas.iter().find(|replica| replica.node == node).copied()
    }

    /// What its leader needs to know.
    pub fn wish(&self) -> Wish {
        Wish { members: self.replicas.iter().map(Replica::member).collect(), leader: self.leader }
    }
}

/// What a group shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Its members.
    pub members: Vec<NodeId>,
    /// The node that shall lead.
    pub leader: Option<NodeId>,
}

/// What an entry has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The directory is this node.
    Joined(NodeId),
    /// It is as the entry says.
    Done,
    /// Nothing has changed.
    Rejected(Rejection),
}

/// Why an entry changes nothing. Every node says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The directory was a node's that is removed.
    #[error("the node of this directory was removed, for good: empty it to join as another one")]
    Removed,
    /// There is no such node, or it is removed.
    #[error("there is no such node")]
    NoNode,
    /// It has replicas, or shall have some.
    #[error("the node still has replicas")]
    HasReplicas,
    /// It is the last one.
    #[error("the last node cannot leave")]
    LastNode,
    /// There is no such shard.
    #[error("there is no such shard")]
    NoShard,
    /// Something has changed since.
    #[error("another change came first")]
    Outdated,
    /// A wish for nobody, or for one node twice, or for one that leaves.
    #[error("these nodes cannot have replicas")]
    BadWish,
    /// Not every node knows it, or it is less than what there is.
    #[error("not every node knows this feature level, or a greater one is in use")]
    BadLevel,
    /// The node is too old for what the cluster uses.
    #[error("this version is too old: the cluster uses a greater feature level than it knows")]
    TooOld,
    /// Out of range.
    #[error("a shard has 1 to 15 replicas")]
    BadCount,
}

/// The state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaState {
    /// Every node that ever was.
    pub nodes: BTreeMap<NodeId, Node>,
    /// Shards.
    pub shards: BTreeMap<ShardId, Shard>,
    /// The feature level in use.
    pub level: u32,
    /// How many replicas each shard shall have.
    pub replicas: u16,
    /// Replicas that have lost their logs: which one a node has had of a shard since the last
    /// time. Kept for ever, so that no node is the same member of a group twice.
    pub renewed: BTreeMap<(ShardId, NodeId), u32>,
    /// Who of a node has asked last for the replica of a shard, or of the meta group, that it has
    /// got in the place of a lost one.
    pub askers: BTreeMap<(ShardId, NodeId), u64>,
}

impl MetaState {
    /// Of a cluster that these nodes found, each with a replica of every shard.
    pub fn found(nodes: &[(NodeId, DirectoryId, NodeFacts)], shard_count: u16) -> MetaState {
        let replicas: Vec<Replica> =
            nodes.iter().map(|(node, ..)| Replica { node: *node, generation: 0 }).collect();
        let shard = Shard { replicas, leader: nodes.first().map(|first| first.0), version: 0 };
        let level = nodes.iter().map(|(.., facts)| facts.level).min().unwrap_or(0);
        let node = |(id, directory, facts): &(NodeId, DirectoryId, NodeFacts)| {
            let (directory, facts) = (*directory, facts.clone());
            (*id, Node { directory, facts, state: NodeState::Member, meta_generation: 0 })
        };
        MetaState {
            nodes: nodes.iter().map(node).collect(),
            shards: (0..shard_count).map(|shard_id| (ShardId(shard_id), shard.clone())).collect(),
            level,
            replicas: REPLICAS_DEFAULT,
            renewed: BTreeMap::new(),
            askers: BTreeMap::new(),
        }
    }

    /// Nodes that may have replicas.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        let members = self.nodes.iter().filter(|(_, node)| node.state == NodeState::Member);
        members.map(|(id, node)| (*id, node))
    }

    /// Has the node a replica, by wish?
    pub fn has_replicas(&self, node: NodeId) -> bool {
        self.shards.values().any(|shard| shard.replica_of(node).is_some())
    }

    /// The member of the meta group that a node is.
    pub fn meta_member(&self, node: NodeId) -> NodeId {
        node.replica(self.nodes.get(&node).map_or(0, |node| node.meta_generation))
    }

    /// The member of a shard's group, or of the meta group, that a node is where replicas keep
    /// their ids as long as they have their logs: the node's first one, or the one since its
    /// log was lost.
    pub fn lasting_member(&self, shard: ShardId, node: NodeId) -> NodeId {
        match shard {
            META_SHARD => self.meta_member(node),
            _ => node.replica(self.renewed.get(&(shard, node)).copied().unwrap_or(0)),
        }
    }

    /// Who shall be a member of a shard's group where replicas keep their ids as long as they have
    /// their logs, wherever their nodes were wished meanwhile. Who leads is left open.
    pub fn lasting_wish(&self, shard: ShardId) -> Wish {
        let replicas = self.shards.get(&shard).into_iter().flat_map(|shard| &shard.replicas);
        let members = replicas.map(|replica| self.lasting_member(shard, replica.node));
        Wish { members: members.collect(), leader: None }
    }

    /// How many others of these nodes share the node's zone. Nodes without one share nothing.
    pub(super) fn neighbours(&self, node: NodeId, nodes: &[NodeId]) -> usize {
        let zone = |node: &NodeId| self.nodes.get(node).map_or("", |node| &node.facts.zone);
        let own = zone(&node);
        nodes
            .iter()
            .filter(|other| **other != node && !own.is_empty() && zone(other) == own)
            .count()
    }

    /// The greatest feature level that every node knows.
    pub(super) fn known_level(&self) -> u32 {
        let present = self.nodes.values().filter(|node| node.state != NodeState::Removed);
        present.map(|node| node.facts.level).min().unwrap_or(0)
    }

    /// Takes an entry in, which is committed at `index`.
    pub fn apply(&mut self, index: Index, entry: &MetaEntry) -> Outcome {
        let result = match entry {
            MetaEntry::Join { directory, facts } => return self.join(*directory, facts),
            MetaEntry::Describe { node, facts } => self.describe(*node, facts),
            MetaEntry::Leave(node) => self.leave(*node),
            MetaEntry::Remove(node) => self.remove(*node),
            MetaEntry::Wish { shard, version, nodes, leader } => {
                self.wish(index, *shard, *version, nodes, *leader)
            }
            MetaEntry::Renew { shard, node, generation, asker } => {
                let renewed = self.renew(index, *shard, *node, *generation);
                if let (Ok(()), Some(asker)) = (renewed, asker) {
                    self.askers.insert((*shard, *node), *asker);
                }
                renewed
            }
            MetaEntry::Level(level) => self.raise(*level),
            MetaEntry::Replicas(count @ 1..=15) => {
                self.replicas = *count;
                Ok(())
            }
            MetaEntry::Replicas(_) => Err(Rejection::BadCount),
        };
        result.map_or_else(Outcome::Rejected, |()| Outcome::Done)
    }

    fn join(&mut self, directory: DirectoryId, facts: &NodeFacts) -> Outcome {
        if facts.level < self.level {
            return Outcome::Rejected(Rejection::TooOld);
        }
        let known = self.nodes.iter_mut().find(|(_, node)| node.directory == directory);
        if let Some((id, node)) = known {
            if node.state == NodeState::Removed {
                return Outcome::Rejected(Rejection::Removed);
            }
            // It did not hear the answer.
            node.facts = facts.clone();
            return Outcome::Joined(*id);
        }
        let id = NodeId(self.nodes.keys().next_back().map_or(1, |last| last.0 + 1));
        let facts = facts.clone();
        let node = Node { directory, facts, state: NodeState::Member, meta_generation: 0 };
        self.nodes.insert(id, node);
        Outcome::Joined(id)
    }

    fn node_mut(&mut self, id: NodeId) -> Result<&mut Node, Rejection> {
        let node = self.nodes.get_mut(&id).filter(|node| node.state != NodeState::Removed);
        node.ok_or(Rejection::NoNode)
    }

    fn describe(&mut self, id: NodeId, facts: &NodeFacts) -> Result<(), Rejection> {
        if facts.level < self.level {
            return Err(Rejection::TooOld);
        }
        self.node_mut(id)?.facts = facts.clone();
        Ok(())
    }

    fn leave(&mut self, id: NodeId) -> Result<(), Rejection> {
        let is_last = self.members().all(|(member, _)| member == id);
        let node = self.node_mut(id)?;
        if is_last {
            return Err(Rejection::LastNode);
        }
        node.state = NodeState::Leaving;
        Ok(())
    }

    fn remove(&mut self, id: NodeId) -> Result<(), Rejection> {
        if self.has_replicas(id) {
            return Err(Rejection::HasReplicas);
        }
        let node = self.node_mut(id)?;
        if node.state != NodeState::Leaving {
            return Err(Rejection::Outdated);
        }
        node.state = NodeState::Removed;
        Ok(())
    }

    fn wish(
        &mut self,
        index: Index,
        shard: ShardId,
        version: u64,
        nodes: &[NodeId],
        leader: Option<NodeId>,
    ) -> Result<(), Rejection> {
        let old = self.shards.get(&shard).ok_or(Rejection::NoShard)?;
        if old.version != version {
            return Err(Rejection::Outdated);
        }
        let mut sorted = nodes.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        // Who leaves may keep what it has until others have it.
        let may = |id: &NodeId| {
            let state = self.nodes.get(id).map(|node| node.state);
            state == Some(NodeState::Member)
                || (state == Some(NodeState::Leaving) && old.replica_of(*id).is_some())
        };
        if sorted.is_empty() || sorted.len() < nodes.len() || !sorted.iter().all(may) {
            return Err(Rejection::BadWish);
        }
        if leader.is_some_and(|leader| !sorted.contains(&leader)) {
            return Err(Rejection::BadWish);
        }
        let fresh = |node| Replica { node, generation: generation(index) };
        let replica = |node: NodeId| old.replica_of(node).unwrap_or(fresh(node));
        let replicas = sorted.into_iter().map(replica).collect();
        self.shards.insert(shard, Shard { replicas, leader, version: index.0 });
        Ok(())
    }

    fn renew(
        &mut self,
        index: Index,
        shard_id: ShardId,
        node: NodeId,
        lost: u32,
    ) -> Result<(), Rejection> {
        if shard_id == META_SHARD {
            let node = self.node_mut(node)?;
            if node.meta_generation != lost {
                return Err(Rejection::Outdated);
            }
            node.meta_generation = generation(index);
            return Ok(());
        }
        let shard = self.shards.get_mut(&shard_id).ok_or(Rejection::NoShard)?;
        let replica = shard.replicas.iter_mut().find(|replica| replica.node == node);
        let replica = replica.ok_or(Rejection::NoNode)?;
        if replica.generation != lost {
            return Err(Rejection::Outdated);
        }
        replica.generation = generation(index);
        shard.version = index.0;
        self.renewed.insert((shard_id, node), generation(index));
        Ok(())
    }

    fn raise(&mut self, level: u32) -> Result<(), Rejection> {
        if level > self.known_level() || level < self.level {
            return Err(Rejection::BadLevel);
        }
        self.level = level;
        Ok(())
    }

    /// Its bytes: a snapshot. Equal states have equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        out.extend_from_slice(&self.level.to_le_bytes());
        out.extend_from_slice(&self.replicas.to_le_bytes());
        out.extend_from_slice(&(self.nodes.len() as u32).to_le_bytes());
        for (id, node) in &self.nodes {
            out.extend_from_slice(&id.0.to_le_bytes());
            out.extend_from_slice(&node.directory.0.to_le_bytes());
            out.push(match node.state {
                NodeState::Member => 0,
                NodeState::Leaving => 1,
                NodeState::Removed => 2,
            });
            out.extend_from_slice(&node.meta_generation.to_le_bytes());
            node.facts.put(&mut out);
        }
        out.extend_from_slice(&(self.shards.len() as u32).to_le_bytes());
        for (id, shard) in &self.shards {
            out.extend_from_slice(&id.0.to_le_bytes());
            out.extend_from_slice(&shard.version.to_le_bytes());
            let leader = shard.leader.map_or(0, |leader| leader.0);
            out.extend_from_slice(&leader.to_le_bytes());
            out.extend_from_slice(&(shard.replicas.len() as u32).to_le_bytes());
            for replica in &shard.replicas {
                out.extend_from_slice(&replica.node.0.to_le_bytes());
                out.extend_from_slice(&replica.generation.to_le_bytes());
            }
        }
        // Nothing, as long as no replica was lost; and no askers below their feature level.
        if !self.renewed.is_empty() || !self.askers.is_empty() {
            out.extend_from_slice(&(self.renewed.len() as u32).to_le_bytes());
            for ((shard, node), generation) in &self.renewed {
                out.extend_from_slice(&shard.0.to_le_bytes());
                out.extend_from_slice(&node.0.to_le_bytes());
                out.extend_from_slice(&generation.to_le_bytes());
            }
        }
        if !self.askers.is_empty() {
            out.extend_from_slice(&(self.askers.len() as u32).to_le_bytes());
            for ((shard, node), asker) in &self.askers {
                out.extend_from_slice(&shard.0.to_le_bytes());
                out.extend_from_slice(&node.0.to_le_bytes());
                out.extend_from_slice(&asker.to_le_bytes());
            }
        }
        out
    }

    /// Reads what [`MetaState::encode`] wrote.
    pub fn decode(bytes: Bytes) -> Result<MetaState, Garbage> {
        let mut input = Reader::new(bytes, "a meta snapshot");
        match input.u8()? {
            FORMAT => {}
            other => return Err(Reader::unknown("a format of meta snapshots", other)),
        }
        let (level, replicas) = (input.u32()?, input.u16()?);
        let (nodes, shards, renewed, askers) = Default::default();
        let mut state = MetaState { nodes, shards, level, replicas, renewed, askers };
        for _ in 0..input.count(43)? {
            let (id, directory) = (NodeId(input.u64()?), DirectoryId(input.u128()?));
            let node_state = match input.u8()? {
                0 => NodeState::Member,
                1 => NodeState::Leaving,
                2 => NodeState::Removed,
                other => return Err(Reader::unknown("a state of a node", other)),
            };
            let meta_generation = input.u32()?;
            let facts = NodeFacts::take(&mut input)?;
            state.nodes.insert(id, Node { directory, facts, state: node_state, meta_generation });
        }
        for _ in 0..input.count(22)? {
            let (id, version) = (ShardId(input.u16()?), input.u64()?);
            let leader = Some(NodeId(input.u64()?)).filter(|leader| leader.0 != 0);
            let mut shard = Shard { replicas: Vec::new(), leader, version };
            for _ in 0..input.count(12)? {
                let (node, generation) = (NodeId(input.u64()?), input.u32()?);
                shard.replicas.push(Replica { node, generation });
            }
            state.shards.insert(id, shard);
        }
        if !input.is_at_end() {
            for _ in 0..input.count(14)? {
                let (shard, node) = (ShardId(input.u16()?), NodeId(input.u64()?));
                state.renewed.insert((shard, node), input.u32()?);
            }
        }
        if !input.is_at_end() {
            for _ in 0..input.count(18)? {
                let (shard, node) = (ShardId(input.u16()?), NodeId(input.u64()?));
                state.askers.insert((shard, node), input.u64()?);
            }
        }
        input.end()?;
        Ok(state)
    }
}

fn generation(index: Index) -> u32 {
    u32::try_from(index.0).expect("the meta log has fewer than 2^32 entries")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn founded(count: u64) -> MetaState {
        let node =
            |id| (NodeId(id), DirectoryId(id.into()), NodeFacts { level: 1, ..Default::default() });
        let nodes: Vec<_> = (1..=count).map(node).collect();
        MetaState::found(&nodes, 2)
    }

    fn join(directory: u128) -> MetaEntry {
        let facts = NodeFacts { level: 1, ..NodeFacts::default() };
        MetaEntry::Join { directory: DirectoryId(directory), facts }
    }

    fn wish(version: u64, nodes: &[u64]) -> MetaEntry {
        let nodes = nodes.iter().copied().map(NodeId).collect();
        MetaEntry::Wish { shard: ShardId(0), version, nodes, leader: None }
    }

    /// Applies entries in a row, from index 10 on.
    fn check(state: &mut MetaState, steps: &[(MetaEntry, Outcome)]) {
        for (n, (entry, outcome)) in steps.iter().enumerate() {
            assert_eq!(state.apply(Index(10 + n as u64), entry), *outcome, "{n}: {entry:?}");
            let again = MetaState::decode(state.encode().into());
            assert_eq!(again.as_ref(), Ok(&*state), "a snapshot after {n}");
        }
    }

    use super::Outcome::{Done, Joined, Rejected};
    use super::Rejection::*;

    #[test]
    fn a_join_whose_answer_was_lost_gets_the_same_id_and_no_id_comes_twice() {
        let mut state = founded(1);
        check(
            &mut state,
            &[
                (join(7), Joined(NodeId(2))),
                (join(8), Joined(NodeId(3))),
                (join(7), Joined(NodeId(2))),
                (MetaEntry::Leave(NodeId(3)), Done),
                (MetaEntry::Remove(NodeId(3)), Done),
                (join(8), Rejected(Removed)),
                (join(9), Joined(NodeId(4))),
            ],
        );
    }

    #[test]
    fn a_node_leaves_when_nothing_is_wished_of_it() {
        let mut state = founded(2);
        check(
            &mut state,
            &[
                (MetaEntry::Remove(NodeId(2)), Rejected(HasReplicas)),
                (MetaEntry::Leave(NodeId(2)), Done),
                (MetaEntry::Remove(NodeId(2)), Rejected(HasReplicas)),
                (MetaEntry::Leave(NodeId(1)), Rejected(LastNode)),
                (wish(0, &[1]), Done),
                (MetaEntry::Remove(NodeId(2)), Rejected(HasReplicas)),
                (
                    MetaEntry::Wish {
                        shard: ShardId(1),
                        version: 0,
                        nodes: vec![NodeId(1)],
                        leader: Some(NodeId(1)),
                    },
                    Done,
                ),
                (MetaEntry::Remove(NodeId(2)), Done),
                (MetaEntry::Remove(NodeId(2)), Rejected(NoNode)),
                (wish(14, &[1, 2]), Rejected(BadWish)),
                (MetaEntry::Leave(NodeId(77)), Rejected(NoNode)),
            ],
        );
    }

    #[test]
    fn a_replica_keeps_its_generation_until_it_is_lost() {
        let mut state = founded(3);
        let renew = |node, generation| MetaEntry::Renew {
            shard: ShardId(0),
            node: NodeId(node),
            generation,
            asker: None,
        };
        check(
            &mut state,
            &[
                (renew(2, 0), Done),
                (renew(2, 0), Rejected(Outdated)),
                (wish(0, &[1, 2]), Rejected(Outdated)),
                (wish(10, &[2, 1]), Done),
                (wish(13, &[1, 2, 3]), Done),
                (wish(14, &[]), Rejected(BadWish)),
                (wish(14, &[1, 1]), Rejected(BadWish)),
            ],
        );
        let generations: Vec<u32> =
            state.shards[&ShardId(0)].replicas.iter().map(|replica| replica.generation).collect();
        assert_eq!(generations, [0, 10, 14], "who was away is another member");
        assert_eq!(state.shards[&ShardId(0)].wish().members[1], NodeId((10 << 32) + 2));
    }

    #[test]
    fn a_level_is_used_when_every_node_knows_it() {
        let mut state = founded(2);
        let facts = |level| NodeFacts { level, ..NodeFacts::default() };
        let describe =
            |node, level| MetaEntry::Describe { node: NodeId(node), facts: facts(level) };
        check(
            &mut state,
            &[
                (describe(1, 2), Done),
                (MetaEntry::Level(2), Rejected(BadLevel)),
                (describe(2, 3), Done),
                (MetaEntry::Level(2), Done),
                (MetaEntry::Level(1), Rejected(BadLevel)),
                (MetaEntry::Replicas(0), Rejected(BadCount)),
                (MetaEntry::Replicas(5), Done),
            ],
        );
    }
}
