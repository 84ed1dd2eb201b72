//! A small keyspace that holds what a transaction has read, for the ordinary command functions to
//! run on.
//!
//! What they change is found by the versions of watched keys: every key is watched. Reused from
//! transaction to transaction; between two of them it is empty.

use super::record::{install, install_here};
use crate::arguments::Arguments;
use crate::ids::{DatabaseIndex, Deadline};
use crate::keyspace::{
    Edit, Expiry, Item, Key, KeyEvent, KeyHash, KeyHasher, Keyspace, Listening, Shape, StringForm,
    Value, View,
};
use crate::limits::OVERLAY_SEARCH_MAX;
use crate::rdb::{self, EncodedValue, Piece};
use crate::value::Limits;
use crate::value::stream::StreamId;

/// A key as it was in its shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its database.
    pub database: DatabaseIndex,
    /// The key.
    pub key: Vec<u8>,
    /// Its item; `None` when there was none.
    pub item: Option<FetchedItem>,
}

/// An item that was copied out of its shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedItem {
    /// Bytes of a string; of any other value, its RDB type and encoding.
    pub value: Vec<u8>,
    /// Its type and form. An empty string stands for any value when only its presence was asked
    /// for.
    pub shape: Shape,
    /// When it ends.
    pub deadline: Option<Deadline>,
}

impl FetchedItem {
    /// Copies an item, its value too if wanted.
    pub fn copy(item: Item<'_>, with_value: bool) -> FetchedItem {
        let (mut value, mut shape) = (Vec::new(), Shape::String(StringForm::Automatic));
        if with_value {
            shape = item.shape();
            match item.string() {
                Some(string) => value.extend_from_slice(string),
                None => rdb::write_value(&mut value, item.value()),
            }
        }
        FetchedItem { value, shape, deadline: item.deadline() }
    }
}

impl FetchedItem {
    /// Copies of a stream what is known beside its entries, and about so many entries behind an id;
    /// of another item its presence, as a string.
    pub fn copy_behind(item: Item<'_>, id: StreamId, limit: u64) -> FetchedItem {
        match item.value() {
            Value::Stream(stream) => {
                let mut value = Vec::new();
                rdb::write_stream_behind(&mut value, stream, id, limit);
                FetchedItem { value, shape: item.shape(), deadline: item.deadline() }
            }
            _ => FetchedItem::copy(item, false),
        }
    }
}

/// Sets a key to a value as transactions carry it: the bytes of a string, the RDB type and encoding
/// of any other. Panics when it is neither.
pub(super) fn set(
    edit: &mut Edit<'_>,
    key: &Key<'_>,
    shape: Shape,
    value: &[u8],
    deadline: Option<Deadline>,
) {
    let expiry = deadline.map_or(Expiry::Never, Expiry::At);
    if let Shape::String(form) = shape {
        return edit.set_string(key, value, form, expiry);
    }
    let (&type_byte, bytes) = value.split_first().expect("the type goes first");
    let value = EncodedValue::read(type_byte, bytes).expect("it was written as a value");
    edit.load(key, shape, expiry, &value, Piece::Whole).expect("it was a value before");
}

struct Loaded {
    database: DatabaseIndex,
    key: Box<[u8]>,
    hash: KeyHash,
    version: u64,
}

/// A keyspace for one transaction at a time.
pub struct Overlay {
    keyspace: Keyspace,
    loaded: Vec<Loaded>,
}

impl Overlay {
    /// Empty; it hashes keys as the shards do.
    pub fn new(hasher: KeyHasher) -> Overlay {
        Overlay { keyspace: Keyspace::new(hasher), loaded: Vec::new() }
    }

    /// When collections change their form here.
    pub fn set_limits(&mut self, limits: Limits) {
        self.keyspace.set_limits(limits);
    }

    /// Notes what commands change from now on, or no longer.
    pub fn listen(&mut self, listening: Listening) {
        self.keyspace.listen(listening, false);
    }

    /// All keys are loaded: what follows are changes.
    pub fn begin(&mut self) {
        self.keyspace.forget_events();
    }

    /// The events of what commands have changed.
    pub fn take_events(&mut self) -> Vec<KeyEvent> {
        self.keyspace.take_events()
    }

    /// Puts a key in as it was in its shard. Each key once, before anything is run.
    pub fn load(&mut self, fetched: Fetched, now_ms: i64) {
        let Fetched { database, key, item } = fetched;
        let hashed = Key::new(&key, self.keyspace.hasher().hash(&key));
        if let Some(item) = item {
            let mut edit = self.keyspace.edit(database, now_ms);
            set(&mut edit, &hashed, item.shape, &item.value, item.deadline);
        }
        self.note_loaded(database, &hashed, now_ms);
    }

    /// As [`Overlay::load`], of an item where it is. Cost: a copy of the value; for a string no
    /// allocation but those of the item.
    pub fn copy(
        &mut self,
        database: DatabaseIndex,
        key: &Key<'_>,
        item: Option<Item<'_>>,
        now_ms: i64,
    ) {
        if let Some(item) = item {
            let (shape, deadline) = (item.shape(), item.deadline());
            let mut edit = self.keyspace.edit(database, now_ms);
            match item.string() {
                Some(string) => set(&mut edit, key, shape, string, deadline),
                None => {
                    let mut value = Vec::new();
                    rdb::write_value(&mut value, item.value());
                    set(&mut edit, key, shape, &value, deadline);
                }
            }
        }
        self.note_loaded(database, key, now_ms);
    }

    fn note_loaded(&mut self, database: DatabaseIndex, key: &Key<'_>, now_ms: i64) {
        let version = self.keyspace.watch(database, key, now_ms);
        let (key, hash) = (key.bytes().into(), key.hash());
        self.loaded.push(Loaded { database, key, hash, version });
    }

    /// As [`Overlay::load`], of a copy that [`super::install`] made. Commands may have run; none
    /// knew the key.
    pub fn install(&mut self, database: DatabaseIndex, copy: Arguments<'_>, now_ms: i64) {
        let key = Key::new(copy.at(1), self.keyspace.hasher().hash(copy.at(1)));
        install_here(&mut self.keyspace.edit(database, now_ms), key.hash(), copy);
        self.note_loaded(database, &key, now_ms);
    }

    /// Was a key loaded?
    pub fn has(&self, database: DatabaseIndex, key: &[u8]) -> bool {
        if self.loaded.len() > OVERLAY_SEARCH_MAX {
            return self.keyspace.is_watched(database, key);
        }
        let is_it = |loaded: &Loaded| loaded.database == database && *loaded.key == *key;
        self.loaded.iter().any(is_it)
    }

    /// Where the commands run.
    pub fn edit(&mut self, database: DatabaseIndex, now_ms: i64) -> Edit<'_> {
        self.keyspace.edit(database, now_ms)
    }

    /// Reading what commands have left here.
    pub fn view(&self, database: DatabaseIndex, now_ms: i64) -> View<'_> {
        self.keyspace.view(database, now_ms)
    }

    /// The keys of a database that were loaded.
    pub fn loaded(&self, database: DatabaseIndex) -> impl Iterator<Item = &[u8]> {
        let of_database = self.loaded.iter().filter(move |loaded| loaded.database == database);
        of_database.map(|loaded| &*loaded.key)
    }

    /// Hands out an effect for every key that was changed since the last time, as
    /// [`Overlay::drain`] does, and keeps all of them. What comes next may be applied behind
    /// these.
    pub fn flush(
        &mut self,
        now_ms: i64,
        mut effect: impl FnMut(DatabaseIndex, &Key<'_>, Arguments<'_>),
    ) {
        for Loaded { database, key, hash, version } in &mut self.loaded {
            let key = Key::new(key, *hash);
            let now = self.keyspace.watch_version(*database, &key, now_ms).unwrap_or(*version);
            if std::mem::replace(version, now) != now {
                let arguments =
                    install(key.bytes(), self.keyspace.view(*database, now_ms).peek(&key));
                effect(*database, &key, arguments.borrow());
            }
        }
    }

    /// Hands out an effect for every key that was changed, an operation [`super::INSTALL`] with
    /// these arguments, and empties the overlay.
    pub fn drain(
        &mut self,
        now_ms: i64,
        mut effect: impl FnMut(DatabaseIndex, &Key<'_>, Arguments<'_>),
    ) {
        for Loaded { database, key, hash, version } in self.loaded.drain(..) {
            let key = Key::new(&key, hash);
            let changed = self.keyspace.watch_version(database, &key, now_ms) != Some(version);
            self.keyspace.unwatch(database, key.bytes());
            let mut edit = self.keyspace.edit(database, now_ms);
            if changed {
                let arguments = install(key.bytes(), edit.view().peek(&key));
                effect(database, &key, arguments.borrow());
            }
            // An item past its deadline, which nobody sees, goes as well.
            edit.remove(&key);
        }
        debug_assert_eq!(
            self.keyspace.databases_in_use().count(),
            0,
            "commands declare their keys"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::install;
    use super::*;
    use crate::value::list::End;

    /// A collection that a transaction fetches, changes and installs elsewhere is whole, whatever
    /// its size.
    #[test]
    fn collections_go_there_and_back() {
        let hasher = KeyHasher::new(5);
        let key = Key::new(b"k", hasher.hash(b"k"));
        for count in [1, 100, 5000] {
            let mut shard = Keyspace::new(hasher);
            let database = DatabaseIndex(0);
            let mut edit = shard.edit(database, 100);
            let mut list = edit.list_mut(&key).expect("new");
            (0..count).for_each(|n| list.push(End::Back, format!("element:{n}").as_bytes()));
            drop(list);
            let fetched = FetchedItem::copy(edit.view().peek(&key).expect("just made"), true);
            let mut overlay = Overlay::new(hasher);
            overlay.load(Fetched { database, key: b"k".to_vec(), item: Some(fetched) }, 100);
            let mut inside = overlay.edit(database, 100);
            let mut list = inside.list_mut(&key).expect("a list");
            assert_eq!(list.count(), count);
            list.push(End::Front, b"new");
            drop(list);
            let mut installed = 0;
            overlay.drain(100, |_, _, arguments| {
                super::super::record::install_here(&mut edit, key.hash(), arguments);
                installed += 1;
            });
            assert_eq!(installed, 1);
            let item = edit.view().peek(&key).expect("installed");
            let Value::List(list) = item.value() else { panic!("a list") };
            assert_eq!((list.count(), list.get(0)), (count + 1, Some(&b"new"[..])));
        }
        let nothing = install(b"k", None);
        let mut shard = Keyspace::new(hasher);
        super::super::record::install_here(
            &mut shard.edit(DatabaseIndex(0), 1),
            key.hash(),
            nothing.borrow(),
        );
        assert_eq!(shard.used_bytes(), 0);
    }

    /// A read over shards copies what it reads of a long stream, and no more.
    #[test]
    fn of_a_stream_what_is_read_is_copied() {
        let hasher = KeyHasher::new(5);
        let key = Key::new(b"k", hasher.hash(b"k"));
        let (mut shard, database) = (Keyspace::new(hasher), DatabaseIndex(0));
        let mut edit = shard.edit(database, 100);
        let mut stream = edit.stream_mut(&key).expect("new");
        let id = |ms| StreamId { ms, sequence: 0 };
        (1..=5000).for_each(|ms| stream.append(id(ms), [(&b"f"[..], &b"v"[..])].into_iter()));
        stream.add_group(b"g", id(3), None);
        drop(stream);
        let item = edit.view().peek(&key).expect("just made");
        let whole = FetchedItem::copy(item, true).value.len();
        for (behind, limit, count) in
            [(0, u64::MAX, 5000), (4990, u64::MAX, 10), (2000, 20, 20), (5000, 9, 0)]
        {
            let fetched = FetchedItem::copy_behind(item, id(behind), limit);
            let per_block = 600;
            assert!(fetched.value.len() < whole * count / 5000 + 2 * per_block, "{behind}");
            let mut overlay = Overlay::new(hasher);
            overlay.load(Fetched { database, key: b"k".to_vec(), item: Some(fetched) }, 100);
            let inside = overlay.edit(database, 100);
            let Value::Stream(stream) = inside.view().peek(&key).expect("loaded").value() else {
                panic!("a stream")
            };
            let found = stream.entries_from(id(behind + 1)).take(count).map(|entry| entry.id.ms);
            assert!(found.eq(behind + 1..behind + 1 + count as u64), "{behind}");
            assert_eq!(stream.last_id(), id(5000));
        }
    }

    #[test]
    fn what_changed_and_nothing_else_comes_out() {
        let mut overlay = Overlay::new(KeyHasher::new(5));
        let database = DatabaseIndex(3);
        let item = |value: &str| {
            let shape = Shape::String(StringForm::Automatic);
            Some(FetchedItem { value: value.into(), shape, deadline: Some(Deadline(900)) })
        };
        for round in 0..2 {
            for (key, item) in [("a", item("1")), ("b", None), ("c", item("3")), ("d", item("4"))] {
                overlay.load(Fetched { database, key: key.into(), item }, 100);
            }
            let hasher = KeyHasher::new(5);
            let key = |name: &'static str| Key::new(name.as_bytes(), hasher.hash(name.as_bytes()));
            let mut edit = overlay.edit(database, 100);
            assert_eq!(edit.view().peek(&key("a")).and_then(|item| item.string()), Some(&b"1"[..]));
            assert!(edit.view().peek(&key("b")).is_none());
            edit.set_string(&key("b"), b"new", StringForm::Raw, Expiry::Keep);
            assert!(edit.remove(&key("c")));
            // The same value again is a change, as it is for WATCH.
            edit.set_string(&key("d"), b"4", StringForm::Automatic, Expiry::Keep);
            let mut names = Vec::new();
            overlay.drain(100, |_, key, arguments| {
                assert_eq!(key.bytes(), arguments.at(1));
                names.push(key.bytes().to_vec());
            });
            assert_eq!(names, [b"b", b"c", b"d"], "round {round}");
        }
    }
}
