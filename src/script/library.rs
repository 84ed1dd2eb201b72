//! The scripts that the process knows, by digest; its functions; and what runs now.
//!
//! Every core keeps what it has compiled; here is the text for those that have not. It is locked
//! only when a core meets a script for the first time since SCRIPT FLUSH.

use ringraft_shards::keyspace::Libraries;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What names a script.
pub type Digest = [u8; 20];

/// All of a process.
pub struct Library {
    texts: Mutex<HashMap<Digest, Arc<[u8]>>>,
    /// Counts SCRIPT FLUSH.
    generation: AtomicU64,
    /// What every interpreter runs.
    states: Mutex<Vec<RunState>>,
    /// Libraries of functions, as the shard that keeps them has them.
    functions: Mutex<Arc<Libraries>>,
    functions_version: AtomicU64,
    /// What runs for so long that others are told.
    busy: Mutex<Vec<Busy>>,
    busy_count: AtomicU32,
    /// Must every script end, because the process does?
    pub ends: AtomicBool,
}

/// An interpreter runs nothing.
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

/// A script that runs for so long that others are told.
#[derive(Clone, Debug)]
pub struct Busy {
    /// What runs it.
    pub state: RunState,
    /// What it is.
    pub kind: Kind,
    /// A function's name.
    pub name: Vec<u8>,
    /// The command that runs it.
    pub command: Vec<Vec<u8>>,
    /// Since when.
    pub began: Instant,
}

/// What an interpreter runs, as all cores see it.
#[derive(Clone, Debug, Default)]
pub struct RunState(Arc<AtomicU8>);

impl RunState {
    /// It begins to run something.
    pub fn begin(&self, kind: Kind) {
        let state = match kind {
            Kind::Script => RUNS_SCRIPT,
            Kind::Function => RUNS_FUNCTION,
        };
        self.0.store(state, Ordering::Release);
    }

    /// That has ended.
    pub fn end(&self) {
        self.0.store(IDLE, Ordering::Release);
    }

    /// Is it to end?
    pub fn is_killed(&self) -> bool {
        self.0.load(Ordering::Acquire) == KILLED
    }
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

impl Default for Library {
    fn default() -> Library {
        Library::new()
    }
}

impl Library {
    /// Without any script.
    pub fn new() -> Library {
        Library {
            texts: Mutex::default(),
            generation: AtomicU64::new(0),
            states: Mutex::default(),
            functions: Mutex::default(),
            functions_version: AtomicU64::new(0),
            busy: Mutex::default(),
            busy_count: AtomicU32::new(0),
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

    /// For a new interpreter.
    pub fn enroll(&self) -> RunState {
        let state = RunState::default();
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        // Of those that are gone only this one knows.
        states.retain(|state| Arc::strong_count(&state.0) > 1);
        states.push(state.clone());
        state
    }

    /// Others are told of a script from now on.
    pub fn begin_busy(&self, busy: Busy) {
        self.busy_ones().push(busy);
        self.busy_count.fetch_add(1, Ordering::Release);
    }

    /// It has ended.
    pub fn end_busy(&self, state: &RunState) {
        let mut busy = self.busy_ones();
        if let Some(nth) = busy.iter().position(|busy| Arc::ptr_eq(&busy.state.0, &state.0)) {
            busy.remove(nth);
            self.busy_count.fetch_sub(1, Ordering::Release);
        }
    }

    /// Does a script run of which others are told? Cost: one load.
    #[inline(always)]
    pub fn is_busy(&self) -> bool {
        self.busy_count.load(Ordering::Acquire) > 0
    }

    /// One of those.
    pub fn busy(&self) -> Option<Busy> {
        self.busy_ones().first().cloned()
    }

    fn busy_ones(&self) -> MutexGuard<'_, Vec<Busy>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets all of a kind end that run now.
    pub fn kill(&self, kind: Kind) -> Killed {
        let (own, other) = match kind {
            Kind::Script => (RUNS_SCRIPT, RUNS_FUNCTION),
            Kind::Function => (RUNS_FUNCTION, RUNS_SCRIPT),
        };
        let mut found = Killed::Nothing;
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        for state in states.iter() {
            match state.0.compare_exchange(own, KILLED, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) | Err(KILLED) => found = Killed::Some,
                Err(state) if state == other && found == Killed::Nothing => found = Killed::Other,
                Err(_) => {}
            }
        }
        found
    }
}
