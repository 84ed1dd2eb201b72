//! Values by their RDB type byte.
//!
//! A value is read twice: once to find its end and to check everything between, once to hand its
//! parts to whoever builds it. So no list of elements is ever made of what may be damaged, and
//! memory is one string at a time.

use std::borrow::Cow;

use super::encoding::{Decoder, write_string};
use super::packed::Element;
use super::packed::intset::Intset;
use super::packed::listpack::Listpack;
use super::packed::ziplist::Ziplist;
use super::packed::zipmap::Zipmap;
use super::stream::walk_stream;
use super::{DecodeError, Fault};
use crate::value::{Part, ValueType};

pub(super) const STRING: u8 = 0;
pub(super) const LIST: u8 = 1;
pub(super) const SET: u8 = 2;
pub(super) const SORTED_SET_TEXT: u8 = 3;
pub(super) const HASH: u8 = 4;
pub(super) const SORTED_SET: u8 = 5;
const HASH_ZIPMAP: u8 = 9;
const LIST_ZIPLIST: u8 = 10;
const SET_INTSET: u8 = 11;
const SORTED_SET_ZIPLIST: u8 = 12;
const HASH_ZIPLIST: u8 = 13;
pub(super) const LIST_QUICKLIST: u8 = 14;
pub(super) const HASH_LISTPACK: u8 = 16;
pub(super) const SORTED_SET_LISTPACK: u8 = 17;
pub(super) const LIST_QUICKLIST_2: u8 = 18;
pub(super) const SET_LISTPACK: u8 = 20;
/// Hashes with deadlines of fields: of Redis 7.4, and as its release candidates wrote them.
pub(super) const HASH_TIMED_EARLY: u8 = 22;
pub(super) const HASH_TIMED_LISTPACK_EARLY: u8 = 23;
pub(super) const HASH_TIMED: u8 = 24;
pub(super) const HASH_TIMED_LISTPACK: u8 = 25;
/// Hashes with deadlines of fields as Valkey 9 writes them, which is 22 there: ours where the
/// writer is not known any more.
pub(super) const HASH_TIMED_VALKEY: u8 = 65;
/// Of Redis 5.
pub(super) const STREAM_1: u8 = 15;
/// Of Redis 7.0.
pub(super) const STREAM_2: u8 = 19;
/// Of Redis 7.2.
pub(super) const STREAM_3: u8 = 21;
/// A stream in parts, or some of them: ours, in snapshots and transactions.
pub(super) const STREAM: u8 = 64;

/// A node of a quicklist that is one element.
const NODE_PLAIN: usize = 1;
/// A node of a quicklist that is a listpack.
const NODE_PACKED: usize = 2;

/// Takes parts of a value. What it refuses ends the reading.
pub type TakePart<'t> = dyn FnMut(Part<'_>) -> Result<(), Fault> + 't;

/// A value that was read to its end and found well-formed. That members are no duplicates is left
/// to those who build it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedValue<'a> {
    type_byte: u8,
    bytes: Cow<'a, [u8]>,
    count: u64,
    longest: usize,
}

impl<'a> EncodedValue<'a> {
    /// Of a string.
    pub fn of_string(string: &[u8]) -> EncodedValue<'static> {
        let mut bytes = Vec::new();
        write_string(&mut bytes, string);
        let longest = string.len();
        EncodedValue { type_byte: STRING, bytes: Cow::Owned(bytes), count: longest as u64, longest }
    }

    /// Reads a value of this RDB type that takes all of `bytes`.
    pub fn read(type_byte: u8, bytes: &'a [u8]) -> Result<EncodedValue<'a>, DecodeError> {
        let mut decoder = Decoder::new(bytes);
        let value = read_value(&mut decoder, type_byte, 0)?;
        match decoder.rest().len() {
            0 => Ok(value),
            count => Err(decoder.error(Fault::Trailing { count })),
        }
    }

    /// The same with bytes of its own.
    pub fn into_owned(self) -> EncodedValue<'static> {
        EncodedValue { bytes: Cow::Owned(self.bytes.into_owned()), ..self }
    }

    /// The RDB type.
    pub fn type_byte(&self) -> u8 {
        self.type_byte
    }

    /// The encoding, without the type.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The string that it is, or part of one; `None` when it is of another type.
    pub fn string(&self) -> Option<Cow<'_, [u8]>> {
        let read = || Decoder::new(&self.bytes).string().expect("it was read before");
        (self.type_byte == STRING).then(read)
    }

    /// Its type.
    pub fn value_type(&self) -> ValueType {
        match self.type_byte {
            STRING => ValueType::String,
            LIST | LIST_ZIPLIST | LIST_QUICKLIST | LIST_QUICKLIST_2 => ValueType::List,
            SET | SET_INTSET | SET_LISTPACK => ValueType::Set,
            HASH | HASH_ZIPMAP | HASH_ZIPLIST | HASH_LISTPACK => ValueType::Hash,
            HASH_TIMED_EARLY..=HASH_TIMED_LISTPACK | HASH_TIMED_VALKEY => ValueType::Hash,
            STREAM | STREAM_1 | STREAM_2 | STREAM_3 => ValueType::Stream,
            _ => ValueType::SortedSet,
        }
    }

    /// How many elements it has; of a stream, parts; of a string, bytes.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Bytes of its longest element.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Hands out its parts in order.
    /// Errors: the fault that `take` returned.
    pub fn each(&self, take: &mut TakePart<'_>) -> Result<(), DecodeError> {
        walk(&mut Decoder::new(&self.bytes), self.type_byte, take)
    }
}

/// Is it in a type that is a count of elements and those, or a string?
pub fn is_plain(value: &EncodedValue<'_>) -> bool {
    matches!(value.type_byte, STRING | LIST | SET | HASH | SORTED_SET | HASH_TIMED)
}

/// Is it a hash in the type in which some fields may have deadlines?
pub fn is_timed(value: &EncodedValue<'_>) -> bool {
    value.type_byte == HASH_TIMED
}

/// Reads a value of the type that `type_byte`, which stood at `type_offset`, says, to its end.
pub(super) fn read_value<'a>(
    decoder: &mut Decoder<'a>,
    type_byte: u8,
    type_offset: usize,
) -> Result<EncodedValue<'a>, DecodeError> {
    let known = matches!(
        type_byte,
        STRING..=SORTED_SET | HASH_ZIPMAP..=STREAM_1 | HASH_LISTPACK..=HASH_TIMED_LISTPACK | STREAM
            | HASH_TIMED_VALKEY
    );
    if !known {
        return Err(DecodeError { fault: Fault::UnknownType(type_byte), offset: type_offset });
    }
    let (bytes, mut count, mut longest) = (decoder.rest(), 0, 0);
    walk(decoder, type_byte, &mut |part| {
        count += if let Part::String(string) = part { string.len() as u64 } else { 1 };
        longest = longest.max(match part {
            Part::String(one) | Part::Element(one) | Part::Member(one) => one.len(),
            Part::Field(one, other) | Part::TimedField(one, other, _) => one.len().max(other.len()),
            Part::Scored(one, _) => one.len(),
            Part::Stream(part) => part.longest(),
        });
        Ok(())
    })?;
    let size = bytes.len() - decoder.rest().len();
    Ok(EncodedValue { type_byte, bytes: Cow::Borrowed(&bytes[..size]), count, longest })
}

fn walk(
    decoder: &mut Decoder<'_>,
    type_byte: u8,
    take: &mut TakePart<'_>,
) -> Result<(), DecodeError> {
    let start = *decoder;
    let at_start = |fault| start.error(fault);
    match type_byte {
        STRING => take(Part::String(&decoder.string()?)).map_err(at_start),
        LIST_QUICKLIST | LIST_QUICKLIST_2 => walk_nodes(decoder, type_byte, take),
        LIST | SET | HASH | SORTED_SET_TEXT | SORTED_SET => walk_plain(decoder, type_byte, take),
        HASH_TIMED_VALKEY => walk_timed_valkey(decoder, take),
        HASH_TIMED | HASH_TIMED_EARLY => walk_timed(decoder, type_byte, take),
        HASH_TIMED_LISTPACK | HASH_TIMED_LISTPACK_EARLY => {
            walk_timed_listpack(decoder, type_byte, take)
        }
        STREAM | STREAM_1 | STREAM_2 | STREAM_3 => walk_stream(decoder, type_byte, take),
        _ => {
            let blob = decoder.string()?;
            let count = walk_packed(&blob, type_byte, take).map_err(at_start)?;
            if count == 0 { Err(at_start(Fault::Empty)) } else { Ok(()) }
        }
    }
}

/// How many elements follow; a value, which begins at `start`, has some.
fn some_elements(decoder: &mut Decoder<'_>, start: Decoder<'_>) -> Result<usize, DecodeError> {
    match decoder.count()? {
        0 => Err(start.error(Fault::Empty)),
        count => Ok(count),
    }
}

/// A count, and so many elements.
fn walk_plain(
    decoder: &mut Decoder<'_>,
    type_byte: u8,
    take: &mut TakePart<'_>,
) -> Result<(), DecodeError> {
    let start = *decoder;
    for _ in 0..some_elements(decoder, start)? {
        let start = *decoder;
        let element = decoder.string()?;
        let taken = match type_byte {
            LIST => take(Part::Element(&element)),
            SET => take(Part::Member(&element)),
            HASH => take(Part::Field(&element, &decoder.string()?)),
            _ => {
                let at_score = *decoder;
                let score = match type_byte {
                    SORTED_SET_TEXT => decoder.double_text()?,
                    _ => f64::from_le_bytes(decoder.array()?),
                };
                if score.is_nan() {
                    return Err(at_score.error(Fault::Score));
                }
                take(Part::Scored(&element, score))
            }
        };
        taken.map_err(|fault| start.error(fault))?;
    }
    Ok(())
}

/// Fields with 0 or a deadline before each.
fn walk_timed(
    decoder: &mut Decoder<'_>,
    type_byte: u8,
    take: &mut TakePart<'_>,
) -> Result<(), DecodeError> {
    let start = *decoder;
    let first = match type_byte {
        HASH_TIMED => i64::from_le_bytes(decoder.array()?),
        _ => 1,
    };
    for _ in 0..some_elements(decoder, start)? {
        let start = *decoder;
        // 0, or one more than the distance from the first deadline; early ones are counted from 1.
        let distance = decoder.count()? as u64;
        let (field, value) = (decoder.string()?, decoder.string()?);
        let taken = match distance {
            0 => take(Part::Field(&field, &value)),
            distance => {
                let at = first.checked_add_unsigned(distance - 1).filter(|at| *at >= 0);
                take(Part::TimedField(&field, &value, at.ok_or(start.error(Fault::Deadline))?))
            }
        };
        taken.map_err(|fault| start.error(fault))?;
    }
    Ok(())
}

/// Fields with a deadline behind each, or -1.
fn walk_timed_valkey(
    decoder: &mut Decoder<'_>,
    take: &mut TakePart<'_>,
) -> Result<(), DecodeError> {
    let start = *decoder;
    for _ in 0..some_elements(decoder, start)? {
        let start = *decoder;
        let (field, value) = (decoder.string()?, decoder.string()?);
        let taken = match i64::from_le_bytes(decoder.array()?) {
            -1 => take(Part::Field(&field, &value)),
            at @ 0.. => take(Part::TimedField(&field, &value, at)),
            _ => Err(Fault::Deadline),
        };
        taken.map_err(|fault| start.error(fault))?;
    }
    Ok(())
}

/// A listpack of fields, values and deadlines.
fn walk_timed_listpack(
    decoder: &mut Decoder<'_>,
    type_byte: u8,
    take: &mut TakePart<'_>,
) -> Result<(), DecodeError> {
    let start = *decoder;
    if type_byte == HASH_TIMED_LISTPACK {
        decoder.array::<8>()?;
    }
    let blob = decoder.string()?;
    let mut walk = || {
        let mut elements = Listpack::read(&blob).ok_or(Fault::Packed("listpack"))?;
        let (mut one, mut two, mut three) = Default::default();
        let mut any = false;
        while let Some(field) = elements.next() {
            any = true;
            let value = elements.next().ok_or(Fault::Odd)?;
            let at = elements.next().ok_or(Fault::Odd)?;
            let (field, value) = (field.text(&mut one), value.text(&mut two));
            let at = std::str::from_utf8(at.text(&mut three)).ok().and_then(|at| at.parse().ok());
            match at.filter(|at: &i64| *at >= 0).ok_or(Fault::Deadline)? {
                0 => take(Part::Field(field, value))?,
                at => take(Part::TimedField(field, value, at))?,
            }
        }
        if any { Ok(()) } else { Err(Fault::Empty) }
    };
    walk().map_err(|fault| start.error(fault))
}

/// A quicklist: a count of nodes, and so many nodes.
fn walk_nodes(
    decoder: &mut Decoder<'_>,
    type_byte: u8,
    take: &mut TakePart<'_>,
) -> Result<(), DecodeError> {
    let start = *decoder;
    let mut total = 0;
    for _ in 0..decoder.count()? {
        let start = *decoder;
        let container = match type_byte {
            LIST_QUICKLIST_2 => decoder.count()?,
            _ => NODE_PACKED,
        };
        let node = decoder.string()?;
        let walked = match container {
            NODE_PLAIN => take(Part::Element(&node)).map(|()| 1),
            // Redis passes over nodes without elements.
            NODE_PACKED => walk_packed(&node, type_byte, take),
            _ => Err(Fault::Packed("quicklist")),
        };
        total += walked.map_err(|fault| start.error(fault))?;
    }
    if total == 0 { Err(start.error(Fault::Empty)) } else { Ok(()) }
}

/// The elements of a packed form. Returns how many there were.
fn walk_packed(blob: &[u8], type_byte: u8, take: &mut TakePart<'_>) -> Result<usize, Fault> {
    match type_byte {
        HASH_ZIPMAP => {
            let mut pairs = Zipmap::read(blob).ok_or(Fault::Packed("zipmap"))?;
            let count = pairs.size();
            pairs.try_for_each(|(field, value)| take(Part::Field(field, value)))?;
            Ok(count)
        }
        SET_INTSET => {
            let mut members = Intset::read(blob).ok_or(Fault::Packed("intset"))?;
            let count = members.size();
            let mut buffer = itoa::Buffer::new();
            members.try_for_each(|n| take(Part::Member(buffer.format(n).as_bytes())))?;
            Ok(count)
        }
        LIST_ZIPLIST | SORTED_SET_ZIPLIST | HASH_ZIPLIST | LIST_QUICKLIST => {
            let elements = Ziplist::read(blob).ok_or(Fault::Packed("ziplist"))?;
            let count = elements.size();
            walk_elements(elements, type_byte, take)?;
            Ok(count)
        }
        SET_LISTPACK | HASH_LISTPACK | SORTED_SET_LISTPACK | LIST_QUICKLIST_2 => {
            let elements = Listpack::read(blob).ok_or(Fault::Packed("listpack"))?;
            let count = elements.size();
            walk_elements(elements, type_byte, take)?;
            Ok(count)
        }
        unknown => Err(Fault::UnknownType(unknown)),
    }
}

fn walk_elements<'e>(
    mut elements: impl Iterator<Item = Element<'e>>,
    type_byte: u8,
    take: &mut TakePart<'_>,
) -> Result<(), Fault> {
    let (mut one, mut other) = (itoa::Buffer::new(), itoa::Buffer::new());
    while let Some(element) = elements.next() {
        match type_byte {
            LIST_ZIPLIST | LIST_QUICKLIST | LIST_QUICKLIST_2 => {
                take(Part::Element(element.text(&mut one)))?;
            }
            SET_LISTPACK => take(Part::Member(element.text(&mut one)))?,
            HASH_ZIPLIST | HASH_LISTPACK => {
                let value = elements.next().ok_or(Fault::Odd)?;
                take(Part::Field(element.text(&mut one), value.text(&mut other)))?;
            }
            _ => {
                let score = match elements.next().ok_or(Fault::Odd)? {
                    Element::Integer(n) => n as f64,
                    Element::Bytes(text) => {
                        super::encoding::parse_double(text).ok_or(Fault::Score)?
                    }
                };
                take(Part::Scored(element.text(&mut one), score))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::DatabaseIndex;
    use crate::keyspace::{Expiry, Key, KeyHasher, Keyspace};
    use crate::rdb::{read_payload, write_payload};
    use crate::value::stream::{StreamId, StreamPart};
    use proptest::prelude::*;

    fn bytes_of_hex(hex: &str) -> Vec<u8> {
        (0..hex.len() / 2)
            .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hex in a test"))
            .collect()
    }

    /// The parts of a value that begins with its type byte, as text.
    fn parts(bytes: &[u8]) -> Result<String, DecodeError> {
        let value = EncodedValue::read(bytes[0], &bytes[1..])?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (mut parts, mut count) = (Vec::new(), 0);
        value.each(&mut |part| {
            count += 1;
            parts.push(match part {
                Part::String(string) => text(string),
                Part::Element(element) => format!("+{}", text(element)),
                Part::Member(member) => format!("*{}", text(member)),
                Part::Field(field, value) => format!("{}={}", text(field), text(value)),
                Part::TimedField(field, value, at) => {
                    format!("{}={} until {at}", text(field), text(value))
                }
                Part::Scored(member, score) => format!("{}:{score}", text(member)),
                Part::Stream(part) => stream_text(part),
            });
            Ok(())
        })?;
        assert!(value.value_type() == ValueType::String || value.count() == count);
        Ok(parts.join(" "))
    }

    fn stream_text(part: StreamPart<'_>) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let id = |id: StreamId| format!("{}-{}", id.ms, id.sequence);
        match part {
            StreamPart::Head { last_id, added, max_deleted_id } => {
                format!("last {} added {added} deleted {}", id(last_id), id(max_deleted_id))
            }
            StreamPart::Block(block) => {
                let entries = block.entries().map(|entry| {
                    let pair = |(name, value)| format!(" {}={}", text(name), text(value));
                    format!("{}{};", id(entry.id), entry.pairs().map(pair).collect::<String>())
                });
                entries.collect::<Vec<_>>().join(" ")
            }
            StreamPart::Group { name, last_id, entries_read } => {
                format!("group {} {} read {entries_read:?}", text(name), id(last_id))
            }
            StreamPart::Consumer { name, seen_ms, active_ms, .. } => {
                format!("{} seen {seen_ms} active {active_ms:?}", text(name))
            }
            StreamPart::Pending { pending, .. } => format!(
                "{} holds {} since {}, {} times",
                text(pending.consumer),
                id(pending.id),
                pending.delivered_ms,
                pending.count
            ),
        }
    }

    /// What redis-server 7.0 dumped, or restored (7.2, where the type is 20), without version and checksum.
    #[rustfmt::skip]
    const VALUES: &[(&str, &str)] = &[
        ("01030161c00c0161", "+a +12 +a"),
        ("0a131300000010000000030000016103fe0c03f3ff", "+a +12 +2"),
        ("0e0211110000000d0000000200000161030162ff0e0e0000000a0000000100000163ff", "+a +b +c"),
        ("12020105706c61696e020c0c00000002008161020501ff", "+plain +a +5"),
        ("020201610162", "*a *b"),
        ("020301620161c011", "*b *a *17"),
        ("0b1404000000030000000100000002000000e0930400", "*1 *2 *300000"),
        ("140c0c00000002008161020501ff", "*a *5"),
        ("0303016103312e350162fe0163ff", "a:1.5 b:inf c:-inf"),
        ("0501c3094050016d6de04300016d6d9a9999999999b93f", "MMM:0.1"),
        ("0c181800000012000000040000016103f20201620303322e35ff", "a:1 b:2.5"),
        ("111d1d0000000600816202dffe0281610283312e350481630283696e6604ff", "b:-2 a:1.5 c:inf"),
        ("040101660176", "f=v"),
        ("09110203666f6f0300626172016102006263ff", "foo=bar a=bc"),
        ("0d171700000013000000040000016603017603016e03fe7bff", "f=v n=123"),
        ("1012120000000400816602817602816e020a01ff", "f=v n=10"),
        // As Redis 8.2 wrote them.
        ("19ff9f724e180900001d1d00000006008161020101f4ff9f724e180900000981620202010001ff", "a=1 until 9999999999999 b=2"),
        ("18189c724e1809000003000163c00343e80161c001010162c002", "c=3 a=1 until 9999999999999 b=2 until 9999999999000"),
        // Of 7.0 as it was written, with times that were; the others as Redis 5 and 7.2 would write it.
        ("0f011000000000000000010000000000000001404f4f0000001f0003010101020181660281670200010201000100018176020c010501030100010101817702c12c02050100010401dfff0201018168028178020601020104010601817902817a020501ff030507020367727000000200000000000000010000000000000001e8030000000000000300000000000000050000000000000007d007000000000000010202616c581b000000000000010000000000000001000000000000000102626f581b0000000000000100000000000000050000000000000007056f7468657205000000", "1-1 f=v g=12; 5-0 h=x; 5-7 f=y g=z; last 5-7 added 3 deleted 0-0 group grp 0-0 read Some(0) al seen 7000 active Some(7000) al holds 1-1 since 1000, 3 times bo seen 7000 active Some(7000) bo holds 5-7 since 2000, 1 times group other 5-0 read None"),
        ("13011000000000000000010000000000000001404f4f0000001f0003010101020181660281670200010201000100018176020c010501030100010101817702c12c02050100010401dfff0201018168028178020601020104010601817902817a020501ff03050701010102040203677270000081ffffffffffffffff0200000000000000010000000000000001e8030000000000000300000000000000050000000000000007d007000000000000010202616c581b000000000000010000000000000001000000000000000102626f581b0000000000000100000000000000050000000000000007056f74686572050081ffffffffffffffff0000", "1-1 f=v g=12; 5-0 h=x; 5-7 f=y g=z; last 5-7 added 4 deleted 1-2 group grp 0-0 read None al seen 7000 active Some(7000) al holds 1-1 since 1000, 3 times bo seen 7000 active Some(7000) bo holds 5-7 since 2000, 1 times group other 5-0 read None"),
        ("15011000000000000000010000000000000001404f4f0000001f0003010101020181660281670200010201000100018176020c010501030100010101817702c12c02050100010401dfff0201018168028178020601020104010601817902817a020501ff03050701010102040203677270000081ffffffffffffffff0200000000000000010000000000000001e8030000000000000300000000000000050000000000000007d007000000000000010202616c581b0000000000007017000000000000010000000000000001000000000000000102626f581b00000000000070170000000000000100000000000000050000000000000007056f74686572050081ffffffffffffffff0000", "1-1 f=v g=12; 5-0 h=x; 5-7 f=y g=z; last 5-7 added 4 deleted 1-2 group grp 0-0 read None al seen 7000 active Some(6000) al holds 1-1 since 1000, 3 times bo seen 7000 active Some(6000) bo holds 5-7 since 2000, 1 times group other 5-0 read None"),
    ];

    #[test]
    fn every_encoding_of_redis_is_read() {
        for (hex, expected) in VALUES {
            let expected = expected.replace("MMM", &"m".repeat(80));
            assert_eq!(parts(&bytes_of_hex(hex)), Ok(expected), "{hex}");
        }
        let long = "12010\
            2c31d407b107b00000005008161020c01dffb02e06478e05a000666f270110104ff";
        let expected = format!("+a +12 +-5 +{} +70000", "x".repeat(100));
        assert_eq!(parts(&bytes_of_hex(long)), Ok(expected));
    }

    #[test]
    fn what_is_cut_or_goes_on_is_no_value() {
        for (hex, _) in VALUES {
            let bytes = bytes_of_hex(hex);
            for size in 1..bytes.len() {
                assert!(parts(&bytes[..size]).is_err(), "{hex} cut to {size}");
            }
            let longer = [bytes.as_slice(), &[0]].concat();
            let error = parts(&longer).expect_err("too long");
            assert_eq!(error.fault, Fault::Trailing { count: 1 });
        }
    }

    #[test]
    fn contradictions_are_named() {
        for (bytes, fault) in [
            (b"\x01\x00".as_slice(), Fault::Empty),
            (b"\x0e\x00", Fault::Empty),
            (b"\x0a\x0b\x0b\0\0\0\x0a\0\0\0\0\0\xff", Fault::Empty),
            (b"\x10\x0a\x0a\0\0\0\x01\0\x81a\x02\xff", Fault::Odd),
            (b"\x11\x0d\x0d\0\0\0\x02\0\x81a\x02\x81x\x02\xff", Fault::Score),
            (b"\x05\x01\x01a\0\0\0\0\0\0\xf8\x7f", Fault::Score),
            (b"\x03\x01\x01a\xfd", Fault::Score),
            (b"\x14\x07\x07\0\0\0\x01\0\xff", Fault::Packed("listpack")),
            (b"\x12\x01\x03\x01a", Fault::Packed("quicklist")),
            (b"\x0b\x08\x02\0\0\0\0\0\0\0", Fault::Packed("intset")),
            (b"\x09\x02\x01\xff", Fault::Packed("zipmap")),
            (b"\x06\x00", Fault::UnknownType(6)),
            (b"\x1a\x00", Fault::UnknownType(26)),
            (b"\x16\x00", Fault::Empty),
            (b"\x18\xff\xff\xff\xff\xff\xff\xff\x7f\x01\x02\x01a\x01b", Fault::Deadline),
        ] {
            assert_eq!(parts(bytes).map_err(|error| error.fault), Err(fault), "{bytes:x?}");
        }
    }

    /// Streams that are damaged somewhere: refused, or a stream that is written and read back as it
    /// is.
    #[test]
    fn damaged_streams_are_refused_or_streams() {
        let hasher = KeyHasher::new(3);
        let streams = VALUES.iter().map(|(hex, _)| bytes_of_hex(hex));
        for bytes in streams.filter(|bytes| [STREAM_1, STREAM_2, STREAM_3].contains(&bytes[0])) {
            for (at, to) in (1..bytes.len()).flat_map(|at| [0, 1, 0x7f, 0xff].map(|to| (at, to))) {
                let mut damaged = bytes.clone();
                damaged[at] = damaged[at].wrapping_add(to);
                let Ok(value) = EncodedValue::read(damaged[0], &damaged[1..]) else { continue };
                let mut keyspace = Keyspace::new(hasher);
                let keys = [b"one", b"two"].map(|key| Key::new(key, hasher.hash(key)));
                let mut edit = keyspace.edit(DatabaseIndex(0), 1);
                if edit.restore(&keys[0], &value, Expiry::Never).is_err() {
                    assert!(edit.view().peek(&keys[0]).is_none(), "byte {at}");
                    continue;
                }
                let mut payload = Vec::new();
                write_payload(&mut payload, edit.view().peek(&keys[0]).expect("restored").value());
                let read = read_payload(&payload).expect("just written");
                edit.restore(&keys[1], &read, Expiry::Never).expect("just written");
                let mut again = Vec::new();
                write_payload(&mut again, edit.view().peek(&keys[1]).expect("restored").value());
                assert!(payload == again, "byte {at}");
                // It goes on as a stream.
                let mut stream = edit.stream_mut(&keys[1]).expect("a stream");
                if let Some(next) = stream.stream().last_id().next() {
                    stream.append(next, [(&b"f"[..], &b"v"[..])].into_iter());
                    assert_eq!(stream.stream().last().map(|last| last.id), Some(next));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(type_byte in 0u8..65, bytes: Vec<u8>) {
            let _ = parts(&[&[type_byte][..], &bytes].concat());
        }

        #[test]
        fn no_flip_panics(at in 0..VALUES.len(), place: usize, bit in 0..8) {
            let mut bytes = bytes_of_hex(VALUES[at].0);
            let place = place % bytes.len();
            bytes[place] ^= 1u8 << bit;
            let _ = parts(&bytes);
        }
    }
}
