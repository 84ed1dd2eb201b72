//! Functions: what libraries register when they are loaded, and what a core's interpreter has of
//! them.
//!
//! A library runs once in each interpreter, when that meets it for the first time; it finds
//! `redis.register_function` and nothing else. Its functions see what scripts see, but for KEYS and
//! ARGV, which they are given.

use super::arguments::bytes_of;
use super::raise::{Results, function};
use super::sandbox::Sandbox;
use super::shebang::{Traits, check_name};
use super::values::{error, raised};
use mlua::{Function, Lua, MultiValue, Table, Value};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

/// Functions of `redis` that a library finds while it is loaded, beside `register_function`.
const FOUND_WHILE_LOADING: [&str; 7] = [
    "log",
    "LOG_DEBUG",
    "LOG_VERBOSE",
    "LOG_NOTICE",
    "LOG_WARNING",
    "REDIS_VERSION",
    "REDIS_VERSION_NUM",
];

/// Functions of `redis` that scripts have and functions have not.
const OF_SCRIPTS: [&str; 3] = ["replicate_commands", "breakpoint", "debug"];

/// Calls a function with its keys and arguments as `xpcall` calls one without any.
const CALLING: &str = "local xpcall = ... \
    return function(run, handler, keys, arguments) \
        return xpcall(function() return run(keys, arguments) end, handler) \
    end";

/// A function of a library.
#[derive(Clone)]
pub struct Registered {
    /// Its name.
    pub name: Rc<[u8]>,
    /// What it says of itself.
    pub description: Option<Vec<u8>>,
    /// Its flags.
    pub traits: Traits,
    pub(super) function: Function,
    pub(super) detours: Rc<Cell<u32>>,
}

/// A library that was run.
pub struct Loaded {
    /// Its text.
    pub code: Arc<[u8]>,
    /// Its functions, in the order in which it registers them.
    pub functions: Vec<Registered>,
}

/// What an interpreter has of functions.
pub struct Functions {
    /// The libraries, by name.
    pub libraries: BTreeMap<Vec<u8>, Loaded>,
    /// All their functions.
    pub(super) by_name: HashMap<Rc<[u8]>, Registered>,
    /// The state of the process' libraries that it has.
    pub(super) version: u64,
    /// What is global for libraries and functions.
    pub(super) environment: Table,
    manner: Table,
    while_loading: Table,
    while_running: Table,
    registered: Rc<RefCell<Option<Vec<Registered>>>>,
    pub(super) calling: Function,
}

impl Functions {
    /// None yet. `redis`: the table that functions find. Errors: no memory.
    pub fn new(
        lua: &Lua,
        sandbox: &Sandbox,
        redis: Table,
        xpcall: Function,
    ) -> mlua::Result<Functions> {
        let absent = sandbox.globals.metatable();
        let registered = Rc::default();
        let loading = lua.create_table()?;
        for name in FOUND_WHILE_LOADING {
            loading.raw_set(name, redis.raw_get::<Value>(name)?)?;
        }
        let own = Rc::clone(&registered);
        let register = function(lua, move |lua, values| register(lua, &own, values))?;
        loading.raw_set("register_function", register)?;
        loading.set_metatable(absent.clone())?;
        OF_SCRIPTS.iter().try_for_each(|name| redis.raw_set(*name, Value::Nil))?;
        let (loading, redis) = (sandbox.front(lua, &loading)?, sandbox.front(lua, &redis)?);
        let while_loading = lua.create_table()?;
        let while_running = lua.create_table()?;
        for pair in sandbox.globals.pairs::<Value, Value>() {
            let (name, value) = pair?;
            while_running.raw_set(name, value)?;
        }
        let environment = sandbox.front(lua, &while_running)?;
        while_running.raw_set("_G", environment.clone())?;
        for name in ["redis", "server"] {
            while_running.raw_set(name, redis.clone())?;
            while_loading.raw_set(name, loading.clone())?;
        }
        while_running.set_metatable(absent.clone())?;
        while_loading.set_metatable(absent)?;
        let manner = environment.metatable().expect("a front has one");
        let calling: Function = lua.load(CALLING).set_name("=fcall").into_function()?;
        Ok(Functions {
            libraries: BTreeMap::new(),
            by_name: HashMap::new(),
            version: 0,
            environment,
            manner,
            while_loading,
            while_running,
            registered,
            calling: calling.call(xpcall)?,
        })
    }

    /// A library is about to run. Errors: no memory.
    pub(super) fn begin_loading(&self) -> mlua::Result<()> {
        *self.registered.borrow_mut() = Some(Vec::new());
        self.manner.raw_set("__index", self.while_loading.clone())
    }

    /// It has run: what it has registered. Errors: no memory.
    pub(super) fn end_loading(&self) -> mlua::Result<Vec<Registered>> {
        let registered = self.registered.borrow_mut().take().unwrap_or_default();
        self.manner.raw_set("__index", self.while_running.clone())?;
        Ok(registered)
    }

    /// How many functions there are.
    pub fn count(&self) -> usize {
        self.by_name.len()
    }

    /// The library of a function.
    pub fn library_of(&self, function: &[u8]) -> Option<&[u8]> {
        let mut libraries = self.libraries.iter();
        let found = libraries.find(|(_, loaded)| {
            loaded.functions.iter().any(|registered| *registered.name == *function)
        });
        found.map(|(name, _)| name.as_slice())
    }

    pub(super) fn insert(&mut self, name: Vec<u8>, loaded: Loaded) {
        for registered in &loaded.functions {
            self.by_name.insert(registered.name.clone(), registered.clone());
        }
        self.libraries.insert(name, loaded);
    }

    pub(super) fn remove(&mut self, name: &[u8]) {
        if let Some(loaded) = self.libraries.remove(name) {
            for registered in &loaded.functions {
                self.by_name.remove(&registered.name);
            }
        }
    }
}

/// `redis.register_function`.
fn register(lua: &Lua, to: &Rc<RefCell<Option<Vec<Registered>>>>, values: MultiValue) -> Results {
    let refusal = |text: &str| raised(error(lua, format!("ERR {text}").as_bytes()));
    let made = match values.into_vec().as_slice() {
        [Value::Table(named)] => from_table(named),
        [_] => Err(
            "calling redis.register_function with a single argument is only applicable to Lua table (representing named arguments).",
        ),
        [name, run] => from_pair(name, run),
        _ => Err("wrong number of arguments to redis.register_function"),
    };
    let made = made.map_err(refusal)?;
    if let Err(refused) = check_name(&made.name) {
        return Err(raised(error(lua, &refused.line())));
    }
    let mut to = to.borrow_mut();
    let Some(registered) = to.as_mut() else {
        let text = "redis.register_function can only be called on FUNCTION LOAD command";
        return Err(refusal(text));
    };
    if registered.iter().any(|other| other.name == made.name) {
        return Err(refusal("Function already exists in the library"));
    }
    registered.push(made);
    Ok(MultiValue::new())
}

fn from_pair(name: &Value, run: &Value) -> Result<Registered, &'static str> {
    let name =
        bytes_of(name).ok_or("first argument to redis.register_function must be a string")?;
    let Value::Function(run) = run else {
        return Err("second argument to redis.register_function must be a function");
    };
    let (name, function) = (name.into(), run.clone());
    let (description, traits, detours) = (None, Traits::FUNCTION, Rc::default());
    Ok(Registered { name, description, traits, function, detours })
}

fn from_table(named: &Table) -> Result<Registered, &'static str> {
    let (mut name, mut run, mut description) = (None, None, None);
    let mut traits = Traits::FUNCTION;
    for pair in named.pairs::<Value, Value>() {
        // Neither conversion fails, and a table that is only read is walked to its end.
        let Ok((key, value)) = pair else { break };
        let Some(key) = bytes_of(&key) else {
            return Err("named argument key given to redis.register_function is not a string");
        };
        match key.to_ascii_lowercase().as_slice() {
            b"function_name" => {
                name = Some(bytes_of(&value).ok_or(
                    "function_name argument given to redis.register_function must be a string",
                )?);
            }
            b"description" => {
                description = Some(bytes_of(&value).ok_or(
                    "description argument given to redis.register_function must be a string",
                )?);
            }
            b"callback" => match value {
                Value::Function(function) => run = Some(function),
                _ => {
                    return Err(
                        "callback argument given to redis.register_function must be a function",
                    );
                }
            },
            b"flags" => match value {
                Value::Table(flags) => read_flags(&flags, &mut traits)?,
                _ => {
                    return Err(
                        "flags argument to redis.register_function must be a table representing function flags",
                    );
                }
            },
            _ => return Err("unknown argument given to redis.register_function"),
        }
    }
    let name = name.ok_or("redis.register_function must get a function name argument")?;
    let function = run.ok_or("redis.register_function must get a callback argument")?;
    let (name, detours) = (name.into(), Rc::default());
    Ok(Registered { name, description, traits, function, detours })
}

fn read_flags(flags: &Table, traits: &mut Traits) -> Result<(), &'static str> {
    for nth in 1.. {
        match flags.raw_get::<Value>(nth) {
            Ok(Value::Nil) | Err(_) => break,
            Ok(Value::String(flag)) if traits.set(&flag.as_bytes()) => {}
            Ok(_) => return Err("unknown flag given"),
        }
    }
    Ok(())
}
