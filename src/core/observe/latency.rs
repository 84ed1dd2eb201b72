//! What held a core up: for each kind of event, when it took `latency-monitor-threshold` or longer
//! (LATENCY).
//!
//! Plain data of one core, as its other counters; LATENCY merges those of all cores. While the
//! threshold is 0 nothing is kept, and what is measured for other reasons anyway is compared with a
//! threshold that nothing reaches.

use std::collections::VecDeque;
use std::time::Duration;

/// Samples of an event that are kept, as in Redis.
pub const SAMPLES_KEPT_MAX: usize = 160;

/// What can hold somebody up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Like commands that ran together, or one alone.
    Command,
    /// The same, of commands that take constant or logarithmic time.
    FastCommand,
    /// One turn of a core, from its first piece of work to its last.
    Turn,
    /// A write of a log, on disk when it ends: what was written waits for it under `fsync always`.
    LogWrite,
    /// A sync of a log under `fsync everysec`.
    LogSync,
    /// A core's removal of items that have ended.
    ExpireCycle,
    /// A core's choice of items to evict.
    EvictionCycle,
    /// A step of a snapshot through the items.
    SnapshotStep,
}

impl Event {
    /// Each with its name and with what to do about it.
    pub const ALL: [(Event, &'static str, &'static str); 8] = [
        (
            Event::Command,
            "command",
            "Commands on large values, or many elements at once, hold up their core: SLOWLOG GET names them.",
        ),
        (
            Event::FastCommand,
            "fast-command",
            "Commands that cost little took long: the machine lacks processor time, or the core's memory is swapped out.",
        ),
        (
            Event::Turn,
            "turn",
            "A core had that much to do at once. If no command was slow: INFO cores shows whether one core has most of the \
             load, and other programs may take processor time from it.",
        ),
        (
            Event::LogWrite,
            "log-write",
            "The disk was slow to take the log, and writes waited: see what else writes to it, or choose fsync everysec.",
        ),
        (
            Event::LogSync,
            "log-sync",
            "The disk was slow to sync the log. Writes do not wait for that under fsync everysec.",
        ),
        (
            Event::ExpireCycle,
            "expire-cycle",
            "Many keys end at the same moment: spread their deadlines.",
        ),
        (
            Event::EvictionCycle,
            "eviction-cycle",
            "Memory is over maxmemory: raise it, or keep less.",
        ),
        (
            Event::SnapshotStep,
            "snapshot-step",
            "A snapshot met very large values: smaller ones let it take smaller steps.",
        ),
    ];

    /// The event of a name, in any case of letters.
    pub fn of(name: &[u8]) -> Option<Event> {
        let mut all = Event::ALL.iter();
        all.find(|(_, known, _)| known.as_bytes().eq_ignore_ascii_case(name)).map(|(e, _, _)| *e)
    }
}

/// One sample: when, in seconds since the Unix epoch, and how long, in milliseconds.
pub type Sample = (i64, u64);

/// What is kept of one event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Samples {
    /// Oldest first, at most one for each second.
    pub samples: VecDeque<Sample>,
    /// The longest since the last reset, milliseconds.
    pub longest_ms: u64,
}

impl Samples {
    fn add(&mut self, (second, took_ms): Sample) {
        self.longest_ms = self.longest_ms.max(took_ms);
        match self.samples.back_mut() {
            Some((last, longest)) if *last == second => *longest = (*longest).max(took_ms),
            _ => {
                self.samples.push_back((second, took_ms));
                if self.samples.len() > SAMPLES_KEPT_MAX {
                    self.samples.pop_front();
                }
            }
        }
    }

    /// Those of several cores as if one core had met them all.
    pub fn merged(all: impl IntoIterator<Item = Samples>) -> Samples {
        let mut merged = Samples::default();
        let mut samples: Vec<Sample> = Vec::new();
        for one in all {
            merged.longest_ms = merged.longest_ms.max(one.longest_ms);
            samples.extend(one.samples);
        }
        samples.sort_unstable();
        samples.into_iter().for_each(|sample| merged.add(sample));
        merged
    }
}

/// The events of one core.
#[derive(Clone, Debug)]
pub struct LatencyMonitor {
    threshold: Duration,
    events: [Samples; Event::ALL.len()],
}

impl Default for LatencyMonitor {
    /// Empty, and never takes one.
    fn default() -> LatencyMonitor {
        LatencyMonitor { threshold: Duration::MAX, events: Default::default() }
    }
}

impl LatencyMonitor {
    /// Takes from now on what lasts so long or longer; nothing when it is zero.
    pub fn configure(&mut self, threshold: Duration) {
        self.threshold = if threshold.is_zero() { Duration::MAX } else { threshold };
    }

    /// From which duration on something is kept.
    pub fn threshold(&self) -> Duration {
        self.threshold
    }

    /// Keeps an event if it lasted long enough; `now_ms` is the time of day.
    #[inline(always)]
    pub fn note(&mut self, event: Event, took: Duration, now_ms: i64) {
        if took >= self.threshold {
            self.keep(event, took, now_ms);
        }
    }

    #[cold]
    fn keep(&mut self, event: Event, took: Duration, now_ms: i64) {
        self.events[event as usize].add((now_ms / 1000, took.as_millis() as u64));
    }

    /// What is kept of an event.
    pub fn samples(&self, event: Event) -> &Samples {
        &self.events[event as usize]
    }

    /// Forgets an event. Was there anything?
    pub fn forget(&mut self, event: Event) -> bool {
        !std::mem::take(&mut self.events[event as usize]).samples.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_stand_in_their_order_and_are_found_by_name() {
        for (place, (event, name, advice)) in Event::ALL.iter().enumerate() {
            assert_eq!(*event as usize, place);
            assert_eq!(Event::of(name.to_ascii_uppercase().as_bytes()), Some(*event));
            assert!(!advice.is_empty());
        }
        assert_eq!(Event::of(b"fork"), None);
    }

    #[test]
    fn the_longest_of_each_second_is_kept() {
        let mut monitor = LatencyMonitor::default();
        monitor.note(Event::Turn, Duration::from_secs(3600), 1000);
        assert_eq!(monitor.samples(Event::Turn), &Samples::default(), "it is off");
        monitor.configure(Duration::from_millis(100));
        for (ms, at_ms) in [(99, 1000), (100, 1000), (300, 1999), (200, 1500), (150, 2000)] {
            monitor.note(Event::Turn, Duration::from_millis(ms), at_ms);
        }
        assert_eq!(monitor.samples(Event::Turn).samples, [(1, 300), (2, 150)]);
        assert_eq!(monitor.samples(Event::Turn).longest_ms, 300);
        assert!(monitor.forget(Event::Turn) && !monitor.forget(Event::Turn));
        assert_eq!(monitor.samples(Event::Turn), &Samples::default());
    }

    #[test]
    fn so_many_are_kept_and_cores_are_merged() {
        let mut cores = [LatencyMonitor::default(), LatencyMonitor::default()];
        for (core, monitor) in cores.iter_mut().enumerate() {
            monitor.configure(Duration::from_millis(1));
            for second in 0..200 {
                let took = Duration::from_millis(10 + core as u64 * second % 7);
                monitor.note(Event::LogWrite, took, second as i64 * 2000 + core as i64 * 1000);
            }
        }
        let all = cores.iter().map(|monitor| monitor.samples(Event::LogWrite).clone());
        let merged = Samples::merged(all);
        assert_eq!(merged.samples.len(), SAMPLES_KEPT_MAX);
        assert_eq!(merged.samples.back().map(|sample| sample.0), Some(399));
        assert!(merged.samples.iter().zip(merged.samples.iter().skip(1)).all(|(a, b)| a.0 < b.0));
        assert_eq!(merged.longest_ms, 16);
    }
}
