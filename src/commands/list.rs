//! Lists: elements in the order in which they were put in, from both ends. What waits for an
//! element is the business of `core::waiting`: the functions here find one or answer null.

use super::options::{rank_range, timeout_of};
use super::refusal::{Outcome, Refusal};
use super::{Arity, Call, Command, Group, Keys, Search, TimeoutAt, block, read, write};
use crate::resp::listing::{Listing, Shown};
use crate::resp::reply::Reply;
use Arity::{AtLeast, Exactly};
use ringraft_shards::keyspace::{Edit, View};
use ringraft_shards::value::Value;
use ringraft_shards::value::list::{End, List};
use ringraft_shards::waiting::WaitKind;

/// The rows of this family.
pub const COMMANDS: &[Command] = &[
    write("lpush", AtLeast(3), Keys::FIRST, lpush).grows().fast().about(
        Group::List,
        "1.0.0",
        "Puts elements before a list, making the list when it does not exist.",
    ),
    write("rpush", AtLeast(3), Keys::FIRST, rpush).grows().fast().about(
        Group::List,
        "1.0.0",
        "Puts elements behind a list, making the list when it does not exist.",
    ),
    write("lpushx", AtLeast(3), Keys::FIRST, lpushx).grows().fast().about(
        Group::List,
        "2.2.0",
        "Puts elements before a list that exists.",
    ),
    write("rpushx", AtLeast(3), Keys::FIRST, rpushx).grows().fast().about(
        Group::List,
        "2.2.0",
        "Puts elements behind a list that exists.",
    ),
    write("lpop", AtLeast(2), Keys::FIRST, lpop).fast().about(
        Group::List,
        "1.0.0",
        "Takes elements from the head of a list.",
    ),
    write("rpop", AtLeast(2), Keys::FIRST, rpop).fast().about(
        Group::List,
        "1.0.0",
        "Takes elements from the tail of a list.",
    ),
    read("llen", Exactly(2), Keys::FIRST, llen).fast().about(
        Group::List,
        "1.0.0",
        "Counts the elements of a list.",
    ),
    read("lindex", Exactly(3), Keys::FIRST, lindex).about(
        Group::List,
        "1.0.0",
        "Returns an element of a list by its position.",
    ),
    write("linsert", Exactly(5), Keys::FIRST, linsert).grows().about(
        Group::List,
        "2.2.0",
        "Puts an element before or behind another one.",
    ),
    read("lrange", Exactly(4), Keys::FIRST, lrange).about(
        Group::List,
        "1.0.0",
        "Returns a part of a list.",
    ),
    write("lrem", Exactly(4), Keys::FIRST, lrem).about(
        Group::List,
        "1.0.0",
        "Takes out elements that are equal to a value.",
    ),
    write("lset", Exactly(4), Keys::FIRST, lset).grows().about(
        Group::List,
        "1.0.0",
        "Puts an element in the place of another one.",
    ),
    write("ltrim", Exactly(4), Keys::FIRST, ltrim).about(
        Group::List,
        "1.0.0",
        "Takes out all but a part of a list.",
    ),
    read("lpos", AtLeast(3), Keys::FIRST, lpos).about(
        Group::List,
        "6.0.6",
        "Finds the positions of elements that are equal to a value.",
    ),
    write("lmove", Exactly(5), Keys::TWO, lmove).grows().about(
        Group::List,
        "6.2.0",
        "Takes an element from an end of a list and puts it at an end of another one.",
    ),
    write("rpoplpush", Exactly(3), Keys::TWO, rpoplpush).grows().about(
        Group::List,
        "1.2.0",
        "Takes the last element of a list and puts it before another one.",
    ),
    write("lmpop", AtLeast(4), Keys::NONE.and(Search::Counted(1)), lmpop).about(
        Group::List,
        "7.0.0",
        "Takes elements from the first of several lists that has some.",
    ),
    waiting("blpop", AtLeast(3), Keys::ALL_BUT_LAST, TimeoutAt::Last, blpop).about(
        Group::List,
        "2.0.0",
        "Takes the first element of the first of several lists that has some, or waits for one.",
    ),
    waiting("brpop", AtLeast(3), Keys::ALL_BUT_LAST, TimeoutAt::Last, brpop).about(
        Group::List,
        "2.0.0",
        "Takes the last element of the first of several lists that has some, or waits for one.",
    ),
    waiting("blmove", Exactly(6), Keys::TWO, TimeoutAt::Last, blmove)
        .waits_for_first(1)
        .grows()
        .about(Group::List, "6.2.0", "As LMOVE, or waits for an element."),
    waiting("brpoplpush", Exactly(4), Keys::TWO, TimeoutAt::Last, brpoplpush)
        .waits_for_first(1)
        .grows()
        .about(Group::List, "2.2.0", "As RPOPLPUSH, or waits for an element."),
    waiting("blmpop", AtLeast(5), Keys::NONE.and(Search::Counted(2)), TimeoutAt::First, blmpop)
        .about(Group::List, "7.0.0", "As LMPOP, or waits for an element."),
];

const fn waiting(
    name: &'static str,
    arity: Arity,
    keys: Keys,
    timeout: TimeoutAt,
    run: fn(&Call<'_>, &mut Edit<'_>, &mut Reply<'_>) -> Outcome,
) -> Command {
    block(name, arity, keys, WaitKind::List, timeout, run)
}

/// LPUSH key element [element ...]. The last one comes first.
fn lpush(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    push(call, edit, End::Front, reply)
}

/// RPUSH key element [element ...].
fn rpush(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    push(call, edit, End::Back, reply)
}

fn push(call: &Call<'_>, edit: &mut Edit<'_>, end: End, reply: &mut Reply<'_>) -> Outcome {
    let key = call.key(1);
    let mut list = edit.list_mut(&key)?;
    for element in call.arguments.iter_from(2) {
        list.push(end, element);
    }
    reply.integer(list.count() as i64);
    Ok(())
}

/// LPUSHX key element [element ...].
fn lpushx(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    push_to_existing(call, edit, End::Front, reply)
}

/// RPUSHX key element [element ...].
fn rpushx(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    push_to_existing(call, edit, End::Back, reply)
}

fn push_to_existing(
    call: &Call<'_>,
    edit: &mut Edit<'_>,
    end: End,
    reply: &mut Reply<'_>,
) -> Outcome {
    if call.list(1, &edit.view())?.is_none() {
        reply.integer(0);
        return Ok(());
    }
    push(call, edit, end, reply)
}

/// LPOP key [count].
fn lpop(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    pop(call, edit, End::Front, reply)
}

/// RPOP key [count].
fn rpop(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    pop(call, edit, End::Back, reply)
}

fn pop(call: &Call<'_>, edit: &mut Edit<'_>, end: End, reply: &mut Reply<'_>) -> Outcome {
    if call.count() > 3 {
        return Err(Refusal::Arity(call.command.name.into()));
    }
    let key = call.key(1);
    if call.count() == 2 {
        match edit.list_mut(&key)?.pop(end) {
            Some(element) => reply.bulk(&element),
            None => reply.null(),
        }
        return Ok(());
    }
    let count = call.count_at(2, 0, "ERR value is out of range, must be positive")?;
    if call.list(1, &edit.view())?.is_none() {
        reply.null_array();
        return Ok(());
    }
    pop_several(call, 1, edit, end, count, reply)
}

/// Takes up to `count` elements of the list at key argument `i` and replies them as an array.
fn pop_several(
    call: &Call<'_>,
    i: usize,
    edit: &mut Edit<'_>,
    end: End,
    count: u64,
    reply: &mut Reply<'_>,
) -> Outcome {
    let key = call.key(i);
    let mut list = edit.list_mut(&key)?;
    let count = count.min(list.count());
    reply.array(count as usize);
    let last = list.count().saturating_sub(1);
    let (first, listing) = match end {
        End::Front => (0, Listing::from(0, count, Shown::Names)),
        End::Back => (list.count() - count, Listing::back_from(last, count, Shown::Names)),
    };
    reply.list(Value::List(list.list()), listing);
    list.remove(first, count);
    Ok(())
}

/// LLEN key.
fn llen(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let count = call.list(1, view)?.map_or(0, |list| list.count());
    reply.integer(count as i64);
    Ok(())
}

/// A position that may count from the end, as one from the start. `None`: there is no element.
fn position(index: i64, count: u64) -> Option<u64> {
    let index = if index < 0 { index.checked_add_unsigned(count)? } else { index };
    u64::try_from(index).ok().filter(|&index| index < count)
}

/// LINDEX key index.
fn lindex(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let Some(list) = call.list(1, view)? else {
        reply.null();
        return Ok(());
    };
    match position(call.integer(2)?, list.count()).and_then(|at| list.get(at)) {
        Some(element) => reply.bulk(element),
        None => reply.null(),
    }
    Ok(())
}

/// LINSERT key BEFORE|AFTER pivot element: the new length, -1 when there is no such element.
fn linsert(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let behind = match () {
        () if call.arguments.is(2, "after") => 1,
        () if call.arguments.is(2, "before") => 0,
        () => return Err(Refusal::Syntax),
    };
    if call.list(1, &edit.view())?.is_none() {
        reply.integer(0);
        return Ok(());
    }
    let key = call.key(1);
    let mut list = edit.list_mut(&key)?;
    let pivot = list.list().elements_from(0).position(|element| element == call.at(3));
    match pivot {
        Some(at) => {
            list.insert(at as u64 + behind, call.at(4));
            reply.integer(list.count() as i64);
        }
        None => reply.integer(-1),
    }
    Ok(())
}

/// LRANGE key start stop.
fn lrange(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (start, stop) = (call.integer(2)?, call.integer(3)?);
    let Some(list) = call.list(1, view)? else {
        reply.array(0);
        return Ok(());
    };
    let range = rank_range(start, stop, list.count());
    let count = range.end - range.start;
    reply.array(count as usize);
    reply.list(Value::List(list), Listing::from(range.start, count, Shown::Names));
    Ok(())
}

/// LREM key count element: the first ones, the last ones when `count` is negative, or all.
fn lrem(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let count = call.integer(2)?;
    let key = call.key(1);
    let mut list = edit.list_mut(&key)?;
    let wanted = match count {
        0 => usize::MAX,
        count => usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX),
    };
    let equals = |(_, element): &(u64, &[u8])| *element == call.at(3);
    let last = list.count().saturating_sub(1);
    let mut found: Vec<u64> = if count < 0 {
        let elements = list.list().elements_back_from(last).zip((0..=last).rev());
        elements
            .map(|(element, at)| (at, element))
            .filter(equals)
            .map(|(at, _)| at)
            .take(wanted)
            .collect()
    } else {
        let elements = (0..).zip(list.list().elements_from(0));
        elements.filter(equals).map(|(at, _)| at).take(wanted).collect()
    };
    if count >= 0 {
        found.reverse();
    }
    // From the end on: what stands before keeps its position. Neighbours go together.
    let mut run = found.as_slice();
    while let Some((&high, _)) = run.split_first() {
        let length =
            run.iter().zip((0..=high).rev()).take_while(|(at, next)| **at == *next).count();
        list.remove(high + 1 - length as u64, length as u64);
        run = &run[length..];
    }
    reply.integer(found.len() as i64);
    Ok(())
}

/// LSET key index element.
fn lset(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    if call.list(1, &edit.view())?.is_none() {
        return Err(Refusal::NoSuchKey);
    }
    let index = call.integer(2)?;
    let key = call.key(1);
    let mut list = edit.list_mut(&key)?;
    let at = position(index, list.count()).ok_or(Refusal::IndexOutOfRange)?;
    list.set(at, call.at(3));
    reply.ok();
    Ok(())
}

/// LTRIM key start stop.
fn ltrim(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (start, stop) = (call.integer(2)?, call.integer(3)?);
    let key = call.key(1);
    let mut list = edit.list_mut(&key)?;
    let count = list.count();
    let kept = rank_range(start, stop, count);
    list.remove(kept.end, count - kept.end);
    list.remove(0, kept.start);
    // As in Redis, who watches the key is told in any case.
    list.touch();
    reply.ok();
    Ok(())
}

/// What LPOS looks for.
struct Finding {
    /// Which of the matches is the first one; negative: from the end.
    rank: i64,
    /// How many; `None` is one, and no array.
    count: Option<usize>,
    /// Elements that are compared.
    compared_max: usize,
}

impl Finding {
    /// Errors: an unknown word, a number that is none or out of range.
    fn of(call: &Call<'_>) -> Result<Finding, Refusal> {
        let mut finding = Finding { rank: 1, count: None, compared_max: usize::MAX };
        for i in (3..call.count()).step_by(2) {
            let has_value = i + 1 < call.count();
            if call.arguments.is(i, "rank") && has_value {
                finding.rank = call.integer(i + 1)?;
                if finding.rank == 0 {
                    return Err(Refusal::text(
                        "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list",
                    ));
                }
            } else if call.arguments.is(i, "count") && has_value {
                let count = call.count_at(i + 1, 0, "ERR COUNT can't be negative")? as usize;
                finding.count = Some(if count == 0 { usize::MAX } else { count });
            } else if call.arguments.is(i, "maxlen") && has_value {
                let bound = call.count_at(i + 1, 0, "ERR MAXLEN can't be negative")? as usize;
                finding.compared_max = if bound == 0 { usize::MAX } else { bound };
            } else {
                return Err(Refusal::Syntax);
            }
        }
        Ok(finding)
    }

    fn positions(&self, list: List<'_>, element: &[u8]) -> Vec<u64> {
        let last = list.count().saturating_sub(1);
        let skipped = self.rank.unsigned_abs() as usize - 1;
        let count = self.count.unwrap_or(1);
        let pick = |elements: &mut dyn Iterator<Item = (u64, &[u8])>| {
            let found = elements.take(self.compared_max).filter(|(_, other)| *other == element);
            found.map(|(at, _)| at).skip(skipped).take(count).collect()
        };
        if self.rank > 0 {
            pick(&mut (0..).zip(list.elements_from(0)))
        } else {
            pick(&mut (0..=last).rev().zip(list.elements_back_from(last)))
        }
    }
}

/// LPOS key element [RANK rank] [COUNT count] [MAXLEN length].
fn lpos(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let finding = Finding::of(call)?;
    let list = call.list(1, view)?;
    let found = list.map_or_else(Vec::new, |list| finding.positions(list, call.at(2)));
    match (finding.count, found.first()) {
        (Some(_), _) => {
            reply.array(found.len());
            found.iter().for_each(|&at| reply.integer(at as i64));
        }
        (None, Some(&at)) => reply.integer(at as i64),
        (None, None) => reply.null(),
    }
    Ok(())
}

/// LEFT or RIGHT. Errors: another word.
fn end_of(call: &Call<'_>, i: usize) -> Result<End, Refusal> {
    match () {
        () if call.arguments.is(i, "left") => Ok(End::Front),
        () if call.arguments.is(i, "right") => Ok(End::Back),
        () => Err(Refusal::Syntax),
    }
}

/// LMOVE source destination LEFT|RIGHT LEFT|RIGHT.
fn lmove(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (from, to) = (end_of(call, 3)?, end_of(call, 4)?);
    move_element(call, edit, from, to, reply)
}

/// RPOPLPUSH source destination.
fn rpoplpush(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    move_element(call, edit, End::Back, End::Front, reply)
}

fn move_element(
    call: &Call<'_>,
    edit: &mut Edit<'_>,
    from: End,
    to: End,
    reply: &mut Reply<'_>,
) -> Outcome {
    if call.list(1, &edit.view())?.is_none() {
        reply.null();
        return Ok(());
    }
    let (source, destination) = (call.key(1), call.key(2));
    call.list(2, &edit.view())?;
    let mut list = edit.list_mut(&source)?;
    let element = list.pop(from).expect("no list is empty");
    if call.at(1) == call.at(2) {
        // One list alone: it keeps its deadline even if this was its only element.
        list.push(to, &element);
    } else {
        drop(list);
        edit.list_mut(&destination)?.push(to, &element);
    }
    reply.bulk(&element);
    Ok(())
}

/// LMPOP numkeys key [key ...] LEFT|RIGHT [COUNT count].
fn lmpop(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    pop_from_first(call, edit, 1, reply)
}

/// `at`: where the count of keys stands.
fn pop_from_first(
    call: &Call<'_>,
    edit: &mut Edit<'_>,
    at: usize,
    reply: &mut Reply<'_>,
) -> Outcome {
    let (keys, end, count) = call.popping(at, ["left", "right"])?;
    let end = [End::Front, End::Back][end];
    for i in keys {
        if call.list(i, &edit.view())?.is_some() {
            reply.array(2);
            reply.bulk(call.at(i));
            return pop_several(call, i, edit, end, count, reply);
        }
    }
    reply.null_array();
    Ok(())
}

/// BLPOP key [key ...] timeout.
fn blpop(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    pop_one(call, edit, End::Front, reply)
}

/// BRPOP key [key ...] timeout.
fn brpop(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    pop_one(call, edit, End::Back, reply)
}

fn pop_one(call: &Call<'_>, edit: &mut Edit<'_>, end: End, reply: &mut Reply<'_>) -> Outcome {
    timeout_of(call.command, call.arguments)?;
    for i in 1..call.count() - 1 {
        if call.list(i, &edit.view())?.is_some() {
            let key = call.key(i);
            let element = edit.list_mut(&key)?.pop(end).expect("no list is empty");
            reply.array(2);
            reply.bulk(call.at(i));
            reply.bulk(&element);
            return Ok(());
        }
    }
    reply.null_array();
    Ok(())
}

/// BLMOVE source destination LEFT|RIGHT LEFT|RIGHT timeout.
fn blmove(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (from, to) = (end_of(call, 3)?, end_of(call, 4)?);
    timeout_of(call.command, call.arguments)?;
    move_element(call, edit, from, to, reply)
}

/// BRPOPLPUSH source destination timeout.
fn brpoplpush(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    timeout_of(call.command, call.arguments)?;
    move_element(call, edit, End::Back, End::Front, reply)
}

/// BLMPOP timeout numkeys key [key ...] LEFT|RIGHT [COUNT count].
fn blmpop(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    timeout_of(call.command, call.arguments)?;
    pop_from_first(call, edit, 2, reply)
}
