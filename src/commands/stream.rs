//! Streams: entries, and what is left of them.

use super::refusal::{Outcome, Refusal};
use super::stream_id::{GivenId, given_id, interval_end, interval_start, reply_range, strict_id};
use super::{Arity, Call, Command, Group, Keys, read, write};
use crate::limits::STREAM_ENTRY_BYTES_MAX;
use crate::resp::listing::{Direction, id_text};
use crate::resp::reply::Reply;
use Arity::{AtLeast, Exactly};
use ringraft_shards::keyspace::{Edit, View, What};
use ringraft_shards::value::stream::{StreamId, Trim, TrimTo};

/// The rows of this family.
pub const COMMANDS: &[Command] = &[
    write("xadd", AtLeast(5), Keys::FIRST, xadd).grows().fast().fills_one().about(
        Group::Stream,
        "5.0.0",
        "Adds an entry to a stream, making the stream when it does not exist.",
    ),
    read("xrange", AtLeast(4), Keys::FIRST, xrange).about(
        Group::Stream,
        "5.0.0",
        "Returns the entries of an interval of ids.",
    ),
    read("xrevrange", AtLeast(4), Keys::FIRST, xrevrange).about(
        Group::Stream,
        "5.0.0",
        "Returns the entries of an interval of ids backwards.",
    ),
    read("xlen", Exactly(2), Keys::FIRST, xlen).fast().about(
        Group::Stream,
        "5.0.0",
        "Counts the entries of a stream.",
    ),
    write("xdel", AtLeast(3), Keys::FIRST, xdel).fast().fills_nothing().about(
        Group::Stream,
        "5.0.0",
        "Takes entries out of a stream.",
    ),
    write("xtrim", AtLeast(4), Keys::FIRST, xtrim).fills_nothing().about(
        Group::Stream,
        "5.0.0",
        "Takes the first entries out of a stream.",
    ),
    write("xsetid", AtLeast(3), Keys::FIRST, xsetid).grows().fast().fills_nothing().about(
        Group::Stream,
        "5.0.0",
        "Says which id the last entry of a stream had.",
    ),
];

/// What XADD and XTRIM are told besides entries.
#[derive(Default)]
struct Options {
    /// What is left by trimming, and whether only whole blocks go.
    to: Option<(TrimTo, bool)>,
    limit: Option<u64>,
    no_stream: bool,
    /// Where the id stands that ended the options of XADD.
    id_at: usize,
    /// That id; `None` for `*`.
    id: Option<GivenId>,
}

impl Options {
    /// The options of XADD, up to the id.
    fn of_xadd(call: &Call<'_>) -> Result<Options, Refusal> {
        let (mut options, mut i) = (Options::default(), 2);
        while i < call.count() {
            if call.at(i) == b"*" {
                break;
            }
            if call.arguments.is(i, "nomkstream") {
                options.no_stream = true;
                i += 1;
            } else if let Some(next) = options.read(call, i)? {
                i = next;
            } else {
                options.id = Some(given_id(call.at(i), 0)?);
                break;
            }
        }
        options.id_at = i;
        options.check()?;
        Ok(options)
    }

    /// The options of XTRIM.
    fn of_xtrim(call: &Call<'_>) -> Result<Options, Refusal> {
        let (mut options, mut i) = (Options::default(), 2);
        while i < call.count() {
            i = options.read(call, i)?.ok_or(Refusal::Syntax)?;
        }
        if options.to.is_none() && options.limit.unwrap_or(0) == 0 {
            return Err(Refusal::text(
                "ERR syntax error, XTRIM must be called with a trimming strategy",
            ));
        }
        options.check()?;
        Ok(options)
    }

    /// Reads an option at argument `i`, if it is one that both have. Returns where the next one is.
    fn read(&mut self, call: &Call<'_>, mut i: usize) -> Result<Option<usize>, Refusal> {
        let more = call.count() - 1 - i;
        if call.arguments.is(i, "limit") && more > 0 {
            self.limit = Some(not_negative(call, i + 1, "ERR The LIMIT argument must be >= 0.")?);
            return Ok(Some(i + 2));
        }
        let counts = call.arguments.is(i, "maxlen");
        if more == 0 || !(counts || call.arguments.is(i, "minid")) {
            return Ok(None);
        }
        if self.to.is_some() {
            return Err(Refusal::text(
                "ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
            ));
        }
        let sign = if more >= 2 { call.at(i + 1) } else { b"" };
        i += if matches!(sign, b"~" | b"=") { 2 } else { 1 };
        let to = match counts {
            true => TrimTo::Count(not_negative(call, i, "ERR The MAXLEN argument must be >= 0.")?),
            false => TrimTo::Id(strict_id(call.at(i), 0)?),
        };
        self.to = Some((to, sign == b"~"));
        Ok(Some(i + 1))
    }

    fn check(&self) -> Outcome {
        match (self.limit, self.to) {
            (Some(1..), None) => Err(Refusal::text(
                "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy",
            )),
            (Some(_), to) if !to.is_some_and(|(_, whole_blocks)| whole_blocks) => {
                Err(Refusal::text(
                    "ERR syntax error, LIMIT cannot be used without the special ~ option",
                ))
            }
            _ => Ok(()),
        }
    }

    /// How to trim. Without LIMIT a hundred blocks' worth of entries go at most, as in Redis.
    fn trim(&self, edit: &Edit<'_>) -> Option<Trim> {
        /// Entries where blocks have no limit, and in any case.
        const ENTRIES_ANY: u64 = 10_000;
        const ENTRIES_MAX: u64 = 1_000_000;
        let (to, whole_blocks) = self.to?;
        let limit = match (self.limit, edit.limits().stream_entries) {
            (Some(limit), _) => limit,
            (None, _) if !whole_blocks => 0,
            (None, 0) => ENTRIES_ANY,
            (None, entries) => entries.saturating_mul(100).min(ENTRIES_MAX),
        };
        Some(Trim { to, whole_blocks, limit })
    }
}

fn not_negative(call: &Call<'_>, i: usize, refusal: &'static str) -> Result<u64, Refusal> {
    u64::try_from(call.integer(i)?).map_err(|_| Refusal::text(refusal))
}

/// XADD key [NOMKSTREAM] [MAXLEN|MINID [=|~] threshold [LIMIT count]] *|id field value [field value
/// ...].
fn xadd(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let options = Options::of_xadd(call)?;
    let first = options.id_at + 1;
    let words = call.count().saturating_sub(first);
    if words < 2 || !words.is_multiple_of(2) {
        return Err(Refusal::Arity(call.command.name.into()));
    }
    if options.id == Some(GivenId::Whole(StreamId::MIN)) {
        return Err(Refusal::text("ERR The ID specified in XADD must be greater than 0-0"));
    }
    let (now_ms, trim) = (edit.now_ms(), options.trim(edit));
    let key = call.key(1);
    let mut stream = edit.stream_mut(&key)?;
    if options.no_stream && !stream.stream().exists() {
        reply.null();
        return Ok(());
    }
    let id = new_id(options.id, stream.stream().last_id(), now_ms)?;
    let bytes = call.arguments.iter_from(first).map(<[u8]>::len).sum::<usize>();
    if bytes > STREAM_ENTRY_BYTES_MAX {
        return Err(Refusal::text("ERR Elements are too large to be stored"));
    }
    let pairs = (first..call.count()).step_by(2).map(|i| (call.at(i), call.at(i + 1)));
    stream.append(id, pairs);
    let gone = trim.map_or(0, |trim| stream.trim(trim));
    drop(stream);
    if gone > 0 {
        edit.note(&key, What::Trimmed);
    }
    reply.bulk(&id_text(id));
    Ok(())
}

/// The id of a new entry. `now_ms` is the time of the log's entry: the same on every replica.
fn new_id(given: Option<GivenId>, last: StreamId, now_ms: i64) -> Result<StreamId, Refusal> {
    if last == StreamId::MAX {
        return Err(Refusal::text(
            "ERR The stream has exhausted the last possible ID, unable to add more items",
        ));
    }
    let id = match given {
        None => {
            let now = StreamId { ms: now_ms.max(0) as u64, sequence: 0 };
            if now.ms > last.ms { Some(now) } else { last.next() }
        }
        Some(GivenId::Whole(id)) => Some(id),
        Some(GivenId::Milliseconds(ms)) if ms == last.ms => {
            last.next().filter(|next| next.ms == ms)
        }
        Some(GivenId::Milliseconds(ms)) => Some(StreamId { ms, sequence: 0 }),
    };
    id.filter(|id| *id > last).ok_or(Refusal::text(
        "ERR The ID specified in XADD is equal or smaller than the target stream top item",
    ))
}

/// XRANGE key start end [COUNT count].
fn xrange(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let start = interval_start(call.at(2))?;
    let end = interval_end(call.at(3))?;
    range(call, view, reply, start, end, Direction::Up)
}

/// XREVRANGE key end start [COUNT count].
fn xrevrange(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let start = interval_start(call.at(3))?;
    let end = interval_end(call.at(2))?;
    range(call, view, reply, start, end, Direction::Down)
}

fn range(
    call: &Call<'_>,
    view: &View<'_>,
    reply: &mut Reply<'_>,
    start: StreamId,
    end: StreamId,
    direction: Direction,
) -> Outcome {
    let (mut count, mut i) = (None, 4);
    while i < call.count() {
        if !call.arguments.is(i, "count") || i + 1 == call.count() {
            return Err(Refusal::Syntax);
        }
        count = Some(call.integer(i + 1)?.max(0) as usize);
        i += 2;
    }
    let Some(stream) = call.stream(1, view)? else {
        reply.array(0);
        return Ok(());
    };
    let count = match count {
        Some(0) => {
            reply.null_array();
            return Ok(());
        }
        count => count.unwrap_or(usize::MAX),
    };
    reply_range(stream, direction, (start, end), count, reply);
    Ok(())
}

/// XLEN key.
fn xlen(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply.integer(call.stream(1, view)?.map_or(0, |stream| stream.count()) as i64);
    Ok(())
}

/// XDEL key id [id ...]. Returns how many entries there were.
fn xdel(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let key = call.key(1);
    let mut stream = edit.stream_mut(&key)?;
    if !stream.stream().exists() {
        reply.integer(0);
        return Ok(());
    }
    let ids: Vec<StreamId> =
        call.arguments.iter_from(2).map(|id| strict_id(id, 0)).collect::<Result<_, _>>()?;
    let deleted = ids.into_iter().filter(|id| stream.delete(*id)).count();
    reply.integer(deleted as i64);
    Ok(())
}

/// XTRIM key MAXLEN|MINID [=|~] threshold [LIMIT count]. Returns how many entries went.
fn xtrim(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let trim = Options::of_xtrim(call)?.trim(edit).expect("it was asked to trim");
    let key = call.key(1);
    let deleted = edit.stream_mut(&key)?.trim(trim);
    reply.integer(deleted as i64);
    Ok(())
}

/// XSETID key last-id [ENTRIESADDED entries-added] [MAXDELETEDID max-deleted-id].
fn xsetid(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let last_id = strict_id(call.at(2), 0)?;
    let (mut added, mut max_deleted_id, mut i) = (None, None, 3);
    while i < call.count() {
        let has_value = i + 1 < call.count();
        if call.arguments.is(i, "entriesadded") && has_value {
            added = Some(not_negative(call, i + 1, "ERR entries_added must be positive")?);
        } else if call.arguments.is(i, "maxdeletedid") && has_value {
            let id = strict_id(call.at(i + 1), 0)?;
            if last_id < id {
                return Err(Refusal::text(
                    "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
                ));
            }
            max_deleted_id = Some(id).filter(|id| *id > StreamId::MIN);
        } else {
            return Err(Refusal::Syntax);
        }
        i += 2;
    }
    let key = call.key(1);
    let mut stream = edit.stream_mut(&key)?;
    let read = stream.stream();
    if !read.exists() {
        return Err(Refusal::NoSuchKey);
    }
    if last_id < read.max_deleted_id() {
        return Err(Refusal::text(
            "ERR The ID specified in XSETID is smaller than current max_deleted_entry_id",
        ));
    }
    if read.last().is_some_and(|last| last_id < last.id) {
        return Err(Refusal::text(
            "ERR The ID specified in XSETID is smaller than the target stream top item",
        ));
    }
    if read.count() > 0 && added.is_some_and(|added| added < read.count()) {
        return Err(Refusal::text(
            "ERR The entries_added specified in XSETID is smaller than the target stream length",
        ));
    }
    stream.set_last_id(last_id, added, max_deleted_id);
    reply.ok();
    Ok(())
}
