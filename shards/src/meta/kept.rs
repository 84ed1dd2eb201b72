//! The state as an item of a keyspace: what the meta group's log makes of its items. The group is a
//! shard like others, without slots; its one item holds the state and how many entries have made
//! it, and its one command founds the state or takes an entry in.

use bytes::Bytes;

use super::entry::MetaEntry;
use super::state::{MetaState, Outcome};
use crate::ids::Index;
use crate::keyspace::{Edit, Expiry, Key, StringForm, View};

const KEY: &[u8] = b"state";
/// Bytes before the state: how many entries made it.
const COUNT_BYTES: usize = 8;

/// An entry came before the state was founded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cluster is not founded yet")]
pub struct NotFounded;

/// How many entries have made the state that is kept here, and the state; none before it is
/// founded.
pub fn kept_state(view: &View<'_>) -> Option<(u64, MetaState)> {
    let key = Key::new(KEY, view.hasher().hash(KEY));
    let bytes = view.peek(&key)?.string()?;
    let (count, state) = bytes.split_first_chunk::<COUNT_BYTES>()?;
    let state = MetaState::decode(Bytes::copy_from_slice(state));
    Some((u64::from_le_bytes(*count), state.expect("the group has written it")))
}

/// Founds what is kept with the bytes of a state. One that is founded already stays as it is.
pub fn keep_founded(edit: &mut Edit<'_>, state: Bytes) {
    if kept_state(&edit.view()).is_none() {
        let state = MetaState::decode(state).expect("the founder has written it");
        keep(edit, 0, &state);
    }
}

/// Takes in the bytes of an entry. One that is rejected changes nothing, and is not counted.
pub fn keep_entry(edit: &mut Edit<'_>, entry: Bytes) -> Result<Outcome, NotFounded> {
    let (count, mut state) = kept_state(&edit.view()).ok_or(NotFounded)?;
    let entry = MetaEntry::decode(entry).expect("a member has proposed it");
    let outcome = state.apply(Index(count + 1), &entry);
    if !matches!(outcome, Outcome::Rejected(_)) {
        keep(edit, count + 1, &state);
    }
    Ok(outcome)
}

fn keep(edit: &mut Edit<'_>, count: u64, state: &MetaState) {
    let bytes = [&count.to_le_bytes()[..], &state.encode()].concat();
    let key = Key::new(KEY, edit.view().hasher().hash(KEY));
    edit.set_string(&key, &bytes, StringForm::Text, Expiry::Never);
}

#[cfg(test)]
mod tests {
    use super::super::entry::NodeFacts;
    use super::super::state::Rejection;
    use super::*;
    use crate::ids::{DatabaseIndex, DirectoryId, NodeId};
    use crate::keyspace::{KeyHasher, Keyspace};

    #[test]
    fn a_state_is_founded_once_and_counts_what_has_made_it() {
        let mut keyspace = Keyspace::new(KeyHasher::new(7));
        let mut edit = keyspace.edit(DatabaseIndex(0), 0);
        let bytes = |entry: MetaEntry| Bytes::from(entry.encode());
        let join = MetaEntry::Join { directory: DirectoryId(2), facts: NodeFacts::default() };
        assert_eq!(keep_entry(&mut edit, bytes(join.clone())), Err(NotFounded));
        assert_eq!(kept_state(&edit.view()), None);
        let founder = (NodeId(1), DirectoryId(1), NodeFacts::default());
        let founded = MetaState::found(&[founder], 1);
        keep_founded(&mut edit, founded.encode().into());
        assert_eq!(kept_state(&edit.view()), Some((0, founded)));
        assert_eq!(keep_entry(&mut edit, bytes(join)), Ok(Outcome::Joined(NodeId(2))));
        let (count, joined) = kept_state(&edit.view()).expect("it is founded");
        assert_eq!((count, joined.nodes.len()), (1, 2));
        let unknown = bytes(MetaEntry::Leave(NodeId(9)));
        let rejected = Ok(Outcome::Rejected(Rejection::NoNode));
        assert_eq!(keep_entry(&mut edit, unknown), rejected);
        keep_founded(&mut edit, MetaState::found(&[], 1).encode().into());
        assert_eq!(kept_state(&edit.view()), Some((1, joined)), "nothing has changed it");
    }
}
