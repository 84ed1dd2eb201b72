//! Long replies, which are written in slices, by every node of a cluster: whole, in order, and of
//! the value as it was.

use crate::cluster::Cluster;
use crate::support::client::encode;
use crate::support::{Client, Value};

/// Elements of 100 bytes: some dozen slices.
const ELEMENTS: usize = 20_000;

fn element(n: usize) -> String {
    format!("{n:0100}")
}

fn fill(client: &mut Client, command: &str, key: &str) {
    for start in (0..ELEMENTS).step_by(1000) {
        let elements = (start..start + 1000).map(element);
        let words: Vec<String> =
            [command.to_owned(), key.to_owned()].into_iter().chain(elements).collect();
        assert!(!client.call(&words).is_error());
    }
}

#[test]
fn long_replies_come_through_every_node() {
    let cluster = Cluster::form(3, &["--shards", "2"]);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    for node in [leader, follower] {
        let (mut client, mut other) = (cluster.client(node), cluster.client(follower));
        client.say("FLUSHALL");
        fill(&mut client, "RPUSH", "list");
        fill(&mut client, "SADD", "set");
        let asked = ["LRANGE list 0 -1", "LLEN list", "LRANGE list 1 -1", "PING"];
        let requests: Vec<u8> = asked
            .iter()
            .flat_map(|request| encode(&request.split(' ').collect::<Vec<_>>()))
            .collect();
        client.send(&requests);
        let reply = client.read();
        // They may have been executed before or behind it, and are whole in either case.
        assert_eq!(other.say("LTRIM list 10 19"), Value::ok());
        let length = client.read().integer() as usize;
        let second = client.read();
        assert_eq!(client.read().text(), "PONG");
        let expected = |from: usize| (from..ELEMENTS).map(|n| Value::bulk(element(n)));
        assert!(reply.elements().iter().cloned().eq(expected(0)), "node {node}");
        assert!([10, ELEMENTS].contains(&length), "node {node}");
        let is_whole = second.elements().iter().cloned().eq(expected(1));
        assert!(is_whole || second.elements().len() == 9, "node {node}");

        let half = (ELEMENTS / 2).to_string();
        let popped = client.call(&["SPOP", "set", &half]);
        let left = client.say("SMEMBERS set");
        let mut all = [popped.elements(), left.elements()].concat();
        all.sort_by_key(Value::text);
        assert_eq!(popped.elements().len(), ELEMENTS / 2);
        assert!(all.into_iter().eq(expected(0)), "node {node}");
    }
}
