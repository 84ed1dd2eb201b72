//! Every kind of write through nodes that do not lead, while the leader is lost: no request fails,
//! each takes effect once, and each is answered with what it did.

use crate::cluster::Cluster;
use crate::load::{OnEnd, ports};
use crate::support::{Client, Value, client::encode, eventually, system};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Kills of leaders when `RINGRAFT_LEADER_KILLS` does not say.
const KILLS: usize = 20;
/// Rounds of each client before the leader is lost, and after.
const ROUNDS: usize = 30;

/// What a client does once in round `n`, from 1 on.
type Round = fn(&mut Client, key: &str, n: usize);

fn incr(client: &mut Client, key: &str, n: usize) {
    assert_eq!(client.call(&["INCR", key]), Value::Integer(n as i64));
}

fn append(client: &mut Client, key: &str, n: usize) {
    assert_eq!(client.call(&["APPEND", key, "x"]), Value::Integer(n as i64));
}

fn queue(client: &mut Client, key: &str, n: usize) {
    let number = n.to_string();
    assert_eq!(client.call(&["RPUSH", key, &number]), Value::Integer(1));
    assert_eq!(client.call(&["LPOP", key]), Value::bulk(&number));
}

fn random_member(client: &mut Client, key: &str, n: usize) {
    let (first, second) = (format!("{n}-a"), format!("{n}-b"));
    assert_eq!(client.call(&["SADD", key, &first, &second]), Value::Integer(2));
    let popped = client.call(&["SPOP", key]);
    let other = if popped == Value::bulk(&first) { &second } else { &first };
    assert_eq!(client.call(&["SREM", key, other]), Value::Integer(1), "{popped:?} was popped");
}

fn several_keys(client: &mut Client, key: &str, n: usize) {
    let (a, b, c) = (format!("{key}-a"), format!("{key}-b"), format!("{key}-c"));
    let number = n.to_string();
    assert_eq!(client.call(&["MSET", &a, &number, &b, &number]), Value::ok());
    let both = [Value::bulk(&number), Value::bulk(&number)];
    assert_eq!(client.call(&["MGET", &a, &b]).elements(), both);
    assert_eq!(client.call(&["RENAMENX", &a, &c]), Value::Integer(1));
    assert_eq!(client.call(&["DEL", &b, &c]), Value::Integer(2));
}

/// A transaction of `keys`, with a command of the session among the others.
fn transaction(client: &mut Client, keys: [&str; 2], n: usize) {
    let mut bytes = encode(&["MULTI"]);
    for words in [&["INCR", keys[0]][..], &["PING"], &["INCR", keys[1]], &["EXEC"]] {
        bytes.extend_from_slice(&encode(words));
    }
    let replies = client.pipeline(&bytes, 5);
    let n = Value::Integer(n as i64);
    let all = [n.clone(), Value::Simple("PONG".into()), n];
    assert_eq!(replies[4].elements(), all, "{replies:?}");
}

fn transaction_of_one_shard(client: &mut Client, key: &str, n: usize) {
    transaction(client, [&format!("{{{key}}}-a"), &format!("{{{key}}}-b")], n);
}

fn transaction_of_several(client: &mut Client, key: &str, n: usize) {
    transaction(client, [&format!("{key}-a"), &format!("{key}-b")], n);
}

fn script(client: &mut Client, key: &str, n: usize) {
    let text = "redis.call('RPUSH', KEYS[2], ARGV[1]) return redis.call('INCR', KEYS[1])";
    let (count, list) = (format!("{key}-n"), format!("{key}-l"));
    let reply = client.call(&["EVAL", text, "2", &count, &list, "x"]);
    assert_eq!(reply, Value::Integer(n as i64));
    assert_eq!(client.call(&["LLEN", &list]), Value::Integer(n as i64));
}

fn pipeline(client: &mut Client, key: &str, n: usize) {
    const DEPTH: usize = 16;
    let bytes = encode(&["INCR", key]).repeat(DEPTH);
    let replies = client.pipeline(&bytes, DEPTH);
    let wanted = (1..=DEPTH).map(|i| Value::Integer(((n - 1) * DEPTH + i) as i64));
    assert_eq!(replies, wanted.collect::<Vec<_>>());
}

const KINDS: &[(&str, Round)] = &[
    ("incr", incr),
    ("append", append),
    ("queue", queue),
    ("spop", random_member),
    ("keys", several_keys),
    ("exec1", transaction_of_one_shard),
    ("exec", transaction_of_several),
    ("script", script),
    ("pipeline", pipeline),
];

/// Has a client of every kind, and a pair that hands things over by BLPOP, at each of these ports
/// while `meanwhile` runs. Returns the longest time that a round took.
fn hammer(ports: &[u16], meanwhile: impl FnOnce()) -> Duration {
    let (is_over, begun) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let mut workers = Vec::new();
        for &port in ports {
            for &(name, round) in KINDS {
                let (is_over, begun) = (&is_over, &begun);
                workers.push(scope.spawn(move || {
                    let key = format!("{name}-{port}-{:?}", Instant::now());
                    let mut client = Client::connect(port);
                    rounds(is_over, begun, |n| round(&mut client, &key, n))
                }));
            }
            let (is_over, begun) = (&is_over, &begun);
            workers.push(scope.spawn(move || hand_over(port, is_over, begun)));
        }
        let over = OnEnd(|| is_over.store(true, Ordering::Release));
        eventually("every client has begun, or one has failed", || {
            let has_failed = workers.iter().any(|worker| worker.is_finished());
            (has_failed || begun.load(Ordering::Acquire) == workers.len()).then_some(())
        });
        meanwhile();
        drop(over);
        let longest = workers.into_iter().map(|worker| worker.join().expect("no request fails"));
        longest.max().unwrap_or_default()
    })
}

fn rounds(is_over: &AtomicBool, begun: &AtomicUsize, mut round: impl FnMut(usize)) -> Duration {
    let (mut n, mut left, mut longest) = (0, ROUNDS, Duration::ZERO);
    while left > 0 {
        n += 1;
        let asked = Instant::now();
        round(n);
        longest = longest.max(asked.elapsed());
        if n == ROUNDS {
            begun.fetch_add(1, Ordering::AcqRel);
        }
        if is_over.load(Ordering::Acquire) {
            left -= 1;
        }
    }
    longest
}

/// One client waits for what another one pushes: every element comes out once, in order.
fn hand_over(port: u16, is_over: &AtomicBool, begun: &AtomicUsize) -> Duration {
    let key = format!("handed-{port}-{:?}", Instant::now());
    let (mut taker, mut giver) = (Client::connect(port), Client::connect(port));
    let longest = rounds(is_over, begun, |n| {
        let number = n.to_string();
        taker.send(&encode(&["BLPOP", &key, "0"]));
        assert!(giver.call(&["RPUSH", &key, &number]).integer() > 0);
        assert_eq!(taker.read().elements(), [Value::bulk(&key), Value::bulk(&number)]);
    });
    assert_eq!(giver.call(&["LLEN", &key]), Value::Integer(0));
    longest
}

fn is_null(value: &Value) -> bool {
    matches!(value, Value::Null | Value::NullArray)
}

fn kills() -> usize {
    match std::env::var("RINGRAFT_LEADER_KILLS") {
        Ok(text) => text.parse().expect("RINGRAFT_LEADER_KILLS is a number"),
        Err(_) => KILLS,
    }
}

fn report(what: &str, mut longest: Vec<Duration>) {
    longest.sort_unstable();
    let at = |share: usize| longest[(longest.len() * share / 100).min(longest.len() - 1)];
    println!(
        "{what} {} times: longest request p50 {:?}, p99 {:?}, worst {:?}",
        longest.len(),
        at(50),
        at(99),
        longest[longest.len() - 1]
    );
}

#[test]
fn no_request_fails_when_leaders_are_killed_and_each_is_done_once() {
    let mut cluster = Cluster::form(3, &[]);
    let mut longest = Vec::new();
    for _ in 0..kills() {
        let leader = cluster.settle();
        let survivors = ports(&cluster, cluster.up().filter(|node| *node != leader));
        longest.push(hammer(&survivors, || cluster.kill(leader)));
        cluster.launch(leader);
    }
    cluster.settle();
    cluster.is_level();
    report("a leader was killed", longest);
}

#[test]
fn no_request_fails_when_leaders_are_stopped_and_each_is_done_once() {
    let mut cluster = Cluster::form(3, &[]);
    let mut longest = Vec::new();
    for _ in 0..kills().div_ceil(4) {
        let leader = cluster.settle();
        let others = ports(&cluster, cluster.up().filter(|node| *node != leader));
        let pid = cluster.servers[leader].pid();
        longest.push(hammer(&others, || {
            system::send_signal(pid, libc::SIGSTOP);
            cluster.is_asleep(leader, true);
            cluster.leader();
        }));
        system::send_signal(pid, libc::SIGCONT);
        cluster.is_asleep(leader, false);
    }
    cluster.settle();
    cluster.is_level();
    report("a leader was stopped", longest);
}

#[test]
fn no_request_fails_when_leaders_end_or_hand_over_and_each_is_done_once() {
    let mut cluster = Cluster::form(3, &[]);
    let mut longest = Vec::new();
    for n in 0..kills().div_ceil(4) {
        let leader = cluster.settle();
        let others = ports(&cluster, cluster.up().filter(|node| *node != leader));
        if n % 2 == 0 {
            longest.push(hammer(&others, || cluster.terminate(leader)));
            cluster.launch(leader);
            continue;
        }
        let heir = cluster.follower();
        // Those of the node that leads take part.
        let others = ports(&cluster, cluster.up());
        let address = format!("127.0.0.1:{}", cluster.servers[heir].port());
        longest.push(hammer(&others, || {
            eventually("it takes over", || {
                // Refused while its disk is slow.
                cluster.client(heir).say(&format!("RAFTTRANSFER {address}"));
                (cluster.leader() == heir).then_some(())
            });
        }));
    }
    cluster.settle();
    cluster.is_level();
    report("a leader has left", longest);
}

#[test]
fn who_waits_goes_on_waiting_at_the_next_leader_for_the_rest_of_its_time() {
    let mut cluster = Cluster::form(3, &[]);
    let leader = cluster.leader();
    let follower = cluster.follower();
    let mut waiting: Vec<(Client, &[&str])> = [
        &["BLPOP", "q1", "0"][..],
        &["BLMOVE", "q2", "q3", "LEFT", "LEFT", "0"],
        &["BLPOP", "q4", "q5", "0"],
        &["XREAD", "BLOCK", "0", "STREAMS", "s", "0"],
        &["BZMPOP", "0", "1", "z", "MIN"],
    ]
    .into_iter()
    .map(|words| (cluster.client(follower), words))
    .collect();
    let mut short = cluster.client(follower);
    let asked = Instant::now();
    for (client, words) in &mut waiting {
        client.send(&encode(words));
    }
    short.send(&encode(&["BLPOP", "never", "3"]));
    eventually("all wait", || {
        let info = cluster.client(leader).say("INFO clients").text();
        info.contains("blocked_clients:6").then_some(())
    });
    cluster.kill(leader);
    cluster.leader();
    let mut client = cluster.client(follower);
    for words in [
        &["RPUSH", "q1", "1"][..],
        &["RPUSH", "q2", "2"],
        &["RPUSH", "q5", "5"],
        &["XADD", "s", "1-1", "f", "v"],
        &["ZADD", "z", "1", "m"],
    ] {
        assert!(!client.call(words).is_error());
    }
    for (client, words) in &mut waiting {
        let reply = client.read();
        assert!(!reply.is_error() && !is_null(&reply), "{words:?}: {reply:?}");
    }
    assert!(is_null(&short.read()));
    let took = asked.elapsed();
    assert!(took >= Duration::from_secs(3), "{took:?}");
    assert_eq!(client.say("LRANGE q3 0 -1").elements(), [Value::bulk("2")]);
    let info = client.say("INFO cores").text();
    let count = info.lines().find_map(|line| line.strip_prefix("relayed_requests_sent_again:"));
    assert!(count.and_then(|count| count.parse().ok()).is_some_and(|count: u64| count >= 6));
}

#[test]
fn a_reply_that_is_too_long_to_be_kept_is_not_made_up() {
    let mut cluster = Cluster::form(3, &[]);
    let leader = cluster.leader();
    let follower = cluster.follower();
    let mut client = cluster.client(follower);
    let value = "x".repeat(100_000);
    assert_eq!(client.call(&["SET", "long", &value]), Value::ok());
    // The leader sleeps with the request in its socket, and nobody else has had it: it is sent
    // again.
    let pid = cluster.servers[leader].pid();
    system::send_signal(pid, libc::SIGSTOP);
    client.send(&encode(&["GETSET", "long", "short"]));
    cluster.is_asleep(leader, true);
    cluster.leader();
    assert_eq!(client.read(), Value::bulk(&value));
    assert_eq!(client.say("GET long"), Value::bulk("short"));
    system::send_signal(pid, libc::SIGCONT);
    cluster.is_asleep(leader, false);
    cluster.settle();
    assert_eq!(client.say("GET long"), Value::bulk("short"));
}

#[test]
fn keys_watched_at_a_leader_that_was_lost_may_have_changed() {
    let mut cluster = Cluster::form(3, &[]);
    for _ in 0..2 {
        let leader = cluster.settle();
        let mut all: Vec<Client> =
            cluster.up().filter(|n| *n != leader).map(|n| cluster.client(n)).collect();
        for (n, client) in all.iter_mut().enumerate() {
            assert_eq!(client.say(&format!("SET watched-{n} 1")), Value::ok());
            assert_eq!(client.say(&format!("WATCH watched-{n}")), Value::ok());
        }
        cluster.kill(leader);
        cluster.leader();
        for (n, client) in all.iter_mut().enumerate() {
            assert_eq!(client.say(&format!("GET watched-{n}")), Value::bulk("1"));
            assert_eq!(client.say("MULTI"), Value::ok());
            assert_eq!(client.say(&format!("SET watched-{n} 2")), Value::Simple("QUEUED".into()));
            assert!(is_null(&client.say("EXEC")));
            assert_eq!(client.say(&format!("GET watched-{n}")), Value::bulk("1"));
        }
        cluster.launch(leader);
    }
}
