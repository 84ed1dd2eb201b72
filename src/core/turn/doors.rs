//! How work reaches a core: what the kernel has done for it, what other cores have sent, and who
//! connects.

use crate::core::client::connection::Kind;
use crate::core::mail::mailbox::{Mailbox, MailboxSender};
use crate::net::ring::Ring;
use socket2::Socket;

/// The doors of a core.
pub struct Doors {
    /// Its ring, made on its thread.
    pub ring: Ring,
    /// Its mailbox.
    pub mailbox: Mailbox,
    /// The ways to all cores, its own included.
    pub mailboxes: Vec<MailboxSender>,
    /// Its listening sockets.
    pub listeners: Vec<Listener>,
    /// Listeners that found no descriptor for another connection.
    pub silent: Vec<u32>,
}

/// A socket for clients, bound to its address.
pub struct Listener {
    /// The socket.
    pub socket: Socket,
    /// Who connects there.
    pub kind: Kind,
    /// Can they connect yet?
    pub listens: bool,
}
