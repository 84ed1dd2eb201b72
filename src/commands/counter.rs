//! Strings as numbers: INCR and its kin.

use super::refusal::{Outcome, Refusal};
use super::{Arity, Call, Command, Group, Keys, write};
use crate::numbers::long_double::LongDouble;
use crate::numbers::parse_integer;
use crate::resp::reply::Reply;
use Arity::Exactly;
use ringraft_shards::keyspace::{Edit, Expiry, StringForm};

/// The rows of this family.
pub const COMMANDS: &[Command] = &[
    write("incr", Exactly(2), Keys::FIRST, incr).grows().fast().about(
        Group::String,
        "1.0.0",
        "Adds one to the integer at a key, which counts as 0 when it does not exist.",
    ),
    write("decr", Exactly(2), Keys::FIRST, decr).grows().fast().about(
        Group::String,
        "1.0.0",
        "Takes one from the integer at a key, which counts as 0 when it does not exist.",
    ),
    write("incrby", Exactly(3), Keys::FIRST, incrby).grows().fast().about(
        Group::String,
        "1.0.0",
        "Adds a number to the integer at a key, which counts as 0 when it does not exist.",
    ),
    write("decrby", Exactly(3), Keys::FIRST, decrby).grows().fast().about(
        Group::String,
        "1.0.0",
        "Takes a number from the integer at a key, which counts as 0 when it does not exist.",
    ),
    write("incrbyfloat", Exactly(3), Keys::FIRST, incrbyfloat).grows().fast().about(
        Group::String,
        "2.6.0",
        "Adds a number to the number at a key, which counts as 0 when it does not exist.",
    ),
];

/// INCR key.
fn incr(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    add(1, call, edit, reply)
}

/// DECR key.
fn decr(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    add(-1, call, edit, reply)
}

/// INCRBY key increment.
fn incrby(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    add(call.integer(2)?, call, edit, reply)
}

/// DECRBY key decrement. The smallest integer has no opposite and is refused.
fn decrby(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let increment = call.integer(2)?.checked_neg();
    let overflow = Refusal::text("ERR decrement would overflow");
    add(increment.ok_or(overflow)?, call, edit, reply)
}

/// Cost: one lookup while the count of digits stays, else three; no allocation while they fit.
fn add(increment: i64, call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let mut sum = None;
    let is_done = edit.rewrite_string(&call.key(1), |text| {
        sum = parse_integer(text).and_then(|number| number.checked_add(increment));
        let mut buffer = itoa::Buffer::new();
        let digits = sum.map(|sum| buffer.format(sum).as_bytes()).unwrap_or_default();
        let fits = !digits.is_empty() && digits.len() == text.len();
        if fits {
            text.copy_from_slice(digits);
        }
        fits
    });
    match sum {
        Some(sum) if is_done => reply.integer(sum),
        _ => reply.integer(add_anew(increment, call, edit)?),
    }
    Ok(())
}

/// Adds to what has another form, or gets another length, or is not there.
fn add_anew(increment: i64, call: &Call<'_>, edit: &mut Edit<'_>) -> Result<i64, Refusal> {
    let number = match call.string(1, &edit.view())? {
        Some(text) => parse_integer(text).ok_or(Refusal::NotAnInteger)?,
        None => 0,
    };
    let sum = number
        .checked_add(increment)
        .ok_or(Refusal::text("ERR increment or decrement would overflow"))?;
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(sum).as_bytes();
    edit.set_string(&call.key(1), digits, StringForm::Automatic, Expiry::Keep);
    Ok(sum)
}

/// INCRBYFLOAT key increment. Keeps the deadline; the result is never kept as an integer.
fn incrbyfloat(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let parse = |text| LongDouble::parse(text).ok_or(Refusal::NotAFloat);
    let number = call.string(1, &edit.view())?.map_or(Ok(LongDouble::ZERO), parse)?;
    let sum = number
        .checked_add(parse(call.at(2))?)
        .ok_or(Refusal::text("ERR increment would produce NaN or Infinity"))?;
    let mut text = Vec::with_capacity(32);
    sum.print(&mut text);
    edit.set_string(&call.key(1), &text, StringForm::Text, Expiry::Keep);
    reply.bulk(&text);
    Ok(())
}
