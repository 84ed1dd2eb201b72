//! What a link has to send: items that wait, in their classes, and bytes that the socket has not
//! taken yet.
//!
//! Everything has a bound in bytes. Votes, heartbeats and answers overtake the rest and have a
//! bound of their own; appends wait as they are (their entries lie in the logs' memory anyway)
//! while too much is sent and not answered; what does not find room is given back to whoever sent
//! it.

use std::collections::{HashMap, VecDeque};
use std::io::IoSlice;

use bytes::Bytes;
use raft::eraftpb::{Message, MessageType};

use super::frame::{FrameKind, head};
use super::item::{Class, Item, Pieces, put_all};
use crate::ids::{MonotonicTime, ShardId};
use crate::limits::{
    LINK_ANSWER_US, LINK_APPENDS_WAITING_BYTES_MAX, LINK_ENCODED_BYTES_MAX,
    LINK_OTHERS_WAITING_BYTES_MAX, LINK_PART_BYTES, LINK_TURN_BYTES, LINK_UNANSWERED_BYTES_MAX,
    LINK_URGENT_BYTES_MAX,
};

/// An item found no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Items of one class, and their bytes.
#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
}

impl Queue {
    /// One larger item may wait alone.
    fn push(&mut self, item: Item, bound: usize) -> Result<(), Full> {
        let bytes = item.bytes();
        if self.bytes + bytes > bound && !self.items.is_empty() {
            return Err(Full);
        }
        self.bytes += bytes;
        self.items.push_back(item);
        Ok(())
    }

    fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.bytes -= item.bytes();
        Some(item)
    }
}

/// Appends of one group.
#[derive(Debug, Default)]
struct Group {
    /// Of the last one that was to be sent.
    term: u64,
    /// Those that are not answered: last index and bytes of each, in order.
    unanswered: VecDeque<(u64, usize)>,
}

/// A group, and which of its members gets the appends.
type GroupId = (ShardId, u64);

/// The sending half of a link.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Frames so far.
    frames: u64,
    urgent: Queue,
    appends: Queue,
    others: Queue,
    /// A long item on its way: what is left of it, its length, and how much has gone.
    parts: Option<(VecDeque<Bytes>, u64, u64)>,
    groups: HashMap<GroupId, Group>,
    unanswered_bytes: usize,
    /// When an append was answered last, or none was under way.
    answered: MonotonicTime,
    encoded: VecDeque<Bytes>,
    encoded_bytes: usize,
}

impl Outbox {
    pub fn push(&mut self, item: Item) -> Result<(), Full> {
        match item.class() {
            Class::Urgent => self.urgent.push(item, LINK_URGENT_BYTES_MAX),
            Class::Appends => {
                self.drop_older(&item);
                self.appends.push(item, LINK_APPENDS_WAITING_BYTES_MAX)
            }
            Class::Others => self.others.push(item, LINK_OTHERS_WAITING_BYTES_MAX),
        }
    }

    /// What waits of a group's earlier terms is of no use any more: its receiver knows of a later
    /// one, or learns of it by this item. It must not wait behind them, nor for their answers, of
    /// which there will be none.
    fn drop_older(&mut self, item: &Item) {
        let Item::Raft { shard, message } = item else { return };
        let id = (*shard, message.0.to);
        let group = self.groups.entry(id).or_default();
        if message.0.term <= group.term {
            return;
        }
        group.term = message.0.term;
        self.unanswered_bytes -= group.unanswered.drain(..).map(|(_, bytes)| bytes).sum::<usize>();
        let is_other = |item: &Item| match item {
            Item::Raft { shard, message } => (*shard, message.0.to) != id,
            _ => true,
        };
        self.appends.items.retain(is_other);
        self.appends.bytes = self.appends.items.iter().map(Item::bytes).sum();
    }

    /// A message came in: an answer to appends makes room for more.
    pub fn heard(&mut self, shard: ShardId, message: &Message, now: MonotonicTime) {
        if message.msg_type != MessageType::MsgAppendResponse {
            return;
        }
        self.answered = now;
        let Some(group) = self.groups.get_mut(&(shard, message.from)) else { return };
        let waiting = &mut group.unanswered;
        // After a refusal raft-rs counts on nothing that it has sent.
        while let Some((last, bytes)) = waiting.front().copied()
            && (message.reject || last <= message.index)
        {
            self.unanswered_bytes -= bytes;
            waiting.pop_front();
        }
    }

    pub fn unanswered_bytes(&self) -> usize {
        self.unanswered_bytes
    }

    /// Bytes that wait, as items and encoded.
    pub fn waiting_bytes(&self) -> usize {
        let parts = self.parts.as_ref().map_or(0, |(_, length, gone)| (length - gone) as usize);
        self.encoded_bytes + self.urgent.bytes + self.appends.bytes + self.others.bytes + parts
    }

    /// Bytes of transactions' and nodes' messages that wait as items. They pass appends that are not
    /// answered.
    pub fn others_waiting_bytes(&self) -> usize {
        self.others.bytes
    }

    /// Makes frames of what waits, as far as there is room.
    pub fn encode(&mut self, now: MonotonicTime) {
        if self.unanswered_bytes == 0 {
            self.answered = now;
        } else if now.0.saturating_sub(self.answered.0) >= LINK_ANSWER_US {
            self.groups.values_mut().for_each(|group| group.unanswered.clear());
            (self.unanswered_bytes, self.answered) = (0, now);
        }
        loop {
            let has_room = self.encoded_bytes < LINK_ENCODED_BYTES_MAX;
            let urgent_room = self.encoded_bytes < LINK_ENCODED_BYTES_MAX + LINK_URGENT_BYTES_MAX;
            let may_go = has_room && self.parts.is_none();
            let urgent_may_go = urgent_room && !self.urgent.items.is_empty();
            if (urgent_may_go || may_go) && self.encode_turn(has_room) {
                continue;
            }
            if !has_room || !self.encode_part() {
                return;
            }
        }
    }

    /// One frame of items; false when nothing may go.
    fn encode_turn(&mut self, has_room: bool) -> bool {
        let (mut items, mut bytes) = (Vec::new(), 0);
        while bytes < LINK_TURN_BYTES {
            let item = match self.urgent.pop() {
                Some(item) => item,
                None if !has_room || self.parts.is_some() => break,
                None => match self.next_ordered() {
                    Some(item) => item,
                    None => break,
                },
            };
            if item.bytes() > LINK_PART_BYTES {
                let mut pieces = Pieces::default();
                put_all(&[item], &mut pieces);
                let length = pieces.bytes() as u64;
                self.parts = Some((pieces.finish().into(), length, 0));
                break;
            }
            bytes += item.bytes();
            items.push(item);
        }
        if items.is_empty() {
            return false;
        }
        let mut pieces = Pieces::default();
        put_all(&items, &mut pieces);
        self.frame(FrameKind::Turn, pieces.finish());
        true
    }

    /// The next append, if the answers that are due leave room for it, or what else waits.
    fn next_ordered(&mut self) -> Option<Item> {
        let Some(item) = self.appends.items.front() else { return self.others.pop() };
        let bytes = item.bytes();
        // Its group, and the first and the last of its entries, if it has any.
        let place = match item {
            Item::Raft { shard, message } => {
                let entries = &message.0.entries;
                let group = (*shard, message.0.to);
                entries.first().zip(entries.last()).map(|(a, b)| (group, a.index, b.index))
            }
            _ => None,
        };
        if let Some((group, first, _)) = place
            && let Some(group) = self.groups.get_mut(&group)
        {
            // What is sent again takes the place of what was sent.
            while let Some((index, bytes)) = group.unanswered.back().copied()
                && index >= first
            {
                self.unanswered_bytes -= bytes;
                group.unanswered.pop_back();
            }
        }
        let fits = self.unanswered_bytes == 0
            || self.unanswered_bytes + bytes <= LINK_UNANSWERED_BYTES_MAX;
        if !fits {
            return self.others.pop();
        }
        if let Some((group, _, last)) = place {
            self.groups.entry(group).or_default().unanswered.push_back((last, bytes));
            self.unanswered_bytes += bytes;
        }
        self.appends.pop()
    }

    /// A part of the long item that is on its way; false without one.
    fn encode_part(&mut self) -> bool {
        let Some((left, length, gone)) = &mut self.parts else { return false };
        let mut body = Pieces::default();
        body.put_u64(*length);
        body.put_u64(*gone);
        let mut room = LINK_PART_BYTES;
        while room > 0
            && let Some(piece) = left.front_mut()
        {
            let taken = piece.split_to(piece.len().min(room));
            room -= taken.len();
            body.share(&taken);
            if piece.is_empty() {
                left.pop_front();
            }
        }
        *gone += (LINK_PART_BYTES - room) as u64;
        if gone == length {
            self.parts = None;
        }
        self.frame(FrameKind::Part, body.finish());
        true
    }

    /// Appends a frame behind everything that is encoded.
    pub fn frame(&mut self, kind: FrameKind, body: Vec<Bytes>) {
        self.frames += 1;
        self.raw(Bytes::copy_from_slice(&head(kind, self.frames, &body)));
        body.into_iter().for_each(|piece| self.raw(piece));
    }

    /// Appends bytes that are no frame.
    pub fn raw(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.encoded_bytes += bytes.len();
            self.encoded.push_back(bytes);
        }
    }

    pub fn encoded_bytes(&self) -> usize {
        self.encoded_bytes
    }

    /// What the socket gets next, in order.
    pub fn slices<'a>(&'a self, out: &mut Vec<IoSlice<'a>>, count: usize) {
        out.extend(self.encoded.iter().take(count).map(|piece| IoSlice::new(piece)));
    }

    /// The socket has taken so many bytes.
    pub fn sent(&mut self, mut count: usize) {
        self.encoded_bytes -= count;
        while count > 0 {
            let first = self.encoded.front_mut().expect("no more is sent than was there");
            let taken = first.len().min(count);
            let _ = first.split_to(taken);
            count -= taken;
            if first.is_empty() {
                self.encoded.pop_front();
            }
        }
    }
}
