//! Fields of hashes that end at a time: HEXPIRE and its kin, HGETEX, HSETEX, HGETDEL.
//!
//! A field that has ended is as if it were not there for every command from that moment on; its
//! memory returns when the leader has [`EXPIRE_FIELDS`] remove it, or when somebody writes to it.
//! Setting a field anew takes its deadline away.

use super::refusal::{Outcome, Refusal};
use super::{Arity, Call, Command, Group, Keys, read, write};
use crate::limits::ENDED_FIELDS_PER_OPERATION;
use crate::numbers::parse_integer;
use crate::resp::reply::Reply;
use Arity::AtLeast;
use ringraft_shards::keyspace::{Edit, View};
use ringraft_shards::value::hash::Hash;
use std::ops::Range;

/// Takes out fields of a hash that have ended.
pub const EXPIRE_FIELDS: &str = "expire-fields";

/// The rows of this file.
pub const COMMANDS: &[Command] = &[
    expiring("hexpire", hexpire, "Has fields of a hash end after so many seconds."),
    expiring("hpexpire", hpexpire, "Has fields of a hash end after so many milliseconds."),
    expiring("hexpireat", hexpireat, "Has fields of a hash end at a time in seconds."),
    expiring("hpexpireat", hpexpireat, "Has fields of a hash end at a time in milliseconds."),
    telling("httl", httl, "Returns how many seconds fields of a hash have left."),
    telling("hpttl", hpttl, "Returns how many milliseconds fields of a hash have left."),
    telling("hexpiretime", hexpiretime, "Returns when fields of a hash end, in seconds."),
    telling("hpexpiretime", hpexpiretime, "Returns when fields of a hash end, in milliseconds."),
    write("hpersist", AtLeast(5), Keys::FIRST, hpersist).fast().about(
        Group::Hash,
        "7.4.0",
        "Has fields of a hash not end.",
    ),
    write("hgetdel", AtLeast(5), Keys::FIRST, hgetdel).fast().about(
        Group::Hash,
        "8.0.0",
        "Returns the values of fields of a hash and takes them out.",
    ),
    write("hgetex", AtLeast(5), Keys::FIRST, hgetex).fast().about(
        Group::Hash,
        "8.0.0",
        "Returns the values of fields of a hash and changes when they end.",
    ),
    write("hsetex", AtLeast(6), Keys::FIRST, hsetex).grows().fast().about(
        Group::Hash,
        "8.0.0",
        "Sets fields of a hash and when they end.",
    ),
    write(EXPIRE_FIELDS, AtLeast(2), Keys::FIRST, expire_fields).internal().about(
        Group::Hash,
        "7.4.0",
        "Takes out fields of a hash that have ended.",
    ),
];

type RunWrite = fn(&Call<'_>, &mut Edit<'_>, &mut Reply<'_>) -> Outcome;
type RunRead = fn(&Call<'_>, &View<'_>, &mut Reply<'_>) -> Outcome;

const fn expiring(name: &'static str, run: RunWrite, summary: &'static str) -> Command {
    write(name, AtLeast(6), Keys::FIRST, run).fast().about(Group::Hash, "7.4.0", summary)
}

const fn telling(name: &'static str, run: RunRead, summary: &'static str) -> Command {
    read(name, AtLeast(5), Keys::FIRST, run).fast().about(Group::Hash, "7.4.0", summary)
}

/// The latest time that a field may end at.
const LATEST_MS: i64 = (1 << 46) - 1;
const NO_FIELDS: Refusal =
    Refusal::text("ERR Mandatory argument FIELDS is missing or not at the right position");

/// A time as it is given or asked for.
#[derive(Clone, Copy)]
struct Unit {
    name: &'static str,
    milliseconds: i64,
    /// From now on, or from 1970 on?
    is_relative: bool,
}

const EX: Unit = Unit { name: "ex", milliseconds: 1000, is_relative: true };
const PX: Unit = Unit { name: "px", milliseconds: 1, is_relative: true };
const EXAT: Unit = Unit { name: "exat", milliseconds: 1000, is_relative: false };
const PXAT: Unit = Unit { name: "pxat", milliseconds: 1, is_relative: false };

impl Unit {
    /// The deadline that argument `i` gives. Errors: it is no number, negative, or too late.
    fn deadline(self, call: &Call<'_>, i: usize, now_ms: i64) -> Result<i64, Refusal> {
        let number = call.integer(i)?;
        if number < 0 {
            return Err(Refusal::text("ERR invalid expire time, must be >= 0"));
        }
        let base = if self.is_relative { now_ms } else { 0 };
        let deadline = number.checked_mul(self.milliseconds).and_then(|ms| ms.checked_add(base));
        let in_time = deadline.filter(|deadline| *deadline <= LATEST_MS);
        in_time.ok_or(Refusal::InvalidExpire(call.command.name))
    }

    /// A deadline in this unit, rounded up.
    fn shown(self, deadline: i64, now_ms: i64) -> i64 {
        let base = if self.is_relative { now_ms } else { 0 };
        (deadline - base + self.milliseconds - 1) / self.milliseconds
    }
}

/// Reads `FIELDS numfields field [field ...]` from argument `at` on, which is all that is left.
/// Errors: another word; no count above 0, in the words of the command; another count of fields.
fn fields(call: &Call<'_>, at: usize, no_count: &'static str) -> Result<Range<usize>, Refusal> {
    if at + 1 >= call.count() || !call.arguments.is(at, "fields") {
        return Err(NO_FIELDS);
    }
    let count = parse_integer(call.at(at + 1)).filter(|count| *count > 0);
    let count = count.ok_or(Refusal::text(no_count))?;
    if count as usize != call.count() - at - 2 {
        return Err(Refusal::text(
            "ERR The `numfields` parameter must match the number of arguments",
        ));
    }
    Ok(at + 2..call.count())
}

const NO_COUNT: &str = "ERR Number of fields must be a positive integer";

/// When a field may be given another deadline.
#[derive(Clone, Copy)]
enum Condition {
    Always,
    /// It has none.
    Absent,
    /// It has one.
    Present,
    /// The new one is later; none is later than any.
    Later,
    /// The new one is earlier.
    Earlier,
}

impl Condition {
    fn at(call: &Call<'_>, i: usize) -> Option<Condition> {
        const NAMES: [(&str, Condition); 4] = [
            ("nx", Condition::Absent),
            ("xx", Condition::Present),
            ("gt", Condition::Later),
            ("lt", Condition::Earlier),
        ];
        NAMES.iter().find(|(name, _)| call.arguments.is(i, name)).map(|(_, condition)| *condition)
    }

    fn holds(self, old: Option<i64>, new: i64) -> bool {
        match self {
            Condition::Always => true,
            Condition::Absent => old.is_none(),
            Condition::Present => old.is_some(),
            Condition::Later => old.is_some_and(|old| new > old),
            Condition::Earlier => old.is_none_or(|old| new < old),
        }
    }
}

/// HEXPIRE key seconds [NX|XX|GT|LT] FIELDS numfields field [field ...].
fn hexpire(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    expire(call, edit, EX, reply)
}

/// HPEXPIRE: as HEXPIRE, in milliseconds.
fn hpexpire(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    expire(call, edit, PX, reply)
}

/// HEXPIREAT: as HEXPIRE, at a time.
fn hexpireat(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    expire(call, edit, EXAT, reply)
}

/// HPEXPIREAT: as HEXPIRE, at a time in milliseconds.
fn hpexpireat(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    expire(call, edit, PXAT, reply)
}

/// Answers for each field -2: there is none; 0: the condition does not hold; 1: done; 2: it has
/// ended at once.
fn expire(call: &Call<'_>, edit: &mut Edit<'_>, unit: Unit, reply: &mut Reply<'_>) -> Outcome {
    let now_ms = edit.view().now_ms();
    call.hash(1, &edit.view())?;
    let deadline = unit.deadline(call, 2, now_ms)?;
    let condition = Condition::at(call, 3);
    let at = if condition.is_some() { 4 } else { 3 };
    let fields = fields(call, at, "ERR Parameter `numFields` should be greater than 0")?;
    let condition = condition.unwrap_or(Condition::Always);
    let key = call.key(1);
    let mut hash = edit.hash_mut(&key)?;
    reply.array(fields.len());
    for i in fields {
        let field = call.at(i);
        if hash.hash().get(field).is_none() {
            reply.integer(-2);
        } else if !condition.holds(hash.hash().deadline(field), deadline) {
            reply.integer(0);
        } else if deadline <= now_ms {
            hash.remove(field);
            reply.integer(2);
        } else {
            hash.set_deadline(field, deadline);
            reply.integer(1);
        }
    }
    Ok(())
}

/// HTTL key FIELDS numfields field [field ...].
fn httl(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    tell(call, view, EX, reply)
}

/// HPTTL: as HTTL, in milliseconds.
fn hpttl(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    tell(call, view, PX, reply)
}

/// HEXPIRETIME: as HTTL, when that will be.
fn hexpiretime(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    tell(call, view, EXAT, reply)
}

/// HPEXPIRETIME: as HEXPIRETIME, in milliseconds.
fn hpexpiretime(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    tell(call, view, PXAT, reply)
}

/// Answers for each field -2: there is none; -1: it does not end.
fn tell(call: &Call<'_>, view: &View<'_>, unit: Unit, reply: &mut Reply<'_>) -> Outcome {
    let hash = call.hash(1, view)?;
    let fields = fields(call, 2, NO_COUNT)?;
    reply.array(fields.len());
    for i in fields {
        reply.integer(match deadline_of(hash, call.at(i)) {
            None => -2,
            Some(None) => -1,
            Some(Some(deadline)) => unit.shown(deadline, view.now_ms()),
        });
    }
    Ok(())
}

/// When a field ends that is there.
fn deadline_of(hash: Option<Hash<'_>>, field: &[u8]) -> Option<Option<i64>> {
    let hash = hash.filter(|hash| hash.get(field).is_some())?;
    Some(hash.deadline(field))
}

/// HPERSIST key FIELDS numfields field [field ...]. Answers as HTTL, and 1: it does not end any
/// more.
fn hpersist(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    call.hash(1, &edit.view())?;
    let fields = fields(call, 2, NO_COUNT)?;
    let key = call.key(1);
    let mut hash = edit.hash_mut(&key)?;
    reply.array(fields.len());
    for i in fields {
        let is_there = hash.hash().get(call.at(i)).is_some();
        reply.integer(match is_there {
            false => -2,
            true if hash.persist(call.at(i)) => 1,
            true => -1,
        });
    }
    Ok(())
}

/// HGETDEL key FIELDS numfields field [field ...].
fn hgetdel(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    call.hash(1, &edit.view())?;
    let fields = fields(call, 2, NO_COUNT)?;
    let key = call.key(1);
    let mut hash = edit.hash_mut(&key)?;
    reply.array(fields.len());
    for i in fields {
        match hash.hash().get(call.at(i)) {
            Some(value) => reply.bulk(value),
            None => reply.null(),
        }
        hash.remove(call.at(i));
    }
    Ok(())
}

/// What becomes of the deadlines of fields.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Unsaid,
    Keep,
    Persist,
    At(i64),
}

/// The option at argument `i` that gives a time.
fn unit_at(call: &Call<'_>, i: usize) -> Option<Unit> {
    [EX, PX, EXAT, PXAT].into_iter().find(|unit| call.arguments.is(i, unit.name))
}

/// HGETEX key [EX seconds|PX milliseconds|EXAT seconds|PXAT milliseconds|PERSIST] FIELDS numfields
/// field [field ...].
fn hgetex(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now_ms = edit.view().now_ms();
    call.hash(1, &edit.view())?;
    let (ending, at) = match unit_at(call, 2) {
        Some(unit) => (Ending::At(unit.deadline(call, 3, now_ms)?), 4),
        None if call.arguments.is(2, "persist") => (Ending::Persist, 3),
        None => (Ending::Unsaid, 2),
    };
    let fields = fields(call, at, NO_COUNT)?;
    let key = call.key(1);
    let mut hash = edit.hash_mut(&key)?;
    reply.array(fields.len());
    for i in fields {
        let field = call.at(i);
        match hash.hash().get(field) {
            Some(value) => reply.bulk(value),
            None => {
                reply.null();
                continue;
            }
        }
        match ending {
            Ending::Unsaid | Ending::Keep => {}
            Ending::Persist => {
                hash.persist(field);
            }
            Ending::At(deadline) if deadline <= now_ms => {
                hash.remove(field);
            }
            Ending::At(deadline) => hash.set_deadline(field, deadline),
        }
    }
    Ok(())
}

/// Options of HSETEX.
struct Setting {
    ending: Ending,
    /// FNX: none of the fields is there. FXX: all are.
    wants_present: Option<bool>,
    /// Where fields and values stand.
    pairs: Range<usize>,
}

impl Setting {
    fn of(call: &Call<'_>, now_ms: i64) -> Result<Setting, Refusal> {
        let mut setting = Setting { ending: Ending::Unsaid, wants_present: None, pairs: 0..0 };
        let arity = || Refusal::Arity(call.command.name.into());
        let mut i = 2;
        while i < call.count() {
            let present = call.arguments.is(i, "fxx");
            if present || call.arguments.is(i, "fnx") {
                if setting.wants_present.is_some() {
                    return Err(Refusal::text(
                        "ERR Only one of FXX or FNX arguments can be specified",
                    ));
                }
                setting.wants_present = Some(present);
                i += 1;
                continue;
            }
            let unit = unit_at(call, i);
            if unit.is_some() || call.arguments.is(i, "keepttl") {
                if setting.ending != Ending::Unsaid {
                    return Err(Refusal::text(
                        "ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified",
                    ));
                }
                if unit.is_some() && i + 1 >= call.count() {
                    return Err(arity());
                }
                setting.ending = match unit {
                    Some(unit) => Ending::At(unit.deadline(call, i + 1, now_ms)?),
                    None => Ending::Keep,
                };
                i += if unit.is_some() { 2 } else { 1 };
                continue;
            }
            if !call.arguments.is(i, "fields") {
                return Err(Refusal::repeating("ERR unknown argument: ", call.at(i), ""));
            }
            let count = call.arguments.get(i + 1).ok_or(arity())?;
            let count = parse_integer(count).filter(|n| (1..=i64::from(i32::MAX)).contains(n));
            let count = count.ok_or(Refusal::text("ERR invalid number of fields"))? as usize;
            if 2 * count != call.count() - i - 2 {
                return Err(arity());
            }
            setting.pairs = i + 2..call.count();
            return Ok(setting);
        }
        Err(arity())
    }
}

/// HSETEX key [FNX|FXX] [EX seconds|PX milliseconds|EXAT seconds|PXAT milliseconds|KEEPTTL] FIELDS
/// numfields field value [field value ...]. Answers 1, or 0 when nothing was set.
fn hsetex(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now_ms = edit.view().now_ms();
    let setting = Setting::of(call, now_ms)?;
    let key = call.key(1);
    let mut hash = edit.hash_mut(&key)?;
    let mut fields = setting.pairs.clone().step_by(2);
    if let Some(present) = setting.wants_present
        && fields.any(|i| hash.hash().get(call.at(i)).is_some() != present)
    {
        reply.integer(0);
        return Ok(());
    }
    for i in setting.pairs.step_by(2) {
        let (field, value) = (call.at(i), call.at(i + 1));
        match setting.ending {
            Ending::At(deadline) if deadline <= now_ms => {
                hash.remove(field);
            }
            Ending::At(deadline) => {
                hash.set(field, value);
                hash.set_deadline(field, deadline);
            }
            // One that has ended has no deadline to keep.
            Ending::Keep if hash.hash().get(field).is_some() => {
                hash.set_keeping(field, value);
            }
            _ => {
                hash.set(field, value);
            }
        }
    }
    reply.integer(1);
    Ok(())
}

fn expire_fields(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let removed = edit.remove_ended_fields(&call.key(1), ENDED_FIELDS_PER_OPERATION);
    reply.integer(removed as i64);
    Ok(())
}
