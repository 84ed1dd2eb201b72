//! Where the server listens, and whom it refuses there.

use crate::support::system::outward_address;
use crate::support::{Client, Program, Server, Value, eventually};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn client_at(server: &Server, ip: IpAddr) -> Client {
    let address = SocketAddr::new(ip, server.port());
    Client::try_connect_to(address).unwrap_or_else(|error| panic!("{address}: {error}"))
}

fn serves_at(server: &Server, ip: IpAddr) {
    assert_eq!(client_at(server, ip).say("PING"), Value::Simple("PONG".into()), "{ip}");
}

#[test]
fn it_listens_at_names_stars_and_several_addresses() {
    let has_ipv6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !has_ipv6 {
        eprintln!("IPv6 is NOT TESTED HERE: this machine has no ::1");
    }
    let mode: &[&str] = &["--mode", "cache", "--shards", "2"];
    for (bind, also_ipv6) in [
        (&["--bind", "localhost"][..], false),
        (&["--bind", "*"], false),
        (&["--bind", "* -::*"], true),
        (&["--bind", "127.0.0.1", "--bind", "-::1"], true),
        (&["--bind", "127.0.0.1,-::1 127.0.0.1 localhost"], true),
        (&["--bind", "127.0.0.1", "--bind", "-203.0.113.77"], false),
    ] {
        let server = Server::start(&[mode, bind].concat());
        serves_at(&server, LOCAL);
        if also_ipv6 && has_ipv6 {
            serves_at(&server, IpAddr::V6(Ipv6Addr::LOCALHOST));
        }
        let shown = server.client().say("CONFIG GET bind").elements()[1].text();
        let words: Vec<&str> = bind.iter().copied().filter(|word| *word != "--bind").collect();
        assert_eq!(shown, words.join(" ").replace(',', " "));
    }
    for (bind, text) in [
        ("203.0.113.77", "it is not an address of this machine"),
        ("no-such-name.invalid", "no name that is known here"),
        ("300.1.1.1", "is neither an IP address nor a name"),
    ] {
        let refusal = Server::prepare(Program::Ringraft, &["--bind", bind]).try_launch();
        let output = refusal.expect_err(bind).output;
        assert!(output.contains(text), "{bind}: {output}");
    }
}

/// The reply to a client that says nothing, and whether the connection is closed behind it.
fn greeting(server: &Server, ip: IpAddr) -> String {
    String::from_utf8(client_at(server, ip).read_to_close()).expect("text")
}

#[test]
fn protected_mode_refuses_strangers_as_redis_does() {
    let Some(address) = outward_address() else {
        return eprintln!("NOT TESTED HERE: this machine has no address but loopback ones");
    };
    let ip = IpAddr::V4(address);
    let redis = Server::start_redis(&["--bind", "*"]);
    let denied = greeting(&redis, ip);
    assert!(denied.starts_with("-DENIED Redis is running in protected mode"), "{denied}");
    let mut server = Server::start(&["--bind", "*", "--mode", "cache", "--shards", "2"]);
    assert_eq!(greeting(&server, ip), denied);
    serves_at(&server, LOCAL);
    let mut operator = server.client();
    assert_eq!(server.info_number("rejected_connections"), 1);
    eventually("only the operator and who asks are connected", || {
        (server.info_number("connected_clients") == 2).then_some(())
    });
    assert_eq!(operator.say("CONFIG SET protected-mode no"), Value::ok());
    serves_at(&server, ip);
    assert_eq!(operator.say("CONFIG SET protected-mode YES"), Value::ok());
    assert_eq!(greeting(&server, ip), denied);
    assert_eq!(operator.say("CONFIG SET requirepass secret"), Value::ok());
    let mut stranger = client_at(&server, ip);
    assert_eq!(stranger.say("PING"), Value::Error("NOAUTH Authentication required.".into()));
    assert_eq!(stranger.say("AUTH secret"), Value::ok());
    // Without a password again nobody has to have sent one.
    let mut late = client_at(&server, ip);
    assert_eq!(operator.call(&["CONFIG", "SET", "requirepass", ""]), Value::ok());
    assert_eq!(late.say("SET a 1"), Value::ok());
    assert_eq!(operator.say("CONFIG SET requirepass secret"), Value::ok());
    assert_eq!(late.say("PING"), Value::Error("NOAUTH Authentication required.".into()));
    let (status, output) = server.terminate();
    assert!(status.success(), "{output}");
    assert!(output.contains("WARN bind is * and no password is set"), "{output}");
    // Opened on purpose: served, and warned of all the more.
    server.set_arguments(&["--bind", "0.0.0.0", "--mode", "cache", "--protected-mode", "no"]);
    server.launch();
    serves_at(&server, ip);
    let (_, output) = server.terminate();
    assert!(output.contains("WARN bind is 0.0.0.0, no password is set and"), "{output}");
    server.set_arguments(&["--bind", "0.0.0.0", "--mode", "cache", "--requirepass", "-s"]);
    server.launch();
    assert_eq!(client_at(&server, ip).say("AUTH -s"), Value::ok());
    let (_, output) = server.terminate();
    assert!(!output.contains("WARN"), "{output}");
}
