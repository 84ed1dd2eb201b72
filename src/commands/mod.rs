//! Commands on values, and what a row of the command table says.
//!
//! One row and one function per command. Each family file opens with its rows, functions below in
//! the same order. Gates (arity, password, memory, state) read only the row and never name a
//! command. Nothing here knows of cores, connections or other nodes: the commands that need them,
//! and the table of all, are in `core::commands`.

pub mod bit;
pub mod bitfield;
pub mod counter;
pub mod database;
pub mod dump;
pub mod events;
pub mod expire;
pub mod families;
pub mod geo;
pub mod geo_search;
pub mod hash;
pub mod hash_expire;
pub mod help;
pub mod hyperloglog;
pub mod key_search;
pub mod keys;
pub mod lcs;
pub mod list;
pub mod lots;
pub mod module;
pub mod object;
pub mod options;
pub mod pattern;
pub use crate::refusal;
mod row;
pub mod scan;
pub mod secrets;
pub mod set;
pub mod set_operations;
pub mod sort;
pub mod stream;
pub mod stream_group;
pub mod stream_id;
pub mod stream_info;
pub mod stream_read;
pub mod string;
#[cfg(test)]
mod tests;
pub mod zset;
pub mod zset_operations;
pub mod zset_range;
pub mod zset_walk;

use crate::resp::reply::Reply;
pub use key_search::{Keys, Search};
use refusal::{Outcome, Refusal};
use ringraft_shards::arguments::Arguments;
use ringraft_shards::keyspace::{Edit, Key, KeyHash, KeyHasher, Value, View};
use ringraft_shards::value::hash::Hash;
use ringraft_shards::value::list::List;
use ringraft_shards::value::set::Set;
use ringraft_shards::value::sorted_set::SortedSet;
use ringraft_shards::value::stream::Stream;
use ringraft_shards::waiting::WaitKind;
pub use row::{block, container, plain, read, row, script_row, write};
pub use secrets::Secrets;
use smallvec::SmallVec;
use std::ops::RangeInclusive;

/// Keys of one command that are looked up together.
pub const KEYS_AHEAD: usize = 16;

/// So many keys, each with the position of its argument.
pub type KeyChunk<'a> = SmallVec<[(usize, Key<'a>); KEYS_AHEAD]>;

/// One request as a command function sees it.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// The row.
    pub command: &'static Command,
    /// Arguments, name first. Their count fits the row's arity.
    pub arguments: Arguments<'a>,
    /// Hash of the first key, computed once by the router.
    pub first_key: KeyHash,
    /// Hashes the other keys.
    pub hasher: KeyHasher,
    /// Random bits: the same on every replica for a write.
    pub seed: u64,
    /// How long it may make a string (`proto-max-bulk-len`): the same on every replica for a
    /// write.
    pub string_bytes_max: usize,
}

impl<'a> Call<'a> {
    /// Argument `i`; 0 is the name. The arity check makes the fixed ones safe.
    #[inline(always)]
    pub fn at(&self, i: usize) -> &'a [u8] {
        self.arguments.at(i)
    }

    /// Count of arguments, name included.
    #[inline(always)]
    pub fn count(&self) -> usize {
        self.arguments.count()
    }

    /// Argument `i` as a key. The first key's hash is at hand; others are hashed here.
    #[inline]
    pub fn key(&self, i: usize) -> Key<'a> {
        let bytes = self.arguments.at(i);
        if self.command.keys.first == i {
            Key::new(bytes, self.first_key)
        } else {
            Key::new(bytes, self.hasher.hash(bytes))
        }
    }

    /// The keys in order, each with the position of its argument, [`KEYS_AHEAD`] at a time: whoever
    /// looks up a chunk prefetches it first.
    pub fn key_chunks(&self) -> impl Iterator<Item = KeyChunk<'a>> {
        let mut positions = self.command.keys.positions(self.arguments);
        let call = *self;
        std::iter::from_fn(move || {
            let keys = positions.by_ref().take(KEYS_AHEAD).map(|i| (i, call.key(i)));
            Some(keys.collect()).filter(|chunk: &KeyChunk<'_>| !chunk.is_empty())
        })
    }

    /// The string at key argument `i`, counted as an access; `None` when there is no such key.
    /// Errors: [`Refusal::WrongType`].
    #[inline]
    pub fn string<'v>(&self, i: usize, view: &View<'v>) -> Result<Option<&'v [u8]>, Refusal> {
        match view.get(&self.key(i)) {
            None => Ok(None),
            Some(item) => item.string().map(Some).ok_or(Refusal::WrongType),
        }
    }

    /// The size of a string made of two parts. Errors: [`Refusal::StringTooLong`].
    #[inline]
    pub fn joined_size(&self, head: usize, tail: usize) -> Result<usize, Refusal> {
        let size = head.checked_add(tail).filter(|&size| size <= self.string_bytes_max);
        size.ok_or(Refusal::StringTooLong)
    }

    /// The list at key argument `i`, counted as an access; `None` when there is no such key.
    /// Errors: [`Refusal::WrongType`].
    pub fn list<'v>(&self, i: usize, view: &View<'v>) -> Result<Option<List<'v>>, Refusal> {
        match view.get(&self.key(i)).map(|item| item.value()) {
            None => Ok(None),
            Some(Value::List(list)) => Ok(Some(list)),
            Some(_) => Err(Refusal::WrongType),
        }
    }

    /// The set at key argument `i`, as [`Call::list`].
    pub fn set<'v>(&self, i: usize, view: &View<'v>) -> Result<Option<Set<'v>>, Refusal> {
        match view.get(&self.key(i)).map(|item| item.value()) {
            None => Ok(None),
            Some(Value::Set(set)) => Ok(Some(set)),
            Some(_) => Err(Refusal::WrongType),
        }
    }

    /// The sorted set at key argument `i`, as [`Call::list`].
    pub fn sorted_set<'v>(
        &self,
        i: usize,
        view: &View<'v>,
    ) -> Result<Option<SortedSet<'v>>, Refusal> {
        match view.get(&self.key(i)).map(|item| item.value()) {
            None => Ok(None),
            Some(Value::SortedSet(set)) => Ok(Some(set)),
            Some(_) => Err(Refusal::WrongType),
        }
    }

    /// The hash at key argument `i`, as [`Call::list`].
    pub fn hash<'v>(&self, i: usize, view: &View<'v>) -> Result<Option<Hash<'v>>, Refusal> {
        match view.get(&self.key(i)).map(|item| item.value()) {
            None => Ok(None),
            Some(Value::Hash(hash)) => Ok(Some(hash.seen_at(view.now_ms()))),
            Some(_) => Err(Refusal::WrongType),
        }
    }

    /// The stream at key argument `i`, as [`Call::list`].
    pub fn stream<'v>(&self, i: usize, view: &View<'v>) -> Result<Option<Stream<'v>>, Refusal> {
        match view.get(&self.key(i)).map(|item| item.value()) {
            None => Ok(None),
            Some(Value::Stream(stream)) => Ok(Some(stream)),
            Some(_) => Err(Refusal::WrongType),
        }
    }

    /// Argument `i` as a count of at least `least`. Errors: `refusal`, for whatever is none.
    pub fn count_at(&self, i: usize, least: u64, refusal: &'static str) -> Result<u64, Refusal> {
        let count = crate::numbers::parse_integer(self.at(i)).and_then(|n| u64::try_from(n).ok());
        count.filter(|count| *count >= least).ok_or(Refusal::text(refusal))
    }

    /// The position of the last of the keys that argument `at` counts.
    /// Errors: the count is none, not positive, or of more arguments than there are.
    pub fn counted_keys(&self, at: usize) -> Result<usize, Refusal> {
        let count = self.count_at(at, 1, "ERR numkeys should be greater than 0")?;
        let last = usize::try_from(count).ok().and_then(|count| count.checked_add(at));
        last.filter(|last| *last < self.count()).ok_or(Refusal::Syntax)
    }

    /// What stands behind the word MPOP of a command: `numkeys key [key ...] LOW|HIGH [COUNT
    /// count]`, from argument `at` on; `ends` are the two words. Returns the positions of the
    /// keys, which word it is, and the count. Errors: as [`Call::counted_keys`]; another word;
    /// a count that is none.
    pub fn popping(
        &self,
        at: usize,
        ends: [&str; 2],
    ) -> Result<(RangeInclusive<usize>, usize, u64), Refusal> {
        let last = self.counted_keys(at)?;
        if last + 1 == self.count() {
            return Err(Refusal::Syntax);
        }
        let end = ends.iter().position(|word| self.arguments.is(last + 1, word));
        let end = end.ok_or(Refusal::Syntax)?;
        let count = match self.count() - (last + 2) {
            0 => 1,
            2 if self.arguments.is(last + 2, "count") => {
                self.count_at(last + 3, 1, "ERR count should be greater than 0")?
            }
            _ => return Err(Refusal::Syntax),
        };
        Ok((at + 1..=last, end, count))
    }

    /// Argument `i` as a 64-bit integer by Redis' strict rules (no spaces, no `+`, no leading
    /// zeros). Errors: [`Refusal::NotAnInteger`].
    pub fn integer(&self, i: usize) -> Result<i64, Refusal> {
        crate::numbers::parse_integer(self.arguments.at(i)).ok_or(Refusal::NotAnInteger)
    }
}

/// How many arguments a command takes, its name included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// Just so many.
    Exactly(usize),
    /// So many or more.
    AtLeast(usize),
    /// The name and one or more pairs.
    Pairs,
}

impl Arity {
    /// Does a request of `count` arguments fit?
    #[inline(always)]
    pub fn fits(self, count: usize) -> bool {
        match self {
            Arity::Exactly(n) => count == n,
            Arity::AtLeast(n) => count >= n,
            Arity::Pairs => count >= 3 && count % 2 == 1,
        }
    }

    /// Redis' form: negative means at least.
    pub fn number(self) -> i64 {
        match self {
            Arity::Exactly(n) => n as i64,
            Arity::AtLeast(n) => -(n as i64),
            Arity::Pairs => -3,
        }
    }
}

/// What runs a command.
#[derive(Clone, Copy)]
pub enum Run {
    /// Reads the keyspace of one shard.
    Read(fn(&Call<'_>, &View<'_>, &mut Reply<'_>) -> Outcome),
    /// Changes the keyspace of one shard, through its log.
    Write(fn(&Call<'_>, &mut Edit<'_>, &mut Reply<'_>) -> Outcome),
    /// Nothing itself: the second word names one of its subcommands.
    Container,
    /// Needs nothing but its arguments.
    Plain(fn(&Call<'_>, &mut Reply<'_>) -> Outcome),
    /// Runs on the core of the connection: the core has its function.
    Session,
    /// Runs beside the items of one shard, outside its log, and changes no item: the core has its
    /// function.
    Shard,
    /// As a write; when it finds nothing and its row says what it waits for, the client waits.
    Block(fn(&Call<'_>, &mut Edit<'_>, &mut Reply<'_>) -> Outcome),
    /// A step of a transaction over several shards, in a shard's log.
    Record,
    /// Serves commands that wait, in a shard's log.
    Serve,
    /// A script, as a step of a transaction.
    Script(ScriptBy),
}

/// How a command names a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptBy {
    /// By its text.
    Text,
    /// By its digest.
    Digest,
    /// A function, by its name.
    Function,
}

impl Run {
    /// Does a client change the keyspace with it?
    pub fn writes(&self) -> bool {
        matches!(self, Run::Write(_) | Run::Block(_))
    }
}

/// What a command waits for when it finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// What is to be at one of its keys.
    pub kind: WaitKind,
    /// Where its timeout stands.
    pub timeout: TimeoutAt,
    /// It waits for so many of its keys, the first ones; for all without.
    pub sources: Option<usize>,
}

/// Where the timeout stands among the arguments, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutAt {
    /// Behind the name.
    First,
    /// At the end.
    Last,
    /// Behind the word BLOCK, in milliseconds; without it the command does not wait.
    Block,
}

/// How many of those who wait for a key a write to it may serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fill {
    /// As many as it has arguments.
    #[default]
    Arguments,
    /// One.
    One,
    /// None: it adds nothing that anybody waits for.
    Nothing,
}

/// Is the reply written?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Yes.
    Now,
    /// It will come: other cores or the disk have a part in it.
    Later,
    /// It will come, and whoever gives it counts the command.
    LaterCounted,
}

/// How the replies of several shards become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gather {
    /// Arrays with one element per key, put back into the order of the keys.
    InOrder,
    /// Integers, added up.
    Sum,
    /// `+OK` from all, or the first error.
    AllOk,
    /// Sorted arrays of keys, merged under the command's LIMIT (KEYS).
    SortedKeys,
    /// One of the replies that are not null, by chance (RANDOMKEY).
    AnyPresent,
    /// Shard after shard in slot order until enough is found (SCAN).
    Cursor,
}

/// How a command reaches the shards that own its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// To the one shard that owns all its keys.
    One,
    /// Each key to its shard; the parts run side by side.
    Split(Gather),
    /// As [`Spread::One`], unless patterns among its arguments refer to keys that may be anywhere:
    /// see [`Refers`].
    Referring,
    /// To every shard.
    Everywhere(Gather),
}

/// Keys that a command needs beside those it names.
#[derive(Clone, Copy)]
pub struct Refers {
    /// May there be any, by its arguments alone?
    pub may: fn(Arguments<'_>) -> bool,
    /// The option that refers to them, for users who may not read all keys.
    pub option: fn(Arguments<'_>) -> Option<&'static str>,
    /// Those that it needs.
    pub keys: ReferredKeys,
}

/// The keys that a command needs as the items are now, as far as that is seen from the keys that
/// are known: asked again when they all are, it names the rest. None when it will refuse.
pub type ReferredKeys = fn(&Call<'_>, &View<'_>, &dyn Fn(&[u8]) -> bool) -> Vec<Vec<u8>>;

/// Which group COMMAND DOCS and the ACL categories put a command in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Strings.
    String,
    /// Bits of strings.
    Bitmap,
    /// Lists.
    List,
    /// Sets.
    Set,
    /// Hashes.
    Hash,
    /// Sorted sets.
    SortedSet,
    /// Counts of distinct elements.
    HyperLogLog,
    /// Places on Earth.
    Geo,
    /// Streams.
    Stream,
    /// Keys of any type.
    Generic,
    /// The connection itself.
    Connection,
    /// The server as a whole.
    Server,
    /// MULTI and its companions.
    Transactions,
    /// Channels and messages.
    PubSub,
    /// Clients of Redis Cluster.
    Cluster,
    /// The Raft groups.
    Raft,
    /// Scripts.
    Scripting,
}

impl Group {
    /// Its name in COMMAND DOCS.
    pub fn name(self) -> &'static str {
        match self {
            Group::String => "string",
            Group::Bitmap => "bitmap",
            Group::List => "list",
            Group::Set => "set",
            Group::Hash => "hash",
            Group::SortedSet => "sorted-set",
            Group::HyperLogLog => "hyperloglog",
            Group::Geo => "geo",
            Group::Stream => "stream",
            Group::Generic => "generic",
            Group::Connection => "connection",
            Group::Server => "server",
            Group::Transactions => "transactions",
            Group::Raft => "raft",
            Group::Scripting => "scripting",
            Group::PubSub => "pubsub",
            Group::Cluster => "cluster",
        }
    }
}

/// Facts about a command that gates and COMMAND INFO read. Built by the methods of [`Command`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Changes data.
    pub write: bool,
    /// Only reads data.
    pub readonly: bool,
    /// May grow memory: refused when `maxmemory` is reached and nothing can be evicted.
    pub grows: bool,
    /// Constant or logarithmic time.
    pub fast: bool,
    /// For operators.
    pub admin: bool,
    /// Allowed before AUTH.
    pub no_auth: bool,
    /// Allowed while a script runs for long.
    pub allows_busy: bool,
    /// Not queued inside MULTI: it runs at once.
    pub unqueued: bool,
    /// Refused inside MULTI.
    pub no_multi: bool,
    /// Allowed to clients that get messages and speak RESP2.
    pub serves_listeners: bool,
    /// Changes what messages the connection gets: every earlier reply is sent before it runs.
    pub listens: bool,
    /// Sends messages: it runs when every earlier write of its connection is done, in EXEC after
    /// the commit.
    pub sends: bool,
    /// Takes the connection over for good: EXEC, whose reply is one array, cannot hold it.
    pub takes_over: bool,
    /// Not shown to MONITOR.
    pub no_monitor: bool,
    /// Writes nothing that it would answer for, and yet may change something on a replica: a pause
    /// of writes holds it back.
    pub may_replicate: bool,
    /// A reply that may differ from call to call on the same data.
    pub random_reply: bool,
    /// Said to be: COMMAND INFO of scripts.
    pub skips_monitor: bool,
    /// Not counted by SLOWLOG.
    pub no_slowlog: bool,
    /// Answered by all cores together, hence later.
    pub asks: bool,
    /// Proposed by the leader alone: no client finds it.
    pub internal: bool,
    /// Looks at its keys' presence alone, never at their values.
    pub keys_only: bool,
    /// May reach keys of its name in other databases.
    pub crosses_databases: bool,
    /// Run by the node that leads, although it touches no key.
    pub for_leader: bool,
    /// Whom it serves.
    pub fill: Fill,
}

/// One row of the command table. `W` is what those add to it who have functions of their own.
#[derive(Clone, Copy)]
pub struct Command<W: 'static = ()> {
    /// Its number in log entries, given by the table of all commands.
    pub number: u16,
    /// Lower-case name; a subcommand's is only the second word.
    pub name: &'static str,
    /// The first word of a subcommand; empty otherwise.
    pub parent: &'static str,
    /// Arguments it takes, name included (both words of a subcommand).
    pub arity: Arity,
    /// Where its keys are.
    pub keys: Keys,
    /// What runs it.
    pub run: Run,
    /// The rows that a second word names.
    pub subcommands: &'static [Command<W>],
    /// What is added to it.
    pub work: W,
    /// How it reaches the shards.
    pub spread: Spread,
    /// Facts for gates.
    pub flags: Flags,
    /// Which of its arguments nobody else may see.
    pub secrets: Secrets,
    /// What a container does without a second word.
    pub alone: Option<fn(&Call<'_>, &mut Reply<'_>) -> Outcome>,
    /// What it waits for.
    pub wait: Option<Wait>,
    /// The argument that names a member of the collection of the first key, or the first of
    /// several; 0 for none.
    pub member_at: u8,
    /// Looks at its arguments before they are sent to several shards, where nobody would hear of a
    /// refusal.
    pub check: Option<fn(&Call<'_>) -> Outcome>,
    /// Which keys it needs beside those it names.
    pub refers: Option<Refers>,
    /// Its group.
    pub group: Group,
    /// Redis version that introduced it.
    pub since: &'static str,
    /// One line for COMMAND DOCS and `docs/commands.md`.
    pub summary: &'static str,
}
