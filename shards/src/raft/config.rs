//! How a group is set up.

use crate::ids::{NodeId, ShardId};
use crate::limits::{
    RAFT_COMMITTED_BYTES_PER_POLL, RAFT_ELECTION_TICKS, RAFT_ENTRY_CACHE_BYTES,
    RAFT_HEARTBEAT_TICKS, RAFT_MESSAGE_BYTES_MAX, RAFT_MESSAGES_IN_FLIGHT_MAX,
    RAFT_RETAINED_BYTES_MAX, RAFT_TICK_US, RAFT_UNCOMMITTED_BYTES_MAX,
};

/// Settings of a group.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// This node.
    pub node: NodeId,
    /// The shard, for messages.
    pub shard: ShardId,
    /// Voters of a new group. Used only when there is neither a log nor a snapshot; empty on a
    /// node that joins an existing group and learns the members from a snapshot.
    pub voters: Vec<NodeId>,
    /// Learners of a new group.
    pub learners: Vec<NodeId>,
    /// Time between two ticks, in microseconds; the same for all members.
    pub tick_us: u64,
    /// Ticks without a leader before an election, at least; at most twice as many. The same for
    /// all members.
    pub election_ticks: usize,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: usize,
    /// Entries in one message to a follower, in bytes; one entry may be larger.
    pub message_bytes_max: u64,
    /// Appends under way to one follower.
    pub messages_in_flight_max: usize,
    /// Proposals that are not committed yet, in bytes; more are refused as busy. One proposal may
    /// be larger.
    pub uncommitted_bytes_max: u64,
    /// Committed entries handed out at a time, in bytes.
    pub committed_bytes_per_poll: u64,
    /// Recent entries that are kept in memory for followers after they were applied, in bytes.
    pub entry_cache_bytes: u64,
    /// How much of the log on disk is kept for followers that lag, in bytes; those that need more
    /// get a snapshot.
    pub retained_bytes_max: u64,
}

impl GroupConfig {
    /// The defaults for a group founded by `voters`.
    pub fn new(node: NodeId, shard: ShardId, voters: Vec<NodeId>) -> GroupConfig {
        GroupConfig {
            node,
            shard,
            voters,
            learners: Vec::new(),
            tick_us: RAFT_TICK_US,
            election_ticks: RAFT_ELECTION_TICKS,
            heartbeat_ticks: RAFT_HEARTBEAT_TICKS,
            message_bytes_max: RAFT_MESSAGE_BYTES_MAX,
            messages_in_flight_max: RAFT_MESSAGES_IN_FLIGHT_MAX,
            uncommitted_bytes_max: RAFT_UNCOMMITTED_BYTES_MAX,
            committed_bytes_per_poll: RAFT_COMMITTED_BYTES_PER_POLL,
            entry_cache_bytes: RAFT_ENTRY_CACHE_BYTES,
            retained_bytes_max: RAFT_RETAINED_BYTES_MAX,
        }
    }

    pub(super) fn to_raft(&self, applied: u64) -> raft::Config {
        raft::Config {
            id: self.node.0,
            election_tick: self.election_ticks,
            heartbeat_tick: self.heartbeat_ticks,
            applied,
            max_size_per_msg: self.message_bytes_max,
            max_inflight_msgs: self.messages_in_flight_max,
            check_quorum: true,
            pre_vote: true,
            // Followers learn the commit index with the next append or heartbeat: half the
            // messages.
            skip_bcast_commit: true,
            // It would join messages past their bound. What one poll sends is gathered there
            // anyway.
            batch_append: false,
            max_uncommitted_size: self.uncommitted_bytes_max,
            max_committed_size_per_ready: self.committed_bytes_per_poll,
            ..raft::Config::default()
        }
    }
}
