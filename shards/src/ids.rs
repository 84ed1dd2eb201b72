//! Newtypes for the numbers that must not be mixed.

/// One node (process) of a cluster. Never 0. In a Raft group the id of a member: a node's id in the
/// lower half, the generation of its replica in the upper one, so that a replica that has lost its
/// log comes back as another member.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The node's replica of this generation, as a member of a group.
    pub fn replica(self, generation: u32) -> NodeId {
        NodeId((u64::from(generation) << 32) | (self.0 & u64::from(u32::MAX)))
    }

    /// A replica of the node that has lost what it was, and is not told yet which one it will be: a
    /// member of no group.
    pub fn lost_replica(self) -> NodeId {
        self.replica(u32::MAX)
    }

    /// Is it one?
    pub fn is_lost_replica(self) -> bool {
        self.generation() == u32::MAX
    }

    /// Of a member of a group: its node.
    pub fn node(self) -> NodeId {
        self.replica(0)
    }

    /// Of a member of a group: which replica of its node it is; 0 for a founder.
    pub fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// One cluster: random bits drawn when it is created and recorded in every file that belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClusterId(pub u128);

/// One data directory: random bits drawn when it is made. A node is known by its directory; an
/// emptied one is another node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirectoryId(pub u128);

/// One shard of the keyspace, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// Index of an entry in a shard's Raft log. The first entry has index 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(pub u64);

/// A Raft term. 0 before the first election.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

/// A point in time in milliseconds since the Unix epoch after which an item no longer exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(pub i64);

/// A time on this node's clock that never goes back, in microseconds since some start. Means
/// nothing to other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MonotonicTime(pub u64);

impl MonotonicTime {
    /// The end of time.
    pub const MAX: MonotonicTime = MonotonicTime(u64::MAX);
}

/// One of the databases that SELECT chooses, 0 to 15.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatabaseIndex(pub u8);

impl std::fmt::Display for ClusterId {
    /// 32 hexadecimal digits.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl std::fmt::Display for DirectoryId {
    /// 32 hexadecimal digits.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl std::fmt::Display for NodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::fmt::Display for ShardId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::fmt::Display for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::fmt::Display for Term {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
