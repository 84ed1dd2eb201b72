//! How long the machine itself keeps its cpus from running: the floor of every tail that is
//! measured on it.
//!
//! One thread on each cpu does nothing but read the clock. Where two readings lie further apart
//! than a reading can take, something else had the cpu: another process, the kernel, or the host
//! that the machine is a guest of.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cpus;

/// A gap from which on the thread was not running.
const STALL_MIN: Duration = Duration::from_micros(200);

/// What was found on one cpu or on all.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Stalls {
    /// What the line of the history is.
    pub kind: &'static str,
    /// Watched time of all cpus, in seconds.
    pub seconds: f64,
    /// Count of stalls.
    pub count: u64,
    /// What they took of that, in seconds.
    pub lost_seconds: f64,
    /// The longest, in seconds.
    pub longest_seconds: f64,
}

impl Stalls {
    const NONE: Stalls =
        Stalls { kind: "stalls", seconds: 0.0, count: 0, lost_seconds: 0.0, longest_seconds: 0.0 };

    fn add(&mut self, other: Stalls) {
        self.seconds += other.seconds;
        self.count += other.count;
        self.lost_seconds += other.lost_seconds;
        self.longest_seconds = self.longest_seconds.max(other.longest_seconds);
    }

    /// For people.
    pub fn text(&self) -> String {
        format!(
            "The machine's own stalls, all cpus busy with reading the clock: {} above {} us, {:.2} % of the time, \
             the longest {:.1} ms. A percentile that leaves out less than that is not the server's.",
            self.count,
            STALL_MIN.as_micros(),
            self.lost_seconds / self.seconds * 100.0,
            self.longest_seconds * 1e3,
        )
    }
}

/// Watches all cpus at once for `time`. Their threads ask to go before others, as those of a
/// latency measurement do.
pub fn watch(time: Duration) -> Stalls {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let start = Barrier::new(cores.len());
    let mut all = Stalls::NONE;
    thread::scope(|scope| {
        let start = &start;
        let watchers: Vec<_> = cores
            .into_iter()
            .map(|core| {
                scope.spawn(move || {
                    core_affinity::set_for_current(core);
                    cpus::hasten();
                    start.wait();
                    watch_one(time)
                })
            })
            .collect();
        for watcher in watchers {
            all.add(watcher.join().expect("a watcher only reads the clock"));
        }
    });
    all
}

fn watch_one(time: Duration) -> Stalls {
    let begin = Instant::now();
    let (mut stalls, mut last) = (Stalls::NONE, begin);
    while last - begin < time {
        let now = Instant::now();
        let gap = now - last;
        if gap >= STALL_MIN {
            stalls.count += 1;
            stalls.lost_seconds += gap.as_secs_f64();
            stalls.longest_seconds = stalls.longest_seconds.max(gap.as_secs_f64());
        }
        last = now;
    }
    stalls.seconds = (last - begin).as_secs_f64();
    stalls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cpu_is_watched_for_the_time() {
        let cpus = core_affinity::get_core_ids().unwrap_or_default().len() as f64;
        let stalls = watch(Duration::from_millis(20));
        assert!(stalls.seconds >= 0.02 * cpus, "{stalls:?}");
        assert!(
            stalls.lost_seconds <= stalls.seconds
                && (stalls.count > 0) == (stalls.lost_seconds > 0.0)
        );
        assert!(stalls.text().contains(&stalls.count.to_string()));
    }
}
