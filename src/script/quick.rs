//! How a script is called, and `redis.call` for what scripts ask most: strings and numbers in, a
//! number or a string out.
//!
//! The bridge makes values of Rust of all arguments and results, each with an anchor in the
//! interpreter. Here arguments are read where they lie on Lua's stack, and a plain reply is put
//! there. Everything else (other arguments, errors, tables) is done by the function that goes
//! through the bridge, which finds the reply if the command has run already.

#![allow(unsafe_code)]

use super::bytecode::Powers;
use super::call::Ending;
use super::interpreter::Place;
use super::printing;
use super::raise::raise;
use super::sandbox::READ_ONLY;
use super::values::whole;
use crate::limits::SCRIPT_ROW_KEPT_MAX;
use crate::numbers::parse_integer;
use crate::resp::reply::{Protocol, Reply};
use mlua::ffi::{self, lua_State};
use mlua::{Function, LightUserData, Lua, Table, Value};
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::hash::{BuildHasher, Hasher};
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
        let mut memory = self.reply.take();
        memory.clear();
        let reply = match self.place.command(protocol, &self.arguments.borrow(), memory) {
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
    let number = |line: usize| parse_integer(reply[1..line].trim_ascii_end());
    let line = || memchr::memchr(b'\n', reply).map_or(reply.len(), |at| at + 1);
    match reply.first() {
        Some(b':') => number(reply.len()).map_or(Result::Other, |n| Result::Number(n as f64)),
        Some(b'$') if reply.get(1) != Some(&b'-') => {
            let line = line();
            let count = number(line).map_or(0, |count| count as usize);
            let text = &reply[line..line + count];
            Result::Text(text.as_ptr(), text.len())
        }
        Some(b'$' | b'*') if reply.get(1) == Some(&b'-') && line() == reply.len() => match protocol
        {
            Protocol::Resp2 => Result::False,
            Protocol::Resp3 => Result::Nil,
        },
        _ => Result::Other,
    }
}

/// A function of the interpreter that is found past the bridge. It keeps the interpreter.
pub struct Pinned {
    state: *mut lua_State,
    reference: c_int,
    powers: Powers,
    _lua: Lua,
}

impl Pinned {
    /// Errors: no memory.
    pub fn new(lua: &Lua, function: Function, powers: Powers) -> mlua::Result<Pinned> {
        let (mut pinned, mut state) = (0, std::ptr::null_mut());
        // SAFETY: the function is the one value on the stack, and `luaL_ref` takes it from there.
        unsafe {
            lua.exec_raw::<()>(function, |own| {
                state = own;
                pinned = ffi::luaL_ref(own, ffi::LUA_REGISTRYINDEX);
            })?;
        }
        Ok(Pinned { state, reference: pinned, powers, _lua: lua.clone() })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: the interpreter lives, and no script runs; both places of the registry that are
        // written are there, so that nothing is allocated.
        unsafe { ffi::luaL_unref(self.state, ffi::LUA_REGISTRYINDEX, self.reference) }
    }
}

/// Places in the registry of an interpreter with what is needed to call scripts.
pub struct Door {
    state: *mut lua_State,
    /// The function [`enter`].
    enter: c_int,
    /// What errors are given to.
    handler: c_int,
    /// A result that is not plain. Never nil, so that putting it there needs no memory.
    result: c_int,
    keys: Row,
    arguments: Row,
}

/// Upvalues of [`enter`]: where `KEYS` and `ARGV` are set, their names, and their tables.
const GLOBALS: c_int = ffi::lua_upvalueindex(1);
const KEYS_NAME: c_int = ffi::lua_upvalueindex(2);
const ARGUMENTS_NAME: c_int = ffi::lua_upvalueindex(3);
const KEYS: c_int = ffi::lua_upvalueindex(4);
const ARGUMENTS: c_int = ffi::lua_upvalueindex(5);
const UPVALUE_COUNT: c_int = 5;

/// `KEYS` or `ARGV`: one script after the other finds the same table, filled anew, as long as
/// nobody can tell it from a new one.
struct Row {
    /// The upvalue with its name, and the one with the table.
    name: c_int,
    table: c_int,
    /// Elements for which the table was made. None: it is not to be used again.
    room: Cell<Option<usize>>,
    /// Elements put there that may still be there.
    count: Cell<usize>,
    /// Has nobody been able to change the table?
    is_untouched: Cell<bool>,
}

impl Row {
    fn new(name: c_int, table: c_int) -> Row {
        let (room, count) = (Cell::new(None), Cell::new(0));
        Row { name, table, room, count, is_untouched: Cell::new(false) }
    }

    /// Makes these words the elements that a script finds, which may change the table or not.
    ///
    /// # Safety
    ///
    /// To be called by [`enter`], with ten free places on the stack, which are free again
    /// afterwards, and nothing with a destructor in its frame.
    unsafe fn fill(&self, state: *mut lua_State, words: Arguments<'_>, may_change: bool) {
        // SAFETY: the caller's; three places are used at a time.
        unsafe {
            if self.refill(state, words) {
                return self.is_untouched.set(self.is_untouched.get() && !may_change);
            }
            let count = words.count();
            ffi::lua_createtable(state, count as c_int, 0);
            push_words(state, words);
            ffi::lua_pushvalue(state, self.name);
            ffi::lua_pushvalue(state, -2);
            ffi::lua_rawset(state, GLOBALS);
            ffi::lua_replace(state, self.table);
            self.count.set(count);
            self.room.set((count <= SCRIPT_ROW_KEPT_MAX).then_some(count));
            self.is_untouched.set(!may_change);
        }
    }

    /// Fills the table that is there. False: it is too small, or a script has made something of it
    /// that would be seen: the present one has to get another.
    ///
    /// # Safety
    ///
    /// As [`Row::fill`].
    unsafe fn refill(&self, state: *mut lua_State, words: Arguments<'_>) -> bool {
        let (count, before) = (words.count(), self.count.get());
        if self.room.get().is_none_or(|room| count > room) {
            return false;
        }
        let is_untouched = self.is_untouched.get();
        if is_untouched && count == 0 && before == 0 {
            return true;
        }
        // SAFETY: the caller's; three places are used at a time.
        unsafe {
            let top = ffi::lua_gettop(state);
            ffi::lua_pushvalue(state, self.table);
            // A string may be more than there is memory for, and leave this frame.
            self.count.set(count.max(before));
            push_words(state, words);
            for nth in count..before {
                ffi::lua_pushnil(state);
                ffi::lua_rawseti_(state, -2, nth as c_int + 1);
            }
            self.count.set(count);
            let is_as_new =
                is_untouched || ffi::lua_getmetatable(state, -1) == 0 && walks(state, count);
            ffi::lua_settop(state, top);
            self.is_untouched.set(is_as_new);
            is_as_new
        }
    }
}

/// Puts words into the table on top of the stack, from 1 on.
///
/// # Safety
///
/// One free place on the stack, and nothing with a destructor in the frame.
unsafe fn push_words(state: *mut lua_State, words: Arguments<'_>) {
    for (nth, word) in words.iter_from(0).enumerate() {
        // SAFETY: the caller's; the bytes of an empty word are not read.
        unsafe {
            ffi::lua_pushlstring_(state, word.as_ptr().cast(), word.len());
            ffi::lua_rawseti_(state, -2, nth as c_int + 1);
        }
    }
}

/// Does a walk over the table on top of the stack, which has the elements 1 to `count`, find these
/// in their order, and nothing else? What it finds stays on the stack.
///
/// # Safety
///
/// Two free places on the stack.
unsafe fn walks(state: *mut lua_State, count: usize) -> bool {
    // SAFETY: the caller's; the keys that are asked with are those that the walk has given.
    unsafe {
        ffi::lua_pushnil(state);
        for nth in 1..=count {
            if ffi::lua_next(state, -2) == 0 || ffi::lua_tonumber(state, -2) != nth as f64 {
                return false;
            }
            ffi::lua_settop(state, -2);
        }
        ffi::lua_next(state, -2) == 0
    }
}

impl Door {
    /// The interpreter must outlive it. Errors: no memory.
    pub fn new(lua: &Lua, globals: &Table, handler: &Function) -> mlua::Result<Door> {
        let mut door = Door {
            state: std::ptr::null_mut(),
            enter: 0,
            handler: 0,
            result: 0,
            keys: Row::new(KEYS_NAME, KEYS),
            arguments: Row::new(ARGUMENTS_NAME, ARGUMENTS),
        };
        // SAFETY: two values are on the stack, and at most five are added; `luaL_ref` takes the
        // last one each time.
        unsafe {
            lua.exec_raw::<()>((globals, handler), |state| {
                let pin = || ffi::luaL_ref(state, ffi::LUA_REGISTRYINDEX);
                door.state = state;
                door.handler = pin();
                ffi::lua_pushlstring_(state, c"KEYS".as_ptr(), 4);
                ffi::lua_pushlstring_(state, c"ARGV".as_ptr(), 4);
                ffi::lua_createtable(state, 0, 0);
                ffi::lua_createtable(state, 0, 0);
                ffi::lua_pushcclosure(state, enter, UPVALUE_COUNT);
                door.enter = pin();
                ffi::lua_pushboolean(state, 0);
                door.result = pin();
            })?;
        }
        Ok(door)
    }

    /// The next script finds new tables. A script may have blown up the present ones, so that
    /// looking whether they are empty takes long.
    pub fn forget_rows(&self) {
        self.keys.room.set(None);
        self.arguments.room.set(None);
    }

    /// Calls a script. True: its reply is written. Else there is a value, or an error: see
    /// [`Door::take_value`].
    pub fn call(&self, visit: &mut Visit<'_, '_>) -> bool {
        let state = self.state;
        // SAFETY: no script runs, and the stack has room for some values. Nothing here raises an
        // error of Lua's outside of `lua_pcall`. What is visited outlives the call.
        unsafe {
            ffi::lua_rawgeti_(state, ffi::LUA_REGISTRYINDEX, self.handler);
            ffi::lua_rawgeti_(state, ffi::LUA_REGISTRYINDEX, self.enter);
            ffi::lua_pushlightuserdata(state, std::ptr::from_mut(visit).cast());
            visit.is_well = ffi::lua_pcall(state, 1, 1, -3) == ffi::LUA_OK;
            if visit.is_written {
                ffi::lua_settop(state, -3);
            } else {
                ffi::lua_rawseti_(state, ffi::LUA_REGISTRYINDEX, self.result);
                ffi::lua_settop(state, -2);
            }
        }
        visit.is_written
    }

    /// The value of the last call. Errors: no memory.
    pub fn take_value(&self, lua: &Lua) -> mlua::Result<Value> {
        // SAFETY: two values are pushed, one of which stays. The place of the registry is there.
        unsafe {
            lua.exec_raw((), |state| {
                ffi::lua_rawgeti(state, ffi::LUA_REGISTRYINDEX, self.result.into());
                ffi::lua_pushboolean(state, 0);
                ffi::lua_rawseti(state, ffi::LUA_REGISTRYINDEX, self.result.into());
            })
        }
    }
}

/// A call of a script.
pub struct Visit<'a, 'r> {
    door: &'a Door,
    script: c_int,
    /// May the script change its keys and arguments?
    may_change: bool,
    /// Keys and arguments.
    words: Arguments<'a>,
    key_count: usize,
    /// The protocol that the script has chosen.
    protocol: &'a Cell<Protocol>,
    reply: &'a mut Reply<'r>,
    is_well: bool,
    is_written: bool,
}

impl<'a, 'r> Visit<'a, 'r> {
    /// With these words, so many of which are keys.
    pub fn new(
        door: &'a Door,
        script: &Pinned,
        words: Arguments<'a>,
        key_count: usize,
        protocol: &'a Cell<Protocol>,
        reply: &'a mut Reply<'r>,
    ) -> Visit<'a, 'r> {
        let (script, may_change) = (script.reference, script.powers.changes_tables);
        let (is_well, is_written) = (false, false);
        Visit { door, script, may_change, words, key_count, protocol, reply, is_well, is_written }
    }

    /// Has it ended without an error?
    pub fn is_well(&self) -> bool {
        self.is_well
    }

    /// Writes the value on top of the stack if it is plain.
    unsafe fn write_plain(&mut self, state: *mut lua_State) -> bool {
        // SAFETY: there is a value, and the bytes of a string stay where they are while it is
        // there.
        unsafe {
            match ffi::lua_type(state, -1) {
                ffi::LUA_TNUMBER => self.reply.integer(whole(ffi::lua_tonumber(state, -1))),
                ffi::LUA_TSTRING => {
                    let mut length = 0;
                    let bytes = ffi::lua_tolstring(state, -1, &mut length);
                    self.reply.bulk(std::slice::from_raw_parts(bytes.cast(), length));
                }
                ffi::LUA_TNIL => self.reply.null(),
                ffi::LUA_TBOOLEAN => {
                    match (self.protocol.get(), ffi::lua_toboolean(state, -1) != 0) {
                        (Protocol::Resp2, true) => self.reply.integer(1),
                        (Protocol::Resp2, false) => self.reply.null(),
                        (Protocol::Resp3, value) => self.reply.boolean(value),
                    }
                }
                _ => return false,
            }
        }
        true
    }
}

/// Gives a script its keys and arguments, and calls it. Returns the result if it is not plain.
unsafe extern "C-unwind" fn enter(state: *mut lua_State) -> c_int {
    // SAFETY: `Door::call` gives the address of a visit that outlives this. Lua gives a C function
    // twenty free places on the stack; eleven are used at most. No value with a destructor is in
    // this frame when an error of Lua's leaves it.
    unsafe {
        let visit = &mut *ffi::lua_touserdata(state, 1).cast::<Visit<'_, '_>>();
        let (words, key_count) = (visit.words, visit.key_count);
        visit.door.keys.fill(state, words.first(key_count), visit.may_change);
        visit.door.arguments.fill(state, words.tail(key_count), visit.may_change);
        ffi::lua_rawgeti_(state, ffi::LUA_REGISTRYINDEX, visit.script);
        ffi::lua_call(state, 0, 1);
        visit.is_written = visit.write_plain(state);
        c_int::from(!visit.is_written)
    }
}

/// What stands in the metatables of tables that scripts must not change.
pub fn mark() -> LightUserData {
    static MARK: u8 = 0;
    LightUserData(std::ptr::from_ref(&MARK).cast_mut().cast())
}

/// A function of Lua's own in C that changes its first argument, but not a table with [`mark`].
/// Errors: no memory, or it is none in C.
pub fn guarded(lua: &Lua, inner: Function) -> mlua::Result<Function> {
    // SAFETY: the inner function is the one value on the stack, and becomes the closure's upvalue,
    // which takes its place.
    unsafe { lua.exec_raw(inner, |state| ffi::lua_pushcclosure(state, guard, 1)) }
}

/// Upvalue: the function of Lua's.
unsafe extern "C-unwind" fn guard(state: *mut lua_State) -> c_int {
    // SAFETY: three places of the stack are used, of the twenty that are free. The inner function
    // finds the stack as it would have found it, and has no upvalues: it may run in this frame,
    // and its errors name what the script has called.
    unsafe {
        if ffi::lua_type(state, 1) == ffi::LUA_TTABLE && ffi::lua_getmetatable(state, 1) != 0 {
            ffi::lua_pushlightuserdata(state, mark().0);
            ffi::lua_rawget(state, -2);
            if ffi::lua_type(state, -1) != ffi::LUA_TNIL {
                ffi::lua_pushlstring(state, READ_ONLY.as_ptr().cast(), READ_ONLY.len());
                ffi::lua_error(state);
            }
            ffi::lua_settop(state, -3);
        }
        match ffi::lua_tocfunction(state, ffi::lua_upvalueindex(1)) {
            Some(inner) => inner(state),
            None => 0,
        }
    }
}

/// Places digests, which are as good as any hash of them.
#[derive(Clone, Copy, Default)]
pub struct ByItself(u64);

impl BuildHasher for ByItself {
    type Hasher = ByItself;

    fn build_hasher(&self) -> ByItself {
        ByItself(0)
    }
}

impl Hasher for ByItself {
    fn write(&mut self, bytes: &[u8]) {
        let first = bytes.first_chunk().copied().map_or(0, u64::from_le_bytes);
        self.0 ^= first;
    }

    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Makes the function of a desk; `slow` is a bridged one that does everything. The desk must live
/// as long as scripts run. Errors: no memory.
pub fn function(lua: &Lua, desk: &Rc<Desk>, slow: Function) -> mlua::Result<Function> {
    let address = Rc::as_ptr(desk).cast_mut();
    // SAFETY: the slower function is the one value on the stack; with the address in front of it
    // they are the closure's upvalues, which takes their place. Lua gives twenty free places.
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
    // SAFETY: the interpreter keeps the desk as long as it runs scripts. Lua gives a C function
    // twenty free places on the stack; four are used at most. Pushing a string may leave this
    // frame by an error of Lua's: nothing in it has a destructor then.
    unsafe {
        let desk = &*ffi::lua_touserdata(state, ffi::lua_upvalueindex(1)).cast::<Desk>();
        let count = ffi::lua_gettop(state);
        desk.ending.set(None);
        let result = if take_arguments(state, count, desk) { desk.run() } else { Result::Other };
        match result {
            Result::Number(number) => ffi::lua_pushnumber(state, number),
            Result::Text(bytes, count) => ffi::lua_pushlstring_(state, bytes.cast(), count),
            Result::False => ffi::lua_pushboolean(state, 0),
            Result::Nil => ffi::lua_pushnil(state),
            Result::Other => {
                return raise(state, ffi::lua_upvalueindex(2));
            }
        }
        1
    }
}

/// Digits of a number that is an argument of a command.
pub const ARGUMENT_PRECISION: usize = 17;

/// Copies the arguments. False: they are none, or not only strings and numbers.
unsafe fn take_arguments(state: *mut lua_State, count: c_int, desk: &Desk) -> bool {
    let mut arguments = desk.arguments.borrow_mut();
    arguments.clear();
    for nth in 1..=count {
        // SAFETY: there are so many values on the stack. The bytes of a string stay where they are
        // while it is there, and nothing of Lua's runs between asking for them and copying
        // them.
        unsafe {
            match ffi::lua_type(state, nth) {
                ffi::LUA_TSTRING => {
                    let mut length = 0;
                    let bytes = ffi::lua_tolstring(state, nth, &mut length);
                    arguments.push(std::slice::from_raw_parts(bytes.cast(), length));
                }
                ffi::LUA_TNUMBER => {
                    let number = ffi::lua_tonumber(state, nth);
                    match printing::whole(number, ARGUMENT_PRECISION) {
                        Some(number) => {
                            arguments.push(itoa::Buffer::new().format(number).as_bytes())
                        }
                        None => arguments.push(&printing::general(number, ARGUMENT_PRECISION)),
                    }
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
