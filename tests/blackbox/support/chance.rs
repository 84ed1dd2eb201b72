//! Seeded chance for tests. Every generator prints its seed, and `RINGRAFT_SEED=N` repeats a run.

use std::time::{SystemTime, UNIX_EPOCH};

/// A xorshift64* generator: small, repeatable, good enough to vary a test.
pub struct Chance {
    state: u64,
}

impl Chance {
    /// A generator seeded from `RINGRAFT_SEED`, or from the clock; prints the seed.
    pub fn new(test: &str) -> Chance {
        let seed = match std::env::var("RINGRAFT_SEED") {
            Ok(text) => text.parse().expect("RINGRAFT_SEED is a number"),
            Err(_) => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .expect("the clock is after 1970")
                .as_nanos() as u64,
        };
        println!("{test}: RINGRAFT_SEED={seed}");
        Chance::seeded(seed)
    }

    /// A generator with this seed, for the threads of one test.
    pub fn seeded(seed: u64) -> Chance {
        Chance { state: seed | 1 }
    }

    /// The next 64 random bits.
    pub fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number in `0..bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
