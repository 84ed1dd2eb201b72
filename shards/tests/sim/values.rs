//! How clients' values lie in the engine. Clients see strings of bytes; most keys hold them as the
//! elements of a collection, each key of another type, some with so many elements that they lie in
//! trees. So all that copies, moves, logs, installs and counts values meets every type, and the
//! checker need not know of any.

use ringraft_shards::keyspace::{Edit, Expiry, Item, Key, StringForm, Value};
use ringraft_shards::value::list::End;
use ringraft_shards::value::stream::StreamId;

/// Elements that say nothing, of a key whose value is to be large: packs end before.
const FILLERS: u64 = 140;

/// Bytes of a value that are one element.
const PIECE_BYTES: usize = 2;

/// Begins an element that says nothing: an empty value is a collection too.
const FILLER: &[u8] = b"#";
/// Begins one with bytes of the value.
const PIECE: u8 = b'=';

/// The number in a key's name.
fn number(key: &Key<'_>) -> u64 {
    let digits = std::str::from_utf8(&key.bytes()[1..]).ok();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

fn piece(bytes: &[u8]) -> Vec<u8> {
    [&[PIECE], bytes].concat()
}

/// The bytes that a client sees.
pub fn read(item: Item<'_>) -> Vec<u8> {
    let mut elements: Vec<(u64, Vec<u8>)> = Vec::new();
    let place = |bytes: &[u8]| u64::from_be_bytes(bytes[..8].try_into().expect("eight bytes"));
    match item.value() {
        Value::String(bytes) => return bytes.to_vec(),
        Value::List(list) => {
            elements.extend((0..).zip(list.elements_from(0).map(<[u8]>::to_vec)));
        }
        Value::Set(set) => {
            elements.extend(set.members_from(0).map(|one| (place(&one), one[8..].to_vec())));
        }
        Value::Hash(hash) => {
            let fields = hash.fields_from(0);
            elements.extend(fields.map(|(field, value)| (place(field), value.to_vec())));
        }
        Value::SortedSet(set) => {
            let members = set.members_from(0);
            elements.extend(members.map(|(member, score)| (score as u64, member[8..].to_vec())));
        }
        Value::Stream(stream) => {
            for entry in stream.entries_from(StreamId::MIN) {
                let (_, value) = entry.pairs().next().expect("each has one pair");
                elements.push((entry.id.ms, value.to_vec()));
            }
        }
    }
    elements.sort();
    let pieces = elements.iter().filter_map(|(_, element)| element.strip_prefix(&[PIECE]));
    pieces.flatten().copied().collect()
}

/// Sets a key to a value.
pub fn set(edit: &mut Edit<'_>, key: &Key<'_>, value: &[u8]) {
    edit.remove(key);
    begin(edit, key);
    match edit.view().peek(key) {
        None => edit.set_string(key, value, StringForm::Automatic, Expiry::Never),
        Some(_) => value.chunks(PIECE_BYTES).for_each(|bytes| add(edit, key, &piece(bytes))),
    }
}

/// Appends to a value, whatever it lies in. Returns its length.
pub fn append(edit: &mut Edit<'_>, key: &Key<'_>, more: &[u8]) -> usize {
    let old = edit.view().peek(key).map(read);
    if old.is_none() {
        begin(edit, key);
    }
    let length = old.map_or(0, |old| old.len()) + more.len();
    let is_collection = edit.view().peek(key).is_some_and(|item| item.string().is_none());
    if is_collection {
        add(edit, key, &piece(more));
    } else {
        let bytes = edit.string_mut(key, length, StringForm::Raw).expect("it is a string");
        bytes[length - more.len()..].copy_from_slice(more);
    }
    length
}

/// Makes the collection of a key that holds one.
fn begin(edit: &mut Edit<'_>, key: &Key<'_>) {
    let number = number(key);
    if number.is_multiple_of(6) {
        return;
    }
    let count = if (number / 6).is_multiple_of(2) { 1 } else { FILLERS };
    (0..count).for_each(|_| add_as(edit, key, number % 6, FILLER));
}

/// Adds an element behind all others.
fn add(edit: &mut Edit<'_>, key: &Key<'_>, element: &[u8]) {
    let form = match edit.view().peek(key).expect("it was begun").value() {
        Value::String(_) => 0,
        Value::List(_) => 1,
        Value::Set(_) => 2,
        Value::Hash(_) => 3,
        Value::SortedSet(_) => 4,
        Value::Stream(_) => 5,
    };
    add_as(edit, key, form, element);
}

fn add_as(edit: &mut Edit<'_>, key: &Key<'_>, form: u64, element: &[u8]) {
    const TYPED: &str = "its type was looked at";
    let place = edit.view().peek(key).map_or(0, |item| item.value().count());
    let name = place.to_be_bytes();
    let member = [&name, element].concat();
    match form {
        1 => edit.list_mut(key).expect(TYPED).push(End::Back, element),
        2 => assert!(edit.set_mut(key).expect(TYPED).add(&member)),
        3 => assert!(edit.hash_mut(key).expect(TYPED).set(&name, element)),
        4 => assert!(edit.sorted_set_mut(key).expect(TYPED).set(&member, place as f64).is_none()),
        _ => {
            let id = StreamId { ms: place + 1, sequence: 0 };
            let pairs = std::iter::once((&b"v"[..], element));
            edit.stream_mut(key).expect(TYPED).append(id, pairs);
        }
    }
}
