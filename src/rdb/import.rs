//! `ringraft rdb import FILE`: what is in an RDB file goes to a running server, through its port.

use super::send::{Outcome, Present, Sender};
use super::{Progress, check, in_file, open};
use crate::client::Target;
use ringraft_shards::ids::Deadline;
use ringraft_shards::rdb::Piece;
use ringraft_shards::rdb::file::{Event, RdbReader};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

/// What to import, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The file.
    pub file: PathBuf,
    /// Where to.
    pub target: Target,
    /// What becomes of keys that are there.
    pub present: Present,
    /// What becomes of the good part of a damaged file.
    pub damage: Damage,
}

/// What becomes of the good part of a damaged file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Nothing: the file is read to its end before anything is sent.
    RefusesAll,
    /// It is imported.
    KeepsGood,
}

/// Imports the file. `tell` hears how far it is. Returns what was done.
/// Errors: one line; what the server had taken before, it keeps.
pub fn run(import: &Import, now_ms: i64, tell: &dyn Fn(&str)) -> Result<String, String> {
    let totals = match import.damage {
        Damage::RefusesAll => check(&import.file, tell)?.totals,
        Damage::KeepsGood => VecDeque::new(),
    };
    let (file, size) = open(&import.file)?;
    let mut sender = Sender::connect(&import.target, import.present)?;
    let mut progress = Progress::new("importing", size, tell);
    let mut past = 0;
    let sent = send_all(&import.file, file, totals, now_ms, &mut sender, &mut past, &mut |done| {
        progress.reached(done);
    });
    let outcome = sender.finish();
    conclude(import, sent, &outcome, past)
}

fn send_all(
    path: &Path,
    file: impl std::io::Read,
    totals: VecDeque<u64>,
    now_ms: i64,
    sender: &mut Sender,
    past: &mut u64,
    reached: &mut dyn FnMut(u64),
) -> Result<(), String> {
    let failed = |error| in_file(path, &error);
    let mut reader = RdbReader::open(file, totals).map_err(failed)?;
    let (mut key, mut passes) = (Vec::new(), false);
    loop {
        let event = reader.next(&mut |record, fields| {
            if !matches!(record.piece, Piece::Next(_)) {
                passes = record.deadline.is_some_and(|at: Deadline| at.0 <= now_ms);
                *past += u64::from(passes);
                key.clear();
                key.extend_from_slice(&record.key);
            }
            if passes { Ok(()) } else { sender.send(&record, fields) }
        });
        match event.map_err(failed)? {
            Event::Item => sender.item_ends(&key).map_err(|error| error.to_string())?,
            Event::Library(library) => {
                sender.library(&library).map_err(|error| error.to_string())?;
            }
            Event::Module(_) => {}
            Event::End => return Ok(()),
        }
        reached(reader.offset());
    }
}

fn conclude(
    import: &Import,
    sent: Result<(), String>,
    outcome: &Outcome,
    past: u64,
) -> Result<String, String> {
    let taken = outcome.taken;
    if let Some(refused) = &outcome.refused {
        return Err(format!("{refused}; {taken} items were imported before"));
    }
    sent.map_err(|text| format!("{text}; {taken} items were imported before"))?;
    if let Some(key) = &outcome.first_present {
        return Err(format!(
            "{taken} items imported; {} keys were there before and are as they were, \"{}\" first: --replace overwrites them",
            outcome.present,
            key.escape_ascii()
        ));
    }
    Ok(format!(
        "{taken} items imported from {}, {past} whose time is over passed over",
        import.file.display()
    ))
}
