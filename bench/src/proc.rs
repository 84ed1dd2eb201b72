//! What the kernel says in /proc about processes and the machine.

use std::fs;
use std::path::Path;

use crate::cpus::ticks_per_second;

/// Cpu that a process has used: user and system, all threads, kernel workers of its rings included.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuTime {
    /// By /proc/PID/stat: whole clock ticks, of 10 ms mostly.
    ticks_seconds: f64,
    /// By the schedstat of each thread: nanoseconds, but a thread that has ended is no longer in
    /// it.
    threads_seconds: f64,
}

/// User and system time are each cut to a tick, at both ends.
const TICKS_LOST_MAX: f64 = 4.0;

impl CpuTime {
    /// Of a process, now.
    pub fn of(pid: u32) -> Result<CpuTime, String> {
        let fields = stat_fields(&pid.to_string())?;
        let ticks_seconds = (fields[UTIME] + fields[STIME]) as f64 / ticks_per_second();
        let mut nanoseconds = 0;
        let threads = format!("/proc/{pid}/task");
        for thread in fs::read_dir(&threads).map_err(|error| format!("{threads}: {error}"))? {
            let Ok(thread) = thread else { continue };
            // A thread may end between being listed and being read.
            let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            let first = text.split_whitespace().next();
            nanoseconds += first.and_then(|used| used.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(CpuTime { ticks_seconds, threads_seconds: nanoseconds as f64 / 1e9 })
    }

    /// Seconds used since `before`: by the threads, unless one has ended whose ticks are missed.
    pub fn since(&self, before: &CpuTime) -> f64 {
        let ticks = self.ticks_seconds - before.ticks_seconds;
        let threads = self.threads_seconds - before.threads_seconds;
        let lost = TICKS_LOST_MAX / ticks_per_second();
        if (ticks - threads).abs() > lost.max(0.02 * ticks) { ticks } else { threads }
    }
}

/// Seconds of cpu of our children that have ended and were waited for.
pub fn cpu_seconds_of_ended_children() -> Result<f64, String> {
    let fields = stat_fields("self")?;
    Ok((fields[CHILDREN_UTIME] + fields[CHILDREN_STIME]) as f64 / ticks_per_second())
}

/// Seconds of cpu, over all cpus, in which the machine was not idle. Time stolen by the host
/// counts.
pub fn machine_busy_seconds() -> Result<f64, String> {
    const IDLE: usize = 3;
    const WAITING_FOR_IO: usize = 4;
    const COUNTED: usize = 8;
    let text = read("/proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    let busy: u64 = line
        .split_whitespace()
        .skip(1)
        .take(COUNTED)
        .enumerate()
        .filter(|(index, _)| *index != IDLE && *index != WAITING_FOR_IO)
        .filter_map(|(_, field)| field.parse::<u64>().ok())
        .sum();
    Ok(busy as f64 / ticks_per_second())
}

/// Resident bytes of a process.
pub fn resident_bytes(pid: u32) -> Result<u64, String> {
    let text = read(&format!("/proc/{pid}/status"))?;
    text.lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse::<u64>().ok())
        .map(|kib| kib << 10)
        .ok_or_else(|| format!("/proc/{pid}/status has no VmRSS"))
}

/// Processes whose parent is `pid`: Redis forks one to save.
pub fn children(pid: u32) -> Vec<u32> {
    // Of the main thread, which is the one that forks.
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Bytes of a process that it shares with none: what a forked child costs. 0 if it has ended.
pub fn private_bytes(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kib = text
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .filter_map(|line| line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()));
    kib.sum::<u64>() << 10
}

/// Bytes of all files in a directory and those below it.
pub fn directory_bytes(path: &Path) -> Result<u64, String> {
    let context = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut bytes = 0;
    for entry in fs::read_dir(path).map_err(context)? {
        let entry = entry.map_err(context)?;
        let metadata = entry.metadata().map_err(context)?;
        bytes += if metadata.is_dir() { directory_bytes(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

// Positions after the name of the command, which is in parentheses and may hold spaces.
const UTIME: usize = 11;
const STIME: usize = 12;
const CHILDREN_UTIME: usize = 13;
const CHILDREN_STIME: usize = 14;

fn stat_fields(process: &str) -> Result<Vec<u64>, String> {
    let text = read(&format!("/proc/{process}/stat"))?;
    let (_, rest) = text.rsplit_once(')').ok_or("an odd /proc/PID/stat")?;
    let fields: Vec<u64> =
        rest.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    if fields.len() > CHILDREN_STIME { Ok(fields) } else { Err("a short /proc/PID/stat".into()) }
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_count_unless_one_has_ended() {
        let time = |ticks_seconds, threads_seconds| CpuTime { ticks_seconds, threads_seconds };
        assert_eq!(time(1.01, 1.012_345).since(&time(1.0, 1.0)), 1.012_345 - 1.0);
        assert_eq!(time(3.0, 1.5).since(&time(1.0, 1.0)), 2.0);
        assert_eq!(time(3.0, 0.5).since(&time(1.0, 1.0)), 2.0);
    }

    #[test]
    fn reads_about_this_process() {
        let pid = std::process::id();
        let before = CpuTime::of(pid).expect("our own stat");
        let mut number = 1_u64;
        let mut used = 0.0;
        while used <= 0.0 {
            number = std::hint::black_box(number.wrapping_mul(3));
            used = CpuTime::of(pid).expect("our own stat").since(&before);
        }
        assert!(resident_bytes(pid).expect("our own status") > 0);
        assert!(machine_busy_seconds().expect("the machine's stat") > 0.0);
        assert!(CpuTime::of(u32::MAX).is_err());
    }
}
