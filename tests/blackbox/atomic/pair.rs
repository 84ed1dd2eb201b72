//! Two counters of which one writer increments the first and then the second, by requests of their
//! own. Read by one MGET the second is never ahead of the first, and neither ever goes back.

use std::sync::Mutex;

use crate::support::{Chance, Client, Value};

use super::rename::Range;
use super::scene::{
    Actor, Halt, Scene, Step, ensure, expect, keys_in_turn, numbers, with_keys, words,
};

const PAIRS: usize = 2;
const READERS: usize = 2;

/// The scene.
pub struct Pairs {
    /// First and second counter of each pair, in turn.
    keys: Vec<String>,
    /// What is known of each.
    ranges: Mutex<Vec<Range>>,
}

impl Pairs {
    /// Each pair in two shards.
    pub fn new(shards: usize) -> Pairs {
        let mut keys = keys_in_turn("pair", 2 * PAIRS, shards);
        // The second pair the other way round.
        keys[2..].reverse();
        Pairs { keys, ranges: Mutex::new(vec![Range::default(); 2 * PAIRS]) }
    }

    fn ranges(&self) -> Vec<Range> {
        self.ranges.lock().expect("nobody panics here").clone()
    }

    fn increment(&self, index: usize, client: &mut Client) -> Result<(), Halt> {
        let next = {
            let range = &mut self.ranges.lock().expect("nobody panics here")[index];
            range.attempted += 1;
            range.attempted
        };
        expect(client, &words(&["INCR", &self.keys[index]]), &Value::Integer(next as i64))?;
        self.ranges.lock().expect("nobody panics here")[index].acknowledged = next;
        Ok(())
    }

    /// One step of the writer of a pair; the second counter catches up first, after a kill between
    /// the two.
    fn count(&self, pair: usize, client: &mut Client) -> Step {
        let ranges = self.ranges();
        if ranges[2 * pair].attempted == ranges[2 * pair + 1].attempted {
            self.increment(2 * pair, client)?;
        }
        self.increment(2 * pair + 1, client)?;
        Ok(true)
    }

    fn read(&self, chance: &mut Chance, client: &mut Client) -> Result<Vec<u64>, Halt> {
        let before = self.ranges();
        let turn = chance.below(self.keys.len() as u64) as usize;
        let mut keys = self.keys.clone();
        keys.rotate_left(turn);
        let mut values = numbers(client.try_call(&with_keys("MGET", &keys))?, keys.len())?;
        values.rotate_right(turn);
        let values: Vec<u64> = values.into_iter().map(Option::unwrap_or_default).collect();
        for pair in values.chunks(2) {
            let lead = pair[0].checked_sub(pair[1]);
            ensure(lead.is_some_and(|lead| lead <= 1), || {
                format!("the first is {} and the second {}", pair[0], pair[1])
            })?;
        }
        for ((after, before), value) in self.ranges().iter().zip(&before).zip(&values) {
            after.ensure(*value, *before, "a counter")?;
        }
        Ok(values)
    }
}

impl Scene for Pairs {
    fn prepare(&self, _client: &mut Client) -> Result<(), Halt> {
        Ok(())
    }

    fn actors(&self, chance: &mut Chance) -> Vec<Actor<'_>> {
        let mut actors = Vec::new();
        for pair in 0..PAIRS {
            actors.push(Actor::new("pair writer", move |client| self.count(pair, client)));
        }
        for _ in 0..READERS {
            let mut chance = Chance::seeded(chance.next());
            let mut last = vec![0; self.keys.len()];
            actors.push(Actor::new("pair reader", move |client| {
                let values = self.read(&mut chance, client)?;
                let back = values.iter().zip(&last).any(|(now, before)| now < before);
                ensure(!back, || format!("a step back from {last:?} to {values:?}"))?;
                let news = values != last;
                last = values;
                Ok(news)
            }));
        }
        actors
    }

    fn settle(&self, client: &mut Client) -> Result<(), Halt> {
        let values = self.read(&mut Chance::seeded(1), client)?;
        *self.ranges.lock().expect("nobody panics here") = values
            .into_iter()
            .map(|value| Range { acknowledged: value, attempted: value })
            .collect();
        Ok(())
    }

    fn keys(&self) -> Vec<String> {
        self.keys.clone()
    }

    fn shown(&self) -> String {
        let counts: Vec<u64> = self.ranges().iter().map(|range| range.acknowledged).collect();
        format!("pairs: {counts:?}")
    }
}
