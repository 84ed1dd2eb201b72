//! Order on the way from one node to another: frames are numbered, and what comes late is dropped.
//!
//! raft-rs 0.7.0 has trouble with messages that overtake each other or come twice (see `raft/mod.rs`). A transport that
//! may reorder, repeat or reconnect stamps each frame on its way out and asks the receiver's filter on its way in;
//! what is left arrives in the order sent, or not at all.
//!
//! Not here: connections, frames' contents, resending what was lost.

/// Place of a frame in everything that one node has ever sent to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Which life of the link: greater for every connection and every start of the sender.
    pub incarnation: u64,
    /// Number of the frame in that life, from 1.
    pub number: u64,
}

/// The sending end.
#[derive(Clone, Debug)]
pub struct LinkSender {
    last: Stamp,
}

impl LinkSender {
    /// A new life of a link. `incarnation` is greater than that of any earlier life.
    pub fn new(incarnation: u64) -> LinkSender {
        LinkSender { last: Stamp { incarnation, number: 0 } }
    }

    /// The stamp of the next frame.
    pub fn stamp(&mut self) -> Stamp {
        self.last.number += 1;
        self.last
    }
}

/// The receiving end. It outlives connections.
#[derive(Clone, Debug, Default)]
pub struct LinkReceiver {
    last: Option<Stamp>,
}

impl LinkReceiver {
    /// May this frame pass? Not when one that was sent later, or this one itself, has passed before.
    pub fn accept(&mut self, stamp: Stamp) -> bool {
        let newer = self.last.is_none_or(|last| stamp > last);
        if newer {
            self.last = Some(stamp);
        }
        newer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_late_or_twice_is_dropped() {
        let mut sender = LinkSender::new(7);
        let stamps: Vec<Stamp> = (0..4).map(|_| sender.stamp()).collect();
        let mut receiver = LinkReceiver::default();
        let passed = [0, 0, 2, 1, 2, 3].map(|i| receiver.accept(stamps[i]));
        assert_eq!(passed, [true, false, true, false, false, true]);
    }

    #[test]
    fn a_new_life_of_the_link_begins_again_and_ends_the_old_one() {
        let (mut old, mut new) = (LinkSender::new(1), LinkSender::new(2));
        let mut receiver = LinkReceiver::default();
        assert!(receiver.accept(old.stamp()) && receiver.accept(old.stamp()));
        assert!(receiver.accept(new.stamp()));
        assert!(!receiver.accept(old.stamp()));
        assert!(receiver.accept(new.stamp()));
    }
}
