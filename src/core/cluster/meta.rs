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
use ringraft_shards::ids::{DatabaseIndex, ShardId};
use ringraft_shards::keyspace::Edit;
use ringraft_shards::meta::{
    META_SHARD, MetaEntry, MetaState, Outcome as MetaOutcome, keep_entry, keep_founded, kept_state,
};

/// The number of the meta group: greater than any shard's.
pub const META: ShardId = META_SHARD;

/// Rows of this file.
pub const COMMANDS: &[Row] = &[write(NAME, Arity::AtLeast(3), Keys::NONE, apply).internal().about(
    Group::Raft,
    "7.2.0",
    "Takes in what the nodes of a cluster agree on.",
)];

const NAME: &str = "meta-entry";
const FOUND: &[u8] = b"found";
const ENTRY: &[u8] = b"entry";

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
    kept_state(&shard.keyspace.view(DatabaseIndex(0), 0))
}

/// META-ENTRY found state | META-ENTRY entry bytes told.
fn apply(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let bytes = Bytes::copy_from_slice(call.at(2));
    if call.at(1) == FOUND {
        keep_founded(edit, bytes);
        reply.ok();
        return Ok(());
    }
    match keep_entry(edit, bytes) {
        Err(error) => return Err(Refusal::Text(format!("ERR {error}").into())),
        Ok(MetaOutcome::Rejected(rejection)) => {
            return Err(Refusal::Text(format!("ERR {rejection}").into()));
        }
        Ok(MetaOutcome::Joined(node)) => {
            reply.array(2);
            reply.integer(node.0 as i64);
            reply.bulk(call.at(3));
        }
        Ok(MetaOutcome::Done) => reply.ok(),
    }
    Ok(())
}
