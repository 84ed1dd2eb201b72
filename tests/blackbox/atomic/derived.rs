//! Two keys that are always written together with the same value, and commands that read both, or
//! write a third key from one of them: BITOP, LCS, COPY, MSETNX, EXISTS, TOUCH. What they make of
//! the value is a read of it, so all of it must be a linearizable history of one register.

use crate::support::history::History;
use crate::support::{Chance, Client, Value};

use super::scene::{
    Actor, Halt, Scene, Step, elements, ensure, expect, keys_in_turn, number, numbers, same,
    transaction, with_keys, with_pairs, words,
};

const WRITERS: usize = 2;
const DERIVERS: usize = 3;

/// Digits of a value; bits are combined byte by byte.
const WIDTH: usize = 12;

/// The scene.
pub struct Derived {
    /// The two that are equal.
    twins: Vec<String>,
    /// One that never exists, in another shard than the second twin.
    absent: String,
    /// A destination for each deriver, in all shards.
    destinations: Vec<String>,
    history: History,
}

impl Derived {
    /// Keys in all shards.
    pub fn new(shards: usize) -> Derived {
        let absent = keys_in_turn("absent", 1, shards).remove(0);
        Derived {
            twins: keys_in_turn("twin", 2, shards),
            absent,
            destinations: keys_in_turn("derived", DERIVERS, shards),
            history: History::new(),
        }
    }

    fn write(&self, client: &mut Client) -> Step {
        let pending = self.history.write();
        let value = format!("{:0WIDTH$}", pending.value);
        expect(client, &with_pairs("MSET", &self.twins, &value), &Value::ok())?;
        self.history.written(pending);
        Ok(true)
    }

    fn derive(&self, destination: &str, chance: &mut Chance, client: &mut Client) -> Step {
        let [one, other] = &self.twins[..] else { unreachable!("there are two") };
        let bytes = Value::Integer(WIDTH as i64);
        let from = self.history.now();
        let derived = match chance.below(9) {
            0 => {
                let operation = ["BITOP AND", "BITOP OR"][chance.below(2) as usize];
                expect(client, &words(&[operation, destination, one, other]), &bytes)?;
                let from_to = self.history.now();
                let value = client.try_call(&["GET", destination])?;
                return self.seen(&value, from, Some(from_to));
            }
            1 => {
                expect(client, &words(&["BITOP XOR", destination, one, other]), &bytes)?;
                let value = client.try_call(&["GET", destination])?;
                ensure(value == Value::bulk([0; WIDTH]), || format!("BITOP XOR made {value:?}"))?;
                return Ok(true);
            }
            2 => {
                expect(client, &words(&["COPY", one, destination, "REPLACE"]), &Value::Integer(1))?;
                let to = self.history.now();
                let value = client.try_call(&["GET", destination])?;
                return self.seen(&value, from, Some(to));
            }
            3 => {
                let copy = words(&["COPY", other, destination, "DB 1 REPLACE"]);
                expect(client, &copy, &Value::Integer(1))?;
                let to = self.history.now();
                let look =
                    [words(&["SELECT 1"]), words(&["GET", destination]), words(&["SELECT 0"])];
                let value = elements(transaction(client, &look)?, 3)?.remove(1);
                return self.seen(&value, from, Some(to));
            }
            4 => {
                let lcs = words(&["LCS", one, other]);
                client.try_call(&lcs)?
            }
            5 => {
                expect(client, &words(&["LCS", one, other, "LEN"]), &bytes)?;
                return Ok(true);
            }
            6 => {
                let keys = [self.absent.clone(), other.clone()];
                expect(client, &with_pairs("MSETNX", &keys, "7"), &Value::Integer(0))?;
                expect(client, &words(&["EXISTS", &self.absent, one]), &Value::Integer(1))?;
                return Ok(true);
            }
            7 => {
                expect(client, &words(&["EXISTS", one, other, one]), &Value::Integer(3))?;
                expect(client, &words(&["TOUCH", one, other]), &Value::Integer(2))?;
                return Ok(true);
            }
            // In a transaction, with a command that reads what the one before it wrote in another
            // shard.
            _ => {
                let commands = [
                    words(&["COPY", one, destination, "REPLACE"]),
                    words(&["BITOP XOR", destination, destination, other]),
                    words(&["BITCOUNT", destination]),
                    words(&["GET", one]),
                ];
                let replies = elements(transaction(client, &commands)?, 4)?;
                let expected = [Value::Integer(1), bytes, Value::Integer(0)];
                ensure(replies[..3] == expected, || format!("EXEC answered {replies:?}"))?;
                replies[3].clone()
            }
        };
        self.seen(&derived, from, None)
    }

    /// A derived value, seen between two moments.
    fn seen(&self, value: &Value, from: u64, to: Option<u64>) -> Step {
        let number = number(value)?;
        let number = number.ok_or_else(|| Halt::Wrong("a derived value is missing".to_owned()))?;
        match to {
            Some(to) => self.history.read_until(number, from, to),
            None => self.history.read(number, from),
        }
        Ok(true)
    }
}

impl Scene for Derived {
    fn prepare(&self, client: &mut Client) -> Result<(), Halt> {
        self.write(client).map(drop)
    }

    fn actors(&self, chance: &mut Chance) -> Vec<Actor<'_>> {
        let mut actors = Vec::new();
        for _ in 0..WRITERS {
            actors.push(Actor::new("twins' writer", |client| self.write(client)));
        }
        for destination in &self.destinations {
            let mut chance = Chance::seeded(chance.next());
            actors.push(Actor::new("deriver", move |client| {
                self.derive(destination, &mut chance, client)
            }));
        }
        actors
    }

    fn settle(&self, client: &mut Client) -> Result<(), Halt> {
        let from = self.history.now();
        let values = numbers(client.try_call(&with_keys("MGET", &self.twins))?, 2)?;
        self.history.read(same(&values)?.unwrap_or_default(), from);
        expect(client, &words(&["EXISTS", &self.absent]), &Value::Integer(0))?;
        self.history.check().map_err(Halt::Wrong)
    }

    fn keys(&self) -> Vec<String> {
        [&self.twins[..], &self.destinations[..], std::slice::from_ref(&self.absent)].concat()
    }

    fn shown(&self) -> String {
        format!("derived: {} operations", self.history.size())
    }
}
