//! `bit`: operations on 32 bits, as Mike Pall's BitOp.

use super::arguments::Given;
use super::raise::{Fault, Results, function};
use mlua::{Lua, MultiValue, Table, Value};

/// Makes other bits of some.
type OfOne = fn(u32) -> u32;
/// Makes other bits of some, and of others or of a count.
type OfTwo = fn(u32, u32) -> u32;

/// The 32 low bits of a number, rounded to the next whole one.
fn bits(number: f64) -> u32 {
    (number + 6_755_399_441_055_744.0).to_bits() as u32
}

fn one(value: u32) -> Results {
    Ok(MultiValue::from_iter([Value::Number(f64::from(value as i32))]))
}

/// The table. Errors: no memory.
pub fn table(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    let single: [(&'static str, OfOne); 3] =
        [("tobit", |a| a), ("bnot", |a| !a), ("bswap", u32::swap_bytes)];
    for (name, run) in single {
        let run = move |_: &Lua, values| one(run(bits(Given::new(values).number(1)?)));
        table.raw_set(name, function(lua, run)?)?;
    }
    let many: [(&'static str, OfTwo); 3] =
        [("band", |a, b| a & b), ("bor", |a, b| a | b), ("bxor", |a, b| a ^ b)];
    for (name, run) in many {
        let run = move |_: &Lua, values| {
            let given = Given::new(values);
            let mut result = bits(given.number(1)?);
            for nth in 2..=given.values.len() {
                result = run(result, bits(given.number(nth)?));
            }
            one(result)
        };
        table.raw_set(name, function(lua, run)?)?;
    }
    let shifts: [(&'static str, OfTwo); 5] = [
        ("lshift", |a, n| a << n),
        ("rshift", |a, n| a >> n),
        ("arshift", |a, n| ((a as i32) >> n) as u32),
        ("rol", u32::rotate_left),
        ("ror", u32::rotate_right),
    ];
    for (name, run) in shifts {
        let run = move |_: &Lua, values| {
            let given = Given::new(values);
            let (value, count) = (bits(given.number(1)?), bits(given.number(2)?));
            one(run(value, count & 31))
        };
        table.raw_set(name, function(lua, run)?)?;
    }
    table.raw_set("tohex", function(lua, to_hex)?)?;
    Ok(table)
}

fn to_hex(lua: &Lua, values: MultiValue) -> Result<MultiValue, Fault> {
    let given = Given::new(values);
    let value = bits(given.number(1)?);
    let digits = match given.get(2) {
        None => 8,
        Some(_) => bits(given.number(2)?) as i32,
    };
    let count = digits.unsigned_abs().min(8) as usize;
    let text = if digits < 0 { format!("{value:08X}") } else { format!("{value:08x}") };
    Ok(MultiValue::from_iter([Value::String(lua.create_string(&text[8 - count..])?)]))
}
