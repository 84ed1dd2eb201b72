//! RDB files: what Redis writes is imported and loaded, what is exported Redis reads; damage is
//! refused with its place.

use std::path::Path;

use crate::support::client::encode;
use crate::support::server::binary;
use crate::support::tool::{Outcome, run};
use crate::support::{Client, Server, Value, eventually};

/// Runs the tool.
fn tool(arguments: &[&str]) -> Outcome {
    run(&binary().to_string_lossy(), arguments, b"")
}

fn import(file: &Path, port: u16, more: &[&str]) -> Outcome {
    let (file, port) = (file.to_string_lossy(), port.to_string());
    tool(&[&["rdb", "import", &file, "--port", &port], more].concat())
}

/// Has a server write a file.
fn export(port: u16, out: &Path, more: &[&str]) {
    let (port, out) = (port.to_string(), out.to_string_lossy());
    let outcome = tool(&[&["rdb", "export", "--port", &port, "--out", &out], more].concat());
    assert!(outcome.status.success(), "{}", outcome.text);
}

/// Every type in small and large forms, in two databases, some with a deadline far off.
pub fn fill(client: &mut Client) {
    let long = "x".repeat(200);
    let mut requests: Vec<Vec<String>> = Vec::new();
    let mut add = |words: &[&str]| requests.push(words.iter().map(|w| w.to_string()).collect());
    add(&["SET", "string", "text"]);
    add(&["SET", "number", "12345"]);
    add(&["SET", "long", &long.repeat(100)]);
    add(&["SET", "later", "x", "PXAT", "4000000000000"]);
    add(&["SETRANGE", "raw", "300000", "end"]);
    add(&["PFADD", "hll", "a", "b", "c"]);
    add(&["SADD", "integers", "1", "-200", "70000", "5000000000"]);
    for (key, count) in [("small", 20), ("large", 1500)] {
        for n in 0..count {
            let (one, score) = (format!("{n}-{long}"), format!("{}.5", n % 77));
            let short = n.to_string();
            let element = if key == "large" { &one } else { &short };
            add(&["RPUSH", &format!("list-{key}"), element]);
            add(&["SADD", &format!("set-{key}"), &format!("m{element}")]);
            add(&["HSET", &format!("hash-{key}"), &format!("f{n}"), element]);
            add(&["ZADD", &format!("zset-{key}"), &score, element]);
            let id = format!("{}-{}", n + 1, n % 3);
            add(&["XADD", &format!("stream-{key}"), &id, "field", element, "n", &short]);
        }
        add(&["PEXPIREAT", &format!("list-{key}"), "4000000000000"]);
    }
    add(&["ZADD", "zset-small", "-inf", "least", "inf", "greatest"]);
    add(&["XGROUP", "CREATE", "stream-large", "group", "0"]);
    add(&["XREADGROUP", "GROUP", "group", "alice", "COUNT", "7", "STREAMS", "stream-large", ">"]);
    add(&["XDEL", "stream-small", "3-2"]);
    add(&["SELECT", "3"]);
    add(&["SET", "string", "of database 3"]);
    let bytes: Vec<u8> = requests.iter().flat_map(|words| encode(words)).collect();
    for reply in client.pipeline(&bytes, requests.len()) {
        assert!(!reply.is_error(), "{reply:?}");
    }
    assert_eq!(client.say("SELECT 0"), Value::ok());
}

/// All that a client can see of the keys of the first four databases, in an order of its own.
pub fn contents(client: &mut Client) -> Vec<String> {
    let mut seen = Vec::new();
    for database in 0..4 {
        assert_eq!(client.say(&format!("SELECT {database}")), Value::ok());
        let mut keys: Vec<String> =
            client.say("KEYS *").elements().iter().map(Value::text).collect();
        keys.sort();
        for key in keys {
            let kind = client.say(&format!("TYPE {key}")).text();
            let lines: Vec<String> = match kind.as_str() {
                "string" => vec![format!("GET {key}")],
                "list" => vec![format!("LRANGE {key} 0 -1")],
                "set" => vec![format!("SMEMBERS {key}")],
                "hash" => vec![format!("HGETALL {key}")],
                "zset" => vec![format!("ZRANGE {key} 0 -1 WITHSCORES")],
                _ => vec![
                    format!("XRANGE {key} - +"),
                    format!("XINFO GROUPS {key}"),
                    format!("XPENDING {key} group"),
                ],
            };
            for line in lines {
                let reply = client.say(&line);
                let mut parts: Vec<String> = match &reply {
                    Value::Array(parts) => parts.iter().map(|part| format!("{part:?}")).collect(),
                    other => vec![format!("{other:?}")],
                };
                if kind == "hash" {
                    parts = parts.chunks(2).map(|pair| pair.concat()).collect();
                }
                if kind == "set" || kind == "hash" {
                    parts.sort();
                }
                seen.push(format!("{database} {line}: {}", parts.join(" ")));
            }
            seen.push(format!("{database} {key} {:?}", client.say(&format!("PEXPIRETIME {key}"))));
        }
    }
    assert_eq!(client.say("SELECT 0"), Value::ok());
    seen
}

/// Compares what two servers hold, and shows where they differ first.
pub fn same(one: &[String], other: &[String]) {
    for (one, other) in one.iter().zip(other) {
        assert_eq!(one, other);
    }
    assert_eq!(one.len(), other.len());
}

/// A redis-server with everything, and the file that it has saved.
fn saved_by_redis(arguments: &[&str]) -> (Server, std::path::PathBuf) {
    let redis = Server::start_redis(arguments);
    let mut client = redis.client();
    fill(&mut client);
    assert_eq!(client.say("SAVE"), Value::ok());
    let file = redis.directory().join("dump.rdb");
    (redis, file)
}

#[test]
fn what_redis_saved_is_imported() {
    for arguments in [&[][..], &["--rdbcompression", "no", "--rdbchecksum", "no"]] {
        let (redis, file) = saved_by_redis(arguments);
        let server = Server::start(&["--shards", "3"]);
        let outcome = import(&file, server.port(), &[]);
        assert!(outcome.status.success(), "{}", outcome.text);
        assert!(outcome.text.contains("18 items imported"), "{}", outcome.text);
        same(&contents(&mut server.client()), &contents(&mut redis.client()));
        // Keys that are there stay, unless it is asked otherwise.
        let mut client = server.client();
        assert_eq!(client.say("SET string mine"), Value::ok());
        let outcome = import(&file, server.port(), &[]);
        assert!(!outcome.status.success());
        assert!(outcome.text.contains("18 keys were there before"), "{}", outcome.text);
        assert_eq!(client.say("GET string"), Value::bulk("mine"));
        let outcome = import(&file, server.port(), &["--replace"]);
        assert!(outcome.status.success(), "{}", outcome.text);
        same(&contents(&mut server.client()), &contents(&mut redis.client()));
    }
}

#[test]
fn a_first_start_loads_what_redis_saved() {
    let (redis, file) = saved_by_redis(&[]);
    let file = file.to_string_lossy().into_owned();
    let mut server = Server::start(&["--shards", "3", "--load-rdb", &file]);
    let expected = contents(&mut redis.client());
    same(&contents(&mut server.client()), &expected);
    for key in ["hash-small", "hash-large", "set-large", "zset-small", "list-large", "integers"] {
        let line = format!("OBJECT ENCODING {key}");
        assert_eq!(server.client().say(&line), redis.client().say(&line), "{key}");
    }
    // What is written goes on from there, and a later start passes the file over.
    assert_eq!(server.client().say("SET more 1"), Value::ok());
    assert_eq!(server.client().say("DEL string"), Value::Integer(1));
    server.kill();
    server.launch();
    let mut client = server.client();
    assert_eq!(client.say("GET more"), Value::bulk("1"));
    assert_eq!(client.say("GET string"), Value::Null);
    assert_eq!(client.say("DEL more"), Value::Integer(1));
    assert_eq!(client.say("SET string text"), Value::ok());
    same(&contents(&mut client), &expected);
}

#[test]
fn redis_reads_what_was_exported() {
    let server = Server::start(&["--shards", "3"]);
    fill(&mut server.client());
    let expected = contents(&mut server.client());
    let redis = tempfile::tempdir().expect("a temporary directory");
    let out = redis.path().join("dump.rdb");
    export(server.port(), &out, &[]);
    let out_text = out.to_string_lossy().into_owned();
    let check = run("redis-check-rdb", &[&out_text], b"");
    assert!(check.status.success(), "{}", check.text);
    let directory = redis.path().to_string_lossy().into_owned();
    let reader = Server::start_redis(&["--dir", &directory, "--dbfilename", "dump.rdb"]);
    same(&contents(&mut reader.client()), &expected);
    // And so does another ringraft.
    let other = Server::start(&["--shards", "2", "--load-rdb", &out_text]);
    same(&contents(&mut other.client()), &expected);
}

#[test]
fn a_stopped_server_is_exported() {
    let mut server = Server::start(&["--shards", "3"]);
    fill(&mut server.client());
    let expected = contents(&mut server.client());
    let directory = server.directory().to_path_buf();
    let out = server.directory().join("out.rdb");
    let (directory, out) = (directory.to_string_lossy(), out.to_string_lossy());
    let outcome = tool(&["rdb", "export", "--dir", &directory, "--out", &out]);
    assert!(!outcome.status.success(), "it runs: {}", outcome.text);
    assert!(outcome.text.contains("is in use by process"), "{}", outcome.text);
    server.kill();
    let outcome = tool(&["rdb", "export", "--dir", &directory, "--out", &out]);
    assert!(outcome.status.success(), "{}", outcome.text);
    let other = Server::start(&["--shards", "1", "--load-rdb", &out]);
    same(&contents(&mut other.client()), &expected);
    server.launch();
    same(&contents(&mut server.client()), &expected);
}

/// A transfer between two keys of different shards: in the file it has happened or not.
#[test]
fn an_export_is_of_one_moment() {
    const SUM: i64 = 1000;
    let server = Server::start(&["--shards", "4"]);
    let mut client = server.client();
    assert_eq!(client.say(&format!("MSET a {SUM} b 0 c 0 d 0")), Value::ok());
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (from, to) in [("a", "b"), ("b", "c"), ("c", "d"), ("d", "a")] {
            let (server, stop) = (&server, &stop);
            scope.spawn(move || {
                let mut client = server.client();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let lines = ["MULTI", &format!("DECR {from}"), &format!("INCR {to}"), "EXEC"];
                    lines.iter().for_each(|line| drop(client.say(line)));
                }
            });
        }
        for round in 0..5 {
            let out = server.directory().join(format!("{round}.rdb"));
            export(server.port(), &out, &[]);
            let copy = Server::start(&["--shards", "1", "--load-rdb", &out.to_string_lossy()]);
            let sum: i64 = ["a", "b", "c", "d"]
                .map(|key| copy.client().say(&format!("GET {key}")).text().parse::<i64>())
                .into_iter()
                .map(|number| number.expect("a number"))
                .sum();
            assert_eq!(sum, SUM, "round {round}");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let passes = || (server.client().say("SET a 1") == Value::ok()).then_some(());
    eventually("writes go on", passes);
}

#[test]
fn a_damaged_file_is_refused_with_its_place() {
    let (_redis, file) = saved_by_redis(&[]);
    let good = std::fs::read(&file).expect("readable");
    let server = Server::start(&["--shards", "2"]);
    let bad = server.directory().join("bad.rdb");
    let flip = good.len() / 2;
    let mut flipped = good.clone();
    flipped[flip] ^= 0x10;
    let mut foreign = good.clone();
    foreign[5..9].copy_from_slice(b"0099");
    let mut longer = good.clone();
    longer.extend(b"more");
    for (bytes, words) in [
        (&flipped[..], &["damaged"][..]),
        (&good[..good.len() - 9], &["damaged at byte", "the input ends"]),
        (&good[..40], &["damaged at byte", "the input ends"]),
        (&foreign, &["RDB version 99"]),
        (&longer, &["bytes follow its end"]),
        (b"*1\r\n$4\r\nPING\r\n", &["is no RDB file"]),
        (
            b"REDIS0009\x07\x03mod\x81\x44\x44\x44\x44\x44\x44\x44\x44",
            &["of key \"mod\" at byte 9", "of a module"],
        ),
        (b"REDIS0009\xfe\x10\x00\x01k\x01v\xff", &["database 16 at byte 9"]),
        (b"REDIS0004\x02\x01k\x02\x01a\x01a\xff", &["of key \"k\"", "a duplicate"]),
    ] {
        std::fs::write(&bad, bytes).expect("writable");
        let outcome = import(&bad, server.port(), &[]);
        assert_eq!(outcome.status.code(), Some(1), "{}", outcome.text);
        for word in words.iter().chain(&["bad.rdb"]) {
            assert!(outcome.text.contains(word), "{word}: {}", outcome.text);
        }
        assert_eq!(server.client().say("DBSIZE"), Value::Integer(0));
        let file = bad.to_string_lossy();
        let mut fresh =
            Server::prepare(crate::support::server::Program::Ringraft, &["--load-rdb", &file]);
        let refusal = fresh.try_launch().expect_err("a damaged file");
        assert!(refusal.output.contains(words[0]), "{}", refusal.output);
        // Nothing was decided: the same directory starts without the file.
        fresh.set_arguments(&[]);
        fresh.launch();
        assert_eq!(fresh.client().say("DBSIZE"), Value::Integer(0));
    }
    // What precedes the damage is kept if that is asked for.
    std::fs::write(&bad, &good[..good.len() - 9]).expect("writable");
    let outcome = import(&bad, server.port(), &["--keep-good"]);
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.text);
    assert!(outcome.text.contains("18 items were imported before"), "{}", outcome.text);
    assert_eq!(server.client().say("DBSIZE"), Value::Integer(17));
}

/// A value that is larger than what is read at once, and one whose deadline has passed.
#[test]
fn large_values_travel_in_pieces() {
    const COUNT: usize = 60_000;
    let redis = Server::start_redis(&[]);
    let mut client = redis.client();
    let mut bytes = Vec::new();
    for n in 0..COUNT {
        for words in [
            ["RPUSH".to_string(), "list".into(), format!("element-{n:030}")],
            ["SADD".to_string(), "set".into(), format!("member-{n:030}")],
        ] {
            bytes.extend(encode(&words));
        }
        bytes.extend(encode(&["HSET".into(), "hash".into(), format!("{n:030}"), n.to_string()]));
        bytes.extend(encode(&["ZADD".into(), "zset".into(), n.to_string(), format!("{n:030}")]));
    }
    client.pipeline(&bytes, 4 * COUNT);
    assert_eq!(client.say("PEXPIREAT set 4000000000000"), Value::Integer(1));
    assert_eq!(client.say("SAVE"), Value::ok());
    let file = redis.directory().join("dump.rdb");
    let expected = contents(&mut client);
    let server = Server::start(&["--shards", "2"]);
    for more in [&[][..], &["--replace"]] {
        let outcome = import(&file, server.port(), more);
        assert!(outcome.status.success(), "{}", outcome.text);
        same(&contents(&mut server.client()), &expected);
    }
    let outcome = import(&file, server.port(), &[]);
    assert!(outcome.text.contains("4 keys were there before"), "{}", outcome.text);
    let out = server.directory().join("out.rdb");
    export(server.port(), &out, &[]);
    for file in [out.to_string_lossy(), file.to_string_lossy()] {
        let loaded = Server::start(&["--shards", "2", "--load-rdb", &file]);
        same(&contents(&mut loaded.client()), &expected);
        assert_eq!(loaded.client().say("OBJECT ENCODING set"), Value::bulk("hashtable"));
        // What was loaded is what is exported again.
        let again = loaded.directory().join("again.rdb");
        export(loaded.port(), &again, &[]);
        let again = again.to_string_lossy();
        let third = Server::start(&["--shards", "1", "--load-rdb", &again]);
        same(&contents(&mut third.client()), &expected);
    }
}

#[test]
fn fields_with_deadlines_and_other_facts_are_kept() {
    let server = Server::start(&["--shards", "2", "--maxmemory-policy", "allkeys-lfu"]);
    let mut client = server.client();
    assert_eq!(client.say("HSET hash a 1 b 2 c 3"), Value::Integer(3));
    assert_eq!(
        client.say("HPEXPIREAT hash 4000000000000 FIELDS 1 b"),
        Value::Array(vec![Value::Integer(1)])
    );
    for (flavor, magic) in [("redis", "REDIS0012"), ("valkey", "VALKEY080")] {
        let out = server.directory().join(flavor);
        export(server.port(), &out, &["--for", flavor]);
        let bytes = std::fs::read(&out).expect("written");
        assert!(bytes.starts_with(magic.as_bytes()), "{flavor}");
        let copy = Server::start(&["--shards", "1", "--load-rdb", &out.to_string_lossy()]);
        let line = "HPEXPIRETIME hash FIELDS 3 a b c";
        let times = [-1, 4_000_000_000_000, -1].map(Value::Integer).to_vec();
        assert_eq!(copy.client().say(line), Value::Array(times.clone()));
        assert_eq!(client.say("DEL hash"), Value::Integer(1));
        assert!(import(&out, server.port(), &[]).status.success());
        assert_eq!(client.say(line), Value::Array(times));
    }
    let file = server.directory().join("facts.rdb");
    let bytes = b"REDIS0012\xf7\x81\x44\x44\x44\x44\x44\x44\x44\x44\x02\x02\x00\xfe\x00\xf9\xc8\x00\x01k\x01v\
        \xfc\x01\x00\x00\x00\x00\x00\x00\x00\x00\x04past\x01v\xff\x00\x00\x00\x00\x00\x00\x00\x00";
    std::fs::write(&file, bytes).expect("writable");
    let outcome = import(&file, server.port(), &[]);
    assert!(outcome.status.success(), "{}", outcome.text);
    for text in
        ["data of module RERERERER is passed over", "1 items imported", "1 whose time is over"]
    {
        assert!(outcome.text.contains(text), "{text}: {}", outcome.text);
    }
    assert!(client.say("OBJECT FREQ k").integer() >= 199);
}

#[test]
fn libraries_of_functions_come_along() {
    const TEXT: &str = "#!lua name=mylib\nredis.register_function('f', function() return 7 end)";
    let redis = Server::start_redis(&[]);
    assert_eq!(redis.client().call(&["FUNCTION", "LOAD", TEXT]), Value::bulk("mylib"));
    assert_eq!(redis.client().say("SAVE"), Value::ok());
    let file = redis.directory().join("dump.rdb");
    let server = Server::start(&["--shards", "2"]);
    let outcome = import(&file, server.port(), &[]);
    assert!(outcome.status.success(), "{}", outcome.text);
    assert_eq!(server.client().say("FCALL f 0"), Value::Integer(7));
    let outcome = import(&file, server.port(), &[]);
    assert!(outcome.text.contains("1 keys were there before"), "{}", outcome.text);
    assert!(import(&file, server.port(), &["--replace"]).status.success());
    let out = server.directory().join("out.rdb");
    export(server.port(), &out, &[]);
    for file in [out.to_string_lossy(), file.to_string_lossy()] {
        let loaded = Server::start(&["--shards", "2", "--load-rdb", &file]);
        assert_eq!(loaded.client().say("FCALL f 0"), Value::Integer(7));
    }
}
