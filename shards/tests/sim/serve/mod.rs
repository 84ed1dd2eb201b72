//! Requests of one shard: the engine's own server (`ringraft_shards::serve`), driven turn by turn.
//! `host.rs` is what it asks of the simulation.

pub mod blocked;
pub mod fleeting;
mod host;
pub mod reading;

use ringraft_shards::arguments::OwnedArguments;
use ringraft_shards::ids::MonotonicTime;
use ringraft_shards::keyspace::{KeyHash, KeyHasher};
use ringraft_shards::raft::Output;
use ringraft_shards::serve::{self, Host, Leases, Minded};
use ringraft_shards::transaction::{Fetch, Fetched, LockKey, LockSet, Message, ToShard};

use crate::command::Command;
use crate::counts::Count;
use crate::machine::{self, DATABASE};
use crate::plan::Flaw;
use crate::replica::{Outbox, Running};
use crate::replicas::META;
use crate::request::{Answer, Origin, Request, Result};
use crate::schedule::Core;

/// Requests that may wait in a shard; more are refused.
pub const WAITING_MAX: usize = 256;

/// The keys that a transaction reads in a shard.
pub type Reads = Vec<Vec<u8>>;
/// What it read there.
pub type Values = Vec<Fetched>;
/// A message of a transaction.
pub type TransactionMessage = Message<Reads, Values>;

/// Who waits in a shard.
#[derive(Clone, Copy, Debug)]
pub enum Who {
    /// A client.
    Client(Origin),
    /// Nobody: a key is given a deadline.
    Own { key: usize, lifetime: u8 },
    /// A step of a transaction.
    Record,
    /// Those who wait.
    Serve,
    /// A transaction that reads.
    Fetch(Fetch),
    /// Whoever wants something agreed on: the operator with this ticket, or the node itself.
    Meta(Option<u64>),
}

/// What lives as long as a turn.
pub struct Turn<'a> {
    pub core: &'a mut Core,
    pub outbox: &'a mut Outbox,
}

fn answer(outbox: &mut Outbox, origin: Origin, result: Result) {
    outbox.answers.push(Answer { origin, result });
}

/// What a command locks among some keys.
pub fn locks(command: &Command, hasher: KeyHasher) -> LockSet {
    let mut set = LockSet::default();
    for (key, exclusive) in command.access() {
        let hash = hasher.hash(&machine::key_name(key));
        set.keys.push(LockKey::new(hash, exclusive));
    }
    set
}

impl Running {
    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.server.waiting_count() + self.server.participant.count()
    }

    /// Takes a request in.
    pub fn take(&mut self, request: Request, core: &mut Core, outbox: &mut Outbox) {
        self.note_role(core, outbox);
        let leader = self.server.group.leader().map(|member| member.node().0);
        if !self.server.serves() || self.waiting() >= WAITING_MAX {
            return answer(outbox, request.origin(), Result::Refused { leader });
        }
        let is_idle = self.server.participant.is_idle();
        if request.command.is_read() {
            if self.answers_too_early(core) {
                let turn = &mut Turn { core, outbox };
                let reply = self.read(&request, turn);
                return answer(outbox, request.origin(), Result::Done(reply));
            }
            if self.server.has_gathered() && is_idle && core.once_in(2) {
                core.count(Count::Riders);
                self.gather(&request, core);
            } else {
                self.server.gather_read(request);
            }
        } else if is_idle
            || self.flaw == Flaw::SkippedLock
            || !self.server.participant.blocks(&self.locks(&request))
        {
            self.gather(&request, core);
        } else {
            core.count(Count::LockWaits);
            serve::wait(self, request);
            self.transact(core, outbox);
        }
    }

    /// Is this a server that answers reads as none should?
    fn answers_too_early(&self, core: &Core) -> bool {
        match self.flaw {
            Flaw::UnconfirmedReads => true,
            Flaw::UncheckedLease => core.plan.lease && self.server.group.lease_valid(self.began),
            _ => false,
        }
    }

    /// A request takes its place in the shard's order.
    fn gather(&mut self, request: &Request, core: &mut Core) {
        if request.command.waits() {
            return self.gather_blocked(request, core);
        }
        let (number, arguments) = machine::encode(request.operation, &request.command);
        let hasher = self.server.keyspace.hasher();
        let key = hasher.hash(&machine::key_name(request.command.keys()[0]));
        let (who, arguments) = (Who::Client(request.origin()), arguments.borrow());
        match request.command.is_read() || request.command.awaits_entries() {
            true => self.server.gather_rider(who, number, DATABASE, key, arguments),
            false => {
                self.server.gather_write(who, number, DATABASE, key, arguments);
                self.declare_behind(&request.command);
            }
        }
    }

    /// Takes a message of a transaction, and answers it when this replica does not serve.
    pub fn take_message(&mut self, message: ToShard<Reads>, core: &mut Core, outbox: &mut Outbox) {
        self.note_role(core, outbox);
        let refusal = serve::take_message(self, message);
        outbox.transactions.extend(refusal);
        self.transact(core, outbox);
    }

    /// Time passes for transactions.
    pub fn tick_participant(&mut self, core: &mut Core, outbox: &mut Outbox) {
        self.note_role(core, outbox);
        serve::tick(self);
        self.transact(core, outbox);
    }

    fn transact(&mut self, core: &mut Core, outbox: &mut Outbox) {
        let mut messages = std::mem::take(&mut outbox.transactions);
        serve::transact(self, &mut messages, &mut Turn { core, outbox });
        outbox.transactions = messages;
    }

    /// Looks whether this replica serves.
    pub fn note_role(&mut self, core: &mut Core, outbox: &mut Outbox) {
        serve::note_role(self, &mut Turn { core, outbox });
        self.transact(core, outbox);
    }

    /// The group was polled.
    pub fn polled(&mut self, out: &Output, core: &mut Core, outbox: &mut Outbox) {
        serve::polled(self, out, &mut Turn { core, outbox });
        self.transact(core, outbox);
    }

    /// What the group says of proposals and reads.
    pub fn settle(&mut self, out: &mut Output, core: &mut Core, outbox: &mut Outbox) {
        out.lost.iter().for_each(|_| core.count(Count::ProposalsLost));
        out.read_ready.iter().for_each(|_| core.count(Count::ReadBatches));
        serve::settle(self, out, &mut Turn { core, outbox });
        // Before anybody is let in who has waited for a transaction, as the server does.
        self.tend_blocked(core, outbox);
        self.transact(core, outbox);
    }

    /// What has gathered goes to the group.
    pub fn propose(&mut self, clock: MonotonicTime, core: &mut Core, outbox: &mut Outbox) {
        self.end_leased(clock, core, outbox);
        self.note_role(core, outbox);
        self.tend_blocked(core, outbox);
        if !self.server.serves() {
            return;
        }
        self.check_deadlines(core);
        self.mind_clock(core);
        // Nothing is proposed while the clock has gone back again behind a turn under way.
        let may_propose =
            self.server.may_propose() && !self.server.clock.is_overtaken(self.wall_ms);
        if may_propose && self.shard != META && core.once_in(8) {
            self.give_deadline(core);
        }
        self.stirred |= self.server.is_pressed();
        let leases = if core.plan.lease { Leases::Trusted } else { Leases::Unused };
        let wall_ms = self.wall_ms;
        let turn = &mut Turn { core, outbox };
        serve::propose(self, wall_ms, turn);
        serve::ask_for_reads(self, clock, leases, turn);
        self.check_blocked(core);
        self.transact(core, outbox);
    }

    /// Now and then a key with a deadline, which replicas must agree on whatever their clocks say.
    fn give_deadline(&mut self, core: &mut Core) {
        let lifetime = core.chance.below(250) as u8;
        let name = (1 << 63) | core.chance.bits();
        let key = [b'f', b'0' + (lifetime & 3)];
        let arguments: OwnedArguments =
            [&name.to_le_bytes()[..], &key, &[lifetime]].into_iter().collect();
        let who = Who::Own { key: usize::from(lifetime & 3), lifetime };
        let (nowhere, arguments) = (KeyHash::default(), arguments.borrow());
        self.server.gather_write(who, machine::FLEETING, DATABASE, nowhere, arguments);
    }

    /// Turns time back when the clock was, before anything else is proposed.
    fn mind_clock(&mut self, core: &mut Core) {
        self.turn_refused = false;
        if core.plan.flaw == Flaw::FallingTime {
            self.server.clock = ringraft_shards::clock::ShardClock::new(self.wall_ms);
        }
        if matches!(core.plan.flaw, Flaw::FallingTime | Flaw::StandingTime) {
            return;
        }
        match serve::mind_clock(self, self.wall_ms) {
            Minded::Well => {}
            Minded::Turning(turn) => {
                core.count(Count::TimeTurned);
                core.note(|| format!("s{} turns back: {turn:?}", self.shard));
                self.stirred = true;
            }
            Minded::Refused => self.turn_refused = true,
        }
    }

    /// Reads were executed under a lease: does it hold now, after they were?
    pub fn end_leased(&mut self, clock: MonotonicTime, core: &mut Core, outbox: &mut Outbox) {
        self.note_role(core, outbox);
        let count = self.server.leased_count();
        let held = serve::end_leased(self, clock, &mut Turn { core, outbox });
        let what = if held { Count::LeaseReads } else { Count::LeasesEnded };
        (0..count).for_each(|_| core.count(what));
    }
}
