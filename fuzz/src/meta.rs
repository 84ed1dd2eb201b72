//! Meta entries: whatever is read is written alike, and any row of entries leaves a state that holds together.
//!
//! Input: a row of entries, a byte of length before each; the same bytes are tried as a snapshot.

use std::collections::BTreeSet;

use ringraft_shards::ids::{DirectoryId, Index, NodeId, ShardId};
use ringraft_shards::meta::{
    META_SHARD, MetaEntry, MetaState, NodeFacts, NodeState, Objection, Outcome, Rejection,
    object_to_removal, plan, wish_meta,
};
use ringraft_shards::snapshot::Membership;

/// Nodes and shards that planning is tried with: work per input is bounded.
const PLANNED_MAX: usize = 12;

/// Checks one input.
pub fn check(data: &[u8]) {
    if let Ok(state) = MetaState::decode(data.to_vec().into()) {
        let again = MetaState::decode(state.encode().into());
        assert_eq!(again.as_ref(), Ok(&state), "a snapshot that was read");
    }
    let founder = (NodeId(1), DirectoryId(1), NodeFacts::default());
    let mut state = MetaState::found(&[founder], 2);
    let (mut input, mut index) = (data, 1);
    while let [length, rest @ ..] = input {
        let (bytes, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        input = rest;
        let Ok(entry) = MetaEntry::decode(bytes.to_vec().into()) else { continue };
        let again = MetaEntry::decode(entry.encode().into());
        assert_eq!(again.as_ref(), Ok(&entry), "an entry that was read");
        let removed = removed(&state);
        index += 1;
        let before = state.clone();
        let outcome = state.apply(Index(index), &entry);
        if matches!(outcome, Outcome::Rejected(_)) {
            assert_eq!(state, before, "what is rejected changes nothing");
        }
        assert!(removed.is_subset(&self::removed(&state)), "removed for ever");
        assert!(state.members().next().is_some(), "somebody is there");
    }
    assert_eq!(MetaState::decode(state.encode().into()), Ok(state.clone()));
    check_votes(&state);
    settle(state, index);
}

fn removed(state: &MetaState) -> BTreeSet<NodeId> {
    let removed = state.nodes.iter().filter(|(_, node)| node.state == NodeState::Removed);
    removed.map(|(id, _)| *id).collect()
}

/// Somebody has a vote in the meta group, everybody who belongs listens, and what is wished is wished again once it is there.
fn check_votes(state: &MetaState) {
    let mut now = Membership::default();
    let nobody = BTreeSet::new();
    let wish = wish_meta(state, &now, &nobody, &nobody);
    let members: BTreeSet<NodeId> = state.members().map(|(id, _)| state.meta_member(id)).collect();
    let all: BTreeSet<NodeId> = wish.voters.iter().chain(&wish.learners).copied().collect();
    assert!(!wish.voters.is_empty() && wish.voters.len() <= 5 && members.is_subset(&all));
    assert_eq!(all.len(), wish.voters.len() + wish.learners.len(), "nobody twice");
    now.voters = wish.voters.clone();
    assert_eq!(wish_meta(state, &now, &nobody, &nobody), wish, "it stays");
}

fn settle(mut state: MetaState, mut index: u64) {
    if state.nodes.len() > PLANNED_MAX {
        return;
    }
    let present = state.nodes.iter().filter(|(_, node)| node.state != NodeState::Removed);
    let heard: BTreeSet<NodeId> = present.map(|(id, _)| *id).collect();
    for node in &heard {
        let verdict = object_to_removal(&state, *node, &heard);
        let last = Err(Objection::Rejected(Rejection::LastNode));
        assert!(verdict.is_ok() || verdict == last, "all are heard: {verdict:?}");
    }
    for _ in 0..20 * PLANNED_MAX {
        let entries = plan(&state, &BTreeSet::new());
        if entries.is_empty() {
            let wanted = usize::from(state.replicas).min(state.members().count());
            let full = |shard: &ShardId| state.shards[shard].replicas.len() == wanted;
            assert!(state.shards.keys().all(full), "as many as there can be: {state:?}");
            return;
        }
        for entry in entries {
            index += 1;
            assert_eq!(state.apply(Index(index), &entry), Outcome::Done, "{entry:?}");
        }
    }
    panic!("planning does not come to an end: {state:?}");
}

/// Rows of entries of every kind, and a snapshot.
pub fn seeds() -> Vec<Vec<u8>> {
    let facts =
        |level| NodeFacts { address: "127.0.0.1:7481".into(), zone: "a".into(), cores: 2, level };
    let join =
        |directory: u128| MetaEntry::Join { directory: DirectoryId(directory), facts: facts(2) };
    let wish = |version, nodes: &[u64]| MetaEntry::Wish {
        shard: ShardId(0),
        version,
        nodes: nodes.iter().copied().map(NodeId).collect(),
        leader: Some(NodeId(nodes[0])),
    };
    let rows = [
        vec![join(2), join(3), join(2), wish(0, &[1, 2, 3])],
        vec![join(2), wish(0, &[2]), MetaEntry::Leave(NodeId(1)), MetaEntry::Remove(NodeId(1))],
        vec![
            join(2),
            join(3),
            MetaEntry::Leave(NodeId(2)),
            MetaEntry::Remove(NodeId(2)),
            join(2),
            MetaEntry::Describe { node: NodeId(1), facts: facts(3) },
            MetaEntry::Level(2),
            MetaEntry::Replicas(1),
            MetaEntry::Renew { shard: ShardId(1), node: NodeId(1), generation: 0, asker: None },
            MetaEntry::Renew { shard: META_SHARD, node: NodeId(1), generation: 0, asker: Some(7) },
        ],
    ];
    let row = |entries: &Vec<MetaEntry>| -> Vec<u8> {
        let bytes = entries.iter().map(MetaEntry::encode);
        bytes.flat_map(|bytes| [vec![bytes.len() as u8], bytes].concat()).collect()
    };
    let mut seeds: Vec<Vec<u8>> = rows.iter().map(row).collect();
    let founder = (NodeId(1), DirectoryId(1), facts(1));
    seeds.push(MetaState::found(&[founder], 2).encode());
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_read() {
        for seed in seeds().iter().take(3) {
            let length = usize::from(seed[0]);
            assert!(MetaEntry::decode(seed[1..=length].to_vec().into()).is_ok());
        }
        assert!(MetaState::decode(seeds()[3].clone().into()).is_ok());
    }
}
