//! What the cluster has agreed on, as nobody in it knows it: the state after every entry of the
//! meta group that was applied anywhere. Nodes act by what their own replicas have applied; here it
//! is checked that these are the same, one after the other, and that nothing that was said to
//! somebody is taken back.

use std::collections::BTreeMap;

use ringraft_shards::ids::{DirectoryId, NodeId, ShardId};
use ringraft_shards::meta::{MetaEntry, MetaState, NodeState, Outcome, Wish};

use crate::members::facts;
use crate::node::Node;

/// Replicas of each shard: more than there are nodes. A node without one would not know where
/// transactions go.
const REPLICAS: u16 = 15;

/// The agreed state.
pub struct Registry {
    /// Of all entries that were applied anywhere. Before the first, what the founders begin with.
    pub state: MetaState,
    /// What the state was after an entry, in short, by the entry's index.
    states: BTreeMap<u64, u32>,
    /// What was said to the operator.
    acknowledged: Vec<(MetaEntry, Outcome)>,
}

fn digest(state: Option<&MetaState>) -> u32 {
    state.map_or(0, |state| crc32fast::hash(&state.encode()))
}

impl Registry {
    /// Of a cluster of nobody.
    pub fn empty() -> Registry {
        let state = MetaState::found(&[], 0);
        Registry { state, states: BTreeMap::new(), acknowledged: Vec::new() }
    }

    /// Of a cluster that these nodes will found. Every shard shall be on all of them.
    pub fn found(nodes: &[Node], shards: u16) -> Registry {
        let node = |node: &Node| (NodeId(node.id), node.directory, facts(node.directory));
        let nodes: Vec<_> = nodes.iter().map(node).collect();
        let state = MetaState { replicas: REPLICAS, ..MetaState::found(&nodes, shards) };
        Registry { state, ..Registry::empty() }
    }

    /// A replica has this state after an entry: what everybody has after it. Returns which nodes
    /// are removed by it, when nobody has applied it before.
    pub fn applied(&mut self, index: u64, state: Option<&MetaState>) -> Result<Vec<u64>, String> {
        let found = digest(state);
        if let Some(known) = self.states.get(&index) {
            return match *known == found {
                true => Ok(Vec::new()),
                false => Err(format!("what is agreed on differs after entry {index}")),
            };
        }
        let newest = self.states.keys().next_back().copied().unwrap_or(0);
        if index < newest {
            return Err(format!("entry {index} is one of {newest} that nobody had applied"));
        }
        self.states.insert(index, found);
        let Some(state) = state else { return Ok(Vec::new()) };
        let before: Vec<u64> = self.removed().collect();
        check_follows(&self.state, state)?;
        self.state = state.clone();
        Ok(self.removed().filter(|node| !before.contains(node)).collect())
    }

    /// A replica has this state, from a snapshot or the start on, with everything up to an entry.
    pub fn loaded(&self, index: u64, state: Option<&MetaState>) -> Result<(), String> {
        let known = self.states.range(..=index).next_back().map_or(0, |(_, known)| *known);
        match known == digest(state) {
            true => Ok(()),
            false => Err(format!("what is agreed on differs in what was loaded at {index}")),
        }
    }

    /// The operator is told what an entry has come to.
    pub fn acknowledge(&mut self, entry: MetaEntry, outcome: Outcome) -> Result<(), String> {
        let same = |(known, _): &&(MetaEntry, Outcome)| *known == entry;
        if let Some((_, before)) = self.acknowledged.iter().find(same)
            && matches!(before, Outcome::Joined(_))
            && *before != outcome
        {
            return Err(format!("a directory is told {before:?}, then {outcome:?}"));
        }
        let joins = |one: &&(MetaEntry, Outcome)| matches!(one.1, Outcome::Joined(_));
        let taken = self.acknowledged.iter().filter(joins);
        if let Outcome::Joined(node) = outcome
            && let Some((other, _)) =
                taken.clone().find(|(of, told)| *told == outcome && *of != entry)
        {
            return Err(format!("two directories are told that they are n{node}: {other:?}"));
        }
        self.acknowledged.push((entry, outcome));
        Ok(())
    }

    /// In the end a node knows this: everything that was agreed on, and that the operator was told.
    pub fn judge(&self, id: u64, known: Option<&MetaState>) -> Result<(), String> {
        let Some(known) = known.filter(|known| **known == self.state) else {
            return Err(format!("n{id} does not know what is agreed on: {known:?}"));
        };
        let is_kept = |(entry, outcome): &(MetaEntry, Outcome)| match (entry, outcome) {
            (MetaEntry::Join { directory, .. }, Outcome::Joined(node)) => {
                known.nodes.get(node).is_some_and(|node| node.directory == *directory)
            }
            (MetaEntry::Leave(node), Outcome::Done) => {
                known.nodes.get(node).is_some_and(|node| node.state != NodeState::Member)
            }
            _ => true,
        };
        match self.acknowledged.iter().find(|one| !is_kept(one)) {
            Some(lost) => Err(format!("n{id} does not know what was acknowledged: {lost:?}")),
            None => Ok(()),
        }
    }

    /// Nodes that may have replicas.
    pub fn members(&self) -> Vec<u64> {
        self.state.members().map(|(id, _)| id.0).collect()
    }

    /// Nodes that leave and are not removed yet.
    pub fn leaving(&self) -> Vec<u64> {
        let nodes = self.state.nodes.iter();
        nodes.filter(|(_, node)| node.state == NodeState::Leaving).map(|(id, _)| id.0).collect()
    }

    /// Nodes that are removed for ever.
    pub fn removed(&self) -> impl Iterator<Item = u64> {
        let removed = self.state.nodes.iter().filter(|(_, node)| node.state == NodeState::Removed);
        removed.map(|(id, _)| id.0)
    }

    /// What is wished of a shard.
    pub fn wish(&self, shard: u16) -> Wish {
        self.state.lasting_wish(ShardId(shard))
    }
}

/// May the one state come after the other?
fn check_follows(before: &MetaState, after: &MetaState) -> Result<(), String> {
    for (id, old) in &before.nodes {
        let Some(new) = after.nodes.get(id) else {
            return Err(format!("n{id} is forgotten"));
        };
        if new.directory != old.directory {
            return Err(format!("n{id} is another directory than before"));
        }
        if old.state == NodeState::Removed && new.state != NodeState::Removed {
            return Err(format!("n{id} was removed, and is back"));
        }
        if new.meta_generation < old.meta_generation {
            return Err(format!("n{id} is an older member of the meta group than before"));
        }
    }
    for (place, old) in &before.renewed {
        if after.renewed.get(place) < Some(old) {
            return Err(format!("{place:?} is an older replica than before"));
        }
    }
    let mut directories: Vec<DirectoryId> =
        after.nodes.values().map(|node| node.directory).collect();
    directories.sort_unstable();
    directories.dedup();
    match directories.len() == after.nodes.len() {
        true => Ok(()),
        false => Err("a directory is two nodes".into()),
    }
}
