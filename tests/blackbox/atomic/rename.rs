//! Values that go back and forth between two names. Whoever looks at both names at once finds
//! exactly one of them.

use std::sync::Mutex;

use crate::support::{Chance, Client, Value};

use super::scene::{
    Actor, Halt, Scene, Step, elements, ensure, expect, keys_in_turn, number, numbers, transaction,
    with_keys, with_pairs, words,
};

const RIVALS: usize = 2;
const READERS: usize = 2;
const NO_SUCH_KEY: &str = "ERR no such key";

/// Several clients rename in either direction and get an error when the other name has it.
/// Successes in both directions alternate, so at the end their difference says where the value is.
pub struct Rivals {
    names: Vec<String>,
    moves: Mutex<Moves>,
}

#[derive(Default)]
struct Moves {
    /// From the first name to the second, less those back.
    net: i64,
    /// Those without an answer.
    unknown: i64,
    all: u64,
}

impl Rivals {
    /// Two names in different shards.
    pub fn new(shards: usize) -> Rivals {
        Rivals { names: keys_in_turn("rivals", 2, shards), moves: Mutex::default() }
    }

    fn rename(&self, chance: &mut Chance, client: &mut Client) -> Step {
        let back = chance.below(2) == 1;
        let (from, to) = (&self.names[usize::from(back)], &self.names[usize::from(!back)]);
        let (command, done) = match chance.below(2) {
            0 => ("RENAME", Value::ok()),
            _ => ("RENAMENX", Value::Integer(1)),
        };
        self.moves.lock().expect("nobody panics here").unknown += 1;
        let reply = client.try_call(&[command, from, to])?;
        let refused = matches!(&reply, Value::Error(text) if text == NO_SUCH_KEY);
        ensure(refused || reply == done, || format!("{command} answered {reply:?}"))?;
        let mut moves = self.moves.lock().expect("nobody panics here");
        moves.unknown -= 1;
        if !refused {
            moves.net += if back { -1 } else { 1 };
            moves.all += 1;
        }
        Ok(!refused)
    }

    /// Where the value is, if the request of this turn tells.
    fn look(&self, chance: &mut Chance, client: &mut Client) -> Result<Option<bool>, Halt> {
        let names = &self.names;
        match chance.below(6) {
            0 => expect(client, &with_keys("EXISTS", names), &Value::Integer(1))?,
            1 => expect(client, &with_keys("TOUCH", names), &Value::Integer(1))?,
            2 => expect(client, &with_pairs("MSETNX", names, "both"), &Value::Integer(0))?,
            3 => {
                let gets: Vec<_> = names.iter().map(|name| words(&["GET", name])).collect();
                return located(transaction(client, &gets)?).map(Some);
            }
            _ => return located(client.try_call(&with_keys("MGET", names))?).map(Some),
        }
        Ok(None)
    }
}

/// Does the second name have it?
fn located(reply: Value) -> Result<bool, Halt> {
    let found: Vec<bool> =
        elements(reply, 2)?.iter().map(|value| *value == Value::bulk("token")).collect();
    ensure(found[0] != found[1], || match found[0] {
        true => "both names have the value".to_owned(),
        false => "neither name has the value".to_owned(),
    })?;
    Ok(found[1])
}

impl Scene for Rivals {
    fn prepare(&self, client: &mut Client) -> Result<(), Halt> {
        expect(client, &words(&["SET", &self.names[0], "token"]), &Value::ok())
    }

    fn actors(&self, chance: &mut Chance) -> Vec<Actor<'_>> {
        let mut actors = Vec::new();
        for _ in 0..RIVALS {
            let mut chance = Chance::seeded(chance.next());
            actors.push(Actor::new("rival", move |client| self.rename(&mut chance, client)));
        }
        for _ in 0..READERS {
            let mut chance = Chance::seeded(chance.next());
            let mut last = false;
            actors.push(Actor::new("rivals' reader", move |client| {
                let found = self.look(&mut chance, client)?;
                Ok(found.is_some_and(|found| std::mem::replace(&mut last, found) != found))
            }));
        }
        actors
    }

    fn settle(&self, client: &mut Client) -> Result<(), Halt> {
        let found = i64::from(located(client.try_call(&with_keys("MGET", &self.names))?)?);
        let mut moves = self.moves.lock().expect("nobody panics here");
        ensure((found - moves.net).abs() <= moves.unknown, || {
            let (net, unknown) = (moves.net, moves.unknown);
            format!("{net} moves there (and {unknown} unknown), but the value is at name {found}")
        })?;
        (moves.net, moves.unknown) = (found, 0);
        Ok(())
    }

    fn keys(&self) -> Vec<String> {
        self.names.clone()
    }

    fn shown(&self) -> String {
        format!("rivals: {} renames", self.moves.lock().expect("nobody panics here").all)
    }
}

/// One client moves a counter to the other name and increments it there, in one transaction. So the
/// name and the number belong together: even at the first name, odd at the second.
pub struct Carrier {
    names: Vec<String>,
    range: Mutex<Range>,
}

/// A number is at least the one and at most the other.
#[derive(Clone, Copy, Default, Debug)]
pub struct Range {
    /// What the server has told.
    pub acknowledged: u64,
    /// What it was asked for.
    pub attempted: u64,
}

impl Range {
    /// Is this a number that may be seen, when `before` is what was known when the question was
    /// asked?
    pub fn ensure(self, seen: u64, before: Range, what: &str) -> Result<(), Halt> {
        ensure((before.acknowledged..=self.attempted).contains(&seen), || {
            format!("{what} is {seen}, but {} was acknowledged before", before.acknowledged)
                + &format!(" and no more than {} attempted", self.attempted)
        })
    }
}

impl Carrier {
    /// Two names in different shards.
    pub fn new(shards: usize) -> Carrier {
        Carrier { names: keys_in_turn("carrier", 2, shards), range: Mutex::default() }
    }

    fn range(&self) -> Range {
        *self.range.lock().expect("nobody panics here")
    }

    fn carry(&self, client: &mut Client) -> Step {
        let next = {
            let mut range = self.range.lock().expect("nobody panics here");
            range.attempted += 1;
            range.attempted
        };
        let (to, from) = (&self.names[(next % 2) as usize], &self.names[(1 - next % 2) as usize]);
        let reply = transaction(client, &[words(&["RENAME", from, to]), words(&["INCR", to])])?;
        let expected = Value::Array(vec![Value::ok(), Value::Integer(next as i64)]);
        ensure(reply == expected, || format!("EXEC answered {reply:?}, not {expected:?}"))?;
        self.range.lock().expect("nobody panics here").acknowledged = next;
        Ok(true)
    }

    fn look(&self, client: &mut Client) -> Result<u64, Halt> {
        let before = self.range();
        let values = numbers(client.try_call(&with_keys("MGET", &self.names))?, 2)?;
        let (place, value) = match values[..] {
            [Some(value), None] => (0, value),
            [None, Some(value)] => (1, value),
            _ => return Err(Halt::Wrong(format!("not exactly one name: {values:?}"))),
        };
        ensure(value % 2 == place, || format!("half of a transaction: {values:?}"))?;
        self.range().ensure(value, before, "what is carried")?;
        Ok(value)
    }
}

impl Scene for Carrier {
    fn prepare(&self, client: &mut Client) -> Result<(), Halt> {
        expect(client, &words(&["SET", &self.names[0], "0"]), &Value::ok())
    }

    fn actors(&self, _chance: &mut Chance) -> Vec<Actor<'_>> {
        let mut actors = vec![Actor::new("carrier", |client| self.carry(client))];
        for _ in 0..READERS {
            let mut last = 0;
            actors.push(Actor::new("carrier's reader", move |client| {
                let value = self.look(client)?;
                ensure(value >= last, || format!("a step back from {last} to {value}"))?;
                Ok(std::mem::replace(&mut last, value) != value)
            }));
        }
        actors
    }

    fn settle(&self, client: &mut Client) -> Result<(), Halt> {
        let value = self.look(client)?;
        let place = &self.names[(value % 2) as usize];
        ensure(number(&client.try_call(&["GET", place])?)? == Some(value), || {
            "GET differs".into()
        })?;
        *self.range.lock().expect("nobody panics here") =
            Range { acknowledged: value, attempted: value };
        Ok(())
    }

    fn keys(&self) -> Vec<String> {
        self.names.clone()
    }

    fn shown(&self) -> String {
        format!("carrier: {} moves", self.range().acknowledged)
    }
}
