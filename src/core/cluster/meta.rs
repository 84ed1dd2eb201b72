//! The meta group: what the nodes agree on, kept like a shard's items, in a group of its own.
//!
//! It is a shard like others, with a log, snapshots and a leader, but without slots: its one item
//! holds the state (`ringraft_shards::meta`), and its one command takes an entry in. So what is
//! proven of shards is proven of it. A node that is alone has none; the first join founds it.

use crate::commands::{Arity, Call, Command, Group, Keys};
use crate::core::commands::{Row, write};
use crate::core::shard::LocalShard;
use crate::refusal::{Outcome, Refusal};
use crate::resp::reply::Reply;
use bytes::Bytes;
use ringraft_shards::arguments::OwnedArguments;
use ringraft_shards::ids::{DatabaseIndex, Index, ShardId};
use ringraft_shards::keyspace::{Edit, Expiry, Key, KeyHash, StringForm, View};
use ringraft_shards::meta::{MetaEntry, MetaState, Outcome as MetaOutcome};

/// The number of the meta group: greater than any shard's.
pub const META: ShardId = ShardId(u16::MAX);

/// Rows of this file.
pub const COMMANDS: &[Row] = &[write(NAME, Arity::AtLeast(3), Keys::NONE, apply).internal().about(
    Group::Raft,
    "7.2.0",
    "Takes in what the nodes of a cluster agree on.",
)];

const NAME: &str = "meta-entry";
const FOUND: &[u8] = b"found";
const ENTRY: &[u8] = b"entry";
const KEY: &[u8] = b"state";
/// Bytes before the state: how many entries made it.
const COUNT_BYTES: usize = 8;

/// The arguments that found the group with this state, unless it is founded.
pub(super) fn founding(state: &MetaState) -> OwnedArguments {
    [NAME.as_bytes(), FOUND, &state.encode()].into_iter().collect()
}

/// The arguments that take in an entry. A join is answered with the node's number and `told`.
pub(super) fn entry(entry: &MetaEntry, told: &str) -> OwnedArguments {
    [NAME.as_bytes(), ENTRY, &entry.encode(), told.as_bytes()].into_iter().collect()
}

/// The row.
pub(super) fn row() -> &'static Command {
    crate::core::commands::table::internal(NAME)
}

/// The state of a meta group's items, and how many entries have made it.
pub(super) fn state_of(shard: &LocalShard) -> Option<(u64, MetaState)> {
    let hash = shard.keyspace.hasher().hash(KEY);
    read(&shard.keyspace.view(DatabaseIndex(0), 0), hash)
}

fn key(hash: KeyHash) -> Key<'static> {
    Key::new(KEY, hash)
}

fn read(view: &View<'_>, hash: KeyHash) -> Option<(u64, MetaState)> {
    let bytes = view.peek(&key(hash))?.string()?;
    let (count, state) = bytes.split_first_chunk::<COUNT_BYTES>()?;
    let state = MetaState::decode(Bytes::copy_from_slice(state));
    Some((u64::from_le_bytes(*count), state.expect("the group has written it")))
}

/// META-ENTRY found state | META-ENTRY entry bytes told.
fn apply(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let hash = call.hasher.hash(KEY);
    let (key, known) = (key(hash), read(&edit.view(), hash));
    let argument = |at| Bytes::copy_from_slice(call.at(at));
    match (call.at(1), known) {
        (FOUND, None) => {
            let state = MetaState::decode(argument(2)).expect("the founder has written it");
            keep(edit, &key, 0, &state);
            reply.ok();
        }
        (FOUND, Some(_)) => reply.ok(),
        (_, None) => return Err(Refusal::text("ERR the cluster is not founded yet")),
        (_, Some((count, mut state))) => {
            let entry = MetaEntry::decode(argument(2)).expect("a member has proposed it");
            let count = count + 1;
            let outcome = state.apply(Index(count), &entry);
            if let MetaOutcome::Rejected(rejection) = &outcome {
                return Err(Refusal::Text(format!("ERR {rejection}").into()));
            }
            keep(edit, &key, count, &state);
            match outcome {
                MetaOutcome::Joined(node) => {
                    reply.array(2);
                    reply.integer(node.0 as i64);
                    reply.bulk(call.at(3));
                }
                _ => reply.ok(),
            }
        }
    }
    Ok(())
}

fn keep(edit: &mut Edit<'_>, key: &Key<'_>, count: u64, state: &MetaState) {
    let bytes = [&count.to_le_bytes()[..], &state.encode()].concat();
    edit.set_string(key, &bytes, StringForm::Text, Expiry::Never);
}
