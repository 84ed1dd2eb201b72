//! Stamps of requests that one node sends to another: by them it is known, whatever becomes of the
//! node that ran a request, whether it took effect.
//!
//! A request that may write is stamped by the node that sends it on. The entry that it becomes says
//! whose operations are whose; what it was answered is kept by every replica
//! ([`crate::remembered`]) and can be asked for by its stamp. So a request whose answer was lost is
//! sent again only if it is certain that it never took effect.
//!
//! Sequence numbers grow along a *lane*, of which a core has one for all that is answered soon, and
//! one more for each client that waits (BLPOP): what waits long is old among what is not, and would
//! be taken for forgotten.

use crate::ids::NodeId;

/// A row of numbers that one core of one process gives to requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// The node.
    pub node: NodeId,
    /// Random bits of the process: a node that starts again counts anew.
    pub process: u64,
    /// Which of the process: a core, or with [`Lane::WAITS`] one client that waits.
    pub number: u64,
}

impl Lane {
    /// The bit of lanes of clients that wait.
    pub const WAITS: u64 = 1 << 63;
    /// Bytes of one.
    const BYTES: usize = 24;

    /// Is it of one client that waits?
    pub fn is_of_waiting(&self) -> bool {
        self.number & Lane::WAITS != 0
    }

    /// Appends its bytes.
    pub fn put(&self, out: &mut Vec<u8>) {
        for number in [self.node.0, self.process, self.number] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// Takes one off the front; `None` when it is not there.
    pub fn take(input: &mut &[u8]) -> Option<Lane> {
        let bytes = take(input, Lane::BYTES)?;
        let number = |at: usize| bytes[at..at + 8].try_into().ok().map(u64::from_le_bytes);
        Some(Lane { node: NodeId(number(0)?), process: number(8)?, number: number(16)? })
    }
}

/// What a request is known by, in the whole cluster and for all time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Whose number it is.
    pub lane: Lane,
    /// The number. Never 0.
    pub sequence: u64,
}

impl Stamp {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Lane::BYTES + 8);
        self.lane.put(&mut out);
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out
    }

    /// Reads what [`Stamp::encode`] wrote; `None` when it did not.
    pub fn decode(mut bytes: &[u8]) -> Option<Stamp> {
        let input = &mut bytes;
        let stamp = Stamp { lane: Lane::take(input)?, sequence: take_u64(input)? };
        input.is_empty().then_some(stamp)
    }
}

/// What an entry says of one stamped request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamped<'a> {
    /// The request.
    pub stamp: Stamp,
    /// How it is answered.
    pub answer: Answer<'a>,
}

/// Where the answer of a stamped request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// From an operation of the batch.
    Operation {
        /// Its place.
        place: u32,
        /// How its reply is written, in the driver's words.
        manner: u8,
    },
    /// It is known already.
    Given(&'a [u8]),
    /// It cannot be known: all that is remembered is that it was done.
    None,
}

const LANE: u8 = 0;
const OPERATION: u8 = 1;
const GIVEN: u8 = 2;
const NONE: u8 = 3;

/// Gathers what an entry says of stamped requests: few bytes each while they are of one lane.
#[derive(Clone, Debug, Default)]
pub struct Stamps {
    bytes: Vec<u8>,
    lane: Option<Lane>,
}

impl Stamps {
    /// Adds one. Those of operations come in the order of their places.
    pub fn push(&mut self, stamped: &Stamped<'_>) {
        let Stamp { lane, sequence } = stamped.stamp;
        if self.lane != Some(lane) {
            self.lane = Some(lane);
            self.bytes.push(LANE);
            lane.put(&mut self.bytes);
        }
        let (kind, manner) = match stamped.answer {
            Answer::Operation { manner, .. } => (OPERATION, manner),
            Answer::Given(_) => (GIVEN, 0),
            Answer::None => (NONE, 0),
        };
        self.bytes.extend_from_slice(&[kind, manner]);
        self.bytes.extend_from_slice(&sequence.to_le_bytes());
        match stamped.answer {
            Answer::Operation { place, .. } => {
                self.bytes.extend_from_slice(&place.to_le_bytes());
            }
            Answer::Given(reply) => {
                self.bytes.extend_from_slice(&(reply.len() as u32).to_le_bytes());
                self.bytes.extend_from_slice(reply);
            }
            Answer::None => {}
        }
    }

    /// Is there none?
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Its bytes.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets them.
    #[inline(always)]
    pub fn clear(&mut self) {
        if !self.bytes.is_empty() {
            self.bytes.clear();
            self.lane = None;
        }
    }
}

/// Reads what [`Stamps`] gathered, in order. Ends early at what is none.
#[derive(Clone, Debug, Default)]
pub struct StampReader<'a> {
    rest: &'a [u8],
    lane: Option<Lane>,
}

impl<'a> StampReader<'a> {
    /// Over these bytes.
    #[inline(always)]
    pub fn new(bytes: &'a [u8]) -> StampReader<'a> {
        StampReader { rest: bytes, lane: None }
    }

    fn read(&mut self) -> Option<Stamped<'a>> {
        let input = &mut self.rest;
        let mut kind = take(input, 1)?[0];
        if kind == LANE {
            self.lane = Some(Lane::take(input)?);
            kind = take(input, 1)?[0];
        }
        let manner = take(input, 1)?[0];
        let stamp = Stamp { lane: self.lane?, sequence: take_u64(input)? };
        let answer = match kind {
            OPERATION => Answer::Operation { place: take_u32(input)?, manner },
            GIVEN => {
                let length = take_u32(input)? as usize;
                Answer::Given(take(input, length)?)
            }
            NONE => Answer::None,
            _ => return None,
        };
        Some(Stamped { stamp, answer })
    }
}

impl<'a> Iterator for StampReader<'a> {
    type Item = Stamped<'a>;

    #[inline]
    fn next(&mut self) -> Option<Stamped<'a>> {
        if self.rest.is_empty() { None } else { self.read() }
    }
}

pub(crate) fn take<'a>(input: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(count)?;
    *input = rest;
    Some(taken)
}

pub(crate) fn take_u32(input: &mut &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(take(input, 4)?.try_into().ok()?))
}

pub(crate) fn take_u64(input: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(take(input, 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn lane(node: u64, number: u64) -> Lane {
        Lane { node: NodeId(node), process: 7 * node, number }
    }

    #[test]
    fn what_is_gathered_is_read_back_and_lanes_are_named_once() {
        let stamp = |lane, sequence| Stamp { lane, sequence };
        let (a, b) = (lane(1, 0), lane(2, Lane::WAITS | 9));
        let all = [
            Stamped { stamp: stamp(a, 1), answer: Answer::Operation { place: 0, manner: 1 } },
            Stamped { stamp: stamp(a, 2), answer: Answer::Operation { place: 7, manner: 0 } },
            Stamped { stamp: stamp(b, u64::MAX), answer: Answer::Given(b"+OK\r\n") },
            Stamped { stamp: stamp(b, 3), answer: Answer::None },
            Stamped { stamp: stamp(a, 3), answer: Answer::Given(b"") },
        ];
        let mut stamps = Stamps::default();
        all.iter().for_each(|stamped| stamps.push(stamped));
        assert_eq!(stamps.bytes().len(), 3 * 25 + 5 * 10 + 2 * 4 + 2 * 4 + 5);
        assert_eq!(StampReader::new(stamps.bytes()).collect::<Vec<_>>(), all);
        for length in 0..stamps.bytes().len() {
            let read: Vec<_> = StampReader::new(&stamps.bytes()[..length]).collect();
            assert!(read.len() < all.len() && all.starts_with(&read), "{length}");
        }
        stamps.clear();
        stamps.push(&all[1]);
        assert_eq!(StampReader::new(stamps.bytes()).collect::<Vec<_>>(), &all[1..2]);
        let one = all[2].stamp;
        assert_eq!(Stamp::decode(&one.encode()), Some(one));
        assert_eq!(Stamp::decode(&one.encode()[1..]), None);
    }
}
