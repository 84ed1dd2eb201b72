//! Replies that are too long to be written at once: what clients see of their slices, which is
//! nothing, and what becomes of the values meanwhile.

use crate::support::client::encode;
use crate::support::secure::{Authority, SecureClient};
use crate::support::server::free_port;
use crate::support::{Chance, Client, Server, Value, eventually};

/// A slice of a long reply.
const SLICE_BYTES: i64 = 64 << 10;
/// Elements of a value that no socket buffers hold a reply of.
const ELEMENTS: usize = 20_000;
/// Bytes of each.
const ELEMENT_BYTES: usize = 1000;

/// The element of a list at a position.
fn element(n: usize) -> String {
    format!("{n:0ELEMENT_BYTES$}")
}

/// Fills a list that is too long for any socket.
fn fill(client: &mut Client, key: &str) {
    for start in (0..ELEMENTS).step_by(1000) {
        let elements = (start..start + 1000).map(element);
        let words: Vec<String> =
            ["RPUSH".to_owned(), key.to_owned()].into_iter().chain(elements).collect();
        assert_eq!(client.call(&words).integer() as usize, start + 1000);
    }
}

fn expect_list(reply: &Value) {
    assert_eq!(reply.elements().len(), ELEMENTS);
    for (n, found) in reply.elements().iter().enumerate() {
        assert!(*found == Value::bulk(element(n)), "element {n}");
    }
}

/// A field of the CLIENT LIST line of a named client.
fn field(operator: &mut Client, name: &str, field: &str) -> Option<i64> {
    let list = operator.say("CLIENT LIST").text();
    let line = list.lines().find(|line| line.contains(&format!(" name={name} ")))?;
    let value = line.split(' ').find_map(|word| word.strip_prefix(&format!("{field}=")));
    Some(value.expect("a field").parse().expect("a number"))
}

/// A client that asks for a long list, and for more behind it, and reads nothing; its reply waits
/// for it.
fn reader(server: &Server, operator: &mut Client) -> Client {
    let mut reader = server.client();
    assert_eq!(reader.say("CLIENT SETNAME reader"), Value::ok());
    reader.send(b"LRANGE long 0 -1\r\nLLEN long\r\nPING\r\n");
    eventually("the reply waits", || {
        field(operator, "reader", "obl").filter(|bytes| *bytes > 0).map(|_| ())
    });
    // The socket has taken what it could, and no more is written than that.
    let waiting = field(operator, "reader", "obl").expect("it is connected");
    assert!(waiting <= 2 * SLICE_BYTES, "{waiting} bytes wait");
    reader
}

#[test]
fn a_long_reply_is_of_one_moment_whatever_becomes_of_the_value() {
    let ends: [&[&str]; 8] = [
        &["LSET long 19999 other", "LSET long 0 other", "LPUSH long more", "LTRIM long 0 0"],
        &["DEL long"],
        &["UNLINK long", "RPUSH long a"],
        &["FLUSHALL"],
        &["FLUSHALL ASYNC", "SET long string"],
        &["PEXPIREAT long 1"],
        &["RENAME long other", "DEL other"],
        &["COPY long other", "LREM long 0 nothing", "LTRIM long 5 10000", "SWAPDB 0 1"],
    ];
    for arguments in [&["--shards", "1", "--mode", "cache"][..], &["--shards", "4"]] {
        let server = Server::start(arguments);
        let mut operator = server.client();
        for end in ends {
            operator.say("FLUSHALL");
            fill(&mut operator, "long");
            let mut reader = reader(&server, &mut operator);
            for command in end {
                let reply = operator.say(command);
                assert!(!reply.is_error(), "{command}: {reply:?}");
            }
            operator.say("SET between slices");
            expect_list(&reader.read());
            // What was asked behind it may have been executed before it was sent, or behind.
            let length = reader.read();
            let now = operator.say("LLEN long");
            let is_before = length == Value::Integer(ELEMENTS as i64);
            assert!(is_before || length == now || length.is_error() && now.is_error());
            assert_eq!(reader.read().text(), "PONG");
        }
    }
}

#[test]
fn a_limit_of_output_is_not_for_what_is_not_written_yet() {
    let server = Server::start(&["--shards", "1", "--mode", "cache"]);
    let mut operator = server.client();
    fill(&mut operator, "long");
    let limit = ["CONFIG", "SET", "client-output-buffer-limit", "normal 1mb 0 0"];
    assert_eq!(operator.call(&limit), Value::ok());
    let mut reader = reader(&server, &mut operator);
    expect_list(&reader.read());
    assert_eq!(server.info_number("client_output_buffer_limit_disconnections"), 0);
}

#[test]
fn who_goes_away_in_the_middle_leaves_nothing() {
    let server = Server::start(&["--shards", "1", "--mode", "cache"]);
    let mut operator = server.client();
    let before = server.info_number("allocator_allocated");
    for way in 0..3 {
        fill(&mut operator, "long");
        let reader = reader(&server, &mut operator);
        assert_eq!(operator.say("DEL long").integer(), 1);
        // Its version is all there is of the list.
        let whole = (ELEMENTS * ELEMENT_BYTES) as i64 / 2;
        let allocated = server.info_number("allocator_allocated");
        assert!(allocated - before > whole, "{before} before, {allocated} now");
        match way {
            0 => drop(reader),
            1 => reader.reset(),
            _ => {
                let id = field(&mut operator, "reader", "id").expect("it is connected");
                assert_eq!(operator.say(&format!("CLIENT KILL ID {id}")).integer(), 1);
            }
        }
        eventually("it is gone with what it kept", || {
            let is_gone = field(&mut operator, "reader", "id").is_none();
            let allocated = server.info_number("allocator_allocated");
            (is_gone && allocated - before < whole / 4).then_some(())
        });
    }
}

#[test]
fn an_end_does_not_wait_for_who_does_not_read() {
    let mut server = Server::start(&["--shards", "1", "--mode", "cache"]);
    let mut operator = server.client();
    fill(&mut operator, "long");
    let mut reader = reader(&server, &mut operator);
    let (status, _) = server.terminate();
    assert!(status.success());
    let begun = reader.read_to_close();
    assert!(begun.starts_with(format!("*{ELEMENTS}\r\n").as_bytes()));
}

/// Fills keys of all types with so many elements.
fn fill_all(client: &mut Client, count: usize) {
    client.say("FLUSHALL");
    let number = |n: usize| format!("{:06}", n * 7919 % 1_000_003);
    let fill = |client: &mut Client, head: &[&str], words: &dyn Fn(usize) -> Vec<String>| {
        for start in (0..count).step_by(2000) {
            let some = (start..count.min(start + 2000)).flat_map(words);
            let request: Vec<String> =
                head.iter().map(|word| (*word).to_owned()).chain(some).collect();
            assert!(!client.call(&request).is_error());
        }
    };
    fill(client, &["RPUSH", "list"], &|n| vec![(n % 10).to_string()]);
    fill(client, &["SADD", "set"], &|n| vec![format!("m{}", number(n))]);
    fill(client, &["SADD", "integers"], &|n| vec![n.to_string()]);
    fill(client, &["HSET", "hash"], &|n| vec![format!("f{}", number(n)), format!("v{n}")]);
    fill(client, &["ZADD", "zset"], &|n| vec![(n / 3).to_string(), number(n)]);
    let adds: Vec<u8> = (0..count)
        .flat_map(|n| {
            let (id, value) = (format!("{}-{}", 1 + n / 5, n % 5), number(n));
            encode(&["XADD", "stream", &id, "field", &value])
        })
        .collect();
    assert!(client.pipeline(&adds, count).iter().all(|reply| !reply.is_error()));
}

/// Reads of each type, those that tell an order that Redis has too.
const ORDERED: &[&str] = &[
    "LRANGE list 0 -1",
    "LRANGE list 3 -2",
    "LRANGE list -10000 -1",
    "ZRANGE zset 0 -1",
    "ZRANGE zset 1 -1 WITHSCORES",
    "ZRANGE zset 0 -2 REV WITHSCORES",
    "ZREVRANGE zset 0 -1",
    "ZRANGEBYSCORE zset -inf +inf WITHSCORES LIMIT 5 9999999",
    "ZREVRANGEBYSCORE zset (3000 1 WITHSCORES",
    "ZRANGEBYLEX zset - +",
    "XRANGE stream - +",
    "XRANGE stream 2 + COUNT 2500",
    "XRANGE stream 3-2 (1800-1",
    "XREVRANGE stream + -",
    "XREVRANGE stream (1900 7-3 COUNT 99999",
    "XREAD STREAMS stream 0",
    "XREAD COUNT 3000 STREAMS stream 1-3",
];

/// Takes of each type, which empty it.
const TAKES: &[&str] = &[
    "LPOP list 9400",
    "RPOP list 9999999",
    "ZPOPMIN zset 4000",
    "ZPOPMAX zset 9999999",
    "EXISTS list zset",
];

/// The others.
const UNORDERED: &[&str] = &[
    "SMEMBERS set",
    "SMEMBERS integers",
    "SRANDMEMBER set 99999999",
    "HGETALL hash",
    "HKEYS hash",
    "HVALS hash",
];

/// Counts of elements around those at which replies of `ORDERED` end with a slice, and larger ones.
const COUNTS: &[usize] = &[1, 1000, 9361, 9362, 9363, 9364, 18_724, 18_725, 18_726, 30_000];

#[test]
fn replies_of_all_lengths_are_those_of_redis() {
    let redis = Server::start_redis(&[]);
    let server = Server::start(&["--shards", "1", "--mode", "cache"]);
    for &count in COUNTS {
        for server in [&redis, &server] {
            fill_all(&mut server.client(), count);
        }
        let all = [ORDERED, TAKES].concat();
        let requests = all.join("\r\n") + "\r\n";
        let replies = [&redis, &server]
            .map(|server| server.client().pipeline(requests.as_bytes(), all.len()));
        for (n, request) in all.iter().enumerate() {
            assert!(replies[0][n] == replies[1][n], "{request}, {count} elements");
        }
    }
}

/// What is queued is written whole; in both protocols it is the same to the byte.
#[test]
fn slices_are_what_is_written_at_once() {
    for shape in [&["--shards", "1"][..], &["--shards", "8", "--cores-in-use", "all"]] {
        let server = Server::start(&[&["--mode", "cache"], shape].concat());
        let mut filler = server.client();
        for &count in COUNTS {
            fill_all(&mut filler, count);
            for protocol in [2, 3] {
                for request in [ORDERED, UNORDERED].concat() {
                    // By chance, even where all are asked for.
                    let is_drawn = request.starts_with("SRANDMEMBER");
                    let hello = format!("HELLO {protocol}\r\n");
                    let plain = format!("{hello}ECHO begin\r\n{request}\r\nPING\r\n");
                    let queued =
                        format!("{hello}ECHO begin\r\nMULTI\r\n{request}\r\nEXEC\r\nPING\r\n");
                    let mut bytes = [plain, queued].map(|requests| {
                        let reply = server.client().exchange(requests.as_bytes());
                        let mark = b"$5\r\nbegin\r\n";
                        let at = reply.windows(mark.len()).position(|some| some == mark);
                        reply[at.expect("it was said") + mark.len()..].to_vec()
                    });
                    let head = b"+OK\r\n+QUEUED\r\n*1\r\n";
                    assert!(bytes[1].starts_with(head), "{request}");
                    bytes[1].drain(..head.len());
                    let same = if is_drawn {
                        bytes[0].len() == bytes[1].len()
                    } else {
                        bytes[0] == bytes[1]
                    };
                    assert!(same, "{request}, {count} elements, RESP{protocol}");
                }
            }
        }
    }
}

#[test]
fn pipelined_long_replies_of_many_shards_come_in_order() {
    let mut chance = Chance::new("pipelined_long_replies_of_many_shards_come_in_order");
    for arguments in [&["--cores-in-use", "all"][..], &["--cores-in-use", "auto"]] {
        let server = Server::start(&[&["--shards", "8", "--mode", "cache"], arguments].concat());
        let mut client = server.client();
        for key in 0..16_usize {
            let count = 1 + key * 1000;
            let elements = (0..count).map(|n| format!("{key}:{n}"));
            let words: Vec<String> =
                ["RPUSH".to_owned(), key.to_string()].into_iter().chain(elements).collect();
            assert_eq!(client.call(&words).integer() as usize, count);
        }
        let (mut requests, mut asked) = (Vec::new(), Vec::new());
        for n in 0..400 {
            let key = chance.below(16);
            asked.push((n, key));
            let key = key.to_string();
            match n % 4 {
                0 => requests.extend(encode(&["LINDEX", &key, "0"])),
                1 => requests.extend(encode(&["APPEND", "counted", "x"])),
                2 => {
                    requests.extend(encode(&["CLIENT", "REPLY", "SKIP"]));
                    requests.extend(encode(&["LRANGE", &key, "0", "-1"]));
                }
                _ => requests.extend(encode(&["LRANGE", &key, "0", "-1"])),
            }
        }
        let asked: Vec<_> = asked.into_iter().filter(|(n, _)| n % 4 != 2).collect();
        let replies = client.pipeline(&requests, asked.len());
        for ((n, key), reply) in asked.into_iter().zip(replies) {
            match n % 4 {
                0 => assert_eq!(reply, Value::bulk(format!("{key}:0"))),
                1 => assert_eq!(reply.integer() as usize, 1 + n / 4),
                _ => {
                    let elements = reply.elements();
                    assert_eq!(elements.len() as u64, 1 + key * 1000);
                    for (at, element) in elements.iter().enumerate() {
                        assert_eq!(*element, Value::bulk(format!("{key}:{at}")));
                    }
                }
            }
        }
    }
}

#[test]
fn tls_has_slices_too() {
    let (authority, port) = (Authority::new(), free_port());
    authority.issue("server", "ec");
    let arguments = authority.arguments(port, "server");
    let mut words = vec!["--shards", "1", "--mode", "cache", "--tls-auth-clients", "no"];
    words.extend(arguments.iter().map(String::as_str));
    let server = Server::start(&words);
    let mut operator = server.client();
    fill(&mut operator, "long");
    let mut reader =
        SecureClient::connect(port, &authority.client(None, &[&rustls::version::TLS13]));
    assert_eq!(reader.say("CLIENT SETNAME reader"), Value::ok());
    reader.send(b"LRANGE long 0 -1\r\nPING\r\n").expect("it is connected");
    eventually("the reply waits", || {
        field(&mut operator, "reader", "obl").filter(|bytes| *bytes > 0).map(|_| ())
    });
    let waiting = field(&mut operator, "reader", "obl").expect("it is connected");
    assert!(waiting <= 2 * SLICE_BYTES, "{waiting} bytes wait");
    assert_eq!(operator.say("DEL long").integer(), 1);
    expect_list(&reader.read().expect("a reply"));
    assert_eq!(reader.read().expect("a reply").text(), "PONG");
}

#[test]
fn a_long_reply_is_noted_with_its_whole_size() {
    let server = Server::start(&["--shards", "1", "--mode", "cache"]);
    let mut client = server.client();
    fill(&mut client, "long");
    assert_eq!(client.say("CLIENT SETNAME asker"), Value::ok());
    let reply = client.say("LRANGE long 0 -1");
    let size = format!("*{ELEMENTS}\r\n").len()
        + ELEMENTS * (ELEMENT_BYTES + format!("${ELEMENT_BYTES}\r\n\r\n").len());
    expect_list(&reply);
    let noted = client.say("COMMANDLOG GET -1 large-reply");
    let noted = noted.elements().first().expect("one").elements().to_vec();
    assert_eq!(noted[2].integer() as usize, size);
    assert_eq!(noted[3].elements()[0], Value::bulk("LRANGE"));
    assert_eq!(noted[5], Value::bulk("asker"));
    assert_eq!(client.say("COMMANDLOG LEN large-reply").integer(), 1);
}
