//! A shard as commands wait for its keys (BLPOP and its kin), and how they are served through its
//! log.
//!
//! What is done when, and how it is logged, is the engine's (`ringraft_shards::serve::waits`); here
//! is which commands wait for what, and how their clients are answered.

use crate::commands::stream_read;
use crate::commands::{Arity, Call, Command, Fill, Group, Keys, Run, TimeoutAt};
use crate::core::client::answers::{Answers, Origin, Target};
use crate::core::cluster::relay::UNSURE;
use crate::core::commands::{Row, table, write};
use crate::core::observe::stats::Stats;
use crate::core::shard::{Caller, LocalShard, Request, numbered, run_operation, seed_of};
use crate::refusal::Refusal;
use crate::resp::reply::{Protocol, Reply};
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use ringraft_shards::ids::DatabaseIndex;
use ringraft_shards::keyspace::{Edit, Key, KeyHash, Value, View};
use ringraft_shards::limits::DATABASE_COUNT;
use ringraft_shards::serve::waits::{self, Serving, Waits};
use ringraft_shards::waiting::{self, Declared, Ending, Ticket, WaitKey, WaitKind, of_key};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Rows of this file.
pub const COMMANDS: &[Row] = &[serve_row()];

const fn serve_row() -> Row {
    let mut row = write(waits::SERVE, Arity::AtLeast(2), Keys::NONE, unreachable_serve)
        .internal()
        .about(Group::Generic, "7.2.0", "Serves commands that wait for a key.");
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
/// How a declared command is answered: in RESP3.
const RESP3: u8 = 1;

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

/// Clients that wait for keys of several shards, as one of them knows them: their core is told when
/// a key has something, one client after the other.
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
        let arguments = OwnedArguments::copy(request.arguments);
        let waiting = Waiting { command, origin: request.origin, database, arguments };
        waits::begin(self, (request.origin.core, number), keys, waiting);
    }

    /// Puts an operation behind a write, in the same set, that serves those who wait for what it
    /// may have filled.
    #[cold]
    pub(in crate::core) fn declare_behind(&mut self, request: &Request<'_>) {
        match request.command.run {
            Run::Record | Run::Serve => {}
            _ if request.command.keys.exist() => self.serve_keys(request),
            _ => {
                let origin = request.origin;
                crate::core::transact::transaction::each_of(
                    request.command,
                    request.arguments,
                    &mut |command, database, arguments| {
                        if command.run.writes() {
                            let first_key = KeyHash::default();
                            let request =
                                Request { command, origin, database, first_key, arguments };
                            self.serve_keys(&request);
                        }
                    },
                );
            }
        }
    }

    /// Serves at the keys of a request.
    fn serve_keys(&mut self, request: &Request<'_>) {
        let (command, arguments) = (request.command, request.arguments);
        let count = match command.flags.fill {
            Fill::Arguments => arguments.count(),
            Fill::One => 1,
            Fill::Nothing => return,
        };
        for i in command.keys.positions(arguments) {
            let databases = match command.flags.crosses_databases {
                true => 0..DATABASE_COUNT as u8,
                false => request.database.0..request.database.0 + 1,
            };
            for database in databases.map(DatabaseIndex) {
                waits::serve_behind(self, database, arguments.at(i), count);
            }
        }
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
            let Some(waiting) = waits::take_served(self, ticket) else { continue };
            if reply.starts_with(b"-") {
                stats.commands[usize::from(waiting.command.number)].failed += 1;
            }
            answers.write(waiting.origin, |out| out.extend_from_slice(&reply));
        }
    }

    /// An operation that serves could not be proposed. Those who waited before go on waiting.
    pub(in crate::core) fn serve_refused(
        &mut self,
        arguments: Arguments<'_>,
        error: &str,
        session_text: Option<&[u8]>,
        answers: &mut Answers,
    ) {
        let Some(Waiting { origin, .. }) = waits::refused(self, arguments) else { return };
        let text = session_text.filter(|_| origin.is_kept());
        answers.write(origin, |out| match text {
            Some(text) => out.extend_from_slice(text),
            None => Reply::new(out, origin.protocol).error(error),
        });
    }

    /// A client no longer wants to wait. It is answered, now or once it is known that nobody has
    /// served it.
    pub fn end_wait(&mut self, asker: Asker, end: End, answers: &mut Answers) {
        match waits::end(self, asker, end.clone()) {
            Ending::Ended(Waiting { origin, .. }) => {
                answers.write(origin, |out| end.write(origin.protocol, out));
            }
            Ending::Later => {}
            Ending::Unknown => self.end_reading(asker, end, answers),
        }
    }

    /// Is there something to do for those who wait?
    #[inline(always)]
    pub fn has_waiting_work(&self) -> bool {
        waits::is_to_be_tended(&self.server)
            || self.is_deposed
            || self.keyspace.key_to_read_changed()
    }

    /// Serves those who wait for keys that have something; answers those who waited in vain.
    /// Clients of other shards too that are to try now are appended to `ready`.
    #[cold]
    pub fn tend_waiting(&mut self, answers: &mut Answers, now_ms: i64, ready: &mut Vec<Asker>) {
        if std::mem::take(&mut self.is_deposed) {
            self.dissolve_waiters(answers);
        }
        if self.keyspace.key_to_read_changed() {
            self.serve_readers(self.time(now_ms), answers);
        }
        let (mut ended, time) = (Vec::new(), self.time(now_ms));
        let keys = waits::tend(self, time, &mut ended);
        for (Waiting { origin, .. }, end) in ended {
            answers.write(origin, |out| end.write(origin.protocol, out));
        }
        ready.extend(keys.iter().filter_map(|key| self.tell(key)));
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

    /// A client waits for these keys and for others of other shards. Returns those that are to try
    /// now.
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

    /// A client that was told has found nothing: it waits on, at its place. Returns those that are
    /// to try now.
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
        for Waiting { origin, .. } in waits::dissolve(self) {
            // What serves it may be on its way through the log.
            answers.write(origin, |out| match origin.is_kept() {
                true => out.extend_from_slice(UNSURE),
                false => Reply::new(out, origin.protocol).error(FORCED),
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

impl Waits for LocalShard {
    type Asker = Asker;
    type Waiting = Waiting;
    type End = End;

    fn waiters(&self) -> &Waiters {
        &self.waiters
    }

    fn waiters_mut(&mut self) -> &mut Waiters {
        &mut self.waiters
    }

    fn declared(&self, waiting: &Waiting) -> Declared {
        Declared {
            command: waiting.command.number,
            manner: if waiting.origin.protocol == Protocol::Resp3 { RESP3 } else { 0 },
            database: waiting.database,
            arguments: waiting.arguments.clone(),
            stamp: self.lanes.stamp(waiting.origin.stamp),
        }
    }

    fn gather_serving(&mut self, arguments: Arguments<'_>) {
        let (command, origin) = (table::internal(waits::SERVE), Origin::NOBODY);
        let (database, first_key) = (DatabaseIndex(0), KeyHash::default());
        self.gather_beside(&Request { command, origin, database, first_key, arguments });
    }

    fn is_serving(who: &Caller) -> bool {
        matches!(who.command.run, Run::Serve)
    }

    fn has(view: &View<'_>, key: &WaitKey) -> bool {
        has(view, key)
    }

    fn also_filled(&self, waiting: &Waiting) -> Vec<(DatabaseIndex, Vec<u8>)> {
        let Waiting { command, database, .. } = *waiting;
        let Some(sources) = command.wait.and_then(|wait| wait.sources) else { return Vec::new() };
        let arguments = waiting.arguments.borrow();
        let others = command.keys.positions(arguments).skip(sources);
        others.map(|i| (database, arguments.at(i).to_vec())).collect()
    }

    fn also_awaited(&self, database: DatabaseIndex, key: &[u8], found: &mut Vec<WaitKey>) {
        found.extend(of_key(&self.interests.queues, database, key).cloned());
    }
}

/// Can an operation that serves only make the data smaller?
pub fn shrinks(operation: Arguments<'_>) -> bool {
    let mut grows = false;
    waits::each_declared(operation, |_, declared| grows |= numbered(declared.command).flags.grows);
    !grows
}

/// How commands are run that an operation serves. `F` gets the ticket and the reply of each that
/// found something or was refused.
struct Serve<'a, F> {
    manner: Manner,
    served: &'a mut F,
}

/// Serves: on the leader and on every other replica alike.
pub fn serve(
    edit: &mut Edit<'_>,
    operation: Arguments<'_>,
    manner: Manner,
    served: &mut impl FnMut(Ticket, Vec<u8>),
) {
    waits::serve(edit, operation, &mut Serve { manner, served });
}

impl<F: FnMut(Ticket, Vec<u8>)> Serving for Serve<'_, F> {
    fn keys(&self, declared: &Declared) -> Vec<WaitKey> {
        let command = numbered(declared.command);
        awaited_keys(command, declared.database, declared.arguments.borrow())
    }

    fn has(&self, view: &View<'_>, key: &WaitKey) -> bool {
        has(view, key)
    }

    fn run(
        &mut self,
        edit: &mut Edit<'_>,
        declared: &Declared,
        nth: Option<usize>,
    ) -> Option<Vec<u8>> {
        let seed = nth.map_or(self.manner.seed, |nth| seed_of(self.manner.seed, nth));
        let reply = run(edit, declared, Manner { seed, ..self.manner });
        (!is_nothing(&reply)).then_some(reply)
    }

    fn served(&mut self, edit: &mut Edit<'_>, ticket: Ticket, declared: &Declared, reply: Vec<u8>) {
        // Whoever lost this answer can ask for it.
        if let Some(stamp) = declared.stamp {
            edit.remember(stamp, Some(&reply));
        }
        (self.served)(ticket, reply);
    }
}

fn run(edit: &mut Edit<'_>, declared: &Declared, manner: Manner) -> Vec<u8> {
    let command = numbered(declared.command);
    let arguments = declared.arguments.borrow();
    let first_key = command.first_key(arguments, edit.view().hasher());
    let mut out = Vec::new();
    let protocol = if declared.manner == RESP3 { Protocol::Resp3 } else { Protocol::Resp2 };
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
