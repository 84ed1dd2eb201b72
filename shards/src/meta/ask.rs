//! What a node asks of the state before it proposes something of itself or of another one.

use std::collections::BTreeSet;

use super::entry::{MetaEntry, NodeFacts};
use super::state::{MetaState, Node, NodeState, Rejection};
use crate::ids::{DirectoryId, NodeId};

/// Why a directory is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// It cannot be a node.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// A member answers under the address that it names.
    #[error("another node of this cluster is at {0}")]
    AddressTaken(String),
}

impl MetaState {
    /// The entries that let a directory in, the first of which is to be answered. When a member is
    /// known under its address, and is silent, that one's directory is gone, and it leaves: the
    /// newcomer takes its place. `heard`: the nodes that are connected.
    pub fn admit(
        &self,
        directory: DirectoryId,
        facts: &NodeFacts,
        heard: &BTreeSet<NodeId>,
    ) -> Result<Vec<MetaEntry>, NotAdmitted> {
        let holder = self.holder(directory, &facts.address)?;
        if holder.is_some_and(|holder| heard.contains(&holder)) {
            return Err(NotAdmitted::AddressTaken(facts.address.clone()));
        }
        let join = MetaEntry::Join { directory, facts: facts.clone() };
        Ok([join].into_iter().chain(holder.map(MetaEntry::Leave)).collect())
    }

    /// Another member than this directory that is known under an address. Errors: the directory was
    /// a node that is removed.
    fn holder(&self, directory: DirectoryId, address: &str) -> Result<Option<NodeId>, Rejection> {
        let known = self.nodes.values().find(|node| node.directory == directory);
        if known.is_some_and(|node| node.state == NodeState::Removed) {
            return Err(Rejection::Removed);
        }
        let is_other = |node: &Node| node.directory != directory && node.facts.address == address;
        Ok(self.members().find(|(_, node)| is_other(node)).map(|(id, _)| id))
    }

    /// The entry by which a node says something else of itself than what is known; none when that
    /// is known, or the node does not belong. To be asked whenever the state has changed: of
    /// two entries on their way the older may come last.
    fn describe_anew(&self, node: NodeId, facts: &NodeFacts) -> Option<MetaEntry> {
        let known = self.nodes.get(&node).filter(|node| node.state != NodeState::Removed)?;
        (known.facts != *facts).then(|| MetaEntry::Describe { node, facts: facts.clone() })
    }

    /// The same of members that are heard: their addresses, and the newest feature levels that they
    /// know. Of one of them at a time; who knows less than what is in use is not listened to.
    pub fn describe_heard<'a>(
        &self,
        heard: impl IntoIterator<Item = (NodeId, &'a str, u32)>,
    ) -> Option<MetaEntry> {
        heard.into_iter().find_map(|(node, address, level)| {
            let known = self.nodes.get(&node);
            let known = known.filter(|node| node.state == NodeState::Member)?;
            let facts = NodeFacts { address: address.into(), level, ..known.facts.clone() };
            self.describe_anew(node, &facts).filter(|_| level >= self.level)
        })
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
        assert_eq!(state.holder(new, "c:1"), Ok(None));
        assert_eq!(state.holder(new, "b:1"), Ok(Some(two)));
        assert_eq!(state.holder(DirectoryId(2), "b:1"), Ok(None));
        let join = MetaEntry::Join { directory: new, facts: facts("b:1") };
        let (silent, heard) = (BTreeSet::new(), BTreeSet::from([one, two]));
        let admitted = state.admit(new, &facts("b:1"), &silent);
        assert_eq!(admitted, Ok(vec![join.clone(), MetaEntry::Leave(two)]));
        let taken = state.admit(new, &facts("b:1"), &heard);
        assert_eq!(taken, Err(NotAdmitted::AddressTaken("b:1".into())));
        let elsewhere = MetaEntry::Join { directory: new, facts: facts("c:1") };
        assert_eq!(state.admit(new, &facts("c:1"), &heard), Ok(vec![elsewhere]));
        check(&mut state, &[(join, Joined(NodeId(3)))]);
        // Its answer was lost, and so was the old node's leave.
        assert_eq!(state.holder(new, "b:1"), Ok(Some(two)));
        check(&mut state, &[(MetaEntry::Leave(two), Done)]);
        assert_eq!(state.holder(new, "b:1"), Ok(None));
        let apart = |shard| MetaEntry::Wish {
            shard: ShardId(shard),
            version: 0,
            nodes: vec![one, NodeId(3)],
            leader: None,
        };
        check(&mut state, &[(apart(0), Done), (apart(1), Done), (MetaEntry::Remove(two), Done)]);
        let gone = state.admit(DirectoryId(2), &facts("b:1"), &silent);
        assert_eq!(gone, Err(NotAdmitted::Rejected(Removed)));
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
        let (one, there) = (NodeId(1), "elsewhere:1");
        assert_eq!(state.describe_heard([(one, there, 1), (one, "x:1", 0)]), None);
        let newer = NodeFacts { level: 2, ..moved.clone() };
        let newer = MetaEntry::Describe { node: one, facts: newer };
        assert_eq!(state.describe_heard([(NodeId(9), "x:1", 1), (one, there, 2)]), Some(newer));
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
