//! `cjson`: JSON, as Mark Pulford's lua-cjson.

use super::arguments::{Given, number_of};
use super::json_read;
use super::printing;
use super::raise::{Fault, Results, function};
use mlua::{Lua, MultiValue, Table, Value};
use std::cell::Cell;
use std::rc::Rc;

/// What the functions of one table of `cjson` have been told.
pub struct Manner {
    /// Are sparse arrays made objects?
    converts: Cell<bool>,
    /// An array with fewer elements than one in so many is sparse; 0: none is.
    ratio: Cell<i64>,
    /// No array whose greatest index is this or less is sparse.
    safe: Cell<i64>,
    encode_depth: Cell<i64>,
    /// Tables one inside the other that are read.
    pub decode_depth: Cell<i64>,
    precision: Cell<i64>,
    keeps_buffer: Cell<bool>,
    /// What is written for a number that is none.
    invalid_encode: Cell<Invalid>,
    /// Are numbers read that JSON has not?
    pub invalid_decode: Cell<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Invalid {
    Refused,
    Written,
    Null,
}

impl Default for Manner {
    fn default() -> Manner {
        Manner {
            converts: Cell::new(false),
            ratio: Cell::new(2),
            safe: Cell::new(10),
            encode_depth: Cell::new(1000),
            decode_depth: Cell::new(1000),
            precision: Cell::new(14),
            keeps_buffer: Cell::new(true),
            invalid_encode: Cell::new(Invalid::Refused),
            invalid_decode: Cell::new(true),
        }
    }
}

/// Deepest nesting that a script may allow itself: the walk is one of this program's stack.
const DEPTH_MAX: i64 = 10_000;

/// The table. Errors: no memory.
pub fn table(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    let manner = Rc::new(Manner::default());
    let with = |run: fn(&Lua, &Manner, MultiValue) -> Results| {
        let manner = manner.clone();
        function(lua, move |lua, values| run(lua, &manner, values))
    };
    table.raw_set("encode", with(encode)?)?;
    table.raw_set("decode", with(decode)?)?;
    table.raw_set("encode_sparse_array", with(encode_sparse_array)?)?;
    table.raw_set("encode_max_depth", with(encode_max_depth)?)?;
    table.raw_set("decode_max_depth", with(decode_max_depth)?)?;
    table.raw_set("encode_number_precision", with(encode_number_precision)?)?;
    table.raw_set("encode_keep_buffer", with(encode_keep_buffer)?)?;
    table.raw_set("encode_invalid_numbers", with(encode_invalid_numbers)?)?;
    table.raw_set("decode_invalid_numbers", with(decode_invalid_numbers)?)?;
    let new = |lua: &Lua, _| Ok(MultiValue::from_iter([Value::Table(self::table(lua)?)]));
    table.raw_set("new", function(lua, new)?)?;
    table.raw_set("null", Value::NULL)?;
    table.raw_set("_NAME", "cjson")?;
    table.raw_set("_VERSION", "2.1.0")?;
    Ok(table)
}

fn only(value: Value) -> Results {
    Ok(MultiValue::from_iter([value]))
}

fn integer_option(
    given: &Given,
    nth: usize,
    (min, max): (i64, i64),
    cell: &Cell<i64>,
) -> Result<(), Fault> {
    if !matches!(given.get(nth), None | Some(Value::Nil)) {
        let number = given.integer(nth)?;
        if !(min..=max).contains(&number) {
            return Err(given.fault(nth, &format!("expected integer between {min} and {max}")));
        }
        cell.set(number);
    }
    Ok(())
}

fn switch_option(given: &Given, nth: usize, cell: &Cell<bool>) -> Result<(), Fault> {
    match given.get(nth) {
        None | Some(Value::Nil) => {}
        Some(Value::Boolean(on)) => cell.set(*on),
        Some(Value::String(word)) if word == "on" => cell.set(true),
        Some(Value::String(word)) if word == "off" => cell.set(false),
        Some(Value::String(word)) => {
            let text = format!("invalid option '{}'", word.to_string_lossy());
            return Err(given.fault(nth, &text));
        }
        Some(_) => drop(given.bytes(nth)?),
    }
    Ok(())
}

fn at_most(given: &Given, count: usize) -> Result<(), Fault> {
    match given.values.len() <= count {
        true => Ok(()),
        false => Err(given.fault(count + 1, "found too many arguments")),
    }
}

fn encode_sparse_array(_: &Lua, manner: &Manner, values: MultiValue) -> Results {
    let given = Given::new(values);
    at_most(&given, 3)?;
    switch_option(&given, 1, &manner.converts)?;
    integer_option(&given, 2, (0, i32::MAX.into()), &manner.ratio)?;
    integer_option(&given, 3, (0, i32::MAX.into()), &manner.safe)?;
    Ok(MultiValue::from_iter([
        Value::Boolean(manner.converts.get()),
        Value::Number(manner.ratio.get() as f64),
        Value::Number(manner.safe.get() as f64),
    ]))
}

fn integer_setting(cell: &Cell<i64>, bounds: (i64, i64), values: MultiValue) -> Results {
    let given = Given::new(values);
    at_most(&given, 1)?;
    integer_option(&given, 1, bounds, cell)?;
    only(Value::Number(cell.get() as f64))
}

fn encode_max_depth(_: &Lua, manner: &Manner, values: MultiValue) -> Results {
    integer_setting(&manner.encode_depth, (1, i32::MAX.into()), values)
}

fn decode_max_depth(_: &Lua, manner: &Manner, values: MultiValue) -> Results {
    integer_setting(&manner.decode_depth, (1, i32::MAX.into()), values)
}

fn encode_number_precision(_: &Lua, manner: &Manner, values: MultiValue) -> Results {
    integer_setting(&manner.precision, (1, 14), values)
}

fn encode_keep_buffer(_: &Lua, manner: &Manner, values: MultiValue) -> Results {
    let given = Given::new(values);
    at_most(&given, 1)?;
    switch_option(&given, 1, &manner.keeps_buffer)?;
    only(Value::Boolean(manner.keeps_buffer.get()))
}

fn encode_invalid_numbers(lua: &Lua, manner: &Manner, values: MultiValue) -> Results {
    let given = Given::new(values);
    at_most(&given, 1)?;
    match given.get(1) {
        Some(Value::String(word)) if word == "null" => manner.invalid_encode.set(Invalid::Null),
        _ => {
            let on = Cell::new(manner.invalid_encode.get() == Invalid::Written);
            switch_option(&given, 1, &on)?;
            if !matches!(given.get(1), None | Some(Value::Nil)) {
                let to = if on.get() { Invalid::Written } else { Invalid::Refused };
                manner.invalid_encode.set(to);
            }
        }
    }
    only(match manner.invalid_encode.get() {
        Invalid::Refused => Value::Boolean(false),
        Invalid::Written => Value::Boolean(true),
        Invalid::Null => Value::String(lua.create_string("null")?),
    })
}

fn decode_invalid_numbers(_: &Lua, manner: &Manner, values: MultiValue) -> Results {
    let given = Given::new(values);
    at_most(&given, 1)?;
    switch_option(&given, 1, &manner.invalid_decode)?;
    only(Value::Boolean(manner.invalid_decode.get()))
}

fn encode(lua: &Lua, manner: &Manner, values: MultiValue) -> Results {
    let given = Given::new(values);
    let [value] = given.values.as_slice() else {
        return Err(given.fault(1, "expected 1 argument"));
    };
    let mut out = Vec::new();
    write(manner, &mut out, value, 0)?;
    only(Value::String(lua.create_string(&out)?))
}

fn decode(lua: &Lua, manner: &Manner, values: MultiValue) -> Results {
    let given = Given::new(values);
    if given.values.len() != 1 {
        return Err(given.fault(1, "expected 1 argument"));
    }
    let text = given.bytes(1)?;
    only(json_read::read(lua, manner, &text)?)
}

fn write(manner: &Manner, out: &mut Vec<u8>, value: &Value, depth: i64) -> Result<(), Fault> {
    match value {
        Value::String(text) => write_string(out, &text.as_bytes()),
        Value::Number(_) | Value::Integer(_) => {
            write_number(manner, out, number_of(value).expect("a number"))?;
        }
        Value::Boolean(true) => out.extend_from_slice(b"true"),
        Value::Boolean(false) => out.extend_from_slice(b"false"),
        Value::Nil => out.extend_from_slice(b"null"),
        Value::LightUserData(pointer) if pointer.0.is_null() => out.extend_from_slice(b"null"),
        Value::Table(table) => write_table(manner, out, table, depth + 1)?,
        other => return Err(unserialisable(other, "type not supported")),
    }
    Ok(())
}

fn unserialisable(value: &Value, why: &str) -> Fault {
    let kind = super::arguments::type_name(Some(value));
    Fault::placed(format!("Cannot serialise {kind}: {why}"))
}

fn write_number(manner: &Manner, out: &mut Vec<u8>, number: f64) -> Result<(), Fault> {
    if number.is_finite() {
        out.extend(printing::general(number, manner.precision.get() as usize));
        return Ok(());
    }
    match manner.invalid_encode.get() {
        Invalid::Refused => {
            let why = "must not be NaN or Inf";
            return Err(unserialisable(&Value::Number(number), why));
        }
        Invalid::Null => out.extend_from_slice(b"null"),
        Invalid::Written if number.is_nan() => out.extend_from_slice(b"nan"),
        Invalid::Written => out.extend(printing::general(number, 14)),
    }
    Ok(())
}

fn write_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for &byte in bytes {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'/' => out.extend_from_slice(b"\\/"),
            8 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            12 => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0..=31 | 127 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// How many elements a table has when it is an array.
fn array_length(manner: &Manner, table: &Table) -> Result<Option<usize>, Fault> {
    let (mut greatest, mut count, mut is_array) = (0i32, 0i64, true);
    table.for_each(|key: Value, _: Value| {
        match number_of_key(&key) {
            Some(number) if number.floor() == number && number >= 1.0 => {
                if number > f64::from(greatest) {
                    greatest = as_int(number);
                }
            }
            _ => is_array = false,
        }
        count += 1;
        Ok(())
    })?;
    if !is_array || count == 0 {
        return Ok(None);
    }
    let ratio = manner.ratio.get();
    if ratio > 0 && i64::from(greatest) > (count * ratio).max(manner.safe.get()) {
        if !manner.converts.get() {
            let table = Value::Table(table.clone());
            return Err(unserialisable(&table, "excessively sparse array"));
        }
        return Ok(None);
    }
    Ok(usize::try_from(greatest).ok())
}

fn number_of_key(key: &Value) -> Option<f64> {
    match key {
        Value::Number(number) => Some(*number),
        Value::Integer(number) => Some(*number as f64),
        _ => None,
    }
}

/// As C makes an `int` of a number on this machine: what does not fit is the least one.
fn as_int(number: f64) -> i32 {
    let fits = number >= f64::from(i32::MIN) && number <= f64::from(i32::MAX);
    if fits { number as i32 } else { i32::MIN }
}

fn write_table(manner: &Manner, out: &mut Vec<u8>, table: &Table, depth: i64) -> Result<(), Fault> {
    if depth > manner.encode_depth.get().min(DEPTH_MAX) {
        return Err(Fault::placed(format!("Cannot serialise, excessive depth ({depth})")));
    }
    if let Some(length) = array_length(manner, table)? {
        out.push(b'[');
        for nth in 1..=length {
            if nth > 1 {
                out.push(b',');
            }
            write(manner, out, &table.raw_get::<Value>(nth)?, depth)?;
        }
        out.push(b']');
        return Ok(());
    }
    out.push(b'{');
    let (mut fault, mut first) = (None, true);
    table.for_each(|key: Value, value: Value| {
        if fault.is_none() {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            fault = write_pair(manner, out, &key, &value, depth).err();
        }
        Ok(())
    })?;
    out.push(b'}');
    fault.map_or(Ok(()), Err)
}

fn write_pair(
    manner: &Manner,
    out: &mut Vec<u8>,
    key: &Value,
    value: &Value,
    depth: i64,
) -> Result<(), Fault> {
    match key {
        Value::Number(_) | Value::Integer(_) => {
            out.push(b'"');
            write_number(manner, out, number_of(key).expect("a number"))?;
            out.push(b'"');
        }
        Value::String(text) => write_string(out, &text.as_bytes()),
        other => return Err(unserialisable(other, "table key must be a number or string")),
    }
    out.push(b':');
    write(manner, out, value, depth)
}
