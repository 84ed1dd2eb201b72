//! Scripts as steps of transactions: what they need, and how they run again when they need more
//! (decision 0013).
//!
//! A script runs to its end on the overlay, with the keys that it names locked. When it touches
//! others, nothing was written: its locks are released and the transaction begins again with those
//! keys too; after [`SCRIPT_ATTEMPTS_MAX`] times, or when it asks for all keys (KEYS, SCAN, DBSIZE
//! ...), with all shards locked whole. These locks are kept while the shards are asked for what it
//! lacks, and it runs again from the start, until it has everything.

use crate::acl::log::Place;
use crate::acl::user::User;
use crate::commands::{Command, Run as RunKind, ScriptBy};
use crate::core::Core;
use crate::core::OUT_OF_MEMORY;
use crate::core::client::answers::Target;
use crate::core::client::connection::Hold;
use crate::core::client::session::Watched;
use crate::core::gather::Part;
use crate::core::observe::command_log::Trait;
use crate::core::transact::copies::copies;
use crate::core::transact::steps::{Manner, Progress, Step, Steps};
use crate::limits::{SCRIPT_ATTEMPTS_MAX, SCRIPT_PATIENCE};
use crate::numbers::parse_integer;
use crate::refusal::Refusal;
use crate::resp::reply::{Protocol, Reply};
use crate::script::call::{Answered, Done, Effect, Run, Wanted};
use crate::script::ground::Ground;
use crate::script::interpreter::{Came, Interpreter, Job, Resting, RunEnded, Script, emit};
use crate::script::shebang::Traits;
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use ringraft_shards::ids::DatabaseIndex;
use ringraft_shards::keyspace::KeyHash;
use ringraft_shards::transaction::{INSTALL, TransactionId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What scripts among steps have been found to need, and what need not be done again when they run
/// again.
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
    /// Does the client keep copies of what it reads?
    pub(in crate::core) tracks: bool,
}

impl Retry {
    /// All begins again, at another time.
    pub(super) fn begin_anew(&mut self) {
        self.holds_whole = self.whole;
        self.now_ms = None;
        self.answers.clear();
    }
}

impl Step {
    /// Does it run a script?
    pub(in crate::core) fn is_script(&self) -> bool {
        self.command.is_script()
    }

    /// Must nobody else read what it touches?
    pub(in crate::core) fn is_exclusive(&self) -> bool {
        self.command.run.writes() || self.is_script() && !self.command.flags.readonly
    }
}

/// What a script did, and how it ended.
pub(super) type Ended = (Done, Result<(), Refusal>);

/// A script that rests, while its core does other things.
pub struct Rested {
    /// The suspension of its steps.
    suspension: u64,
    clock: Instant,
    resting: Box<Resting>,
}

/// What a core runs scripts with.
#[derive(Default)]
pub struct Scripts {
    /// Once there was one.
    pub(super) interpreter: Option<Box<Interpreter>>,
    /// Scripts that have run for long and rest.
    resting: Vec<Rested>,
    /// Their commands that wait for a reply, by number.
    pub(super) suspended: HashMap<u64, Box<Steps>>,
    /// The last of these numbers.
    pub(super) last_suspension: u64,
}

impl Scripts {
    /// Does any rest?
    pub fn any_rests(&self) -> bool {
        !self.resting.is_empty()
    }

    /// Bytes that the interpreter uses.
    pub fn used_bytes(&self) -> usize {
        self.interpreter.as_ref().map_or(0, |it| it.used_bytes())
    }
}

/// The count of a script's keys. Errors: it is none.
fn key_count(arguments: Arguments<'_>, no_count: Refusal) -> Result<usize, Refusal> {
    let count = parse_integer(arguments.at(2)).ok_or(no_count)?;
    let rest = arguments.count() - 3;
    if count > rest as i64 {
        return Err(Refusal::text("ERR Number of keys can't be greater than number of args"));
    }
    usize::try_from(count).map_err(|_| Refusal::text("ERR Number of keys can't be negative"))
}

impl Core {
    /// The interpreter, made when the first script comes. Errors: no memory for it.
    pub fn interpreter(&mut self) -> Result<&mut Interpreter, Refusal> {
        if self.scripts.interpreter.is_none() {
            let bytes_max = self.settings.script_memory as usize;
            let made = Interpreter::new(self.shared.scripts.clone(), bytes_max);
            let no_memory = |_| Refusal::text("ERR not enough memory for scripts: script-memory");
            self.scripts.interpreter = Some(Box::new(made.map_err(no_memory)?));
        }
        let interpreter = self.scripts.interpreter.as_mut().expect("just made");
        interpreter.set_memory_limit(self.settings.script_memory as usize);
        Ok(interpreter)
    }

    /// Starts a script of a client. If it does not run at once its connection goes on when it is
    /// answered: it may have to run again.
    pub(in crate::core) fn start_script(
        &mut self,
        index: u32,
        target: Target,
        command: &'static Command,
        arguments: OwnedArguments,
    ) {
        let connection = self.answers.connections.at_mut(index);
        let (database, protocol) = (connection.session.database, connection.session.protocol);
        let session = &connection.session;
        let user = session.is_limited.then(|| session.user.clone());
        let tried = self.run_in_place((index, target), (command, database), arguments, user);
        let Some((arguments, user)) = tried else { return };
        let steps = vec![Step { command, database, arguments, user }];
        let mut steps = Steps::new(steps, target, protocol, Manner::Alone);
        steps.retry.tracks = self.remembers_reads(index);
        let Some(steps) = self.run_ahead(steps) else { return };
        let connection = self.answers.connections.at_mut(index);
        connection.hold = Hold::Answer;
        if let Target::Connection { sequence, .. } = target {
            connection.last_ordered = Some(sequence);
        }
        self.begin_script(steps, Some(command));
    }

    /// Runs the present step, a script.
    pub(in crate::core) fn run_script(&mut self, steps: &mut Steps) -> Progress {
        let clock = Instant::now();
        let arguments = std::mem::take(&mut steps.current_mut().arguments);
        match self.prepare_script(steps, arguments.borrow()) {
            Ok((job, run)) => {
                let job = Job { arguments, ..job };
                let interpreter =
                    self.scripts.interpreter.take().expect("the script was compiled there");
                self.script_came(steps, interpreter.start(job, run), clock)
            }
            Err(refusal) => {
                steps.current_mut().arguments = arguments;
                self.reply_script(steps, Vec::new(), Err(refusal), clock)
            }
        }
    }

    /// A script has ended, or rests.
    fn script_came(&mut self, steps: &mut Steps, came: Came, clock: Instant) -> Progress {
        match came {
            Came::Ended(ended) => self.script_ended(steps, *ended, clock),
            Came::Rests(mut resting) => {
                resting.exchange_push(&mut self.push);
                self.scripts.last_suspension += 1;
                let suspension = self.scripts.last_suspension;
                self.scripts.resting.push(Rested { suspension, clock, resting });
                Progress::Waits
            }
        }
    }

    /// Lets the scripts that rest go on for a while.
    pub(in crate::core) fn resume_scripts(&mut self) {
        for rested in std::mem::take(&mut self.scripts.resting) {
            let Rested { suspension, clock, mut resting } = rested;
            let mut steps = self.scripts.suspended.remove(&suspension).expect("each has its steps");
            let id = steps.lock.expect("a script runs with locks");
            let is_given_up = self.transactions.coordinator.payload(id).is_none();
            if is_given_up {
                // It took too long: the locks are given up, and the client has been told.
                resting.end();
            }
            resting.exchange_push(&mut self.push);
            match self.script_came(&mut steps, resting.resume(), clock) {
                Progress::Waits => {
                    let resting = self.scripts.resting.last_mut().expect("just pushed");
                    self.scripts.suspended.insert(resting.suspension, steps);
                }
                _ if is_given_up => {}
                Progress::Done => {
                    steps.ran();
                    self.go_on_locked(id, steps);
                }
                Progress::Again => self.run_again(id, steps),
            }
        }
    }

    /// A script has run to its end, or to where it lacks something.
    fn script_ended(&mut self, steps: &mut Steps, ended: RunEnded, clock: Instant) -> Progress {
        let Some((ended, reply)) = self.take_ended(steps, ended) else { return Progress::Again };
        let outcome = self.finish_script(steps, ended);
        self.reply_script(steps, reply, outcome, clock)
    }

    /// Takes back what a run had, and says how it ended. `None`: it lacks something, which is
    /// noted.
    pub(super) fn take_ended(
        &mut self,
        steps: &mut Steps,
        ended: RunEnded,
    ) -> Option<(Ended, Vec<u8>)> {
        let RunEnded { interpreter, arguments, run, reply, outcome } = ended;
        // While it rested another one may have been made.
        self.scripts.interpreter.get_or_insert(interpreter);
        steps.current_mut().arguments = arguments;
        let lacks = run.lacks();
        let Run { ground, sights, push, mut done, answers, .. } = *run;
        let Ground::Overlay(overlay) = ground else {
            unreachable!("steps run on an overlay");
        };
        (steps.overlay, steps.sights) = (Some(overlay), sights);
        self.push = push;
        if !answers.is_empty() {
            let place = steps.place();
            steps.retry.answers.insert(place, answers);
        }
        if lacks && done.ended.is_none() {
            steps.retry.wanted.append(&mut done.wanted);
            steps.retry.question = done.question.take();
            steps.retry.whole |= done.needs_whole;
            return None;
        }
        Some(((done, outcome), reply))
    }

    /// Writes the reply of a script, and counts it.
    pub(super) fn reply_script(
        &mut self,
        steps: &mut Steps,
        mut out: Vec<u8>,
        outcome: Result<(), Refusal>,
        clock: Instant,
    ) -> Progress {
        let (command, protocol) = (steps.current().command, self.protocol_of(steps));
        self.stats.finish(outcome, command, 0, &mut Reply::new(&mut out, protocol));
        steps.replies.extend_from_slice(&out);
        let took = match steps.is_exec() {
            true => self.stats.count(command, 1, clock).duration_since(clock),
            false => clock.elapsed(),
        };
        if let Target::Connection { index, .. } = steps.target {
            let arguments = steps.current().arguments.borrow();
            self.note_script(command, (took, out.len()), index, arguments);
        }
        Progress::Done
    }

    /// Keeps a script that took long, or whose reply is large.
    pub(super) fn note_script(
        &mut self,
        command: &'static Command,
        (took, size): (Duration, usize),
        index: u32,
        arguments: Arguments<'_>,
    ) {
        self.note_slow(command, took, index, arguments);
        if self.stats.noted.is_large_reply(size) {
            self.note_command(Trait::LargeReply, command, size as u64, index, arguments);
        }
    }

    /// The script, and its keys and arguments. Errors: there is none such, or the count of keys is
    /// none.
    pub(super) fn find_script(
        &mut self,
        command: &Command,
        arguments: Arguments<'_>,
    ) -> Result<(Rc<Script>, usize), Refusal> {
        let name = arguments.at(1);
        if matches!(command.run, RunKind::Script(ScriptBy::Function)) {
            // As in Redis it is looked for before its keys are counted.
            let script = self.interpreter()?.function(name)?;
            let no_count = Refusal::text("ERR Bad number of keys provided");
            return Ok((script, key_count(arguments, no_count)?));
        }
        let count = key_count(arguments, Refusal::NotAnInteger)?;
        let script = match command.run {
            RunKind::Script(ScriptBy::Digest) => self.interpreter()?.known(name)?,
            _ => self.interpreter()?.script(name)?,
        };
        Ok((script, count))
    }

    /// May a script run? True: it may, but memory is over its limit.
    pub(super) fn check_traits(
        &mut self,
        traits: Traits,
        command: &'static Command,
        arguments: Arguments<'_>,
    ) -> Result<bool, Refusal> {
        let lacks_memory = !traits.allow_oom() && self.lacks_memory(command, arguments);
        if lacks_memory && traits.declares && !traits.no_writes() {
            return Err(Refusal::text(OUT_OF_MEMORY));
        }
        if command.flags.readonly && traits.declares && !traits.no_writes() {
            let text = "ERR Can not execute a script with write flag using *_ro command.";
            return Err(Refusal::text(text));
        }
        Ok(lacks_memory)
    }

    /// What to run, but for its arguments, and with what. Errors: it cannot run.
    pub(super) fn prepare_script(
        &mut self,
        steps: &mut Steps,
        arguments: Arguments<'_>,
    ) -> Result<(Job, Box<Run>), Refusal> {
        let command = steps.current().command;
        let (script, key_count) = self.find_script(command, arguments)?;
        let traits = script.traits;
        let lacks_memory = self.check_traits(traits, command, arguments)?;
        let (limit, threshold) =
            (self.settings.script_time_limit, self.settings.busy_reply_threshold);
        let time = |ms: u32| (ms > 0).then(|| Duration::from_millis(ms.into()));
        let job = Job {
            script,
            arguments: OwnedArguments::default(),
            key_count,
            protocol: self.protocol_of(steps),
            limit: time(limit),
            is_told: threshold > 0,
            patience: time(threshold).unwrap_or(SCRIPT_PATIENCE),
            began: Instant::now(),
        };
        let place = steps.place();
        let run = Box::new(Run {
            ground: Ground::Overlay(
                steps.overlay.take().expect("it is there while steps are locked"),
            ),
            sights: std::mem::take(&mut steps.sights),
            push: std::mem::take(&mut self.push),
            database: steps.current().database,
            now_ms: *steps.retry.now_ms.get_or_insert(self.turn.now_ms),
            hasher: self.router.hasher(),
            last_key: (Vec::new(), self.router.hash(b"")),
            seed: steps.current_seed(),
            string_bytes_max: self.settings.proto_max_bulk_len as usize,
            read_only: command.flags.readonly || traits.no_writes(),
            out_of_memory: lacks_memory,
            is_whole: steps.retry.holds_whole,
            answers: steps.retry.answers.remove(&place).unwrap_or_default(),
            is_watched: self.shared.monitor_count.load(Ordering::Relaxed) > 0,
            is_tracked: steps.retry.tracks,
            user: steps.current().user.clone(),
            done: Done::default(),
        });
        Ok((job, run))
    }

    /// A script has run to its end: its commands are counted, and who is to hear of them does.
    pub(super) fn tell_of(&mut self, target: Target, user: Option<&Arc<User>>, done: &mut Done) {
        for ran in done.ran.iter().filter(|ran| ran.count > 0) {
            self.stats.count_span(ran.command, ran.count.into(), ran.nanoseconds);
            self.stats.commands[usize::from(ran.command.number)].failed += u64::from(ran.failed);
        }
        for (level, text) in done.logged.drain(..) {
            emit(level, &text);
        }
        for (database, arguments) in &done.shown {
            self.show_line(*database, "lua", arguments.borrow());
        }
        let Target::Connection { index, .. } = target else { return };
        if let Some(user) = user {
            for (denial, command, arguments) in &done.denied {
                let place = Place::Script;
                self.note_denial(index, user, *denial, place, command, arguments.borrow());
            }
        }
        for (command, arguments) in &done.read {
            // Nobody has changed its keys before the client is noted as a reader.
            self.remember_reads(index, command, arguments.borrow());
        }
    }

    /// A script has run to its end: what it did is done, or will be.
    pub(super) fn finish_script(
        &mut self,
        steps: &mut Steps,
        (mut done, outcome): Ended,
    ) -> Result<(), Refusal> {
        let user = steps.current().user.clone();
        self.tell_of(steps.target, user.as_ref(), &mut done);
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
            let asking = Step { command, database, arguments, user: None };
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
        steps.retry.begin_anew();
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
    pub(super) fn rewind(&mut self, steps: &mut Steps) {
        if let Some(mut overlay) = steps.overlay.take() {
            overlay.take_events();
            overlay.drain(self.turn.now_ms, |_, _, _| {});
            if steps.sights.are_whole() {
                self.spares.overlay = Some(overlay);
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
            self.ask_copies((gather, nth), part.shard, part.fetch.what.into_items());
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
        for (database, copy) in copies(parts) {
            overlay.install(database, copy.borrow(), self.turn.now_ms);
        }
        overlay.begin();
        steps.overlay = Some(overlay);
        self.go_on_locked(id, steps);
    }
}
