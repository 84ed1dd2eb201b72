//! The same bytes get the same answers as from the real redis-server: requests of unusual form,
//! words that are no text, numbers at the edge of what a field holds, and what counts against
//! `client-query-buffer-limit`.

use crate::support::client::encode;
use crate::support::{Server, Value, eventually};

/// Bytes, each sent by a client of its own that then finishes writing.
const UNUSUAL: &[&[u8]] = &[
    b"*0\r\n",
    b"*-0\r\n",
    b"*-1\r\n",
    b"*-01\r\n",
    b"*00\r\n",
    b"*-9223372036854775808\r\nPING\r\n",
    b"*-9223372036854775809\r\n",
    b"*9223372036854775807\r\n",
    b"*9999999999999999999\r\n",
    b"*\r\n",
    b"*-\r\n",
    b"* 1\r\n",
    b"*+1\r\n",
    b"*1\r$4\r\nPING\r\n",
    b"*1\rX$4\r\nPING\r\n",
    b"*1\n",
    b"*1\nPING\r\n",
    b"*1\0\r\n",
    b"*2\r\n$-0\r\n",
    b"*1\r\n$0\r\n\r\n",
    b"*1\r\n$-1\r\n",
    b"*1\r\n$-9223372036854775808\r\n",
    b"*1\r\n$01\r\n",
    b"*1\r\nX",
    b"*1\r\nX\r\n",
    b"*1\r\n\r\n",
    b"*1\r\n\x80\r\n",
    b"*1\r\n\0\r\n",
    b"*1\r\n$4\n",
    b"*1\r\n$4\rXPINGYY",
    b"SET\x0bb 1\r\n",
    b"GET \x0bb\r\n",
    b"\x0bGET b\r\n",
    b"\x0b\r\n",
    b"GET b\x0b\r\n",
    b"GET\x0cb\r\n",
    b"GET \x0cb\r\n",
    b"GET \x0b\x0c b\r\n",
    b"GET b\0c\r\nPING\r\n",
    b"GET \"b\"\x0b\r\n",
    b"GET \"b\"x\r\n",
    b"GET 'b'\x0c'c'\r\n",
    b"GET b\r\r\n",
    b"GET \rb\r\n",
    b"GET b\n",
    b"FOO\x80BAR\r\n",
    b"\x80\xff\xfe a\x80b \"c\\x00d\" \r\n",
    b"*2\r\n$3\r\na\0b\r\n$3\r\nc\0d\r\n",
    b"*2\r\n$4\r\na\r\nb\r\n$4\r\nc\r\nd\r\n",
    b"CLIENT \x80\r\n",
    b"CONFIG SET \x80 1\r\n",
    b"CONFIG SET \"a\\x00b\" 1\r\n",
    b"CONFIG SET maxmemory \x80\r\n",
    b"HELLO 3 \x80\r\n",
    b"CLIENT KILL USER \x80\r\n",
    b"CLIENT LIST TYPE \x80\r\n",
    b"EXPIRE b 1 \x80\r\n",
    b"SELECT \x80\r\n",
    b"CONFIG SET loglevel notice\r\nCONFIG GET loglevel\r\n",
    b"CONFIG SET loglevel WARNING\r\nCONFIG GET loglevel\r\n",
    b"CONFIG SET loglevel verbose\r\nCONFIG GET loglevel\r\n",
    b"CONFIG SET loglevel debug\r\nCONFIG GET loglevel\r\n",
];

const NUMBERS: &[&str] = &[
    "abc",
    "\"\"",
    "0",
    "-0",
    "01",
    "+1",
    "1.0",
    "-1",
    "1",
    "15",
    "16",
    "256",
    "65536",
    "2147483647",
    "2147483648",
    "4294967296",
    "99999999999",
    "-2147483648",
    "-2147483649",
    "9223372036854775",
    "9223372036854776",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551616",
];

/// Requests with a number in the place of `#`.
const NUMBERED: &[&str] = &[
    "SELECT #",
    "MOVE b #",
    "COPY b c DB #",
    "EXPIRE b #",
    "PEXPIREAT b #",
    "SET b 5 EX #",
    "GETEX b PXAT #",
    "PSETEX b # 5",
    "INCRBY b #",
    "DECRBY b #",
    "GETRANGE b # #",
    "SETRANGE b # \"\"",
    "SETBIT b # 2",
    "GETBIT b #",
    "BITCOUNT b # # BIT",
    "BITPOS b 1 #",
    "BITFIELD b INCRBY u8 0 #",
    "BITFIELD b OVERFLOW SAT INCRBY i64 0 #",
    "CLIENT LIST ID x #",
    "CONFIG SET maxmemory-samples #",
    "CONFIG SET timeout #",
    "CONFIG SET slowlog-max-len #",
    "HELLO # x",
    "RESTORE r 0 nonsense IDLETIME #",
    "RESTORE r 0 nonsense FREQ #",
    "RESTORE r # nonsense",
];

fn compare(redis: &Server, server: &Server, bytes: &[u8]) {
    let ask = |server: &Server| {
        let mut client = server.client();
        client.say("FLUSHALL");
        client.say("SET b 5");
        client.say("CONFIG SET timeout 0 maxmemory-samples 5 slowlog-max-len 128");
        (server.client().exchange(bytes), client.say("GET b"))
    };
    let (ours, expected) = (ask(server), ask(redis));
    let shown = |(bytes, kept): &(Vec<u8>, Value)| format!("{} {kept:?}", bytes.escape_ascii());
    assert_eq!(shown(&ours), shown(&expected), "{}", bytes.escape_ascii());
}

#[test]
fn requests_of_unusual_form() {
    let redis = Server::start_redis(&[]);
    let server = Server::start(&["--shards", "2", "--mode", "cache"]);
    for bytes in UNUSUAL {
        compare(&redis, &server, bytes);
        compare(&redis, &server, &[b"GET b\r\n", *bytes].concat());
    }
}

#[test]
fn numbers_at_the_edge() {
    let redis = Server::start_redis(&[]);
    let server = Server::start(&["--shards", "2", "--mode", "cache"]);
    for request in NUMBERED {
        for number in NUMBERS {
            let line = format!("{}\r\n", request.replace('#', number));
            compare(&redis, &server, line.as_bytes());
        }
    }
}

/// An idle time beyond the clock of accesses is a long one, not a short one.
#[test]
fn a_given_idle_time_saturates() {
    let server = Server::start(&["--shards", "1", "--mode", "cache"]);
    let mut client = server.client();
    assert_eq!(client.say("SET a 1"), Value::ok());
    let Value::Bulk(payload) = client.say("DUMP a") else { panic!("a payload") };
    for idle in ["8388608", "16773616", "16777215", "16777216", "16777217", "9223372036854775807"] {
        let words: [&[u8]; 7] =
            [b"RESTORE", b"b", b"0", &payload, b"REPLACE", b"IDLETIME", idle.as_bytes()];
        assert_eq!(client.call(&words), Value::ok());
        let found = client.say("OBJECT IDLETIME b").integer();
        assert!((8_388_608..8_388_608 + 60).contains(&found), "{idle}: {found}");
    }
    let words: [&[u8]; 7] = [b"RESTORE", b"b", b"0", &payload, b"REPLACE", b"IDLETIME", b"1000"];
    assert_eq!(client.call(&words), Value::ok());
    assert!((1000..1060).contains(&client.say("OBJECT IDLETIME b").integer()));
}

/// The limit is for the argument that is not all there, as in Redis; whole arguments and whole
/// requests that wait are no query buffer.
#[test]
fn only_what_is_unfinished_counts_against_the_query_limit() {
    const LIMIT: usize = 1 << 20;
    let value = |length: usize| "x".repeat(length);
    let many = |length: usize| {
        let mut words = vec!["MSET".to_string()];
        (0..6).for_each(|n| words.extend([format!("key{n}"), value(length)]));
        encode(&words)
    };
    let set = |length: usize| encode(&["SET", "a", &value(length)]);
    let small = encode(&["SET", "a", "1"]);
    let cases = [
        ("an MSET of six values", many(400_000), false),
        ("an MSET of long values", many(LIMIT - 1000), false),
        ("the longest value", set(LIMIT - 2), false),
        ("one byte more", set(LIMIT - 1), true),
        ("a long value behind others", [small.repeat(50_000), set(LIMIT - 2)].concat(), false),
        (
            "small requests behind one that asks all cores",
            { [encode(&["INFO"]), small.repeat(100_000)].concat() },
            false,
        ),
    ];
    let redis = Server::start_redis(&[]);
    let server = Server::start(&["--shards", "2", "--mode", "cache"]);
    for server in [&redis, &server] {
        let mut operator = server.client();
        assert_eq!(operator.say("CONFIG SET client-query-buffer-limit 1mb"), Value::ok());
        for (name, bytes, closed) in &cases {
            assert_eq!(server.client().exchange(bytes).is_empty(), *closed, "{name}");
        }
    }
    assert_eq!(server.info_number("client_query_buffer_limit_disconnections"), 1);
    let mut client = server.client();
    client.send(&many(400_000)[..1_000_000]);
    eventually("what is here of a request is shown", || {
        let list = server.client().say("CLIENT LIST").text();
        let shown = |line: &str| line.contains(" qbuf=199") && line.contains(" argv-mem=800");
        list.lines().any(shown).then_some(())
    });
}
