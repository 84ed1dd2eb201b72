//! Limits hold by themselves: what is over one that was lowered goes although nobody asks for
//! anything.

use crate::support::client::encode;
use crate::support::{Client, Server, Value, eventually};

const KEYS: usize = 20_000;

fn fill(client: &mut Client) {
    let value = "x".repeat(1000);
    let bytes: Vec<u8> =
        (0..KEYS).flat_map(|n| encode(&["SET", &format!("key:{n}"), &value])).collect();
    let replies = client.pipeline(&bytes, KEYS);
    assert!(replies.iter().all(|reply| *reply == Value::ok()));
}

#[test]
fn a_lowered_maxmemory_evicts_without_a_write() {
    for mode in ["cache", "store"] {
        let server = Server::start(&["--shards", "2", "--mode", mode]);
        let mut client = server.client();
        fill(&mut client);
        let limit = "CONFIG SET maxmemory-policy allkeys-lru maxmemory 8mb";
        assert_eq!(client.say(limit), Value::ok());
        eventually("memory is within the limit", || {
            (server.info_number("used_memory_dataset") <= 8 << 20).then_some(())
        });
        let left = client.say("DBSIZE").integer();
        assert!((5000..=8388).contains(&left), "{left} keys left");
        eventually("each eviction is counted once", || {
            (server.info_number("evicted_keys") + client.say("DBSIZE").integer() == KEYS as i64)
                .then_some(())
        });
        // Memory may also be too much under another policy: what changes is looked at as well.
        assert_eq!(client.say("CONFIG SET maxmemory-policy noeviction maxmemory 4mb"), Value::ok());
        assert!(client.say("SET another 1").is_error());
        assert_eq!(client.say("DBSIZE").integer(), left);
        assert_eq!(client.say("CONFIG SET maxmemory-policy allkeys-random"), Value::ok());
        eventually("memory is within the new limit", || {
            (server.info_number("used_memory_dataset") <= 4 << 20).then_some(())
        });
    }
}

#[test]
fn requests_are_answered_while_a_lowered_maxmemory_evicts() {
    let server = Server::start(&["--shards", "1", "--mode", "cache"]);
    let mut client = server.client();
    fill(&mut client);
    let before = server.info_number("evicted_keys");
    assert_eq!(before, 0);
    let limit = "CONFIG SET maxmemory-policy allkeys-lru maxmemory 1mb";
    client.send(format!("{limit}\r\n").as_bytes());
    // On another connection, at once: some of it is answered before all is evicted.
    let mut other = server.client();
    let sizes: Vec<i64> = std::iter::from_fn(|| {
        let size = other.say("DBSIZE").integer();
        (size > 1000).then_some(size)
    })
    .collect();
    let between = sizes.iter().filter(|size| **size < KEYS as i64).count();
    assert!(between > 1, "{} looks, {between} of them in between", sizes.len());
    assert_eq!(client.read(), Value::ok());
}

/// A client that asked for much, reads nothing and says nothing more.
fn silent_reader(server: &Server) -> Client {
    let mut client = server.client();
    assert_eq!(client.call(&["SET", "long", &"x".repeat(1 << 20)]), Value::ok());
    let gets: Vec<u8> = (0..64).flat_map(|_| encode(&["GET", "long"])).collect();
    client.send(&gets);
    client
}

fn output_is_waiting(operator: &mut Client) {
    eventually("replies wait", || {
        let list = operator.say("CLIENT LIST").text();
        list.lines().any(|line| !line.contains(" obl=0 ")).then_some(())
    });
}

fn is_closed(server: &Server, operator: &mut Client) {
    eventually("the slow reader is closed", || {
        (operator.say("CLIENT LIST").text().lines().count() == 1).then_some(())
    });
    assert_eq!(server.info_number("client_output_buffer_limit_disconnections"), 1);
}

#[test]
fn a_silent_reader_over_the_soft_limit_is_closed_in_time() {
    let server = Server::start(&["--shards", "1", "--mode", "cache"]);
    let mut operator = server.client();
    let limit = ["CONFIG", "SET", "client-output-buffer-limit", "normal 0 10kb 1"];
    assert_eq!(operator.call(&limit), Value::ok());
    let _client = silent_reader(&server);
    output_is_waiting(&mut operator);
    is_closed(&server, &mut operator);
}

#[test]
fn a_lowered_query_limit_closes_who_sends_nothing_more() {
    let server = Server::start(&["--shards", "1", "--mode", "cache"]);
    let (mut client, mut whole) = (server.client(), server.client());
    let part = "x".repeat(2 << 20);
    client.send(format!("*3\r\n$3\r\nSET\r\n$1\r\na\r\n$3000000\r\n{part}").as_bytes());
    // What is whole does not count.
    whole.send(format!("*4\r\n$4\r\nMSET\r\n$1\r\na\r\n$2097152\r\n{part}\r\n").as_bytes());
    let mut operator = server.client();
    eventually("both have arrived", || {
        let list = operator.say("CLIENT LIST").text();
        let arrived = list.lines().filter(|line| {
            let sum = |field: &str| -> usize {
                let value = line.split_once(field).expect("a field").1;
                value.split(' ').next().expect("a value").parse().expect("a number")
            };
            sum(" qbuf=") + sum(" argv-mem=") > 2 << 20
        });
        (arrived.count() == 2).then_some(())
    });
    assert_eq!(operator.say("CONFIG SET client-query-buffer-limit 1mb"), Value::ok());
    eventually("one is closed", || {
        (operator.say("CLIENT LIST").text().lines().count() == 2).then_some(())
    });
    assert!(client.read_to_close().is_empty());
    assert_eq!(server.info_number("client_query_buffer_limit_disconnections"), 1);
    whole.send(b"$1\r\nb\r\n");
    assert!(whole.read().is_error(), "an MSET of three arguments");
}

#[test]
fn a_lowered_output_limit_closes_a_silent_reader() {
    let server = Server::start(&["--shards", "1", "--mode", "cache"]);
    let mut operator = server.client();
    let _client = silent_reader(&server);
    output_is_waiting(&mut operator);
    let limit = ["CONFIG", "SET", "client-output-buffer-limit", "normal 10kb 0 0"];
    assert_eq!(operator.call(&limit), Value::ok());
    is_closed(&server, &mut operator);
}
