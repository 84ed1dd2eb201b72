//! Which shards are used together: a core counts what its commands over several shards name, the
//! board adds up.

use crate::limits::COMPANION_SHARDS_MAX;
use ringraft_shards::ids::ShardId;

/// Counts of one core, for each pair of shards.
#[derive(Debug, Default)]
pub struct Companions {
    shard_count: usize,
    /// Row by row, the smaller number first; empty where there are too many shards, or only one.
    counts: Vec<u32>,
    is_any: bool,
}

/// How many counters pairs of so many shards have: none where nobody counts.
pub fn pair_count(shard_count: usize) -> usize {
    if (2..=COMPANION_SHARDS_MAX).contains(&shard_count) { shard_count * shard_count } else { 0 }
}

impl Companions {
    /// Of a server with so many shards.
    pub fn new(shard_count: usize) -> Companions {
        Companions { shard_count, counts: vec![0; pair_count(shard_count)], is_any: false }
    }

    /// A command uses a key of `other`, and its first key is in `first`.
    pub fn note(&mut self, first: ShardId, other: ShardId) {
        let (a, b) = (usize::from(first.0), usize::from(other.0));
        let place = a.min(b) * self.shard_count + a.max(b);
        if a != b
            && let Some(count) = self.counts.get_mut(place)
        {
            *count = count.saturating_add(1);
            self.is_any = true;
        }
    }

    /// A transaction uses these shards.
    pub fn note_all(&mut self, shards: impl IntoIterator<Item = ShardId>) {
        let mut shards = shards.into_iter();
        if let Some(first) = shards.next() {
            shards.for_each(|other| self.note(first, other));
        }
    }

    /// Tells what was counted since the last time: places among all pairs, and counts.
    pub fn drain(&mut self, mut tell: impl FnMut(usize, u32)) {
        if !std::mem::take(&mut self.is_any) {
            return;
        }
        for (place, count) in self.counts.iter_mut().enumerate().filter(|(_, count)| **count > 0) {
            tell(place, std::mem::take(count));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(companions: &mut Companions) -> Vec<(usize, u32)> {
        let mut found = Vec::new();
        companions.drain(|place, count| found.push((place, count)));
        found
    }

    #[test]
    fn pairs_are_counted_whichever_comes_first() {
        let mut companions = Companions::new(4);
        companions.note(ShardId(1), ShardId(3));
        companions.note(ShardId(3), ShardId(1));
        companions.note(ShardId(2), ShardId(2));
        companions.note_all([2, 0, 1].map(ShardId));
        companions.note_all([]);
        assert_eq!(drained(&mut companions), [(2, 1), (6, 1), (7, 2)]);
        assert_eq!(drained(&mut companions), []);
    }

    #[test]
    fn very_many_shards_are_not_counted() {
        let many = COMPANION_SHARDS_MAX + 1;
        let mut companions = Companions::new(many);
        companions.note(ShardId(0), ShardId(many as u16 - 1));
        assert_eq!(drained(&mut companions), []);
    }
}
