//! Ranges of sorted sets: by rank, by score, by the members' bytes. Whatever bounds a range, it is
//! one of ranks.

use super::options::rank_range;
use super::refusal::{Outcome, Refusal};
use super::{Arity, Call, Command, Group, Keys, read, write};
use crate::numbers::parse_float;
use crate::resp::listing::{Direction, Listing, Shown};
use crate::resp::reply::{Protocol, Reply};
use Arity::{AtLeast, Exactly};
use ringraft_shards::keyspace::{Edit, View};
use ringraft_shards::value::Value;
use ringraft_shards::value::sorted_set::SortedSet;
use std::ops::Range;

/// The rows of this family.
pub const COMMANDS: &[Command] = &[
    read("zcount", Exactly(4), Keys::FIRST, zcount).fast().about(
        Group::SortedSet,
        "2.0.0",
        "Counts the members with scores in a range.",
    ),
    read("zlexcount", Exactly(4), Keys::FIRST, zlexcount).fast().about(
        Group::SortedSet,
        "2.8.9",
        "Counts the members in a range of bytes.",
    ),
    ranging("zrange", zrange, "1.2.0", "Returns members in a range."),
    ranging(
        "zrevrange",
        zrevrange,
        "1.2.0",
        "Returns members in a range of ranks from the highest score on.",
    ),
    ranging("zrangebyscore", zrangebyscore, "1.0.5", "Returns members with scores in a range."),
    ranging(
        "zrevrangebyscore",
        zrevrangebyscore,
        "2.2.0",
        "Returns members with scores in a range, the highest first.",
    ),
    ranging("zrangebylex", zrangebylex, "2.8.9", "Returns members in a range of bytes."),
    ranging(
        "zrevrangebylex",
        zrevrangebylex,
        "2.8.9",
        "Returns members in a range of bytes, the last first.",
    ),
    write("zrangestore", AtLeast(5), Keys::TWO, zrangestore).grows().about(
        Group::SortedSet,
        "6.2.0",
        "Stores the members in a range.",
    ),
    write("zremrangebyrank", Exactly(4), Keys::FIRST, zremrangebyrank).about(
        Group::SortedSet,
        "2.0.0",
        "Takes out the members in a range of ranks.",
    ),
    write("zremrangebyscore", Exactly(4), Keys::FIRST, zremrangebyscore).about(
        Group::SortedSet,
        "1.2.0",
        "Takes out the members with scores in a range.",
    ),
    write("zremrangebylex", Exactly(4), Keys::FIRST, zremrangebylex).about(
        Group::SortedSet,
        "2.8.9",
        "Takes out the members in a range of bytes.",
    ),
];

const fn ranging(
    name: &'static str,
    run: fn(&Call<'_>, &View<'_>, &mut Reply<'_>) -> Outcome,
    since: &'static str,
    summary: &'static str,
) -> Command {
    read(name, AtLeast(4), Keys::FIRST, run).about(Group::SortedSet, since, summary)
}

/// One end of a range of scores.
#[derive(Clone, Copy)]
struct Score {
    value: f64,
    /// Is a member with just this score outside?
    excluded: bool,
}

impl Score {
    /// Errors: no number.
    fn of(text: &[u8]) -> Result<Score, Refusal> {
        let (digits, excluded) = match text {
            [b'(', digits @ ..] => (digits, true),
            digits => (digits, false),
        };
        let value = parse_float(digits).ok_or(Refusal::text("ERR min or max is not a float"))?;
        Ok(Score { value, excluded })
    }
}

/// One end of a range of members.
#[derive(Clone, Copy)]
enum Lex<'a> {
    /// Before all.
    Least,
    /// Behind all.
    Most,
    /// This one, and whether it is outside.
    Member(&'a [u8], bool),
}

impl<'a> Lex<'a> {
    /// Errors: neither `-` nor `+`, nor a member behind `[` or `(`.
    fn of(text: &'a [u8]) -> Result<Lex<'a>, Refusal> {
        match text {
            b"-" => Ok(Lex::Least),
            b"+" => Ok(Lex::Most),
            [b'[', member @ ..] => Ok(Lex::Member(member, false)),
            [b'(', member @ ..] => Ok(Lex::Member(member, true)),
            _ => Err(Refusal::text("ERR min or max not valid string range item")),
        }
    }
}

/// What bounds a range.
#[derive(Clone, Copy)]
enum Bounds<'a> {
    Ranks(i64, i64),
    Scores(Score, Score),
    Members(Lex<'a>, Lex<'a>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Lex,
}

impl<'a> Bounds<'a> {
    /// Reads both ends, the lower one first. Errors: one of them is none.
    fn of(by: By, low: &'a [u8], high: &'a [u8]) -> Result<Bounds<'a>, Refusal> {
        let integer = |text| crate::numbers::parse_integer(text).ok_or(Refusal::NotAnInteger);
        Ok(match by {
            By::Rank => Bounds::Ranks(integer(low)?, integer(high)?),
            By::Score => Bounds::Scores(Score::of(low)?, Score::of(high)?),
            By::Lex => Bounds::Members(Lex::of(low)?, Lex::of(high)?),
        })
    }

    /// The ranks of the members in it. Ranks given count from the highest score when `direction`
    /// says so.
    fn ranks(self, set: SortedSet<'_>, direction: Direction) -> Range<u64> {
        let range = match self {
            Bounds::Ranks(start, stop) => {
                let range = rank_range(start, stop, set.count());
                match direction {
                    Direction::Up => range,
                    Direction::Down => set.count() - range.end..set.count() - range.start,
                }
            }
            Bounds::Scores(low, high) => {
                let below = |score: f64, end: Score| score < end.value || low_equal(score, end);
                set.partition_point_at(low.value, |_, score| below(score, low))
                    ..set.partition_point_at(high.value, |_, score| within(score, high))
            }
            Bounds::Members(low, high) => {
                set.partition_point(|member, _| match low {
                    Lex::Least => false,
                    Lex::Most => true,
                    Lex::Member(end, excluded) => member < end || excluded && member == end,
                })..set.partition_point(|member, _| match high {
                    Lex::Least => false,
                    Lex::Most => true,
                    Lex::Member(end, excluded) => member < end || !excluded && member == end,
                })
            }
        };
        if range.start < range.end { range } else { 0..0 }
    }
}

/// Is a score left out because it is just the lower end?
fn low_equal(score: f64, end: Score) -> bool {
    end.excluded && score == end.value
}

/// Is a score not above the upper end?
fn within(score: f64, end: Score) -> bool {
    score < end.value || !end.excluded && score == end.value
}

/// A range as the commands that return members are asked for it.
struct Asked<'a> {
    bounds: Bounds<'a>,
    direction: Direction,
    with_scores: bool,
    /// How many to pass over, and how many to return then.
    limit: Option<(i64, i64)>,
}

/// What a command's name says of the range that it is asked for.
#[derive(Clone, Copy)]
struct Form {
    /// Where the range stands.
    at: usize,
    /// Without, the options may say it.
    by: Option<By>,
    /// Without, the options may say it.
    direction: Option<Direction>,
}

impl Form {
    const SHOWN: usize = 2;
    const STORED: usize = 3;
}

impl<'a> Asked<'a> {
    fn of(call: &Call<'a>, form: Form) -> Result<Asked<'a>, Refusal> {
        let Form { at, by, direction } = form;
        let (mut chosen_by, mut down) = (by, direction == Some(Direction::Down));
        let (mut with_scores, mut limit) = (false, None);
        let mut i = at + 2;
        while i < call.count() {
            match () {
                () if at == Form::SHOWN && call.arguments.is(i, "withscores") => with_scores = true,
                () if call.arguments.is(i, "limit") && i + 2 < call.count() => {
                    limit = Some((call.integer(i + 1)?, call.integer(i + 2)?));
                    i += 2;
                }
                () if direction.is_none() && call.arguments.is(i, "rev") => down = true,
                () if by.is_none() && call.arguments.is(i, "bylex") => chosen_by = Some(By::Lex),
                () if by.is_none() && call.arguments.is(i, "byscore") => {
                    chosen_by = Some(By::Score);
                }
                () => return Err(Refusal::Syntax),
            }
            i += 1;
        }
        let by = chosen_by.unwrap_or(By::Rank);
        if limit.is_some() && by == By::Rank {
            return Err(Refusal::text(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
            ));
        }
        if with_scores && by == By::Lex {
            return Err(Refusal::text(
                "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
            ));
        }
        let turned = down && by != By::Rank;
        let (low, high) = if turned { (at + 1, at) } else { (at, at + 1) };
        let bounds = Bounds::of(by, call.at(low), call.at(high))?;
        let direction = if down { Direction::Down } else { Direction::Up };
        Ok(Asked { bounds, direction, with_scores, limit })
    }

    /// The ranks to return, in the order of ranks.
    fn ranks(&self, set: SortedSet<'_>) -> Range<u64> {
        let range = self.bounds.ranks(set, self.direction);
        let Some((offset, count)) = self.limit else { return range };
        let Ok(offset) = u64::try_from(offset) else { return 0..0 };
        let size = range.end - range.start;
        let passed = offset.min(size);
        let count = u64::try_from(count).unwrap_or(u64::MAX).min(size - passed);
        match self.direction {
            Direction::Up => range.start + passed..range.start + passed + count,
            Direction::Down => range.end - passed - count..range.end - passed,
        }
    }

    fn reply(&self, set: Option<SortedSet<'_>>, reply: &mut Reply<'_>) {
        let range = set.map_or(0..0, |set| self.ranks(set));
        let count = (range.end - range.start) as usize;
        let in_pairs = self.with_scores && reply.protocol() == Protocol::Resp3;
        let flat = self.with_scores && !in_pairs;
        reply.array(if flat { 2 * count } else { count });
        let Some(set) = set.filter(|_| count > 0) else { return };
        let shown = if self.with_scores { Shown::Scores } else { Shown::Names };
        let listing = match self.direction {
            Direction::Up => Listing::from(range.start, count as u64, shown),
            Direction::Down => Listing::back_from(range.end - 1, count as u64, shown),
        };
        reply.list(Value::SortedSet(set), listing);
    }
}

fn range(
    call: &Call<'_>,
    view: &View<'_>,
    by: Option<By>,
    direction: Option<Direction>,
    reply: &mut Reply<'_>,
) -> Outcome {
    let asked = Asked::of(call, Form { at: Form::SHOWN, by, direction })?;
    asked.reply(call.sorted_set(1, view)?, reply);
    Ok(())
}

/// ZRANGE key start stop [BYSCORE|BYLEX] [REV] [LIMIT offset count] [WITHSCORES].
fn zrange(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    range(call, view, None, None, reply)
}

/// ZRANGESTORE destination source start stop [BYSCORE|BYLEX] [REV] [LIMIT offset count].
fn zrangestore(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let asked = Asked::of(call, Form { at: Form::STORED, by: None, direction: None })?;
    let mut found: Vec<(Vec<u8>, f64)> = Vec::new();
    if let Some(set) = call.sorted_set(2, &edit.view())? {
        let range = asked.ranks(set);
        let members = set.members_from(range.start).take((range.end - range.start) as usize);
        found.extend(members.map(|(member, score)| (member.to_vec(), score)));
    }
    store(call, edit, &found, reply)
}

/// Puts members in the place of whatever the first key held, its deadline included. Answers how
/// many there are.
pub(super) fn store(
    call: &Call<'_>,
    edit: &mut Edit<'_>,
    members: &[(Vec<u8>, f64)],
    reply: &mut Reply<'_>,
) -> Outcome {
    store_at(call, 1, edit, members, reply)
}

/// As [`store`], at another key argument.
pub(super) fn store_at(
    call: &Call<'_>,
    at: usize,
    edit: &mut Edit<'_>,
    members: &[(Vec<u8>, f64)],
    reply: &mut Reply<'_>,
) -> Outcome {
    let key = call.key(at);
    edit.remove(&key);
    let mut set = edit.sorted_set_mut(&key)?;
    set.fill(members);
    reply.integer(set.count() as i64);
    Ok(())
}

/// ZREVRANGE key start stop [WITHSCORES].
fn zrevrange(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    range(call, view, Some(By::Rank), Some(Direction::Down), reply)
}

/// ZRANGEBYSCORE key min max [WITHSCORES] [LIMIT offset count].
fn zrangebyscore(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    range(call, view, Some(By::Score), Some(Direction::Up), reply)
}

/// ZREVRANGEBYSCORE key max min [WITHSCORES] [LIMIT offset count].
fn zrevrangebyscore(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    range(call, view, Some(By::Score), Some(Direction::Down), reply)
}

/// ZRANGEBYLEX key min max [LIMIT offset count].
fn zrangebylex(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    range(call, view, Some(By::Lex), Some(Direction::Up), reply)
}

/// ZREVRANGEBYLEX key max min [LIMIT offset count].
fn zrevrangebylex(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    range(call, view, Some(By::Lex), Some(Direction::Down), reply)
}

/// ZCOUNT key min max.
fn zcount(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    count(call, view, By::Score, reply)
}

/// ZLEXCOUNT key min max.
fn zlexcount(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    count(call, view, By::Lex, reply)
}

fn count(call: &Call<'_>, view: &View<'_>, by: By, reply: &mut Reply<'_>) -> Outcome {
    let bounds = Bounds::of(by, call.at(2), call.at(3))?;
    let range = call.sorted_set(1, view)?.map_or(0..0, |set| bounds.ranks(set, Direction::Up));
    reply.integer((range.end - range.start) as i64);
    Ok(())
}

/// ZREMRANGEBYRANK key start stop.
fn zremrangebyrank(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    remove(call, edit, By::Rank, reply)
}

/// ZREMRANGEBYSCORE key min max.
fn zremrangebyscore(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    remove(call, edit, By::Score, reply)
}

/// ZREMRANGEBYLEX key min max.
fn zremrangebylex(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    remove(call, edit, By::Lex, reply)
}

fn remove(call: &Call<'_>, edit: &mut Edit<'_>, by: By, reply: &mut Reply<'_>) -> Outcome {
    let bounds = Bounds::of(by, call.at(2), call.at(3))?;
    let key = call.key(1);
    let mut set = edit.sorted_set_mut(&key)?;
    let range = bounds.ranks(set.sorted_set(), Direction::Up);
    set.remove_at(range.start, range.end - range.start);
    reply.integer((range.end - range.start) as i64);
    Ok(())
}
