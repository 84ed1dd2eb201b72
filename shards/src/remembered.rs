//! What a shard remembers of stamped requests: that they were done, and what they were answered.
//!
//! Replicated state: changed by entries alone, part of snapshots and of the digest. Bounded: the
//! oldest rows go first, and of what is gone each lane knows up to which number, so that nothing
//! that was forgotten is ever taken for something that was not done.

use crate::limits::{
    REMEMBERED_BYTES_MAX, REMEMBERED_LANES_MAX, REMEMBERED_REPLY_BYTES_MAX, REMEMBERED_ROW_BYTES,
};
use crate::stamp::{Lane, Stamp, take, take_u32, take_u64};
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What is known of a stamped request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recollection {
    /// It was done, and answered this.
    Answered(Vec<u8>),
    /// It was done; its answer is not known: too long to be kept, or never known here.
    Done,
    /// It is not known whether it was done: it is too long ago.
    Forgotten,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    stamp: Stamp,
    /// None when it is not known.
    reply: Option<SmallVec<[u8; 16]>>,
}

impl Row {
    fn bytes(&self) -> usize {
        REMEMBERED_ROW_BYTES + self.reply.as_ref().map_or(0, |reply| reply.len())
    }
}

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    rows: VecDeque<Row>,
    bytes: usize,
    /// Of each lane the greatest number that was forgotten. A lane of a waiting client may have no
    /// place here any more: the greatest of those of its process stands under [`u64::MAX`],
    /// and all up to it have forgotten all.
    gone: BTreeMap<Lane, u64>,
}

impl Remembered {
    /// A request was done, and answered this if that is known. Cost: constant.
    pub fn note(&mut self, stamp: Stamp, reply: Option<&[u8]>) {
        let reply = reply.filter(|reply| reply.len() <= REMEMBERED_REPLY_BYTES_MAX);
        let row = Row { stamp, reply: reply.map(SmallVec::from_slice) };
        self.bytes += row.bytes();
        self.rows.push_back(row);
        while self.bytes > REMEMBERED_BYTES_MAX
            && let Some(oldest) = self.rows.pop_front()
        {
            self.bytes -= oldest.bytes();
            self.forget(oldest.stamp);
        }
    }

    fn forget(&mut self, stamp: Stamp) {
        let Stamp { lane, sequence } = stamp;
        if let Some(gone) = self.gone.get_mut(&lane) {
            *gone = sequence.max(*gone);
            return;
        }
        // A node that starts again has answered, or given up, all that it asked before.
        self.gone.retain(|other, _| other.node != lane.node || other.process == lane.process);
        self.gone.insert(lane, sequence);
        if self.gone.len() > REMEMBERED_LANES_MAX
            && let Some((folded, _)) =
                self.gone.iter().find(|(lane, _)| lane.is_of_waiting() && lane.number != u64::MAX)
        {
            let folded = *folded;
            self.gone.remove(&folded);
            let all = self.gone.entry(Lane { number: u64::MAX, ..folded }).or_default();
            *all = folded.number.max(*all);
        }
    }

    fn may_be_gone(&self, stamp: &Stamp) -> bool {
        let Stamp { lane, sequence } = stamp;
        let all = Lane { number: u64::MAX, ..*lane };
        self.gone.get(lane).is_some_and(|gone| gone >= sequence)
            || lane.is_of_waiting() && self.gone.get(&all).is_some_and(|gone| *gone >= lane.number)
    }

    /// What is known of these requests. Of those that are not in the answer it is certain that no
    /// entry so far has done them. Cost: all rows are looked at.
    pub fn recall(&self, asked: &BTreeSet<Stamp>) -> Vec<(Stamp, Recollection)> {
        let mut known: BTreeMap<Stamp, Recollection> = BTreeMap::new();
        for row in self.rows.iter().filter(|row| asked.contains(&row.stamp)) {
            let recollection = match &row.reply {
                Some(reply) => Recollection::Answered(reply.to_vec()),
                None => Recollection::Done,
            };
            known.insert(row.stamp, recollection);
        }
        for stamp in asked.iter().filter(|stamp| self.may_be_gone(stamp)) {
            known.entry(*stamp).or_insert(Recollection::Forgotten);
        }
        known.into_iter().collect()
    }

    /// Is there nothing in it?
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.gone.is_empty()
    }

    /// Requests that are remembered.
    pub fn count(&self) -> usize {
        self.rows.len()
    }

    /// Its bytes, for snapshots and digests; what is equal has equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 + self.bytes);
        out.extend_from_slice(&(self.rows.len() as u32).to_le_bytes());
        for row in &self.rows {
            out.extend_from_slice(&row.stamp.encode());
            let length = row.reply.as_ref().map_or(u32::MAX, |reply| reply.len() as u32);
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(row.reply.as_deref().unwrap_or_default());
        }
        out.extend_from_slice(&(self.gone.len() as u32).to_le_bytes());
        for (lane, sequence) in &self.gone {
            lane.put(&mut out);
            out.extend_from_slice(&sequence.to_le_bytes());
        }
        out
    }

    /// Reads what [`Remembered::encode`] wrote; `None` when it did not.
    pub fn decode(mut bytes: &[u8]) -> Option<Remembered> {
        let input = &mut bytes;
        let mut remembered = Remembered::default();
        for _ in 0..take_u32(input)? {
            let stamp = Stamp { lane: Lane::take(input)?, sequence: take_u64(input)? };
            let reply = match take_u32(input)? {
                u32::MAX => None,
                length => Some(SmallVec::from_slice(take(input, length as usize)?)),
            };
            let row = Row { stamp, reply };
            remembered.bytes += row.bytes();
            remembered.rows.push_back(row);
        }
        for _ in 0..take_u32(input)? {
            let lane = Lane::take(input)?;
            remembered.gone.insert(lane, take_u64(input)?);
        }
        input.is_empty().then_some(remembered)
    }
}

#[cfg(test)]
impl Remembered {
    /// One with something of everything.
    pub(crate) fn example() -> Remembered {
        let lane = |number| Lane { node: crate::ids::NodeId(3), process: 5, number };
        let mut remembered = Remembered::default();
        remembered.note(Stamp { lane: lane(0), sequence: 1 }, Some(b"$-1\r\n"));
        remembered.note(Stamp { lane: lane(Lane::WAITS | 4), sequence: 2 }, None);
        remembered.forget(Stamp { lane: lane(1), sequence: 8 });
        remembered
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;

    fn lane(node: u64, number: u64) -> Lane {
        Lane { node: NodeId(node), process: 70 + node, number }
    }

    fn recall(remembered: &Remembered, stamp: Stamp) -> Option<Recollection> {
        let mut found = remembered.recall(&BTreeSet::from([stamp]));
        assert!(found.len() <= 1);
        found.pop().map(|(_, recollection)| recollection)
    }

    #[test]
    fn what_was_done_is_known_and_what_was_not_is_not() {
        let mut remembered = Remembered::default();
        let stamp = |number, sequence| Stamp { lane: lane(1, number), sequence };
        remembered.note(stamp(0, 1), Some(b":1\r\n"));
        remembered.note(stamp(0, 3), Some(&vec![0; REMEMBERED_REPLY_BYTES_MAX + 1]));
        remembered.note(stamp(1, 2), None);
        assert_eq!(
            recall(&remembered, stamp(0, 1)),
            Some(Recollection::Answered(b":1\r\n".to_vec()))
        );
        assert_eq!(recall(&remembered, stamp(0, 3)), Some(Recollection::Done));
        assert_eq!(recall(&remembered, stamp(1, 2)), Some(Recollection::Done));
        for unknown in [stamp(0, 2), stamp(0, 4), stamp(1, 1), stamp(2, 1)] {
            assert_eq!(recall(&remembered, unknown), None);
        }
    }

    #[test]
    fn memory_is_bounded_and_what_is_forgotten_is_never_taken_for_not_done() {
        let mut remembered = Remembered::default();
        let waiting = Stamp { lane: lane(1, Lane::WAITS | 5), sequence: 1 };
        remembered.note(waiting, Some(b"*0\r\n"));
        let many = 2 * REMEMBERED_BYTES_MAX / REMEMBERED_ROW_BYTES;
        for sequence in 1..=many as u64 {
            remembered.note(Stamp { lane: lane(1, 0), sequence }, Some(b"+OK\r\n"));
            assert!(remembered.bytes <= REMEMBERED_BYTES_MAX);
        }
        assert!(remembered.count() < many && remembered.count() > many / 4);
        let first = many as u64 - remembered.count() as u64;
        for sequence in 1..=many as u64 {
            let found = recall(&remembered, Stamp { lane: lane(1, 0), sequence });
            assert_eq!(found == Some(Recollection::Forgotten), sequence <= first, "{sequence}");
        }
        assert_eq!(recall(&remembered, waiting), Some(Recollection::Forgotten));
        let next = Stamp { sequence: 2, ..waiting };
        assert_eq!(recall(&remembered, next), None, "what a client waits for is not old");
        // The node starts again: what its process before has asked is nobody's.
        let fresh = Lane { process: 1, ..lane(1, 0) };
        for sequence in 1..=many as u64 {
            remembered.note(Stamp { lane: fresh, sequence }, None);
        }
        assert_eq!(remembered.gone.len(), 1);
    }

    #[test]
    fn clients_that_wait_are_many_and_bounded() {
        let mut remembered = Remembered::default();
        let count = 3 * REMEMBERED_LANES_MAX as u64;
        let stamp = |n: u64| Stamp { lane: lane(2, Lane::WAITS | n), sequence: 9 };
        for n in 0..count {
            remembered.note(stamp(n), None);
        }
        for sequence in 1..=(REMEMBERED_BYTES_MAX / REMEMBERED_ROW_BYTES) as u64 {
            remembered.note(Stamp { lane: lane(3, 0), sequence }, None);
        }
        assert!(remembered.gone.len() <= REMEMBERED_LANES_MAX + 1);
        for n in 0..count {
            assert_eq!(recall(&remembered, stamp(n)), Some(Recollection::Forgotten), "{n}");
        }
        let later = Stamp { sequence: 10, ..stamp(count - 1) };
        assert_eq!(recall(&remembered, later), None);
    }

    #[test]
    fn it_reads_back_and_every_cut_is_noticed() {
        assert_eq!(
            Remembered::decode(&Remembered::default().encode()),
            Some(Remembered::default())
        );
        let remembered = Remembered::example();
        let bytes = remembered.encode();
        assert_eq!(Remembered::decode(&bytes).as_ref(), Some(&remembered));
        for length in 0..bytes.len() {
            assert_eq!(Remembered::decode(&bytes[..length]), None, "{length}");
        }
        assert_eq!(Remembered::decode(&[&bytes[..], b"x"].concat()), None);
    }
}
