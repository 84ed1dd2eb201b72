//! Messages of transactions.

use super::{LockSet, TransactionId};
use crate::ids::ShardId;
use bytes::Bytes;

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// The leader of a shard.
    Shard(ShardId),
    /// A coordinator, by the number that its driver gave it.
    Coordinator(u64),
}

/// To a shard or to a coordinator. `F` is what a shard is asked to read, `V` what it has read.
#[derive(Clone, Debug)]
pub enum Message<F, V> {
    /// To a shard's leader. A driver that does not lead answers with [`ToShard::refusal`].
    Shard(ShardId, ToShard<F>),
    /// To a coordinator.
    Coordinator(u64, ToCoordinator<V>),
}

impl<F, V> Message<F, V> {
    /// Where it goes.
    pub fn address(&self) -> Address {
        match self {
            Message::Shard(shard, _) => Address::Shard(*shard),
            Message::Coordinator(coordinator, _) => Address::Coordinator(*coordinator),
        }
    }
}

/// What a participant knows of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has prepared.
    Prepared,
    /// It has committed.
    Committed,
    /// It has not prepared and never will; or it has aborted; or all have committed and it has
    /// forgotten.
    Refused,
}

/// To the leader of a shard.
#[derive(Clone, Debug)]
pub enum ToShard<F> {
    /// Lock, and read when the writes before are applied.
    Lock {
        /// The transaction.
        id: TransactionId,
        /// Whom to answer.
        coordinator: u64,
        /// What to lock.
        locks: LockSet,
        /// What to read or to check.
        fetch: F,
    },
    /// Give the lock up: an older transaction may go first.
    Yielded(TransactionId),
    /// Does this leader still lead, and hold the lock?
    Confirm {
        /// The transaction.
        id: TransactionId,
        /// Whom to answer.
        coordinator: u64,
    },
    /// Log the effects.
    Prepare {
        /// The transaction.
        id: TransactionId,
        /// Whom to answer.
        coordinator: u64,
        /// All shards that prepare.
        participants: Vec<ShardId>,
        /// A batch of operations.
        effects: Bytes,
        /// Was it sent before? Then a refusal may come after everything is over.
        again: bool,
    },
    /// The transaction takes its time: the lock is not given up yet.
    Keep(TransactionId),
    /// End the transaction, which has prepared nothing here.
    Release(TransactionId),
    /// Commit or abort.
    Decide {
        /// The transaction.
        id: TransactionId,
        /// Whom to answer.
        coordinator: u64,
        /// Commit?
        commit: bool,
    },
    /// All have committed.
    Forget(TransactionId),
    /// Another participant asks for this one's state.
    Query {
        /// The transaction.
        id: TransactionId,
        /// Whom to answer.
        from: ShardId,
    },
    /// Another participant's state.
    Answer {
        /// The transaction.
        id: TransactionId,
        /// Whose.
        from: ShardId,
        /// What it is.
        state: State,
    },
}

impl<F> ToShard<F> {
    /// What a node that does not lead the shard answers, if anything.
    pub fn refusal<V>(&self, shard: ShardId) -> Option<Message<F, V>> {
        let (coordinator, answer) = match *self {
            ToShard::Lock { id, coordinator, .. } => {
                let reason = super::participant::NO_LEADER.to_string();
                (coordinator, ToCoordinator::Failed { id, shard, reason })
            }
            ToShard::Confirm { id, coordinator } => {
                (coordinator, ToCoordinator::Confirmed { id, shard, leads: false })
            }
            ToShard::Prepare { id, coordinator, .. } | ToShard::Decide { id, coordinator, .. } => {
                (coordinator, ToCoordinator::NotLeader { id, shard })
            }
            _ => return None,
        };
        Some(Message::Coordinator(coordinator, answer))
    }
}

/// To a coordinator.
#[derive(Clone, Debug)]
pub enum ToCoordinator<V> {
    /// Locked and read.
    Granted {
        /// The transaction.
        id: TransactionId,
        /// Who answers.
        shard: ShardId,
        /// Can this leader not lose its leadership, being alone?
        alone: bool,
        /// What was read.
        values: V,
    },
    /// Not locked, or a check failed: the transaction ends.
    Failed {
        /// The transaction.
        id: TransactionId,
        /// Who answers.
        shard: ShardId,
        /// An error for the client; empty when a watched key has changed.
        reason: String,
    },
    /// An older transaction waits: may it go first?
    Yield {
        /// The transaction.
        id: TransactionId,
        /// Who asks.
        shard: ShardId,
    },
    /// The answer to Confirm.
    Confirmed {
        /// The transaction.
        id: TransactionId,
        /// Who answers.
        shard: ShardId,
        /// Did it lead, holding the lock, after it was asked?
        leads: bool,
    },
    /// Prepared, durably.
    Prepared {
        /// The transaction.
        id: TransactionId,
        /// Who answers.
        shard: ShardId,
    },
    /// Not prepared and never will.
    Refused {
        /// The transaction.
        id: TransactionId,
        /// Who answers.
        shard: ShardId,
    },
    /// Committed or aborted, durably.
    Done {
        /// The transaction.
        id: TransactionId,
        /// Who answers.
        shard: ShardId,
    },
    /// The message was not taken: this is not the leader.
    NotLeader {
        /// The transaction.
        id: TransactionId,
        /// The shard.
        shard: ShardId,
    },
}
