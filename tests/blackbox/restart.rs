//! What a directory keeps: graceful restarts, snapshots with a log after them, damage that is
//! refused or repaired and never served, and directories that are in use or were made for something
//! else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::client::encode;
use crate::support::tool::run;
use crate::support::{Chance, Client, Program, Server, Value, eventually};

/// Keys that a damaged directory held.
const KEYS: usize = 2000;

/// Places damaged per file and run.
const PLACES: usize = 6;

fn write(client: &mut Client, from: usize, to: usize) {
    let bytes: Vec<u8> = (from..to)
        .flat_map(|index| encode(&["SET".into(), format!("key:{index}"), value_of(index)]))
        .collect();
    let replies = client.pipeline(&bytes, to - from);
    assert!(replies.iter().all(|reply| *reply == Value::ok()));
}

fn value_of(index: usize) -> String {
    format!("value {index} {}", "v".repeat(index % 200))
}

/// Which of the keys are there; those that are must have their values.
fn found(client: &mut Client, count: usize) -> Vec<bool> {
    let bytes: Vec<u8> =
        (0..count).flat_map(|index| encode(&["GET".into(), format!("key:{index}")])).collect();
    let replies = client.pipeline(&bytes, count);
    replies
        .iter()
        .enumerate()
        .map(|(index, reply)| match reply {
            Value::Null => false,
            reply => {
                assert_eq!(*reply, Value::bulk(value_of(index)), "key:{index} has another value");
                true
            }
        })
        .collect()
}

fn assert_all(client: &mut Client, count: usize) {
    let missing = found(client, count).iter().filter(|there| !**there).count();
    assert_eq!(missing, 0, "{missing} of {count} keys are missing");
    assert_eq!(client.say("DBSIZE"), Value::Integer(count as i64));
}

#[test]
fn a_graceful_stop_keeps_everything() {
    for arguments in [
        ["--shards", "1", "--fsync", "always"],
        ["--shards", "2", "--fsync", "everysec"],
        ["--shards", "4", "--fsync", "no"],
    ] {
        let mut server = Server::start(&arguments);
        let mut count = 0;
        for _ in 0..3 {
            write(&mut server.client(), count, count + 3000);
            count += 3000;
            server.restart();
            assert_all(&mut server.client(), count);
        }
    }
}

#[test]
fn every_kind_of_write_comes_back() {
    let mut server = Server::start(&["--shards", "2"]);
    let mut client = server.client();
    for command in [
        "SET plain value",
        "SET number 41",
        "INCR number",
        "APPEND text abc",
        "SETRANGE text 5 z",
        "SETBIT bits 100 1",
        "SET deadline x EX 1000",
        "SET gone x",
        "DEL gone",
        "SET expired x PX 1",
        "MSET a 1 b 2 c 3",
        "RENAME a renamed",
        "INCRBYFLOAT float 3.25",
        "SELECT 3",
        "SET elsewhere x",
        "SELECT 0",
    ] {
        let reply = client.say(command);
        assert!(!reply.is_error(), "{command}: {reply:?}");
    }
    eventually("expired is gone", || (client.say("DBSIZE") == Value::Integer(9)).then_some(()));
    assert_eq!(client.say("EXISTS expired"), Value::Integer(0));
    let look = |client: &mut Client| -> Vec<Value> {
        let mut values: Vec<Value> = [
            "MGET plain number text bits deadline gone expired a renamed b c float",
            "PEXPIRETIME deadline",
            "DBSIZE",
            "OBJECT ENCODING number",
        ]
        .iter()
        .map(|command| client.say(command))
        .collect();
        client.say("SELECT 3");
        values.push(client.say("GET elsewhere"));
        client.say("SELECT 0");
        values.push(client.say("DEBUG DIGEST"));
        values
    };
    let before = look(&mut client);
    server.restart();
    assert_eq!(look(&mut server.client()), before, "after a graceful restart");
    server.kill();
    server.launch();
    assert_eq!(look(&mut server.client()), before, "after kill -9");
    assert_eq!(server.client().say("SAVE"), Value::ok());
    server.kill();
    server.launch();
    assert_eq!(look(&mut server.client()), before, "after SAVE and kill -9");
}

#[test]
fn a_snapshot_and_the_log_after_it() {
    let mut server = Server::start(&["--shards", "2", "--fsync", "always"]);
    let mut client = server.client();
    write(&mut client, 0, 2000);
    assert_eq!(client.say("SAVE"), Value::ok());
    write(&mut client, 2000, 3000);
    server.kill();
    server.launch();
    let mut client = server.client();
    assert_all(&mut client, 3000);

    // A snapshot taken while writing goes on.
    let mut writer = server.client();
    let begun = client.say("BGSAVE");
    assert_eq!(begun, Value::Simple("Background saving started".into()));
    write(&mut writer, 3000, 6000);
    eventually("the snapshot is done", || {
        (server.info("rdb_bgsave_in_progress") == "0").then_some(())
    });
    assert_eq!(server.info("rdb_last_bgsave_status"), "ok");
    write(&mut writer, 6000, 7000);
    server.kill();
    server.launch();
    assert_all(&mut server.client(), 7000);
    server.restart();
    assert_all(&mut server.client(), 7000);
}

#[test]
fn reload_gives_back_the_same_data() {
    let server = Server::start(&["--shards", "2"]);
    let mut client = server.client();
    write(&mut client, 0, 3000);
    assert_eq!(client.say("SET deadline x EX 1000"), Value::ok());
    let digest = client.say("DEBUG DIGEST");
    assert_eq!(client.say("DEBUG RELOAD"), Value::ok());
    assert_eq!(client.say("DEBUG DIGEST"), digest);
    assert!(client.say("TTL deadline").integer() > 900);
    assert_eq!(client.say("DBSIZE"), Value::Integer(3001));
}

#[test]
fn a_cache_writes_nothing() {
    let mut server = Server::start(&["--shards", "2", "--mode", "cache"]);
    write(&mut server.client(), 0, 1000);
    server.restart();
    assert_eq!(server.client().say("DBSIZE"), Value::Integer(0));
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The end of what was written: preallocated files are zero behind it.
fn used_length(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1)
}

/// Flips bits in every file of a stopped server's directory, one place at a time. The server must
/// refuse to start, naming the file, or come up with right values only; where it comes up with
/// fewer keys, what is missing must be the end of what was written (a tail that looks torn), never
/// a hole.
fn damage_every_file(name: &str, mut server: Server) {
    let mut chance = Chance::new(name);
    let (status, output) = server.terminate();
    assert!(status.success(), "{output}");
    let mut refused = 0;
    let mut repaired = 0;
    let mut cut = 0;
    let pristine: Vec<(PathBuf, Vec<u8>)> = files_below(server.directory())
        .into_iter()
        .map(|path| (path.clone(), fs::read(&path).expect("readable")))
        .collect();
    for (path, bytes) in &pristine {
        let used = used_length(bytes);
        if used == 0 {
            continue;
        }
        for _ in 0..PLACES {
            let place = chance.below(used as u64) as usize;
            let bit = 1 << chance.below(8);
            let mut damaged = bytes.clone();
            damaged[place] ^= bit;
            fs::write(path, &damaged).expect("writable");
            let shown = format!("{} byte {place} bit {bit}", path.display());
            match server.try_launch() {
                Err(refusal) => {
                    refused += 1;
                    assert!(!refusal.status.success(), "{shown}: {refusal}");
                    let file = path.file_name().expect("a file").to_string_lossy();
                    assert!(refusal.output.contains(&*file), "{shown} is not named: {refusal}");
                }
                Ok(()) => {
                    let there = found(&mut server.client(), KEYS);
                    let count = there.iter().filter(|there| **there).count();
                    if count == KEYS {
                        repaired += 1;
                    } else {
                        cut += 1;
                        assert!(
                            there[..count].iter().all(|there| *there),
                            "{shown}: a hole in the data"
                        );
                        println!("{shown}: {count} of {KEYS} keys are left");
                    }
                    server.kill();
                }
            }
            restore(server.directory(), &pristine);
        }
    }
    println!(
        "{name}: {refused} refused, {repaired} harmless or repaired, {cut} taken for a torn tail"
    );
    server.launch();
    assert_all(&mut server.client(), KEYS);
}

fn restore(directory: &Path, pristine: &[(PathBuf, Vec<u8>)]) {
    for path in files_below(directory) {
        fs::remove_file(path).expect("removable");
    }
    for (path, bytes) in pristine {
        fs::create_dir_all(path.parent().expect("below the directory")).expect("a directory");
        fs::write(path, bytes).expect("writable");
    }
}

#[test]
fn a_damaged_log_is_refused_or_repaired() {
    let server = Server::start(&["--shards", "1", "--fsync", "always"]);
    let mut client = server.client();
    for from in (0..KEYS).step_by(20) {
        write(&mut client, from, from + 20);
    }
    damage_every_file("a_damaged_log_is_refused_or_repaired", server);
}

#[test]
fn a_damaged_snapshot_is_refused_or_repaired() {
    let server = Server::start(&["--shards", "1", "--fsync", "always"]);
    let mut client = server.client();
    write(&mut client, 0, KEYS - 100);
    assert_eq!(client.say("SAVE"), Value::ok());
    write(&mut client, KEYS - 100, KEYS);
    damage_every_file("a_damaged_snapshot_is_refused_or_repaired", server);
}

/// A second process with other arguments on the same directory.
fn second(server: &Server, arguments: &[&str]) -> (bool, String) {
    let command: Command = server.command();
    let program = command.get_program().to_string_lossy().into_owned();
    let directory = server.directory().to_string_lossy().into_owned();
    let outcome = run(&program, &[&["--dir", &directory], arguments].concat(), b"");
    (outcome.status.success(), outcome.text)
}

#[test]
fn a_directory_belongs_to_one_process() {
    let server = Server::start(&["--shards", "1"]);
    let port = crate::support::server::free_port().to_string();
    let (success, text) = second(&server, &["--shards", "1", "--port", &port]);
    assert!(!success, "{text}");
    assert!(text.contains("another process") || text.contains("in use"), "{text}");
    assert_eq!(server.client().say("SET a 1"), Value::ok());
}

#[test]
fn a_port_belongs_to_one_process() {
    let server = Server::start(&["--shards", "1"]);
    let elsewhere = tempfile::tempdir().expect("a directory");
    let (port, directory) =
        (server.port().to_string(), elsewhere.path().to_string_lossy().into_owned());
    let program = server.command().get_program().to_string_lossy().into_owned();
    let outcome = run(&program, &["--port", &port, "--dir", &directory], b"");
    assert!(!outcome.status.success(), "{}", outcome.text);
    assert!(outcome.text.contains(&port), "{}", outcome.text);
}

#[test]
fn the_number_of_shards_is_fixed() {
    let mut server = Server::start(&["--shards", "2"]);
    write(&mut server.client(), 0, 100);
    server.terminate();
    server.set_arguments(&["--shards", "3"]);
    let refusal = server.try_launch().expect_err("another number of shards is refused");
    assert!(!refusal.status.success(), "{refusal}");
    assert!(refusal.output.contains("shards"), "{refusal}");
    server.set_arguments(&["--shards", "2"]);
    server.launch();
    assert_all(&mut server.client(), 100);
}

#[test]
fn wrong_options_end_with_one_line_and_code_2() {
    for arguments in [&["--no-such-option", "1"][..], &["--shards", "0"], &["--fsync", "sometimes"]]
    {
        let mut server = Server::prepare(Program::Ringraft, arguments);
        let refusal = server.try_launch().expect_err("refused");
        assert_eq!(refusal.status.code(), Some(2), "{arguments:?}: {refusal}");
        assert_eq!(refusal.output.trim().lines().count(), 1, "{arguments:?}: {refusal}");
    }
}
