//! A `redis.conf` starts both programs, and means the same to both.

use crate::support::{Program, Server, Value};

const FILE: &str = "\
# A cache.
bind 127.0.0.1 -::1
protected-mode yes
timeout 7
tcp-keepalive 60
databases 16
loglevel notice
logfile \"\"
daemonize no
hz 20
save \"\"
appendonly no
appendfsync everysec
maxmemory 100mb
maxmemory-policy allkeys-lfu
client-output-buffer-limit normal 1mb 512kb 10
hash-max-listpack-entries 64
slowlog-log-slower-than 5000
";

#[test]
fn a_file_of_redis_means_the_same_here() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("redis.conf");
    std::fs::write(&path, FILE).expect("writable");
    let path = path.to_str().expect("text");
    let server = Server::start(&[path]);
    let mut ours = server.client();
    let redis = Server::start_redis(&[]);
    let mut theirs = redis.client();
    for line in FILE.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        // The same said to a Redis that runs; what it cannot be told then is so already.
        if words[0] != "client-output-buffer-limit" {
            let value = words[1..].join(" ").replace('"', "");
            theirs.call(&["CONFIG", "SET", words[0], &value]);
        }
    }
    let limit = ["CONFIG", "SET", "client-output-buffer-limit", "normal 1mb 512kb 10"];
    assert_eq!(theirs.call(&limit), Value::ok());
    for name in [
        "protected-mode",
        "timeout",
        "tcp-keepalive",
        "databases",
        "save",
        "appendonly",
        "maxmemory",
        "maxmemory-policy",
        "client-output-buffer-limit",
        "slowlog-log-slower-than",
    ] {
        let get = ["CONFIG", "GET", name];
        assert_eq!(ours.call(&get), theirs.call(&get), "{name}");
    }
    assert_eq!(
        ours.say("CONFIG GET mode"),
        Value::Array(vec!["mode", "cache"].into_iter().map(Value::bulk).collect())
    );
    let refusal =
        "ERR Rewriting config file: it is in Redis' format, which is read and not written";
    assert_eq!(ours.say("CONFIG REWRITE"), Value::Error(refusal.into()));
    assert_eq!(std::fs::read_to_string(path).expect("still there"), FILE);
    std::fs::write(path, format!("{FILE}replicaof 127.0.0.1 6379\n")).expect("writable");
    let refused = Server::prepare(Program::Ringraft, &["--config", path]).try_launch();
    let output = refused.expect_err("a replica").output;
    let expected =
        format!("{path}, line 19: replicaof: ringraft does not replicate by Redis' protocol");
    assert!(output.contains(&expected), "{output}");
}

/// The file that redis-server's package brings, where it is installed, needs no change but for what
/// it says about running in the background.
#[test]
fn the_file_of_a_package_is_understood() {
    let Ok(text) = std::fs::read_to_string("/etc/redis/redis.conf") else {
        return eprintln!("NOT TESTED HERE: there is no /etc/redis/redis.conf");
    };
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("redis.conf");
    let background = ["daemonize yes", "pidfile ", "logfile ", "supervised "];
    let kept = text.lines().filter(|line| !background.iter().any(|start| line.starts_with(start)));
    let kept: Vec<&str> = kept.collect();
    std::fs::write(&path, kept.join("\n")).expect("writable");
    let server = Server::start(&[path.to_str().expect("text")]);
    assert_eq!(server.client().say("SET a 1"), Value::ok());
}
