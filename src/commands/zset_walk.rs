//! Members of sorted sets by chance, and piece by piece.

use super::lots::Drawing;
use super::refusal::Outcome;
use super::scan::{Cursor, ScanOptions, reply_elements};
use super::{Arity, Call, Command, Group, Keys, read};
use crate::numbers::{print_float, print_general};
use crate::resp::reply::{Protocol, Reply};
use ringraft_shards::keyspace::View;
use ringraft_shards::value::sorted_set::SortedSet;

/// The rows of this file.
pub const COMMANDS: &[Command] = &[
    read("zrandmember", Arity::AtLeast(2), Keys::FIRST, zrandmember).random_reply().about(
        Group::SortedSet,
        "6.2.0",
        "Returns members of a sorted set by chance.",
    ),
    read("zscan", Arity::AtLeast(3), Keys::FIRST, zscan).random_reply().about(
        Group::SortedSet,
        "2.8.0",
        "Some members of a sorted set with their scores, and where to go on.",
    ),
];

/// ZRANDMEMBER key [count [WITHSCORES]]. A negative count may name a member more than once.
fn zrandmember(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let drawing = Drawing::of(call, "withscores")?;
    let Some(set) = call.sorted_set(1, view)? else {
        match drawing.count {
            None => reply.null(),
            Some(_) => reply.array(0),
        }
        return Ok(());
    };
    let mut ranks = drawing.ranks(call.seed, set.count())?;
    if drawing.count.is_some_and(|count| count >= 0) && ranks.len() as u64 == set.count() {
        // All there are: Redis begins with the highest.
        ranks.reverse();
    }
    if drawing.count.is_some() {
        let doubled = drawing.in_pairs && reply.protocol() == Protocol::Resp2;
        reply.array(if doubled { 2 * ranks.len() } else { ranks.len() });
    }
    for (member, score) in ranks.into_iter().filter_map(|rank| set.at(rank)) {
        if drawing.in_pairs && reply.protocol() == Protocol::Resp3 {
            reply.array(2);
        }
        reply.bulk(member);
        if drawing.in_pairs {
            reply.double(score);
        }
    }
    Ok(())
}

/// ZSCAN key cursor [MATCH pattern] [COUNT count]. Options are looked at only when there is a
/// sorted set, as in Redis.
fn zscan(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let cursor = Cursor::at(call.arguments, 2)?;
    let mut found = Vec::new();
    let (mut count, mut next) = (0, 0);
    if let Some(set) = call.sorted_set(1, view)? {
        let options = ScanOptions::of_elements(call.arguments)?;
        let print = printing(set);
        let mut parts = Reply::new(&mut found, reply.protocol());
        next = set.scan(cursor.0, options.count, &mut |member, score| {
            if options.pattern.as_ref().is_none_or(|glob| glob.matches(member)) {
                parts.bulk(member);
                parts.bulk(print(score).as_bytes());
                count += 2;
            }
        });
    }
    reply_elements(next, count, &found, reply);
    Ok(())
}

/// How ZSCAN prints scores: with 17 digits those of a large sorted set, with as few as read back
/// those of a small one.
fn printing(set: SortedSet<'_>) -> fn(f64) -> String {
    if set.is_large() { |score| print_general(score, 17) } else { print_float }
}

#[cfg(test)]
mod tests {
    use crate::commands::tests::{Runner, bulks};
    use std::collections::{BTreeMap, BTreeSet};

    fn fill(runner: &mut Runner, count: u64) {
        for number in 0..count {
            runner.run(&["zadd", "z", &format!("{}.5", number % 7), &format!("member {number}")]);
        }
    }

    #[test]
    fn random_members_are_distinct_and_any() {
        let mut runner = Runner::default();
        fill(&mut runner, 1000);
        for count in ["1", "2", "500", "999", "1000", "1001", "9223372036854775807"] {
            let reply = runner.run(&["zrandmember", "z", count]);
            let found: BTreeSet<&[u8]> = bulks(&reply).into_iter().collect();
            let expected = count.parse().map_or(1000, |count: usize| count.min(1000));
            assert_eq!((found.len(), bulks(&reply).len()), (expected, expected), "{count}");
        }
        let mut met: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
        for _ in 0..200 {
            let reply = runner.run(&["zrandmember", "z", "-100", "withscores"]);
            let parts = bulks(&reply);
            assert_eq!(parts.len(), 200);
            parts.chunks(2).for_each(|pair| *met.entry(pair[0].to_vec()).or_default() += 1);
        }
        // 20 each are expected; the standard deviation is 4.5.
        assert_eq!(met.len(), 1000);
        assert!(met.values().all(|&times| times < 20 + 7 * 5), "{met:?}");
    }

    #[test]
    fn scans_of_large_sorted_sets_find_all() {
        let mut runner = Runner::default();
        fill(&mut runner, 1000);
        let (mut cursor, mut found, mut steps) = ("0".to_owned(), BTreeSet::new(), 0);
        loop {
            let reply = runner.run(&["zscan", "z", &cursor, "count", "50"]);
            let parts = bulks(&reply);
            for pair in parts[1..].chunks(2) {
                let score = runner.run(&["zscore", "z", &String::from_utf8_lossy(pair[0])]);
                assert_eq!(bulks(&score)[0], pair[1]);
                found.insert(pair[0].to_vec());
            }
            (cursor, steps) = (String::from_utf8_lossy(parts[0]).into_owned(), steps + 1);
            if cursor == "0" {
                break;
            }
        }
        assert_eq!((found.len(), steps), (1000, 20));
    }
}
