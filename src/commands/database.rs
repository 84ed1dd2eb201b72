//! Commands on whole databases: counting, emptying, exchanging.

use super::refusal::{Outcome, Refusal};
use super::{Arity, Call, Command, Gather, Group, Keys, read, write};
use crate::resp::reply::Reply;
use ringraft_shards::ids::DatabaseIndex;
use ringraft_shards::keyspace::{Edit, View};
use ringraft_shards::limits::DATABASE_COUNT;

/// Rows of this file.
pub const COMMANDS: &[Command] = &[
    read("dbsize", Arity::Exactly(1), Keys::NONE, dbsize).fast().everywhere(Gather::Sum).about(
        Group::Server,
        "1.0.0",
        "Counts the keys of the database.",
    ),
    write("flushdb", Arity::AtLeast(1), Keys::NONE, flushdb)
        .checked(check_flush_option)
        .everywhere(Gather::AllOk)
        .about(Group::Server, "1.0.0", "Removes all keys of the database."),
    write("flushall", Arity::AtLeast(1), Keys::NONE, flushall)
        .checked(check_flush_option)
        .everywhere(Gather::AllOk)
        .about(Group::Server, "1.0.0", "Removes all keys of all databases."),
    write("swapdb", Arity::Exactly(3), Keys::NONE, swapdb)
        .checked(check_swap)
        .crosses_databases()
        .fast()
        .everywhere(Gather::AllOk)
        .about(Group::Server, "4.0.0", "Exchanges the keys of two databases."),
];

fn dbsize(_call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply.integer(view.count() as i64);
    Ok(())
}

fn flushdb(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    check_flush_option(call)?;
    edit.clear();
    reply.ok();
    Ok(())
}

fn flushall(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    check_flush_option(call)?;
    edit.clear_all();
    reply.ok();
    Ok(())
}

/// ASYNC and SYNC are accepted and mean the same.
fn check_flush_option(call: &Call<'_>) -> Outcome {
    let known = call.arguments.is(1, "async") || call.arguments.is(1, "sync");
    if call.count() == 1 || (call.count() == 2 && known) { Ok(()) } else { Err(Refusal::Syntax) }
}

fn check_swap(call: &Call<'_>) -> Outcome {
    swapped(call).map(|_| ())
}

/// The databases that are to change places. Errors: no such database.
fn swapped(call: &Call<'_>) -> Result<[DatabaseIndex; 2], Refusal> {
    let number = |i| call.integer(i).ok().and_then(|n| i32::try_from(n).ok());
    let one = number(1).ok_or(Refusal::text("ERR invalid first DB index"))?;
    let other = number(2).ok_or(Refusal::text("ERR invalid second DB index"))?;
    Ok([database_index(one)?, database_index(other)?])
}

fn swapdb(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let [one, other] = swapped(call)?;
    edit.swap(one, other);
    reply.ok();
    Ok(())
}

/// Argument `i` as the index of a database.
/// Errors: not an integer, not one of 32 bits, or no such database.
pub fn database_argument(call: &Call<'_>, i: usize) -> Result<DatabaseIndex, Refusal> {
    let index = i32::try_from(call.integer(i)?).map_err(|_| NOT_32_BITS)?;
    database_index(index)
}

fn database_index(index: i32) -> Result<DatabaseIndex, Refusal> {
    match u8::try_from(index) {
        Ok(index) if (index as usize) < DATABASE_COUNT => Ok(DatabaseIndex(index)),
        _ => Err(Refusal::text("ERR DB index is out of range")),
    }
}

const NOT_32_BITS: Refusal =
    Refusal::text("ERR value is out of range, value must between -2147483648 and 2147483647");
