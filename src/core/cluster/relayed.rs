//! Clients of other nodes, at the node that leads: each has a connection here without a socket.

use super::wire::{ClientKey, NodeMessage};
use crate::core::Core;
use crate::core::client::answers::{StampKey, Target};
use crate::core::client::connection::{Address, Connection, Hold, Kind};
use crate::core::client::session::Session;
use crate::limits::LINK_PENDING_BYTES_MAX;
use crate::resp::parse::{Bounds, Parser, Step};
use bytes::Bytes;
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use ringraft_shards::ids::NodeId;
use ringraft_shards::limits::STRING_BYTES_MAX;
use ringraft_shards::stamp::{Lane, Stamp};
use socket2::{Domain, Socket, Type};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

/// Sessions of other nodes' clients: where each is among this core's connections.
pub type Relayed = BTreeMap<(NodeId, ClientKey), u32>;

/// Whose session a connection is.
#[derive(Debug)]
pub struct Owner {
    node: NodeId,
    client: ClientKey,
    /// Random bits of the node's process.
    process: u64,
    /// The stamps of its requests that may be unanswered, by the numbers of their replies.
    stamps: VecDeque<(u32, StampKey)>,
    /// Its own lane, once it has waited for something.
    waits: Option<Lane>,
    /// Has the session ended, so that nothing is said of it any more?
    is_over: bool,
}

impl Owner {
    /// The stamp of a request.
    pub fn stamp_at(&self, sequence: u32) -> StampKey {
        let behind = |(at, _): &(u32, StampKey)| (at.wrapping_sub(sequence) as i32).cmp(&0);
        let found = self.stamps.binary_search_by(behind);
        found.map_or(StampKey::NONE, |place| self.stamps[place].1)
    }

    /// Its own lane, if it has one, when nothing of it is left.
    pub fn own_lane(&self) -> Option<Lane> {
        self.waits
    }
}

impl Core {
    /// A session of another node's client begins.
    pub(super) fn session_begins(
        &mut self,
        node: NodeId,
        client: ClientKey,
        process: u64,
        term: u64,
        address: &[u8],
    ) {
        let begun = match self.leads_in(term) {
            true => self.begin_session(node, client, process, address),
            false => return self.send_message(node, &NodeMessage::End { client, begun: 0 }),
        };
        if let Err(error) = begun {
            tracing::error!("a client of node {node} cannot be served: {error}");
            self.send_message(node, &NodeMessage::End { client, begun: 0 });
        }
    }

    /// Requests of another node's client have come.
    pub(super) fn relayed_requests(
        &mut self,
        node: NodeId,
        client: ClientKey,
        place: u32,
        (lane, sequence): (u64, u64),
        bytes: &[u8],
    ) {
        // Else the session was ended here, and the other node is being told.
        let Some(&index) = self.cluster.relayed.get(&(node, client)) else { return };
        let connection = self.answers.connections.at_mut(index);
        let owner = connection.owner.as_mut().expect("it is a session");
        while owner.stamps.front().is_some_and(|(at, _)| connection.replies.is_written(*at)) {
            owner.stamps.pop_front();
        }
        if sequence != 0 {
            let lane = Lane { node, process: owner.process, number: lane };
            let Some(key) = self.shared.lanes.key(Stamp { lane, sequence }) else {
                tracing::error!("too many clients wait for something at once");
                return self.close(index);
            };
            owner.stamps.push_back((place, key));
            if lane.is_of_waiting() {
                owner.waits = Some(lane);
            }
        }
        connection.active_ms = self.turn.steady_ms;
        connection.received_bytes += bytes.len() as u64;
        connection.input.extend_from_slice(bytes);
        self.go_on(index);
    }

    fn begin_session(
        &mut self,
        node: NodeId,
        client: ClientKey,
        process: u64,
        address: &[u8],
    ) -> std::io::Result<()> {
        let id = self.shared.next_connection_id.fetch_add(1, Relaxed);
        // Nothing is ever received from it or sent to it.
        let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
        let mut session = Session::new(self.users.default_user().clone());
        // Its own node has asked what it may do.
        (session.authenticated, session.is_limited) = (true, false);
        let now_ms = self.turn.steady_ms;
        let mut connection = Connection::new(id, socket, Kind::Relayed, now_ms, session);
        let address = String::from_utf8_lossy(address);
        connection.peer = address.parse::<SocketAddr>().map_or(Address::Unknown, Address::from);
        let stamps = VecDeque::new();
        let owner = Owner { node, client, process, stamps, waits: None, is_over: false };
        connection.owner = Some(Box::new(owner));
        self.shared.connection_count.fetch_add(1, Relaxed);
        let index = self.answers.connections.insert(Box::new(connection));
        self.cluster.relayed.insert((node, client), index);
        Ok(())
    }

    /// The stamp of the request that is answered there, if another node has sent it on and it may
    /// write.
    pub(in crate::core) fn stamp_of(&self, target: Target) -> StampKey {
        match self.asker_of(target) {
            Some((index, sequence)) => self.answers.connections.at(index).stamp_at(sequence),
            None => StampKey::NONE,
        }
    }

    /// Was the request that is answered there sent on by another node?
    pub(in crate::core) fn is_of_session(&self, target: Target) -> bool {
        let asker = self.asker_of(target);
        asker.is_some_and(|(index, _)| self.answers.connections.at(index).owner.is_some())
    }

    fn asker_of(&self, target: Target) -> Option<(u32, u32)> {
        match target {
            Target::Connection { index, sequence } => Some((index, sequence)),
            Target::Block(number) => match self.answers.blocks.target(number)? {
                Target::Connection { index, sequence } => Some((index, sequence)),
                _ => None,
            },
            Target::Gather { .. } | Target::Nobody => None,
        }
    }

    /// Is a request that another node asks about under way here?
    pub(super) fn is_under_way(&self, node: NodeId, asked: &BTreeSet<Stamp>) -> bool {
        let sessions = self.answers.connections.iter();
        let mut owned = sessions.filter_map(|(_, c)| Some((&c.replies, c.owner.as_ref()?)));
        owned.any(|(replies, owner)| {
            let open = owner.stamps.iter().filter(|(at, _)| !replies.is_written(*at));
            let mut stamps = open.filter_map(|(_, key)| self.shared.lanes.stamp(*key));
            owner.node == node && stamps.any(|stamp| asked.contains(&stamp))
        })
    }

    /// This node leads no more. What its sessions have begun is answered, and then they end;
    /// nothing that they have not begun is ever begun here: it may be done elsewhere meanwhile.
    pub(super) fn end_relayed_sessions(&mut self) {
        let all: Vec<u32> = self.cluster.relayed.values().copied().collect();
        for index in all {
            let connection = self.answers.connections.at_mut(index);
            if connection.hold != Hold::None || connection.session.transaction.is_some() {
                self.close(index);
                continue;
            }
            connection.input_start = connection.input.len();
            connection.close_after_replies = true;
            self.turn.consumed.push(index);
            self.answers.mark_dirty(index);
        }
        self.turn.has_new_work = true;
    }

    /// Sends what a session has answered, as far as the link has room. False when some is left.
    pub(in crate::core) fn send_replies_back(&mut self, index: u32) -> bool {
        let connection = self.answers.connections.at(index);
        let owner = connection.owner.as_ref().filter(|owner| !owner.is_over);
        if let Some((node, client)) = owner.map(|owner| (owner.node, owner.client))
            && !connection.replies.unsent().is_empty()
        {
            self.tell_seen(index, node, client);
        }
        loop {
            let connection = self.answers.connections.at_mut(index);
            let owner = connection.owner.as_ref().filter(|owner| !owner.is_over);
            let Some((node, client)) = owner.map(|owner| (owner.node, owner.client)) else {
                return true;
            };
            let unsent = connection.replies.unsent();
            if unsent.is_empty() {
                return true;
            }
            let links = self.cluster.links.as_ref();
            if links.is_none_or(|links| links.is_crowded(node)) {
                self.cluster.crowded.insert((node, index));
                return false;
            }
            let count = unsent.len().min(LINK_PENDING_BYTES_MAX);
            let bytes = Bytes::copy_from_slice(&unsent[..count]);
            connection.replies.sent(count);
            self.send_message(node, &NodeMessage::Replies { client, bytes });
        }
    }

    /// Sends the replies for which links have room again, in the next turn.
    #[cold]
    pub(super) fn send_crowded(&mut self) {
        let Some(links) = &self.cluster.links else { return };
        let has_room = |(node, _): &(NodeId, u32)| !links.is_crowded(*node);
        for (_, index) in self.cluster.crowded.extract_if(.., has_room) {
            if self.answers.connections.get(index).is_some() {
                self.answers.mark_dirty(index);
            }
        }
    }

    /// Another node's client sends nothing more.
    pub(super) fn relayed_input_ended(&mut self, node: NodeId, client: ClientKey) {
        if let Some(index) = self.cluster.relayed.get(&(node, client)) {
            self.input_ended(*index);
        }
    }

    /// Another node's client has gone, or that node has found another leader. False when it is no
    /// session here.
    pub(super) fn ends_relayed(&mut self, node: NodeId, client: ClientKey) -> bool {
        let Some(index) = self.cluster.relayed.remove(&(node, client)) else { return false };
        if let Some(owner) = &mut self.answers.connections.at_mut(index).owner {
            owner.is_over = true;
        }
        self.close(index);
        true
    }

    /// A node is not reached any more: its clients' sessions are over.
    pub(super) fn end_relayed_of(&mut self, node: NodeId) {
        let of_it: Vec<ClientKey> = self
            .cluster
            .relayed
            .keys()
            .filter(|(owner, _)| *owner == node)
            .map(|(_, client)| *client)
            .collect();
        for client in of_it {
            self.ends_relayed(node, client);
        }
    }

    /// A session is closed here: the other node is told how far it came.
    pub(in crate::core) fn session_closed(&mut self, index: u32) {
        let connection = self.answers.connections.at_mut(index);
        let begun = connection.request_count;
        let owner = connection.owner.as_mut().filter(|owner| !owner.is_over);
        if let Some(owner) = owner {
            owner.is_over = true;
            let (node, client) = (owner.node, owner.client);
            self.cluster.relayed.remove(&(node, client));
            self.send_message(node, &NodeMessage::End { client, begun });
        }
    }

    /// Nothing refers to a connection any more.
    pub(in crate::core) fn connection_freed(&mut self, connection: &Connection) {
        let lane = match &connection.owner {
            Some(owner) => owner.own_lane(),
            None => {
                let own = self.shared.cluster.own();
                let again = connection.again.as_ref();
                again.and_then(|again| again.own_lane(connection.id, own, self.process()))
            }
        };
        if let Some(lane) = lane {
            self.shared.lanes.release(lane);
        }
    }
}

/// Whole requests, as RESP.
pub(super) fn parse_all(bytes: &[u8]) -> Vec<OwnedArguments> {
    let bounds = Bounds { bulk_bytes_max: STRING_BYTES_MAX, unauthenticated: false };
    let (mut parser, mut requests, mut position) = (Parser::default(), Vec::new(), 0);
    let mut spans = Vec::new();
    while position < bytes.len() {
        spans.clear();
        match parser.next(bytes, position, bounds, &mut spans) {
            Ok(Step::Request(end)) => {
                requests.push(OwnedArguments::copy(Arguments::new(bytes, &spans)));
                position = end;
            }
            _ => break,
        }
    }
    requests
}
