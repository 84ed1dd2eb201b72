//! XREAD and XREADGROUP that wait: who reads is told of what comes right behind it, who takes is
//! served in order of arrival before any other command. The same demands go to the real
//! redis-server where it is of the same mind.

use crate::blocking::{servers, waiting};
use crate::support::{Client, Server, Value, eventually};
use std::time::{Duration, Instant};

/// What XREAD answers: `key id` for each entry, in order.
fn shown(reply: &Value) -> String {
    let mut words = vec![];
    for stream in reply.elements() {
        let [key, entries] = stream.elements() else { panic!("a stream in {reply:?}") };
        for entry in entries.elements() {
            words.push(format!("{} {}", key.text(), entry.elements()[0].text()));
        }
    }
    words.join(", ")
}

fn read_shown(client: &mut Client) -> String {
    shown(&client.read())
}

#[test]
fn readers_are_told_of_what_comes_and_of_nothing_before() {
    for server in &servers() {
        let mut other = server.client();
        other.say("XADD s 1-1 f v");
        let mut new = waiting(server, "XREAD BLOCK 0 STREAMS s $", 1);
        let mut behind = waiting(server, "XREAD COUNT 1 BLOCK 0 STREAMS nosuch s 0 5-0", 2);
        let mut both = waiting(server, "XREAD BLOCK 0 STREAMS s 1-1", 3);
        // It is told right behind the first entry, although all is gone again in the same breath.
        let lines = b"XADD s 2-1 f v\r\nXADD s 2-2 f v\r\nXTRIM s MAXLEN 0\r\nDEL s\r\n";
        assert_eq!(other.pipeline(lines, 4)[3], Value::Integer(1));
        assert_eq!(read_shown(&mut new), "s 2-1");
        assert_eq!(read_shown(&mut both), "s 2-1");
        assert_eq!(server.info_number("blocked_clients"), 1);
        for line in ["XADD s 4-1 f v", "DEL s", "RPUSH s a", "DEL s", "XADD s 5-0 f v"] {
            other.say(line);
            assert_eq!(server.info_number("blocked_clients"), 1, "{line}");
        }
        other.pipeline(b"XADD s 5-1 f v\r\nXADD s 5-2 f v\r\n", 2);
        assert_eq!(read_shown(&mut behind), "s 5-1");
        // What is there is not waited for.
        assert_eq!(shown(&other.say("XREAD BLOCK 0 STREAMS s 5-1")), "s 5-2");
        other.say("HELLO 3");
        other.send(b"XREAD BLOCK 0 STREAMS s $\r\n");
        eventually("it waits", || (server.info_number("blocked_clients") == 1).then_some(()));
        server.client().say("XADD s 6-0 f v");
        let Value::Map(pairs) = other.read() else { panic!("a map") };
        assert_eq!(pairs[0].0, Value::bulk("s"));
    }
}

#[test]
fn everybody_reads_the_same_entry() {
    const CLIENTS: i64 = 300;
    for server in &servers() {
        let mut clients: Vec<Client> = (0..CLIENTS)
            .map(|n| {
                let mut client = server.client();
                client.send(format!("XREAD BLOCK 0 STREAMS s own:{n} $ $\r\n").as_bytes());
                client
            })
            .collect();
        eventually("all wait", || (server.info_number("blocked_clients") == CLIENTS).then_some(()));
        // Each its own one, then all the same.
        let half = CLIENTS / 2;
        let bytes: Vec<u8> =
            (0..half).flat_map(|n| format!("XADD own:{n} 7-{n} f v\r\n").into_bytes()).collect();
        server.client().pipeline(&bytes, half as usize);
        for (n, client) in clients.iter_mut().enumerate().take(half as usize) {
            assert_eq!(read_shown(client), format!("own:{n} 7-{n}"));
        }
        server.client().say("XADD s 1-1 f v");
        for client in &mut clients[half as usize..] {
            assert_eq!(read_shown(client), "s 1-1");
        }
        assert_eq!(server.info_number("blocked_clients"), 0);
    }
}

#[test]
fn consumers_are_served_in_order_and_before_all_others() {
    for server in &servers() {
        let mut other = server.client();
        other.say("XGROUP CREATE s g $ MKSTREAM");
        other.say("XGROUP CREATE s h $ MKSTREAM");
        let read = |group: &str, consumer: &str, count: i64| {
            let request =
                format!("XREADGROUP GROUP {group} {consumer} COUNT 5 BLOCK 0 STREAMS s >");
            waiting(server, &request, count)
        };
        let (mut first, mut second) = (read("g", "one", 1), read("g", "two", 2));
        let (mut of_other, mut reader) =
            (read("h", "three", 3), waiting(server, "XREAD BLOCK 0 STREAMS s $", 4));
        let lines = b"XADD s 1-1 f v\r\nXREADGROUP GROUP g late STREAMS s >\r\nXADD s 1-2 f v\r\n\
                      XADD s 1-3 f v\r\nXREADGROUP GROUP g late STREAMS s >\r\n";
        let replies = other.pipeline(lines, 5);
        assert_eq!(replies[1], Value::NullArray, "the first one has it already");
        assert_eq!(read_shown(&mut first), "s 1-1");
        assert_eq!(read_shown(&mut second), "s 1-2");
        assert_eq!(read_shown(&mut of_other), "s 1-1");
        assert_eq!(read_shown(&mut reader), "s 1-1");
        assert_eq!(shown(&replies[4]), "s 1-3");
        let pending = other.say("XPENDING s g");
        assert_eq!(pending.elements()[0], Value::Integer(3));
        assert_eq!(pending.elements()[3].elements().len(), 3, "each of them has one");
        // What only looks at the group, or takes away, wakes nobody.
        let mut last = read("g", "four", 1);
        for line in [
            "XACK s g 1-1",
            "XCLAIM s g five 0 1-2",
            "XAUTOCLAIM s g five 0 0",
            "XDEL s 1-1",
            "XTRIM s MAXLEN 1",
            "XGROUP CREATECONSUMER s g six",
            "XGROUP DESTROY s h",
            "XADD other 1-1 f v",
        ] {
            assert!(!other.say(line).is_error(), "{line}");
            assert_eq!(server.info_number("blocked_clients"), 1, "{line}");
        }
        other.say("XADD s 2-1 f v");
        assert_eq!(read_shown(&mut last), "s 2-1");
    }
}

#[test]
fn what_is_new_in_any_way_serves() {
    for server in &servers() {
        let mut other = server.client();
        for fill in [
            "RENAME other s",
            "COPY other s REPLACE",
            "SWAPDB 0 1",
            "RESTORE",
            "MULTI\r\nXADD s 9-9 f v\r\nSET string x\r\nEXEC",
        ] {
            other.say("FLUSHALL");
            other.say("XGROUP CREATE s g $ MKSTREAM");
            for database in ["1", "0"] {
                other.say(&format!("SELECT {database}"));
                let key = if database == "1" { "s" } else { "other" };
                other.say(&format!("XADD {key} 9-9 f v"));
                other.say(&format!("XGROUP CREATE {key} g 0"));
            }
            let mut reader = waiting(server, "XREAD BLOCK 0 STREAMS s 5-0", 1);
            let mut taker = waiting(server, "XREADGROUP GROUP g c BLOCK 0 STREAMS s >", 2);
            if fill == "RESTORE" {
                let Value::Bulk(dump) = other.say("DUMP other") else { panic!("a payload") };
                let words: [&[u8]; 5] = [b"RESTORE", b"s", b"0", &dump, b"REPLACE"];
                assert_eq!(other.call(&words), Value::ok());
            } else {
                let count = fill.matches("\r\n").count() + 1;
                other.pipeline(format!("{fill}\r\n").as_bytes(), count);
            }
            assert_eq!(read_shown(&mut reader), "s 9-9", "{fill}");
            assert_eq!(read_shown(&mut taker), "s 9-9", "{fill}");
        }
    }
}

/// As Redis 7.2: the command is looked at again; 7.0 has other words.
#[test]
fn who_waits_for_a_group_is_told_when_it_is_gone() {
    for server in &servers()[1..] {
        let mut other = server.client();
        for (line, expected) in [
            ("DEL s", "NOGROUP No such key 's' or consumer group 'g'"),
            ("FLUSHALL", "NOGROUP"),
            ("XGROUP DESTROY s g", "NOGROUP"),
            ("SET s string", "WRONGTYPE"),
            ("RENAME s elsewhere", "NOGROUP"),
            ("PEXPIRE s 1", "NOGROUP"),
            ("SWAPDB 0 1", "NOGROUP"),
        ] {
            other.say("FLUSHALL");
            other.say("XGROUP CREATE s g $ MKSTREAM");
            let request = "XREADGROUP GROUP g c BLOCK 0 STREAMS s >";
            let mut clients: Vec<Client> = (1..=100).map(|n| waiting(server, request, n)).collect();
            let mut reader = waiting(server, "XREAD BLOCK 0 STREAMS s $", 101);
            assert!(!other.say(line).is_error());
            for client in &mut clients {
                let reply = client.read();
                assert!(reply.error().starts_with(expected), "{line}: {reply:?}");
            }
            // Who only reads waits on for a stream of this name.
            assert_eq!(server.info_number("blocked_clients"), 1, "{line}");
            other.say("DEL s");
            other.say("XADD s 1-1 f v");
            assert_eq!(read_shown(&mut reader), "s 1-1", "{line}");
        }
    }
}

#[test]
fn streams_of_several_shards_are_waited_for() {
    for server in &servers() {
        let mut other = server.client();
        for key in ["a0", "b1", "c2", "d3"] {
            other.say(&format!("XADD {key} 1-1 f v"));
            other.say(&format!("XGROUP CREATE {key} g $"));
        }
        for (n, key) in ["a0", "b1", "c2", "d3"].iter().enumerate() {
            let mut reader = waiting(server, "XREAD BLOCK 0 STREAMS a0 b1 c2 d3 $ $ $ $", 1);
            let mut same = waiting(server, "XREAD BLOCK 0 STREAMS a0 b1 c2 d3 $ $ $ $", 2);
            let mut taker =
                waiting(server, "XREADGROUP GROUP g c BLOCK 0 STREAMS a0 b1 c2 d3 > > > >", 3);
            assert!(!other.say(&format!("XADD {key} 2-{n} f v")).is_error());
            for client in [&mut reader, &mut same, &mut taker] {
                assert_eq!(read_shown(client), format!("{key} 2-{n}"));
            }
            let pending = other.say(&format!("XPENDING {key} g"));
            assert_eq!(pending.elements()[0], Value::Integer(1), "{key}");
        }
        let all = shown(&other.say("XREAD COUNT 1 STREAMS a0 b1 c2 d3 1-1 1-1 2-2 1-1"));
        assert_eq!(all, "a0 2-0, b1 2-1, d3 2-3");
        let wrong = other.say("XREADGROUP GROUP g c STREAMS a0 b1 nosuch > > >");
        assert!(wrong.error().starts_with("NOGROUP No such key 'nosuch'"), "{wrong:?}");
        other.say("SET string x");
        let wrong = other.say("XREAD STREAMS a0 b1 string d3 0 0 0 0");
        assert!(wrong.error().starts_with("WRONGTYPE"), "{wrong:?}");
    }
}

#[test]
fn a_wait_for_entries_ends_by_time_by_command_and_by_disconnect() {
    for server in &servers() {
        let mut client = server.client();
        for key in ["s", "a0", "b1", "c2"] {
            client.say(&format!("XGROUP CREATE {key} g $ MKSTREAM"));
        }
        let requests = [
            "XREAD BLOCK TIME STREAMS s $",
            "XREAD BLOCK TIME STREAMS a0 b1 c2 $ 0 $",
            "XREADGROUP GROUP g c BLOCK TIME STREAMS s >",
            "XREADGROUP GROUP g c BLOCK TIME STREAMS a0 b1 c2 > > >",
        ];
        for request in requests {
            let begin = Instant::now();
            let timed = request.replace("TIME", "50");
            assert_eq!(client.say(&timed), Value::NullArray, "{timed}");
            assert!(begin.elapsed() >= Duration::from_millis(50), "{timed}");
            let endless = request.replace("TIME", "0");
            for (how, expected) in [
                ("", Value::NullArray),
                (" ERROR", Value::Error("UNBLOCKED client unblocked via CLIENT UNBLOCK".into())),
            ] {
                let mut client = server.client();
                let id = client.say("CLIENT ID").integer();
                client.send(format!("{endless}\r\nPING\r\n").as_bytes());
                eventually("it waits and is unblocked", || {
                    let unblock = format!("CLIENT UNBLOCK {id}{how}");
                    (server.client().say(&unblock) == Value::Integer(1)).then_some(())
                });
                assert_eq!(client.read(), expected, "{endless}");
                assert_eq!(client.read(), Value::Simple("PONG".into()));
            }
            drop(waiting(server, &endless, 1));
            eventually("it is gone", || (server.info_number("blocked_clients") == 0).then_some(()));
            let lines = format!("MULTI\r\n{endless}\r\nEXEC\r\n");
            let replies = server.client().pipeline(lines.as_bytes(), 3);
            assert_eq!(replies[2].elements(), [Value::NullArray], "{endless}");
        }
        // Nobody has taken anything.
        client.say("XADD s 1-1 f v");
        assert_eq!(client.say("XPENDING s g").elements()[0], Value::Integer(0));
        for wrong in [
            "XREAD BLOCK 0 STREAMS s",
            "XREAD BLOCK x STREAMS s $",
            "XREAD BLOCK -1 STREAMS s $",
            "XREAD BLOCK 0 STREAMS s >",
            "XREADGROUP GROUP g c BLOCK 0 STREAMS s $",
            "XREADGROUP GROUP nosuch c BLOCK 0 STREAMS s >",
        ] {
            assert!(client.say(wrong).is_error(), "{wrong}");
        }
    }
}

#[test]
fn who_sends_nothing_more_does_not_wait_for_entries() {
    for server in &servers()[1..] {
        let mut client = server.client();
        client
            .send(b"XREAD BLOCK 0 STREAMS s $\r\nXREAD BLOCK 0 STREAMS a0 b1 c2 0 0 0\r\nPING\r\n");
        client.finish_writing();
        assert_eq!(client.read_to_close(), b"*-1\r\n*-1\r\n+PONG\r\n");
    }
}

/// What a waiting consumer was given is in the log, as it is for one that did not wait.
#[test]
fn what_was_given_to_those_who_waited_outlives_the_server() {
    for shards in ["1", "3"] {
        let mut server = Server::start(&["--shards", shards]);
        let mut other = server.client();
        other.say("XGROUP CREATE s g $ MKSTREAM");
        let mut client = waiting(&server, "XREADGROUP GROUP g c BLOCK 0 STREAMS s >", 1);
        let mut endless = waiting(&server, "XREADGROUP GROUP g d BLOCK 0 STREAMS s >", 2);
        let mut reader = waiting(&server, "XREAD BLOCK 0 STREAMS s nosuch $ $", 3);
        let id = other.say("XADD s * f v").text();
        assert_eq!(read_shown(&mut client), format!("s {id}"));
        assert_eq!(read_shown(&mut reader), format!("s {id}"));
        let whole = other.say("XINFO STREAM s FULL");
        server.kill();
        assert!(endless.read_to_close().is_empty());
        server.launch();
        let mut other = server.client();
        assert_eq!(other.say("XINFO STREAM s FULL"), whole);
        assert_eq!(shown(&other.say("XREADGROUP GROUP g c STREAMS s 0")), format!("s {id}"));
        let next = other.say("XADD s * f v").text();
        assert_eq!(shown(&other.say("XREADGROUP GROUP g d STREAMS s >")), format!("s {next}"));
        let (status, output) = server.terminate();
        assert!(status.success(), "{output}");
    }
}
