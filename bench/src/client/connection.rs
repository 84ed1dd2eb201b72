//! A connection that never blocks: requests out, replies judged as they come.
//!
//! Batches await their replies in the order they were sent. A connection knows nothing of clocks:
//! whoever drives it says what time it is.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::book::Book;
use super::operations::Verify;
use super::plan::Data;
use super::resp::{Scan, scan};
use super::tally::Tally;

/// One connection with its book of requests.
pub struct Connection {
    stream: TcpStream,
    book: Book,
    /// Requests it may still send.
    pub left: u64,
    flights: VecDeque<Flight>,
    /// What the socket had no room for.
    unsent: Vec<u8>,
    /// The beginning of a reply whose end has not come.
    partial: Vec<u8>,
    /// Replies until one is compared again.
    until_verify: u64,
}

/// A batch that awaits replies.
struct Flight {
    batch: usize,
    /// Requests of it that were answered.
    answered: usize,
    /// The time its latency counts from.
    begin_ns: u64,
}

impl Connection {
    /// Connects.
    pub fn open(target: SocketAddr, book: Book, left: u64) -> io::Result<Connection> {
        let stream = TcpStream::connect(target)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Connection {
            stream,
            book,
            left,
            flights: VecDeque::new(),
            unsent: Vec::new(),
            partial: Vec::new(),
            until_verify: 1,
        })
    }

    /// The socket, to be watched.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Whether it may send a batch now.
    pub fn has_room(&self) -> bool {
        self.left > 0 && self.flights.len() < self.book.capacity()
    }

    /// Whether nothing that it sent awaits a reply.
    pub fn is_idle(&self) -> bool {
        self.flights.is_empty()
    }

    /// Whether the rest of a request waits for room in the socket.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// The time that the latency of the oldest unanswered batch counts from.
    pub fn oldest_ns(&self) -> Option<u64> {
        self.flights.front().map(|flight| flight.begin_ns)
    }

    /// Requests that await a reply.
    pub fn awaited(&self) -> u64 {
        let awaited = self
            .flights
            .iter()
            .map(|flight| self.book.batch(flight.batch).expected.len() - flight.answered);
        awaited.sum::<usize>() as u64
    }

    /// Queues the next batch, of `pipeline` requests or as many as are left; [`Connection::flush`]
    /// sends it.
    pub fn push(&mut self, pipeline: usize, begin_ns: u64) {
        let length = self.left.min(pipeline as u64);
        self.left -= length;
        let batch = self.book.take(length as usize);
        self.unsent.extend_from_slice(self.book.batch(batch).bytes);
        self.flights.push_back(Flight { batch, answered: 0, begin_ns });
    }

    /// Sends what is queued, as far as there is room.
    pub fn flush(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.unsent.len() {
            match (&self.stream).write(&self.unsent[sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.unsent.drain(..sent);
        Ok(())
    }

    /// Reads what has come into `buffer`, once; returns how much.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match (&self.stream).read(buffer) {
            Ok(0) => {
                Err(io::Error::new(ErrorKind::UnexpectedEof, "the server closed the connection"))
            }
            Ok(count) => Ok(count),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    /// Judges replies that came at `now_ns`; returns how many they were. `verify_every` as in the
    /// plan.
    pub fn digest(
        &mut self,
        received: &[u8],
        now_ns: u64,
        data: &Data,
        verify_every: u64,
        tally: &mut Tally,
    ) -> io::Result<u64> {
        if self.partial.is_empty() {
            let (used, replies) = self.judge_all(received, now_ns, data, verify_every, tally)?;
            self.partial.extend_from_slice(&received[used..]);
            return Ok(replies);
        }
        let mut bytes = std::mem::take(&mut self.partial);
        bytes.extend_from_slice(received);
        let (used, replies) = self.judge_all(&bytes, now_ns, data, verify_every, tally)?;
        bytes.drain(..used);
        self.partial = bytes;
        Ok(replies)
    }

    fn judge_all(
        &mut self,
        bytes: &[u8],
        now_ns: u64,
        data: &Data,
        verify_every: u64,
        tally: &mut Tally,
    ) -> io::Result<(usize, u64)> {
        let mut used = 0;
        let mut replies = 0;
        while used < bytes.len() {
            let Some(flight) = self.flights.front_mut() else {
                return Err(odd("a reply that nothing asked for", &bytes[used..]));
            };
            let batch = self.book.batch(flight.batch);
            let answered_before = flight.answered;
            while let Some(expected) = batch.expected.get(flight.answered) {
                let (reply, length) = match scan(&bytes[used..]) {
                    Scan::Whole(reply, length) => (reply, length),
                    Scan::Part => break,
                    Scan::Broken => return Err(odd("a reply that is not RESP", &bytes[used..])),
                };
                self.until_verify -= 1;
                let mut verify = Verify::Kind;
                if self.until_verify == 0 {
                    self.until_verify = verify_every;
                    tally.verified += 1;
                    verify = Verify::Content;
                }
                let keys = batch.keys(*expected);
                let verdict = expected.operation.judge(reply, keys, data, verify);
                tally.judged(verdict, || {
                    let reply = excerpt(&bytes[used..used + length]);
                    format!("{:?} of keys {keys:?} answered {reply}", expected.operation)
                });
                used += length;
                flight.answered += 1;
            }
            let count = (flight.answered - answered_before) as u64;
            replies += count;
            tally.answered(now_ns.saturating_sub(flight.begin_ns), count);
            if flight.answered < batch.expected.len() {
                break;
            }
            self.flights.pop_front();
        }
        Ok((used, replies))
    }
}

fn odd(what: &str, bytes: &[u8]) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("{what}: {}", excerpt(bytes)))
}

/// The beginning of some bytes, readable.
fn excerpt(bytes: &[u8]) -> String {
    const BYTES_MAX: usize = 80;
    bytes[..bytes.len().min(BYTES_MAX)].escape_ascii().to_string()
}
