//! XINFO: streams, groups and consumers from inside.

use super::help::help;
use super::refusal::{Outcome, Refusal};
use super::stream_group::{no_group, unknown_options};
use super::stream_id::reply_entries;
use super::{Arity, Call, Command, Group, Keys, container, plain, read};
use crate::resp::listing::{reply_entry, reply_id};
use crate::resp::reply::Reply;
use ringraft_shards::keyspace::View;
use ringraft_shards::value::stream::{self, Entry, Stream, StreamId};

/// The rows of this family.
pub const COMMANDS: &[Command] =
    &[container("xinfo", XINFO).about(Group::Stream, "5.0.0", "Streams, groups and consumers.")];

const XINFO: &[Command] = &[
    read("stream", Arity::AtLeast(3), Keys::SECOND, stream).of("xinfo").about(
        Group::Stream,
        "5.0.0",
        "Tells about a stream.",
    ),
    read("groups", Arity::Exactly(3), Keys::SECOND, groups).of("xinfo").about(
        Group::Stream,
        "5.0.0",
        "Tells about the groups of a stream.",
    ),
    read("consumers", Arity::Exactly(4), Keys::SECOND, consumers).of("xinfo").about(
        Group::Stream,
        "5.0.0",
        "Tells about the consumers of a group.",
    ),
    plain("help", Arity::Exactly(2), help).of("xinfo").about(
        Group::Stream,
        "5.0.0",
        "Lists the subcommands.",
    ),
];

/// What a FULL look shows of entries when nobody says how many.
const SHOWN_DEFAULT: usize = 10;

fn existing<'v>(call: &Call<'_>, view: &View<'v>) -> Result<Stream<'v>, Refusal> {
    call.stream(2, view)?.ok_or(Refusal::NoSuchKey)
}

/// XINFO STREAM key [FULL [COUNT count]].
fn stream(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let stream = existing(call, view)?;
    let shown = shown(call)?;
    reply.map(if shown.is_some() { 9 } else { 10 });
    let mut number = |name: &str, number: u64| {
        reply.bulk(name.as_bytes());
        reply.integer(number as i64);
    };
    number("length", stream.count());
    number("radix-tree-keys", stream.block_count());
    number("radix-tree-nodes", stream.block_count() + 1);
    let mut id = |name: &str, id: StreamId| {
        reply.bulk(name.as_bytes());
        reply_id(id, reply);
    };
    id("last-generated-id", stream.last_id());
    id("max-deleted-entry-id", stream.max_deleted_id());
    reply.bulk(b"entries-added");
    reply.integer(stream.added() as i64);
    reply.bulk(b"recorded-first-entry-id");
    reply_id(stream.first().map_or(StreamId::MIN, |entry| entry.id), reply);
    let Some(shown) = shown else {
        reply.bulk(b"groups");
        reply.integer(stream.group_count() as i64);
        entry_or_null("first-entry", stream.first(), reply);
        entry_or_null("last-entry", stream.last(), reply);
        return Ok(());
    };
    reply.bulk(b"entries");
    reply_entries(stream.entries_from(StreamId::MIN).take(shown), reply);
    reply.bulk(b"groups");
    reply.array(stream.group_count());
    for (name, group) in stream.groups() {
        whole_group(stream, name, group, shown, reply);
    }
    Ok(())
}

/// How much a FULL look shows of each kind; `None` for a look that is not.
fn shown(call: &Call<'_>) -> Result<Option<usize>, Refusal> {
    match call.count() {
        3 => Ok(None),
        4 if call.arguments.is(3, "full") => Ok(Some(SHOWN_DEFAULT)),
        6 if call.arguments.is(3, "full") && call.arguments.is(4, "count") => {
            Ok(Some(match call.integer(5)? {
                ..0 => SHOWN_DEFAULT,
                0 => usize::MAX,
                count => count as usize,
            }))
        }
        _ => Err(unknown_options(call)),
    }
}

fn entry_or_null(name: &str, entry: Option<Entry<'_>>, reply: &mut Reply<'_>) {
    reply.bulk(name.as_bytes());
    match entry {
        Some(entry) => reply_entry(&entry, reply),
        None => reply.null(),
    }
}

fn integer_or_null(name: &str, number: Option<i64>, reply: &mut Reply<'_>) {
    reply.bulk(name.as_bytes());
    match number {
        Some(number) => reply.integer(number),
        None => reply.null(),
    }
}

fn whole_group(
    stream: Stream<'_>,
    name: &[u8],
    group: &stream::Group,
    shown: usize,
    reply: &mut Reply<'_>,
) {
    reply.map(7);
    reply.bulk(b"name");
    reply.bulk(name);
    reply.bulk(b"last-delivered-id");
    reply_id(group.last_id(), reply);
    integer_or_null("entries-read", group.entries_read().map(|read| read as i64), reply);
    integer_or_null("lag", stream.lag(group), reply);
    reply.bulk(b"pel-count");
    reply.integer(group.pending_count() as i64);
    reply.bulk(b"pending");
    reply.array(shown.min(group.pending_count() as usize));
    for pending in group.pending_from(StreamId::MIN).take(shown) {
        reply.array(4);
        reply_id(pending.id, reply);
        reply.bulk(pending.consumer);
        reply.integer(pending.delivered_ms);
        reply.integer(pending.count as i64);
    }
    reply.bulk(b"consumers");
    reply.array(group.consumer_count() as usize);
    for consumer in group.consumers_from(0) {
        let held = group.held_count(&consumer);
        reply.map(5);
        reply.bulk(b"name");
        reply.bulk(consumer.name);
        reply.bulk(b"seen-time");
        reply.integer(consumer.seen_ms);
        reply.bulk(b"active-time");
        reply.integer(consumer.active_ms.unwrap_or(-1));
        reply.bulk(b"pel-count");
        reply.integer(held as i64);
        reply.bulk(b"pending");
        reply.array(shown.min(held as usize));
        for pending in group.held_from(&consumer, StreamId::MIN).take(shown) {
            reply.array(3);
            reply_id(pending.id, reply);
            reply.integer(pending.delivered_ms);
            reply.integer(pending.count as i64);
        }
    }
}

/// XINFO GROUPS key.
fn groups(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let stream = existing(call, view)?;
    reply.array(stream.group_count());
    for (name, group) in stream.groups() {
        reply.map(6);
        reply.bulk(b"name");
        reply.bulk(name);
        reply.bulk(b"consumers");
        reply.integer(group.consumer_count() as i64);
        reply.bulk(b"pending");
        reply.integer(group.pending_count() as i64);
        reply.bulk(b"last-delivered-id");
        reply_id(group.last_id(), reply);
        integer_or_null("entries-read", group.entries_read().map(|read| read as i64), reply);
        integer_or_null("lag", stream.lag(group), reply);
    }
    Ok(())
}

/// XINFO CONSUMERS key group.
fn consumers(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let group = existing(call, view)?.group(call.at(3));
    let group = group.ok_or_else(|| no_group(call.at(2), call.at(3)))?;
    let now_ms = view.now_ms();
    reply.array(group.consumer_count() as usize);
    for consumer in group.consumers_from(0) {
        reply.map(4);
        reply.bulk(b"name");
        reply.bulk(consumer.name);
        reply.bulk(b"pending");
        reply.integer(group.held_count(&consumer) as i64);
        reply.bulk(b"idle");
        reply.integer(now_ms.saturating_sub(consumer.seen_ms).max(0));
        reply.bulk(b"inactive");
        let inactive_ms =
            consumer.active_ms.map(|active_ms| now_ms.saturating_sub(active_ms).max(0));
        reply.integer(inactive_ms.unwrap_or(-1));
    }
    Ok(())
}
