//! Where a command's keys stand among its arguments.
//!
//! Most rows say it with three numbers. Some commands count their keys (`ZUNION 2 a b`) or announce
//! them with a word (`XREAD STREAMS a b`, `SORT a STORE b`): those keys are *found* in the
//! arguments, behind the ones at fixed places. A request that is malformed has fewer keys than it
//! should, never others; its function refuses it.

use crate::numbers::parse_integer;
use ringraft_shards::arguments::Arguments;
use std::ops::Range;

/// Where a command's keys stand among its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Position of the first key; 0 when none stands at a fixed place.
    pub first: usize,
    /// Position of the last key; negative counts from the end (-1 is the last argument).
    pub last: isize,
    /// Distance between keys.
    pub step: usize,
    /// Keys at places that depend on the arguments.
    pub search: Search,
}

/// How keys are found whose places depend on the arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// There are none.
    None,
    /// The argument at this position says how many follow it.
    Counted(usize),
    /// The first half of what follows the word STREAMS (XREAD, XREADGROUP).
    Streams,
    /// What follows the last STORE of SORT.
    SortStore,
    /// What follows the last STORE or STOREDIST of GEORADIUS.
    RadiusStore,
    /// What follows the word KEYS, when the key at its fixed place is empty (MIGRATE).
    MigrateKeys,
}

impl Keys {
    /// No keys.
    pub const NONE: Keys = Keys::fixed(0, 0, 0);
    /// The first argument.
    pub const FIRST: Keys = Keys::fixed(1, 1, 1);
    /// The first two arguments.
    pub const TWO: Keys = Keys::fixed(1, 2, 1);
    /// Every argument.
    pub const ALL: Keys = Keys::fixed(1, -1, 1);
    /// Every argument but the last.
    pub const ALL_BUT_LAST: Keys = Keys::fixed(1, -2, 1);
    /// Every argument after the first.
    pub const FROM_SECOND: Keys = Keys::fixed(2, -1, 1);
    /// The second argument.
    pub const SECOND: Keys = Keys::fixed(2, 2, 1);
    /// Keys and values in turn.
    pub const PAIRS: Keys = Keys::fixed(1, -1, 2);

    /// Keys at fixed places.
    pub const fn fixed(first: usize, last: isize, step: usize) -> Keys {
        Keys { first, last, step, search: Search::None }
    }

    /// These, and others whose places depend on the arguments.
    pub const fn and(mut self, search: Search) -> Keys {
        self.search = search;
        self
    }

    /// May a request of this kind have keys?
    #[inline(always)]
    pub fn exist(self) -> bool {
        self.first > 0 || self.search != Search::None
    }

    /// The place of the key, where all requests of a kind that have enough arguments have one.
    #[inline(always)]
    pub fn only(self) -> Option<usize> {
        let is_one = self.last == self.first as isize && self.search == Search::None;
        (self.first > 0 && is_one).then_some(self.first)
    }

    /// Positions of the keys at fixed places in a request of `count` arguments.
    pub fn fixed_positions(self, count: usize) -> impl Iterator<Item = usize> + Clone {
        let last = if self.last < 0 { count as isize + self.last } else { self.last };
        let end = if self.first == 0 { 0 } else { (last + 1).max(0) as usize };
        (self.first..end.min(count)).step_by(self.step.max(1))
    }

    /// Positions of all keys of a request, those at fixed places first.
    #[inline]
    pub fn positions(self, arguments: Arguments<'_>) -> impl Iterator<Item = usize> + Clone {
        let (count, found) = match self.search {
            Search::None => (arguments.count(), 0..0),
            _ => self.found(arguments),
        };
        self.fixed_positions(count).chain(found)
    }

    /// Up to which argument keys stand at fixed places, and where the others are.
    #[cold]
    fn found(self, arguments: Arguments<'_>) -> (usize, Range<usize>) {
        let found = self.searched(arguments);
        // What KEYS names stands for the key that is empty.
        let replaces = self.search == Search::MigrateKeys && !found.is_empty();
        (if replaces { 0 } else { arguments.count() }, found)
    }

    fn searched(self, arguments: Arguments<'_>) -> Range<usize> {
        match self.search {
            Search::None => 0..0,
            Search::Counted(at) => counted(arguments, at),
            Search::Streams => streams(arguments),
            Search::SortStore => {
                let takes = [("limit", 2), ("get", 1), ("by", 1)];
                last_after(arguments, 2, &["store"], &takes)
            }
            Search::RadiusStore => last_after(arguments, 5, &["store", "storedist"], &[]),
            Search::MigrateKeys => migrated(arguments),
        }
    }
}

fn counted(arguments: Arguments<'_>, at: usize) -> Range<usize> {
    let count = arguments.get(at).and_then(parse_integer).unwrap_or(0);
    let room = arguments.count().saturating_sub(at + 1);
    match usize::try_from(count) {
        Ok(count) if count <= room => at + 1..at + 1 + count,
        _ => 0..0,
    }
}

fn streams(arguments: Arguments<'_>) -> Range<usize> {
    let mut i = 1;
    while i < arguments.count() {
        if arguments.is(i, "streams") {
            let rest = arguments.count() - i - 1;
            return if rest.is_multiple_of(2) { i + 1..i + 1 + rest / 2 } else { 0..0 };
        }
        i += match () {
            () if arguments.is(i, "block") || arguments.is(i, "count") => 2,
            () if arguments.is(i, "group") => 3,
            () if arguments.is(i, "noack") => 1,
            () => return 0..0,
        };
    }
    0..0
}

/// The argument behind the last of `words`; `takes` are other words with the count of what belongs
/// to them.
fn last_after(
    arguments: Arguments<'_>,
    from: usize,
    words: &[&str],
    takes: &[(&str, usize)],
) -> Range<usize> {
    let (mut found, mut i) = (0..0, from);
    while i < arguments.count() {
        if i + 1 < arguments.count() && words.iter().any(|word| arguments.is(i, word)) {
            found = i + 1..i + 2;
            i += 1;
        } else if let Some((_, count)) = takes.iter().find(|(word, _)| arguments.is(i, word)) {
            i += count;
        }
        i += 1;
    }
    found
}

fn migrated(arguments: Arguments<'_>) -> Range<usize> {
    if arguments.get(3).is_some_and(|key| !key.is_empty()) {
        return 0..0;
    }
    let mut i = 6;
    while i < arguments.count() {
        i += match () {
            () if arguments.is(i, "keys") => return i + 1..arguments.count(),
            () if arguments.is(i, "auth") => 2,
            () if arguments.is(i, "auth2") => 3,
            () => 1,
        };
    }
    0..0
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringraft_shards::arguments::OwnedArguments;

    fn check(keys: Keys, request: &str, expected: &[usize]) {
        let owned: OwnedArguments = request.split(' ').map(str::as_bytes).collect();
        let positions: Vec<usize> = keys.positions(owned.borrow()).collect();
        assert_eq!(positions, expected, "{request}");
    }

    #[test]
    fn keys_stand_where_the_row_says() {
        check(Keys::NONE, "PING", &[]);
        check(Keys::FIRST, "GET a", &[1]);
        check(Keys::TWO, "RENAME a b", &[1, 2]);
        check(Keys::ALL, "DEL a b c", &[1, 2, 3]);
        check(Keys::ALL_BUT_LAST, "BLPOP a b 0", &[1, 2]);
        check(Keys::FROM_SECOND, "DELIF x a b", &[2, 3]);
        check(Keys::PAIRS, "MSET a 1 b 2", &[1, 3]);
    }

    #[test]
    fn counted_keys_are_found() {
        let keys = Keys::NONE.and(Search::Counted(1));
        check(keys, "ZUNION 2 a b WITHSCORES", &[2, 3]);
        for wrong in ["ZUNION 3 a b", "ZUNION 0 a", "ZUNION -1 a", "ZUNION x a", "ZUNION"] {
            check(keys, wrong, &[]);
        }
        check(keys, "ZUNION 9223372036854775807 a", &[]);
        check(Keys::FIRST.and(Search::Counted(2)), "ZUNIONSTORE d 2 a b", &[1, 3, 4]);
        check(Keys::NONE.and(Search::Counted(2)), "BLMPOP 0 1 a LEFT", &[3]);
    }

    #[test]
    fn announced_keys_are_found() {
        let streams = Keys::NONE.and(Search::Streams);
        check(streams, "XREAD COUNT 2 BLOCK 0 STREAMS a b 0 0", &[6, 7]);
        check(streams, "XREADGROUP GROUP streams streams NOACK STREAMS a >", &[6]);
        check(streams, "XREAD STREAMS a b 0", &[]);
        check(streams, "XREAD BOGUS STREAMS a 0", &[]);
        let sort = Keys::FIRST.and(Search::SortStore);
        check(sort, "SORT a BY store GET store LIMIT 0 1 STORE x store y", &[1, 12]);
        check(sort, "SORT a STORE", &[1]);
        let radius = Keys::FIRST.and(Search::RadiusStore);
        check(radius, "GEORADIUS a 1 2 3 m STORE x STOREDIST y", &[1, 9]);
        let migrate = Keys::fixed(3, 3, 1).and(Search::MigrateKeys);
        check(migrate, "MIGRATE h 1 a 0 9", &[3]);
        let owned: OwnedArguments = ["MIGRATE", "h", "1", "", "0", "9", "COPY", "KEYS", "a", "b"]
            .map(str::as_bytes)
            .into_iter()
            .collect();
        assert_eq!(migrate.positions(owned.borrow()).collect::<Vec<_>>(), [8, 9]);
        let owned: OwnedArguments =
            ["MIGRATE", "h", "1", "", "0", "9", "AUTH2", "keys", "keys", "KEYS", "a"]
                .map(str::as_bytes)
                .into_iter()
                .collect();
        assert_eq!(migrate.positions(owned.borrow()).collect::<Vec<_>>(), [10]);
    }
}
