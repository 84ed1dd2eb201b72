//! Decides how many cores a server uses and which shards live on which. Loads in, moves out: no clock, no system.
//!
//! One core does the work cheapest, because no request changes cores. So a server begins on one, its *home*, and
//!
//! - takes more when those in use are busy: as many as would bring them to [`BUSY_AIM`], at most one for each shard, and only
//!   those whose cpus other processes leave alone;
//! - looks after [`TRIAL_MS`] whether that brought anything: with no more commands than before it takes the step back, and does not try
//!   again for a while, twice as long each time, unless far more is asked for than then;
//! - leaves cores when fewer have had room to spare for [`SPARE_MS`], and those whose cpu others have come to keep busy.
//!
//! The bounds lie apart ([`BUSY_FROM`] of those in use, [`SPARE_BELOW`] of those that would be left), so that a step is never undone by
//! the load that caused it.

/// Share of their time that cores in use are busy on average, from which on more are taken.
pub const BUSY_FROM: f64 = 0.75;

/// How long they must have been.
pub const BUSY_MS: i64 = 150;

/// How busy they are to be then.
pub const BUSY_AIM: f64 = 0.6;

/// How busy fewer cores may become by leaving others.
pub const SPARE_BELOW: f64 = 0.5;

/// How long that must have been so.
pub const SPARE_MS: i64 = 3000;

/// Share of a cpu that others may use for it to be taken.
pub const FOREIGN_MAX: f64 = 0.5;

/// Share of a cpu that others use for it to be left, after [`FOREIGN_MS`].
pub const FOREIGN_LEAVE: f64 = 0.7;

/// See [`FOREIGN_LEAVE`].
pub const FOREIGN_MS: i64 = 500;

/// Time after which a step up is judged.
pub const TRIAL_MS: i64 = 800;

/// What it must have brought: so many times as many commands per second.
pub const GAIN_MIN: f64 = 1.05;

/// How long a step that brought nothing is not tried again: at first, and at most.
pub const REST_MS: i64 = 10_000;

/// See [`REST_MS`].
pub const REST_MS_MAX: i64 = 320_000;

/// So many times as many commands per second as then: it is tried again all the same.
pub const REST_ENDS_AT: f64 = 1.5;

/// A core as the policy sees it.
#[derive(Clone, Copy, Debug)]
pub struct CoreSight {
    /// Share of its time that it works, or would if it had its cpu.
    pub busy: f64,
    /// Share of its time that it works.
    pub ran: f64,
    /// Share of its cpu that others use; not always looked at.
    pub foreign: Option<f64>,
}

/// A shard as the policy sees it.
#[derive(Clone, Copy, Debug)]
pub struct ShardSight {
    /// Where it lives.
    pub core: u16,
    /// Requests per second.
    pub load: f64,
}

/// What the policy sees.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// A clock that never goes back.
    pub now_ms: i64,
    /// All cores.
    pub cores: &'a [CoreSight],
    /// All shards.
    pub shards: &'a [ShardSight],
    /// Commands per second, of all clients.
    pub commands: f64,
}

/// Why something changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Why {
    /// The cores in use are busy for this share of their time.
    Busy(f64),
    /// Fewer cores are enough.
    Spare,
    /// More cores have brought nothing.
    InVain,
    /// The cpu of this core is busy with something else.
    Foreign(u16),
    /// All cores are to be used.
    All,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Why::Busy(share) => write!(f, "busy for {:.0} % of the time", share * 100.0),
            Why::Spare => f.write_str("they are enough"),
            Why::InVain => f.write_str("more brought nothing"),
            Why::Foreign(core) => write!(f, "the cpu of core {core} is busy with other processes"),
            Why::All => f.write_str("all are to be used"),
        }
    }
}

/// A change.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Why.
    pub why: Why,
    /// The cores in use from now on.
    pub in_use: Vec<u16>,
    /// Shards and where they go.
    pub moves: Vec<(u16, u16)>,
}

/// A step up that is not judged yet.
#[derive(Clone, Debug)]
struct Trial {
    judged_ms: i64,
    in_use_before: Vec<u16>,
    commands_before: f64,
    busy_before: f64,
}

/// A step that brought nothing.
#[derive(Clone, Copy, Debug)]
struct Rest {
    until_ms: i64,
    length_ms: i64,
    commands: f64,
}

/// The policy and what it remembers.
#[derive(Clone, Debug)]
pub struct Policy {
    in_use: Vec<u16>,
    trial: Option<Trial>,
    rest: Option<Rest>,
    busy_since_ms: Option<i64>,
    spare_since_ms: Option<i64>,
    foreign_since_ms: Option<i64>,
}

impl Policy {
    /// These cores are in use, the first of them always.
    pub fn new(in_use: Vec<u16>) -> Policy {
        let (trial, rest) = (None, None);
        let (busy_since_ms, spare_since_ms, foreign_since_ms) = (None, None, None);
        Policy { in_use, trial, rest, busy_since_ms, spare_since_ms, foreign_since_ms }
    }

    /// The cores in use, the first of them always.
    pub fn in_use(&self) -> &[u16] {
        &self.in_use
    }

    /// Does it want to know what others do with the cpus?
    pub fn wants_foreign(&self, busy_of_first: f64) -> bool {
        self.in_use.len() > 1 || busy_of_first >= BUSY_FROM / 2.0
    }

    /// Looks at the loads. To be called some ten times a second, while no shard moves.
    pub fn decide(&mut self, sight: &Sight<'_>) -> Option<Step> {
        let of_cores = || self.in_use.iter().map(|core| &sight.cores[usize::from(*core)]);
        let busy: f64 = of_cores().map(|core| core.busy).sum();
        let average = busy / self.in_use.len() as f64;
        // The work itself, whatever keeps others' cpus busy: it must be done by those that are left.
        let ran: f64 = of_cores().map(|core| core.ran).sum();
        let fit = (ran / SPARE_BELOW).ceil().max(1.0) as usize;
        let now_ms = sight.now_ms;
        note(&mut self.busy_since_ms, average >= BUSY_FROM, now_ms);
        note(&mut self.spare_since_ms, fit < self.in_use.len(), now_ms);
        let taken = self.taken_by_others(sight);
        note(&mut self.foreign_since_ms, taken.is_some(), now_ms);
        if let Some(trial) = &self.trial {
            if now_ms < trial.judged_ms {
                return None;
            }
            let trial = self.trial.take().expect("just seen");
            let step = self.judge(trial, busy, sight);
            if step.is_some() {
                return step;
            }
        }
        if let Some(core) = taken
            && has_been(self.foreign_since_ms, FOREIGN_MS, now_ms)
        {
            let left = self.in_use.iter().copied().filter(|other| *other != core).collect();
            self.begin_rest(sight);
            return Some(self.step_to(left, Why::Foreign(core), sight));
        }
        if has_been(self.busy_since_ms, BUSY_MS, now_ms) {
            return self.spread(busy, sight);
        }
        if has_been(self.spare_since_ms, SPARE_MS, now_ms) {
            let left = self.in_use[..fit].to_vec();
            return Some(self.step_to(left, Why::Spare, sight));
        }
        None
    }

    /// The core in use, not the first, whose cpu others use most, if that is too much.
    fn taken_by_others(&self, sight: &Sight<'_>) -> Option<u16> {
        let foreign = |core: &u16| sight.cores[usize::from(*core)].foreign.unwrap_or(0.0);
        let worst = self.in_use[1..].iter().max_by(|a, b| foreign(a).total_cmp(&foreign(b)))?;
        (foreign(worst) > FOREIGN_LEAVE).then_some(*worst)
    }

    fn spread(&mut self, busy: f64, sight: &Sight<'_>) -> Option<Step> {
        if let Some(rest) = self.rest
            && sight.now_ms < rest.until_ms
            && sight.commands < rest.commands * REST_ENDS_AT
        {
            return None;
        }
        let most = sight.cores.len().min(sight.shards.len());
        let wanted = (busy / BUSY_AIM).ceil() as usize;
        let wanted = wanted.max(self.in_use.len() + 1).min(most);
        let mut free: Vec<(u64, u16)> = (0..sight.cores.len() as u16)
            .filter(|core| !self.in_use.contains(core))
            .filter_map(|core| {
                let foreign = sight.cores[usize::from(core)].foreign?;
                // In tenths: of cpus that are about as free the first is taken.
                (foreign <= FOREIGN_MAX).then_some(((foreign * 10.0) as u64, core))
            })
            .collect();
        free.sort_unstable();
        free.truncate(wanted.saturating_sub(self.in_use.len()));
        if free.is_empty() {
            return None;
        }
        self.trial = Some(Trial {
            judged_ms: sight.now_ms + TRIAL_MS,
            in_use_before: self.in_use.clone(),
            commands_before: sight.commands,
            busy_before: busy,
        });
        let mut in_use = self.in_use.clone();
        in_use.extend(free.iter().map(|(_, core)| core));
        let average = busy / self.in_use.len() as f64;
        Some(self.step_to(in_use, Why::Busy(average), sight))
    }

    /// Has a step up brought something? Takes it back if not.
    fn judge(&mut self, trial: Trial, busy: f64, sight: &Sight<'_>) -> Option<Step> {
        // What is asked for less than then says nothing about it.
        let is_comparable = busy >= trial.busy_before * SPARE_BELOW;
        if !is_comparable {
            return None;
        }
        if sight.commands >= trial.commands_before * GAIN_MIN {
            self.rest = None;
            return None;
        }
        self.begin_rest(&Sight { commands: trial.commands_before, ..*sight });
        Some(self.step_to(trial.in_use_before, Why::InVain, sight))
    }

    fn begin_rest(&mut self, sight: &Sight<'_>) {
        let length_ms = self.rest.map_or(REST_MS, |rest| (rest.length_ms * 2).min(REST_MS_MAX));
        let until_ms = sight.now_ms + length_ms;
        self.rest = Some(Rest { until_ms, length_ms, commands: sight.commands });
    }

    fn step_to(&mut self, in_use: Vec<u16>, why: Why, sight: &Sight<'_>) -> Step {
        self.in_use = in_use;
        self.busy_since_ms = None;
        self.spare_since_ms = None;
        self.foreign_since_ms = None;
        Step { why, in_use: self.in_use.clone(), moves: deal(sight.shards, &self.in_use) }
    }
}

/// Notes since when something has been so.
fn note(since_ms: &mut Option<i64>, is_so: bool, now_ms: i64) {
    match is_so {
        true => drop(since_ms.get_or_insert(now_ms)),
        false => *since_ms = None,
    }
}

fn has_been(since_ms: Option<i64>, ms: i64, now_ms: i64) -> bool {
    since_ms.is_some_and(|since| now_ms - since >= ms)
}

/// Which shards go where so that these cores have about the same load: hot shards apart, and as few moves as that takes.
/// Shards without load count a little, so that they are spread too.
pub fn deal(shards: &[ShardSight], cores: &[u16]) -> Vec<(u16, u16)> {
    let total: f64 = shards.iter().map(|shard| shard.load).sum();
    let little = (total * 0.1).max(1.0) / shards.len().max(1) as f64;
    let weight = |shard: usize| shards[shard].load + little;
    let share = (0..shards.len()).map(weight).sum::<f64>() / cores.len() as f64;
    let mut order: Vec<usize> = (0..shards.len()).collect();
    order.sort_by(|a, b| weight(*b).total_cmp(&weight(*a)).then(a.cmp(b)));
    let mut loads = vec![0.0f64; cores.len()];
    let mut moves = Vec::new();
    for shard in order {
        let least = (0..cores.len()).min_by(|a, b| loads[*a].total_cmp(&loads[*b]));
        let least = least.expect("some core is in use");
        let own = cores.iter().position(|core| *core == shards[shard].core);
        // It stays where its core has room for it, or has no more than the others.
        let stays = own.filter(|&own| {
            loads[own] <= loads[least] || loads[own] + weight(shard) <= share * 1.001
        });
        let place = stays.unwrap_or(least);
        loads[place] += weight(shard);
        if cores[place] != shards[shard].core {
            moves.push((shard as u16, cores[place]));
        }
    }
    moves
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
