//! Functions that scripts call, and how they raise errors of Lua's own kinds.
//!
//! The bridge to Lua turns what a Rust function returns as an error into an object of its own,
//! which a script's `pcall` would find there. Redis' scripts find strings and tables. So every
//! function given to scripts is a closure of [`trampoline`]: it calls the Rust function, and raises what that one says.

#![allow(unsafe_code)]

use mlua::ffi::{self, lua_State};
use mlua::{Function, IntoLua, Lua, MultiValue, Value};
use std::ffi::c_int;

/// Why a function gives up.
pub enum Fault {
    /// A text, to be raised behind the place of the caller (`user_script:1: `).
    Placed(Vec<u8>),
    /// An argument is wrong: which, and why. Raised as [`Fault::Placed`], with the name by which
    /// the function was called.
    Argument(usize, String),
    /// A value, to be raised as it is.
    Raised(Value),
}

impl Fault {
    /// A text behind the place of the caller.
    pub fn placed(text: impl Into<String>) -> Fault {
        Fault::Placed(text.into().into_bytes())
    }

    /// An argument is not what it should be.
    pub fn argument(nth: usize, why: &str) -> Fault {
        Fault::Argument(nth, why.into())
    }
}

impl From<mlua::Error> for Fault {
    fn from(error: mlua::Error) -> Fault {
        Fault::placed(text_of(&error))
    }
}

/// What an error of the bridge says.
pub fn text_of(error: &mlua::Error) -> String {
    match error {
        mlua::Error::MemoryError(_) => "not enough memory".into(),
        mlua::Error::RuntimeError(text) | mlua::Error::SyntaxError { message: text, .. } => {
            // The bridge adds where it was: that is its own.
            let end = text.find("\nstack traceback:").unwrap_or(text.len());
            text[..end].to_string()
        }
        mlua::Error::CallbackError { cause, .. } => text_of(cause),
        other => other.to_string(),
    }
}

/// What a function given to scripts returns.
pub type Results = Result<MultiValue, Fault>;

/// Makes a function for scripts. Errors: no memory.
pub fn function(
    lua: &Lua,
    run: impl Fn(&Lua, MultiValue) -> Results + 'static,
) -> mlua::Result<Function> {
    let inner = bridged(lua, run)?;
    // SAFETY: the function is the one value on the stack; it becomes the closure's only upvalue,
    // which takes its place.
    unsafe { lua.exec_raw(inner, |state| ffi::lua_pushcclosure(state, trampoline, 1)) }
}

/// A function that says how it ended instead of raising errors: for [`raise`]. Errors: no memory.
pub(super) fn bridged(
    lua: &Lua,
    run: impl Fn(&Lua, MultiValue) -> Results + 'static,
) -> mlua::Result<Function> {
    lua.create_function(move |lua, arguments: MultiValue| {
        let mut results = MultiValue::new();
        match run(lua, arguments) {
            Ok(found) => {
                results = found;
                results.push_front(Value::Nil);
            }
            Err(Fault::Placed(text)) => {
                results.push_back(Value::Boolean(false));
                results.push_back(lua.create_string(&text)?.into_lua(lua)?);
            }
            Err(Fault::Argument(nth, why)) => {
                results.push_back(Value::Boolean(false));
                let text = bad_argument(lua, nth, &why);
                results.push_back(lua.create_string(&text)?.into_lua(lua)?);
            }
            Err(Fault::Raised(value)) => {
                results.push_back(Value::Boolean(true));
                results.push_back(value);
            }
        }
        Ok(results)
    })
}

/// What Lua says of an argument: the name is that by which the script has called the function, if
/// it has one there.
fn bad_argument(lua: &Lua, nth: usize, why: &str) -> String {
    // Below the bridged function is the one that was called.
    let names = lua.inspect_stack(1, |frame| {
        let names = frame.names();
        (names.name.map(|name| name.into_owned()), names.name_what == Some("method"))
    });
    let (name, is_method) = names.unwrap_or_default();
    let name = name.unwrap_or_else(|| "?".into());
    match (is_method, nth) {
        (true, 1) => format!("calling '{name}' on bad self ({why})"),
        _ => {
            format!("bad argument #{} to '{name}' ({why})", nth - usize::from(is_method && nth > 0))
        }
    }
}

/// Calls its upvalue with its arguments.
unsafe extern "C-unwind" fn trampoline(state: *mut lua_State) -> c_int {
    // SAFETY: a closure of `function`, whose upvalue is a bridged function; there are places for
    // what is raised.
    unsafe { raise(state, ffi::lua_upvalueindex(1)) }
}

/// Calls a bridged function with all that is on the stack. It returns `nil` and the results,
/// `false` and a text that is raised behind the place of whoever called the present C function, or
/// `true` and a value that is raised.
///
/// # Safety
///
/// To be called as the last thing of a C function, which has four free places on its stack and
/// nothing with a destructor.
pub(super) unsafe fn raise(state: *mut lua_State, bridged: c_int) -> c_int {
    // SAFETY: `lua_call` makes room for results itself. No Rust value is alive when `lua_error`
    // leaves this frame.
    unsafe {
        let count = ffi::lua_gettop(state);
        ffi::lua_pushvalue(state, bridged);
        ffi::lua_insert(state, 1);
        ffi::lua_call(state, count, ffi::LUA_MULTRET);
        if ffi::lua_type(state, 1) == ffi::LUA_TNIL {
            return ffi::lua_gettop(state) - 1;
        }
        if ffi::lua_toboolean(state, 1) == 0 {
            ffi::lua_settop(state, 2);
            ffi::luaL_where(state, 1);
            ffi::lua_insert(state, 2);
            ffi::lua_concat(state, 2);
        } else {
            ffi::lua_settop(state, 2);
        }
        ffi::lua_error(state)
    }
}
