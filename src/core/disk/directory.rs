//! What cores do to the data directory as a whole: they bring shards from it, and set aside those
//! that are lost. All of it blocks.

use crate::core::shard::LocalShard;
use ringraft_shards::ids::{NodeId, ShardId};

/// Where shards come from.
pub trait ShardDirectory: Send + Sync {
    /// Brings a shard, or makes it. Blocks until its data is read.
    /// Errors: one line that names the file, what is wrong and what to do.
    fn recover(&self, shard: ShardId) -> Result<LocalShard, String>;

    /// Sets aside what there is of a shard, for a reason; an empty one takes its place.
    /// Errors: the directory cannot be written.
    fn begin_anew(&self, shard: ShardId, cause: &str) -> Result<(), String>;

    /// The replica of a shard is this member of its group from now on.
    /// Errors: the directory cannot be written.
    fn name(&self, shard: ShardId, member: NodeId) -> Result<(), String>;

    /// Others have the shards too, so many.
    /// Errors: the directory cannot be written.
    fn note_companions(&self, count: usize) -> Result<(), String>;
}
