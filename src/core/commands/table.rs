//! Finds a command by the words of a request, or by the number in a log entry.
//!
//! The rows of all families are gathered at compile time into one table, and their names into an
//! open hash index over two 64-bit words, so that a lookup is a few arithmetic steps and one
//! comparison. Invariants, checked when the crate is compiled: every row has one number, every
//! number one row. Of names longer than 16 bytes, which no top-level command has, all bytes are
//! compared.

use super::numbered::NUMBERED;
use super::row::{Row, RunQueued, RunSession, RunShard, Work};
use super::{
    acl, client, cluster, command, command_log, config, connection, debug, failover, function,
    info, latency, member, memory, migrate, persistence, pubsub, raft, script, server,
};
use crate::commands::families::FAMILIES;
use crate::commands::{Command, Run};
use crate::core::cluster::meta;
use crate::core::{transact, wait};
use crate::resp::reply::Reply;
use ringraft_shards::arguments::Arguments;

/// The rows of every family that is none of values. Those of a container follow it.
const SERVER_FAMILIES: &[&[Row]] = &[
    failover::COMMANDS,
    script::COMMANDS,
    function::COMMANDS,
    migrate::COMMANDS,
    acl::COMMANDS,
    connection::COMMANDS,
    pubsub::COMMANDS,
    client::COMMANDS,
    config::COMMANDS,
    command::COMMANDS,
    cluster::COMMANDS,
    meta::COMMANDS,
    member::COMMANDS,
    info::COMMANDS,
    server::COMMANDS,
    persistence::COMMANDS,
    raft::COMMANDS,
    memory::COMMANDS,
    command_log::COMMANDS,
    latency::COMMANDS,
    debug::COMMANDS,
    transact::libraries::COMMANDS,
    transact::transaction::COMMANDS,
    transact::participate::COMMANDS,
    wait::waiting::COMMANDS,
    wait::acknowledge::COMMANDS,
];

/// Longest name of a command or subcommand, in bytes. A longer word is unknown without a lookup.
const NAME_BYTES_MAX: usize = 24;

/// Length up to which the two words of [`fold`] hold all bytes of a name.
const FOLDED_BYTES_MAX: usize = 16;

/// Places of the index: a power of two, at least twice the count of commands, so that probes are
/// short.
const PLACE_COUNT: usize = 1024;

/// No row has a number from here on.
pub const NUMBERS_MAX: usize = PLACE_COUNT / 2;
const _: () = assert!(PLACE_COUNT.is_power_of_two() && PLACE_COUNT >= 2 * NUMBERED.len());

const GATHERED: Gathered = gather();
static ROWS: [Command; NUMBERED.len()] = GATHERED.rows;
static WORKS: [Work; NUMBERED.len()] = GATHERED.works;
static PLACES: [Place; PLACE_COUNT] = index();
static NAMES: [Place; NUMBERED.len()] = names();

/// The row that runs a request: a subcommand's, when the second word names one of a container's.
/// `None` when the first or the second word is unknown. A container without a second word is its
/// own row.
#[inline]
pub fn resolve(arguments: Arguments<'_>) -> Option<&'static Command> {
    let row = find(arguments.at(0))?;
    match (row.run, arguments.get(1)) {
        (Run::Container, Some(word)) => find_under(row.number + 1, word),
        _ => Some(row),
    }
}

/// The row of a command by the first word of a request, in any case.
/// Cost: no allocation, no loop over the name; 4 to 5 ns.
#[inline]
pub fn find(name: &[u8]) -> Option<&'static Command> {
    find_under(0, name)
}

/// Is a word the name of a row, in any case? Cost: as [`find`], less the look for the place.
#[inline(always)]
pub fn is_named(row: &Command, word: &[u8]) -> bool {
    let name = &NAMES[usize::from(row.number)];
    word.len() == row.name.len() && name.is(words_of(word), word)
}

/// `parent` is the container's number plus one, or 0.
#[inline]
fn find_under(parent: u16, name: &[u8]) -> Option<&'static Command> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return None;
    }
    let (head, tail) = words_of(name);
    let mut at = home(head, tail, name.len(), parent);
    loop {
        let place = &PLACES[at];
        if place.size == 0 {
            return None;
        }
        if place.parent == parent && place.is((head, tail), name) {
            return Some(&ROWS[place.number as usize]);
        }
        at = (at + 1) % PLACE_COUNT;
    }
}

/// The row of a command that no client can name. Panics when there is none.
pub fn internal(name: &str) -> &'static Command {
    ROWS.iter().find(|row| row.flags.internal && row.name == name).expect("a row of this server")
}

/// The row that log entries call `number`.
#[inline(always)]
pub fn by_number(number: u16) -> Option<&'static Command> {
    ROWS.get(number as usize)
}

/// Every row, in the order of the numbers.
pub fn rows() -> &'static [Command] {
    &ROWS
}

/// The rows under a container.
pub fn rows_under(container: &str) -> impl Iterator<Item = &'static Command> + Clone {
    ROWS.iter().filter(move |row| row.parent == container)
}

/// The function of a row of kind [`Run::Session`]. Panics when it is of another kind.
#[inline]
pub fn session_work(command: &Command) -> RunSession {
    match WORKS[command.number as usize] {
        Work::Session(run, _) => run,
        _ => unreachable!("{} does not run on the connection's core", command.name),
    }
}

/// What a row of the session does in EXEC, where that is something else.
pub fn queued_work(command: &Command) -> Option<RunQueued> {
    match WORKS[command.number as usize] {
        Work::Session(_, queued) => queued,
        _ => None,
    }
}

/// The function of a row of kind [`Run::Shard`]. Panics when it is of another kind.
pub fn shard_work(command: &Command) -> RunShard {
    match WORKS[command.number as usize] {
        Work::Shard(run) => run,
        _ => unreachable!("{} does not run beside a shard", command.name),
    }
}

/// Bytes of a client's words that an error repeats.
const SHOWN_BYTES_MAX: usize = 128;

/// Answers a request that [`resolve`] does not know: by the command's name and its arguments, cut
/// to 128 bytes, or by the subcommand's name.
#[cold]
pub fn refuse_unknown(arguments: Arguments<'_>, reply: &mut Reply<'_>) {
    if let (Some(row), Some(word)) = (find(arguments.at(0)), arguments.get(1)) {
        let mut text = b"ERR unknown subcommand '".to_vec();
        text.extend_from_slice(printed(word, SHOWN_BYTES_MAX));
        text.extend_from_slice(b"'. Try ");
        text.extend_from_slice(row.name.to_ascii_uppercase().as_bytes());
        text.extend_from_slice(b" HELP.");
        return reply.error_bytes(&text);
    }
    let mut shown = Vec::new();
    for argument in arguments.iter_from(1) {
        if shown.len() >= SHOWN_BYTES_MAX {
            break;
        }
        let room = SHOWN_BYTES_MAX - shown.len();
        shown.push(b'\'');
        shown.extend_from_slice(printed(argument, room));
        shown.extend_from_slice(b"' ");
    }
    let mut text = b"ERR unknown command '".to_vec();
    text.extend_from_slice(printed(arguments.at(0), SHOWN_BYTES_MAX));
    text.extend_from_slice(b"', with args beginning with: ");
    text.extend_from_slice(&shown);
    reply.error_bytes(&text);
}

/// What Redis prints of a word: up to the first NUL, at most `size` bytes.
fn printed(word: &[u8], size: usize) -> &[u8] {
    let end = word.iter().position(|&byte| byte == 0).unwrap_or(word.len());
    &word[..end.min(size)]
}

/// A place of the index; empty when `size` is 0.
#[derive(Clone, Copy)]
struct Place {
    head: u64,
    tail: u64,
    /// 0x20 at every letter of `head`, so that letters, and they alone, match in both cases.
    head_letters: u64,
    tail_letters: u64,
    number: u16,
    parent: u16,
    size: u8,
}

const EMPTY: Place =
    Place { head: 0, tail: 0, head_letters: 0, tail_letters: 0, number: 0, parent: 0, size: 0 };

impl Place {
    /// A row's, whose name has these words.
    const fn of(name: &[u8], number: u16, parent: u16) -> Place {
        let (head, tail) = words_of(name);
        let (head_letters, tail_letters) = (letters_of(head), letters_of(tail));
        Place { head, tail, head_letters, tail_letters, number, parent, size: name.len() as u8 }
    }

    /// Is a word, which has these words of [`words_of`], the name that belongs here, in any case?
    #[inline(always)]
    fn is(&self, (head, tail): (u64, u64), word: &[u8]) -> bool {
        self.head == head | self.head_letters
            && self.tail == tail | self.tail_letters
            && self.size as usize == word.len()
            && (word.len() <= FOLDED_BYTES_MAX
                || ROWS[self.number as usize].name.as_bytes().eq_ignore_ascii_case(word))
    }
}

/// The name as two words that, with its length, are different for different names.
#[inline(always)]
const fn words_of(name: &[u8]) -> (u64, u64) {
    match (name.first_chunk::<8>(), name.last_chunk::<8>()) {
        (Some(head), Some(tail)) => (u64::from_le_bytes(*head), u64::from_le_bytes(*tail)),
        _ => match (name.first_chunk::<4>(), name.last_chunk::<4>()) {
            (Some(head), Some(tail)) => {
                (u32::from_le_bytes(*head) as u64, u32::from_le_bytes(*tail) as u64)
            }
            _ => (name[0] as u64 | (name[name.len() / 2] as u64) << 8, name[name.len() - 1] as u64),
        },
    }
}

/// What ASCII letters in lower case have set, and those in upper case have not.
const CASE: u8 = 0x20;

/// [`CASE`] at every letter of a word in lower case.
const fn letters_of(word: u64) -> u64 {
    let mut bytes = word.to_le_bytes();
    let mut i = 0;
    while i < bytes.len() {
        bytes[i] = if bytes[i].is_ascii_lowercase() { CASE } else { 0 };
        i += 1;
    }
    u64::from_le_bytes(bytes)
}

/// Where to look first; the same for both cases of a letter.
#[inline(always)]
const fn home(head: u64, tail: u64, size: usize, parent: u16) -> usize {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    const CASES: u64 = u64::from_le_bytes([CASE; 8]);
    let words = (head | CASES) ^ (tail | CASES).rotate_left(29);
    let mixed = (words ^ size as u64 ^ (parent as u64) << 32).wrapping_mul(ODD);
    (mixed >> (64 - PLACE_COUNT.trailing_zeros())) as usize
}

const fn gather() -> Gathered {
    let mut gathered = Gathered {
        rows: [FAMILIES[0][0]; NUMBERED.len()],
        works: [Work::None; NUMBERED.len()],
        placed: [false; NUMBERED.len()],
        count: 0,
    };
    let mut family = 0;
    while family < FAMILIES.len() {
        gathered.place_values(FAMILIES[family], "");
        family += 1;
    }
    let mut family = 0;
    while family < SERVER_FAMILIES.len() {
        gathered.place_all(SERVER_FAMILIES[family], "");
        family += 1;
    }
    assert!(gathered.count == NUMBERED.len(), "a name in NUMBERED has no row");
    gathered
}

struct Gathered {
    rows: [Command; NUMBERED.len()],
    works: [Work; NUMBERED.len()],
    placed: [bool; NUMBERED.len()],
    count: usize,
}

impl Gathered {
    const fn place_values(&mut self, family: &'static [Command], parent: &str) {
        let mut i = 0;
        while i < family.len() {
            self.place(family[i], parent, Work::None);
            self.place_values(family[i].subcommands, family[i].name);
            i += 1;
        }
    }

    const fn place_all(&mut self, family: &'static [Row], parent: &str) {
        let mut i = 0;
        while i < family.len() {
            self.place(family[i].bare(), parent, family[i].work);
            self.place_all(family[i].subcommands, family[i].name);
            i += 1;
        }
    }

    const fn place(&mut self, mut row: Command, parent: &str, work: Work) {
        assert!(same(row.parent.as_bytes(), parent.as_bytes()), "a row names another parent");
        let number = number_of(row.parent, row.name);
        assert!(!self.placed[number], "two rows have the same name");
        self.placed[number] = true;
        self.count += 1;
        row.number = number as u16;
        self.rows[number] = row;
        self.works[number] = work;
    }
}

const fn number_of(parent: &str, name: &str) -> usize {
    let bar = !parent.is_empty() as usize;
    let size = parent.len() + bar + name.len();
    let mut number = 0;
    while number < NUMBERED.len() {
        // The compiler counts steps: most names are told apart by their size.
        if NUMBERED[number].len() != size {
            number += 1;
            continue;
        }
        let (parent_shown, shown) = halves(NUMBERED[number].as_bytes());
        if same(parent_shown, parent.as_bytes()) && same(shown, name.as_bytes()) {
            return number;
        }
        number += 1;
    }
    // Compile-time panics format nothing else: a row's name that is not in NUMBERED.
    panic!("{}", name)
}

/// `parent|name` in its two parts; the first is empty without a bar.
const fn halves(full: &[u8]) -> (&[u8], &[u8]) {
    let mut at = 0;
    while at < full.len() {
        if full[at] == b'|' {
            let (parent, rest) = full.split_at(at);
            return (parent, rest.split_at(1).1);
        }
        at += 1;
    }
    (&[], full)
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len()
}

const fn index() -> [Place; PLACE_COUNT] {
    let rows = &ROWS;
    let mut places = [EMPTY; PLACE_COUNT];
    let mut number = 0;
    while number < rows.len() {
        let name = rows[number].name.as_bytes();
        assert!(!name.is_empty() && name.len() <= NAME_BYTES_MAX, "a name does not fit");
        let parent = rows[number].parent;
        let parent = if parent.is_empty() { 0 } else { number_of("", parent) as u16 + 1 };
        let (head, tail) = words_of(name);
        let mut at = home(head, tail, name.len(), parent);
        while places[at].size != 0 {
            at = (at + 1) % PLACE_COUNT;
        }
        if !rows[number].flags.internal {
            places[at] = Place::of(name, number as u16, parent);
        }
        number += 1;
    }
    places
}

/// The names of all rows, by number; parents are of no meaning.
const fn names() -> [Place; NUMBERED.len()] {
    let mut names = [EMPTY; NUMBERED.len()];
    let mut number = 0;
    while number < names.len() {
        names[number] = Place::of(ROWS[number].name.as_bytes(), number as u16, 0);
        number += 1;
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::{Arity, Spread};
    use crate::resp::reply::Protocol;
    use ringraft_shards::arguments::OwnedArguments;

    fn found(words: &[&[u8]]) -> Option<&'static Command> {
        let owned: OwnedArguments = words.iter().copied().collect();
        resolve(owned.borrow())
    }

    #[test]
    fn names_are_told_from_all_others() {
        for row in rows() {
            let mut words: Vec<Vec<u8>> = rows().iter().map(|row| row.name.into()).collect();
            words.push(row.name.to_ascii_uppercase().into());
            words.extend([b"".to_vec(), [row.name.as_bytes(), b"x"].concat()]);
            for at in 0..row.name.len() {
                for bit in 0..8 {
                    let mut word = row.name.as_bytes().to_vec();
                    word[at] ^= 1 << bit;
                    words.push(word);
                }
            }
            for word in words {
                let same = word.eq_ignore_ascii_case(row.name.as_bytes());
                assert_eq!(is_named(row, &word), same, "{}: {}", row.name, word.escape_ascii());
            }
        }
    }

    #[test]
    fn finding_is_exact() {
        let names: Vec<&str> =
            rows().iter().filter(|row| row.parent.is_empty()).map(|row| row.name).collect();
        for row in rows().iter().filter(|row| !row.flags.internal && row.parent.is_empty()) {
            let name = row.name;
            assert!(std::ptr::eq(row, find(name.as_bytes()).expect("every row is found")));
            assert!(std::ptr::eq(row, find(name.to_uppercase().as_bytes()).expect("any case")));
            // Every single-byte change that is not a change of case is another word.
            for i in 0..name.len() {
                for byte in 0..=255u8 {
                    let mut word = name.as_bytes().to_vec();
                    word[i] = byte;
                    let known = names.iter().any(|n| n.as_bytes().eq_ignore_ascii_case(&word));
                    assert_eq!(find(&word).is_some(), known, "{word:?}");
                }
            }
        }
        for word in [b"".as_slice(), b"nosuchcommand", b"averyverylongword", &[b'g'; 300]] {
            assert!(find(word).is_none());
        }
        assert!(by_number(NUMBERED.len() as u16).is_none());
    }

    #[test]
    fn subcommands_are_found_under_their_container() {
        let encoding = found(&[b"Object", b"ENCODING", b"key"]).expect("a subcommand");
        assert_eq!((encoding.parent, encoding.name), ("object", "encoding"));
        assert_eq!(encoding.full_name(), "object|encoding");
        assert_eq!(found(&[b"object"]).map(|row| row.name), Some("object"));
        assert!(found(&[b"object", b"bogus"]).is_none());
        assert!(found(&[b"encoding", b"key"]).is_none());
        assert!(found(&[b"object", b"get"]).is_none());
    }

    #[test]
    fn rows_are_sound() {
        for (number, row) in rows().iter().enumerate() {
            assert_eq!((row.number as usize, row.full_name()), (number, NUMBERED[number].into()));
            let least = row.arity.number().unsigned_abs() as usize;
            assert!(row.arity.fits(least), "{}", row.name);
            assert!(!row.arity.fits(0) && !row.summary.is_empty(), "{}", row.name);
            assert!(!row.flags.grows || row.flags.write, "{}: only writes grow", row.name);
            if row.keys.first > 0 {
                let positions: Vec<usize> = row.keys.fixed_positions(least).collect();
                assert_eq!(positions.first(), Some(&row.keys.first), "{}", row.name);
                assert!(positions.iter().all(|&at| at < least), "{}", row.name);
            }
            let writes_everywhere = row.flags.write && matches!(row.spread, Spread::Everywhere(_));
            let takes_arguments = row.arity != Arity::Exactly(1) && row.name != "pdel";
            assert!(
                !writes_everywhere || !takes_arguments || row.check.is_some(),
                "{}: who would hear of a refusal?",
                row.name
            );
            match row.run {
                Run::Read(_) => assert!(row.flags.readonly && !row.flags.write, "{}", row.name),
                Run::Write(_) | Run::Serve => {
                    assert!(row.flags.write && !row.flags.readonly, "{}", row.name);
                }
                Run::Block(_) => assert!(row.flags.write && row.wait.is_some(), "{}", row.name),
                Run::Container => {
                    assert!(rows_under(row.name).next().is_some(), "{}", row.name);
                }
                Run::Shard => assert!(!row.flags.write, "{}", row.name),
                Run::Record => assert!(row.flags.write && row.flags.internal, "{}", row.name),
                Run::Script(_) => assert!(!row.flags.write, "{}", row.name),
                Run::Plain(_) | Run::Session => {
                    // Libraries of functions are no items, and yet changed through a log; what
                    // MIGRATE deletes its transaction does.
                    let is_known = row.parent == "function" || row.name == "migrate";
                    let writes = row.flags.write && !is_known;
                    assert!(!writes && row.spread == Spread::One, "{}", row.name);
                }
            }
        }
    }

    #[test]
    fn unknown_words_are_shown_cut() {
        for (words, expected) in [
            (
                vec!["object", "Foo"],
                "-ERR unknown subcommand 'Foo'. Try OBJECT HELP.\r\n".to_owned(),
            ),
            (vec!["foo"], "-ERR unknown command 'foo', with args beginning with: \r\n".to_owned()),
            (
                vec!["Foo\r\nx", "a", "b\0c"],
                "-ERR unknown command 'Foo  x', with args beginning with: 'a' 'b' \r\n".to_owned(),
            ),
            (
                vec!["foo", "a", &"x".repeat(200), "b"],
                format!(
                    "-ERR unknown command 'foo', with args beginning with: 'a' '{}' \r\n",
                    "x".repeat(124)
                ),
            ),
        ] {
            let owned: OwnedArguments = words.iter().map(|word| word.as_bytes()).collect();
            let mut out = Vec::new();
            refuse_unknown(owned.borrow(), &mut Reply::new(&mut out, Protocol::Resp2));
            assert_eq!(String::from_utf8_lossy(&out), expected);
        }
    }
}
