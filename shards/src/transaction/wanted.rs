//! What a participant wants done: requests that go on, values to read, records, messages.

use super::TransactionId;
use super::message::{Message, ToCoordinator};
use super::record::Record;

/// Values to read for a transaction, when everything gathered before is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The transaction.
    pub id: TransactionId,
    /// Which of its grants: one that was given back meanwhile is not read for.
    pub(super) grant: u32,
}

impl Fetch {
    /// As bytes, for a driver that keeps it among its requests.
    pub fn bytes(self) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes[..16].copy_from_slice(&self.id.bytes());
        bytes[16..].copy_from_slice(&self.grant.to_le_bytes());
        bytes
    }

    /// From its bytes; `None` when they are not.
    pub fn from_bytes(bytes: &[u8]) -> Option<Fetch> {
        let (id, grant) = bytes.split_at_checked(16)?;
        let grant = u32::from_le_bytes(grant.try_into().ok()?);
        Some(Fetch { id: TransactionId::from_bytes(id)?, grant })
    }
}

/// What comes out of a participant, to be done in the order of the fields.
#[derive(Debug)]
pub struct ParticipantOutput<F, V, W> {
    /// Requests that may go on and values to read, in this order.
    pub next: Vec<Next<W>>,
    /// Records to propose, in this order.
    pub records: Vec<Record>,
    /// Leadership to confirm, with a majority, after now. Answer with `confirmed`.
    pub confirms: Vec<Fetch>,
    /// Messages to send, in this order.
    pub messages: Vec<Message<F, V>>,
}

/// A step in the shard's order of requests.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<W> {
    /// A single request need not wait any more.
    Admit(W),
    /// Read what a transaction asked for: `fetching`, then `fetched`.
    Fetch(Fetch),
}

impl<F, V, W> Default for ParticipantOutput<F, V, W> {
    fn default() -> Self {
        ParticipantOutput {
            next: Vec::new(),
            records: Vec::new(),
            confirms: Vec::new(),
            messages: Vec::new(),
        }
    }
}

impl<F, V, W> ParticipantOutput<F, V, W> {
    /// Is there nothing to do?
    pub fn is_empty(&self) -> bool {
        self.next.is_empty()
            && self.records.is_empty()
            && self.confirms.is_empty()
            && self.messages.is_empty()
    }

    pub(super) fn to(&mut self, coordinator: Option<u64>, message: ToCoordinator<V>) {
        if let Some(coordinator) = coordinator {
            self.messages.push(Message::Coordinator(coordinator, message));
        }
    }
}
