//! Reads that have nothing before them, where another node may lead: under a lease, or once a
//! majority has confirmed that this node leads.
//!
//! A read is answered if at some moment after it was received nobody else could lead: what is
//! applied here then is what it may see. So whoever has received reads, and reads the clock after
//! that, may execute them in place while the lease holds at that time ([`Server::reads_in_place`],
//! [`Server::lease_holds`]). All others are executed when their place has come and withheld until
//! the clock, read afterwards, shows that the lease still holds. When it does not, a majority is
//! asked, once for all reads of the turn; what they say holds for an index, and the read is
//! executed when that is applied.

use super::{Fate, Host, Server, part};
use crate::ids::{Index, MonotonicTime, NodeId};
use crate::raft::{Group, Output, ReadError};
use crate::transaction::Fetch;
use std::collections::{BTreeMap, VecDeque};

/// Is a lease enough for a read?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leases {
    /// While it holds.
    Trusted,
    /// A majority is asked every time.
    #[default]
    Unused,
    /// Not even that is asked for: who believes to lead answers, and may be wrong for as long as a
    /// majority is out of reach.
    Unneeded,
}

/// What waits for one confirmation.
struct Confirming<H: Host> {
    /// To be executed afterwards.
    reads: Vec<H::Kept>,
    /// Executed before.
    executed: Vec<(H::Who, H::Reply)>,
    fetches: Vec<Fetch>,
    questions: Vec<(NodeId, u64)>,
}

/// Reads of a shard that are not answered.
pub(super) struct Reads<H: Host> {
    /// Not executed.
    fresh: Vec<H::Kept>,
    /// Executed under a lease, to be looked at again.
    leased: Vec<(H::Kept, H::Reply)>,
    /// Executed at their place in the order, to be answered when it is confirmed that this node
    /// still led then.
    pub(super) executed: Vec<(H::Who, H::Reply)>,
    /// What transactions have read, to be confirmed.
    pub(super) fetches: Vec<Fetch>,
    /// Other nodes that ask how far the log is committed.
    questions: Vec<(NodeId, u64)>,
    confirming: BTreeMap<u64, Confirming<H>>,
    /// To be executed when an index is applied.
    confirmed: VecDeque<(Index, Vec<H::Kept>)>,
    contexts: u64,
    /// What was enough in the last turn.
    leases: Leases,
    /// The lease was over when it was looked at: a majority is asked next.
    is_over: bool,
}

impl<H: Host> Default for Reads<H> {
    fn default() -> Self {
        Reads {
            fresh: Vec::new(),
            leased: Vec::new(),
            executed: Vec::new(),
            fetches: Vec::new(),
            questions: Vec::new(),
            confirming: BTreeMap::new(),
            confirmed: VecDeque::new(),
            contexts: 0,
            leases: Leases::default(),
            is_over: false,
        }
    }
}

impl<H: Host> Reads<H> {
    pub(super) fn count(&self) -> usize {
        let confirming = self.confirming.values();
        let confirming: usize =
            confirming.map(|c| c.reads.len() + c.executed.len() + c.fetches.len()).sum();
        let confirmed: usize = self.confirmed.iter().map(|(_, reads)| reads.len()).sum();
        let new = self.fresh.len() + self.leased.len() + self.executed.len() + self.fetches.len();
        new + confirming + confirmed
    }

    /// Is a lease enough for all of them?
    /// A follower may have applied, and shown, what is committed and not on this node's disk yet:
    /// then it is not.
    fn trusts(&self, group: &Group, now: MonotonicTime) -> bool {
        match self.leases {
            Leases::Trusted => {
                group.applied_index() == group.commit_index() && group.lease_valid(now)
            }
            Leases::Unused => false,
            Leases::Unneeded => true,
        }
    }

    /// Must a majority be asked, unless a lease is enough?
    #[inline(always)]
    fn has_questions(&self) -> bool {
        !(self.fresh.is_empty()
            && self.executed.is_empty()
            && self.fetches.is_empty()
            && self.questions.is_empty())
    }

    pub(super) fn is_pressed(&self) -> bool {
        self.has_questions() || !self.leased.is_empty()
    }
}

impl<H: Host> Server<H> {
    /// Takes a read that has nothing before it, while this node serves.
    pub fn gather_read(&mut self, kept: H::Kept) {
        assert!(self.serves(), "who does not lead confirms nothing");
        self.reads.fresh.push(kept);
    }

    /// What was executed and is withheld, for [`end_leased`] to look at.
    #[inline(always)]
    pub fn leased_count(&self) -> usize {
        let reads = &self.reads;
        reads.leased.len() + reads.executed.len() + reads.fetches.len() + reads.questions.len()
    }

    /// Another node asks how far the log is committed; [`Host::tell`] answers. False while this one
    /// does not serve.
    #[must_use]
    pub fn question(&mut self, asker: NodeId, number: u64) -> bool {
        if self.serves() {
            self.reads.questions.push((asker, number));
        }
        self.serves()
    }

    /// A turn begins: may reads run in place that are received in it? They may while nobody else
    /// can lead, or if the lease will hold for a while yet; and only while none waits that came
    /// before them. `until`: how long it shall hold.
    pub fn look_at_lease(&mut self, leases: Leases, until: MonotonicTime) {
        self.reads.leases = leases;
        self.reads_in_place = self.is_alone
            || self.leading.is_some()
                && self.reads.count() == 0
                && self.group.applied_index() >= self.group.commit_index()
                && self.reads.trusts(&self.group, until);
    }

    /// Reads were received before `now` was read from the clock: may they run in place? When they
    /// may not, no others may in this turn, and [`Server::gather_read`] is the way.
    #[inline]
    pub fn lease_holds(&mut self, now: MonotonicTime) -> bool {
        let holds = self.reads_in_place
            && (self.is_alone || self.leading.is_some() && self.reads.trusts(&self.group, now));
        self.reads_in_place = holds;
        holds
    }
}

/// Executes the reads of this turn under a lease, if it is enough and holds; else asks a majority.
/// `now` may be the time of the turn's beginning.
#[inline]
pub fn ask_for_reads<H: Host>(
    host: &mut H,
    now: MonotonicTime,
    leases: Leases,
    turn: &mut H::Turn<'_>,
) {
    let reads = &mut host.server_mut().reads;
    reads.leases = leases;
    if reads.has_questions() {
        ask(host, now, turn);
    }
}

#[cold]
fn ask<H: Host>(host: &mut H, now: MonotonicTime, turn: &mut H::Turn<'_>) {
    let server = host.server_mut();
    let is_over = std::mem::take(&mut server.reads.is_over);
    if !is_over && server.serves() && server.reads.trusts(&server.group, now) {
        // Whether it does afterwards is looked at in the end.
        for kept in std::mem::take(&mut server.reads.fresh) {
            if let Some((kept, reply)) = read_or_wait(host, kept, turn) {
                host.server_mut().reads.leased.push((kept, reply));
            }
        }
        return;
    }
    let reads = std::mem::take(&mut server.reads.fresh);
    let executed = std::mem::take(&mut server.reads.executed);
    let fetches = std::mem::take(&mut server.reads.fetches);
    let questions = std::mem::take(&mut server.reads.questions);
    server.reads.contexts += 1;
    let context = server.reads.contexts;
    let confirming = Confirming { reads, executed, fetches, questions };
    match server.group.read_index(context) {
        Ok(()) => {
            server.reads.confirming.insert(context, confirming);
        }
        Err(ReadError::NotLeader { leader }) => {
            end(host, confirming, Fate::NotLeader { leader }, turn);
        }
        Err(ReadError::NotReady | ReadError::Failed(_)) => {
            end(host, confirming, Fate::NotLeader { leader: None }, turn);
        }
    }
}

/// Reads were executed and are withheld: does the lease hold now? `now` is read from the clock
/// after they were. If it does not, a majority is asked.
#[inline]
pub fn end_leased<H: Host>(host: &mut H, now: MonotonicTime, turn: &mut H::Turn<'_>) -> bool {
    host.server().leased_count() == 0 || look_again(host, now, turn)
}

#[cold]
fn look_again<H: Host>(host: &mut H, now: MonotonicTime, turn: &mut H::Turn<'_>) -> bool {
    let server = host.server_mut();
    let holds = server.serves() && server.reads.trusts(&server.group, now);
    let leased = std::mem::take(&mut server.reads.leased);
    if !holds {
        server.reads.is_over = true;
        server.reads.fresh.extend(leased.into_iter().map(|(kept, _)| kept));
        return false;
    }
    let executed = std::mem::take(&mut server.reads.executed);
    if server.group.lease_valid(now) {
        let fetches = std::mem::take(&mut server.reads.fetches);
        confirm(server, fetches, true);
        let questions = std::mem::take(&mut server.reads.questions);
        let index = server.group.commit_index();
        tell(host, questions, Some(index), turn);
    } else {
        // What a transaction writes follows from what it has read, and who asks wants to be
        // certain: that is confirmed in any case.
        server.reads.is_over =
            !(server.reads.fetches.is_empty() && server.reads.questions.is_empty());
    }
    for (kept, reply) in leased {
        host.answer(H::who(&kept), reply, turn);
    }
    for (who, reply) in executed {
        host.answer(who, reply, turn);
    }
    true
}

/// Executes a read, or lets it wait for a transaction that has locked its keys.
fn read_or_wait<H: Host>(
    host: &mut H,
    kept: H::Kept,
    turn: &mut H::Turn<'_>,
) -> Option<(H::Kept, H::Reply)> {
    if host.is_held_up(&kept) {
        part::wait(host, kept);
        return None;
    }
    let reply = host.read(&kept, turn);
    Some((kept, reply))
}

/// Takes in what a poll says of confirmations, and executes what is due.
#[inline]
pub(super) fn settle<H: Host>(host: &mut H, output: &mut Output, turn: &mut H::Turn<'_>) {
    if !(output.read_ready.is_empty() && output.read_failed.is_empty()) {
        take_confirmations(host, output, turn);
    }
    if !host.server().reads.confirmed.is_empty() {
        serve_confirmed(host, turn);
    }
}

#[cold]
fn take_confirmations<H: Host>(host: &mut H, output: &mut Output, turn: &mut H::Turn<'_>) {
    for ready in output.read_ready.drain(..) {
        let server = host.server_mut();
        let confirming = server.reads.confirming.remove(&ready.context);
        let confirming = confirming.expect("it was asked for");
        if server.serves() {
            server.reads.confirmed.push_back((ready.index, confirming.reads));
        } else {
            // What transactions hold is not known here any more.
            refuse(host, confirming.reads, turn);
        }
        for (who, reply) in confirming.executed {
            host.answer(who, reply, turn);
        }
        confirm(host.server_mut(), confirming.fetches, true);
        tell(host, confirming.questions, Some(ready.index), turn);
    }
    for context in output.read_failed.drain(..) {
        let reads = &mut host.server_mut().reads;
        let confirming = reads.confirming.remove(&context).expect("it was asked for");
        let leader = host.server().group.leader();
        end(host, confirming, Fate::NotLeader { leader }, turn);
    }
}

#[cold]
fn serve_confirmed<H: Host>(host: &mut H, turn: &mut H::Turn<'_>) {
    let applied = host.server().group.applied_index();
    let ready = |reads: &Reads<H>| reads.confirmed.front().is_some_and(|(at, _)| *at <= applied);
    while ready(&host.server().reads) {
        let next = host.server_mut().reads.confirmed.pop_front();
        let (_, reads) = next.expect("just seen");
        for kept in reads {
            if let Some((kept, reply)) = read_or_wait(host, kept, turn) {
                host.answer(H::who(&kept), reply, turn);
            }
        }
    }
}

/// Leadership is over: what is not confirmed is refused.
pub(super) fn step_down<H: Host>(host: &mut H, turn: &mut H::Turn<'_>) {
    let questions = std::mem::take(&mut host.server_mut().reads.questions);
    tell(host, questions, None, turn);
    let reads = &mut host.server_mut().reads;
    reads.fetches.clear();
    let leased = std::mem::take(&mut reads.leased).into_iter().map(|(kept, _)| kept);
    let kept: Vec<H::Kept> = std::mem::take(&mut reads.fresh).into_iter().chain(leased).collect();
    let executed = std::mem::take(&mut reads.executed);
    // Whoever reads must ask what transactions hold, and that is forgotten.
    let confirmed = std::mem::take(&mut reads.confirmed);
    refuse(host, kept, turn);
    for (_, kept) in confirmed {
        refuse(host, kept, turn);
    }
    let fate = host.server().not_leader();
    for (who, _) in executed {
        host.fail(&who, None, fate, turn);
    }
}

fn refuse<H: Host>(host: &mut H, reads: Vec<H::Kept>, turn: &mut H::Turn<'_>) {
    let fate = host.server().not_leader();
    for kept in reads {
        host.fail_kept(kept, fate, turn);
    }
}

fn end<H: Host>(host: &mut H, confirming: Confirming<H>, fate: Fate<'_>, turn: &mut H::Turn<'_>) {
    confirm(host.server_mut(), confirming.fetches, false);
    tell(host, confirming.questions, None, turn);
    for kept in confirming.reads {
        host.fail_kept(kept, fate, turn);
    }
    for (who, _) in confirming.executed {
        host.fail(&who, None, fate, turn);
    }
}

/// Answers other nodes. What is committed is told to them as well, so that they apply it at once.
fn tell<H: Host>(
    host: &mut H,
    questions: Vec<(NodeId, u64)>,
    certain: Option<Index>,
    turn: &mut H::Turn<'_>,
) {
    if certain.is_some() && !questions.is_empty() {
        host.server_mut().group.announce_commit();
    }
    for (asker, number) in questions {
        host.tell(asker, number, certain, turn);
    }
}

fn confirm<H: Host>(server: &mut Server<H>, fetches: Vec<Fetch>, leads: bool) {
    for fetch in fetches {
        server.participant.confirmed(fetch, leads, &mut server.wanted);
    }
}
