//! kill -9 under load with `--fsync always`: nothing acknowledged is lost, nothing appears that was
//! not asked for, and an MSET of one shard is there whole or not at all.
//!
//! Every writer keeps a ledger of what it asked for and what was acknowledged. After each kill and
//! restart the server's answers must lie between the two.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::client::encode;
use crate::support::{Chance, Client, Server, Value, eventually, kill_cycles};

const WRITERS: usize = 4;

/// A kill comes after at most this many acknowledged batches.
const BATCHES_BEFORE_KILL: u64 = 400;

/// Requests sent together before their replies are read, at most.
const BATCH_MAX: u64 = 16;

/// Keys written by each MSET; one hash tag keeps them in one shard.
const GROUP_KEYS: usize = 4;

/// A counter of what was asked for and what was acknowledged; the truth lies between.
#[derive(Clone, Copy, Default, Debug)]
struct Range {
    acknowledged: u64,
    attempted: u64,
}

impl Range {
    fn settle(&mut self, found: u64, what: &str) {
        assert!(
            found >= self.acknowledged,
            "{what}: acknowledged {self:?}, found {found}: a lost write"
        );
        assert!(
            found <= self.attempted,
            "{what}: attempted {self:?}, found {found}: a write from nowhere"
        );
        *self = Range { acknowledged: found, attempted: found };
    }
}

/// What one writer has asked for and what was acknowledged.
struct Ledger {
    writer: usize,
    chance: Chance,
    /// The value of a key that is set again and again to the next number.
    register: Range,
    /// A counter that only this writer increments.
    counter: Range,
    /// Increments of the counter that all writers share.
    shared: Range,
    /// The number in every key of the MSET group.
    group: Range,
    /// Keys `unique:<writer>:<n>` were set for each n below.
    unique: Range,
    /// Those of them that were not acknowledged before a kill and are not there.
    never_set: BTreeSet<u64>,
    /// A key set when the number is odd and deleted when it is even.
    toggle: Range,
}

#[derive(Clone, Copy)]
enum Step {
    Register,
    Counter,
    Shared,
    Group,
    Unique,
    Toggle,
}

const STEPS: [Step; 6] =
    [Step::Register, Step::Counter, Step::Shared, Step::Group, Step::Unique, Step::Toggle];

impl Ledger {
    fn new(writer: usize, seed: u64) -> Ledger {
        let none = Range::default();
        Ledger {
            writer,
            chance: Chance::seeded(seed.wrapping_add(0x9e37_79b9 * (writer as u64 + 1))),
            register: none,
            counter: none,
            shared: none,
            group: none,
            unique: none,
            never_set: BTreeSet::new(),
            toggle: none,
        }
    }

    fn range(&mut self, step: Step) -> &mut Range {
        match step {
            Step::Register => &mut self.register,
            Step::Counter => &mut self.counter,
            Step::Shared => &mut self.shared,
            Step::Group => &mut self.group,
            Step::Unique => &mut self.unique,
            Step::Toggle => &mut self.toggle,
        }
    }

    /// The next request of this kind, counted as attempted.
    fn request(&mut self, step: Step) -> Vec<u8> {
        let writer = self.writer;
        let range = self.range(step);
        range.attempted += 1;
        let number = range.attempted;
        match step {
            Step::Register => {
                encode(&["SET".into(), format!("register:{writer}"), number.to_string()])
            }
            Step::Counter => encode(&["INCR".into(), format!("counter:{writer}")]),
            Step::Shared => encode(&["INCR", "shared"]),
            Step::Unique => encode(&[
                "SET".into(),
                format!("unique:{writer}:{}", number - 1),
                number.to_string(),
            ]),
            Step::Toggle if number % 2 == 1 => {
                encode(&["SET".into(), format!("toggle:{writer}"), "on".into()])
            }
            Step::Toggle => encode(&["DEL".into(), format!("toggle:{writer}")]),
            Step::Group => {
                let mut arguments = vec!["MSET".to_string()];
                for key in 0..GROUP_KEYS {
                    arguments.push(format!("{{group:{writer}}}:{key}"));
                    arguments.push(number.to_string());
                }
                encode(&arguments)
            }
        }
    }

    /// Writes until the connection breaks, counting finished batches.
    fn write(&mut self, client: &mut Client, batches: &AtomicU64) {
        loop {
            let steps: Vec<Step> = (0..=self.chance.below(BATCH_MAX))
                .map(|_| STEPS[self.chance.below(STEPS.len() as u64) as usize])
                .collect();
            let bytes: Vec<u8> = steps.iter().flat_map(|&step| self.request(step)).collect();
            if client.try_send(&bytes).is_err() {
                return;
            }
            for &step in &steps {
                match client.try_read() {
                    Ok(reply) => self.acknowledge(step, &reply),
                    Err(_) => return,
                }
            }
            batches.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn acknowledge(&mut self, step: Step, reply: &Value) {
        let range = self.range(step);
        range.acknowledged += 1;
        let number = range.acknowledged;
        match step {
            Step::Counter => assert_eq!(*reply, Value::Integer(number as i64)),
            Step::Toggle if number.is_multiple_of(2) => assert_eq!(*reply, Value::Integer(1)),
            Step::Shared => assert!(matches!(reply, Value::Integer(_)), "{reply:?}"),
            _ => assert_eq!(*reply, Value::ok()),
        }
    }

    /// Compares the ledger with what the server holds, and takes that for the new beginning.
    fn verify(&mut self, client: &mut Client) {
        let writer = self.writer;
        self.register.settle(number(client, &format!("register:{writer}")), "SET");
        self.counter.settle(number(client, &format!("counter:{writer}")), "INCR");

        let mut request = vec!["MGET".to_string()];
        request.extend((0..GROUP_KEYS).map(|key| format!("{{group:{writer}}}:{key}")));
        let reply = client.call(&request);
        let group: Vec<u64> = reply.elements().iter().map(as_number).collect();
        assert!(group.iter().all(|&value| value == group[0]), "a torn MSET: {group:?}");
        self.group.settle(group[0], "MSET");

        // Those of a batch go to different shards, so of the unacknowledged ones any may be there.
        let all = 0..self.unique.attempted;
        let requests: Vec<u8> = all
            .clone()
            .flat_map(|index| encode(&["GET", &format!("unique:{writer}:{index}")]))
            .collect();
        let values = client.pipeline(&requests, all.end as usize);
        for (index, value) in all.zip(&values) {
            let value = as_number(value);
            let known = index < self.unique.acknowledged && !self.never_set.contains(&index);
            if value == 0 && !known {
                self.never_set.insert(index);
            } else {
                assert_eq!(value, index + 1, "unique:{writer}:{index} is lost or wrong");
            }
        }
        self.unique.acknowledged = self.unique.attempted;

        // Even and odd must be told apart only as far as the acknowledged number fixes them.
        let on = client.say(&format!("EXISTS toggle:{writer}")) == Value::Integer(1);
        if self.toggle.acknowledged == self.toggle.attempted {
            assert_eq!(on, self.toggle.acknowledged % 2 == 1, "toggle: {:?}", self.toggle);
        }
        let number = self.toggle.attempted + u64::from(on != (self.toggle.attempted % 2 == 1));
        self.toggle = Range { acknowledged: number, attempted: number };
    }
}

fn number(client: &mut Client, key: &str) -> u64 {
    as_number(&client.call(&["GET", key]))
}

fn as_number(value: &Value) -> u64 {
    match value {
        Value::Null => 0,
        value => value.text().parse().expect("a number that we wrote"),
    }
}

fn kill_and_verify(name: &str, arguments: &[&str], cycles: usize) {
    let mut chance = Chance::new(name);
    let seed = chance.next();
    let mut server = Server::start(arguments);
    let mut ledgers: Vec<Ledger> = (0..WRITERS).map(|writer| Ledger::new(writer, seed)).collect();
    let mut shared = Range::default();
    for cycle in 0..cycles {
        let kill_after = 1 + chance.below(BATCHES_BEFORE_KILL);
        let snapshot = chance.below(4) == 0;
        let batches = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for ledger in &mut ledgers {
                let mut client = server.client();
                let batches = &batches;
                scope.spawn(move || ledger.write(&mut client, batches));
            }
            if snapshot {
                let _ = server.client().try_call(&["BGSAVE"]);
            }
            eventually("the writers are busy", || {
                (batches.load(Ordering::Relaxed) >= kill_after).then_some(())
            });
            server.kill();
        });
        if chance.below(5) == 0 {
            server.launch_and_kill();
        }
        server.launch();
        let mut client = server.client();
        for ledger in &mut ledgers {
            ledger.verify(&mut client);
        }
        let found = number(&mut client, "shared");
        for ledger in &mut ledgers {
            let range = std::mem::take(&mut ledger.shared);
            shared.acknowledged += range.acknowledged;
            shared.attempted += range.attempted;
        }
        shared.settle(found, "INCR by all");
        println!(
            "{name} cycle {cycle}: killed after {kill_after} batches, {found} shared increments"
        );
    }
}

#[test]
fn nothing_acknowledged_is_lost_on_one_shard() {
    kill_and_verify(
        "one shard",
        &["--shards", "1", "--fsync", "always"],
        kill_cycles().div_ceil(2),
    );
}

/// Small segments and frequent snapshots: kills hit the log's recycling and half-written snapshots
/// too.
#[test]
fn nothing_acknowledged_is_lost_on_two_shards() {
    let storage = ["--segment-size", "8mb", "--snapshot-log-bytes", "1mb"];
    let arguments = [&["--shards", "2", "--fsync", "always"], &storage[..]].concat();
    kill_and_verify("two shards", &arguments, kill_cycles() / 2);
}

/// Many shards on a core: their writes go through its journal, whose files fill and are emptied.
#[test]
fn nothing_acknowledged_is_lost_on_eight_shards_of_one_core() {
    let storage = ["--segment-size", "8mb", "--snapshot-log-bytes", "1mb"];
    let arguments =
        [&["--shards", "8", "--cores", "0", "--fsync", "always"], &storage[..]].concat();
    kill_and_verify("eight shards", &arguments, kill_cycles().div_ceil(4));
}
