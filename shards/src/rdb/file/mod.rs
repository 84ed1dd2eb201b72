//! RDB files: what Redis and Valkey write as `dump.rdb`.
//!
//! A file is a header, opcodes and items, an end and a checksum over all before it:
//!
//! | first byte | what follows |
//! |---|---|
//! | `REDIS` or `VALKEY` | four digits, or three, of the version |
//! | 0xf4 | a slot of Redis Cluster, its keys, its keys with a deadline: three lengths |
//! | 0xf5 | a library of functions: a string |
//! | 0xf7 | data of a module beside its values |
//! | 0xf8, 0xf9 | of the next item: how long it was not used (a length, seconds), how often it was (a byte) |
//! | 0xfa | a fact about the writer: two strings |
//! | 0xfb | keys, and keys with a deadline, of the database: two lengths |
//! | 0xfc, 0xfd | deadline of the next item, 8 bytes of milliseconds or 4 of seconds, little endian |
//! | 0xfe | database of the items that follow: a length |
//! | 0xff | the end; from version 5 on CRC-64 of all before it, or zero |
//! | a type | an item: key and value |
//!
//! The reader takes a stream and holds one item, or, of a large collection, some of its elements;
//! the writer gives a stream. Neither knows of files.

mod input;
mod read;
mod survey;
mod write;

pub use read::{Event, ItemFields, Library, RdbReader, TakeRecord};
pub use survey::{Survey, survey};
pub use write::{Flavor, RdbWriter, ValueWriter, elements_of, head_of};

use super::{DecodeError, Fault};
use std::io;

const SLOT_INFO: u8 = 0xf4;
const FUNCTION: u8 = 0xf5;
const MODULE_AUX: u8 = 0xf7;
const IDLE: u8 = 0xf8;
const FREQUENCY: u8 = 0xf9;
const AUX: u8 = 0xfa;
const RESIZE: u8 = 0xfb;
const DEADLINE_MS: u8 = 0xfc;
const DEADLINE: u8 = 0xfd;
const SELECT: u8 = 0xfe;
const END: u8 = 0xff;

const MODULE_1: u8 = 6;
const MODULE_2: u8 = 7;

/// First version with a checksum.
const VERSION_CHECKED: u16 = 5;

/// Why an RDB file is not read, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum RdbError {
    /// The stream ended with an error.
    #[error("cannot be read at byte {offset}: {source}")]
    Read {
        /// Where.
        offset: u64,
        /// The operating system's error.
        source: io::Error,
    },
    /// Whoever takes the items gave up.
    #[error("{0}")]
    Taken(io::Error),
    /// It does not begin as RDB files do.
    #[error("is no RDB file: it begins neither with REDIS nor with VALKEY and a version")]
    Magic,
    /// It was written by a newer server.
    #[error(
        "was written in RDB version {version}: up to {} of Redis and {} of Valkey are read",
        super::VERSION_READ,
        super::VERSION_VALKEY
    )]
    Version {
        /// Its version.
        version: u16,
    },
    /// Bytes that make no sense.
    #[error("damaged at byte {offset}{}: {fault}", of_key(key))]
    Damaged {
        /// Where.
        offset: u64,
        /// The key of the value that they belong to, if they do.
        key: Option<Vec<u8>>,
        /// What is wrong.
        fault: Fault,
    },
    /// A database that there is not here.
    #[error("database {number} at byte {offset}: this server has databases 0 to {}", crate::limits::DATABASE_COUNT - 1)]
    Database {
        /// Where.
        offset: u64,
        /// Its number.
        number: u64,
    },
    /// A value of a type that a module of Redis has added.
    #[error(
        "the value{} at byte {offset} is of type {module} of a module of Redis, which ringraft does not have",
        of_key(key)
    )]
    Module {
        /// Where.
        offset: u64,
        /// The key.
        key: Option<Vec<u8>>,
        /// The name of the type.
        module: String,
    },
    /// The checksum at its end is another one.
    #[error(
        "damaged: its checksum at byte {offset} is {recorded:016x}, that of what was read {found:016x}"
    )]
    Checksum {
        /// Where.
        offset: u64,
        /// As written.
        recorded: u64,
        /// As it is.
        found: u64,
    },
}

fn of_key(key: &Option<Vec<u8>>) -> String {
    key.as_ref().map_or(String::new(), |key| format!(" of key \"{}\"", key.escape_ascii()))
}

/// The name of a module's type: nine characters of six bits each, and ten bits of version.
fn module_name(id: u64) -> String {
    const CHARACTERS: &[u8; 64] =
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    (0..9).map(|at| char::from(CHARACTERS[(id >> (64 - 6 * (at + 1))) as usize & 63])).collect()
}

/// The same error, counted from elsewhere.
fn behind(error: DecodeError, offset: u64, key: Option<&[u8]>) -> RdbError {
    let key = key.map(<[u8]>::to_vec);
    RdbError::Damaged { offset: offset + error.offset as u64, key, fault: error.fault }
}
