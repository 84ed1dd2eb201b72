//! Requests of one shard, as its leader serves them: writes and records of transactions gather into one entry per turn
//! (`entries.rs`), reads into one confirmation per turn (`reads.rs`), and whoever wants what a transaction has locked
//! waits for it.

mod entries;
pub mod fleeting;
mod reads;

use std::collections::{BTreeMap, VecDeque};

use ringraft_shards::arguments::OwnedArguments;
use ringraft_shards::batch::BatchBuilder;
use ringraft_shards::ids::{Index, MonotonicTime, ShardId, Term};
use ringraft_shards::keyspace::KeyHasher;
use ringraft_shards::raft::{Output, Role};
use ringraft_shards::transaction::{
    Fetch, Fetched, Ledger, LockKey, LockSet, Message, Next, Participant, ParticipantOutput,
    Record, ToShard,
};

use crate::command::{Command, Reply};
use crate::counts::Count;
use crate::machine;
use crate::plan::Flaw;
use crate::replica::{Outbox, Running};
use crate::request::{Answer, Origin, Request, Result};
use crate::schedule::Core;

/// Entries of this replica on their way at a time; more writes gather.
const FLIGHTS_MAX: usize = 4;
/// Requests that may wait in a shard; more are refused.
pub const WAITING_MAX: usize = 256;

/// The keys that a transaction reads in a shard.
pub type Reads = Vec<Vec<u8>>;
/// What it read there.
pub type Values = Vec<Fetched>;
/// A message of a transaction.
pub type TransactionMessage = Message<Reads, Values>;
type ParticipantOut = ParticipantOutput<Reads, Values, Request>;

/// Something with a place in the shard's order.
enum Item {
    /// Part of the entry: a client's write.
    Write(Request),
    /// Part of the entry: nobody waits for it.
    Own(OwnedArguments),
    /// Part of the entry: a step of a transaction.
    Record(Record),
    /// Beside the entry: a transaction reads.
    Fetch(Fetch),
    /// Beside the entry: a client's read, which the entry confirms.
    Read(Request),
}

impl Item {
    fn is_proposed(&self) -> bool {
        matches!(self, Item::Write(_) | Item::Own(_) | Item::Record(_))
    }
}

/// A set of items on its way; without any that are proposed it waits for the one before.
struct Flight {
    index: Index,
    term: Term,
    items: Vec<Item>,
}

/// What waits for one confirmation of leadership.
#[derive(Default)]
struct Confirming {
    /// To be executed afterwards.
    reads: Vec<Request>,
    /// Executed before.
    executed: Vec<(Request, Reply)>,
    fetches: Vec<Fetch>,
}

impl Confirming {
    fn count(&self) -> usize {
        self.reads.len() + self.executed.len() + self.fetches.len()
    }
}

/// Those who wait in one shard.
pub struct Service {
    /// What is broken here on purpose.
    flaw: Flaw,
    participant: Participant<Reads, Values, Request>,
    /// The term in which this replica serves.
    leading: Option<Term>,
    gathered: Vec<Item>,
    reads: Vec<Request>,
    confirms: Vec<Fetch>,
    flights: VecDeque<Flight>,
    confirming: BTreeMap<u64, Confirming>,
    /// Reads that were executed and are answered once it is confirmed that this replica still led then.
    executed: Vec<(Request, Reply)>,
    /// Reads that wait until this index is applied.
    confirmed: VecDeque<(Index, Vec<Request>)>,
    /// Reads that were executed under a lease, and wait for a look whether it still holds.
    leased: Vec<(Request, Reply)>,
    contexts: u64,
    builder: BatchBuilder,
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

impl Service {
    pub fn new(shard: u16, flaw: Flaw) -> Service {
        Service {
            flaw,
            participant: Participant::new(ShardId(shard)),
            leading: None,
            gathered: Vec::new(),
            reads: Vec::new(),
            confirms: Vec::new(),
            flights: VecDeque::new(),
            confirming: BTreeMap::new(),
            executed: Vec::new(),
            confirmed: VecDeque::new(),
            leased: Vec::new(),
            contexts: 0,
            builder: BatchBuilder::default(),
        }
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        let flying: usize = self.flights.iter().map(|flight| flight.items.len()).sum();
        let confirming: usize = self.confirming.values().map(Confirming::count).sum();
        let confirmed: usize = self.confirmed.iter().map(|(_, reads)| reads.len()).sum();
        let new = self.gathered.len()
            + self.reads.len()
            + self.leased.len()
            + self.confirms.len()
            + self.executed.len();
        new + flying + confirming + confirmed + self.participant.count()
    }

    /// Does this replica serve?
    pub fn serves(&self) -> bool {
        self.leading.is_some()
    }

    /// Transactions and those who wait for them.
    pub fn locked(&self) -> usize {
        self.participant.count()
    }

    /// Does what a participant says.
    fn absorb(&mut self, mut out: ParticipantOut, outbox: &mut Outbox) {
        for next in out.next.drain(..) {
            match next {
                Next::Admit(request) if self.leading.is_none() => {
                    answer(outbox, request.origin(), Result::Refused { leader: None });
                }
                Next::Admit(request) if request.command.is_read() => {
                    self.gathered.push(Item::Read(request));
                }
                Next::Admit(request) => self.gathered.push(Item::Write(request)),
                Next::Fetch(fetch) => self.gathered.push(Item::Fetch(fetch)),
            }
        }
        self.gathered.extend(out.records.drain(..).map(Item::Record));
        self.confirms.append(&mut out.confirms);
        outbox.transactions.append(&mut out.messages);
    }

    fn has_locks_in_the_way(&self, request: &Request, hasher: KeyHasher, core: &Core) -> bool {
        if self.participant.is_idle() || core.plan.flaw == Flaw::SkippedLock {
            return false;
        }
        let set = locks(&request.command, hasher);
        if request.command.is_read() {
            return set.keys.iter().any(|key| self.participant.is_held(key.hash));
        }
        self.participant.blocks(&set)
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
            let waiting = self.confirming.remove(&read.context).expect("it was asked for");
            self.confirmed.push_back((read.index, waiting.reads));
            for (request, reply) in waiting.executed {
                answer(outbox, request.origin(), Result::Done(reply));
            }
            self.confirm(waiting.fetches, true, outbox);
        }
        for context in out.read_failed.drain(..) {
            let waiting = self.confirming.remove(&context).expect("it was asked for");
            self.confirm(waiting.fetches, false, outbox);
            let executed = waiting.executed.into_iter().map(|(request, _)| request);
            for request in waiting.reads.into_iter().chain(executed) {
                answer(outbox, request.origin(), Result::Refused { leader: None });
            }
        }
    }

    fn confirm(&mut self, fetches: Vec<Fetch>, leads: bool, outbox: &mut Outbox) {
        let mut out = ParticipantOut::default();
        for fetch in fetches {
            self.participant.confirmed(fetch, leads, &mut out);
        }
        self.absorb(out, outbox);
    }

    /// What was proposed at this place, and what waits behind it, comes to nothing.
    fn end_flight(&mut self, index: Index, term: Term, result: Result, outbox: &mut Outbox) {
        let same = |flight: &Flight| flight.index == index && flight.term == term;
        while let Some(at) = self.flights.iter().position(same) {
            let flight = self.flights.remove(at).expect("just found");
            for item in flight.items {
                match item {
                    Item::Write(request) => answer(outbox, request.origin(), result.clone()),
                    Item::Read(request) => {
                        answer(outbox, request.origin(), Result::Refused { leader: None });
                    }
                    // The leadership that they belonged to is over.
                    Item::Own(_) | Item::Record(_) | Item::Fetch(_) => {}
                }
            }
        }
    }
}

impl Running {
    /// Takes a request in.
    pub fn take(&mut self, request: Request, core: &mut Core, outbox: &mut Outbox) {
        self.note_role(outbox);
        let leader = self.group.leader().map(|node| node.0);
        let service = &mut self.service;
        if service.leading.is_none() || service.waiting() >= WAITING_MAX {
            return answer(outbox, request.origin(), Result::Refused { leader });
        }
        if request.command.is_read() {
            let rides = !service.gathered.is_empty() && service.participant.is_idle();
            if rides && core.once_in(2) {
                core.count(Count::Riders);
                service.gathered.push(Item::Read(request));
            } else {
                service.reads.push(request);
            }
        } else if service.has_locks_in_the_way(&request, self.keyspace.hasher(), core) {
            self.wait(request, core, outbox);
        } else {
            service.gathered.push(Item::Write(request));
        }
    }

    /// A request waits for what transactions have locked.
    fn wait(&mut self, request: Request, core: &mut Core, outbox: &mut Outbox) {
        core.count(Count::LockWaits);
        let set = locks(&request.command, self.keyspace.hasher());
        // Clients have nothing else under way: only age decides.
        let after = self.clock.latest_ms() as u64 * 1_000_000;
        let mut out = ParticipantOut::default();
        self.service.participant.wait(set, after, request, &mut out);
        self.service.absorb(out, outbox);
    }

    /// Takes a message of a transaction, and answers it when this replica does not serve.
    pub fn take_message(&mut self, shard: u16, message: ToShard<Reads>, outbox: &mut Outbox) {
        self.note_role(outbox);
        if self.service.leading.is_none() {
            outbox.transactions.extend(message.refusal(ShardId(shard)));
            return;
        }
        let mut out = ParticipantOut::default();
        self.service.participant.handle(message, self.keyspace.ledger(), &mut out);
        self.service.absorb(out, outbox);
    }

    /// Time passes for transactions.
    pub fn tick_participant(&mut self, outbox: &mut Outbox) {
        self.note_role(outbox);
        if self.service.leading.is_some() {
            let mut out = ParticipantOut::default();
            self.service.participant.tick(self.keyspace.ledger(), &mut out);
            self.service.absorb(out, outbox);
        }
    }

    /// Looks whether this replica serves: it leads, and everything committed is applied.
    pub fn note_role(&mut self, outbox: &mut Outbox) {
        let (leads, term) = (self.group.role() == Role::Leader, self.group.term());
        if self.service.leading.is_some_and(|leading| !leads || leading != term) {
            self.service.leading = None;
            self.clock.step_down();
            let mut out = ParticipantOut::default();
            self.service.participant.step_down(&mut out);
            self.service.absorb(out, outbox);
            for item in self.service.gathered.drain(..) {
                if let Item::Write(request) | Item::Read(request) = item {
                    answer(outbox, request.origin(), Result::Refused { leader: None });
                }
            }
            self.service.confirms.clear();
            let leased = self.service.leased.drain(..).chain(self.service.executed.drain(..));
            let leased = leased.map(|(request, _)| request);
            for request in self.service.reads.drain(..).chain(leased) {
                answer(outbox, request.origin(), Result::Refused { leader: None });
            }
        }
        let members = self.group.membership();
        let alone = members.voters.len() == 1 && !members.is_joint();
        if self.service.leading.is_some() {
            self.service.participant.set_alone(alone);
        } else if self.group.is_ready_to_read()
            && self.group.applied_index() >= self.group.commit_index()
        {
            self.service.leading = Some(term);
            self.hint = None;
            let forgets = self.service.flaw == Flaw::ForgottenLocks;
            let nothing = Ledger::default();
            let ledger = if forgets { &nothing } else { self.keyspace.ledger() };
            self.service.participant.lead(ledger, alone);
        }
    }

    /// What has gathered goes to the group.
    pub fn propose(&mut self, clock: MonotonicTime, core: &mut Core, outbox: &mut Outbox) {
        self.end_leased(clock, core, outbox);
        self.note_role(outbox);
        if self.service.leading.is_none() {
            return;
        }
        self.check_deadlines(core);
        self.mind_clock(core);
        if !self.service.gathered.is_empty() && self.service.flights.len() < FLIGHTS_MAX {
            let items = std::mem::take(&mut self.service.gathered);
            self.propose_set(items, core, outbox);
        }
        let service = &self.service;
        let executed = service.reads.len() + service.executed.len();
        if executed > 0 || !service.confirms.is_empty() {
            self.ask_for_reads(clock, core, outbox);
        }
    }

    /// Is there something that a turn of its own should see to?
    pub fn is_pressed(&self) -> bool {
        let room = self.service.flights.len() < FLIGHTS_MAX;
        let waits = !self.service.confirms.is_empty()
            || !self.service.leased.is_empty()
            || !self.service.executed.is_empty();
        (room && !self.service.gathered.is_empty()) || waits
    }
}
