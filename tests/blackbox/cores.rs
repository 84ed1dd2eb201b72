//! Cores that follow the load: a server begins on one, takes all when it is told to, and gives back
//! those that it does not need. (When it takes more by itself depends on what else the machine
//! does; that is tested in virtual time, `core/place/policy.rs`.)

use crate::support::client::encode;
use crate::support::{Client, Server, Value, eventually};
use std::collections::HashMap;
use std::time::Duration;

/// The fields of a core's line in INFO.
fn core_line(server: &Server, core: usize) -> HashMap<String, String> {
    let line = server.info(&format!("core{core}"));
    let pairs = line.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn number(server: &Server, core: usize, field: &str) -> u64 {
    core_line(server, core)[field].parse().expect("a number")
}

fn core_count(server: &Server) -> usize {
    server.info_number("cores") as usize
}

/// The core that is in use when one is.
fn home(server: &Server) -> usize {
    let cores = 0..core_count(server);
    cores.max_by_key(|core| number(server, *core, "shards")).expect("there is a core")
}

fn shards_by_core(server: &Server) -> Vec<u64> {
    (0..core_count(server)).map(|core| number(server, core, "shards")).collect()
}

fn wait_for_cores_in_use(server: &Server, count: usize) {
    eventually("so many cores are in use and have the shards", || {
        // Questions are work, and what is to be seen is a server without any.
        std::thread::park_timeout(Duration::from_millis(100));
        let in_use = server.info_number("cores_in_use") as usize;
        let with_shards = shards_by_core(server).iter().filter(|shards| **shards > 0).count();
        ((in_use, with_shards) == (count, count)).then_some(())
    });
}

#[test]
fn a_server_begins_on_one_core_and_uses_as_many_as_it_is_told() {
    for mode in ["store", "cache"] {
        let mut server =
            Server::start(&["--shards", "4", "--cores-in-use", "auto", "--mode", mode]);
        let cores = core_count(&server);
        assert_eq!(server.info_number("cores_in_use"), 1);
        assert_eq!(shards_by_core(&server).iter().max(), Some(&4));
        let mut client = server.client();
        let all = |n: u64| -> Vec<Vec<u8>> {
            (0..200).map(|k| encode(&["SET", &format!("k:{k}"), &format!("{k}.{n}")])).collect()
        };
        let whole = |client: &mut Client, n: u64| {
            let reads = (0..200).map(|k| encode(&["GET", &format!("k:{k}")]));
            let replies = client.pipeline(&reads.collect::<Vec<_>>().concat(), 200);
            for (k, reply) in replies.iter().enumerate() {
                assert_eq!(*reply, Value::bulk(format!("{k}.{n}")));
            }
        };
        for (n, (word, in_use)) in [("all", cores), ("auto", 1), ("all", cores)].iter().enumerate()
        {
            client.pipeline(&all(n as u64).concat(), 200);
            assert_eq!(client.say(&format!("CONFIG SET cores-in-use {word}")), Value::ok());
            whole(&mut client, n as u64);
            wait_for_cores_in_use(&server, *in_use);
            whole(&mut client, n as u64);
            assert_eq!(client.say("DBSIZE"), Value::Integer(200));
        }
        let dealt: Vec<u64> =
            (0..cores).map(|core| (4 - core as u64).div_ceil(cores as u64)).collect();
        assert_eq!(shards_by_core(&server), dealt, "each on the core that it is dealt to");
        if mode == "store" {
            server.set_arguments(&["--cores-in-use", "all"]);
            server.restart();
            assert_eq!(shards_by_core(&server), dealt);
            whole(&mut server.client(), 2);
        }
    }
}

#[test]
fn clients_live_where_the_work_is_and_leave_a_core_that_is_left() {
    let server = Server::start(&["--shards", "4", "--mode", "cache", "--cores-in-use", "auto"]);
    let home = home(&server);
    let mut clients: Vec<Client> = (0..12).map(|_| server.client()).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.say("PING").text(), "PONG"));
    assert!(number(&server, home, "clients") >= 12);
    let cores = core_count(&server);
    let mut operator = server.client();
    assert_eq!(operator.say("CONFIG SET cores-in-use all"), Value::ok());
    wait_for_cores_in_use(&server, cores);
    // The clients that are there are shared out too.
    eventually("every core has some of the clients", || {
        clients.iter_mut().for_each(|client| assert_eq!(client.say("PING").text(), "PONG"));
        (0..cores).all(|core| number(&server, core, "clients") > 0).then_some(())
    });
    // Some cannot go at once.
    let mut blocked = server.client();
    blocked.send(b"BLPOP list 0\r\n");
    let mut queueing = server.client();
    assert_eq!(queueing.say("MULTI"), Value::ok());
    assert_eq!(queueing.say("INCR counter").text(), "QUEUED");
    let mut watching = server.client();
    assert_eq!(watching.say("WATCH counter"), Value::ok());
    assert_eq!(operator.say("CONFIG SET cores-in-use auto"), Value::ok());
    wait_for_cores_in_use(&server, 1);
    assert_eq!(queueing.say("EXEC"), Value::Array(vec![Value::Integer(1)]));
    watching.say("MULTI");
    watching.say("INCR counter");
    assert_eq!(watching.say("EXEC"), Value::NullArray);
    assert_eq!(operator.say("RPUSH list x"), Value::Integer(1));
    assert_eq!(blocked.read(), Value::Array(vec![Value::bulk("list"), Value::bulk("x")]));
    eventually("all clients are on the core in use", || {
        let others = (0..cores).filter(|core| number(&server, *core, "in_use") == 0);
        let there: u64 = others.map(|core| number(&server, core, "clients")).sum();
        (there == 0).then_some(())
    });
    clients.iter_mut().for_each(|client| assert_eq!(client.say("PING").text(), "PONG"));
}

#[test]
fn a_core_without_work_sleeps_without_a_timer() {
    let server = Server::start(&["--shards", "2", "--mode", "cache", "--cores-in-use", "auto"]);
    if core_count(&server) < 2 {
        return;
    }
    let home = home(&server);
    let idle = 1 - home.min(1);
    eventually("it makes only the turns that it is asked for", || {
        let (turns, home_turns) = (number(&server, idle, "turns"), number(&server, home, "turns"));
        // Ten ticks of the home core, and as many of our own questions as there are.
        let mut asked = 0;
        while number(&server, home, "turns") < home_turns + 30 {
            asked += 2;
            std::thread::park_timeout(Duration::from_millis(50));
        }
        (number(&server, idle, "turns") <= turns + 2 * (asked + 4)).then_some(())
    });
    // It is there when it is needed.
    assert_eq!(server.client().say(&format!("DEBUG MOVE-SHARD 1 {idle}")), Value::ok());
    assert_eq!(server.client().say("SET a 1"), Value::ok());
    assert_eq!(server.client().say("MSET a 2 b 2 c 2 d 2"), Value::ok());
}

#[test]
fn the_words_of_cores_in_use_and_spin_us() {
    let server = Server::start(&["--mode", "cache", "--cores-in-use", "auto"]);
    let mut client = server.client();
    let pair = |name: &str, value: &str| Value::Array(vec![Value::bulk(name), Value::bulk(value)]);
    assert_eq!(client.say("CONFIG GET cores-in-use"), pair("cores-in-use", "auto"));
    assert_eq!(client.say("CONFIG GET spin-us"), pair("spin-us", "auto"));
    for (command, is_good) in [
        ("CONFIG SET spin-us 0", true),
        ("CONFIG SET spin-us 20", true),
        ("CONFIG SET spin-us auto", true),
        ("CONFIG SET spin-us 1000001", false),
        ("CONFIG SET spin-us fast", false),
        ("CONFIG SET cores-in-use some", false),
        ("CONFIG SET cores-in-use all", true),
    ] {
        assert_eq!(client.say(command) == Value::ok(), is_good, "{command}");
    }
}
