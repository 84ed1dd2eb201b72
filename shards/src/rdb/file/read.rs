//! Reads an RDB file, an item at a time.

use super::super::encoding::{Decoder, write_length, write_string};
use super::super::payload::foreign_type;
use super::super::value::{
    EncodedValue, HASH, HASH_TIMED, HASH_TIMED_EARLY, HASH_TIMED_VALKEY, LIST, LIST_QUICKLIST,
    LIST_QUICKLIST_2, SET, SORTED_SET, SORTED_SET_TEXT, read_value,
};
use super::super::{DecodeError, Fault, ItemRecord, Piece, VERSION_READ, VERSION_VALKEY};
use super::input::Input;
use super::{
    AUX, DEADLINE, DEADLINE_MS, END, FREQUENCY, FUNCTION, IDLE, MODULE_1, MODULE_2, MODULE_AUX,
    RESIZE, RdbError, SELECT, SLOT_INFO, VERSION_CHECKED, behind, module_name,
};
use crate::ids::{DatabaseIndex, Deadline};
use crate::keyspace::{Shape, StringForm};
use crate::limits::{DATABASE_COUNT, ITEM_PIECE_BYTES, RDB_SPLIT_BYTES};
use crate::value::{Form, Part, ValueType};
use std::collections::VecDeque;
use std::io::{self, Read};

/// What stands before an item beside its deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ItemFields {
    /// Seconds since it was used.
    pub idle_seconds: Option<u64>,
    /// How often it was used, as LFU counts.
    pub frequency: Option<u8>,
    /// Where it begins in the file.
    pub offset: u64,
}

/// Takes an item, or a piece of one: those of one item follow one another. A whole one has any of
/// the types that values have in files, a piece is in the plain types; the form of a whole one is
/// not known.
pub type TakeRecord<'t> = dyn FnMut(ItemRecord<'_>, ItemFields) -> io::Result<()> + 't;

/// A library of functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// Its name, which its first line says.
    pub name: Vec<u8>,
    /// All of it.
    pub text: Vec<u8>,
}

/// What was met in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An item, which was handed out.
    Item,
    /// A library of functions.
    Library(Library),
    /// Data of a module beside its values, which was passed over.
    Module(String),
    /// The end; the checksum, if there is one, is right.
    End,
}

/// Reads one file from `R`, from its first byte to its last.
pub struct RdbReader<R> {
    input: Input<R>,
    version: u16,
    is_valkey: bool,
    database: DatabaseIndex,
    deadline: Option<Deadline>,
    fields: ItemFields,
    /// How many elements the large lists have, in their order: their files do not say it before
    /// they are read.
    totals: VecDeque<u64>,
}

impl<R: Read> RdbReader<R> {
    /// Reads the header. `totals`: what a [`survey`](super::survey) of the same file has found;
    /// without it the first piece of a large list does not say how many elements there are.
    pub fn open(source: R, totals: VecDeque<u64>) -> Result<RdbReader<R>, RdbError> {
        let mut input = Input::new(source);
        let magic: [u8; 9] =
            input.parse(None, |decoder| decoder.array()).map_err(|error| match error {
                RdbError::Damaged { .. } => RdbError::Magic,
                error => error,
            })?;
        let (digits, is_valkey) =
            match (magic.strip_prefix(b"REDIS"), magic.strip_prefix(b"VALKEY")) {
                (Some(digits), _) => (digits, false),
                (_, Some(digits)) => (digits, true),
                _ => return Err(RdbError::Magic),
            };
        let version = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        let version = version.filter(|version| *version > 0).ok_or(RdbError::Magic)?;
        if (version > VERSION_READ || is_valkey) && version != VERSION_VALKEY {
            return Err(RdbError::Version { version });
        }
        let is_valkey = version == VERSION_VALKEY;
        let (database, fields) = (DatabaseIndex(0), ItemFields::default());
        Ok(RdbReader { input, version, is_valkey, database, deadline: None, fields, totals })
    }

    /// Bytes read so far.
    pub fn offset(&self) -> u64 {
        self.input.offset()
    }

    /// Goes on to the next item, which is handed to `take`, or to what is told instead.
    /// Errors: what is wrong with the file and where, or what `take` says.
    pub fn next(&mut self, take: &mut TakeRecord<'_>) -> Result<Event, RdbError> {
        loop {
            let offset = self.offset();
            match self.byte()? {
                SELECT => self.select(offset)?,
                DEADLINE_MS => {
                    let at = self.input.parse(None, |decoder| decoder.array())?;
                    self.deadline = Some(Deadline(i64::from_le_bytes(at)));
                }
                DEADLINE => {
                    let at = self.input.parse(None, |decoder| decoder.array())?;
                    self.deadline = Some(Deadline(i64::from(i32::from_le_bytes(at)) * 1000));
                }
                IDLE => self.fields.idle_seconds = Some(self.count()? as u64),
                FREQUENCY => self.fields.frequency = Some(self.byte()?),
                AUX => _ = (self.string()?, self.string()?),
                RESIZE => _ = (self.count()?, self.count()?),
                SLOT_INFO => _ = (self.count()?, self.count()?, self.count()?),
                FUNCTION => return self.library(offset).map(Event::Library),
                MODULE_AUX => return self.pass_module().map(Event::Module),
                END => return self.end().map(|()| Event::End),
                type_byte => {
                    self.fields.offset = offset;
                    self.item(type_byte, take)?;
                    (self.deadline, self.fields) = (None, ItemFields::default());
                    return Ok(Event::Item);
                }
            }
        }
    }

    fn byte(&mut self) -> Result<u8, RdbError> {
        self.input.parse(None, |decoder| decoder.byte())
    }

    fn count(&mut self) -> Result<usize, RdbError> {
        self.input.parse(None, |decoder| decoder.count())
    }

    fn string(&mut self) -> Result<Vec<u8>, RdbError> {
        self.input.parse(None, |decoder| decoder.string().map(|string| string.into_owned()))
    }

    fn library(&mut self, offset: u64) -> Result<Library, RdbError> {
        let text = self.string()?;
        let fault = Fault::Packed("library of functions: its first line has no name");
        let name = library_name(&text);
        let name = name.ok_or(RdbError::Damaged { offset, key: None, fault })?.to_vec();
        Ok(Library { name, text })
    }

    fn select(&mut self, offset: u64) -> Result<(), RdbError> {
        let number = self.count()? as u64;
        if number >= DATABASE_COUNT as u64 {
            return Err(RdbError::Database { offset, number });
        }
        self.database = DatabaseIndex(number as u8);
        Ok(())
    }

    fn end(&mut self) -> Result<(), RdbError> {
        if self.version < VERSION_CHECKED {
            return Ok(());
        }
        let (offset, found) = (self.offset(), self.input.checksum());
        let recorded = u64::from_le_bytes(self.input.parse(None, |decoder| decoder.array())?);
        if recorded != 0 && recorded != found {
            return Err(RdbError::Checksum { offset, recorded, found });
        }
        Ok(())
    }

    /// Passes over what a module has written beside its values. Returns the name of its type.
    fn pass_module(&mut self) -> Result<String, RdbError> {
        /// What the numbers before values mean.
        const END: usize = 0;
        const SIGNED: usize = 1;
        const UNSIGNED: usize = 2;
        const FLOAT: usize = 3;
        const DOUBLE: usize = 4;
        const STRING: usize = 5;
        let name = module_name(self.count()? as u64);
        loop {
            let offset = self.offset();
            match self.count()? {
                END => return Ok(name),
                SIGNED | UNSIGNED => _ = self.count()?,
                FLOAT => _ = self.input.parse(None, |decoder| decoder.array::<4>())?,
                DOUBLE => _ = self.input.parse(None, |decoder| decoder.array::<8>())?,
                STRING => _ = self.string()?,
                _ => {
                    let fault = Fault::Packed("data of a module");
                    return Err(RdbError::Damaged { offset, key: None, fault });
                }
            }
        }
    }

    fn item(&mut self, type_byte: u8, take: &mut TakeRecord<'_>) -> Result<(), RdbError> {
        let type_offset = self.fields.offset;
        let key = self.string()?;
        if let MODULE_1 | MODULE_2 = type_byte {
            let module = module_name(self.count()? as u64);
            return Err(RdbError::Module { offset: type_offset, key: Some(key), module });
        }
        let unknown = |fault| behind(DecodeError { fault, offset: 0 }, type_offset, Some(&key));
        let type_byte = foreign_type(type_byte, self.is_valkey).map_err(unknown)?;
        let bytes_max = if is_in_elements(type_byte) { RDB_SPLIT_BYTES } else { usize::MAX };
        let read = |decoder: &mut Decoder<'_>| read_value(decoder, type_byte, 0).map(drop);
        let looked = self.input.look(Some(&key), bytes_max, read);
        let Some(((), size)) = looked.map_err(|error| at_type(error, type_offset))? else {
            return self.split(type_byte, &key, take);
        };
        let bytes = self.input.take(size);
        let value = EncodedValue::read(type_byte, &bytes).expect("it was read before");
        let shape = match value.value_type() {
            ValueType::String => Shape::String(StringForm::Automatic),
            value_type => Shape::Collection(value_type, Form::Pack),
        };
        let record = ItemRecord {
            database: self.database,
            deadline: self.deadline,
            shape,
            piece: Piece::Whole,
            key: key.into(),
            value,
        };
        take(record, self.fields).map_err(RdbError::Taken)
    }

    /// Hands out a large collection in pieces.
    fn split(
        &mut self,
        type_byte: u8,
        key: &[u8],
        take: &mut TakeRecord<'_>,
    ) -> Result<(), RdbError> {
        // The earliest deadline, from which those of the fields count.
        let first = match type_byte {
            HASH_TIMED => self.input.parse(Some(key), |decoder| decoder.array::<8>())?.to_vec(),
            _ => Vec::new(),
        };
        let unit_count = self.input.parse(Some(key), |decoder| decoder.count())? as u64;
        let in_nodes = matches!(type_byte, LIST_QUICKLIST | LIST_QUICKLIST_2);
        let total = match in_nodes {
            true => self.totals.pop_front().unwrap_or(0),
            false => unit_count,
        };
        let mut run = Run { type_byte, first, total, ..Run::default() };
        for unit in 0..unit_count {
            if run.units.is_empty() {
                run.offset = self.offset();
            }
            let read = |decoder: &mut Decoder<'_>| pass_unit(decoder, type_byte);
            let looked = self.input.look(Some(key), usize::MAX, read)?;
            let ((), size) = looked.expect("there is no bound");
            run.units.extend_from_slice(&self.input.ready()[..size]);
            self.input.skip(size);
            run.unit_count += 1;
            if run.units.len() >= ITEM_PIECE_BYTES || unit + 1 == unit_count {
                let (database, deadline) = (self.database, self.deadline);
                let fields = self.fields;
                run.hand_out(key, &mut |piece, value| {
                    let deadline = deadline.filter(|_| !matches!(piece, Piece::Next(_)));
                    let shape = Shape::Collection(value.value_type(), Form::Tree);
                    let key = key.into();
                    take(ItemRecord { database, deadline, shape, piece, key, value }, fields)
                })?;
            }
        }
        Ok(())
    }
}

/// Some of the elements of a large collection.
#[derive(Default)]
struct Run {
    type_byte: u8,
    first: Vec<u8>,
    /// Elements of the whole.
    total: u64,
    /// Elements handed out.
    done: u64,
    offset: u64,
    unit_count: usize,
    units: Vec<u8>,
}

impl Run {
    fn hand_out(
        &mut self,
        key: &[u8],
        take: &mut dyn FnMut(Piece, EncodedValue<'_>) -> io::Result<()>,
    ) -> Result<(), RdbError> {
        let mut bytes = std::mem::take(&mut self.first);
        let kept = bytes.clone();
        write_length(&mut bytes, self.unit_count);
        let head = bytes.len();
        bytes.append(&mut self.units);
        self.unit_count = 0;
        let read = EncodedValue::read(self.type_byte, &bytes);
        let value = read.map_err(|error| {
            let offset = error.offset.saturating_sub(head);
            behind(DecodeError { offset, ..error }, self.offset, Some(key))
        })?;
        let count = value.count();
        let is_timed = matches!(self.type_byte, HASH_TIMED | HASH_TIMED_EARLY | HASH_TIMED_VALKEY);
        let (plain_type, plain) = plain(&value, is_timed);
        let value = EncodedValue::read(plain_type, &plain).expect("just written");
        let piece = match self.done {
            0 if count == self.total => Piece::Whole,
            0 => Piece::First(self.total),
            done => Piece::Next(done),
        };
        self.done += count;
        self.first = kept;
        take(piece, value).map_err(RdbError::Taken)
    }
}

/// Is a value of this type a count of elements, and so many of them?
fn is_in_elements(type_byte: u8) -> bool {
    matches!(
        type_byte,
        LIST | SET
            | HASH
            | SORTED_SET
            | SORTED_SET_TEXT
            | HASH_TIMED
            | HASH_TIMED_EARLY
            | HASH_TIMED_VALKEY
            | LIST_QUICKLIST
            | LIST_QUICKLIST_2
    )
}

/// Passes over an element of a collection.
fn pass_unit(decoder: &mut Decoder<'_>, type_byte: u8) -> Result<(), DecodeError> {
    if let LIST_QUICKLIST_2 | HASH_TIMED | HASH_TIMED_EARLY = type_byte {
        decoder.count()?;
    }
    decoder.string()?;
    match type_byte {
        HASH | HASH_TIMED | HASH_TIMED_EARLY => _ = decoder.string()?,
        HASH_TIMED_VALKEY => {
            decoder.string()?;
            decoder.array::<8>()?;
        }
        SORTED_SET_TEXT => _ = decoder.double_text()?,
        SORTED_SET => _ = decoder.array::<8>()?,
        _ => {}
    }
    Ok(())
}

/// A collection in the plain type that snapshots have. All pieces of one value are of the same
/// type.
fn plain(value: &EncodedValue<'_>, is_timed: bool) -> (u8, Vec<u8>) {
    let mut bytes = Vec::new();
    let each = |take: &mut dyn FnMut(Part<'_>)| {
        let walked = value.each(&mut |part| {
            take(part);
            Ok(())
        });
        walked.expect("it was read before");
    };
    if is_timed {
        // Deadlines count from 1 then: they are what they are.
        bytes.extend_from_slice(&1i64.to_le_bytes());
    }
    write_length(&mut bytes, value.count() as usize);
    each(&mut |part| match part {
        Part::Element(one) | Part::Member(one) => write_string(&mut bytes, one),
        Part::Field(field, value) => {
            if is_timed {
                write_length(&mut bytes, 0);
            }
            write_string(&mut bytes, field);
            write_string(&mut bytes, value);
        }
        Part::TimedField(field, value, at) => {
            write_length(&mut bytes, at.max(1) as usize);
            write_string(&mut bytes, field);
            write_string(&mut bytes, value);
        }
        Part::Scored(member, score) => {
            write_string(&mut bytes, member);
            bytes.extend_from_slice(&score.to_le_bytes());
        }
        Part::String(_) | Part::Stream(_) => unreachable!("only collections come in pieces"),
    });
    let type_byte = match value.value_type() {
        ValueType::List => LIST,
        ValueType::Set => SET,
        ValueType::SortedSet => SORTED_SET,
        _ if is_timed => HASH_TIMED,
        _ => HASH,
    };
    (type_byte, bytes)
}

/// A type that nobody knows stands before the key.
fn at_type(error: RdbError, offset: u64) -> RdbError {
    match error {
        RdbError::Damaged { key, fault: fault @ Fault::UnknownType(_), .. } => {
            RdbError::Damaged { offset, key, fault }
        }
        error => error,
    }
}

/// The name in the first line of a library: `#!lua name=NAME`.
fn library_name(text: &[u8]) -> Option<&[u8]> {
    let line = text.split(|byte| *byte == b'\n').next()?;
    line.split(|byte| *byte == b' ')
        .find_map(|word| word.strip_prefix(b"name="))
        .map(<[u8]>::trim_ascii)
}
