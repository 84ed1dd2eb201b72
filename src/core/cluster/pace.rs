//! How fast snapshots go to other nodes: so that catching up leaves disk and network to the others.
//!
//! All transfers of the node share `transfer-rate`, those to one node a bound of their own, which
//! is lower while writes of this node's logs take long, or clients ask the sending core for much:
//! a longer transfer costs them less at a time. Each core says at each tick what it sends to whom,
//! so a share is right within a tick.

use crate::core::CLUSTER_TICK;
use crate::limits::{
    SNAPSHOT_LOAD_PER_MS, TRANSFER_SLOWED_BYTES_PER_SECOND, TRANSFER_SLOWED_P99_US,
    TRANSFER_TO_PEER_BYTES_PER_SECOND,
};
use ringraft_shards::ids::NodeId;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Transfers of all cores, by where they go.
#[derive(Debug, Default)]
pub struct Pace(Mutex<BTreeMap<u16, Vec<NodeId>>>);

impl Pace {
    /// A core sends to these nodes; one that gets several shards is there as often. Returns what
    /// all cores send.
    pub(super) fn note(&self, core: u16, to: Vec<NodeId>) -> Vec<NodeId> {
        let mut all = self.0.lock().expect("nobody panics with it");
        match to.is_empty() {
            true => drop(all.remove(&core)),
            false => drop(all.insert(core, to)),
        }
        all.values().flatten().copied().collect()
    }
}

/// Do others need what transfers would take? By the p99 of this node's log writes, and what the
/// sending core serves.
pub(super) fn is_slowed(log_write_p99_us: u64, commands_per_second: f64) -> bool {
    log_write_p99_us > TRANSFER_SLOWED_P99_US
        || commands_per_second > 1000.0 * SNAPSHOT_LOAD_PER_MS as f64
}

/// Bytes that a transfer to a node may send in a tick, beside all these others.
pub(super) fn share(bytes_per_second: u64, is_slowed: bool, all: &[NodeId], to: NodeId) -> u64 {
    let beside = all.iter().filter(|node| **node == to).count().max(1) as u64;
    let of_node = bytes_per_second / all.len().max(1) as u64;
    let of_peer = match is_slowed {
        true => TRANSFER_SLOWED_BYTES_PER_SECOND,
        false => TRANSFER_TO_PEER_BYTES_PER_SECOND,
    };
    of_node.min(of_peer / beside) * CLUSTER_TICK.as_millis() as u64 / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_rate_is_shared_and_lower_while_others_need_it() {
        let nodes = [2, 2, 3].map(NodeId);
        let second = |rate, slowed, all: &[NodeId], to| 20 * share(rate, slowed, all, NodeId(to));
        assert_eq!(second(60 * MIB, false, &nodes, 2), 20 * MIB);
        assert_eq!(second(400 * MIB, true, &nodes, 2), 20 * MIB);
        assert_eq!(second(400 * MIB, true, &nodes, 3), 40 * MIB);
        assert_eq!(second(400 * MIB, false, &nodes, 2), 40 * MIB, "two go there");
        assert_eq!(second(400 * MIB, false, &nodes, 3), 80 * MIB);
        assert_eq!(second(400 * MIB, false, &[], 3), 80 * MIB);
        assert!(is_slowed(11_000, 0.0) && is_slowed(0, 5001.0) && !is_slowed(10_000, 5000.0));
    }

    #[test]
    fn cores_add_up() {
        let pace = Pace::default();
        assert_eq!(pace.note(0, vec![NodeId(2)]), [NodeId(2)]);
        assert_eq!(pace.note(1, vec![NodeId(3); 2]), [2, 3, 3].map(NodeId));
        assert_eq!(pace.note(0, Vec::new()), [3, 3].map(NodeId));
    }
}
