//! Reads kvnode's snapshots: `state.bin`, and the `meta.json` beside it.
//!
//! `state.bin` is a gzip stream of records to its end, each `key length | key | value length |
//! value`, the lengths 64 bits little endian. A key of the user begins with `k`; what begins
//! otherwise is kvnode's own business and is passed over.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::limits::KVNODE_STRING_BYTES_MAX;

/// The first two bytes of a gzip stream.
pub const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// What stands before a user's key.
const USER_PREFIX: u8 = b'k';

/// Go's CRC-64 with its ECMA table, which other catalogues call XZ.
const CRC: crc::Crc<u64> = crc::Crc::<u64>::new(&crc::CRC_64_XZ);

/// Why a kvnode snapshot cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum KvnodeError {
    /// The file cannot be opened or read.
    #[error("reading {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// `meta.json` is not kvnode's.
    #[error("{}: {what}", path.display())]
    Meta {
        /// `meta.json`.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// `state.bin` is not the file that `meta.json` describes.
    #[error(
        "{}: {what} is {found} where meta.json says {recorded}: the file is damaged, or the two do not belong together",
        path.display()
    )]
    Mismatch {
        /// `state.bin`.
        path: PathBuf,
        /// Size or checksum.
        what: &'static str,
        /// As read.
        found: String,
        /// As in `meta.json`.
        recorded: String,
    },
    /// The records make no sense.
    #[error("{}: at byte {offset} of the uncompressed stream: {what}", path.display())]
    Damaged {
        /// `state.bin`.
        path: PathBuf,
        /// Offset in the uncompressed stream.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
}

/// One record of `state.bin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvnodeRecord<'a> {
    /// A user's key, its prefix taken off, and its value.
    User(&'a [u8], &'a [u8]),
    /// Something of kvnode's own.
    Other,
}

/// Reads the records of one `state.bin`.
pub struct KvnodeState {
    path: PathBuf,
    source: MultiGzDecoder<BufReader<File>>,
    offset: u64,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl KvnodeState {
    /// Opens the file. When a `meta.json` lies beside it, size and checksum are checked first: one
    /// pass over the file.
    pub fn open(path: &Path) -> Result<KvnodeState, KvnodeError> {
        check_meta(path)?;
        let file = File::open(path).map_err(io(path))?;
        Ok(KvnodeState {
            path: path.to_path_buf(),
            source: MultiGzDecoder::new(BufReader::new(file)),
            offset: 0,
            key: Vec::new(),
            value: Vec::new(),
        })
    }

    /// The next record; `None` at the end.
    pub fn next_record(&mut self) -> Result<Option<KvnodeRecord<'_>>, KvnodeError> {
        let Some(length) = self.length("a key's length")? else { return Ok(None) };
        let mut key = std::mem::take(&mut self.key);
        self.string(length, &mut key, "a key")?;
        self.key = key;
        let missing = "the stream ends before a value's length";
        let length =
            self.length("a value's length")?.ok_or_else(|| self.damaged(self.offset, missing))?;
        let mut value = std::mem::take(&mut self.value);
        self.string(length, &mut value, "a value")?;
        self.value = value;
        Ok(Some(match self.key.split_first() {
            Some((&USER_PREFIX, key)) => KvnodeRecord::User(key, &self.value),
            _ => KvnodeRecord::Other,
        }))
    }

    /// Eight bytes, or `None` when the stream ends just before them.
    fn length(&mut self, what: &str) -> Result<Option<u64>, KvnodeError> {
        let start = self.offset;
        let mut bytes = Vec::with_capacity(8);
        self.read(8, &mut bytes)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let Ok(bytes) = <[u8; 8]>::try_from(bytes.as_slice()) else {
            return Err(self.damaged(start, format!("the stream ends within {what}")));
        };
        let length = u64::from_le_bytes(bytes);
        // The prefix comes on top of the longest key.
        if length > KVNODE_STRING_BYTES_MAX + 1 {
            return Err(self.damaged(start, format!("{what} cannot be {length}")));
        }
        Ok(Some(length))
    }

    fn string(&mut self, length: u64, out: &mut Vec<u8>, what: &str) -> Result<(), KvnodeError> {
        let start = self.offset;
        out.clear();
        self.read(length, out)?;
        let read = out.len() as u64;
        if read == length {
            return Ok(());
        }
        Err(self
            .damaged(start, format!("the stream ends after {read} of {length} bytes of {what}")))
    }

    /// Reads up to `length` bytes; memory grows with what comes, not with what a length promises.
    fn read(&mut self, length: u64, out: &mut Vec<u8>) -> Result<(), KvnodeError> {
        let read = (&mut self.source).take(length).read_to_end(out);
        let start = self.offset;
        self.offset += out.len() as u64;
        read.map(|_| ()).map_err(|error| self.damaged(start, error.to_string()))
    }

    fn damaged(&self, offset: u64, what: impl Into<String>) -> KvnodeError {
        KvnodeError::Damaged { path: self.path.clone(), offset, what: what.into() }
    }
}

/// The fields of kvnode's `meta.json` that describe the file.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct KvnodeMeta {
    size: Option<u64>,
    #[serde(rename = "CRC")]
    crc: Option<String>,
}

fn check_meta(state: &Path) -> Result<(), KvnodeError> {
    let path = state.with_file_name("meta.json");
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(KvnodeError::Io { path, source }),
    };
    let meta: KvnodeMeta = serde_json::from_slice(&text).map_err(|error| KvnodeError::Meta {
        path: path.clone(),
        what: format!("not a kvnode meta.json: {error}"),
    })?;
    let mismatch = |what, found, recorded| KvnodeError::Mismatch {
        path: state.to_path_buf(),
        what,
        found,
        recorded,
    };
    let size = std::fs::metadata(state).map_err(io(state))?.len();
    if let Some(recorded) = meta.size.filter(|&recorded| recorded != size) {
        return Err(mismatch("the size", size.to_string(), recorded.to_string()));
    }
    let Some(text) = meta.crc else { return Ok(()) };
    let recorded = decode_base64(&text).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
    let recorded = recorded.map(u64::from_be_bytes).ok_or_else(|| KvnodeError::Meta {
        path,
        what: format!("CRC {text:?} is not eight bytes in base64"),
    })?;
    let found = file_crc(state).map_err(io(state))?;
    if found != recorded {
        let hexadecimal = |crc| format!("{crc:016x}");
        return Err(mismatch("the checksum", hexadecimal(found), hexadecimal(recorded)));
    }
    Ok(())
}

fn file_crc(path: &Path) -> std::io::Result<u64> {
    let mut file = File::open(path)?;
    let mut digest = CRC.digest();
    let mut buffer = vec![0; crate::limits::PRINT_BUFFER_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(digest.finalize()),
            count => digest.update(&buffer[..count]),
        }
    }
}

/// Standard base64 with padding.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut bit_count) = (0u32, 0);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        bit_count += 6;
        if bit_count >= 8 {
            bit_count -= 8;
            out.push((bits >> bit_count) as u8);
        }
    }
    Some(out)
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> KvnodeError {
    let path = path.to_path_buf();
    move |source| KvnodeError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_the_standard_one() {
        for (text, bytes) in [
            ("", Some(b"".as_slice())),
            ("Zg==", Some(b"f")),
            ("Zm8=", Some(b"fo")),
            ("Zm9v", Some(b"foo")),
            ("+/+/", Some(&[0xfb, 0xff, 0xbf])),
            ("Zg=", None),
            ("Z===", None),
            ("Zm_v", None),
        ] {
            assert_eq!(decode_base64(text).as_deref(), bytes, "{text}");
        }
    }

    #[test]
    fn the_checksum_is_the_one_that_go_computes() {
        // The check value that catalogues give for CRC-64/XZ, alias GO-ECMA.
        assert_eq!(CRC.checksum(b"123456789"), 0x995d_c9bb_df19_39fa);
    }
}
