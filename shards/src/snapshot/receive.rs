//! Receiving a snapshot for one shard: what to take, what to write, what to answer. Its other end
//! is [`SnapshotSender`](super::SnapshotSender).
//!
//! The one idea: at most one snapshot comes in at a time, the one of the newest leader, and a piece
//! counts when it is written. Pieces that do not continue what is there are dropped; the answer
//! says where to go on, so nothing is ever held out of order.
//!
//! The driver does the [`ReceiveWork`] where blocking is allowed (with
//! [`IncomingSnapshot`](super::IncomingSnapshot)), one piece at a time, and reports each.
//!
//! Not here: files, connections. Raft's own message follows and is stepped only when the snapshot
//! it speaks of is stored.

use std::collections::VecDeque;

use super::directory::SnapshotName;
use super::send::{SnapshotOffer, TransferAnswer, TransferFrame, TransferId};
use crate::ids::{Index, NodeId};
use crate::limits::{SNAPSHOT_PATIENCE_TICKS, SNAPSHOT_WINDOW_BYTES};

/// Work on files, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiveWork {
    /// Begin a file.
    Begin {
        /// Its place in the log.
        name: SnapshotName,
        /// Its bytes.
        size: u64,
    },
    /// Append.
    Write {
        /// Where.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// Verify all of it and make it exist, or leave nothing of it.
    Finish,
    /// Remove what there is of it.
    Abandon,
}

/// An answer for the sender of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerTo {
    /// Who sends.
    pub sender: NodeId,
    /// Which transfer.
    pub transfer: TransferId,
    /// What it is told.
    pub answer: TransferAnswer,
}

/// Work that the driver has.
#[derive(Clone, Copy, Debug)]
enum UnderWay {
    Begin,
    /// Up to here.
    Write(u64),
    Finish,
    Abandon,
}

/// What comes in at the moment.
#[derive(Debug)]
struct Incoming {
    sender: NodeId,
    transfer: TransferId,
    offer: SnapshotOffer,
    /// Handed out to be written.
    taken: u64,
    written: u64,
    finishing: bool,
    idle_ticks: u32,
}

/// The receiving end of a shard.
#[derive(Debug, Default)]
pub struct SnapshotReceiver {
    incoming: Option<Incoming>,
    /// What was stored last: its sender may ask again.
    stored: Option<SnapshotOffer>,
    work: VecDeque<ReceiveWork>,
    /// What was handed out and not reported; of which file, by `generation`.
    under_way: Option<(u64, UnderWay)>,
    /// Counts the files that were begun or given up.
    generation: u64,
    answers: Vec<AnswerTo>,
}

impl SnapshotReceiver {
    /// A receiver with nothing under way.
    pub fn new() -> SnapshotReceiver {
        SnapshotReceiver::default()
    }

    /// Takes a frame. `applied`: what this member's group has committed. A snapshot that lies there
    /// and that the group did not take, because its leader was replaced meanwhile, does not
    /// count: the new leader may have nothing newer to offer.
    pub fn take(
        &mut self,
        sender: NodeId,
        transfer: TransferId,
        frame: TransferFrame,
        applied: Index,
    ) {
        match frame {
            TransferFrame::Offer(offer) => self.take_offer(sender, transfer, offer, applied),
            TransferFrame::Piece { offset, bytes } => {
                self.take_piece(sender, transfer, offset, bytes);
            }
        }
    }

    fn take_offer(
        &mut self,
        sender: NodeId,
        transfer: TransferId,
        offer: SnapshotOffer,
        applied: Index,
    ) {
        let answer = |answer| AnswerTo { sender, transfer, answer };
        if let Some(incoming) = &mut self.incoming {
            if transfer.term < incoming.transfer.term {
                return self.answers.push(answer(TransferAnswer::Refused));
            }
            if incoming.offer == offer {
                // The same file, perhaps from somebody else now: what is there counts.
                (incoming.sender, incoming.transfer) = (sender, transfer);
                incoming.idle_ticks = 0;
                let has = TransferAnswer::Has(incoming.written);
                return self.answers.push(answer(has));
            }
            if incoming.finishing || transfer <= incoming.transfer {
                return self.answers.push(answer(TransferAnswer::Refused));
            }
        }
        if self.stored == Some(offer) {
            return self.answers.push(answer(TransferAnswer::Stored));
        }
        if offer.size == 0 {
            return self.answers.push(answer(TransferAnswer::Refused));
        }
        if offer.name.index <= applied {
            return self.answers.push(answer(TransferAnswer::Unneeded));
        }
        self.give_up();
        self.work.push_back(ReceiveWork::Begin { name: offer.name, size: offer.size });
        self.incoming = Some(Incoming {
            sender,
            transfer,
            offer,
            taken: 0,
            written: 0,
            finishing: false,
            idle_ticks: 0,
        });
    }

    fn take_piece(&mut self, sender: NodeId, transfer: TransferId, offset: u64, bytes: Vec<u8>) {
        let Some(incoming) = &mut self.incoming else { return };
        if (incoming.sender, incoming.transfer) != (sender, transfer) || incoming.finishing {
            return;
        }
        incoming.idle_ticks = 0;
        // What was sent again may be here in part.
        let Some(here) = incoming.taken.checked_sub(offset) else { return };
        let end = offset.saturating_add(bytes.len() as u64);
        let fits = end <= incoming.offer.size
            && end.saturating_sub(incoming.written) <= SNAPSHOT_WINDOW_BYTES;
        if !fits || end <= incoming.taken {
            return;
        }
        let bytes = if here == 0 { bytes } else { bytes[here as usize..].to_vec() };
        let offset = std::mem::replace(&mut incoming.taken, end);
        self.work.push_back(ReceiveWork::Write { offset, bytes });
    }

    /// The next piece of work, when the one before was reported.
    pub fn next_work(&mut self) -> Option<ReceiveWork> {
        if self.under_way.is_some() {
            return None;
        }
        let work = self.work.pop_front()?;
        let kind = match &work {
            ReceiveWork::Begin { .. } => UnderWay::Begin,
            ReceiveWork::Write { offset, bytes } => UnderWay::Write(offset + bytes.len() as u64),
            ReceiveWork::Finish => UnderWay::Finish,
            ReceiveWork::Abandon => UnderWay::Abandon,
        };
        self.under_way = Some((self.generation, kind));
        Some(work)
    }

    /// The work that was handed out is done, or failed.
    pub fn work_done(&mut self, good: bool) {
        let (generation, kind) = self.under_way.take().expect("work was handed out");
        if generation != self.generation {
            // Of a file that was given up meanwhile.
            return;
        }
        match kind {
            UnderWay::Abandon => {}
            UnderWay::Begin | UnderWay::Write(_) if !good => self.refuse(),
            UnderWay::Begin => self.answer_progress(),
            UnderWay::Write(end) => self.written(end),
            UnderWay::Finish => self.finished(good),
        }
    }

    /// Takes the answers that are to be sent.
    pub fn take_answers(&mut self) -> Vec<AnswerTo> {
        std::mem::take(&mut self.answers)
    }

    /// Bytes that wait to be written.
    pub fn waiting_bytes(&self) -> u64 {
        self.incoming.as_ref().map_or(0, |incoming| incoming.taken - incoming.written)
    }

    fn written(&mut self, end: u64) {
        let Some(incoming) = &mut self.incoming else { return };
        incoming.written = end;
        if incoming.written == incoming.offer.size {
            incoming.finishing = true;
            self.work.push_back(ReceiveWork::Finish);
        } else {
            self.answer_progress();
        }
    }

    fn finished(&mut self, good: bool) {
        let Some(incoming) = self.incoming.take() else { return };
        if good {
            self.stored = Some(incoming.offer);
        }
        let answer = if good { TransferAnswer::Stored } else { TransferAnswer::Refused };
        self.answers.push(incoming.answer(answer));
    }

    /// Time passes: one that nobody sends any more is given up.
    pub fn tick(&mut self) {
        let Some(incoming) = &mut self.incoming else { return };
        if !incoming.finishing {
            incoming.idle_ticks += 1;
            if incoming.idle_ticks >= SNAPSHOT_PATIENCE_TICKS {
                self.give_up();
            }
        }
    }

    fn answer_progress(&mut self) {
        if let Some(incoming) = &self.incoming {
            self.answers.push(incoming.answer(TransferAnswer::Has(incoming.written)));
        }
    }

    fn refuse(&mut self) {
        if let Some(incoming) = &self.incoming {
            self.answers.push(incoming.answer(TransferAnswer::Refused));
            self.give_up();
        }
    }

    /// What waits to be written is not written any more.
    fn give_up(&mut self) {
        if self.incoming.take().is_some() {
            self.generation += 1;
            self.work.clear();
            self.work.push_back(ReceiveWork::Abandon);
        }
    }
}

impl Incoming {
    fn answer(&self, answer: TransferAnswer) -> AnswerTo {
        AnswerTo { sender: self.sender, transfer: self.transfer, answer }
    }
}
