//! Disks that hang or are full, clocks that are wrong: who is not fit to lead hands over.

use crate::cluster::Cluster;
use crate::load::{append, check, ports};
use crate::mounts::Mount;
use crate::support::{Server, Value, eventually};
use std::cell::RefCell;

const SMALL_SEGMENTS: [&str; 2] = ["--segment-size", "8mb"];

/// Three nodes, the first of which leads on what `mount` puts on its directory. None where that
/// cannot be had.
fn form_on(
    mounts: &RefCell<Vec<Mount>>,
    count: usize,
    mount: impl Fn(&Server) -> Option<Mount>,
) -> Option<Cluster> {
    let mut cluster = Cluster::empty();
    for node in 0..3 {
        cluster.add_prepared(&SMALL_SEGMENTS, |server| {
            if node < count {
                mounts.borrow_mut().extend(mount(server));
            }
        });
        if node < count && mounts.borrow().len() <= node {
            return None;
        }
    }
    assert_eq!(cluster.settle(), 0, "the founder leads");
    Some(cluster)
}

#[test]
fn a_leader_whose_disk_hangs_hands_over() {
    let mounts = RefCell::default();
    let on = |server: &Server| Mount::ext4(server.directory(), 128);
    let Some(mut cluster) = form_on(&mounts, 1, on) else { return };
    let mounts = mounts.borrow();
    let survivors = ports(&cluster, [1, 2].into_iter());
    let seen = append(&survivors, 2, 100, || {
        let frozen = mounts[0].freeze();
        cluster.is_asleep(0, true);
        let leader = cluster.leader();
        assert_ne!(leader, 0);
        // It goes on where others lead, and says why it does not.
        assert_eq!(cluster.client(0).say("SET while hanging"), Value::ok());
        let is_said =
            || cluster.servers[0].info("fit_to_lead").contains("its disk hangs").then_some(());
        eventually("it says why", is_said);
        let refused = cluster.client(leader).say("RAFTTRANSFER 1");
        assert!(refused.error().starts_with("ERR the node shall not lead: "), "{refused:?}");
        drop(frozen);
    });
    cluster.is_asleep(0, false);
    for one in &seen {
        let in_doubt = |error: &String| error.starts_with("ERR the outcome is not known");
        assert!(one.errors.len() <= 1 && one.errors.iter().all(in_doubt), "{:?}", one.errors);
    }
    eventually("it may lead again", || {
        (cluster.servers[0].info("fit_to_lead") == "yes").then_some(())
    });
    cluster.settle();
    check(&cluster, &seen);
}

/// Writes so many values of a MiB each, all of which must be taken.
fn fill(cluster: &Cluster, node: usize, from: usize, count: usize) -> Option<String> {
    let value = "x".repeat(1 << 20);
    let mut client = cluster.client(node);
    (from..from + count).find_map(|n| {
        let reply = client.call(&["SET", &format!("large-{n}"), &value]);
        reply.is_error().then(|| reply.error().to_string())
    })
}

#[test]
fn a_leader_whose_disk_is_full_hands_over_to_one_with_room() {
    let mounts = RefCell::default();
    let on = |server: &Server| Mount::memory(server.directory(), 96);
    let Some(cluster) = form_on(&mounts, 1, on) else { return };
    let seen = append(&ports(&cluster, cluster.up()), 1, 20, || {
        // Many at once: of the first that it cannot log more have been sent by then.
        std::thread::scope(|scope| {
            for writer in 0..16 {
                let cluster = &cluster;
                scope.spawn(move || {
                    let refused = fill(cluster, 1, 10 * writer, 10);
                    assert_eq!(refused, None, "there is room at the others");
                });
            }
        });
        eventually("another one leads", || (cluster.leader() != 0).then_some(()));
        assert_eq!(cluster.servers[0].info("fit_to_lead"), "no: its disk is full");
        // It answers none of the entries that it is sent, and serves its clients all the same.
        let mut client = cluster.client(0);
        for n in 1..=20 {
            assert_eq!(client.say("INCR served").integer(), n);
        }
    });
    assert!(seen.iter().all(|one| one.errors.is_empty()), "{seen:?}");
    mounts.borrow()[0].resize(600);
    cluster.settle();
    check(&cluster, &seen);
    eventually("it has room again", || {
        (cluster.servers[0].info("fit_to_lead") == "yes").then_some(())
    });
}

#[test]
fn without_room_anywhere_writes_are_refused_and_reads_go_on() {
    let mounts = RefCell::default();
    let on = |server: &Server| Mount::memory(server.directory(), 96);
    let Some(cluster) = form_on(&mounts, 3, on) else { return };
    let refused = fill(&cluster, 1, 0, 300).expect("that is too much");
    assert!(refused.starts_with("MISCONF"), "{refused}");
    assert_eq!(cluster.client(2).say("STRLEN large-0").integer(), 1 << 20);
    mounts.borrow().iter().for_each(|mount| mount.resize(600));
    eventually("there is room again", || fill(&cluster, 1, 0, 1).is_none().then_some(()));
    cluster.settle();
    cluster.is_level();
}

/// Sets the clock of a server that runs under libfaketime so many seconds ahead.
fn set_clock(file: &std::path::Path, offset: i64) {
    let fresh = file.with_extension("fresh");
    std::fs::write(&fresh, format!("{offset:+}")).expect("a file of our own");
    std::fs::rename(fresh, file).expect("a file of our own");
}

fn faketime() -> String {
    let roots = std::fs::read_dir("/usr/lib").expect("/usr/lib").flatten();
    let mut candidates = roots.map(|root| root.path().join("faketime/libfaketimeMT.so.1"));
    let found = candidates.find(|path| path.exists());
    let path = found.expect("libfaketime: apt-get install faketime");
    path.to_str().expect("a plain path").into()
}

#[test]
fn a_leader_whose_clock_is_set_wrong_hands_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = folder.path().join("clock");
    set_clock(&clock, 0);
    let mut cluster = Cluster::empty();
    for node in 0..3 {
        cluster.add_prepared(&[], |server| {
            let file = clock.to_str().expect("a plain path");
            let variables = [
                ("LD_PRELOAD", &*faketime()),
                ("FAKETIME_TIMESTAMP_FILE", file),
                ("FAKETIME_NO_CACHE", "1"),
                ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ];
            let variables = variables.iter().filter(|_| node == 0);
            variables.for_each(|(name, value)| server.set_variable(name, value));
        });
    }
    assert_eq!(cluster.settle(), 0, "the founder leads");
    let seen = append(&ports(&cluster, cluster.up()), 1, 50, || {
        set_clock(&clock, 3600);
        eventually("another one leads", || (cluster.leader() != 0).then_some(()));
        assert_eq!(cluster.servers[0].info("fit_to_lead"), "no: its clock is off");
        assert!(cluster.servers[0].wait_for_line("ms ahead of those of the others"));
        set_clock(&clock, 0);
        let is_fit = || (cluster.servers[0].info("fit_to_lead") == "yes").then_some(());
        eventually("its clock is right again", is_fit);
    });
    assert!(seen.iter().all(|one| one.errors.is_empty()), "{seen:?}");
    check(&cluster, &seen);
}

/// The node's line of MEMBER LIST at the one that leads, if it is listed.
fn votes(cluster: &Cluster, node: usize) -> bool {
    let port = format!(":{} ", cluster.servers[node].port());
    let list = cluster.members(cluster.leader());
    list.iter().any(|line| line.contains(&port) && line.contains("suffrage=0"))
}

#[test]
fn who_stands_by_takes_the_place_of_a_node_that_is_dead_for_long() {
    let mut cluster = Cluster::form(4, &["--replace-after", "1s"]);
    let leader = cluster.leader();
    let spare = cluster.up().find(|node| !votes(&cluster, *node)).expect("three of four vote");
    let dies = cluster.up().find(|node| ![leader, spare].contains(node)).expect("there are four");
    let seen = append(&ports(&cluster, [leader, spare].into_iter()), 1, 50, || {
        cluster.kill(dies);
        eventually("the one that stood by votes", || votes(&cluster, spare).then_some(()));
    });
    assert!(seen.iter().all(|one| one.errors.is_empty()), "{seen:?}");
    // It has what the dead one had: with it, any other one may be lost.
    check(&cluster, &seen);
    cluster.launch(dies);
    assert!(!votes(&cluster, dies), "it comes back as one that stands by");
    let other = cluster.up().find(|node| ![cluster.leader(), spare, dies].contains(node));
    cluster.kill(other.expect("a third voter"));
    assert_eq!(cluster.client(dies).say("SET still here"), Value::ok());
    assert_eq!(cluster.client(dies).say("GET still"), Value::bulk("here"));
}

#[test]
fn without_anybody_who_stands_by_a_dead_node_keeps_its_place() {
    let mut cluster = Cluster::form(3, &["--replace-after", "1s"]);
    let dies = cluster.follower();
    cluster.kill(dies);
    // Time for several times as long to pass for those who count.
    let leader = cluster.leader();
    let mut client = cluster.client(leader);
    assert_eq!(client.say("BLPOP nothing 3"), Value::NullArray);
    assert!(votes(&cluster, dies));
    cluster.launch(dies);
    cluster.settle();
    cluster.is_level();
}
