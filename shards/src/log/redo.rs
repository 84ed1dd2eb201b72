//! What the journals of a node hold is written to its places, at start, before any log is read.
//!
//! Every valid frame is done, whichever others are missing: what it repeats was handed out as one
//! write, and each log judges by itself what it finds. A frame that was durable once and cannot be
//! read is a loss, and refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::RecoverError;
use super::files::segment_file_name;
use super::format::{HEADER_BYTES, SegmentHeader, u32_at, u64_at};
use super::journal::{
    Frame, JOURNAL_BLOCK_BYTES, JOURNAL_HEADER_BYTES, JOURNAL_MAGIC, JOURNAL_VERSION,
    JournalHeader, Piece, empty, journal_file_name, read_frame,
};
use super::run::RECORD_ALIGNMENT;
use crate::disk::{Disk, DiskResult};
use crate::ids::{ClusterId, NodeId, ShardId};
use crate::limits::REDO_WRITE_BYTES_MAX;
use crate::random::Random;

/// What the journals held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redone {
    /// Files.
    pub files: usize,
    /// Frames in them.
    pub frames: u64,
    /// Records that belong to segments in use.
    pub records: u64,
}

/// Opens the log's directory of a shard; `None` when the shard is not there.
pub type LogDisks<'a> = dyn FnMut(ShardId) -> DiskResult<Option<Arc<dyn Disk>>> + 'a;

/// Writes what the journals in a directory hold to the segments that it belongs to, and empties the
/// journals: their files stay, because on a full disk the logs would take their room. Those of
/// cores that are no more, from `cores` on, are removed. Draw `seed` anew for every start. Being
/// interrupted and done again is fine. Errors: a journal is damaged or of another node. Nothing was
/// changed then.
pub fn redo(
    journals: &dyn Disk,
    (cluster, node): (ClusterId, NodeId),
    cores: u16,
    seed: u64,
    logs: &mut LogDisks<'_>,
) -> Result<Redone, RecoverError> {
    let mut files = Vec::new();
    let mut rubbish = Vec::new();
    for file in journals.list()? {
        if file.name.ends_with(".journal") {
            files.push(read(journals, &file.name, file.bytes, cluster, node)?);
        } else if file.name.ends_with(".journal.new") {
            rubbish.push(file.name);
        }
    }
    check(journals, &files)?;
    let mut redone = Redone { files: files.len(), ..Redone::default() };
    let mut segments: BTreeMap<(ShardId, u64), Vec<Piece<'_>>> = BTreeMap::new();
    for file in &files {
        for (at, _) in &file.frames {
            let frame = read_frame(&file.bytes[*at..], file.salt).expect("read before");
            redone.frames += 1;
            for piece in frame.pieces() {
                let piece = piece.expect("checked before");
                segments.entry((piece.shard, piece.sequence)).or_default().push(piece);
            }
        }
    }
    for ((shard, sequence), mut pieces) in segments {
        let Some((disk, header)) = find(logs(shard)?, sequence)? else { continue };
        let end = |piece: &Piece<'_>| piece.offset.saturating_add(piece.record.len() as u64);
        pieces.retain(|piece| piece.salt() == header.salt && end(piece) <= header.segment_bytes);
        redone.records += pieces.len() as u64;
        write(&*disk, &segment_file_name(sequence), pieces)?;
    }
    let mut chance = Random::new(seed);
    for JournalFile { name, bytes, .. } in files {
        let header =
            JournalHeader { cluster, node, salt: chance.bits(), bytes: bytes.len() as u64 };
        // Also one that is removed next: a name may come back.
        empty(journals, &name, &header)?;
        let is_in_use = |core| (0..2).any(|place| journal_file_name(core, place) == name);
        if !(0..cores).any(is_in_use) {
            rubbish.push(name);
        }
    }
    for name in rubbish {
        journals.remove(&name)?;
    }
    journals.sync_directory()?;
    Ok(redone)
}

/// A journal file in memory.
struct JournalFile {
    name: String,
    salt: u64,
    bytes: Vec<u8>,
    /// Where its valid frames are, and their numbers.
    frames: Vec<(usize, u64)>,
    /// What frames say of this and of other files: by salt, how many of the first frames are
    /// durable, and which frame says so.
    durable: Vec<(u64, u64, u64)>,
}

fn read(
    journals: &dyn Disk,
    name: &str,
    size: u64,
    cluster: ClusterId,
    node: NodeId,
) -> Result<JournalFile, RecoverError> {
    let path = format!("{}/{name}", journals.place());
    let mut bytes = vec![0; size as usize];
    journals.read_at(name, 0, &mut bytes)?;
    if bytes.len() < JOURNAL_BLOCK_BYTES || bytes[0..8] != JOURNAL_MAGIC {
        return Err(RecoverError::NotAJournal { file: path });
    }
    let version = u32_at(&bytes, 8);
    if version != JOURNAL_VERSION {
        return Err(RecoverError::Version {
            file: path,
            found: version,
            expected: JOURNAL_VERSION,
        });
    }
    let crc = crc32fast::hash(&bytes[..JOURNAL_HEADER_BYTES - 4]);
    if crc != u32_at(&bytes, JOURNAL_HEADER_BYTES - 4) || u64_at(&bytes, 48) != size {
        let found = "the header's checksum or size does not fit".into();
        return Err(RecoverError::HeaderDamaged { file: path, found });
    }
    let found = u128::from(u64_at(&bytes, 16)) | u128::from(u64_at(&bytes, 24)) << 64;
    let rows = [
        ("cluster", ClusterId(found).to_string(), cluster.to_string()),
        ("node", u64_at(&bytes, 32).to_string(), node.0.to_string()),
    ];
    for (what, found, expected) in rows {
        if found != expected {
            return Err(RecoverError::Foreign { file: path, what, found, expected });
        }
    }
    let salt = u64_at(&bytes, 40);
    let (mut frames, mut durable) = (Vec::new(), Vec::new());
    let mut at = JOURNAL_BLOCK_BYTES;
    while at < bytes.len() {
        let Some(frame) = read_frame(&bytes[at..], salt) else {
            at += JOURNAL_BLOCK_BYTES;
            continue;
        };
        if frame.pieces().any(|piece| piece.is_none()) {
            let found = "a record in a frame".to_string();
            return Err(RecoverError::Nonsense { file: path, offset: at as u64, found });
        }
        let Frame { number, before_salt, before_durable, .. } = frame;
        frames.push((at, number));
        durable.push((salt, frame.durable, number));
        durable.push((before_salt, before_durable, number));
        at += frame.padded;
    }
    Ok(JournalFile { name: name.to_string(), salt, bytes, frames, durable })
}

/// Refuses the journals when a frame is missing that was durable once.
fn check(journals: &dyn Disk, files: &[JournalFile]) -> Result<(), RecoverError> {
    for file in files {
        let said = files.iter().flat_map(|other| &other.durable);
        let of_this = said.filter(|(salt, ..)| *salt == file.salt);
        let Some((_, durable, witness)) = of_this.max_by_key(|(_, durable, _)| *durable) else {
            continue;
        };
        let whole = file.frames.iter().zip(1..).take_while(|((_, n), expected)| n == expected);
        let (count, end) = whole.fold((0, JOURNAL_BLOCK_BYTES), |_, ((at, number), _)| {
            let frame = read_frame(&file.bytes[*at..], file.salt).expect("read before");
            (*number, at + frame.padded)
        });
        if count < *durable {
            return Err(RecoverError::Damaged {
                file: format!("{}/{}", journals.place(), file.name),
                offset: end as u64,
                found: "no valid frame",
                number: count + 1,
                witness: *witness,
            });
        }
    }
    Ok(())
}

/// Writes records of a segment to their places, those of a run in one piece, and syncs it.
fn write(disk: &dyn Disk, name: &str, mut pieces: Vec<Piece<'_>>) -> DiskResult<()> {
    if pieces.is_empty() {
        return Ok(());
    }
    pieces.sort_by_key(|piece| piece.offset);
    let (mut start, mut bytes) = (0, Vec::new());
    for piece in pieces {
        let padded = bytes.len().next_multiple_of(RECORD_ALIGNMENT);
        // What lies between records of different runs may be a record that no journal has.
        if piece.offset == start + padded as u64 && padded <= REDO_WRITE_BYTES_MAX {
            bytes.resize(padded, 0);
        } else {
            if !bytes.is_empty() {
                disk.write_at(name, start, &bytes)?;
            }
            (start, bytes) = (piece.offset, Vec::new());
        }
        bytes.extend_from_slice(piece.record);
    }
    disk.write_at(name, start, &bytes)?;
    disk.sync(name)
}

/// A segment in use: its log's disk, and its header.
type Segment = (Arc<dyn Disk>, SegmentHeader);

/// A segment with a readable header. What else lies there is for the log's own recovery to judge.
fn find(disk: Option<Arc<dyn Disk>>, sequence: u64) -> DiskResult<Option<Segment>> {
    let Some(disk) = disk else { return Ok(None) };
    let name = segment_file_name(sequence);
    let there =
        |file: &crate::disk::FileInfo| file.name == name && file.bytes >= HEADER_BYTES as u64;
    if !disk.list()?.iter().any(there) {
        return Ok(None);
    }
    let mut bytes = [0; HEADER_BYTES];
    disk.read_at(&name, 0, &mut bytes)?;
    Ok(SegmentHeader::decode(&bytes).ok().map(|header| (disk, header)))
}
