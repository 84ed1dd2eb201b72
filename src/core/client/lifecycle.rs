//! The life of a connection: accepted, receiving, held back, moved, closed, released.

use crate::core::Core;
use crate::core::client::connection::{Address, Connection, Hold, Kind};
use crate::core::client::secure::{Complaint, say_goodbye};
use crate::core::client::session::Session;
use crate::core::mail::mailbox::Mail;
use crate::core::turn::Source;
use crate::core::wait::waiting::End;
use crate::limits::{
    INPUT_WAITING_BYTES_MAX, MOVE_INTERVAL_MS, MOVE_SHARE_PERCENT, OUTPUT_PAUSE_BYTES,
    UNFINISHED_REQUESTS_MAX,
};
use crate::net::ring::{Completion, Operation, Token};
use crate::resp::parse::ProtocolError;
use crate::resp::reply::Reply;
use socket2::Socket;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::atomic::Ordering;

/// What a client of another machine is told in protected mode: Redis' text, which people and tools
/// know.
const DENIED: &str = "-DENIED Redis is running in protected mode because protected mode is enabled and no password is \
    set for the default user. In this mode connections are only accepted from the loopback interface. If you want to \
    connect from external computers to Redis you may adopt one of the following solutions: 1) Just disable protected \
    mode sending the command 'CONFIG SET protected-mode no' from the loopback interface by connecting to Redis from the \
    same host the server is running, however MAKE SURE Redis is not publicly accessible from internet if you do so. Use \
    CONFIG REWRITE to make this change permanent. 2) Alternatively you can just disable the protected mode by editing \
    the Redis configuration file, and setting the protected mode option to 'no', and then restarting the server. 3) If \
    you started the server manually just for testing, restart it with the '--protected-mode no' option. 4) Setup a an \
    authentication password for the default user. NOTE: You only need to do one of the above things in order for the \
    server to start accepting connections from the outside.\r\n";

impl Core {
    /// A listening socket has accepted a connection.
    #[allow(unsafe_code)]
    pub(in crate::core) fn accepted(&mut self, completion: &Completion) {
        let listener = completion.token.index;
        let kind = self.doors.listeners[listener as usize].kind;
        if completion.result >= 0 {
            // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
            let socket = unsafe { Socket::from_raw_fd(completion.result) };
            self.admit_connection(socket, kind);
        } else if !self.stop_sent {
            let error = std::io::Error::from_raw_os_error(-completion.result);
            tracing::warn!(%error, "a connection could not be accepted");
        }
        if !completion.more && !self.stop_sent {
            if completion.result >= 0 || !is_out_of_files(-completion.result) {
                self.arm_listener(listener);
            } else {
                // Accepting again at once would fail at once: the next tick tries.
                self.doors.silent.push(listener);
            }
        }
    }

    pub(in crate::core) fn arm_listener(&mut self, listener: u32) {
        let socket = self.doors.listeners[listener as usize].socket.as_raw_fd();
        self.doors.ring.accept(socket, listener);
    }

    fn admit_connection(&mut self, socket: Socket, kind: Kind) {
        let count = self.shared.connection_count.fetch_add(1, Ordering::Relaxed);
        if count >= self.settings.maxclients || self.stop_sent {
            // Before a handshake there is no way to tell why.
            let text = match kind {
                Kind::Tls => "",
                _ => "-ERR max number of clients reached\r\n",
            };
            return self.turn_away(&socket, text);
        }
        let id = self.shared.next_connection_id.fetch_add(1, Ordering::Relaxed);
        let session = Session::new(self.users.default_user().clone());
        let mut connection = Connection::new(id, socket, kind, self.turn.steady_ms, session);
        if kind == Kind::Client && self.denies(&connection.peer) {
            return self.turn_away(&connection.socket, DENIED);
        }
        if kind == Kind::Tls {
            connection.tls = Some(self.new_session());
        }
        self.stats.total_connections += 1;
        connection.may_move_ms = self.turn.steady_ms + MOVE_INTERVAL_MS;
        let seat = self.seat_for(kind);
        if seat == self.id {
            self.install(Box::new(connection));
        } else {
            self.answers.post(seat, Mail::Connection(Box::new(connection)));
        }
    }

    /// Refuses a connection that was counted already.
    #[cold]
    fn turn_away(&mut self, socket: &Socket, text: &str) {
        self.shared.connection_count.fetch_sub(1, Ordering::Relaxed);
        self.stats.rejected_connections += 1;
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // The client may be gone already; there is nobody to tell then.
        let _ = socket.send_with_flags(text.as_bytes(), flags);
    }

    /// Does protected mode refuse this client? It does while there is no password and the client is
    /// on another machine.
    fn denies(&self, peer: &Address) -> bool {
        self.settings.protected_mode
            && self.users.default_user().needs_no_password
            && !peer.is_local()
    }

    /// A client has come to the end of its handshake: only now it can be told that it may not come.
    pub(in crate::core) fn greet(&mut self, index: u32) {
        if self.denies(&self.answers.connections.at(index).peer) {
            self.stats.rejected_connections += 1;
            let connection = self.answers.connections.at_mut(index);
            connection.replies.push().extend_from_slice(DENIED.as_bytes());
            connection.close_after_replies = true;
            self.answers.mark_dirty(index);
        }
    }

    pub(in crate::core) fn install(&mut self, connection: Box<Connection>) -> u32 {
        let socket = connection.socket.as_raw_fd();
        let index = self.answers.connections.insert(connection);
        self.answers.connections.at_mut(index).receiving = true;
        self.doors.ring.receive(socket, index);
        index
    }

    /// Bytes have come, or the client has gone.
    pub(in crate::core) fn receive_completed(&mut self, completion: &Completion) {
        let index = completion.token.index;
        let connection = self.answers.connections.at_mut(index);
        if !completion.more {
            connection.receiving = false;
            connection.cancelling = false;
        }
        let is_peer = connection.kind == Kind::Peer;
        match completion.result {
            count if count > 0 => {
                let buffer = completion.buffer.expect("a receive into provided buffers has one");
                self.received(index, buffer, count as usize);
            }
            error if matches!(-error, libc::ENOBUFS | libc::ECANCELED | libc::EINTR) => {}
            _ if is_peer => self.peer_ended(index),
            _ if connection.tls.is_some() && self.ends_handshake(index) => {}
            0 => self.input_ended(index),
            _ => {
                self.stop_answering(index);
                self.input_ended(index);
            }
        }
        self.after_receive(index);
    }

    /// The client will send nothing more. Everything that it sent is executed and answered before
    /// the connection is closed, whatever holds it back now: closing is `send`'s, when nothing
    /// is left.
    pub(in crate::core) fn input_ended(&mut self, index: u32) {
        self.relayed_client_ended(index);
        self.answers.connections.at_mut(index).ended = true;
        // Who may be gone does not wait. What was found before is answered all the same.
        self.unblock(index, End::Empty);
        self.go_on(index);
    }

    /// Nobody takes the replies of a connection any more: they are dropped. What the kernel has
    /// received is executed all the same, and then the receive ends.
    #[cold]
    pub(in crate::core) fn stop_answering(&mut self, index: u32) {
        let connection = self.answers.connections.at_mut(index);
        connection.replies.discard();
        if let Some(session) = &mut connection.tls {
            session.discard();
        }
        // It fails when the other side has reset the connection, which ends the receive too.
        let _ = connection.socket.shutdown(Shutdown::Both);
    }

    /// Lists a connection for parsing, in this turn if that is still to come.
    pub(in crate::core) fn go_on(&mut self, index: u32) {
        let connection = self.answers.connections.at_mut(index);
        if !connection.runnable {
            connection.runnable = true;
            self.runnable.push(index);
        }
    }

    /// Arms the next receive, moves the connection, or releases it.
    fn after_receive(&mut self, index: u32) {
        let Some(connection) = self.answers.connections.get_mut(index) else { return };
        if connection.receiving {
            if connection.unparsed() > INPUT_WAITING_BYTES_MAX {
                self.regulate(index);
            }
            return;
        }
        if connection.closed {
            self.release(index);
        } else if connection.hold == Hold::Moving {
            self.finish_move(index);
        } else {
            self.regulate(index);
        }
    }

    /// Starts or stops receiving, as the connection's unsent replies and unparsed input demand.
    pub(in crate::core) fn regulate(&mut self, index: u32) {
        let bound = OUTPUT_PAUSE_BYTES.max(2 * crate::limits::RECEIVE_BUFFER_BYTES);
        let connection = self.answers.connections.at_mut(index);
        // A client may write a whole batch before it reads a reply: what waits behind unread
        // replies is received all the same, up to a bound, or neither side would ever go
        // on.
        let replies = &connection.replies;
        let unread = replies.has_rest() || replies.waiting_bytes() > OUTPUT_PAUSE_BYTES;
        let behind = connection.replies.unfinished() >= UNFINISHED_REQUESTS_MAX;
        let waits = connection.hold != Hold::None || connection.runnable;
        let full = (unread || behind) && connection.unparsed() > INPUT_WAITING_BYTES_MAX
            || waits && connection.unparsed() > bound;
        let has_socket = connection.kind != Kind::Relayed;
        if connection.closed || connection.ended || connection.hold == Hold::Moving || !has_socket {
            return;
        }
        let socket = connection.socket.as_raw_fd();
        if full && connection.receiving && !connection.cancelling {
            connection.cancelling = true;
            self.doors.ring.cancel(Token::new(Operation::Receive, index));
        } else if !full && !connection.receiving {
            connection.receiving = true;
            self.doors.ring.receive(socket, index);
        }
    }

    /// Goes on with input left from an earlier turn.
    pub(in crate::core) fn resume(&mut self, index: u32) {
        let Some(connection) = self.answers.connections.get_mut(index) else { return };
        connection.runnable = false;
        if matches!(connection.hold, Hold::Pause | Hold::Order | Hold::Leader) {
            let catches_up = connection.waiting_count > 0;
            let waits = match connection.hold {
                _ if catches_up => true,
                Hold::Order => connection.replies.unfinished() > 0,
                Hold::Leader => self.still_waits(index),
                _ => self.pause.until_ms > self.turn.steady_ms,
            };
            if waits {
                return;
            }
            // Requests of this turn may lie in the input that is about to change.
            self.run_stage();
            let connection = self.answers.connections.at_mut(index);
            connection.hold = Hold::None;
            let mut input = std::mem::take(&mut connection.held_back).into_vec();
            input.extend_from_slice(&connection.input[connection.input_start..]);
            connection.input = input;
            connection.input_start = 0;
        }
        if self.may_parse(index) {
            self.parse(index, Source::Input(index));
        }
        if self.answers.connections.get(index).is_some_and(|connection| connection.ended) {
            self.near_the_end(index);
        }
        if self.answers.connections.get(index).is_some() {
            self.regulate(index);
        }
    }

    /// After parsing what a client sent that sends nothing more.
    #[cold]
    fn near_the_end(&mut self, index: u32) {
        let may_parse = self.may_parse(index);
        let connection = self.answers.connections.at_mut(index);
        if may_parse && !connection.runnable {
            // The parser stopped in the middle of a request, whose rest will never come.
            connection.input_start = connection.input.len();
        }
        if connection.is_done() {
            // Or it would be shown more and more, and never end.
            self.stop_monitoring(index);
        }
        self.answers.mark_dirty(index);
    }

    /// Answers garbage with an error and closes the connection after it.
    pub(in crate::core) fn refuse_protocol(&mut self, index: u32, error: &ProtocolError) {
        if *error == ProtocolError::Tls {
            self.report_tls(index, Complaint::NotPlain, "it is refused");
        }
        let sequence = self.expect_reply(index);
        let connection = self.answers.connections.at_mut(index);
        let protocol = connection.session.protocol;
        connection.close_after_replies = true;
        let target = crate::core::client::answers::Target::Connection { index, sequence };
        let stats = &mut self.stats;
        self.answers.write_here(target, |out| {
            let start = out.len();
            stats.refuse(error.text(), start, &mut Reply::new(out, protocol));
        });
        self.turn.consumed.push(index);
        let connection = self.answers.connections.at_mut(index);
        connection.input_start = connection.input.len();
    }

    /// Closes a connection whose request grew past the bound.
    pub(in crate::core) fn close_for_query_limit(&mut self, index: u32) {
        let connection = self.answers.connections.at(index);
        tracing::warn!(
            client = connection.id,
            bytes = connection.unparsed(),
            "closing a client whose request exceeds client-query-buffer-limit"
        );
        self.stats.query_limit_disconnections += 1;
        self.close(index);
    }

    /// Closes a connection. It is released when the ring and the shards are done with it.
    pub(in crate::core) fn close(&mut self, index: u32) {
        let connection = self.answers.connections.at_mut(index);
        if connection.closed {
            return;
        }
        connection.closed = true;
        if connection.tls.is_some() {
            say_goodbye(connection);
        }
        connection.replies.discard();
        self.shared.connection_count.fetch_sub(1, Ordering::Relaxed);
        // Ends the receive in the ring, which holds the socket open. It may be closed already.
        let _ = connection.socket.shutdown(Shutdown::Both);
        if connection.receiving && !connection.cancelling {
            connection.cancelling = true;
            self.doors.ring.cancel(Token::new(Operation::Receive, index));
        }
        self.unblock(index, End::Empty);
        self.stop_monitoring(index);
        self.unsubscribe_all(index);
        self.end_tracking(index);
        self.forget_watched(index);
        self.end_relay(index);
        self.session_closed(index);
        self.release(index);
    }

    /// Frees a closed connection once nothing refers to it. Requests of this turn may still lie in
    /// its input: that happens at the turn's end.
    pub(in crate::core) fn release(&mut self, index: u32) {
        if self.answers.connections.at(index).is_released() {
            self.turn.released.push(index);
        }
    }

    /// Frees what was released in this turn.
    pub(in crate::core) fn free_released(&mut self) {
        let mut released = std::mem::take(&mut self.turn.released);
        released.sort_unstable();
        released.dedup();
        for index in released {
            if self.answers.connections.get(index).is_some_and(|c| c.is_released() && !c.dirty) {
                let connection = self.answers.connections.remove(index);
                self.connection_freed(&connection);
            }
        }
    }

    /// Moves a connection to the core that owns nearly all of its keys, at a request boundary.
    pub(in crate::core) fn consider_move(&mut self, index: u32) {
        let steady_ms = self.turn.steady_ms;
        let between_cores = self.answers.between_cores();
        let connection = self.answers.connections.at_mut(index);
        let (core, surplus) = connection.favourite;
        let votes = connection.votes;
        let quiet = connection.unparsed() == 0
            && connection.replies.unfinished() == 0
            && !connection.replies.has_rest()
            && connection.replies.unsent().is_empty()
            && connection.session.transaction.is_none()
            && connection.session.watched.is_empty()
            && !connection.session.monitor
            && connection.session.subscriptions.is_none()
            && connection.session.tracking.is_none()
            && !connection.blocked
            && !connection.closed
            && !connection.ended
            && !connection.close_after_replies
            && connection.hold == Hold::None
            && connection.relay.is_none()
            && connection.kind.is_client();
        // The surplus of the majority vote is at least twice the majority's share minus one.
        let clear = u64::from(surplus) * 100 >= u64::from(votes) * (2 * MOVE_SHARE_PERCENT - 100);
        if core == self.id || core == between_cores || !clear {
            connection.votes = 0;
            connection.favourite.1 = 0;
        } else if quiet && steady_ms >= connection.may_move_ms {
            self.move_connection(index, core);
            self.answers.connections.at_mut(index).votes = 0;
        }
    }

    /// Takes a connection to another core, whatever it is about.
    pub(in crate::core) fn move_connection(&mut self, index: u32, core: u16) {
        let connection = self.answers.connections.at_mut(index);
        connection.send_to(core);
        connection.hold = Hold::Moving;
        if connection.receiving {
            connection.cancelling = true;
            self.doors.ring.cancel(Token::new(Operation::Receive, index));
        } else {
            self.finish_move(index);
        }
    }

    fn finish_move(&mut self, index: u32) {
        let connection = self.answers.connections.at_mut(index);
        let core = connection.favourite.0;
        let replies = &connection.replies;
        let has_unsent = !replies.unsent().is_empty() || replies.has_rest() || connection.blocked;
        if connection.replies.unfinished() > 0 || has_unsent {
            connection.hold = Hold::None;
            return self.regulate(index);
        }
        self.stats.moved_connections += 1;
        self.turn.moving.push((index, core));
    }

    /// Hands over the connections that move, at the turn's end.
    pub(in crate::core) fn send_moved(&mut self) {
        for (index, core) in std::mem::take(&mut self.turn.moving) {
            let mut connection = self.answers.connections.remove(index);
            connection.compact_input();
            self.answers.post(core, Mail::Connection(connection));
        }
    }

    /// Takes over a connection from another core.
    pub(in crate::core) fn adopt(&mut self, mut connection: Box<Connection>) {
        connection.hold = Hold::None;
        connection.dirty = false;
        connection.runnable = false;
        connection.may_move_ms = self.turn.steady_ms + MOVE_INTERVAL_MS;
        let is_peer = connection.kind == Kind::Peer;
        let index = self.install(connection);
        if is_peer {
            return self.accept_peer(index);
        }
        // Its user may have changed while it was on its way, and be newer than those known here.
        self.adopt_users();
        self.renew_user(index);
        if self.answers.connections.at(index).unparsed() > 0 {
            self.go_on(index);
        }
        if self.answers.connections.at(index).tls.is_some() {
            self.go_on_with_records(index);
        }
    }
}

fn is_out_of_files(errno: i32) -> bool {
    matches!(errno, libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS)
}
