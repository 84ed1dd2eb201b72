//! Servers in containers: filters of system calls that forbid what they need, and the profile that
//! does not.

use crate::support::seccomp::Filter;
use crate::support::tool::redis_cli;
use crate::support::{Program, Server, Value, eventually};
use std::path::Path;
use std::process::Command;

const PROFILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/seccomp.json");

const CALLS: [&str; 3] = ["io_uring_setup", "io_uring_enter", "io_uring_register"];

#[test]
fn a_filter_that_forbids_a_ring_is_told_of() {
    for (calls, errno) in [
        (&CALLS[..], libc::EPERM),
        (&CALLS[..], libc::ENOSYS),
        (&CALLS[..1], libc::EPERM),
        (&CALLS[1..2], libc::EPERM),
        (&CALLS[2..], libc::EPERM),
        (&CALLS[2..], libc::EACCES),
    ] {
        let mut server = Server::prepare(Program::Ringraft, &["--mode", "cache"]);
        server.set_filter(Filter::without(calls, errno));
        let refusal = server.try_launch().expect_err("it cannot have a ring");
        assert_eq!(refusal.status.code(), Some(1), "{}", refusal.output);
        assert!(refusal.output.contains("by a seccomp filter ("), "{calls:?}: {}", refusal.output);
        for word in CALLS.iter().chain(&["packaging/seccomp.json"]) {
            assert!(refusal.output.contains(word), "{word}: {}", refusal.output);
        }
    }
}

#[test]
fn the_profile_lets_a_server_live() {
    let (filter, unknown) = Filter::of_profile(Path::new(PROFILE));
    assert!(unknown.is_empty(), "not known to this machine's headers: {unknown:?}");
    let mut server = Server::prepare(Program::Ringraft, &[]);
    let unix = server.directory().join("ring.sock").to_string_lossy().into_owned();
    server.set_arguments(&["--shards", "2", "--unixsocket", &unix, "--bind", "127.0.0.1 -::1"]);
    server.set_filter(filter.clone());
    server.launch();
    let mut client = server.client();
    assert_eq!(client.say("MSET a 1 b 2 c 3"), Value::ok());
    let load = ["-t", "set,get,lpush", "-P", "16", "-n", "20000", "-r", "5000", "-q", "-p"];
    let port = server.port().to_string();
    let load = crate::support::tool::run("redis-benchmark", &[&load[..], &[&port]].concat(), b"");
    assert!(load.status.success() && !load.text.contains("rror"), "{}", load.text);
    assert_eq!(client.say("EVAL return(redis.call('get',KEYS[1])) 1 a"), Value::bulk("1"));
    assert_eq!(client.say("CONFIG SET fsync everysec maxclients 12000"), Value::ok());
    assert!(!client.say("BGSAVE").is_error());
    eventually("the snapshot is taken", || {
        (server.info_number("rdb_bgsave_in_progress") == 0).then_some(())
    });
    assert_eq!(client.say("DEBUG SLEEP 0"), Value::ok());
    assert!(client.say("MEMORY PURGE") == Value::ok());
    assert_eq!(redis_cli(server.port(), &["GET", "c"], b""), "3\n");
    server.restart();
    assert_eq!(server.client().say("MGET a b c").elements().len(), 3);
    assert_eq!(server.client().say("GET b"), Value::bulk("2"));
    let (status, output) = server.terminate();
    assert!(status.success(), "{output}");
    assert!(!output.contains("not permitted"), "{output}");
    // And what it is there for: no new namespaces, no mounts.
    for words in [&["unshare", "--user", "true"][..], &["mount", "-t", "tmpfs", "x", "/tmp"]] {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        filter.confine(&mut command);
        let outcome = command.output().expect("util-linux");
        assert!(!outcome.status.success(), "{words:?}");
    }
}
