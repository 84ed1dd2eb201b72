//! What a command does with its keys, and which channels it names: what users are allowed by.
//!
//! A row's keys are in its numbers (`key_search.rs`); what is said here of them follows from the
//! row too, but for the names below. A key that is only looked at from outside (EXISTS, LLEN, TYPE)
//! needs no permission but that its name is among those of the user.

use super::{Command, Group, table};
use ringraft_shards::arguments::Arguments;
use std::ops::Range;
use std::sync::LazyLock;

/// What is done with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Neither is its value told nor changed.
    Neither,
    /// Its value is told.
    Read,
    /// Its value is changed.
    Write,
    /// Both.
    ReadWrite,
}

use Access::{Neither, Read, ReadWrite, Write};

impl Access {
    fn bits(self) -> u8 {
        match self {
            Neither => 0,
            Read => 1,
            Write => 2,
            ReadWrite => 3,
        }
    }

    /// Does it include the other?
    pub fn covers(self, other: Access) -> bool {
        self.bits() & other.bits() == other.bits()
    }

    /// Both together.
    pub fn and(self, other: Access) -> Access {
        match self.bits() | other.bits() {
            0 => Neither,
            1 => Read,
            2 => Write,
            _ => ReadWrite,
        }
    }
}

/// What the names of channels are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// Names.
    Names,
    /// Patterns of names.
    Patterns,
}

/// What a command does with its keys.
#[derive(Clone, Copy)]
struct KeyUse {
    /// With its first key.
    first: Access,
    /// With the other keys at fixed places.
    rest: Access,
    /// With those that are found in the arguments.
    found: Access,
    /// Are its words looked at for what it does?
    by_words: Option<fn(Arguments<'_>) -> Access>,
}

/// Commands that do something else with their keys than reading in a row that reads and writing in
/// one that writes.
const USES: &[(KeyUse, &[&str])] = &[
    (
        all(Neither),
        &[
            "exists",
            "hexists",
            "hlen",
            "hstrlen",
            "llen",
            "memory|usage",
            "object|encoding",
            "object|freq",
            "object|idletime",
            "object|refcount",
            "scard",
            "sismember",
            "strlen",
            "touch",
            "type",
            "watch",
            "xlen",
            "zcard",
        ],
    ),
    (all(Read), &["xreadgroup", "eval_ro", "evalsha_ro", "fcall_ro", "pfdebug"]),
    (
        all(ReadWrite),
        &[
            "blmpop",
            "blpop",
            "brpop",
            "bzmpop",
            "bzpopmax",
            "bzpopmin",
            "decr",
            "decrby",
            "delif",
            "eval",
            "evalsha",
            "fcall",
            "getdel",
            "getex",
            "getset",
            "hgetdel",
            "hgetex",
            "hincrby",
            "hincrbyfloat",
            "incr",
            "incrby",
            "incrbyfloat",
            "lmpop",
            "lpop",
            "migrate",
            "move",
            "rpop",
            "setbit",
            "spop",
            "zincrby",
            "zmpop",
            "zpopmax",
            "zpopmin",
        ],
    ),
    (
        then(ReadWrite, Write),
        &["blmove", "brpoplpush", "lmove", "rename", "renamenx", "rpoplpush", "smove"],
    ),
    (
        then(Write, Read),
        &[
            "bitop",
            "geosearchstore",
            "sdiffstore",
            "sinterstore",
            "sunionstore",
            "zdiffstore",
            "zinterstore",
            "zrangestore",
            "zunionstore",
        ],
    ),
    (then(Read, Write), &["copy", "georadius", "georadiusbymember", "sort"]),
    (then(ReadWrite, Read), &["pfmerge"]),
    (KeyUse { by_words: Some(of_set), ..all(ReadWrite) }, &["set"]),
    (KeyUse { by_words: Some(of_bitfield), ..all(ReadWrite) }, &["bitfield"]),
];

/// Commands that name channels; those that end subscriptions need no permission.
const CHANNELS: &[(&str, Channels, ChannelsAt)] = &[
    ("subscribe", Channels::Names, ChannelsAt::All),
    ("ssubscribe", Channels::Names, ChannelsAt::All),
    ("psubscribe", Channels::Patterns, ChannelsAt::All),
    ("publish", Channels::Names, ChannelsAt::First),
    ("spublish", Channels::Names, ChannelsAt::First),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChannelsAt {
    All,
    First,
}

const fn all(access: Access) -> KeyUse {
    KeyUse { first: access, rest: access, found: access, by_words: None }
}

const fn then(first: Access, others: Access) -> KeyUse {
    KeyUse { first, rest: others, found: others, by_words: None }
}

fn of_set(arguments: Arguments<'_>) -> Access {
    let tells = (3..arguments.count()).any(|i| arguments.is(i, "get"));
    if tells { ReadWrite } else { Write }
}

/// BITFIELD that only gets only reads.
fn of_bitfield(arguments: Arguments<'_>) -> Access {
    let mut i = 2;
    while i < arguments.count() {
        let left = arguments.count() - i - 1;
        i += match () {
            () if arguments.is(i, "get") && left >= 2 => 3,
            () if arguments.is(i, "overflow") && left >= 1 => 2,
            () => return ReadWrite,
        };
    }
    Read
}

fn use_of(row: &Command) -> KeyUse {
    let name = row.full_name();
    let listed = USES.iter().find(|(_, names)| names.contains(&name.as_ref()));
    match listed {
        Some((found, _)) => *found,
        None if row.flags.write => all(Write),
        None => all(Read),
    }
}

static BY_NUMBER: LazyLock<Vec<KeyUse>> =
    LazyLock::new(|| table::rows().iter().map(use_of).collect());

impl Command {
    /// The positions of a request's keys, and what it does with each.
    pub fn key_access<'a>(
        &self,
        arguments: Arguments<'a>,
    ) -> impl Iterator<Item = (usize, Access)> + use<'a> {
        // Names of shard channels stand where keys do, and are none; those of DEBUG need no
        // permission, as in Redis.
        let has_none = self.group == Group::PubSub || self.parent == "debug";
        let count_max = if has_none { 0 } else { usize::MAX };
        let fixed_count = self.keys.fixed_positions(arguments.count()).count();
        let uses = BY_NUMBER[usize::from(self.number)];
        let by_words = uses.by_words.map(|of| of(arguments));
        let positions = self.keys.positions(arguments).take(count_max).enumerate();
        positions.map(move |(nth, position)| {
            let access = match nth {
                _ if nth >= fixed_count => uses.found,
                0 => uses.first,
                _ => uses.rest,
            };
            (position, by_words.unwrap_or(access))
        })
    }

    /// Where a request of so many arguments names channels that it needs permission for.
    pub fn channels(&self, count: usize) -> (Range<usize>, Channels) {
        let named = match self.group {
            Group::PubSub => CHANNELS.iter().find(|(name, _, _)| *name == self.name),
            _ => None,
        };
        match named {
            Some((_, kind, ChannelsAt::All)) => (1..count, *kind),
            Some((_, kind, ChannelsAt::First)) => (1..count.min(2), *kind),
            None => (0..0, Channels::Names),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringraft_shards::arguments::OwnedArguments;

    #[test]
    fn the_names_are_rows() {
        for name in USES.iter().flat_map(|(_, names)| *names) {
            assert!(table::rows().iter().any(|row| row.full_name() == *name), "{name}");
        }
        for (name, _, _) in CHANNELS {
            assert!(table::find(name.as_bytes()).is_some(), "{name}");
        }
    }

    #[test]
    fn each_key_has_its_access() {
        let check = |request: &str, expected: &[(usize, Access)]| {
            let owned: OwnedArguments = request.split(' ').map(str::as_bytes).collect();
            let row = table::resolve(owned.borrow()).expect(request);
            let found: Vec<_> = row.key_access(owned.borrow()).collect();
            assert_eq!(found, expected, "{request}");
        };
        check("GET a", &[(1, Read)]);
        check("EXISTS a b", &[(1, Neither), (2, Neither)]);
        check("SET a 1", &[(1, Write)]);
        check("SET a get", &[(1, Write)]);
        check("SET a 1 NX GET", &[(1, ReadWrite)]);
        check("RENAME a b", &[(1, ReadWrite), (2, Write)]);
        check("COPY a b", &[(1, Read), (2, Write)]);
        check("ZUNIONSTORE d 2 a b", &[(1, Write), (3, Read), (4, Read)]);
        check("SORT a STORE b", &[(1, Read), (3, Write)]);
        check("BITFIELD a GET u8 0 OVERFLOW SAT", &[(1, Read)]);
        check("BITFIELD a GET u8 0 SET u8 0 1", &[(1, ReadWrite)]);
        check("WATCH a b", &[(1, Neither), (2, Neither)]);
        check("DEBUG OBJECT a", &[]);
        check("SSUBSCRIBE a", &[]);
        check("PING", &[]);
    }
}
