//! Section `large`: values of ten million elements. What a single command takes of its core, and
//! what another client feels while such a value is made, cut, overwritten, deleted, copied and
//! saved.
//!
//! Cpu is that of all the server's threads from idle to idle, less what a PING takes so: stalls of
//! the machine are not in it, but the work that a command leaves for later is. What is felt is a
//! probe's p99.9 and longest wait, stalls of the machine included; the row `nothing` shows these
//! alone.

use std::time::Duration;

use serde::Serialize;

use super::elements::{Build, Builder, Word, grow, letters};
use super::probe::{self, Felt};
use super::{Findings, Goal, Limit};
use crate::arm::{Arm, ServerCommand};
use crate::client::call::Caller;
use crate::report::{Spread, Table};

use Limit::AtMost;

/// Elements of a value.
const ELEMENTS: u64 = 10_000_000;

/// Cpu of a command, in microseconds.
const COMMAND_US_MAX: f64 = 100.0;

/// p99.9 of another client, in microseconds.
const FELT_US_MAX: f64 = 1000.0;

/// How often each command is given.
const CALLS: u64 = 15;

/// How long a value may take to expire.
const EXPIRY_TIME_MAX: Duration = Duration::from_secs(60);

/// A type.
struct Kind {
    name: &'static str,
    build: Build,
    /// Commands that are not O(n) by contract. `{half}` is half of the count, `{half+9}` nine
    /// more, `{member}` one that is there, `{new}` one that is not.
    calls: &'static [&'static str],
    /// Elements of a value at the limit of its small form; none that an element more would not
    /// convert.
    small_max: Option<u64>,
    /// Answers with all of the key `tenth`.
    all: &'static str,
    /// Leaves half of the key `copy`.
    halve: Option<&'static str>,
}

const KINDS: &[Kind] = &[
    Kind {
        name: "list",
        build: Build {
            command: "RPUSH",
            behind_key: &[],
            element: &[Word::Letters(8)],
            at_once: 10,
            count: "LLEN",
        },
        calls: &[
            "LPUSH value x",
            "RPUSH value x",
            "LPOP value",
            "RPOP value",
            "LPOP value 10",
            "LINDEX value {half}",
            "LSET value {half} x",
            "LRANGE value {half} {half+9}",
            "LTRIM value 1 -2",
            "LMOVE value value LEFT RIGHT",
            "MEMORY USAGE value",
            "EXPIRE value 100000",
        ],
        small_max: None,
        all: "LRANGE tenth 0 -1",
        halve: Some("LTRIM copy {half} -1"),
    },
    Kind {
        name: "hash",
        build: Build {
            command: "HSET",
            behind_key: &[],
            element: &[Word::Letters(8), Word::Letters(16)],
            at_once: 10,
            count: "HLEN",
        },
        calls: &[
            "HGET value {member}",
            "HSET value {member} x",
            "HSET value {new} x",
            "HINCRBY value {new} 1",
            "HDEL value {member}",
            "HMGET value {member} {new}",
            "HRANDFIELD value 10",
            "HSCAN value 0",
            "MEMORY USAGE value",
            "EXPIRE value 100000",
        ],
        small_max: Some(512),
        all: "HGETALL tenth",
        halve: None,
    },
    Kind {
        name: "set",
        build: Build {
            command: "SADD",
            behind_key: &[],
            element: &[Word::Letters(8)],
            at_once: 10,
            count: "SCARD",
        },
        calls: &[
            "SISMEMBER value {member}",
            "SADD value {new}",
            "SREM value {member}",
            "SPOP value",
            "SPOP value 10",
            "SRANDMEMBER value 10",
            "SMOVE value other {member}",
            "SSCAN value 0",
            "MEMORY USAGE value",
            "EXPIRE value 100000",
        ],
        small_max: Some(128),
        all: "SMEMBERS tenth",
        halve: None,
    },
    Kind {
        name: "zset",
        build: Build {
            command: "ZADD",
            behind_key: &[],
            element: &[Word::Score, Word::Letters(8)],
            at_once: 10,
            count: "ZCARD",
        },
        calls: &[
            "ZSCORE value {member}",
            "ZRANK value {member}",
            "ZADD value {half} {member}",
            "ZADD value {half} {new}",
            "ZINCRBY value 1 {member}",
            "ZREM value {member}",
            "ZPOPMIN value",
            "ZPOPMAX value",
            "ZCOUNT value -inf {half}",
            "ZRANGE value {half} {half+9}",
            "ZRANGEBYSCORE value {half} +inf LIMIT 0 10",
            "ZRANGEBYSCORE value -inf +inf LIMIT {half} 10",
            "ZREMRANGEBYRANK value {half} {half+9}",
            "ZRANDMEMBER value 10",
            "ZSCAN value 0",
            "MEMORY USAGE value",
        ],
        small_max: Some(128),
        all: "ZRANGE tenth 0 -1",
        halve: Some("ZREMRANGEBYRANK copy 0 {half}"),
    },
    Kind {
        name: "stream",
        build: Build {
            command: "XADD",
            behind_key: &["*"],
            element: &[Word::Text("field"), Word::Letters(8)],
            at_once: 1,
            count: "XLEN",
        },
        calls: &[
            "XADD value * field x",
            "XRANGE value - + COUNT 10",
            "XREVRANGE value + - COUNT 10",
            "XREAD COUNT 10 STREAMS value 0",
            "XTRIM value MAXLEN {half+half-100}",
            "XINFO STREAM value",
            "MEMORY USAGE value",
        ],
        small_max: None,
        all: "XRANGE tenth - +",
        halve: Some("XTRIM copy MAXLEN {half}"),
    },
];

/// What ends the key `copy` at once, or leaves nothing of it.
const ENDS: [(&str, &str); 5] = [
    ("DEL", "DEL copy"),
    ("UNLINK", "UNLINK copy"),
    ("expiry", "PEXPIRE copy 1"),
    ("SET over it", "SET copy x"),
    ("RENAME over it", "RENAME small copy"),
];

/// What the history keeps.
#[derive(Serialize)]
struct Measurement<'a> {
    kind: &'static str,
    server: &'a str,
    value: &'static str,
    what: &'a str,
    elements: u64,
    /// Of another client.
    p999_us: Option<f64>,
    max_us: Option<f64>,
    seconds: Option<f64>,
    /// Of single commands.
    cpu_us: Option<f64>,
    cpu_us_highest: Option<f64>,
}

/// What was measured of one server, in the order of the rows.
#[derive(Default)]
struct Found {
    felt: Vec<(String, Felt)>,
    costs: Vec<(String, Spread)>,
}

/// A type's values on a running server.
struct Scene<'a> {
    arm: &'a Arm,
    kind: &'a Kind,
    elements: u64,
    caller: Caller,
    cpus: crate::cpus::Cpus,
    found: Found,
}

impl Findings<'_> {
    /// The whole section.
    pub(super) fn large(&mut self) -> Result<(), String> {
        let mut servers =
            vec![self.ringraft("ringraft", "--fsync everysec --shards 1 --cores 0 --spin-us 0")?];
        if !self.options.alone {
            servers.extend(self.options.peers.all("--save '' --appendonly no")?);
        }
        for kind in KINDS.iter().filter(|kind| self.options.wants(kind.name)) {
            let mut all = Vec::new();
            for server in &servers {
                all.push(self.scene(server, kind)?);
            }
            self.judge_large(kind, &servers, &all);
        }
        servers.into_iter().for_each(|server| self.mention(server));
        Ok(())
    }

    /// Everything about one type on one server.
    fn scene(&mut self, server: &ServerCommand, kind: &Kind) -> Result<Found, String> {
        let setup = self.bench.setup.clone();
        let arm = Arm::start(server, Some(&setup.server_cpu))?;
        let mut scene = Scene {
            arm: &arm,
            kind,
            elements: self.options.overrides.keys.unwrap_or(ELEMENTS).max(1000),
            caller: arm.connect()?,
            cpus: setup.client_cpu.clone(),
            found: Found::default(),
        };
        scene.play().map_err(|error| format!("{} on {}: {error}", kind.name, server.name))?;
        let Scene { found, elements, .. } = scene;
        let mut write = |what: &str, felt: Option<&Felt>, cost: Option<&Spread>| {
            self.bench.json.write(&Measurement {
                kind: "large",
                server: &server.name,
                value: kind.name,
                what,
                elements,
                p999_us: felt.map(|felt| felt.p999_us),
                max_us: felt.map(|felt| felt.max_us),
                seconds: felt.map(|felt| felt.seconds),
                cpu_us: cost.map(|cost| cost.median),
                cpu_us_highest: cost.map(|cost| cost.highest),
            })
        };
        for (what, felt) in &found.felt {
            write(what, Some(felt), None)?;
        }
        for (what, cost) in &found.costs {
            write(what, None, Some(cost))?;
        }
        Ok(found)
    }

    /// Goals of the first server, and a table with all.
    fn judge_large(&mut self, kind: &Kind, servers: &[ServerCommand], all: &[Found]) {
        let mut head = vec!["value of its type", ""];
        head.extend(servers.iter().map(|server| server.name.as_str()));
        let mut table = Table::new(&head);
        for (index, (what, felt)) in all[0].felt.iter().enumerate() {
            let cells = all.iter().map(|found| {
                let felt = &found.felt[index].1;
                format!("{:.2}, {:.2}", felt.p999_us / 1e3, felt.max_us / 1e3)
            });
            let name = format!("{}: {what}", kind.name);
            table.row([name, "felt p99.9, max, ms".into()].into_iter().chain(cells).collect());
            // Copying is O(n) by contract, and nothing is the machine's.
            if !matches!(what.as_str(), "nothing" | "COPY") {
                let title = format!("{}: {what}: p99.9 felt, us", kind.name);
                let felt = Spread { median: felt.p999_us, lowest: 0.0, highest: felt.max_us };
                self.goals.push(Goal::new(title, felt, AtMost(FELT_US_MAX)).digits(0));
            }
        }
        for (index, (what, cost)) in all[0].costs.iter().enumerate() {
            let cells = all.iter().map(|found| {
                let cost = &found.costs[index].1;
                format!("{:.0}, {:.0}", cost.median, cost.highest)
            });
            let name = format!("{}: {what}", kind.name);
            table.row([name, "cpu median, most, us".into()].into_iter().chain(cells).collect());
            let title = format!("{}: {what}: cpu, us", kind.name);
            self.goals.push(Goal::new(title, *cost, AtMost(COMMAND_US_MAX)).digits(0));
        }
        println!("{table}");
    }
}

impl Scene<'_> {
    fn play(&mut self) -> Result<(), String> {
        let (build, elements) = (self.kind.build, self.elements);
        self.felt("nothing", |_| Ok(()))?;
        self.felt("growth", |caller| grow(caller, &build, "value", elements))?;
        grow(&mut self.caller, &build, "tenth", elements / 10)?;
        self.commands()?;
        if let Some(count) = self.kind.small_max {
            self.conversion(count)?;
        }
        let all = self.words(self.kind.all, 0);
        self.felt("reply with a tenth of it", |caller| caller.take_long(&borrowed(&all)))?;
        self.felt("saving", save)?;
        self.felt("COPY", copy)?;
        if let Some(halve) = self.kind.halve {
            let words = self.words(halve, 0);
            self.felt("cutting off half", |caller| call(caller, &words))?;
        }
        for (what, command) in ENDS {
            copy(&mut self.caller)?;
            self.caller.call(&["SET", "small", "x"])?;
            let words = self.words(command, 0);
            self.felt(what, |caller| call(caller, &words).and_then(|()| expired(caller, &words)))?;
        }
        self.felt("FLUSHALL", |caller| caller.call(&["FLUSHALL"]).map(|_| ()))
    }

    /// Does something beside a probe.
    fn felt(
        &mut self,
        what: &str,
        act: impl FnOnce(&mut Caller) -> Result<(), String>,
    ) -> Result<(), String> {
        let caller = &mut self.caller;
        let felt = probe::beside(self.arm, &self.cpus, || act(caller));
        let felt = felt.map_err(|error| format!("{what}: {error}"))?;
        self.found.felt.push((what.into(), felt));
        Ok(())
    }

    /// Cpu of each command.
    fn commands(&mut self) -> Result<(), String> {
        let idle = Spread::of(self.costs(|_| vec!["PING".into()])?).median;
        for &command in self.kind.calls {
            let elements = self.elements;
            let costs = self.costs(|call| words_of(command, elements, call))?;
            let costs = costs.into_iter().map(|cost| (cost - idle).max(0.0));
            self.found.costs.push((command.into(), Spread::of(costs)));
        }
        Ok(())
    }

    /// Cpu of the element that is one too many for a small form.
    fn conversion(&mut self, count: u64) -> Result<(), String> {
        let build = self.kind.build;
        let mut builder = Builder::new(&mut self.caller);
        let (mut grown, mut plain) = (Vec::new(), Vec::new());
        for call in 0..CALLS {
            let key = format!("small:{call}");
            builder.add(&build, &key, 0, count)?;
            builder.send()?;
            plain.push(probe::cost_us(&mut builder, self.arm, &["PING".into()])?);
            let words = build.words(&key, count, count + 1);
            grown.push(probe::cost_us(&mut builder, self.arm, &words)?);
        }
        let idle = Spread::of(plain).median;
        let costs = grown.into_iter().map(|cost| (cost - idle).max(0.0));
        self.found.costs.push((format!("element {} of a small one", count + 1), Spread::of(costs)));
        Ok(())
    }

    fn costs(&mut self, words: impl Fn(u64) -> Vec<Vec<u8>>) -> Result<Vec<f64>, String> {
        let mut builder = Builder::new(&mut self.caller);
        (0..CALLS).map(|call| probe::cost_us(&mut builder, self.arm, &words(call))).collect()
    }

    fn words(&self, command: &str, call: u64) -> Vec<Vec<u8>> {
        words_of(command, self.elements, call)
    }
}

/// A command line with its places filled in, for the call of a number.
fn words_of(command: &str, elements: u64, call: u64) -> Vec<Vec<u8>> {
    let half = elements / 2;
    let word = |word: &str| match word {
        "{half}" => half.to_string().into(),
        "{half+9}" => (half + 9).to_string().into(),
        "{half+half-100}" => (2 * half).saturating_sub(100 * (call + 1)).to_string().into(),
        "{member}" => letters(call * (elements / CALLS), 8),
        "{new}" => letters(elements + (u64::from(sum_of(command)) << 20) + call, 8),
        plain => plain.into(),
    };
    command.split(' ').map(word).collect()
}

/// New members of one command are none of another's.
fn sum_of(command: &str) -> u16 {
    command.bytes().fold(1, |sum: u16, byte| sum.wrapping_mul(31).wrapping_add(byte.into()) | 1)
}

fn borrowed(words: &[Vec<u8>]) -> Vec<&str> {
    words.iter().map(|word| std::str::from_utf8(word).expect("letters")).collect()
}

fn call(caller: &mut Caller, words: &[Vec<u8>]) -> Result<(), String> {
    caller.call(&borrowed(words)).map(|_| ())
}

fn copy(caller: &mut Caller) -> Result<(), String> {
    match caller.number(&["COPY", "value", "copy", "REPLACE"])? {
        1 => Ok(()),
        other => Err(format!("COPY answered {other}")),
    }
}

/// A server that saves beside its work is asked to do that, and waited for.
fn save(caller: &mut Caller) -> Result<(), String> {
    caller.call(&["BGSAVE"])?;
    while caller.info("persistence", "rdb_bgsave_in_progress")?.as_deref() != Some("0") {
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Waits until what has a deadline is gone.
fn expired(caller: &mut Caller, words: &[Vec<u8>]) -> Result<(), String> {
    if words[0] != b"PEXPIRE" {
        return Ok(());
    }
    let begin = std::time::Instant::now();
    while begin.elapsed() < EXPIRY_TIME_MAX {
        if caller.number(&["EXISTS", "copy"])? == 0 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(format!("copy is there {EXPIRY_TIME_MAX:?} after its time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_in() {
        let words = words_of("ZADD value {half} {new}", 1000, 3);
        assert_eq!(words[..3], [b"ZADD".to_vec(), b"value".to_vec(), b"500".to_vec()]);
        assert!(words[3].len() == 8 && words[3] != words_of("ZADD value {half} {new}", 1000, 4)[3]);
        for kind in KINDS {
            let commands = kind.calls.iter().chain([&kind.all]).chain(kind.halve.as_ref());
            for command in commands {
                assert!(!words_of(command, 1000, 0).concat().contains(&b'{'), "{command}");
            }
        }
    }
}
