//! Which replica a node gets in the place of one that it has lost: decided by whoever may propose
//! entries of the meta group. The node asks again and again; what is agreed on twice has an effect
//! once. Who has asked is part of what is agreed on, so that every leader names it the same one.

use std::collections::BTreeMap;

use super::entry::MetaEntry;
use super::state::{ASKER_LEVEL, META_SHARD, MetaState};
use crate::ids::{NodeId, ShardId};

/// Who has asked, and which replica it was then: what a leader remembers below [`ASKER_LEVEL`]. The
/// next leader does not know it, and may name another one than the node has begun with.
#[derive(Debug, Default)]
pub struct Renewals {
    asked: BTreeMap<(ShardId, NodeId), (u64, NodeId)>,
}

/// What is to be done for who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Nothing: it stands by.
    Wait,
    /// This is to be agreed on.
    Propose(MetaEntry),
    /// It is told that it has the replica of this generation from now on.
    Named(u32),
}

impl Renewals {
    /// A node says that its replica of a shard, or of the meta group, is lost. Each asker is named
    /// one replica: it is to be another one for another process, and for another loss.
    pub fn ask(&mut self, state: &MetaState, shard: ShardId, node: NodeId, asker: u64) -> Renewal {
        let now = state.lasting_member(shard, node);
        let agrees_on_askers = state.level >= ASKER_LEVEL;
        let is_named = match agrees_on_askers {
            true => state.askers.get(&(shard, node)) == Some(&asker),
            false => {
                let known = self.asked.get(&(shard, node));
                known.is_some_and(|(known, before)| *known == asker && now != *before)
            }
        };
        if is_named {
            return Renewal::Named(now.generation());
        }
        // Who stands by is told when it has something to have. What was proposed before may have
        // come to nothing.
        let Some(generation) = state.wished_generation(shard, node) else {
            return Renewal::Wait;
        };
        if !agrees_on_askers {
            self.asked.insert((shard, node), (asker, now));
        }
        let asker = agrees_on_askers.then_some(asker);
        Renewal::Propose(MetaEntry::Renew { shard, node, generation, asker })
    }
}

impl MetaState {
    /// Which replica of a shard a node is wished to have; none when it shall have none.
    fn wished_generation(&self, shard: ShardId, node: NodeId) -> Option<u32> {
        match shard {
            META_SHARD => self.nodes.get(&node).map(|node| node.meta_generation),
            _ => self.shards.get(&shard)?.replica_of(node).map(|replica| replica.generation),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::Outcome;
    use super::*;
    use crate::ids::{DirectoryId, Index};
    use crate::meta::NodeFacts;

    fn founded(level: u32) -> MetaState {
        let facts = NodeFacts { level, ..NodeFacts::default() };
        let founder = |id| (NodeId(id), DirectoryId(id.into()), facts.clone());
        MetaState::found(&[founder(1), founder(2)], 1)
    }

    #[test]
    fn each_process_that_asks_is_named_one_replica() {
        for level in [ASKER_LEVEL - 1, ASKER_LEVEL] {
            let (mut state, node) = (founded(level), NodeId(2));
            let mut renewals = Renewals::default();
            for (n, shard) in [ShardId(0), META_SHARD].into_iter().enumerate() {
                let mut generation = 0;
                for process in [7, 8] {
                    let asker = (level == ASKER_LEVEL).then_some(process);
                    let entry = MetaEntry::Renew { shard, node, generation, asker };
                    let found = renewals.ask(&state, shard, node, process);
                    assert_eq!(found, Renewal::Propose(entry.clone()));
                    let found = renewals.ask(&state, shard, node, process);
                    assert_eq!(found, Renewal::Propose(entry.clone()), "the first may be lost");
                    let index = Index(10 * (n as u64 + 1) + process);
                    assert_eq!(state.apply(index, &entry), Outcome::Done);
                    generation = index.0 as u32;
                    let found = renewals.ask(&state, shard, node, process);
                    assert_eq!(found, Renewal::Named(generation));
                }
            }
            let stranger = renewals.ask(&state, ShardId(0), NodeId(3), 1);
            assert_eq!(stranger, Renewal::Wait, "it stands by");
        }
    }

    /// Found by the simulation: the next leader named the same process a second replica, while it
    /// began with the first.
    #[test]
    fn the_next_leader_names_the_same_replica() {
        let (mut state, node, shard) = (founded(ASKER_LEVEL), NodeId(2), ShardId(0));
        let (mut first, mut second) = (Renewals::default(), Renewals::default());
        let Renewal::Propose(entry) = first.ask(&state, shard, node, 7) else {
            panic!("it has no replica yet");
        };
        assert_eq!(second.ask(&state, shard, node, 7), Renewal::Propose(entry.clone()));
        assert_eq!(state.apply(Index(10), &entry), Outcome::Done);
        assert!(matches!(state.apply(Index(11), &entry), Outcome::Rejected(_)), "the second's");
        let state = MetaState::decode(state.encode().into()).expect("it was written here");
        assert_eq!(first.ask(&state, shard, node, 7), Renewal::Named(10));
        assert_eq!(second.ask(&state, shard, node, 7), Renewal::Named(10));
    }
}
