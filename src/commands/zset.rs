//! Sorted sets: members in the order of their scores. Ranges of them are in `zset_range.rs`.

use super::options::timeout_of;
use super::refusal::{Outcome, Refusal};
use super::{Arity, Call, Command, Group, Keys, Search, TimeoutAt, block, read, write};
use crate::numbers::parse_float;
use crate::resp::listing::{Listing, Shown};
use crate::resp::reply::{Protocol, Reply};
use Arity::{AtLeast, Exactly};
use ringraft_shards::keyspace::{Edit, View};
use ringraft_shards::value::Value;
use ringraft_shards::value::spot::MEMBERS_AHEAD;
use ringraft_shards::waiting::WaitKind;

/// The rows of this family.
pub const COMMANDS: &[Command] = &[
    write("zadd", AtLeast(4), Keys::FIRST, zadd).seeks(3).grows().fast().about(
        Group::SortedSet,
        "1.2.0",
        "Gives members of a sorted set scores, making it when it does not exist.",
    ),
    write("zincrby", Exactly(4), Keys::FIRST, zincrby).seeks(3).grows().fast().about(
        Group::SortedSet,
        "1.2.0",
        "Adds to the score of a member.",
    ),
    write("zrem", AtLeast(3), Keys::FIRST, zrem).seeks(2).fast().about(
        Group::SortedSet,
        "1.2.0",
        "Takes members out of a sorted set.",
    ),
    read("zcard", Exactly(2), Keys::FIRST, zcard).fast().about(
        Group::SortedSet,
        "1.2.0",
        "Counts the members of a sorted set.",
    ),
    read("zscore", Exactly(3), Keys::FIRST, zscore).seeks(2).fast().about(
        Group::SortedSet,
        "1.2.0",
        "Returns the score of a member.",
    ),
    read("zmscore", AtLeast(3), Keys::FIRST, zmscore).seeks(2).fast().about(
        Group::SortedSet,
        "6.2.0",
        "Returns the scores of members.",
    ),
    read("zrank", AtLeast(3), Keys::FIRST, zrank).seeks(2).fast().about(
        Group::SortedSet,
        "2.0.0",
        "Returns how many members have lower scores.",
    ),
    read("zrevrank", AtLeast(3), Keys::FIRST, zrevrank).seeks(2).fast().about(
        Group::SortedSet,
        "2.0.0",
        "Returns how many members have higher scores.",
    ),
    write("zpopmin", AtLeast(2), Keys::FIRST, zpopmin).fast().about(
        Group::SortedSet,
        "5.0.0",
        "Takes the members with the lowest scores.",
    ),
    write("zpopmax", AtLeast(2), Keys::FIRST, zpopmax).fast().about(
        Group::SortedSet,
        "5.0.0",
        "Takes the members with the highest scores.",
    ),
    write("zmpop", AtLeast(4), Keys::NONE.and(Search::Counted(1)), zmpop).about(
        Group::SortedSet,
        "7.0.0",
        "Takes members from the first of several sorted sets that has some.",
    ),
    waiting("bzpopmin", AtLeast(3), Keys::ALL_BUT_LAST, TimeoutAt::Last, bzpopmin).fast().about(
        Group::SortedSet,
        "5.0.0",
        "As ZPOPMIN of the first sorted set that has members, or waits for one.",
    ),
    waiting("bzpopmax", AtLeast(3), Keys::ALL_BUT_LAST, TimeoutAt::Last, bzpopmax).fast().about(
        Group::SortedSet,
        "5.0.0",
        "As ZPOPMAX of the first sorted set that has members, or waits for one.",
    ),
    waiting("bzmpop", AtLeast(5), Keys::NONE.and(Search::Counted(2)), TimeoutAt::First, bzmpop)
        .about(Group::SortedSet, "7.0.0", "As ZMPOP, or waits for a member."),
];

const fn waiting(
    name: &'static str,
    arity: Arity,
    keys: Keys,
    timeout: TimeoutAt,
    run: fn(&Call<'_>, &mut Edit<'_>, &mut Reply<'_>) -> Outcome,
) -> Command {
    block(name, arity, keys, WaitKind::SortedSet, timeout, run)
}

/// Options of ZADD.
#[derive(Clone, Copy, Default)]
pub(super) struct Adding {
    /// Members that are not there alone.
    pub absent: bool,
    /// Members that are there alone.
    pub present: bool,
    greater: bool,
    less: bool,
    /// Those with another score count too.
    pub changed: bool,
    increments: bool,
}

impl Adding {
    /// The options, and where the scores begin. Errors: they do not go together.
    fn of(call: &Call<'_>) -> Result<(Adding, usize), Refusal> {
        let mut adding = Adding::default();
        let mut at = 2;
        while at < call.count() {
            let option = match () {
                () if call.arguments.is(at, "nx") => &mut adding.absent,
                () if call.arguments.is(at, "xx") => &mut adding.present,
                () if call.arguments.is(at, "gt") => &mut adding.greater,
                () if call.arguments.is(at, "lt") => &mut adding.less,
                () if call.arguments.is(at, "ch") => &mut adding.changed,
                () if call.arguments.is(at, "incr") => &mut adding.increments,
                () => break,
            };
            *option = true;
            at += 1;
        }
        let rest = call.count() - at;
        if rest == 0 || !rest.is_multiple_of(2) {
            return Err(Refusal::Syntax);
        }
        if adding.absent && adding.present {
            return Err(Refusal::text("ERR XX and NX options at the same time are not compatible"));
        }
        if adding.greater && adding.less || adding.absent && (adding.greater || adding.less) {
            return Err(Refusal::text(
                "ERR GT, LT, and/or NX options at the same time are not compatible",
            ));
        }
        if adding.increments && rest > 2 {
            return Err(Refusal::text("ERR INCR option supports a single increment-element pair"));
        }
        Ok((adding, at))
    }

    /// The score to give a member that has `old`; `None`: it stays as it is.
    /// Errors: infinities that cancel each other.
    fn new_score(self, old: Option<f64>, given: f64) -> Result<Option<f64>, Refusal> {
        if if old.is_some() { self.absent } else { self.present } {
            return Ok(None);
        }
        let Some(old) = old else { return Ok(Some(given)) };
        let new = if self.increments { old + given } else { given };
        if new.is_nan() {
            return Err(Refusal::text("ERR resulting score is not a number (NaN)"));
        }
        let stays = self.greater && new <= old || self.less && new >= old;
        Ok((!stays).then_some(new))
    }
}

/// ZADD key [NX|XX] [GT|LT] [CH] [INCR] score member [score member ...].
fn zadd(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (adding, at) = Adding::of(call)?;
    add(call, edit, adding, at, reply)
}

/// ZINCRBY key increment member.
fn zincrby(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let adding = Adding { increments: true, ..Adding::default() };
    add(call, edit, adding, 2, reply)
}

fn add(
    call: &Call<'_>,
    edit: &mut Edit<'_>,
    adding: Adding,
    at: usize,
    reply: &mut Reply<'_>,
) -> Outcome {
    let pairs = (at..call.count()).step_by(2);
    let pairs = pairs.map(|i| {
        let score = parse_float(call.at(i)).ok_or(Refusal::NotAFloat)?;
        Ok((score, call.at(i + 1)))
    });
    let pairs = pairs.collect::<Result<Vec<_>, Refusal>>()?;
    add_pairs(call, edit, adding, &pairs, reply)
}

/// Gives members scores; which ones and what is answered the options say.
pub(super) fn add_pairs(
    call: &Call<'_>,
    edit: &mut Edit<'_>,
    adding: Adding,
    pairs: &[(f64, &[u8])],
    reply: &mut Reply<'_>,
) -> Outcome {
    let key = call.key(1);
    let mut set = edit.sorted_set_mut(&key)?;
    let (mut added, mut changed, mut last) = (0, 0, None);
    for (place, &(given, member)) in pairs.iter().enumerate() {
        if place.is_multiple_of(MEMBERS_AHEAD) {
            set.sorted_set().fetch(pairs[place..].iter().map(|&(_, member)| member));
        }
        let old = set.sorted_set().score(member);
        let Some(new) = adding.new_score(old, given)? else { continue };
        set.set_from(old, member, new);
        last = Some(new);
        added += i64::from(old.is_none());
        changed += i64::from(old.is_none_or(|old| old != new));
    }
    match (adding.increments, last) {
        (true, Some(score)) => reply.double(score),
        (true, None) => reply.null(),
        (false, _) => reply.integer(if adding.changed { changed } else { added }),
    }
    Ok(())
}

/// ZREM key member [member ...].
fn zrem(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let key = call.key(1);
    let mut set = edit.sorted_set_mut(&key)?;
    let mut removed = 0;
    for (place, member) in call.arguments.iter_from(2).enumerate() {
        if place.is_multiple_of(MEMBERS_AHEAD) {
            set.sorted_set().fetch(call.arguments.iter_from(2 + place));
        }
        removed += i64::from(set.remove(member).is_some());
    }
    reply.integer(removed);
    Ok(())
}

/// ZCARD key.
fn zcard(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let count = call.sorted_set(1, view)?.map_or(0, |set| set.count());
    reply.integer(count as i64);
    Ok(())
}

/// ZSCORE key member.
fn zscore(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    score_or_null(call.sorted_set(1, view)?.and_then(|set| set.score(call.at(2))), reply);
    Ok(())
}

/// ZMSCORE key member [member ...].
fn zmscore(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let set = call.sorted_set(1, view)?;
    reply.array(call.count() - 2);
    for (place, member) in call.arguments.iter_from(2).enumerate() {
        if let (Some(set), true) = (set, place.is_multiple_of(MEMBERS_AHEAD)) {
            set.fetch(call.arguments.iter_from(2 + place));
        }
        score_or_null(set.and_then(|set| set.score(member)), reply);
    }
    Ok(())
}

fn score_or_null(score: Option<f64>, reply: &mut Reply<'_>) {
    match score {
        Some(score) => reply.double(score),
        None => reply.null(),
    }
}

/// ZRANK key member [WITHSCORE].
fn zrank(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    rank(call, view, |rank, _| rank, reply)
}

/// ZREVRANK key member [WITHSCORE].
fn zrevrank(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    rank(call, view, |rank, count| count - 1 - rank, reply)
}

fn rank(
    call: &Call<'_>,
    view: &View<'_>,
    count_from: fn(u64, u64) -> u64,
    reply: &mut Reply<'_>,
) -> Outcome {
    let with_score = match call.count() {
        3 => false,
        4 if call.arguments.is(3, "withscore") => true,
        4 => return Err(Refusal::Syntax),
        _ => return Err(Refusal::Arity(call.command.name.into())),
    };
    let found = call.sorted_set(1, view)?.and_then(|set| {
        let (rank, score) = set.rank(call.at(2))?;
        Some((count_from(rank, set.count()) as i64, score))
    });
    match found {
        Some((rank, score)) if with_score => {
            reply.array(2);
            reply.integer(rank);
            reply.double(score);
        }
        Some((rank, _)) => reply.integer(rank),
        None if with_score => reply.null_array(),
        None => reply.null(),
    }
    Ok(())
}

/// Which end of a sorted set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extreme {
    Lowest,
    Highest,
}

/// ZPOPMIN key [count].
fn zpopmin(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    pop(call, edit, Extreme::Lowest, reply)
}

/// ZPOPMAX key [count].
fn zpopmax(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    pop(call, edit, Extreme::Highest, reply)
}

fn pop(call: &Call<'_>, edit: &mut Edit<'_>, extreme: Extreme, reply: &mut Reply<'_>) -> Outcome {
    let count = match call.count() {
        2 => None,
        3 => Some(call.count_at(2, 0, "ERR value is out of range, must be positive")?),
        _ => return Err(Refusal::Syntax),
    };
    if let Some(count) = count {
        return pop_several(call, edit, extreme, count, reply);
    }
    let taken = take(call, 1, edit, extreme, 1)?;
    reply.array(2 * taken.len());
    for (member, score) in taken {
        reply.bulk(&member);
        reply.double(score);
    }
    Ok(())
}

/// Takes up to `count` members, which may be many.
fn pop_several(
    call: &Call<'_>,
    edit: &mut Edit<'_>,
    extreme: Extreme,
    count: u64,
    reply: &mut Reply<'_>,
) -> Outcome {
    let key = call.key(1);
    let mut set = edit.sorted_set_mut(&key)?;
    let size = set.count();
    let count = count.min(size);
    reply.array(match reply.protocol() {
        Protocol::Resp2 => 2 * count as usize,
        Protocol::Resp3 => count as usize,
    });
    let (first, listing) = match extreme {
        Extreme::Lowest => (0, Listing::from(0, count, Shown::Scores)),
        Extreme::Highest => {
            let last = size.saturating_sub(1);
            (size - count, Listing::back_from(last, count, Shown::Scores))
        }
    };
    reply.list(Value::SortedSet(set.sorted_set()), listing);
    set.remove_at(first, count);
    Ok(())
}

/// Takes up to `count` members of the sorted set at key argument `i`, the outermost first.
fn take(
    call: &Call<'_>,
    i: usize,
    edit: &mut Edit<'_>,
    extreme: Extreme,
    count: u64,
) -> Result<Vec<(Vec<u8>, f64)>, Refusal> {
    let key = call.key(i);
    let mut set = edit.sorted_set_mut(&key)?;
    let count = count.min(set.count());
    if count == 0 {
        return Ok(Vec::new());
    }
    let last = set.count() - 1;
    let own = |(member, score): (&[u8], f64)| (member.to_vec(), score);
    let members = set.sorted_set();
    let taken = match extreme {
        Extreme::Lowest => members.members_from(0).take(count as usize).map(own).collect(),
        Extreme::Highest => members.members_back_from(last).take(count as usize).map(own).collect(),
    };
    let first = if extreme == Extreme::Lowest { 0 } else { last + 1 - count };
    set.remove_at(first, count);
    Ok(taken)
}

/// ZMPOP numkeys key [key ...] MIN|MAX [COUNT count].
fn zmpop(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    pop_from_first(call, edit, 1, reply)
}

/// `at`: where the count of keys stands.
fn pop_from_first(
    call: &Call<'_>,
    edit: &mut Edit<'_>,
    at: usize,
    reply: &mut Reply<'_>,
) -> Outcome {
    let (keys, extreme, count) = call.popping(at, ["min", "max"])?;
    let extreme = [Extreme::Lowest, Extreme::Highest][extreme];
    for i in keys {
        let taken = take(call, i, edit, extreme, count)?;
        if taken.is_empty() {
            continue;
        }
        reply.array(2);
        reply.bulk(call.at(i));
        reply.array(taken.len());
        for (member, score) in taken {
            reply.array(2);
            reply.bulk(&member);
            reply.double(score);
        }
        return Ok(());
    }
    reply.null_array();
    Ok(())
}

/// BZPOPMIN key [key ...] timeout.
fn bzpopmin(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    pop_one(call, edit, Extreme::Lowest, reply)
}

/// BZPOPMAX key [key ...] timeout.
fn bzpopmax(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    pop_one(call, edit, Extreme::Highest, reply)
}

fn pop_one(
    call: &Call<'_>,
    edit: &mut Edit<'_>,
    extreme: Extreme,
    reply: &mut Reply<'_>,
) -> Outcome {
    timeout_of(call.command, call.arguments)?;
    for i in 1..call.count() - 1 {
        if let Some((member, score)) = take(call, i, edit, extreme, 1)?.first() {
            reply.array(3);
            reply.bulk(call.at(i));
            reply.bulk(member);
            reply.double(*score);
            return Ok(());
        }
    }
    reply.null_array();
    Ok(())
}

/// BZMPOP timeout numkeys key [key ...] MIN|MAX [COUNT count].
fn bzmpop(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    timeout_of(call.command, call.arguments)?;
    pop_from_first(call, edit, 2, reply)
}
