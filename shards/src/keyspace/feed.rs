//! The feed of changes: which keys an operation has changed, and the events that its server makes
//! of them.
//!
//! Changes are noted at the one place where watched keys are told too ([`super::watch`]), while
//! somebody listens; nobody pays for a feed that is off. The server turns them into named events
//! behind each operation, because only it knows what the command was; they wait here until the
//! entry is applied.

use super::{Key, Keyspace};
use crate::ids::DatabaseIndex;
use std::cell::{Cell, RefCell};

/// What has become of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Its item, or its deadline, was set, changed or removed.
    Changed,
    /// It has an item, and had none.
    Created,
    /// Its item was past its deadline and is gone.
    Expired,
    /// All keys of the database are gone, or others. There is no key.
    Flushed,
    /// A stream has lost its first entries, while something else was done to it.
    Trimmed,
    /// A stream has a new consumer, while something else was done to it.
    Consumer,
}

/// Who wants to hear of changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listening {
    /// Those who subscribe to events.
    pub for_events: bool,
    /// Those who keep copies.
    pub for_caches: bool,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The database.
    pub database: DatabaseIndex,
    /// The key.
    pub key: Box<[u8]>,
    /// What has become of it.
    pub what: What,
}

/// A change with the name that clients know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEvent {
    /// The database.
    pub database: DatabaseIndex,
    /// The key.
    pub key: Box<[u8]>,
    /// Bits of its class, whatever the server means by them.
    pub class: u16,
    /// Its name.
    pub name: &'static str,
    /// The core and the number of the connection that did it, if it is known.
    pub writer: Option<(u16, u32)>,
}

/// What is noted while somebody listens.
#[derive(Debug, Default)]
pub(super) struct Feed {
    pub(super) listens: bool,
    for_caches: bool,
    /// Events whose writer is noted.
    signed: usize,
    changes: Vec<Change>,
    events: Vec<KeyEvent>,
    listens_to_misses: Cell<bool>,
    misses: RefCell<Vec<(DatabaseIndex, Box<[u8]>)>>,
}

impl Feed {
    pub(super) fn note(&mut self, database: DatabaseIndex, key: &[u8], what: What) {
        if self.listens {
            self.changes.push(Change { database, key: key.into(), what });
        }
    }

    /// All keys of a database are about to go.
    pub(super) fn note_flush(&mut self, database: DatabaseIndex) {
        let is_known = self.changes.last().is_some_and(|last| last.what == What::Flushed);
        if self.for_caches && !is_known {
            self.changes.push(Change { database, key: Box::default(), what: What::Flushed });
        }
    }

    pub(super) fn is_for_caches(&self) -> bool {
        self.for_caches
    }

    pub(super) fn note_miss(&self, database: DatabaseIndex, key: &Key<'_>) {
        if self.listens_to_misses.get() {
            self.misses.borrow_mut().push((database, key.bytes().into()));
        }
    }

    #[inline(always)]
    pub(super) fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    pub(super) fn push(&mut self, event: KeyEvent) {
        self.events.push(event);
    }
}

impl Keyspace {
    /// Notes changes from now on, or no longer; and keys that reads do not find.
    pub fn listen(&mut self, listening: Listening, to_misses: bool) {
        self.watches.listen(listening.for_events || listening.for_caches);
        self.watches.feed_mut().for_caches = listening.for_caches;
        self.feed().listens_to_misses.set(to_misses);
    }

    /// Forgets what was noted: nobody is to be told.
    pub fn forget_events(&mut self) {
        let feed = self.watches.feed_mut();
        feed.changes.clear();
        feed.events.clear();
        feed.signed = 0;
    }

    /// How many events there are.
    pub fn event_count(&self) -> usize {
        self.feed().events.len()
    }

    /// Forgets the events behind the first `count`: what they tell of was undone.
    pub fn forget_events_behind(&mut self, count: usize) {
        let feed = self.watches.feed_mut();
        feed.changes.clear();
        feed.events.truncate(count);
        feed.signed = feed.signed.min(count);
    }

    /// Notes events of changes that were made without being noted.
    pub fn add_events(&mut self, events: Vec<KeyEvent>) {
        self.watches.feed_mut().events.extend(events);
    }

    /// Are there events?
    #[inline(always)]
    pub fn has_events(&self) -> bool {
        !self.feed().events.is_empty()
    }

    /// The events since the last call, in the order of the changes.
    pub fn take_events(&mut self) -> Vec<KeyEvent> {
        let feed = self.watches.feed_mut();
        feed.signed = 0;
        std::mem::take(&mut feed.events)
    }

    /// Notes who has made the events since the last call.
    pub fn sign_events(&mut self, writer: Option<(u16, u32)>) {
        let feed = self.watches.feed_mut();
        feed.events[feed.signed..].iter_mut().for_each(|event| event.writer = writer);
        feed.signed = feed.events.len();
    }

    /// Have reads missed keys?
    pub fn has_misses(&self) -> bool {
        !self.feed().misses.borrow().is_empty()
    }

    /// The keys that reads have not found since the last call.
    pub fn take_misses(&self) -> Vec<(DatabaseIndex, Box<[u8]>)> {
        self.feed().misses.take()
    }

    pub(super) fn feed(&self) -> &Feed {
        self.watches.feed()
    }
}
