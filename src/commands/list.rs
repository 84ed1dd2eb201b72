//! Lists: elements in the order in which they were put in, from both ends.

use super::refusal::Outcome;
use super::{Arity, Call, Command, Group, Keys, read, write};
use crate::resp::reply::Reply;
use Arity::{AtLeast, Exactly};
use ringraft_shards::keyspace::{Edit, View};
use ringraft_shards::value::list::End;

/// The rows of this family.
pub const COMMANDS: &[Command] = &[
    write("lpush", AtLeast(3), Keys::FIRST, lpush).grows().fast().about(
        Group::List,
        "1.0.0",
        "Puts elements before a list, making the list when it does not exist.",
    ),
    read("llen", Exactly(2), Keys::FIRST, llen).fast().about(
        Group::List,
        "1.0.0",
        "Counts the elements of a list.",
    ),
];

/// LPUSH key element [element ...]. The last one comes first.
fn lpush(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let key = call.key(1);
    let mut list = edit.list_mut(&key)?;
    for element in call.arguments.iter_from(2) {
        list.push(End::Front, element);
    }
    reply.integer(list.count() as i64);
    Ok(())
}

/// LLEN key.
fn llen(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let count = call.list(1, view)?.map_or(0, |list| list.count());
    reply.integer(count as i64);
    Ok(())
}
