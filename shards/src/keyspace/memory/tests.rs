//! The slabs against a model: random allocations of every class, written all over and looked at
//! again.

use super::class::CLASS_COUNT;
use super::*;
use crate::keyspace::model::Chance;

/// An allocation: where, how large (an item's bytes or an array's count), and what it is filled
/// with.
struct Held {
    pointer: NonNull<u8>,
    size: usize,
    is_array: bool,
    pattern: u8,
}

impl Held {
    fn bytes(&self) -> usize {
        if self.is_array { array_size(self.size) } else { self.size }
    }

    fn fill(&self) {
        // SAFETY: allocated with so many bytes, and used by this alone.
        unsafe { self.pointer.write_bytes(self.pattern, self.bytes()) };
    }

    fn check(&self) {
        // SAFETY: as above; `fill` has initialized it.
        let bytes = unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.bytes()) };
        let step = if cfg!(miri) { bytes.len() / 4 + 1 } else { 1 };
        assert!(bytes.iter().step_by(step).all(|&byte| byte == self.pattern), "overwritten");
        assert_eq!(bytes.last(), Some(&self.pattern));
    }
}

fn allocate(memory: &mut Memory, size: usize, is_array: bool, pattern: u8) -> Held {
    let (pointer, alignment) = if is_array {
        (memory.allocate_buckets(size).cast(), 64)
    } else {
        (memory.allocate_item(size), 8)
    };
    assert_eq!(pointer.addr().get() % alignment, 0);
    let held = Held { pointer, size, is_array, pattern };
    held.fill();
    held
}

fn free(memory: &mut Memory, held: Held) {
    held.check();
    // SAFETY: allocated with this size, and forgotten here.
    unsafe {
        if held.is_array {
            memory.free_buckets(held.pointer.cast(), held.size);
        } else {
            memory.free_item(held.pointer, held.size);
        }
    }
}

/// A size of any class, now and then one beyond slabs.
fn any_size(chance: &mut Chance) -> (usize, bool) {
    if chance.below(10) == 0 {
        return (array_count(1 + chance.below(700) as usize), true);
    }
    let end = [64, 300, 2100, 9000][chance.below(4) as usize];
    (item_size(1 + chance.below(end) as usize, chance.below(8) == 0), false)
}

#[test]
fn random_allocations_do_not_overlap_and_all_memory_returns() {
    let seeds = if cfg!(miri) { 1 } else { 6 };
    for seed in 0..seeds {
        println!("seed {seed}");
        let mut chance = Chance(seed);
        let mut memory = Memory::default();
        let mut held: Vec<Held> = vec![];
        let mut bytes = 0;
        for step in 0..if cfg!(miri) { 400 } else { 60_000 } {
            let growing = step / 5000 % 2 == 0;
            if held.is_empty() || chance.below(10) < if growing { 7 } else { 3 } {
                let (size, is_array) = any_size(&mut chance);
                let new = allocate(&mut memory, size, is_array, chance.bits() as u8);
                bytes += new.bytes();
                held.push(new);
            } else {
                let gone = held.swap_remove(chance.below(held.len() as u64) as usize);
                bytes -= gone.bytes();
                free(&mut memory, gone);
            }
            assert_eq!(memory.used(), bytes);
            if chance.below(1000) == 0 {
                memory.tend(chance.below(40) as usize);
            }
        }
        memory.tend(0);
        let spare = memory.published;
        assert!(spare.idle >= spare.empty && spare.empty >= spare.absent);
        held.into_iter().for_each(|held| free(&mut memory, held));
        assert_eq!((memory.used(), memory.has_large()), (0, false));
        while memory.tend(10) {}
        let spare = memory.published;
        let chunk = chunk::CHUNK_BYTES;
        assert_eq!((spare.idle, spare.empty, spare.absent), (chunk, chunk, chunk), "one is kept");
    }
}

#[test]
fn every_class_fills_its_slabs() {
    let mut memory = Memory::default();
    let items = (1..=SLAB_ITEM_BYTES_MAX).map(|size| (item_size(size, false), false));
    let arrays = (1..=SLAB_BUCKETS_MAX).map(|count| (array_count(count), true));
    let mut classes: Vec<(usize, bool)> = items.chain(arrays).collect();
    classes.dedup();
    assert_eq!(classes.len(), CLASS_COUNT - 1, "there is none of 0 bytes");
    for (size, is_array) in classes.into_iter().step_by(if cfg!(miri) { 50 } else { 1 }) {
        let bytes = if is_array { array_size(size) } else { size };
        // Beyond a chunk, so that both kinds of slabs were filled.
        let count = if cfg!(miri) { 20 } else { chunk::CHUNK_BYTES / bytes + 10 };
        let held: Vec<Held> =
            (0..count).map(|n| allocate(&mut memory, size, is_array, n as u8)).collect();
        assert_eq!(memory.used(), count * bytes);
        held.into_iter().for_each(|held| free(&mut memory, held));
        assert_eq!(memory.used(), 0);
    }
    assert_eq!(memory.slabs.spare().idle, chunk::CHUNK_BYTES);
}

#[test]
fn what_was_freed_is_used_first() {
    let mut memory = Memory::default();
    let held: Vec<Held> = (0..5000).map(|n| allocate(&mut memory, 88, false, n as u8)).collect();
    let spare = memory.slabs.spare();
    let mut places: Vec<_> = vec![];
    let (gone, kept): (Vec<_>, Vec<_>) =
        held.into_iter().enumerate().partition(|(n, _)| n % 3 == 0);
    for (_, held) in gone {
        places.push(held.pointer);
        free(&mut memory, held);
    }
    let mut again: Vec<_> = vec![];
    for n in 0..places.len() {
        again.push(allocate(&mut memory, 88, false, n as u8));
    }
    assert_eq!(memory.slabs.spare(), spare, "no slab was added");
    places.sort_unstable();
    let mut reused: Vec<_> = again.iter().map(|held| held.pointer).collect();
    reused.sort_unstable();
    assert_eq!(reused, places);
    kept.into_iter().for_each(|(_, held)| held.check());
}

#[test]
fn the_totals_of_the_process_follow() {
    let mut memory = Memory::default();
    let held = allocate(&mut memory, 64, false, 1);
    memory.tend(0);
    // Other tests run beside this one: at least its own part is in the sum.
    assert!(Spare::of_process().idle >= memory.published.idle);
    assert_eq!(memory.published.idle, chunk::CHUNK_BYTES - 64);
    assert_eq!(memory.published.empty, chunk::CHUNK_BYTES - chunk::SLAB_BYTES);
    assert_eq!(memory.published.absent, memory.published.empty);
    free(&mut memory, held);
    memory.tend(0);
    let absent = chunk::CHUNK_BYTES - chunk::SLAB_BYTES;
    let expected = Spare { idle: chunk::CHUNK_BYTES, empty: chunk::CHUNK_BYTES, absent };
    assert_eq!(memory.published, expected);
}
