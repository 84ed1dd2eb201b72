//! Ids of stream entries as clients write them, and entries as replies show them.

use super::refusal::Refusal;
use crate::limits::LONG_REPLY_SLICE_BYTES;
use crate::numbers::parse_integer;
use crate::resp::listing::{Direction, Listing, reply_entry};
use crate::resp::reply::Reply;
use ringraft_shards::value::Value;
use ringraft_shards::value::stream::{Entry, Stream, StreamId};

const INVALID: Refusal =
    Refusal::text("ERR Invalid stream ID specified as stream command argument");

/// The longest text that Redis looks at.
const TEXT_BYTES_MAX: usize = 127;

/// An id as XADD takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenId {
    /// All of it.
    Whole(StreamId),
    /// `milliseconds-*`: the sequence is the next one.
    Milliseconds(u64),
}

/// An id: `milliseconds`, whose sequence is `missing` then, or `milliseconds-sequence`.
/// Errors: anything else.
pub fn strict_id(text: &[u8], missing: u64) -> Result<StreamId, Refusal> {
    match given_id(text, missing)? {
        GivenId::Whole(id) => Ok(id),
        GivenId::Milliseconds(_) => Err(INVALID),
    }
}

/// The same, or `milliseconds-*`.
pub fn given_id(text: &[u8], missing: u64) -> Result<GivenId, Refusal> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(INVALID);
    }
    let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
    let mut parts = text[..end].splitn(2, |&byte| byte == b'-');
    let ms = parts.next().and_then(unsigned).ok_or(INVALID)?;
    Ok(match parts.next() {
        None => GivenId::Whole(StreamId { ms, sequence: missing }),
        Some(b"*") => GivenId::Milliseconds(ms),
        Some(sequence) => {
            let sequence = unsigned(sequence).ok_or(INVALID)?;
            GivenId::Whole(StreamId { ms, sequence })
        }
    })
}

/// An id, or `-` or `+` for the first and the last there can be.
pub fn id_or_end(text: &[u8], missing: u64) -> Result<StreamId, Refusal> {
    match text {
        b"-" => Ok(StreamId::MIN),
        b"+" => Ok(StreamId::MAX),
        _ => strict_id(text, missing),
    }
}

/// The first id of an interval; one behind `(` is no part of it.
pub fn interval_start(text: &[u8]) -> Result<StreamId, Refusal> {
    match text {
        [b'(', id @ ..] if !id.is_empty() => {
            strict_id(id, 0)?.next().ok_or(Refusal::text("ERR invalid start ID for the interval"))
        }
        _ => id_or_end(text, 0),
    }
}

/// The last id of an interval; one behind `(` is no part of it.
pub fn interval_end(text: &[u8]) -> Result<StreamId, Refusal> {
    match text {
        [b'(', id @ ..] if !id.is_empty() => strict_id(id, u64::MAX)?
            .previous()
            .ok_or(Refusal::text("ERR invalid end ID for the interval")),
        _ => id_or_end(text, u64::MAX),
    }
}

/// An unsigned number: canonical, or else as C's `strtoull` reads it.
fn unsigned(text: &[u8]) -> Option<u64> {
    if let Some(number) = parse_integer(text) {
        return u64::try_from(number).ok();
    }
    let text = std::str::from_utf8(text).ok()?;
    let text = text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let (digits, negative) = match text.strip_prefix('-') {
        Some(digits) => (digits, true),
        None => (text.strip_prefix('+').unwrap_or(text), false),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(if negative { number.wrapping_neg() } else { number })
}

/// Writes entries as an array.
pub fn reply_entries<'e>(entries: impl Iterator<Item = Entry<'e>>, reply: &mut Reply<'_>) {
    let (mut found, mut count) = (Vec::new(), 0);
    let mut inner = Reply::new(&mut found, reply.protocol());
    for entry in entries {
        reply_entry(&entry, &mut inner);
        count += 1;
    }
    reply.array(count);
    reply.raw(&found);
}

/// Writes up to so many of the entries from one id to another as an array, in a direction, at the
/// reply's end. Most are few: they are written before it is known how many.
pub fn reply_range(
    stream: Stream<'_>,
    direction: Direction,
    (start, end): (StreamId, StreamId),
    limit: usize,
    reply: &mut Reply<'_>,
) {
    let mut entries: Box<dyn Iterator<Item = Entry<'_>>> = match direction {
        Direction::Up => Box::new(stream.entries_from(start).take_while(|e| e.id <= end)),
        Direction::Down => Box::new(stream.entries_back_from(end).take_while(|e| e.id >= start)),
    };
    if !reply.takes_rest() {
        return reply_entries(entries.take(limit), reply);
    }
    let (mut found, mut count) = (Vec::new(), 0);
    let mut inner = Reply::new(&mut found, reply.protocol());
    while count < limit
        && let Some(entry) = entries.next()
    {
        if inner.size() >= LONG_REPLY_SLICE_BYTES {
            let all = stream.count_between(start, end).min(limit as u64);
            reply.array(all as usize);
            reply.raw(&found);
            let rest = Listing::entries(direction, entry.id, all - count as u64);
            return reply.list(Value::Stream(stream), rest);
        }
        reply_entry(&entry, &mut inner);
        count += 1;
    }
    reply.array(count);
    reply.raw(&found);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_redis_does() {
        let id = |ms, sequence| Ok(StreamId { ms, sequence });
        for (text, expected) in [
            ("1-2", id(1, 2)),
            ("7", id(7, 9)),
            ("18446744073709551615-18446744073709551615", Ok(StreamId::MAX)),
            ("007- +3", id(7, 3)),
            ("1-\x002", Err(INVALID)),
            ("1\x00-2", id(1, 9)),
            ("18446744073709551616", Err(INVALID)),
            ("1--1", Err(INVALID)),
            ("1--01", id(1, u64::MAX)),
            ("1-*", Err(INVALID)),
            ("-", Err(INVALID)),
            ("", Err(INVALID)),
            ("*", Err(INVALID)),
            ("1-2-3", Err(INVALID)),
            ("1x", Err(INVALID)),
        ] {
            assert_eq!(strict_id(text.as_bytes(), 9), expected, "{text:?}");
        }
        assert_eq!(strict_id(&[b'0'; 128], 0), Err(INVALID));
        assert_eq!(given_id(b"5-*", 0), Ok(GivenId::Milliseconds(5)));
        assert_eq!(interval_start(b"(1-18446744073709551615"), id(2, 0));
        assert_eq!(interval_end(b"(1-0"), id(0, u64::MAX));
        assert_eq!((interval_start(b"-"), interval_end(b"+")), (id(0, 0), Ok(StreamId::MAX)));
        assert_eq!(interval_end(b"3"), id(3, u64::MAX));
        assert!(interval_start(b"(-").is_err() && interval_start(b"(").is_err());
    }
}
