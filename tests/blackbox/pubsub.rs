//! Channels and messages: one connection's conversation is the real redis-server's to the byte;
//! messages of one publisher come in order, to every core, and never before the writes that stand
//! before them.

use crate::support::client::encode;
use crate::support::{Client, Server, Value, eventually};

const TWO_CORES: &[&str] = &["--shards", "4", "--cores", "0,1", "--cores-in-use", "all"];

/// Sends each line by itself and reads everything that comes before the answer to an ECHO or, where
/// that is not allowed, a PING behind it.
fn converse(server: &Server, lines: &[&str]) -> Vec<String> {
    let mut client = server.client();
    let mut all = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        let mark = format!("mark-{n}");
        client.send(format!("{line}\r\nPING {mark}\r\n").as_bytes());
        let mut heard = String::new();
        loop {
            let value = format!("{:?}", client.read());
            let is_mark = value.contains(&mark);
            heard.push_str(&value);
            if is_mark {
                break;
            }
        }
        all.push(format!("{line}: {heard}"));
    }
    all
}

#[test]
fn a_conversation_is_that_of_redis() {
    let scenes: &[&[&str]] = &[
        &[
            "SUBSCRIBE a",
            "SUBSCRIBE a b c",
            "PSUBSCRIBE a* ?",
            "SSUBSCRIBE s",
            "GET x",
            "CLIENT INFO",
            "PUBLISH a x",
            "MULTI",
            "UNSUBSCRIBE a",
            "UNSUBSCRIBE nothing b",
            "PUNSUBSCRIBE ?",
            "PUNSUBSCRIBE a*",
            "SUNSUBSCRIBE s",
            "UNSUBSCRIBE c",
            "SET x 1",
            "UNSUBSCRIBE",
            "PUNSUBSCRIBE",
            "SUNSUBSCRIBE",
            "SUBSCRIBE",
            "PUBLISH a",
            "PUBSUB CHANNELS a b",
            "PUBSUB NUMPAT x",
            "PUBSUB NUMSUB",
            "PUBSUB NUMSUB a b",
            "PUBSUB SHARDNUMSUB a",
            "PUBSUB FOO",
        ],
        &[
            "HELLO 3",
            "SUBSCRIBE a",
            "PSUBSCRIBE a* b*",
            "PUBLISH a one",
            "SSUBSCRIBE a",
            "SPUBLISH a two",
            "GET x",
            "PUBSUB CHANNELS",
            "PUBSUB CHANNELS b*",
            "PUBSUB NUMSUB a b",
            "PUBSUB NUMPAT",
            "PUBSUB SHARDCHANNELS",
            "PUBSUB SHARDNUMSUB a b",
            "UNSUBSCRIBE",
            "PUBLISH a three",
            "HELLO 2",
            "PUBSUB NUMPAT",
            "PUNSUBSCRIBE b*",
            "PUNSUBSCRIBE",
            "PUBLISH a four",
        ],
        &["SUBSCRIBE a", "RESET", "GET x", "PUBLISH a x", "CLIENT LIST TYPE pubsub"],
    ];
    for scene in scenes {
        let redis = Server::start_redis(&[]);
        let servers = [Server::start(&["--shards", "1"]), Server::start(TWO_CORES)];
        let hidden = |all: Vec<String>| -> Vec<String> {
            let shown = |line: &String| !line.starts_with("HELLO") && !line.contains("(7.0.15)");
            all.into_iter().filter(shown).collect()
        };
        let expected = hidden(converse(&redis, scene));
        for server in &servers {
            assert_eq!(hidden(converse(server, scene)), expected);
        }
    }
}

#[test]
fn messages_of_a_transaction_are_those_of_redis() {
    let redis = Server::start_redis(&[]);
    let servers = [Server::start(&["--shards", "1"]), Server::start(TWO_CORES), redis];
    for server in servers {
        let mut subscriber = subscribe(&server, "c");
        let mut client = server.client();
        assert_eq!(client.say("MULTI"), Value::ok());
        let commands =
            ["PUBLISH c 1", "SET a0 1", "PUBLISH c 2", "GET a0", "SET b1 x", "PUBLISH nobody x"];
        for command in commands {
            assert_eq!(client.say(command), Value::Simple("QUEUED".into()));
        }
        let expected = [
            Value::Integer(1),
            Value::ok(),
            Value::Integer(1),
            Value::bulk("1"),
            Value::ok(),
            Value::Integer(0),
        ];
        assert_eq!(client.say("EXEC").elements(), expected);
        assert_eq!(subscriber.read().elements()[2], Value::bulk("1"));
        assert_eq!(subscriber.read().elements()[2], Value::bulk("2"));
        // Of a transaction that is not done nobody hears.
        let mut other = server.client();
        assert_eq!(client.say("WATCH a0"), Value::ok());
        assert_eq!(other.say("SET a0 changed"), Value::ok());
        assert_eq!(client.say("MULTI"), Value::ok());
        client.say("PUBLISH c 3");
        assert_eq!(client.say("EXEC"), Value::NullArray);
        assert_eq!(client.say("PUBLISH c 4"), Value::Integer(1));
        assert_eq!(subscriber.read().elements()[2], Value::bulk("4"));
    }
}

fn subscribe(server: &Server, channel: &str) -> Client {
    let mut client = server.client();
    let told = client.call(&["SUBSCRIBE", channel]);
    assert_eq!(told.elements()[..2], [Value::bulk("subscribe"), Value::bulk(channel)]);
    client
}

#[test]
fn messages_of_one_publisher_come_in_order_to_all() {
    const COUNT: usize = 3000;
    let server = Server::start(TWO_CORES);
    let mut subscribers: Vec<Client> = (0..16).map(|_| subscribe(&server, "news")).collect();
    let mut by_pattern = server.client();
    assert_eq!(by_pattern.say("PSUBSCRIBE n*s").elements().len(), 3);
    let mut publisher = server.client();
    // Long ones, which subscribers share, among short ones.
    let payload =
        |n: usize| format!("{n}:{}", "x".repeat(if n.is_multiple_of(7) { 3000 } else { 10 }));
    let bytes: Vec<u8> =
        (0..COUNT).flat_map(|n| encode(&["PUBLISH", "news", &payload(n)])).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let replies = publisher.pipeline(&bytes, COUNT);
            assert!(replies.iter().all(|reply| *reply == Value::Integer(17)), "{:?}", replies[0]);
        });
        for client in &mut subscribers {
            scope.spawn(move || {
                for n in 0..COUNT {
                    let message = client.read();
                    assert_eq!(message.elements()[2], Value::bulk(payload(n)), "message {n}");
                }
            });
        }
        for n in 0..COUNT {
            let message = by_pattern.read();
            assert_eq!(message.elements()[0], Value::bulk("pmessage"));
            assert_eq!(message.elements()[3], Value::bulk(payload(n)));
        }
    });
}

/// Who gets a message finds what its publisher wrote before, also in MULTI.
#[test]
fn a_message_does_not_overtake_the_writes_before_it() {
    const COUNT: u64 = 400;
    for mode in ["store", "cache"] {
        let server = Server::start(&[TWO_CORES, &["--mode", mode]].concat());
        let mut subscriber = subscribe(&server, "written");
        let mut publisher = server.client();
        let mut requests = Vec::new();
        for n in 1..=COUNT {
            requests.extend(
                match n % 4 {
                    0 => format!("SET a0 {n}\r\nSET b1 {n}\r\nPUBLISH written {n}\r\n"),
                    1 => format!("MSET a0 {n} b1 {n}\r\nPUBLISH written {n}\r\n"),
                    2 => format!(
                        "MULTI\r\nPUBLISH written {n}\r\nSET a0 {n}\r\nSET b1 {n}\r\nEXEC\r\n"
                    ),
                    _ => format!(
                        "SET b1 {n}\r\nMULTI\r\nSET a0 {n}\r\nPUBLISH written {n}\r\nEXEC\r\n"
                    ),
                }
                .into_bytes(),
            );
        }
        publisher.send(&requests);
        let mut reader = server.client();
        for n in 1..=COUNT {
            let message = subscriber.read();
            assert_eq!(message.elements()[2], Value::bulk(n.to_string()), "in order");
            for value in reader.say("MGET a0 b1").elements() {
                let seen: u64 = value.text().parse().expect("a number");
                assert!(seen >= n, "message {n} was there before its write: {seen}");
            }
        }
        drop(publisher);
    }
}

#[test]
fn subscribers_of_all_cores_are_counted_and_forgotten() {
    let server = Server::start(TWO_CORES);
    let mut client = server.client();
    let subscribers: Vec<Client> = (0..40).map(|n| subscribe(&server, ["a", "b"][n % 2])).collect();
    let mut patterns: Vec<Client> = (0..10).map(|_| server.client()).collect();
    for (n, pattern) in patterns.iter_mut().enumerate() {
        assert_eq!(pattern.say(&format!("PSUBSCRIBE {}*", ["a", "x"][n % 2])).elements().len(), 3);
    }
    let numbers = |client: &mut Client| {
        let reply = client.say("PUBSUB NUMSUB a b c");
        [1, 3, 5].map(|i| reply.elements()[i].integer())
    };
    assert_eq!(numbers(&mut client), [20, 20, 0]);
    assert_eq!(client.say("PUBSUB NUMPAT"), Value::Integer(2));
    assert_eq!(client.say("PUBSUB CHANNELS").elements().len(), 2);
    assert_eq!(client.say("PUBLISH a x"), Value::Integer(25));
    assert_eq!(client.say("PUBLISH nobody x"), Value::Integer(0));
    assert_eq!(server.info_number("pubsub_clients"), 50);
    assert_eq!(
        (server.info_number("pubsub_channels"), server.info_number("pubsub_patterns")),
        (2, 2)
    );
    assert_eq!(client.say("CLIENT LIST TYPE pubsub").text().lines().count(), 50);
    assert_eq!(client.say("CLIENT LIST TYPE normal").text().lines().count(), 1);
    drop((subscribers, patterns));
    eventually("all are forgotten", || {
        let channels = client.say("PUBSUB CHANNELS").elements().len();
        (channels == 0 && client.say("PUBSUB NUMPAT") == Value::Integer(0)).then_some(())
    });
    assert_eq!(client.say("PUBLISH a x"), Value::Integer(0));
}

/// Whoever subscribes, leaves and comes again at once is never missed by a message that is
/// published afterwards.
#[test]
fn who_comes_and_goes_is_not_missed() {
    let server = Server::start(TWO_CORES);
    std::thread::scope(|scope| {
        for n in 0..6 {
            let server = &server;
            scope.spawn(move || {
                let (mut client, mut publisher) = (server.client(), server.client());
                for round in 0..150 {
                    assert_eq!(client.say("SUBSCRIBE shared").elements().len(), 3);
                    let sent = format!("{n}:{round}");
                    assert!(publisher.call(&["PUBLISH", "shared", &sent]).integer() >= 1);
                    while client.read().elements()[2] != Value::bulk(&sent) {}
                    client.send(b"UNSUBSCRIBE shared\r\n");
                    while client.read().elements()[0] != Value::bulk("unsubscribe") {}
                }
            });
        }
    });
    let mut client = server.client();
    eventually("nobody is left", || {
        client.say("PUBSUB CHANNELS").elements().is_empty().then_some(())
    });
}

#[test]
fn a_slow_subscriber_is_closed_and_holds_nobody_up() {
    let server = Server::start(TWO_CORES);
    let mut client = server.client();
    let limit = ["CONFIG", "SET", "client-output-buffer-limit", "pubsub 2mb 0 0"];
    assert_eq!(client.call(&limit), Value::ok());
    let _slow = subscribe(&server, "flood");
    let mut quick = subscribe(&server, "flood");
    let payload = "x".repeat(100_000);
    eventually("the slow one is closed", || {
        let count = client.call(&["PUBLISH", "flood", &payload]).integer();
        assert_eq!(quick.read().elements()[2], Value::bulk(&payload));
        (count == 1).then_some(())
    });
    assert_eq!(server.info_number("client_output_buffer_limit_disconnections"), 1);
}

/// Confirmations and messages among replies of one connection that speaks RESP3, pipelined.
#[test]
fn messages_come_between_replies() {
    let server = Server::start(TWO_CORES);
    let mut client = server.client();
    let mut sent = b"HELLO 3\r\n".to_vec();
    for n in 0..100 {
        let text = format!("SET a{n} {n}\r\nSUBSCRIBE c{n}\r\nPUBLISH c{n} {n}\r\nGET a{n}\r\n");
        sent.extend_from_slice(text.as_bytes());
    }
    client.send(&sent);
    client.read();
    for n in 0..100 {
        assert_eq!(client.read(), Value::ok());
        let mut kinds = Vec::new();
        for _ in 0..4 {
            let value = client.read();
            kinds.push(match &value {
                Value::Integer(1) => "count".to_string(),
                Value::Bulk(_) => {
                    assert_eq!(value, Value::bulk(n.to_string()));
                    "value".into()
                }
                push => push.elements()[0].text(),
            });
        }
        assert_eq!(kinds[0], "subscribe", "first of all");
        let place = |kind: &str| kinds.iter().position(|other| other == kind);
        assert!(place("message") > Some(0) && place("count") < place("value"), "{kinds:?}");
    }
}

/// Clients (redis-py's, for one) send SUBSCRIBE, do not wait, and publish on another connection: in
/// Redis the subscription came first. Here both are of one core, which has others to tell.
#[test]
fn a_subscription_that_was_sent_before_hears_what_comes_behind_it() {
    let server = Server::start(&["--shards", "4", "--cores", "0,1", "--cores-in-use", "auto"]);
    let mut publisher = server.client();
    assert_eq!(publisher.say("PING"), Value::Simple("PONG".into()));
    for (word, told, heard) in [
        ("SUBSCRIBE", "subscribe", "message"),
        ("PSUBSCRIBE", "psubscribe", "pmessage"),
        ("SSUBSCRIBE", "ssubscribe", "smessage"),
    ] {
        for n in 0..50 {
            let mut listener = server.client();
            assert_eq!(listener.say("PING"), Value::Simple("PONG".into()));
            let (channel, long) = (format!("{told}{n}"), "x".repeat(5000));
            listener.send(&encode(&[word, &channel, "other"]));
            let publish = if word == "SSUBSCRIBE" { "SPUBLISH" } else { "PUBLISH" };
            for payload in ["one", &long, "three"] {
                let count = publisher.call(&[publish, &channel, payload]);
                assert_eq!(count, Value::Integer(1), "{word} {n}");
            }
            for (name, count) in [(channel.as_str(), 1), ("other", 2)] {
                let reply = listener.read();
                let [kind, topic, number] = reply.elements() else { panic!("{reply:?}") };
                assert_eq!((kind.text(), topic.text()), (told.to_string(), name.to_string()));
                assert_eq!(number, &Value::Integer(count));
            }
            for payload in ["one", &long, "three"] {
                let message = listener.read();
                let words = message.elements();
                assert_eq!(words[0].text(), heard);
                assert_eq!(words[words.len() - 1], Value::bulk(payload));
            }
            // A client that goes before it is answered leaves nothing.
            let mut gone = server.client();
            gone.send(&encode(&[word, &format!("gone{n}")]));
            gone.reset();
        }
    }
    for question in ["PUBSUB CHANNELS", "PUBSUB SHARDCHANNELS"] {
        eventually("nobody is left", || {
            (publisher.say(question) == Value::Array(vec![])).then_some(())
        });
    }
    assert_eq!(publisher.say("PUBSUB NUMPAT"), Value::Integer(0));
}

/// More than one system call sends to, among them one that reads nothing, some that have gone, and
/// one that is sent a reply in the same turn.
#[test]
fn a_crowd_gets_every_message_whoever_does_not_read() {
    const CROWD: usize = 600;
    const COUNT: usize = 40;
    let server = Server::start(&["--shards", "1", "--cores", "0"]);
    let mut client = server.client();
    let limit = ["CONFIG", "SET", "client-output-buffer-limit", "pubsub 0 0 0"];
    assert_eq!(client.call(&limit), Value::ok());
    let mut silent = subscribe(&server, "crowd");
    let payload = |n: usize, size: usize| format!("{n}:{}", "x".repeat(size));
    // Until its socket is full, and what is kept of it here grows.
    let mut filled = 0;
    while filled == 0 || client.say("CLIENT LIST TYPE pubsub").text().contains(" obl=0 ") {
        let long = payload(filled, 100_000);
        assert_eq!(client.call(&["PUBLISH", "crowd", &long]), Value::Integer(1));
        filled += 1;
    }
    let mut crowd: Vec<Client> = (0..CROWD).map(|_| subscribe(&server, "crowd")).collect();
    let gone = crowd.split_off(CROWD - 20);
    let short = (0..COUNT).map(|n| payload(filled + n, 500));
    client.send(&short.flat_map(|text| encode(&["PUBLISH", "crowd", &text])).collect::<Vec<u8>>());
    drop(gone);
    for _ in 0..COUNT {
        let reached = client.read().integer();
        assert!((CROWD as i64 - 19..=CROWD as i64 + 1).contains(&reached), "{reached}");
    }
    for (place, reader) in crowd.iter_mut().enumerate() {
        for n in 0..COUNT {
            let message = reader.read();
            assert_eq!(message.elements()[2], Value::bulk(payload(filled + n, 500)), "{place}");
        }
    }
    for n in 0..filled + COUNT {
        let size = if n < filled { 100_000 } else { 500 };
        assert_eq!(silent.read().elements()[2], Value::bulk(payload(n, size)), "message {n}");
    }
}
