//! Clients of a node that does not lead: their requests for data run on the node that does.
//!
//! The client's connection has a *session* there, which is a connection like any other but for its socket: requests go to it
//! as RESP and come back as replies, in order. What the client's own session knows (database, protocol) is told in the
//! stream. MULTI is queued here and goes at once, with its EXEC. Each request is kept until it is answered: what is known to
//! have had no effect is sent again, to whoever leads then, or waits for somebody to.

use super::scan::ReplyScanner;
use super::wire::{ClientKey, NodeMessage};
use crate::commands::{Command, Run, Spread};
use crate::core::Core;
use crate::core::client::answers::Target;
use crate::core::client::connection::{Hold, Kind};
use crate::core::client::session::Queued;
use crate::core::shard::Caller;
use crate::core::transact::participate::Parked;
use crate::limits::{HELD_FOR_LEADER_MS, OLD_LEADER_TICKS, RELAY_KEPT_BYTES_MAX};
use crate::refusal::Refusal;
use crate::resp::reply::{Protocol, Reply};
use crate::settings::values::Routing;
use bytes::Bytes;
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use ringraft_shards::ids::{DatabaseIndex, NodeId};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What a leader answers that can say for certain that a request had no effect: it is sent again.
pub(in crate::core) const AGAIN: &[u8] = b"-\x01AGAIN\r\n";

/// What a writer is told when nobody can say what became of its request.
const UNKNOWN: &str =
    "ERR the outcome is not known: the node that leads was lost, and may have executed it";
/// What a client that blocks is told then, as Redis tells it.
const UNBLOCKED: &str =
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)";
/// What is told when nobody leads for long.
pub(super) const NO_LEADER: &str = "ERR leader not known";

/// How a request ends whose fate is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// It changes nothing: it is sent again.
    Read,
    /// Its client is told.
    Write,
    /// It waits for something: its client is told that it does no more.
    Blocks,
}

/// A request on its way to the leader.
pub(super) struct Sent {
    /// Whose reply it is; that of what keeps the session is nobody's.
    sequence: Option<u32>,
    kept: Kept,
    /// Requests before its own: MULTI and what was queued. Their replies are dropped.
    skips: u32,
    /// Replies of it that have come.
    seen: u32,
    /// Has one of them said that it is to be sent again?
    is_again: bool,
    /// Until when it may wait for somebody to lead, milliseconds since the process started; 0 before it does.
    waits_until_ms: i64,
    /// Does it run only if keys have not changed that were watched at this leader?
    is_guarded: bool,
    /// Does it have the session track, as its client does?
    tracks: bool,
    /// What CLIENT CACHING said before it, if it did.
    caching: Option<&'static [u8]>,
    /// As it was sent.
    bytes: Bytes,
}

impl Sent {
    /// One that is about to be sent for the first time.
    fn new(sequence: Option<u32>, kept: Kept, bytes: Bytes) -> Sent {
        Sent {
            sequence,
            kept,
            skips: 0,
            seen: 0,
            is_again: false,
            waits_until_ms: 0,
            is_guarded: false,
            tracks: false,
            caching: None,
            bytes,
        }
    }
}

/// A client's session with the leader.
pub struct Relay {
    pub(super) leader: NodeId,
    pub(super) key: ClientKey,
    sent: VecDeque<Sent>,
    /// Bytes of them.
    bytes: usize,
    /// Requests answered so far in this session, those that keep it included.
    answered: u64,
    /// What the session there was told.
    database: DatabaseIndex,
    protocol: Protocol,
    scanner: ReplyScanner,
    /// Replies that are not whole yet.
    partial: Vec<u8>,
    /// Are there keys under WATCH there?
    watches: bool,
    is_begun: bool,
    /// The request that it was sent to track; empty when it does not.
    tracking: Vec<u8>,
    /// Has that been answered?
    is_tracking: bool,
}

/// Does a command need the node that leads?
fn relays(command: &Command) -> bool {
    match command.run {
        Run::Read(_) | Run::Write(_) | Run::Block(_) | Run::Script(_) | Run::Shard(_) => true,
        Run::Record | Run::Serve => false,
        Run::Plain(_) => false,
        Run::Session(_) | Run::Container(_) => {
            command.flags.for_leader || matches!(command.spread, Spread::Everywhere(_))
        }
    }
}

impl Core {
    /// Must this request of a client go to another node, or wait until one leads? Then that is done.
    #[cold]
    pub(in crate::core) fn is_relayed(
        &mut self,
        index: u32,
        command: &'static Command,
        arguments: &OwnedArguments,
    ) -> bool {
        let connection = self.answers.connections.at(index);
        let transaction = connection.session.transaction.as_deref();
        let needs_leader = match (command.name, transaction) {
            ("exec", Some(transaction)) => {
                let relays = |queued: &Queued| relays(queued.command);
                !transaction.refused
                    && (transaction.queued.iter().any(relays)
                        || connection.relay.as_ref().is_some_and(|relay| relay.watches)
                        || !connection.session.watched.is_empty())
            }
            (_, Some(_)) => false,
            _ => relays(command),
        };
        let is_tracking = (command.parent, command.name) == ("client", "tracking");
        if is_tracking && transaction.is_none() && connection.kind != Kind::Relayed {
            return self.waits_to_track(index, command, arguments);
        }
        let needs_leader = needs_leader || is_tracking && transaction.is_none();
        if !needs_leader {
            if matches!(command.name, "discard" | "unwatch" | "reset") {
                self.forget_relayed_watch(index);
            }
            return false;
        }
        if connection.kind == Kind::Relayed {
            // One hop is enough: whoever sent it finds the leader.
            self.send_back(index);
            return true;
        }
        let route = self.shared.cluster.route();
        if self.settings.routing == Routing::Try {
            self.redirect(index, route, arguments.borrow());
            return true;
        }
        let is_full = self.relay_is_full(index);
        match route {
            Some(leader) if !is_full => self.relay(index, leader, command, arguments),
            _ => self.wait_for_leader(index, arguments),
        }
        true
    }

    /// Tells whoever has sent a request on that it had no effect.
    #[cold]
    pub(in crate::core) fn send_back(&mut self, index: u32) {
        self.answers.connections.at_mut(index).session.transaction = None;
        let sequence = self.expect_reply(index);
        let target = Target::Connection { index, sequence };
        self.answers.write_here(target, |out| out.extend_from_slice(AGAIN));
    }

    /// Answers with the address of the leader, as kvnode and RedRaft do.
    fn redirect(&mut self, index: u32, leader: Option<NodeId>, arguments: Arguments<'_>) {
        let sequence = self.expect_reply(index);
        let target = Target::Connection { index, sequence };
        let address = leader.and_then(|leader| self.shared.cluster.address(leader));
        let text = address.map_or(NO_LEADER.to_string(), |address| format!("TRY {address}"));
        self.refuse(index, target, &Refusal::Text(text.into()), arguments);
    }

    /// Ends a request of a connection here.
    fn reply_to(&mut self, index: u32, sequence: u32, write: impl FnOnce(&mut Reply<'_>)) {
        let protocol = self.answers.connections.at(index).session.protocol;
        let target = Target::Connection { index, sequence };
        self.answers.write_here(target, |out| write(&mut Reply::new(out, protocol)));
    }

    fn relay_is_full(&self, index: u32) -> bool {
        let connection = self.answers.connections.at(index);
        let Some(relay) = &connection.relay else { return false };
        relay.bytes > RELAY_KEPT_BYTES_MAX
            || self.cluster.links.as_ref().is_some_and(|links| links.is_crowded(relay.leader))
    }

    /// Does a connection that waited for a leader have to go on waiting?
    pub(in crate::core) fn still_waits(&self, index: u32) -> bool {
        self.shared.cluster.route().is_none() || self.relay_is_full(index)
    }

    pub(super) fn wait_for_leader(&mut self, index: u32, arguments: &OwnedArguments) {
        let until_ms = self.turn.steady_ms + HELD_FOR_LEADER_MS;
        self.hold_back(index, arguments);
        let connection = self.answers.connections.at_mut(index);
        connection.hold = Hold::Leader;
        connection.held_until_ms = until_ms;
    }

    /// Sends a request to the leader.
    fn relay(
        &mut self,
        index: u32,
        leader: NodeId,
        command: &'static Command,
        arguments: &OwnedArguments,
    ) {
        let sequence = self.expect_reply(index);
        self.show_to_monitors(index, command, arguments.borrow());
        let connection = self.answers.connections.at_mut(index);
        let caching = super::news::caching_of(connection.session.tracking.as_mut());
        let mut bytes = Vec::new();
        let (mut skips, mut is_guarded) = (0, false);
        let mut kept = match command.run {
            _ if command.wait.is_some() => Kept::Blocks,
            Run::Read(_) => Kept::Read,
            _ => Kept::Write,
        };
        if command.name == "exec" {
            let transaction = connection.session.transaction.take().expect("the caller looked");
            for queued in &transaction.queued {
                self.show_to_monitors(index, queued.command, queued.arguments.borrow());
            }
            self.show_exec(index);
            let connection = self.answers.connections.at_mut(index);
            let watched_here = !connection.session.watched.is_empty();
            let watches = connection.relay.as_ref().is_some_and(|relay| relay.watches);
            let other_leader = connection.relay.as_ref().is_some_and(|r| r.leader != leader);
            if watched_here || watches && other_leader {
                // They were watched at another leader: they may have changed since.
                if let Some(relay) = &mut connection.relay {
                    relay.watches = false;
                }
                self.forget_watched(index);
                return self.reply_to(index, sequence, |reply| reply.null_array());
            }
            put(&mut bytes, [&b"multi"[..]].into_iter());
            skips = 1 + transaction.queued.len() as u32;
            for queued in &transaction.queued {
                put(&mut bytes, queued.arguments.borrow().iter_from(0));
            }
            if let Some(relay) = &mut connection.relay {
                is_guarded = std::mem::replace(&mut relay.watches, false);
            }
            kept = Kept::Write;
        }
        put(&mut bytes, arguments.borrow().iter_from(0));
        let sent =
            Sent { skips, is_guarded, caching, ..Sent::new(Some(sequence), kept, bytes.into()) };
        self.send_relayed_request(index, leader, sent);
        if command.name == "watch"
            && let Some(relay) = &mut self.answers.connections.at_mut(index).relay
        {
            relay.watches = true;
        }
    }

    fn send_relayed_request(&mut self, index: u32, leader: NodeId, sent: Sent) {
        self.open_relay(index, leader);
        let connection = self.answers.connections.at_mut(index);
        let (database, protocol) = (connection.session.database, connection.session.protocol);
        let address = connection.peer.to_string();
        let relay = connection.relay.as_mut().expect("just opened");
        let mut out = Vec::new();
        if relay.protocol != protocol {
            relay.protocol = protocol;
            let number: &[u8] = if protocol == Protocol::Resp3 { b"3" } else { b"2" };
            relay.keep(&mut out, [&b"hello"[..], number].into_iter());
        }
        if relay.database != database {
            relay.database = database;
            let number = database.0.to_string();
            relay.keep(&mut out, [&b"select"[..], number.as_bytes()].into_iter());
        }
        let tracking = connection.session.tracking.as_deref();
        if tracking.is_some() || !relay.tracking.is_empty() {
            relay.track(&mut out, super::news::request_of(tracking));
        }
        if let Some(word) = sent.caching {
            relay.keep(&mut out, [&b"client"[..], b"caching", word].into_iter());
        }
        out.extend_from_slice(&sent.bytes);
        relay.bytes += sent.bytes.len();
        relay.sent.push_back(sent);
        let address = relay.introduction(address);
        let (client, leader) = (relay.key, relay.leader);
        let message = NodeMessage::Requests { client, address: address.into(), bytes: out.into() };
        self.send_message(leader, &message);
    }

    /// Has the client a session with this leader? Then it goes on; else one is begun, and what another one owed is settled.
    pub(super) fn open_relay(&mut self, index: u32, leader: NodeId) {
        let connection = self.answers.connections.at(index);
        if connection.relay.as_ref().is_some_and(|relay| relay.leader == leader) {
            return;
        }
        self.end_relay(index);
        let session = self.shared.next_connection_id.fetch_add(1, Relaxed);
        let key = ClientKey { core: self.id, index, session };
        let relay = Relay {
            leader,
            key,
            sent: VecDeque::new(),
            bytes: 0,
            answered: 0,
            database: DatabaseIndex(0),
            protocol: Protocol::default(),
            scanner: ReplyScanner::default(),
            partial: Vec::new(),
            watches: false,
            is_begun: false,
            tracking: Vec::new(),
            is_tracking: false,
        };
        self.answers.connections.at_mut(index).relay = Some(Box::new(relay));
    }

    /// The client of a session sends nothing more: what it waits for at the leader ends.
    pub(in crate::core) fn relayed_client_ended(&mut self, index: u32) {
        let Some(relay) = &self.answers.connections.at(index).relay else { return };
        if relay.sent.iter().any(|sent| sent.kept == Kept::Blocks) {
            let (client, leader) = (relay.key, relay.leader);
            self.send_message(leader, &NodeMessage::Ended { client });
        }
    }

    /// Ends a client's session with a leader, if it has one: it closes, or another node leads.
    pub(in crate::core) fn end_relay(&mut self, index: u32) {
        let Some(relay) = self.answers.connections.at_mut(index).relay.take() else { return };
        if relay.is_begun {
            let message = NodeMessage::End { client: relay.key, begun: 0 };
            self.send_message(relay.leader, &message);
        }
        self.settle(index, *relay, None);
    }

    /// Every request of a session that is over finds its end. `begun`: those behind had no effect; unknown when the leader
    /// was lost.
    fn settle(&mut self, index: u32, relay: Relay, begun: Option<u64>) {
        if !relay.tracking.is_empty() {
            self.lose_track(index);
        }
        let seen = relay.sent.front().map_or(0, |sent| u64::from(sent.seen));
        let mut number = relay.answered - seen;
        let is_closed = self.answers.connections.at(index).closed;
        let mut again = Vec::new();
        for sent in relay.sent {
            // Of a transaction its EXEC counts.
            number += 1 + u64::from(sent.skips);
            let Some(sequence) = sent.sequence else { continue };
            let had_none = sent.is_again || begun.is_some_and(|begun| number > begun);
            if is_closed {
                self.reply_to(index, sequence, |_| {});
            } else if had_none || sent.kept == Kept::Read {
                again.push(sent);
            } else {
                let text = if sent.kept == Kept::Blocks { UNBLOCKED } else { UNKNOWN };
                self.reply_to(index, sequence, |reply| reply.error(text));
            }
        }
        for sent in again {
            self.send_later(index, sent);
        }
    }

    /// A request that had no effect is sent to whoever leads now, or waits.
    fn send_again(&mut self, index: u32, mut sent: Sent) {
        (sent.seen, sent.is_again) = (0, false);
        let Some(sequence) = sent.sequence else { return };
        if self.answers.connections.at(index).closed {
            // Nobody waits for it any more.
            return self.reply_to(index, sequence, |_| {});
        }
        if sent.is_guarded {
            // What was watched there is not watched any more: it may have changed.
            return self.reply_to(index, sequence, |reply| reply.null_array());
        }
        match self.shared.cluster.route() {
            Some(leader) if leader == self.shared.cluster.own() => self.run_kept(index, sent),
            Some(leader) => self.send_relayed_request(index, leader, sent),
            None => self.send_later(index, sent),
        }
    }

    /// A request waits until another node leads, or for the next tick: whoever has sent it back may take it then.
    fn send_later(&mut self, index: u32, sent: Sent) {
        let until_ms = match sent.waits_until_ms {
            0 => self.turn.steady_ms + HELD_FOR_LEADER_MS,
            until_ms => until_ms,
        };
        self.cluster.waiting.push_back((
            index,
            until_ms,
            Sent { waits_until_ms: until_ms, ..sent },
        ));
    }

    /// Requests of this node's clients had no effect here: they go to the node that leads.
    #[cold]
    pub(in crate::core) fn send_back_all(&mut self, local: usize) {
        for parked in std::mem::take(&mut self.shards[local].sent_back) {
            let core = parked.caller().origin.core;
            self.tell_core(core, move |core| core.take_back(parked));
        }
    }

    /// Requests wait here for a shard that another node leads by now.
    fn release_stranded(&mut self) {
        let own = self.shared.cluster.own();
        if self.shared.cluster.route().is_none_or(|leader| leader == own) {
            return;
        }
        for local in 0..self.shards.len() {
            let shard = &mut self.shards[local];
            if shard.serves() {
                continue;
            }
            for parked in std::mem::take(&mut shard.held) {
                let origin = parked.caller().origin;
                match origin.target {
                    Target::Connection { .. } if origin.is_relayed => {
                        self.answers.write(origin, |out| out.extend_from_slice(AGAIN));
                    }
                    // What a command has made of itself: the command is given again, by who gave it.
                    Target::Connection { .. } if parked.caller().command.flags.internal => {
                        self.answers.write(origin, |out| {
                            Reply::new(out, origin.protocol).error(NO_LEADER);
                        });
                    }
                    Target::Connection { .. } => shard.sent_back.push(parked),
                    _ => shard.held.push_back(parked),
                }
            }
            self.send_back_all(local);
        }
    }

    /// A request of a client here had no effect: it is sent again.
    fn take_back(&mut self, parked: Parked) {
        let (Caller { command, origin }, request) = (parked.caller(), parked.request());
        let Target::Connection { index, sequence } = origin.target else { return };
        let Some(connection) = self.answers.connections.get(index) else { return };
        if connection.closed {
            return self.reply_to(index, sequence, |_| {});
        }
        if request.database != connection.session.database {
            // Its client has chosen another database since, and could not tell where the reply belongs.
            let text = "TRYAGAIN the node that leads has changed";
            return self.reply_to(index, sequence, |reply| reply.error(text));
        }
        let mut bytes = Vec::new();
        put(&mut bytes, request.arguments.iter_from(0));
        let kept = if command.run.writes() { Kept::Write } else { Kept::Read };
        self.send_later(index, Sent::new(Some(sequence), kept, bytes.into()));
    }

    /// This node leads now: a request that it had passed on runs here.
    fn run_kept(&mut self, index: u32, sent: Sent) {
        let Some(sequence) = sent.sequence else { return };
        let target = Target::Connection { index, sequence };
        let requests = super::relayed::parse_all(&sent.bytes);
        let single = match requests.as_slice() {
            [only] if sent.skips == 0 => {
                crate::core::client::dispatch::find_row(only.borrow()).ok()
            }
            _ => None,
        };
        match (single, requests.into_iter().next()) {
            (Some(command), Some(arguments)) => self.start(index, target, command, arguments),
            _ => {
                let text = "TRYAGAIN the node that leads has changed while this waited";
                self.reply_to(index, sequence, |reply| reply.error(text));
            }
        }
    }

    /// Replies have come.
    pub(super) fn relay_replied(&mut self, client: ClientKey, bytes: &[u8]) {
        let Some(connection) = self.answers.connections.get_mut(client.index) else { return };
        let Some(mut relay) = connection.relay.take_if(|relay| relay.key == client) else { return };
        relay.partial.extend_from_slice(bytes);
        let mut at = 0;
        let (mut again, mut news, mut refused) = (Vec::new(), Vec::new(), false);
        loop {
            match relay.scanner.end(&relay.partial[at..]) {
                Ok(Some(length)) => {
                    let reply = &relay.partial[at..at + length];
                    at += length;
                    if let Some(changed) = super::news::read_news(reply) {
                        news.push(changed);
                        continue;
                    }
                    if reply.first() == Some(&b'>') {
                        let message: Arc<[u8]> = reply.into();
                        connection.replies.push_message(&message);
                        continue;
                    }
                    relay.answered += 1;
                    let Some(sent) = relay.sent.front_mut() else { break };
                    sent.seen += 1;
                    sent.is_again |= reply == AGAIN;
                    if sent.seen <= sent.skips {
                        continue;
                    }
                    let sent = relay.sent.pop_front().expect("just seen");
                    relay.bytes -= sent.bytes.len();
                    if sent.tracks {
                        // It counts only if it is the last one that was sent.
                        let is_last = !relay.sent.iter().any(|later| later.tracks);
                        relay.is_tracking = is_last && !sent.is_again;
                        refused |= sent.is_again;
                        if sent.is_again {
                            relay.tracking.clear();
                        }
                    }
                    let Some(sequence) = sent.sequence else { continue };
                    if sent.is_again {
                        again.push(sent);
                    } else {
                        connection.replies.write(sequence, |out| out.extend_from_slice(reply));
                    }
                }
                Ok(None) => break,
                Err(_) => {
                    tracing::error!("node {} has sent what is no reply", relay.leader);
                    relay.partial.clear();
                    at = 0;
                    break;
                }
            }
        }
        relay.partial.drain(..at);
        connection.relay = Some(relay);
        // Who was sent back waits for the next tick.
        let waits = connection.hold == Hold::Leader && !refused;
        let reader = (client.index, connection.id);
        self.answers.mark_dirty(client.index);
        for changed in news {
            self.tell(&[reader], changed.as_deref(), None);
        }
        for sent in again {
            self.send_later(client.index, sent);
        }
        if waits {
            self.go_on(client.index);
        }
    }

    /// The leader has ended a session.
    pub(super) fn relay_ended(&mut self, client: ClientKey, begun: Option<u64>) {
        let Some(connection) = self.answers.connections.get_mut(client.index) else { return };
        if let Some(relay) = connection.relay.take_if(|relay| relay.key == client) {
            self.settle(client.index, *relay, begun);
        }
    }

    /// A node is not reached any more: sessions with it are over.
    pub(super) fn relays_broke(&mut self, node: NodeId) {
        let of_it = |relay: &Relay| relay.leader == node;
        let connections = self.answers.connections.iter();
        let broken: Vec<u32> = connections
            .filter(|(_, connection)| connection.relay.as_deref().is_some_and(of_it))
            .map(|(index, _)| index)
            .collect();
        for index in broken {
            let relay = self.answers.connections.at_mut(index).relay.take();
            self.settle(index, *relay.expect("just seen"), None);
        }
    }

    /// Another node leads, or this one: who waits goes on.
    pub(in crate::core) fn route_changed(&mut self) {
        self.lose_all_track();
        let connections = self.answers.connections.iter();
        let waiting: Vec<u32> = connections
            .filter(|(_, connection)| connection.hold == Hold::Leader)
            .map(|(index, _)| index)
            .collect();
        waiting.into_iter().for_each(|index| self.go_on(index));
        if self.shared.cluster.route().is_none() {
            return;
        }
        self.cluster.route_changed_at = self.cluster.ticks;
        self.release_stranded();
        for (index, _, sent) in std::mem::take(&mut self.cluster.waiting) {
            if self.answers.connections.get(index).is_some() {
                self.send_again(index, sent);
            }
        }
        self.turn.has_new_work = true;
    }

    /// Another node leads for a while, and the one before has not answered since: it may not for long.
    fn leave_old_leaders(&mut self) {
        let Some(leader) = self.shared.cluster.route() else { return };
        if self.cluster.ticks != self.cluster.route_changed_at + OLD_LEADER_TICKS {
            return;
        }
        let connections = self.answers.connections.iter();
        let left: Vec<u32> = connections
            .filter(|(_, c)| c.relay.as_ref().is_some_and(|relay| relay.leader != leader))
            .filter(|(_, c)| c.relay.as_ref().is_some_and(|relay| !relay.watches))
            .map(|(index, _)| index)
            .collect();
        left.into_iter().for_each(|index| self.end_relay(index));
    }

    /// Who has waited for a leader for too long is told.
    pub(super) fn tend_held(&mut self) {
        self.leave_old_leaders();
        self.tend_trackers();
        let steady_ms = self.turn.steady_ms;
        let has_leader = self.shared.cluster.route().is_some();
        for (index, until_ms, sent) in std::mem::take(&mut self.cluster.waiting) {
            if self.answers.connections.get(index).is_none() {
                continue;
            }
            let Some(sequence) = sent.sequence else { continue };
            if until_ms > steady_ms && has_leader {
                self.send_again(index, sent);
            } else if until_ms > steady_ms {
                self.cluster.waiting.push_back((index, until_ms, sent));
            } else {
                self.reply_to(index, sequence, |reply| reply.error(NO_LEADER));
            }
        }
        let connections = self.answers.connections.iter();
        let waiting: Vec<(u32, bool)> = connections
            .filter(|(_, c)| c.hold == Hold::Leader)
            .map(|(index, c)| (index, c.held_until_ms <= steady_ms))
            .collect();
        for (index, is_late) in waiting {
            if !is_late || !self.still_waits(index) {
                // There may be room by now.
                self.go_on(index);
                continue;
            }
            let sequence = self.expect_reply(index);
            let connection = self.answers.connections.at_mut(index);
            connection.hold = Hold::None;
            connection.held_back.clear();
            self.reply_to(index, sequence, |reply| reply.error(NO_LEADER));
            self.go_on(index);
        }
    }

    /// The client watches no key any more: its session with the leader does not either.
    pub(in crate::core) fn forget_relayed_watch(&mut self, index: u32) {
        let Some(relay) = &mut self.answers.connections.at_mut(index).relay else { return };
        if !std::mem::replace(&mut relay.watches, false) {
            return;
        }
        let mut out = Vec::new();
        relay.keep(&mut out, [&b"unwatch"[..]].into_iter());
        let (client, leader) = (relay.key, relay.leader);
        let message = NodeMessage::Requests { client, address: Bytes::new(), bytes: out.into() };
        self.send_message(leader, &message);
    }
}

impl Relay {
    /// Appends a request that keeps the session; its reply is dropped.
    fn keep<'a>(&mut self, out: &mut Vec<u8>, words: impl ExactSizeIterator<Item = &'a [u8]>) {
        put(out, words);
        self.sent.push_back(Sent::new(None, Kept::Write, Bytes::new()));
    }

    /// Appends what has the session track as `request` says, if it does not yet.
    pub(super) fn track(&mut self, out: &mut Vec<u8>, request: Vec<u8>) {
        if self.tracking == request {
            return;
        }
        if !self.tracking.is_empty() {
            self.keep(out, [&b"client"[..], b"tracking", b"off"].into_iter());
        }
        if !request.is_empty() {
            out.extend_from_slice(&request);
            self.sent.push_back(Sent { tracks: true, ..Sent::new(None, Kept::Read, Bytes::new()) });
        }
        (self.tracking, self.is_tracking) = (request, false);
    }

    /// Has the session said that it tracks so?
    pub(super) fn is_tracking(&self, request: &[u8]) -> bool {
        self.is_tracking && self.tracking == request
    }

    /// Is everything answered?
    pub(super) fn is_settled(&self) -> bool {
        self.sent.is_empty()
    }

    /// What the leader is told of the client with the first request.
    pub(super) fn introduction(&mut self, address: String) -> String {
        if std::mem::replace(&mut self.is_begun, true) { String::new() } else { address }
    }
}

pub(super) fn put<'a>(out: &mut Vec<u8>, words: impl Iterator<Item = &'a [u8]>) {
    let words: Vec<&[u8]> = words.collect();
    let mut reply = Reply::new(out, Protocol::default());
    reply.array(words.len());
    words.iter().for_each(|word| reply.bulk(word));
}

/// A request that waits for somebody to lead: whose, until when, and itself.
pub(super) type WaitingRequest = (u32, i64, Sent);
