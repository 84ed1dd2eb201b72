//! Nodes that join, leave, move, and those that must not come in.

use crate::cluster::{Cluster, field};
use crate::load::{append, check, ports};
use crate::support::{Client, Program, Server, Value, eventually};
use std::io::Write;

#[test]
fn nodes_that_join_get_what_is_there_while_writes_go_on() {
    let mut cluster = Cluster::form(1, &[]);
    let mut client = cluster.client(0);
    let mut bytes = Vec::new();
    for n in 0..20_000 {
        let set = ["SET", &format!("key-{n}"), &format!("{n}-{}", "v".repeat(100))];
        bytes.extend_from_slice(&crate::support::client::encode(&set));
    }
    client.pipeline(&bytes, 20_000);
    client.say("RPUSH list a b c");
    client.say("ZADD scores 1 a 2 b");
    client.call(&[
        "FUNCTION",
        "LOAD",
        "#!lua name=lib\nredis.register_function('f', function() return 7 end)",
    ]);
    let first = ports(&cluster, cluster.up());
    let seen = append(&first, 2, 50, || {
        cluster.add(&[]);
        cluster.add(&[]);
        cluster.settle();
    });
    assert!(seen.iter().all(|one| one.errors.is_empty()), "{seen:?}");
    check(&cluster, &seen);
    for node in cluster.up() {
        let mut client = cluster.client(node);
        assert_eq!(client.say("LRANGE list 0 -1").elements().len(), 3);
        assert_eq!(client.say("FCALL f 0").integer(), 7);
    }
}

#[test]
fn two_nodes_that_join_at_once_both_come_in() {
    let mut cluster = Cluster::form(1, &[]);
    let seed = cluster.servers[0].port().to_string();
    for _ in 0..2 {
        let mut server = Server::prepare(Program::Ringraft, &["--join", &seed]);
        server.launch_only();
        cluster.servers.push(server);
    }
    for node in [1, 2] {
        assert!(cluster.servers[node].wait_for_line("ready on "));
        cluster.came_up();
    }
    cluster.settle();
    let ids: Vec<String> = cluster.members(0).iter().map(|line| field(line, "id")).collect();
    assert_eq!(ids, ["1", "2", "3"]);
}

#[test]
fn a_node_that_is_removed_ends_and_stays_out() {
    let mut cluster = Cluster::form(4, &[]);
    let leader = cluster.leader();
    let leaves = cluster.follower();
    let address = format!("127.0.0.1:{}", cluster.servers[leaves].port());
    let stays: Vec<usize> = cluster.up().filter(|node| *node != leaves).collect();
    let seen = append(&ports(&cluster, stays.into_iter()), 1, 50, || {
        let reply = cluster.client(leader).say(&format!("RAFTREMOVEPEER {address}"));
        assert_eq!(reply, Value::ok());
        let (status, output) = cluster.ended(leaves);
        assert_eq!(status.code(), Some(1), "{output}");
        assert!(output.contains("the cluster has no use for this node"), "{output}");
    });
    assert!(seen.iter().all(|one| one.errors.is_empty()), "{seen:?}");
    assert_eq!(cluster.members(leader).len(), 3);
    check(&cluster, &seen);
    let mut client = cluster.client(leader);
    assert_eq!(client.say("RAFTREMOVEPEER 127.0.0.1:1").error(), "ERR peer is unknown");
    // Started again it is told the same.
    if cluster.servers[leaves].try_launch().is_ok() {
        let (status, _) = cluster.servers[leaves].wait_for_exit();
        assert_eq!(status.code(), Some(1));
    }
}

#[test]
fn a_leader_that_is_removed_hands_over_first() {
    let mut cluster = Cluster::form(3, &[]);
    let leader = cluster.leader();
    let address = format!("127.0.0.1:{}", cluster.servers[leader].port());
    let stays: Vec<usize> = cluster.up().filter(|node| *node != leader).collect();
    let seen = append(&ports(&cluster, stays.iter().copied()), 1, 50, || {
        let reply = cluster.client(stays[0]).say(&format!("MEMBER REMOVE {address}"));
        assert_eq!(reply, Value::ok());
        let (status, output) = cluster.ended(leader);
        assert_eq!(status.code(), Some(1), "{output}");
    });
    assert!(seen.iter().all(|one| one.errors.is_empty()), "{seen:?}");
    check(&cluster, &seen);
    assert_eq!(cluster.members(stays[0]).len(), 2);
}

#[test]
fn a_node_at_another_address_is_found_there() {
    let mut cluster = Cluster::form(3, &[]);
    let moves = cluster.follower();
    cluster.terminate(moves);
    let old = cluster.servers[moves].port();
    cluster.servers[moves].take_another_port();
    cluster.launch(moves);
    cluster.settle();
    let new = cluster.servers[moves].port();
    for node in cluster.up() {
        eventually("its new address is known", || {
            let list = cluster.members(node).join("\n");
            let knows = list.contains(&format!(":{new} ")) && !list.contains(&format!(":{old} "));
            knows.then_some(())
        });
    }
    let seen = append(&ports(&cluster, cluster.up()), 1, 20, || {});
    check(&cluster, &seen);
}

#[test]
fn strangers_are_turned_away_and_disturb_nobody() {
    let cluster = Cluster::form(2, &[]);
    let port = cluster.servers[cluster.leader()].port();
    for bytes in [
        &b"\0"[..],
        b"\0RINGPEER",
        b"\0RINGPEER\x01garbage that is no frame at all.......",
        b"\0GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        stream.write_all(bytes).expect("it takes bytes");
        stream.shutdown(std::net::Shutdown::Write).expect("it stands");
        let mut client = Client::connect(port);
        assert_eq!(client.say("SET a 1"), Value::ok());
    }
    cluster.settle();
}

#[test]
fn who_may_not_join_is_told_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    std::fs::write(&one, "first secret").expect("writable");
    std::fs::write(&other, "second secret").expect("writable");
    let (one, other) = (one.to_str().expect("text"), other.to_str().expect("text"));
    let founder = Server::start(&["--cluster-secret", one]);
    let seed = founder.port().to_string();
    let refused = |arguments: &[&str]| {
        let all: Vec<&str> = arguments.iter().copied().chain(["--join", &seed]).collect();
        let mut server = Server::prepare(Program::Ringraft, &all);
        server.try_launch().expect_err("refused").output
    };
    let text = refused(&["--cluster-secret", other]);
    assert!(text.contains("the cluster has another --cluster-secret"), "{text}");
    let text = refused(&[]);
    assert!(text.contains("the cluster has another --cluster-secret"), "{text}");
    let text = refused(&["--cluster-secret", one, "--shards", "77"]);
    assert!(text.contains("leave out --shards"), "{text}");
    let text = refused(&["--mode", "cache"]);
    assert!(text.contains("join"), "{text}");
    let text = refused(&["--cluster-secret", "/nowhere/at/all"]);
    assert!(text.contains("cannot read --cluster-secret /nowhere/at/all"), "{text}");
    // With the right one it comes in.
    let mut joins = Server::prepare(Program::Ringraft, &["--cluster-secret", one, "--join", &seed]);
    joins.launch();
    assert_eq!(joins.client().say("SET a 1"), Value::ok());
    let cache = Server::start(&["--mode", "cache"]);
    let port = cache.port().to_string();
    let mut server = Server::prepare(Program::Ringraft, &["--join", &port]);
    let text = server.try_launch().expect_err("refused").output;
    assert!(text.contains("cache mode"), "{text}");
}

#[test]
fn a_wiped_node_joins_as_another_one() {
    let mut cluster = Cluster::form(3, &[]);
    let wiped = cluster.follower();
    let seen = append(&ports(&cluster, cluster.up()), 1, 50, || {});
    cluster.kill(wiped);
    let id = |cluster: &Cluster, port: u16| {
        let list = cluster.members(cluster.leader());
        let line = list.iter().find(|line| line.contains(&format!(":{port} "))).expect("listed");
        field(line, "id")
    };
    let port = cluster.servers[wiped].port();
    let before = id(&cluster, port);
    for entry in std::fs::read_dir(cluster.servers[wiped].directory()).expect("there") {
        let path = entry.expect("readable").path();
        let removed = if path.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        removed.expect("ours");
    }
    let seed = cluster.servers[cluster.leader()].port().to_string();
    cluster.servers[wiped].set_arguments(&["--join", &seed]);
    cluster.launch(wiped);
    eventually("the old one is gone and the new one votes", || {
        let list = cluster.members(cluster.leader());
        let votes = list.iter().filter(|line| line.contains("suffrage=0")).count();
        (list.len() == 3 && votes == 3).then_some(())
    });
    assert_ne!(id(&cluster, port), before);
    check(&cluster, &seen);
}
