//! Groups of consumers: making them, and what is pending in them.

use super::help::help;
use super::refusal::{Outcome, Refusal};
use super::stream_id::{id_or_end, interval_end, interval_start, strict_id};
use super::{Arity, Call, Command, Group, Keys, container, plain, read, write};
use crate::numbers::parse_integer;
use crate::resp::listing::{reply_entry, reply_id};
use crate::resp::reply::Reply;
use Arity::{AtLeast, Exactly};
use ringraft_shards::keyspace::{Edit, View, What};
use ringraft_shards::value::stream::{self, Pending, Stream, StreamId};

/// The rows of this family.
pub const COMMANDS: &[Command] = &[
    container("xgroup", XGROUP).about(Group::Stream, "5.0.0", "Groups of consumers of a stream."),
    write("xack", AtLeast(4), Keys::FIRST, xack).fast().fills_nothing().about(
        Group::Stream,
        "5.0.0",
        "Takes entries from what is pending in a group.",
    ),
    write("xclaim", AtLeast(6), Keys::FIRST, xclaim).fast().fills_nothing().about(
        Group::Stream,
        "5.0.0",
        "Gives pending entries to another consumer.",
    ),
    write("xautoclaim", AtLeast(6), Keys::FIRST, xautoclaim).fast().fills_nothing().about(
        Group::Stream,
        "6.2.0",
        "Gives entries that are pending for long to another consumer.",
    ),
    read("xpending", AtLeast(3), Keys::FIRST, xpending).about(
        Group::Stream,
        "5.0.0",
        "Shows what is pending in a group.",
    ),
];

const XGROUP: &[Command] = &[
    write("create", AtLeast(5), Keys::SECOND, create).grows().fills_nothing().of("xgroup").about(
        Group::Stream,
        "5.0.0",
        "Makes a group.",
    ),
    write("setid", AtLeast(5), Keys::SECOND, set_id).of("xgroup").about(
        Group::Stream,
        "5.0.0",
        "Says which entry was the last one that a group was given.",
    ),
    write("destroy", Exactly(4), Keys::SECOND, destroy).of("xgroup").about(
        Group::Stream,
        "5.0.0",
        "Takes out a group with all that is pending in it.",
    ),
    write("createconsumer", Exactly(5), Keys::SECOND, create_consumer)
        .grows()
        .fills_nothing()
        .of("xgroup")
        .about(Group::Stream, "6.2.0", "Makes a consumer of a group."),
    write("delconsumer", Exactly(5), Keys::SECOND, delete_consumer)
        .fills_nothing()
        .of("xgroup")
        .about(Group::Stream, "5.0.0", "Takes out a consumer with all that it holds."),
    plain("help", Exactly(2), help).of("xgroup").about(
        Group::Stream,
        "5.0.0",
        "Lists the subcommands.",
    ),
];

/// A word of the client's as C prints it: up to its first NUL.
fn printed(word: &[u8]) -> &[u8] {
    word.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// What those are told who name a key or group that is not there; `behind` says more about the
/// place.
pub fn no_key_or_group(key: &[u8], group: &[u8], behind: &[u8]) -> Refusal {
    let parts: [&[u8]; 6] = [
        b"NOGROUP No such key '",
        printed(key),
        b"' or consumer group '",
        printed(group),
        b"'",
        behind,
    ];
    Refusal::Bytes(parts.concat())
}

/// What those are told who name a group that the stream does not have.
pub fn no_group(key: &[u8], group: &[u8]) -> Refusal {
    let parts: [&[u8]; 5] = [
        b"NOGROUP No such consumer group '",
        printed(group),
        b"' for key name '",
        printed(key),
        b"'",
    ];
    Refusal::Bytes(parts.concat())
}

/// Refuses options that a subcommand does not have.
pub fn unknown_options(call: &Call<'_>) -> Refusal {
    let after = format!("'. Try {} HELP.", call.command.parent.to_ascii_uppercase());
    let word = call.at(1);
    let word = &word[..word.len().min(128)];
    Refusal::repeating("ERR unknown subcommand or wrong number of arguments for '", word, &after)
}

const NO_STREAM: Refusal = Refusal::text(
    "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option to create an empty stream automatically.",
);

/// Options of XGROUP CREATE and SETID.
#[derive(Default)]
struct GroupOptions {
    makes_stream: bool,
    entries_read: Option<u64>,
}

impl GroupOptions {
    fn of(call: &Call<'_>) -> Result<GroupOptions, Refusal> {
        let (mut options, mut i) = (GroupOptions::default(), 5);
        while i < call.count() {
            if call.command.name == "create" && call.arguments.is(i, "mkstream") {
                options.makes_stream = true;
                i += 1;
            } else if call.arguments.is(i, "entriesread") && i + 1 < call.count() {
                let read = call.integer(i + 1)?;
                if read < -1 {
                    return Err(Refusal::text("ERR value for ENTRIESREAD must be positive or -1"));
                }
                options.entries_read = u64::try_from(read).ok();
                i += 2;
            } else {
                return Err(unknown_options(call));
            }
        }
        Ok(options)
    }
}

/// XGROUP CREATE key group id|$ [MKSTREAM] [ENTRIESREAD entries-read].
fn create(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let options = GroupOptions::of(call)?;
    let key = call.key(2);
    let mut stream = edit.stream_mut(&key)?;
    if !stream.stream().exists() && !options.makes_stream {
        return Err(NO_STREAM);
    }
    if call.count() > 8 {
        return Err(unknown_options(call));
    }
    let id = match call.at(4) {
        b"$" => stream.stream().last_id(),
        id => strict_id(id, 0)?,
    };
    if !stream.add_group(call.at(3), id, options.entries_read) {
        return Err(Refusal::text("BUSYGROUP Consumer Group name already exists"));
    }
    reply.ok();
    Ok(())
}

/// Refuses when there is no such stream or group.
fn needs_group(call: &Call<'_>, stream: Stream<'_>) -> Outcome {
    if !stream.exists() {
        return Err(NO_STREAM);
    }
    stream.group(call.at(3)).map_or(Err(no_group(call.at(2), call.at(3))), |_| Ok(()))
}

/// XGROUP SETID key group id|$ [ENTRIESREAD entries-read].
fn set_id(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let options = GroupOptions::of(call)?;
    let key = call.key(2);
    let mut stream = edit.stream_mut(&key)?;
    needs_group(call, stream.stream())?;
    if call.count() > 7 {
        return Err(unknown_options(call));
    }
    let id = match call.at(4) {
        b"$" => stream.stream().last_id(),
        id => id_or_end(id, 0)?,
    };
    let mut group = stream.group_mut(call.at(3)).expect("just seen");
    group.set_last_id(id, options.entries_read);
    reply.ok();
    Ok(())
}

/// XGROUP DESTROY key group.
fn destroy(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let key = call.key(2);
    let mut stream = edit.stream_mut(&key)?;
    if !stream.stream().exists() {
        return Err(NO_STREAM);
    }
    reply.integer(stream.remove_group(call.at(3)).into());
    Ok(())
}

/// XGROUP CREATECONSUMER key group consumer.
fn create_consumer(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, now_ms) = (call.key(2), edit.now_ms());
    let mut stream = edit.stream_mut(&key)?;
    needs_group(call, stream.stream())?;
    let is_there = group_of(stream.stream(), call.at(3)).consumer(call.at(4)).is_some();
    if !is_there {
        let mut group = stream.group_mut(call.at(3)).expect("just seen");
        group.add_consumer(call.at(4), now_ms, None);
    }
    reply.integer((!is_there).into());
    Ok(())
}

fn group_of<'a>(stream: Stream<'a>, name: &[u8]) -> &'a stream::Group {
    stream.group(name).expect("just seen")
}

/// XGROUP DELCONSUMER key group consumer. Returns how many entries it held.
fn delete_consumer(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let key = call.key(2);
    let mut stream = edit.stream_mut(&key)?;
    needs_group(call, stream.stream())?;
    let mut held = 0;
    if group_of(stream.stream(), call.at(3)).consumer(call.at(4)).is_some() {
        let mut group = stream.group_mut(call.at(3)).expect("just seen");
        held = group.remove_consumer(call.at(4)).expect("just seen");
    }
    reply.integer(held as i64);
    Ok(())
}

/// XACK key group id [id ...]. Returns how many entries were pending.
fn xack(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let key = call.key(1);
    let mut stream = edit.stream_mut(&key)?;
    let Some(group) = stream.stream().group(call.at(2)) else {
        reply.integer(0);
        return Ok(());
    };
    let mut ids: Vec<StreamId> =
        call.arguments.iter_from(3).map(|id| strict_id(id, 0)).collect::<Result<_, _>>()?;
    ids.retain(|id| group.pending(*id).is_some());
    let mut taken = 0;
    if !ids.is_empty() {
        let mut group = stream.group_mut(call.at(2)).expect("just seen");
        taken = ids.into_iter().filter(|id| group.take(*id)).count();
    }
    reply.integer(taken as i64);
    Ok(())
}

/// Was an entry given to somebody too short a time ago to be claimed?
fn is_too_new(now_ms: i64, delivered_ms: i64, idle_ms: i64) -> bool {
    idle_ms > 0 && now_ms.wrapping_sub(delivered_ms) < idle_ms
}

/// What XCLAIM is told.
struct Claim {
    idle_ms: i64,
    ids: Vec<StreamId>,
    delivered_ms: i64,
    retry_count: Option<u64>,
    is_forced: bool,
    only_ids: bool,
    last_id: StreamId,
}

impl Claim {
    fn of(call: &Call<'_>, now_ms: i64) -> Result<Claim, Refusal> {
        let integer = |i: usize, refusal: &'static str| {
            parse_integer(call.at(i)).ok_or(Refusal::text(refusal))
        };
        let idle_ms = integer(4, "ERR Invalid min-idle-time argument for XCLAIM")?.max(0);
        let ids = call.arguments.iter_from(5).map_while(|id| strict_id(id, 0).ok());
        let ids: Vec<StreamId> = ids.collect();
        let mut i = 5 + ids.len();
        let mut claim = Claim {
            idle_ms,
            ids,
            delivered_ms: -1,
            retry_count: None,
            is_forced: false,
            only_ids: false,
            last_id: StreamId::MIN,
        };
        while i < call.count() {
            let has_value = i + 1 < call.count();
            i += 1;
            if call.arguments.is(i - 1, "force") {
                claim.is_forced = true;
                continue;
            } else if call.arguments.is(i - 1, "justid") {
                claim.only_ids = true;
                continue;
            } else if call.arguments.is(i - 1, "idle") && has_value {
                let idle = integer(i, "ERR Invalid IDLE option argument for XCLAIM")?;
                claim.delivered_ms = now_ms.wrapping_sub(idle);
            } else if call.arguments.is(i - 1, "time") && has_value {
                claim.delivered_ms = integer(i, "ERR Invalid TIME option argument for XCLAIM")?;
            } else if call.arguments.is(i - 1, "retrycount") && has_value {
                let count = integer(i, "ERR Invalid RETRYCOUNT option argument for XCLAIM")?;
                claim.retry_count = u64::try_from(count).ok();
            } else if call.arguments.is(i - 1, "lastid") && has_value {
                claim.last_id = strict_id(call.at(i), 0)?;
            } else {
                let option = call.at(i - 1);
                return Err(Refusal::repeating("ERR Unrecognized XCLAIM option '", option, "'"));
            }
            i += 1;
        }
        if claim.delivered_ms < 0 || claim.delivered_ms > now_ms {
            claim.delivered_ms = now_ms;
        }
        Ok(claim)
    }
}

/// XCLAIM key group consumer min-idle-time id [id ...] [IDLE ms] [TIME ms] [RETRYCOUNT count]
/// [FORCE] [JUSTID] [LASTID id].
fn xclaim(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, now_ms) = (call.key(1), edit.now_ms());
    let mut stream = edit.stream_mut(&key)?;
    let (name, consumer) = (call.at(2), call.at(3));
    let refusal = || no_key_or_group(call.at(1), name, b"");
    let group = stream.stream().group(name).ok_or_else(refusal)?;
    let (last_id, entries_read) = (group.last_id(), group.entries_read());
    let claim = Claim::of(call, now_ms)?;
    let mut group = stream.group_mut(name).expect("just seen");
    group.set_last_id(last_id.max(claim.last_id), entries_read);
    let is_new = group.add_consumer(consumer, now_ms, None);
    group.touch_consumer(consumer, now_ms, None);
    drop(group);
    if is_new {
        drop(stream);
        edit.note(&key, What::Consumer);
        stream = edit.stream_mut(&key)?;
    }
    let (mut found, mut count) = (Vec::new(), 0);
    for &id in &claim.ids {
        let read = stream.stream();
        let before = group_of(read, name).pending(id);
        let before = before.map(|pending| (pending.delivered_ms, pending.count));
        let Some(entry) = read.get(id) else {
            if before.is_some() {
                stream.group_mut(name).expect("just seen").take(id);
            }
            continue;
        };
        let times = match before {
            Some((delivered_ms, _)) if is_too_new(now_ms, delivered_ms, claim.idle_ms) => continue,
            Some((_, times)) => times,
            None if claim.is_forced => 1,
            None => continue,
        };
        let mut inner = Reply::new(&mut found, reply.protocol());
        match claim.only_ids {
            true => reply_id(id, &mut inner),
            false => reply_entry(&entry, &mut inner),
        }
        count += 1;
        let once_more = times.saturating_add(u64::from(!claim.only_ids));
        let times = claim.retry_count.unwrap_or(once_more);
        let mut group = stream.group_mut(name).expect("just seen");
        group.give(Pending { id, consumer, delivered_ms: claim.delivered_ms, count: times });
        group.touch_consumer(consumer, now_ms, Some(now_ms));
    }
    reply.array(count);
    reply.raw(&found);
    Ok(())
}

/// Entries that XAUTOCLAIM looks at for each one that it may claim.
const LOOKED_AT_PER_CLAIM: u64 = 10;
/// What COUNT of XAUTOCLAIM may be, as in Redis.
const CLAIM_COUNT_MAX: i64 = i64::MAX / 16;

/// XAUTOCLAIM key group consumer min-idle-time start [COUNT count] [JUSTID].
fn xautoclaim(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, now_ms) = (call.key(1), edit.now_ms());
    let (name, consumer) = (call.at(2), call.at(3));
    let idle_ms = parse_integer(call.at(4))
        .ok_or(Refusal::text("ERR Invalid min-idle-time argument for XAUTOCLAIM"))?;
    let start = interval_start(call.at(5))?;
    let (mut count, mut only_ids, mut i) = (100, false, 6);
    while i < call.count() {
        if call.arguments.is(i, "count") && i + 1 < call.count() {
            i += 1;
            let wanted = parse_integer(call.at(i)).filter(|n| (1..=CLAIM_COUNT_MAX).contains(n));
            count = wanted.ok_or(Refusal::text("ERR COUNT must be > 0"))? as u64;
        } else if call.arguments.is(i, "justid") {
            only_ids = true;
        } else {
            return Err(Refusal::Syntax);
        }
        i += 1;
    }
    let mut stream = edit.stream_mut(&key)?;
    let read = stream.stream();
    let group = read.group(name).ok_or_else(|| no_key_or_group(call.at(1), name, b""))?;
    let (mut claimed, mut deleted, mut found) = (Vec::new(), Vec::new(), Vec::new());
    let mut inner = Reply::new(&mut found, reply.protocol());
    let mut looked_at = 0;
    let next = group.pending_from(start).find(|pending| {
        let gone = claimed.len() + deleted.len();
        if gone as u64 == count || looked_at == count.saturating_mul(LOOKED_AT_PER_CLAIM) {
            return true;
        }
        looked_at += 1;
        match read.get(pending.id) {
            None => deleted.push(pending.id),
            Some(_) if is_too_new(now_ms, pending.delivered_ms, idle_ms) => {}
            Some(entry) => {
                match only_ids {
                    true => reply_id(entry.id, &mut inner),
                    false => reply_entry(&entry, &mut inner),
                }
                claimed.push((entry.id, pending.count.saturating_add(u64::from(!only_ids))));
            }
        }
        false
    });
    let next = next.map_or(StreamId::MIN, |next| next.id);
    reply.array(3);
    reply_id(next, reply);
    reply.array(claimed.len());
    reply.raw(&found);
    reply.array(deleted.len());
    deleted.iter().for_each(|id| reply_id(*id, reply));
    let mut group = stream.group_mut(name).expect("just seen");
    let is_new = group.add_consumer(consumer, now_ms, None);
    group.touch_consumer(consumer, now_ms, (!claimed.is_empty()).then_some(now_ms));
    for id in deleted {
        group.take(id);
    }
    for (id, count) in claimed {
        group.give(Pending { id, consumer, delivered_ms: now_ms, count });
    }
    drop(group);
    drop(stream);
    if is_new {
        edit.note(&key, What::Consumer);
    }
    Ok(())
}

/// An interval of what is pending.
struct PendingRange<'a> {
    start: StreamId,
    end: StreamId,
    count: u64,
    idle_ms: i64,
    consumer: Option<&'a [u8]>,
}

impl<'a> PendingRange<'a> {
    fn of(call: &Call<'a>) -> Result<PendingRange<'a>, Refusal> {
        if !(6..=9).contains(&call.count()) {
            return Err(Refusal::Syntax);
        }
        let (mut at, mut idle_ms) = (3, 0);
        if call.arguments.is(3, "idle") {
            idle_ms = call.integer(4)?;
            if call.count() < 8 {
                return Err(Refusal::Syntax);
            }
            at = 5;
        }
        let count = call.integer(at + 2)?.max(0) as u64;
        let start = interval_start(call.at(at))?;
        let end = interval_end(call.at(at + 1))?;
        let consumer = call.arguments.get(at + 3);
        Ok(PendingRange { start, end, count, idle_ms, consumer })
    }
}

/// XPENDING key group [[IDLE min-idle-time] start end count [consumer]].
fn xpending(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let range = if call.count() == 3 { None } else { Some(PendingRange::of(call)?) };
    let group = call.stream(1, view)?.and_then(|stream| stream.group(call.at(2)));
    let group = group.ok_or_else(|| no_key_or_group(call.at(1), call.at(2), b""))?;
    let Some(range) = range else {
        summarize(group, reply);
        return Ok(());
    };
    let now_ms = view.now_ms();
    let (mut found, mut count) = (Vec::new(), 0);
    let mut inner = Reply::new(&mut found, reply.protocol());
    let mut show = |pending: Pending<'_>| {
        let idle_ms = now_ms.wrapping_sub(pending.delivered_ms);
        if range.idle_ms != 0 && idle_ms < range.idle_ms {
            return true;
        }
        inner.array(4);
        reply_id(pending.id, &mut inner);
        inner.bulk(pending.consumer);
        inner.integer(idle_ms.max(0));
        inner.integer(pending.count as i64);
        count += 1;
        count < range.count
    };
    let is_within = |pending: &Pending<'_>| range.count > 0 && pending.id <= range.end;
    match range.consumer.map(|name| group.consumer(name)) {
        None => {
            let _ = group.pending_from(range.start).take_while(is_within).all(&mut show);
        }
        Some(Some(consumer)) => {
            let held = group.held_from(&consumer, range.start);
            let _ = held.take_while(is_within).all(&mut show);
        }
        Some(None) => {}
    }
    reply.array(count as usize);
    reply.raw(&found);
    Ok(())
}

fn summarize(group: &stream::Group, reply: &mut Reply<'_>) {
    reply.array(4);
    reply.integer(group.pending_count() as i64);
    let Some((first, last)) = group.pending_ends() else {
        reply.null();
        reply.null();
        reply.null_array();
        return;
    };
    reply_id(first, reply);
    reply_id(last, reply);
    let (mut found, mut count) = (Vec::new(), 0);
    let mut inner = Reply::new(&mut found, reply.protocol());
    for consumer in group.consumers_from(0) {
        let held = group.held_count(&consumer);
        if held > 0 {
            inner.array(2);
            inner.bulk(consumer.name);
            inner.bulk_integer(held as i64);
            count += 1;
        }
    }
    reply.array(count);
    reply.raw(&found);
}
