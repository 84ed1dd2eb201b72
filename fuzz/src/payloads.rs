//! DUMP payloads: none panics, none takes more memory than it justifies, and what is read reads back the same when it
//! is written.
//!
//! Input: one byte of version, then a type byte and a value. Version and checksum are put behind it.

use ringraft_shards::keyspace::Value;
use ringraft_shards::rdb::checksum::crc64;
use ringraft_shards::rdb::{read_payload, write_payload};

/// Checks one input.
pub fn check(data: &[u8]) {
    // As it is: nearly always a wrong checksum.
    round_trip(data);
    let [version, value @ ..] = data else { return };
    round_trip(&signed(value, u16::from(*version) % 13));
}

fn round_trip(payload: &[u8]) {
    let Ok(decoded) = read_payload(payload) else { return };
    let Value::String(bytes) = decoded.borrow();
    // LZF's best is 264 bytes out of 3.
    assert!(bytes.len() <= 100 * payload.len().max(1), "{} from {}", bytes.len(), payload.len());
    let mut again = Vec::new();
    write_payload(&mut again, decoded.borrow());
    let read = read_payload(&again).expect("just written");
    assert_eq!(read.borrow(), decoded.borrow());
}

fn signed(value: &[u8], version: u16) -> Vec<u8> {
    let mut payload = value.to_vec();
    payload.extend_from_slice(&version.to_le_bytes());
    let checksum = crc64(&payload);
    payload.extend_from_slice(&checksum.to_le_bytes());
    payload
}

/// Strings in every encoding, whole and damaged.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut values: Vec<Vec<u8>> = vec![
        b"\x00\x03bar".to_vec(),
        b"\x00\x00".to_vec(),
        b"\x00\xc0\x0a".to_vec(),
        b"\x00\xc1\x0a\x01".to_vec(),
        b"\x00\xc2\x0a\x01\x00\x80".to_vec(),
        b"\x00\x40\x45".iter().copied().chain([b'x'; 69]).collect(),
        b"\x00\x80\x00\x00\x00\x02ab".to_vec(),
        b"\x00\x81\x00\x00\x00\x00\x00\x00\x00\x02ab".to_vec(),
        // LZF: one literal, then a run that copies it.
        b"\x00\xc3\x05\x0c\x00a\xe0\x02\x00".to_vec(),
        b"\x00\xc3\x0a\x40\x64\x01aa\xe0\x57\x00\x01aa".to_vec(),
        b"\x03\x00".to_vec(),
        b"\x01\x02\x01a\x01b".to_vec(),
        b"\x00\xc4".to_vec(),
    ];
    for length in [63, 64, 16383, 16384] {
        let mut payload = Vec::new();
        write_payload(&mut payload, Value::String(&vec![b'v'; length]));
        values.push(payload[..payload.len() - 10].to_vec());
    }
    values.into_iter().map(|value| [&[6][..], &value].concat()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_payloads() {
        let good = |seed: &Vec<u8>| read_payload(&signed(&seed[1..], 6)).is_ok();
        let count = seeds().iter().filter(|seed| good(seed)).count();
        assert!(count >= 13, "{count}");
    }
}
