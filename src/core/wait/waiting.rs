//! A shard as commands wait for its keys (BLPOP and its kin), and how they are served through its log.
//!
//! Who waits is memory of the leader (`ringraft_shards::waiting`); what is logged is an operation that *serves*: it
//! carries the waiting commands that the entry does not know yet, and the key to serve them at. The first try
//! of a command is such an operation at its place in the order; behind every write that names an awaited key
//! stands another. What fills a key unnamed (SWAPDB, a transaction over several shards) is noticed when it is
//! applied, and served by the next entry.

use crate::commands::stream_read;
use crate::commands::{Arity, Call, Command, Fill, Group, Keys, Run, TimeoutAt};
use crate::core::client::answers::{Answers, Origin, Target};
use crate::core::cluster::relay::UNSURE;
use crate::core::commands::{Row, table, write};
use crate::core::observe::stats::Stats;
use crate::core::shard::{LocalShard, Request, Set, numbered, run_operation};
use crate::refusal::Refusal;
use crate::resp::reply::{Protocol, Reply};
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use ringraft_shards::batch::BatchBuilder;
use ringraft_shards::ids::DatabaseIndex;
use ringraft_shards::keyspace::{Edit, Key, KeyHash, Value, View};
use ringraft_shards::limits::DATABASE_COUNT;
use ringraft_shards::stamp::Stamp;
use ringraft_shards::waiting::{
    self, Declaration, Declared, Ending, Round, Ticket, WaitKey, WaitKind, of_key,
};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Rows of this file.
pub const COMMANDS: &[Row] = &[serve_row()];

const SERVE: &str = "serve-waiting";

const fn serve_row() -> Row {
    let mut row = write(SERVE, Arity::AtLeast(2), Keys::NONE, unreachable_serve).internal().about(
        Group::Generic,
        "7.2.0",
        "Serves commands that wait for a key.",
    );
    row.run = Run::Serve;
    row
}

fn unreachable_serve(_: &Call<'_>, _: &mut Edit<'_>, _: &mut Reply<'_>) -> Result<(), Refusal> {
    unreachable!("Run::Serve stands in its place")
}

/// How a wait ends that nothing was found for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Its time is over, or CLIENT UNBLOCK says so; or nobody is there to be answered.
    Empty,
    /// CLIENT UNBLOCK with ERROR.
    Unblocked,
    /// Its user may not do it any more: what it is told.
    Denied(Arc<[u8]>),
}

impl End {
    /// What the client is told.
    pub fn write(&self, protocol: Protocol, out: &mut Vec<u8>) {
        let mut reply = Reply::new(out, protocol);
        match self {
            End::Empty => reply.null_array(),
            End::Unblocked => reply.error(UNBLOCKED),
            End::Denied(line) => reply.error_bytes(line),
        }
    }
}

const UNBLOCKED: &str = "UNBLOCKED client unblocked via CLIENT UNBLOCK";
/// Bits of how a declared command is answered: in RESP3; and that its stamp stands before its arguments.
const RESP3: u8 = 1;
const STAMPED: u8 = 2;

/// What clients are told whose shard is led by another node now.
pub const FORCED: &str =
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)";

/// A waiting command of a client.
pub struct Waiting {
    command: &'static Command,
    origin: Origin,
    database: DatabaseIndex,
    arguments: OwnedArguments,
}

/// What an entry says of how its operations are run.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Random bits, the operation's own.
    pub seed: u64,
    /// No string becomes longer.
    pub string_bytes_max: usize,
}

/// Who waits: a core, and the number of the blocked request on it.
pub type Asker = (u16, u32);

/// All that wait for keys of a shard.
pub type Waiters = waiting::Waiters<Asker, Waiting, End>;

/// Clients that wait for keys of several shards, as one of them knows them: their core is told when a key has
/// something, one client after the other.
#[derive(Default)]
pub struct Interests {
    last: u64,
    /// When each of them came.
    places: HashMap<Asker, u64>,
    queues: BTreeMap<WaitKey, BTreeMap<u64, Asker>>,
    /// Who was told, by key, and has not found out yet.
    told: HashMap<WaitKey, Asker>,
}

impl Interests {
    /// Does nobody wait?
    pub(in crate::core) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

/// Is this the reply of a command that found nothing?
pub fn is_nothing(reply: &[u8]) -> bool {
    [&b"*-1\r\n"[..], b"$-1\r\n", b"_\r\n"].iter().any(|null| reply.starts_with(null))
}

/// The keys that a command waits for.
pub fn awaited_keys(
    command: &'static Command,
    database: DatabaseIndex,
    arguments: Arguments<'_>,
) -> Vec<WaitKey> {
    let wait = command.wait.expect("only commands that block wait");
    if wait.timeout == TimeoutAt::Block {
        return stream_read::awaited(command, database, arguments);
    }
    let count = wait.sources.unwrap_or(usize::MAX);
    let positions = command.keys.positions(arguments).take(count);
    positions.map(|i| WaitKey::new(database, wait.kind, arguments.at(i))).collect()
}

impl LocalShard {
    /// Gathers a command that may wait: its first try stands in its place in the order.
    #[cold]
    pub(in crate::core) fn gather_waiting(&mut self, request: &Request<'_>) {
        let Target::Block(number) = request.origin.target else {
            // It does not wait: its time is none, or it is refused.
            return self.gather_write(request);
        };
        let (command, database) = (request.command, request.database);
        let keys = awaited_keys(command, database, request.arguments);
        for key in &keys {
            self.keyspace.start_awaiting(key.database, &key.bytes);
        }
        let arguments = OwnedArguments::copy(request.arguments);
        let waiting = Waiting { command, origin: request.origin, database, arguments };
        self.open_set();
        let round = self.round();
        let ticket = self.waiters.open((request.origin.core, number), keys, waiting, round);
        self.gather_serve(
            b"",
            Declaration { tickets: vec![ticket], last: ticket, is_behind: false },
        );
        // BLMOVE fills a key as others do.
        let sources = command.wait.and_then(|wait| wait.sources).unwrap_or(usize::MAX);
        self.serve_keys(request, sources);
    }

    /// The round of the newest set.
    fn round(&mut self) -> Round {
        let set = self.server.newest_set();
        *set.round.get_or_insert_with(|| self.waiters.next_round())
    }

    /// Puts an operation behind a write, in the same set, that serves those who wait for what it may have filled.
    #[cold]
    pub(in crate::core) fn declare_behind(&mut self, request: &Request<'_>) {
        match request.command.run {
            Run::Record | Run::Serve => {}
            _ if request.command.keys.exist() => self.serve_keys(request, 0),
            _ => {
                let origin = request.origin;
                crate::core::transact::transaction::each_of(
                    request.command,
                    request.arguments,
                    &mut |command, database, arguments| {
                        if command.run.writes() {
                            let first_key = KeyHash::default();
                            self.serve_keys(
                                &Request { command, origin, database, first_key, arguments },
                                0,
                            );
                        }
                    },
                );
            }
        }
    }

    /// Serves at the keys of a request, but for the first `skipped`.
    fn serve_keys(&mut self, request: &Request<'_>, skipped: usize) {
        let (command, arguments) = (request.command, request.arguments);
        let count = match command.flags.fill {
            Fill::Arguments => arguments.count(),
            Fill::One => 1,
            Fill::Nothing => return,
        };
        for i in command.keys.positions(arguments).skip(skipped) {
            let databases = match command.flags.crosses_databases {
                true => 0..DATABASE_COUNT as u8,
                false => request.database.0..request.database.0 + 1,
            };
            for database in databases.map(DatabaseIndex) {
                let keys = self.waiters.awaited(database, arguments.at(i));
                for key in keys.cloned().collect::<Vec<WaitKey>>() {
                    self.serve(&key, count);
                }
            }
        }
    }

    /// Gathers an operation that serves those who wait for a key, if somebody may be.
    fn serve(&mut self, key: &WaitKey, count: usize) {
        let round = self.round();
        if let Some(declaration) = self.waiters.declare(key, count, round) {
            if declaration.is_behind {
                self.server.newest_set().is_behind = true;
            }
            self.gather_serve(&key.encode(), declaration);
        }
    }

    /// `key` empty: the first try of the one ticket.
    fn gather_serve(&mut self, key: &[u8], declaration: Declaration) {
        let mut owned: OwnedArguments =
            [SERVE.as_bytes(), key, &declaration.last.0.to_le_bytes()].into_iter().collect();
        for ticket in declaration.tickets {
            let waiting = self.waiters.waiting(ticket).expect("just declared");
            let declared = Declared {
                command: waiting.command.number,
                manner: u8::from(waiting.origin.protocol == Protocol::Resp3),
                database: waiting.database,
                arguments: waiting.arguments.clone(),
                stamp: self.lanes.stamp(waiting.origin.stamp),
            };
            push_declared(&mut owned, ticket, &declared);
        }
        let (command, origin) = (table::internal(SERVE), Origin::NOBODY);
        let (database, first_key) = (DatabaseIndex(0), KeyHash::default());
        let arguments = owned.borrow();
        self.gather_beside(&Request { command, origin, database, first_key, arguments });
    }

    /// Takes out of a set, which is about to be proposed, the tickets that earlier entries have served since it was gathered.
    #[cold]
    pub(in crate::core) fn forget_served(&self, set: &mut Set) {
        if !set.round.is_some_and(|round| self.waiters.has_served(round)) {
            return;
        }
        let mut rest = BatchBuilder::default();
        for waiting in set.order.iter_mut().filter(|waiting| waiting.proposed) {
            let (operation, arguments) = set.batch.operation(waiting.place as usize);
            let mut owned = OwnedArguments::default();
            let arguments = match waiting.who.command.run {
                Run::Serve => {
                    arguments.first(3).iter_from(0).for_each(|argument| owned.push(argument));
                    each_declared(arguments, |ticket, declared| {
                        if self.waiters.waiting(ticket).is_some() {
                            push_declared(&mut owned, ticket, &declared);
                        }
                    });
                    owned.borrow()
                }
                _ => arguments,
            };
            let (number, database) = (operation.command(), operation.database());
            waiting.place = rest.push(number, database, operation.first_key(), arguments) as u32;
        }
        set.batch = rest;
    }

    /// Applies an operation that serves, and answers those whose turn it was.
    pub(in crate::core) fn apply_serve(
        &mut self,
        arguments: Arguments<'_>,
        time: i64,
        manner: Manner,
        answers: &mut Answers,
        stats: &mut Stats,
    ) {
        let mut edit = self.keyspace.edit(DatabaseIndex(0), time);
        let mut served = Vec::new();
        serve(&mut edit, arguments, manner, &mut |ticket, reply| served.push((ticket, reply)));
        for (ticket, reply) in served {
            // Nobody waits under this number when the shard was led elsewhere meanwhile.
            let Some((waiting, keys)) = self.waiters.served(ticket) else { continue };
            if reply.starts_with(b"-") {
                stats.commands[usize::from(waiting.command.number)].failed += 1;
            }
            self.release((waiting, keys), answers, |_, out| out.extend_from_slice(&reply));
        }
    }

    /// Answers a command that waits no longer, and ends the interest in its keys.
    fn release(
        &mut self,
        (waiting, keys): (Waiting, Vec<WaitKey>),
        answers: &mut Answers,
        write: impl FnOnce(Protocol, &mut Vec<u8>),
    ) {
        for key in &keys {
            self.keyspace.stop_awaiting(key.database, &key.bytes);
        }
        answers.write(waiting.origin, |out| write(waiting.origin.protocol, out));
    }

    /// An operation that serves could not be proposed. Those who waited before go on waiting.
    pub(in crate::core) fn serve_refused(
        &mut self,
        arguments: Arguments<'_>,
        error: &str,
        session_text: Option<&[u8]>,
        answers: &mut Answers,
    ) {
        let is_first_try = arguments.at(1).is_empty();
        each_declared(arguments, |ticket, _| {
            if is_first_try && let Some(waited) = self.waiters.served(ticket) {
                let text = session_text.filter(|_| waited.0.origin.is_kept());
                self.release(waited, answers, |protocol, out| match text {
                    Some(text) => out.extend_from_slice(text),
                    None => Reply::new(out, protocol).error(error),
                });
            }
        });
    }

    /// A client no longer wants to wait. It is answered, now or once it is known that nobody has served it.
    pub fn end_wait(&mut self, asker: Asker, end: End, answers: &mut Answers) {
        match self.waiters.end(asker, end.clone()) {
            Ending::Ended(waited) => {
                self.release(waited, answers, |protocol, out| end.write(protocol, out));
            }
            Ending::Later => {}
            Ending::Unknown => self.end_reading(asker, end, answers),
        }
    }

    /// Is there something to do for those who wait?
    #[inline(always)]
    pub fn has_waiting_work(&self) -> bool {
        !self.settled.is_empty()
            || self.is_deposed
            || self.keyspace.awaited_key_changed()
            || self.keyspace.key_to_read_changed()
    }

    /// Serves those who wait for keys that have something; answers those who waited in vain. Clients of other shards
    /// too that are to try now are appended to `ready`.
    #[cold]
    pub fn tend_waiting(&mut self, answers: &mut Answers, now_ms: i64, ready: &mut Vec<Asker>) {
        if std::mem::take(&mut self.is_deposed) {
            self.dissolve_waiters(answers);
        }
        if self.keyspace.key_to_read_changed() {
            self.serve_readers(self.time(now_ms), answers);
        }
        let mut keys = Vec::new();
        for round in std::mem::take(&mut self.settled) {
            let settled = self.waiters.settle(round);
            for (waited, end) in settled.ended {
                self.release(waited, answers, |protocol, out| end.write(protocol, out));
            }
            keys.extend(settled.keys);
        }
        for (database, bytes) in self.keyspace.take_changed() {
            let waiting = self.waiters.awaited(database, &bytes);
            let all = waiting.chain(of_key(&self.interests.queues, database, &bytes));
            keys.extend(all.cloned());
        }
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            if !self.has_something(&key, now_ms) {
                continue;
            }
            if self.waiters.is_awaited(&key) {
                self.open_set();
                self.serve(&key, usize::MAX);
            }
            ready.extend(self.tell(&key));
        }
    }

    fn has_something(&self, key: &WaitKey, now_ms: i64) -> bool {
        let view = self.keyspace.view(key.database, self.time(now_ms));
        has(&view, key)
    }

    /// The first client of other shards too that waits for a key, if nobody is told yet.
    fn tell(&mut self, key: &WaitKey) -> Option<Asker> {
        let (_, &first) = self.interests.queues.get(key)?.first_key_value()?;
        match self.interests.told.entry(key.clone()) {
            Entry::Occupied(_) => None,
            Entry::Vacant(entry) => Some(*entry.insert(first)),
        }
    }

    /// A client waits for these keys and for others of other shards. Returns those that are to try now.
    pub fn add_interest(&mut self, asker: Asker, keys: &[WaitKey], now_ms: i64) -> Vec<Asker> {
        self.interests.last += 1;
        let place = self.interests.last;
        self.interests.places.insert(asker, place);
        for key in keys {
            self.keyspace.start_awaiting(key.database, &key.bytes);
            self.interests.queues.entry(key.clone()).or_default().insert(place, asker);
        }
        self.tell_all(keys, now_ms)
    }

    /// A client that was told has found nothing: it waits on, at its place. Returns those that are to try now.
    pub fn keep_interest(&mut self, asker: Asker, keys: &[WaitKey], now_ms: i64) -> Vec<Asker> {
        self.has_found_out(asker, keys);
        self.tell_all(keys, now_ms)
    }

    /// A client that was told of some of these keys knows by now what was there.
    fn has_found_out(&mut self, asker: Asker, keys: &[WaitKey]) {
        for key in keys {
            if self.interests.told.get(key) == Some(&asker) {
                self.interests.told.remove(key);
            }
        }
    }

    /// A client waits no longer. Returns those that are to try now.
    pub fn drop_interest(&mut self, asker: Asker, keys: &[WaitKey], now_ms: i64) -> Vec<Asker> {
        let place = self.interests.places.remove(&asker).expect("it came once and goes once");
        for key in keys {
            self.keyspace.stop_awaiting(key.database, &key.bytes);
            if let Some(queue) = self.interests.queues.get_mut(key) {
                queue.remove(&place);
                if queue.is_empty() {
                    self.interests.queues.remove(key);
                }
            }
        }
        self.has_found_out(asker, keys);
        self.tell_all(keys, now_ms)
    }

    fn tell_all(&mut self, keys: &[WaitKey], now_ms: i64) -> Vec<Asker> {
        let mut ready = Vec::new();
        for key in keys {
            if self.interests.queues.contains_key(key) && self.has_something(key, now_ms) {
                ready.extend(self.tell(key));
            }
        }
        ready
    }

    /// This node leads the shard no longer: who waits is told.
    pub(in crate::core) fn dissolve_waiters(&mut self, answers: &mut Answers) {
        for waited in self.waiters.dissolve() {
            // What serves it may be on its way through the log.
            let is_kept = waited.0.origin.is_kept();
            self.release(waited, answers, |protocol, out| match is_kept {
                true => out.extend_from_slice(UNSURE),
                false => Reply::new(out, protocol).error(FORCED),
            });
        }
        self.dissolve_readers(FORCED, answers);
    }
}

/// Is there a value of the kind that is waited for?
pub(in crate::core) fn has(view: &View<'_>, key: &WaitKey) -> bool {
    let item = view.peek(&Key::new(&key.bytes, view.hasher().hash(&key.bytes)));
    match (key.kind, item.map(|item| item.value())) {
        (WaitKind::List, value) => matches!(value, Some(Value::List(_))),
        (WaitKind::SortedSet, value) => matches!(value, Some(Value::SortedSet(_))),
        (WaitKind::Group | WaitKind::Entries, value) => stream_read::has(value, key),
    }
}

fn each_declared<'a>(operation: Arguments<'a>, mut visit: impl FnMut(Ticket, Declared)) {
    let mut at = 3;
    while let Some(head) = operation.get(at) {
        let head: [u8; 16] = head.try_into().expect("a head has sixteen bytes");
        let number = |range: std::ops::Range<usize>| {
            head[range].iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let count = number(12..16) as usize;
        at += 1;
        let stamp = (head[11] & STAMPED != 0).then(|| {
            at += 1;
            Stamp::decode(operation.at(at - 1)).expect("a leader has stamped it")
        });
        let declared = Declared {
            command: number(8..10) as u16,
            database: DatabaseIndex(head[10]),
            manner: head[11] & RESP3,
            arguments: OwnedArguments::copy(operation.tail(at).first(count)),
            stamp,
        };
        visit(Ticket(number(0..8)), declared);
        at += count;
    }
}

fn push_declared(operation: &mut OwnedArguments, ticket: Ticket, declared: &Declared) {
    let arguments = declared.arguments.borrow();
    let mut head = [0; 16];
    head[..8].copy_from_slice(&ticket.0.to_le_bytes());
    head[8..10].copy_from_slice(&declared.command.to_le_bytes());
    head[10] = declared.database.0;
    head[11] = declared.manner | if declared.stamp.is_some() { STAMPED } else { 0 };
    head[12..].copy_from_slice(&(arguments.count() as u32).to_le_bytes());
    operation.push(&head);
    if let Some(stamp) = declared.stamp {
        operation.push(&stamp.encode());
    }
    arguments.iter_from(0).for_each(|argument| operation.push(argument));
}

/// Can an operation that serves only make the data smaller?
pub fn shrinks(operation: Arguments<'_>) -> bool {
    let mut grows = false;
    each_declared(operation, |_, declared| grows |= numbered(declared.command).flags.grows);
    !grows
}

/// Serves: on the leader and on every other replica alike. `served` gets the ticket and the reply of each command
/// that found something or was refused.
pub fn serve(
    edit: &mut Edit<'_>,
    operation: Arguments<'_>,
    manner: Manner,
    served: &mut impl FnMut(Ticket, Vec<u8>),
) {
    let mut first_try = None;
    each_declared(operation, |ticket, declared| {
        let command = numbered(declared.command);
        let keys = awaited_keys(command, declared.database, declared.arguments.borrow());
        first_try = Some((ticket, declared.clone()));
        edit.serving().declare(ticket, keys.into_iter(), declared);
    });
    let Some(key) = WaitKey::decode(operation.at(1)) else {
        let (ticket, declared) = first_try.expect("a first try declares its command");
        let reply = run(edit, &declared, manner);
        if !is_nothing(&reply) {
            edit.serving().take(ticket);
            remember(edit, &declared, &reply);
            served(ticket, reply);
        }
        return;
    };
    let last = operation.at(2).try_into().map(u64::from_le_bytes).expect("a ticket has 8 bytes");
    let mut nth = 0;
    while has(&edit.of_database(key.database).view(), &key) {
        let Some((ticket, declared)) = edit.serving().next(&key, Ticket(last)) else { return };
        let declared = declared.clone();
        let seed = crate::core::shard::seed_of(manner.seed, nth);
        let reply = run(edit, &declared, Manner { seed, ..manner });
        nth += 1;
        if is_nothing(&reply) {
            edit.serving().pass(&key, ticket);
        } else {
            edit.serving().take(ticket);
            remember(edit, &declared, &reply);
            served(ticket, reply);
        }
    }
}

/// Whoever lost this answer can ask for it.
fn remember(edit: &mut Edit<'_>, declared: &Declared, reply: &[u8]) {
    if let Some(stamp) = declared.stamp {
        edit.remember(stamp, Some(reply));
    }
}

fn run(edit: &mut Edit<'_>, declared: &Declared, manner: Manner) -> Vec<u8> {
    let command = numbered(declared.command);
    let arguments = declared.arguments.borrow();
    let first_key = command.first_key(arguments, edit.view().hasher());
    let mut out = Vec::new();
    let protocol = if declared.manner == 1 { Protocol::Resp3 } else { Protocol::Resp2 };
    let mut reply = Reply::new(&mut out, protocol);
    let mut edit = edit.of_database(declared.database);
    let Manner { seed, string_bytes_max } = manner;
    let outcome =
        run_operation(&mut edit, command, first_key, arguments, seed, string_bytes_max, &mut reply);
    if let Err(refusal) = outcome {
        reply.truncate(0);
        reply.error(&refusal.to_string());
    }
    out
}
