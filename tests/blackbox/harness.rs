//! The support code itself, checked against the real redis-server: what it gets wrong there it
//! would get wrong everywhere.

use std::io::BufReader;

use crate::support::client::encode;
use crate::support::{Program, Server, Value};

#[test]
fn starts_talks_kills_and_restarts() {
    let mut server = Server::start_redis(&[]);
    let mut client = server.client();
    assert_eq!(client.say("SET a 1"), Value::ok());
    assert_eq!(client.say("GET a"), Value::bulk("1"));
    assert_eq!(client.say("INCR a"), Value::Integer(2));
    assert!(client.say("NOSUCH").is_error());
    server.kill();
    assert!(client.try_call(&["PING"]).is_err());
    server.launch();
    assert_eq!(server.client().say("GET a"), Value::Null);
    let (status, output) = server.terminate();
    assert!(status.success(), "{output}");
}

#[test]
fn a_server_that_does_not_start_is_a_refusal() {
    let mut server = Server::prepare(Program::Redis, &["--no-such-option", "1"]);
    let refusal = server.try_launch().expect_err("refused");
    assert!(!refusal.status.success());
    assert!(refusal.output.contains("no-such-option"), "{refusal}");
}

#[test]
fn pipelines_are_answered_in_order() {
    let server = Server::start_redis(&[]);
    let bytes: Vec<u8> = (0..1000).flat_map(|_| encode(&["INCR", "n"])).collect();
    let replies = server.client().pipeline(&bytes, 1000);
    assert_eq!(replies, (1..=1000).map(Value::Integer).collect::<Vec<_>>());
}

#[test]
fn reads_every_reply_type() {
    let bytes =
        b"+OK\r\n-ERR x\r\n:-5\r\n$3\r\na\r\n\r\n$-1\r\n*-1\r\n*2\r\n:1\r\n*0\r\n,1.5\r\n#t\r\n\
        (123\r\n=7\r\ntxt:abc\r\n%1\r\n+k\r\n_\r\n~1\r\n:1\r\n>1\r\n+p\r\n";
    let mut reader = BufReader::new(&bytes[..]);
    let expected = [
        Value::ok(),
        Value::Error("ERR x".into()),
        Value::Integer(-5),
        Value::bulk("a\r\n"),
        Value::Null,
        Value::NullArray,
        Value::Array(vec![Value::Integer(1), Value::Array(vec![])]),
        Value::Double(1.5),
        Value::Boolean(true),
        Value::BigNumber("123".into()),
        Value::Verbatim("txt".into(), b"abc".to_vec()),
        Value::Map(vec![(Value::Simple("k".into()), Value::Null)]),
        Value::Set(vec![Value::Integer(1)]),
        Value::Push(vec![Value::Simple("p".into())]),
    ];
    for value in expected {
        assert_eq!(Value::read(&mut reader).expect("a reply"), value);
    }
    assert!(Value::read(&mut reader).is_err());
}
