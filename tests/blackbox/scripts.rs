//! Scripts are atomic wherever their keys are, named or not, over one shard and over several.

use crate::support::oracle::{agree_with_redis, servers};
use crate::support::{Client, Server, Value, eventually};
use std::thread;

fn eval(client: &mut Client, script: &str, words: &[&str]) -> Value {
    client.call(&[&["EVAL", script], words].concat())
}

/// Requests of `scripts.txt`, sent inline to the real redis-server and to ours: values of all
/// kinds, errors, flags, libraries.
#[test]
fn replies_are_those_of_redis() {
    agree_with_redis(include_str!("scripts.txt"), &["FLUSHALL"]);
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

/// A script in EXEC sees what stands before it, and what asks all cores is asked once though the
/// script runs again.
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

/// Scripts that do not end are ended by SCRIPT KILL of another core, or by the limit; nothing of
/// them is done.
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

/// Servers whose scripts are told of soon, with one core in use and with two.
fn impatient_servers() -> Vec<Server> {
    let shapes: [&[&str]; 4] = [
        &["--shards", "1", "--cores", "0"],
        &["--shards", "4", "--cores", "0"],
        &["--shards", "4", "--cores-in-use", "all"],
        &["--shards", "1", "--mode", "cache"],
    ];
    let impatient = ["--busy-reply-threshold", "20", "--script-time-limit", "0"];
    shapes.iter().map(|shape| Server::start(&[shape, &impatient[..]].concat())).collect()
}

const ENDLESS: &str = "redis.call('set',KEYS[1],1) redis.pcall('nope') \
    while true do pcall(function() table.sort({3,2,1}, function(a,b) for i=1,1e5 do end return a<b end) end) end";

fn until_busy(client: &mut Client) {
    eventually("others are told", || {
        let reply = client.say("GET other");
        reply.is_error().then(|| assert!(reply.error().starts_with("BUSY "), "{reply:?}"))
    });
}

/// Others hear BUSY, may still do what ends the script, and find nothing of it done; also on the
/// script's own core.
#[test]
fn others_are_told_of_a_long_script_and_may_kill_it() {
    for server in impatient_servers() {
        let port = server.port();
        let endless = thread::spawn(move || eval(&mut Client::connect(port), ENDLESS, &["1", "a"]));
        let (mut first, mut second) = (server.client(), server.client());
        until_busy(&mut first);
        until_busy(&mut second);
        let busy = "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";
        for refused in [
            "PING",
            "SET x 1",
            "EVAL 'return 1' 0",
            "FUNCTION KILL",
            "FUNCTION STATS",
            "SHUTDOWN",
            "CONFIG GET port",
        ] {
            assert_eq!(second.say(refused).error(), busy, "{refused}");
        }
        assert_eq!(second.say("MULTI"), Value::ok());
        assert_eq!(second.say("SET x 1").error(), busy);
        assert_eq!(first.say("SCRIPT KILL"), Value::ok());
        let reply = endless.join().expect("it is answered");
        assert!(reply.error().starts_with("ERR Script killed by user"), "{reply:?}");
        assert!(second.say("EXEC").error().starts_with("EXECABORT"));
        assert_eq!(first.say("EXISTS a x"), Value::Integer(0));
        assert!(first.say("SCRIPT KILL").error().starts_with("NOTBUSY"));
        assert_eq!(
            eval(&mut second, "return redis.call('incr',KEYS[1])", &["1", "a"]),
            Value::Integer(1)
        );
    }
}

/// The same for functions, by their own word.
#[test]
fn long_functions_are_shown_and_killed() {
    for server in impatient_servers() {
        let mut client = server.client();
        let code = "#!lua name=l\nredis.register_function('endless', function(k) redis.call('set',k[1],1) while true do end end)";
        assert_eq!(client.call(&["FUNCTION", "LOAD", code]), Value::bulk("l"));
        let port = server.port();
        let endless = thread::spawn(move || Client::connect(port).say("FCALL endless 1 a"));
        until_busy(&mut client);
        let stats = client.say("FUNCTION STATS");
        let running = stats.elements()[1].elements();
        assert_eq!(running[1], Value::bulk("endless"));
        let command = ["FCALL", "endless", "1", "a"].map(Value::bulk).to_vec();
        assert_eq!(running[3], Value::Array(command));
        assert!(running[5].integer() >= 20);
        let refused = client.say("SCRIPT KILL");
        assert!(refused.error().starts_with("BUSY ") && refused.error().contains("FUNCTION KILL"));
        assert_eq!(client.say("FUNCTION KILL"), Value::ok());
        let reply = endless.join().expect("it is answered");
        assert!(reply.error().starts_with("ERR Script killed by user"), "{reply:?}");
        assert_eq!(client.say("FUNCTION STATS").elements()[1], Value::Null);
        assert_eq!(client.say("EXISTS a"), Value::Integer(0));
    }
}

/// A long script that ends does what it did, and what waited for its keys comes behind it; several
/// may rest at once.
#[test]
fn a_long_script_that_ends_is_done() {
    for server in impatient_servers() {
        let mut client = server.client();
        assert_eq!(client.say("CONFIG SET busy-reply-threshold 1"), Value::ok());
        let port = server.port();
        let long = "for i=1,10 do redis.call('incr',KEYS[1]) for j=1,1e6 do end end return redis.call('get',KEYS[1])";
        let runs: Vec<_> = (0..3)
            .map(|n| {
                thread::spawn(move || {
                    let mut client = Client::connect(port);
                    let key = format!("k{n}");
                    eventually("it is let in", || {
                        let reply = eval(&mut client, long, &["1", &key]);
                        (!reply.is_error()).then(|| assert_eq!(reply, Value::bulk("10")))
                    });
                })
            })
            .collect();
        runs.into_iter().for_each(|run| run.join().expect("it ends"));
        eventually("nothing is busy", || (!client.say("PING").is_error()).then_some(()));
        for n in 0..3 {
            assert_eq!(client.say(&format!("GET k{n}")), Value::bulk("10"));
        }
    }
}

/// SHUTDOWN NOSAVE, a signal and the limit end a script that rests.
#[test]
fn a_server_ends_while_a_script_runs() {
    for way in ["SHUTDOWN NOSAVE", "a signal", "a limit"] {
        // Locks are given up after ten seconds: once is enough of that.
        let count = if way == "a limit" { 1 } else { 3 };
        for mut server in impatient_servers().into_iter().take(count) {
            let port = server.port();
            let endless = thread::spawn(move || {
                let words = ["EVAL", ENDLESS, "1", "a"];
                Client::connect(port).try_call(&words)
            });
            let mut client = server.client();
            until_busy(&mut client);
            match way {
                "SHUTDOWN NOSAVE" => {
                    client.send(b"SHUTDOWN NOSAVE\r\n");
                    assert!(server.wait_for_exit().0.success());
                }
                "a signal" => assert!(server.terminate().0.success()),
                _ => {
                    // Its locks are given up after a while, whatever the limit says.
                    let reply = endless.join().expect("no panic").expect("it is answered");
                    assert!(reply.is_error());
                    eventually("others are served", || {
                        (!client.say("SET a 2").is_error()).then_some(())
                    });
                    continue;
                }
            }
            let _ = endless.join().expect("answered or not");
            server.launch();
            assert_eq!(server.client().say("EXISTS a"), Value::Integer(0));
        }
    }
}

/// What a script reads is remembered for a client that keeps copies, as in Redis: named, unnamed,
/// over shards, in EXEC.
#[test]
fn keys_that_scripts_read_are_tracked() {
    for server in servers() {
        let (mut reader, mut writer) = (server.client(), server.client());
        reader.call(&["HELLO", "3"]);
        assert_eq!(reader.say("CLIENT TRACKING ON"), Value::ok());
        let reads =
            "return {redis.call('get',KEYS[1]), redis.call('get','b'), redis.call('hget','c','f')}";
        let invalidated = |reader: &mut Client, writer: &mut Client, write: &str, key: &str| {
            writer.say(write);
            let expected = Value::Array(vec![Value::bulk(key)]);
            match reader.read() {
                Value::Push(parts) => {
                    assert_eq!(parts, vec![Value::bulk("invalidate"), expected], "{write}");
                }
                other => panic!("{write}: {other:?}"),
            }
        };
        eval(&mut reader, reads, &["1", "a"]);
        invalidated(&mut reader, &mut writer, "SET a 1", "a");
        invalidated(&mut reader, &mut writer, "SET b 1", "b");
        invalidated(&mut reader, &mut writer, "HSET c f 1", "c");
        reader.say("MULTI");
        reader.call(&["EVAL", "return redis.call('get',KEYS[1])", "1", "d"]);
        reader.say("EXEC");
        invalidated(&mut reader, &mut writer, "SET d 1", "d");
        // OPTIN: only what follows CLIENT CACHING, the script as a whole.
        reader.say("CLIENT TRACKING OFF");
        reader.say("CLIENT TRACKING ON OPTIN");
        eval(&mut reader, "return redis.call('get',KEYS[1])", &["1", "e"]);
        writer.say("SET e 1");
        assert_eq!(reader.say("CLIENT CACHING YES"), Value::ok());
        eval(&mut reader, "return redis.call('get',KEYS[1])", &["1", "g"]);
        invalidated(&mut reader, &mut writer, "SET g 1", "g");
    }
}

/// Entries of the log of the only shard.
fn entries(server: &Server) -> i64 {
    let line = server.info("raft0");
    let last = line.split(',').find_map(|field| field.strip_prefix("last="));
    last.expect("the last index").parse().expect("a number")
}

const INCREMENT: &str = "return redis.call('incr',KEYS[1])";

/// The next script reads what the one before has done, on its way to the disk or not: many share an
/// entry of the log.
#[test]
fn scripts_on_one_key_do_not_wait_for_each_other() {
    let server = Server::start(&["--shards", "1", "--fsync", "always"]);
    let mut client = server.client();
    eval(&mut client, INCREMENT, &["1", "key"]);
    let before = entries(&server);
    let request = crate::support::client::encode(&["EVAL", INCREMENT, "1", "key"]);
    let replies = client.pipeline(&request.repeat(1000), 1000);
    for (nth, reply) in replies.iter().enumerate() {
        assert_eq!(*reply, Value::Integer(nth as i64 + 2));
    }
    let count = entries(&server) - before;
    assert!(count < 500, "{count} entries");
}

/// Scripts and everything else on the same keys, from many clients: every increment is there once.
#[test]
fn scripts_and_other_writes_take_turns() {
    for arguments in [
        &["--shards", "1", "--fsync", "always"][..],
        &["--shards", "4", "--fsync", "always", "--cores-in-use", "all"],
        &["--shards", "1", "--fsync", "everysec"],
        &["--shards", "4", "--fsync", "no", "--cores-in-use", "all"],
        &["--shards", "2", "--mode", "cache"],
    ] {
        let server = Server::start(arguments);
        let port = server.port();
        let adder = move |seed: u64| {
            let mut chance = crate::support::Chance::seeded(seed);
            let mut client = Client::connect(port);
            let mut seen = Vec::new();
            for _ in 0..30 {
                let mut bytes = Vec::new();
                let mut keys = Vec::new();
                for _ in 0..20 {
                    let key = format!("n{}", chance.below(3));
                    let unnamed = format!("return redis.call('incr','{key}')");
                    let other = format!("other{}", chance.below(50));
                    let script =
                        "local n = redis.call('incr',KEYS[1]) redis.call('set',KEYS[2],n) return n";
                    bytes.extend(match chance.below(6) {
                        0 => crate::support::client::encode(&["INCR", &key]),
                        1 => crate::support::client::encode(&["EVAL", &unnamed, "0"]),
                        2 => crate::support::client::encode(&["EVAL", script, "2", &key, &other]),
                        _ => crate::support::client::encode(&["EVAL", INCREMENT, "1", &key]),
                    });
                    keys.push(key);
                }
                let replies = client.pipeline(&bytes, keys.len());
                seen.extend(keys.into_iter().zip(replies.iter().map(Value::integer)));
            }
            seen
        };
        let seed = crate::support::Chance::new("scripts_and_other_writes_take_turns").next();
        let clients: Vec<_> = (0..4).map(|n| thread::spawn(move || adder(seed ^ n << 8))).collect();
        let mut seen: Vec<(String, i64)> =
            clients.into_iter().flat_map(|client| client.join().expect("it ends")).collect();
        seen.sort();
        let mut client = server.client();
        for key in ["n0", "n1", "n2"] {
            let own: Vec<i64> = seen.iter().filter(|one| one.0 == key).map(|one| one.1).collect();
            assert!(own.iter().copied().eq(1..=own.len() as i64), "{key}: {own:?}");
            assert_eq!(client.say(&format!("GET {key}")), Value::bulk(own.len().to_string()));
        }
    }
}

/// Who watches, waits or listens hears of what a script does, in the order in which it is done.
#[test]
fn others_hear_of_what_scripts_do_in_order() {
    for server in servers() {
        let (mut client, mut other) = (server.client(), server.client());
        client.say("CONFIG SET notify-keyspace-events KEA");
        let mut listener = server.client();
        listener.say("PSUBSCRIBE __keyevent@0__:*");
        let set =
            crate::support::client::encode(&["EVAL", "redis.call('set',KEYS[1],1)", "1", "k"]);
        let delete = crate::support::client::encode(&["DEL", "k"]);
        client.pipeline(&[&set[..], &delete, &set, &set, &delete].concat(), 5);
        let names: Vec<String> =
            (0..5).map(|_| listener.read().elements()[2].text().split_off(15)).collect();
        assert_eq!(names, ["set", "del", "set", "set", "del"]);
        assert_eq!(other.say("WATCH k"), Value::ok());
        eval(&mut client, "return redis.call('set',KEYS[1],2)", &["1", "k"]);
        other.say("MULTI");
        other.say("GET k");
        assert_eq!(other.say("EXEC"), Value::NullArray);
        other.send(&crate::support::client::encode(&["BLPOP", "list", "0"]));
        eventually("it waits", || (server.info_number("blocked_clients") == 1).then_some(()));
        eval(&mut client, "redis.call('rpush',KEYS[1],'x','y')", &["1", "list"]);
        assert_eq!(other.read(), Value::Array(vec![Value::bulk("list"), Value::bulk("x")]));
        assert_eq!(client.say("LRANGE list 0 -1"), Value::Array(vec![Value::bulk("y")]));
        listener.say("PUNSUBSCRIBE");
    }
}

/// Values of all kinds that a script changes.
const CHANGES: &str = "redis.call('incr',KEYS[1]) redis.call('append',KEYS[1],'x') \
    redis.call('rpush','{k}l','a','b') redis.call('hset','{k}h','f',redis.call('hlen','{k}h')) \
    redis.call('zadd','{k}z',1,'m',2,'n') redis.call('sadd','{k}s','1','x') redis.call('del','{k}gone') \
    redis.call('rename','{k}l','{k}other') redis.call('expire','{k}s',1000) redis.call('publish','c','said') ";

/// A script that begins on the items of its shard and turns out to want others, or to run for long,
/// has done nothing twice: no write, no event, no message; the connection's reads before it see
/// nothing of it.
#[test]
fn what_a_script_began_in_vain_is_undone() {
    let ends = [
        "return redis.call('incr','elsewhere'..ARGV[1])",
        "for i=1,3e6 do end return redis.call('incr','{k}elsewhere')",
        "return redis.call('incrby','{k}elsewhere',redis.call('dbsize')*0+1)",
    ];
    for (server, end) in servers().iter().flat_map(|server| ends.map(|end| (server, end))) {
        let mut client = server.client();
        assert_eq!(client.say("FLUSHALL"), Value::ok());
        client.say("CONFIG SET notify-keyspace-events KEA");
        client.say("SET {k}gone 1 EX 500");
        client.say("ZADD {k}z 7 old");
        let mut listener = server.client();
        listener.say("PSUBSCRIBE __keyevent@0__:* c");
        listener.read();
        let script = format!("{CHANGES}{end}");
        let bytes = [
            crate::support::client::encode(&["GET", "{k}n"]),
            crate::support::client::encode(&["EVAL", &script, "1", "{k}n", "1"]),
            crate::support::client::encode(&["GET", "{k}n"]),
        ];
        let replies = client.pipeline(&bytes.concat(), 3);
        assert_eq!(replies, [Value::Null, Value::Integer(1), Value::bulk("1x")], "{end}");
        assert_eq!(client.say("LRANGE {k}other 0 -1").elements().len(), 2);
        assert_eq!(client.say("HGET {k}h f"), Value::bulk("0"));
        assert_eq!(client.say("ZRANGE {k}z 0 -1").elements().len(), 3);
        assert_eq!(client.say("SCARD {k}s"), Value::Integer(2));
        assert_eq!(client.say("TTL {k}s"), Value::Integer(1000));
        assert_eq!(client.say("EXISTS {k}gone {k}l"), Value::Integer(0));
        client.say("SET last 1");
        let mut heard = Vec::new();
        while heard.last().is_none_or(|last: &(String, String)| last.1 != "last") {
            let message = listener.read();
            heard.push((message.elements()[2].text(), message.elements()[3].text()));
        }
        for told in ["append", "rpush", "hset", "zadd", "sadd", "del", "rename_from", "expire"] {
            let is_it =
                |one: &&(String, String)| one.0.strip_prefix("__keyevent@0__:") == Some(told);
            assert_eq!(heard.iter().filter(is_it).count(), 1, "{told}: {heard:?}");
        }
        assert_eq!(heard.iter().filter(|one| one.1 == "said").count(), 1, "{heard:?}");
        listener.say("PUNSUBSCRIBE");
    }
}

/// What scripts may do to the tables of their keys and arguments.
const SPOILERS: [&str; 12] = [
    "KEYS.x = 'y'",
    "KEYS[#KEYS+1] = 'more'",
    "ARGV['1'] = 3 ARGV[-1] = 4",
    "setmetatable(KEYS, {__index = function() return 'leak' end})",
    "setmetatable(ARGV, {__len = 7, __newindex = error})",
    "KEYS[1] = ARGV ARGV[1] = KEYS",
    "for i = 1, #KEYS do KEYS[i] = nil end KEYS.x = 1 KEYS.x = nil",
    "for i = 1, 999 do ARGV[i] = i end for i = 1, 999 do ARGV[i] = nil end",
    "table.remove(KEYS) table.sort(ARGV, function(a, b) return a > b end)",
    "for i = 2, 9 do KEYS[i] = i end KEYS[1] = nil",
    "error(KEYS)",
    "local k = KEYS redis.pcall('nope', k) return cjson.encode(ARGV) .. unpack(k, 1, #k)",
];

/// All that can be seen of these tables.
const SEEN: &str = "local out = {tostring(KEYS == ARGV)} \
    for _, row in ipairs({KEYS, ARGV}) do \
        out[#out+1] = #row .. tostring(getmetatable(row)) \
        for k, v in pairs(row) do out[#out+1] = type(k) .. k .. v end \
    end return table.concat(out, ' ')";

/// No script sees what another one has made of its keys and arguments, however many there are.
#[test]
fn keys_and_arguments_are_as_if_nobody_had_had_them_before() {
    for server in servers() {
        let mut client = server.client();
        for spoiler in SPOILERS {
            for (keys, arguments) in
                [(1, 0), (0, 0), (1, 1), (2, 3), (0, 1), (4, 4), (1, 4), (9, 5)]
            {
                let count = keys.to_string();
                let names: Vec<String> = (1..=keys).map(|n| format!("{{k}}{n}")).collect();
                let values: Vec<String> = (1..=arguments).map(|n| format!("v{n}")).collect();
                let mut words = vec![count.as_str()];
                words.extend(names.iter().chain(&values).map(String::as_str));
                let row = |row: &[String]| {
                    let pairs = row.iter().zip(1..).map(|(word, n)| format!(" number{n}{word}"));
                    format!("{}nil{}", row.len(), pairs.collect::<String>())
                };
                let expected = format!("false {} {}", row(&names), row(&values));
                for _ in 0..2 {
                    assert_eq!(eval(&mut client, SEEN, &words), Value::bulk(&*expected));
                    eval(&mut client, spoiler, &words);
                }
            }
            eval(&mut client, spoiler, &["1", "{k}1", "v1"]);
            let seen = Value::bulk("false 1nil number1{k}2 1nil number1v2");
            assert_eq!(eval(&mut client, SEEN, &["1", "{k}2", "v2"]), seen, "{spoiler}");
        }
    }
}

/// Nothing that is global can be changed, by whatever means and from however deep.
#[test]
fn globals_stay_as_they_are() {
    let server = Server::start(&["--shards", "1", "--mode", "cache"]);
    let mut client = server.client();
    let readonly = "Attempt to modify a readonly table";
    for script in [
        "x = 1",
        "redis = nil",
        "KEYS = {}",
        "function tostring() end",
        "local function f() return function() ARGV = 1 end end f()()",
        "local ok, why = pcall(function() redis = 1 end) error(why)",
        "coroutine.wrap(function() pcall = 1 end)()",
        "_G.redis = 1",
        "_G.x = 1",
        "redis.call = 1",
        "redis.x = 1",
        "local r = redis r.call = function() end",
        "rawset(_G, 'redis', 1)",
        "rawset(redis, 'call', 1)",
        "setmetatable(_G, {})",
        "setmetatable(redis, {})",
        "table.insert(redis, 1)",
        "string.format = 1",
        "assert(loadstring('x = 1'))()",
        "assert(loadstring('KEYS = 1'))()",
    ] {
        let error = eval(&mut client, script, &["0"]);
        assert!(
            matches!(&error, Value::Error(text) if text.contains(readonly)),
            "{script}: {error:?}"
        );
        assert!(eval(&mut client, INCREMENT, &["1", "key"]).integer() > 0, "{script}");
        let whole = "return tostring(_G.redis == redis and _G.KEYS == KEYS and KEYS[1] == 'key' and #ARGV == 0)";
        assert_eq!(eval(&mut client, whole, &["1", "key"]), Value::bulk("true"), "{script}");
        let absent = eval(&mut client, "return x", &["0"]);
        let text = "Script attempted to access nonexistent global variable 'x'";
        assert!(matches!(&absent, Value::Error(error) if error.contains(text)), "{absent:?}");
    }
}

/// Where there is no log a script needs no entry, and what comes between scripts is in order all
/// the same.
#[test]
fn scripts_without_a_log_need_no_entries() {
    let server = Server::start(&["--shards", "1", "--mode", "cache"]);
    let mut client = server.client();
    eval(&mut client, INCREMENT, &["1", "key"]);
    let before = entries(&server);
    let script = crate::support::client::encode(&["EVAL", INCREMENT, "1", "key"]);
    let replies = client.pipeline(&script.repeat(1000), 1000);
    assert!(replies.iter().map(Value::integer).eq(2..=1001));
    assert_eq!(entries(&server), before);
    let write = crate::support::client::encode(&["INCR", "key"]);
    let read = crate::support::client::encode(&["GET", "key"]);
    let replies = client.pipeline(&[&write[..], &script, &read].concat().repeat(300), 900);
    for (nth, three) in replies.chunks_exact(3).enumerate() {
        let first = 1002 + 2 * nth as i64;
        let text = Value::bulk((first + 1).to_string());
        assert_eq!(three, [Value::Integer(first), Value::Integer(first + 1), text]);
    }
}

/// Kills a server amid scripts that count `a` up, once it has gone on by so much, and starts it
/// again. `request`: 50 of them. Returns the last count that anybody was told.
pub fn kill_amid_scripts(server: &mut Server, request: &[u8], progress: i64) -> i64 {
    let count = |value: Value| value.text().parse::<i64>().expect("a number");
    let (mut client, request) = (server.client(), request.to_vec());
    let mut other = server.client();
    other.say("INCRBY a 0");
    let before = count(other.say("GET a"));
    let writer = thread::spawn(move || {
        let mut last = 0;
        while client.try_send(&request).is_ok() {
            for _ in 0..50 {
                match client.try_read() {
                    Ok(reply) => last = reply.integer(),
                    Err(_) => return last,
                }
            }
        }
        last
    });
    eventually("it goes on", || (count(other.say("GET a")) > before + progress).then_some(()));
    let seen = count(other.say("GET a"));
    server.kill();
    let last = writer.join().expect("it ends");
    server.launch();
    last.max(seen)
}

/// What a script did is there whole after a kill, with everything that was answered.
#[test]
fn scripts_that_were_answered_survive_a_kill() {
    let mut server = Server::start(&["--shards", "1", "--fsync", "always"]);
    let script = "local n = redis.call('incr',KEYS[1]) redis.call('set',KEYS[2],n) return n";
    let request = crate::support::client::encode(&["EVAL", script, "2", "a", "b"]).repeat(50);
    for _ in 0..crate::support::kill_cycles() {
        let last = kill_amid_scripts(&mut server, &request, 50);
        let mut client = server.client();
        let (a, b) = (client.say("GET a"), client.say("GET b"));
        assert_eq!(a, b);
        assert!(a.text().parse::<i64>().expect("a number") >= last, "{a:?} after {last}");
    }
}

/// A script is one entry of the slow log, and no part of it another one, as in Redis.
#[test]
fn a_slow_script_is_noted_once() {
    for server in servers() {
        let mut client = server.client();
        client.say("CONFIG SET slowlog-log-slower-than 0");
        client.say("SLOWLOG RESET");
        eval(&mut client, INCREMENT, &["1", "key"]);
        let entries = client.say("SLOWLOG GET -1");
        let words = |entry: &Value| entry.elements()[3].elements()[0].text().to_lowercase();
        let mut names: Vec<String> = entries.elements().iter().map(words).collect();
        names.retain(|name| name != "slowlog");
        assert_eq!(names, ["eval"]);
    }
}
