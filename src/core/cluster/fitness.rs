//! Who is fit to lead: nodes whose disks take what is written, whose clocks are right, and whom the
//! others reach.
//!
//! Each core notes how its disk does; the core with the links judges, tells the other nodes each
//! second and at every change, and hears the same from them. A node that is not fit leads nothing
//! while another one can: what it leads goes to the voter with the smallest number that is fit and
//! has nearly everything. Where that does not come off because its disk hangs, the node
//! falls silent, and the others elect. Nothing here is needed for safety.

use super::wire::NodeMessage;
use crate::core::shard::LocalShard;
use crate::core::{Core, wall_clock_ms};
use crate::limits::{
    CLOCK_NOTED_MS, CLOCK_UNFIT_MS, CONDITION_TICKS, DISK_HANGS_MS, DISK_HANGS_TOLD_MS,
    DISK_HUNG_LATELY_MS, DISK_SILENT_MS, DISK_SLOW_TIMES, DISK_SLOW_US, LEVEL_ENTRIES,
    OUTDONE_TICKS,
};
use ringraft_shards::ids::NodeId;
use ringraft_shards::raft::{Group, PeerProgress, Role};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};

/// Why a node should not lead: any of some reasons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unfit(u8);

impl Unfit {
    /// A write of a log has been under way for too long.
    pub const DISK_HANGS: Unfit = Unfit(1);
    /// There is no room for the log of a shard.
    pub const DISK_FULL: Unfit = Unfit(2);
    /// Its log writes take much longer than those of the others.
    pub const DISK_SLOW: Unfit = Unfit(4);
    /// Its wall clock differs from those of the others.
    pub const CLOCK_OFF: Unfit = Unfit(8);
    /// A replica of it was lost, and has no vote again yet: it cannot lead all shards.
    pub const LACKS_SHARD: Unfit = Unfit(16);

    /// It is cut off from a node that another one reaches: clients there would find no leader.
    pub const LACKS_LINK: Unfit = Unfit(32);

    /// It was told to stop.
    pub const STOPPING: Unfit = Unfit(64);

    const REASONS: [(Unfit, &'static str); 7] = [
        (Unfit::DISK_HANGS, "its disk hangs"),
        (Unfit::DISK_FULL, "its disk is full"),
        (Unfit::DISK_SLOW, "its disk is slow"),
        (Unfit::CLOCK_OFF, "its clock is off"),
        (Unfit::LACKS_SHARD, "it gets a shard anew"),
        (Unfit::LACKS_LINK, "another node reaches more of the others"),
        (Unfit::STOPPING, "it is stopping"),
    ];

    /// As another node has said it.
    pub fn of_bits(bits: u8) -> Unfit {
        Unfit(bits)
    }

    /// To be said to other nodes.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Is there a reason?
    pub fn is_any(self) -> bool {
        self.0 != 0
    }

    /// Is this among the reasons?
    pub fn has(self, reason: Unfit) -> bool {
        self.0 & reason.0 != 0
    }

    fn when(self, applies: bool) -> Unfit {
        if applies { self } else { Unfit(0) }
    }

    fn or(self, other: Unfit) -> Unfit {
        Unfit(self.0 | other.0)
    }
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let reasons = Unfit::REASONS.iter().filter(|(reason, _)| self.has(*reason));
        let words: Vec<&str> = reasons.map(|(_, words)| *words).collect();
        match words.as_slice() {
            [] if self.is_any() => f.write_str("it says so"),
            words => f.write_str(&words.join(", ")),
        }
    }
}

/// How a core does: its disk, and its shards.
#[derive(Clone, Copy, Debug, Default)]
struct CoreFacts {
    /// Since when its oldest log write is under way, milliseconds.
    oldest_ms: u64,
    p99_us: u64,
    /// Was a replica lost that has no vote again?
    lacks_shard: bool,
}

/// Readings of another node's clock that count.
const READINGS: usize = 5;

/// What another node has said.
#[derive(Clone, Debug)]
struct Heard {
    unfit: Unfit,
    p99_us: u64,
    /// Nodes that it is connected with.
    hears: Vec<NodeId>,
    /// Its wall clock less the time since this process started, for each of the last messages. A
    /// message that was on its way for long makes it smaller: the greatest is the best.
    clock_ms: [i64; READINGS],
    count: usize,
    /// When it has last said that its disk hangs or does no more, milliseconds since this process
    /// started.
    hung_ms: Option<i64>,
}

/// What a node says of itself.
struct Said {
    unfit: Unfit,
    p99_us: u64,
    /// As in [`Heard`], of this one message.
    clock_ms: i64,
    hears: Vec<NodeId>,
}

/// What is known of who is fit, for all cores of the process.
#[derive(Debug, Default)]
pub struct Fitness {
    own: AtomicU8,
    /// Since when this node's disk hangs, as far as it does, milliseconds since the process
    /// started.
    hangs_since_ms: AtomicI64,
    cores: Mutex<BTreeMap<u16, CoreFacts>>,
    others: Mutex<BTreeMap<NodeId, Heard>>,
}

impl Fitness {
    /// Why this node should not lead.
    pub fn own(&self) -> Unfit {
        Unfit(self.own.load(Ordering::Relaxed))
    }

    /// Why another one should not; nothing is known of one that is not connected.
    pub fn of(&self, node: NodeId) -> Option<Unfit> {
        self.others.lock().expect("nobody panics with it").get(&node).map(|heard| heard.unfit)
    }

    /// Does a node say that it is connected with another one? Nothing is known of what this one is
    /// not connected with.
    pub(super) fn hears(&self, node: NodeId, other: NodeId) -> Option<bool> {
        let others = self.others.lock().expect("nobody panics with it");
        others.get(&node).map(|heard| heard.hears.contains(&other))
    }

    /// May a node lead, as far as is known?
    pub(in crate::core) fn is_fit(&self, node: NodeId) -> bool {
        self.of(node).is_some_and(|unfit| !unfit.is_any())
    }

    /// Notes why this node should not lead from `now_ms` on. Returns why it should not have.
    fn note_own(&self, unfit: Unfit, now_ms: i64) -> Unfit {
        let before = Unfit(self.own.swap(unfit.0, Ordering::Relaxed));
        if !before.has(Unfit::DISK_HANGS) {
            self.hangs_since_ms.store(now_ms, Ordering::Relaxed);
        }
        before
    }

    /// May a node lead in this one's place? Where only the disk hangs, others must have had the
    /// time to say that theirs do as well: nodes that share a disk would hand each other what none
    /// of them can do.
    fn may_succeed(&self, node: NodeId, now_ms: i64) -> bool {
        if !self.is_fit(node) {
            return false;
        }
        if self.own() != Unfit::DISK_HANGS {
            return true;
        }
        let others = self.others.lock().expect("nobody panics with it");
        let hung_ms = others.get(&node).and_then(|heard| heard.hung_ms);
        now_ms - self.hangs_since_ms.load(Ordering::Relaxed) >= DISK_HANGS_TOLD_MS
            && hung_ms.is_none_or(|hung_ms| now_ms - hung_ms >= DISK_HUNG_LATELY_MS)
    }

    /// Is there a fit node that is connected with all that `own` is connected with, and with
    /// another one?
    fn is_outdone(&self, own: NodeId, reached: &[NodeId]) -> bool {
        let others = self.others.lock().expect("nobody panics with it");
        others.iter().any(|(node, heard)| {
            let reaches = |other: &NodeId| other == node || heard.hears.contains(other);
            let reaches_all = reaches(&own) && reached.iter().all(reaches);
            let mut more = heard.hears.iter().filter(|other| **other != own);
            !heard.unfit.is_any() && reaches_all && more.any(|other| !reached.contains(other))
        })
    }

    fn note_core(&self, core: u16, facts: CoreFacts) {
        self.cores.lock().expect("nobody panics with it").insert(core, facts);
    }

    /// Over all cores.
    fn all_cores(&self) -> CoreFacts {
        let cores = self.cores.lock().expect("nobody panics with it");
        cores.values().fold(CoreFacts::default(), |all, one| CoreFacts {
            oldest_ms: all.oldest_ms.max(one.oldest_ms),
            p99_us: all.p99_us.max(one.p99_us),
            lacks_shard: all.lacks_shard || one.lacks_shard,
        })
    }

    /// The p99 of log writes of this node, microseconds; 0 when there were too few.
    pub fn log_write_p99_us(&self) -> u64 {
        self.all_cores().p99_us
    }

    /// Another node has said how it is.
    fn heard(&self, node: NodeId, now_ms: i64, said: Said) {
        let Said { unfit, p99_us, clock_ms, hears } = said;
        let mut others = self.others.lock().expect("nobody panics with it");
        let heard = others.entry(node).or_insert(Heard {
            unfit,
            p99_us,
            hears: Vec::new(),
            clock_ms: [clock_ms; READINGS],
            count: 0,
            hung_ms: None,
        });
        if heard.unfit.has(Unfit::DISK_HANGS) || unfit.has(Unfit::DISK_HANGS) {
            heard.hung_ms = Some(now_ms);
        }
        (heard.unfit, heard.p99_us, heard.hears) = (unfit, p99_us, hears);
        heard.clock_ms[heard.count % READINGS] = clock_ms;
        heard.count += 1;
    }

    /// Another node is not connected any more.
    pub(super) fn forget(&self, node: NodeId) {
        self.others.lock().expect("nobody panics with it").remove(&node);
    }

    /// Of the other nodes: the p99 of their log writes, and how far ahead their clocks are when
    /// this one's shows `clock_ms` more than the time since the process started.
    fn others(&self, clock_ms: i64) -> (Vec<u64>, Vec<i64>) {
        let others = self.others.lock().expect("nobody panics with it");
        let ahead = |heard: &Heard| heard.clock_ms.iter().max().map_or(0, |most| most - clock_ms);
        others.values().map(|heard| (heard.p99_us, ahead(heard))).unzip()
    }
}

/// How far this clock is ahead of the median of all, itself among them. Of two in the middle the
/// nearer one counts: two nodes that differ cannot say which one is wrong.
fn clock_ahead_ms(others_ahead: &[i64]) -> i64 {
    let mut all: Vec<i64> = others_ahead.iter().copied().chain([0]).collect();
    all.sort_unstable();
    let (low, high) = (all[(all.len() - 1) / 2], all[all.len() / 2]);
    -(if low.abs() <= high.abs() { low } else { high })
}

/// Is a disk with this p99 slow, beside those of the others? Those that are not known are left out.
fn is_slow(p99_us: u64, others: &[u64]) -> bool {
    let mut others: Vec<u64> = others.iter().copied().filter(|p99_us| *p99_us > 0).collect();
    others.sort_unstable();
    let Some(median) = others.get(others.len() / 2) else { return false };
    p99_us >= DISK_SLOW_US && p99_us >= median * DISK_SLOW_TIMES
}

/// The voter that shall lead in this node's place: of those that are heard, may lead and have
/// nearly as much as any the one with the smallest number, in all groups the same.
pub(in crate::core) fn heir(
    peers: &[PeerProgress],
    own: NodeId,
    may_lead: impl Fn(NodeId) -> bool,
) -> Option<NodeId> {
    let is_heir = |peer: &&PeerProgress| {
        let node = peer.node.node();
        node != own && peer.voter && peer.active && !peer.in_snapshot && may_lead(node)
    };
    let heirs = || peers.iter().filter(is_heir);
    let most = heirs().map(|peer| peer.matched.0).max()?;
    let best = heirs()
        .max_by_key(|peer| (peer.matched.0 + LEVEL_ENTRIES >= most, Reverse(peer.node.node())));
    best.map(|peer| peer.node)
}

/// Can the others elect without this node?
fn can_elect(group: &Group, own: NodeId) -> bool {
    let members = group.membership();
    let peers = group.peers();
    let others = peers.iter().filter(|p| p.voter && p.active && p.node.node() != own).count();
    !members.is_joint() && others > members.voters.len() / 2
}

impl Core {
    /// Looks how this node is, and gives leadership up when it is not fit for it.
    pub(super) fn tick_fitness(&mut self) {
        self.storage.tick_times(self.turn.steady_ms);
        let lacks = |shard: &LocalShard| {
            let member = shard.group.config().node;
            member.generation() > 0 && !shard.group.membership().votes(member)
        };
        let facts = CoreFacts {
            lacks_shard: self.shards.iter().any(lacks),
            oldest_ms: self.storage.oldest_write_ms(),
            p99_us: self.storage.log_write_p99_us(),
        };
        self.shared.cluster.fitness.note_core(self.id, facts);
        if self.cluster.links.is_some() {
            let (own, reached) = (self.shared.cluster.own(), self.reached());
            self.cluster.outdone_ticks = match self.shared.cluster.fitness.is_outdone(own, &reached)
            {
                true => self.cluster.outdone_ticks + 1,
                false => 0,
            };
            self.judge_fitness();
        }
        if self.shared.cluster.fitness.own().is_any() {
            self.give_leadership_up();
        }
    }

    fn judge_fitness(&mut self) {
        let shared = self.shared.clone();
        let fitness = &shared.cluster.fitness;
        let (facts, wall_ms) = (fitness.all_cores(), wall_clock_ms());
        let (others_p99_us, ahead_ms) = fitness.others(wall_ms - self.steady_ms());
        let off_ms = clock_ahead_ms(&ahead_ms);
        let unfit = Unfit::DISK_HANGS
            .when(facts.oldest_ms >= DISK_HANGS_MS)
            .or(Unfit::DISK_FULL.when(self.is_short()))
            .or(Unfit::DISK_SLOW.when(is_slow(facts.p99_us, &others_p99_us)))
            .or(Unfit::CLOCK_OFF.when(off_ms.abs() >= CLOCK_UNFIT_MS))
            .or(Unfit::LACKS_SHARD.when(facts.lacks_shard))
            .or(Unfit::LACKS_LINK.when(self.cluster.outdone_ticks >= OUTDONE_TICKS))
            .or(Unfit::STOPPING.when(shared.stopping.load(Ordering::Relaxed)));
        self.note_clock(off_ms);
        let before = fitness.note_own(unfit, self.turn.steady_ms);
        if unfit != before && !unfit.has(Unfit::STOPPING) {
            match unfit.is_any() {
                true => {
                    tracing::warn!("this node shall lead nothing while another one can: {unfit}");
                }
                false => tracing::info!("this node may lead again"),
            }
        }
        if unfit != before || self.cluster.ticks.is_multiple_of(CONDITION_TICKS) {
            for node in self.reached() {
                self.tell_condition(node);
            }
        }
    }

    /// A shard of this core has no room from now on. The others are told before it hands over:
    /// whoever leads it would hand it back to the node that leads the rest.
    #[cold]
    pub(in crate::core) fn judge_at_once(&mut self) {
        if self.cluster.links.is_some() {
            return self.judge_fitness();
        }
        let core = self.shared.cluster.link_core();
        if core != self.id && self.shared.cluster.is_clustered() {
            self.tell_core(core, Core::judge_at_once);
        }
    }

    /// Nodes that this one is connected with.
    fn reached(&self) -> Vec<NodeId> {
        let links = self.shared.cluster.links();
        links.iter().filter(|link| link.is_up).map(|link| link.node).collect()
    }

    fn note_clock(&mut self, off_ms: i64) {
        let is_off = off_ms.abs() >= CLOCK_NOTED_MS;
        if is_off != std::mem::replace(&mut self.cluster.is_clock_off, is_off) {
            match is_off {
                true => tracing::warn!(
                    "this node's clock is {} ms {} those of the others: have it set (NTP)",
                    off_ms.abs(),
                    if off_ms > 0 { "ahead of" } else { "behind" }
                ),
                false => tracing::info!("this node's clock agrees with those of the others"),
            }
        }
    }

    /// Tells another node how this one is.
    pub(super) fn tell_condition(&mut self, node: NodeId) {
        let fitness = &self.shared.cluster.fitness;
        let message = NodeMessage::Condition {
            wall_ms: wall_clock_ms(),
            log_write_p99_us: fitness.log_write_p99_us(),
            unfit: fitness.own().bits(),
            hears: self.reached(),
        };
        self.send_message(node, &message);
    }

    /// Another node has told how it is.
    pub(super) fn heard_condition(
        &mut self,
        node: NodeId,
        wall_ms: i64,
        p99_us: u64,
        unfit: u8,
        hears: Vec<NodeId>,
    ) {
        let clock_ms = wall_ms.saturating_sub(self.steady_ms());
        let said = Said { unfit: Unfit::of_bits(unfit), p99_us, clock_ms, hears };
        self.shared.cluster.fitness.heard(node, self.turn.steady_ms, said);
    }

    /// What this core leads goes to others that are fit. A disk that hangs may keep even that from
    /// coming off (the others want what is not written here): then the groups fall silent, and
    /// the others elect.
    fn give_leadership_up(&mut self) {
        let shared = self.shared.clone();
        let (fitness, own) = (&shared.cluster.fitness, shared.cluster.own());
        let is_silent = fitness.all_cores().oldest_ms >= DISK_SILENT_MS;
        let (tick, now_ms) = (self.cluster.ticks, self.turn.steady_ms);
        let may_succeed = |node| fitness.may_succeed(node, now_ms);
        for shard in &mut self.shards {
            let id = shard.server.id;
            let group = &mut shard.server.group;
            if group.role() != Role::Leader {
                continue;
            }
            let Some(heir) = heir(&group.peers(), own, may_succeed) else {
                continue;
            };
            self.turn.has_new_work = true;
            if is_silent && can_elect(group, own) {
                tracing::warn!(shard = id.0, "leads no more: its disk hangs");
                group.resign();
                continue;
            }
            self.cluster.membership.hand_on(group, id, heir, tick);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringraft_shards::ids::Index;

    #[test]
    fn a_majority_says_what_time_it_is() {
        for (others, expected) in [
            (&[][..], 0),
            (&[3600], 0),
            (&[3600, 3601], -3600),
            (&[-9, 3600], 0),
            (&[-9, -3600], 9),
            (&[0, 3600, 3600], 0),
            (&[-10, 3600, 3600], 0),
            (&[3590, 3600, 3600, 3600], -3600),
        ] {
            assert_eq!(clock_ahead_ms(others), expected, "{others:?}");
        }
    }

    #[test]
    fn the_best_reading_of_a_clock_counts_and_a_late_message_does_not() {
        let fitness = Fitness::default();
        let node = NodeId(2);
        let said = |unfit, clock_ms, hears| Said { unfit, p99_us: 0, clock_ms, hears };
        fitness.heard(node, 0, said(Unfit::default(), 1000, vec![NodeId(3)]));
        assert_eq!(fitness.hears(node, NodeId(3)), Some(true));
        assert_eq!(fitness.hears(NodeId(3), node), None);
        for late in 1..READINGS as i64 {
            fitness.heard(node, 0, said(Unfit::default(), 1000 - late * 9000, Vec::new()));
            assert_eq!(fitness.others(1000).1, [0]);
        }
        fitness.heard(node, 0, said(Unfit::DISK_FULL, -8000, Vec::new()));
        assert_eq!(fitness.others(1000).1, [-9000], "all say so by now");
        assert!(!fitness.is_fit(node) && !fitness.is_fit(NodeId(3)));
        fitness.forget(node);
        assert_eq!(fitness.of(node), None);
    }

    #[test]
    fn nodes_that_share_a_disk_do_not_hand_over_since_it_hangs() {
        let fitness = Fitness::default();
        let [near, far] = [2, 3].map(NodeId);
        let say = |node, now_ms, unfit| {
            let said = Said { unfit, p99_us: 0, clock_ms: 0, hears: Vec::new() };
            fitness.heard(node, now_ms, said);
        };
        let may = |now_ms| [near, far].map(|node| fitness.may_succeed(node, now_ms));
        say(near, 0, Unfit::default());
        say(far, 0, Unfit::default());
        fitness.note_own(Unfit::default(), 900);
        fitness.note_own(Unfit::DISK_HANGS, 1000);
        assert_eq!(may(1000), [false, false], "the others may be about to say the same");
        say(near, 1050, Unfit::DISK_HANGS);
        fitness.note_own(Unfit::DISK_HANGS, 1050);
        assert_eq!(may(1000 + DISK_HANGS_TOLD_MS), [false, true]);
        say(near, 1300, Unfit::default());
        assert_eq!(may(1300), [false, true], "it has hung just now");
        assert_eq!(may(1300 + DISK_HUNG_LATELY_MS), [true, true]);
        fitness.note_own(Unfit::DISK_FULL, 1350);
        assert_eq!(may(1350), [true, true], "that is no matter of a moment");
        fitness.note_own(Unfit::DISK_HANGS, 1400);
        assert_eq!(may(1400), [false, false], "it hangs anew");
    }

    #[test]
    fn who_is_connected_with_less_is_outdone() {
        let [own, middle, far] = [1, 2, 3].map(NodeId);
        let heard = |unfit, hears: &[NodeId]| {
            let fitness = Fitness::default();
            fitness.heard(middle, 0, Said { unfit, p99_us: 0, clock_ms: 0, hears: hears.to_vec() });
            fitness
        };
        let well = Unfit::default();
        assert!(heard(well, &[own, far]).is_outdone(own, &[middle]));
        assert!(!heard(well, &[own, far]).is_outdone(own, &[middle, far]), "it has as much");
        assert!(!heard(well, &[own]).is_outdone(own, &[middle]), "nobody reaches that one");
        assert!(!heard(Unfit::DISK_FULL, &[own, far]).is_outdone(own, &[middle]), "it is not fit");
        let fourth = NodeId(4);
        assert!(!heard(well, &[own, far]).is_outdone(own, &[middle, fourth]), "each lacks one");
    }

    #[test]
    fn a_disk_is_slow_beside_others() {
        for (own, others, expected) in [
            (60_000, &[][..], false),
            (60_000, &[0, 0], false),
            (60_000, &[10_000, 0], true),
            (60_000, &[10_000, 13_000], false),
            (49_000, &[1000, 1000], false),
        ] {
            assert_eq!(is_slow(own, others), expected, "{own} {others:?}");
        }
    }

    #[test]
    fn the_heir_is_fit_heard_and_has_nearly_all() {
        let peer = |node, matched| PeerProgress {
            node: NodeId(node),
            voter: true,
            matched: Index(matched),
            active: true,
            in_snapshot: false,
            knows_members: true,
        };
        let own = NodeId(1);
        let peers = [peer(1, 900), peer(2, 890), peer(3, 900), peer(4, 10)];
        assert_eq!(heir(&peers, own, |_| true), Some(NodeId(2)), "ten entries are nothing");
        assert_eq!(heir(&peers, own, |node| node.0 > 2), Some(NodeId(3)));
        assert_eq!(heir(&peers, own, |node| node.0 > 3), Some(NodeId(4)));
        assert_eq!(heir(&peers, own, |node| node.0 == 1), None);
        let mut silent = peers;
        silent[1].active = false;
        assert_eq!(heir(&silent, own, |_| true), Some(NodeId(3)));
    }

    #[test]
    fn reasons_are_said() {
        let unfit = Unfit::DISK_HANGS.or(Unfit::CLOCK_OFF).or(Unfit::DISK_FULL.when(false));
        assert_eq!(unfit.to_string(), "its disk hangs, its clock is off");
        assert_eq!(Unfit::of_bits(128).to_string(), "it says so", "of a newer version");
    }
}
