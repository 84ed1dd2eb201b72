//! Where a script's commands run: on copies of items, or on a shard's own.

#![allow(unsafe_code)]

use super::call::Run;
use super::interpreter::{Interpreter, Job};
use crate::core::shard::seed_of;
use crate::limits::SCRIPT_LOGGED_BYTES_MAX;
use crate::refusal::Refusal;
use ringraft_shards::arguments::Arguments;
use ringraft_shards::batch::{BatchBuilder, BatchMark};
use ringraft_shards::ids::DatabaseIndex;
use ringraft_shards::keyspace::{Edit, Key, KeyHash, Keyspace};
use ringraft_shards::transaction::{Overlay, Undo};
use std::ops::Range;
use std::ptr::NonNull;

/// Where commands run.
pub enum Ground {
    /// On copies.
    Overlay(Box<Overlay>),
    /// On the items themselves.
    Shard(Box<OwnItems>),
}

/// A shard's own items, while a script runs on them. What it changes is saved before.
pub struct OwnItems {
    /// The items, while [`run_in_place`] runs; else nothing.
    keyspace: Option<NonNull<Keyspace>>,
    /// The slots whose keys are among them.
    slots: Range<usize>,
    /// What is needed to give up.
    pub undo: Undo,
    /// The entry that will say what was done; none where nobody reads entries.
    pub draft: Option<Draft>,
}

/// An entry that gathers what is done already.
pub struct Draft {
    batch: BatchBuilder,
    /// The entry's random bits.
    seed: u64,
    /// Where the operations of the present script begin.
    start: BatchMark,
    start_bytes: usize,
}

impl Draft {
    /// What a script does goes behind what the batch has. It is to be an entry with these random
    /// bits.
    pub fn new(batch: BatchBuilder, seed: u64) -> Draft {
        let (start, start_bytes) = (batch.mark(), batch.encoded_bytes());
        Draft { batch, seed, start, start_bytes }
    }

    /// The batch, with what the script has done.
    pub fn into_batch(self) -> BatchBuilder {
        self.batch
    }

    /// The batch as it was: the script is undone.
    pub fn into_batch_before(mut self) -> BatchBuilder {
        self.batch.truncate(self.start);
        self.batch
    }

    /// Bytes of the entry.
    pub fn bytes(&self) -> usize {
        self.batch.encoded_bytes()
    }

    /// Has the script done anything?
    pub fn has_grown(&self) -> bool {
        self.bytes() > self.start_bytes
    }

    /// Appends a command that is about to run, and returns its random bits. `None`: the script does
    /// too much.
    #[inline]
    fn push(
        &mut self,
        command: u16,
        database: DatabaseIndex,
        first_key: KeyHash,
        arguments: Arguments<'_>,
    ) -> Option<u64> {
        let place = self.batch.push(command, database, first_key, arguments);
        let is_short = self.bytes() - self.start_bytes <= SCRIPT_LOGGED_BYTES_MAX;
        is_short.then(|| seed_of(self.seed, place))
    }
}

impl OwnItems {
    /// Those of a shard with these slots, which are lent later.
    pub fn of(slots: Range<usize>) -> OwnItems {
        OwnItems { keyspace: None, slots, undo: Undo::default(), draft: None }
    }

    /// From now on those of a shard with these slots.
    pub fn choose(&mut self, slots: Range<usize>) {
        self.slots = slots;
    }

    /// Is a key among them?
    #[inline]
    pub fn have(&self, hash: KeyHash) -> bool {
        self.slots.contains(&hash.slot().number())
    }

    /// For changing them.
    #[inline]
    pub fn edit(&mut self, database: DatabaseIndex, now_ms: i64) -> Edit<'_> {
        let mut keyspace = self.keyspace.expect(LENT);
        // SAFETY: `run_in_place` has put it there, has lent the items for as long as it runs, and
        // takes it out before it returns; commands run one at a time, and what this returns
        // is bound to an exclusive borrow of `self`.
        unsafe { keyspace.as_mut() }.edit(database, now_ms)
    }

    /// Saves a key before it is changed.
    #[inline]
    pub fn save(&mut self, database: DatabaseIndex, key: &Key<'_>, now_ms: i64) {
        let keyspace = self.keyspace.expect(LENT);
        // SAFETY: as in `edit`; nothing changes the items while they are looked at.
        let view = unsafe { keyspace.as_ref() }.view(database, now_ms);
        self.undo.save(&view, key);
    }
}

impl OwnItems {
    /// A command is about to run that may change items. Returns its random bits, which are `seed`
    /// where no entry says what they are. `None`: it must not run here.
    #[inline]
    pub fn note(
        &mut self,
        command: u16,
        database: DatabaseIndex,
        first_key: KeyHash,
        arguments: Arguments<'_>,
        seed: u64,
    ) -> Option<u64> {
        match &mut self.draft {
            Some(draft) => draft.push(command, database, first_key, arguments),
            None => Some(seed),
        }
    }
}

const LENT: &str = "commands run while the items are lent";

impl Ground {
    /// The copies. Panics when it is not on copies that the script runs.
    pub fn overlay(&mut self) -> &mut Overlay {
        match self {
            Ground::Overlay(overlay) => overlay,
            _ => unreachable!("a script on a shard's own items does not ask for others"),
        }
    }

    /// The items themselves.
    pub fn own_items(&mut self) -> Option<&mut OwnItems> {
        match self {
            Ground::Shard(items) => Some(items),
            _ => None,
        }
    }
}

/// Runs a script on a shard's own items to its end: it does not rest. What it did may have to be
/// undone. Errors: it ends in one, or its reply cannot be written.
pub fn run_in_place(
    interpreter: &mut Interpreter,
    job: &Job,
    mut run: Box<Run>,
    reply: &mut Vec<u8>,
    keyspace: &mut Keyspace,
) -> (Box<Run>, Result<(), Refusal>) {
    run.ground.own_items().expect("the caller has said which").keyspace =
        Some(NonNull::from(keyspace));
    let (mut run, outcome) = interpreter.run_at_once(job, run, reply);
    if let Some(items) = run.ground.own_items() {
        items.keyspace = None;
    }
    (run, outcome)
}
