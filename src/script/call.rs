//! Commands of a script, run on what it has of the items.
//!
//! A command that needs a key which is not there says so, and the script goes on as if there were
//! no such key: so one run finds out many keys that the next one needs. What it does meanwhile is
//! thrown away.

use super::ground::Ground;
use crate::acl::user::{Denial, User};
use crate::commands::{Call, Command, Gather, Run as RunKind, Spread};
use crate::core::client::rights::refusal;
use crate::core::commands::table;
use crate::core::push::{Push, TopicKind};
use crate::core::shard::{run_operation, seed_of};
use crate::core::transact::everywhere::{Sights, needs_every_key};
use crate::limits::{
    COMMANDS_PER_TIMED, COMMANDS_TIMED, SCRIPT_COMMANDS_KEPT, SCRIPT_GUESSES_MAX,
    SCRIPT_LAST_KEY_BYTES_MAX,
};
use crate::numbers::parse_integer;
use crate::resp::reply::{Protocol, Reply};
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use ringraft_shards::ids::DatabaseIndex;
use ringraft_shards::keyspace::{Key, KeyHash, KeyHasher};
use ringraft_shards::limits::DATABASE_COUNT;
use ringraft_shards::transaction::install;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A key that a script needs.
pub type Wanted = (DatabaseIndex, Vec<u8>);

/// What a run of a script has to do with.
pub struct Run {
    /// Where commands run: the items that are there.
    pub ground: Ground,
    /// What is left of the shards' databases.
    pub sights: Sights,
    /// Channels and their subscribers, as the core knows them.
    pub push: Push,
    /// The database that commands are for.
    pub database: DatabaseIndex,
    /// The time.
    pub now_ms: i64,
    /// Hashes keys.
    pub hasher: KeyHasher,
    /// A key, and its hash.
    pub last_key: (Vec<u8>, KeyHash),
    /// Random bits.
    pub seed: u64,
    /// See [`Call::string_bytes_max`].
    pub string_bytes_max: usize,
    /// May it not write?
    pub read_only: bool,
    /// Is memory over its limit, and must the script heed that?
    pub out_of_memory: bool,
    /// Are all shards locked whole?
    pub is_whole: bool,
    /// Answers to questions about all keys, in the order in which the script asks.
    pub answers: Vec<Answered>,
    /// Does somebody watch the commands (MONITOR)?
    pub is_watched: bool,
    /// Does the client keep copies of what it reads (CLIENT TRACKING)?
    pub is_tracked: bool,
    /// Whose rights it has, if they are not all.
    pub user: Option<Arc<User>>,
    /// What it has done.
    pub done: Done,
}

/// An answer to a question about all keys.
pub struct Answered {
    /// The question.
    pub arguments: OwnedArguments,
    /// The reply.
    pub reply: Vec<u8>,
}

/// What a run of a script has done, and what it needs before it can end.
#[derive(Default)]
pub struct Done {
    /// Keys that were not there.
    pub wanted: BTreeSet<Wanted>,
    /// A question about all keys that nobody has answered, and its database.
    pub question: Option<(&'static Command, DatabaseIndex, OwnedArguments)>,
    /// It changes all keys: all shards must be locked whole.
    pub needs_whole: bool,
    /// Changes that went before others of all keys.
    pub effects: Vec<Effect>,
    /// Messages to send when it is committed.
    pub published: Vec<(TopicKind, Vec<u8>, Vec<u8>)>,
    /// The commands, and maybe some that scripts before have run.
    pub ran: Vec<Ran>,
    /// Those that read, if the client keeps copies.
    pub read: Vec<(&'static Command, OwnedArguments)>,
    /// Them as MONITOR shows them.
    pub shown: Vec<(DatabaseIndex, OwnedArguments)>,
    /// What it has logged.
    pub logged: Vec<(i64, String)>,
    /// What its user may not.
    pub denied: Vec<(Denial, &'static Command, OwnedArguments)>,
    /// It was made to end, for this reason.
    pub ended: Option<&'static str>,
    /// Did it write?
    pub wrote: bool,
    /// It runs on a shard's own items, and wants more than these.
    pub is_misplaced: bool,
    /// The place in `ran` of the one that ran last.
    last_ran: usize,
    /// Questions answered.
    asked: usize,
    /// Commands so far.
    count: usize,
    /// Commands since the first that guessed.
    guesses: usize,
}

/// Runs of one command.
pub struct Ran {
    /// Its row.
    pub command: &'static Command,
    /// How many.
    pub count: u32,
    /// How many of them ended in an error.
    pub failed: u32,
    /// How long all of them took: one that was not timed, as long as the last one that was.
    pub nanoseconds: u64,
    /// Runs of it since the first, those of scripts before included.
    seen: u32,
    /// How long the last one took that was timed.
    last_nanoseconds: u64,
}

impl Ran {
    fn new(command: &'static Command) -> Ran {
        Ran { command, count: 0, failed: 0, nanoseconds: 0, seen: 0, last_nanoseconds: 0 }
    }

    /// Is the next one to be timed?
    #[inline]
    fn is_timed_next(&self) -> bool {
        self.seen < COMMANDS_TIMED || self.seen.is_multiple_of(COMMANDS_PER_TIMED)
    }

    /// Counts one.
    #[inline]
    fn add(&mut self, took: Option<Duration>, failed: bool) {
        if let Some(took) = took {
            self.last_nanoseconds = took.as_nanos() as u64;
        }
        self.seen = self.seen.wrapping_add(1);
        self.count += 1;
        self.failed += u32::from(failed);
        self.nanoseconds += self.last_nanoseconds;
    }
}

/// A change behind which a change of all keys comes.
pub enum Effect {
    /// An item is as these arguments say.
    Item(DatabaseIndex, KeyHash, OwnedArguments),
    /// All keys are changed by a command.
    All(&'static Command, DatabaseIndex, OwnedArguments),
}

/// How a command of a script ends.
pub enum Ending {
    /// With this reply.
    Reply(Vec<u8>),
    /// With this error, code word included.
    Error(Vec<u8>),
    /// The script must end: it is to run again.
    Stop,
}

fn error(text: &str) -> Ending {
    Ending::Error(text.as_bytes().to_vec())
}

/// Containers whose subcommands concern the server or a connection.
const REFUSED_PARENTS: [&str; 11] = [
    "client",
    "config",
    "script",
    "function",
    "debug",
    "latency",
    "slowlog",
    "commandlog",
    "module",
    "raft",
    "pubsub",
];

/// May a script use a command? What concerns the connection, or is answered by all cores together,
/// it may not.
fn is_allowed(command: &Command) -> bool {
    match command.run {
        RunKind::Read(_) | RunKind::Write(_) | RunKind::Block(_) => true,
        RunKind::Plain(_) => !REFUSED_PARENTS.contains(&command.parent),
        _ => ["select", "publish", "spublish"].contains(&command.name) && command.parent.is_empty(),
    }
}

impl Done {
    /// The command that ran last, if it is asked for again: its name says all.
    #[inline]
    fn recent(&self, arguments: Arguments<'_>) -> Option<&'static Command> {
        let last = self.ran.get(self.last_ran)?.command;
        let is_it = table::is_named(last, arguments.at(0));
        (is_it && last.parent.is_empty() && !matches!(last.run, RunKind::Container)).then_some(last)
    }

    /// The place of a command among those that ran; it is the last one now.
    #[inline]
    fn runs_of(&mut self, command: &'static Command) -> usize {
        let is_it = |ran: &Ran| std::ptr::eq(ran.command, command);
        if !self.ran.get(self.last_ran).is_some_and(is_it) {
            self.last_ran = self.ran.iter().position(is_it).unwrap_or_else(|| {
                self.ran.push(Ran::new(command));
                self.ran.len() - 1
            });
        }
        self.last_ran
    }

    /// As before the first run; what has grown keeps its memory, and how long commands took is
    /// known.
    pub fn reset(&mut self) {
        let Done { ran, read, shown, logged, denied, effects, published, wanted, .. } = self;
        if ran.len() > SCRIPT_COMMANDS_KEPT {
            ran.clear();
        }
        ran.iter_mut().for_each(|ran| (ran.count, ran.failed, ran.nanoseconds) = (0, 0, 0));
        read.clear();
        shown.clear();
        logged.clear();
        denied.clear();
        effects.clear();
        published.clear();
        wanted.clear();
        (self.question, self.needs_whole, self.ended) = (None, false, None);
        (self.wrote, self.is_misplaced) = (false, false);
        (self.asked, self.count, self.guesses) = (0, 0, 0);
    }
}

impl Run {
    /// Must it run again, with more than it has?
    pub fn lacks(&self) -> bool {
        !self.done.wanted.is_empty() || self.done.question.is_some() || self.done.needs_whole
    }

    /// Runs a command. Its reply goes to the memory of `out`, which is empty.
    pub fn command(
        &mut self,
        protocol: Protocol,
        arguments: &OwnedArguments,
        out: Vec<u8>,
    ) -> Ending {
        let view = arguments.borrow();
        let command = match self.done.recent(view) {
            Some(command) => command,
            None => match table::resolve(view) {
                Some(command) if !command.flags.internal => command,
                _ => return error("ERR Unknown Redis command called from script"),
            },
        };
        if command.check_arity(view.count()).is_err() {
            return error("ERR Wrong number of args calling Redis command from script");
        }
        if !is_allowed(command) {
            return error("ERR This Redis command is not allowed from script");
        }
        if let Err(denial) = self.check_rights(command, view) {
            self.done.denied.push((denial, command, arguments.clone()));
            let user = self.user.as_ref().expect("somebody is denied it");
            let before = "ERR ACL failure in script: ";
            return Ending::Error(refusal(user, denial, before, command, view).line());
        }
        if self.read_only && (command.run.writes() || command.flags.may_replicate) {
            return error("ERR Write commands are not allowed from read-only scripts.");
        }
        if self.out_of_memory && command.flags.grows && !self.done.wrote {
            return error(crate::core::OUT_OF_MEMORY);
        }
        if self.lacks() {
            self.done.guesses += 1;
            if self.done.guesses > SCRIPT_GUESSES_MAX {
                return Ending::Stop;
            }
        }
        let ran = self.done.runs_of(command);
        let clock = self.done.ran[ran].is_timed_next().then(Instant::now);
        let ending = self.run(command, protocol, arguments, out);
        self.done.count += 1;
        self.done.wrote |= command.run.writes();
        let took = clock.map(|clock| clock.elapsed());
        self.done.ran[ran].add(took, matches!(ending, Ending::Error(_)));
        if self.is_tracked && command.flags.readonly {
            self.done.read.push((command, arguments.clone()));
        }
        if self.is_watched {
            let shown = command.redacted(view).unwrap_or_else(|| arguments.clone());
            self.done.shown.push((self.database, shown));
        }
        ending
    }

    /// May the client that runs the script run a command? Errors: why not.
    pub fn check_rights(&self, command: &Command, arguments: Arguments<'_>) -> Result<(), Denial> {
        self.user.as_ref().map_or(Ok(()), |user| user.check(command, arguments))
    }

    fn run(
        &mut self,
        command: &'static Command,
        protocol: Protocol,
        arguments: &OwnedArguments,
        mut out: Vec<u8>,
    ) -> Ending {
        if needs_every_key(command) {
            if self.ground.own_items().is_some() {
                return self.misplaced();
            }
            return self.of_every_key(command, protocol, arguments);
        }
        let view = arguments.borrow();
        match command.run {
            RunKind::Session => self.of_session(command, view),
            RunKind::Plain(run) => {
                let call = self.call(command, view);
                let outcome = match command.name {
                    // One moment for all of a script.
                    "time" => {
                        let mut reply = Reply::new(&mut out, protocol);
                        reply.array(2);
                        reply.bulk_integer(self.now_ms / 1000);
                        reply.bulk_integer(self.now_ms % 1000 * 1000);
                        Ok(())
                    }
                    _ => run(&call, &mut Reply::new(&mut out, protocol)),
                };
                match outcome {
                    Ok(()) => ended(out),
                    Err(refusal) => Ending::Error(refusal.line()),
                }
            }
            _ => {
                let hash = self.first_key(command, view);
                let mut seed = seed_of(self.seed, self.done.count);
                if self.ground.own_items().is_some() {
                    match self.begin_here(command, view, hash, seed) {
                        Some(own) => seed = own,
                        None => return self.misplaced(),
                    }
                } else {
                    self.fetch(command, view);
                }
                let mut reply = Reply::new(&mut out, protocol);
                let mut edit = match &mut self.ground {
                    Ground::Overlay(overlay) => overlay.edit(self.database, self.now_ms),
                    Ground::Shard(items) => items.edit(self.database, self.now_ms),
                };
                let bytes_max = self.string_bytes_max;
                let outcome =
                    run_operation(&mut edit, command, hash, view, seed, bytes_max, &mut reply);
                match outcome {
                    Ok(()) => ended(out),
                    Err(refusal) => Ending::Error(refusal.line()),
                }
            }
        }
    }

    /// The hash of a command's first key: often that of the one before.
    #[inline]
    fn first_key(&mut self, command: &Command, arguments: Arguments<'_>) -> KeyHash {
        let first = match command.keys.only() {
            Some(at) => arguments.get(at),
            None => command.keys.positions(arguments).find_map(|at| arguments.get(at)),
        };
        let Some(key) = first else { return KeyHash::default() };
        if key.len() > SCRIPT_LAST_KEY_BYTES_MAX {
            return self.hasher.hash(key);
        }
        if self.last_key.0 != key {
            self.last_key.0.clear();
            self.last_key.0.extend_from_slice(key);
            self.last_key.1 = self.hasher.hash(key);
        }
        self.last_key.1
    }

    /// It runs on a shard's own items and wants others: what it did is undone, and it runs again on
    /// copies.
    #[cold]
    fn misplaced(&mut self) -> Ending {
        self.done.is_misplaced = true;
        Ending::Stop
    }

    /// A command is about to run on the shard's own items: those that it may change are saved, and
    /// it is noted. Returns its random bits. `None`: not all of its keys are there, or the script
    /// does too much.
    fn begin_here(
        &mut self,
        command: &Command,
        arguments: Arguments<'_>,
        first: KeyHash,
        seed: u64,
    ) -> Option<u64> {
        let refers = command.refers.as_ref().is_some_and(|refers| (refers.may)(arguments));
        if refers || command.flags.crosses_databases {
            return None;
        }
        let is_read = matches!(command.run, RunKind::Read(_));
        let (hasher, database, now_ms) = (self.hasher, self.database, self.now_ms);
        let items = self.ground.own_items()?;
        let mut begin = |at: usize| {
            let key = arguments.at(at);
            let hash = if at == command.keys.first { first } else { hasher.hash(key) };
            let is_here = items.have(hash);
            if is_here && !is_read {
                items.save(database, &Key::new(key, hash), now_ms);
            }
            is_here
        };
        let are_here = match command.keys.only() {
            Some(at) => at >= arguments.count() || begin(at),
            None => command.keys.positions(arguments).all(begin),
        };
        if !are_here {
            return None;
        }
        match is_read {
            true => Some(seed),
            false => items.note(command.number, database, first, arguments, seed),
        }
    }

    fn call<'a>(&self, command: &'static Command, arguments: Arguments<'a>) -> Call<'a> {
        Call {
            command,
            arguments,
            first_key: command.first_key(arguments, self.hasher),
            hasher: self.hasher,
            seed: seed_of(self.seed, self.done.count),
            string_bytes_max: self.string_bytes_max,
        }
    }

    fn of_session(&mut self, command: &'static Command, arguments: Arguments<'_>) -> Ending {
        if command.name == "select" {
            let number = parse_integer(arguments.at(1));
            let Some(number) = number else {
                return error("ERR value is not an integer or out of range");
            };
            match usize::try_from(number).ok().filter(|number| *number < DATABASE_COUNT) {
                Some(number) => self.database = DatabaseIndex(number as u8),
                None => return error("ERR DB index is out of range"),
            }
            return Ending::Reply(b"+OK\r\n".to_vec());
        }
        let kind = match command.name {
            "publish" => TopicKind::Channel,
            _ => TopicKind::ShardChannel,
        };
        let (channel, payload) = (arguments.at(1), arguments.at(2));
        self.done.published.push((kind, channel.to_vec(), payload.to_vec()));
        let mut out = Vec::new();
        Reply::new(&mut out, Protocol::Resp2).integer(self.push.reach(kind, channel));
        Ending::Reply(out)
    }

    /// Sees to it that all keys of a command are there: those that are not are wanted, and guessed
    /// to be none.
    fn fetch(&mut self, command: &'static Command, arguments: Arguments<'_>) {
        let one = self.database.0..self.database.0 + 1;
        let databases = if command.flags.crosses_databases { 0..DATABASE_COUNT as u8 } else { one };
        for i in command.keys.positions(arguments) {
            for database in databases.clone().map(DatabaseIndex) {
                self.want(database, arguments.at(i));
            }
        }
        let Some(refers) = command.refers.as_ref().filter(|refers| (refers.may)(arguments)) else {
            return;
        };
        loop {
            let call = self.call(command, arguments);
            let (database, now_ms) = (self.database, self.now_ms);
            let overlay = self.ground.overlay();
            let has = |key: &[u8]| overlay.has(database, key);
            let view = overlay.view(database, now_ms);
            let keys: Vec<Vec<u8>> =
                (refers.keys)(&call, &view, &has).into_iter().filter(|key| !has(key)).collect();
            if keys.is_empty() {
                return;
            }
            // What is known now may lead to more.
            keys.iter().for_each(|key| self.want(database, key));
        }
    }

    fn want(&mut self, database: DatabaseIndex, key: &[u8]) {
        if self.ground.overlay().has(database, key) {
            return;
        }
        if !self.sights.hides(database, key) {
            if self.sights.are_whole() {
                self.done.wanted.insert((database, key.to_vec()));
            } else {
                let all = (0..DATABASE_COUNT as u8).map(DatabaseIndex);
                self.done.wanted.extend(all.map(|database| (database, key.to_vec())));
            }
        }
        self.ground.overlay().install(database, install(key, None).borrow(), self.now_ms);
    }

    fn of_every_key(
        &mut self,
        command: &'static Command,
        protocol: Protocol,
        arguments: &OwnedArguments,
    ) -> Ending {
        if let Some(check) = command.check
            && let Err(refusal) = check(&self.call(command, arguments.borrow()))
        {
            return Ending::Error(refusal.line());
        }
        if !self.is_whole {
            self.done.needs_whole = true;
            return Ending::Stop;
        }
        let asks = !command.run.writes() || command.spread == Spread::Everywhere(Gather::Sum);
        let mut out = Vec::new();
        if asks {
            let answer = self.answers.get(self.done.asked);
            let same = answer.filter(|answer| {
                let (asked, asks) = (answer.arguments.borrow(), arguments.borrow());
                asked.iter_from(0).eq(asks.iter_from(0))
            });
            let Some(answer) = same else {
                // With guesses before it, the question may be another one.
                if !self.lacks() {
                    let question = (command, self.database, arguments.clone());
                    self.done.question = Some(question);
                    self.answers.truncate(self.done.asked);
                }
                return Ending::Stop;
            };
            out = answer.reply.clone();
            self.done.asked += 1;
        }
        if command.run.writes() {
            let own = self.change_everything(command, protocol, arguments);
            if !asks {
                out = own;
            }
        }
        ended(out)
    }

    fn change_everything(
        &mut self,
        command: &'static Command,
        protocol: Protocol,
        arguments: &OwnedArguments,
    ) -> Vec<u8> {
        let (database, now_ms, effects) = (self.database, self.now_ms, &mut self.done.effects);
        self.ground.overlay().flush(now_ms, |database, key, arguments| {
            let arguments = OwnedArguments::copy(arguments);
            effects.push(Effect::Item(database, key.hash(), arguments));
        });
        effects.push(Effect::All(command, database, arguments.clone()));
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, protocol);
        let (seed, bytes_max) = (seed_of(self.seed, self.done.count), self.string_bytes_max);
        let (key, view) = (KeyHash::default(), arguments.borrow());
        let mut edit = self.ground.overlay().edit(database, now_ms);
        if let Err(refusal) =
            run_operation(&mut edit, command, key, view, seed, bytes_max, &mut reply)
        {
            unreachable!("{} was checked: {refusal}", command.name);
        }
        // The shards will be told by the effect.
        self.ground.overlay().flush(now_ms, |_, _, _| {});
        self.sights.note(command, database, view);
        out
    }
}

/// A reply that begins as an error is one.
fn ended(out: Vec<u8>) -> Ending {
    match out.strip_prefix(b"-") {
        Some(text) => Ending::Error(text.trim_ascii_end().to_vec()),
        None => Ending::Reply(out),
    }
}
