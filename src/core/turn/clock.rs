//! A core's clock for spans, and what is said when the wall clock was behind the shards' time: one
//! line for all shards, and numbers for INFO.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Measures spans. It never goes back, even where the clock beneath does, as under a program that
/// pretends another time.
#[derive(Clone, Copy, Debug)]
pub struct SteadyClock {
    last: Instant,
    passed: Duration,
}

impl SteadyClock {
    /// Counts from `start`.
    pub fn new(start: Instant) -> SteadyClock {
        SteadyClock { last: start, passed: Duration::ZERO }
    }

    /// Somebody has read so much: this goes on from there at least.
    pub fn not_before(&mut self, passed: Duration) {
        self.passed = self.passed.max(passed);
    }

    /// The time that had passed at a moment that is not before the last reading.
    pub fn at(&self, moment: Instant) -> Duration {
        self.passed + moment.saturating_duration_since(self.last)
    }

    /// The time that has passed. Cost: one reading of the clock.
    pub fn read(&mut self) -> Duration {
        let now = Instant::now();
        self.passed += now.saturating_duration_since(self.last);
        self.last = now;
        self.passed
    }
}

/// Shards that turn back within so many milliseconds do it for the same reason.
const SAME_REASON_MS: u64 = 1000;

/// How often the clock went back, since the start.
#[derive(Debug, Default)]
pub struct ClockReports {
    /// Milliseconds since the start at the last report, and one; 0 before the first.
    last: AtomicU64,
    count: AtomicU64,
    by_ms: AtomicI64,
}

impl ClockReports {
    /// A shard's time was turned back by so much, so long after the start. The first shard writes
    /// the line.
    #[cold]
    pub fn note(&self, by_ms: i64, steady_ms: i64) {
        let now = steady_ms.unsigned_abs() + 1;
        let last = self.last.load(Ordering::Relaxed);
        let is_new = last == 0 || now > last + SAME_REASON_MS;
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        if !is_new || self.last.compare_exchange(last, now, success, failure).is_err() {
            return;
        }
        self.by_ms.store(by_ms, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            "the wall clock is {by_ms} ms behind the time of the data: time goes on from the clock; deadlines that \
             were given meanwhile are so much too late"
        );
    }

    /// How often, and by how many milliseconds the last time.
    pub fn numbers(&self) -> (u64, i64) {
        (self.count.load(Ordering::Relaxed), self.by_ms.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shards_report_once() {
        let reports = ClockReports::default();
        assert_eq!(reports.numbers(), (0, 0));
        reports.note(3000, 0);
        reports.note(3001, 1);
        assert_eq!(reports.numbers(), (1, 3000));
        reports.note(500, 10_000);
        assert_eq!(reports.numbers(), (2, 500));
    }
}
