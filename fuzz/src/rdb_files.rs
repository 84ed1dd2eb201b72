//! RDB files: none panics or takes more memory than it justifies; a file that a survey finds good is read the same once more, its
//! items can be kept, and what is written of them is good again.
//!
//! Input: one byte of version, then opcodes and items. The header is put before it, the end without a checksum behind it.

use crate::payloads;
use ringraft_shards::ids::DatabaseIndex;
use ringraft_shards::keyspace::{Expiry, Key, KeyHasher, Keyspace};
use ringraft_shards::rdb::file::{Event, Flavor, RdbReader, RdbWriter, survey};
use ringraft_shards::rdb::write_plain;
use std::io::Write;

const VALKEY: u8 = 80;

/// The file of an input.
fn file(data: &[u8]) -> Option<Vec<u8>> {
    let (version, body) = data.split_first()?;
    let head = match *version {
        VALKEY => "VALKEY080".to_string(),
        version => format!("REDIS{:04}", version % 13),
    };
    Some([head.as_bytes(), body, &[0xff], &[0; 8]].concat())
}

/// Checks one input.
pub fn check(data: &[u8]) {
    let Some(file) = file(data) else { return };
    let Ok(found) = survey(&file[..], &mut |_| {}) else { return };
    let mut reader = RdbReader::open(&file[..], found.totals.clone()).expect("it was read before");
    let mut keyspace = Keyspace::new(KeyHasher::new(1));
    let mut writer = RdbWriter::new(Vec::new(), Flavor::RedisTimed, &[]).expect("memory takes it");
    let mut items = 0;
    loop {
        let event = reader.next(&mut |record, _| {
            items += 1;
            let key = Key::new(&record.key, keyspace.hasher().hash(&record.key));
            let mut edit = keyspace.edit(record.database, i64::MIN);
            if edit.restore(&key, &record.value, Expiry::Never).is_ok() {
                let item = edit.view().peek(&key).expect("just restored");
                let mut bytes = Vec::new();
                write_plain(&mut bytes, item.value());
                let (database, deadline) = (record.database, record.deadline);
                writer.item(database, deadline, &record.key, bytes[0], &mut |out| {
                    out.write_all(&bytes[1..])
                })?;
            }
            Ok(())
        });
        match event.expect("it was read before") {
            Event::End => break,
            Event::Library(library) => writer.library(&library.text).expect("memory takes it"),
            Event::Item | Event::Module(_) => {}
        }
    }
    assert_eq!(items, found.items);
    let written = writer.items();
    let again = writer.finish().expect("memory takes it");
    assert_eq!(survey(&again[..], &mut |_| {}).expect("just written").items, written);
    assert!(keyspace.count(DatabaseIndex(0)) <= items);
}

/// Files with a value in every encoding, and with what stands beside values.
pub fn seeds() -> Vec<Vec<u8>> {
    let of_payload = |seed: Vec<u8>| {
        let [version, type_byte, value @ ..] = &seed[..] else { unreachable!("a payload") };
        [&[*version, *type_byte, 1, b'k'], value].concat()
    };
    let mut seeds: Vec<Vec<u8>> = payloads::seeds().into_iter().map(of_payload).collect();
    for body in [
        &b"\x0c\xfa\x03ver\x01x\xfe\x03\xfb\x02\x01\xfc\x01\0\0\0\0\0\0\0\xf8\x07\x00\x01k\x01v"[..],
        b"\x0c\xfd\x01\0\0\0\xf9\x07\x02\x01k\x01\x01m\xf4\x01\x02\x03",
        b"\x0c\xf5\x10#!lua name=mylib",
        b"\x0c\xf7\x81\x44\x44\x44\x44\x44\x44\x44\x44\x02\x02\x05\x01x\x03\0\0\0\0\x00",
        b"\x0c\x07\x01k\x81\x44\x44\x44\x44\x44\x44\x44\x44",
    ] {
        seeds.push(body.to_vec());
    }
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringraft_shards::keyspace::Value;

    #[test]
    fn streams_with_groups_are_among_the_seeds() {
        let mut groups = Vec::new();
        let mut keyspace = Keyspace::new(KeyHasher::new(1));
        for file in seeds().iter().filter_map(|seed| file(seed)) {
            let Ok(found) = survey(&file[..], &mut |_| {}) else { continue };
            let mut reader = RdbReader::open(&file[..], found.totals).expect("it was read before");
            let event = reader.next(&mut |record, _| {
                let key = Key::new(&record.key, keyspace.hasher().hash(&record.key));
                let mut edit = keyspace.edit(record.database, i64::MIN);
                edit.remove(&key);
                edit.restore(&key, &record.value, Expiry::Never).expect("all come once");
                if let Some(Value::Stream(stream)) = edit.view().peek(&key).map(|item| item.value())
                {
                    assert!(stream.groups().any(|(_, group)| group.pending_count() > 0));
                    groups.push(stream.group_count());
                }
                Ok(())
            });
            event.expect("it was read before");
        }
        assert_eq!(groups, [2, 2, 2]);
    }
}
