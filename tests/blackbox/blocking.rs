//! Commands that wait: served in order of arrival, before any other command sees what they wait
//! for; ended by time, by CLIENT UNBLOCK, by a disconnect, by the server's stop. The same demands
//! go to the real redis-server.

use crate::support::{Client, Server, Value, eventually};
use std::time::{Duration, Instant};

/// Servers that put keys in different places; the first is the real redis-server.
pub fn servers() -> Vec<Server> {
    let shapes: &[&[&str]] = &[
        &["--shards", "1", "--mode", "cache"],
        &["--shards", "4"],
        &["--shards", "3", "--fsync", "everysec"],
    ];
    let ours = shapes.iter().map(|shape| Server::start(shape));
    std::iter::once(Server::start_redis(&[])).chain(ours).collect()
}

/// A client whose request waits. `count`: how many wait then.
pub fn waiting(server: &Server, request: &str, count: i64) -> Client {
    let mut client = server.client();
    client.send(format!("{request}\r\n").as_bytes());
    eventually("it waits", || (server.info_number("blocked_clients") == count).then_some(()));
    client
}

fn bulks(words: &[&str]) -> Value {
    Value::Array(words.iter().map(|word| Value::bulk(*word)).collect())
}

#[test]
fn who_came_first_is_served_first_and_before_all_others() {
    for server in &servers() {
        let mut first = waiting(server, "BLPOP k 0", 1);
        let mut second = waiting(server, "BRPOP nosuch k 0", 2);
        let mut other = server.client();
        let replies =
            other.pipeline(b"RPUSH k a\r\nLLEN k\r\nRPUSH k b c\r\nLPOP k\r\nEXISTS k\r\n", 5);
        let integers = |n: i64| Value::Integer(n);
        assert_eq!(replies, [integers(1), integers(0), integers(2), Value::bulk("b"), integers(0)]);
        assert_eq!(first.read(), bulks(&["k", "a"]));
        assert_eq!(second.read(), bulks(&["k", "c"]));
        assert_eq!(server.info_number("blocked_clients"), 0);
    }
}

#[test]
fn keys_of_several_shards_are_waited_for() {
    for server in &servers() {
        for key in ["a0", "b1", "c2", "d3"] {
            let mut client = waiting(server, "BLPOP a0 b1 c2 d3 0", 1);
            assert_eq!(server.client().call(&["RPUSH", key, "x"]), Value::Integer(1));
            assert_eq!(client.read(), bulks(&[key, "x"]));
            let mut mover = waiting(server, &format!("BLMOVE {key} target LEFT RIGHT 0"), 1);
            server.client().call(&["RPUSH", key, "y"]);
            assert_eq!(mover.read(), Value::bulk("y"));
            assert_eq!(server.client().say("LPOP target"), Value::bulk("y"));
        }
        // One after the other, and one of several elements each.
        let mut clients: Vec<Client> =
            (1..=20).map(|n| waiting(server, "BLMPOP 0 3 a0 b1 c2 RIGHT", n)).collect();
        server.client().say("RPUSH b1 1 2 3 4 5 6 7 8 9 10");
        server.client().say("RPUSH a0 1 2 3 4 5 6 7 8 9 10");
        for client in &mut clients {
            assert_eq!(client.read().elements()[1].elements().len(), 1);
        }
        assert_eq!(server.client().say("EXISTS a0 b1"), Value::Integer(0));
    }
}

#[test]
fn whatever_fills_a_key_serves_it() {
    for server in &servers() {
        let mut other = server.client();
        for (prepare, fill) in [
            ("RPUSH other v", "RENAME other k"),
            ("RPUSH other v", "COPY other k"),
            ("RPUSH other v", "LMOVE other k LEFT LEFT"),
            ("PING", "LPUSH k v"),
            ("RPUSH other v", "RPOPLPUSH other k"),
            ("SELECT 1", "RPUSH k v"),
        ] {
            other.say("FLUSHALL");
            other.say(prepare);
            let mut client = waiting(server, "BLPOP k 0", 1);
            other.say(fill);
            if prepare == "SELECT 1" {
                // There, not here; then they change places.
                assert_eq!(server.info_number("blocked_clients"), 1);
                assert_eq!(other.say("SWAPDB 0 1"), Value::ok());
                other.say("SELECT 0");
            }
            assert_eq!(client.read(), bulks(&["k", "v"]), "{fill}");
        }
        let mut other = server.client();
        let dump = {
            other.say("RPUSH other v");
            other.send(b"DUMP other\r\n");
            other.read()
        };
        let Value::Bulk(dump) = dump else { panic!("DUMP answers {dump:?}") };
        let mut client = waiting(server, "BLPOP k 0", 1);
        assert_eq!(other.call(&[&b"RESTORE"[..], b"k", b"0", &dump]), Value::ok());
        assert_eq!(client.read(), bulks(&["k", "v"]));
    }
}

#[test]
fn transactions_serve_when_they_end_and_do_not_wait() {
    for server in &servers() {
        let mut other = server.client();
        let replies =
            other.pipeline(b"MULTI\r\nBLPOP k 0\r\nBLMOVE k l LEFT LEFT 0\r\nEXEC\r\n", 4);
        assert_eq!(replies[3].elements(), [Value::NullArray, Value::Null]);
        let mut client = waiting(server, "BLPOP k 0", 1);
        // What is gone again when it ends was never there.
        let replies = other.pipeline(b"MULTI\r\nRPUSH k x\r\nDEL k\r\nEXEC\r\n", 4);
        assert_eq!(replies[3].elements(), [Value::Integer(1), Value::Integer(1)]);
        assert_eq!(server.info_number("blocked_clients"), 1);
        other.say("SET k string");
        other.say("DEL k");
        assert_eq!(server.info_number("blocked_clients"), 1);
        let replies = other.pipeline(b"MULTI\r\nRPUSH k x y\r\nSET m0 1\r\nLLEN k\r\nEXEC\r\n", 5);
        let expected = [Value::Integer(2), Value::ok(), Value::Integer(2)];
        assert_eq!(replies[4].elements(), expected);
        assert_eq!(client.read(), bulks(&["k", "x"]));
        assert_eq!(other.say("LRANGE k 0 -1"), bulks(&["y"]));
    }
}

#[test]
fn what_is_moved_on_serves_the_next() {
    for server in &servers() {
        let mut last = waiting(server, "BLPOP c2 0", 1);
        let mut middle = waiting(server, "BLMOVE b1 c2 LEFT LEFT 0", 2);
        let mut first = waiting(server, "BRPOPLPUSH a0 b1 0", 3);
        assert_eq!(server.client().say("LPUSH a0 v"), Value::Integer(1));
        assert_eq!(first.read(), Value::bulk("v"));
        assert_eq!(middle.read(), Value::bulk("v"));
        assert_eq!(last.read(), bulks(&["c2", "v"]));
    }
}

#[test]
fn a_wait_ends_by_time_by_command_and_by_disconnect() {
    for server in &servers() {
        let mut client = server.client();
        for request in ["BLPOP k 0.05", "BLPOP a0 b1 c2 d3 0.05", "BLMOVE a0 b1 LEFT LEFT 0.05"] {
            let begin = Instant::now();
            assert_eq!(client.say(request), Value::NullArray, "{request}");
            assert!(begin.elapsed() >= Duration::from_millis(50), "{request}");
        }
        for keys in ["k", "a0 b1 c2 d3"] {
            for (how, expected) in [
                ("", Value::NullArray),
                (" TIMEOUT", Value::NullArray),
                (" ERROR", Value::Error("UNBLOCKED client unblocked via CLIENT UNBLOCK".into())),
            ] {
                let mut client = server.client();
                let Value::Integer(id) = client.say("CLIENT ID") else { panic!("an id") };
                // What it sends meanwhile waits.
                client.send(format!("BLPOP {keys} 0\r\nPING\r\n").as_bytes());
                let unblock = format!("CLIENT UNBLOCK {id}{how}");
                eventually("it waits and is unblocked", || {
                    (server.client().say(&unblock) == Value::Integer(1)).then_some(())
                });
                assert_eq!(client.read(), expected);
                assert_eq!(client.read(), Value::Simple("PONG".into()));
                assert_eq!(server.client().say(&unblock), Value::Integer(0));
            }
            drop(waiting(server, &format!("BLPOP {keys} 0"), 1));
            eventually("it is gone", || (server.info_number("blocked_clients") == 0).then_some(()));
            server.client().say("RPUSH k v");
            server.client().say("RPUSH a0 v");
            assert_eq!(server.client().say("LLEN k"), Value::Integer(1), "nobody took it");
            server.client().say("DEL k a0");
        }
    }
}

/// Redis closes such a client without a word; here it is answered as when its time is over, and
/// then closed.
#[test]
fn who_sends_nothing_more_does_not_wait() {
    for server in &servers()[1..] {
        let mut client = server.client();
        client.send(b"BLPOP k 0\r\nSET a 1\r\nBLPOP a0 b1 c2 d3 0\r\nRPUSH k v\r\nBLPOP k 0\r\n");
        client.finish_writing();
        let expected = b"*-1\r\n+OK\r\n*-1\r\n:1\r\n*2\r\n$1\r\nk\r\n$1\r\nv\r\n";
        assert_eq!(client.read_to_close(), expected);
    }
}

#[test]
fn many_wait_for_one_key_and_for_as_many() {
    const CLIENTS: i64 = 400;
    for server in &servers() {
        let mut clients: Vec<Client> = (0..CLIENTS)
            .map(|n| {
                let mut client = server.client();
                client.send(format!("BLPOP k own:{n} 0\r\n").as_bytes());
                if n % 40 == 39 {
                    let count = n + 1;
                    eventually("they wait", || {
                        (server.info_number("blocked_clients") == count).then_some(())
                    });
                }
                client
            })
            .collect();
        let half = CLIENTS / 2;
        let bytes: Vec<u8> =
            (0..half).flat_map(|n| format!("RPUSH k {n}\r\n").into_bytes()).collect();
        assert_eq!(server.client().pipeline(&bytes, half as usize).len(), half as usize);
        eventually("half of them are served", || {
            (server.info_number("blocked_clients") == CLIENTS - half).then_some(())
        });
        let bytes: Vec<u8> =
            (0..CLIENTS).flat_map(|n| format!("RPUSH own:{n} {n}\r\n").into_bytes()).collect();
        server.client().pipeline(&bytes, CLIENTS as usize);
        let mut from_k = 0;
        for (n, client) in clients.iter_mut().enumerate() {
            let reply = client.read();
            let reply = reply.elements();
            if reply[0] == Value::bulk("k") {
                from_k += 1;
            } else {
                assert_eq!(reply, [format!("own:{n}"), n.to_string()].map(Value::bulk));
            }
        }
        assert_eq!(from_k, half);
    }
}

#[test]
fn a_server_stops_although_clients_wait() {
    for shape in [["--shards", "1"], ["--shards", "4"]] {
        let mut server = Server::start(&shape);
        let mut clients =
            [waiting(&server, "BLPOP k 0", 1), waiting(&server, "BLPOP a0 b1 c2 d3 0", 2)];
        let (status, output) = server.terminate();
        assert!(status.success(), "{output}");
        for client in &mut clients {
            assert!(client.read_to_close().is_empty());
        }
        server.launch();
        assert_eq!(server.client().say("RPUSH k v"), Value::Integer(1));
        assert_eq!(server.client().say("LLEN k"), Value::Integer(1));
        let mut client = waiting(&server, "BLPOP other 0", 1);
        server.kill();
        assert!(client.read_to_close().is_empty());
        server.launch();
        assert_eq!(server.client().say("BLPOP k 0"), bulks(&["k", "v"]));
    }
}

#[test]
fn sorted_sets_are_waited_for_as_lists_are() {
    for server in &servers() {
        let mut first = waiting(server, "BZPOPMIN k 0", 1);
        let mut second = waiting(server, "BZPOPMAX a0 b1 k 0", 2);
        let mut third = waiting(server, "BLPOP k 0", 3);
        // A list does not serve those who wait for a sorted set, nor the other way round.
        assert_eq!(server.client().say("RPUSH k v"), Value::Integer(1));
        assert_eq!(third.read(), bulks(&["k", "v"]));
        assert_eq!(server.client().say("ZADD k 1 a 2 b 3 c"), Value::Integer(3));
        assert_eq!(first.read(), bulks(&["k", "a", "1"]));
        assert_eq!(second.read(), bulks(&["k", "c", "3"]));
        assert_eq!(server.client().say("ZRANGE k 0 -1"), bulks(&["b"]));
        let mut fourth = waiting(server, "BZMPOP 0 2 x y MAX COUNT 2", 1);
        server.client().say("ZADD y 5 m 6 n 7 o");
        assert_eq!(fourth.read().elements()[1].elements().len(), 2);
    }
}

/// There are no followers: who waits for one waits its time out, and nobody else waits with it.
#[test]
fn followers_are_waited_for() {
    for server in &servers() {
        let mut client = server.client();
        client.say("SET k v");
        assert_eq!(client.say("WAIT 0 0"), Value::Integer(0));
        let start = Instant::now();
        assert_eq!(client.say("WAIT 1 30"), Value::Integer(0));
        assert!(start.elapsed() >= Duration::from_millis(30));
        let mut waiter = waiting(server, "WAIT 2 0", 1);
        assert_eq!(client.say("GET k"), Value::bulk("v"));
        // What is behind it waits.
        waiter.send(b"PING\r\n");
        let id = client.say("CLIENT LIST").text();
        let line = id.lines().find(|line| line.contains("cmd=wait ")).expect("it waits");
        let id = line.split(' ').next().expect("fields").trim_start_matches("id=");
        assert_eq!(client.say(&format!("CLIENT UNBLOCK {id}")), Value::Integer(1));
        assert_eq!(waiter.read(), Value::Integer(0));
        assert_eq!(waiter.read(), Value::Simple("PONG".into()));
        let mut waiter = waiting(server, "WAIT 2 0", 1);
        let id = client.say("CLIENT LIST").text();
        let line = id.lines().find(|line| line.contains("cmd=wait ")).expect("it waits");
        let id = line.split(' ').next().expect("fields").trim_start_matches("id=");
        assert_eq!(client.say(&format!("CLIENT UNBLOCK {id} ERROR")), Value::Integer(1));
        assert!(waiter.read().error().starts_with("UNBLOCKED "));
        // One that goes away is forgotten.
        drop(waiting(server, "WAIT 2 0", 1));
        eventually("it is gone", || (server.info_number("blocked_clients") == 0).then_some(()));
        client.say("MULTI");
        client.say("WAIT 5 0");
        client.say("WAIT x 0");
        let replies = client.say("EXEC");
        assert_eq!(replies.elements()[0], Value::Integer(0));
        assert!(replies.elements()[1].error().contains("not an integer"));
        for (request, error) in [
            ("WAIT x 0", "ERR value is not an integer or out of range"),
            ("WAIT 1 x", "ERR timeout is not an integer or out of range"),
            ("WAIT 1 -1", "ERR timeout is negative"),
            ("WAIT 1", "ERR wrong number of arguments for 'wait' command"),
        ] {
            assert_eq!(client.say(request).error(), error, "{request}");
        }
    }
}

/// WAITAOF says what is on this node's disk: always what was answered, or once a sync has ended, or
/// never.
#[test]
fn this_disk_is_waited_for() {
    let pair = |local: i64| Value::Array(vec![Value::Integer(local), Value::Integer(0)]);
    for shards in ["1", "3"] {
        let server = Server::start(&["--shards", shards, "--fsync", "always"]);
        let mut client = server.client();
        let replies = client.pipeline(b"MSET a 1 b 2 c 3 d 4\r\nWAITAOF 1 0 0\r\nPING\r\n", 3);
        assert_eq!(replies[1..], [pair(1), Value::Simple("PONG".into())]);
        assert_eq!(client.say("WAITAOF 0 0 0"), pair(1));
        assert_eq!(client.say("WAITAOF 1 1 20"), pair(1));
        client.say("MULTI");
        client.say("WAITAOF 1 1 0");
        assert_eq!(client.say("EXEC"), Value::Array(vec![pair(1)]));
        let server = Server::start(&["--shards", shards, "--fsync", "everysec"]);
        let mut client = server.client();
        for round in 0..3 {
            let request = format!("MSET a {round} b 2 c 3 d 4\r\nWAITAOF 1 0 0\r\n");
            assert_eq!(client.pipeline(request.as_bytes(), 2)[1], pair(1));
        }
        assert_eq!(client.say("WAITAOF 0 0 0"), pair(1), "nothing was written since");
        // Another mode makes it durable at once; one that never syncs has it wait its time out.
        let mut waiter = server.client();
        client.say("CONFIG SET appendfsync no");
        client.say("MSET a 1 b 2 c 3 d 4");
        assert_eq!(client.say("WAITAOF 1 0 20"), pair(0));
        waiter.send(b"WAITAOF 1 0 0\r\n");
        eventually("it waits", || (server.info_number("blocked_clients") == 1).then_some(()));
        client.say("CONFIG SET appendfsync always");
        assert_eq!(waiter.read(), pair(1));
        for (request, error) in [
            ("WAITAOF 2 0 0", "ERR value is out of range, value must between 0 and 1"),
            ("WAITAOF x 0 0", "ERR value is not an integer or out of range"),
            ("WAITAOF 1 -1 0", "ERR value is out of range, must be positive"),
            ("WAITAOF 1 0 -1", "ERR timeout is negative"),
        ] {
            assert_eq!(client.say(request).error(), error, "{request}");
        }
    }
    let server = Server::start(&["--mode", "cache"]);
    let refused = server.client().say("WAITAOF 1 0 0");
    assert!(refused.error().starts_with("ERR WAITAOF cannot be used when numlocal is set"));
    assert_eq!(server.client().say("WAITAOF 0 0 0"), pair(0));
}
