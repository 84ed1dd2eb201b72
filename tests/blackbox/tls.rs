//! Clients that speak TLS: what they may, how they begin and end, and what their certificates are
//! worth.

use crate::support::client::encode;
use crate::support::secure::{Authority, SecureClient, VERSIONS, certificate};
use crate::support::server::{binary, free_port};
use crate::support::system::outward_address;
use crate::support::tool::run;
use crate::support::{Client, Program, Server, Value, eventually};
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Starts a server with a port for TLS beside the one for plain text. It asks clients for no
/// certificate unless `further` says so.
fn start(authority: &Authority, name: &str, further: &[&str]) -> (Server, u16) {
    let port = free_port();
    let arguments = authority.arguments(port, name);
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if !further.contains(&"--tls-auth-clients") {
        arguments.extend(["--tls-auth-clients", "no"]);
    }
    (Server::start(&[&arguments[..], further].concat()), port)
}

fn pong() -> Value {
    Value::Simple("PONG".into())
}

#[test]
fn clients_of_the_tls_port_are_clients_like_others() {
    let authority = Authority::new();
    authority.issue("ec", "ec").issue("rsa", "rsa");
    for (name, shape) in [
        ("ec", &["--shards", "1"][..]),
        ("rsa", &["--shards", "4", "--cores-in-use", "all"]),
        ("ec", &["--shards", "2", "--ring-features", "no-multishot-recv"]),
    ] {
        let (server, port) = start(&authority, name, &[&["--mode", "cache"], shape].concat());
        for version in &VERSIONS {
            let mut client = SecureClient::connect(port, &authority.client(None, &[version]));
            assert_eq!(client.say("FLUSHALL"), Value::ok());
            assert_eq!(client.say("MSET a 1 b 2 c 3 d 4"), Value::ok());
            assert_eq!(client.say("MGET a d").elements().len(), 2);
            assert!(matches!(client.say("HELLO 3"), Value::Map(_)));
            assert_eq!(client.say("MULTI"), Value::ok());
            client.say("INCR a");
            client.say("INCR b");
            assert_eq!(client.say("EXEC").elements(), [Value::Integer(2), Value::Integer(3)]);
            assert_eq!(server.client().say("GET a"), Value::bulk("2"));
            // Messages and replies of others' requests come the same way, long ones, too.
            let mut subscriber = SecureClient::connect(port, &authority.client(None, &[version]));
            subscriber.say("SUBSCRIBE news");
            let long = "x".repeat(100_000);
            assert_eq!(server.client().call(&["PUBLISH", "news", &long]), Value::Integer(1));
            let message = subscriber.read().expect("a message");
            assert_eq!(message.elements()[2], Value::bulk(&long));
        }
        assert_eq!(server.info_number("tls_handshakes"), 4);
        let listeners = server.client().say("INFO server").text();
        let (first, second) = (
            format!("listener0:name=tcp,bind=127.0.0.1,port={}\r\n", server.port()),
            format!("listener2:name=tls,bind=127.0.0.1,port={port}\r\n"),
        );
        assert!(listeners.contains(&first) && listeners.contains(&second), "{listeners}");
    }
}

#[test]
fn tools_speak_tls() {
    let authority = Authority::new();
    authority.issue("server", "ec");
    let (server, port) = start(&authority, "server", &["--mode", "cache", "--shards", "2"]);
    let arguments = authority.tool_arguments(port);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let tool = |program: &str, words: &[&str], input: &[u8]| {
        let outcome = run(program, &[&arguments[..], words].concat(), input);
        assert!(outcome.status.success(), "{program} {words:?}: {}", outcome.text);
        outcome.text
    };
    assert_eq!(tool("redis-cli", &["SET", "greeting", "hello"], b""), "OK\n");
    assert_eq!(server.client().say("GET greeting"), Value::bulk("hello"));
    let requests: Vec<u8> = (0..20_000).flat_map(|_| encode(&["INCR", "counter"])).collect();
    let text = tool("redis-cli", &["--pipe"], &requests);
    assert!(text.contains("errors: 0, replies: 20000"), "{text}");
    for load in [
        &["-t", "set,get,mset", "-P", "16", "-n", "20000", "-r", "1000", "-q"][..],
        &["-t", "set,get", "-d", "100000", "-n", "500", "-q"],
    ] {
        let text = tool("redis-benchmark", load, b"");
        assert!(!text.contains("rror"), "{text}");
    }
    assert_eq!(server.client().say("GET counter"), Value::bulk("20000"));
    assert_eq!(server.info_number("tls_handshake_failures"), 0);
}

#[test]
fn without_a_plain_port_tls_is_the_way_in() {
    let authority = Authority::new();
    authority.issue("server", "ec");
    let port = free_port();
    let mut child = Command::new(binary())
        .args(["--port", "0", "--mode", "cache"])
        .args(authority.arguments(port, "server"))
        .args(["--tls-auth-clients", "no"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .current_dir(authority.folder())
        .spawn()
        .expect("the program");
    eventually("it listens", || TcpStream::connect(("127.0.0.1", port)).ok());
    let mut client = SecureClient::connect(port, &authority.client(None, &VERSIONS));
    let info = client.say("INFO server").text();
    assert!(info.contains(&format!("tcp_port:{port}\r\n")), "{info}");
    assert!(info.contains("listener2:name=tls,") && !info.contains("listener0:"), "{info}");
    let (nodes, own) = (client.say("CLUSTER NODES").text(), format!("127.0.0.1:{port}@"));
    assert!(nodes.contains(&own), "{nodes}");
    client.send(&encode(&["SHUTDOWN"])).expect("open");
    let mut output = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut output).expect("text");
    assert!(child.wait().expect("it ends").success(), "{output}");
    assert!(output.contains(&format!("ready on 127.0.0.1:{port} (TLS) after")), "{output}");
}

#[test]
fn large_pipelined_values_go_both_ways() {
    const SIZE: usize = 64 << 20;
    let authority = Authority::new();
    authority.issue("server", "ec");
    let (_server, port) = start(&authority, "server", &["--mode", "cache", "--shards", "2"]);
    let mut client = SecureClient::connect(port, &authority.client(None, &VERSIONS));
    let value =
        |seed: u8| -> Vec<u8> { (0..SIZE).map(|i| (i / 251) as u8 ^ i as u8 ^ seed).collect() };
    for n in 0..2u8 {
        let sent = [b"SET".to_vec(), vec![b'a' + n], value(n)];
        client.send(&[encode(&sent), encode(&["PING"])].concat()).expect("it takes them");
    }
    for _ in 0..2 {
        assert_eq!(client.read().expect("a reply"), Value::ok());
        assert_eq!(client.read().expect("a reply"), pong());
    }
    client.send(&[encode(&["GET", "a"]), encode(&["GET", "b"])].concat()).expect("it takes them");
    for n in 0..2u8 {
        assert!(client.read().expect("a value") == Value::bulk(value(n)), "value {n} is another");
    }
}

#[test]
fn clients_show_certificates_where_they_must() {
    let (authority, other) = (Authority::new(), Authority::new());
    authority.issue("server", "ec").issue("friend", "rsa");
    other.issue("stranger", "ec");
    // Trusts the server, and shows what another authority has signed.
    for file in ["stranger.crt", "stranger.key"] {
        fs::copy(other.path(file), authority.path(file)).expect("our own folders");
    }
    let folder = tempfile::tempdir().expect("a folder");
    fs::copy(authority.path("ca.crt"), folder.path().join("0a1b2c3d.0")).expect("our own");
    fs::write(folder.path().join("README"), "no certificate").expect("our own");
    let (file, folder) = (authority.path("ca.crt"), folder.path().to_string_lossy().into_owned());
    for authorities in [["--tls-ca-cert-file", &file], ["--tls-ca-cert-dir", &folder]] {
        let words = [&["--mode", "cache", "--tls-auth-clients", "yes"][..], &authorities].concat();
        let (server, port) = start(&authority, "server", &words);
        let may = |name: Option<&str>| {
            VERSIONS.map(|version| {
                SecureClient::try_connect(port, &authority.client(name, &[version])).is_ok()
            })
        };
        for (word, nobody, friend, stranger) in
            [("yes", false, true, false), ("optional", true, true, false), ("no", true, true, true)]
        {
            let change = format!("CONFIG SET tls-auth-clients {word}");
            assert_eq!(server.client().say(&change), Value::ok());
            assert_eq!(may(None), [nobody; 2], "{word}");
            assert_eq!(may(Some("friend")), [friend; 2], "{word}");
            assert_eq!(may(Some("stranger")), [stranger; 2], "{word}");
        }
        assert_eq!(server.info_number("tls_handshake_failures"), 6);
        assert_eq!(server.info_number("tls_handshakes"), 12);
    }
}

#[test]
fn certificates_are_read_again() {
    let authority = Authority::new();
    authority.issue("first", "ec").issue("second", "rsa").issue("third", "ec");
    for end in ["crt", "key"] {
        let (from, to) = (format!("first.{end}"), format!("live.{end}"));
        fs::copy(authority.path(&from), authority.path(&to)).expect("our own folder");
    }
    let (mut server, port) = start(&authority, "live", &["--mode", "cache", "--shards", "2"]);
    let config = authority.client(None, &VERSIONS);
    let shown = || SecureClient::connect(port, &config).server_certificate();
    let is = |name: &str| certificate(&authority.path(&format!("{name}.crt")));
    let replace = |file: &str, by: &str| {
        let (new, path) = (authority.path("new"), authority.path(file));
        fs::copy(authority.path(by), &new).expect("our own folder");
        fs::rename(new, path).expect("the same folder");
    };
    let mut old = SecureClient::connect(port, &config);
    assert_eq!(shown(), is("first"));
    // A certificate without its key is of no use: what was read before stays.
    replace("live.crt", "second.crt");
    assert!(server.wait_for_line("is not that of the certificate in"));
    assert_eq!(shown(), is("first"));
    replace("live.key", "second.key");
    eventually("the new certificate is shown", || (shown() == is("second")).then_some(()));
    // A session that had begun goes on.
    assert_eq!(old.say("PING"), pong());
    fs::write(authority.path("live.crt"), "damaged").expect("our own");
    assert!(server.wait_for_line("has no certificate in PEM"));
    assert_eq!(shown(), is("second"));
    let mut operator = server.client();
    let [file, key] = ["crt", "key"].map(|end| authority.path(&format!("third.{end}")));
    let half = operator.call(&["CONFIG", "SET", "tls-cert-file", &file]);
    assert!(half.is_error() && half.error().contains("'tls-key-file') - the key in"), "{half:?}");
    let both = ["CONFIG", "SET", "tls-cert-file", &file, "tls-key-file", &key];
    assert_eq!(operator.call(&both), Value::ok());
    assert_eq!(shown(), is("third"));
    assert_eq!(operator.say("CONFIG GET tls-cert-file").elements()[1], Value::bulk(&file));
    // The same names, read again because somebody says so.
    replace("third.crt", "first.crt");
    replace("third.key", "first.key");
    assert_eq!(operator.call(&both), Value::ok());
    assert_eq!(shown(), is("first"));
    for (words, cause) in [
        (["tls-cert-file", "/nowhere.crt"], "cannot read /nowhere.crt"),
        (["tls-cert-file", ""], "tls-port"),
        (["tls-auth-clients", "yes"], "without tls-ca-cert-file"),
        (["tls-auth-clients", "maybe"], "must be one of the following: no, yes, optional"),
        (["tls-port", "1"], "can't set immutable config"),
        (["tls-ciphers", "RC4"], "no suite is called 'RC4' here"),
        (["tls-key-file-pass", "secret"], "keys are read without a password"),
        (["tls-dh-params-file", "x"], "elliptic curves"),
        (["tls-cluster", "yes"], "can't set immutable config"),
    ] {
        let refused = operator.call(&[&["CONFIG", "SET"], &words[..]].concat());
        assert!(refused.is_error() && refused.error().contains(cause), "{words:?}: {refused:?}");
    }
    assert_eq!(shown(), is("first"));
}

#[test]
fn a_start_without_what_tls_needs_is_refused() {
    let authority = Authority::new();
    authority.issue("server", "ec").issue("other", "ec");
    let (file, key) = (authority.path("server.crt"), authority.path("server.key"));
    let (other, locked) = (authority.path("other.key"), authority.path("locked.key"));
    let encrypt = ["pkey", "-in", &key, "-out", &locked, "-aes128", "-passout", "pass:secret"];
    assert!(run("openssl", &encrypt, b"").status.success());
    let port = free_port().to_string();
    let base = ["--tls-port", &port];
    let no = ["--tls-auth-clients", "no"];
    for (words, cause) in [
        (vec![], "tls-cert-file"),
        (vec!["--tls-cert-file", &file], "tls-key-file"),
        (vec!["--tls-cert-file", "/nowhere", "--tls-key-file", &key], "cannot read /nowhere"),
        (vec!["--tls-cert-file", &key, "--tls-key-file", &key], "has no certificate in PEM"),
        (vec!["--tls-cert-file", &file, "--tls-key-file", &file], "has no private key in PEM"),
        (
            vec!["--tls-cert-file", &file, "--tls-key-file", &other],
            "is not that of the certificate",
        ),
        (vec!["--tls-cert-file", &file, "--tls-key-file", &locked], "is encrypted"),
        (
            vec!["--tls-cert-file", &file, "--tls-key-file", &key],
            "without tls-ca-cert-file or tls-ca-cert-dir",
        ),
        (
            vec!["--tls-cert-file", &file, "--tls-key-file", &key, "--metrics-port", &port],
            "is that of tls-port already",
        ),
        (vec!["--tls-protocols", "TLSv1.1"], "TLSv1.1 is not spoken here"),
    ] {
        let clients = if cause.starts_with("without") { &[][..] } else { &no };
        let arguments = [&base[..], clients, &words].concat();
        let refusal = Server::prepare(Program::Ringraft, &arguments).try_launch();
        let refusal = refusal.expect_err("it cannot start");
        assert!(refusal.output.contains(cause), "{words:?}: {}", refusal.output);
    }
}

#[test]
fn clients_that_do_not_shake_hands_count_and_are_closed() {
    let authority = Authority::new();
    authority.issue("server", "ec");
    let further = ["--mode", "cache", "--shards", "2", "--maxclients", "4"];
    let (mut server, port) = start(&authority, "server", &further);
    let mut plain = server.client();
    assert_eq!(plain.say("PING"), pong());
    let config = authority.client(None, &VERSIONS);
    let mut silent = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    let mut half = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    half.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1]).expect("the beginning of a record");
    let mut stalled = SecureClient::begin(port, &config);
    stalled.send_hello();
    eventually("all are counted", || {
        (plain.say("INFO clients").text().contains("connected_clients:4\r\n")).then_some(())
    });
    let refused = Client::connect(server.port()).read_to_close();
    assert_eq!(refused, b"-ERR max number of clients reached\r\n");
    assert!(SecureClient::try_connect(port, &config).is_err());
    // Nobody does anything, and all of them are closed.
    for socket in [&mut silent, &mut half, stalled.socket()] {
        let mut rest = Vec::new();
        // By a reset where bytes were not read.
        let _ = socket.read_to_end(&mut rest);
    }
    assert!(server.wait_for_line("a TLS handshake failed: it took too long"));
    assert_eq!(SecureClient::connect(port, &config).say("PING"), pong());
    assert_eq!(plain.say("PING"), pong());
    assert_eq!(server.info_number("tls_handshake_failures"), 3);
}

#[test]
fn two_hundred_handshakes_at_once_hold_nobody_up() {
    const COUNT: usize = 200;
    let authority = Authority::new();
    authority.issue("server", "rsa");
    let metrics = free_port();
    let further = ["--mode", "cache", "--shards", "2", "--metrics-port", &metrics.to_string()];
    let (server, port) = start(&authority, "server", &further);
    let config = authority.client(None, &VERSIONS);
    let (is_done, replies) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = server.client();
            while !is_done.load(Ordering::Relaxed) {
                assert_eq!(client.say("PING"), pong());
                replies.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut clients: Vec<SecureClient> =
            (0..COUNT).map(|_| SecureClient::begin(port, &config)).collect();
        let before = replies.load(Ordering::Relaxed);
        clients.iter_mut().for_each(SecureClient::send_hello);
        // Every handshake stands between its two flights, and the other client is answered.
        for client in &mut clients {
            client.shake_hands().expect("a handshake");
        }
        for client in &mut clients {
            assert_eq!(client.say("PING"), pong());
        }
        let between = replies.load(Ordering::Relaxed) - before;
        is_done.store(true, Ordering::Relaxed);
        assert!(between >= COUNT as u64 / 4, "{between} replies while {COUNT} handshakes went on");
    });
    assert_eq!(server.info_number("tls_handshakes"), COUNT as i64);
    let page = Client::connect(metrics).exchange(b"GET /metrics HTTP/1.0\r\n\r\n");
    let page = String::from_utf8(page).expect("text");
    assert!(page.contains(&format!("\nringraft_tls_handshakes_total {COUNT}\n")), "{page}");
    assert!(page.contains("\nringraft_tls_handshake_failures_total 0\n"), "{page}");
}

#[test]
fn the_wrong_port_is_told_apart() {
    let authority = Authority::new();
    authority.issue("server", "ec");
    let (mut server, port) = start(&authority, "server", &["--mode", "cache"]);
    let mut plain = Client::connect(port);
    plain.send(&encode(&["SET", "a", "1"]));
    let told = String::from_utf8(plain.read_to_close()).expect("text");
    assert_eq!(
        told,
        "-ERR this port speaks TLS: connect with TLS, or to the port for plain text\r\n"
    );
    assert!(server.wait_for_line("a client does not speak TLS on the port for TLS"));
    assert_eq!(server.client().say("EXISTS a"), Value::Integer(0));
    let config = authority.client(None, &VERSIONS);
    assert!(SecureClient::try_connect(server.port(), &config).is_err());
    assert!(server.wait_for_line("a client speaks TLS on the port for plain text"));
    // Who only looks whether the port is open is no failure.
    drop(TcpStream::connect(("127.0.0.1", port)).expect("it listens"));
    eventually("it is gone", || (server.info_number("connected_clients") == 1).then_some(()));
    assert_eq!(server.info_number("tls_handshake_failures"), 1);
    let mut garbage = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    garbage.write_all(&[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 9]).expect("open");
    let mut alert = Vec::new();
    garbage.read_to_end(&mut alert).expect("closed in order");
    assert_eq!(alert[..3], [0x15, 3, 3], "{alert:?}");
}

#[test]
fn ends_are_honoured() {
    let authority = Authority::new();
    authority.issue("server", "ec");
    let (mut server, port) = start(&authority, "server", &["--mode", "cache", "--shards", "2"]);
    let mut plain = server.client();
    let requests =
        |key: &str| -> Vec<u8> { (0..5000).flat_map(|_| encode(&["INCR", key])).collect() };
    for version in &VERSIONS {
        let config = authority.client(None, &[version]);
        let connect = || SecureClient::connect(port, &config);
        plain.say("FLUSHALL");
        // close_notify, with the socket open or half-closed: all is executed and answered, and the
        // end is said.
        for (key, also_cuts) in [("a", false), ("b", true)] {
            let mut client = connect();
            client.send(&requests(key)).expect("it takes them");
            client.finish_writing();
            if also_cuts {
                client.cut();
            }
            let replies = client.read_to_end().expect("an end that was said");
            assert!(replies.ends_with(b":5000\r\n"));
            assert_eq!(plain.say(&format!("GET {key}")), Value::bulk("5000"));
        }
        // The socket ends without a word: what came whole is executed and answered, half a request
        // is not.
        let mut client = connect();
        client
            .send(&[requests("c"), b"*2\r\n$4\r\nINCR\r\n$1\r\n".to_vec()].concat())
            .expect("open");
        client.cut();
        assert!(client.read_to_end().expect("an end").ends_with(b":5000\r\n"));
        assert_eq!(plain.say("GET c"), Value::bulk("5000"));
        // In the middle of a record: nothing of it counts.
        let mut client = connect();
        let record = client.seal(&encode(&["SET", "d", "1"]));
        client.socket().write_all(&record[..record.len() - 1]).expect("open");
        client.cut();
        assert_eq!(client.read_to_end().expect("an end"), b"");
        // A record that was changed: those before it count, nothing after it does.
        let mut client = connect();
        assert_eq!(client.say("SET e 1"), Value::ok());
        let mut record = client.seal(&encode(&["SET", "e", "2"]));
        let middle = record.len() / 2;
        record[middle] ^= 1;
        let after = client.seal(&encode(&["SET", "e", "3"]));
        client.socket().write_all(&[record, after].concat()).expect("open");
        assert!(client.read_to_end().is_err(), "an alert");
        assert_eq!(plain.say("MGET d e").elements(), [Value::Null, Value::bulk("1")]);
        // Nothing counts after the end was said.
        let mut client = connect();
        let said = client.seal(&encode(&["SET", "f", "1"]));
        client.socket().write_all(&said).expect("open");
        client.finish_writing();
        let _ = client.socket().write_all(&said);
        assert_eq!(client.read_to_end().expect("an end that was said"), b"+OK\r\n");
        // The server's ends are said, too.
        let mut client = connect();
        client.send(&encode(&["QUIT"])).expect("open");
        assert_eq!(client.read_to_end().expect("an end that was said"), b"+OK\r\n");
        let mut client = connect();
        let id = client.say("CLIENT ID").integer();
        assert_eq!(plain.say(&format!("CLIENT KILL ID {id}")), Value::Integer(1));
        assert_eq!(client.read_to_end().expect("an end that was said"), b"");
    }
    eventually("only who asks is connected", || {
        (server.info_number("connected_clients") == 2).then_some(())
    });
    let mut last = SecureClient::connect(port, &authority.client(None, &VERSIONS));
    assert_eq!(last.say("PING"), pong());
    assert!(server.terminate().0.success());
    assert_eq!(last.read_to_end().expect("an end that was said"), b"");
}

#[test]
fn sessions_are_taken_up_again_while_they_may() {
    let authority = Authority::new();
    authority.issue("server", "ec");
    let (server, port) = start(&authority, "server", &["--mode", "cache", "--shards", "2"]);
    for version in &VERSIONS {
        let config = authority.client(None, &[version]);
        let is_resumed = || {
            let mut client = SecureClient::connect(port, &config);
            // Tickets come with what follows the handshake.
            assert_eq!(client.say("PING"), pong());
            client.is_resumed()
        };
        let set = |words: &str| {
            assert_eq!(server.client().say(&format!("CONFIG SET {words}")), Value::ok());
        };
        assert_eq!([is_resumed(), is_resumed()], [false, true]);
        // What was agreed under other rules counts no more.
        set("tls-prefer-server-ciphers yes");
        assert_eq!([is_resumed(), is_resumed()], [false, true]);
        set("tls-session-caching no");
        assert_eq!([is_resumed(), is_resumed()], [false, false]);
        set("tls-session-caching yes tls-session-cache-timeout 0");
        assert_eq!([is_resumed(), is_resumed()], [false, false]);
        set("tls-session-cache-timeout 300 tls-prefer-server-ciphers no");
    }
}

#[test]
fn versions_and_suites_are_those_that_are_set() {
    let authority = Authority::new();
    authority.issue("server", "rsa");
    let (server, port) = start(&authority, "server", &["--mode", "cache"]);
    let may = || {
        VERSIONS.map(|version| {
            SecureClient::try_connect(port, &authority.client(None, &[version])).is_ok()
        })
    };
    for (words, expected) in [
        ("tls-protocols TLSv1.3", [true, false]),
        ("tls-protocols TLSv1.2", [false, true]),
        ("tls-protocols TLSv1.2,TLSv1.3", [true, true]),
        // Of another kind of key than the server's: with TLS 1.2 there is nothing to agree on.
        ("tls-ciphers ECDHE-ECDSA-AES128-GCM-SHA256", [true, false]),
        ("tls-ciphers ECDHE-RSA-CHACHA20-POLY1305", [true, true]),
        ("tls-ciphersuites TLS_CHACHA20_POLY1305_SHA256", [true, true]),
    ] {
        assert_eq!(server.client().say(&format!("CONFIG SET {words}")), Value::ok());
        assert_eq!(may(), expected, "{words}");
    }
}

#[test]
fn connections_move_between_cores_with_their_sessions() {
    let authority = Authority::new();
    authority.issue("server", "ec");
    let further = ["--mode", "cache", "--shards", "2", "--cores-in-use", "all"];
    let (server, port) = start(&authority, "server", &further);
    if server.info_number("cores") < 2 {
        return eprintln!("NOT TESTED HERE: this machine has one core");
    }
    let config = authority.client(None, &VERSIONS);
    let mut clients: Vec<SecureClient> =
        (0..8).map(|_| SecureClient::connect(port, &config)).collect();
    let mut round = 0;
    eventually("some have moved", || {
        round += 1;
        for (n, client) in clients.iter_mut().enumerate() {
            // Another key now and then, whose shard may be on the other core.
            let key = format!("key:{}", n + round / 20);
            let requests: Vec<u8> = (0..100)
                .flat_map(|_| [encode(&["SET", &key, "1"]), encode(&["GET", &key])].concat())
                .collect();
            client.send(&requests).expect("it takes them");
            for _ in 0..100 {
                assert_eq!(client.read().expect("a reply"), Value::ok());
                assert_eq!(client.read().expect("a reply"), Value::bulk("1"));
            }
        }
        (server.info_number("moved_connections") >= 2).then_some(())
    });
    for client in &mut clients {
        assert_eq!(client.say("PING"), pong());
    }
}

#[test]
fn output_limits_hold_for_those_who_do_not_read() {
    let authority = Authority::new();
    authority.issue("server", "ec");
    let further = ["--mode", "cache", "--client-output-buffer-limit", "normal 8mb 0 0"];
    let (server, port) = start(&authority, "server", &further);
    assert_eq!(server.client().call(&["SET", "a", &"x".repeat(1 << 20)]), Value::ok());
    let mut client = SecureClient::connect(port, &authority.client(None, &VERSIONS));
    // All at once, so that they are executed before the first unread reply holds the others back.
    client
        .send(&[encode(&["MULTI"]), encode(&["GET", "a"]).repeat(64), encode(&["EXEC"])].concat())
        .expect("it takes them");
    eventually("it is closed", || {
        (server.info_number("client_output_buffer_limit_disconnections") == 1).then_some(())
    });
    assert!(client.read_to_end().is_err(), "cut off in the middle");
}

#[test]
fn protected_mode_refuses_strangers_through_tls_too() {
    let Some(address) = outward_address() else {
        return eprintln!("NOT TESTED HERE: this machine has no address but loopback ones");
    };
    let authority = Authority::new();
    authority.issue("server", "ec");
    let (server, port) = start(&authority, "server", &["--bind", "*", "--mode", "cache"]);
    let config = authority.client(None, &VERSIONS);
    let address = SocketAddr::new(IpAddr::V4(address), port);
    let mut stranger = SecureClient::begin_at(address, &config);
    stranger.shake_hands().expect("a handshake");
    let told = stranger.read_to_end().expect("an end that was said");
    assert!(told.starts_with(b"-DENIED Redis is running in protected mode"), "{told:?}");
    assert_eq!(server.info_number("rejected_connections"), 1);
    assert_eq!(SecureClient::connect(port, &config).say("PING"), pong());
}
