//! BITFIELD: integers of any width at any bit of a string.
//!
//! A request is parsed whole into operations before the first one runs, so that a mistake in the
//! last changes nothing.

use super::bit::{BIT_OUT_OF_RANGE, check_offset};
use super::refusal::{Outcome, Refusal};
use super::{Arity, Call, Command, Group, Keys, read, write};
use crate::bits::Field;
use crate::numbers::parse_integer;
use crate::resp::reply::Reply;
use ringraft_shards::keyspace::{Edit, StringForm, View};

/// The rows of this family.
pub const COMMANDS: &[Command] = &[
    write("bitfield", Arity::AtLeast(2), Keys::FIRST, bitfield).grows().about(
        Group::Bitmap,
        "3.2.0",
        "Reads, sets and adds to integers at bits of the string at a key.",
    ),
    read("bitfield_ro", Arity::AtLeast(2), Keys::FIRST, bitfield_ro).fast().about(
        Group::Bitmap,
        "6.0.0",
        "Reads integers at bits of the string at a key.",
    ),
];

/// BITFIELD key [GET type offset | [OVERFLOW WRAP | SAT | FAIL] SET type offset value | INCRBY type
/// offset increment ...]. Keeps the deadline. With writes, the string grows to the last bit
/// written, even when every write fails.
fn bitfield(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let operations = Operation::parse_all(call)?;
    let writes = operations.iter().filter(|operation| operation.action != Action::Get);
    let Some(end) = writes.map(|operation| operation.field.end_byte()).max() else {
        return reply_with_fields(&operations, call, &edit.view(), reply);
    };
    if end > call.string_bytes_max {
        return Err(BIT_OUT_OF_RANGE);
    }
    let value = call.string(1, &edit.view())?.unwrap_or_default();
    let size = value.len().max(end);
    if value.len() == size && !operations.iter().any(|operation| operation.changes(value)) {
        reply.array(operations.len());
        operations.iter().for_each(|operation| operation.reply_unchanged(value, reply));
        edit.make_raw(&call.key(1));
        return Ok(());
    }
    let bytes = edit.string_mut(&call.key(1), size, StringForm::Raw).ok_or(Refusal::WrongType)?;
    reply.array(operations.len());
    for operation in &operations {
        operation.run(bytes, reply);
    }
    Ok(())
}

/// BITFIELD_RO key [GET type offset ...].
fn bitfield_ro(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let operations = Operation::parse_all(call)?;
    if operations.iter().any(|operation| operation.action != Action::Get) {
        return Err(Refusal::text("ERR BITFIELD_RO only supports the GET subcommand"));
    }
    reply_with_fields(&operations, call, view, reply)
}

fn reply_with_fields(
    operations: &[Operation],
    call: &Call<'_>,
    view: &View<'_>,
    reply: &mut Reply<'_>,
) -> Outcome {
    let value = call.string(1, view)?.unwrap_or_default();
    reply.array(operations.len());
    for operation in operations {
        reply.integer(operation.read(value));
    }
    Ok(())
}

/// What is done with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// Reads it.
    Get,
    /// Sets it and replies with the old integer.
    Set(i64),
    /// Adds to it and replies with the sum.
    Add(i64),
}

/// What is done with an integer that its field cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Overflow {
    /// The bits that fit are kept.
    Wrap,
    /// The nearest integer that fits is kept.
    Saturate,
    /// Nothing changes, and the reply is null.
    Fail,
}

#[derive(Clone, Copy, Debug)]
struct Operation {
    action: Action,
    field: Field,
    signed: bool,
    overflow: Overflow,
}

impl Operation {
    fn parse_all(call: &Call<'_>) -> Result<Vec<Operation>, Refusal> {
        let mut operations = Vec::new();
        let mut overflow = Overflow::Wrap;
        let mut at = 2;
        while at < call.count() {
            let more = call.count() - at - 1;
            if call.arguments.is(at, "OVERFLOW") && more >= 1 {
                overflow = parse_overflow(call, at + 1)?;
                at += 2;
                continue;
            }
            let value_count = match call.at(at) {
                word if word.eq_ignore_ascii_case(b"GET") && more >= 2 => 0,
                word if word.eq_ignore_ascii_case(b"SET") && more >= 3 => 1,
                word if word.eq_ignore_ascii_case(b"INCRBY") && more >= 3 => 1,
                _ => return Err(Refusal::Syntax),
            };
            let (signed, size) = parse_type(call.at(at + 1))?;
            let field = Field { offset: parse_field_offset(call, at + 2, size)?, size };
            let action = match call.at(at)[0] {
                b'G' | b'g' => Action::Get,
                b'S' | b's' => Action::Set(call.integer(at + 3)?),
                _ => Action::Add(call.integer(at + 3)?),
            };
            operations.push(Operation { action, field, signed, overflow });
            at += 3 + value_count;
        }
        Ok(operations)
    }

    fn read(&self, bytes: &[u8]) -> i64 {
        let spare = 64 - self.field.size;
        let raw = self.field.read(bytes) << spare;
        if self.signed { raw as i64 >> spare } else { (raw >> spare) as i64 }
    }

    /// The integer that it would keep; `None` when it reads, or fails.
    fn new_integer(&self, bytes: &[u8]) -> Option<i128> {
        let wanted = match self.action {
            Action::Get => return None,
            // An unsigned field takes a negative integer for a large one.
            Action::Set(value) if self.signed => i128::from(value),
            Action::Set(value) => i128::from(value as u64),
            Action::Add(value) => i128::from(self.read(bytes)) + i128::from(value),
        };
        self.fitted(wanted)
    }

    /// Would it change these bytes?
    fn changes(&self, bytes: &[u8]) -> bool {
        let kept = |new: i128| new as u64 & (u64::MAX >> (64 - self.field.size));
        self.new_integer(bytes).is_some_and(|new| kept(new) != self.field.read(bytes))
    }

    /// Replies as if it had been done, which changes nothing.
    fn reply_unchanged(&self, bytes: &[u8], reply: &mut Reply<'_>) {
        if self.action != Action::Get && self.new_integer(bytes).is_none() {
            reply.null();
        } else {
            reply.integer(self.read(bytes));
        }
    }

    fn run(&self, bytes: &mut [u8], reply: &mut Reply<'_>) {
        let old = self.read(bytes);
        if self.action == Action::Get {
            return reply.integer(old);
        }
        let Some(new) = self.new_integer(bytes) else { return reply.null() };
        self.field.write(bytes, new as u64);
        reply.integer(if self.is_set() { old } else { self.read(bytes) });
    }

    fn is_set(&self) -> bool {
        matches!(self.action, Action::Set(_))
    }

    /// The integer to keep for `wanted`; `None` when it fails.
    fn fitted(&self, wanted: i128) -> Option<i128> {
        let (least, most) = if self.signed {
            (-1i128 << (self.field.size - 1), (1i128 << (self.field.size - 1)) - 1)
        } else {
            (0, (1i128 << self.field.size) - 1)
        };
        match self.overflow {
            _ if (least..=most).contains(&wanted) => Some(wanted),
            Overflow::Wrap => Some(wanted),
            // Redis measures the room above `wanted` in 64 bits. Near their smallest integer that
            // room overflows, and SET then takes the integer for one that is too large.
            Overflow::Saturate if self.is_set() && most - wanted > i128::from(i64::MAX) => {
                Some(most)
            }
            Overflow::Saturate => Some(wanted.clamp(least, most)),
            Overflow::Fail => None,
        }
    }
}

fn parse_overflow(call: &Call<'_>, i: usize) -> Result<Overflow, Refusal> {
    if call.arguments.is(i, "WRAP") {
        Ok(Overflow::Wrap)
    } else if call.arguments.is(i, "SAT") {
        Ok(Overflow::Saturate)
    } else if call.arguments.is(i, "FAIL") {
        Ok(Overflow::Fail)
    } else {
        Err(Refusal::text("ERR Invalid OVERFLOW type specified"))
    }
}

/// `i1` to `i64` and `u1` to `u63`: is it signed, and its size in bits.
fn parse_type(text: &[u8]) -> Result<(bool, u32), Refusal> {
    let (signed, digits, most) = match text {
        [b'i', digits @ ..] => (true, digits, 64),
        [b'u', digits @ ..] => (false, digits, 63),
        _ => (false, b"".as_slice(), 0),
    };
    match parse_integer(digits) {
        Some(size) if (1..=most).contains(&size) => Ok((signed, size as u32)),
        _ => Err(Refusal::text(
            "ERR Invalid bitfield type. Use something like i16 u8. \
             Note that u64 is not supported but i64 is.",
        )),
    }
}

/// A position of a bit, or `#` and a position in multiples of the field's size.
fn parse_field_offset(call: &Call<'_>, i: usize, size: u32) -> Result<u64, Refusal> {
    let offset = match call.at(i) {
        [b'#', digits @ ..] => {
            parse_integer(digits).and_then(|index| index.checked_mul(i64::from(size)))
        }
        digits => parse_integer(digits),
    };
    check_offset(offset, call)
}
