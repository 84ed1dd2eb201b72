//! How connections end: all that a client sent is executed, and every reply that Redis would send
//! is sent, by whatever way the end comes and whatever is under way then.
//!
//! The same bytes go to the real redis-server, and its replies and its data are what is expected.

use crate::support::client::encode;
use crate::support::{Client, Server, Value, eventually};

/// Replies that tell of the server itself: only their kind is compared.
const TELLING: &[&str] = &[
    "INFO",
    "CLIENT LIST",
    "CLIENT INFO",
    "LATENCY HISTOGRAM",
    "MEMORY STATS",
    "COMMAND COUNT",
    "TIME",
    "LASTSAVE",
    "CLIENT ID",
    "HELLO 3",
    "COMMAND LIST",
];

/// Requests, one per line, `N x REQUEST` for many. Bytes that are no such line come after `raw:`.
const CASES: &[&str] = &[
    "SET b 1",
    "",
    "raw:\r\n\r\n",
    "INFO|SET b 1",
    "CLIENT LIST|SET b 1|CLIENT LIST",
    "CLIENT INFO|CLIENT ID|TIME|LASTSAVE|SET b 1",
    "CONFIG SET maxmemory 0|SET b 1|CONFIG SET maxmemory 0",
    "CONFIG RESETSTAT|CONFIG GET databases|SET b 1",
    "SLOWLOG GET|SLOWLOG RESET|SLOWLOG LEN|SET b 1",
    "LATENCY HISTOGRAM|MEMORY STATS|SET b 1",
    "COMMAND COUNT|COMMAND LIST|SET b 1",
    "CLIENT KILL ID 999999|CLIENT UNPAUSE|SET b 1",
    "WATCH a0 b1|SET b 1",
    "WATCH a0 b1|MULTI|SET a0 1|SET b1 2|EXEC|SET b 1",
    "WATCH a0|SET a0 1|MULTI|SET b 1|EXEC|INFO|SET b1 1",
    "MULTI|SET b 1|SET a0 1|SET b1 1|EXEC",
    "MULTI|SET b 1",
    "MULTI|NOSUCH|SET b 1|EXEC|SET a0 1",
    "HELLO 3|GET b|SET b 1",
    "SET b 1|MONITOR|SET b 2|GET b|MGET a0 b1",
    "SELECT 3|SET b 1|MOVE b 0",
    "MSET a0 1 b1 2 b 3|MGET a0 b1 b|DEL a0 b1|INFO|DBSIZE|KEYS *|SET b 1",
    "RENAME a0 b|COPY b b1|SET a0 1|RENAME a0 b|MSETNX a0 1 b 2|BITOP OR b1 a0 b|FLUSHALL|SET b 1",
    "INFO|MSET a0 1 b1 2|INFO|MGET a0 b1|INFO|SWAPDB 0 1|INFO|SET b 1",
    "20000 x SET a 1|SET b 1",
    "20000 x INCR a|20000 x INCR a0|20000 x INCR b1|GET a|SET b 1",
    "20000 x GET a|SET b 1|20000 x GET b",
    "3000 x MSET a0 1 b1 2|3000 x MGET a0 b1|SET b 1",
    "10 x INFO|SET b 1|SLOWLOG GET",
    "CLIENT REPLY OFF|20000 x SET a 1|SET b 1",
    "CLIENT REPLY OFF|20000 x INCR a|INFO|20000 x INCR a|SET b 1|CLIENT REPLY ON|GET a",
    "CLIENT REPLY SKIP|INFO|CLIENT REPLY SKIP|SET b 1",
    "CLIENT REPLY OFF|SET a 1|RESET|SET b 1",
    "SET b 1|QUIT|SET b 2",
    "INFO|SET b 1|QUIT|SET b 2",
    "20000 x SET a 1|SET b 1|QUIT|SET b 2",
    "MSET a0 1 b1 1|SET b 1|QUIT|MSET a0 2 b1 2",
    "CLIENT REPLY OFF|SET b 1|QUIT|SET b 2",
    "20000 x SET a 1|SET b 1|CLIENT KILL TYPE normal SKIPME no|SET b 2",
    "SET b 1|INFO|GET b|raw:*1\r\nX\r\nSET b 2\r\n",
    "20000 x SET b 1|raw:*1\r\n$-1\r\nSET b 2\r\n",
    "MSET a0 1 b1 1|SET b 1|raw:*-x\r\n",
    "CLIENT REPLY OFF|SET b 1|raw:*1\r\nX\r\nSET b 2\r\n",
    "SET b 1|CLIENT REPLY SKIP|raw:*1\r\nX\r\nSET b 2\r\n",
    "SET b 1|raw:SET b \"2\r\nSET b 3\r\n",
    "SET b 1|raw:*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$1\r\n",
    "SET b 1|INFO|raw:SET b 2",
    "20000 x SET b 1|raw:SET b 2",
];

fn requests(case: &str) -> Vec<String> {
    let mut requests = Vec::new();
    for line in case.split('|').filter(|line| !line.is_empty()) {
        match line.split_once(" x ") {
            Some((count, line)) => {
                let count = count.parse().expect("a count");
                requests.extend(std::iter::repeat_n(line.to_string(), count));
            }
            None => requests.push(line.to_string()),
        }
    }
    requests
}

fn bytes_of(requests: &[String]) -> Vec<u8> {
    let line = |request: &String| match request.strip_prefix("raw:") {
        Some(raw) => raw.to_string(),
        None => format!("{request}\r\n"),
    };
    requests.iter().map(line).collect::<String>().into_bytes()
}

fn replies_of(mut bytes: &[u8]) -> Vec<Value> {
    let mut replies = Vec::new();
    while !bytes.is_empty() {
        replies.push(Value::read(&mut bytes).expect("whole replies"));
    }
    replies
}

/// What tells of the server itself becomes the name of its kind.
fn comparable(requests: &[String], bytes: &[u8]) -> Vec<Value> {
    let mut replies = replies_of(bytes);
    if requests.iter().any(|request| request.starts_with("CLIENT REPLY")) {
        return replies;
    }
    for (reply, request) in replies.iter_mut().zip(requests) {
        if TELLING.contains(&request.as_str()) {
            let kind = match reply {
                Value::Bulk(_) => "a bulk string",
                Value::Array(_) => "an array",
                Value::Map(_) => "a map",
                Value::Integer(_) => "an integer",
                other => panic!("{request}: {other:?}"),
            };
            *reply = Value::Simple(kind.into());
        }
    }
    replies
}

fn data(server: &Server) -> Vec<Value> {
    let mut client = server.client();
    ["a", "b", "a0", "b1"].iter().map(|key| client.say(&format!("GET {key}"))).collect()
}

/// Servers that put requests on their way in different manners.
fn servers() -> Vec<Server> {
    let shapes: &[&[&str]] = &[
        &["--shards", "1"],
        &["--shards", "3"],
        &["--shards", "4", "--fsync", "no"],
        &["--shards", "2", "--mode", "cache"],
    ];
    // A busy machine is slow now and then: that is not what is looked at here.
    let quiet = ["--slowlog-log-slower-than", "-1"];
    shapes.iter().map(|shape| Server::start(&[*shape, &quiet].concat())).collect()
}

#[test]
fn a_half_closed_connection_ends_as_in_redis() {
    let redis = Server::start_redis(&["--slowlog-log-slower-than", "-1"]);
    let servers = servers();
    for case in CASES {
        let requests = requests(case);
        let bytes = bytes_of(&requests);
        let run = |server: &Server| {
            assert_eq!(server.client().say("FLUSHALL"), Value::ok());
            let replies = server.client().exchange(&bytes);
            (comparable(&requests, &replies), data(server))
        };
        let (replies, kept) = run(&redis);
        for (place, server) in servers.iter().enumerate() {
            let (ours, ours_kept) = run(server);
            assert_eq!(ours.len(), replies.len(), "server {place}: replies to {case}");
            assert_eq!(ours, replies, "server {place}: {case}");
            assert_eq!(ours_kept, kept, "server {place}: the data after {case}");
        }
    }
}

/// A client that is gone without a word has its requests executed all the same; in Redis too as
/// long as it has no replies to send.
#[test]
fn what_a_client_sent_before_it_went_is_executed() {
    let case = "500 x INCR a|INFO|500 x INCR a0|MSET b1 1 a0 500|CONFIG SET maxmemory 0|500 x INCR a|SET b 1";
    let noisy = bytes_of(&requests(case));
    let quiet = [b"CLIENT REPLY OFF\r\n", &noisy[..]].concat();
    let check = |server: &Server, bytes: &[u8]| {
        for reset in [false, true] {
            assert_eq!(server.client().say("FLUSHALL"), Value::ok());
            let mut client = server.client();
            // Redis never sees a connection that is reset before it is accepted.
            assert_eq!(client.say("PING"), Value::Simple("PONG".into()));
            client.send(bytes);
            if reset {
                client.reset();
            } else {
                drop(client);
            }
            // Shards go on side by side: each has its own last request.
            let expected = ["1000", "1", "500", "1"].map(Value::bulk);
            let what = format!("all is executed (reset: {reset})");
            eventually(&what, || (data(server) == expected).then_some(()));
        }
    };
    check(&Server::start_redis(&[]), &quiet);
    for server in &servers() {
        check(server, &quiet);
        check(server, &noisy);
        eventually("the connections are gone", || {
            (server.info_number("connected_clients") == 1).then_some(())
        });
    }
}

/// Everything before a SHUTDOWN in the same stream is executed and answered, nothing behind it.
/// (Redis does not send the last replies.)
#[test]
fn what_comes_before_a_shutdown_is_answered() {
    for mut server in servers() {
        let case = "20000 x INCR a|INFO|MSET a0 1 b1 1|SET b 1|SHUTDOWN NOSAVE|SET b 2|INCR a";
        let replies = replies_of(&server.client().exchange(&bytes_of(&requests(case))));
        assert_eq!(replies.len(), 20_003);
        assert_eq!(replies[19_999], Value::Integer(20_000));
        assert_eq!(replies[20_001..], [Value::ok(), Value::ok()]);
        let (status, output) = server.wait_for_exit();
        assert!(status.success(), "{output}");
    }
}

/// More replies than sockets hold wait for a client that reads late, and what is behind them is
/// executed.
#[test]
fn a_client_that_reads_late_gets_every_reply() {
    let value = "x".repeat(100_000);
    for server in &servers() {
        assert_eq!(server.client().call(&["SET", "a", &value]), Value::ok());
        let mut client = server.client();
        client.send(&bytes_of(&requests("500 x GET a|SET b 1|INFO|20 x GET a|SET b1 1|QUIT")));
        client.finish_writing();
        eventually("its replies wait", || {
            let list = server.client().say("CLIENT LIST").text();
            list.lines().any(|line| line.contains(" events=rw ")).then_some(())
        });
        let replies = replies_of(&client.read_to_close());
        assert_eq!(replies.len(), 524);
        assert!(replies[..500].iter().all(|reply| *reply == Value::bulk(&value)));
        assert_eq!((&replies[500], &replies[522]), (&Value::ok(), &Value::ok()));
        assert_eq!(server.client().say("MGET b b1").elements(), ["1", "1"].map(Value::bulk));
    }
}

/// Requests that CLIENT PAUSE holds back are executed when it is over. (Redis closes such a client
/// at once.)
#[test]
fn a_paused_client_that_has_finished_writing_is_served_at_last() {
    for server in &servers() {
        let mut operator = server.client();
        assert_eq!(operator.say("CLIENT PAUSE 600000 WRITE"), Value::ok());
        let mut client = server.client();
        client.send(b"GET a\r\nSET a 1\r\nINFO\r\nSET b 1\r\nGET a\r\nSET b");
        client.finish_writing();
        let paused = || (server.info_number("paused_clients") == 1).then_some(());
        eventually("the write is held back", paused);
        assert_eq!(operator.say("CLIENT UNPAUSE"), Value::ok());
        let replies = replies_of(&client.read_to_close());
        assert_eq!(replies.len(), 5);
        assert_eq!(replies[..2], [Value::Null, Value::ok()]);
        assert_eq!(replies[3..], [Value::ok(), Value::bulk("1")]);
    }
}

/// A connection that is on its way to another core takes with it that its client sends nothing
/// more.
#[test]
fn a_connection_ends_while_it_moves() {
    let server = Server::start(&["--shards", "3", "--mode", "cache", "--cores-in-use", "all"]);
    let mut clients: Vec<Client> = (0..24).map(|_| server.client()).collect();
    let old = |client: &mut Client| {
        let info = client.say("CLIENT INFO").text();
        info.contains(" age=2 ").then_some(())
    };
    eventually("a connection may move", || old(&mut clients[0]));
    for (place, client) in clients.iter_mut().enumerate() {
        let key = format!("k{}", place % 6);
        assert_eq!(client.pipeline(&encode(&["GET", &key]).repeat(300), 300).len(), 300);
        // The move begins when the last of these replies is sent.
        let incremented = client.exchange(&encode(&["INCR", "n"]).repeat(20));
        let expected = (1..=20).map(|n| Value::Integer(place as i64 * 20 + n));
        assert_eq!(replies_of(&incremented), expected.collect::<Vec<_>>());
    }
    assert!(server.info_number("moved_connections") > 0, "none has moved");
}

/// A reply is sent once another client can have seen what the request did, though its client be
/// killed then.
#[test]
fn a_killed_client_has_the_reply_to_what_others_have_seen() {
    let server = Server::start(&["--shards", "4", "--fsync", "no"]);
    let mut killer = server.client();
    for round in 0..100 {
        let mut client = server.client();
        let id = client.say("CLIENT ID").integer();
        let key = format!("key{round}");
        client.send(&encode(&["SET", &key, "1"]));
        while killer.call(&["GET", &key]) == Value::Null {}
        assert_eq!(killer.say(&format!("CLIENT KILL ID {id}")), Value::Integer(1));
        assert_eq!(client.read_to_close(), b"+OK\r\n", "round {round}");
    }
}

/// The metrics page is answered whole to a client that has finished writing.
#[test]
fn a_half_closed_scrape_is_answered() {
    let port = crate::support::server::free_port().to_string();
    let shape = ["--shards", "3", "--mode", "cache", "--metrics-port", &port];
    let _server = Server::start(&shape);
    let mut scraper = Client::connect(port.parse().expect("a port"));
    let answer = scraper.exchange(b"GET /metrics HTTP/1.1\r\n\r\n");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    let mut scraper = Client::connect(port.parse().expect("a port"));
    assert!(scraper.exchange(b"GET /metrics HT").is_empty());
}

/// A client that reads a long reply slowly is not idle: `timeout` does not close it.
#[test]
fn a_slow_reader_is_not_idle() {
    const VALUE_BYTES: usize = 64 << 20;
    const PIECE_BYTES: usize = 1 << 20;
    let server = Server::start(&["--shards", "1", "--mode", "cache"]);
    let mut operator = server.client();
    let mut client = server.client();
    assert_eq!(client.say("CLIENT SETNAME slow"), Value::ok());
    assert_eq!(client.call(&["SET", "a", &"x".repeat(VALUE_BYTES)]), Value::ok());
    client.send(b"GET a\r\n");
    let mut idle_seconds = || {
        let list = operator.say("CLIENT LIST").text();
        let line = list.lines().find(|line| line.contains(" name=slow ")).expect("connected");
        let idle = line.split(' ').find_map(|word| word.strip_prefix("idle="));
        idle.and_then(|idle| idle.parse::<u64>().ok()).expect("a number")
    };
    eventually("it is idle while it does not read", || (idle_seconds() >= 2).then_some(()));
    let mut received = 0;
    eventually("it is idle no more when it reads", || {
        received += client.read_some(PIECE_BYTES);
        assert!(received < VALUE_BYTES, "it was idle to the end");
        (idle_seconds() < 2).then_some(())
    });
}
