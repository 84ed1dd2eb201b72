//! Replies of one connection, sent in the order of its requests whatever the order they are
//! finished in.
//!
//! A reply whose turn it is goes straight into the output. One that is early is parked in a side
//! buffer until the replies before it are there. Without early replies nothing is copied and
//! nothing allocated.
//!
//! What is too long to be written at once has a rest ([`Rest`]), which keeps its place between the
//! bytes before it and those behind it. A slice of it is written when everything before it is sent.

use crate::limits::SHARED_MESSAGE_BYTES_MIN;
use crate::resp::listing::{LongReply, Rest};
use std::collections::VecDeque;
use std::sync::Arc;

/// Where a parked reply lies in `side`.
type Parked = std::ops::Range<usize>;

/// What lies between the bytes of an output.
#[derive(Debug)]
enum Inset {
    /// A message that other connections have too.
    Message(Arc<[u8]>),
    /// The rest of a long reply.
    Rest(Box<Rest>),
}

impl Inset {
    /// What of it can be sent.
    fn bytes(&self) -> &[u8] {
        match self {
            Inset::Message(bytes) => bytes,
            Inset::Rest(rest) => rest.bytes(),
        }
    }
}

/// Output of a connection and the replies still missing from it.
#[derive(Debug, Default)]
pub struct Replies {
    /// Bytes to send, in order.
    out: Vec<u8>,
    /// How many of them were sent.
    sent: usize,
    /// The sequence number that the next request gets.
    next: u32,
    /// The sequence number of the reply that is to be written next.
    head: u32,
    /// Early replies, if there are any.
    early: Option<Box<Early>>,
    /// What few connections have, and these seldom.
    rare: Option<Box<Rare>>,
    /// Bytes that were in `out` and were sent and removed.
    removed: usize,
}

/// Replies that are written before it is their turn.
#[derive(Debug, Default)]
struct Early {
    /// Element `i` is that of `head + 1 + i`, its place in `side` once it is written.
    parked: VecDeque<Option<Parked>>,
    side: Vec<u8>,
}

/// Replies that are not sent, or not as one piece, and messages between them.
#[derive(Debug, Default)]
struct Rare {
    /// Requests whose replies the client does not want (CLIENT REPLY), in order.
    muted: VecDeque<u32>,
    /// What lies between bytes of `out`, in order, each with the bytes that `out` had got in all
    /// when it came.
    insets: VecDeque<(usize, Inset)>,
    /// Rests of replies that are parked, with the requests' numbers.
    parked_rests: Vec<(u32, Box<Rest>)>,
    /// Rests that are not all sent.
    rest_count: u32,
    /// Messages that must not overtake the reply of a subscription, while one is awaited.
    withheld: Option<Vec<Arc<[u8]>>>,
    /// Bytes of the first inset that were sent.
    inset_sent: usize,
    /// Bytes of all of them, and of messages withheld, that are there and were not.
    inset_bytes: usize,
}

impl Rare {
    fn is_empty(&self) -> bool {
        self.muted.is_empty()
            && self.insets.is_empty()
            && self.parked_rests.is_empty()
            && self.withheld.is_none()
    }

    /// The first inset is a rest that is written and sent.
    fn end_rest(&mut self) {
        self.rest_count -= 1;
        self.insets.pop_front();
    }
}

impl Replies {
    /// Takes the sequence number of a new request.
    #[inline(always)]
    pub fn expect(&mut self) -> u32 {
        let sequence = self.next;
        self.next = self.next.wrapping_add(1);
        sequence
    }

    /// Takes the sequence number of a request whose reply is not to be sent.
    pub fn expect_muted(&mut self) -> u32 {
        let sequence = self.expect();
        self.rare().muted.push_back(sequence);
        sequence
    }

    /// Does not send the reply of a request that is not answered yet and younger than every muted
    /// one.
    pub fn mute(&mut self, sequence: u32) {
        let muted = &mut self.rare().muted;
        if muted.back() != Some(&sequence) {
            muted.push_back(sequence);
        }
    }

    /// Sends the reply of a muted request after all.
    pub fn unmute(&mut self, sequence: u32) {
        if let Some(rare) = &mut self.rare {
            rare.muted.retain(|muted| *muted != sequence);
        }
        self.drop_rare();
    }

    #[cold]
    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Requests whose reply is not written or parked behind one that is not.
    #[inline(always)]
    pub fn unfinished(&self) -> u32 {
        self.next.wrapping_sub(self.head)
    }

    /// The sequence number that the next request gets.
    pub fn next_sequence(&self) -> u32 {
        self.next
    }

    /// Are the replies of all requests before this one in the output?
    pub fn is_reached(&self, sequence: u32) -> bool {
        (sequence.wrapping_sub(self.head) as i32) <= 0
    }

    /// Is the reply of a request, and every one before it, in the output?
    #[inline(always)]
    pub fn is_written(&self, sequence: u32) -> bool {
        (sequence.wrapping_sub(self.head) as i32) < 0
    }

    /// Writes the reply of a request. Each request is written once. Is it sent? Else nobody wants
    /// it.
    #[inline(always)]
    pub fn write(&mut self, sequence: u32, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        if self.rare.is_some() {
            return self.write_unless_muted(sequence, write);
        }
        self.write_next_or_early(sequence, write);
        true
    }

    #[inline(always)]
    fn write_next_or_early(&mut self, sequence: u32, write: impl FnOnce(&mut Vec<u8>)) {
        if sequence == self.head {
            write(&mut self.out);
            self.advance();
        } else {
            self.park(sequence, write);
        }
    }

    #[cold]
    fn write_unless_muted(&mut self, sequence: u32, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let muted = &mut self.rare.get_or_insert_default().muted;
        let behind = |muted: &u32| (muted.wrapping_sub(sequence) as i32).cmp(&0);
        let place = muted.binary_search_by(behind).ok();
        let Some(place) = place else {
            self.write_next_or_early(sequence, write);
            return true;
        };
        muted.remove(place);
        // What it says is of no interest, what it does is.
        write(&mut Vec::new());
        self.write_next_or_early(sequence, |_| ());
        self.drop_rare();
        false
    }

    /// Gives back what is rarely needed, once it is not.
    fn drop_rare(&mut self) {
        self.rare = self.rare.take().filter(|rare| !rare.is_empty());
    }

    /// Keeps the rest of a reply that was just written, behind its beginning.
    #[cold]
    pub fn put_rest(&mut self, sequence: u32, rest: Box<Rest>) {
        let (is_written, at) = (self.is_written(sequence), self.removed + rest.at);
        let rare = self.rare();
        rare.rest_count += 1;
        if is_written {
            // Replies that were parked until this one was written are behind it already, with their
            // rests.
            let place = rare.insets.partition_point(|(other, _)| *other <= at);
            rare.insets.insert(place, (at, Inset::Rest(rest)));
        } else {
            rare.parked_rests.push((sequence, rest));
        }
    }

    /// Is a reply not written to its end?
    #[inline(always)]
    pub fn has_rest(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.rest_count > 0)
    }

    /// Is all before a rest sent, so that a slice of it can be written?
    #[cold]
    pub fn rest_is_next(&self) -> bool {
        let here = self.removed + self.sent;
        let first = self.rare.as_ref().and_then(|rare| rare.insets.front());
        matches!(first, Some((at, Inset::Rest(_))) if *at == here)
    }

    /// Writes a slice of the rest that is next to be sent, when all before it is. Returns its size,
    /// and what is to be noted of the reply when that was its last one.
    #[cold]
    pub fn write_slice(&mut self) -> (usize, Option<Box<LongReply>>) {
        let at = self.removed + self.sent;
        let Some(rare) = &mut self.rare else { return (0, None) };
        let slice = match rare.insets.front_mut() {
            Some((here, Inset::Rest(rest))) if *here == at && rest.bytes().is_empty() => {
                let size = rest.write_slice();
                rare.inset_bytes += size;
                let noted = if rest.is_whole() { rest.noted.take() } else { None };
                if size == 0 && rest.is_whole() {
                    rare.end_rest();
                }
                (size, noted)
            }
            _ => (0, None),
        };
        self.drop_rare();
        slice
    }

    #[inline(always)]
    fn advance(&mut self) {
        self.head = self.head.wrapping_add(1);
        if self.early.is_some() {
            self.unpark();
        }
    }

    fn unpark(&mut self) {
        let Some(early) = &mut self.early else { return };
        while let Some(Some(range)) = early.parked.pop_front() {
            self.out.extend_from_slice(&early.side[range]);
            if let Some(rare) = &mut self.rare {
                unpark_rest(rare, self.head, self.removed + self.out.len());
            }
            self.head = self.head.wrapping_add(1);
        }
        if early.parked.is_empty() {
            early.side.clear();
        }
    }

    fn park(&mut self, sequence: u32, write: impl FnOnce(&mut Vec<u8>)) {
        let place = sequence.wrapping_sub(self.head) as usize - 1;
        let early = self.early.get_or_insert_default();
        let start = early.side.len();
        write(&mut early.side);
        if early.parked.len() <= place {
            early.parked.resize(place + 1, None);
        }
        assert!(early.parked[place].is_none(), "request {sequence} was answered twice");
        early.parked[place] = Some(start..early.side.len());
    }

    /// Writes what answers no request (MONITOR's lines), after all replies written so far.
    pub fn push(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Bytes to send.
    #[inline(always)]
    pub fn unsent(&self) -> &[u8] {
        match &self.rare {
            None => &self.out[self.sent..],
            Some(rare) => self.unsent_before(rare),
        }
    }

    #[cold]
    fn unsent_before<'a>(&'a self, rare: &'a Rare) -> &'a [u8] {
        let Some((at, inset)) = rare.insets.front() else { return &self.out[self.sent..] };
        match at - self.removed {
            here if here == self.sent => &inset.bytes()[rare.inset_sent..],
            here => &self.out[self.sent..here],
        }
    }

    /// Appends a message that other connections get too, after all replies written so far. A long
    /// one is not copied.
    pub fn push_message(&mut self, message: &Arc<[u8]>) {
        if let Some(rare) = &mut self.rare
            && let Some(withheld) = &mut rare.withheld
        {
            rare.inset_bytes += message.len();
            return withheld.push(message.clone());
        }
        if message.len() < SHARED_MESSAGE_BYTES_MIN {
            return self.out.extend_from_slice(message);
        }
        let at = self.removed + self.out.len();
        let rare = self.rare();
        rare.inset_bytes += message.len();
        rare.insets.push_back((at, Inset::Message(message.clone())));
    }

    /// Keeps messages back from now on, until a subscription's reply is written.
    pub fn withhold(&mut self) {
        self.rare().withheld.get_or_insert_default();
    }

    /// Appends the messages that were kept back.
    pub fn release_withheld(&mut self) {
        let Some(rare) = &mut self.rare else { return };
        let messages = rare.withheld.take().unwrap_or_default();
        rare.inset_bytes -= messages.iter().map(|message| message.len()).sum::<usize>();
        messages.iter().for_each(|message| self.push_message(message));
        self.drop_rare();
    }

    /// Bytes of memory that wait to be sent, parked ones included.
    #[inline(always)]
    pub fn waiting_bytes(&self) -> usize {
        let early = self.early.as_ref().map_or(0, |early| early.side.len());
        let rare = self.rare.as_ref().map_or(0, |rare| rare.inset_bytes);
        self.out.len() - self.sent + early + rare
    }

    /// Notes that `count` bytes were sent.
    #[inline(always)]
    pub fn sent(&mut self, count: usize) {
        if self.rare.is_some() && self.sent_of_inset(count) {
            return self.drop_rare();
        }
        self.sent += count;
        if self.sent == self.out.len() {
            self.removed += self.out.len();
            self.out.clear();
            self.sent = 0;
        } else if self.sent > self.out.len() / 2 {
            self.removed += self.sent;
            self.out.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Were these bytes of an inset?
    #[cold]
    fn sent_of_inset(&mut self, count: usize) -> bool {
        let here = self.removed + self.sent;
        let Some(rare) = &mut self.rare else { return false };
        let Some((_, inset)) = rare.insets.front_mut().filter(|(at, _)| *at == here) else {
            return false;
        };
        rare.inset_sent += count;
        rare.inset_bytes -= count;
        if rare.inset_sent < inset.bytes().len() {
            return true;
        }
        rare.inset_sent = 0;
        match inset {
            Inset::Rest(rest) if !rest.is_whole() => rest.taken(),
            Inset::Rest(_) => rare.end_rest(),
            Inset::Message(_) => {
                rare.insets.pop_front();
            }
        }
        true
    }

    /// Drops what would be sent.
    pub fn discard(&mut self) {
        self.removed += self.out.len();
        self.out = Vec::new();
        self.sent = 0;
        if let Some(rare) = &mut self.rare {
            let withheld = rare.withheld.take().map(|_| Vec::new());
            **rare = Rare { muted: std::mem::take(&mut rare.muted), withheld, ..Rare::default() };
        }
        self.drop_rare();
    }

    /// Gives memory back when there is nothing to send.
    pub fn shrink(&mut self) {
        if self.out.is_empty() {
            self.out = Vec::new();
        }
        self.early = self.early.take().filter(|early| !early.parked.is_empty());
    }

    /// Bytes that the output buffer can hold without growing.
    pub fn capacity(&self) -> usize {
        self.out.capacity()
    }

    /// Bytes of memory held.
    pub fn memory(&self) -> usize {
        let early = self.early.as_ref().map_or(0, |early| {
            size_of::<Early>()
                + early.side.capacity()
                + early.parked.capacity() * size_of::<Option<Parked>>()
        });
        let rare = self.rare.as_ref().map_or(0, |rare| {
            size_of::<Rare>()
                + rare.muted.capacity() * 4
                + rare.inset_bytes
                + rare.rest_count as usize * size_of::<Rest>()
        });
        self.out.capacity() + early + rare
    }
}

/// The reply of a request was just unparked and ends at `at`: its rest follows, if it has one.
fn unpark_rest(rare: &mut Rare, sequence: u32, at: usize) {
    if let Some(place) = rare.parked_rests.iter().position(|(number, _)| *number == sequence) {
        let (_, rest) = rare.parked_rests.swap_remove(place);
        rare.insets.push_back((at, Inset::Rest(rest)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::listing::{Listing, Shown};
    use crate::resp::reply::{Protocol, Reply};
    use proptest::prelude::*;
    use ringraft_shards::ids::DatabaseIndex;
    use ringraft_shards::keyspace::{Key, KeyHasher, Keyspace};
    use ringraft_shards::random::Random;
    use ringraft_shards::value::Value;
    use ringraft_shards::value::list::{End, List};

    #[test]
    fn muted_replies_keep_their_place_but_are_not_sent() {
        let mut replies = Replies::default();
        let first = replies.expect_muted();
        let second = replies.expect();
        let third = replies.expect_muted();
        let fourth = replies.expect_muted();
        replies.write(second, |out| out.push(b'2'));
        replies.write(third, |out| out.push(b'3'));
        assert_eq!((replies.unsent(), replies.unfinished()), (&b""[..], 4));
        replies.write(first, |out| out.push(b'1'));
        assert_eq!((replies.unsent(), replies.unfinished()), (&b"2"[..], 1));
        replies.unmute(fourth);
        replies.write(fourth, |out| out.push(b'4'));
        assert_eq!((replies.unsent(), replies.unfinished()), (&b"24"[..], 0));
    }

    /// Shared messages and others leave in the order in which they came, whatever is sent at a
    /// time.
    #[test]
    fn shared_messages_keep_their_place() {
        const LONG: usize = SHARED_MESSAGE_BYTES_MIN;
        for step in [1, 2, 3, LONG / 2, LONG, 3 * LONG] {
            let mut replies = Replies::default();
            let mut expected = Vec::new();
            let mut left = Vec::new();
            for n in 0..40u8 {
                if n % 3 == 0 {
                    replies.push_message(&Arc::from(vec![n; LONG]));
                    expected.extend_from_slice(&[n; LONG]);
                    replies.push_message(&Arc::from([n; 5]));
                    expected.extend_from_slice(&[n; 5]);
                } else {
                    let sequence = replies.expect();
                    replies.write(sequence, |out| out.push(n));
                    expected.push(n);
                }
                if n % 4 == 0 {
                    let some = replies.unsent().len().min(step);
                    left.extend_from_slice(&replies.unsent()[..some]);
                    replies.sent(some);
                }
            }
            while !replies.unsent().is_empty() {
                let some = replies.unsent().len().min(step);
                left.extend_from_slice(&replies.unsent()[..some]);
                replies.sent(some);
            }
            assert_eq!(left, expected);
            assert_eq!(replies.waiting_bytes(), 0);
        }
    }

    #[test]
    fn messages_wait_for_the_reply_of_a_subscription() {
        let mut replies = Replies::default();
        let sequence = replies.expect();
        replies.withhold();
        replies.push_message(&Arc::from(&b"one"[..]));
        replies.push_message(&Arc::from(vec![b'x'; SHARED_MESSAGE_BYTES_MIN]));
        assert_eq!(
            (replies.unsent(), replies.waiting_bytes()),
            (&b""[..], 3 + SHARED_MESSAGE_BYTES_MIN)
        );
        replies.write(sequence, |out| out.extend_from_slice(b"subscribed "));
        replies.release_withheld();
        replies.push_message(&Arc::from(&b"two"[..]));
        assert_eq!(replies.unsent(), b"subscribed one");
        replies.sent(b"subscribed one".len());
        assert_eq!(replies.unsent().len(), SHARED_MESSAGE_BYTES_MIN);
        replies.sent(SHARED_MESSAGE_BYTES_MIN);
        assert_eq!(replies.unsent(), b"two");
        replies.sent(3);
        assert_eq!(replies.waiting_bytes(), 0);
        replies.withhold();
        replies.push_message(&Arc::from(&b"lost"[..]));
        replies.discard();
        replies.release_withheld();
        assert_eq!((replies.unsent(), replies.waiting_bytes()), (&b""[..], 0));
    }

    /// Writes the beginning of a long reply and returns its rest, and all of it as it is written at
    /// once.
    fn long_reply(list: List<'_>, out: &mut Vec<u8>) -> (Option<Box<Rest>>, Vec<u8>) {
        let (mut rest, mut whole) = (None, Vec::new());
        let listing = Listing::from(0, list.count(), Shown::Names);
        Reply::new(&mut whole, Protocol::Resp2).list(Value::List(list), listing);
        let mut reply = Reply::with_rest(out, Protocol::Resp2, Some(&mut rest));
        reply.list(Value::List(list), listing);
        (rest, whole)
    }

    /// Replies with rests, in whatever order they are written, muted or not, with messages between
    /// them.
    #[test]
    fn rests_keep_their_place() {
        let mut keyspace = Keyspace::new(KeyHasher::new(1));
        let key = Key::new(b"list", keyspace.hasher().hash(b"list"));
        let mut edit = keyspace.edit(DatabaseIndex(0), 0);
        let mut list = edit.list_mut(&key).expect("a list or nothing");
        for n in 0..200 {
            list.push(End::Back, n.to_string().repeat(400).as_bytes());
        }
        for seed in 0..60 {
            let mut random = Random::new(seed);
            let mut replies = Replies::default();
            let count = 1 + random.below(12) as usize;
            let is_muted: Vec<bool> = (0..count).map(|_| random.below(5) == 0).collect();
            let mut order: Vec<u32> = is_muted
                .iter()
                .map(|muted| if *muted { replies.expect_muted() } else { replies.expect() })
                .collect();
            for at in (1..count).rev() {
                order.swap(at, random.below(at as u64 + 1) as usize);
            }
            let (mut expected, mut parts) = (Vec::new(), vec![Vec::new(); count]);
            let (mut received, mut messages) = (Vec::new(), 0);
            let take = |replies: &mut Replies, received: &mut Vec<u8>, most: u64, by: u64| {
                for _ in 0..most {
                    if replies.unsent().is_empty() && replies.write_slice().0 == 0 {
                        return;
                    }
                    let some = (by as usize).min(replies.unsent().len());
                    received.extend_from_slice(&replies.unsent()[..some]);
                    replies.sent(some);
                }
            };
            for sequence in order {
                let mut rest = None;
                let part = &mut parts[sequence as usize];
                let is_sent = replies.write(sequence, |out| match random.below(2) {
                    0 => {
                        out.extend_from_slice(format!("+{sequence}\r\n").as_bytes());
                        *part = format!("+{sequence}\r\n").into_bytes();
                    }
                    _ => (rest, *part) = long_reply(list.list(), out),
                });
                assert_eq!(is_sent, !is_muted[sequence as usize]);
                if let Some(rest) = rest.filter(|_| is_sent) {
                    replies.put_rest(sequence, rest);
                }
                let by = 1 + random.below(100_000);
                take(&mut replies, &mut received, random.below(6), by);
                if replies.unfinished() == 0 {
                    messages = 1 + random.below(3);
                }
            }
            let message: Arc<[u8]> = Arc::from(vec![b'm'; SHARED_MESSAGE_BYTES_MIN]);
            (0..messages).for_each(|_| replies.push_message(&message));
            take(&mut replies, &mut received, u64::MAX, 1 << 20);
            for (part, muted) in parts.iter().zip(&is_muted) {
                expected.extend_from_slice(if *muted { b"" } else { part });
            }
            expected.extend((0..messages).flat_map(|_| message.iter()));
            assert!(received == expected, "seed {seed}");
            assert_eq!((replies.waiting_bytes(), replies.has_rest()), (0, false), "seed {seed}");
        }
    }

    proptest! {
        #[test]
        fn replies_leave_in_request_order(order in Just((0u32..20).collect::<Vec<_>>()).prop_shuffle()) {
            let mut replies = Replies { next: u32::MAX - 5, head: u32::MAX - 5, ..Replies::default() };
            let first = replies.head;
            for n in 0..20u32 {
                prop_assert_eq!(replies.expect(), first.wrapping_add(n));
            }
            for (done, n) in order.iter().enumerate() {
                replies.write(first.wrapping_add(*n), |out| out.push(*n as u8));
                let ready = (0..20).take_while(|n| order[..=done].contains(n)).count();
                prop_assert_eq!(replies.unfinished() as usize, 20 - ready);
                prop_assert_eq!(replies.unsent(), (0..ready as u8).collect::<Vec<_>>());
            }
            replies.sent(20);
            prop_assert_eq!(replies.waiting_bytes(), 0);
        }
    }
}
