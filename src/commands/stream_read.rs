//! XREAD and XREADGROUP: what is new in streams, and waiting for it.

use super::refusal::{Outcome, Refusal};
use super::stream_group::no_key_or_group;
use super::stream_id::{reply_range, strict_id};
use super::{Arity, Call, Command, Group, Keys, Search, TimeoutAt, block, read};
use crate::numbers::parse_integer;
use crate::resp::listing::{Direction, id_text, reply_entry, reply_id};
use crate::resp::reply::{Protocol, Reply};
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use ringraft_shards::ids::DatabaseIndex;
use ringraft_shards::keyspace::{Edit, Key, Value, View, What};
use ringraft_shards::value::stream::{Pending, Stream, StreamId};
use ringraft_shards::waiting::{WaitKey, WaitKind};
use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

/// The rows of this family.
pub const COMMANDS: &[Command] = &[
    read("xread", Arity::AtLeast(4), Keys::NONE.and(Search::Streams), xread)
        .waits(WaitKind::Entries, TimeoutAt::Block)
        .about(
            Group::Stream,
            "5.0.0",
            "Returns the entries of streams behind ids, waiting for some if asked to.",
        ),
    block(
        "xreadgroup",
        Arity::AtLeast(7),
        Keys::NONE.and(Search::Streams),
        WaitKind::Group,
        TimeoutAt::Block,
        xreadgroup,
    )
    .fills_nothing()
    .about(
        Group::Stream,
        "5.0.0",
        "Gives a consumer of a group entries of streams, waiting for some if asked to.",
    ),
    internal_row(),
];

/// XREAD as a client of several shards tries it: when it finds nothing, the ids that it waits
/// behind follow on its null.
pub const XREAD_TRY: &str = "xread-try";

const fn internal_row() -> Command {
    read(XREAD_TRY, Arity::AtLeast(4), Keys::NONE.and(Search::Streams), xread_try)
        .waits(WaitKind::Entries, TimeoutAt::Block)
        .internal()
        .about(Group::Stream, "7.2.0", "XREAD that waits for streams of several shards.")
}

/// What both are told.
pub struct ReadOptions<'a> {
    /// How long to wait at most, in milliseconds, 0 for ever; `None` without waiting.
    pub block_ms: Option<u64>,
    /// Where that stands; 0 if it does not.
    block_at: usize,
    count: usize,
    /// Group and consumer.
    group: Option<(&'a [u8], &'a [u8])>,
    no_ack: bool,
    keys: Range<usize>,
}

impl<'a> ReadOptions<'a> {
    /// Reads the arguments of `command`.
    /// Errors: they make no sense.
    pub fn of(command: &Command, arguments: Arguments<'a>) -> Result<ReadOptions<'a>, Refusal> {
        let mut options = ReadOptions {
            block_ms: None,
            block_at: 0,
            count: 0,
            group: None,
            no_ack: false,
            keys: 0..0,
        };
        let (takes_group, mut i) = (command.run.writes(), 1);
        while i < arguments.count() && options.keys.is_empty() {
            let more = arguments.count() - 1 - i;
            if arguments.is(i, "block") && more > 0 {
                options.block_ms = Some(timeout_ms(arguments.at(i + 1))?);
                options.block_at = i + 1;
                i += 1;
            } else if arguments.is(i, "count") && more > 0 {
                let count = parse_integer(arguments.at(i + 1)).ok_or(Refusal::NotAnInteger)?;
                options.count = usize::try_from(count).unwrap_or(0);
                i += 1;
            } else if arguments.is(i, "streams") && more > 0 {
                if !more.is_multiple_of(2) {
                    return Err(unbalanced(command));
                }
                options.keys = i + 1..i + 1 + more / 2;
            } else if arguments.is(i, "group") && more >= 2 {
                if !takes_group {
                    return Err(Refusal::text(
                        "ERR The GROUP option is only supported by XREADGROUP. You called XREAD instead.",
                    ));
                }
                options.group = Some((arguments.at(i + 1), arguments.at(i + 2)));
                i += 2;
            } else if arguments.is(i, "noack") {
                if !takes_group {
                    return Err(Refusal::text(
                        "ERR The NOACK option is only supported by XREADGROUP. You called XREAD instead.",
                    ));
                }
                options.no_ack = true;
            } else {
                return Err(Refusal::Syntax);
            }
            i += 1;
        }
        if options.keys.is_empty() {
            return Err(Refusal::Syntax);
        }
        if takes_group && options.group.is_none() {
            return Err(Refusal::text("ERR Missing GROUP option for XREADGROUP"));
        }
        Ok(options)
    }

    /// Positions of the keys, each with that of its id.
    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + Clone + use<> {
        let count = self.keys.len();
        self.keys.clone().map(move |i| (i, i + count))
    }

    /// Errors: the end of the wait is no time any more.
    fn check_time(&self, now_ms: i64) -> Outcome {
        let latest = i64::MAX.saturating_sub(now_ms) as u64;
        match self.block_ms {
            Some(ms) if ms > latest => Err(Refusal::text("ERR timeout is out of range")),
            _ => Ok(()),
        }
    }

    fn limit(&self) -> usize {
        if self.count == 0 { usize::MAX } else { self.count }
    }
}

fn unbalanced(command: &Command) -> Refusal {
    let sign = if command.run.writes() { '>' } else { '$' };
    Refusal::Text(
        format!(
            "ERR Unbalanced '{}' list of streams: for each stream key an ID or '{sign}' must be specified.",
            command.name
        )
        .into(),
    )
}

fn timeout_ms(text: &[u8]) -> Result<u64, Refusal> {
    let ms = parse_integer(text)
        .ok_or(Refusal::text("ERR timeout is not an integer or out of range"))?;
    u64::try_from(ms).map_err(|_| Refusal::text("ERR timeout is negative"))
}

/// How long a request may wait; `None` is for ever.
/// Errors: it does not wait, or its arguments make no sense.
pub fn timeout(command: &Command, arguments: Arguments<'_>) -> Result<Option<Duration>, Refusal> {
    let ms = ReadOptions::of(command, arguments)?.block_ms.ok_or(Refusal::Syntax)?;
    Ok((ms > 0).then(|| Duration::from_millis(ms)))
}

/// Where the timeout stands of a request that has one.
pub fn timeout_at(command: &Command, arguments: Arguments<'_>) -> usize {
    ReadOptions::of(command, arguments).map_or(0, |options| options.block_at)
}

/// What a request waits for: of a group what its consumers are to be given, otherwise entries
/// behind an id that is known.
pub fn awaited(
    command: &Command,
    database: DatabaseIndex,
    arguments: Arguments<'_>,
) -> Vec<WaitKey> {
    let Ok(options) = ReadOptions::of(command, arguments) else { return Vec::new() };
    let key = |(key, id): (usize, usize)| {
        let (kind, within): (_, Box<[u8]>) = match options.group {
            Some((group, _)) if arguments.at(id) == b">" => (WaitKind::Group, group.into()),
            Some(_) => return None,
            None => {
                let id = strict_id(arguments.at(id), 0).ok()?;
                (
                    WaitKind::Entries,
                    [id.ms.to_be_bytes(), id.sequence.to_be_bytes()].concat().into(),
                )
            }
        };
        Some(WaitKey { within, ..WaitKey::new(database, kind, arguments.at(key)) })
    };
    options.pairs().filter_map(key).collect()
}

/// What a read needs of each stream: entries behind an id, and how many. `None` for what is no such
/// read, or none that makes sense.
pub fn tails<'a>(
    command: &Command,
    arguments: Arguments<'a>,
) -> Option<HashMap<&'a [u8], (StreamId, u64)>> {
    command.wait.filter(|wait| wait.kind == WaitKind::Entries)?;
    let options = ReadOptions::of(command, arguments).ok()?;
    let mut tails = HashMap::new();
    for (key, id) in options.pairs() {
        // Behind `$` there is nothing, and what is no id is refused.
        let id = strict_id(arguments.at(id), 0).unwrap_or(StreamId::MAX);
        let wanted = (id, options.limit() as u64);
        tails
            .entry(arguments.at(key))
            .and_modify(|(least, limit)| (*least, *limit) = (id.min(*least), u64::MAX))
            .or_insert(wanted);
    }
    Some(tails)
}

/// Is there at a key what somebody waits for, or an error to be told?
pub fn has(value: Option<Value<'_>>, key: &WaitKey) -> bool {
    match (key.kind, value) {
        (WaitKind::Group, Some(Value::Stream(stream))) => {
            stream.group(&key.within).is_none_or(|group| has_behind(stream, group.last_id()))
        }
        (WaitKind::Group, _) => true,
        (WaitKind::Entries, Some(Value::Stream(stream))) => {
            let number = |at: usize| {
                let bytes = key.within.get(at..at + 8).and_then(|bytes| bytes.first_chunk());
                bytes.map_or(0, |bytes| u64::from_be_bytes(*bytes))
            };
            has_behind(stream, StreamId { ms: number(0), sequence: number(8) })
        }
        _ => false,
    }
}

/// Has a stream entries behind an id?
fn has_behind(stream: Stream<'_>, id: StreamId) -> bool {
    stream.last_id() > id && stream.last().is_some_and(|last| last.id > id)
}

/// The request with these ids in the place of its own.
pub fn with_ids(
    command: &Command,
    arguments: Arguments<'_>,
    ids: impl Iterator<Item = StreamId>,
) -> OwnedArguments {
    let keys = ReadOptions::of(command, arguments).map_or(0..0, |options| options.keys);
    let mut owned: OwnedArguments = (0..keys.end).map(|i| arguments.at(i)).collect();
    ids.for_each(|id| owned.push(&id_text(id)));
    owned
}

/// The ids that a read waits behind: `$` is the last one of its stream.
/// Errors: those of the request.
pub fn ids_of(call: &Call<'_>, view: &View<'_>) -> Result<Vec<StreamId>, Refusal> {
    let options = ReadOptions::of(call.command, call.arguments)?;
    let id = |(key, id): (usize, usize)| {
        let stream = call.stream(key, view)?;
        match call.at(id) {
            b"$" => Ok(stream.map_or(StreamId::MIN, |stream| stream.last_id())),
            b">" => Err(Refusal::text(
                "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.",
            )),
            id => strict_id(id, 0),
        }
    };
    options.pairs().map(id).collect()
}

/// The streams of a reply, each with its key.
#[derive(Default)]
struct Found {
    bytes: Vec<u8>,
    count: usize,
}

impl Found {
    /// Begins a stream: `write` writes its entries.
    fn stream(&mut self, key: &[u8], protocol: Protocol, write: impl FnOnce(&mut Reply<'_>)) {
        let mut reply = Reply::new(&mut self.bytes, protocol);
        if protocol == Protocol::Resp2 {
            reply.array(2);
        }
        reply.bulk(key);
        write(&mut reply);
        self.count += 1;
    }

    fn finish(self, reply: &mut Reply<'_>) {
        match (self.count, reply.protocol()) {
            (0, _) => reply.null_array(),
            (count, Protocol::Resp2) => reply.array(count),
            (count, Protocol::Resp3) => reply.map(count),
        }
        reply.raw(&self.bytes);
    }
}

/// XREAD [COUNT count] [BLOCK milliseconds] STREAMS key [key ...] id [id ...].
fn xread(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let ids = ids_of(call, view)?;
    read_behind(call, view, &ids, reply).map(|_| ())
}

fn xread_try(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let ids = ids_of(call, view)?;
    if !read_behind(call, view, &ids, reply)? {
        for id in ids {
            reply.raw(&[id.ms.to_be_bytes(), id.sequence.to_be_bytes()].concat());
        }
    }
    Ok(())
}

/// The ids that follow on the null of [`XREAD_TRY`].
pub fn tried_ids(reply: &[u8]) -> impl Iterator<Item = StreamId> {
    let line = memchr::memchr(b'\n', reply).map_or(reply.len(), |end| end + 1);
    let (ids, _) = reply[line..].as_chunks::<16>();
    ids.iter().map(|id| {
        let number = u128::from_be_bytes(*id);
        StreamId { ms: (number >> 64) as u64, sequence: number as u64 }
    })
}

/// Was there something?
fn read_behind(
    call: &Call<'_>,
    view: &View<'_>,
    ids: &[StreamId],
    reply: &mut Reply<'_>,
) -> Result<bool, Refusal> {
    let options = ReadOptions::of(call.command, call.arguments)?;
    options.check_time(view.now_ms())?;
    if let ([id], Some((i, _))) = (ids, options.pairs().next()) {
        return read_one(call, view, (i, *id), options.limit(), reply);
    }
    let mut found = Found::default();
    for ((i, _), &id) in options.pairs().zip(ids) {
        let Some(stream) = call.stream(i, view)?.filter(|stream| has_behind(*stream, id)) else {
            continue;
        };
        let entries = stream.entries_from(id.next().unwrap_or(StreamId::MAX));
        found.stream(call.at(i), reply.protocol(), |reply| {
            super::stream_id::reply_entries(entries.take(options.limit()), reply);
        });
    }
    let any = found.count > 0;
    found.finish(reply);
    Ok(any)
}

/// The same of one stream, whose entries may be many.
fn read_one(
    call: &Call<'_>,
    view: &View<'_>,
    (at, id): (usize, StreamId),
    limit: usize,
    reply: &mut Reply<'_>,
) -> Result<bool, Refusal> {
    let Some(stream) = call.stream(at, view)?.filter(|stream| has_behind(*stream, id)) else {
        reply.null_array();
        return Ok(false);
    };
    match reply.protocol() {
        Protocol::Resp2 => {
            reply.array(1);
            reply.array(2);
        }
        Protocol::Resp3 => reply.map(1),
    }
    reply.bulk(call.at(at));
    let range = (id.next().unwrap_or(StreamId::MAX), StreamId::MAX);
    reply_range(stream, Direction::Up, range, limit, reply);
    Ok(true)
}

/// From where on a consumer reads.
#[derive(Clone, Copy)]
enum From {
    /// `>`: what nobody was given yet.
    New,
    /// What it was given behind an id and has not acknowledged.
    Own(StreamId),
}

/// XREADGROUP GROUP group consumer [COUNT count] [BLOCK milliseconds] [NOACK] STREAMS key [key ...]
/// id [id ...].
fn xreadgroup(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let options = ReadOptions::of(call.command, call.arguments)?;
    options.check_time(edit.now_ms())?;
    let (group, consumer) = options.group.expect("it was just looked for");
    let mut from = Vec::with_capacity(options.keys.len());
    for (i, id) in options.pairs() {
        let stream = call.stream(i, &edit.view())?;
        stream.and_then(|stream| stream.group(group)).ok_or_else(|| {
            no_key_or_group(call.at(i), group, b" in XREADGROUP with GROUP option")
        })?;
        from.push(match call.at(id) {
            b"$" => {
                return Err(Refusal::text(
                    "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer by specifying a proper ID, or use the > ID to get new messages. The $ ID would just return an empty result set.",
                ));
            }
            b">" => From::New,
            id => match strict_id(id, 0)? {
                StreamId::MAX => From::New,
                id => From::Own(id),
            },
        });
    }
    let mut found = Found::default();
    for ((i, _), from) in options.pairs().zip(from) {
        let key = call.key(i);
        read_as(&key, edit, (group, consumer), from, &options, reply.protocol(), &mut found)?;
    }
    found.finish(reply);
    Ok(())
}

fn read_as(
    key: &Key<'_>,
    edit: &mut Edit<'_>,
    (name, consumer): (&[u8], &[u8]),
    from: From,
    options: &ReadOptions<'_>,
    protocol: Protocol,
    found: &mut Found,
) -> Outcome {
    let now_ms = edit.now_ms();
    let mut stream = edit.stream_mut(key)?;
    let mut group = stream.group_mut(name).expect("just seen");
    let is_new = group.add_consumer(consumer, now_ms, None);
    group.touch_consumer(consumer, now_ms, None);
    let (last_id, mut entries_read) = (group.last_id(), group.entries_read());
    drop(group);
    if is_new {
        drop(stream);
        edit.note(key, What::Consumer);
        stream = edit.stream_mut(key)?;
    }
    let read = stream.stream();
    let mut given: Vec<(StreamId, u64)> = Vec::new();
    match from {
        From::New if !has_behind(read, last_id) => return Ok(()),
        From::New => {
            let entries = read.entries_from(last_id.next().unwrap_or(StreamId::MAX));
            let (mut bytes, mut count) = (Vec::new(), 0);
            let mut inner = Reply::new(&mut bytes, protocol);
            for entry in entries.take(options.limit()) {
                reply_entry(&entry, &mut inner);
                count += 1;
                given.push((entry.id, 1));
                entries_read = match entries_read {
                    Some(read_before) if !read.has_gaps_from(entry.id) => {
                        Some(read_before.saturating_add(1))
                    }
                    _ => read.added_up_to(entry.id),
                };
            }
            found.stream(key.bytes(), protocol, |reply| {
                reply.array(count);
                reply.raw(&bytes);
            });
        }
        From::Own(id) => {
            let group = read.group(name).expect("just seen");
            let own = group.consumer(consumer).expect("just made");
            let held = group.held_from(&own, id.next().unwrap_or(StreamId::MAX));
            let (mut bytes, mut count) = (Vec::new(), 0);
            let mut inner = Reply::new(&mut bytes, protocol);
            for pending in held.take(options.limit()) {
                count += 1;
                match read.get(pending.id) {
                    Some(entry) => {
                        reply_entry(&entry, &mut inner);
                        given.push((pending.id, pending.count.saturating_add(1)));
                    }
                    None => {
                        inner.array(2);
                        reply_id(pending.id, &mut inner);
                        inner.null_array();
                    }
                }
            }
            found.stream(key.bytes(), protocol, |reply| {
                reply.array(count);
                reply.raw(&bytes);
            });
        }
    }
    let mut group = stream.group_mut(name).expect("just seen");
    if let (From::New, Some((last, _))) = (from, given.last()) {
        group.set_last_id(*last, entries_read);
    }
    if matches!(from, From::New) && options.no_ack {
        return Ok(());
    }
    if matches!(from, From::New) {
        group.touch_consumer(consumer, now_ms, Some(now_ms));
    }
    for (id, count) in given {
        group.give(Pending { id, consumer, delivered_ms: now_ms, count });
    }
    Ok(())
}
