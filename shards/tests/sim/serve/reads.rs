//! Reads: under a lease, or once a majority has confirmed that this replica leads.

use ringraft_shards::ids::{Index, MonotonicTime};
use ringraft_shards::raft::ReadError;

use super::{Confirming, answer};
use crate::command::Reply;
use crate::counts::Count;
use crate::machine::{self, DATABASE};
use crate::plan::Flaw;
use crate::replica::{Outbox, Running};
use crate::request::{Request, Result};
use crate::schedule::Core;
impl Running {
    /// Reads were executed under a lease: does it hold now, after they were?
    pub fn end_leased(&mut self, clock: MonotonicTime, core: &mut Core, outbox: &mut Outbox) {
        if core.plan.flaw != Flaw::UncheckedLease {
            self.note_role(outbox);
        }
        let holds = core.plan.flaw == Flaw::UncheckedLease || self.group.lease_valid(clock);
        for (request, reply) in std::mem::take(&mut self.service.leased) {
            if holds {
                core.count(Count::LeaseReads);
                answer(outbox, request.origin(), Result::Done(reply));
            } else {
                core.count(Count::LeasesEnded);
                self.service.reads.push(request);
            }
        }
    }

    pub(super) fn ask_for_reads(
        &mut self,
        clock: MonotonicTime,
        core: &mut Core,
        outbox: &mut Outbox,
    ) {
        let mut reads = std::mem::take(&mut self.service.reads);
        if core.plan.lease && self.group.lease_valid(clock) {
            for request in std::mem::take(&mut reads) {
                if let Some(reply) = self.read_or_wait(&request, core, outbox) {
                    self.service.leased.push((request, reply));
                }
            }
        }
        let fetches = std::mem::take(&mut self.service.confirms);
        let executed = std::mem::take(&mut self.service.executed);
        self.stirred = true;
        if core.plan.flaw == Flaw::UnconfirmedReads {
            for (request, reply) in executed {
                answer(outbox, request.origin(), Result::Done(reply));
            }
            self.service.confirmed.push_back((Index(0), reads));
            return self.service.confirm(fetches, true, outbox);
        }
        self.service.contexts += 1;
        let context = self.service.contexts;
        match self.group.read_index(context) {
            Ok(()) => {
                self.service.confirming.insert(context, Confirming { reads, executed, fetches });
            }
            Err(error) => {
                let leader = match error {
                    ReadError::NotLeader { leader } => leader.map(|node| node.0),
                    _ => None,
                };
                let executed = executed.into_iter().map(|(request, _)| request);
                for request in reads.into_iter().chain(executed) {
                    answer(outbox, request.origin(), Result::Refused { leader });
                }
                self.service.confirm(fetches, false, outbox);
            }
        }
    }

    /// Reads that are confirmed and whose place has come are executed, unless their keys are locked meanwhile.
    pub fn serve_reads(&mut self, core: &mut Core, outbox: &mut Outbox) {
        let applied = self.group.applied_index();
        let ready = |(index, _): &(Index, Vec<Request>)| *index <= applied;
        while self.service.confirmed.front().is_some_and(ready) {
            let (_, requests) = self.service.confirmed.pop_front().expect("just seen");
            for request in requests {
                if let Some(reply) = self.read_or_wait(&request, core, outbox) {
                    answer(outbox, request.origin(), Result::Done(reply));
                }
            }
        }
    }

    /// Executes a read, or lets it wait for a transaction that has locked its keys.
    fn read_or_wait(
        &mut self,
        request: &Request,
        core: &mut Core,
        outbox: &mut Outbox,
    ) -> Option<Reply> {
        if self.service.has_locks_in_the_way(request, self.keyspace.hasher(), core) {
            self.wait(request.clone(), core, outbox);
            return None;
        }
        Some(self.read(request, core))
    }

    /// Up to which operation this leader's state holds some.
    pub fn hint(&mut self, core: &mut Core) -> u64 {
        let applied = self.group.applied_index().0;
        *self.hint.get_or_insert_with(|| core.audit.serves(self.shard, applied))
    }

    pub(super) fn read(&mut self, request: &Request, core: &mut Core) -> Reply {
        let (number, arguments) = machine::encode(request.operation, &request.command);
        let hint = self.hint(core);
        let view = self.keyspace.view(DATABASE, self.clock.read_ms(self.wall_ms));
        let reply = machine::read(&view, number, arguments.borrow().tail(1));
        core.audit.read(request.operation, hint);
        core.note(|| format!("#{} read: {reply}", request.operation));
        reply
    }
}
