//! A disk that is full: reads and deletions go on, a start is possible, and the server recovers by
//! itself as soon as there is room, or when it can make some.
//!
//! The disk is a small tmpfs, which only a privileged user can mount. Where that is not possible
//! these tests say so and do nothing; what the engine does on a full disk is tested on a simulated
//! one too (`shards/tests/single.rs`, `shards/tests/sim`).

use crate::moves::DoneOnDrop;
use crate::support::client::encode;
use crate::support::{Chance, Client, Program, Server, Value, eventually, kill_cycles};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

const VALUE_BYTES: usize = 4000;
const PIPELINE: usize = 100;
const SHARDS: &[&str] = &["--shards", "2", "--segment-size", "8mb"];

/// A server alone on a small disk.
struct Scene {
    server: Server,
    /// After the server: it is unmounted when nobody uses it any more.
    disk: SmallDisk,
}

/// A tmpfs of limited size.
struct SmallDisk {
    path: PathBuf,
}

impl Scene {
    /// `None` where nothing can be mounted.
    fn start(megabytes: u32) -> Option<Scene> {
        let mut scene = Scene::prepare(megabytes)?;
        scene.server.launch();
        Some(scene)
    }

    /// The same before the first start.
    fn prepare(megabytes: u32) -> Option<Scene> {
        Scene::prepare_with(megabytes, SHARDS)
    }

    /// The same of a server with other arguments.
    fn prepare_with(megabytes: u32, arguments: &[&str]) -> Option<Scene> {
        let server = Server::prepare(Program::Ringraft, arguments);
        let disk = SmallDisk { path: server.directory().to_path_buf() };
        let size = format!("size={megabytes}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "ringraft-test"]).arg(&disk.path);
        match mount.stdout(Stdio::null()).stderr(Stdio::null()).status() {
            Ok(status) if status.success() => Some(Scene { server, disk }),
            result => {
                std::mem::forget(disk);
                eprintln!(
                    "NOT TESTED HERE: a tmpfs cannot be mounted (mount: {result:?}); the engine is tested on a simulated disk"
                );
                None
            }
        }
    }
}

impl SmallDisk {
    /// Takes so much room.
    fn take(&self, megabytes: usize) {
        let ballast = vec![0; megabytes << 20];
        std::fs::write(self.path.join("ballast"), ballast).expect("there is room");
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut filler = std::fs::File::create(self.path.join("filler")).expect("a name fits");
        for piece in [&[0; 1 << 16][..], &[0; 512]] {
            while filler.write_all(piece).is_ok() {}
        }
    }

    /// Gives back what was taken.
    fn make_room(&self) {
        for name in ["ballast", "filler"] {
            std::fs::remove_file(self.path.join(name)).expect("it is there");
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.path).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} could not be unmounted", self.path.display());
        }
        let _ = std::fs::remove_dir(&self.path);
    }
}

fn key(n: usize) -> String {
    format!("key:{n}")
}

fn value(n: usize, round: usize) -> String {
    let mut text = format!("{n} in round {round} ");
    text.extend(std::iter::repeat_n('x', VALUE_BYTES - text.len()));
    text
}

/// Requests that write these keys.
fn requests(keys: &[usize], round: usize) -> Vec<u8> {
    keys.iter().flat_map(|&n| encode(&["SET".to_string(), key(n), value(n, round)])).collect()
}

/// Writes these keys at once. Returns those that were refused, for a full disk.
fn write(client: &mut Client, keys: &[usize], round: usize) -> Vec<usize> {
    let replies = client.pipeline(&requests(keys, round), keys.len());
    let refused = keys.iter().zip(&replies).filter(|(_, reply)| **reply != Value::ok());
    refused
        .map(|(n, reply)| {
            let text = reply.error();
            assert!(
                text.starts_with("MISCONF cannot create ") && text.contains("No space"),
                "{text}"
            );
            *n
        })
        .collect()
}

/// Writes new keys until both shards refuse even the smallest write. Returns how many were tried.
fn write_until_full(client: &mut Client) -> usize {
    let mut next = 0;
    eventually("both shards are full", || {
        let keys: Vec<usize> = (next..next + PIPELINE).collect();
        next += PIPELINE;
        (write(client, &keys, 0).len() == PIPELINE).then_some(())
    });
    let mut refused = 0;
    for small in 0.. {
        let reply = client.call(&["SET".to_string(), format!("small:{small}"), String::new()]);
        refused = if reply.is_error() { refused + 1 } else { 0 };
        // So many in a row are for both shards.
        if refused == 40 {
            break;
        }
    }
    next
}

fn read(client: &mut Client, n: usize) -> Option<String> {
    match client.call(&["GET".to_string(), key(n)]) {
        Value::Null => None,
        found => Some(found.text()),
    }
}

#[test]
fn a_first_start_on_a_full_disk_decides_nothing() {
    let Some(mut scene) = Scene::prepare(128) else { return };
    scene.disk.take(110);
    let refusal = scene.server.try_launch().expect_err("there is no room").to_string();
    assert!(refusal.contains("is full"), "{refusal}");
    std::fs::remove_file(scene.disk.path.join("ballast")).expect("it is there");
    scene.server.set_arguments(&["--shards", "3", "--segment-size", "8mb"]);
    scene.server.launch();
    assert_eq!(scene.server.client().say("SET a 1"), Value::ok());
}

/// Keys that are written in each of the rounds.
const KEYS_OF_ROUNDS: usize = 500;

/// Writes some keys in so many rounds, 2 MB each, all of them in the end.
fn write_rounds(server: &Server, rounds: usize) {
    let mut client = server.client();
    let mut refused_count = 0;
    for round in 0..rounds {
        for first in (0..KEYS_OF_ROUNDS).step_by(PIPELINE) {
            let mut keys: Vec<usize> = (first..first + PIPELINE).collect();
            eventually("there is room again", || {
                keys = write(&mut client, &keys, round);
                refused_count += keys.len();
                keys.is_empty().then_some(())
            });
        }
    }
    eprintln!("{refused_count} writes were refused in between");
}

/// What was written is there, and after a kill too.
fn keeps_the_last_round(scene: &mut Scene, rounds: usize) {
    assert!(scene.server.info_number("rdb_saves") > 0);
    for kill in [false, true] {
        let mut client = scene.server.client();
        for n in 0..KEYS_OF_ROUNDS {
            assert_eq!(read(&mut client, n), Some(value(n, rounds - 1)), "kill {kill}, key {n}");
        }
        scene.server.kill();
        scene.server.launch();
    }
}

#[test]
fn a_log_that_fills_its_disk_is_made_smaller_again_and_again() {
    // 160 MB through a disk of 64.
    const ROUNDS: usize = 80;
    let Some(mut scene) = Scene::start(64) else { return };
    write_rounds(&scene.server, ROUNDS);
    keeps_the_last_round(&mut scene, ROUNDS);
}

/// The same while the shards move between cores: segments, snapshots and what is given up of them
/// are the work of either.
#[test]
fn shards_move_beside_a_disk_that_fills_again_and_again() {
    const ROUNDS: usize = 80;
    let Some(mut scene) = Scene::start(64) else { return };
    let cores = scene.server.info_number("cores") as u64;
    let done = AtomicBool::new(false);
    let moved = std::thread::scope(|scope| {
        let mut client = scene.server.client();
        let done = &done;
        let mover = scope.spawn(move || {
            let mut moved = 0_u64;
            while !done.load(Ordering::Relaxed) {
                let (shard, core) = (moved % 2, moved / 2 % cores);
                let reply = client.say(&format!("DEBUG MOVE-SHARD {shard} {core}"));
                assert_eq!(reply, Value::ok(), "shard {shard} to core {core}");
                moved += 1;
            }
            moved
        });
        let _done = DoneOnDrop(done);
        write_rounds(&scene.server, ROUNDS);
        done.store(true, Ordering::Relaxed);
        mover.join().expect("the mover ends")
    });
    eprintln!("{moved} moves");
    assert!(moved > ROUNDS as u64);
    keeps_the_last_round(&mut scene, ROUNDS);
}

#[test]
fn a_kill_while_room_is_being_made_loses_nothing() {
    const KEYS: usize = 500;
    let Some(mut scene) = Scene::start(64) else { return };
    let mut chance = Chance::new("a_kill_while_room_is_being_made_loses_nothing");
    // For each key the last round that was acknowledged.
    let mut acknowledged = vec![0; KEYS];
    let mut round = 0;
    let mut client = scene.server.client();
    for cycle in 0..kill_cycles() {
        for _ in 0..chance.below(60) {
            round += 1;
            let first = chance.below((KEYS / PIPELINE) as u64) as usize * PIPELINE;
            let keys: Vec<usize> = (first..first + PIPELINE).collect();
            let refused = write(&mut client, &keys, round);
            for n in keys.into_iter().filter(|n| !refused.contains(n)) {
                acknowledged[n] = round;
            }
        }
        // What is under way may be done or not.
        round += 1;
        client.send(&requests(&(0..PIPELINE).collect::<Vec<_>>(), round));
        scene.server.kill();
        scene.server.launch();
        client = scene.server.client();
        for (n, &expected) in acknowledged.iter().enumerate() {
            let found = read(&mut client, n);
            let whole = (expected > 0).then(|| value(n, expected));
            let newest = (n < PIPELINE).then(|| value(n, round));
            assert!(found == whole || found == newest, "cycle {cycle}, key {n}: {found:.40?}");
        }
        for (n, last) in acknowledged.iter_mut().enumerate().take(PIPELINE) {
            if read(&mut client, n) == Some(value(n, round)) {
                *last = round;
            }
        }
    }
    // Nothing but a full disk makes snapshots of so little.
    let snapshots = scene.disk.path.join("shard-0/snapshots");
    assert!(std::fs::read_dir(snapshots).is_ok_and(|mut names| names.next().is_some()));
}

#[test]
fn on_a_full_disk_reads_deletions_and_starts_go_on() {
    let Some(mut scene) = Scene::start(144) else { return };
    scene.disk.take(72);
    let mut client = scene.server.client();
    let tried = write_until_full(&mut client);
    scene.disk.fill();
    let kept: Vec<usize> = (0..tried).filter(|&n| read(&mut client, n).is_some()).collect();
    assert!(kept.len() > 4000, "{} keys", kept.len());
    assert_eq!(scene.server.info("aof_last_write_status"), "err");
    let (deleted, left) = kept.split_at(20);
    for &n in deleted {
        let refused = client.call(&["APPEND".to_string(), key(n), "more".to_string()]);
        assert!(refused.error().starts_with("MISCONF "), "{refused:?}");
        let reply = client.call(&["DEL".to_string(), key(n)]);
        assert_eq!(reply, Value::Integer(1), "a deletion has room");
    }
    // Together with what grows: each is answered for itself.
    let both = format!("*2\r\n$3\r\nDEL\r\n${}\r\n{}\r\n", key(left[0]).len(), key(left[0]));
    let set = encode(&["SET".to_string(), key(left[0]), "new".to_string()]);
    let replies = client.pipeline(&[set, both.into_bytes()].concat(), 2);
    assert!(replies[0].error().starts_with("MISCONF "), "{replies:?}");
    assert_eq!(replies[1], Value::Integer(1));
    let left = &left[1..];
    for kill in [false, true, true] {
        match kill {
            true => scene.server.kill(),
            false => assert!(scene.server.terminate().0.success()),
        }
        scene.server.launch();
        client = scene.server.client();
        for &n in deleted {
            assert_eq!(read(&mut client, n), None);
        }
        for &n in left.iter().step_by(7) {
            assert_eq!(read(&mut client, n), Some(value(n, 0)));
        }
        assert_eq!(write(&mut client, &left[..PIPELINE], 1).len(), PIPELINE);
    }
    // Snapshots are tried, and what stands in their way is said.
    eventually("a snapshot fails", || {
        (scene.server.info("rdb_last_bgsave_status") == "err").then_some(())
    });
    scene.disk.make_room();
    let mut keys = left[..PIPELINE].to_vec();
    eventually("writes are taken again", || {
        keys = write(&mut client, &keys, 2);
        keys.is_empty().then_some(())
    });
    for &n in &left[..PIPELINE] {
        assert_eq!(read(&mut client, n), Some(value(n, 2)));
    }
    assert_eq!(scene.server.info("aof_last_write_status"), "ok");
    // There is room for one of them; then that shard's log is given up, and there is room for the
    // other.
    eventually("the snapshots that failed have been taken", || {
        (scene.server.info("rdb_last_bgsave_status") == "ok").then_some(())
    });
}

/// A disk that fills amid scripts: each is done whole or refused with nothing done, beside reads and
/// after a kill.
#[test]
fn scripts_that_a_full_disk_refuses_have_done_nothing() {
    const SCRIPT: &str = "local n = redis.call('incr',KEYS[1]) redis.call('set',KEYS[2],ARGV[1]) \
        redis.call('rpush',KEYS[3],n) return n";
    let arguments = ["--shards", "1", "--segment-size", "8mb", "--fsync", "everysec"];
    let Some(mut scene) = Scene::prepare_with(144, &arguments) else { return };
    scene.server.launch();
    scene.disk.take(72);
    let (mut client, mut reader) = (scene.server.client(), scene.server.client());
    let payload = "x".repeat(VALUE_BYTES);
    let (mut done, mut next, mut refused_count) = (0, 0, 0);
    scene.disk.fill();
    eventually("the disk is full", || {
        let request: Vec<u8> = (next..next + PIPELINE)
            .flat_map(|n| encode(&["EVAL", SCRIPT, "3", "count", &key(n), "list", &payload]))
            .collect();
        client.send(&request);
        reader.call(&["GET", "count"]);
        let mut refused = 0;
        for n in next..next + PIPELINE {
            match client.read() {
                Value::Integer(count) => {
                    done += 1;
                    assert_eq!(count, done, "none is lost, none is done twice");
                }
                reply => {
                    let text = reply.error();
                    assert!(text.starts_with("MISCONF cannot create "), "{text}");
                    assert_eq!(reader.call(&["EXISTS".to_string(), key(n)]), Value::Integer(0));
                    refused += 1;
                }
            }
        }
        next += PIPELINE;
        refused_count += refused;
        (refused == PIPELINE).then_some(())
    });
    assert!(refused_count >= PIPELINE && done > 100, "{refused_count} refused, {done} done");
    for kill in [false, true] {
        assert_eq!(client.call(&["GET", "count"]), Value::bulk(done.to_string()), "kill {kill}");
        assert_eq!(client.call(&["LLEN", "list"]), Value::Integer(done));
        assert_eq!(client.call(&["DBSIZE"]), Value::Integer(done + 2));
        scene.server.kill();
        scene.server.launch();
        client = scene.server.client();
    }
    scene.disk.make_room();
    eventually("scripts are taken again", || {
        let reply = client.call(&["EVAL", SCRIPT, "3", "count", "last", "list", &payload]);
        (reply == Value::Integer(done + 1)).then_some(())
    });
}
