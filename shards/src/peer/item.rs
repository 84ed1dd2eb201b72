//! Items: what a turn's frame holds, one after the other; `docs/formats.md` has every byte.

use bytes::Bytes;
use raft::eraftpb::MessageType;

use super::messages;
use crate::ids::{NodeId, ShardId};
use crate::limits::LINK_SHARED_BYTES_MIN;
use crate::raft::PeerMessage;
use crate::wire::{Garbage, Reader};

/// Bytes before an item's own.
pub const ITEM_HEAD_BYTES: usize = 8;

pub(super) const APPEND: u8 = 1;
pub(super) const APPENDED: u8 = 2;
pub(super) const HEARTBEATS: u8 = 3;
pub(super) const HEARD: u8 = 4;
pub(super) const VOTE: u8 = 5;
pub(super) const VOTED: u8 = 6;
pub(super) const STAND_NOW: u8 = 7;
pub(super) const OFFER: u8 = 8;
const TRANSACTION: u8 = 16;
const NODE: u8 = 17;

/// What one core has to say to another.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// A message of a shard's Raft group, from the one node to the other.
    Raft {
        /// The shard.
        shard: ShardId,
        /// The message.
        message: PeerMessage,
    },
    /// A message of a transaction, as bytes ([`crate::transaction::put_message`]).
    Transaction(Bytes),
    /// What one node's process says to another's: clients' requests and replies, messages, who
    /// serves.
    Node(Bytes),
}

/// What waits together in a link, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Short, and in time or of no use: votes, heartbeats, answers. Overtakes all others.
    Urgent,
    /// Entries for followers, and snapshots that are offered.
    Appends,
    /// All the rest.
    Others,
}

impl Item {
    /// With what it waits.
    pub fn class(&self) -> Class {
        match self {
            Item::Raft { message, .. } => match message.0.msg_type {
                MessageType::MsgAppend | MessageType::MsgSnapshot => Class::Appends,
                _ => Class::Urgent,
            },
            Item::Transaction(_) | Item::Node(_) => Class::Others,
        }
    }

    /// Bytes that it takes, its head included. Of a heartbeat what it takes alone.
    pub fn bytes(&self) -> usize {
        let own = match self {
            Item::Raft { message, .. } => messages::bytes(&message.0),
            Item::Transaction(bytes) | Item::Node(bytes) => bytes.len(),
        };
        ITEM_HEAD_BYTES + own
    }

    /// Appends it. Heartbeats and their answers are not written one by one: see [`put_all`].
    pub(super) fn put(&self, out: &mut Pieces) {
        match self {
            Item::Raft { shard, message } => messages::put(*shard, &message.0, out),
            Item::Transaction(bytes) => {
                put_head(out, TRANSACTION, 0, ShardId(0), bytes.len());
                out.share(bytes);
            }
            Item::Node(bytes) => {
                put_head(out, NODE, 0, ShardId(0), bytes.len());
                out.share(bytes);
            }
        }
    }
}

/// Appends items in their order; heartbeats that stand together become one item, and so do their
/// answers.
pub(super) fn put_all(items: &[Item], out: &mut Pieces) {
    let mut at = 0;
    while at < items.len() {
        match messages::put_heartbeats(&items[at..], out) {
            0 => {
                items[at].put(out);
                at += 1;
            }
            count => at += count,
        }
    }
}

/// Items as bytes, for whoever keeps them; [`take_all`] reads them.
pub fn encode_items(items: &[Item]) -> Bytes {
    let mut out = Pieces::default();
    put_all(items, &mut out);
    out.finish().concat().into()
}

pub(super) fn put_head(out: &mut Pieces, kind: u8, flags: u8, shard: ShardId, length: usize) {
    let length = u32::try_from(length).expect("items are below 4 GiB");
    out.put(&[kind, flags]);
    out.put(&shard.0.to_le_bytes());
    out.put(&length.to_le_bytes());
}

/// Reads the items of a frame, or one that came in parts. `from` and `to` are the nodes at the
/// link's ends.
pub fn take_all(
    bytes: Bytes,
    from: NodeId,
    to: NodeId,
    mut item: impl FnMut(Item),
) -> Result<(), Garbage> {
    let mut input = Reader::new(bytes, "a turn");
    while !input.is_empty() {
        let (kind, flags, shard) = (input.u8()?, input.u8()?, ShardId(input.u16()?));
        let own = input.string()?;
        match kind {
            TRANSACTION => item(Item::Transaction(own)),
            NODE => item(Item::Node(own)),
            _ => {
                let ends = messages::Ends { from, to };
                messages::take(kind, flags, shard, own, ends, &mut item)?;
            }
        }
    }
    Ok(())
}

/// Bytes to send: short ones gathered, long ones shared.
#[derive(Debug, Default)]
pub struct Pieces {
    whole: Vec<Bytes>,
    small: Vec<u8>,
    bytes: usize,
}

impl Pieces {
    /// Appends a copy.
    pub fn put(&mut self, bytes: &[u8]) {
        self.small.extend_from_slice(bytes);
        self.bytes += bytes.len();
    }

    /// Appends a number of eight bytes.
    pub fn put_u64(&mut self, number: u64) {
        self.put(&number.to_le_bytes());
    }

    /// Appends bytes that are kept as they are, if they are long.
    pub fn share(&mut self, bytes: &Bytes) {
        if bytes.len() < LINK_SHARED_BYTES_MIN {
            return self.put(bytes);
        }
        self.close();
        self.whole.push(bytes.clone());
        self.bytes += bytes.len();
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn close(&mut self) {
        if !self.small.is_empty() {
            self.whole.push(std::mem::take(&mut self.small).into());
        }
    }

    /// All of it.
    pub fn finish(mut self) -> Vec<Bytes> {
        self.close();
        self.whole
    }
}
