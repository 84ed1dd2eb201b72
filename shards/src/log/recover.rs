//! Reading the log at start.
//!
//! Records are read in the order of their numbers. Where the chain breaks, everything behind the
//! break is searched for valid records. One of them that was built after the missing record was
//! durable proves a loss: the log is refused. Otherwise the break is the end: writes were in flight
//! when the node stopped, nobody was told of them, and what is left of them is wiped out so that it
//! cannot come back behind new records.

use std::collections::VecDeque;
use std::sync::Arc;

use raft::eraftpb::Entry;

use super::error::RecoverError;
use super::files::{FileKind, classify, segment_file_name};
use super::format::{
    FORMAT_VERSION, HEADER_BYTES, HeaderFault, RECORD_HEADER_BYTES, RecordFault, RecordHeader,
    SegmentHeader, read_record, u64_at,
};
use super::marks::read_one;
use super::replay::Replay;
use super::run::{RECORD_ALIGNMENT, places_behind};
use super::space::Space;
use super::write::{Log, Resume, Segment};
use super::{LogIdentity, LogOptions};
use crate::disk::Disk;
use crate::ids::{Index, NodeId};
use crate::limits::ZERO_FILL_CHUNK_BYTES;
use crate::random::{Random, mix};

/// The members that a group was founded with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Founding {
    /// Voters.
    pub voters: Vec<NodeId>,
    /// Learners.
    pub learners: Vec<NodeId>,
}

/// Where a log was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The segment.
    pub file: String,
    /// The log ends here.
    pub offset: u64,
    /// What was found there.
    pub found: &'static str,
    /// Bytes of records that began there or behind it in this segment, by their own heads, and
    /// were dropped.
    pub dropped_bytes: u64,
    /// Valid records among them, and in later segments, that nobody was told of.
    pub dropped_records: usize,
}

/// A log that was read, ready to be written on.
pub struct RecoveredLog {
    /// The writing side.
    pub log: Log,
    /// Term, vote, and the highest commit index that was recorded.
    pub term: u64,
    /// Who has this node's vote in that term; 0 for nobody.
    pub vote: u64,
    /// Highest commit index that was recorded, never above `last`.
    pub commit: u64,
    /// Index and term of the entry before the first one in the log; 0 and 0 when the log is empty.
    pub base: (u64, u64),
    /// Index and term of the last entry.
    pub last: (u64, u64),
    /// First index and term of each run of entries with one term, from `base` on.
    pub terms: Vec<(u64, u64)>,
    /// The entries behind the index that was asked for.
    pub entries: VecDeque<Entry>,
    /// The members at founding, when the log still reaches back to it.
    pub founding: Option<Founding>,
    /// Where the log was cut, when it did not end cleanly.
    pub cut: Option<Cut>,
    /// Count of records read.
    pub records: u64,
}

impl RecoveredLog {
    /// Has nothing ever been written?
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }
}

/// Reads the log in a directory, blocking. Entries up to `keep_after` (the snapshot's index) are
/// checked and not kept. `seed` gives new segments their salts: draw it anew for every start.
/// `progress` is told bytes read and in all. An empty directory gives an empty log.
pub fn recover(
    disk: Arc<dyn Disk>,
    options: LogOptions,
    keep_after: Index,
    seed: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<RecoveredLog, RecoverError> {
    options.check();
    let found = survey(&*disk, &options)?;
    let total = found.headers.iter().map(|header| header.segment_bytes).sum();
    let mut replay = Replay::new(keep_after.0);
    let mut reader = Reader { disk: &*disk, bytes: Vec::new(), loaded: None };
    let mut segments = Vec::new();
    let mut end = None;
    let mut done = 0;
    for (i, header) in found.headers.iter().enumerate() {
        let scan = reader.scan(header, &mut replay)?;
        done += header.segment_bytes;
        progress(done, total);
        let goes_on = match found.headers.get(i + 1) {
            Some(next) if scan.records > 0 && scan.bytes_behind == 0 => {
                match reader.first_record(next)? {
                    Some(first) => replay.next_record == Some(first.number),
                    // The spare, or damage in the first record: its own scan tells.
                    None => true,
                }
            }
            _ => false,
        };
        if scan.records > 0 {
            let first_record = replay.next_record.expect("records were read") - scan.records;
            segments.push((
                *header,
                Segment { first_record, last_index: scan.last_index },
                scan.end,
            ));
        }
        if !goes_on {
            end = Some((i, scan));
            break;
        }
    }
    replay.truncate_segments(&mut segments);
    let mut removed = Vec::new();
    let mut cut = None;
    if let Some((i, scan)) = end {
        let witnesses = reader.witnesses(&found.headers[i..], scan.end)?;
        cut = judge(&*disk, &found.headers[i], &scan, &witnesses, replay.next_record)?;
        let header = &found.headers[i];
        if scan.bytes_behind > 0 {
            wipe(&*disk, header, scan.end)?;
        }
        let spare_at = if scan.records > 0 { i + 1 } else { i };
        for (j, header) in found.headers.iter().enumerate().skip(spare_at) {
            let held_records = witnesses.iter().any(|witness| witness.sequence == header.sequence);
            if j > spare_at || (held_records && j > i) || !usable(header, &options) {
                removed.push(header.sequence);
            }
        }
    }
    // From the last one on: at no time may there be a gap.
    for sequence in removed.iter().rev() {
        disk.remove(&segment_file_name(*sequence))?;
        disk.sync_directory()?;
    }
    let last_live = segments.last().map(|(header, ..)| header.sequence);
    let spare = found.headers.iter().find(|header| {
        !removed.contains(&header.sequence) && last_live.is_none_or(|last| header.sequence > last)
    });
    let next_record = replay.next_record.unwrap_or(1);
    let space = Space::new(spare.copied(), found.free, Random::new(seed ^ mix(next_record)));
    Ok(finish(disk, options, replay, segments, space, cut))
}

/// What lies in the directory.
struct Found {
    headers: Vec<SegmentHeader>,
    free: Vec<String>,
}

/// Looks at all files and headers before anything is read or changed.
fn survey(disk: &dyn Disk, options: &LogOptions) -> Result<Found, RecoverError> {
    let mut segments = Vec::new();
    let mut free = Vec::new();
    let mut rubbish = Vec::new();
    for file in disk.list()? {
        match classify(&file.name) {
            Some(FileKind::Segment(sequence)) => segments.push((sequence, file)),
            Some(FileKind::Free) if file.bytes == options.segment_bytes => free.push(file.name),
            Some(FileKind::Free | FileKind::New) => rubbish.push(file.name),
            None => {}
        }
    }
    segments.sort_by_key(|(sequence, _)| *sequence);
    for pair in segments.windows(2) {
        if pair[0].0 + 1 != pair[1].0 {
            let missing = segment_file_name(pair[0].0 + 1);
            return Err(RecoverError::Missing { directory: disk.place(), missing });
        }
    }
    let mut headers = Vec::with_capacity(segments.len());
    for (sequence, file) in segments {
        let path = format!("{}/{}", disk.place(), file.name);
        if file.bytes < HEADER_BYTES as u64 {
            return Err(RecoverError::NotASegment { file: path });
        }
        let mut bytes = [0; HEADER_BYTES];
        disk.read_at(&file.name, 0, &mut bytes)?;
        let header = SegmentHeader::decode(&bytes).map_err(|fault| match fault {
            HeaderFault::Magic => RecoverError::NotASegment { file: path.clone() },
            HeaderFault::Version(found) => {
                RecoverError::Version { file: path.clone(), found, expected: FORMAT_VERSION }
            }
            HeaderFault::Damaged => RecoverError::HeaderDamaged {
                file: path.clone(),
                found: "the header's checksum does not fit".into(),
            },
        })?;
        check_identity(&path, &header.identity, &options.identity)?;
        if header.sequence != sequence {
            return Err(RecoverError::Renamed { file: path, found: header.sequence });
        }
        if header.segment_bytes != file.bytes {
            let found = format!("{} bytes long instead of {}", file.bytes, header.segment_bytes);
            return Err(RecoverError::HeaderDamaged { file: path, found });
        }
        headers.push(header);
    }
    for name in rubbish {
        disk.remove(&name)?;
    }
    Ok(Found { headers, free })
}

fn check_identity(
    path: &str,
    found: &LogIdentity,
    expected: &LogIdentity,
) -> Result<(), RecoverError> {
    let rows = [
        ("cluster", found.cluster.to_string(), expected.cluster.to_string()),
        ("node", found.node.0.to_string(), expected.node.0.to_string()),
        ("shard", found.shard.to_string(), expected.shard.to_string()),
    ];
    for (what, found, expected) in rows {
        if found != expected {
            return Err(RecoverError::Foreign { file: path.to_string(), what, found, expected });
        }
    }
    Ok(())
}

/// May the segment be the next one to be written?
fn usable(header: &SegmentHeader, options: &LogOptions) -> bool {
    header.block_bytes as usize == options.block_bytes
        && header.segment_bytes == options.segment_bytes
}

/// How far a segment's records go.
struct Scan {
    records: u64,
    /// Highest index of an entry that begins here.
    last_index: u64,
    /// Where they end.
    end: u64,
    /// Where the next one is missing, and what is there.
    missing_at: u64,
    found: &'static str,
    /// Bytes of what looks like live records from `end` on, as they claim.
    bytes_behind: u64,
}

/// A valid record behind a break.
struct Witness {
    sequence: u64,
    number: u64,
    synced: u64,
}

struct Reader<'a> {
    disk: &'a dyn Disk,
    /// The segment that was read last.
    bytes: Vec<u8>,
    loaded: Option<u64>,
}

impl Reader<'_> {
    fn load(&mut self, header: &SegmentHeader) -> Result<(), RecoverError> {
        if self.loaded != Some(header.sequence) {
            self.loaded = None;
            self.bytes.resize(header.segment_bytes as usize, 0);
            self.disk.read_at(&segment_file_name(header.sequence), 0, &mut self.bytes)?;
            self.loaded = Some(header.sequence);
        }
        Ok(())
    }

    /// Replays a segment's records as far as the chain goes.
    fn scan(&mut self, header: &SegmentHeader, replay: &mut Replay) -> Result<Scan, RecoverError> {
        self.load(header)?;
        let mut end = header.block_bytes as usize;
        let mut records = 0;
        let mut last_index = 0;
        let (missing_at, found) = loop {
            let places = places_behind(end as u64, header.block_bytes).map(|at| at as usize);
            let find = |at| find_record(&self.bytes, at, header.salt, replay.next_record);
            let (at, (record, parts)) = match (find(places[0]), find(places[1])) {
                (Ok(found), _) => (places[0], found),
                (_, Ok(found)) => (places[1], found),
                // What lies next to the last record is what is missing, if anything does.
                (Err(NO_RECORD), Err(found)) => break (places[1] as u64, found),
                (Err(found), _) => break (places[0] as u64, found),
            };
            let place = (header.sequence, at as u64);
            let begun = replay.record(&record, parts, place).map_err(|found| {
                let name = segment_file_name(header.sequence);
                let file = format!("{}/{name}", self.disk.place());
                RecoverError::Nonsense { file, offset: at as u64, found }
            })?;
            last_index = begun.unwrap_or(last_index);
            records += 1;
            end = at + RECORD_HEADER_BYTES + parts.len();
        };
        let [end, _] = places_behind(end as u64, header.block_bytes);
        let bytes_behind = record_places(end, &self.bytes)
            .filter(|at| u64_at(&self.bytes, at + 8) == header.salt)
            .map(|at| claimed_bytes(&self.bytes[at..]))
            .sum();
        Ok(Scan { records, last_index, end, missing_at, found, bytes_behind })
    }

    /// The record that the segment begins with, if it is valid.
    fn first_record(
        &mut self,
        header: &SegmentHeader,
    ) -> Result<Option<RecordHeader>, RecoverError> {
        let at = u64::from(header.block_bytes);
        let mut record = Vec::new();
        let parts = read_one(self.disk, header, at, &mut record)?;
        Ok(parts.map(|(record, _)| record))
    }

    /// All valid records from `from` of the first of these segments on.
    fn witnesses(
        &mut self,
        headers: &[SegmentHeader],
        from: u64,
    ) -> Result<Vec<Witness>, RecoverError> {
        let mut witnesses = Vec::new();
        for (i, header) in headers.iter().enumerate() {
            self.load(header)?;
            let start = if i == 0 { from } else { u64::from(header.block_bytes) };
            for at in record_places(start, &self.bytes) {
                if let Ok((record, _)) = read_record(&self.bytes[at..], header.salt) {
                    let RecordHeader { number, synced, .. } = record;
                    witnesses.push(Witness { sequence: header.sequence, number, synced });
                }
            }
        }
        Ok(witnesses)
    }
}

const NO_RECORD: &str = "no record";

/// The record at a place of a segment, which must have this number; else what is there instead.
fn find_record(
    segment: &[u8],
    at: usize,
    salt: u64,
    number: Option<u64>,
) -> Result<(RecordHeader, &[u8]), &'static str> {
    if at >= segment.len() {
        return Err("the end of the file");
    }
    match read_record(&segment[at..], salt) {
        Ok((record, _)) if number.is_some_and(|number| number != record.number) => {
            Err("a record with another number")
        }
        Ok(found) => Ok(found),
        Err(RecordFault::NotLive) => Err(NO_RECORD),
        Err(RecordFault::Damaged) => Err("a record whose checksum does not fit"),
    }
}

/// Where records may begin from `from` on.
fn record_places(from: u64, segment: &[u8]) -> impl Iterator<Item = usize> + use<> {
    (from as usize..segment.len().saturating_sub(RECORD_HEADER_BYTES - 1)).step_by(RECORD_ALIGNMENT)
}

/// Bytes that a record takes by its own head, which may be damaged: those of the head at least, and
/// no more than there are.
fn claimed_bytes(bytes: &[u8]) -> u64 {
    let claimed = bytes.first_chunk().map_or(0, super::format::record_length) as usize;
    claimed.clamp(RECORD_HEADER_BYTES, bytes.len()) as u64
}

/// Decides whether the break at the end of a scan is the end of the log or a loss.
fn judge(
    disk: &dyn Disk,
    header: &SegmentHeader,
    scan: &Scan,
    witnesses: &[Witness],
    next_record: Option<u64>,
) -> Result<Option<Cut>, RecoverError> {
    let file = format!("{}/{}", disk.place(), segment_file_name(header.sequence));
    let first_behind = witnesses.iter().map(|witness| witness.number).min();
    // When not one record could be read, the missing one is at least the one before the first that
    // can.
    let missing = next_record.or(first_behind.map(|number| number.saturating_sub(1))).unwrap_or(1);
    let strongest = witnesses.iter().max_by_key(|witness| witness.synced);
    if let Some(witness) = strongest.filter(|witness| witness.synced >= missing) {
        return Err(RecoverError::Damaged {
            file,
            offset: scan.missing_at,
            found: scan.found,
            number: missing,
            witness: witness.number,
        });
    }
    let dropped_records = witnesses.len();
    let dropped_bytes = scan.bytes_behind;
    let clean = dropped_records == 0 && dropped_bytes == 0;
    let offset = scan.missing_at;
    let cut = Cut { file, offset, found: scan.found, dropped_bytes, dropped_records };
    Ok((!clean).then_some(cut))
}

/// Overwrites a segment with zeros from `from` on, durably.
fn wipe(disk: &dyn Disk, header: &SegmentHeader, from: u64) -> Result<(), RecoverError> {
    let name = segment_file_name(header.sequence);
    let zeros = vec![0; ZERO_FILL_CHUNK_BYTES.min((header.segment_bytes - from) as usize)];
    let mut at = from;
    while at < header.segment_bytes {
        let length = zeros.len().min((header.segment_bytes - at) as usize);
        disk.write_at(&name, at, &zeros[..length])?;
        at += length as u64;
    }
    disk.sync(&name)?;
    Ok(())
}

fn finish(
    disk: Arc<dyn Disk>,
    options: LogOptions,
    replay: Replay,
    segments: Vec<(SegmentHeader, Segment, u64)>,
    space: Space,
    cut: Option<Cut>,
) -> RecoveredLog {
    let offset = match segments.last() {
        // Written with another block size: leave it as it is. Another size of segments is no reason
        // to make a new one, for which there may be no room.
        Some((header, ..)) if header.block_bytes as usize != options.block_bytes => {
            header.segment_bytes
        }
        Some((header, _, end)) => end.next_multiple_of(u64::from(header.block_bytes)),
        None => 0,
    };
    let mut state = replay.state;
    state.commit = replay.commit;
    (state.last_index, state.last_term) = replay.last;
    let resume = Resume {
        headers: segments.iter().map(|(header, ..)| *header).collect(),
        segments: segments.into_iter().map(|(_, segment, _)| segment).collect(),
        offset,
        next_record: replay.next_record.unwrap_or(1),
        state,
        marks: replay.marks,
        space,
    };
    RecoveredLog {
        log: Log::resume(disk, options, resume),
        term: state.term.max(replay.last.1),
        vote: state.vote,
        commit: replay.commit.min(replay.last.0),
        base: replay.base.unwrap_or((0, 0)),
        last: replay.last,
        terms: replay.terms,
        entries: replay.entries,
        founding: replay.founding,
        cut,
        records: replay.records,
    }
}
