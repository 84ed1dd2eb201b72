//! A small keyspace that holds what a transaction has read, for the ordinary command functions to run on.
//!
//! What they change is found by the versions of watched keys: every key is watched. Reused from transaction to
//! transaction; between two of them it is empty.

use super::record::install;
use crate::arguments::Arguments;
use crate::ids::{DatabaseIndex, Deadline};
use crate::keyspace::{Edit, Expiry, Item, Key, KeyHasher, Keyspace, StringForm};

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
    /// Bytes of the string; empty when only its presence was asked for.
    pub value: Vec<u8>,
    /// Its form.
    pub form: StringForm,
    /// When it ends.
    pub deadline: Option<Deadline>,
}

impl FetchedItem {
    /// Copies an item, its value too if wanted.
    pub fn copy(item: Item<'_>, with_value: bool) -> FetchedItem {
        let value = item.string().filter(|_| with_value).unwrap_or_default().to_vec();
        FetchedItem { value, form: item.string_form(), deadline: item.deadline() }
    }
}

struct Loaded {
    database: DatabaseIndex,
    key: Vec<u8>,
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

    /// Puts a key in as it was in its shard. Each key once, before anything is run.
    pub fn load(&mut self, fetched: Fetched, now_ms: i64) {
        let Fetched { database, key, item } = fetched;
        let hashed = Key::new(&key, self.keyspace.hasher().hash(&key));
        if let Some(item) = item {
            let expiry = item.deadline.map_or(Expiry::Never, Expiry::At);
            self.keyspace.edit(database, now_ms).set_string(
                &hashed,
                &item.value,
                item.form,
                expiry,
            );
        }
        let version = self.keyspace.watch(database, &hashed, now_ms);
        self.loaded.push(Loaded { database, key, version });
    }

    /// Where the commands run.
    pub fn edit(&mut self, database: DatabaseIndex, now_ms: i64) -> Edit<'_> {
        self.keyspace.edit(database, now_ms)
    }

    /// Hands out an effect for every key that was changed, an operation [`super::INSTALL`] with these arguments, and empties
    /// the overlay.
    pub fn drain(
        &mut self,
        now_ms: i64,
        mut effect: impl FnMut(DatabaseIndex, &Key<'_>, Arguments<'_>),
    ) {
        for Loaded { database, key, version } in std::mem::take(&mut self.loaded) {
            let key = Key::new(&key, self.keyspace.hasher().hash(&key));
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
    use super::*;

    #[test]
    fn what_changed_and_nothing_else_comes_out() {
        let mut overlay = Overlay::new(KeyHasher::new(5));
        let database = DatabaseIndex(3);
        let item = |value: &str| {
            let (form, deadline) = (StringForm::Automatic, Some(Deadline(900)));
            Some(FetchedItem { value: value.into(), form, deadline })
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
