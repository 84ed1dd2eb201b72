//! The moments of a start and a stop: who comes early waits or is refused, and never gets a wrong
//! answer; a stop is prompt and clean whenever it comes.

use crate::support::client::encode;
use crate::support::{Chance, Client, Program, Server, Value, eventually, system};
use std::net::{Ipv4Addr, TcpListener};
use std::thread;

const KEYS: usize = 30_000;

fn fill(server: &Server) {
    let bytes: Vec<u8> = (0..KEYS)
        .flat_map(|n| encode(&["SET".into(), format!("key:{n}"), n.to_string()]))
        .collect();
    let replies = server.client().pipeline(&bytes, KEYS);
    assert!(replies.iter().all(|reply| *reply == Value::ok()));
}

/// A client that comes as soon as the port answers.
fn first_client(port: u16) -> Client {
    eventually("somebody listens", || {
        let mut client = Client::try_connect(port).ok()?;
        // Until the server's rings are gone, its sockets take connections that nobody serves.
        client.try_call(&["ECHO", "there"]).ok()?;
        Some(client)
    })
}

/// Reads keys one by one and two at a time; every one of them is there.
fn read_all(port: u16, seed: u64) {
    let mut chance = Chance::seeded(seed);
    let mut client = first_client(port);
    for _ in 0..100 {
        let [a, b] = [0; 2].map(|_: usize| chance.below(KEYS as u64));
        let value = client.say(&format!("GET key:{a}"));
        assert_eq!(value, Value::bulk(a.to_string()), "key:{a}, seed {seed}");
        let both = client.say(&format!("MGET key:{a} key:{b}"));
        let expected = [a, b].map(|n| Value::bulk(n.to_string()));
        assert_eq!(both.elements(), expected, "key:{a} and key:{b}, seed {seed}");
    }
}

#[test]
fn another_shard_count_is_refused() {
    let mut server = Server::start(&["--shards", "3"]);
    assert!(server.terminate().0.success());
    server.set_arguments(&["--shards", "2"]);
    let refusal = server.try_launch().expect_err("the directory has three shards");
    let text = format!(
        "directory {} was created with 3 shards, --shards asks for 2: leave out --shards or use another \
         directory with --dir",
        server.directory().display()
    );
    assert!(refusal.output.contains(&text), "{}", refusal.output);
    assert_eq!(refusal.status.code(), Some(1));
    server.set_arguments(&[]);
    server.launch();
    assert_eq!(server.info_number("shards"), 3);
}

#[test]
fn whoever_comes_first_finds_every_key() {
    for shape in [["--shards", "2", "--cores", "0,1"], ["--shards", "4", "--cores", "0,1"]] {
        let mut chance = Chance::new("whoever_comes_first_finds_every_key");
        let mut server = Server::start(&shape);
        fill(&server);
        for round in 0..8 {
            if round % 2 == 0 {
                server.kill();
            } else {
                assert!(server.terminate().0.success());
            }
            let port = server.port();
            let readers: Vec<_> = (0..4)
                .map(|_| {
                    let seed = chance.next();
                    thread::spawn(move || read_all(port, seed))
                })
                .collect();
            server.launch_only();
            for reader in readers {
                reader.join().expect("every key is there");
            }
            assert!(server.wait_for_line("ready on "));
        }
    }
}

#[test]
fn a_stop_is_clean_at_any_moment() {
    let mut server = Server::start(&["--shards", "3"]);
    fill(&server);
    server.kill();
    for moment in ["starting", "shard", "ready on "] {
        for round in 0..6 {
            server.launch_only();
            if moment == "ready on " || round % 2 == 0 {
                server.wait_for_line(if moment == "ready on " { moment } else { "" });
            }
            let busy = moment == "ready on " && round % 3 == 0;
            if busy {
                let mut client = server.client();
                assert!(client.say("BGSAVE").text().starts_with("Background"));
                client.send(b"INCR counter\r\n");
            }
            system::send_signal(server.pid(), libc::SIGTERM);
            let (status, output) = server.wait_for_exit();
            assert!(!output.contains("panicked"), "{output}");
            // Before its first line the signal's own meaning ends it.
            let early = moment != "ready on " && round % 2 == 1;
            assert!(status.success() || early, "{status}: {output}");
        }
    }
    server.launch();
    let mut client = server.client();
    assert_eq!(
        client.say("DBSIZE"),
        Value::Integer(KEYS as i64 + i64::from(client.say("EXISTS counter") == Value::Integer(1)))
    );
}

#[test]
fn nobody_is_left_hanging_while_a_server_recovers() {
    let mut server = Server::prepare(Program::Ringraft, &["--shards", "2"]);
    server.launch();
    fill(&server);
    server.kill();
    server.launch_only();
    // Until it serves, whoever connects is refused; then he is served.
    let mut client = first_client(server.port());
    assert_eq!(client.say("GET key:1"), Value::bulk("1"));
    assert!(server.wait_for_line("ready on "));
}

#[test]
fn a_refused_first_start_decides_nothing() {
    let mut server = Server::prepare(Program::Ringraft, &["--shards", "4"]);
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, server.port())).expect("a free port");
    let refusal = server.try_launch().expect_err("the port is taken").to_string();
    assert!(refusal.contains("port"), "{refusal}");
    drop(taken);
    server.set_arguments(&["--shards", "3"]);
    server.launch();
    assert_eq!(server.client().say("SET a 1"), Value::ok());
    server.restart();
    assert_eq!(server.client().say("GET a"), Value::bulk("1"));
}

/// Also one that fails late, when some shards have written already, and one that is killed at any
/// moment before a client is let in.
#[test]
fn a_first_start_that_does_not_end_decides_nothing() {
    let mut server = Server::prepare(Program::Ringraft, &["--shards", "4"]);
    std::fs::create_dir_all(server.directory()).expect("writable");
    let obstacle = server.directory().join("shard-3");
    std::fs::write(&obstacle, "a file is in the way").expect("writable");
    let refusal = server.try_launch().expect_err("the last shard has no folder").to_string();
    assert!(refusal.contains("shard-3/"), "{refusal}");
    std::fs::remove_file(&obstacle).expect("it is there");
    let mut founded = 0;
    for shards in ["1", "2", "3", "5", "1", "2", "3", "5", "2", "4"] {
        server.set_arguments(&["--shards", shards]);
        if server.directory().join("cluster.json").exists() {
            // This time the start had come to its end before it was killed.
            founded += 1;
            for name in ["cluster.json", "founding.json"] {
                let _ = std::fs::remove_file(server.directory().join(name));
            }
            for shard in 0..5 {
                let _ = std::fs::remove_dir_all(server.directory().join(format!("shard-{shard}")));
            }
        }
        server.launch_and_kill();
    }
    println!("{founded} of 10 starts came to their end");
    if !server.directory().join("cluster.json").exists() {
        server.set_arguments(&["--shards", "3"]);
    }
    server.launch();
    assert_eq!(server.client().say("SET a 1"), Value::ok());
    assert!(!server.directory().join("founding.json").exists());
    server.restart();
    assert_eq!(server.client().say("GET a"), Value::bulk("1"));
}

#[test]
fn a_missing_cluster_file_is_refused_by_name() {
    let mut server = Server::start(&["--shards", "2"]);
    server.terminate();
    let file = server.directory().join("cluster.json");
    let kept = std::fs::read(&file).expect("it is there");
    std::fs::remove_file(&file).expect("it is there");
    let refusal = server.try_launch().expect_err("its identity is lost").to_string();
    assert!(refusal.contains("cluster.json is missing although "), "{refusal}");
    std::fs::write(&file, kept).expect("written");
    server.launch();
}

#[test]
fn a_cache_says_that_it_uses_no_directory() {
    let mut server = Server::start(&["--mode", "cache"]);
    let expected = format!("(directory {} is not used)", server.directory().display());
    let (_, log) = server.terminate();
    assert!(log.contains(&expected), "{log}");
}

#[test]
fn a_dropped_record_is_in_the_log() {
    let mut server = Server::start(&["--shards", "1"]);
    let mut client = server.client();
    assert_eq!(client.say("SET first 1"), Value::ok());
    assert_eq!(client.say("SET torn by-the-crash"), Value::ok());
    server.kill();
    let file = server.directory().join("shard-0/log/00000000000000000001.log");
    let mut bytes = std::fs::read(&file).expect("a log");
    let word = b"by-the-crash";
    let at = bytes.windows(word.len()).rposition(|w| w == word).expect("it was logged");
    bytes[at] ^= 1;
    std::fs::write(&file, bytes).expect("written");
    server.launch();
    assert_eq!(server.client().say("GET first"), Value::bulk("1"));
    assert_eq!(server.client().say("GET torn"), Value::Null);
    let (_, log) = server.terminate();
    let expected = "a record whose checksum does not fit; what was written there is dropped: ";
    let rest = log.split_once(expected).unwrap_or_else(|| panic!("{log}")).1;
    let (bytes, rest) = rest.split_once(' ').expect("a number");
    assert!((80..4096).contains(&bytes.parse().expect("a number")), "{bytes}");
    assert!(rest.starts_with("bytes, with 0 whole records that nobody was told of"), "{rest}");
}
