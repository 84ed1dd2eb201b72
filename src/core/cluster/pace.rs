//! How fast snapshots go to other nodes: so that catching up leaves disk and network to the others.
//!
//! All transfers of the node share `transfer-rate`, those to one node a bound of their own; both
//! are halved while writes of this node's logs take long. Each core says at each tick what it sends
//! to whom, so a share is right within a tick.

use crate::core::CLUSTER_TICK;
use crate::limits::{TRANSFER_SLOWED_P99_US, TRANSFER_TO_PEER_BYTES_PER_SECOND};
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

/// Bytes that a transfer to a node may send in a tick, beside all these others.
pub(super) fn share(
    bytes_per_second: u64,
    log_write_p99_us: u64,
    all: &[NodeId],
    to: NodeId,
) -> u64 {
    let beside = all.iter().filter(|node| **node == to).count().max(1) as u64;
    let of_node = bytes_per_second / all.len().max(1) as u64;
    let of_peer = TRANSFER_TO_PEER_BYTES_PER_SECOND / beside;
    let per_second = of_node.min(of_peer);
    let per_tick = per_second * CLUSTER_TICK.as_millis() as u64 / 1000;
    if log_write_p99_us > TRANSFER_SLOWED_P99_US { per_tick / 2 } else { per_tick }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_rate_is_shared_and_halved_while_the_log_is_slow() {
        let nodes = [2, 2, 3].map(NodeId);
        let second = |rate, p99_us, all: &[NodeId], to| 20 * share(rate, p99_us, all, NodeId(to));
        assert_eq!(second(60 * MIB, 0, &nodes, 2), 20 * MIB);
        assert_eq!(second(60 * MIB, 11_000, &nodes, 2), 10 * MIB);
        assert_eq!(second(60 * MIB, 10_000, &nodes, 3), 20 * MIB);
        assert_eq!(second(400 * MIB, 0, &nodes, 2), 40 * MIB, "two go there");
        assert_eq!(second(400 * MIB, 0, &nodes, 3), 80 * MIB);
        assert_eq!(second(400 * MIB, 0, &[], 3), 80 * MIB);
    }

    #[test]
    fn cores_add_up() {
        let pace = Pace::default();
        assert_eq!(pace.note(0, vec![NodeId(2)]), [NodeId(2)]);
        assert_eq!(pace.note(1, vec![NodeId(3); 2]), [2, 3, 3].map(NodeId));
        assert_eq!(pace.note(0, Vec::new()), [3, 3].map(NodeId));
    }
}
