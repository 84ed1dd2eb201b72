//! DUMP payloads: none panics, none takes more memory than it justifies, and what is read reads back the same when it
//! is written.
//!
//! Input: one byte of version, then a type byte and a value. Version and checksum are put behind it.

use ringraft_shards::ids::DatabaseIndex;
use ringraft_shards::keyspace::{Expiry, Key, KeyHasher, Keyspace, Value};
use ringraft_shards::rdb::checksum::crc64;
use ringraft_shards::rdb::{VERSION_VALKEY, read_payload, write_payload};

/// The type of streams of Redis 7.2.
const STREAM_7_2: u8 = 21;

/// Checks one input.
pub fn check(data: &[u8]) {
    // As it is: nearly always a wrong checksum.
    round_trip(data);
    let [version, value @ ..] = data else { return };
    // Those of Redis, and Valkey's.
    let version = u16::from(*version);
    round_trip(&signed(value, if version == VERSION_VALKEY { version } else { version % 13 }));
}

fn round_trip(payload: &[u8]) {
    let Ok(decoded) = read_payload(payload) else { return };
    let mut keyspace = Keyspace::new(KeyHasher::new(1));
    let keys = [b"one", b"two"].map(|key| Key::new(key, keyspace.hasher().hash(key)));
    let mut edit = keyspace.edit(DatabaseIndex(0), 1);
    if edit.restore(&keys[0], &decoded, Expiry::Never).is_err() {
        // A member came twice.
        assert!(edit.view().peek(&keys[0]).is_none());
        return;
    }
    let one = edit.view().peek(&keys[0]).expect("just restored");
    // LZF's best is 264 bytes out of 3, and a string of one byte may be an element of its own.
    assert!(one.size() <= 1000 * payload.len() + 1000, "{} from {}", one.size(), payload.len());
    let mut again = Vec::new();
    write_payload(&mut again, one.value());
    let read = read_payload(&again).expect("just written");
    edit.restore(&keys[1], &read, Expiry::Never).expect("just written");
    let view = edit.view();
    let [one, two] = keys.map(|key| view.peek(&key).expect("both are there"));
    // When a consumer was active is not written, as in Redis 7.0.
    if decoded.type_byte() != STREAM_7_2 {
        assert_eq!(view.digest_value(&one), view.digest_value(&two));
    }
    let mut twice = Vec::new();
    write_payload(&mut twice, two.value());
    assert!(twice == again, "what is read back is written as it was");
}

fn signed(value: &[u8], version: u16) -> Vec<u8> {
    let mut payload = value.to_vec();
    payload.extend_from_slice(&version.to_le_bytes());
    let checksum = crc64(&payload);
    payload.extend_from_slice(&checksum.to_le_bytes());
    payload
}

/// A stream with two groups, as Redis 5, 7.0 and 7.2 write it.
#[rustfmt::skip]
const STREAMS: [&str; 3] = [
    "0f011000000000000000010000000000000001404f4f0000001f0003010101020181660281670200010201000100018176020c010501030100010101817702c12c02050100010401dfff0201018168028178020601020104010601817902817a020501ff030507020367727000000200000000000000010000000000000001e8030000000000000300000000000000050000000000000007d007000000000000010202616c581b000000000000010000000000000001000000000000000102626f581b0000000000000100000000000000050000000000000007056f7468657205000000",
    "13011000000000000000010000000000000001404f4f0000001f0003010101020181660281670200010201000100018176020c010501030100010101817702c12c02050100010401dfff0201018168028178020601020104010601817902817a020501ff03050701010102040203677270000081ffffffffffffffff0200000000000000010000000000000001e8030000000000000300000000000000050000000000000007d007000000000000010202616c581b000000000000010000000000000001000000000000000102626f581b0000000000000100000000000000050000000000000007056f74686572050081ffffffffffffffff0000",
    "15011000000000000000010000000000000001404f4f0000001f0003010101020181660281670200010201000100018176020c010501030100010101817702c12c02050100010401dfff0201018168028178020601020104010601817902817a020501ff03050701010102040203677270000081ffffffffffffffff0200000000000000010000000000000001e8030000000000000300000000000000050000000000000007d007000000000000010202616c581b0000000000007017000000000000010000000000000001000000000000000102626f581b00000000000070170000000000000100000000000000050000000000000007056f74686572050081ffffffffffffffff0000",
];

fn bytes_of_hex(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2)
        .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hex"))
        .collect()
}

/// Values in every encoding, whole and damaged.
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
        b"\x02\x02\x01a\xc0\x05".to_vec(),
        b"\x03\x02\x01a\x031.5\x01b\xfe".to_vec(),
        b"\x04\x01\x01f\x01v".to_vec(),
        b"\x05\x01\x01a\0\0\0\0\0\0\xf0\x3f".to_vec(),
        b"\x09\x11\x02\x03foo\x03\0bar\x01a\x02\0bc\xff".to_vec(),
        b"\x0a\x13\x13\0\0\0\x10\0\0\0\x03\0\0\x01a\x03\xfe\x0c\x03\xf3\xff".to_vec(),
        b"\x0b\x0c\x02\0\0\0\x02\0\0\0\x01\0\x02\0".to_vec(),
        b"\x10\x12\x12\0\0\0\x04\0\x81f\x02\x81v\x02\x81n\x02\x0a\x01\xff".to_vec(),
        b"\x12\x02\x01\x05plain\x02\x0c\x0c\0\0\0\x02\0\x81a\x02\x05\x01\xff".to_vec(),
        b"\x14\x0c\x0c\0\0\0\x02\0\x81a\x02\x05\x01\xff".to_vec(),
        // Hashes with deadlines of fields, of Redis 7.4's candidates, of Redis 7.4, packed there.
        b"\x16\x02\x00\x01a\x01b\x05\x01c\x01d".to_vec(),
        b"\x18\x05\0\0\0\0\0\0\0\x02\x00\x01a\x01b\x05\x01c\x01d".to_vec(),
        b"\x19\x05\0\0\0\0\0\0\0\x10\x10\0\0\0\x03\0\x81a\x02\x81b\x02\x05\x01\xff".to_vec(),
        b"\x00\xc4".to_vec(),
    ];
    values.extend(STREAMS.map(bytes_of_hex));
    for length in [63, 64, 16383, 16384] {
        let mut payload = Vec::new();
        write_payload(&mut payload, Value::String(&vec![b'v'; length]));
        values.push(payload[..payload.len() - 10].to_vec());
    }
    let mut seeds: Vec<Vec<u8>> =
        values.into_iter().map(|value| [&[6][..], &value].concat()).collect();
    // As Valkey writes fields with deadlines.
    seeds.push(b"\x50\x16\x01\x01a\x01b\xff\xff\xff\xff\xff\xff\xff\xff".to_vec());
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_payloads() {
        let good = |seed: &Vec<u8>| read_payload(&signed(&seed[1..], 6)).is_ok();
        let count = seeds().iter().filter(|seed| good(seed)).count();
        assert!(count >= 29, "{count}");
    }

    #[test]
    fn streams_with_groups_are_among_the_seeds() {
        for seed in STREAMS.map(bytes_of_hex) {
            let payload = signed(&seed, 11);
            let decoded = read_payload(&payload).expect("a stream");
            let mut keyspace = Keyspace::new(KeyHasher::new(1));
            let key = Key::new(b"s", keyspace.hasher().hash(b"s"));
            let mut edit = keyspace.edit(DatabaseIndex(0), 1);
            edit.restore(&key, &decoded, Expiry::Never).expect("all come once");
            let view = edit.view();
            let Value::Stream(stream) = view.peek(&key).expect("just restored").value() else {
                panic!("it is a stream");
            };
            assert_eq!(stream.group_count(), 2);
            assert!(stream.groups().any(|(_, group)| group.pending_count() > 0));
        }
    }
}
