//! Any client at any node: every kind of command runs as if that node led.

use crate::cluster::Cluster;
use crate::support::{Server, Value, eventually};

#[test]
fn every_kind_of_command_runs_at_every_node() {
    let cluster = Cluster::form(3, &[]);
    for node in cluster.up() {
        let mut client = cluster.client(node);
        let say = |client: &mut crate::support::Client, line: &str| client.say(line);
        assert_eq!(say(&mut client, "FLUSHALL"), Value::ok());
        assert_eq!(say(&mut client, "SET a 1"), Value::ok());
        assert_eq!(say(&mut client, "GET a"), Value::bulk("1"));
        assert_eq!(say(&mut client, "MSET b 2 c 3 d 4"), Value::ok());
        assert_eq!(say(&mut client, "MGET a b c d nothing").elements().len(), 5);
        assert_eq!(say(&mut client, "DBSIZE").integer(), 4);
        assert_eq!(say(&mut client, "KEYS *").elements().len(), 4);
        assert_eq!(say(&mut client, "SCAN 0 COUNT 100").elements()[1].elements().len(), 4);
        // Over shards, queued here and run there.
        assert_eq!(say(&mut client, "MULTI"), Value::ok());
        assert_eq!(say(&mut client, "INCR a"), Value::Simple("QUEUED".into()));
        assert_eq!(say(&mut client, "INCR b"), Value::Simple("QUEUED".into()));
        assert_eq!(say(&mut client, "PING"), Value::Simple("QUEUED".into()));
        assert_eq!(
            say(&mut client, "EXEC"),
            Value::Array(vec![Value::Integer(2), Value::Integer(3), Value::Simple("PONG".into())])
        );
        assert_eq!(say(&mut client, "SELECT 3"), Value::ok());
        assert_eq!(say(&mut client, "SET here 1"), Value::ok());
        assert_eq!(say(&mut client, "DBSIZE").integer(), 1);
        assert_eq!(say(&mut client, "SELECT 0"), Value::ok());
        assert_eq!(say(&mut client, "EXISTS here").integer(), 0);
        let script = "redis.call('set', KEYS[1], ARGV[1]); return redis.call('get', KEYS[2])";
        let reply = client.call(&["EVAL", script, "2", "c", "d", "x"]);
        assert_eq!(reply, Value::bulk("4"));
        let sha = client.call(&["SCRIPT", "LOAD", "return redis.call('get', KEYS[1])"]).text();
        assert_eq!(client.call(&["EVALSHA", &sha, "1", "c"]), Value::bulk("x"));
        assert!(say(&mut client, "LPUSH a x").error().starts_with("WRONGTYPE"));
        assert!(say(&mut client, "GET").error().starts_with("ERR wrong number of arguments"));
        assert!(say(&mut client, "EXEC").error().starts_with("ERR EXEC without MULTI"));
    }
    cluster.is_level();
}

#[test]
fn keys_move_to_another_server_from_every_node() {
    let cluster = Cluster::form(3, &[]);
    let target = Server::start(&["--shards", "2"]);
    let (mut there, port) = (target.client(), target.port().to_string());
    for node in cluster.up() {
        let mut client = cluster.client(node);
        let keys = ["a", "b", "c", "d"].map(|name| format!("{name}{node}"));
        for key in &keys {
            assert_eq!(client.call(&["SET", key, "v"]), Value::ok());
        }
        let mut request =
            ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"].map(String::from).to_vec();
        request.extend(keys.clone());
        assert_eq!(client.call(&request), Value::ok());
        assert_eq!(client.say("DBSIZE"), Value::Integer(0));
        for key in &keys {
            assert_eq!(there.call(&["GET", key]), Value::bulk("v"));
        }
        assert_eq!(client.call(&request), Value::Simple("NOKEY".into()));
    }
    cluster.is_level();
}

#[test]
fn a_watched_key_that_changes_ends_a_transaction_at_every_node() {
    let cluster = Cluster::form(3, &[]);
    for node in cluster.up() {
        let (mut one, mut other) = (cluster.client(node), cluster.client(cluster.leader()));
        other.say("SET key 1");
        for changes in [false, true] {
            assert_eq!(one.say("WATCH key"), Value::ok());
            if changes {
                other.say("SET key 2");
            }
            one.say("MULTI");
            one.say("INCR key");
            let reply = one.say("EXEC");
            assert_eq!(matches!(reply, Value::NullArray), changes, "{reply:?}");
        }
        assert_eq!(one.say("WATCH key"), Value::ok());
        other.say("SET key 3");
        assert_eq!(one.say("UNWATCH"), Value::ok());
        one.say("MULTI");
        one.say("INCR key");
        assert_eq!(one.say("EXEC"), Value::Array(vec![Value::Integer(4)]));
    }
}

#[test]
fn a_client_that_waits_is_served_by_a_push_at_another_node() {
    let cluster = Cluster::form(3, &[]);
    for from in cluster.up() {
        for to in cluster.up() {
            let (mut waits, mut pushes) = (cluster.client(from), cluster.client(to));
            waits.send(b"*3\r\n$5\r\nBLPOP\r\n$1\r\nq\r\n$1\r\n0\r\n");
            let leader = &cluster.servers[cluster.leader()];
            eventually("the leader has it waiting", || {
                (leader.info_number("blocked_clients") == 1).then_some(())
            });
            pushes.say("RPUSH q job");
            let served = waits.read();
            assert_eq!(served, Value::Array(vec![Value::bulk("q"), Value::bulk("job")]));
            assert_eq!(pushes.say("LLEN q").integer(), 0);
        }
    }
}

#[test]
fn a_client_that_waits_and_goes_away_takes_nothing() {
    let cluster = Cluster::form(3, &[]);
    let leader = cluster.leader();
    let mut waits = cluster.client(cluster.follower());
    waits.send(b"*3\r\n$5\r\nBLPOP\r\n$1\r\nq\r\n$1\r\n0\r\n");
    let waiting = || cluster.servers[leader].info_number("blocked_clients");
    eventually("the leader has it waiting", || (waiting() == 1).then_some(()));
    drop(waits);
    eventually("the leader has it no more", || (waiting() == 0).then_some(()));
    let mut client = cluster.client(leader);
    assert_eq!(client.say("RPUSH q job").integer(), 1);
    assert_eq!(client.say("LLEN q").integer(), 1);
}

#[test]
fn a_long_row_of_requests_and_large_values_keep_their_order() {
    let cluster = Cluster::form(3, &[]);
    let mut client = cluster.client(cluster.follower());
    let mut bytes = Vec::new();
    let large = vec![b'x'; 3 << 20];
    for n in 0..20_000u32 {
        bytes.extend_from_slice(&crate::support::client::encode(&["INCR", "count"]));
        if n % 5000 == 0 {
            let set: [&[u8]; 3] = [b"SET", b"large", &large];
            bytes.extend_from_slice(&crate::support::client::encode(&set));
            bytes.extend_from_slice(&crate::support::client::encode(&["GET", "large"]));
            bytes.extend_from_slice(&crate::support::client::encode(&["PING"]));
        }
    }
    let replies = client.pipeline(&bytes, 20_000 + 4 * 3);
    let mut count = 0;
    for reply in replies {
        match reply {
            Value::Integer(n) => {
                count += 1;
                assert_eq!(n, count);
            }
            Value::Bulk(value) => assert_eq!(value.len(), large.len()),
            Value::Simple(word) => assert!(word == "OK" || word == "PONG", "{word}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(count, 20_000);
}

#[test]
fn messages_reach_subscribers_at_every_node() {
    let cluster = Cluster::form(3, &[]);
    let mut listeners: Vec<_> = cluster.up().map(|node| cluster.client(node)).collect();
    for listener in &mut listeners {
        listener.say("SUBSCRIBE news");
    }
    for node in cluster.up() {
        cluster.client(node).say(&format!("PUBLISH news from-{node}"));
        for listener in &mut listeners {
            let message = listener.read();
            assert_eq!(message.elements()[2], Value::bulk(format!("from-{node}")));
        }
    }
}

#[test]
fn a_node_that_does_not_lead_may_name_the_one_that_does() {
    let cluster = Cluster::form(3, &["--routing", "try"]);
    let leader = cluster.leader();
    let address = format!("127.0.0.1:{}", cluster.servers[leader].port());
    let mut client = cluster.client(cluster.follower());
    for line in ["SET a 1", "GET a", "MGET a b", "EVAL 0 0", "BLPOP a 1"] {
        assert_eq!(client.say(line).error(), format!("TRY {address}"), "{line}");
    }
    assert_eq!(client.say("PING"), Value::Simple("PONG".into()));
    assert_eq!(client.say("RAFTLEADER"), Value::bulk(&address));
    assert_eq!(client.say("RAFTSTATE"), Value::bulk("Follower"));
    assert_eq!(client.say("CONFIG SET routing forward"), Value::ok());
    assert_eq!(client.say("SET a 1"), Value::ok());
    assert_eq!(cluster.client(leader).say("GET a"), Value::bulk("1"));
}

#[test]
fn what_is_asked_of_a_cluster_is_told_alike_everywhere() {
    let cluster = Cluster::form(3, &[]);
    let leader = cluster.leader();
    let port = cluster.servers[leader].port().to_string();
    for node in cluster.up() {
        let server = &cluster.servers[node];
        let mut client = server.client();
        let leads = node == leader;
        assert_eq!(server.info("role"), if leads { "master" } else { "slave" });
        let role = client.say("ROLE");
        if leads {
            eventually("both followers are connected", || {
                (server.info_number("connected_slaves") == 2).then_some(())
            });
            assert_eq!(role.elements()[0], Value::bulk("master"));
        } else {
            assert_eq!(server.info("master_port"), port);
            assert_eq!(role.elements()[0], Value::bulk("slave"));
            assert_eq!(role.elements()[2].integer().to_string(), port);
        }
        let peers = client.say("RAFTPEERS");
        let words: Vec<String> = peers.elements().iter().map(Value::text).collect();
        assert_eq!(words.iter().filter(|word| *word == "Leader").count(), 1, "{words:?}");
        assert_eq!(words.iter().filter(|word| *word == "Follower").count(), 2, "{words:?}");
        let slots = client.say("CLUSTER SLOTS");
        let first = &slots.elements()[0];
        assert_eq!(first.elements().len(), 5);
        assert_eq!(first.elements()[2].elements()[1].integer().to_string(), port);
        let nodes = client.say("CLUSTER NODES").text();
        assert_eq!(nodes.lines().filter(|line| line.contains("master")).count(), 1, "{nodes}");
        assert_eq!(nodes.lines().count(), 3);
    }
}
