//! Hashes: fields with values.

use super::lots::Drawing;
use super::refusal::{Outcome, Refusal};
use super::scan::{Cursor, ScanOptions, reply_elements};
use super::{Arity, Call, Command, Group, Keys, read, write};
use crate::numbers::long_double::LongDouble;
use crate::numbers::parse_integer;
use crate::resp::listing::{Listing, Shown};
use crate::resp::reply::{Protocol, Reply};
use Arity::{AtLeast, Exactly};
use ringraft_shards::keyspace::{Edit, View};
use ringraft_shards::value::Value;
use ringraft_shards::value::hash::Hash;
use ringraft_shards::value::spot::MEMBERS_AHEAD;

/// The rows of this family.
pub const COMMANDS: &[Command] = &[
    write("hset", AtLeast(4), Keys::FIRST, hset).seeks(2).grows().fast().about(
        Group::Hash,
        "2.0.0",
        "Sets fields of a hash, making the hash when it does not exist.",
    ),
    read("hget", Exactly(3), Keys::FIRST, hget).seeks(2).fast().about(
        Group::Hash,
        "2.0.0",
        "Returns the value of a field of a hash.",
    ),
    read("hlen", Exactly(2), Keys::FIRST, hlen).fast().about(
        Group::Hash,
        "2.0.0",
        "Counts the fields of a hash.",
    ),
    write("hmset", AtLeast(4), Keys::FIRST, hmset).seeks(2).grows().fast().about(
        Group::Hash,
        "2.0.0",
        "Sets fields of a hash, making the hash when it does not exist.",
    ),
    write("hsetnx", Exactly(4), Keys::FIRST, hsetnx).seeks(2).grows().fast().about(
        Group::Hash,
        "2.0.0",
        "Sets a field of a hash that has none of this name.",
    ),
    read("hmget", AtLeast(3), Keys::FIRST, hmget).seeks(2).fast().about(
        Group::Hash,
        "2.0.0",
        "Returns the values of several fields of a hash.",
    ),
    read("hgetall", Exactly(2), Keys::FIRST, hgetall).about(
        Group::Hash,
        "2.0.0",
        "Returns all fields of a hash and their values.",
    ),
    write("hdel", AtLeast(3), Keys::FIRST, hdel).seeks(2).fast().about(
        Group::Hash,
        "2.0.0",
        "Takes fields out of a hash.",
    ),
    read("hexists", Exactly(3), Keys::FIRST, hexists).seeks(2).fast().about(
        Group::Hash,
        "2.0.0",
        "Says whether a hash has a field.",
    ),
    read("hstrlen", Exactly(3), Keys::FIRST, hstrlen).seeks(2).fast().about(
        Group::Hash,
        "3.2.0",
        "Returns the size of the value of a field.",
    ),
    read("hkeys", Exactly(2), Keys::FIRST, hkeys).about(
        Group::Hash,
        "2.0.0",
        "Returns all fields of a hash.",
    ),
    read("hvals", Exactly(2), Keys::FIRST, hvals).about(
        Group::Hash,
        "2.0.0",
        "Returns all values of a hash.",
    ),
    write("hincrby", Exactly(4), Keys::FIRST, hincrby).seeks(2).grows().fast().about(
        Group::Hash,
        "2.0.0",
        "Adds a number to the integer of a field, which counts as 0 when it does not exist.",
    ),
    write("hincrbyfloat", Exactly(4), Keys::FIRST, hincrbyfloat).seeks(2).grows().fast().about(
        Group::Hash,
        "2.6.0",
        "Adds a number to the number of a field, which counts as 0 when it does not exist.",
    ),
    read("hrandfield", AtLeast(2), Keys::FIRST, hrandfield).random_reply().about(
        Group::Hash,
        "6.2.0",
        "Returns fields of a hash by chance.",
    ),
    read("hscan", AtLeast(3), Keys::FIRST, hscan).random_reply().about(
        Group::Hash,
        "2.8.0",
        "Some fields of a hash with their values, and where to go on.",
    ),
];

/// HSET key field value [field value ...]. Returns how many fields are new. Keeps the deadline.
fn hset(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let added = set_pairs(call, edit)?;
    reply.integer(added as i64);
    Ok(())
}

/// Sets the fields of the arguments after the key. How many are new?
fn set_pairs(call: &Call<'_>, edit: &mut Edit<'_>) -> Result<usize, Refusal> {
    if !call.count().is_multiple_of(2) {
        return Err(Refusal::Arity(call.command.name.into()));
    }
    let key = call.key(1);
    let mut hash = edit.hash_mut(&key)?;
    let mut added = 0;
    for (place, i) in (2..call.count()).step_by(2).enumerate() {
        if place.is_multiple_of(MEMBERS_AHEAD) {
            hash.hash().fetch(call.arguments.iter_from(i).step_by(2));
        }
        added += usize::from(hash.set(call.at(i), call.at(i + 1)));
    }
    Ok(added)
}

/// HGET key field.
fn hget(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    match call.hash(1, view)?.and_then(|hash| hash.get(call.at(2))) {
        Some(value) => reply.bulk(value),
        None => reply.null(),
    }
    Ok(())
}

/// HLEN key.
fn hlen(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let count = call.hash(1, view)?.map_or(0, |hash| hash.shown_count());
    reply.integer(count as i64);
    Ok(())
}

/// HMSET key field value [field value ...]. As HSET, but does not count.
fn hmset(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    set_pairs(call, edit)?;
    reply.ok();
    Ok(())
}

/// HSETNX key field value.
fn hsetnx(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let key = call.key(1);
    let mut hash = edit.hash_mut(&key)?;
    let is_new = hash.hash().get(call.at(2)).is_none();
    if is_new {
        hash.set(call.at(2), call.at(3));
    }
    reply.integer(i64::from(is_new));
    Ok(())
}

/// HMGET key field [field ...]. A field that is not there is null.
fn hmget(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let hash = call.hash(1, view)?;
    reply.array(call.count() - 2);
    for (place, field) in call.arguments.iter_from(2).enumerate() {
        if let (Some(hash), true) = (hash, place.is_multiple_of(MEMBERS_AHEAD)) {
            hash.fetch(call.arguments.iter_from(2 + place));
        }
        match hash.and_then(|hash| hash.get(field)) {
            Some(value) => reply.bulk(value),
            None => reply.null(),
        }
    }
    Ok(())
}

/// HGETALL key: a map, empty when there is no such key.
fn hgetall(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let hash = call.hash(1, view)?;
    reply.map(hash.map_or(0, |hash| hash.shown_count() as usize));
    list_all(hash, Shown::Fields, reply);
    Ok(())
}

/// Shows all fields of a hash at the end of a reply, if there is one.
fn list_all(hash: Option<Hash<'_>>, shown: Shown, reply: &mut Reply<'_>) {
    if let Some(hash) = hash {
        reply.list(Value::Hash(hash), Listing::from(0, hash.shown_count(), shown));
    }
}

/// HDEL key field [field ...]. Returns how many there were. The last one takes the key along.
fn hdel(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let key = call.key(1);
    let mut hash = edit.hash_mut(&key)?;
    let mut removed = 0;
    for (place, field) in call.arguments.iter_from(2).enumerate() {
        if place.is_multiple_of(MEMBERS_AHEAD) {
            hash.hash().fetch(call.arguments.iter_from(2 + place));
        }
        removed += usize::from(hash.remove(field));
    }
    reply.integer(removed as i64);
    Ok(())
}

/// HEXISTS key field.
fn hexists(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let value = call.hash(1, view)?.and_then(|hash| hash.get(call.at(2)));
    reply.integer(i64::from(value.is_some()));
    Ok(())
}

/// HSTRLEN key field.
fn hstrlen(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let value = call.hash(1, view)?.and_then(|hash| hash.get(call.at(2)));
    reply.integer(value.map_or(0, |value| value.len() as i64));
    Ok(())
}

/// HKEYS key.
fn hkeys(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let hash = call.hash(1, view)?;
    reply.array(hash.map_or(0, |hash| hash.shown_count() as usize));
    list_all(hash, Shown::Names, reply);
    Ok(())
}

/// HVALS key.
fn hvals(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let hash = call.hash(1, view)?;
    reply.array(hash.map_or(0, |hash| hash.shown_count() as usize));
    list_all(hash, Shown::Values, reply);
    Ok(())
}

/// HINCRBY key field increment.
fn hincrby(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let increment = call.integer(3)?;
    let key = call.key(1);
    let mut hash = edit.hash_mut(&key)?;
    let number = match hash.hash().get(call.at(2)) {
        Some(text) => {
            parse_integer(text).ok_or(Refusal::text("ERR hash value is not an integer"))?
        }
        None => 0,
    };
    let sum = number
        .checked_add(increment)
        .ok_or(Refusal::text("ERR increment or decrement would overflow"))?;
    hash.set_keeping(call.at(2), itoa::Buffer::new().format(sum).as_bytes());
    reply.integer(sum);
    Ok(())
}

/// HINCRBYFLOAT key field increment.
fn hincrbyfloat(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let increment = LongDouble::parse(call.at(3)).ok_or(Refusal::NotAFloat)?;
    if increment == LongDouble::Infinite {
        return Err(Refusal::text("ERR value is NaN or Infinity"));
    }
    let key = call.key(1);
    let mut hash = edit.hash_mut(&key)?;
    let number = match hash.hash().get(call.at(2)) {
        Some(text) => {
            LongDouble::parse(text).ok_or(Refusal::text("ERR hash value is not a float"))?
        }
        None => LongDouble::ZERO,
    };
    let sum = number
        .checked_add(increment)
        .ok_or(Refusal::text("ERR increment would produce NaN or Infinity"))?;
    let mut text = Vec::with_capacity(32);
    sum.print(&mut text);
    hash.set_keeping(call.at(2), &text);
    reply.bulk(&text);
    Ok(())
}

/// HRANDFIELD key [count [WITHVALUES]]. A negative count may name a field more than once.
fn hrandfield(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let drawing = Drawing::of(call, "withvalues")?;
    let Some(hash) = call.hash(1, view)? else {
        match drawing.count {
            None => reply.null(),
            Some(_) => reply.array(0),
        }
        return Ok(());
    };
    // Ranks are of all fields: where some have ended that are still there, those that have not are
    // counted.
    let shown: Option<Vec<_>> = hash.hides_any().then(|| hash.fields_from(0).collect());
    let count = shown.as_ref().map_or(hash.count(), |shown| shown.len() as u64);
    if count == 0 {
        match drawing.count {
            None => reply.null(),
            Some(_) => reply.array(0),
        }
        return Ok(());
    }
    let ranks = drawing.ranks(call.seed, count)?;
    if drawing.count.is_some() {
        let doubled = drawing.in_pairs && reply.protocol() == Protocol::Resp2;
        reply.array(if doubled { 2 * ranks.len() } else { ranks.len() });
    }
    let mut show = |(field, value): (&[u8], &[u8])| {
        if drawing.in_pairs && reply.protocol() == Protocol::Resp3 {
            reply.array(2);
        }
        reply.bulk(field);
        if drawing.in_pairs {
            reply.bulk(value);
        }
    };
    if let Some(shown) = shown {
        ranks.into_iter().for_each(|rank| show(shown[rank as usize]));
    } else if ranks.len() as u64 == count && drawing.count.is_some_and(|count| count >= 0) {
        hash.fields_from(0).for_each(&mut show);
    } else {
        ranks.into_iter().filter_map(|rank| hash.at(rank)).for_each(&mut show);
    }
    Ok(())
}

/// HSCAN key cursor [MATCH pattern] [COUNT count] [NOVALUES]. Options are looked at only when there
/// is a hash, as in Redis.
fn hscan(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let cursor = Cursor::at(call.arguments, 2)?;
    let mut found = Vec::new();
    let (mut count, mut next) = (0, 0);
    if let Some(hash) = call.hash(1, view)? {
        let options = ScanOptions::of_fields(call.arguments)?;
        let mut parts = Reply::new(&mut found, reply.protocol());
        next = hash.scan(cursor.0, options.count, &mut |field, value| {
            if options.pattern.as_ref().is_some_and(|glob| !glob.matches(field)) {
                return;
            }
            parts.bulk(field);
            count += 1;
            if !options.hides_values {
                parts.bulk(value);
                count += 1;
            }
        });
    }
    reply_elements(next, count, &found, reply);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::tests::{Runner, bulks};
    use std::collections::BTreeSet;

    #[test]
    fn random_fields_have_a_bound() {
        let mut runner = Runner::default();
        runner.run(&["hset", "h", "f", "v"]);
        for count in ["-9223372036854775807", "-16777217"] {
            let refusal = Refusal::text("ERR value is out of range");
            assert_eq!(runner.try_run(&["hrandfield", "h", count]), Err(refusal), "{count}");
        }
        let several = runner.run(&["hrandfield", "h", "-1000", "withvalues"]);
        assert_eq!(bulks(&several), [b"f", b"v"].repeat(1000));
    }

    #[test]
    fn random_fields_of_large_hashes_are_distinct() {
        let mut runner = Runner::default();
        let fields: Vec<String> = (0..1000).map(|number| format!("field {number}")).collect();
        for field in &fields {
            runner.run(&["hset", "h", field, "v"]);
        }
        for count in ["1", "2", "500", "999", "1000", "1001", "9223372036854775807"] {
            let reply = runner.run(&["hrandfield", "h", count]);
            let found: BTreeSet<&[u8]> = bulks(&reply).into_iter().collect();
            let expected = count.parse().map_or(1000, |count: usize| count.min(1000));
            assert_eq!((found.len(), bulks(&reply).len()), (expected, expected), "{count}");
            assert!(
                found.iter().all(|found| fields.iter().any(|field| field.as_bytes() == *found))
            );
        }
        let alone: BTreeSet<Vec<u8>> = (0..100).map(|_| runner.run(&["hrandfield", "h"])).collect();
        assert!(alone.len() > 50, "one of many, by chance");
    }

    #[test]
    fn scans_of_large_hashes_find_all() {
        let mut runner = Runner::default();
        for number in 0..1000 {
            runner.run(&["hset", "h", &format!("field {number}"), "v"]);
        }
        let (mut cursor, mut found, mut steps) = ("0".to_owned(), BTreeSet::new(), 0);
        loop {
            let reply = runner.run(&["hscan", "h", &cursor, "count", "50", "novalues"]);
            let parts = bulks(&reply);
            found.extend(parts[1..].iter().map(|field| field.to_vec()));
            (cursor, steps) = (String::from_utf8_lossy(parts[0]).into_owned(), steps + 1);
            if cursor == "0" {
                break;
            }
        }
        assert_eq!((found.len(), steps), (1000, 20));
    }
}
