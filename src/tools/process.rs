//! Processes of this machine that outlive the tool: started in a session of their own, found again
//! by their pid, ended.
//!
//! A pid may be another process' by now. So one is held by a descriptor first, which stays that
//! process', and what it runs is looked at after that.
#![allow(unsafe_code)] // A function that runs between fork and exec has no safe form in std.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A process that ran when it was looked for.
#[derive(Debug)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    descriptor: OwnedFd,
}

impl Process {
    /// The process with this number, if there is one and `is_it` says so of its command line.
    pub fn find(pid: u32, is_it: impl Fn(&[&[u8]]) -> bool) -> Option<Process> {
        let descriptor = pidfd_open(Pid::from_raw(i32::try_from(pid).ok()?)?, PidfdFlags::empty());
        let process = Process { pid, descriptor: descriptor.ok()? };
        // Empty when it has ended and nobody has asked how.
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words: Vec<&[u8]> = line.strip_suffix(b"\0")?.split(|byte| *byte == 0).collect();
        // If it still lives, the line was its own.
        (is_it(&words) && !process.has_ended_within(Duration::ZERO)).then_some(process)
    }

    /// Asks it to end: it does so in order.
    /// Errors: it is another user's.
    pub fn end(&self) -> io::Result<()> {
        self.send(Signal::TERM)
    }

    /// Ends it at once.
    /// Errors: it is another user's.
    pub fn kill(&self) -> io::Result<()> {
        self.send(Signal::KILL)
    }

    fn send(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.descriptor, signal) {
            // It has ended by itself.
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for its end, at most so long. Has it ended?
    pub fn has_ended_within(&self, time: Duration) -> bool {
        let begun = Instant::now();
        loop {
            let left = time.saturating_sub(begun.elapsed());
            let left = Timespec::try_from(left).expect("some seconds");
            let mut descriptors = [PollFd::new(&self.descriptor, PollFlags::IN)];
            match poll(&mut descriptors, Some(&left)) {
                Ok(count) => return count > 0,
                Err(Errno::INTR) => {}
                Err(error) => panic!("a process is waited for: {error}"),
            }
        }
    }
}

/// Starts a program in a session of its own, without a terminal, that writes to the end of a file.
/// Errors: the file's, or the program's.
pub fn start(program: &Path, arguments: &[OsString], log: &Path) -> io::Result<Child> {
    let output = OpenOptions::new().create(true).append(true).mode(0o600).open(log)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        // Such variables are for the tool.
        .env_remove("REDISCLI_AUTH");
    let leave = || rustix::process::setsid().map(|_| ()).map_err(io::Error::from);
    // SAFETY: `leave` runs in the child between fork and exec, where only what is safe in a handler
    // of signals may be called: it makes one system call, allocates nothing and takes no lock.
    unsafe { command.pre_exec(leave) };
    command.spawn()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    /// A process that waits for its input to end.
    fn waiting() -> Child {
        let mut command = Command::new("cat");
        command.arg("-").stdin(Stdio::piped()).spawn().expect("there is a cat")
    }

    #[test]
    fn a_process_is_found_by_what_it_runs_and_ended() {
        let mut child = waiting();
        assert!(Process::find(child.id(), |words| words == [&b"rat"[..], b"-"]).is_none());
        // For a moment a new process has no command line.
        let begun = Instant::now();
        let found = loop {
            match Process::find(child.id(), |words| words == [&b"cat"[..], b"-"]) {
                Some(found) => break found,
                None => assert!(begun.elapsed() < Duration::from_secs(60), "it runs"),
            }
        };
        assert!(!found.has_ended_within(Duration::ZERO));
        found.end().expect("it is ours");
        assert!(found.has_ended_within(Duration::from_secs(60)));
        // Nobody has asked how it ended: it has a number, and is no process any more.
        assert!(Process::find(child.id(), |_| true).is_none());
        child.wait().expect("our own child");
        assert!(Process::find(child.id(), |_| true).is_none());
        found.kill().expect("there is nothing to do");
    }

    #[test]
    fn strange_numbers_are_no_processes() {
        for pid in [0, u32::MAX, i32::MAX as u32] {
            assert!(Process::find(pid, |_| true).is_none(), "{pid}");
        }
    }

    #[test]
    fn what_is_started_has_its_own_session_and_log() {
        let folder = tempfile::tempdir().expect("a scratch directory");
        let log = folder.path().join("log");
        // Field 6 of its line is the session; field 1 the process.
        let words = ["-c", "cut -d' ' -f1,6 /proc/$$/stat; echo wrong >&2"];
        for _ in 0..2 {
            let mut child = start(Path::new("/bin/sh"), &words.map(OsString::from), &log)
                .expect("there is a shell");
            assert!(child.wait().expect("our own child").success());
        }
        let text = fs::read_to_string(log).expect("a log");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        for line in [lines[0], lines[2]] {
            let (pid, session) = line.split_once(' ').expect("two words");
            assert_eq!(pid, session);
        }
    }
}
