//! Scripts that run on the items themselves, with a log that does not wait for the disk: what the
//! log says of them is what they did, whole or not at all, and nobody hears of it before.

use crate::scripts::kill_amid_scripts;
use crate::support::client::encode;
use crate::support::{Chance, Client, Server, Value, kill_cycles};

const INCREMENT: &str = "return redis.call('incr',KEYS[1])";

/// Entries of the log of the only shard.
fn entries(server: &Server) -> i64 {
    let line = server.info("raft0");
    let last = line.split(',').find_map(|field| field.strip_prefix("last="));
    last.expect("the last index").parse().expect("a number")
}

/// The digest, when all shards have applied what was answered.
fn digest(client: &mut Client) -> Value {
    client.say("DBSIZE");
    client.say("DEBUG DIGEST")
}

/// Scripts of a turn share an entry, and what stands between them is in order.
#[test]
fn scripts_share_entries_with_their_own_and_a_kill_loses_none() {
    for fsync in ["everysec", "no"] {
        let mut server = Server::start(&["--shards", "1", "--fsync", fsync]);
        let mut client = server.client();
        client.call(&["EVAL", INCREMENT, "1", "key"]);
        let before = entries(&server);
        let script = encode(&["EVAL", INCREMENT, "1", "key"]);
        let replies = client.pipeline(&script.repeat(1000), 1000);
        assert!(replies.iter().map(Value::integer).eq(2..=1001));
        let count = entries(&server) - before;
        assert!((1..500).contains(&count), "{count} entries");
        let write = encode(&["INCR", "key"]);
        let read = encode(&["GET", "key"]);
        let replies =
            client.pipeline(&[&script[..], &write, &script, &read].concat().repeat(200), 800);
        for (nth, four) in replies.chunks_exact(4).enumerate() {
            let first = 1002 + 3 * nth as i64;
            let numbers = [first, first + 1, first + 2].map(Value::Integer);
            assert_eq!(four[..3], numbers);
            assert_eq!(four[3], Value::bulk((first + 2).to_string()));
        }
        let before = digest(&mut client);
        server.kill();
        server.launch();
        let mut client = server.client();
        assert_eq!(client.say("GET key"), Value::bulk("1601"));
        assert_eq!(digest(&mut client), before);
    }
}

/// Commands of all families with random arguments, among them those that draw lots, that go by the
/// clock, that fail, and that may wait elsewhere.
fn command(chance: &mut Chance) -> String {
    let n = chance.below(12);
    let m = chance.below(1000);
    let score = chance.below(7);
    match chance.below(36) {
        0 => format!("'incrby','s{n}',{m}"),
        1 => format!("'append','s{n}','{m}'"),
        2 => format!("'set','s{n}',{m},'px',{}", 100_000_000 + m),
        3 => format!("'setrange','s{n}',{m},'x'"),
        4 => format!("'incrbyfloat','f{n}','0.{m}'"),
        5 => format!("'setbit','b{n}',{m},1"),
        6 => format!("'bitfield','b{n}','incrby','u5',{m},3"),
        7 => format!("'pfadd','p{n}','{m}'"),
        8 => format!("'rpush','l{n}','{m}','{}'", "x".repeat(m as usize % 90)),
        9 => format!("'lpop','l{n}',{}", score + 1),
        10 => format!("'lmove','l{n}','l{score}','left','right'"),
        11 => format!("'blpop','l{n}','l{score}',0"),
        12 => format!("'linsert','l{n}','before','{m}','inserted'"),
        13 => format!("'sadd','t{n}','{m}','m{m}',{score}"),
        14 => format!("'spop','t{n}'"),
        15 => format!("'spop','t{n}',{score}"),
        16 => format!("'srandmember','t{n}'"),
        17 => format!("'sinterstore','t{n}','t{score}','t{}'", (n + 1) % 12),
        18 => format!("'smove','t{n}','t{score}','{m}'"),
        19 => format!("'hset','h{n}','f{m}','{score}','g',{m}"),
        20 => format!("'hincrbyfloat','h{n}','g','0.5'"),
        21 => format!("'hdel','h{n}','f{m}'"),
        22 => format!("'hpexpire','h{n}',{},'fields','1','g'", 100_000_000 + m),
        23 => format!("'zadd','z{n}','{score}','m{m}',{m},'n{score}'"),
        24 => format!("'zincrby','z{n}',1,'n{score}'"),
        25 => format!("'zpopmin','z{n}',{score}"),
        26 => format!("'zunionstore','z{n}',2,'z{score}','t{score}'"),
        27 => format!("'zremrangebyrank','z{n}',0,{score}"),
        28 => format!("'xadd','x{n}','*','f',{m}"),
        29 => format!("'xtrim','x{n}','maxlen','~',{score}"),
        30 => format!("'xgroup','create','x{n}','g','0','mkstream'"),
        31 => format!("'xreadgroup','group','g','c{score}','count',2,'streams','x{n}','>'"),
        32 => format!("'expire','t{n}',{}", 100_000 + m),
        33 => format!("'rename','s{n}','s{score}'"),
        34 => format!("'copy','h{n}','h{score}','replace'"),
        _ => format!("'del','z{n}','l{score}'"),
    }
}

/// A script of some such commands; some fail at their end, some turn out to want what is not there.
fn script(chance: &mut Chance) -> String {
    let mut text = String::new();
    for _ in 0..1 + chance.below(6) {
        text += &format!("redis.pcall({}) ", command(chance));
    }
    match chance.below(40) {
        0 => text + "return redis.call('nonsense')",
        1 => text + "return redis.call('dbsize')",
        2 => {
            text + "redis.call('select',3) redis.call('incr','elsewhere') return redis.call('incr','elsewhere')"
        }
        3 => text + "return redis.call('set','random',math.random()..redis.call('time')[2])",
        _ => text,
    }
}

/// Whatever scripts do, a start that reads the log does the same.
#[test]
fn a_start_does_what_scripts_have_done() {
    for (shards, fsync) in [("1", "everysec"), ("1", "no"), ("3", "everysec")] {
        let mut chance = Chance::new("a_start_does_what_scripts_have_done");
        let arguments = ["--shards", shards, "--cores", "0", "--fsync", fsync];
        let mut server = Server::start(&arguments);
        for round in 0..6 {
            let mut client = server.client();
            for _ in 0..20 {
                let (mut bytes, mut count) = (Vec::new(), 0);
                for _ in 0..1 + chance.below(25) {
                    bytes.extend(match chance.below(8) {
                        0 => encode(&["INCR", &format!("s{}", chance.below(12))]),
                        _ => encode(&["EVAL", &script(&mut chance), "0"]),
                    });
                    count += 1;
                }
                client.pipeline(&bytes, count);
                if chance.below(30) == 0 {
                    client.say("BGSAVE");
                }
            }
            let before = digest(&mut client);
            if round % 2 == 0 {
                server.kill();
                server.launch();
            } else {
                server.restart();
            }
            assert_eq!(digest(&mut server.client()), before, "round {round} of {arguments:?}");
        }
    }
}

/// All of a script is there or nothing, and what was answered is, when the process is killed at any
/// moment; snapshots begin in between.
#[test]
fn a_kill_amid_scripts_leaves_each_whole() {
    let arguments = [
        "--shards",
        "1",
        "--fsync",
        "everysec",
        "--segment-size",
        "8mb",
        "--snapshot-log-bytes",
        "1mb",
    ];
    let mut server = Server::start(&arguments);
    let script = "local n = redis.call('incr',KEYS[1]) redis.call('set',KEYS[2],n) \
        redis.call('rpush',KEYS[3],n) redis.call('ltrim',KEYS[3],-50,-1) \
        redis.call('set',KEYS[4],string.rep('x',500)) return n";
    let request = encode(&["EVAL", script, "4", "a", "b", "c", "d"]).repeat(50);
    let count = |value: &Value| value.text().parse::<i64>().expect("a number");
    for _ in 0..kill_cycles() {
        let last = kill_amid_scripts(&mut server, &request, 500);
        let mut client = server.client();
        let (a, b) = (client.say("GET a"), client.say("GET b"));
        assert_eq!(a, b);
        assert_eq!(client.say("LRANGE c -1 -1"), Value::Array(vec![a.clone()]));
        assert!(count(&a) >= last, "{a:?} after {last}");
    }
}

/// A script that does too much for the log, or too long, is done all the same, and once.
#[test]
fn what_is_too_much_for_an_entry_of_scripts_is_done_on_copies() {
    let mut server =
        Server::start(&["--shards", "1", "--fsync", "everysec", "--segment-size", "8mb"]);
    let mut client = server.client();
    let many = "for i=1,ARGV[1] do redis.call('incr',KEYS[1]) end return redis.call('get',KEYS[1])";
    assert_eq!(client.call(&["EVAL", many, "1", "n", "40000"]), Value::bulk("40000"));
    assert_eq!(client.call(&["EVAL", many, "1", "n", "3"]), Value::bulk("40003"));
    let large =
        "redis.call('set',KEYS[1],string.rep('x',ARGV[1])) return redis.call('incr',KEYS[2])";
    for (nth, bytes) in [900_000, 1_100_000, 7_000_000, 900_000].into_iter().enumerate() {
        let bytes = bytes.to_string();
        let reply = client.call(&["EVAL", large, "2", &format!("large{nth}"), "count", &bytes]);
        assert_eq!(reply, Value::Integer(nth as i64 + 1));
    }
    // More in one turn than a set takes.
    let request = encode(&["EVAL", large, "2", "again", "count", "500000"]);
    let replies = client.pipeline(&request.repeat(60), 60);
    assert!(replies.iter().map(Value::integer).eq(5..=64));
    let before = digest(&mut client);
    server.kill();
    server.launch();
    let mut client = server.client();
    assert_eq!(client.say("GET n"), Value::bulk("40003"));
    assert_eq!(client.say("STRLEN again"), Value::Integer(500_000));
    assert_eq!(digest(&mut client), before);
}

/// What a turn is told between two scripts takes effect between them, and nobody is answered before
/// the log has what was done: another mode of the log, a snapshot, another bound of strings.
#[test]
fn settings_change_between_scripts() {
    let mut server = Server::start(&["--shards", "1", "--fsync", "everysec"]);
    let script = encode(&["EVAL", INCREMENT, "1", "key"]);
    let between = [
        "CONFIG SET appendfsync always",
        "CONFIG SET appendfsync everysec",
        "CONFIG SET appendfsync no",
        "BGSAVE",
        "CONFIG SET proto-max-bulk-len 2mb",
        "CONFIG SET proto-max-bulk-len 512mb",
        "CONFIG SET list-max-listpack-size 5",
        "WAITAOF 0 0 0",
        "FLUSHDB",
        "DEBUG RELOAD",
        "CONFIG SET maxmemory 1gb",
    ];
    let mut others: Vec<Client> = (0..4).map(|_| server.client()).collect();
    let mut expected = 0;
    for _ in 0..10 {
        for said in between {
            let mut client = server.client();
            for other in &mut others {
                other.send(&script.repeat(10));
            }
            let mut bytes = script.repeat(5);
            bytes.extend(encode(&said.split(' ').collect::<Vec<_>>()));
            bytes.extend(script.repeat(5));
            let replies = client.pipeline(&bytes, 11);
            assert!(replies[5] != Value::Null && !replies[0].is_error() && !replies[10].is_error());
            for other in &mut others {
                (0..10).for_each(|_| drop(other.read()));
            }
            expected += 50;
            let now = client.say("GET key").text().parse::<i64>().expect("a number");
            match said {
                "FLUSHDB" => assert!((5..=50).contains(&now), "{now}"),
                _ => assert_eq!(now, expected, "{said}"),
            }
            expected = now;
        }
        let before = digest(&mut others[0]);
        server.kill();
        server.launch();
        others = (0..4).map(|_| server.client()).collect();
        assert_eq!(digest(&mut others[0]), before);
    }
}

/// WAITAOF behind a script means what that script did.
#[test]
fn a_sync_is_awaited_behind_scripts() {
    let server = Server::start(&["--shards", "1", "--fsync", "everysec"]);
    let mut client = server.client();
    let script = encode(&["EVAL", INCREMENT, "1", "key"]);
    let wait = encode(&["WAITAOF", "1", "0", "0"]);
    for _ in 0..3 {
        let replies = client.pipeline(&[&script[..], &wait].concat(), 2);
        assert_eq!(replies[1], Value::Array(vec![Value::Integer(1), Value::Integer(0)]));
    }
}
