//! The header of `state.ring`: which items these are.
//!
//! Its first 16 bytes and the CRC-32 that ends it stay where they are in every format version, so
//! that a newer file is told from a damaged one.

use super::cursor::Cursor;
use super::error::{Flaw, ReadError};
use crate::ids::{ClusterId, Index, NodeId, ShardId, Term};
use crate::limits::SNAPSHOT_HEADER_BYTES_MAX;
use crate::slot::{SLOT_COUNT, Slot, SlotScheme};

/// The first eight bytes of every snapshot.
pub const MAGIC: [u8; 8] = *b"RINGSNAP";
/// The format that this ringraft writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 3;
/// Bytes before the part whose shape depends on the version: magic, version, length.
pub(crate) const PREFIX_BYTES: usize = 16;

/// Slots from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRange {
    /// The first slot.
    pub first: Slot,
    /// The last slot; not below the first.
    pub last: Slot,
}

impl SlotRange {
    /// Every slot.
    pub fn all() -> SlotRange {
        let slot = |n| Slot::new(n).expect("0 and the last slot are slots");
        SlotRange { first: slot(0), last: slot(SLOT_COUNT - 1) }
    }
}

/// The members of a shard's group, as raft-rs' `ConfState` has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Membership {
    /// Nodes whose votes count.
    pub voters: Vec<NodeId>,
    /// Nodes that receive the log and have no vote.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub learners: Vec<NodeId>,
    /// Voters of the configuration that a joint one leaves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub voters_outgoing: Vec<NodeId>,
    /// Voters that become learners when the joint configuration is left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub learners_next: Vec<NodeId>,
    /// The joint configuration is left by itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub auto_leave: bool,
}

impl From<&raft::eraftpb::ConfState> for Membership {
    fn from(state: &raft::eraftpb::ConfState) -> Membership {
        let nodes = |ids: &[u64]| ids.iter().map(|&id| NodeId(id)).collect();
        Membership {
            voters: nodes(&state.voters),
            learners: nodes(&state.learners),
            voters_outgoing: nodes(&state.voters_outgoing),
            learners_next: nodes(&state.learners_next),
            auto_leave: state.auto_leave,
        }
    }
}

impl From<&Membership> for raft::eraftpb::ConfState {
    fn from(membership: &Membership) -> raft::eraftpb::ConfState {
        let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect::<Vec<_>>();
        let mut state = raft::eraftpb::ConfState::default();
        state.set_voters(ids(&membership.voters));
        state.set_learners(ids(&membership.learners));
        state.set_voters_outgoing(ids(&membership.voters_outgoing));
        state.set_learners_next(ids(&membership.learners_next));
        state.set_auto_leave(membership.auto_leave);
        state
    }
}

/// What a snapshot is of. The same on every node: nothing in it names the one that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The cluster.
    pub cluster: ClusterId,
    /// The shard.
    pub shard: ShardId,
    /// Term of the last entry applied.
    pub term: Term,
    /// Index of the last entry applied.
    pub index: Index,
    /// Slots of the shard, ascending.
    pub slots: Vec<SlotRange>,
    /// How keys are placed in slots.
    pub slot_scheme: SlotScheme,
    /// The seed of the cluster's key hash.
    pub key_hash_seed: u64,
    /// Wall clock at the start of writing, milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// The latest time that anything was judged by: no later entry may have an earlier one, unless
    /// time is turned back before it.
    pub leader_time_ms: i64,
    /// The group's members at the index.
    pub membership: Membership,
}

impl Header {
    /// The bytes, checksum included.
    pub fn encode(&self) -> Vec<u8> {
        let members = &self.membership;
        let lists =
            [&members.voters, &members.learners, &members.voters_outgoing, &members.learners_next];
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.cluster.0.to_le_bytes());
        out.extend_from_slice(&self.shard.0.to_le_bytes());
        out.extend_from_slice(&self.slot_scheme.number().to_le_bytes());
        out.extend_from_slice(&self.term.0.to_le_bytes());
        out.extend_from_slice(&self.index.0.to_le_bytes());
        out.extend_from_slice(&self.key_hash_seed.to_le_bytes());
        out.extend_from_slice(&self.created_ms.to_le_bytes());
        out.extend_from_slice(&self.leader_time_ms.to_le_bytes());
        out.push(u8::from(members.auto_leave));
        let count = |n: usize| u16::try_from(n).expect("a header has few slots and nodes");
        out.extend_from_slice(&count(self.slots.len()).to_le_bytes());
        for list in lists {
            out.extend_from_slice(&count(list.len()).to_le_bytes());
        }
        for range in &self.slots {
            out.extend_from_slice(&(range.first.number() as u16).to_le_bytes());
            out.extend_from_slice(&(range.last.number() as u16).to_le_bytes());
        }
        for node in lists.into_iter().flatten() {
            out.extend_from_slice(&node.0.to_le_bytes());
        }
        let length = out.len() + 4;
        assert!(length <= SNAPSHOT_HEADER_BYTES_MAX, "a header of {length} bytes");
        out[12..16].copy_from_slice(&(length as u32).to_le_bytes());
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Length of the whole header, from its first [`PREFIX_BYTES`] bytes. Not yet checked by the
    /// CRC.
    pub(crate) fn length(prefix: &[u8; PREFIX_BYTES]) -> Result<usize, ReadError> {
        if prefix[..8] != MAGIC {
            return Err(ReadError::damaged(0, Flaw::Magic));
        }
        let length = u32::from_le_bytes([prefix[12], prefix[13], prefix[14], prefix[15]]) as usize;
        if !(PREFIX_BYTES + 4..=SNAPSHOT_HEADER_BYTES_MAX).contains(&length) {
            let limit = SNAPSHOT_HEADER_BYTES_MAX as u64;
            let flaw = Flaw::Length { what: "the header", length: length as u64, limit };
            return Err(ReadError::damaged(12, flaw));
        }
        Ok(length)
    }

    /// Reads a whole header: as many bytes as its length field says.
    pub fn decode(bytes: &[u8]) -> Result<Header, ReadError> {
        let too_short = || ReadError::damaged(0, Flaw::Truncated { what: "the header" });
        let (body, recorded) = bytes.split_last_chunk::<4>().ok_or_else(too_short)?;
        let (found, recorded) = (crc32fast::hash(body), u32::from_le_bytes(*recorded));
        if found != recorded {
            let flaw = Flaw::Checksum { what: "the header", found, recorded };
            return Err(ReadError::damaged(body.len() as u64, flaw));
        }
        let mut cursor = Cursor::new(body);
        cursor.take(8).ok_or_else(too_short)?;
        let version = cursor.u32().ok_or_else(too_short)?;
        if version > FORMAT_VERSION {
            return Err(ReadError::NewerFormat { found: version, known: FORMAT_VERSION });
        }
        if version == 0 {
            let flaw = Flaw::Unknown { what: "format version", found: 0 };
            return Err(ReadError::damaged(8, flaw));
        }
        cursor.take(4).ok_or_else(too_short)?;
        let header = Header::decode_body(&mut cursor)?.ok_or_else(too_short)?;
        if !cursor.is_at_end() {
            let count = (body.len() - cursor.position()) as u64;
            let flaw = Flaw::Unknown { what: "header remainder of bytes", found: count };
            return Err(ReadError::damaged(cursor.position() as u64, flaw));
        }
        Ok(header)
    }

    /// The part after the prefix; `Ok(None)` when it is too short.
    fn decode_body(cursor: &mut Cursor<'_>) -> Result<Option<Header>, ReadError> {
        let at = cursor.position() as u64;
        let fixed = (|| {
            let cluster = ClusterId(cursor.u128()?);
            let shard = ShardId(cursor.u16()?);
            let scheme = cursor.u16()?;
            let (term, index) = (Term(cursor.u64()?), Index(cursor.u64()?));
            let (key_hash_seed, created_ms) = (cursor.u64()?, cursor.i64()?);
            let (leader_time_ms, auto_leave) = (cursor.i64()?, cursor.u8()?);
            let header = Header {
                cluster,
                shard,
                term,
                index,
                slot_scheme: SlotScheme::default(),
                slots: Vec::new(),
                key_hash_seed,
                created_ms,
                leader_time_ms,
                membership: Membership { auto_leave: auto_leave != 0, ..Membership::default() },
            };
            let counts =
                [cursor.u16()?, cursor.u16()?, cursor.u16()?, cursor.u16()?, cursor.u16()?];
            Some((header, scheme, counts))
        })();
        let Some((mut header, scheme, counts)) = fixed else { return Ok(None) };
        let Some(slot_scheme) = SlotScheme::of_number(scheme) else {
            let flaw = Flaw::Unknown { what: "slot scheme", found: scheme.into() };
            return Err(ReadError::damaged(at + 18, flaw));
        };
        header.slot_scheme = slot_scheme;
        for _ in 0..counts[0] {
            let at = cursor.position() as u64;
            let (Some(first), Some(last)) = (cursor.u16(), cursor.u16()) else { return Ok(None) };
            let (Some(first), Some(last)) = (Slot::new(first.into()), Slot::new(last.into()))
            else {
                let flaw = Flaw::Unknown { what: "slot", found: first.max(last).into() };
                return Err(ReadError::damaged(at, flaw));
            };
            header.slots.push(SlotRange { first, last });
        }
        let members = &mut header.membership;
        let lists = [
            &mut members.voters,
            &mut members.learners,
            &mut members.voters_outgoing,
            &mut members.learners_next,
        ];
        for (list, &count) in lists.into_iter().zip(&counts[1..]) {
            for _ in 0..count {
                let Some(node) = cursor.u64() else { return Ok(None) };
                list.push(NodeId(node));
            }
        }
        Ok(Some(header))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn example() -> Header {
        Header {
            cluster: ClusterId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
            shard: ShardId(3),
            term: Term(7),
            index: Index(4711),
            slot_scheme: SlotScheme::Codis,
            slots: vec![SlotRange::all()],
            key_hash_seed: 42,
            created_ms: 1_700_000_000_000,
            leader_time_ms: 1_700_000_000_001,
            membership: Membership {
                voters: vec![NodeId(1), NodeId(2), NodeId(3)],
                learners: vec![NodeId(4)],
                voters_outgoing: vec![NodeId(1)],
                learners_next: vec![],
                auto_leave: true,
            },
        }
    }

    #[test]
    fn header_round_trip() {
        let header = example();
        for slot_scheme in [SlotScheme::Codis, SlotScheme::Redis] {
            let header = Header { slot_scheme, ..header.clone() };
            let bytes = header.encode();
            let prefix = bytes.first_chunk().expect("longer than its prefix");
            assert_eq!(Header::length(prefix).expect("good"), bytes.len());
            assert_eq!(Header::decode(&bytes).expect("good"), header);
        }
        let state = raft::eraftpb::ConfState::from(&header.membership);
        assert_eq!(Membership::from(&state), header.membership);
    }

    #[test]
    fn a_newer_format_is_named() {
        let mut bytes = example().encode();
        bytes[8] = 4;
        let end = bytes.len() - 4;
        let crc = crc32fast::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(&crc.to_le_bytes());
        let error = Header::decode(&bytes).expect_err("newer");
        assert!(matches!(error, ReadError::NewerFormat { found: 4, known: 3 }), "{error}");
        assert!(error.to_string().contains("snapshot format 4"), "{error}");
    }

    #[test]
    fn every_flip_and_cut_is_an_error() {
        let bytes = example().encode();
        for i in 0..bytes.len() {
            assert!(Header::decode(&bytes[..i]).is_err(), "cut at {i}");
            let mut flipped = bytes.clone();
            flipped[i] ^= 0x10;
            assert!(Header::decode(&flipped).is_err(), "flipped {i}");
        }
    }
}
