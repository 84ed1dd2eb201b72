//! The scripts that the process knows, by digest, and which cores run one now.
//!
//! Every core keeps what it has compiled; here is the text for those that have not. It is locked only when a core meets
//! a script for the first time since SCRIPT FLUSH.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What names a script.
pub type Digest = [u8; 20];

/// All of a process.
pub struct Library {
    texts: Mutex<HashMap<Digest, Arc<[u8]>>>,
    /// Counts SCRIPT FLUSH.
    generation: AtomicU64,
    cores: Vec<AtomicU8>,
    /// Must every script end, because the process does?
    pub ends: AtomicBool,
}

/// A core runs no script.
const IDLE: u8 = 0;
/// It runs one.
const RUNS: u8 = 1;
/// It runs one that SCRIPT KILL ends.
const KILLED: u8 = 2;

impl Library {
    /// Without any script.
    pub fn new(core_count: usize) -> Library {
        Library {
            texts: Mutex::default(),
            generation: AtomicU64::new(0),
            cores: (0..core_count).map(|_| AtomicU8::new(IDLE)).collect(),
            ends: AtomicBool::new(false),
        }
    }

    fn texts(&self) -> MutexGuard<'_, HashMap<Digest, Arc<[u8]>>> {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a script known to all cores.
    pub fn add(&self, digest: Digest, text: &[u8]) {
        self.texts().entry(digest).or_insert_with(|| text.into());
    }

    /// The text of a script.
    pub fn text(&self, digest: &Digest) -> Option<Arc<[u8]>> {
        self.texts().get(digest).cloned()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.texts().len()
    }

    /// Forgets all.
    pub fn flush(&self) {
        self.texts().clear();
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// How often all were forgotten.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// A core begins to run a script.
    pub fn begin(&self, core: u16) {
        self.cores[usize::from(core)].store(RUNS, Ordering::Release);
    }

    /// It has ended.
    pub fn end(&self, core: u16) {
        self.cores[usize::from(core)].store(IDLE, Ordering::Release);
    }

    /// Is the script of a core to end?
    pub fn is_killed(&self, core: u16) -> bool {
        self.cores[usize::from(core)].load(Ordering::Acquire) == KILLED
    }

    /// Lets all scripts end that run now. False when there is none.
    pub fn kill(&self) -> bool {
        let mut any = false;
        for core in &self.cores {
            let swapped = core.compare_exchange(RUNS, KILLED, Ordering::AcqRel, Ordering::Acquire);
            any |= swapped != Err(IDLE);
        }
        any
    }
}
