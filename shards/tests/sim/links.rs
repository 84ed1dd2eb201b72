//! A node's links: the driver of the engine's [`Link`] and [`Peers`] over the simulated network,
//! and what goes over them.

use std::collections::BTreeMap;
use std::io::IoSlice;

use bytes::Bytes;
use ringraft_shards::ids::{DirectoryId, MonotonicTime, NodeId, ShardId};
use ringraft_shards::meta::{ASKER_LEVEL, MetaState, NodeState};
use ringraft_shards::peer::{
    Identity, Item, Link, LinkError, LinkEvent, NONCE_BYTES, PeerCore, Peers, Purpose, Refusal,
    Secret, encode_items, take_all,
};
use ringraft_shards::raft::PeerMessage;
use ringraft_shards::random::Random;
use ringraft_shards::transaction::{put_message, take_message};
use ringraft_shards::wire::{Garbage, Reader, put_string};

use crate::counts::Count;
use crate::members::{NodeMessage, address};
use crate::network::Side;
use crate::plan::Flaw;
use crate::replica::CLUSTER;
use crate::schedule::Core;
use crate::serve::TransactionMessage;
use crate::transfer::{Piece, PieceAnswer};

/// How much faster than a server's the time of links passes here: its ticks are so much shorter.
const SPEED: u64 = 10;

/// What nodes send each other.
#[derive(Clone)]
pub enum Payload {
    /// For a shard's group.
    Raft { shard: u16, message: PeerMessage },
    /// A piece of a snapshot.
    Piece { shard: u16, piece: Piece },
    /// For a participant or the coordinator.
    Transaction(TransactionMessage),
    /// It arrived.
    PieceAnswer { shard: u16, answer: PieceAnswer },
    /// Something about a replica that is lost.
    Node(NodeMessage),
}

/// What comes of bytes and time.
#[derive(Default)]
pub struct Arrived {
    /// From whom, and what.
    pub payloads: Vec<(u64, Payload)>,
    /// Nodes to which a link was lost.
    pub lost: Vec<u64>,
    /// The cluster has no use for this process any more: why.
    pub ended: Option<Refusal>,
}

/// A node's end of a connection.
struct Open {
    link: Link,
    side: Side,
}

/// The links of a process.
pub struct Links {
    node: u64,
    incarnation: u64,
    peers: Peers,
    open: BTreeMap<u64, Open>,
    nonces: Random,
}

fn core_of(node: u64, purpose: Purpose) -> PeerCore {
    PeerCore { node: NodeId(node), core: 0, purpose }
}

fn time(clock: MonotonicTime) -> MonotonicTime {
    MonotonicTime(clock.0 * SPEED)
}

impl Links {
    /// Of a process that starts.
    pub fn new(node: u64, directory: DirectoryId, incarnation: u64, mut chance: Random) -> Links {
        let identity = Identity {
            cluster: CLUSTER,
            epoch: 1,
            node: NodeId(node),
            directory,
            start: incarnation,
            process: chance.bits(),
            level: ASKER_LEVEL,
            address: address(directory, incarnation),
        };
        let peers = Peers::new(identity, 0, chance.bits());
        Links { node, incarnation, peers, open: BTreeMap::new(), nonces: chance }
    }

    fn nonce(&mut self) -> [u8; NONCE_BYTES] {
        let mut nonce = [0; NONCE_BYTES];
        nonce.chunks_exact_mut(8).for_each(|part| {
            part.copy_from_slice(&self.nonces.bits().to_le_bytes());
        });
        nonce
    }

    /// Time passes: what is known of members is read, links are dialled, silent ones are cut. Before
    /// this node knows anything it speaks to those of whom it was `told` at the beginning.
    pub fn tick(
        &mut self,
        clock: MonotonicTime,
        known: Option<&MetaState>,
        told: &[(NodeId, DirectoryId)],
        core: &mut Core,
    ) -> Arrived {
        let (now, mut arrived) = (time(clock), Arrived::default());
        let is_removed = |id: &NodeId| {
            let node = known.and_then(|known| known.nodes.get(id));
            node.is_some_and(|node| node.state == NodeState::Removed)
        };
        let nodes = known.into_iter().flat_map(|known| &known.nodes);
        let members = nodes.map(|(id, node)| (*id, node.directory)).chain(told.iter().copied());
        let own = self.node;
        for (id, directory) in members.filter(|(id, _)| id.0 != own) {
            if is_removed(&id) {
                if core.plan.flaw != Flaw::UnfencedNodes {
                    for connection in self.peers.removed(id) {
                        self.close(connection, now, core, &mut arrived);
                    }
                }
                continue;
            }
            if core.plan.flaw != Flaw::UncheckedDirectory {
                self.peers.member(id, directory);
            }
            self.peers.want(core_of(id.0, Purpose::Link));
            self.peers.want(core_of(id.0, Purpose::Bulk));
        }
        let ids: Vec<u64> = self.open.keys().copied().collect();
        for id in ids {
            let open = self.open.get_mut(&id).expect("it is listed");
            if let Err(error) = open.link.tick(now) {
                self.fail(id, &error, now, core, &mut arrived);
            }
        }
        for peer in self.peers.due(now) {
            let connection = core.dial(self.node, self.incarnation, peer.node.0);
            let nonce = self.nonce();
            let hello = self.peers.dial(peer, connection, nonce);
            let link = Link::dial(Secret::new("simulated"), hello, now);
            self.open.insert(connection, Open { link, side: 0 });
        }
        arrived
    }

    /// Somebody has dialled this node.
    pub fn accepted(&mut self, connection: u64, clock: MonotonicTime) {
        let nonce = self.nonce();
        let hello = self.peers.hello(nonce);
        let link = Link::accept(Secret::new("simulated"), hello, time(clock));
        self.open.insert(connection, Open { link, side: 1 });
    }

    /// A connection has ended.
    pub fn ended(&mut self, id: u64, clock: MonotonicTime, core: &mut Core) -> Arrived {
        let mut arrived = Arrived::default();
        self.close(id, time(clock), core, &mut arrived);
        arrived
    }

    /// Bytes have come.
    pub fn receive(
        &mut self,
        id: u64,
        bytes: &[u8],
        clock: MonotonicTime,
        core: &mut Core,
    ) -> Arrived {
        let (now, mut arrived) = (time(clock), Arrived::default());
        let Some(open) = self.open.get_mut(&id) else { return arrived };
        let (mut events, mut close) = (Vec::new(), Vec::new());
        let mut result = open.link.receive(bytes, now, &mut events);
        let mut at = 0;
        while at < events.len() {
            let link = &mut open.link;
            let from = link.peer().map_or(0, |hello| hello.identity.node.0);
            match std::mem::replace(&mut events[at], LinkEvent::Greeted) {
                LinkEvent::Greeted => {
                    let hello = link.peer().expect("it has greeted").clone();
                    self.peers.heard(hello.identity.node, now);
                    link.answer_hello(hello.to_core, self.peers.life(hello.peer()));
                }
                LinkEvent::Proven => match self.peers.judge(link, id) {
                    Ok(older) => {
                        older.iter().for_each(|_| core.count(Count::LivesReplaced));
                        close.extend(older);
                        link.admit(&mut events);
                    }
                    Err(reason) => result = Err(link.refuse(reason)),
                },
                LinkEvent::Up => {
                    core.count(Count::LinksUp);
                    if !self.peers.up(link, id) {
                        close.push(id);
                    }
                }
                LinkEvent::Item(item) => match read_item(item) {
                    Ok(payload) => arrived.payloads.push((from, payload)),
                    Err(garbage) => core.audit.fail(|| format!("an item is garbage: {garbage}")),
                },
                LinkEvent::Bulk(body) => match read_bulk(body, from, self.node) {
                    Ok(payload) => arrived.payloads.push((from, payload)),
                    Err(garbage) => core.audit.fail(|| format!("a piece is garbage: {garbage}")),
                },
            }
            at += 1;
        }
        for other in close {
            self.close(other, now, core, &mut arrived);
        }
        if let Err(error) = result {
            self.fail(id, &error, now, core, &mut arrived);
        }
        arrived
    }

    /// A link ends for a reason.
    fn fail(
        &mut self,
        id: u64,
        error: &LinkError,
        now: MonotonicTime,
        core: &mut Core,
        arrived: &mut Arrived,
    ) {
        let node = self.node;
        core.note(|| format!("n{node}: connection {id}: {error}"));
        match error {
            LinkError::Silence(_) => core.count(Count::SilentLinks),
            LinkError::SlowHandshake => core.count(Count::SlowHandshakes),
            LinkError::Refused(Refusal::Crossing) => core.count(Count::CrossingDials),
            LinkError::Refused(_) => core.count(Count::LinksRefused),
            LinkError::Frame(_) | LinkError::NotPeer | LinkError::Preface(_) => {
                core.count(Count::LinksGarbled);
            }
            LinkError::RefusedByPeer { reason, proven: true } if reason.ends_process() => {
                arrived.ended = Some(*reason);
            }
            LinkError::RefusedByPeer { .. } | LinkError::Bye(_) => {}
            other => core.audit.fail(|| format!("node {node}: a link ends: {other}")),
        }
        // Its last words go out.
        self.flush_one(id, now, core);
        self.close(id, now, core, arrived);
    }

    fn close(&mut self, id: u64, now: MonotonicTime, core: &mut Core, arrived: &mut Arrived) {
        if let Some(open) = self.open.remove(&id) {
            core.hang_up(id, open.side);
        }
        if let Some(peer) = self.peers.lost(id, now)
            && peer.purpose == Purpose::Link
        {
            arrived.lost.push(peer.node.0);
        }
    }

    /// Sends to a node; false when that is as good as lost and its group must know.
    pub fn send(&mut self, to: u64, payload: Payload) -> bool {
        let purpose = match payload {
            Payload::Raft { .. } | Payload::Transaction(_) | Payload::Node(_) => Purpose::Link,
            Payload::Piece { .. } | Payload::PieceAnswer { .. } => Purpose::Bulk,
        };
        let current = self.peers.current(core_of(to, purpose));
        let open = current.and_then(|id| self.open.get_mut(&id));
        let Some(open) = open.filter(|open| open.link.is_up()) else { return false };
        let item = match payload {
            Payload::Raft { shard, message } => Item::Raft { shard: ShardId(shard), message },
            Payload::Transaction(message) => Item::Transaction(put_message(&message).into()),
            Payload::Node(message) => Item::Node(message.encode()),
            bulk => {
                open.link.send_bulk(vec![put_bulk(bulk)]);
                return true;
            }
        };
        open.link.send(item).is_ok()
    }

    /// Who is connected, and this process.
    pub fn identities(&self) -> impl Iterator<Item = &Identity> {
        let up = self.open.values().filter(|open| open.link.is_up());
        let linked = up.filter_map(|open| open.link.peer());
        let linked = linked.filter(|hello| hello.purpose == Purpose::Link);
        linked.map(|hello| &hello.identity).chain([self.peers.me()])
    }

    /// What this process is known by, and no other.
    pub fn process(&self) -> u64 {
        self.peers.me().process
    }

    /// Is there a link to that node?
    pub fn is_linked(&self, node: u64) -> bool {
        self.peers.current(core_of(node, Purpose::Link)).is_some()
    }

    /// Everything that waits goes to the network.
    pub fn flush(&mut self, clock: MonotonicTime, core: &mut Core) {
        let ids: Vec<u64> = self.open.keys().copied().collect();
        ids.into_iter().for_each(|id| self.flush_one(id, time(clock), core));
    }

    fn flush_one(&mut self, id: u64, now: MonotonicTime, core: &mut Core) {
        let Some(open) = self.open.get_mut(&id) else { return };
        open.link.encode(now);
        if open.link.encoded_bytes() == 0 {
            return;
        }
        let mut slices: Vec<IoSlice<'_>> = Vec::new();
        open.link.slices(&mut slices, usize::MAX);
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        open.link.sent(bytes.len());
        core.write(id, open.side, bytes);
    }
}

fn read_item(item: Item) -> Result<Payload, Garbage> {
    Ok(match item {
        Item::Raft { shard, message } => Payload::Raft { shard: shard.0, message },
        Item::Transaction(bytes) => Payload::Transaction(take_message(bytes)?),
        Item::Node(bytes) => Payload::Node(NodeMessage::decode(bytes)?),
    })
}

fn put_bulk(payload: Payload) -> Bytes {
    let mut out = Vec::new();
    match payload {
        Payload::Piece { shard, piece } => {
            out.push(1);
            out.extend_from_slice(&shard.to_le_bytes());
            for number in [piece.transfer, piece.offset as u64, piece.total as u64] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            put_string(&mut out, &piece.bytes);
            let offer = Item::Raft { shard: ShardId(shard), message: *piece.message };
            out.extend_from_slice(&encode_items(&[offer]));
        }
        Payload::PieceAnswer { shard, answer } => {
            out.push(2);
            out.extend_from_slice(&shard.to_le_bytes());
            for number in [answer.transfer, answer.next_offset as u64, answer.stored.into()] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        Payload::Raft { .. } | Payload::Transaction(_) | Payload::Node(_) => {
            unreachable!("these are items")
        }
    }
    out.into()
}

fn read_bulk(body: Bytes, from: u64, to: u64) -> Result<Payload, Garbage> {
    let mut input = Reader::new(body, "a piece of a snapshot");
    let (kind, shard, transfer) = (input.u8()?, input.u16()?, input.u64()?);
    let offset = input.u64()? as usize;
    if kind == 2 {
        let answer = PieceAnswer { transfer, next_offset: offset, stored: input.u64()? != 0 };
        return Ok(Payload::PieceAnswer { shard, answer });
    }
    let (total, bytes) = (input.u64()? as usize, input.string()?.to_vec());
    let mut message = None;
    take_all(input.rest(), NodeId(from), NodeId(to), |item| {
        if let Item::Raft { message: offer, .. } = item {
            message = Some(Box::new(offer));
        }
    })?;
    let message = message.ok_or(Garbage::Short("a piece of a snapshot"))?;
    Ok(Payload::Piece { shard, piece: Piece { transfer, offset, total, bytes, message } })
}
