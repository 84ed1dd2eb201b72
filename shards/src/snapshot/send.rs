//! Sending a snapshot to one peer: which piece goes when. Its other end is
//! [`SnapshotReceiver`](super::SnapshotReceiver).
//!
//! The one idea: the receiver says how much it has *written*, and the sender keeps at most a window
//! beyond that under way. So neither end holds more than a window, a slow disk on either side slows
//! the transfer and nothing else, and a transfer that broke off goes on where it was.
//!
//! | sender | receiver |
//! |---|---|
//! | `Offer`: what it is, until answered | `Has(offset)`: begin there; `Unneeded`; `Refused` |
//! | `Piece`s up to [`SNAPSHOT_WINDOW_BYTES`] ahead | `Has(offset)` for what is written |
//! | nothing | `Stored`: verified, durable, what a restart would load |
//!
//! Frames may be lost, but not overtake each other. Then: hand Raft's own message over, and
//! `snapshot_sent`.
//!
//! Not here: reading the file, connections, clocks other than ticks.

use std::collections::VecDeque;

use super::directory::SnapshotName;
use crate::limits::{
    SNAPSHOT_PATIENCE_TICKS, SNAPSHOT_PIECE_BYTES, SNAPSHOT_RESEND_TICKS,
    SNAPSHOT_SEND_BYTES_PER_TICK, SNAPSHOT_WINDOW_BYTES,
};

/// One attempt to send a snapshot. A later one has a greater term of its leader, or a greater
/// number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TransferId {
    /// The sender's Raft term.
    pub term: u64,
    /// Counts the sender's transfers.
    pub number: u64,
}

/// Which file it is: two of the same name may differ when two nodes made them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotOffer {
    /// Its place in the log.
    pub name: SnapshotName,
    /// Bytes of `state.ring`.
    pub size: u64,
    /// The checksum in its footer.
    pub crc: u32,
}

/// What goes from the sender to the receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferFrame {
    /// There is this snapshot for you.
    Offer(SnapshotOffer),
    /// Bytes of it.
    Piece {
        /// Where they begin.
        offset: u64,
        /// At most [`SNAPSHOT_PIECE_BYTES`].
        bytes: Vec<u8>,
    },
}

/// What goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferAnswer {
    /// Everything before this offset is written.
    Has(u64),
    /// It is complete, verified, durable, and what a restart would load.
    Stored,
    /// The receiver has applied as much already.
    Unneeded,
    /// The file is damaged, another transfer is newer, or the disk failed.
    Refused,
}

/// What the sender has to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendStep {
    /// Send this frame.
    Frame(TransferFrame),
    /// Read this range of the file and pass it to [`SnapshotSender::read`].
    Read {
        /// From here on.
        offset: u64,
        /// So many bytes.
        length: usize,
    },
}

/// How a transfer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// Hand Raft's message over, then report `snapshot_sent(to, true)`.
    Delivered,
    /// Report `snapshot_sent(to, false)`; Raft tries again.
    Failed,
}

/// The sending end of one transfer.
#[derive(Debug)]
pub struct SnapshotSender {
    id: TransferId,
    offer: SnapshotOffer,
    /// Has the receiver said where to begin?
    accepted: bool,
    offer_due: bool,
    /// Written there.
    acknowledged: u64,
    /// Asked to be read, sent or on its way.
    requested: u64,
    /// Ranges whose reading is under way.
    reads: usize,
    ready: VecDeque<(u64, Vec<u8>)>,
    allowance: u64,
    /// What each tick adds to it.
    grant: u64,
    idle_ticks: u32,
    outcome: Option<SendOutcome>,
}

impl SnapshotSender {
    /// Begins to send.
    pub fn new(id: TransferId, offer: SnapshotOffer) -> SnapshotSender {
        SnapshotSender {
            id,
            offer,
            accepted: false,
            offer_due: true,
            acknowledged: 0,
            requested: 0,
            reads: 0,
            ready: VecDeque::new(),
            allowance: SNAPSHOT_SEND_BYTES_PER_TICK,
            grant: SNAPSHOT_SEND_BYTES_PER_TICK,
            idle_ticks: 0,
            outcome: None,
        }
    }

    /// Which transfer it is: goes with every frame.
    pub fn id(&self) -> TransferId {
        self.id
    }

    /// How it ended, once it has.
    pub fn outcome(&self) -> Option<SendOutcome> {
        self.outcome
    }

    /// From the next tick on so many bytes go in a tick; less than a piece goes when enough ticks
    /// have passed for one.
    pub fn set_pace(&mut self, bytes_per_tick: u64) {
        self.grant = bytes_per_tick;
    }

    /// Written there, in bytes.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// What to do next; `None`: wait for an answer, a read or a tick.
    pub fn next_step(&mut self) -> Option<SendStep> {
        if self.outcome.is_some() {
            return None;
        }
        if std::mem::take(&mut self.offer_due) {
            return Some(SendStep::Frame(TransferFrame::Offer(self.offer)));
        }
        if let Some((offset, bytes)) = self.ready.pop_front() {
            return Some(SendStep::Frame(TransferFrame::Piece { offset, bytes }));
        }
        let left = self.offer.size - self.requested;
        let ahead = self.requested - self.acknowledged;
        let length = left.min(SNAPSHOT_PIECE_BYTES as u64);
        let room = ahead + length <= SNAPSHOT_WINDOW_BYTES;
        if !self.accepted || length == 0 || !room || self.allowance < length {
            return None;
        }
        let offset = self.requested;
        self.requested += length;
        self.allowance -= length;
        self.reads += 1;
        Some(SendStep::Read { offset, length: length as usize })
    }

    /// A range was read.
    pub fn read(&mut self, offset: u64, bytes: Vec<u8>) {
        self.reads -= 1;
        // What was asked for before a new beginning may come now; the receiver would drop it too.
        let end = offset + bytes.len() as u64;
        if offset >= self.acknowledged && end <= self.requested {
            self.ready.push_back((offset, bytes));
        }
    }

    /// The file cannot be read.
    pub fn read_failed(&mut self) {
        self.outcome = Some(SendOutcome::Failed);
    }

    /// The receiver answered this transfer.
    pub fn answered(&mut self, answer: TransferAnswer) {
        if self.outcome.is_some() {
            return;
        }
        match answer {
            TransferAnswer::Stored | TransferAnswer::Unneeded => {
                self.outcome = Some(SendOutcome::Delivered);
            }
            TransferAnswer::Refused => self.outcome = Some(SendOutcome::Failed),
            TransferAnswer::Has(offset) if offset > self.offer.size => {
                self.outcome = Some(SendOutcome::Failed);
            }
            TransferAnswer::Has(offset) => {
                // Less than before: the receiver was started anew, or has begun again.
                if !self.accepted || offset < self.acknowledged {
                    self.accepted = true;
                    (self.acknowledged, self.requested) = (offset, offset);
                    self.ready.clear();
                }
                if offset > self.acknowledged {
                    self.acknowledged = offset;
                    self.idle_ticks = 0;
                }
                self.requested = self.requested.max(self.acknowledged);
            }
        }
    }

    /// Time passes: more may be sent, what was lost is sent again, and in the end it is given up.
    pub fn tick(&mut self) {
        let piece = SNAPSHOT_PIECE_BYTES as u64;
        let waits = self.accepted && self.allowance < piece && self.requested < self.offer.size;
        // What goes at once is bounded, however little went before.
        self.allowance = (self.allowance + self.grant).min(self.grant.max(piece));
        if waits && self.requested == self.acknowledged {
            // Its pace holds it up, and nothing that was lost.
            return;
        }
        self.idle_ticks += 1;
        if self.idle_ticks >= SNAPSHOT_PATIENCE_TICKS {
            self.outcome.get_or_insert(SendOutcome::Failed);
        } else if self.idle_ticks.is_multiple_of(SNAPSHOT_RESEND_TICKS) && self.reads == 0 {
            // Lost on the way, or their answer was; asking again is also how a stored one is
            // learned of.
            self.ready.clear();
            self.requested = self.acknowledged;
            self.offer_due = true;
        }
    }
}
