//! Keys as they were before something changed them, so that it can be undone.
//!
//! For what runs on a shard's own items and may have to be given up: each key is saved before its
//! first change, and rolling back puts them all back, the last one first. Reused from one run to
//! the next; nothing is allocated once it has grown.

use super::overlay::set;
use crate::ids::{DatabaseIndex, Deadline};
use crate::keyspace::{Key, KeyHash, Keyspace, Shape, View};
use crate::limits::UNDO_SEARCH_MAX;
use crate::rdb;
use std::collections::HashMap;

/// One key as it was.
#[derive(Clone, Copy)]
struct Saved {
    database: DatabaseIndex,
    hash: KeyHash,
    /// Where its bytes begin; its value's follow.
    start: usize,
    key_length: usize,
    value_length: usize,
    /// `None`: there was no item.
    shape: Option<Shape>,
    deadline: Option<Deadline>,
}

/// What is needed to undo changes of a keyspace.
#[derive(Default)]
pub struct Undo {
    saved: Vec<Saved>,
    /// Keys and values: a string's bytes, or any other value's RDB type and encoding.
    bytes: Vec<u8>,
    /// Where they are, once there are too many to look through.
    known: HashMap<(DatabaseIndex, u64), usize>,
    /// So many are in `known`.
    noted: usize,
}

impl Undo {
    /// Saves a key, unless it was saved before. To be called before it is changed.
    /// Cost: a look-up, and a copy of the value the first time.
    pub fn save(&mut self, view: &View<'_>, key: &Key<'_>) {
        let database = view.database();
        if self.has(database, key) {
            return;
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key.bytes());
        let value_start = self.bytes.len();
        let item = view.peek(key);
        if let Some(item) = item {
            match item.string() {
                Some(string) => self.bytes.extend_from_slice(string),
                None => rdb::write_value(&mut self.bytes, item.value()),
            }
        }
        self.saved.push(Saved {
            database,
            hash: key.hash(),
            start,
            key_length: key.bytes().len(),
            value_length: self.bytes.len() - value_start,
            shape: item.map(|item| item.shape()),
            deadline: item.and_then(|item| item.deadline()),
        });
    }

    /// Is it certain that a key was saved? One that is not certain is saved again, which costs a
    /// copy and changes nothing.
    fn has(&mut self, database: DatabaseIndex, key: &Key<'_>) -> bool {
        let is_it = |saved: &Saved| {
            (saved.database, saved.hash) == (database, key.hash())
                && &self.bytes[saved.start..saved.start + saved.key_length] == key.bytes()
        };
        if self.saved.len() <= UNDO_SEARCH_MAX {
            return self.saved.iter().rev().any(is_it);
        }
        for (place, saved) in self.saved.iter().enumerate().skip(self.noted) {
            self.known.entry((saved.database, saved.hash.hash())).or_insert(place);
        }
        self.noted = self.saved.len();
        let place = self.known.get(&(database, key.hash().hash()));
        place.is_some_and(|place| is_it(&self.saved[*place]))
    }

    /// How many keys are saved.
    pub fn count(&self) -> usize {
        self.saved.len()
    }

    /// Forgets what was saved: it will not be undone.
    pub fn clear(&mut self) {
        self.saved.clear();
        self.known.clear();
        self.noted = 0;
        self.bytes.clear();
        self.bytes.shrink_to(crate::limits::UNDO_KEPT_BYTES);
    }

    /// Puts all keys back as they were. Changes that were noted for listeners since the last
    /// operation are forgotten.
    pub fn roll_back(&mut self, keyspace: &mut Keyspace, now_ms: i64) {
        for saved in self.saved.iter().rev() {
            let value_start = saved.start + saved.key_length;
            let key = Key::new(&self.bytes[saved.start..value_start], saved.hash);
            let value = &self.bytes[value_start..value_start + saved.value_length];
            let mut edit = keyspace.edit(saved.database, now_ms);
            match saved.shape {
                Some(shape) => set(&mut edit, &key, shape, value, saved.deadline),
                None => {
                    edit.remove(&key);
                }
            }
            edit.take_changes();
        }
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::{Expiry, KeyHasher, StringForm};
    use crate::random::Random;
    use crate::value::list::End;

    const DATABASE: DatabaseIndex = DatabaseIndex(2);

    /// An item: its shape, its deadline, its value.
    type Seen = (Shape, Option<Deadline>, Vec<u8>);

    /// What a keyspace has of some keys.
    fn picture(keyspace: &Keyspace, names: &[String]) -> Vec<Option<Seen>> {
        let view = keyspace.view(DATABASE, 100);
        let one = |name: &String| {
            let item =
                view.peek(&Key::new(name.as_bytes(), view.hasher().hash(name.as_bytes())))?;
            let mut value = Vec::new();
            match item.string() {
                Some(string) => value.extend_from_slice(string),
                None => rdb::write_value(&mut value, item.value()),
            }
            Some((item.shape(), item.deadline(), value))
        };
        names.iter().map(one).collect()
    }

    /// Whatever is done to saved keys, rolling back brings back what was there; and it can be used
    /// again.
    #[test]
    fn changes_of_any_kind_are_undone() {
        for seed in 1..=4 {
            println!("seed {seed}");
            check_undone(Random::new(seed));
        }
    }

    fn check_undone(mut random: Random) {
        let hasher = KeyHasher::new(5);
        let names: Vec<String> = (0..40).map(|n| format!("key:{n}")).collect();
        let (mut keyspace, mut undo) = (Keyspace::new(hasher), Undo::default());
        for round in 0..100 {
            let before = picture(&keyspace, &names);
            for _ in 0..random.below(60) {
                let name = &names[random.below(40) as usize];
                let key = Key::new(name.as_bytes(), hasher.hash(name.as_bytes()));
                undo.save(&keyspace.view(DATABASE, 100), &key);
                let mut edit = keyspace.edit(DATABASE, 100);
                match random.below(5) {
                    0 => {
                        edit.remove(&key);
                    }
                    1 => edit.set_string(&key, b"12", StringForm::Automatic, Expiry::Keep),
                    2 => {
                        edit.set_deadline(&key, Some(Deadline(500 + round)));
                    }
                    3 => edit.set_string(&key, name.as_bytes(), StringForm::Raw, Expiry::Never),
                    _ => {
                        if let Ok(mut list) = edit.list_mut(&key) {
                            list.push(End::Back, format!("element {round}").as_bytes());
                        }
                    }
                }
            }
            assert!(undo.count() <= names.len(), "each key is saved once");
            if round % 3 == 0 {
                undo.clear();
                continue;
            }
            undo.roll_back(&mut keyspace, 100);
            assert_eq!(picture(&keyspace, &names), before, "round {round}");
        }
    }
}
