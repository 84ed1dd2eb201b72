//! Frames: what a link's stream of bytes is cut into. `docs/formats.md` has every byte.
//!
//! A head of 24 bytes with a checksum of its own, so that no length is believed before it was
//! checked, then the body under its checksum. [`FrameReader`] takes the stream in whatever pieces
//! it comes, and copies each byte once.

use bytes::Bytes;

use crate::limits::{LINK_FRAME_BYTES_MAX, LINK_HELLO_BYTES_MAX};

/// Bytes of a frame's head.
pub const HEAD_BYTES: usize = 24;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// Items of one turn.
    Turn,
    /// A part of an item that is too long for a turn's frame.
    Part,
    /// Nothing but a sign of life.
    Ping,
    /// For whoever moves much: the link does not look inside.
    Bulk,
    /// The last frame: why the link ends.
    Bye,
    /// Who is there. The first frame of each side.
    Hello,
    /// That it knows the secret.
    Proof,
    /// The side that was dialled takes the link.
    Welcome,
    /// Or does not.
    Refusal,
}

const KINDS: [(FrameKind, u8); 9] = [
    (FrameKind::Turn, 1),
    (FrameKind::Part, 2),
    (FrameKind::Ping, 3),
    (FrameKind::Bulk, 4),
    (FrameKind::Bye, 5),
    (FrameKind::Hello, 16),
    (FrameKind::Proof, 17),
    (FrameKind::Welcome, 18),
    (FrameKind::Refusal, 19),
];

impl FrameKind {
    pub(super) fn number(self) -> u8 {
        let row = KINDS.iter().find(|(kind, _)| *kind == self);
        row.expect("every kind has a row").1
    }
}

/// Why bytes are no frame. The stream cannot be followed any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not one bit of a head is to be trusted.
    #[error("the checksum of a frame's head is wrong")]
    Head,
    /// The body is not what was sent.
    #[error("the checksum of frame {0} is wrong")]
    Body(u64),
    /// A kind or flags that this version does not know.
    #[error(
        "frame {number} has kind {kind} and flags {flags:#x}, which this version does not know"
    )]
    Unknown {
        /// Its number.
        number: u64,
        /// Its kind.
        kind: u8,
        /// Its flags.
        flags: u32,
    },
    /// Longer than a frame may be.
    #[error("frame {number} has {length} bytes, more than {bound}")]
    TooLong {
        /// Its number.
        number: u64,
        /// What its head says.
        length: u64,
        /// The bound.
        bound: u64,
    },
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: FrameKind,
    /// Its place among the frames of this direction: 1, 2, 3, ...
    pub number: u64,
    /// What it holds.
    pub body: Bytes,
}

/// The head of a frame whose body is `pieces` one after the other.
pub fn head(kind: FrameKind, number: u64, pieces: &[Bytes]) -> [u8; HEAD_BYTES] {
    let mut crc = crc32fast::Hasher::new();
    let mut length = 0;
    for piece in pieces {
        crc.update(piece);
        length += piece.len();
    }
    let length = u32::try_from(length).expect("frames are bounded");
    let mut head = [0; HEAD_BYTES];
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4] = kind.number();
    head[8..16].copy_from_slice(&number.to_le_bytes());
    head[16..20].copy_from_slice(&crc.finalize().to_le_bytes());
    let own = crc32fast::hash(&head[..20]);
    head[20..].copy_from_slice(&own.to_le_bytes());
    head
}

/// What the head of the frame that is coming says.
#[derive(Debug)]
struct Coming {
    kind: FrameKind,
    number: u64,
    length: usize,
    crc: u32,
}

/// Cuts a stream into frames.
#[derive(Debug, Default)]
pub struct FrameReader {
    head: Vec<u8>,
    coming: Option<Coming>,
    body: Vec<u8>,
}

impl FrameReader {
    /// Takes bytes off the front of `input` until a frame is whole; `None` when they do not
    /// suffice. Before the handshake is over only its frames pass, which are short.
    pub fn next(&mut self, input: &mut &[u8], is_open: bool) -> Result<Option<Frame>, FrameError> {
        if self.coming.is_none() {
            move_bytes(input, &mut self.head, HEAD_BYTES);
            if self.head.len() < HEAD_BYTES {
                return Ok(None);
            }
            self.coming = Some(read_head(&self.head, is_open)?);
            self.head.clear();
        }
        let Some(coming) = &self.coming else { return Ok(None) };
        if self.body.capacity() == 0 {
            self.body.reserve_exact(coming.length);
        }
        move_bytes(input, &mut self.body, coming.length);
        if self.body.len() < coming.length {
            return Ok(None);
        }
        if crc32fast::hash(&self.body) != coming.crc {
            return Err(FrameError::Body(coming.number));
        }
        let (kind, number) = (coming.kind, coming.number);
        self.coming = None;
        Ok(Some(Frame { kind, number, body: std::mem::take(&mut self.body).into() }))
    }
}

/// Moves bytes until there are `until`, or no more.
fn move_bytes(input: &mut &[u8], to: &mut Vec<u8>, until: usize) {
    let (taken, rest) = input.split_at(input.len().min(until - to.len()));
    to.extend_from_slice(taken);
    *input = rest;
}

fn read_head(head: &[u8], is_open: bool) -> Result<Coming, FrameError> {
    let number_at = |at: usize| {
        u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes of the head"))
    };
    if crc32fast::hash(&head[..20]) != number_at(20) {
        return Err(FrameError::Head);
    }
    let number = u64::from_le_bytes(head[8..16].try_into().expect("eight bytes of the head"));
    let flags = u32::from_le_bytes([head[5], head[6], head[7], 0]);
    let row = KINDS.iter().find(|(_, number)| *number == head[4]);
    let Some((kind, _)) = row.filter(|_| flags == 0) else {
        return Err(FrameError::Unknown { number, kind: head[4], flags });
    };
    let (length, bound) = match is_open {
        true => (number_at(0) as usize, LINK_FRAME_BYTES_MAX),
        false => (number_at(0) as usize, LINK_HELLO_BYTES_MAX),
    };
    if length > bound {
        let (length, bound) = (length as u64, bound as u64);
        return Err(FrameError::TooLong { number, length, bound });
    }
    Ok(Coming { kind: *kind, number, length, crc: number_at(16) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(kind: FrameKind, number: u64, body: &[u8]) -> Vec<u8> {
        let body = Bytes::copy_from_slice(body);
        [&head(kind, number, std::slice::from_ref(&body))[..], &body].concat()
    }

    fn read(mut input: &[u8], piece: usize) -> (Vec<Frame>, Option<FrameError>) {
        let (mut reader, mut frames) = (FrameReader::default(), Vec::new());
        while !input.is_empty() {
            let (mut now, later) = input.split_at(piece.min(input.len()));
            input = later;
            while !now.is_empty() {
                match reader.next(&mut now, true) {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => assert!(now.is_empty()),
                    Err(error) => return (frames, Some(error)),
                }
            }
        }
        (frames, None)
    }

    #[test]
    fn frames_are_the_same_in_any_pieces() {
        let mut stream = bytes(FrameKind::Hello, 1, b"hello");
        stream.extend(bytes(FrameKind::Ping, 2, b""));
        stream.extend(bytes(FrameKind::Turn, 3, &[9; 1000]));
        let whole = read(&stream, stream.len());
        assert_eq!((whole.0.len(), &whole.1), (3, &None));
        assert_eq!(whole.0[2].body, vec![9; 1000]);
        for piece in [1, 2, 3, 7, 24, 25, 100] {
            assert_eq!(read(&stream, piece), whole, "{piece}");
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let stream = bytes(FrameKind::Turn, 1, b"some items");
        for bit in 0..stream.len() * 8 {
            let mut flipped = stream.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let (frames, error) = read(&flipped, flipped.len());
            assert!(frames.is_empty() && error.is_some(), "bit {bit}: {frames:?}");
        }
    }

    #[test]
    fn lengths_have_bounds_before_anything_is_kept() {
        let mut reader = FrameReader::default();
        let long = bytes(FrameKind::Hello, 1, &vec![0; LINK_HELLO_BYTES_MAX + 1]);
        let error = reader.next(&mut &long[..], false).expect_err("a long hello");
        assert_eq!(error.to_string(), "frame 1 has 4097 bytes, more than 4096");
        let mut head = [0; HEAD_BYTES];
        head[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        head[4] = 1;
        let crc = crc32fast::hash(&head[..20]);
        head[20..].copy_from_slice(&crc.to_le_bytes());
        let error = FrameReader::default().next(&mut &head[..], true);
        assert!(matches!(error, Err(FrameError::TooLong { .. })), "{error:?}");
    }
}
