//! What scripts find: Redis' globals and no others, none of which they can change.
//!
//! A table that scripts may not change is an empty one in front of the real one, which they never
//! get hold of: reading goes through, writing is refused. So nothing that one script does is seen
//! by the next.

use super::arguments::Given;
use super::quick::{guarded, mark};
use super::raise::{Fault, function};
use super::random::Random;
use mlua::{Function, Lua, LuaOptions, MultiValue, StdLib, Table, Value};
use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::c_void;
use std::rc::Rc;

/// Functions of Lua that scripts have, as in Redis.
const FUNCTIONS: [&str; 21] = [
    "_VERSION",
    "assert",
    "collectgarbage",
    "error",
    "gcinfo",
    "getmetatable",
    "ipairs",
    "load",
    "loadstring",
    "next",
    "pairs",
    "pcall",
    "rawequal",
    "rawget",
    "rawset",
    "select",
    "setmetatable",
    "tonumber",
    "tostring",
    "type",
    "xpcall",
];

/// `pcall` that makes a text of an error that is a table with one.
const CATCHING: &str = "local pcall, type = ... \
    local function ended(ok, found, ...) \
        if not ok and type(found) == 'table' and type(found.err) == 'string' then found = found.err end \
        return ok, found, ... \
    end \
    return function(...) return ended(pcall(...)) end";

/// What a script is told that changes what it must not.
pub(super) const READ_ONLY: &str = "Attempt to modify a readonly table";

/// An interpreter's globals.
pub struct Sandbox {
    /// Where they really are.
    pub globals: Table,
    /// The empty tables in front.
    fronts: Rc<RefCell<HashSet<*const c_void>>>,
    /// `math.random`.
    pub random: Random,
}

/// An interpreter without anything that could reach outside. Errors: no memory.
pub fn interpreter() -> mlua::Result<Lua> {
    let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH | StdLib::OS;
    Lua::new_with(libraries, LuaOptions::default())
}

impl Sandbox {
    /// Builds the globals of an interpreter. Errors: no memory.
    pub fn new(lua: &Lua) -> mlua::Result<Sandbox> {
        let all = lua.globals();
        let sandbox = Sandbox {
            globals: lua.create_table()?,
            fronts: Rc::default(),
            random: Random::default(),
        };
        let globals = &sandbox.globals;
        for name in FUNCTIONS.iter().chain(&["unpack"]) {
            globals.raw_set(*name, all.raw_get::<Value>(*name)?)?;
        }
        let math: Table = all.raw_get("math")?;
        sandbox.random.install(lua, &math)?;
        let list: Table = all.raw_get("table")?;
        list.raw_set("insert", guarded(lua, list.raw_get("insert")?)?)?;
        // Of `os` there is the clock alone.
        let os: Table = all.raw_get("os")?;
        let clock = lua.create_table()?;
        clock.raw_set("clock", os.raw_get::<Value>("clock")?)?;
        all.raw_set("os", clock)?;
        for name in ["string", "table", "math", "coroutine", "os"] {
            globals.raw_set(name, sandbox.front(lua, &all.raw_get(name)?)?)?;
        }
        let libraries = [
            ("bit", super::bit::table(lua)?),
            ("cjson", super::json::table(lua)?),
            ("cmsgpack", super::msgpack::table(lua)?),
            ("struct", super::pack::table(lua)?),
        ];
        for (name, table) in libraries {
            globals.raw_set(name, sandbox.front(lua, &table)?)?;
        }
        sandbox.replace_functions(lua, &all)?;
        // An error of `redis.call` that was caught is its text, as in Redis.
        let catching: Function = lua.load(CATCHING).set_name("=pcall").into_function()?;
        let pcall: Function = all.raw_get("pcall")?;
        let type_of: Function = all.raw_get("type")?;
        globals.raw_set("pcall", catching.call::<Function>((pcall, type_of))?)?;
        // Nobody changes the methods of strings.
        lua.load("getmetatable('').__metatable = false").exec()?;
        let absent = function(lua, |_, values| {
            let name = values.get(1).and_then(super::arguments::bytes_of).unwrap_or_default();
            let mut text = b"Script attempted to access nonexistent global variable '".to_vec();
            text.extend_from_slice(&name);
            text.push(b'\'');
            Err(Fault::Placed(text))
        })?;
        let behind = lua.create_table()?;
        behind.raw_set("__index", absent)?;
        globals.set_metatable(Some(behind))?;
        let front = sandbox.front(lua, globals)?;
        globals.raw_set("_G", front.clone())?;
        lua.set_globals(front)?;
        Ok(sandbox)
    }

    /// A table in front of another, which scripts read and do not change. Errors: no memory.
    pub fn front(&self, lua: &Lua, table: &Table) -> mlua::Result<Table> {
        let (front, manner) = (lua.create_table()?, lua.create_table()?);
        manner.raw_set("__index", table.clone())?;
        let refuse = function(lua, |_, _| Err(Fault::placed(READ_ONLY)))?;
        manner.raw_set("__newindex", refuse)?;
        manner.raw_set("__metatable", false)?;
        manner.raw_set(Value::LightUserData(mark()), true)?;
        front.set_metatable(Some(manner))?;
        self.fronts.borrow_mut().insert(front.to_pointer());
        Ok(front)
    }

    /// Functions of Lua that would go around the sandbox.
    fn replace_functions(&self, lua: &Lua, all: &Table) -> mlua::Result<()> {
        for name in ["rawset", "setmetatable"] {
            let (inner, fronts): (Function, _) = (all.raw_get(name)?, self.fronts.clone());
            let guarded = move |lua: &Lua, values: MultiValue| {
                let is_front = |value: &Value| fronts.borrow().contains(&value.to_pointer());
                if values.front().is_some_and(is_front) {
                    let text = lua.create_string(READ_ONLY)?;
                    return Err(Fault::Raised(Value::String(text)));
                }
                Ok(inner.call(values)?)
            };
            self.globals.raw_set(name, function(lua, guarded)?)?;
        }
        let inner: Function = all.raw_get("loadstring")?;
        let loader = inner.clone();
        let load_text = move |lua: &Lua, values: MultiValue| {
            let given = Given::new(values);
            let text = given.bytes(1)?;
            load(lua, &loader, text, given.get(2))
        };
        self.globals.raw_set("loadstring", function(lua, load_text)?)?;
        let load_pieces = move |lua: &Lua, values: MultiValue| {
            let given = Given::new(values);
            let Some(Value::Function(next)) = given.get(1) else {
                return Err(given.fault(1, "function expected"));
            };
            let mut text = Vec::new();
            loop {
                match next.call::<Value>(())? {
                    Value::String(piece) if !piece.as_bytes().is_empty() => {
                        text.extend_from_slice(&piece.as_bytes());
                    }
                    _ => break,
                }
                if text.len() > crate::limits::SCRIPT_LOADED_BYTES_MAX {
                    return Err(Fault::placed("chunk is too large"));
                }
            }
            load(lua, &inner, text, given.get(2))
        };
        self.globals.raw_set("load", function(lua, load_pieces)?)
    }
}

/// Compiles a text. What was compiled before is refused: it could do anything.
fn load(
    lua: &Lua,
    loader: &Function,
    text: Vec<u8>,
    name: Option<&Value>,
) -> Result<MultiValue, Fault> {
    if text.first() == Some(&0x1b) {
        let refusal = lua.create_string("attempt to load a binary chunk")?;
        return Ok(MultiValue::from_iter([Value::Nil, Value::String(refusal)]));
    }
    let name = match name {
        Some(Value::String(name)) => Value::String(name.clone()),
        _ => Value::String(lua.create_string(&text)?),
    };
    Ok(loader.call((lua.create_string(&text)?, name))?)
}
