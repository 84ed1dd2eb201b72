//! Commands that choose keys by what they or their values look like: KEYS, PDEL, DELIF.
//!
//! KEYS answers in bytewise order. Alone it is Redis' command and walks the whole database; with a
//! word after the pattern it is a page: it uses the ordered index and reads only from its start to
//! its limit.

use std::borrow::Cow;
use std::ops::Bound;

use memchr::memmem;

use super::refusal::{Outcome, Refusal};
use super::{Arity, Call, Command, Gather, Group, Keys, read, write};
use crate::glob::{Glob, Limit};
use crate::limits::{KEYS_LIMIT_DEFAULT, PATTERN_DELETE_COUNT};
use crate::numbers::parse_integer;
use crate::resp::reply::Reply;
use ringraft_shards::arguments::Arguments;
use ringraft_shards::keyspace::{Edit, Item, Key, KeyRange, ScanPosition, View};

/// Rows of this file.
pub const COMMANDS: &[Command] = &[
    read("keys", Arity::AtLeast(2), Keys::NONE, keys).everywhere(Gather::SortedKeys).about(
        Group::Generic,
        "1.0.0",
        "Keys that match a pattern, in order; pages of them.",
    ),
    write("pdel", Arity::Exactly(2), Keys::NONE, pdel).everywhere(Gather::Sum).about(
        Group::Generic,
        "7.2.0",
        "Deletes the keys that match a pattern.",
    ),
    read("count-matching", Arity::Exactly(2), Keys::NONE, count_matching).internal().about(
        Group::Generic,
        "7.2.0",
        "Counts what PDEL would delete.",
    ),
    write("delif", Arity::AtLeast(3), Keys::FROM_SECOND, delif).split(Gather::Sum).about(
        Group::Generic,
        "7.2.0",
        "Deletes those of the keys whose value contains a text.",
    ),
];

/// A page of KEYS: all arguments of the command, read.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// What keys must match.
    pub pattern: &'a [u8],
    /// The page begins just after this key, in its direction.
    pub pivot: Option<&'a [u8]>,
    /// Most keys in it.
    pub limit: usize,
    /// From the last key to the first.
    pub descending: bool,
    /// Each key is followed by its value: null for one that is no string.
    pub with_values: bool,
    /// Was there a word after the pattern? Only then is it a page and has a limit.
    pub paged: bool,
}

impl<'a> Page<'a> {
    /// Reads the arguments of KEYS; the last of contradicting words counts.
    pub fn of(arguments: Arguments<'a>) -> Result<Page<'a>, Refusal> {
        let paged = arguments.count() > 2;
        let mut page = Page {
            pattern: arguments.at(1),
            pivot: None,
            limit: if paged { KEYS_LIMIT_DEFAULT } else { usize::MAX },
            descending: false,
            with_values: false,
            paged,
        };
        let mut i = 2;
        while i < arguments.count() {
            if arguments.is(i, "desc") {
                page.descending = true;
            } else if arguments.is(i, "withvalues") {
                page.with_values = true;
            } else {
                let value = arguments.get(i + 1).ok_or(Refusal::Syntax)?;
                if arguments.is(i, "pivot") {
                    page.pivot = Some(value);
                } else if arguments.is(i, "limit") {
                    let limit = parse_integer(value).ok_or(Refusal::Syntax)?;
                    page.limit = usize::try_from(limit).map_err(|_| Refusal::Syntax)?;
                } else {
                    return Err(Refusal::Syntax);
                }
                i += 1;
            }
            i += 1;
        }
        Ok(page)
    }
}

/// Does this KEYS read the ordered index? Then the database must have one before it runs.
pub fn wants_order(arguments: Arguments<'_>) -> bool {
    Page::of(arguments).is_ok_and(|page| page.paged && page.limit > 0)
}

fn keys(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let page = Page::of(call.arguments)?;
    let glob = Glob::new(page.pattern);
    let items = if page.paged { ordered_items(view, &page, &glob) } else { all_items(view, &glob) };
    reply.array(if page.with_values { 2 * items.len() } else { items.len() });
    for item in items {
        reply.bulk(item.key());
        if page.with_values {
            match item.string() {
                Some(value) => reply.bulk(value),
                None => reply.null(),
            }
        }
    }
    Ok(())
}

/// Cost: the keys between the page's start and its last key.
fn ordered_items<'a>(view: &View<'a>, page: &Page<'_>, glob: &Glob<'_>) -> Vec<Item<'a>> {
    let mut items = Vec::new();
    let (mut start, mut end) = glob.range();
    match page.pivot {
        Some(pivot) if page.descending => end = least(end, pivot),
        Some(pivot) => start = greatest(start, pivot),
        None => {}
    }
    if page.limit == 0 {
        return items;
    }
    let range = KeyRange {
        start: start.as_ref().map(|bytes| bytes.as_ref()),
        end: end.as_ref().map(|bytes| bytes.as_ref()),
        descending: page.descending,
    };
    view.ordered(range, &mut |item| {
        if glob.matches(item.key()) {
            items.push(item);
        }
        items.len() < page.limit
    });
    items
}

/// Cost: a walk over the database, and the sorting of what matches.
fn all_items<'a>(view: &View<'a>, glob: &Glob<'_>) -> Vec<Item<'a>> {
    let mut items = Vec::new();
    let start = ScanPosition { slot: 0, hash: 0 };
    let rest = view.scan(start, usize::MAX, &mut |item| {
        if glob.matches(item.key()) {
            items.push(item);
        }
    });
    debug_assert!(rest.is_none(), "a scan without bound ends at the end");
    items.sort_unstable_by_key(|item| item.key());
    items
}

/// The lower bound that leaves out `pivot` and all below it, and whatever `start` leaves out.
fn greatest<'a>(start: Limit<'a>, pivot: &'a [u8]) -> Limit<'a> {
    match &start {
        Bound::Included(bytes) if bytes.as_ref() > pivot => start,
        Bound::Excluded(bytes) if bytes.as_ref() >= pivot => start,
        _ => Bound::Excluded(Cow::Borrowed(pivot)),
    }
}

/// The upper bound that leaves out `pivot` and all above it, and whatever `end` leaves out.
fn least<'a>(end: Limit<'a>, pivot: &'a [u8]) -> Limit<'a> {
    match &end {
        Bound::Included(bytes) if bytes.as_ref() < pivot => end,
        Bound::Excluded(bytes) if bytes.as_ref() <= pivot => end,
        _ => Bound::Excluded(Cow::Borrowed(pivot)),
    }
}

fn pdel(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let mut count = 0;
    let mut position = Some(ScanPosition { slot: 0, hash: 0 });
    let mut found: Vec<Vec<u8>> = Vec::new();
    let glob = Glob::new(call.at(1));
    while let Some(from) = position {
        position = scan_matching(&edit.view(), &glob, from, |key| found.push(key.to_vec()));
        for key in found.drain(..) {
            count += i64::from(edit.remove(&Key::new(&key, call.hasher.hash(&key))));
        }
    }
    reply.integer(count);
    Ok(())
}

fn count_matching(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let mut count = 0;
    let mut position = Some(ScanPosition { slot: 0, hash: 0 });
    let glob = Glob::new(call.at(1));
    while let Some(from) = position {
        position = scan_matching(view, &glob, from, |_| count += 1);
    }
    reply.integer(count);
    Ok(())
}

fn scan_matching(
    view: &View<'_>,
    glob: &Glob<'_>,
    from: ScanPosition,
    mut visit: impl FnMut(&[u8]),
) -> Option<ScanPosition> {
    view.scan(from, PATTERN_DELETE_COUNT, &mut |item| {
        if glob.matches(item.key()) {
            visit(item.key());
        }
    })
}

fn delif(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let text = memmem::Finder::new(call.at(1));
    let mut count = 0;
    for i in call.command.keys.positions(call.arguments) {
        let key = call.key(i);
        let value = edit.view().peek(&key).and_then(|item| item.string());
        if value.is_some_and(|value| text.find(value).is_some()) {
            count += i64::from(edit.remove(&key));
        }
    }
    reply.integer(count);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::tests::{Runner, bulks};
    use proptest::prelude::*;
    use ringraft_shards::arguments::OwnedArguments;

    /// What a page is, straight from its definition.
    fn naive<'a>(keys: &'a [String], page: &Page<'_>) -> Vec<&'a [u8]> {
        let glob = Glob::new(page.pattern);
        let mut keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
        keys.sort_unstable();
        keys.dedup();
        if page.descending {
            keys.reverse();
        }
        keys.retain(|key| {
            let beyond = |pivot| if page.descending { *key < pivot } else { *key > pivot };
            glob.matches(key) && page.pivot.is_none_or(beyond)
        });
        keys.truncate(page.limit);
        keys
    }

    proptest! {
        #[test]
        fn pages_are_right_with_and_without_an_index(
            keys in prop::collection::vec("[ab\u{ff}]{0,4}", 0..30),
            removed in prop::collection::vec("[ab]{0,2}", 0..5),
            pattern in "[ab]{0,2}[*?a\u{ff}]{0,2}",
            pivot in prop::option::of("[ab\u{ff}]{0,3}"),
            limit in prop::option::of(0..8usize),
            descending: bool,
            indexed: bool,
        ) {
            let mut runner = Runner::default();
            if indexed {
                runner.order();
            }
            for key in &keys {
                runner.run(&["SET", key, "value"]);
            }
            for key in &removed {
                runner.run(&["DEL", key]);
            }
            let mut words = vec!["KEYS", &pattern];
            let digits = limit.map(|limit| limit.to_string());
            words.extend(digits.iter().flat_map(|digits| ["LIMIT", digits]));
            words.extend(descending.then_some("DESC"));
            words.extend(pivot.iter().flat_map(|pivot| ["PIVOT", pivot]));
            let owned = words.iter().map(|word| word.as_bytes()).collect::<OwnedArguments>();
            let page = Page::of(owned.borrow()).expect("a right request");
            prop_assert_eq!(wants_order(owned.borrow()), words.len() > 2 && limit != Some(0));
            let kept: Vec<String> =
                keys.into_iter().filter(|key| !removed.contains(key)).collect();
            let reply = runner.run(&words);
            prop_assert_eq!(bulks(&reply), naive(&kept, &page));
        }
    }

    #[test]
    fn many_keys_are_deleted_in_parts() {
        let mut runner = Runner::default();
        for n in 0..3 * PATTERN_DELETE_COUNT {
            runner.run(&["SET", &format!("key:{n}"), "value"]);
        }
        runner.run(&["SET", "other", "value"]);
        let expected = format!(":{}\r\n", 3 * PATTERN_DELETE_COUNT);
        assert_eq!(runner.run(&["PDEL", "key:*"]), expected.as_bytes());
        assert_eq!(bulks(&runner.run(&["KEYS", "*"])), [b"other"]);
    }
}
