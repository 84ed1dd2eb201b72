//! Judges what those were told who wait for entries of streams: exactly what was added behind the
//! id where they began, each entry once.
//!
//! Ids of a stream are given one after the other, so that what is missing shows; who added which
//! entry, its value says.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::checker::Outcome;
use crate::client::Asked;
use crate::command::{Command, KeyNumber, Reply};
use crate::shelves::{self, Kind};

/// An entry that a client has added, or has tried to.
struct Added {
    operation: u64,
    called: u64,
    answered: u64,
    /// If its client was told.
    id: Option<u64>,
}

/// All that was done with streams.
#[derive(Default)]
struct Streams {
    /// By the key and the value.
    added: BTreeMap<(KeyNumber, Vec<u8>), Added>,
    /// Entries that somebody has tried to remove.
    removed: BTreeSet<(KeyNumber, u64)>,
    /// Values by id, as somebody was told.
    told: BTreeMap<(KeyNumber, u64), Vec<u8>>,
}

impl Streams {
    fn note(&mut self, asked: &Asked<'_>, command: &Command, reply: Option<&Reply>) {
        match (command, reply) {
            (Command::Exec(commands), Some(Reply::List(replies))) => {
                for (command, reply) in commands.iter().zip(replies) {
                    self.note(asked, command, Some(reply));
                }
            }
            (Command::Exec(commands), _) => {
                commands.iter().for_each(|command| self.note(asked, command, None));
            }
            (Command::Add(key, _, value), reply) if shelves::kind(*key) == Some(Kind::Stream) => {
                let id = match reply {
                    Some(Reply::Integer(id)) => Some(*id as u64),
                    _ => None,
                };
                let Asked { operation, called, answered, .. } = *asked;
                let added = Added { operation, called, answered, id };
                self.added.insert((*key, value.clone()), added);
            }
            (Command::Remove(key, id), _) if shelves::kind(*key) == Some(Kind::Stream) => {
                self.removed.insert((*key, shelves::number_of(id)));
            }
            _ => {}
        }
    }

    /// An entry that somebody was told.
    fn judge_entry(
        &mut self,
        asked: &Asked<'_>,
        key: KeyNumber,
        (id, value): (u64, &Vec<u8>),
        happened: &HashSet<u64>,
    ) -> Result<(), String> {
        let Some(added) = self.added.get(&(key, value.clone())) else {
            return Err(format!("nobody added {id} {}", value.escape_ascii()));
        };
        if !happened.contains(&added.operation) || added.called > asked.answered {
            return Err(format!("#{} has not added {id} by then", added.operation));
        }
        if added.id.is_some_and(|told| told != id) {
            return Err(format!("#{} was told {:?}, not {id}", added.operation, added.id));
        }
        let known = self.told.entry((key, id)).or_insert_with(|| value.clone());
        match known == value {
            true => Ok(()),
            false => Err(format!("{id} is another entry to others: {}", known.escape_ascii())),
        }
    }

    /// What one was told who began behind an id.
    fn judge(
        &mut self,
        asked: &Asked<'_>,
        (key, given): (KeyNumber, Option<u64>),
        reply: &Reply,
        happened: &HashSet<u64>,
    ) -> Result<(), String> {
        let Reply::List(parts) = reply else { return Err("that is no list".into()) };
        let (from, entries) = read(parts).ok_or("those are no entries")?;
        if given.is_some_and(|given| given != from) || entries.is_empty() {
            return Err(format!("it began behind {from}"));
        }
        let known = self.added.iter().filter(|((of, _), _)| *of == key);
        let before = known.filter(|(_, added)| added.answered < asked.called);
        let latest = before.filter_map(|(_, added)| added.id).max().unwrap_or(0);
        if given.is_none() && from < latest {
            return Err(format!("{latest} was there before, and it began behind {from}"));
        }
        let mut last = from;
        for (id, value) in entries.iter().copied() {
            if id <= last {
                return Err(format!("{id} comes behind {last}"));
            }
            self.judge_entry(asked, key, (id, value), happened)?;
            let newest = entries[entries.len() - 1].0;
            let is_gone = |missing: u64| {
                missing + shelves::ENTRIES_MAX <= newest || self.removed.contains(&(key, missing))
            };
            if let Some(missing) = (last + 1..id).find(|missing| !is_gone(*missing)) {
                return Err(format!("{missing} is missing"));
            }
            last = id;
        }
        Ok(())
    }
}

/// Where a read began, and its entries: their ids and values.
type Found<'a> = (u64, Vec<(u64, &'a Vec<u8>)>);

/// What the parts of a reply say.
fn read(parts: &[Reply]) -> Option<Found<'_>> {
    let (Reply::Integer(from), entries) = parts.split_first()? else { return None };
    let mut found = Vec::new();
    for part in entries {
        let Reply::List(pair) = part else { return None };
        let [Reply::Integer(id), Reply::Bytes(value)] = &pair[..] else { return None };
        found.push((*id as u64, value));
    }
    Some((*from as u64, found))
}

/// Judges what all clients were told. `happened`: operations that were applied.
pub fn judge<'a>(
    asked: impl Iterator<Item = Asked<'a>> + Clone,
    happened: &HashSet<u64>,
) -> Result<(), String> {
    let mut streams = Streams::default();
    for one in asked.clone().filter(|one| !one.is_refused) {
        let reply = match one.outcome {
            Outcome::Done(reply) => Some(reply),
            Outcome::Unknown => None,
        };
        streams.note(&one, one.command, reply);
    }
    for one in asked {
        if let (Command::AwaitEntries(key, given), Outcome::Done(reply @ Reply::List(_))) =
            (one.command, one.outcome)
        {
            let judged = streams.judge(&one, (*key, *given), reply, happened);
            judged.map_err(|error| {
                format!("#{} {} was told {reply}: {error}", one.operation, one.command)
            })?;
        }
    }
    Ok(())
}
