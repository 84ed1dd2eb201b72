//! Items of snapshot files: fields, a type byte, the key, the value.
//!
//! Fields stand in front of the type byte, each an opcode and its value, and belong to this one item, so
//! that any run of records can be read without what came before:
//!
//! | opcode | value | without it |
//! |---|---|---|
//! | 0xfe | database, 1 byte | database 0 |
//! | 0xfc | deadline, 8 bytes, milliseconds since the Unix epoch, little endian | none |
//! | 0xf0 | form of a string, 1 byte: 1 text, 2 raw | automatic |

use std::borrow::Cow;

use super::encoding::{Decoder, write_string};
use super::value::{DecodedValue, read_value, type_byte, write_value};
use super::{DecodeError, Fault};
use crate::ids::{DatabaseIndex, Deadline};
use crate::keyspace::{Item, StringForm, Value};
use crate::limits::DATABASE_COUNT;

const FIELD_DATABASE: u8 = 0xfe;
const FIELD_DEADLINE: u8 = 0xfc;
const FIELD_FORM: u8 = 0xf0;

const FORM_TEXT: u8 = 1;
const FORM_RAW: u8 = 2;

/// An item that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemRecord<'a> {
    /// Its database.
    pub database: DatabaseIndex,
    /// When it ends; `None` for never.
    pub deadline: Option<Deadline>,
    /// How OBJECT ENCODING sees a string.
    pub form: StringForm,
    /// The key.
    pub key: Cow<'a, [u8]>,
    /// The value.
    pub value: DecodedValue<'a>,
}

/// Appends an item of `database`. Cost: one copy of key and value.
pub fn write_item(out: &mut Vec<u8>, database: DatabaseIndex, item: Item<'_>) {
    write_parts(out, database, item.deadline(), item.string_form(), item.key(), item.value());
}

/// Appends an item that was read elsewhere. Cost: one copy of key and value.
pub fn write_record(out: &mut Vec<u8>, item: &ItemRecord<'_>) {
    write_parts(out, item.database, item.deadline, item.form, &item.key, item.value.borrow());
}

fn write_parts(
    out: &mut Vec<u8>,
    database: DatabaseIndex,
    deadline: Option<Deadline>,
    form: StringForm,
    key: &[u8],
    value: Value<'_>,
) {
    if database != DatabaseIndex(0) {
        out.extend_from_slice(&[FIELD_DATABASE, database.0]);
    }
    if let Some(deadline) = deadline {
        out.push(FIELD_DEADLINE);
        out.extend_from_slice(&deadline.0.to_le_bytes());
    }
    match form {
        StringForm::Automatic => {}
        StringForm::Text => out.extend_from_slice(&[FIELD_FORM, FORM_TEXT]),
        StringForm::Raw => out.extend_from_slice(&[FIELD_FORM, FORM_RAW]),
    }
    out.push(type_byte(value));
    write_string(out, key);
    write_value(out, value);
}

/// Reads one item off the front of `input`, which is left as it was on an error.
/// Errors: [`DecodeError`], its offset counted from the start of `input`;
/// [`DecodeError::is_truncated`] when the item's end is not there.
pub fn read_item<'a>(input: &mut &'a [u8]) -> Result<ItemRecord<'a>, DecodeError> {
    let mut decoder = Decoder::new(input);
    let mut database = DatabaseIndex(0);
    let mut deadline = None;
    let mut form = StringForm::Automatic;
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
            FIELD_FORM => {
                form = match decoder.byte()? {
                    FORM_TEXT => StringForm::Text,
                    FORM_RAW => StringForm::Raw,
                    value => {
                        return Err(start.error(Fault::ItemField { opcode: FIELD_FORM, value }));
                    }
                }
            }
            type_byte => {
                let type_offset = input.len() - start.rest().len();
                let key = decoder.string()?;
                let value = read_value(&mut decoder, type_byte, type_offset)?;
                *input = decoder.rest();
                return Ok(ItemRecord { database, deadline, form, key, value });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(key: &'static [u8], value: &'static [u8]) -> ItemRecord<'static> {
        ItemRecord {
            database: DatabaseIndex(0),
            deadline: None,
            form: StringForm::Automatic,
            key: Cow::Borrowed(key),
            value: DecodedValue::String(Cow::Borrowed(value)),
        }
    }

    fn any_record() -> impl Strategy<Value = ItemRecord<'static>> {
        let form =
            prop_oneof![Just(StringForm::Automatic), Just(StringForm::Text), Just(StringForm::Raw)];
        (0..DATABASE_COUNT as u8, any::<Option<i64>>(), form, any::<Vec<u8>>(), any::<Vec<u8>>())
            .prop_map(|(database, deadline, form, key, value)| ItemRecord {
                database: DatabaseIndex(database),
                deadline: deadline.map(Deadline),
                form,
                key: Cow::Owned(key),
                value: DecodedValue::String(Cow::Owned(value)),
            })
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
            form: StringForm::Raw,
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
