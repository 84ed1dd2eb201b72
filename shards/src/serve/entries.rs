//! Entries: sets are proposed, and run when they are committed.

use super::beforehand::Conditions;
use super::sets::{Flight, Set};
use super::{Fate, Host, Server};
use crate::arguments::Arguments;
use crate::batch::{Batch, BatchBuilder};
use crate::clock::TurnBack;
use crate::ids::{DatabaseIndex, Index, Term};
use crate::log::Reserve;
use crate::raft::{CommittedEntry, EntryKind, ProposeError};
use crate::transaction::{NO_LEADER, Record};

/// What [`mind_clock`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Minded {
    /// Time goes on.
    Well,
    /// It is being turned back.
    Turning(TurnBack),
    /// It should be, and the log does not take that now. Ask again.
    Refused,
}

/// Turns time back when the clock was. Ask before anything else is proposed.
#[inline]
pub fn mind_clock<H: Host>(host: &mut H, now_ms: i64) -> Minded {
    match host.server().clock.turn_back(now_ms) {
        Some(turn) => turn_back(host, turn),
        None => Minded::Well,
    }
}

#[cold]
fn turn_back<H: Host>(host: &mut H, turn: TurnBack) -> Minded {
    if !host.server().serves() {
        return Minded::Well;
    }
    let mut batch = BatchBuilder::default();
    host.push_turn_back(&mut batch, turn.to_ms);
    let data = batch.encode(turn.from_ms, host.random());
    let server = host.server_mut();
    // Room for it is kept on a full disk.
    if server.group.propose_smaller(data).is_err() {
        return Minded::Refused;
    }
    server.clock.turning(turn);
    Minded::Turning(turn)
}

/// Proposes what was gathered, as far as the pipeline allows.
pub fn propose<H: Host>(host: &mut H, now_ms: i64, turn: &mut H::Turn<'_>) {
    while host.server().may_propose() && !host.server().clock.is_overtaken(now_ms) {
        let mut set = host.server_mut().sets.pop_front().expect("there is one to propose");
        if set.is_behind {
            host.forget_served(&mut set);
        }
        if let Some(guard) = set.guard.take()
            && !host.resolve(&guard, now_ms)
        {
            host.guard_failed(&set.order[0].who, turn);
            host.server_mut().recycle(set);
            continue;
        }
        propose_set(host, set, Reserve::Kept, now_ms, turn);
    }
}

/// Proposes a set; on a full disk first whole, then what of it may use the reserve.
fn propose_set<H: Host>(
    host: &mut H,
    mut set: Box<Set<H>>,
    reserve: Reserve,
    now_ms: i64,
    turn: &mut H::Turn<'_>,
) {
    if set.batch.count() == 0 {
        return run_or_wait(host, set, turn);
    }
    let Conditions { time_ms, seed, string_bytes_max } = conditions(host, &set, now_ms);
    host.stamp(&mut set);
    let server = host.server_mut();
    let data = set.batch.encode_bounded(time_ms, seed, string_bytes_max);
    let proposed = match reserve {
        Reserve::Kept => server.group.propose(data),
        Reserve::Used => server.group.propose_smaller(data),
    };
    assert!(
        set.beforehand.is_none() || proposed.is_ok() || server.group.failure().is_some(),
        "what is done must be in the log: {proposed:?}"
    );
    match proposed {
        Ok(proposal) => {
            let (index, term) = (proposal.index, proposal.term);
            assert!(
                server.flights.back().is_none_or(|last| last.term < term || last.index < index),
                "entries of one term follow each other"
            );
            host.proposed(&set, proposal);
            host.server_mut().flights.push_back(Flight { index, term, set });
        }
        Err(error @ ProposeError::DiskFull(_)) if reserve == Reserve::Kept => {
            match host.hand_over(now_ms) {
                true => refuse(host, set, &ProposeError::Transferring, now_ms, turn),
                false => propose_smaller(host, set, &error, now_ms, turn),
            }
        }
        Err(error) => refuse(host, set, &error, now_ms, turn),
    }
}

/// Under what the operations of a set run, or have run.
fn conditions<H: Host>(host: &mut H, set: &Set<H>, now_ms: i64) -> Conditions {
    if let Some(beforehand) = &set.beforehand {
        return beforehand.conditions;
    }
    let (seed, string_bytes_max) = (host.random(), host.string_bytes_max());
    Conditions { time_ms: host.server_mut().clock.entry_ms(now_ms), seed, string_bytes_max }
}

/// A set of reads has its place behind the last entry on its way, or runs at once.
fn run_or_wait<H: Host>(host: &mut H, set: Box<Set<H>>, turn: &mut H::Turn<'_>) {
    let server = host.server_mut();
    match server.flights.back() {
        Some(last) => {
            let (index, term) = (last.index, last.term);
            server.flights.push_back(Flight { index, term, set });
        }
        None => run_reads(host, set, turn),
    }
}

/// Proposes those of a set that make the data smaller or end a transaction: there is a reserve for
/// them in the log. The others are refused; reads run at their place.
#[cold]
fn propose_smaller<H: Host>(
    host: &mut H,
    mut set: Box<Set<H>>,
    error: &ProposeError,
    now_ms: i64,
    turn: &mut H::Turn<'_>,
) {
    let mut smaller = BatchBuilder::default();
    let mut order = Vec::with_capacity(set.order.len());
    for mut waiting in std::mem::take(&mut set.order) {
        if waiting.proposed {
            let (operation, arguments) = set.batch.operation(waiting.place as usize);
            if !host.shrinks(&waiting.who, arguments) {
                let asked = (operation.database(), arguments);
                refuse_one(host, &waiting.who, asked, error, turn);
                continue;
            }
            let (number, database) = (operation.command(), operation.database());
            waiting.place = smaller.push(number, database, operation.first_key(), arguments) as u32;
        }
        order.push(waiting);
    }
    (set.batch, set.order) = (smaller, order);
    propose_set(host, set, Reserve::Used, now_ms, turn);
}

/// Every write of a set is refused; its reads still have their place, unless this node leads no
/// more.
#[cold]
fn refuse<H: Host>(
    host: &mut H,
    mut set: Box<Set<H>>,
    error: &ProposeError,
    now_ms: i64,
    turn: &mut H::Turn<'_>,
) {
    for waiting in set.order.iter().filter(|waiting| waiting.proposed) {
        let (operation, arguments) = set.batch.operation(waiting.place as usize);
        refuse_one(host, &waiting.who, (operation.database(), arguments), error, turn);
    }
    set.order.retain(|waiting| !waiting.proposed);
    set.batch.clear();
    match error {
        ProposeError::NotLeader { leader } => {
            end_set(host, set, Fate::NotLeader { leader: *leader }, turn);
        }
        _ => propose_set(host, set, Reserve::Kept, now_ms, turn),
    }
}

fn refuse_one<H: Host>(
    host: &mut H,
    who: &H::Who,
    asked: (DatabaseIndex, Arguments<'_>),
    error: &ProposeError,
    turn: &mut H::Turn<'_>,
) {
    if !H::is_step(who) {
        return host.fail(who, Some(asked), Fate::Refused(error), turn);
    }
    let record = Record::read(asked.1).expect("it was gathered as a record");
    let reason = match error {
        // Whoever leads next may be asked for the same.
        ProposeError::NotLeader { .. } | ProposeError::Transferring => NO_LEADER.to_string(),
        _ => error.to_string(),
    };
    let server = host.server_mut();
    server.participant.not_proposed(record, &reason, &mut server.wanted);
}

/// Applies a committed entry and answers those who wait for it.
/// Panics when the entry is not a batch: its checksum was right, so the writer was wrong.
#[inline]
pub fn apply<H: Host>(host: &mut H, entry: &CommittedEntry, turn: &mut H::Turn<'_>) {
    if entry.kind != EntryKind::Command {
        return;
    }
    let batch = Batch::read(&entry.data).expect("a committed entry is a batch");
    host.begin_entry(entry, &batch);
    let server = host.server_mut();
    server.entry_ms = batch.leader_time_ms();
    server.clock.applied(server.entry_ms);
    server.running = entry.term;
    let place = (entry.index, entry.term);
    let ours = server.position(place);
    match ours {
        Some(at) => {
            let flight = server.flights.remove(at).expect("just found");
            assert_eq!(flight.set.batch.count(), batch.count(), "an entry is what was proposed");
            host.run(&flight.set, Some((entry, batch)), turn);
            host.server_mut().recycle(flight.set);
        }
        None => host.replay(entry, batch, turn),
    }
    let server = host.server_mut();
    if let Some(turned) = server.keyspace.take_turned() {
        let is_own = server.clock.is_turning();
        server.clock.turned_back(turned.to_ms);
        if is_own {
            host.turned_back(turned.removed, turn);
        }
    }
    if let Some(at) = ours {
        while host.server().flights.get(at).is_some_and(|flight| flight.is_at(place)) {
            let flight = host.server_mut().flights.remove(at).expect("just seen");
            run_reads(host, flight.set, turn);
        }
    }
}

/// Runs a set of reads whose place has come. Unless nobody else can lead, somebody who asks is
/// answered only when it is certain that this node led meanwhile: the entry before may have been
/// proposed before they asked.
fn run_reads<H: Host>(host: &mut H, set: Box<Set<H>>, turn: &mut H::Turn<'_>) {
    let server = host.server_mut();
    if !server.serves() {
        let fate = server.not_leader();
        return end_set(host, set, fate, turn);
    }
    if server.is_alone || !set.is_asked {
        host.run(&set, None, turn);
    } else {
        let mut replies = std::mem::take(&mut server.reads.executed);
        host.run_withheld(&set, &mut replies, turn);
        host.server_mut().reads.executed = replies;
    }
    host.server_mut().recycle(set);
}

/// Nothing of a set is executed. Its records belong to a leadership that is over.
pub(super) fn end_set<H: Host>(
    host: &mut H,
    set: Box<Set<H>>,
    fate: Fate<'_>,
    turn: &mut H::Turn<'_>,
) {
    assert!(set.beforehand.is_none(), "what is done comes to something");
    for waiting in set.order.iter().filter(|waiting| !H::is_step(&waiting.who)) {
        let batch = if waiting.proposed { &set.batch } else { &set.riders };
        let (operation, arguments) = batch.operation(waiting.place as usize);
        let fate = if waiting.proposed { fate } else { host.server().not_leader() };
        host.fail(&waiting.who, Some((operation.database(), arguments)), fate, turn);
    }
    host.server_mut().recycle(set);
}

impl<H: Host> Flight<H> {
    #[inline(always)]
    fn is_at(&self, place: (Index, Term)) -> bool {
        (self.index, self.term) == place
    }
}

impl<H: Host> Server<H> {
    /// The first of what was proposed at a place, or waits behind it.
    #[inline]
    pub(super) fn position(&self, place: (Index, Term)) -> Option<usize> {
        match self.flights.front() {
            None => None,
            Some(first) if first.is_at(place) => Some(0),
            Some(_) => self.flights.iter().position(|flight| flight.is_at(place)),
        }
    }
}
