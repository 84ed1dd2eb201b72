//! Hashes: fields with values.

use super::refusal::{Outcome, Refusal};
use super::{Arity, Call, Command, Group, Keys, read, write};
use crate::resp::reply::Reply;
use Arity::{AtLeast, Exactly};
use ringraft_shards::keyspace::{Edit, View};

/// The rows of this family.
pub const COMMANDS: &[Command] = &[
    write("hset", AtLeast(4), Keys::FIRST, hset).grows().fast().about(
        Group::Hash,
        "2.0.0",
        "Sets fields of a hash, making the hash when it does not exist.",
    ),
    read("hget", Exactly(3), Keys::FIRST, hget).fast().about(
        Group::Hash,
        "2.0.0",
        "Returns the value of a field of a hash.",
    ),
    read("hlen", Exactly(2), Keys::FIRST, hlen).fast().about(
        Group::Hash,
        "2.0.0",
        "Counts the fields of a hash.",
    ),
];

/// HSET key field value [field value ...]. Returns how many fields are new. Keeps the deadline.
fn hset(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    if !call.count().is_multiple_of(2) {
        return Err(Refusal::Arity("hset".into()));
    }
    let key = call.key(1);
    let mut hash = edit.hash_mut(&key)?;
    let pairs = (2..call.count()).step_by(2);
    let added = pairs.filter(|&i| hash.set(call.at(i), call.at(i + 1))).count();
    reply.integer(added as i64);
    Ok(())
}

/// HGET key field.
fn hget(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    match call.hash(1, view)?.and_then(|hash| hash.get(call.at(2))) {
        Some(value) => reply.bulk(value),
        None => reply.null(),
    }
    Ok(())
}

/// HLEN key.
fn hlen(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let count = call.hash(1, view)?.map_or(0, |hash| hash.count());
    reply.integer(count as i64);
    Ok(())
}
