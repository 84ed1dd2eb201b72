//! epoll(7), level-triggered: which connections have something to read, or room to write.
#![allow(unsafe_code)] // epoll_create1, epoll_ctl, epoll_pwait2: std offers no readiness

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

/// Connections reported by one wait; more are reported by the next.
const EVENTS_MAX: usize = 1024;

/// A set of connections, each known by a number.
pub struct Epoll {
    set: OwnedFd,
    events: Vec<libc::epoll_event>,
}

/// What a connection is watched for besides replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Replies only.
    Read,
    /// Replies, and room for the rest of a request.
    ReadAndWrite,
}

impl Epoll {
    /// An empty set.
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: epoll_create1 takes flags only.
        let set = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if set < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `set` was just returned by the kernel and belongs to nobody else.
        let set = unsafe { OwnedFd::from_raw_fd(set) };
        Ok(Epoll { set, events: Vec::with_capacity(EVENTS_MAX) })
    }

    /// Watches a connection.
    pub fn add(&self, socket: &impl AsRawFd, token: usize) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, socket, token, Interest::Read)
    }

    /// Watches it for something else.
    pub fn change(&self, socket: &impl AsRawFd, token: usize, to: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, socket, token, to)
    }

    fn control(
        &self,
        operation: i32,
        socket: &impl AsRawFd,
        token: usize,
        interest: Interest,
    ) -> io::Result<()> {
        let events = match interest {
            Interest::Read => libc::EPOLLIN,
            Interest::ReadAndWrite => libc::EPOLLIN | libc::EPOLLOUT,
        };
        let mut event = libc::epoll_event { events: events as u32, u64: token as u64 };
        // SAFETY: both descriptors are open, and `event` lives through the call, which copies it.
        let outcome = unsafe {
            libc::epoll_ctl(self.set.as_raw_fd(), operation, socket.as_raw_fd(), &raw mut event)
        };
        if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Waits until a connection is ready or `timeout` has passed; zero only looks. Returns how many
    /// are.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<usize> {
        let time = libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: libc::c_long::from(timeout.subsec_nanos() as i32),
        };
        self.events.clear();
        // SAFETY: `events` has room for EVENTS_MAX entries, `time` lives through the call, a null
        // mask is allowed.
        let count = unsafe {
            libc::epoll_pwait2(
                self.set.as_raw_fd(),
                self.events.as_mut_ptr(),
                EVENTS_MAX as i32,
                &raw const time,
                ptr::null(),
            )
        };
        if count < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(0) } else { Err(error) };
        }
        // SAFETY: the kernel filled in `count` entries, at most the capacity.
        unsafe { self.events.set_len(count as usize) };
        Ok(self.events.len())
    }

    /// The number of the `index`-th connection that the last wait found ready.
    pub fn ready(&self, index: usize) -> usize {
        self.events[index].u64 as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn reports_what_is_ready() {
        let mut epoll = Epoll::new().expect("an epoll set");
        let (mut here, there) = UnixStream::pair().expect("a pair");
        epoll.add(&there, 7).expect("watched");
        assert_eq!(epoll.wait(Duration::ZERO).expect("waits"), 0);
        here.write_all(b"x").expect("written");
        assert_eq!(epoll.wait(Duration::from_secs(10)).expect("waits"), 1);
        assert_eq!(epoll.ready(0), 7);
        epoll.change(&there, 8, Interest::ReadAndWrite).expect("changed");
        assert_eq!(epoll.wait(Duration::ZERO).expect("waits"), 1);
        assert_eq!(epoll.ready(0), 8);
    }
}
