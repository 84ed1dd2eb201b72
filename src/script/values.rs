//! Replies as values of Lua, and values of Lua as replies, by Redis' rules.

use super::arguments::number_of;
use super::raise::Fault;
use crate::numbers::parse_integer;
use crate::refusal::Refusal;
use crate::resp::reply::{Protocol, Reply};
use mlua::{Lua, Table, Value};

/// Tables of a reply one inside the other.
const DEPTH_MAX: usize = 1000;

/// The value of a reply that this server wrote, and what follows it.
pub fn from_reply<'a>(
    lua: &Lua,
    bytes: &'a [u8],
    protocol: Protocol,
) -> mlua::Result<(Value, &'a [u8])> {
    let end = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
    let (line, rest) = bytes.split_at(end);
    let text = line.get(1..).unwrap_or_default().trim_ascii_end();
    let number = || parse_integer(text).unwrap_or(0);
    let missing = || match protocol {
        Protocol::Resp2 => Value::Boolean(false),
        Protocol::Resp3 => Value::Nil,
    };
    let field = |name: &str, value: Value| -> mlua::Result<Value> {
        let table = lua.create_table()?;
        table.raw_set(name, value)?;
        Ok(Value::Table(table))
    };
    let value = match line.first() {
        Some(b'+') => field("ok", Value::String(lua.create_string(text)?))?,
        Some(b'-') => Value::Table(error(lua, text)?),
        Some(b':') => Value::Number(number() as f64),
        Some(b'$' | b'*') if number() < 0 => missing(),
        Some(b'$') => {
            let (bulk, rest) = rest.split_at(number() as usize);
            return Ok((Value::String(lua.create_string(bulk)?), &rest[2..]));
        }
        Some(b'=') => {
            let (bulk, rest) = rest.split_at(number() as usize);
            let table = lua.create_table()?;
            table.raw_set("format", lua.create_string(&bulk[..3])?)?;
            table.raw_set("string", lua.create_string(&bulk[4..])?)?;
            return Ok((field("verbatim_string", Value::Table(table))?, &rest[2..]));
        }
        Some(b'*') => {
            let table = lua.create_table_with_capacity(number() as usize, 0)?;
            let mut rest = rest;
            for nth in 1..=number() {
                let value;
                (value, rest) = from_reply(lua, rest, protocol)?;
                table.raw_set(nth, value)?;
            }
            return Ok((Value::Table(table), rest));
        }
        Some(kind @ (b'%' | b'~')) => {
            let table = lua.create_table()?;
            let mut rest = rest;
            for _ in 0..number() {
                let (key, mut value);
                (key, rest) = from_reply(lua, rest, protocol)?;
                value = Value::Boolean(true);
                if *kind == b'%' {
                    (value, rest) = from_reply(lua, rest, protocol)?;
                }
                table.raw_set(key, value)?;
            }
            let name = if *kind == b'%' { "map" } else { "set" };
            return Ok((field(name, Value::Table(table))?, rest));
        }
        Some(b'#') => Value::Boolean(text == b"t"),
        Some(b',') => {
            let number = match text {
                b"inf" => f64::INFINITY,
                b"-inf" => f64::NEG_INFINITY,
                _ => std::str::from_utf8(text).ok().and_then(|n| n.parse().ok()).unwrap_or(0.0),
            };
            field("double", Value::Number(number))?
        }
        Some(b'(') => field("big_number", Value::String(lua.create_string(text)?))?,
        _ => Value::Nil,
    };
    Ok((value, rest))
}

/// The table that stands for an error; `text` has its code word.
pub fn error(lua: &Lua, text: &[u8]) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("err", lua.create_string(text)?)?;
    Ok(table)
}

/// An error that a command answered: it is counted where it arose.
pub fn counted_error(lua: &Lua, text: &[u8]) -> mlua::Result<Table> {
    let table = error(lua, text)?;
    table.raw_set("ignore_error_stats_update", true)?;
    Ok(table)
}

/// To be raised, or returned by `redis.pcall`.
pub fn raised(table: mlua::Result<Table>) -> Fault {
    match table {
        Ok(table) => Fault::Raised(Value::Table(table)),
        Err(error) => error.into(),
    }
}

/// Writes a value as a reply; `protocol` is the one that the script has chosen (`redis.setresp`).
/// Errors: it is nested too deep.
pub fn to_reply(value: &Value, protocol: Protocol, reply: &mut Reply<'_>) -> Result<(), Refusal> {
    write(value, protocol, reply, 0)
}

fn write(
    value: &Value,
    protocol: Protocol,
    reply: &mut Reply<'_>,
    depth: usize,
) -> Result<(), Refusal> {
    if depth > DEPTH_MAX {
        return Err(Refusal::text("ERR reached lua stack limit"));
    }
    match value {
        Value::String(text) => reply.bulk(&text.as_bytes()),
        Value::Boolean(value) => match (protocol, value) {
            (Protocol::Resp2, true) => reply.integer(1),
            (Protocol::Resp2, false) => reply.null(),
            (Protocol::Resp3, value) => reply.boolean(*value),
        },
        // As C converts on this machine: what does not fit is the least integer.
        Value::Number(number) => reply.integer(whole(*number)),
        Value::Integer(number) => reply.integer(*number),
        Value::Table(table) => return write_table(table, protocol, reply, depth),
        _ => reply.null(),
    }
    Ok(())
}

/// A number as a reply says it.
pub(super) fn whole(number: f64) -> i64 {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if (-LIMIT..LIMIT).contains(&number) { number as i64 } else { i64::MIN }
}

fn write_table(
    table: &Table,
    protocol: Protocol,
    reply: &mut Reply<'_>,
    depth: usize,
) -> Result<(), Refusal> {
    let field = |name: &str| table.raw_get::<Value>(name).unwrap_or(Value::Nil);
    if let Value::String(text) = field("err") {
        reply.error_bytes(&text.as_bytes());
        return Ok(());
    }
    if let Value::String(text) = field("ok") {
        let text: Vec<u8> = text.as_bytes().iter().map(|&byte| single_line(byte)).collect();
        reply.raw(&[b"+", text.as_slice(), b"\r\n"].concat());
        return Ok(());
    }
    if let number @ (Value::Number(_) | Value::Integer(_)) = field("double") {
        reply.double(number_of(&number).expect("a number"));
        return Ok(());
    }
    if let Value::Table(map) = field("map") {
        return write_pairs(&map, protocol, reply, depth, |reply, count| reply.map(count), true);
    }
    if let Value::Table(set) = field("set") {
        return write_pairs(&set, protocol, reply, depth, |reply, count| reply.set(count), false);
    }
    if let Value::String(digits) = field("big_number") {
        let digits: Vec<u8> = digits.as_bytes().iter().map(|&byte| single_line(byte)).collect();
        match reply.protocol() {
            Protocol::Resp2 => reply.bulk(&digits),
            Protocol::Resp3 => reply.raw(&[b"(", digits.as_slice(), b"\r\n"].concat()),
        }
        return Ok(());
    }
    if let Value::Table(verbatim) = field("verbatim_string") {
        let field = |name: &str| match verbatim.raw_get::<Value>(name) {
            Ok(Value::String(text)) => Some(text.as_bytes().to_vec()),
            _ => None,
        };
        if let (Some(text), Some(mut format)) = (field("string"), field("format")) {
            format.resize(3, b' ');
            match reply.protocol() {
                Protocol::Resp2 => reply.bulk(&text),
                Protocol::Resp3 => {
                    reply.raw(format!("={}\r\n", text.len() + 4).as_bytes());
                    reply.raw(&[format.as_slice(), b":", text.as_slice(), b"\r\n"].concat());
                }
            }
            return Ok(());
        }
    }
    // Its length is known when it ends.
    let mut elements = Vec::new();
    let mut own = Reply::new(&mut elements, reply.protocol());
    let mut count = 0;
    loop {
        match table.raw_get::<Value>(count + 1).unwrap_or(Value::Nil) {
            Value::Nil => break,
            value => write(&value, protocol, &mut own, depth + 1)?,
        }
        count += 1;
    }
    reply.array(count);
    reply.raw(&elements);
    Ok(())
}

fn single_line(byte: u8) -> u8 {
    if byte == b'\r' || byte == b'\n' { b' ' } else { byte }
}

fn write_pairs(
    table: &Table,
    protocol: Protocol,
    reply: &mut Reply<'_>,
    depth: usize,
    head: fn(&mut Reply<'_>, usize),
    with_values: bool,
) -> Result<(), Refusal> {
    let (mut elements, mut count, mut outcome) = (Vec::new(), 0, Ok(()));
    let mut own = Reply::new(&mut elements, reply.protocol());
    let walked = table.for_each(|key: Value, value: Value| {
        count += 1;
        if outcome.is_ok() {
            outcome = write(&key, protocol, &mut own, depth + 1);
        }
        if outcome.is_ok() && with_values {
            outcome = write(&value, protocol, &mut own, depth + 1);
        }
        Ok(())
    });
    outcome?;
    if walked.is_err() {
        return Err(Refusal::text("ERR not enough memory"));
    }
    head(reply, count);
    reply.raw(&elements);
    Ok(())
}
