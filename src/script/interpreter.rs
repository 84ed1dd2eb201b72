//! What a core runs scripts with: its interpreter, and the scripts that it has compiled.

use super::bytecode::Powers;
use super::call::{Ending, Run};
use super::fiber::{self, Fiber, Pause, Stack, Step};
use super::functions::{Functions, Loaded, Registered};
use super::interface;
use super::library::{Busy, Digest, Kind, Library, RunState};
use super::quick::{ByItself, Desk, Door, Pinned, Visit};
use super::raise::text_of;
use super::sandbox::{Sandbox, interpreter};
use super::shebang::{self, Traits};
use super::values::to_reply;
use super::{arguments::bytes_of, sha1};
use crate::commands::Command;
use crate::core::push::Push;
use crate::limits::{
    LIBRARY_LOAD_TIME_MAX, SCRIPT_GUESS_TICKS_MAX, SCRIPT_SLICE, SCRIPT_TICK_INSTRUCTIONS,
    SCRIPTS_COMPILED_MAX, SCRIPTS_PER_GC_RESTART,
};
use crate::refusal::Refusal;
use crate::resp::reply::{Protocol, Reply};
use mlua::chunk::ChunkMode;
use mlua::{Function, HookTriggers, Lua, MultiValue, Table, Value, VmState};
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A compiled script.
pub struct Script {
    title: Title,
    /// What it says of itself.
    pub traits: Traits,
    callee: Callee,
    /// So many runs are to be on copies, after one on a shard's own items that came to nothing.
    pub detours: Rc<Cell<u32>>,
}

/// What is called.
enum Callee {
    /// A script, with KEYS and ARGV.
    Script(Pinned),
    /// A function, with its arguments.
    Function(Function),
}

/// What names a script in its errors.
enum Title {
    /// A script.
    Digest(Digest),
    /// A function.
    Function(Rc<[u8]>),
}

impl Script {
    fn kind(&self) -> Kind {
        match self.title {
            Title::Digest(_) => Kind::Script,
            Title::Function(_) => Kind::Function,
        }
    }
}

/// A script to run.
pub struct Job {
    /// The script.
    pub script: Rc<Script>,
    /// The arguments of the command that runs it.
    pub arguments: OwnedArguments,
    /// How many of them are keys, from the fourth on.
    pub key_count: usize,
    /// How its reply is written.
    pub protocol: Protocol,
    /// How long it may run.
    pub limit: Option<Duration>,
    /// Are others told of it when it rests?
    pub is_told: bool,
    /// How long it runs before it rests.
    pub patience: Duration,
    /// When it begins.
    pub began: Instant,
}

/// How far a script has come.
pub enum Came {
    /// To its end.
    Ended(Box<RunEnded>),
    /// It rests.
    Rests(Box<Resting>),
}

/// A run that has ended.
pub struct RunEnded {
    /// What ran it.
    pub interpreter: Box<Interpreter>,
    /// The arguments of its command.
    pub arguments: OwnedArguments,
    /// What it did.
    pub run: Box<Run>,
    /// Its reply.
    pub reply: Vec<u8>,
    /// Or its error.
    pub outcome: Result<(), Refusal>,
}

/// A script that rests.
pub struct Resting {
    fiber: Fiber<RunEnded>,
    place: Place,
    library: Arc<Library>,
    state: RunState,
    is_busy: bool,
}

impl Came {
    fn ended(mut ended: RunEnded, stack: Stack) -> Came {
        ended.interpreter.stack = Some(stack);
        Came::Ended(Box::new(ended))
    }
}

impl Resting {
    /// Gives the core what it knows of channels while the script rests, and takes it back.
    pub fn exchange_push(&mut self, push: &mut Push) {
        if let Some(run) = self.place.run.borrow_mut().as_mut() {
            std::mem::swap(push, &mut run.push);
        }
    }

    /// It ends as soon as it goes on.
    pub fn end(&self) {
        self.place.stop();
    }

    /// Goes on until it ends or rests again.
    pub fn resume(self) -> Came {
        let Resting { fiber, place, library, state, is_busy } = self;
        match fiber.resume() {
            Step::Ended(ended, stack) => {
                if is_busy {
                    library.end_busy(&state);
                }
                Came::ended(ended, stack)
            }
            Step::Rests(fiber) => {
                Came::Rests(Box::new(Resting { fiber, place, library, state, is_busy }))
            }
        }
    }
}

impl Busy {
    fn of(state: RunState, job: &Job) -> Busy {
        let words = job.arguments.borrow();
        let name = words.at(1).to_vec();
        let command = words.iter_from(0).map(<[u8]>::to_vec).collect();
        Busy { state, kind: job.script.kind(), name, command, began: Instant::now() }
    }
}

/// Where the run that is under way is, for the functions that it calls.
#[derive(Clone, Default)]
pub struct Place {
    run: Rc<RefCell<Option<Box<Run>>>>,
    protocol: Rc<Cell<Protocol>>,
    stopping: Rc<Cell<bool>>,
}

impl Place {
    /// How replies are read.
    pub fn protocol(&self) -> Protocol {
        self.protocol.get()
    }

    /// Chooses it.
    pub fn set_protocol(&self, protocol: Protocol) {
        self.protocol.set(protocol);
    }

    /// The run ends at the next occasion, whatever the script catches.
    pub fn stop(&self) {
        self.stopping.set(true);
    }

    /// Does it?
    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Runs a command; its reply goes to the memory of `out`, which is empty.
    pub fn command(&self, protocol: Protocol, arguments: &OwnedArguments, out: Vec<u8>) -> Ending {
        match self.run.borrow_mut().as_mut() {
            Some(run) if !self.is_stopping() => run.command(protocol, arguments, out),
            _ => Ending::Stop,
        }
    }

    /// May the client that runs the script run a command?
    pub fn allows(&self, command: &Command, arguments: Arguments<'_>) -> bool {
        let run = self.run.borrow();
        run.as_ref().is_none_or(|run| run.check_rights(command, arguments).is_ok())
    }

    /// Notes a line for the log.
    pub fn log(&self, level: i64, text: String) {
        match self.run.borrow_mut().as_mut() {
            Some(run) => run.done.logged.push((level, text)),
            // A library that is loaded.
            None => emit(level, &text),
        }
    }

    fn guesses(&self) -> bool {
        self.run.borrow().as_ref().is_some_and(|run| run.lacks())
    }
}

/// Writes what a script logs.
pub fn emit(level: i64, text: &str) {
    match level {
        0 | 1 => tracing::debug!("script: {text}"),
        2 => tracing::info!("script: {text}"),
        _ => tracing::warn!("script: {text}"),
    }
}

/// How long a script may run, and who may end it.
struct Watch {
    state: RunState,
    library: Arc<Library>,
    began: Cell<Instant>,
    /// No script runs longer; none: as long as it likes.
    limit: Cell<Option<Duration>>,
    /// What it is told when it has.
    lateness: Cell<&'static str>,
    guessed_ticks: Cell<u32>,
    is_strict: Cell<bool>,
    /// What lets it rest.
    pause: Pause,
    /// When it began or went on.
    resumed: Cell<Instant>,
    /// How long it runs before it rests, or before it is stopped if it does not rest.
    slice: Cell<Duration>,
    /// Does it run to its end at once?
    rests_never: Cell<bool>,
    /// Why the run was made to end, if it was.
    ended: Cell<Option<&'static str>>,
}

/// A core's interpreter.
pub struct Interpreter {
    lua: Lua,
    sandbox: Sandbox,
    place: Place,
    /// Functions of the interpreter have its address.
    _desk: Rc<Desk>,
    watch: Rc<Watch>,
    protected_call: Function,
    handler: Function,
    /// How scripts are called past the bridge.
    door: Door,
    compiled: HashMap<Digest, Rc<Script>, ByItself>,
    /// The script that was asked for last by its digest, and the digits.
    last: Option<([u8; 40], Rc<Script>)>,
    generation: u64,
    functions: Functions,
    /// Memory that it may have.
    bytes_max: Cell<usize>,
    /// Where the next script runs.
    stack: Option<Stack>,
    /// Scripts that have run.
    runs: Cell<u32>,
}

impl Interpreter {
    /// With this much memory. Errors: it is too little.
    pub fn new(library: Arc<Library>, bytes_max: usize) -> mlua::Result<Interpreter> {
        let lua = interpreter()?;
        lua.set_memory_limit(bytes_max)?;
        let protected_call: Function = lua.globals().raw_get("xpcall")?;
        let sandbox = Sandbox::new(&lua)?;
        let place = Place::default();
        let desk = Desk::new(place.clone());
        let redis = sandbox.front(&lua, &interface::table(&lua, &place, &desk)?)?;
        sandbox.globals.raw_set("redis", redis.clone())?;
        sandbox.globals.raw_set("server", redis)?;
        let redis = interface::table(&lua, &place, &desk)?;
        let functions = Functions::new(&lua, &sandbox, redis, protected_call.clone())?;
        let generation = library.generation();
        let watch = Rc::new(Watch {
            state: library.enroll(),
            library,
            began: Cell::new(Instant::now()),
            limit: Cell::new(None),
            lateness: Cell::new(""),
            guessed_ticks: Cell::new(0),
            is_strict: Cell::new(false),
            pause: Pause::default(),
            resumed: Cell::new(Instant::now()),
            slice: Cell::new(Duration::MAX),
            rests_never: Cell::new(false),
            ended: Cell::new(None),
        });
        let handler = lua.create_function(explain)?;
        let door = Door::new(&lua, &sandbox.globals, &handler)?;
        let compiled = HashMap::default();
        let made = Interpreter {
            lua,
            sandbox,
            place,
            _desk: desk,
            watch,
            protected_call,
            handler,
            door,
            compiled,
            last: None,
            generation,
            functions,
            bytes_max: Cell::new(bytes_max),
            stack: None,
            runs: Cell::new(0),
        };
        made.hook(SCRIPT_TICK_INSTRUCTIONS)?;
        Ok(made)
    }

    /// How much memory it may have.
    pub fn set_memory_limit(&self, bytes_max: usize) {
        // Lua 5.1 has one: nothing to fail.
        let _ = self.lua.set_memory_limit(bytes_max);
        self.bytes_max.set(bytes_max);
    }

    /// Memory it has.
    pub fn used_bytes(&self) -> usize {
        self.lua.used_memory()
    }

    fn hook(&self, instructions: u32) -> mlua::Result<()> {
        let (watch, place) = (self.watch.clone(), self.place.clone());
        let triggers = HookTriggers::new().every_nth_instruction(instructions);
        self.lua.set_global_hook(triggers, move |lua, _| {
            let Some(reason) = watch.why_to_end(&place) else {
                watch.rest_when_due();
                return Ok(VmState::Continue);
            };
            if !watch.is_strict.replace(true) {
                // A script may catch this: then it is told again at once.
                let watch = watch.clone();
                let place = place.clone();
                let triggers = HookTriggers::new().every_nth_instruction(1);
                lua.set_global_hook(triggers, move |_, _| match watch.why_to_end(&place) {
                    Some(reason) => Err(mlua::Error::runtime(reason)),
                    None => Ok(VmState::Continue),
                })?;
            }
            Err(mlua::Error::runtime(reason))
        })
    }

    /// Forgets what it has compiled when SCRIPT FLUSH was called.
    fn refresh(&mut self) {
        let generation = self.watch.library.generation();
        if std::mem::replace(&mut self.generation, generation) != generation {
            self.compiled.clear();
            self.last = None;
        }
    }

    /// The script of a text, which is made known to all cores.
    /// Errors: it is none.
    pub fn script(&mut self, text: &[u8]) -> Result<Rc<Script>, Refusal> {
        self.refresh();
        let digest = sha1::digest(text);
        if let Some(script) = self.compiled.get(&digest) {
            return Ok(script.clone());
        }
        let script = self.compile(digest, text)?;
        self.watch.library.add(digest, text);
        Ok(script)
    }

    /// The script of a digest. Errors: nobody has loaded it.
    pub fn known(&mut self, digits: &[u8]) -> Result<Rc<Script>, Refusal> {
        const NO_SCRIPT: Refusal = Refusal::text("NOSCRIPT No matching script. Please use EVAL.");
        self.refresh();
        if let Some((_, script)) = self.last.as_ref().filter(|(last, _)| last == digits) {
            return Ok(script.clone());
        }
        let digest = sha1::parse(digits).ok_or(NO_SCRIPT)?;
        let script = match self.compiled.get(&digest) {
            Some(script) => script.clone(),
            None => {
                let text = self.watch.library.text(&digest).ok_or(NO_SCRIPT)?;
                self.compile(digest, &text)?
            }
        };
        self.last = digits.try_into().ok().map(|digits| (digits, script.clone()));
        Ok(script)
    }

    fn compile(&mut self, digest: Digest, text: &[u8]) -> Result<Rc<Script>, Refusal> {
        let (traits, body) = shebang::of_script(text)?;
        let chunk = self.lua.load(body).set_name("@user_script");
        let function = chunk.set_mode(ChunkMode::Text).into_function().map_err(|error| {
            let text = text_of(&error);
            Refusal::Text(format!("ERR Error compiling script (new function): {text}").into())
        })?;
        let no_memory = |_| Refusal::text("ERR not enough memory");
        let powers = Powers::of(&function.dump(true));
        if !powers.sets_globals {
            // It has no means to change what is global: so it may look there, instead of through
            // the empty table in front.
            let globals = self.sandbox.globals.clone();
            function.set_environment(globals).map_err(no_memory)?;
        }
        let pinned = Pinned::new(&self.lua, function, powers).map_err(no_memory)?;
        let callee = Callee::Script(pinned);
        let (title, detours) = (Title::Digest(digest), Rc::default());
        let script = Rc::new(Script { title, traits, callee, detours });
        if self.compiled.len() >= SCRIPTS_COMPILED_MAX {
            self.compiled.clear();
        }
        self.compiled.insert(digest, script.clone());
        Ok(script)
    }

    /// Takes over what has changed of the process' functions.
    pub fn functions(&mut self) -> &Functions {
        let library = self.watch.library.clone();
        let version = library.functions_version();
        if version == self.functions.version {
            return &self.functions;
        }
        let libraries = library.functions();
        let is_left = |name: &[u8], loaded: &Loaded| {
            libraries.get(name).is_some_and(|code| Arc::ptr_eq(code, &loaded.code))
        };
        let known = self.functions.libraries.iter();
        let gone: Vec<Vec<u8>> =
            known.filter(|(name, own)| !is_left(name, own)).map(|(name, _)| name.clone()).collect();
        gone.iter().for_each(|name| self.functions.remove(name));
        for (name, code) in libraries.iter() {
            if self.functions.libraries.contains_key(name) {
                continue;
            }
            match self.load_library(code) {
                Ok((name, functions)) => {
                    self.functions.insert(name, Loaded { code: code.clone(), functions });
                }
                // It was loaded once: there is too little memory now, or the server is another one.
                Err(refusal) => {
                    let name = String::from_utf8_lossy(name);
                    tracing::error!("the library {name} cannot be loaded: {refusal}");
                }
            }
        }
        self.functions.version = libraries.change_count();
        &self.functions
    }

    /// A function. Errors: there is none such.
    pub fn function(&mut self, name: &[u8]) -> Result<Rc<Script>, Refusal> {
        let registered = self.functions().by_name.get(name);
        let Registered { name, traits, function, detours, .. } =
            registered.ok_or(Refusal::text("ERR Function not found"))?;
        let (title, callee) = (Title::Function(name.clone()), Callee::Function(function.clone()));
        Ok(Rc::new(Script { title, traits: *traits, callee, detours: detours.clone() }))
    }

    /// Runs a library for what it registers: its name and its functions.
    /// Errors: it is none, or fails.
    pub fn load_library(&self, code: &[u8]) -> Result<(Vec<u8>, Vec<Registered>), Refusal> {
        let (name, body) = shebang::of_library(code)?;
        let chunk = self.lua.load(body).set_name("@user_function").set_mode(ChunkMode::Text);
        let chunk = chunk.set_environment(self.functions.environment.clone()).into_function();
        let run = chunk.map_err(|error| {
            Refusal::Text(format!("ERR Error compiling function: {}", text_of(&error)).into())
        })?;
        let failed =
            |text: &[u8]| Refusal::Bytes([b"ERR Error registering functions: ", text].concat());
        let broken = |error: mlua::Error| failed(format!("ERR {}", text_of(&error)).as_bytes());
        self.functions.begin_loading().map_err(broken)?;
        self.place.stopping.set(false);
        let now = Instant::now();
        self.watch.begin(Kind::Function, now, Some(LIBRARY_LOAD_TIME_MAX), "FUNCTION LOAD timeout");
        let ended = self.protected_call.call::<MultiValue>((run, self.handler.clone()));
        self.end_run();
        let functions = self.functions.end_loading().map_err(broken)?;
        let mut results = ended.map_err(broken)?.into_iter();
        if results.next() != Some(Value::Boolean(true)) {
            let error = results.next().unwrap_or(Value::Nil);
            let text = match &error {
                Value::Table(table) => {
                    table.raw_get::<Value>("err").ok().as_ref().and_then(bytes_of)
                }
                other => bytes_of(other),
            };
            return Err(failed(&text.unwrap_or_else(|| b"ERR unknown error".to_vec())));
        }
        if functions.is_empty() {
            return Err(Refusal::text("ERR No functions registered"));
        }
        Ok((name, functions))
    }

    /// What runs has come to its end.
    fn end_run(&self) {
        self.watch.state.end();
        if self.watch.is_strict.replace(false) {
            // It was set a moment ago with the same means.
            let _ = self.hook(SCRIPT_TICK_INSTRUCTIONS);
        }
        self.runs.set(self.runs.get().wrapping_add(1));
        if self.runs.get().is_multiple_of(SCRIPTS_PER_GC_RESTART) {
            // A script may have stopped it. Each restart begins a step at once.
            self.lua.gc_restart();
            self.door.forget_rows();
        }
        if self.lua.used_memory() > self.bytes_max.get() / 2 {
            // Lua 5.1 does not collect when memory runs out: the next script is to find some.
            let _ = self.lua.gc_collect();
        }
    }

    /// Runs a script, until it ends or rests. Whether it must run again, the run says.
    pub fn start(mut self: Box<Self>, job: Job, run: Box<Run>) -> Came {
        let stack = match self.stack.take().map_or_else(Stack::new, Ok) {
            Ok(stack) => stack,
            Err(_) => {
                let outcome = Err(Refusal::text("ERR not enough memory for scripts"));
                let (arguments, reply) = (job.arguments, Vec::new());
                return Came::Ended(Box::new(RunEnded {
                    interpreter: self,
                    arguments,
                    run,
                    reply,
                    outcome,
                }));
            }
        };
        let (pause, place) = (self.watch.pause.clone(), self.place.clone());
        let (library, state) = (self.watch.library.clone(), self.watch.state.clone());
        let busy = job.is_told.then(|| Busy::of(state.clone(), &job));
        let work = move || {
            let mut reply = Vec::new();
            let (run, outcome) = self.run(&job, run, &mut reply);
            let arguments = job.arguments;
            RunEnded { interpreter: self, arguments, run, reply, outcome }
        };
        match fiber::start(stack, pause, work) {
            Step::Ended(ended, stack) => Came::ended(ended, stack),
            Step::Rests(fiber) => {
                let is_busy = busy.is_some();
                busy.into_iter().for_each(|busy| library.begin_busy(busy));
                Came::Rests(Box::new(Resting { fiber, place, library, state, is_busy }))
            }
        }
    }

    /// Runs a script to its end: it does not rest, and is stopped after its time of patience. Its
    /// reply goes to the memory of `reply`, which is empty.
    /// Errors: as [`Interpreter::run`].
    pub fn run_at_once(
        &mut self,
        job: &Job,
        run: Box<Run>,
        reply: &mut Vec<u8>,
    ) -> (Box<Run>, Result<(), Refusal>) {
        let Ok(mut stack) = self.stack.take().map_or_else(Stack::new, Ok) else {
            return (run, Err(Refusal::text("ERR not enough memory for scripts")));
        };
        self.watch.rests_never.set(true);
        let ended = fiber::run_whole(&mut stack, || self.run(job, run, reply));
        self.watch.rests_never.set(false);
        self.stack = Some(stack);
        ended
    }

    /// Was the last run stopped before its end, to run again?
    pub fn was_stopped(&self) -> bool {
        self.place.is_stopping()
    }

    /// Runs a script; its reply goes to `out`.
    /// Errors: it ends in one, or its reply cannot be written.
    fn run(&self, job: &Job, run: Box<Run>, out: &mut Vec<u8>) -> (Box<Run>, Result<(), Refusal>) {
        let script = &job.script;
        let reply = &mut Reply::new(out, job.protocol);
        self.place.set_protocol(Protocol::Resp2);
        self.place.stopping.set(false);
        // Other numbers for every script, the same ones when it runs again.
        self.sandbox.random.seed(run.seed as i32);
        *self.place.run.borrow_mut() = Some(run);
        let lateness = "Script ran longer than script-time-limit.";
        self.watch.begin(script.kind(), job.began, job.limit, lateness);
        self.watch.slice.set(job.patience);
        let words = job.arguments.borrow().tail(3);
        let outcome = self.run_protected(script, words, job.key_count, reply);
        self.end_run();
        let mut run = self.place.run.borrow_mut().take().expect("it was put there");
        run.done.ended = self.watch.ended.get();
        (run, outcome)
    }

    fn run_protected(
        &self,
        script: &Script,
        words: Arguments<'_>,
        key_count: usize,
        reply: &mut Reply<'_>,
    ) -> Result<(), Refusal> {
        let (is_well, value) = match &script.callee {
            Callee::Script(pinned) => {
                let protocol = self.place.protocol.clone();
                let mut visit = Visit::new(&self.door, pinned, words, key_count, &protocol, reply);
                if self.door.call(&mut visit) {
                    return Ok(());
                }
                let is_well = visit.is_well();
                (is_well, self.door.take_value(&self.lua))
            }
            Callee::Function(function) => {
                let results = self.call_function(function, words, key_count);
                let results = results.map(MultiValue::into_iter).map(|mut results| {
                    let is_well = results.next() == Some(Value::Boolean(true));
                    (is_well, results.next().unwrap_or(Value::Nil))
                });
                results.map_or_else(|error| (false, Err(error)), |(well, value)| (well, Ok(value)))
            }
        };
        let value =
            value.map_err(|error| Refusal::Text(format!("ERR {}", text_of(&error)).into()))?;
        match is_well {
            true => to_reply(&value, self.place.protocol(), reply),
            false => Err(final_error(&value, &script.title)),
        }
    }

    fn call_function(
        &self,
        function: &Function,
        words: Arguments<'_>,
        key_count: usize,
    ) -> mlua::Result<MultiValue> {
        let keys = self.strings(words.iter_from(0).take(key_count))?;
        let arguments = self.strings(words.iter_from(key_count))?;
        let (run, handler) = (function.clone(), self.handler.clone());
        self.functions.calling.call((run, handler, keys, arguments))
    }

    fn strings<'a>(&self, words: impl Iterator<Item = &'a [u8]>) -> mlua::Result<Table> {
        let table = self.lua.create_table()?;
        for (nth, word) in words.enumerate() {
            table.raw_set(nth + 1, self.lua.create_string(word)?)?;
        }
        Ok(table)
    }
}

impl Watch {
    fn begin(&self, kind: Kind, now: Instant, limit: Option<Duration>, lateness: &'static str) {
        self.began.set(now);
        self.limit.set(limit);
        self.lateness.set(lateness);
        self.guessed_ticks.set(0);
        self.ended.set(None);
        self.resumed.set(now);
        self.slice.set(Duration::MAX);
        self.state.begin(kind);
    }

    /// Lets the core do other things when the script has run for long and may rest.
    fn rest_when_due(&self) {
        if !self.rests_never.get() && self.resumed.get().elapsed() >= self.slice.get() {
            self.pause.rest();
            self.resumed.set(Instant::now());
            self.slice.set(SCRIPT_SLICE);
        }
    }

    fn why_to_end(&self, place: &Place) -> Option<&'static str> {
        if self.rests_never.get() && self.resumed.get().elapsed() >= self.slice.get() {
            place.stop();
        }
        if place.is_stopping() {
            return Some("the script runs again");
        }
        if place.guesses() {
            self.guessed_ticks.set(self.guessed_ticks.get() + 1);
            if self.guessed_ticks.get() > SCRIPT_GUESS_TICKS_MAX {
                place.stop();
                return Some("the script runs again");
            }
        }
        let is_late = || self.limit.get().is_some_and(|limit| self.began.get().elapsed() > limit);
        let reason = if self.state.is_killed() {
            Some("Script killed by user with SCRIPT KILL.")
        } else if self.library.ends.load(Ordering::Relaxed) {
            Some("the server is shutting down")
        } else {
            is_late().then_some(self.lateness.get())
        };
        if reason.is_some() {
            self.ended.set(reason);
        }
        self.ended.get()
    }
}

/// Makes a table of an error that is none, and notes where it arose, as Redis' handler does.
fn explain(lua: &Lua, error: Value) -> mlua::Result<Table> {
    let place = |level| {
        lua.inspect_stack(level, |frame| {
            let source = frame.source();
            let is_c = source.what == "C";
            (is_c, source.source.map(|name| name.into_owned()), frame.current_line())
        })
    };
    let mut found = place(1);
    if found.as_ref().is_some_and(|(is_c, ..)| *is_c) {
        found = place(2);
    }
    let table = match error {
        Value::Table(table) => table,
        other => {
            let text = match &other {
                Value::Error(error) => text_of(error).into_bytes(),
                Value::Nil => b"nil".to_vec(),
                Value::Boolean(value) => value.to_string().into_bytes(),
                other => bytes_of(other).unwrap_or_else(|| {
                    format!("{}: {:p}", other.type_name(), other.to_pointer()).into_bytes()
                }),
            };
            super::values::error(lua, &[b"ERR ", text.as_slice()].concat())?
        }
    };
    if let Some((_, source, line)) = found {
        table.raw_set("source", source)?;
        // As C says it where there is no line.
        table.raw_set("line", line.map_or(-1, |line| line as i64))?;
    }
    Ok(table)
}

fn final_error(error: &Value, title: &Title) -> Refusal {
    let Value::Table(table) = error else {
        let text = bytes_of(error).unwrap_or_default();
        return Refusal::Bytes([b"ERR ", text.as_slice()].concat());
    };
    let field = |name: &str| table.raw_get::<Value>(name).ok().as_ref().and_then(bytes_of);
    let mut text = field("err").unwrap_or_else(|| b"ERR unknown error".to_vec());
    if let (Some(source), Some(line)) = (field("source"), field("line")) {
        text.extend(b" script: ");
        match title {
            Title::Digest(digest) => text.extend(sha1::hexadecimal(digest).bytes()),
            Title::Function(name) => text.extend_from_slice(name),
        }
        text.extend(b", on ");
        text.extend(source);
        text.push(b':');
        text.extend(line);
        text.push(b'.');
    }
    Refusal::Bytes(text)
}
