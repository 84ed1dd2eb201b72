//! What is made of several sorted sets: what any of them has, what they share, what only the first
//! one has.
//!
//! A set is a sorted set whose members all have the score 1; a key that does not exist is empty.
//! Sums depend on the order in which they are made: that of the keys, for what is shared or had by
//! any the smallest first.

use super::refusal::{Outcome, Refusal};
use super::zset_range::store;
use super::{Arity, Call, Command, Group, Keys, Search, read, write};
use crate::numbers::parse_float;
use crate::resp::reply::{Protocol, Reply};
use Arity::AtLeast;
use ringraft_shards::keyspace::{Edit, Value, View};
use ringraft_shards::value::set::Set;
use ringraft_shards::value::sorted_set::SortedSet;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// The rows of this file.
pub const COMMANDS: &[Command] = &[
    read("zunion", AtLeast(3), Keys::NONE.and(Search::Counted(1)), zunion).about(
        Group::SortedSet,
        "6.2.0",
        "Returns the members of any of the sorted sets.",
    ),
    read("zinter", AtLeast(3), Keys::NONE.and(Search::Counted(1)), zinter).about(
        Group::SortedSet,
        "6.2.0",
        "Returns the members that all sorted sets share.",
    ),
    read("zdiff", AtLeast(3), Keys::NONE.and(Search::Counted(1)), zdiff).about(
        Group::SortedSet,
        "6.2.0",
        "Returns the members of the first sorted set that no other one has.",
    ),
    read("zintercard", AtLeast(3), Keys::NONE.and(Search::Counted(1)), zintercard).about(
        Group::SortedSet,
        "7.0.0",
        "Counts the members that all sorted sets share.",
    ),
    storing("zunionstore", zunionstore, "2.0.0", "Stores the members of any of the sorted sets."),
    storing("zinterstore", zinterstore, "2.0.0", "Stores the members that all sorted sets share."),
    storing(
        "zdiffstore",
        zdiffstore,
        "6.2.0",
        "Stores the members of the first sorted set that no other one has.",
    ),
];

const fn storing(
    name: &'static str,
    run: fn(&Call<'_>, &mut Edit<'_>, &mut Reply<'_>) -> Outcome,
    since: &'static str,
    summary: &'static str,
) -> Command {
    let keys = Keys::FIRST.and(Search::Counted(2));
    write(name, AtLeast(4), keys, run).grows().about(Group::SortedSet, since, summary)
}

/// What a key holds.
#[derive(Clone, Copy)]
enum Held<'v> {
    Nothing,
    Set(Set<'v>),
    SortedSet(SortedSet<'v>),
}

impl<'v> Held<'v> {
    fn of(call: &Call<'_>, i: usize, view: &View<'v>) -> Result<Held<'v>, Refusal> {
        match view.get(&call.key(i)).map(|item| item.value()) {
            None => Ok(Held::Nothing),
            Some(Value::Set(set)) => Ok(Held::Set(set)),
            Some(Value::SortedSet(set)) => Ok(Held::SortedSet(set)),
            Some(_) => Err(Refusal::WrongType),
        }
    }

    fn count(self) -> u64 {
        match self {
            Held::Nothing => 0,
            Held::Set(set) => set.count(),
            Held::SortedSet(set) => set.count(),
        }
    }

    fn score(self, member: &[u8]) -> Option<f64> {
        match self {
            Held::Nothing => None,
            Held::Set(set) => set.contains(member).then_some(1.0),
            Held::SortedSet(set) => set.score(member),
        }
    }

    fn members(self) -> impl Iterator<Item = (Cow<'v, [u8]>, f64)> {
        let (set, sorted_set) = match self {
            Held::Nothing => (None, None),
            Held::Set(set) => (Some(set), None),
            Held::SortedSet(set) => (None, Some(set)),
        };
        let members = set.into_iter().flat_map(|set| set.members_from(0));
        let scored = sorted_set.into_iter().flat_map(|set| set.members_from(0));
        members
            .map(|member| (member, 1.0))
            .chain(scored.map(|(member, score)| (Cow::Borrowed(member), score)))
    }
}

/// A key's members, and what their scores are multiplied by.
#[derive(Clone, Copy)]
struct Source<'v> {
    held: Held<'v>,
    weight: f64,
}

impl Source<'_> {
    /// A score here; infinity times 0 is 0.
    fn weighed(self, score: f64) -> f64 {
        let product = self.weight * score;
        if product.is_nan() { 0.0 } else { product }
    }
}

/// What becomes of two scores of a member.
#[derive(Clone, Copy)]
enum Aggregate {
    Sum,
    Least,
    Greatest,
}

impl Aggregate {
    fn of(self, one: f64, other: f64) -> f64 {
        match self {
            // Infinities that cancel each other make 0.
            Aggregate::Sum if (one + other).is_nan() => 0.0,
            Aggregate::Sum => one + other,
            Aggregate::Least if other < one => other,
            Aggregate::Greatest if other > one => other,
            Aggregate::Least | Aggregate::Greatest => one,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Union,
    Intersection,
    Difference,
}

/// What is to be done with the result.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Show,
    Store,
    Count,
}

/// A request: `numkeys key [key ...]` and options, from argument `at` on.
struct Asked<'v> {
    operation: Operation,
    sources: Vec<Source<'v>>,
    aggregate: Aggregate,
    with_scores: bool,
    /// How many to count at most.
    limit: usize,
}

impl<'v> Asked<'v> {
    /// Errors: the count of keys; their types; an option that the command does not know.
    fn of(
        call: &Call<'_>,
        view: &View<'v>,
        operation: Operation,
        purpose: Purpose,
    ) -> Result<Asked<'v>, Refusal> {
        let at = if purpose == Purpose::Store { 2 } else { 1 };
        let count = call.integer(at)?;
        if count < 1 {
            let name = call.command.name;
            let text = format!("ERR at least 1 input key is needed for '{name}' command");
            return Err(Refusal::Text(text.into()));
        }
        let count = usize::try_from(count).ok().filter(|&count| count < call.count() - at);
        let end = at + 1 + count.ok_or(Refusal::Syntax)?;
        let held = (at + 1..end).map(|i| Held::of(call, i, view));
        let held = held.collect::<Result<Vec<Held<'v>>, Refusal>>()?;
        let sources = held.into_iter().map(|held| Source { held, weight: 1.0 }).collect();
        let aggregate = Aggregate::Sum;
        let mut asked =
            Asked { operation, sources, aggregate, with_scores: false, limit: usize::MAX };
        let mut i = end;
        while i < call.count() {
            i += asked.take_option(call, i, purpose)?;
        }
        if operation != Operation::Difference {
            asked.sources.sort_by_key(|source| source.held.count());
        }
        Ok(asked)
    }

    /// Reads the option at argument `i`. How many arguments is it?
    fn take_option(
        &mut self,
        call: &Call<'_>,
        i: usize,
        purpose: Purpose,
    ) -> Result<usize, Refusal> {
        let joins = self.operation != Operation::Difference && purpose != Purpose::Count;
        let behind = call.count() - i - 1;
        match () {
            () if joins && behind >= self.sources.len() && call.arguments.is(i, "weights") => {
                for (nth, source) in self.sources.iter_mut().enumerate() {
                    let weight = parse_float(call.at(i + 1 + nth));
                    source.weight =
                        weight.ok_or(Refusal::text("ERR weight value is not a float"))?;
                }
                Ok(1 + self.sources.len())
            }
            () if joins && behind >= 1 && call.arguments.is(i, "aggregate") => {
                self.aggregate = match () {
                    () if call.arguments.is(i + 1, "sum") => Aggregate::Sum,
                    () if call.arguments.is(i + 1, "min") => Aggregate::Least,
                    () if call.arguments.is(i + 1, "max") => Aggregate::Greatest,
                    () => return Err(Refusal::Syntax),
                };
                Ok(2)
            }
            () if purpose == Purpose::Show && call.arguments.is(i, "withscores") => {
                self.with_scores = true;
                Ok(1)
            }
            () if purpose == Purpose::Count && behind >= 1 && call.arguments.is(i, "limit") => {
                let limit = call.count_at(i + 1, 0, "ERR LIMIT can't be negative")?;
                self.limit = if limit == 0 { usize::MAX } else { limit as usize };
                Ok(2)
            }
            () => Err(Refusal::Syntax),
        }
    }

    /// The members of the result, in its order.
    fn result(&self) -> Vec<(Cow<'v, [u8]>, f64)> {
        let mut members = match self.operation {
            Operation::Union => self.union(),
            Operation::Intersection => self.intersection().collect(),
            Operation::Difference => self.difference(),
        };
        members.sort_unstable_by(|one, other| {
            let scores = one.1.partial_cmp(&other.1).expect("a score is a number");
            scores.then_with(|| one.0.cmp(&other.0))
        });
        members
    }

    fn union(&self) -> Vec<(Cow<'v, [u8]>, f64)> {
        let mut scores: HashMap<Cow<'v, [u8]>, f64> = HashMap::new();
        for source in &self.sources {
            for (member, score) in source.held.members() {
                let score = source.weighed(score);
                let sum = scores.entry(member);
                sum.and_modify(|sum| *sum = self.aggregate.of(*sum, score)).or_insert(score);
            }
        }
        scores.into_iter().collect()
    }

    /// Cost: the members of the smallest one, each looked up in the others.
    fn intersection(&self) -> impl Iterator<Item = (Cow<'v, [u8]>, f64)> {
        let (smallest, others) = self.sources.split_first().expect("one key at least");
        smallest.held.members().filter_map(move |(member, score)| {
            let mut sum = smallest.weighed(score);
            for other in others {
                let score = other.held.score(&member)? * other.weight;
                sum = self.aggregate.of(sum, score);
            }
            Some((member, sum))
        })
    }

    /// Cost: the members of the first one, each looked up in the others, or those of the others,
    /// each looked up in the first one: whatever is less.
    fn difference(&self) -> Vec<(Cow<'v, [u8]>, f64)> {
        let (first, others) = self.sources.split_first().expect("one key at least");
        let members = first.held.members();
        let sum: u64 = others.iter().map(|other| other.held.count()).sum();
        if first.held.count().saturating_mul(others.len() as u64) <= sum {
            let is_there = |member: &[u8]| others.iter().any(|o| o.held.score(member).is_some());
            return members.filter(|(member, _)| !is_there(member)).collect();
        }
        let others = others.iter().flat_map(|other| other.held.members());
        let shared = others.filter(|(member, _)| first.held.score(member).is_some());
        let shared: HashSet<Cow<'_, [u8]>> = shared.map(|(member, _)| member).collect();
        members.filter(|(member, _)| !shared.contains(member)).collect()
    }
}

fn show(call: &Call<'_>, view: &View<'_>, operation: Operation, reply: &mut Reply<'_>) -> Outcome {
    let asked = Asked::of(call, view, operation, Purpose::Show)?;
    let members = asked.result();
    let in_pairs = asked.with_scores && reply.protocol() == Protocol::Resp3;
    let doubled = asked.with_scores && !in_pairs;
    reply.array(if doubled { 2 * members.len() } else { members.len() });
    for (member, score) in members {
        if in_pairs {
            reply.array(2);
        }
        reply.bulk(&member);
        if asked.with_scores {
            reply.double(score);
        }
    }
    Ok(())
}

/// ZUNION numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE SUM|MIN|MAX] [WITHSCORES].
fn zunion(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    show(call, view, Operation::Union, reply)
}

/// ZINTER numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE SUM|MIN|MAX] [WITHSCORES].
fn zinter(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    show(call, view, Operation::Intersection, reply)
}

/// ZDIFF numkeys key [key ...] [WITHSCORES].
fn zdiff(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    show(call, view, Operation::Difference, reply)
}

/// ZINTERCARD numkeys key [key ...] [LIMIT limit]. A limit of 0 is none.
fn zintercard(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let asked = Asked::of(call, view, Operation::Intersection, Purpose::Count)?;
    reply.integer(asked.intersection().take(asked.limit).count() as i64);
    Ok(())
}

fn store_result(
    call: &Call<'_>,
    edit: &mut Edit<'_>,
    operation: Operation,
    reply: &mut Reply<'_>,
) -> Outcome {
    let asked = Asked::of(call, &edit.view(), operation, Purpose::Store)?;
    let members = asked.result().into_iter();
    let members: Vec<(Vec<u8>, f64)> = members.map(|(m, score)| (m.into_owned(), score)).collect();
    store(call, edit, &members, reply)
}

/// ZUNIONSTORE destination numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE
/// SUM|MIN|MAX].
fn zunionstore(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    store_result(call, edit, Operation::Union, reply)
}

/// ZINTERSTORE destination numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE
/// SUM|MIN|MAX].
fn zinterstore(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    store_result(call, edit, Operation::Intersection, reply)
}

/// ZDIFFSTORE destination numkeys key [key ...].
fn zdiffstore(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    store_result(call, edit, Operation::Difference, reply)
}
