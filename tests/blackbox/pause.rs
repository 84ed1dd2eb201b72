//! CLIENT PAUSE: what it holds back, what passes, and what happens to keys meanwhile.

use crate::support::{Client, Server, Value, eventually};
use std::time::Duration;

/// Pauses last until they are ended: a test that waited for their end would wait on a clock.
const LONG: &str = "600000";

fn held_back(server: &Server, count: i64) {
    let paused = || (server.info_number("paused_clients") == count).then_some(());
    eventually("clients are held back", paused);
}

fn pause_writes(operator: &mut Client) {
    assert_eq!(operator.say(&format!("CLIENT PAUSE {LONG} WRITE")), Value::ok());
}

#[test]
fn a_pause_of_writes_holds_nothing_else() {
    let server = Server::start(&["--shards", "3"]);
    let (mut operator, mut client) = (server.client(), server.client());
    assert_eq!(client.say("MSET a0 1 b1 2"), Value::ok());
    pause_writes(&mut operator);
    for (line, reply) in [
        ("PING", Value::Simple("PONG".into())),
        ("GET a0", Value::bulk("1")),
        ("TOUCH a0 b1 c", Value::Integer(2)),
        ("WATCH a0 b1", Value::ok()),
        ("UNWATCH", Value::ok()),
        ("SELECT 0", Value::ok()),
        ("CONFIG SET timeout 0", Value::ok()),
        ("SAVE", Value::ok()),
        ("MULTI", Value::ok()),
        ("GET a0", Value::Simple("QUEUED".into())),
        ("GET b1", Value::Simple("QUEUED".into())),
        ("EXEC", Value::Array(vec![Value::bulk("1"), Value::bulk("2")])),
        ("RESET", Value::Simple("RESET".into())),
    ] {
        assert_eq!(client.say(line), reply, "{line}");
    }
    // What is refused is refused at once.
    for line in ["EXEC", "SET a0", "NOSUCH", "DISCARD"] {
        assert!(client.say(line).is_error(), "{line}");
    }
    assert_eq!(operator.say("CLIENT UNPAUSE"), Value::ok());
}

#[test]
fn every_write_waits_for_the_end_of_a_pause() {
    let server = Server::start(&["--shards", "3"]);
    let mut operator = server.client();
    let lines = [
        "SET a 1",
        "GETEX a",
        "EXPIRE nosuch 1",
        "FLUSHALL",
        "SWAPDB 0 0",
        "MSET a 1 b 2 c 3",
        "PFCOUNT nosuch",
        "MULTI\r\nSET a 1",
    ];
    let mut clients: Vec<Client> = lines.iter().map(|_| server.client()).collect();
    let mut prepared = server.client();
    assert_eq!(prepared.say("MULTI"), Value::ok());
    assert_eq!(prepared.say("SET late 1"), Value::Simple("QUEUED".into()));
    pause_writes(&mut operator);
    for (client, line) in clients.iter_mut().zip(lines) {
        client.send(format!("{line}\r\n").as_bytes());
    }
    prepared.send(b"EXEC\r\n");
    held_back(&server, lines.len() as i64 + 1);
    assert_eq!(operator.say("GET late"), Value::Null);
    assert_eq!(operator.say("CLIENT UNPAUSE"), Value::ok());
    assert_eq!(prepared.read(), Value::Array(vec![Value::ok()]));
    for (client, line) in clients.iter_mut().zip(lines) {
        for _ in line.lines() {
            assert!(!client.read().is_error(), "{line}");
        }
    }
    assert_eq!(operator.say("CLIENT LIST").text().lines().count(), lines.len() + 2);
}

/// As in Redis: CLIENT UNPAUSE too, so that only time or the end of the process ends such a pause.
#[test]
fn a_pause_of_all_holds_everything_that_would_run() {
    let mut server = Server::start(&["--shards", "2"]);
    let (mut operator, mut client) = (server.client(), server.client());
    assert_eq!(operator.say("CLIENT PAUSE 3000"), Value::ok());
    for line in ["NOSUCH", "GET", "CLIENT PAUSE"] {
        assert!(operator.say(line).is_error(), "{line}");
    }
    client.send(b"PING\r\n");
    operator.send(b"CLIENT UNPAUSE\r\n");
    operator.wait_in_silence(Duration::from_millis(300));
    // Held until the pause has run out, then answered.
    assert_eq!(client.read(), Value::Simple("PONG".into()));
    assert_eq!(operator.read(), Value::ok());
    assert_eq!(operator.say(&format!("CLIENT PAUSE {LONG} ALL")), Value::ok());
    client.send(b"PING\r\n");
    let (status, output) = server.terminate();
    assert!(status.success(), "{output}");
}

#[test]
fn the_time_of_a_pause_is_checked_as_in_redis() {
    let server = Server::start(&["--shards", "2"]);
    let mut operator = server.client();
    for (line, text) in [
        ("CLIENT PAUSE x", "ERR timeout is not an integer or out of range"),
        ("CLIENT PAUSE 1.5", "ERR timeout is not an integer or out of range"),
        ("CLIENT PAUSE 9223372036854775808", "ERR timeout is not an integer or out of range"),
        ("CLIENT PAUSE 9223372036854775807", "ERR timeout is out of range"),
        ("CLIENT PAUSE 9223372036854775807 WRITE", "ERR timeout is out of range"),
        ("CLIENT PAUSE -1", "ERR timeout is negative"),
        ("CLIENT PAUSE x FOO", "ERR CLIENT PAUSE mode must be WRITE or ALL"),
        (
            "CLIENT PAUSE 1 WRITE ALL",
            "ERR unknown subcommand or wrong number of arguments for 'pause'. Try CLIENT HELP.",
        ),
    ] {
        assert_eq!(operator.say(line), Value::Error(text.into()), "{line}");
    }
    assert_eq!(operator.say("CLIENT PAUSE 0"), Value::ok());
    assert_eq!(operator.say("SET a 1"), Value::ok());
    // The longest that there is: a clock of milliseconds still holds its end.
    assert_eq!(operator.say("CLIENT PAUSE 9000000000000000000 WRITE"), Value::ok());
    assert_eq!(operator.say("GET a"), Value::bulk("1"));
}

/// Keys past their deadline are absent, but nothing deletes them, and nothing is evicted.
#[test]
fn nothing_expires_or_is_evicted_during_a_pause() {
    let server = Server::start(&["--shards", "1", "--mode", "cache"]);
    let (mut operator, mut client) = (server.client(), server.client());
    for n in 0..2000 {
        client.call(&["SET", &format!("long:{n}"), &"x".repeat(1000)]);
    }
    assert_eq!(client.say("DEBUG SET-ACTIVE-EXPIRE 0"), Value::ok());
    for n in 0..500 {
        assert_eq!(client.say(&format!("SET short:{n} 1 PX 300")), Value::ok());
    }
    pause_writes(&mut operator);
    eventually("the keys are past their deadline", || {
        (client.say("GET short:499") == Value::Null).then_some(())
    });
    assert_eq!(operator.say("DEBUG SET-ACTIVE-EXPIRE 1"), Value::ok());
    let limits = "CONFIG SET maxmemory-policy allkeys-random maxmemory 1mb";
    assert_eq!(operator.say(limits), Value::ok());
    // Some hundred turns and at least one tick of the core.
    let ticks = || server.info_number("total_commands_processed");
    let first = ticks();
    eventually("the core has worked on", || (ticks() > first + 100).then_some(()));
    assert_eq!(client.say("DBSIZE"), Value::Integer(2500));
    assert_eq!(server.info_number("expired_keys"), 0);
    assert_eq!(server.info_number("evicted_keys"), 0);
    assert_eq!(operator.say("CLIENT UNPAUSE"), Value::ok());
    eventually("the pause over, both go on", || {
        let (expired, evicted) =
            (server.info_number("expired_keys"), server.info_number("evicted_keys"));
        (expired > 0 && evicted > 0).then_some(())
    });
}
