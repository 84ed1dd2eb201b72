//! How a script is called, and `redis.call` for what scripts ask most: strings and numbers in, a number or a string out.
//!
//! The bridge makes values of Rust of all arguments and results, each with an anchor in the interpreter. Here arguments are read
//! where they lie on Lua's stack, and a plain reply is put there. Everything else (other arguments, errors, tables)
//! is done by the function that goes through the bridge, which finds the reply if the command has run already.

#![allow(unsafe_code)]

use super::call::Ending;
use super::interpreter::Place;
use super::raise::raise;
use crate::numbers::parse_integer;
use crate::resp::reply::Protocol;
use mlua::ffi::{self, lua_State};
use mlua::{Function, Lua, MultiValue, Table};
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::rc::Rc;

/// What calls have to do with, one after the other.
pub struct Desk {
    place: Place,
    /// Arguments of the present call.
    arguments: RefCell<OwnedArguments>,
    /// How the command has ended that the slower function is to tell of.
    ending: Cell<Option<Ending>>,
    /// The reply that is being put on the stack: in no frame that an error of Lua's could skip.
    reply: RefCell<Vec<u8>>,
}

/// A plain result, or none.
enum Result {
    Number(f64),
    Text(*const u8, usize),
    False,
    Nil,
    /// The slower function goes on.
    Other,
}

impl Desk {
    /// For calls of scripts that run in a place.
    pub fn new(place: Place) -> Rc<Desk> {
        Rc::new(Desk {
            place,
            arguments: RefCell::default(),
            ending: Cell::new(None),
            reply: RefCell::default(),
        })
    }

    /// How the command of this call has ended, if it has run.
    pub fn take_ending(&self) -> Option<Ending> {
        self.ending.take()
    }

    /// Runs the command whose arguments are there.
    fn run(&self) -> Result {
        let protocol = self.place.protocol();
        let reply = match self.place.command(protocol, &self.arguments.borrow()) {
            Ending::Reply(reply) => reply,
            other => {
                self.ending.set(Some(other));
                return Result::Other;
            }
        };
        let plain = plain(&reply, protocol);
        if let Result::Other = plain {
            self.ending.set(Some(Ending::Reply(reply)));
        } else {
            // The text lies where it lay: moving does not move what a vector owns.
            self.reply.replace(reply);
        }
        plain
    }
}

fn plain(reply: &[u8], protocol: Protocol) -> Result {
    let line = memchr::memchr(b'\n', reply).map_or(reply.len(), |at| at + 1);
    let number = || parse_integer(reply[1..line].trim_ascii_end());
    match (reply.first(), number()) {
        (Some(b':'), Some(number)) => Result::Number(number as f64),
        (Some(b'$'), Some(count)) if count >= 0 => {
            let text = &reply[line..line + count as usize];
            Result::Text(text.as_ptr(), text.len())
        }
        (Some(b'$' | b'*'), Some(_)) if reply.len() == line && reply[1] == b'-' => match protocol {
            Protocol::Resp2 => Result::False,
            Protocol::Resp3 => Result::Nil,
        },
        _ => Result::Other,
    }
}

/// What a script is called with.
pub struct Start<'a> {
    /// Where `KEYS` and `ARGV` are set.
    pub globals: &'a Table,
    /// `xpcall`.
    pub protected_call: &'a Function,
    /// The script.
    pub script: &'a Function,
    /// What errors are given to.
    pub handler: &'a Function,
    /// Keys and arguments.
    pub words: Arguments<'a>,
    /// How many of them are keys.
    pub key_count: usize,
}

/// Calls a script. Errors: no memory for its arguments.
pub fn call(lua: &Lua, start: &Start<'_>) -> mlua::Result<MultiValue> {
    let Start { globals, protected_call, script, handler, words, key_count } = *start;
    // SAFETY: four values are on the stack, and seven are used at most. No value with a destructor is in this frame when an
    // error of Lua's leaves it. What is on the stack in the end is what `xpcall` has returned.
    unsafe {
        lua.exec_raw((globals, protected_call, script, handler), |state| {
            let rest = words.count() - key_count;
            ffi::lua_pushlstring(state, c"KEYS".as_ptr(), 4);
            push_row(state, words.iter_from(0).take(key_count), key_count);
            ffi::lua_rawset(state, 1);
            ffi::lua_pushlstring(state, c"ARGV".as_ptr(), 4);
            push_row(state, words.iter_from(key_count), rest);
            ffi::lua_rawset(state, 1);
            ffi::lua_remove(state, 1);
            ffi::lua_call(state, 2, ffi::LUA_MULTRET);
        })
    }
}

/// Pushes a table with these words.
unsafe fn push_row<'a>(state: *mut lua_State, words: impl Iterator<Item = &'a [u8]>, count: usize) {
    // SAFETY: two places of the stack are used, and the caller has left them.
    unsafe {
        ffi::lua_createtable(state, count as c_int, 0);
        for (nth, word) in words.enumerate() {
            ffi::lua_pushlstring(state, word.as_ptr().cast(), word.len());
            ffi::lua_rawseti(state, -2, nth as ffi::lua_Integer + 1);
        }
    }
}

/// Makes the function of a desk; `slow` is a bridged one that does everything. The desk must live as long as scripts run.
/// Errors: no memory.
pub fn function(lua: &Lua, desk: &Rc<Desk>, slow: Function) -> mlua::Result<Function> {
    let address = Rc::as_ptr(desk).cast_mut();
    // SAFETY: the slower function is the one value on the stack; with the address in front of it they are the closure's
    // upvalues, which takes their place. Lua gives twenty free places.
    unsafe {
        lua.exec_raw(slow, |state| {
            ffi::lua_pushlightuserdata(state, address.cast());
            ffi::lua_insert(state, 1);
            ffi::lua_pushcclosure(state, quick, 2);
        })
    }
}

/// Upvalues: the desk, and the slower function.
unsafe extern "C-unwind" fn quick(state: *mut lua_State) -> c_int {
    // SAFETY: the interpreter keeps the desk as long as it runs scripts. Lua gives a C function twenty free places on the stack;
    // four are used at most. Pushing a string may leave this frame by an error of Lua's: nothing in it has a destructor then.
    unsafe {
        let desk = &*ffi::lua_touserdata(state, ffi::lua_upvalueindex(1)).cast::<Desk>();
        let count = ffi::lua_gettop(state);
        desk.ending.set(None);
        let result = if take_arguments(state, count, desk) { desk.run() } else { Result::Other };
        match result {
            Result::Number(number) => ffi::lua_pushnumber(state, number),
            Result::Text(bytes, count) => {
                ffi::lua_pushlstring(state, bytes.cast(), count);
            }
            Result::False => ffi::lua_pushboolean(state, 0),
            Result::Nil => ffi::lua_pushnil(state),
            Result::Other => {
                return raise(state, ffi::lua_upvalueindex(2));
            }
        }
        1
    }
}

/// Copies the arguments. False: they are none, or not only strings and numbers.
unsafe fn take_arguments(state: *mut lua_State, count: c_int, desk: &Desk) -> bool {
    let mut arguments = desk.arguments.borrow_mut();
    arguments.clear();
    for nth in 1..=count {
        // SAFETY: there are so many values on the stack. The bytes of a string stay where they are while it is there, and
        // nothing of Lua's runs between asking for them and copying them.
        unsafe {
            match ffi::lua_type(state, nth) {
                ffi::LUA_TSTRING => {
                    let mut length = 0;
                    let bytes = ffi::lua_tolstring(state, nth, &mut length);
                    arguments.push(std::slice::from_raw_parts(bytes.cast(), length));
                }
                ffi::LUA_TNUMBER => {
                    let number = ffi::lua_tonumber(state, nth);
                    arguments.push(&super::printing::general(number, 17));
                }
                _ => return false,
            }
        }
    }
    count > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_replies_are_told_from_others() {
        let found = |reply: &[u8], protocol| match plain(reply, protocol) {
            Result::Number(number) => number.to_string(),
            Result::Text(bytes, length) => {
                // SAFETY: it lies in the reply.
                let text = unsafe { std::slice::from_raw_parts(bytes, length) };
                format!("<{}>", text.escape_ascii())
            }
            Result::False => "false".into(),
            Result::Nil => "nil".into(),
            Result::Other => "other".into(),
        };
        for (reply, two, three) in [
            (&b":-12\r\n"[..], "-12", "-12"),
            (b"$0\r\n\r\n", "<>", "<>"),
            (b"$4\r\na\r\nb\r\n", "<a\\r\\nb>", "<a\\r\\nb>"),
            (b"$-1\r\n", "false", "nil"),
            (b"*-1\r\n", "false", "nil"),
            (b"_\r\n", "other", "other"),
            (b"*0\r\n", "other", "other"),
            (b"*2\r\n$1\r\na\r\n:1\r\n", "other", "other"),
            (b"+OK\r\n", "other", "other"),
            (b",1.5\r\n", "other", "other"),
            (b"#t\r\n", "other", "other"),
        ] {
            let text = reply.escape_ascii();
            assert_eq!(found(reply, Protocol::Resp2), two, "{text}");
            assert_eq!(found(reply, Protocol::Resp3), three, "{text}");
        }
    }
}
