//! What is behind a key: OBJECT and MEMORY USAGE.

use super::refusal::{Outcome, Refusal};
use super::{Arity, Call, Command, Group, Keys, container, read};
use crate::numbers::parse_integer;
use crate::resp::reply::Reply;
use ringraft_shards::keyspace::{AccessClock, Item, Shape, StringForm, View};
use ringraft_shards::value::{Form, ValueType};

/// Rows of this file.
pub const COMMANDS: &[Command] = &[container("object", OBJECT).about(
    Group::Generic,
    "2.2.3",
    "How the value of a key is kept.",
)];

const OBJECT: &[Command] = &[
    read("encoding", Arity::Exactly(3), Keys::SECOND, encoding).of("object").about(
        Group::Generic,
        "2.2.3",
        "Names the encoding of a value.",
    ),
    read("freq", Arity::Exactly(3), Keys::SECOND, freq).of("object").random_reply().about(
        Group::Generic,
        "4.0.0",
        "Logarithmic count of accesses to a key.",
    ),
    read("help", Arity::Exactly(2), Keys::NONE, help).of("object").about(
        Group::Generic,
        "6.2.0",
        "Lists the subcommands.",
    ),
    read("idletime", Arity::Exactly(3), Keys::SECOND, idletime).of("object").random_reply().about(
        Group::Generic,
        "2.2.3",
        "Seconds since the last access to a key.",
    ),
    read("refcount", Arity::Exactly(3), Keys::SECOND, refcount).of("object").about(
        Group::Generic,
        "2.2.3",
        "References to a value: always one.",
    ),
];

/// MEMORY USAGE, for the container of MEMORY.
pub const MEMORY_USAGE: Command = read("usage", Arity::AtLeast(3), Keys::SECOND, memory_usage)
    .of("memory")
    .about(Group::Server, "4.0.0", "Bytes of memory that a key and its value take.");

/// Longest string that shares its allocation with the item's head in Redis.
const EMBEDDED_BYTES_MAX: usize = 44;

fn encoding(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    match view.peek(&call.key(2)) {
        Some(item) => reply.bulk(encoding_name(item).as_bytes()),
        None => reply.null(),
    }
    Ok(())
}

/// What OBJECT ENCODING calls the encoding of an item's value.
pub fn encoding_name(item: Item<'_>) -> &'static str {
    match item.shape() {
        Shape::String(form) => {
            let string = item.string().unwrap_or_default();
            match form {
                StringForm::Automatic if parse_integer(string).is_some() => "int",
                StringForm::Automatic | StringForm::Text if string.len() <= EMBEDDED_BYTES_MAX => {
                    "embstr"
                }
                _ => "raw",
            }
        }
        Shape::Collection(ValueType::Stream, _) => "stream",
        Shape::Collection(_, Form::Pack) => "listpack",
        Shape::Collection(_, Form::Integers) => "intset",
        Shape::Collection(ValueType::List, Form::Tree) => "quicklist",
        Shape::Collection(ValueType::SortedSet, Form::Tree) => "skiplist",
        Shape::Collection(_, Form::Tree) => "hashtable",
    }
}

fn freq(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let Some(item) = view.peek(&call.key(2)) else {
        reply.null();
        return Ok(());
    };
    match view.access_clock() {
        AccessClock::Frequency => reply.integer(i64::from(item.frequency(view.now_ms()))),
        AccessClock::Recency => {
            return Err(Refusal::text(
                "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.",
            ));
        }
    }
    Ok(())
}

fn help(_call: &Call<'_>, _view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    const LINES: [&str; 11] = [
        "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "ENCODING <key>",
        "    How the value is kept: int, embstr or raw for a string.",
        "FREQ <key>",
        "    Logarithmic count of accesses, under an LFU policy.",
        "IDLETIME <key>",
        "    Seconds since the last access, under any other policy.",
        "REFCOUNT <key>",
        "    References to the value: always 1.",
        "HELP",
        "    Prints this help.",
    ];
    reply.array(LINES.len());
    for line in LINES {
        reply.simple(line);
    }
    Ok(())
}

fn idletime(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let Some(item) = view.peek(&call.key(2)) else {
        reply.null();
        return Ok(());
    };
    match view.access_clock() {
        AccessClock::Recency => reply.integer(item.idle_seconds(view.now_ms()) as i64),
        AccessClock::Frequency => {
            return Err(Refusal::text(
                "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.",
            ));
        }
    }
    Ok(())
}

fn refcount(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    match view.peek(&call.key(2)) {
        Some(_) => reply.integer(1),
        None => reply.null(),
    }
    Ok(())
}

/// SAMPLES is accepted and changes nothing: the size of a string is known, not sampled.
fn memory_usage(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let mut i = 3;
    while i < call.count() {
        if !call.arguments.is(i, "samples") || i + 1 == call.count() || call.integer(i + 1)? < 0 {
            return Err(Refusal::Syntax);
        }
        i += 2;
    }
    match view.peek(&call.key(2)) {
        Some(item) => reply.integer(item.size() as i64),
        None => reply.null(),
    }
    Ok(())
}
