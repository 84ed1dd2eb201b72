//! Section `script`: what Lua costs beside commands: one call, a hundred, and keys on two shards.

use super::{Findings, Goal, Limit};
use crate::measure::measurement::Measurement;
use crate::report::compared::{Best, Compared};
use crate::scenario::{self, Scenario};

use Limit::AtMost;

/// A script that is loaded before, and called by its digest.
struct Script {
    name: &'static str,
    text: &'static str,
    /// Of the text, SHA-1.
    digest: &'static str,
    /// What follows the digest.
    keys: &'static str,
}

const ONE_CALL: Script = Script {
    name: "script-incr",
    text: "return redis.call('incr', KEYS[1])",
    digest: "2bab3b661081db58bd2341920e0ba7cf5dc77b25",
    keys: "1 n:{key}",
};

const HUNDRED_CALLS: Script = Script {
    name: "script-100-calls",
    text: "for i = 1, 100 do redis.call('incr', KEYS[1]) end return 1",
    digest: "09df43bef70445d84f7f2e4f1e9149f20518f4d2",
    keys: "1 n:{key}",
};

const TWO_KEYS: Script = Script {
    name: "script-two-keys",
    text: "redis.call('incr', KEYS[1]) return redis.call('incr', KEYS[2])",
    digest: "566ffaef06f4c2dcc2e47553d7dc91fbb34ba3f1",
    keys: "2 n:{key} n:{key}",
};

/// Cpu, as a part of the cheapest peer's, at P=1 and deeper.
const INCR_LIMITS: [f64; 2] = [0.9, 0.6];
const CALLS_LIMITS: [f64; 2] = [0.6, 0.6];

/// Cpu of a script over two shards, in times of one on one shard.
const TWO_SHARDS_MAX: f64 = 3.0;

/// Counters.
const KEYS: u64 = 100_000;

impl Script {
    fn text(&self, keys: u64) -> String {
        let Script { name, text, digest, keys: words } = self;
        format!(
            "about = '{name}'\nkeys = {{ count = {keys}, fill = false }}\nwarm_up = 0.5\n\
             seconds = 2\n[[prepare]]\ncommand = '''SCRIPT LOAD \"{text}\"'''\ncount = 1\n\
             [[load]]\npipeline = [1, 16]\nconnections = 50\nmix = {{ 'EVALSHA {digest} {words}' = 1 }}\n"
        )
    }
}

impl Findings<'_> {
    /// The whole section.
    pub(super) fn script(&mut self) -> Result<(), String> {
        let mut servers = vec![self.one_shard()?];
        servers.extend(self.options.peers.all("--save '' --appendonly no")?);
        for (script, limits) in [(ONE_CALL, INCR_LIMITS), (HUNDRED_CALLS, CALLS_LIMITS)] {
            if self.options.wants(script.name) {
                let family = self.calls_of(&script)?;
                self.compare_all(&family, &servers, 1, &|compared| judge(compared, limits))?;
            }
        }
        if !self.options.wants(TWO_KEYS.name) {
            return Ok(());
        }
        let servers = [
            self.ringraft("2 shards", "--mode cache --shards 2 --cores 0")?,
            self.ringraft("1 shard", "--mode cache --shards 1 --cores 0")?,
        ];
        let family = self.calls_of(&TWO_KEYS)?;
        self.compare_all(&family, &servers, 1, &|compared| {
            let what = format!("{}: cpu, two shards / one", compared.scenario.name);
            vec![Goal::new(what, compared.ratio(0, cpu), AtMost(TWO_SHARDS_MAX))]
        })
    }

    fn calls_of(&self, script: &Script) -> Result<Vec<Scenario>, String> {
        let keys = self.options.overrides.keys.unwrap_or(KEYS).min(KEYS);
        let overrides = scenario::Overrides { keys: None, ..self.options.overrides.clone() };
        scenario::parse(script.name, &script.text(keys), &overrides)
    }
}

fn cpu(measurement: &Measurement) -> f64 {
    measurement.server_cpu_us_per_request
}

fn judge(compared: &Compared, limits: [f64; 2]) -> Vec<Goal> {
    let limit = limits[usize::from(compared.scenario.pipeline > 1)];
    let peers: Vec<usize> = (1..compared.arm_count()).collect();
    let (cpu, best) = compared.ratio_to_best(0, &peers, Best::Lowest, cpu);
    vec![Goal::new(format!("{}: cpu / {best}", compared.scenario.name), cpu, AtMost(limit))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_is_a_scenario() {
        for script in [ONE_CALL, HUNDRED_CALLS, TWO_KEYS] {
            let text = script.text(100);
            let parsed = scenario::parse(script.name, &text, &Default::default());
            let scenarios = parsed.unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!((scenarios.len(), scenarios[0].prepare.len()), (2, 1));
        }
    }
}
