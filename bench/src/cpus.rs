//! Lists of cpus (`0`, `0,2`, `0-3,6`), running something on them, and signals to what runs.
//!
//! A child inherits the cpus of the thread that starts it, so pinning a child means starting it
//! from a thread that was pinned first. Nothing needs to run between fork and exec.
#![allow(unsafe_code)] // sched_setaffinity(2): core_affinity pins to one cpu only, a server may need several

use std::str::FromStr;

/// A set of cpus that this process may use.
#[derive(Clone, Debug)]
pub struct Cpus {
    numbers: Vec<usize>,
    seats: Seats,
}

/// How threads sit on a set of cpus.
#[derive(Clone, Copy, Debug)]
enum Seats {
    /// Each on one of them, in turn.
    OneEach,
    /// All on any of them, as the kernel likes.
    Any,
}

impl Cpus {
    /// The same cpus, whose threads may go from one to another.
    pub fn shared(&self) -> Cpus {
        Cpus { seats: Seats::Any, ..self.clone() }
    }
}

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
            None => Ok(Cpus { numbers: cpus, seats: Seats::OneEach }),
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

/// Pins this thread to one of `cpus`, where threads with different seats take turns; or to all, if
/// they are shared.
pub fn sit_down(cpus: &Cpus, seat: usize) {
    if let Seats::Any = cpus.seats {
        return pin(cpus);
    }
    let id = cpus.numbers[seat % cpus.numbers.len()];
    let pinned = core_affinity::set_for_current(core_affinity::CoreId { id });
    assert!(pinned, "cpu {id} was allowed when it was asked for");
}

fn pin(cpus: &Cpus) {
    // SAFETY: cpu_set_t is a plain array of bits; all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in &cpus.numbers {
        assert!(cpu < libc::CPU_SETSIZE as usize, "cpu {cpu} is beyond what cpu_set_t holds");
        // SAFETY: `cpu` is below CPU_SETSIZE, so the bit lies inside `set`.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: `set` is a valid cpu_set_t of the size given; 0 means the calling thread.
    let outcome =
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    assert_eq!(outcome, 0, "sched_setaffinity: {}", std::io::Error::last_os_error());
}

/// Asks a process to end.
pub fn terminate(pid: u32) -> Result<(), String> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| format!("not a process: {pid}"))?;
    // SAFETY: kill takes two integers; `pid` is a child of ours that was not waited for, so nobody
    // else has its id.
    let outcome = unsafe { libc::kill(pid, libc::SIGTERM) };
    if outcome == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().to_string()) }
}

/// Lets this thread go before others of its cpu, if this process may ask for that; else nothing
/// changes.
pub fn hasten() {
    const NICENESS: i32 = -15;
    // SAFETY: setpriority takes integers; 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
}

/// Lets this process open as many connections as the machine allows.
pub fn raise_open_files() {
    // SAFETY: rlimit is a plain pair of numbers, filled in by getrlimit and read by setrlimit.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
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
        assert_eq!("0".parse::<Cpus>().expect("cpu 0 exists").numbers, [0]);
        assert!("".parse::<Cpus>().is_err());
        assert!("x".parse::<Cpus>().is_err());
        assert!("100000".parse::<Cpus>().is_err());
    }
}
