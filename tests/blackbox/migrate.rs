//! MIGRATE to and from a real Redis and between servers of ours: what it says, what it moves, and
//! that nothing is lost when either side, or the way between them, fails.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};

use crate::rdb::{contents, fill, same};
use crate::support::client::encode;
use crate::support::{Chance, Client, Server, Value, eventually, kill_cycles};

/// Moves all keys of a database, in one request.
fn move_all(from: &Server, to: &Server, database: usize) {
    let mut client = from.client();
    assert_eq!(client.say(&format!("SELECT {database}")), Value::ok());
    let keys: Vec<String> = client.say("KEYS *").elements().iter().map(Value::text).collect();
    let port = to.port().to_string();
    let mut words =
        ["MIGRATE", "127.0.0.1", &port, "", "", "10000", "KEYS"].map(String::from).to_vec();
    words[4] = database.to_string();
    words.extend(keys);
    assert_eq!(client.call(&words), Value::ok());
    assert_eq!(client.say("DBSIZE"), Value::Integer(0));
}

/// What a server holds, but for the milliseconds that a deadline is late by: it travels as what is
/// left of it.
fn seen(server: &Server) -> Vec<String> {
    let rounded = |line: String| match line.rsplit_once(" :") {
        Some((head, time)) if time.len() == 13 => {
            let time: i64 = time.parse().expect("a time");
            format!("{head} :{}", (time + 500_000) / 1_000_000)
        }
        _ => line,
    };
    contents(&mut server.client()).into_iter().map(rounded).collect()
}

#[test]
fn every_type_moves_to_redis_and_back_and_on() {
    let ours = Server::start(&["--shards", "3", "--cores", "0,1", "--cores-in-use", "all"]);
    fill(&mut ours.client());
    let before = seen(&ours);
    let redis = Server::start_redis(&[]);
    let other = Server::start(&["--shards", "4"]);
    let last = Server::start(&["--shards", "1"]);
    for (from, to) in [(&ours, &redis), (&redis, &other), (&other, &last)] {
        for database in [0, 3] {
            move_all(from, to, database);
        }
        same(&seen(to), &before);
    }
}

#[test]
fn fields_with_deadlines_move_and_redis_7_0_refuses_them() {
    let (ours, other) = (Server::start(&["--shards", "2"]), Server::start(&["--shards", "2"]));
    let redis = Server::start_redis(&[]);
    let (mut client, mut there) = (ours.client(), other.client());
    client.say("HSET h a 1 b 2");
    client.say("HPEXPIREAT h 4000000000000 FIELDS 1 a");
    let reply = client.say(&format!("MIGRATE 127.0.0.1 {} h 0 5000", redis.port()));
    let text =
        "ERR Target instance replied with error: ERR DUMP payload version or checksum are wrong";
    assert_eq!(reply, Value::Error(text.into()));
    assert_eq!(client.say(&format!("MIGRATE 127.0.0.1 {} h 0 5000", other.port())), Value::ok());
    assert_eq!(client.say("EXISTS h"), Value::Integer(0));
    let deadlines = there.say("HPEXPIRETIME h FIELDS 2 a b");
    assert_eq!(deadlines.elements(), [Value::Integer(4_000_000_000_000), Value::Integer(-1)]);
}

/// Requests, with `PORT` for the target's port and `DEAD` for one at which nobody listens.
const LINES: &[&str] = &[
    "MIGRATE 127.0.0.1 PORT nothing 0 5000",
    "MIGRATE 127.0.0.1 DEAD nothing 0 5000",
    "MIGRATE 127.0.0.1 PORT nothing 0",
    "MIGRATE 127.0.0.1 PORT nothing x 5000",
    "MIGRATE 127.0.0.1 PORT nothing 0 x",
    "MIGRATE 127.0.0.1 PORT nothing 0 5000 NOSUCH",
    "MIGRATE 127.0.0.1 PORT nothing 0 5000 AUTH",
    "MIGRATE 127.0.0.1 PORT nothing 0 5000 AUTH2 u",
    "MIGRATE 127.0.0.1 PORT a 0 5000 KEYS a b",
    "MIGRATE 127.0.0.1 PORT \"\" 0 5000 KEYS",
    "MIGRATE 127.0.0.1 PORT \"\" 0 5000 KEYS x y",
    "MIGRATE 127.0.0.1 PORT \"\" 0 5000",
    "MSET a 1 b 2 c 3 d 4",
    "MIGRATE 127.0.0.1 DEAD a 0 5000",
    "MIGRATE 127.0.0.1 nonsense a 0 5000",
    "MIGRATE 127.0.0.1 PORT a 0 5000 COPY",
    "EXISTS a",
    "MIGRATE 127.0.0.1 PORT a 0 5000",
    "EXISTS a",
    "MIGRATE 127.0.0.1 PORT a 0 5000 REPLACE",
    "EXISTS a",
    "MIGRATE 127.0.0.1 PORT b 0 -1 copy replace",
    "MIGRATE 127.0.0.1 PORT \"\" 0 5000 KEYS b c nothing",
    "EXISTS b c",
    "MIGRATE 127.0.0.1 PORT d 99 5000",
    "EXISTS d",
    "MIGRATE 127.0.0.1 PORT d 0 5000 AUTH wrong",
    "EXISTS d",
    "MIGRATE 127.0.0.1 PORT d 0 5000 AUTH2 nobody wrong",
    "MIGRATE 127.0.0.1 PORT d 1 5000",
    "EXISTS a b c d",
    "COMMAND GETKEYS MIGRATE h 1 a 0 9",
    "COMMAND GETKEYS MIGRATE h 1 \"\" 0 9 AUTH KEYS COPY KEYS a b",
];

#[test]
fn replies_are_those_of_redis() {
    let target = Server::start_redis(&[]);
    let dead = crate::support::server::free_port();
    let mut talks = Vec::new();
    for source in [Server::start(&["--shards", "3"]), Server::start_redis(&[])] {
        let mut there = target.client();
        there.say("FLUSHALL");
        let mut client = source.client();
        let talk: Vec<String> = LINES
            .iter()
            .map(|line| {
                let words = line.split(' ').map(|word| match word {
                    "PORT" => target.port().to_string(),
                    "DEAD" => dead.to_string(),
                    "\"\"" => String::new(),
                    word => word.into(),
                });
                let reply = client.call(&words.collect::<Vec<_>>());
                format!("{line}: {reply:?}")
            })
            .collect();
        talks.push(talk);
        assert_eq!(there.say("MGET a b c").elements().len(), 3);
        assert_eq!(there.say("SELECT 1"), Value::ok());
        assert_eq!(there.say("GET d"), Value::bulk("4"));
    }
    same(&talks[0], &talks[1]);
}

#[test]
fn a_target_with_a_password_is_told_it() {
    let redis = Server::start_redis(&[]);
    let mut there = redis.client();
    there.say("ACL SETUSER mover on >word ~* +@all");
    there.say("CONFIG SET requirepass secret");
    let ours = Server::start(&["--shards", "2"]);
    let (mut client, port) = (ours.client(), redis.port());
    client.say("MSET a 1 b 2");
    let reply = client.say(&format!("MIGRATE 127.0.0.1 {port} a 0 5000"));
    let text = "ERR Target instance replied with error: NOAUTH Authentication required.";
    assert_eq!(reply, Value::Error(text.into()));
    assert_eq!(client.say(&format!("MIGRATE 127.0.0.1 {port} a 0 5000 AUTH secret")), Value::ok());
    let line = format!("MIGRATE 127.0.0.1 {port} b 0 5000 AUTH2 mover word");
    assert_eq!(client.say(&line), Value::ok());
    assert_eq!(there.say("MGET a b"), Value::Array(vec![Value::bulk("1"), Value::bulk("2")]));
}

#[test]
fn connections_are_kept_for_the_next_and_made_anew_when_they_are_gone() {
    let (redis, ours) = (Server::start_redis(&[]), Server::start(&["--shards", "1"]));
    let (mut client, mut there) = (ours.client(), redis.client());
    let before = redis.info_number("total_connections_received");
    let mut go = |key: &str| {
        client.say(&format!("SET {key} v"));
        assert_eq!(
            client.say(&format!("MIGRATE 127.0.0.1 {} {key} 0 5000", redis.port())),
            Value::ok()
        );
    };
    go("a");
    go("b");
    // INFO takes a connection of its own.
    assert_eq!(redis.info_number("total_connections_received"), before + 2);
    there.say("CLIENT KILL TYPE normal SKIPME yes");
    go("c");
    assert_eq!(there.say("DBSIZE"), Value::Integer(3));
}

#[test]
fn it_is_refused_in_transactions_and_scripts_and_to_those_without_rights() {
    let ours = Server::start(&["--shards", "2"]);
    let mut client = ours.client();
    client.say("SET key v");
    client.say("MULTI");
    let text = "ERR Command not allowed inside a transaction";
    assert_eq!(client.say("MIGRATE 127.0.0.1 1 key 0 5000"), Value::Error(text.into()));
    assert!(client.say("EXEC").error().starts_with("EXECABORT"));
    let script = "return redis.call('migrate', '127.0.0.1', '1', 'key', '0', '100')";
    assert!(client.call(&["EVAL", script, "0"]).error().contains("not allowed from script"));
    client.say("ACL SETUSER some on nopass ~mine* +@all");
    client.say("AUTH some x");
    let denied = "NOPERM No permissions to access a key";
    assert_eq!(client.say("MIGRATE 127.0.0.1 1 key 0 5000"), Value::Error(denied.into()));
    let words = ["MIGRATE", "127.0.0.1", "1", "", "0", "5000", "KEYS", "mine", "key"];
    assert_eq!(client.call(&words), Value::Error(denied.into()));
    assert_eq!(client.call(&words[..8]), Value::Simple("NOKEY".into()));
}

/// What a target of ours does with the RESTOREs that it gets.
#[derive(Clone, Copy)]
enum Manner {
    /// It answers nothing.
    Silent,
    /// It answers so many, then half a reply, and closes.
    Answers(usize),
}

/// A target that is no server: it accepts SELECT. Returns its port, and what tells that a RESTORE
/// has come; it closes its connection when that is dropped.
fn target(manner: Manner) -> (u16, Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let (came, comes) = channel();
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("a client");
        let (mut input, mut seen) = (Vec::new(), 0);
        socket.set_read_timeout(Some(std::time::Duration::from_millis(20))).expect("a time");
        loop {
            let mut buffer = [0; 65536];
            match socket.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => input.extend_from_slice(&buffer[..count]),
                Err(_) if came.send(()).is_err() => return,
                Err(_) => continue,
            }
            if input.windows(6).any(|word| word == b"SELECT") {
                input.clear();
                socket.write_all(b"+OK\r\n").expect("it reads");
            }
            let restores = input.windows(7).filter(|word| word == b"RESTORE").count();
            let Manner::Answers(count) = manner else { continue };
            while seen < restores {
                if seen == count {
                    return drop(socket.write_all(b"+O"));
                }
                socket.write_all(b"+OK\r\n").expect("it reads");
                seen += 1;
            }
        }
    });
    (port, comes)
}

/// Waits until the target has been silent once after something has come.
fn wait_for_restore(comes: &Receiver<()>) {
    while comes.try_recv().is_ok() {}
    comes.recv().expect("the target lives");
}

#[test]
fn a_silent_target_holds_up_its_keys_alone_and_not_for_ever() {
    let ours = Server::start(&["--shards", "2", "--cores", "0,1", "--cores-in-use", "all"]);
    let (mut client, mut writer, mut other) = (ours.client(), ours.client(), ours.client());
    other.say("MSET key old free 1");
    let (port, comes) = target(Manner::Silent);
    client.send(&encode(&["MIGRATE", "127.0.0.1", &port.to_string(), "key", "0", "60000"]));
    wait_for_restore(&comes);
    // What it has asked for is on its way, or has come: the key is locked.
    writer.send(&encode(&["SET", "key", "new"]));
    for _ in 0..100 {
        assert!(other.say("INCR free").integer() > 1);
    }
    assert_eq!((client.pending(), writer.pending()), (0, 0));
    assert!(other.say("CLIENT LIST").text().contains("cmd=migrate"));
    drop(comes);
    let text = "IOERR error or timeout reading from target instance";
    assert_eq!(client.read(), Value::Error(text.into()));
    assert_eq!(writer.read(), Value::ok());
    assert_eq!(client.say("GET key"), Value::bulk("new"));
    // Silence for longer than the timeout.
    let (port, _comes) = target(Manner::Silent);
    assert_eq!(
        client.say(&format!("MIGRATE 127.0.0.1 {port} key 0 100")),
        Value::Error(text.into())
    );
    assert_eq!(client.say("GET key"), Value::bulk("new"));
}

#[test]
fn locks_last_as_long_as_the_target_takes_and_copies_let_readers_pass() {
    let ours = Server::start(&["--shards", "2"]);
    let (mut client, mut reader) = (ours.client(), ours.client());
    reader.say("SET key v");
    let (port, comes) = target(Manner::Silent);
    client.send(&encode(&["MIGRATE", "127.0.0.1", &port.to_string(), "key", "0", "13000", "COPY"]));
    wait_for_restore(&comes);
    assert_eq!(reader.say("GET key"), Value::bulk("v"));
    // Locks that nobody keeps are given up after ten seconds: this one was not.
    let text = "IOERR error or timeout reading from target instance";
    assert_eq!(client.read(), Value::Error(text.into()));
}

#[test]
fn exactly_what_was_acknowledged_is_deleted() {
    let ours = Server::start(&["--shards", "3"]);
    let mut client = ours.client();
    client.say("MSET {t}a 1 {t}b 2 {t}c 3");
    let (port, _comes) = target(Manner::Answers(1));
    let words = ["MIGRATE", "127.0.0.1", "", "", "0", "5000", "KEYS", "{t}a", "{t}b", "{t}c"];
    let mut words = words.map(String::from);
    words[2] = port.to_string();
    let text = "IOERR error or timeout reading from target instance";
    assert_eq!(client.call(&words), Value::Error(text.into()));
    assert_eq!(client.say("EXISTS {t}a"), Value::Integer(0));
    assert_eq!(client.say("EXISTS {t}b {t}c"), Value::Integer(2));
}

#[test]
fn the_end_of_the_server_does_not_wait_for_a_target() {
    let mut ours = Server::start(&["--shards", "2", "--fsync", "always"]);
    let mut client = ours.client();
    client.say("SET key v");
    let (port, comes) = target(Manner::Silent);
    client.send(&encode(&["MIGRATE", "127.0.0.1", &port.to_string(), "key", "0", "3600000"]));
    wait_for_restore(&comes);
    let (status, log) = ours.terminate();
    assert!(status.success(), "{log}");
    let text = "IOERR error or timeout reading from target instance";
    assert_eq!(client.read(), Value::Error(text.into()));
    ours.launch();
    assert_eq!(ours.client().say("GET key"), Value::bulk("v"));
    // The same with the client gone, and a kill.
    let (port, comes) = target(Manner::Silent);
    let mut client = ours.client();
    client.send(&encode(&["MIGRATE", "127.0.0.1", &port.to_string(), "key", "0", "3600000"]));
    wait_for_restore(&comes);
    client.reset();
    ours.kill();
    ours.launch();
    assert_eq!(ours.client().say("GET key"), Value::bulk("v"));
}

/// A second connection attempt is made for nobody: a port where connecting takes its time.
fn full_backlog() -> (TcpListener, Vec<TcpStream>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().expect("an address");
    socket.bind(&any.into()).expect("a port");
    socket.listen(0).expect("it listens");
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().expect("bound");
    let patience = std::time::Duration::from_millis(200);
    let mut taken = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, patience) {
        taken.push(stream);
    }
    (listener, taken)
}

#[test]
fn the_end_of_the_server_does_not_wait_for_a_connection() {
    let mut ours = Server::start(&["--shards", "2"]);
    let (mut client, mut other) = (ours.client(), ours.client());
    client.say("SET key v");
    let (listener, _taken) = full_backlog();
    let port = listener.local_addr().expect("bound").port().to_string();
    client.send(&encode(&["MIGRATE", "127.0.0.1", &port, "key", "0", "3600000"]));
    eventually("it is under way", || {
        other.say("CLIENT LIST").text().contains("cmd=migrate").then_some(())
    });
    let (status, log) = ours.terminate();
    assert!(status.success(), "{log}");
    assert_eq!(client.read(), Value::Error("ERR the server is shutting down".into()));
}

#[test]
fn no_increment_beside_it_is_lost_or_counted_twice() {
    let ours = Server::start(&["--shards", "3", "--cores", "0,1", "--cores-in-use", "all"]);
    let other = Server::start(&["--shards", "2"]);
    let (counted, ends) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut moved = 0;
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let mut client = ours.client();
            let (counted, ends) = (&counted, &ends);
            scope.spawn(move || {
                while !ends.load(Ordering::Relaxed) {
                    assert!(client.say("INCR counter").integer() > 0);
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let (mut client, mut there) = (ours.client(), other.client());
        let line = format!("MIGRATE 127.0.0.1 {} counter 0 5000", other.port());
        for _ in 0..100 {
            let reply = client.say(&line);
            if reply != Value::Simple("NOKEY".into()) {
                assert_eq!(reply, Value::ok());
                moved += there.say("GETDEL counter").text().parse::<u64>().expect("a number");
            }
        }
        ends.store(true, Ordering::Relaxed);
    });
    let left = match ours.client().say("GET counter") {
        Value::Null => 0,
        left => left.text().parse().expect("a number"),
    };
    assert_eq!(moved + left, counted.load(Ordering::Relaxed));
    assert!(moved > 0);
}

/// The value of a key of the kill test: long enough that some are on their way at any time.
fn value_of(key: usize) -> String {
    format!("{key}:").repeat(1 + key % 400)
}

/// Moves keys until the connection breaks, counting requests.
fn keep_moving(mut client: Client, port: u16, seed: u64, keys: usize, count: &AtomicU64) {
    let mut chance = Chance::seeded(seed);
    loop {
        let mut words =
            ["MIGRATE", "127.0.0.1", "", "", "0", "2000", "KEYS"].map(String::from).to_vec();
        words[2] = port.to_string();
        words.extend((0..20).map(|_| format!("key:{}", chance.below(keys as u64))));
        match client.try_call(&words) {
            Ok(_) => count.fetch_add(1, Ordering::Relaxed),
            Err(_) => return,
        };
    }
}

#[test]
fn kills_of_either_side_leave_every_key_at_one_or_both() {
    const KEYS: usize = 400;
    let mut chance = Chance::new("kills_of_either_side_leave_every_key_at_one_or_both");
    let arguments =
        ["--shards", "3", "--fsync", "always", "--cores", "0,1", "--cores-in-use", "all"];
    let mut servers = [Server::start(&arguments), Server::start(&arguments)];
    for key in 0..KEYS {
        let set = servers[0].client().call(&["SET", &format!("key:{key}"), &value_of(key)]);
        assert_eq!(set, Value::ok());
    }
    for _ in 0..kill_cycles() {
        let (victim, kill_after) = (chance.below(2) as usize, 1 + chance.below(20));
        let seeds = [chance.next(), chance.next()];
        let count = AtomicU64::new(0);
        let ports = [servers[1].port(), servers[0].port()];
        std::thread::scope(|scope| {
            let mut clients: Vec<Client> = servers.iter().map(Server::client).collect();
            for (client, (port, seed)) in clients.drain(..).zip(ports.into_iter().zip(seeds)) {
                let count = &count;
                scope.spawn(move || keep_moving(client, port, seed, KEYS, count));
            }
            eventually("keys move", || (count.load(Ordering::Relaxed) >= kill_after).then_some(()));
            servers[victim].kill();
            // The other one's client is sent away, whatever it waits for.
            servers[1 - victim].kill();
        });
        servers.iter_mut().for_each(Server::launch);
        let mut clients: Vec<Client> = servers.iter().map(Server::client).collect();
        for key in 0..KEYS {
            let found: Vec<Value> =
                clients.iter_mut().map(|client| client.say(&format!("GET key:{key}"))).collect();
            let value = Value::bulk(value_of(key));
            assert!(found.contains(&value), "key {key} is at none, or has another value");
            assert!(found.iter().all(|one| *one == value || *one == Value::Null), "key {key}");
            if found[0] == found[1] {
                // At both: one goes, so that it can move again.
                assert_eq!(clients[1].say(&format!("DEL key:{key}")), Value::Integer(1));
            }
        }
    }
}
