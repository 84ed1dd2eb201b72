//! What a shard remembers of transactions: those it has prepared, and those it has committed that
//! others may still ask about. Replicated state: changed by log records alone, part of snapshots
//! and of the digest.

use super::TransactionId;
use crate::ids::ShardId;
use std::collections::BTreeMap;

/// A transaction that this shard will commit if all others do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// All shards that prepare, this one included.
    pub participants: Vec<ShardId>,
    /// What is locked: hashes of keys.
    pub keys: Vec<u64>,
    /// Is the whole shard locked?
    pub whole: bool,
    /// A batch of operations.
    pub effects: Vec<u8>,
}

/// The ledger of a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    pub(super) prepared: BTreeMap<TransactionId, Prepared>,
    /// Committed ones and the shards that took part.
    pub(super) committed: BTreeMap<TransactionId, Vec<ShardId>>,
}

impl Ledger {
    /// Transactions that are prepared and not decided here.
    pub fn prepared_count(&self) -> usize {
        self.prepared.len()
    }

    /// What the transactions that are prepared and not decided here will do: a batch each.
    pub fn undecided(&self) -> impl Iterator<Item = &[u8]> {
        self.prepared.values().map(|prepared| prepared.effects.as_slice())
    }

    /// Committed transactions that are still remembered.
    pub fn committed_count(&self) -> usize {
        self.committed.len()
    }

    /// Is there nothing in it?
    pub fn is_empty(&self) -> bool {
        self.prepared.is_empty() && self.committed.is_empty()
    }

    /// Its bytes, for snapshots and digests; equal ledgers have equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        number(&mut out, self.prepared.len());
        for (id, prepared) in &self.prepared {
            out.extend_from_slice(&id.bytes());
            shards(&mut out, &prepared.participants);
            out.push(prepared.whole.into());
            number(&mut out, prepared.keys.len());
            prepared.keys.iter().for_each(|key| out.extend_from_slice(&key.to_le_bytes()));
            number(&mut out, prepared.effects.len());
            out.extend_from_slice(&prepared.effects);
        }
        number(&mut out, self.committed.len());
        for (id, participants) in &self.committed {
            out.extend_from_slice(&id.bytes());
            shards(&mut out, participants);
        }
        out
    }

    /// Reads what [`Ledger::encode`] wrote; `None` when it did not.
    pub fn decode(mut bytes: &[u8]) -> Option<Ledger> {
        let input = &mut bytes;
        let mut ledger = Ledger::default();
        for _ in 0..take_number(input)? {
            let id = TransactionId::from_bytes(take(input, 16)?)?;
            let participants = take_shards(input)?;
            let whole = take(input, 1)?[0] != 0;
            let count = take_number(input)?;
            let keys = take(input, count.checked_mul(8)?)?;
            let keys = keys.chunks_exact(8).map(|key| key.try_into().map(u64::from_le_bytes));
            let keys = keys.collect::<Result<_, _>>().ok()?;
            let length = take_number(input)?;
            let effects = take(input, length)?.to_vec();
            let prepared = Prepared { participants, keys, whole, effects };
            ledger.prepared.insert(id, prepared);
        }
        for _ in 0..take_number(input)? {
            let id = TransactionId::from_bytes(take(input, 16)?)?;
            ledger.committed.insert(id, take_shards(input)?);
        }
        input.is_empty().then_some(ledger)
    }
}

pub(super) fn number(out: &mut Vec<u8>, number: usize) {
    out.extend_from_slice(&(number as u32).to_le_bytes());
}

pub(super) fn shards(out: &mut Vec<u8>, shards: &[ShardId]) {
    number(out, shards.len());
    shards.iter().for_each(|shard| out.extend_from_slice(&shard.0.to_le_bytes()));
}

pub(super) fn take<'a>(input: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(count)?;
    *input = rest;
    Some(taken)
}

pub(super) fn take_number(input: &mut &[u8]) -> Option<usize> {
    let bytes = take(input, 4)?.try_into().ok()?;
    Some(u32::from_le_bytes(bytes) as usize)
}

pub(super) fn take_shards(input: &mut &[u8]) -> Option<Vec<ShardId>> {
    let count = take_number(input)?;
    let bytes = take(input, count.checked_mul(2)?)?;
    Some(bytes.chunks_exact(2).map(|n| ShardId(u16::from_le_bytes([n[0], n[1]]))).collect())
}

#[cfg(test)]
impl Ledger {
    /// One with something of everything.
    pub(crate) fn example() -> Ledger {
        let id = |time| TransactionId { time, origin: 77 };
        let mut ledger = Ledger::default();
        let participants = vec![ShardId(1), ShardId(900)];
        let prepared = Prepared {
            participants: participants.clone(),
            keys: vec![1, u64::MAX],
            whole: true,
            effects: b"effects".to_vec(),
        };
        ledger.prepared.insert(id(1), prepared.clone());
        ledger.prepared.insert(id(2), Prepared { whole: false, keys: vec![], ..prepared });
        ledger.committed.insert(id(3), participants);
        ledger
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_reads_back_and_every_cut_is_noticed() {
        let empty = Ledger::default();
        assert_eq!(Ledger::decode(&empty.encode()), Some(empty));
        let ledger = Ledger::example();
        let bytes = ledger.encode();
        assert_eq!(Ledger::decode(&bytes), Some(ledger));
        for length in 0..bytes.len() {
            assert_eq!(Ledger::decode(&bytes[..length]), None, "{length}");
        }
        assert_eq!(Ledger::decode(&[&bytes[..], b"x"].concat()), None);
    }
}
