//! Groups of consumers: who was given which entries and has not acknowledged them.
//!
//! Four maps, so that everything is found in a few steps: consumers by name; names by the
//! consumers' numbers; pending entries by id, each with its consumer's number; and the same ids by
//! consumer. Numbers are known in here alone.

use super::id::StreamId;
use crate::value::sorted_map::{self, SortedMap};
use smallvec::SmallVec;

/// Bytes of a group beside its name and its maps.
const GROUP_BYTES: usize = 384;
/// A consumer that was never given anything.
const NEVER: i64 = -1;

/// Number of a consumer within its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Number(u32);

impl Number {
    fn bytes(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }

    fn of_key(key: &[u8]) -> Number {
        Number(u32::from_be_bytes(*key.first_chunk().expect("such keys begin with a number")))
    }

    /// The key of an entry that the consumer holds.
    fn held(self, id: StreamId) -> [u8; 20] {
        let mut key = [0; 20];
        key[..4].copy_from_slice(&self.bytes());
        key[4..].copy_from_slice(&id.bytes());
        key
    }
}

/// A consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consumer<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// When it last asked for something, milliseconds since the Unix epoch.
    pub seen_ms: i64,
    /// When it last was given something.
    pub active_ms: Option<i64>,
    number: Number,
}

impl<'a> Consumer<'a> {
    /// Its number within the group.
    pub(super) fn number(&self) -> u32 {
        self.number.0
    }

    fn read([name, value]: [&'a [u8]; 2]) -> Consumer<'a> {
        let time = |at: usize| {
            let bytes = value[at..].first_chunk().expect("a consumer has two times");
            i64::from_le_bytes(*bytes)
        };
        let active_ms = Some(time(12)).filter(|time| *time != NEVER);
        Consumer { name, number: Number::of_key(value), seen_ms: time(4), active_ms }
    }

    fn write(&self) -> [u8; 20] {
        let mut value = [0; 20];
        value[..4].copy_from_slice(&self.number.bytes());
        value[4..12].copy_from_slice(&self.seen_ms.to_le_bytes());
        value[12..].copy_from_slice(&self.active_ms.unwrap_or(NEVER).to_le_bytes());
        value
    }
}

/// An entry that was given to a consumer and is not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending<'a> {
    /// Its id.
    pub id: StreamId,
    /// The consumer's name.
    pub consumer: &'a [u8],
    /// When it was last given to it.
    pub delivered_ms: i64,
    /// How often it was given to somebody.
    pub count: u64,
}

/// A pending entry without its consumer's name, which is looked up when it is asked for.
#[derive(Clone, Copy, Debug)]
struct Held {
    id: StreamId,
    number: Number,
    delivered_ms: i64,
    count: u64,
}

impl Held {
    fn read([key, value]: [&[u8]; 2]) -> Held {
        let time = value[4..].first_chunk().expect("a pending entry has a time");
        let mut count = [0; 8];
        count[..value.len() - 12].copy_from_slice(&value[12..]);
        Held {
            id: StreamId::of_key(key),
            number: Number::of_key(value),
            delivered_ms: i64::from_le_bytes(*time),
            count: u64::from_le_bytes(count),
        }
    }

    /// Number, time, and as many bytes of the count as say something.
    fn write(&self) -> SmallVec<[u8; 20]> {
        let count = self.count.to_le_bytes();
        let size = (8 - self.count.leading_zeros() as usize / 8).min(8);
        let mut value = SmallVec::new();
        value.extend_from_slice(&self.number.bytes());
        value.extend_from_slice(&self.delivered_ms.to_le_bytes());
        value.extend_from_slice(&count[..size]);
        value
    }
}

/// A group of consumers.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// The last entry that was given to anybody.
    pub(super) last_id: StreamId,
    /// How many entries were added up to that one, as far as that is known.
    pub(super) entries_read: Option<u64>,
    consumers: SortedMap,
    names: SortedMap,
    pending: SortedMap,
    held: SortedMap,
}

impl Group {
    /// One without consumers.
    pub(super) fn new(last_id: StreamId, entries_read: Option<u64>) -> Group {
        Group { last_id, entries_read, ..Group::default() }
    }

    /// The last entry that was given to anybody.
    pub fn last_id(&self) -> StreamId {
        self.last_id
    }

    /// How many entries were added up to that one, as far as that is known.
    pub fn entries_read(&self) -> Option<u64> {
        self.entries_read
    }

    /// How many consumers there are.
    pub fn consumer_count(&self) -> u64 {
        self.consumers.count()
    }

    /// How many entries are pending.
    pub fn pending_count(&self) -> u64 {
        self.pending.count()
    }

    /// The consumers in the order of their names, from a rank on.
    pub fn consumers_from(&self, rank: u64) -> impl Iterator<Item = Consumer<'_>> {
        self.consumers.records_from(rank).map(Consumer::read)
    }

    /// The consumer of a name.
    pub fn consumer(&self, name: &[u8]) -> Option<Consumer<'_>> {
        let rank = sorted_map::find(&self.consumers, name).ok()?;
        self.consumers.get(rank).map(Consumer::read)
    }

    fn name(&self, number: Number) -> &[u8] {
        sorted_map::get(&self.names, &number.bytes()).expect("numbers are those of consumers")
    }

    fn named(&self, held: Held) -> Pending<'_> {
        let Held { id, number, delivered_ms, count } = held;
        Pending { id, consumer: self.name(number), delivered_ms, count }
    }

    /// The pending entries in the order of their ids, from one on.
    pub fn pending_from(&self, id: StreamId) -> impl Iterator<Item = Pending<'_>> {
        sorted_map::from(&self.pending, &id.bytes()).map(|record| self.named(Held::read(record)))
    }

    /// The least and the greatest id of what is pending.
    pub fn pending_ends(&self) -> Option<(StreamId, StreamId)> {
        let last = self.pending.count().checked_sub(1)?;
        let id = |rank| self.pending.get(rank).map(|[key, _]| StreamId::of_key(key));
        id(0).zip(id(last))
    }

    /// A pending entry.
    pub fn pending(&self, id: StreamId) -> Option<Pending<'_>> {
        self.find(id).map(|held| self.named(held))
    }

    fn find(&self, id: StreamId) -> Option<Held> {
        let rank = sorted_map::find(&self.pending, &id.bytes()).ok()?;
        self.pending.get(rank).map(Held::read)
    }

    /// What a consumer holds, in the order of the ids, from one on.
    pub fn held_from<'g>(
        &'g self,
        consumer: &Consumer<'g>,
        id: StreamId,
    ) -> impl Iterator<Item = Pending<'g>> + use<'g> {
        let (number, name) = (consumer.number, consumer.name);
        sorted_map::from(&self.held, &number.held(id))
            .take_while(move |[key, _]| Number::of_key(key) == number)
            .map(move |[key, _]| {
                let held = self.find(StreamId::of_key(&key[4..]));
                let Held { id, delivered_ms, count, .. } = held.expect("what is held is pending");
                Pending { id, consumer: name, delivered_ms, count }
            })
    }

    /// How many entries a consumer holds.
    pub fn held_count(&self, consumer: &Consumer<'_>) -> u64 {
        let rank = |id| {
            let (Ok(rank) | Err(rank)) = sorted_map::find(&self.held, &consumer.number.held(id));
            rank
        };
        let last = sorted_map::find(&self.held, &consumer.number.held(StreamId::MAX)).is_ok();
        rank(StreamId::MAX) + u64::from(last) - rank(StreamId::MIN)
    }

    /// What is held, in the order of the consumers, from a rank on.
    pub(super) fn held_by_rank(&self, rank: u64) -> impl Iterator<Item = Pending<'_>> {
        self.held.records_from(rank).map(|[key, _]| {
            let held = self.find(StreamId::of_key(&key[4..]));
            self.named(held.expect("what is held is pending"))
        })
    }

    /// Adds a consumer. False when there is one of this name.
    pub(super) fn add_consumer(
        &mut self,
        name: &[u8],
        seen_ms: i64,
        active_ms: Option<i64>,
    ) -> bool {
        let last = self.names.count().checked_sub(1).and_then(|rank| self.names.get(rank));
        let next = last.map_or(Some(0), |[key, _]| Number::of_key(key).0.checked_add(1));
        let number = next.expect("memory ends before the numbers of consumers");
        self.add_numbered(name, number, seen_ms, active_ms)
    }

    /// Adds a consumer with a number. False when there is one of this name or number.
    pub(super) fn add_numbered(
        &mut self,
        name: &[u8],
        number: u32,
        seen_ms: i64,
        active_ms: Option<i64>,
    ) -> bool {
        let number = Number(number);
        let is_new = sorted_map::find(&self.consumers, name).is_err()
            && sorted_map::find(&self.names, &number.bytes()).is_err();
        if is_new {
            let consumer = Consumer { name, seen_ms, active_ms, number };
            sorted_map::put(&mut self.consumers, name, &consumer.write());
            sorted_map::put(&mut self.names, &number.bytes(), name);
        }
        is_new
    }

    /// Notes when a consumer was seen, and when it was given something.
    pub(super) fn touch_consumer(&mut self, name: &[u8], seen_ms: i64, active_ms: Option<i64>) {
        let Some(before) = self.consumer(name) else { return };
        let active_ms = active_ms.or(before.active_ms);
        let value = Consumer { seen_ms, active_ms, ..before }.write();
        sorted_map::put(&mut self.consumers, name, &value);
    }

    /// Takes out a consumer and all that it holds. Returns how much that was; `None` when there is
    /// no such consumer.
    pub(super) fn remove_consumer(&mut self, name: &[u8]) -> Option<u64> {
        let consumer = self.consumer(name)?;
        let (number, count) = (consumer.number, self.held_count(&consumer));
        let (Ok(first) | Err(first)) = sorted_map::find(&self.held, &number.held(StreamId::MIN));
        let mut taken = 0;
        // What was given to it together lies together.
        while taken < count {
            let [key, _] = self.held.get(first + taken).expect("it holds so many");
            let rank = sorted_map::find(&self.pending, &key[4..]);
            let rank = rank.expect("what is held is pending");
            let is_its = |[_, value]: &[&[u8]; 2]| Number::of_key(value) == number;
            let run = self.pending.records_from(rank).take_while(is_its).count() as u64;
            self.pending.remove_range(rank, run);
            taken += run;
        }
        self.held.remove_range(first, count);
        sorted_map::remove(&mut self.names, &number.bytes());
        sorted_map::remove(&mut self.consumers, name);
        Some(count)
    }

    /// Gives an entry to a consumer that is there, whoever holds it.
    pub(super) fn give(&mut self, given: Pending<'_>) {
        let Pending { id, consumer, delivered_ms, count } = given;
        let number = self.consumer(consumer).expect("the consumer is there").number;
        let before = self.find(id).map(|held| held.number);
        if before != Some(number) {
            if let Some(before) = before {
                sorted_map::remove(&mut self.held, &before.held(id));
            }
            sorted_map::put(&mut self.held, &number.held(id), &[]);
        }
        let held = Held { id, number, delivered_ms, count };
        sorted_map::put(&mut self.pending, &id.bytes(), &held.write());
    }

    /// Takes an entry from whoever holds it. Did anybody?
    pub(super) fn take(&mut self, id: StreamId) -> bool {
        let Some(held) = self.find(id) else { return false };
        sorted_map::remove(&mut self.pending, &id.bytes());
        sorted_map::remove(&mut self.held, &held.number.held(id))
    }

    /// Bytes of memory that it takes, about; of its content alone.
    pub(super) fn bytes(&self) -> usize {
        let maps = [&self.consumers, &self.names, &self.pending, &self.held];
        GROUP_BYTES + maps.iter().map(|map| map.bytes()).sum::<usize>()
    }

    /// Drops up to so many leaves. Are there more?
    pub(super) fn shed(&mut self, leaf_count: usize) -> bool {
        let maps = [&mut self.pending, &mut self.held, &mut self.consumers, &mut self.names];
        match maps.into_iter().find(|map| map.count() > 0) {
            Some(map) => {
                map.shed(leaf_count);
                true
            }
            None => false,
        }
    }
}
