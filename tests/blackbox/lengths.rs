//! How long things may get: strings, requests, sums of them. One bound on a string,
//! `proto-max-bulk-len` as it is in force, asked by every command that makes one long; what was
//! acknowledged comes back whatever is set later.

use crate::support::client::encode;
use crate::support::{Client, Program, Server, Value};

const LOW: usize = 1 << 20;
const TOO_LONG: &str = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
const NO_BIT: &str = "ERR bit offset is not an integer or out of range";

fn lower(client: &mut Client) {
    assert_eq!(client.say("CONFIG SET proto-max-bulk-len 1mb"), Value::ok());
}

/// Every way to make a string longer than the bound, and the longest that is allowed, here and in
/// Redis.
#[test]
fn a_lowered_bound_holds_for_every_command() {
    let servers = [
        Server::start(&["--shards", "1"]),
        Server::start(&["--shards", "3"]),
        Server::start_program(Program::Redis, &[]),
    ];
    for server in servers {
        let mut client = server.client();
        lower(&mut client);
        let integer = |n: usize| Value::Integer(n as i64);
        let error = |text: &str| Value::Error(text.into());
        let table = [
            ("SETRANGE a 2000000 x", error(TOO_LONG)),
            ("EXISTS a", integer(0)),
            ("SETRANGE a 1048576 x", error(TOO_LONG)),
            ("SETRANGE a 1048575 x", integer(LOW)),
            ("APPEND a x", error(TOO_LONG)),
            ("STRLEN a", integer(LOW)),
            ("SETBIT b 8388608 1", error(NO_BIT)),
            ("SETBIT b 8388607 1", integer(0)),
            ("GETBIT b 8388608", error(NO_BIT)),
            ("BITFIELD c SET u8 8388608 1", error(NO_BIT)),
            ("BITFIELD c SET u8 #1048576 1", error(NO_BIT)),
            ("BITFIELD c GET u8 8388608", error(NO_BIT)),
            ("EXISTS c", integer(0)),
            ("BITFIELD c SET u8 #1048575 1", Value::Array(vec![integer(0)])),
            ("STRLEN c", integer(LOW)),
            ("BITFIELD_RO c GET u8 8388608", error(NO_BIT)),
            ("BITOP OR d a b", integer(LOW)),
            ("SETRANGE e 1000 x", integer(1001)),
            ("SETRANGE f 1000 x", integer(1001)),
            ("LCS e{e} f{e}", Value::bulk("")),
        ];
        for (command, expected) in table {
            assert_eq!(client.say(command), expected, "{command}");
        }
        // Queued, alone and beside a key of another shard.
        for other in ["a", "b1"] {
            for command in ["MULTI", "SETRANGE a 1048576 x", "APPEND a x"] {
                client.say(command);
            }
            client.call(&["STRLEN", other]);
            let Value::Array(replies) = client.say("EXEC") else { panic!("no array") };
            assert_eq!(replies[..2], [error(TOO_LONG), error(TOO_LONG)], "beside {other}");
        }
        client.call(&["SET", "e{e}", &"e".repeat(1000)]);
        client.call(&["SET", "f{e}", &"f".repeat(1000)]);
        let reply = client.say("LCS e{e} f{e}");
        assert!(format!("{reply:?}").contains("exceeds proto-max-bulk-len"), "{reply:?}");
        client.send(format!("*3\r\n$3\r\nSET\r\n$1\r\na\r\n${}\r\n", LOW + 1).as_bytes());
        let end = client.read_to_close();
        assert_eq!(end, b"-ERR Protocol error: invalid bulk length\r\n");
    }
}

/// An integer that begins within the bound and ends behind it: Redis lets the string grow past its
/// bound.
#[test]
fn a_field_ends_within_the_bound() {
    let server = Server::start(&[]);
    let mut client = server.client();
    lower(&mut client);
    assert_eq!(client.say("BITFIELD a SET u63 8388600 1"), Value::Error(NO_BIT.into()));
    assert_eq!(client.say("BITFIELD a GET u63 8388600"), Value::Array(vec![Value::Integer(0)]));
    assert_eq!(client.say("EXISTS a"), Value::Integer(0));
}

#[test]
fn the_longest_value_is_dumped_and_restored() {
    let server = Server::start(&["--shards", "1"]);
    let redis = Server::start_program(Program::Redis, &[]);
    let mut client = server.client();
    lower(&mut client);
    let mut value: Vec<u8> =
        (0..LOW as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    assert_eq!(client.call(&[b"SET".as_slice(), b"a", &value]), Value::ok());
    let Value::Bulk(payload) = client.say("DUMP a") else { panic!("no payload") };
    assert!(payload.len() > LOW, "a payload is longer than its value");
    assert_eq!(client.call(&[b"RESTORE".as_slice(), b"b", b"0", &payload]), Value::ok());
    assert_eq!(client.say("GET b"), Value::Bulk(value.clone()));
    // Packed, a longer value has a short payload.
    value.fill(b'x');
    value.push(b'x');
    assert_eq!(redis.client().call(&[b"SET".as_slice(), b"a", &value]), Value::ok());
    let Value::Bulk(payload) = redis.client().say("DUMP a") else { panic!("no payload") };
    assert!(payload.len() < LOW / 10);
    let reply = client.call(&[b"RESTORE".as_slice(), b"c", b"0", &payload]);
    assert_eq!(reply, Value::Error(TOO_LONG.into()));
    assert_eq!(client.say("CONFIG SET proto-max-bulk-len 2mb"), Value::ok());
    assert_eq!(client.call(&[b"RESTORE".as_slice(), b"c", b"0", &payload]), Value::ok());
    assert_eq!(client.say("GET c"), Value::Bulk(value));
}

#[test]
fn a_raised_bound_holds_for_every_command_and_has_an_end() {
    let server = Server::start(&["--shards", "1"]);
    let mut client = server.client();
    assert_eq!(client.say("GETBIT a 4294967296"), Value::Error(NO_BIT.into()));
    let refused = client.say("CONFIG SET proto-max-bulk-len 1073741825");
    let text = "ERR CONFIG SET failed (possibly related to argument 'proto-max-bulk-len') - argument \
                must be between 1048576 and 1073741824 inclusive";
    assert_eq!(refused, Value::Error(text.into()));
    assert_eq!(client.say("CONFIG SET proto-max-bulk-len 1gb"), Value::ok());
    assert_eq!(client.say("GETBIT a 4294967296"), Value::Integer(0));
    assert_eq!(client.say("GETBIT a 8589934591"), Value::Integer(0));
    assert_eq!(client.say("GETBIT a 8589934592"), Value::Error(NO_BIT.into()));
    assert_eq!(client.say("SETRANGE a 1073741824 x"), Value::Error(TOO_LONG.into()));
}

/// Whether a string was too long was decided when it was written.
#[test]
fn what_was_refused_stays_refused_and_what_was_taken_stays_there() {
    let mut server = Server::start(&["--shards", "1", "--proto-max-bulk-len", "1mb"]);
    let mut client = server.client();
    assert_eq!(client.say("SETRANGE refused 1048576 x"), Value::Error(TOO_LONG.into()));
    assert_eq!(client.say("CONFIG SET proto-max-bulk-len 3mb"), Value::ok());
    assert_eq!(client.say("SETRANGE taken 2097152 x"), Value::Integer(2_097_153));
    assert_eq!(client.say("APPEND taken yz"), Value::Integer(2_097_155));
    for bound in ["1mb", "512mb"] {
        server.kill();
        server.set_arguments(&["--shards", "1", "--proto-max-bulk-len", bound]);
        server.launch();
        let mut client = server.client();
        assert_eq!(client.say("EXISTS refused"), Value::Integer(0), "{bound}");
        assert_eq!(client.say("STRLEN taken"), Value::Integer(2_097_155), "{bound}");
        assert_eq!(client.say("GETRANGE taken -3 -1"), Value::bulk("xyz"), "{bound}");
    }
}

/// Together they are more than a shard has under way at a time: they wait for each other.
#[test]
fn large_values_at_the_same_time_are_all_taken() {
    const BYTES: usize = 33 << 20;
    let server = Server::start(&["--shards", "1"]);
    let mut clients: Vec<Client> = (0..3).map(|_| server.client()).collect();
    let value = vec![b'v'; BYTES];
    for (n, client) in clients.iter_mut().enumerate() {
        let request = encode(&[b"SET".as_slice(), format!("k{n}").as_bytes(), &value]);
        client.send(&request[..request.len() - 1]);
    }
    clients.iter_mut().for_each(|client| client.send(b"\n"));
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.read(), Value::ok(), "k{n}");
        assert_eq!(client.call(&["STRLEN", &format!("k{n}")]), Value::Integer(BYTES as i64));
    }
}

/// A request of as many words as there may be, of each kind.
#[test]
fn a_million_arguments() {
    const COUNT: usize = 1 << 20;
    for shards in ["1", "2"] {
        let server = Server::start(&["--shards", shards, "--fsync", "no"]);
        let mut client = server.client();
        let words = |name: &str, count: usize| {
            let mut words = vec![name.to_string()];
            words.extend((1..count).map(|n| if name == "MSET" { n / 2 } else { n }.to_string()));
            words
        };
        assert_eq!(client.call(&words("MSET", COUNT - 1)), Value::ok());
        // Key 0 is not among those asked for.
        let keys = COUNT as i64 / 2 - 2;
        assert_eq!(client.call(&words("EXISTS", COUNT)), Value::Integer(keys));
        assert_eq!(client.call(&words("WATCH", COUNT / 8)), Value::ok(), "{shards} shards");
        assert_eq!(client.say("UNWATCH"), Value::ok());
        assert_eq!(client.call(&words("DEL", COUNT)), Value::Integer(keys));
        client.send(format!("*{}\r\n", COUNT + 1).as_bytes());
        let end = client.read_to_close();
        assert_eq!(end, b"-ERR Protocol error: invalid multibulk length\r\n");
    }
}
