//! Scripts as steps of transactions: what they need, and how they run again when they need more (decision 0013).
//!
//! A script runs to its end on the overlay, with the keys that it names locked. When it touches others, nothing was written:
//! its locks are released and the transaction begins again with those keys too; after [`SCRIPT_ATTEMPTS_MAX`] times, or when
//! it asks for all keys (KEYS, SCAN, DBSIZE ...), with all shards locked whole. These locks are kept while the shards
//! are asked for what it lacks, and it runs again from the start, until it has everything.

use crate::commands::{Command, Run as RunKind, ScriptBy};
use crate::core::Core;
use crate::core::OUT_OF_MEMORY;
use crate::core::client::answers::{Origin, Target};
use crate::core::client::connection::Hold;
use crate::core::client::session::Watched;
use crate::core::gather::{Part, bulk_of};
use crate::core::transact::steps::{Manner, Progress, Step, Steps};
use crate::limits::SCRIPT_ATTEMPTS_MAX;
use crate::numbers::parse_integer;
use crate::refusal::Refusal;
use crate::resp::read::Elements;
use crate::resp::reply::{Protocol, Reply};
use crate::script::call::{Answered, Done, Effect, Run, Wanted};
use crate::script::interpreter::{Interpreter, Script, emit};
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use ringraft_shards::ids::DatabaseIndex;
use ringraft_shards::keyspace::{Key, KeyHash};
use ringraft_shards::transaction::{INSTALL, TransactionId, install};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What scripts among steps have been found to need, and what need not be done again when they run again.
#[derive(Default)]
pub struct Retry {
    /// Keys that no step names.
    pub wanted: BTreeSet<Wanted>,
    /// Are all shards to be locked whole?
    pub whole: bool,
    /// Are they?
    holds_whole: bool,
    attempts: u32,
    /// A question about all keys, and its database.
    question: Option<(&'static Command, DatabaseIndex, OwnedArguments)>,
    /// The step in whose place the question stands, and where its reply begins.
    asking: Option<(Step, usize)>,
    /// Answers, by the place of the script.
    answers: BTreeMap<usize, Vec<Answered>>,
    /// Replies of steps that must not run twice, by their place.
    pub(in crate::core) replies: BTreeMap<usize, Vec<u8>>,
    /// Are items on their way?
    pub(in crate::core) fetches: bool,
    /// The time of the scripts.
    now_ms: Option<i64>,
}

impl Step {
    /// Does it run a script?
    pub(in crate::core) fn is_script(&self) -> bool {
        matches!(self.command.run, RunKind::Script(_))
    }

    /// Must nobody else read what it touches?
    pub(in crate::core) fn is_exclusive(&self) -> bool {
        self.command.run.writes() || self.is_script() && !self.command.flags.readonly
    }
}

/// The keys and the arguments of a script.
type Words<'a> = (Vec<&'a [u8]>, Vec<&'a [u8]>);

/// What a script did, and how it ended.
type Ended = (Done, Result<(), Refusal>);

/// The keys and the arguments of a script. Errors: their count is none.
fn words_of(arguments: Arguments<'_>, no_count: Refusal) -> Result<Words<'_>, Refusal> {
    let count = parse_integer(arguments.at(2)).ok_or(no_count)?;
    let rest = arguments.count() - 3;
    if count > rest as i64 {
        return Err(Refusal::text("ERR Number of keys can't be greater than number of args"));
    }
    let count = usize::try_from(count)
        .map_err(|_| Refusal::text("ERR Number of keys can't be negative"))?;
    let keys = arguments.iter_from(3).take(count).collect();
    Ok((keys, arguments.iter_from(3 + count).collect()))
}

impl Core {
    /// The interpreter, made when the first script comes. Errors: no memory for it.
    pub fn interpreter(&mut self) -> Result<&mut Interpreter, Refusal> {
        if self.interpreter.is_none() {
            let bytes_max = self.settings.script_memory as usize;
            let made = Interpreter::new(self.id, self.shared.scripts.clone(), bytes_max);
            let no_memory = |_| Refusal::text("ERR not enough memory for scripts: script-memory");
            self.interpreter = Some(Box::new(made.map_err(no_memory)?));
        }
        let interpreter = self.interpreter.as_mut().expect("just made");
        interpreter.set_memory_limit(self.settings.script_memory as usize);
        Ok(interpreter)
    }

    /// Starts a script of a client. Its connection goes on when it is answered: the script may have to run again.
    pub(in crate::core) fn start_script(
        &mut self,
        index: u32,
        target: Target,
        command: &'static Command,
        arguments: OwnedArguments,
    ) {
        let connection = self.answers.connections.at_mut(index);
        let (database, protocol) = (connection.session.database, connection.session.protocol);
        connection.hold = Hold::Answer;
        if let Target::Connection { sequence, .. } = target {
            connection.last_ordered = Some(sequence);
        }
        let steps = vec![Step { command, database, arguments }];
        let steps = Steps::new(steps, target, protocol, Manner::Alone);
        self.begin_script(steps, Some(command));
    }

    /// Runs the present step, a script.
    pub(in crate::core) fn run_script(&mut self, steps: &mut Steps) -> Progress {
        let clock = Instant::now();
        let protocol = self.protocol_of(steps);
        let command = steps.current().command;
        let arguments = std::mem::take(&mut steps.current_mut().arguments);
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, protocol);
        let outcome = self.run_script_of(steps, command, arguments.borrow(), &mut reply);
        steps.current_mut().arguments = arguments;
        let outcome = match outcome {
            Ok(Some(done)) => self.finish_script(steps, done),
            Ok(None) => return Progress::Again,
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = outcome {
            self.stats.commands[usize::from(command.number)].failed += 1;
            self.stats.refuse(refusal.line(), 0, &mut Reply::new(&mut out, protocol));
        }
        steps.replies.extend_from_slice(&out);
        let took = match steps.is_exec() {
            true => self.stats.count(command, 1, clock).duration_since(clock),
            false => clock.elapsed(),
        };
        if let Target::Connection { index, .. } = steps.target {
            let arguments = steps.current().arguments.borrow();
            self.note_slow(command, took, index, arguments);
        }
        Progress::Done
    }

    /// The script, and its keys and arguments. Errors: there is none such, or the count of keys is none.
    fn find_script<'a>(
        &mut self,
        command: &Command,
        arguments: Arguments<'a>,
    ) -> Result<(Script, Words<'a>), Refusal> {
        let name = arguments.at(1);
        if matches!(command.run, RunKind::Script(ScriptBy::Function)) {
            // As in Redis it is looked for before its keys are counted.
            let script = self.interpreter()?.function(name)?;
            return Ok((
                script,
                words_of(arguments, Refusal::text("ERR Bad number of keys provided"))?,
            ));
        }
        let words = words_of(arguments, Refusal::NotAnInteger)?;
        let script = match command.run {
            RunKind::Script(ScriptBy::Digest) => self.interpreter()?.known(name)?,
            _ => self.interpreter()?.script(name)?,
        };
        Ok((script, words))
    }

    /// `None`: it must run again. Errors: it cannot run.
    fn run_script_of(
        &mut self,
        steps: &mut Steps,
        command: &'static Command,
        arguments: Arguments<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Option<Ended>, Refusal> {
        let (script, words) = self.find_script(command, arguments)?;
        let traits = script.traits;
        let lacks_memory = !traits.allow_oom() && self.lacks_memory(command, arguments);
        if lacks_memory && traits.declares && !traits.no_writes() {
            return Err(Refusal::text(OUT_OF_MEMORY));
        }
        if command.flags.readonly && traits.declares && !traits.no_writes() {
            let text = "ERR Can not execute a script with write flag using *_ro command.";
            return Err(Refusal::text(text));
        }
        let place = steps.place();
        let now_ms = *steps.retry.now_ms.get_or_insert(self.turn.now_ms);
        let run = Box::new(Run {
            overlay: steps.overlay.take().expect("it is there while steps are locked"),
            sights: std::mem::take(&mut steps.sights),
            push: std::mem::take(&mut self.push),
            database: steps.current().database,
            now_ms,
            hasher: self.router.hasher(),
            seed: steps.current_seed(),
            string_bytes_max: self.settings.proto_max_bulk_len as usize,
            read_only: command.flags.readonly || traits.no_writes(),
            out_of_memory: lacks_memory,
            is_whole: steps.retry.holds_whole,
            answers: steps.retry.answers.remove(&place).unwrap_or_default(),
            is_watched: self.shared.monitor_count.load(Ordering::Relaxed) > 0,
            done: Done::default(),
        });
        let limit = self.settings.script_time_limit;
        let limit = (limit > 0).then(|| Duration::from_millis(limit.into()));
        let interpreter = self.interpreter.as_ref().expect("the script was compiled there");
        let (run, outcome) = interpreter.run(&script, words, run, limit, reply);
        let lacks = run.lacks();
        let Run { overlay, sights, push, mut done, answers, .. } = *run;
        (steps.overlay, steps.sights) = (Some(overlay), sights);
        self.push = push;
        steps.retry.answers.insert(place, answers);
        if lacks && done.ended.is_none() {
            steps.retry.wanted.append(&mut done.wanted);
            steps.retry.question = done.question.take();
            steps.retry.whole |= done.needs_whole;
            return Ok(None);
        }
        Ok(Some((done, outcome)))
    }

    /// A script has run to its end: what it did is done, or will be.
    fn finish_script(&mut self, steps: &mut Steps, (done, outcome): Ended) -> Result<(), Refusal> {
        for (command, took, failed) in done.ran {
            self.stats.count_span(command, 1, took.as_nanos() as u64);
            self.stats.commands[usize::from(command.number)].failed += u64::from(failed);
        }
        for (level, text) in done.logged {
            emit(level, &text);
        }
        for (database, arguments) in &done.shown {
            self.show_line(*database, "lua", arguments.borrow());
        }
        if done.ended.is_some() {
            // Nothing of it is done, nor of the transaction that it is part of.
            let refusal = outcome.err().unwrap_or(Refusal::text("ERR Script killed"));
            steps.failure = Some(refusal.line());
            return Ok(());
        }
        for effect in done.effects {
            match effect {
                Effect::Item(database, hash, arguments) => {
                    let shard = self.router.shard(hash);
                    steps.push_effect(shard, (INSTALL, database, hash), arguments.borrow());
                }
                Effect::All(command, database, arguments) => {
                    for shard in 0..self.router.shard_count() as u16 {
                        let effect = (command.number, database, KeyHash::default());
                        let shard = ringraft_shards::ids::ShardId(shard);
                        steps.push_effect(shard, effect, arguments.borrow());
                    }
                }
            }
        }
        steps.published.extend(done.published);
        outcome
    }

    /// A script lacks something: it runs again with it.
    pub(in crate::core) fn run_again(&mut self, id: TransactionId, mut steps: Box<Steps>) {
        if let Some((command, database, arguments)) = steps.retry.question.take() {
            let asking = Step { command, database, arguments };
            let script = std::mem::replace(steps.current_mut(), asking);
            steps.retry.asking = Some((script, steps.replies.len()));
            if self.run_everywhere(&mut steps) == Progress::Done {
                return self.answered(steps);
            }
            return self.suspend(steps);
        }
        self.rewind(&mut steps);
        if steps.retry.holds_whole {
            return self.fetch_again(steps);
        }
        steps.retry.attempts += 1;
        steps.retry.whole |= steps.retry.attempts >= SCRIPT_ATTEMPTS_MAX;
        steps.retry.holds_whole = steps.retry.whole;
        steps.retry.now_ms = None;
        steps.retry.answers.clear();
        self.begin_again(id, steps);
    }

    /// Is a question of a script on its way? Then what has come is its answer.
    pub(in crate::core) fn is_asking(steps: &Steps) -> bool {
        steps.retry.asking.is_some()
    }

    /// A question of a script was answered, behind the replies so far.
    pub(in crate::core) fn answered(&mut self, mut steps: Box<Steps>) {
        let (script, start) = steps.retry.asking.take().expect("the caller looked");
        let reply = steps.replies.split_off(start);
        let asked = std::mem::replace(steps.current_mut(), script);
        let answer = Answered { arguments: asked.arguments, reply };
        steps.retry.answers.entry(steps.place()).or_default().push(answer);
        self.rewind(&mut steps);
        self.fetch_again(steps);
    }

    /// Nothing of the steps has happened.
    fn rewind(&mut self, steps: &mut Steps) {
        if let Some(mut overlay) = steps.overlay.take() {
            overlay.take_events();
            overlay.drain(self.turn.now_ms, |_, _, _| {});
            if steps.sights.are_whole() {
                self.spare_overlay = Some(overlay);
            }
        }
        steps.rewind();
    }

    /// Reads all that the steps need once more, while all shards are locked.
    fn fetch_again(&mut self, mut steps: Box<Steps>) {
        let no_watches: [Watched; 0] = [];
        let parts = self.needs_of(steps.list(), &no_watches, &steps.retry);
        let protocol = Protocol::default();
        let gather = self.step_gather(protocol, parts.len());
        steps.retry.fetches = true;
        self.suspend(steps);
        for (nth, part) in parts.into_iter().enumerate() {
            let target = Target::Gather { index: gather, part: nth as u32 };
            let origin = Origin { core: self.id, target, protocol, rides: true, no_touch: true };
            let keys = part.fetch.what.into_items();
            self.at_shard(part.shard, move |core, local| {
                let shard = &core.shards[local];
                let mut found = Vec::new();
                let mut reply = Reply::new(&mut found, protocol);
                reply.array(keys.len());
                for (database, key) in &keys {
                    let view = shard.keyspace.view(*database, shard.time(core.turn.now_ms));
                    let item = view.get(&Key::new(key, view.hasher().hash(key)));
                    let copy = install(key, item);
                    reply.array(copy.borrow().count() + 1);
                    reply.bulk(&[database.0]);
                    copy.borrow().iter_from(0).for_each(|argument| reply.bulk(argument));
                }
                core.answers.write(origin, |out| out.extend_from_slice(&found));
            });
        }
    }

    /// What the steps need has come: they run from the start.
    pub(in crate::core) fn fetched_again(
        &mut self,
        id: TransactionId,
        mut steps: Box<Steps>,
        parts: &[Part],
    ) {
        steps.retry.fetches = false;
        let mut overlay = self.take_overlay();
        for copy in parts.iter().flat_map(|part| Elements::of(&part.reply)) {
            let mut words = Elements::of(copy).map(bulk_of);
            let database = words.next().and_then(|word| word.first()).copied().unwrap_or(0);
            let arguments: OwnedArguments = words.collect();
            overlay.install(DatabaseIndex(database), arguments.borrow(), self.turn.now_ms);
        }
        overlay.begin();
        steps.overlay = Some(overlay);
        self.go_on_locked(id, steps);
    }
}
