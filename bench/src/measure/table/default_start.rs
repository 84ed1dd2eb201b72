//! Section `default`: servers as somebody meets them who starts them with no more than a mode,
//! beside a client that uses the same cpus. Ours against all peers, and against itself held to one
//! core.

use super::{Findings, Goal, Limit, rate_goal};
use crate::arm::ServerCommand;
use crate::client::plan::Length;
use crate::report::compared::{Best, Compared};
use crate::scenario::{self, Overrides};

use Limit::{AtLeast, AtMost};

/// The arms, in this order.
const OURS: usize = 0;
const ONE_CORE: usize = 1;
const REDIS: usize = 2;
const PEERS: [usize; 3] = [2, 3, 4];

impl Findings<'_> {
    /// The whole section.
    pub(super) fn default_start(&mut self) -> Result<(), String> {
        self.on_shared_cpus(|findings| {
            findings.cache_mode()?;
            findings.single_client()?;
            findings.store_mode("always", [1.15, 3.5])?;
            findings.store_mode("everysec", [1.0, 3.5])
        })
    }

    fn cache_mode(&mut self) -> Result<(), String> {
        let mut servers = vec![
            self.ringraft("ringraft", "--mode cache")?,
            self.ringraft("ringraft, one core", "--mode cache --cores 0")?,
        ];
        servers.extend(self.options.peers.all("--save '' --appendonly no")?);
        for name in ["get", "set"].into_iter().filter(|name| self.options.wants(name)) {
            let family = scenario::load(name, &self.options.overrides)?;
            self.compare_all(&family, &servers, REDIS, &judge_cache)?;
        }
        Ok(())
    }

    /// One client that waits for each reply.
    fn single_client(&mut self) -> Result<(), String> {
        let servers = [
            self.ringraft("ringraft", "--mode cache")?,
            self.ringraft("ringraft, one core", "--mode cache --cores 0")?,
            self.options.peers.redis("--save '' --appendonly no")?,
        ];
        let one = Overrides { connections: vec![1], ..self.options.overrides.clone() };
        for name in ["get-few", "set-few"].into_iter().filter(|name| self.options.wants(name)) {
            let family = scenario::load(name, &one)?;
            self.compare_all(&family, &servers, REDIS, &|compared| {
                let latency = compared.ratio_to(OURS, ONE_CORE, |m| m.loads[0].p50_us);
                vec![Goal::new(against(compared, "p50 latency", ONE_CORE), latency, AtMost(1.0))]
            })?;
        }
        Ok(())
    }

    /// SET where every write is on disk, or is once a second.
    fn store_mode(&mut self, fsync: &str, limits: [f64; 2]) -> Result<(), String> {
        if !self.options.wants(&format!("store-set-{fsync}")) {
            return Ok(());
        }
        let servers: [ServerCommand; 2] = [
            self.ringraft(&format!("ringraft {fsync}"), &format!("--fsync {fsync}"))?,
            self.options
                .peers
                .redis(&format!("--save '' --appendonly yes --appendfsync {fsync}"))?,
        ];
        let fifty = Overrides { connections: vec![50], ..self.options.overrides.clone() };
        let mut family = scenario::load("store-set", &fifty)?;
        for scenario in &mut family {
            // The server begins on one core: how it gets to more is not what is measured here.
            if let Length::Seconds { warm_up, .. } = &mut scenario.plan.length {
                *warm_up = warm_up.max(1.0);
            }
        }
        self.compare_all(&family, &servers, 1, &|compared| {
            let limit = if compared.scenario.pipeline == 1 { limits[0] } else { limits[1] };
            vec![rate_goal(compared, limit)]
        })
    }
}

fn judge_cache(compared: &Compared) -> Vec<Goal> {
    let one_core = compared.ratio_to(OURS, ONE_CORE, |m| m.requests_per_second);
    let cpu = compared.ratio_to(OURS, REDIS, |m| m.server_cpu_us_per_request);
    let rate = compared.ratio_to(OURS, REDIS, |m| m.requests_per_second);
    if compared.scenario.pipeline == 1 {
        let (best, name) =
            compared.ratio_to_best(OURS, &PEERS, Best::Highest, |m| m.requests_per_second);
        let name = format!("ringraft / {name}");
        let what = format!("{}, default start: requests/s, {name}", compared.scenario.name);
        return vec![
            Goal::new(what, best, AtLeast(1.0)),
            Goal::new(against(compared, "cpu per op", REDIS), cpu, AtMost(0.85)),
        ];
    }
    vec![
        Goal::new(against(compared, "requests/s", REDIS), rate, AtLeast(3.0)),
        Goal::new(against(compared, "requests/s", ONE_CORE), one_core, AtLeast(0.98)),
    ]
}

fn against(compared: &Compared, what: &str, arm: usize) -> String {
    let names = format!("{} / {}", compared.arm_name(OURS), compared.arm_name(arm));
    format!("{}, default start: {what}, {names}", compared.scenario.name)
}
