//! Streams and their groups beside plain maps, with small and large blocks.

use super::*;
use crate::rdb::{EncodedValue, read_payload, write_payload, write_value};
use crate::value::body::Place;
use crate::value::model::{Alone, Chance, Modelled, Tendency};
use crate::value::{Limits, Part, Value, ValueType, Version, add};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;
/// Consumer, when given, how often.
type Given = (Vec<u8>, i64, u64);

#[derive(Clone, Debug, Default, PartialEq)]
struct GroupModel {
    last_id: StreamId,
    consumers: BTreeSet<Vec<u8>>,
    pending: BTreeMap<StreamId, Given>,
}

/// What a stream is, in maps.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::value) struct Model {
    entries: BTreeMap<StreamId, Pairs>,
    last_id: StreamId,
    added: u64,
    max_deleted_id: StreamId,
    groups: BTreeMap<Vec<u8>, GroupModel>,
}

fn owned(entry: &Entry<'_>) -> (StreamId, Pairs) {
    let pairs = entry.pairs().map(|(name, value)| (name.to_vec(), value.to_vec()));
    (entry.id, pairs.collect())
}

impl Model {
    fn of(stream: Stream<'_>) -> Model {
        let group = |(name, group): (&[u8], &Group)| {
            let given = |pending: Pending<'_>| {
                let given = (pending.consumer.to_vec(), pending.delivered_ms, pending.count);
                (pending.id, given)
            };
            let pending = group.pending_from(StreamId::MIN).map(given).collect();
            let consumers: BTreeSet<Vec<u8>> =
                group.consumers_from(0).map(|consumer| consumer.name.to_vec()).collect();
            for consumer in group.consumers_from(0) {
                let held: Vec<_> = group.held_from(&consumer, StreamId::MIN).collect();
                assert_eq!(held.len() as u64, group.held_count(&consumer));
                let pending = group.pending_from(StreamId::MIN);
                assert!(held.into_iter().eq(pending.filter(|p| p.consumer == consumer.name)));
            }
            assert_eq!(group.consumer_count(), consumers.len() as u64);
            (name.to_vec(), GroupModel { last_id: group.last_id(), consumers, pending })
        };
        Model {
            entries: stream.entries_from(StreamId::MIN).map(|entry| owned(&entry)).collect(),
            last_id: stream.last_id(),
            added: stream.added(),
            max_deleted_id: stream.max_deleted_id(),
            groups: stream.groups().map(group).collect(),
        }
    }

    /// One random change of both.
    fn change(&mut self, chance: &mut Chance<'_>, place: &mut Alone, tendency: Tendency) {
        let stream = &mut StreamMut::new(place);
        match chance.below(30) {
            0 if chance.below(10) == 0 => self.trim(chance, stream),
            0 if chance.below(10) == 0 => self.set_last_id(chance, stream),
            1..7 => self.delete(chance, stream),
            7..12 => self.change_group(chance, stream),
            _ if tendency == Tendency::Grows || chance.below(3) == 0 => self.append(chance, stream),
            _ => self.delete(chance, stream),
        }
    }

    fn delete(&mut self, chance: &mut Chance<'_>, stream: &mut StreamMut<&mut Alone>) {
        // The last entries too, so that blocks become empty from behind.
        let id = match chance.below(3) {
            0 => self.entries.keys().last().copied().unwrap_or_default(),
            _ => self.some_id(chance),
        };
        let was_there = self.entries.remove(&id).is_some();
        assert_eq!(stream.delete(id), was_there);
        if was_there {
            self.max_deleted_id = self.max_deleted_id.max(id);
        }
    }

    fn set_last_id(&mut self, chance: &mut Chance<'_>, stream: &mut StreamMut<&mut Alone>) {
        let last_id = StreamId { ms: self.last_id.ms + chance.below(5), ..self.last_id };
        let added = self.added + chance.below(3);
        let max_deleted_id = self.some_id(chance);
        stream.set_last_id(last_id, Some(added), Some(max_deleted_id));
        (self.last_id, self.added, self.max_deleted_id) = (last_id, added, max_deleted_id);
    }

    fn some_id(&self, chance: &mut Chance<'_>) -> StreamId {
        let at = chance.below(self.entries.len() as u64 + 1) as usize;
        let id = self.entries.keys().nth(at).copied().unwrap_or(self.last_id);
        StreamId { sequence: id.sequence + chance.below(2), ..id }
    }

    fn append(&mut self, chance: &mut Chance<'_>, stream: &mut StreamMut<&mut Alone>) {
        let id = match chance.below(3) {
            0 => StreamId { ms: self.last_id.ms + 1 + chance.below(1000), sequence: 0 },
            1 => StreamId { ms: self.last_id.ms + 1, sequence: chance.below(9) },
            _ => StreamId { sequence: self.last_id.sequence + 1 + chance.below(2), ..self.last_id },
        };
        let names = if chance.below(4) == 0 { chance.below(3) + 1 } else { 2 };
        let pairs: Pairs =
            (0..names).map(|n| (format!("name:{n}").into_bytes(), chance.element(5000))).collect();
        stream.append(id, pairs.iter().map(|(name, value)| (&name[..], &value[..])));
        self.entries.insert(id, pairs);
        (self.last_id, self.added) = (id, self.added + 1);
    }

    fn trim(&mut self, chance: &mut Chance<'_>, stream: &mut StreamMut<&mut Alone>) {
        let whole_blocks = chance.below(2) == 0;
        let limit = if whole_blocks { chance.below(3) * 20 } else { 0 };
        let to = match chance.below(2) {
            0 => TrimTo::Count(self.entries.len() as u64 * chance.below(9) / 8),
            _ => TrimTo::Id(self.some_id(chance)),
        };
        let bounds = block_ends(stream.stream());
        let gone = stream.trim(Trim { to, whole_blocks, limit });
        let wanted = match to {
            TrimTo::Count(count) => (self.entries.len() as u64).saturating_sub(count),
            TrimTo::Id(id) => self.entries.range(..id).count() as u64,
        };
        if whole_blocks {
            let fits = |end: &&u64| **end <= wanted && (limit == 0 || **end <= limit);
            assert_eq!(gone, bounds.iter().filter(fits).max().copied().unwrap_or(0));
        } else {
            assert_eq!(gone, wanted);
        }
        (0..gone).for_each(|_| drop(self.entries.pop_first()));
    }

    fn change_group(&mut self, chance: &mut Chance<'_>, stream: &mut StreamMut<&mut Alone>) {
        let name = format!("group:{}", chance.below(3)).into_bytes();
        let consumer = format!("consumer:{}", chance.below(12)).into_bytes();
        let id = self.some_id(chance);
        if chance.below(200) == 0 {
            assert_eq!(stream.remove_group(&name), self.groups.remove(&name).is_some());
            return;
        }
        let is_new = !self.groups.contains_key(&name);
        assert_eq!(stream.add_group(&name, id, None), is_new);
        let model = self.groups.entry(name.clone()).or_default();
        if is_new {
            model.last_id = id;
        }
        let mut group = stream.group_mut(&name).expect("just made");
        match chance.below(20) {
            0 => {
                let held = model.pending.values().filter(|given| given.0 == consumer).count();
                let was_there = model.consumers.remove(&consumer);
                model.pending.retain(|_, given| given.0 != consumer);
                assert_eq!(group.remove_consumer(&consumer), was_there.then_some(held as u64));
            }
            1..6 => {
                assert_eq!(group.take(id), model.pending.remove(&id).is_some());
            }
            6 => {
                group.set_last_id(id, Some(7));
                model.last_id = id;
            }
            _ => {
                assert_eq!(
                    group.add_consumer(&consumer, 3, None),
                    model.consumers.insert(consumer.clone())
                );
                let (delivered_ms, count) = (chance.below(99) as i64, chance.below(9));
                group.give(Pending { id, consumer: &consumer, delivered_ms, count });
                group.touch_consumer(&consumer, 4, Some(5));
                model.pending.insert(id, (consumer, delivered_ms, count));
            }
        }
    }

    fn check_ranges(&self, chance: &mut Chance<'_>, stream: Stream<'_>) {
        let (from, to) = (self.some_id(chance), self.some_id(chance));
        let until = self.some_id(chance);
        let between = match from <= until {
            true => self.entries.range(from..=until).count() as u64,
            false => 0,
        };
        assert_eq!(stream.count_between(from, until), between);
        let forward = stream.entries_from(from).take(30).map(|entry| owned(&entry));
        let expected = self.entries.range(from..).take(30);
        assert!(forward.eq(expected.map(|(id, pairs)| (*id, pairs.clone()))));
        let back = stream.entries_back_from(to).take(30).map(|entry| owned(&entry));
        let expected = self.entries.range(..=to).rev().take(30);
        assert!(back.eq(expected.map(|(id, pairs)| (*id, pairs.clone()))));
        assert_eq!(stream.get(from).is_some(), self.entries.contains_key(&from));
        assert_eq!(stream.first().map(|entry| entry.id), self.entries.keys().next().copied());
        assert_eq!(stream.last().map(|entry| entry.id), self.entries.keys().last().copied());
        assert_eq!(stream.count(), self.entries.len() as u64);
    }
}

/// How many entries there are up to the end of each block.
fn block_ends(stream: Stream<'_>) -> Vec<u64> {
    let mut ends = vec![];
    let _ = stream.visit(1, &mut |part| {
        let StreamPart::Block(block) = part else { return ControlFlow::Break(()) };
        ends.push(ends.last().copied().unwrap_or(0) + block.count());
        ControlFlow::Continue(())
    });
    ends
}

fn text(stream: Stream<'_>, from: u64) -> Vec<String> {
    let mut parts = vec![];
    let _ = stream.visit(from, &mut |part| {
        parts.push(format!("{part:?}"));
        ControlFlow::Continue(())
    });
    parts
}

fn built(value: &EncodedValue<'_>, limits: Limits) -> Alone {
    let mut place = Alone::new(limits);
    let read = value.each(&mut |part: Part<'_>| {
        assert_eq!(add(&mut place, value.value_type(), part), Some(true));
        Ok(())
    });
    assert_eq!(read, Ok(()));
    place
}

/// The stream as a snapshot carries it.
fn loaded(stream: Stream<'_>, limits: Limits) -> Alone {
    let mut bytes = Vec::new();
    write_value(&mut bytes, Value::Stream(stream));
    built(&EncodedValue::read(bytes[0], &bytes[1..]).expect("just written"), limits)
}

/// The stream is what the model says, in memory and by way of bytes, whole and from every part on.
fn check_whole(model: &Model, stream: Stream<'_>) {
    assert!(&Model::of(stream) == model);
    let Some(content) = stream.content else { return };
    let groups = content.groups.iter().map(|(name, group)| name.len() + group.bytes());
    assert_eq!(content.group_bytes, groups.sum::<usize>(), "the account");
    let parts = text(stream, 0);
    assert_eq!(parts.len() as u64, stream.part_count());
    for from in (0..parts.len()).step_by(97) {
        assert!(text(stream, from as u64) == parts[from..], "from {from}");
    }
    let loaded = loaded(stream, Limits::default());
    let copy = Stream::new(loaded.stored());
    assert!(text(copy, 0) == parts, "blocks and all");
    assert_eq!(copy.content.map(Content::bytes), Some(content.bytes()));
    let mut payload = Vec::new();
    write_payload(&mut payload, Value::Stream(stream));
    let restored = built(&read_payload(&payload).expect("just written"), Limits::default());
    assert!(&Model::of(Stream::new(restored.stored())) == model);
}

/// A stream beside maps.
pub(in crate::value) struct Streams {
    place: Alone,
    model: Model,
}

impl Streams {
    fn stream(&self) -> Stream<'_> {
        Stream::new(self.place.stored())
    }
}

impl Modelled for Streams {
    const TYPE: ValueType = ValueType::Stream;
    type Model = Model;

    fn new(limits: Limits) -> Streams {
        let limits = match limits.hash_entries {
            8 => Limits { stream_entries: 3, ..limits },
            0 => Limits { stream_bytes: 200, stream_entries: 0, ..limits },
            _ => limits,
        };
        Streams { place: Alone::new(limits), model: Model::default() }
    }

    fn change(&mut self, chance: &mut Chance<'_>, tendency: Tendency) {
        self.model.change(chance, &mut self.place, tendency);
    }

    fn glance(&self, chance: &mut Chance<'_>) {
        self.model.check_ranges(chance, self.stream());
    }

    fn model(&self) -> &Model {
        &self.model
    }

    fn value(&self) -> Value<'_> {
        Value::Stream(self.stream())
    }

    fn place(self) -> Alone {
        self.place
    }

    fn check(value: Value<'_>, model: &Model, chance: &mut Chance<'_>) {
        let Value::Stream(stream) = value else { unreachable!("it is a stream") };
        model.check_ranges(chance, stream);
        check_whole(model, stream);
    }

    fn check_version(version: &Version, model: &Model, chance: &mut Chance<'_>) {
        let Value::Stream(stream) = version.value() else { unreachable!("it is a stream") };
        model.check_ranges(chance, stream);
        assert!(Model::of(stream).entries == model.entries);
        assert_eq!(stream.last_id(), model.last_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::model::{each_seed, limits_of};

    #[test]
    fn streams_are_maps() {
        each_seed::<Streams>();
    }

    /// A replica that is loaded from a snapshot now and then, and goes on from there for a while.
    #[test]
    fn what_was_loaded_goes_on_alike() {
        for seed in 0..if cfg!(miri) { 2 } else { 9 } {
            println!("seed {seed}");
            let mut chance = Chance::Seeded(seed);
            let Streams { mut place, mut model } = Streams::new(limits_of(seed));
            for _ in 0..if cfg!(miri) { 2 } else { 80 } {
                for _ in 0..chance.below(90) {
                    model.change(&mut chance, &mut place, Tendency::Grows);
                }
                if !Stream::new(place.stored()).exists() {
                    continue;
                }
                let mut replica = loaded(Stream::new(place.stored()), place.limits());
                let (mut same_chance, mut same_model) = (chance.clone(), model.clone());
                for _ in 0..10 {
                    model.change(&mut chance, &mut place, Tendency::Grows);
                    same_model.change(&mut same_chance, &mut replica, Tendency::Grows);
                    let blocks = |place: &Alone| block_ends(Stream::new(place.stored()));
                    assert_eq!(blocks(&replica), blocks(&place), "blocks are a part of the value");
                }
            }
        }
    }

    #[test]
    fn what_is_cut_off_is_shed() {
        let mut stream = StreamMut::new(Alone::new(Limits::default()));
        let count = if cfg!(miri) { 500 } else { 50_000 };
        stream.add_group(b"g", StreamId::MIN, None);
        for ms in 1..=count {
            stream.append(StreamId { ms, sequence: 0 }, [(&b"n"[..], &b"v"[..])].into_iter());
        }
        let mut group = stream.group_mut(b"g").expect("just made");
        group.add_consumer(b"c", 1, None);
        for ms in 1..=count {
            let id = StreamId { ms, sequence: 0 };
            group.give(Pending { id, consumer: b"c", delivered_ms: 1, count: 1 });
        }
        drop(group);
        let mut content = stream.stream().content.expect("it is there").clone();
        let (mut bytes, mut steps) = (content.bytes(), 0);
        while content.shed(4) {
            assert!(content.bytes() <= bytes);
            (bytes, steps) = (content.bytes(), steps + 1);
        }
        assert!(
            steps > 10 && content.bytes() == 0,
            "{steps} steps, {} bytes left",
            content.bytes()
        );
        assert!(stream.remove_group(b"g"));
        let to = TrimTo::Count(0);
        assert_eq!(stream.trim(Trim { to, whole_blocks: false, limit: 0 }), count);
        assert_eq!(stream.stream().content.map(Content::bytes), Some(0));
    }
}
