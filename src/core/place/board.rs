//! What cores tell each other about their loads: numbers that everybody may read, written ten times
//! a second.

use super::together::pair_count;
use ringraft_shards::ids::ShardId;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// The numbers of one core.
#[derive(Debug, Default)]
struct Line {
    is_in_use: AtomicBool,
    /// Since when it is, or is not, milliseconds since the process started.
    since_ms: AtomicI64,
    busy_permille: AtomicU32,
    ran_permille: AtomicU32,
    spun_permille: AtomicU32,
    behind_permille: AtomicU32,
    /// Commands run since the process started, or since CONFIG RESETSTAT.
    commands: AtomicU64,
    /// When it last wrote here.
    written_ms: AtomicI64,
}

/// The numbers of all cores and shards.
#[derive(Debug, Default)]
pub struct Board {
    home: AtomicU16,
    cores: Vec<Line>,
    /// For each shard, requests run since the process started.
    shards: Vec<AtomicU64>,
    /// For each pair of shards, keys of one that were used with keys of the other; empty where
    /// nobody counts.
    pairs: Vec<AtomicU64>,
    has_pairs: AtomicBool,
}

/// What a core says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CoreLoad {
    /// Share of its time that it works, or would if it had its cpu.
    pub busy: f64,
    /// Share of its cpu that it has.
    pub ran: f64,
    /// Of that, the share in which it looked for work.
    pub spun: f64,
    /// Share of its time in which requests that had come waited for another turn.
    pub behind: f64,
    /// Commands run.
    pub commands: u64,
    /// When this was so, milliseconds since the process started.
    pub written_ms: i64,
}

fn permille(share: f64) -> u32 {
    (share * 1000.0) as u32
}

impl Board {
    /// All cores are in use.
    pub fn new(core_count: usize, shard_count: usize) -> Board {
        let line = || Line { is_in_use: AtomicBool::new(true), ..Line::default() };
        Board {
            home: AtomicU16::new(0),
            cores: (0..core_count).map(|_| line()).collect(),
            shards: (0..shard_count).map(|_| AtomicU64::new(0)).collect(),
            pairs: (0..pair_count(shard_count)).map(|_| AtomicU64::new(0)).collect(),
            has_pairs: AtomicBool::new(false),
        }
    }

    /// The core that is always in use, takes new connections and decides about the others.
    pub fn home(&self) -> u16 {
        self.home.load(Ordering::Relaxed)
    }

    /// Chooses it, before anybody has asked.
    pub fn set_home(&self, core: u16) {
        self.home.store(core, Ordering::Relaxed);
    }

    /// Is a core in use?
    pub fn is_in_use(&self, core: u16) -> bool {
        self.cores[usize::from(core)].is_in_use.load(Ordering::Relaxed)
    }

    /// Since when it is, or is not, milliseconds since the process started.
    pub fn since_ms(&self, core: u16) -> i64 {
        self.cores[usize::from(core)].since_ms.load(Ordering::Relaxed)
    }

    /// The cores in use.
    pub fn in_use(&self) -> impl Iterator<Item = u16> + '_ {
        (0..self.cores.len() as u16).filter(|core| self.is_in_use(*core))
    }

    /// These cores are in use, and no others.
    pub fn use_cores(&self, in_use: &[u16], now_ms: i64) {
        for (core, line) in self.cores.iter().enumerate() {
            let is_in_use = in_use.contains(&(core as u16));
            if line.is_in_use.swap(is_in_use, Ordering::Relaxed) != is_in_use {
                line.since_ms.store(now_ms, Ordering::Relaxed);
            }
        }
    }

    /// A core tells its load.
    pub fn write(&self, core: u16, load: CoreLoad) {
        let line = &self.cores[usize::from(core)];
        line.busy_permille.store(permille(load.busy), Ordering::Relaxed);
        line.ran_permille.store(permille(load.ran), Ordering::Relaxed);
        line.spun_permille.store(permille(load.spun), Ordering::Relaxed);
        line.behind_permille.store(permille(load.behind), Ordering::Relaxed);
        line.commands.store(load.commands, Ordering::Relaxed);
        line.written_ms.store(load.written_ms, Ordering::Relaxed);
    }

    /// What a core has told.
    pub fn read(&self, core: u16) -> CoreLoad {
        let line = &self.cores[usize::from(core)];
        let share = |permille: &AtomicU32| f64::from(permille.load(Ordering::Relaxed)) / 1000.0;
        CoreLoad {
            busy: share(&line.busy_permille),
            ran: share(&line.ran_permille),
            spun: share(&line.spun_permille),
            behind: share(&line.behind_permille),
            commands: line.commands.load(Ordering::Relaxed),
            written_ms: line.written_ms.load(Ordering::Relaxed),
        }
    }

    /// A shard has run so many requests.
    pub fn write_shard(&self, shard: ShardId, requests: u64) {
        self.shards[usize::from(shard.0)].store(requests, Ordering::Relaxed);
    }

    /// So many more keys of a pair of shards were used together; a place is that of
    /// [`Companions`](super::together::Companions).
    pub fn add_pair(&self, place: usize, count: u32) {
        self.pairs[place].fetch_add(count.into(), Ordering::Relaxed);
        self.has_pairs.store(true, Ordering::Relaxed);
    }

    /// How many keys of each pair of shards were used together, if any were.
    pub fn pairs(&self) -> Option<impl Iterator<Item = u64> + '_> {
        let pairs = || self.pairs.iter().map(|count| count.load(Ordering::Relaxed));
        self.has_pairs.load(Ordering::Relaxed).then(pairs)
    }

    /// How many requests each shard has run.
    pub fn shards(&self) -> impl Iterator<Item = u64> + '_ {
        self.shards.iter().map(|requests| requests.load(Ordering::Relaxed))
    }
}
