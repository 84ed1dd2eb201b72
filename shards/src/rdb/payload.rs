//! DUMP payloads: a type byte, a value, the RDB version (2 bytes) and a CRC-64 over all before it
//! (8 bytes).

use super::checksum::crc64;
use super::encoding::Decoder;
use super::value::{
    EncodedValue, HASH_LISTPACK, HASH_TIMED_EARLY, HASH_TIMED_LISTPACK, HASH_TIMED_VALKEY,
    SET_LISTPACK, STREAM, STREAM_2, STREAM_3, read_value,
};
use super::write::write_portable;
use super::{
    DecodeError, Fault, VERSION_READ, VERSION_STREAMS, VERSION_TIMED, VERSION_VALKEY,
    VERSION_WRITTEN,
};
use crate::keyspace::Value;

const VERSION_BYTES: usize = 2;
const CHECKSUM_BYTES: usize = 8;

/// Why a payload is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Too short for a version and a checksum.
    #[error("{0} bytes are too few for a payload")]
    TooShort(usize),
    /// Written by a newer server.
    #[error("version {0} is newer than {VERSION_READ}")]
    Version(u16),
    /// The checksum is wrong, or missing (zero).
    #[error("the checksum is wrong")]
    Checksum,
    /// The value cannot be read.
    #[error(transparent)]
    Value(#[from] DecodeError),
}

/// Appends the payload of a value.
pub fn write_payload(out: &mut Vec<u8>, value: Value<'_>) {
    let start = out.len();
    let version = write_portable(out, value);
    sign(out, start, version);
}

/// Appends version and checksum of the payload that begins at `start`.
pub(super) fn sign(out: &mut Vec<u8>, start: usize, version: u16) {
    out.extend_from_slice(&version.to_le_bytes());
    let checksum = crc64(&out[start..]);
    out.extend_from_slice(&checksum.to_le_bytes());
}

/// Appends the payload of a value that was read elsewhere, as it is, with the version that has its
/// type.
pub fn write_payload_of(out: &mut Vec<u8>, value: &EncodedValue<'_>) {
    /// Redis 7.2's, the first with packed sets and the newest streams.
    const VERSION_PACKED_SETS: u16 = 11;
    /// Redis 4's, the first with scores as they are.
    const VERSION_SCORES: u16 = 8;
    let start = out.len();
    let (type_byte, version) = match value.type_byte() {
        HASH_TIMED_VALKEY => (HASH_TIMED_EARLY, VERSION_VALKEY),
        byte @ HASH_TIMED_EARLY..=HASH_TIMED_LISTPACK => (byte, VERSION_TIMED),
        byte @ (SET_LISTPACK | STREAM_3) => (byte, VERSION_PACKED_SETS),
        byte @ HASH_LISTPACK..=STREAM_2 => (byte, VERSION_STREAMS),
        byte @ 0..5 => (byte, VERSION_WRITTEN),
        // Quicklists and the streams of Redis 5 among them.
        byte => (byte, VERSION_SCORES + 1),
    };
    out.push(type_byte);
    out.extend_from_slice(value.bytes());
    sign(out, start, version);
}

/// Reads a payload. Bytes between the value and the version are ignored, as Redis does.
pub fn read_payload(payload: &[u8]) -> Result<EncodedValue<'_>, PayloadError> {
    let (value, is_valkey) = checked(payload)?;
    let mut decoder = Decoder::new(value);
    let start = decoder;
    let type_byte = foreign_type(decoder.byte()?, is_valkey);
    let type_byte = type_byte.map_err(|fault| start.error(fault))?;
    Ok(read_value(&mut decoder, type_byte, 0)?)
}

/// What stands before version and checksum, if they are right, and whether the version is Valkey's.
pub(super) fn checked(payload: &[u8]) -> Result<(&[u8], bool), PayloadError> {
    let (checked, checksum) = payload
        .split_last_chunk::<CHECKSUM_BYTES>()
        .ok_or(PayloadError::TooShort(payload.len()))?;
    let (value, version) =
        checked.split_last_chunk::<VERSION_BYTES>().ok_or(PayloadError::TooShort(payload.len()))?;
    let version = u16::from_le_bytes(*version);
    let is_valkey = version == VERSION_VALKEY;
    if version > VERSION_READ && !is_valkey {
        return Err(PayloadError::Version(version));
    }
    let checksum = u64::from_le_bytes(*checksum);
    if checksum == 0 || checksum != crc64(checked) {
        return Err(PayloadError::Checksum);
    }
    Ok((value, is_valkey))
}

/// The type byte that one means which another server wrote.
/// Errors: it is one of our own, which nobody else writes.
pub(super) fn foreign_type(type_byte: u8, is_valkey: bool) -> Result<u8, Fault> {
    match type_byte {
        STREAM | HASH_TIMED_VALKEY => Err(Fault::UnknownType(type_byte)),
        HASH_TIMED_EARLY if is_valkey => Ok(HASH_TIMED_VALKEY),
        _ => Ok(type_byte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rdb::Fault;
    use proptest::prelude::*;

    fn bytes_of_hex(hex: &str) -> Vec<u8> {
        (0..hex.len() / 2)
            .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hex in a test"))
            .collect()
    }

    /// A payload with a right footer around any bytes.
    fn signed(value: &[u8], version: u16) -> Vec<u8> {
        let mut payload = value.to_vec();
        payload.extend_from_slice(&version.to_le_bytes());
        let checksum = crc64(&payload);
        payload.extend_from_slice(&checksum.to_le_bytes());
        payload
    }

    fn string(bytes: &[u8]) -> Value<'_> {
        Value::String(bytes)
    }

    #[test]
    fn payloads_of_other_servers_are_read() {
        for (hex, value) in [
            ("00036261720600705321e01b33c184", "bar"),
            ("00c00a0600f8723fc5fbfb5f28", "10"),
            ("00036261720700198c9c93e6ac280d", "bar"),
            ("00c00a070091ad82b60664b6a1", "10"),
            ("00c0010700d94a3245d9cbc4e6", "1"),
            ("00036261720a00e6be4960ee66fd17", "bar"),
        ] {
            let payload = bytes_of_hex(hex);
            let decoded = read_payload(&payload).expect(hex);
            assert_eq!(decoded.string().as_deref(), Some(value.as_bytes()));
        }
    }

    #[test]
    fn payloads_are_written_in_version_6() {
        for (hex, value) in
            [("00036261720600705321e01b33c184", "bar"), ("00c00a0600f8723fc5fbfb5f28", "10")]
        {
            let mut out = b"before".to_vec();
            write_payload(&mut out, string(value.as_bytes()));
            assert_eq!(out["before".len()..], bytes_of_hex(hex));
        }
    }

    #[test]
    fn what_is_wrong_is_told_apart() {
        let good = signed(b"\x00\x03bar", VERSION_READ);
        assert!(read_payload(&good).is_ok());
        assert!(read_payload(&signed(b"\x00\x03barTRAILING", 1)).is_ok());
        let newer = signed(b"\x00\x03bar", VERSION_READ + 1);
        assert_eq!(read_payload(&newer), Err(PayloadError::Version(VERSION_READ + 1)));
        let mut unsigned = good.clone();
        unsigned[good.len() - 8..].fill(0);
        assert_eq!(read_payload(&unsigned), Err(PayloadError::Checksum));
        for i in 0..good.len() {
            let mut flipped = good.clone();
            flipped[i] ^= 1;
            assert!(read_payload(&flipped).is_err(), "byte {i}");
            assert!(read_payload(&good[..i]).is_err(), "cut to {i}");
        }
        assert_eq!(
            read_payload(&signed(b"\x00\x04bar", 6)),
            Err(PayloadError::Value(DecodeError {
                fault: Fault::Truncated { needed: 4, present: 3 },
                offset: 2
            }))
        );
        assert_eq!(
            read_payload(&signed(b"\x06\x00", 6)),
            Err(PayloadError::Value(DecodeError { fault: Fault::UnknownType(6), offset: 0 }))
        );
        assert!(matches!(read_payload(&signed(b"", 6)), Err(PayloadError::Value(_))));
    }

    proptest! {
        #[test]
        fn payloads_round_trip(value: Vec<u8>) {
            let mut payload = Vec::new();
            write_payload(&mut payload, string(&value));
            let decoded = read_payload(&payload).expect("just written");
            let string = decoded.string();
            prop_assert_eq!(string.as_deref(), Some(&value[..]));
        }

        #[test]
        fn no_payload_panics(value: Vec<u8>) {
            let _ = read_payload(&value);
            let _ = read_payload(&signed(&value, 6));
        }
    }
}
