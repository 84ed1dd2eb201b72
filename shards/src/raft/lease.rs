//! The leader's lease: reads without asking the others, for as long as nobody else can have been
//! elected.
//!
//! raft-rs' own lease reads are not safe (they check neither time nor transfers), and its followers
//! forget whom they follow in ways that this rests on (a restart, a late answer from a greater
//! term). So both halves are here.
//!
//! - [`Promise`], on every member: for `election_ticks` ticks after it heard its leader, and after
//!   a start from a log or a snapshot, a member neither votes, nor pre-votes, nor stands for
//!   election, unless leadership is handed over.
//! - [`Lease`], on the leader: heartbeats carry the time, on the leader's clock, at which they were
//!   made; answers bring it back. Let *s* be the latest time such that a majority (of both halves,
//!   while joint) has answered a heartbeat made at *s* or later. The lease holds until *s* +
//!   [`Lease::length_us`].
//!
//! **Why nobody else leads meanwhile.** Each member of that majority heard the leader after *s* and
//! has promised before its answer left. A later leader needs the vote of one of them, or of the
//! leader itself, who ignores candidates while it leads. A promise of *n* ticks, accepted by
//! [`TickGate`], lasts at least *n* - 2 tick times on the member's clock: the first may follow at
//! once, and the gate lets a late one be followed by a punctual one. The length is that much, less
//! [`RAFT_CLOCK_DRIFT_PERCENT`], so it is over on the leader's clock before the promise is over on
//! the member's. A member that answered and had voted in a greater term before would have answered
//! in that term; the leader counts answers of its own term only. A restart forgets a promise and
//! makes a new one, which ends later.
//!
//! **Handing over** makes the target stand at once, and others vote for it in spite of their
//! promises. The message that says so may arrive late, so from the attempt on this leader has no
//! lease for the rest of its term.
//!
//! **Changes of members.** While one is proposed and not applied here there is no lease. Otherwise
//! the others' members are the leader's or one change older, and a majority of either contains one
//! that has promised, or that refuses because its log is longer. A sole voter makes no promise at
//! its start: it can be alone only if it led last, or after a change that its leader had to apply
//! first.
//!
//! **A read under a lease**: execute, then ask [`Group::lease_valid`](super::Group::lease_valid)
//! with the time read *after* the execution; only if it holds reply, else confirm by `read_index`.
//!
//! **Assumed of clocks**: they never go back; the rates of any two members' clocks differ by less
//! than [`RAFT_CLOCK_DRIFT_PERCENT`]; they go on while the process is stopped. A machine that is
//! suspended together with its clock and resumed breaks the last, and with it the lease, but never
//! `read_index`. Jumps of the time of day do not matter. All members have the same `election_ticks`
//! and `tick_us`. The driver reads the clock for a tick after the messages that it handed in
//! before.
//!
//! Not here: reading clocks; deciding which reads use a lease.

use bytes::Bytes;

use crate::ids::MonotonicTime;
use crate::limits::RAFT_CLOCK_DRIFT_PERCENT;
use crate::snapshot::Membership;

/// Bytes of a heartbeat's context that are the lease's; raft-rs' own follow.
const STAMP_BYTES: usize = 8;

/// The leader's half.
#[derive(Debug)]
pub(super) struct Lease {
    me: u64,
    length_us: u64,
    /// When the newest heartbeat was made that a member answered. Members are few: a search costs
    /// nothing.
    answers: Vec<(u64, MonotonicTime)>,
    /// What a majority has confirmed; the end of time when this node is a majority alone.
    since: Option<MonotonicTime>,
    /// Leadership was to be handed over in this term.
    void: bool,
}

impl Lease {
    pub(super) fn new(me: u64, election_ticks: usize, tick_us: u64) -> Lease {
        let ticks = (election_ticks as u64).saturating_sub(2);
        let length_us = ticks * tick_us / 100 * (100 - RAFT_CLOCK_DRIFT_PERCENT);
        Lease { me, length_us, answers: Vec::new(), since: None, void: false }
    }

    /// How long a confirmation is good for, in microseconds of the leader's clock.
    pub(super) fn length_us(&self) -> u64 {
        self.length_us
    }

    /// Term or role changed: nothing is known.
    pub(super) fn clear(&mut self, members: &Membership) {
        self.answers.clear();
        self.void = false;
        self.renew(members);
    }

    /// Somebody else may be elected at any moment.
    pub(super) fn make_void(&mut self) {
        self.void = true;
    }

    /// A member has answered a heartbeat of this term made at `sent`.
    pub(super) fn answered(&mut self, from: u64, sent: MonotonicTime, members: &Membership) {
        match self.answers.iter_mut().find(|(node, _)| *node == from) {
            Some((_, newest)) => *newest = sent.max(*newest),
            None => self.answers.push((from, sent)),
        }
        self.renew(members);
    }

    /// Who counts has changed, or an answer has come.
    pub(super) fn renew(&mut self, members: &Membership) {
        self.answers.retain(|(node, _)| members.contains(crate::ids::NodeId(*node)));
        let incoming = self.confirmed_by(&members.voters);
        self.since = match members.is_joint() {
            false => incoming,
            true => incoming.min(self.confirmed_by(&members.voters_outgoing)),
        };
    }

    /// The latest time to which a majority has answered.
    fn confirmed_by(&self, voters: &[crate::ids::NodeId]) -> Option<MonotonicTime> {
        let answered = |node: u64| match self.answers.iter().find(|(from, _)| *from == node) {
            _ if node == self.me => Some(MonotonicTime::MAX),
            Some((_, sent)) => Some(*sent),
            None => None,
        };
        let mut times: Vec<_> = voters.iter().map(|voter| answered(voter.0)).collect();
        times.sort_unstable();
        let minority = voters.len().checked_sub(1)? / 2;
        // In ascending order the one behind the minority is what a majority has reached.
        times[minority]
    }

    /// Is this node a majority alone?
    pub(super) fn is_alone(&self) -> bool {
        self.since == Some(MonotonicTime::MAX)
    }

    /// Is it certain that at `now` nobody else has been elected?
    pub(super) fn holds(&self, now: MonotonicTime) -> bool {
        let Some(since) = self.since else { return false };
        self.is_alone() || (!self.void && now.0 < since.0.saturating_add(self.length_us))
    }
}

/// A member's half: whom not to vote for.
#[derive(Debug)]
pub(super) struct Promise {
    /// Ticks that a promise lasts.
    ticks: usize,
    ticks_left: usize,
}

impl Promise {
    /// One that is in force, if the member may have promised something before it was started.
    pub(super) fn new(election_ticks: usize, begins_anew: bool) -> Promise {
        let ticks_left = if begins_anew { 0 } else { election_ticks };
        Promise { ticks: election_ticks, ticks_left }
    }

    /// The leader was heard.
    pub(super) fn renew(&mut self) {
        self.ticks_left = self.ticks;
    }

    pub(super) fn tick(&mut self) {
        self.ticks_left = self.ticks_left.saturating_sub(1);
    }

    pub(super) fn is_in_force(&self) -> bool {
        self.ticks_left > 0
    }
}

/// Lets no more ticks through than time has passed for: of a burst after a pause, one.
#[derive(Debug)]
pub(super) struct TickGate {
    tick_us: u64,
    due: Option<MonotonicTime>,
}

impl TickGate {
    pub(super) fn new(tick_us: u64) -> TickGate {
        TickGate { tick_us, due: None }
    }

    /// May a tick happen at `now`? Then the next may one tick time after it was due; after a longer
    /// gap, after `now`.
    pub(super) fn accept(&mut self, now: MonotonicTime) -> bool {
        let due = self.due.unwrap_or(now);
        if now < due {
            return false;
        }
        let late = now.0 - due.0 > self.tick_us;
        let from = if late { now } else { due };
        self.due = Some(MonotonicTime(from.0 + self.tick_us));
        true
    }
}

/// Puts the time before a heartbeat's context.
pub(super) fn stamp(context: &Bytes, now: MonotonicTime) -> Bytes {
    let mut stamped = Vec::with_capacity(STAMP_BYTES + context.len());
    stamped.extend_from_slice(&now.0.to_le_bytes());
    stamped.extend_from_slice(context);
    stamped.into()
}

/// Takes the time off the context of a heartbeat's answer; `None` when there is none.
pub(super) fn take_stamp(context: &mut Bytes) -> Option<MonotonicTime> {
    let time = context.first_chunk::<STAMP_BYTES>().copied()?;
    *context = context.slice(STAMP_BYTES..);
    Some(MonotonicTime(u64::from_le_bytes(time)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;

    fn members(voters: &[u64], outgoing: &[u64], learners: &[u64]) -> Membership {
        let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
        Membership {
            voters: nodes(voters),
            voters_outgoing: nodes(outgoing),
            learners: nodes(learners),
            ..Membership::default()
        }
    }

    /// Answers by member, and what they confirm.
    fn check(members: &Membership, answers: &[(u64, u64)], expected: Option<u64>) {
        let mut lease = Lease::new(1, 10, 100);
        lease.clear(members);
        for (from, sent) in answers {
            lease.answered(*from, MonotonicTime(*sent), members);
        }
        assert_eq!(lease.since, expected.map(MonotonicTime), "{members:?} {answers:?}");
    }

    #[test]
    fn a_majority_of_voters_confirms() {
        let three = members(&[1, 2, 3], &[], &[4]);
        check(&three, &[], None);
        check(&three, &[(4, 9)], None);
        check(&three, &[(2, 5)], Some(5));
        check(&three, &[(2, 5), (3, 7)], Some(7));
        check(&three, &[(2, 5), (2, 3)], Some(5));
        let four = members(&[1, 2, 3, 4], &[], &[]);
        check(&four, &[(2, 5)], None);
        check(&four, &[(2, 5), (4, 8)], Some(5));
        check(&members(&[1, 2, 3, 4, 5], &[], &[]), &[(2, 5), (4, 8), (5, 6)], Some(6));
        check(&members(&[1], &[], &[2]), &[], Some(u64::MAX));
        check(&members(&[2], &[], &[]), &[], None);
    }

    #[test]
    fn both_halves_of_a_joint_configuration_confirm() {
        let joint = members(&[1, 4, 5], &[1, 2, 3], &[]);
        check(&joint, &[(2, 5), (3, 9)], None);
        check(&joint, &[(2, 5), (4, 9)], Some(5));
        check(&joint, &[(2, 5), (4, 3)], Some(3));
        check(&members(&[1, 2, 3], &[1], &[]), &[(3, 4)], Some(4));
    }

    #[test]
    fn it_ends_in_time_and_a_hand_over_ends_it_for_the_term() {
        let three = members(&[1, 2, 3], &[], &[]);
        let mut lease = Lease::new(1, 10, 100_000);
        assert_eq!(lease.length_us(), 760_000, "8 of 10 ticks, less 5 percent");
        lease.answered(2, MonotonicTime(50_000), &three);
        assert!(lease.holds(MonotonicTime(809_999)));
        assert!(!lease.holds(MonotonicTime(810_000)));
        lease.make_void();
        lease.answered(2, MonotonicTime(90_000), &three);
        assert!(!lease.holds(MonotonicTime(100_000)));
        lease.clear(&three);
        lease.answered(2, MonotonicTime(90_000), &three);
        assert!(lease.holds(MonotonicTime(100_000)));
    }

    #[test]
    fn the_gate_lets_one_tick_of_a_burst_through() {
        let mut gate = TickGate::new(100);
        let mut accepted = |now| gate.accept(MonotonicTime(now));
        assert!(accepted(1000), "the first");
        assert!(!accepted(1099));
        assert!(accepted(1150), "a little late");
        assert!(accepted(1200), "and the next on time");
        assert!(accepted(5000), "after a pause");
        for now in 5000..5100 {
            assert!(!accepted(now));
        }
        assert!(accepted(5100));
    }

    #[test]
    fn stamps_go_round() {
        for context in [&b""[..], b"12345678"] {
            let mut stamped = stamp(&Bytes::from_static(context), MonotonicTime(77));
            assert_eq!(take_stamp(&mut stamped), Some(MonotonicTime(77)));
            assert_eq!(stamped, context);
        }
        assert_eq!(take_stamp(&mut Bytes::from_static(b"short")), None);
    }
}
