//! Which replica a node gets in the place of one that it has lost: decided by whoever may propose
//! entries of the meta group. The node asks again and again; what is agreed on twice has an effect
//! once.

use std::collections::BTreeMap;

use super::entry::MetaEntry;
use super::state::{META_SHARD, MetaState};
use crate::ids::{NodeId, ShardId};

/// Who has asked, from which process, and which replica it was then.
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
    /// A process of a node says that the node's replica of a shard, or of the meta group, is lost.
    /// Each process is named one replica.
    pub fn ask(
        &mut self,
        state: &MetaState,
        shard: ShardId,
        node: NodeId,
        process: u64,
    ) -> Renewal {
        let now = state.lasting_member(shard, node);
        match self.asked.get(&(shard, node)) {
            Some((known, before)) if *known == process && now != *before => {
                Renewal::Named(now.generation())
            }
            _ => {
                // Who stands by is told when it has something to have. What was proposed before may
                // have come to nothing.
                let Some(generation) = state.wished_generation(shard, node) else {
                    return Renewal::Wait;
                };
                self.asked.insert((shard, node), (process, now));
                Renewal::Propose(MetaEntry::Renew { shard, node, generation })
            }
        }
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

    #[test]
    fn each_process_that_asks_is_named_one_replica() {
        let founder = |id| (NodeId(id), DirectoryId(id.into()), NodeFacts::default());
        let mut state = MetaState::found(&[founder(1), founder(2)], 1);
        let (node, mut renewals) = (NodeId(2), Renewals::default());
        for (n, shard) in [ShardId(0), META_SHARD].into_iter().enumerate() {
            let mut generation = 0;
            for process in [7, 8] {
                let entry = MetaEntry::Renew { shard, node, generation };
                let found = renewals.ask(&state, shard, node, process);
                assert_eq!(found, Renewal::Propose(entry.clone()));
                let found = renewals.ask(&state, shard, node, process);
                assert_eq!(found, Renewal::Propose(entry.clone()), "the first came to nothing");
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
