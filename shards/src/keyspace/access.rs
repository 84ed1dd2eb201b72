//! The 24 bits in each item that remember accesses, for eviction and OBJECT IDLETIME / FREQ.
//!
//! Recency: seconds since the epoch, modulo 2^24 (194 days). Frequency: 16 bits of minutes when the
//! count was last decayed and an 8-bit logarithmic count, as Redis has it. Which one it is, the
//! keyspace knows. The bits differ from replica to replica and never decide what an edit does.

use super::item::RawItem;
use crate::limits::{FREQUENCY_DECAY_MINUTES, FREQUENCY_LOG_FACTOR};
use std::cell::Cell;

/// Count that a new item starts with, so that it is not evicted before it had a chance.
const FREQUENCY_START: u8 = 5;

const CLOCK_MASK: u64 = 0xff_ffff;

/// An access clock that is up to so much ahead of ours is of a time when the wall clock was ahead,
/// not half a year old.
const AHEAD_SECONDS_MAX: u64 = 24 * 3600;

/// The same for the 45 days of the frequency's clock.
const AHEAD_MINUTES_MAX: u16 = 24 * 60;

/// Longest idle time that can be given to an item, half of the clock's range: what is longer is
/// taken for this, and as much time again passes before the clock has wrapped.
const IDLE_SECONDS_MAX: u64 = CLOCK_MASK.div_ceil(2);

/// What is remembered of accesses to items: the eviction policy decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessClock {
    /// When the last one was (LRU policies, and no policy).
    #[default]
    Recency,
    /// About how many there were (LFU policies).
    Frequency,
}

/// Counts accesses by the clock in force.
pub(super) struct Accesses {
    pub(super) clock: AccessClock,
    /// State of a xorshift generator: local chance, for the frequency count alone.
    chance: Cell<u64>,
}

impl Default for Accesses {
    fn default() -> Accesses {
        Accesses { clock: AccessClock::Recency, chance: Cell::new(0x9e37_79b9_7f4a_7c15) }
    }
}

impl Accesses {
    /// The bits of a new item.
    #[inline(always)]
    pub(super) fn fresh(&self, now_ms: i64) -> u32 {
        match self.clock {
            AccessClock::Recency => seconds(now_ms),
            AccessClock::Frequency => pack(minutes(now_ms), FREQUENCY_START),
        }
    }

    /// The bits of an item that has these and is accessed.
    #[inline(always)]
    pub(super) fn next(&self, access: u32, now_ms: i64) -> u32 {
        match self.clock {
            AccessClock::Recency => seconds(now_ms),
            AccessClock::Frequency => {
                let count = frequency(access, now_ms);
                pack(minutes(now_ms), self.raised(count))
            }
        }
    }

    /// Counts an access to an item.
    #[inline(always)]
    pub(super) fn touch(&self, item: RawItem, now_ms: i64) {
        item.set_access(self.next(item.access(), now_ms));
    }

    /// A count after one more access: the higher it is, the less likely it grows.
    fn raised(&self, count: u8) -> u8 {
        let odds = u64::from(count.saturating_sub(FREQUENCY_START)) * FREQUENCY_LOG_FACTOR + 1;
        let mut x = self.chance.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.chance.set(x);
        if (x >> 32) * odds < 1 << 32 { count.saturating_add(1) } else { count }
    }
}

/// The bits of an item idle for so long.
pub(super) fn idle_since(idle_seconds: u64, now_ms: i64) -> u32 {
    (u64::from(seconds(now_ms)).wrapping_sub(idle_seconds.min(IDLE_SECONDS_MAX)) & CLOCK_MASK)
        as u32
}

/// The bits of an item with this count.
pub(super) fn with_frequency(count: u8, now_ms: i64) -> u32 {
    pack(minutes(now_ms), count)
}

/// Seconds since the last access, by the recency clock.
pub(super) fn idle_seconds(access: u32, now_ms: i64) -> u64 {
    let idle = u64::from(seconds(now_ms)).wrapping_sub(u64::from(access)) & CLOCK_MASK;
    if idle > CLOCK_MASK - AHEAD_SECONDS_MAX { 0 } else { idle }
}

/// The count, less one for each period since it was last decayed.
pub(super) fn frequency(access: u32, now_ms: i64) -> u8 {
    let idle = minutes(now_ms).wrapping_sub((access >> 8) as u16);
    let idle = if idle > u16::MAX - AHEAD_MINUTES_MAX { 0 } else { idle };
    let periods = u64::from(idle) / FREQUENCY_DECAY_MINUTES;
    u64::from(access as u8).saturating_sub(periods) as u8
}

#[inline(always)]
fn seconds(now_ms: i64) -> u32 {
    (now_ms.div_euclid(1000) as u64 & CLOCK_MASK) as u32
}

fn minutes(now_ms: i64) -> u16 {
    now_ms.div_euclid(60_000) as u16
}

fn pack(minutes: u16, count: u8) -> u32 {
    u32::from(minutes) << 8 | u32::from(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    #[test]
    fn recency_survives_the_wrap_of_its_clock() {
        let wrap_ms = ((((NOW / 1000) >> 24) + 1) << 24) * 1000;
        let before = seconds(wrap_ms - 5000);
        assert_eq!(idle_seconds(before, wrap_ms + 7999), 12);
        for ahead_ms in [90_000, 3_700_000, 20 * 3_600_000] {
            assert_eq!(idle_seconds(seconds(NOW + ahead_ms), NOW), 0, "a clock that went back");
            let access = with_frequency(200, NOW + ahead_ms);
            assert_eq!(frequency(access, NOW), 200, "a clock that went back");
        }
        assert_eq!(idle_seconds(idle_since(1000, NOW), NOW + 1000), 1001);
        for idle in [1 << 23, CLOCK_MASK - 3600, CLOCK_MASK, CLOCK_MASK + 1, u64::MAX] {
            // Redis' value when its clock would underflow.
            assert_eq!(idle_seconds(idle_since(idle, NOW), NOW), 8_388_608, "{idle}");
        }
    }

    #[test]
    fn frequency_grows_ever_more_slowly_and_decays() {
        let accesses = Accesses { clock: AccessClock::Frequency, ..Accesses::default() };
        let mut access = accesses.fresh(NOW);
        assert_eq!(frequency(access, NOW), FREQUENCY_START);
        let mut counts = vec![];
        for n in 1..=100_000 {
            access = accesses.next(access, NOW);
            if [10, 1000, 100_000].contains(&n) {
                counts.push(frequency(access, NOW));
            }
        }
        // Redis' own table for factor 10: 10 after 100 hits, 18 after 1,000, 142 after 100,000.
        assert!((6..=12).contains(&counts[0]), "{counts:?}");
        assert!((12..=26).contains(&counts[1]), "{counts:?}");
        assert!((120..=165).contains(&counts[2]), "{counts:?}");
        assert_eq!(frequency(access, NOW + 10 * 60_000), counts[2] - 10);
        assert_eq!(frequency(with_frequency(3, NOW), NOW + 3_600_000), 0);
        assert_eq!(frequency(with_frequency(3, NOW), NOW - 120_000), 3, "a clock that went back");
    }
}
