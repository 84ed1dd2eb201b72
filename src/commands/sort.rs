//! SORT and SORT_RO: the elements of a list, set or sorted set in another order, or what keys named
//! after them hold.
//!
//! The keys that a pattern makes of elements stand nowhere among the arguments. With several shards
//! they are fetched once everything is locked (`core/transact/referred.rs`); the functions here
//! find them in their keyspace either way.

use super::refusal::{Outcome, Refusal};
use super::{Arity, Call, Command, Group, Keys, Refers, Search, Spread, read, write};
use crate::numbers::parse_float;
use crate::resp::reply::Reply;
use Arity::AtLeast;
use ringraft_shards::arguments::Arguments;
use ringraft_shards::keyspace::{Edit, Key, Value, View};
use ringraft_shards::value::list::End;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::Range;

/// The rows of this file.
pub const COMMANDS: &[Command] = &[
    referring(write("sort", AtLeast(2), Keys::FIRST.and(Search::SortStore), sort).grows()).about(
        Group::Generic,
        "1.0.0",
        "Returns or stores the elements of a list, set or sorted set in order, or what keys named after them hold.",
    ),
    referring(read("sort_ro", AtLeast(2), Keys::FIRST, sort_ro)).about(
        Group::Generic,
        "7.0.0",
        "Returns the elements of a list, set or sorted set in order, or what keys named after them hold.",
    ),
];

const fn referring(mut command: Command) -> Command {
    command.spread = Spread::Referring;
    command.refers = Some(Refers { may, option, keys: referred });
    command
}

/// What is sorted.
type Element<'v> = Cow<'v, [u8]>;

/// A request.
struct Asked<'a> {
    /// Keys or fields by whose values elements are sorted.
    by: Option<&'a [u8]>,
    /// BY without a `*`: the elements stay in the order that they have.
    in_place: bool,
    gets: Vec<&'a [u8]>,
    descending: bool,
    by_bytes: bool,
    limit: (i64, i64),
    /// The argument that is the key to store at.
    store: Option<usize>,
}

impl<'a> Asked<'a> {
    fn of(call: &Call<'a>) -> Result<Asked<'a>, Refusal> {
        let mut asked = Asked {
            by: None,
            in_place: false,
            gets: Vec::new(),
            descending: false,
            by_bytes: false,
            limit: (0, -1),
            store: None,
        };
        let mut i = 2;
        while i < call.count() {
            let behind = call.count() - i - 1;
            let is = |word: &str, takes: usize| behind >= takes && call.arguments.is(i, word);
            match () {
                () if is("asc", 0) => asked.descending = false,
                () if is("desc", 0) => asked.descending = true,
                () if is("alpha", 0) => asked.by_bytes = true,
                () if is("limit", 2) => {
                    asked.limit = (call.integer(i + 1)?, call.integer(i + 2)?);
                    i += 2;
                }
                () if call.command.flags.write && is("store", 1) => {
                    asked.store = Some(i + 1);
                    i += 1;
                }
                () if is("by", 1) => {
                    asked.by = Some(call.at(i + 1));
                    asked.in_place |= !call.at(i + 1).contains(&b'*');
                    i += 1;
                }
                () if is("get", 1) => {
                    asked.gets.push(call.at(i + 1));
                    i += 1;
                }
                () => return Err(Refusal::Syntax),
            }
            i += 1;
        }
        Ok(asked)
    }

    /// The pattern by whose values a collection is sorted.
    fn sorts_by(&self) -> Option<&'a [u8]> {
        self.by.filter(|_| !self.in_place)
    }

    /// The places of the result among so many elements.
    fn places(&self, count: u64) -> Range<u64> {
        let start = u64::try_from(self.limit.0).unwrap_or(0).min(count);
        let wanted = u64::try_from(self.limit.1).unwrap_or(count);
        start..start.saturating_add(wanted).min(count)
    }

    /// The elements wanted, in order. Errors: one of them, or what it is sorted by, is no number.
    fn result<'v>(
        &self,
        source: Option<Value<'v>>,
        view: &View<'v>,
    ) -> Result<Vec<Element<'v>>, Refusal> {
        let Some(source) = source else { return Ok(Vec::new()) };
        let places = self.places(source.count());
        // A set has an order that nobody should rely on; what is stored is sorted all the same.
        let forced = self.in_place && self.store.is_some() && matches!(source, Value::Set(_));
        if self.in_place && !forced {
            return Ok(self.in_place(source, places));
        }
        let elements = in_own_order(source, Descending::No, 0);
        let mut elements = match (self.by_bytes || forced, self.sorts_by()) {
            (true, None) => sorted(elements.map(|e| (e.clone(), e)), self.order(), |a, b| a.cmp(b)),
            (true, Some(pattern)) => {
                let values = elements.map(|e| (lookup(view, pattern, &e), e));
                sorted(values, self.order(), |a, b| a.cmp(b))
            }
            (false, by) => {
                let scored = elements.map(|element| {
                    let value = match by {
                        Some(pattern) => lookup(view, pattern, &element),
                        None => Some(element.clone()),
                    };
                    let score = value.map_or(Some(0.0), |value| score_of(&value));
                    let text = "ERR One or more scores can't be converted into double";
                    Ok((score.ok_or(Refusal::text(text))?, element))
                });
                let scored: Vec<(f64, Element<'v>)> = scored.collect::<Result<_, Refusal>>()?;
                let pairs = scored.into_iter().map(|(score, e)| ((score, e.clone()), e));
                sorted(pairs, self.order(), |a, b| {
                    a.0.partial_cmp(&b.0).unwrap_or(Ordering::Equal).then_with(|| a.1.cmp(&b.1))
                })
            }
        };
        elements.truncate(places.end as usize);
        elements.drain(..(places.start as usize).min(elements.len()));
        Ok(elements)
    }

    fn order(&self) -> Descending {
        if self.descending { Descending::Yes } else { Descending::No }
    }

    /// Elements as they stand in their collection; of lists and sorted sets the last ones first
    /// when asked.
    fn in_place<'v>(&self, source: Value<'v>, places: Range<u64>) -> Vec<Element<'v>> {
        let count = (places.end - places.start.min(places.end)) as usize;
        in_own_order(source, self.order(), places.start).take(count).collect()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Descending {
    Yes,
    No,
}

/// Elements as they stand in their collection, from a place on. Sets are never turned around.
fn in_own_order<'v>(
    source: Value<'v>,
    order: Descending,
    from: u64,
) -> Box<dyn Iterator<Item = Element<'v>> + 'v> {
    let from_end = source.count().checked_sub(from + 1);
    match (source, order, from_end) {
        (Value::Set(set), ..) => Box::new(set.members_from(from)),
        (Value::List(list), Descending::No, _) => {
            Box::new(list.elements_from(from).map(Cow::Borrowed))
        }
        (Value::List(list), Descending::Yes, Some(from)) => {
            Box::new(list.elements_back_from(from).map(Cow::Borrowed))
        }
        (Value::SortedSet(set), Descending::No, _) => {
            Box::new(set.members_from(from).map(|(member, _)| Cow::Borrowed(member)))
        }
        (Value::SortedSet(set), Descending::Yes, Some(from)) => {
            Box::new(set.members_back_from(from).map(|(member, _)| Cow::Borrowed(member)))
        }
        _ => Box::new(std::iter::empty()),
    }
}

/// Elements in the order of what stands before them.
fn sorted<'v, T>(
    pairs: impl Iterator<Item = (T, Element<'v>)>,
    order: Descending,
    compare: impl Fn(&T, &T) -> Ordering,
) -> Vec<Element<'v>> {
    let mut pairs: Vec<(T, Element<'v>)> = pairs.collect();
    match order {
        Descending::No => pairs.sort_by(|one, other| compare(&one.0, &other.0)),
        Descending::Yes => pairs.sort_by(|one, other| compare(&other.0, &one.0)),
    }
    pairs.into_iter().map(|(_, element)| element).collect()
}

/// A number as C's `strtod` reads it, space before it and nothing at all included. It ends at a
/// NUL.
fn score_of(text: &[u8]) -> Option<f64> {
    let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
    if text.is_empty() {
        return Some(0.0);
    }
    let is_space = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
    let start = text.iter().position(|byte| !is_space(byte))?;
    parse_float(&text[start..])
}

/// The key that a pattern makes of an element, and the field of the hash there; `None` without a
/// `*`.
fn reference<'a>(pattern: &'a [u8], element: &[u8]) -> Option<(Vec<u8>, Option<&'a [u8]>)> {
    let star = pattern.iter().position(|&byte| byte == b'*')?;
    let (prefix, rest) = (&pattern[..star], &pattern[star + 1..]);
    let arrow = memchr::memmem::find(rest, b"->").filter(|at| at + 2 < rest.len());
    let (suffix, field) = match arrow {
        Some(at) => (&rest[..at], Some(&rest[at + 2..])),
        None => (rest, None),
    };
    Some(([prefix, element, suffix].concat(), field))
}

/// What a pattern stands for: `#` for the element itself, others for a string or the field of a
/// hash.
fn lookup<'v>(view: &View<'v>, pattern: &[u8], element: &Element<'v>) -> Option<Element<'v>> {
    if pattern == b"#" {
        return Some(element.clone());
    }
    let (key, field) = reference(pattern, element)?;
    let item = view.get(&Key::new(&key, view.hasher().hash(&key)))?;
    match (item.value(), field) {
        (Value::String(string), None) => Some(Cow::Borrowed(string)),
        (Value::Hash(hash), Some(field)) => {
            hash.seen_at(view.now_ms()).get(field).map(Cow::Borrowed)
        }
        _ => None,
    }
}

/// The collection to sort. Errors: [`Refusal::WrongType`].
fn source<'v>(call: &Call<'_>, view: &View<'v>) -> Result<Option<Value<'v>>, Refusal> {
    match view.get(&call.key(1)).map(|item| item.value()) {
        None => Ok(None),
        Some(value @ (Value::List(_) | Value::Set(_) | Value::SortedSet(_))) => Ok(Some(value)),
        Some(_) => Err(Refusal::WrongType),
    }
}

/// May there be patterns among the arguments?
fn may(arguments: Arguments<'_>) -> bool {
    arguments.count() > 3 && arguments.iter_from(2).any(|argument| argument.contains(&b'*'))
}

/// The first option with such a pattern; every GET counts, as in Redis.
fn option(arguments: Arguments<'_>) -> Option<&'static str> {
    let mut i = 2;
    while i < arguments.count() {
        let left = arguments.count() - i - 1;
        i += match () {
            () if arguments.is(i, "limit") && left >= 2 => 3,
            () if arguments.is(i, "store") && left >= 1 => 2,
            () if arguments.is(i, "by") && left >= 1 => {
                if arguments.at(i + 1).contains(&b'*') {
                    return Some("BY");
                }
                2
            }
            () if arguments.is(i, "get") && left >= 1 => return Some("GET"),
            () => 1,
        };
    }
    None
}

/// The keys that patterns make of elements. While those are not known by which it is sorted, only
/// they: which elements are wanted depends on them.
fn referred(call: &Call<'_>, view: &View<'_>, known: &dyn Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
    let (Ok(asked), Ok(Some(source))) = (Asked::of(call), source(call, view)) else {
        return Vec::new();
    };
    let key_of = |pattern, element: &Element<'_>| reference(pattern, element).map(|found| found.0);
    if let Some(pattern) = asked.sorts_by() {
        let elements = in_own_order(source, Descending::No, 0);
        let keys: Vec<Vec<u8>> = elements.filter_map(|e| key_of(pattern, &e)).collect();
        if !keys.iter().all(|key| known(key)) {
            return keys;
        }
    }
    let Ok(elements) = asked.result(Some(source), view) else { return Vec::new() };
    let gets = asked.gets.iter().filter(|pattern| **pattern != b"#");
    gets.flat_map(|pattern| elements.iter().filter_map(|e| key_of(pattern, e))).collect()
}

fn show(asked: &Asked<'_>, call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let elements = asked.result(source(call, view)?, view)?;
    reply.array(elements.len() * asked.gets.len().max(1));
    for element in &elements {
        if asked.gets.is_empty() {
            reply.bulk(element);
        }
        for pattern in &asked.gets {
            match lookup(view, pattern, element) {
                Some(value) => reply.bulk(&value),
                None => reply.null(),
            }
        }
    }
    Ok(())
}

/// SORT key [BY pattern] [LIMIT offset count] [GET pattern ...] [ASC|DESC] [ALPHA] [STORE
/// destination].
fn sort(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let asked = Asked::of(call)?;
    let Some(at) = asked.store else { return show(&asked, call, &edit.view(), reply) };
    let view = edit.view();
    let elements = asked.result(source(call, &view)?, &view)?;
    let stored: Vec<Vec<u8>> = match asked.gets.is_empty() {
        true => elements.into_iter().map(Cow::into_owned).collect(),
        false => {
            let values = elements.iter().flat_map(|e| {
                asked.gets.iter().map(|pattern| lookup(&view, pattern, e).unwrap_or_default())
            });
            values.map(Cow::into_owned).collect()
        }
    };
    let key = call.key(at);
    edit.remove(&key);
    let mut list = edit.list_mut(&key)?;
    stored.iter().for_each(|element| list.push(End::Back, element));
    reply.integer(stored.len() as i64);
    Ok(())
}

/// SORT_RO: as SORT without STORE.
fn sort_ro(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    show(&Asked::of(call)?, call, view, reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_make_keys() {
        let check = |pattern: &'static str, key: &str, field: Option<&str>| {
            let found = reference(pattern.as_bytes(), b"x").expect("it has a star");
            let expected = (key.as_bytes().to_vec(), field.map(str::as_bytes));
            assert_eq!(found, expected, "{pattern}");
        };
        check("w_*", "w_x", None);
        check("*", "x", None);
        check("a*b*c", "axb*c", None);
        check("h:*->f", "h:x", Some("f"));
        check("h:*:z->f->g", "h:x:z", Some("f->g"));
        check("h:*->", "h:x->", None);
        check("a->b*", "a->bx", None);
        assert_eq!(reference(b"none", b"x"), None);
    }

    #[test]
    fn scores_are_read_as_by_c() {
        for (text, score) in [("", Some(0.0)), (" 1.5", Some(1.5)), ("1\0x", Some(1.0))] {
            assert_eq!(score_of(text.as_bytes()), score, "{text:?}");
        }
        for text in ["x", "1 ", " ", "nan", "1e999"] {
            assert_eq!(score_of(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(score_of(b"-inf"), Some(f64::NEG_INFINITY));
    }
}
