//! When requests of an open loop are due.
//!
//! The times are fixed by the rate alone. A request that could not be sent in time stays due, and
//! its latency counts from the time it was due: a server that stalls is charged for every request
//! that would have come meanwhile.

use super::random::Random;

/// The arrivals of one thread, in nanoseconds since the run's start.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Mean nanoseconds between arrivals.
    gap: f64,
    poisson: Option<Random>,
    next: f64,
}

impl Schedule {
    /// `rate` arrivals per second; threads with different `phase` (0 to 1, of a gap) do not fall
    /// together.
    pub fn new(rate: f64, phase: f64, poisson: Option<Random>) -> Schedule {
        assert!(rate > 0.0, "a rate of {rate}");
        let gap = 1e9 / rate;
        Schedule { gap, poisson, next: gap * phase }
    }

    /// When the next request is due.
    pub fn next_due(&self) -> u64 {
        self.next as u64
    }

    /// The request that was due next is taken care of.
    pub fn advance(&mut self) {
        let gaps = self.poisson.as_mut().map_or(1.0, |random| -(1.0 - random.unit()).ln());
        self.next += self.gap * gaps;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_arrivals_keep_their_times_whatever_happens_between() {
        let mut schedule = Schedule::new(40_000.0, 0.0, None);
        for arrival in 0..100_000_u64 {
            assert_eq!(schedule.next_due(), arrival * 25_000);
            schedule.advance();
        }
    }

    #[test]
    fn threads_take_turns() {
        let first = Schedule::new(1000.0, 0.0, None);
        let second = Schedule::new(1000.0, 0.5, None);
        assert_eq!(second.next_due() - first.next_due(), 500_000);
    }

    /// Of independent arrivals as many gaps are above the mean as e says, and the rate holds.
    #[test]
    fn poisson_arrivals() {
        const ARRIVALS: u32 = 100_000;
        let mut schedule = Schedule::new(1e6, 0.0, Some(Random::new(5)));
        let (mut last, mut long) = (0, 0_u32);
        for _ in 0..ARRIVALS {
            schedule.advance();
            let due = schedule.next_due();
            long += u32::from(due - last > 1000);
            last = due;
        }
        let mean = last as f64 / f64::from(ARRIVALS);
        assert!((985.0..1015.0).contains(&mean), "mean gap {mean} ns");
        let share = f64::from(long) / f64::from(ARRIVALS);
        assert!((0.36..0.376).contains(&share), "{share} of the gaps are above the mean");
    }
}
