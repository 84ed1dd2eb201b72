//! The socket ring of one core.
//!
//! One io_uring per core, used by its thread alone. Accepting and receiving are multishot
//! operations armed once; received bytes lie in provided buffers that are given back at the turn's
//! end. Replies do not come this way: one alone goes by `send(2)`, which costs less than a
//! submission, and many through a ring of their own (`sends.rs`).
//!
//! What an older kernel lacks is left out feature by feature; [`Ring::features`] says what is in
//! use. Knows nothing of connections or RESP: a [`Token`] says whose completion it is.

#![allow(unsafe_code)] // Kernel memory is shared with the ring: provided buffers and submissions.

use super::buffers::{BUFFER_GROUP, Buffers};
use super::sends::Sends;
use crate::limits::RECEIVE_BUFFER_BYTES;
use io_uring::types::{Fd, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};
use rustix::io_uring::{IoringEnterFlags, IoringRegisterOp};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

const SUBMISSION_ENTRIES: u32 = 1024;
const COMPLETION_ENTRIES: u32 = 8192;

/// What a completion is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A connection was accepted.
    Accept,
    /// Bytes were received.
    Receive,
    /// A socket takes bytes again.
    Writable,
    /// Another core rang.
    Wake,
    /// A time that was asked for has passed.
    Timer,
    /// A log write or sync ended.
    Disk,
    /// A cancellation was carried out.
    Cancel,
    /// A deadline has come.
    Deadline,
}

/// An operation and the number of the thing it belongs to (connection, listener, disk operation).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// What was asked for.
    pub operation: Operation,
    /// For whom.
    pub index: u32,
}

impl Token {
    /// An operation for the thing with this number.
    pub fn new(operation: Operation, index: u32) -> Token {
        Token { operation, index }
    }

    fn pack(self) -> u64 {
        (self.operation as u64) << 32 | u64::from(self.index)
    }

    fn unpack(data: u64) -> Token {
        let operation = match data >> 32 {
            0 => Operation::Accept,
            1 => Operation::Receive,
            2 => Operation::Writable,
            3 => Operation::Wake,
            4 => Operation::Timer,
            5 => Operation::Disk,
            6 => Operation::Cancel,
            7 => Operation::Deadline,
            other => panic!("the kernel returned user data {other} that was never submitted"),
        };
        Token { operation, index: data as u32 }
    }
}

/// One completion.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// Whose.
    pub token: Token,
    /// Bytes, a descriptor, or a negative errno.
    pub result: i32,
    /// Will the same submission complete again?
    pub more: bool,
    /// The provided buffer that holds the bytes.
    pub buffer: Option<u16>,
}

/// Kernel features that the ring uses when they are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// IORING_SETUP_DEFER_TASKRUN (Linux 6.1): completions never interrupt the core.
    pub defer_taskrun: bool,
    /// Multishot receive (Linux 6.0).
    pub multishot_receive: bool,
    /// Multishot accept (Linux 5.19).
    pub multishot_accept: bool,
}

impl Features {
    /// All of them.
    pub const ALL: Features =
        Features { defer_taskrun: true, multishot_receive: true, multishot_accept: true };
}

impl std::fmt::Display for Features {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = |on: bool, name: &'static str| if on { name } else { "" };
        let words = [
            word(self.defer_taskrun, "defer-taskrun"),
            word(self.multishot_receive, "multishot-receive"),
            word(self.multishot_accept, "multishot-accept"),
            "provided-buffers",
        ];
        let mut first = true;
        for word in words.into_iter().filter(|w| !w.is_empty()) {
            write!(f, "{}{word}", if first { "" } else { "," })?;
            first = false;
        }
        Ok(())
    }
}

/// How long [`Ring::enter`] waits when there is no completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// For a completion, however long: [`Ring::start_timer`] sees to it that there is one.
    ForCompletion,
}

/// The ring and its provided buffers.
pub struct Ring {
    ring: IoUring,
    /// What the submission of a timer points to until the kernel has taken it.
    timer: Box<Timespec>,
    /// As `timer`, for deadlines: a later one takes its place, which ends the earlier sooner.
    deadline: Box<Timespec>,
    buffers: Buffers,
    features: Features,
    entrance: Entrance,
    sends: Sends,
}

/// How the kernel is entered.
pub(super) struct Entrance {
    /// The ring, or its number among those that the thread has registered, which the kernel finds
    /// sooner.
    ring: RawFd,
    registered: IoringEnterFlags,
    /// For a wait. With NO_IOWAIT (Linux 6.15) it counts as idle time; without it a core that
    /// waits for its clients looks as if it waited for a disk.
    waiting: IoringEnterFlags,
}

/// The kernel's `struct io_uring_rsrc_update`, as registering a ring uses it.
#[repr(C)]
struct RingUpdate {
    /// Any (all bits set); then which it became.
    number: u32,
    reserved: u32,
    descriptor: u64,
}

impl Entrance {
    /// Registers the ring with this thread, which is then the only one that may enter it; that ends
    /// with the thread.
    pub(super) fn new(ring: &IoUring) -> Entrance {
        let mut waiting = IoringEnterFlags::GETEVENTS;
        if ring.params().is_feature_no_iowait() {
            waiting |= IoringEnterFlags::from_bits_retain(EnterFlags::NO_IOWAIT.bits());
        }
        let descriptor = ring.as_raw_fd();
        let mut update =
            RingUpdate { number: u32::MAX, reserved: 0, descriptor: descriptor as u64 };
        let argument = (&raw mut update).cast();
        let operation = IoringRegisterOp::RegisterRingFds;
        // SAFETY: the descriptor is open, and the argument is one update, as the operation wants
        // it.
        let outcome = unsafe {
            let ring = BorrowedFd::borrow_raw(descriptor);
            rustix::io_uring::io_uring_register(ring, operation, argument, 1)
        };
        let (ring, registered) = match outcome {
            Ok(_) => (update.number as RawFd, IoringEnterFlags::REGISTERED_RING),
            // Linux before 5.18, or the thread has 16 of them: it goes by its descriptor.
            Err(_) => (descriptor, IoringEnterFlags::empty()),
        };
        Entrance { ring, registered, waiting }
    }

    /// Hands in so many submissions, and waits for so many completions. Errors: the kernel's.
    pub(super) fn enter(
        &self,
        submitted: u32,
        wanted: u32,
        flags: IoringEnterFlags,
    ) -> io::Result<()> {
        // SAFETY: the descriptor, or the number that stands for it, is the ring's, which is open as
        // long as this is in use; no argument is passed, and submissions satisfy their own
        // conditions.
        unsafe {
            let ring = BorrowedFd::borrow_raw(self.ring);
            rustix::io_uring::io_uring_enter(ring, submitted, wanted, flags | self.registered)?;
        }
        Ok(())
    }
}

impl Ring {
    /// Sets up a ring on the thread that will use it, leaving out what `wanted` leaves out and what
    /// the kernel does not know.
    /// Errors: io_uring is missing or forbidden, or memory cannot be locked.
    pub fn new(wanted: Features) -> io::Result<Ring> {
        let mut features = wanted;
        let ring = match features
            .defer_taskrun
            .then(|| build(true, SUBMISSION_ENTRIES, COMPLETION_ENTRIES))
        {
            Some(Ok(ring)) => ring,
            Some(Err(error)) if error.raw_os_error() != Some(libc::EINVAL) => return Err(error),
            _ => {
                features.defer_taskrun = false;
                build(false, SUBMISSION_ENTRIES, COMPLETION_ENTRIES)?
            }
        };
        let buffers = Buffers::register(&ring)?;
        let entrance = Entrance::new(&ring);
        let sends = Sends::new(features.defer_taskrun)?;
        Ok(Ring {
            ring,
            timer: Box::default(),
            deadline: Box::default(),
            buffers,
            features,
            entrance,
            sends,
        })
    }

    /// What is in use.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Takes connections from a listening socket, until an accept completes without `more`.
    pub fn accept(&mut self, listener: RawFd, index: u32) {
        let token = Token::new(Operation::Accept, index);
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let fd = Fd(listener);
        self.submit(
            token,
            if self.features.multishot_accept {
                opcode::AcceptMulti::new(fd).flags(flags).build()
            } else {
                let null = std::ptr::null_mut();
                opcode::Accept::new(fd, null, null.cast()).flags(flags).build()
            },
        );
    }

    /// Receives from a socket, until a receive completes without `more`.
    pub fn receive(&mut self, socket: RawFd, index: u32) {
        let token = Token::new(Operation::Receive, index);
        let fd = Fd(socket);
        self.submit(
            token,
            if self.features.multishot_receive {
                opcode::RecvMulti::new(fd, BUFFER_GROUP).build()
            } else {
                opcode::Recv::new(fd, std::ptr::null_mut(), RECEIVE_BUFFER_BYTES as u32)
                    .buf_group(BUFFER_GROUP)
                    .build()
                    .flags(squeue::Flags::BUFFER_SELECT)
            },
        );
    }

    /// Ends an operation early; it completes with ECANCELED unless it was quicker.
    pub fn cancel(&mut self, token: Token) {
        let entry = opcode::AsyncCancel::new(token.pack()).build();
        self.submit(Token::new(Operation::Cancel, token.index), entry);
    }

    /// Completes once when the socket takes bytes again.
    pub fn poll_writable(&mut self, socket: RawFd, index: u32) {
        let entry = opcode::PollAdd::new(Fd(socket), libc::POLLOUT as u32).build();
        self.submit(Token::new(Operation::Writable, index), entry);
    }

    /// Completes whenever the eventfd is written.
    pub fn poll_wake(&mut self, eventfd: RawFd) {
        let entry = opcode::PollAdd::new(Fd(eventfd), libc::POLLIN as u32).multi(true).build();
        self.submit(Token::new(Operation::Wake, 0), entry);
    }

    /// Completes once when `time` has passed.
    pub fn start_timer(&mut self, time: Duration) {
        *self.timer = Timespec::from(time);
        let entry = opcode::Timeout::new(&raw const *self.timer).build();
        self.submit(Token::new(Operation::Timer, 0), entry);
    }

    /// Completes once when `time` has passed, or sooner when it is called again before the ring is
    /// entered.
    pub fn start_deadline(&mut self, time: Duration) {
        *self.deadline = Timespec::from(time);
        let entry = opcode::Timeout::new(&raw const *self.deadline).build();
        self.submit(Token::new(Operation::Deadline, 0), entry);
    }

    /// Writes `bytes` at `offset` of a file.
    ///
    /// # Safety
    /// `bytes` must stay where it is, unchanged, until the operation completes.
    pub unsafe fn write(
        &mut self,
        file: RawFd,
        bytes: *const u8,
        length: u32,
        offset: u64,
        index: u32,
    ) {
        let entry = opcode::Write::new(Fd(file), bytes, length).offset(offset).build();
        self.submit(Token::new(Operation::Disk, index), entry);
    }

    /// Makes what was written to a file durable (fdatasync).
    pub fn sync(&mut self, file: RawFd, index: u32) {
        let flags = io_uring::types::FsyncFlags::DATASYNC;
        let entry = opcode::Fsync::new(Fd(file)).flags(flags).build();
        self.submit(Token::new(Operation::Disk, index), entry);
    }

    /// Sends some bytes to each of up to [`SENDS_TOGETHER_MAX`] sockets, in order, as far as these
    /// take them at once. `done` is told of each, by its place: how many bytes were sent, or a
    /// negative errno. Cost: one system call.
    /// Errors: none that a running server can meet; they are returned for the caller to die on.
    ///
    /// [`SENDS_TOGETHER_MAX`]: crate::limits::SENDS_TOGETHER_MAX
    pub fn send_together<'a>(
        &mut self,
        sends: impl Iterator<Item = (RawFd, &'a [u8])>,
        done: impl FnMut(u32, i32),
    ) -> io::Result<()> {
        self.sends.send(sends, done)
    }

    fn submit(&mut self, token: Token, entry: squeue::Entry) {
        let entry = entry.user_data(token.pack());
        // SAFETY: every operation above refers to descriptors and memory that outlive it: provided
        // buffers and the eventfd live as long as the ring, sockets are shut down and their
        // operations awaited before they are closed, and `write` passes its condition on to
        // its caller.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.ring.submit().expect("the kernel takes submissions from a healthy ring");
        }
    }

    /// Hands submissions to the kernel and lets it post completions; waits for one if there is
    /// none, as `wait` says. Cost: one system call, none when there is nothing to submit,
    /// nothing pending and no wait. Errors: none that a running server can meet; they are
    /// returned for the caller to die on.
    pub fn enter(&mut self, wait: Wait) -> io::Result<()> {
        let (_, mut submissions, completions) = self.ring.split();
        submissions.sync();
        let result = match wait {
            Wait::ForCompletion if completions.is_empty() => {
                let count = submissions.len() as u32;
                self.entrance.enter(count, 1, self.entrance.waiting)
            }
            _ => {
                let count = submissions.len() as u32;
                if count == 0 && !submissions.taskrun() && !submissions.cq_overflow() {
                    return Ok(());
                }
                self.entrance.enter(count, 0, IoringEnterFlags::GETEVENTS)
            }
        };
        match result {
            Ok(()) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Are there completions, or is the kernel waiting to post some?
    pub fn has_work(&mut self) -> bool {
        !self.ring.completion().is_empty() || self.ring.submission().taskrun()
    }

    /// Takes up to `count` completions.
    pub fn take(&mut self, count: usize, out: &mut Vec<Completion>) {
        let buffers = &mut self.buffers;
        out.extend(self.ring.completion().take(count).map(|entry| {
            let token = Token::unpack(entry.user_data());
            let buffer = cqueue::buffer_select(entry.flags());
            if buffer.is_some() {
                buffers.lend();
            } else if entry.result() == -libc::ENOBUFS && token.operation == Operation::Receive {
                buffers.run_out();
            }
            Completion { token, result: entry.result(), more: cqueue::more(entry.flags()), buffer }
        }));
    }

    /// The bytes of a provided buffer that a receive of `length` bytes filled.
    #[inline(always)]
    pub fn buffer(&self, buffer: u16, length: usize) -> &[u8] {
        self.buffers.bytes(buffer, length)
    }

    /// Gives provided buffers back to the kernel.
    pub fn recycle(&mut self, buffers: impl Iterator<Item = u16>) {
        self.buffers.recycle(buffers);
    }

    /// Adapts the provided buffers to what was received lately, and gives their memory back when
    /// that was next to nothing. To be called about once a second. Returns whether it was next
    /// to nothing.
    pub fn rest(&mut self) -> bool {
        let all_taken = self.ring.completion().is_empty() && !self.ring.submission().cq_overflow();
        self.buffers.rest(all_taken)
    }
}

pub(super) fn build(defer: bool, submissions: u32, completions: u32) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_cqsize(completions).setup_submit_all().setup_taskrun_flag().dontfork();
    if defer {
        builder.setup_single_issuer().setup_defer_taskrun();
    } else {
        builder.setup_coop_taskrun();
    }
    builder.build(submissions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    fn next(ring: &mut Ring) -> Completion {
        let mut completions = Vec::new();
        while completions.is_empty() {
            ring.enter(Wait::ForCompletion).expect("a healthy ring");
            ring.take(1, &mut completions);
        }
        completions[0]
    }

    fn check(features: Features) {
        let mut ring = Ring::new(features).expect("io_uring");
        assert_eq!(ring.features(), features);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        ring.accept(listener.as_raw_fd(), 7);
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("open");
        let accepted = next(&mut ring);
        assert_eq!(accepted.token, Token::new(Operation::Accept, 7));
        assert_eq!(accepted.more, features.multishot_accept);
        ring.receive(accepted.result, 9);
        for text in ["hello", "again"] {
            client.write_all(text.as_bytes()).expect("open");
            let received = next(&mut ring);
            assert_eq!(received.token, Token::new(Operation::Receive, 9));
            let buffer = received.buffer.expect("a provided buffer");
            assert_eq!(ring.buffer(buffer, received.result as usize), text.as_bytes());
            ring.recycle([buffer].into_iter());
            if !received.more {
                ring.receive(accepted.result, 9);
            }
        }
        drop(client);
        assert_eq!(next(&mut ring).result, 0);
    }

    #[test]
    fn a_timer_ends_a_wait_for_a_completion() {
        let mut ring = Ring::new(Features::ALL).expect("io_uring");
        for _ in 0..2 {
            let begin = std::time::Instant::now();
            ring.start_timer(Duration::from_millis(3));
            ring.enter(Wait::ForCompletion).expect("a healthy ring");
            let mut completions = Vec::new();
            ring.take(2, &mut completions);
            assert_eq!(completions.len(), 1);
            assert_eq!(completions[0].token, Token::new(Operation::Timer, 0));
            assert!(begin.elapsed() >= Duration::from_millis(3));
        }
    }

    #[test]
    fn accepts_and_receives_with_every_set_of_features() {
        check(Features::ALL);
        check(Features { defer_taskrun: false, ..Features::ALL });
        check(Features { multishot_receive: false, ..Features::ALL });
        check(Features { defer_taskrun: false, multishot_receive: false, multishot_accept: false });
    }
}
