//! The steps of a transaction: at each of them a node may die, with its message sent or not.

use ringraft_shards::transaction::{Message, ToCoordinator, ToShard};

use crate::counts::Count;
use crate::serve::TransactionMessage;

/// A crash that waits for a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trap {
    pub step: Count,
    /// Does the message still go out?
    pub sends: bool,
}

impl Trap {
    /// Is it at a step that few runs have?
    pub fn is_rare(&self) -> bool {
        use Count::*;
        matches!(self.step, AtQuery | AtAnswer | AtRefused | AtNotLeader)
    }
}

/// All steps: the sending of each kind of message.
pub const STEPS: &[Count] = &[
    Count::AtLock,
    Count::AtGranted,
    Count::AtFailed,
    Count::AtYield,
    Count::AtYielded,
    Count::AtConfirm,
    Count::AtConfirmed,
    Count::AtRelease,
    Count::AtPrepare,
    Count::AtPrepared,
    Count::AtRefused,
    Count::AtNotLeader,
    Count::AtDecide,
    Count::AtDone,
    Count::AtForget,
    Count::AtQuery,
    Count::AtAnswer,
];

/// The step that a message is.
pub fn step(message: &TransactionMessage) -> Count {
    match message {
        Message::Shard(_, message) => match message {
            ToShard::Lock { .. } => Count::AtLock,
            ToShard::Yielded(_) => Count::AtYielded,
            ToShard::Confirm { .. } => Count::AtConfirm,
            ToShard::Prepare { .. } => Count::AtPrepare,
            ToShard::Keep(_) | ToShard::Release(_) => Count::AtRelease,
            ToShard::Decide { .. } => Count::AtDecide,
            ToShard::Forget(_) => Count::AtForget,
            ToShard::Query { .. } => Count::AtQuery,
            ToShard::Answer { .. } => Count::AtAnswer,
        },
        Message::Coordinator(_, message) => match message {
            ToCoordinator::Granted { .. } => Count::AtGranted,
            ToCoordinator::Failed { .. } => Count::AtFailed,
            ToCoordinator::Yield { .. } => Count::AtYield,
            ToCoordinator::Confirmed { .. } => Count::AtConfirmed,
            ToCoordinator::Prepared { .. } => Count::AtPrepared,
            ToCoordinator::Refused { .. } => Count::AtRefused,
            ToCoordinator::Done { .. } => Count::AtDone,
            ToCoordinator::NotLeader { .. } => Count::AtNotLeader,
        },
    }
}
