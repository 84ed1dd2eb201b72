//! Scripts are atomic wherever their keys are, named or not, over one shard and over several.

use crate::support::{Client, Server, Value, eventually};
use std::thread;

/// One shard; several on one core; several on two.
fn servers() -> Vec<Server> {
    let shapes: [&[&str]; 3] = [
        &["--shards", "1"],
        &["--shards", "4", "--cores", "0"],
        &["--shards", "4", "--cores-in-use", "all"],
    ];
    shapes.iter().map(|shape| Server::start(shape)).collect()
}

fn eval(client: &mut Client, script: &str, words: &[&str]) -> Value {
    client.call(&[&["EVAL", script], words].concat())
}

/// Requests of `scripts.txt`, sent inline to the real redis-server and to ours: values of all kinds, errors, flags, libraries.
#[test]
fn replies_are_those_of_redis() {
    let redis = Server::start_redis(&[]);
    let mut oracle = redis.client();
    let servers = servers();
    let mut clients: Vec<Client> = servers.iter().map(Server::client).collect();
    for protocol in ["2", "3"] {
        for client in clients.iter_mut().chain([&mut oracle]) {
            client.call(&["HELLO", protocol]);
            assert_eq!(client.say("FLUSHALL"), Value::ok());
        }
        for line in include_str!("scripts.txt").lines() {
            let request = format!("{line}\r\n");
            let expected = oracle.pipeline(request.as_bytes(), 1);
            for client in &mut clients {
                let reply = client.pipeline(request.as_bytes(), 1);
                assert_eq!(reply, expected, "RESP{protocol}: {line}");
            }
        }
    }
}

#[test]
fn scripts_reach_keys_that_they_do_not_name() {
    for server in servers() {
        let mut client = server.client();
        let fill = "for i=1,300 do redis.call('set','user:'..i,i) end return redis.call('dbsize')";
        assert_eq!(eval(&mut client, fill, &["0"]), Value::Integer(300));
        // Each key is found in the one before it: more runs than are made with single keys.
        let chain = "local k='l0' for i=1,30 do redis.call('set',k,i) k=redis.call('get',k)..':n' end return k";
        assert_eq!(eval(&mut client, chain, &["0"]), Value::bulk("30:n"));
        let clear = "for _,k in ipairs(redis.call('keys','user:1*')) do redis.call('del',k) end return redis.call('dbsize')";
        assert_eq!(eval(&mut client, clear, &["0"]), Value::Integer(300 - 111 + 30));
        let scan = "local c='0' local n=0 repeat local r=redis.call('scan',c,'match','user:*','count',50) c=r[1] n=n+#r[2] until c=='0' return n";
        assert_eq!(eval(&mut client, scan, &["0"]), Value::Integer(189));
        let random = "return redis.call('exists', redis.call('randomkey'))";
        assert_eq!(eval(&mut client, random, &["0"]), Value::Integer(1));
        let flush = "redis.call('flushall') redis.call('set','z',1) return {redis.call('dbsize'), redis.call('keys','*')[1]}";
        let expected = Value::Array(vec![Value::Integer(1), Value::bulk("z")]);
        assert_eq!(eval(&mut client, flush, &["0"]), expected);
        assert_eq!(client.say("DBSIZE"), Value::Integer(1));
        assert_eq!(eval(&mut client, "return redis.call('swapdb',0,3)", &["0"]), Value::ok());
        assert_eq!(client.say("DBSIZE"), Value::Integer(0));
    }
}

/// What an error leaves is what was done before it, as in Redis.
#[test]
fn scripts_that_fail_keep_what_they_did() {
    for server in servers() {
        let mut client = server.client();
        let failing = "redis.call('set','a',1) redis.call('set','b',2) redis.call('nope')";
        assert!(eval(&mut client, failing, &["1", "a"]).is_error());
        assert_eq!(client.say("GET b"), Value::bulk("2"));
    }
}

/// What the connection asks for next sees what the script did, although it had to run again.
#[test]
fn requests_behind_a_script_come_behind_it() {
    for server in servers() {
        let mut client = server.client();
        let mut bytes = Vec::new();
        for n in 0..50 {
            let key = format!("k{}", n % 7);
            let script = format!("return redis.call('incr','k'..{})", n % 7);
            for request in [&["EVAL", &script, "0"][..], &["GET", &key]] {
                bytes.extend(crate::support::client::encode(request));
            }
        }
        let replies = client.pipeline(&bytes, 100);
        for pair in replies.chunks_exact(2) {
            assert_eq!(Value::bulk(pair[0].integer().to_string()), pair[1]);
        }
    }
}

#[test]
fn concurrent_scripts_over_shards_lose_nothing() {
    for server in servers() {
        let port = server.port();
        let adder = move || {
            let mut client = Client::connect(port);
            let script = "for i=1,5 do local k='sum'..i redis.call('set',k,(redis.call('get',k) or 0)+1) end";
            for _ in 0..100 {
                assert!(!eval(&mut client, script, &["1", "sum1"]).is_error());
            }
        };
        let adders: Vec<_> = (0..4).map(|_| thread::spawn(adder)).collect();
        adders.into_iter().for_each(|adder| adder.join().expect("it adds"));
        let mut client = server.client();
        for n in 1..=5 {
            assert_eq!(client.say(&format!("GET sum{n}")), Value::bulk("400"));
        }
    }
}

/// A script in EXEC sees what stands before it, and what asks all cores is asked once though the script runs again.
#[test]
fn scripts_are_steps_of_transactions() {
    for server in servers() {
        let mut client = server.client();
        assert_eq!(client.say("MULTI"), Value::ok());
        client.say("SET m 5");
        client.say("CLIENT SETNAME somebody");
        let add = "redis.call('incr','other') return redis.call('incrby','m',10)";
        assert_eq!(eval(&mut client, add, &["0"]), Value::Simple("QUEUED".into()));
        client.say("GET m");
        eval(&mut client, "return #redis.call('keys','*')", &["0"]);
        let expected = vec![
            Value::ok(),
            Value::ok(),
            Value::Integer(15),
            Value::bulk("15"),
            Value::Integer(2),
        ];
        assert_eq!(client.say("EXEC"), Value::Array(expected));
        assert_eq!(client.say("WATCH m"), Value::ok());
        assert_eq!(server.client().say("SET m 1"), Value::ok());
        client.say("MULTI");
        eval(&mut client, "return redis.call('set','never',1)", &["0"]);
        assert!(!client.say("EXEC").is_error());
        assert_eq!(client.say("EXISTS never"), Value::Integer(0));
    }
}

/// A loaded script is known to connections of all cores; SCRIPT FLUSH ends that.
#[test]
fn a_script_is_known_on_all_cores() {
    let server = Server::start(&["--shards", "4", "--cores-in-use", "all"]);
    let digest = server.client().call(&["SCRIPT", "LOAD", "return ARGV[1]"]).text();
    for _ in 0..8 {
        let reply = server.client().call(&["EVALSHA", &digest, "0", "x"]);
        assert_eq!(reply, Value::bulk("x"));
    }
    assert_eq!(server.client().say("SCRIPT FLUSH"), Value::ok());
    for _ in 0..8 {
        let reply = server.client().call(&["EVALSHA", &digest, "0", "x"]);
        assert!(reply.error().starts_with("NOSCRIPT"), "{reply:?}");
    }
}

/// Scripts that do not end are ended by SCRIPT KILL of another core, or by the limit; nothing of them is done.
#[test]
fn endless_scripts_are_ended() {
    let server =
        Server::start(&["--shards", "2", "--cores-in-use", "all", "--script-time-limit", "0"]);
    let port = server.port();
    let endless = thread::spawn(move || {
        let script =
            "redis.call('set','a',1) while true do pcall(function() while true do end end) end";
        eval(&mut Client::connect(port), script, &["1", "a"])
    });
    let mut killers: Vec<Client> = Vec::new();
    eventually("the script is killed", || {
        if endless.is_finished() {
            return Some(());
        }
        // One that is on the other core: those on the busy one are not answered.
        if let Ok(mut client) = Client::try_connect(port) {
            client.try_send(&crate::support::client::encode(&["SCRIPT", "KILL"])).ok()?;
            killers.push(client);
        }
        None
    });
    let reply = endless.join().expect("it is answered");
    assert!(reply.error().starts_with("ERR Script killed by user"), "{reply:?}");
    assert_eq!(server.client().say("EXISTS a"), Value::Integer(0));
    let limited = Server::start(&["--shards", "1", "--script-time-limit", "50"]);
    let mut client = limited.client();
    let reply = eval(&mut client, "redis.call('set','a',1) while true do end", &["1", "a"]);
    assert!(reply.error().starts_with("ERR Script ran longer"), "{reply:?}");
    assert_eq!(client.say("EXISTS a"), Value::Integer(0));
}

/// An interpreter has so much memory; the server goes on.
#[test]
fn a_script_may_not_take_all_memory() {
    let server = Server::start(&["--shards", "1", "--script-memory", "8mb"]);
    let mut client = server.client();
    let greedy = "local t={} for i=1,1e9 do t[i]=string.rep('x',1000)..i end";
    let reply = eval(&mut client, greedy, &["0"]);
    assert!(reply.error().contains("not enough memory"), "{reply:?}");
    assert_eq!(eval(&mut client, "return 1", &["0"]), Value::Integer(1));
}
