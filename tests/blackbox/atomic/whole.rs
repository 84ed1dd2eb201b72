//! Commands that concern the whole keyspace, against MSET: FLUSHALL and FLUSHDB remove all of a
//! group of keys or none, SWAPDB exchanges all of it. Nobody finds half of a group, nor the same
//! group in both databases.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::{Chance, Client, Value};

use super::scene::{
    Actor, Halt, Scene, Step, elements, ensure, expect, keys_in_turn, numbers, same, transaction,
    with_keys, with_pairs, words,
};

const KEYS: usize = 8;
const WRITERS: usize = 2;
const READERS: usize = 2;

/// The scene. Nothing else may be on its server.
pub struct Whole {
    keys: Vec<String>,
    next: AtomicU64,
    flushed: AtomicU64,
    swapped: AtomicU64,
}

impl Whole {
    /// Eight keys in all shards, in databases 0 and 1.
    pub fn new(shards: usize) -> Whole {
        Whole {
            keys: keys_in_turn("whole", KEYS, shards),
            next: AtomicU64::new(1),
            flushed: AtomicU64::new(0),
            swapped: AtomicU64::new(0),
        }
    }

    /// Writes in the database that the connection has chosen.
    fn write(&self, client: &mut Client) -> Step {
        let value = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        expect(client, &with_pairs("MSET", &self.keys, &value), &Value::ok())?;
        Ok(true)
    }

    fn flush(&self, chance: &mut Chance, client: &mut Client) -> Step {
        // Some keys should live to be read.
        for _ in 0..chance.below(8) {
            self.read(client)?;
        }
        let command = ["FLUSHALL", "FLUSHDB", "FLUSHALL ASYNC"][chance.below(3) as usize];
        expect(client, &words(&[command]), &Value::ok())?;
        self.flushed.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    fn swap(&self, client: &mut Client) -> Step {
        expect(client, &words(&["SWAPDB 0 1"]), &Value::ok())?;
        self.swapped.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    fn read(&self, client: &mut Client) -> Result<Option<u64>, Halt> {
        same(&numbers(client.try_call(&with_keys("MGET", &self.keys))?, KEYS)?)
    }

    /// Both databases at once.
    fn read_both(&self, client: &mut Client) -> Result<[Option<u64>; 2], Halt> {
        let mget = with_keys("MGET", &self.keys);
        let commands =
            [words(&["SELECT 0"]), mget.clone(), words(&["SELECT 1"]), mget, words(&["SELECT 0"])];
        let replies = elements(transaction(client, &commands)?, 5)?;
        let values = [
            same(&numbers(replies[1].clone(), KEYS)?)?,
            same(&numbers(replies[3].clone(), KEYS)?)?,
        ];
        ensure(values[0].is_none() || values[0] != values[1], || {
            format!("the same value in both databases: {values:?}")
        })?;
        Ok(values)
    }
}

impl Scene for Whole {
    fn prepare(&self, _client: &mut Client) -> Result<(), Halt> {
        Ok(())
    }

    fn actors(&self, chance: &mut Chance) -> Vec<Actor<'_>> {
        let mut actors = Vec::new();
        for writer in 0..WRITERS {
            let mut chosen = false;
            actors.push(Actor::new("whole writer", move |client| {
                if !std::mem::replace(&mut chosen, true) {
                    expect(client, &words(&["SELECT", &writer.to_string()]), &Value::ok())?;
                }
                self.write(client)
            }));
        }
        let mut flusher = Chance::seeded(chance.next());
        actors.push(Actor::new("flusher", move |client| self.flush(&mut flusher, client)));
        actors.push(Actor::new("swapper", |client| self.swap(client)));
        for _ in 0..READERS {
            let mut last = None;
            actors.push(Actor::new("whole reader", move |client| {
                let found = self.read(client)?;
                Ok(std::mem::replace(&mut last, found) != found)
            }));
        }
        let mut last = [None; 2];
        actors.push(Actor::new("reader of both databases", move |client| {
            let found = self.read_both(client)?;
            Ok(std::mem::replace(&mut last, found) != found)
        }));
        actors
    }

    fn settle(&self, client: &mut Client) -> Result<(), Halt> {
        let found = self.read_both(client)?;
        let count = found[0].map_or(0, |_| KEYS as i64);
        expect(client, &words(&["DBSIZE"]), &Value::Integer(count))
    }

    fn keys(&self) -> Vec<String> {
        self.keys.clone()
    }

    fn shown(&self) -> String {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (written, flushed, swapped) =
            (count(&self.next) - 1, count(&self.flushed), count(&self.swapped));
        format!("whole: {written} written, {flushed} flushes, {swapped} swaps")
    }
}
