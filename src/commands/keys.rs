//! Commands on named keys, whatever their type: deleting, asking, renaming, copying.

use super::database::database_argument;
use super::refusal::{Outcome, Refusal};
use super::{Arity, Call, Command, Gather, Group, Keys, read, write};
use crate::resp::reply::Reply;
use ringraft_shards::keyspace::{Edit, View};
use ringraft_shards::value::ValueType;

/// Rows of this file.
pub const COMMANDS: &[Command] = &[
    write("del", Arity::AtLeast(2), Keys::ALL, del).keys_only().split(Gather::Sum).about(
        Group::Generic,
        "1.0.0",
        "Deletes keys.",
    ),
    write("unlink", Arity::AtLeast(2), Keys::ALL, del).fast().keys_only().split(Gather::Sum).about(
        Group::Generic,
        "4.0.0",
        "Deletes keys; the same as DEL.",
    ),
    read("exists", Arity::AtLeast(2), Keys::ALL, exists).fast().split(Gather::Sum).about(
        Group::Generic,
        "1.0.0",
        "Counts which of the keys exist.",
    ),
    read("touch", Arity::AtLeast(2), Keys::ALL, touch).fast().split(Gather::Sum).about(
        Group::Generic,
        "3.2.1",
        "Counts an access to each key that exists.",
    ),
    read("type", Arity::Exactly(2), Keys::FIRST, type_of).fast().about(
        Group::Generic,
        "1.0.0",
        "Names the type of a key's value.",
    ),
    write("rename", Arity::Exactly(3), Keys::TWO, rename).about(
        Group::Generic,
        "1.0.0",
        "Renames a key, replacing what had the new name.",
    ),
    write("renamenx", Arity::Exactly(3), Keys::TWO, renamenx).fast().about(
        Group::Generic,
        "1.0.0",
        "Renames a key unless the new name is taken.",
    ),
    write("copy", Arity::AtLeast(3), Keys::TWO, copy).grows().crosses_databases().about(
        Group::Generic,
        "6.2.0",
        "Copies a value to another key.",
    ),
    write("move", Arity::Exactly(3), Keys::FIRST, move_key).fast().crosses_databases().about(
        Group::Generic,
        "1.0.0",
        "Moves a key to another database.",
    ),
];

fn del(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let mut count = 0;
    for chunk in call.key_chunks() {
        edit.view().prefetch(chunk.iter().map(|(_, key)| key.hash()));
        for (_, key) in &chunk {
            count += i64::from(edit.remove(key));
        }
    }
    reply.integer(count);
    Ok(())
}

fn exists(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let mut count = 0;
    for chunk in call.key_chunks() {
        view.prefetch(chunk.iter().map(|(_, key)| key.hash()));
        count += chunk.iter().filter(|(_, key)| view.peek(key).is_some()).count();
    }
    reply.integer(count as i64);
    Ok(())
}

fn touch(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let mut count = 0;
    for chunk in call.key_chunks() {
        view.prefetch(chunk.iter().map(|(_, key)| key.hash()));
        count += chunk.iter().filter(|(_, key)| view.get(key).is_some()).count();
    }
    reply.integer(count as i64);
    Ok(())
}

fn type_of(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let item = view.peek(&call.key(1));
    reply.simple(item.map_or("none", |item| type_name(item.shape().value_type())));
    Ok(())
}

/// What TYPE and SCAN call the type of a value.
pub fn type_name(value_type: ValueType) -> &'static str {
    match value_type {
        ValueType::String => "string",
        ValueType::List => "list",
        ValueType::Set => "set",
        ValueType::SortedSet => "zset",
        ValueType::Hash => "hash",
        ValueType::Stream => "stream",
    }
}

fn rename(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let from = call.key(1);
    edit.view().get(&from).ok_or(Refusal::NoSuchKey)?;
    if call.at(1) != call.at(2) {
        edit.rename(&from, edit.view().database(), &call.key(2));
    }
    reply.ok();
    Ok(())
}

fn renamenx(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (from, to) = (call.key(1), call.key(2));
    edit.view().get(&from).ok_or(Refusal::NoSuchKey)?;
    let free = edit.view().peek(&to).is_none();
    if free {
        edit.rename(&from, edit.view().database(), &to);
    }
    reply.integer(i64::from(free));
    Ok(())
}

fn copy(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let mut database = edit.view().database();
    let mut replace = false;
    let mut i = 3;
    while i < call.count() {
        if call.arguments.is(i, "replace") {
            replace = true;
        } else if call.arguments.is(i, "db") && i + 1 < call.count() {
            i += 1;
            database = database_argument(call, i)?;
        } else {
            return Err(Refusal::Syntax);
        }
        i += 1;
    }
    if database == edit.view().database() && call.at(1) == call.at(2) {
        return Err(SAME_OBJECT);
    }
    let (from, to) = (call.key(1), call.key(2));
    let free = replace || edit.view().of_database(database).peek(&to).is_none();
    reply.integer(i64::from(free && edit.copy(&from, database, &to)));
    Ok(())
}

fn move_key(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let database = database_argument(call, 2)?;
    if database == edit.view().database() {
        return Err(SAME_OBJECT);
    }
    let key = call.key(1);
    let free = edit.view().of_database(database).peek(&key).is_none();
    let moved = free && edit.rename(&key, database, &key);
    reply.integer(i64::from(moved));
    Ok(())
}

const SAME_OBJECT: Refusal = Refusal::text("ERR source and destination objects are the same");
