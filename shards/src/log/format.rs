//! Bytes of a segment: header, records, parts. `docs/formats.md` shows them with an example.
//!
//! A segment is a header block and then records, each from the start of a block on, padded with
//! zeros to the next. A record is what one write wrote: it is valid as a whole or not at all. All
//! numbers are little endian.

use super::{AlignedBuffer, LogIdentity};
use crate::ids::{ClusterId, NodeId, ShardId};

/// First bytes of every segment.
pub const MAGIC: [u8; 8] = *b"RINGRLOG";
/// Version of the format that this program writes. It reads this one only.
pub const FORMAT_VERSION: u32 = 1;
/// Bytes of a segment header that carry something; zeros fill its block.
pub const HEADER_BYTES: usize = 72;
/// Bytes of a record before its parts.
pub const RECORD_HEADER_BYTES: usize = 64;
/// Bytes of a part before its payload.
pub const PART_HEADER_BYTES: usize = 8;
/// Bytes of an entry part's payload before the entry's data.
pub const ENTRY_HEADER_BYTES: usize = 24;
/// No index, term or count of records gets this large (a million a second take 146,000 years).
/// Greater ones make no sense, and refusing them keeps every sum from overflowing.
pub(super) const NUMBER_MAX: u64 = 1 << 62;
/// Payload of a state part.
pub(super) const STATE_BYTES: usize = 40;

/// raft-rs' entry types are 0, 1 and 2.
const ENTRY_TYPE_MAX: u8 = 2;

const KIND_STATE: u8 = 1;
const KIND_ENTRY: u8 = 2;
const KIND_RESET: u8 = 3;
const KIND_FOUNDING: u8 = 4;

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Whose log it belongs to.
    pub identity: LogIdentity,
    /// Position in the chain of segments; never used twice.
    pub sequence: u64,
    /// Random bits that every live record of the segment repeats. What is left from an earlier use
    /// of the file has other bits, and a client, who does not know them, cannot put a record
    /// into a value.
    pub salt: u64,
    /// Records begin at multiples of this.
    pub block_bytes: u32,
    /// Size of the file.
    pub segment_bytes: u64,
}

/// Why a header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// It does not begin with [`MAGIC`].
    Magic,
    /// Another version of the format.
    Version(u32),
    /// The checksum does not fit, or a size makes no sense.
    Damaged,
}

impl SegmentHeader {
    /// The bytes, without the zeros that fill the block.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.block_bytes.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.identity.cluster.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.identity.node.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.salt.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.segment_bytes.to_le_bytes());
        bytes[64..66].copy_from_slice(&self.identity.shard.0.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..68]);
        bytes[68..72].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header from the first [`HEADER_BYTES`] of a segment.
    pub fn decode(bytes: &[u8]) -> Result<SegmentHeader, HeaderFault> {
        if bytes.len() < HEADER_BYTES || bytes[0..8] != MAGIC {
            return Err(HeaderFault::Magic);
        }
        // The version first: what another one means by the rest is not known here.
        let version = u32_at(bytes, 8);
        if version != FORMAT_VERSION {
            return Err(HeaderFault::Version(version));
        }
        let block_bytes = u32_at(bytes, 12);
        if crc32fast::hash(&bytes[..68]) != u32_at(bytes, 68)
            || !(512..=65536).contains(&block_bytes)
            || !block_bytes.is_power_of_two()
        {
            return Err(HeaderFault::Damaged);
        }
        Ok(SegmentHeader {
            identity: LogIdentity {
                cluster: ClusterId(u128::from_le_bytes(array(bytes, 16))),
                node: NodeId(u64_at(bytes, 32)),
                shard: ShardId(u16::from_le_bytes(array(bytes, 64))),
            },
            sequence: u64_at(bytes, 40),
            salt: u64_at(bytes, 48),
            block_bytes,
            segment_bytes: u64_at(bytes, 56),
        })
    }
}

/// What stands before the parts of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordHeader {
    /// Salt of the segment.
    pub salt: u64,
    /// Position in the shard's chain of records, which counts on across segments.
    pub number: u64,
    /// Every record up to this number was durable when this one was built. Only that proves that
    /// an earlier record which cannot be read now is damaged and not merely torn.
    pub synced: u64,
    /// Commit index known when it was built; it may be greater than the last index in the log.
    pub commit: u64,
    /// Index of the entry before the first one that begins here; 0 when none begins here.
    pub previous_index: u64,
    /// Term of that entry.
    pub previous_term: u64,
    /// Count of parts.
    pub parts: u32,
}

/// Completes a record that begins with [`RECORD_HEADER_BYTES`] placeholder bytes: fills in header
/// and checksum.
pub(super) fn seal_record(record: &mut [u8], header: &RecordHeader) {
    let length = u32::try_from(record.len()).expect("a record is bounded far below 4 GiB");
    record[4..8].copy_from_slice(&length.to_le_bytes());
    for (at, number) in [
        (8, header.salt),
        (16, header.number),
        (24, header.synced),
        (32, header.commit),
        (40, header.previous_index),
        (48, header.previous_term),
    ] {
        record[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
    record[56..60].copy_from_slice(&header.parts.to_le_bytes());
    record[60..64].fill(0);
    let crc = crc32fast::hash(&record[4..]);
    record[0..4].copy_from_slice(&crc.to_le_bytes());
}

/// Why there is no valid record at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordFault {
    /// The salt is not the segment's: zeros, or what is left from an earlier use of the file.
    NotLive,
    /// It begins like a live record but its length or checksum does not fit.
    Damaged,
}

/// Reads the record at the start of `bytes`, which reach to the end of the segment. Returns its
/// header and its parts; the record takes [`RECORD_HEADER_BYTES`] + parts.len() bytes, padded to a
/// block.
pub fn read_record(bytes: &[u8], salt: u64) -> Result<(RecordHeader, &[u8]), RecordFault> {
    if bytes.len() < RECORD_HEADER_BYTES || u64_at(bytes, 8) != salt {
        return Err(RecordFault::NotLive);
    }
    let length = u32_at(bytes, 4) as usize;
    if length < RECORD_HEADER_BYTES || length > bytes.len() {
        return Err(RecordFault::Damaged);
    }
    if crc32fast::hash(&bytes[4..length]) != u32_at(bytes, 0) {
        return Err(RecordFault::Damaged);
    }
    let header = RecordHeader {
        salt,
        number: u64_at(bytes, 16),
        synced: u64_at(bytes, 24),
        commit: u64_at(bytes, 32),
        previous_index: u64_at(bytes, 40),
        previous_term: u64_at(bytes, 48),
        parts: u32_at(bytes, 56),
    };
    Ok((header, &bytes[RECORD_HEADER_BYTES..length]))
}

/// Length that a record header claims.
pub(super) fn record_length(header: &[u8; RECORD_HEADER_BYTES]) -> u32 {
    u32_at(header, 4)
}

/// Term, vote and commit index, and the last entry at that point of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatePart {
    /// Current term.
    pub term: u64,
    /// Who has this node's vote in that term; 0 for nobody.
    pub vote: u64,
    /// Highest index known to be committed.
    pub commit: u64,
    /// Index of the last entry in the log before this part.
    pub last_index: u64,
    /// Its term.
    pub last_term: u64,
}

/// A piece of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// Raft's hard state.
    State(StatePart),
    /// An entry, or a fragment of a large one. An index that is there already replaces it and drops
    /// all later ones.
    Entry {
        /// raft-rs' entry type.
        entry_type: u8,
        /// Term of the entry.
        term: u64,
        /// Index of the entry.
        index: u64,
        /// Bytes of the whole entry's data.
        total: u32,
        /// Where in the entry's data this fragment begins; 0 for the first or only one.
        offset: u32,
        /// The data, or this fragment of it.
        data: &'a [u8],
    },
    /// A snapshot at this index took the place of the whole log before.
    Reset {
        /// Index of the last entry in the snapshot.
        index: u64,
        /// Its term.
        term: u64,
    },
    /// The group was founded with these members; the log begins after index 1, term 1.
    Founding {
        /// Identities as 8 bytes each.
        voters: &'a [u8],
        /// Identities as 8 bytes each.
        learners: &'a [u8],
    },
}

/// Appends parts to a record under construction.
pub(super) struct PartWriter<'a> {
    /// Receives the bytes.
    pub(super) buffer: &'a mut AlignedBuffer,
    /// Parts written.
    pub(super) count: u32,
}

impl PartWriter<'_> {
    /// Appends Raft's hard state.
    pub(super) fn state(&mut self, state: &StatePart) {
        self.head(KIND_STATE, 0, STATE_BYTES);
        for number in [state.term, state.vote, state.commit, state.last_index, state.last_term] {
            self.buffer.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// Appends the fragment of `data` from `offset` on that is `length` long. Cost: one copy.
    #[inline]
    pub(super) fn entry(
        &mut self,
        entry_type: u8,
        term: u64,
        index: u64,
        data: &[u8],
        offset: usize,
        length: usize,
    ) {
        self.head(KIND_ENTRY, entry_type, ENTRY_HEADER_BYTES + length);
        let mut head = [0; ENTRY_HEADER_BYTES];
        head[0..8].copy_from_slice(&term.to_le_bytes());
        head[8..16].copy_from_slice(&index.to_le_bytes());
        let total = u32::try_from(data.len()).expect("an entry is below 4 GiB, as a batch is");
        head[16..20].copy_from_slice(&total.to_le_bytes());
        head[20..24].copy_from_slice(&(offset as u32).to_le_bytes());
        self.buffer.extend_from_slice(&head);
        self.buffer.extend_from_slice(&data[offset..offset + length]);
    }

    /// Appends the mark that a snapshot took the place of the log.
    pub(super) fn reset(&mut self, index: u64, term: u64) {
        self.head(KIND_RESET, 0, 16);
        self.buffer.extend_from_slice(&index.to_le_bytes());
        self.buffer.extend_from_slice(&term.to_le_bytes());
    }

    /// Appends the founding members.
    pub(super) fn founding(&mut self, voters: &[NodeId], learners: &[NodeId]) {
        self.head(KIND_FOUNDING, 0, 8 + 8 * (voters.len() + learners.len()));
        self.buffer.extend_from_slice(&(voters.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(&(learners.len() as u32).to_le_bytes());
        for id in voters.iter().chain(learners) {
            self.buffer.extend_from_slice(&id.0.to_le_bytes());
        }
    }

    fn head(&mut self, kind: u8, entry_type: u8, length: usize) {
        let mut head = [kind, entry_type, 0, 0, 0, 0, 0, 0];
        head[4..8].copy_from_slice(&(length as u32).to_le_bytes());
        self.buffer.extend_from_slice(&head);
        self.count += 1;
    }
}

/// Takes the first part off `bytes`. `None` when they make no sense, which a checksum that fits
/// rules out for records of this version.
pub fn read_part<'a>(bytes: &mut &'a [u8]) -> Option<Part<'a>> {
    let head = bytes.get(..PART_HEADER_BYTES)?;
    let length = u32_at(head, 4) as usize;
    let payload = bytes.get(PART_HEADER_BYTES..)?.get(..length)?;
    *bytes = &bytes[PART_HEADER_BYTES + length..];
    let number = |at| Some(u64_at(payload, at)).filter(|number| *number <= NUMBER_MAX);
    match head[0] {
        KIND_STATE if length == STATE_BYTES => Some(Part::State(StatePart {
            term: number(0)?,
            vote: u64_at(payload, 8),
            commit: number(16)?,
            last_index: number(24)?,
            last_term: number(32)?,
        })),
        KIND_ENTRY if length >= ENTRY_HEADER_BYTES && head[1] <= ENTRY_TYPE_MAX => {
            let (total, offset) = (u32_at(payload, 16), u32_at(payload, 20));
            let data = &payload[ENTRY_HEADER_BYTES..];
            let fits = offset as usize + data.len() <= total as usize;
            let (term, index) = (number(0)?, number(8)?);
            fits.then_some(Part::Entry { entry_type: head[1], term, index, total, offset, data })
        }
        KIND_RESET if length == 16 => Some(Part::Reset { index: number(0)?, term: number(8)? }),
        KIND_FOUNDING if length >= 8 => {
            let voters = u32_at(payload, 0) as usize;
            let learners = u32_at(payload, 4) as usize;
            let ids = &payload[8..];
            if ids.len() != (voters + learners) * 8 {
                return None;
            }
            let (voters, learners) = ids.split_at(voters * 8);
            Some(Part::Founding { voters, learners })
        }
        _ => None,
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice has the array's length")
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            identity: LogIdentity { cluster: ClusterId(9), node: NodeId(3), shard: ShardId(2) },
            sequence: 5,
            salt: 77,
            block_bytes: 512,
            segment_bytes: 65536,
        }
    }

    #[test]
    fn a_header_reads_back_and_any_flipped_bit_is_seen() {
        let bytes = header().encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header()));
        for bit in 0..HEADER_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&flipped).is_err(), "bit {bit}");
        }
        let mut newer = bytes;
        newer[8] = 2;
        assert_eq!(SegmentHeader::decode(&newer), Err(HeaderFault::Version(2)));
        assert_eq!(SegmentHeader::decode(&bytes[..71]), Err(HeaderFault::Magic));
    }

    #[test]
    fn a_record_reads_back_and_any_flipped_bit_is_seen() {
        let mut buffer = AlignedBuffer::with_capacity(512);
        buffer.extend_from_slice(&[0; RECORD_HEADER_BYTES]);
        let state = StatePart { term: 3, vote: 1, commit: 9, last_index: 11, last_term: 2 };
        let mut writer = PartWriter { buffer: &mut buffer, count: 0 };
        writer.state(&state);
        writer.entry(2, 3, 12, b"some data", 5, 4);
        writer.reset(100, 4);
        writer.founding(&[NodeId(1), NodeId(2)], &[NodeId(3)]);
        let parts = writer.count;
        let head =
            RecordHeader { salt: 77, number: 8, synced: 6, commit: 9, parts, ..Default::default() };
        seal_record(buffer.as_mut_slice(), &head);

        let (read, mut parts) = read_record(buffer.as_slice(), 77).expect("valid");
        assert_eq!(read, head);
        assert_eq!(read_part(&mut parts), Some(Part::State(state)));
        let data = b"data".as_slice();
        let entry = Part::Entry { entry_type: 2, term: 3, index: 12, total: 9, offset: 5, data };
        assert_eq!(read_part(&mut parts), Some(entry));
        assert_eq!(read_part(&mut parts), Some(Part::Reset { index: 100, term: 4 }));
        let Some(Part::Founding { voters, learners }) = read_part(&mut parts) else {
            panic!("founding");
        };
        assert_eq!((voters.len(), u64_at(learners, 0)), (16, 3));
        assert!(parts.is_empty());
        assert_eq!(read_part(&mut parts), None);

        assert_eq!(read_record(buffer.as_slice(), 78), Err(RecordFault::NotLive));
        for bit in 0..buffer.as_slice().len() * 8 {
            let mut flipped = buffer.as_slice().to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read_record(&flipped, 77).is_err(), "bit {bit}");
        }
    }
}
