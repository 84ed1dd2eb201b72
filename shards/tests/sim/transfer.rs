//! Snapshots on their way between nodes: pieces of bounded size, each sent when the one before has
//! arrived.

use std::rc::Rc;

use ringraft_shards::ids::NodeId;
use ringraft_shards::raft::PeerMessage;

/// Bytes of a piece.
const PIECE_BYTES: usize = 128;
/// Ticks without an answer after which a piece is sent again, and after which the transfer is given
/// up.
const RESEND_TICKS: u32 = 6;
const PATIENCE_TICKS: u32 = 60;

/// A piece of a snapshot.
#[derive(Clone)]
pub struct Piece {
    /// Of which transfer.
    pub transfer: u64,
    pub offset: usize,
    pub total: usize,
    pub bytes: Vec<u8>,
    /// The message that offers the snapshot.
    pub message: Box<PeerMessage>,
}

/// What the receiver has.
#[derive(Clone, Copy)]
pub struct PieceAnswer {
    pub transfer: u64,
    pub next_offset: usize,
    /// Is it durable there, and handed to the group?
    pub stored: bool,
}

/// The sending side of one transfer.
pub struct Outgoing {
    pub transfer: u64,
    message: PeerMessage,
    bytes: Rc<Vec<u8>>,
    offset: usize,
    idle_ticks: u32,
}

impl Outgoing {
    pub fn new(transfer: u64, message: PeerMessage, bytes: Rc<Vec<u8>>) -> Outgoing {
        Outgoing { transfer, message, bytes, offset: 0, idle_ticks: 0 }
    }

    /// The member that it is for.
    pub fn to(&self) -> NodeId {
        self.message.to()
    }

    /// The piece that is due.
    pub fn piece(&self) -> Piece {
        let end = self.bytes.len().min(self.offset + PIECE_BYTES);
        Piece {
            transfer: self.transfer,
            offset: self.offset,
            total: self.bytes.len(),
            bytes: self.bytes[self.offset..end].to_vec(),
            message: Box::new(self.message.clone()),
        }
    }

    /// An answer came: is there another piece to send?
    pub fn answered(&mut self, next_offset: usize) -> bool {
        let further = next_offset > self.offset && next_offset < self.bytes.len();
        if next_offset > self.offset {
            (self.offset, self.idle_ticks) = (next_offset.min(self.bytes.len()), 0);
        }
        further
    }

    /// Time passes. `Some(true)`: send the piece again; `Some(false)`: give up.
    pub fn tick(&mut self) -> Option<bool> {
        self.idle_ticks += 1;
        if self.idle_ticks >= PATIENCE_TICKS {
            return Some(false);
        }
        let waits = self.offset < self.bytes.len();
        (waits && self.idle_ticks.is_multiple_of(RESEND_TICKS)).then_some(true)
    }
}

/// The receiving side.
pub struct Incoming {
    pub transfer: u64,
    pub bytes: Vec<u8>,
    /// Is it complete and being made durable?
    pub storing: bool,
}

impl Incoming {
    /// Takes a piece. Returns whether that was the last one missing.
    pub fn take(&mut self, piece: &Piece) -> bool {
        if self.storing || piece.offset != self.bytes.len() {
            return false;
        }
        self.bytes.extend_from_slice(&piece.bytes);
        self.storing = self.bytes.len() == piece.total;
        self.storing
    }
}
