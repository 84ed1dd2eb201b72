//! Lists of cpus (`0`, `0,2`, `0-3,6`) and running something on them.
//!
//! A child inherits the cpus of the thread that starts it, so pinning a child means starting it
//! from a thread that was pinned first. Nothing needs to run between fork and exec.
#![allow(unsafe_code)] // sched_setaffinity(2): core_affinity pins to one cpu only, a server may need several

use std::str::FromStr;

/// A set of cpus that this process may use.
#[derive(Clone, Debug)]
pub struct Cpus(Vec<usize>);

impl FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Cpus, String> {
        let parse =
            |text: &str| text.trim().parse::<usize>().map_err(|_| format!("not a cpu: {text}"));
        let mut cpus = Vec::new();
        for part in text.split(',') {
            match part.split_once('-') {
                Some((first, last)) => cpus.extend(parse(first)?..=parse(last)?),
                None => cpus.push(parse(part)?),
            }
        }
        let allowed = core_affinity::get_core_ids().unwrap_or_default();
        match cpus.iter().find(|cpu| !allowed.iter().any(|core| core.id == **cpu)) {
            Some(cpu) => Err(format!("cpu {cpu} is not one of those this process may use")),
            None if cpus.is_empty() => Err("an empty list of cpus".into()),
            None => Ok(Cpus(cpus)),
        }
    }
}

/// Runs `start` on a thread that may use only `cpus`; what it starts inherits them.
pub fn on<T: Send>(cpus: Option<&Cpus>, start: impl FnOnce() -> T + Send) -> T {
    let Some(cpus) = cpus else { return start() };
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                pin(cpus);
                start()
            })
            .join()
            .expect("starting a process does not panic")
    })
}

fn pin(cpus: &Cpus) {
    // SAFETY: cpu_set_t is a plain array of bits; all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in &cpus.0 {
        assert!(cpu < libc::CPU_SETSIZE as usize, "cpu {cpu} is beyond what cpu_set_t holds");
        // SAFETY: `cpu` is below CPU_SETSIZE, so the bit lies inside `set`.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: `set` is a valid cpu_set_t of the size given; 0 means the calling thread.
    let outcome =
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    assert_eq!(outcome, 0, "sched_setaffinity: {}", std::io::Error::last_os_error());
}

/// Clock ticks per second of the times in /proc.
pub fn ticks_per_second() -> f64 {
    // SAFETY: sysconf takes an integer and has no other effect.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    assert!(ticks > 0, "sysconf(_SC_CLK_TCK) failed");
    ticks as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus() {
        assert_eq!("0".parse::<Cpus>().expect("cpu 0 exists").0, [0]);
        assert!("".parse::<Cpus>().is_err());
        assert!("x".parse::<Cpus>().is_err());
        assert!("100000".parse::<Cpus>().is_err());
    }
}
