//! Streams: in parts of our own for snapshots and transactions, as Redis' types 15, 19 and 21 in
//! payloads.
//!
//! In parts, behind their count, each with a byte that tells its kind; ids are 16 bytes, big
//! endian, other numbers 8 bytes, little endian:
//!
//! | kind | what | bytes |
//! |---|---|---|
//! | 0 | head | last id, count of entries ever added, greatest id that XDEL took out |
//! | 1 | block | id of its first entry, length, a block as in memory |
//! | 2 | group | name, last id, count of entries read or 2^64-1 |
//! | 3 | consumer of the group | name, number (4 bytes), when seen, when active or -1 |
//! | 4 | pending entry of the consumer | id, when given, how often |
//! | 5 | not counted: the parts that follow belong to this group | name |
//! | 6 | not counted: to this consumer | name |

use super::encoding::{Decoder, write_length, write_string};
use super::packed::Element;
use super::packed::listpack::{self, Listpack};
use super::value::{STREAM, STREAM_1, STREAM_3, TakePart};
use super::{DecodeError, Fault};
use crate::value::Limits;
use crate::value::Part;
use crate::value::stream::block::Builder;
use crate::value::stream::{Block, Group, ID_BYTES, Pending, Stream, StreamId, StreamPart};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

const HEAD: u8 = 0;
const BLOCK: u8 = 1;
const GROUP: u8 = 2;
const CONSUMER: u8 = 3;
const PENDING: u8 = 4;
const IN_GROUP: u8 = 5;
const OF_CONSUMER: u8 = 6;

/// An entry of a listpack that is marked as deleted.
const DELETED: i64 = 1;
/// An entry of a listpack whose names are those of the first.
const SAME_FIELDS: i64 = 2;

/// A count that is not known, and the time of what never was.
const UNKNOWN: u64 = u64::MAX;

/// Appends a stream, its type first, without its groups, and of its entries the blocks that hold
/// about so many behind an id.
pub fn write_stream_behind(out: &mut Vec<u8>, stream: Stream<'_>, id: StreamId, limit: u64) {
    let mut left = limit;
    let blocks = id.next().into_iter().flat_map(|from| stream.blocks_from(from));
    let blocks: Vec<Block<'_>> = blocks
        .take_while(|block| {
            let is_wanted = left > 0;
            let behind = block.entries().filter(|entry| entry.id > id).count() as u64;
            left = left.saturating_sub(behind);
            is_wanted
        })
        .collect();
    out.push(STREAM);
    write_length(out, 1 + blocks.len());
    let head = StreamPart::Head {
        last_id: stream.last_id(),
        added: stream.added(),
        max_deleted_id: stream.max_deleted_id(),
    };
    write_part(out, head);
    blocks.into_iter().for_each(|block| write_part(out, StreamPart::Block(block)));
}

/// Appends the count of a stream's parts from one to another, and those parts.
pub(super) fn write_parts(out: &mut Vec<u8>, stream: Stream<'_>, from: u64, end: u64) {
    let mut left = end - from;
    write_length(out, left as usize);
    let (mut in_group, mut of_consumer): (Option<&[u8]>, Option<&[u8]>) = (None, None);
    if left == 0 {
        return;
    }
    let _ = stream.visit(from, &mut |part| {
        let (group, consumer) = match part {
            StreamPart::Head { .. } | StreamPart::Block(_) => (None, None),
            StreamPart::Group { name, .. } => {
                in_group = Some(name);
                (None, None)
            }
            StreamPart::Consumer { group, .. } => (Some(group), None),
            StreamPart::Pending { group, pending } => (Some(group), Some(pending.consumer)),
        };
        for (kind, known, wanted) in
            [(IN_GROUP, &mut in_group, group), (OF_CONSUMER, &mut of_consumer, consumer)]
        {
            if let Some(name) = wanted.filter(|_| *known != wanted) {
                out.push(kind);
                write_string(out, name);
                *known = Some(name);
            }
        }
        write_part(out, part);
        left -= 1;
        if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
}

fn write_part(out: &mut Vec<u8>, part: StreamPart<'_>) {
    match part {
        StreamPart::Head { last_id, added, max_deleted_id } => {
            out.push(HEAD);
            out.extend_from_slice(&last_id.bytes());
            out.extend_from_slice(&added.to_le_bytes());
            out.extend_from_slice(&max_deleted_id.bytes());
        }
        StreamPart::Block(block) => {
            out.push(BLOCK);
            out.extend_from_slice(&block.first().bytes());
            write_length(out, block.bytes().len());
            out.extend_from_slice(block.bytes());
        }
        StreamPart::Group { name, last_id, entries_read } => {
            out.push(GROUP);
            write_string(out, name);
            out.extend_from_slice(&last_id.bytes());
            out.extend_from_slice(&entries_read.unwrap_or(UNKNOWN).to_le_bytes());
        }
        StreamPart::Consumer { name, number, seen_ms, active_ms, .. } => {
            out.push(CONSUMER);
            write_string(out, name);
            out.extend_from_slice(&number.to_le_bytes());
            out.extend_from_slice(&seen_ms.to_le_bytes());
            out.extend_from_slice(&active_ms.map_or(UNKNOWN, |ms| ms as u64).to_le_bytes());
        }
        StreamPart::Pending { pending, .. } => {
            out.push(PENDING);
            out.extend_from_slice(&pending.id.bytes());
            out.extend_from_slice(&pending.delivered_ms.to_le_bytes());
            out.extend_from_slice(&pending.count.to_le_bytes());
        }
    }
}

/// Reads what [`write_parts`] wrote.
fn walk_parts(decoder: &mut Decoder<'_>, take: &mut TakePart<'_>) -> Result<(), DecodeError> {
    let count = decoder.count()?;
    let (mut group, mut consumer) = (None, None);
    let mut found = 0;
    while found < count {
        let start = *decoder;
        let kind = decoder.byte()?;
        match kind {
            IN_GROUP => {
                group = Some(decoder.string()?.into_owned());
                continue;
            }
            OF_CONSUMER => {
                consumer = Some(decoder.string()?.into_owned());
                continue;
            }
            _ => found += 1,
        }
        let missing = || start.error(Fault::Piece);
        let name;
        let part = match kind {
            HEAD => StreamPart::Head {
                last_id: id(decoder)?,
                added: long(decoder)?,
                max_deleted_id: id(decoder)?,
            },
            BLOCK => {
                let first = id(decoder)?;
                let size = decoder.count()?;
                let block = Block::read(first, decoder.take(size)?);
                StreamPart::Block(block.ok_or(start.error(Fault::Packed("block")))?)
            }
            GROUP => {
                name = decoder.string()?;
                group = Some(name.to_vec());
                let (last_id, read) = (id(decoder)?, long(decoder)?);
                let entries_read = Some(read).filter(|read| *read != UNKNOWN);
                StreamPart::Group { name: &name, last_id, entries_read }
            }
            CONSUMER => {
                name = decoder.string()?;
                let number = u32::from_le_bytes(decoder.array()?);
                let (seen_ms, active) = (long(decoder)? as i64, long(decoder)?);
                let active_ms = Some(active as i64).filter(|_| active != UNKNOWN);
                let group = group.as_deref().ok_or_else(missing)?;
                StreamPart::Consumer { group, name: &name, number, seen_ms, active_ms }
            }
            PENDING => {
                let id = id(decoder)?;
                let (delivered_ms, count) = (long(decoder)? as i64, long(decoder)?);
                let consumer = consumer.as_deref().ok_or_else(missing)?;
                let pending = Pending { id, consumer, delivered_ms, count };
                StreamPart::Pending { group: group.as_deref().ok_or_else(missing)?, pending }
            }
            _ => return Err(start.error(Fault::Packed("stream"))),
        };
        take(Part::Stream(part)).map_err(|fault| start.error(fault))?;
    }
    Ok(())
}

fn id(decoder: &mut Decoder<'_>) -> Result<StreamId, DecodeError> {
    Ok(StreamId::from_bytes(decoder.array()?))
}

fn long(decoder: &mut Decoder<'_>) -> Result<u64, DecodeError> {
    Ok(u64::from_le_bytes(decoder.array()?))
}

/// An id as two lengths, as Redis writes it where it is no key.
fn id_of_lengths(decoder: &mut Decoder<'_>) -> Result<StreamId, DecodeError> {
    Ok(StreamId { ms: decoder.count()? as u64, sequence: decoder.count()? as u64 })
}

fn write_id_of_lengths(out: &mut Vec<u8>, id: StreamId) {
    write_length(out, id.ms as usize);
    write_length(out, id.sequence as usize);
}

/// Reads a stream of any of its types, and hands out its parts.
pub(super) fn walk_stream(
    decoder: &mut Decoder<'_>,
    type_byte: u8,
    take: &mut TakePart<'_>,
) -> Result<(), DecodeError> {
    match type_byte {
        STREAM => walk_parts(decoder, take),
        _ => walk_redis(decoder, type_byte, take),
    }
}

/// Redis' types: listpacks, what is known beside them, groups. The head, which the listpacks
/// precede, is handed out last among what is no group: blocks may come before it.
fn walk_redis(
    decoder: &mut Decoder<'_>,
    type_byte: u8,
    take: &mut TakePart<'_>,
) -> Result<(), DecodeError> {
    let mut first = None;
    let mut found = 0;
    for _ in 0..decoder.count()? {
        let start = *decoder;
        let key = decoder.string()?;
        let damaged = || start.error(Fault::Packed("stream"));
        let key: [u8; ID_BYTES] = (*key).try_into().map_err(|_| damaged())?;
        let listpack = decoder.string()?;
        let master = StreamId::from_bytes(key);
        found += walk_listpack(&listpack, master, &mut first, take)
            .map_err(|fault| start.error(fault))?;
    }
    let start = *decoder;
    let count = decoder.count()? as u64;
    if count != found {
        return Err(start.error(Fault::Packed("stream")));
    }
    let last_id = id_of_lengths(decoder)?;
    let (mut added, mut max_deleted_id) = (count, StreamId::MIN);
    if type_byte != STREAM_1 {
        id_of_lengths(decoder)?;
        max_deleted_id = id_of_lengths(decoder)?;
        added = decoder.count()? as u64;
    }
    let head = StreamPart::Head { last_id, added, max_deleted_id };
    take(Part::Stream(head)).map_err(|fault| start.error(fault))?;
    for _ in 0..decoder.count()? {
        let name = decoder.string()?;
        let group_id = id_of_lengths(decoder)?;
        let entries_read = match type_byte {
            // As Redis 7 does when it loads one that has no counters.
            STREAM_1 if count == 0 || group_id == last_id => Some(count),
            STREAM_1 => match first {
                Some(first) if group_id < first => Some(0),
                Some(first) if group_id == first => Some(1),
                _ => None,
            },
            _ => Some(decoder.count()? as u64).filter(|read| *read != UNKNOWN),
        };
        let group = StreamPart::Group { name: &name, last_id: group_id, entries_read };
        take(Part::Stream(group)).map_err(|fault| start.error(fault))?;
        walk_redis_group(decoder, type_byte, &name, take)?;
    }
    Ok(())
}

/// What is pending in a group, and by consumer.
fn walk_redis_group(
    decoder: &mut Decoder<'_>,
    type_byte: u8,
    group: &[u8],
    take: &mut TakePart<'_>,
) -> Result<(), DecodeError> {
    let start = *decoder;
    let mut pending = BTreeMap::new();
    for _ in 0..decoder.count()? {
        let start = *decoder;
        let (id, delivered_ms) = (id(decoder)?, long(decoder)? as i64);
        if pending.insert(id, (delivered_ms, decoder.count()? as u64)).is_some() {
            return Err(start.error(Fault::Duplicate));
        }
    }
    for place in 0..decoder.count()? {
        let start = *decoder;
        let name = decoder.string()?;
        let seen_ms = long(decoder)? as i64;
        let active_ms = match type_byte {
            STREAM_3 => Some(long(decoder)? as i64).filter(|ms| *ms != -1),
            _ => Some(seen_ms),
        };
        let number = u32::try_from(place).map_err(|_| start.error(Fault::Packed("stream")))?;
        let consumer = StreamPart::Consumer { group, name: &name, number, seen_ms, active_ms };
        take(Part::Stream(consumer)).map_err(|fault| start.error(fault))?;
        for _ in 0..decoder.count()? {
            let start = *decoder;
            let id = id(decoder)?;
            let (delivered_ms, count) =
                pending.remove(&id).ok_or(start.error(Fault::Packed("stream")))?;
            let pending = Pending { id, consumer: &name, delivered_ms, count };
            take(Part::Stream(StreamPart::Pending { group, pending }))
                .map_err(|fault| start.error(fault))?;
        }
    }
    match pending.is_empty() {
        true => Ok(()),
        false => Err(start.error(Fault::Packed("stream"))),
    }
}

/// Hands out the entries of a listpack in blocks. Returns how many there were.
fn walk_listpack(
    listpack: &[u8],
    master: StreamId,
    first: &mut Option<StreamId>,
    take: &mut TakePart<'_>,
) -> Result<u64, Fault> {
    let damaged = || Fault::Packed("stream");
    let mut elements = Listpack::read(listpack).ok_or_else(damaged)?;
    let mut integer = || match elements.next() {
        Some(Element::Integer(number)) => Ok(number),
        _ => Err(damaged()),
    };
    let (count, deleted) = (integer()?, integer()?);
    let name_count = usize::try_from(integer()?).map_err(|_| damaged())?;
    let names: Vec<Element<'_>> = elements.by_ref().take(name_count).collect();
    if names.len() < name_count || elements.next() != Some(Element::Integer(0)) {
        return Err(damaged());
    }
    let (mut found, mut gone) = (0, 0);
    let mut block = Builder::default();
    let mut last = None;
    while let Some(flags) = elements.next() {
        let mut next = || elements.next().ok_or_else(damaged);
        let mut integer = || match next()? {
            Element::Integer(number) => Ok(number),
            Element::Bytes(_) => Err(damaged()),
        };
        let Element::Integer(flags) = flags else { return Err(damaged()) };
        let id = StreamId {
            ms: master.ms.wrapping_add(integer()? as u64),
            sequence: master.sequence.wrapping_add(integer()? as u64),
        };
        let mut pairs = Vec::new();
        if flags & SAME_FIELDS != 0 {
            for name in &names {
                pairs.push((*name, next()?));
            }
        } else {
            for _ in 0..integer()? {
                pairs.push((next()?, next()?));
            }
        }
        // The length of the entry, for walking backwards.
        let size = if flags & SAME_FIELDS != 0 { pairs.len() + 3 } else { 2 * pairs.len() + 4 };
        if next()? != Element::Integer(size as i64) {
            return Err(damaged());
        }
        if flags & DELETED != 0 {
            gone += 1;
            continue;
        }
        if last.is_some_and(|last| last >= id) || id < master {
            return Err(damaged());
        }
        last = Some(id);
        first.get_or_insert(id);
        found += 1;
        if !Limits::keeping(crate::value::Form::Tree).stream_fits(block.size(), block.count()) {
            hand_out(&mut block, take)?;
        }
        let texts: Vec<(Vec<u8>, Vec<u8>)> =
            pairs.iter().map(|(name, value)| (owned(name), owned(value))).collect();
        block.push(id, texts.iter().map(|(name, value)| (&name[..], &value[..])));
    }
    if (count, deleted) != (found, gone) {
        return Err(damaged());
    }
    hand_out(&mut block, take)?;
    Ok(found as u64)
}

fn owned(element: &Element<'_>) -> Vec<u8> {
    element.text(&mut itoa::Buffer::new()).to_vec()
}

fn hand_out(block: &mut Builder, take: &mut TakePart<'_>) -> Result<(), Fault> {
    let full = std::mem::take(block);
    full.block().map_or(Ok(()), |block| take(Part::Stream(StreamPart::Block(block))))
}

/// Appends a stream as Redis 7.0 writes it.
pub(super) fn write_redis(out: &mut Vec<u8>, stream: Stream<'_>) {
    write_length(out, stream.block_count() as usize);
    let mut head = (StreamId::MIN, 0, StreamId::MIN);
    let _ = stream.visit(0, &mut |part| match part {
        StreamPart::Head { last_id, added, max_deleted_id } => {
            head = (last_id, added, max_deleted_id);
            ControlFlow::Continue(())
        }
        StreamPart::Block(block) => {
            write_string(out, &block.first().bytes());
            write_string(out, &listpack_of(block));
            ControlFlow::Continue(())
        }
        _ => ControlFlow::Break(()),
    });
    let (last_id, added, max_deleted_id) = head;
    write_length(out, stream.count() as usize);
    write_id_of_lengths(out, last_id);
    write_id_of_lengths(out, stream.first().map_or(StreamId::MIN, |first| first.id));
    write_id_of_lengths(out, max_deleted_id);
    write_length(out, added as usize);
    write_length(out, stream.group_count());
    for (name, group) in stream.groups() {
        write_string(out, name);
        write_id_of_lengths(out, group.last_id());
        write_length(out, group.entries_read().unwrap_or(UNKNOWN) as usize);
        write_redis_group(out, group);
    }
}

fn write_redis_group(out: &mut Vec<u8>, group: &Group) {
    write_length(out, group.pending_count() as usize);
    for pending in group.pending_from(StreamId::MIN) {
        out.extend_from_slice(&pending.id.bytes());
        out.extend_from_slice(&pending.delivered_ms.to_le_bytes());
        write_length(out, pending.count as usize);
    }
    write_length(out, group.consumer_count() as usize);
    for consumer in group.consumers_from(0) {
        write_string(out, consumer.name);
        out.extend_from_slice(&consumer.seen_ms.to_le_bytes());
        write_length(out, group.held_count(&consumer) as usize);
        for pending in group.held_from(&consumer, StreamId::MIN) {
            out.extend_from_slice(&pending.id.bytes());
        }
    }
}

fn listpack_of(block: Block<'_>) -> Vec<u8> {
    let mut listpack = listpack::Writer::default();
    let mut entries = block.entries();
    let names: Vec<&[u8]> =
        entries.next().into_iter().flat_map(|entry| entry.pairs()).map(|(name, _)| name).collect();
    listpack.integer(block.entries().count() as i64);
    listpack.integer(0);
    listpack.integer(names.len() as i64);
    names.iter().for_each(|name| listpack.string(name));
    listpack.integer(0);
    for entry in block.entries() {
        let same = entry.pairs().map(|(name, _)| name).eq(names.iter().copied());
        listpack.integer(if same { SAME_FIELDS } else { 0 });
        let master = block.first();
        listpack.integer(entry.id.ms.wrapping_sub(master.ms) as i64);
        listpack.integer(entry.id.sequence.wrapping_sub(master.sequence) as i64);
        if !same {
            listpack.integer(entry.count() as i64);
        }
        for (name, value) in entry.pairs() {
            if !same {
                listpack.string(name);
            }
            listpack.string(value);
        }
        let size = if same { entry.count() + 3 } else { 2 * entry.count() + 4 };
        listpack.integer(size as i64);
    }
    listpack.finish()
}
