//! Shards that move between cores while they serve: what each client sees of it, which is nothing.
//! (What must hold of transactions while shards move is demanded by `atomic`.)

use crate::support::client::encode;
use crate::support::{Chance, Client, Server, Value, eventually, system};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const SHARDS: u64 = 4;

/// Servers of both modes and both ways to choose cores.
fn servers() -> Vec<Server> {
    let shapes: [&[&str]; 4] =
        [&["--fsync", "always"], &["--fsync", "no"], &["--mode", "cache"], &["--mode", "cache"]];
    shapes.iter().map(|shape| Server::start(&[&["--shards", "4"], *shape].concat())).collect()
}

fn core_count(server: &Server) -> u64 {
    server.info_number("cores") as u64
}

/// Moves a shard chosen by chance to a core chosen by chance.
fn shove(client: &mut Client, chance: &mut Chance, cores: u64) {
    let (shard, core) = (chance.below(SHARDS), chance.below(cores));
    let reply = client.say(&format!("DEBUG MOVE-SHARD {shard} {core}"));
    assert_eq!(reply, Value::ok(), "shard {shard} to core {core}");
}

/// Runs something while shards move as fast as they can. Returns how many moved.
fn while_shards_move(server: &Server, seed: u64, scene: impl FnOnce()) -> u64 {
    let (done, moved) = (AtomicBool::new(false), AtomicU64::new(0));
    let cores = core_count(server);
    std::thread::scope(|scope| {
        for n in 0..2 {
            let (done, moved) = (&done, &moved);
            let mut client = server.client();
            scope.spawn(move || {
                let mut chance = Chance::seeded(seed + n);
                while !done.load(Ordering::Relaxed) {
                    shove(&mut client, &mut chance, cores);
                    moved.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _done = DoneOnDrop(&done);
        scene();
    });
    moved.into_inner()
}

/// Lets the movers end, also when the test panics.
pub struct DoneOnDrop<'a>(pub &'a AtomicBool);

impl Drop for DoneOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Every request of a pipeline sees all that came before it on its key, and nothing is done twice.
#[test]
fn requests_of_a_connection_keep_their_order() {
    const CLIENTS: u64 = 6;
    const ROUNDS: i64 = 60;
    const DEPTH: i64 = 40;
    let mut chance = Chance::new("requests_of_a_connection_keep_their_order");
    for server in &servers() {
        let moved = while_shards_move(server, chance.next(), || {
            std::thread::scope(|scope| {
                for n in 0..CLIENTS {
                    let mut client = server.client();
                    scope.spawn(move || {
                        let keys: Vec<String> =
                            (0..5).map(|k| format!("counter:{n}:{k}")).collect();
                        for round in 0..ROUNDS {
                            count_in_a_pipeline(&mut client, &keys, round * DEPTH, DEPTH);
                        }
                    });
                }
            });
        });
        assert!(moved > 0);
        let mut client = server.client();
        for (n, k) in (0..CLIENTS).flat_map(|n| (0..5).map(move |k| (n, k))) {
            let value = client.say(&format!("GET counter:{n}:{k}"));
            assert_eq!(value, Value::bulk((ROUNDS * DEPTH).to_string()), "counter:{n}:{k}");
        }
    }
}

/// Counts `depth` times further on each key, all in one pipeline, by single commands and by
/// transactions, with reads in between.
fn count_in_a_pipeline(client: &mut Client, keys: &[String], start: i64, depth: i64) {
    let mut bytes = Vec::new();
    let transacts = |n: i64| n % 3 == 0;
    let mut count = 0;
    let mut push = |command: &[&str]| {
        bytes.extend(encode(command));
        count += 1;
    };
    for n in start + 1..=start + depth {
        for key in keys {
            if transacts(n) {
                push(&["MULTI"]);
                push(&["INCR", key]);
                push(&["EXEC"]);
            } else {
                push(&["INCR", key]);
            }
            push(&["GET", key]);
        }
        push(&["MGET", &keys[0], &keys[1]]);
    }
    let mut replies = client.pipeline(&bytes, count).into_iter();
    for n in start + 1..=start + depth {
        for key in keys {
            if transacts(n) {
                assert_eq!(replies.next(), Some(Value::ok()), "MULTI");
                assert_eq!(replies.next(), Some(Value::Simple("QUEUED".into())), "INCR {key}");
                let done = Value::Array(vec![Value::Integer(n)]);
                assert_eq!(replies.next(), Some(done), "EXEC of INCR {key}");
            } else {
                assert_eq!(replies.next(), Some(Value::Integer(n)), "INCR {key}");
            }
            assert_eq!(replies.next(), Some(Value::bulk(n.to_string())), "GET {key}");
        }
        let both = Value::Array(vec![Value::bulk(n.to_string()), Value::bulk(n.to_string())]);
        assert_eq!(replies.next(), Some(both), "MGET");
    }
}

/// Blocked clients wait at their shard, wherever it goes: each is served once, in order, or ends by
/// its time.
#[test]
fn blocked_clients_are_served_where_the_shard_is() {
    const ROUNDS: usize = 40;
    let mut chance = Chance::new("blocked_clients_are_served_where_the_shard_is");
    for server in &servers() {
        while_shards_move(server, chance.next(), || {
            let mut pusher = server.client();
            for round in 0..ROUNDS {
                let key = format!("list:{}", round % 7);
                let mut waiting: Vec<Client> = (0..4).map(|_| server.client()).collect();
                for (n, client) in waiting.iter_mut().enumerate() {
                    match n % 2 {
                        0 => client.send(&encode(&["BLPOP", &key, "0"])),
                        _ => client.send(&encode(&["BLPOP", "nothing:1", &key, "nothing:2", "0"])),
                    }
                    eventually("it waits", || {
                        (server.info_number("blocked_clients") == n as i64 + 1).then_some(())
                    });
                }
                let mut hasty = server.client();
                assert_eq!(hasty.say(&format!("BLPOP {key}:none 0.001")), Value::NullArray);
                for n in 0..4 {
                    pusher.call(&["RPUSH", &key, &n.to_string()]);
                }
                let mut served: Vec<String> =
                    waiting.iter_mut().map(|c| c.read().elements()[1].text()).collect();
                served.sort();
                assert_eq!(served, ["0", "1", "2", "3"]);
                assert_eq!(server.info_number("blocked_clients"), 0);
                assert_eq!(pusher.call(&["EXISTS", &key]), Value::Integer(0));
            }
        });
    }
}

#[test]
fn watched_keys_are_watched_where_the_shard_is() {
    const ROUNDS: usize = 150;
    let mut chance = Chance::new("watched_keys_are_watched_where_the_shard_is");
    for server in &servers() {
        while_shards_move(server, chance.next(), || {
            let (mut watcher, mut other) = (server.client(), server.client());
            for round in 0..ROUNDS {
                let keys = [format!("w:{round}"), format!("v:{}", round / 2)];
                let keys = &keys[..1 + round % 2];
                let watch = ["WATCH"].into_iter().chain(keys.iter().map(String::as_str));
                assert_eq!(watcher.call(&watch.collect::<Vec<_>>()), Value::ok());
                let changes = round % 3 == 0;
                if changes {
                    assert_eq!(other.call(&["SET", &keys[keys.len() - 1], "x"]), Value::ok());
                }
                watcher.say("MULTI");
                watcher.call(&["SET", &keys[0], "mine"]);
                let done = watcher.say("EXEC");
                let expected =
                    if changes { Value::NullArray } else { Value::Array(vec![Value::ok()]) };
                assert_eq!(done, expected, "round {round}");
            }
        });
    }
}

#[test]
fn a_monitor_is_shown_every_request_once() {
    const REQUESTS: usize = 400;
    let mut chance = Chance::new("a_monitor_is_shown_every_request_once");
    for server in &servers() {
        let mut monitor = server.client();
        assert_eq!(monitor.say("MONITOR"), Value::ok());
        while_shards_move(server, chance.next(), || {
            let mut client = server.client();
            for n in 0..REQUESTS {
                assert_eq!(client.say(&format!("SET shown:{n} {n}")), Value::ok());
            }
            let mut next = 0;
            while next < REQUESTS {
                let line = monitor.read().text();
                if line.contains("shown:") {
                    assert!(line.contains(&format!("\"shown:{next}\"")), "{next}: {line}");
                    next += 1;
                }
            }
        });
    }
}

/// What was acknowledged is in the log of the shard, wherever it was written; snapshots begun on
/// one core and ended on another are whole; settings that change meanwhile reach every shard.
#[test]
fn nothing_is_lost_by_a_kill_while_shards_move() {
    const CYCLES: usize = 6;
    let mut chance = Chance::new("nothing_is_lost_by_a_kill_while_shards_move");
    let storage = ["--shards", "4", "--segment-size", "8mb", "--snapshot-log-bytes", "2mb"];
    let mut server = Server::start(&storage);
    let value = "x".repeat(300);
    for cycle in 0..CYCLES {
        while_shards_move(&server, chance.next(), || {
            let (mut writer, mut operator) = (server.client(), server.client());
            for round in 0..20 {
                let keys = (0..300).map(|n| format!("k:{}", (round * 137 + n) % 3000));
                let writes =
                    keys.map(|key| encode(&["SET", &key, &format!("{cycle}.{round}{value}")]));
                let replies = writer.pipeline(&writes.collect::<Vec<_>>().concat(), 300);
                assert!(replies.iter().all(|reply| *reply == Value::ok()), "{replies:?}");
                match round % 5 {
                    0 => assert_eq!(operator.say("SAVE"), Value::ok()),
                    1 => drop(operator.say("BGSAVE SCHEDULE")),
                    n => {
                        let mode = ["always", "everysec", "no"][(n - 2) % 3];
                        let reply = operator.say(&format!("CONFIG SET fsync {mode}"));
                        assert_eq!(reply, Value::ok());
                    }
                }
            }
        });
        let mut client = server.client();
        let (digest, size) = (client.say("DEBUG DIGEST"), client.say("DBSIZE"));
        server.kill();
        server.launch();
        let mut client = server.client();
        assert_eq!((client.say("DEBUG DIGEST"), client.say("DBSIZE")), (digest, size), "{cycle}");
    }
}

/// SIGTERM in the middle: everything that was acknowledged is there, and the process ends well.
#[test]
fn a_stop_while_shards_move_is_a_good_one() {
    const CYCLES: usize = 6;
    let mut chance = Chance::new("a_stop_while_shards_move_is_a_good_one");
    let mut server = Server::start(&["--shards", "4", "--fsync", "everysec"]);
    let mut acknowledged = 0;
    for cycle in 0..CYCLES {
        let cores = core_count(&server);
        let before = acknowledged;
        std::thread::scope(|scope| {
            for seed in [chance.next(), chance.next()] {
                let mut client = server.client();
                scope.spawn(move || {
                    let mut chance = Chance::seeded(seed);
                    loop {
                        let (shard, core) = (chance.below(SHARDS), chance.below(cores));
                        let command = format!("DEBUG MOVE-SHARD {shard} {core}");
                        match client.try_call(&command.split(' ').collect::<Vec<_>>()) {
                            Ok(reply) if reply == Value::ok() => {}
                            Ok(reply) => return assert!(reply.error().contains("shutting down")),
                            Err(_) => return,
                        }
                    }
                });
            }
            let mut client = server.client();
            let writer = scope.spawn(move || {
                let mut done = before;
                while let Ok(Value::Integer(n)) = client.try_call(&["INCR", "counter"]) {
                    assert_eq!(n, done + 1);
                    done = n;
                }
                done
            });
            eventually("something is written", || {
                let count = server.client().say("GET counter");
                (count != Value::Null && count.text() != before.to_string()).then_some(())
            });
            system::send_signal(server.pid(), libc::SIGTERM);
            acknowledged = writer.join().expect("the writer ends");
        });
        let (status, output) = server.wait_for_exit();
        assert!(status.success(), "cycle {cycle}: {status}\n{output}");
        server.launch();
        let counter = server.client().say("GET counter").text();
        let counter: i64 = counter.parse().expect("a number");
        // One more may have been done whose reply found no reader.
        assert!((acknowledged..=acknowledged + 1).contains(&counter), "{counter}, {acknowledged}");
        acknowledged = counter;
    }
}

#[test]
fn only_shards_and_cores_that_exist_are_moved() {
    let server = Server::start(&["--shards", "2", "--mode", "cache"]);
    let mut client = server.client();
    for (command, error) in [
        ("DEBUG MOVE-SHARD 2 0", "ERR no such shard: 2"),
        ("DEBUG MOVE-SHARD -1 0", "ERR no such shard: -1"),
        ("DEBUG MOVE-SHARD 0 1000", "ERR no such core: 1000"),
        ("DEBUG MOVE-SHARD x 0", "ERR value is not an integer or out of range"),
    ] {
        assert_eq!(client.say(command), Value::Error(error.into()));
    }
    assert_eq!(client.say("DEBUG MOVE-SHARD 1 0"), Value::ok());
    assert_eq!(client.say("DEBUG MOVE-SHARD 1 0"), Value::ok(), "it is there already");
}

/// Who caches what it has read is told of every change behind it, and a subscriber hears of every
/// event of a key in order.
#[test]
fn news_of_changes_comes_from_wherever_the_shard_is() {
    const ROUNDS: i64 = 300;
    let mut chance = Chance::new("news_of_changes_comes_from_wherever_the_shard_is");
    for server in &servers() {
        let (mut reader, mut writer) = (server.client(), server.client());
        let mut listener = server.client();
        assert!(!reader.say("HELLO 3").is_error());
        assert_eq!(reader.say("CLIENT TRACKING ON"), Value::ok());
        assert_eq!(writer.say("CONFIG SET notify-keyspace-events Kl"), Value::ok());
        assert_eq!(listener.say("PSUBSCRIBE __keyspace@0__:news:*").elements().len(), 3);
        while_shards_move(server, chance.next(), || {
            for round in 0..ROUNDS {
                let key = format!("news:{}", round % 9);
                let length = round / 9;
                assert_eq!(reader.call(&["LLEN", &key]), Value::Integer(length));
                assert_eq!(writer.call(&["RPUSH", &key, "x"]), Value::Integer(length + 1));
                let news = reader.read();
                let [kind, keys] = news.elements() else { panic!("{news:?}") };
                assert_eq!(
                    (kind.text().as_str(), keys.elements()),
                    ("invalidate", &[Value::bulk(&key)][..])
                );
                let event = listener.read();
                let words: Vec<String> = event.elements().iter().map(Value::text).collect();
                assert_eq!(words[2..], [format!("__keyspace@0__:{key}"), "rpush".to_string()]);
            }
        });
    }
}
