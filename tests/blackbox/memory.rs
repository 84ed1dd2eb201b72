//! Keys that go by themselves: expiry that nobody has to ask for, eviction under each policy, and
//! the refusal where nothing may be evicted.

use crate::support::client::encode;
use crate::support::{Client, Server, Value, eventually};

/// Memory granted above what the empty server uses.
const ROOM_BYTES: i64 = 32 << 20;

/// How far used memory may stand above the limit: what the requests of one turn add before
/// eviction.
const OVERSHOOT_BYTES: i64 = 8 << 20;

const VALUE_BYTES: usize = 4096;
const PIPELINE: usize = 100;

#[test]
fn keys_expire_without_being_asked_for() {
    for shards in ["1", "3"] {
        let server = Server::start(&["--shards", shards]);
        let mut client = server.client();
        let mut bytes = Vec::new();
        for index in 0..5000 {
            bytes.extend(encode(&[
                "SET".into(),
                format!("short:{index}"),
                "x".into(),
                "PX".into(),
                "200".into(),
            ]));
            bytes.extend(encode(&[
                "SET".into(),
                format!("long:{index}"),
                "x".into(),
                "EX".into(),
                "1000".into(),
            ]));
        }
        client.pipeline(&bytes, 10_000);
        eventually("the short-lived keys are gone", || {
            (client.say("DBSIZE") == Value::Integer(5000)).then_some(())
        });
        assert_eq!(client.say("EXISTS short:1"), Value::Integer(0));
        assert_eq!(client.say("EXISTS long:1"), Value::Integer(1));
        assert!(server.info_number("expired_keys") >= 5000);
        let keyspace = server.info("db0");
        assert!(keyspace.starts_with("keys=5000,expires=5000,avg_ttl="), "{keyspace}");
    }
}

#[test]
fn a_key_is_gone_at_its_deadline() {
    let server = Server::start(&["--shards", "2"]);
    let mut client = server.client();
    // Without active expiry a key must vanish at the moment somebody looks.
    assert_eq!(client.say("DEBUG SET-ACTIVE-EXPIRE 0"), Value::ok());
    assert_eq!(client.say("SET a 1 PX 50"), Value::ok());
    eventually("a expires", || (client.say("GET a") == Value::Null).then_some(()));
    assert_eq!(client.say("TTL a"), Value::Integer(-2));
    assert_eq!(client.say("SET a 1 EX 100"), Value::ok());
    assert!((90..=100).contains(&client.say("TTL a").integer()));
    assert_eq!(client.say("PERSIST a"), Value::Integer(1));
    assert_eq!(client.say("TTL a"), Value::Integer(-1));
    assert_eq!(client.say("PEXPIREAT a 1"), Value::Integer(1));
    assert_eq!(client.say("EXISTS a"), Value::Integer(0));
}

struct Limited {
    server: Server,
    client: Client,
    maxmemory: i64,
}

fn limited(arguments: &[&str], policy: &str) -> Limited {
    let server = Server::start(&[arguments, &["--maxmemory-policy", policy]].concat());
    let mut client = server.client();
    // What a first connection and a first pipeline allocate is not what is measured here.
    write(&mut client, "warm", 0, PIPELINE, "");
    assert_eq!(client.say("FLUSHALL"), Value::ok());
    let maxmemory = server.info_number("used_memory") + ROOM_BYTES;
    assert_eq!(client.say(&format!("CONFIG SET maxmemory {maxmemory}")), Value::ok());
    Limited { server, client, maxmemory }
}

/// Sets `count` keys from `first` on; returns the errors.
fn write(client: &mut Client, prefix: &str, first: usize, count: usize, ttl: &str) -> Vec<String> {
    let value = "x".repeat(VALUE_BYTES);
    let mut bytes = Vec::new();
    for index in first..first + count {
        let name = format!("{prefix}:{index}");
        let mut arguments = vec!["SET", &name, &value];
        arguments.extend(ttl.split_whitespace());
        bytes.extend(encode(&arguments));
    }
    let replies = client.pipeline(&bytes, count);
    replies.iter().filter(|reply| reply.is_error()).map(|reply| reply.error().to_string()).collect()
}

/// Writes three times what fits and watches the memory on the way.
fn overfill(limited: &mut Limited, ttl: &str) {
    let total = 3 * ROOM_BYTES as usize / VALUE_BYTES;
    for first in (0..total).step_by(PIPELINE) {
        let errors = write(&mut limited.client, "key", first, PIPELINE, ttl);
        assert!(errors.is_empty(), "key {first}: {}", errors[0]);
        let used = limited.server.info_number("used_memory");
        let allowed = limited.maxmemory + OVERSHOOT_BYTES;
        assert!(used <= allowed, "used_memory {used}, maxmemory {}", limited.maxmemory);
    }
    let evicted = limited.server.info_number("evicted_keys");
    let left = limited.client.say("DBSIZE").integer();
    assert!(evicted > 0 && left > 0, "{evicted} evicted, {left} left");
    assert!(left as usize * VALUE_BYTES <= (ROOM_BYTES + OVERSHOOT_BYTES) as usize, "{left} left");
}

#[test]
fn eviction_keeps_memory_within_its_limit() {
    for policy in ["allkeys-lru", "allkeys-lfu", "allkeys-random"] {
        overfill(&mut limited(&["--shards", "2", "--mode", "cache"], policy), "");
    }
    for policy in ["volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"] {
        let mut limited = limited(&["--shards", "2", "--mode", "cache"], policy);
        assert_eq!(limited.client.say("SET kept x"), Value::ok());
        overfill(&mut limited, "EX 1000");
        assert_eq!(
            limited.client.say("GET kept"),
            Value::bulk("x"),
            "{policy} evicted a key for ever"
        );
    }
}

#[test]
fn eviction_of_a_store_survives_a_restart() {
    let mut limited =
        limited(&["--shards", "2", "--mode", "store", "--fsync", "no"], "allkeys-lru");
    overfill(&mut limited, "");
    // The last writes stand above the limit until the next tick: from here on nothing more goes.
    assert_eq!(limited.client.say("CONFIG SET maxmemory 0"), Value::ok());
    let left = limited.client.say("DBSIZE").integer();
    limited.server.restart();
    assert_eq!(limited.server.client().say("DBSIZE"), Value::Integer(left));
}

#[test]
fn frequently_used_keys_stay() {
    let mut limited = limited(&["--shards", "1", "--mode", "cache"], "allkeys-lfu");
    write(&mut limited.client, "used", 0, PIPELINE, "");
    let total = 3 * ROOM_BYTES as usize / VALUE_BYTES;
    for first in (0..total).step_by(PIPELINE) {
        write(&mut limited.client, "key", first, PIPELINE, "");
        let mut mget = vec!["MGET".to_string()];
        mget.extend((0..PIPELINE).map(|index| format!("used:{index}")));
        limited.client.call(&mget);
    }
    let mut exists = vec!["EXISTS".to_string()];
    exists.extend((0..PIPELINE).map(|index| format!("used:{index}")));
    let kept = limited.client.call(&exists).integer();
    let left = limited.client.say("DBSIZE").integer();
    assert!(
        kept >= PIPELINE as i64 / 2,
        "of {PIPELINE} keys in use {kept} are left, of all {left}"
    );
}

/// Without eviction, or with nothing that may be evicted, writes that need memory are refused with
/// Redis' words; reads and deletions go on, and writes again once there is room.
#[test]
fn without_eviction_writes_are_refused() {
    for policy in ["noeviction", "volatile-lru"] {
        let mut limited = limited(&["--shards", "2", "--mode", "cache"], policy);
        let mut errors = Vec::new();
        let total = 2 * ROOM_BYTES as usize / VALUE_BYTES;
        for first in (0..total).step_by(PIPELINE) {
            errors.extend(write(&mut limited.client, "key", first, PIPELINE, ""));
        }
        assert!(!errors.is_empty(), "{policy}: everything was taken");
        for error in &errors {
            assert_eq!(error, "OOM command not allowed when used memory > 'maxmemory'.");
        }
        let used = limited.server.info_number("used_memory");
        assert!(used <= limited.maxmemory + OVERSHOOT_BYTES, "{used} of {}", limited.maxmemory);
        let client = &mut limited.client;
        assert_eq!(client.say("GET key:0").text().len(), VALUE_BYTES);
        for index in 0..4000 {
            client.say(&format!("DEL key:{index}"));
        }
        eventually("writes are taken again", || {
            (client.say("SET another x") == Value::ok()).then_some(())
        });
    }
}
