//! Large collections as they were at a moment, whatever becomes of them.
//!
//! A version shares the nodes of its collection's trees ([`super::tree`]): taking one costs a copy
//! of their roots, whatever they hold, and what is changed later is copied on the way, once. It
//! belongs to nobody's keyspace and is on no account. What it alone still has when it ends may be
//! much, so whoever is through with it sheds it bit by bit.

use super::Value;
use super::body::{Body, Stored, Trees};
use super::hash::Hash;
use super::list::List;
use super::set::Set;
use super::sorted_set::SortedSet;
use super::stream::Stream;

/// What a version is of.
#[derive(Clone, Copy, Debug)]
enum Kind {
    List,
    Set,
    SortedSet,
    /// As it was seen at a time, milliseconds since the Unix epoch.
    Hash(i64),
    /// Without its groups.
    Stream,
}

/// A large collection as it was; of a stream, its entries.
#[derive(Debug)]
pub struct Version {
    kind: Kind,
    body: Body,
}

impl Version {
    /// Of a collection as it is. `None` for a small one, and for strings.
    pub fn of(value: Value<'_>) -> Option<Version> {
        let (kind, stored) = match value {
            Value::String(_) => return None,
            Value::List(list) => (Kind::List, list.stored),
            Value::Set(set) => (Kind::Set, set.stored),
            Value::SortedSet(set) => (Kind::SortedSet, set.stored),
            Value::Hash(hash) => (Kind::Hash(hash.now_ms), hash.stored),
            Value::Stream(stream) => {
                let (hasher, content) = (crate::keyspace::KeyHasher::new(0), stream.content?);
                let trees = Trees::Stream(Box::new(content.entries()));
                return Some(Version { kind: Kind::Stream, body: Body { hasher, trees } });
            }
        };
        match stored {
            Stored::Tree(body) => Some(Version { kind, body: body.clone() }),
            Stored::Pack(_) | Stored::Integers(_) => None,
        }
    }

    /// The collection.
    pub fn value(&self) -> Value<'_> {
        let stored = Stored::Tree(&self.body);
        match self.kind {
            Kind::List => Value::List(List::new(stored)),
            Kind::Set => Value::Set(Set::new(stored)),
            Kind::SortedSet => Value::SortedSet(SortedSet::new(stored)),
            Kind::Hash(now_ms) => Value::Hash(Hash::new(stored).seen_at(now_ms)),
            Kind::Stream => Value::Stream(Stream::new(stored)),
        }
    }

    /// Drops up to so many leaves. Are there more? For one that nobody reads any more.
    pub fn shed(&mut self, leaf_count: usize) -> bool {
        self.body.shed(leaf_count)
    }
}
