//! Clients of other nodes, at the node that leads: each has a connection here without a socket.

use super::wire::{ClientKey, NodeMessage};
use crate::core::Core;
use crate::core::client::connection::{Address, Connection, Kind};
use crate::core::client::session::Session;
use crate::limits::LINK_PENDING_BYTES_MAX;
use crate::resp::parse::{Bounds, Parser, Step};
use bytes::Bytes;
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use ringraft_shards::ids::NodeId;
use ringraft_shards::limits::STRING_BYTES_MAX;
use socket2::{Domain, Socket, Type};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

/// Sessions of other nodes' clients: where each is among this core's connections.
pub type Relayed = BTreeMap<(NodeId, ClientKey), u32>;

/// Whose session a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    node: NodeId,
    client: ClientKey,
}

impl Core {
    /// Requests of another node's client have come.
    pub(super) fn relayed_requests(
        &mut self,
        node: NodeId,
        client: ClientKey,
        address: &[u8],
        bytes: &[u8],
    ) {
        let index = match self.cluster.relayed.get(&(node, client)) {
            Some(index) => *index,
            // The session was ended here, and the other node is being told.
            None if address.is_empty() => return,
            None => match self.begin_session(node, client, address) {
                Ok(index) => index,
                Err(error) => {
                    tracing::error!("a client of node {node} cannot be served: {error}");
                    return self.send_message(node, &NodeMessage::End { client, begun: 0 });
                }
            },
        };
        let connection = self.answers.connections.at_mut(index);
        connection.active_ms = self.turn.steady_ms;
        connection.received_bytes += bytes.len() as u64;
        connection.input.extend_from_slice(bytes);
        self.go_on(index);
    }

    fn begin_session(
        &mut self,
        node: NodeId,
        client: ClientKey,
        address: &[u8],
    ) -> std::io::Result<u32> {
        let id = self.shared.next_connection_id.fetch_add(1, Relaxed);
        // Nothing is ever received from it or sent to it.
        let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
        let mut session = Session::new(self.users.default_user().clone());
        // Its own node has asked what it may do.
        (session.authenticated, session.is_limited) = (true, false);
        let now_ms = self.turn.steady_ms;
        let mut connection = Connection::new(id, socket, Kind::Relayed, now_ms, session);
        let address = String::from_utf8_lossy(address);
        connection.peer = address.parse().map_or(Address::Unknown, Address::Internet);
        connection.owner = Some(Owner { node, client });
        self.shared.connection_count.fetch_add(1, Relaxed);
        let index = self.answers.connections.insert(Box::new(connection));
        self.cluster.relayed.insert((node, client), index);
        Ok(index)
    }

    /// Sends what a session has answered, as far as the link has room. False when some is left.
    pub(in crate::core) fn send_replies_back(&mut self, index: u32) -> bool {
        loop {
            let connection = self.answers.connections.at_mut(index);
            let Some(Owner { node, client }) = connection.owner else { return true };
            let unsent = connection.replies.unsent();
            if unsent.is_empty() {
                return true;
            }
            let links = self.cluster.links.as_ref();
            if links.is_none_or(|links| links.is_crowded(node)) {
                // The next turn tries again.
                self.answers.mark_dirty(index);
                self.turn.has_new_work = true;
                return false;
            }
            let count = unsent.len().min(LINK_PENDING_BYTES_MAX);
            let bytes = Bytes::copy_from_slice(&unsent[..count]);
            connection.replies.sent(count);
            self.send_message(node, &NodeMessage::Replies { client, bytes });
        }
    }

    /// Another node's client sends nothing more.
    pub(super) fn relayed_input_ended(&mut self, node: NodeId, client: ClientKey) {
        if let Some(index) = self.cluster.relayed.get(&(node, client)) {
            self.input_ended(*index);
        }
    }

    /// Another node's client has gone, or that node has found another leader. False when it is no session here.
    pub(super) fn ends_relayed(&mut self, node: NodeId, client: ClientKey) -> bool {
        let Some(index) = self.cluster.relayed.remove(&(node, client)) else { return false };
        self.answers.connections.at_mut(index).owner = None;
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
        if let Some(Owner { node, client }) = connection.owner.take() {
            self.cluster.relayed.remove(&(node, client));
            self.send_message(node, &NodeMessage::End { client, begun });
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
