//! How long writes of the logs have taken lately: what 99 of 100 did not exceed.
//!
//! Counted in classes, four to each doubling, over the last five to ten seconds. Cost of a write:
//! two additions.

use crate::limits::{WRITE_TIMES_MS, WRITES_JUDGED_MIN};
use std::time::Duration;

/// Four for each power of two microseconds, up to half an hour.
const CLASSES: usize = 128;

/// Counts of writes by how long they took.
#[derive(Debug)]
pub struct WriteTimes {
    now: [u32; CLASSES],
    before: [u32; CLASSES],
    /// When `now` was begun, milliseconds since the process started.
    begun_ms: i64,
}

impl Default for WriteTimes {
    fn default() -> WriteTimes {
        WriteTimes { now: [0; CLASSES], before: [0; CLASSES], begun_ms: 0 }
    }
}

impl WriteTimes {
    /// A write has taken so long.
    #[inline]
    pub fn note(&mut self, took: Duration) {
        self.now[class(took)] += 1;
    }

    /// Time passes: what is too old is forgotten.
    pub fn tick(&mut self, steady_ms: i64) {
        if steady_ms - self.begun_ms >= WRITE_TIMES_MS {
            self.begun_ms = steady_ms;
            self.before = std::mem::replace(&mut self.now, [0; CLASSES]);
        }
    }

    /// Microseconds that one of a hundred writes exceeded, to a fifth exactly; 0 when too few were
    /// written to say so.
    pub fn p99_us(&self) -> u64 {
        let count = |class: usize| u64::from(self.now[class]) + u64::from(self.before[class]);
        let all: u64 = (0..CLASSES).map(count).sum();
        if all < WRITES_JUDGED_MIN {
            return 0;
        }
        let mut left = all / 100;
        for class in (0..CLASSES).rev() {
            match left.checked_sub(count(class)) {
                Some(rest) => left = rest,
                None => return least_us(class),
            }
        }
        0
    }
}

fn class(took: Duration) -> usize {
    let us = (took.as_micros() as u64).max(4);
    let log = us.ilog2();
    let quarter = (us >> (log - 2)) & 3;
    (4 * log as usize + quarter as usize).min(CLASSES - 1)
}

/// The shortest time of a class.
fn least_us(class: usize) -> u64 {
    let (log, quarter) = (class / 4, class as u64 % 4);
    (4 + quarter) << log >> 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(times: &[(u64, usize)]) -> WriteTimes {
        let mut all = WriteTimes::default();
        for (ms, count) in times {
            (0..*count).for_each(|_| all.note(Duration::from_millis(*ms)));
        }
        all
    }

    #[test]
    fn one_of_a_hundred_is_found() {
        assert_eq!(noted(&[(80, 50)]).p99_us(), 0, "too few");
        let near = |found: u64, ms: u64| {
            let us = ms * 1000;
            assert!(found <= us && found * 5 >= us * 4, "{found} is not {us}");
        };
        near(noted(&[(1, 990), (80, 10)]).p99_us(), 1);
        near(noted(&[(1, 989), (80, 11)]).p99_us(), 80);
        near(noted(&[(0, 10), (7, 5000)]).p99_us(), 7);
        noted(&[(0, 200)]).p99_us();
        let mut classes = (0..CLASSES).filter(|class| *class >= 8);
        assert!(classes.all(|of| class(Duration::from_micros(least_us(of))) == of));
    }

    #[test]
    fn what_is_old_is_forgotten() {
        let mut times = noted(&[(80, 200)]);
        times.tick(WRITE_TIMES_MS);
        assert!(times.p99_us() > 0);
        times.tick(2 * WRITE_TIMES_MS - 1);
        assert!(times.p99_us() > 0);
        times.tick(2 * WRITE_TIMES_MS);
        assert_eq!(times.p99_us(), 0);
    }
}
