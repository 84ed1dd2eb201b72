//! The keyspace as one, although it lies in shards: commands with many keys, counting, scanning,
//! flushing, with more shards than cores.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::client::encode;
use crate::support::{Chance, Client, Server, Value, eventually};

const SHAPES: [&[&str]; 3] =
    [&["--shards", "1"], &["--shards", "4"], &["--shards", "3", "--cores", "0", "--mode", "cache"]];

fn fill(client: &mut Client, names: impl Iterator<Item = String>) {
    let mut bytes = Vec::new();
    let mut count = 0;
    for name in names {
        bytes.extend(encode(&["SET", &name, &format!("value of {name}")]));
        count += 1;
    }
    assert!(client.pipeline(&bytes, count).iter().all(|reply| *reply == Value::ok()));
}

fn names(value: &Value) -> BTreeSet<String> {
    let all: BTreeSet<String> = value.elements().iter().map(Value::text).collect();
    assert_eq!(all.len(), value.elements().len(), "a name came twice");
    all
}

/// A whole SCAN. `between` runs between the pages.
fn scan(
    client: &mut Client,
    arguments: &[&str],
    mut between: impl FnMut(&mut Client),
) -> Vec<String> {
    let mut found = Vec::new();
    let mut cursor = "0".to_string();
    loop {
        let reply = client.call(&[&["SCAN", &cursor], arguments].concat());
        let [next, page] = reply.elements() else { panic!("SCAN answered {reply:?}") };
        found.extend(page.elements().iter().map(Value::text));
        cursor = next.text();
        if cursor == "0" {
            return found;
        }
        between(client);
    }
}

#[test]
fn many_keys_in_one_command() {
    for shape in SHAPES {
        let server = Server::start(shape);
        let mut client = server.client();
        let keys: Vec<String> = (0..1000).map(|index| format!("key{index}")).collect();
        let mut mset = vec!["MSET".to_string()];
        for key in &keys {
            mset.extend([key.clone(), format!("value of {key}")]);
        }
        assert_eq!(client.call(&mset), Value::ok());
        assert_eq!(client.say("DBSIZE"), Value::Integer(1000));

        // In the order asked for, with holes where keys are missing and twice where asked twice.
        let mut mget = vec!["MGET".to_string(), "missing".to_string()];
        mget.extend(keys.iter().rev().cloned());
        mget.extend(["missing".to_string(), "key5".to_string()]);
        let mut expected = vec![Value::Null];
        expected.extend(keys.iter().rev().map(|key| Value::bulk(format!("value of {key}"))));
        expected.extend([Value::Null, Value::bulk("value of key5")]);
        assert_eq!(client.call(&mget), Value::Array(expected));

        assert_eq!(client.say("EXISTS key1 key2 missing key1 key900"), Value::Integer(4));
        assert_eq!(client.say("TOUCH key1 key2 missing key900"), Value::Integer(3));
        assert_eq!(client.say("DEL key1 key1 key2 missing"), Value::Integer(2));
        assert_eq!(client.say("UNLINK key3 key4 key5 missing"), Value::Integer(3));
        assert_eq!(client.say("DBSIZE"), Value::Integer(995));
        // The text before the keys goes along to every shard.
        assert_eq!(client.say("DELIF key10 key10 key11 key100 key101 missing"), Value::Integer(3));
        assert_eq!(client.say("DBSIZE"), Value::Integer(992));
        assert_eq!(client.say("MSETNX {t}1 a {t}2 b"), Value::Integer(1));
        assert!(client.say("MSET a b c").is_error());
        // The last value of a key named twice wins.
        assert_eq!(client.say("MSET twice 1 twice 2"), Value::ok());
        assert_eq!(client.say("GET twice"), Value::bulk("2"));
    }
}

#[test]
fn the_keyspace_as_a_whole() {
    for shape in SHAPES {
        let server = Server::start(shape);
        let mut client = server.client();
        assert_eq!(client.say("RANDOMKEY"), Value::Null);
        assert_eq!(
            client.say("SCAN 0"),
            Value::Array(vec![Value::bulk("0"), Value::Array(vec![])])
        );
        let expected: BTreeSet<String> = (0..500).map(|index| format!("key:{index}")).collect();
        fill(&mut client, expected.iter().cloned());
        assert_eq!(names(&client.say("KEYS *")), expected);
        let ones: BTreeSet<String> =
            expected.iter().filter(|name| name.starts_with("key:1")).cloned().collect();
        assert_eq!(names(&client.say("KEYS key:1*")), ones);
        let found: BTreeSet<String> =
            scan(&mut client, &["MATCH", "key:1*"], |_| ()).into_iter().collect();
        assert_eq!(found, ones);
        let mut random = BTreeSet::new();
        for _ in 0..2000 {
            random.insert(client.say("RANDOMKEY").text());
        }
        assert!(random.is_subset(&expected));
        assert!(random.len() > 300, "RANDOMKEY showed only {} of 500 keys", random.len());

        // Databases are apart from each other.
        assert_eq!(client.say("SELECT 5"), Value::ok());
        assert_eq!(client.say("DBSIZE"), Value::Integer(0));
        assert_eq!(client.say("MSET a 1 b 2 c 3"), Value::ok());
        assert_eq!(client.say("SWAPDB 0 5"), Value::ok());
        assert_eq!(client.say("DBSIZE"), Value::Integer(500));
        assert_eq!(client.say("FLUSHDB"), Value::ok());
        assert_eq!(client.say("SELECT 0"), Value::ok());
        assert_eq!(client.say("MGET a b c").elements().len(), 3);
        assert_eq!(client.say("DBSIZE"), Value::Integer(3));
        assert_eq!(client.say("FLUSHALL"), Value::ok());
        assert_eq!(client.say("DBSIZE"), Value::Integer(0));
        assert_eq!(client.say("GET a"), Value::Null);
    }
}

/// SCAN's promise: what is there from its beginning to its end is returned, however the tables
/// grow, and what was never there is not.
#[test]
fn a_scan_while_keys_come_and_go() {
    let server = Server::start(&["--shards", "4"]);
    let mut client = server.client();
    let mut chance = Chance::new("a_scan_while_keys_come_and_go");
    for count in ["1", "10", "1000"] {
        assert_eq!(client.say("FLUSHALL"), Value::ok());
        let constant: BTreeSet<String> =
            (0..1000).map(|index| format!("constant:{index}")).collect();
        fill(&mut client, constant.iter().cloned());
        let mut next = 0;
        let found = scan(&mut client, &["COUNT", count], |client| {
            // Bounded, so that a scan by single keys ends although keys are added for every page of
            // it.
            if next < 20_000 {
                fill(client, (next..next + 50).map(|index| format!("coming:{index}")));
                next += 50;
            }
            client.say(&format!("DEL coming:{}", chance.below(next)));
        });
        let found: BTreeSet<String> = found.into_iter().collect();
        let missed: Vec<&String> = constant.difference(&found).collect();
        assert!(missed.is_empty(), "COUNT {count}: SCAN missed {} keys: {missed:?}", missed.len());
        assert!(
            found.iter().all(|name| name.starts_with("constant:") || name.starts_with("coming:"))
        );
    }
}

/// A page of SCAN goes from shard to shard at once. (It once went on with the next tick, so that
/// this took minutes.)
#[test]
fn a_scan_of_many_shards_on_one_core_waits_for_nothing() {
    let shape = ["--shards", "1024", "--mode", "cache", "--cores", "0"];
    let server = Server::start(&shape);
    let mut client = server.client();
    fill(&mut client, (0..100).map(|index| format!("key{index}")));
    assert_eq!(scan(&mut client, &["COUNT", "1000"], |_| {}).len(), 100);
    let bytes = b"MULTI\r\nSET key1 1\r\nSCAN 0 COUNT 1000\r\nDBSIZE\r\nEXEC\r\n";
    let replies = client.pipeline(bytes, 5);
    assert_eq!(replies[4].elements()[2], Value::Integer(100));
}

/// Requests of one connection take effect on each key in the order sent, whatever the cores.
#[test]
fn one_connection_sees_its_own_writes_in_order() {
    let server = Server::start(&["--shards", "4"]);
    let mut client = server.client();
    let mut chance = Chance::new("one_connection_sees_its_own_writes_in_order");
    let mut model: BTreeMap<String, u64> = BTreeMap::new();
    let mut bytes = Vec::new();
    let mut expected = Vec::new();
    for number in 0..50_000 {
        let key = format!("key{}", chance.below(50));
        let other = format!("key{}", chance.below(50));
        let value = |model: &BTreeMap<String, u64>, key: &String| match model.get(key) {
            Some(number) => Value::bulk(number.to_string()),
            None => Value::Null,
        };
        match chance.below(6) {
            0 => {
                bytes.extend(encode(&["SET", &key, &number.to_string()]));
                model.insert(key, number);
                expected.push(Value::ok());
            }
            1 => {
                bytes.extend(encode(&["GET", &key]));
                expected.push(value(&model, &key));
            }
            2 => {
                bytes.extend(encode(&["INCR", &key]));
                let entry = model.entry(key).or_default();
                *entry += 1;
                expected.push(Value::Integer(*entry as i64));
            }
            3 => {
                bytes.extend(encode(&["MSET", &key, &number.to_string(), &other, "7"]));
                model.insert(key, number);
                model.insert(other, 7);
                expected.push(Value::ok());
            }
            4 => {
                bytes.extend(encode(&["MGET", &key, &other]));
                expected.push(Value::Array(vec![value(&model, &key), value(&model, &other)]));
            }
            _ => {
                bytes.extend(encode(&["DEL", &key]));
                expected.push(Value::Integer(i64::from(model.remove(&key).is_some())));
            }
        }
    }
    let replies = client.pipeline(&bytes, expected.len());
    for (index, (reply, expected)) in replies.iter().zip(&expected).enumerate() {
        assert_eq!(reply, expected, "request {index}");
    }
}

/// Many connections, every one of them pinned to no core in particular, increment the same
/// counters.
#[test]
fn counters_of_many_connections_add_up() {
    const CONNECTIONS: usize = 20;
    const EACH: usize = 2000;
    let server = Server::start(&["--shards", "4"]);
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            let mut client = server.client();
            scope.spawn(move || {
                let bytes: Vec<u8> = (0..EACH)
                    .flat_map(|index| encode(&["INCR", &format!("n{}", index % 8)]))
                    .collect();
                let replies = client.pipeline(&bytes, EACH);
                assert!(replies.iter().all(|reply| matches!(reply, Value::Integer(_))));
            });
        }
    });
    let mut client = server.client();
    for counter in 0..8 {
        let expected = (CONNECTIONS * EACH / 8).to_string();
        assert_eq!(client.say(&format!("GET n{counter}")), Value::bulk(expected));
    }
}

/// A connection that uses the keys of one other core is handed over to it, and its client notices
/// nothing.
#[test]
fn connections_follow_their_keys() {
    const PIPELINE: i64 = 50;
    if std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() < 2) {
        println!("skipped: one cpu");
        return;
    }
    let server = Server::start(&["--shards", "2", "--cores-in-use", "all"]);
    let mut clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
    let mut counts = [[0_i64; 2]; 4];
    let mut round = 0;
    eventually("connections were moved", || {
        // Each client stays with one tag for some rounds, then turns to one of the other shard.
        for (index, client) in clients.iter_mut().enumerate() {
            let tag = (index + round / 200) % 2;
            let key = format!("{{{}}}:{index}", ["tag0", "blue"][tag]);
            let replies = client
                .pipeline(&encode(&["INCR", &key]).repeat(PIPELINE as usize), PIPELINE as usize);
            let count = &mut counts[index][tag];
            let expected: Vec<Value> =
                (*count + 1..=*count + PIPELINE).map(Value::Integer).collect();
            assert_eq!(replies, expected, "{key}");
            *count += PIPELINE;
        }
        round += 1;
        (round % 100 == 0 && server.info_number("moved_connections") >= 4).then_some(())
    });
}

#[test]
fn transactions_within_one_shard() {
    let server = Server::start(&["--shards", "4"]);
    let mut client = server.client();
    let mut other = server.client();
    for command in ["SET {t}a 1", "MULTI"] {
        assert_eq!(client.say(command), Value::ok());
    }
    for command in ["INCR {t}a", "SET {t}b x", "GET {t}a", "INCR {t}b"] {
        assert_eq!(client.say(command), Value::Simple("QUEUED".into()));
    }
    assert_eq!(other.say("GET {t}a"), Value::bulk("1"));
    let replies = client.say("EXEC");
    assert_eq!(replies.elements()[..3], [Value::Integer(2), Value::ok(), Value::bulk("2")]);
    assert!(replies.elements()[3].is_error());

    assert_eq!(client.say("WATCH {t}a"), Value::ok());
    assert_eq!(other.say("SET {t}a changed"), Value::ok());
    assert_eq!(client.say("MULTI"), Value::ok());
    client.say("SET {t}a lost");
    assert_eq!(client.say("EXEC"), Value::NullArray);
    assert_eq!(client.say("GET {t}a"), Value::bulk("changed"));

    assert_eq!(client.say("MULTI"), Value::ok());
    assert!(client.say("NOSUCH").is_error());
    assert!(client.say("EXEC").error().starts_with("EXECABORT"));
    assert!(client.say("EXEC").is_error());
    assert!(client.say("DISCARD").is_error());
}
