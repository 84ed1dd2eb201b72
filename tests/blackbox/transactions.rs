//! MULTI and EXEC hold every command that Redis lets them hold, over one shard and over several:
//! the same transactions go to the real redis-server.

use crate::support::{Chance, Client, Server, Value, eventually};

/// One shard; several on one core; several on two.
fn servers() -> Vec<Server> {
    let shapes: [&[&str]; 3] =
        [&["--shards", "1"], &["--shards", "4", "--cores", "0"], &["--shards", "4"]];
    shapes.iter().map(|shape| Server::start(shape)).collect()
}

/// Runs a transaction. Returns what EXEC answers.
fn transact(client: &mut Client, commands: &[String]) -> Value {
    assert_eq!(client.say("MULTI"), Value::ok());
    for command in commands {
        assert_eq!(client.say(command), Value::Simple("QUEUED".into()), "{command}");
    }
    client.say("EXEC")
}

/// With the order taken out of what Redis answers in any order.
fn in_order(command: &str, reply: &Value) -> Value {
    let sorted = |reply: &Value| {
        let mut elements = reply.elements().to_vec();
        elements.sort_unstable_by_key(|element| format!("{element:?}"));
        Value::Array(elements)
    };
    match command.split(' ').next() {
        Some("KEYS") => sorted(reply),
        Some("SCAN") if !reply.is_error() => {
            let mut keys = sorted(&reply.elements()[1]).elements().to_vec();
            // A key may come twice.
            keys.dedup();
            Value::Array(vec![reply.elements()[0].clone(), Value::Array(keys)])
        }
        _ => reply.clone(),
    }
}

/// A command that concerns some keys, or all.
fn any_command(chance: &mut Chance) -> String {
    let key = |chance: &mut Chance| {
        format!("{}{}", ["a", "b", "c"][chance.below(3) as usize], chance.below(5))
    };
    let database = |chance: &mut Chance| chance.below(3);
    match chance.below(22) {
        0..=4 => format!("SET {} {}", key(chance), chance.below(100)),
        5 => format!("DEL {} {}", key(chance), key(chance)),
        6 => format!("MGET {} {} {}", key(chance), key(chance), key(chance)),
        7 => format!("RENAME {} {}", key(chance), key(chance)),
        8 => format!("APPEND {} x", key(chance)),
        9 => format!("MOVE {} {}", key(chance), database(chance)),
        10 => format!("COPY {} {} DB {} REPLACE", key(chance), key(chance), database(chance)),
        11 | 12 => "DBSIZE".into(),
        13 => format!("KEYS {}*", ["", "a", "b"][chance.below(3) as usize]),
        14 | 15 => "SCAN 0 COUNT 1000".into(),
        16 => "SCAN 0 MATCH b* COUNT 1000 TYPE string".into(),
        17 => "FLUSHDB".into(),
        18 => format!("SWAPDB {} {}", database(chance), database(chance)),
        19 => format!("SELECT {}", database(chance)),
        20 => ["FLUSHALL", "DBSIZE", "KEYS *"][chance.below(3) as usize].into(),
        _ => format!("EXISTS {} {}", key(chance), key(chance)),
    }
}

#[test]
fn transactions_of_every_key_are_those_of_redis() {
    let mut chance = Chance::new("transactions_of_every_key_are_those_of_redis");
    let redis = Server::start_redis(&[]);
    let servers = servers();
    let mut oracle = redis.client();
    let mut clients: Vec<Client> = servers.iter().map(Server::client).collect();
    for _ in 0..100 {
        let commands: Vec<String> =
            (0..2 + chance.below(9)).map(|_| any_command(&mut chance)).collect();
        let expected = transact(&mut oracle, &commands);
        let seen: Vec<Vec<Value>> = ["0", "1", "2"]
            .map(|database| {
                assert_eq!(oracle.call(&["SELECT", database]), Value::ok());
                vec![in_order("KEYS *", &oracle.say("KEYS *")), oracle.say("DBSIZE")]
            })
            .into();
        assert_eq!(oracle.say("SELECT 0"), Value::ok());
        for client in &mut clients {
            let reply = transact(client, &commands);
            assert_eq!(reply.elements().len(), commands.len(), "{commands:?}: {reply:?}");
            for (i, command) in commands.iter().enumerate() {
                let (ours, theirs) = (&reply.elements()[i], &expected.elements()[i]);
                let (ours, theirs) = (in_order(command, ours), in_order(command, theirs));
                assert_eq!(ours, theirs, "{command}, number {i} of {commands:?}");
            }
            for (database, seen) in seen.iter().enumerate() {
                assert_eq!(client.call(&["SELECT", &database.to_string()]), Value::ok());
                let ours = vec![in_order("KEYS *", &client.say("KEYS *")), client.say("DBSIZE")];
                assert_eq!(&ours, seen, "database {database} after {commands:?}");
            }
            assert_eq!(client.say("SELECT 0"), Value::ok());
        }
    }
}

/// Words of ours: PDEL, pages of KEYS, RANDOMKEY, a walk by SCAN over several pages.
#[test]
fn our_own_commands_of_every_key_work_in_transactions() {
    for server in servers() {
        let mut client = server.client();
        for n in 0..200 {
            assert_eq!(client.say(&format!("SET key:{n:03} {n}")), Value::ok());
        }
        let commands = [
            "SET key:new 1",
            "DEL key:007",
            "KEYS key:* LIMIT 3 PIVOT key:005",
            "PDEL key:0*",
            "DBSIZE",
            "SET key:000 back",
            "KEYS key:0*",
            "PDEL key:1[0-4]*",
            "DBSIZE",
            "RANDOMKEY",
            "KEYS key:1* LIMIT 2 DESC WITHVALUES",
        ];
        let reply = transact(&mut client, &commands.map(String::from));
        let bulks = |words: &[&str]| Value::Array(words.iter().map(Value::bulk).collect());
        let replies = reply.elements();
        assert_eq!(replies[2], bulks(&["key:006", "key:008", "key:009"]));
        assert_eq!(replies[3], Value::Integer(99), "99 of 100 were left");
        assert_eq!(replies[4], Value::Integer(101));
        assert_eq!(replies[6], bulks(&["key:000"]));
        assert_eq!(replies[7], Value::Integer(50));
        assert_eq!(replies[8], Value::Integer(52));
        let random = replies[9].text();
        assert!(["key:000", "key:new"].contains(&&*random) || random.as_str() >= "key:150");
        assert_eq!(replies[10], bulks(&["key:199", "199", "key:198", "198"]));
        assert_eq!(client.say("DBSIZE"), Value::Integer(52));

        let mut met = Vec::new();
        let mut cursor = "0".to_string();
        loop {
            let page = format!("SCAN {cursor} COUNT 7");
            let commands = ["SET key:199 changed".to_string(), page, "DEL gone".into()];
            let reply = transact(&mut client, &commands);
            let page = reply.elements()[1].elements().to_vec();
            met.extend(page[1].elements().iter().map(Value::text));
            cursor = page[0].text();
            if cursor == "0" {
                break;
            }
        }
        met.sort_unstable();
        met.dedup();
        assert_eq!(met.len(), 52, "a scan meets every key that stays, one that changes too");
    }
}

#[test]
fn what_asks_all_cores_is_part_of_a_transaction() {
    for server in servers() {
        let (mut client, mut other) = (server.client(), server.client());
        assert_eq!(client.say("FLUSHALL"), Value::ok());
        let commands = [
            "CONFIG SET maxmemory 1gb",
            "CONFIG GET maxmemory",
            "SET a0 1",
            "SLOWLOG LEN",
            "SET b1 2",
            "CONFIG SET maxmemory 0",
            "INFO keyspace",
            "CLIENT LIST",
            "LASTSAVE",
            "MEMORY STATS",
            "CLIENT PAUSE 0",
            "RAFTLEADER",
            "CLIENT KILL ID 9999",
            "CONFIG GET maxmemory",
            "CONFIG SET port 1",
        ];
        let reply = transact(&mut client, &commands.map(String::from));
        let replies = reply.elements();
        assert_eq!(replies.len(), commands.len(), "{reply:?}");
        for i in [0, 2, 4, 5, 10] {
            assert_eq!(replies[i], Value::ok(), "{}", commands[i]);
        }
        assert_eq!(replies[1].elements()[1], Value::bulk("1073741824"));
        assert!(replies[6].text().contains("db0:keys=2,"), "{}", replies[6].text());
        assert_eq!(replies[7].text().lines().count(), 2, "{}", replies[7].text());
        assert_eq!(replies[12], Value::Integer(0));
        assert_eq!(replies[13].elements()[1], Value::bulk("0"));
        assert!(replies[14].is_error(), "an error in its place: {:?}", replies[14]);
        assert_eq!(other.say("MGET a0 b1").elements(), [Value::bulk("1"), Value::bulk("2")]);

        // Nothing of it happens when a watched key has changed, whatever the commands.
        for command in ["CONFIG SET maxmemory 5mb", "SELECT 3"] {
            assert_eq!(client.say("WATCH a0"), Value::ok());
            assert_eq!(other.say("SET a0 changed"), Value::ok());
            assert_eq!(transact(&mut client, &[command.into()]), Value::NullArray);
        }
        assert_eq!(client.say("CONFIG GET maxmemory").elements()[1], Value::bulk("0"));
        assert_eq!(client.say("GET a0"), Value::bulk("changed"));
        // One that has not changed.
        assert_eq!(client.say("WATCH a0"), Value::ok());
        let reply = transact(&mut client, &["INFO server".into(), "GET a0".into()]);
        assert!(reply.elements()[0].text().contains("redis_version:"));
        assert_eq!(reply.elements()[1], Value::bulk("changed"));
        // The client that kills itself has its reply first.
        let id = client.say("CLIENT ID").integer();
        let reply =
            transact(&mut client, &[format!("CLIENT KILL ID {id} SKIPME no"), "PING".into()]);
        assert_eq!(reply.elements(), [Value::Integer(1), Value::Simple("PONG".into())]);
        assert!(client.read_to_close().is_empty());
    }
}

/// Where the answers of one connection come in order, whatever waits.
#[test]
fn what_follows_exec_is_answered_behind_it() {
    for server in servers() {
        let mut client = server.client();
        let mut sent = Vec::new();
        for n in 0..50 {
            let text = format!(
                "MULTI\r\nSET a{n} {n}\r\nINFO server\r\nDBSIZE\r\nCONFIG SET maxmemory 0\r\nSET b{n} {n}\r\nEXEC\r\nGET a{n}\r\n"
            );
            sent.extend_from_slice(text.as_bytes());
        }
        let replies = client.pipeline(&sent, 50 * 8);
        for (n, replies) in replies.chunks(8).enumerate() {
            assert_eq!(replies[6].elements().len(), 5);
            assert_eq!(replies[6].elements()[2], Value::Integer(2 * n as i64 + 1));
            assert_eq!(replies[7], Value::bulk(n.to_string()));
        }
        // All at once, and the client goes before it is answered.
        client.send(&sent);
        client.finish_writing();
        assert!(!client.read_to_close().is_empty());
        assert_eq!(server.client().say("DBSIZE"), Value::Integer(100));
    }
}

#[test]
fn what_a_transaction_cannot_hold_is_an_error_in_its_place() {
    let redis = Server::start_redis(&["--enable-debug-command", "yes"]);
    let mut all = servers();
    all.push(redis);
    for server in all {
        let mut client = server.client();
        assert_eq!(client.say("MULTI"), Value::ok());
        for command in ["SET a0 1", "MONITOR", "SET b1 1"] {
            assert_eq!(client.say(command), Value::Simple("QUEUED".into()));
        }
        let monitor = Value::Error("ERR MONITOR isn't allowed for DENY BLOCKING client".into());
        assert_eq!(client.say("EXEC").elements(), [Value::ok(), monitor, Value::ok()]);
        assert_eq!(client.say("GET b1"), Value::bulk("1"), "replies are not moved by one");
        for command in ["SAVE", "SHUTDOWN NOSAVE"] {
            assert_eq!(client.say("MULTI"), Value::ok());
            let refusal = Value::Error("ERR Command not allowed inside a transaction".into());
            assert_eq!(client.say(command), refusal);
            let aborted = "EXECABORT Transaction discarded because of previous errors.";
            assert_eq!(client.say("EXEC"), Value::Error(aborted.into()));
        }
    }
}

const OOM: &str = "OOM command not allowed when used memory > 'maxmemory'.";

/// What is queued is refused when memory is full, and what was queued before is not run then,
/// unless it only reads.
#[test]
fn a_full_memory_refuses_what_is_queued() {
    let redis = Server::start_redis(&[]);
    let mut all = servers();
    all.push(redis);
    for server in all {
        let (mut client, mut other) = (server.client(), server.client());
        let aborted = |cause: &str| {
            Value::Error(format!("EXECABORT Transaction discarded because of{cause}"))
        };
        for key in ["a0", "b1", "c2", "d3"] {
            for n in 0..100 {
                assert_eq!(client.say(&format!("SET {key}:{n} {n}")), Value::ok());
            }
        }
        for (queued, read, expected) in [
            ("SET a0:1 2", "GET a0:1", aborted(&format!(": {OOM}"))),
            ("GET a0:1", "MGET a0:1 d3:5", Value::Array(Vec::new())),
        ] {
            assert_eq!(client.say("MULTI"), Value::ok());
            assert_eq!(client.say(queued), Value::Simple("QUEUED".into()));
            assert_eq!(client.say(read), Value::Simple("QUEUED".into()));
            assert_eq!(other.say("CONFIG SET maxmemory 1000"), Value::ok());
            let reply = client.say("EXEC");
            match expected.is_error() {
                true => assert_eq!(reply, expected),
                false => assert_eq!(reply.elements().len(), 2, "{reply:?}"),
            }
            for command in ["SET b1:1 2", "GET b1:1", "PING"] {
                assert_eq!(client.say("MULTI"), Value::ok());
                assert_eq!(client.say(command), Value::Error(OOM.into()), "{command}");
                assert_eq!(client.say("EXEC"), aborted(" previous errors."), "{command}");
            }
            assert_eq!(client.say("MULTI"), Value::ok());
            assert_eq!(client.say("DISCARD"), Value::ok());
            assert_eq!(other.say("CONFIG SET maxmemory 0"), Value::ok());
            // Room again, for the very next request.
            let reply = transact(&mut client, &["SET a0:1 1".into(), "SET d3:1 1".into()]);
            assert_eq!(reply.elements(), [Value::ok(), Value::ok()]);
        }
    }
}

/// Where keys can be evicted there is room.
#[test]
fn eviction_makes_room_for_what_is_queued() {
    for server in servers() {
        let mut client = server.client();
        for n in 0..2000 {
            assert_eq!(client.say(&format!("SET key:{n} {n}")), Value::ok());
        }
        assert_eq!(
            client.say("CONFIG SET maxmemory 60kb maxmemory-policy allkeys-lru"),
            Value::ok()
        );
        eventually("transactions go on", || {
            let reply = transact(&mut client, &["SET a0 1".into(), "SET b1 1".into()]);
            (reply.elements().len() == 2).then_some(())
        });
    }
}

/// Whatever is queued, EXEC answers it.
#[test]
fn every_command_can_be_queued() {
    for server in servers() {
        let mut client = server.client();
        let commands = client.say("COMMAND LIST");
        let names: Vec<String> = commands.elements().iter().map(Value::text).collect();
        assert!(names.contains(&"object|encoding".to_owned()));
        // They run at once, or end the server or the connection.
        let at_once =
            ["multi", "exec", "discard", "watch", "quit", "reset", "shutdown", "monitor", "debug"];
        let parent = |name: &str| name.split('|').next().unwrap_or_default().to_owned();
        for name in names.iter().filter(|name| !at_once.contains(&parent(name).as_str())) {
            let info = client.call(&["COMMAND", "INFO", name]);
            let arity = info.elements()[0].elements()[1].integer().unsigned_abs() as usize;
            let mut words: Vec<&str> = name.split('|').collect();
            words.resize(arity.max(words.len()), "1");
            let mut client = server.client();
            assert_eq!(client.say("MULTI"), Value::ok());
            if client.call(&words).is_error() {
                continue;
            }
            let replies = client.say("EXEC");
            assert!(!replies.elements().is_empty(), "{words:?}: {replies:?}");
        }
        assert_eq!(client.say("PING"), Value::Simple("PONG".into()));
    }
}
