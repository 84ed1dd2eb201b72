//! Transactions over several shards: atomic, isolated, and decided without anybody's help.
//!
//! Synchronous state machines; messages, log records and the running of commands are the driver's.
//! In one transaction:
//!
//! ```text
//! coordinator            participants (leaders of the shards)
//!   Lock       ───────▶  lock the keys in order of ids; read what is asked for when earlier writes are applied
//!              ◀───────  Granted, with what was read
//!   run the commands on an overlay; what they changed are the effects
//!   Confirm    ───────▶  (shards that were only read, where leadership can be lost)
//!   Prepare    ───────▶  a record in the shard's log holds effects and the names of all participants
//!              ◀───────  Prepared, once it is committed
//!   all prepared: the transaction is committed, the client is answered
//!   Decide     ───────▶  a record in the log applies the effects; locks are released
//!              ◀───────  Done
//!   Forget     ───────▶  nobody can ask any more: the outcome is dropped
//! ```
//!
//! The decision is nowhere but in the logs: *all participants have prepared* is commit. A
//! participant that is in doubt asks the others; one that has not prepared gives up its lock, puts
//! a refusal through its log and says so, and from then on can never prepare. So any shard's leader
//! can find the decision, and nobody can decide otherwise. `docs/transactions.md` has the proof and
//! what each failure does.
//!
//! What the driver promises: messages between two places arrive at most once and in order, or not
//! at all; each record is proposed by the leader whose participant asked for it, and `applied` is
//! called in log order.

mod coordinator;
mod ledger;
mod locks;
mod message;
mod overlay;
mod participant;
mod record;
mod undo;
mod wanted;
mod wire;

pub use coordinator::{Coordinator, CoordinatorOutput, Event, Outcome, Part};
pub use ledger::Ledger;
pub use locks::HashedMap;
pub use message::{Address, Message, State, ToCoordinator, ToShard};
pub use overlay::{Fetched, FetchedItem, Overlay};
pub use participant::{NO_LEADER, Participant};
pub use record::{Applied, INSTALL, RECORD, Record, apply, install};
pub use undo::Undo;
pub use wanted::{Fetch, Next, ParticipantOutput};
pub use wire::{put_message, take_message};

use smallvec::SmallVec;

/// A transaction: when it began and which coordinator began it. Older ones go first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TransactionId {
    /// Nanoseconds, as the coordinator's clock had it; never twice the same of one coordinator.
    pub time: u64,
    /// The coordinator: random bits drawn when it started. The top bit marks a single request.
    pub origin: u64,
}

impl TransactionId {
    /// Behind all others.
    pub const MAX: TransactionId = TransactionId { time: u64::MAX, origin: u64::MAX };

    /// In log records.
    pub(crate) fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.time.to_le_bytes());
        bytes[8..].copy_from_slice(&self.origin.to_le_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<TransactionId> {
        let (time, origin) = bytes.split_first_chunk::<8>()?;
        let (time, origin) = (u64::from_le_bytes(*time), origin.try_into().ok()?);
        Some(TransactionId { time, origin: u64::from_le_bytes(origin) })
    }
}

/// For the maps of this module, which take one number for the hash.
impl std::hash::Hash for TransactionId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        // The odd multiplier spreads times that differ little over the bits that a map looks at.
        state.write_u64((self.time ^ self.origin).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
}

impl std::fmt::Display for TransactionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}-{:016x}", self.time, self.origin)
    }
}

/// A key to lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockKey {
    /// The key's hash. All databases share it: commands may reach into another one.
    pub hash: u64,
    /// To write it, or only to read it?
    pub exclusive: bool,
}

impl LockKey {
    /// The lock of a key.
    #[inline]
    pub fn new(key: crate::keyspace::KeyHash, exclusive: bool) -> LockKey {
        LockKey { hash: key.hash(), exclusive }
    }
}

/// What one request locks in a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockSet {
    /// Keys.
    pub keys: SmallVec<[LockKey; 2]>,
    /// The whole shard: exclusively (`true`), or only to read it.
    pub whole: Option<bool>,
}

impl LockSet {
    /// One key.
    pub fn one(key: LockKey) -> LockSet {
        LockSet { keys: SmallVec::from_slice(&[key]), whole: None }
    }

    /// The whole shard.
    pub fn whole(exclusive: bool) -> LockSet {
        LockSet { keys: SmallVec::new(), whole: Some(exclusive) }
    }

    /// Is any of it to be written?
    pub fn is_exclusive(&self) -> bool {
        self.whole == Some(true) || self.keys.iter().any(|key| key.exclusive)
    }

    /// Is it nothing?
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.whole.is_none()
    }
}
