//! From nodes and shards to wishes: a pure function, asked by the meta group's leader after every
//! change.
//!
//! What is moved is as little as possible. In this order: replicas on nodes that are members stay;
//! missing ones go where no other replica of the shard shares a zone, then where fewest replicas
//! are, then to the smallest id; those that leave go against a replacement, or when there is
//! nowhere to go; those on dead nodes only against a replacement: they may come back, and what they
//! have is worth more than nothing; those that are too many go last; in the end a shard's replica
//! moves from a node with two more than another. One shard is changed by one replica at a time,
//! so that each of its changes is small.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::MetaEntry;
use super::state::{MetaState, NodeState, Shard};
use crate::ids::{NodeId, ShardId};

/// What is planned with.
struct Plan<'a> {
    state: &'a MetaState,
    /// Members that replicas may go to.
    usable: BTreeSet<NodeId>,
    /// Dead ones whose replicas are given up.
    half_joined: &'a BTreeSet<NodeId>,
    /// Replicas of each of them, with what is planned.
    loads: BTreeMap<NodeId, usize>,
}

/// Members that nobody hears.
#[derive(Clone, Copy, Debug)]
pub struct Absent<'a> {
    /// Unheard for so long that their replicas are wanted elsewhere.
    pub dead: &'a BTreeSet<NodeId>,
    /// Those of the dead that never got a vote: joins that ended half-way. Their replicas are
    /// given up even if there is nowhere else to go, since others wait for them; when they
    /// come back they get new ones.
    pub half_joined: &'a BTreeSet<NodeId>,
}

/// Wishes that bring the state nearer to what it shall be; none when it is there. `dead`: members
/// that nobody has heard for so long that their replicas are wanted elsewhere.
pub fn plan(state: &MetaState, dead: &BTreeSet<NodeId>) -> Vec<MetaEntry> {
    plan_without(state, Absent { dead, half_joined: &BTreeSet::new() })
}

/// As [`plan`], with joins among the dead that ended half-way.
pub fn plan_without(state: &MetaState, absent: Absent<'_>) -> Vec<MetaEntry> {
    let Absent { dead, half_joined } = absent;
    let usable: BTreeSet<NodeId> =
        state.members().map(|(id, _)| id).filter(|id| !dead.contains(id)).collect();
    let mut loads: BTreeMap<NodeId, usize> = usable.iter().map(|id| (*id, 0)).collect();
    for replica in state.shards.values().flat_map(|shard| &shard.replicas) {
        if let Some(load) = loads.get_mut(&replica.node) {
            *load += 1;
        }
    }
    let mut plan = Plan { state, usable, half_joined, loads };
    let mut wishes: BTreeMap<ShardId, Vec<NodeId>> = BTreeMap::new();
    for (id, shard) in &state.shards {
        if let Some(nodes) = plan.mend(shard) {
            wishes.insert(*id, nodes);
        }
    }
    if wishes.is_empty() {
        wishes.extend(plan.balance());
    }
    let leader = plan.leader(&wishes);
    let mut entries = Vec::new();
    for (id, shard) in &state.shards {
        let now: Vec<NodeId> = shard.replicas.iter().map(|replica| replica.node).collect();
        let nodes = wishes.remove(id).unwrap_or_else(|| now.clone());
        let leader = leader.filter(|leader| nodes.contains(leader)).or_else(|| {
            let stays = shard.leader.filter(|leader| nodes.contains(leader));
            stays.or_else(|| nodes.iter().find(|node| plan.usable.contains(node)).copied())
        });
        if nodes != now || leader != shard.leader {
            entries.push(MetaEntry::Wish { shard: *id, version: shard.version, nodes, leader });
        }
    }
    entries
}

impl Plan<'_> {
    fn neighbours(&self, node: NodeId, nodes: &[NodeId]) -> usize {
        self.state.neighbours(node, nodes)
    }

    /// The best place for another replica beside these.
    fn place(&self, nodes: &[NodeId]) -> Option<NodeId> {
        let free = self.usable.iter().filter(|node| !nodes.contains(node)).copied();
        free.min_by_key(|node| (self.neighbours(*node, nodes), self.loads[node], *node))
    }

    /// The replica to give up first: where another one is in the zone, then where most replicas
    /// are.
    fn surplus(&self, nodes: &[NodeId]) -> Option<NodeId> {
        let used = nodes.iter().filter(|node| self.usable.contains(node)).copied();
        used.max_by_key(|node| (self.neighbours(*node, nodes), self.loads[node], *node))
    }

    /// One replica more, less or elsewhere, when the shard has not what it shall have.
    fn mend(&mut self, shard: &Shard) -> Option<Vec<NodeId>> {
        let mut nodes: Vec<NodeId> = shard.replicas.iter().map(|replica| replica.node).collect();
        let setting = usize::from(self.state.replicas);
        let wanted = setting.min(self.usable.len());
        let good = nodes.iter().filter(|node| self.usable.contains(node)).count();
        let is_member = |node: &NodeId| {
            self.state.nodes.get(node).is_some_and(|node| node.state == NodeState::Member)
        };
        let at = |is_bad: &dyn Fn(&NodeId) -> bool| {
            nodes.iter().position(|node| !self.usable.contains(node) && is_bad(node))
        };
        let leaving = at(&|node| !is_member(node));
        let given_up = leaving.or_else(|| at(&|node| self.half_joined.contains(node)));
        let dead = given_up.or_else(|| at(&|_| true));
        // The last ones that can be heard are never given up.
        let too_many = given_up.or(dead.filter(|_| nodes.len() > setting)).filter(|_| good > 0);
        if good < wanted {
            let new = self.place(&nodes)?;
            if let Some(at) = dead {
                nodes.remove(at);
            }
            nodes.push(new);
            self.change_load(new, 1);
        } else if let Some(at) = too_many {
            nodes.remove(at);
        } else if good > wanted {
            let old = self.surplus(&nodes)?;
            nodes.retain(|node| *node != old);
            self.change_load(old, -1);
        } else {
            return None;
        }
        nodes.sort_unstable();
        Some(nodes)
    }

    fn change_load(&mut self, node: NodeId, by: isize) {
        let load = self.loads.get_mut(&node).expect("it is usable");
        *load = load.saturating_add_signed(by);
    }

    /// A replica of one shard moves from a node that has many to one that has few.
    fn balance(&self) -> Option<(ShardId, Vec<NodeId>)> {
        let few = self.usable.iter().copied().min_by_key(|node| (self.loads[node], *node))?;
        let many = self.usable.iter().copied().max_by_key(|node| (self.loads[node], *node))?;
        if self.loads[&many] < self.loads[&few] + 2 {
            return None;
        }
        for (id, shard) in &self.state.shards {
            let now: Vec<NodeId> = shard.replicas.iter().map(|replica| replica.node).collect();
            if !now.contains(&many) || now.contains(&few) {
                continue;
            }
            let mut nodes: Vec<NodeId> = now.iter().copied().filter(|node| *node != many).collect();
            if self.neighbours(few, &nodes) > self.neighbours(many, &now) {
                continue;
            }
            nodes.push(few);
            nodes.sort_unstable();
            return Some((*id, nodes));
        }
        None
    }

    /// The node that shall lead all shards: the one that does, if it can; else one that has most of
    /// them.
    fn leader(&self, wishes: &BTreeMap<ShardId, Vec<NodeId>>) -> Option<NodeId> {
        let mut counts: BTreeMap<NodeId, (usize, usize)> = BTreeMap::new();
        for (id, shard) in &self.state.shards {
            let has = |node: &NodeId| match wishes.get(id) {
                Some(nodes) => nodes.contains(node),
                None => shard.replica_of(*node).is_some(),
            };
            for node in self.usable.iter().filter(|node| has(node)) {
                let count = counts.entry(*node).or_default();
                count.0 += 1;
                count.1 += usize::from(shard.leader == Some(*node));
            }
        }
        let best = counts.iter().max_by_key(|(node, count)| (**count, std::cmp::Reverse(**node)));
        best.map(|(node, _)| *node)
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::NodeFacts;
    use super::super::state::Outcome;
    use super::*;
    use crate::ids::{DirectoryId, Index};
    use crate::random::Random;

    fn facts(zone: &str) -> NodeFacts {
        NodeFacts { zone: zone.into(), ..NodeFacts::default() }
    }

    /// Plans and applies until nothing more is wished. Returns how many wishes that took.
    fn settle(state: &mut MetaState, index: &mut u64, dead: &BTreeSet<NodeId>) -> usize {
        let mut count = 0;
        loop {
            let entries = plan(state, dead);
            if entries.is_empty() {
                return count;
            }
            for entry in entries {
                *index += 1;
                count += 1;
                let before = state.clone();
                assert_eq!(state.apply(Index(*index), &entry), Outcome::Done, "{entry:?}");
                let MetaEntry::Wish { shard, .. } = entry else { panic!("plans are wishes") };
                let nodes = |state: &MetaState| -> BTreeSet<NodeId> {
                    state.shards[&shard].replicas.iter().map(|replica| replica.node).collect()
                };
                let (old, new) = (nodes(&before), nodes(state));
                assert!(old.difference(&new).count() <= 1 && new.difference(&old).count() <= 1);
            }
            assert!(count < 1000, "it comes to an end");
        }
    }

    fn founded(shards: u16) -> (MetaState, u64) {
        let one = (NodeId(1), DirectoryId(1), facts("a"));
        (MetaState::found(&[one], shards), 1)
    }

    fn join(state: &mut MetaState, index: &mut u64, zone: &str) -> NodeId {
        *index += 1;
        let directory = DirectoryId(1000 + u128::from(*index));
        let entry = MetaEntry::Join { directory, facts: facts(zone) };
        match state.apply(Index(*index), &entry) {
            Outcome::Joined(node) => node,
            other => panic!("{other:?}"),
        }
    }

    fn loads(state: &MetaState) -> BTreeMap<NodeId, usize> {
        let mut loads = BTreeMap::new();
        for replica in state.shards.values().flat_map(|shard| &shard.replicas) {
            *loads.entry(replica.node).or_default() += 1;
        }
        loads
    }

    #[test]
    fn every_shard_is_everywhere_until_there_are_enough_nodes() {
        let (mut state, mut index) = founded(4);
        assert!(plan(&state, &BTreeSet::new()).is_empty());
        for count in 2..=3 {
            join(&mut state, &mut index, "");
            assert_eq!(settle(&mut state, &mut index, &BTreeSet::new()), 4);
            assert!(state.shards.values().all(|shard| shard.replicas.len() == count));
        }
        for _ in 4..=6 {
            join(&mut state, &mut index, "");
            settle(&mut state, &mut index, &BTreeSet::new());
            assert!(state.shards.values().all(|shard| shard.replicas.len() == 3));
            let loads = loads(&state);
            let (few, many) = (loads.values().min(), loads.values().max());
            assert!(many <= few.map(|few| few + 1).as_ref(), "{loads:?}");
        }
    }

    #[test]
    fn zones_are_spread_over_first() {
        let (mut state, mut index) = founded(6);
        for zone in ["a", "a", "b", "b", "c"] {
            join(&mut state, &mut index, zone);
        }
        settle(&mut state, &mut index, &BTreeSet::new());
        for shard in state.shards.values() {
            let zones: BTreeSet<&str> = shard
                .replicas
                .iter()
                .map(|replica| state.nodes[&replica.node].facts.zone.as_str())
                .collect();
            assert_eq!(zones.len(), 3, "{shard:?}");
        }
    }

    #[test]
    fn who_leaves_or_is_dead_is_replaced_one_by_one_and_never_without_another() {
        let (mut state, mut index) = founded(3);
        for _ in 0..3 {
            join(&mut state, &mut index, "");
        }
        settle(&mut state, &mut index, &BTreeSet::new());
        index += 1;
        state.apply(Index(index), &MetaEntry::Leave(NodeId(1)));
        settle(&mut state, &mut index, &BTreeSet::new());
        assert!(!state.has_replicas(NodeId(1)));
        assert!(state.shards.values().all(|shard| shard.replicas.len() == 3));
        assert!(state.shards.values().all(|shard| shard.leader != Some(NodeId(1))));
        let dead = BTreeSet::from([NodeId(2)]);
        settle(&mut state, &mut index, &dead);
        let keeps = state.shards.values().all(|shard| shard.replica_of(NodeId(2)).is_some());
        assert!(keeps, "nobody can take its place");
        assert!(state.shards.values().all(|shard| shard.leader != Some(NodeId(2))));
        let half_joined = &dead;
        let given_up = plan_without(&state, Absent { dead: &dead, half_joined });
        assert_eq!(given_up.len(), 3, "who never had a vote is not waited for");
        join(&mut state, &mut index, "");
        settle(&mut state, &mut index, &dead);
        assert!(!state.has_replicas(NodeId(2)), "now somebody can");
        let all = state.members().map(|(id, _)| id).collect();
        assert!(plan(&state, &all).is_empty(), "nowhere to go");
    }

    #[test]
    fn leaders_are_together_and_stay_where_they_are() {
        let (mut state, mut index) = founded(4);
        for _ in 0..2 {
            join(&mut state, &mut index, "");
        }
        settle(&mut state, &mut index, &BTreeSet::new());
        let leaders: BTreeSet<_> = state.shards.values().map(|shard| shard.leader).collect();
        assert_eq!(leaders, BTreeSet::from([Some(NodeId(1))]));
    }

    #[test]
    fn any_history_of_nodes_is_planned_to_an_end() {
        for seed in 0..200 {
            let mut chance = Random::new(seed);
            let (mut state, mut index) = founded(1 + chance.below(8) as u16);
            let mut dead = BTreeSet::new();
            for _ in 0..30 {
                let members: Vec<NodeId> = state.members().map(|(id, _)| id).collect();
                let some = members[chance.below(members.len() as u64) as usize];
                index += 1;
                match chance.below(5) {
                    0 | 1 if members.len() < 9 => {
                        let zone = ["", "a", "b", "c"][chance.below(4) as usize];
                        join(&mut state, &mut index, zone);
                    }
                    2 => drop(state.apply(Index(index), &MetaEntry::Leave(some))),
                    3 => drop(dead.insert(some)),
                    _ => {
                        dead.clear();
                        let count = 1 + chance.below(5) as u16;
                        state.apply(Index(index), &MetaEntry::Replicas(count));
                    }
                }
                settle(&mut state, &mut index, &dead);
                let usable = state.members().filter(|(id, _)| !dead.contains(id)).count();
                if usable > 0 {
                    let wanted = usize::from(state.replicas).min(usable);
                    for shard in state.shards.values() {
                        let mut nodes = shard.replicas.iter().map(|replica| replica.node);
                        let absent = nodes.clone().filter(|node| dead.contains(node)).count();
                        let count = nodes.len();
                        assert_eq!(count - absent, wanted, "seed {seed}: {shard:?}");
                        assert!(absent == 0 || count <= usize::from(state.replicas));
                        assert!(nodes.all(|node| state.members().any(|(id, _)| id == node)));
                    }
                }
            }
        }
    }
}
