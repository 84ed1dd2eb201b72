//! What a script could do, read from its compiled form as Lua 5.1 writes it (`luac`'s).
//!
//! Only what this interpreter itself has written is read here. Where anything is not as expected
//! the answer is the careful one.

/// Instructions, in the low six bits of their words.
const GET_GLOBAL: u8 = 5;
const SET_GLOBAL: u8 = 7;
const SET_TABLE: u8 = 9;
const OPCODE_MASK: u8 = 0x3f;
/// Where an instruction says which constant it names.
const CONSTANT_SHIFT: u32 = 14;

/// How the form begins on this machine: Lua 5.1, little endian, four bytes of an `int` and of an
/// instruction, eight of a `size_t` and of a number, which is a double.
const HEADER: &[u8] = b"\x1bLua\x51\0\x01\x04\x08\x04\x08\0";

/// Functions one inside the other; Lua's own limit is 200.
const DEPTH_MAX: usize = 256;

/// Globals through which no table is changed, nor anything found that could change one. `next`
/// and those that walk are among them; `_G`, what loads text, and `error`, which notes in a table
/// where it was raised, are not.
const HARMLESS: [&[u8]; 20] = [
    b"ARGV",
    b"KEYS",
    b"assert",
    b"bit",
    b"cjson",
    b"cmsgpack",
    b"ipairs",
    b"math",
    b"next",
    b"pairs",
    b"pcall",
    b"redis",
    b"select",
    b"server",
    b"string",
    b"struct",
    b"tonumber",
    b"tostring",
    b"type",
    b"unpack",
];

/// What a script may do, itself or by a function in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Powers {
    /// It may set globals.
    pub sets_globals: bool,
    /// It may change tables that it has not just made.
    pub changes_tables: bool,
}

impl Powers {
    const ALL: Powers = Powers { sets_globals: true, changes_tables: true };

    /// Those of a script with this compiled form.
    pub fn of(dump: &[u8]) -> Powers {
        let mut powers = Powers { sets_globals: false, changes_tables: false };
        let mut reader = Reader { rest: dump.strip_prefix(HEADER).unwrap_or_default() };
        match reader.function(&mut powers, 0) {
            Some(()) if reader.rest.is_empty() => powers,
            _ => Powers::ALL,
        }
    }

    /// Adds those of one function. Words that are no instructions but data may look like some: then
    /// the answer is careful.
    fn add(&mut self, code: &[u8], constants: &[Option<&[u8]>]) {
        for word in code.chunks_exact(4).map(|word| [word[0], word[1], word[2], word[3]]) {
            match word[0] & OPCODE_MASK {
                SET_GLOBAL => self.sets_globals = true,
                SET_TABLE => self.changes_tables = true,
                GET_GLOBAL => {
                    let constant = u32::from_le_bytes(word) >> CONSTANT_SHIFT;
                    let name = constants.get(constant as usize).copied().flatten();
                    self.changes_tables |= name.is_none_or(|name| !HARMLESS.contains(&name));
                }
                _ => {}
            }
        }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

/// `None`: it is not as Lua writes it.
impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(bytes)
    }

    fn count(&mut self) -> Option<usize> {
        let bytes = self.bytes(4)?.try_into().ok()?;
        usize::try_from(i32::from_le_bytes(bytes)).ok()
    }

    /// A string, without the zero at its end; none is an empty one.
    fn string(&mut self) -> Option<&'a [u8]> {
        let size = u64::from_le_bytes(self.bytes(8)?.try_into().ok()?);
        let bytes = self.bytes(size.try_into().ok()?)?;
        Some(bytes.strip_suffix(b"\0").unwrap_or_default())
    }

    /// A constant, if it is a string.
    fn constant(&mut self) -> Option<Option<&'a [u8]>> {
        match self.bytes(1)?[0] {
            0 => Some(None),
            1 => self.bytes(1).map(|_| None),
            3 => self.bytes(8).map(|_| None),
            4 => self.string().map(Some),
            _ => None,
        }
    }

    fn function(&mut self, powers: &mut Powers, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        // Its source, the lines of its text, and counts of what it takes.
        self.string()?;
        self.bytes(4 + 4 + 4)?;
        let instruction_count = self.count()?;
        let code = self.bytes(instruction_count.checked_mul(4)?)?;
        let constant_count = self.count()?;
        let constants: Option<Vec<_>> = (0..constant_count).map(|_| self.constant()).collect();
        powers.add(code, &constants?);
        for _ in 0..self.count()? {
            self.function(powers, depth + 1)?;
        }
        // What is for debugging: lines, names of variables, names of upvalues.
        let line_count = self.count()?;
        self.bytes(line_count.checked_mul(4)?)?;
        for _ in 0..self.count()? {
            self.string()?;
            self.bytes(4 + 4)?;
        }
        for _ in 0..self.count()? {
            self.string()?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlua::Lua;

    #[test]
    fn what_scripts_could_do_is_found() {
        let lua = Lua::new();
        for (text, sets_globals, changes_tables) in [
            ("return 1", false, false),
            ("local x = 1.5; x = nil; return redis.call('get', KEYS[1], true, x)", false, false),
            ("local s = 'a' return {s:rep(3), #ARGV, unpack(KEYS)}", false, false),
            ("for k, v in pairs(KEYS) do redis.log(1, string.format(v)) end", false, false),
            ("local t = {} t.x = 1", false, true),
            ("KEYS[1] = 2", false, true),
            ("redis.call = 3", false, true),
            ("_G.x = 4", false, true),
            ("return table.insert(KEYS, 1)", false, true),
            ("return (function() return function() rawset(KEYS, 1, 2) end end)()", false, true),
            ("return loadstring('x')", false, true),
            ("error(KEYS)", false, true),
            ("local function f() return function() return y end end return f", false, true),
            ("x = 1", true, false),
            ("function f() end", true, false),
            ("local function f() return function() x = 1 end end", true, false),
            ("for i = 1, 10 do local g = function() x = {i} end end", true, false),
        ] {
            let function = lua.load(text).into_function().expect("a script");
            for strip in [true, false] {
                let dump = function.dump(strip);
                assert_eq!(Powers::of(&dump), Powers { sets_globals, changes_tables }, "{text}");
                for length in 0..dump.len() {
                    // What is missing may be what does it.
                    assert_eq!(Powers::of(&dump[..length]), Powers::ALL, "{text}: {length}");
                }
                assert_eq!(Powers::of(&[&dump[..], b"x"].concat()), Powers::ALL);
            }
        }
    }
}
