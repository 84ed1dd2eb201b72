//! Items of snapshot files: fields, a type byte, the key, the value.
//!
//! Fields stand in front of the type byte, each an opcode and its value, and belong to this one
//! record, so that any run of records can be read without what came before:
//!
//! | opcode | value | without it |
//! |---|---|---|
//! | 0xfe | database, 1 byte | database 0 |
//! | 0xfc | deadline, 8 bytes, milliseconds since the Unix epoch, little endian | none |
//! | 0xf0 | form, 1 byte: of a string 1 text, 2 raw; of a collection 1 tree, 2 integers | automatic; pack |
//! | 0xf1 | elements (of a string, bytes) of the whole value, 8 bytes, little endian: this is its first piece | all of it is here |
//! | 0xf2 | elements (bytes) of the value that precede this piece, 8 bytes, little endian | it begins here |
//!
//! A value of more than [`ITEM_PIECE_BYTES`] comes in pieces. Pieces of one value come in order,
//! those of others may stand between them.

use std::borrow::Cow;

use super::encoding::{Decoder, write_string};
use super::value::{EncodedValue, read_value};
use super::write::{piece_end, type_byte, write_range};
use super::{DecodeError, Fault};
use crate::ids::{DatabaseIndex, Deadline};
use crate::keyspace::{Item, Shape};
use crate::limits::DATABASE_COUNT;

const FIELD_DATABASE: u8 = 0xfe;
const FIELD_DEADLINE: u8 = 0xfc;
const FIELD_FORM: u8 = 0xf0;
const FIELD_TOTAL: u8 = 0xf1;
const FIELD_GOES_ON: u8 = 0xf2;

/// Which part of its value a record has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Piece {
    /// All of it.
    #[default]
    Whole,
    /// The first part of a value of so many elements, or bytes if it is a string.
    First(u64),
    /// What follows on so many elements or bytes.
    Next(u64),
}

/// An item that was read, or a piece of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemRecord<'a> {
    /// Its database.
    pub database: DatabaseIndex,
    /// When it ends; `None` for never. Only the first piece says it.
    pub deadline: Option<Deadline>,
    /// Type and form of the value.
    pub shape: Shape,
    /// Which part of the value this is.
    pub piece: Piece,
    /// The key.
    pub key: Cow<'a, [u8]>,
    /// The value, or the part of it.
    pub value: EncodedValue<'a>,
}

impl ItemRecord<'_> {
    /// The same with bytes of its own.
    pub fn into_owned(self) -> ItemRecord<'static> {
        let key = Cow::Owned(self.key.into_owned());
        ItemRecord { key, value: self.value.into_owned(), ..self }
    }

    /// Does an item begin with it?
    pub fn is_first(&self) -> bool {
        !matches!(self.piece, Piece::Next(_))
    }
}

/// Appends an item of `database` from a place in its value on, 0 at first. Returns the place to go
/// on at, if it was too large to be written to its end. Cost: one copy of key and value.
pub fn write_item(
    out: &mut Vec<u8>,
    database: DatabaseIndex,
    item: Item<'_>,
    from: u64,
) -> Option<u64> {
    write_fields(out, database, item.deadline().filter(|_| from == 0), item.shape());
    let (value, key) = (item.value(), item.key());
    let (end, total) = piece_end(value, from, key.len());
    if from > 0 {
        out.push(FIELD_GOES_ON);
        out.extend_from_slice(&from.to_le_bytes());
    } else if end < total {
        out.push(FIELD_TOTAL);
        out.extend_from_slice(&total.to_le_bytes());
    }
    out.push(type_byte(value));
    write_string(out, key);
    write_range(out, value, from, end);
    (end < total).then_some(end)
}

/// Appends a record that was read elsewhere. Cost: one copy of key and value.
pub fn write_record(out: &mut Vec<u8>, item: &ItemRecord<'_>) {
    write_fields(out, item.database, item.deadline, item.shape);
    match item.piece {
        Piece::Whole => {}
        Piece::First(total) => {
            out.push(FIELD_TOTAL);
            out.extend_from_slice(&total.to_le_bytes());
        }
        Piece::Next(from) => {
            out.push(FIELD_GOES_ON);
            out.extend_from_slice(&from.to_le_bytes());
        }
    }
    out.push(item.value.type_byte());
    write_string(out, &item.key);
    out.extend_from_slice(item.value.bytes());
}

fn write_fields(
    out: &mut Vec<u8>,
    database: DatabaseIndex,
    deadline: Option<Deadline>,
    shape: Shape,
) {
    if database != DatabaseIndex(0) {
        out.extend_from_slice(&[FIELD_DATABASE, database.0]);
    }
    if let Some(deadline) = deadline {
        out.push(FIELD_DEADLINE);
        out.extend_from_slice(&deadline.0.to_le_bytes());
    }
    let form = shape.form_byte();
    if form != 0 {
        out.extend_from_slice(&[FIELD_FORM, form]);
    }
}

/// Reads one item or piece off the front of `input`, which is left as it was on an error.
/// Errors: [`DecodeError`], its offset counted from the start of `input`;
/// [`DecodeError::is_truncated`] when the item's end is not there.
pub fn read_item<'a>(input: &mut &'a [u8]) -> Result<ItemRecord<'a>, DecodeError> {
    let mut decoder = Decoder::new(input);
    let (mut database, mut deadline, mut piece) = (DatabaseIndex(0), None, Piece::Whole);
    let (mut form, mut at_form) = (0, decoder);
    loop {
        let start = decoder;
        match decoder.byte()? {
            FIELD_DATABASE => {
                let value = decoder.byte()?;
                if value as usize >= DATABASE_COUNT {
                    return Err(start.error(Fault::ItemField { opcode: FIELD_DATABASE, value }));
                }
                database = DatabaseIndex(value);
            }
            FIELD_DEADLINE => deadline = Some(Deadline(i64::from_le_bytes(decoder.array()?))),
            FIELD_FORM => (form, at_form) = (decoder.byte()?, start),
            FIELD_TOTAL => piece = Piece::First(u64::from_le_bytes(decoder.array()?)),
            FIELD_GOES_ON => piece = Piece::Next(u64::from_le_bytes(decoder.array()?)),
            type_byte => {
                let type_offset = input.len() - start.rest().len();
                let key = decoder.string()?;
                let value = read_value(&mut decoder, type_byte, type_offset)?;
                let shape = Shape::read(value.value_type(), form).ok_or_else(|| {
                    at_form.error(Fault::ItemField { opcode: FIELD_FORM, value: form })
                })?;
                *input = decoder.rest();
                return Ok(ItemRecord { database, deadline, shape, piece, key, value });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::{Expiry, Key, KeyHasher, Keyspace, StringForm};
    use proptest::prelude::*;

    fn record(key: &'static [u8], value: &'static [u8]) -> ItemRecord<'static> {
        ItemRecord {
            database: DatabaseIndex(0),
            deadline: None,
            shape: Shape::String(StringForm::Automatic),
            piece: Piece::Whole,
            key: Cow::Borrowed(key),
            value: EncodedValue::of_string(value),
        }
    }

    fn any_record() -> impl Strategy<Value = ItemRecord<'static>> {
        let form =
            prop_oneof![Just(StringForm::Automatic), Just(StringForm::Text), Just(StringForm::Raw)];
        let piece = prop_oneof![
            Just(Piece::Whole),
            any::<u64>().prop_map(Piece::First),
            any::<u64>().prop_map(Piece::Next)
        ];
        let database = 0..DATABASE_COUNT as u8;
        let deadline = any::<Option<i64>>();
        (database, deadline, form, piece, any::<Vec<u8>>(), any::<Vec<u8>>()).prop_map(
            |(database, deadline, form, piece, key, value)| ItemRecord {
                database: DatabaseIndex(database),
                deadline: deadline.map(Deadline),
                shape: Shape::String(form),
                piece,
                key: Cow::Owned(key),
                value: EncodedValue::of_string(&value),
            },
        )
    }

    #[test]
    fn a_long_key_is_not_repeated_for_every_64_kilobytes() {
        const BYTES: usize = 2 << 20;
        let mut keyspace = Keyspace::new(KeyHasher::new(1));
        let name = vec![b'k'; BYTES];
        let key = Key::new(&name, keyspace.hasher().hash(&name));
        let value = vec![b'v'; 2 * BYTES];
        let mut edit = keyspace.edit(DatabaseIndex(0), 0);
        edit.set_string(&key, &value, StringForm::Automatic, Expiry::Never);
        let view = keyspace.view(DatabaseIndex(0), 0);
        let item = view.peek(&key).expect("just set");
        let (mut out, mut from, mut pieces) = (Vec::new(), Some(0), 0);
        while let Some(at) = from {
            from = write_item(&mut out, DatabaseIndex(0), item, at);
            pieces += 1;
        }
        assert_eq!(pieces, 2);
        assert!(out.len() < 2 * (name.len() + value.len()), "{} bytes", out.len());
    }

    #[test]
    fn fields_are_written_only_when_they_say_something() {
        let mut out = Vec::new();
        write_record(&mut out, &record(b"k", b"v"));
        assert_eq!(out, b"\x00\x01k\x01v");
        out.clear();
        let item = ItemRecord {
            database: DatabaseIndex(3),
            deadline: Some(Deadline(1)),
            shape: Shape::String(StringForm::Raw),
            ..record(b"k", b"7")
        };
        write_record(&mut out, &item);
        assert_eq!(out, b"\xfe\x03\xfc\x01\0\0\0\0\0\0\0\xf0\x02\x00\x01k\xc0\x07");
    }

    #[test]
    fn faults_are_named_with_their_place() {
        for (bytes, text) in [
            (b"\xfe\x10\x00\x01k\x01v".as_slice(), "item field 0xfe cannot be 16 at byte 0"),
            (b"\xfe\x01\xf0\x03\x00\x01k\x01v", "item field 0xf0 cannot be 3 at byte 2"),
            (b"\xfe\x01\x63\x01k\x01v", "unknown value type 99 at byte 2"),
        ] {
            let mut input = bytes;
            let error = read_item(&mut input).expect_err(text);
            assert_eq!((error.to_string().as_str(), error.is_truncated()), (text, false));
            assert_eq!(input, bytes, "an error takes nothing");
        }
    }

    proptest! {
        #[test]
        fn items_round_trip(items in prop::collection::vec(any_record(), 0..5)) {
            let mut out = Vec::new();
            for item in &items {
                write_record(&mut out, item);
            }
            let mut input = out.as_slice();
            for item in &items {
                prop_assert_eq!(&read_item(&mut input).expect("just written"), item);
            }
            prop_assert!(input.is_empty());
        }

        #[test]
        fn a_cut_anywhere_is_told(item in any_record()) {
            let mut out = Vec::new();
            write_record(&mut out, &item);
            for size in 0..out.len() {
                let error = read_item(&mut &out[..size]).expect_err("an item that was cut");
                prop_assert!(error.is_truncated(), "{} of {} bytes: {}", size, out.len(), error);
            }
        }

        #[test]
        fn no_input_panics(bytes: Vec<u8>) {
            let mut input = bytes.as_slice();
            while !input.is_empty() && read_item(&mut input).is_ok() {}
        }
    }
}
