//! The tools around clusters: a cluster of processes in one command, its state in words, members,
//! and kvsctl.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::server::{binary, free_port};
use crate::support::{Client, Server, Value, eventually};

/// How a tool ended.
struct Outcome {
    code: i32,
    out: String,
    error: String,
}

/// Runs this program as a tool, under a name, to its end.
fn run_as(name: &str, arguments: &[&str]) -> Outcome {
    let mut command = Command::new(binary());
    command.arg0(name).args(arguments).env_remove("REDISCLI_AUTH").stdin(Stdio::null());
    let output = command.output().expect("the program starts");
    Outcome {
        code: output.status.code().expect("it ends by itself"),
        out: String::from_utf8(output.stdout).expect("text"),
        error: String::from_utf8(output.stderr).expect("text"),
    }
}

fn run(arguments: &[&str]) -> Outcome {
    run_as("ringraft", arguments)
}

/// A cluster made by the tool. Dropping it ends its processes, by the tool, which looks at what it
/// ends.
struct DevCluster {
    directory: TempDir,
    port: u16,
    nodes: u16,
}

impl DevCluster {
    /// A place for one, and as many free ports in a row.
    fn prepare(nodes: u16) -> DevCluster {
        let directory = tempfile::tempdir().expect("a scratch directory");
        let port = eventually("there are free ports in a row", || {
            let ports: Vec<u16> = (0..nodes).map(|_| free_port()).collect();
            ports.windows(2).all(|pair| pair[1] == pair[0] + 1).then_some(ports[0])
        });
        DevCluster { directory, port, nodes }
    }

    fn run(&self, act: &str, arguments: &[&str]) -> Outcome {
        let directory = self.directory.path().to_str().expect("text");
        run(&[&["dev-cluster", act, "--dir", directory], arguments].concat())
    }

    /// Starts it; it must become whole.
    fn start(&self, arguments: &[&str]) -> Outcome {
        let (port, nodes) = (self.port.to_string(), self.nodes.to_string());
        let numbers = ["--port", &port, "--nodes", &nodes];
        let outcome = self.run("start", &[&numbers[..], arguments].concat());
        assert_eq!(outcome.code, 0, "{}", outcome.error);
        outcome
    }

    fn address(&self, node: u16) -> String {
        format!("127.0.0.1:{}", self.port + node - 1)
    }

    fn pid(&self, node: u16) -> u32 {
        let file = self.directory.path().join(format!("node-{node}/pid"));
        let text = std::fs::read_to_string(file).expect("a pid");
        text.trim().parse().expect("a number")
    }

    /// Kills a node; the process is gone.
    fn kill(&self, node: u16) {
        let pid = self.pid(node);
        let outcome = self.run("kill", &[&node.to_string()]);
        let line = format!("ringraft: node {node} (process {pid}) is killed\n");
        assert_eq!((outcome.code, outcome.error), (0, line));
        assert!(!runs(pid));
    }
}

impl Drop for DevCluster {
    fn drop(&mut self) {
        for node in 1..=self.nodes {
            self.run("kill", &[&node.to_string()]);
        }
    }
}

/// Is there a process with this number that is not only waited for?
fn runs(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

/// The cluster's state as the node at an address sees it, once the tool's exit code is this one and
/// its text has this.
fn status(address: &str, code: i32, text: &str) -> String {
    eventually(&format!("cluster status says '{text}'"), || {
        let outcome = run(&["cluster", "status", "-a", address]);
        (outcome.code == code && outcome.out.contains(text)).then_some(outcome.out)
    })
}

/// Three processes, one command: they are found, killed, started again and ended, and data stays.
#[test]
fn a_cluster_in_one_command() {
    let cluster = DevCluster::prepare(3);
    let addresses: Vec<String> = (1..=3).map(|node| cluster.address(node)).collect();
    let lines = addresses.join("\n") + "\n";
    let outcome = cluster.start(&["--", "--fsync", "no"]);
    assert_eq!(outcome.out, lines);
    let listed = run(&["member", "list", "-a", &addresses[2]]);
    assert_eq!(listed.code, 0, "{}", listed.error);
    for (place, line) in listed.out.lines().enumerate() {
        let begin = format!("id={} address={} suffrage=0 isLeader=", place + 1, addresses[place]);
        assert!(line.starts_with(&begin), "{}", listed.out);
    }
    assert_eq!(listed.out.matches("isLeader=true").count(), 1, "{}", listed.out);
    let screen = status(&addresses[1], 0, "all is well");
    let head = format!("a cluster of 3 nodes as node 2 at {} sees it\n", addresses[1]);
    assert!(screen.starts_with(&head), "{screen}");
    let options = Client::connect(cluster.port + 2).call(&["CONFIG", "GET", "fsync"]);
    assert_eq!(options.elements()[1], Value::bulk("no"));

    // What one node takes another one has, by both names of the tool.
    let set = run(&["ctl", "SET", "key", "a value", "-a", &addresses[2]]);
    assert_eq!((set.code, set.out.as_str()), (0, "OK\n"), "{}", set.error);
    let get = run_as("kvsctl", &["GET", "key", "-a", &addresses[1]]);
    assert_eq!((get.code, get.out.as_str()), (0, "a value\n"), "{}", get.error);

    // Once more changes nothing.
    let pids: Vec<u32> = (1..=3).map(|node| cluster.pid(node)).collect();
    let again = cluster.run("start", &[]);
    assert_eq!((again.code, again.out.as_str()), (0, lines.as_str()), "{}", again.error);
    assert!(again.error.contains("all of them ran already"), "{}", again.error);
    assert_eq!((1..=3).map(|node| cluster.pid(node)).collect::<Vec<_>>(), pids);

    // One is killed: both tools say so, and what to do. A start brings it back.
    cluster.kill(2);
    let down = format!("wrong: node 2 at {} is down: start it with the directory", addresses[1]);
    let screen = status(&addresses[0], 1, &down);
    assert!(screen.contains("wrong: until then the cluster stops if one more fails"), "{screen}");
    let table = cluster.run("status", &[]);
    assert_eq!(table.code, 1);
    let row = format!("2 {} - down -", addresses[1]);
    assert!(table.out.lines().any(|line| squeezed(line) == row), "{}", table.out);
    assert!(
        table.out.contains("wrong: down: 1: ringraft dev-cluster start --dir "),
        "{}",
        table.out
    );
    cluster.start(&[]);
    assert_ne!(cluster.pid(2), pids[1]);
    assert_eq!(cluster.pid(1), pids[0]);
    status(&addresses[1], 0, "all is well");

    // All end in order, and come back with what they had.
    let pids: Vec<u32> = (1..=3).map(|node| cluster.pid(node)).collect();
    let stopped = cluster.run("stop", &[]);
    assert_eq!(stopped.code, 0, "{}", stopped.error);
    assert!(pids.iter().all(|pid| !runs(*pid)));
    assert_eq!(cluster.run("status", &[]).code, 1);
    assert!(cluster.run("stop", &[]).error.contains("no node ran"));
    cluster.start(&[]);
    let get = run(&["ctl", "GET", "key", "-a", &addresses[0]]);
    assert_eq!(get.out, "a value\n");
}

fn squeezed(line: &str) -> String {
    line.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

/// Of three nodes two are gone: the third says how many there are, how many are needed, and which
/// to start.
#[test]
fn a_cluster_without_a_majority() {
    let cluster = DevCluster::prepare(3);
    cluster.start(&["--", "--requirepass", "secret"]);
    let first = cluster.address(1);
    let refused = run(&["cluster", "status", "-a", &first]);
    assert_eq!(refused.code, 1);
    assert!(refused.error.contains("NOAUTH"), "{}", refused.error);
    assert!(refused.error.contains("--pass PASSWORD, or REDISCLI_AUTH"), "{}", refused.error);
    cluster.kill(2);
    cluster.kill(3);
    let wanted = format!(
        "wrong: no leader: 1 of 3 nodes reached, and a majority is 2: nothing is written until there is one more: \
         start node 2 at {} or node 3 at {}\n",
        cluster.address(2),
        cluster.address(3)
    );
    eventually("the node knows that it is alone", || {
        let outcome = run(&["cluster", "status", "-a", &first, "--pass", "secret"]);
        (outcome.code == 1 && outcome.out.contains(&wanted)).then_some(())
    });
    let removed = run(&["member", "remove", "3", "-a", &first, "--pass", "secret"]);
    assert_eq!((removed.code, removed.out.as_str()), (1, ""));
    let line = format!("leader not known: ringraft cluster status -a {first} says what is wrong");
    assert!(removed.error.contains(&line), "{}", removed.error);
    cluster.start(&[]);
    let outcome = run(&["cluster", "status", "-a", &first, "--pass", "secret"]);
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.error);
}

/// Two nodes are told to become three; one is seen off.
#[test]
fn members_come_and_go() {
    let mut cluster = DevCluster::prepare(3);
    cluster.nodes = 2;
    cluster.start(&[]);
    let first = cluster.address(1);
    let screen = status(&first, 1, "wrong: two voters only");
    assert!(screen.contains(&format!("--join {first}")), "{screen}");
    cluster.nodes = 3;
    cluster.start(&[]);
    status(&first, 0, "all is well");
    let add = run(&["member", "add", "127.0.0.1:1", "-a", &first]);
    assert_eq!((add.code, add.out.as_str()), (1, ""));
    let line = format!(
        "ringraft: a node joins by itself: start it with an empty directory and --join {first}\n"
    );
    assert_eq!(add.error, line);
    let unknown = run(&["member", "remove", "9", "-a", &first]);
    assert_eq!(unknown.code, 1);
    assert!(unknown.error.contains("no node has the number or address 9"), "{}", unknown.error);
    let removed = run(&["member", "remove", "3", "-a", &first]);
    assert_eq!((removed.code, removed.out.as_str()), (0, "OK\n"), "{}", removed.error);
    eventually("node 3 is no member", || {
        let listed = run(&["member", "list", "-a", &first]).out;
        (!listed.contains("id=3 ")).then_some(())
    });
    status(&first, 1, "wrong: two voters only");
    eventually("its process ends", || (!runs(cluster.pid(3))).then_some(()));
}

/// More nodes than replicas: one that has no replica of a shard is not behind by all of that shard.
#[test]
fn a_node_without_a_replica_is_not_behind() {
    let cluster = DevCluster::prepare(4);
    cluster.start(&["--", "--shards", "2", "--fsync", "no"]);
    let mut client = Client::connect(cluster.port);
    for key in 0..20 {
        assert_eq!(client.say(&format!("SET key{key} x")), Value::ok());
    }
    let is_level = |line: &str| line.ends_with(" up 0") || line.contains(" leader up -");
    eventually("all are level", || {
        let screen = run(&["cluster", "status", "-a", &cluster.address(4)]).out;
        let rows = screen.lines().map(squeezed).filter(|line| line.contains("127.0.0.1:"));
        let rows: Vec<String> = rows.filter(|line| line.contains(" up ")).collect();
        (rows.len() == 4 && rows.iter().all(|row| is_level(row))).then_some(())
    });
}

/// Every refusal says what is wrong, and nothing is started.
#[test]
fn what_cannot_be_started_is_said() {
    let cluster = DevCluster::prepare(1);
    for act in ["stop", "status"] {
        let outcome = cluster.run(act, &[]);
        assert_eq!(outcome.code, 1);
        assert!(
            outcome.error.contains(" makes one, --dir names another place"),
            "{}",
            outcome.error
        );
    }
    let port = cluster.port.to_string();
    let start = |arguments: &[&str]| {
        let outcome =
            cluster.run("start", &[&["--port", &port, "--nodes", "1"][..], arguments].concat());
        assert_eq!((outcome.code, outcome.out.as_str()), (1, ""), "{}", outcome.error);
        assert_eq!(outcome.error.lines().count(), 1, "{}", outcome.error);
        outcome.error
    };
    let error = start(&["--", "--prot", "1"]);
    assert!(error.contains("after --: unexpected argument '--prot' found"), "{error}");
    let error = start(&["--", "--mode", "cache"]);
    assert!(error.contains("--mode cache keeps nothing on disk"), "{error}");
    assert!(!cluster.directory.path().join("node-1").exists());
    {
        let _other = std::net::TcpListener::bind(("127.0.0.1", cluster.port)).expect("it is free");
        let error = start(&[]);
        assert!(error.contains(&format!("port {port} of node 1 is taken")), "{error}");
    }
    // It ends by itself: its last line tells why.
    let error = start(&["--", "--cluster-secret", "/nowhere/secret"]);
    assert!(
        error.contains("node 1 has ended (exit status: 1): cannot read --cluster-secret"),
        "{error}"
    );
    // A process that has got the number of a node that has ended is left alone.
    cluster.start(&["--", "--fsync", "no"]);
    assert_eq!(cluster.run("stop", &[]).code, 0);
    let mut other = Command::new("cat").stdin(Stdio::piped()).spawn().expect("there is a cat");
    let file = cluster.directory.path().join("node-1/pid");
    std::fs::write(&file, other.id().to_string()).expect("writable");
    assert!(cluster.run("stop", &[]).error.contains("no node ran"));
    let killed = cluster.run("kill", &["1"]);
    assert_eq!(killed.code, 1);
    assert!(killed.error.contains("node 1 does not run"), "{}", killed.error);
    assert!(other.try_wait().expect("our own child").is_none(), "it lives");
    drop(other.stdin.take());
    other.wait().expect("our own child");
}

/// Each command of kvsctl prints what it shall, with exit code 0.
fn check_words(tool: impl Fn(&[&str]) -> Outcome, address: &str) {
    let listed = format!("id=1 address={address} suffrage=0 isLeader=true\n");
    for (words, printed) in [
        (&["GET", "k"][..], "null\n"),
        (&["SET", "k", "a b"], "OK\n"),
        (&["GET", "k"], "a b\n"),
        (&["DEL", "k"], "1\n"),
        (&["DEL", "k"], "0\n"),
        (&["member", "list"], &listed),
        (&["member", "remove", "9"], "ERR peer is unknown\n"),
    ] {
        let outcome = tool(&[words, &["-a", address]].concat());
        assert_eq!((outcome.code, outcome.out.as_str()), (0, printed), "{words:?}");
    }
}

/// kvsctl's words, output and exit codes, under its name and under ours.
#[test]
fn kvsctl() {
    let server = Server::start(&["--shards", "2"]);
    let address = format!("127.0.0.1:{}", server.port());
    let link = server.directory().join("kvsctl");
    std::os::unix::fs::symlink(binary(), &link).expect("writable");
    let by_link = |arguments: &[&str]| {
        let output = Command::new(&link).args(arguments).output().expect("the program starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        let code = output.status.code().expect("it ends by itself");
        Outcome { code, out: text(output.stdout), error: text(output.stderr) }
    };
    check_words(by_link, &address);
    check_words(|arguments| run(&[&["ctl"], arguments].concat()), &address);
    // An error is a reply.
    server.client().say("RPUSH list x");
    let wrong = by_link(&["-a", &address, "GET", "list"]);
    assert_eq!(wrong.code, 0);
    assert!(wrong.out.starts_with("WRONGTYPE "), "{}", wrong.out);
    // What is no reply is a line with date and time.
    let nobody = free_port().to_string();
    for (arguments, cause) in [
        (&["GET", "k", "-a", &nobody][..], "cannot connect to 127.0.0.1:"),
        (&["get", "k"], "unrecognized subcommand 'get'"),
        (&["SET", "k"], "the following required arguments were not provided"),
    ] {
        let outcome = by_link(arguments);
        assert_eq!((outcome.code, outcome.out.as_str()), (1, ""), "{arguments:?}");
        let (date, rest) = outcome.error.split_once(' ').expect("a date");
        assert!(date.len() == 10 && date.starts_with("20"), "{}", outcome.error);
        let (time, line) = rest.split_once(' ').expect("a time");
        assert!(time.len() == 8 && line.starts_with(cause), "{}", outcome.error);
    }
    let help = by_link(&[]);
    assert_eq!(help.code, 0);
    assert!(
        help.out.contains("Usage: kvsctl") && help.out.contains("127.0.0.1:2315"),
        "{}",
        help.out
    );
    let help = run(&["ctl", "--help"]);
    assert!(help.out.contains("Usage: ringraft ctl") && help.out.contains("127.0.0.1:6379"));
}

/// A node that is alone is well; what is no node is told apart from one that is down.
#[test]
fn the_state_of_a_single_node_and_of_none() {
    let server = Server::start(&[]);
    let port = server.port().to_string();
    let outcome = run(&["cluster", "status", "-a", &port]);
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.error);
    assert!(outcome.out.starts_with("a cluster of 1 node as node 1 at "), "{}", outcome.out);
    assert!(outcome.out.contains("all is well\nnote: one node only"), "{}", outcome.out);
    let nobody = free_port().to_string();
    let outcome = run(&["cluster", "status", "-a", &nobody]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.error.contains("is a node running there? -a HOST:PORT"), "{}", outcome.error);
    assert_eq!(run(&["cluster", "status", "-a", "x"]).code, 2);
    let redis = Server::start_redis(&[]);
    let outcome = run(&["cluster", "status", "-a", &redis.port().to_string()]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.error.contains("it is no ringraft, or an older one"), "{}", outcome.error);
}

/// Each tool has a help.
#[test]
fn helps() {
    for words in [
        "dev-cluster",
        "dev-cluster start",
        "dev-cluster kill",
        "cluster",
        "cluster status",
        "member",
        "member remove",
        "ctl",
        "ctl SET",
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        let outcome = run(&[&words[..], &["--help"]].concat());
        assert_eq!(outcome.code, 0, "{words:?}: {}", outcome.error);
        let usage = format!("Usage: ringraft {}", words.join(" "));
        assert!(outcome.out.contains(&usage), "{usage}: {}", outcome.out);
    }
}
