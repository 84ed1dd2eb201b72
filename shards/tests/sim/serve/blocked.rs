//! Commands that wait for queues: the engine's own [`waits`], with the machine's commands.
//!
//! What is looked at here besides, at every leader: whoever came first at a key is served first,
//! and nobody waits beside a queue that has something once nothing is under way any more.

use ringraft_shards::arguments::{Arguments, OwnedArguments};
use ringraft_shards::ids::{DatabaseIndex, Index};
use ringraft_shards::keyspace::{Edit, Key, KeyHash, View};
use ringraft_shards::serve::waits::{self, Serving, Waits};
use ringraft_shards::waiting::{Declared, Ending, Ticket, WaitKey, Waiters};
use std::collections::BTreeSet;

use super::{Who, answer};
use crate::command::{Command, Reply};
use crate::counts::Count;
use crate::machine::{self, DATABASE};
use crate::plan::Flaw;
use crate::queues;
use crate::replica::{Outbox, Running};
use crate::request::{Origin, Request, Result};
use crate::schedule::Core;

/// How long a command waits at most.
const WAIT_US_MAX: u64 = 120_000;

/// A command that waits.
pub struct Blocked {
    origin: Origin,
    number: u16,
    arguments: OwnedArguments,
}

/// The same as the checks know it, in order of arrival.
struct Arrival {
    origin: Origin,
    keys: Vec<WaitKey>,
    until_us: u64,
}

/// All that wait in a shard.
#[derive(Default)]
pub struct Blocks {
    waiters: Waiters<u64, Blocked, ()>,
    arrivals: Vec<Arrival>,
    is_deposed: bool,
    /// Where somebody could not be served because the disk was full: who takes less room than
    /// those before may be served first then.
    refused: BTreeSet<WaitKey>,
}

/// What an operation has served: ticket, element, and the queue where it was its turn. It takes
/// what is in the first of its queues all the same, as in Redis 7.2.
pub type ServedOne = (Ticket, Vec<u8>, WaitKey);

/// How commands are run that an operation serves.
struct Serve<'a> {
    core: &'a mut Core,
    place: queues::Place,
    /// Where the operation serves; nowhere when it is a first try.
    at: Option<WaitKey>,
    from: Option<WaitKey>,
    served: Vec<ServedOne>,
}

/// The queues that a command waits for.
fn awaited(number: u16, arguments: Arguments<'_>) -> Vec<WaitKey> {
    let count = if number == machine::MOVE { 1 } else { usize::MAX };
    arguments.iter_from(1).take(count).map(queues::awaited).collect()
}

impl Serving for Serve<'_> {
    fn keys(&self, declared: &Declared) -> Vec<WaitKey> {
        awaited(declared.command, declared.arguments.borrow())
    }

    fn has(&self, view: &View<'_>, key: &WaitKey) -> bool {
        queues::has(view, key)
    }

    fn run(
        &mut self,
        edit: &mut Edit<'_>,
        declared: &Declared,
        nth: Option<usize>,
    ) -> Option<Vec<u8>> {
        let hasher = edit.view().hasher();
        for key in self.keys(declared) {
            let name = Key::new(&key.bytes, hasher.hash(&key.bytes));
            let Some(element) = queues::pop(edit, &name) else { continue };
            if declared.command == machine::MOVE {
                let to = declared.arguments.borrow().at(2).to_vec();
                queues::push(edit, &Key::new(&to, hasher.hash(&to)), &element);
            }
            if nth.is_some() {
                self.core.count(Count::ServedLater);
            }
            self.from = Some(key);
            return Some(element);
        }
        None
    }

    fn served(&mut self, _: &mut Edit<'_>, ticket: Ticket, declared: &Declared, reply: Vec<u8>) {
        let operation = machine::operation_of(declared.arguments.borrow());
        let is_moved = declared.command == machine::MOVE;
        let audit = &mut self.core.audit;
        if let Err(failure) = audit.served.note(operation, self.place, &reply, is_moved) {
            audit.fail(|| failure);
        }
        let from = self.from.take().expect("it was just popped");
        self.served.push((ticket, reply, self.at.clone().unwrap_or(from)));
    }
}

/// Applies an operation that serves.
pub fn serve(
    edit: &mut Edit<'_>,
    arguments: Arguments<'_>,
    place: (u16, Index),
    core: &mut Core,
) -> Vec<ServedOne> {
    let (at, place) = (WaitKey::decode(arguments.at(1)), (place.0, place.1.0));
    let mut serve = Serve { core, place, at, from: None, served: Vec::new() };
    waits::serve(edit, arguments, &mut serve);
    serve.served
}

impl Waits for Running {
    type Asker = u64;
    type Waiting = Blocked;
    type End = ();

    fn waiters(&self) -> &Waiters<u64, Blocked, ()> {
        &self.blocks.waiters
    }

    fn waiters_mut(&mut self) -> &mut Waiters<u64, Blocked, ()> {
        &mut self.blocks.waiters
    }

    fn declared(&self, blocked: &Blocked) -> Declared {
        Declared {
            command: blocked.number,
            manner: 0,
            database: DATABASE,
            arguments: blocked.arguments.clone(),
            stamp: None,
        }
    }

    fn gather_serving(&mut self, operation: Arguments<'_>) {
        let (number, nowhere) = (machine::SERVE, KeyHash::default());
        self.server.gather_beside(Who::Serve, number, DatabaseIndex(0), nowhere, operation);
    }

    fn is_serving(who: &Who) -> bool {
        matches!(who, Who::Serve)
    }

    fn has(view: &View<'_>, key: &WaitKey) -> bool {
        queues::has(view, key)
    }

    fn also_filled(&self, blocked: &Blocked) -> Vec<(DatabaseIndex, Vec<u8>)> {
        let is_move = blocked.number == machine::MOVE;
        let others = blocked.arguments.borrow().iter_from(2).filter(|_| is_move);
        others.map(|key| (DATABASE, key.to_vec())).collect()
    }
}

/// Can an operation that serves only make the data smaller?
pub fn shrinks(operation: Arguments<'_>) -> bool {
    let mut grows = false;
    waits::each_declared(operation, |_, declared| grows |= declared.command == machine::MOVE);
    !grows
}

impl Running {
    /// A command that may wait takes its place in the order.
    pub(super) fn gather_blocked(&mut self, request: &Request, core: &mut Core) {
        let (number, arguments) = machine::encode(request.operation, &request.command);
        let (origin, keys) = (request.origin(), awaited(number, arguments.borrow()));
        let until_us = core.now_us + core.chance.below(WAIT_US_MAX);
        self.blocks.arrivals.push(Arrival { origin, keys: keys.clone(), until_us });
        core.count(Count::Waits);
        core.note(|| format!("s{}: #{} may wait", self.shard, origin.operation));
        waits::begin(self, origin.attempt, keys, Blocked { origin, number, arguments });
    }

    /// A write stands in the newest set: behind it stands what serves those who wait for what it
    /// fills.
    pub(super) fn declare_behind(&mut self, command: &Command) {
        if !self.blocks.waiters.is_empty() && command.is_queue() && self.flaw != Flaw::Overtaking {
            for key in command.keys() {
                waits::serve_behind(self, DATABASE, &machine::key_name(key), 1);
            }
        }
    }

    /// Answers whom an entry of this leader's has served.
    pub(super) fn answer_served(
        &mut self,
        served: Vec<ServedOne>,
        core: &mut Core,
        outbox: &mut Outbox,
    ) {
        for (ticket, element, at) in served {
            let Some(Blocked { origin, .. }) = waits::take_served(self, ticket) else { continue };
            let before = self.blocks.arrivals.iter().take_while(|one| !one.is(origin));
            // What commands that waited bring back to a queue that was served already is served by
            // the next entry.
            let was_moved = core.audit.served.was_moved(&element, origin.operation);
            let was_refused = self.blocks.refused.contains(&at);
            if let Some(other) = before.into_iter().find(|one| one.keys.contains(&at))
                && !was_moved
                && !was_refused
            {
                let (first, second) = (other.origin.operation, origin.operation);
                core.audit.fail(|| format!("#{second} is served before #{first}, at {at:?}"));
            }
            self.end_arrival(origin);
            core.note(|| format!("#{} is served {}", origin.operation, element.escape_ascii()));
            answer(outbox, origin, Result::Done(Reply::Bytes(element)));
        }
    }

    fn end_arrival(&mut self, origin: Origin) {
        self.blocks.arrivals.retain(|one| !one.is(origin));
    }

    /// What serves could not be proposed.
    pub(super) fn serve_refused(
        &mut self,
        operation: Arguments<'_>,
        result: Result,
        outbox: &mut Outbox,
    ) {
        self.blocks.refused.extend(WaitKey::decode(operation.at(1)));
        if let Some(Blocked { origin, .. }) = waits::refused(self, operation) {
            self.end_arrival(origin);
            answer(outbox, origin, result);
        }
    }

    /// This replica leads no more.
    pub(super) fn dissolve_later(&mut self) {
        self.blocks.is_deposed = true;
    }

    /// Serves those who wait for what has something, and answers those who waited in vain.
    pub(super) fn tend_blocked(&mut self, core: &mut Core, outbox: &mut Outbox) {
        if std::mem::take(&mut self.blocks.is_deposed) {
            for Blocked { origin, .. } in waits::dissolve(self) {
                core.count(Count::WaitsDissolved);
                answer(outbox, origin, Result::Unknown);
            }
            self.blocks.arrivals.clear();
            self.blocks.refused.clear();
            self.dissolve_readers(core, outbox);
        }
        self.serve_readers(core, outbox);
        self.end_readers(core, outbox);
        self.end_waits(core, outbox);
        if self.flaw == Flaw::Untended {
            self.server.keyspace.take_changed();
        }
        if waits::is_to_be_tended(&self.server) {
            let time_ms = self.server.clock.read_ms(self.wall_ms);
            let mut ended = Vec::new();
            waits::tend(self, time_ms, &mut ended);
            for (Blocked { origin, .. }, ()) in ended {
                core.count(Count::WaitsEndedLater);
                self.end_in_vain(origin, outbox);
            }
        }
    }

    fn end_in_vain(&mut self, origin: Origin, outbox: &mut Outbox) {
        if self.blocks.arrivals.iter().any(|one| one.is(origin)) {
            self.end_arrival(origin);
            answer(outbox, origin, Result::Done(Reply::Nil));
        }
    }

    /// The time of some is over, or nobody is there any more to be answered: to the shard that is
    /// the same.
    fn end_waits(&mut self, core: &mut Core, outbox: &mut Outbox) {
        let over = |one: &&mut Arrival| one.until_us <= core.now_us;
        let mut origins = Vec::new();
        for one in self.blocks.arrivals.iter_mut().filter(over) {
            one.until_us = u64::MAX;
            origins.push(one.origin);
        }
        for origin in origins {
            match waits::end(self, origin.attempt, ()) {
                Ending::Ended(_) => {
                    core.count(Count::WaitsEnded);
                    self.end_in_vain(origin, outbox);
                }
                Ending::Later if self.flaw == Flaw::EndedTooSoon => {
                    self.end_in_vain(origin, outbox);
                }
                Ending::Later => {}
                Ending::Unknown => unreachable!("it arrived and was not answered"),
            }
        }
    }

    /// Nothing is under way: then nobody waits beside something.
    pub(super) fn check_blocked(&self, core: &mut Core) {
        let server = &self.server;
        let is_quiet = server.serves()
            && !self.blocks.is_deposed
            && server.is_settled()
            && server.gathering_count() == 0
            && server.participant.is_idle()
            && server.postponed.is_empty()
            && server.unserved.is_empty()
            && !waits::is_to_be_tended(server);
        if !is_quiet {
            return;
        }
        self.check_readers(core);
        let view = server.keyspace.view(DATABASE, server.clock.read_ms(self.wall_ms));
        for one in &self.blocks.arrivals {
            if let Some(key) = one.keys.iter().find(|key| queues::has(&view, key)) {
                let (shard, operation) = (self.shard, one.origin.operation);
                core.audit.fail(|| {
                    format!("shard {shard}: #{operation} waits beside what is in {key:?}")
                });
            }
        }
    }
}

impl Arrival {
    fn is(&self, origin: Origin) -> bool {
        self.origin.attempt == origin.attempt
    }
}
