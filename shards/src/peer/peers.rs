//! The peers of one core: whom it dials and when, and which of several connections to one core
//! stays.
//!
//! Every connection is a life of its link and has a number: one more than the greatest that either
//! side knew when it said hello. So lives are ordered whoever has dialled, and a connection is
//! admitted only if it is newer than the one that is there: who has cut a connection and dials
//! again is taken, who was overtaken is not.
//!
//! **Both dial.** The connection of the smaller node id stays: its side, once its own proof is on
//! the way, refuses the other's; the other side admits it and drops its own. A side that has not
//! got so far lets the other one in instead, so a node that cannot reach its peer does not keep
//! that one from reaching it.
//!
//! **Who is who.** A node is what the meta group says: an id, its directory, removed or not. Of two
//! processes of one directory (a copy) the one with the greater start number is spoken to; of equal
//! ones the one that is connected.

use std::collections::BTreeMap;

use super::hello::{Hello, Identity, NONCE_BYTES, PROTOCOLS, PeerCore, Refusal, Side};
use super::link::Link;
use crate::ids::{DirectoryId, MonotonicTime, NodeId};
use crate::limits::LINK_REDIAL_US;
use crate::random::Random;

/// A connection, by the driver's number.
pub type Connection = u64;

/// Dialling that is under way.
#[derive(Clone, Copy, Debug)]
struct Dialled {
    connection: Connection,
    /// Has the peer proven itself, so that this side's proof is on the way?
    proven: bool,
}

/// One link.
#[derive(Debug, Default)]
struct Slot {
    is_wanted: bool,
    dialled: Option<Dialled>,
    current: Option<Connection>,
    /// The greatest life known.
    life: u64,
    /// What the next failure to reach it costs.
    wait_us: u64,
    dial_at: MonotonicTime,
}

/// What is known of a node.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// As the meta group has it.
    directory: Option<DirectoryId>,
    is_removed: bool,
    /// Of the process that was heard last.
    start: u64,
    process: u64,
}

/// The peers of one core.
#[derive(Debug)]
pub struct Peers {
    me: Identity,
    core: u16,
    slots: BTreeMap<PeerCore, Slot>,
    nodes: BTreeMap<NodeId, Known>,
    chance: Random,
}

impl Peers {
    /// Nobody is known. `seed`: chance for redialling.
    pub fn new(me: Identity, core: u16, seed: u64) -> Peers {
        let (slots, nodes) = (BTreeMap::new(), BTreeMap::new());
        Peers { me, core, slots, nodes, chance: Random::new(seed) }
    }

    /// Who this process is.
    pub fn me(&self) -> &Identity {
        &self.me
    }

    /// A link to this core is wanted from now on: it is dialled, and again when it is lost.
    pub fn want(&mut self, peer: PeerCore) {
        self.slots.entry(peer).or_default().is_wanted = true;
    }

    /// It is not wanted any more. Returns the connections to close.
    pub fn unwant(&mut self, peer: PeerCore) -> Vec<Connection> {
        let Some(slot) = self.slots.get_mut(&peer) else { return Vec::new() };
        slot.is_wanted = false;
        slot.dialled
            .take()
            .map(|dialled| dialled.connection)
            .into_iter()
            .chain(slot.current.take())
            .collect()
    }

    /// The meta group says: this node has this directory.
    pub fn member(&mut self, node: NodeId, directory: DirectoryId) {
        self.nodes.entry(node).or_default().directory = Some(directory);
    }

    /// The meta group says: this node is removed, for ever. Returns the connections to close.
    pub fn removed(&mut self, node: NodeId) -> Vec<Connection> {
        self.nodes.entry(node).or_default().is_removed = true;
        let cores: Vec<PeerCore> =
            self.slots.keys().filter(|peer| peer.node == node).copied().collect();
        cores.into_iter().flat_map(|peer| self.unwant(peer)).collect()
    }

    /// Whom to dial now.
    pub fn due(&self, now: MonotonicTime) -> Vec<PeerCore> {
        let is_due = |slot: &Slot| {
            slot.is_wanted
                && slot.current.is_none()
                && slot.dialled.is_none()
                && slot.dial_at <= now
        };
        self.slots.iter().filter(|(_, slot)| is_due(slot)).map(|(peer, _)| *peer).collect()
    }

    /// This core dials: the hello for [`Link::dial`]. Say [`Peers::lost`] when it comes to nothing.
    pub fn dial(
        &mut self,
        peer: PeerCore,
        connection: Connection,
        nonce: [u8; NONCE_BYTES],
    ) -> Hello {
        let slot = self.slots.entry(peer).or_default();
        assert!(slot.dialled.is_none() && slot.current.is_none(), "one at a time");
        slot.dialled = Some(Dialled { connection, proven: false });
        let (to, to_core, life) = (peer.node, peer.core, slot.life);
        Hello { to, to_core, life, purpose: peer.purpose, ..self.hello(nonce) }
    }

    /// The hello for [`Link::accept`]: whom it is for is not known yet.
    pub fn hello(&self, nonce: [u8; NONCE_BYTES]) -> Hello {
        Hello {
            identity: self.me.clone(),
            protocols: PROTOCOLS,
            purpose: super::hello::Purpose::Link,
            core: self.core,
            to: NodeId(0),
            to_core: 0,
            life: 0,
            nonce,
        }
    }

    /// The greatest life known of a link, for [`Link::answer_hello`].
    pub fn life(&self, peer: PeerCore) -> u64 {
        self.slots.get(&peer).map_or(0, |slot| slot.life)
    }

    /// The peer of a link has proven that it knows the secret: is it one to speak to, and is this
    /// connection the one that stays? Then admit it, and close those that are returned. Else
    /// refuse it.
    pub fn judge(
        &mut self,
        link: &Link,
        connection: Connection,
    ) -> Result<Vec<Connection>, Refusal> {
        let hello = link.peer().expect("it has proven itself");
        let mut close = self.identify(hello)?;
        let peer = hello.peer();
        let slot = self.slots.entry(peer).or_default();
        match link.side() {
            Side::Dials => {
                let mine = slot.dialled.as_mut().filter(|mine| mine.connection == connection);
                // Another one was admitted meanwhile, or the peer is not wanted any more.
                mine.ok_or(Refusal::Superseded)?.proven = true;
            }
            Side::Answers => {
                let is_smaller = self.me.node < peer.node;
                if is_smaller && slot.dialled.is_some_and(|mine| mine.proven) {
                    return Err(Refusal::Crossing);
                }
                if link.life() <= slot.life {
                    return Err(Refusal::Superseded);
                }
                close.extend(slot.dialled.take().map(|mine| mine.connection));
                close.extend(slot.current.replace(connection));
                (slot.life, slot.wait_us) = (link.life(), 0);
            }
        }
        Ok(close)
    }

    /// A connection that this core has dialled is up. Returns whether it stays; if not, close it.
    pub fn up(&mut self, link: &Link, connection: Connection) -> bool {
        let hello = link.peer().expect("it is up");
        let Some(slot) = self.slots.get_mut(&hello.peer()) else { return false };
        if link.side() == Side::Dials {
            let mine = slot.dialled.take_if(|mine| mine.connection == connection);
            if mine.is_none() || link.life() <= slot.life {
                return false;
            }
            slot.current = Some(connection);
            (slot.life, slot.wait_us) = (link.life(), 0);
        }
        slot.current == Some(connection)
    }

    /// The connection that is up to a core.
    pub fn current(&self, peer: PeerCore) -> Option<Connection> {
        self.slots.get(&peer)?.current
    }

    /// A connection has ended, or dialling has failed. Returns the link that is down now, if it was
    /// up.
    pub fn lost(&mut self, connection: Connection, now: MonotonicTime) -> Option<PeerCore> {
        for (peer, slot) in &mut self.slots {
            let was_up = slot.current.take_if(|current| *current == connection).is_some();
            let failed = slot.dialled.take_if(|dialled| dialled.connection == connection).is_some();
            if !was_up && !failed {
                continue;
            }
            let (first, last) = (*LINK_REDIAL_US.start(), *LINK_REDIAL_US.end());
            slot.wait_us = (2 * slot.wait_us).clamp(first, last);
            let wait_us = slot.wait_us / 2 + self.chance.below(slot.wait_us / 2 + 1);
            slot.dial_at = MonotonicTime(now.0 + wait_us);
            return was_up.then_some(*peer);
        }
        None
    }

    /// A node has dialled: it can be reached again, so nobody waits any longer before dialling it.
    pub fn heard(&mut self, node: NodeId, now: MonotonicTime) {
        for (_, slot) in self.slots.iter_mut().filter(|(peer, _)| peer.node == node) {
            (slot.wait_us, slot.dial_at) = (0, slot.dial_at.min(now));
        }
    }

    /// Who is that? Returns the connections to processes that it takes the place of.
    fn identify(&mut self, hello: &Hello) -> Result<Vec<Connection>, Refusal> {
        let (it, me) = (&hello.identity, &self.me);
        if it.cluster != me.cluster {
            return Err(Refusal::OtherCluster);
        }
        if it.node == me.node {
            return Err(Refusal::OtherProcess);
        }
        let known = self.nodes.entry(it.node).or_default();
        if known.is_removed {
            return Err(Refusal::Removed);
        }
        match it.epoch.cmp(&me.epoch) {
            std::cmp::Ordering::Less => return Err(Refusal::OlderEpoch),
            std::cmp::Ordering::Greater => return Err(Refusal::NewerEpoch),
            std::cmp::Ordering::Equal => {}
        }
        if known.directory.is_some_and(|directory| directory != it.directory) {
            return Err(Refusal::OtherDirectory);
        }
        if it.start < known.start {
            return Err(Refusal::OlderStart);
        }
        if (it.start, it.process) == (known.start, known.process) {
            return Ok(Vec::new());
        }
        let of_it = self.slots.iter_mut().filter(|(peer, _)| peer.node == it.node);
        let mut current: Vec<&mut Slot> = of_it.map(|(_, slot)| slot).collect();
        if it.start == known.start && current.iter().any(|slot| slot.current.is_some()) {
            return Err(Refusal::OtherProcess);
        }
        (known.start, known.process) = (it.start, it.process);
        Ok(current.iter_mut().filter_map(|slot| slot.current.take()).collect())
    }
}
