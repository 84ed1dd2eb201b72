//! What reads see at nodes that do not lead: everything, or what is there.

use crate::cluster::Cluster;
use crate::load::{OnEnd, ports};
use crate::support::{Chance, Client, Value, eventually, system};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How often a counter is raised in a test.
const RAISES: u64 = 300;

/// Reads served by a node itself although another one leads.
fn read_here(cluster: &Cluster, node: usize) -> i64 {
    cluster.servers[node].info_number("reads_as_follower")
}

#[test]
fn a_node_that_does_not_lead_reads_all_that_was_acknowledged() {
    let cluster = Cluster::form(3, &[]);
    let leader = cluster.leader();
    let mut writer = cluster.client(leader);
    let mut readers: Vec<Client> =
        cluster.up().filter(|node| *node != leader).map(|node| cluster.client(node)).collect();
    for n in 0..RAISES {
        writer.say(&format!("SET count {n}"));
        for reader in &mut readers {
            assert_eq!(reader.say("GET count"), Value::bulk(n.to_string()));
        }
    }
    for node in cluster.up().filter(|node| *node != leader) {
        assert!(read_here(&cluster, node) >= RAISES as i64 / 2, "its own replica has answered");
    }
}

#[test]
fn a_row_of_requests_keeps_its_order_at_every_node() {
    for consistency in ["high", "low"] {
        let cluster = Cluster::form(3, &["--consistency", consistency]);
        let mut client = cluster.client(cluster.follower());
        let mut bytes = Vec::new();
        let mut chance = Chance::new("a_row_of_requests");
        let (mut expected, mut value) = (Vec::new(), String::new());
        for n in 0..3000 {
            if chance.below(4) == 0 {
                value = n.to_string();
                bytes.extend_from_slice(&crate::support::client::encode(&["SET", "k", &value]));
                expected.push(Value::ok());
            } else {
                bytes.extend_from_slice(&crate::support::client::encode(&["GET", "k"]));
                let found = if value.is_empty() { Value::Null } else { Value::bulk(&value) };
                expected.push(found);
            }
        }
        let replies = client.pipeline(&bytes, expected.len());
        for (n, (reply, expected)) in replies.iter().zip(&expected).enumerate() {
            assert_eq!(reply, expected, "request {n}, {consistency}");
        }
    }
}

#[test]
fn what_has_ended_for_the_leader_has_ended_at_every_node() {
    let cluster = Cluster::form(3, &[]);
    let leader = cluster.leader();
    let mut writer = cluster.client(leader);
    let mut readers: Vec<Client> =
        cluster.up().filter(|node| *node != leader).map(|node| cluster.client(node)).collect();
    // Items are not swept: only the time of the read says that they have ended.
    for node in cluster.up() {
        cluster.client(node).say("DEBUG SET-ACTIVE-EXPIRE 0");
    }
    for n in 0..20 {
        let key = format!("key-{n}");
        writer.say(&format!("SET {key} value PX 30"));
        eventually("it ends", || (writer.say(&format!("GET {key}")) == Value::Null).then_some(()));
        for reader in &mut readers {
            assert_eq!(reader.say(&format!("GET {key}")), Value::Null, "{key}");
        }
    }
}

#[test]
fn a_follower_that_is_cut_off_may_read_what_it_has_and_knows_no_more() {
    let mut cluster = Cluster::form(3, &[]);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let mut client = cluster.client(follower);
    assert_eq!(client.say("SET key old"), Value::ok());
    cluster.is_level();
    let others: Vec<usize> = cluster.up().filter(|node| *node != follower).collect();
    for node in &others {
        system::send_signal(cluster.servers[*node].pid(), libc::SIGSTOP);
    }
    let mut low = cluster.client(follower);
    assert_eq!(low.say("READONLY"), Value::ok());
    assert_eq!(low.say("GET key"), Value::bulk("old"));
    assert_eq!(low.say("MGET key other more and yet another"), {
        let null = Value::Null;
        let mut all = vec![Value::bulk("old")];
        all.extend((0..5).map(|_| null.clone()));
        Value::Array(all)
    });
    assert_eq!(low.say("EXISTS key key none"), Value::Integer(2));
    assert_eq!(low.say("DBSIZE"), Value::Integer(1));
    assert_eq!(low.say("KEYS *"), Value::Array(vec![Value::bulk("key")]));
    // Who wants to be certain waits for those who are.
    let mut high = cluster.client(follower);
    high.send(&crate::support::client::encode(&["GET", "key"]));
    assert_eq!(low.say("GET key"), Value::bulk("old"));
    assert_eq!(low.say("READWRITE"), Value::ok());
    low.send(&crate::support::client::encode(&["GET", "key"]));
    for node in &others {
        system::send_signal(cluster.servers[*node].pid(), libc::SIGCONT);
    }
    assert_eq!(high.read(), Value::bulk("old"));
    assert_eq!(low.read(), Value::bulk("old"));
    // The other way round: it sleeps while the others write, and has not heard of it when it is
    // asked.
    system::send_signal(cluster.servers[follower].pid(), libc::SIGSTOP);
    cluster.is_asleep(follower, true);
    let leader = if cluster.up().any(|node| node == leader) { cluster.leader() } else { leader };
    assert_eq!(cluster.client(leader).say("SET key new"), Value::ok());
    high.send(&crate::support::client::encode(&["GET", "key"]));
    system::send_signal(cluster.servers[follower].pid(), libc::SIGCONT);
    assert_eq!(high.read(), Value::bulk("new"));
}

#[test]
fn a_connection_reads_what_it_has_written_whoever_answers() {
    let cluster = Cluster::form(3, &["--consistency", "low"]);
    let follower = cluster.follower();
    let mut client = cluster.client(follower);
    for n in 0..RAISES {
        assert_eq!(client.say(&format!("SET key-{} {n}", n % 7)), Value::ok());
        assert_eq!(client.say(&format!("GET key-{}", n % 7)), Value::bulk(n.to_string()));
    }
    // What was written before low was asked for counts as well.
    let mut later = cluster.client(follower);
    later.say("READONLY");
    for n in 0..RAISES {
        later.say("READWRITE");
        assert_eq!(later.say("INCR count"), Value::Integer(n as i64 + 1));
        later.say("READONLY");
        assert_eq!(later.say("GET count"), Value::bulk((n + 1).to_string()));
    }
    assert!(read_here(&cluster, follower) > 0);
}

/// A counter that only grows, raised at one node and read at all: no reader sees less than was
/// acknowledged when it asked, nor less than anybody saw before. Leaders are killed meanwhile.
#[test]
fn no_reader_sees_less_than_was_there_while_leaders_are_killed() {
    let mut cluster = Cluster::form(3, &[]);
    let acknowledged = AtomicU64::new(0);
    for _ in 0..3 {
        let leader = cluster.settle();
        let survivors = ports(&cluster, cluster.up().filter(|node| *node != leader));
        let is_over = AtomicBool::new(false);
        let (is_over, acknowledged) = (&is_over, &acknowledged);
        let reads = AtomicU64::new(0);
        let reads = &reads;
        std::thread::scope(|scope| {
            let writing = survivors[0];
            scope.spawn(move || {
                let mut client = Client::connect(writing);
                while !is_over.load(Ordering::Acquire) {
                    // In doubt it may have been raised, and nobody is told by how much: the next
                    // reply says it.
                    if let Value::Integer(count) = client.say("INCR count") {
                        acknowledged.fetch_max(count.unsigned_abs(), Ordering::AcqRel);
                    }
                }
            });
            for &port in &survivors {
                for _ in 0..2 {
                    scope.spawn(move || {
                        let mut client = Client::connect(port);
                        while !is_over.load(Ordering::Acquire) {
                            let before = acknowledged.load(Ordering::Acquire);
                            let reply = client.say("GET count");
                            if reply.is_error() {
                                continue;
                            }
                            let seen = match reply {
                                Value::Null => 0,
                                other => other.text().parse::<u64>().expect("a number"),
                            };
                            assert!(seen >= before, "{seen} was read, {before} acknowledged");
                            // Whoever reads after this sees as much.
                            acknowledged.fetch_max(seen, Ordering::AcqRel);
                            reads.fetch_add(1, Ordering::AcqRel);
                        }
                    });
                }
            }
            let _over = OnEnd(|| is_over.store(true, Ordering::Release));
            let read = |more: u64| {
                let until = reads.load(Ordering::Acquire) + more;
                eventually("clients go on reading", || {
                    (reads.load(Ordering::Acquire) >= until).then_some(())
                });
            };
            read(200);
            cluster.kill(leader);
            read(400);
        });
        cluster.launch(leader);
    }
}

#[test]
fn who_believes_to_lead_may_answer_unconfirmed() {
    let mut cluster = Cluster::form(3, &["--consistency", "medium"]);
    let leader = cluster.leader();
    let mut client = cluster.client(leader);
    assert_eq!(client.say("SET key old"), Value::ok());
    let others: Vec<usize> = cluster.up().filter(|node| *node != leader).collect();
    for node in &others {
        system::send_signal(cluster.servers[*node].pid(), libc::SIGSTOP);
        cluster.is_asleep(*node, true);
    }
    assert_eq!(client.say("GET key"), Value::bulk("old"));
    for node in &others {
        system::send_signal(cluster.servers[*node].pid(), libc::SIGCONT);
        cluster.is_asleep(*node, false);
    }
    cluster.settle();
    assert_eq!(cluster.client(others[0]).say("GET key"), Value::bulk("old"));
    assert_eq!(client.say("CONFIG SET consistency high"), Value::ok());
    assert_eq!(client.say("CONFIG GET consistency").elements()[1], Value::bulk("high"));
    assert!(client.say("CONFIG SET consistency perhaps").is_error());
}
