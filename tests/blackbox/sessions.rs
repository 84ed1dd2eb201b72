//! The commands about connections and about the server: CLIENT, CONFIG, INFO, SLOWLOG, LATENCY,
//! MEMORY, DEBUG, MONITOR, SHUTDOWN, and the metrics page, with several cores.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::{Client, PATIENCE, Server, Value, eventually};

const SHAPE: &[&str] = &["--shards", "3", "--mode", "cache"];

/// Connections spread over the cores: enough that each core has some.
fn many(server: &Server) -> Vec<Client> {
    (0..8).map(|_| server.client()).collect()
}

fn refused(client: &mut Client, command: &str, text: &str) {
    assert_eq!(client.say(command), Value::Error(text.into()), "{command}");
}

fn field(line: &str, name: &str) -> String {
    let found = line.split(' ').find_map(|word| word.strip_prefix(&format!("{name}=")));
    found.unwrap_or_else(|| panic!("no {name} in {line}")).to_string()
}

fn list(client: &mut Client, rest: &str) -> Vec<String> {
    client.say(&format!("CLIENT LIST {rest}")).text().lines().map(str::to_string).collect()
}

#[test]
fn clients_of_all_cores_are_listed() {
    let server = Server::start(SHAPE);
    let mut clients = many(&server);
    let ids: Vec<i64> = clients.iter_mut().map(|c| c.say("CLIENT ID").integer()).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.say("CLIENT GETNAME"), Value::Null);
        assert_eq!(client.say(&format!("CLIENT SETNAME name{i}")), Value::ok());
        assert_eq!(client.say("CLIENT SETINFO lib-name blackbox"), Value::ok());
        assert_eq!(client.say("CLIENT SETINFO LIB-VER 1.2"), Value::ok());
        assert_eq!(client.say(&format!("SELECT {i}")), Value::ok());
        assert_eq!(client.say("CLIENT NO-EVICT on"), Value::ok());
        assert_eq!(client.say("GET key"), Value::Null);
    }
    let lines = list(&mut clients[0], "");
    for (i, id) in ids.iter().enumerate() {
        let line = lines.iter().find(|line| field(line, "id") == id.to_string()).expect("listed");
        assert_eq!(field(line, "name"), format!("name{i}"));
        assert_eq!((field(line, "db"), field(line, "resp")), (i.to_string(), "2".into()));
        assert_eq!(field(line, "lib-name") + &field(line, "lib-ver"), "blackbox1.2");
        assert_eq!(field(line, "flags"), "e");
        assert_eq!(field(line, "cmd"), if i == 0 { "client|list" } else { "get" });
    }
    let some = format!("ID {} {} 999999", ids[2], ids[5]);
    assert_eq!(list(&mut clients[1], &some).len(), 2);
    assert_eq!(list(&mut clients[1], "TYPE pubsub").len(), 0);
    assert!(list(&mut clients[1], "TYPE normal").len() >= clients.len());
    let own = clients[3].say("CLIENT INFO").text();
    assert_eq!(field(&own, "id"), ids[3].to_string());
    assert_eq!(field(&own, "cmd"), "client|info");
    let first = &mut clients[0];
    refused(first, "CLIENT LIST TYPE foo", "ERR Unknown client type 'foo'");
    refused(first, "CLIENT LIST ID x", "ERR Invalid client ID");
    refused(first, "CLIENT LIST foo", "ERR syntax error");
    refused(first, "CLIENT SETINFO foo bar", "ERR Unrecognized option 'foo'");
    refused(first, "CLIENT UNBLOCK 1 foo", "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR");
    assert_eq!(first.say("CLIENT UNBLOCK 1"), Value::Integer(0));
    refused(first, "CLIENT FOO", "ERR unknown subcommand 'FOO'. Try CLIENT HELP.");
    assert!(first.say("CLIENT HELP").elements().len() > 10);
}

#[test]
fn clients_are_killed() {
    let server = Server::start(SHAPE);
    let mut killer = server.client();
    let own_id = killer.say("CLIENT ID").integer();
    let mut others = many(&server);
    let id = others[0].say("CLIENT ID").integer();
    assert_eq!(killer.say(&format!("CLIENT KILL ID {id}")), Value::Integer(1));
    assert!(others.remove(0).try_call(&["PING"]).is_err());
    let address = field(&others[0].say("CLIENT INFO").text(), "addr");
    assert_eq!(killer.say(&format!("CLIENT KILL {address}")), Value::ok());
    assert!(others.remove(0).try_call(&["PING"]).is_err());
    refused(&mut killer, &format!("CLIENT KILL {address}"), "ERR No such client");
    assert_eq!(killer.say(&format!("CLIENT KILL ID {own_id}")), Value::Integer(0));
    assert_eq!(killer.say("CLIENT KILL USER default MAXAGE 100000"), Value::Integer(0));
    for (command, text) in [
        ("CLIENT KILL ID 0", "ERR client-id should be greater than 0"),
        ("CLIENT KILL ID x", "ERR client-id should be greater than 0"),
        ("CLIENT KILL USER foo", "ERR No such user 'foo'"),
        ("CLIENT KILL SKIPME foo", "ERR syntax error"),
        ("CLIENT KILL ID 1 FOO", "ERR syntax error"),
        ("CLIENT KILL MAXAGE 0", "ERR maxage should be greater than 0"),
    ] {
        refused(&mut killer, command, text);
    }
    let count = killer.say("CLIENT KILL TYPE normal SKIPME no").integer();
    assert_eq!(count as usize, others.len() + 1);
    assert!(killer.try_call(&["PING"]).is_err());
    assert!(others.iter_mut().all(|client| client.try_call(&["PING"]).is_err()));
    let mut last = server.client();
    eventually("one client is left", || (list(&mut last, "").len() == 1).then_some(()));
}

#[test]
fn replies_are_turned_off_and_on() {
    let server = Server::start(SHAPE);
    let mut client = server.client();
    client.send(b"CLIENT REPLY OFF\r\nSET a 1\r\nCONFIG SET maxmemory 0\r\nMGET a b c\r\nFOO\r\n");
    client.send(b"CLIENT REPLY ON\r\nGET a\r\n");
    assert_eq!(client.read(), Value::ok());
    assert_eq!(client.read(), Value::bulk("1"));
    client.send(b"CLIENT REPLY SKIP\r\nSET a 2\r\nGET a\r\n");
    assert_eq!(client.read(), Value::bulk("2"));
    client.send(
        b"CLIENT REPLY SKIP\r\nCLIENT LIST\r\nCLIENT REPLY SKIP\r\nCLIENT REPLY ON\r\nPING\r\n",
    );
    assert_eq!(client.read(), Value::ok());
    assert_eq!(client.read(), Value::Simple("PONG".into()));
    client.send(b"CLIENT REPLY OFF\r\nPING\r\nRESET\r\nPING\r\n");
    assert_eq!(client.read(), Value::Simple("RESET".into()));
    assert_eq!(client.read(), Value::Simple("PONG".into()));
    refused(&mut client, "CLIENT REPLY FOO", "ERR syntax error");
}

#[test]
fn pauses_hold_writes_or_all_back() {
    let server = Server::start(SHAPE);
    let (mut operator, mut client) = (server.client(), server.client());
    assert_eq!(operator.say("CLIENT PAUSE 600000 WRITE"), Value::ok());
    assert_eq!(client.say("GET a"), Value::Null);
    client.send(b"SET a 1\r\nGET a\r\n");
    let paused = || (server.info_number("paused_clients") == 1).then_some(());
    eventually("the write is held back", paused);
    assert_eq!(operator.say("GET a"), Value::Null);
    assert_eq!(operator.say("CLIENT UNPAUSE"), Value::ok());
    assert_eq!((client.read(), client.read()), (Value::ok(), Value::bulk("1")));
    assert_eq!(operator.say("CLIENT PAUSE 1"), Value::ok());
    assert_eq!(client.say("INCR a"), Value::Integer(2));
    for (command, text) in [
        ("CLIENT PAUSE x", "ERR timeout is not an integer or out of range"),
        ("CLIENT PAUSE -1", "ERR timeout is negative"),
        ("CLIENT PAUSE 1 foo", "ERR CLIENT PAUSE mode must be WRITE or ALL"),
    ] {
        refused(&mut operator, command, text);
    }
}

#[test]
fn settings_reach_every_core() {
    let server = Server::start(SHAPE);
    let mut clients = many(&server);
    let set = "CONFIG SET maxmemory 100mb timeout 7";
    assert_eq!(clients[0].say(set), Value::ok());
    for client in &mut clients {
        let found = client.say("CONFIG GET timeout maxmemory");
        let found: Vec<String> = found.elements().iter().map(Value::text).collect();
        assert_eq!(found, ["timeout", "7", "maxmemory", "104857600"]);
    }
    assert_eq!(clients[1].say("CONFIG GET nosuch"), Value::Array(vec![]));
    refused(
        &mut clients[2],
        "CONFIG SET nosuch 1",
        "ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'",
    );
    refused(&mut clients[2], "CONFIG SET a b c", "ERR syntax error");
    refused(&mut clients[2], "CONFIG REWRITE", "ERR The server is running without a config file");
    assert_eq!(clients[3].say("CONFIG SET requirepass secret timeout 0"), Value::ok());
    for _ in 0..4 {
        let mut fresh = server_client_without_password(&server);
        refused(&mut fresh, "GET a", "NOAUTH Authentication required.");
        assert_eq!(fresh.say("AUTH secret"), Value::ok());
        assert_eq!(fresh.say("GET a"), Value::Null);
    }
    assert_eq!(clients[0].say("CONFIG RESETSTAT"), Value::ok());
    assert!(clients[0].say("CONFIG HELP").elements().len() > 5);
}

fn server_client_without_password(server: &Server) -> Client {
    Client::connect(server.port())
}

#[test]
fn a_memory_limit_is_shared_by_the_shards() {
    let server = Server::start(SHAPE);
    let mut client = server.client();
    assert_eq!(client.say("CONFIG SET maxmemory 1mb"), Value::ok());
    let value = "x".repeat(100_000);
    let replies: Vec<Value> =
        (0..40).map(|n| client.call(&["SET", &format!("k{n}"), &value])).collect();
    let full = Value::Error("OOM command not allowed when used memory > 'maxmemory'.".into());
    assert!(replies.contains(&full) && replies.contains(&Value::ok()));
    assert_eq!(client.say("CONFIG SET maxmemory-policy allkeys-lru"), Value::ok());
    for n in 0..40 {
        assert_eq!(client.call(&["SET", &format!("k{n}"), &value]), Value::ok());
    }
    assert!(server.info_number("evicted_keys") > 0);
    assert_eq!(client.say("CONFIG SET maxmemory 0"), Value::ok());
}

#[test]
fn info_counts_what_happened() {
    let server = Server::start(SHAPE);
    let mut client = server.client();
    for n in 0..100 {
        assert_eq!(client.say(&format!("SET key{n} value")), Value::ok());
        assert_eq!(client.say(&format!("GET key{n}")), Value::bulk("value"));
        assert_eq!(client.say(&format!("GET nokey{n}")), Value::Null);
    }
    client.say("NOSUCH");
    client.say("GET");
    client.say("SETRANGE key0 -1 x");
    let all = client.say("INFO everything").text();
    let has = |line: &str| assert!(all.contains(&format!("\r\n{line}")), "{line} in {all}");
    has("redis_version:7.4.0\r\n");
    has("db0:keys=100,expires=0,avg_ttl=0\r\n");
    has("keyspace_hits:100\r\n");
    has("keyspace_misses:100\r\n");
    has("cmdstat_get:calls=200,");
    has("cmdstat_setrange:calls=1,");
    has("errorstat_ERR:count=3\r\n");
    has("connected_clients:1\r\n");
    has("cluster_enabled:0\r\n");
    has("role:master\r\n");
    has("shards:3\r\n");
    has("raft2:role=leader,");
    has("latency_percentiles_usec_get:p50=");
    assert!(all.contains("rejected_calls=1,"));
    let some = client.say("INFO keyspace CLIENTS nosuch").text();
    assert!(some.starts_with("# Clients\r\nconnected_clients:1\r\n"), "{some}");
    assert!(some.ends_with("\r\n\r\n# Keyspace\r\ndb0:keys=100,expires=0,avg_ttl=0\r\n"), "{some}");
    assert!(!client.say("INFO").text().contains("# Commandstats"));
    assert_eq!(client.say("INFO nosuch").text(), "");
    assert_eq!(client.say("CONFIG RESETSTAT"), Value::ok());
    assert_eq!(server.info_number("keyspace_hits"), 0);
    assert!(!client.say("INFO commandstats").text().contains("cmdstat_get:"));
    assert!(server.info_number("used_memory") > 0);
    assert!(server.info_number("used_memory_peak") >= server.info_number("used_memory_startup"));
}

/// What transactions leave behind in logs and lock tables goes when they are over, with nobody's
/// help.
#[test]
fn transactions_over_several_shards_leave_nothing() {
    let server = Server::start(SHAPE);
    let mut client = server.client();
    for n in 0..50 {
        assert_eq!(client.say(&format!("MSET a{n} 1 b{n} 2 c{n} 3 d{n} 4")), Value::ok());
        assert_eq!(client.say(&format!("RENAME a{n} e{n}")), Value::ok());
    }
    eventually("nothing is locked, prepared or remembered", || {
        let is_clean = |shard| server.info(shard).contains(",lockers=0,prepared=0,unforgotten=0,");
        ["shard0", "shard1", "shard2"].into_iter().all(is_clean).then_some(())
    });
}

#[test]
fn slow_commands_are_kept() {
    let server = Server::start(SHAPE);
    let mut client = server.client();
    assert_eq!(client.say("CONFIG SET slowlog-log-slower-than 0 slowlog-max-len 4"), Value::ok());
    assert_eq!(client.say("SLOWLOG RESET"), Value::ok());
    assert_eq!(client.say("CLIENT SETNAME me"), Value::ok());
    for n in 0..5 {
        client.say(&format!("SET key{n} value"));
        client.say(&format!("GET key{n}"));
    }
    assert_eq!(client.say("CONFIG SET slowlog-log-slower-than -1"), Value::ok());
    assert_eq!(client.say("SLOWLOG LEN"), Value::Integer(4));
    let found = client.say("SLOWLOG GET -1");
    let shown: Vec<String> = found
        .elements()
        .iter()
        .map(|entry| {
            let [id, time, took, arguments, peer, _name] = entry.elements() else {
                panic!("an entry has six elements: {entry:?}")
            };
            assert!(id.integer() > 0 && time.integer() > 1_700_000_000 && took.integer() >= 0);
            assert!(peer.text().contains(':'));
            arguments.elements().iter().map(Value::text).collect::<Vec<_>>().join(" ")
        })
        .collect();
    assert!(shown.contains(&"GET key4".to_string()), "{shown:?}");
    assert!(shown.contains(&"SET key4 value".to_string()), "{shown:?}");
    assert_eq!(client.say("SLOWLOG GET 1").elements().len(), 1);
    refused(&mut client, "SLOWLOG GET -2", "ERR count should be greater than or equal to -1");
    assert_eq!(client.say("CONFIG SET slowlog-log-slower-than 1000"), Value::ok());
    assert_eq!(client.say("SLOWLOG RESET"), Value::ok());
    assert_eq!(client.say("DEBUG SLEEP 0.01"), Value::ok());
    let slow = client.say("SLOWLOG GET");
    let arguments = slow.elements()[0].elements()[3].elements();
    assert_eq!(arguments.iter().map(Value::text).collect::<Vec<_>>(), ["DEBUG", "SLEEP", "0.01"]);
}

#[test]
fn durations_and_memory_are_told() {
    let server = Server::start(SHAPE);
    let mut client = server.client();
    for _ in 0..10 {
        assert_eq!(client.say("SET key value"), Value::ok());
    }
    let found = client.say("LATENCY HISTOGRAM set config");
    let [name, set] = found.elements() else { panic!("only SET ran: {found:?}") };
    assert_eq!(name.text(), "set");
    let [calls, count, _, buckets] = set.elements() else { panic!("four elements: {set:?}") };
    assert_eq!((calls.text(), count.integer()), ("calls".into(), 10));
    assert_eq!(buckets.elements().last().map(Value::integer), Some(10));
    assert_eq!(client.say("LATENCY HISTOGRAM nosuch"), Value::Array(vec![]));
    refused(&mut client, "LATENCY FOO", "ERR unknown subcommand 'FOO'. Try LATENCY HELP.");
    assert!(client.say("MEMORY USAGE key").integer() > 0);
    assert_eq!(client.say("MEMORY PURGE"), Value::ok());
    let stats = client.say("MEMORY STATS");
    let names: Vec<String> = stats.elements().iter().step_by(2).map(Value::text).collect();
    assert!(names.contains(&"keys.count".to_string()) && names.len() > 15);
    assert!(client.say("MEMORY MALLOC-STATS").text().contains("jemalloc"));
}

#[test]
fn digests_depend_on_the_data_alone() {
    let servers = [Server::start(SHAPE), Server::start(&["--shards", "1", "--mode", "cache"])];
    let digests: Vec<Vec<String>> = servers
        .iter()
        .map(|server| {
            let mut client = server.client();
            let mut digests = vec![client.say("DEBUG DIGEST").text()];
            for n in 0..50 {
                client.say(&format!("SET key{n} value{n} PXAT 99999999999999"));
            }
            digests.push(client.say("DEBUG DIGEST").text());
            let values = client.say("DEBUG DIGEST-VALUE key1 nosuch key2 key1");
            digests.extend(values.elements().iter().map(Value::text));
            client.say("DEL key7");
            digests.push(client.say("DEBUG DIGEST").text());
            digests
        })
        .collect();
    assert_eq!(digests[0], digests[1]);
    let own = &digests[0];
    assert_eq!(own[0], "0".repeat(40));
    assert_eq!((&own[2], &own[3]), (&own[5], &"0".repeat(40)));
    assert!(own[1] != own[6] && own[2] != own[4]);
    let mut client = servers[0].client();
    assert!(
        client.say("DEBUG OBJECT key1").text().contains(" encoding:embstr serializedlength:7 ")
    );
    assert_eq!(client.say("DEBUG SET-ACTIVE-EXPIRE 0"), Value::ok());
    assert_eq!(client.say("DEBUG SET-ACTIVE-EXPIRE 1"), Value::ok());
}

#[test]
fn monitors_see_what_all_clients_send() {
    let server = Server::start(SHAPE);
    let mut monitor = server.client();
    assert_eq!(monitor.say("MONITOR"), Value::ok());
    let mut clients = many(&server);
    for (n, client) in clients.iter_mut().enumerate() {
        let key = format!("a \"{n}\"");
        assert_eq!(client.call(&["SET", &key, "\x01"]), Value::ok());
        let line = monitor.read().text();
        let end = format!(r#""SET" "a \"{n}\"" "\x01""#);
        assert!(line.contains(" [0 127.0.0.1:") && line.ends_with(&end), "{line}");
    }
    for command in ["MULTI", "SET a 1", "EXEC"] {
        assert!(!clients[0].say(command).is_error());
    }
    for shown in ["\"MULTI\"", "\"SET\" \"a\" \"1\"", "\"EXEC\""] {
        let line = monitor.read().text();
        assert!(line.ends_with(shown), "{line}");
    }
    assert_eq!(clients[0].say("CONFIG GET port").elements().len(), 2);
    assert_eq!(clients[0].say("TIME").elements().len(), 2);
    assert!(monitor.read().text().ends_with("\"TIME\""), "CONFIG is not shown");
}

#[test]
fn shutdown_ends_the_server_in_order() {
    let mut server = Server::start(SHAPE);
    let mut client = server.client();
    refused(&mut client, "SHUTDOWN ABORT", "ERR No shutdown in progress.");
    refused(&mut client, "SHUTDOWN FOO", "ERR syntax error");
    refused(&mut client, "SHUTDOWN SAVE NOSAVE", "ERR syntax error");
    client.send(b"SHUTDOWN NOSAVE\r\n");
    assert!(client.read_to_close().is_empty());
    let (status, output) = server.wait_for_exit();
    assert!(status.success(), "{output}");
}

fn scrape(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the page's port");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    stream.write_all(request.as_bytes()).expect("the server reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer, then the end");
    answer
}

#[test]
fn the_metrics_page_is_served() {
    let port = crate::support::server::free_port();
    let port_text = port.to_string();
    let server = Server::start(&[SHAPE, &["--metrics-port", &port_text]].concat());
    let mut client = server.client();
    assert_eq!(client.say("SET key value"), Value::ok());
    let answer = scrape(port, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("Connection: close"));
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    assert!(body.contains("\nringraft_command_duration_seconds_count{command=\"set\"} 1\n"));
    assert!(body.contains("ringraft_raft_leader{shard=\"2\","));
    for line in body.lines().filter(|line| !line.starts_with('#')) {
        let (_, value) = line.rsplit_once(' ').expect("a name and a value");
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("POST /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
        ("PING\r\n\r\n", "400 Bad Request"),
    ] {
        let answer = scrape(port, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
    }
    let head = scrape(port, "HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.ends_with("\r\n\r\n"));
}
