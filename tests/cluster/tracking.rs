//! Clients at any node that keep copies of what they read: whatever changes, wherever, they are
//! told of it.

use crate::cluster::Cluster;
use crate::support::{Client, Value};

fn modern(cluster: &Cluster, node: usize) -> Client {
    let mut client = cluster.client(node);
    assert!(!client.say("HELLO 3").is_error());
    client
}

/// The keys that the next message says have changed; none if all may have.
fn news(client: &mut Client) -> Vec<String> {
    let message = client.read();
    let parts = message.elements();
    assert_eq!(parts[0], Value::bulk("invalidate"), "{message:?}");
    match &parts[1] {
        Value::Null => Vec::new(),
        keys => keys.elements().iter().map(|key| key.text()).collect(),
    }
}

#[test]
fn changes_are_told_at_every_node() {
    let cluster = Cluster::form(3, &[]);
    for at in cluster.up() {
        let mut client = modern(&cluster, at);
        assert_eq!(client.say("CLIENT TRACKING on"), Value::ok());
        for from in cluster.up() {
            let mut other = cluster.client(from);
            other.say("SET key 1");
            assert_eq!(client.say("GET key"), Value::bulk("1"));
            other.say("SET key 2");
            assert_eq!(news(&mut client), ["key"]);
        }
        assert_eq!(client.say("GET key"), Value::bulk("2"));
        // Its own change too; the message comes before or behind the reply.
        client.send(b"SET key 3\r\n");
        let both = [client.read(), client.read()];
        assert!(both.contains(&Value::ok()), "{both:?}");
        assert!(both.iter().any(|value| matches!(value, Value::Push(_))), "{both:?}");
        assert_eq!(client.say("GET key"), Value::bulk("3"));
        cluster.client(cluster.leader()).say("FLUSHALL");
        assert!(news(&mut client).is_empty());
        assert_eq!(client.say("GET key"), Value::Null);
        assert_eq!(client.say("CLIENT TRACKING off"), Value::ok());
        cluster.client(cluster.leader()).say("SET key 5");
        assert_eq!(client.say("GET key"), Value::bulk("5"));
        assert_eq!(client.say("PING"), Value::Simple("PONG".into()));
    }
}

#[test]
fn every_manner_of_tracking_works_at_a_follower() {
    let cluster = Cluster::form(3, &[]);
    let mut other = cluster.client(cluster.leader());
    // All keys with a prefix; none of those that it changes itself.
    let mut client = modern(&cluster, cluster.follower());
    let on = "CLIENT TRACKING on bcast prefix a: prefix b: noloop";
    assert_eq!(client.say(on), Value::ok());
    assert!(client.say("CLIENT TRACKING on bcast prefix a:b").is_error());
    other.say("SET a:1 x");
    assert_eq!(news(&mut client), ["a:1"]);
    assert_eq!(client.say("SET a:2 x"), Value::ok());
    other.say("SET c:1 x");
    other.say("SET b:1 x");
    assert_eq!(news(&mut client), ["b:1"]);
    // What is asked for.
    let mut client = modern(&cluster, cluster.follower());
    assert_eq!(client.say("CLIENT TRACKING on optin"), Value::ok());
    client.say("GET one");
    assert_eq!(client.say("CLIENT CACHING yes"), Value::ok());
    client.say("GET two");
    client.say("GET three");
    other.say("MSET one 1 two 2 three 3");
    assert_eq!(news(&mut client), ["two"]);
    assert_eq!(client.say("CLIENT CACHING yes"), Value::ok());
    client.say("MULTI");
    client.say("GET one");
    client.say("GET three");
    client.say("EXEC");
    other.say("SET three 4");
    assert_eq!(news(&mut client), ["three"]);
    // What is not excluded.
    let mut client = modern(&cluster, cluster.follower());
    assert_eq!(client.say("CLIENT TRACKING on optout"), Value::ok());
    assert_eq!(client.say("CLIENT CACHING no"), Value::ok());
    client.say("GET one");
    client.say("GET two");
    other.say("MSET one 1 two 2");
    assert_eq!(news(&mut client), ["two"]);
}

#[test]
fn another_client_of_a_follower_reads_for_one_that_speaks_resp2() {
    let cluster = Cluster::form(3, &[]);
    let follower = cluster.follower();
    let (mut reader, mut client) = (cluster.client(follower), cluster.client(follower));
    let id = reader.say("CLIENT ID").integer();
    reader.say("SUBSCRIBE __redis__:invalidate");
    assert_eq!(client.say(&format!("CLIENT TRACKING on redirect {id}")), Value::ok());
    assert_eq!(client.say("CLIENT GETREDIR").integer(), id);
    client.say("GET key");
    cluster.client(cluster.leader()).say("SET key 1");
    let message = reader.read();
    assert_eq!(message.elements()[1], Value::bulk("__redis__:invalidate"));
    assert_eq!(message.elements()[2], Value::Array(vec![Value::bulk("key")]));
    // It is not told itself.
    assert_eq!(client.say("GET key"), Value::bulk("1"));
    assert!(client.say("CLIENT TRACKING on redirect 99999").is_error());
}

#[test]
fn whoever_loses_the_leader_begins_anew() {
    let mut cluster = Cluster::form(3, &[]);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let mut client = modern(&cluster, follower);
    let mut everything = modern(&cluster, follower);
    assert_eq!(client.say("CLIENT TRACKING on"), Value::ok());
    assert_eq!(everything.say("CLIENT TRACKING on bcast"), Value::ok());
    cluster.client(leader).say("SET key 1");
    assert_eq!(news(&mut everything), ["key"]);
    assert_eq!(client.say("GET key"), Value::bulk("1"));
    cluster.kill(leader);
    assert!(news(&mut client).is_empty());
    assert!(news(&mut everything).is_empty());
    let next = cluster.leader();
    // It may be told again that all is gone: of each change of leaders.
    let mut other = cluster.client(next);
    client.send(b"GET key\r\n");
    while client.read() != Value::bulk("1") {}
    assert_eq!(other.say("SET key 2"), Value::ok());
    while news(&mut client) != ["key"] {}
    client.send(b"GET key\r\n");
    while client.read() != Value::bulk("2") {}
    everything.send(b"GET key\r\n");
    while everything.read() != Value::bulk("2") {}
    other.say("SET more 1");
    while news(&mut everything) != ["more"] {}
}

#[test]
fn a_leader_that_hands_over_takes_no_news_with_it() {
    let cluster = Cluster::form(3, &[]);
    let leader = cluster.leader();
    let mut client = modern(&cluster, leader);
    assert_eq!(client.say("CLIENT TRACKING on"), Value::ok());
    client.say("GET key");
    let to = cluster.follower();
    let address = format!("127.0.0.1:{}", cluster.servers[to].port());
    assert_eq!(cluster.client(to).say(&format!("RAFTTRANSFER {address}")), Value::ok());
    assert!(news(&mut client).is_empty());
    client.send(b"GET key\r\n");
    while client.read() != Value::Null {}
    cluster.client(to).say("SET key 2");
    while news(&mut client) != ["key"] {}
}

#[test]
fn events_and_monitors_show_what_happens_elsewhere() {
    let cluster = Cluster::form(3, &["--notify-keyspace-events", "KEA"]);
    let follower = cluster.follower();
    let mut listener = cluster.client(follower);
    listener.say("PSUBSCRIBE __keyevent@*__:*");
    let mut monitor = cluster.client(follower);
    assert_eq!(monitor.say("MONITOR"), Value::ok());
    for node in cluster.up() {
        let mut client = cluster.client(node);
        client.say("SELECT 3");
        assert_eq!(client.say(&format!("SET key-{node} 1")), Value::ok());
        let event = listener.read();
        assert_eq!(event.elements()[2], Value::bulk("__keyevent@3__:set"), "{event:?}");
        assert_eq!(event.elements()[3], Value::bulk(format!("key-{node}")));
    }
    let mut client = cluster.client(follower);
    client.say("SET shown 1");
    client.say("MULTI");
    client.say("INCR shown");
    client.say("EXEC");
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line: &String| !line.to_lowercase().ends_with("\"exec\"")) {
        lines.push(monitor.read().text());
    }
    for word in ["\"SET\" \"shown\" \"1\"", "\"MULTI\"", "\"INCR\" \"shown\""] {
        assert_eq!(lines.iter().filter(|line| line.contains(word)).count(), 1, "{lines:#?}");
    }
}
