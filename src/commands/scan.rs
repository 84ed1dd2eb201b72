//! Walking through a database piece by piece: SCAN and RANDOMKEY.
//!
//! A cursor is a place, not a state: slot and lower bound of the hash, so it is good on every
//! replica and after a restart. The slots of a shard are walked in ascending order; the router goes
//! on with the next shard where [`Cursor::END`] is answered too early.

use super::keys::type_name;
use super::refusal::{Outcome, Refusal};
use super::{Arity, Call, Command, Gather, Group, Keys, read};
use crate::glob::Glob;
use crate::limits::SCAN_COUNT_DEFAULT;
use crate::numbers::parse_integer;
use crate::resp::reply::Reply;
use ringraft_shards::arguments::Arguments;
use ringraft_shards::keyspace::{SCAN_UNIT, ScanPosition, View};
use ringraft_shards::slot::SLOT_COUNT;

/// Rows of this file.
pub const COMMANDS: &[Command] = &[
    read("scan", Arity::AtLeast(2), Keys::NONE, scan)
        .everywhere(Gather::Cursor)
        .random_reply()
        .about(Group::Generic, "2.8.0", "Some keys of the database, and where to go on."),
    read("randomkey", Arity::Exactly(1), Keys::NONE, randomkey)
        .everywhere(Gather::AnyPresent)
        .random_reply()
        .about(Group::Generic, "1.0.0", "Any key of the database."),
];

/// Where a SCAN goes on: `slot << 38 | top 38 bits of the hash`, below 2^48: clients keep cursors
/// in doubles, too. 0 is both the start and the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(pub u64);

const HASH_BITS: u32 = 38;

impl Cursor {
    /// Nothing is left (and, from a client, the start).
    pub const END: Cursor = Cursor(0);

    /// The cursor that goes on at `position`; `None` means that there is nothing to go on with.
    pub fn new(position: Option<ScanPosition>) -> Cursor {
        position.map_or(Cursor::END, |position| {
            let hash = position.hash / SCAN_UNIT;
            assert!(position.slot < SLOT_COUNT && hash >> HASH_BITS == 0, "{position:?}");
            assert_eq!(position.hash % SCAN_UNIT, 0, "a scan stops where a cursor can name it");
            Cursor((position.slot as u64) << HASH_BITS | hash)
        })
    }

    /// The cursor of a SCAN's arguments. Errors: as [`Cursor::at`].
    pub fn of(arguments: Arguments<'_>) -> Result<Cursor, Refusal> {
        Cursor::at(arguments, 1)
    }

    /// The cursor that is argument `i`: digits of a 64-bit number.
    pub fn at(arguments: Arguments<'_>, i: usize) -> Result<Cursor, Refusal> {
        let digits = arguments.get(i).unwrap_or_default();
        let text =
            std::str::from_utf8(digits).ok().filter(|_| digits.iter().all(u8::is_ascii_digit));
        let number = text.and_then(|text| text.parse().ok());
        number.map(Cursor).ok_or(Refusal::text("ERR invalid cursor"))
    }

    /// Where it goes on; `None` for a cursor past the last slot, which SCAN never gave.
    pub fn position(self) -> Option<ScanPosition> {
        let slot = (self.0 >> HASH_BITS) as usize;
        let hash = (self.0 & ((1 << HASH_BITS) - 1)) * SCAN_UNIT;
        (slot < SLOT_COUNT).then_some(ScanPosition { slot, hash })
    }
}

/// Options of a SCAN.
#[derive(Clone, Debug)]
pub struct ScanOptions<'a> {
    /// About how many keys to look at.
    pub count: usize,
    /// Only keys that match.
    pub pattern: Option<Glob<'a>>,
    /// Only values of this type.
    pub type_name: Option<&'a [u8]>,
    /// NOVALUES: fields alone.
    pub hides_values: bool,
}

impl<'a> ScanOptions<'a> {
    /// Reads the words after the cursor of a SCAN.
    pub fn of(arguments: Arguments<'a>) -> Result<ScanOptions<'a>, Refusal> {
        ScanOptions::from(arguments, Scanned::Keys)
    }

    /// Reads the words after key and cursor of a command that scans a collection. There is no TYPE.
    pub fn of_elements(arguments: Arguments<'a>) -> Result<ScanOptions<'a>, Refusal> {
        ScanOptions::from(arguments, Scanned::Elements)
    }

    /// As [`ScanOptions::of_elements`], of a hash: there is NOVALUES too.
    pub fn of_fields(arguments: Arguments<'a>) -> Result<ScanOptions<'a>, Refusal> {
        ScanOptions::from(arguments, Scanned::Fields)
    }

    fn from(arguments: Arguments<'a>, scanned: Scanned) -> Result<ScanOptions<'a>, Refusal> {
        let mut options = ScanOptions {
            count: SCAN_COUNT_DEFAULT,
            pattern: None,
            type_name: None,
            hides_values: false,
        };
        let mut i = if scanned == Scanned::Keys { 2 } else { 3 };
        while i < arguments.count() {
            if scanned == Scanned::Fields && arguments.is(i, "novalues") {
                options.hides_values = true;
                i += 1;
                continue;
            }
            let value = arguments.get(i + 1).ok_or(Refusal::Syntax)?;
            if arguments.is(i, "count") {
                let count = parse_integer(value).ok_or(Refusal::NotAnInteger)?;
                options.count = usize::try_from(count).map_err(|_| Refusal::Syntax)?;
                if options.count == 0 {
                    return Err(Refusal::Syntax);
                }
            } else if arguments.is(i, "match") {
                options.pattern = Some(Glob::new(value));
            } else if arguments.is(i, "type") && scanned == Scanned::Keys {
                options.type_name = Some(value);
            } else {
                return Err(Refusal::Syntax);
            }
            i += 2;
        }
        Ok(options)
    }
}

/// What a command scans: it decides where its options begin, and which there are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scanned {
    Keys,
    Elements,
    Fields,
}

/// Answers for one shard, from the cursor's slot to the shard's last one at most.
fn scan(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let cursor = Cursor::of(call.arguments)?;
    let options = ScanOptions::of(call.arguments)?;
    let mut keys: Vec<&[u8]> = Vec::new();
    let next = cursor.position().and_then(|position| {
        view.scan(position, options.count, &mut |item| {
            let wanted = options.pattern.as_ref().is_none_or(|glob| glob.matches(item.key()))
                && options.type_name.is_none_or(|wanted| {
                    type_name(item.shape().value_type()).as_bytes().eq_ignore_ascii_case(wanted)
                });
            if wanted {
                keys.push(item.key());
            }
        })
    });
    reply.array(2);
    reply.bulk_integer(Cursor::new(next).0 as i64);
    reply.array(keys.len());
    for key in keys {
        reply.bulk(key);
    }
    Ok(())
}

/// The reply of a scan of a value: where to go on, and `count` elements as RESP.
pub fn reply_elements(next: u64, count: usize, elements: &[u8], reply: &mut Reply<'_>) {
    reply.array(2);
    reply.bulk_integer(next as i64);
    reply.array(count);
    reply.raw(elements);
}

fn randomkey(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    match view.random(call.seed) {
        Some(item) => reply.bulk(item.key()),
        None => reply.null(),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::tests::{Runner, bulks};
    use ringraft_shards::arguments::OwnedArguments;

    #[test]
    fn cursors_are_places() {
        for (slot, unit) in [(0, 0), (0, 1), (1023, 0), (1023, (1 << HASH_BITS) - 1), (5, 77)] {
            let position = ScanPosition { slot, hash: unit * SCAN_UNIT };
            let cursor = Cursor::new(Some(position));
            assert!(cursor.0 < 1 << 48);
            assert_eq!(cursor.position(), Some(position));
            let digits = cursor.0.to_string();
            let owned: OwnedArguments =
                [b"scan".as_slice(), digits.as_bytes()].into_iter().collect();
            assert_eq!(Cursor::of(owned.borrow()), Ok(cursor));
        }
        assert_eq!(Cursor::new(None), Cursor::END);
        assert_eq!(Cursor(1024 << HASH_BITS).position(), None);
    }

    #[test]
    fn cursors_are_digits() {
        for text in ["", "x", "-1", "+1", " 1", "18446744073709551616"] {
            let owned: OwnedArguments = [b"scan".as_slice(), text.as_bytes()].into_iter().collect();
            assert!(Cursor::of(owned.borrow()).is_err(), "{text:?}");
        }
    }

    /// Scans to the end; calls `between` after every part.
    fn scan_all(runner: &mut Runner, mut between: impl FnMut(&mut Runner, usize)) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let mut cursor = b"0".to_vec();
        for part in 0.. {
            let digits = String::from_utf8(cursor).expect("digits");
            let reply = runner.run(&["SCAN", &digits, "COUNT", "7"]);
            let mut bulks = bulks(&reply).into_iter();
            cursor = bulks.next().expect("a cursor").to_vec();
            found.extend(bulks.map(<[u8]>::to_vec));
            if cursor == b"0" {
                break;
            }
            between(runner, part);
        }
        found.sort_unstable();
        found
    }

    #[test]
    fn a_scan_finds_every_key_once() {
        let mut runner = Runner::default();
        let mut keys: Vec<Vec<u8>> = (0..5000).map(|n| format!("key:{n}").into_bytes()).collect();
        for key in &keys {
            runner.run(&["SET", std::str::from_utf8(key).expect("text"), "value"]);
        }
        keys.sort_unstable();
        assert_eq!(scan_all(&mut runner, |_, _| {}), keys);
    }

    #[test]
    fn a_scan_finds_what_stays_while_tables_grow_and_shrink() {
        // One slot, so that its table is resized many times.
        let mut runner = Runner::default();
        for n in 0..500 {
            runner.run(&["SET", &format!("stays:{n}{{tag}}"), "value"]);
        }
        let mut found = scan_all(&mut runner, |runner, part| {
            for n in 0..50 {
                if part < 60 {
                    runner.run(&["SET", &format!("{part}:{n}{{tag}}"), "value"]);
                }
                if part >= 30 {
                    runner.run(&["DEL", &format!("{}:{n}{{tag}}", part - 30)]);
                }
            }
        });
        found.retain(|key| key.starts_with(b"stays:"));
        found.dedup();
        assert_eq!(found.len(), 500);
    }

    #[test]
    fn any_key_may_be_the_random_one() {
        let mut runner = Runner::default();
        for key in ["a", "b", "c"] {
            runner.run(&["SET", key, "value"]);
        }
        let mut seen: Vec<Vec<u8>> = (0..200).map(|_| runner.run(&["RANDOMKEY"])).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 3);
    }
}
