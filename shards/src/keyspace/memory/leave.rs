//! Choosing sparse slabs that are to be left, so that their memory can be given back.
//!
//! Exact sizes have their price when the sizes of a workload change: each slab keeps a few items of
//! the old size. Of each class the sparsest slabs are chosen, as many as the other slabs have room
//! for what is in them. They are taken off the list of those that serve; whoever knows who points
//! to the allocations then moves them.

use super::chunk::{SLAB_BYTES, SlabPointer};
use super::class::{CLASS_COUNT, class_size};
use super::slabs::Slabs;
use super::{Memory, Spare};
use crate::limits::{COMPACTION_SLABS_MAX, COMPACTION_SPARE_PERCENT};
use std::ptr::NonNull;

/// Steps in which it is told how full slabs are.
const LEVELS: usize = 16;

/// Slabs of one level, and what is in them.
#[derive(Clone, Copy, Default)]
struct Level {
    slab_count: usize,
    used: usize,
}

impl Slabs {
    /// How many slabs there would be fewer if all allocations of a class lay close together.
    fn gain(&self) -> usize {
        (1..CLASS_COUNT).map(|class| self.gain_of(class)).sum()
    }

    fn gain_of(&self, class: usize) -> usize {
        let known = &self.classes[class];
        let capacity = SLAB_BYTES / class_size(class);
        let gain = known.slab_count.saturating_sub(known.used.div_ceil(capacity));
        // Less than a tenth is as dense as it gets.
        if gain * 10 < known.slab_count { 0 } else { gain }
    }

    /// Chooses slabs of a class, of those that come first up to `budget`.
    fn choose(&mut self, class: usize, budget: &mut usize) {
        let capacity = SLAB_BYTES / class_size(class);
        let level_of = |slab: SlabPointer| (slab.used() * LEVELS / capacity).min(LEVELS - 1);
        let mut levels = [Level::default(); LEVELS];
        let mut room = 0;
        let mut next = self.classes[class].with_room;
        let mut visited = 0;
        while let Some(slab) = next
            && visited < *budget
        {
            let level = &mut levels[level_of(slab)];
            level.slab_count += 1;
            level.used += slab.used();
            room += capacity - slab.used().min(capacity);
            next = slab.next();
            visited += 1;
        }
        *budget -= visited;
        // How many go of each level: while what leaves finds room in what stays.
        let (mut leaving, mut counts) = (0, [0; LEVELS]);
        'levels: for (level, count) in levels.iter().zip(&mut counts) {
            let each = level.used.div_ceil(level.slab_count.max(1));
            while *count < level.slab_count {
                room = room.saturating_sub(capacity - each.min(capacity));
                leaving += each;
                if leaving > room {
                    break 'levels;
                }
                *count += 1;
            }
        }
        let mut next = self.classes[class].with_room;
        for _ in 0..visited {
            let slab = next.expect("it was visited before");
            next = slab.next();
            let count = &mut counts[level_of(slab)];
            if *count > 0 {
                *count -= 1;
                self.unlist(slab, class);
                self.leaving.insert(slab);
            }
        }
    }
}

impl Memory {
    /// Is so much of the slabs in use free that a look at them pays?
    pub(in super::super) fn is_sparse(&self, spare_bytes_min: usize) -> bool {
        let Spare { idle, empty, .. } = self.slabs.spare();
        let spare = idle - empty;
        spare >= spare_bytes_min && spare * 100 > self.used() * COMPACTION_SPARE_PERCENT
    }

    /// Chooses slabs that items are to leave, if it gains `slab_count_min` at least. Are there any?
    /// Cost: two looks at up to [`COMPACTION_SLABS_MAX`] descriptors, 0.1 us each.
    pub(in super::super) fn begin_leaving(&mut self, slab_count_min: usize) -> bool {
        if self.slabs.gain() < slab_count_min {
            return false;
        }
        let mut budget = COMPACTION_SLABS_MAX;
        for class in 1..CLASS_COUNT {
            if self.slabs.gain_of(class) > 0 {
                self.slabs.choose(class, &mut budget);
            }
        }
        self.is_leaving_any()
    }

    /// Are there slabs that items are to leave?
    pub(in super::super) fn is_leaving_any(&self) -> bool {
        !self.slabs.leaving.is_empty()
    }

    /// Does an allocation, of any size, lie in a slab that is to be left? Does not touch it.
    #[inline(always)]
    pub(in super::super) fn is_leaving(&self, allocation: NonNull<u8>) -> bool {
        self.slabs.leaving.contains(&SlabPointer::of(allocation))
    }

    /// Lets what is still in such slabs stay.
    pub(in super::super) fn end_leaving(&mut self) {
        for slab in std::mem::take(&mut self.slabs.leaving) {
            self.slabs.list(slab, slab.class());
        }
    }
}
