//! DEBUG: for tests of servers and of clients.

use super::help::help;
use super::{Answer, Arity, Call, Gather, Group, Keys, Row, container, plain, read, session};
use crate::commands::object::encoding_name;
use crate::core::cluster::META;
use crate::core::place::moving::Wish;
use crate::core::{Core, SessionContext};
use crate::refusal::{Outcome, Refusal};
use crate::resp::reply::{Protocol, Reply};
use ringraft_shards::ids::ShardId;
use ringraft_shards::keyspace::{AccessClock, View};
use std::time::Duration;

/// Rows of this file.
pub const COMMANDS: &[Row] =
    &[container("debug", DEBUG).about(Group::Server, "1.0.0", "For tests of servers and clients.")];

const DEBUG: &[Row] = &[
    session("digest", Arity::Exactly(2), digest).of("debug").admin().asks().about(
        Group::Server,
        "1.0.0",
        "Digest of all keys, values and deadlines: equal data, equal digest.",
    ),
    read("digest-value", Arity::AtLeast(3), Keys::FROM_SECOND, digest_value)
        .of("debug")
        .split(Gather::InOrder)
        .about(Group::Server, "5.0.0", "Digest of the value of each key."),
    plain("help", Arity::Exactly(2), help).of("debug").about(
        Group::Server,
        "5.0.0",
        "Lists the subcommands.",
    ),
    session("move-shard", Arity::Exactly(4), move_shard).of("debug").admin().asks().about(
        Group::Server,
        "7.2.0",
        "Moves a shard to a core, while it serves.",
    ),
    read("object", Arity::Exactly(3), Keys::SECOND, object).of("debug").random_reply().about(
        Group::Server,
        "1.0.0",
        "How the value of a key is kept.",
    ),
    plain("protocol", Arity::Exactly(3), protocol).of("debug").about(
        Group::Server,
        "6.0.0",
        "A reply of the type that is named.",
    ),
    super::persistence::RELOAD,
    session("set-active-expire", Arity::Exactly(3), set_active_expire)
        .of("debug")
        .admin()
        .asks()
        .about(Group::Server, "2.4.0", "Deletes expired keys in the background (1) or not (0)."),
    session("sleep", Arity::Exactly(3), sleep).of("debug").admin().about(
        Group::Server,
        "1.0.0",
        "Stops the core of this connection for some seconds.",
    ),
];

type Digest = [u8; 20];

fn digest(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let ask = |core: &mut Core| -> Digest {
        let digests = core
            .shards
            .iter()
            .filter(|shard| shard.id != META)
            .map(|shard| shard.keyspace.digest_items());
        digests.fold(Digest::default(), add)
    };
    context.ask_cores(ask, |_, digests, reply| {
        reply.simple(&hexadecimal(digests.into_iter().fold(Digest::default(), add)));
    })
}

/// Digests of shards add up to that of the whole, word by word.
fn add(one: Digest, other: Digest) -> Digest {
    let mut sum = Digest::default();
    let words = |digest: Digest| {
        let (mut low, mut high) = ([0; 8], [0; 8]);
        low.copy_from_slice(&digest[..8]);
        high.copy_from_slice(&digest[8..16]);
        let tail = [digest[16], digest[17], digest[18], digest[19]];
        (u64::from_le_bytes(low), u64::from_le_bytes(high), u32::from_le_bytes(tail))
    };
    let (a, b) = (words(one), words(other));
    sum[..8].copy_from_slice(&a.0.wrapping_add(b.0).to_le_bytes());
    sum[8..16].copy_from_slice(&a.1.wrapping_add(b.1).to_le_bytes());
    sum[16..].copy_from_slice(&a.2.wrapping_add(b.2).to_le_bytes());
    sum
}

fn hexadecimal(digest: Digest) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digest_value(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply.array(call.count() - 2);
    for i in 2..call.count() {
        let item = view.peek(&call.key(i));
        let digest = item.map_or(Digest::default(), |item| view.digest_value(&item));
        reply.simple(&hexadecimal(digest));
    }
    Ok(())
}

fn object(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let item = view.peek(&call.key(2)).ok_or(Refusal::NoSuchKey)?;
    let mut payload = Vec::new();
    ringraft_shards::rdb::write_payload(&mut payload, item.value());
    // Without the type before it, and version and checksum behind.
    let serialized = payload.len() - 11;
    let idle = match view.access_clock() {
        AccessClock::Recency => item.idle_seconds(view.now_ms()),
        AccessClock::Frequency => 0,
    };
    let clock = (view.now_ms() / 1000 - idle as i64) & 0xff_ffff;
    reply.simple(&format!(
        "Value at:{:p} refcount:1 encoding:{} serializedlength:{serialized} lru:{clock} \
         lru_seconds_idle:{idle}",
        item.key().as_ptr(),
        encoding_name(item)
    ));
    Ok(())
}

#[allow(clippy::approx_constant)] // Redis' example of a double.
fn protocol(call: &Call<'_>, reply: &mut Reply<'_>) -> Outcome {
    let is_resp3 = reply.protocol() == Protocol::Resp3;
    match call.at(2).to_ascii_lowercase().as_slice() {
        b"string" => reply.bulk(b"Hello World"),
        b"integer" => reply.integer(12345),
        b"double" => reply.double(3.141),
        b"null" => reply.null(),
        b"array" => {
            reply.array(3);
            (0..3).for_each(|n| reply.integer(n));
        }
        b"set" => {
            reply.set(3);
            (0..3).for_each(|n| reply.integer(n));
        }
        b"map" => {
            reply.map(3);
            for n in 0..3 {
                reply.integer(n);
                reply.boolean(n == 1);
            }
        }
        b"attrib" => {
            if is_resp3 {
                reply.raw(b"|1\r\n");
                reply.bulk(b"key-popularity");
                reply.array(2);
                reply.bulk(b"key:123");
                reply.integer(90);
            }
            reply.bulk(b"Some real reply following the attribute");
        }
        b"push" if !is_resp3 => {
            return Err(Refusal::text("ERR RESP2 is not supported by this command"));
        }
        b"push" => {
            reply.raw(b">2\r\n");
            reply.bulk(b"server-cpu-usage");
            reply.integer(42);
            reply.bulk(b"Some real reply following the push reply");
        }
        b"verbatim" => reply.verbatim("This is a verbatim\nstring"),
        b"true" => reply.boolean(true),
        b"false" => reply.boolean(false),
        b"bignum" if is_resp3 => reply.raw(b"(1234567999999999999999999999999999999\r\n"),
        b"bignum" => reply.bulk(b"1234567999999999999999999999999999999"),
        _ => {
            return Err(Refusal::text(
                "ERR Wrong protocol type name. Please use one of the following: string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false",
            ));
        }
    }
    Ok(())
}

fn set_active_expire(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let on = call.integer(2)? != 0;
    context.ask_cores(move |core| core.active_expire = on, |_, _, reply| reply.ok())
}

fn move_shard(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let (shard_count, core_count) = (context.core.router.shard_count(), context.core.core_count());
    let below = |position: usize, count: usize, what: &str| {
        let number = call.integer(position)?;
        let found = usize::try_from(number).ok().filter(|number| *number < count);
        let unknown = || Refusal::Text(format!("ERR no such {what}: {number}").into());
        found.map(|number| number as u16).ok_or_else(unknown)
    };
    let shard = ShardId(below(2, shard_count, "shard")?);
    let to = below(3, core_count, "core")?;
    let waiter = context.await_one();
    context.core.move_shard(Wish { shard, to, waiter: Some(waiter) });
    Ok(Answer::Later)
}

/// Longest sleep: longer ones are cut, so that a typing error does not end the server.
const SLEEP_SECONDS_MAX: f64 = 3600.0;

fn sleep(
    _: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let seconds = std::str::from_utf8(call.at(2)).ok().and_then(|text| text.parse::<f64>().ok());
    let seconds = seconds.filter(|seconds| *seconds >= 0.0).ok_or(Refusal::NotAFloat)?;
    std::thread::sleep(Duration::from_secs_f64(seconds.min(SLEEP_SECONDS_MAX)));
    reply.ok();
    Ok(Answer::Now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_add_up_in_any_order() {
        let one: Digest = std::array::from_fn(|i| 250 + (i % 5) as u8);
        let other: Digest = std::array::from_fn(|i| 13 * i as u8);
        assert_eq!(add(one, other), add(other, one));
        assert_eq!(add(one, Digest::default()), one);
        assert_ne!(add(one, one), Digest::default());
    }
}
