//! One connection between two cores: bytes and time in, items out, and back.
//!
//! The driver owns the socket. It makes a [`Link`] when it has dialled or was dialled, passes what
//! it receives to [`Link::receive`], sends what [`Link::slices`] gives and says how much of it went
//! ([`Link::sent`]), and calls [`Link::tick`]. Errors end the link: send what is left, then close.
//!
//! | event | what the driver does |
//! |---|---|
//! | [`LinkEvent::Greeted`] | the side that was dialled hands the link, as it is, to the core that the hello names, and calls [`Link::answer_hello`] there |
//! | [`LinkEvent::Proven`] | asks [`Peers`](super::Peers), then [`Link::admit`] or [`Link::refuse`] |
//! | [`LinkEvent::Up`] | from now on items go |
//! | [`LinkEvent::Item`], [`LinkEvent::Bulk`] | takes them |
//!
//! Frames of one direction are numbered, and each must be the next: what is received is what was
//! sent, in order, without gaps and once. When the connection ends, what was on its way is lost;
//! the next one is another life of the link. A driver reads nothing more from a link once a newer
//! life of it is up.
//!
//! Not here: sockets, dialling, which of several connections stays (`peers.rs`), what items mean.

use std::io::IoSlice;

use bytes::Bytes;

use super::frame::{Frame, FrameError, FrameKind, FrameReader};
use super::hello::{
    Hello, PREFACE, PROOF_BYTES, PROTOCOLS, Refusal, Secret, Side, common_protocol,
};
use super::item::{Item, take_all};
use super::outbox::{Full, Outbox};
use crate::ids::MonotonicTime;
use crate::limits::{LINK_HANDSHAKE_US, LINK_ITEM_BYTES_MAX, LINK_PING_US, LINK_SILENCE_US};
use crate::wire::{Garbage, Reader};

/// What has happened on a link.
#[derive(Clone, Debug, PartialEq)]
pub enum LinkEvent {
    /// The side that dialled has said who it is and whom it wants. Nothing is proven.
    Greeted,
    /// The other side has proven that it knows the secret, and waits to be admitted.
    Proven,
    /// Both sides have proven it.
    Up,
    /// An item.
    Item(Item),
    /// The body of a bulk frame.
    Bulk(Bytes),
}

/// Why a link ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The other end is something else.
    #[error("the other end does not speak ringraft's link protocol")]
    NotPeer,
    /// It is ringraft of another time.
    #[error("the other end begins links in version {0}, which this version does not know")]
    Preface(u8),
    /// The stream is damaged.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// What is in a frame makes no sense.
    #[error("frame {number}: {garbage}")]
    Garbage {
        /// Which.
        number: u64,
        /// What is wrong.
        garbage: Garbage,
    },
    /// A frame that has no place here.
    #[error("frame {number} of kind {kind:?} has no place here")]
    Misplaced {
        /// Which.
        number: u64,
        /// Its kind.
        kind: FrameKind,
    },
    /// A frame is missing, or one came twice.
    #[error("frame {found} instead of {expected}")]
    Number {
        /// The one that came.
        found: u64,
        /// The one that was due.
        expected: u64,
    },
    /// The other side refuses the link.
    #[error("refused: {reason}")]
    RefusedByPeer {
        /// Why.
        reason: Refusal,
        /// Is it certain that a member has said so?
        proven: bool,
    },
    /// This side refuses it.
    #[error("the peer is refused: {0}")]
    Refused(Refusal),
    /// The other side has ended the link.
    #[error("ended by the peer: {0}")]
    Bye(String),
    /// Nothing was heard for too long.
    #[error("nothing was heard for {} ms", .0 / 1000)]
    Silence(u64),
    /// The handshake takes too long.
    #[error("the handshake was not over in {} ms", LINK_HANDSHAKE_US / 1000)]
    SlowHandshake,
}

/// How far the handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Preface,
    Hello,
    /// The other side has said hello, and this side's is due.
    Greeted,
    /// The other side's proof is due.
    Proof,
    /// Proven; this side has to admit the other one.
    Judging,
    /// The other side's welcome is due.
    Welcome,
    Up,
    Ended,
}

/// One connection of a link.
#[derive(Debug)]
pub struct Link {
    secret: Secret,
    side: Side,
    stage: Stage,
    own: Hello,
    peer: Option<Hello>,
    /// Both hellos as bytes: of the side that dialled, then of the other.
    hellos: [Bytes; 2],
    preface: usize,
    reader: FrameReader,
    expected: u64,
    outbox: Outbox,
    /// A long item of which parts have come, and its length.
    parts: Option<(Vec<u8>, u64)>,
    begun: MonotonicTime,
    heard: MonotonicTime,
    spoke: MonotonicTime,
}

impl Link {
    /// This side has dialled; its hello goes first.
    pub fn dial(secret: Secret, own: Hello, now: MonotonicTime) -> Link {
        let mut link = Link::new(Side::Dials, secret, own, now);
        link.greet();
        link
    }

    /// This side was dialled. The hello names no peer yet; it goes out when the peer's is there.
    pub fn accept(secret: Secret, own: Hello, now: MonotonicTime) -> Link {
        Link::new(Side::Answers, secret, own, now)
    }

    fn new(side: Side, secret: Secret, own: Hello, now: MonotonicTime) -> Link {
        Link {
            secret,
            side,
            stage: Stage::Preface,
            peer: None,
            hellos: [Bytes::new(), Bytes::new()],
            preface: 0,
            reader: FrameReader::default(),
            expected: 1,
            outbox: Outbox::default(),
            own,
            parts: None,
            begun: now,
            heard: now,
            spoke: now,
        }
    }

    fn greet(&mut self) {
        self.outbox.raw(Bytes::from_static(PREFACE));
        let hello = self.own.encode();
        self.hellos[usize::from(self.side == Side::Answers)] = hello.clone();
        self.outbox.frame(FrameKind::Hello, vec![hello]);
    }

    /// Who is at the other end, once it has said so; proven when the link is up.
    pub fn peer(&self) -> Option<&Hello> {
        self.peer.as_ref()
    }

    /// What this side has said.
    pub fn own(&self) -> &Hello {
        &self.own
    }

    /// Which side this is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// Do items go?
    pub fn is_up(&self) -> bool {
        self.stage == Stage::Up
    }

    /// Which life of the link this connection is: greater than all that either side knew when they
    /// said hello.
    pub fn life(&self) -> u64 {
        self.own.life.max(self.peer.as_ref().map_or(0, |peer| peer.life)) + 1
    }

    /// Bytes have come. The error ends the link.
    pub fn receive(
        &mut self,
        mut bytes: &[u8],
        now: MonotonicTime,
        events: &mut Vec<LinkEvent>,
    ) -> Result<(), LinkError> {
        if self.stage == Stage::Ended {
            return Ok(());
        }
        if !bytes.is_empty() {
            self.heard = now;
        }
        let result = self.take(&mut bytes, events);
        if let Err(error) = &result {
            self.end(error);
        }
        result
    }

    fn take(&mut self, bytes: &mut &[u8], events: &mut Vec<LinkEvent>) -> Result<(), LinkError> {
        while self.stage == Stage::Preface {
            let Some((first, rest)) = bytes.split_first() else { return Ok(()) };
            let last = self.preface == PREFACE.len() - 1;
            if *first != PREFACE[self.preface] {
                return Err(if last { LinkError::Preface(*first) } else { LinkError::NotPeer });
            }
            *bytes = rest;
            self.preface += 1;
            if last {
                self.stage = Stage::Hello;
            }
        }
        while let Some(frame) = self.reader.next(bytes, self.stage == Stage::Up)? {
            self.take_frame(frame, events)?;
        }
        Ok(())
    }

    fn take_frame(&mut self, frame: Frame, events: &mut Vec<LinkEvent>) -> Result<(), LinkError> {
        let Frame { kind, number, body } = frame;
        if number != self.expected {
            return Err(LinkError::Number { found: number, expected: self.expected });
        }
        self.expected += 1;
        let garbage = |garbage| LinkError::Garbage { number, garbage };
        match (kind, self.stage) {
            (FrameKind::Bye, _) => Err(LinkError::Bye(String::from_utf8_lossy(&body).into_owned())),
            (FrameKind::Hello, Stage::Hello) => self.take_hello(body, events).map_err(garbage),
            (FrameKind::Proof, Stage::Proof) => self.take_proof(body, events),
            (FrameKind::Welcome, Stage::Welcome) => self.take_welcome(&body, events),
            (FrameKind::Refusal, Stage::Proof | Stage::Welcome | Stage::Judging) => {
                let (reason, proof) = body.split_at_checked(1).unwrap_or((&[0], &[]));
                let proven = self.is_said(FrameKind::Refusal, reason, proof);
                let reason = Refusal::from_number(reason[0]);
                Err(LinkError::RefusedByPeer { reason, proven })
            }
            (FrameKind::Ping, Stage::Up) if body.is_empty() => Ok(()),
            (FrameKind::Turn, Stage::Up) => self.take_items(body, events).map_err(garbage),
            (FrameKind::Part, Stage::Up) => self.take_part(body, events).map_err(garbage),
            (FrameKind::Bulk, Stage::Up) => {
                events.push(LinkEvent::Bulk(body));
                Ok(())
            }
            _ => Err(LinkError::Misplaced { number, kind }),
        }
    }

    fn take_hello(&mut self, body: Bytes, events: &mut Vec<LinkEvent>) -> Result<(), Garbage> {
        let hello = Hello::decode(body.clone())?;
        self.hellos[usize::from(self.side == Side::Dials)] = body;
        self.stage = Stage::Proof;
        if self.side == Side::Answers {
            self.stage = Stage::Greeted;
            (self.own.to, self.own.to_core) = (hello.identity.node, hello.core);
            self.own.purpose = hello.purpose;
        }
        self.peer = Some(hello);
        if self.side == Side::Answers {
            events.push(LinkEvent::Greeted);
        }
        Ok(())
    }

    /// The side that was dialled answers the hello. `core`: which of its cores has the link now;
    /// `life`: the greatest life of the link that it knows. Does nothing on a link that has
    /// ended meanwhile.
    pub fn answer_hello(&mut self, core: u16, life: u64) {
        if self.stage != Stage::Greeted {
            return;
        }
        self.stage = Stage::Proof;
        (self.own.core, self.own.life) = (core, life);
        self.greet();
        self.say(FrameKind::Proof, b"");
    }

    /// Sends a frame with a proof behind what it says.
    fn say(&mut self, kind: FrameKind, said: &[u8]) {
        let hellos = [&self.hellos[0][..], &self.hellos[1][..]];
        let proof = self.secret.prove(self.side, hellos, kind.number(), said);
        let body = [said, &proof].concat();
        self.outbox.frame(kind, vec![body.into()]);
    }

    /// Has the other side said this?
    fn is_said(&self, kind: FrameKind, said: &[u8], proof: &[u8]) -> bool {
        let hellos = [&self.hellos[0][..], &self.hellos[1][..]];
        self.secret.holds(self.side.other(), hellos, kind.number(), said, proof)
    }

    fn take_proof(&mut self, body: Bytes, events: &mut Vec<LinkEvent>) -> Result<(), LinkError> {
        let peer = self.peer.as_ref().expect("its hello came first");
        let refusal = if !self.is_said(FrameKind::Proof, b"", &body) {
            Some(Refusal::Secret)
        } else if common_protocol(PROTOCOLS, peer.protocols).is_none() {
            Some(Refusal::Protocol)
        } else if self.side == Side::Dials && peer.peer() != self.wanted() {
            Some(Refusal::OtherNode)
        } else {
            None
        };
        if let Some(reason) = refusal {
            return Err(self.refuse(reason));
        }
        self.stage = Stage::Judging;
        events.push(LinkEvent::Proven);
        Ok(())
    }

    fn wanted(&self) -> super::hello::PeerCore {
        let Hello { to, to_core, purpose, .. } = self.own;
        super::hello::PeerCore { node: to, core: to_core, purpose }
    }

    /// The peer, which has proven that it knows the secret, is one that this side speaks to. Does
    /// nothing on a link that has ended meanwhile.
    pub fn admit(&mut self, events: &mut Vec<LinkEvent>) {
        if self.stage != Stage::Judging {
            return;
        }
        match self.side {
            Side::Dials => {
                self.say(FrameKind::Proof, b"");
                self.stage = Stage::Welcome;
            }
            Side::Answers => {
                let life = self.life().to_le_bytes();
                self.say(FrameKind::Welcome, &life);
                self.stage = Stage::Up;
                events.push(LinkEvent::Up);
            }
        }
    }

    /// It is not. Send what is left, then close.
    pub fn refuse(&mut self, reason: Refusal) -> LinkError {
        if self.stage == Stage::Greeted {
            self.greet();
        }
        self.say(FrameKind::Refusal, &[reason.number()]);
        self.stage = Stage::Ended;
        LinkError::Refused(reason)
    }

    fn take_welcome(&mut self, body: &[u8], events: &mut Vec<LinkEvent>) -> Result<(), LinkError> {
        let (said, proof) = body.split_at(body.len().saturating_sub(PROOF_BYTES));
        if !self.is_said(FrameKind::Welcome, said, proof) || said != self.life().to_le_bytes() {
            return Err(LinkError::Refused(Refusal::Secret));
        }
        self.stage = Stage::Up;
        events.push(LinkEvent::Up);
        Ok(())
    }

    fn take_items(&mut self, body: Bytes, events: &mut Vec<LinkEvent>) -> Result<(), Garbage> {
        let from = self.peer.as_ref().expect("the link is up").identity.node;
        let (outbox, now) = (&mut self.outbox, self.heard);
        take_all(body, from, self.own.identity.node, |item| {
            if let Item::Raft { shard, message } = &item {
                outbox.heard(*shard, &message.0, now);
            }
            events.push(LinkEvent::Item(item));
        })
    }

    fn take_part(&mut self, body: Bytes, events: &mut Vec<LinkEvent>) -> Result<(), Garbage> {
        let mut input = Reader::new(body, "a part");
        let (length, offset) = (input.u64()?, input.u64()?);
        if length > LINK_ITEM_BYTES_MAX as u64 {
            let bound = LINK_ITEM_BYTES_MAX as u64;
            return Err(Garbage::TooMuch { what: "an item", found: length, bound });
        }
        let (bytes, expected) = self.parts.get_or_insert((Vec::new(), length));
        if *expected != length || bytes.len() as u64 != offset {
            return Err(Reader::unknown("a place of a part", offset));
        }
        let part = input.rest();
        if part.is_empty() || offset + part.len() as u64 > length {
            return Err(Reader::unknown("a length of a part", part.len() as u64));
        }
        bytes.extend_from_slice(&part);
        if (bytes.len() as u64) < length {
            return Ok(());
        }
        let (whole, _) = self.parts.take().expect("it was just filled");
        self.take_items(whole.into(), events)
    }

    /// Queues an item; it goes with the next [`Link::encode`]. Given back when there is no room: as
    /// if it were lost. Of an append the group must hear that, as of an unreachable peer.
    pub fn send(&mut self, item: Item) -> Result<(), Full> {
        self.outbox.push(item)
    }

    /// Appends a bulk frame; see [`Link::waiting_bytes`] for when to wait.
    pub fn send_bulk(&mut self, body: Vec<Bytes>) {
        assert!(self.is_up(), "bulk frames go on links that are up");
        self.outbox.frame(FrameKind::Bulk, body);
    }

    /// Makes frames of what waits: once per turn, when all of its items are there.
    pub fn encode(&mut self, now: MonotonicTime) {
        if self.is_up() {
            self.outbox.encode(now);
        }
        if self.outbox.encoded_bytes() > 0 {
            self.spoke = now;
        }
    }

    /// The next bytes for the socket, at most so many slices.
    pub fn slices<'a>(&'a self, out: &mut Vec<IoSlice<'a>>, count: usize) {
        self.outbox.slices(out, count);
    }

    /// So many of these bytes have gone.
    pub fn sent(&mut self, count: usize) {
        self.outbox.sent(count);
    }

    /// Bytes for the socket.
    pub fn encoded_bytes(&self) -> usize {
        self.outbox.encoded_bytes()
    }

    /// Bytes that wait, encoded or not.
    pub fn waiting_bytes(&self) -> usize {
        self.outbox.waiting_bytes()
    }

    /// Bytes of transactions' and nodes' messages that wait as items: they do not wait for a peer
    /// that answers no appends.
    pub fn others_waiting_bytes(&self) -> usize {
        self.outbox.others_waiting_bytes()
    }

    /// Bytes of appends that the peer has not answered.
    pub fn unanswered_bytes(&self) -> usize {
        self.outbox.unanswered_bytes()
    }

    /// Time passes. The error ends the link.
    pub fn tick(&mut self, now: MonotonicTime) -> Result<(), LinkError> {
        let since = |time: MonotonicTime| now.0.saturating_sub(time.0);
        let error = match self.stage {
            Stage::Ended => return Ok(()),
            Stage::Up if since(self.heard) >= LINK_SILENCE_US => {
                LinkError::Silence(since(self.heard))
            }
            Stage::Up => {
                if since(self.spoke) >= LINK_PING_US && self.outbox.encoded_bytes() == 0 {
                    self.outbox.frame(FrameKind::Ping, Vec::new());
                    self.spoke = now;
                }
                return Ok(());
            }
            _ if since(self.begun) >= LINK_HANDSHAKE_US => LinkError::SlowHandshake,
            _ => return Ok(()),
        };
        self.end(&error);
        Err(error)
    }

    /// Ends the link in order, with a reason for the other side's log.
    pub fn close(&mut self, reason: &str) {
        if self.stage == Stage::Up {
            let reason = Bytes::copy_from_slice(reason.as_bytes());
            self.outbox.frame(FrameKind::Bye, vec![reason]);
        }
        self.stage = Stage::Ended;
    }

    /// Tells the other side what it has done wrong.
    fn end(&mut self, error: &LinkError) {
        match error {
            LinkError::Bye(_) | LinkError::RefusedByPeer { .. } | LinkError::Refused(_) => {
                self.stage = Stage::Ended;
            }
            error => self.close(&error.to_string()),
        }
    }
}
