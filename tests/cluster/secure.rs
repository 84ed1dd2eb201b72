//! Nodes that speak TLS with each other.

use crate::support::server::{binary, free_port};
use crate::support::{Program, Server, Value, eventually, secure::Authority, tool};

/// A node with a certificate, and the port where others reach it.
fn prepare(authority: &Authority, seed: Option<u16>) -> (Server, u16) {
    let port = free_port();
    let (text, seed) = (port.to_string(), seed.map(|seed| seed.to_string()));
    let files = ["node.crt", "node.key", "ca.crt"].map(|file| authority.path(file));
    let mut all = vec!["--tls-port", &text, "--tls-auth-clients", "optional"];
    all.extend(["--tls-cluster", "yes", "--tls-cert-file", &files[0]]);
    all.extend(["--tls-key-file", &files[1], "--tls-ca-cert-file", &files[2]]);
    all.extend(seed.iter().flat_map(|seed| ["--join", seed]));
    (Server::prepare(Program::Ringraft, &all), port)
}

fn leads(server: &Server) -> bool {
    server.info("role") == "master"
}

#[test]
fn nodes_join_replicate_and_elect_over_tls() {
    let authority = Authority::new();
    authority.issue("node", "ec");
    let mut servers = Vec::new();
    let mut seed = None;
    for _ in 0..3 {
        let (mut server, port) = prepare(&authority, seed);
        server.launch();
        seed = seed.or(Some(port));
        servers.push(server);
    }
    eventually("all three vote", || {
        let list = servers[0].client().say("MEMBER LIST").text();
        (list.matches("suffrage=0").count() == 3).then_some(())
    });
    let large = "x".repeat(3 << 20);
    for (n, server) in servers.iter().enumerate() {
        let key = format!("key-{n}");
        assert_eq!(server.client().call(&["SET", &key, &large]), Value::ok());
        for other in &servers {
            assert_eq!(other.client().call(&["STRLEN", &key]).integer(), 3 << 20);
        }
    }
    eventually("all have the same", || {
        let mut digests = servers.iter().map(|server| server.client().say("DEBUG DIGEST"));
        let first = digests.next();
        digests.all(|digest| Some(digest) == first).then_some(())
    });
    let leader = servers.iter().position(leads).expect("one leads");
    servers[leader].kill();
    servers.remove(leader);
    for server in &servers {
        assert_eq!(server.client().say("SET after that"), Value::ok());
    }
    // Somebody who looks at the port without a certificate is a client, and no node.
    let mut stranger = std::net::TcpStream::connect(("127.0.0.1", servers[0].port())).expect("up");
    std::io::Write::write_all(&mut stranger, b"\0RINGPEER").expect("it takes bytes");
    assert!(servers[0].wait_for_line("a node has dialled without a certificate"));
}

#[test]
fn who_has_a_certificate_of_another_authority_is_refused_at_both_ends() {
    let (authority, other) = (Authority::new(), Authority::new());
    authority.issue("node", "ec");
    other.issue("node", "ec");
    let (mut founder, port) = prepare(&authority, None);
    founder.launch();
    let (mut joiner, _) = prepare(&other, Some(port));
    let text = joiner.try_launch().expect_err("refused").output;
    let expected = format!("cannot join the cluster at 127.0.0.1:{port}: invalid peer certificate");
    assert!(text.contains(&expected), "{text}");
    assert!(founder.wait_for_line("a TLS handshake failed: received fatal alert"));
}

#[test]
fn a_node_without_tls_is_told_what_to_do() {
    let authority = Authority::new();
    authority.issue("node", "ec");
    let (mut founder, _) = prepare(&authority, None);
    founder.launch();
    let seed = founder.port().to_string();
    let mut joiner = Server::prepare(Program::Ringraft, &["--join", &seed]);
    let text = joiner.try_launch().expect_err("refused").output;
    assert!(text.contains("start this one with tls-cluster yes"), "{text}");
    let alone = Server::start(&[]);
    let (mut joiner, _) = prepare(&authority, Some(alone.port()));
    let text = joiner.try_launch().expect_err("that port speaks no TLS").output;
    assert!(text.contains("--join names a node's tls-port"), "{text}");
}

#[test]
fn links_by_tls_need_a_port_and_certificates() {
    let refused = |arguments: &[&str]| {
        let mut server = Server::prepare(Program::Ringraft, arguments);
        server.try_launch().expect_err("refused").output
    };
    let text = refused(&["--tls-cluster", "yes"]);
    assert!(text.contains("other nodes reach this one at its tls-port"), "{text}");
    let port = free_port().to_string();
    let text = refused(&["--tls-cluster", "yes", "--tls-port", &port, "--tls-auth-clients", "no"]);
    assert!(text.contains("nodes show each other certificates"), "{text}");
}

/// A tool's exit code, and all that it has printed.
fn tool(words: &[&str]) -> (i32, String) {
    let program = binary().to_string_lossy().into_owned();
    let outcome = tool::run(&program, words, b"");
    (outcome.status.code().expect("it ends by itself"), outcome.text)
}

#[test]
fn tools_speak_tls_with_every_node() {
    let authority = Authority::new();
    authority.issue("node", "ec");
    let (mut first, port) = prepare(&authority, None);
    first.launch();
    let (mut second, other_port) = prepare(&authority, Some(port));
    second.launch();
    let (mut third, third_port) = prepare(&authority, Some(port));
    third.launch();
    let (at, authorities) = (port.to_string(), authority.path("ca.crt"));
    let tls = ["-a", &at, "--tls", "--cacert", &authorities];
    let text = eventually("all is well", || {
        let (code, text) = tool(&[&["cluster", "status"], &tls[..]].concat());
        (code == 0).then_some(text)
    });
    assert!(text.contains("all is well") && !text.contains("note:"), "{text}");
    let (code, text) = tool(&[&["member", "list"], &tls[..]].concat());
    assert_eq!((code, text.lines().count()), (0, 3), "{text}");
    for port in [port, other_port, third_port] {
        assert!(text.contains(&format!("address=127.0.0.1:{port} suffrage=0")), "{text}");
    }
    assert_eq!(tool(&[&["ctl", "SET", "key", "value"], &tls[..]].concat()), (0, "OK\n".into()));
    let link = first.directory().join("kvsctl");
    std::os::unix::fs::symlink(binary(), &link).expect("writable");
    let (link, at) = (link.to_string_lossy().into_owned(), third_port.to_string());
    let words = ["GET", "key", "-a", &at, "--tls", "--cacert", &authorities];
    assert_eq!(tool::run(&link, &words, b"").text, "value\n");
}

#[test]
fn tools_say_what_tls_lacks() {
    let (authority, other) = (Authority::new(), Authority::new());
    authority.issue("node", "ec").issue("tool", "rsa");
    let port = free_port();
    let (files, secret) = (authority.arguments(port, "node"), "a secret");
    let authorities = authority.path("ca.crt");
    let mut all: Vec<&str> = files.iter().map(String::as_str).collect();
    all.extend(["--tls-ca-cert-file", &authorities, "--requirepass", secret]);
    let server = Server::start(&all);
    let (secure, plain) = (port.to_string(), server.port().to_string());
    let (certificate, key) = (authority.path("tool.crt"), authority.path("tool.key"));
    let shown = ["--cert", &certificate, "--key", &key, "--pass", secret];
    let trusts = ["--tls", "--cacert", &authorities];
    let status =
        |at: &str, words: &[&str]| tool(&[&["cluster", "status", "-a", at], words].concat());
    let (code, text) = status(&secure, &[&trusts[..], &shown].concat());
    assert!(code == 0 && text.contains("all is well"), "{text}");
    let strange = other.path("ca.crt");
    for (at, words, cause) in [
        (&secure, &trusts[..], "see --cert and --key"),
        (&secure, &["--tls", "--cacert", &strange], "--cacert names the authority"),
        (&secure, &["--pass", secret], "this port speaks TLS"),
        (&plain, &[&trusts[..], &shown].concat(), "--tls is for a tls-port"),
    ] {
        let (code, text) = status(at, words);
        let text = text.to_lowercase();
        assert!(code == 1 && text.contains(&cause.to_lowercase()), "{words:?}: {text}");
    }
    for (words, cause) in [
        (&["--cacert", &authorities][..], "--cacert is for --tls"),
        (&["--tls"], "--tls needs --cacert FILE or --cacertdir DIR"),
        (&[&trusts[..], &["--key", &key]].concat(), "--cert and --key go together"),
        (&["--tls", "--cacert", "nothing"], "--cacert: cannot read nothing"),
        (&["--tls", "--cacert", &key], "has no certificate in PEM"),
    ] {
        let (code, text) = status(&secure, words);
        assert!(code == 2 && text.contains(cause), "{words:?}: {text}");
    }
}
