//! Keys that transactions watch, and a version of each that grows with every change; keys that
//! commands wait for, and which of them changed.
//!
//! The same place notes changes for the feed ([`super::feed`]).
//!
//! A key past its deadline counts as absent: that it expires is a change, that an expired item is
//! deleted later is none. While nobody watches, a change costs one predictable branch.

use super::feed::{Feed, What};
use super::lend;
use super::{Key, Keyspace};
use crate::ids::DatabaseIndex;
use crate::limits::DATABASE_COUNT;
use std::collections::HashMap;

#[derive(Default)]
struct Watched {
    version: u64,
    watchers: usize,
    /// Commands that wait for it.
    awaiters: usize,
    /// Those of them that want to be told of every change.
    readers: usize,
    /// Is it among the keys that changed?
    listed: bool,
    /// The item was there and past its deadline when somebody last looked.
    expired: bool,
}

/// All watched keys.
pub(super) struct Watches {
    keys: [HashMap<Box<[u8]>, Watched>; DATABASE_COUNT],
    /// Keys watched, and one when the feed is on: while it is 0 nobody wants to know.
    count: usize,
    last_version: u64,
    feed: Feed,
    /// Awaited keys that changed.
    changed: Vec<(DatabaseIndex, Box<[u8]>)>,
    /// Keys with readers that changed since somebody looked.
    fresh: Vec<(DatabaseIndex, Box<[u8]>)>,
}

impl Default for Watches {
    fn default() -> Watches {
        Watches {
            keys: std::array::from_fn(|_| HashMap::new()),
            count: 0,
            last_version: 0,
            feed: Feed::default(),
            changed: Vec::new(),
            fresh: Vec::new(),
        }
    }
}

impl Watches {
    /// A key changed.
    #[inline(always)]
    pub(super) fn changed(&mut self, database: DatabaseIndex, key: &[u8]) {
        if self.count > 0 {
            self.bump(database, key);
        }
    }

    /// A key has an item that had none.
    #[inline(always)]
    pub(super) fn created(&mut self, database: DatabaseIndex, key: &[u8]) {
        if self.count > 0 {
            self.feed.note(database, key, What::Created);
        }
    }

    pub(super) fn listen(&mut self, on: bool) {
        let before = std::mem::replace(&mut self.feed.listens, on);
        self.count = self.count + usize::from(on) - usize::from(before);
    }

    #[inline(always)]
    pub(super) fn feed(&self) -> &Feed {
        &self.feed
    }

    #[inline(always)]
    pub(super) fn feed_mut(&mut self) -> &mut Feed {
        &mut self.feed
    }

    #[cold]
    fn bump(&mut self, database: DatabaseIndex, key: &[u8]) {
        self.feed.note(database, key, What::Changed);
        self.bump_watched(database, key);
    }

    fn bump_watched(&mut self, database: DatabaseIndex, key: &[u8]) {
        if let Some(watched) = self.keys[database.0 as usize].get_mut(key) {
            self.last_version += 1;
            watched.version = self.last_version;
            watched.expired = false;
            if watched.awaiters > 0 && !std::mem::replace(&mut watched.listed, true) {
                self.changed.push((database, key.into()));
            }
            if watched.readers > 0
                && self.fresh.last().is_none_or(|(last, name)| *last != database || **name != *key)
            {
                self.fresh.push((database, key.into()));
            }
        }
    }

    /// An item past its deadline was deleted.
    #[inline(always)]
    pub(super) fn removed_expired(&mut self, database: DatabaseIndex, key: &[u8]) {
        if self.count > 0 {
            self.note_expired(database, key);
        }
    }

    #[cold]
    fn note_expired(&mut self, database: DatabaseIndex, key: &[u8]) {
        self.feed.note(database, key, What::Expired);
        if let Some(watched) = self.keys[database.0 as usize].get_mut(key)
            && !std::mem::take(&mut watched.expired)
        {
            self.bump_watched(database, key);
        }
    }

    fn look(&mut self, database: DatabaseIndex, key: &[u8], expired: bool) -> Option<u64> {
        let watched = self.keys[database.0 as usize].get_mut(key)?;
        if expired && !watched.expired {
            self.last_version += 1;
            watched.version = self.last_version;
            watched.expired = true;
        }
        Some(watched.version)
    }
}

impl Keyspace {
    /// Begins to watch a key, once more if it is watched already. Returns its version.
    pub fn watch(&mut self, database: DatabaseIndex, key: &Key<'_>, now_ms: i64) -> u64 {
        let expired = self.is_expired(database, key, now_ms);
        let watches = &mut self.watches;
        let keys = &mut watches.keys[database.0 as usize];
        if let Some(watched) = keys.get_mut(key.bytes()) {
            watched.watchers += 1;
        } else {
            watches.count += 1;
            watches.last_version += 1;
            let version = watches.last_version;
            let watched = Watched { version, watchers: 1, expired, ..Watched::default() };
            keys.insert(key.bytes().into(), watched);
            return version;
        }
        watches.look(database, key.bytes(), expired).expect("it is watched")
    }

    /// Takes over the watches of the keyspace whose place this one takes. Every watched key counts
    /// as changed.
    pub fn take_watches(&mut self, from: &mut Keyspace) {
        self.watches = std::mem::take(&mut from.watches);
        self.forget_events();
        let watches = &mut self.watches;
        for (database, keys) in watches.keys.iter_mut().enumerate() {
            for (key, watched) in keys {
                watches.last_version += 1;
                watched.version = watches.last_version;
                if watched.awaiters > 0 && !std::mem::replace(&mut watched.listed, true) {
                    watches.changed.push((DatabaseIndex(database as u8), key.clone()));
                }
                if watched.readers > 0 {
                    watches.fresh.push((DatabaseIndex(database as u8), key.clone()));
                }
            }
        }
    }

    /// Does anybody watch a key?
    pub fn is_watched(&self, database: DatabaseIndex, key: &[u8]) -> bool {
        self.watches.keys[database.0 as usize].contains_key(key)
    }

    /// Ends one watch of a key.
    pub fn unwatch(&mut self, database: DatabaseIndex, key: &[u8]) {
        let keys = &mut self.watches.keys[database.0 as usize];
        let watched = keys.get_mut(key).expect("every watch ends once");
        watched.watchers -= 1;
        if watched.watchers == 0 && watched.awaiters == 0 {
            keys.remove(key);
            self.watches.count -= 1;
        }
    }

    /// A command waits for a key: its changes are listed, until [`Keyspace::stop_awaiting`] was
    /// called as often.
    pub fn start_awaiting(&mut self, database: DatabaseIndex, key: &[u8]) {
        let watches = &mut self.watches;
        let keys = &mut watches.keys[database.0 as usize];
        if let Some(watched) = keys.get_mut(key) {
            watched.awaiters += 1;
        } else {
            watches.count += 1;
            keys.insert(key.into(), Watched { awaiters: 1, ..Watched::default() });
        }
    }

    /// A command waits for a key no longer.
    pub fn stop_awaiting(&mut self, database: DatabaseIndex, key: &[u8]) {
        let keys = &mut self.watches.keys[database.0 as usize];
        let watched = keys.get_mut(key).expect("every wait ends once");
        watched.awaiters -= 1;
        if watched.watchers == 0 && watched.awaiters == 0 {
            keys.remove(key);
            self.watches.count -= 1;
        }
    }

    /// A command that only reads waits for a key: it is told of every change, until
    /// [`Keyspace::stop_reading`] was called as often.
    pub fn start_reading(&mut self, database: DatabaseIndex, key: &[u8]) {
        self.start_awaiting(database, key);
        let watched = self.watches.keys[database.0 as usize].get_mut(key);
        watched.expect("just put in").readers += 1;
    }

    /// Such a command waits for a key no longer.
    pub fn stop_reading(&mut self, database: DatabaseIndex, key: &[u8]) {
        let watched = self.watches.keys[database.0 as usize].get_mut(key);
        watched.expect("every wait ends once").readers -= 1;
        self.stop_awaiting(database, key);
    }

    /// Has a key changed that a command waits to read? Cost: one comparison.
    #[inline(always)]
    pub fn key_to_read_changed(&self) -> bool {
        !self.watches.fresh.is_empty()
    }

    /// The keys that changed while commands waited to read them, in order, since this was called
    /// before.
    pub fn take_keys_to_read(&mut self) -> Vec<(DatabaseIndex, Box<[u8]>)> {
        std::mem::take(&mut self.watches.fresh)
    }

    /// Has a key changed that a command waits for? Cost: one comparison.
    #[inline(always)]
    pub fn awaited_key_changed(&self) -> bool {
        !self.watches.changed.is_empty()
    }

    /// Is a key one of those that [`Keyspace::take_changed`] would return?
    pub fn has_changed(&self, database: DatabaseIndex, key: &[u8]) -> bool {
        let watched = self.watches.keys[database.0 as usize].get(key);
        watched.is_some_and(|watched| watched.listed)
    }

    /// The keys that changed while commands waited for them, each once.
    pub fn take_changed(&mut self) -> Vec<(DatabaseIndex, Box<[u8]>)> {
        let watches = &mut self.watches;
        for (database, key) in &watches.changed {
            if let Some(watched) = watches.keys[database.0 as usize].get_mut(key) {
                watched.listed = false;
            }
        }
        std::mem::take(&mut watches.changed)
    }

    /// The version of a watched key at this time: another one than before when it has changed,
    /// expired or been deleted since. `None` when nobody watches it.
    pub fn watch_version(
        &mut self,
        database: DatabaseIndex,
        key: &Key<'_>,
        now_ms: i64,
    ) -> Option<u64> {
        let expired = self.is_expired(database, key, now_ms);
        self.watches.look(database, key.bytes(), expired)
    }

    /// All items of some databases are about to go or to be exchanged: their watched keys that have
    /// items in one of them change. With one database alone, a key that had expired when it was
    /// watched stays as it was.
    pub(super) fn watched_databases_change(&mut self, databases: &[DatabaseIndex], now_ms: i64) {
        if self.watches.count == 0 {
            return;
        }
        for &database in databases {
            let watched = &self.watches.keys[database.0 as usize];
            let keys: Vec<_> = watched.iter().map(|(key, w)| (key.clone(), w.expired)).collect();
            for (bytes, was_expired) in keys {
                let key = Key::new(&bytes, self.hasher.hash(&bytes));
                let alive = |&at: &DatabaseIndex| self.view(at, now_ms).peek(&key).is_some();
                let expired = !was_expired && self.is_expired(database, &key, now_ms);
                if expired || databases.iter().any(alive) {
                    self.watches.bump_watched(database, &bytes);
                }
            }
        }
    }

    fn is_expired(&self, database: DatabaseIndex, key: &Key<'_>, now_ms: i64) -> bool {
        let place = self.databases[database.0 as usize].find(key);
        place.is_some_and(|place| lend::item_at(place).expired(now_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Expiry;
    use super::super::model::Bench;
    use super::*;
    use crate::ids::Deadline;

    /// Does the version change between a watch of `k` and the end of `act`?
    fn changes(prepare: fn(&mut Bench), act: fn(&mut Bench)) -> bool {
        let mut bench = Bench::new();
        prepare(&mut bench);
        let key = Key::new(b"k", bench.hash("k"));
        let version = bench.keyspace.watch(bench.database, &key, bench.now_ms);
        act(&mut bench);
        let now = bench.keyspace.watch_version(bench.database, &key, bench.now_ms);
        bench.keyspace.unwatch(bench.database, b"k");
        assert_eq!(bench.keyspace.watch_version(bench.database, &key, bench.now_ms), None);
        now.expect("it is watched") != version
    }

    fn nothing(_: &mut Bench) {}

    fn value(bench: &mut Bench) {
        bench.set("k", "v");
    }

    fn short(bench: &mut Bench) {
        bench.set_until("k", "v", Expiry::At(Deadline(bench.now_ms + 10)));
    }

    fn expired(bench: &mut Bench) {
        short(bench);
        bench.now_ms += 11;
    }

    fn in_other_database(bench: &mut Bench) {
        bench.database = DatabaseIndex(1);
        bench.set("k", "v");
        bench.database = DatabaseIndex(0);
    }

    fn sweep(bench: &mut Bench) {
        let key = Key::new(b"k", bench.hash("k"));
        bench.edit().remove_expired(&key);
    }

    fn rewrite(bench: &mut Bench, writes: bool) {
        let key = Key::new(b"k", bench.hash("k"));
        assert_eq!(bench.edit().rewrite_string(&key, |_| writes), writes);
    }

    #[test]
    fn a_version_changes_with_every_change() {
        assert!(!changes(nothing, nothing));
        assert!(!changes(value, nothing));
        assert!(changes(nothing, value));
        assert!(changes(value, value));
        assert!(changes(value, |bench| assert!(bench.remove("k"))));
        assert!(!changes(nothing, |bench| assert!(!bench.remove("k"))));
        assert!(!changes(value, |bench| bench.set("other", "v")));
        assert!(!changes(value, in_other_database));
        assert!(changes(value, |bench| {
            let key = Key::new(b"k", bench.hash("k"));
            bench.edit().string_mut(&key, 9, super::super::StringForm::Raw);
        }));
        assert!(changes(value, |bench| rewrite(bench, true)));
        assert!(!changes(value, |bench| rewrite(bench, false)));
        let persist = |bench: &mut Bench| {
            let key = Key::new(b"k", bench.hash("k"));
            bench.edit().set_deadline(&key, None);
        };
        assert!(changes(short, persist));
        assert!(!changes(value, persist));
    }

    #[test]
    fn expiring_is_a_change_and_deleting_the_expired_is_none() {
        assert!(changes(short, |bench| bench.now_ms += 11));
        assert!(changes(short, |bench| {
            bench.now_ms += 11;
            sweep(bench);
        }));
        assert!(!changes(short, |bench| bench.now_ms += 10));
        assert!(!changes(expired, nothing));
        assert!(!changes(expired, sweep));
        assert!(!changes(expired, |bench| assert!(!bench.remove("k"))));
        assert!(changes(expired, value));
        assert!(changes(expired, |bench| {
            sweep(bench);
            value(bench);
        }));
    }

    #[test]
    fn clearing_and_exchanging_change_what_is_there() {
        let clear = |bench: &mut Bench| {
            bench.edit().clear();
        };
        assert!(changes(value, clear));
        assert!(!changes(nothing, clear));
        assert!(!changes(expired, clear));
        let swap = |bench: &mut Bench| bench.edit().swap(DatabaseIndex(0), DatabaseIndex(1));
        assert!(changes(value, swap));
        assert!(changes(in_other_database, swap));
        assert!(!changes(nothing, swap));
    }

    #[test]
    fn two_watchers_share_a_key() {
        let mut bench = Bench::new();
        let key = Key::new(b"k", bench.hash("k"));
        let one = bench.keyspace.watch(bench.database, &key, bench.now_ms);
        bench.set("k", "v");
        let other = bench.keyspace.watch(bench.database, &key, bench.now_ms);
        assert!(other > one);
        bench.keyspace.unwatch(bench.database, b"k");
        let now = bench.keyspace.watch_version(bench.database, &key, bench.now_ms);
        assert_eq!(now, Some(other));
        bench.keyspace.unwatch(bench.database, b"k");
        assert_eq!(bench.keyspace.watches.count, 0);
    }
}
