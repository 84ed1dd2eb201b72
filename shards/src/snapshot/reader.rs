//! Reads `state.ring` from any stream, a chunk at a time.
//!
//! Nothing is used before its checksum was checked, and no length is believed beyond what the file
//! has left: memory is one chunk, and the keys of items of which more pieces are to come. No bytes
//! make it panic.

use std::collections::HashMap;
use std::io::Read;

use super::error::{Flaw, ReadError};
use super::footer::{
    CHUNK_TAG, ChunkHeader, FOOTER_TAG, Footer, LEDGER_TAG, LIBRARIES_TAG, LIMITS_TAG,
    REMEMBERED_TAG,
};
use super::header::{Header, PREFIX_BYTES};
use crate::ids::DatabaseIndex;
use crate::keyspace::{Libraries, Shape};
use crate::limits::SNAPSHOT_CHUNK_BYTES;
use crate::rdb::{self, Fault, ItemRecord, Piece};
use crate::remembered::Remembered;
use crate::transaction::Ledger;
use crate::value::Limits;

/// Reads one snapshot from `source`, from its first byte to its last.
pub struct SnapshotReader<R> {
    input: Input<R>,
    header: Header,
    format_version: u32,
    crc: crc32fast::Hasher,
    chunk: Vec<u8>,
    chunk_count: u64,
    item_count: u64,
    ledger: Ledger,
    remembered: Remembered,
    libraries: Libraries,
    limits: Limits,
    partial: PartialItems,
    footer: Option<Footer>,
}

/// Items of which pieces are to come.
#[derive(Default)]
struct PartialItems {
    items: HashMap<(DatabaseIndex, Vec<u8>), Partial>,
}

/// How much of an item was read.
struct Partial {
    shape: Shape,
    total: u64,
    read: u64,
}

impl PartialItems {
    /// Takes note of a record.
    /// Errors: it is a piece that does not follow on another one.
    fn note(&mut self, record: &ItemRecord<'_>) -> Result<(), Fault> {
        if record.piece == Piece::Whole && self.items.is_empty() {
            return Ok(());
        }
        let place = (record.database, record.key.to_vec());
        let before = self.items.remove(&place);
        let (total, read) = match (record.piece, before) {
            (Piece::Whole, None) => return Ok(()),
            (Piece::First(total), None) => (total, 0),
            (Piece::Next(from), Some(before))
                if before.read == from && before.shape == record.shape =>
            {
                (before.total, from)
            }
            _ => return Err(Fault::Piece),
        };
        let read = read + record.value.count();
        if read < total {
            self.items.insert(place, Partial { shape: record.shape, total, read });
        }
        if read > total { Err(Fault::Piece) } else { Ok(()) }
    }
}

impl<R: Read> SnapshotReader<R> {
    /// Reads the header of a snapshot of `size` bytes.
    pub fn open(source: R, size: u64) -> Result<SnapshotReader<R>, ReadError> {
        let mut input = Input { source, size, offset: 0 };
        let mut prefix = [0; PREFIX_BYTES];
        input.fill(&mut prefix, "the header")?;
        let length = Header::length(&prefix)?;
        let mut bytes = vec![0; length];
        bytes[..PREFIX_BYTES].copy_from_slice(&prefix);
        input.fill(&mut bytes[PREFIX_BYTES..], "the header")?;
        let header = Header::decode(&bytes)?;
        let [.., a, b, c, d, _, _, _, _] = prefix;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&bytes);
        Ok(SnapshotReader {
            input,
            header,
            format_version: u32::from_le_bytes([a, b, c, d]),
            crc,
            chunk: Vec::new(),
            chunk_count: 0,
            item_count: 0,
            ledger: Ledger::default(),
            remembered: Remembered::default(),
            libraries: Libraries::default(),
            limits: Limits::default(),
            partial: PartialItems::default(),
            footer: None,
        })
    }

    /// What the snapshot is of.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The format in which it is written.
    pub fn format_version(&self) -> u32 {
        self.format_version
    }

    /// Bytes read so far.
    pub fn offset(&self) -> u64 {
        self.input.offset
    }

    /// Bytes of the whole file.
    pub fn size(&self) -> u64 {
        self.input.size
    }

    /// The ledger of transactions, as far as it was read.
    pub fn take_ledger(&mut self) -> Ledger {
        std::mem::take(&mut self.ledger)
    }

    /// What is remembered of requests, as far as it was read.
    pub fn take_remembered(&mut self) -> Remembered {
        std::mem::take(&mut self.remembered)
    }

    /// Libraries of functions, as far as they were read.
    pub fn take_libraries(&mut self) -> Libraries {
        std::mem::take(&mut self.libraries)
    }

    /// When collections change their form, as far as it was read.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The footer, once [`SnapshotReader::read_chunk`] has returned `None`.
    pub fn footer(&self) -> Option<&Footer> {
        self.footer.as_ref()
    }

    /// The next chunk; `None` when the footer was reached and everything read agrees with it.
    pub fn read_chunk(&mut self) -> Result<Option<Chunk<'_>>, ReadError> {
        if self.footer.is_some() {
            return Ok(None);
        }
        let start = self.input.offset;
        let mut tag = [0; 4];
        self.input.fill(&mut tag, "a chunk")?;
        match tag {
            CHUNK_TAG | LEDGER_TAG | REMEMBERED_TAG | LIMITS_TAG | LIBRARIES_TAG => {
                self.read_items(start, tag).map(Some)
            }
            FOOTER_TAG => self.read_footer(start).map(|()| None),
            _ => Err(ReadError::damaged(start, Flaw::Tag)),
        }
    }

    /// Reads everything to the end and checks all of it, each item included.
    pub fn verify(&mut self) -> Result<Footer, ReadError> {
        loop {
            match self.read_chunk()? {
                Some(mut chunk) => while chunk.next_item()?.is_some() {},
                None => return Ok(self.footer.expect("the footer was read when chunks ended")),
            }
        }
    }

    fn read_items(&mut self, start: u64, tag: [u8; 4]) -> Result<Chunk<'_>, ReadError> {
        let mut bytes = [0; ChunkHeader::BYTES];
        bytes[..4].copy_from_slice(&tag);
        self.input.fill(&mut bytes[4..], "a chunk's header")?;
        let header = ChunkHeader::decode(&bytes).map_err(|flaw| ReadError::damaged(start, flaw))?;
        let limit = self.input.remaining();
        if u64::from(header.length) > limit {
            let flaw = Flaw::Length { what: "a chunk", length: header.length.into(), limit };
            return Err(ReadError::damaged(start + 4, flaw));
        }
        let payload_start = self.input.offset;
        self.chunk.clear();
        // A chunk is longer than this only for one huge item: its memory is not kept.
        self.chunk.shrink_to(2 * SNAPSHOT_CHUNK_BYTES);
        self.chunk.resize(header.length as usize, 0);
        self.input.fill(&mut self.chunk, "a chunk")?;
        let mut payload_crc = crc32fast::Hasher::new();
        payload_crc.update(&self.chunk);
        let (found, recorded) = (payload_crc.clone().finalize(), header.crc);
        if found != recorded {
            let flaw = Flaw::Checksum { what: "a chunk", found, recorded };
            return Err(ReadError::damaged(payload_start, flaw));
        }
        self.crc.update(&bytes);
        self.crc.combine(&payload_crc);
        self.chunk_count += 1;
        self.item_count += u64::from(header.item_count);
        let mut payload = &self.chunk[..];
        if tag == LEDGER_TAG {
            let flaw = Flaw::Unknown { what: "ledger of transactions, version", found: 0 };
            self.ledger = Ledger::decode(payload).ok_or(ReadError::damaged(payload_start, flaw))?;
            payload = &[];
        } else if tag == REMEMBERED_TAG {
            let flaw = Flaw::Unknown { what: "memory of requests, version", found: 0 };
            self.remembered =
                Remembered::decode(payload).ok_or(ReadError::damaged(payload_start, flaw))?;
            payload = &[];
        } else if tag == LIMITS_TAG {
            let flaw = Flaw::Unknown { what: "limits of packed values, version", found: 0 };
            self.limits = Limits::decode(payload).ok_or(ReadError::damaged(payload_start, flaw))?;
            payload = &[];
        } else if tag == LIBRARIES_TAG {
            let flaw = Flaw::Unknown { what: "libraries of functions, version", found: 0 };
            self.libraries =
                Libraries::decode(payload).ok_or(ReadError::damaged(payload_start, flaw))?;
            payload = &[];
        }
        Ok(Chunk {
            payload,
            rest: payload,
            payload_start,
            item_count: header.item_count,
            items_read: 0,
            partial: &mut self.partial,
        })
    }

    fn read_footer(&mut self, start: u64) -> Result<(), ReadError> {
        let mut bytes = [0; Footer::BYTES];
        bytes[..4].copy_from_slice(&FOOTER_TAG);
        self.input.fill(&mut bytes[4..], "the footer")?;
        let at_start = |flaw| ReadError::damaged(start, flaw);
        let footer = Footer::decode(&bytes).map_err(at_start)?;
        let found = self.crc.clone().finalize();
        if found != footer.crc {
            let recorded = footer.crc;
            return Err(at_start(Flaw::Checksum { what: "the file", found, recorded }));
        }
        for (what, found, recorded) in [
            ("the count of chunks", self.chunk_count, footer.chunk_count),
            ("the count of items", self.item_count, footer.item_count),
            ("the size of the file", self.input.offset, footer.file_size),
        ] {
            if found != recorded {
                return Err(at_start(Flaw::Mismatch { what, found, recorded }));
            }
        }
        if !self.partial.items.is_empty() {
            return Err(at_start(Flaw::Item(Fault::Piece)));
        }
        if self.input.remaining() > 0 {
            let flaw = Flaw::Trailing { count: self.input.remaining() };
            return Err(ReadError::damaged(self.input.offset, flaw));
        }
        self.footer = Some(footer);
        Ok(())
    }
}

/// The items of one chunk, borrowed from the reader.
pub struct Chunk<'a> {
    payload: &'a [u8],
    rest: &'a [u8],
    payload_start: u64,
    item_count: u32,
    items_read: u32,
    partial: &'a mut PartialItems,
}

impl<'a> Chunk<'a> {
    /// Items that begin in this chunk.
    pub fn item_count(&self) -> u32 {
        self.item_count
    }

    /// Where in the file the next item begins.
    pub fn offset(&self) -> u64 {
        self.payload_start + (self.payload.len() - self.rest.len()) as u64
    }

    /// The next item, or the next piece of one; `None` after the last. Call it to the end: only
    /// then is the count checked.
    pub fn next_item(&mut self) -> Result<Option<ItemRecord<'a>>, ReadError> {
        let offset = self.offset();
        if self.rest.is_empty() {
            let (found, recorded) = (self.items_read.into(), self.item_count.into());
            if found != recorded {
                let flaw = Flaw::Mismatch { what: "the count of a chunk's items", found, recorded };
                return Err(ReadError::damaged(offset, flaw));
            }
            return Ok(None);
        }
        let item = rdb::read_item(&mut self.rest).map_err(|error| {
            ReadError::damaged(offset + error.offset as u64, Flaw::Item(error.fault))
        })?;
        self.partial.note(&item).map_err(|fault| ReadError::damaged(offset, Flaw::Item(fault)))?;
        self.items_read = self.items_read.saturating_add(item.is_first().into());
        Ok(Some(item))
    }
}

/// The source, and how much of it is left.
struct Input<R> {
    source: R,
    size: u64,
    offset: u64,
}

impl<R: Read> Input<R> {
    fn remaining(&self) -> u64 {
        self.size - self.offset
    }

    /// Fills `out`; `what` names what is cut when the file ends before.
    fn fill(&mut self, out: &mut [u8], what: &'static str) -> Result<(), ReadError> {
        let offset = self.offset;
        let truncated = || ReadError::damaged(offset, Flaw::Truncated { what });
        if out.len() as u64 > self.remaining() {
            return Err(truncated());
        }
        self.source.read_exact(out).map_err(|source| match source.kind() {
            std::io::ErrorKind::UnexpectedEof => truncated(),
            _ => ReadError::Io { offset, source },
        })?;
        self.offset += out.len() as u64;
        Ok(())
    }
}
