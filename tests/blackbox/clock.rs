//! Wall clocks that are wrong: what is given a deadline ends when it should once the clock is
//! right, locks are free again, what has ended stays gone, and nobody but the clock had to be
//! repaired. The clock is libfaketime's (Debian's `faketime`, which `tests/run` installs): the
//! process sees the time that a file says.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use crate::support::{Client, Program, Server, Value, eventually};

const HOUR: i64 = 3600;
const LINE: &str = "ms behind the time of the data";

/// A server whose wall clock is set by the test.
struct Scene {
    // Goes first: the server reads the file as long as it runs.
    server: Server,
    clock: TempDir,
}

/// Which clocks are wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    /// Only the wall clock: a kernel's other clocks are never set.
    Wall,
    /// All of them, as under a program that pretends another time.
    All,
}

impl Scene {
    fn new(wrong: Wrong, arguments: &[&str], offset: i64) -> Scene {
        let mut server = Server::prepare(Program::Ringraft, arguments);
        let clock = tempfile::tempdir().expect("a temporary directory");
        let file = clock.path().join("clock");
        for (name, value) in [
            ("LD_PRELOAD", library().as_str()),
            ("FAKETIME_TIMESTAMP_FILE", file.to_str().expect("a plain path")),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", if wrong == Wrong::Wall { "1" } else { "0" }),
        ] {
            server.set_variable(name, value);
        }
        let mut scene = Scene { server, clock };
        scene.set_clock(offset);
        scene.server.launch();
        scene
    }

    /// The server's clock is so many seconds ahead from now on.
    fn set_clock(&mut self, offset: i64) {
        let fresh = self.clock.path().join("fresh");
        fs::write(&fresh, format!("{offset:+}")).expect("a file of our own");
        fs::rename(&fresh, self.clock.path().join("clock")).expect("a file of our own");
    }
}

fn library() -> String {
    let roots = fs::read_dir("/usr/lib").expect("/usr/lib").flatten().map(|entry| entry.path());
    let candidates = roots.map(|root| root.join("faketime/libfaketimeMT.so.1"));
    let found = candidates.into_iter().find(|path| path.exists());
    let path = found.expect("libfaketime: apt-get install faketime");
    path.to_str().expect("a plain path").into()
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64
}

fn number(client: &mut Client, command: &str) -> i64 {
    match client.say(command) {
        Value::Integer(number) => number,
        other => panic!("{command}: {other:?}"),
    }
}

fn assert_about(what: &str, value: i64, expected: i64) {
    assert!((expected - 60..=expected + 1).contains(&value), "{what}: {value}, not {expected}");
}

/// The clock is right: deadlines that are given from now on are what they say.
fn assert_time_goes_on(client: &mut Client, round: &str) {
    let key = |name: &str| format!("{name}:{round}");
    let (spans, lock) = (key("span"), key("lock"));
    assert_eq!(client.say(&format!("SET {spans} v PX 300")), Value::ok());
    let left = number(client, &format!("PTTL {spans}"));
    assert!((-2..=300).contains(&left), "{round}: {left} ms are left");
    assert_eq!(client.say(&format!("SET {lock} 1 NX PX 300")), Value::ok());
    eventually("the key ends", || {
        (client.say(&format!("GET {spans}")) == Value::Null).then_some(())
    });
    eventually("the lock is free", || {
        (client.say(&format!("SET {lock} 2 NX PX 300")) == Value::ok()).then_some(())
    });
    for (name, command) in [
        ("exat", format!("SET {} v EXAT {}", key("exat"), now() + 600)),
        ("ex", format!("SET {} v EX 600", key("ex"))),
    ] {
        assert_eq!(client.say(&command), Value::ok(), "{command}");
        assert_about(&command, number(client, &format!("TTL {}", key(name))), 600);
        let at = number(client, &format!("EXPIRETIME {}", key(name)));
        assert!((at - now() - 600).abs() <= 60, "{command}: ends at {at}");
    }
    let later = key("expireat");
    assert_eq!(client.say(&format!("SET {later} v")), Value::ok());
    let command = format!("EXPIREAT {later} {}", now() + 600);
    assert_eq!(client.say(&command), Value::Integer(1));
    assert_about(&command, number(client, &format!("TTL {later}")), 600);
}

#[test]
fn a_clock_that_was_wrong_for_a_while_leaves_no_trace() {
    for (shards, wrong) in [("1", Wrong::Wall), ("3", Wrong::Wall), ("2", Wrong::All)] {
        let mut scene = Scene::new(wrong, &["--shards", shards, "--cores", "0"], 0);
        let mut client = scene.server.client();
        assert_time_goes_on(&mut client, "before");
        assert_eq!(client.say("SET long v EX 7200"), Value::ok());
        assert_eq!(client.say("SET short v EX 1800"), Value::ok());
        scene.set_clock(HOUR);
        eventually("the clock is ahead", || (client.say("GET short") == Value::Null).then_some(()));
        assert_eq!(client.say("SET wrong v EX 1000"), Value::ok());
        assert_about("TTL long", number(&mut client, "TTL long"), 3600);
        scene.set_clock(0);
        assert_time_goes_on(&mut client, "after");
        // What had a deadline before has it still, what has ended is gone for good.
        assert_about("TTL long", number(&mut client, "TTL long"), 7200);
        assert_eq!(client.say("GET short"), Value::Null);
        // The damage: what was given while the clock was wrong is late by so much, as in Redis.
        assert_about("TTL wrong", number(&mut client, "TTL wrong"), HOUR + 1000);
        assert_eq!(scene.server.info("clock_turned_back"), "1");
        assert!((scene.server.info_number("clock_turned_back_ms") - HOUR * 1000).abs() < 60_000);
        let (_, output) = scene.server.terminate();
        assert_eq!(output.matches(LINE).count(), 1, "{output}");
        scene.server.launch();
        let mut client = scene.server.client();
        assert_time_goes_on(&mut client, "restarted");
        assert_eq!(client.say("GET short"), Value::Null);
        assert_about("TTL long", number(&mut client, "TTL long"), 7200);
    }
}

#[test]
fn a_log_and_snapshots_of_a_wrong_time_are_served_at_the_right_one() {
    for (shards, snapshot) in [("1", false), ("2", true)] {
        let mut scene = Scene::new(Wrong::Wall, &["--shards", shards, "--cores", "0"], HOUR);
        let mut client = scene.server.client();
        for n in 0..100 {
            assert_eq!(client.say(&format!("SET key:{n} v EX 5000")), Value::ok());
        }
        if snapshot {
            assert_eq!(client.say("SAVE"), Value::ok());
        }
        scene.server.kill();
        scene.set_clock(0);
        scene.server.launch();
        let mut client = scene.server.client();
        assert_time_goes_on(&mut client, "first");
        assert_about("TTL key:7", number(&mut client, "TTL key:7"), HOUR + 5000);
        assert_eq!(scene.server.info("clock_turned_back"), "1");
        // It has healed: the next start finds nothing amiss.
        scene.server.restart();
        assert_time_goes_on(&mut scene.server.client(), "second");
        assert_eq!(scene.server.info("clock_turned_back"), "0");
    }
}

/// Nobody writes: reads see the right time all the same.
#[test]
fn a_server_that_only_reads_heals_too() {
    let mut scene = Scene::new(Wrong::Wall, &["--shards", "1"], 0);
    let mut client = scene.server.client();
    assert_eq!(client.say("SET long v EX 7200"), Value::ok());
    for round in 1..=3 {
        scene.set_clock(HOUR);
        eventually("ahead", || (number(&mut client, "TTL long") <= 3600).then_some(()));
        scene.set_clock(0);
        eventually("right again", || (number(&mut client, "TTL long") > 7000).then_some(()));
        assert_eq!(number(&mut client, "EXISTS long"), 1, "round {round}");
    }
}

/// What measures a span does not ask the time of day.
#[test]
fn spans_are_spans_whatever_the_clock_shows() {
    let mut scene = Scene::new(
        Wrong::Wall,
        &["--shards", "1", "--timeout", "600", "--fsync", "everysec"],
        HOUR,
    );
    let (mut client, mut idle) = (scene.server.client(), scene.server.client());
    assert_eq!(idle.say("SET k v"), Value::ok());
    assert_eq!(client.say("CLIENT PAUSE 200 ALL"), Value::ok());
    scene.set_clock(0);
    // Behind the pause, which is not an hour longer now.
    assert_eq!(client.say("GET k"), Value::bulk("v"));
    scene.set_clock(2 * HOUR);
    eventually("the clock is ahead", || {
        let Value::Array(time) = client.say("TIME") else { panic!("no time") };
        let Value::Bulk(seconds) = &time[0] else { panic!("no seconds") };
        let seconds: i64 = String::from_utf8_lossy(seconds).parse().expect("a number");
        (seconds > now() + HOUR).then_some(())
    });
    // An idle client is not two hours idle, hence not closed.
    assert_eq!(idle.say("GET k"), Value::bulk("v"));
    let Value::Bulk(info) = client.say("CLIENT INFO") else { panic!("no line") };
    let info = String::from_utf8_lossy(&info).into_owned();
    let age = info.split(' ').find_map(|field| field.strip_prefix("age=")).expect("an age");
    assert!(age.parse::<i64>().expect("a number") < HOUR, "{info}");
    assert!(scene.server.info_number("uptime_in_seconds") < HOUR);
}
