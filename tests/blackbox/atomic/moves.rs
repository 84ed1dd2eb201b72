//! Shards that are moved between the cores as often as possible, under whatever else runs: what
//! holds of a server must hold of one whose shards move. Now and then all cores are asked at once,
//! and a snapshot is taken, in the middle of it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::{Chance, Client, Value};

use super::scene::{Actor, Halt, Scene, Step, ensure, expect, words};

/// The scene. It has no keys of its own.
pub struct Moves {
    shards: usize,
    cores: usize,
    saves: bool,
    moved: AtomicU64,
    saved: AtomicU64,
}

impl Moves {
    /// `saves`: are there files, so that snapshots can be taken?
    pub fn new(shards: usize, cores: usize, saves: bool) -> Moves {
        let (moved, saved) = Default::default();
        Moves { shards, cores, saves, moved, saved }
    }

    fn shove(&self, chance: &mut Chance, client: &mut Client) -> Step {
        let shard = chance.below(self.shards as u64);
        let core = chance.below(self.cores as u64);
        let command = words(&[&format!("DEBUG MOVE-SHARD {shard} {core}")]);
        expect(client, &command, &Value::ok())?;
        self.moved.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    /// Whoever asks all cores meets each shard once.
    fn ask(&self, chance: &mut Chance, client: &mut Client) -> Step {
        let reply = client.try_call(&["INFO", "shards"])?;
        let Value::Bulk(text) = reply else {
            return Err(Halt::Wrong(format!("INFO answered {reply:?}")));
        };
        let text = String::from_utf8_lossy(&text).into_owned();
        let count = text.lines().filter(|line| line.contains(":core=")).count();
        ensure(count == self.shards, || format!("{count} of {} shards: {text}", self.shards))?;
        if self.saves && chance.below(16) == 0 {
            expect(client, &words(&["SAVE"]), &Value::ok())?;
            self.saved.fetch_add(1, Ordering::Relaxed);
        }
        Ok(true)
    }
}

impl Scene for Moves {
    fn prepare(&self, _: &mut Client) -> Result<(), Halt> {
        Ok(())
    }

    fn actors(&self, chance: &mut Chance) -> Vec<Actor<'_>> {
        let mut own = |_: usize| Chance::seeded(chance.next());
        let mut actors: Vec<Actor<'_>> = Vec::new();
        for mut chance in (0..2).map(&mut own) {
            actors.push(Actor::new("mover", move |client| self.shove(&mut chance, client)));
        }
        let mut chance = own(0);
        actors.push(Actor::new("asker", move |client| self.ask(&mut chance, client)));
        actors
    }

    fn settle(&self, client: &mut Client) -> Result<(), Halt> {
        let reply = client.try_call(&["DEBUG", "DIGEST"])?;
        ensure(matches!(reply, Value::Simple(_)), || format!("DEBUG DIGEST answered {reply:?}"))
    }

    fn keys(&self) -> Vec<String> {
        Vec::new()
    }

    fn shown(&self) -> String {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        format!("shards moved: {}, snapshots taken: {}", count(&self.moved), count(&self.saved))
    }
}
