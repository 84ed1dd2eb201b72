//! Entries: what has gathered is proposed in one, and run when it is committed, with what has its place beside it.

use ringraft_shards::arguments::{Arguments, OwnedArguments};
use ringraft_shards::batch::{Batch, Operation};
use ringraft_shards::clock::ShardClock;
use ringraft_shards::ids::{Index, Term};
use ringraft_shards::keyspace::{Edit, Key, KeyHash};
use ringraft_shards::raft::{CommittedEntry, ProposeError};
use ringraft_shards::transaction::{self, Applied, Fetch, Fetched, FetchedItem, RECORD};

use super::{Flight, Item, ParticipantOut, answer, fleeting};
use crate::command::Reply;
use crate::machine::{self, DATABASE};
use crate::plan::Flaw;
use crate::replica::{Outbox, Running};
use crate::request::Result;
use crate::schedule::Core;
impl Running {
    pub(super) fn propose_set(
        &mut self,
        mut items: Vec<Item>,
        core: &mut Core,
        outbox: &mut Outbox,
    ) {
        if !items.iter().any(Item::is_proposed) {
            match self.service.flights.back() {
                Some(last) => {
                    let (index, term) = (last.index, last.term);
                    self.service.flights.push_back(Flight { index, term, items });
                }
                None => self.run_items(items, None, false, core, outbox),
            }
            return;
        }
        // Now and then a key with a deadline, which replicas must agree on whatever their clocks say.
        let mut given = None;
        if core.once_in(8) {
            let lifetime = core.chance.below(250) as u8;
            given = Some((usize::from(lifetime & 3), lifetime));
            let name = (1 << 63) | core.chance.bits();
            let key = [b'f', b'0' + (lifetime & 3)];
            let arguments: OwnedArguments =
                [&name.to_le_bytes()[..], &key, &[lifetime]].into_iter().collect();
            items.push(Item::Own(arguments));
        }
        let hasher = self.keyspace.hasher();
        let builder = &mut self.service.builder;
        builder.clear();
        for item in &items {
            let nowhere = KeyHash::default();
            match item {
                Item::Write(request) => {
                    let (number, arguments) = machine::encode(request.operation, &request.command);
                    let key = hasher.hash(&machine::key_name(request.command.keys()[0]));
                    builder.push(number, DATABASE, key, arguments.borrow());
                }
                Item::Own(arguments) => {
                    builder.push(machine::FLEETING, DATABASE, nowhere, arguments.borrow());
                }
                Item::Record(record) => {
                    builder.push(RECORD, DATABASE, nowhere, record.arguments().borrow());
                }
                Item::Fetch(_) | Item::Read(_) => {}
            }
        }
        let data = builder.encode(self.clock.entry_ms(self.wall_ms), core.chance.bits());
        self.stirred = true;
        match self.group.propose(data) {
            Ok(proposal) => {
                let (index, term) = (proposal.index, proposal.term);
                self.service.flights.push_back(Flight { index, term, items });
                if let Some((key, lifetime)) = given {
                    self.note_given(key, lifetime, index, term);
                }
            }
            Err(error) => self.refuse(items, &error, core, outbox),
        }
    }

    /// Nothing of a set was proposed; what is beside the entry still has its place.
    fn refuse(
        &mut self,
        items: Vec<Item>,
        error: &ProposeError,
        core: &mut Core,
        outbox: &mut Outbox,
    ) {
        let leader = match error {
            ProposeError::NotLeader { leader } => leader.map(|node| node.0),
            _ => None,
        };
        let mut out = ParticipantOut::default();
        let mut rest = Vec::new();
        for item in items {
            match item {
                Item::Write(request) => {
                    answer(outbox, request.origin(), Result::Refused { leader });
                }
                Item::Own(_) => {}
                Item::Record(record) => {
                    let reason = error.to_string();
                    self.service.participant.not_proposed(record, &reason, &mut out);
                }
                Item::Fetch(_) | Item::Read(_) => rest.push(item),
            }
        }
        if !rest.is_empty() {
            self.propose_set(rest, core, outbox);
        }
        self.service.absorb(out, outbox);
    }

    /// A batch was committed: applies it, and answers those who wait for it.
    pub fn apply_batch(&mut self, entry: &CommittedEntry, core: &mut Core, outbox: &mut Outbox) {
        let batch = Batch::read(&entry.data).expect("a committed entry is a batch");
        match core.plan.flaw {
            Flaw::FallingTime => self.clock = ShardClock::new(batch.leader_time_ms()),
            _ => self.clock.applied(batch.leader_time_ms()),
        }
        let ours = |flight: &Flight| flight.index == entry.index && flight.term == entry.term;
        let Some(at) = self.service.flights.iter().position(ours) else {
            if self.service.serves() {
                self.hint(core);
            }
            for place in 0..batch.count() {
                self.execute(batch, place, entry.index, core);
            }
            self.check_applied(entry.index, entry.term, batch.leader_time_ms(), core);
            if let Some(turned) = self.keyspace.take_turned() {
                self.clock.turned_back(turned.to_ms);
            }
            return;
        };
        let flight = self.service.flights.remove(at).expect("just found");
        let place = (entry.term, entry.index);
        self.run_items(flight.items, Some((batch, place)), true, core, outbox);
        self.check_applied(entry.index, entry.term, batch.leader_time_ms(), core);
        while self.service.flights.get(at).is_some_and(ours) {
            let flight = self.service.flights.remove(at).expect("just seen");
            self.run_items(flight.items, None, true, core, outbox);
        }
    }

    fn run_items(
        &mut self,
        items: Vec<Item>,
        batch: Option<(Batch<'_>, (Term, Index))>,
        confirmed: bool,
        core: &mut Core,
        outbox: &mut Outbox,
    ) {
        if self.service.serves() {
            self.hint(core);
        }
        let mut place = 0;
        let mut out = ParticipantOut::default();
        for item in items {
            let mut executed = None;
            if item.is_proposed() {
                let (batch, (_, index)) = batch.expect("what is proposed comes with its batch");
                executed = Some(self.execute(batch, place, index, core));
                place += 1;
            }
            match (item, executed) {
                (Item::Write(request), Some(Executed::Command(reply))) => {
                    core.note(|| format!("#{} executed: {reply}", request.operation));
                    answer(outbox, request.origin(), Result::Done(reply));
                }
                (Item::Record(_), Some(Executed::Record(applied))) => {
                    let leading = self.service.leading;
                    if leading.is_some() && leading == batch.map(|(_, (term, _))| term) {
                        self.service.participant.applied(&applied, &mut out);
                    }
                }
                (Item::Own(_), _) => {}
                (Item::Fetch(fetch), _) => self.fetch(fetch, &mut out),
                (Item::Read(request), _) => {
                    let reply = self.read(&request, core);
                    if confirmed {
                        answer(outbox, request.origin(), Result::Done(reply));
                    } else {
                        self.service.executed.push((request, reply));
                    }
                }
                _ => unreachable!("records are records, commands commands"),
            }
        }
        self.service.absorb(out, outbox);
        assert!(batch.is_none_or(|(batch, _)| batch.count() == place), "every operation is run");
    }

    fn execute(
        &mut self,
        batch: Batch<'_>,
        place: usize,
        index: Index,
        core: &mut Core,
    ) -> Executed {
        let (operation, arguments) = batch.operation(place);
        let number = operation.command();
        let serves = self.service.serves();
        let mut edit = self.keyspace.edit(DATABASE, batch.leader_time_ms());
        if number != RECORD {
            let name = arguments.at(0).try_into().expect("names are 8 bytes");
            let name = u64::from_le_bytes(name);
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
    fn fetch(&mut self, fetch: Fetch, out: &mut ParticipantOut) {
        let service = &mut self.service;
        let Some(keys) = service.participant.fetching(fetch) else { return };
        let view = self.keyspace.view(DATABASE, self.clock.read_ms(self.wall_ms));
        let copy = |key: &Vec<u8>| {
            let item = view.get(&Key::new(key, view.hasher().hash(key)));
            let item = item.map(|item| FetchedItem::copy(item, true));
            Fetched { database: DATABASE, key: key.clone(), item }
        };
        let values = keys.iter().map(copy).collect();
        service.participant.fetched(fetch, Ok(values), out);
    }
}

/// What an operation of a batch led to.
enum Executed {
    Command(Reply),
    Record(Applied),
}
