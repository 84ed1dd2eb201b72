//! Nodes that speak TLS with each other.

use crate::support::{Program, Server, Value, eventually, secure::Authority, server::free_port};

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
