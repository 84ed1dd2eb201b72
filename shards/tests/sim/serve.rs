//! Requests of one shard: writes gather into one entry per turn, reads into one confirmation per turn.

use std::collections::{BTreeMap, VecDeque};

use ringraft_shards::batch::BatchBuilder;
use ringraft_shards::ids::{Index, Term};
use ringraft_shards::keyspace::KeyHash;
use ringraft_shards::raft::{CommittedEntry, Output, ProposeError, ReadError, Role};

use crate::command::Reply;
use crate::counts::Count;
use crate::machine::{self, DATABASE};
use crate::plan::Flaw;
use crate::replica::{Outbox, Running};
use crate::request::{Answer, Origin, Request, Result};
use crate::schedule::Core;

/// Entries of this replica on their way at a time; more writes gather.
const FLIGHTS_MAX: usize = 4;
/// Requests that may wait in a shard; more are refused.
pub const WAITING_MAX: usize = 256;

/// An entry on its way, and who waits for it.
struct Flight {
    index: Index,
    term: Term,
    /// By place in the batch; `None` waits for nothing.
    origins: Vec<Option<Origin>>,
}

/// Those who wait in one shard.
#[derive(Default)]
pub struct Service {
    writes: Vec<Request>,
    reads: Vec<Request>,
    flights: VecDeque<Flight>,
    confirming: BTreeMap<u64, Vec<Request>>,
    /// Reads that wait until this index is applied.
    confirmed: VecDeque<(Index, Vec<Request>)>,
    contexts: u64,
    builder: BatchBuilder,
}

fn answer(outbox: &mut Outbox, origin: Origin, result: Result) {
    outbox.answers.push(Answer { origin, result });
}

impl Service {
    /// Takes a request in.
    pub fn take(&mut self, request: Request, outbox: &mut Outbox) {
        if self.waiting() >= WAITING_MAX {
            answer(outbox, request.origin(), Result::Refused { leader: None });
        } else if request.command.is_read() {
            self.reads.push(request);
        } else {
            self.writes.push(request);
        }
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        let flying: usize = self.flights.iter().map(|flight| flight.origins.len()).sum();
        let confirming: usize = self.confirming.values().map(Vec::len).sum();
        let confirmed: usize = self.confirmed.iter().map(|(_, reads)| reads.len()).sum();
        self.writes.len() + self.reads.len() + flying + confirming + confirmed
    }

    /// An entry was applied: those whose it is are answered.
    pub fn applied(
        &mut self,
        entry: &CommittedEntry,
        replies: Vec<Reply>,
        core: &mut Core,
        outbox: &mut Outbox,
    ) {
        let ours = |flight: &Flight| flight.index == entry.index && flight.term == entry.term;
        let Some(at) = self.flights.iter().position(ours) else { return };
        let flight = self.flights.remove(at).expect("just found");
        for (origin, reply) in flight.origins.into_iter().zip(replies) {
            if let Some(origin) = origin {
                core.note(|| format!("#{} executed: {reply}", origin.operation));
                answer(outbox, origin, Result::Done(reply));
            }
        }
    }

    /// What the group says of proposals and reads.
    pub fn settle(&mut self, out: &mut Output, core: &mut Core, outbox: &mut Outbox) {
        for lost in out.lost.drain(..) {
            core.count(Count::ProposalsLost);
            self.end_flight(lost.index, lost.term, Result::Refused { leader: None }, outbox);
        }
        for unknown in out.unknown.drain(..) {
            self.end_flight(unknown.index, unknown.term, Result::Unknown, outbox);
        }
        for read in out.read_ready.drain(..) {
            core.count(Count::ReadBatches);
            let requests = self.confirming.remove(&read.context).expect("it was asked for");
            self.confirmed.push_back((read.index, requests));
        }
        for context in out.read_failed.drain(..) {
            let requests = self.confirming.remove(&context).expect("it was asked for");
            for request in requests {
                answer(outbox, request.origin(), Result::Refused { leader: None });
            }
        }
    }

    fn end_flight(&mut self, index: Index, term: Term, result: Result, outbox: &mut Outbox) {
        let same = |flight: &Flight| flight.index == index && flight.term == term;
        let Some(at) = self.flights.iter().position(same) else { return };
        let flight = self.flights.remove(at).expect("just found");
        for origin in flight.origins.into_iter().flatten() {
            answer(outbox, origin, result.clone());
        }
    }
}

impl Running {
    /// The turn's requests go to the group.
    pub fn propose(&mut self, now_ms: i64, core: &mut Core, outbox: &mut Outbox) {
        let leader = self.group.leader().map(|node| node.0);
        if self.group.role() != Role::Leader {
            let waiting = self.service.writes.drain(..).chain(self.service.reads.drain(..));
            for request in waiting {
                answer(outbox, request.origin(), Result::Refused { leader });
            }
            return;
        }
        if !self.service.writes.is_empty() && self.service.flights.len() < FLIGHTS_MAX {
            self.propose_writes(now_ms, core, outbox);
        }
        if !self.service.reads.is_empty() {
            self.ask_for_reads(core, outbox);
        }
    }

    fn propose_writes(&mut self, now_ms: i64, core: &mut Core, outbox: &mut Outbox) {
        let hasher = self.keyspace.hasher();
        let service = &mut self.service;
        let mut origins = Vec::with_capacity(service.writes.len() + 1);
        service.builder.clear();
        for request in &service.writes {
            let (number, arguments) = machine::encode(request.operation, &request.command);
            let first_key = hasher.hash(&machine::key_name(request.command.keys()[0]));
            service.builder.push(number, DATABASE, first_key, arguments.borrow());
            origins.push(Some(request.origin()));
        }
        // Now and then a key with a deadline, which replicas must agree on whatever their clocks say.
        if core.once_in(8) {
            let lifetime = core.chance.below(100) as u8;
            let name = (1 << 63) | core.chance.bits();
            let key = [b'f', b'0' + (lifetime & 3)];
            let arguments =
                [&name.to_le_bytes()[..], &key, &[lifetime]].into_iter().collect::<Arguments>();
            let hash = KeyHash::default();
            service.builder.push(machine::FLEETING, DATABASE, hash, arguments.borrow());
            origins.push(None);
        }
        self.last_time_ms = self.last_time_ms.max(now_ms);
        let data = service.builder.encode(self.last_time_ms, core.chance.bits());
        self.stirred = true;
        let refused = match self.group.propose(data) {
            Ok(proposal) => {
                let (index, term) = (proposal.index, proposal.term);
                service.flights.push_back(Flight { index, term, origins });
                service.writes.clear();
                return;
            }
            Err(ProposeError::NotLeader { leader }) => leader.map(|node| node.0),
            Err(_) => None,
        };
        for request in service.writes.drain(..) {
            answer(outbox, request.origin(), Result::Refused { leader: refused });
        }
    }

    fn ask_for_reads(&mut self, core: &mut Core, outbox: &mut Outbox) {
        let reads = std::mem::take(&mut self.service.reads);
        self.stirred = true;
        if core.plan.flaw == Flaw::UnconfirmedReads {
            self.service.confirmed.push_back((Index(0), reads));
            return;
        }
        self.service.contexts += 1;
        let context = self.service.contexts;
        match self.group.read_index(context) {
            Ok(()) => {
                self.service.confirming.insert(context, reads);
            }
            Err(error) => {
                let leader = match error {
                    ReadError::NotLeader { leader } => leader.map(|node| node.0),
                    _ => None,
                };
                for request in reads {
                    answer(outbox, request.origin(), Result::Refused { leader });
                }
            }
        }
    }

    /// Reads that are confirmed and whose place has come are executed.
    pub fn serve_reads(&mut self, core: &mut Core, outbox: &mut Outbox) {
        let applied = self.group.applied_index();
        let ready = |(index, _): &(Index, Vec<Request>)| *index <= applied;
        while self.service.confirmed.front().is_some_and(ready) {
            let (_, requests) = self.service.confirmed.pop_front().expect("just seen");
            for request in requests {
                let (number, arguments) = machine::encode(request.operation, &request.command);
                let view = self.keyspace.view(DATABASE, self.last_time_ms);
                let reply = machine::read(&view, number, arguments.borrow().tail(1));
                core.audit.executed(request.operation);
                core.note(|| format!("#{} read: {reply}", request.operation));
                answer(outbox, request.origin(), Result::Done(reply));
            }
        }
    }
}

/// Arguments that own their bytes.
type Arguments = ringraft_shards::arguments::OwnedArguments;
