//! Clients of a node that does not lead: their requests for data run on the node that does.
//!
//! The client's connection has a *session* there, which is a connection like any other but for its
//! socket: requests go to it as RESP and come back as replies, in order. What the client's own
//! session knows (database, protocol) is told in the stream. MULTI is queued here and goes at once,
//! with its EXEC. Each request is kept until it is answered. What is known to have had no effect is
//! sent again, to whoever leads then, or waits for somebody to. What may write has a stamp: when
//! the leader is lost, the next one is asked what became of it (`recall.rs`).

mod held;

pub(super) use held::WaitingRequest;

use super::scan::ReplyScanner;
use super::wire::{ClientKey, NodeMessage};
use crate::commands::options::{timeout_of, with_timeout};
use crate::commands::{Command, Run, Spread};
use crate::core::Core;
use crate::core::client::answers::Target;
use crate::core::client::connection::{Hold, Kind};
use crate::core::client::session::{Queued, Transaction};
use crate::core::commands::table;
use crate::limits::{OLD_LEADER_TICKS, RELAY_KEPT_BYTES_MAX};
use crate::resp::reply::{Protocol, Reply};
use crate::settings::values::Consistency;
use bytes::Bytes;
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use ringraft_shards::ids::{DatabaseIndex, NodeId};
use ringraft_shards::stamp::Lane;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// What a leader answers that can say for certain that a request had no effect: it is sent again.
pub(in crate::core) const AGAIN: &[u8] = b"-\x01AGAIN\r\n";

/// What it answers that cannot say for certain: what became of the request is asked for by its
/// stamp.
pub(in crate::core) const UNSURE: &[u8] = b"-\x01UNSURE\r\n";

/// What a writer is told when nobody can say what became of its request.
const UNKNOWN: &str =
    "ERR the outcome is not known: the node that leads was lost, and may have executed it";
/// What a writer is told whose reply was too long to be kept by others.
const DONE: &str =
    "ERR it was done; the reply was lost with the node that led, and is too long to be kept";
/// What a client that blocks is told then, as Redis tells it.
const UNBLOCKED: &str =
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)";

/// How a request ends whose fate is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// It changes nothing: it is sent again.
    Read,
    /// It is asked for by its stamp, if it has one.
    Write,
    /// Shards do not remember it: its client is told.
    Untold,
}

/// A request on its way to the leader.
pub(super) struct Sent {
    /// Whose reply it is; that of what keeps the session is nobody's.
    sequence: Option<u32>,
    kept: Kept,
    /// What it was known by when it was sent last: lane and number.
    pub(super) stamp: Option<(u64, u64)>,
    /// Must it be asked for before it may be sent again?
    pub(super) is_unsure: bool,
    /// Does it wait for something at the leader?
    blocks: bool,
    /// Until when, counted from the start of the process; `None` is for ever.
    deadline: Option<Duration>,
    /// Requests before its own: MULTI and what was queued. Their replies are dropped.
    skips: u32,
    /// Replies of it that have come.
    seen: u32,
    /// Has one of them said that it had no effect?
    is_again: bool,
    /// Until when it may wait for somebody to lead, milliseconds since the process started; 0
    /// before it does.
    waits_until_ms: i64,
    /// Does it run only if keys have not changed that were watched at this leader?
    is_guarded: bool,
    /// Does it have the session track, as its client does?
    tracks: bool,
    /// What CLIENT CACHING said before it, if it did.
    caching: Option<&'static [u8]>,
    /// Does it watch keys?
    watches: bool,
    /// As it was sent.
    bytes: Bytes,
}

impl Sent {
    /// One that is about to be sent for the first time.
    pub(super) fn new(sequence: Option<u32>, kept: Kept, bytes: Bytes) -> Sent {
        Sent {
            sequence,
            kept,
            stamp: None,
            is_unsure: false,
            blocks: false,
            deadline: None,
            skips: 0,
            seen: 0,
            is_again: false,
            waits_until_ms: 0,
            is_guarded: false,
            tracks: false,
            caching: None,
            watches: false,
            bytes,
        }
    }

    /// Does it wait for something?
    pub(super) fn blocks(&self) -> bool {
        self.blocks
    }

    /// The same as the last of several, which runs only if what was watched has not changed, if
    /// that is asked for.
    pub(super) fn behind(self, skips: u32, is_guarded: bool) -> Sent {
        Sent { skips, is_guarded, ..self }
    }

    /// What its client is told when nobody can say what became of it.
    fn unknown(&self) -> &'static str {
        if self.blocks { UNBLOCKED } else { UNKNOWN }
    }

    /// The same with what is left of the time that it may wait.
    fn renew_timeout(&mut self, now: Duration) {
        let Some(deadline) = self.deadline else { return };
        let requests = super::relayed::parse_all(&self.bytes);
        let [arguments] = requests.as_slice() else { return };
        let Ok(command) = crate::core::client::dispatch::find_row(arguments.borrow()) else {
            return;
        };
        let renewed = with_timeout(command, arguments.borrow(), deadline.saturating_sub(now));
        let mut bytes = Vec::new();
        put(&mut bytes, renewed.borrow().iter_from(0));
        self.bytes = bytes.into();
    }
}

/// How a command is kept.
pub(super) fn kept_of(command: &Command) -> Kept {
    match command.run {
        Run::Read(_) => Kept::Read,
        Run::Write(_) | Run::Block(_) | Run::Script(_) => Kept::Write,
        // WATCH, WAIT, SCRIPT LOAD ...: once more does not hurt.
        Run::Session | Run::Container if !command.flags.write && !command.flags.admin => Kept::Read,
        _ => Kept::Untold,
    }
}

/// A client's session with the leader.
pub struct Relay {
    pub(super) leader: NodeId,
    pub(super) key: ClientKey,
    sent: VecDeque<Sent>,
    /// Bytes of them.
    bytes: usize,
    /// Requests sent in this session, those that keep it included.
    sent_count: u32,
    /// Requests answered so far.
    answered: u64,
    /// What the session there was told.
    database: DatabaseIndex,
    protocol: Protocol,
    scanner: ReplyScanner,
    /// Replies that are not whole yet.
    partial: Vec<u8>,
    /// Are there keys under WATCH there?
    watches: bool,
    /// Does the session there tell what its replies rest on?
    tells_seen: bool,
    is_begun: bool,
    /// The request that it was sent to track; empty when it does not.
    tracking: Vec<u8>,
    /// Has that been answered?
    is_tracking: bool,
}

/// Does a command need the node that leads?
fn relays(command: &Command) -> bool {
    match command.run {
        Run::Read(_) | Run::Write(_) | Run::Block(_) | Run::Script(_) | Run::Shard => true,
        Run::Record | Run::Serve => false,
        Run::Plain(_) => false,
        Run::Session | Run::Container => {
            command.flags.for_leader || matches!(command.spread, Spread::Everywhere(_))
        }
    }
}

impl Core {
    /// Must this request of a client go to another node, or wait until one leads? Then that is
    /// done.
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
                        || connection.lost_watch
                        || !connection.session.watched.is_empty())
            }
            (_, Some(_)) => {
                let is_queued = !command.flags.unqueued && relays(command);
                return is_queued && self.is_not_queued(index, command, arguments);
            }
            _ => relays(command),
        };
        let is_tracking = (command.parent, command.name) == ("client", "tracking");
        if is_tracking && transaction.is_none() && connection.kind != Kind::Relayed {
            return self.waits_to_track(index, command, arguments);
        }
        let needs_leader = needs_leader || is_tracking && transaction.is_none();
        if (command.parent, command.name) == ("cluster", "failover")
            && transaction.is_none()
            && crate::core::commands::failover::asks_for_force(arguments.borrow()).is_ok()
            && let Some(leader) = self.shared.cluster.route()
        {
            // The one that leads is asked to make way for this one.
            let own = self.shared.cluster.own().0.to_string();
            let transfer: OwnedArguments =
                ["RAFTTRANSFER", &own].iter().map(|w| w.as_bytes()).collect();
            let row = table::find(b"rafttransfer").expect("it is a row");
            self.relay(index, leader, row, &transfer);
            return true;
        }
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
        if self.is_read_here(index, command, arguments) {
            return true;
        }
        if self.is_redirected(index, command, arguments) {
            return true;
        }
        let route = self.shared.cluster.route();
        if route.is_some_and(|leader| self.is_owed_by_another(index, leader)) {
            // What it was sent comes first.
            self.end_relay(index);
        }
        let is_full =
            self.relay_is_full(index) || self.answers.connections.at(index).waiting_count > 0;
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

    /// Ends a request of a connection here.
    fn reply_to(&mut self, index: u32, sequence: u32, write: impl FnOnce(&mut Reply<'_>)) {
        let protocol = self.answers.connections.at(index).session.protocol;
        let target = Target::Connection { index, sequence };
        self.answers.write_here(target, |out| write(&mut Reply::new(out, protocol)));
    }

    /// Has a client asked something of another node than this leader, that is not answered?
    fn is_owed_by_another(&self, index: u32, leader: NodeId) -> bool {
        let relay = self.answers.connections.at(index).relay.as_ref();
        relay.is_some_and(|relay| relay.leader != leader && !relay.sent.is_empty())
    }

    fn relay_is_full(&self, index: u32) -> bool {
        let connection = self.answers.connections.at(index);
        let Some(relay) = &connection.relay else { return false };
        relay.bytes > RELAY_KEPT_BYTES_MAX
            || self.cluster.links.as_ref().is_some_and(|links| links.is_crowded(relay.leader))
    }

    /// Sends a request to the leader.
    fn relay(
        &mut self,
        index: u32,
        leader: NodeId,
        command: &'static Command,
        arguments: &OwnedArguments,
    ) {
        let mut kept = kept_of(command);
        if self.waits_for_reads(index, kept, arguments) {
            return;
        }
        let sequence = self.expect_reply(index);
        self.show_to_monitors(index, command, arguments.borrow());
        let connection = self.answers.connections.at_mut(index);
        let caching = super::news::caching_of(connection.session.tracking.as_mut());
        connection.last_ordered = Some(sequence);
        let mut bytes = Vec::new();
        let (mut skips, mut is_guarded) = (0, false);
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
            if watched_here || connection.lost_watch || watches && other_leader {
                // They were watched at another leader: they may have changed since.
                if let Some(relay) = &mut connection.relay {
                    relay.watches = false;
                }
                self.forget_watched(index);
                return self.reply_to(index, sequence, |reply| reply.null_array());
            }
            if let Some(relay) = &mut connection.relay {
                is_guarded = std::mem::replace(&mut relay.watches, false);
            }
            (bytes, skips, kept) = take_apart(&transaction, arguments.borrow());
        } else {
            put(&mut bytes, arguments.borrow().iter_from(0));
        }
        let watches = command.name == "watch";
        let sent = Sent::new(Some(sequence), kept, bytes.into());
        let sent = Sent { skips, is_guarded, watches, caching, ..sent };
        let sent = self.with_deadline(sent, command, arguments.borrow());
        self.send_relayed_request(index, leader, sent);
    }

    /// The same with the end of its wait, if it waits.
    pub(super) fn with_deadline(
        &mut self,
        sent: Sent,
        command: &'static Command,
        arguments: Arguments<'_>,
    ) -> Sent {
        if command.wait.is_none() {
            return sent;
        }
        let timeout = timeout_of(command, arguments).ok().flatten();
        let deadline = timeout.and_then(|timeout| self.steady.read().checked_add(timeout));
        Sent { blocks: true, deadline, ..sent }
    }

    fn send_relayed_request(&mut self, index: u32, leader: NodeId, mut sent: Sent) {
        self.open_relay(index, leader);
        self.stats.relayed += 1;
        sent.stamp = self.next_stamp(index, &sent);
        let connection = self.answers.connections.at_mut(index);
        let (database, protocol) = (connection.session.database, connection.session.protocol);
        let tells_seen = connection.consistency(self.settings.consistency) == Consistency::Low;
        let relay = connection.relay.as_mut().expect("just opened");
        let mut out = Vec::new();
        if relay.protocol != protocol {
            relay.protocol = protocol;
            let number: &[u8] = if protocol == Protocol::Resp3 { b"3" } else { b"2" };
            relay.keep(&mut out, [&b"hello"[..], number].into_iter());
        }
        if relay.tells_seen != tells_seen {
            relay.tells_seen = tells_seen;
            let word: &[u8] = if tells_seen { b"readonly" } else { b"readwrite" };
            relay.keep(&mut out, [word].into_iter());
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
        relay.watches |= sent.watches;
        relay.sent_count = relay.sent_count.wrapping_add(1 + sent.skips);
        let (place, stamp) = (relay.sent_count.wrapping_sub(1), sent.stamp.unwrap_or_default());
        relay.sent.push_back(sent);
        let (client, leader) = (relay.key, relay.leader);
        self.introduce(index);
        let message = NodeMessage::Requests { client, place, stamp, bytes: out.into() };
        self.send_message(leader, &message);
    }

    /// Tells the leader of a session, before its first request.
    pub(super) fn introduce(&mut self, index: u32) {
        let connection = self.answers.connections.at_mut(index);
        let address = connection.peer.to_string().into();
        let relay = connection.relay.as_mut().expect("the caller has opened it");
        if std::mem::replace(&mut relay.is_begun, true) {
            return;
        }
        let (client, leader) = (relay.key, relay.leader);
        let (term, process) = (self.shared.cluster.route_term(), self.process());
        self.send_message(leader, &NodeMessage::Begin { client, term, process, address });
    }

    /// What a request that may write is known by from now on.
    pub(super) fn next_stamp(&mut self, index: u32, sent: &Sent) -> Option<(u64, u64)> {
        if sent.kept != Kept::Write || !self.shared.cluster.stamps() {
            return None;
        }
        let lane = match sent.blocks {
            true => Lane::WAITS | self.answers.connections.at(index).id,
            false => u64::from(self.id),
        };
        self.cluster.last_stamp += 1;
        Some((lane, self.cluster.last_stamp))
    }

    /// Has the client a session with this leader? Then it goes on; else one is begun, and what
    /// another one owed is settled.
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
            sent_count: 0,
            answered: 0,
            database: DatabaseIndex(0),
            protocol: Protocol::default(),
            scanner: ReplyScanner::default(),
            partial: Vec::new(),
            watches: false,
            tells_seen: false,
            is_begun: false,
            tracking: Vec::new(),
            is_tracking: false,
        };
        self.answers.connections.at_mut(index).relay = Some(Box::new(relay));
    }

    /// The client of a session sends nothing more: what it waits for at the leader ends.
    pub(in crate::core) fn relayed_client_ended(&mut self, index: u32) {
        let Some(relay) = &self.answers.connections.at(index).relay else { return };
        if relay.sent.iter().any(|sent| sent.blocks) {
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

    /// Every request of a session that is over finds its end. `begun`: those behind had no effect;
    /// unknown when the leader was lost.
    fn settle(&mut self, index: u32, relay: Relay, begun: Option<u64>) {
        if !relay.tracking.is_empty() {
            self.lose_track(index);
        }
        let seen = relay.sent.front().map_or(0, |sent| u64::from(sent.seen));
        let mut number = relay.answered - seen;
        self.answers.connections.at_mut(index).lost_watch |= relay.watches;
        for sent in relay.sent {
            // Of a transaction its EXEC counts.
            number += 1 + u64::from(sent.skips);
            let had_none = sent.is_again || begun.is_some_and(|begun| number > begun);
            self.take_up(index, sent, had_none);
        }
        self.ask_what_became();
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
                    let is_unsure = reply == UNSURE;
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
                    if sent.is_again || is_unsure {
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
        let is_own = relay.leader == self.shared.cluster.own();
        let is_over = is_own && relay.sent.is_empty();
        connection.relay = Some(relay);
        // Who was sent back waits for the next tick.
        let waits = connection.hold == Hold::Leader && !refused;
        let reader = (client.index, connection.id);
        self.answers.mark_dirty(client.index);
        for changed in news {
            self.tell(&[reader], changed.as_deref(), None);
        }
        let asks = again.iter().any(|sent: &Sent| !sent.is_again);
        for sent in again {
            let had_none = sent.is_again;
            self.take_up(client.index, sent, had_none);
        }
        if asks {
            self.ask_what_became();
        }
        if is_over {
            // From now on its requests are this node's own.
            self.end_relay(client.index);
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
        self.forget_question(node);
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
        if self.shared.cluster.is_elsewhere() {
            self.end_relayed_sessions();
            self.unblock_who_waits_for_others();
        }
        self.forget_asked();
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
        if !self.shared.cluster.is_elsewhere() {
            self.hold_who_asked_elsewhere();
        }
        self.release_stranded();
        self.send_waiting();
        self.turn.has_new_work = true;
    }

    /// Another node leads for a while, and the one before has not answered since: it may not for
    /// long.
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

    /// The client watches no key any more: its session with the leader does not either.
    pub(in crate::core) fn forget_relayed_watch(&mut self, index: u32) {
        let Some(relay) = &mut self.answers.connections.at_mut(index).relay else { return };
        if !std::mem::replace(&mut relay.watches, false) {
            return;
        }
        let mut out = Vec::new();
        relay.keep(&mut out, [&b"unwatch"[..]].into_iter());
        let (client, leader) = (relay.key, relay.leader);
        let place = relay.sent_count.wrapping_sub(1);
        let message = NodeMessage::Requests { client, place, stamp: (0, 0), bytes: out.into() };
        self.send_message(leader, &message);
    }
}

impl Relay {
    /// Is it this session?
    pub(super) fn is_of(&self, client: ClientKey) -> bool {
        self.key == client
    }

    /// Appends a request that keeps the session; its reply is dropped.
    fn keep<'a>(&mut self, out: &mut Vec<u8>, words: impl ExactSizeIterator<Item = &'a [u8]>) {
        put(out, words);
        self.sent_count = self.sent_count.wrapping_add(1);
        self.sent.push_back(Sent::new(None, Kept::Read, Bytes::new()));
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
            self.sent_count = self.sent_count.wrapping_add(1);
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

    /// Where the last request stands that was sent.
    pub(super) fn last_place(&self) -> u32 {
        self.sent_count.wrapping_sub(1)
    }
}

/// A transaction as it is sent: its bytes, how many requests stand before EXEC, and how it is kept.
pub(super) fn take_apart(transaction: &Transaction, exec: Arguments<'_>) -> (Vec<u8>, u32, Kept) {
    let mut bytes = Vec::new();
    put(&mut bytes, [&b"multi"[..]].into_iter());
    for queued in &transaction.queued {
        put(&mut bytes, queued.arguments.borrow().iter_from(0));
    }
    put(&mut bytes, exec.iter_from(0));
    let writes = transaction.queued.iter().any(|queued| kept_of(queued.command) != Kept::Read);
    let kept = if writes { Kept::Write } else { Kept::Read };
    (bytes, 1 + transaction.queued.len() as u32, kept)
}

pub(super) fn put<'a>(out: &mut Vec<u8>, words: impl Iterator<Item = &'a [u8]>) {
    let words: Vec<&[u8]> = words.collect();
    let mut reply = Reply::new(out, Protocol::default());
    reply.array(words.len());
    words.iter().for_each(|word| reply.bulk(word));
}
