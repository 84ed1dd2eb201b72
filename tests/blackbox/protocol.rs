//! The protocol over real sockets: deep pipelines, requests in pieces, requests that are wrong,
//! values at the limit, and clients that misbehave and must hurt only themselves.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::support::client::encode;
use crate::support::{Chance, Client, Server, Value, eventually};

/// How long a PING may take while another client misbehaves: generous for a loaded machine, and far
/// below a stall.
const RESPONSIVE: Duration = Duration::from_secs(5);

const BULK_BYTES_MAX: usize = 512 << 20;

fn assert_responsive(client: &mut Client) {
    let begin = Instant::now();
    assert_eq!(client.say("PING"), Value::Simple("PONG".into()));
    assert!(begin.elapsed() < RESPONSIVE, "PING took {:?}", begin.elapsed());
}

#[test]
fn a_pipeline_of_100_000_commands() {
    for shards in ["1", "2"] {
        let server = Server::start(&["--shards", shards]);
        let mut client = server.client();
        let mut bytes = Vec::new();
        for index in 0..50_000 {
            bytes.extend(encode(&["SET".to_string(), format!("k{index}"), format!("v{index}")]));
            bytes.extend(encode(&["GET".to_string(), format!("k{index}")]));
        }
        let replies = client.pipeline(&bytes, 100_000);
        for (index, pair) in replies.chunks(2).enumerate() {
            assert_eq!(pair[0], Value::ok(), "SET {index}");
            assert_eq!(pair[1], Value::bulk(format!("v{index}")), "GET {index}");
        }
        assert_eq!(client.say("DBSIZE"), Value::Integer(50_000));
    }
}

/// One client alone must read what it wrote, whatever of its pipeline goes to which shards and
/// together with what.
#[test]
fn a_pipeline_keeps_its_order_over_shards() {
    let mut chance = Chance::new("a_pipeline_keeps_its_order_over_shards");
    for shards in ["1", "2", "5"] {
        let server = Server::start(&["--shards", shards, "--maxmemory", "0"]);
        let mut client = server.client();
        let mut model: BTreeMap<String, String> = BTreeMap::new();
        for round in 0..20 {
            let mut bytes = Vec::new();
            let mut expected = Vec::new();
            for n in 0..500 {
                let words = order_words(&mut chance, n + round * 1000);
                expected.push(order_reply(&mut model, &words));
                bytes.extend(encode(&words));
            }
            let replies = client.pipeline(&bytes, expected.len());
            for (n, (reply, expected)) in replies.iter().zip(&expected).enumerate() {
                assert_eq!(reply, expected, "{shards} shards, round {round}, request {n}");
            }
        }
    }
}

fn order_words(chance: &mut Chance, n: u64) -> Vec<String> {
    let kind = ["GET", "SET", "MGET", "MGET", "MSET", "MSET", "MSET", "EXISTS", "DEL", "RENAME"];
    let kind = kind[chance.below(10) as usize];
    let count = match kind {
        "GET" | "SET" => 1,
        "RENAME" => 2,
        _ => 1 + chance.below(20),
    };
    let mut words = vec![kind.to_string()];
    for i in 0..count {
        words.push(format!("key{}", chance.below(16)));
        if matches!(kind, "SET" | "MSET") {
            words.push(format!("{n}.{i}"));
        }
    }
    words
}

fn order_reply(model: &mut BTreeMap<String, String>, words: &[String]) -> Value {
    let value = |found: Option<&String>| found.map_or(Value::Null, Value::bulk);
    match words[0].as_str() {
        "GET" => value(model.get(&words[1])),
        "MGET" => Value::Array(words[1..].iter().map(|key| value(model.get(key))).collect()),
        "EXISTS" => {
            Value::Integer(words[1..].iter().filter(|key| model.contains_key(*key)).count() as i64)
        }
        "DEL" => {
            let removed = words[1..].iter().filter(|key| model.remove(*key).is_some()).count();
            Value::Integer(removed as i64)
        }
        "RENAME" => match model.remove(&words[1]) {
            Some(moved) => {
                model.insert(words[2].clone(), moved);
                Value::ok()
            }
            None => Value::Error("ERR no such key".into()),
        },
        _ => {
            for pair in words[1..].chunks(2) {
                model.insert(pair[0].clone(), pair[1].clone());
            }
            Value::ok()
        }
    }
}

/// Many clients write a whole batch before they read the first reply. Redis serves them whatever
/// the sizes; a server that stops reading because its replies are not taken would wait for them for
/// ever.
#[test]
fn everything_is_written_before_anything_is_read() {
    let server = Server::start(&["--shards", "2"]);
    let mut client = server.client();
    let value = "x".repeat(100);
    assert_eq!(client.call(&["SET", "key", &value]), Value::ok());
    let count = 400_000;
    let request = encode(&["GET", "key"]);
    client.send(&request.repeat(count));
    let expected = Value::bulk(&value);
    for _ in 0..count {
        assert_eq!(client.read(), expected);
    }
}

#[test]
fn requests_byte_by_byte() {
    let server = Server::start(&["--shards", "2"]);
    let mut client = server.client();
    let mut bytes = encode(&["SET", "a", "line\r\nbreak"]);
    bytes.extend_from_slice(b"PING\r\n");
    bytes.extend(encode(&["GET", "a"]));
    bytes.extend_from_slice(b"*0\r\n\r\nECHO \"b c\"\r\n");
    bytes.extend(encode(&["MSET", "b", "1", "c", ""]));
    bytes.extend(encode(&["MGET", "b", "c", "d"]));
    for byte in bytes {
        client.send(&[byte]);
    }
    let expected = [
        Value::ok(),
        Value::Simple("PONG".into()),
        Value::bulk("line\r\nbreak"),
        Value::bulk("b c"),
        Value::ok(),
        Value::Array(vec![Value::bulk("1"), Value::bulk(""), Value::Null]),
    ];
    for value in expected {
        assert_eq!(client.read(), value);
    }
}

/// Requests of very different sizes, cut into pieces without regard to where one ends: whatever
/// lies in a receive buffer, straddles two or fills many, replies and values are those of the
/// requests.
#[test]
fn requests_in_pieces_of_any_size() {
    let mut chance = Chance::new("requests_in_pieces_of_any_size");
    send_in_pieces(&mut Server::start(&["--shards", "2"]).client(), &mut chance, 20_000);
}

/// The same and more where the kernel's newer features are missing.
#[test]
fn kernels_without_some_features() {
    let mut chance = Chance::new("kernels_without_some_features");
    let all = "no-defer-taskrun,no-multishot-recv,no-multishot-accept";
    for missing in ["no-defer-taskrun", "no-multishot-recv", "no-multishot-accept", all] {
        let mut server = Server::start(&["--shards", "2", "--ring-features", missing]);
        send_in_pieces(&mut server.client(), &mut chance, 3000);
        let mut clients: Vec<Client> = (0..100).map(|_| server.client()).collect();
        for (index, client) in clients.iter_mut().enumerate() {
            client.send(&encode(&["SET".into(), format!("of:{index}"), index.to_string()]));
        }
        for client in &mut clients {
            assert_eq!(client.read(), Value::ok(), "{missing}");
        }
        drop(clients);
        let keys = server.client().say("DBSIZE");
        server.restart();
        assert_eq!(server.client().say("DBSIZE"), keys, "{missing}");
        assert_eq!(server.client().say("GET of:99"), Value::bulk("99"), "{missing}");
    }
}

fn send_in_pieces(client: &mut Client, chance: &mut Chance, requests: u64) {
    let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut bytes = Vec::new();
    let mut expected = Vec::new();
    for number in 0..requests {
        let key = format!("key{}", chance.below(20));
        match chance.below(5) {
            0 => {
                let size = if chance.below(20) == 0 { 100_000 } else { 200 };
                let value: Vec<u8> =
                    (0..chance.below(size)).map(|index| (index + number) as u8).collect();
                bytes.extend(encode(&[b"SET", key.as_bytes(), &value]));
                model.insert(key, value);
                expected.push(Value::ok());
            }
            1 => {
                bytes.extend_from_slice(format!("set {key} \"\\x00 {number}\"\r\n").as_bytes());
                model.insert(key, format!("\0 {number}").into_bytes());
                expected.push(Value::ok());
            }
            2 => {
                bytes.extend_from_slice(format!("ECHO {number}\r\n\r\n").as_bytes());
                expected.push(Value::bulk(number.to_string()));
            }
            _ => {
                bytes.extend(encode(&["GET", &key]));
                expected.push(model.get(&key).map_or(Value::Null, Value::bulk));
            }
        }
    }
    let mut rest = &bytes[..];
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let bound = [10, 1000, 40_000, 1_000_000][chance.below(4) as usize];
        let (piece, after) = rest.split_at(rest.len().min(1 + chance.below(bound) as usize));
        pieces.push(piece);
        rest = after;
    }
    let replies = client.pipeline_in_pieces(&pieces, expected.len());
    for (index, (reply, expected)) in replies.iter().zip(&expected).enumerate() {
        assert_eq!(reply, expected, "request {index}");
    }
}

/// Bytes without any meaning, and pieces of valid requests with a byte changed: an error or silence
/// for that connection, and nothing for the others.
#[test]
fn garbage_hurts_only_its_sender() {
    let server = Server::start(&["--shards", "2"]);
    let mut other = server.client();
    let mut chance = Chance::new("garbage_hurts_only_its_sender");
    assert_eq!(other.say("SET kept value"), Value::ok());
    let valid =
        [encode(&["SET", "a", "b"]), encode(&["MGET", "a", "b"]), b"PING\r\n".to_vec()].concat();
    for round in 0..500 {
        let mut bytes: Vec<u8> = if round % 2 == 0 {
            (0..chance.below(2000)).map(|_| chance_byte(&mut chance)).collect()
        } else {
            valid.repeat(10)
        };
        if !bytes.is_empty() {
            let place = chance.below(bytes.len() as u64) as usize;
            bytes[place] = chance_byte(&mut chance);
        }
        let mut client = server.client();
        let _ = client.try_send(&bytes);
        if chance.below(2) == 0 {
            client.finish_writing();
            client.read_to_close();
        }
    }
    assert_eq!(other.say("GET kept"), Value::bulk("value"));
    assert_responsive(&mut other);
}

/// Any byte, but those with a meaning in the protocol more often.
fn chance_byte(chance: &mut Chance) -> u8 {
    const MEANINGFUL: &[u8] = b"*$\r\n\"'-0129 \\";
    match chance.below(3) {
        0 => chance.below(256) as u8,
        _ => MEANINGFUL[chance.below(MEANINGFUL.len() as u64) as usize],
    }
}

#[test]
fn inline_commands() {
    let server = Server::start(&["--shards", "1"]);
    let mut client = server.client();
    client.send(b"\r\n\r\nset  a   \"x \\x41\\n\"\r\nGET a\nget 'a'\r\n   \r\nPING\r\n");
    for value in [Value::ok(), Value::bulk("x A\n"), Value::bulk("x A\n")] {
        assert_eq!(client.read(), value);
    }
    assert_eq!(client.read(), Value::Simple("PONG".into()));
}

/// Both servers are sent the same wrong bytes; what they answer until they close must be the same.
#[test]
fn wrong_requests_are_answered_as_redis_does_and_closed() {
    let server = Server::start(&["--shards", "1"]);
    let redis = Server::start_redis(&[]);
    let long = "1".repeat(70 * 1024);
    let mut cases: Vec<Vec<u8>> = [
        "*abc\r\n",
        "*2147483648\r\n",
        "*99999999999999999999\r\n",
        "*1\r\n:1\r\n",
        "*1\r\n\r\n",
        "*1\r\nPING\r\n",
        "*1\r\n$abc\r\n",
        "*1\r\n$-1\r\n",
        "*1\r\n$-2\r\n",
        "*1\r\n$\r\n",
        "*1\r\n$536870913\r\n",
        "*1\r\n$99999999999999999999\r\n",
        "SET a \"b\r\n",
        "SET a 'b\r\n",
        "SET a \"b\"c\r\n",
        "PING\r\n*1\r\n$4\r\nPING\r\n*x\r\nPING\r\n",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    cases.push(long.clone().into_bytes());
    cases.push(format!("*{long}").into_bytes());
    cases.push(format!("*1\r\n${long}").into_bytes());
    for case in cases {
        let shown = case[..case.len().min(60)].escape_ascii().to_string();
        let answers = [&server, &redis].map(|server| {
            let mut client = server.client();
            client.send(&case);
            client.read_to_close().escape_ascii().to_string()
        });
        assert_eq!(answers[0], answers[1], "ringraft (left) and Redis (right) after: {shown}");
        assert!(answers[0].contains("-ERR Protocol error"), "{shown}: {}", answers[0]);
    }
    assert_responsive(&mut server.client());
}

/// What is odd but allowed gets the same replies and the connection stays.
#[test]
fn odd_requests_are_answered_as_redis_does() {
    let server = Server::start(&["--shards", "1"]);
    let redis = Server::start_redis(&[]);
    let cases: [&[u8]; 7] = [
        b"*0\r\n*-1\r\n*-10\r\n",
        b"*1\r\n$0\r\n\r\n",
        b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\n\0\r\n$2\r\n\xff\0\r\n*2\r\n$3\r\nget\r\n$1\r\n\0\r\n",
        b"NOSUCH a b\r\n",
        b"*2\r\n$6\r\nNOSUCH\r\n$3\r\na\r\n\r\n",
        b"GET\r\nget a b\r\n",
    ];
    for case in cases {
        let answers = [&server, &redis].map(|server| {
            let mut client = server.client();
            client.send(case);
            client.send(b"QUIT\r\n");
            client.read_to_close().escape_ascii().to_string()
        });
        assert_eq!(answers[0], answers[1], "ringraft and Redis after: {}", case.escape_ascii());
    }
}

#[test]
fn before_authentication_requests_are_small() {
    let arguments = ["--requirepass", "secret"];
    let server = Server::start(&[&["--shards", "1"], &arguments[..]].concat());
    let redis = Server::start_redis(&arguments);
    for case in ["*11\r\n", "*2\r\n$4\r\nAUTH\r\n$16385\r\n", "PING\r\n*x\r\n"] {
        let answers = [&server, &redis].map(|server| {
            let mut client = server.client();
            client.send(case.as_bytes());
            client.read_to_close().escape_ascii().to_string()
        });
        assert_eq!(answers[0], answers[1], "ringraft and Redis after: {}", case.escape_debug());
    }
    let mut client = server.client();
    assert_eq!(client.say("GET a").error(), "NOAUTH Authentication required.");
    assert!(client.say("AUTH wrong").error().starts_with("WRONGPASS"));
    assert_eq!(client.say("AUTH secret"), Value::ok());
    assert_eq!(client.say("GET a"), Value::Null);
}

#[test]
fn hello_switches_the_protocol() {
    let server = Server::start(&["--shards", "1"]);
    let mut client = server.client();
    assert!(client.say("HELLO 4").error().starts_with("NOPROTO"));
    let Value::Map(pairs) = client.say("HELLO 3") else { panic!("HELLO 3 answers a map") };
    let field = |name: &str| {
        let pair = pairs.iter().find(|(key, _)| key.text() == name);
        pair.unwrap_or_else(|| panic!("HELLO has no {name}: {pairs:?}")).1.clone()
    };
    assert_eq!(field("proto"), Value::Integer(3));
    assert_eq!(field("mode").text(), "standalone");
    assert_eq!(client.say("GET missing"), Value::Null);
    let raw = {
        client.send(b"GET missing\r\nMGET missing\r\nQUIT\r\n");
        client.read_to_close()
    };
    assert_eq!(raw.escape_ascii().to_string(), r"_\r\n*1\r\n_\r\n+OK\r\n");

    let mut client = server.client();
    assert!(matches!(client.say("HELLO 2"), Value::Array(_)));
    client.send(b"GET missing\r\nQUIT\r\n");
    assert_eq!(client.read_to_close().escape_ascii().to_string(), r"$-1\r\n+OK\r\n");
}

#[test]
fn a_value_of_512_mb_goes_there_and_back() {
    let server = Server::start(&["--shards", "2"]);
    let mut client = server.client();
    let value: Vec<u8> =
        (0..BULK_BYTES_MAX).map(|index| (index ^ (index >> 8) ^ (index >> 16)) as u8).collect();
    let mut other = server.client();
    assert_eq!(client.call(&[&b"SET"[..], b"large", &value[..]]), Value::ok());
    assert_responsive(&mut other);
    assert_eq!(client.say("STRLEN large"), Value::Integer(BULK_BYTES_MAX as i64));
    match client.say("GET large") {
        Value::Bulk(bytes) => assert!(bytes == value, "the bytes that came back differ"),
        other => panic!("{other:?}"),
    }
    assert!(client.say("APPEND large x").error().contains("exceeds maximum allowed size"));
    assert_eq!(client.say("DEL large"), Value::Integer(1));
    assert_responsive(&mut other);
}

#[test]
fn a_request_larger_than_the_query_buffer_limit_is_cut_off() {
    let server = Server::start(&["--shards", "1"]);
    let mut other = server.client();
    assert_eq!(other.say("CONFIG SET client-query-buffer-limit 1mb"), Value::ok());
    let mut client = server.client();
    let mut request = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$8388608\r\n".to_vec();
    request.resize(8 << 20, b'x');
    // The server may close before everything is written.
    let _ = client.try_send(&request);
    assert!(client.read_to_close().is_empty());
    assert_responsive(&mut other);
}

/// A client that asks for far more than it takes.
#[test]
fn a_client_that_never_reads_holds_up_nobody() {
    const REPLY_BYTES: usize = 1 << 20;
    const REQUESTS: usize = 200;
    let server = Server::start(&["--shards", "1"]);
    let mut other = server.client();
    let value = vec![b'x'; REPLY_BYTES];
    assert_eq!(other.call(&[&b"SET"[..], b"large", &value[..]]), Value::ok());
    let mut slow = server.client();
    slow.send(&encode(&["GET", "large"]).repeat(REQUESTS));
    for _ in 0..1000 {
        assert_responsive(&mut other);
    }
    assert_eq!(other.say("GET missing"), Value::Null);
    for _ in 0..REQUESTS {
        assert!(slow.read() == Value::Bulk(value.clone()), "a reply that was waited for differs");
    }
}

#[test]
fn a_client_over_its_output_limit_is_cut_off() {
    let server = Server::start(&["--shards", "1"]);
    let mut other = server.client();
    let set = ["CONFIG", "SET", "client-output-buffer-limit", "normal 1mb 0 0"];
    assert_eq!(other.call(&set), Value::ok());
    let value = vec![b'x'; 8 << 20];
    assert_eq!(other.call(&[&b"SET"[..], b"large", &value[..]]), Value::ok());
    let mut slow = server.client();
    let identity = slow.say("CLIENT ID").integer();
    let _ = slow.try_send(&encode(&["GET", "large"]).repeat(100));
    eventually("the slow client is gone from CLIENT LIST", || {
        let clients = other.say("CLIENT LIST").text();
        let line = format!("id={identity} ");
        (!clients.lines().any(|client| client.starts_with(&line))).then_some(())
    });
    assert_responsive(&mut other);
}

#[test]
fn half_a_command_for_ever() {
    const CLIENTS: usize = 500;
    let server = Server::start(&["--shards", "2"]);
    let halves =
        ["*", "*2\r\n$3\r\nGE", "*1\r\n$536870912\r\nabc", "SET a", "*1048576\r\n$1\r\na\r\n"];
    let mut waiting: Vec<Client> = (0..CLIENTS)
        .map(|index| {
            let mut client = server.client();
            client.send(halves[index % halves.len()].as_bytes());
            client
        })
        .collect();
    let mut other = server.client();
    for index in 0..1000 {
        assert_eq!(other.say(&format!("SET key{index} x")), Value::ok());
    }
    for client in &mut waiting {
        assert_eq!(client.pending(), 0, "half a command was answered");
    }
    // One that is completed at last is answered; one that ends in the middle is simply closed.
    waiting[1].send(b"T\r\n$4\r\nkey1\r\n");
    assert_eq!(waiting[1].read(), Value::bulk("x"));
    waiting[0].finish_writing();
    assert!(waiting[0].read_to_close().is_empty());
    drop(waiting);
    eventually("the connections are gone", || {
        (server.info_number("connected_clients") <= 2).then_some(())
    });
    let memory = server.info_number("used_memory");
    assert!(memory < 256 << 20, "half commands hold {memory} bytes");
}

#[test]
fn an_idle_client_is_closed_after_its_timeout() {
    let server = Server::start(&["--shards", "1"]);
    let mut client = server.client();
    assert_eq!(server.client().say("CONFIG SET timeout 1"), Value::ok());
    assert!(client.read_to_close().is_empty());
}

#[test]
fn a_client_that_closes_with_replies_on_their_way() {
    let server = Server::start(&["--shards", "2"]);
    let mut other = server.client();
    for _ in 0..50 {
        let mut client = server.client();
        client.send(&encode(&["INCR", "n"]).repeat(1000));
        drop(client);
    }
    assert_responsive(&mut other);
    eventually("the connections are gone", || {
        (server.info_number("connected_clients") <= 2).then_some(())
    });
    assert_eq!(other.say("GET n"), Value::bulk("50000"), "what had arrived was executed");
}

/// A client that says it has finished writing still gets every reply.
#[test]
fn a_half_closed_connection_gets_its_replies() {
    let server = Server::start(&["--shards", "2"]);
    let mut client = server.client();
    client.send(&encode(&["INCR", "n"]).repeat(100));
    client.finish_writing();
    let replies = client.read_to_close();
    let expected: String = (1..=100).map(|number| format!(":{number}\r\n")).collect();
    assert_eq!(String::from_utf8_lossy(&replies), expected);
}
