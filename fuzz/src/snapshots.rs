//! Snapshot files: a reader never panics, holds no more than the file justifies, and what it accepts is accepted again
//! when it is written anew, with the same items and the same ledger of transactions.
//!
//! Input: pieces of a file, each a kind byte, a length (2 bytes) and bytes. The target puts them one after the other and
//! gives headers, chunks and the footer the checksums that they need.

use ringraft_shards::ids::{ClusterId, DatabaseIndex, Deadline, Index, NodeId, ShardId, Term};
use ringraft_shards::keyspace::{KeyHasher, Keyspace, Shape, StringForm};
use ringraft_shards::rdb::{EncodedValue, ItemRecord, Piece, write_record};
use ringraft_shards::snapshot::footer::Footer;
use ringraft_shards::snapshot::load::load;
use ringraft_shards::snapshot::{Header, Membership, SlotRange, SnapshotReader, SnapshotWriter};
use ringraft_shards::transaction::Ledger;

const RAW: u8 = 0;
const HEADER: u8 = 1;
const CHUNK: u8 = 2;
const FOOTER: u8 = 3;
const GOOD_HEADER: u8 = 4;
const LEDGER: u8 = 5;

/// What a file holds.
type Content = (Vec<ItemRecord<'static>>, Ledger);

/// Checks one input.
pub fn check(data: &[u8]) {
    read(data);
    read(&build(data));
}

fn read(file: &[u8]) {
    let Some((items, ledger)) = content_of(file) else { return };
    let reader = SnapshotReader::open(file, file.len() as u64);
    let mut reader = reader.expect("it was opened before");
    let hasher = KeyHasher::new(reader.header().key_hash_seed);
    let mut keyspace = Keyspace::new(hasher);
    let progress = load(&mut reader, &mut keyspace, &mut |_| {}).expect("it was good before");
    assert_eq!(progress.items, items.len() as u64);
    assert_eq!(*keyspace.ledger(), ledger);
    let mut writer = SnapshotWriter::new(reader.header().clone());
    writer.push_ledger(&ledger);
    for item in &items {
        writer.push_record(item);
    }
    let mut again = Vec::new();
    while let Some(chunk) = writer.take_chunk() {
        again.extend(chunk);
    }
    again.extend(writer.finish().0);
    assert_eq!(content_of(&again), Some((items, ledger)));
}

fn content_of(file: &[u8]) -> Option<Content> {
    let mut reader = SnapshotReader::open(file, file.len() as u64).ok()?;
    let header = reader.header().encode();
    assert_eq!(Header::decode(&header).ok().as_ref(), Some(reader.header()));
    let mut items = Vec::new();
    let mut bytes = 0;
    while let Some(mut chunk) = reader.read_chunk().ok()? {
        while let Some(item) = chunk.next_item().ok()? {
            bytes += item.key.len() + item.value.bytes().len();
            assert!(bytes <= 100 * file.len(), "{bytes} bytes from {}", file.len());
            items.push(item.into_owned());
        }
    }
    assert_eq!(reader.offset(), file.len() as u64);
    let ledger = reader.take_ledger();
    assert!(ledger.encode().len() <= file.len(), "a ledger takes its bytes from the file");
    Some((items, ledger))
}

fn build(mut data: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let (mut chunks, mut items) = (0, 0);
    while let [kind, low, high, rest @ ..] = data {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (piece, behind) = rest.split_at(length);
        data = behind;
        match kind % 6 {
            HEADER => {
                let mut header = header().encode();
                header.truncate(header.len() - 4);
                for (at, byte) in piece.iter().enumerate().take(header.len()) {
                    header[at] ^= byte;
                }
                header.extend_from_slice(piece.get(header.len()..).unwrap_or(&[]));
                let length = header.len() as u32 + 4;
                if piece.len() < 12 || header[12..16] == [0; 4] {
                    header[12..16].copy_from_slice(&length.to_le_bytes());
                }
                let crc = crc32fast::hash(&header);
                file.extend_from_slice(&header);
                file.extend_from_slice(&crc.to_le_bytes());
            }
            GOOD_HEADER => file.extend(header().encode()),
            CHUNK | LEDGER => {
                let is_ledger = kind % 6 == LEDGER;
                let (count, payload) = match is_ledger {
                    true => (&0, piece),
                    false => piece.split_first().unwrap_or((&0, &[])),
                };
                let mut head = [0; 16];
                head[..4].copy_from_slice(if is_ledger { b"LEDG" } else { b"ITEM" });
                head[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
                head[8..12].copy_from_slice(&u32::from(*count).to_le_bytes());
                head[12..16].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
                file.extend_from_slice(&head);
                file.extend_from_slice(&crc32fast::hash(&head).to_le_bytes());
                file.extend_from_slice(payload);
                (chunks, items) = (chunks + 1, items + u64::from(*count));
            }
            FOOTER => {
                let footer = Footer {
                    crc: crc32fast::hash(&file),
                    chunk_count: chunks,
                    item_count: items,
                    file_size: (file.len() + Footer::BYTES) as u64,
                };
                file.extend_from_slice(&footer.encode());
            }
            RAW.. => file.extend_from_slice(piece),
        }
    }
    file
}

fn header() -> Header {
    Header {
        slot_scheme: Default::default(),
        cluster: ClusterId(7),
        shard: ShardId(3),
        term: Term(7),
        index: Index(4711),
        slots: vec![SlotRange::all()],
        key_hash_seed: 42,
        created_ms: 1_700_000_000_000,
        leader_time_ms: 1_700_000_000_001,
        membership: Membership { voters: vec![NodeId(1), NodeId(2)], ..Membership::default() },
    }
}

fn piece(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("seeds are small");
    [&[kind], &length.to_le_bytes()[..], bytes].concat()
}

/// Files of none, one and some items, and damaged ones.
pub fn seeds() -> Vec<Vec<u8>> {
    let item = |n: u8| ItemRecord {
        database: DatabaseIndex(n % 3),
        deadline: n.is_multiple_of(2).then_some(Deadline(i64::from(n) << 34)),
        shape: Shape::String(
            [StringForm::Automatic, StringForm::Text, StringForm::Raw][usize::from(n % 3)],
        ),
        piece: Piece::Whole,
        key: vec![b'k', n].into(),
        value: EncodedValue::of_string(&match n {
            0 => b"12".to_vec(),
            1 => vec![b'v'; 300],
            _ => vec![n; usize::from(n)],
        }),
    };
    let mut seeds = Vec::new();
    for counts in [&[][..], &[1], &[7, 3]] {
        let mut seed = piece(GOOD_HEADER, b"");
        for count in counts {
            let mut payload = vec![*count];
            for n in 0..*count {
                write_record(&mut payload, &item(n));
            }
            seed.extend(piece(CHUNK, &payload));
        }
        seed.extend(piece(FOOTER, b""));
        seeds.push(seed);
    }
    seeds.push([piece(HEADER, &[0; 100]), piece(FOOTER, b"")].concat());
    seeds.push([piece(GOOD_HEADER, b""), piece(RAW, b"ITEM"), piece(FOOTER, b"")].concat());
    let lzf = b"\x01\x00\x02kk\xc3\x05\x0c\x00a\xe0\x02\x00";
    seeds.push([piece(GOOD_HEADER, b""), piece(CHUNK, lzf), piece(FOOTER, b"")].concat());
    // One prepared transaction and one committed: see `Ledger::encode`.
    let id = |n: u8| [&[n; 8][..], &[1; 8]].concat();
    let shards = [2, 0, 0, 0, 0, 0, 3, 0];
    let prepared = [&id(1)[..], &shards, &[0, 1, 0, 0, 0], &[9; 8], &[2, 0, 0, 0], b"ef"].concat();
    let one = [1, 0, 0, 0];
    let ledger = [&one[..], &prepared, &one, &id(2), &shards].concat();
    let mut seed = [piece(GOOD_HEADER, b""), piece(LEDGER, &ledger)].concat();
    let mut payload = vec![1];
    write_record(&mut payload, &item(2));
    seed.extend([piece(CHUNK, &payload), piece(FOOTER, b"")].concat());
    seeds.push(seed);
    let mut writer = SnapshotWriter::new(header());
    for n in 0..5 {
        writer.push_record(&item(n));
    }
    let mut file = Vec::new();
    while let Some(chunk) = writer.take_chunk() {
        file.extend(chunk);
    }
    file.extend(writer.finish().0);
    seeds.push(file);
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_snapshots() {
        let seeds = seeds();
        let count = |file: &[u8]| content_of(file).map(|(items, _)| items.len());
        let counts = [0, 1, 10].map(Some);
        for (seed, expected) in seeds.iter().zip(counts) {
            assert_eq!(count(&build(seed)), expected);
        }
        assert_eq!(count(&build(&seeds[3])), Some(0), "a header that is put together");
        assert!(content_of(&build(&seeds[5])).is_some(), "compressed");
        let (items, ledger) = content_of(&build(&seeds[6])).expect("a ledger before an item");
        assert_eq!((items.len(), ledger.prepared_count(), ledger.committed_count()), (1, 1, 1));
        let file = seeds.last().expect("the last is a file as it is");
        assert_eq!(count(file), Some(5));
    }
}
