//! Arguments are looked at alike wherever a command runs: in one shard, in several, inside MULTI.

use crate::support::{Server, Value};

#[test]
fn what_is_wrong_on_one_shard_is_wrong_on_several() {
    let servers = ["1", "2", "4"].map(|count| Server::start(&["--shards", count]));
    let redis = Server::start_redis(&[]);
    let requests = [
        "FLUSHALL FOO",
        "FLUSHALL SYNC ASYNC",
        "FLUSHDB FOO",
        "FLUSHDB ASYNC SYNC",
        "SWAPDB 0 16",
        "SWAPDB a 1",
        "SWAPDB 1 a",
        "SWAPDB -1 0",
        "SWAPDB 0 99999999999",
        "SWAPDB 0",
        "DBSIZE x",
        "SCAN x",
        "SCAN 0 COUNT 0",
        "SCAN 0 FOO",
        "SCAN 0 COUNT x",
        "RANDOMKEY x",
        "MSET a0 1 b1",
        "MSETNX a0 1 b1",
        "MGET",
        "DEL",
        "EXISTS",
        "BITOP FOO d a0 b1",
        "BITOP NOT d a0 b1",
        "COPY a0 b1 DB x",
        "COPY a0 b1 DB 99",
        "COPY a0 b1 FOO",
        "RENAME a0",
        "LCS a0 b1 FOO",
        "LMOVE a0 b1 UP LEFT",
        "LMPOP 0 a0 LEFT",
        "LMPOP 3 a0 b1 LEFT",
        "BLPOP a0 b1 x",
        "BLMOVE a0 b1 LEFT LEFT -1",
        "PFMERGE",
        "PFCOUNT",
        "KEYS",
        "TOUCH",
        "UNLINK",
    ];
    for request in requests {
        let expected = redis.client().say(request);
        assert!(expected.is_error(), "{request}: {expected:?}");
        for server in &servers {
            assert_eq!(server.client().say(request), expected, "{request}");
        }
    }
    for server in &servers {
        assert_eq!(server.client().say("SET a0 1"), Value::ok());
        assert!(server.client().say("FLUSHALL FOO").is_error());
        assert_eq!(server.client().say("DBSIZE"), Value::Integer(1));
    }
}

/// Clients that keep cursors in doubles see everything.
#[test]
fn cursors_fit_into_doubles() {
    let server = Server::start(&["--shards", "3", "--fsync", "no"]);
    let bytes: Vec<u8> =
        (0..20_000).flat_map(|n| format!("SET key:{n} {n}\r\n").into_bytes()).collect();
    server.client().pipeline(&bytes, 20_000);
    let mut client = server.client();
    let mut seen = std::collections::HashSet::new();
    let mut cursor = 0.0f64;
    loop {
        let reply = client.say(&format!("SCAN {cursor} COUNT 50"));
        let next: u64 = reply.elements()[0].text().parse().expect("a cursor is a number");
        assert!(next < 1 << 48, "{next}");
        seen.extend(reply.elements()[1].elements().iter().map(Value::text));
        cursor = next as f64;
        if next == 0 {
            break;
        }
    }
    assert_eq!(seen.len(), 20_000);
}

/// One client's long row of requests behind a transaction of several shards keeps nobody waiting
/// for long: it used to take seconds, growing with the square of the row.
#[test]
fn a_long_row_behind_a_transaction_is_served() {
    const ROW: usize = 16_000;
    let server = Server::start(&["--shards", "2"]);
    let row = "INCR a0\r\n".repeat(ROW);
    let replies = server.client().pipeline(format!("MSET a0 1 b1 1\r\n{row}").as_bytes(), ROW + 1);
    assert_eq!(replies[ROW], Value::Integer(ROW as i64 + 1));
}

/// What a connection watches is touched by what changes it, and by nothing else: as in Redis.
#[test]
fn a_write_that_changes_nothing_touches_no_watched_key() {
    let servers = [
        Server::start_redis(&[]),
        Server::start(&["--shards", "1"]),
        Server::start(&["--shards", "3"]),
    ];
    for (prepare, act) in WATCHED {
        let seen = servers.iter().map(|server| {
            let (mut watcher, mut other) = (server.client(), server.client());
            other.say("FLUSHALL");
            prepare.split(';').filter(|request| !request.is_empty()).for_each(|request| {
                other.say(request);
            });
            assert_eq!(watcher.say("WATCH k"), Value::ok());
            other.call(&act.split(' ').map(|word| word.trim_matches('"')).collect::<Vec<_>>());
            watcher.say("MULTI");
            watcher.say("PING");
            watcher.say("EXEC") == Value::NullArray
        });
        let seen: Vec<bool> = seen.collect();
        assert!(seen.iter().all(|touched| *touched == seen[0]), "{prepare}; {act}: {seen:?}");
    }
}

/// What is done before a key `k` is watched, and what another client does then.
const WATCHED: &[(&str, &str)] = &[
    ("SET k v", "APPEND k \"\""),
    ("SET k v", "SETRANGE k 0 \"\""),
    ("SET k v", "SETRANGE k 0 v"),
    ("", "SETRANGE k 0 \"\""),
    ("", "APPEND k \"\""),
    ("SET k v", "SETBIT k 1 1"),
    ("SET k v", "SETNX k x"),
    ("SET k v", "SET k v"),
    ("SET k v", "SET k x NX"),
    ("", "SET k x XX"),
    ("SET k v", "SET k x NX GET"),
    ("SET k v", "GETEX k"),
    ("SET k v", "GETEX k PERSIST"),
    ("SET k v", "PERSIST k"),
    ("SET k v", "EXPIRE k 100 XX"),
    ("SET k v EX 100", "EXPIRE k 200 NX"),
    ("SET k v EX 100", "EXPIRE k 50 GT"),
    ("", "DEL k"),
    ("", "EXPIRE k 10"),
    ("", "GETDEL k"),
    ("SET k v", "COPY j k"),
    ("SET k v;SET j v", "COPY j k"),
    ("SET k v", "RENAMENX j k"),
    ("SET k v;SET j w", "RENAMENX j k"),
    ("SET k v", "RENAME k k"),
    ("SET k 1", "INCRBY k 0"),
    ("SET k 1", "INCRBYFLOAT k 0"),
    ("SET k 1", "DECRBY k 0"),
    ("SET k v", "MSETNX k a j b"),
    ("SET k v", "BITFIELD k GET u8 0"),
    ("SET k v", "BITFIELD k SET u8 0 118"),
    ("SET k v", "BITFIELD k OVERFLOW FAIL INCRBY u8 0 255"),
    ("", "BITOP AND k a b"),
    ("SET k v", "BITOP AND k a b"),
    ("", "GETEX k EX 10"),
    ("RPUSH k a", "LREM k 0 x"),
    ("RPUSH k a", "LSET k 0 a"),
    ("RPUSH k a", "LINSERT k BEFORE x y"),
    ("RPUSH k a", "RPUSHX j a"),
    ("RPUSH k a", "LPOP k 0"),
    ("RPUSH k a", "LMOVE k k LEFT LEFT"),
    ("", "LPUSHX k a"),
    ("", "LPOP k"),
    ("", "LMPOP 1 k LEFT"),
    ("HSET k f v", "HSET k f v"),
    ("PFADD k a", "PFADD k a"),
    ("PFADD k a", "PFADD k"),
    ("PFADD k a", "PFMERGE k k"),
    ("", "MOVE k 1"),
    ("SET k v", "MOVE k 0"),
    ("SET k v", "TOUCH k"),
    ("SET k v", "SWAPDB 0 0"),
    ("", "FLUSHALL"),
    ("", "FLUSHDB"),
    ("SET k v", "RESTORE k 0 x"),
    ("", "UNLINK k"),
    ("SET k v", "GETSET k v"),
    ("SET k v", "SWAPDB 1 2"),
    ("SET k v", "EXPIREAT k 99999999999"),
    ("SET k v EX 100", "PEXPIRE k 100000 LT"),
    ("SET k v", "GETEX k EXAT 1"),
    ("SET k v", "LMOVE k k LEFT LEFT"),
];
