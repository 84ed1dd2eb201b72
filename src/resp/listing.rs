//! Rows of elements in replies, and the rest of those that are too long to be written at once.
//!
//! A command that shows many elements of a collection says which ones by a [`Listing`] and hands
//! both to [`Reply::list`]. That writes as many as [`LONG_REPLY_SLICE_BYTES`] have room for. What
//! is left of a large collection becomes a [`Rest`], where whoever takes the reply can go on with
//! one: a version of the collection as it is now, and the place in it.
//!
//! A rest needs neither the shard nor its core. What its version alone still has when it ends goes
//! to a [`LazyFree`], whose core frees it bit by bit.

use crate::limits::{LONG_REPLY_SLICE_BYTES, LONG_REPLY_SLICE_ELEMENTS};
use crate::resp::reply::{Protocol, Reply};
use ringraft_shards::arguments::OwnedArguments;
use ringraft_shards::value::stream::{Entry, StreamId};
use ringraft_shards::value::{Value, Version};
use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What is shown of each element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// It, or its member or field.
    Names,
    /// The value of a field.
    Values,
    /// A field and its value.
    Fields,
    /// A member and its score.
    Scores,
}

/// In which direction elements are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the first on.
    Up,
    /// From the last on.
    Down,
}

/// Where a listing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Rank(u64),
    /// In a stream.
    Id(StreamId),
}

/// Elements that are to be shown.
#[derive(Clone, Copy, Debug)]
pub struct Listing {
    shown: Shown,
    direction: Direction,
    place: Place,
    /// How many are still to come.
    left: u64,
}

impl Listing {
    /// So many elements from a rank on, which are there. Those of a set go on with its first one
    /// behind its last one.
    pub fn from(rank: u64, count: u64, shown: Shown) -> Listing {
        Listing { shown, direction: Direction::Up, place: Place::Rank(rank), left: count }
    }

    /// So many elements from a rank on backwards.
    pub fn back_from(rank: u64, count: u64, shown: Shown) -> Listing {
        Listing { direction: Direction::Down, ..Listing::from(rank, count, shown) }
    }

    /// So many entries of a stream from an id on.
    pub fn entries(direction: Direction, from: StreamId, count: u64) -> Listing {
        Listing { shown: Shown::Names, direction, place: Place::Id(from), left: count }
    }

    /// Are all elements shown?
    pub fn is_done(&self) -> bool {
        self.left == 0
    }

    /// Shows elements until the reply has reached a size, or so many were looked at.
    pub fn write_some(
        &mut self,
        value: Value<'_>,
        reply: &mut Reply<'_>,
        size_max: usize,
        looked_max: u64,
    ) {
        let mut steps = Steps { left: self.left, size_max, looked: 0, looked_max };
        let (shown, at) = (self.shown, self.place);
        match (value, at, self.direction) {
            (Value::List(list), Place::Rank(rank), direction) => {
                let show = |reply: &mut Reply<'_>, element: &[u8]| {
                    reply.bulk(element);
                    1
                };
                match direction {
                    Direction::Up => steps.go(list.elements_from(rank), reply, show),
                    Direction::Down => steps.go(list.elements_back_from(rank), reply, show),
                }
            }
            (Value::Set(set), Place::Rank(rank), Direction::Up) => {
                let show = |reply: &mut Reply<'_>, member: Cow<'_, [u8]>| {
                    reply.bulk(&member);
                    1
                };
                steps.go(set.members_from(rank), reply, show);
                if rank + steps.looked == set.count() {
                    steps.go(set.members_from(0), reply, show);
                }
            }
            (Value::Hash(hash), Place::Rank(rank), Direction::Up) => {
                steps.go(hash.ranks_from(rank), reply, |reply, pair| match pair {
                    Some((field, value)) => {
                        if shown != Shown::Values {
                            reply.bulk(field);
                        }
                        if shown != Shown::Names {
                            reply.bulk(value);
                        }
                        1
                    }
                    None => 0,
                });
            }
            (Value::SortedSet(set), Place::Rank(rank), direction) => {
                let in_pairs = shown == Shown::Scores && reply.protocol() == Protocol::Resp3;
                let show = |reply: &mut Reply<'_>, (member, score): (&[u8], f64)| {
                    if in_pairs {
                        reply.array(2);
                    }
                    reply.bulk(member);
                    if shown == Shown::Scores {
                        reply.double(score);
                    }
                    1
                };
                match direction {
                    Direction::Up => steps.go(set.members_from(rank), reply, show),
                    Direction::Down => steps.go(set.members_back_from(rank), reply, show),
                }
            }
            (Value::Stream(stream), Place::Id(id), direction) => {
                let mut next = Some(id);
                let show = |reply: &mut Reply<'_>, entry: Entry<'_>| {
                    reply_entry(&entry, reply);
                    next = match direction {
                        Direction::Up => entry.id.next(),
                        Direction::Down => entry.id.previous(),
                    };
                    1
                };
                match direction {
                    Direction::Up => steps.go(stream.entries_from(id), reply, show),
                    Direction::Down => steps.go(stream.entries_back_from(id), reply, show),
                }
                // Without one there is no entry left either.
                self.place = Place::Id(next.unwrap_or(id));
            }
            _ => unreachable!("a listing is of the value that it was made for"),
        }
        if let Place::Rank(rank) = at {
            self.place = Place::Rank(match self.direction {
                Direction::Up => (rank + steps.looked) % value.count().max(1),
                Direction::Down => rank.saturating_sub(steps.looked),
            });
        }
        self.left = steps.left;
    }
}

/// How far to go.
struct Steps {
    left: u64,
    size_max: usize,
    looked: u64,
    looked_max: u64,
}

impl Steps {
    /// `show` writes an element, and says how many it has shown.
    #[inline]
    fn go<T>(
        &mut self,
        mut elements: impl Iterator<Item = T>,
        reply: &mut Reply<'_>,
        mut show: impl FnMut(&mut Reply<'_>, T) -> u64,
    ) {
        if !self.goes_on(reply) {
            return;
        }
        let _ = elements.try_for_each(|element| {
            self.left -= show(reply, element);
            self.looked += 1;
            match self.goes_on(reply) {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        });
    }

    fn goes_on(&self, reply: &Reply<'_>) -> bool {
        self.left > 0 && reply.size() < self.size_max && self.looked < self.looked_max
    }
}

/// The text of an id.
pub fn id_text(id: StreamId) -> Vec<u8> {
    let (mut ms, mut sequence) = (itoa::Buffer::new(), itoa::Buffer::new());
    [ms.format(id.ms), "-", sequence.format(id.sequence)].concat().into_bytes()
}

/// Writes an id.
pub fn reply_id(id: StreamId, reply: &mut Reply<'_>) {
    reply.bulk(&id_text(id));
}

/// Writes an entry: its id, its names and values.
pub fn reply_entry(entry: &Entry<'_>, reply: &mut Reply<'_>) {
    reply.array(2);
    reply_id(entry.id, reply);
    reply.array(2 * entry.count());
    for (name, value) in entry.pairs() {
        reply.bulk(name);
        reply.bulk(value);
    }
}

/// A request whose long reply may have to be noted: its command's number and its arguments.
#[derive(Debug)]
pub struct LongReply {
    /// The command's number.
    pub command: u16,
    /// The request.
    pub arguments: OwnedArguments,
    /// Bytes of the reply, once it is whole.
    pub size: u64,
}

/// What of a reply is still to be written.
#[derive(Debug)]
pub struct Rest {
    /// `None` when all is written.
    version: Option<Version>,
    listing: Listing,
    protocol: Protocol,
    /// Bytes that are written and not all sent.
    bytes: Vec<u8>,
    /// Behind which byte of the buffer that the reply's beginning was written to it belongs.
    pub at: usize,
    /// Who asked what, and how long the reply is so far.
    pub noted: Option<Box<LongReply>>,
    lazy_free: Option<Arc<LazyFree>>,
}

impl Rest {
    /// Lets a core free what it leaves.
    pub fn leave_to(&mut self, lazy_free: &Arc<LazyFree>) {
        self.lazy_free = Some(lazy_free.clone());
    }

    /// What is written and not taken.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Is there nothing more to write?
    pub fn is_whole(&self) -> bool {
        self.version.is_none()
    }

    /// Writes the next slice, when what was written is all taken. Returns its size. Cost: what the
    /// slice has, and the way to its first element.
    pub fn write_slice(&mut self) -> usize {
        let Some(version) = &self.version else { return 0 };
        self.bytes.clear();
        let mut reply = Reply::new(&mut self.bytes, self.protocol);
        let (size, looked) = (LONG_REPLY_SLICE_BYTES, LONG_REPLY_SLICE_ELEMENTS);
        self.listing.write_some(version.value(), &mut reply, size, looked);
        if let Some(noted) = &mut self.noted {
            noted.size += self.bytes.len() as u64;
        }
        if self.listing.is_done() {
            self.leave();
        }
        self.bytes.len()
    }

    /// Forgets what was written: all of it is sent.
    pub fn taken(&mut self) {
        self.bytes.clear();
    }

    /// Bytes of memory that it holds beside its version.
    pub fn memory(&self) -> usize {
        size_of::<Rest>() + self.bytes.capacity()
    }

    fn leave(&mut self) {
        if let (Some(version), Some(lazy_free)) = (self.version.take(), &self.lazy_free) {
            lazy_free.push(version);
        }
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Reply<'_> {
    /// Shows elements of a value, at the reply's end: nothing may be written behind them. Those
    /// that are too many for now become its rest.
    pub fn list(&mut self, value: Value<'_>, mut listing: Listing) {
        if !self.takes_rest() {
            return listing.write_some(value, self, usize::MAX, u64::MAX);
        }
        let (size, looked) = (self.size() + LONG_REPLY_SLICE_BYTES, LONG_REPLY_SLICE_ELEMENTS);
        listing.write_some(value, self, size, looked);
        if !listing.is_done() {
            self.leave_rest(value, listing);
        }
    }

    #[cold]
    fn leave_rest(&mut self, value: Value<'_>, mut listing: Listing) {
        let Some(version) = Version::of(value) else {
            // A small one, all of which is not much more.
            return listing.write_some(value, self, usize::MAX, u64::MAX);
        };
        let rest = Rest {
            version: Some(version),
            listing,
            protocol: self.protocol(),
            bytes: Vec::new(),
            at: self.size(),
            noted: None,
            lazy_free: None,
        };
        self.put_rest(Box::new(rest));
    }
}

/// What versions have left that nobody reads any more. Rests of it end on other cores too.
#[derive(Debug, Default)]
pub struct LazyFree {
    versions: Mutex<Vec<Version>>,
    /// Is there any? Looked at by its core alone, once per turn.
    has_any: AtomicBool,
}

impl LazyFree {
    fn push(&self, version: Version) {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner).push(version);
        self.has_any.store(true, Ordering::Release);
    }

    /// Is there anything to free?
    #[inline(always)]
    pub fn has_any(&self) -> bool {
        self.has_any.load(Ordering::Relaxed)
    }

    /// Frees up to so many leaves.
    #[cold]
    pub fn shed(&self, leaf_count: usize) {
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut version) = versions.pop() else {
            return self.has_any.store(false, Ordering::Relaxed);
        };
        drop(versions);
        if version.shed(leaf_count) {
            self.push(version);
        }
    }
}
