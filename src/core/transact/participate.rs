//! A shard as it takes part in transactions over several shards, and as its single requests wait
//! for them.
//!
//! While no transaction is about, a request pays one comparison ([`LocalShard::is_open`]). What a
//! transaction reads rides in the shard's order of requests like any read behind writes; its
//! records are operations of the shard's entries like any write. The protocol is the engine's
//! (`ringraft_shards::transaction`).

use crate::commands::{Answer, Arity, Call, Command, Group, Keys, Run};
use crate::core::client::answers::{Answers, Origin};
use crate::core::client::session::Watched;
use crate::core::commands::{Row, shard as shard_row, table};
use crate::core::observe::stats::Stats;
use crate::core::shard::{Caller, LocalShard, Request, ShardContext, numbered, run_operation};
use crate::refusal::{Outcome, Refusal};
use crate::resp::reply::{Protocol, Reply};
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use ringraft_shards::batch::{BatchBuilder, Operation};
use ringraft_shards::ids::DatabaseIndex;
use ringraft_shards::keyspace::{Edit, Key, KeyHash};
use ringraft_shards::limits::STRING_BYTES_MAX;
use ringraft_shards::serve;
use ringraft_shards::transaction::{
    self, Applied, Fetch, Fetched, FetchedItem, LockKey, LockSet, Message, Record, ToCoordinator,
    ToShard,
};
use ringraft_shards::value::stream::StreamId;
use std::sync::LazyLock;

/// Rows of this file.
pub const COMMANDS: &[Row] = &[
    record_row(RECORD).internal().about(
        Group::Transactions,
        "7.2.0",
        "A step of a transaction over several shards.",
    ),
    shard_row(FETCH, Arity::Exactly(2), Keys::NONE, fetch).internal().about(
        Group::Transactions,
        "7.2.0",
        "Reads what a transaction over several shards asked for.",
    ),
];

const RECORD: &str = "transaction";
const FETCH: &str = "fetch-keys";

const fn record_row(name: &'static str) -> Row {
    let mut row = shard_row(name, Arity::AtLeast(2), Keys::NONE, fetch);
    row.run = Run::Record;
    row.flags.write = true;
    row
}

/// The row of records.
pub(in crate::core) fn record_command() -> &'static Command {
    static ROW: LazyLock<&Command> = LazyLock::new(|| table::internal(RECORD));
    *ROW
}

/// What a transaction asks of a shard once its locks are granted.
#[derive(Debug, Default)]
pub struct Ask {
    /// What to read.
    pub what: What,
    /// Versions that watched keys must still have.
    pub guard: Vec<Watched>,
    /// May it grow memory?
    pub grows: bool,
}

/// What to read.
#[derive(Default)]
pub enum What {
    /// Nothing.
    #[default]
    Nothing,
    /// Copies of these items.
    Items(Vec<(DatabaseIndex, Vec<u8>)>, Copies),
    /// The replies of commands that read.
    Replies(Reads),
}

/// How much of items is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Copies {
    /// That they are there.
    Presence,
    /// All.
    Whole,
    /// Of streams what is known beside their entries and so many entries behind an id, for each
    /// item in order; of others that they are there, as strings.
    Behind(Vec<(StreamId, u64)>),
}

/// Commands that read, as far as they concern one shard.
#[derive(Default)]
pub struct Reads {
    /// The commands.
    pub batch: BatchBuilder,
    /// For each of them how its reply is written, and whether its accesses are not to be counted.
    pub manners: Vec<(Protocol, bool)>,
}

impl What {
    /// The items that are asked for.
    pub fn into_items(self) -> Vec<(DatabaseIndex, Vec<u8>)> {
        match self {
            What::Items(items, _) => items,
            What::Nothing | What::Replies(_) => Vec::new(),
        }
    }
}

impl std::fmt::Debug for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            What::Nothing => f.write_str("nothing"),
            What::Items(items, _) => write!(f, "{} items", items.len()),
            What::Replies(reads) => write!(f, "the replies of {} commands", reads.batch.count()),
        }
    }
}

/// What a shard has read.
#[derive(Debug)]
pub enum Found {
    /// Nothing was asked for.
    Nothing,
    /// Items.
    Items(Vec<Fetched>),
    /// The replies one after the other, and where each ends.
    Replies(Vec<u8>, Vec<usize>),
}

impl Found {
    /// The replies and where each ends, if it is some.
    pub fn into_replies(self) -> (Vec<u8>, Vec<usize>) {
        match self {
            Found::Replies(bytes, ends) => (bytes, ends),
            Found::Nothing | Found::Items(_) => Default::default(),
        }
    }

    /// The items, if it is some.
    pub fn into_items(self) -> Vec<Fetched> {
        match self {
            Found::Items(items) => items,
            Found::Nothing | Found::Replies(..) => Vec::new(),
        }
    }
}

/// A message of a transaction between cores.
pub type TransactionMessage = Message<Box<Ask>, Found>;

/// A single request that waits for a transaction, or for its shard to serve.
pub struct Parked {
    command: &'static Command,
    origin: Origin,
    database: DatabaseIndex,
    first_key: KeyHash,
    arguments: OwnedArguments,
    guard: Option<Vec<Watched>>,
}

impl Parked {
    pub(in crate::core) fn copy(request: &Request<'_>, guard: Option<&Vec<Watched>>) -> Parked {
        Parked {
            command: request.command,
            origin: request.origin,
            database: request.database,
            first_key: request.first_key,
            arguments: OwnedArguments::copy(request.arguments),
            guard: guard.cloned(),
        }
    }

    /// Who waits for it.
    pub(in crate::core) fn caller(&self) -> Caller {
        Caller { command: self.command, origin: self.origin }
    }

    pub(in crate::core) fn request(&self) -> Request<'_> {
        Request {
            command: self.command,
            origin: self.origin,
            database: self.database,
            first_key: self.first_key,
            arguments: self.arguments.borrow(),
        }
    }
}

impl std::fmt::Debug for Parked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.command.name)
    }
}

/// Is a row a step of a transaction: a record, or what it reads?
#[inline]
pub fn is_step(command: &Command) -> bool {
    match command.run {
        Run::Record => true,
        Run::Shard => command.name == FETCH,
        _ => false,
    }
}

impl LocalShard {
    /// The door to the items: does this shard serve, and is no transaction over several shards
    /// about? Then no request has to wait. Every request asks, here or by
    /// [`LocalShard::lets_read`].
    #[inline(always)]
    pub fn is_open(&self) -> bool {
        self.server.serves() & self.server.participant.is_idle()
    }

    /// May a read that nothing of its connection precedes run now? Cost: one comparison when no
    /// transaction is about.
    #[inline(always)]
    pub fn lets_read(
        &self,
        command: &Command,
        arguments: Arguments<'_>,
        first_key: KeyHash,
    ) -> bool {
        self.server.reads_in_place() & self.server.participant.is_idle()
            || !self.holds_up_read(command, arguments, first_key)
    }

    #[cold]
    fn holds_up_read(
        &self,
        command: &Command,
        arguments: Arguments<'_>,
        first_key: KeyHash,
    ) -> bool {
        // Where another node may lead, and there is no lease, no read runs in place.
        !self.reads_in_place() || self.holds_keys_of(command, arguments, first_key)
    }

    fn holds_keys_of(
        &self,
        command: &Command,
        arguments: Arguments<'_>,
        first_key: KeyHash,
    ) -> bool {
        if command.keys == Keys::NONE {
            return self.participant.is_any_held();
        }
        let hasher = self.keyspace.hasher();
        command.keys.positions(arguments).any(|i| {
            let hash =
                if i == command.keys.first { first_key } else { hasher.hash(arguments.at(i)) };
            self.participant.is_held(LockKey::new(hash, true).hash)
        })
    }

    /// Does a transaction hold what a read wants?
    pub(in crate::core) fn is_held_from(&self, request: &Request<'_>) -> bool {
        self.holds_keys_of(request.command, request.arguments, request.first_key)
    }

    /// The id's time of the last lock that a core asked for.
    pub(in crate::core) fn last_lock_of(&self, core: u16) -> u64 {
        self.last_locks.get(usize::from(core)).copied().unwrap_or(0)
    }

    /// What a request of this shard must not share with a transaction.
    pub(in crate::core) fn locks_of(&self, request: &Request<'_>) -> LockSet {
        let (command, arguments) = (request.command, request.arguments);
        let writes = command.run.writes();
        if command.keys == Keys::NONE {
            return crate::core::transact::transaction::locks_of_queued(
                command,
                arguments,
                self.keyspace.hasher(),
            )
            .unwrap_or(LockSet::whole(writes));
        }
        let positions = command.keys.positions(arguments);
        let keys =
            positions.map(|i| LockKey::new(self.keyspace.hasher().hash(arguments.at(i)), writes));
        LockSet { keys: keys.collect(), whole: None }
    }

    /// Does a request wait, for a transaction or until the shard serves? Then it is kept.
    #[cold]
    pub fn park(&mut self, request: &Request<'_>, guard: Option<&Vec<Watched>>) -> bool {
        if !self.serves() {
            let parked = Parked::copy(request, guard);
            match request.origin.is_relayed {
                // Whoever sent it on knows who leads, and asks there: here it must not be run later
                // on.
                true => self.sent_back.push(parked),
                false => self.held.push_back(parked),
            }
            return true;
        }
        let locks = self.locks_of(request);
        if locks.is_empty() {
            // It names no key, so that it will be refused.
            return false;
        }
        let plain = matches!(request.command.run, Run::Read(_)) && !request.origin.rides;
        let waits = match plain {
            true => self.is_held_from(request),
            false => self.participant.blocks(&locks),
        };
        if waits {
            serve::wait(self, Parked::copy(request, guard));
        }
        waits
    }

    /// Takes a message of a transaction. Nothing may be staged that was not run.
    pub fn take_transaction(
        &mut self,
        message: ToShard<Box<Ask>>,
        stats: &mut Stats,
    ) -> Option<TransactionMessage> {
        if !self.serves() {
            return message.refusal(self.id);
        }
        if let ToShard::Lock { id, coordinator, fetch, .. } = &message {
            if fetch.grows && !self.has_room(stats) {
                let reason = crate::core::client::intake::OUT_OF_MEMORY.to_string();
                let (id, shard) = (*id, self.id);
                let answer = ToCoordinator::Failed { id, shard, reason };
                return Some(Message::Coordinator(*coordinator, answer));
            }
            let from = *coordinator as usize;
            if self.last_locks.len() <= from {
                self.last_locks.resize(from + 1, 0);
            }
            self.last_locks[from] = id.time;
        }
        serve::take_message(self, message)
    }

    /// Lets those requests go on that came before the shard served. Appends those that memory does
    /// not permit.
    #[cold]
    pub fn release_held(&mut self, stats: &mut Stats, refused: &mut Vec<Origin>) {
        for parked in std::mem::take(&mut self.held) {
            let waits = !self.is_open() && self.park(&parked.request(), parked.guard.as_ref());
            let origin = parked.origin;
            if !waits && !self.admit_parked(parked, stats) {
                refused.push(origin);
            }
        }
    }

    /// Do requests wait for this shard to serve?
    #[inline(always)]
    pub fn holds_any(&self) -> bool {
        !self.held.is_empty()
    }

    /// Answers the requests that wait for this shard to serve with an error.
    pub fn refuse_held(&mut self, error: &str, answers: &mut Answers) {
        for parked in std::mem::take(&mut self.held) {
            let origin = parked.origin;
            answers.write(origin, |out| Reply::new(out, origin.protocol).error(error));
        }
    }

    pub(in crate::core) fn admit_parked(&mut self, parked: Parked, stats: &mut Stats) -> bool {
        match &parked.guard {
            Some(guard) => self.gather_guarded(&parked.request(), guard.clone()),
            None => return self.gather(&parked.request(), stats),
        }
        true
    }

    pub(in crate::core) fn gather_fetch(&mut self, fetch: Fetch) {
        let command = table::internal(FETCH);
        let (origin, database, first_key) = (Origin::NOBODY, DatabaseIndex(0), KeyHash::default());
        let owned: OwnedArguments = [FETCH.as_bytes(), &fetch.bytes()].into_iter().collect();
        let arguments = owned.borrow();
        self.gather_rider(&Request { command, origin, database, first_key, arguments });
    }

    pub(in crate::core) fn gather_record(&mut self, record: &Record) {
        let command = record_command();
        let (origin, database, first_key) = (Origin::NOBODY, DatabaseIndex(0), KeyHash::default());
        let owned = record.arguments();
        let arguments = owned.borrow();
        self.gather_write(&Request { command, origin, database, first_key, arguments });
    }

    /// Does a write make the data smaller, or end a transaction?
    pub fn shrinks(&self, command: &Command, arguments: Arguments<'_>) -> bool {
        match command.run {
            Run::Record => !matches!(Record::read(arguments), Some(Record::Prepare { .. })),
            Run::Serve => crate::core::wait::waiting::shrinks(arguments),
            _ => !crate::core::transact::transaction::grows(command, arguments),
        }
    }

    /// Applies a record of this leadership.
    pub fn apply_record(&mut self, arguments: Arguments<'_>, time: i64, seed: u64) {
        let mut edit = self.keyspace.edit(DatabaseIndex(0), time);
        let applied = run_record(&mut edit, arguments, seed);
        self.server.record_applied(&applied);
    }

    fn read_for(&mut self, fetch: Fetch, now_ms: i64) -> Option<Result<Found, String>> {
        let ask = self.server.participant.fetching(fetch)?;
        let keyspace = &mut self.server.keyspace;
        let changed = ask.guard.iter().any(|watched| {
            let key = Key::new(&watched.key, keyspace.hasher().hash(&watched.key));
            let version = keyspace.watch_version(watched.database, &key, now_ms);
            version != Some(watched.version)
        });
        if changed {
            return Some(Err(String::new()));
        }
        Some(Ok(match &ask.what {
            What::Nothing => Found::Nothing,
            What::Items(keys, wanted) => {
                let hasher = self.keyspace.hasher();
                let copies = keys.iter().enumerate().map(|(i, (database, key))| {
                    let view = self.keyspace.view(*database, now_ms);
                    let item = view.get(&Key::new(key, hasher.hash(key)));
                    let item = item.map(|item| match wanted {
                        Copies::Presence => FetchedItem::copy(item, false),
                        Copies::Whole => FetchedItem::copy(item, true),
                        Copies::Behind(ids) => {
                            let (id, limit) = ids[i];
                            FetchedItem::copy_behind(item, id, limit)
                        }
                    });
                    Fetched { database: *database, key: key.clone(), item }
                });
                Found::Items(copies.collect())
            }
            What::Replies(reads) => {
                let mut out = Vec::new();
                let mut ends = Vec::with_capacity(reads.manners.len());
                for (i, &(protocol, no_touch)) in reads.manners.iter().enumerate() {
                    let (operation, arguments) = reads.batch.operation(i);
                    let request = Request {
                        command: numbered(operation.command()),
                        origin: Origin { no_touch, ..Origin::NOBODY },
                        database: operation.database(),
                        first_key: operation.first_key(),
                        arguments,
                    };
                    let mut reply = Reply::new(&mut out, protocol);
                    let run = crate::core::shard::run_read;
                    let bytes_max = self.string_bytes_max;
                    let outcome = run(&self.keyspace, &request, now_ms, 0, bytes_max, &mut reply);
                    if let Err(refusal) = outcome {
                        return Some(Err(refusal.to_string()));
                    }
                    ends.push(out.len());
                }
                Found::Replies(out, ends)
            }
        }))
    }
}

fn fetch(
    context: &mut ShardContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let fetch = Fetch::from_bytes(call.at(1)).expect("the shard gathered it");
    let shard = &mut *context.shard;
    if let Some(found) = shard.read_for(fetch, context.now_ms) {
        let server = &mut shard.server;
        server.participant.fetched(fetch, found, &mut server.wanted);
    }
    Ok(Answer::Later)
}

/// Applies a record of a transaction to the items.
pub fn run_record(edit: &mut Edit<'_>, arguments: Arguments<'_>, seed: u64) -> Applied {
    let mut discarded = Vec::new();
    transaction::apply(edit, arguments, &mut |edit, place, operation: &Operation, arguments| {
        discarded.clear();
        let mut reply = Reply::new(&mut discarded, Protocol::default());
        let command = numbered(operation.command());
        let seed = crate::core::shard::seed_of(seed, place);
        // What an effect would answer, an error too, was found out before it was logged: that its
        // strings are not too long as well.
        let (first_key, bytes_max) = (operation.first_key(), STRING_BYTES_MAX);
        let _: Outcome =
            run_operation(edit, command, first_key, arguments, seed, bytes_max, &mut reply);
    })
}
