//! Strings as rows of bits. Integers within them are in `bitfield.rs`.

use super::options::{range_in_order, range_within};
use super::refusal::{Outcome, Refusal};
use super::{Arity, Call, Command, Group, Keys, read, write};
use crate::bits::{self, Join};
use crate::numbers::parse_integer;
use crate::resp::reply::Reply;
use Arity::{AtLeast, Exactly};
use ringraft_shards::keyspace::{Edit, Expiry, StringForm, View};

/// The rows of this family.
pub const COMMANDS: &[Command] = &[
    write("setbit", Exactly(4), Keys::FIRST, setbit).grows().about(
        Group::Bitmap,
        "2.2.0",
        "Sets or clears a bit of the string at a key and returns what it was.",
    ),
    read("getbit", Exactly(3), Keys::FIRST, getbit).fast().about(
        Group::Bitmap,
        "2.2.0",
        "Returns a bit of the string at a key.",
    ),
    read("bitcount", AtLeast(2), Keys::FIRST, bitcount).about(
        Group::Bitmap,
        "2.6.0",
        "Counts the bits that are set in the string at a key, or in a part of it.",
    ),
    read("bitpos", AtLeast(3), Keys::FIRST, bitpos).about(
        Group::Bitmap,
        "2.8.7",
        "Finds the first bit that is set, or clear, in the string at a key.",
    ),
    write("bitop", AtLeast(4), Keys::FROM_SECOND, bitop).grows().about(
        Group::Bitmap,
        "2.6.0",
        "Joins strings bit by bit and keeps the result at a key.",
    ),
];

/// A position of a bit in the longest string that the call may make. Errors: no integer, negative,
/// or past that string's end.
pub(super) fn parse_offset(call: &Call<'_>, i: usize) -> Result<u64, Refusal> {
    check_offset(parse_integer(call.at(i)), call)
}

/// As [`parse_offset`], for a position that was parsed before.
pub(super) fn check_offset(offset: Option<i64>, call: &Call<'_>) -> Result<u64, Refusal> {
    offset
        .and_then(|offset| u64::try_from(offset).ok())
        .filter(|offset| offset / 8 < call.string_bytes_max as u64)
        .ok_or(BIT_OUT_OF_RANGE)
}

/// A bit that the longest string does not have.
pub(super) const BIT_OUT_OF_RANGE: Refusal =
    Refusal::text("ERR bit offset is not an integer or out of range");

/// SETBIT key offset value. Keeps the deadline.
fn setbit(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let offset = parse_offset(call, 2)?;
    let bit = match parse_integer(call.at(3)) {
        Some(0) => false,
        Some(1) => true,
        _ => return Err(Refusal::text("ERR bit is not an integer or out of range")),
    };
    let value = call.string(1, &edit.view())?;
    let old_size = value.map_or(0, <[u8]>::len);
    let size = old_size.max((offset / 8) as usize + 1);
    // What changes nothing is no change.
    if old_size == size && value.is_some_and(|value| bits::get(value, offset) == bit) {
        reply.integer(bit.into());
        edit.make_raw(&call.key(1));
        return Ok(());
    }
    let bytes = edit.string_mut(&call.key(1), size, StringForm::Raw).ok_or(Refusal::WrongType)?;
    reply.integer(bits::replace(bytes, offset, bit).into());
    Ok(())
}

/// GETBIT key offset.
fn getbit(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let offset = parse_offset(call, 2)?;
    let value = call.string(1, view)?.unwrap_or_default();
    reply.integer(bits::get(value, offset).into());
    Ok(())
}

/// What the ends of a range count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Byte,
    Bit,
}

impl Unit {
    /// BYTE or BIT as argument `i`; without one, bytes. Errors: another word.
    fn of(call: &Call<'_>, i: usize) -> Result<Unit, Refusal> {
        match call.arguments.get(i) {
            None => Ok(Unit::Byte),
            Some(_) if call.arguments.is(i, "BYTE") => Ok(Unit::Byte),
            Some(_) if call.arguments.is(i, "BIT") => Ok(Unit::Bit),
            Some(_) => Err(Refusal::Syntax),
        }
    }

    /// How many of it a string of `size` bytes has.
    fn count(self, size: usize) -> i64 {
        match self {
            Unit::Byte => size as i64,
            Unit::Bit => size as i64 * 8,
        }
    }

    /// The first and the last bit of a range.
    fn bits(self, (first, last): (i64, i64)) -> (u64, u64) {
        match self {
            Unit::Byte => (first as u64 * 8, last as u64 * 8 + 7),
            Unit::Bit => (first as u64, last as u64),
        }
    }
}

/// BITCOUNT key [start end [BYTE | BIT]].
fn bitcount(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (start, end, unit) = match call.count() {
        2 => (0, -1, Unit::Byte),
        4 | 5 => (call.integer(2)?, call.integer(3)?, Unit::of(call, 4)?),
        _ => return Err(Refusal::Syntax),
    };
    let value = call.string(1, view)?.unwrap_or_default();
    let range = range_in_order(start, end, unit.count(value.len())).map(|range| unit.bits(range));
    let count = range.map_or(0, |(first, last)| bits::count_range(value, first, last));
    reply.integer(count as i64);
    Ok(())
}

/// BITPOS key bit [start [end [BYTE | BIT]]]. Without an end, a string counts as followed by zeros;
/// a key that does not exist is zeros only.
fn bitpos(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let bit = match call.integer(2)? {
        0 => false,
        1 => true,
        _ => return Err(Refusal::text("ERR The bit argument must be 1 or 0.")),
    };
    if call.count() > 6 {
        return Err(Refusal::Syntax);
    }
    let start = if call.count() > 3 { call.integer(3)? } else { 0 };
    let unit = Unit::of(call, 5)?;
    let end = if call.count() > 4 { call.integer(4)? } else { i64::MAX };
    let Some(value) = call.string(1, view)? else {
        reply.integer(if bit { -1 } else { 0 });
        return Ok(());
    };
    let range = range_within(start, end, unit.count(value.len())).map(|range| unit.bits(range));
    let found = range.and_then(|(first, last)| bits::find(value, bit, first, last));
    let zeros_follow = range.is_some() && !bit && call.count() <= 4;
    reply.integer(match found {
        Some(at) => at as i64,
        None if zeros_follow => value.len() as i64 * 8,
        None => -1,
    });
    Ok(())
}

/// BITOP AND | OR | XOR | NOT destination key [key ...]. The destination loses its deadline; an
/// empty result removes it.
fn bitop(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let join = if call.arguments.is(1, "AND") {
        Some(Join::And)
    } else if call.arguments.is(1, "OR") {
        Some(Join::Or)
    } else if call.arguments.is(1, "XOR") {
        Some(Join::Xor)
    } else if call.arguments.is(1, "NOT") {
        None
    } else {
        return Err(Refusal::Syntax);
    };
    if join.is_none() && call.count() != 4 {
        return Err(Refusal::text("ERR BITOP NOT must be called with a single source key."));
    }
    let result = joined(join, call, &edit.view())?;
    if result.is_empty() {
        edit.remove(&call.key(2));
    } else {
        edit.set_string(&call.key(2), &result, StringForm::Raw, Expiry::Never);
    }
    reply.integer(result.len() as i64);
    Ok(())
}

/// The sources joined, as long as the longest; without `join`, the one source turned over.
fn joined(join: Option<Join>, call: &Call<'_>, view: &View<'_>) -> Result<Vec<u8>, Refusal> {
    let mut size = 0;
    for i in 3..call.count() {
        size = size.max(call.string(i, view)?.map_or(0, <[u8]>::len));
    }
    let mut result = Vec::with_capacity(size);
    result.extend_from_slice(call.string(3, view)?.unwrap_or_default());
    result.resize(size, 0);
    match join {
        None => result.iter_mut().for_each(|byte| *byte = !*byte),
        Some(join) => {
            for i in 4..call.count() {
                bits::join(&mut result, call.string(i, view)?.unwrap_or_default(), join);
            }
        }
    }
    Ok(result)
}
