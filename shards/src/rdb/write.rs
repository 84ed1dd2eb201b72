//! Writing values in the plain types, whole or in pieces.
//!
//! Payloads have the scores of sorted sets as text, which every Redis since 2.6 reads; items of
//! snapshots have them as they are.

use std::ops::ControlFlow;

use super::encoding::{write_double_text, write_length, write_string};
use super::stream::{write_parts, write_redis};
use super::value::{
    HASH, HASH_TIMED, LIST, SET, SORTED_SET, SORTED_SET_TEXT, STREAM, STREAM_2, STRING,
};
use super::{VERSION_STREAMS, VERSION_TIMED, VERSION_WRITTEN};
use crate::keyspace::Value;
use crate::limits::{ITEM_PIECE_BYTES, ITEM_PIECE_BYTES_MAX};
use crate::value::Part;

/// Where the piece of a value that begins at `from` ends, and how much there is in all: elements,
/// or bytes of a string. A piece has one element at least, and is about as long as the key, if that
/// is a long one: each piece repeats it.
pub(super) fn piece_end(value: Value<'_>, from: u64, key_bytes: usize) -> (u64, u64) {
    let bytes_max = key_bytes.clamp(ITEM_PIECE_BYTES, ITEM_PIECE_BYTES_MAX);
    let total = value.part_count();
    if let Value::String(_) = value {
        return (total.min(from + bytes_max as u64), total);
    }
    let (mut end, mut bytes) = (from, 0);
    value.visit(from, &mut |part| {
        end += 1;
        bytes += match part {
            Part::String(one) | Part::Element(one) | Part::Member(one) => one.len(),
            Part::Field(one, other) => one.len() + other.len(),
            Part::TimedField(one, other, _) => one.len() + other.len() + size_of::<i64>(),
            Part::Scored(one, _) => one.len() + size_of::<f64>(),
            Part::Stream(part) => part.size(),
        };
        if bytes < bytes_max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    (end, total)
}

/// The type byte that a value is written with.
pub(super) fn type_byte(value: Value<'_>) -> u8 {
    match value {
        Value::String(_) => STRING,
        Value::List(_) => LIST,
        Value::Set(_) => SET,
        Value::SortedSet(_) => SORTED_SET,
        Value::Hash(hash) if hash.is_timed() => HASH_TIMED,
        Value::Hash(_) => HASH,
        Value::Stream(_) => STREAM,
    }
}

/// Appends the part of a value from one place to another, without its type.
pub(super) fn write_range(out: &mut Vec<u8>, value: Value<'_>, from: u64, end: u64) {
    match value {
        Value::String(string) if end - from == string.len() as u64 => write_string(out, string),
        Value::String(string) => {
            let part = &string[from as usize..end as usize];
            write_length(out, part.len());
            out.extend_from_slice(part);
        }
        Value::Hash(hash) if hash.is_timed() => write_timed(out, value, from, end),
        Value::List(_) | Value::Set(_) | Value::SortedSet(_) | Value::Hash(_) => {
            write_elements(out, value, from, end, &mut |out, score| {
                out.extend_from_slice(&score.to_le_bytes());
            });
        }
        Value::Stream(stream) => write_parts(out, stream, from, end),
    }
}

/// Appends the count of a collection's elements from one place to another, and those elements.
fn write_elements(
    out: &mut Vec<u8>,
    value: Value<'_>,
    from: u64,
    end: u64,
    write_score: &mut dyn FnMut(&mut Vec<u8>, f64),
) {
    let mut left = end - from;
    write_length(out, left as usize);
    if left == 0 {
        return;
    }
    value.visit(from, &mut |part| {
        match part {
            Part::String(one) | Part::Element(one) | Part::Member(one) => write_string(out, one),
            Part::Field(field, value) => {
                write_string(out, field);
                write_string(out, value);
            }
            Part::Scored(member, score) => {
                write_string(out, member);
                write_score(out, score);
            }
            Part::TimedField(..) => unreachable!("a hash with deadlines has a writer of its own"),
            Part::Stream(_) => unreachable!("streams have a writer of their own"),
        }
        left -= 1;
        if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
}

/// Takes a field, its value, and when it ends.
type VisitTimed<'v> = dyn FnMut(&[u8], &[u8], Option<i64>) + 'v;

/// Appends fields of which some have deadlines: the earliest deadline, how many fields there are,
/// and before each 0 or by how much its deadline is later, and one more.
fn write_timed(out: &mut Vec<u8>, value: Value<'_>, from: u64, end: u64) {
    let each = |visit: &mut VisitTimed<'_>| {
        let mut left = end - from;
        value.visit(from, &mut |part| {
            match part {
                Part::Field(field, value) => visit(field, value, None),
                Part::TimedField(field, value, at) => visit(field, value, Some(at)),
                _ => unreachable!("a hash has fields"),
            }
            left -= 1;
            if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
    };
    let mut first: Option<i64> = None;
    each(&mut |_, _, at| first = [first, at].into_iter().flatten().min());
    let first = first.unwrap_or(0);
    out.extend_from_slice(&first.to_le_bytes());
    write_length(out, (end - from) as usize);
    each(&mut |field, value, at| {
        write_length(out, at.map_or(0, |at| (at - first + 1) as usize));
        write_string(out, field);
        write_string(out, value);
    });
}

/// Appends the type byte of a value and all of it.
pub fn write_value(out: &mut Vec<u8>, value: Value<'_>) {
    out.push(type_byte(value));
    write_range(out, value, 0, value.part_count());
}

/// Appends the type byte of a value and all of it, as the oldest Redis reads it that knows what it
/// holds.
pub fn write_plain(out: &mut Vec<u8>, value: Value<'_>) {
    write_portable(out, value);
}

/// The same in the type that the oldest Redis knows. Returns the RDB version that has it.
pub(super) fn write_portable(out: &mut Vec<u8>, value: Value<'_>) -> u16 {
    match value {
        Value::SortedSet(set) => {
            out.push(SORTED_SET_TEXT);
            write_elements(out, value, 0, set.count(), &mut write_double_text);
        }
        Value::Hash(hash) if hash.is_timed() => {
            write_value(out, value);
            return VERSION_TIMED;
        }
        Value::String(_) | Value::List(_) | Value::Set(_) | Value::Hash(_) => {
            write_value(out, value);
        }
        Value::Stream(stream) => {
            out.push(STREAM_2);
            write_redis(out, stream);
            return VERSION_STREAMS;
        }
    }
    VERSION_WRITTEN
}
