//! Section `types`: cpu per command of lists, hashes, sets, sorted sets and streams, small and
//! large, against all peers.
//!
//! The limits are parts of Redis 7.0's cpu, one for each depth; beside them stand two for all:
//! cheaper than the cheapest peer by so much, and never slower than the fastest.

use super::{Findings, Goal, Limit};
use crate::report::compared::{Best, Compared};
use crate::scenario::{self, Scenario};

use Limit::{AtLeast, AtMost};

/// Requests sent together.
const DEPTHS: [usize; 2] = [1, 16];

/// Cpu of the cheapest peer, at these depths.
const OF_BEST: [f64; 2] = [1.0, 0.62];

/// How many numbers there are for members.
const MANY: u64 = 1_000_000;

/// Cases that work on the same values.
struct Group {
    /// Of the client.
    connections: u32,
    /// What is done before, and how often.
    prepare: &'static [(&'static str, u64)],
    cases: &'static [Case],
}

/// A command, or several in turn.
struct Case {
    name: &'static str,
    commands: &'static [&'static str],
    /// Parts of Redis 7.0's cpu, at each depth.
    limits: [f64; 2],
}

const fn case(name: &'static str, commands: &'static [&'static str], limits: [f64; 2]) -> Case {
    Case { name, commands, limits }
}

const X3: &str = "RPUSH l3 xxx xxx xxx xxx xxx xxx xxx xxx xxx xxx";
const HASH_OF_8: &str = "HSET h:{key} f0 12345678 f1 12345678 f2 12345678 f3 12345678 \
                         f4 12345678 f5 12345678 f6 12345678 f7 12345678";
const SET_OF_8: &str =
    "SADD s:{key} member00 member01 member02 member03 member04 member05 member06 member07";
const ZSET_OF_8: &str = "ZADD z:{key} 0 member00 1 member01 2 member02 3 member03 4 member04 \
                         5 member05 6 member06 7 member07";
const TEN_FIELDS: &str = "HMGET h f:{key} f:{key} f:{key} f:{key} f:{key} f:{key} f:{key} f:{key} \
                          f:{key} f:{key}";
const TEN_SCORES: &str = "ZADD z {key} m:{key} {key} m:{key} {key} m:{key} {key} m:{key} \
                          {key} m:{key} {key} m:{key} {key} m:{key} {key} m:{key} {key} m:{key} \
                          {key} m:{key}";
const X64: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

const GROUPS: &[Group] = &[
    Group {
        connections: 50,
        prepare: &[(X3, 60), ("RPUSH l m:{key}", MANY)],
        cases: &[
            case("rpush-lpop", &["RPUSH p X64", "LPOP p"], [0.90, 0.55]),
            case("lrange-100", &["LRANGE l3 0 99"], [0.75, 0.40]),
            case("lrange-300", &["LRANGE l3 0 299"], [0.55, 0.32]),
            case("lrange-600", &["LRANGE l3 0 599"], [0.50, 0.30]),
            case("lindex-1M", &["LINDEX l 500000"], [0.65, 0.18]),
            case("lset-1M", &["LSET l 500000 n:{key}"], [0.65, 0.18]),
        ],
    },
    Group {
        connections: 50,
        prepare: &[
            ("HSET h f:{key} 1234567890123456", MANY),
            ("HSET h1000 f:{key} 12345678", 1000),
            ("HSET h100 f:{key} 12345678", 100),
            (HASH_OF_8, 100_000),
        ],
        cases: &[
            case("hget-1M", &["HGET h f:{key}"], [0.85, 0.38]),
            case("hset-1M", &["HSET h f:{key} X64"], [0.90, 0.40]),
            case("hmget-ten-1M", &[TEN_FIELDS], [0.55, 0.32]),
            case("hget-8", &["HGET h:SMALL f5"], [0.87, 0.38]),
            case("hset-8", &["HSET h:SMALL f5 87654321"], [0.87, 0.38]),
            case("hincrby-8", &["HINCRBY h:SMALL f6 1"], [0.87, 0.38]),
            case("hgetall-8", &["HGETALL h:SMALL"], [0.82, 0.42]),
            case("hgetall-100", &["HGETALL h100"], [0.62, 0.38]),
            case("hgetall-1000", &["HGETALL h1000"], [0.38, 0.32]),
        ],
    },
    Group {
        connections: 50,
        prepare: &[("SADD s m:{key}", MANY), ("SADD s1000 m:{key}", 1000), (SET_OF_8, 100_000)],
        cases: &[
            case("sismember-1M", &["SISMEMBER s m:{key}"], [0.85, 0.38]),
            case("srandmember-1M", &["SRANDMEMBER s"], [0.85, 0.38]),
            case("sadd-1M", &["SADD t m:{key}"], [0.90, 0.45]),
            case("sadd-spop", &["SADD s m:{key}", "SPOP s"], [0.90, 0.45]),
            case("sismember-8", &["SISMEMBER s:SMALL member05"], [0.87, 0.38]),
            case("smembers-1000", &["SMEMBERS s1000"], [0.38, 0.32]),
        ],
    },
    Group {
        connections: 50,
        prepare: &[("ZADD z {key} m:{same}", MANY), (ZSET_OF_8, 100_000)],
        cases: &[
            case("zscore-1M", &["ZSCORE z m:{key}"], [0.85, 0.35]),
            case("zrank-1M", &["ZRANK z m:{key}"], [0.60, 0.35]),
            case("zadd-score-1M", &["ZADD z {key} m:{key}"], [0.42, 0.28]),
            case("zadd-ten-1M", &[TEN_SCORES], [0.28, 0.25]),
            case("zadd-same-score", &["ZADD y 0 m:{key}"], [0.80, 0.35]),
            case("zadd-zpopmin", &["ZADD z {key} m:{same}", "ZPOPMIN z"], [0.88, 0.38]),
            case("zrange-head-100", &["ZRANGE z 0 99"], [0.78, 0.40]),
            case("zrange-middle-100", &["ZRANGE z 400000 400099"], [0.88, 0.45]),
            case("zrangebyscore-10", &["ZRANGEBYSCORE z {key} +inf LIMIT 0 10"], [0.88, 0.45]),
            case("zscore-8", &["ZSCORE z:SMALL member05"], [0.87, 0.38]),
            case("zadd-8", &["ZADD z:SMALL {key} member05"], [0.87, 0.38]),
        ],
    },
    Group {
        connections: 50,
        prepare: &[("XADD st * field1 1234567890123456 field2 1234567890123456", 100_000)],
        cases: &[
            case("xrange-100", &["XRANGE st - + COUNT 100"], [0.45, 0.40]),
            case(
                "xadd",
                &["XADD st * field1 1234567890123456 field2 1234567890123456"],
                [0.90, 0.50],
            ),
        ],
    },
    Group {
        // Ten milliseconds each: more of them would wait for seconds.
        connections: 2,
        prepare: &[
            ("SADD a m:{key}", 100_000),
            ("SADD b m:{key}", 50_000),
            ("SADD b n:{key}", 50_000),
        ],
        cases: &[
            case("sinter-100k", &["SINTER a b"], [0.30, 0.30]),
            case("sintercard-100k", &["SINTERCARD 2 a b"], [0.20, 0.20]),
        ],
    },
];

impl Findings<'_> {
    /// The whole section.
    pub(super) fn types(&mut self) -> Result<(), String> {
        let mut servers = vec![self.one_shard()?];
        servers.extend(self.options.peers.all("--save '' --appendonly no")?);
        for group in GROUPS {
            let family = self.family_of(group)?;
            if !family.is_empty() {
                self.compare_all(&family, &servers, 1, &judge)?;
            }
        }
        Ok(())
    }

    /// The scenarios of a group that are wanted, at all depths.
    fn family_of(&self, group: &Group) -> Result<Vec<Scenario>, String> {
        let mut family = Vec::new();
        for case in group.cases.iter().filter(|case| self.options.wants(case.name)) {
            let keys = self.options.overrides.keys.unwrap_or(MANY);
            let overrides = scenario::Overrides { keys: None, ..self.options.overrides.clone() };
            family.extend(scenario::parse(case.name, &text_of(group, case, keys), &overrides)?);
        }
        Ok(family)
    }
}

/// A case as the text of a scenario, with so many members in place of a million.
fn text_of(group: &Group, case: &Case, members: u64) -> String {
    use std::fmt::Write;
    let scaled = |count: u64| if count < 10_000 { count } else { (count * members / MANY).max(1) };
    // Numbers are those of members, or of small keys.
    let is_small = case.commands.iter().any(|command| command.contains("SMALL"));
    let numbers = if is_small { scaled(100_000) } else { members };
    let mut text = format!(
        "about = '{}'\nkeys = {{ count = {numbers}, fill = false }}\nwarm_up = 0.5\nseconds = 2\n",
        case.name
    );
    for (command, count) in group.prepare {
        let count = scaled(*count);
        let _ = writeln!(text, "[[prepare]]\ncommand = '{command}'\ncount = {count}");
    }
    let connections = group.connections;
    let _ = writeln!(text, "[[load]]\npipeline = {DEPTHS:?}\nconnections = {connections}");
    let lines = case.commands.iter().map(|command| {
        let command = command.replace("SMALL", "{key}").replace("X64", X64);
        format!("'{command}' = 1")
    });
    let _ = writeln!(text, "mix = {{ {} }}", lines.collect::<Vec<String>>().join(", "));
    text
}

fn judge(compared: &Compared) -> Vec<Goal> {
    let cases = GROUPS.iter().flat_map(|group| group.cases);
    let case = cases.into_iter().find(|case| case.name == compared.scenario.family);
    let limits = case.expect("its name is that of a case").limits;
    let depth = usize::from(compared.scenario.pipeline > DEPTHS[0]);
    let peers: Vec<usize> = (1..compared.arm_count()).collect();
    let name = &compared.scenario.name;
    let cpu = |m: &crate::measure::measurement::Measurement| m.server_cpu_us_per_request;
    let (of_best, best) = compared.ratio_to_best(0, &peers, Best::Lowest, cpu);
    let (rate, fastest) =
        compared.ratio_to_best(0, &peers, Best::Highest, |m| m.requests_per_second);
    vec![
        Goal::new(format!("{name}: cpu / redis"), compared.ratio(0, cpu), AtMost(limits[depth])),
        Goal::new(format!("{name}: cpu / {best}"), of_best, AtMost(OF_BEST[depth])),
        Goal::new(format!("{name}: requests/s / {fastest}"), rate, AtLeast(1.0)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_a_scenario() {
        for group in GROUPS {
            for case in group.cases {
                let text = text_of(group, case, 10_000);
                let scenarios = scenario::parse(case.name, &text, &Default::default());
                let scenarios = scenarios.unwrap_or_else(|error| panic!("{error}\n{text}"));
                assert_eq!(scenarios.len(), DEPTHS.len());
                assert!(scenarios.iter().all(|one| one.prepare.len() == group.prepare.len()));
            }
        }
    }
}
