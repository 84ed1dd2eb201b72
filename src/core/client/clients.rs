//! The clients of a core as operators see them: described, closed, held back (CLIENT LIST, KILL,
//! PAUSE).

use crate::core::client::connection::{Address, Connection, Hold};
use crate::core::commands::tracking::redirection;
use crate::core::push::{TopicKind, TrackingMode};
use crate::core::wait::waiting::End;
use crate::core::{Core, Pause};
use crate::resp::reply::Protocol;
use std::fmt::Write;
use std::os::fd::AsRawFd;

/// What a client is to the server. Others than normal ones do not exist yet; clients may ask for
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientType {
    /// Sends commands.
    Normal,
    /// Has subscribed to channels.
    PubSub,
    /// Anything else.
    Other,
}

/// Which clients are meant; what is not set does not matter.
#[derive(Clone, Debug, Default)]
pub struct ClientFilter {
    /// One of these ids.
    pub ids: Option<Vec<u64>>,
    /// The client's address.
    pub address: Option<String>,
    /// The server's address.
    pub local_address: Option<String>,
    /// Its type.
    pub client_type: Option<ClientType>,
    /// Its user's name.
    pub user: Option<Vec<u8>>,
    /// Connected for so many seconds or longer.
    pub age_seconds_min: Option<i64>,
    /// Not this one.
    pub skipped_id: Option<u64>,
}

impl ClientFilter {
    fn takes(&self, connection: &Connection, steady_ms: i64) -> bool {
        let is = |wanted: &Option<String>, real: &Address| {
            wanted.as_ref().is_none_or(|wanted| *wanted == real.to_string())
        };
        let age = (steady_ms - connection.created_ms) / 1000;
        connection.kind.is_client()
            && !connection.closed
            && self.ids.as_ref().is_none_or(|ids| ids.contains(&connection.id))
            && self.skipped_id != Some(connection.id)
            && self.client_type.is_none_or(|wanted| wanted == type_of(connection))
            && self.user.as_ref().is_none_or(|name| *name == connection.session.user.name)
            && self.age_seconds_min.is_none_or(|least| age >= least)
            && is(&self.address, &connection.peer)
            && is(&self.local_address, &connection.local)
    }
}

fn type_of(connection: &Connection) -> ClientType {
    match connection.session.subscriptions {
        None => ClientType::Normal,
        Some(_) => ClientType::PubSub,
    }
}

/// Bytes of memory that a client holds: what is read of it, what it is to read, and what it has
/// queued.
pub fn client_memory(connection: &Connection) -> usize {
    connection.memory() + connection.session.transaction.as_ref().map_or(0, |queued| queued.bytes)
}

/// One line of CLIENT LIST without its end.
pub fn client_line(connection: &Connection, steady_ms: i64) -> String {
    let session = &connection.session;
    let row = connection.last_command.or(connection.last_row);
    let queued = session.transaction.as_ref().map(|transaction| &transaction.queued);
    let queued_bytes = session.transaction.as_ref().map_or(0, |transaction| transaction.bytes);
    let mut line = String::with_capacity(320);
    let fields: &[(&str, &dyn std::fmt::Display)] = &[
        ("id", &connection.id),
        ("addr", &connection.peer),
        ("laddr", &connection.local),
        ("fd", &connection.socket.as_raw_fd()),
        ("name", &String::from_utf8_lossy(&session.names().name)),
        ("age", &((steady_ms - connection.created_ms) / 1000)),
        ("idle", &((steady_ms - connection.active_ms) / 1000)),
        ("flags", &flags(connection)),
        ("db", &session.database.0),
        ("sub", &session.subscription_count(TopicKind::Channel)),
        ("psub", &session.subscription_count(TopicKind::Pattern)),
        ("ssub", &session.subscription_count(TopicKind::ShardChannel)),
        ("multi", &queued.map_or(-1, |queued| queued.len() as i64)),
        ("qbuf", &(connection.unparsed() - connection.parser.finished())),
        ("qbuf-free", &(connection.input.capacity() - connection.input.len())),
        ("argv-mem", &connection.parser.finished()),
        ("multi-mem", &queued_bytes),
        ("rbs", &connection.replies.capacity()),
        ("rbp", &connection.replies.capacity()),
        ("obl", &connection.replies.waiting_bytes()),
        ("oll", &0),
        ("omem", &0),
        ("tot-mem", &client_memory(connection)),
        ("events", &if connection.blocked { "rw" } else { "r" }),
        ("cmd", &row.map_or("NULL".into(), |row| row.full_name())),
        ("user", &String::from_utf8_lossy(&session.user.name)),
        ("redir", &redirection(session.tracking.as_deref())),
        ("resp", &if session.protocol == Protocol::Resp3 { 3 } else { 2 }),
        ("lib-name", &String::from_utf8_lossy(&session.names().library_name)),
        ("lib-ver", &String::from_utf8_lossy(&session.names().library_version)),
    ];
    for (i, (name, value)) in fields.iter().enumerate() {
        let space = if i == 0 { "" } else { " " };
        write!(line, "{space}{name}={value}").expect("text takes all");
    }
    line
}

fn flags(connection: &Connection) -> String {
    let session = &connection.session;
    let all = [
        (matches!(connection.peer, Address::Unix(_)), 'U'),
        (session.monitor, 'O'),
        (session.reads_replicas, 'r'),
        (session.subscriptions.is_some(), 'P'),
        (session.tracking.is_some(), 't'),
        (session.tracking.as_ref().is_some_and(|t| t.is_broken), 'R'),
        (session.tracking.as_ref().is_some_and(|t| t.mode == TrackingMode::Broadcast), 'B'),
        (session.transaction.is_some(), 'x'),
        (connection.close_after_replies, 'c'),
        (connection.blocked_number.is_some(), 'b'),
        (session.no_evict, 'e'),
        (session.no_touch, 'T'),
    ];
    let set: String = all.iter().filter(|(on, _)| *on).map(|(_, flag)| flag).collect();
    if set.is_empty() { "N".into() } else { set }
}

impl Core {
    /// Id and line of each client that is meant.
    pub fn client_lines(&self, filter: &ClientFilter) -> Vec<(u64, String)> {
        let steady_ms = self.steady_ms();
        let meant = self.answers.connections.iter().filter(|(_, c)| filter.takes(c, steady_ms));
        meant.map(|(_, connection)| (connection.id, client_line(connection, steady_ms))).collect()
    }

    /// Ends the wait of a client of this core. Did it wait?
    pub fn unblock_client(&mut self, id: i64, end: End) -> bool {
        let is_meant = |c: &Connection| c.id as i64 == id && !c.closed;
        let mut connections = self.answers.connections.iter();
        let found = connections.find(|(_, c)| is_meant(c)).map(|(index, _)| index);
        drop(connections);
        match found {
            Some(index) => self.unblock(index, end),
            None => false,
        }
    }

    /// Closes the clients that are meant; the one who asks only when its reply is sent. Returns
    /// their count.
    pub fn kill_clients(&mut self, filter: &ClientFilter, asker_id: u64) -> usize {
        let steady_ms = self.steady_ms();
        let meant = self.answers.connections.iter().filter(|(_, c)| filter.takes(c, steady_ms));
        let meant: Vec<(u32, u64)> = meant.map(|(index, c)| (index, c.id)).collect();
        for &(index, id) in &meant {
            if id == asker_id {
                self.answers.connections.at_mut(index).close_after_replies = true;
            } else {
                self.send_last(index);
                self.close(index);
            }
        }
        meant.len()
    }

    /// Holds clients back. A pause under way is made longer and wider, never shorter or narrower.
    pub fn begin_pause(&mut self, pause: Pause) {
        let steady_ms = self.steady_ms();
        let before = if self.pause.until_ms > steady_ms { self.pause } else { Pause::default() };
        self.pause =
            Pause { until_ms: before.until_ms.max(pause.until_ms), all: before.all || pause.all };
        // The rest of this turn's requests is held back too.
        self.gate_closed = true;
    }

    /// Lets all clients go on.
    pub fn cancel_pause(&mut self) {
        self.pause = Pause::default();
        self.end_pause();
    }

    /// Count of clients held back by a pause.
    pub fn paused_clients(&self) -> usize {
        let connections = self.answers.connections.iter();
        connections.filter(|(_, c)| matches!(c.hold, Hold::Pause)).count()
    }
}
