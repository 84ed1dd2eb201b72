//! RDB files in and out: `ringraft rdb import`, `ringraft rdb export`, and `--load-rdb` at a first
//! start.
//!
//! What is imported goes through the port of a running server like any client's writes. A first
//! start makes a snapshot of every shard from the file before there is a shard, so that nothing of
//! it goes through the log. An export is made from snapshots of all shards that were taken at one
//! moment.

pub mod export;
pub mod first_start;
pub mod import;
pub mod send;

use crate::limits::PRINT_BUFFER_BYTES;
use ringraft_shards::rdb::file::{RdbError, Survey, survey};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two lines that say how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Says how far something is, once a second.
pub struct Progress<'t> {
    doing: &'static str,
    total: u64,
    next: Instant,
    tell: &'t dyn Fn(&str),
}

impl<'t> Progress<'t> {
    /// `total` is what [`Progress::reached`] gets at the end.
    pub fn new(doing: &'static str, total: u64, tell: &'t dyn Fn(&str)) -> Progress<'t> {
        Progress { doing, total, next: Instant::now() + PROGRESS_INTERVAL, tell }
    }

    /// It is so far.
    pub fn reached(&mut self, done: u64) {
        if Instant::now() >= self.next {
            let percent = done * 100 / self.total.max(1);
            (self.tell)(&format!("{}: {percent} % of {} MB", self.doing, self.total / 1_000_000));
            self.next = Instant::now() + PROGRESS_INTERVAL;
        }
    }
}

/// Opens an RDB file. Returns it and its size.
/// Errors: one line.
fn open(path: &Path) -> Result<(BufReader<File>, u64), String> {
    let file = File::open(path)
        .and_then(|file| file.metadata().map(|about| (file, about.len())))
        .map_err(|error| format!("{} cannot be opened: {error}", path.display()))?;
    Ok((BufReader::with_capacity(PRINT_BUFFER_BYTES, file.0), file.1))
}

/// Reads all of a file and says whether it is good.
/// Errors: one line that names the file, the place and the fault.
fn check(path: &Path, tell: &dyn Fn(&str)) -> Result<Survey, String> {
    let (file, size) = open(path)?;
    let mut progress = Progress::new("checking", size, tell);
    let found = survey(file, &mut |done| progress.reached(done));
    let found = found.map_err(|error| in_file(path, &error))?;
    if found.bytes < size {
        return Err(format!(
            "{} is damaged at byte {}: {} bytes follow its end",
            path.display(),
            found.bytes,
            size - found.bytes
        ));
    }
    for name in &found.modules {
        tell(&format!("data of module {name} is passed over: it is no value of a key"));
    }
    Ok(found)
}

fn in_file(path: &Path, error: &RdbError) -> String {
    match error {
        RdbError::Taken(error) => error.to_string(),
        error => format!("{}: {error}", path.display()),
    }
}
