//! The state machine of each shard: the engine's keyspace under a small set of commands, encoded as
//! the server does it.

use ringraft_shards::arguments::{Arguments, OwnedArguments};
use ringraft_shards::ids::DatabaseIndex;
use ringraft_shards::keyspace::{Edit, Expiry, Key, KeyHasher, StringForm, View};
use ringraft_shards::slot::{Slot, SlotScheme};

use crate::command::{Command, Condition, KeyNumber, Reply};
use crate::{queues, shelves, values};

/// The database that all clients use.
pub const DATABASE: DatabaseIndex = DatabaseIndex(0);

/// Seed of the key hash, the same on all nodes.
pub const HASH_SEED: u64 = 77;

/// Number of the first client command; see [`number`].
const EXEC: u16 = 12;
/// SET with a deadline, which no history knows of: replicas must agree on it all the same.
pub const FLEETING: u16 = 13;
/// Time is turned back.
pub const TURN_BACK: u16 = 14;
/// A transaction reads: beside an entry, never in one.
pub const FETCH: u16 = 15;
const PUSH: u16 = 16;
const POP: u16 = 17;
/// Waits at its first key.
pub const MOVE: u16 = 18;
/// Serves commands that wait.
pub const SERVE: u16 = 19;
const ADD: u16 = 20;
const REMOVE: u16 = 21;
const GIVE: u16 = 22;
const ACKNOWLEDGE: u16 = 23;
/// Reads what comes behind an id, and waits for it.
pub const AWAIT_ENTRIES: u16 = 24;
/// Founds what the meta group's nodes agree on.
pub const META_FOUND: u16 = 40;
/// Takes an entry of the meta group in.
pub const META_ENTRY: u16 = 41;

/// Which operation does this: its first argument says it.
pub fn operation_of(arguments: Arguments<'_>) -> u64 {
    u64::from_le_bytes(arguments.at(0).try_into().expect("names are 8 bytes"))
}

fn number(command: &Command) -> u16 {
    match command {
        Command::Get(_) => 1,
        Command::Set(..) => 2,
        Command::Exchange(..) => 3,
        Command::Delete(_) => 4,
        Command::Increment(_) => 5,
        Command::Append(..) => 6,
        Command::MGet(_) => 7,
        Command::MSet(_) => 8,
        Command::MSetAbsent(_) => 9,
        Command::Rename(..) => 10,
        Command::Copy { .. } => 11,
        Command::Exec(_) => EXEC,
        Command::Push(..) => PUSH,
        Command::Pop(_) => POP,
        Command::Move(..) => MOVE,
        Command::Add(..) => ADD,
        Command::Remove(..) => REMOVE,
        Command::Give(..) => GIVE,
        Command::Acknowledge(..) => ACKNOWLEDGE,
        Command::AwaitEntries(..) => AWAIT_ENTRIES,
    }
}

/// The bytes of a key.
pub fn key_name(key: KeyNumber) -> Vec<u8> {
    format!("k{key}").into_bytes()
}

/// Which shard of so many has a key.
pub fn shard_of(key: &[u8], shards: u16) -> u16 {
    (Slot::of_key(key, SlotScheme::Codis).number() % shards as usize) as u16
}

/// The command's number and arguments. The first argument names the operation, for the checks.
pub fn encode(operation: u64, command: &Command) -> (u16, OwnedArguments) {
    let mut arguments = OwnedArguments::default();
    arguments.push(&operation.to_le_bytes());
    push(&mut arguments, command);
    (number(command), arguments)
}

fn push(out: &mut OwnedArguments, command: &Command) {
    let mut key = |key: &KeyNumber| out.push(&key_name(*key));
    match command {
        Command::Get(name) | Command::Increment(name) => key(name),
        Command::Exchange(name, value)
        | Command::Append(name, value)
        | Command::Push(name, value)
        | Command::Remove(name, value)
        | Command::Give(name, value)
        | Command::Acknowledge(name, value) => {
            key(name);
            out.push(value);
        }
        Command::Add(name, element, value) => {
            key(name);
            out.push(element);
            out.push(value);
        }
        Command::AwaitEntries(name, from) => {
            key(name);
            if let Some(from) = from {
                out.push(&shelves::digits(*from));
            }
        }
        Command::Set(name, value, condition) => {
            key(name);
            out.push(value);
            match condition {
                Condition::Always => {}
                Condition::Absent => out.push(b"NX"),
                Condition::Present => out.push(b"XX"),
                Condition::Equals(old) => {
                    out.push(b"IFEQ");
                    out.push(old);
                }
            }
        }
        Command::Delete(names) | Command::MGet(names) | Command::Pop(names) => {
            names.iter().for_each(key);
        }
        Command::MSet(pairs) | Command::MSetAbsent(pairs) => {
            for (name, value) in pairs {
                out.push(&key_name(*name));
                out.push(value);
            }
        }
        Command::Rename(from, to) | Command::Move(from, to) => {
            [from, to].into_iter().for_each(key);
        }
        Command::Copy { from, to, replace } => {
            [from, to].into_iter().for_each(key);
            if *replace {
                out.push(b"REPLACE");
            }
        }
        Command::Exec(commands) => {
            for one in commands {
                let mut inner = OwnedArguments::default();
                push(&mut inner, one);
                out.push(&[number(one) as u8, inner.borrow().count() as u8]);
                inner.borrow().iter_from(0).for_each(|argument| out.push(argument));
            }
        }
    }
}

fn keyed(hasher: KeyHasher, bytes: &[u8]) -> Key<'_> {
    Key::new(bytes, hasher.hash(bytes))
}

fn value(view: &View<'_>, key: &[u8]) -> Reply {
    let item = view.get(&keyed(view.hasher(), key));
    item.map_or(Reply::Nil, |item| {
        Reply::Bytes(shelves::read(key, item).unwrap_or_else(|| values::read(item)))
    })
}

/// Runs a read. `arguments` begin behind the operation's name.
pub fn read(view: &View<'_>, number: u16, arguments: Arguments<'_>) -> Reply {
    match number {
        1 => value(view, arguments.at(0)),
        7 => Reply::List(arguments.iter_from(0).map(|key| value(view, key)).collect()),
        EXEC => {
            let mut replies = Vec::new();
            each(arguments, |number, arguments| replies.push(read(view, number, arguments)));
            Reply::List(replies)
        }
        other => panic!("command {other} is no read"),
    }
}

/// Calls with every command of an EXEC.
fn each<'a>(arguments: Arguments<'a>, mut run: impl FnMut(u16, Arguments<'a>)) {
    let mut at = 0;
    while let Some(&[number, count]) = arguments.get(at) {
        run(u16::from(number), arguments.tail(at + 1).first(count as usize));
        at += 1 + count as usize;
    }
}

/// Runs any command. `arguments` begin behind the operation's name.
pub fn run(edit: &mut Edit<'_>, number: u16, arguments: Arguments<'_>) -> Reply {
    let hasher = edit.view().hasher();
    let set = |edit: &mut Edit<'_>, key: &[u8], value: &[u8]| {
        values::set(edit, &keyed(hasher, key), value);
    };
    match number {
        2 => {
            let old = value(&edit.view(), arguments.at(0));
            let holds = match arguments.get(2) {
                None => true,
                Some(b"NX") => old == Reply::Nil,
                Some(b"XX") => old != Reply::Nil,
                Some(_) => old == Reply::Bytes(arguments.at(3).to_vec()),
            };
            if !holds {
                return Reply::Nil;
            }
            set(edit, arguments.at(0), arguments.at(1));
            Reply::Ok
        }
        3 => {
            let old = value(&edit.view(), arguments.at(0));
            set(edit, arguments.at(0), arguments.at(1));
            old
        }
        4 => {
            let removed = arguments.iter_from(0).filter(|key| edit.remove(&keyed(hasher, key)));
            Reply::Integer(removed.count() as i64)
        }
        5 => {
            let old = match value(&edit.view(), arguments.at(0)) {
                Reply::Bytes(bytes) => {
                    std::str::from_utf8(&bytes).ok().and_then(|text| text.parse::<i64>().ok())
                }
                _ => Some(0),
            };
            let Some(old) = old else { return Reply::Error };
            set(edit, arguments.at(0), (old + 1).to_string().as_bytes());
            Reply::Integer(old + 1)
        }
        6 => {
            let key = keyed(hasher, arguments.at(0));
            Reply::Integer(values::append(edit, &key, arguments.at(1)) as i64)
        }
        8 => {
            for i in (0..arguments.count()).step_by(2) {
                set(edit, arguments.at(i), arguments.at(i + 1));
            }
            Reply::Ok
        }
        9 => {
            let mut keys = (0..arguments.count()).step_by(2);
            if keys.any(|i| value(&edit.view(), arguments.at(i)) != Reply::Nil) {
                return Reply::Integer(0);
            }
            run(edit, 8, arguments);
            Reply::Integer(1)
        }
        10 => {
            let (from, to) = (keyed(hasher, arguments.at(0)), keyed(hasher, arguments.at(1)));
            if !edit.copy(&from, DATABASE, &to) {
                return Reply::Error;
            }
            if from.bytes() != to.bytes() {
                edit.remove(&from);
            }
            Reply::Ok
        }
        11 => {
            let (from, to) = (keyed(hasher, arguments.at(0)), keyed(hasher, arguments.at(1)));
            let taken = arguments.get(2).is_none() && edit.view().get(&to).is_some();
            Reply::Integer(i64::from(!taken && edit.copy(&from, DATABASE, &to)))
        }
        EXEC => {
            let mut replies = Vec::new();
            each(arguments, |number, arguments| replies.push(run(edit, number, arguments)));
            Reply::List(replies)
        }
        PUSH => {
            let key = keyed(hasher, arguments.at(0));
            Reply::Integer(queues::push(edit, &key, arguments.at(1)))
        }
        ADD => {
            let key = keyed(hasher, arguments.at(0));
            Reply::Integer(shelves::add(edit, &key, arguments.at(1), arguments.at(2)))
        }
        REMOVE => {
            let key = keyed(hasher, arguments.at(0));
            Reply::Integer(i64::from(shelves::remove(edit, &key, arguments.at(1))))
        }
        GIVE => shelves::give(edit, &keyed(hasher, arguments.at(0)), arguments.at(1)),
        ACKNOWLEDGE => {
            let key = keyed(hasher, arguments.at(0));
            Reply::Integer(i64::from(shelves::acknowledge(edit, &key, arguments.at(1))))
        }
        FLEETING => {
            let key = keyed(hasher, arguments.at(0));
            let lifetime = i64::from(arguments.at(1)[0]);
            let at = ringraft_shards::ids::Deadline(edit.now_ms() + lifetime);
            edit.set_string(&key, arguments.at(1), StringForm::Automatic, Expiry::At(at));
            Reply::Ok
        }
        TURN_BACK => {
            let to_ms = arguments.at(0).try_into().expect("times are 8 bytes");
            edit.turn_back(i64::from_le_bytes(to_ms));
            Reply::Ok
        }
        _ => read(&edit.view(), number, arguments),
    }
}
