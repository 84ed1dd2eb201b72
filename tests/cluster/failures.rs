//! Nodes that die, end, stop and come back, under load.

use crate::cluster::Cluster;
use crate::load::{append, check, ports};
use crate::support::{Chance, Value, eventually, system};

/// How often a leader is killed in one test.
const KILLS: usize = 4;

#[test]
fn a_leader_that_is_killed_takes_nothing_with_it() {
    let mut cluster = Cluster::form(3, &[]);
    for _ in 0..KILLS {
        let leader = cluster.settle();
        let survivors = ports(&cluster, cluster.up().filter(|node| *node != leader));
        let seen = append(&survivors, 2, 100, || cluster.kill(leader));
        for one in &seen {
            // Only what was on its way may be in doubt: one request of each client.
            assert!(one.errors.len() <= 1, "{:?}", one.errors);
            let in_doubt = |error: &String| error.starts_with("ERR the outcome is not known");
            assert!(one.errors.iter().all(in_doubt), "{:?}", one.errors);
        }
        check(&cluster, &seen);
        cluster.launch(leader);
        cluster.settle();
        check(&cluster, &seen);
    }
}

#[test]
fn a_follower_that_is_killed_is_not_missed() {
    let mut cluster = Cluster::form(3, &[]);
    let leader = cluster.leader();
    let follower = cluster.follower();
    let others = ports(&cluster, cluster.up().filter(|node| *node != follower));
    let seen = append(&others, 2, 100, || cluster.kill(follower));
    assert!(seen.iter().all(|one| one.errors.is_empty()), "{seen:?}");
    assert_eq!(cluster.leader(), leader);
    cluster.launch(follower);
    check(&cluster, &seen);
}

#[test]
fn a_leader_that_ends_in_order_hands_over_first_and_no_request_fails() {
    let mut cluster = Cluster::form(3, &[]);
    for _ in 0..2 {
        let leader = cluster.settle();
        let survivors = ports(&cluster, cluster.up().filter(|node| *node != leader));
        let seen = append(&survivors, 2, 100, || cluster.terminate(leader));
        assert!(seen.iter().all(|one| one.errors.is_empty()), "{seen:?}");
        check(&cluster, &seen);
        cluster.launch(leader);
    }
}

#[test]
fn nodes_that_end_at_once_do_not_hand_leadership_to_one_another() {
    let mut cluster = Cluster::form(2, &[]);
    let before = cluster.term(0);
    for server in &cluster.servers {
        system::send_signal(server.pid(), libc::SIGTERM);
    }
    for node in 0..2 {
        let (status, output) = cluster.ended(node);
        assert!(status.success(), "{status}: {output}");
    }
    for node in 0..2 {
        cluster.launch(node);
    }
    cluster.settle();
    // Once from the one to the other, before that has said that it ends; an election at the start,
    // which two may stand for.
    let after = cluster.term(0);
    assert!(after - before <= 5, "{before} and {after}");
}

#[test]
fn leadership_goes_where_it_is_sent_and_no_request_fails() {
    let cluster = Cluster::form(3, &[]);
    let all = ports(&cluster, cluster.up().filter(|node| *node != cluster.leader()));
    let heir = cluster.follower();
    let address = format!("127.0.0.1:{}", cluster.servers[heir].port());
    let seen = append(&all, 2, 50, || {
        assert_eq!(cluster.client(heir).say(&format!("RAFTTRANSFER {address}")), Value::ok());
        eventually("it leads", || (cluster.leader() == heir).then_some(()));
    });
    assert!(seen.iter().all(|one| one.errors.is_empty()), "{seen:?}");
    check(&cluster, &seen);
}

#[test]
fn all_nodes_killed_and_started_again_have_everything() {
    let mut cluster = Cluster::form(3, &[]);
    let mut chance = Chance::new("all_nodes_killed");
    for _ in 0..3 {
        cluster.settle();
        let all = ports(&cluster, cluster.up());
        let seen = append(&all, 1, 20 + chance.below(50) as usize, || {});
        for node in 0..3 {
            cluster.kill(node);
        }
        let first = chance.below(3) as usize;
        for n in 0..3 {
            cluster.launch((first + n) % 3);
        }
        cluster.settle();
        check(&cluster, &seen);
    }
}

#[test]
fn without_a_majority_nothing_is_acknowledged_and_with_it_all_goes_on() {
    let mut cluster = Cluster::form(3, &[]);
    let seen = append(&ports(&cluster, cluster.up()), 1, 50, || {});
    cluster.kill(1);
    cluster.kill(2);
    let mut client = cluster.client(0);
    for line in ["SET a 1", "GET a", "INCR n"] {
        let reply = client.say(line);
        let told = reply.error();
        let is_known = ["ERR leader not known", "ERR the outcome is not known"];
        assert!(is_known.iter().any(|text| told.starts_with(text)), "{line}: {told}");
    }
    assert_eq!(client.say("PING"), Value::Simple("PONG".into()));
    cluster.launch(2);
    cluster.leader();
    assert_eq!(cluster.client(0).say("SET a 2"), Value::ok());
    cluster.launch(1);
    cluster.settle();
    check(&cluster, &seen);
    assert_eq!(cluster.client(1).say("GET a"), Value::bulk("2"));
}

#[test]
fn a_leader_that_slept_answers_nothing_from_before() {
    let mut cluster = Cluster::form(3, &[]);
    let leader = cluster.leader();
    let mut own = cluster.client(leader);
    assert_eq!(own.say("SET key old"), Value::ok());
    system::send_signal(cluster.servers[leader].pid(), libc::SIGSTOP);
    cluster.is_asleep(leader, true);
    cluster.leader();
    assert_eq!(cluster.client(cluster.follower()).say("SET key new"), Value::ok());
    // Asked while it sleeps: it reads this when it wakes, before it has heard of anybody.
    own.send(b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n");
    system::send_signal(cluster.servers[leader].pid(), libc::SIGCONT);
    assert_eq!(own.read(), Value::bulk("new"));
    cluster.is_asleep(leader, false);
    cluster.settle();
    cluster.is_level();
}

#[test]
fn a_follower_that_lacks_much_gets_a_snapshot_and_is_level() {
    let small = ["--segment-size", "8mb", "--snapshot-log-bytes", "1mb"];
    let mut cluster = Cluster::form(3, &small);
    let follower = cluster.follower();
    cluster.kill(follower);
    let value = "x".repeat(10_000);
    let mut client = cluster.client(cluster.leader());
    for round in 0..3 {
        let mut bytes = Vec::new();
        for n in 0..3000 {
            let key = format!("key-{n}");
            let set = ["SET", &key, &format!("{round}{value}")];
            bytes.extend_from_slice(&crate::support::client::encode(&set));
        }
        let replies = client.pipeline(&bytes, 3000);
        assert!(replies.iter().all(|reply| *reply == Value::ok()));
        assert_eq!(client.say("SAVE"), Value::ok());
    }
    cluster.launch(follower);
    cluster.settle();
    cluster.is_level();
    assert_eq!(cluster.client(follower).say("DBSIZE").integer(), 3000);
}

#[test]
fn with_nodes_that_stand_by_any_leader_may_be_lost() {
    let mut cluster = Cluster::form(5, &[]);
    for _ in 0..2 {
        let leader = cluster.settle();
        let survivors = ports(&cluster, cluster.up().filter(|node| *node != leader));
        let seen = append(&survivors, 1, 50, || cluster.kill(leader));
        assert!(seen.iter().all(|one| one.errors.len() <= 1), "{seen:?}");
        cluster.launch(leader);
        cluster.settle();
        let reads = ports(&cluster, cluster.up());
        for (port, one) in reads.iter().flat_map(|port| seen.iter().map(move |one| (port, one))) {
            let mut client = crate::support::Client::connect(*port);
            let count = client.call(&["LLEN", &one.key]).integer();
            assert!(count >= one.acknowledged.len() as i64, "{count} of {}", one.key);
        }
    }
}
