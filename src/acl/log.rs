//! What was denied: the entries of ACL LOG, newest first, and counts of all.

use crate::limits::ACL_LOG_TEXT_BYTES_MAX;
use std::collections::VecDeque;

/// Entries of the same kind within this time are one.
const GROUPED_MS: i64 = 60_000;

/// So many of the newest entries are looked at for one of the same kind.
const COMPARED_MAX: usize = 10;

/// What was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A command.
    Command,
    /// A key.
    Key,
    /// A channel.
    Channel,
    /// A login.
    Login,
}

impl Reason {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Reason::Command => "command",
            Reason::Key => "key",
            Reason::Channel => "channel",
            Reason::Login => "auth",
        }
    }
}

/// Where it was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// To a client.
    TopLevel,
    /// In a transaction.
    Multi,
    /// In a script.
    Script,
}

impl Place {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Place::TopLevel => "toplevel",
            Place::Multi => "multi",
            Place::Script => "lua",
        }
    }
}

/// Something that was denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub reason: Reason,
    /// Where.
    pub place: Place,
    /// The command, key or channel.
    pub object: Vec<u8>,
    /// To whom.
    pub user: Vec<u8>,
    /// The client's line of CLIENT LIST.
    pub client: String,
}

/// An entry: equal events.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Counted from 0 within the process.
    pub id: u64,
    /// How many.
    pub count: u64,
    /// The last of them.
    pub event: Event,
    /// When the first was, milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// When the last was.
    pub updated_ms: i64,
}

/// The entries that are kept.
#[derive(Debug, Default)]
pub struct AclLog {
    entries: VecDeque<Entry>,
    next_id: u64,
    /// Events since the start or CONFIG RESETSTAT: commands, keys, channels, logins.
    pub counts: [u64; 4],
}

impl AclLog {
    /// Notes an event, long texts cut; at most `count_max` entries are kept.
    pub fn note(&mut self, mut event: Event, now_ms: i64, count_max: usize) {
        event.object.truncate(ACL_LOG_TEXT_BYTES_MAX);
        event.user.truncate(ACL_LOG_TEXT_BYTES_MAX);
        self.counts[event.reason as usize] += 1;
        let same = self.entries.iter().take(COMPARED_MAX).position(|entry| {
            let old = &entry.event;
            (old.reason, old.place) == (event.reason, event.place)
                && (entry.updated_ms - now_ms).abs() <= GROUPED_MS
                && (&old.object, &old.user) == (&event.object, &event.user)
        });
        match same.and_then(|at| self.entries.remove(at)) {
            Some(mut entry) => {
                (entry.count, entry.updated_ms) = (entry.count + 1, now_ms);
                entry.event = event;
                self.entries.push_front(entry);
            }
            None => {
                let id = self.next_id;
                self.next_id += 1;
                let (created_ms, updated_ms) = (now_ms, now_ms);
                self.entries.push_front(Entry { id, count: 1, event, created_ms, updated_ms });
                self.trim(count_max);
            }
        }
    }

    /// Keeps the newest `count_max` alone.
    pub fn trim(&mut self, count_max: usize) {
        self.entries.truncate(count_max);
    }

    /// The newest `count`.
    pub fn newest(&self, count: usize) -> Vec<Entry> {
        self.entries.iter().take(count).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_events_are_one_entry() {
        let event = |object: &str| Event {
            reason: Reason::Key,
            place: Place::TopLevel,
            object: object.into(),
            user: b"u".to_vec(),
            client: String::new(),
        };
        let mut log = AclLog::default();
        log.note(event("a"), 1000, 128);
        log.note(event("b"), 2000, 128);
        log.note(event("a"), 3000, 128);
        let shown = |log: &AclLog| -> Vec<(u64, u64)> {
            log.newest(100).iter().map(|entry| (entry.id, entry.count)).collect()
        };
        assert_eq!(shown(&log), [(0, 2), (1, 1)]);
        log.note(event("a"), 3000 + GROUPED_MS + 1, 128);
        assert_eq!(shown(&log), [(2, 1), (0, 2), (1, 1)]);
        log.note(event("c"), 5000, 2);
        assert_eq!(shown(&log), [(3, 1), (2, 1)]);
        assert_eq!(log.counts, [0, 5, 0, 0]);
        log.trim(0);
        assert_eq!(shown(&log), []);
        log.note(event(&"k".repeat(ACL_LOG_TEXT_BYTES_MAX + 1)), 6000, 2);
        assert_eq!(log.newest(1)[0].event.object.len(), ACL_LOG_TEXT_BYTES_MAX);
    }
}
