//! The tools that people point at a Redis: redis-benchmark, redis-cli in its modes, very many
//! connections.

use std::time::Duration;

use crate::support::client::encode;
use crate::support::tool::{redis_cli, run};
use crate::support::{Client, Server, Value, eventually, system};

/// Descriptors that the test program and the server need beside those of the connections.
const OTHER_DESCRIPTORS: u64 = 500;

#[test]
fn redis_benchmark_runs_to_the_end() {
    for shards in ["1", "2"] {
        let server = Server::start(&["--shards", shards]);
        let port = server.port().to_string();
        // As it comes, with all its tests; the last one is MSET.
        let outcome = run("redis-benchmark", &["-p", &port, "-n", "1000", "-q"], b"");
        assert!(outcome.status.success(), "{}", outcome.text);
        assert!(outcome.text.contains("MSET (10 keys)"), "{}", outcome.text);
        assert!(!outcome.text.contains("rror"), "{}", outcome.text);
        for (pipeline, requests) in [("1", "5000"), ("16", "40000"), ("100", "100000")] {
            let arguments =
                ["-p", &port, "-t", "ping,set,get,incr,mset", "-P", pipeline, "-n", requests];
            let rest = ["-c", "50", "-r", "100000", "-d", "64", "-q"];
            let outcome = run("redis-benchmark", &[&arguments[..], &rest].concat(), b"");
            assert!(outcome.status.success(), "-P {pipeline}: {}", outcome.text);
            for word in ["rror", "WARNING", "Could not"] {
                assert!(!outcome.text.contains(word), "-P {pipeline}: {}", outcome.text);
            }
            for test in ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET"] {
                assert!(outcome.text.contains(test), "no {test} in {}", outcome.text);
            }
        }
        assert!(server.client().say("DBSIZE").integer() > 10_000);
    }
}

#[test]
fn redis_cli_pipe_loads_100_000_keys() {
    let server = Server::start(&["--shards", "2"]);
    let mut bytes = Vec::new();
    for index in 0..100_000 {
        bytes.extend(encode(&[
            "SET".to_string(),
            format!("key:{index}"),
            format!("value:{index}"),
        ]));
    }
    let text = redis_cli(server.port(), &["--pipe"], &bytes);
    assert!(text.contains("errors: 0, replies: 100000"), "{text}");
    let mut client = server.client();
    assert_eq!(client.say("DBSIZE"), Value::Integer(100_000));
    assert_eq!(client.say("GET key:99999"), Value::bulk("value:99999"));
}

#[test]
fn redis_cli_looks_through_the_keys() {
    let server = Server::start(&["--shards", "2"]);
    let mut client = server.client();
    let mut bytes = Vec::new();
    for index in 0..2000 {
        bytes.extend(encode(&["SET".to_string(), format!("key:{index}"), "v".repeat(index % 50)]));
    }
    client.pipeline(&bytes, 2000);
    assert_eq!(client.call(&["SET", "the-largest", &"x".repeat(5000)]), Value::ok());

    let mut names: Vec<String> = redis_cli(server.port(), &["--scan", "--pattern", "key:*"], b"")
        .lines()
        .map(String::from)
        .collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 2000);

    let text = redis_cli(server.port(), &["--bigkeys"], b"");
    assert!(text.contains("Sampled 2001 keys"), "{text}");
    assert!(text.contains("the-largest") && text.contains("5000 bytes"), "{text}");
    let text = redis_cli(server.port(), &["--memkeys"], b"");
    assert!(text.contains("the-largest"), "{text}");
    let text = redis_cli(server.port(), &["INFO", "server"], b"");
    assert!(text.contains("redis_version:"), "{text}");
}

#[test]
fn monitor_shows_commands_of_every_core() {
    let server = Server::start(&["--shards", "2"]);
    let mut monitor = server.client();
    assert_eq!(monitor.say("MONITOR"), Value::ok());
    let mut clients: Vec<Client> = (0..8).map(|_| server.client()).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.call(&["SET", &format!("key{index}"), "a \"b\"\r\n"]), Value::ok());
    }
    let mut awaited: Vec<String> =
        (0..8).map(|index| format!(r#""SET" "key{index}" "a \"b\"\r\n""#)).collect();
    while !awaited.is_empty() {
        let line = monitor.read().text();
        assert!(line.contains("[0 127.0.0.1:"), "{line}");
        awaited.retain(|command| !line.ends_with(command.as_str()));
    }
}

#[test]
fn shutdown_ends_the_server() {
    let mut server = Server::start(&["--shards", "2"]);
    let mut idle = server.client();
    assert_eq!(server.client().say("SET a 1"), Value::ok());
    redis_cli(server.port(), &["SHUTDOWN"], b"");
    let (status, output) = server.wait_for_exit();
    assert!(status.success(), "{status}: {output}");
    assert!(idle.read_to_close().is_empty());
    server.launch();
    assert_eq!(server.client().say("GET a"), Value::bulk("1"));
}

#[test]
fn ten_thousand_connections() {
    const CONNECTIONS: usize = 10_000;
    let limit = system::raise_open_files();
    if limit < CONNECTIONS as u64 + OTHER_DESCRIPTORS {
        println!("skipped: the hard limit of open files is {limit}");
        return;
    }
    let server = Server::start(&["--shards", "2", "--maxclients", "10100"]);
    let mut clients: Vec<Client> = Vec::with_capacity(CONNECTIONS);
    for index in 0..CONNECTIONS {
        match Client::try_connect(server.port()) {
            Ok(client) => clients.push(client),
            Err(error) => panic!("connection {index}: {error}"),
        }
    }
    for (index, client) in clients.iter_mut().enumerate() {
        client.send(&encode(&["SET".to_string(), format!("key{index}"), index.to_string()]));
    }
    for client in &mut clients {
        assert_eq!(client.read(), Value::ok());
    }
    for (index, client) in clients.iter_mut().enumerate().step_by(97) {
        assert_eq!(client.say(&format!("GET key{index}")), Value::bulk(index.to_string()));
    }
    assert!(server.info_number("connected_clients") >= CONNECTIONS as i64);
    assert_eq!(clients[0].say("DBSIZE"), Value::Integer(CONNECTIONS as i64));
    drop(clients);
    eventually("the connections are gone", || {
        (server.info_number("connected_clients") < 10).then_some(())
    });
}

/// More clients than `maxclients`: refused with Redis' words, and room again when one leaves.
#[test]
fn one_client_too_many() {
    let server = Server::start(&["--shards", "1", "--maxclients", "10"]);
    let admitted = || {
        let mut client = server.client();
        let reply = client.try_call(&["PING"]).ok()?;
        (reply == Value::Simple("PONG".into())).then_some(client)
    };
    // Who asked whether the server is ready may not be gone yet.
    let mut clients: Vec<Client> = (0..10).map(|_| eventually("there is room", admitted)).collect();
    let refused = server.client().read_to_close();
    assert_eq!(String::from_utf8_lossy(&refused), "-ERR max number of clients reached\r\n");
    clients.pop();
    eventually("there is room again", || {
        let mut client = server.client();
        (client.try_call(&["PING"]).ok()? == Value::Simple("PONG".into())).then_some(())
    });
}

/// At rest the server uses at most one percent of a cpu.
#[test]
fn an_idle_server_rests() {
    const WATCHED: Duration = Duration::from_secs(3);
    let server = Server::start(&["--shards", "2"]);
    let mut clients: Vec<Client> = (0..100).map(|_| server.client()).collect();
    for client in &mut clients {
        assert_eq!(client.say("SET a 1"), Value::ok());
    }
    // The only wait for time in these tests: a rate cannot be seen otherwise.
    let begin = system::cpu_ticks(server.pid());
    clients[0].wait_in_silence(WATCHED);
    let used = system::cpu_ticks(server.pid()) - begin;
    let allowed = system::ticks_per_second() * WATCHED.as_secs() / 100 + 3;
    assert!(used <= allowed, "{used} ticks of cpu in {WATCHED:?}, {allowed} allowed");
}
