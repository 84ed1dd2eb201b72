//! Changing a database at one time.
//!
//! Every function meets an item past its deadline by removing it first: what an edit does depends
//! on its own time, not on when the sweep came by. Changes in place happen only to items that no
//! cut waits for.

use super::access;
use super::bucket::Entry;
use super::feed::{Change, KeyEvent, What};
use super::item::{Frame, RawItem};
use super::lend;
use super::shape::Shape;
use super::view::View;
use super::{Expiry, Key, Keyspace, LibraryChange, StringForm};
use crate::ids::{DatabaseIndex, Deadline};
use crate::limits::DATABASE_COUNT;
use crate::stamp::Stamp;
use crate::value::Limits;
use std::ptr::NonNull;

/// Changes one database at one time. Reads too, through [`Edit::view`].
pub struct Edit<'a> {
    pub(super) keyspace: &'a mut Keyspace,
    pub(super) database: DatabaseIndex,
    pub(super) now_ms: i64,
}

impl Edit<'_> {
    /// For reading. The same rules of expiry hold.
    pub fn view(&self) -> View<'_> {
        View {
            keyspace: self.keyspace,
            database: self.database,
            now_ms: self.now_ms,
            touches: true,
            counts: false,
            hidden: None,
        }
    }

    /// The time of this edit, milliseconds since the Unix epoch (the leader's, on every replica).
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// When collections change their form.
    pub fn limits(&self) -> Limits {
        self.keyspace.limits
    }

    /// Changes them. Collections that are there keep their forms until they are written to.
    pub fn set_limits(&mut self, limits: Limits) {
        self.keyspace.limits = limits;
    }

    /// Changes the libraries of functions. False: the change was judged by another state, and
    /// nothing is done.
    pub fn change_libraries(&mut self, change: &LibraryChange) -> bool {
        let changed = self.keyspace.libraries.change(change);
        self.keyspace.libraries_changed |= changed;
        changed
    }

    /// What the shard remembers of transactions.
    pub(crate) fn ledger_mut(&mut self) -> &mut crate::transaction::Ledger {
        &mut self.keyspace.ledger
    }

    /// A stamped request was done, and answered this if that is known.
    pub fn remember(&mut self, stamp: Stamp, reply: Option<&[u8]>) {
        self.keyspace.remember(stamp, reply);
    }

    /// Has the operation under way changed a key, and does somebody want to know? Cost: one
    /// comparison.
    #[inline(always)]
    pub fn has_changes(&self) -> bool {
        self.keyspace.feed().has_changes()
    }

    /// The changes since the last call, in order.
    pub fn take_changes(&mut self) -> Vec<Change> {
        self.keyspace.watches.feed_mut().take_changes()
    }

    /// Notes something beside the change of a key, which is noted by itself.
    pub fn note(&mut self, key: &Key<'_>, what: What) {
        self.keyspace.watches.feed_mut().note(self.database, key.bytes(), what);
    }

    /// Do clients keep copies of keys?
    pub fn is_for_caches(&self) -> bool {
        self.keyspace.feed().is_for_caches()
    }

    /// Adds an event that clients may hear of.
    pub fn push_event(&mut self, event: KeyEvent) {
        self.keyspace.watches.feed_mut().push(event);
    }

    /// Commands that wait for their keys until the entry under way ends.
    pub fn serving(&mut self) -> &mut crate::waiting::Served {
        &mut self.keyspace.serving
    }

    /// An edit of another database at the same time.
    pub fn of_database(&mut self, database: DatabaseIndex) -> Edit<'_> {
        Edit { keyspace: self.keyspace, database, now_ms: self.now_ms }
    }

    /// Sets a string, whatever was there. A deadline that has passed removes it.
    /// Cost: one allocation, or none when the new item fits the old one's memory.
    #[inline]
    pub fn set_string(&mut self, key: &Key<'_>, value: &[u8], form: StringForm, expiry: Expiry) {
        let found = self.find_live(key);
        let deadline = match (expiry, found) {
            (Expiry::Never, _) | (Expiry::Keep, None) => None,
            (Expiry::Keep, Some((_, item))) => item.deadline(),
            (Expiry::At(deadline), _) if self.now_ms > deadline.0 => {
                if let Some((place, _)) = found {
                    self.take(key, place);
                    self.keyspace.watches.changed(self.database, key.bytes());
                }
                return;
            }
            (Expiry::At(deadline), _) => Some(deadline),
        };
        let frame = Frame {
            shape: Shape::String(form),
            deadline,
            mark: self.keyspace.mark,
            access: self.next_access(found),
            key_length: key.bytes().len(),
            value_length: value.len(),
        };
        match found {
            Some((place, item))
                if item.mark() == self.keyspace.mark
                    && item.allocation_size() == frame.allocation_size()
                    && !item.has_body() =>
            {
                let had_deadline = item.has_deadline();
                item.rewrite(&frame, key.bytes(), value);
                if had_deadline != item.has_deadline() {
                    self.keyspace.databases[self.database.0 as usize].replace(
                        key.hash().slot(),
                        place,
                        had_deadline,
                        item,
                    );
                }
            }
            _ => {
                let item = RawItem::new(&mut self.keyspace.memory, &frame, key.bytes(), value);
                self.put(key, found, item);
            }
        }
        self.keyspace.watches.changed(self.database, key.bytes());
    }

    /// The bytes of a string, resized to `length` (cut, or filled with zeros), for writing in
    /// place; a missing key is created without deadline. `None` when the key holds another
    /// type. Cost: no allocation while the length stays within its size class, else one and a
    /// copy; as classes of the raw form are a fifth apart, appending byte by byte copies each
    /// byte about five times.
    pub fn string_mut(
        &mut self,
        key: &Key<'_>,
        length: usize,
        form: StringForm,
    ) -> Option<&mut [u8]> {
        let item = self.string_item(key, length, form)?;
        self.keyspace.watches.changed(self.database, key.bytes());
        Some(lend::borrow_value_mut(item))
    }

    /// Lends the bytes of a string for writing over them, if it is of the automatic form and no cut
    /// waits for it; its form, its length and its deadline stay. `change` says whether it has
    /// written. Cost: one lookup.
    #[inline]
    pub fn rewrite_string(
        &mut self,
        key: &Key<'_>,
        change: impl FnOnce(&mut [u8]) -> bool,
    ) -> bool {
        let Some((_, item)) = self.find_live(key) else { return false };
        let is_fit = item.shape() == Shape::String(StringForm::Automatic)
            && item.mark() == self.keyspace.mark;
        if !is_fit || !change(lend::borrow_value_mut(item)) {
            return false;
        }
        self.keyspace.accesses.touch(item, self.now_ms);
        self.keyspace.watches.changed(self.database, key.bytes());
        true
    }

    /// Gives a string that is there the raw form, as commands on its bits do although they change
    /// nothing else.
    pub fn make_raw(&mut self, key: &Key<'_>) {
        let length = self.view().peek(key).and_then(|item| item.string()).map(<[u8]>::len);
        if let Some(length) = length {
            self.string_item(key, length, StringForm::Raw);
        }
    }

    fn string_item(&mut self, key: &Key<'_>, length: usize, form: StringForm) -> Option<RawItem> {
        let found = self.find_live(key);
        let is_string = |(_, item): (_, RawItem)| matches!(item.shape(), Shape::String(_));
        if !found.is_none_or(is_string) {
            return None;
        }
        let frame = Frame {
            shape: Shape::String(form),
            deadline: found.and_then(|(_, item)| item.deadline()),
            mark: self.keyspace.mark,
            access: self.next_access(found),
            key_length: key.bytes().len(),
            value_length: length,
        };
        let item = match found {
            Some((_, item)) if item.mark() == self.keyspace.mark && item.resize(&frame) => item,
            _ => {
                let old = found.and_then(|(_, item)| lend::borrow_item(item).string());
                let old = old.unwrap_or_default();
                let kept = &old[..length.min(old.len())];
                let item =
                    RawItem::new_filled(&mut self.keyspace.memory, &frame, key.bytes(), kept);
                self.put(key, found, item);
                item
            }
        };
        Some(item)
    }

    /// Removes an item. Was there one?
    pub fn remove(&mut self, key: &Key<'_>) -> bool {
        let Some((place, _)) = self.find_live(key) else { return false };
        self.take(key, place);
        self.keyspace.watches.changed(self.database, key.bytes());
        true
    }

    /// Removes an item that is past its deadline, which [`Edit::remove`] takes for absent. Was
    /// there one?
    pub fn remove_expired(&mut self, key: &Key<'_>) -> bool {
        let count = self.view().count();
        self.find_live(key);
        self.view().count() < count
    }

    /// Sets or clears the deadline of an item. Is there one? A deadline that is not in the future
    /// removes the item.
    pub fn set_deadline(&mut self, key: &Key<'_>, deadline: Option<Deadline>) -> bool {
        let Some((place, old)) = self.find_live(key) else { return false };
        match (deadline, old.deadline()) {
            (None, None) => return true,
            (Some(deadline), _) if deadline.0 <= self.now_ms => self.take(key, place),
            (Some(deadline), Some(_)) if old.mark() == self.keyspace.mark => {
                old.set_deadline(deadline);
            }
            _ => {
                let frame = Frame { deadline, mark: self.keyspace.mark, ..old.frame() };
                let item = self.reframed(old, &frame, key.bytes());
                self.replace_moved(key, place, old, item);
            }
        }
        self.keyspace.watches.changed(self.database, key.bytes());
        true
    }

    /// Copies an item of any type with its deadline to another key, maybe in another database,
    /// replacing what is there. Is there a source? Cost: a copy of the value.
    pub fn copy(&mut self, from: &Key<'_>, database: DatabaseIndex, to: &Key<'_>) -> bool {
        let Some((_, source)) = self.find_live(from) else { return false };
        if database == self.database && from.bytes() == to.bytes() {
            return true;
        }
        let frame = self.frame_elsewhere(source, to);
        let item = source.copied(&mut self.keyspace.memory, &frame, to.bytes());
        self.of_database(database).put_changed(to, item);
        true
    }

    /// Moves an item of any type with its deadline to another key, maybe in another database,
    /// replacing what is there. Is there a source? Cost: what its own allocation holds is
    /// copied; pages are not.
    pub fn rename(&mut self, from: &Key<'_>, database: DatabaseIndex, to: &Key<'_>) -> bool {
        let Some((place, source)) = self.find_live(from) else { return false };
        if database == self.database && from.bytes() == to.bytes() {
            return true;
        }
        let frame = self.frame_elsewhere(source, to);
        let keyspace = &mut *self.keyspace;
        let here = &mut keyspace.databases[self.database.0 as usize];
        here.remove(from.hash(), place, &keyspace.hasher, &mut keyspace.memory);
        let item = if source.mark() == keyspace.mark && source.rekey(&frame, to.bytes()) {
            source
        } else {
            let item = self.reframed(source, &frame, to.bytes());
            self.free_moved(source);
            item
        };
        self.keyspace.watches.changed(self.database, from.bytes());
        self.of_database(database).put_changed(to, item);
        true
    }

    /// What an item's frame is as that of another key.
    fn frame_elsewhere(&self, source: RawItem, to: &Key<'_>) -> Frame {
        Frame {
            mark: self.keyspace.mark,
            access: self.keyspace.accesses.next(source.access(), self.now_ms),
            key_length: to.bytes().len(),
            ..source.frame()
        }
    }

    /// Puts an item that is in no table where its key is, whatever was there.
    pub(super) fn put_changed(&mut self, key: &Key<'_>, item: RawItem) {
        if item.has_body() && lend::borrow_body_mut(item).has_leftovers() {
            self.keyspace.will_sweep(self.database, key.bytes());
        }
        let found = self.find_live(key);
        self.put(key, found, item);
        self.keyspace.watches.changed(self.database, key.bytes());
    }

    /// An item with another frame and the value of this one. Pages go over to it, unless a cut
    /// waits for the old item: then they are copied.
    fn reframed(&mut self, old: RawItem, frame: &Frame, key: &[u8]) -> RawItem {
        let memory = &mut self.keyspace.memory;
        if old.mark() == self.keyspace.mark {
            RawItem::new(memory, frame, key, lend::borrow_item(old).bytes())
        } else {
            old.copied(memory, frame, key)
        }
    }

    /// Puts an item that [`Edit::reframed`] made in the place of the one it was made of.
    fn replace_moved(&mut self, key: &Key<'_>, place: NonNull<Entry>, old: RawItem, item: RawItem) {
        let database = &mut self.keyspace.databases[self.database.0 as usize];
        database.replace(key.hash().slot(), place, old.has_deadline(), item);
        self.free_moved(old);
    }

    /// Frees an item of which [`Edit::reframed`] has made another, or leaves it to the cut that
    /// waits for it.
    fn free_moved(&mut self, old: RawItem) {
        if old.mark() == self.keyspace.mark {
            lend::free_item(old, &mut self.keyspace.memory);
        } else {
            self.keyspace.retire(self.database, old);
        }
    }

    /// Makes an item look idle for so long (RESTORE IDLETIME). No change to watchers.
    pub fn set_idle(&mut self, key: &Key<'_>, idle_seconds: u64) {
        if let Some((_, item)) = self.find_live(key) {
            item.set_access(access::idle_since(idle_seconds, self.now_ms));
        }
    }

    /// Sets the logarithmic access count (RESTORE FREQ). No change to watchers.
    pub fn set_frequency(&mut self, key: &Key<'_>, frequency: u8) {
        if let Some((_, item)) = self.find_live(key) {
            item.set_access(access::with_frequency(frequency, self.now_ms));
        }
    }

    /// Exchanges the items of two databases.
    pub fn swap(&mut self, one: DatabaseIndex, other: DatabaseIndex) {
        if one == other {
            return;
        }
        let keyspace = &mut *self.keyspace;
        keyspace.watched_databases_change(&[one, other], self.now_ms);
        keyspace.watches.feed_mut().note_flush(one);
        keyspace.databases.swap(one.0 as usize, other.0 as usize);
        keyspace.swap_swept(one, other);
        keyspace.pool.clear();
        if let Some(cut) = &mut keyspace.cut {
            cut.swap(one.0 as usize, other.0 as usize);
        }
    }

    /// Removes every item of every database. Returns how many there were.
    pub fn clear_all(&mut self) -> u64 {
        (0..DATABASE_COUNT).map(|n| self.of_database(DatabaseIndex(n as u8)).clear()).sum()
    }

    /// Removes every item of this database. Returns how many there were.
    /// Cost: none that depends on the count; [`Keyspace::free_some`] frees the memory.
    pub fn clear(&mut self) -> u64 {
        self.keyspace.watched_databases_change(&[self.database], self.now_ms);
        self.keyspace.watches.feed_mut().note_flush(self.database);
        self.keyspace.detach(self.database)
    }

    /// The place and item of a key. An item past its deadline is removed.
    #[inline(always)]
    pub(super) fn find_live(&mut self, key: &Key<'_>) -> Option<(NonNull<Entry>, RawItem)> {
        let place = self.keyspace.databases[self.database.0 as usize].find(key)?;
        let item = lend::item_at(place);
        if item.expired(self.now_ms) {
            self.take(key, place);
            self.keyspace.watches.removed_expired(self.database, key.bytes());
            return None;
        }
        Some((place, item))
    }

    #[inline(always)]
    pub(super) fn next_access(&self, found: Option<(NonNull<Entry>, RawItem)>) -> u32 {
        match found {
            Some((_, item)) => self.keyspace.accesses.next(item.access(), self.now_ms),
            None => self.keyspace.accesses.fresh(self.now_ms),
        }
    }

    /// Puts a new item where the key's old one was found, or in where none was.
    fn put(&mut self, key: &Key<'_>, found: Option<(NonNull<Entry>, RawItem)>, item: RawItem) {
        let keyspace = &mut *self.keyspace;
        let database = &mut keyspace.databases[self.database.0 as usize];
        match found {
            Some((place, old)) => {
                database.replace(key.hash().slot(), place, old.has_deadline(), item);
                database.timed.note(item, true);
                keyspace.retire(self.database, old);
            }
            None => {
                database.insert(key.hash(), item, &keyspace.hasher, &mut keyspace.memory);
                keyspace.watches.created(self.database, key.bytes());
            }
        }
    }

    fn take(&mut self, key: &Key<'_>, place: NonNull<Entry>) {
        let keyspace = &mut *self.keyspace;
        let database = &mut keyspace.databases[self.database.0 as usize];
        let item = database.remove(key.hash(), place, &keyspace.hasher, &mut keyspace.memory);
        keyspace.retire(self.database, item);
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::Bench;
    use super::*;

    #[test]
    fn a_value_of_the_same_class_stays_in_its_memory() {
        let mut bench = Bench::new();
        bench.set("key", "12345678");
        let place = bench.get("key").expect("just set").key().as_ptr();
        let used = bench.keyspace.used_bytes();
        for value in ["abcdef", "abcdefg", "1234567890123"] {
            bench.set("key", value);
            assert_eq!(bench.get("key").expect("just set").string(), Some(value.as_bytes()));
            assert_eq!(bench.get("key").expect("just set").key().as_ptr(), place);
            assert_eq!(bench.keyspace.used_bytes(), used);
        }
        let deadline = Deadline(bench.now_ms + 1);
        bench.set_until("key", "12345", Expiry::At(deadline));
        assert_eq!(bench.get("key").expect("just set").deadline(), Some(deadline));
        assert_eq!(bench.keyspace.used_bytes(), used, "a deadline fits the class too");
        assert_eq!(bench.keyspace.expiring_count(bench.database), 1);
        bench.set("key", &"x".repeat(100));
        assert!(bench.keyspace.used_bytes() > used);
        assert_eq!(bench.keyspace.expiring_count(bench.database), 0);
    }

    #[test]
    fn a_string_is_written_over_only_if_nothing_else_changes() {
        let mut bench = Bench::new();
        let key = Key::new(b"k", bench.hash("k"));
        let over = |bench: &mut Bench| {
            bench.edit().rewrite_string(&key, |bytes| {
                bytes.fill(b'7');
                true
            })
        };
        assert!(!over(&mut bench), "there is none");
        let deadline = Deadline(bench.now_ms + 5);
        bench.set_until("k", "12345", Expiry::At(deadline));
        assert!(over(&mut bench));
        let item = bench.get("k").expect("it is there");
        assert_eq!((item.string(), item.deadline()), (Some(&b"77777"[..]), Some(deadline)));
        bench.edit().make_raw(&key);
        assert!(!over(&mut bench), "its form would stay raw");
        bench.now_ms += 6;
        assert!(!over(&mut bench), "it has expired");
        assert!(bench.get("k").is_none());
    }

    #[test]
    fn a_string_grows_by_few_moves() {
        let mut bench = Bench::new();
        let key = Key::new(b"k", bench.hash("k"));
        let (mut moves, mut place) = (0, std::ptr::null());
        let end = if cfg!(miri) { 4_000 } else { 100_000 };
        for length in 1..=end {
            let mut edit = bench.edit();
            let bytes = edit.string_mut(&key, length, StringForm::Raw).expect("only strings");
            bytes[length - 1] = length as u8;
            moves += usize::from(bytes.as_ptr() != place);
            place = bytes.as_ptr();
        }
        assert!(moves < 70, "{moves}");
        let item = bench.get("k").expect("just made");
        assert_eq!(item.shape(), Shape::String(StringForm::Raw));
        let bytes = item.string().expect("only strings");
        assert!(bytes.iter().zip(1..).all(|(&byte, n)| byte == n as u8));
    }

    #[test]
    fn a_deadline_in_the_past_removes() {
        let mut bench = Bench::new();
        let key = Key::new(b"k", bench.hash("k"));
        bench.set("k", "v");
        let now = Deadline(bench.now_ms);
        assert!(bench.edit().set_deadline(&key, Some(now)));
        assert!(bench.get("k").is_none());
        assert!(!bench.edit().set_deadline(&key, Some(now)));
        bench.set("k", "v");
        bench.set_until("k", "w", Expiry::At(Deadline(now.0 - 1)));
        assert_eq!(bench.view().count(), 0);
        bench.set_until("k", "w", Expiry::At(now));
        assert!(bench.get("k").is_some(), "at its deadline an item still exists");
        bench.now_ms += 1;
        assert!(bench.get("k").is_none());
        bench.set_until("k", "v", Expiry::Keep);
        assert_eq!(bench.get("k").expect("just set").deadline(), None, "nothing to keep");
    }

    #[test]
    fn an_access_is_counted_by_get_and_not_by_peek() {
        let mut bench = Bench::new();
        bench.set("k", "v");
        let key = Key::new(b"k", bench.hash("k"));
        bench.edit().set_idle(&key, 50);
        bench.now_ms += 10_000;
        let idle = |bench: &Bench| {
            bench.view().peek(&key).expect("it is there").idle_seconds(bench.now_ms)
        };
        assert_eq!(idle(&bench), 60);
        assert!(bench.get("k").is_some());
        assert_eq!(idle(&bench), 0);
    }
}
