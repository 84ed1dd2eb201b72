//! What a core runs scripts with: its interpreter, and the scripts that it has compiled.

use super::call::{Ending, Run};
use super::interface;
use super::library::{Digest, Library};
use super::raise::text_of;
use super::sandbox::{Sandbox, interpreter};
use super::values::to_reply;
use super::{arguments::bytes_of, sha1};
use crate::limits::{SCRIPT_GUESS_TICKS_MAX, SCRIPT_TICK_INSTRUCTIONS, SCRIPTS_COMPILED_MAX};
use crate::refusal::Refusal;
use crate::resp::reply::{Protocol, Reply};
use mlua::chunk::ChunkMode;
use mlua::{Function, HookTriggers, Lua, MultiValue, Table, Value, VmState};
use ringraft_shards::arguments::OwnedArguments;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What a script says of itself in its first line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// It has such a line: Redis' newer rules hold.
    pub declares: bool,
    /// It does not write.
    pub no_writes: bool,
    /// It may run when memory is over its limit.
    pub allow_oom: bool,
}

/// A compiled script.
#[derive(Clone)]
pub struct Script {
    /// What names it.
    pub digest: Digest,
    /// What it says of itself.
    pub traits: Traits,
    function: Function,
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

    /// Runs a command.
    pub fn command(&self, protocol: Protocol, arguments: &OwnedArguments) -> Ending {
        match self.run.borrow_mut().as_mut() {
            Some(run) if !self.is_stopping() => run.command(protocol, arguments),
            _ => Ending::Stop,
        }
    }

    /// Notes a line for the log.
    pub fn log(&self, level: i64, text: String) {
        if let Some(run) = self.run.borrow_mut().as_mut() {
            run.done.logged.push((level, text));
        }
    }

    fn guesses(&self) -> bool {
        self.run.borrow().as_ref().is_some_and(|run| run.lacks())
    }
}

/// How long a script may run, and who may end it.
struct Watch {
    core: u16,
    library: Arc<Library>,
    began: Cell<Instant>,
    /// No script runs longer; none: as long as it likes.
    limit: Cell<Option<Duration>>,
    guessed_ticks: Cell<u32>,
    is_strict: Cell<bool>,
    /// Why the run was made to end, if it was.
    ended: Cell<Option<&'static str>>,
}

/// A core's interpreter.
pub struct Interpreter {
    lua: Lua,
    sandbox: Sandbox,
    place: Place,
    watch: Rc<Watch>,
    protected_call: Function,
    handler: Function,
    compiled: HashMap<Digest, Script>,
    generation: u64,
    /// Memory that it may have.
    bytes_max: Cell<usize>,
}

impl Interpreter {
    /// With this much memory. Errors: it is too little.
    pub fn new(core: u16, library: Arc<Library>, bytes_max: usize) -> mlua::Result<Interpreter> {
        let lua = interpreter()?;
        lua.set_memory_limit(bytes_max)?;
        let protected_call = lua.globals().raw_get("xpcall")?;
        let sandbox = Sandbox::new(&lua)?;
        let place = Place::default();
        let redis = sandbox.front(&lua, &interface::table(&lua, &place)?)?;
        sandbox.globals.raw_set("redis", redis.clone())?;
        sandbox.globals.raw_set("server", redis)?;
        let generation = library.generation();
        let watch = Rc::new(Watch {
            core,
            library,
            began: Cell::new(Instant::now()),
            limit: Cell::new(None),
            guessed_ticks: Cell::new(0),
            is_strict: Cell::new(false),
            ended: Cell::new(None),
        });
        let handler = lua.create_function(explain)?;
        let compiled = HashMap::new();
        let made = Interpreter {
            lua,
            sandbox,
            place,
            watch,
            protected_call,
            handler,
            compiled,
            generation,
            bytes_max: Cell::new(bytes_max),
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
            let Some(reason) = watch.why_to_end(&place) else { return Ok(VmState::Continue) };
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
        }
    }

    /// The script of a text, which is made known to all cores.
    /// Errors: it is none.
    pub fn script(&mut self, text: &[u8]) -> Result<Script, Refusal> {
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
    pub fn known(&mut self, digits: &[u8]) -> Result<Script, Refusal> {
        const NO_SCRIPT: Refusal = Refusal::text("NOSCRIPT No matching script. Please use EVAL.");
        self.refresh();
        let digest = sha1::parse(digits).ok_or(NO_SCRIPT)?;
        if let Some(script) = self.compiled.get(&digest) {
            return Ok(script.clone());
        }
        let text = self.watch.library.text(&digest).ok_or(NO_SCRIPT)?;
        self.compile(digest, &text)
    }

    fn compile(&mut self, digest: Digest, text: &[u8]) -> Result<Script, Refusal> {
        let (traits, body) = shebang(text)?;
        let chunk = self.lua.load(body.as_slice()).set_name("@user_script");
        let function = chunk.set_mode(ChunkMode::Text).into_function().map_err(|error| {
            let text = text_of(&error);
            Refusal::Text(format!("ERR Error compiling script (new function): {text}").into())
        })?;
        let script = Script { digest, traits, function };
        if self.compiled.len() >= SCRIPTS_COMPILED_MAX {
            self.compiled.clear();
        }
        self.compiled.insert(digest, script.clone());
        Ok(script)
    }

    /// Runs a script; its reply goes to `reply`. Whether it must run again, the run says.
    /// Errors: it ends in one, or its reply cannot be written.
    pub fn run(
        &self,
        script: &Script,
        (keys, arguments): (Vec<&[u8]>, Vec<&[u8]>),
        run: Box<Run>,
        limit: Option<Duration>,
        reply: &mut Reply<'_>,
    ) -> (Box<Run>, Result<(), Refusal>) {
        self.place.set_protocol(Protocol::Resp2);
        self.place.stopping.set(false);
        // Other numbers for every script, the same ones when it runs again.
        self.sandbox.random.seed(run.seed as i32);
        *self.place.run.borrow_mut() = Some(run);
        self.watch.begin(limit);
        let outcome = self.run_protected(script, keys, arguments, reply);
        self.watch.library.end(self.watch.core);
        if self.watch.is_strict.replace(false) {
            // It was set a moment ago with the same means.
            let _ = self.hook(SCRIPT_TICK_INSTRUCTIONS);
        }
        self.sandbox.clean();
        self.lua.gc_restart();
        if self.lua.used_memory() > self.bytes_max.get() / 2 {
            // Lua 5.1 does not collect when memory runs out: the next script is to find some.
            let _ = self.lua.gc_collect();
        }
        let mut run = self.place.run.borrow_mut().take().expect("it was put there");
        run.done.ended = self.watch.ended.get();
        (run, outcome)
    }

    fn run_protected(
        &self,
        script: &Script,
        keys: Vec<&[u8]>,
        arguments: Vec<&[u8]>,
        reply: &mut Reply<'_>,
    ) -> Result<(), Refusal> {
        let results = self.strings(keys).and_then(|keys| {
            let globals = &self.sandbox.globals;
            globals.raw_set("KEYS", keys)?;
            globals.raw_set("ARGV", self.strings(arguments)?)?;
            let call = (script.function.clone(), self.handler.clone());
            self.protected_call.call::<MultiValue>(call)
        });
        let mut results = match results {
            Ok(results) => results.into_iter(),
            Err(error) => return Err(Refusal::Text(format!("ERR {}", text_of(&error)).into())),
        };
        let is_well = results.next() == Some(Value::Boolean(true));
        let value = results.next().unwrap_or(Value::Nil);
        match is_well {
            true => to_reply(&value, self.place.protocol(), reply),
            false => Err(final_error(&value, &script.digest)),
        }
    }

    fn strings(&self, words: Vec<&[u8]>) -> mlua::Result<Table> {
        let table = self.lua.create_table_with_capacity(words.len(), 0)?;
        for (nth, word) in words.into_iter().enumerate() {
            table.raw_set(nth + 1, self.lua.create_string(word)?)?;
        }
        Ok(table)
    }
}

impl Watch {
    fn begin(&self, limit: Option<Duration>) {
        self.began.set(Instant::now());
        self.limit.set(limit);
        self.guessed_ticks.set(0);
        self.ended.set(None);
        self.library.begin(self.core);
    }

    fn why_to_end(&self, place: &Place) -> Option<&'static str> {
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
        let reason = if self.library.is_killed(self.core) {
            Some("Script killed by user with SCRIPT KILL.")
        } else if self.library.ends.load(Ordering::Relaxed) {
            Some("the server is shutting down")
        } else {
            is_late().then_some("Script ran longer than script-time-limit.")
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

fn final_error(error: &Value, digest: &Digest) -> Refusal {
    let Value::Table(table) = error else {
        let text = bytes_of(error).unwrap_or_default();
        return Refusal::Bytes([b"ERR ", text.as_slice()].concat());
    };
    let field = |name: &str| table.raw_get::<Value>(name).ok().as_ref().and_then(bytes_of);
    let mut text = field("err").unwrap_or_else(|| b"ERR unknown error".to_vec());
    if let (Some(source), Some(line)) = (field("source"), field("line")) {
        text.extend(format!(" script: {}, on ", sha1::hexadecimal(digest)).bytes());
        text.extend(source);
        text.push(b':');
        text.extend(line);
        text.push(b'.');
    }
    Refusal::Bytes(text)
}

/// What a script's first line says, and the script without it.
/// Errors: the line is none of those that there are.
fn shebang(text: &[u8]) -> Result<(Traits, Vec<u8>), Refusal> {
    let mut traits = Traits::default();
    if !text.starts_with(b"#!") {
        return Ok((traits, text.to_vec()));
    }
    let Some(end) = text.iter().position(|&byte| byte == b'\n') else {
        return Err(Refusal::text("ERR Invalid script shebang"));
    };
    let line = text[..end].to_vec();
    let mut words = line.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
    let engine = words.next().unwrap_or_default();
    if engine != b"#!lua" {
        return Err(Refusal::repeating("ERR Unexpected engine in script shebang: ", engine, ""));
    }
    traits.declares = true;
    for word in words {
        let Some(flags) = word.strip_prefix(b"flags=") else {
            return Err(Refusal::repeating("ERR Unknown lua shebang option: ", word, ""));
        };
        for flag in flags.split(|&byte| byte == b',').filter(|flag| !flag.is_empty()) {
            match flag {
                b"no-writes" => traits.no_writes = true,
                b"allow-oom" => traits.allow_oom = true,
                // One node, and no slots to cross: nothing that these would change.
                b"allow-stale" | b"no-cluster" | b"allow-cross-slot-keys" => {}
                _ => {
                    let before = "ERR Unexpected flag in script shebang: ";
                    return Err(Refusal::repeating(before, flag, ""));
                }
            }
        }
    }
    // The line break stays: lines keep their numbers.
    Ok((traits, text[end..].to_vec()))
}
