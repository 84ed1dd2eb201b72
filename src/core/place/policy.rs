//! Decides how many cores a server uses and which shards live on which. Loads in, moves out: no
//! clock, no system.
//!
//! One core does the work cheapest, because no request changes cores. So a server begins on one,
//! its *home*, and
//!
//! - takes more when those in use are busy, or leave requests over from turn to turn: as many as
//!   would bring them to [`BUSY_AIM`], at most one for each shard, and only those whose cpus other
//!   processes leave alone;
//! - looks after [`TRIAL_MS`] whether that brought anything: with no more commands than before it
//!   takes the step back, and does not try again for a while, twice as long each time, unless far
//!   more is asked for than then;
//! - leaves cores when fewer have had room to spare for [`SPARE_MS`], and those whose cpu others
//!   have come to keep busy.
//!
//! The bounds lie apart ([`BUSY_FROM`] of those in use, [`SPARE_BELOW`] of those that would be
//! left), so that a step is never undone by the load that caused it.

/// Share of their time that cores in use are busy on average, from which on more are taken.
pub const BUSY_FROM: f64 = 0.75;

/// How long they must have been.
pub const BUSY_MS: i64 = 150;

/// Share of their time that cores in use leave requests over from one turn to the next, from which
/// on more are taken, however busy they are: what waits longer than a turn waits for the cpu.
pub const BEHIND_FROM: f64 = 0.3;

/// How much of that the cores that stay would have, together, for others to be left.
pub const BEHIND_BELOW: f64 = 0.15;

/// A step that was to shorten waiting must have left so much of it at most.
pub const BEHIND_LEFT: f64 = 0.7;

/// And so much of the commands per second at least.
pub const BEHIND_COMMANDS_MIN: f64 = 0.98;

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
    /// Share of its time in which requests that had come waited for another turn.
    pub behind: f64,
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

/// Two shards that commands use together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// The shards.
    pub shards: (u16, u16),
    /// Requests per second to either of them that came with one to the other.
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
    /// Which of them are used together.
    pub together: &'a [Pair],
    /// Commands per second, of all clients.
    pub commands: f64,
}

/// Why something changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Why {
    /// The cores in use are busy for this share of their time.
    Busy(f64),
    /// Requests wait longer than a turn for this share of the time.
    Behind(f64),
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
            Why::Behind(share) => {
                write!(f, "requests wait longer than a turn for {:.0} % of the time", share * 100.0)
            }
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
    /// If it was to shorten waiting: how much there was.
    behind_before: Option<f64>,
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
    pub fn wants_foreign(&self, first: &CoreSight) -> bool {
        self.in_use.len() > 1 || first.busy >= BUSY_FROM / 2.0 || first.behind >= BEHIND_FROM / 2.0
    }

    /// Looks at the loads. To be called some ten times a second, while no shard moves.
    pub fn decide(&mut self, sight: &Sight<'_>) -> Option<Step> {
        let of_cores = || self.in_use.iter().map(|core| &sight.cores[usize::from(*core)]);
        let busy: f64 = of_cores().map(|core| core.busy).sum();
        let behind = self.behind(sight);
        let average = |sum: f64| sum / self.in_use.len() as f64;
        let cause = match (average(busy), average(behind)) {
            (busy, _) if busy >= BUSY_FROM => Some(Why::Busy(busy)),
            (_, behind) if behind >= BEHIND_FROM => Some(Why::Behind(behind)),
            _ => None,
        };
        // The work itself, whatever keeps others' cpus busy: it must be done by those that are
        // left.
        let ran: f64 = of_cores().map(|core| core.ran).sum();
        let fit = (ran / SPARE_BELOW).ceil().max(1.0) as usize;
        let now_ms = sight.now_ms;
        note(&mut self.busy_since_ms, cause.is_some(), now_ms);
        let is_spare = fit < self.in_use.len() && behind < BEHIND_BELOW;
        note(&mut self.spare_since_ms, is_spare, now_ms);
        let taken = self.taken_by_others(sight);
        note(&mut self.foreign_since_ms, taken.is_some(), now_ms);
        if let Some(trial) = &self.trial {
            if now_ms < trial.judged_ms {
                return None;
            }
            let trial = self.trial.take().expect("just seen");
            let step = self.judge(trial, busy, behind, sight);
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
        if let Some(why) = cause.filter(|_| has_been(self.busy_since_ms, BUSY_MS, now_ms)) {
            return self.spread(busy, why, sight);
        }
        if has_been(self.spare_since_ms, SPARE_MS, now_ms) {
            let left = self.in_use[..fit].to_vec();
            return Some(self.step_to(left, Why::Spare, sight));
        }
        None
    }

    /// Share of their time that cores in use are behind, added up.
    fn behind(&self, sight: &Sight<'_>) -> f64 {
        self.in_use.iter().map(|core| sight.cores[usize::from(*core)].behind).sum()
    }

    /// The core in use, not the first, whose cpu others use most, if that is too much.
    fn taken_by_others(&self, sight: &Sight<'_>) -> Option<u16> {
        let foreign = |core: &u16| sight.cores[usize::from(*core)].foreign.unwrap_or(0.0);
        let worst = self.in_use[1..].iter().max_by(|a, b| foreign(a).total_cmp(&foreign(b)))?;
        (foreign(worst) > FOREIGN_LEAVE).then_some(*worst)
    }

    fn spread(&mut self, busy: f64, why: Why, sight: &Sight<'_>) -> Option<Step> {
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
            behind_before: match why {
                Why::Behind(_) => Some(self.behind(sight)),
                _ => None,
            },
        });
        let mut in_use = self.in_use.clone();
        in_use.extend(free.iter().map(|(_, core)| core));
        Some(self.step_to(in_use, why, sight))
    }

    /// Has a step up brought something? Takes it back if not.
    fn judge(&mut self, trial: Trial, busy: f64, behind: f64, sight: &Sight<'_>) -> Option<Step> {
        // What is asked for less than then says nothing about it.
        let is_comparable = busy >= trial.busy_before * SPARE_BELOW;
        if !is_comparable {
            return None;
        }
        let has_shortened = trial.behind_before.is_some_and(|before| {
            behind <= before * BEHIND_LEFT
                && sight.commands >= trial.commands_before * BEHIND_COMMANDS_MIN
        });
        if has_shortened || sight.commands >= trial.commands_before * GAIN_MIN {
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
        Step {
            why,
            in_use: self.in_use.clone(),
            moves: deal(sight.shards, sight.together, &self.in_use),
        }
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

/// How much of the load of one of two shards must come with requests to the other for them to be
/// kept in one place.
pub const TOGETHER_FROM: f64 = 0.5;

/// How much more than its share a core may get by that.
const TOGETHER_OVER: f64 = 1.1;

/// Which shards go where so that these cores have about the same load: hot shards apart, those that
/// are used together in one place as far as a core has room for them, and as few moves as that
/// takes. Shards without load count a little, so that they are spread too.
pub fn deal(shards: &[ShardSight], together: &[Pair], cores: &[u16]) -> Vec<(u16, u16)> {
    let total: f64 = shards.iter().map(|shard| shard.load).sum();
    let little = (total * 0.1).max(1.0) / shards.len().max(1) as f64;
    let weights: Vec<f64> = shards.iter().map(|shard| shard.load + little).collect();
    let share = weights.iter().sum::<f64>() / cores.len() as f64;
    let mut groups = grouped(shards, together, &weights, share * TOGETHER_OVER);
    groups.sort_by(|a, b| b.weight.total_cmp(&a.weight).then(a.members[0].cmp(&b.members[0])));
    let mut loads = vec![0.0f64; cores.len()];
    let mut moves = Vec::new();
    for group in groups {
        let least = (0..cores.len()).min_by(|a, b| loads[*a].total_cmp(&loads[*b]));
        let least = least.expect("some core is in use");
        let hottest = group.members.iter().max_by(|a, b| weights[**a].total_cmp(&weights[**b]));
        let home = shards[*hottest.expect("a group has members")].core;
        let own = cores.iter().position(|core| *core == home);
        // It stays where its core has room for it, or has no more than the others.
        let stays = own.filter(|&own| {
            loads[own] <= loads[least] || loads[own] + group.weight <= share * 1.001
        });
        let place = stays.unwrap_or(least);
        loads[place] += group.weight;
        let of_group =
            group.members.into_iter().filter(|shard| shards[*shard].core != cores[place]);
        moves.extend(of_group.map(|shard| (shard as u16, cores[place])));
    }
    moves
}

/// Shards that go to one place.
struct Group {
    /// In rising order.
    members: Vec<usize>,
    weight: f64,
}

/// Joins shards that are used together, those with the most in common first, while a group weighs
/// no more than a core can take.
fn grouped(
    shards: &[ShardSight],
    together: &[Pair],
    weights: &[f64],
    weight_max: f64,
) -> Vec<Group> {
    let single = |shard| Some(Group { members: vec![shard], weight: weights[shard] });
    let mut groups: Vec<Option<Group>> = (0..shards.len()).map(single).collect();
    let mut group_of: Vec<usize> = (0..shards.len()).collect();
    let of = |pair: &Pair| (usize::from(pair.shards.0), usize::from(pair.shards.1));
    let is_close = |pair: &&Pair| {
        let (a, b) = of(pair);
        let load = shards[a].load.min(shards[b].load);
        load > 0.0 && pair.load >= load * TOGETHER_FROM
    };
    let mut pairs: Vec<&Pair> = together.iter().filter(is_close).collect();
    pairs.sort_by(|a, b| b.load.total_cmp(&a.load).then(a.shards.cmp(&b.shards)));
    for pair in pairs {
        let (a, b) = of(pair);
        let (into, from) = (group_of[a].min(group_of[b]), group_of[a].max(group_of[b]));
        let weight = |group: usize| groups[group].as_ref().map_or(0.0, |group| group.weight);
        if into == from || weight(into) + weight(from) > weight_max {
            continue;
        }
        let joined = groups[from].take().expect("a shard's group is there");
        joined.members.iter().for_each(|shard| group_of[*shard] = into);
        let group = groups[into].as_mut().expect("a shard's group is there");
        group.members.extend(joined.members);
        group.members.sort_unstable();
        group.weight += joined.weight;
    }
    groups.into_iter().flatten().collect()
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
