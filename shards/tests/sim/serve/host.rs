//! What the engine's server asks of the simulation's machine, and how it answers clients.

use bytes::Bytes;
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use ringraft_shards::batch::{Batch, BatchBuilder, Operation};
use ringraft_shards::clock::ShardClock;
use ringraft_shards::ids::{DatabaseIndex, Index};
use ringraft_shards::keyspace::{Edit, Key, KeyHash};
use ringraft_shards::limits::STRING_BYTES_DEFAULT;
use ringraft_shards::meta::{Outcome, keep_entry, keep_founded};
use ringraft_shards::raft::{CommittedEntry, Proposal, ProposeError};
use ringraft_shards::serve::{Fate, Host, Server, Set, waits};
use ringraft_shards::transaction::{
    self, Applied, Fetch, Fetched, FetchedItem, Ledger, LockSet, Participant, RECORD, Record,
};

use super::blocked::{self, ServedOne};
use super::{Reads, Turn, Values, Who, answer, fleeting, locks};
use crate::command::Reply;
use crate::machine::{self, DATABASE};
use crate::members::Told;
use crate::plan::Flaw;
use crate::replica::Running;
use crate::request::{Origin, Request, Result};
use crate::schedule::Core;

/// What an operation of a batch led to.
enum Executed {
    Command(Reply),
    Record(Applied),
    Served(Vec<ServedOne>),
    Agreed(Outcome),
}

impl Host for Running {
    type Who = Who;
    type Kept = Request;
    type Ask = Reads;
    type Found = Values;
    type Reply = Reply;
    /// WATCH is not simulated.
    type Guard = std::convert::Infallible;
    type Turn<'a> = Turn<'a>;

    fn server(&self) -> &Server<Running> {
        &self.server
    }

    fn server_mut(&mut self) -> &mut Server<Running> {
        &mut self.server
    }

    fn random(&mut self) -> u64 {
        self.chance.bits()
    }

    fn string_bytes_max(&self) -> usize {
        STRING_BYTES_DEFAULT
    }

    fn is_step(who: &Who) -> bool {
        matches!(who, Who::Record | Who::Fetch(_))
    }

    fn shrinks(&self, who: &Who, arguments: Arguments<'_>) -> bool {
        match who {
            Who::Record => !matches!(Record::read(arguments), Some(Record::Prepare { .. })),
            Who::Serve => blocked::shrinks(arguments),
            _ => false,
        }
    }

    fn push_turn_back(&self, batch: &mut BatchBuilder, to_ms: i64) {
        // No operation of a client has this name, and no other of these: time may go back to the
        // same moment again.
        let (term, last) = (self.server.group.term().0, self.server.group.last_index().0);
        let name = (1 << 63 | term << 32 | last).to_le_bytes();
        let words = [&name[..], &to_ms.to_le_bytes()];
        batch.push_each(machine::TURN_BACK, DATABASE, KeyHash::default(), words.into_iter());
    }

    fn gather_fetch(&mut self, fetch: Fetch) {
        let (none, nowhere) = (OwnedArguments::default(), KeyHash::default());
        let who = Who::Fetch(fetch);
        self.server.gather_rider(who, machine::FETCH, DATABASE, nowhere, none.borrow());
    }

    fn gather_record(&mut self, record: &Record) {
        let (arguments, nowhere) = (record.arguments(), KeyHash::default());
        self.server.gather_write(Who::Record, RECORD, DATABASE, nowhere, arguments.borrow());
    }

    fn locks(&self, request: &Request) -> LockSet {
        locks(&request.command, self.server.keyspace.hasher())
    }

    fn is_held_up(&self, request: &Request) -> bool {
        let participant = &self.server.participant;
        if participant.is_idle() || self.flaw == Flaw::SkippedLock {
            return false;
        }
        self.locks(request).keys.iter().any(|key| participant.is_held(key.hash))
    }

    fn last_lock(&self, _: &Request) -> u64 {
        // Clients have nothing else under way: only age decides.
        self.server.clock.latest_ms() as u64 * 1_000_000
    }

    fn who(request: &Request) -> Who {
        Who::Client(request.origin())
    }

    fn admit(&mut self, request: Request, turn: &mut Turn<'_>) {
        self.gather(&request, turn.core);
    }

    fn resolve(&mut self, guard: &Self::Guard, _: i64) -> bool {
        match *guard {}
    }

    fn guard_failed(&mut self, _: &Who, _: &mut Turn<'_>) {
        unreachable!("WATCH is not simulated");
    }

    fn serve_postponed(&mut self) {
        waits::serve_postponed(self);
    }

    fn awaits_any(&self) -> bool {
        !waits::Waits::waiters(self).is_empty()
    }

    fn forget_served(&mut self, set: &mut Set<Running>) {
        if self.flaw != Flaw::ServedAgain {
            waits::forget_served(self, set);
        }
    }

    fn proposed(&mut self, set: &Set<Running>, proposal: Proposal) {
        for waiting in &set.order {
            if let Who::Own { key, lifetime } = waiting.who {
                self.note_given(key, lifetime, proposal.index, proposal.term);
            }
        }
    }

    fn begin_entry(&mut self, _: &CommittedEntry, batch: &Batch<'_>) {
        self.server.keyspace.begin_entry();
        if self.flaw == Flaw::FallingTime {
            self.server.clock = ShardClock::new(batch.leader_time_ms());
        }
    }

    fn run(
        &mut self,
        set: &Set<Running>,
        entry: Option<(&CommittedEntry, Batch<'_>)>,
        turn: &mut Turn<'_>,
    ) {
        let batch = entry.as_ref().map(|(_, batch)| *batch);
        if self.server.serves() {
            self.hint(turn.core);
        }
        for waiting in &set.order {
            let (operation, arguments) = set.operation(waiting, batch.as_ref());
            let executed = entry.filter(|_| waiting.proposed).map(|(entry, batch)| {
                self.execute(batch, waiting.place as usize, entry.index, turn.core)
            });
            match (waiting.who, executed) {
                (Who::Client(origin), Some(Executed::Command(reply))) => {
                    turn.core.note(|| format!("#{} executed: {reply}", origin.operation));
                    answer(turn.outbox, origin, Result::Done(reply));
                }
                (Who::Client(origin), None) => {
                    if let Some(reply) = self.read_or_wait(operation, origin, arguments, turn.core)
                    {
                        answer(turn.outbox, origin, Result::Done(reply));
                    }
                }
                (Who::Record, Some(Executed::Record(applied))) => {
                    self.server.record_applied(&applied);
                }
                (Who::Serve, Some(Executed::Served(served))) => {
                    self.answer_served(served, turn.core, turn.outbox);
                }
                (Who::Meta(ticket), Some(Executed::Agreed(outcome))) => {
                    let told = ticket.map(|ticket| (ticket, self.tell_agreed(outcome)));
                    turn.outbox.told.extend(told);
                }
                (Who::Own { .. }, Some(_)) => {}
                (Who::Fetch(fetch), None) => self.fetch(fetch),
                _ => unreachable!("records are records, commands commands"),
            }
            self.serve_readers(turn.core, turn.outbox);
        }
        if let Some((entry, batch)) = entry {
            self.check_applied(entry.index, entry.term, batch.leader_time_ms(), turn.core);
        }
    }

    fn run_withheld(
        &mut self,
        set: &Set<Running>,
        replies: &mut Vec<(Who, Reply)>,
        turn: &mut Turn<'_>,
    ) {
        self.hint(turn.core);
        for waiting in &set.order {
            let (operation, arguments) = set.operation(waiting, None);
            match waiting.who {
                Who::Fetch(fetch) => self.fetch(fetch),
                who => {
                    let Who::Client(origin) = who else { unreachable!("only clients read") };
                    let reply = self.read_or_wait(operation, origin, arguments, turn.core);
                    replies.extend(reply.map(|reply| (who, reply)));
                }
            }
        }
    }

    fn replay(&mut self, entry: &CommittedEntry, batch: Batch<'_>, turn: &mut Turn<'_>) {
        if self.server.serves() {
            self.hint(turn.core);
        }
        for place in 0..batch.count() {
            self.execute(batch, place, entry.index, turn.core);
        }
        self.check_applied(entry.index, entry.term, batch.leader_time_ms(), turn.core);
    }

    fn turned_back(&mut self, _: usize, _: &mut Turn<'_>) {}

    fn read(&mut self, request: &Request, turn: &mut Turn<'_>) -> Reply {
        let (number, arguments) = machine::encode(request.operation, &request.command);
        self.read_now(number, arguments.borrow(), turn.core)
    }

    fn answer(&mut self, who: Who, reply: Reply, turn: &mut Turn<'_>) {
        let Who::Client(origin) = who else { unreachable!("only clients read") };
        answer(turn.outbox, origin, Result::Done(reply));
    }

    fn fail(
        &mut self,
        who: &Who,
        asked: Option<(DatabaseIndex, Arguments<'_>)>,
        fate: Fate<'_>,
        turn: &mut Turn<'_>,
    ) {
        let result = match fate {
            Fate::NotLeader { leader } | Fate::Refused(&ProposeError::NotLeader { leader }) => {
                Result::Refused { leader: leader.map(|member| member.node().0) }
            }
            Fate::Refused(_) | Fate::Lost => Result::Refused { leader: None },
            Fate::Unknown => Result::Unknown,
        };
        match (*who, asked) {
            (Who::Client(origin), _) => answer(turn.outbox, origin, result),
            (Who::Meta(Some(ticket)), _) => {
                let told = match result {
                    Result::Unknown => Told::Unknown,
                    _ => Told::Refused,
                };
                turn.outbox.told.push((ticket, told));
            }
            (Who::Serve, Some((_, operation))) => {
                self.serve_refused(operation, result, turn.outbox);
            }
            _ => {}
        }
    }

    fn leads(&mut self) {
        self.hint = None;
        if self.flaw == Flaw::ForgottenLocks {
            let server = &mut self.server;
            server.participant = Participant::new(server.id);
            server.participant.lead(&Ledger::default(), server.is_alone());
        }
    }

    fn deposed(&mut self, _: &mut Turn<'_>) {
        self.dissolve_later();
    }
}

/// The meta group takes something in.
fn agree(edit: &mut Edit<'_>, number: u16, bytes: &[u8], twice: bool) -> Outcome {
    let bytes = Bytes::copy_from_slice(bytes);
    if number == machine::META_FOUND {
        keep_founded(edit, bytes);
        return Outcome::Done;
    }
    if twice {
        let _ = keep_entry(edit, bytes.clone());
    }
    keep_entry(edit, bytes).expect("nobody proposes entries before it is founded")
}

impl Running {
    fn execute(
        &mut self,
        batch: Batch<'_>,
        place: usize,
        index: Index,
        core: &mut Core,
    ) -> Executed {
        let (operation, arguments) = batch.operation(place);
        let number = operation.command();
        let serves = self.server.serves();
        let mut edit = self.server.keyspace.edit(DATABASE, batch.leader_time_ms());
        if number == machine::SERVE {
            let served = blocked::serve(&mut edit, arguments, (self.shard, index), core);
            return Executed::Served(served);
        }
        if matches!(number, machine::META_FOUND | machine::META_ENTRY) {
            let twice = self.flaw == Flaw::TakenTwice && !self.has_applied;
            return Executed::Agreed(agree(&mut edit, number, arguments.at(0), twice));
        }
        if number != RECORD {
            let name = machine::operation_of(arguments);
            let hint = core.audit.operation(self.shard, name, index.0, serves);
            self.hint = self.hint.max(Some(hint));
            if number == machine::FLEETING {
                self.fleeting.set(fleeting::number(arguments.at(1)));
            }
            return Executed::Command(machine::run(&mut edit, number, arguments.tail(1)));
        }
        let run_one = &mut |edit: &mut Edit<'_>, _, inner: &Operation, arguments: Arguments<'_>| {
            machine::run(edit, inner.command(), arguments.tail(1));
        };
        let applied = transaction::apply(&mut edit, arguments, run_one);
        if let Applied::Committed(id) = applied {
            let hint = core.audit.committed(id, self.shard, index.0, serves);
            self.hint = self.hint.max(Some(hint));
        }
        core.note(|| format!("{applied:?}"));
        Executed::Record(applied)
    }

    /// Reads for a transaction.
    fn fetch(&mut self, fetch: Fetch) {
        let server = &mut self.server;
        let Some(keys) = server.participant.fetching(fetch) else { return };
        let view = server.keyspace.view(DATABASE, server.clock.read_ms(self.wall_ms));
        let copy = |key: &Vec<u8>| {
            let item = view.get(&Key::new(key, view.hasher().hash(key)));
            let item = item.map(|item| FetchedItem::copy(item, true));
            Fetched { database: DATABASE, key: key.clone(), item }
        };
        let values = keys.iter().map(copy).collect();
        server.participant.fetched(fetch, Ok(values), &mut server.wanted);
    }

    /// Up to which operation this leader's state holds some.
    pub fn hint(&mut self, core: &mut Core) -> u64 {
        let applied = self.server.group.applied_index().0;
        *self.hint.get_or_insert_with(|| core.audit.serves(self.shard, applied))
    }

    /// Without a reply it waits.
    fn read_or_wait(
        &mut self,
        operation: &Operation,
        origin: Origin,
        arguments: Arguments<'_>,
        core: &mut Core,
    ) -> Option<Reply> {
        match operation.command() {
            machine::AWAIT_ENTRIES => self.await_entries(origin, arguments, core),
            number => Some(self.read_now(number, arguments, core)),
        }
    }

    fn read_now(&mut self, number: u16, arguments: Arguments<'_>, core: &mut Core) -> Reply {
        let (operation, hint) = (machine::operation_of(arguments), self.hint(core));
        let server = &self.server;
        let view = server.keyspace.view(DATABASE, server.clock.read_ms(self.wall_ms));
        let reply = machine::read(&view, number, arguments.tail(1));
        core.audit.read(operation, hint);
        core.note(|| format!("#{operation} read: {reply}"));
        reply
    }
}
