//! What the policy is told: how busy a core's thread is, and what others do with the cpus.

#![allow(unsafe_code)] // getrusage and sysconf have no safe interface in std.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// What a thread has had of its cpu since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Times {
    ran: Duration,
    /// Ready to run, while others did.
    waited: Duration,
    /// How often it was made to wait.
    preempted_count: u64,
}

/// Shares of the time since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Share {
    /// Working, or ready to.
    pub busy: f64,
    /// Having the cpu, whatever for.
    pub ran: f64,
    /// Looking for work.
    pub spun: f64,
    /// Ready to run while others did.
    pub waited: f64,
    /// With requests that had come and waited for another turn.
    pub behind: f64,
    /// Did the thread have to make room for others?
    pub is_pressed: bool,
}

/// Share of its time that a thread may have waited for its cpu without being pressed.
const WAITED_MAX: f64 = 0.02;

/// Measures the thread that made it.
pub struct Meter {
    /// The scheduler's own account, where the kernel keeps one.
    schedstat: Option<File>,
    last: Times,
    looked: Instant,
    /// Time spent looking for work since then.
    spun: Duration,
    /// Time behind since then, and since when it is.
    behind: Duration,
    behind_since: Option<Instant>,
}

impl Meter {
    /// For the thread that calls.
    pub fn of_this_thread() -> Meter {
        // Opened by this thread it means this thread, whoever reads it.
        let schedstat = File::open("/proc/thread-self/schedstat").ok();
        let mut meter = Meter {
            schedstat,
            last: Times::default(),
            looked: Instant::now(),
            spun: Duration::ZERO,
            behind: Duration::ZERO,
            behind_since: None,
        };
        meter.last = meter.read();
        meter
    }

    /// So much time was spent looking for work in vain, or until some came.
    pub fn spun(&mut self, time: Duration) {
        self.spun += time;
    }

    /// Has this turn left requests over for the next? Cost: a comparison, and a look at the clock
    /// when that changes.
    pub fn leaves_over(&mut self, some: bool) {
        if some != self.behind_since.is_some() {
            self.turn_behind(some);
        }
    }

    #[cold]
    fn turn_behind(&mut self, some: bool) {
        let now = Instant::now();
        if let Some(since) = self.behind_since.take() {
            self.behind += now.saturating_duration_since(since);
        }
        self.behind_since = some.then_some(now);
    }

    /// The shares since the last look. Cost: two system calls.
    pub fn look(&mut self) -> Share {
        let (now, times) = (Instant::now(), self.read());
        let passed = now.saturating_duration_since(self.looked).as_secs_f64().max(1e-6);
        let share = |time: Duration| (time.as_secs_f64() / passed).min(1.0);
        let ran = times.ran.saturating_sub(self.last.ran);
        let waited = times.waited.saturating_sub(self.last.waited);
        let spun = std::mem::take(&mut self.spun);
        let mut behind = std::mem::take(&mut self.behind);
        if let Some(since) = &mut self.behind_since {
            behind += now.saturating_duration_since(*since);
            *since = now;
        }
        let found = Share {
            busy: share((ran + waited).saturating_sub(spun)),
            ran: share(ran),
            spun: share(spun.min(ran)),
            waited: share(waited),
            behind: share(behind),
            is_pressed: times.preempted_count > self.last.preempted_count
                || share(waited) > WAITED_MAX,
        };
        (self.last, self.looked) = (times, now);
        found
    }

    fn read(&self) -> Times {
        let usage = thread_usage();
        let mut text = [0; 96];
        let read = self.schedstat.as_ref().and_then(|file| file.read_at(&mut text, 0).ok());
        let account = read.and_then(|length| parse_schedstat(&text[..length]));
        match account {
            Some((ran, waited)) => Times { ran, waited, ..usage },
            None => usage,
        }
    }
}

/// Time run and time waited, of `/proc/.../schedstat`.
fn parse_schedstat(text: &[u8]) -> Option<(Duration, Duration)> {
    let mut numbers = std::str::from_utf8(text).ok()?.split_ascii_whitespace();
    let mut time = || Some(Duration::from_nanos(numbers.next()?.parse().ok()?));
    Some((time()?, time()?))
}

fn thread_usage() -> Times {
    // SAFETY: the structure is plain numbers, for which zeros are values.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is ours.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    let time = |t: libc::timeval| {
        Duration::from_secs(t.tv_sec as u64) + Duration::from_micros(t.tv_usec as u64)
    };
    let ran = time(usage.ru_utime) + time(usage.ru_stime);
    Times { ran, waited: Duration::ZERO, preempted_count: usage.ru_nivcsw as u64 }
}

/// How the cpus spent their time since the machine started, in the kernel's ticks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuTimes {
    /// For each cpu: its number, ticks in all, ticks idle.
    cpus: Vec<(usize, u64, u64)>,
}

impl CpuTimes {
    /// Reads them; nothing where the kernel tells nothing.
    pub fn read() -> CpuTimes {
        let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        CpuTimes::parse(&text)
    }

    fn parse(text: &str) -> CpuTimes {
        let of_line = |line: &str| {
            let mut words = line.strip_prefix("cpu")?.split_ascii_whitespace();
            let cpu = words.next().filter(|_| !line.starts_with("cpu "))?.parse().ok()?;
            // user, nice, system, idle, iowait, irq, softirq, steal; guests are counted among
            // these.
            let ticks: Vec<u64> = words.take(8).filter_map(|word| word.parse().ok()).collect();
            (ticks.len() >= 5).then(|| (cpu, ticks.iter().sum(), ticks[3] + ticks[4]))
        };
        CpuTimes { cpus: text.lines().filter_map(of_line).collect() }
    }

    /// Share of its time that a cpu was busy between the two. Nothing when too little time has
    /// passed to tell.
    pub fn busy_since(&self, before: &CpuTimes, cpu: usize) -> Option<f64> {
        let of = |times: &CpuTimes| times.cpus.iter().find(|(n, ..)| *n == cpu).copied();
        let ((_, all, idle), (_, all_before, idle_before)) = (of(self)?, of(before)?);
        let all = all.saturating_sub(all_before);
        let idle = idle.saturating_sub(idle_before);
        (all >= TICKS_MIN).then(|| 1.0 - (idle as f64 / all as f64).min(1.0))
    }
}

/// Ticks of a cpu below which nothing is said of it.
const TICKS_MIN: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_read() {
        let run = Duration::from_nanos;
        assert_eq!(parse_schedstat(b"12345 678 9\n"), Some((run(12345), run(678))));
        assert_eq!(parse_schedstat(b"12345"), None);
        assert_eq!(parse_schedstat(b""), None);
        let before = CpuTimes::parse(
            "cpu  10 0 0 90 0 0 0 0 0 0\ncpu0 100 0 0 900 0 0 0 0 0 0\ncpu12 1 1 1 1 1 1 1 1 1 1\nintr 1",
        );
        assert_eq!(before.cpus, [(0, 1000, 900), (12, 8, 2)]);
        let after = CpuTimes::parse("cpu0 120 5 5 915 5 0 0 0 0 0\ncpu12 1 1 1 1 1 1 1 2 1 1");
        assert_eq!(after.busy_since(&before, 0), Some(0.6));
        assert_eq!(after.busy_since(&before, 12), None, "too little time");
        assert_eq!(after.busy_since(&before, 1), None, "no such cpu");
    }

    #[test]
    fn a_busy_thread_is_seen_to_be_busy() {
        let mut meter = Meter::of_this_thread();
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(60) {
            std::hint::spin_loop();
        }
        let share = meter.look();
        assert!(share.busy > 0.5 && share.ran <= 1.0 && share.busy <= 1.0, "{share:?}");
        meter.spun(Duration::from_secs(1));
        assert_eq!(meter.look().busy, 0.0);
    }

    #[test]
    fn time_behind_is_that_between_turns_that_leave_requests_over() {
        let spin = || {
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(10) {
                std::hint::spin_loop();
            }
        };
        let mut meter = Meter::of_this_thread();
        spin();
        assert_eq!(meter.look().behind, 0.0);
        meter.leaves_over(true);
        spin();
        meter.leaves_over(true);
        let share = meter.look();
        assert!(share.behind > 0.9, "it goes on over a look: {share:?}");
        spin();
        assert!(meter.look().behind > 0.9);
        meter.leaves_over(false);
        meter.look();
        spin();
        assert_eq!(meter.look().behind, 0.0);
    }
}
