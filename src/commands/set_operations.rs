//! What is made of several sets: what they share, what any of them has, what only the first one
//! has.
//!
//! A key that does not exist is an empty set. All keys are looked at before anything is answered or
//! changed. Members come in the order of the set they are taken from, so that what is stored is the
//! same on every replica.

use super::refusal::{Outcome, Refusal};
use super::{Arity, Call, Command, Group, Keys, Search, read, write};
use crate::numbers::parse_integer;
use crate::resp::reply::Reply;
use Arity::AtLeast;
use ringraft_shards::keyspace::{Edit, View};
use ringraft_shards::value::along::Along;
use ringraft_shards::value::set::Set;
use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

/// The rows of this file.
pub const COMMANDS: &[Command] = &[
    read("sinter", AtLeast(2), Keys::ALL, sinter).about(
        Group::Set,
        "1.0.0",
        "Returns the members that all sets share.",
    ),
    read("sintercard", AtLeast(3), Keys::NONE.and(Search::Counted(1)), sintercard).about(
        Group::Set,
        "7.0.0",
        "Counts the members that all sets share.",
    ),
    write("sinterstore", AtLeast(3), Keys::ALL, sinterstore).grows().about(
        Group::Set,
        "1.0.0",
        "Stores the members that all sets share.",
    ),
    read("sunion", AtLeast(2), Keys::ALL, sunion).about(
        Group::Set,
        "1.0.0",
        "Returns the members of any of the sets.",
    ),
    write("sunionstore", AtLeast(3), Keys::ALL, sunionstore).grows().about(
        Group::Set,
        "1.0.0",
        "Stores the members of any of the sets.",
    ),
    read("sdiff", AtLeast(2), Keys::ALL, sdiff).about(
        Group::Set,
        "1.0.0",
        "Returns the members of the first set that no other one has.",
    ),
    write("sdiffstore", AtLeast(3), Keys::ALL, sdiffstore).grows().about(
        Group::Set,
        "1.0.0",
        "Stores the members of the first set that no other one has.",
    ),
];

/// What keys hold; `None` for those that do not exist.
type Sets<'v> = [Option<Set<'v>>];
type Members<'v> = Vec<Cow<'v, [u8]>>;

/// SINTER key [key ...].
fn sinter(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    show(call, view, reply, |sets| intersection(sets).collect())
}

/// SINTERCARD numkeys key [key ...] [LIMIT limit]. A limit of 0 is none.
fn sintercard(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let number = |text| parse_integer(text).and_then(|n| usize::try_from(n).ok());
    let count = number(call.at(1)).filter(|&count| count > 0);
    let count = count.ok_or(Refusal::text("ERR numkeys should be greater than 0"))?;
    if count > call.count() - 2 {
        return Err(Refusal::text("ERR Number of keys can't be greater than number of args"));
    }
    let mut limit = 0;
    let mut i = 2 + count;
    while i < call.count() {
        let value = call.arguments.get(i + 1).filter(|_| call.arguments.is(i, "limit"));
        let value = value.ok_or(Refusal::Syntax)?;
        limit = number(value).ok_or(Refusal::text("ERR LIMIT can't be negative"))?;
        i += 2;
    }
    let sets = sets(call, view, 2..2 + count)?;
    let limit = if limit == 0 { usize::MAX } else { limit };
    reply.integer(intersection(&sets).take(limit).count() as i64);
    Ok(())
}

/// SINTERSTORE destination key [key ...].
fn sinterstore(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    store(call, edit, reply, |sets| intersection(sets).collect())
}

/// SUNION key [key ...].
fn sunion(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    show(call, view, reply, union)
}

/// SUNIONSTORE destination key [key ...].
fn sunionstore(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    store(call, edit, reply, union)
}

/// SDIFF key [key ...].
fn sdiff(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    show(call, view, reply, difference)
}

/// SDIFFSTORE destination key [key ...].
fn sdiffstore(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    store(call, edit, reply, difference)
}

/// The sets at key arguments. Errors: [`Refusal::WrongType`].
fn sets<'v>(
    call: &Call<'_>,
    view: &View<'v>,
    keys: Range<usize>,
) -> Result<Vec<Option<Set<'v>>>, Refusal> {
    keys.map(|i| call.set(i, view)).collect()
}

fn show(
    call: &Call<'_>,
    view: &View<'_>,
    reply: &mut Reply<'_>,
    operation: for<'v> fn(&Sets<'v>) -> Members<'v>,
) -> Outcome {
    let members = operation(&sets(call, view, 1..call.count())?);
    reply.set(members.len());
    members.iter().for_each(|member| reply.bulk(member));
    Ok(())
}

/// Puts the members in the place of whatever the first key held, its deadline included.
fn store(
    call: &Call<'_>,
    edit: &mut Edit<'_>,
    reply: &mut Reply<'_>,
    operation: for<'v> fn(&Sets<'v>) -> Members<'v>,
) -> Outcome {
    let members = operation(&sets(call, &edit.view(), 2..call.count())?);
    let members: Vec<Vec<u8>> = members.into_iter().map(Cow::into_owned).collect();
    let key = call.key(1);
    edit.remove(&key);
    let mut set = edit.set_mut(&key)?;
    set.fill(&members);
    reply.integer(members.len() as i64);
    Ok(())
}

/// The members that all sets share. Cost: the members of the smallest one, each looked up in the
/// others; those that are not much larger are walked through.
fn intersection<'v>(sets: &Sets<'v>) -> impl Iterator<Item = Cow<'v, [u8]>> + use<'v> {
    let all: Option<Vec<Set<'v>>> = sets.iter().copied().collect();
    let mut all = all.unwrap_or_default();
    all.sort_by_key(|set| set.count());
    let smallest = all.first().copied();
    let members = smallest.into_iter().flat_map(|set| set.members_from(0));
    let along = |set: &Set<'v>| Some(Along::new(*set, smallest?));
    let mut others: Vec<Along<'v>> = all.iter().skip(1).filter_map(along).collect();
    members.filter(move |member| others.iter_mut().all(|set| set.has(member)))
}

/// The members of any of the sets.
fn union<'v>(sets: &Sets<'v>) -> Members<'v> {
    let mut seen = HashSet::new();
    let members = sets.iter().flatten().flat_map(|set| set.members_from(0));
    members.filter(|member| seen.insert(member.clone())).collect()
}

/// The members of the first set that no other one has. Cost: the members of the first one, each
/// looked up in the others, or those of the others, each looked up in the first one: whatever is
/// less.
fn difference<'v>(sets: &Sets<'v>) -> Members<'v> {
    let Some((Some(first), others)) = sets.split_first() else { return Vec::new() };
    let others: Vec<Set<'v>> = others.iter().flatten().copied().collect();
    let members = first.members_from(0);
    let sum: u64 = others.iter().map(|set| set.count()).sum();
    if first.count().saturating_mul(others.len() as u64) <= sum {
        let mut others: Vec<Along<'_>> =
            others.iter().map(|set| Along::new(*set, *first)).collect();
        return members.filter(|member| !others.iter_mut().any(|set| set.has(member))).collect();
    }
    let others = others.iter().flat_map(|set| set.members_from(0));
    let shared: HashSet<Cow<'_, [u8]>> = others.filter(|member| first.contains(member)).collect();
    members.filter(|member| !shared.contains(member)).collect()
}

#[cfg(test)]
mod tests {
    use crate::commands::tests::{Runner, bulks};
    use std::collections::BTreeSet;

    type Model = BTreeSet<Vec<u8>>;

    fn add(runner: &mut Runner, key: &str, members: impl Iterator<Item = u64>) -> Model {
        let text = |n: u64| if n % 1000 < 500 { n.to_string() } else { format!("text {n}") };
        let model: Vec<String> = members.map(text).collect();
        let mut words = vec!["SADD", key];
        words.extend(model.iter().map(String::as_str));
        runner.run(&words);
        model.into_iter().map(String::into_bytes).collect()
    }

    fn members(runner: &mut Runner, words: &[&str]) -> Model {
        let reply = runner.run(words);
        let members = bulks(&reply);
        let model: Model = members.iter().map(|member| member.to_vec()).collect();
        assert_eq!(model.len(), members.len(), "{words:?}: no two the same");
        model
    }

    #[test]
    fn operations_are_those_of_sets() {
        // A small first set and a large one, so that both ways to a difference are gone, and large
        // ones alone, which are walked through.
        for (size, end) in [(10, 90), (300, 90), (20_000, 90), (2500, 6000), (5000, 9000)] {
            let mut runner = Runner::default();
            let a = add(&mut runner, "a", 0..size);
            let b = add(&mut runner, "b", (0..3000).step_by(2));
            let c = add(&mut runner, "c", (0..end).step_by(3));
            let shared: Model =
                a.iter().filter(|m| b.contains(*m) && c.contains(*m)).cloned().collect();
            let any: Model = a.iter().chain(&b).chain(&c).cloned().collect();
            let rest: Model =
                a.iter().filter(|m| !b.contains(*m) && !c.contains(*m)).cloned().collect();
            for (name, expected) in [("sinter", &shared), ("sunion", &any), ("sdiff", &rest)] {
                assert_eq!(members(&mut runner, &[name, "a", "b", "c"]), *expected, "{name}");
                // The destination is one of those taken from.
                runner.run(&["COPY", "a", "to", "REPLACE"]);
                let stored = runner.run(&[&format!("{name}store"), "to", "to", "b", "c"]);
                assert_eq!(stored, format!(":{}\r\n", expected.len()).into_bytes());
                assert_eq!(members(&mut runner, &["SMEMBERS", "to"]), *expected, "{name}store");
            }
            let counted = runner.run(&["SINTERCARD", "3", "a", "b", "c"]);
            assert_eq!(counted, format!(":{}\r\n", shared.len()).into_bytes());
        }
    }
}
