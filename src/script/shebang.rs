//! What the first line of a script or of a library says.

use crate::refusal::Refusal;
use crate::resp::quoting::split_words;

/// Flags, in the order in which FUNCTION LIST shows them. The last three change nothing here: there
/// is one node, and there are no slots that keys could cross.
const FLAGS: [&str; 5] =
    ["no-writes", "allow-oom", "allow-stale", "no-cluster", "allow-cross-slot-keys"];

/// What a script says of itself in its first line, or a function when it is registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// It says something: Redis' newer rules hold.
    pub declares: bool,
    /// A bit for each of the flags.
    flags: u8,
}

impl Traits {
    /// Of a function without flags.
    pub const FUNCTION: Traits = Traits { declares: true, flags: 0 };

    /// Sets a flag. False: there is none such.
    pub fn set(&mut self, flag: &[u8]) -> bool {
        let nth = FLAGS.iter().position(|known| known.as_bytes() == flag);
        self.flags |= nth.map_or(0, |nth| 1 << nth);
        nth.is_some()
    }

    /// It does not write.
    pub fn no_writes(self) -> bool {
        self.flags & 1 != 0
    }

    /// It may run when memory is over its limit.
    pub fn allow_oom(self) -> bool {
        self.flags & 2 != 0
    }

    /// The flags that are set.
    pub fn names(self) -> Vec<&'static str> {
        let is_set = |nth: &usize| self.flags & (1 << nth) != 0;
        (0..FLAGS.len()).filter(is_set).map(|nth| FLAGS[nth]).collect()
    }
}

/// What a script's first line says, and the script without it.
/// Errors: the line is none of those that there are.
pub fn of_script(text: &[u8]) -> Result<(Traits, &[u8]), Refusal> {
    let mut traits = Traits::default();
    if !text.starts_with(b"#!") {
        return Ok((traits, text));
    }
    let Some(end) = memchr::memchr(b'\n', text) else {
        return Err(Refusal::text("ERR Invalid script shebang"));
    };
    let mut words =
        text[..end].split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
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
            if !traits.set(flag) {
                let before = "ERR Unexpected flag in script shebang: ";
                return Err(Refusal::repeating(before, flag, ""));
            }
        }
    }
    // The line break stays: lines keep their numbers.
    Ok((traits, &text[end..]))
}

/// The name of a library, and its text without the first line.
/// Errors: the line does not say what it must.
pub fn of_library(text: &[u8]) -> Result<(Vec<u8>, &[u8]), Refusal> {
    const INVALID: Refusal = Refusal::text("ERR Invalid library metadata");
    if !text.starts_with(b"#!") {
        return Err(Refusal::text("ERR Missing library metadata"));
    }
    let end = memchr::memchr(b'\n', text).ok_or(INVALID)?;
    let words = split_words(&text[..end]).ok_or(INVALID)?;
    let mut name: Option<&[u8]> = None;
    for word in &words[1..] {
        let is_name = word.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"name="));
        if !is_name {
            return Err(Refusal::repeating("ERR Invalid metadata value given: ", word, ""));
        }
        if name.replace(&word[5..]).is_some() {
            let text = "ERR Invalid metadata value, name argument was given multiple times";
            return Err(Refusal::text(text));
        }
    }
    let name = name.ok_or(Refusal::text("ERR Library name was not given"))?;
    check_name(name)?;
    let engine = &words[0][2..];
    if !engine.eq_ignore_ascii_case(b"lua") {
        return Err(Refusal::repeating("ERR Engine '", engine, "' not found"));
    }
    Ok((name.to_vec(), &text[end..]))
}

/// Errors: no library or function may be called so.
pub fn check_name(name: &[u8]) -> Result<(), Refusal> {
    let is_fine = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    match !name.is_empty() && name.iter().all(is_fine) {
        true => Ok(()),
        false => Err(Refusal::text(
            "ERR Library names can only contain letters, numbers, or underscores(_) and must be at least one character long",
        )),
    }
}
