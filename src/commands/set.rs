//! Sets: members without an order. What is made of several sets is in `set_operations`.

use super::lots::Lots;
use super::refusal::{Outcome, Refusal};
use super::scan::{Cursor, ScanOptions, reply_elements};
use super::{Arity, Call, Command, Group, Keys, read, write};
use crate::limits::{POPPED_EACH_MAX, RANDOM_ELEMENTS_MAX};
use crate::numbers::parse_integer;
use crate::resp::listing::{Listing, Shown};
use crate::resp::reply::Reply;
use Arity::{AtLeast, Exactly};
use ringraft_shards::keyspace::{Edit, View};
use ringraft_shards::value::Value;
use ringraft_shards::value::set::Set;
use ringraft_shards::value::spot::MEMBERS_AHEAD;

/// The rows of this file.
pub const COMMANDS: &[Command] = &[
    write("sadd", AtLeast(3), Keys::FIRST, sadd).seeks(2).grows().fast().about(
        Group::Set,
        "1.0.0",
        "Adds members to a set, making the set when it does not exist.",
    ),
    write("srem", AtLeast(3), Keys::FIRST, srem).seeks(2).fast().about(
        Group::Set,
        "1.0.0",
        "Takes members out of a set.",
    ),
    write("spop", AtLeast(2), Keys::FIRST, spop).fast().random_reply().about(
        Group::Set,
        "1.0.0",
        "Takes members out of a set by chance, and returns them.",
    ),
    read("srandmember", AtLeast(2), Keys::FIRST, srandmember).random_reply().about(
        Group::Set,
        "1.0.0",
        "Returns members of a set by chance.",
    ),
    read("sismember", Exactly(3), Keys::FIRST, sismember).seeks(2).fast().about(
        Group::Set,
        "1.0.0",
        "Is it a member of a set?",
    ),
    read("smismember", AtLeast(3), Keys::FIRST, smismember).seeks(2).fast().about(
        Group::Set,
        "6.2.0",
        "Which of these are members of a set?",
    ),
    read("smembers", Exactly(2), Keys::FIRST, smembers).about(
        Group::Set,
        "1.0.0",
        "Returns all members of a set.",
    ),
    read("scard", Exactly(2), Keys::FIRST, scard).fast().about(
        Group::Set,
        "1.0.0",
        "Counts the members of a set.",
    ),
    write("smove", Exactly(4), Keys::TWO, smove).fast().about(
        Group::Set,
        "1.0.0",
        "Moves a member from one set to another.",
    ),
    read("sscan", AtLeast(3), Keys::FIRST, sscan).random_reply().about(
        Group::Set,
        "2.8.0",
        "Some members of a set, and where to go on.",
    ),
];

/// SADD key member [member ...]. Returns how many members are new. Keeps the deadline.
fn sadd(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let key = call.key(1);
    let mut set = edit.set_mut(&key)?;
    let mut added = 0;
    for (place, member) in call.arguments.iter_from(2).enumerate() {
        if place.is_multiple_of(MEMBERS_AHEAD) {
            set.set().fetch(call.arguments.iter_from(2 + place));
        }
        added += usize::from(set.add(member));
    }
    reply.integer(added as i64);
    Ok(())
}

/// SREM key member [member ...]. Returns how many were members.
fn srem(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let key = call.key(1);
    let mut set = edit.set_mut(&key)?;
    let mut removed = 0;
    for (place, member) in call.arguments.iter_from(2).enumerate() {
        if place.is_multiple_of(MEMBERS_AHEAD) {
            set.set().fetch(call.arguments.iter_from(2 + place));
        }
        removed += usize::from(set.remove(member));
    }
    reply.integer(removed as i64);
    Ok(())
}

/// SPOP key [count].
fn spop(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    const NEGATIVE: Refusal = Refusal::text("ERR value is out of range, must be positive");
    let wanted = match call.count() {
        2 => None,
        3 => Some(parse_integer(call.at(2)).and_then(|n| u64::try_from(n).ok()).ok_or(NEGATIVE)?),
        _ => return Err(Refusal::Syntax),
    };
    let key = call.key(1);
    let mut set = edit.set_mut(&key)?;
    let size = set.count();
    let Some(wanted) = wanted else {
        if size == 0 {
            reply.null();
            return Ok(());
        }
        let rank = Lots::new(call.seed).below(size);
        show_at(set.set(), rank, reply);
        set.remove_at(rank, 1);
        return Ok(());
    };
    let count = wanted.min(size);
    reply.set(count as usize);
    let mut lots = Lots::new(call.seed);
    if count == size || count > POPPED_EACH_MAX && set.set().is_large() {
        // Neighbours in a large one are so by a hash that is the cluster's secret: any run of it is
        // a choice by chance.
        let start = if count == size { 0 } else { lots.below(size) };
        reply.list(Value::Set(set.set()), Listing::from(start, count, Shown::Names));
        let at_end = count.min(size - start);
        set.remove_at(start, at_end);
        set.remove_at(0, count - at_end);
        return Ok(());
    }
    let ranks = lots.distinct(count, size);
    ranks.iter().for_each(|&rank| show_at(set.set(), rank, reply));
    // From the last one, so that the ranks of the others stay.
    ranks.iter().rev().for_each(|&rank| set.remove_at(rank, 1));
    Ok(())
}

/// Shows all members at the end of a reply.
fn list_all(set: Set<'_>, reply: &mut Reply<'_>) {
    reply.list(Value::Set(set), Listing::from(0, set.count(), Shown::Names));
}

/// Shows the member of a rank that is below the count.
fn show_at(set: Set<'_>, rank: u64, reply: &mut Reply<'_>) {
    reply.bulk(&set.at(rank).expect("the rank is below the count"));
}

/// SRANDMEMBER key [count]: one member or none; with a count that many different ones at most, with
/// a negative one just that many, of which some may be the same.
fn srandmember(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    const OUT_OF_RANGE: Refusal = Refusal::text(
        "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
    );
    let wanted = match call.count() {
        2 => None,
        3 => Some(Some(call.integer(2)?).filter(|&n| n > i64::MIN).ok_or(OUT_OF_RANGE)?),
        _ => return Err(Refusal::Syntax),
    };
    let set = call.set(1, view)?;
    let mut lots = Lots::new(call.seed);
    match (set, wanted) {
        (None, None) => reply.null(),
        (Some(set), None) => show_at(set, lots.below(set.count()), reply),
        (None, Some(_)) => reply.array(0),
        (Some(set), Some(wanted)) if wanted < 0 => {
            let count = wanted.unsigned_abs();
            if count > RANDOM_ELEMENTS_MAX {
                return Err(Refusal::text("ERR value is out of range"));
            }
            reply.array(count as usize);
            (0..count).for_each(|_| show_at(set, lots.below(set.count()), reply));
        }
        (Some(set), Some(wanted)) => {
            let count = wanted.unsigned_abs().min(set.count());
            reply.array(count as usize);
            if count == set.count() {
                list_all(set, reply);
            } else {
                let ranks = lots.distinct(count, set.count());
                ranks.into_iter().for_each(|rank| show_at(set, rank, reply));
            }
        }
    }
    Ok(())
}

/// SISMEMBER key member.
fn sismember(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let is_member = call.set(1, view)?.is_some_and(|set| set.contains(call.at(2)));
    reply.integer(i64::from(is_member));
    Ok(())
}

/// SMISMEMBER key member [member ...].
fn smismember(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let set = call.set(1, view)?;
    reply.array(call.count() - 2);
    for (place, member) in call.arguments.iter_from(2).enumerate() {
        if let (Some(set), true) = (set, place.is_multiple_of(MEMBERS_AHEAD)) {
            set.fetch(call.arguments.iter_from(2 + place));
        }
        reply.integer(i64::from(set.is_some_and(|set| set.contains(member))));
    }
    Ok(())
}

/// SMEMBERS key.
fn smembers(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    match call.set(1, view)? {
        None => reply.set(0),
        Some(set) => {
            reply.set(set.count() as usize);
            list_all(set, reply);
        }
    }
    Ok(())
}

/// SCARD key.
fn scard(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let count = call.set(1, view)?.map_or(0, |set| set.count());
    reply.integer(count as i64);
    Ok(())
}

/// SMOVE source destination member. Without a source the destination may be of any type, as in
/// Redis.
fn smove(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (from, to, member) = (call.key(1), call.key(2), call.at(3));
    let view = edit.view();
    let Some(source) = call.set(1, &view)? else {
        reply.integer(0);
        return Ok(());
    };
    call.set(2, &view)?;
    let is_member = source.contains(member);
    if is_member && from.bytes() != to.bytes() {
        edit.set_mut(&from)?.remove(member);
        edit.set_mut(&to)?.add(member);
    }
    reply.integer(i64::from(is_member));
    Ok(())
}

/// SSCAN key cursor [MATCH pattern] [COUNT count]. Options are looked at only when there is a set,
/// as in Redis.
fn sscan(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let cursor = Cursor::at(call.arguments, 2)?;
    let set = call.set(1, view)?;
    let mut found = Vec::new();
    let (mut count, mut next) = (0, 0);
    if let Some(set) = set {
        let options = ScanOptions::of_elements(call.arguments)?;
        let mut members = Reply::new(&mut found, reply.protocol());
        next = set.scan(cursor.0, options.count, &mut |member| {
            if options.pattern.as_ref().is_none_or(|glob| glob.matches(member)) {
                members.bulk(member);
                count += 1;
            }
        });
    }
    reply_elements(next, count, &found, reply);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{RANDOM_ELEMENTS_MAX, Refusal};
    use crate::commands::tests::{Runner, bulks};
    use std::collections::BTreeMap;

    fn add(runner: &mut Runner, key: &str, members: impl Iterator<Item = String>) {
        let members: Vec<String> = members.collect();
        let words: Vec<&str> =
            ["SADD", key].into_iter().chain(members.iter().map(String::as_str)).collect();
        runner.run(&words);
    }

    fn count(runner: &mut Runner, key: &str) -> Vec<u8> {
        runner.run(&["SCARD", key])
    }

    #[test]
    fn a_scan_meets_what_stays_while_a_set_grows() {
        let mut runner = Runner::default();
        // From a small set of integers to a large one of texts while it is scanned.
        for start in [3, 2000] {
            runner.run(&["DEL", "s"]);
            add(&mut runner, "s", (0..start).map(|n| n.to_string()));
            let (mut met, mut cursor, mut parts) = (BTreeMap::new(), "0".to_owned(), 0);
            loop {
                let reply = runner.run(&["SSCAN", "s", &cursor, "COUNT", "7"]);
                let mut words = bulks(&reply).into_iter();
                let next = words.next().expect("a cursor");
                cursor = String::from_utf8(next.to_vec()).expect("digits");
                assert!(cursor.parse::<u64>().expect("digits") < 1 << 48, "{cursor}");
                for member in words {
                    *met.entry(member.to_vec()).or_insert(0) += 1;
                }
                if cursor == "0" {
                    break;
                }
                add(&mut runner, "s", (0..5).map(|n| format!("new:{parts}:{n}")));
                runner.run(&["SREM", "s", &format!("new:{}:0", parts / 2)]);
                parts += 1;
            }
            assert!((0..start).all(|n| met.get(n.to_string().as_bytes()) == Some(&1)));
            assert_eq!(parts > 200, start == 2000, "{parts}");
        }
    }

    #[test]
    fn a_scan_shows_what_matches() {
        let mut runner = Runner::default();
        add(&mut runner, "s", (0..1000).map(|n| format!("{}:{n}", n % 10)));
        let reply = runner.run(&["SSCAN", "s", "0", "MATCH", "3:*", "COUNT", "1000"]);
        let words = bulks(&reply);
        assert_eq!((words[0], words.len()), (b"0".as_slice(), 101));
        assert!(words[1..].iter().all(|member| member.starts_with(b"3:")));
    }

    /// Small sets of integers and of texts, and large ones.
    fn each_form(check: impl Fn(&mut Runner, u64)) {
        for (size, prefix) in [(20, ""), (20, "m"), (5000, ""), (5000, "m")] {
            let mut runner = Runner::default();
            add(&mut runner, "s", (0..size).map(|n| format!("{prefix}{n}")));
            check(&mut runner, size);
        }
    }

    #[test]
    fn what_is_popped_is_gone_and_nothing_else() {
        each_form(|runner, size| {
            for wanted in [0, 1, 7, size / 2] {
                let before = runner.run(&["SMEMBERS", "s"]);
                let popped = runner.run(&["SPOP", "s", &wanted.to_string()]);
                let popped = bulks(&popped);
                assert_eq!(popped.len() as u64, wanted);
                let mut expected = bulks(&before);
                expected.retain(|member| !popped.contains(member));
                let after = runner.run(&["SMEMBERS", "s"]);
                assert_eq!(bulks(&after), expected);
                assert_eq!(expected.len() + popped.len(), bulks(&before).len());
            }
            let one = runner.run(&["SPOP", "s"]);
            let one = String::from_utf8(bulks(&one)[0].to_vec()).expect("text");
            assert_eq!(runner.run(&["SISMEMBER", "s", &one]), b":0\r\n");
            runner.run(&["SPOP", "s", "9223372036854775807"]);
            assert_eq!(runner.run(&["EXISTS", "s"]), b":0\r\n");
        });
    }

    #[test]
    fn random_members_are_members_and_change_nothing() {
        each_form(|runner, size| {
            let all = runner.run(&["SMEMBERS", "s"]);
            let all = bulks(&all);
            for wanted in [1, 7, size as i64, 10_000, -1, -30_000] {
                let reply = runner.run(&["SRANDMEMBER", "s", &wanted.to_string()]);
                let mut members = bulks(&reply);
                let expected = if wanted < 0 { -wanted } else { wanted.min(size as i64) };
                assert_eq!(members.len() as i64, expected);
                members.sort_unstable();
                members.dedup();
                assert!(wanted < 0 || members.len() as i64 == expected, "no two the same");
                // 1.5 for every member of the large one at the least: 4 in 5 are met.
                assert!(wanted != -30_000 || members.len() as u64 > size * 4 / 5);
                let mut sorted = all.clone();
                sorted.sort_unstable();
                assert!(members.iter().all(|member| sorted.binary_search(member).is_ok()));
            }
            assert_eq!(count(runner, "s"), format!(":{size}\r\n").into_bytes());
        });
    }

    #[test]
    fn members_that_may_come_again_have_a_bound() {
        let mut runner = Runner::default();
        runner.run(&["SADD", "s", "a"]);
        for wanted in [-1 - RANDOM_ELEMENTS_MAX as i64, -i64::MAX] {
            let refused = runner.try_run(&["SRANDMEMBER", "s", &wanted.to_string()]);
            assert_eq!(refused, Err(Refusal::text("ERR value is out of range")));
        }
        assert_eq!(runner.run(&["SRANDMEMBER", "s", "9223372036854775807"]), b"*1\r\n$1\r\na\r\n");
    }
}
