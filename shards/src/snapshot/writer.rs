//! Turns items into the bytes of `state.ring`, chunk by chunk.
//!
//! Push items, take what is ready after each step and append it to the file, then finish. The
//! writer holds at most the chunks that were not taken and the one being filled; it knows nothing
//! of files.

use std::collections::VecDeque;

use super::footer::{
    CHUNK_TAG, ChunkHeader, Footer, LEDGER_TAG, LIBRARIES_TAG, LIMITS_TAG, REMEMBERED_TAG,
};
use super::header::Header;
use super::meta::Meta;
use crate::ids::DatabaseIndex;
use crate::keyspace::{Item, Libraries};
use crate::limits::SNAPSHOT_CHUNK_BYTES;
use crate::rdb::{self, ItemRecord};
use crate::remembered::Remembered;
use crate::transaction::Ledger;
use crate::value::Limits;

/// Writes one snapshot. The bytes given out, one after the other, are the file.
pub struct SnapshotWriter {
    header: Header,
    ready: VecDeque<Vec<u8>>,
    ready_bytes: usize,
    /// Room for the chunk's header, then the payload so far.
    open: Vec<u8>,
    /// Items that begin in it.
    open_item_count: u32,
    /// Over every byte of the chunks sealed and the header.
    crc: crc32fast::Hasher,
    file_size: u64,
    chunk_count: u64,
    item_count: u64,
}

impl SnapshotWriter {
    /// Starts a snapshot; its header is ready at once.
    pub fn new(header: Header) -> SnapshotWriter {
        let mut writer = SnapshotWriter {
            ready: VecDeque::new(),
            ready_bytes: 0,
            open: empty_chunk(),
            open_item_count: 0,
            crc: crc32fast::Hasher::new(),
            file_size: 0,
            chunk_count: 0,
            item_count: 0,
            header,
        };
        let header = writer.header.encode();
        writer.crc.update(&header);
        writer.hand_out(header);
        writer
    }

    /// Puts the ledger of the moment of the cut first. Nothing is written for an empty one.
    pub fn push_ledger(&mut self, ledger: &Ledger) {
        if !ledger.is_empty() {
            debug_assert_eq!(self.item_count, 0, "the ledger goes first");
            self.open.extend_from_slice(&ledger.encode());
            self.seal_as(LEDGER_TAG);
        }
    }

    /// Puts what is remembered of requests before all items. Nothing is written when that is
    /// nothing.
    pub fn push_remembered(&mut self, remembered: &Remembered) {
        if !remembered.is_empty() {
            debug_assert_eq!(self.item_count, 0, "what is remembered goes before items");
            self.open.extend_from_slice(&remembered.encode());
            self.seal_as(REMEMBERED_TAG);
        }
    }

    /// Puts the limits of the moment of the cut before all items. Nothing is written for the ones
    /// that are there from the start.
    pub fn push_limits(&mut self, limits: Limits) {
        if limits != Limits::default() {
            debug_assert_eq!(self.item_count, 0, "limits go before items");
            self.open.extend_from_slice(&limits.encode());
            self.seal_as(LIMITS_TAG);
        }
    }

    /// Puts the libraries of functions of the moment of the cut before all items. Nothing is
    /// written when there never was one.
    pub fn push_libraries(&mut self, libraries: &Libraries) {
        if !libraries.is_untouched() {
            debug_assert_eq!(self.item_count, 0, "libraries go before items");
            self.open.extend_from_slice(&libraries.encode());
            self.seal_as(LIBRARIES_TAG);
        }
    }

    /// Appends an item from a place in its value on, 0 at first. Returns the place to go on at when
    /// it was too large to be written to its end: then it must be pushed again from there. Each
    /// item of the cut once, in any order. Cost: one copy of key and value; one allocation and
    /// one CRC-32 for each full chunk.
    pub fn push(&mut self, database: DatabaseIndex, item: Item<'_>, from: u64) -> Option<u64> {
        let next = rdb::write_item(&mut self.open, database, item, from);
        self.pushed(from == 0);
        next
    }

    /// Appends an item, or a piece of one, that was read elsewhere.
    pub fn push_record(&mut self, record: &ItemRecord<'_>) {
        rdb::write_record(&mut self.open, record);
        self.pushed(record.is_first());
    }

    /// The next bytes of the file, in order; `None` until more items come.
    pub fn take_chunk(&mut self) -> Option<Vec<u8>> {
        let chunk = self.ready.pop_front()?;
        self.ready_bytes -= chunk.len();
        Some(chunk)
    }

    /// Bytes that wait for [`SnapshotWriter::take_chunk`]: step the cut no further while the disk
    /// is behind.
    pub fn ready_bytes(&self) -> usize {
        self.ready_bytes
    }

    /// Items pushed.
    pub fn item_count(&self) -> u64 {
        self.item_count
    }

    /// Bytes of the file given out or ready.
    pub fn file_size(&self) -> u64 {
        self.file_size
    }

    /// Ends the snapshot: its last bytes (all that was not taken yet), and what `meta.json` will
    /// say.
    pub fn finish(mut self) -> (Vec<u8>, Meta) {
        if self.open.len() > ChunkHeader::BYTES {
            self.seal();
        }
        let footer = Footer {
            crc: std::mem::take(&mut self.crc).finalize(),
            chunk_count: self.chunk_count,
            item_count: self.item_count,
            file_size: self.file_size + Footer::BYTES as u64,
        };
        let mut last = Vec::with_capacity(self.ready_bytes + Footer::BYTES);
        for chunk in &self.ready {
            last.extend_from_slice(chunk);
        }
        last.extend_from_slice(&footer.encode());
        (last, Meta::new(&self.header, &footer))
    }

    #[inline]
    fn pushed(&mut self, is_first: bool) {
        self.item_count += u64::from(is_first);
        self.open_item_count += u32::from(is_first);
        if self.open.len() >= ChunkHeader::BYTES + SNAPSHOT_CHUNK_BYTES {
            self.seal();
        }
    }

    fn seal(&mut self) {
        self.seal_as(CHUNK_TAG);
    }

    fn seal_as(&mut self, tag: [u8; 4]) {
        let mut chunk = std::mem::replace(&mut self.open, empty_chunk());
        let (header, payload) = chunk.split_at_mut(ChunkHeader::BYTES);
        let mut payload_crc = crc32fast::Hasher::new();
        payload_crc.update(payload);
        let chunk_header = ChunkHeader {
            length: u32::try_from(payload.len()).expect("a piece of an item is far below 4 GiB"),
            item_count: std::mem::take(&mut self.open_item_count),
            crc: payload_crc.clone().finalize(),
        };
        header.copy_from_slice(&chunk_header.encode(tag));
        // The payload is hashed once: its CRC is combined into the file's.
        self.crc.update(header);
        self.crc.combine(&payload_crc);
        self.chunk_count += 1;
        self.hand_out(chunk);
    }

    fn hand_out(&mut self, bytes: Vec<u8>) {
        self.file_size += bytes.len() as u64;
        self.ready_bytes += bytes.len();
        self.ready.push_back(bytes);
    }
}

/// Room for a chunk, its header still zero.
fn empty_chunk() -> Vec<u8> {
    // An item more than fills a chunk before it is sealed; most items are below this much.
    const ROOM_FOR_LAST_ITEM: usize = 4096;
    let mut chunk =
        Vec::with_capacity(ChunkHeader::BYTES + SNAPSHOT_CHUNK_BYTES + ROOM_FOR_LAST_ITEM);
    chunk.resize(ChunkHeader::BYTES, 0);
    chunk
}
