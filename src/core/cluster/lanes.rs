//! The stamps of other nodes' requests, short: as they travel with a request through the cores of
//! this process.
//!
//! A stamp has 32 bytes; who waits for a request has room for six. Two of them number the lane and
//! the upper half of the sequence number, which are kept here. Lanes of cores are few and stay;
//! that of a client that waits goes with its session.

use crate::core::client::answers::StampKey;
use ringraft_shards::stamp::{Lane, Stamp};
use std::collections::BTreeMap;
use std::sync::RwLock;

/// Which place stands for which lane.
#[derive(Default)]
pub struct Lanes {
    table: RwLock<Table>,
}

#[derive(Default)]
struct Table {
    /// By place, from 1 on: the lane, and the upper half of its numbers.
    rows: Vec<Option<(Lane, u32)>>,
    places: BTreeMap<(Lane, u32), u16>,
    free: Vec<u16>,
}

impl Lanes {
    /// The short form of a stamp; `None` when there are too many lanes.
    pub fn key(&self, stamp: Stamp) -> Option<StampKey> {
        let (half, low) = ((stamp.sequence >> 32) as u32, stamp.sequence as u32);
        let known = |table: &Table| table.places.get(&(stamp.lane, half)).copied();
        let place = known(&self.table.read().expect("nobody panics with it"));
        let place = match place {
            Some(place) => place,
            None => self.add(stamp.lane, half)?,
        };
        Some(StampKey::new(place, low))
    }

    #[cold]
    fn add(&self, lane: Lane, half: u32) -> Option<u16> {
        let mut table = self.table.write().expect("nobody panics with it");
        if let Some(place) = table.places.get(&(lane, half)) {
            return Some(*place);
        }
        let place = match table.free.pop() {
            Some(place) => place,
            None => {
                let place = u16::try_from(table.rows.len() + 1).ok()?;
                table.rows.push(None);
                place
            }
        };
        table.rows[usize::from(place) - 1] = Some((lane, half));
        table.places.insert((lane, half), place);
        Some(place)
    }

    /// The stamp; `None` when there is none.
    pub fn stamp(&self, key: StampKey) -> Option<Stamp> {
        let (place, low) = key.parts()?;
        let table = self.table.read().expect("nobody panics with it");
        let (lane, half) = (*table.rows.get(usize::from(place) - 1)?)?;
        Some(Stamp { lane, sequence: u64::from(half) << 32 | u64::from(low) })
    }

    /// A lane has ended: nothing of it is under way.
    pub fn release(&self, lane: Lane) {
        let mut table = self.table.write().expect("nobody panics with it");
        let of_it: Vec<(Lane, u32)> =
            table.places.range((lane, 0)..=(lane, u32::MAX)).map(|(key, _)| *key).collect();
        for key in of_it {
            if let Some(place) = table.places.remove(&key) {
                table.rows[usize::from(place) - 1] = None;
                table.free.push(place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringraft_shards::ids::NodeId;

    #[test]
    fn short_stamps_stand_for_long_ones_until_their_lane_ends() {
        let lanes = Lanes::default();
        let lane = |number| Lane { node: NodeId(2), process: 9, number };
        let stamps = [(0, 1), (0, u64::from(u32::MAX) + 5), (1, 1), (Lane::WAITS | 7, 3)]
            .map(|(number, sequence)| Stamp { lane: lane(number), sequence });
        let keys = stamps.map(|stamp| lanes.key(stamp).expect("there is room"));
        for (stamp, key) in stamps.iter().zip(keys) {
            assert_eq!(lanes.stamp(key), Some(*stamp));
            assert_eq!(lanes.key(*stamp), Some(key));
        }
        assert_eq!(lanes.stamp(StampKey::NONE), None);
        lanes.release(lane(Lane::WAITS | 7));
        assert_eq!(lanes.stamp(keys[3]), None);
        let next = Stamp { lane: lane(Lane::WAITS | 8), sequence: 3 };
        assert_eq!(lanes.key(next), Some(keys[3]), "its place is used again");
        for number in 0..=u64::from(u16::MAX) {
            lanes.key(Stamp { lane: lane(Lane::WAITS | number), sequence: 1 });
        }
        assert_eq!(lanes.key(Stamp { lane: lane(99), sequence: 1 }), None);
    }
}
