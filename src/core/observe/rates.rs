//! How fast a core's counters grow: a short window of samples, one per tick.

use crate::core::observe::stats::Stats;
use std::collections::VecDeque;

/// Samples in the window: 1.6 seconds, as Redis has it.
const SAMPLES: usize = 16;

/// The samples, oldest first.
#[derive(Debug, Default)]
pub struct Rates {
    samples: VecDeque<Sample>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    time_ms: i64,
    commands: u64,
    input_bytes: u64,
    output_bytes: u64,
}

/// Growth per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Commands run.
    pub commands: f64,
    /// Bytes received.
    pub input_bytes: f64,
    /// Bytes sent.
    pub output_bytes: f64,
}

impl std::ops::AddAssign for Rate {
    fn add_assign(&mut self, other: Rate) {
        self.commands += other.commands;
        self.input_bytes += other.input_bytes;
        self.output_bytes += other.output_bytes;
    }
}

impl Rates {
    /// Notes where the counters stand.
    pub fn sample(&mut self, time_ms: i64, stats: &Stats) {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        let (commands, input_bytes) = (stats.total_commands, stats.input_bytes);
        let output_bytes = stats.output_bytes;
        self.samples.push_back(Sample { time_ms, commands, input_bytes, output_bytes });
    }

    /// Growth over the window; zero after a reset of the counters until the window has passed.
    pub fn rate(&self) -> Rate {
        let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) else {
            return Rate::default();
        };
        let seconds = (last.time_ms - first.time_ms) as f64 / 1000.0;
        if seconds <= 0.0 {
            return Rate::default();
        }
        let growth = |from: u64, to: u64| to.saturating_sub(from) as f64 / seconds;
        Rate {
            commands: growth(first.commands, last.commands),
            input_bytes: growth(first.input_bytes, last.input_bytes),
            output_bytes: growth(first.output_bytes, last.output_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_moves_on() {
        let mut rates = Rates::default();
        let mut stats = Stats::default();
        assert_eq!(rates.rate(), Rate::default());
        for tick in 0..100 {
            stats.total_commands += if tick < 50 { 1000 } else { 10 };
            rates.sample(tick * 100, &stats);
        }
        assert_eq!(rates.rate().commands, 100.0);
        stats.reset();
        rates.sample(10_000, &stats);
        assert_eq!(rates.rate().commands, 0.0);
    }
}
