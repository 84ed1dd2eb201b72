//! Keys that come and go together: MSETNX that one of several clients wins, and DEL or UNLINK of
//! what MSET wrote.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::{Chance, Client, Value};

use super::scene::{
    Actor, Halt, Scene, Step, ensure, expect, keys_in_turn, numbers, same, transaction, with_keys,
    with_pairs, words,
};

const KEYS: usize = 4;
const CANDIDATES: usize = 3;
const WRITERS: usize = 2;
const REMOVERS: usize = 2;
const READERS: usize = 2;

/// Elections, one after the other: every candidate tries to set the keys of a round, to its own
/// number.
pub struct Elections {
    round: AtomicU64,
    winners: Mutex<BTreeMap<u64, u64>>,
}

impl Elections {
    /// None held yet. The keys of a round hash to wherever they do.
    pub fn new() -> Elections {
        Elections { round: AtomicU64::new(1), winners: Mutex::default() }
    }

    fn keys_of(round: u64) -> Vec<String> {
        (0..KEYS).map(|seat| format!("election:{round}:{seat}")).collect()
    }

    fn stand(&self, candidate: u64, client: &mut Client) -> Step {
        let round = self.round.load(Ordering::Relaxed);
        let keys = Elections::keys_of(round);
        let reply = client.try_call(&with_pairs("MSETNX", &keys, &candidate.to_string()))?;
        let won = reply == Value::Integer(1);
        ensure(won || reply == Value::Integer(0), || format!("MSETNX answered {reply:?}"))?;
        if won {
            self.record(round, candidate)?;
        }
        self.look(round, client)?;
        self.round.fetch_max(round + 1, Ordering::Relaxed);
        Ok(true)
    }

    fn record(&self, round: u64, winner: u64) -> Result<(), Halt> {
        let mut winners = self.winners.lock().expect("nobody panics here");
        let recorded = *winners.entry(round).or_insert(winner);
        ensure(recorded == winner, || format!("round {round}: {recorded} and {winner} have won"))
    }

    /// After an attempt somebody has won, with all of the keys.
    fn look(&self, round: u64, client: &mut Client) -> Result<(), Halt> {
        let values =
            numbers(client.try_call(&with_keys("MGET", &Elections::keys_of(round)))?, KEYS)?;
        let winner = same(&values)?;
        let winner = winner.ok_or_else(|| Halt::Wrong(format!("nobody has won round {round}")))?;
        self.record(round, winner)
    }
}

impl Scene for Elections {
    fn prepare(&self, _client: &mut Client) -> Result<(), Halt> {
        Ok(())
    }

    fn actors(&self, _chance: &mut Chance) -> Vec<Actor<'_>> {
        let candidate = |number| Actor::new("candidate", move |client| self.stand(number, client));
        (1..=CANDIDATES as u64).map(candidate).collect()
    }

    fn settle(&self, client: &mut Client) -> Result<(), Halt> {
        let rounds: Vec<u64> =
            self.winners.lock().expect("nobody panics here").keys().copied().collect();
        for round in rounds {
            self.look(round, client)?;
        }
        // The last round may have begun before a kill, and then perhaps with a winner who was not
        // told.
        let round = self.round.load(Ordering::Relaxed);
        let keys = Elections::keys_of(round);
        if same(&numbers(client.try_call(&with_keys("MGET", &keys))?, KEYS)?)?.is_some() {
            self.look(round, client)?;
            self.round.fetch_max(round + 1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn keys(&self) -> Vec<String> {
        Elections::keys_of(self.round.load(Ordering::Relaxed).saturating_sub(1))
    }

    fn shown(&self) -> String {
        format!("elections: {} rounds", self.winners.lock().expect("nobody panics here").len())
    }
}

/// Keys that are written together and removed together: there are all of them or none.
pub struct Removals {
    keys: Vec<String>,
    next: AtomicU64,
    removed: AtomicU64,
}

impl Removals {
    /// Keys in all shards.
    pub fn new(shards: usize) -> Removals {
        Removals {
            keys: keys_in_turn("removed", KEYS, shards),
            next: AtomicU64::new(1),
            removed: AtomicU64::new(0),
        }
    }

    fn write(&self, chance: &mut Chance, client: &mut Client) -> Step {
        let value = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        if chance.below(2) == 0 {
            expect(client, &with_pairs("MSET", &self.keys, &value), &Value::ok())?;
        } else {
            let reply = client.try_call(&with_pairs("MSETNX", &self.keys, &value))?;
            ensure(matches!(reply, Value::Integer(0 | 1)), || {
                format!("MSETNX answered {reply:?}")
            })?;
        }
        Ok(true)
    }

    fn remove(&self, chance: &mut Chance, client: &mut Client) -> Step {
        let reply = match chance.below(3) {
            0 => {
                let deletes: Vec<_> = self.keys.iter().map(|key| words(&["DEL", key])).collect();
                let reply = transaction(client, &deletes)?;
                let Value::Array(counts) = &reply else {
                    return Err(Halt::Wrong(format!("EXEC answered {reply:?}")));
                };
                Value::Integer(
                    counts.iter().filter(|count| **count == Value::Integer(1)).count() as i64
                )
            }
            1 => client.try_call(&with_keys("DEL", &self.keys))?,
            _ => client.try_call(&with_keys("UNLINK", &self.keys))?,
        };
        self.all_or_none(&reply)?;
        let removed = reply != Value::Integer(0);
        self.removed.fetch_add(u64::from(removed), Ordering::Relaxed);
        Ok(removed)
    }

    fn read(&self, chance: &mut Chance, client: &mut Client) -> Result<Option<u64>, Halt> {
        let command = ["MGET", "EXISTS", "TOUCH", "MGET"][chance.below(4) as usize];
        let reply = client.try_call(&with_keys(command, &self.keys))?;
        if command == "MGET" {
            return same(&numbers(reply, KEYS)?);
        }
        self.all_or_none(&reply)?;
        Ok(None)
    }

    fn all_or_none(&self, count: &Value) -> Result<(), Halt> {
        ensure([0, KEYS as i64].map(Value::Integer).contains(count), || {
            format!("{count:?} of {KEYS} keys")
        })
    }
}

impl Scene for Removals {
    fn prepare(&self, _client: &mut Client) -> Result<(), Halt> {
        Ok(())
    }

    fn actors(&self, chance: &mut Chance) -> Vec<Actor<'_>> {
        let mut actors = Vec::new();
        for _ in 0..WRITERS {
            let mut chance = Chance::seeded(chance.next());
            actors.push(Actor::new("setter", move |client| self.write(&mut chance, client)));
        }
        for _ in 0..REMOVERS {
            let mut chance = Chance::seeded(chance.next());
            actors.push(Actor::new("remover", move |client| self.remove(&mut chance, client)));
        }
        for _ in 0..READERS {
            let mut chance = Chance::seeded(chance.next());
            let mut last = None;
            actors.push(Actor::new("removals' reader", move |client| {
                let found = self.read(&mut chance, client)?;
                Ok(std::mem::replace(&mut last, found) != found)
            }));
        }
        actors
    }

    fn settle(&self, client: &mut Client) -> Result<(), Halt> {
        let values = numbers(client.try_call(&with_keys("MGET", &self.keys))?, KEYS)?;
        same(&values).map(drop)
    }

    fn keys(&self) -> Vec<String> {
        self.keys.clone()
    }

    fn shown(&self) -> String {
        format!("removals: {} removed together", self.removed.load(Ordering::Relaxed))
    }
}
