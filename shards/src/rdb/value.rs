//! Values by their RDB type byte.

use std::borrow::Cow;

use super::encoding::{Decoder, write_string};
use super::{DecodeError, Fault};
use crate::keyspace::Value;

const TYPE_STRING: u8 = 0;

/// A value that was read. Borrows from the input what is stored there as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodedValue<'a> {
    /// A string of bytes.
    String(Cow<'a, [u8]>),
}

impl DecodedValue<'_> {
    /// The value as the keyspace knows it.
    pub fn borrow(&self) -> Value<'_> {
        match self {
            DecodedValue::String(string) => Value::String(string),
        }
    }
}

/// The type byte of a value.
pub fn type_byte(value: Value<'_>) -> u8 {
    match value {
        Value::String(_) => TYPE_STRING,
    }
}

/// Appends a value without its type byte.
pub fn write_value(out: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::String(string) => write_string(out, string),
    }
}

/// Reads a value of the type that `type_byte`, which stood at `type_offset`, says.
pub fn read_value<'a>(
    decoder: &mut Decoder<'a>,
    type_byte: u8,
    type_offset: usize,
) -> Result<DecodedValue<'a>, DecodeError> {
    match type_byte {
        TYPE_STRING => Ok(DecodedValue::String(decoder.string()?)),
        unknown => Err(DecodeError { fault: Fault::UnknownType(unknown), offset: type_offset }),
    }
}
