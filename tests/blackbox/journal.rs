//! The journal of a core: what it makes durable for several shards is there after kill -9, and
//! damage to it is refused.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::support::client::encode;
use crate::support::{Server, Value, eventually};

const SHARDS: [&str; 6] = ["--shards", "8", "--fsync", "always", "--segment-size", "8mb"];

/// Keys of one pipeline: they are in all shards.
const KEYS: usize = 200;

fn journals(server: &Server) -> Vec<PathBuf> {
    let Ok(files) = fs::read_dir(server.directory().join("journal")) else { return Vec::new() };
    let mut files: Vec<_> = files.map(|file| file.expect("readable").path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "journal"));
    files.sort();
    files
}

/// Sets all keys to the number of a round, in one pipeline.
fn set_all(server: &Server, round: usize) {
    let request =
        |key| encode(&["SET".to_string(), format!("key:{key}"), format!("{round}:{key}")]);
    let bytes: Vec<u8> = (0..KEYS).flat_map(request).collect();
    let replies = server.client().pipeline(&bytes, KEYS);
    assert!(replies.iter().all(|reply| *reply == Value::ok()), "{replies:?}");
}

fn check_all(server: &Server, round: usize) {
    let mut client = server.client();
    for key in 0..KEYS {
        let found = client.call(&["GET", &format!("key:{key}")]);
        assert_eq!(found, Value::bulk(format!("{round}:{key}")), "round {round}");
    }
}

/// Has the journal hold frames: the first turn with several writes has its files made.
fn fill(server: &Server) -> usize {
    let mut round = 0;
    let holds_frame = |file: &PathBuf| {
        let mut frame = [0; 64];
        let file = fs::File::open(file).expect("there");
        file.read_exact_at(&mut frame, 4096).expect("longer than that");
        frame != [0; 64]
    };
    eventually("a journal holds a frame", || {
        round += 1;
        set_all(server, round);
        journals(server).iter().any(holds_frame).then_some(())
    });
    round
}

#[test]
fn what_a_journal_made_durable_survives_kill_after_kill() {
    let mut server = Server::start(&SHARDS);
    for _ in 0..3 {
        let round = fill(&server);
        check_all(&server, round);
        server.kill();
        assert!(!journals(&server).is_empty());
        server.launch();
        check_all(&server, round);
    }
}

#[test]
fn a_damaged_journal_is_refused_and_nothing_is_changed() {
    let mut server = Server::start(&SHARDS);
    let round = fill(&server);
    server.kill();
    let file = journals(&server).remove(0);
    let flip = |offset: u64| {
        let file = fs::File::options().read(true).write(true).open(&file).expect("there");
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).expect("longer than that");
        file.write_all_at(&[byte[0] ^ 1], offset).expect("writable");
    };
    for (offset, says) in [(0, "is not a journal"), (16, "is damaged at offset 0"), (8, "format 0")]
    {
        flip(offset);
        let refusal = server.try_launch().expect_err("a damaged journal");
        let name = file.file_name().expect("a file").to_string_lossy();
        assert!(refusal.output.contains(&*name), "{}", refusal.output);
        assert!(refusal.output.contains(says), "{says}: {}", refusal.output);
        flip(offset);
    }
    server.launch();
    check_all(&server, round);
}

/// What a core's journal stands for must be in the segments when the shard leaves, and when the
/// mode of syncs changes.
#[test]
fn shards_that_move_and_modes_that_change_lose_nothing() {
    let arguments = [&SHARDS[..], &["--cores-in-use", "all"]].concat();
    let mut server = Server::start(&arguments);
    let mut round = fill(&server);
    for life in 0..3 {
        let mut client = server.client();
        for core in ["0", "1", "0"] {
            for shard in 0..8 {
                let moved = client.call(&["DEBUG", "MOVE-SHARD", &shard.to_string(), core]);
                assert_eq!(moved, Value::ok());
                round += 1;
                set_all(&server, round);
            }
            // Small numbers of writes, which lie in runs that have not been written.
            round += 1;
            set_all(&server, round);
        }
        if life > 0 {
            assert_eq!(client.call(&["CONFIG", "SET", "fsync", "everysec"]), Value::ok());
            round += 1;
            set_all(&server, round);
        }
        if life > 1 {
            assert_eq!(client.call(&["CONFIG", "SET", "fsync", "always"]), Value::ok());
            round += 1;
            set_all(&server, round);
        }
        server.kill();
        server.launch();
        check_all(&server, round);
    }
}

/// The files of the journal are filled and emptied many times over, by turns that write more than
/// one frame takes.
#[test]
fn a_journal_that_is_full_again_and_again_loses_nothing() {
    let mut server = Server::start(&SHARDS);
    fill(&server);
    let value = |round: usize, key: usize| format!("{round}:{key}:{}", "x".repeat(30_000));
    for life in 0..2 {
        let mut client = server.client();
        let last = 12 * (life + 1);
        for round in 12 * life..=last {
            let request =
                |key| encode(&["SET".to_string(), format!("key:{key}"), value(round, key)]);
            let bytes: Vec<u8> = (0..KEYS).flat_map(request).collect();
            let replies = client.pipeline(&bytes, KEYS);
            assert!(replies.iter().all(|reply| *reply == Value::ok()), "{replies:?}");
        }
        server.kill();
        server.launch();
        let mut client = server.client();
        for key in 0..KEYS {
            let found = client.call(&["GET", &format!("key:{key}")]);
            assert!(found == Value::bulk(value(last, key)), "key {key} in life {life}");
        }
    }
}

#[test]
fn one_shard_has_no_journal() {
    let server = Server::start(&["--shards", "1", "--fsync", "always", "--segment-size", "8mb"]);
    for round in 0..20 {
        set_all(&server, round);
    }
    assert!(journals(&server).is_empty());
}
