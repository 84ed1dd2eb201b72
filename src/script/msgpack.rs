//! `cmsgpack`: MessagePack, as Redis' library.

use super::arguments::Given;
use super::raise::{Fault, Results, function};
use mlua::{Lua, MultiValue, Table, Value};

/// Tables one inside the other; deeper ones are nil.
const DEPTH_MAX: usize = 16;
/// The same when reading. Redis' own reader goes as deep as its stack.
const READ_DEPTH_MAX: usize = 1000;

/// The table. Errors: no memory.
pub fn table(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("_NAME", "cmsgpack")?;
    table.raw_set("_VERSION", "lua-cmsgpack 0.4.0")?;
    table.raw_set("_COPYRIGHT", "Copyright (C) 2012, Salvatore Sanfilippo")?;
    table.raw_set("_DESCRIPTION", "MessagePack C implementation for Lua")?;
    table.raw_set("pack", function(lua, pack)?)?;
    let unpack = |lua: &Lua, values| {
        let given = Given::new(values);
        read_all(lua, &given.bytes(1)?, None, 0)
    };
    table.raw_set("unpack", function(lua, unpack)?)?;
    let unpack_one = |lua: &Lua, values| {
        let given = Given::new(values);
        let offset = given.optional_integer(2, 0)?;
        read_all(lua, &given.bytes(1)?, Some(1), offset)
    };
    table.raw_set("unpack_one", function(lua, unpack_one)?)?;
    let unpack_limit = |lua: &Lua, values| {
        let given = Given::new(values);
        let limit = given.integer(2)?;
        let offset = given.optional_integer(3, 0)?;
        read_all(lua, &given.bytes(1)?, Some(limit), offset)
    };
    table.raw_set("unpack_limit", function(lua, unpack_limit)?)?;
    Ok(table)
}

fn pack(lua: &Lua, values: MultiValue) -> Results {
    if values.is_empty() {
        return Err(Fault::argument(0, "MessagePack pack needs input."));
    }
    let mut out = Vec::new();
    for value in values {
        write(&mut out, &value, 0)?;
    }
    Ok(MultiValue::from_iter([Value::String(lua.create_string(&out)?)]))
}

fn head(out: &mut Vec<u8>, count: usize, small: Option<(u8, usize)>, marks: [u8; 3]) {
    match small {
        Some((mark, limit)) if count < limit => return out.push(mark | count as u8),
        _ => {}
    }
    if count <= 0xff && marks[0] != 0 {
        out.extend([marks[0], count as u8]);
    } else if count <= 0xffff {
        out.push(marks[1]);
        out.extend((count as u16).to_be_bytes());
    } else {
        out.push(marks[2]);
        out.extend((count as u32).to_be_bytes());
    }
}

fn write(out: &mut Vec<u8>, value: &Value, depth: usize) -> Result<(), Fault> {
    match value {
        Value::String(text) => {
            let bytes = text.as_bytes();
            head(out, bytes.len(), Some((0xa0, 32)), [0xd9, 0xda, 0xdb]);
            out.extend_from_slice(&bytes);
        }
        Value::Boolean(value) => out.push(if *value { 0xc3 } else { 0xc2 }),
        Value::Number(number) => write_number(out, *number),
        Value::Integer(number) => write_integer(out, *number),
        Value::Table(table) if depth < DEPTH_MAX => write_table(out, table, depth)?,
        _ => out.push(0xc0),
    }
    Ok(())
}

fn write_number(out: &mut Vec<u8>, number: f64) {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if (-LIMIT..LIMIT).contains(&number) && number as i64 as f64 == number {
        write_integer(out, number as i64);
    } else if f64::from(number as f32) == number {
        out.push(0xca);
        out.extend((number as f32).to_be_bytes());
    } else {
        out.push(0xcb);
        out.extend(number.to_be_bytes());
    }
}

fn write_integer(out: &mut Vec<u8>, number: i64) {
    let bytes = number.to_be_bytes();
    match number {
        -32..=127 => out.push(number as u8),
        128..=0xff => out.extend([0xcc, number as u8]),
        0x100..=0xffff => {
            out.push(0xcd);
            out.extend(&bytes[6..]);
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xce);
            out.extend(&bytes[4..]);
        }
        0x1_0000_0000.. => {
            out.push(0xcf);
            out.extend(bytes);
        }
        -128..=-33 => out.extend([0xd0, number as u8]),
        -0x8000..=-129 => {
            out.push(0xd1);
            out.extend(&bytes[6..]);
        }
        -0x8000_0000..=-0x8001 => {
            out.push(0xd2);
            out.extend(&bytes[4..]);
        }
        _ => {
            out.push(0xd3);
            out.extend(bytes);
        }
    }
}

fn write_table(out: &mut Vec<u8>, table: &Table, depth: usize) -> Result<(), Fault> {
    let (mut count, mut greatest, mut is_array) = (0usize, 0f64, true);
    table.for_each(|key: Value, _: Value| {
        count += 1;
        let number = match key {
            Value::Number(number) => number,
            Value::Integer(number) => number as f64,
            _ => 0.0,
        };
        is_array &= number > 0.0 && number as i32 as f64 == number;
        greatest = greatest.max(number);
        Ok(())
    })?;
    if is_array && greatest == count as f64 {
        head(out, count, Some((0x90, 16)), [0, 0xdc, 0xdd]);
        for nth in 1..=count {
            write(out, &table.raw_get::<Value>(nth)?, depth + 1)?;
        }
        return Ok(());
    }
    head(out, count, Some((0x80, 16)), [0, 0xde, 0xdf]);
    let mut fault = None;
    table.for_each(|key: Value, value: Value| {
        let mut both = || {
            write(out, &key, depth + 1)?;
            write(out, &value, depth + 1)
        };
        if fault.is_none() {
            fault = both().err();
        }
        Ok(())
    })?;
    fault.map_or(Ok(()), Err)
}

fn read_all(lua: &Lua, data: &[u8], limit: Option<i64>, offset: i64) -> Results {
    if offset < 0 || limit.is_some_and(|limit| limit < 0) {
        let text = format!(
            "Invalid request to unpack with offset of {offset} and limit of {}.",
            data.len()
        );
        return Err(Fault::placed(text));
    }
    let Some(rest) = usize::try_from(offset).ok().and_then(|offset| data.get(offset..)) else {
        let text = format!("Start offset {offset} greater than input length {}.", data.len());
        return Err(Fault::placed(text));
    };
    // No limit and no offset: all, and not where it ends.
    let limit = limit.filter(|limit| *limit != 0 || offset != 0);
    let mut reader = Reader { lua, rest };
    let mut found = MultiValue::new();
    while !reader.rest.is_empty() && limit.is_none_or(|limit| (found.len() as i64) < limit) {
        found.push_back(reader.value(0)?);
    }
    if limit.is_some() {
        let at = match reader.rest.is_empty() {
            true => -1.0,
            false => (data.len() - reader.rest.len()) as f64,
        };
        found.push_front(Value::Number(at));
    }
    Ok(found)
}

struct Reader<'a> {
    lua: &'a Lua,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        match self.rest.split_at_checked(count) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(Fault::placed("Missing bytes in input.")),
        }
    }

    fn unsigned(&mut self, bytes: usize) -> Result<u64, Fault> {
        let taken = self.take(bytes)?;
        Ok(taken.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn text(&mut self, count: u64) -> Result<Value, Fault> {
        let bytes = self.take(count as usize)?;
        Ok(Value::String(self.lua.create_string(bytes)?))
    }

    fn array(&mut self, count: u64, depth: usize) -> Result<Value, Fault> {
        let table = self.lua.create_table()?;
        for nth in 1..=count {
            table.raw_set(nth as f64, self.value(depth + 1)?)?;
        }
        Ok(Value::Table(table))
    }

    fn map(&mut self, count: u64, depth: usize) -> Result<Value, Fault> {
        let table = self.lua.create_table()?;
        for _ in 0..count {
            let key = self.value(depth + 1)?;
            let value = self.value(depth + 1)?;
            let wrong = match key {
                Value::Nil => Some("table index is nil"),
                Value::Number(number) if number.is_nan() => Some("table index is NaN"),
                _ => None,
            };
            if let Some(wrong) = wrong {
                // Without a place, as Lua raises it in a function of C.
                return Err(Fault::Raised(Value::String(self.lua.create_string(wrong)?)));
            }
            table.raw_set(key, value)?;
        }
        Ok(Value::Table(table))
    }

    fn value(&mut self, depth: usize) -> Result<Value, Fault> {
        if depth > READ_DEPTH_MAX {
            return Err(Fault::placed("Bad data format in input."));
        }
        let mark = self.unsigned(1)?;
        Ok(match mark {
            0xcc => Value::Number(self.unsigned(1)? as f64),
            0xcd => Value::Number(self.unsigned(2)? as f64),
            0xce => Value::Number(self.unsigned(4)? as f64),
            // With a sign, as Lua 5.1 has it.
            0xcf => Value::Number(self.unsigned(8)? as i64 as f64),
            0xd0 => Value::Number(self.unsigned(1)? as i8 as f64),
            0xd1 => Value::Number(self.unsigned(2)? as i16 as f64),
            0xd2 => Value::Number(self.unsigned(4)? as i32 as f64),
            0xd3 => Value::Number(self.unsigned(8)? as i64 as f64),
            0xc0 => Value::Nil,
            0xc2 => Value::Boolean(false),
            0xc3 => Value::Boolean(true),
            0xca => Value::Number(f32::from_bits(self.unsigned(4)? as u32).into()),
            0xcb => Value::Number(f64::from_bits(self.unsigned(8)?)),
            0xd9 => {
                let count = self.unsigned(1)?;
                self.text(count)?
            }
            0xda => {
                let count = self.unsigned(2)?;
                self.text(count)?
            }
            0xdb => {
                let count = self.unsigned(4)?;
                self.text(count)?
            }
            0xdc => {
                let count = self.unsigned(2)?;
                self.array(count, depth)?
            }
            0xdd => {
                let count = self.unsigned(4)?;
                self.array(count, depth)?
            }
            0xde => {
                let count = self.unsigned(2)?;
                self.map(count, depth)?
            }
            0xdf => {
                let count = self.unsigned(4)?;
                self.map(count, depth)?
            }
            0x00..=0x7f => Value::Number(mark as f64),
            0xe0..=0xff => Value::Number(f64::from(mark as u8 as i8)),
            0xa0..=0xbf => self.text(mark & 0x1f)?,
            0x90..=0x9f => self.array(mark & 0x0f, depth)?,
            0x80..=0x8f => self.map(mark & 0x0f, depth)?,
            _ => return Err(Fault::placed("Bad data format in input.")),
        })
    }
}
