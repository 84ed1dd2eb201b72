//! The sockets of links: what a turn has to say is sent at its end, as it is or as records of TLS.

use crate::core::Core;
use crate::core::client::connection::Hold;
use crate::core::client::secure::Outlet;
use crate::core::mail::mailbox::Mail;
use crate::limits::{LINK_SLICES_PER_SEND, TLS_SEND_BYTES};
use crate::net::ring::Ring;
use socket2::Socket;
use std::io::{Error, ErrorKind, IoSlice};
use std::os::fd::AsRawFd;

impl Core {
    /// Sends what waits on all links. To be called at the turn's end.
    pub(in crate::core) fn flush_links(&mut self) {
        let Some(links) = &mut self.cluster.links else { return };
        if !links.pending.is_empty() {
            links.send_pending();
        }
        let places: Vec<u32> = links.open.keys().copied().collect();
        if !self.cluster.crowded.is_empty() {
            self.send_crowded();
        }
        for index in places {
            self.flush_link(index);
        }
    }

    /// Passes what this core has for other nodes to the core that has the links.
    pub(in crate::core) fn hand_outgoing_on(&mut self) {
        if self.cluster.outgoing.is_empty() {
            return;
        }
        let outgoing = std::mem::take(&mut self.cluster.outgoing);
        let core = self.shared.cluster.link_core();
        if core == self.id {
            // The links were ended, or were not begun: as if lost.
            return;
        }
        let task = move |core: &mut Core| {
            outgoing.into_iter().for_each(|(node, item)| core.send_to_node(node, item));
        };
        self.answers.post(core, Mail::Task(Box::new(task)));
    }

    pub(super) fn flush_link(&mut self, index: u32) {
        let now = self.link_time();
        let Some(links) = &mut self.cluster.links else { return };
        let Some(open) = links.open.get_mut(&index) else { return };
        let connection = self.answers.connections.at_mut(index);
        if connection.tls.is_some() {
            return self.flush_link_records(index);
        }
        open.link.encode(now);
        while open.link.encoded_bytes() > 0 && !connection.blocked && !connection.closed {
            let mut slices: Vec<IoSlice<'_>> = Vec::new();
            open.link.slices(&mut slices, LINK_SLICES_PER_SEND);
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            let sent = connection.socket.send_vectored_with_flags(&slices, flags);
            match sent {
                Ok(count) => {
                    self.stats.output_bytes += count as u64;
                    open.link.sent(count);
                    open.link.encode(now);
                }
                Err(error)
                    if may_go_on(
                        &error,
                        &connection.socket,
                        &mut connection.blocked,
                        (index, &mut self.doors.ring),
                    ) => {}
                Err(_) => return,
            }
        }
    }

    /// The same where the link speaks TLS.
    #[cold]
    fn flush_link_records(&mut self, index: u32) {
        let now = self.link_time();
        let links = self.cluster.links.as_mut().expect("the caller looked");
        let open = links.open.get_mut(&index).expect("the caller looked");
        let connection = &mut **self.answers.connections.at_mut(index);
        let session = connection.tls.as_mut().expect("the caller looked");
        while !connection.blocked && !connection.closed {
            if session.has_unsent() {
                match session.send(&mut Outlet(&connection.socket)) {
                    Ok(count) => self.stats.output_bytes += count as u64,
                    Err(error)
                        if may_go_on(
                            &error,
                            &connection.socket,
                            &mut connection.blocked,
                            (index, &mut self.doors.ring),
                        ) => {}
                    Err(_) => return,
                }
                continue;
            }
            if session.is_handshaking() {
                return;
            }
            open.link.encode(now);
            if open.link.encoded_bytes() == 0 {
                return;
            }
            let mut slices: Vec<IoSlice<'_>> = Vec::new();
            open.link.slices(&mut slices, LINK_SLICES_PER_SEND);
            let mut count = 0;
            for slice in &slices {
                let taken = slice.len().min(TLS_SEND_BYTES - count);
                session.encrypt(&slice[..taken]);
                count += taken;
                if count == TLS_SEND_BYTES {
                    break;
                }
            }
            drop(slices);
            open.link.sent(count);
        }
    }

    /// Records of another node have come.
    #[cold]
    pub(in crate::core) fn peer_records(&mut self, index: u32, bytes: &[u8]) {
        let connection = self.answers.connections.at_mut(index);
        let session = connection.tls.as_mut().expect("the caller looked");
        let mut plain = Vec::new();
        let outcome = session.receive(bytes, &mut plain);
        let (has_ended, is_worn_out) = (session.has_peer_closed(), session.is_worn_out());
        if connection.hold == Hold::Moving {
            // It is on its way to the core that has the links, and a broken record is broken there,
            // too.
            connection.input.extend_from_slice(&plain);
            return;
        }
        match plain.is_empty() {
            true => self.flush_link(index),
            false => self.peer_received(index, &plain),
        }
        let links = self.cluster.links.as_ref();
        let Some(open) = links.and_then(|links| links.open.get(&index)) else { return };
        let (number, peer) = (open.number, open.link.peer().map(|hello| hello.identity.node));
        if let Err(error) = outcome {
            let address = &self.answers.connections.at(index).peer;
            match peer {
                Some(node) => tracing::warn!("the TLS of the link to node {node} ends: {error}"),
                None => tracing::warn!("a link by TLS with {address} comes to nothing: {error}"),
            }
            self.end_link(number);
        } else if has_ended || is_worn_out {
            self.end_link(number);
        }
    }

    /// The socket of a node takes bytes again, or is connected, or could not be.
    pub(in crate::core) fn peer_writable(&mut self, index: u32) {
        let connection = self.answers.connections.at_mut(index);
        connection.blocked = false;
        if connection.closed {
            return self.release(index);
        }
        if !connection.receiving {
            // It was being connected.
            if let Ok(Some(_)) | Err(_) = connection.socket.take_error() {
                let number = connection.id;
                return self.end_link(number);
            }
            let socket = connection.socket.as_raw_fd();
            connection.receiving = true;
            self.doors.ring.receive(socket, index);
        }
        self.flush_link(index);
    }
}

/// A socket has not taken what it was given. True: it may yet, at once or when the ring says that
/// it has room again; else it is shut.
fn may_go_on(
    error: &Error,
    socket: &Socket,
    is_blocked: &mut bool,
    (index, ring): (u32, &mut Ring),
) -> bool {
    match error.kind() {
        ErrorKind::Interrupted => true,
        ErrorKind::WouldBlock => {
            *is_blocked = true;
            ring.poll_writable(socket.as_raw_fd(), index);
            true
        }
        _ => {
            // The receive ends too, and tells of it.
            let _ = socket.shutdown(std::net::Shutdown::Both);
            false
        }
    }
}
