//! System calls that the standard library does not offer, and what /proc says.
#![allow(unsafe_code)] // kill(2), setsockopt(2), getrlimit(2), setrlimit(2) and sysconf(3) have no safe form in std

use std::os::fd::AsRawFd;

/// Sends `signal` to the process `pid`, which must be a child of ours that was not yet waited for.
pub fn send_signal(pid: u32, signal: libc::c_int) {
    // SAFETY: kill takes two integers. The caller owns the child and has not waited for it, so the
    // pid cannot have been given to another process.
    let outcome = unsafe { libc::kill(pid as libc::pid_t, signal) };
    assert_eq!(outcome, 0, "kill({pid}, {signal}): {}", std::io::Error::last_os_error());
    if signal == libc::SIGSTOP {
        super::eventually("it has stopped", || has_stopped(pid).then_some(()));
    }
}

/// Have all threads of a process stopped? One that runs on another cpu does so a moment later.
fn has_stopped(pid: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process is there");
    tasks.flatten().all(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        // Behind the name, which may hold anything.
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
    })
}

/// Lets the close of a socket reset its connection.
pub fn reset_on_close(socket: &impl AsRawFd) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let size = size_of::<libc::linger>() as libc::socklen_t;
    let value = (&raw const linger).cast();
    let socket = socket.as_raw_fd();
    // SAFETY: the socket is open as long as it is borrowed; the value is a linger of this size,
    // read by the call.
    let outcome =
        unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_LINGER, value, size) };
    assert_eq!(outcome, 0, "setsockopt: {}", std::io::Error::last_os_error());
}

/// Raises this process's limit of open files to its hard limit and returns it. Children inherit it.
pub fn raise_open_files() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit, written by the call.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    assert_eq!(got, 0, "getrlimit: {}", std::io::Error::last_os_error());
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is a valid rlimit, read by the call.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    assert_eq!(set, 0, "setrlimit: {}", std::io::Error::last_os_error());
    limit.rlim_cur
}

/// Clock ticks of cpu, user and system, that a process has used.
pub fn cpu_ticks(pid: u32) -> u64 {
    const USER: usize = 11;
    const SYSTEM: usize = 12;
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running process");
    let (_, rest) = text.rsplit_once(')').expect("the name is in parentheses");
    let fields: Vec<&str> = rest.split_whitespace().collect();
    [USER, SYSTEM].iter().map(|&field| fields[field].parse::<u64>().expect("a number")).sum()
}

/// Clock ticks in a second.
pub fn ticks_per_second() -> u64 {
    // SAFETY: sysconf takes an integer and has no other effect.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks).expect("Linux has clock ticks")
}

/// An IPv4 address of this machine that is not a loopback one: a connection to it comes from it
/// too, as from a stranger.
pub fn outward_address() -> Option<std::net::Ipv4Addr> {
    let tree = std::fs::read_to_string("/proc/net/fib_trie").ok()?;
    let mut last = None;
    tree.lines().find_map(|line| {
        match line.trim().strip_prefix("|-- ") {
            Some(address) => last = address.parse::<std::net::Ipv4Addr>().ok(),
            None if line.contains("/32 host LOCAL") => return last.filter(|ip| !ip.is_loopback()),
            None => {}
        }
        None
    })
}
