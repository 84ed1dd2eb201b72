//! The scripts that the process knows, by digest; its functions; and which cores run one now.
//!
//! Every core keeps what it has compiled; here is the text for those that have not. It is locked only when a core meets
//! a script for the first time since SCRIPT FLUSH.

use ringraft_shards::keyspace::Libraries;
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
    /// Libraries of functions, as the shard that keeps them has them.
    functions: Mutex<Arc<Libraries>>,
    functions_version: AtomicU64,
    /// Must every script end, because the process does?
    pub ends: AtomicBool,
}

/// A core runs nothing.
const IDLE: u8 = 0;
/// It runs a script.
const RUNS_SCRIPT: u8 = 1;
/// It runs a function.
const RUNS_FUNCTION: u8 = 2;
/// It runs what somebody has killed.
const KILLED: u8 = 3;

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// EVAL and its kin.
    Script,
    /// FCALL and its kin.
    Function,
}

/// What came of a wish to kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Killed {
    /// What runs will end.
    Some,
    /// Nothing runs.
    Nothing,
    /// What runs is of the other kind.
    Other,
}

impl Library {
    /// Without any script.
    pub fn new(core_count: usize) -> Library {
        Library {
            texts: Mutex::default(),
            generation: AtomicU64::new(0),
            cores: (0..core_count).map(|_| AtomicU8::new(IDLE)).collect(),
            functions: Mutex::default(),
            functions_version: AtomicU64::new(0),
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

    /// Makes the libraries known to all cores, unless they know later ones.
    pub fn publish(&self, libraries: &Libraries) {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if libraries.change_count() >= functions.change_count() {
            *functions = Arc::new(libraries.clone());
            self.functions_version.store(libraries.change_count(), Ordering::Release);
        }
    }

    /// The libraries.
    pub fn functions(&self) -> Arc<Libraries> {
        self.functions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes so far of the libraries. Cost: one load.
    pub fn functions_version(&self) -> u64 {
        self.functions_version.load(Ordering::Acquire)
    }

    /// A core begins to run a script or a function.
    pub fn begin(&self, core: u16, kind: Kind) {
        let state = match kind {
            Kind::Script => RUNS_SCRIPT,
            Kind::Function => RUNS_FUNCTION,
        };
        self.cores[usize::from(core)].store(state, Ordering::Release);
    }

    /// It has ended.
    pub fn end(&self, core: u16) {
        self.cores[usize::from(core)].store(IDLE, Ordering::Release);
    }

    /// Is the script of a core to end?
    pub fn is_killed(&self, core: u16) -> bool {
        self.cores[usize::from(core)].load(Ordering::Acquire) == KILLED
    }

    /// Lets all of a kind end that run now.
    pub fn kill(&self, kind: Kind) -> Killed {
        let (own, other) = match kind {
            Kind::Script => (RUNS_SCRIPT, RUNS_FUNCTION),
            Kind::Function => (RUNS_FUNCTION, RUNS_SCRIPT),
        };
        let mut found = Killed::Nothing;
        for core in &self.cores {
            match core.compare_exchange(own, KILLED, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) | Err(KILLED) => found = Killed::Some,
                Err(state) if state == other && found == Killed::Nothing => found = Killed::Other,
                Err(_) => {}
            }
        }
        found
    }
}
