//! Cores follow the load: every core tells how busy it is, the home core decides (`policy.rs`) and
//! has shards and connections move; a core that has neither sleeps without a timer.

use super::board::CoreLoad;
use super::load::{CpuTimes, Meter};
use super::moving::Wish;
use super::policy::{CoreSight, Pair, Policy, ShardSight, Sight, Step, Why};
use crate::core::Core;
use crate::core::client::connection::Kind;
use crate::core::cluster::META;
use crate::core::mail::router::dealt_to;
use crate::core::shard::LocalShard;
use crate::limits::{LOAD_STALE_MS, QUIET_TICKS_BEFORE_REST};
use crate::settings::values::{CoresInUse, cpus_text};
use ringraft_shards::ids::ShardId;

/// How much a new reading counts against those before.
const NEWEST: f64 = 0.5;

/// A core's part in it.
pub struct Governor {
    pub(in crate::core) meter: Meter,
    /// Ticks since there was anything to do here.
    quiet_ticks: u32,
    /// Does the core sleep without a timer?
    pub(in crate::core) is_resting: bool,
    /// Of the home core: what it knows of all.
    overview: Option<Box<Overview>>,
    /// Counts new connections.
    dealt: usize,
    /// Is it bringing all shards to itself, before the first client?
    is_gathering: bool,
}

/// What the home core knows.
struct Overview {
    policy: Policy,
    mode: CoresInUse,
    looked_ms: i64,
    cpus: Option<CpuTimes>,
    cores: Vec<CoreSight>,
    commands: u64,
    commands_rate: f64,
    shards: Vec<(u64, f64)>,
    /// As on the board; empty until shards are used together.
    pairs: Vec<(u64, f64)>,
}

impl Governor {
    /// For the core whose thread calls.
    pub fn of_this_thread() -> Governor {
        Governor {
            meter: Meter::of_this_thread(),
            quiet_ticks: 0,
            is_resting: false,
            overview: None,
            dealt: 0,
            is_gathering: false,
        }
    }
}

fn smooth(value: &mut f64, reading: f64) {
    *value += (reading - *value) * NEWEST;
}

impl Overview {
    fn new(core: &Core) -> Overview {
        let in_use: Vec<u16> = core.shared.board.in_use().collect();
        let home = core.shared.board.home();
        let others = in_use.iter().copied().filter(|other| *other != home);
        // What was begun with; the setting may have changed since.
        let mode = match in_use.len() == core.core_count() {
            true => CoresInUse::All,
            false => CoresInUse::Auto,
        };
        let idle = CoreSight { busy: 0.0, ran: 0.0, behind: 0.0, foreign: None };
        Overview {
            policy: Policy::new(std::iter::once(home).chain(others).collect()),
            mode,
            looked_ms: core.steady_ms(),
            cpus: None,
            cores: vec![idle; core.core_count()],
            commands: 0,
            commands_rate: 0.0,
            shards: core.shared.board.shards().map(|requests| (requests, 0.0)).collect(),
            pairs: Vec::new(),
        }
    }

    /// Reads the board and, if the policy wants it, the cpus.
    fn look(&mut self, core: &Core) {
        let board = &core.shared.board;
        let now_ms = core.steady_ms();
        let seconds = (now_ms - self.looked_ms).max(1) as f64 / 1000.0;
        self.looked_ms = now_ms;
        let mut commands = 0;
        let cpus =
            self.policy.wants_foreign(&self.cores[usize::from(core.id)]).then(CpuTimes::read);
        for (id, seen) in self.cores.iter_mut().enumerate() {
            let load = current(board.read(id as u16), core.rests(id as u16), now_ms);
            commands += load.commands;
            smooth(&mut seen.busy, load.busy);
            smooth(&mut seen.ran, load.ran - load.spun);
            smooth(&mut seen.behind, load.behind);
            let both = self.cpus.as_ref().zip(cpus.as_ref());
            let all = both.and_then(|(before, now)| now.busy_since(before, core.shared.cpus[id]));
            match all.map(|all| (all - load.ran).max(0.0)) {
                Some(foreign) => {
                    // At once upwards: a client that has just come shall not look like half of one.
                    let known = seen.foreign.get_or_insert(foreign);
                    smooth(known, foreign);
                    *known = known.max(foreign);
                }
                None if cpus.is_none() => seen.foreign = None,
                None => {}
            }
        }
        // Too short a time tells nothing about cpus: then the older reading is kept.
        let told = cpus.as_ref().zip(self.cpus.as_ref()).is_none_or(|(now, before)| {
            now.busy_since(before, core.shared.cpus[usize::from(core.id)]).is_some()
        });
        if told || cpus.is_none() {
            self.cpus = cpus;
        }
        let rate = commands.saturating_sub(self.commands) as f64 / seconds;
        smooth(&mut self.commands_rate, rate);
        self.commands = commands;
        for ((before, rate), requests) in self.shards.iter_mut().zip(board.shards()) {
            smooth(rate, requests.saturating_sub(*before) as f64 / seconds);
            *before = requests;
        }
        let Some(counts) = board.pairs() else { return };
        if self.pairs.is_empty() {
            self.pairs = board.pairs().into_iter().flatten().map(|count| (count, 0.0)).collect();
        }
        for ((before, rate), count) in self.pairs.iter_mut().zip(counts) {
            smooth(rate, count.saturating_sub(*before) as f64 / seconds);
            *before = count;
        }
    }

    /// Which shards are used together now.
    fn together(&self) -> Vec<Pair> {
        let count = self.shards.len();
        let pairs = self.pairs.iter().enumerate().filter(|(_, (_, load))| *load > 0.0);
        let pair = |(place, &(_, load)): (usize, &(u64, f64))| Pair {
            shards: ((place / count) as u16, (place % count) as u16),
            load,
        };
        pairs.map(pair).collect()
    }
}

/// A core that has said nothing for long is in the middle of something, unless it rests.
fn current(load: CoreLoad, rests: bool, now_ms: i64) -> CoreLoad {
    match now_ms - load.written_ms > LOAD_STALE_MS {
        true if rests => CoreLoad { busy: 0.0, ran: 0.0, spun: 0.0, behind: 0.0, ..load },
        true => CoreLoad { busy: 1.0, ran: 1.0, spun: 0.0, ..load },
        false => load,
    }
}

impl Core {
    /// Is this the core that is always in use?
    pub(in crate::core) fn is_home(&self) -> bool {
        self.shared.board.home() == self.id
    }

    /// May this core's listeners accept? By default only the home core's do, and hand connections
    /// out.
    pub(in crate::core) fn accepts(&self, kind: Kind) -> bool {
        kind == Kind::Metrics || self.is_home() || self.settings.cores_in_use == CoresInUse::All
    }

    /// The core where a new connection shall live: where the work is.
    pub(in crate::core) fn seat_for(&mut self, kind: Kind) -> u16 {
        if !kind.is_client() || self.settings.cores_in_use == CoresInUse::All {
            return self.id;
        }
        let board = &self.shared.board;
        let count = board.in_use().count().max(1);
        self.governor.dealt = (self.governor.dealt + 1) % count;
        board.in_use().nth(self.governor.dealt).unwrap_or(self.id)
    }

    /// A core without a timer writes nothing on the board.
    fn rests(&self, core: u16) -> bool {
        core != self.id && !self.shared.board.is_in_use(core)
    }

    /// Tells how busy this core and its shards are, and looks whether something is to change. To be
    /// called each tick.
    pub(in crate::core) fn govern(&mut self) {
        let share = self.governor.meter.look();
        self.spinner.look(share.is_pressed);
        let load = CoreLoad {
            busy: share.busy,
            ran: share.ran,
            spun: share.spun,
            behind: share.behind,
            commands: self.stats.total_commands,
            written_ms: self.steady_ms(),
        };
        self.shared.board.write(self.id, load);
        for shard in self.shards.iter().filter(|shard| shard.id != META) {
            self.shared.board.write_shard(shard.id, shard.request_count());
        }
        let board = &self.shared.board;
        self.coalesced.companions.drain(|place, count| board.add_pair(place, count));
        if self.stop_sent || self.report.is_some() || self.core_count() == 1 {
            return;
        }
        if self.is_home() {
            self.decide();
        } else {
            self.vacate();
        }
    }

    fn decide(&mut self) {
        let mut overview = match self.governor.overview.take() {
            Some(overview) => overview,
            None => Box::new(Overview::new(self)),
        };
        overview.look(self);
        let is_asked = overview.mode != self.settings.cores_in_use;
        if !self.shared.moves.is_any() {
            if is_asked {
                overview.mode = self.settings.cores_in_use;
                // With `auto` it goes on with all of them, until fewer prove enough.
                let home = self.id;
                let others = (0..self.core_count() as u16).filter(|core| *core != home);
                let in_use: Vec<u16> = std::iter::once(home).chain(others).collect();
                if overview.mode == CoresInUse::All {
                    let places = self.router.cores().enumerate();
                    let dealt = places.map(|(shard, core)| {
                        (core, shard as u16, dealt_to(ShardId(shard as u16), self.core_count()))
                    });
                    let moves = dealt.filter(|(core, _, to)| core != to);
                    let moves = moves.map(|(_, shard, to)| (shard, to)).collect();
                    let step = Step { why: Why::All, in_use: in_use.clone(), moves };
                    self.take_step(&step);
                }
                overview.policy = Policy::new(in_use);
            } else if overview.mode == CoresInUse::Auto {
                let places = self.router.cores().zip(&overview.shards);
                let shards: Vec<ShardSight> =
                    places.map(|(core, &(_, load))| ShardSight { core, load }).collect();
                let together = overview.together();
                let sight = Sight {
                    now_ms: self.steady_ms(),
                    cores: &overview.cores,
                    shards: &shards,
                    together: &together,
                    commands: overview.commands_rate,
                };
                if let Some(step) = overview.policy.decide(&sight) {
                    self.take_step(&step);
                }
            }
        }
        self.governor.overview = Some(overview);
    }

    /// Has shards and connections move.
    fn take_step(&mut self, step: &Step) {
        let mut numbers: Vec<usize> = step.in_use.iter().map(|core| usize::from(*core)).collect();
        numbers.sort_unstable();
        let shards = step.moves.len();
        tracing::info!(
            "cores in use: {}: {}; shards that move: {shards}",
            cpus_text(&numbers),
            step.why
        );
        let before: Vec<u16> = self.shared.board.in_use().collect();
        self.shared.board.use_cores(&step.in_use, self.steady_ms());
        for &(shard, to) in &step.moves {
            self.move_shard(Wish { shard: ShardId(shard), to, waiter: None });
        }
        let is_new = |core: &&u16| !before.contains(core);
        let new: Vec<u16> = step.in_use.iter().filter(is_new).copied().collect();
        for core in before {
            let (share, to) = match step.in_use.contains(&core) {
                true => (new.len(), new.clone()),
                false => (step.in_use.len(), step.in_use.clone()),
            };
            let of = step.in_use.len();
            if share > 0 {
                self.tell_core(core, move |core| core.send_clients_away(share, of, &to));
            }
        }
    }

    /// Sends `share` of each `of` clients to other cores, in turn; each goes when it has no request
    /// under way.
    fn send_clients_away(&mut self, share: usize, of: usize, to: &[u16]) {
        let clients = self.answers.connections.iter();
        let clients = clients.filter(|(_, c)| c.kind.is_client() && !c.closed);
        let clients: Vec<u32> = clients.map(|(index, _)| index).collect();
        let (mut due, mut next) = (0, usize::from(self.id));
        for index in clients {
            due += share;
            if due >= of {
                due -= of;
                next += 1;
                let connection = self.answers.connections.at_mut(index);
                connection.send_to(to[next % to.len()]);
                self.consider_move(index);
            }
        }
    }

    /// A core that is not in use sends its clients away: those that could not go when it was left.
    fn vacate(&mut self) {
        if self.shared.board.is_in_use(self.id) || self.answers.connections.count() == 0 {
            return;
        }
        let in_use: Vec<u16> = self.shared.board.in_use().collect();
        self.send_clients_away(1, 1, &in_use);
    }

    /// Brings all shards to this core, before the first client comes.
    pub fn gather_shards(&mut self) {
        self.governor.is_gathering = true;
        self.shared.board.use_cores(&[self.id], 0);
        let shards = (0..self.router.shard_count() as u16).map(ShardId);
        let meta = self.router.knows(META).then_some(META);
        for shard in shards.chain(meta) {
            self.move_shard(Wish { shard, to: self.id, waiter: None });
        }
    }

    /// Have all of them come? True once.
    pub(in crate::core) fn has_gathered(&mut self) -> bool {
        let are_here = self.governor.is_gathering
            && !self.shared.moves.is_any()
            && self.router.cores().all(|core| core == self.id)
            && (!self.router.knows(META) || self.router.local(META).is_some());
        self.governor.is_gathering &= !are_here;
        are_here
    }

    /// At a tick: shall there be another? A core without anything to care for sleeps until somebody
    /// rings.
    pub(in crate::core) fn wants_tick(&mut self) -> bool {
        if self.has_nothing() {
            self.governor.quiet_ticks += 1;
        } else {
            self.governor.quiet_ticks = 0;
        }
        self.governor.is_resting = self.governor.quiet_ticks > QUIET_TICKS_BEFORE_REST;
        !self.governor.is_resting
    }

    /// Goes on ticking when something has come.
    #[cold]
    pub(in crate::core) fn end_rest(&mut self) {
        if !self.has_nothing() {
            self.governor.is_resting = false;
            self.governor.quiet_ticks = 0;
            self.tick_due = true;
        }
    }

    fn has_nothing(&self) -> bool {
        self.shards.is_empty()
            && self.answers.connections.count() == 0
            && self.answers.gathers.count() == 0
            && self.answers.blocks.count() == 0
            && self.transactions.coordinator.count() == 0
            && !self.migrations.has_any()
            && self.storage.is_idle()
            && self.doors.silent.is_empty()
            && !self.is_home()
            && !self.stop_sent
            && !self.moves.has_work()
            && self.report.is_none()
    }
}

impl LocalShard {
    /// Requests run, about.
    fn request_count(&self) -> u64 {
        let (hits, misses) = self.keyspace.lookups();
        hits + misses + self.applied_operations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_silent_is_busy_unless_he_rests() {
        let load =
            CoreLoad { busy: 0.3, ran: 0.2, commands: 7, written_ms: 1000, ..CoreLoad::default() };
        assert_eq!(current(load, false, 1000 + LOAD_STALE_MS), load);
        assert_eq!(current(load, false, 1001 + LOAD_STALE_MS).busy, 1.0);
        assert_eq!(current(load, true, 1001 + LOAD_STALE_MS).busy, 0.0);
        assert_eq!(current(load, true, 1001 + LOAD_STALE_MS).commands, 7);
    }
}
