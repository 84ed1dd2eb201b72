//! Messages of transactions as bytes between nodes; `docs/formats.md` has them.
//!
//! What a shard is asked to read and what it has read are the driver's: it says how ([`Wire`]).

use bytes::Bytes;

use super::message::{Message, State, ToCoordinator, ToShard};
use super::overlay::{Fetched, FetchedItem};
use super::{LockKey, LockSet, TransactionId};
use crate::ids::{DatabaseIndex, Deadline, ShardId};
use crate::keyspace::Shape;
use crate::value::ValueType;
use crate::wire::{Garbage, Reader, Wire, put_string};

const LOCK: u8 = 1;
const YIELDED: u8 = 2;
const CONFIRM: u8 = 3;
const PREPARE: u8 = 4;
const RELEASE: u8 = 5;
const DECIDE: u8 = 6;
const FORGET: u8 = 7;
const QUERY: u8 = 8;
const ANSWER: u8 = 9;
const KEEP: u8 = 10;
const GRANTED: u8 = 32;
const FAILED: u8 = 33;
const YIELD: u8 = 34;
const CONFIRMED: u8 = 35;
const PREPARED: u8 = 36;
const REFUSED: u8 = 37;
const DONE: u8 = 38;
const NOT_LEADER: u8 = 39;

/// The bytes of a message.
pub fn put_message<F: Wire, V: Wire>(message: &Message<F, V>) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    match message {
        Message::Shard(shard, message) => put_to_shard(*shard, message, &mut out),
        Message::Coordinator(coordinator, message) => {
            put_to_coordinator(*coordinator, message, &mut out);
        }
    }
    out
}

fn put_to_shard<F: Wire>(shard: ShardId, message: &ToShard<F>, out: &mut Vec<u8>) {
    let mut head = |kind: u8, id: &TransactionId| {
        out.push(kind);
        out.extend_from_slice(&shard.0.to_le_bytes());
        out.extend_from_slice(&id.bytes());
    };
    match message {
        ToShard::Lock { id, coordinator, locks, fetch } => {
            head(LOCK, id);
            out.extend_from_slice(&coordinator.to_le_bytes());
            put_locks(locks, out);
            fetch.put(out);
        }
        ToShard::Yielded(id) => head(YIELDED, id),
        ToShard::Confirm { id, coordinator } => {
            head(CONFIRM, id);
            out.extend_from_slice(&coordinator.to_le_bytes());
        }
        ToShard::Prepare { id, coordinator, participants, effects, again } => {
            head(PREPARE, id);
            out.extend_from_slice(&coordinator.to_le_bytes());
            out.push((*again).into());
            out.extend_from_slice(&(participants.len() as u32).to_le_bytes());
            participants.iter().for_each(|shard| out.extend_from_slice(&shard.0.to_le_bytes()));
            put_string(out, effects);
        }
        ToShard::Keep(id) => head(KEEP, id),
        ToShard::Release(id) => head(RELEASE, id),
        ToShard::Decide { id, coordinator, commit } => {
            head(DECIDE, id);
            out.extend_from_slice(&coordinator.to_le_bytes());
            out.push((*commit).into());
        }
        ToShard::Forget(id) => head(FORGET, id),
        ToShard::Query { id, from } => {
            head(QUERY, id);
            out.extend_from_slice(&from.0.to_le_bytes());
        }
        ToShard::Answer { id, from, state } => {
            head(ANSWER, id);
            out.extend_from_slice(&from.0.to_le_bytes());
            out.push(match state {
                State::Prepared => 0,
                State::Committed => 1,
                State::Refused => 2,
            });
        }
    }
}

fn put_to_coordinator<V: Wire>(coordinator: u64, message: &ToCoordinator<V>, out: &mut Vec<u8>) {
    let mut head = |kind: u8, id: &TransactionId, shard: &ShardId| {
        out.push(kind);
        out.extend_from_slice(&coordinator.to_le_bytes());
        out.extend_from_slice(&id.bytes());
        out.extend_from_slice(&shard.0.to_le_bytes());
    };
    match message {
        ToCoordinator::Granted { id, shard, alone, values } => {
            head(GRANTED, id, shard);
            out.push((*alone).into());
            values.put(out);
        }
        ToCoordinator::Failed { id, shard, reason } => {
            head(FAILED, id, shard);
            put_string(out, reason.as_bytes());
        }
        ToCoordinator::Yield { id, shard } => head(YIELD, id, shard),
        ToCoordinator::Confirmed { id, shard, leads } => {
            head(CONFIRMED, id, shard);
            out.push((*leads).into());
        }
        ToCoordinator::Prepared { id, shard } => head(PREPARED, id, shard),
        ToCoordinator::Refused { id, shard } => head(REFUSED, id, shard),
        ToCoordinator::Done { id, shard } => head(DONE, id, shard),
        ToCoordinator::NotLeader { id, shard } => head(NOT_LEADER, id, shard),
    }
}

fn put_locks(locks: &LockSet, out: &mut Vec<u8>) {
    out.push(match locks.whole {
        None => 0,
        Some(false) => 1,
        Some(true) => 2,
    });
    out.extend_from_slice(&(locks.keys.len() as u32).to_le_bytes());
    for key in &locks.keys {
        out.extend_from_slice(&key.hash.to_le_bytes());
        out.push(key.exclusive.into());
    }
}

/// Reads a message.
pub fn take_message<F: Wire, V: Wire>(bytes: Bytes) -> Result<Message<F, V>, Garbage> {
    let mut input = Reader::new(bytes, "a message of a transaction");
    let kind = input.u8()?;
    let message = if kind < GRANTED {
        let (shard, id) = (ShardId(input.u16()?), take_id(&mut input)?);
        Message::Shard(shard, take_to_shard(kind, id, &mut input)?)
    } else {
        let (coordinator, id) = (input.u64()?, take_id(&mut input)?);
        let shard = ShardId(input.u16()?);
        Message::Coordinator(coordinator, take_to_coordinator(kind, id, shard, &mut input)?)
    };
    input.end()?;
    Ok(message)
}

fn take_to_shard<F: Wire>(
    kind: u8,
    id: TransactionId,
    input: &mut Reader,
) -> Result<ToShard<F>, Garbage> {
    Ok(match kind {
        LOCK => ToShard::Lock {
            id,
            coordinator: input.u64()?,
            locks: take_locks(input)?,
            fetch: F::take(input)?,
        },
        YIELDED => ToShard::Yielded(id),
        CONFIRM => ToShard::Confirm { id, coordinator: input.u64()? },
        PREPARE => {
            let (coordinator, again) = (input.u64()?, input.u8()? != 0);
            let count = input.count(2)?;
            let shards = (0..count).map(|_| Ok(ShardId(input.u16()?)));
            let participants = shards.collect::<Result<_, Garbage>>()?;
            let effects = input.string()?;
            ToShard::Prepare { id, coordinator, participants, effects, again }
        }
        KEEP => ToShard::Keep(id),
        RELEASE => ToShard::Release(id),
        DECIDE => ToShard::Decide { id, coordinator: input.u64()?, commit: input.u8()? != 0 },
        FORGET => ToShard::Forget(id),
        QUERY => ToShard::Query { id, from: ShardId(input.u16()?) },
        ANSWER => ToShard::Answer {
            id,
            from: ShardId(input.u16()?),
            state: match input.u8()? {
                0 => State::Prepared,
                1 => State::Committed,
                2 => State::Refused,
                other => return Err(Reader::unknown("a state of a transaction", other)),
            },
        },
        other => return Err(Reader::unknown("a message of a transaction", other)),
    })
}

fn take_to_coordinator<V: Wire>(
    kind: u8,
    id: TransactionId,
    shard: ShardId,
    input: &mut Reader,
) -> Result<ToCoordinator<V>, Garbage> {
    Ok(match kind {
        GRANTED => {
            let (alone, values) = (input.u8()? != 0, V::take(input)?);
            ToCoordinator::Granted { id, shard, alone, values }
        }
        FAILED => {
            let reason = String::from_utf8_lossy(&input.string()?).into_owned();
            ToCoordinator::Failed { id, shard, reason }
        }
        YIELD => ToCoordinator::Yield { id, shard },
        CONFIRMED => ToCoordinator::Confirmed { id, shard, leads: input.u8()? != 0 },
        PREPARED => ToCoordinator::Prepared { id, shard },
        REFUSED => ToCoordinator::Refused { id, shard },
        DONE => ToCoordinator::Done { id, shard },
        NOT_LEADER => ToCoordinator::NotLeader { id, shard },
        other => return Err(Reader::unknown("a message of a transaction", other)),
    })
}

fn take_id(input: &mut Reader) -> Result<TransactionId, Garbage> {
    Ok(TransactionId { time: input.u64()?, origin: input.u64()? })
}

fn take_locks(input: &mut Reader) -> Result<LockSet, Garbage> {
    let whole = match input.u8()? {
        0 => None,
        1 => Some(false),
        2 => Some(true),
        other => return Err(Reader::unknown("a lock of a whole shard", other)),
    };
    let count = input.count(9)?;
    let mut keys = smallvec::SmallVec::new();
    for _ in 0..count {
        keys.push(LockKey { hash: input.u64()?, exclusive: input.u8()? != 0 });
    }
    Ok(LockSet { keys, whole })
}

/// Keys to read.
impl Wire for Vec<Vec<u8>> {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.len() as u32).to_le_bytes());
        self.iter().for_each(|key| put_string(out, key));
    }

    fn take(input: &mut Reader) -> Result<Vec<Vec<u8>>, Garbage> {
        let count = input.count(4)?;
        (0..count).map(|_| Ok(input.string()?.to_vec())).collect()
    }
}

/// Keys as they were in their shard.
impl Wire for Vec<Fetched> {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.len() as u32).to_le_bytes());
        for fetched in self {
            out.push(fetched.database.0);
            put_string(out, &fetched.key);
            match &fetched.item {
                None => out.push(u8::MAX),
                Some(item) => {
                    let value_type = match item.shape {
                        Shape::String(_) => ValueType::String,
                        Shape::Collection(value_type, _) => value_type,
                    };
                    out.extend_from_slice(&[value_type as u8, item.shape.form_byte()]);
                    // The one time that no deadline has stands for none.
                    let deadline = item.deadline.map_or(i64::MIN, |deadline| deadline.0);
                    out.extend_from_slice(&deadline.to_le_bytes());
                    put_string(out, &item.value);
                }
            }
        }
    }

    fn take(input: &mut Reader) -> Result<Vec<Fetched>, Garbage> {
        let count = input.count(6)?;
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            let (database, key) = (DatabaseIndex(input.u8()?), input.string()?.to_vec());
            if usize::from(database.0) >= crate::limits::DATABASE_COUNT {
                return Err(Reader::unknown("a database", database.0));
            }
            let value_type = input.u8()?;
            let item = match value_type {
                u8::MAX => None,
                _ => Some(take_item(value_type, input)?),
            };
            all.push(Fetched { database, key, item });
        }
        Ok(all)
    }
}

fn take_item(value_type: u8, input: &mut Reader) -> Result<FetchedItem, Garbage> {
    let form = input.u8()?;
    let known = ValueType::from_number(value_type);
    let shape = known.and_then(|known| Shape::read(known, form));
    let shape = shape.ok_or_else(|| Reader::unknown("a shape of a value", value_type))?;
    let deadline = input.u64()? as i64;
    let deadline = (deadline != i64::MIN).then_some(Deadline(deadline));
    Ok(FetchedItem { value: input.string()?.to_vec(), shape, deadline })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::StringForm;

    type Sample = Message<Vec<Vec<u8>>, Vec<Fetched>>;

    fn samples() -> Vec<Sample> {
        let id = TransactionId { time: 77, origin: 1 << 60 };
        let (shard, coordinator) = (ShardId(9), u64::MAX - 1);
        let locks = LockSet {
            keys: [LockKey { hash: 5, exclusive: true }, LockKey { hash: 6, exclusive: false }]
                .into_iter()
                .collect(),
            whole: Some(false),
        };
        let fetch = vec![b"key".to_vec(), Vec::new()];
        let item = FetchedItem {
            value: b"value".to_vec(),
            shape: Shape::String(StringForm::Automatic),
            deadline: Some(Deadline(-5)),
        };
        let database = DatabaseIndex(3);
        let values = vec![
            Fetched { database, key: b"key".to_vec(), item: Some(item) },
            Fetched { database, key: Vec::new(), item: None },
        ];
        let participants = vec![ShardId(1), ShardId(2)];
        let effects = Bytes::from_static(b"effects");
        let to_shard = [
            ToShard::Lock { id, coordinator, locks, fetch },
            ToShard::Yielded(id),
            ToShard::Confirm { id, coordinator },
            ToShard::Prepare { id, coordinator, participants, effects, again: true },
            ToShard::Release(id),
            ToShard::Decide { id, coordinator, commit: true },
            ToShard::Forget(id),
            ToShard::Query { id, from: ShardId(4) },
            ToShard::Answer { id, from: ShardId(4), state: State::Refused },
            ToShard::Keep(id),
        ];
        let to_coordinator = [
            ToCoordinator::Granted { id, shard, alone: true, values },
            ToCoordinator::Failed { id, shard, reason: "ERR no".into() },
            ToCoordinator::Yield { id, shard },
            ToCoordinator::Confirmed { id, shard, leads: true },
            ToCoordinator::Prepared { id, shard },
            ToCoordinator::Refused { id, shard },
            ToCoordinator::Done { id, shard },
            ToCoordinator::NotLeader { id, shard },
        ];
        let shards = to_shard.into_iter().map(|message| Message::Shard(shard, message));
        let coordinators =
            to_coordinator.into_iter().map(|message| Message::Coordinator(coordinator, message));
        shards.chain(coordinators).collect()
    }

    #[test]
    fn every_message_arrives_as_it_was_and_none_in_part() {
        for message in samples() {
            let bytes = Bytes::from(put_message(&message));
            let read: Sample = take_message(bytes.clone()).expect("it was written");
            assert_eq!(format!("{read:?}"), format!("{message:?}"));
            for length in 0..bytes.len() {
                let part: Result<Sample, _> = take_message(bytes.slice(..length));
                assert!(part.is_err(), "{message:?} in {length} bytes");
            }
            let more: Result<Sample, _> = take_message([&bytes[..], b"x"].concat().into());
            let behind = Garbage::Behind("a message of a transaction");
            assert_eq!(more.err(), Some(behind));
        }
    }

    #[test]
    fn numbers_that_mean_nothing_are_refused() {
        let unlike = |at: usize, byte: u8, sample: usize| {
            let mut bytes = put_message(&samples()[sample]);
            bytes[at] = byte;
            let read: Result<Sample, _> = take_message(bytes.into());
            read.expect_err("garbage").to_string()
        };
        assert_eq!(unlike(0, 200, 10), "a message of a transaction: there is no 200");
        assert_eq!(unlike(27, 3, 0), "a lock of a whole shard: there is no 3");
        assert_eq!(unlike(21, 9, 8), "a state of a transaction: there is no 9");
    }
}
