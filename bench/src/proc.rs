//! What the kernel says in /proc about processes and the machine.

use std::fs;

use crate::cpus::ticks_per_second;

/// Seconds of cpu (user and system, all threads, kernel workers of its rings included) that a process has used.
pub fn cpu_seconds(pid: u32) -> Result<f64, String> {
    let fields = stat_fields(&pid.to_string())?;
    Ok((fields[UTIME] + fields[STIME]) as f64 / ticks_per_second())
}

/// Seconds of cpu of our children that have ended and were waited for.
pub fn cpu_seconds_of_ended_children() -> Result<f64, String> {
    let fields = stat_fields("self")?;
    Ok((fields[CHILDREN_UTIME] + fields[CHILDREN_STIME]) as f64 / ticks_per_second())
}

/// Seconds of cpu, over all cpus, in which the machine was not idle. Time stolen by the host counts.
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
    fn reads_about_this_process() {
        let pid = std::process::id();
        assert!(cpu_seconds(pid).expect("our own stat") >= 0.0);
        assert!(resident_bytes(pid).expect("our own status") > 0);
        assert!(machine_busy_seconds().expect("the machine's stat") > 0.0);
        assert!(cpu_seconds(u32::MAX).is_err());
    }
}
