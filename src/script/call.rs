//! Commands of a script, run on what it has of the items.
//!
//! A command that needs a key which is not there says so, and the script goes on as if there were no such key: so one run
//! finds out many keys that the next one needs. What it does meanwhile is thrown away.

use crate::acl::user::{Denial, User};
use crate::commands::{Call, Command, Gather, Run as RunKind, Spread};
use crate::core::client::rights::refusal;
use crate::core::commands::table;
use crate::core::push::{Push, TopicKind};
use crate::core::shard::{run_operation, seed_of};
use crate::core::transact::everywhere::{Sights, needs_every_key};
use crate::limits::SCRIPT_GUESSES_MAX;
use crate::numbers::parse_integer;
use crate::resp::reply::{Protocol, Reply};
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use ringraft_shards::ids::DatabaseIndex;
use ringraft_shards::keyspace::{KeyHash, KeyHasher};
use ringraft_shards::limits::DATABASE_COUNT;
use ringraft_shards::transaction::{Overlay, install};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A key that a script needs.
pub type Wanted = (DatabaseIndex, Vec<u8>);

/// What a run of a script has to do with.
pub struct Run {
    /// Items that are there.
    pub overlay: Box<Overlay>,
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
    /// The commands, each with its time.
    pub ran: Vec<(&'static Command, Duration, bool)>,
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
    /// Questions answered.
    asked: usize,
    /// Commands so far.
    count: usize,
    /// Commands since the first that guessed.
    guesses: usize,
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

/// May a script use a command? What concerns the connection, or is answered by all cores together, it may not.
fn is_allowed(command: &Command) -> bool {
    match command.run {
        RunKind::Read(_) | RunKind::Write(_) | RunKind::Block(_) => true,
        RunKind::Plain(_) => !REFUSED_PARENTS.contains(&command.parent),
        _ => ["select", "publish", "spublish"].contains(&command.name) && command.parent.is_empty(),
    }
}

impl Run {
    /// Must it run again, with more than it has?
    pub fn lacks(&self) -> bool {
        !self.done.wanted.is_empty() || self.done.question.is_some() || self.done.needs_whole
    }

    /// Runs a command.
    pub fn command(&mut self, protocol: Protocol, arguments: &OwnedArguments) -> Ending {
        let view = arguments.borrow();
        let command = match table::resolve(view) {
            Some(command) if !command.flags.internal => command,
            _ => return error("ERR Unknown Redis command called from script"),
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
        let clock = Instant::now();
        let ending = self.run(command, protocol, arguments);
        self.done.count += 1;
        self.done.wrote |= command.run.writes();
        let failed = matches!(ending, Ending::Error(_));
        self.done.ran.push((command, clock.elapsed(), failed));
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
    ) -> Ending {
        if needs_every_key(command) {
            return self.of_every_key(command, protocol, arguments);
        }
        let view = arguments.borrow();
        match command.run {
            RunKind::Session => self.of_session(command, view),
            RunKind::Plain(run) => {
                let mut out = Vec::new();
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
                self.fetch(command, view);
                let seed = seed_of(self.seed, self.done.count);
                let hash = command.first_key(view, self.hasher);
                let mut out = Vec::new();
                let mut reply = Reply::new(&mut out, protocol);
                let mut edit = self.overlay.edit(self.database, self.now_ms);
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

    /// Sees to it that all keys of a command are there: those that are not are wanted, and guessed to be none.
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
            let has = |key: &[u8]| self.overlay.has(database, key);
            let view = self.overlay.view(database, now_ms);
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
        if self.overlay.has(database, key) {
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
        self.overlay.install(database, install(key, None).borrow(), self.now_ms);
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
        self.overlay.flush(now_ms, |database, key, arguments| {
            let arguments = OwnedArguments::copy(arguments);
            effects.push(Effect::Item(database, key.hash(), arguments));
        });
        effects.push(Effect::All(command, database, arguments.clone()));
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, protocol);
        let (seed, bytes_max) = (seed_of(self.seed, self.done.count), self.string_bytes_max);
        let (key, view) = (KeyHash::default(), arguments.borrow());
        let mut edit = self.overlay.edit(database, now_ms);
        if let Err(refusal) =
            run_operation(&mut edit, command, key, view, seed, bytes_max, &mut reply)
        {
            unreachable!("{} was checked: {refusal}", command.name);
        }
        // The shards will be told by the effect.
        self.overlay.flush(now_ms, |_, _, _| {});
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
