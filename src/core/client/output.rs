//! Sending: all replies of a turn in one `send(2)` per connection, or, to many connections, by one
//! system call for all.

use crate::core::Core;
use crate::core::client::connection::{Connection, Hold, Kind, NEVER_MS};
use crate::core::client::secure::push_records;
use crate::core::shard::numbered;
use crate::limits::{
    CONNECTIONS_AHEAD, LONG_REPLY_SLICES_PER_TURN, MOVE_VOTES_MIN, SENDS_TOGETHER_MAX,
    SENDS_TOGETHER_MIN,
};
use rustix::net::SendFlags;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;

impl Core {
    /// Sends what the turn has written, and gives back what it has used.
    pub(in crate::core) fn flush(&mut self) {
        let (outboxes, spares) = self.answers.sendable();
        for (core, outbox) in outboxes.iter_mut().enumerate() {
            self.stats.messages += outbox.flush(&self.doors.mailboxes[core], spares);
        }
        let mut dirty = std::mem::take(&mut self.answers.dirty);
        for some in dirty.chunks(SENDS_TOGETHER_MAX) {
            self.send_to_all(some);
        }
        dirty.clear();
        // What was listed meanwhile is sent in the next turn.
        dirty.append(&mut self.answers.dirty);
        self.answers.dirty = dirty;
        for index in std::mem::take(&mut self.turn.consumed) {
            if let Some(connection) = self.answers.connections.get_mut(index) {
                connection.compact_input();
            }
        }
        let mut used = std::mem::take(&mut self.turn.used_buffers);
        if !used.is_empty() {
            self.doors.ring.recycle(used.drain(..));
        }
        self.turn.used_buffers = used;
        for requests in self.turn.mail.drain(..) {
            self.answers.spares.keep_requests(requests);
        }
        self.turn.spans.clear();
    }

    /// Sends what connections have to send.
    fn send_to_all(&mut self, indices: &[u32]) {
        if indices.len() >= SENDS_TOGETHER_MIN {
            self.send_together(indices);
        }
        for (place, index) in indices.iter().enumerate() {
            self.answers.fetch(indices.get(place + CONNECTIONS_AHEAD).copied());
            if let Some(connection) = self.answers.connections.get_mut(*index) {
                connection.dirty = false;
                self.send(*index);
            }
        }
    }

    /// Sends, by one system call, what goes as it is. What a socket does not take, or refuses, is
    /// [`Core::send`]'s.
    fn send_together(&mut self, indices: &[u32]) {
        let mut sending = std::mem::take(&mut self.turn.sending);
        for (place, index) in indices.iter().enumerate() {
            self.answers.fetch(indices.get(place + CONNECTIONS_AHEAD).copied());
            let Some(connection) = self.answers.connections.get_mut(*index) else { continue };
            // A number that was given anew in this turn is listed twice.
            if std::mem::take(&mut connection.dirty)
                && connection.sends_plainly()
                && !connection.replies.unsent().is_empty()
            {
                sending.push(*index);
            }
        }
        let connections = &self.answers.connections;
        let sends = sending.iter().map(|index| {
            let connection = connections.at(*index);
            (connection.socket.as_raw_fd(), connection.replies.unsent())
        });
        let sent = &mut self.turn.sent;
        let outcome =
            self.doors.ring.send_together(sends, |place, result| sent.push((place, result)));
        for (place, result) in sent.drain(..) {
            if let Ok(count) = usize::try_from(result) {
                self.stats.output_bytes += count as u64;
                self.answers.connections.at_mut(sending[place as usize]).replies.sent(count);
            }
        }
        sending.clear();
        self.turn.sending = sending;
        if let Err(error) = outcome {
            self.failure = Some(format!("the ring of sends failed: {error}"));
        }
    }

    /// Is mail waiting for a full mailbox?
    pub(in crate::core) fn has_unsent_mail(&self) -> bool {
        self.answers.has_unsent()
    }

    /// Sends what a connection has to send, as far as its socket takes it. Cost: one system call.
    pub(in crate::core) fn send(&mut self, index: u32) {
        let connection = self.answers.connections.at_mut(index);
        if !connection.sends_plainly() && !self.prepare_to_send(index) {
            return;
        }
        let connection = self.answers.connections.at_mut(index);
        while !connection.replies.unsent().is_empty() {
            match send_some(connection) {
                Ok(count) => {
                    self.stats.output_bytes += count as u64;
                    connection.replies.sent(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    connection.blocked = true;
                    let socket = connection.socket.as_raw_fd();
                    self.doors.ring.poll_writable(socket, index);
                    return self.check_output_limits(index);
                }
                Err(_) => {
                    self.stop_answering(index);
                    break;
                }
            }
        }
        let connection = self.answers.connections.at_mut(index);
        connection.over_soft_limit_since_ms = NEVER_MS;
        if connection.replies.has_rest() && connection.replies.rest_is_next() {
            // It goes on in a turn to come.
            self.answers.in_slices.push_back(index);
            return self.regulate(index);
        }
        let finished = connection.replies.unfinished() == 0;
        if finished && (connection.close_after_replies || connection.is_done()) {
            return self.close(index);
        }
        let has_votes = finished && connection.votes >= MOVE_VOTES_MIN;
        if finished && connection.hold == Hold::Order
            || connection.unparsed() > 0 && self.may_parse(index)
        {
            self.go_on(index);
        }
        if has_votes {
            self.consider_move(index);
        }
        self.regulate(index);
    }

    /// What is done before the replies of a connection are sent that is no plain one, or has ended,
    /// or whose socket is full. False when nothing goes to its socket now.
    #[cold]
    fn prepare_to_send(&mut self, index: u32) -> bool {
        self.release_news(index);
        let connection = self.answers.connections.at_mut(index);
        if connection.closed {
            connection.replies.discard();
            self.release(index);
            return false;
        }
        if connection.blocked {
            self.check_output_limits(index);
            return false;
        }
        if connection.tls.is_some() && !self.send_records(index) {
            return false;
        }
        let is_relayed = self.answers.connections.at(index).kind == Kind::Relayed;
        !is_relayed || self.send_replies_back(index)
    }

    /// Writes a slice for some of the connections whose long replies wait for one.
    #[cold]
    pub(in crate::core) fn write_slices(&mut self) {
        for _ in 0..LONG_REPLY_SLICES_PER_TURN {
            let Some(index) = self.answers.in_slices.pop_front() else { return };
            // Another one may have its number meanwhile.
            let Some(connection) = self.answers.connections.get_mut(index) else { continue };
            let (_, noted) = connection.replies.write_slice();
            let log = &mut self.stats.noted.large_replies;
            if let Some(noted) = noted.filter(|noted| noted.size >= log.threshold()) {
                let client = Some(connection.identity());
                let (command, arguments) = (numbered(noted.command), noted.arguments.borrow());
                log.add(command, self.turn.now_ms, noted.size, arguments, client);
            }
            self.answers.mark_dirty(index);
        }
    }

    /// Sends what was written before this turn ends, to a client that is about to be closed: it may
    /// be the reply to a request whose effect others have seen.
    pub(in crate::core) fn send_last(&mut self, index: u32) {
        let connection = self.answers.connections.at_mut(index);
        if connection.tls.is_some() && !connection.closed && !connection.blocked {
            // What the socket does not take is not sent.
            let _ = push_records(connection, &mut self.stats.output_bytes);
            return;
        }
        while !connection.closed && !connection.blocked && !connection.replies.unsent().is_empty() {
            match send_some(connection) {
                Ok(count) => {
                    self.stats.output_bytes += count as u64;
                    connection.replies.sent(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// A blocked socket takes bytes again.
    pub(in crate::core) fn writable(&mut self, index: u32) {
        if self.answers.connections.at(index).kind == Kind::Peer {
            return self.peer_writable(index);
        }
        let connection = self.answers.connections.at_mut(index);
        connection.blocked = false;
        // Who reads is not idle, however long the replies take.
        connection.active_ms = self.turn.steady_ms;
        if connection.closed { self.release(index) } else { self.answers.mark_dirty(index) }
    }

    /// Closes a connection that has read too slowly for its class's limits.
    pub(in crate::core) fn check_output_limits(&mut self, index: u32) {
        let limits = &self.settings.client_output_buffer_limit;
        let connection = self.answers.connections.at_mut(index);
        let limit = match connection.session.subscriptions {
            None => limits.normal,
            Some(_) => limits.pubsub,
        };
        let waiting = connection.replies.waiting_bytes() as u64;
        let steady_ms = self.turn.steady_ms;
        let hard = limit.hard_bytes > 0 && waiting > limit.hard_bytes;
        let mut soft = false;
        if limit.soft_bytes > 0 && waiting > limit.soft_bytes {
            let since = &mut connection.over_soft_limit_since_ms;
            *since = steady_ms.min(*since);
            soft = steady_ms - *since > limit.soft_seconds as i64 * 1000;
        } else {
            connection.over_soft_limit_since_ms = NEVER_MS;
        }
        if hard || soft {
            tracing::warn!(
                client = connection.id,
                bytes = waiting,
                "closing a client that reads its replies too slowly"
            );
            self.stats.output_limit_disconnections += 1;
            self.close(index);
        }
    }
}

fn send_some(connection: &Connection) -> std::io::Result<usize> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    Ok(rustix::net::send(&connection.socket, connection.replies.unsent(), flags)?)
}
