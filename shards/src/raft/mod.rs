//! The Raft group of one shard: consensus as a synchronous state machine over raft-rs.
//!
//! The one idea: the driver calls in (`tick`, `step`, `propose`, `written`, `applied`), then calls
//! [`Group::poll`] and does what the [`Output`] says. No clock, no chance of its own, no I/O; the
//! same calls give the same outputs.
//!
//! What must be durable before which message goes out:
//!
//! | message | waits for |
//! |---|---|
//! | any message of a follower or candidate: votes, append and snapshot answers, heartbeat answers | every log part queued before it |
//! | a leader's appends, heartbeats, snapshots | the record that holds its term and vote; not its entries, which overlap with sending (Raft thesis 10.2.1) |
//! | an answer to a heartbeat, which a lease may rest on | also the promise that it implies, in memory: a restart makes a new one (`lease.rs`) |
//! | a committed entry handed out for applying | the entry itself, here; a majority, by Raft |
//!
//! raft-rs lets a leader's messages go at once. In a group with one voter the same step that raises
//! the term wins the election, so a learner could see entries of a term that this node forgets in a
//! crash and uses again for others; therefore the second row, which the group asserts when it
//! releases messages.
//!
//! Conditions on the driver:
//! - It handles an output in the order of its fields, and outputs in the order of polls.
//! - `Message`s to one peer arrive in the order sent, or not at all (raft-rs 0.7.0 has trouble with
//!   reordered ones).
//! - A snapshot is handed in (`step`) only when its file is complete, durable, and what a restart
//!   would load.
//! - Ticks come at a fixed rate, each with the time on a clock that never goes back; an election
//!   takes `election_ticks` to twice as many of them. Ticks that come too soon, as in a burst after
//!   a pause, are not counted.
//!
//! Not here: applying entries, snapshots' contents, reading clocks, connections, encoding of peer
//! frames.

mod config;
mod drive;
mod followers;
mod group;
mod lease;
mod logger;
mod membership;
mod open;
mod output;
mod store;

pub use config::GroupConfig;
pub use group::Group;
pub use membership::{MembershipChange, SnapshotPoint};
pub use output::{
    CommittedEntry, EntryKind, GroupFailure, OpenError, Output, PeerMessage, PeerProgress,
    Proposal, ProposeError, ReadError, ReadReady, Role, SnapshotToInstall, Status, StepError,
};
