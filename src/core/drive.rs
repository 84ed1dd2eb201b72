//! Drives the Raft groups of a core's shards: proposes what gathered, applies what is committed.

use crate::core::Core;

impl Core {
    pub(super) fn start_shards(&mut self) {}

    /// Proposes what every shard has gathered, and takes what its group has ready.
    pub(super) fn drive_shards(&mut self) {
        let now_ms = self.turn.now_ms;
        for local in 0..self.shards.len() {
            loop {
                let shard = &mut self.shards[local];
                if shard.has_gathered() {
                    shard.propose(now_ms, &mut self.answers, &mut self.stats);
                }
                shard.group.poll(&mut self.output);
                if self.output.committed.is_empty() {
                    break;
                }
                for entry in self.output.committed.drain(..) {
                    shard.apply(&entry, &mut self.answers, &mut self.stats);
                    shard.group.applied(entry.index);
                }
            }
        }
    }

    pub(super) fn has_work(&self) -> bool {
        false
    }
    pub(super) fn schedule_snapshots(&mut self) {}
    pub(super) fn disk_completed(&mut self, _completion: &crate::net::ring::Completion) {}
    pub(super) fn take_metrics_request(&mut self, _index: u32, _source: crate::core::turn::Source) {
    }
}
