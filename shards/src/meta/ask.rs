//! What a node asks of the state before it proposes something of itself or of another one.

use super::entry::{MetaEntry, NodeFacts};
use super::state::{MetaState, NodeState, Rejection};
use crate::ids::{DirectoryId, NodeId};

/// Who asks to join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joiner {
    /// The node that it is already: the answer to an earlier join was lost.
    pub node: Option<NodeId>,
    /// Another member that is known under the address that it names. If the joiner is the one that
    /// answers there, and the member is silent, that one's directory is gone: it leaves when
    /// the joiner has joined. Else the joiner is refused.
    pub holder: Option<NodeId>,
}

impl MetaState {
    /// Who is it that asks to join with this directory, and whose address does it name? Errors: it
    /// was removed.
    pub fn find_joiner(&self, directory: DirectoryId, address: &str) -> Result<Joiner, Rejection> {
        let known = self.nodes.iter().find(|(_, node)| node.directory == directory);
        if known.is_some_and(|(_, node)| node.state == NodeState::Removed) {
            return Err(Rejection::Removed);
        }
        let node = known.map(|(id, _)| *id);
        let mut others = self.members().filter(|(id, _)| Some(*id) != node);
        let holder = others.find(|(_, other)| other.facts.address == address).map(|(id, _)| id);
        Ok(Joiner { node, holder })
    }

    /// The entry by which a node says something else of itself than what is known; none when that
    /// is known, or the node does not belong. To be asked whenever the state has changed: of
    /// two entries on their way the older may come last.
    pub fn describe_anew(&self, node: NodeId, facts: &NodeFacts) -> Option<MetaEntry> {
        let known = self.nodes.get(&node).filter(|node| node.state != NodeState::Removed)?;
        (known.facts != *facts).then(|| MetaEntry::Describe { node, facts: facts.clone() })
    }

    /// The entry that raises the feature level to what every node knows by now, if that is more
    /// than what is in use.
    pub fn raise_level(&self) -> Option<MetaEntry> {
        let known = self.known_level();
        (known > self.level).then_some(MetaEntry::Level(known))
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::Outcome::{self, Done, Joined, Rejected};
    use super::super::state::Rejection::{Removed, TooOld};
    use super::*;
    use crate::ids::{Index, ShardId};

    fn founded() -> MetaState {
        let facts = NodeFacts { level: 1, ..NodeFacts::default() };
        let node = |id: u64| (NodeId(id), DirectoryId(id.into()), facts.clone());
        MetaState::found(&[node(1), node(2)], 2)
    }

    fn check(state: &mut MetaState, steps: &[(MetaEntry, Outcome)]) {
        for (n, (entry, outcome)) in steps.iter().enumerate() {
            assert_eq!(state.apply(Index(10 + n as u64), entry), *outcome, "{n}: {entry:?}");
        }
    }

    #[test]
    fn a_wiped_node_is_found_by_its_address_and_replaced() {
        let facts =
            |address: &str| NodeFacts { address: address.into(), level: 1, ..NodeFacts::default() };
        let mut state = founded();
        let describe = |node, address| MetaEntry::Describe { node, facts: facts(address) };
        let (one, two, new) = (NodeId(1), NodeId(2), DirectoryId(7));
        check(&mut state, &[(describe(one, "a:1"), Done), (describe(two, "b:1"), Done)]);
        let joiner = |node, holder| Ok(Joiner { node, holder });
        assert_eq!(state.find_joiner(new, "c:1"), joiner(None, None));
        assert_eq!(state.find_joiner(new, "b:1"), joiner(None, Some(two)));
        assert_eq!(state.find_joiner(DirectoryId(2), "b:1"), joiner(Some(two), None));
        let join = MetaEntry::Join { directory: new, facts: facts("b:1") };
        check(&mut state, &[(join, Joined(NodeId(3)))]);
        // Its answer was lost, and so was the old node's leave.
        assert_eq!(state.find_joiner(new, "b:1"), joiner(Some(NodeId(3)), Some(two)));
        check(&mut state, &[(MetaEntry::Leave(two), Done)]);
        assert_eq!(state.find_joiner(new, "b:1"), joiner(Some(NodeId(3)), None));
        let apart = |shard| MetaEntry::Wish {
            shard: ShardId(shard),
            version: 0,
            nodes: vec![one, NodeId(3)],
            leader: None,
        };
        check(&mut state, &[(apart(0), Done), (apart(1), Done), (MetaEntry::Remove(two), Done)]);
        assert_eq!(state.find_joiner(DirectoryId(2), "b:1"), Err(Removed));
    }

    #[test]
    fn what_nodes_say_is_agreed_on_when_it_changes() {
        let mut state = founded();
        let known = state.nodes[&NodeId(1)].facts.clone();
        assert_eq!(state.describe_anew(NodeId(1), &known), None);
        let moved = NodeFacts { address: "elsewhere:1".into(), ..known };
        let entry = state.describe_anew(NodeId(1), &moved).expect("it has moved");
        check(&mut state, &[(entry, Done)]);
        assert_eq!(state.describe_anew(NodeId(1), &moved), None);
        assert_eq!(state.describe_anew(NodeId(9), &moved), None);
        assert_eq!(state.raise_level(), None);
        for node in [1, 2] {
            assert_eq!(state.raise_level(), None, "one of them does not know it");
            let facts = NodeFacts { level: 4, ..NodeFacts::default() };
            check(&mut state, &[(MetaEntry::Describe { node: NodeId(node), facts }, Done)]);
        }
        let entry = state.raise_level().expect("both know it");
        let facts = NodeFacts { level: 3, ..NodeFacts::default() };
        let join = MetaEntry::Join { directory: DirectoryId(9), facts };
        check(&mut state, &[(entry, Done), (join, Rejected(TooOld))]);
        let older = MetaEntry::Describe { node: NodeId(1), facts: NodeFacts::default() };
        check(&mut state, &[(older, Rejected(TooOld))]);
    }
}
