//! What operators ask: LATENCY's events, COMMANDLOG, memory of clients, settings that are always
//! so, and commands about what this server does not have.

use crate::support::client::encode;
use crate::support::tool::{redis_cli, run};
use crate::support::{Client, Server, Value, eventually};

const SHAPE: &[&str] = &["--shards", "3", "--mode", "cache"];

fn refused(client: &mut Client, command: &str, text: &str) {
    assert_eq!(client.say(command), Value::Error(text.into()), "{command}");
}

fn texts(value: &Value) -> Vec<String> {
    value.elements().iter().map(Value::text).collect()
}

/// The newest sample and the longest of an event of LATENCY LATEST.
fn latest(client: &mut Client, event: &str) -> Option<(i64, i64)> {
    let events = client.say("LATENCY LATEST");
    let found = events.elements().iter().find(|one| one.elements()[0].text() == event)?;
    let [_, second, newest, longest] = found.elements() else { panic!("{found:?}") };
    assert!(second.integer() > 1_700_000_000);
    Some((newest.integer(), longest.integer()))
}

#[test]
fn what_holds_a_core_up_is_kept() {
    let server = Server::start(SHAPE);
    let mut client = server.client();
    assert_eq!(client.say("DEBUG SLEEP 0.03"), Value::ok());
    assert_eq!(client.say("LATENCY LATEST"), Value::Array(vec![]), "it is off");
    assert!(client.say("LATENCY DOCTOR").text().contains("latency-monitor-threshold is 0"));
    assert_eq!(client.say("CONFIG SET latency-monitor-threshold 25"), Value::ok());
    assert_eq!(client.say("DEBUG SLEEP 0.03"), Value::ok());
    assert_eq!(client.say("DEBUG SLEEP 0.06"), Value::ok());
    let (newest, longest) = latest(&mut client, "command").expect("two were slow");
    assert!((60..).contains(&longest) && newest <= longest, "{newest} {longest}");
    let (_, longest) = eventually("the turn has ended", || latest(&mut client, "turn"));
    assert!(longest >= 30, "{longest}");
    assert_eq!(latest(&mut client, "fork"), None);
    let history = client.say("LATENCY HISTORY Command");
    let [second, took] = history.elements().last().expect("a sample").elements() else {
        panic!("{history:?}")
    };
    assert!(second.integer() > 1_700_000_000 && took.integer() >= 30);
    assert_eq!(client.say("LATENCY HISTORY nosuch"), Value::Array(vec![]));
    let graph = client.say("LATENCY GRAPH command").text();
    assert!(graph.starts_with("command - high "), "{graph}");
    refused(&mut client, "LATENCY GRAPH fork", "ERR No samples available for event 'fork'");
    let findings = client.say("LATENCY DOCTOR").text();
    assert!(findings.contains("command: ") && findings.contains("SLOWLOG"), "{findings}");
    assert_eq!(client.say("LATENCY RESET fork command command"), Value::Integer(1));
    assert_eq!(client.say("LATENCY RESET command"), Value::Integer(0));
    assert!(client.say("LATENCY RESET").integer() >= 1);
    assert_eq!(client.say("LATENCY LATEST"), Value::Array(vec![]));
    assert_eq!(client.say("CONFIG SET latency-monitor-threshold 0"), Value::ok());
    assert_eq!(client.say("DEBUG SLEEP 0.03"), Value::ok());
    assert_eq!(client.say("LATENCY LATEST"), Value::Array(vec![]));
}

#[test]
fn a_group_of_slow_commands_is_an_event() {
    let server = Server::start(&["--shards", "1", "--mode", "cache"]);
    let mut client = server.client();
    assert_eq!(client.say("CONFIG SET latency-monitor-threshold 1"), Value::ok());
    client.pipeline(&encode(&["SET".to_string(), "large".to_string(), "x".repeat(1 << 20)]), 1);
    let group = encode(&["BITCOUNT".to_string(), "large".to_string()]).repeat(64);
    eventually("together they took a millisecond", || {
        client.pipeline(&group, 64);
        latest(&mut client, "command")
    });
    assert!(server.info("cmdstat_bitcount").contains("calls="));
}

/// The amounts and commands of one log, newest first.
fn noted(client: &mut Client, kind: &str) -> Vec<(i64, Vec<String>)> {
    let found = client.say(&format!("COMMANDLOG GET -1 {kind}"));
    let entries = found.elements().iter().map(|entry| {
        let [_id, time, amount, arguments, peer, name] = entry.elements() else {
            panic!("{entry:?}")
        };
        assert!(time.integer() > 1_700_000_000 && peer.text().contains(':'));
        assert_eq!(name.text(), "me");
        (amount.integer(), texts(arguments))
    });
    entries.collect()
}

#[test]
fn large_requests_and_replies_are_kept() {
    // On one core: of requests that ran elsewhere no client is kept.
    let server = Server::start(&[
        "--shards",
        "3",
        "--mode",
        "cache",
        "--requirepass",
        "secret",
        "--cores-in-use",
        "auto",
    ]);
    let mut client = server.client();
    assert_eq!(client.say("AUTH secret"), Value::ok());
    assert_eq!(client.say("CLIENT SETNAME me"), Value::ok());
    let set = "CONFIG SET commandlog-request-larger-than 5000 commandlog-reply-larger-than 4000";
    assert_eq!(client.say(set), Value::ok());
    let value = "v".repeat(4990);
    // For every shard, and with what is received in one piece and in several.
    for n in 0..8 {
        let request = encode(&["SET", &format!("key{n}"), &value]);
        assert_eq!(client.pipeline(&request, 1), [Value::ok()]);
        assert_eq!(
            client.pipeline_in_pieces(&[&request[..3000], &request[3000..]], 1),
            [Value::ok()]
        );
        assert_eq!(client.call(&["GET", &format!("key{n}")]), Value::bulk(&value));
    }
    assert_eq!(client.call(&["SET", "small", "value"]), Value::ok());
    assert_eq!(client.say("GET small"), Value::bulk("value"));
    let requests = noted(&mut client, "large-request");
    assert_eq!(requests.len(), 16);
    let size = encode(&["SET", "key7", &value]).len() as i64;
    let shown = format!("{}... (4862 more bytes)", "v".repeat(128));
    assert_eq!(requests[0], (size, vec!["SET".into(), "key7".into(), shown]));
    let replies = noted(&mut client, "Large-Reply");
    let mut keys: Vec<String> = replies.iter().map(|(_, words)| words[1].clone()).collect();
    keys.sort();
    assert_eq!(keys, (0..8).map(|n| format!("key{n}")).collect::<Vec<_>>());
    assert!(replies.iter().all(|(size, words)| *size == 4999 && words[0] == "GET"), "{replies:?}");
    // A reply of the connection's own core, of one without keys, of a script, of all cores.
    assert_eq!(client.say("CONFIG SET commandlog-reply-larger-than 300"), Value::ok());
    assert_eq!(client.say("COMMANDLOG RESET large-reply"), Value::ok());
    client.call(&["ECHO", &"e".repeat(400)]);
    client.call(&["EVAL", "return string.rep('x', 400)", "0"]);
    client.say("CONFIG HELP");
    let names: Vec<String> =
        noted(&mut client, "large-reply").into_iter().map(|(_, words)| words[0].clone()).collect();
    assert_eq!(names, ["CONFIG", "EVAL", "ECHO"]);
    // Passwords are not kept, however long.
    assert!(client.call(&["AUTH", &"p".repeat(6000)]).is_error());
    assert_eq!(noted(&mut client, "large-request")[0].1, ["AUTH", "(redacted)"]);
    assert_eq!(client.say("COMMANDLOG LEN large-request"), Value::Integer(17));
    assert_eq!(client.say("COMMANDLOG GET 2 large-request").elements().len(), 2);
    assert_eq!(client.say("CONFIG SET commandlog-large-request-max-len 3"), Value::ok());
    assert_eq!(client.say("COMMANDLOG LEN large-request"), Value::Integer(3));
    assert_eq!(client.say("COMMANDLOG RESET large-request"), Value::ok());
    assert_eq!(client.say("CONFIG SET commandlog-request-larger-than -1"), Value::ok());
    assert_eq!(client.call(&["SET", "key", &value]), Value::ok());
    assert_eq!(client.say("COMMANDLOG LEN large-request"), Value::Integer(0));
}

#[test]
fn slowlog_is_the_log_of_slow_commands() {
    let server = Server::start(SHAPE);
    let mut client = server.client();
    assert_eq!(client.say("CONFIG SET commandlog-execution-slower-than 20000"), Value::ok());
    assert_eq!(
        client.say("CONFIG GET slowlog-log-slower-than"),
        Value::Array(vec![Value::bulk("slowlog-log-slower-than"), Value::bulk("20000")])
    );
    assert_eq!(client.say("DEBUG SLEEP 0.025"), Value::ok());
    for command in ["SLOWLOG LEN", "COMMANDLOG LEN slow"] {
        assert_eq!(client.say(command), Value::Integer(1), "{command}");
    }
    assert_eq!(client.say("COMMANDLOG GET 1 SLOW"), client.say("SLOWLOG GET 1"));
    const TYPES: &str = "ERR type should be one of the following: slow, large-request, large-reply";
    refused(&mut client, "COMMANDLOG LEN fast", TYPES);
    refused(&mut client, "COMMANDLOG GET 1 x", TYPES);
    refused(&mut client, "COMMANDLOG RESET x", TYPES);
    let count = "ERR count should be greater than or equal to -1";
    refused(&mut client, "COMMANDLOG GET -2 slow", count);
    assert_eq!(client.say("COMMANDLOG RESET slow"), Value::ok());
    assert_eq!(client.say("SLOWLOG LEN"), Value::Integer(0));
}

/// Sends so many bytes of a request that is larger, so that they stay in the input.
fn fill(client: &mut Client, bytes: usize) {
    let head = format!("*2\r\n$4\r\nECHO\r\n${}\r\n", bytes * 2);
    client.send(head.as_bytes());
    client.send(&vec![b'x'; bytes]);
}

fn memory_of(client: &mut Client, name: &str) -> usize {
    let lines = client.say("CLIENT LIST").text();
    let line = lines.lines().find(|line| line.contains(&format!(" name={name} ")));
    let field = |line: &str| {
        let word = line.split(' ').find_map(|word| word.strip_prefix("tot-mem="));
        word.and_then(|digits| digits.parse().ok()).expect("a number")
    };
    line.map_or(0, field)
}

#[test]
fn the_largest_clients_give_way() {
    let server = Server::start(SHAPE);
    let mut client = server.client();
    let mut named = |name: &str| {
        let mut one = server.client();
        assert_eq!(one.say(&format!("CLIENT SETNAME {name}")), Value::ok());
        one
    };
    let [mut large, mut larger, mut kept, mut queues] =
        ["large", "larger", "kept", "queues"].map(&mut named);
    assert_eq!(kept.say("CLIENT NO-EVICT on"), Value::ok());
    fill(&mut large, 4 << 20);
    fill(&mut larger, 8 << 20);
    fill(&mut kept, 16 << 20);
    assert_eq!(queues.say("MULTI"), Value::ok());
    let value = "q".repeat(1 << 20);
    for _ in 0..6 {
        assert_eq!(queues.call(&["SET", "key", &value]), Value::Simple("QUEUED".into()));
    }
    for (name, least) in
        [("large", 4 << 20), ("larger", 8 << 20), ("kept", 16 << 20), ("queues", 6 << 20)]
    {
        eventually(name, || (memory_of(&mut client, name) >= least).then_some(()));
    }
    // Room for all but the largest; who must not go does not count.
    let bytes: usize =
        ["large", "larger", "queues"].map(|name| memory_of(&mut client, name)).iter().sum();
    let limit = bytes - memory_of(&mut client, "larger") / 2;
    assert_eq!(client.say(&format!("CONFIG SET maxmemory-clients {limit}")), Value::ok());
    larger.read_to_close();
    assert_eq!(server.info_number("evicted_clients"), 1);
    // A share of a maxmemory that is none is no limit.
    assert_eq!(client.say("CONFIG SET maxmemory-clients 1%"), Value::ok());
    assert_eq!(queues.say("PING"), Value::Simple("QUEUED".into()));
    assert_eq!(client.say("CONFIG SET maxmemory 200mb"), Value::ok());
    queues.read_to_close();
    large.read_to_close();
    assert_eq!(server.info_number("evicted_clients"), 3);
    assert!(memory_of(&mut client, "kept") >= 16 << 20);
    refused(
        &mut client,
        "CONFIG SET maxmemory-clients 101%",
        "ERR CONFIG SET failed (possibly related to argument 'maxmemory-clients') - argument must be a memory or percent \
         value",
    );
}

#[test]
fn what_is_always_so_can_be_asked_for() {
    let server = Server::start(SHAPE);
    let mut client = server.client();
    const OF: &str = "ERR CONFIG SET failed (possibly related to argument";
    for (name, value) in [("hz", "10"), ("replica-read-only", "yes"), ("lfu-log-factor", "10")] {
        let found = client.say(&format!("CONFIG GET {name}"));
        assert_eq!(texts(&found), [name, value]);
        assert_eq!(client.say(&format!("CONFIG SET {name} {value}")), Value::ok());
        let refusal = format!("{OF} '{name}') - it is '{value}' here, always");
        refused(&mut client, &format!("CONFIG SET timeout 7 {name} 77"), &refusal);
    }
    assert_eq!(texts(&client.say("CONFIG GET timeout")), ["timeout", "0"]);
    assert_eq!(client.say("CONFIG SET hz 10 timeout 7 DAEMONIZE No"), Value::ok());
    assert_eq!(texts(&client.say("CONFIG GET timeout")), ["timeout", "7"]);
    let nothing = format!("{OF} 'dbfilename') - ringraft has nothing that it would change");
    refused(&mut client, "CONFIG SET dbfilename dump.rdb", &nothing);
    refused(
        &mut client,
        "CONFIG SET foo bar",
        "ERR Unknown option or number of arguments for CONFIG SET - 'foo'",
    );
}

#[test]
fn what_is_not_here_is_said() {
    let server = Server::start(SHAPE);
    let mut client = server.client();
    assert_eq!(client.say("MODULE LIST"), Value::Array(vec![]));
    const NONE: &str = "ERR Error loading the extension: ringraft has no modules";
    refused(&mut client, "MODULE LOAD /tmp/x.so a b", NONE);
    refused(&mut client, "MODULE LOADEX /tmp/x.so CONFIG a b", NONE);
    const NO_SUCH: &str = "ERR Error unloading module: no such module with that name";
    refused(&mut client, "MODULE UNLOAD x", NO_SUCH);
    refused(&mut client, "MODULE X", "ERR unknown subcommand 'X'. Try MODULE HELP.");
    assert!(client.say("MEMORY DOCTOR").text().contains("uses little memory"));
    for command in ["LOLWUT", "LOLWUT VERSION 6", "LOLWUT version 5 20 4", "LOLWUT 9999 0"] {
        let picture = client.say(command).text();
        assert!(picture.contains("\nRedis ver. "), "{command}: {picture}");
    }
    assert_eq!(client.say("LOLWUT version 5 20 4").text().lines().count(), 6);
    refused(&mut client, "LOLWUT VERSION x", "ERR value is not an integer or out of range");
    refused(
        &mut client,
        "BGREWRITEAOF",
        "ERR this server runs in cache mode and keeps nothing on disk",
    );
}

#[test]
fn a_script_that_was_to_be_debugged_does_not_run() {
    let server = Server::start(SHAPE);
    let mut client = server.client();
    refused(
        &mut client,
        "SCRIPT DEBUG YES",
        "ERR SCRIPT DEBUG is not supported: there is no debugger",
    );
    const SCRIPT: [&str; 4] = ["EVAL", "return redis.call('set', KEYS[1], 1)", "1", "key"];
    let refusal = client.call(&SCRIPT);
    assert!(refusal.error().contains("the script was not run"), "{refusal:?}");
    assert_eq!(client.say("MULTI"), Value::ok());
    assert!(client.call(&SCRIPT).is_error());
    assert!(client.say("EXEC").error().starts_with("EXECABORT"));
    assert_eq!(client.say("EXISTS key"), Value::Integer(0));
    assert_eq!(client.say("SCRIPT DEBUG NO"), Value::ok());
    assert_eq!(client.call(&SCRIPT), Value::ok());
    refused(&mut client, "SCRIPT DEBUG maybe", "ERR Use SCRIPT DEBUG YES/SYNC/NO");
    let file = server.directory().join("script.lua");
    std::fs::write(&file, "return redis.call('set', KEYS[1], 1)").expect("writable");
    let port = server.port().to_string();
    let arguments = ["-p", &port, "--ldb", "--eval", file.to_str().expect("UTF-8"), "other"];
    let outcome = run("redis-cli", &arguments, b"");
    assert!(outcome.text.contains("the script was not run"), "{}", outcome.text);
    assert_eq!(client.say("EXISTS other"), Value::Integer(0));
}

#[test]
fn bgrewriteaof_makes_the_log_short() {
    let server = Server::start(&["--shards", "2", "--fsync", "no"]);
    let mut client = server.client();
    for n in 0..100 {
        assert_eq!(client.say(&format!("SET key{n} value")), Value::ok());
    }
    let begun = client.say("BGREWRITEAOF").text();
    assert!(begun.starts_with("Background append only file rewriting "), "{begun}");
    eventually("each shard has its snapshot", || {
        (server.info_number("rdb_saves") >= 2 && server.info_number("aof_rewrite_in_progress") == 0)
            .then_some(())
    });
    assert_eq!(server.info("aof_last_bgrewrite_status"), "ok");
    assert_eq!(server.info_number("rdb_changes_since_last_save"), 0);
}

#[test]
fn redis_cli_shows_what_it_can() {
    let server = Server::start(&["--shards", "2", "--mode", "cache"]);
    let mut client = server.client();
    let port = server.port();
    for (command, count) in [("SET key value", 1), ("RPUSH list a b c", 3), ("HSET hash a 1", 1)] {
        let reply = client.say(command);
        assert!(reply == Value::ok() || reply == Value::Integer(count), "{command}: {reply:?}");
    }
    let file = server.directory().join("script.lua");
    std::fs::write(&file, "return {KEYS[1], ARGV[1], redis.call('get', KEYS[1])}")
        .expect("writable");
    let script = file.to_str().expect("UTF-8");
    assert_eq!(redis_cli(port, &["--eval", script, "key", ",", "word"], b""), "key\nword\nvalue\n");
    assert_eq!(redis_cli(port, &["-3", "--json", "HGETALL", "hash"], b""), "{\"a\":\"1\"}\n");
    assert_eq!(redis_cli(port, &["-3", "HGETALL", "hash"], b""), "a 1\n");
    assert_eq!(redis_cli(port, &["--csv", "LRANGE", "list", "0", "1"], b""), "\"a\",\"b\"\n");
    let latency = redis_cli(port, &["--latency", "--raw"], b"");
    assert_eq!(latency.split_whitespace().count(), 4, "{latency}");
    let stat = format!("stdbuf -oL redis-cli -p {port} --stat -i 0.01 2>&1 | head -n 4");
    let stat = run("sh", &["-c", &stat], b"").text;
    assert!(stat.contains("keys") && stat.lines().count() == 4, "{stat}");
    let refusal = run("redis-cli", &["-p", &port.to_string(), "--hotkeys"], b"").text;
    assert!(refusal.contains("An LFU maxmemory policy is not selected"), "{refusal}");
    assert_eq!(client.say("CONFIG SET maxmemory-policy allkeys-lfu"), Value::ok());
    for _ in 0..500 {
        client.say("GET key");
    }
    let text = redis_cli(port, &["--hotkeys"], b"");
    assert!(text.contains("hot key found with counter") && text.contains("key"), "{text}");
    let address = format!("127.0.0.1:{port}");
    let refusal = run("redis-cli", &["--cluster", "check", &address], b"").text;
    assert!(refusal.contains("not configured as a cluster node"), "{refusal}");
}
