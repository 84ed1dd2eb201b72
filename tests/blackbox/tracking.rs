//! Client-side caches: who is told of what, as by the real redis-server; and no client ever keeps a
//! value that has changed.

use crate::support::{Chance, Client, Server, Value, eventually};
use std::collections::HashMap;

const TWO_CORES: &[&str] =
    &["--shards", "4", "--cores", "0,1", "--cores-in-use", "all", "--mode", "cache"];

fn servers() -> [Server; 3] {
    [
        Server::start_redis(&[]),
        Server::start(&["--shards", "1", "--mode", "cache"]),
        Server::start(TWO_CORES),
    ]
}

/// A client that speaks RESP3.
fn modern(server: &Server) -> Client {
    let mut client = server.client();
    assert!(!client.say("HELLO 3").is_error());
    client
}

#[test]
fn words_are_those_of_redis() {
    let lines = [
        "CLIENT TRACKINGINFO",
        "CLIENT GETREDIR",
        "CLIENT TRACKING on bcast prefix a prefix ab",
        "CLIENT TRACKING on bcast prefix a prefix b",
        "CLIENT TRACKING on bcast prefix a1",
        "CLIENT TRACKINGINFO",
        "CLIENT TRACKING on",
        "CLIENT TRACKING off",
        "CLIENT TRACKING on optin optout",
        "CLIENT TRACKING on optin bcast",
        "CLIENT TRACKING on redirect 99999",
        "CLIENT TRACKING on redirect x",
        "CLIENT TRACKING on redirect -1",
        "CLIENT TRACKING on prefix a",
        "CLIENT TRACKING on noloop optin",
        "CLIENT TRACKINGINFO",
        "CLIENT GETREDIR",
        "CLIENT CACHING no",
        "CLIENT CACHING yes",
        "CLIENT CACHING foo",
        "CLIENT TRACKINGINFO",
        "GET a",
        "CLIENT TRACKINGINFO",
        "CLIENT TRACKING on optout",
        "CLIENT TRACKING foo",
        "CLIENT TRACKING on foo",
        "CLIENT TRACKING off",
        "CLIENT CACHING yes",
        "CLIENT TRACKING",
        "CLIENT TRACKING on bcast",
        "CLIENT TRACKINGINFO",
        "RESET",
        "CLIENT TRACKINGINFO",
    ];
    let [redis, ours @ ..] = servers();
    let said = |server: &Server| -> Vec<String> {
        let mut client = server.client();
        lines.iter().map(|line| format!("{line}: {:?}", client.say(line))).collect()
    };
    let expected = said(&redis);
    for server in &ours {
        assert_eq!(said(server), expected);
    }
}

/// What a reader is told of, behind the replies of what it asks and what another client does.
fn told(server: &Server, mode: &str, steps: &[(&str, &str)]) -> Vec<String> {
    let (mut reader, mut writer) = (modern(server), server.client());
    assert_eq!(reader.say("FLUSHALL"), Value::ok());
    // All shards answer behind what they had to tell of it.
    reader.say("DBSIZE");
    assert_eq!(reader.say(&format!("CLIENT TRACKING ON {mode}")), Value::ok());
    let mut all = Vec::new();
    for (who, command) in steps {
        let mut heard = Vec::new();
        let mut listen = |reader: &mut Client, command: &str, end: &str| {
            reader.send(format!("{command}\r\nECHO {end}\r\n").as_bytes());
            loop {
                let value = format!("{:?}", reader.read());
                if value.contains(end) {
                    break;
                }
                if value.contains("invalidate") {
                    heard.push(value);
                }
            }
        };
        if *who == "writer" {
            writer.say(command);
        } else {
            listen(&mut reader, command, "step");
        }
        // All shards answer behind what they had to tell, and what they told is behind that.
        listen(&mut reader, "DBSIZE", "told");
        listen(&mut reader, "PING", "mark");
        all.push(format!("{who} {command}: {heard:?}"));
    }
    all
}

#[test]
fn readers_are_told_as_by_redis() {
    let scenes: &[(&str, &[(&str, &str)])] = &[
        (
            "",
            &[
                ("reader", "GET a0"),
                ("writer", "SET a0 1"),
                ("writer", "SET a0 2"),
                ("reader", "MGET a0 b1 c2"),
                ("writer", "MSET b1 1 c2 1 d3 1"),
                ("reader", "SET a0 own"),
                ("reader", "GET a0"),
                ("reader", "SET a0 own"),
                ("reader", "EXISTS a0"),
                ("writer", "RENAME a0 e4"),
                ("reader", "LRANGE l 0 -1"),
                ("writer", "RPUSH l 1"),
                ("reader", "GET b1"),
                ("writer", "EXPIRE b1 100"),
                ("reader", "GET b1"),
                ("writer", "FLUSHALL"),
                ("reader", "GET b1"),
                ("writer", "DEL b1"),
            ],
        ),
        ("NOLOOP", &[("reader", "GET a0"), ("reader", "SET a0 1"), ("writer", "SET a0 2")]),
        (
            "OPTIN",
            &[
                ("reader", "GET a0"),
                ("writer", "SET a0 1"),
                ("reader", "CLIENT CACHING YES"),
                ("writer", "SET a0 2"),
            ],
        ),
        ("OPTOUT", &[("reader", "GET a0"), ("writer", "SET a0 1")]),
        (
            "BCAST PREFIX a PREFIX b",
            &[
                ("writer", "SET a0 1"),
                ("writer", "SET c2 1"),
                ("reader", "SET b1 1"),
                ("writer", "SET b1 2"),
                ("writer", "DEL a0"),
            ],
        ),
        ("BCAST NOLOOP", &[("writer", "SET a0 1"), ("reader", "SET b1 1"), ("writer", "DEL b1")]),
    ];
    let [redis, ours @ ..] = servers();
    for (mode, steps) in scenes {
        let expected = told(&redis, mode, steps);
        for server in &ours {
            assert_eq!(told(server, mode, steps), expected, "{mode}");
        }
    }
}

/// Two that speak RESP2: one reads, the other hears.
#[test]
fn another_client_may_be_told() {
    for server in servers() {
        let (mut reader, mut listener, mut writer) =
            (server.client(), server.client(), server.client());
        let id = listener.say("CLIENT ID").integer();
        assert_eq!(listener.say("SUBSCRIBE __redis__:invalidate").elements().len(), 3);
        assert_eq!(reader.say(&format!("CLIENT TRACKING ON REDIRECT {id}")), Value::ok());
        assert_eq!(reader.say("CLIENT GETREDIR"), Value::Integer(id));
        for n in 0..50 {
            assert_eq!(reader.say(&format!("GET key:{n}")), Value::Null);
            assert_eq!(writer.say(&format!("SET key:{n} 1")), Value::ok());
            let message = listener.read();
            assert_eq!(message.elements()[1], Value::bulk("__redis__:invalidate"));
            assert_eq!(message.elements()[2].elements(), [Value::bulk(format!("key:{n}"))]);
        }
        reader.say("GET key:1");
        assert_eq!(writer.say("FLUSHALL"), Value::ok());
        assert_eq!(listener.read().elements()[2], Value::Null);
        drop(listener);
        eventually("the redirection is broken", || {
            // Redis looks when there is something to tell.
            reader.say("GET key:1");
            writer.say("SET key:1 1");
            let info = reader.say("CLIENT TRACKINGINFO");
            let flags = &info.elements()[1];
            flags.elements().contains(&Value::bulk("broken_redirect")).then_some(())
        });
    }
}

/// A cache that does as the documents say: it keeps what it read until it is told. Afterwards it
/// holds nothing that is not so.
#[test]
fn no_cache_keeps_what_has_changed() {
    let mut chance = Chance::new("no_cache_keeps_what_has_changed");
    for shape in
        [&["--shards", "1"][..], &["--shards", "4", "--cores", "0,1", "--cores-in-use", "all"]]
    {
        let server = Server::start(shape);
        let seed = chance.next();
        std::thread::scope(|scope| {
            for writer in 0..2u64 {
                let server = &server;
                scope.spawn(move || {
                    let mut chance = Chance::seeded(seed ^ writer);
                    let mut client = server.client();
                    for n in 0..1500 {
                        let (a, b) = (chance.below(20), chance.below(20));
                        let command = match chance.below(6) {
                            0 => format!("MSET key:{a} {n} key:{b} {n}"),
                            1 => format!("DEL key:{a}"),
                            2 => format!("RENAME key:{a} key:{b}"),
                            3 => format!("SET key:{a} {n} PX 3"),
                            _ => format!("SET key:{a} {n}"),
                        };
                        client.say(&command);
                    }
                });
            }
            for reader in 0..3u64 {
                let server = &server;
                scope.spawn(move || follow(server, seed ^ (100 + reader)));
            }
        });
    }
}

fn follow(server: &Server, seed: u64) {
    let mut chance = Chance::seeded(seed);
    let mut client = modern(server);
    assert_eq!(client.say("CLIENT TRACKING ON"), Value::ok());
    let mut cache: HashMap<String, Value> = HashMap::new();
    let learn = |cache: &mut HashMap<String, Value>, push: &Value| {
        assert_eq!(push.elements()[0], Value::bulk("invalidate"));
        for key in push.elements()[1].elements() {
            cache.remove(&key.text());
        }
    };
    for _ in 0..400 {
        // A row of reads at once: replies and news come mixed.
        let keys: Vec<String> = (0..8).map(|_| format!("key:{}", chance.below(20))).collect();
        let sent: String = keys.iter().map(|key| format!("GET {key}\r\n")).collect();
        client.send(sent.as_bytes());
        for key in keys {
            loop {
                let value = client.read();
                if matches!(value, Value::Bulk(_) | Value::Null) {
                    cache.insert(key, value);
                    break;
                }
                learn(&mut cache, &value);
            }
        }
    }
    // The writers end; then everything that is still kept is true.
    let mut other = server.client();
    eventually("the cache is right", || {
        client.send(b"ECHO mark\r\n");
        loop {
            let value = client.read();
            if value == Value::bulk("mark") {
                break;
            }
            learn(&mut cache, &value);
        }
        let right = cache.iter().all(|(key, value)| other.say(&format!("GET {key}")) == *value);
        right.then_some(())
    });
}

#[test]
fn the_table_is_bounded_and_counted() {
    let server = Server::start(TWO_CORES);
    let mut reader = modern(&server);
    assert_eq!(reader.say("CONFIG SET tracking-table-max-keys 10"), Value::ok());
    assert_eq!(reader.say("CLIENT TRACKING ON"), Value::ok());
    let mut told = 0;
    for n in 0..100 {
        reader.send(format!("GET key:{n}\r\n").as_bytes());
        while reader.read() != Value::Null {
            told += 1;
        }
    }
    reader.send(b"ECHO mark\r\n");
    while reader.read() != Value::bulk("mark") {
        told += 1;
    }
    assert_eq!(told, 90, "whoever has read a key that is forgotten is told");
    assert_eq!(server.info_number("tracking_total_keys"), 10);
    assert_eq!(server.info_number("tracking_clients"), 1);
    drop(reader);
    eventually("nobody tracks", || (server.info_number("tracking_clients") == 0).then_some(()));
    assert_eq!(server.info_number("tracking_total_items"), 0);
}
