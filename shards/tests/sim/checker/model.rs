//! What commands mean, written a second time and as simply as can be.

use std::collections::BTreeMap;

use crate::command::{Command, Condition, KeyNumber, Reply};
use crate::shelves;

/// All keys and their values.
pub type State = BTreeMap<KeyNumber, Vec<u8>>;

/// Old values of keys, to take a command back.
pub type Undo = Vec<(KeyNumber, Option<Vec<u8>>)>;

/// Keys and values, with a hash that is kept up.
#[derive(Default)]
pub struct Model {
    pub state: State,
    pub hash: u64,
}

fn hash_of(key: KeyNumber, value: &[u8]) -> u64 {
    let seed = 0x9e37_79b9_7f4a_7c15 ^ u64::from(key);
    value.chunks(8).fold(ringraft_shards::random::mix(seed), |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let number = u64::from_le_bytes(word) ^ ((chunk.len() as u64) << 56);
        ringraft_shards::random::mix(hash.rotate_left(23) ^ number)
    })
}

impl Model {
    fn put(&mut self, key: KeyNumber, value: Option<Vec<u8>>, undo: &mut Undo) {
        if let Some(value) = &value {
            self.hash ^= hash_of(key, value);
        }
        let old = match value {
            Some(value) => self.state.insert(key, value),
            None => self.state.remove(&key),
        };
        if let Some(old) = &old {
            self.hash ^= hash_of(key, old);
        }
        undo.push((key, old));
    }

    /// Takes back what a command did.
    pub fn undo(&mut self, undo: Undo) {
        let mut nothing = Undo::new();
        for (key, old) in undo.into_iter().rev() {
            self.put(key, old, &mut nothing);
        }
    }

    fn value(&self, key: KeyNumber) -> Reply {
        self.state.get(&key).map_or(Reply::Nil, |value| Reply::Bytes(value.clone()))
    }

    /// Executes a command.
    pub fn run(&mut self, command: &Command, undo: &mut Undo) -> Reply {
        match command {
            Command::Get(key) => self.value(*key),
            Command::Set(key, value, condition) => {
                let old = self.state.get(key);
                let holds = match condition {
                    Condition::Always => true,
                    Condition::Absent => old.is_none(),
                    Condition::Present => old.is_some(),
                    Condition::Equals(expected) => old == Some(expected),
                };
                if !holds {
                    return Reply::Nil;
                }
                self.put(*key, Some(value.clone()), undo);
                Reply::Ok
            }
            Command::Exchange(key, value) => {
                let old = self.value(*key);
                self.put(*key, Some(value.clone()), undo);
                old
            }
            Command::Delete(keys) => {
                let mut count = 0;
                for key in keys {
                    if self.state.contains_key(key) {
                        self.put(*key, None, undo);
                        count += 1;
                    }
                }
                Reply::Integer(count)
            }
            Command::Increment(key) => {
                let old = match self.state.get(key) {
                    None => Some(0),
                    Some(bytes) => {
                        std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<i64>().ok())
                    }
                };
                let Some(old) = old else { return Reply::Error };
                self.put(*key, Some((old + 1).to_string().into_bytes()), undo);
                Reply::Integer(old + 1)
            }
            Command::Append(key, more) => {
                let mut value = self.state.get(key).cloned().unwrap_or_default();
                value.extend_from_slice(more);
                let length = value.len() as i64;
                self.put(*key, Some(value), undo);
                Reply::Integer(length)
            }
            Command::MGet(keys) => Reply::List(keys.iter().map(|key| self.value(*key)).collect()),
            Command::MSet(pairs) => {
                for (key, value) in pairs {
                    self.put(*key, Some(value.clone()), undo);
                }
                Reply::Ok
            }
            Command::MSetAbsent(pairs) => {
                if pairs.iter().any(|(key, _)| self.state.contains_key(key)) {
                    return Reply::Integer(0);
                }
                for (key, value) in pairs {
                    self.put(*key, Some(value.clone()), undo);
                }
                Reply::Integer(1)
            }
            Command::Rename(from, to) => {
                let Some(value) = self.state.get(from).cloned() else { return Reply::Error };
                if from != to {
                    self.put(*from, None, undo);
                    self.put(*to, Some(value), undo);
                }
                Reply::Ok
            }
            Command::Copy { from, to, replace } => {
                let Some(value) = self.state.get(from).cloned() else { return Reply::Integer(0) };
                if self.state.contains_key(to) && !replace {
                    return Reply::Integer(0);
                }
                self.put(*to, Some(value), undo);
                Reply::Integer(1)
            }
            Command::Push(..) | Command::Pop(_) | Command::Move(..) | Command::AwaitEntries(..) => {
                unreachable!("who waits has a judge of their own")
            }
            Command::Add(..)
            | Command::Remove(..)
            | Command::Give(..)
            | Command::Acknowledge(..) => {
                let read = |key| {
                    self.state.get(&key).map_or_else(Default::default, |text| shelves::parse(text))
                };
                let (key, elements, reply) = shelves::model::run(command, read);
                let value = (!elements.is_empty()).then(|| shelves::text(&elements));
                self.put(key, value, undo);
                reply
            }
            Command::Exec(commands) => {
                Reply::List(commands.iter().map(|command| self.run(command, undo)).collect())
            }
        }
    }
}
