//! `struct`: values as the bytes of C structures, as Roberto Ierusalimschy's struct library.

use super::arguments::{Given, number_of};
use super::raise::{Fault, function};
use mlua::{Lua, MultiValue, Table, Value};

/// Greatest size of an integer.
const INTEGER_BYTES_MAX: usize = 32;
/// Alignment that `!` stands for.
const NATIVE_ALIGNMENT: usize = 8;

/// The table. Errors: no memory.
pub fn table(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("pack", function(lua, pack)?)?;
    table.raw_set("unpack", function(lua, unpack)?)?;
    table.raw_set("size", function(lua, |_, values| size(values))?)?;
    Ok(table)
}

/// A format as it is read.
struct Format<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
    align: usize,
}

/// One of its options.
struct Choice {
    letter: u8,
    size: usize,
    /// Bytes before it.
    gap: usize,
}

impl<'a> Format<'a> {
    fn new(bytes: &'a [u8]) -> Format<'a> {
        // Lua's libraries read C strings.
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        Format { bytes: &bytes[..end], at: 0, big: false, align: 1 }
    }

    fn number(&mut self, otherwise: usize) -> Result<usize, Fault> {
        let start = self.at;
        let mut number = 0usize;
        while let Some(digit) = self.bytes.get(self.at).filter(|byte| byte.is_ascii_digit()) {
            number = number * 10 + usize::from(digit - b'0');
            if number > i32::MAX as usize {
                return Err(Fault::placed("integral size overflow"));
            }
            self.at += 1;
        }
        Ok(if self.at == start { otherwise } else { number })
    }

    /// The next option, for a value that would begin at `position`.
    fn next(&mut self, position: usize) -> Result<Option<Choice>, Fault> {
        let Some(&letter) = self.bytes.get(self.at) else { return Ok(None) };
        self.at += 1;
        let size = match letter {
            b'B' | b'b' | b'x' => 1,
            b'H' | b'h' => 2,
            b'L' | b'l' | b'T' | b'd' => 8,
            b'f' => 4,
            b'c' => self.number(1)?,
            b'i' | b'I' => {
                let size = self.number(4)?;
                if size > INTEGER_BYTES_MAX {
                    let text =
                        format!("integral size {size} is larger than limit of {INTEGER_BYTES_MAX}");
                    return Err(Fault::placed(text));
                }
                size
            }
            _ => 0,
        };
        let unit = size.min(self.align);
        let gap = match unit == 0 || letter == b'c' {
            true => 0,
            false => (unit - (position & (unit - 1))) & (unit - 1),
        };
        Ok(Some(Choice { letter, size, gap }))
    }

    /// An option that stands for no value.
    fn control(&mut self, letter: u8) -> Result<(), Fault> {
        match letter {
            b' ' => {}
            b'>' => self.big = true,
            b'<' => self.big = false,
            b'!' => {
                let align = self.number(NATIVE_ALIGNMENT)?;
                if align == 0 || !align.is_power_of_two() {
                    return Err(Fault::placed(format!("alignment {align} is not a power of 2")));
                }
                self.align = align;
            }
            _ => {
                let why = format!("invalid format option '{}'", char::from(letter));
                return Err(Fault::argument(1, &why));
            }
        }
        Ok(())
    }

    fn ordered(&self, mut little: Vec<u8>) -> Vec<u8> {
        if self.big {
            little.reverse();
        }
        little
    }
}

fn is_integer(letter: u8) -> bool {
    b"bBhHlLTiI".contains(&letter)
}

fn pack(lua: &Lua, values: MultiValue) -> Result<MultiValue, Fault> {
    let given = Given::new(values);
    let text = given.bytes(1)?;
    let mut format = Format::new(&text);
    let mut out: Vec<u8> = Vec::new();
    let mut nth = 2;
    while let Some(Choice { letter, size, gap }) = format.next(out.len())? {
        out.resize(out.len() + gap, 0);
        match letter {
            b'x' => out.push(0),
            b'f' => {
                let bytes = (given.number(nth)? as f32).to_le_bytes().to_vec();
                out.extend(format.ordered(bytes));
                nth += 1;
            }
            b'd' => {
                let bytes = given.number(nth)?.to_le_bytes().to_vec();
                out.extend(format.ordered(bytes));
                nth += 1;
            }
            b'c' | b's' => {
                let bytes = given.bytes(nth)?;
                nth += 1;
                let size = if size == 0 { bytes.len() } else { size };
                let Some(part) = bytes.get(..size) else {
                    return Err(given.fault(nth, "string too short"));
                };
                out.extend_from_slice(part);
                if letter == b's' {
                    out.push(0);
                }
            }
            letter if is_integer(letter) => {
                let number = given.number(nth)?;
                nth += 1;
                let value = if number < 0.0 { number as i64 as u64 } else { number as u64 };
                let mut bytes = value.to_le_bytes().to_vec();
                bytes.resize(size, 0);
                out.extend(format.ordered(bytes));
            }
            letter => format.control(letter)?,
        }
    }
    Ok(MultiValue::from_iter([Value::String(lua.create_string(&out)?)]))
}

fn unpack(lua: &Lua, values: MultiValue) -> Result<MultiValue, Fault> {
    let given = Given::new(values);
    let (text, data) = (given.bytes(1)?, given.bytes(2)?);
    let start = given.optional_integer(3, 1)?;
    if start <= 0 {
        return Err(given.fault(3, "offset must be 1 or greater"));
    }
    let short = || given.fault(2, "data string too short");
    let mut format = Format::new(&text);
    let mut at = usize::try_from(start - 1).unwrap_or(usize::MAX);
    let mut found: Vec<Value> = Vec::new();
    while let Some(Choice { letter, mut size, gap }) = format.next(at)? {
        at = at.saturating_add(gap);
        if at.checked_add(size).is_none_or(|end| end > data.len()) {
            return Err(short());
        }
        let rest = &data[at..];
        match letter {
            b'x' => {}
            b'f' => {
                let bytes = format.ordered(rest[..4].to_vec());
                let bytes = bytes.try_into().expect("four bytes");
                found.push(Value::Number(f32::from_le_bytes(bytes).into()));
            }
            b'd' => {
                let bytes = format.ordered(rest[..8].to_vec());
                found.push(Value::Number(f64::from_le_bytes(bytes.try_into().expect("eight"))));
            }
            b'c' => {
                if size == 0 {
                    let wanted = found.pop().as_ref().and_then(number_of);
                    let Some(wanted) = wanted else {
                        return Err(Fault::placed("format 'c0' needs a previous size"));
                    };
                    size = as_size(wanted);
                }
                let part = rest.get(..size).ok_or_else(short)?;
                found.push(Value::String(lua.create_string(part)?));
            }
            b's' => {
                let Some(end) = rest.iter().position(|&byte| byte == 0) else {
                    return Err(Fault::placed("unfinished string in data"));
                };
                found.push(Value::String(lua.create_string(&rest[..end])?));
                size = end + 1;
            }
            letter if is_integer(letter) => {
                found.push(Value::Number(integer(&format, letter, &rest[..size])));
            }
            letter => format.control(letter)?,
        }
        at += size;
    }
    found.push(Value::Number(at as f64 + 1.0));
    Ok(MultiValue::from_vec(found))
}

fn integer(format: &Format<'_>, letter: u8, bytes: &[u8]) -> f64 {
    let little = format.ordered(bytes.to_vec());
    let mut value = little.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    if letter.is_ascii_uppercase() {
        return value as f64;
    }
    if !little.is_empty() && little.len() < 8 {
        let mask = u64::MAX << (little.len() * 8 - 1);
        if value & mask != 0 {
            value |= mask;
        }
    }
    value as i64 as f64
}

/// As C makes a `size_t` of a number on this machine: what does not fit wraps, or is 2^63, or
/// nothing.
fn as_size(number: f64) -> usize {
    const TOP: u64 = 1 << 63;
    let signed = |number: f64| match (-(TOP as f64)..TOP as f64).contains(&number) {
        true => number as i64 as u64,
        false => TOP,
    };
    let size = match number >= TOP as f64 {
        true => signed(number - TOP as f64) ^ TOP,
        false => signed(number),
    };
    size as usize
}

fn size(values: MultiValue) -> Result<MultiValue, Fault> {
    let given = Given::new(values);
    let text = given.bytes(1)?;
    let mut format = Format::new(&text);
    let mut at = 0;
    while let Some(Choice { letter, size, gap }) = format.next(at)? {
        at += gap;
        if letter == b's' {
            return Err(given.fault(1, "option 's' has no fixed size"));
        }
        if letter == b'c' && size == 0 {
            return Err(given.fault(1, "option 'c0' has no fixed size"));
        }
        if !letter.is_ascii_alphanumeric() {
            format.control(letter)?;
        }
        at += size;
    }
    Ok(MultiValue::from_iter([Value::Number(at as f64)]))
}

#[cfg(test)]
mod tests {
    use super::as_size;

    #[test]
    fn sizes_are_cut_as_by_c() {
        for (number, size) in [
            (0.9, 0),
            (7.0, 7),
            (-1.0, usize::MAX),
            (1e200, 0),
            (-1e200, 1 << 63),
            (f64::NAN, 1 << 63),
            (9_223_372_036_854_775_808.0, 1 << 63),
        ] {
            assert_eq!(as_size(number), size, "{number}");
        }
    }
}
