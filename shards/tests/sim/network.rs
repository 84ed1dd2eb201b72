//! The network: frames between nodes are delayed, lost, repeated, overtaken and cut off.
//!
//! Requests of clients and their answers go over it too, but clients are on no side of a partition: an old leader that is
//! cut off from its followers is still asked.

use std::collections::{BTreeMap, BTreeSet};

use ringraft_shards::link::Stamp;
use ringraft_shards::raft::PeerMessage;

use crate::counts::Count;
use crate::plan::{Kind, Plan};
use crate::schedule::{Core, Event};
use crate::serve::TransactionMessage;
use crate::transfer::{Piece, PieceAnswer};

/// What nodes send each other.
#[derive(Clone)]
pub enum Payload {
    /// For a shard's group.
    Raft { shard: u16, message: PeerMessage },
    /// A piece of a snapshot.
    Piece { shard: u16, piece: Piece },
    /// For a participant or the coordinator.
    Transaction(TransactionMessage),
    /// It arrived.
    PieceAnswer { shard: u16, answer: PieceAnswer },
}

/// A payload on its way.
#[derive(Clone)]
pub struct Frame {
    pub from: u64,
    pub to: u64,
    /// The process that it is for; a later one never gets it: the connection was to the old one.
    pub to_incarnation: u64,
    pub stamp: Stamp,
    pub payload: Box<Payload>,
}

/// State of all links.
pub struct Network {
    /// Frames of a thousand that are lost, repeated, held up.
    loss: u64,
    duplicate: u64,
    reorder: u64,
    delay_us: u64,
    /// How many partitions cut a link (from, to).
    cut: BTreeMap<(u64, u64), u32>,
    slow: BTreeSet<(u64, u64)>,
    /// When the last frame of each link arrives: those behind it come later, unless something goes wrong.
    arrivals: BTreeMap<(u64, u64), u64>,
}

impl Network {
    pub fn new(plan: &Plan) -> Network {
        let mut chance = plan.chance(2);
        let mut rate =
            |kind, most| if plan.has(kind) { 1 + chance.below(most) } else { chance.below(1) };
        Network {
            loss: rate(Kind::Loss, 100),
            duplicate: rate(Kind::Duplicate, 100),
            reorder: rate(Kind::Reorder, 100),
            delay_us: 50 + rate(Kind::Reorder, 2000),
            cut: BTreeMap::new(),
            slow: BTreeSet::new(),
            arrivals: BTreeMap::new(),
        }
    }

    /// From now on all is well.
    pub fn calm(&mut self) {
        (self.loss, self.duplicate, self.reorder) = (0, 0, 0);
        self.cut.clear();
        self.slow.clear();
    }

    /// Cuts links.
    pub fn cut(&mut self, links: &[(u64, u64)]) {
        for link in links {
            *self.cut.entry(*link).or_default() += 1;
        }
    }

    /// Takes a cut back.
    pub fn mend(&mut self, links: &[(u64, u64)]) {
        for link in links {
            if let Some(count) = self.cut.get_mut(link) {
                *count -= 1;
                if *count == 0 {
                    self.cut.remove(link);
                }
            }
        }
    }

    /// Makes a link slow, or normal again.
    pub fn set_slow(&mut self, link: (u64, u64), slow: bool) {
        if slow {
            self.slow.insert(link);
        } else {
            self.slow.remove(&link);
        }
    }

    fn is_cut(&self, link: (u64, u64)) -> bool {
        self.cut.contains_key(&link)
    }
}

impl Core {
    /// Sends a frame: it arrives late, twice, or never.
    pub fn send(&mut self, frame: Frame) {
        self.count(Count::FramesSent);
        let link = (frame.from, frame.to);
        if self.network.is_cut(link) {
            self.count(Count::FramesCut);
            return;
        }
        if self.chance.below(1000) < self.network.loss {
            self.count(Count::FramesLost);
            return;
        }
        if self.chance.below(1000) < self.network.duplicate {
            self.count(Count::FramesDuplicated);
            let delay_us = self.frame_delay(link);
            self.after(delay_us, Event::Frame { frame: Box::new(frame.clone()) });
        }
        let delay_us = self.frame_delay(link);
        self.after(delay_us, Event::Frame { frame: Box::new(frame) });
    }

    fn frame_delay(&mut self, link: (u64, u64)) -> u64 {
        let mut delay_us = self.around(self.network.delay_us);
        if self.network.slow.contains(&link) {
            delay_us += 20_000 + self.chance.below(100_000);
        }
        let last_us = self.network.arrivals.entry(link).or_default();
        if self.chance.below(1000) < self.network.reorder {
            // Others overtake it.
            self.count(Count::FramesDelayed);
            return delay_us + self.chance.below(30_000);
        }
        *last_us = (self.now_us + delay_us).max(*last_us);
        *last_us - self.now_us
    }

    /// Delay of a request or an answer; `None`: it is lost.
    pub fn client_delay(&mut self) -> Option<u64> {
        let lost = self.chance.below(1000) < self.network.loss / 4;
        let delay_us = self.around(self.network.delay_us);
        (!lost).then_some(delay_us)
    }
}
