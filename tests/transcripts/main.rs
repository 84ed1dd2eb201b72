//! Transcripts: requests and the replies they must get, one file per command.
//!
//! The files run in process, in virtual time, against one keyspace; `UPDATE=1 cargo test
//! transcripts` writes what was answered into them, to be reviewed as a diff. The same files run
//! against a real redis-server when one is installed, so that the transcripts stay true to Redis;
//! where it answers otherwise on purpose, a `@differs` line beside the request says why.
//! `UPDATE=redis` writes the real server's replies instead.
//!
//! A file, `tests/transcripts/get.txt` say, reads like a session of redis-cli:
//!
//! ```text
//! # Text after a mark is a comment.
//! > SET key "a value\x00" PX 1500
//! +OK
//! @advance 1501ms
//! > GET key
//! $-1
//! ```
//!
//! | line | meaning |
//! |---|---|
//! | `> WORDS` | a request, quoted as in redis-cli; the lines up to the next mark or empty line are its reply |
//! | `@advance 1500ms` | time goes on |
//! | `@db 1` | what follows runs in this database |
//! | `@resp3`, `@resp2` | what follows speaks this protocol (RESP2 at the start) |
//! | `@since 7.4` | the file is compared with a redis-server of this version or later only (`REDIS_SERVER` names one) |
//! | `@differs REASON` | the next request gets another reply from the redis-server of the comparison |
//! | `@now+1500ms`, `@now-2s` as a word of a request | that point in time, as digits in this unit |
//! | `@x*100` as a word of a request | `x` a hundred times |
//!
//! A reply has one line per RESP value with RESP's own mark; only bulk strings are shown quoted,
//! without their length, and what belongs to an aggregate is indented by two spaces. Every file
//! starts with an empty keyspace.

mod random;
mod random_streams;
mod redis;
mod reply;
mod script;
mod server;

use ringraft::core::commands::table;
use script::Script;
use server::{InProcess, Server};
use std::fs;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts")
}

/// Names of all transcript files, without `.txt`, in order.
fn names() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder())
        .expect("the folder is part of the repository")
        .filter_map(|entry| {
            let name = entry.expect("a readable folder").file_name();
            Some(name.to_str()?.strip_suffix(".txt")?.to_owned())
        })
        .collect();
    names.sort();
    names
}

/// Runs every file; returns where expected and real replies differ, one text per request.
fn run_all(update: bool, mut server_for: impl FnMut() -> Box<dyn Server>) -> Vec<String> {
    let mut differences = Vec::new();
    for name in names() {
        let path = folder().join(format!("{name}.txt"));
        let text = fs::read_to_string(&path).expect("a readable transcript");
        let mut script = Script::parse(&name, &text);
        let mut server = server_for();
        if server.version().is_some_and(|version| !script.fits(version)) {
            continue;
        }
        differences.extend(script.run(&mut *server));
        if update {
            fs::write(&path, script.to_string()).expect("a writable transcript");
        }
    }
    differences
}

fn updating(with: &str) -> bool {
    std::env::var("UPDATE").is_ok_and(|value| value == with)
}

#[test]
fn transcripts_hold() {
    if updating("redis") {
        return;
    }
    let update = updating("1");
    let differences = run_all(update, || Box::new(InProcess::new()));
    assert!(update || differences.is_empty(), "\n{}", differences.join("\n"));
}

#[test]
fn transcripts_agree_with_redis() {
    if updating("1") {
        return;
    }
    let Some(redis) = redis::RedisServer::start() else {
        eprintln!("redis-server is not installed: transcripts are not compared with it");
        return;
    };
    let update = updating("redis");
    let differences = run_all(update, || Box::new(redis.connect()));
    assert!(update || differences.is_empty(), "\n{}", differences.join("\n"));
}

#[test]
fn transcripts_cover_the_table() {
    let names = names();
    let top = table::rows().iter().filter(|row| row.parent.is_empty());
    for row in top.filter(|row| server::runs_in_process(row)) {
        assert!(names.iter().any(|name| name == row.name), "no tests/transcripts/{}.txt", row.name);
    }
    for name in &names {
        assert!(table::find(name.as_bytes()).is_some(), "tests/transcripts/{name}.txt has no row");
    }
}

#[test]
fn transcripts_rows_agree_with_redis() {
    let Some(redis) = redis::RedisServer::start() else {
        eprintln!("redis-server is not installed: rows are not compared with it");
        return;
    };
    let differences = redis::compare_rows(&mut redis.connect());
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
}
