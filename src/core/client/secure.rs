//! Connections that speak TLS: handshakes, records in, records out.
//!
//! What records hold goes into the connection's input and is parsed like any other; replies become
//! records when they are sent. A handshake costs some tenths of a millisecond with usual keys, so
//! handshakes wait in a row of their own and a turn spends only so much on them. A client that does
//! not come to the end of its handshake in time is closed.

use crate::core::Core;
use crate::core::client::connection::{Connection, Kind};
use crate::core::turn::Source;
use crate::limits::{
    TLS_HANDSHAKE_BYTES_KEPT_MAX, TLS_HANDSHAKE_TIME_MAX_MS, TLS_HANDSHAKE_TURN_TIME,
    TLS_REPORT_INTERVAL_MS, TLS_SEND_BYTES,
};
use crate::net::tls::session::Session;
use rustix::net::SendFlags;
use socket2::Socket;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::time::Instant;

/// First byte of a record of a handshake.
const HANDSHAKE_RECORD: u8 = 0x16;

/// What clients are told that do not speak TLS where it is spoken.
const NOT_PLAIN: &str =
    "-ERR this port speaks TLS: connect with TLS, or to the port for plain text\r\n";

/// The handshakes of a core that have something to do, and what is said of those that failed.
#[derive(Debug, Default)]
pub(in crate::core) struct Handshakes {
    /// Numbers and ids of their connections, in the order in which their bytes came.
    waiting: VecDeque<(u32, u64)>,
    /// For each complaint when the next line may be logged, milliseconds since the process
    /// started, and how often it was not since the last one.
    reports: [(i64, u64); COMPLAINT_COUNT],
}

/// What may be wrong with a client.
#[derive(Clone, Copy, Debug)]
pub(in crate::core) enum Complaint {
    /// Its handshake has failed.
    Handshake,
    /// It does not begin with TLS where that is spoken.
    NotTls,
    /// It begins with TLS where that is not spoken.
    NotPlain,
    /// What it sent after the handshake cannot be trusted.
    Broken,
}

const COMPLAINT_COUNT: usize = 4;

impl Complaint {
    fn text(self) -> &'static str {
        match self {
            Complaint::Handshake => "a TLS handshake failed",
            Complaint::NotTls => "a client does not speak TLS on the port for TLS",
            Complaint::NotPlain => "a client speaks TLS on the port for plain text",
            Complaint::Broken => "a client's TLS broke off",
        }
    }
}

impl Handshakes {
    /// Is there something to do?
    #[inline(always)]
    pub(in crate::core) fn has_work(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl Core {
    /// A session for a connection that was accepted where TLS is spoken.
    pub(in crate::core) fn new_session(&self) -> Box<Session> {
        let front = self.shared.tls.as_ref().expect("who listens for TLS has certificates");
        Box::new(Session::new(front.config()))
    }

    /// After a move from another core: what the session has to send or to do.
    #[cold]
    pub(in crate::core) fn go_on_with_records(&mut self, index: u32) {
        let connection = self.answers.connections.at_mut(index);
        let session = connection.tls.as_mut().expect("the caller looked");
        session.is_queued = session.is_handshaking() && session.has_incoming();
        if session.is_queued {
            self.handshakes.waiting.push_back((index, connection.id));
        }
        if session.has_unsent() {
            self.answers.mark_dirty(index);
        }
    }

    /// Takes records that a connection received into a provided buffer.
    #[cold]
    pub(in crate::core) fn received_records(&mut self, index: u32, buffer: u16, length: usize) {
        let bytes = self.doors.ring.buffer(buffer, length);
        let connection = self.answers.connections.at_mut(index);
        if connection.kind == Kind::Peer {
            let bytes = bytes.to_vec();
            return self.peer_records(index, &bytes);
        }
        let session = connection.tls.as_mut().expect("the caller looked");
        if session.has_peer_closed() {
            return;
        }
        if !session.is_handshaking() {
            return self.take_records(index, Some((buffer, length)));
        }
        let is_first = connection.received_bytes == 0;
        connection.received_bytes += length as u64;
        if is_first && bytes[0] != HANDSHAKE_RECORD {
            return self.refuse_plain_text(index);
        }
        if session.keep(bytes) > TLS_HANDSHAKE_BYTES_KEPT_MAX {
            return self.take_records(index, None);
        }
        if !session.is_queued {
            session.is_queued = true;
            self.handshakes.waiting.push_back((index, connection.id));
        }
    }

    /// Goes on with handshakes, one at least, as long as their time in a turn lasts.
    #[cold]
    pub(in crate::core) fn shake_hands(&mut self) {
        let begin = Instant::now();
        while let Some((index, id)) = self.handshakes.waiting.pop_front() {
            let connection = self.answers.connections.get_mut(index);
            let Some(connection) = connection.filter(|c| c.id == id && !c.closed) else { continue };
            let session = connection.tls.as_mut().expect("who is queued has one");
            session.is_queued = false;
            if session.has_incoming() {
                self.take_records(index, None);
            }
            if begin.elapsed() >= TLS_HANDSHAKE_TURN_TIME {
                return;
            }
        }
    }

    /// Takes a connection's records, those kept and those just received, and parses what they hold.
    fn take_records(&mut self, index: u32, received: Option<(u16, usize)>) {
        let bytes = match received {
            Some((buffer, length)) => self.doors.ring.buffer(buffer, length),
            None => &[],
        };
        let connection = &mut **self.answers.connections.at_mut(index);
        let session = connection.tls.as_mut().expect("the caller looked");
        let was_handshaking = session.is_handshaking();
        let missing = connection.parser.needed();
        let missing = missing.saturating_sub(connection.input.len() - connection.input_start);
        connection.input.reserve(missing.max(bytes.len()));
        let before = connection.input.len();
        let outcome = session.receive(bytes, &mut connection.input);
        let count = (connection.input.len() - before) as u64;
        let is_established = was_handshaking && !session.is_handshaking();
        let (has_peer_closed, has_unsent) = (session.has_peer_closed(), session.has_unsent());
        connection.received_bytes += count;
        self.stats.input_bytes += count;
        if has_unsent {
            self.answers.mark_dirty(index);
        }
        if is_established {
            self.stats.tls_handshakes += 1;
            self.answers.connections.at_mut(index).active_ms = self.turn.steady_ms;
            self.greet(index);
        }
        if count > 0 && !self.take_plain(index) {
            return;
        }
        match outcome {
            Err(error) if was_handshaking && !is_established => {
                self.fail_handshake(index, Complaint::Handshake, &error.to_string());
            }
            Err(error) => {
                let error = error.to_string();
                self.report_tls(index, Complaint::Broken, &error);
                self.close(index);
            }
            Ok(()) if has_peer_closed => self.input_ended(index),
            Ok(()) => {}
        }
    }

    /// Parses what was appended to the input. False when that closed the connection.
    fn take_plain(&mut self, index: u32) -> bool {
        let connection = self.answers.connections.at_mut(index);
        if connection.closed || connection.close_after_replies {
            connection.input.truncate(connection.input_start);
            return !connection.closed;
        }
        connection.active_ms = self.turn.steady_ms;
        let is_first = connection.request_count == 0 && connection.kind == Kind::Tls;
        if is_first && connection.input.get(connection.input_start) == Some(&0) {
            // Another node: what it says begins as no request can.
            self.peer_has_dialled(index);
            return false;
        }
        // As in Redis: neither whole arguments count, nor requests that wait.
        let unfinished = connection.parser.unfinished(connection.unparsed());
        if unfinished as u64 > self.settings.client_query_buffer_limit {
            self.close_for_query_limit(index);
            return false;
        }
        self.parse(index, Source::Input(index));
        !self.answers.connections.at(index).closed
    }

    /// The handshake of a client has failed: the alert is sent that says so, and the connection
    /// closed.
    fn fail_handshake(&mut self, index: u32, complaint: Complaint, cause: &str) {
        self.stats.tls_handshake_failures += 1;
        self.report_tls(index, complaint, cause);
        self.close(index);
    }

    /// A client begins with something else than TLS.
    fn refuse_plain_text(&mut self, index: u32) {
        let connection = self.answers.connections.at(index);
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        // It may be gone already.
        let _ = rustix::net::send(&connection.socket, NOT_PLAIN.as_bytes(), flags);
        self.fail_handshake(index, Complaint::NotTls, "it is told so and closed");
    }

    /// A client of a port for TLS has gone. Was it in the middle of its handshake? Then that has
    /// failed, unless it only looked whether the port is open.
    #[cold]
    pub(in crate::core) fn ends_handshake(&mut self, index: u32) -> bool {
        let connection = self.answers.connections.at(index);
        let is_handshaking = connection.tls.as_ref().is_some_and(|s| s.is_handshaking());
        if !is_handshaking || connection.closed {
            return false;
        }
        // What it sent before may be all that was missing.
        let is_queued = connection.tls.as_ref().is_some_and(|s| s.is_queued);
        if is_queued {
            self.take_records(index, None);
        }
        let connection = self.answers.connections.at(index);
        if connection.closed || connection.tls.as_ref().is_some_and(|s| !s.is_handshaking()) {
            return connection.closed;
        }
        match connection.received_bytes {
            0 => self.close(index),
            _ => {
                let cause = "the client has gone in the middle of it";
                self.fail_handshake(index, Complaint::Handshake, cause);
            }
        }
        true
    }

    /// Closes clients that take too long for their handshake.
    pub(in crate::core) fn close_stalled_handshakes(&mut self) {
        if self.shared.tls.is_none() {
            return;
        }
        let begun_ms = self.steady_ms() - TLS_HANDSHAKE_TIME_MAX_MS;
        let connections = self.answers.connections.iter();
        let stalled = connections.filter(|(_, c)| c.created_ms < begun_ms && !c.closed);
        let stalled = stalled.filter(|(_, c)| c.tls.as_ref().is_some_and(|s| s.is_handshaking()));
        let stalled: Vec<u32> = stalled.map(|(index, _)| index).collect();
        for index in stalled {
            self.fail_handshake(index, Complaint::Handshake, "it took too long");
        }
    }

    /// The process ends: clients that speak TLS are told that nothing more will come.
    #[cold]
    pub(in crate::core) fn end_sessions(&mut self) {
        let connections = self.answers.connections.iter_mut();
        connections.filter(|(_, c)| !c.closed).for_each(|(_, c)| say_goodbye(c));
    }

    /// Logs what is wrong with a client: not more than a line in a second for each complaint, or
    /// clients could fill the disk.
    #[cold]
    pub(in crate::core) fn report_tls(&mut self, index: u32, complaint: Complaint, cause: &str) {
        let connection = self.answers.connections.at(index);
        let steady_ms = self.turn.steady_ms;
        let (next_ms, unsaid) = &mut self.handshakes.reports[complaint as usize];
        if steady_ms < *next_ms {
            *unsaid += 1;
            return;
        }
        *next_ms = steady_ms + TLS_REPORT_INTERVAL_MS;
        let unsaid = std::mem::take(unsaid);
        let (peer, local, what) = (&connection.peer, &connection.local, complaint.text());
        tracing::warn!(client = connection.id, %peer, %local, unsaid, "{what}: {cause}");
    }

    /// Sends all that a connection has to send. False when its socket is full and the ring tells
    /// when it is not.
    #[cold]
    pub(in crate::core) fn send_records(&mut self, index: u32) -> bool {
        use std::os::fd::AsRawFd;
        let connection = self.answers.connections.at_mut(index);
        match push_records(connection, &mut self.stats.output_bytes) {
            Ok(()) => {
                let session = connection.tls.as_ref().expect("it was written to");
                connection.close_after_replies |= session.is_worn_out();
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                connection.blocked = true;
                let socket = connection.socket.as_raw_fd();
                self.doors.ring.poll_writable(socket, index);
                self.check_output_limits(index);
                false
            }
            Err(_) => {
                self.stop_answering(index);
                true
            }
        }
    }
}

/// The socket of a connection as a session writes to it: what is not taken at once is refused.
pub(in crate::core) struct Outlet<'a>(pub(in crate::core) &'a Socket);

impl Write for Outlet<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self.0, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match pieces {
            [piece] => self.write(piece),
            _ => {
                let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
                self.0.send_vectored_with_flags(pieces, flags)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Turns replies into records and sends them, until there is nothing left.
/// Errors: the socket takes nothing now, or never again.
pub(in crate::core) fn push_records(
    connection: &mut Connection,
    output_bytes: &mut u64,
) -> io::Result<()> {
    let session = connection.tls.as_mut().expect("the caller looked");
    loop {
        while session.has_unsent() {
            match session.send(&mut Outlet(&connection.socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let bytes = connection.replies.unsent();
        if bytes.is_empty() || session.is_handshaking() {
            return Ok(());
        }
        let count = bytes.len().min(TLS_SEND_BYTES);
        session.encrypt(&bytes[..count]);
        connection.replies.sent(count);
        *output_bytes += count as u64;
    }
}

/// The last that a connection says: what its session still has to send (an alert), or that nothing
/// more will come. What the socket does not take at once is not said.
#[cold]
pub(in crate::core) fn say_goodbye(connection: &mut Connection) {
    let Some(session) = connection.tls.as_mut().filter(|_| !connection.blocked) else { return };
    session.close();
    while session.has_unsent() && session.send(&mut Outlet(&connection.socket)).is_ok() {}
    session.discard();
}
