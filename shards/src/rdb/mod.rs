//! Values and items in Redis' RDB encodings: DUMP payloads and the items of snapshot files.
//!
//! Written are the plain types of RDB version 6, which every Redis since 2.6 and every Codis reads,
//! and streams as Redis 7.0 does; read is
//! what servers up to [`VERSION_READ`] write for the types that exist here. Decoding trusts
//! nothing: a damaged or hostile input ends in a [`DecodeError`] that names the fault and its
//! offset, never in a panic or in an allocation that the input's size does not justify. [`file`]
//! reads and writes whole RDB files; those of snapshots are not the business of this module.

pub mod checksum;
mod encoding;
pub mod file;
mod item;
mod libraries;
mod lzf;
mod packed;
mod payload;
mod payloads;
mod stream;
mod value;
mod write;

pub use item::{ItemRecord, Piece, read_item, write_item, write_record};
pub use libraries::{LibrariesError, read_libraries, write_libraries};
pub use payload::{PayloadError, read_payload, write_payload, write_payload_of};
pub use payloads::{Made, Payload, Payloads};
pub use stream::write_stream_behind;
pub use value::{EncodedValue, TakePart, is_plain, is_timed};
pub use write::{write_plain, write_value};

/// RDB version that is written, but for streams.
pub const VERSION_WRITTEN: u16 = 6;
/// RDB version in which streams are written: Redis 7.0's, the first with all that they have.
pub const VERSION_STREAMS: u16 = 10;

/// RDB version in which hashes are written of which fields have deadlines: Redis 7.4's, the first
/// with such.
pub const VERSION_TIMED: u16 = 12;

/// Newest RDB version that is read: Redis 7.4's to 8.2's.
pub const VERSION_READ: u16 = 12;

/// RDB version of Valkey 9, which is read too: Valkey counts on its own from 80.
pub const VERSION_VALKEY: u16 = 80;

/// Bytes that could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault} at byte {offset}")]
pub struct DecodeError {
    /// What is wrong.
    pub fault: Fault,
    /// Where, counted from the start of the bytes that were given.
    pub offset: usize,
}

impl DecodeError {
    /// Would more bytes help? True only when all bytes that are there made sense.
    pub fn is_truncated(&self) -> bool {
        matches!(self.fault, Fault::Truncated { .. })
    }

    /// How many more bytes it asks for at least.
    pub fn missing(&self) -> usize {
        match self.fault {
            Fault::Truncated { needed, present } => needed - present,
            _ => 0,
        }
    }
}

/// What is wrong with an encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The bytes end too early.
    #[error("the input ends: {needed} bytes needed, {present} there")]
    Truncated {
        /// Bytes that the encoding asks for here.
        needed: usize,
        /// Bytes that are left.
        present: usize,
    },
    /// A length byte that has no meaning.
    #[error("unknown length encoding 0x{0:02x}")]
    UnknownLength(u8),
    /// A length that this machine or a string may not have.
    #[error("length {0} is too large")]
    LengthTooLarge(u64),
    /// Compressed data that contradicts itself or its lengths.
    #[error("damaged LZF data")]
    Compression,
    /// A packed form that contradicts itself.
    #[error("damaged {0}")]
    Packed(&'static str),
    /// A collection without elements.
    #[error("a collection without elements")]
    Empty,
    /// A field without a value, or a member without a score.
    #[error("an odd number of elements")]
    Odd,
    /// A deadline that is none.
    #[error("a deadline before 1970 or after all time")]
    Deadline,
    /// A score that is no number.
    #[error("a score that is no number")]
    Score,
    /// Bytes behind a value that should take all of them.
    #[error("{count} bytes follow the value")]
    Trailing {
        /// How many.
        count: usize,
    },
    /// A piece of a value that does not go on where the one before ended, or of a value of another
    /// type.
    #[error("a piece of a value that does not follow on its first")]
    Piece,
    /// A member or field that is there already.
    #[error("a duplicate")]
    Duplicate,
    /// A value type that is not known or not supported.
    #[error("unknown value type {0}")]
    UnknownType(u8),
    /// A field in front of an item whose value has no meaning.
    #[error("item field 0x{opcode:02x} cannot be {value}")]
    ItemField {
        /// The field.
        opcode: u8,
        /// Its value.
        value: u8,
    },
}
