//! Many sends by one system call.
//!
//! A send through a ring is about as dear as `send(2)`, but many of them share the way into the
//! kernel and back. They have a ring of their own, so that their completions are not mixed with
//! those that a turn takes: what is handed in has been tried when the call returns, and no memory
//! is lent to the kernel beyond it. None waits: a socket that is full says so.

#![allow(unsafe_code)] // The kernel reads the bytes that submissions point to.

use super::ring::{Entrance, build};
use crate::limits::SENDS_TOGETHER_MAX;
use io_uring::types::Fd;
use io_uring::{IoUring, opcode};
use rustix::io_uring::IoringEnterFlags;
use std::io;
use std::os::fd::RawFd;

/// The ring of a core's sends.
pub(super) struct Sends {
    ring: IoUring,
    entrance: Entrance,
}

impl Sends {
    /// Sets it up on the thread that will use it. Errors: as [`super::ring::Ring::new`].
    pub(super) fn new(defer: bool) -> io::Result<Sends> {
        let count = SENDS_TOGETHER_MAX as u32;
        let ring = build(defer, count, count)?;
        let entrance = Entrance::new(&ring);
        Ok(Sends { ring, entrance })
    }

    /// Sends some bytes to each of up to [`SENDS_TOGETHER_MAX`] sockets, in order, as far as these
    /// take them at once. `done` is told of each, by its place: how many bytes were sent, or a
    /// negative errno. Cost: one system call.
    /// Errors: none that a running server can meet.
    pub(super) fn send<'a>(
        &mut self,
        sends: impl Iterator<Item = (RawFd, &'a [u8])>,
        mut done: impl FnMut(u32, i32),
    ) -> io::Result<()> {
        let mut submissions = self.ring.submission();
        let mut count = 0;
        for (socket, bytes) in sends {
            let entry = opcode::Send::new(Fd(socket), bytes.as_ptr(), length(bytes))
                .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
                .build()
                .user_data(count);
            // SAFETY: the bytes outlive this call, which returns when all sends have completed.
            unsafe { submissions.push(&entry) }.expect("no more sends than there is room for");
            count += 1;
        }
        drop(submissions);
        let mut left = count as u32;
        while left > 0 {
            let submitted = self.ring.submission().len() as u32;
            match self.entrance.enter(submitted, left, IoringEnterFlags::GETEVENTS) {
                Ok(()) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR | libc::EBUSY | libc::EAGAIN) => {}
                    _ => return Err(error),
                },
            }
            for entry in self.ring.completion() {
                done(entry.user_data() as u32, entry.result());
                left -= 1;
            }
        }
        Ok(())
    }
}

/// A submission counts in 32 bits; what is longer is sent in several.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read, Write};
    use std::net::Shutdown;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    /// Both ends of a connection; the first does not wait. What is full stays full until it is read.
    fn pair() -> (UnixStream, UnixStream) {
        let (server, client) = UnixStream::pair().expect("two ends");
        server.set_nonblocking(true).expect("open");
        (server, client)
    }

    fn fill(mut socket: &UnixStream) {
        loop {
            match socket.write(&[b'x'; 1 << 10]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn check(defer: bool) {
        let mut sends = Sends::new(defer).expect("io_uring");
        sends.send(std::iter::empty(), |_, _| panic!("nothing was sent")).expect("a healthy ring");
        let mut pairs: Vec<_> = (0..SENDS_TOGETHER_MAX).map(|_| pair()).collect();
        let texts: Vec<String> = (0..pairs.len()).map(|n| format!("message {n}")).collect();
        fill(&pairs[3].0);
        pairs[5].0.shutdown(Shutdown::Both).expect("open");
        for round in 1..=3 {
            let mut results = vec![None; pairs.len()];
            let sockets = pairs.iter().map(|(server, _)| server.as_raw_fd());
            let all = sockets.zip(texts.iter().map(String::as_bytes));
            let done = |place: u32, result| {
                assert_eq!(results[place as usize].replace(result), None, "it is told of once");
            };
            sends.send(all, done).expect("a healthy ring");
            for (place, ((_, client), text)) in pairs.iter_mut().zip(&texts).enumerate() {
                let expected = match place {
                    3 => -libc::EAGAIN,
                    5 => -libc::EPIPE,
                    _ => text.len() as i32,
                };
                assert_eq!(results[place], Some(expected), "{place} in round {round}");
                if expected > 0 {
                    let mut received = vec![0; text.len()];
                    client.read_exact(&mut received).expect("open");
                    assert_eq!(received, text.as_bytes());
                }
            }
        }
    }

    #[test]
    fn each_socket_gets_its_bytes_and_none_waits() {
        check(true);
        check(false);
    }

    #[test]
    fn what_does_not_fit_is_not_counted() {
        let mut sends = Sends::new(true).expect("io_uring");
        let (server, mut client) = pair();
        let long = vec![b'x'; 64 << 20];
        let mut sent = 0;
        let all = [(server.as_raw_fd(), long.as_slice())];
        sends.send(all.into_iter(), |_, result| sent = result).expect("a healthy ring");
        assert!(sent > 0 && (sent as usize) < long.len(), "{sent}");
        drop(server);
        let mut received = Vec::new();
        client.read_to_end(&mut received).expect("open");
        assert_eq!(received.len(), sent as usize);
    }
}
