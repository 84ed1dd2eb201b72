//! Deadlines: setting and asking them, and the deletions that the leader proposes by itself.
//!
//! Deadlines are absolute: what a client gives as a span is added to the time of the entry, which
//! is the leader's and the same on every replica. An item past its deadline is absent to every
//! command from that moment on; its memory returns when the leader has [`EXPIRE_KEYS`] remove it.

use super::refusal::{Outcome, Refusal};
use super::{Arity, Call, Command, Group, Keys, read, write};
use crate::resp::reply::Reply;
use ringraft_shards::ids::Deadline;
use ringraft_shards::keyspace::{Edit, View};

/// Name of the row that removes the given keys of those past their deadline. Not for clients.
pub const EXPIRE_KEYS: &str = "expire-keys";

/// Name of the row that removes the given keys to make room. Not for clients.
pub const EVICT_KEYS: &str = "evict-keys";

/// Name of the row that turns a shard's time back. Not for clients.
pub const TURN_BACK: &str = "turn-back";

/// Rows of this file.
pub const COMMANDS: &[Command] = &[
    write("expire", Arity::AtLeast(3), Keys::FIRST, expire).fast().about(
        Group::Generic,
        "1.0.0",
        "Has a key end after so many seconds.",
    ),
    write("pexpire", Arity::AtLeast(3), Keys::FIRST, pexpire).fast().about(
        Group::Generic,
        "2.6.0",
        "Has a key end after so many milliseconds.",
    ),
    write("expireat", Arity::AtLeast(3), Keys::FIRST, expireat).fast().about(
        Group::Generic,
        "1.2.0",
        "Has a key end at a Unix time in seconds.",
    ),
    write("pexpireat", Arity::AtLeast(3), Keys::FIRST, pexpireat).fast().about(
        Group::Generic,
        "2.6.0",
        "Has a key end at a Unix time in milliseconds.",
    ),
    read("ttl", Arity::Exactly(2), Keys::FIRST, ttl).fast().random_reply().about(
        Group::Generic,
        "1.0.0",
        "Seconds until a key ends.",
    ),
    read("pttl", Arity::Exactly(2), Keys::FIRST, pttl).fast().random_reply().about(
        Group::Generic,
        "2.6.0",
        "Milliseconds until a key ends.",
    ),
    read("expiretime", Arity::Exactly(2), Keys::FIRST, expiretime).fast().about(
        Group::Generic,
        "7.0.0",
        "Unix time in seconds at which a key ends.",
    ),
    read("pexpiretime", Arity::Exactly(2), Keys::FIRST, pexpiretime).fast().about(
        Group::Generic,
        "7.0.0",
        "Unix time in milliseconds at which a key ends.",
    ),
    write("persist", Arity::Exactly(2), Keys::FIRST, persist).fast().about(
        Group::Generic,
        "2.2.0",
        "Has a key never end.",
    ),
    write(EXPIRE_KEYS, Arity::AtLeast(2), Keys::ALL, expire_keys).internal().about(
        Group::Generic,
        "7.2.0",
        "Removes those of the keys that are past their deadline.",
    ),
    write(EVICT_KEYS, Arity::AtLeast(2), Keys::ALL, evict_keys).internal().about(
        Group::Generic,
        "7.2.0",
        "Removes keys to make room.",
    ),
    write(TURN_BACK, Arity::Exactly(2), Keys::NONE, turn_back).internal().about(
        Group::Generic,
        "7.2.0",
        "Turns the time back and removes what has ended before.",
    ),
];

const SECOND_MS: i64 = 1000;
const MILLISECOND_MS: i64 = 1;

fn expire(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now_ms = edit.now_ms();
    set_deadline(call, edit, reply, now_ms, SECOND_MS)
}

fn pexpire(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now_ms = edit.now_ms();
    set_deadline(call, edit, reply, now_ms, MILLISECOND_MS)
}

fn expireat(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    set_deadline(call, edit, reply, 0, SECOND_MS)
}

fn pexpireat(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    set_deadline(call, edit, reply, 0, MILLISECOND_MS)
}

/// The deadline is `base_ms` plus the second argument in units of `unit_ms`.
fn set_deadline(
    call: &Call<'_>,
    edit: &mut Edit<'_>,
    reply: &mut Reply<'_>,
    base_ms: i64,
    unit_ms: i64,
) -> Outcome {
    let condition = Condition::of(call)?;
    let deadline = call
        .integer(2)?
        .checked_mul(unit_ms)
        .and_then(|span_ms| span_ms.checked_add(base_ms))
        .map(Deadline)
        .ok_or(Refusal::InvalidExpire(call.command.name))?;
    let key = call.key(1);
    let set = match edit.view().get(&key) {
        Some(item) => condition.allows(item.deadline(), deadline),
        None => false,
    };
    reply.integer(i64::from(set && edit.set_deadline(&key, Some(deadline))));
    Ok(())
}

/// Words after the deadline.
#[derive(Clone, Copy, Default)]
struct Condition {
    without: bool,
    with: bool,
    later: bool,
    earlier: bool,
}

impl Condition {
    fn of(call: &Call<'_>) -> Result<Condition, Refusal> {
        let mut condition = Condition::default();
        for word in call.arguments.iter_from(3) {
            match word.to_ascii_lowercase().as_slice() {
                b"nx" => condition.without = true,
                b"xx" => condition.with = true,
                b"gt" => condition.later = true,
                b"lt" => condition.earlier = true,
                _ => return Err(Refusal::repeating("ERR Unsupported option ", word, "")),
            }
        }
        if condition.without && (condition.with || condition.later || condition.earlier) {
            return Err(Refusal::text(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if condition.later && condition.earlier {
            return Err(Refusal::text("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(condition)
    }

    /// An item without deadline ends later than any other.
    fn allows(self, old: Option<Deadline>, new: Deadline) -> bool {
        !(self.without && old.is_some()
            || self.with && old.is_none()
            || self.later && old.is_none_or(|old| new <= old)
            || self.earlier && old.is_some_and(|old| new >= old))
    }
}

fn ttl(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    answer(call, view, reply, |deadline_ms| rounded_seconds((deadline_ms - view.now_ms()).max(0)))
}

fn pttl(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    answer(call, view, reply, |deadline_ms| (deadline_ms - view.now_ms()).max(0))
}

fn expiretime(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    answer(call, view, reply, rounded_seconds)
}

fn pexpiretime(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    answer(call, view, reply, |deadline_ms| deadline_ms)
}

/// -2 without a key, -1 without a deadline, else what `number` makes of it.
fn answer(
    call: &Call<'_>,
    view: &View<'_>,
    reply: &mut Reply<'_>,
    number: impl Fn(i64) -> i64,
) -> Outcome {
    reply.integer(match view.peek(&call.key(1)).map(|item| item.deadline()) {
        None => -2,
        Some(None) => -1,
        Some(Some(Deadline(deadline_ms))) => number(deadline_ms),
    });
    Ok(())
}

fn rounded_seconds(ms: i64) -> i64 {
    ms / SECOND_MS + i64::from(ms % SECOND_MS >= SECOND_MS / 2)
}

fn persist(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let key = call.key(1);
    let limited = edit.view().get(&key).is_some_and(|item| item.deadline().is_some());
    reply.integer(i64::from(limited && edit.set_deadline(&key, None)));
    Ok(())
}

fn expire_keys(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let mut count = 0;
    for i in call.command.keys.positions(call.arguments) {
        count += i64::from(edit.remove_expired(&call.key(i)));
    }
    reply.integer(count);
    Ok(())
}

fn evict_keys(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let mut count = 0;
    for i in call.command.keys.positions(call.arguments) {
        let key = call.key(i);
        count += i64::from(edit.remove_expired(&key) || edit.remove(&key));
    }
    reply.integer(count);
    Ok(())
}

fn turn_back(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let to_ms = call.integer(1)?;
    edit.turn_back(to_ms);
    reply.ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::tests::Runner;

    #[test]
    fn only_what_is_past_its_deadline_expires() {
        let mut runner = Runner::default();
        runner.run(&["SET", "late", "value", "PX", "10"]);
        runner.run(&["SET", "early", "value", "PX", "1000"]);
        runner.run(&["SET", "always", "value"]);
        runner.now_ms += 11;
        assert_eq!(runner.run(&["DBSIZE"]), b":3\r\n");
        assert_eq!(runner.run(&[EXPIRE_KEYS, "late", "early", "always", "nosuch"]), b":1\r\n");
        assert_eq!(runner.run(&["DBSIZE"]), b":2\r\n");
        assert_eq!(runner.run(&[EVICT_KEYS, "early", "nosuch"]), b":1\r\n");
        assert_eq!(runner.run(&["DBSIZE"]), b":1\r\n");
        // Evicting takes what has expired, too.
        runner.run(&["PEXPIRE", "always", "10"]);
        runner.now_ms += 11;
        assert_eq!(runner.run(&[EVICT_KEYS, "always"]), b":1\r\n");
        assert_eq!(runner.run(&["DBSIZE"]), b":0\r\n");
    }

    #[test]
    fn clients_do_not_find_the_rows_of_the_leader() {
        for name in [EXPIRE_KEYS, EVICT_KEYS, TURN_BACK] {
            assert!(crate::core::commands::table::find(name.as_bytes()).is_none());
        }
    }
}
