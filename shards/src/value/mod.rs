//! Values of every type.
//!
//! Safe code alone: what is packed is read and written by indices that are checked.

#![forbid(unsafe_code)]

pub mod along;
pub mod body;
mod deadlines;
pub mod hash;
mod index;
mod integers;
mod kept;
mod leaf;
mod leftovers;
mod limits;
pub mod list;
mod members;
#[cfg(any(test, feature = "models"))]
pub mod model;
mod nodes;
mod pack;
mod score;
mod scored;
pub mod set;
mod sorted_map;
pub mod sorted_set;
pub mod spot;
pub mod stream;
mod tree;
mod version;

pub use limits::Limits;
pub use pack::Room;
pub use version::Version;

use body::{Place, Stored};
use hash::{Hash, HashMut};
use list::{End, List, ListMut};
use set::{Set, SetMut};
use sorted_set::{SortedSet, SortedSetMut};
use std::ops::ControlFlow;
use stream::{Stream, StreamMut, StreamPart};

/// A value that is read.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// A string of bytes.
    String(&'a [u8]),
    /// A list.
    List(List<'a>),
    /// A set.
    Set(Set<'a>),
    /// A sorted set.
    SortedSet(SortedSet<'a>),
    /// A hash.
    Hash(Hash<'a>),
    /// A stream.
    Stream(Stream<'a>),
}

/// A part of a value, in the order in which the value is built.
#[derive(Clone, Copy, Debug)]
pub enum Part<'p> {
    /// All of a string, or some more of it.
    String(&'p [u8]),
    /// The next element of a list.
    Element(&'p [u8]),
    /// A member of a set.
    Member(&'p [u8]),
    /// A field of a hash and its value.
    Field(&'p [u8], &'p [u8]),
    /// A field of a hash, its value, and when it ends: milliseconds since the Unix epoch, not below
    /// 0.
    TimedField(&'p [u8], &'p [u8], i64),
    /// A member of a sorted set and its score.
    Scored(&'p [u8], f64),
    /// A part of a stream.
    Stream(StreamPart<'p>),
}

impl<'a> Value<'a> {
    /// The collection of this type that is stored here; a string's bytes.
    pub(crate) fn new(value_type: ValueType, stored: Stored<'a>) -> Value<'a> {
        match (value_type, stored) {
            (ValueType::String, Stored::Pack(bytes) | Stored::Integers(bytes)) => {
                Value::String(bytes)
            }
            (ValueType::String, Stored::Tree(_)) => unreachable!("strings have no trees"),
            (ValueType::List, _) => Value::List(List::new(stored)),
            (ValueType::Set, _) => Value::Set(Set::new(stored)),
            (ValueType::SortedSet, _) => Value::SortedSet(SortedSet::new(stored)),
            (ValueType::Hash, _) => Value::Hash(Hash::new(stored)),
            (ValueType::Stream, _) => Value::Stream(Stream::new(stored)),
        }
    }

    /// Count of elements; of a string, of bytes.
    pub fn count(self) -> u64 {
        match self {
            Value::String(string) => string.len() as u64,
            Value::List(list) => list.count(),
            Value::Set(set) => set.count(),
            Value::SortedSet(set) => set.count(),
            Value::Hash(hash) => hash.count(),
            Value::Stream(stream) => stream.count(),
        }
    }

    /// Is there nothing, so that its key goes? A stream may be empty and there.
    pub(crate) fn is_nothing(self) -> bool {
        match self {
            Value::Stream(stream) => !stream.exists(),
            other => other.count() == 0,
        }
    }

    /// Count of what [`Value::visit`] counts: parts of a stream, bytes of a string, elements.
    pub(crate) fn part_count(self) -> u64 {
        match self {
            Value::Stream(stream) => stream.part_count(),
            other => other.count(),
        }
    }

    /// Visits its parts from a place on (element, part of a stream, byte of a string) until told to
    /// stop, in the order in which its form keeps them. A string is one part.
    pub fn visit(self, from: u64, visit: &mut dyn FnMut(Part<'_>) -> ControlFlow<()>) {
        // That it was told to stop says nothing to the caller, who did so.
        let _ = match self {
            Value::String(string) => visit(Part::String(&string[from as usize..])),
            Value::List(list) => {
                list.elements_from(from).try_for_each(|element| visit(Part::Element(element)))
            }
            Value::Set(set) => {
                set.members_from(from).try_for_each(|member| visit(Part::Member(&member)))
            }
            Value::SortedSet(set) => set
                .members_from(from)
                .try_for_each(|(member, score)| visit(Part::Scored(member, score))),
            Value::Hash(hash) => {
                hash.fields_from(from).try_for_each(|(field, value)| match hash.deadline(field) {
                    Some(at) => visit(Part::TimedField(field, value, at)),
                    None => visit(Part::Field(field, value)),
                })
            }
            Value::Stream(stream) => stream.visit(from, &mut |part| visit(Part::Stream(part))),
        };
    }
}

/// Adds a part to the collection of a type. False when it is there already.
pub(crate) fn add(place: &mut impl Place, value_type: ValueType, part: Part<'_>) -> Option<bool> {
    Some(match (value_type, part) {
        (ValueType::List, Part::Element(element)) => {
            ListMut::new(place).push(End::Back, element);
            true
        }
        (ValueType::Set, Part::Member(member)) => SetMut::new(place).add(member),
        (ValueType::Hash, Part::Field(field, value)) => HashMut::new(place).set(field, value),
        (ValueType::Hash, Part::TimedField(field, value, at)) => {
            let mut hash = HashMut::new(place);
            let is_new = hash.set(field, value);
            hash.set_deadline(field, at);
            is_new
        }
        (ValueType::SortedSet, Part::Scored(member, score)) => {
            SortedSetMut::new(place).set(member, score).is_none()
        }
        (ValueType::Stream, Part::Stream(part)) => StreamMut::new(place).add(part),
        _ => return None,
    })
}

/// Gives an empty collection of a type a form.
pub(crate) fn begin(place: &mut impl Place, value_type: ValueType, form: Form) {
    match (form, value_type) {
        (Form::Pack, _) | (_, ValueType::String) => {}
        (Form::Integers, _) => place.set(Form::Integers, &[]),
        (Form::Tree, ValueType::List) => ListMut::new(place).grow(),
        (Form::Tree, ValueType::Set) => SetMut::new(place).grow(),
        (Form::Tree, ValueType::Hash) => HashMut::new(place).grow(),
        (Form::Tree, ValueType::SortedSet) => SortedSetMut::new(place).grow(),
        // Its head makes it.
        (Form::Tree, ValueType::Stream) => {}
    }
}

/// The type of a value. The numbers are those in items' headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ValueType {
    /// A string of bytes.
    String = 0,
    /// A list.
    List = 1,
    /// A set.
    Set = 2,
    /// A sorted set.
    SortedSet = 3,
    /// A hash.
    Hash = 4,
    /// A stream.
    Stream = 5,
}

impl ValueType {
    /// From its number.
    pub fn from_number(number: u8) -> Option<ValueType> {
        const ALL: [ValueType; 6] = [
            ValueType::String,
            ValueType::List,
            ValueType::Set,
            ValueType::SortedSet,
            ValueType::Hash,
            ValueType::Stream,
        ];
        ALL.get(usize::from(number)).copied()
    }
}

/// How a collection is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Form {
    /// All in the item.
    Pack = 0,
    /// Pages.
    Tree = 1,
    /// A sorted array of integers.
    Integers = 2,
}
