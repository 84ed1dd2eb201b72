//! One client connection: its socket, unparsed input, replies and session.
//!
//! A connection is a slot driven by completions: it has no task and no timer, and holds no buffer
//! while it is idle.

use crate::commands::Command;
use crate::core::client::answers::StampKey;
use crate::core::client::replies::Replies;
use crate::core::client::session::Session;
use crate::core::cluster::again::Again;
use crate::core::cluster::relay::Relay;
use crate::core::cluster::relayed::Owner;
use crate::core::transact::coalesce::Membership;
use crate::net::tls::session::Session as TlsSession;
use crate::resp::parse::Parser;
use ringraft_shards::keyspace::prefetch;
use socket2::{SockAddr, Socket};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::Arc;

/// Votes that no others make up for in the time that a connection may take until it moves.
const VOTES_OF_ALL: u32 = 1 << 30;

/// A moment that does not come.
pub const NEVER_MS: i64 = i64::MAX;

/// Why a connection takes no further requests for now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hold {
    /// It does.
    #[default]
    None,
    /// A request that asks other cores must be answered first.
    Answer,
    /// CLIENT PAUSE.
    Pause,
    /// Its earlier requests must be answered first: the next one changes what messages it gets, or
    /// sends some.
    Order,
    /// It is on its way to another core.
    Moving,
    /// No node is known to lead, or too much is on its way to the one that does.
    Leader,
}

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// RESP.
    Client,
    /// RESP in TLS.
    Tls,
    /// HTTP, for metrics.
    Metrics,
    /// Another node.
    Peer,
    /// RESP of another node's client, which has no socket here.
    Relayed,
}

impl Kind {
    /// Is a client at its other end, who speaks RESP?
    pub fn is_client(self) -> bool {
        matches!(self, Kind::Client | Kind::Tls)
    }
}

/// One end of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Address {
    /// The client was gone before it was asked for.
    #[default]
    Unknown,
    /// Address and port.
    V4(SocketAddrV4),
    /// The same, for few.
    V6(Box<SocketAddrV6>),
    /// The path of the unix socket, for both ends.
    Unix(Arc<Box<str>>),
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        match address {
            SocketAddr::V4(address) => Address::V4(address),
            SocketAddr::V6(address) => Address::V6(Box::new(address)),
        }
    }
}

impl Address {
    fn of(address: std::io::Result<SockAddr>) -> Address {
        let Ok(address) = address else { return Address::Unknown };
        match (address.as_socket(), address.as_pathname()) {
            (Some(internet), _) => internet.into(),
            (None, Some(path)) => Address::Unix(Arc::new(path.to_string_lossy().into())),
            (None, None) => Address::Unknown,
        }
    }

    /// Address and port, if it has them.
    pub fn internet(&self) -> Option<SocketAddr> {
        match self {
            Address::V4(address) => Some((*address).into()),
            Address::V6(address) => Some((**address).into()),
            Address::Unix(_) | Address::Unknown => None,
        }
    }

    /// Is it on this machine?
    pub fn is_local(&self) -> bool {
        match self.internet() {
            Some(address) => address.ip().is_loopback(),
            None => matches!(self, Address::Unix(_)),
        }
    }
}

/// As CLIENT LIST prints it.
impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Unknown => f.write_str("?:0"),
            Address::V4(address) => address.fmt(f),
            Address::V6(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "{path}:0"),
        }
    }
}

/// A connection. Everything in it may move to another core.
pub struct Connection {
    /// Unique within the process, never used again.
    pub id: u64,
    /// The socket.
    pub socket: Socket,
    /// What it speaks.
    pub kind: Kind,
    /// Its TLS, if that is what it speaks.
    pub tls: Option<Box<TlsSession>>,
    /// The client's address.
    pub peer: Address,
    /// The server's address.
    pub local: Address,
    /// When it was accepted, milliseconds since the process started.
    pub created_ms: i64,
    /// When it last sent a request, milliseconds since the process started.
    pub active_ms: i64,
    /// Its parser.
    pub parser: Parser,
    /// Input that is not parsed yet, or that requests of this turn lie in.
    pub input: Vec<u8>,
    /// How much of `input` is parsed.
    pub input_start: usize,
    /// The request that is held back, as RESP.
    pub held_back: Box<[u8]>,
    /// Its replies.
    pub replies: Replies,
    /// Its session.
    pub session: Session,
    /// Row of its last request: the next is likely the same.
    pub last_command: Option<&'static Command>,
    /// Row of its last request, if that took the slow path.
    pub last_row: Option<&'static Command>,
    /// Its part in requests that are joined.
    pub membership: Membership,
    /// Sequence number of its last request that none of its reads may overtake: a write, or one
    /// over several shards.
    pub last_ordered: Option<u32>,
    /// Sequence number of its last read that this node answers although another one leads.
    pub last_read_here: Option<u32>,
    /// Of each shard's log, what its replies may have rested on; empty while that is not known.
    pub seen: Box<[u64]>,
    /// Is a receive armed in the ring?
    pub receiving: bool,
    /// Was its cancellation asked for?
    pub cancelling: bool,
    /// Does it wait for the socket to take bytes?
    pub blocked: bool,
    /// Is it listed for sending at the turn's end?
    pub dirty: bool,
    /// Is it listed for parsing in the next turn?
    pub runnable: bool,
    /// Has the client closed its side?
    pub ended: bool,
    /// Is it to be closed once its replies are sent?
    pub close_after_replies: bool,
    /// Is it closed, and only kept until the ring and the shards are done with it?
    pub closed: bool,
    /// Why it takes no requests.
    pub hold: Hold,
    /// The number of its request that blocks.
    pub blocked_number: Option<u32>,
    /// Since when its output has been over the soft limit, milliseconds since the process started;
    /// [`NEVER_MS`] while it is not.
    pub over_soft_limit_since_ms: i64,
    /// The core that most of its recent keys belong to, by majority vote, and the votes' surplus.
    pub favourite: (u16, u32),
    /// Requests since the favourite was last judged.
    pub votes: u32,
    /// When it may move again, milliseconds since the process started.
    pub may_move_ms: i64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Requests parsed.
    pub request_count: u64,
    /// Its session with the node that leads, while this one does not.
    pub relay: Option<Box<Relay>>,
    /// Whose session it is, if it is one of another node's client.
    pub owner: Option<Box<Owner>>,
    /// Its requests that wait until somebody leads.
    pub waiting_count: u32,
    /// Has it watched keys at a node that led then? They may have changed: its next EXEC is not to
    /// run.
    pub lost_watch: bool,
    /// Requests under way that are sent to the node that leads, should this one lead no more.
    pub again: Option<Box<Again>>,
    /// Until when it waits for a leader, milliseconds since the process started.
    pub held_until_ms: i64,
}

// There may be a hundred thousand of them, and the allocator's next step is 512.
const _: () = assert!(size_of::<Connection>() <= 448);

impl Connection {
    /// Address and name of the client, to be kept when it is gone.
    pub fn identity(&self) -> (Address, Vec<u8>) {
        (self.peer.clone(), self.session.names().name.clone())
    }

    /// A new connection on an accepted socket.
    pub fn new(id: u64, socket: Socket, kind: Kind, now_ms: i64, session: Session) -> Connection {
        let local = Address::of(socket.local_addr());
        let peer = match &local {
            // The client's end has no name.
            Address::Unix(_) => local.clone(),
            _ => Address::of(socket.peer_addr()),
        };
        Connection {
            id,
            socket,
            kind,
            tls: None,
            peer,
            local,
            created_ms: now_ms,
            active_ms: now_ms,
            parser: Parser::default(),
            input: Vec::new(),
            input_start: 0,
            held_back: Box::default(),
            replies: Replies::default(),
            session,
            last_command: None,
            last_row: None,
            membership: Membership::default(),
            last_ordered: None,
            last_read_here: None,
            seen: Box::default(),
            receiving: false,
            cancelling: false,
            blocked: false,
            dirty: false,
            runnable: false,
            ended: false,
            close_after_replies: false,
            closed: false,
            hold: Hold::None,
            blocked_number: None,
            over_soft_limit_since_ms: NEVER_MS,
            favourite: (0, 0),
            votes: 0,
            may_move_ms: 0,
            received_bytes: 0,
            request_count: 0,
            relay: None,
            owner: None,
            waiting_count: 0,
            lost_watch: false,
            again: None,
            held_until_ms: 0,
        }
    }

    /// Lets it move to a core at its next opportunity, as if all of its keys belonged there.
    pub fn send_to(&mut self, core: u16) {
        self.votes = VOTES_OF_ALL;
        self.favourite = (core, VOTES_OF_ALL);
        self.may_move_ms = 0;
    }

    /// Has room for what it has seen of so many shards.
    pub fn make_seen(&mut self, shard_count: usize) {
        if self.seen.len() != shard_count {
            let mut seen = std::mem::take(&mut self.seen).into_vec();
            seen.resize(shard_count, 0);
            self.seen = seen.into();
        }
    }

    /// What its request is known by: another node has stamped it, or it is kept here.
    #[cold]
    pub fn stamp_at(&self, sequence: u32) -> StampKey {
        match &self.owner {
            Some(owner) => owner.stamp_at(sequence),
            None => self.again.as_ref().map_or(StampKey::NONE, |again| again.stamp_at(sequence)),
        }
    }

    /// May a request be unfinished that its reads must not overtake? Then a read waits for its turn
    /// in the shard's order.
    #[inline(always)]
    pub fn must_ride(&self) -> bool {
        self.last_ordered.is_some_and(|last| !self.replies.is_written(last))
    }

    /// Fetches it into the cache ahead of its use.
    #[inline(always)]
    pub fn fetch(&self) {
        const LINE: usize = 64;
        let start = std::ptr::from_ref(self).cast::<u8>();
        (0..size_of::<Connection>()).step_by(LINE).for_each(|at| prefetch(start.wrapping_add(at)));
    }

    /// Do its replies go to its socket as they are, and now?
    #[inline(always)]
    pub fn sends_plainly(&self) -> bool {
        self.kind != Kind::Relayed
            && self.tls.is_none()
            && self.session.tracking.is_none()
            && !self.blocked
            && !self.closed
    }

    /// Unparsed input.
    pub fn unparsed(&self) -> usize {
        self.input.len() - self.input_start
    }

    /// Forgets parsed input. Not while requests of the running turn lie in it.
    pub fn compact_input(&mut self) {
        if self.input_start == self.input.len() {
            self.input.clear();
            self.input_start = 0;
        } else if self.input_start > self.input.len() / 2 {
            // Not at every turn: each byte of a long input is moved once at most, on average.
            self.input.drain(..self.input_start);
            self.input_start = 0;
        }
    }

    /// Bytes of memory it holds.
    pub fn memory(&self) -> usize {
        let tls = self.tls.as_ref().map_or(0, |session| session.memory());
        size_of::<Connection>() + self.input.capacity() + self.replies.memory() + tls
    }

    /// Has the client sent its last byte, and is all of it taken?
    #[inline(always)]
    pub fn is_done(&self) -> bool {
        self.ended && self.hold == Hold::None && self.unparsed() == 0
    }

    /// Does nothing refer to it any more?
    pub fn is_released(&self) -> bool {
        self.closed && !self.receiving && !self.blocked && self.replies.unfinished() == 0
    }
}
