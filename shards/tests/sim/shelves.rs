//! Shelves: keys of which clients add and remove single elements. A set, a hash, a sorted set and a
//! stream with a group, each small and large.
//!
//! A client that reads one hears all of it as text, `name=value,` for each element in the order of
//! the names, and so do the judges, who know shelves as maps of such texts. Of a stream an entry is
//! `e` and its id, what is pending `p` and its id with the consumer's name, `l` the last id, and
//! `g` the last one that was given to anybody.

use std::collections::BTreeMap;

use ringraft_shards::keyspace::{Edit, Item, Key, Value, View};
use ringraft_shards::random::Random;
use ringraft_shards::value::stream::{Pending, StreamId, Trim, TrimTo};
use ringraft_shards::waiting::{WaitKey, WaitKind};

use crate::command::{KeyNumber, Reply};
use crate::machine::DATABASE;

/// The first one's number.
pub const FIRST: KeyNumber = 100;
/// How many there are.
pub const COUNT: u8 = 8;

/// Those that are streams.
pub const STREAMS: [KeyNumber; 2] = [FIRST + 3, FIRST + 7];

/// Entries of a stream; the first ones go when there are more.
pub const ENTRIES_MAX: u64 = 12;

/// Elements of a large one that nobody sees.
const FILLERS: u64 = 140;
/// Bytes beside the value of an entry of a large stream, so that it has more than one block.
const FILLER_BYTES: usize = 400;
/// Begins the names of elements that nobody sees.
const FILLER: u8 = b'#';

/// The group of a stream.
const GROUP: &[u8] = b"g";

const TYPED: &str = "shelves have one type";

/// What a shelf is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Set,
    Hash,
    SortedSet,
    Stream,
}

/// What a key is, if it is a shelf.
pub fn kind(key: KeyNumber) -> Option<Kind> {
    let place = key.checked_sub(FIRST).filter(|place| *place < COUNT)?;
    Some([Kind::Set, Kind::Hash, Kind::SortedSet, Kind::Stream][usize::from(place % 4)])
}

/// The number in a key's name.
fn number(key: &[u8]) -> KeyNumber {
    let digits = key.get(1..).and_then(|digits| std::str::from_utf8(digits).ok());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

fn is_large(key: &[u8]) -> bool {
    number(key) >= FIRST + COUNT / 2
}

/// Elements by name.
pub type Elements = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a client hears of them.
pub fn text(elements: &Elements) -> Vec<u8> {
    elements.iter().flat_map(|(name, value)| [name, &b"="[..], value, b","].concat()).collect()
}

/// What was said so.
pub fn parse(text: &[u8]) -> Elements {
    let pairs = text.split(|byte| *byte == b',').filter(|pair| !pair.is_empty());
    let halves = pairs.map(|pair| {
        let mut halves = pair.splitn(2, |byte| *byte == b'=').map(<[u8]>::to_vec);
        (halves.next().unwrap_or_default(), halves.next().unwrap_or_default())
    });
    halves.collect()
}

/// The name of an entry's id behind what it is.
pub fn name(what: u8, id: u64) -> Vec<u8> {
    format!("{}{id:06}", char::from(what)).into_bytes()
}

/// A number as it is said.
pub fn digits(number: u64) -> Vec<u8> {
    number.to_string().into_bytes()
}

/// The number that this says.
pub fn number_of(digits: &[u8]) -> u64 {
    let text = std::str::from_utf8(digits).ok();
    text.and_then(|text| text.parse().ok()).expect("clients say numbers here")
}

fn id(digits: &[u8]) -> StreamId {
    StreamId { ms: number_of(digits), sequence: 0 }
}

/// What a client hears of a shelf; `None` when the key is none.
pub fn read(key: &[u8], item: Item<'_>) -> Option<Vec<u8>> {
    kind(number(key))?;
    let mut elements: Elements = match item.value() {
        Value::Set(set) => set.members_from(0).map(|one| (one.into_owned(), vec![])).collect(),
        Value::Hash(hash) => {
            hash.fields_from(0).map(|(field, value)| (field.to_vec(), value.to_vec())).collect()
        }
        Value::SortedSet(set) => {
            set.members_from(0).map(|(one, score)| (one.to_vec(), digits(score as u64))).collect()
        }
        Value::Stream(stream) => {
            let mut elements = Elements::new();
            for entry in stream.entries_from(StreamId::MIN) {
                elements.insert(name(b'e', entry.id.ms), value_of(entry.pairs()));
            }
            let group = stream.group(GROUP).expect("it was made with one");
            for pending in group.pending_from(StreamId::MIN) {
                elements.insert(name(b'p', pending.id.ms), pending.consumer.to_vec());
            }
            elements.insert(b"g".to_vec(), digits(group.last_id().ms));
            elements.insert(b"l".to_vec(), digits(stream.last_id().ms));
            elements
        }
        Value::String(_) | Value::List(_) => unreachable!("{TYPED}"),
    };
    elements.retain(|name, _| name.first() != Some(&FILLER));
    Some(text(&elements))
}

fn value_of<'a>(mut pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<u8> {
    pairs.next().expect("each has a value").1.to_vec()
}

/// Adds an element, or gives one that is there another value. Returns 1 when it is new; of a
/// stream, the id of the entry.
pub fn add(edit: &mut Edit<'_>, key: &Key<'_>, name: &[u8], value: &[u8]) -> i64 {
    let kind = kind(number(key.bytes())).expect("it is a shelf");
    if kind == Kind::Stream {
        return append(edit, key, value);
    }
    if is_large(key.bytes()) && edit.view().peek(key).is_none() {
        for n in 0..FILLERS {
            let filler = [&[FILLER], &digits(n)[..]].concat();
            put(edit, key, kind, &filler, b"0");
        }
    }
    i64::from(put(edit, key, kind, name, value))
}

fn put(edit: &mut Edit<'_>, key: &Key<'_>, kind: Kind, name: &[u8], value: &[u8]) -> bool {
    match kind {
        Kind::Set => edit.set_mut(key).expect(TYPED).add(name),
        Kind::Hash => edit.hash_mut(key).expect(TYPED).set(name, value),
        Kind::SortedSet => {
            let score = number_of(value) as f64;
            edit.sorted_set_mut(key).expect(TYPED).set(name, score).is_none()
        }
        Kind::Stream => unreachable!("entries are appended"),
    }
}

fn append(edit: &mut Edit<'_>, key: &Key<'_>, value: &[u8]) -> i64 {
    let filler = vec![FILLER; if is_large(key.bytes()) { FILLER_BYTES } else { 0 }];
    let mut stream = edit.stream_mut(key).expect(TYPED);
    stream.add_group(GROUP, StreamId::MIN, None);
    let id = StreamId { ms: stream.stream().last_id().ms + 1, sequence: 0 };
    stream.append(id, [(&b"v"[..], value), (&b"f"[..], &filler[..])].into_iter());
    stream.trim(Trim { to: TrimTo::Count(ENTRIES_MAX), whole_blocks: false, limit: 0 });
    id.ms as i64
}

/// Removes an element; of a stream, the entry of an id. Was it there?
pub fn remove(edit: &mut Edit<'_>, key: &Key<'_>, name: &[u8]) -> bool {
    if edit.view().peek(key).is_none() {
        return false;
    }
    let (was_there, left) = match kind(number(key.bytes())).expect("it is a shelf") {
        Kind::Set => {
            let mut set = edit.set_mut(key).expect(TYPED);
            (set.remove(name), set.count())
        }
        Kind::Hash => {
            let mut hash = edit.hash_mut(key).expect(TYPED);
            (hash.remove(name), hash.count())
        }
        Kind::SortedSet => {
            let mut set = edit.sorted_set_mut(key).expect(TYPED);
            (set.remove(name).is_some(), set.count())
        }
        Kind::Stream => return edit.stream_mut(key).expect(TYPED).delete(id(name)),
    };
    if is_large(key.bytes()) && left == FILLERS {
        edit.remove(key);
    }
    was_there
}

/// Gives the next entry of a stream to a consumer of the group, as XREADGROUP does: its id and its
/// value, or nil.
pub fn give(edit: &mut Edit<'_>, key: &Key<'_>, consumer: &[u8]) -> Reply {
    let now_ms = edit.now_ms();
    let Some(Value::Stream(stream)) = edit.view().peek(key).map(|item| item.value()) else {
        return Reply::Nil;
    };
    let last = stream.group(GROUP).expect("it was made with one").last_id();
    let next = stream.entries_from(StreamId { sequence: 1, ..last }).next();
    let Some((id, value)) = next.map(|entry| (entry.id, value_of(entry.pairs()))) else {
        return Reply::Nil;
    };
    let mut stream = edit.stream_mut(key).expect(TYPED);
    let mut group = stream.group_mut(GROUP).expect("just seen");
    group.add_consumer(consumer, now_ms, Some(now_ms));
    group.touch_consumer(consumer, now_ms, Some(now_ms));
    group.give(Pending { id, consumer, delivered_ms: now_ms, count: 1 });
    group.set_last_id(id, None);
    told(id, value)
}

/// A consumer has done with an entry. Had anybody it?
pub fn acknowledge(edit: &mut Edit<'_>, key: &Key<'_>, name: &[u8]) -> bool {
    let mut stream = edit.stream_mut(key).expect(TYPED);
    stream.group_mut(GROUP).is_some_and(|mut group| group.take(id(name)))
}

fn told(id: StreamId, value: Vec<u8>) -> Reply {
    Reply::List(vec![Reply::Integer(id.ms as i64), Reply::Bytes(value)])
}

/// A stream, as its entries are waited for.
pub fn awaited(key: &[u8]) -> WaitKey {
    WaitKey::new(DATABASE, WaitKind::Entries, key)
}

/// Is there a stream?
pub fn has(view: &View<'_>, key: &WaitKey) -> bool {
    stream_at(view, &key.bytes).is_some()
}

fn stream_at<'a>(
    view: &View<'a>,
    key: &[u8],
) -> Option<ringraft_shards::value::stream::Stream<'a>> {
    match view.peek(&Key::new(key, view.hasher().hash(key)))?.value() {
        Value::Stream(stream) => Some(stream),
        _ => None,
    }
}

/// The id of the last entry that was added to a stream.
pub fn last_id(view: &View<'_>, key: &[u8]) -> u64 {
    stream_at(view, key).map_or(0, |stream| stream.last_id().ms)
}

/// The entries of a stream behind an id, as a client hears them.
pub fn behind(view: &View<'_>, key: &[u8], last: u64) -> Vec<Reply> {
    let Some(stream) = stream_at(view, key) else { return Vec::new() };
    let entries = stream.entries_from(StreamId { ms: last, sequence: 1 });
    entries.map(|entry| told(entry.id, value_of(entry.pairs()))).collect()
}

/// The same, written a second time and as simply as can be: for the judges.
pub mod model {
    use super::{ENTRIES_MAX, Elements, Kind, Reply, digits, kind, name, number_of};
    use crate::command::{Command, KeyNumber};

    fn number_at(elements: &Elements, name: &[u8]) -> u64 {
        elements.get(name).map_or(0, |digits| number_of(digits))
    }

    /// What a command on a shelf does with it. Returns its key, what it is then, and the reply.
    pub fn run(
        command: &Command,
        read: impl Fn(KeyNumber) -> Elements,
    ) -> (KeyNumber, Elements, Reply) {
        let key = command.keys()[0];
        let mut elements = read(key);
        let is_stream = kind(key) == Some(Kind::Stream);
        let reply = match command {
            Command::Add(_, _, value) if is_stream => {
                let id = number_at(&elements, b"l") + 1;
                elements.insert(name(b'e', id), value.clone());
                elements.insert(b"l".to_vec(), digits(id));
                elements.entry(b"g".to_vec()).or_insert_with(|| digits(0));
                let count = elements.keys().filter(|name| name[0] == b'e').count() as u64;
                for _ in ENTRIES_MAX..count {
                    let first = elements.keys().find(|name| name[0] == b'e').cloned();
                    elements.remove(&first.expect("there are more"));
                }
                Reply::Integer(id as i64)
            }
            Command::Add(_, name, value) => {
                let value = match kind(key) {
                    Some(Kind::Set) => Vec::new(),
                    Some(Kind::SortedSet) => digits(number_of(value)),
                    _ => value.clone(),
                };
                Reply::Integer(i64::from(elements.insert(name.clone(), value).is_none()))
            }
            Command::Remove(_, id) if is_stream => {
                let gone = elements.remove(&name(b'e', number_of(id)));
                Reply::Integer(i64::from(gone.is_some()))
            }
            Command::Remove(_, name) => Reply::Integer(i64::from(elements.remove(name).is_some())),
            Command::Acknowledge(_, id) => {
                let gone = elements.remove(&name(b'p', number_of(id)));
                Reply::Integer(i64::from(gone.is_some()))
            }
            Command::Give(_, consumer) => {
                let last = name(b'e', number_at(&elements, b"g"));
                let next = elements
                    .range(last.clone()..)
                    .find(|(name, _)| name[0] == b'e' && **name > last);
                match next.map(|(name, value)| (number_of(&name[1..]), value.clone())) {
                    None => Reply::Nil,
                    Some((id, value)) => {
                        elements.insert(name(b'p', id), consumer.clone());
                        elements.insert(b"g".to_vec(), digits(id));
                        Reply::List(vec![Reply::Integer(id as i64), Reply::Bytes(value)])
                    }
                }
            }
            other => unreachable!("{other} is no command on a shelf"),
        };
        (key, elements, reply)
    }
}

/// One of them, half of the time a stream.
pub fn any(chance: &mut Random) -> KeyNumber {
    match chance.below(2) {
        0 => STREAMS[chance.below(2) as usize],
        _ => FIRST + chance.below(COUNT.into()) as KeyNumber,
    }
}

/// All shelves.
pub fn keys() -> impl Iterator<Item = KeyNumber> {
    FIRST..FIRST + COUNT
}
