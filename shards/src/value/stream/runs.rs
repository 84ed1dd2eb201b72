//! How many entries the closed blocks of a stream have, by runs of blocks, so that trimming looks
//! at few blocks.
//!
//! Where runs begin and end depends on what became of the stream, so that replicas may have other
//! runs of the same blocks: what they take, some bytes for [`RUN_BLOCKS`] blocks, is on nobody's
//! account.

use std::collections::VecDeque;

/// Blocks of a run at most.
const RUN_BLOCKS: u64 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    blocks: u64,
    entries: u64,
}

/// The runs, from the first block on.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs(VecDeque<Run>);

impl Runs {
    /// There is another block behind all others.
    pub fn push(&mut self, entries: u64) {
        match self.0.back_mut().filter(|run| run.blocks < RUN_BLOCKS) {
            Some(run) => (run.blocks, run.entries) = (run.blocks + 1, run.entries + entries),
            None => self.0.push_back(Run { blocks: 1, entries }),
        }
    }

    /// The block at a rank has lost so many entries.
    pub fn shrink(&mut self, rank: u64, entries: u64) {
        let place = self.place(rank);
        self.0[place].entries -= entries;
    }

    /// The block at a rank is gone, with so many entries.
    pub fn remove(&mut self, rank: u64, entries: u64) {
        let place = self.place(rank);
        let run = &mut self.0[place];
        (run.blocks, run.entries) = (run.blocks - 1, run.entries - entries);
        if run.blocks == 0 {
            self.0.remove(place);
        }
    }

    /// So many blocks from the first on are gone, with so many entries in all.
    pub fn remove_first(&mut self, mut blocks: u64, mut entries: u64) {
        while let Some(run) = self.0.front_mut() {
            if run.blocks > blocks {
                (run.blocks, run.entries) = (run.blocks - blocks, run.entries - entries);
                return;
            }
            (blocks, entries) = (blocks - run.blocks, entries - run.entries);
            self.0.pop_front();
        }
    }

    /// The blocks and entries of as many whole runs as `goes` lets pass; it is asked with the sums
    /// at the end of each.
    pub fn pass(&self, goes: impl Fn(u64, u64) -> bool) -> (u64, u64) {
        let (mut blocks, mut entries) = (0, 0);
        for run in &self.0 {
            if !goes(blocks + run.blocks, entries + run.entries) {
                break;
            }
            (blocks, entries) = (blocks + run.blocks, entries + run.entries);
        }
        (blocks, entries)
    }

    /// Which run has the block at a rank.
    fn place(&self, rank: u64) -> usize {
        let mut end = 0;
        let has = |run: &Run| {
            end += run.blocks;
            rank < end
        };
        self.0.iter().position(has).expect("every closed block is in a run")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_follow_their_blocks() {
        let mut runs = Runs::default();
        let all = |runs: &Runs| runs.pass(|_, _| true);
        for n in 0..200 {
            runs.push(n);
        }
        assert_eq!((all(&runs), runs.0.len()), ((200, 199 * 100), 4));
        runs.shrink(70, 50);
        runs.remove(64, 64);
        assert_eq!(all(&runs), (199, 199 * 100 - 114));
        assert_eq!(runs.pass(|blocks, _| blocks <= 127), (127, 127 * 64 - 114));
        assert_eq!(runs.pass(|_, entries| entries < 2016), (0, 0));
        assert_eq!(runs.pass(|_, entries| entries <= 2016), (64, 2016));
        runs.remove_first(65, 2016 + 65);
        assert_eq!(all(&runs), (134, 199 * 100 - 114 - 2016 - 65));
        runs.remove_first(134, 199 * 100 - 114 - 2016 - 65);
        assert_eq!((all(&runs), runs.0.len()), ((0, 0), 0));
        runs.push(3);
        runs.remove(0, 3);
        assert!(runs.0.is_empty());
    }
}
