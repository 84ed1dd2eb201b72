//! Keys that are always written together, all with the same new value: by MSET, or by MULTI with a
//! SET for each. Read together, by MGET or in a transaction, they are all equal; and as they are
//! always equal they are one register, whose history must be linearizable. That says more than that
//! no reader ever goes back.

use crate::support::history::{History, NOTHING};
use crate::support::{Chance, Client, Value};

use super::scene::{
    Actor, Halt, Scene, Step, elements, ensure, expect, keys_in_turn, numbers, same, transaction,
    with_keys, with_pairs, words,
};

const KEYS: usize = 8;
const WRITERS: usize = 3;
const READERS: usize = 3;

/// How the keys are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Writing {
    /// Together.
    Atomic,
    /// One by one, which readers must notice: the test of the test.
    OneByOne,
}

/// The scene.
pub struct Group {
    keys: Vec<String>,
    writing: Writing,
    history: History,
}

impl Group {
    /// Eight keys in all shards.
    pub fn new(shards: usize, writing: Writing) -> Group {
        Group { keys: keys_in_turn("group", KEYS, shards), writing, history: History::new() }
    }

    fn write(&self, chance: &mut Chance, client: &mut Client) -> Step {
        let pending = self.history.write();
        let value = format!("{:012}", pending.value);
        let set = |key: &String| words(&["SET", key, &value]);
        let oks = vec![Value::ok(); KEYS];
        match chance.below(4) {
            _ if self.writing == Writing::OneByOne => {
                for key in &self.keys {
                    expect(client, &set(key), &Value::ok())?;
                }
            }
            0 | 1 => expect(client, &with_pairs("MSET", &self.keys, &value), &Value::ok())?,
            2 => {
                let sets: Vec<_> = self.keys.iter().map(set).collect();
                let reply = transaction(client, &sets)?;
                ensure(reply == Value::Array(oks), || format!("EXEC of SETs: {reply:?}"))?;
            }
            _ => {
                let (some, others) = self.keys.split_at(1 + chance.below(KEYS as u64 - 1) as usize);
                let halves = [with_pairs("MSET", some, &value), with_pairs("MSET", others, &value)];
                let reply = transaction(client, &halves)?;
                ensure(reply == Value::Array(oks[..2].to_vec()), || {
                    format!("EXEC of MSETs: {reply:?}")
                })?;
            }
        }
        self.history.written(pending);
        Ok(true)
    }

    fn read(&self, chance: &mut Chance, client: &mut Client) -> Result<u64, Halt> {
        let from = self.history.now();
        let mut keys = self.keys.clone();
        keys.rotate_left(chance.below(KEYS as u64) as usize);
        let values = match chance.below(4) {
            0 => {
                let gets: Vec<_> = keys.iter().map(|key| words(&["GET", key])).collect();
                numbers(transaction(client, &gets)?, KEYS)?
            }
            1 => {
                let (some, others) = keys.split_at(1 + chance.below(KEYS as u64 - 1) as usize);
                let halves = [with_keys("MGET", some), with_keys("MGET", others)];
                let halves = elements(transaction(client, &halves)?, 2)?;
                let mut values = Vec::new();
                for (half, keys) in halves.into_iter().zip([some, others]) {
                    values.extend(numbers(half, keys.len())?);
                }
                values
            }
            _ => numbers(client.try_call(&with_keys("MGET", &keys))?, KEYS)?,
        };
        let value = same(&values)?.unwrap_or(NOTHING);
        self.history.read(value, from);
        Ok(value)
    }
}

impl Scene for Group {
    fn prepare(&self, _client: &mut Client) -> Result<(), Halt> {
        Ok(())
    }

    fn actors(&self, chance: &mut Chance) -> Vec<Actor<'_>> {
        let mut actors = Vec::new();
        for _ in 0..WRITERS {
            let mut chance = Chance::seeded(chance.next());
            actors.push(Actor::new("group writer", move |client| self.write(&mut chance, client)));
        }
        for _ in 0..READERS {
            let mut chance = Chance::seeded(chance.next());
            let mut seen = NOTHING;
            actors.push(Actor::new("group reader", move |client| {
                let value = self.read(&mut chance, client)?;
                Ok(std::mem::replace(&mut seen, value) != value)
            }));
        }
        actors
    }

    fn settle(&self, client: &mut Client) -> Result<(), Halt> {
        let mut chance = Chance::seeded(1);
        for _ in 0..4 {
            self.read(&mut chance, client)?;
        }
        self.history.check().map_err(Halt::Wrong)
    }

    fn keys(&self) -> Vec<String> {
        self.keys.clone()
    }

    fn shown(&self) -> String {
        format!("group: {} operations", self.history.size())
    }
}
