//! Clients that are sent to the node that leads, as Redis Cluster sends them; and leadership that
//! goes where it is sent.

use crate::cluster::{Cluster, field};
use crate::load::{append, check, ports};
use crate::support::client::encode;
use crate::support::{Client, Program, Server, Value, eventually, system};
use ringraft_shards::slot::redis_slot;

fn moved(cluster: &Cluster, key: &str, leader: usize) -> String {
    format!("MOVED {} 127.0.0.1:{}", redis_slot(key.as_bytes()), cluster.servers[leader].port())
}

#[test]
fn a_client_of_redis_cluster_is_sent_to_the_node_that_leads() {
    let cluster = Cluster::form(3, &["--slots", "redis", "--routing", "moved"]);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let mut client = cluster.client(follower);
    for (line, key) in [
        ("SET a 1", "a"),
        ("GET a", "a"),
        ("MGET {b}x a", "{b}x"),
        ("BLPOP list 0", "list"),
        ("EVAL return 1 a b", "a"),
        ("XREAD STREAMS s 0", "s"),
        ("WATCH a", "a"),
        ("SORT a STORE b", "a"),
        ("OBJECT ENCODING a", "a"),
    ] {
        let line = line.replace("EVAL return 1 a b", "EVAL return 1 a");
        assert_eq!(client.say(&line).error(), moved(&cluster, key, leader), "{line}");
    }
    // What names no key is answered by every node, and keys of any slots go together.
    let mut own = cluster.client(leader);
    assert_eq!(own.say("MSET a 1 b 2 c 3"), Value::ok());
    assert_eq!(client.say("DBSIZE"), Value::Integer(3));
    assert_eq!(client.say("PING"), Value::Simple("PONG".into()));
    assert_eq!(client.say("EVAL 0 0").error().split(' ').next(), Some("ERR"));
    assert_eq!(client.say("ASKING"), Value::ok());
    assert_eq!(client.say("GET a").error(), moved(&cluster, "a", leader));
    // A replica answers those who say that they read there.
    assert_eq!(client.say("READONLY"), Value::ok());
    eventually("it has come", || (client.say("GET a") == Value::bulk("1")).then_some(()));
    assert_eq!(client.say("SET a 2").error(), moved(&cluster, "a", leader));
    assert_eq!(client.say("READWRITE"), Value::ok());
    assert_eq!(client.say("GET a").error(), moved(&cluster, "a", leader));
    for node in cluster.up() {
        assert_eq!(cluster.servers[node].info("cluster_enabled"), "1");
        assert_eq!(cluster.servers[node].info("redis_mode"), "cluster");
        let hello = cluster.client(node).say("HELLO 2");
        let words: Vec<String> = hello.elements().iter().step_by(2).map(Value::text).collect();
        let value = |name: &str| {
            let at = words.iter().position(|word| word == name).expect("it is told");
            hello.elements()[2 * at + 1].text()
        };
        assert_eq!(value("mode"), "cluster");
        assert_eq!(value("role"), if node == leader { "master" } else { "replica" });
    }
}

#[test]
fn a_transaction_with_a_key_that_is_elsewhere_is_refused() {
    let cluster = Cluster::form(3, &["--slots", "redis", "--routing", "moved"]);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let mut client = cluster.client(follower);
    assert_eq!(client.say("MULTI"), Value::ok());
    assert_eq!(client.say("PING"), Value::Simple("QUEUED".into()));
    assert_eq!(client.say("SET a 1").error(), moved(&cluster, "a", leader));
    let told = "EXECABORT Transaction discarded because of previous errors.";
    assert_eq!(client.say("EXEC").error(), told);
    assert_eq!(client.say("EXEC").error(), "ERR EXEC without MULTI");
    // One that was queued where it could run ends when another node leads.
    let mut own = cluster.client(leader);
    assert_eq!(own.say("MULTI"), Value::ok());
    assert_eq!(own.say("SET a 1"), Value::Simple("QUEUED".into()));
    let heir = format!("127.0.0.1:{}", cluster.servers[follower].port());
    assert_eq!(cluster.client(follower).say(&format!("RAFTTRANSFER {heir}")), Value::ok());
    eventually("it leads", || (cluster.leader() == follower).then_some(()));
    assert_eq!(own.say("EXEC").error(), moved(&cluster, "a", follower));
    assert_eq!(own.say("EXEC").error(), "ERR EXEC without MULTI");
    // Reads alone of who reads from replicas.
    own.say("READONLY");
    own.say("MULTI");
    assert_eq!(own.say("GET a"), Value::Simple("QUEUED".into()));
    assert_eq!(own.say("EXEC"), Value::Array(vec![Value::Null]));
}

#[test]
fn without_a_leader_the_slots_are_not_served() {
    let mut cluster = Cluster::form(3, &["--slots", "redis", "--routing", "moved"]);
    assert_eq!(cluster.client(cluster.leader()).say("SET a 1"), Value::ok());
    cluster.is_level();
    let last = cluster.follower();
    for node in (0..3).filter(|node| *node != last) {
        cluster.kill(node);
    }
    let mut client = cluster.client(last);
    eventually("it knows of no leader", || {
        client.say("GET a").error().starts_with("CLUSTERDOWN").then_some(())
    });
    assert_eq!(client.say("SET a 2").error(), "CLUSTERDOWN Hash slot not served");
    client.say("READONLY");
    assert_eq!(client.say("GET a"), Value::bulk("1"));
}

#[test]
fn slots_of_another_kind_are_nobodys_to_be_sent_to() {
    let mut server = Server::prepare(Program::Ringraft, &["--routing", "moved"]);
    let refusal = server.try_launch().expect_err("it has Codis' slots").to_string();
    assert!(refusal.contains("--slots redis"), "{refusal}");
    let server = Server::start(&[]);
    let mut client = server.client();
    assert!(client.say("CONFIG SET routing moved").error().contains("--slots redis"));
    let server = Server::start(&["--slots", "redis"]);
    assert_eq!(server.client().say("CONFIG SET routing moved"), Value::ok());
    assert_eq!(server.info("cluster_enabled"), "1");
    assert_eq!(server.client().say("SET a 1"), Value::ok());
    let enabled =
        |server: &Server| server.client().say("CONFIG GET cluster-enabled").elements()[1].text();
    assert_eq!(enabled(&server), "yes");
    let refused = server.client().say("CONFIG SET cluster-enabled no");
    assert!(refused.error().ends_with("it is 'yes' here; see routing"), "{refused:?}");
    assert_eq!(server.client().say("CONFIG SET routing forward"), Value::ok());
    assert_eq!(enabled(&server), "no");
}

#[test]
fn failover_lets_another_node_lead_and_no_request_fails() {
    let cluster = Cluster::form(3, &[]);
    let state = |node: usize| cluster.servers[node].info("master_failover_state");
    let address = |node: usize| format!("127.0.0.1 {}", cluster.servers[node].port());
    let all = ports(&cluster, cluster.up());
    let seen = append(&all, 1, 50, || {
        // To one that is named, asked of a node that does not lead; to any; by the heir itself.
        let (before, heir) = (cluster.leader(), cluster.follower());
        let mut client = cluster.client(heir);
        let line = format!("FAILOVER TO {} TIMEOUT 5000", address(heir));
        assert_eq!(client.say(&line), Value::ok());
        eventually("it leads", || (cluster.leader() == heir).then_some(()));
        eventually("that is over", || (state(before) == "no-failover").then_some(()));
        assert_eq!(cluster.client(heir).say("FAILOVER"), Value::ok());
        eventually("another leads", || (cluster.leader() != heir).then_some(()));
        let heir = cluster.follower();
        assert_eq!(cluster.client(heir).say("CLUSTER FAILOVER"), Value::ok());
        eventually("it leads", || (cluster.leader() == heir).then_some(()));
    });
    assert!(seen.iter().all(|one| one.errors.is_empty()), "{seen:?}");
    check(&cluster, &seen);
    let leader = cluster.leader();
    let mut client = cluster.client(leader);
    for (line, error) in [
        ("FAILOVER ABORT", "ERR No failover in progress."),
        ("FAILOVER TIMEOUT 0", "ERR FAILOVER timeout must be greater than 0"),
        ("FAILOVER NOW", "ERR syntax error"),
        ("FAILOVER ABORT TIMEOUT 1", "ERR syntax error"),
        ("FAILOVER TO 127.0.0.1 1", "ERR FAILOVER target HOST and PORT is not a replica."),
        (
            "FAILOVER FORCE",
            "ERR FAILOVER with force option requires both a timeout and target HOST and IP.",
        ),
        ("CLUSTER FAILOVER", "ERR You should send CLUSTER FAILOVER to a replica"),
        ("CLUSTER FAILOVER NOW", "ERR syntax error"),
    ] {
        assert_eq!(client.say(line).error(), error, "{line}");
    }
    let alone = Server::start(&[]);
    let mut client = alone.client();
    assert_eq!(client.say("FAILOVER").error(), "ERR FAILOVER requires connected replicas.");
    assert_eq!(client.say("FAILOVER ABORT").error(), "ERR No failover in progress.");
}

/// The heir does not answer: what is given up in time leaves the leader as it was.
#[test]
fn a_failover_to_one_that_sleeps_comes_to_nothing() {
    let mut cluster = Cluster::form(3, &[]);
    let (leader, heir) = (cluster.leader(), cluster.follower());
    let mut client = cluster.client(leader);
    system::send_signal(cluster.servers[heir].pid(), libc::SIGSTOP);
    let port = cluster.servers[heir].port();
    let reply = client.say(&format!("FAILOVER TO 127.0.0.1 {port} FORCE TIMEOUT 60"));
    cluster.is_asleep(heir, true);
    if reply == Value::ok() {
        // Requests wait as long as that lasts.
        assert_eq!(client.say("SET a 1"), Value::ok());
    }
    eventually("it is over", || {
        (cluster.servers[leader].info("master_failover_state") == "no-failover").then_some(())
    });
    assert_eq!(client.say("FAILOVER ABORT").error(), "ERR No failover in progress.");
    system::send_signal(cluster.servers[heir].pid(), libc::SIGCONT);
    cluster.is_asleep(heir, false);
    cluster.settle();
    assert_eq!(cluster.client(heir).call(&["SET", "a", "2"]), Value::ok());
    cluster.is_level();
}

/// What a client of Redis Cluster does, in a few lines: it asks for the slots, goes where they are,
/// and follows what it is told.
#[test]
fn who_follows_what_it_is_told_finds_the_new_leader() {
    let mut cluster = Cluster::form(3, &["--slots", "redis", "--routing", "moved"]);
    let mut known = cluster.servers[cluster.follower()].port();
    for round in 0..2 {
        let leader = cluster.settle();
        for n in 0..100 {
            let key = format!("key-{n}");
            let value = format!("{round}-{n}");
            let mut hops = 0;
            loop {
                let mut client = Client::connect(known);
                client.send(&encode(&["SET", &key, &value]));
                let reply = client.read();
                if reply == Value::ok() {
                    break;
                }
                let (_, address) = reply.error().rsplit_once(' ').expect("MOVED slot address");
                known = address.rsplit_once(':').expect("a port").1.parse().expect("a port");
                hops += 1;
                assert!(hops < 3, "{reply:?}");
            }
        }
        assert_eq!(known, cluster.servers[leader].port());
        let line = cluster.members(leader).into_iter().find(|line| line.ends_with("isLeader=true"));
        assert!(field(&line.expect("one leads"), "address").ends_with(&known.to_string()));
        cluster.kill(leader);
        known = cluster.servers[cluster.up().next().expect("two are left")].port();
        cluster.leader();
        cluster.launch(leader);
    }
}

/// WAIT and WAITAOF count the nodes that have what was written, asked anywhere.
#[test]
fn who_waits_for_other_nodes_hears_how_many_have_it() {
    let mut cluster = Cluster::form(3, &[]);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    for node in [leader, follower] {
        let mut client = cluster.client(node);
        let mut bytes = Vec::new();
        for n in 0..50 {
            // In one row: the wait is for what stands before it.
            bytes.extend_from_slice(&encode(&["SET", &format!("key-{n}"), "x"]));
            bytes.extend_from_slice(&encode(&["WAIT", "2", "0"]));
            bytes.extend_from_slice(&encode(&["WAITAOF", "1", "2", "0"]));
        }
        for replies in client.pipeline(&bytes, 150).chunks(3) {
            let both = Value::Array(vec![Value::Integer(1), Value::Integer(2)]);
            assert_eq!(replies, [Value::ok(), Value::Integer(2), both]);
        }
    }
    let asleep = cluster.up().find(|node| ![leader, follower].contains(node)).expect("the third");
    system::send_signal(cluster.servers[asleep].pid(), libc::SIGSTOP);
    cluster.is_asleep(asleep, true);
    let mut client = cluster.client(leader);
    assert_eq!(client.say("SET a 1"), Value::ok());
    assert_eq!(client.say("WAIT 1 0"), Value::Integer(1));
    assert_eq!(client.say("WAIT 2 50"), Value::Integer(1));
    assert_eq!(
        client.say("WAITAOF 1 2 50"),
        Value::Array(vec![Value::Integer(1), Value::Integer(1)])
    );
    // It wakes, and has it: who waited for ever is answered.
    client.send(&encode(&["WAIT", "2", "0"]));
    system::send_signal(cluster.servers[asleep].pid(), libc::SIGCONT);
    assert_eq!(client.read(), Value::Integer(2));
    // The leader makes way: it cannot say any more.
    client.send(&encode(&["WAIT", "3", "0"]));
    eventually("it waits", || {
        (cluster.servers[leader].info_number("blocked_clients") == 1).then_some(())
    });
    assert_eq!(cluster.client(follower).say("CLUSTER FAILOVER"), Value::ok());
    assert!(client.read().error().starts_with("UNBLOCKED"));
}
