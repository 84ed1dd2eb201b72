//! Log records of transactions, and what applying them does.
//!
//! A record is an operation of a batch like any other, under a command number that no command has.
//! Applying it depends on the ledger and the items alone, so that all replicas do the same.

use super::ledger::{Ledger, Prepared, number, shards, take, take_number, take_shards};
use super::{LockSet, TransactionId, overlay};
use crate::arguments::{Arguments, OwnedArguments};
use crate::batch::{Batch, Operation};
use crate::ids::{Deadline, ShardId};
use crate::keyspace::{Edit, Item, Key, KeyHash, Shape};
use crate::rdb;
use crate::stamp::Answer;
use crate::value::ValueType;
use bytes::Bytes;

/// The command number of records of transactions.
pub const RECORD: u16 = u16::MAX;
/// The command number of an effect that sets or removes one key.
pub const INSTALL: u16 = u16::MAX - 1;

/// The first argument of a record.
const NAME: &[u8] = b"transaction";
const PREPARE: u8 = 1;
const COMMIT: u8 = 2;
const ABORT: u8 = 3;
const REFUSE: u8 = 4;
const FORGET: u8 = 5;

/// A log record of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// This shard will commit if all others do.
    Prepare {
        /// The transaction.
        id: TransactionId,
        /// All shards that prepare, this one included. When it is the only one, it commits at
        /// once.
        participants: Vec<ShardId>,
        /// What is locked exclusively.
        locks: LockSet,
        /// A batch of operations.
        effects: Bytes,
    },
    /// All have prepared: the effects are applied.
    Commit(TransactionId),
    /// One has refused: the effects are dropped.
    Abort(TransactionId),
    /// Not prepared before here in the log, and never after.
    Refuse(TransactionId),
    /// All participants have committed these: nobody will ask.
    Forget(Vec<TransactionId>),
}

/// What applying a record has led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The transaction is prepared here.
    Prepared(TransactionId),
    /// It is committed here, by this record or an earlier one.
    Committed(TransactionId),
    /// It is not committed here and, but for a record on its way, never will be.
    Refused(TransactionId),
    /// The record did not concern one transaction.
    Forgotten,
}

impl Record {
    /// The arguments of the record's operation. `name` goes first, for people who read logs.
    pub fn arguments(&self) -> OwnedArguments {
        let mut body = Vec::with_capacity(64);
        let mut effects: &[u8] = &[];
        match self {
            Record::Prepare { id, participants, locks, effects: theirs } => {
                body.push(PREPARE);
                body.extend_from_slice(&id.bytes());
                shards(&mut body, participants);
                body.push((locks.whole == Some(true)).into());
                let written = locks.keys.iter().filter(|key| key.exclusive);
                number(&mut body, written.clone().count());
                written.for_each(|key| body.extend_from_slice(&key.hash.to_le_bytes()));
                effects = theirs;
            }
            Record::Commit(id) => {
                body.push(COMMIT);
                body.extend_from_slice(&id.bytes());
            }
            Record::Abort(id) => {
                body.push(ABORT);
                body.extend_from_slice(&id.bytes());
            }
            Record::Refuse(id) => {
                body.push(REFUSE);
                body.extend_from_slice(&id.bytes());
            }
            Record::Forget(ids) => {
                body.push(FORGET);
                number(&mut body, ids.len());
                ids.iter().for_each(|id| body.extend_from_slice(&id.bytes()));
            }
        }
        let bytes = NAME.len() + body.len() + effects.len();
        let mut arguments = OwnedArguments::with_room(3, bytes);
        [NAME, body.as_slice(), effects].into_iter().for_each(|word| arguments.push(word));
        arguments
    }

    /// Reads the arguments of a record's operation; `None` when they are not.
    pub fn read(arguments: Arguments<'_>) -> Option<Record> {
        let mut body = arguments.get(1)?;
        let input = &mut body;
        let kind = take(input, 1)?[0];
        if kind == FORGET {
            let count = take_number(input)?;
            let ids = (0..count).map(|_| TransactionId::from_bytes(take(input, 16)?));
            return Some(Record::Forget(ids.collect::<Option<_>>()?));
        }
        let id = TransactionId::from_bytes(take(input, 16)?)?;
        Some(match kind {
            PREPARE => {
                let participants = take_shards(input)?;
                let whole = take(input, 1)?[0] != 0;
                let count = take_number(input)?;
                let hashes = take(input, count.checked_mul(8)?)?.chunks_exact(8);
                let keys = hashes.map(|hash| super::LockKey {
                    hash: u64::from_le_bytes(hash.try_into().expect("chunks of eight")),
                    exclusive: true,
                });
                let locks = LockSet { keys: keys.collect(), whole: whole.then_some(true) };
                Record::Prepare {
                    id,
                    participants,
                    locks,
                    effects: Bytes::copy_from_slice(arguments.get(2)?),
                }
            }
            COMMIT => Record::Commit(id),
            ABORT => Record::Abort(id),
            REFUSE => Record::Refuse(id),
            _ => return None,
        })
    }
}

/// The transaction and the effects of a prepare record that names one shard, where they lie: it is
/// committed at once, and nothing else of it is needed.
fn prepared_alone<'a>(arguments: Arguments<'a>) -> Option<(TransactionId, &'a [u8])> {
    let mut body = arguments.get(1)?;
    let input = &mut body;
    if take(input, 1)?[0] != PREPARE {
        return None;
    }
    let id = TransactionId::from_bytes(take(input, 16)?)?;
    if take_number(input)? != 1 {
        return None;
    }
    Some((id, arguments.get(2)?))
}

/// Applies a record. `run` runs one operation of the effects, its place given, as any operation is
/// run. Panics when the arguments are not a record: the log's checksum was right, so the writer was
/// wrong.
pub fn apply(
    edit: &mut Edit<'_>,
    arguments: Arguments<'_>,
    run: &mut dyn FnMut(&mut Edit<'_>, usize, &Operation, Arguments<'_>),
) -> Applied {
    if let Some((id, effects)) = prepared_alone(arguments) {
        run_effects(edit, effects, run);
        return Applied::Committed(id);
    }
    let record = Record::read(arguments).expect("a record of a transaction");
    match record {
        Record::Prepare { id, participants, locks, effects } => {
            let keys = locks.keys.iter().map(|key| key.hash).collect();
            let whole = locks.whole.is_some();
            let effects = Vec::from(effects);
            let prepared = Prepared { participants, keys, whole, effects };
            let ledger = edit.ledger_mut();
            debug_assert!(!ledger.committed.contains_key(&id), "{id} prepares once");
            let before = ledger.prepared.insert(id, prepared);
            debug_assert!(before.is_none(), "{id} prepares once");
            Applied::Prepared(id)
        }
        Record::Commit(id) => {
            // Twice by two leaders: the second one changes nothing.
            if let Some(prepared) = edit.ledger_mut().prepared.remove(&id) {
                run_effects(edit, &prepared.effects, run);
                let before = edit.ledger_mut().committed.insert(id, prepared.participants);
                debug_assert!(before.is_none(), "{id} commits once");
            }
            Applied::Committed(id)
        }
        Record::Abort(id) => {
            edit.ledger_mut().prepared.remove(&id);
            Applied::Refused(id)
        }
        Record::Refuse(id) => state(edit.ledger_mut(), id),
        Record::Forget(ids) => {
            for id in ids {
                edit.ledger_mut().committed.remove(&id);
            }
            Applied::Forgotten
        }
    }
}

fn state(ledger: &Ledger, id: TransactionId) -> Applied {
    if ledger.prepared.contains_key(&id) {
        Applied::Prepared(id)
    } else if ledger.committed.contains_key(&id) {
        Applied::Committed(id)
    } else {
        Applied::Refused(id)
    }
}

fn run_effects(
    edit: &mut Edit<'_>,
    effects: &[u8],
    run: &mut dyn FnMut(&mut Edit<'_>, usize, &Operation, Arguments<'_>),
) {
    let batch = Batch::read(effects).expect("effects are a batch");
    for place in 0..batch.count() {
        let (operation, arguments) = batch.operation(place);
        let mut edit = edit.of_database(operation.database());
        if operation.command() == INSTALL {
            install_here(&mut edit, operation.first_key(), arguments);
            if edit.has_changes() {
                // The coordinator tells of them: it knows by what command.
                edit.take_changes();
            }
        } else {
            run(&mut edit, place, operation, arguments);
        }
    }
    for stamped in batch.stamps() {
        let reply = match stamped.answer {
            Answer::Given(reply) => Some(reply),
            // The coordinator has written the reply, or nobody.
            Answer::Operation { .. } | Answer::None => None,
        };
        edit.remember(stamped.stamp, reply);
    }
}

const ABSENT: u8 = 255;
/// Behind the deadline stand the bits of type and form, and the value is not the bytes of a string.
const COLLECTION: u8 = 3;

/// The arguments of an effect that makes a key what it is in an overlay: an item, or nothing.
pub fn install(key: &[u8], item: Option<Item<'_>>) -> OwnedArguments {
    let (mut head, mut encoded) = (vec![ABSENT; 9], Vec::new());
    let mut value: &[u8] = &[];
    if let Some(item) = item {
        // The one time that no deadline has stands for none.
        let deadline = item.deadline().map_or(i64::MIN, |deadline| deadline.0);
        head[1..].copy_from_slice(&deadline.to_le_bytes());
        match item.shape() {
            shape @ Shape::String(_) => {
                head[0] = shape.form_byte();
                value = item.string().expect("its type says so");
            }
            shape @ Shape::Collection(value_type, _) => {
                head[0] = COLLECTION;
                head.extend_from_slice(&[value_type as u8, shape.form_byte()]);
                rdb::write_value(&mut encoded, item.value());
                value = &encoded;
            }
        }
    }
    [b"install", key, head.as_slice(), value].into_iter().collect()
}

pub(super) fn install_here(edit: &mut Edit<'_>, hash: KeyHash, arguments: Arguments<'_>) {
    let key = Key::new(arguments.at(1), hash);
    let head = arguments.at(2);
    let (kind, behind) = head.split_first().expect("install wrote nine bytes or more");
    let (deadline, shape) = behind.split_first_chunk().expect("a deadline follows");
    let shape = match (*kind, shape) {
        (ABSENT, _) => {
            edit.remove(&key);
            return;
        }
        (COLLECTION, &[value_type, form]) => {
            ValueType::from_number(value_type).and_then(|known| Shape::read(known, form))
        }
        (form, _) => Shape::read(ValueType::String, form),
    };
    let deadline = i64::from_le_bytes(*deadline);
    let deadline = (deadline != i64::MIN).then_some(Deadline(deadline));
    let shape = shape.expect("a shape of this version or older");
    overlay::set(edit, &key, shape, arguments.at(3), deadline);
}
