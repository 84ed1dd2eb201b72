//! Clients that come through the unix socket.

use crate::support::server::binary;
use crate::support::tool::run;
use crate::support::{Server, Value, eventually};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

#[test]
fn clients_of_the_unix_socket_are_clients_like_others() {
    for shape in [&["--shards", "1"][..], &["--shards", "4", "--cores-in-use", "all"]] {
        let mut server = Server::prepare(crate::support::Program::Ringraft, &[]);
        let path = server.directory().join("ring.sock").to_string_lossy().into_owned();
        let unix = ["--unixsocket", &path, "--unixsocketperm", "700"];
        server.set_arguments(&[&unix[..], shape].concat());
        server.launch();
        let mode = fs::metadata(&path).expect("the socket's file").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let cli = |words: &[&str]| {
            let outcome = run("redis-cli", &[&["-s", &path][..], words].concat(), b"");
            assert!(outcome.status.success(), "{}", outcome.text);
            outcome.text
        };
        assert_eq!(cli(&["SET", "greeting", "hello"]), "OK\n");
        assert_eq!(server.client().say("GET greeting"), Value::bulk("hello"));
        assert_eq!(
            cli(&["CONFIG", "GET", "unixsocket*"]),
            format!("unixsocket\n{path}\nunixsocketperm\n700\n")
        );
        let line = cli(&["CLIENT", "INFO"]);
        assert!(line.contains(&format!(" addr={path}:0 laddr={path}:0 ")), "{line}");
        assert!(line.contains(" flags=U "), "{line}");
        // It is not a client of the network: nothing of TCP is asked of it.
        assert_eq!(cli(&["CONFIG", "SET", "tcp-keepalive", "60"]), "OK\n");
        assert_eq!(cli(&["DEBUG", "SLEEP", "0"]), "OK\n");
        let load =
            ["-s", &path, "-t", "set,get,mset", "-P", "16", "-n", "20000", "-r", "1000", "-q"];
        let outcome = run("redis-benchmark", &load, b"");
        assert!(outcome.status.success() && !outcome.text.contains("rror"), "{}", outcome.text);
        // A server that was killed leaves its file; the next one takes its place, and takes it away
        // in the end.
        server.kill();
        assert!(fs::exists(&path).expect("readable"));
        server.launch();
        assert_eq!(cli(&["GET", "greeting"]), "hello\n");
        assert!(server.terminate().0.success());
        assert!(!fs::exists(&path).expect("readable"), "{path} is still there");
    }
}

#[test]
fn a_path_in_use_is_refused() {
    let mut server = Server::prepare(crate::support::Program::Ringraft, &[]);
    let path = server.directory().join("ring.sock").to_string_lossy().into_owned();
    server.set_arguments(&["--unixsocket", &path]);
    let other = UnixListener::bind(&path).expect("a free path");
    let refusal = server.try_launch().expect_err("somebody listens there");
    assert!(refusal.output.contains("another process listens there"), "{}", refusal.output);
    drop(other);
    fs::remove_file(&path).expect("our own");
    fs::write(&path, "precious").expect("writable");
    let refusal = server.try_launch().expect_err("it is a text");
    assert!(refusal.output.contains("it is there and is no socket"), "{}", refusal.output);
    assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
}

#[test]
fn without_a_port_the_unix_socket_is_the_way_in() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ring.sock").to_string_lossy().into_owned();
    let start = |arguments: &[&str]| {
        Command::new(binary())
            .args(["--port", "0", "--mode", "cache"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .current_dir(folder.path())
            .spawn()
            .expect("the program")
    };
    let refused = start(&[]).wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("0 leaves clients no way in"), "{text}");
    let mut server = start(&["--unixsocket", &path]);
    eventually("it answers", || {
        let outcome = run("redis-cli", &["-s", &path, "PING"], b"");
        (outcome.text == "PONG\n").then_some(())
    });
    assert!(
        run("redis-cli", &["-s", &path, "INFO", "server"], b"").text.contains("tcp_port:0\r\n")
    );
    run("redis-cli", &["-s", &path, "SHUTDOWN"], b"");
    assert!(server.wait().expect("it ends").success());
}
