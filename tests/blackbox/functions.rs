//! Functions: Redis' replies, the state that survives everything, payloads both ways, and every
//! core at once.

use crate::support::oracle::{agree_with_redis, servers};
use crate::support::{Chance, Client, Server, Value};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

fn load(client: &mut Client, name: &str, body: &str) -> Value {
    let code = format!("#!lua name={name}\n{body}");
    client.call(&["FUNCTION", "LOAD", "REPLACE", &code])
}

fn register(function: &str, body: &str) -> String {
    format!("redis.register_function('{function}', function(keys, args) {body} end)")
}

/// Requests of `functions.txt`, sent inline to the real redis-server and to ours.
#[test]
fn replies_are_those_of_redis() {
    agree_with_redis(include_str!("functions.txt"), &["FLUSHALL", "FUNCTION FLUSH"]);
}

/// Acknowledged is kept: over kill -9, by the log and by a snapshot, over SIGTERM, and over DEBUG
/// RELOAD.
#[test]
fn functions_survive_the_process() {
    for arguments in [&["--shards", "4"][..], &["--shards", "4", "--fsync", "everysec"]] {
        let mut server = Server::start(arguments);
        let mut client = server.client();
        load(&mut client, "one", &register("f1", "return redis.call('incr', keys[1])"));
        load(&mut client, "two", &register("f2", "return 'old'"));
        assert_eq!(load(&mut client, "two", &register("f2", "return 'new'")), Value::bulk("two"));
        load(&mut client, "three", &register("f3", "return 3"));
        assert_eq!(client.say("FUNCTION DELETE three"), Value::ok());
        assert_eq!(client.say("FCALL f1 1 k"), Value::Integer(1));
        let dump = client.say("FUNCTION DUMP");
        let check = |server: &Server, calls: i64| {
            let mut client = server.client();
            assert_eq!(client.say("FUNCTION DUMP"), dump);
            assert_eq!(client.say("FCALL f1 1 k"), Value::Integer(calls));
            assert_eq!(client.say("FCALL f2 0"), Value::bulk("new"));
            assert!(client.say("FCALL f3 0").is_error());
        };
        server.kill();
        server.launch();
        check(&server, 2);
        assert_eq!(server.client().say("SAVE"), Value::ok());
        server.kill();
        server.launch();
        check(&server, 3);
        assert_eq!(server.client().say("DEBUG RELOAD"), Value::ok());
        check(&server, 4);
        server.restart();
        check(&server, 5);
        // The first change after a restart is judged by what was there before.
        let mut client = server.client();
        let clash = load(&mut client, "four", &register("f2", "return 4"));
        assert_eq!(clash.error(), "ERR Function f2 already exists");
        assert_eq!(client.say("FUNCTION FLUSH"), Value::ok());
        server.kill();
        server.launch();
        assert_eq!(server.client().say("FUNCTION LIST"), Value::Array(Vec::new()));
    }
}

/// A payload of redis-server's is read here and the other way round, compressed texts too.
#[test]
fn payloads_go_both_ways() {
    let (redis, ours) = (Server::start_redis(&[]), Server::start(&["--shards", "4"]));
    for (from, to) in [(&redis, &ours), (&ours, &redis), (&ours, &ours)] {
        let (mut from, mut to) = (from.client(), to.client());
        for client in [&mut from, &mut to] {
            assert_eq!(client.say("FUNCTION FLUSH"), Value::ok());
        }
        let long = format!("{} -- {}", register("fa", "return 'a'"), "again ".repeat(3000));
        load(&mut from, "a", &long);
        load(&mut from, "b", &register("fb", "return redis.call('incr', keys[1])"));
        let list = from.say("FUNCTION LIST WITHCODE LIBRARYNAME a");
        let Value::Bulk(payload) = from.say("FUNCTION DUMP") else { panic!("a payload") };
        let restore = |client: &mut Client, policy: &[&[u8]]| {
            let words = [&[&b"FUNCTION"[..], b"RESTORE", &payload], policy].concat();
            client.call(&words)
        };
        from.say("FUNCTION FLUSH");
        assert_eq!(restore(&mut to, &[]), Value::ok());
        assert_eq!(to.say("FUNCTION LIST WITHCODE LIBRARYNAME a"), list);
        assert_eq!(to.say("FCALL fa 0"), Value::bulk("a"));
        assert!(restore(&mut to, &[b"APPEND"]).error().contains("already exists"));
        assert_eq!(restore(&mut to, &[b"REPLACE"]), Value::ok());
        load(&mut to, "c", &register("fc", "return 1"));
        assert_eq!(to.say("FUNCTION DELETE a"), Value::ok());
        load(&mut to, "d", &register("fa", "return 1"));
        assert_eq!(restore(&mut to, &[b"REPLACE"]).error(), "ERR Function fa already exists");
        assert_eq!(to.say("FCALL fc 0"), Value::Integer(1), "nothing of it was done");
        assert_eq!(restore(&mut to, &[b"FLUSH"]), Value::ok());
        assert!(to.say("FCALL fc 0").is_error());
        assert_eq!(to.say("FUNCTION LIST WITHCODE LIBRARYNAME a"), list);
        let mut torn = payload.clone();
        torn[3] ^= 1;
        let refused = to.call(&[&b"FUNCTION"[..], b"RESTORE", &torn]);
        assert_eq!(refused.error(), "ERR DUMP payload version or checksum are wrong");
    }
}

/// What was answered is seen by whoever asks afterwards, on any core: a version never goes back.
#[test]
fn an_answered_load_is_seen_by_all_connections() {
    let server = Server::start(&["--shards", "4", "--cores-in-use", "all"]);
    let (port, acknowledged) = (server.port(), Arc::new(Mutex::new(0)));
    load(&mut server.client(), "lib", &register("version", "return 0"));
    let is_done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (acknowledged, is_done) = (acknowledged.clone(), is_done.clone());
            thread::spawn(move || {
                let mut client = Client::connect(port);
                while !is_done.load(Ordering::Acquire) {
                    let least: i64 = *acknowledged.lock().expect("not poisoned");
                    let seen = client.say("FCALL version 0").integer();
                    assert!(seen >= least, "{seen} was seen after {least} was answered");
                }
            })
        })
        .collect();
    let mut client = server.client();
    for version in 1..=60 {
        load(&mut client, "lib", &register("version", &format!("return {version}")));
        *acknowledged.lock().expect("not poisoned") = version;
    }
    is_done.store(true, Ordering::Release);
    readers.into_iter().for_each(|reader| reader.join().expect("it saw the versions in order"));
}

/// Libraries loaded side by side are all there, and no function is in two of them.
#[test]
fn concurrent_loads_lose_nothing_and_never_collide() {
    let server = Server::start(&["--shards", "4", "--cores-in-use", "all"]);
    let port = server.port();
    let loaders: Vec<_> = (0..4)
        .map(|own| {
            thread::spawn(move || {
                let mut client = Client::connect(port);
                let mut random = Chance::new(&format!("concurrent_loads of {own}"));
                let mut won = 0;
                for n in 0..25 {
                    let name = format!("own_{own}_{n}");
                    let answer = load(&mut client, &name, &register(&name, "return 1"));
                    assert_eq!(answer, Value::bulk(&name));
                    let contested = format!("f{}", random.below(10));
                    let name = format!("lib_{own}_{n}");
                    let body = register(&contested, &format!("return '{name}'"));
                    won += usize::from(!load(&mut client, &name, &body).is_error());
                }
                won
            })
        })
        .collect();
    let won: usize = loaders.into_iter().map(|loader| loader.join().expect("it loads")).sum();
    let mut client = server.client();
    assert_eq!(won, 10, "each contested function has one library");
    assert_eq!(client.say("FUNCTION LIST").elements().len(), 100 + won);
    assert_eq!(client.say("FCALL own_3_24 0"), Value::Integer(1));
}

/// EXEC runs what it has queued in order, FUNCTION LOAD too.
#[test]
fn a_load_inside_exec_is_seen_by_what_follows() {
    for server in servers() {
        let mut client = server.client();
        let code = format!("#!lua name=l\n{}", register("f", "return redis.call('get', 'a')"));
        client.say("MULTI");
        client.say("SET a 1");
        client.call(&["FUNCTION", "LOAD", &code]);
        client.say("FCALL f 0");
        client.say("SET b 2");
        let replies = client.say("EXEC");
        let expected = vec![Value::ok(), Value::bulk("l"), Value::bulk("1"), Value::ok()];
        assert_eq!(replies, Value::Array(expected));
        assert_eq!(client.say("FCALL f 0"), Value::bulk("1"));
    }
}
