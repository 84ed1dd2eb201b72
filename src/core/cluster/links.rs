//! Connections to other nodes, on the core that has them: dialled and accepted, proven, fed,
//! flushed, cut.
//!
//! What a link is, and which of several stays, is the engine's (`ringraft_shards::peer`); here are
//! sockets and time. A turn takes what has come before it drives the shards, and sends what they
//! have to say at its end: one send per link.

mod sockets;

use crate::core::Core;
use crate::core::client::answers::Target;
use crate::core::client::connection::{Connection, Kind};
use crate::core::client::session::Session;
use crate::core::cluster::wire::{NodeMessage, TransferMessage, put_transfer, take_transfer};
use crate::core::push::TopicKind;
use crate::limits::LINK_PENDING_BYTES_MAX;
use crate::net::tls::session::Session as TlsSession;
use bytes::Bytes;
use ringraft_shards::ids::{MonotonicTime, NodeId, ShardId};
use ringraft_shards::meta::NodeState;
use ringraft_shards::peer::{
    Identity, Item, Link, LinkError, LinkEvent, NONCE_BYTES, PeerCore, Peers, Purpose, Refusal,
    Secret,
};
use ringraft_shards::raft::PeerMessage;
use ringraft_shards::snapshot::TransferId;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

/// Facts about a link, for people.
#[derive(Clone, Debug)]
pub struct LinkFacts {
    /// The other node.
    pub node: NodeId,
    /// Is it up?
    pub is_up: bool,
    /// Did this node dial?
    pub dialled: bool,
    /// When it was made, milliseconds since the process started.
    pub since_ms: i64,
    /// Bytes that wait to be sent.
    pub waiting_bytes: usize,
}

/// One connection.
struct Open {
    link: Link,
    /// The connection's number for [`Peers`].
    number: u64,
    dialled: bool,
    since_ms: i64,
}

/// The links of a node.
pub struct Links {
    peers: Peers,
    secret: Secret,
    /// By their place among the core's connections.
    open: BTreeMap<u32, Open>,
    /// Their places, by number.
    places: BTreeMap<u64, u32>,
    /// What found no room in a link.
    pending: BTreeMap<NodeId, (VecDeque<Item>, usize)>,
    /// Who says that it leads all shards, in which term of the meta group.
    serving: BTreeMap<NodeId, (u64, bool)>,
    /// What this node has said of that.
    told: Option<(u64, bool)>,
    /// Removed by the others: this process ends.
    pub(super) ended: Option<Refusal>,
}

/// Does a link take another message of the process? Appends that its peer does not answer are not
/// in the way.
fn has_room(link: &Link, item: &Item) -> bool {
    let waiting = link.others_waiting_bytes();
    waiting == 0 || waiting + item.bytes() <= LINK_PENDING_BYTES_MAX
}

fn core_of(node: NodeId, purpose: Purpose) -> PeerCore {
    PeerCore { node, core: 0, purpose }
}

fn nonce() -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).expect("the kernel has random numbers once it has booted");
    nonce
}

impl Links {
    /// Of a process that others know by `identity`.
    pub fn new(identity: Identity, secret: Secret, seed: u64) -> Links {
        Links {
            peers: Peers::new(identity, 0, seed),
            secret,
            open: BTreeMap::new(),
            places: BTreeMap::new(),
            pending: BTreeMap::new(),
            serving: BTreeMap::new(),
            told: None,
            ended: None,
        }
    }

    /// Who this process is.
    pub fn identity(&self) -> &Identity {
        self.peers.me()
    }

    /// The address that a node has named itself, at its last connection.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (NodeId, &str)> {
        let up = self.open.values().filter(|open| open.link.is_up());
        up.filter_map(|open| {
            let identity = &open.link.peer()?.identity;
            Some((identity.node, identity.address.as_str()))
        })
    }

    fn current(&mut self, node: NodeId, purpose: Purpose) -> Option<&mut Open> {
        let number = self.peers.current(core_of(node, purpose))?;
        let place = self.places.get(&number)?;
        self.open.get_mut(place).filter(|open| open.link.is_up())
    }

    /// Is there a link to a node?
    pub(super) fn is_linked(&self, node: NodeId) -> bool {
        let number = self.peers.current(core_of(node, Purpose::Link));
        let open = number.and_then(|number| self.open.get(self.places.get(&number)?));
        open.is_some_and(|open| open.link.is_up())
    }

    /// Queues an item; false when there is no link, or no room for what may be lost.
    fn queue(&mut self, node: NodeId, item: Item) -> bool {
        let must_go = matches!(item, Item::Node(_));
        if must_go && self.pending.get(&node).is_some_and(|(items, _)| !items.is_empty()) {
            return self.keep(node, item);
        }
        let Some(open) = self.current(node, Purpose::Link) else { return false };
        // What the link gives back is gone: what must go is only given to it while there is room.
        if must_go && !has_room(&open.link, &item) {
            return self.keep(node, item);
        }
        open.link.send(item).is_ok()
    }

    fn keep(&mut self, node: NodeId, item: Item) -> bool {
        let (items, bytes) = self.pending.entry(node).or_default();
        *bytes += item.bytes();
        items.push_back(item);
        true
    }

    /// Hands on what waited for room.
    fn send_pending(&mut self) {
        let nodes: Vec<NodeId> = self.pending.keys().copied().collect();
        for node in nodes {
            let (mut items, mut bytes) = self.pending.remove(&node).expect("it is listed");
            if let Some(open) = self.current(node, Purpose::Link) {
                while items.front().is_some_and(|item| has_room(&open.link, item)) {
                    let item = items.pop_front().expect("just seen");
                    bytes -= item.bytes();
                    let is_taken = open.link.send(item).is_ok();
                    assert!(is_taken, "there is room in a link with so little in it");
                }
            }
            if !items.is_empty() {
                self.pending.insert(node, (items, bytes));
            }
        }
    }

    /// Does more wait for a node than clients should add to?
    pub(super) fn is_crowded(&self, node: NodeId) -> bool {
        self.pending.get(&node).is_some_and(|(_, bytes)| *bytes > LINK_PENDING_BYTES_MAX)
    }

    /// Nodes that are connected, and this one.
    pub(super) fn identities(&self) -> impl Iterator<Item = &Identity> {
        let up = self.open.values().filter(|open| open.link.is_up());
        up.filter_map(|open| Some(&open.link.peer()?.identity)).chain([self.identity()])
    }

    /// The node that says that it leads all shards: of several the one of the latest term.
    pub(super) fn leader(&self) -> Option<(u64, NodeId)> {
        let leads =
            self.serving.iter().filter(|(node, (_, serves))| *serves && self.is_linked(**node));
        leads.map(|(node, (term, _))| (*term, *node)).max()
    }

    fn facts(&self) -> Vec<LinkFacts> {
        let links = self.open.values().filter_map(|open| {
            let peer = open.link.peer()?;
            (peer.purpose == Purpose::Link).then(|| LinkFacts {
                node: peer.identity.node,
                is_up: open.link.is_up(),
                dialled: open.dialled,
                since_ms: open.since_ms,
                waiting_bytes: open.link.waiting_bytes(),
            })
        });
        links.collect()
    }
}

impl Core {
    fn link_time(&mut self) -> MonotonicTime {
        MonotonicTime(self.steady.read().as_micros() as u64)
    }

    /// Sends to a node, from any core. What is lost on the way is Raft's to make up for; a message
    /// of the process is kept while there is a link.
    pub(in crate::core) fn send_to_node(&mut self, node: NodeId, item: Item) {
        if self.cluster.links.is_none() {
            self.cluster.outgoing.push((node, item));
            return;
        }
        let lost = match &item {
            Item::Raft { shard, message } => Some((*shard, message.to())),
            _ => None,
        };
        let links = self.cluster.links.as_mut().expect("just seen");
        if !links.queue(node, item)
            && let Some((shard, to)) = lost
        {
            self.tell_group(shard, move |group| group.unreachable(to));
        }
    }

    pub(super) fn send_message(&mut self, node: NodeId, message: &NodeMessage) {
        if node == self.shared.cluster.own() {
            return self.tell_own(message.clone());
        }
        self.send_to_node(node, Item::Node(message.encode()));
    }

    /// A message of this node to itself: a client's request was to go to another node, and this one
    /// leads by now.
    #[cold]
    fn tell_own(&mut self, message: NodeMessage) {
        let core = self.shared.cluster.link_core();
        self.tell_core(core, move |core| {
            core.cluster.loopback.push_back(message);
            core.turn.has_new_work = true;
        });
    }

    /// Takes what this node has told itself.
    pub(in crate::core) fn take_own_messages(&mut self) {
        let own = self.shared.cluster.own();
        for message in std::mem::take(&mut self.cluster.loopback) {
            self.take_node_message(own, message);
        }
    }

    /// Has this node told the others that it leads, in this term?
    pub(super) fn leads_in(&self, term: u64) -> bool {
        let links = self.cluster.links.as_ref();
        links.is_some_and(|links| links.told == Some((term, true)))
    }

    /// A message for subscribers at other nodes.
    #[cold]
    pub(in crate::core) fn publish_elsewhere(
        &mut self,
        kind: TopicKind,
        channel: &[u8],
        message: &[u8],
    ) {
        let message = NodeMessage::Publish {
            is_shard: kind == TopicKind::ShardChannel,
            channel: Bytes::copy_from_slice(channel),
            message: Bytes::copy_from_slice(message),
        };
        let bytes = message.encode();
        let shared = self.shared.clone();
        for link in shared.cluster.links().iter().filter(|link| link.is_up) {
            self.send_to_node(link.node, Item::Node(bytes.clone()));
        }
    }

    /// Sends a step of a snapshot's way; it is lost when there is no connection for that.
    pub(super) fn send_transfer(
        &mut self,
        node: NodeId,
        shard: ShardId,
        id: TransferId,
        message: TransferMessage,
    ) {
        if self.cluster.links.is_none() {
            let core = self.shared.cluster.link_core();
            return self.tell_core(core, move |core| core.send_transfer(node, shard, id, message));
        }
        let links = self.cluster.links.as_mut().expect("just seen");
        if let Some(open) = links.current(node, Purpose::Bulk) {
            open.link.send_bulk(put_transfer(shard, id, &message));
        }
    }

    /// Tells the group of a shard something, wherever it lives.
    fn tell_group(
        &mut self,
        shard: ShardId,
        task: impl FnOnce(&mut ringraft_shards::raft::Group) + Send + 'static,
    ) {
        self.tell_shard(shard, move |core, local| {
            core.turn.has_new_work = true;
            task(&mut core.shards[local].group);
        });
    }

    /// Somebody begins a connection as nodes do: it goes to the core that has the links.
    #[cold]
    pub(in crate::core) fn peer_has_dialled(&mut self, index: u32) {
        let core = self.shared.cluster.link_core();
        let connection = self.answers.connections.at_mut(index);
        connection.kind = Kind::Peer;
        // It is no client.
        self.shared.connection_count.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        if core == self.id {
            self.accept_peer(index);
        } else {
            self.move_connection(index, core);
        }
    }

    /// A connection of another node is on the core that has the links.
    pub(in crate::core) fn accept_peer(&mut self, index: u32) {
        let now = self.link_time();
        self.begin_links();
        let is_local = self.answers.connections.at(index).peer.is_local();
        let connection = self.answers.connections.at_mut(index);
        let bytes = connection.input.split_off(connection.input_start);
        connection.input.clear();
        connection.input_start = 0;
        let number = connection.id;
        let is_certified = connection.tls.as_ref().is_some_and(|session| session.is_certified());
        if self.settings.tls.cluster && !is_certified {
            tracing::warn!(
                "a node has dialled without a certificate, and tls-cluster is yes: it is refused; give it tls-cluster yes, too"
            );
            return self.close(index);
        }
        let Some(links) = &mut self.cluster.links else {
            tracing::warn!("a node has dialled, and this server runs in cache mode: it is refused");
            return self.close(index);
        };
        if !links.secret.is_some() && !is_local {
            tracing::warn!(
                "a node of another machine has dialled, and there is no --cluster-secret: it is refused"
            );
            return self.close(index);
        }
        let link = Link::accept(links.secret.clone(), links.peers.hello(nonce()), now);
        let since_ms = self.turn.steady_ms;
        links.open.insert(index, Open { link, number, dialled: false, since_ms });
        links.places.insert(number, index);
        if !bytes.is_empty() {
            self.peer_received(index, &Bytes::from(bytes));
        }
    }

    /// Bytes of another node have come.
    pub(in crate::core) fn peer_received(&mut self, index: u32, bytes: &[u8]) {
        let now = self.link_time();
        let Some(links) = &mut self.cluster.links else { return };
        let Some(open) = links.open.get_mut(&index) else { return };
        let (mut events, mut close) = (Vec::new(), Vec::new());
        let mut result = open.link.receive(bytes, now, &mut events);
        let mut at = 0;
        let mut arrived = Vec::new();
        let mut came_up = None;
        while at < events.len() {
            let link = &mut open.link;
            let number = open.number;
            match std::mem::replace(&mut events[at], LinkEvent::Greeted) {
                LinkEvent::Greeted => {
                    let hello = link.peer().expect("it has greeted").clone();
                    links.peers.heard(hello.identity.node, now);
                    link.answer_hello(0, links.peers.life(hello.peer()));
                }
                LinkEvent::Proven => match links.peers.judge(link, number) {
                    Ok(older) => {
                        tracing::debug!(?older, "connection {number} is admitted");
                        close.extend(older);
                        link.admit(&mut events);
                    }
                    Err(reason) => result = Err(link.refuse(reason)),
                },
                LinkEvent::Up => {
                    tracing::debug!(life = link.life(), side = ?link.side(), "connection {number} is up");
                    if links.peers.up(link, number) {
                        let hello = link.peer().expect("it is up");
                        if hello.purpose == Purpose::Link {
                            came_up = Some(hello.identity.node);
                        }
                    } else {
                        close.push(number);
                    }
                }
                LinkEvent::Item(item) => arrived.push(Ok(item)),
                LinkEvent::Bulk(body) => arrived.push(Err(body)),
            }
            at += 1;
        }
        let from = open.link.peer().map(|hello| hello.identity.node);
        for number in close {
            self.end_link(number);
        }
        if let Some(node) = came_up {
            self.link_is_up(node);
        }
        for what in arrived {
            let from = from.expect("the link is up");
            match what {
                Ok(item) => self.take_item(from, item),
                Err(body) => self.take_bulk(from, body),
            }
        }
        match result {
            Err(error) => self.link_failed(index, &error),
            Ok(()) => self.flush_link(index),
        }
    }

    fn link_is_up(&mut self, node: NodeId) {
        tracing::info!("node {node} is connected");
        // Of a link before nobody may have said that it has ended.
        self.end_relayed_of(node);
        self.everywhere(move |core| core.relays_broke(node));
        let told = self.cluster.links.as_ref().and_then(|links| links.told);
        if let Some((term, serves)) = told {
            self.send_message(node, &NodeMessage::Serves { term, serves });
        }
        self.tell_condition(node);
        self.update_route();
    }

    fn take_item(&mut self, from: NodeId, item: Item) {
        match item {
            Item::Raft { shard, message } => self.step_group(shard, message),
            Item::Node(bytes) => match NodeMessage::decode(bytes) {
                Ok(message) => self.take_node_message(from, message),
                Err(garbage) => tracing::error!("node {from} has sent garbage: {garbage}"),
            },
            Item::Transaction(_) => {
                tracing::error!("node {from} has sent a step of a transaction over nodes");
            }
        }
    }

    /// A message of Raft for a shard of this node.
    fn step_group(&mut self, shard: ShardId, message: PeerMessage) {
        match self.router.local(shard) {
            Some(local) => self.step_local(local, message),
            None if self.router.knows(shard) => {
                self.tell_shard(shard, move |core, local| core.step_local(local, message));
            }
            // The meta group is founded by others, and this node is told of it first.
            None => {}
        }
    }

    fn step_local(&mut self, local: usize, message: PeerMessage) {
        self.turn.has_new_work = true;
        let shard = &mut self.shards[local];
        if let Some(offered) = message.snapshot()
            && !shard.has_snapshot(&offered.point)
        {
            // It came without its file: the leader offers another one.
            return;
        }
        if let Err(error) = shard.group.step(message) {
            tracing::debug!(shard = shard.server.id.0, "a message of Raft is not taken: {error}");
        }
    }

    fn take_node_message(&mut self, from: NodeId, message: NodeMessage) {
        match message {
            NodeMessage::Serves { term, serves } => {
                let links = self.cluster.links.as_mut().expect("it came over a link");
                links.serving.insert(from, (term, serves));
                self.update_route();
            }
            NodeMessage::Begin { client, term, process, address } => {
                self.session_begins(from, client, process, term, &address);
            }
            NodeMessage::Requests { client, place, stamp, bytes } => {
                self.relayed_requests(from, client, place, stamp, &bytes);
            }
            NodeMessage::Recall { question, term, process, asked } => {
                self.recall(from, question, term, process, asked);
            }
            NodeMessage::Recalled { question, known } => {
                self.tell_known_core(question.core, move |core| {
                    core.recalled(question.number, known);
                });
            }
            NodeMessage::Replies { client, bytes } => {
                let core = client.core;
                self.tell_known_core(core, move |core| core.relay_replied(client, &bytes));
            }
            NodeMessage::Ended { client } => self.relayed_input_ended(from, client),
            NodeMessage::End { client, begun } => match self.ends_relayed(from, client) {
                true => {}
                false => {
                    let core = client.core;
                    self.tell_known_core(core, move |core| core.relay_ended(client, Some(begun)));
                }
            },
            NodeMessage::Condition { wall_ms, log_write_p99_us, unfit, hears } => {
                self.heard_condition(from, wall_ms, log_write_p99_us, unfit, hears);
            }
            NodeMessage::Lost { shard, asker } => self.replica_is_lost(from, shard, asker),
            NodeMessage::Renewed { shard, asker, generation } if self.router.knows(shard) => {
                self.replica_is_named(shard, asker, generation);
            }
            NodeMessage::Renewed { .. } => {}
            NodeMessage::Ask { shard, number } if self.router.knows(shard) => {
                self.tell_shard(shard, move |core, local| core.asked(local, from, number));
            }
            NodeMessage::Certain { shard, number, certainty } if self.router.knows(shard) => {
                self.tell_shard(shard, move |core, local| core.told(local, number, certainty));
            }
            NodeMessage::Ask { shard, .. } | NodeMessage::Certain { shard, .. } => {
                tracing::error!("node {from} speaks of a shard {} that is not there", shard.0);
            }
            NodeMessage::Seen { client, news } => {
                let core = client.core;
                self.tell_known_core(core, move |core| core.has_seen(client, &news));
            }
            NodeMessage::Publish { is_shard, channel, message } => {
                let kind = if is_shard { TopicKind::ShardChannel } else { TopicKind::Channel };
                self.publish_here(Target::Nobody, kind, &channel, &message);
            }
        }
    }

    fn tell_known_core(&mut self, core: u16, task: impl FnOnce(&mut Core) + Send + 'static) {
        if usize::from(core) < self.core_count() {
            self.tell_core(core, task);
        }
    }

    fn take_bulk(&mut self, from: NodeId, body: Bytes) {
        match take_transfer(body) {
            Ok((shard, id, message)) if self.router.knows(shard) => {
                self.tell_shard(shard, move |core, local| {
                    core.take_transfer(local, from, id, message);
                });
            }
            Ok(_) => {}
            Err(garbage) => tracing::error!("node {from} has sent garbage: {garbage}"),
        }
    }

    /// Looks who leads all shards: this node, another one, or none. Tells the others, and lets
    /// those go on who wait.
    pub(in crate::core) fn update_route(&mut self) {
        if self.cluster.links.is_none() {
            let core = self.shared.cluster.link_core();
            if core != self.id && self.shared.cluster.is_clustered() {
                self.tell_core(core, Core::update_route);
            }
            return;
        }
        let shared = self.shared.clone();
        let view = &shared.cluster;
        let serves = view.serves_all() && !self.stop_sent;
        let term = view.group(super::META).map_or(0, |group| group.term.0);
        let links = self.cluster.links.as_mut().expect("just seen");
        let told = links.told.replace((term, serves));
        let leader = links.leader();
        let route = match (serves, leader) {
            (true, Some((other, _))) if other <= term => Some((term, view.own())),
            (true, None) => Some((term, view.own())),
            (_, leader) => leader,
        };
        view.set_route_term(route.map_or(0, |(term, _)| term));
        let route = route.map(|(_, node)| node);
        if told != Some((term, serves)) {
            for (node, _) in view.nodes() {
                if node != view.own() {
                    self.send_message(node, &NodeMessage::Serves { term, serves });
                }
            }
        }
        if self.shared.cluster.set_route(route) {
            match route {
                Some(node) if node == self.shared.cluster.own() => {
                    tracing::info!("this node leads");
                }
                Some(node) => tracing::info!("node {node} leads"),
                None => tracing::info!("no node is known to lead"),
            }
            self.everywhere(Core::route_changed);
        }
    }

    /// The other node has closed its side.
    pub(in crate::core) fn peer_ended(&mut self, index: u32) {
        let number = self.answers.connections.at(index).id;
        tracing::debug!("connection {number} was closed by the other side");
        self.end_link(number);
    }

    /// A link ends for a reason.
    fn link_failed(&mut self, index: u32, error: &LinkError) {
        let links = self.cluster.links.as_mut().expect("it was one of them");
        let open = links.open.get(&index);
        let peer = open.and_then(|open| open.link.peer().map(|hello| hello.identity.node));
        let number = open.map(|open| open.number);
        match error {
            LinkError::RefusedByPeer { reason, proven: true } if reason.ends_process() => {
                links.ended = Some(*reason);
            }
            LinkError::Refused(Refusal::Crossing | Refusal::Superseded)
            | LinkError::RefusedByPeer {
                reason: Refusal::Crossing | Refusal::Superseded, ..
            }
            | LinkError::Bye(_) => tracing::debug!("a link ends: {error}"),
            _ => match peer {
                Some(node) => tracing::warn!("the link to node {node} ends: {error}"),
                None => tracing::warn!("a link ends: {error}"),
            },
        }
        // Its last words go out.
        self.flush_link(index);
        if let Some(number) = number {
            self.end_link(number);
        }
        let ended = self.cluster.links.as_ref().and_then(|links| links.ended);
        if let Some(reason) = ended {
            self.fail(format!(
                "the cluster has no use for this node: {reason}; to join as a new one, empty its directory and start with --join"
            ));
        }
    }

    fn end_link(&mut self, number: u64) {
        tracing::debug!("connection {number} ends");
        let now = self.link_time();
        let Some(links) = &mut self.cluster.links else { return };
        if let Some(place) = links.places.remove(&number) {
            links.open.remove(&place);
            self.close_peer(place);
        }
        let links = self.cluster.links.as_mut().expect("just seen");
        let Some(peer) = links.peers.lost(number, now) else { return };
        if peer.purpose != Purpose::Link {
            return;
        }
        links.serving.remove(&peer.node);
        links.pending.remove(&peer.node);
        self.shared.cluster.fitness.forget(peer.node);
        if !self.stop_sent {
            tracing::warn!("node {} is not connected any more", peer.node);
        }
        let node = peer.node;
        self.end_relayed_of(node);
        self.update_route();
        self.everywhere(move |core| core.node_is_gone(node));
    }

    fn close_peer(&mut self, index: u32) {
        let connection = self.answers.connections.at_mut(index);
        if connection.closed {
            return;
        }
        // `close` counts it out, as it does clients.
        self.shared.connection_count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.close(index);
    }

    /// A link to a node was lost: groups are told, and clients whose requests are there.
    fn node_is_gone(&mut self, node: NodeId) {
        for shard in &mut self.shards {
            let member =
                shard.group.peers().iter().map(|peer| peer.node).find(|m| m.node() == node);
            if let Some(member) = member {
                shard.group.unreachable(member);
            }
        }
        self.turn.has_new_work = true;
        self.relays_broke(node);
        if self.shared.cluster.route().is_none_or(|leader| leader == node) {
            self.forget_asked();
        }
    }

    /// Time passes for the links: who is a member is looked up, who is missing is dialled, silent
    /// ones are cut.
    pub(super) fn tick_links(&mut self) {
        let now = self.link_time();
        let Some(state) = self.shared.cluster.state() else { return };
        let own = self.shared.cluster.own();
        let Some(links) = &mut self.cluster.links else { return };
        let mut close = Vec::new();
        for (node, facts) in state.nodes.iter().filter(|(node, _)| **node != own) {
            if facts.state == NodeState::Removed {
                close.extend(links.peers.removed(*node));
                continue;
            }
            links.peers.member(*node, facts.directory);
            links.peers.want(core_of(*node, Purpose::Link));
            links.peers.want(core_of(*node, Purpose::Bulk));
        }
        let mut failed = Vec::new();
        for (index, open) in &mut links.open {
            if let Err(error) = open.link.tick(now) {
                failed.push((*index, error));
            }
        }
        let due = links.peers.due(now);
        close.into_iter().for_each(|number| self.end_link(number));
        for (index, error) in failed {
            self.link_failed(index, &error);
        }
        if self.stop_sent {
            return;
        }
        for peer in due {
            let address = state.nodes.get(&peer.node).map(|node| node.facts.address.clone());
            self.dial(peer, &address.unwrap_or_default(), now);
        }
        let facts = self.cluster.links.as_ref().map(|links| links.facts()).unwrap_or_default();
        self.shared.cluster.note_links(facts);
    }

    fn dial(&mut self, peer: PeerCore, address: &str, now: MonotonicTime) {
        use std::sync::atomic::Ordering::Relaxed;
        let links = self.cluster.links.as_mut().expect("the caller looked");
        let number = self.shared.next_connection_id.fetch_add(1, Relaxed);
        let hello = links.peers.dial(peer, number, nonce());
        tracing::debug!(?peer, life = hello.life, "connection {number} is dialled");
        let link = Link::dial(links.secret.clone(), hello, now);
        let socket = match connect(address) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::debug!("node {} at {address} is not reached: {error}", peer.node);
                links.peers.lost(number, now);
                return;
            }
        };
        let since_ms = self.turn.steady_ms;
        let session = Session::new(self.users.default_user().clone());
        let mut connection = Connection::new(number, socket, Kind::Peer, since_ms, session);
        let config = self.shared.tls.as_ref().and_then(|front| front.client_config());
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        connection.tls = config.map(|config| Box::new(TlsSession::dial(config, host)));
        connection.blocked = true;
        let socket = connection.socket.as_raw_fd();
        let index = self.answers.connections.insert(Box::new(connection));
        self.doors.ring.poll_writable(socket, index);
        let links = self.cluster.links.as_mut().expect("just seen");
        links.open.insert(index, Open { link, number, dialled: true, since_ms });
        links.places.insert(number, index);
    }
}

/// Begins to connect. Errors: the address is none, or nothing leads there.
fn connect(address: &str) -> std::io::Result<Socket> {
    let address: SocketAddr = address
        .parse()
        .map_err(|_| std::io::Error::new(ErrorKind::InvalidInput, "it is no address and port"))?;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}
