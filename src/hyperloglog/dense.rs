//! Registers of six bits each, back to back, the lowest bits of a byte first. Four of them are
//! three bytes.

use super::REGISTERS;
use super::estimate::Histogram;

/// A register.
pub(super) fn get(bytes: &[u8], index: usize) -> u8 {
    let group = &bytes[index / 4 * 3..][..3];
    ranks(group)[index % 4]
}

/// The four registers of three bytes.
#[inline(always)]
fn ranks(group: &[u8]) -> [u8; 4] {
    let word = u32::from_le_bytes([group[0], group[1], group[2], 0]);
    [0, 6, 12, 18].map(|shift| (word >> shift) as u8 & 63)
}

/// Raises a register to `rank`. Was it lower?
pub(super) fn raise(bytes: &mut [u8], index: usize, rank: u8) -> bool {
    if get(bytes, index) >= rank {
        return false;
    }
    let group = &mut bytes[index / 4 * 3..][..3];
    let shift = index % 4 * 6;
    let mut word = u32::from_le_bytes([group[0], group[1], group[2], 0]);
    word = word & !(63 << shift) | u32::from(rank) << shift;
    group.copy_from_slice(&word.to_le_bytes()[..3]);
    true
}

/// How many registers have each rank.
pub(super) fn histogram(bytes: &[u8]) -> Histogram {
    // Four counters side by side: equal ranks in a row would wait for each other.
    let mut counts = [[0u32; 64]; 4];
    for group in bytes.chunks_exact(3) {
        for (counts, rank) in counts.iter_mut().zip(ranks(group)) {
            counts[usize::from(rank)] += 1;
        }
    }
    std::array::from_fn(|rank| counts.iter().map(|counts| counts[rank]).sum())
}

/// Raises each register to that of `bytes`.
pub(super) fn merge(registers: &mut [u8; REGISTERS], bytes: &[u8]) {
    for (registers, group) in registers.chunks_exact_mut(4).zip(bytes.chunks_exact(3)) {
        for (register, rank) in registers.iter_mut().zip(ranks(group)) {
            *register = rank.max(*register);
        }
    }
}
