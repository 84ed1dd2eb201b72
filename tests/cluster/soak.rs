//! All faults mixed, for as long as `RINGRAFT_SOAK_MINUTES` says, while clients write by every node
//! and their histories are checked.
//!
//! Not part of the usual run: `cargo test --release -p ringraft --test cluster soak -- --ignored
//! --nocapture`.

use crate::cluster::Cluster;
use crate::support::history::History;
use crate::support::{Chance, Client, Value, eventually, system};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// How long it lasts when nothing is said.
const MINUTES_DEFAULT: u64 = 30;
/// Nodes at the beginning; more may join, and leave again.
const NODES: usize = 3;
const NODES_MAX: usize = 5;
/// Clients of each kind.
const CLIENTS: usize = 3;
/// Accounts between which money goes, and what they hold together.
const ACCOUNTS: u64 = 10;
const MONEY: i64 = 1000;
/// The longest that a node is asleep.
const NAP_MAX: Duration = Duration::from_secs(3);
/// Requests that all clients together get done between two faults.
const BETWEEN_FAULTS: u64 = 300;
/// Steps after which a client goes to another node, on the average.
const ROAMS_EVERY: u64 = 100;

/// What everybody shares.
struct World {
    /// Where each node listens, while it is up and awake.
    ports: Mutex<BTreeMap<usize, u16>>,
    is_over: AtomicBool,
    done: AtomicU64,
    failed: AtomicU64,
    /// The longest time a request took at a node that stayed up, in microseconds.
    longest_us: AtomicU64,
    /// What was popped from the queue, and acknowledged.
    popped: Mutex<Vec<String>>,
    register: History,
}

/// A client that goes to another node when its own is gone.
struct Roamer<'a> {
    world: &'a World,
    chance: Chance,
    client: Option<Client>,
}

impl Roamer<'_> {
    /// Is there more to do? From time to time it is done at another node.
    fn goes_on(&mut self) -> bool {
        if self.chance.below(ROAMS_EVERY) == 0 {
            self.client = None;
        }
        !self.world.is_over.load(SeqCst)
    }

    /// The reply; None when nobody knows what became of the request.
    fn ask(&mut self, arguments: &[&str]) -> Option<Value> {
        let begin = Instant::now();
        let client = match &mut self.client {
            Some(client) => client,
            None => {
                let ports: Vec<u16> =
                    self.world.ports.lock().expect("no panic").values().copied().collect();
                let port = ports[self.chance.below(ports.len() as u64) as usize];
                self.client = Client::try_connect(port).ok();
                self.client.as_mut()?
            }
        };
        let Ok(reply) = client.try_call(arguments) else {
            self.client = None;
            return None;
        };
        if reply.is_error() {
            self.world.failed.fetch_add(1, SeqCst);
        } else {
            self.world.done.fetch_add(1, SeqCst);
            self.world.longest_us.fetch_max(begin.elapsed().as_micros() as u64, SeqCst);
        }
        Some(reply)
    }
}

/// A number once each; what was acknowledged is remembered, in order.
fn append(mut roamer: Roamer, key: &str) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        if !roamer.goes_on() {
            break;
        }
        let reply = roamer.ask(&["RPUSH", key, &number.to_string()]);
        if reply.is_some_and(|reply| !reply.is_error()) {
            acknowledged.push(number);
        }
    }
    acknowledged
}

/// Money goes from one account to another, and is counted in between.
fn pay(mut roamer: Roamer) {
    let all: Vec<String> = (0..ACCOUNTS).map(|n| format!("account:{n}")).collect();
    let mut count: Vec<&str> = vec!["MGET"];
    count.extend(all.iter().map(String::as_str));
    while roamer.goes_on() {
        let (from, to) = (roamer.chance.below(ACCOUNTS), roamer.chance.below(ACCOUNTS));
        let (from, to) = (format!("account:{from}"), format!("account:{to}"));
        let script = "redis.call('decrby', KEYS[1], 3) redis.call('incrby', KEYS[2], 3) return 1";
        if roamer.chance.below(2) == 0 {
            roamer.ask(&["EVAL", script, "2", &from, &to]);
        } else {
            let steps: [&[&str]; 4] =
                [&["MULTI"], &["DECRBY", &from, "5"], &["INCRBY", &to, "5"], &["EXEC"]];
            let is_whole =
                steps.iter().all(|step| roamer.ask(step).is_some_and(|reply| !reply.is_error()));
            if !is_whole {
                // Begun, perhaps: another connection knows of nothing.
                roamer.client = None;
            }
        }
        let Some(reply) = roamer.ask(&count) else { continue };
        if !reply.is_error() {
            let held = |value: &Value| value.text().parse::<i64>().expect("a number");
            let sum: i64 = reply.elements().iter().map(held).sum();
            assert_eq!(sum, MONEY, "money came or went: {reply:?}");
        }
    }
}

fn produce(mut roamer: Roamer, name: usize) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        if !roamer.goes_on() {
            break;
        }
        let item = format!("{name}-{number}");
        if roamer.ask(&["LPUSH", "queue", &item]).is_some_and(|reply| !reply.is_error()) {
            acknowledged.push(item);
        }
    }
    acknowledged
}

fn consume(mut roamer: Roamer) {
    while roamer.goes_on() {
        let Some(Value::Array(pair)) = roamer.ask(&["BRPOP", "queue", "0.5"]) else {
            continue;
        };
        let item = pair[1].text();
        roamer.world.popped.lock().expect("no panic").push(item);
    }
}

/// One register that many write and read.
fn register(mut roamer: Roamer) {
    let world = roamer.world;
    while roamer.goes_on() {
        if roamer.chance.below(3) == 0 {
            let pending = world.register.write();
            let value = pending.value.to_string();
            if roamer.ask(&["SET", "register", &value]).is_some_and(|reply| !reply.is_error()) {
                world.register.written(pending);
            }
        } else {
            let from = world.register.now();
            let Some(reply) = roamer.ask(&["GET", "register"]) else { continue };
            match reply {
                Value::Null => world.register.read(0, from),
                reply if reply.is_error() => {}
                reply => world.register.read(number(&reply), from),
            }
        }
    }
}

fn number(value: &Value) -> u64 {
    value.text().parse().expect("a number was written")
}

/// The faults, one after the other.
struct Fate<'a> {
    cluster: Cluster,
    world: &'a World,
    chance: Chance,
    counts: BTreeMap<&'static str, usize>,
    begin: Instant,
}

impl Fate<'_> {
    /// Until the clients have got more done.
    fn wait_for(&self, requests: u64) {
        let target = self.world.done.load(SeqCst) + requests;
        eventually("the clients go on", || (self.world.done.load(SeqCst) >= target).then_some(()));
    }

    fn hide(&self, node: usize) {
        self.world.ports.lock().expect("no panic").remove(&node);
    }

    fn show(&self, node: usize) {
        let port = self.cluster.servers[node].port();
        self.world.ports.lock().expect("no panic").insert(node, port);
    }

    fn any(&mut self) -> usize {
        let up: Vec<usize> = self.cluster.up().collect();
        up[self.chance.below(up.len() as u64) as usize]
    }

    fn strike(&mut self) {
        let name = match self.chance.below(9) {
            0 => self.kill_one(true),
            1 => self.kill_one(false),
            2 => self.kill_all(),
            3 => self.end_one(),
            4 | 5 => self.put_to_sleep(),
            6 => self.hand_over(),
            7 => self.save(),
            _ if self.cluster.up().count() < NODES_MAX => self.join(),
            _ => self.remove(),
        };
        println!("soak: {:.1} s: {name}", self.begin.elapsed().as_secs_f64());
        *self.counts.entry(name).or_default() += 1;
        self.cluster.settle();
        self.wait_for(BETWEEN_FAULTS);
    }

    fn kill_one(&mut self, leads: bool) -> &'static str {
        let leader = self.cluster.settle();
        let node = if leads { leader } else { self.cluster.follower() };
        self.hide(node);
        self.cluster.kill(node);
        self.cluster.leader();
        let requests = self.chance.below(BETWEEN_FAULTS);
        self.wait_for(requests);
        self.cluster.launch(node);
        self.show(node);
        if leads { "leaders killed" } else { "others killed" }
    }

    fn kill_all(&mut self) -> &'static str {
        let mut all: Vec<usize> = self.cluster.up().collect();
        for node in &all {
            self.cluster.kill(*node);
        }
        let first = self.chance.below(all.len() as u64) as usize;
        all.rotate_left(first);
        for node in all {
            self.cluster.launch(node);
        }
        "all killed"
    }

    fn end_one(&mut self) -> &'static str {
        let node = self.any();
        self.hide(node);
        self.cluster.terminate(node);
        self.cluster.leader();
        let requests = self.chance.below(BETWEEN_FAULTS);
        self.wait_for(requests);
        self.cluster.launch(node);
        self.show(node);
        "ended in order"
    }

    fn put_to_sleep(&mut self) -> &'static str {
        let node = self.any();
        self.hide(node);
        let pid = self.cluster.servers[node].pid();
        system::send_signal(pid, libc::SIGSTOP);
        self.cluster.is_asleep(node, true);
        self.cluster.leader();
        let target = self.world.done.load(SeqCst) + self.chance.below(BETWEEN_FAULTS);
        let since = Instant::now();
        eventually("it may wake", || {
            // After a start all clients may be at the node that came first, and wait for it.
            let all_wait = since.elapsed() >= NAP_MAX;
            (all_wait || self.world.done.load(SeqCst) >= target).then_some(())
        });
        system::send_signal(pid, libc::SIGCONT);
        self.cluster.is_asleep(node, false);
        self.show(node);
        "put to sleep"
    }

    fn hand_over(&mut self) -> &'static str {
        let heir = self.cluster.follower();
        let address = format!("127.0.0.1:{}", self.cluster.servers[heir].port());
        // One that is behind is refused, which is no harm.
        self.cluster.client(heir).say(&format!("RAFTTRANSFER {address}"));
        "handed over"
    }

    fn save(&mut self) -> &'static str {
        let node = self.any();
        self.cluster.client(node).say("BGSAVE");
        "snapshots"
    }

    fn join(&mut self) -> &'static str {
        let seed = self.cluster.servers[self.cluster.leader()].port().to_string();
        let node = self.cluster.add_by(&seed);
        self.show(node);
        "joined"
    }

    fn remove(&mut self) -> &'static str {
        self.cluster.settle();
        let node = self.any();
        let address = format!("127.0.0.1:{}", self.cluster.servers[node].port());
        self.hide(node);
        let asked = self.cluster.up().find(|other| *other != node).expect("several are up");
        let ask = || self.cluster.client(asked).say(&format!("RAFTREMOVEPEER {address}"));
        // Whose leader was lost may have been removed: asking again tells.
        let reply = eventually("it is known whether the node leaves", || {
            Some(format!("{:?}", ask())).filter(|reply| !reply.contains("not known"))
        });
        if reply == format!("{:?}", Value::ok()) || reply.contains("peer is unknown") {
            let (status, output) = self.cluster.ended(node);
            assert_eq!(status.code(), Some(1), "{output}");
        } else {
            println!("soak: {address} stays: {reply}");
            self.show(node);
        }
        "removed"
    }
}

#[test]
#[ignore = "lasts half an hour"]
fn soak() {
    let minutes = std::env::var("RINGRAFT_SOAK_MINUTES")
        .map_or(MINUTES_DEFAULT, |text| text.parse().expect("RINGRAFT_SOAK_MINUTES is a number"));
    let mut chance = Chance::new("soak");
    let cluster = Cluster::form(NODES, &[]);
    let world = World {
        ports: Mutex::default(),
        is_over: AtomicBool::new(false),
        done: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        longest_us: AtomicU64::new(0),
        popped: Mutex::default(),
        register: History::new(),
    };
    let mut first = cluster.client(0);
    for n in 0..ACCOUNTS {
        let money = (MONEY / ACCOUNTS as i64).to_string();
        assert_eq!(first.call(&["SET", &format!("account:{n}"), &money]), Value::ok());
    }
    let mut seeds = Chance::seeded(chance.next());
    let (counts, begin) = (BTreeMap::new(), Instant::now());
    let mut fate = Fate { cluster, world: &world, chance, counts, begin };
    (0..NODES).for_each(|node| fate.show(node));
    let world = &world;
    let mut roamer = || Roamer { world, chance: Chance::seeded(seeds.next()), client: None };
    let (lists, produced) = std::thread::scope(|scope| {
        let (mut lists, mut produced) = (Vec::new(), Vec::new());
        for n in 0..CLIENTS {
            let (one, two) = (roamer(), roamer());
            lists.push(scope.spawn(move || append(one, &format!("list:{n}"))));
            produced.push(scope.spawn(move || produce(two, n)));
            let (one, two, three) = (roamer(), roamer(), roamer());
            scope.spawn(move || pay(one));
            scope.spawn(move || consume(two));
            scope.spawn(move || register(three));
        }
        // Whatever fails, the clients end.
        let struck = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while begin.elapsed() < Duration::from_secs(60 * minutes) {
                fate.strike();
            }
        }));
        world.is_over.store(true, SeqCst);
        let lists: Vec<Vec<u64>> =
            lists.into_iter().map(|list| list.join().expect("no panic")).collect();
        let produced: Vec<Vec<String>> =
            produced.into_iter().map(|items| items.join().expect("no panic")).collect();
        if let Err(panic) = struck {
            std::panic::resume_unwind(panic);
        }
        (lists, produced)
    });
    println!(
        "{:?} of {:?}: {} requests answered, {} refused or in doubt, the longest {} ms, register {}",
        fate.counts,
        begin.elapsed(),
        world.done.load(SeqCst),
        world.failed.load(SeqCst),
        world.longest_us.load(SeqCst) / 1000,
        world.register.size(),
    );
    check(&fate.cluster, world, &lists, &produced);
}

/// Nothing that was acknowledged is missing or there twice, and all nodes have the same.
fn check(cluster: &Cluster, world: &World, lists: &[Vec<u64>], produced: &[Vec<String>]) {
    let leader = cluster.settle();
    let mut client = cluster.client(leader);
    for (n, acknowledged) in lists.iter().enumerate() {
        let list = client.call(&["LRANGE", &format!("list:{n}"), "0", "-1"]);
        let found: Vec<u64> = list.elements().iter().map(number).collect();
        let set: BTreeSet<u64> = found.iter().copied().collect();
        assert_eq!(set.len(), found.len(), "list {n}: something is there twice");
        assert!(found.is_sorted(), "list {n}: the order is another");
        let missing: Vec<_> = acknowledged.iter().filter(|n| !set.contains(n)).collect();
        assert!(missing.is_empty(), "list {n} lacks {missing:?}");
    }
    let popped = world.popped.lock().expect("no panic");
    let mut once: BTreeSet<&str> = BTreeSet::new();
    for item in popped.iter() {
        assert!(once.insert(item), "{item} was popped twice");
    }
    let rest = client.call(&["LRANGE", "queue", "0", "-1"]);
    for item in rest.elements() {
        let text = item.text();
        assert!(!once.contains(text.as_str()), "{text} was popped and is still there");
    }
    // What is neither here nor popped was popped for a client whose connection was cut: as many as
    // were in doubt, at most.
    let produced: usize = produced.iter().map(Vec::len).sum();
    println!(
        "{produced} items acknowledged, {} popped, {} left",
        once.len(),
        rest.elements().len()
    );
    world.register.check().expect("the register is linearizable");
    cluster.is_level();
}
