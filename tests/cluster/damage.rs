//! Replicas whose files are damaged, gone, or old: they come anew from the others, and their node
//! serves meanwhile.

use crate::cluster::Cluster;
use crate::load::{append, check, ports};
use crate::support::{Program, Server, Value, client::encode, eventually};
use std::fs;
use std::path::{Path, PathBuf};

const META: &str = "shard-65535";

/// Without a journal, which would mend what is damaged before anybody sees it.
const NO_JOURNAL: [&str; 2] = ["--fsync", "everysec"];

/// Enough of it for several records in each shard's log.
fn fill(cluster: &Cluster) {
    let mut client = cluster.client(cluster.leader());
    for round in 0..40 {
        let mut bytes = Vec::new();
        for n in 0..50 {
            let key = format!("key-{round}-{n}");
            bytes.extend_from_slice(&encode(&["SET", &key, &"v".repeat(200)]));
        }
        assert!(client.pipeline(&bytes, 50).iter().all(|reply| *reply == Value::ok()));
    }
}

fn log_of(server: &Server, shard: &str) -> PathBuf {
    let log = server.directory().join(shard).join("log");
    let files = fs::read_dir(&log).expect("a log").map(|entry| entry.expect("readable").path());
    let mut files: Vec<PathBuf> = files.filter(|path| path.is_file()).collect();
    files.sort();
    files.into_iter().next().expect("a segment")
}

/// Changes a byte in the middle of a log, with good records behind them.
fn damage(server: &Server, shard: &str) {
    let file = log_of(server, shard);
    let mut bytes = fs::read(&file).expect("readable");
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("something is written");
    // What lies between two records is not looked at, and is zero.
    let at = (used / 3..used).find(|at| bytes[*at] != 0).expect("something is written");
    bytes[at] ^= 0x55;
    fs::write(&file, bytes).expect("ours");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("ours");
    for entry in fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("known").is_dir() {
            true => copy(&entry.path(), &target),
            false => {
                fs::copy(entry.path(), target).expect("ours");
            }
        }
    }
}

fn set_aside(server: &Server, shard: &str) -> usize {
    let prefix = format!("{shard}.damaged-");
    let names = fs::read_dir(server.directory()).expect("readable");
    let names = names.map(|entry| entry.expect("readable").file_name());
    names.filter(|name| name.to_string_lossy().starts_with(&prefix)).count()
}

/// A follower is killed, something is done to its files, and it starts again, under load. It must
/// come to be like the others, and the whole cluster must survive the loss of another node then.
fn check_healing(shards: &[&str], harm: impl FnOnce(&mut Server)) {
    let mut cluster = Cluster::form(3, &NO_JOURNAL);
    fill(&cluster);
    let hurt = cluster.follower();
    let others: Vec<usize> = cluster.up().filter(|node| *node != hurt).collect();
    let seen = append(&ports(&cluster, others.iter().copied()), 1, 50, || {
        cluster.kill(hurt);
        harm(&mut cluster.servers[hurt]);
        cluster.launch(hurt);
        eventually("what was damaged is set aside", || {
            let server = &cluster.servers[hurt];
            shards.iter().all(|shard| set_aside(server, shard) == 1).then_some(())
        });
        cluster.settle();
    });
    assert!(seen.iter().all(|one| one.errors.is_empty()), "{seen:?}");
    check(&cluster, &seen);
    // Its new replicas vote: another node may be lost, and they are there after another start.
    cluster.terminate(hurt);
    cluster.servers[hurt].set_arguments(&[]);
    cluster.launch(hurt);
    cluster.settle();
    let other = others.into_iter().find(|node| *node != cluster.leader()).expect("one follows");
    cluster.kill(other);
    assert_eq!(cluster.client(hurt).say("SET last word"), Value::ok());
    cluster.is_level();
    assert!(shards.iter().all(|shard| set_aside(&cluster.servers[hurt], shard) == 1));
}

#[test]
fn a_damaged_log_is_set_aside_and_the_shard_comes_anew() {
    check_healing(&["shard-0"], |server| damage(server, "shard-0"));
}

#[test]
fn the_meta_group_of_a_node_heals_too() {
    check_healing(&[META], |server| damage(server, META));
}

#[test]
fn a_shard_whose_folder_is_gone_comes_anew() {
    check_healing(&[], |server| {
        fs::remove_dir_all(server.directory().join("shard-1")).expect("ours");
    });
}

#[test]
fn a_node_gives_up_all_that_it_has_when_it_is_asked_to() {
    check_healing(&["shard-0", "shard-1", META], |server| {
        server.set_arguments(&["--rejoin", "yes"])
    });
}

#[test]
fn an_old_copy_of_a_shard_is_noticed_and_set_aside() {
    let mut cluster = Cluster::form(3, &[]);
    fill(&cluster);
    let hurt = cluster.follower();
    cluster.kill(hurt);
    let shard = cluster.servers[hurt].directory().join("shard-0");
    let old = shard.with_file_name("old");
    copy(&shard, &old);
    cluster.launch(hurt);
    cluster.settle();
    fill(&cluster);
    cluster.is_level();
    cluster.kill(hurt);
    fs::remove_dir_all(&shard).expect("ours");
    fs::rename(&old, &shard).expect("ours");
    cluster.launch(hurt);
    eventually("it is set aside", || {
        (set_aside(&cluster.servers[hurt], "shard-0") == 1).then_some(())
    });
    cluster.settle();
    cluster.is_level();
}

#[test]
fn without_a_majority_of_others_nothing_is_set_aside() {
    for count in [1, 2] {
        // One shard needs no journal either, and here nothing that is damaged may be taken for
        // torn.
        let mut cluster = Cluster::empty();
        cluster.add(&["--shards", "1"]);
        for _ in 1..count {
            cluster.add(&[]);
        }
        cluster.settle();
        fill(&cluster);
        let hurt = count - 1;
        cluster.kill(hurt);
        damage(&cluster.servers[hurt], "shard-0");
        let refusal = cluster.servers[hurt].try_launch().expect_err("it is damaged");
        assert!(refusal.output.contains("damaged"), "{refusal}");
        assert_eq!(set_aside(&cluster.servers[hurt], "shard-0"), 0);
    }
    let mut alone = Server::prepare(Program::Ringraft, &["--rejoin", "yes"]);
    let refusal = alone.try_launch().expect_err("nobody else has its data");
    assert!(refusal.output.contains("--rejoin gives this node's data up"), "{refusal}");
}
