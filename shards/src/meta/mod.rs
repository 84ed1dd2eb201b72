//! What the nodes of a cluster agree on: who they are, who shall have which replica, and what all
//! of them can do.
//!
//! | part | where |
//! |---|---|
//! | entries: joins, addresses, leaves, removals, wishes | `entry.rs` |
//! | the state that they make, one step after the other | `state.rs` |
//! | what a node asks of it: who joins, under which address, is there something new to say | `ask.rs` |
//! | nodes and shards to wishes: a pure function | `planner.rs`; while one node leads all, `together.rs` |
//! | what speaks against removing a node | `removal.rs` |
//! | a wish and what a group is to the group's next change | `steps.rs` |
//! | who has a vote in the meta group itself | `voters.rs` |
//! | which replica takes the place of one that is lost | `renewal.rs` |
//! | the state as an item of a keyspace, and what entries do to it | `kept.rs` |
//!
//! **Wishes, not facts.** Who votes in a shard is in that shard's log alone. The state says who
//! *shall* have a replica; the shard's leader compares and changes its group step by step. So two
//! stores never disagree, and a cluster whose meta group has no majority goes on serving: what
//! waits are joins, removals and new wishes.
//!
//! A node id belongs to one data directory and is never used twice. A replica has a generation, the
//! index of the entry that wished it: one that has lost its log is wished anew and comes back as
//! another member of its group.
//!
//! Not here: the Raft group that orders the entries, and who may propose which.

mod ask;
mod entry;
mod kept;
mod planner;
mod removal;
mod renewal;
mod state;
mod steps;
mod together;
mod voters;

pub use ask::NotAdmitted;
pub use entry::{MetaEntry, NodeFacts};
pub use kept::{NotFounded, keep_entry, keep_founded, kept_state};
pub use planner::{Absent, plan, plan_without};
pub use removal::{Objection, gone, half_joined, object_to_removal, removals};
pub use renewal::{Renewal, Renewals};
pub use state::{
    ASKER_LEVEL, META_SHARD, MetaState, Node, NodeState, Outcome, Rejection, Replica, Shard, Wish,
};
pub use steps::{Step, level_voter, next_level_voter, next_meta_step, next_step};
pub use together::plan_together;
pub use voters::{MetaWish, meta_seats, wish_meta};
