//! Writes an RDB file.

use super::super::checksum::{Digest, digest};
use super::super::encoding::{Decoder, write_length, write_string};
use super::super::value::{EncodedValue, HASH_TIMED, HASH_TIMED_EARLY};
use super::super::{VERSION_STREAMS, VERSION_TIMED, VERSION_VALKEY};
use super::{AUX, DEADLINE_MS, END, FUNCTION, SELECT};
use crate::ids::{DatabaseIndex, Deadline};
use std::io::{self, Write};

/// For which servers a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    /// Redis from 7.0 on, and Valkey.
    Common,
    /// Redis from 7.4 on: hashes with deadlines of fields.
    RedisTimed,
    /// Valkey from 9.0 on: hashes with deadlines of fields.
    ValkeyTimed,
}

/// Writes one file to `W`.
pub struct RdbWriter<W> {
    out: W,
    flavor: Flavor,
    digest: Digest,
    database: Option<DatabaseIndex>,
    items: u64,
}

/// Takes the bytes of a value.
pub struct ValueWriter<'w>(&'w mut dyn FnMut(&[u8]) -> io::Result<()>);

impl Write for ValueWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.0)(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> RdbWriter<W> {
    /// Begins a file. `facts` are about the writer.
    pub fn new(out: W, flavor: Flavor, facts: &[(&str, String)]) -> io::Result<RdbWriter<W>> {
        let mut writer = RdbWriter { out, flavor, digest: digest(), database: None, items: 0 };
        let magic = match flavor {
            Flavor::Common => format!("REDIS{VERSION_STREAMS:04}"),
            Flavor::RedisTimed => format!("REDIS{VERSION_TIMED:04}"),
            Flavor::ValkeyTimed => format!("VALKEY{VERSION_VALKEY:03}"),
        };
        writer.put(magic.as_bytes())?;
        for (name, value) in facts {
            let mut bytes = vec![AUX];
            write_string(&mut bytes, name.as_bytes());
            write_string(&mut bytes, value.as_bytes());
            writer.put(&bytes)?;
        }
        Ok(writer)
    }

    /// Writes a library of functions.
    pub fn library(&mut self, text: &[u8]) -> io::Result<()> {
        let mut bytes = vec![FUNCTION];
        write_string(&mut bytes, text);
        self.put(&bytes)
    }

    /// Items written.
    pub fn items(&self) -> u64 {
        self.items
    }

    /// Writes an item whose value, without its type, `write` gives.
    pub fn item(
        &mut self,
        database: DatabaseIndex,
        deadline: Option<Deadline>,
        key: &[u8],
        type_byte: u8,
        write: &mut dyn FnMut(&mut ValueWriter<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut head = Vec::new();
        if self.database.replace(database) != Some(database) {
            head.push(SELECT);
            write_length(&mut head, database.0.into());
        }
        if let Some(deadline) = deadline {
            head.push(DEADLINE_MS);
            head.extend_from_slice(&deadline.0.to_le_bytes());
        }
        let for_valkey = self.flavor == Flavor::ValkeyTimed && type_byte == HASH_TIMED;
        head.push(if for_valkey { HASH_TIMED_EARLY } else { type_byte });
        write_string(&mut head, key);
        self.put(&head)?;
        self.items += 1;
        write(&mut ValueWriter(&mut |bytes| self.put(bytes)))
    }

    /// Ends the file and gives back what it was written to.
    pub fn finish(mut self) -> io::Result<W> {
        self.put(&[END])?;
        let checksum = self.digest.finalize();
        self.out.write_all(&checksum.to_le_bytes())?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.out.write_all(bytes)
    }
}

/// The elements of a piece of a value as a file of this flavor has them, without their count.
/// Strings are elements of their bytes.
pub fn elements_of(value: &EncodedValue<'_>, flavor: Flavor) -> Vec<u8> {
    if let Some(string) = value.string() {
        return string.into_owned();
    }
    let mut decoder = Decoder::new(value.bytes());
    let read = (|| {
        let first = match value.type_byte() {
            HASH_TIMED => i64::from_le_bytes(decoder.array()?),
            _ => {
                decoder.count()?;
                return Ok(decoder.rest().to_vec());
            }
        };
        let mut out = Vec::new();
        for _ in 0..decoder.count()? {
            let distance = decoder.count()?;
            let (field, value) = (decoder.string()?, decoder.string()?);
            let at = (distance > 0).then(|| first + distance as i64 - 1);
            if flavor != Flavor::ValkeyTimed {
                write_length(&mut out, at.map_or(0, |at| at.max(1) as usize));
            }
            write_string(&mut out, &field);
            write_string(&mut out, &value);
            if flavor == Flavor::ValkeyTimed {
                out.extend_from_slice(&at.unwrap_or(-1).to_le_bytes());
            }
        }
        Ok::<_, super::DecodeError>(out)
    })();
    read.expect("it was read before")
}

/// What precedes the elements of a value of `total` elements, or bytes.
pub fn head_of(type_byte: u8, flavor: Flavor, total: u64) -> Vec<u8> {
    let mut head = Vec::new();
    if type_byte == HASH_TIMED && flavor != Flavor::ValkeyTimed {
        // Deadlines count from 1 then: they are what they are.
        head.extend_from_slice(&1i64.to_le_bytes());
    }
    write_length(&mut head, total as usize);
    head
}
