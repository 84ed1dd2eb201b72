//! Reads that have nothing before them, where another node may lead: under a lease, or once a majority has confirmed that this
//! node leads.
//!
//! Under a lease a read is executed at once and withheld until the clock, read afterwards, shows that the lease still holds. When it
//! does not, a majority is asked, once for all reads of the turn; what they say holds for an index, and the read is executed
//! when that is applied.

use super::{Fate, Host, Server, part};
use crate::ids::{Index, MonotonicTime};
use crate::raft::{Output, ReadError};
use crate::transaction::Fetch;
use std::collections::{BTreeMap, VecDeque};

/// Is a lease enough for a read?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leases {
    /// While it holds.
    Trusted,
    /// A majority is asked every time.
    Unused,
}

/// What waits for one confirmation.
struct Confirming<H: Host> {
    /// To be executed afterwards.
    reads: Vec<H::Kept>,
    /// Executed before.
    executed: Vec<(H::Who, H::Reply)>,
    fetches: Vec<Fetch>,
}

/// Reads of a shard that are not answered.
pub(super) struct Reads<H: Host> {
    /// Not executed.
    fresh: Vec<H::Kept>,
    /// Executed under a lease, to be looked at again.
    leased: Vec<(H::Kept, H::Reply)>,
    /// Executed at their place in the order, to be answered when it is confirmed that this node still led then.
    pub(super) executed: Vec<(H::Who, H::Reply)>,
    /// What transactions have read, to be confirmed.
    pub(super) fetches: Vec<Fetch>,
    confirming: BTreeMap<u64, Confirming<H>>,
    /// To be executed when an index is applied.
    confirmed: VecDeque<(Index, Vec<H::Kept>)>,
    contexts: u64,
    /// Was the lease found to be over when reads had been executed under it? A majority is asked next.
    lease_was_over: bool,
}

impl<H: Host> Default for Reads<H> {
    fn default() -> Self {
        Reads {
            fresh: Vec::new(),
            leased: Vec::new(),
            executed: Vec::new(),
            fetches: Vec::new(),
            confirming: BTreeMap::new(),
            confirmed: VecDeque::new(),
            contexts: 0,
            lease_was_over: false,
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

    /// Must a majority be asked?
    #[inline(always)]
    fn has_questions(&self) -> bool {
        !(self.fresh.is_empty() && self.executed.is_empty() && self.fetches.is_empty())
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

    /// Reads that were executed under a lease, for [`end_leased`] to look at.
    #[inline(always)]
    pub fn leased_count(&self) -> usize {
        self.reads.leased.len()
    }
}

/// Executes the reads of this turn under a lease, if it is enough and holds; else asks a majority. `now` may be the
/// time of the turn's beginning.
#[inline]
pub fn ask_for_reads<H: Host>(
    host: &mut H,
    now: MonotonicTime,
    leases: Leases,
    turn: &mut H::Turn<'_>,
) {
    if host.server().reads.has_questions() {
        ask(host, now, leases, turn);
    }
}

#[cold]
fn ask<H: Host>(host: &mut H, now: MonotonicTime, leases: Leases, turn: &mut H::Turn<'_>) {
    let server = host.server_mut();
    let mut reads = std::mem::take(&mut server.reads.fresh);
    // A turn that slept in its middle has a beginning at which the lease held.
    let was_over = std::mem::take(&mut server.reads.lease_was_over);
    if leases == Leases::Trusted && !was_over && server.group.lease_valid(now) {
        for kept in std::mem::take(&mut reads) {
            if let Some((kept, reply)) = read_or_wait(host, kept, turn) {
                host.server_mut().reads.leased.push((kept, reply));
            }
        }
    }
    let server = host.server_mut();
    let executed = std::mem::take(&mut server.reads.executed);
    let fetches = std::mem::take(&mut server.reads.fetches);
    if reads.is_empty() && executed.is_empty() && fetches.is_empty() {
        return;
    }
    server.reads.contexts += 1;
    let context = server.reads.contexts;
    let confirming = Confirming { reads, executed, fetches };
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

/// Reads were executed under a lease: does it hold now? `now` is read from the clock after they were. If it does not, they are
/// executed again when a majority was asked.
#[inline]
pub fn end_leased<H: Host>(host: &mut H, now: MonotonicTime, turn: &mut H::Turn<'_>) -> bool {
    host.server().reads.leased.is_empty() || look_again(host, now, turn)
}

#[cold]
fn look_again<H: Host>(host: &mut H, now: MonotonicTime, turn: &mut H::Turn<'_>) -> bool {
    let server = host.server_mut();
    let holds = server.group.lease_valid(now);
    server.reads.lease_was_over = !holds;
    for (kept, reply) in std::mem::take(&mut server.reads.leased) {
        if holds {
            host.answer(H::who(&kept), reply, turn);
        } else {
            host.server_mut().reads.fresh.push(kept);
        }
    }
    holds
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
    for kept in confirming.reads {
        host.fail_kept(kept, fate, turn);
    }
    for (who, _) in confirming.executed {
        host.fail(&who, None, fate, turn);
    }
}

fn confirm<H: Host>(server: &mut Server<H>, fetches: Vec<Fetch>, leads: bool) {
    for fetch in fetches {
        server.participant.confirmed(fetch, leads, &mut server.wanted);
    }
}
