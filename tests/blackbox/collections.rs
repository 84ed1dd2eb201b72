//! Lists, sets, hashes, sorted sets and streams, small and large: through restarts and snapshots,
//! over shards, under memory limits.

use crate::atomic::scene::keys_in_turn;
use crate::support::client::encode;
use crate::support::{Client, Server, Value, eventually};

/// Payloads as redis-server 7.0 wrote them: a set of three integers, and a sorted set of three
/// members.
const INTEGERS: &[u8] = b"\x0b\x14\x04\0\0\0\x03\0\0\0\x01\0\0\0\x02\0\0\0\xe0\x93\x04\0\x0a\0\x74\x2f\x33\x48\x48\x6c\x6a\x39";
const SCORED: &[u8] = b"\x11\x1d\x1d\0\0\0\x06\0\x81b\x02\xdf\xfe\x02\x81a\x02\x831.5\x04\x81c\x02\x83inf\x04\xff\x0a\0\x73\x56\xad\x6c\xc2\x48\x4a\xd0";

/// A hash of so many fields, ten per command; its values are long when there are many.
fn fill_hash(client: &mut Client, key: &str, fields: usize) {
    let mut bytes = Vec::new();
    for first in (0..fields).step_by(10) {
        let mut words = vec!["HSET".to_owned(), key.to_owned()];
        for field in first..fields.min(first + 10) {
            words.extend([
                format!("field:{field}"),
                if fields > 100 { format!("{field:090}") } else { field.to_string() },
            ]);
        }
        bytes.extend(encode(&words));
    }
    let replies = client.pipeline(&bytes, fields.div_ceil(10));
    assert!(replies.iter().all(|reply| !reply.is_error()), "{:?}", replies.last());
}

fn fill_list(client: &mut Client, key: &str, elements: usize) {
    let bytes: Vec<u8> = (0..elements)
        .flat_map(|n| encode(&["LPUSH".to_owned(), key.to_owned(), format!("element:{n}")]))
        .collect();
    client.pipeline(&bytes, elements);
}

/// A stream of so many entries with a group of which some are pending.
fn fill_stream(client: &mut Client, key: &str, entries: usize) {
    let mut bytes: Vec<u8> = (1..=entries)
        .flat_map(|n| {
            let id = format!("{}-{n}", n / 3);
            encode(&["XADD", key, &id, "name", &format!("value:{n}"), "other", "x"])
        })
        .collect();
    let group = [
        format!("XGROUP CREATE {key} group 0"),
        format!("XCLAIM {key} group someone 0 0-1 0-2 1-3 1-4 FORCE TIME 1000"),
        format!("XGROUP CREATECONSUMER {key} group idle"),
        format!("XACK {key} group 0-2"),
        format!("XDEL {key} 0-1 1-5"),
    ];
    group.iter().for_each(|line| bytes.extend(encode(&line.split(' ').collect::<Vec<_>>())));
    let replies = client.pipeline(&bytes, entries + group.len());
    assert!(replies.iter().all(|reply| !reply.is_error()), "{:?}", replies.last());
}

fn fill_all(client: &mut Client) {
    fill_hash(client, "hash:small", 5);
    fill_hash(client, "hash:large", 20_000);
    fill_list(client, "list:small", 5);
    fill_list(client, "list:large", 20_000);
    fill_stream(client, "stream:small", 8);
    fill_stream(client, "stream:large", 20_000);
    for (key, payload) in [("set", INTEGERS), ("zset", SCORED)] {
        let reply = client.call(&[b"RESTORE", key.as_bytes(), b"0", payload, b"REPLACE"]);
        assert_eq!(reply, Value::ok(), "{key}");
    }
    assert_eq!(client.say("PEXPIRE hash:small 100000000"), Value::Integer(1));
}

/// What can be seen of it.
fn look(client: &mut Client) -> Vec<Value> {
    let mut seen = vec![client.say("DEBUG DIGEST"), client.say("DBSIZE")];
    for key in [
        "hash:small",
        "hash:large",
        "list:small",
        "list:large",
        "set",
        "zset",
        "stream:small",
        "stream:large",
    ] {
        seen.push(client.say(&format!("TYPE {key}")));
        seen.push(client.say(&format!("OBJECT ENCODING {key}")));
        seen.push(client.say(&format!("DEBUG DIGEST-VALUE {key}")));
    }
    seen.push(client.say("HGET hash:large field:12345"));
    seen.push(client.say("LLEN list:large"));
    seen.push(client.say("XINFO STREAM stream:large FULL"));
    seen.push(client.say("XRANGE stream:large 3000 3010"));
    seen.push(client.say("PEXPIRETIME hash:small"));
    seen
}

/// The digest when everything that was answered is applied in all shards: DBSIZE waits for
/// transactions, and the digest does not.
fn settled_digest(client: &mut Client) -> Value {
    client.say("DBSIZE");
    client.say("DEBUG DIGEST")
}

#[test]
fn every_type_comes_back() {
    let mut server = Server::start(&["--shards", "2", "--fsync", "everysec"]);
    let mut client = server.client();
    fill_all(&mut client);
    let before = look(&mut client);
    assert_eq!(before[1], Value::Integer(8));
    server.restart();
    assert_eq!(look(&mut server.client()), before, "from the log");
    assert_eq!(server.client().say("DEBUG RELOAD"), Value::ok());
    assert_eq!(look(&mut server.client()), before, "through a snapshot in memory");
    assert_eq!(server.client().say("SAVE"), Value::ok());
    server.kill();
    server.launch();
    let mut client = server.client();
    assert_eq!(look(&mut client), before, "from a snapshot");
    assert_eq!(client.say("LPUSH list:large behind"), Value::Integer(20_001));
    assert_eq!(client.say("XADD stream:large 9999-9 f v"), Value::bulk("9999-9"));
    assert_eq!(client.say("XTRIM stream:large MAXLEN ~ 10000"), Value::Integer(9_998));
    assert_eq!(client.say("XACK stream:large group 1-3"), Value::Integer(1));
    assert_eq!(client.say("HSET hash:large field:1 changed new 1"), Value::Integer(1));
    let before = look(&mut client);
    server.restart();
    assert_eq!(look(&mut server.client()), before, "from a snapshot and the log behind it");
}

#[test]
fn limits_are_a_part_of_the_log() {
    let mut server = Server::start(&["--shards", "2", "--fsync", "everysec"]);
    let mut client = server.client();
    let encoding =
        |client: &mut Client, key: &str| client.say(&format!("OBJECT ENCODING {key}")).text();
    fill_hash(&mut client, "before", 5);
    assert_eq!(client.say("CONFIG SET hash-max-ziplist-entries 4"), Value::ok());
    let shown = client.say("CONFIG GET hash-max-listpack-entries");
    assert_eq!(shown.elements()[1], Value::bulk("4"));
    // In both shards, from the very next command on.
    for key in keys_in_turn("after", 4, 2) {
        fill_hash(&mut client, &key, 5);
        assert_eq!(encoding(&mut client, &key), "hashtable");
        fill_hash(&mut client, &format!("{key}:few"), 4);
        assert_eq!(encoding(&mut client, &format!("{key}:few")), "listpack");
    }
    assert_eq!(encoding(&mut client, "before"), "listpack", "what is there keeps its form");
    let names = keys_in_turn("after", 4, 2);
    for way in ["log", "snapshot"] {
        server.restart();
        let mut client = server.client();
        for key in &names {
            assert_eq!(encoding(&mut client, key), "hashtable", "from the {way}");
        }
        assert_eq!(encoding(&mut client, "before"), "listpack", "from the {way}");
        // The settings of a start are in force again.
        fill_hash(&mut client, &format!("default:{way}"), 5);
        assert_eq!(encoding(&mut client, &format!("default:{way}")), "listpack");
        assert_eq!(client.say("SAVE"), Value::ok());
    }
}

#[test]
fn collections_cross_shards() {
    let server = Server::start(&["--shards", "2", "--fsync", "no"]);
    let mut client = server.client();
    let keys = keys_in_turn("key", 2, 2);
    let (one, other) = (&keys[0], &keys[1]);
    let digest = |client: &mut Client, key: &str| client.say(&format!("DEBUG DIGEST-VALUE {key}"));
    for fields in [3, 5000] {
        fill_hash(&mut client, one, fields);
        let before = digest(&mut client, one);
        assert_eq!(client.say(&format!("COPY {one} {other} REPLACE")), Value::Integer(1));
        assert_eq!(digest(&mut client, other), before);
        assert_eq!(client.say(&format!("HSET {one} more 1")), Value::Integer(1));
        assert_eq!(client.say(&format!("HLEN {other}")), Value::Integer(fields as i64));
        assert_eq!(client.say(&format!("RENAME {other} {one}")), Value::ok());
        assert_eq!(digest(&mut client, one), before);
        assert_eq!(client.say(&format!("EXISTS {other}")), Value::Integer(0));
        for command in [
            "MULTI".to_owned(),
            format!("HSET {one} field:0 changed"),
            format!("LPUSH {other} a b c"),
            format!("GET {other}"),
            format!("HLEN {one}"),
        ] {
            client.say(&command);
        }
        let replies = client.say("EXEC");
        let replies = replies.elements();
        assert_eq!(replies[0], Value::Integer(0));
        assert_eq!(replies[1], Value::Integer(3));
        assert!(replies[2].error().starts_with("WRONGTYPE"));
        assert_eq!(replies[3], Value::Integer(fields as i64));
        assert_eq!(client.say(&format!("HGET {one} field:0")), Value::bulk("changed"));
        assert_eq!(client.say(&format!("LLEN {other}")), Value::Integer(3));
        assert_eq!(client.say(&format!("DEL {one} {other}")), Value::Integer(2));
    }
}

#[test]
fn streams_cross_shards() {
    let mut server = Server::start(&["--shards", "2", "--fsync", "no"]);
    let mut client = server.client();
    let keys = keys_in_turn("key", 2, 2);
    let (one, other) = (&keys[0], &keys[1]);
    let digest = |client: &mut Client, key: &str| client.say(&format!("DEBUG DIGEST-VALUE {key}"));
    for entries in [8, 5000] {
        fill_stream(&mut client, one, entries);
        let before = digest(&mut client, one);
        let whole = client.say(&format!("XINFO STREAM {one} FULL COUNT 0"));
        assert_eq!(client.say(&format!("COPY {one} {other} REPLACE")), Value::Integer(1));
        assert_eq!(digest(&mut client, other), before);
        assert_eq!(client.say(&format!("XINFO STREAM {other} FULL COUNT 0")), whole);
        assert_eq!(client.say(&format!("XTRIM {one} MAXLEN 1")).integer(), entries as i64 - 3);
        assert_eq!(client.say(&format!("RENAME {other} {one}")), Value::ok());
        assert_eq!(digest(&mut client, one), before);
        // By way of a payload the counters of blocks may change, and nothing else.
        let Value::Bulk(payload) = client.say(&format!("DUMP {one}")) else { panic!("a payload") };
        assert_eq!(client.call(&[b"RESTORE", other.as_bytes(), b"0", &payload]), Value::ok());
        let lines = [
            "MULTI".to_owned(),
            format!("XADD {one} * name in"),
            format!("XADD {other} MAXLEN 2 * name in"),
            format!("XLEN {other}"),
            format!("GET {one}"),
            format!("XGROUP DESTROY {other} group"),
        ];
        lines.iter().for_each(|line| drop(client.say(line)));
        let replies = client.say("EXEC");
        let replies = replies.elements();
        assert_eq!(replies[0], replies[1], "all of a transaction has one time");
        assert_eq!(replies[2], Value::Integer(2));
        assert!(replies[3].error().starts_with("WRONGTYPE"));
        assert_eq!(replies[4], Value::Integer(1));
        let digest = settled_digest(&mut client);
        server.restart();
        client = server.client();
        assert_eq!(client.say("DEBUG DIGEST"), digest);
        assert_eq!(client.say(&format!("DEL {one} {other}")), Value::Integer(2));
    }
}

#[test]
fn operations_on_sets_cross_shards() {
    let mut server = Server::start(&["--shards", "2", "--fsync", "no"]);
    let mut client = server.client();
    let keys = keys_in_turn("key", 4, 2);
    let [one, other, third, to] = &keys[..] else { panic!("four keys") };
    for size in [20, 3000] {
        // Every second, every third and every fifth number.
        for (key, step) in [(one, 2), (other, 3), (third, 5)] {
            let members: Vec<String> = (0..size).step_by(step).map(|n| n.to_string()).collect();
            let added = client.say(&format!("SADD {key} {}", members.join(" ")));
            assert_eq!(added, Value::Integer(members.len() as i64));
        }
        let count = |holds: fn(i64) -> bool| (0..size as i64).filter(|&n| holds(n)).count() as i64;
        for (name, expected) in [
            ("SINTER", count(|n| n % 30 == 0)),
            ("SUNION", count(|n| n % 2 == 0 || n % 3 == 0 || n % 5 == 0)),
            ("SDIFF", count(|n| n % 2 == 0 && n % 3 != 0 && n % 5 != 0)),
        ] {
            let shown = client.say(&format!("{name} {one} {other} {third}"));
            assert_eq!(shown.elements().len() as i64, expected, "{name} of {size}");
            let stored = client.say(&format!("{name}STORE {to} {one} {other} {third}"));
            assert_eq!(stored, Value::Integer(expected), "{name}STORE of {size}");
            assert_eq!(client.say(&format!("SCARD {to}")), Value::Integer(expected));
        }
        let counted = client.say(&format!("SINTERCARD 3 {one} {other} {third}"));
        assert_eq!(counted, Value::Integer(count(|n| n % 30 == 0)));
        assert_eq!(client.say(&format!("SMOVE {one} {other} 2")), Value::Integer(1));
        assert_eq!(client.say(&format!("SISMEMBER {one} 2")), Value::Integer(0));
        assert_eq!(client.say(&format!("SISMEMBER {other} 2")), Value::Integer(1));
        assert_eq!(client.say(&format!("SMOVE {one} {other} 2")), Value::Integer(0));
        // Chance is in the log: what was taken out stays out, and what stayed is there.
        let popped = client.say(&format!("SPOP {one} 5"));
        let popped: Vec<Value> = popped.elements().to_vec();
        assert_eq!(popped.len(), 5);
        client.say(&format!("SPOP {one}"));
        let digest = settled_digest(&mut client);
        server.restart();
        client = server.client();
        assert_eq!(client.say("DEBUG DIGEST"), digest);
        let members = client.say(&format!("SMEMBERS {one}"));
        assert_eq!(members.elements().len() as i64, count(|n| n % 2 == 0) - 7);
        assert!(members.elements().iter().all(|member| !popped.contains(member)));
        assert_eq!(client.say("FLUSHALL"), Value::ok());
    }
    for wrong in ["SINTERCARD 3 a b", "SINTERCARD 0 a", "SINTERCARD x a"] {
        assert!(client.say(wrong).is_error(), "{wrong}");
    }
}

#[test]
fn operations_on_sorted_sets_cross_shards() {
    let mut server = Server::start(&["--shards", "2", "--fsync", "no"]);
    let mut client = server.client();
    let keys = keys_in_turn("key", 4, 2);
    let [one, other, third, to] = &keys[..] else { panic!("four keys") };
    for size in [20, 3000] {
        // Every second number with itself as the score, every third likewise; every fifth in a set.
        for (key, step) in [(one, 2), (other, 3)] {
            let pairs: Vec<String> = (0..size).step_by(step).map(|n| format!("{n} {n}")).collect();
            let added = client.say(&format!("ZADD {key} {}", pairs.join(" ")));
            assert_eq!(added, Value::Integer(pairs.len() as i64));
        }
        let members: Vec<String> = (0..size).step_by(5).map(|n| n.to_string()).collect();
        client.say(&format!("SADD {third} {}", members.join(" ")));
        let sources = format!("3 {one} {other} {third}");
        let scores = |holds: fn(i64) -> bool, score: fn(i64) -> i64| {
            let found = (0..size as i64).filter(|&n| holds(n));
            let mut found: Vec<(i64, String)> = found.map(|n| (score(n), n.to_string())).collect();
            found.sort_unstable();
            let flat = found.into_iter().flat_map(|(score, n)| [n, score.to_string()]);
            Value::Array(flat.map(Value::bulk).collect())
        };
        for (name, expected) in [
            ("ZINTER", scores(|n| n % 30 == 0, |n| 2 * n + 1)),
            (
                "ZUNION",
                scores(
                    |n| n % 2 == 0 || n % 3 == 0 || n % 5 == 0,
                    |n| n * (i64::from(n % 2 == 0) + i64::from(n % 3 == 0)) + i64::from(n % 5 == 0),
                ),
            ),
            ("ZDIFF", scores(|n| n % 2 == 0 && n % 3 != 0 && n % 5 != 0, |n| n)),
        ] {
            let shown = client.say(&format!("{name} {sources} WITHSCORES"));
            assert_eq!(shown, expected, "{name} of {size}");
            let stored = client.say(&format!("{name}STORE {to} {sources}"));
            assert_eq!(stored, Value::Integer(expected.elements().len() as i64 / 2));
            assert_eq!(client.say(&format!("ZRANGE {to} 0 -1 WITHSCORES")), expected);
        }
        let shared = (0..size).filter(|n| n % 30 == 0).count() as i64;
        assert_eq!(client.say(&format!("ZINTERCARD {sources}")), Value::Integer(shared));
        assert_eq!(client.say(&format!("ZRANGESTORE {to} {one} 1 3")), Value::Integer(3));
        let kept = Value::Array(["2", "4", "6"].map(Value::bulk).to_vec());
        assert_eq!(client.say(&format!("ZRANGE {to} 0 -1")), kept);
        let digest = settled_digest(&mut client);
        server.restart();
        client = server.client();
        assert_eq!(client.say("DEBUG DIGEST"), digest);
        assert_eq!(client.say(&format!("ZRANGESTORE {to} {one} 5 4")), Value::Integer(0));
        assert_eq!(client.say(&format!("EXISTS {to}")), Value::Integer(0));
        assert_eq!(client.say("FLUSHALL"), Value::ok());
    }
    for wrong in ["ZUNION 3 a b", "ZUNION 0 a", "ZINTERCARD x a", "ZUNIONSTORE to 2 a"] {
        assert!(client.say(wrong).is_error(), "{wrong}");
    }
}

/// Fields end at their time, everywhere: from the log, from snapshots, after moves between shards;
/// and their memory returns.
#[test]
fn fields_of_hashes_end() {
    let mut server = Server::start(&["--shards", "2", "--fsync", "everysec"]);
    let mut client = server.client();
    let keys = keys_in_turn("key", 2, 2);
    let (one, other) = (&keys[0], &keys[1]);
    let digest = |client: &mut Client, key: &str| client.say(&format!("DEBUG DIGEST-VALUE {key}"));
    let look = |client: &mut Client| {
        let times = |key: &str| format!("HPEXPIRETIME {key} FIELDS 3 field:1 field:2 field:3");
        [times(one), times(other), format!("DEBUG DIGEST-VALUE {one}")]
            .map(|request| client.say(&request))
    };
    for fields in [5, 5000] {
        fill_hash(&mut client, one, fields);
        let late = [9_999_999_999_999, 8_888_888_888_888, -1].map(Value::Integer);
        client.say(&format!("HPEXPIREAT {one} 9999999999999 FIELDS 1 field:1"));
        client.say(&format!("HPEXPIREAT {one} 8888888888888 FIELDS 1 field:2"));
        assert_eq!(client.say(&format!("COPY {one} {other} REPLACE")), Value::Integer(1));
        let Value::Bulk(payload) = client.say(&format!("DUMP {one}")) else { panic!("a payload") };
        let expected = digest(&mut client, one);
        let words: [&[u8]; 5] = [b"RESTORE", one.as_bytes(), b"0", &payload, b"REPLACE"];
        assert_eq!(client.call(&words), Value::ok());
        let before = look(&mut client);
        let late = Value::Array(late.to_vec());
        assert_eq!(before, [late.clone(), late, expected]);
        server.restart();
        assert_eq!(look(&mut server.client()), before, "from the log");
        assert_eq!(server.client().say("DEBUG RELOAD"), Value::ok());
        assert_eq!(look(&mut server.client()), before, "through a snapshot in memory");
        assert_eq!(server.client().say("SAVE"), Value::ok());
        server.kill();
        server.launch();
        client = server.client();
        assert_eq!(look(&mut client), before, "from a snapshot");
        // All but one end soon. What is left is as if there had never been more.
        let value = client.say(&format!("HGET {one} field:0")).text();
        client.say(&format!("DEL {other}"));
        client.say(&format!("HSET {other} field:0 {value}"));
        for first in (1..fields).step_by(100) {
            let names = (first..fields.min(first + 100)).map(|n| format!("field:{n}"));
            let names: Vec<String> = names.collect();
            let (count, names) = (names.len(), names.join(" "));
            client.say(&format!("HPEXPIRE {one} 20 FIELDS {count} {names}"));
        }
        eventually("the fields are gone", || {
            (client.say(&format!("HLEN {one}")) == Value::Integer(1)).then_some(())
        });
        let [all, expected] = [one, other].map(|key| client.say(&format!("HGETALL {key}")));
        assert_eq!(all, expected);
        eventually("their memory is free", || {
            (digest(&mut client, one) == digest(&mut client, other)).then_some(())
        });
        client.say(&format!("HPEXPIRE {one} 1 FIELDS 1 field:0"));
        eventually("the key is gone", || {
            (client.say(&format!("EXISTS {one}")) == Value::Integer(0)).then_some(())
        });
    }
}

/// Keys that SORT refers to lie in all shards, the source and the destination in any; in EXEC it
/// sees what was done before.
#[test]
fn sort_refers_to_keys_of_all_shards() {
    for shards in ["1", "4"] {
        let mut server = Server::start(&["--shards", shards, "--fsync", "no"]);
        let mut client = server.client();
        let count = 200;
        for n in 0..count {
            assert!(!client.say(&format!("RPUSH list {n}")).is_error());
            client.say(&format!("SET weight:{n} {}", (n * 7) % count));
            client.say(&format!("HSET hash:{n} weight {} name name:{n}", count - n));
        }
        let numbers = |of: fn(i64) -> i64| {
            let values = (0..200).map(|n| Value::bulk(of(n).to_string()));
            Value::Array(values.collect())
        };
        // 7 * 143 is 1 modulo 200: the element with weight n is n * 143.
        let by_weight = numbers(|n| n * 143 % 200);
        for command in ["SORT", "SORT_RO"] {
            assert_eq!(client.say(&format!("{command} list BY weight:*")), by_weight);
            let named = client.say(&format!(
                "{command} list BY hash:*->weight LIMIT 0 2 GET hash:*->name GET # GET none:*"
            ));
            let name = |n: i64| {
                [Value::bulk(format!("name:{n}")), Value::bulk(n.to_string()), Value::Null]
            };
            assert_eq!(named, Value::Array([name(199), name(198)].concat()));
        }
        for to in keys_in_turn("to", 4, 4) {
            assert_eq!(
                client.say(&format!("SORT list BY weight:* STORE {to}")),
                Value::Integer(200)
            );
            assert_eq!(client.say(&format!("LRANGE {to} 0 -1")), by_weight);
            assert_eq!(
                client.say(&format!("SORT list BY weight:* LIMIT 500 1 STORE {to}")),
                Value::Integer(0)
            );
            assert_eq!(client.say(&format!("EXISTS {to}")), Value::Integer(0));
        }
        // A transaction's own changes are seen, of elements and of what they refer to, and of whole
        // databases.
        for (command, reply) in [
            ("MULTI", Value::ok()),
            ("RPUSH list new", Value::Simple("QUEUED".into())),
            ("SET weight:new -1", Value::Simple("QUEUED".into())),
            ("SORT list BY weight:* LIMIT 0 2 GET # GET weight:*", Value::Simple("QUEUED".into())),
            ("PDEL weight:*", Value::Simple("QUEUED".into())),
            ("SORT list BY weight:* LIMIT 0 2 ALPHA GET weight:*", Value::Simple("QUEUED".into())),
            ("SORT list BY hash:*->weight DESC STORE to GET #", Value::Simple("QUEUED".into())),
            ("SELECT 1", Value::Simple("QUEUED".into())),
            ("SORT list GET weight:* STORE copy", Value::Simple("QUEUED".into())),
            ("SELECT 0", Value::Simple("QUEUED".into())),
        ] {
            assert_eq!(client.say(command), reply, "{command}");
        }
        let replies = client.say("EXEC");
        let replies = replies.elements();
        let bulks = |texts: &[&str]| Value::Array(texts.iter().map(Value::bulk).collect());
        assert_eq!(replies[2], bulks(&["new", "-1", "0", "0"]));
        assert_eq!(replies[3], Value::Integer(count + 1));
        assert_eq!(replies[4], Value::Array(vec![Value::Null; 2]));
        assert_eq!(replies[5], Value::Integer(count + 1));
        assert_eq!(replies[7], Value::Integer(0));
        assert_eq!(client.say("LRANGE to 0 0"), bulks(&["0"]));
        // Who waits for the destination is served.
        let mut waiter = server.client();
        waiter.send(&encode(&["BLPOP", "waited", "0"]));
        eventually("the client waits", || {
            client.say("INFO clients").text().contains("blocked_clients:1").then_some(())
        });
        assert_eq!(
            client.say("SORT list BY hash:*->weight LIMIT 1 1 STORE waited"),
            Value::Integer(1)
        );
        assert_eq!(waiter.read(), bulks(&["waited", "199"]));
        assert!(client.say("SORT list BY weight:* LIMIT x 1").is_error());
        let look = |client: &mut Client| {
            ["list", "to"].map(|key| client.say(&format!("LRANGE {key} 0 -1")))
        };
        let before = look(&mut client);
        server.restart();
        assert_eq!(look(&mut server.client()), before);
    }
}

#[test]
fn what_is_freed_bit_by_bit_takes_nothing_along() {
    let server = Server::start(&["--shards", "1", "--mode", "cache"]);
    let mut client = server.client();
    for n in 0..1000 {
        client.say(&format!("SET small:{n} {}", "v".repeat(100)));
    }
    fill_hash(&mut client, "large", 100_000);
    let with_large = client.say("MEMORY USAGE large").integer();
    assert!(with_large > 10_000_000, "{with_large}");
    // Of all keys it is the one longest unused, so it goes first; and room is lacking for a part of
    // it alone.
    let Value::Bulk(payload) = client.say("DUMP large") else { panic!("a payload") };
    let words: [&[u8]; 7] =
        [b"RESTORE", b"large", b"0", &payload, b"REPLACE", b"IDLETIME", b"100000"];
    assert_eq!(client.call(&words), Value::ok());
    let used = eventually("what was replaced is freed", || {
        let used = server.info_number("used_memory_dataset");
        (used < with_large * 3 / 2).then_some(used)
    });
    client.say("CONFIG SET maxmemory-policy allkeys-lru maxmemory-samples 2000");
    client.say(&format!("CONFIG SET maxmemory {}", used - with_large / 2));
    eventually("the large hash is evicted", || {
        (client.say("EXISTS large") == Value::Integer(0)).then_some(())
    });
    client.say("SET another write");
    // Sampling may come by some others first.
    let left = client.say("DBSIZE").integer();
    assert!(left > 950, "{left} keys are left: others went while the large one was being freed");
}
