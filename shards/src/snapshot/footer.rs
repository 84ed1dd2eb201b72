//! The footer of `state.ring`, and the header of each chunk: fixed shapes with their own checksum.

use super::cursor::Cursor;
use super::error::Flaw;

/// First bytes of a chunk.
pub(crate) const CHUNK_TAG: [u8; 4] = *b"ITEM";
/// First bytes of the chunk that holds the ledger of transactions.
pub(crate) const LEDGER_TAG: [u8; 4] = *b"LEDG";
/// First bytes of the chunk that holds what is remembered of requests.
pub(crate) const REMEMBERED_TAG: [u8; 4] = *b"REME";
/// First bytes of the chunk that holds the limits of packed values.
pub(crate) const LIMITS_TAG: [u8; 4] = *b"LIMI";
/// First bytes of the chunk that holds libraries of functions.
pub(crate) const LIBRARIES_TAG: [u8; 4] = *b"LIBR";
/// First bytes of the footer.
pub(crate) const FOOTER_TAG: [u8; 4] = *b"DONE";
/// Last bytes of every snapshot.
const END_MAGIC: [u8; 8] = *b"SNAP_END";

/// What precedes the items of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkHeader {
    /// Bytes of the payload that follows.
    pub(crate) length: u32,
    /// Items in the payload.
    pub(crate) item_count: u32,
    /// CRC-32 of the payload.
    pub(crate) crc: u32,
}

impl ChunkHeader {
    /// Bytes, tag included.
    pub(crate) const BYTES: usize = 20;

    pub(crate) fn encode(&self, tag: [u8; 4]) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        out[..4].copy_from_slice(&tag);
        out[4..8].copy_from_slice(&self.length.to_le_bytes());
        out[8..12].copy_from_slice(&self.item_count.to_le_bytes());
        out[12..16].copy_from_slice(&self.crc.to_le_bytes());
        let crc = crc32fast::hash(&out[..16]);
        out[16..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8; Self::BYTES]) -> Result<ChunkHeader, Flaw> {
        check_crc("a chunk's header", &bytes[..16], &bytes[16..20])?;
        let field = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Ok(ChunkHeader { length: field(4), item_count: field(8), crc: field(12) })
    }
}

/// What ends a complete snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// CRC-32 of everything before the footer.
    pub crc: u32,
    /// Chunks in the file.
    pub chunk_count: u64,
    /// Items in the file.
    pub item_count: u64,
    /// Bytes of the file, footer included.
    pub file_size: u64,
}

impl Footer {
    /// Bytes, tag and end included.
    pub const BYTES: usize = 44;

    /// The bytes.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        out[..4].copy_from_slice(&FOOTER_TAG);
        out[4..8].copy_from_slice(&self.crc.to_le_bytes());
        out[8..16].copy_from_slice(&self.chunk_count.to_le_bytes());
        out[16..24].copy_from_slice(&self.item_count.to_le_bytes());
        out[24..32].copy_from_slice(&self.file_size.to_le_bytes());
        let crc = crc32fast::hash(&out[..32]);
        out[32..36].copy_from_slice(&crc.to_le_bytes());
        out[36..].copy_from_slice(&END_MAGIC);
        out
    }

    /// Reads a footer; its own checksum and both of its ends are checked.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Result<Footer, Flaw> {
        if bytes[..4] != FOOTER_TAG || bytes[36..] != END_MAGIC {
            return Err(Flaw::Tag);
        }
        check_crc("the footer", &bytes[..32], &bytes[32..36])?;
        let mut cursor = Cursor::new(&bytes[4..32]);
        let fields = (cursor.u32(), cursor.u64(), cursor.u64(), cursor.u64());
        let (Some(crc), Some(chunk_count), Some(item_count), Some(file_size)) = fields else {
            return Err(Flaw::Truncated { what: "the footer" });
        };
        Ok(Footer { crc, chunk_count, item_count, file_size })
    }
}

/// Does this checksum fit?
fn check_crc(what: &'static str, hashed: &[u8], recorded: &[u8]) -> Result<(), Flaw> {
    let recorded = Cursor::new(recorded).u32().ok_or(Flaw::Truncated { what })?;
    let found = crc32fast::hash(hashed);
    if found == recorded { Ok(()) } else { Err(Flaw::Checksum { what, found, recorded }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_header_and_footer_detect_every_flip() {
        let chunk = ChunkHeader { length: 1, item_count: 2, crc: 3 };
        assert_eq!(ChunkHeader::decode(&chunk.encode(CHUNK_TAG)), Ok(chunk));
        for i in 4..ChunkHeader::BYTES {
            let mut bytes = chunk.encode(CHUNK_TAG);
            bytes[i] ^= 1;
            assert!(ChunkHeader::decode(&bytes).is_err(), "byte {i}");
        }
        let footer = Footer { crc: 1, chunk_count: 2, item_count: 3, file_size: 4 };
        assert_eq!(Footer::decode(&footer.encode()), Ok(footer));
        for i in 0..Footer::BYTES {
            let mut bytes = footer.encode();
            bytes[i] ^= 1;
            assert!(Footer::decode(&bytes).is_err(), "byte {i}");
        }
    }
}
